//! One replica of an eventual tablet: its log, its store, and nothing else.
//!
//! A write is appended to the log; when it is as durable as its table says, it is merged into the store, and
//! only then acknowledged. So a reader never sees what a crash can take back (but on tables with periodic
//! durability, which are asked to risk it). Whoever finds its entry durable first merges all entries up to it
//! in one batch of the store: all logs of a node are synced together, so they come in flocks.
//!
//! Invariants:
//! * The store holds exactly the effects of a prefix of the log; its applied index says which.
//! * Entries are merged in the order of the log, each once. (Twice would do no harm: merging is idempotent.)
//! * An entry that was appended is merged even if whoever wrote it has gone.
//! * No write of an older placement is appended once a newer one is known, and no read under the newer one is
//!   answered before those appended earlier can be read: so who is filled from here misses nothing.
//!
//! It does not know levels, other replicas, or what a reader may see: rows go in and out with their
//! tombstones.

mod failure;
mod filling;
mod paxos;
mod placement;
mod purge;
mod read;
mod record;
mod repair;
mod split;
#[cfg(test)]
mod tests;

pub use failure::Failure;
pub use filling::Stage;
pub use purge::Sweep;
pub(crate) use read::successor;

use crate::message::{Action, RawRow, ReplicaError, Reply, Request};
use crate::partition::{Layout, decode_row, store_key};
use crate::peers::{Tasks, spawn};
use crate::repair::marks::Marks;
use api::KeyRange;
use bytes::Bytes;
use catalog::{Durability, Table};
use cluster::Tablet;
use model::{PlacementEpoch, ReplicaId, Row, Timestamp};
use parking_lot::{Mutex, RwLock};
use record::Record;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use storage::{Replay, cut_point, replay};
use world::planted::{self, Bug};
use world::{
    Applied, Clock, Durable, Kind, Log, LogBatch, LogEntry, LogId, LogOperation, Store, StoreBatch,
    StoreError, StoreOperation,
};

/// Bytes of log read at once when a replica is opened.
const REPLAY_BYTES_MAX: u64 = 1 << 20;
/// Whether the log can be cut is asked after so many entries.
const CUT_INTERVAL_ENTRIES: u32 = 64;
/// Deltas in one request.
const DELTAS_MAX: usize = 65_536;
/// A write waits so often, and so long each time, for a store that is over its budget.
const OVERLOAD_ROUNDS_MAX: u32 = 100;
const OVERLOAD_PAUSE: Duration = Duration::from_millis(20);
/// After a change of placement a read waits so often, and so long each time, for the writes before it.
const SETTLE_ROUNDS_MAX: u32 = 1_000;
const SETTLE_PAUSE: Duration = Duration::from_millis(2);

/// Everything an eventual replica is opened with.
pub struct ReplicaConfig {
    pub tablet: Tablet,
    pub replica: ReplicaId,
    pub table: Arc<Table>,
    pub clock: Arc<dyn Clock>,
}

pub struct EventualReplica {
    log_id: LogId,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    tasks: Arc<dyn Tasks>,
    layout: Layout,
    /// Changed under the writer's lock.
    tablet: RwLock<Tablet>,
    writer: Mutex<Writer>,
    /// The last entry appended under an older placement, until it can be read; 0 then.
    fence: AtomicU64,
    /// The epoch of `tablet`, and the newest that is on record.
    known: AtomicU64,
    recorded: AtomicU64,
    /// Whether any header was ever written: as long as not, reads need not look for one.
    has_headers: AtomicBool,
    /// When which part of the tablet was repaired with all replicas; changed under its own lock, behind the log's record.
    marks: Mutex<Marks>,
    /// Tombstones made before so many seconds since 1970 may be gone.
    purged_before: AtomicI64,
    /// The range outside of which the store was told to forget what it holds.
    forgotten: Mutex<Option<KeyRange>>,
    /// Set once the log or the store has failed: nothing is acknowledged from then on.
    is_broken: AtomicBool,
    failure: Mutex<Option<Failure>>,
    unreadable: Mutex<Option<String>>,
}

