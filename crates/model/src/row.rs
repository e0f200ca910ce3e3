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
//!
//! A *normal* row has its cells and range tombstones in order, and holds nothing that its own tombstones shadow:
//!
//! * the deletion shadows the marker, all cells and the range tombstones at or before its timestamp;
//! * a cell without a path shadows the cells with one, of its column, at or before its timestamp: the tombstone
//!   of a collection, or a write of a column as a whole.
//!
//! Whatever is merged, the result is normal; so dropping what is shadowed early loses nothing, since what shadows
//! it stays or gives way to something that shadows more.

use crate::planted::{self, Bug};
use crate::{ColumnId, Timestamp, Value};
use minicbor::{Decode, Encode};
use std::cmp::Ordering;

pub use crate::row_codec::RowError;

/// When and for how long: what a write timestamp carries besides itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
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

impl RangeTombstone {
    /// Whether the other one follows in canonical order: behind this one, and not a mere continuation of it.
    pub(crate) fn is_before(&self, other: &RangeTombstone) -> bool {
        self.end < other.start || (self.end == other.start && self.deletion != other.deletion)
    }
}

impl Row {
    /// Merges `other` into this row, which is normal then. Associative, commutative and idempotent.
    pub fn merge(&mut self, other: &Row) {
        self.marker = self.marker.max(other.marker);
        self.deletion = self.deletion.max(other.deletion);
        if !self.has_ordered_cells() {
            order_cells(&mut self.cells);
        }
        if other.has_ordered_cells() {
            merge_cells(&mut self.cells, &other.cells);
        } else {
            let mut cells = other.cells.clone();
            order_cells(&mut cells);
            merge_cells(&mut self.cells, &cells);
        }
        if !other.range_tombstones.is_empty() || !self.range_tombstones.is_empty() {
            self.range_tombstones
                .extend_from_slice(&other.range_tombstones);
            self.drop_shadowed_range_tombstones();
            canonicalise(&mut self.range_tombstones);
        }
        self.drop_shadowed();
    }

    /// Applies a change of a strong table: merges it, then drops all tombstones, since nothing older can
    /// arrive any more. Returns false when nothing is left, so the row does not exist.
    pub fn apply_strong(&mut self, change: &Row) -> bool {
        self.merge(change);
        self.deletion = None;
        self.range_tombstones.clear();
        self.cells
            .retain(|cell| matches!(cell.content, CellContent::Live { .. }));
        self.exists()
    }

    /// Gives everything that was written at one timestamp another one: a row that was made for a commit at `from`,
    /// which is made at `to`.
    pub fn restamp(&mut self, from: Timestamp, to: Timestamp) {
        let restamped = |timestamp: &mut Timestamp| {
            if *timestamp == from {
                *timestamp = to;
            }
        };
        if let Some(marker) = &mut self.marker {
            restamped(&mut marker.timestamp);
        }
        if let Some(deletion) = &mut self.deletion {
            restamped(&mut deletion.timestamp);
        }
        for cell in &mut self.cells {
            restamped(&mut cell.timestamp);
        }
        for range in &mut self.range_tombstones {
            restamped(&mut range.deletion.timestamp);
        }
    }

    /// Drops what a reader must not see at `now_seconds`: expired cells, tombstones, and all that this row's
    /// own deletion (and `covering`, the deletions of its partition or of ranges over it) shadows. Returns
    /// false when nothing is left, so the row does not exist. A header's `covering_deletion` must be asked before.
    pub fn make_visible(&mut self, covering: Option<Deletion>, now_seconds: i64) -> bool {
        if !self.has_ordered_cells() {
            order_cells(&mut self.cells);
        }
        self.deletion = self.deletion.max(covering);
        self.drop_shadowed();
        self.deletion = None;
        self.range_tombstones.clear();
        let live = |expiry: &Option<Expiry>| {
            let is_over = expiry.is_some_and(|it| it.at_seconds <= now_seconds);
            !is_over || planted::is(Bug::ExpiredIsShown)
        };
        if self.marker.is_some_and(|marker| !live(&marker.expiry)) {
            self.marker = None;
        }
        self.cells.retain(
            |cell| matches!(&cell.content, CellContent::Live { expiry, .. } if live(expiry)),
        );
        self.exists()
    }

    /// Drops the tombstones that were made, and the cells that expired, before `before_seconds`: for a
    /// compaction that knows that nothing they shadow is left anywhere. Returns false when nothing is left.
    pub fn purge_tombstones(&mut self, before_seconds: i64) -> bool {
        let kept = |expiry: &Option<Expiry>| {
            expiry.is_none_or(|expiry| expiry.at_seconds >= before_seconds)
        };
        if self.marker.is_some_and(|marker| !kept(&marker.expiry)) {
            self.marker = None;
        }
        self.deletion
            .take_if(|deletion| deletion.local_seconds < before_seconds);
        self.cells.retain(|cell| match &cell.content {
            CellContent::Live { expiry, .. } => kept(expiry),
            CellContent::Tombstone { local_seconds } => *local_seconds >= before_seconds,
        });
        self.range_tombstones
            .retain(|range| range.deletion.local_seconds >= before_seconds);
        self.exists() || self.deletion.is_some() || !self.range_tombstones.is_empty()
    }

