//! The log entry of an eventual replica, as bytes (docs/formats/eventual-log.md):
//!
//! ```text
//! version 0x01 · count (u32) · count × [ key length (u32) · key · row length (u32) · row ]
//! version 0x02 · as version 1 · count (u32) · count × [ partition length (u32) · partition · length (u32) · state ]
//! ```
//!
//! Integers are little-endian. Checksums are the log's. Entries without Paxos states are of version 1.

use crate::message::RawRow;
use crate::paxos::RawState;
use bytes::Bytes;

const ROWS: u8 = 1;
const ROWS_AND_STATES: u8 = 2;

/// What one entry changes: rows are merged, partitions' Paxos states replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub deltas: Vec<RawRow>,
    pub states: Vec<RawState>,
}

impl Record {
    pub fn of(deltas: Vec<RawRow>) -> Record {
        Record {
            deltas,
            states: Vec::new(),
        }
    }

    pub fn encode(&self) -> Bytes {
        let rows = self.deltas.iter().map(|delta| (&delta.key, &delta.row));
        let states = self.states.iter();
        let states = states.map(|state| (&state.partition, &state.state));
        let size = |(key, value): (&Vec<u8>, &Vec<u8>)| 8 + key.len() + value.len();
        let sizes: usize = rows.clone().chain(states.clone()).map(size).sum();
        let mut bytes = Vec::with_capacity(9 + sizes);
        bytes.push(if self.states.is_empty() {
            ROWS
        } else {
            ROWS_AND_STATES
        });
        put_pairs(&mut bytes, self.deltas.len(), rows);
        if !self.states.is_empty() {
            put_pairs(&mut bytes, self.states.len(), states);
        }
        bytes.into()
    }
}

fn put_pairs<'a>(
    bytes: &mut Vec<u8>,
    count: usize,
    pairs: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
) {
    bytes.extend_from_slice(&(count as u32).to_le_bytes());
    for (key, value) in pairs {
        for part in [key, value] {
            bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Record, String> {
    let malformed = || "a log entry of an eventual replica is malformed".to_string();
    let (version, rest) = bytes.split_first().ok_or_else(malformed)?;
    if ![ROWS, ROWS_AND_STATES].contains(version) {
        return Err(format!("a log entry has the unknown version {version}"));
    }
    let mut rest = rest;
    let mut record = Record::default();
    for (key, row) in take_pairs(&mut rest).ok_or_else(malformed)? {
        record.deltas.push(RawRow { key, row });
    }
    if *version == ROWS_AND_STATES {
        for (partition, state) in take_pairs(&mut rest).ok_or_else(malformed)? {
            record.states.push(RawState { partition, state });
        }
    }
    if rest.is_empty() {
        Ok(record)
    } else {
        Err(malformed())
    }
}

fn take_pairs(rest: &mut &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let count = take_u32(rest)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push((take_bytes(rest)?, take_bytes(rest)?));
    }
    Some(pairs)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_le_bytes(*head))
}

fn take_bytes(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = take_u32(rest)? as usize;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            for version in 1..=4 {
                if let Some(first) = bytes.first_mut() {
                    *first = version;
                }
                let _ = decode(&bytes);
            }
        }
    }

    #[test]
    fn records_survive_and_damage_is_noticed() {
        let deltas = vec![
            RawRow {
                key: b"key".to_vec(),
                row: b"row".to_vec(),
            },
            RawRow::default(),
        ];
        let states = vec![RawState {
            partition: b"partition".to_vec(),
            state: b"state".to_vec(),
        }];
        for record in [Record::of(deltas.clone()), Record { deltas, states }] {
            let bytes = record.encode();
            assert_eq!(decode(&bytes).unwrap(), record);
            for length in 0..bytes.len() {
                assert!(decode(&bytes[..length]).is_err());
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert!(decode(&longer).is_err());
            longer[0] = 9;
            assert!(decode(&longer).unwrap_err().contains("version 9"));
        }
        assert!(decode(&[1, 255, 255, 255, 255]).is_err());
        assert!(decode(&[2, 0, 0, 0, 0, 255, 255, 255, 255]).is_err());
    }
}
