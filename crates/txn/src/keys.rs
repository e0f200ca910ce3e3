//! Where a strong tablet keeps what, inside its store. The byte table is `docs/formats/strong-tablet.md`.

use crate::CommandId;
use api::KeyRange;
use model::{Incarnation, NodeId, RequestId, Timestamp};
use world::{Kind, past_suffix};

const LEASE: u8 = 1;
const RANGE: u8 = 2;
const COMMAND: u8 = 3;
const PREPARED: u8 = 4;
const DECISION: u8 = 5;
const ENDING: u8 = 6;
const DIVISION: u8 = 7;
const COMMIT: u8 = 8;
const REFUSAL: u8 = 9;

pub(crate) fn row(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 1);
    stored.push(Kind::Row as u8);
    stored.extend_from_slice(key);
    stored
}

/// The first key behind all rows.
pub(crate) fn rows_end() -> Vec<u8> {
    vec![Kind::Row as u8 + 1]
}

/// Escaped, so that one row's versions are together whatever other keys it is a prefix of: 0x00 becomes 0x00 0xFF,
/// and 0x00 0x01 ends the key. Order is kept.
fn escaped(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 16);
    stored.push(Kind::Past as u8);
    for byte in key {
        stored.push(*byte);
        if *byte == 0 {
            stored.push(0xFF);
        }
    }
    stored
}

/// What the keys of all older versions of a row begin with.
pub(crate) fn past_prefix(key: &[u8]) -> Vec<u8> {
    let mut stored = escaped(key);
    stored.extend_from_slice(&[0, 1]);
    stored
}

pub(crate) fn past(key: &[u8], superseded_at: Timestamp) -> Vec<u8> {
    let mut stored = past_prefix(key);
    stored.extend_from_slice(&past_suffix(superseded_at.0));
    stored
}

/// Below the older versions of all rows at or above this key, above those of all rows below it.
pub(crate) fn past_bound(key: &[u8]) -> Vec<u8> {
    escaped(key)
}

pub(crate) fn past_end() -> Vec<u8> {
    vec![Kind::Past as u8 + 1]
}

/// The row's key and when the version was superseded.
pub(crate) fn decode_past(stored: &[u8]) -> Option<(Vec<u8>, Timestamp)> {
    let superseded_at = world::past_superseded_at(stored)?;
    let escaped = stored.get(1..stored.len() - 8)?.strip_suffix(&[0, 1])?;
    let mut key = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(byte) = bytes.next() {
        key.push(*byte);
        if *byte == 0 && bytes.next() != Some(&0xFF) {
            return None;
        }
    }
    Some((key, Timestamp(superseded_at)))
}

pub(crate) fn lease() -> Vec<u8> {
    vec![Kind::State as u8, LEASE]
}

pub(crate) fn range() -> Vec<u8> {
    vec![Kind::State as u8, RANGE]
}

/// The last split, until its right half lives on its own.
pub(crate) fn division() -> Vec<u8> {
    vec![Kind::State as u8, DIVISION]
}

/// Where rows and older versions lie of keys outside of a range.
pub(crate) fn spans_outside(range: &KeyRange) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut spans = vec![
        (row(&[]), row(&range.start)),
        (past_bound(&[]), past_bound(&range.start)),
    ];
    if let Some(end) = &range.end {
        spans.push((row(end), rows_end()));
        spans.push((past_bound(end), past_end()));
    }
    spans.retain(|(start, end)| start < end);
    spans
}

/// The command that committed then. In the order of their timestamps.
pub(crate) fn command(timestamp: Timestamp, id: CommandId) -> Vec<u8> {
    let mut stored = Vec::with_capacity(34);
    stored.extend_from_slice(&[Kind::State as u8, COMMAND]);
    stored.extend_from_slice(&past_suffix(timestamp.0));
    put_id(&mut stored, id);
    stored
}