    /// Drops what a deletion of the row's partition, or of a range over it, shadows: also the row's own deletion, where
    /// it says nothing more. Returns false when nothing is left.
    pub fn drop_covered(&mut self, covering: Deletion) -> bool {
        let is_covered = |timestamp| shadows(covering.timestamp, timestamp);
        self.marker.take_if(|marker| is_covered(marker.timestamp));
        self.deletion
            .take_if(|deletion| is_covered(deletion.timestamp));
        self.cells.retain(|cell| !is_covered(cell.timestamp));
        !self.is_empty()
    }

    /// The newest deletion of the header that covers the row with this key.
    pub fn covering_deletion(&self, row_key: &[u8]) -> Option<Deletion> {
        let after = self
            .range_tombstones
            .partition_point(|range| range.start.as_slice() <= row_key);
        let range = after
            .checked_sub(1)
            .map(|index| &self.range_tombstones[index])
            .filter(|range| row_key < range.end.as_slice())
            .map(|range| range.deletion);
        self.deletion.max(range)
    }

    /// The largest timestamp of anything in the row; for a row of a strong table, its commit timestamp.
    pub fn timestamp(&self) -> Option<Timestamp> {
        let marker = self.marker.map(|marker| marker.timestamp);
        let deletion = self.deletion.map(|deletion| deletion.timestamp);
        let cells = self.cells.iter().map(|cell| cell.timestamp).max();
        let ranges = self
            .range_tombstones
            .iter()
            .map(|range| range.deletion.timestamp)
            .max();
        marker.max(deletion).max(cells).max(ranges)
    }

    /// Whether there is neither a write nor a tombstone in it.
    pub fn is_empty(&self) -> bool {
        !self.exists() && self.deletion.is_none() && self.range_tombstones.is_empty()
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

    fn exists(&self) -> bool {
        self.marker.is_some() || !self.cells.is_empty()
    }

    /// When nothing is left of the row, in seconds since 1970, if all of it expires.
    pub fn expires_at(&self) -> Option<i64> {
        let marker = self.marker.map(|marker| marker.expiry);
        let cells = self.cells.iter().map(|cell| match &cell.content {
            CellContent::Live { expiry, .. } => *expiry,
            CellContent::Tombstone { .. } => None,
        });
        let mut last = None;
        for expiry in marker.into_iter().chain(cells) {
            last = last.max(Some(expiry?.at_seconds));
        }
        last
    }

    fn has_ordered_cells(&self) -> bool {
        self.cells
            .is_sorted_by(|left, right| position(left) < position(right))
    }

    pub(crate) fn is_ordered(&self) -> bool {
        let ranges = &self.range_tombstones;
        self.has_ordered_cells()
            && ranges.is_sorted_by(RangeTombstone::is_before)
            && ranges.iter().all(|range| range.start < range.end)
    }

    fn drop_shadowed(&mut self) {
        if let Some(deletion) = self.deletion {
            self.marker
                .take_if(|marker| shadows(deletion.timestamp, marker.timestamp));
            self.cells
                .retain(|cell| !shadows(deletion.timestamp, cell.timestamp));
        }
        self.drop_shadowed_range_tombstones();
        // A column's cell without a path comes first, so one pass does.
        let mut whole: Option<(ColumnId, Timestamp)> = None;
        self.cells.retain(|cell| match (&cell.path, whole) {
            (None, _) => {
                whole = Some((cell.column, cell.timestamp));
                true
            }
            (Some(_), Some((column, timestamp))) => {
                column != cell.column
                    || !shadows(timestamp, cell.timestamp)
                    || planted::is(Bug::OverwriteKeepsElements)
            }
            (Some(_), None) => true,
        });
    }

    fn drop_shadowed_range_tombstones(&mut self) {
        if let Some(deletion) = self.deletion {
            self.range_tombstones
                .retain(|range| range.deletion.timestamp > deletion.timestamp);
        }
    }
}

fn position(cell: &Cell) -> (ColumnId, Option<&[u8]>) {
    (cell.column, cell.path.as_deref())
}

/// Whether a tombstone shadows a write: also one of its own timestamp, which is how the two ways of ordering
/// them agree on every replica.
fn shadows(tombstone: Timestamp, write: Timestamp) -> bool {
    if planted::is(Bug::MergeForgetsTombstoneAtEqualTimestamp) {
        return write < tombstone;
    }
    write <= tombstone
}

/// Brings cells into order and keeps the winner of each position: for a change that was put together in any order.
fn order_cells(cells: &mut Vec<Cell>) {
    cells.sort_by(|left, right| {
        position(left)
            .cmp(&position(right))
            .then_with(|| precedence(right, left))
    });
    cells.dedup_by(|later, first| position(later) == position(first));
}

/// Merges `others` into `cells`; both are in order.
fn merge_cells(cells: &mut Vec<Cell>, others: &[Cell]) {
    if others.is_empty() {
        return;
    }
    let append_only = match (cells.last(), others.first()) {
        (Some(last), Some(first)) => position(last) < position(first),
        _ => true,
    };
    if append_only {
        cells.extend_from_slice(others);
        return;
    }
    let mine = std::mem::take(cells);
    cells.reserve(mine.len() + others.len());
    let mut others = others.iter().peekable();
    for cell in mine {
        while let Some(other) = others.next_if(|other| position(other) < position(&cell)) {
            cells.push(other.clone());
        }
        match others.next_if(|other| position(other) == position(&cell)) {
            Some(other) if precedence(other, &cell) == Ordering::Greater => {
                cells.push(other.clone());
            }
            _ => cells.push(cell),
        }
    }
    cells.extend(others.cloned());
}

/// Which of two cells of one position wins: the greater. Equal only if they are the same.
fn precedence(left: &Cell, right: &Cell) -> Ordering {
    left.timestamp
        .cmp(&right.timestamp)
        .then_with(|| match (&left.content, &right.content) {
            (
                CellContent::Tombstone { local_seconds },
                CellContent::Tombstone {
                    local_seconds: other,
                },
            ) => local_seconds.cmp(other),
            (CellContent::Tombstone { .. }, CellContent::Live { .. }) => tombstone_first(),
            (CellContent::Live { .. }, CellContent::Tombstone { .. }) => {
                tombstone_first().reverse()
            }
            (
                CellContent::Live { value, expiry },
                CellContent::Live {
                    value: other,
                    expiry: other_expiry,
                },
            ) if !planted::is(Bug::FirstOfEqualTimestampsWins) => {
                compare_encoded(value, other).then(expiry.cmp(other_expiry))
            }
            (CellContent::Live { .. }, CellContent::Live { .. }) => Ordering::Less,
        })
}

fn tombstone_first() -> Ordering {
    if planted::is(Bug::MergeForgetsTombstoneAtEqualTimestamp) {
        Ordering::Less
    } else {
        Ordering::Greater
    }
}

/// A total order of values by their bytes, the same on all nodes. The usual types need no encoding for it.
fn compare_encoded(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => (*left as u64).cmp(&(*right as u64)),
        (Value::Text(left), Value::Text(right)) => left.cmp(right),
        (Value::Bytes(left), Value::Bytes(right)) => left.cmp(right),
        (Value::Uuid(left), Value::Uuid(right)) => left.cmp(right),
        _ => {
            let encode = |value| {
                let mut bytes = Vec::new();
                crate::row_codec::put_value(value, &mut bytes);
                bytes
            };
            encode(left).cmp(&encode(right))
        }
    }
}

