//! The state machine of a strong tablet: applies effects, and decides nothing but whether a command's lease is
//! current and whether it was applied before. Both follow from the log alone, so all replicas decide alike.

mod kept;
mod loading;

use crate::command::{self, Command, Control, Prepare, Verdict, Write};
use crate::keys;
use crate::request::CommandId;
use crate::shown::Shown;
use crate::split::Division;
use crate::state::{Decision, Lease, State};
use crate::step::Ending;
use api::KeyRange;
use bytes::Bytes;
use cluster::Tablet;
use consensus::{
    Committed, CommittedEntry, Leadership, MachineError, SnapshotSource, StateMachine, StoreSource,
};
use kept::refuses;
use loading::Loaded;
use minicbor::{Decode, Encode};
use model::{LeaseEpoch, ReplicaId, Row, Timestamp};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;
use tracing::error;
use world::planted::{self, Bug};
use world::{Applied, Install, Snapshot, Store, StoreBatch, StoreError, StoreOperation, Stores};

/// One replica, as machine and requests share it.
pub(crate) struct Replica {
    pub state: Mutex<State>,
    /// `None` while there is no usable state.
    pub store: RwLock<Option<Arc<dyn Store>>>,
    /// Wakes who waits for an entry, a lease, or a leader.
    pub changed: Notify,
    /// Wakes the upkeep: a lease has begun or leadership has changed.
    pub lease_changed: Notify,
}

impl Replica {
    pub fn new(range: KeyRange) -> Arc<Replica> {
        Arc::new(Replica {
            state: Mutex::new(State::new(range)),
            store: RwLock::new(None),
            changed: Notify::new(),
            lease_changed: Notify::new(),
        })
    }

    pub fn store(&self) -> Option<Arc<dyn Store>> {
        self.store.read().clone()
    }
}

/// What a leaseholder tells the others between commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ClosedMessage {
    #[n(0)]
    pub epoch: LeaseEpoch,
    #[n(1)]
    pub index: u64,
    #[n(2)]
    pub closed: Timestamp,
}

pub(crate) struct Rows {
    replica: Arc<Replica>,
    id: ReplicaId,
    stores: Arc<dyn Stores>,
    store: Option<Arc<dyn Store>>,
    lease: Lease,
    /// The key range in force, once a split has said so.
    range: Option<KeyRange>,
    prepared: BTreeMap<CommandId, Arc<Prepare>>,
    decisions: BTreeMap<CommandId, Arc<Decision>>,
    install: Option<Box<dyn Install>>,
}

/// The effects of the entries of one batch.
struct Batch<'a> {
    store: &'a dyn Store,
    snapshot: Snapshot,
    operations: Vec<StoreOperation>,
    /// Rows that this batch has written: what the store will say.
    written: BTreeMap<Bytes, Option<Vec<u8>>>,
    closed: Timestamp,
    /// What a split has left here.
    divided: Option<Tablet>,
    /// The right half is on its own since this entry.
    settled_at: Option<u64>,
    /// What transactions did, to be shown when the batch is in the store.
    shown: Vec<Shown>,
}

impl Rows {
    pub fn open(
        replica: Arc<Replica>,
        id: ReplicaId,
        stores: Arc<dyn Stores>,
    ) -> Result<Rows, StoreError> {
        let store = match stores.open(id) {
            Ok(store) => Some(store),
            Err(StoreError::Installing(_) | StoreError::Corrupt(_)) => None,
            Err(error) => return Err(error),
        };
        let mut rows = Rows {
            replica,
            id,
            stores,
            store: None,
            lease: Lease::default(),
            range: None,
            prepared: BTreeMap::new(),
            decisions: BTreeMap::new(),
            install: None,
        };
        if let Some(store) = store {
            rows.adopt(store)?;
        }
        Ok(rows)
    }

