//! What proposers and acceptors say to each other, as it crosses the network.

use super::{Ballot, Proposal};
use crate::message::{Page, ReplicaRead};
use api::KeyRange;
use catalog::Durability;
use minicbor::{Decode, Encode};

/// A request about one partition, which is named by the key of its header.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum PaxosRequest {
    /// Answered with `Promised` or `Outbid`, once the promise is durable.
    #[n(0)]
    Prepare {
        #[cbor(n(0), with = "minicbor::bytes")]
        partition: Vec<u8>,
        #[n(1)]
        ballot: Ballot,
        #[n(2)]
        read: ReplicaRead,
    },
    /// Answered with `Accepted` or `Outbid`, once the acceptance is durable.
    #[n(1)]
    Accept {
        #[cbor(n(0), with = "minicbor::bytes")]
        partition: Vec<u8>,
        #[n(1)]
        proposal: Proposal,
    },
    /// The proposal is decided: its rows are merged. Answered with `Reply::Applied`, when they are as durable as
    /// was asked.
    #[n(2)]
    Commit {
        #[cbor(n(0), with = "minicbor::bytes")]
        partition: Vec<u8>,
        #[n(1)]
        proposal: Proposal,
        #[n(2)]
        durability: Durability,
    },
    /// What the replica remembers of the partitions in a range, for one that is being filled. Answered with
    /// `States`.
    #[n(3)]
    States {
        #[n(0)]
        range: KeyRange,
    },
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum PaxosReply {
    #[n(0)]
    Promised {
        #[n(0)]
        accepted: Option<Proposal>,
        #[n(1)]
        committed: Option<Proposal>,
        /// What `read` asked for, with all that had been committed before the promise.
        #[n(2)]
        page: Page,
    },
    #[n(1)]
    Accepted,
    /// This ballot, a later one, was promised to somebody.
    #[n(2)]
    Outbid(#[n(0)] Ballot),
    #[n(3)]
    States {
        #[n(0)]
        states: Vec<RawState>,
        /// Where to go on; `None` at the end of the range.
        #[cbor(n(1), with = "minicbor::bytes")]
        next: Option<Vec<u8>>,
    },
}

/// A partition, by its header's key, and its `PartitionState` as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct RawState {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub partition: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub state: Vec<u8>,
}
