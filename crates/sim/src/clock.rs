//! The clock of one simulated node: true time, which is tokio's paused time, with an error that the simulator
//! sets. Within the bound the intervals are honest; beyond it they lie, as a broken time source does.

use model::{Interval, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::Instant;
use world::{Clock, ClockError};

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
    state: Arc<Mutex<State>>,
}

struct State {
    /// Half the width of the intervals.
    bound_micros: i64,
    /// How far the reading is off.
    skew_micros: i64,
    is_unbounded: bool,
    last_wall: i64,
    last_earliest: i64,
    last_latest: i64,
}

impl SimClock {
    pub fn new(time: TrueTime, bound_micros: i64) -> SimClock {
        SimClock {
            time,
            state: Arc::new(Mutex::new(State {
                bound_micros,
                skew_micros: 0,
                is_unbounded: false,
                last_wall: i64::MIN,
                last_earliest: i64::MIN,
                last_latest: i64::MIN,
            })),
        }
    }

    /// Lets the reading be off by so much from now on. Beyond the bound, intervals no longer hold true time.
    pub fn set_skew(&self, skew_micros: i64) {
        self.state.lock().skew_micros = skew_micros;
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
        let mut state = self.state.lock();
        if state.is_unbounded {
            return Err(ClockError::Unbounded("the simulator says so".into()));
        }
        let reading = self.time.micros() + state.skew_micros;
        // Each end by itself may only grow: an end once true stays true on its side.
        state.last_earliest = state.last_earliest.max(reading - state.bound_micros);
        state.last_latest = state.last_latest.max(reading + state.bound_micros);
        Ok(Interval {
            earliest: Timestamp(state.last_earliest),
            latest: Timestamp(state.last_latest),
        })
    }

    fn wall_micros(&self) -> i64 {
        let mut state = self.state.lock();
        state.last_wall = state.last_wall.max(self.time.micros() + state.skew_micros);
        state.last_wall
    }

    fn monotonic_micros(&self) -> u64 {
        self.time.elapsed_micros()
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
}