pub(crate) fn commands() -> (Vec<u8>, Vec<u8>) {
    let start = vec![Kind::State as u8, COMMAND];
    let end = vec![Kind::State as u8, COMMAND + 1];
    (start, end)
}

pub(crate) fn decode_command(stored: &[u8]) -> Option<(Timestamp, CommandId)> {
    let fields = stored.strip_prefix(&[Kind::State as u8, COMMAND])?;
    decode_timed(fields)
}

/// A transaction's share that is prepared: the command that did it.
pub(crate) fn prepared(id: CommandId) -> Vec<u8> {
    let mut stored = vec![Kind::State as u8, PREPARED];
    put_id(&mut stored, id);
    stored
}

pub(crate) fn all_prepared() -> (Vec<u8>, Vec<u8>) {
    let start = vec![Kind::State as u8, PREPARED];
    let end = vec![Kind::State as u8, PREPARED + 1];
    (start, end)
}

/// A decision that some participants may not know yet.
pub(crate) fn decision(id: CommandId) -> Vec<u8> {
    let mut stored = vec![Kind::State as u8, DECISION];
    put_id(&mut stored, id);
    stored
}

pub(crate) fn decisions() -> (Vec<u8>, Vec<u8>) {
    let start = vec![Kind::State as u8, DECISION];
    let end = vec![Kind::State as u8, DECISION + 1];
    (start, end)
}

pub(crate) fn decode_decision(stored: &[u8]) -> Option<CommandId> {
    let fields = stored.strip_prefix(&[Kind::State as u8, DECISION])?;
    decode_id(fields)
}

/// How a transaction that had a share here ended, by when.
pub(crate) fn ending(timestamp: Timestamp, id: CommandId) -> Vec<u8> {
    let mut stored = Vec::with_capacity(34);
    stored.extend_from_slice(&[Kind::State as u8, ENDING]);
    stored.extend_from_slice(&past_suffix(timestamp.0));
    put_id(&mut stored, id);
    stored
}

pub(crate) fn endings() -> (Vec<u8>, Vec<u8>) {
    let start = vec![Kind::State as u8, ENDING];
    let end = vec![Kind::State as u8, ENDING + 1];
    (start, end)
}

pub(crate) fn decode_ending(stored: &[u8]) -> Option<(Timestamp, CommandId)> {
    let fields = stored.strip_prefix(&[Kind::State as u8, ENDING])?;
    decode_timed(fields)
}

/// A transaction whose outcome is kept was committed here then.
pub(crate) fn commit(timestamp: Timestamp, id: CommandId) -> Vec<u8> {
    let mut stored = Vec::with_capacity(34);
    stored.extend_from_slice(&[Kind::State as u8, COMMIT]);
    stored.extend_from_slice(&past_suffix(timestamp.0));
    put_id(&mut stored, id);
    stored
}

pub(crate) fn commits() -> (Vec<u8>, Vec<u8>) {
    let start = vec![Kind::State as u8, COMMIT];
    let end = vec![Kind::State as u8, COMMIT + 1];
    (start, end)
}

pub(crate) fn decode_commit(stored: &[u8]) -> Option<(Timestamp, CommandId)> {
    let fields = stored.strip_prefix(&[Kind::State as u8, COMMIT])?;
    decode_timed(fields)
}

/// A transaction that will not be committed here.
pub(crate) fn refusal(id: CommandId) -> Vec<u8> {
    let mut stored = vec![Kind::State as u8, REFUSAL];
    put_id(&mut stored, id);
    stored
}

pub(crate) fn refusals() -> (Vec<u8>, Vec<u8>) {
    let start = vec![Kind::State as u8, REFUSAL];
    let end = vec![Kind::State as u8, REFUSAL + 1];
    (start, end)
}

pub(crate) fn decode_refusal(stored: &[u8]) -> Option<CommandId> {
    let fields = stored.strip_prefix(&[Kind::State as u8, REFUSAL])?;
    decode_id(fields)
}