    /// Takes a store as the replica's state.
    fn adopt(&mut self, store: Arc<dyn Store>) -> Result<(), StoreError> {
        let Loaded {
            lease,
            range,
            division,
            recent,
            endings,
            outcomes,
            prepared,
            decisions,
        } = loading::load(store.as_ref())?;
        let applied = store.applied();
        self.lease = lease;
        self.range = range.clone();
        self.prepared = prepared.clone();
        self.decisions = decisions.clone();
        let mut state = self.replica.state.lock();
        state.lease = lease;
        // A broken state may be replaced by an older one.
        state.closed = Timestamp::MIN;
        state.newest = recent
            .newest()
            .unwrap_or(Timestamp::MIN)
            .max(endings.newest());
        state.recent = recent;
        state.endings = endings;
        state.outcomes = outcomes;
        for id in std::mem::take(&mut state.prepared).into_keys() {
            state.locks.end_prepared(id);
        }
        for (id, prepare) in &prepared {
            let head = &prepare.head;
            state.locks.add_prepared(*id, head.timestamp, head.spans());
        }
        state.prepared = prepared;
        state.decisions = decisions;
        state.applied_index = applied.index;
        state.applied_term = applied.term;
        if let Some(range) = range {
            state.range = range;
            // What was opened or installed is all there is: it is flushed.
            state.forgets_at = division.is_none().then_some(0);
        }
        if let Some(division) = &division {
            state.epoch_min = division.left_epoch;
        }
        state.division = division.map(|division| Arc::new(division.right));
        drop(state);
        *self.replica.store.write() = Some(store.clone());
        self.store = Some(store);
        self.replica.changed.notify_waiters();
        Ok(())
    }

    fn apply_command(
        &mut self,
        batch: &mut Batch<'_>,
        index: u64,
        command: Bytes,
    ) -> Result<Verdict, MachineError> {
        match command::decode(command) {
            Some(Command::Write(write)) => self.apply_write(batch, write),
            Some(Command::Prepare(prepare)) => Ok(self.apply_prepare(batch, prepare)),
            Some(Command::Control(control)) => self.apply_control(batch, index, control),
            None => Err(MachineError("a command is not readable".into())),
        }
    }

    /// Whether a command of this epoch may do anything.
    fn is_current(&self, epoch: LeaseEpoch) -> bool {
        epoch == self.lease.epoch && self.lease.released.is_none()
    }

    /// Keys that a split before it in the log has taken away are nobody's here, whatever the proposer knew.
    fn holds(&self, rows: &command::Rows) -> bool {
        let range = self.range.as_ref();
        range.is_none_or(|range| rows.iter().all(|(key, _)| range.contains(key)))
    }

    fn apply_write(
        &mut self,
        batch: &mut Batch<'_>,
        write: Write,
    ) -> Result<Verdict, MachineError> {
        if !self.is_current(write.epoch) || !self.holds(&write.rows) {
            return Ok(Verdict::OldEpoch);
        }
        {
            let mut state = self.replica.state.lock();
            if state.recent.find(write.id).is_some() && !planted::is(Bug::RetryAppliesTwice) {
                return Ok(Verdict::Repeated);
            }
            if write.is_kept && refuses(&state, Some(write.id)) {
                return Ok(Verdict::Ended(Ending::Aborted));
            }
            state.newest = state.newest.max(write.timestamp);
            if let Some((timestamp, id)) = state.recent.add(write.timestamp, write.id) {
                batch.operations.push(StoreOperation::Delete {
                    key: keys::command(timestamp, id),
                });
            }
        }
        batch.operations.push(StoreOperation::Put {
            key: keys::command(write.timestamp, write.id),
            value: Vec::new(),
        });
        if let Some(end) = write.lease_end {
            self.extend(batch, end);
        }
        if write.is_kept {
            self.keep_commit(batch, write.timestamp, write.id);
        }
        batch.closed = batch.closed.max(write.timestamp);
        for (key, row) in write.rows {
            batch.replace(key, row, write.timestamp)?;
        }
        Ok(Verdict::Done)
    }

