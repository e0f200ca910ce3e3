//! The store of one replica: a bare `lsm-tree` in a folder of its own, and the applied index inside it.
//!
//! A batch goes into the memtable under one sequence number, and is published when all of it is there. Memtables
//! are sealed only between batches, under the lock that batches are applied under; the applied index is the last
//! thing that goes into each; and all that is sealed is flushed at once. So what is on disk is always exactly the
//! state after one batch, and says which.
//!
//! Sequence numbers belong to the tree (its flushes and compactions take some too), and a reader's snapshot is
//! one. The tree keeps the tables and memtables that a snapshot reads until no reader is below it.

use super::history::{History, HistoryFilters};
use super::snapshot::Snapshots;
use super::{Node, error_of, guarded};
use bytes::Bytes;
use lsm_tree::compaction::Leveled;
use lsm_tree::config::{HashRatioPolicy, RestartIntervalPolicy};
use lsm_tree::{
    AbstractTree, AnyTree, Config, Guard, InternalValue, Memtable, SequenceNumberCounter, ValueType,
};
use model::ReplicaId;
use parking_lot::{Mutex, RwLock};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;
use world::{
    APPLIED_KEY, Applied, Kind, Scan, Snapshot, Store, StoreBatch, StoreError, StoreOperation,
    past_superseded_at,
};

const KEY_BYTES_MAX: usize = 65_535;
/// Blocks carry a small hash index and whole keys at short intervals: a fifth less time for a read of one row,
/// for one per cent of space.
const HASH_RATIO: f32 = 1.33;
const RESTART_INTERVAL: u8 = 4;
/// Compactions of one store in a row before others have their turn.
const COMPACTIONS_MAX: usize = 8;
/// Runs of tables in level 0 at which proposals slow down, and at which they stop.
const SLOW_RUNS: u32 = 12;
const STOP_RUNS: u32 = 32;

pub(super) struct Tree {
    pub(super) replica: ReplicaId,
    folder: PathBuf,
    tree: AnyTree,
    sequences: SequenceNumberCounter,
    snapshots: Arc<Snapshots>,
    history: Arc<History>,
    node: Arc<Node>,
    writing: Mutex<Writing>,
    applied: Mutex<Applied>,
    flushed: Mutex<Applied>,
    /// Held by flushes and compactions to read, and by who needs the folder to stand still to write.
    pub(super) standing: RwLock<()>,
    /// Bytes in memtables.
    pub(super) unflushed_bytes: AtomicU64,
    /// A flush has been asked for and has not begun.
    pub(super) flush_requested: AtomicBool,
    runs: AtomicU32,
    /// Flushed memtables that readers may still hold. Who lets go of a memtable last frees all its entries,
    /// which takes milliseconds: a thread of ours shall do that, holding no lock.
    retired: Mutex<Vec<Arc<Memtable>>>,
    /// What has broken this store.
    broken: Mutex<Option<StoreError>>,
    /// The folder is to go with the last one who holds this store.
    doomed: AtomicBool,
    past_bytes: AtomicU64,
    past_newest: AtomicI64,
    /// There may be something in the spans that are to be forgotten.
    has_forgotten: AtomicBool,
}

/// What is needed to apply a batch, and what must not change meanwhile.
struct Writing {
    memtable: Arc<Memtable>,
    /// The last batch in a sealed memtable.
    sealed: Applied,
    /// Bytes in sealed memtables that are not flushed yet.
    sealed_bytes: u64,
    /// When the oldest batch that is not flushed was applied.
    unflushed_since: Option<Instant>,
}

impl Tree {
    /// Opens the tree in `folder`, or makes an empty one there.
    pub(super) fn open(
        node: &Arc<Node>,
        replica: ReplicaId,
        folder: &Path,
    ) -> Result<Tree, StoreError> {
        super::manifest::check(folder)?;
        let sequences = SequenceNumberCounter::default();
        let history = History::new();
        let config = Config::new(folder, sequences.clone(), SequenceNumberCounter::default())
            .use_cache(node.cache.clone())
            .data_block_hash_ratio_policy(HashRatioPolicy::all(HASH_RATIO))
            .data_block_restart_interval_policy(RestartIntervalPolicy::all(RESTART_INTERVAL))
            .use_descriptor_table(Some(node.descriptors.clone()))
            .with_compaction_filter_factory(Some(Arc::new(HistoryFilters(history.clone()))));
        let tree = guarded(|| config.open())?;
        let highest = tree.get_highest_seqno();
        sequences.fetch_max(highest.map_or(1, |highest| highest + 1));
        let newest = sequences.get();
        let applied = match guarded(|| tree.get(APPLIED_KEY, newest))? {
            None => Applied::default(),
            Some(value) => decode_applied(&value).ok_or_else(|| {
                StoreError::Corrupt(format!("{}: no applied index", folder.display()))
            })?,
        };
        let runs = tree.l0_run_count() as u32;
        let memtable = tree.active_memtable();
        Ok(Tree {
            replica,
            folder: folder.to_owned(),
            tree,
            snapshots: Snapshots::new(newest),
            sequences,
            history,
            node: node.clone(),
            writing: Mutex::new(Writing {
                memtable,
                sealed: applied,
                sealed_bytes: 0,
                unflushed_since: None,
            }),
            applied: Mutex::new(applied),
            flushed: Mutex::new(applied),
            standing: RwLock::new(()),
            unflushed_bytes: AtomicU64::new(0),
            flush_requested: AtomicBool::new(false),
            runs: AtomicU32::new(runs),
            retired: Mutex::default(),
            broken: Mutex::new(None),
            doomed: AtomicBool::new(false),
            past_bytes: AtomicU64::new(0),
            past_newest: AtomicI64::new(i64::MIN),
            has_forgotten: AtomicBool::new(false),
        })
    }

