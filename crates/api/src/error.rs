//! Why a request failed, in three classes that the type tells apart; each door maps them to its own
//! protocol's errors in one place.

use crate::Level;
use minicbor::{Decode, Encode};
use model::{Row, SchemaVersion};
use std::fmt;
use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Error {
    /// The caller's fault and deterministic: the same request would be refused again. Nothing was done.
    #[n(0)]
    Refused(#[n(0)] Refused),
    /// Transient. Carries what is known and whether it may have happened.
    #[n(1)]
    Retry(#[n(0)] Retry),
    /// Corruption or our bug: the replica stopped.
    #[n(2)]
    Broken(#[n(0)] Broken),
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Refused {
    /// The table (or a column of it) is not in the catalog any more.
    #[n(0)]
    NoTable(#[n(0)] String),
    /// `RowOperation::Insert` met a row.
    #[n(1)]
    RowExists {
        /// Index of the mutation in the request.
        #[n(0)]
        mutation: u32,
    },
    /// `RowOperation::Update` met none, or a child's parent is missing.
    #[n(2)]
    RowMissing {
        #[n(0)]
        mutation: u32,
    },
    /// A condition did not hold.
    #[n(3)]
    ConditionFailed {
        #[n(0)]
        mutation: u32,
        /// The row as it was, if the mutation asked for it and there is one.
        #[n(1)]
        row: Option<Row>,
    },
    /// An update expression cannot be applied to the row that is there (DynamoDB's "The provided expression
    /// refers to an attribute that does not exist in the item", an operand of a wrong type, …).
    #[n(4)]
    UpdateFailed {
        #[n(0)]
        mutation: u32,
        #[n(1)]
        message: String,
    },
    /// The read timestamp lies before the history that is kept.
    #[n(6)]
    TooOld(#[n(0)] String),
    #[n(7)]
    TooLarge(#[n(0)] String),
    /// Valid, but not built: says what and names the way around.
    #[n(8)]
    Unsupported(#[n(0)] String),
    #[n(9)]
    Invalid(#[n(0)] String),
    #[n(10)]
    Catalog(#[n(0)] catalog::ChangeError),
    /// More tombstones had to be looked at than the request allows.
    #[n(11)]
    TooManyTombstones {
        #[n(0)]
        count: u64,
    },
}

/// What is known about a write that did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// It did not happen and will not.
    #[n(0)]
    NotApplied,
    /// It may have happened, or may yet.
    #[n(1)]
    Unknown,
}

/// A replica that answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReplicaFailure {
    /// Where clients reach its node.
    #[n(0)]
    pub address: IpAddr,
    #[n(1)]
    pub reason: FailureReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FailureReason {
    #[n(0)]
    Unknown,
    /// More tombstones than `tombstone_failure_threshold` allows.
    #[n(1)]
    TooManyTombstones,
    /// It has not answered in time, while others have failed.
    #[n(2)]
    Timeout,
}

/// How far a write had come when too few answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WriteStep {
    /// It was sent to the replicas.
    #[n(0)]
    Replicas,
    /// A logged batch was sent to the nodes that are to keep it, and nothing to replicas yet.
    #[n(1)]
    Batchlog,
    /// The replicas were to agree on it.
    #[n(2)]
    Agreement {
        /// So often somebody else's proposal came in between.
        #[n(0)]
        contentions: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Retry {
    /// Too few replicas are alive; nothing was sent.
    #[n(0)]
    Unavailable {
        #[n(0)]
        level: Level,
        #[n(1)]
        required: u32,
        #[n(2)]
        alive: u32,
    },
    /// Too few replicas answered in time.
    #[n(1)]
    WriteTimeout {
        #[n(0)]
        level: Level,
        #[n(1)]
        required: u32,
        #[n(2)]
        received: u32,
        #[n(3)]
        outcome: Outcome,
        #[n(4)]
        step: WriteStep,
    },
    #[n(2)]
    ReadTimeout {
        #[n(0)]
        level: Level,
        #[n(1)]
        required: u32,
        #[n(2)]
        received: u32,
        #[n(3)]
        data_present: bool,
    },
    /// Too many replicas answered with an error.
    #[n(3)]
    Failure {
        #[n(0)]
        level: Level,
        #[n(1)]
        required: u32,
        #[n(2)]
        received: u32,
        #[n(3)]
        failures: Vec<ReplicaFailure>,
        #[n(4)]
        outcome: Outcome,
        #[n(5)]
        is_write: bool,
        /// Of a read: whether the replica that was asked for data has sent it.
        #[n(6)]
        data_present: bool,
    },
    /// The transaction lost a conflict. Nothing of it was done.
    #[n(4)]
    Aborted(#[n(0)] String),
    /// No leaseholder answered in time. For a write, `outcome` says what that means.
    #[n(5)]
    NoLeader {
        #[n(0)]
        outcome: Outcome,
    },
    /// The request was lowered with a catalog that a tablet no longer serves.
    #[n(6)]
    StaleSchema {
        #[n(0)]
        current: SchemaVersion,
    },
    /// A queue or a memory budget is full. Nothing was done.
    #[n(7)]
    Overloaded(#[n(0)] String),
    /// This node is starting, stopping, or fenced.
    #[n(8)]
    NotServing(#[n(0)] String),
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Broken {
    #[n(0)]
    pub message: String,
    #[n(1)]
    pub outcome: Outcome,
}

impl Error {
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::Refused(Refused::Invalid(message.into()))
    }

    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::Refused(Refused::Unsupported(message.into()))
    }

    /// Whether a write that failed so may have happened all the same.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::Retry(
                Retry::WriteTimeout { outcome, .. }
                | Retry::Failure { outcome, .. }
                | Retry::NoLeader { outcome },
            )
            | Error::Broken(Broken { outcome, .. }) => *outcome,
            _ => Outcome::NotApplied,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(refused) => write!(formatter, "{refused}"),
            Error::Retry(retry) => write!(formatter, "{retry}"),
            Error::Broken(broken) => write!(formatter, "internal error: {}", broken.message),
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoTable(name) => write!(formatter, "table {name} does not exist"),
            Refused::RowExists { .. } => write!(formatter, "row already exists"),
            Refused::RowMissing { .. } => write!(formatter, "row not found"),
            Refused::ConditionFailed { .. } => write!(formatter, "the condition does not hold"),
            Refused::UpdateFailed { message, .. }
            | Refused::TooOld(message)
            | Refused::TooLarge(message)
            | Refused::Unsupported(message)
            | Refused::Invalid(message) => write!(formatter, "{message}"),
            Refused::Catalog(error) => write!(formatter, "{error}"),
            Refused::TooManyTombstones { count } => {
                write!(formatter, "{count} tombstones had to be looked at")
            }
        }
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Retry::Unavailable {
                required, alive, ..
            } => {
                write!(
                    formatter,
                    "{required} replicas are needed, {alive} are alive"
                )
            }
            Retry::WriteTimeout {
                required, received, ..
            }
            | Retry::ReadTimeout {
                required, received, ..
            } => {
                write!(
                    formatter,
                    "{received} of {required} replicas answered in time"
                )
            }
            Retry::Failure {
                required,
                received,
                failures,
                ..
            } => {
                write!(
                    formatter,
                    "{received} of {required} replicas answered, {} failed",
                    failures.len()
                )
            }
            Retry::Aborted(reason) => write!(formatter, "transaction aborted: {reason}"),
            Retry::NoLeader { .. } => write!(formatter, "no leaseholder answered in time"),
            Retry::StaleSchema { current } => {
                write!(formatter, "the catalog is at {current} by now")
            }
            Retry::Overloaded(what) => write!(formatter, "overloaded: {what}"),
            Retry::NotServing(why) => write!(formatter, "not serving: {why}"),
        }
    }
}
