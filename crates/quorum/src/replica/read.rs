//! Pages of raw rows: what a replica has, tombstones included, and how far it has looked.

use super::{EventualReplica, broken};
use crate::message::{Covered, Digest, Page, RawRow, ReplicaError, ReplicaRead, ReplicaSelection};
use crate::partition::{Layout, decode_row, store_key};
use api::{Direction, KeyRange};
use model::{Cell, CellContent, Row, murmur3};
use std::sync::atomic::Ordering;
use world::planted::{self, Bug};
use world::{Kind, Snapshot};

/// A page ends after so many rows, visible or not.
const PAGE_ROWS_MAX: usize = 20_000;

impl Page {
    pub fn digest(&self) -> Digest {
        let content = (&self.headers, &self.rows, &self.covered);
        let mut bytes = minicbor::to_vec(content).expect("writing to memory does not fail");
        if planted::is(Bug::DigestIgnoresTombstones) {
            let live = self.rows.iter().filter(|raw| {
                decode_row(&raw.row).is_ok_and(|mut row| row.make_visible(None, i64::MIN))
            });
            bytes = minicbor::to_vec(live.collect::<Vec<_>>()).unwrap_or_default();
        }
        Digest(murmur3::token(&bytes) as u64)
    }
}

impl EventualReplica {
    pub fn read(&self, read: &ReplicaRead) -> Result<Page, ReplicaError> {
        let reader = Reader {
            replica: self,
            snapshot: self.store.snapshot(),
            read,
            has_headers: self.has_headers.load(Ordering::Acquire),
        };
        let page = match &read.rows {
            ReplicaSelection::Keys(keys) => reader.keys(keys),
            ReplicaSelection::Range { range, direction } => reader.range(range, *direction),
        };
        // Read behind the rows: what was purged meanwhile counts as purged.
        page.map(|page| Page {
            purged_before: self.purged_before(),
            ..page
        })
    }
}

struct Reader<'a> {
    replica: &'a EventualReplica,
    snapshot: Snapshot,
    read: &'a ReplicaRead,
    has_headers: bool,
}

/// The partition that a scan is in.
struct Partition {
    header_key: Vec<u8>,
    header: Option<Row>,
}

