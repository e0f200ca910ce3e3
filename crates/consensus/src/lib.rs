//! Raft groups: many of them on one loop, over the node's one log.
//!
//! [`Groups`] is the handle: create a group with a [`StateMachine`], propose commands, change members. The
//! [`Driver`] is the loop behind it, to be run as one task. What decides (`group`: elections, appending,
//! conflicts) is synchronous and has no clock, no disk and no network; the driver feeds it and carries out what it
//! asks for: one log batch for all groups of a round, messages to one node in one frame, snapshots in pieces.
//!
//! Invariants:
//! * A vote, a term and an entry are durable before another node hears that they are.
//! * The log is cut only below what the state machine has flushed.
//! * A proposal is answered once; `NotLeader`, `Dropped` and `Overloaded` promise that it is not and will not be
//!   applied.
//!
//! Absent on purpose: forwarding of proposals (the caller routes), reading through Raft (leases do that, above).

mod confirm;
mod driver;
mod frame;
mod group;
mod groups;
mod hibernate;
mod log;
mod machine;
mod snapshot;
mod source;

pub use driver::Driver;
pub use frame::asks_for_vote;
pub use groups::{
    ChangeMembers, Config, Done, GroupSpec, GroupStatus, Groups, Origin, Outbound, ProposeError,
    Role,
};
pub use log::{FOUNDED_AT, tablet_of};
pub use machine::{
    Committed, CommittedEntry, Leadership, MachineError, Member, SnapshotSource, StateMachine,
};
pub use source::StoreSource;
