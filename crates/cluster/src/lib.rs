//! The meta group's state (catalog, nodes, tablet map, settings) and the rules by which it changes:
//! membership, placement, the lifecycle of tablets.
//!
//! Everything here is pure: input in, effects out. The crate `node` keeps a [`State`] in a Raft group, follows
//! it on every node, and carries out what [`plan`] says; nothing here waits, sends, or reads a clock.

mod command;
mod gossip;
mod membership;
mod pieces;
mod placement;
mod progress;
mod split;
mod state;
mod tablet;

pub use command::{Applied, Command, Effect, Proposal, ProposalId, Refusal};
pub use gossip::{Gossip, GossipEffect, GossipMember, GossipTimer};
pub use pieces::Piece;
pub use placement::{HASH_TABLETS, Liveness, Step, hash_boundary, plan, ring};
pub use state::{NodeProfile, NodeRecord, NodeStatus, State};
pub use tablet::{META, Replica, Split, Tablet};
