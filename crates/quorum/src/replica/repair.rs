//! A replica's part in repair: it hashes what it holds, and keeps note of what was repaired.
//!
//! The notes are a record of the replica's log, apart from its entries, so that they are durable before they count and
//! go with the log when the replica does.

use super::{EventualReplica, broken};
use crate::grace;
use crate::message::{RawRow, RepairReply, RepairRequest, ReplicaError, Reply};
use crate::partition::{Layout, decode_row, store_key};
use crate::repair::marks::Marks;
use crate::repair::tree::{Cutter, Hasher, Leaves, STEP_BYTES_MAX, Tree};
use api::KeyRange;
use bytes::Bytes;
use model::{Deletion, Row, Timestamp};
use std::sync::atomic::Ordering;
use world::planted::{self, Bug};
use world::{Kind, Log, LogBatch, LogId, LogOperation, Snapshot};

/// The log's record of what was repaired when.
const MARKS: &[u8] = b"repaired";

pub(super) fn marks(log: &dyn Log, log_id: LogId) -> Result<Marks, String> {
    match log.get(log_id, MARKS) {
        Some(record) => minicbor::decode(&record)
            .map_err(|error| format!("the record of repairs is malformed: {error}")),
        None => Ok(Marks::default()),
    }
}

/// The header of the partition that a forward scan is in.
pub(super) struct HeaderOf<'a> {
    replica: &'a EventualReplica,
    snapshot: &'a Snapshot,
    has_headers: bool,
    partition: Option<(Vec<u8>, Option<Row>)>,
}

impl<'a> HeaderOf<'a> {
    pub fn new(replica: &'a EventualReplica, snapshot: &'a Snapshot) -> HeaderOf<'a> {
        HeaderOf {
            replica,
            snapshot,
            has_headers: replica.has_headers.load(Ordering::Acquire),
            partition: None,
        }
    }

    /// The newest deletion that covers the row with this key, of its partition or of a range.
    pub fn covering(&mut self, key: &[u8]) -> Result<Option<Deletion>, ReplicaError> {
        if !self.has_headers || self.replica.layout.is_header(key) {
            return Ok(None);
        }
        let is_known = self
            .partition
            .as_ref()
            .is_some_and(|(header, _)| Layout::is_in_partition(header, key));
        if !is_known {
            self.partition = match self.replica.layout.header_of(key) {
                Some(header_key) => {
                    let store = &self.replica.store;
                    let raw = store
                        .get(&store_key(&header_key), self.snapshot)
                        .map_err(broken)?;
                    let header = raw.map(|raw| decode_row(&raw)).transpose();
                    Some((header_key, header.map_err(ReplicaError::Broken)?))
                }
                None => None,
            };
        }
        let header = self.partition.as_ref().and_then(|(_, row)| row.as_ref());
        Ok(header.and_then(|header| header.covering_deletion(key)))
    }
}

/// A row as it counts for others: without what its header shadows and what may be purged; `None` when nothing is left.
fn counted(
    stored: Bytes,
    covering: Option<Deletion>,
    purged_before: i64,
) -> Result<Option<Bytes>, ReplicaError> {
    if covering.is_none() && purged_before <= 0 {
        return Ok(Some(stored));
    }
    let mut row = decode_row(&stored).map_err(ReplicaError::Broken)?;
    if let Some(covering) = covering {
        row.drop_covered(covering);
    }
    let is_left = row.purge_tombstones(purged_before);
    Ok(is_left.then(|| row.to_bytes().into()))
}

impl EventualReplica {
    pub(super) async fn repair(&self, request: RepairRequest) -> Result<Reply, ReplicaError> {
        match request {
            RepairRequest::Begin => {
                self.settle_all().await?;
                Ok(Reply::Repair(RepairReply::Begun {
                    purged_before: self.purged_before(),
                }))
            }
            RepairRequest::Tree {
                leaves,
                purged_before,
                root,
            } => Ok(Reply::Repair(match self.tree(&leaves, purged_before)? {
                Ok(tree) if tree.root() == root => RepairReply::Same,
                Ok(tree) => RepairReply::Leaves(tree),
                Err(key) => RepairReply::Shorter(key),
            })),
            RepairRequest::Repaired { range, since } => {
                self.mark_repaired(&range, since).await?;
                Ok(Reply::Applied)
            }
        }
    }

    /// Waits until all that was appended so far is durable and can be read, whatever durability its table has: what a
    /// repair has seen here, a crash does not take back.
    async fn settle_all(&self) -> Result<(), ReplicaError> {
        let last = self.writer.lock().next_index - 1;
        self.log.write(LogBatch::default()).await.map_err(broken)?;
        self.fence.fetch_max(last, Ordering::AcqRel);
        self.settle().await
    }

