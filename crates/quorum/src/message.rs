//! What coordinators and replicas say to each other, as it crosses the network. Rows travel in their storage
//! encoding: a replica neither decodes what it stores nor encodes what it reads.

use crate::paxos::{PaxosReply, PaxosRequest};
use crate::repair::tree::{Leaves, Tree};
use api::{Direction, KeyRange};
use catalog::Durability;
use cluster::Tablet;
use minicbor::{Decode, Encode};
use model::{PlacementEpoch, TabletId, Timestamp};

/// A key and a row, or a change to one, in the encoding of `model::row`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct RawRow {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub row: Vec<u8>,
}

/// A request to one replica of an eventual tablet.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Request {
    #[n(0)]
    pub tablet: TabletId,
    /// The placement that the coordinator counts with. An older one than the replica's is refused.
    #[n(1)]
    pub epoch: PlacementEpoch,
    #[n(2)]
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Action {
    /// Merges the deltas into what is there, all of them in one log entry.
    #[n(0)]
    Apply {
        #[n(0)]
        deltas: Vec<RawRow>,
        #[n(1)]
        durability: Durability,
        /// By the replica's wall clock, it is refused from then on (see `grace`); `None`: whenever it comes.
        #[n(2)]
        expires: Option<Timestamp>,
    },
    /// Answered with a `Page`.
    #[n(1)]
    Read(#[n(0)] ReplicaRead),
    /// Answered with the digest of the page that `Read` would return.
    #[n(2)]
    Digest(#[n(0)] ReplicaRead),
    /// A step of compare-and-set on one partition.
    #[n(3)]
    Paxos(#[n(0)] PaxosRequest),
    /// A part of a step of repair.
    #[n(4)]
    Repair(#[n(0)] RepairRequest),
}

/// What a step of repair asks of each replica, in this order.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum RepairRequest {
    /// Makes durable and readable whatever was taken before. Answered with `Begun`.
    #[n(0)]
    Begin,
    /// Answered with `Same` when the tree of these leaves has this root, with its leaves when it has not, or with a
    /// `Shorter` range to ask about.
    #[n(1)]
    Tree {
        #[n(0)]
        leaves: Leaves,
        /// Tombstones made before this many seconds since 1970 do not count.
        #[n(1)]
        purged_before: i64,
        #[n(2)]
        root: u64,
    },
    /// All replicas hold what any of them held of the range at that time. Answered with `Applied`, once that is
    /// noted durably.
    #[n(2)]
    Repaired {
        #[n(0)]
        range: KeyRange,
        #[n(1)]
        since: Timestamp,
    },
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum RepairReply {
    #[n(0)]
    Begun {
        /// This replica may have forgotten tombstones that were made before.
        #[n(0)]
        purged_before: i64,
    },
    #[n(1)]
    Same,
    #[n(2)]
    Leaves(#[n(0)] Tree),
    /// The range holds too much here: up to this key it is enough.
    #[n(3)]
    Shorter(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// What one replica is asked to read. Two replicas that hold the same answer it alike, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReplicaRead {
    #[n(0)]
    pub rows: ReplicaSelection,
    /// The page ends behind so many rows that are visible by this replica's own knowledge.
    #[n(1)]
    pub row_limit: Option<u32>,
    /// The page ends behind the row that passes this size, counted as encoded.
    #[n(2)]
    pub size_bytes_max: u32,
    /// The coordinator's wall clock, so that all replicas count the same cells as expired.
    #[n(3)]
    pub now_seconds: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ReplicaSelection {
    #[n(0)]
    Keys(#[cbor(n(0), with = "crate::message::byte_strings")] Vec<Vec<u8>>),
    #[n(1)]
    Range {
        #[n(0)]
        range: KeyRange,
        #[n(1)]
        direction: Direction,
    },
}

impl ReplicaSelection {
    /// A key that the selection begins with; `None` when it selects nothing.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        match self {
            ReplicaSelection::Keys(keys) => keys.first().map(Vec::as_slice),
            ReplicaSelection::Range { range, .. } => {
                (!range.is_empty()).then_some(range.start.as_slice())
            }
        }
    }

    pub(crate) fn is_within(&self, whole: &KeyRange) -> bool {
        match self {
            ReplicaSelection::Keys(keys) => keys.iter().all(|key| whole.contains(key)),
            ReplicaSelection::Range { range, .. } => {
                range.is_empty() || range.intersection(whole) == *range
            }
        }
    }
}

/// Rows of one replica with all their tombstones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Page {
    /// Ascending. The headers of the partitions that the covered part of the selection touches, whether or
    /// not the replica has rows of them: another replica may.
    #[n(0)]
    pub headers: Vec<RawRow>,
    /// Ascending for keys and forward ranges, else descending. No headers.
    #[n(1)]
    pub rows: Vec<RawRow>,
    #[n(2)]
    pub covered: Covered,
    /// The replica may have forgotten tombstones that were made before so many seconds since 1970, since all replicas
    /// had them: nobody needs to bring them back. Not part of the digest.
    #[n(3)]
    pub purged_before: i64,
}

/// How much of the selection a page speaks for. What it does not contain up to there, the replica does not
/// have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Covered {
    #[n(0)]
    #[default]
    All,
    /// The first so many keys.
    #[n(1)]
    Keys(#[n(0)] u32),
    /// A forward range up to this key, exclusive; a backward one down to it, inclusive.
    #[n(2)]
    To(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// A digest of a page: equal pages have equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Digest(#[n(0)] pub u64);

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Reply {
    /// Merged, and as durable as was asked.
    #[n(0)]
    Applied,
    #[n(1)]
    Page(#[n(0)] Page),
    #[n(2)]
    Digest(#[n(0)] Digest),
    #[n(3)]
    Refused(#[n(0)] ReplicaError),
    #[n(4)]
    Paxos(#[n(0)] PaxosReply),
    #[n(5)]
    Repair(#[n(0)] RepairReply),
}

/// Why a replica did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Encode, Decode, thiserror::Error)]
pub enum ReplicaError {
    /// The coordinator counts with an old placement; this is the replica's.
    #[n(0)]
    #[error("the placement of tablet {} is at {} by now", .0.id, .0.epoch)]
    StaleEpoch(#[n(0)] Tablet),
    #[n(1)]
    #[error("tablet {0} has no replica here")]
    NoReplica(#[n(0)] TabletId),
    /// Nothing was done.
    #[n(2)]
    #[error("overloaded: {0}")]
    Overloaded(#[n(0)] String),
    /// The replica's log or store failed, or a bug: it may have happened.
    #[n(3)]
    #[error("{0}")]
    Broken(#[n(0)] String),
    /// The request makes no sense; nothing was done.
    #[n(4)]
    #[error("{0}")]
    Invalid(#[n(0)] String),
    /// The change comes so late that what shadows it may be forgotten. Nothing was done.
    #[n(5)]
    #[error("the change is too old to be taken")]
    Expired,
    /// The replica is about to be opened, or made from another. Nothing was done.
    #[n(6)]
    #[error("the replica of tablet {0} here is not open yet")]
    NotYet(#[n(0)] TabletId),
}

impl Action {
    /// What it is, for people.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Action::Apply { .. } => "MUTATION",
            Action::Read(_) => "READ",
            Action::Digest(_) => "READ of a digest",
            Action::Paxos(PaxosRequest::Prepare { .. }) => "PAXOS_PREPARE",
            Action::Paxos(PaxosRequest::Accept { .. }) => "PAXOS_PROPOSE",
            Action::Paxos(PaxosRequest::Commit { .. }) => "PAXOS_COMMIT",
            _ => "REQUEST",
        }
    }
}

impl Reply {
    /// What it says, for people.
    pub(crate) fn summary(&self) -> String {
        match self {
            Reply::Applied => "written and durable as asked".into(),
            Reply::Page(page) => format!("read {} rows", page.rows.len()),
            Reply::Digest(Digest(digest)) => format!("digest {digest:016x}"),
            Reply::Paxos(PaxosReply::Promised { accepted, .. }) => match accepted {
                Some(_) => "promised; a proposal is under way".into(),
                None => "promised".into(),
            },
            Reply::Paxos(PaxosReply::Accepted) => "accepted".into(),
            Reply::Paxos(PaxosReply::Outbid(later)) => {
                format!("has promised a later ballot of {}", later.node)
            }
            Reply::Refused(error) => format!("refused: {error}"),
            _ => "answered".into(),
        }
    }
}

impl Request {
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Request, minicbor::decode::Error> {
        minicbor::decode(bytes)
    }
}

impl Reply {
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Reply, minicbor::decode::Error> {
        minicbor::decode(bytes)
    }
}

fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    minicbor::encode(value, &mut bytes).expect("writing to memory does not fail");
    bytes
}

/// Lists of byte strings as CBOR byte strings.
pub(crate) mod byte_strings {
    use minicbor::{Decoder, Encoder};

    pub fn encode<C, W: minicbor::encode::Write>(
        strings: &[Vec<u8>],
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.array(strings.len() as u64)?;
        for string in strings {
            encoder.bytes(string)?;
        }
        Ok(())
    }

    pub fn decode<C>(
        decoder: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Vec<Vec<u8>>, minicbor::decode::Error> {
        decoder
            .array_iter::<minicbor::bytes::ByteVec>()?
            .map(|item| item.map(Into::into))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let read = ReplicaRead {
            rows: ReplicaSelection::Range {
                range: KeyRange::prefix(b"ab".to_vec()),
                direction: Direction::Backward,
            },
            row_limit: Some(7),
            size_bytes_max: 100,
            now_seconds: -3,
        };
        for action in [
            Action::Apply {
                deltas: vec![RawRow {
                    key: b"k".to_vec(),
                    row: b"r".to_vec(),
                }],
                durability: Durability::Periodic { interval_ms: 20 },
                expires: Some(Timestamp(3)),
            },
            Action::Read(read.clone()),
            Action::Digest(ReplicaRead {
                rows: ReplicaSelection::Keys(vec![b"a".to_vec(), vec![]]),
                ..read
            }),
        ] {
            let request = Request {
                tablet: TabletId(4),
                epoch: PlacementEpoch(9),
                action,
            };
            assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        }
        let reply = Reply::Page(Page {
            headers: vec![],
            rows: vec![RawRow::default()],
            covered: Covered::To(b"x".to_vec()),
            purged_before: 7,
        });
        assert_eq!(Reply::decode(&reply.encode()).unwrap(), reply);
        assert!(Reply::decode(&[0xff, 0x00]).is_err());
    }
}