    fn apply_prepare(&mut self, batch: &mut Batch<'_>, prepare: Prepare) -> Verdict {
        let id = prepare.head.id;
        let is_current = self.is_current(prepare.head.epoch);
        if !is_current || !self.holds(&prepare.rows) {
            return Verdict::OldEpoch;
        }
        {
            let state = self.replica.state.lock();
            if let Some(ending) = state.endings.find(id) {
                return Verdict::Ended(ending);
            }
            if refuses(&state, prepare.head.kept_as) {
                return Verdict::Ended(Ending::Aborted);
            }
        }
        if self.prepared.contains_key(&id) {
            return Verdict::Repeated;
        }
        if let Some(end) = prepare.head.lease_end {
            self.extend(batch, end);
        }
        batch.operations.push(StoreOperation::Put {
            key: keys::prepared(id),
            value: command::encode_prepare(&prepare),
        });
        let prepare = Arc::new(prepare);
        self.prepared.insert(id, prepare.clone());
        batch.shown.push(Shown::Prepared(prepare));
        Verdict::Done
    }

    /// Ends a transaction here: its share, if it is prepared, becomes rows or nothing.
    fn end(
        &mut self,
        batch: &mut Batch<'_>,
        id: CommandId,
        ending: Ending,
        at: Timestamp,
    ) -> Result<(), MachineError> {
        let share = self.prepared.remove(&id);
        {
            let mut state = self.replica.state.lock();
            let at = match ending {
                Ending::Committed(timestamp) => timestamp,
                Ending::Aborted => at,
            };
            batch.operations.push(StoreOperation::Put {
                key: keys::ending(at, id),
                value: encode(&ending),
            });
            for (at, id) in state.endings.add(at, id, ending) {
                batch.operations.push(StoreOperation::Delete {
                    key: keys::ending(at, id),
                });
            }
            if let (Ending::Committed(timestamp), Some(_)) = (ending, &share) {
                state.newest = state.newest.max(timestamp);
            }
        }
        let Some(share) = share else {
            return Ok(());
        };
        batch.operations.push(StoreOperation::Delete {
            key: keys::prepared(id),
        });
        let committed = match ending {
            Ending::Committed(timestamp) => {
                if let Some(kept_as) = share.head.kept_as {
                    self.keep_commit(batch, timestamp, kept_as);
                }
                for (key, row) in &share.rows {
                    let row = restamped(&share, key, row.clone(), timestamp)?;
                    batch.replace(key.clone(), row, timestamp)?;
                }
                Some((timestamp, share.head.spans()))
            }
            Ending::Aborted => None,
        };
        batch.shown.push(Shown::Ended(id, committed));
        Ok(())
    }

    fn apply_decide(
        &mut self,
        batch: &mut Batch<'_>,
        id: CommandId,
        decision: Decision,
    ) -> Result<Verdict, MachineError> {
        let known = self.replica.state.lock().endings.find(id);
        if let Some(ending) = known {
            return Ok(Verdict::Ended(ending));
        }
        let Some(share) = self.prepared.get(&id) else {
            return Ok(Verdict::Ended(Ending::Aborted));
        };
        // A split before it in the log has given the coordinator's key, and with it the decision, to another tablet.
        let coordinator = &share.head.coordinator.range.start;
        if self
            .range
            .as_ref()
            .is_some_and(|range| !range.contains(coordinator))
        {
            return Ok(Verdict::OldEpoch);
        }
        self.end(
            batch,
            id,
            Ending::Committed(decision.timestamp),
            decision.timestamp,
        )?;
        batch.operations.push(StoreOperation::Put {
            key: keys::decision(id),
            value: encode(&decision),
        });
        let decision = Arc::new(decision);
        self.decisions.insert(id, decision.clone());
        batch.shown.push(Shown::Decided(id, decision));
        Ok(Verdict::Done)
    }

