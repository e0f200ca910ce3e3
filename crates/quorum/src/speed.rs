//! How fast replicas answer, and which of them have failed, as a coordinator has seen it: whom it asks first, and when it
//! asks one more.

use catalog::{Percentile, Speculation};
use model::{NodeId, ReplicaId, TableId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A sample counts for so much of a node's average.
const WEIGHT: u64 = 8;
/// What was seen of a node counts half after so long: who was slow is tried again.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// Nodes that differ by less are equally fast.
const SLOW_FROM_MICROS: u64 = 2_000;
/// Who has said that it has failed is asked last for so long; then it may have been opened anew.
const FAILING_FOR: Duration = Duration::from_secs(10);
/// With fewer reads, their percentiles say nothing.
const READS_MIN: u64 = 32;
/// So many reads are remembered, older ones less and less.
const READS_MAX: u64 = 2_048;
/// Timers are no finer.
const PATIENCE_MIN: Duration = Duration::from_millis(1);
/// Four buckets for each doubling, up to hours.
const BUCKETS: usize = 4 * 36;

/// Of one node: all its coordinators share it.
#[derive(Default)]
pub struct Speeds {
    nodes: Mutex<BTreeMap<NodeId, Pace>>,
    tables: Mutex<BTreeMap<TableId, Latencies>>,
    extra_reads: AtomicU64,
    /// Since when replicas have said that they have failed.
    failing: Mutex<BTreeMap<ReplicaId, Instant>>,
    /// Whether there are any: nearly always not.
    has_failing: AtomicBool,
}

/// A moving average.
struct Pace {
    micros: u64,
    at: Instant,
}

impl Pace {
    fn micros(&self, now: Instant) -> u64 {
        let halves = now.duration_since(self.at).as_millis() / HALF_LIFE.as_millis();
        self.micros.checked_shr(halves as u32).unwrap_or(0)
    }
}

impl Speeds {
    /// How often a read has asked one replica more than its level needs, because others were slow.
    pub fn extra_reads(&self) -> u64 {
        self.extra_reads.load(Ordering::Relaxed)
    }

    pub(crate) fn count_extra_read(&self) {
        self.extra_reads.fetch_add(1, Ordering::Relaxed);
    }

    /// A node has answered a read within that time, or has not answered for so long.
    pub(crate) fn note(&self, node: NodeId, took: Duration) {
        let (now, took) = (Instant::now(), micros(took));
        let mut nodes = self.nodes.lock();
        let pace = nodes.entry(node).or_insert(Pace {
            micros: took,
            at: now,
        });
        pace.micros = (pace.micros(now) * (WEIGHT - 1) + took) / WEIGHT;
        pace.at = now;
    }

    /// Grows with the node's slowness, in steps of a doubling.
    pub(crate) fn slowness(&self, node: NodeId) -> u32 {
        let nodes = self.nodes.lock();
        let micros = nodes
            .get(&node)
            .map_or(0, |pace| pace.micros(Instant::now()));
        (micros / SLOW_FROM_MICROS)
            .checked_ilog2()
            .map_or(0, |log| log + 1)
    }

    /// A replica has said that its log or its store has failed.
    pub(crate) fn note_failing(&self, replica: ReplicaId) {
        let now = Instant::now();
        let mut failing = self.failing.lock();
        failing.retain(|_, since| now.duration_since(*since) < FAILING_FOR);
        failing.insert(replica, now);
        self.has_failing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_failing(&self, replica: ReplicaId) -> bool {
        if !self.has_failing.load(Ordering::Relaxed) {
            return false;
        }
        let mut failing = self.failing.lock();
        let now = Instant::now();
        failing.retain(|_, since| now.duration_since(*since) < FAILING_FOR);
        self.has_failing
            .store(!failing.is_empty(), Ordering::Relaxed);
        failing.contains_key(&replica)
    }

    /// A read of a table was answered within that time.
    pub(crate) fn note_read(&self, table: TableId, took: Duration) {
        let mut tables = self.tables.lock();
        tables.entry(table).or_default().note(micros(took));
    }

    /// For how long a read waits before it asks one replica more; `None`: it does not.
    pub(crate) fn patience(
        &self,
        table: TableId,
        speculation: Speculation,
        deadline: Duration,
    ) -> Option<Duration> {
        let part = |part| {
            let tables = self.tables.lock();
            let known = tables.get(&table).and_then(|reads| reads.percentile(part));
            known.map_or(deadline / 2, Duration::from_micros)
        };
        let patience = match speculation {
            Speculation::Never => return None,
            Speculation::Always => return Some(Duration::ZERO),
            Speculation::Percentile(at) => part(at),
            Speculation::After { micros } => Duration::from_micros(micros),
            Speculation::Earlier(at, micros) => part(at).min(Duration::from_micros(micros)),
            Speculation::Later(at, micros) => part(at).max(Duration::from_micros(micros)),
        };
        Some(patience.max(PATIENCE_MIN))
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// How long the reads of a table have taken of late.
struct Latencies {
    counts: [u32; BUCKETS],
    total: u64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies {
            counts: [0; BUCKETS],
            total: 0,
        }
    }
}

impl Latencies {
    fn note(&mut self, micros: u64) {
        if self.total >= READS_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u64::from(*count)).sum();
        }
        self.counts[bucket(micros)] += 1;
        self.total += 1;
    }

    /// The end of the bucket in which it lies.
    fn percentile(&self, part: Percentile) -> Option<u64> {
        if self.total < READS_MIN {
            return None;
        }
        let wanted = (self.total * u64::from(part.0)).div_ceil(10_000).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        Some(end_of(found.unwrap_or(BUCKETS - 1)))
    }
}

/// Buckets begin at 4 us, and are a quarter of a doubling wide.
fn bucket(micros: u64) -> usize {
    let micros = micros.max(4);
    let doubling = micros.ilog2();
    let quarter = (micros >> (doubling - 2)) & 3;
    ((doubling as usize - 2) * 4 + quarter as usize).min(BUCKETS - 1)
}

fn end_of(bucket: usize) -> u64 {
    let (doubling, quarter) = (bucket / 4 + 2, bucket as u64 % 4);
    (4 + quarter + 1) << (doubling - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const TABLE: TableId = TableId(7);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn buckets_follow_each_other_and_hold_what_is_below_their_end() {
        let mut last = 0;
        for micros in 0..100_000 {
            let at = bucket(micros);
            assert!(at == last || at == last + 1, "{micros}");
            assert!(
                micros < end_of(at) && end_of(at) <= micros.max(4) * 5 / 4 + 1,
                "{micros}"
            );
            last = at;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_was_slow_is_tried_again_in_time() {
        let speeds = Speeds::default();
        assert_eq!(speeds.slowness(A), 0);
        speeds.note(A, Duration::from_micros(700));
        assert_eq!(speeds.slowness(A), 0);
        for _ in 0..40 {
            speeds.note(A, ms(100));
        }
        let slow = speeds.slowness(A);
        assert!(slow >= 5, "{slow}");
        tokio::time::advance(Duration::from_secs(35)).await;
        assert_eq!(speeds.slowness(A), slow - 3);
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(speeds.slowness(A), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_failed_is_held_to_have_for_a_while() {
        let speeds = Speeds::default();
        speeds.note_failing(ReplicaId(1));
        tokio::time::advance(FAILING_FOR / 2).await;
        speeds.note_failing(ReplicaId(2));
        assert!(speeds.is_failing(ReplicaId(1)) && speeds.is_failing(ReplicaId(2)));
        tokio::time::advance(FAILING_FOR / 2).await;
        assert!(!speeds.is_failing(ReplicaId(1)) && speeds.is_failing(ReplicaId(2)));
        tokio::time::advance(FAILING_FOR / 2).await;
        assert!(!speeds.is_failing(ReplicaId(2)));
    }

    #[test]
    fn patience_is_what_the_table_says() {
        let speeds = Speeds::default();
        let patience = |speculation| speeds.patience(TABLE, speculation, ms(5_000));
        let part = Percentile(9_900);
        assert_eq!(patience(Speculation::Never), None);
        assert_eq!(patience(Speculation::Always), Some(ms(0)));
        assert_eq!(
            patience(Speculation::After { micros: 20_000 }),
            Some(ms(20))
        );
        // Nothing is known yet.
        assert_eq!(patience(Speculation::Percentile(part)), Some(ms(2_500)));
        assert_eq!(patience(Speculation::Earlier(part, 9_000)), Some(ms(9)));
        for number in 0..200 {
            speeds.note_read(TABLE, if number % 50 == 7 { ms(80) } else { ms(4) });
        }
        let known = patience(Speculation::Percentile(part)).unwrap();
        assert!((ms(80)..ms(100)).contains(&known), "{known:?}");
        let half = patience(Speculation::Percentile(Percentile(5_000))).unwrap();
        assert!((ms(4)..=ms(5)).contains(&half), "{half:?}");
        assert_eq!(patience(Speculation::Earlier(part, 9_000)), Some(ms(9)));
        assert_eq!(patience(Speculation::Later(part, 9_000)), Some(known));
        // What is long ago counts no more.
        for _ in 0..20_000 {
            speeds.note_read(TABLE, ms(4));
        }
        assert_eq!(patience(Speculation::Percentile(part)), Some(half));
    }
}
