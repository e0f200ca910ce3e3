//! The state that the meta group agrees on: one immutable snapshot per version, cheap to clone.
//!
//! Invariants: ids are never reused; the tablets of a table group cover its key space without overlap; a
//! tablet's epoch grows with each change of its range or replicas; `version` grows by one with each accepted
//! command and with nothing else.

use crate::{Applied, Effect, ProposalId, Refusal, Replica, Split, Tablet};
use catalog::Catalog;
use minicbor::{Decode, Encode};
use model::{ClusterId, Incarnation, NodeId, ReplicaId, TableId, TabletId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a node says about itself when it joins, and again at each start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct NodeProfile {
    /// Random and stable: what CQL shows as the host id.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub host_id: [u8; 16],
    /// Where peers reach it: `ip:port`.
    #[n(1)]
    pub internode: String,
    /// Where clients reach its doors: an IP address.
    #[n(2)]
    pub client_address: String,
    #[n(3)]
    pub cql_port: u16,
    #[n(4)]
    pub dynamo_port: u16,
    #[n(5)]
    pub spanner_port: u16,
    #[n(6)]
    pub admin_port: u16,
    #[n(7)]
    pub data_center: String,
    #[n(8)]
    pub rack: String,
    /// The version of the software it runs.
    #[n(9)]
    pub version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NodeStatus {
    /// Holds replicas.
    #[n(0)]
    Member,
    /// Has left, or was removed: it must not come back under this id.
    #[n(1)]
    Removed,
    /// Serves what it holds, and is given nothing new: its replicas are moved to others.
    #[n(2)]
    Decommissioning,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeRecord {
    #[n(0)]
    pub id: NodeId,
    /// The highest that has registered.
    #[n(1)]
    pub incarnation: Incarnation,
    #[n(2)]
    pub profile: NodeProfile,
    #[n(3)]
    pub status: NodeStatus,
    /// The node that takes its replicas, where it can.
    #[n(4)]
    pub successor: Option<NodeId>,
}

/// What is neither catalog, node nor tablet: small, and written whole with every command.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Head {
    #[n(0)]
    pub cluster: ClusterId,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub version: u64,
    /// By name; what is not here has its default.
    #[n(3)]
    pub settings: BTreeMap<String, u64>,
    #[n(4)]
    pub next_node: u64,
    #[n(5)]
    pub next_tablet: u64,
    #[n(6)]
    pub next_replica: u64,
    /// The newest proposals that were accepted, so that one that arrives twice is applied once.
    #[n(7)]
    pub recent: VecDeque<(ProposalId, Applied)>,
}

/// How many accepted proposals are remembered.
pub(crate) const RECENT_MAX: usize = 64;

pub(crate) const REPLICATION_FACTOR: &str = "replication_factor";
const SPLIT_SIZE_BYTES: &str = "split_size_bytes";
const REBUILD_AFTER_SECONDS: &str = "rebuild_after_seconds";
const TOMBSTONE_WARN_THRESHOLD: &str = "tombstone_warn_threshold";
const TOMBSTONE_FAILURE_THRESHOLD: &str = "tombstone_failure_threshold";
/// Milliseconds that are more than a day.
const TIMEOUT_MS_MAX: u64 = 100_000_000;

/// A setting of the cluster.
struct Setting {
    name: &'static str,
    default: u64,
    min: u64,
    max: u64,
}

/// How long the node that a CQL request came to waits for replicas: by its own clock, and shorter than drivers wait.
const fn timeout(name: &'static str, default: u64) -> Setting {
    Setting {
        name,
        default,
        min: 10,
        max: TIMEOUT_MS_MAX,
    }
}

const SETTINGS: [Setting; 10] = [
    // Copies of a table that does not say.
    Setting {
        name: REPLICATION_FACTOR,
        default: 3,
        min: 1,
        max: 15,
    },
    // A strong tablet whose rows take more is divided.
    Setting {
        name: SPLIT_SIZE_BYTES,
        default: 512 << 20,
        min: 1,
        max: u64::MAX,
    },
    // What a node that is dead for so long holds is made anew elsewhere.
    Setting {
        name: REBUILD_AFTER_SECONDS,
        default: 300,
        min: 1,
        max: u64::MAX,
    },
    // A page of a CQL query that looks at more tombstones is answered with a warning, or with an error.
    Setting {
        name: TOMBSTONE_WARN_THRESHOLD,
        default: 1_000,
        min: 1,
        max: u64::MAX,
    },
    Setting {
        name: TOMBSTONE_FAILURE_THRESHOLD,
        default: 100_000,
        min: 1,
        max: u64::MAX,
    },
    // Cassandra's names and defaults.
    timeout("read_request_timeout_ms", 5_000),
    timeout("range_request_timeout_ms", 10_000),
    timeout("write_request_timeout_ms", 2_000),
    timeout("counter_write_request_timeout_ms", 5_000),
    timeout("cas_contention_timeout_ms", 1_800),
];

#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub(crate) head: Head,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) nodes: BTreeMap<NodeId, Arc<NodeRecord>>,
    /// All tablets, the meta group's own (0) included.
    pub(crate) tablets: BTreeMap<TabletId, Arc<Tablet>>,
    /// The replicas that each tablet began with: all of them begin its group with the same list, however late.
    pub(crate) founders: BTreeMap<TabletId, Arc<Vec<Replica>>>,
    /// Splits that are not settled, by the tablet that is split.
    pub(crate) splits: BTreeMap<TabletId, Arc<Split>>,
    /// Strong tablets of tables that are gone. They serve nobody, and stay until whatever transactions have decided there
    /// is known to all who took part.
    pub(crate) dropped: BTreeMap<TabletId, Arc<Tablet>>,
}

impl State {
    /// Grows by one with each accepted command; 0 before the cluster is founded.
    pub fn version(&self) -> u64 {
        self.head.version
    }

    pub fn cluster(&self) -> ClusterId {
        self.head.cluster
    }

    pub fn name(&self) -> &str {
        &self.head.name
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Members and removed nodes alike.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Arc<NodeRecord>> {
        &self.nodes
    }

    /// Nodes that are part of the cluster, also those that are leaving it.
    pub fn members(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.nodes
            .values()
            .filter(|node| node.status != NodeStatus::Removed)
    }

    /// Nodes that may be given replicas.
    pub fn takers(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.nodes
            .values()
            .filter(|node| node.status == NodeStatus::Member)
    }

    /// Whether a node was taken out of the cluster for good.
    pub fn is_removed(&self, node: NodeId) -> bool {
        let record = self.nodes.get(&node);
        record.is_none_or(|record| record.status == NodeStatus::Removed)
    }

    /// Replicas on a node, those of the meta group included.
    pub fn replicas_on(&self, node: NodeId) -> usize {
        let tablets = self.tablets.values();
        tablets
            .filter(|tablet| tablet.replica_on(node).is_some())
            .count()
    }

    pub fn node(&self, id: NodeId) -> Option<&Arc<NodeRecord>> {
        self.nodes.get(&id)
    }

    pub fn node_by_host(&self, host_id: &[u8; 16]) -> Option<&Arc<NodeRecord>> {
        self.nodes
            .values()
            .find(|node| node.profile.host_id == *host_id)
    }

    pub fn tablets(&self) -> &BTreeMap<TabletId, Arc<Tablet>> {
        &self.tablets
    }

    pub fn tablet(&self, id: TabletId) -> Option<&Arc<Tablet>> {
        self.tablets.get(&id)
    }

    /// Strong tablets of tables that are gone, until [`Command::Forget`](crate::Command::Forget).
    pub fn dropped(&self) -> &BTreeMap<TabletId, Arc<Tablet>> {
        &self.dropped
    }

    /// Whether this replica id was given out in this state or before it.
    pub fn has_allotted(&self, replica: ReplicaId) -> bool {
        replica.0 < self.head.next_replica
    }

    /// The replicas that a tablet began with; none, where it was split off another.
    pub fn founders(&self, id: TabletId) -> &[Replica] {
        self.founders.get(&id).map_or(&[], |founders| founders)
    }

    /// The tablets of a table group, in the order of their ranges.
    pub fn tablets_of(&self, root: TableId) -> Vec<&Arc<Tablet>> {
        let mut tablets: Vec<_> = self
            .tablets
            .values()
            .filter(|tablet| tablet.root == root && tablet.id != crate::META)
            .collect();
        tablets.sort_by(|left, right| left.range.start.cmp(&right.range.start));
        tablets
    }

    /// The value of a setting; every setting has a default.
    pub fn setting(&self, name: &str) -> Option<u64> {
        let setting = SETTINGS.iter().find(|setting| setting.name == name)?;
        let value = self.head.settings.get(name).copied();
        Some(value.unwrap_or(setting.default))
    }

    /// All settings, by name.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, u64)> {
        SETTINGS
            .iter()
            .map(|setting| (setting.name, self.value(setting.name)))
    }

    fn value(&self, name: &str) -> u64 {
        self.setting(name).unwrap_or_default()
    }

    pub fn replication_factor(&self) -> u32 {
        self.value(REPLICATION_FACTOR) as u32
    }

    /// How long a node may be dead before its replicas are made anew elsewhere.
    pub fn rebuild_after_seconds(&self) -> u64 {
        self.value(REBUILD_AFTER_SECONDS)
    }

    /// The size from which on a strong tablet is divided.
    pub fn split_size_bytes(&self) -> u64 {
        self.value(SPLIT_SIZE_BYTES)
    }

    pub(crate) fn set(&mut self, name: &str, value: u64) -> Result<Vec<Effect>, Refusal> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            return Err(Refusal::Invalid(format!("there is no setting {name}")));
        };
        let (min, max) = (setting.min, setting.max);
        if !(min..=max).contains(&value) {
            return Err(Refusal::Invalid(format!("{name} is {min} to {max}")));
        }
        self.head.settings.insert(name.to_owned(), value);
        Ok(vec![Effect::SettingChanged(name.to_owned())])
    }
}