/// What must hold when a change is appended.
#[derive(Clone, Copy, Default)]
struct Terms {
    /// No newer placement is known.
    epoch: Option<PlacementEpoch>,
    /// It is earlier than this by the wall clock.
    expires: Option<Timestamp>,
}

struct Writer {
    next_index: u64,
    /// Appended, not yet merged; ascending and dense.
    pending: VecDeque<Pending>,
    /// Partitions' Paxos states that pending entries hold, with the last such entry's index: what the next
    /// promise builds on.
    states: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    entries_since_cut: u32,
}

struct Pending {
    index: u64,
    record: Record,
}

/// The mark that `has_headers` is read from: kept in the store, in the batch of the first header.
fn headers_mark() -> Vec<u8> {
    let mut key = vec![Kind::State as u8];
    key.extend_from_slice(b"headers");
    key
}

impl EventualReplica {
    /// Opens the replica and brings its store up to the end of its log.
    pub fn open(
        config: ReplicaConfig,
        store: Arc<dyn Store>,
        log: Arc<dyn Log>,
        tasks: Arc<dyn Tasks>,
    ) -> Result<Arc<EventualReplica>, ReplicaError> {
        let has_headers = store
            .get(&headers_mark(), &store.snapshot())
            .map_err(broken)?
            .is_some();
        let log_id = LogId(config.replica.0);
        let told = placement::recorded(log.as_ref(), log_id)?;
        let on_record = told.as_ref().map_or(PlacementEpoch(0), |told| told.epoch);
        let tablet = match told {
            Some(told) if told.epoch > config.tablet.epoch => told,
            _ => config.tablet,
        };
        let replica = EventualReplica {
            log_id,
            marks: Mutex::new(repair::marks(log.as_ref(), log_id).map_err(ReplicaError::Broken)?),
            purged_before: AtomicI64::new(0),
            forgotten: Mutex::new(None),
            log,
            clock: config.clock,
            tasks,
            layout: Layout::new(&config.table),
            known: AtomicU64::new(tablet.epoch.0),
            recorded: AtomicU64::new(on_record.0),
            tablet: RwLock::new(tablet),
            writer: Mutex::new(Writer {
                next_index: store.applied().index + 1,
                pending: VecDeque::new(),
                states: BTreeMap::new(),
                entries_since_cut: 0,
            }),
            fence: AtomicU64::new(0),
            has_headers: AtomicBool::new(has_headers),
            is_broken: AtomicBool::new(false),
            failure: Mutex::default(),
            unreadable: Mutex::default(),
            store,
        };
        replica.replay()?;
        let replica = Arc::new(replica);
        if !replica.is_recorded() {
            replica.record_placement(&replica.tablet());
        }
        Ok(replica)
    }

    /// Merges what the log holds behind the store's applied index.
    fn replay(&self) -> Result<(), ReplicaError> {
        let bounds = self.log.bounds(self.log_id);
        let (first, last) = match replay(bounds, self.store.applied()).map_err(broken)? {
            Replay::From { first, last } => (first, last),
            Replay::Reset { first } => {
                self.reset_log(first);
                return Ok(());
            }
        };
        let mut writer = self.writer.lock();
        let mut next = first;
        while next <= last {
            let entries = self
                .log
                .entries(self.log_id, next, last, REPLAY_BYTES_MAX)
                .map_err(broken)?;
            for entry in entries {
                let mut record = record::decode(&entry.data).map_err(ReplicaError::Broken)?;
                if planted::is(Bug::PaxosForgetsAccepted) {
                    paxos::forget_accepted(&mut record);
                }
                writer.pending.push_back(Pending {
                    index: entry.index,
                    record,
                });
                next = entry.index + 1;
            }
            writer.next_index = next;
            self.drain(&mut writer, next - 1)?;
        }
        Ok(())
    }

    fn reset_log(&self, first: u64) {
        let cut = LogOperation::Cut {
            log: self.log_id,
            first,
        };
        // Whatever is appended next is synced with it or after it.
        self.log.write_later(
            LogBatch {
                operations: vec![cut],
            },
            1000,
        );
    }

