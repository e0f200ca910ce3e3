//! What a strong tablet's log says. Effects only: whoever applies a command decides nothing but whether its
//! lease is current and whether it was applied before.

use crate::CommandId;
use crate::latches::Spans;
use crate::step::{Ending, Span};
use api::{KeyRange, TransactionId};
use bytes::{Buf, BufMut, Bytes};
use cluster::Tablet;
use minicbor::{Decode, Encode};
use model::{ColumnId, Incarnation, LeaseEpoch, NodeId, ReplicaId, RequestId, TabletId, Timestamp};

const WRITE: u8 = 1;
const CONTROL: u8 = 2;
const PREPARE: u8 = 3;
/// A write whose outcome is kept.
const KEPT_WRITE: u8 = 4;

/// Rows as they are after a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub epoch: LeaseEpoch,
    pub id: CommandId,
    /// Above those of all commands before it in the log.
    pub timestamp: Timestamp,
    /// A new end of the lease.
    pub lease_end: Option<Timestamp>,
    /// It is remembered that this command was applied.
    pub is_kept: bool,
    pub rows: Rows,
}

/// Keys with their rows' bytes; `None` deletes.
pub(crate) type Rows = Vec<(Bytes, Option<Bytes>)>;

/// A transaction's share, ready to be committed or given up. Until it is told which, its keys are nobody else's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepare {
    pub head: PrepareHead,
    /// As they will be when the commit has the timestamp of the head.
    pub rows: Rows,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct PrepareHead {
    #[n(0)]
    pub epoch: LeaseEpoch,
    #[n(1)]
    pub id: CommandId,
    /// The commit lies at or above.
    #[n(2)]
    pub timestamp: Timestamp,
    /// A new end of the lease.
    #[n(3)]
    pub lease_end: Option<Timestamp>,
    #[n(4)]
    pub transaction: TransactionId,
    #[n(5)]
    pub coordinator: Span,
    /// What it keeps from others: keys and ranges that it writes, and ranges that it has read.
    #[cbor(n(6), with = "api::byte_strings")]
    pub points: Vec<Vec<u8>>,
    #[n(7)]
    pub ranges: Vec<KeyRange>,
    #[n(8)]
    pub shared: Vec<KeyRange>,
    /// Columns whose value is the commit timestamp, by key.
    #[n(9)]
    pub stamps: Vec<Stamp>,
    /// Under which it is remembered that the transaction was committed, if it is.
    #[n(10)]
    pub kept_as: Option<CommandId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Stamp {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: Vec<u8>,
    #[n(1)]
    pub columns: Vec<ColumnId>,
}

impl PrepareHead {
    pub fn spans(&self) -> Spans {
        // The rows are staged as a whole: until it is known how it ends, nobody changes other columns either.
        Spans::of_rows(&self.points, &self.ranges, &self.shared)
    }
}

impl Prepare {
    /// The part of the share that lies within a range; `None` when nothing does.
    pub fn within(&self, range: &KeyRange) -> Option<Prepare> {
        let parts = |ranges: &[KeyRange]| -> Vec<KeyRange> {
            let parts = ranges.iter().map(|part| part.intersection(range));
            parts.filter(|part| !part.is_empty()).collect()
        };
        let head = &self.head;
        let mut part = Prepare {
            head: PrepareHead {
                ranges: parts(&head.ranges),
                shared: parts(&head.shared),
                ..head.clone()
            },
            rows: self.rows.clone(),
        };
        part.head.points.retain(|key| range.contains(key));
        part.head.stamps.retain(|stamp| range.contains(&stamp.key));
        part.rows.retain(|(key, _)| range.contains(key));
        let head = &part.head;
        let is_empty = part.rows.is_empty()
            && head.points.is_empty()
            && head.ranges.is_empty()
            && head.shared.is_empty();
        (!is_empty).then_some(part)
    }
}

/// Everything that is not a write.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum Control {
    /// Takes a new epoch, if `previous` is the present one.
    #[n(0)]
    Acquire {
        #[n(0)]
        previous: LeaseEpoch,
        #[n(1)]
        epoch: LeaseEpoch,
        #[n(2)]
        holder: ReplicaId,
        /// All that this lease commits is above.
        #[n(3)]
        start: Timestamp,
        #[n(4)]
        end: Timestamp,
    },
    #[n(1)]
    Extend {
        #[n(0)]
        epoch: LeaseEpoch,
        #[n(1)]
        end: Timestamp,
    },
    /// The holder will serve nothing more in this epoch; a successor starts above `promised`.
    #[n(2)]
    Release {
        #[n(0)]
        epoch: LeaseEpoch,
        #[n(1)]
        promised: Timestamp,
    },
    /// Keys from `at` on belong to another tablet from here on.
    #[n(3)]
    Split {
        #[n(0)]
        epoch: LeaseEpoch,
        #[cbor(n(1), with = "minicbor::bytes")]
        at: Vec<u8>,
        #[n(2)]
        left: Tablet,
        #[n(3)]
        right: Tablet,
        /// What the right half commits is above: the holder has promised nothing more about its keys, and will not.
        #[n(4)]
        promised: Timestamp,
    },
    /// By the coordinator, whose own share is prepared: the transaction commits. The decision is kept until all
    /// other participants have been told.
    #[n(4)]
    Decide {
        #[n(0)]
        epoch: LeaseEpoch,
        #[n(1)]
        id: CommandId,
        #[n(2)]
        timestamp: Timestamp,
        #[n(3)]
        participants: Vec<Span>,
    },
    /// How a transaction that may be prepared here has ended. One that is not prepared never will be.
    #[n(5)]
    Resolve {
        #[n(0)]
        epoch: LeaseEpoch,
        #[n(1)]
        id: CommandId,
        #[n(2)]
        ending: Ending,
        /// When that was learnt, for forgetting it.
        #[n(3)]
        at: Timestamp,
    },
    /// All participants know of these decisions.
    #[n(6)]
    Forget {
        #[n(0)]
        epoch: LeaseEpoch,
        #[n(1)]
        ids: Vec<CommandId>,
    },
    /// The right half of the last split lives on its own: what is kept here of it may go.
    #[n(7)]
    Settle {
        #[n(0)]
        right: TabletId,
    },
    /// A transaction whose outcome is kept is not committed here from now on, if it has not been.
    #[n(8)]
    Refuse {
        #[n(0)]
        epoch: LeaseEpoch,
        #[n(1)]
        kept_as: CommandId,
        #[n(2)]
        at: Timestamp,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Write(Write),
    Prepare(Prepare),
    Control(Control),
}

/// What became of a command when it was applied: the first byte of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// Its lease's epoch is not current: nothing was done.
    OldEpoch,
    /// It was applied before: nothing was done.
    Repeated,
    /// The transaction had ended before: nothing was done.
    Ended(Ending),
}

