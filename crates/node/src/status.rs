//! What a node knows of its cluster, for people and their tools.

use model::{
    ClusterId, Incarnation, NodeId, PlacementEpoch, ReplicaId, SchemaVersion, TableId, TabletId,
};

#[derive(Clone, Debug)]
pub struct Status {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub this_node: NodeId,
    pub incarnation: Incarnation,
    /// Of the meta group's state, as this node has it.
    pub meta_version: u64,
    pub schema: SchemaVersion,
    /// The meta group's leader, where it is known.
    pub meta_leader: Option<NodeId>,
    pub health: Health,
    pub nodes: Vec<NodeStatus>,
    /// All tablets of the cluster; what only the node that holds a replica knows (`applied`, `size_bytes`, the
    /// leaseholder) is there for the replicas of this node.
    pub tablets: Vec<TabletStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Joining, or catching up with the meta group.
    Starting,
    Serving,
    /// Serving, but with something that an operator should look at.
    Degraded(String),
    Stopping,
}

#[derive(Clone, Debug)]
pub struct NodeStatus {
    pub id: NodeId,
    pub incarnation: Incarnation,
    pub is_alive: bool,
    pub internode: String,
    pub client_address: String,
    pub cql_port: u16,
    pub data_center: String,
    pub rack: String,
    pub version: String,
    /// Replicas that it holds.
    pub replicas: u64,
}

#[derive(Clone, Debug)]
pub struct TabletStatus {
    pub id: TabletId,
    pub table: TableId,
    pub table_name: String,
    pub is_strong: bool,
    pub epoch: PlacementEpoch,
    pub start: Vec<u8>,
    pub end: Option<Vec<u8>>,
    pub replicas: Vec<ReplicaStatus>,
    pub leaseholder: Option<NodeId>,
    /// Of this node's replica.
    pub applied: Option<u64>,
    /// Of this node's replica.
    pub size_bytes: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    pub id: ReplicaId,
    pub node: NodeId,
    pub is_learner: bool,
}
