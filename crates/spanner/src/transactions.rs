//! Transactions between requests: which there are, what they have done, and how a request gets hold of one.
//!
//! A read-only transaction is its timestamp, and one of partitioned DML is nothing but its kind: their ids say so,
//! and nothing is kept. A read-write transaction's id begins with the time at which its first attempt began, so
//! that a retry that names its predecessor keeps its age; in a session that is not multiplexed the next transaction
//! after an aborted one is taken for its retry. Kept are the inner transaction, the answers to its numbered
//! statements, so that a repeated statement is answered and not done again, and its commit's answer, so that a
//! repeated commit is too.
//!
//! A transaction that nobody has used for ten seconds is aborted, so that no client that went away holds locks.

use crate::sessions::Session;
use crate::status::{aborted, of_api};
use crate::{Door, wire};
use api::{Commit, Mutation, Projection, ReadBound, ReadRequest, ReadResponse};
use async_trait::async_trait;
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use model::Timestamp;
use parking_lot::Mutex as SyncMutex;
use pb::transaction_options::read_write::ReadLockMode;
use pb::transaction_options::{
    IsolationLevel, Mode, ReadOnly, ReadWrite, read_only::TimestampBound,
};
use pb::transaction_selector::Selector;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tonic::Status;

pub const TRANSACTIONS_MAX: usize = 10_000;
/// A transaction that nobody used for so long is aborted (Spanner's own limit).
const IDLE_MICROS_MAX: i64 = 10 * 1_000_000;
/// How often idle ones are looked for.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Transactions that have ended and are remembered for clients that repeat themselves.
const ENDED_MAX: usize = 1_000;
/// What the id of a read-only transaction begins with. A read-write one's first byte is a time's, and low.
const READ_ONLY_TAG: u8 = 0xFF;
/// What the id of a partitioned DML transaction begins with.
const PARTITIONED_DML_TAG: u8 = 0xFE;
/// Numbered statements of one transaction whose answers are kept.
const STATEMENTS_MAX: usize = 100_000;

#[derive(Default)]
pub struct Transactions {
    state: SyncMutex<State>,
}

#[derive(Default)]
struct State {
    by_id: BTreeMap<Vec<u8>, Entry>,
    /// Ids of those that have ended, oldest first.
    ended: VecDeque<Vec<u8>>,
    /// By session: when the first attempt began of a transaction that was aborted there last.
    aborted: BTreeMap<String, Timestamp>,
}

struct Entry {
    session: String,
    last_use: Timestamp,
    /// Whether it is in `State::ended`.
    has_ended: bool,
    transaction: Arc<Mutex<ReadWriteState>>,
}

/// Where reads look: one timestamp, or a bound that the first read turns into one.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    pub bound: ReadBound,
    /// Whether the client wants to know the timestamp.
    pub tells: bool,
}

pub struct ReadWriteState {
    pub id: Vec<u8>,
    pub phase: Phase,
    /// Answers by sequence number, with the statement's text.
    pub statements: BTreeMap<i64, (String, Remembered)>,
    /// Grows with each answer that carries a precommit token.
    pub token: i32,
    pub is_multiplexed: bool,
    /// A statement said that it is the last: only a commit or a rollback may follow.
    pub is_complete: bool,
}

pub enum Phase {
    Active(Box<dyn api::Transaction>),
    Committed(Commit),
    Ended(Status),
}

/// The answer to a numbered statement.
#[derive(Clone)]
pub enum Remembered {
    Result(Box<pb::ResultSet>),
    Batch(Box<pb::ExecuteBatchDmlResponse>),
}

impl ReadWriteState {
    pub fn active(&mut self) -> Result<&mut Box<dyn api::Transaction>, Status> {
        match &mut self.phase {
            Phase::Active(_) if self.is_complete => Err(Status::failed_precondition(
                "Cannot start a read or query within a transaction after its last statement.",
            )),
            Phase::Active(transaction) => Ok(transaction),
            Phase::Committed(_) => Err(Status::failed_precondition(
                "Cannot start a read or query within a transaction after Commit has been called.",
            )),
            Phase::Ended(status) => Err(status.clone()),
        }
    }