    async fn mark_repaired(&self, range: &KeyRange, since: Timestamp) -> Result<(), ReplicaError> {
        let (marks, durable) = {
            // Records are written in the order in which they were changed.
            let mut marks = self.marks.lock();
            let mut newer = marks.clone();
            newer.add(range, since);
            let value = minicbor::to_vec(&newer).expect("writing to memory does not fail");
            let put = LogOperation::Put {
                log: self.log_id,
                key: MARKS.to_vec(),
                value: value.into(),
            };
            let operations = vec![put];
            let durable = self.log.write(LogBatch { operations });
            (std::mem::replace(&mut *marks, newer), durable)
        };
        drop(marks);
        durable.await.map_err(broken)
    }

    /// Since when all of this tablet has been repaired.
    pub fn repaired_since(&self) -> Option<Timestamp> {
        let range = self.tablet.read().range.clone();
        self.marks.lock().since(&range)
    }

    /// Since when all of a range has been repaired.
    pub fn range_repaired_since(&self, range: &KeyRange) -> Option<Timestamp> {
        self.marks.lock().since(range)
    }

    /// Tombstones made before so many seconds since 1970 may go now; `None`: none may.
    pub fn purgeable_before(&self, gc_grace_seconds: u32) -> Option<i64> {
        let now = Timestamp(self.clock.wall_micros());
        if planted::is(Bug::PurgeWithoutRepair) {
            return Some(grace::purgeable_before(
                Timestamp::MAX,
                now,
                gc_grace_seconds,
            ));
        }
        let repaired = self.repaired_since()?;
        Some(grace::purgeable_before(repaired, now, gc_grace_seconds))
    }

    pub fn purged_before(&self) -> i64 {
        self.purged_before.load(Ordering::Acquire)
    }

    /// Cuts the next step's leaves, by what this replica holds from `range`'s begin on. With their size.
    pub(crate) fn cut_leaves(&self, range: KeyRange) -> Result<(Leaves, usize), ReplicaError> {
        let snapshot = self.store.snapshot();
        let mut cutter = Cutter::new(range.clone());
        for item in self
            .store
            .scan(&store_key(&range.start), Some(&scan_end(&range)), &snapshot)
        {
            let (key, row) = item.map_err(broken)?;
            if !cutter.add(&key[1..], key.len() + row.len()) {
                break;
            }
        }
        Ok(cutter.finish())
    }

    /// The tree of these leaves, or the key at which they should end since there is too much here.
    pub(crate) fn tree(
        &self,
        leaves: &Leaves,
        purged_before: i64,
    ) -> Result<Result<Tree, Vec<u8>>, ReplicaError> {
        let snapshot = self.store.snapshot();
        let mut hasher = Hasher::new(leaves);
        let mut headers = HeaderOf::new(self, &snapshot);
        let range = &leaves.range;
        let mut size = 0;
        for item in self
            .store
            .scan(&store_key(&range.start), Some(&scan_end(range)), &snapshot)
        {
            let (key, row) = item.map_err(broken)?;
            let key = &key[1..];
            if size >= STEP_BYTES_MAX {
                return Ok(Err(key.to_vec()));
            }
            size += key.len() + row.len();
            let covering = headers.covering(key)?;
            let row = if planted::is(Bug::DigestIgnoresTombstones) {
                counted(row, covering, i64::MAX)?
            } else {
                counted(row, covering, purged_before)?
            };
            if let Some(row) = row {
                hasher.add(key, &row);
            }
        }
        Ok(Ok(hasher.finish()))
    }
}

impl EventualReplica {
    /// All rows, as they count for others: what the trees of repair are made of.
    pub fn contents(&self, purged_before: i64) -> Result<Vec<RawRow>, ReplicaError> {
        let snapshot = self.store.snapshot();
        let mut headers = HeaderOf::new(self, &snapshot);
        let range = self.tablet.read().range.clone();
        let mut rows = Vec::new();
        for item in self
            .store
            .scan(&store_key(&range.start), Some(&scan_end(&range)), &snapshot)
        {
            let (key, row) = item.map_err(broken)?;
            let key = &key[1..];
            let covering = headers.covering(key)?;
            if let Some(row) = counted(row, covering, purged_before)? {
                rows.push(RawRow {
                    key: key.to_vec(),
                    row: row.to_vec(),
                });
            }
        }
        Ok(rows)
    }
}

/// Where a scan of the store ends for a range of rows.
pub(super) fn scan_end(range: &KeyRange) -> Vec<u8> {
    match &range.end {
        Some(end) => store_key(end),
        None => vec![Kind::Row as u8 + 1],
    }
}
