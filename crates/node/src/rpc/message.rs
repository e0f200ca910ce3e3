//! What nodes say to each other. The first byte of a message says what follows it: an envelope (CBOR), a
//! frame of the consensus loop, or a packet of gossip. See `docs/formats/internode-requests.md`.

use crate::clock::{Claim, Grant};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use cluster::{Applied, NodeProfile, Proposal, Refusal, Replica, Tablet};
use consensus::Member;
use minicbor::{Decode, Encode};
use model::{ClusterId, Interval, NodeId, PlacementEpoch, ReplicaId, TabletId, Timestamp};
use txn::{Step, Stepped};

pub(crate) const ENVELOPE: u8 = 1;
pub(crate) const CONSENSUS: u8 = 2;
pub(crate) const GOSSIP: u8 = 3;
/// The sender's clock, then a frame of the consensus loop.
pub(crate) const TIMED_CONSENSUS: u8 = 4;

#[derive(Debug, Encode, Decode)]
pub(crate) enum Envelope {
    #[n(0)]
    Request {
        /// Unique among the sender's unanswered requests.
        #[n(0)]
        id: u64,
        /// What is left of the sender's patience, in milliseconds.
        #[n(1)]
        patience_ms: u32,
        #[n(2)]
        request: Request,
    },
    #[n(1)]
    Reply {
        #[n(0)]
        id: u64,
        #[n(1)]
        reply: Reply,
    },
    /// The sender's version of the meta group's state, and its clock.
    #[n(2)]
    Beat {
        #[n(0)]
        version: u64,
        #[n(1)]
        clock: Option<Interval>,
        /// Groups that it leads.
        #[n(2)]
        led: Option<u64>,
    },
}

