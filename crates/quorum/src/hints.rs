//! Hints: changes that a replica has missed, kept by the node that coordinated them until the replica's node is back.
//!
//! Each node that misses something has a log of its own here, among the logs of this node: so hints are as durable as
//! writes, share their syncs, and are forgotten from the front as they are delivered. What a hint holds is the change
//! as it was made, with its timestamps; delivering it twice does no harm.
//!
//! Invariants:
//! * A hint is kept only within the limits, for each node and in all: past them it is refused, and repair brings what
//!   was missed.
//! * A hint says until when it may be delivered (see `grace`); who delivers it tells the replica, which refuses it from
//!   then on, however late the message comes.
//! * A hint is forgotten only when it was delivered, came too late, or its table is gone.
//!
//! Deciding what is missed and where it goes now is the coordinator's (`coordinator::handoff`). Format:
//! docs/formats/hints.md.

use crate::message::RawRow;
use bytes::Bytes;
use minicbor::{Decode, Encode};
use model::{NodeId, TableId, Timestamp};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Log, LogBatch, LogEntry, LogError, LogId, LogOperation};

/// Logs of hints are numbered by node above this bit; replicas' ids stay far below it.
const LOG_BIT: u64 = 1 << 63;
const FORMAT: u8 = 1;
/// What has been delivered is forgotten on disk within so long. After a crash it may be delivered again.
const CUT_INTERVAL_MS: u32 = 1_000;

/// How much is kept, for how long, and how fast it is given back.
#[derive(Clone, Debug)]
pub struct HintLimits {
    /// Seconds that a hint is worth keeping; 0: none are kept. Tables with a short `gc_grace` allow less.
    pub age_max_seconds: u32,
    pub bytes_per_node_max: u64,
    pub bytes_max: u64,
    /// To each node that has missed something.
    pub replay_bytes_per_second: u64,
}

impl Default for HintLimits {
    fn default() -> HintLimits {
        HintLimits {
            age_max_seconds: 3 * 3_600,
            bytes_per_node_max: 128 << 20,
            bytes_max: 512 << 20,
            replay_bytes_per_second: 4 << 20,
        }
    }
}

/// A change that one node has missed.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Hint {
    /// The table group, whose tablets the keys are looked up in.
    #[n(0)]
    pub root: TableId,
    #[n(1)]
    pub deltas: Vec<RawRow>,
    #[n(2)]
    pub expires: Timestamp,
    /// Bytes that were ever put into this log before this hint: so its size is known without reading it whole.
    #[n(3)]
    pub offset_bytes: u64,
}

