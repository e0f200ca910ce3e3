//! Paging states: opaque to clients, checked like any input when they come back.
//!
//! ```text
//! version 2 · table uuid 16 · rows left 4 (all ones: no limit) · rows left in the partition 4 · position length 4 ·
//! position · partition length 4 · partition
//! ```
//!
//! The position is the key at which reading goes on: inclusive when forward, exclusive when backward. The
//! partition is the header's key of the last row, for limits per partition. The table is known by its uuid, which
//! outlives a TRUNCATE: who is in the midst of a table then finds nothing more.

use crate::error::Error;
use crate::protocol::wire::Reader;

const VERSION: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagingState {
    pub table: [u8; 16],
    pub rows_left: u32,
    pub partition_rows_left: u32,
    pub position: Vec<u8>,
    pub partition: Vec<u8>,
}

impl PagingState {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(33 + self.position.len() + self.partition.len());
        out.push(VERSION);
        out.extend_from_slice(&self.table);
        out.extend_from_slice(&self.rows_left.to_be_bytes());
        out.extend_from_slice(&self.partition_rows_left.to_be_bytes());
        for bytes in [&self.position, &self.partition] {
            out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    pub fn decode(bytes: &[u8], table: [u8; 16]) -> Result<PagingState, Error> {
        let bad = || Error::protocol("Invalid value for the paging state");
        let mut reader = Reader::new(bytes);
        let read = |reader: &mut Reader<'_>| -> Result<PagingState, Error> {
            if reader.byte()? != VERSION {
                return Err(bad());
            }
            let state = PagingState {
                table: reader.take(16)?.try_into().map_err(|_| bad())?,
                rows_left: reader.int()? as u32,
                partition_rows_left: reader.int()? as u32,
                position: reader.bytes()?.ok_or_else(bad)?.to_vec(),
                partition: reader.bytes()?.ok_or_else(bad)?.to_vec(),
            };
            if reader.remaining() > 0 || state.table != table {
                return Err(bad());
            }
            Ok(state)
        };
        read(&mut reader).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_nothing_else() {
        let state = PagingState {
            table: [7; 16],
            rows_left: u32::MAX,
            partition_rows_left: 3,
            position: vec![1, 2, 3],
            partition: vec![],
        };
        let bytes = state.encode();
        assert_eq!(PagingState::decode(&bytes, [7; 16]).unwrap(), state);
        PagingState::decode(&bytes, [8; 16]).unwrap_err();
        for length in 0..bytes.len() {
            PagingState::decode(&bytes[..length], [7; 16]).unwrap_err();
        }
        let longer = [&bytes[..], &[0]].concat();
        PagingState::decode(&longer, [7; 16]).unwrap_err();
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_states_are_read_or_refused(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120),
        ) {
            if let Ok(state) = PagingState::decode(&bytes, [7; 16]) {
                assert_eq!(state.encode(), bytes);
            }
        }
    }
}
