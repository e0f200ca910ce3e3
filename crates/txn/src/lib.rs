//! The strong path of one tablet: a replicated state machine for rows, and the leaseholder above it that
//! decides what it applies.
//!
//! * `rows` (below Raft) applies batches: no logic that could diverge between replicas.
//! * `leaseholder` (above Raft) holds the lease and the promises, latches keys, evaluates, and proposes.
//! * [`StrongTablet`] is the handle: [`StrongTablet::write`] and [`StrongTablet::read`].
//!
//! Absent on purpose: transactions over several tablets (next), routing (crate `node`).

mod command;
mod keys;
mod latches;
mod read;
mod reading;
mod request;
mod rows;
mod staging;
mod state;
mod tablet;
mod versions;
mod write;

pub use request::{CommandId, TabletError, TabletRead, TabletWrite};
pub use tablet::{LeaseStatus, SplitPlan, StrongConfig, StrongTablet, TabletSpec, TabletStatus};
