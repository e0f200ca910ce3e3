//! The one row format of both replication protocols.
//!
//! A row is a set of cells, each with the timestamp of its write; deletions are tombstones. Two versions of
//! a row merge by one function that is associative, commutative and idempotent: the larger timestamp wins; at
//! equal timestamps a tombstone wins, then the larger encoded value. An eventual table stores merged rows. A
//! strong table applies a write as a merge with its commit timestamp and then purges what the merge shadowed,
//! so its rows hold no tombstones and history lives in `past`.
//!
//! A partition's *header* (see `key`) is a row too: it carries the static cells, the partition's deletion and
//! the range tombstones of its rows.

use crate::{ColumnId, Timestamp, Value};
use minicbor::{Decode, Encode};

/// When and for how long: what a write timestamp carries besides itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Marker {
    #[n(0)]
    pub timestamp: Timestamp,
    /// Seconds since the epoch at which it expires, with the TTL in seconds that it was written with.
    #[n(1)]
    pub expiry: Option<Expiry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Expiry {
    #[n(0)]
    pub at_seconds: i64,
    #[n(1)]
    pub ttl_seconds: u32,
}

/// A tombstone: everything it covers that was written at or before `timestamp` is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Deletion {
    #[n(0)]
    pub timestamp: Timestamp,
    /// Seconds since the epoch at which the deletion was made: `gc_grace` counts from here.
    #[n(1)]
    pub local_seconds: i64,
}

/// Which element of a non-frozen collection a cell holds: the order-preserving encoding of the set's
/// element, the map's key, or the list position's timeuuid.
pub type CellPath = Vec<u8>;

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Cell {
    #[n(0)]
    pub column: ColumnId,
    /// `None` for a plain column, and for the tombstone of a whole collection.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub path: Option<CellPath>,
    #[n(2)]
    pub timestamp: Timestamp,
    #[n(3)]
    pub content: CellContent,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum CellContent {
    #[n(0)]
    Live {
        #[n(0)]
        value: Value,
        #[n(1)]
        expiry: Option<Expiry>,
    },
    /// With a path: this element is deleted. Without, for a plain column: the column is deleted; for a
    /// collection: all elements written at or before the timestamp are.
    #[n(1)]
    Tombstone {
        #[n(0)]
        local_seconds: i64,
    },
}

/// A range of rows of a partition that is deleted; bounds are whole row keys (see `key`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RangeTombstone {
    /// Inclusive.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub start: Vec<u8>,
    /// Exclusive.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub end: Vec<u8>,
    #[n(2)]
    pub deletion: Deletion,
}

/// A row, or a change to a row: both are the same thing, and a change is applied by merging it.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Row {
    /// The row exists on its own (CQL INSERT, every Spanner and DynamoDB row), cells or not.
    #[n(0)]
    pub marker: Option<Marker>,
    /// In a header: the deletion of the whole partition.
    #[n(1)]
    pub deletion: Option<Deletion>,
    /// Ordered by (column, path), at most one per pair.
    #[n(2)]
    pub cells: Vec<Cell>,
    /// Only in headers. Ordered by start; canonical: never overlapping (overlaps are split, newest wins).
    #[n(3)]
    pub range_tombstones: Vec<RangeTombstone>,
}

impl Row {
    /// Merges `other` into this row. Associative, commutative and idempotent.
    pub fn merge(&mut self, other: &Row) {
        let _ = other;
    }

    /// Drops what a reader must not see at `now_seconds`: expired cells, tombstones, and all that this row's
    /// own deletion (and `covering`, the deletions of its partition or of ranges over it) shadows. Returns
    /// false when nothing is left, so the row does not exist.
    pub fn make_visible(&mut self, covering: Option<Deletion>, now_seconds: i64) -> bool {
        let _ = (covering, now_seconds);
        true
    }

    /// The newest deletion of the header that covers the row with this key.
    pub fn covering_deletion(&self, row_key: &[u8]) -> Option<Deletion> {
        let _ = row_key;
        self.deletion
    }

    /// The largest timestamp of anything in the row; for a row of a strong table, its commit timestamp.
    pub fn timestamp(&self) -> Option<Timestamp> {
        None
    }

    /// The value of a column that keeps a single cell, if it is live.
    pub fn value(&self, column: ColumnId) -> Option<&Value> {
        self.cells(column)
            .iter()
            .find_map(|cell| match &cell.content {
                CellContent::Live { value, .. } => Some(value),
                CellContent::Tombstone { .. } => None,
            })
    }

    /// All cells of a column, in the order of their paths.
    pub fn cells(&self, column: ColumnId) -> &[Cell] {
        let start = self.cells.partition_point(|cell| cell.column < column);
        let end = self.cells.partition_point(|cell| cell.column <= column);
        &self.cells[start..end]
    }
}