    /// The placement changed: older requests are refused from now on.
    pub fn set_tablet(self: &Arc<Self>, tablet: Tablet) {
        let writer = self.writer.lock();
        let mut current = self.tablet.write();
        if tablet.epoch > current.epoch {
            self.known.store(tablet.epoch.0, Ordering::Release);
            self.fence.store(writer.next_index - 1, Ordering::Release);
            self.record_placement(&tablet);
        }
        if tablet.epoch >= current.epoch {
            *current = tablet;
        }
    }

    pub fn tablet(&self) -> Tablet {
        self.tablet.read().clone()
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Whether the log or the store has failed, so that this replica answers nothing any more.
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// Carries out one request, from here or from another node.
    pub async fn handle(self: &Arc<Self>, request: Request) -> Reply {
        let outcome = match self.check(&request) {
            Ok(()) => self.execute(request.epoch, request.action).await,
            Err(error) => Err(error),
        };
        outcome.unwrap_or_else(Reply::Refused)
    }

    fn check(&self, request: &Request) -> Result<(), ReplicaError> {
        if self.is_broken() {
            return Err(failed());
        }
        if self.tablet.read().id != request.tablet {
            return Err(ReplicaError::NoReplica(request.tablet));
        }
        self.check_epoch(request.epoch)?;
        let is_within = match &request.action {
            Action::Read(read) | Action::Digest(read) => {
                read.rows.is_within(&self.tablet.read().range)
            }
            // Writes are looked at when they are appended.
            _ => true,
        };
        is_within.then_some(()).ok_or_else(elsewhere)
    }

    fn check_epoch(&self, epoch: PlacementEpoch) -> Result<(), ReplicaError> {
        let tablet = self.tablet.read();
        if epoch < tablet.epoch {
            return Err(ReplicaError::StaleEpoch(tablet.clone()));
        }
        Ok(())
    }

    async fn execute(
        self: &Arc<Self>,
        epoch: PlacementEpoch,
        action: Action,
    ) -> Result<Reply, ReplicaError> {
        match action {
            Action::Apply {
                deltas,
                durability,
                expires,
            } => {
                let terms = Terms {
                    epoch: Some(epoch),
                    expires,
                };
                self.apply_under(terms, deltas, durability).await?;
                Ok(Reply::Applied)
            }
            Action::Read(read) => {
                self.settle().await?;
                let page = self.read(&read);
                Ok(Reply::Page(
                    page.inspect_err(|error| self.note_unreadable(error))?,
                ))
            }
            Action::Digest(read) => {
                self.settle().await?;
                let page = self.read(&read);
                let page = page.inspect_err(|error| self.note_unreadable(error))?;
                Ok(Reply::Digest(page.digest()))
            }
            Action::Paxos(request) => self.paxos(epoch, request).await,
            Action::Repair(request) => self.repair(request).await,
        }
    }

    /// Waits until what was appended under an older placement can be read, and the present one is on record.
    async fn settle(&self) -> Result<(), ReplicaError> {
        for _ in 0..SETTLE_ROUNDS_MAX {
            let fence = self.fence.load(Ordering::Acquire);
            let is_recorded = self.is_recorded();
            if fence == 0 && is_recorded {
                return Ok(());
            }
            if fence > 0 && self.store.applied().index >= fence {
                // Unless a newer placement has raised it meanwhile.
                let _ = self
                    .fence
                    .compare_exchange(fence, 0, Ordering::AcqRel, Ordering::Relaxed);
                continue;
            }
            if self.is_broken() {
                return Err(failed());
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
        Err(ReplicaError::Overloaded(
            "writes of an older placement are still under way".into(),
        ))
    }

    /// Merges the deltas, all in one log entry; returns when they are as durable as asked and can be read.
    /// An error other than `Overloaded` leaves it open whether they will be there.
    pub async fn apply(
        self: &Arc<Self>,
        deltas: Vec<RawRow>,
        durability: Durability,
    ) -> Result<(), ReplicaError> {
        self.apply_under(Terms::default(), deltas, durability).await
    }

    /// As `apply`; does nothing when the terms do not hold any more.
    async fn apply_under(
        self: &Arc<Self>,
        terms: Terms,
        deltas: Vec<RawRow>,
        durability: Durability,
    ) -> Result<(), ReplicaError> {
        if deltas.len() > DELTAS_MAX {
            return Err(ReplicaError::Invalid(format!(
                "more than {DELTAS_MAX} rows in one write"
            )));
        }
        self.yield_to_pressure().await?;
        let record = Record::of(deltas);
        let data = record.encode();
        let appended = {
            // Entries reach the log in the order of their indices because both happen under this lock.
            let mut writer = self.writer.lock();
            // Once more: the placement may have changed while the write waited.
            terms
                .epoch
                .map_or(Ok(()), |epoch| self.check_epoch(epoch))?;
            let is_here = |delta: &RawRow| self.tablet.read().range.contains(&delta.key);
            if !record.deltas.iter().all(is_here) {
                return Err(elsewhere());
            }
            let now = Timestamp(self.clock.wall_micros());
            if terms.expires.is_some_and(|expires| expires <= now) {
                return Err(ReplicaError::Expired);
            }
            self.append(&mut writer, record, data, durability)?
        };
        self.merged(appended).await
    }

    /// Waits until an appended entry is durable, where that is to be waited for, and merged.
    async fn merged(
        self: &Arc<Self>,
        (index, durable): (u64, Option<Durable>),
    ) -> Result<(), ReplicaError> {
        let mut merging = Merging {
            replica: self.clone(),
            index,
            durable,
        };
        merging.run().await
    }

    /// Puts an entry into the log. With periodic durability it is merged at once; else the future tells when
    /// it may be.
    fn append(
        &self,
        writer: &mut Writer,
        record: Record,
        data: Bytes,
        durability: Durability,
    ) -> Result<(u64, Option<Durable>), ReplicaError> {
        if self.is_broken() {
            return Err(failed());
        }
        let index = writer.next_index;
        let mut operations = vec![LogOperation::Append {
            log: self.log_id,
            entries: vec![LogEntry {
                index,
                term: 0,
                data,
            }],
        }];
        operations.extend(self.cut(writer));
        let batch = LogBatch { operations };
        writer.next_index += 1;
        for state in &record.states {
            let newest = (index, state.state.clone());
            writer.states.insert(state.partition.clone(), newest);
        }
        writer.pending.push_back(Pending { index, record });
        match durability {
            Durability::Synced => Ok((index, Some(self.log.write(batch)))),
            Durability::Periodic { interval_ms } => {
                self.log.write_later(batch, interval_ms);
                self.drain(writer, index)?;
                Ok((index, None))
            }
        }
    }

    /// Now and then, forgets the part of the log that the store has flushed.
    fn cut(&self, writer: &mut Writer) -> Option<LogOperation> {
        writer.entries_since_cut += 1;
        if writer.entries_since_cut < CUT_INTERVAL_ENTRIES {
            return None;
        }
        writer.entries_since_cut = 0;
        let first = cut_point(self.store.flushed(), self.store.applied().index + 1);
        let bounds = self.log.bounds(self.log_id)?;
        (first > bounds.first).then_some(LogOperation::Cut {
            log: self.log_id,
            first,
        })
    }

    /// Merges all pending entries up to this one, in one batch of the store.
    fn drain(&self, writer: &mut Writer, last: u64) -> Result<(), ReplicaError> {
        if self.is_broken() {
            return Err(failed());
        }
        let count = writer
            .pending
            .partition_point(|pending| pending.index <= last);
        let Some(newest) = count.checked_sub(1) else {
            return Ok(());
        };
        let index = writer.pending[newest].index;
        let merged = writer.pending.range(..count);
        let deltas = merged.clone().flat_map(|pending| &pending.record.deltas);
        let mut operations = self
            .merge(deltas)
            .inspect_err(|error| self.fail(Failure::Store(error.to_string())))?;
        operations.extend(paxos::stored(
            merged.flat_map(|pending| &pending.record.states),
        ));
        let batch = StoreBatch {
            operations,
            applied: Applied { index, term: 0 },
        };
        match self.store.apply(batch) {
            Ok(()) => {
                writer.pending.drain(..count);
                writer.states.retain(|_, (last, _)| *last > index);
                Ok(())
            }
            // The entries stay pending: the next write, or a replay, merges them.
            Err(StoreError::Overloaded) => Err(ReplicaError::Broken(
                "the store is over its budget; the write is in the log".into(),
            )),
            Err(error) => {
                self.fail(Failure::Store(error.to_string()));
                Err(broken(error))
            }
        }
    }

    /// The store's new rows: what is there, merged with the deltas.
    fn merge<'a>(
        &self,
        deltas: impl Iterator<Item = &'a RawRow>,
    ) -> Result<Vec<StoreOperation>, ReplicaError> {
        let mut deltas: Vec<&RawRow> = deltas.collect();
        deltas.sort_by(|left, right| left.key.cmp(&right.key));
        let snapshot = self.store.snapshot();
        let mut operations = Vec::with_capacity(deltas.len());
        for group in deltas.chunk_by(|left, right| left.key == right.key) {
            let key = store_key(&group[0].key);
            let old = self.store.get(&key, &snapshot).map_err(broken)?;
            let value = match (&old, group) {
                (None, [only]) if !purge::is_purge(only) => only.row.clone(),
                _ => {
                    let mut row = match &old {
                        Some(old) => decode_row(old).map_err(ReplicaError::Broken)?,
                        None => Row::default(),
                    };
                    for delta in group {
                        purge::change(&mut row, delta).map_err(ReplicaError::Broken)?;
                    }
                    if row.is_empty() && group.iter().any(|delta| purge::is_purge(delta)) {
                        operations.extend(old.map(|_| StoreOperation::Delete { key }));
                        continue;
                    }
                    row.to_bytes()
                }
            };
            operations.push(StoreOperation::Put { key, value });
        }
        if !self.has_headers.load(Ordering::Relaxed)
            && deltas.iter().any(|delta| self.layout.is_header(&delta.key))
        {
            operations.push(StoreOperation::Put {
                key: headers_mark(),
                value: vec![1],
            });
            // Before the batch is there to read, so that no reader sees a header and does not look for it.
            self.has_headers.store(true, Ordering::Release);
        }
        Ok(operations)
    }

    /// Slows down, then stops, the writers of a store that cannot keep up.
    async fn yield_to_pressure(&self) -> Result<(), ReplicaError> {
        for _ in 0..OVERLOAD_ROUNDS_MAX {
            let pressure = self.store.pressure_permille();
            match pressure.max(self.log.pressure_permille()) {
                0 => return Ok(()),
                pressure @ 1..1000 => {
                    tokio::time::sleep(Duration::from_micros(u64::from(pressure) * 20)).await;
                    return Ok(());
                }
                _ => tokio::time::sleep(OVERLOAD_PAUSE).await,
            }
        }
        Err(ReplicaError::Overloaded(
            "the tablet's store or the log is over its budget".into(),
        ))
    }
}

/// An entry on its way from the log to the store. Dropped half-way (the client has gone), it goes on as a task
/// of the node.
struct Merging {
    replica: Arc<EventualReplica>,
    index: u64,
    durable: Option<Durable>,
}

impl Merging {
    async fn run(&mut self) -> Result<(), ReplicaError> {
        let Some(durable) = self.durable.as_mut() else {
            return Ok(());
        };
        let synced = durable.await;
        self.durable = None;
        finish(&self.replica, self.index, synced)
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        let Some(durable) = self.durable.take() else {
            return;
        };
        let (replica, index) = (self.replica.clone(), self.index);
        spawn(self.replica.tasks.as_ref(), async move {
            if let Err(error) = finish(&replica, index, durable.await) {
                tracing::warn!(%error, "an abandoned write failed");
            }
        });
    }
}

fn finish(
    replica: &EventualReplica,
    index: u64,
    synced: Result<(), world::LogError>,
) -> Result<(), ReplicaError> {
    if let Err(error) = synced {
        replica.fail(Failure::Log(error.to_string()));
        return Err(broken(error));
    }
    let mut writer = replica.writer.lock();
    replica.drain(&mut writer, index)
}

/// Of keys that the tablet does not hold: whoever asks for them does not know its placement.
fn elsewhere() -> ReplicaError {
    ReplicaError::Invalid("the tablet does not hold these keys".into())
}

fn failed() -> ReplicaError {
    ReplicaError::Broken("this replica has failed".into())
}

fn broken(error: impl std::fmt::Display) -> ReplicaError {
    ReplicaError::Broken(error.to_string())
}
