//! The simulated world: a whole cluster on one thread, with time, network, disks, clocks and failures decided by
//! a seed. The same seed gives the same run, to the last delivered message.
//!
//! Without the feature `nodes` there are only the world's ports, for tests of the crates that a node is made
//! of.

pub mod checker;
mod clock;
pub mod disk;
mod network;
mod random;
mod trace;

pub use clock::{EPOCH_MICROS, SimClock, TrueTime};
pub use network::{Conditions, SimNetwork, Statistics};
pub use random::SimRandom;
pub use trace::{Lines, Trace, hash_bytes};
