//! True time as an interval.

use model::Interval;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The source cannot bound its error now (no fresh sample of the time master, an unsynchronised kernel).
    #[error("the clock's error is not bounded: {0}")]
    Unbounded(String),
}

/// A clock that says how wrong it may be. Readings of one clock never go back.
pub trait Clock: Send + Sync {
    /// True time lies within.
    fn now(&self) -> Result<Interval, ClockError>;

    /// This machine's own wall clock in microseconds since 1970, with no promise: for expiry of cells, for
    /// timestamps of eventual writes, and for people.
    fn wall_micros(&self) -> i64;

    /// Microseconds since some fixed instant; never goes back, counts at the local rate.
    fn monotonic_micros(&self) -> u64;
}