    /// The answer given before to this statement, if it is a repetition.
    pub fn replay(&self, seqno: i64, text: &str) -> Result<Option<Remembered>, Status> {
        if let Some((known, answer)) = self.statements.get(&seqno) {
            return match known == text {
                true => Ok(Some(answer.clone())),
                false => Err(Status::invalid_argument(format!(
                    "Sequence number {seqno} was used for another statement"
                ))),
            };
        }
        match self.statements.last_key_value() {
            Some((last, _)) if *last > seqno => Err(Status::invalid_argument(format!(
                "Sequence number {seqno} is out of order: {last} came before"
            ))),
            _ if self.statements.len() >= STATEMENTS_MAX => Err(Status::resource_exhausted(
                format!("a transaction has at most {STATEMENTS_MAX} statements"),
            )),
            _ => Ok(None),
        }
    }

    pub fn precommit_token(&mut self) -> Option<pb::MultiplexedSessionPrecommitToken> {
        if !self.is_multiplexed {
            return None;
        }
        self.token += 1;
        Some(pb::MultiplexedSessionPrecommitToken {
            precommit_token: self.id.clone(),
            seq_num: self.token,
        })
    }
}

/// What a request reads and writes through, taken for as long as it runs.
pub enum Held {
    Snapshot(Snapshot),
    ReadWrite(OwnedMutexGuard<ReadWriteState>),
    PartitionedDml,
}

/// A transaction as a request's selector names it.
pub struct Selected {
    pub held: Held,
    /// What the answer's metadata says about it: set when the request began it.
    pub begun: Option<pb::Transaction>,
}

impl Selected {
    /// The request that began it has failed.
    pub fn forget(&mut self, door: &Door) {
        if let Held::ReadWrite(state) = &mut self.held {
            door.transactions.forget(door, state);
        }
    }

    pub fn read_write(&mut self) -> Option<&mut ReadWriteState> {
        match &mut self.held {
            Held::ReadWrite(guard) => Some(guard),
            Held::Snapshot(_) | Held::PartitionedDml => None,
        }
    }
}

impl Snapshot {
    /// The id of a read-only transaction; `None` for a bound that is not one timestamp.
    fn id(&self) -> Option<Vec<u8>> {
        let ReadBound::At(at) = self.bound else {
            return None;
        };
        let mut id = vec![READ_ONLY_TAG, u8::from(self.tells)];
        id.extend_from_slice(&at.0.to_be_bytes());
        Some(id)
    }

    fn of_id(id: &[u8]) -> Option<Snapshot> {
        let [READ_ONLY_TAG, tells, at @ ..] = id else {
            return None;
        };
        let at = i64::from_be_bytes(at.try_into().ok()?);
        Some(Snapshot {
            bound: ReadBound::At(Timestamp(at)),
            tells: *tells == 1,
        })
    }
}

fn snapshot(door: &Door, options: &ReadOnly, single_use: bool) -> Result<Snapshot, Status> {
    let now = door.database.now().latest;
    let negative = || Status::invalid_argument("a staleness must not be negative");
    let bounded = || {
        Status::invalid_argument(
            "min_read_timestamp and max_staleness are for single-use read-only transactions only",
        )
    };
    let bound = match &options.timestamp_bound {
        None | Some(TimestampBound::Strong(_)) => match single_use {
            true => ReadBound::Strong,
            // All that was acknowledged before now has a lower timestamp than the clock's upper bound.
            false => ReadBound::At(now),
        },
        Some(TimestampBound::ReadTimestamp(at)) => ReadBound::At(wire::micros(at)),
        Some(TimestampBound::ExactStaleness(staleness)) => {
            let micros = wire::duration_micros(staleness).ok_or_else(negative)?;
            let back = i64::try_from(micros).unwrap_or(i64::MAX);
            ReadBound::At(Timestamp(now.0.saturating_sub(back)))
        }
        Some(_) if !single_use => return Err(bounded()),
        Some(TimestampBound::MinReadTimestamp(at)) => ReadBound::MinTimestamp(wire::micros(at)),
        Some(TimestampBound::MaxStaleness(staleness)) => ReadBound::MaxStaleness {
            micros: wire::duration_micros(staleness).ok_or_else(negative)?,
        },
    };
    Ok(Snapshot {
        bound,
        tells: options.return_read_timestamp,
    })
}

