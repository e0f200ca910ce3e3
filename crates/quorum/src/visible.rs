//! From merged rows to what a reader may see. Pure.

use crate::merge::Merged;
use crate::partition::Layout;
use api::{Direction, KeyRange, Projection, ReadRow};
use catalog::Table;
use model::key::ROW;
use model::{Cell, CellContent, ColumnId, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// How rows are made ready for a reader.
pub(crate) struct View<'a> {
    pub layout: &'a Layout,
    pub projection: &'a Projection,
    pub now_seconds: i64,
    /// The columns that the table has; `None` when it has never lost one.
    pub columns: Option<BTreeSet<ColumnId>>,
    /// Counts what is dead of the rows that are looked at.
    pub tombstones: &'a AtomicU64,
}

/// Cells that are deleted or have expired; of a row without any, its deletion; ranges of a header.
fn count_tombstones(row: &Row, now_seconds: i64) -> u64 {
    let is_dead = |cell: &&Cell| match &cell.content {
        CellContent::Tombstone { .. } => true,
        CellContent::Live { expiry, .. } => {
            expiry.is_some_and(|expiry| expiry.at_seconds <= now_seconds)
        }
    };
    let cells = row.cells.iter().filter(is_dead).count();
    let is_gone = row.deletion.is_some() && row.marker.is_none() && row.cells.is_empty();
    (cells + usize::from(is_gone) + row.range_tombstones.len()) as u64
}

impl<'a> View<'a> {
    pub fn new(
        table: &Table,
        layout: &'a Layout,
        projection: &'a Projection,
        now_seconds: i64,
        tombstones: &'a AtomicU64,
    ) -> View<'a> {
        View {
            layout,
            projection,
            now_seconds,
            tombstones,
            columns: (!table.dropped.is_empty())
                .then(|| table.columns().iter().map(|column| column.id).collect()),
        }
    }

    /// The row without what the reader must not see; `None` when nothing is left of it.
    fn row(&self, key: Vec<u8>, mut row: Row, header: Option<&Row>) -> Option<ReadRow> {
        let dead = count_tombstones(&row, self.now_seconds);
        if dead > 0 {
            self.tombstones.fetch_add(dead, Ordering::Relaxed);
        }
        if let Some(columns) = &self.columns {
            row.cells.retain(|cell| columns.contains(&cell.column));
        }
        let covering = header.and_then(|header| header.covering_deletion(&key));
        if !row.make_visible(covering, self.now_seconds) {
            return None;
        }
        // Only now: a row exists by cells that the reader did not ask for, too.
        if let Projection::Columns(columns) = self.projection {
            row.cells.retain(|cell| columns.contains(&cell.column));
        }
        Some(ReadRow { key, row })
    }

    /// The visible rows and headers of a read by keys.
    pub fn by_key(&self, merged: Merged) -> BTreeMap<Vec<u8>, ReadRow> {
        let mut visible = BTreeMap::new();
        for (key, row) in merged.rows {
            let header = self.header_of(&key, &merged.headers);
            if let Some(read) = self.row(key.clone(), row, header) {
                visible.insert(key, read);
            }
        }
        for (key, header) in merged.headers {
            if let Some(read) = self.row(key.clone(), header, None) {
                visible.insert(key, read);
            }
        }
        visible
    }

    fn header_of<'m>(&self, key: &[u8], headers: &'m BTreeMap<Vec<u8>, Row>) -> Option<&'m Row> {
        if headers.is_empty() {
            return None;
        }
        headers.get(&self.layout.header_of(key)?)
    }

    /// The visible rows of a range, without headers.
    pub fn rows(&self, merged: Merged) -> Vec<ReadRow> {
        let Merged { headers, rows, .. } = merged;
        rows.into_iter()
            .filter_map(|(key, row)| {
                let header = self.header_of(&key, &headers);
                self.row(key, row, header)
            })
            .collect()
    }

    /// The visible rows of a range, each partition's header before them; a header without a row behind it as
    /// `is_shown_alone` says of `range`, the part of what the reader asked for that was looked through.
    pub fn rows_with_headers(
        &self,
        merged: Merged,
        range: &KeyRange,
        direction: Direction,
    ) -> Vec<ReadRow> {
        let mut headers = merged.headers.clone();
        let mut by_partition: BTreeMap<Vec<u8>, Vec<ReadRow>> = BTreeMap::new();
        for read in self.rows(merged) {
            if let Some(header) = self.layout.header_of(&read.key) {
                by_partition.entry(header).or_default().push(read);
            }
        }
        for header in headers.keys() {
            if is_shown_alone(header, range, direction) {
                by_partition.entry(header.clone()).or_default();
            }
        }
        let mut shown = Vec::new();
        let mut show = |(key, rows): (Vec<u8>, Vec<ReadRow>)| {
            if let Some(header) = headers.remove(&key) {
                shown.extend(self.row(key, header, None));
            }
            shown.extend(rows);
        };
        match direction {
            Direction::Forward => by_partition.into_iter().for_each(&mut show),
            Direction::Backward => by_partition.into_iter().rev().for_each(&mut show),
        }
        shown
    }
}

/// Forward, a header comes before all rows of its partition, in one part alone: whether there are any may only
/// turn out behind this part. Backward it comes last, and parts before this one may have shown rows, unless this one
/// holds the partition's rows to their end.
fn is_shown_alone(header: &[u8], range: &KeyRange, direction: Direction) -> bool {
    if !range.contains(header) {
        return false;
    }
    direction == Direction::Forward || {
        let mut rows = header.to_vec();
        if let Some(last) = rows.last_mut() {
            *last = ROW;
        }
        let rows_end = KeyRange::prefix(rows).end;
        match (&range.end, &rows_end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(end), Some(rows_end)) => end >= rows_end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{header_key, layout, row_key, static_delta, table};
    use crate::partition::decode_row;

    #[test]
    fn a_partition_without_rows_is_shown_once_wherever_its_read_is_cut() {
        let (table, layout, tombstones) = (table(), layout(), AtomicU64::new(0));
        let view = View::new(&table, &layout, &Projection::All, 0, &tombstones);
        let header = header_key(1);
        let mut rows = header.clone();
        *rows.last_mut().unwrap() = ROW;
        // As a door asks for one partition: its header and its rows, and not what lies behind them.
        let partition = KeyRange {
            start: header.clone(),
            end: KeyRange::prefix(rows).end,
        };
        let count = |range: &KeyRange, direction| {
            let row = decode_row(&static_delta(1, 10, 7).row).unwrap();
            let merged = Merged {
                headers: BTreeMap::from([(header.clone(), row)]),
                ..Merged::default()
            };
            view.rows_with_headers(merged, range, direction).len()
        };
        let (before, behind) = (
            KeyRange {
                end: Some(row_key(1, 5)),
                ..partition.clone()
            },
            KeyRange {
                start: row_key(1, 5),
                ..partition.clone()
            },
        );
        for direction in [Direction::Forward, Direction::Backward] {
            assert_eq!(count(&partition, direction), 1);
            assert_eq!(count(&KeyRange::all(), direction), 1);
            assert_eq!(count(&behind, direction), 0);
        }
        // Its rows, if there are any, are still to come, or may have been shown.
        assert_eq!(count(&before, Direction::Forward), 1);
        assert_eq!(count(&before, Direction::Backward), 0);
    }
}
