//! One running node: routes requests, drives replicas, executes what the pure rules of `cluster` plan.

mod config;
mod status;

pub use config::Config;
pub use status::{Health, NodeStatus, ReplicaStatus, Status, TabletStatus};

use api::Database;
use model::{NodeId, TableId};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use world::World;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the log failed: {0}")]
    Log(#[from] world::LogError),
    #[error("a store failed: {0}")]
    Store(#[from] world::StoreError),
    #[error("this node's identity record is malformed: {0}")]
    Identity(String),
    #[error("the cluster refused this node: {0}")]
    Refused(#[from] cluster::Refusal),
    #[error("not built yet")]
    NotBuilt,
}

/// A running node. Dropping it, or `crash`, stops all its tasks where they are.
pub struct Node {
    database: Arc<dyn Database>,
    status: Status,
}

impl Node {
    /// Starts a node on what its log and stores hold; returns when it serves: founded, joined, or back in its
    /// cluster with a quorum of the meta group reached.
    pub async fn start(world: World, config: Config) -> Result<Arc<Node>, StartError> {
        let _ = (world, config);
        Err(StartError::NotBuilt)
    }

    pub fn id(&self) -> NodeId {
        NodeId(0)
    }

    /// What the doors are given.
    pub fn database(self: &Arc<Node>) -> Arc<dyn Database> {
        Arc::clone(&self.database)
    }

    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Registers the node's metrics.
    pub fn metrics(&self, registry: &mut Registry) {
        let _ = registry;
    }

    /// Cuts the tablet of a range-partitioned table that holds `key` in two there.
    pub async fn split_tablet(&self, table: TableId, key: Vec<u8>) -> Result<(), api::Error> {
        let _ = (table, key);
        Err(api::Error::unsupported("not built yet"))
    }

    /// Releases leases, tells the others, and stops.
    pub async fn shutdown(&self) {}

    /// Stops all tasks where they are, as a crash does: for the simulator.
    pub fn crash(&self) {}
}