fn new_id(first_attempt: Timestamp) -> Vec<u8> {
    let mut id = first_attempt.0.to_be_bytes().to_vec();
    id.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
    id
}

/// When the attempt with this id, or the first of those before it, began.
fn first_attempt_of(id: &[u8]) -> Option<Timestamp> {
    let bytes: [u8; 8] = id.get(..8)?.try_into().ok()?;
    Some(Timestamp(i64::from_be_bytes(bytes)))
}

impl State {
    fn ended(&mut self, id: Vec<u8>) {
        match self.by_id.get_mut(&id) {
            Some(entry) if !entry.has_ended => entry.has_ended = true,
            _ => return,
        }
        self.ended.push_back(id);
        while self.ended.len() > ENDED_MAX {
            if let Some(oldest) = self.ended.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }
}

/// Aborts idle transactions for as long as the door is open.
pub async fn end_idle(door: Arc<Door>) -> Infallible {
    loop {
        tokio::time::sleep(IDLE_CHECK_INTERVAL).await;
        door.transactions.end_idle(&door);
    }
}

impl Transactions {
    fn add(&self, door: &Door, session: &Session, state: ReadWriteState) -> Result<(), Status> {
        let now = door.database.now().latest;
        let mut transactions = self.state.lock();
        let by_id = &mut transactions.by_id;
        if by_id.len() >= TRANSACTIONS_MAX {
            return Err(Status::resource_exhausted(format!(
                "this node has {TRANSACTIONS_MAX} transactions open already"
            )));
        }
        let id = state.id.clone();
        let entry = Entry {
            session: session.name.clone(),
            last_use: now,
            has_ended: false,
            transaction: Arc::new(Mutex::new(state)),
        };
        by_id.insert(id, entry);
        door.metrics.transactions.set(by_id.len() as i64);
        Ok(())
    }

    fn find(
        &self,
        door: &Door,
        session: &Session,
        id: &[u8],
    ) -> Result<Arc<Mutex<ReadWriteState>>, Status> {
        let now = door.database.now().latest;
        let mut transactions = self.state.lock();
        let entry = transactions
            .by_id
            .get_mut(id)
            .filter(|entry| entry.session == session.name)
            // An id that this node does not know is one that it gave before a restart, or long ago.
            .ok_or_else(|| {
                aborted("Transaction not found: it was idle for too long, or the server restarted")
            })?;
        entry.last_use = now;
        Ok(entry.transaction.clone())
    }

    /// Says that a transaction has ended: it may be forgotten when newer ones have.
    pub fn ended(&self, door: &Door, id: &[u8]) {
        let mut transactions = self.state.lock();
        transactions.ended(id.to_vec());
        let count = transactions.by_id.len();
        door.metrics.transactions.set(count as i64);
    }

    /// Ends a transaction that has lost a conflict: later requests hear so too, and its retry keeps its age.
    pub fn aborted(&self, door: &Door, state: &mut ReadWriteState, status: &Status) {
        state.phase = Phase::Ended(status.clone());
        let mut transactions = self.state.lock();
        let session = transactions
            .by_id
            .get(&state.id)
            .map(|entry| &entry.session);
        if let (Some(session), Some(first_attempt), false) = (
            session.cloned(),
            first_attempt_of(&state.id),
            state.is_multiplexed,
        ) {
            transactions.aborted.insert(session, first_attempt);
            while transactions.aborted.len() > TRANSACTIONS_MAX {
                transactions.aborted.pop_first();
            }
        }
        drop(transactions);
        self.ended(door, &state.id);
    }

    /// Ends a transaction whose id the client will never learn, since the request that began it has failed.
    pub fn forget(&self, door: &Door, state: &mut ReadWriteState) {
        state.phase = Phase::Ended(Status::failed_precondition(
            "The statement that began the transaction has failed.",
        ));
        self.ended(door, &state.id);
    }

