//! Timestamps and clock readings.

use minicbor::{Decode, Encode};
use std::fmt;

/// Microseconds since 1970-01-01 00:00 UTC. Commit timestamps, cell write timestamps and clock readings
/// all have this unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Timestamp(#[n(0)] pub i64);

impl Timestamp {
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// The next representable instant.
    pub fn next(self) -> Timestamp {
        Timestamp(self.0.saturating_add(1))
    }

    pub fn plus_micros(self, micros: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(micros))
    }

    /// Whole seconds since the epoch, rounded down: the unit in which cells expire.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}us", self.0)
    }
}

/// What a clock can promise: true time lies in `earliest ..= latest` (Spanner, OSDI 2012, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Interval {
    #[n(0)]
    pub earliest: Timestamp,
    #[n(1)]
    pub latest: Timestamp,
}

impl Interval {
    /// True when `timestamp` has passed for certain, whatever true time is.
    pub fn is_after(&self, timestamp: Timestamp) -> bool {
        self.earliest > timestamp
    }

    /// True when `timestamp` has not arrived for certain.
    pub fn is_before(&self, timestamp: Timestamp) -> bool {
        self.latest < timestamp
    }
}
