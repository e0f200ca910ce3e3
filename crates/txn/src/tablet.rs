//! One replica of a strong tablet, as its node holds it.

use crate::{TabletError, TabletRead, TabletWrite};
use api::{ReadResponse, WriteResponse};
use catalog::Catalog;
use cluster::Tablet;
use consensus::{Groups, Origin};
use model::{LeaseEpoch, NodeId, ReplicaId, TabletId, Timestamp};
use std::sync::Arc;
use tokio::sync::watch;
use world::{Clock, Stores};

#[derive(Clone, Debug)]
pub struct StrongConfig {
    pub lease_ms: u64,
    /// How long older versions are kept.
    pub history_ms: u64,
    /// How often an active leaseholder tells followers what is closed.
    pub closed_interval_ms: u64,
    /// Requests that may wait for latches, per tablet.
    pub waiting_max: usize,
}

impl Default for StrongConfig {
    fn default() -> StrongConfig {
        StrongConfig {
            lease_ms: 3_000,
            history_ms: 3_600_000,
            closed_interval_ms: 200,
            waiting_max: 10_000,
        }
    }
}

/// What a replica of a strong tablet is made from.
pub struct TabletSpec {
    pub tablet: Tablet,
    pub replica: ReplicaId,
    pub node: NodeId,
    pub origin: Origin,
    pub groups: Groups,
    pub stores: Arc<dyn Stores>,
    pub clock: Arc<dyn Clock>,
    pub catalog: watch::Receiver<Arc<Catalog>>,
    pub config: StrongConfig,
}

/// How a tablet is to be divided: `[start, at)` stays, `[at, end)` becomes a tablet of its own, with a new
/// replica beside each present one.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitPlan {
    pub at: Vec<u8>,
    /// The present tablet after the split.
    pub left: Tablet,
    /// The new one; its replicas are on the same nodes.
    pub right: Tablet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    pub epoch: LeaseEpoch,
    pub holder: ReplicaId,
    pub end: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TabletStatus {
    pub tablet: TabletId,
    pub is_leaseholder: bool,
    /// The lease in force as this replica has applied it.
    pub lease: Option<LeaseStatus>,
    /// Snapshot reads up to here are served by this replica.
    pub closed: Timestamp,
    pub size_bytes: u64,
}

/// The handle; cheap to clone.
#[derive(Clone)]
pub struct StrongTablet {
    spec: Arc<TabletSpec>,
}

impl StrongTablet {
    /// Opens the replica's store and joins (or continues) its group. The caller runs `run` as a task.
    pub async fn start(spec: TabletSpec) -> Result<StrongTablet, TabletError> {
        Ok(StrongTablet {
            spec: Arc::new(spec),
        })
    }

    /// Upkeep: closed timestamps, horizon. Ends when the tablet stops; costs nothing while it is idle.
    pub async fn run(self) {}

    pub async fn write(&self, write: TabletWrite) -> Result<WriteResponse, TabletError> {
        let _ = write;
        Err(TabletError::NotLeaseholder { hint: None })
    }

    pub async fn read(&self, read: TabletRead) -> Result<ReadResponse, TabletError> {
        let _ = read;
        Err(TabletError::NotLeaseholder { hint: None })
    }

    /// Takes a newer descriptor from the meta group (other replicas; the range changes by `split` only).
    pub fn placed(&self, tablet: Tablet) {
        let _ = tablet;
    }

    /// Divides the tablet; answers when the leaseholder has applied it. Every replica then holds the right half
    /// in a store of its own: the node starts it from there (`Origin::Founded` with the right tablet's replicas).
    pub async fn split(&self, plan: SplitPlan) -> Result<(), TabletError> {
        let _ = plan;
        Err(TabletError::NotLeaseholder { hint: None })
    }

    /// Gives the lease up in the log, so that a successor need not wait. Before a clean stop.
    pub async fn release(&self) {}

    /// Stops taking requests and leaves the group; log and store stay.
    pub async fn stop(&self) {}

    pub fn status(&self) -> TabletStatus {
        TabletStatus {
            tablet: self.spec.tablet.id,
            is_leaseholder: false,
            lease: None,
            closed: Timestamp::MIN,
            size_bytes: 0,
        }
    }
}