impl Verdict {
    pub fn encode(self) -> Bytes {
        match self {
            Verdict::Done => Bytes::from_static(&[1]),
            Verdict::OldEpoch => Bytes::from_static(&[2]),
            Verdict::Repeated => Bytes::from_static(&[3]),
            Verdict::Ended(Ending::Aborted) => Bytes::from_static(&[4]),
            Verdict::Ended(Ending::Committed(timestamp)) => {
                let mut bytes = vec![5];
                bytes.put_i64(timestamp.0);
                bytes.into()
            }
        }
    }

    pub fn decode(mut result: &[u8]) -> Verdict {
        match result.try_get_u8() {
            Ok(1) => Verdict::Done,
            Ok(3) => Verdict::Repeated,
            Ok(4) => Verdict::Ended(Ending::Aborted),
            Ok(5) => match result.try_get_i64() {
                Ok(timestamp) => Verdict::Ended(Ending::Committed(Timestamp(timestamp))),
                Err(_) => Verdict::OldEpoch,
            },
            _ => Verdict::OldEpoch,
        }
    }
}

/// A write as it goes to the log, with the rows to be appended.
pub(crate) struct WriteEncoder {
    bytes: Vec<u8>,
    count_at: usize,
    count: u32,
}

impl WriteEncoder {
    pub fn new(
        epoch: LeaseEpoch,
        (id, is_kept): (CommandId, bool),
        timestamp: Timestamp,
        lease_end: Option<Timestamp>,
    ) -> WriteEncoder {
        let mut bytes = Vec::with_capacity(256);
        bytes.put_u8(if is_kept { KEPT_WRITE } else { WRITE });
        bytes.put_u64(epoch.0);
        bytes.put_u64(id.node.0);
        bytes.put_u64(id.incarnation.0);
        bytes.put_u64(id.request.0);
        bytes.put_i64(timestamp.0);
        bytes.put_i64(lease_end.unwrap_or(Timestamp::MIN).0);
        WriteEncoder::rows_follow(bytes)
    }

