//! What a gateway asks of one tablet on behalf of a transaction that spans several; goes between nodes as CBOR.
//!
//! Every step can be asked again: the tablet remembers what it has prepared and how it ended.

use crate::request::CommandId;
use api::{KeyRange, Mutation, ReadAssertion, ReturnedRows, TransactionId};
use minicbor::{Decode, Encode};
use model::{PlacementEpoch, SchemaVersion, TableId, TabletId, Timestamp};

/// Keys of a table group. Tablets come and go; who is concerned is whoever holds the keys now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Span {
    #[n(0)]
    pub root: TableId,
    #[n(1)]
    pub range: KeyRange,
}

/// One attempt to commit a transaction. Each attempt has an id of its own, so that an earlier one that was given
/// up cannot be taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attempt {
    #[n(0)]
    pub id: CommandId,
    /// Whose locks these are, and how old it is.
    #[n(1)]
    pub transaction: TransactionId,
    /// The gateway's `now.earliest` when the attempt began: one that is too old is refused, since tablets no
    /// longer remember whether it was given up.
    #[n(2)]
    pub began: Timestamp,
    /// One key: the tablet that holds it decides.
    #[n(3)]
    pub coordinator: Span,
    /// Under which the tablets remember that the transaction was committed, if they are to.
    #[n(4)]
    pub kept_as: Option<CommandId>,
}

/// A transaction's share in one tablet.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Share {
    #[n(0)]
    pub attempt: Attempt,
    #[n(1)]
    pub mutations: Vec<Mutation>,
    #[n(2)]
    pub assertions: Vec<ReadAssertion>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct TabletStep {
    #[n(0)]
    pub tablet: TabletId,
    #[n(1)]
    pub epoch: PlacementEpoch,
    #[n(2)]
    pub schema: SchemaVersion,
    #[n(3)]
    pub patience_ms: u32,
    #[n(4)]
    pub step: Step,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Step {
    /// Locks what the share writes, waiting for others by age. Answered with `Locked`.
    #[n(0)]
    Lock(#[n(0)] Share),
    /// Makes the share ready to be committed or given up, whichever it is told, durably; waits for no lock.
    /// Answered with `Prepared`, or `Blocked`.
    #[n(1)]
    Prepare(#[n(0)] Share),
    /// To the coordinator, when all have prepared: decides to commit. Answered with `Decided`, or aborted.
    #[n(2)]
    Decide {
        #[n(0)]
        attempt: Attempt,
        /// Of all that prepared, the latest.
        #[n(1)]
        timestamp: Timestamp,
        /// The commit must lie below: of all promises of those that prepared, the earliest.
        #[n(2)]
        before: Timestamp,
        /// Whether the order of real time is promised.
        #[n(3)]
        is_external: bool,
        /// What all that wrote have written, the coordinator included.
        #[n(4)]
        participants: Vec<Span>,
    },
    /// Says how an attempt ended. Answered with `Done` when that is durable here.
    #[n(3)]
    Resolve {
        #[n(0)]
        id: CommandId,
        #[n(1)]
        ending: Ending,
    },
    /// To the coordinator: how did it end? One that is not prepared there will not be any more. Answered with
    /// `Ended`, or `Undecided`.
    #[n(4)]
    Ask {
        #[n(0)]
        id: CommandId,
    },
    /// The transaction is alive. Answered with `Done`.
    #[n(5)]
    Touch(#[n(0)] TransactionId),
    /// The transaction has ended: its locks go. What it has read stood until it committed: nothing commits here
    /// at or below that any more. Answered with `Done`.
    #[n(6)]
    Release {
        #[n(0)]
        transaction: TransactionId,
        #[n(1)]
        committed_at: Option<Timestamp>,
    },
    /// How a transaction that is kept under this name has ended. Answered with `Ended`, if it was committed here or never
    /// will be, or with `Undecided`.
    #[n(7)]
    Recall {
        #[n(0)]
        kept_as: CommandId,
        /// When it began: what was committed after that is remembered, or nothing is known.
        #[n(1)]
        began: Timestamp,
        /// It is not to be committed here any more, if it has not been.
        #[n(2)]
        refuses: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Stepped {
    #[n(0)]
    Locked,
    #[n(1)]
    Prepared(#[n(0)] Prepared),
    /// Something is locked by others: lock first. Nothing was prepared.
    #[n(2)]
    Blocked,
    #[n(3)]
    Decided(#[n(0)] Timestamp),
    #[n(4)]
    Ended(#[n(0)] Ending),
    #[n(5)]
    Undecided,
    #[n(6)]
    Done,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Prepared {
    /// The commit lies at or above.
    #[n(0)]
    pub timestamp: Timestamp,
    /// What was read is certain to stand for commits below.
    #[n(1)]
    pub before: Timestamp,
    #[n(2)]
    pub is_external: bool,
    /// One a mutation of the share, in order; empty when none asked for rows.
    #[n(3)]
    pub returned: Vec<ReturnedRows>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ending {
    #[n(0)]
    Committed(#[n(0)] Timestamp),
    #[n(1)]
    Aborted,
}

impl Span {
    /// One key.
    pub fn point(root: TableId, key: Vec<u8>) -> Span {
        let mut end = key.clone();
        end.push(0);
        Span {
            root,
            range: KeyRange {
                start: key,
                end: Some(end),
            },
        }
    }
}
