//! The commands of the meta group, and the pure function that applies one.
//!
//! A command that is refused changes nothing. One that is accepted makes the version grow by one and says what
//! it did as a list of effects. Commands are proposed again when their outcome is in doubt, so each carries an
//! id, and one that was accepted before answers as it did then.

use crate::placement::{self, hash_boundary};
use crate::state::{Head, RECENT_MAX, REPLICATION_FACTOR};
use crate::{HASH_TABLETS, META, NodeProfile, NodeRecord, NodeStatus, Replica, State, Tablet};
use api::KeyRange;
use catalog::{Change, ChangeError, Partitioning, Table};
use minicbor::{Decode, Encode};
use model::{
    ClusterId, Incarnation, NodeId, PlacementEpoch, ReplicaId, SchemaVersion, TableId, TabletId,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which proposal: unique, since a node never starts twice with one incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct ProposalId {
    #[n(0)]
    pub node: NodeId,
    #[n(1)]
    pub incarnation: Incarnation,
    #[n(2)]
    pub sequence: u64,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Proposal {
    #[n(0)]
    pub id: ProposalId,
    #[n(1)]
    pub command: Command,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Command {
    /// The first command of a cluster: its first node, which holds the meta group alone.
    #[n(0)]
    Found {
        #[n(0)]
        cluster: ClusterId,
        #[n(1)]
        name: String,
        #[n(2)]
        replication_factor: u32,
        #[n(3)]
        incarnation: Incarnation,
        #[n(4)]
        profile: NodeProfile,
    },
    /// Gives a node its id; a host that has one keeps it.
    #[n(1)]
    Join {
        #[n(0)]
        profile: NodeProfile,
    },
    /// A node has started: its incarnation must be higher than any before.
    #[n(2)]
    Start {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        incarnation: Incarnation,
        #[n(2)]
        profile: NodeProfile,
    },
    #[n(3)]
    Catalog {
        #[n(0)]
        change: Change,
        /// Nodes that new replicas should avoid: the proposer takes them for dead.
        #[n(1)]
        avoid: Vec<NodeId>,
    },
    /// A new replica, as a learner.
    #[n(4)]
    AddReplica {
        #[n(0)]
        tablet: TabletId,
        #[n(1)]
        epoch: PlacementEpoch,
        #[n(2)]
        node: NodeId,
    },
    /// A learner has been filled, and counts from now on.
    #[n(5)]
    Promote {
        #[n(0)]
        tablet: TabletId,
        #[n(1)]
        replica: ReplicaId,
    },
    #[n(6)]
    RemoveReplica {
        #[n(0)]
        tablet: TabletId,
        #[n(1)]
        epoch: PlacementEpoch,
        #[n(2)]
        replica: ReplicaId,
    },
    /// Allots the ids for cutting a tablet in two at a key: the tablet will keep what lies below it, a new one
    /// with replicas on the same nodes takes the rest. Until `FinishSplit` or `CancelSplit` the tablet does not
    /// move.
    #[n(7)]
    PrepareSplit {
        #[n(0)]
        tablet: TabletId,
        #[n(1)]
        epoch: PlacementEpoch,
        #[cbor(n(2), with = "minicbor::bytes")]
        key: Vec<u8>,
    },
    #[n(8)]
    Set {
        #[n(0)]
        name: String,
        #[n(1)]
        value: u64,
    },
    /// The tablet has divided itself: the map follows. Until `SettleSplit` neither half moves.
    #[n(9)]
    FinishSplit {
        #[n(0)]
        tablet: TabletId,
        /// The one that the split makes: tells this split from a later one of the same tablet.
        #[n(1)]
        right: TabletId,
    },
    /// A majority of the new tablet's replicas has its state for good: nobody needs the other half's copy of it.
    #[n(11)]
    SettleSplit {
        #[n(0)]
        tablet: TabletId,
        #[n(1)]
        right: TabletId,
    },
    /// The node's replicas are to be moved to others, to its successor where it can take them.
    #[n(12)]
    Decommission {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        successor: Option<NodeId>,
    },
    /// The node stays after all.
    #[n(13)]
    Recommission {
        #[n(0)]
        node: NodeId,
    },
    /// The node is gone for good: what it still holds is lost, and made anew elsewhere.
    #[n(14)]
    RemoveNode {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        successor: Option<NodeId>,
    },
    /// A replica is on its way out; `RemoveReplica` ends that. A voter of an eventual tablet: writes do not count it any
    /// more, and the others can take over what it has; `Promote` takes that back. Any replica of a strong one: its group is
    /// to let go of it.
    #[n(15)]
    Retire {
        #[n(0)]
        tablet: TabletId,
        #[n(1)]
        epoch: PlacementEpoch,
        #[n(2)]
        replica: ReplicaId,
    },
    /// Nothing is left in these strong tablets, whose tables are gone, that anybody may have to hear of: their replicas go.
    #[n(16)]
    Forget {
        #[n(0)]
        tablets: Vec<TabletId>,
    },
}

/// What an accepted command did.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Effect {
    #[n(0)]
    NodeJoined(#[n(0)] NodeId),
    #[n(1)]
    NodeStarted(#[n(0)] NodeId),
    #[n(2)]
    CatalogChanged(#[n(0)] SchemaVersion),
    #[n(3)]
    TabletCreated(#[n(0)] TabletId),
    #[n(4)]
    TabletChanged(#[n(0)] TabletId),
    #[n(5)]
    TabletDropped(#[n(0)] TabletId),
    #[n(6)]
    SettingChanged(#[n(0)] String),
    /// With the id of the tablet that will be created.
    #[n(7)]
    SplitPrepared(#[n(0)] TabletId),
    #[n(9)]
    SplitSettled(#[n(0)] TabletId),
    #[n(10)]
    NodeChanged(#[n(0)] NodeId),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Applied {
    /// The state's version that holds the command.
    #[n(0)]
    pub version: u64,
    #[n(1)]
    pub effects: Vec<Effect>,
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    #[n(0)]
    #[error("the cluster is already founded")]
    AlreadyFounded,
    #[n(1)]
    #[error("the cluster is not founded yet")]
    NotFounded,
    #[n(2)]
    #[error("there is no node {0}")]
    NoNode(#[n(0)] NodeId),
    #[n(3)]
    #[error("{node} starts as {theirs}, but {known} is registered: a cloned or restored disk?")]
    OldIncarnation {
        #[n(0)]
        node: NodeId,
        #[n(1)]
        theirs: Incarnation,
        #[n(2)]
        known: Incarnation,
    },
    #[n(4)]
    #[error(transparent)]
    Catalog(#[n(0)] ChangeError),
    #[n(5)]
    #[error("there is no tablet {0}")]
    NoTablet(#[n(0)] TabletId),
    /// Somebody else moved the tablet first.
    #[n(6)]
    #[error("the tablet is at {current} by now")]
    OldEpoch {
        #[n(0)]
        current: PlacementEpoch,
    },
    #[n(7)]
    #[error("{0}")]
    Invalid(#[n(0)] String),
}

/// More tablets than this in one cluster are refused: the map is in every node's memory.
pub(crate) const TABLETS_MAX: usize = 100_000;

impl State {
    /// The state after a command, and what it did. The old state stays what it was.
    pub fn apply(&self, proposal: &Proposal) -> Result<(State, Applied), Refusal> {
        let known = self.head.recent.iter().find(|(id, _)| *id == proposal.id);
        if let Some((_, applied)) = known {
            return Ok((self.clone(), applied.clone()));
        }
        let mut next = self.clone();
        let effects = next.execute(&proposal.command)?;
        next.head.version += 1;
        let applied = Applied {
            version: next.head.version,
            effects,
        };
        next.head.recent.push_back((proposal.id, applied.clone()));
        if next.head.recent.len() > RECENT_MAX {
            next.head.recent.pop_front();
        }
        Ok((next, applied))
    }

    fn execute(&mut self, command: &Command) -> Result<Vec<Effect>, Refusal> {
        if let Command::Found {
            cluster,
            name,
            replication_factor,
            incarnation,
            profile,
        } = command
        {
            return self.found(*cluster, name, *replication_factor, *incarnation, profile);
        }
        if self.head.version == 0 {
            return Err(Refusal::NotFounded);
        }
        match command {
            Command::Found { .. } => Err(Refusal::AlreadyFounded),
            Command::Join { profile } => self.join(profile),
            Command::Start {
                node,
                incarnation,
                profile,
            } => self.start(*node, *incarnation, profile),
            Command::Catalog { change, avoid } => self.change_catalog(change, avoid),
            Command::AddReplica {
                tablet,
                epoch,
                node,
            } => self.add_replica(*tablet, *epoch, *node),
            Command::Promote { tablet, replica } => self.promote(*tablet, *replica),
            Command::RemoveReplica {
                tablet,
                epoch,
                replica,
            } => self.remove_replica(*tablet, *epoch, *replica),
            Command::PrepareSplit { tablet, epoch, key } => {
                self.prepare_split(*tablet, *epoch, key)
            }
            Command::Set { name, value } => self.set(name, *value),
            Command::FinishSplit { tablet, right } => Ok(self.finish_split(*tablet, *right)),
            Command::Decommission { node, successor } => self.decommission(*node, *successor),
            Command::Recommission { node } => self.recommission(*node),
            Command::RemoveNode { node, successor } => self.remove_node(*node, *successor),
            Command::SettleSplit { tablet, right } => Ok(self.settle_split(*tablet, *right)),
            Command::Retire {
                tablet,
                epoch,
                replica,
            } => self.retire(*tablet, *epoch, *replica),
            Command::Forget { tablets } => Ok(self.forget(tablets)),
        }
    }

    fn found(
        &mut self,
        cluster: ClusterId,
        name: &str,
        replication_factor: u32,
        incarnation: Incarnation,
        profile: &NodeProfile,
    ) -> Result<Vec<Effect>, Refusal> {
        if self.head.version != 0 {
            return Err(Refusal::AlreadyFounded);
        }
        let node = NodeId(1);
        let meta = Tablet {
            id: META,
            root: TableId(0),
            range: KeyRange::all(),
            replicas: vec![Replica {
                id: ReplicaId(1),
                node,
                is_learner: false,
            }],
            epoch: PlacementEpoch(1),
            leaving: None,
        };
        self.head = Head {
            cluster,
            name: name.to_owned(),
            next_node: 2,
            next_tablet: 1,
            next_replica: 2,
            ..Head::default()
        };
        if replication_factor != 0 {
            self.set(REPLICATION_FACTOR, u64::from(replication_factor))?;
        }
        let record = NodeRecord {
            id: node,
            incarnation,
            profile: profile.clone(),
            status: NodeStatus::Member,
            successor: None,
        };
        self.nodes.insert(node, Arc::new(record));
        self.found_tablet(meta);
        Ok(vec![Effect::NodeJoined(node), Effect::TabletCreated(META)])
    }

    fn join(&mut self, profile: &NodeProfile) -> Result<Vec<Effect>, Refusal> {
        if let Some(known) = self.node_by_host(&profile.host_id) {
            if known.status == NodeStatus::Removed {
                return Err(Refusal::NoNode(known.id));
            }
            return Ok(vec![Effect::NodeJoined(known.id)]);
        }
        let id = NodeId(self.head.next_node);
        self.head.next_node += 1;
        let record = NodeRecord {
            id,
            incarnation: Incarnation(0),
            profile: profile.clone(),
            status: NodeStatus::Member,
            successor: None,
        };
        self.nodes.insert(id, Arc::new(record));
        Ok(vec![Effect::NodeJoined(id)])
    }

    fn start(
        &mut self,
        id: NodeId,
        incarnation: Incarnation,
        profile: &NodeProfile,
    ) -> Result<Vec<Effect>, Refusal> {
        let Some(known) = self.nodes.get(&id) else {
            return Err(Refusal::NoNode(id));
        };
        if known.status == NodeStatus::Removed || known.profile.host_id != profile.host_id {
            return Err(Refusal::NoNode(id));
        }
        if incarnation <= known.incarnation {
            return Err(Refusal::OldIncarnation {
                node: id,
                theirs: incarnation,
                known: known.incarnation,
            });
        }
        let (was, is) = (&known.profile.data_center, &profile.data_center);
        if was != is && self.replicas_on(id) > 0 {
            // Local levels count on where replicas stand.
            return Err(Refusal::Invalid(format!(
                "{id} holds replicas in data centre {was} and cannot start in {is}: decommission it first"
            )));
        }
        let record = NodeRecord {
            incarnation,
            profile: profile.clone(),
            ..known.as_ref().clone()
        };
        self.nodes.insert(id, Arc::new(record));
        Ok(vec![Effect::NodeStarted(id)])
    }

    /// Applies the change and lets tablets follow the table groups that came and went.
    fn change_catalog(
        &mut self,
        change: &Change,
        avoid: &[NodeId],
    ) -> Result<Vec<Effect>, Refusal> {
        let mut catalog = self.catalog.as_ref().clone();
        catalog.apply(change).map_err(Refusal::Catalog)?;
        let old = std::mem::replace(&mut self.catalog, Arc::new(catalog));
        let new = Arc::clone(&self.catalog);
        let mut effects = vec![Effect::CatalogChanged(new.version)];
        let is_gone = |root: TableId| !new.tables.contains_key(&root);
        let dropped: Vec<TabletId> = self
            .tablets
            .values()
            .filter(|tablet| tablet.id != META && is_gone(tablet.root))
            .map(|tablet| tablet.id)
            .collect();
        for id in dropped {
            let tablet = self.tablets.remove(&id);
            self.splits.remove(&id);
            let is_strong = |root| old.table(root).is_some_and(|table| table.is_strong());
            match tablet.filter(|tablet| is_strong(tablet.root)) {
                Some(tablet) => {
                    self.dropped.insert(id, tablet);
                }
                None => {
                    self.founders.remove(&id);
                }
            }
            effects.push(Effect::TabletDropped(id));
        }
        for (id, table) in &new.tables {
            if table.root == *id && !old.tables.contains_key(id) {
                self.create_tablets(table, avoid, &mut effects)?;
            }
        }
        Ok(effects)
    }

    fn forget(&mut self, tablets: &[TabletId]) -> Vec<Effect> {
        for id in tablets {
            if self.dropped.remove(id).is_some() {
                self.founders.remove(id);
            }
        }
        Vec::new()
    }

    fn create_tablets(
        &mut self,
        table: &Table,
        avoid: &[NodeId],
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let ranges = initial_ranges(table.spec.partitioning);
        if self.tablets.len() + ranges.len() > TABLETS_MAX {
            return Err(too_many_tablets());
        }
        let mut counts = placement::counts(self);
        for (position, range) in ranges.into_iter().enumerate() {
            let nodes = placement::choose(self, &table.spec.replication, position, avoid, &counts);
            let mut replicas = Vec::with_capacity(nodes.len());
            for node in nodes {
                *counts.entry(node).or_default() += 1;
                replicas.push(Replica {
                    id: self.next_replica(),
                    node,
                    is_learner: false,
                });
            }
            replicas.sort_by_key(|replica| replica.node);
            let id = TabletId(self.head.next_tablet);
            self.head.next_tablet += 1;
            let tablet = Tablet {
                id,
                root: table.id,
                range,
                replicas,
                epoch: PlacementEpoch(1),
                leaving: None,
            };
            self.found_tablet(tablet);
            effects.push(Effect::TabletCreated(id));
        }
        Ok(())
    }

    fn add_replica(
        &mut self,
        id: TabletId,
        epoch: PlacementEpoch,
        node: NodeId,
    ) -> Result<Vec<Effect>, Refusal> {
        let mut tablet = self.tablet_at(id, epoch)?;
        let is_member = self
            .nodes
            .get(&node)
            .is_some_and(|node| node.status == NodeStatus::Member);
        if !is_member {
            return Err(Refusal::NoNode(node));
        }
        if tablet.replica_on(node).is_some() {
            return Err(Refusal::Invalid(format!("{node} has a replica of {id}")));
        }
        tablet.replicas.push(Replica {
            id: self.next_replica(),
            node,
            is_learner: true,
        });
        tablet.replicas.sort_by_key(|replica| replica.node);
        Ok(self.put_tablet(tablet))
    }

    fn promote(&mut self, id: TabletId, replica: ReplicaId) -> Result<Vec<Effect>, Refusal> {
        let tablet = self.tablets.get(&id).ok_or(Refusal::NoTablet(id))?;
        let mut tablet = tablet.as_ref().clone();
        if tablet.leaving == Some(replica) {
            if self.is_group(&tablet) {
                // The group may have let go of it already, and takes nobody twice.
                return Ok(Vec::new());
            }
            tablet.leaving = None;
            return Ok(self.put_tablet(tablet));
        }
        let place = tablet
            .replicas
            .iter_mut()
            .find(|place| place.id == replica)
            .ok_or_else(|| Refusal::Invalid(format!("{id} has no replica {replica}")))?;
        if !place.is_learner {
            return Ok(Vec::new());
        }
        place.is_learner = false;
        Ok(self.put_tablet(tablet))
    }

    fn remove_replica(
        &mut self,
        id: TabletId,
        epoch: PlacementEpoch,
        replica: ReplicaId,
    ) -> Result<Vec<Effect>, Refusal> {
        let mut tablet = self.tablet_at(id, epoch)?;
        let Some(place) = tablet.replica(replica) else {
            return Err(Refusal::Invalid(format!("{id} has no replica {replica}")));
        };
        if !place.is_learner && tablet.voters().count() == 1 {
            return Err(Refusal::Invalid(format!("{replica} is the last of {id}")));
        }
        let is_counted = !place.is_learner || self.is_group(&tablet);
        if is_counted && tablet.leaving != Some(replica) {
            return Err(Refusal::Invalid(format!("{replica} is retired first")));
        }
        tablet.replicas.retain(|place| place.id != replica);
        tablet.leaving = tablet.leaving.filter(|leaving| *leaving != replica);
        Ok(self.put_tablet(tablet))
    }

    fn retire(
        &mut self,
        id: TabletId,
        epoch: PlacementEpoch,
        replica: ReplicaId,
    ) -> Result<Vec<Effect>, Refusal> {
        let mut tablet = self.tablet_at(id, epoch)?;
        if let Some(other) = tablet.leaving {
            return Err(Refusal::Invalid(format!("{other} of {id} leaves first")));
        }
        let place = tablet.replica(replica);
        let place = place.filter(|it| !it.is_learner || self.is_group(&tablet));
        let Some(place) = place else {
            return Err(Refusal::Invalid(format!("{id} has no voter {replica}")));
        };
        if !place.is_learner && tablet.staying().count() == 1 {
            return Err(Refusal::Invalid(format!("{replica} is the last of {id}")));
        }
        tablet.leaving = Some(replica);
        Ok(self.put_tablet(tablet))
    }

    pub(crate) fn tablet_at(&self, id: TabletId, epoch: PlacementEpoch) -> Result<Tablet, Refusal> {
        let tablet = self.tablets.get(&id).ok_or(Refusal::NoTablet(id))?;
        if tablet.epoch != epoch {
            return Err(Refusal::OldEpoch {
                current: tablet.epoch,
            });
        }
        if self.is_fixed(id) {
            return Err(Refusal::Invalid(format!("{id} is being split")));
        }
        Ok(tablet.as_ref().clone())
    }

    fn found_tablet(&mut self, tablet: Tablet) {
        self.founders
            .insert(tablet.id, Arc::new(tablet.replicas.clone()));
        self.tablets.insert(tablet.id, Arc::new(tablet));
    }

    fn put_tablet(&mut self, mut tablet: Tablet) -> Vec<Effect> {
        tablet.epoch = PlacementEpoch(tablet.epoch.0 + 1);
        let id = tablet.id;
        self.tablets.insert(id, Arc::new(tablet));
        vec![Effect::TabletChanged(id)]
    }

    pub(crate) fn next_replica(&mut self) -> ReplicaId {
        let id = ReplicaId(self.head.next_replica);
        self.head.next_replica += 1;
        id
    }
}

pub(crate) fn too_many_tablets() -> Refusal {
    Refusal::Invalid(format!("a cluster has at most {TABLETS_MAX} tablets"))
}

/// The ranges that a new table group begins with: the token space in equal parts, or everything.
fn initial_ranges(partitioning: Partitioning) -> Vec<KeyRange> {
    match partitioning {
        Partitioning::Range => vec![KeyRange::all()],
        Partitioning::Hash => (0..HASH_TABLETS)
            .map(|position| KeyRange {
                start: hash_boundary(position).unwrap_or_default(),
                end: hash_boundary(position + 1),
            })
            .collect(),
    }
}

impl NodeRecord {
    pub fn is_member(&self) -> bool {
        self.status == NodeStatus::Member
    }
}

/// Replicas by node.
pub(crate) type Counts = BTreeMap<NodeId, u64>;
