//! Order-preserving keys: comparing encoded keys as bytes compares the values in their types' natural order.
//!
//! A component is encoded by its type and is self-delimiting; a descending one is complemented. A key of a
//! hash-partitioned table is
//!
//! ```text
//! token (8 bytes, i64 with the sign bit flipped) · partition columns · 0x10                        header
//! token (8 bytes, i64 with the sign bit flipped) · partition columns · 0x20 · clustering columns   row
//! ```
//!
//! and of a range-partitioned one, where an interleaved child's key extends its parent's,
//!
//! ```text
//! root's primary key · 0x20                                                                        row
//! root's primary key · 0x30 · child's table id (8 bytes) · the child's own columns · 0x20          child row
//! ```
//!
//! so a parent's row sorts before its children, and a partition's header before its rows.

use crate::{Type, Value};

/// Ends the key of a partition's header.
pub const HEADER: u8 = 0x10;
/// Comes before clustering columns, and ends the key of a row of a range-partitioned table.
pub const ROW: u8 = 0x20;
/// Comes before the table id of an interleaved child.
pub const CHILD: u8 = 0x30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Ascending,
    Descending,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a value of type {0:?} cannot be part of a key")]
    Unsupported(Type),
    #[error("the value does not have the key column's type {0:?}")]
    Mismatch(Type),
    #[error("a key ends in the middle of a component, or has bytes that no encoder writes")]
    Malformed,
}

/// Appends one component. `Value::Null` sorts first (last when descending).
pub fn encode(
    value: &Value,
    kind: &Type,
    direction: Direction,
    key: &mut Vec<u8>,
) -> Result<(), KeyError> {
    let _ = (value, direction, key);
    Err(KeyError::Unsupported(kind.clone()))
}

/// Reads one component from the front of `key` and returns it with what follows.
pub fn decode<'a>(
    key: &'a [u8],
    kind: &Type,
    direction: Direction,
) -> Result<(Value, &'a [u8]), KeyError> {
    let _ = (key, direction);
    Err(KeyError::Unsupported(kind.clone()))
}

/// The smallest byte string greater than every string that begins with `prefix`; `None` when there is none
/// (all bytes are 0xFF).
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(end);
        }
        end.pop();
    }
    None
}
