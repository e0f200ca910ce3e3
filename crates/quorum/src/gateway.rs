//! The write timestamps that a gateway gives to writes that name none, and the ballots of its proposers.

use crate::paxos::Ballot;
use model::{Incarnation, NodeId, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use world::Clock;

/// One a node. Its timestamps follow the wall clock and never repeat nor go back, so that two writes through
/// one gateway are ordered as they were made.
pub struct Gateway {
    clock: Arc<dyn Clock>,
    incarnation: Incarnation,
    last: AtomicI64,
    numbers: AtomicU64,
}

impl Gateway {
    pub fn new(clock: Arc<dyn Clock>, incarnation: Incarnation) -> Gateway {
        Gateway {
            clock,
            incarnation,
            last: AtomicI64::new(i64::MIN),
            numbers: AtomicU64::new(0),
        }
    }

    /// A ballot that nobody has ever had, later than `floor`, and about now if that is later too. The floor does
    /// not move the gateway's own timestamps: it comes from one partition, and they are for all.
    pub(crate) fn next_ballot(&self, node: NodeId, floor: Timestamp) -> Ballot {
        Ballot {
            timestamp: self.next_timestamp().max(floor.next()),
            node,
            incarnation: self.incarnation,
            sequence: self.next_number(),
        }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// A number that this incarnation gives only once.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub fn next_timestamp(&self) -> Timestamp {
        let now = self.clock.wall_micros();
        let previous = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(now.max(last.saturating_add(1)))
            })
            .expect("the closure always returns a value");
        Timestamp(now.max(previous.saturating_add(1)))
    }

    /// The wall clock's reading.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.clock.wall_micros())
    }

    /// Seconds since 1970, in which cells expire.
    pub fn now_seconds(&self) -> i64 {
        self.now().seconds()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Stopped;

    #[test]
    fn timestamps_grow_while_the_clock_stands() {
        let gateway = Gateway::new(Arc::new(Stopped(1_500_000)), Incarnation(3));
        assert_eq!(gateway.next_timestamp(), Timestamp(1_500_000));
        assert_eq!(gateway.next_timestamp(), Timestamp(1_500_001));
        assert_eq!(gateway.next_timestamp(), Timestamp(1_500_002));
        assert_eq!(gateway.now_seconds(), 1);
    }

    #[test]
    fn ballots_lie_above_their_floor_and_are_never_the_same() {
        let gateway = Gateway::new(Arc::new(Stopped(1_500_000)), Incarnation(3));
        let high = gateway.next_ballot(NodeId(7), Timestamp(9_000_000));
        assert_eq!(high.timestamp, Timestamp(9_000_001));
        assert_eq!((high.node, high.incarnation), (NodeId(7), Incarnation(3)));
        let again = gateway.next_ballot(NodeId(7), Timestamp(9_000_000));
        assert_eq!(again.timestamp, high.timestamp);
        assert_ne!(again, high);
        assert_eq!(gateway.next_timestamp(), Timestamp(1_500_002));
    }
}
