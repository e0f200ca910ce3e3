//! Reads of rows by key and by key range.

use crate::{Locking, Patience, ReadBound};
use minicbor::{Decode, Encode};
use model::{ColumnId, Row, TableId, Timestamp};

#[derive(Clone, Debug, PartialEq)]
pub struct ReadRequest {
    pub table: TableId,
    pub selection: Selection,
    pub direction: Direction,
    pub projection: Projection,
    /// At most so many rows (headers do not count). The answer may hold fewer and still have a `next`.
    pub row_limit: Option<u32>,
    /// The answer ends behind the row that passes this size, counted as encoded. Never more than 16 MiB.
    pub size_bytes_max: u32,
    /// Ranges of a table with static columns: also return each partition's header, before its rows in
    /// either direction, when it has live static cells. An answer that goes on in the midst of a partition has the
    /// header again if it has more of its rows; forward, one that ends there may have the header and no row yet.
    pub headers: bool,
    pub bound: ReadBound,
    pub patience: Patience,
    /// Locks what is read, for a transaction on strong tables; the bound must be `Strong`.
    pub locking: Option<Locking>,
}

impl ReadRequest {
    /// A strong read of whole rows, forward, with no limit but the usual size.
    pub fn new(table: TableId, selection: Selection) -> ReadRequest {
        ReadRequest {
            table,
            selection,
            direction: Direction::Forward,
            projection: Projection::All,
            row_limit: None,
            size_bytes_max: 4 << 20,
            headers: false,
            bound: ReadBound::Strong,
            patience: Patience::default(),
            locking: None,
        }
    }
}

/// Keys as `catalog::Table` makes them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Selection {
    /// Rows (or headers) by key; the answer has those that exist, in this order.
    #[n(0)]
    Keys(#[cbor(n(0), with = "crate::write::byte_strings")] Vec<Vec<u8>>),
    /// Rows in ranges, in this order (each from its end when the direction is backward).
    #[n(1)]
    Ranges(#[n(0)] Vec<KeyRange>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct KeyRange {
    /// Inclusive.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub start: Vec<u8>,
    /// Exclusive; `None` is the end of the table.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: Vec<u8>) -> KeyRange {
        KeyRange {
            end: model::key::prefix_end(&prefix),
            start: prefix,
        }
    }

    pub fn all() -> KeyRange {
        KeyRange::default()
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_slice() <= key && self.end.as_deref().is_none_or(|end| key < end)
    }

    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    pub fn intersection(&self, other: &KeyRange) -> KeyRange {
        let end = match (&self.end, &other.end) {
            (Some(left), Some(right)) => Some(left.min(right).clone()),
            (left, right) => left.clone().or_else(|| right.clone()),
        };
        KeyRange {
            start: self.start.clone().max(other.start.clone()),
            end,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Direction {
    #[n(0)]
    Forward,
    #[n(1)]
    Backward,
}

/// Which cells an answer carries. Markers and timestamps are always there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Projection {
    #[n(0)]
    All,
    #[n(1)]
    Columns(#[n(0)] Vec<ColumnId>),
}

/// Rows as a reader may see them: no tombstones, nothing expired.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct ReadResponse {
    #[n(0)]
    pub rows: Vec<ReadRow>,
    /// More may follow: ask again with the same request, its selection replaced by this one.
    #[n(1)]
    pub next: Option<Selection>,
    /// The timestamp that the read was served at, on a strong table.
    #[n(2)]
    pub timestamp: Option<Timestamp>,
    /// Tombstones, and what has expired, that were looked at on an eventual table.
    #[n(3)]
    pub tombstones: u64,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct ReadRow {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: Vec<u8>,
    #[n(1)]
    pub row: Row,
}