    fn end_idle(&self, door: &Door) {
        let now = door.database.now().latest;
        let mut transactions = self.state.lock();
        let mut ended = Vec::new();
        for (id, entry) in &mut transactions.by_id {
            if entry.has_ended || now.0.saturating_sub(entry.last_use.0) <= IDLE_MICROS_MAX {
                continue;
            }
            let Ok(mut state) = entry.transaction.clone().try_lock_owned() else {
                // A request holds it: it is not idle.
                entry.last_use = now;
                continue;
            };
            if let Phase::Active(_) = state.phase {
                state.phase = Phase::Ended(aborted("Transaction was idle for too long"));
            }
            ended.push(id.clone());
        }
        for id in ended {
            transactions.ended(id);
        }
        let count = transactions.by_id.len();
        door.metrics.transactions.set(count as i64);
    }

    pub fn forget_session(&self, door: &Door, session: &str) {
        let mut transactions = self.state.lock();
        transactions
            .by_id
            .retain(|_, entry| entry.session != session);
        transactions.aborted.remove(session);
        let count = transactions.by_id.len();
        door.metrics.transactions.set(count as i64);
    }

    /// Begins a transaction that lives beyond the request.
    pub async fn begin(
        &self,
        door: &Door,
        session: &Session,
        options: &pb::TransactionOptions,
    ) -> Result<pb::Transaction, Status> {
        match &options.mode {
            Some(Mode::ReadOnly(read_only)) => {
                let snapshot = snapshot(door, read_only, false)?;
                let read_timestamp = match snapshot.bound {
                    ReadBound::At(at) if snapshot.tells => Some(wire::timestamp(at)),
                    _ => None,
                };
                let id = snapshot.id();
                let id = id.ok_or_else(|| Status::internal("a snapshot without a timestamp"))?;
                Ok(pb::Transaction {
                    id,
                    read_timestamp,
                    ..Default::default()
                })
            }
            Some(Mode::ReadWrite(read_write)) => {
                let is_optimistic = match read_write.read_lock_mode() {
                    ReadLockMode::Optimistic => true,
                    ReadLockMode::Pessimistic => false,
                    ReadLockMode::Unspecified => {
                        options.isolation_level() == IsolationLevel::RepeatableRead
                    }
                };
                self.begin_read_write(door, session, read_write, is_optimistic)
                    .await
            }
            Some(Mode::PartitionedDml(_)) => {
                let mut id = vec![PARTITIONED_DML_TAG];
                id.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
                Ok(pb::Transaction {
                    id,
                    ..Default::default()
                })
            }
            None => Err(Status::invalid_argument(
                "TransactionOptions must say read_only, read_write or partitioned_dml",
            )),
        }
    }

    async fn begin_read_write(
        &self,
        door: &Door,
        session: &Session,
        options: &ReadWrite,
        is_optimistic: bool,
    ) -> Result<pb::Transaction, Status> {
        let first_attempt = match session.multiplexed {
            true => first_attempt_of(&options.multiplexed_session_previous_transaction_id),
            false => self.state.lock().aborted.remove(&session.name),
        };
        let now = door.database.now().latest;
        // A time of the client's making counts for no more than one of ours could.
        let first_attempt = first_attempt.filter(|at| *at <= now);
        // Repeatable read is served by serializability: what was read is checked again when it commits.
        let inner_options = api::TransactionOptions {
            first_attempt,
            concurrency: match is_optimistic {
                true => api::Concurrency::Validation,
                false => api::Concurrency::Locks,
            },
            ..Default::default()
        };
        let inner = door.database.begin(inner_options).await.map_err(of_api)?;
        let id = new_id(first_attempt.unwrap_or(now));
        let mut state = ReadWriteState {
            id: id.clone(),
            phase: Phase::Active(inner),
            statements: BTreeMap::new(),
            token: 0,
            is_multiplexed: session.multiplexed,
            is_complete: false,
        };
        let precommit_token = state.precommit_token();
        self.add(door, session, state)?;
        Ok(pb::Transaction {
            id,
            precommit_token,
            ..Default::default()
        })
    }

