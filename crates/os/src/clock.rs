//! The kernel's clock with a bound of its error that somebody vouches for.
//!
//! Readings never go back within a process: where the wall clock is set back, `now` stands still until it has caught
//! up. What was promised before a restart is the leases' and promises' business.

use model::{Interval, Timestamp};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use world::{Clock, ClockError};

/// Who vouches for the bound. Sources that measure it (`cluster`, `kernel`) will be further variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockSource {
    /// One machine: its own clock is the common reference, so there is no error.
    Single,
    /// An operator's promise: all nodes' clocks are within `bound` of true time.
    Fixed { bound: Duration },
}

#[derive(Debug)]
pub struct SystemClock {
    source: ClockSource,
    bound_micros: i64,
    started: Instant,
    last: AtomicI64,
}

impl SystemClock {
    pub fn new(source: ClockSource) -> SystemClock {
        let bound = match source {
            ClockSource::Single => Duration::ZERO,
            ClockSource::Fixed { bound } => bound,
        };
        SystemClock {
            source,
            bound_micros: i64::try_from(bound.as_micros()).unwrap_or(i64::MAX),
            started: Instant::now(),
            last: AtomicI64::new(i64::MIN),
        }
    }

    pub fn source(&self) -> ClockSource {
        self.source
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Result<Interval, ClockError> {
        let reading = self.wall_micros();
        let now = reading.max(self.last.fetch_max(reading, Ordering::Relaxed));
        Ok(Interval {
            earliest: Timestamp(now.saturating_sub(self.bound_micros)),
            latest: Timestamp(now.saturating_add(self.bound_micros)),
        })
    }

    fn wall_micros(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            // A clock that stands before 1970.
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |it| -it),
        }
    }

    fn monotonic_micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_bound_on_both_sides_and_never_goes_back() {
        let clock = SystemClock::new(ClockSource::Fixed {
            bound: Duration::from_millis(2),
        });
        let mut last = clock.now().unwrap();
        assert_eq!(last.latest.0 - last.earliest.0, 4_000);
        for _ in 0..1_000 {
            let next = clock.now().unwrap();
            assert!(next.earliest >= last.earliest && next.latest >= last.latest);
            last = next;
        }
        let wall = clock.wall_micros();
        assert!((last.earliest.0..=wall + 2_000).contains(&last.latest.0.min(wall)));
    }

    #[test]
    fn a_clock_that_is_set_back_stands_still() {
        let clock = SystemClock::new(ClockSource::Single);
        let ahead = clock.wall_micros() + 60_000_000;
        clock.last.store(ahead, Ordering::Relaxed);
        let now = clock.now().unwrap();
        assert_eq!(
            (now.earliest, now.latest),
            (Timestamp(ahead), Timestamp(ahead))
        );
    }
}
