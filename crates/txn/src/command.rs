//! What a strong tablet's log says. Effects only: whoever applies a command decides nothing but whether its
//! lease is current and whether it was applied before.

use crate::CommandId;
use bytes::{Buf, BufMut, Bytes};
use cluster::Tablet;
use minicbor::{Decode, Encode};
use model::{Incarnation, LeaseEpoch, NodeId, ReplicaId, RequestId, Timestamp};

const WRITE: u8 = 1;
const CONTROL: u8 = 2;

/// Rows as they are after a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub epoch: LeaseEpoch,
    pub id: CommandId,
    /// Above those of all commands before it in the log.
    pub timestamp: Timestamp,
    /// A new end of the lease.
    pub lease_end: Option<Timestamp>,
    /// Keys with their rows' bytes; `None` deletes.
    pub rows: Vec<(Bytes, Option<Bytes>)>,
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
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Write(Write),
    Control(Control),
}

/// What became of a command when it was applied: the first byte of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Verdict {
    Done = 1,
    /// Its lease's epoch is not current: nothing was done.
    OldEpoch = 2,
    /// It was applied before: nothing was done.
    Repeated = 3,
}

impl Verdict {
    pub fn encode(self) -> Bytes {
        Bytes::from_static(match self {
            Verdict::Done => &[1],
            Verdict::OldEpoch => &[2],
            Verdict::Repeated => &[3],
        })
    }

    pub fn decode(result: &[u8]) -> Verdict {
        match result.first() {
            Some(1) => Verdict::Done,
            Some(3) => Verdict::Repeated,
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
        id: CommandId,
        timestamp: Timestamp,
        lease_end: Option<Timestamp>,
    ) -> WriteEncoder {
        let mut bytes = Vec::with_capacity(256);
        bytes.put_u8(WRITE);
        bytes.put_u64(epoch.0);
        bytes.put_u64(id.node.0);
        bytes.put_u64(id.incarnation.0);
        bytes.put_u64(id.request.0);
        bytes.put_i64(timestamp.0);
        bytes.put_i64(lease_end.unwrap_or(Timestamp::MIN).0);
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

pub(crate) fn encode_control(control: &Control) -> Vec<u8> {
    let mut bytes = vec![CONTROL];
    minicbor::encode(control, &mut bytes).expect("writing to memory does not fail");
    bytes
}

pub(crate) fn decode(mut bytes: Bytes) -> Option<Command> {
    match bytes.try_get_u8().ok()? {
        WRITE => decode_write(bytes).map(Command::Write),
        CONTROL => minicbor::decode(&bytes).ok().map(Command::Control),
        _ => None,
    }
}

fn decode_write(mut bytes: Bytes) -> Option<Write> {
    let epoch = LeaseEpoch(bytes.try_get_u64().ok()?);
    let id = CommandId {
        node: NodeId(bytes.try_get_u64().ok()?),
        incarnation: Incarnation(bytes.try_get_u64().ok()?),
        request: RequestId(bytes.try_get_u64().ok()?),
    };
    let timestamp = Timestamp(bytes.try_get_i64().ok()?);
    let lease_end = Timestamp(bytes.try_get_i64().ok()?);
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
    bytes.is_empty().then_some(Write {
        epoch,
        id,
        timestamp,
        lease_end: (lease_end != Timestamp::MIN).then_some(lease_end),
        rows,
    })
}

fn take(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u32().ok()? as usize;
    (bytes.len() >= length).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_read_back_and_torn_ones_do_not() {
        let id = CommandId {
            node: NodeId(1),
            incarnation: Incarnation(2),
            request: RequestId(3),
        };
        let mut encoder = WriteEncoder::new(LeaseEpoch(4), id, Timestamp(-5), None);
        encoder.row(b"a", Some(b"row"));
        encoder.row(b"b", None);
        let bytes = Bytes::from(encoder.finish());
        let write = Write {
            epoch: LeaseEpoch(4),
            id,
            timestamp: Timestamp(-5),
            lease_end: None,
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
