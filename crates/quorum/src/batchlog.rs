//! The batch log: what a batch over several partitions is going to write, kept by a few nodes until all of it is
//! written, so that it is written whatever happens to its coordinator.
//!
//! Each node keeps the batches of others (and, where it must, its own) in one log among its logs: an entry for each
//! batch, and one for its end. What a batch holds are changes with the timestamps that were theirs when the batch was
//! accepted; writing them twice does no harm.
//!
//! Invariants:
//! * A batch that was kept is there after a crash, until it was forgotten on purpose. One that was forgotten may come
//!   back in a crash.
//! * More than `BYTES_MAX` is refused, and with it the batch.
//!
//! Who keeps a batch, and when it is written once more, is the coordinator's business (`coordinator::batch`). Format:
//! docs/formats/batchlog.md.

use crate::message::RawRow;
use catalog::Durability;
use minicbor::{Decode, Encode};
use model::{Incarnation, NodeId, TableId, TabletId, Timestamp};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use world::{Log, LogBatch, LogEntry, LogError, LogId, LogOperation};

/// The log's number: above all replicas' ids, beside those of hints.
const LOG: LogId = LogId(1 << 62);
const FORMAT: u8 = 1;
/// Of all batches that are kept here, as encoded. They are kept in memory, too.
const BYTES_MAX: usize = 64 << 20;
/// An end is durable within so long. After a crash before, its batch is written once more.
const FORGET_INTERVAL_MS: u32 = 1_000;
/// Bytes of log read at once when it is opened.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Whether a log is that of batches, which no replica owns.
pub fn is_batch_log(log: LogId) -> bool {
    log == LOG
}

/// A batch, by the node that accepted it and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct BatchId {
    #[n(0)]
    pub node: NodeId,
    #[n(1)]
    pub incarnation: Incarnation,
    #[n(2)]
    pub sequence: u64,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Batch {
    #[n(0)]
    pub id: BatchId,
    /// Whoever still keeps it then writes it, by its own wall clock.
    #[n(1)]
    pub replay_after: Timestamp,
    #[n(2)]
    pub parts: Vec<BatchPart>,
}

/// What a batch writes to one table group.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct BatchPart {
    #[n(0)]
    pub root: TableId,
    #[n(1)]
    pub deltas: Vec<RawRow>,
    #[n(2)]
    pub durability: Durability,
    /// Until when replicas take it.
    #[n(3)]
    pub expires: Timestamp,
    /// Until when what a replica misses of it is worth a hint.
    #[n(4)]
    pub hint_expires: Option<Timestamp>,
}

