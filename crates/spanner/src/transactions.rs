//! Transactions between requests: which there are, what they have done, and how a request gets hold of one.
//!
//! A read-only transaction is its timestamp, and one of partitioned DML is nothing but its kind: their ids say so,
//! and nothing is kept. A read-write transaction's id begins with the time at which its first attempt began, so
//! that a retry that names its predecessor keeps its age; in a session that is not multiplexed the next transaction
//! after an aborted one is taken for its retry. Kept are the inner transaction, the answers to its numbered
//! statements, so that a repeated statement is answered and not done again, and for a while how it has ended, so that a
//! repeated commit is answered too.
//!
//! An id names the node and the life of it that the transaction is of: what comes to another node is passed on to that
//! one (`forward`). What nobody has, because its node is dead or has started anew, or it is forgotten, can have been
//! committed: the tablets are asked, and where they do not know a commit of it hears UNKNOWN, since a client that hears
//! ABORTED does all of it again. What else is asked of it hears ABORTED: nothing is committed by that.
//!
//! A transaction that nobody has used for ten seconds is aborted, so that no client that went away holds locks.

use crate::ended::{Ending, Endings};
use crate::sessions::Session;
use crate::status::{aborted, of_api};
use crate::{Door, wire};
use api::{Mutation, Projection, ReadBound, ReadRequest, ReadResponse, TransactionId};
use async_trait::async_trait;
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use model::{Incarnation, NodeId, RequestId, Timestamp};
use parking_lot::Mutex as SyncMutex;
use pb::transaction_options::read_write::ReadLockMode;
use pb::transaction_options::{
    IsolationLevel, Mode, ReadOnly, ReadWrite, read_only::TimestampBound,
};
use pb::transaction_selector::Selector;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tonic::{Code, Status};

pub const TRANSACTIONS_MAX: usize = 10_000;
/// A transaction that nobody used for so long is aborted (Spanner's own limit).
const IDLE_MICROS_MAX: i64 = 10 * 1_000_000;
/// How often idle ones are looked for.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The id of a read-write transaction: four numbers of eight bytes.
const ID_BYTES: usize = 32;
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
    open: BTreeMap<TransactionId, Entry>,
    ended: Endings,
    /// By session: when the first attempt began of a transaction that was aborted there last.
    aborted: BTreeMap<String, Timestamp>,
}

struct Entry {
    session: String,
    last_use: Timestamp,
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
    pub id: TransactionId,
    pub phase: Phase,
    /// Answers by sequence number, with the statement's text.
    pub statements: BTreeMap<i64, (String, Remembered)>,
    /// What Spanner counts that the statements so far have written.
    pub mutation_count: u64,
    /// Grows with each answer that carries a precommit token.
    pub token: i32,
    pub is_multiplexed: bool,
    /// A statement said that it is the last: only a commit or a rollback may follow.
    pub is_complete: bool,
}

pub enum Phase {
    Active(Box<dyn api::Transaction>),
    Ended(Ending),
}

/// What this node knows of a read-write transaction.
pub enum Known {
    Open(OwnedMutexGuard<ReadWriteState>),
    Ended(Ending),
    /// It may have been committed; says why that is not known here.
    Nothing(TransactionId, String),
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
            Phase::Ended(ending) => Err(ending.refusal()),
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
            precommit_token: encode_id(self.id),
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

