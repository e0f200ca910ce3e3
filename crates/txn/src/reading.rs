//! One read of one tablet at one timestamp: which rows, in which order, and where the next page begins.

use crate::request::TabletRead;
use crate::versions::{Version, View, behind};
use api::{Direction, Error, KeyRange, Projection, ReadResponse, ReadRow, Selection};
use catalog::Table;
use model::Row;
use model::key::HEADER;

/// An answer's size, whatever the request says.
const SIZE_BYTES_MAX: u64 = 16 << 20;
/// Rows read at a time where no limit says less.
const ROWS_AT_A_TIME: usize = 128;

pub(crate) struct Reading<'a> {
    view: &'a View,
    table: &'a Table,
    request: &'a TabletRead,
    now_seconds: i64,
    rows: Vec<ReadRow>,
    count: u32,
    size_bytes: u64,
    /// The last one put into a backward answer.
    shown_header: Option<Vec<u8>>,
}

impl<'a> Reading<'a> {
    pub fn new(
        view: &'a View,
        table: &'a Table,
        request: &'a TabletRead,
        now_seconds: i64,
    ) -> Reading<'a> {
        Reading {
            view,
            table,
            request,
            now_seconds,
            rows: Vec::new(),
            count: 0,
            size_bytes: 0,
            shown_header: None,
        }
    }

    pub fn run(mut self) -> Result<ReadResponse, Error> {
        let next = match &self.request.selection {
            Selection::Keys(keys) => self.keys(keys)?,
            Selection::Ranges(ranges) => self.ranges(ranges)?,
        };
        Ok(ReadResponse {
            rows: self.rows,
            next,
            timestamp: None,
            tombstones: 0,
        })
    }

    fn is_full(&self) -> bool {
        let is_at_limit = self
            .request
            .row_limit
            .is_some_and(|limit| self.count >= limit);
        let size_max = u64::from(self.request.size_bytes_max).min(SIZE_BYTES_MAX);
        is_at_limit || self.size_bytes > size_max
    }

    fn keys(&mut self, keys: &[Vec<u8>]) -> Result<Option<Selection>, Error> {
        for (index, key) in keys.iter().enumerate() {
            if self.is_full() {
                return Ok(Some(Selection::Keys(keys[index..].to_vec())));
            }
            if let Some(version) = self.view.get(key)? {
                self.add(key.clone(), &version)?;
            }
        }
        Ok(None)
    }

    fn ranges(&mut self, ranges: &[KeyRange]) -> Result<Option<Selection>, Error> {
        let direction = self.request.direction;
        for (index, range) in ranges.iter().enumerate() {
            let mut rest = Some(range.clone());
            while let Some(range) = rest {
                let window = self.view.window(&range, direction, self.rows_wanted())?;
                let mut last: Option<Vec<u8>> = None;
                for (key, version) in window.rows {
                    if self.is_full() {
                        let left = match &last {
                            Some(last) => behind(&range, last, direction),
                            None => range.clone(),
                        };
                        return Ok(Some(next(left, &ranges[index + 1..])));
                    }
                    if self.is_wanted(&key) {
                        self.add(key.clone(), &version)?;
                    }
                    last = Some(key);
                }
                rest = window.rest;
                if self.is_full()
                    && let Some(left) = rest
                {
                    return Ok(Some(next(left, &ranges[index + 1..])));
                }
            }
            if self.is_full() && index + 1 < ranges.len() {
                return Ok(Some(Selection::Ranges(ranges[index + 1..].to_vec())));
            }
        }
        Ok(None)
    }

    fn rows_wanted(&self) -> usize {
        match self.request.row_limit {
            Some(limit) => (limit.saturating_sub(self.count) as usize + 1).min(ROWS_AT_A_TIME),
            None => ROWS_AT_A_TIME,
        }
    }

    fn is_header(&self, key: &[u8]) -> bool {
        key.last() == Some(&HEADER) && !self.table.owns_key(key)
    }

    fn is_wanted(&self, key: &[u8]) -> bool {
        match self.is_header(key) {
            true => self.request.headers && self.shown_header.as_deref() != Some(key),
            false => self.table.owns_key(key),
        }
    }

    fn add(&mut self, key: Vec<u8>, version: &Version) -> Result<(), Error> {
        let is_header = self.is_header(&key);
        let mut row = version.row()?;
        if !row.make_visible(None, self.now_seconds) {
            return Ok(());
        }
        if is_header && row.cells.is_empty() {
            return Ok(());
        }
        let is_backward = self.request.direction == Direction::Backward;
        if self.request.headers && is_backward && !is_header {
            self.show_header(&key)?;
        }
        if let Projection::Columns(columns) = &self.request.projection {
            row.cells.retain(|cell| columns.contains(&cell.column));
        }
        self.count += u32::from(!is_header);
        self.push(key, row);
        Ok(())
    }

    fn push(&mut self, key: Vec<u8>, row: Row) {
        self.size_bytes += (key.len() + row.to_bytes().len()) as u64;
        self.rows.push(ReadRow { key, row });
    }

    /// Backward, the header comes before the rows that it precedes in the store.
    fn show_header(&mut self, key: &[u8]) -> Result<(), Error> {
        let Some(header) = self.table.header_of(key) else {
            return Ok(());
        };
        if self.shown_header.as_ref() == Some(&header) {
            return Ok(());
        }
        self.shown_header = Some(header.clone());
        if let Some(version) = self.view.get(&header)? {
            let mut row = version.row()?;
            if row.make_visible(None, self.now_seconds) && !row.cells.is_empty() {
                if let Projection::Columns(columns) = &self.request.projection {
                    row.cells.retain(|cell| columns.contains(&cell.column));
                }
                self.push(header, row);
            }
        }
        Ok(())
    }
}

fn next(left: KeyRange, ranges: &[KeyRange]) -> Selection {
    let mut rest = vec![left];
    rest.extend_from_slice(ranges);
    Selection::Ranges(rest)
}