/// To a node that keeps batches.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum BatchRequest {
    /// Answered when it is durable.
    #[n(0)]
    Keep(#[n(0)] Batch),
    /// All of it is written.
    #[n(1)]
    Forget(#[n(0)] BatchId),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchlogError {
    #[error("the batch log is full")]
    Full,
    #[error(transparent)]
    Log(#[from] LogError),
}

#[derive(Encode, Decode)]
enum Record {
    #[n(0)]
    Kept(#[n(0)] Batch),
    #[n(1)]
    Ended(#[n(0)] BatchId),
}

pub struct Batchlog {
    log: Arc<dyn Log>,
    state: Mutex<State>,
}

/// A part of a batch by its number, the tablet that it goes to, and a node that has missed it.
pub(crate) type Hinted = (usize, TabletId, NodeId);

struct State {
    next: u64,
    live: BTreeMap<BatchId, Live>,
    size_bytes: usize,
    /// The last that `due` has told.
    last_due: Option<BatchId>,
}

struct Live {
    index: u64,
    size_bytes: usize,
    batch: Arc<Batch>,
    hinted: BTreeSet<Hinted>,
}

impl Batchlog {
    /// Finds what was kept before the last stop. What cannot be read is reported and passed over.
    pub fn open(log: Arc<dyn Log>) -> Batchlog {
        let mut state = State {
            next: 1,
            live: BTreeMap::new(),
            size_bytes: 0,
            last_due: None,
        };
        if let Some(bounds) = log.bounds(LOG) {
            state.next = bounds.first;
            while state.next <= bounds.last {
                match log.entries(LOG, state.next, bounds.last, READ_BYTES_MAX) {
                    Ok(entries) if !entries.is_empty() => {
                        for entry in entries {
                            state.next = entry.index + 1;
                            state.replay(entry.index, &entry.data);
                        }
                    }
                    Ok(_) => break,
                    Err(error) => {
                        tracing::error!(%error, "the batch log cannot be read");
                        break;
                    }
                }
            }
            state.next = state.next.max(bounds.last + 1);
        }
        Batchlog {
            log,
            state: Mutex::new(state),
        }
    }

    /// Carries out a request, from here or from another node.
    pub async fn handle(&self, request: BatchRequest) -> Result<(), BatchlogError> {
        match request {
            BatchRequest::Keep(batch) => self.keep(batch).await,
            BatchRequest::Forget(id) => {
                self.forget(id);
                Ok(())
            }
        }
    }

    async fn keep(&self, batch: Batch) -> Result<(), BatchlogError> {
        let data = encode(&Record::Kept(batch.clone()));
        let durable = {
            // Entries reach the log in the order of their indices because both happen under this lock.
            let mut state = self.state.lock();
            if state.size_bytes + data.len() > BYTES_MAX {
                return Err(BatchlogError::Full);
            }
            let (index, size_bytes) = (state.next, data.len());
            let append = state.append(data);
            state.insert(batch, index, size_bytes);
            self.log.write(LogBatch {
                operations: vec![append],
            })
        };
        durable.await?;
        Ok(())
    }

    pub(crate) fn forget(&self, id: BatchId) {
        let mut state = self.state.lock();
        if !state.remove(id) {
            return;
        }
        let append = state.append(encode(&Record::Ended(id)));
        let first = state.live.values().map(|live| live.index).min();
        // The end itself stays for as long as its batch may.
        let cut = LogOperation::Cut {
            log: LOG,
            first: first.unwrap_or(state.next - 1),
        };
        self.log.write_later(
            LogBatch {
                operations: vec![append, cut],
            },
            FORGET_INTERVAL_MS,
        );
    }

    /// What should have been written by now: so many at most, and others the next time, until all have had their turn.
    pub(crate) fn due(&self, now: Timestamp, count_max: usize) -> Vec<Arc<Batch>> {
        let mut state = self.state.lock();
        let last = match state.last_due {
            Some(last) => Bound::Excluded(last),
            None => Bound::Unbounded,
        };
        let after = state.live.range((last, Bound::Unbounded));
        let before = state.live.iter();
        let count = state.live.len();
        let batches = after.chain(before).map(|(_, live)| &live.batch);
        let due = batches
            .take(count)
            .filter(|batch| batch.replay_after <= now);
        let due: Vec<Arc<Batch>> = due.take(count_max).cloned().collect();
        state.last_due = due.last().map(|batch| batch.id);
        due
    }

    /// Whether a hint of this part of a batch was kept for a node, as far as this start remembers.
    pub(crate) fn is_hinted(&self, id: BatchId, of: Hinted) -> bool {
        let state = self.state.lock();
        let live = state.live.get(&id);
        live.is_some_and(|live| live.hinted.contains(&of))
    }

    pub(crate) fn note_hinted(&self, id: BatchId, of: Hinted) {
        if let Some(live) = self.state.lock().live.get_mut(&id) {
            live.hinted.insert(of);
        }
    }

    /// Of all that is kept.
    pub fn size_bytes(&self) -> usize {
        self.state.lock().size_bytes
    }
}

impl State {
    fn append(&mut self, data: Vec<u8>) -> LogOperation {
        let entry = LogEntry {
            index: self.next,
            term: 0,
            data: data.into(),
        };
        self.next += 1;
        LogOperation::Append {
            log: LOG,
            entries: vec![entry],
        }
    }

    fn replay(&mut self, index: u64, data: &[u8]) {
        match decode(data) {
            Ok(Record::Kept(batch)) => self.insert(batch, index, data.len()),
            Ok(Record::Ended(id)) => {
                self.remove(id);
            }
            Err(error) => tracing::error!(index, error, "a batch cannot be read"),
        }
    }

    /// A request that comes twice keeps the later entry.
    fn insert(&mut self, batch: Batch, index: u64, size_bytes: usize) {
        self.remove(batch.id);
        self.size_bytes += size_bytes;
        let live = Live {
            index,
            size_bytes,
            batch: Arc::new(batch),
            hinted: BTreeSet::new(),
        };
        self.live.insert(live.batch.id, live);
    }

    fn remove(&mut self, id: BatchId) -> bool {
        match self.live.remove(&id) {
            Some(live) => {
                self.size_bytes -= live.size_bytes;
                true
            }
            None => false,
        }
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let mut data = vec![FORMAT];
    minicbor::encode(record, &mut data).expect("writing to memory does not fail");
    data
}

fn decode(data: &[u8]) -> Result<Record, String> {
    match data.split_first() {
        Some((&FORMAT, body)) => minicbor::decode(body)
            .map_err(|error| format!("an entry of the batch log cannot be read: {error}")),
        _ => Err("an entry of the batch log has an unknown format".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::delta;
    use sim::disk::SimDisk;
    use std::time::Duration;

    fn batch(sequence: u64) -> Batch {
        Batch {
            id: BatchId {
                node: NodeId(1),
                incarnation: Incarnation(2),
                sequence,
            },
            replay_after: Timestamp(sequence as i64 * 10),
            parts: vec![BatchPart {
                root: TableId(1),
                deltas: vec![delta(1, 1, 10, sequence as i64)],
                durability: Durability::Synced,
                expires: Timestamp(1_000),
                hint_expires: None,
            }],
        }
    }

    fn due(batches: &Batchlog, now: i64) -> Vec<u64> {
        let due = batches.due(Timestamp(now), 100);
        let mut due: Vec<u64> = due.iter().map(|batch| batch.id.sequence).collect();
        due.sort();
        due
    }

    #[tokio::test(start_paused = true)]
    async fn batches_survive_a_crash_until_they_are_forgotten() {
        let disk = SimDisk::new(1);
        let open = || Batchlog::open(disk.open().0);
        let batches = open();
        for sequence in [1, 2, 3, 2] {
            batches.keep(batch(sequence)).await.unwrap();
        }
        assert_eq!(due(&batches, 25), [1, 2]);
        batches.forget(batch(1).id);
        batches.forget(batch(1).id);
        assert_eq!(due(&batches, 99), [2, 3]);
        // Before the end is durable, for certain.
        disk.crash();
        assert!(due(&open(), 99).ends_with(&[2, 3]));
        let batches = open();
        for sequence in [1, 2] {
            batches.forget(batch(sequence).id);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        disk.crash();
        let batches = open();
        assert_eq!(due(&batches, 99), [3]);
        batches.forget(batch(3).id);
        assert_eq!(batches.size_bytes(), 0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        disk.crash();
        let batches = open();
        assert_eq!(due(&batches, 99), Vec::<u64>::new());
        batches.keep(batch(4)).await.unwrap();
        assert_eq!(due(&batches, 99), [4]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_have_their_turn_whatever_becomes_of_the_first() {
        let batches = Batchlog::open(SimDisk::new(1).open().0);
        for sequence in 1..=5 {
            batches.keep(batch(sequence)).await.unwrap();
        }
        let turns = |now| -> Vec<u64> {
            let due = batches.due(Timestamp(now), 2);
            due.iter().map(|batch| batch.id.sequence).collect()
        };
        assert_eq!(turns(40), [1, 2]);
        assert_eq!(turns(40), [3, 4]);
        assert_eq!(turns(40), [1, 2]);
        assert_eq!(turns(50), [3, 4]);
        assert_eq!(turns(50), [5, 1]);
        assert_eq!(turns(10), [1], "none twice");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_much_is_refused() {
        let batches = Batchlog::open(SimDisk::new(1).open().0);
        let mut large = batch(1);
        large.parts[0].deltas[0].row = vec![0; BYTES_MAX / 2 + 1];
        batches.keep(large.clone()).await.unwrap();
        large.id.sequence = 2;
        assert_eq!(batches.keep(large).await, Err(BatchlogError::Full));
        batches.forget(batch(1).id);
        assert_eq!(batches.size_bytes(), 0);
    }
}
