//! The clocks of one simulated machine: an oscillator with a rate of its own, and a wall clock that is off true
//! time, which is tokio's paused time. The simulator sets how far. Within the bound that is vouched for, intervals
//! are honest; beyond it they lie, as a broken time source does.

use model::{Interval, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::Instant;
use world::{Clock, ClockError, ClockSource};

/// True time at the beginning of every run: 2026-01-01 00:00 UTC.
pub const EPOCH_MICROS: i64 = 1_767_225_600_000_000;

/// True time. All clocks of a simulation share one.
#[derive(Clone, Copy, Debug)]
pub struct TrueTime {
    start: Instant,
}

impl TrueTime {
    /// Call within the simulator's runtime.
    pub fn start() -> TrueTime {
        TrueTime {
            start: Instant::now(),
        }
    }

    pub fn micros(&self) -> i64 {
        EPOCH_MICROS + self.elapsed_micros() as i64
    }

    pub fn elapsed_micros(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

/// Clones are the same clock.
#[derive(Clone)]
pub struct SimClock {
    time: TrueTime,
    source: ClockSource,
    state: Arc<Mutex<State>>,
}

struct State {
    /// How far the wall clock may be off, as is vouched for.
    bound_micros: i64,
    /// How far it is.
    skew_micros: i64,
    /// How far it was before it was set.
    right_micros: Option<i64>,
    is_unbounded: bool,
    /// What the oscillator had counted when its rate changed last, and when that was.
    counted_micros: u64,
    counted_at: u64,
    /// How fast it is.
    drift_ppm: i64,
    last_earliest: i64,
    last_latest: i64,
    /// Since when the process that reads it stands still.
    frozen_at: Option<u64>,
}

impl State {
    /// How much of true time is over, as far as the process can know.
    fn elapsed_micros(&self, time: TrueTime) -> u64 {
        self.frozen_at.unwrap_or_else(|| time.elapsed_micros())
    }

    fn oscillator_micros(&self, elapsed: u64) -> u64 {
        let since = elapsed - self.counted_at;
        let drift = since as i64 / 1_000 * self.drift_ppm / 1_000;
        (self.counted_micros + since).saturating_add_signed(drift)
    }
}

impl SimClock {
    /// Somebody vouches that the wall clock is within the bound.
    pub fn new(time: TrueTime, bound_micros: i64) -> SimClock {
        SimClock::with_source(time, ClockSource::Simulated, bound_micros)
    }

    /// Nobody does: the node is to measure.
    pub fn unbounded(time: TrueTime) -> SimClock {
        SimClock::with_source(time, ClockSource::Cluster, 0)
    }

    fn with_source(time: TrueTime, source: ClockSource, bound_micros: i64) -> SimClock {
        SimClock {
            time,
            source,
            state: Arc::new(Mutex::new(State {
                bound_micros,
                skew_micros: 0,
                right_micros: None,
                is_unbounded: false,
                counted_micros: 1_000_000,
                counted_at: time.elapsed_micros(),
                drift_ppm: 0,
                last_earliest: i64::MIN,
                last_latest: i64::MIN,
                frozen_at: None,
            })),
        }
    }

    /// Lets the wall clock be off by so much from now on. Beyond the bound, intervals no longer hold true time.
    pub fn set_skew(&self, skew_micros: i64) {
        self.state.lock().skew_micros = skew_micros;
    }

    /// The wall clock is set, to so much off.
    pub fn step(&self, skew_micros: i64) {
        let mut state = self.state.lock();
        let before = state.skew_micros;
        state.right_micros.get_or_insert(before);
        state.skew_micros = skew_micros;
    }

    /// Whether the wall clock was set, and not yet set right.
    pub fn is_set(&self) -> bool {
        self.state.lock().right_micros.is_some()
    }

    /// A wall clock that was set is set right.
    pub fn set_right(&self) {
        let mut state = self.state.lock();
        if let Some(right) = state.right_micros.take() {
            state.skew_micros = right;
        }
    }

    /// How fast the oscillator is from now on.
    pub fn set_drift_ppm(&self, drift_ppm: i64) {
        let mut state = self.state.lock();
        let elapsed = self.time.elapsed_micros();
        state.counted_micros = state.oscillator_micros(elapsed);
        state.counted_at = elapsed;
        state.drift_ppm = drift_ppm;
    }

    /// The oscillator jumps ahead, and the wall clock that counts with it: no two clocks of this machine differ.
    pub fn jump(&self, micros: u64) {
        let mut state = self.state.lock();
        state.counted_micros += micros;
        state.skew_micros += micros as i64;
    }

    /// The process stands still, and has no reading but its last, until it goes on.
    pub fn freeze(&self) {
        let mut state = self.state.lock();
        state.frozen_at = Some(state.elapsed_micros(self.time));
    }

    pub fn thaw(&self) {
        self.state.lock().frozen_at = None;
    }

    pub fn is_frozen(&self) -> bool {
        self.state.lock().frozen_at.is_some()
    }

    pub fn bound_micros(&self) -> i64 {
        self.state.lock().bound_micros
    }

    /// Whether the clock can say how wrong it is.
    pub fn set_unbounded(&self, is_unbounded: bool) {
        self.state.lock().is_unbounded = is_unbounded;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Result<Interval, ClockError> {
        let bound = self.wall_error_micros()?;
        let mut state = self.state.lock();
        let elapsed = state.elapsed_micros(self.time);
        let reading = EPOCH_MICROS + elapsed as i64 + state.skew_micros;
        // Each end by itself may only grow: an end once true stays true on its side.
        state.last_earliest = state.last_earliest.max(reading - bound);
        state.last_latest = state.last_latest.max(reading + bound);
        Ok(Interval {
            earliest: Timestamp(state.last_earliest),
            latest: Timestamp(state.last_latest),
        })
    }

    fn wall_micros(&self) -> i64 {
        let state = self.state.lock();
        EPOCH_MICROS + state.elapsed_micros(self.time) as i64 + state.skew_micros
    }

    fn monotonic_micros(&self) -> u64 {
        let state = self.state.lock();
        state.oscillator_micros(state.elapsed_micros(self.time))
    }

    fn source(&self) -> ClockSource {
        self.source
    }

    fn wall_error_micros(&self) -> Result<i64, ClockError> {
        let state = self.state.lock();
        match state.is_unbounded || self.source == ClockSource::Cluster {
            true => Err(ClockError::Unbounded("the simulator says so".into())),
            false => Ok(state.bound_micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn intervals_hold_true_time_while_the_skew_strobes_within_the_bound() {
        let time = TrueTime::start();
        let clock = SimClock::new(time, 1_000);
        let mut last = clock.now().unwrap();
        for skew in [0, 1_000, -1_000, 500, -1_000, 1_000] {
            clock.set_skew(skew);
            for _ in 0..3 {
                let now = clock.now().unwrap();
                assert!(now.earliest.0 <= time.micros() && time.micros() <= now.latest.0);
                assert!(last.earliest <= now.earliest && last.latest <= now.latest);
                last = now;
                tokio::time::advance(Duration::from_micros(300)).await;
            }
        }
        clock.set_skew(50_000);
        assert!(clock.now().unwrap().earliest.0 > time.micros());
        clock.set_unbounded(true);
        assert!(clock.now().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stands_still_sees_no_time_pass() {
        let time = TrueTime::start();
        let clock = SimClock::new(time, 1_000);
        let read = || (clock.now(), clock.wall_micros(), clock.monotonic_micros());
        let before = read();
        clock.freeze();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(read(), before);
        clock.thaw();
        let (now, wall, monotonic) = read();
        assert!(now.unwrap().earliest > before.0.unwrap().latest);
        assert_eq!(wall - before.1, 10_000_000);
        assert_eq!(monotonic - before.2, 10_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oscillator_has_a_rate_of_its_own_and_takes_the_wall_clock_along_when_it_jumps() {
        let time = TrueTime::start();
        let clock = SimClock::unbounded(time);
        let before = clock.monotonic_micros();
        clock.set_drift_ppm(100);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(clock.monotonic_micros() - before, 10_001_000);
        clock.set_drift_ppm(0);
        clock.jump(500);
        assert_eq!(clock.monotonic_micros() - before, 10_001_500);
        assert_eq!(clock.wall_micros() - time.micros(), 500);
    }
}