    pub fn prepare(head: &PrepareHead) -> WriteEncoder {
        let head = minicbor::to_vec(head).expect("writing to memory does not fail");
        let mut bytes = Vec::with_capacity(256 + head.len());
        bytes.put_u8(PREPARE);
        bytes.put_u32(head.len() as u32);
        bytes.put_slice(&head);
        WriteEncoder::rows_follow(bytes)
    }

    fn rows_follow(mut bytes: Vec<u8>) -> WriteEncoder {
        let count_at = bytes.len();
        bytes.put_u32(0);
        WriteEncoder {
            bytes,
            count_at,
            count: 0,
        }
    }

    pub fn row(&mut self, key: &[u8], row: Option<&[u8]>) {
        self.count += 1;
        self.bytes.put_u32(key.len() as u32);
        self.bytes.put_slice(key);
        match row {
            Some(row) => {
                self.bytes.put_u8(1);
                self.bytes.put_u32(row.len() as u32);
                self.bytes.put_slice(row);
            }
            None => self.bytes.put_u8(0),
        }
    }

    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn finish(mut self) -> Vec<u8> {
        let count = self.count.to_be_bytes();
        self.bytes[self.count_at..self.count_at + 4].copy_from_slice(&count);
        self.bytes
    }
}

/// As it was proposed.
pub(crate) fn encode_prepare(prepare: &Prepare) -> Vec<u8> {
    let mut encoder = WriteEncoder::prepare(&prepare.head);
    for (key, row) in &prepare.rows {
        encoder.row(key, row.as_deref());
    }
    encoder.finish()
}

pub(crate) fn encode_control(control: &Control) -> Vec<u8> {
    let mut bytes = vec![CONTROL];
    minicbor::encode(control, &mut bytes).expect("writing to memory does not fail");
    bytes
}

pub(crate) fn decode(mut bytes: Bytes) -> Option<Command> {
    match bytes.try_get_u8().ok()? {
        kind @ (WRITE | KEPT_WRITE) => decode_write(bytes, kind == KEPT_WRITE).map(Command::Write),
        CONTROL => minicbor::decode(&bytes).ok().map(Command::Control),
        PREPARE => decode_prepare(bytes).map(Command::Prepare),
        _ => None,
    }
}

fn decode_prepare(mut bytes: Bytes) -> Option<Prepare> {
    let head = take(&mut bytes)?;
    Some(Prepare {
        head: minicbor::decode(&head).ok()?,
        rows: decode_rows(bytes)?,
    })
}

fn decode_write(mut bytes: Bytes, is_kept: bool) -> Option<Write> {
    let epoch = LeaseEpoch(bytes.try_get_u64().ok()?);
    let id = CommandId {
        node: NodeId(bytes.try_get_u64().ok()?),
        incarnation: Incarnation(bytes.try_get_u64().ok()?),
        request: RequestId(bytes.try_get_u64().ok()?),
    };
    let timestamp = Timestamp(bytes.try_get_i64().ok()?);
    let lease_end = Timestamp(bytes.try_get_i64().ok()?);
    Some(Write {
        epoch,
        id,
        timestamp,
        lease_end: (lease_end != Timestamp::MIN).then_some(lease_end),
        is_kept,
        rows: decode_rows(bytes)?,
    })
}