impl Reader<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<RawRow>, ReplicaError> {
        let row = self
            .replica
            .store
            .get(&store_key(key), &self.snapshot)
            .map_err(broken)?;
        Ok(row.map(|row| RawRow {
            key: key.to_vec(),
            row: row.to_vec(),
        }))
    }

    fn keys(&self, keys: &[Vec<u8>]) -> Result<Page, ReplicaError> {
        let mut page = Page::default();
        let mut size = 0;
        let mut partition: Option<Partition> = None;
        for (index, key) in keys.iter().enumerate() {
            if index > 0 && size >= self.read.size_bytes_max as usize {
                page.covered = Covered::Keys(index as u32);
                break;
            }
            if self.replica.layout.is_header(key) {
                if partition
                    .as_ref()
                    .is_none_or(|known| known.header_key != *key)
                {
                    partition = Some(self.enter(key.clone(), &mut page)?);
                }
                continue;
            }
            self.enter_partition_of(key, &mut partition, &mut page)?;
            let row = match self.get(key)? {
                Some(row) => normal(row, partition.as_ref())?,
                None => None,
            };
            if let Some(row) = row {
                size += row.size_bytes();
                page.rows.push(row);
            }
        }
        Ok(page)
    }

    fn range(&self, range: &KeyRange, direction: Direction) -> Result<Page, ReplicaError> {
        let mut page = Page::default();
        if range.is_empty() {
            return Ok(page);
        }
        let start = store_key(&range.start);
        let end = match &range.end {
            Some(end) => store_key(end),
            None => vec![Kind::Row as u8 + 1],
        };
        let store = &self.replica.store;
        let scan = match direction {
            Direction::Forward => store.scan(&start, Some(&end), &self.snapshot),
            Direction::Backward => store.scan_reversed(&start, Some(&end), &self.snapshot),
        };
        // The header of a partition in whose middle the range begins is not met by the scan.
        let outer = (self.has_headers)
            .then(|| self.replica.layout.header_of(&range.start))
            .flatten()
            .filter(|header| *header < range.start);
        let mut partition = None;
        if let (Direction::Forward, Some(header)) = (direction, &outer) {
            partition = Some(self.enter(header.clone(), &mut page)?);
        }
        let (mut size, mut visible) = (0, 0);
        for item in scan {
            let (stored_key, row) = item.map_err(broken)?;
            let raw = RawRow {
                key: stored_key[1..].to_vec(),
                row: row.to_vec(),
            };
            size += raw.size_bytes();
            if self.has_headers && self.replica.layout.is_header(&raw.key) {
                let is_known = partition
                    .as_ref()
                    .is_some_and(|partition| partition.header_key == raw.key);
                if is_known {
                    continue;
                }
                let is_full = page.headers.len() >= PAGE_ROWS_MAX;
                if is_full
                    || (size >= self.read.size_bytes_max as usize && !page.headers.is_empty())
                {
                    // Never between a header and its rows: a header without rows is a partition without rows.
                    page.covered = Covered::To(before_partition(raw.key, direction));
                    break;
                }
                self.meet_header(raw, &mut partition, &mut page)?;
                continue;
            }
            let key = raw.key.clone();
            self.enter_partition_of(&key, &mut partition, &mut page)?;
            if let Some(raw) = normal(raw, partition.as_ref())? {
                visible += u32::from(self.counts_as_visible(&raw, partition.as_ref())?);
                page.rows.push(raw);
            }
            if self.read.row_limit.is_some_and(|limit| visible >= limit)
                || size >= self.read.size_bytes_max as usize
                || page.rows.len() >= PAGE_ROWS_MAX
            {
                page.covered = Covered::To(match direction {
                    Direction::Forward => successor(key),
                    Direction::Backward => key,
                });
                break;
            }
        }
        if let (Direction::Backward, Covered::All, Some(header)) = (direction, &page.covered, outer)
            && partition.is_none_or(|partition| partition.header_key != header)
        {
            self.enter(header, &mut page)?;
        }
        page.headers.sort_by(|left, right| left.key.cmp(&right.key));
        Ok(page)
    }

    fn meet_header(
        &self,
        raw: RawRow,
        partition: &mut Option<Partition>,
        page: &mut Page,
    ) -> Result<(), ReplicaError> {
        *partition = Some(Partition {
            header_key: raw.key.clone(),
            header: Some(decode_row(&raw.row).map_err(ReplicaError::Broken)?),
        });
        page.headers.push(raw);
        Ok(())
    }

    fn enter_partition_of(
        &self,
        key: &[u8],
        partition: &mut Option<Partition>,
        page: &mut Page,
    ) -> Result<(), ReplicaError> {
        if !self.has_headers
            || partition
                .as_ref()
                .is_some_and(|partition| Layout::is_in_partition(&partition.header_key, key))
        {
            return Ok(());
        }
        *partition = match self.replica.layout.header_of(key) {
            Some(header) => Some(self.enter(header, page)?),
            None => None,
        };
        Ok(())
    }

    fn enter(&self, header_key: Vec<u8>, page: &mut Page) -> Result<Partition, ReplicaError> {
        let raw = self.get(&header_key)?;
        let header = match &raw {
            Some(raw) => Some(decode_row(&raw.row).map_err(ReplicaError::Broken)?),
            None => None,
        };
        page.headers.extend(raw);
        Ok(Partition { header_key, header })
    }

    /// Only asked for when it counts.
    fn counts_as_visible(
        &self,
        raw: &RawRow,
        partition: Option<&Partition>,
    ) -> Result<bool, ReplicaError> {
        if self.read.row_limit.is_none() {
            return Ok(false);
        }
        let mut row = decode_row(&raw.row).map_err(ReplicaError::Broken)?;
        let covering = partition
            .and_then(|partition| partition.header.as_ref())
            .and_then(|header| header.covering_deletion(&raw.key));
        Ok(row.make_visible(covering, self.read.now_seconds))
    }
}

/// The row without what its partition's header shadows: that is not shown to anybody, since the header may be forgotten
/// elsewhere when nothing is left that it shadows.
fn normal(mut raw: RawRow, partition: Option<&Partition>) -> Result<Option<RawRow>, ReplicaError> {
    if planted::is(Bug::ReplicaHidesCellTombstones) {
        let mut row = decode_row(&raw.row).map_err(ReplicaError::Broken)?;
        let is_live = |cell: &Cell| matches!(cell.content, CellContent::Live { .. });
        row.cells.retain(is_live);
        raw.row = row.to_bytes();
    }
    let covering = partition
        .and_then(|partition| partition.header.as_ref())
        .and_then(|header| header.covering_deletion(&raw.key));
    let Some(covering) = covering else {
        return Ok(Some(raw));
    };
    let mut row = decode_row(&raw.row).map_err(ReplicaError::Broken)?;
    let is_left = row.drop_covered(covering);
    Ok(is_left.then(|| RawRow {
        key: raw.key,
        row: row.to_bytes(),
    }))
}

impl RawRow {
    pub(crate) fn size_bytes(&self) -> usize {
        self.key.len() + self.row.len()
    }
}

/// The smallest key above this one.
pub(crate) fn successor(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// Where a page ends that has looked at everything in its direction before the partition of this header.
fn before_partition(header: Vec<u8>, direction: Direction) -> Vec<u8> {
    match direction {
        Direction::Forward => header,
        Direction::Backward => {
            let prefix = &header[..header.len().saturating_sub(1)];
            model::key::prefix_end(prefix).unwrap_or(header)
        }
    }
}