    pub(super) fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Relaxed)
    }

    /// How long the oldest batch that is not flushed has been waiting.
    pub(super) fn unflushed_for(&self) -> Option<std::time::Duration> {
        let since = self.writing.lock().unflushed_since?;
        Some(since.elapsed())
    }

    fn fail(&self, error: &StoreError) {
        tracing::error!(replica = %self.replica, %error, "a store is broken");
        self.broken.lock().get_or_insert_with(|| error.clone());
    }

    /// Flushes all that is applied now. An error that may pass (a full disk) leaves everything in memory.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let _standing = self.standing.read();
        self.flush_requested.store(false, Ordering::Relaxed);
        let (sealed, bytes) = {
            let mut writing = self.writing.lock();
            let applied = *self.applied.lock();
            // Batches without operations count too: the log is cut behind them, and they are waited for.
            if writing.sealed < applied {
                writing.sealed = applied;
                let value = Some(encode_applied(applied));
                let at = self.sequences.next();
                let bytes = self.insert(&writing, APPLIED_KEY.to_vec(), value, at);
                self.unflushed_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.node
                    .metrics
                    .unflushed_bytes
                    .fetch_add(bytes, Ordering::Relaxed);
                self.retired.lock().extend(self.tree.rotate_memtable());
                writing.sealed_bytes = self.unflushed_bytes.load(Ordering::Relaxed);
                writing.memtable = self.tree.active_memtable();
                writing.unflushed_since = None;
            }
            (writing.sealed, writing.sealed_bytes)
        };
        if bytes == 0 {
            return Ok(());
        }
        let watermark = self.snapshots.watermark();
        let flushed = guarded(|| {
            let lock = self.tree.get_flush_lock();
            self.tree.flush(&lock, watermark)
        });
        if let Err(error) = flushed {
            if matches!(error, StoreError::Corrupt(_)) {
                self.fail(&error);
            }
            return Err(error);
        }
        *self.flushed.lock() = sealed;
        self.writing.lock().sealed_bytes -= bytes;
        self.unflushed_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.node
            .metrics
            .unflushed_bytes
            .fetch_sub(bytes, Ordering::Relaxed);
        self.collect();
        self.free_retired();
        Ok(())
    }

    /// Frees the memtables that nobody else holds.
    fn free_retired(&self) {
        let unused = |memtable: &mut Arc<Memtable>| Arc::strong_count(memtable) == 1;
        let free: Vec<Arc<Memtable>> = self.retired.lock().extract_if(.., unused).collect();
        drop(free);
    }

    /// Lets new readers see the newest tables (the state is the same), and gives up those that nobody reads.
    fn collect(&self) {
        {
            let _writing = self.writing.lock();
            self.snapshots.publish(self.sequences.get());
        }
        let watermark = self.snapshots.watermark();
        let mut versions = self.tree.get_version_history_lock();
        if let Err(error) = versions.maintenance(&self.folder, watermark) {
            tracing::warn!(replica = %self.replica, ?error, "old versions of a store stay");
        }
        drop(versions);
        let runs = self.tree.l0_run_count() as u32;
        self.runs.store(runs, Ordering::Relaxed);
    }

    /// Compacts what needs it. True if there may be more to do.
    pub(super) fn compact(&self) -> Result<bool, StoreError> {
        for _ in 0..COMPACTIONS_MAX {
            let _standing = self.standing.read();
            if self.is_doomed() {
                return Ok(false);
            }
            let before = self.tree.current_version().id();
            let watermark = self.snapshots.watermark();
            let compacted = guarded(|| {
                let strategy = Arc::new(Leveled::default());
                self.tree.compact(strategy, watermark)
            });
            self.check_compaction(compacted)?;
            if self.tree.current_version().id() == before {
                self.drop_forgotten()?;
                self.drop_history()?;
                return Ok(false);
            }
            self.collect();
        }
        Ok(true)
    }

    fn check_compaction(&self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        if let Err(error @ StoreError::Corrupt(_)) = &result {
            self.fail(error);
        }
        result
    }

    /// Drops what lies in forgotten spans: whole tables as they are, the rest by rewriting.
    fn drop_forgotten(&self) -> Result<(), StoreError> {
        if !self.has_forgotten.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        for (start, end) in self.history.spans().iter() {
            let dropped = guarded(|| self.tree.drop_range(start.as_slice()..end.as_slice()));
            self.check_compaction(dropped)?;
        }
        self.collect();
        match self.holds_forgotten() {
            true => self.major_compact(),
            false => Ok(()),
        }
    }

    /// Whether anything can be seen in the forgotten spans.
    fn holds_forgotten(&self) -> bool {
        let now = self.snapshots.take();
        let spans = self.history.spans();
        spans.iter().any(|(start, end)| {
            let range = self.range(start, Some(end), &now);
            range.is_some_and(|mut range| range.next().is_some())
        })
    }

    /// Applies a batch whatever index it says, and flushes: for a copy that nobody else sees yet.
    pub(super) fn rewrite(&self, batch: StoreBatch) -> Result<(), StoreError> {
        {
            let mut writing = self.writing.lock();
            *self.applied.lock() = Applied::default();
            *self.flushed.lock() = Applied::default();
            writing.sealed = Applied::default();
        }
        self.apply(batch)?;
        self.flush()
    }

    /// Rewrites the whole tree when much of it may be history below the horizon: tables that were moved down
    /// without being rewritten, or that nothing is merged into, would keep it for ever.
    fn drop_history(&self) -> Result<(), StoreError> {
        let written = self.past_bytes.load(Ordering::Relaxed);
        let threshold = self
            .node
            .options
            .history_bytes
            .max(self.tree.disk_space() / 3);
        let newest = self.past_newest.load(Ordering::Relaxed);
        if written < threshold || self.history.horizon() <= newest {
            return Ok(());
        }
        self.past_bytes.store(0, Ordering::Relaxed);
        self.major_compact()
    }

    /// Rewrites all tables.
    pub(super) fn major_compact(&self) -> Result<(), StoreError> {
        let watermark = self.snapshots.watermark();
        let compacted = guarded(|| self.tree.major_compact(u64::MAX, watermark));
        self.check_compaction(compacted)?;
        self.collect();
        Ok(())
    }

    /// Gives up versions that nobody reads any more although nothing is written.
    pub(super) fn tick(&self) {
        if self.tree.version_free_list_len() > 0 {
            self.collect();
        }
        self.free_retired();
    }

    /// Adds pairs in ascending order directly as tables: for the filling of a fresh tree.
    pub(super) fn ingest(&self, pairs: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        guarded(|| {
            let mut ingestion = self.tree.ingestion()?;
            for (key, value) in pairs {
                ingestion.write(key, value)?;
            }
            ingestion.finish()
        })?;
        self.collect();
        Ok(())
    }

    fn insert(&self, writing: &Writing, key: Vec<u8>, value: Option<Vec<u8>>, at: u64) -> u64 {
        let item = match value {
            Some(value) => InternalValue::from_components(key, value, at, ValueType::Value),
            None => InternalValue::new_tombstone(key, at),
        };
        writing.memtable.insert(item).0
    }

    fn note_past(&self, key: &[u8], value: &[u8]) {
        if let Some(at) = past_superseded_at(key) {
            let bytes = (key.len() + value.len()) as u64;
            self.past_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.past_newest.fetch_max(at, Ordering::Relaxed);
        }
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, at: &Snapshot) -> Option<TreeRange> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        if end.is_some_and(|end| end <= start) {
            return None;
        }
        let bounds = (Included(start), end.map_or(Unbounded, Excluded));
        Some(self.tree.range::<&[u8], _>(bounds, at.sequence(), None))
    }
}