    fn apply_resolve(
        &mut self,
        batch: &mut Batch<'_>,
        id: CommandId,
        ending: Ending,
        at: Timestamp,
    ) -> Result<Verdict, MachineError> {
        let known = self.replica.state.lock().endings.find(id);
        if let Some(known) = known {
            if known != ending {
                error!(?id, ?known, told = ?ending, "an attempt is said to have ended in two ways");
            }
            return Ok(Verdict::Ended(known));
        }
        self.end(batch, id, ending, at)?;
        Ok(Verdict::Done)
    }

    fn apply_control(
        &mut self,
        batch: &mut Batch<'_>,
        index: u64,
        control: Control,
    ) -> Result<Verdict, MachineError> {
        match control {
            Control::Acquire {
                previous,
                epoch,
                holder,
                start,
                end,
            } => {
                if previous != self.lease.epoch {
                    return Ok(Verdict::OldEpoch);
                }
                self.lease = Lease {
                    epoch,
                    holder,
                    end,
                    released: None,
                };
                batch.closed = batch.closed.max(start);
            }
            Control::Extend { epoch, end } => {
                if !self.is_current(epoch) {
                    return Ok(Verdict::OldEpoch);
                }
                self.extend(batch, end);
                return Ok(Verdict::Done);
            }
            Control::Release { epoch, promised } => {
                if !self.is_current(epoch) {
                    return Ok(Verdict::OldEpoch);
                }
                self.lease.released = Some(promised);
            }
            Control::Split {
                epoch,
                left,
                right,
                promised,
                ..
            } => {
                if !self.is_current(epoch) {
                    return Ok(Verdict::OldEpoch);
                }
                return Ok(self.divide(batch, left, right, promised));
            }
            Control::Settle { right } => {
                let mut state = self.replica.state.lock();
                if state.division.take_if(|it| it.id == right).is_none() {
                    return Ok(Verdict::Repeated);
                }
                batch.operations.push(StoreOperation::Delete {
                    key: keys::division(),
                });
                batch.settled_at = Some(index);
                return Ok(Verdict::Done);
            }
            Control::Decide {
                epoch,
                id,
                timestamp,
                participants,
            } => {
                if !self.is_current(epoch) {
                    return Ok(Verdict::OldEpoch);
                }
                let decision = Decision {
                    timestamp,
                    participants,
                };
                return self.apply_decide(batch, id, decision);
            }
            Control::Resolve {
                epoch,
                id,
                ending,
                at,
            } => {
                if !self.is_current(epoch) {
                    return Ok(Verdict::OldEpoch);
                }
                return self.apply_resolve(batch, id, ending, at);
            }
            Control::Forget { epoch, ids } => {
                if !self.is_current(epoch) {
                    return Ok(Verdict::OldEpoch);
                }
                for id in ids {
                    self.decisions.remove(&id);
                    batch.operations.push(StoreOperation::Delete {
                        key: keys::decision(id),
                    });
                    batch.shown.push(Shown::Forgotten(id));
                }
                return Ok(Verdict::Done);
            }
            Control::Refuse { epoch, kept_as, at } => {
                if !self.is_current(epoch) {
                    return Ok(Verdict::OldEpoch);
                }
                return Ok(self.apply_refuse(batch, kept_as, at));
            }
        }
        self.keep_lease(batch);
        Ok(Verdict::Done)
    }

