//! The eventual path: tablets whose replicas are equals, as in Cassandra and Dynamo.
//!
//! ```text
//! door → Coordinator ─ lower ─┬─ EventualReplica (here)      log → merge into the store → acknowledge
//!                             ├─ Peers::call → EventualReplica (there)
//!                             └─ await the level, answer
//! ```
//!
//! A write is lowered to *deltas*: rows of cells with timestamps, which merge by `model::Row::merge`. All
//! replicas get them; the level says how many acknowledgements to await. A read asks as many replicas as the
//! level says, one for data and the rest for digests; where they differ it merges the data of all, writes the
//! merged rows back to those that lack something, and only then answers, so that what one quorum read has
//! returned no later one misses. A write that needs the row as it is (compare-and-set) is agreed upon by Paxos
//! among the replicas of its partition, and what is agreed is merged like any other write.
//!
//! Invariants:
//! * A replica acknowledges a write, and shows it to readers, only when it is as durable as its table says.
//! * A reader never sees a row without the header of its partition having been consulted at as many replicas.
//! * A page of a range read is believed only as far as every replica that was asked has read.
//!
//! * A change is refused by replicas once it is older than its table's `gc_grace` allows (`grace`), whoever brings it.
//!
//! What a replica has missed is kept as a hint by the coordinator and delivered when the replica's node is back.
//!
//! Repair compares the replicas of a tablet by Merkle trees and brings each what it lacks; what it has shown to be
//! everywhere lets tombstones go (`grace` has the argument). When either happens is the node's business.
//!
//! Deliberately absent: routing and connections (crate `node`).

mod batchlog;
mod coordinator;
#[cfg(test)]
mod fixture;
mod gateway;
mod grace;
mod hints;
mod level;
mod lower;
mod merge;
mod message;
mod partition;
mod paxos;
mod peers;
mod repair;
mod replica;
mod speed;
mod visible;

pub use batchlog::{
    Batch, BatchId, BatchPart, BatchRequest, Batchlog, BatchlogError, is_batch_log,
};
pub use coordinator::{Coordinator, RepairStep};
pub use gateway::Gateway;
pub use hints::{HintCounts, HintLimits, Hints, is_hint_log};
pub use level::Required;
pub use lower::lower;
pub use message::{
    Action, Covered, Digest, Page, RawRow, RepairReply, RepairRequest, ReplicaError, ReplicaRead,
    ReplicaSelection, Reply, Request,
};
pub use paxos::{Ballot, PartitionState, PaxosReply, PaxosRequest, Proposal, RawState};
pub use peers::{CallError, Neighbour, Peers, Task, Tasks};
pub use repair::tree::{Leaves, Tree};
pub use replica::{EventualReplica, Failure, ReplicaConfig, Stage, Sweep};
pub use speed::Speeds;
