//! The write timestamps that a gateway gives to writes that name none.

use model::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use world::Clock;

/// One a node. Its timestamps follow the wall clock and never repeat nor go back, so that two writes through
/// one gateway are ordered as they were made.
pub struct Gateway {
    clock: Arc<dyn Clock>,
    last: AtomicI64,
}

impl Gateway {
    pub fn new(clock: Arc<dyn Clock>) -> Gateway {
        Gateway {
            clock,
            last: AtomicI64::new(i64::MIN),
        }
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
        let gateway = Gateway::new(Arc::new(Stopped(1_500_000)));
        assert_eq!(gateway.next_timestamp(), Timestamp(1_500_000));
        assert_eq!(gateway.next_timestamp(), Timestamp(1_500_001));
        assert_eq!(gateway.next_timestamp(), Timestamp(1_500_002));
        assert_eq!(gateway.now_seconds(), 1);
    }
}
