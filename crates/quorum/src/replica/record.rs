//! The log entry of an eventual replica, as bytes (docs/formats/eventual-log.md):
//!
//! ```text
//! version 0x01 · count (u32) · count × [ key length (u32) · key · row length (u32) · row ]
//! ```
//!
//! Integers are little-endian. Checksums are the log's.

use crate::message::RawRow;
use bytes::Bytes;

const VERSION: u8 = 1;

pub(super) fn encode(deltas: &[RawRow]) -> Bytes {
    let size: usize = deltas
        .iter()
        .map(|delta| 8 + delta.key.len() + delta.row.len())
        .sum();
    let mut bytes = Vec::with_capacity(5 + size);
    bytes.push(VERSION);
    bytes.extend_from_slice(&(deltas.len() as u32).to_le_bytes());
    for delta in deltas {
        for part in [&delta.key, &delta.row] {
            bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    bytes.into()
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<RawRow>, String> {
    let malformed = || "a log entry of an eventual replica is malformed".to_string();
    let (version, rest) = bytes.split_first().ok_or_else(malformed)?;
    if *version != VERSION {
        return Err(format!("a log entry has the unknown version {version}"));
    }
    let mut rest = rest;
    let count = take_u32(&mut rest).ok_or_else(malformed)?;
    let mut deltas = Vec::new();
    for _ in 0..count {
        deltas.push(RawRow {
            key: take_bytes(&mut rest).ok_or_else(malformed)?,
            row: take_bytes(&mut rest).ok_or_else(malformed)?,
        });
    }
    if rest.is_empty() {
        Ok(deltas)
    } else {
        Err(malformed())
    }
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

    #[test]
    fn records_survive_and_damage_is_noticed() {
        let deltas = vec![
            RawRow {
                key: b"key".to_vec(),
                row: b"row".to_vec(),
            },
            RawRow::default(),
        ];
        let bytes = encode(&deltas);
        assert_eq!(decode(&bytes).unwrap(), deltas);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err());
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(decode(&longer).is_err());
        longer[0] = 9;
        assert!(decode(&longer).unwrap_err().contains("version 9"));
        assert!(decode(&[1, 255, 255, 255, 255]).is_err());
    }
}