    /// Narrows the range, and notes what the right half is to be made from; its rows stay where they are until it
    /// lives on its own.
    fn divide(
        &mut self,
        batch: &mut Batch<'_>,
        left: Tablet,
        right: Tablet,
        promised: Timestamp,
    ) -> Verdict {
        let is_done = self.range.as_ref().is_some_and(|range| {
            range.start != left.range.start || range.end != right.range.end || *range == left.range
        });
        if is_done {
            return Verdict::Repeated;
        }
        {
            let mut state = self.replica.state.lock();
            let division = Division::new(&left, &right, promised.max(state.newest))
                .with_lease(self.lease.epoch)
                .with_remembered(&state.recent, &state.endings)
                .with_refusals(&state.outcomes)
                .with_open(&self.prepared, &self.decisions);
            batch.operations.push(StoreOperation::Put {
                key: keys::division(),
                value: encode(&division),
            });
            state.division = Some(Arc::new(right));
        }
        for (id, share) in std::mem::take(&mut self.prepared) {
            let part = share.within(&left.range);
            if part.as_ref() == Some(share.as_ref()) {
                self.prepared.insert(id, share);
                continue;
            }
            let part = part.map(Arc::new);
            batch.operations.push(match &part {
                Some(part) => StoreOperation::Put {
                    key: keys::prepared(id),
                    value: command::encode_prepare(part),
                },
                None => StoreOperation::Delete {
                    key: keys::prepared(id),
                },
            });
            if let Some(part) = &part {
                self.prepared.insert(id, part.clone());
            }
            batch.shown.push(Shown::Divided(id, part));
        }
        batch.operations.push(StoreOperation::Put {
            key: keys::range(),
            value: encode(&left.range),
        });
        self.range = Some(left.range.clone());
        batch.divided = Some(left);
        batch.settled_at = None;
        Verdict::Done
    }

    fn extend(&mut self, batch: &mut Batch<'_>, end: Timestamp) {
        if end > self.lease.end {
            self.lease.end = end;
            self.keep_lease(batch);
        }
    }

    fn keep_lease(&self, batch: &mut Batch<'_>) {
        batch.operations.push(StoreOperation::Put {
            key: keys::lease(),
            value: encode(&self.lease),
        });
    }

    /// Shows requests what is applied now.
    fn publish(
        &self,
        applied: Applied,
        closed: Timestamp,
        (divided, settled_at): (Option<Tablet>, Option<u64>),
        shown: Vec<Shown>,
    ) {
        let mut state = self.replica.state.lock();
        let is_new_lease = state.lease.epoch != self.lease.epoch;
        state.lease = self.lease;
        state.applied_index = applied.index;
        state.applied_term = applied.term;
        if !shown.is_empty() {
            for step in shown {
                state.show(step);
            }
            state.commits_above_newest();
        }
        state.closed = state.closed.max(state.held_back(closed));
        if let Some(left) = divided {
            state.range = left.range;
            state.epoch_min = left.epoch;
            state.forgets_at = planted::is(Bug::SplitForgetsRowsEarly).then_some(0);
        }
        if settled_at.is_some() {
            state.forgets_at = settled_at;
        }
        state.count_announced();
        drop(state);
        if is_new_lease {
            self.replica.lease_changed.notify_waiters();
        }
        self.replica.changed.notify_waiters();
    }
}

/// A row of a share as it is when the commit is at `timestamp`.
fn restamped(
    share: &Prepare,
    key: &Bytes,
    row: Option<Bytes>,
    timestamp: Timestamp,
) -> Result<Option<Bytes>, MachineError> {
    let prepared_at = share.head.timestamp;
    let Some(bytes) = row.as_ref().filter(|_| timestamp != prepared_at) else {
        return Ok(row);
    };
    let mut row = Row::from_bytes(bytes)
        .map_err(|error| MachineError(format!("a prepared row is not readable: {error}")))?;
    row.restamp(prepared_at, timestamp);
    let stamps = share.head.stamps.iter().filter(|stamp| stamp.key == *key);
    for column in stamps.flat_map(|stamp| &stamp.columns) {
        for cell in row.cells.iter_mut().filter(|cell| cell.column == *column) {
            if let model::CellContent::Live { value, .. } = &mut cell.content {
                *value = api::evaluate::timestamp_value(timestamp);
            }
        }
    }
    Ok(Some(row.to_bytes().into()))
}

