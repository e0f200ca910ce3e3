//! One running node: routes requests, drives replicas, executes what the pure rules of `cluster` plan.
//!
//! ```text
//!  doors ── gateway ─┬─ strong ── leaseholder (here, or over rpc) ── txn ── consensus ─┐
//!                    ├─ eventual ─ quorum ── replicas (here, or over rpc) ─────────────┼─ log, stores
//!                    └─ change ── follow ── meta group ── consensus ───────────────────┘
//!  peers ─── service ── the same, from the other side
//!  state of the meta group ── view ──┬─ replicas (opens, tells, closes)
//!                                    └─ placement (fills learners, moves, members of groups)
//! ```
//!
//! Invariants:
//! * A node serves only with a state of the meta group at least as new as its own start.
//! * Everything it runs is a task of its own set: dropping the node stops it where it is.
//! * A write is repeated only under its own command id, and what cannot be known is reported as unknown.

mod clock;
mod config;
mod core;
mod fill;
mod follow;
mod gateway;
mod identity;
mod leases;
mod liveness;
mod mend;
mod meta;
mod metrics;
mod operate;
mod others;
mod peers;
mod placement;
mod repair;
mod replicas;
mod rpc;
mod service;
mod shutdown;
mod split;
mod start;
mod status;
mod tasks;
mod transactions;
mod upkeep;
mod view;

pub use api::Copies;
pub use clock::ClockStatus;
pub use config::{Config, STREAM_BYTES_PER_SECOND};
pub use placement::LatePlan;
pub use quorum::HintLimits;
pub use repair::RepairProgress;
pub use rpc::{TRANSACTION_STEPS, VOTE_STEP, message_step};
pub use status::{Health, NodeState, NodeStatus, ReplicaStatus, Status, TabletStatus};
pub use txn::StrongConfig;
pub use upkeep::RepairConfig;

use api::Database;
use model::{NodeId, TableId, TabletId};
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use world::World;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the log failed: {0}")]
    Log(#[from] world::LogError),
    #[error("this node's identity record, or a peer's answer, is malformed: {0}")]
    Identity(String),
    #[error("the cluster refused this node: {0}")]
    Refused(#[from] cluster::Refusal),
    #[error("the meta group's replica cannot be opened")]
    Meta,
}

/// A running node. Dropping it, or `crash`, stops all its tasks where they are.
pub struct Node {
    core: Arc<core::Core>,
    gateway: Arc<gateway::Gateway>,
    _stop: start::Stop,
}

impl Node {
    /// Starts a node on what its log and stores hold; returns when it serves: founded, joined, or back in its
    /// cluster; without a quorum of the meta group after some seconds, and eventual tables only. Dropping the future stops the start.
    pub async fn start(world: World, config: Config) -> Result<Arc<Node>, StartError> {
        let started = start::start(world, config).await?;
        Ok(Arc::new(Node {
            core: started.core,
            gateway: started.gateway,
            _stop: started.stop,
        }))
    }

    pub fn id(&self) -> NodeId {
        self.core.node
    }

    /// What the doors are given. It outlives the node, and then says that it does not serve.
    pub fn database(&self) -> Arc<dyn Database> {
        Arc::clone(&self.gateway) as Arc<dyn Database>
    }

    pub fn status(&self) -> Status {
        status::status(&self.core)
    }

    /// Registers the node's metrics.
    pub fn metrics(&self, registry: &mut Registry) {
        self.core.metrics.register(registry, &self.core);
    }

    /// Cuts the tablet that holds `key` in two, at the beginning of the key's partition, or root row.
    pub async fn split_tablet(&self, table: TableId, key: Vec<u8>) -> Result<(), api::Error> {
        split::split(&self.core, table, key).await
    }

    /// Changes a setting of the cluster.
    pub async fn set(&self, name: &str, value: u64) -> Result<(), api::Error> {
        operate::set(&self.core, name, value).await
    }

    /// Moves a node's replicas to others, to `successor` where it can take them.
    pub async fn decommission(
        &self,
        node: NodeId,
        successor: Option<NodeId>,
    ) -> Result<(), api::Error> {
        operate::decommission(&self.core, node, successor).await
    }

    /// Keeps a node that was to leave.
    pub async fn recommission(&self, node: NodeId) -> Result<(), api::Error> {
        operate::recommission(&self.core, node).await
    }

    /// Takes a node that is drained, or dead for good, out of the cluster.
    pub async fn remove_node(
        &self,
        node: NodeId,
        successor: Option<NodeId>,
    ) -> Result<(), api::Error> {
        operate::remove(&self.core, node, successor).await
    }

    /// Gives the place of one node to another: its replicas move, or are made anew if it is dead.
    pub async fn replace(&self, node: NodeId, successor: NodeId) -> Result<(), api::Error> {
        operate::replace(&self.core, node, successor).await
    }

    /// Begins a repair of all eventual tables, of a namespace's, or of one. Returns its number, for `repair_progress`.
    pub fn repair(&self, namespace: Option<&str>, table: Option<&str>) -> Result<u64, api::Error> {
        repair::begin(&self.core, namespace, table)
    }

    /// How far a repair that was begun through this node has come; `None` when it is not known (any more).
    pub fn repair_progress(&self, number: u64) -> Option<RepairProgress> {
        self.core.repairs.progress(number)
    }

    /// How far all tables, or a namespace's, are from the copies that they should have, by data centre.
    pub fn copies(&self, namespace: Option<&str>) -> Result<BTreeMap<String, Copies>, api::Error> {
        operate::copies(&self.core, namespace)
    }

    /// How many replicas this node holds, the meta group's aside.
    pub fn replicas(&self) -> usize {
        self.core.replicas.all().len()
    }

    /// Tombstones made before so many seconds since 1970 may be gone in this node's replica of an eventual tablet.
    pub fn purged_before(&self, tablet: TabletId) -> Option<i64> {
        Some(self.core.replicas.eventual(tablet)?.purged_before())
    }

    /// All rows of this node's replica of an eventual tablet, as replicas are compared: without tombstones made before
    /// `purged_before`. For the simulator.
    pub fn contents(&self, tablet: TabletId, purged_before: i64) -> Option<Vec<quorum::RawRow>> {
        let replica = self.core.replicas.eventual(tablet)?;
        replica.contents(purged_before).ok()
    }

    /// What a leader of the meta group would do by what this node knows, were these nodes dead for good: for the
    /// simulator, which has it done later.
    pub fn foresee(&self, lost: &BTreeSet<NodeId>) -> LatePlan {
        placement::foresee(&self.core, lost)
    }

    /// Of groups that this node leads: a voter that is on its way out, and the others. For the simulator.
    pub fn leaving_voters(&self) -> Vec<(NodeId, Vec<NodeId>)> {
        placement::leaving_voters(&self.core)
    }

    /// Whether all groups here keep a majority when a node is lost. For the simulator.
    pub fn spares(&self, node: NodeId) -> bool {
        placement::spares(&self.core, node)
    }

    pub async fn carry_out(&self, plan: LatePlan) {
        placement::carry_out_late(&self.core, plan).await;
    }

    /// Releases leases, tells the others, and stops.
    pub async fn shutdown(&self) {
        shutdown::shutdown(&self.core).await;
    }

    /// Stops all tasks where they are, as a crash does: for the simulator.
    pub fn crash(&self) {
        self.core.stop();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.core.stop();
    }
}