type TreeRange = Box<dyn DoubleEndedIterator<Item = lsm_tree::IterGuardImpl> + Send + 'static>;

fn pair(item: lsm_tree::IterGuardImpl) -> Result<(Bytes, Bytes), StoreError> {
    let (key, value) = item.into_inner().map_err(|error| error_of(&error))?;
    Ok((key.into(), value.into()))
}

/// Pairs as the tree yields them, without the applied index, up to the first error.
struct Pairs {
    range: Option<TreeRange>,
    reversed: bool,
    /// The tables are there for as long as it lives.
    _at: Snapshot,
}

impl Iterator for Pairs {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let range = self.range.as_mut()?;
            let reversed = self.reversed;
            let next = guarded(|| {
                let item = if reversed {
                    range.next_back()
                } else {
                    range.next()
                };
                Ok(item.map(pair))
            });
            let item = match next {
                Ok(item) => item?,
                Err(error) => Err(error),
            };
            if item.is_err() {
                self.range = None;
            }
            match item {
                Ok((key, _)) if *key == APPLIED_KEY => {}
                item => return Some(item),
            }
        }
    }
}

pub(super) fn encode_applied(applied: Applied) -> Vec<u8> {
    let mut value = Vec::with_capacity(16);
    value.extend_from_slice(&applied.index.to_be_bytes());
    value.extend_from_slice(&applied.term.to_be_bytes());
    value
}