impl Batch<'_> {
    /// Puts a row in place of what is there, which becomes history.
    fn replace(
        &mut self,
        key: Bytes,
        row: Option<Bytes>,
        timestamp: Timestamp,
    ) -> Result<(), MachineError> {
        let stored = keys::row(&key);
        let old = match self.written.get(&key) {
            Some(old) => old.clone(),
            None => self
                .store
                .get(&stored, &self.snapshot)
                .map_err(failed)?
                .map(|old| old.to_vec()),
        };
        if let Some(old) = old {
            self.operations.push(StoreOperation::Put {
                key: keys::past(&key, timestamp),
                value: old,
            });
        }
        let new = row.map(|row| keys::version(timestamp, &row));
        self.operations.push(match &new {
            Some(value) => StoreOperation::Put {
                key: stored,
                value: value.clone(),
            },
            None => StoreOperation::Delete { key: stored },
        });
        self.written.insert(key, new);
        Ok(())
    }
}

fn failed(error: StoreError) -> MachineError {
    MachineError(error.to_string())
}

fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

impl StateMachine for Rows {
    fn applied(&self) -> Option<Applied> {
        self.store.as_ref().map(|store| store.applied())
    }

    fn flushed(&self) -> Applied {
        self.store
            .as_ref()
            .map(|store| store.flushed())
            .unwrap_or_default()
    }

    fn request_flush(&mut self) {
        if let Some(store) = &self.store {
            store.request_flush();
        }
    }

    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, MachineError> {
        let Some(store) = self.store.clone() else {
            return Err(MachineError("there is no state".into()));
        };
        let Some(last) = entries.last() else {
            return Ok(Vec::new());
        };
        let mut batch = Batch {
            snapshot: store.snapshot(),
            store: store.as_ref(),
            operations: Vec::with_capacity(entries.len() * 4),
            written: BTreeMap::new(),
            closed: Timestamp::MIN,
            divided: None,
            settled_at: None,
            shown: Vec::new(),
        };
        let mut results = Vec::with_capacity(entries.len());
        for entry in entries {
            results.push(match &entry.entry {
                CommittedEntry::Command(command) => self
                    .apply_command(&mut batch, entry.index, command.clone())?
                    .encode(),
                CommittedEntry::Members(_) | CommittedEntry::Empty => Bytes::new(),
            });
        }
        let applied = Applied {
            index: last.index,
            term: last.term,
        };
        let Batch {
            operations,
            closed,
            divided,
            settled_at,
            shown,
            ..
        } = batch;
        store
            .apply(StoreBatch {
                operations,
                applied,
            })
            .map_err(failed)?;
        self.publish(applied, closed, (divided, settled_at), shown);
        Ok(results)
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, MachineError> {
        match &self.store {
            Some(store) => Ok(Box::new(StoreSource::new(store.clone()))),
            None => Err(MachineError("there is no state".into())),
        }
    }

    fn begin_install(&mut self) -> Result<(), MachineError> {
        self.install = None;
        self.install = Some(self.stores.begin_install(self.id).map_err(failed)?);
        Ok(())
    }

    fn install(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Result<(), MachineError> {
        match &mut self.install {
            Some(install) => install.add(pairs).map_err(failed),
            None => Err(MachineError("no installation has begun".into())),
        }
    }

    fn finish_install(&mut self, applied: Applied) -> Result<(), MachineError> {
        let install = self
            .install
            .take()
            .ok_or_else(|| MachineError("no installation has begun".into()))?;
        let store = install.finish(applied).map_err(failed)?;
        self.adopt(store).map_err(failed)
    }

    fn leadership(&mut self, leadership: Leadership) {
        self.replica.state.lock().lead(leadership);
        self.replica.lease_changed.notify_waiters();
        self.replica.changed.notify_waiters();
    }

    fn message(&mut self, from: ReplicaId, message: Bytes) {
        match minicbor::decode::<ClosedMessage>(&message) {
            Ok(message) => {
                let mut state = self.replica.state.lock();
                state.announce(message.epoch, message.index, message.closed);
            }
            Err(error) => error!(%from, %error, "a closed timestamp is not readable"),
        }
    }
}