#[derive(Debug, Encode, Decode)]
pub(crate) enum Request {
    /// By a node that has no id yet. Answered with `Joined`.
    #[n(0)]
    Join(#[n(0)] NodeProfile),
    /// Answered with `Proposed`, or `NotLeader`.
    #[n(1)]
    Propose(#[n(0)] Proposal),
    /// The meta group's state, if it is newer than this version. Answered with `State`.
    #[n(2)]
    Pull {
        #[n(0)]
        have: u64,
    },
    /// Answered with `Done` when the node has this version and has brought its replicas up to it.
    #[n(3)]
    Reach {
        #[n(0)]
        version: u64,
    },
    /// Answered with `Written`.
    #[n(4)]
    Write(#[n(0)] txn::TabletWrite),
    /// Answered with `Read`.
    #[n(5)]
    Read(#[n(0)] txn::TabletRead),
    /// Answered with `Quorum`.
    #[n(6)]
    Quorum(#[n(0)] quorum::Request),
    /// To the leader of a strong tablet: bring this member one step closer to being a voter. Answered with
    /// `Admitted`, or `NotLeader`.
    #[n(7)]
    Admit {
        #[n(0)]
        tablet: TabletId,
        #[n(1)]
        member: Member,
    },
    /// To the node of a replica of an eventual tablet: fill it from the others. Answered with `Admitted`.
    #[n(8)]
    Fill {
        #[n(0)]
        tablet: TabletId,
        #[n(1)]
        replica: Replica,
        /// In this placement, or a later one.
        #[n(2)]
        epoch: Option<PlacementEpoch>,
        /// There is no hope for this node, which has the replica that is on its way out.
        #[n(3)]
        lost: Option<NodeId>,
    },
    /// Stand for election in these tablets' groups. Answered with `Done`.
    #[n(9)]
    Campaign(#[n(0)] Vec<TabletId>),
    /// To the leaseholder: divide. Answered with `Divided`.
    #[n(10)]
    Split {
        #[cbor(n(0), with = "minicbor::bytes")]
        at: Vec<u8>,
        #[n(1)]
        left: Tablet,
        #[n(2)]
        right: Tablet,
    },
    /// To the leaseholder: a step of a transaction that spans tablets. Answered with `Stepped`.
    #[n(11)]
    Step(#[n(0)] txn::TabletStep),
    /// To a node that keeps batches of others. Answered with `Done`.
    #[n(12)]
    Batch(#[n(0)] quorum::BatchRequest),
    /// What requests that came in there and were traced have done. Answered with `Traces`.
    #[n(13)]
    Traces,
    /// To a node that holds a replica of an eventual tablet: a step of its repair, from this key on. Answered with
    /// `Repaired`.
    #[n(14)]
    Repair {
        #[n(0)]
        tablet: TabletId,
        #[cbor(n(1), with = "minicbor::bytes")]
        from: Vec<u8>,
    },
    /// Answered with `Clock`.
    #[n(16)]
    Clock(#[n(0)] ClockPoll),
    /// To the leader of a strong tablet, or of the meta group: its group is to let go of this replica, which the map has
    /// retired. Answered with `Admitted`, or `NotLeader`.
    #[n(17)]
    LetGo {
        #[n(0)]
        tablet: TabletId,
        #[n(1)]
        replica: ReplicaId,
    },
    /// What a door asks the door of the same name. Answered with `Door`.
    #[n(18)]
    Door {
        #[n(0)]
        door: String,
        #[cbor(n(1), with = "minicbor::bytes")]
        question: Vec<u8>,
    },
}

/// What a node asks a peer about its clock.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ClockPoll {
    /// The sender's own reading.
    #[n(0)]
    pub reading: Option<Interval>,
    /// The sender finds that the receiver's clock contradicts its own.
    #[n(1)]
    pub accuses: bool,
    /// The sender claims to be time master.
    #[n(2)]
    pub claim: Option<Claim>,
    /// The claimant's.
    #[n(3)]
    pub life: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ClockAnswer {
    /// The answering node's reading when the question came.
    #[n(0)]
    pub received: Option<Interval>,
    /// Its reading when the answer left.
    #[n(1)]
    pub sent: Option<Interval>,
    /// For so long it is time master without further news; 0 where it is not.
    #[n(2)]
    pub authority_micros: u64,
    /// Who is, as far as it knows.
    #[n(3)]
    pub master: Option<NodeId>,
    /// Its consent to the sender's claim.
    #[n(4)]
    pub grant: Option<Grant>,
}

#[derive(Debug, Encode, Decode)]
pub(crate) enum Reply {
    #[n(0)]
    Joined {
        #[n(0)]
        cluster: ClusterId,
        #[n(1)]
        node: NodeId,
        #[cbor(n(2), with = "minicbor::bytes")]
        state: Vec<u8>,
    },
    #[n(1)]
    Proposed(#[n(0)] Result<Applied, Refusal>),
    #[n(2)]
    NotLeader {
        #[n(0)]
        leader: Option<NodeId>,
    },
    #[n(3)]
    State(#[cbor(n(0), with = "minicbor::bytes")] Option<Vec<u8>>),
    #[n(4)]
    Done,
    #[n(5)]
    Written(#[n(0)] Result<api::WriteResponse, txn::TabletError>),
    #[n(6)]
    Read(#[n(0)] Result<api::ReadResponse, txn::TabletError>),
    #[n(7)]
    Quorum(#[n(0)] quorum::Reply),
    #[n(8)]
    Admitted {
        #[n(0)]
        is_complete: bool,
    },
    /// The request was not carried out.
    #[n(9)]
    Failed(#[n(0)] Failure),
    #[n(10)]
    Divided(#[n(0)] Result<(), txn::TabletError>),
    #[n(11)]
    Stepped(#[n(0)] Result<txn::Stepped, txn::TabletError>),
    #[n(12)]
    Traces(#[n(0)] Vec<api::trace::Trace>),
    #[n(13)]
    Repaired(#[n(0)] quorum::RepairStep),
    #[n(15)]
    Clock(#[n(0)] ClockAnswer),
    #[n(16)]
    Door(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

impl Request {
    /// What a traced request is told of; the eventual path tells by itself.
    pub fn shown_name(&self) -> Option<&'static str> {
        match self {
            Request::Write(_) => Some("a write to the leaseholder"),
            Request::Read(_) => Some("a read to a strong replica"),
            Request::Step(_) => Some("a step of a transaction"),
            Request::Batch(_) => Some("a batch to keep or forget"),
            Request::Door { .. } => Some("a request of a transaction that is open there"),
            _ => None,
        }
    }
}

/// Why a node did nothing about a request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub(crate) enum Failure {
    #[n(0)]
    #[error("too many requests are in flight")]
    Overloaded,
    #[n(1)]
    #[error("the node is starting or stopping")]
    NotServing,
    #[n(2)]
    #[error("{0}")]
    Other(#[n(0)] String),
}

pub(crate) fn encode(envelope: &Envelope) -> Bytes {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(ENVELOPE);
    minicbor::encode(envelope, &mut bytes).expect("encoding to memory does not fail");
    bytes.into()
}

/// Steps of transactions that span tablets, as `message_step` names them.
pub const TRANSACTION_STEPS: &[&str] = &[
    "lock", "prepare", "decide", "resolve", "ask", "touch", "release", "locked", "prepared",
    "blocked", "decided", "ended", "done",
];

/// What `message_step` calls a candidate's request for votes.
pub const VOTE_STEP: &str = "vote";

/// Which step of a transaction a message between nodes is, or the answer to one, or of an election: for simulators,
/// which strike there.
pub fn message_step(message: &[u8]) -> Option<&'static str> {
    let (&tag, body) = message.split_first()?;
    let frame = match tag {
        CONSENSUS => Some(Bytes::copy_from_slice(body)),
        TIMED_CONSENSUS => split_timed(Bytes::copy_from_slice(body)).map(|(_, frame)| frame),
        _ => None,
    };
    if let Some(frame) = frame {
        return consensus::asks_for_vote(frame).then_some(VOTE_STEP);
    }
    if tag != ENVELOPE {
        return None;
    }
    Some(match decode(body).ok()? {
        Envelope::Request {
            request: Request::Step(step),
            ..
        } => match step.step {
            Step::Lock(_) => "lock",
            Step::Prepare(_) => "prepare",
            Step::Decide { .. } => "decide",
            Step::Resolve { .. } => "resolve",
            Step::Ask { .. } => "ask",
            Step::Touch(_) => "touch",
            Step::Release { .. } => "release",
            Step::Recall { .. } => return None,
        },
        Envelope::Reply {
            reply: Reply::Stepped(Ok(stepped)),
            ..
        } => match stepped {
            Stepped::Locked => "locked",
            Stepped::Prepared(_) => "prepared",
            Stepped::Blocked => "blocked",
            Stepped::Decided(_) => "decided",
            Stepped::Ended(_) | Stepped::Undecided => "ended",
            Stepped::Done => "done",
        },
        _ => return None,
    })
}

/// The deepest nesting of a message's items. Values and conditions contain each other, and are decoded by recursion:
/// what is nested without end would take the stack, and with it the node. Doors allow far less.
const NESTING_MAX: usize = 1_000;

/// Reads an envelope, behind its first byte.
pub(crate) fn decode(body: &[u8]) -> Result<Envelope, minicbor::decode::Error> {
    if is_nested_too_deeply(body) {
        return Err(minicbor::decode::Error::message("nested too deeply"));
    }
    minicbor::decode(body)
}

/// Looks at the items' heads alone; what is malformed is for the decoder to say.
fn is_nested_too_deeply(mut body: &[u8]) -> bool {
    // Each level takes a byte at least, so that most messages need no look.
    if body.len() <= NESTING_MAX {
        return false;
    }
    // How many items are still to come, in each array and map that is open.
    let mut open: Vec<u64> = Vec::new();
    while let Some((&head, rest)) = body.split_first() {
        body = rest;
        let (major, information) = (head >> 5, head & 31);
        let width = match information {
            24..=27 => 1 << (information - 24),
            _ => 0,
        };
        let Some((argument, rest)) = body.split_at_checked(width) else {
            return false;
        };
        body = rest;
        let argument = match information {
            0..24 => u64::from(information),
            // Ends with a mark of its own.
            31 => u64::MAX,
            _ => argument
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        if let Some(left) = open.last_mut() {
            *left = left.saturating_sub(1);
        }
        match major {
            2 | 3 if information < 31 => {
                let length = usize::try_from(argument).unwrap_or(usize::MAX);
                let Some(rest) = body.get(length..) else {
                    return false;
                };
                body = rest;
            }
            2 | 3 => open.push(u64::MAX),
            4 => open.push(argument),
            5 => open.push(argument.saturating_mul(2)),
            6 => open.push(1),
            7 if information == 31 => {
                open.pop();
            }
            _ => {}
        }
        if open.len() > NESTING_MAX {
            return true;
        }
        while open.last() == Some(&0) {
            open.pop();
        }
    }
    false
}

pub(crate) fn tagged(tag: u8, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(body.len() + 1);
    bytes.put_u8(tag);
    bytes.put_slice(body);
    bytes.freeze()
}

/// Stands for a clock that has no reading.
const NO_READING: Interval = Interval {
    earliest: Timestamp::MIN,
    latest: Timestamp::MAX,
};

pub(crate) fn timed_frame(clock: Option<Interval>, frame: &[u8]) -> Bytes {
    let clock = clock.unwrap_or(NO_READING);
    let mut bytes = BytesMut::with_capacity(frame.len() + 17);
    bytes.put_u8(TIMED_CONSENSUS);
    bytes.put_i64(clock.earliest.0);
    bytes.put_i64(clock.latest.0);
    bytes.put_slice(frame);
    bytes.freeze()
}

/// What follows the tag of a timed frame. `None`: it is cut short.
pub(crate) fn split_timed(mut body: Bytes) -> Option<(Option<Interval>, Bytes)> {
    if body.len() < 16 {
        return None;
    }
    let clock = Interval {
        earliest: Timestamp(body.get_i64()),
        latest: Timestamp(body.get_i64()),
    };
    Some(((clock != NO_READING).then_some(clock), body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A conditional write of an item, as it goes to another node.
    fn write() -> Vec<u8> {
        let mut mutation = api::Mutation::new(
            model::TableId(3),
            b"key".to_vec(),
            api::RowOperation::Delete,
        );
        mutation.condition = Some(api::Condition::RowExists);
        let write = txn::TabletWrite {
            tablet: TabletId(4),
            epoch: Default::default(),
            schema: Default::default(),
            command: txn::CommandId {
                node: NodeId(1),
                incarnation: Default::default(),
                request: Default::default(),
            },
            first_attempt: None,
            mutations: vec![mutation; 3],
            atomicity: api::Atomicity::All,
            assertions: Vec::new(),
            patience_ms: 1_000,
            transaction: None,
            is_kept: false,
        };
        encode(&Envelope::Request {
            id: 7,
            patience_ms: 1_000,
            request: Request::Write(write),
        })[1..]
            .to_vec()
    }

    proptest! {
        #[test]
        fn damaged_messages_are_refused_or_read(
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            end in any::<prop::sample::Index>(),
        ) {
            let mut bytes = write();
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(end.index(bytes.len()) + 1);
            let _ = decode(&bytes);
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn nesting_without_end_is_refused_before_it_is_decoded() {
        for opener in [&[0x81][..], &[0x9f], &[0xa1, 0x00], &[0xc1]] {
            let deep = opener.repeat(1_000_000);
            let error = decode(&deep).unwrap_err();
            assert!(error.to_string().contains("too deeply"), "{error}");
        }
        // Wide is not deep, and what is closed is not open.
        let wide = [&[0x99, 0x10, 0x00][..], &[0x81, 0x00].repeat(4_096)].concat();
        assert!(!is_nested_too_deeply(&wide));
        let closed = [0x9f, 0xff].repeat(5_000);
        assert!(!is_nested_too_deeply(&closed));
    }

    #[test]
    fn a_frame_brings_its_senders_clock_along() {
        let clock = Interval {
            earliest: Timestamp(-5),
            latest: Timestamp(7),
        };
        for clock in [Some(clock), None] {
            let message = timed_frame(clock, b"frame");
            assert_eq!(message[0], TIMED_CONSENSUS);
            let split = split_timed(message.slice(1..));
            assert_eq!(split, Some((clock, Bytes::from_static(b"frame"))));
        }
        assert_eq!(split_timed(Bytes::from_static(b"too short")), None);
    }

    #[test]
    fn envelopes_survive_the_wire() {
        let envelope = Envelope::Request {
            id: 7,
            patience_ms: 1_000,
            request: Request::Pull { have: 3 },
        };
        let bytes = encode(&envelope);
        assert_eq!(bytes[0], ENVELOPE);
        let decoded: Envelope = minicbor::decode(&bytes[1..]).unwrap();
        assert_eq!(format!("{decoded:?}"), format!("{envelope:?}"));
    }

    #[test]
    fn unknown_variants_are_refused() {
        // A request with the variant number 99.
        let bytes = [0x82, 0x00, 0x83, 0x07, 0x0a, 0x82, 0x18, 0x63, 0x80];
        assert!(minicbor::decode::<Envelope>(&bytes).is_err());
        let beat = minicbor::to_vec(Envelope::Beat {
            version: 1,
            clock: None,
            led: None,
        })
        .unwrap();
        assert!(minicbor::decode::<Envelope>(&beat).is_ok());
        assert!(minicbor::decode::<Envelope>(&beat[..beat.len() - 1]).is_err());
    }
}