/// A hint and its place in its log.
pub(crate) struct Kept {
    pub index: u64,
    pub size_bytes: u64,
    /// `None`: it cannot be read.
    pub hint: Option<Hint>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HintError {
    #[error("hints are at their limit")]
    Full,
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What has become of hints since the start.
#[derive(Debug, Default)]
pub struct HintCounts {
    pub stored: AtomicU64,
    pub replayed: AtomicU64,
    /// Too old, for a table that is gone, or past the limits.
    pub dropped: AtomicU64,
}

/// The log of one node's hints: `first .. next`, which hold the bytes `begin_bytes .. end_bytes` of all there ever were.
#[derive(Clone, Copy)]
struct Queue {
    first: u64,
    next: u64,
    begin_bytes: u64,
    end_bytes: u64,
}

impl Queue {
    const EMPTY: Queue = Queue {
        first: 1,
        next: 1,
        begin_bytes: 0,
        end_bytes: 0,
    };

    fn size_bytes(&self) -> u64 {
        self.end_bytes - self.begin_bytes
    }
}

pub struct Hints {
    log: Arc<dyn Log>,
    limits: HintLimits,
    queues: Mutex<BTreeMap<NodeId, Queue>>,
    counts: HintCounts,
}

/// Whether a log is one of hints, which no replica owns.
pub fn is_hint_log(log: LogId) -> bool {
    log.0 & LOG_BIT != 0
}

fn log_of(node: NodeId) -> LogId {
    LogId(LOG_BIT | node.0)
}

impl Hints {
    /// Finds what was kept before the last stop.
    pub fn open(log: Arc<dyn Log>, limits: HintLimits) -> Hints {
        let mut queues = BTreeMap::new();
        for id in log.logs().into_iter().filter(|id| is_hint_log(*id)) {
            queues.insert(NodeId(id.0 & !LOG_BIT), found(log.as_ref(), id));
        }
        Hints {
            log,
            limits,
            queues: Mutex::new(queues),
            counts: HintCounts::default(),
        }
    }

    pub fn limits(&self) -> &HintLimits {
        &self.limits
    }

    pub fn counts(&self) -> &HintCounts {
        &self.counts
    }

    /// Of all that is kept.
    pub fn size_bytes(&self) -> u64 {
        self.queues.lock().values().map(Queue::size_bytes).sum()
    }

    /// The nodes that something is kept for.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        let queues = self.queues.lock();
        let waiting = queues.iter().filter(|(_, queue)| queue.next > queue.first);
        waiting.map(|(node, _)| *node).collect()
    }

    /// Keeps a hint; returns when it is durable.
    pub(crate) async fn store(&self, node: NodeId, hint: Hint) -> Result<(), HintError> {
        let durable = {
            // Entries reach the log in the order of their indices because both happen under this lock.
            let mut queues = self.queues.lock();
            let total: u64 = queues.values().map(Queue::size_bytes).sum();
            let queue = queues.entry(node).or_insert(Queue::EMPTY);
            let (entry, size_bytes) = entry_at(queue, hint);
            if queue.size_bytes() + size_bytes > self.limits.bytes_per_node_max
                || total + size_bytes > self.limits.bytes_max
            {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                return Err(HintError::Full);
            }
            queue.next += 1;
            queue.end_bytes += size_bytes;
            self.log.write(LogBatch {
                operations: vec![LogOperation::Append {
                    log: log_of(node),
                    entries: vec![entry],
                }],
            })
        };
        durable.await?;
        self.counts.stored.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The oldest hints for a node, of about this size together.
    pub(crate) fn oldest(&self, node: NodeId, size_bytes_max: u64) -> Result<Vec<Kept>, LogError> {
        let Some(queue) = self.queues.lock().get(&node).copied() else {
            return Ok(Vec::new());
        };
        if queue.next == queue.first {
            return Ok(Vec::new());
        }
        let entries =
            self.log
                .entries(log_of(node), queue.first, queue.next - 1, size_bytes_max)?;
        let kept = entries.into_iter().map(|entry| Kept {
            index: entry.index,
            size_bytes: entry.data.len() as u64,
            hint: decode(&entry.data),
        });
        Ok(kept.collect())
    }

    /// Forgets the hints below an index, but for those that are to be tried again: they go to the end.
    pub(crate) fn forget(&self, node: NodeId, below: u64, again: Vec<Hint>) {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(&node) else {
            return;
        };
        let log = log_of(node);
        // In one batch: a crash leaves a hint at one place or at both.
        let mut operations = Vec::new();
        if !again.is_empty() {
            let mut entries = Vec::with_capacity(again.len());
            for hint in again {
                let (entry, size_bytes) = entry_at(queue, hint);
                queue.next += 1;
                queue.end_bytes += size_bytes;
                entries.push(entry);
            }
            operations.push(LogOperation::Append { log, entries });
        }
        queue.first = below.max(queue.first);
        if queue.first == queue.next {
            queues.remove(&node);
            let operations = vec![LogOperation::Remove { log }];
            self.log
                .write_later(LogBatch { operations }, CUT_INTERVAL_MS);
            return;
        }
        let first = queue.first;
        operations.push(LogOperation::Cut { log, first });
        self.log
            .write_later(LogBatch { operations }, CUT_INTERVAL_MS);
        // Behind what was just queued: the first may be one of those.
        queue.begin_bytes = offset_of(self.log.as_ref(), log, first, queue.end_bytes);
    }
}

fn found(log: &dyn Log, id: LogId) -> Queue {
    let Some(bounds) = log.bounds(id) else {
        return Queue::EMPTY;
    };
    let mut queue = Queue {
        first: bounds.first,
        next: bounds.last + 1,
        ..Queue::EMPTY
    };
    if queue.next <= queue.first {
        queue.next = queue.first;
        return queue;
    }
    let last = bounds.last;
    if let Ok(entries) = log.entries(id, last, last, 1)
        && let Some(entry) = entries.first()
        && let Some(hint) = decode(&entry.data)
    {
        queue.end_bytes = hint.offset_bytes + entry.data.len() as u64;
    }
    queue.begin_bytes = offset_of(log, id, queue.first, queue.end_bytes);
    queue
}

/// The offset of one hint; `end_bytes`, which counts it as nothing, when it cannot be read.
fn offset_of(log: &dyn Log, id: LogId, index: u64, end_bytes: u64) -> u64 {
    let entries = log.entries(id, index, index, 1).unwrap_or_default();
    let hint = entries.first().and_then(|entry| decode(&entry.data));
    hint.map_or(end_bytes, |hint| hint.offset_bytes.min(end_bytes))
}

fn entry_at(queue: &Queue, hint: Hint) -> (LogEntry, u64) {
    let hint = Hint {
        offset_bytes: queue.end_bytes,
        ..hint
    };
    let mut data = vec![FORMAT];
    minicbor::encode(&hint, &mut data).expect("writing to memory does not fail");
    let size_bytes = data.len() as u64;
    let entry = LogEntry {
        index: queue.next,
        term: 0,
        data: data.into(),
    };
    (entry, size_bytes)
}

fn decode(data: &Bytes) -> Option<Hint> {
    match data.split_first() {
        Some((&FORMAT, body)) => minicbor::decode(body).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::delta;
    use sim::disk::SimDisk;

    const NODE: NodeId = NodeId(2);

    fn hint(number: i32) -> Hint {
        Hint {
            root: TableId(1),
            deltas: vec![delta(1, number, 10, number.into())],
            expires: Timestamp(5),
            offset_bytes: 0,
        }
    }

    fn numbers(hints: &Hints) -> Vec<i32> {
        let kept = hints.oldest(NODE, 1 << 20).unwrap();
        let number = |kept: &Kept| {
            let kept = kept.hint.as_ref().unwrap();
            (1..100).find(|number| hint(*number).deltas == kept.deltas)
        };
        kept.iter().map(|kept| number(kept).unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn hints_survive_a_crash_in_their_order_and_go_from_the_front() {
        let disk = SimDisk::new(1);
        let hints = Hints::open(disk.open().0, HintLimits::default());
        for number in 1..=4 {
            hints.store(NODE, hint(number)).await.unwrap();
        }
        let size = hints.size_bytes();
        assert_eq!(
            (hints.nodes(), numbers(&hints)),
            (vec![NODE], vec![1, 2, 3, 4])
        );

        disk.crash();
        let hints = Hints::open(disk.open().0, HintLimits::default());
        assert_eq!(
            (numbers(&hints), hints.size_bytes()),
            (vec![1, 2, 3, 4], size)
        );

        // The second is to be tried again.
        hints.forget(NODE, 3, vec![hint(2)]);
        assert_eq!(numbers(&hints), [3, 4, 2]);
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        disk.crash();
        let hints = Hints::open(disk.open().0, HintLimits::default());
        assert_eq!(numbers(&hints), [3, 4, 2]);
        assert!(hints.size_bytes() < size);
        hints.forget(NODE, 6, vec![]);
        assert_eq!((hints.nodes(), hints.size_bytes()), (vec![], 0));
        hints.store(NODE, hint(7)).await.unwrap();
        assert_eq!(numbers(&hints), [7]);
        assert!(hints.size_bytes() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_past_the_limits_is_refused() {
        let disk = SimDisk::new(1);
        let one = {
            let hints = Hints::open(disk.open().0, HintLimits::default());
            hints.store(NodeId(9), hint(1)).await.unwrap();
            hints.size_bytes()
        };
        let limits = HintLimits {
            bytes_per_node_max: one * 2 + 8,
            bytes_max: one * 3 + 8,
            ..HintLimits::default()
        };
        let hints = Hints::open(disk.open().0, limits);
        hints.store(NODE, hint(1)).await.unwrap();
        hints.store(NODE, hint(2)).await.unwrap();
        assert_eq!(
            hints.store(NODE, hint(3)).await,
            Err(HintError::Full),
            "of one node"
        );
        assert_eq!(
            hints.store(NodeId(3), hint(3)).await,
            Err(HintError::Full),
            "in all"
        );
        hints.forget(NODE, 2, vec![]);
        hints.store(NodeId(3), hint(3)).await.unwrap();
        assert_eq!(hints.counts().dropped.load(Ordering::Relaxed), 2);
    }
}
