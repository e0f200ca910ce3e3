//! Forgetting tombstones: a sweep looks through the store for what may go (see `grace`), a part at a time, and takes it
//! out by entries of the log like any other change, so that a replica's store stays the effect of its log.
//!
//! A *purge* is a change of one record: it says until when tombstones go, and what the partition's header shadows of
//! the row. A header goes behind all rows that it shadows, in one entry or a later one: in every state between, what
//! is deleted is deleted.

use super::repair::{HeaderOf, scan_end};
use super::{EventualReplica, Terms, broken};
use crate::message::{RawRow, ReplicaError};
use crate::partition::{Layout, decode_row, store_key};
use api::KeyRange;
use catalog::Durability;
use model::{Deletion, Row, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The first byte of a purge where a row has its format: until when (8) · timestamp of what covers the row (8).
const PURGE: u8 = 0x80;
const PURGE_BYTES: usize = 17;
/// A part of a sweep ends behind so much.
const SWEEP_BYTES_MAX: usize = 1 << 20;
const SWEEP_CHANGES_MAX: usize = 2_000;

/// How far a sweep has come.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// Keys below are done.
    from: Vec<u8>,
    /// The header of the partition that the next key may be in, which is to be purged behind its rows.
    header: Option<Vec<u8>>,
    /// What was looked through since the begin.
    pub scanned_bytes: u64,
    pub purged: u64,
}

pub(super) fn is_purge(delta: &RawRow) -> bool {
    delta.row.first() == Some(&PURGE)
}

fn purge_of(key: Vec<u8>, before_seconds: i64, covering: Option<Deletion>) -> RawRow {
    let covering = covering.map_or(Timestamp::MIN, |deletion| deletion.timestamp);
    let mut row = Vec::with_capacity(PURGE_BYTES);
    row.push(PURGE);
    row.extend_from_slice(&before_seconds.to_le_bytes());
    row.extend_from_slice(&covering.0.to_le_bytes());
    RawRow { key, row }
}

/// Applies a change to a row: merges it, or takes out what a purge says.
pub(super) fn change(row: &mut Row, delta: &RawRow) -> Result<(), String> {
    if !is_purge(delta) {
        row.merge(&decode_row(&delta.row)?);
        return Ok(());
    }
    let malformed = || "a purge is malformed".to_string();
    let rest = &delta.row[1..];
    let (before, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
    let covering = <[u8; 8]>::try_from(rest).map_err(|_| malformed())?;
    let covering = Deletion {
        timestamp: Timestamp(i64::from_le_bytes(covering)),
        local_seconds: 0,
    };
    if covering.timestamp > Timestamp::MIN {
        row.drop_covered(covering);
    }
    row.purge_tombstones(i64::from_le_bytes(*before));
    Ok(())
}

/// Whether a purge would change the record.
fn is_purgeable(row: &Row, before_seconds: i64, covering: Option<Deletion>) -> bool {
    let mut purged = row.clone();
    if let Some(covering) = covering {
        purged.drop_covered(covering);
    }
    purged.purge_tombstones(before_seconds);
    purged != *row
}

impl EventualReplica {
    /// Purges the next part of what this replica holds: tombstones made before so many seconds since 1970, and what
    /// headers shadow. `None` when the sweep is through.
    pub async fn sweep(
        self: &Arc<Self>,
        mut sweep: Sweep,
        before_seconds: i64,
    ) -> Result<Option<Sweep>, ReplicaError> {
        // Before anything is gone, so that whoever finds something missing knows why.
        self.purged_before
            .fetch_max(before_seconds, Ordering::AcqRel);
        let tablet = self.tablet();
        let (changes, next) = self.find_purgeable(&mut sweep, before_seconds, &tablet.range)?;
        let count = changes.len() as u64;
        if count > 0 {
            let terms = Terms {
                epoch: Some(tablet.epoch),
                expires: None,
            };
            match self.apply_under(terms, changes, Durability::Synced).await {
                Ok(()) => sweep.purged += count,
                // Another sweep will see to what is left here by then.
                Err(ReplicaError::StaleEpoch(_)) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(next.map(|from| Sweep { from, ..sweep }))
    }

    fn find_purgeable(
        &self,
        sweep: &mut Sweep,
        before_seconds: i64,
        range: &KeyRange,
    ) -> Result<(Vec<RawRow>, Option<Vec<u8>>), ReplicaError> {
        let snapshot = self.store.snapshot();
        let mut headers = HeaderOf::new(self, &snapshot);
        let mut changes = Vec::new();
        // What was repaired is the tablet's range: of what else lies here nothing is known.
        let from = sweep.from.as_slice().max(&range.start);
        let (start, end) = (store_key(from), scan_end(range));
        let mut size = 0;
        for item in self.store.scan(&start, Some(&end), &snapshot) {
            let (key, stored) = item.map_err(broken)?;
            let key = &key[1..];
            if size >= SWEEP_BYTES_MAX || changes.len() >= SWEEP_CHANGES_MAX {
                return Ok((changes, Some(key.to_vec())));
            }
            size += key.len() + stored.len();
            sweep.scanned_bytes += (key.len() + stored.len()) as u64;
            let row = decode_row(&stored).map_err(ReplicaError::Broken)?;
            let is_past_header = |header: &Vec<u8>| !Layout::is_in_partition(header, key);
            if let Some(header) = sweep.header.take_if(|header| is_past_header(header)) {
                changes.push(purge_of(header, before_seconds, None));
            }
            let covering = headers.covering(key)?;
            if !is_purgeable(&row, before_seconds, covering) {
                continue;
            }
            if self.layout.is_header(key) {
                sweep.header = Some(key.to_vec());
            } else {
                changes.push(purge_of(key.to_vec(), before_seconds, covering));
            }
        }
        if let Some(header) = sweep.header.take() {
            changes.push(purge_of(header, before_seconds, None));
        }
        Ok((changes, None))
    }
}