fn decode_rows(mut bytes: Bytes) -> Option<Rows> {
    let count = bytes.try_get_u32().ok()?;
    let mut rows = Vec::new();
    for _ in 0..count {
        let key = take(&mut bytes)?;
        let row = match bytes.try_get_u8().ok()? {
            0 => None,
            _ => Some(take(&mut bytes)?),
        };
        rows.push((key, row));
    }
    bytes.is_empty().then_some(rows)
}

fn take(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u32().ok()? as usize;
    (bytes.len() >= length).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(bytes.clone().into());
            for kind in [WRITE, CONTROL, PREPARE, KEPT_WRITE] {
                if let Some(first) = bytes.first_mut() {
                    *first = kind;
                }
                let _ = decode(bytes.clone().into());
            }
        }
    }

    #[test]
    fn writes_read_back_and_torn_ones_do_not() {
        let id = CommandId {
            node: NodeId(1),
            incarnation: Incarnation(2),
            request: RequestId(3),
        };
        for is_kept in [false, true] {
            let named = (id, is_kept);
            let mut encoder = WriteEncoder::new(LeaseEpoch(4), named, Timestamp(-5), None);
            encoder.row(b"a", Some(b"row"));
            encoder.row(b"b", None);
            let bytes = Bytes::from(encoder.finish());
            let write = Write {
                epoch: LeaseEpoch(4),
                id,
                timestamp: Timestamp(-5),
                lease_end: None,
                is_kept,
                rows: vec![
                    (Bytes::from_static(b"a"), Some(Bytes::from_static(b"row"))),
                    (Bytes::from_static(b"b"), None),
                ],
            };
            assert_eq!(decode(bytes.clone()), Some(Command::Write(write)));
            for length in 0..bytes.len() {
                assert_eq!(decode(bytes.slice(..length)), None);
            }
        }
    }

    #[test]
    fn what_keeping_an_outcome_adds_to_an_entry() {
        let id = CommandId {
            node: NodeId(3),
            incarnation: Incarnation(200),
            request: RequestId(1 << 30),
        };
        let size = |is_kept| {
            let encoder = WriteEncoder::new(LeaseEpoch(1), (id, is_kept), Timestamp(1), None);
            encoder.finish().len()
        };
        assert_eq!(size(true), size(false));
        let size = |kept_as| {
            let head = PrepareHead { kept_as, ..head() };
            WriteEncoder::prepare(&head).finish().len()
        };
        assert_eq!(size(Some(id)) - size(None), 9);
    }

    fn head() -> PrepareHead {
        PrepareHead {
            epoch: LeaseEpoch(4),
            id: CommandId::default(),
            timestamp: Timestamp(9),
            lease_end: Some(Timestamp(10)),
            transaction: TransactionId::default(),
            coordinator: Span::point(model::TableId(3), b"k".to_vec()),
            points: vec![b"k".to_vec(), Vec::new()],
            ranges: vec![KeyRange::all()],
            shared: vec![KeyRange::prefix(b"p".to_vec())],
            stamps: vec![Stamp {
                key: b"k".to_vec(),
                columns: vec![ColumnId(7)],
            }],
            kept_as: Some(CommandId::default()),
        }
    }

    #[test]
    fn prepared_shares_read_back_and_torn_ones_do_not() {
        let head = head();
        let mut encoder = WriteEncoder::prepare(&head);
        encoder.row(b"k", Some(b"row"));
        let bytes = Bytes::from(encoder.finish());
        let rows = vec![(Bytes::from_static(b"k"), Some(Bytes::from_static(b"row")))];
        let prepare = Prepare { head, rows };
        assert_eq!(decode(bytes.clone()), Some(Command::Prepare(prepare)));
        for length in 0..bytes.len() {
            assert_eq!(decode(bytes.slice(..length)), None);
        }
    }

    #[test]
    fn verdicts_read_back() {
        for verdict in [
            Verdict::Done,
            Verdict::OldEpoch,
            Verdict::Repeated,
            Verdict::Ended(Ending::Aborted),
            Verdict::Ended(Ending::Committed(Timestamp(-3))),
        ] {
            assert_eq!(Verdict::decode(&verdict.encode()), verdict);
        }
    }
}