    /// What a selector names; begins it if that is what it says.
    pub async fn select(
        &self,
        door: &Door,
        session: &Session,
        selector: Option<&pb::TransactionSelector>,
    ) -> Result<Selected, Status> {
        let selector = selector.and_then(|selector| selector.selector.as_ref());
        let strong = Snapshot {
            bound: ReadBound::Strong,
            tells: false,
        };
        match selector {
            None => Ok(Selected {
                held: Held::Snapshot(strong),
                begun: None,
            }),
            Some(Selector::SingleUse(options)) => match &options.mode {
                None => Ok(Selected {
                    held: Held::Snapshot(strong),
                    begun: None,
                }),
                Some(Mode::ReadOnly(read_only)) => Ok(Selected {
                    held: Held::Snapshot(snapshot(door, read_only, true)?),
                    begun: None,
                }),
                Some(_) => Err(Status::invalid_argument(
                    "A single-use transaction of a read or query must be read-only",
                )),
            },
            Some(Selector::Id(id)) => {
                let held = self.hold(door, session, id).await?;
                Ok(Selected { held, begun: None })
            }
            Some(Selector::Begin(options)) => {
                let begun = self.begin(door, session, options).await?;
                let held = self.hold(door, session, &begun.id).await?;
                Ok(Selected {
                    held,
                    begun: Some(begun),
                })
            }
        }
    }

    async fn hold(&self, door: &Door, session: &Session, id: &[u8]) -> Result<Held, Status> {
        if let Some(snapshot) = Snapshot::of_id(id) {
            return Ok(Held::Snapshot(snapshot));
        }
        if id.first() == Some(&PARTITIONED_DML_TAG) {
            return Ok(Held::PartitionedDml);
        }
        let transaction = self.find(door, session, id)?;
        Ok(Held::ReadWrite(transaction.lock_owned().await))
    }

    /// A read-write transaction by id.
    pub async fn read_write(
        &self,
        door: &Door,
        session: &Session,
        id: &[u8],
    ) -> Result<OwnedMutexGuard<ReadWriteState>, Status> {
        match self.hold(door, session, id).await? {
            Held::ReadWrite(guard) => Ok(guard),
            Held::Snapshot(_) => Err(Status::failed_precondition(
                "Cannot commit or roll back a read-only transaction.",
            )),
            Held::PartitionedDml => Err(Status::failed_precondition(
                "Cannot commit or roll back a partitioned DML transaction.",
            )),
        }
    }
}

/// Reads of a snapshot. The first read fixes the timestamp of all later ones.
pub struct SnapshotStorage {
    database: Arc<dyn api::Database>,
    pub bound: ReadBound,
    /// The timestamp that was read at.
    pub timestamp: Option<Timestamp>,
}

impl SnapshotStorage {
    pub fn new(database: Arc<dyn api::Database>, bound: ReadBound) -> SnapshotStorage {
        let timestamp = match bound {
            ReadBound::At(at) => Some(at),
            _ => None,
        };
        SnapshotStorage {
            database,
            bound,
            timestamp,
        }
    }
}

#[async_trait]
impl sql::Storage for SnapshotStorage {
    async fn read(&mut self, mut request: ReadRequest) -> Result<ReadResponse, api::Error> {
        request.bound = self.bound;
        let response = self.database.read(request).await?;
        if let (None, Some(at)) = (self.timestamp, response.timestamp) {
            self.timestamp = Some(at);
            self.bound = ReadBound::At(at);
        }
        Ok(response)
    }

    async fn write(&mut self, _: Vec<Mutation>) -> Result<(), api::Error> {
        Err(api::Error::invalid("a read-only transaction cannot write"))
    }
}

/// Reads and writes of a read-write transaction.
pub struct TransactionStorage<'t>(pub &'t mut Box<dyn api::Transaction>);

#[async_trait]
impl sql::Storage for TransactionStorage<'_> {
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResponse, api::Error> {
        self.0.read(request).await
    }

    async fn read_to_write(
        &mut self,
        request: ReadRequest,
        written: Projection,
    ) -> Result<ReadResponse, api::Error> {
        self.0.read_to_write(request, written).await
    }

    async fn write(&mut self, mutations: Vec<Mutation>) -> Result<(), api::Error> {
        self.0.write(mutations).await
    }
}
