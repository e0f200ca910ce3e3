//! Tablets: which range of which table group, on which nodes.

use api::KeyRange;
use minicbor::{Decode, Encode};
use model::{NodeId, PlacementEpoch, ReplicaId, TableId, TabletId};

/// The meta group's tablet. It belongs to no table.
pub const META: TabletId = TabletId(0);

/// One replica's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Replica {
    #[n(0)]
    pub id: ReplicaId,
    #[n(1)]
    pub node: NodeId,
    /// Receives everything, counts for nothing: it is being filled.
    #[n(2)]
    pub is_learner: bool,
}

/// A tablet as the meta group knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Tablet {
    #[n(0)]
    pub id: TabletId,
    /// The root of the table group whose keys it holds.
    #[n(1)]
    pub root: TableId,
    #[n(2)]
    pub range: KeyRange,
    /// Ordered by node.
    #[n(3)]
    pub replicas: Vec<Replica>,
    /// Grows with each change of range or replicas; a request that carries another is refused with this
    /// descriptor.
    #[n(4)]
    pub epoch: PlacementEpoch,
    /// The replica that is on its way out. A voter of an eventual tablet gets every write and counts for none, and is read
    /// until the others have all that it has. One of a strong tablet takes part until its group has let go of it: whoever
    /// a group counts is in the map.
    #[n(5)]
    pub leaving: Option<ReplicaId>,
}

impl Tablet {
    pub fn replica_on(&self, node: NodeId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.node == node)
    }

    pub fn replica(&self, id: ReplicaId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.id == id)
    }

    pub fn voters(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| !replica.is_learner)
    }

    /// The voters that are not on their way out.
    pub fn staying(&self) -> impl Iterator<Item = &Replica> {
        self.voters().filter(|voter| Some(voter.id) != self.leaving)
    }
}

/// A tablet that is being cut in two: what it and the new one will be.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Split {
    #[n(0)]
    pub left: Tablet,
    #[n(1)]
    pub right: Tablet,
    /// The map shows both.
    #[n(2)]
    pub is_finished: bool,
}
