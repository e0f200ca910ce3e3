//! The simulated world: a whole cluster on one thread, with time, network, disks, clocks and failures decided by
//! a seed. The same seed gives the same run, to the last delivered message.
//!
//! Without the feature `nodes` there are only the world's ports, for tests of the crates that a node is made
//! of.

mod ambush;
pub mod checker;
mod clock;
#[cfg(feature = "nodes")]
mod cluster;
pub mod disk;
#[cfg(feature = "nodes")]
mod nemesis;
mod network;
#[cfg(feature = "nodes")]
mod plan;
mod random;
#[cfg(feature = "nodes")]
mod run;
mod trace;
#[cfg(feature = "nodes")]
mod workload;

pub use ambush::{Ambush, Spot};
pub use clock::{EPOCH_MICROS, SimClock, TrueTime};
pub use network::{Conditions, SimNetwork, Statistics};
pub use random::SimRandom;
pub use trace::{Lines, Trace, hash_bytes};

#[cfg(feature = "nodes")]
pub use cluster::{Cluster, Door};
#[cfg(feature = "nodes")]
pub use nemesis::Strikes;
#[cfg(feature = "nodes")]
pub use plan::{Fault, Plan, Script};
#[cfg(feature = "nodes")]
pub use run::{Report, run, run_script, watch_panics};
#[cfg(feature = "nodes")]
pub use workload::{Counts, Workload};
