//! This machine's clocks, with a bound of the wall clock's error where somebody vouches for it.
//!
//! The monotonic clock is the raw one where there is such: time daemons bend the rate of the other while they
//! correct the wall clock, by far more than two oscillators differ. It stands still while the machine sleeps; that time is
//! added, for to the rest of the cluster it has passed.

use crate::kernel;
use model::{Interval, Timestamp};
#[cfg(target_os = "linux")]
use rustix::time::ClockId;
#[cfg(target_os = "linux")]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use world::{Clock, ClockError, ClockSource};

#[derive(Debug)]
pub struct SystemClock {
    source: ClockSource,
    /// Of the source `fixed`.
    bound_micros: i64,
    monotonic: Monotonic,
    last_earliest: AtomicI64,
    last_latest: AtomicI64,
}

impl SystemClock {
    /// A clock that measures nothing itself: `single`, `cluster` (the node does the measuring) or `kernel`.
    pub fn new(source: ClockSource) -> SystemClock {
        SystemClock {
            source,
            bound_micros: 0,
            monotonic: Monotonic::start(),
            last_earliest: AtomicI64::new(i64::MIN),
            last_latest: AtomicI64::new(i64::MIN),
        }
    }

    /// An operator's promise: all nodes' wall clocks are within `bound` of true time.
    pub fn fixed(bound: Duration) -> SystemClock {
        SystemClock {
            bound_micros: i64::try_from(bound.as_micros()).unwrap_or(i64::MAX),
            ..SystemClock::new(ClockSource::Fixed)
        }
    }
}

impl Clock for SystemClock {
    /// Where the wall clock is set back, the reading stands still until it has caught up. A node looks closer: it
    /// compares this clock with the monotonic one and with its peers'.
    fn now(&self) -> Result<Interval, ClockError> {
        let bound = self.wall_error_micros()?;
        let wall = self.wall_micros();
        let grow = |last: &AtomicI64, end: i64| end.max(last.fetch_max(end, Ordering::Relaxed));
        Ok(Interval {
            earliest: Timestamp(grow(&self.last_earliest, wall.saturating_sub(bound))),
            latest: Timestamp(grow(&self.last_latest, wall.saturating_add(bound))),
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
        self.monotonic.micros()
    }

    fn source(&self) -> ClockSource {
        self.source
    }

    fn wall_error_micros(&self) -> Result<i64, ClockError> {
        match self.source {
            ClockSource::Single => Ok(0),
            ClockSource::Fixed => Ok(self.bound_micros),
            ClockSource::Kernel => kernel::error_micros().map_err(ClockError::Unbounded),
            ClockSource::Cluster | ClockSource::Simulated => Err(ClockError::Unbounded(
                "nobody vouches for the wall clock".into(),
            )),
        }
    }
}

/// Time since the start, at the oscillator's own rate.
#[derive(Debug)]
struct Monotonic {
    #[cfg(target_os = "linux")]
    started_micros: u64,
    #[cfg(target_os = "linux")]
    asleep: Asleep,
    #[cfg(not(target_os = "linux"))]
    started: std::time::Instant,
}

#[cfg(target_os = "linux")]
impl Monotonic {
    fn start() -> Monotonic {
        Monotonic {
            started_micros: read_micros(ClockId::MonotonicRaw),
            asleep: Asleep::start(),
        }
    }

    fn micros(&self) -> u64 {
        // In this order: a sleep between the two shows at the next reading.
        let asleep = self.asleep.micros();
        read_micros(ClockId::MonotonicRaw) - self.started_micros + asleep
    }
}

#[cfg(target_os = "linux")]
fn read_micros(clock: ClockId) -> u64 {
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec.cast_unsigned() * 1_000_000 + now.tv_nsec.cast_unsigned() / 1_000
}

/// How long the machine has slept since the start: one clock goes on meanwhile, of two that are otherwise alike.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Asleep {
    before_micros: u64,
    micros: AtomicU64,
}

/// Between the readings of the two clocks a thread may be interrupted; a sleep takes longer.
#[cfg(target_os = "linux")]
const READ_MICROS_MAX: u64 = 1_000;

#[cfg(target_os = "linux")]
impl Asleep {
    fn start() -> Asleep {
        let before_micros = loop {
            if let Some(difference) = Asleep::difference() {
                break difference;
            }
        };
        Asleep {
            before_micros,
            micros: AtomicU64::new(0),
        }
    }

    /// By how much the one clock is ahead of the other; `None`: it took too long to tell.
    fn difference() -> Option<u64> {
        let before = read_micros(ClockId::Monotonic);
        let whole = read_micros(ClockId::Boottime);
        let after = read_micros(ClockId::Monotonic);
        (after - before < READ_MICROS_MAX).then(|| whole.saturating_sub(before))
    }

    fn micros(&self) -> u64 {
        match Asleep::difference() {
            Some(difference) => self.note(difference.saturating_sub(self.before_micros)),
            None => self.micros.load(Ordering::Relaxed),
        }
    }

    /// The clocks were seen to differ by so much more than at the start.
    fn note(&self, micros: u64) -> u64 {
        let known = self.micros.load(Ordering::Relaxed);
        match micros > known + 2 * READ_MICROS_MAX {
            true => self.micros.fetch_max(micros, Ordering::Relaxed).max(micros),
            false => known,
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Monotonic {
    fn start() -> Monotonic {
        Monotonic {
            started: std::time::Instant::now(),
        }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_bound_on_both_sides_and_never_goes_back() {
        let clock = SystemClock::fixed(Duration::from_millis(2));
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

    #[cfg(target_os = "linux")]
    #[test]
    fn time_asleep_counts_and_the_jitter_of_two_readings_does_not() {
        let asleep = Asleep::start();
        assert_eq!(asleep.micros(), 0);
        assert_eq!(asleep.note(2_000), 0);
        assert_eq!(asleep.note(5_000_000), 5_000_000);
        assert_eq!(asleep.note(5_001_500), 5_000_000);
        assert_eq!(asleep.note(0), 5_000_000);
        let monotonic = Monotonic::start();
        let before = monotonic.micros();
        monotonic.asleep.note(60_000_000);
        let after = monotonic.asleep.micros.load(Ordering::Relaxed);
        assert!(monotonic.micros() - before >= after && after == 60_000_000);
    }

    #[test]
    fn a_clock_that_is_set_back_stands_still() {
        let clock = SystemClock::new(ClockSource::Single);
        let ahead = clock.wall_micros() + 60_000_000;
        clock.last_earliest.store(ahead, Ordering::Relaxed);
        clock.last_latest.store(ahead, Ordering::Relaxed);
        let now = clock.now().unwrap();
        assert_eq!(
            (now.earliest, now.latest),
            (Timestamp(ahead), Timestamp(ahead))
        );
    }

    #[test]
    fn the_monotonic_clock_counts_microseconds() {
        let clock = SystemClock::new(ClockSource::Cluster);
        let before = clock.monotonic_micros();
        std::thread::sleep(Duration::from_millis(20));
        let elapsed = clock.monotonic_micros() - before;
        assert!((19_000..5_000_000).contains(&elapsed), "{elapsed}");
        assert!(clock.now().is_err(), "nobody vouches for it");
    }
}
