//! What a group replicates: the state machine that its owner brings.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use model::{NodeId, ReplicaId};
use world::Applied;

/// A member of a group. Its Raft id is the replica's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Member {
    #[n(0)]
    pub replica: ReplicaId,
    #[n(1)]
    pub node: NodeId,
    /// Receives everything, counts for nothing.
    #[n(2)]
    pub is_learner: bool,
}

/// An entry that is committed and must be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub index: u64,
    pub term: u64,
    pub entry: CommittedEntry,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommittedEntry {
    /// What was proposed.
    Command(Bytes),
    /// The group's members from this entry on. For information: the group keeps them itself.
    Members(Vec<Member>),
    /// The first entry of a leader's term.
    Empty,
}

/// Who leads, as this replica knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This replica leads in this term. Entries of earlier terms may still have to be applied: an entry
    /// proposed now is applied after all of them.
    Leader {
        term: u64,
    },
    Follower {
        term: u64,
        leader: Option<Member>,
    },
}

/// The replica's state cannot be used any more; it needs a new snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MachineError(pub String);

/// What one replica of a group does with the entries that the group agrees on. Called by one task, one call
/// at a time; calls must not wait.
pub trait StateMachine: Send {
    /// The last entry applied: at the start, the one whose effects were found. `Applied::default()` when the
    /// state is that before the first entry; `None` when there is no usable state, so that a snapshot must be
    /// installed.
    fn applied(&self) -> Option<Applied>;

    /// The last entry whose effects survive a crash. The log is cut only behind it.
    fn flushed(&self) -> Applied;

    /// Asks that `flushed` may soon come up to `applied`.
    fn request_flush(&mut self) {}

    /// Applies entries in order, without gaps, and returns one result an entry (empty where there is nothing to
    /// say), which the proposer gets. An error breaks the replica: nothing is applied any more until a
    /// snapshot is installed.
    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, MachineError>;

    /// The state as it is applied now, to be read in pieces while later entries are applied.
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, MachineError>;

    /// Begins to build a new state beside the present one, which is given up. An installation begun
    /// before is forgotten.
    fn begin_install(&mut self) -> Result<(), MachineError>;

    /// Adds pairs to the installation, in the order in which the source gave them.
    fn install(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Result<(), MachineError>;

    /// Makes the new state durable and takes its place, atomically. `applied` and `flushed` tell it then.
    fn finish_install(&mut self, applied: Applied) -> Result<(), MachineError>;

    /// Called when what this replica knows about the group's leadership changes.
    fn leadership(&mut self, leadership: Leadership) {
        let _ = leadership;
    }

    /// A message of `Groups::broadcast` by another member. May come late, twice, or never.
    fn message(&mut self, from: ReplicaId, message: Bytes) {
        let _ = (from, message);
    }
}

/// A state at one moment, read in pieces.
pub trait SnapshotSource: Send {
    fn applied(&self) -> Applied;

    /// Pairs that follow the key `after` (from the beginning when `None`), in order, at least one unless there
    /// are no more, and about `size_bytes_max` of them.
    fn read(
        &mut self,
        after: Option<&[u8]>,
        size_bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, MachineError>;
}
