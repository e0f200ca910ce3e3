//! True time as an interval, and whose word it is.

use model::Interval;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The source cannot bound its error now (no fresh sample of the time master, an unsynchronised kernel). It may
    /// be able to in a moment.
    #[error("the clock's error is not bounded: {0}")]
    Unbounded(String),
    /// This node's clock has broken its promise: the node keeps away from what relies on it until it is well.
    #[error("this node has fenced itself: {0}")]
    Fenced(String),
}

/// Who vouches for the bound of a clock's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClockSource {
    /// The only node of a cluster: its own clock is the common reference, so there is no error.
    Single,
    /// The leader of the meta group is time master, and the other nodes measure how far they are from it.
    Cluster,
    /// The kernel, disciplined by a time daemon.
    Kernel,
    /// An operator: the wall clocks of all nodes are within a fixed bound of true time.
    Fixed,
    Simulated,
}

impl ClockSource {
    /// Those that an operator can choose.
    pub const CHOICES: [ClockSource; 4] = [
        ClockSource::Single,
        ClockSource::Cluster,
        ClockSource::Kernel,
        ClockSource::Fixed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            ClockSource::Single => "single",
            ClockSource::Cluster => "cluster",
            ClockSource::Kernel => "kernel",
            ClockSource::Fixed => "fixed",
            ClockSource::Simulated => "simulated",
        }
    }
}

impl fmt::Display for ClockSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for ClockSource {
    type Err = String;

    fn from_str(name: &str) -> Result<ClockSource, String> {
        ClockSource::CHOICES
            .into_iter()
            .find(|source| source.name() == name)
            .ok_or_else(|| {
                format!(
                    "{name:?} is no source of time: there are single, cluster, kernel and fixed"
                )
            })
    }
}

/// A clock that says how wrong it may be. Readings of one clock never go back.
pub trait Clock: Send + Sync {
    /// True time lies within.
    fn now(&self) -> Result<Interval, ClockError>;

    /// This machine's own wall clock in microseconds since 1970, with no promise: for expiry of cells, for
    /// timestamps of eventual writes, and for people. It may go back, when somebody sets it.
    fn wall_micros(&self) -> i64;

    /// Microseconds since some fixed instant; never goes back, counts at the local rate, which no daemon bends.
    fn monotonic_micros(&self) -> u64;

    fn source(&self) -> ClockSource;

    /// How far the wall clock may be from true time, where the source vouches for it.
    fn wall_error_micros(&self) -> Result<i64, ClockError>;
}