    pub fn is_read_write(&self) -> bool {
        matches!(self.held, Held::ReadWrite(_))
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

fn encode_id(id: TransactionId) -> Vec<u8> {
    let mut bytes = id.start.0.to_be_bytes().to_vec();
    for number in [id.node.0, id.incarnation.0, id.request.0] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes
}

pub fn decode_id(bytes: &[u8]) -> Option<TransactionId> {
    let bytes: &[u8; ID_BYTES] = bytes.try_into().ok()?;
    let (numbers, _) = bytes.as_chunks::<8>();
    let number = |index: usize| u64::from_be_bytes(numbers[index]);
    Some(TransactionId {
        start: Timestamp(i64::from_be_bytes(numbers[0])),
        node: NodeId(number(1)),
        incarnation: Incarnation(number(2)),
        request: RequestId(number(3)),
    })
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
        let open = &mut transactions.open;
        if open.len() >= TRANSACTIONS_MAX {
            return Err(Status::resource_exhausted(format!(
                "this node has {TRANSACTIONS_MAX} transactions open already"
            )));
        }
        let id = state.id;
        let entry = Entry {
            session: session.name.clone(),
            last_use: now,
            transaction: Arc::new(Mutex::new(state)),
        };
        open.insert(id, entry);
        door.metrics.transactions.set(open.len() as i64);
        Ok(())
    }

    /// What is known of a transaction; of one that is open, as soon as nobody else uses it.
    async fn find(&self, door: &Door, session: &Session, id: &[u8]) -> Result<Known, Status> {
        let id = decode_id(id).ok_or_else(|| {
            Status::invalid_argument("Invalid transaction id: this service has not made it.")
        })?;
        let open = {
            let now = door.database.now().latest;
            let mut transactions = self.state.lock();
            match transactions.open.get_mut(&id) {
                Some(entry) if entry.session == session.name => {
                    entry.last_use = now;
                    entry.transaction.clone()
                }
                Some(_) => {
                    return Err(Status::invalid_argument(
                        "Transaction was begun in another session.",
                    ));
                }
                None => {
                    return Ok(match transactions.ended.get(&id) {
                        Some(ending) => Known::Ended(ending.clone()),
                        None => Known::Nothing(id, why_unknown(door, id)),
                    });
                }
            }
        };
        Ok(Known::Open(open.lock_owned().await))
    }

    /// Takes in that a transaction has ended, as its phase says: it is not open any more, and its ending is kept.
    pub fn ended(&self, door: &Door, state: &ReadWriteState) {
        if let Phase::Ended(ending) = &state.phase {
            let now = door.database.now().latest;
            let mut transactions = self.state.lock();
            transactions.ended.put(state.id, ending.clone(), now);
            self.close(door, &mut transactions, &state.id);
        }
    }

    /// Takes in how a transaction has ended that was not open here.
    pub fn learnt(&self, door: &Door, id: TransactionId, ending: Ending) {
        let now = door.database.now().latest;
        self.state.lock().ended.put(id, ending, now);
    }

    fn close(&self, door: &Door, transactions: &mut State, id: &TransactionId) {
        transactions.open.remove(id);
        let count = transactions.open.len();
        door.metrics.transactions.set(count as i64);
    }

    /// Ends a transaction that has lost a conflict: later requests hear so too, and its retry keeps its age.
    pub fn aborted(&self, door: &Door, state: &mut ReadWriteState, status: &Status) {
        state.phase = Phase::Ended(Ending::failed(Code::Aborted, status.message()));
        let mut transactions = self.state.lock();
        let entry = transactions.open.get(&state.id);
        let session = entry.map(|entry| entry.session.clone());
        if let (Some(session), false) = (session, state.is_multiplexed) {
            transactions.aborted.insert(session, state.id.start);
            while transactions.aborted.len() > TRANSACTIONS_MAX {
                transactions.aborted.pop_first();
            }
        }
        drop(transactions);
        self.ended(door, state);
    }

    /// Ends a transaction whose id the client will never learn, since the request that began it has failed.
    pub fn forget(&self, door: &Door, state: &mut ReadWriteState) {
        state.phase = Phase::Ended(Ending::failed(
            Code::FailedPrecondition,
            "The statement that began the transaction has failed.",
        ));
        self.close(door, &mut self.state.lock(), &state.id);
    }

    fn end_idle(&self, door: &Door) {
        let now = door.database.now().latest;
        let mut transactions = self.state.lock();
        let mut ended = Vec::new();
        for (id, entry) in &mut transactions.open {
            if now.0.saturating_sub(entry.last_use.0) <= IDLE_MICROS_MAX {
                continue;
            }
            let Ok(mut state) = entry.transaction.clone().try_lock_owned() else {
                // A request holds it: it is not idle.
                entry.last_use = now;
                continue;
            };
            if let Phase::Active(_) = state.phase {
                let idle = Ending::failed(Code::Aborted, "Transaction was idle for too long");
                state.phase = Phase::Ended(idle);
            }
            if let Phase::Ended(ending) = &state.phase {
                ended.push((*id, ending.clone()));
            }
        }
        for (id, ending) in ended {
            transactions.ended.put(id, ending, now);
            self.close(door, &mut transactions, &id);
        }
        transactions.ended.forget_old(now);
    }

    pub fn forget_session(&self, door: &Door, session: &str) {
        let mut transactions = self.state.lock();
        transactions
            .open
            .retain(|_, entry| entry.session != session);
        transactions.aborted.remove(session);
        let count = transactions.open.len();
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
            true => {
                let previous = decode_id(&options.multiplexed_session_previous_transaction_id);
                previous.map(|id| id.start)
            }
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
            is_kept: true,
            ..Default::default()
        };
        let inner = door.database.begin(inner_options).await.map_err(of_api)?;
        let id = inner.id();
        let mut state = ReadWriteState {
            id,
            phase: Phase::Active(inner),
            statements: BTreeMap::new(),
            mutation_count: 0,
            token: 0,
            is_multiplexed: session.multiplexed,
            is_complete: false,
        };
        let precommit_token = state.precommit_token();
        self.add(door, session, state)?;
        Ok(pb::Transaction {
            id: encode_id(id),
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
        match self.find(door, session, id).await? {
            Known::Open(state) => Ok(Held::ReadWrite(state)),
            Known::Ended(ending) => Err(ending.refusal()),
            Known::Nothing(_, why) => Err(aborted(&format!("Transaction not found: {why}"))),
        }
    }

    /// A read-write transaction that is to be committed or rolled back.
    pub async fn to_end(&self, door: &Door, session: &Session, id: &[u8]) -> Result<Known, Status> {
        match id.first() {
            Some(&READ_ONLY_TAG) => Err(Status::failed_precondition(
                "Cannot commit or roll back a read-only transaction.",
            )),
            Some(&PARTITIONED_DML_TAG) => Err(Status::failed_precondition(
                "Cannot commit or roll back a partitioned DML transaction.",
            )),
            _ => self.find(door, session, id).await,
        }
    }
}

fn why_unknown(door: &Door, id: TransactionId) -> String {
    let here = door.database.topology().this_node;
    match id.node == here {
        true => "it was begun before this node started anew, or has ended long ago".into(),
        false => format!("it is one of node {}, and this is node {here}", id.node),
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