fn decode_applied(value: &[u8]) -> Option<Applied> {
    let (index, rest) = value.split_first_chunk()?;
    let term: &[u8; 8] = rest.try_into().ok()?;
    Some(Applied {
        index: u64::from_be_bytes(*index),
        term: u64::from_be_bytes(*term),
    })
}

pub(super) fn check_key(key: &[u8]) -> Result<(), StoreError> {
    let kinds = Kind::Row as u8..=Kind::State as u8;
    let known = key.first().is_some_and(|kind| kinds.contains(kind));
    if !known || key.len() > KEY_BYTES_MAX || key.starts_with(&APPLIED_KEY) {
        let reason = "a key without a kind, too long, or reserved";
        return Err(StoreError::Refused(reason.to_owned()));
    }
    Ok(())
}

impl Store for Tree {
    fn snapshot(&self) -> Snapshot {
        self.snapshots.take()
    }

    fn get(&self, key: &[u8], at: &Snapshot) -> Result<Option<Bytes>, StoreError> {
        let value = guarded(|| self.tree.get(key, at.sequence()))?;
        Ok(value.map(Bytes::from))
    }

    fn scan<'a>(&'a self, start: &[u8], end: Option<&[u8]>, at: &Snapshot) -> Scan<'a> {
        Box::new(Pairs {
            range: self.range(start, end, at),
            reversed: false,
            _at: at.clone(),
        })
    }

    fn scan_reversed<'a>(&'a self, start: &[u8], end: Option<&[u8]>, at: &Snapshot) -> Scan<'a> {
        Box::new(Pairs {
            range: self.range(start, end, at),
            reversed: true,
            _at: at.clone(),
        })
    }

    fn apply(&self, batch: StoreBatch) -> Result<(), StoreError> {
        for operation in &batch.operations {
            let (StoreOperation::Put { key, .. } | StoreOperation::Delete { key }) = operation;
            check_key(key)?;
        }
        if let Some(error) = &*self.broken.lock() {
            return Err(error.clone());
        }
        let mut writing = self.writing.lock();
        let applied = self.applied();
        if batch.applied.index <= applied.index {
            return Err(StoreError::Refused(format!(
                "entry {} is not above the applied {}",
                batch.applied.index, applied.index
            )));
        }
        let at = self.sequences.next();
        let mut bytes = 0;
        for operation in batch.operations {
            bytes += match operation {
                StoreOperation::Put { key, value } => {
                    self.note_past(&key, &value);
                    self.insert(&writing, key, Some(value), at)
                }
                StoreOperation::Delete { key } => self.insert(&writing, key, None, at),
            };
        }
        self.snapshots.publish(at + 1);
        *self.applied.lock() = batch.applied;
        writing.unflushed_since.get_or_insert_with(Instant::now);
        let mine = self.unflushed_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        drop(writing);
        self.node.note_unflushed(self, mine, bytes);
        Ok(())
    }

    fn applied(&self) -> Applied {
        *self.applied.lock()
    }

    fn flushed(&self) -> Applied {
        *self.flushed.lock()
    }

    fn request_flush(&self) {
        if self.flushed() < self.applied() {
            self.node.request_flush(self);
        }
    }

    fn pressure_permille(&self) -> u32 {
        let runs = self.runs.load(Ordering::Relaxed);
        let above = runs.saturating_sub(SLOW_RUNS);
        let pressure = (above * 1_000 / (STOP_RUNS - SLOW_RUNS)).min(1_000);
        pressure.max(self.node.memory_pressure_permille())
    }

    fn set_history_horizon(&self, timestamp: i64) {
        self.history.raise(timestamp);
    }

    fn forget_spans(&self, spans: Vec<(Vec<u8>, Vec<u8>)>) {
        self.history.set_spans(spans);
        if self.holds_forgotten() {
            self.has_forgotten.store(true, Ordering::Relaxed);
            self.node.request_compaction(self);
        }
    }

    fn size_bytes(&self) -> u64 {
        self.tree.disk_space() + self.unflushed_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let unflushed = self.unflushed_bytes.load(Ordering::Relaxed);
        let node_bytes = &self.node.metrics.unflushed_bytes;
        node_bytes.fetch_sub(unflushed, Ordering::Relaxed);
        if self.is_doomed() {
            super::stores::remove_folder(&self.folder);
        }
    }
}
