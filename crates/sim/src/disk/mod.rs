//! The simulated disk of one node: what a crash leaves of its log and its stores, decided by a seed.
//!
//! A `SimDisk` belongs to the simulator and outlives its node. `open` gives the node of today its log and its
//! stores; `crash` takes them away: of the log's batches that were not synced a prefix survives, of each store
//! what was flushed. Everything takes simulated time: a sync is a moment on tokio's paused clock at which what
//! was queued before becomes durable. There are no background tasks: whoever looks first at or after that moment
//! settles it, so that a disk works as well while its node's tasks are being aborted.
//!
//! Not modelled: corruption of what was once durable (the real log refuses to open, and the replica is rebuilt
//! from its peers), and running out of space.

mod log;
mod stores;
#[cfg(test)]
mod tests;

use log::{LogDisk, SimLog};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::time::Duration;
use stores::{SimStores, StoresDisk};
use tokio::time::Instant;

/// What a disk says to those who still hold it when their node has crashed.
pub const CRASHED: &str = "the node has crashed";
/// A sync of the log on a healthy disk.
const SYNC_MICROS: std::ops::Range<u64> = 200..3_000;
/// A flush of a store on a healthy disk.
const FLUSH_MICROS: std::ops::Range<u64> = 2_000..60_000;

/// The disk of one node. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<Disk>>,
}

struct Disk {
    random: SmallRng,
    /// Which opening is the current one: handles of earlier ones are dead.
    generation: u64,
    /// All latencies are multiplied with this.
    slowness: u32,
    failing: bool,
    log: LogDisk,
    stores: StoresDisk,
}

impl Disk {
    fn latency(&mut self, micros: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(self.random.random_range(micros) * u64::from(self.slowness))
    }
}

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        SimDisk {
            shared: Arc::new(Mutex::new(Disk {
                random: SmallRng::seed_from_u64(seed),
                generation: 0,
                slowness: 1,
                failing: false,
                log: LogDisk::default(),
                stores: StoresDisk::default(),
            })),
        }
    }

    /// The log and the stores as they are on disk. Call within the simulator's runtime, once per start of the
    /// node; what an earlier call gave is dead from now on (an `open` without a `crash` counts as one).
    pub fn open(&self) -> (Arc<dyn world::Log>, Arc<dyn world::Stores>) {
        self.crash();
        let generation = self.shared.lock().generation;
        (
            Arc::new(SimLog::new(self.shared.clone(), generation)),
            Arc::new(SimStores::new(self.shared.clone(), generation)),
        )
    }

    /// Power loss, now: what was not synced or flushed is lost (but for a prefix of the log's queued batches, as
    /// the seed will have it), and all handles are dead.
    pub fn crash(&self) {
        let now = Instant::now();
        stores::settle_all(&self.shared, now);
        let mut disk = self.shared.lock();
        disk.generation += 1;
        log::crash(&mut disk, now);
        disk.stores.forget_open();
    }

    /// Makes durable at once what is queued in the log: an orderly stop does that.
    pub fn sync(&self) {
        log::sync(&mut self.shared.lock());
    }

    /// From now on everything takes `factor` times as long; 1 is healthy.
    pub fn set_slow(&self, factor: u32) {
        self.shared.lock().slowness = factor.max(1);
    }

    /// While failing, the next sync fails and closes the log, and flushes, copies and installations fail. The log
    /// stays closed until the node is started again.
    pub fn set_failing(&self, failing: bool) {
        let now = Instant::now();
        let mut disk = self.shared.lock();
        log::settle(&mut disk, now);
        disk.failing = failing;
    }
}
