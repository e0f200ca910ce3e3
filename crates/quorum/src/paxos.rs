//! Compare-and-set on one partition of an eventual table: Paxos (Lamport, "Paxos Made Simple", 2001), one
//! decision after the other. Pure: ballots, promises and proposals in, promises, acceptances and refusals out.
//!
//! ```text
//! prepare(ballot)   promise to take part in nothing earlier, and tell what was accepted and committed last
//! accept(proposal)  unless a later ballot was promised
//! commit(proposal)  merge its rows; what is accepted under no later ballot is history
//! ```
//!
//! What a quorum has accepted under one ballot is *decided*. Whoever finds something accepted that may be decided
//! proposes it again under its own ballot before anything of its own. A proposal keeps the rows and the timestamps
//! that it was made with however often it is proposed again, so that applying it twice changes nothing; its
//! *origin* is the ballot that it was first proposed under.
//!
//! Invariants:
//! * A ballot belongs to one attempt of one proposer for ever: node, incarnation and sequence are part of it.
//! * Of two ballots with one timestamp at most one is promised by a quorum, so decided proposals have timestamps
//!   of their own, which grow from decision to decision.
//! * A proposal names the decisions before it, so that whoever lost sight of its own proposal can find out what
//!   became of it.
//!
//! It does not know replicas' logs, the network, or what the rows mean.

mod acceptor;
mod ballot;
mod electorate;
mod message;
mod proposer;

pub use acceptor::{PartitionState, Proposal};
pub use ballot::Ballot;
pub(crate) use electorate::{Electorate, Tally};
pub use message::{PaxosReply, PaxosRequest, RawState};
pub(crate) use proposer::{Fate, Promise, Survey, fate, survey};
