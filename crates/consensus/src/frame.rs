//! Frames between the groups of two nodes: what all groups of a round have to say to one node, in one message.
//! The byte table is `docs/formats/consensus.md`. Every frame is also a sign of life, so an empty one is that only.

use bytes::{Buf, BufMut, Bytes};
use model::{NodeId, ReplicaId, TabletId};
use protobuf::Message as _;
use raft::eraftpb;
use std::collections::BTreeMap;

const VERSION: u8 = 1;
const FRAME_HEADER_BYTES: usize = 9;
const ITEM_HEADER_BYTES: usize = 29;
/// A frame that is longer is sent, and another begun.
const FRAME_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A message of the Raft library, as protobuf.
    Raft = 1,
    /// A message of a state machine to its like.
    Machine = 2,
    SnapshotChunk = 3,
    SnapshotAnswer = 4,
    SnapshotRequest = 5,
    Hibernate = 6,
}

impl Kind {
    fn decode(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Raft,
            2 => Kind::Machine,
            3 => Kind::SnapshotChunk,
            4 => Kind::SnapshotAnswer,
            5 => Kind::SnapshotRequest,
            6 => Kind::Hibernate,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub kind: Kind,
    pub tablet: TabletId,
    pub to: ReplicaId,
    pub from: ReplicaId,
    pub body: Bytes,
}

/// What is to be sent in this round, by node.
pub(crate) struct Outbox {
    /// Drawn anew at each start: tells a restarted node from one that was silent.
    start: u64,
    open: BTreeMap<NodeId, Vec<u8>>,
    full: Vec<(NodeId, Bytes)>,
}

impl Outbox {
    pub fn new(start: u64) -> Outbox {
        Outbox {
            start,
            open: BTreeMap::new(),
            full: Vec::new(),
        }
    }

    /// Adds an item whose body `write` appends.
    pub fn push(
        &mut self,
        node: NodeId,
        kind: Kind,
        (tablet, to, from): (TabletId, ReplicaId, ReplicaId),
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.start;
        let frame = self.open.entry(node).or_insert_with(|| header(start));
        frame.put_u8(kind as u8);
        frame.put_u64(tablet.0);
        frame.put_u64(to.0);
        frame.put_u64(from.0);
        let length_at = frame.len();
        frame.put_u32(0);
        write(frame);
        let length = (frame.len() - length_at - 4) as u32;
        frame[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
        if frame.len() >= FRAME_BYTES_MAX
            && let Some(frame) = self.open.remove(&node)
        {
            self.full.push((node, frame.into()));
        }
    }

    /// Makes sure that the node hears something.
    pub fn sign_of_life(&mut self, node: NodeId) {
        let start = self.start;
        self.open.entry(node).or_insert_with(|| header(start));
    }

    pub fn drain(&mut self) -> Vec<(NodeId, Bytes)> {
        let mut frames = std::mem::take(&mut self.full);
        let open = std::mem::take(&mut self.open);
        frames.extend(open.into_iter().map(|(node, frame)| (node, frame.into())));
        frames
    }
}

fn header(start: u64) -> Vec<u8> {
    let mut frame = Vec::with_capacity(256);
    frame.put_u8(VERSION);
    frame.put_u64(start);
    frame
}

/// The sender's start and the items; `None` for what no outbox has written.
pub(crate) fn decode(mut frame: Bytes) -> Option<(u64, Vec<Item>)> {
    if frame.len() < FRAME_HEADER_BYTES || frame.get_u8() != VERSION {
        return None;
    }
    let start = frame.get_u64();
    let mut items = Vec::new();
    while !frame.is_empty() {
        if frame.len() < ITEM_HEADER_BYTES {
            return None;
        }
        let kind = Kind::decode(frame.get_u8())?;
        let tablet = TabletId(frame.get_u64());
        let to = ReplicaId(frame.get_u64());
        let from = ReplicaId(frame.get_u64());
        let length = frame.get_u32() as usize;
        if frame.len() < length {
            return None;
        }
        items.push(Item {
            kind,
            tablet,
            to,
            from,
            body: frame.split_to(length),
        });
    }
    Some((start, items))
}

/// Whether somebody asks for a vote in this frame: for simulators, which strike there.
pub fn asks_for_vote(frame: Bytes) -> bool {
    let items = decode(frame).map(|(_, items)| items).unwrap_or_default();
    items.iter().any(|item| {
        item.kind == Kind::Raft
            && eraftpb::Message::parse_from_bytes(&item.body)
                .is_ok_and(|message| message.msg_type == eraftpb::MessageType::MsgRequestVote)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(bytes.clone().into());
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            let _ = decode(bytes.into());
        }

        #[test]
        fn damaged_frames_are_refused_or_read(at in 0..200usize, byte in any::<u8>()) {
            let mut outbox = Outbox::new(7);
            for body in [&b"one"[..], b"", b"three"] {
                let address = (TabletId(1), ReplicaId(2), ReplicaId(3));
                outbox.push(NodeId(9), Kind::Raft, address, |frame| frame.put_slice(body));
            }
            let mut frame = outbox.drain().remove(0).1.to_vec();
            let at = at % frame.len();
            frame[at] = byte;
            if let Some((_, items)) = decode(frame.into()) {
                prop_assert!(items.len() <= 3);
            }
        }
    }

    #[test]
    fn items_for_one_node_share_a_frame() {
        let mut outbox = Outbox::new(7);
        let address = (TabletId(1), ReplicaId(2), ReplicaId(3));
        outbox.push(NodeId(9), Kind::Raft, address, |body| {
            body.put_slice(b"one")
        });
        outbox.push(NodeId(9), Kind::Hibernate, address, |_| {});
        outbox.sign_of_life(NodeId(9));
        outbox.sign_of_life(NodeId(8));
        let frames = outbox.drain();
        assert_eq!(frames.len(), 2);
        assert_eq!(decode(frames[0].1.clone()), Some((7, Vec::new())));
        let (_, items) = decode(frames[1].1.clone()).unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].body, Bytes::from_static(b"one"));
        assert_eq!(items[1].kind, Kind::Hibernate);
        assert!(outbox.drain().is_empty());
    }

    #[test]
    fn torn_frames_are_refused() {
        let mut outbox = Outbox::new(7);
        let address = (TabletId(1), ReplicaId(2), ReplicaId(3));
        outbox.push(NodeId(9), Kind::Raft, address, |body| {
            body.put_slice(b"one")
        });
        let frame = outbox.drain().remove(0).1;
        for length in 0..frame.len() {
            let torn = decode(frame.slice(..length));
            assert!(torn.is_none() || length == FRAME_HEADER_BYTES, "{length}");
        }
    }
}
