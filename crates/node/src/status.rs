//! What a node knows of its cluster, for people and their tools.

use crate::clock::ClockStatus;
use crate::core::Core;
use crate::replicas::Held;
use crate::service::{leader_of, leaseholder_of};
use cluster::{META, State, Tablet};
use model::{
    ClusterId, Incarnation, NodeId, PlacementEpoch, ReplicaId, SchemaVersion, TableId, TabletId,
};
use std::collections::BTreeMap;

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
    /// The cluster's settings, by name.
    pub settings: Vec<(&'static str, u64)>,
    pub clock: ClockStatus,
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
    pub state: NodeState,
    pub internode: String,
    pub client_address: String,
    pub cql_port: u16,
    pub data_center: String,
    pub rack: String,
    pub version: String,
    /// Replicas that it holds.
    pub replicas: u64,
}

/// Where a node stands in its life as a part of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    Member,
    /// Its replicas are being moved to others.
    Leaving,
    /// Nothing is left on it: it can be stopped and removed.
    Drained,
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
    /// It is one half of a split that is not settled yet, or is to be split.
    pub is_splitting: bool,
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
    /// It is on its way out: the others are taking over what it has.
    pub is_leaving: bool,
}

pub(crate) fn status(core: &Core) -> Status {
    let view = core.view();
    let state = &view.state;
    let mut replicas_by_node: BTreeMap<NodeId, u64> = BTreeMap::new();
    for tablet in state.tablets().values().filter(|tablet| tablet.id != META) {
        for replica in &tablet.replicas {
            *replicas_by_node.entry(replica.node).or_default() += 1;
        }
    }
    let nodes = state
        .members()
        .map(|node| NodeStatus {
            id: node.id,
            incarnation: node.incarnation,
            is_alive: core.views.is_alive(node.id),
            state: match node.status {
                cluster::NodeStatus::Decommissioning if state.replicas_on(node.id) == 0 => {
                    NodeState::Drained
                }
                cluster::NodeStatus::Decommissioning => NodeState::Leaving,
                _ => NodeState::Member,
            },
            internode: node.profile.internode.clone(),
            client_address: node.profile.client_address.clone(),
            cql_port: node.profile.cql_port,
            data_center: node.profile.data_center.clone(),
            rack: node.profile.rack.clone(),
            version: node.profile.version.clone(),
            replicas: replicas_by_node.get(&node.id).copied().unwrap_or(0),
        })
        .collect();
    Status {
        cluster: state.cluster(),
        cluster_name: state.name().to_owned(),
        this_node: core.node,
        incarnation: core.incarnation,
        meta_version: state.version(),
        schema: state.catalog().version,
        meta_leader: leader_of(core, META),
        health: health(core),
        settings: state.settings().collect(),
        clock: core.clock.status(),
        nodes,
        tablets: state
            .tablets()
            .values()
            .map(|tablet| tablet_status(core, state, tablet))
            .collect(),
    }
}

fn health(core: &Core) -> Health {
    if core.is_stopping() {
        return Health::Stopping;
    }
    if !core.is_serving() {
        return Health::Starting;
    }
    match core.complaint() {
        Some(complaint) => Health::Degraded(complaint),
        None => Health::Serving,
    }
}

fn tablet_status(core: &Core, state: &State, tablet: &Tablet) -> TabletStatus {
    let table = state.catalog().table(tablet.root);
    let held = core.replicas.get(tablet.id);
    let group = core.groups.status(tablet.id);
    let (applied, size_bytes) = match held.as_ref().map(|held| &held.held) {
        Some(Held::Strong(strong)) => (
            group.map(|group| group.applied),
            Some(strong.status().size_bytes),
        ),
        Some(Held::Eventual(replica)) => {
            let store = replica.store();
            (Some(store.applied().index), Some(store.size_bytes()))
        }
        None => (group.map(|group| group.applied), None),
    };
    TabletStatus {
        id: tablet.id,
        table: tablet.root,
        table_name: match table {
            Some(table) => format!("{}.{}", table.namespace(), table.name()),
            None if tablet.id == META => "(meta)".into(),
            None => String::new(),
        },
        is_strong: tablet.id == META || table.is_some_and(|table| table.is_strong()),
        epoch: tablet.epoch,
        start: tablet.range.start.clone(),
        end: tablet.range.end.clone(),
        replicas: tablet
            .replicas
            .iter()
            .map(|replica| ReplicaStatus {
                id: replica.id,
                node: replica.node,
                is_learner: replica.is_learner,
                is_leaving: tablet.leaving == Some(replica.id),
            })
            .collect(),
        is_splitting: state.is_splitting(tablet.id),
        leaseholder: match tablet.id {
            META => leader_of(core, META),
            _ => leaseholder_of(core, tablet),
        },
        applied,
        size_bytes,
    }
}
