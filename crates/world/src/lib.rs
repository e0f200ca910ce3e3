//! The ports through which everything below the doors sees time, network, disk and randomness. No
//! implementations: `os` and `storage` hold the real ones, `sim` the simulated ones, and one conformance suite
//! runs both.
//!
//! Timers and tasks are tokio's own (`tokio::time`, `tokio::spawn`), which the simulator pauses and drives.

mod clock;
mod log;
mod network;
pub use model::planted;
mod store;
pub mod watch;

pub use clock::{Clock, ClockError, ClockSource};
pub use log::{Durable, Log, LogBatch, LogBounds, LogEntry, LogError, LogId, LogOperation};
pub use network::{Identity, Incoming, Network, Rejection};
pub use store::{
    APPLIED_KEY, Applied, EditCopy, Install, Kind, Scan, Snapshot, SnapshotGuard, Store,
    StoreBatch, StoreError, StoreOperation, Stores, past_suffix, past_superseded_at,
};

use std::sync::Arc;

/// Random bits: seeded from the operating system, or from the simulation's seed.
pub trait Random: Send + Sync {
    fn next_u64(&self) -> u64;
}

/// All that a node is given.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<dyn Clock>,
    pub network: Arc<dyn Network>,
    pub log: Arc<dyn Log>,
    pub stores: Arc<dyn Stores>,
    pub random: Arc<dyn Random>,
}