fn put_id(stored: &mut Vec<u8>, id: CommandId) {
    stored.extend_from_slice(&id.node.0.to_be_bytes());
    stored.extend_from_slice(&id.incarnation.0.to_be_bytes());
    stored.extend_from_slice(&id.request.0.to_be_bytes());
}

fn decode_id(fields: &[u8]) -> Option<CommandId> {
    let (node, fields) = fields.split_first_chunk::<8>()?;
    let (incarnation, fields) = fields.split_first_chunk::<8>()?;
    let request: [u8; 8] = fields.try_into().ok()?;
    Some(CommandId {
        node: NodeId(u64::from_be_bytes(*node)),
        incarnation: Incarnation(u64::from_be_bytes(*incarnation)),
        request: RequestId(u64::from_be_bytes(request)),
    })
}

fn decode_timed(fields: &[u8]) -> Option<(Timestamp, CommandId)> {
    let (timestamp, fields) = fields.split_first_chunk::<8>()?;
    let timestamp = (u64::from_be_bytes(*timestamp) ^ (1 << 63)) as i64;
    Some((Timestamp(timestamp), decode_id(fields)?))
}

/// The smallest key above this one.
pub(crate) fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// A stored version: when it was committed, then the row.
pub(crate) fn version(timestamp: Timestamp, row: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(8 + row.len());
    stored.extend_from_slice(&timestamp.0.to_be_bytes());
    stored.extend_from_slice(row);
    stored
}

pub(crate) fn decode_version(stored: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (timestamp, row) = stored.split_first_chunk::<8>()?;
    Some((Timestamp(i64::from_be_bytes(*timestamp)), row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_keys_sort_by_row_then_time_and_read_back() {
        let keys: [&[u8]; 7] = [b"", b"\0", b"\0\0", b"\0\x01", b"a", b"a\0", b"ab"];
        let mut stored = Vec::new();
        for key in keys {
            for timestamp in [-5, 0, 7] {
                let past = past(key, Timestamp(timestamp));
                let read = decode_past(&past).unwrap();
                assert_eq!(read, (key.to_vec(), Timestamp(timestamp)));
                stored.push(past);
            }
        }
        assert!(stored.is_sorted());
        for (index, key) in keys.iter().enumerate() {
            let bound = past_bound(key);
            assert!(stored[..index * 3].iter().all(|past| *past < bound));
            assert!(stored[index * 3..].iter().all(|past| *past >= bound));
            let prefix = past_prefix(key);
            let found = stored.iter().filter(|past| past.starts_with(&prefix));
            assert_eq!(found.count(), 3);
        }
    }

    #[test]
    fn what_lies_outside_of_a_range_is_in_its_spans() {
        let keys: [&[u8]; 8] = [b"", b"\0", b"a", b"a\0", b"a\0\0", b"ab", b"b", b"\xFF"];
        for start in keys {
            for end in keys.map(Some).into_iter().chain([None]) {
                let range = KeyRange {
                    start: start.to_vec(),
                    end: end.map(<[u8]>::to_vec),
                };
                if range.is_empty() {
                    continue;
                }
                let spans = spans_outside(&range);
                let is_in_spans = |stored: Vec<u8>| {
                    spans
                        .iter()
                        .any(|(start, end)| *start <= stored && stored < *end)
                };
                for key in keys {
                    assert_eq!(is_in_spans(row(key)), !range.contains(key));
                    let past = past(key, Timestamp(7));
                    assert_eq!(is_in_spans(past), !range.contains(key));
                }
            }
        }
    }

    #[test]
    fn commands_read_back() {
        let id = CommandId {
            node: NodeId(1),
            incarnation: Incarnation(2),
            request: RequestId(3),
        };
        let stored = command(Timestamp(9), id);
        assert_eq!(decode_command(&stored), Some((Timestamp(9), id)));
        assert_eq!(decode_command(&stored[1..]), None);
    }
}