/// Splits overlapping ranges so that each point is covered by the newest deletion only, and joins neighbours
/// of one deletion.
fn canonicalise(ranges: &mut Vec<RangeTombstone>) {
    ranges.retain(|range| range.start < range.end);
    if ranges.is_sorted_by(RangeTombstone::is_before) {
        return;
    }
    // Every bound cuts; between two cuts the newest of the ranges that are open there holds. Open ranges are
    // kept by deletion with a count each, so this is n log n.
    let mut events: Vec<(&[u8], bool, Deletion)> = Vec::with_capacity(ranges.len() * 2);
    for range in ranges.iter() {
        events.push((&range.start, true, range.deletion));
        events.push((&range.end, false, range.deletion));
    }
    events.sort_unstable_by_key(|(bound, ..)| *bound);
    let mut open: std::collections::BTreeMap<Deletion, usize> = Default::default();
    let mut result: Vec<RangeTombstone> = Vec::new();
    let mut current: Option<(&[u8], Deletion)> = None;
    let mut index = 0;
    while index < events.len() {
        let bound = events[index].0;
        // Opens before it closes, so that no count falls below zero, whatever the sort left first.
        let same = events[index..].partition_point(|(other, ..)| *other == bound);
        for (_, _, deletion) in events[index..index + same].iter().filter(|event| event.1) {
            *open.entry(*deletion).or_default() += 1;
        }
        for (_, _, deletion) in events[index..index + same].iter().filter(|event| !event.1) {
            if let Some(count) = open.get_mut(deletion) {
                *count -= 1;
                if *count == 0 {
                    open.remove(deletion);
                }
            }
        }
        index += same;
        let newest = match planted::is(Bug::OlderRangeWins) {
            true => open.first_key_value(),
            false => open.last_key_value(),
        };
        let newest = newest.map(|(deletion, _)| *deletion);
        if newest == current.map(|(_, deletion)| deletion) {
            continue;
        }
        if let Some((start, deletion)) = current {
            result.push(RangeTombstone {
                start: start.to_vec(),
                end: bound.to_vec(),
                deletion,
            });
        }
        current = newest.map(|deletion| (bound, deletion));
    }
    *ranges = result;
}
