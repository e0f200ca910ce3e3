//! The simulated stores. Each store keeps its versions in memory for snapshots, and the batches that are not
//! flushed yet; a flush takes seeded time and covers the batches applied when it began. They begin by
//! themselves, at seeded moments, and when they are asked for.

use super::{CRASHED, Disk, FLUSH_MICROS};
use bytes::Bytes;
use model::ReplicaId;
use parking_lot::Mutex;
use rand::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use tokio::time::Instant;
use world::planted::{self, Bug};
use world::{
    APPLIED_KEY, Applied, EditCopy, Install, Kind, Scan, Snapshot, SnapshotGuard, Store,
    StoreBatch, StoreError, StoreOperation, Stores, past_superseded_at,
};

/// One in so many batches begins a flush by itself.
const FLUSH_CHANCE: u32 = 64;
/// Unflushed bytes at which a flush begins in any case.
const FLUSH_SIZE_BYTES: u64 = 1 << 20;
/// Unflushed bytes at which proposals stop.
const STOP_SIZE_BYTES: u64 = 8 << 20;
const KEY_SIZE_BYTES_MAX: usize = 65_535;

/// What is in a folder.
#[derive(Clone, Default)]
struct Content {
    rows: BTreeMap<Vec<u8>, Bytes>,
    applied: Applied,
}

impl Content {
    fn apply(&mut self, batch: StoreBatch) {
        for operation in batch.operations {
            self.operate(operation);
        }
        self.applied = batch.applied;
    }

    fn operate(&mut self, operation: StoreOperation) {
        match operation {
            StoreOperation::Put { key, value } => {
                self.rows.insert(key, Bytes::from(value));
            }
            StoreOperation::Delete { key } => {
                self.rows.remove(&key);
            }
        }
    }
}

#[derive(Default)]
struct Folder {
    installing: bool,
    /// Grows with each installation and each removal, so that a store of an earlier life writes nothing here.
    life: u64,
    content: Content,
    open: Option<Arc<SimStore>>,
}

#[derive(Default)]
pub(super) struct StoresDisk {
    folders: BTreeMap<ReplicaId, Folder>,
    lives: u64,
}

impl StoresDisk {
    pub(super) fn forget_open(&mut self) {
        for folder in self.folders.values_mut() {
            folder.open = None;
        }
    }

    fn next_life(&mut self) -> u64 {
        self.lives += 1;
        self.lives
    }
}

/// Finishes all flushes that end until `now`.
pub(super) fn settle_all(disk: &Arc<Mutex<Disk>>, now: Instant) {
    let stores: Vec<Arc<SimStore>> = {
        let disk = disk.lock();
        let folders = disk.stores.folders.values();
        folders.filter_map(|folder| folder.open.clone()).collect()
    };
    for store in stores {
        store.settle(&mut store.state.lock(), now);
    }
}

struct Flush {
    batches: usize,
    end: Instant,
}

/// A value and the sequence number that it is visible from; `None` is a deletion.
type Version = (u64, Option<Bytes>);

struct State {
    versions: BTreeMap<Vec<u8>, Vec<Version>>,
    sequence: u64,
    applied: Applied,
    flushed: Applied,
    unflushed: VecDeque<StoreBatch>,
    unflushed_bytes: u64,
    flush: Option<Flush>,
    /// A flush was asked for while one was under way.
    flush_again: bool,
    horizon: i64,
    forgotten: Vec<(Vec<u8>, Vec<u8>)>,
}

struct SimStore {
    disk: Arc<Mutex<Disk>>,
    generation: u64,
    replica: ReplicaId,
    life: u64,
    state: Mutex<State>,
    /// Sequence numbers that are being read at, each with how often.
    snapshots: Arc<Mutex<BTreeMap<u64, u64>>>,
}

struct Guard {
    sequence: u64,
    snapshots: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl SnapshotGuard for Guard {
    fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut snapshots = self.snapshots.lock();
        if let Some(count) = snapshots.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                snapshots.remove(&self.sequence);
            }
        }
    }
}

fn visible(versions: &[Version], sequence: u64) -> Option<&Bytes> {
    let newest = versions.iter().rev().find(|(from, _)| *from <= sequence);
    newest.and_then(|(_, value)| value.as_ref())
}

impl SimStore {
    fn new(
        disk: Arc<Mutex<Disk>>,
        generation: u64,
        replica: ReplicaId,
        life: u64,
        content: &Content,
    ) -> SimStore {
        let rows = content.rows.iter();
        let versions = rows
            .map(|(key, value)| (key.clone(), vec![(0, Some(value.clone()))]))
            .collect();
        SimStore {
            disk,
            generation,
            replica,
            life,
            state: Mutex::new(State {
                versions,
                sequence: 0,
                applied: content.applied,
                flushed: content.applied,
                unflushed: VecDeque::new(),
                unflushed_bytes: 0,
                flush: None,
                flush_again: false,
                horizon: i64::MIN,
                forgotten: Vec::new(),
            }),
            snapshots: Arc::default(),
        }
    }

    fn begin_flush(&self, state: &mut State, begin: Instant) {
        if state.flush.is_some() {
            state.flush_again = true;
        } else if !state.unflushed.is_empty() {
            let end = begin + self.disk.lock().latency(FLUSH_MICROS);
            let batches = state.unflushed.len();
            state.flush = Some(Flush { batches, end });
        }
    }

    /// Finishes flushes that end until `now`.
    fn settle(&self, state: &mut State, now: Instant) {
        while let Some(flush) = state.flush.take_if(|flush| flush.end <= now) {
            self.finish_flush(state, flush.batches);
            if std::mem::take(&mut state.flush_again) {
                self.begin_flush(state, flush.end);
            }
        }
    }

    fn finish_flush(&self, state: &mut State, batches: usize) {
        let mut disk = self.disk.lock();
        let failing = disk.failing;
        let current = disk.generation == self.generation;
        let folder = disk.stores.folders.get_mut(&self.replica);
        let folder = folder.filter(|folder| folder.life == self.life && !folder.installing);
        let (true, false, Some(folder)) = (current, failing, folder) else {
            // Nothing is flushed; the batches stay in memory.
            return;
        };
        for batch in state.unflushed.drain(..batches) {
            state.unflushed_bytes -= size_bytes(&batch);
            folder.content.apply(batch);
        }
        if planted::is(Bug::AppliedIndexOutsideBatch)
            && let Some(next) = state.unflushed.front_mut()
        {
            // The index of the next entry is there, but only the first half of its effects.
            let half = next.operations.len() / 2;
            for operation in next.operations.iter().take(half).cloned() {
                folder.content.operate(operation);
            }
            folder.content.applied = next.applied;
        }
        state.flushed = folder.content.applied;
        let horizon = state.horizon;
        let forgotten = std::mem::take(&mut state.forgotten);
        let keep = |key: &Vec<u8>| {
            past_superseded_at(key).is_none_or(|at| at >= horizon)
                && !forgotten
                    .iter()
                    .any(|(start, end)| start <= key && key < end)
        };
        folder.content.rows.retain(|key, _| keep(key));
        let snapshots = self.snapshots.lock();
        let oldest = snapshots.keys().next().copied().unwrap_or(state.sequence);
        state.versions.retain(|key, versions| {
            let deleted = matches!(versions[..], [(from, None)] if from <= oldest);
            keep(key) && !deleted
        });
        state.forgotten = forgotten;
    }

    /// Runs `read` on the state as of now.
    fn with_state<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        self.settle(&mut state, Instant::now());
        read(&mut state)
    }

    fn next_pair(&self, walk: &mut Walk, reversed: bool) -> Option<(Bytes, Bytes)> {
        let state = self.state.lock();
        if is_empty(&walk.start, &walk.end) {
            return None;
        }
        let mut range = state
            .versions
            .range::<Vec<u8>, _>((walk.start.as_ref(), walk.end.as_ref()));
        loop {
            let (key, versions) = if reversed {
                range.next_back()?
            } else {
                range.next()?
            };
            if let Some(value) = visible(versions, walk.at.sequence()) {
                let bound = Bound::Excluded(key.clone());
                if reversed {
                    walk.end = bound;
                } else {
                    walk.start = bound;
                }
                return Some((Bytes::copy_from_slice(key), value.clone()));
            }
        }
    }
}

/// `BTreeMap::range` panics on bounds that are out of order.
fn is_empty(start: &Bound<Vec<u8>>, end: &Bound<Vec<u8>>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (
            Bound::Included(start) | Bound::Excluded(start),
            Bound::Included(end) | Bound::Excluded(end),
        ) => start >= end,
    }
}

/// What is left of a scan. It finds its place anew for each pair, so that it holds no lock meanwhile.
struct Walk {
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
    at: Snapshot,
}

impl Walk {
    fn new(start: &[u8], end: Option<&[u8]>, at: &Snapshot) -> Walk {
        Walk {
            start: Bound::Included(start.to_vec()),
            end: end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.to_vec())),
            at: at.clone(),
        }
    }
}

fn size_bytes(batch: &StoreBatch) -> u64 {
    let sizes = batch.operations.iter().map(|operation| match operation {
        StoreOperation::Put { key, value } => key.len() + value.len(),
        StoreOperation::Delete { key } => key.len(),
    });
    sizes.sum::<usize>() as u64
}

fn check_key(key: &[u8]) -> Result<(), StoreError> {
    let kinds = Kind::Row as u8..=Kind::State as u8;
    let known = key.first().is_some_and(|kind| kinds.contains(kind));
    if !known || key.len() > KEY_SIZE_BYTES_MAX || key.starts_with(&APPLIED_KEY) {
        return Err(StoreError::Refused(
            "a key without kind, too long, or reserved".to_owned(),
        ));
    }
    Ok(())
}

impl Store for SimStore {
    fn snapshot(&self) -> Snapshot {
        let sequence = self.state.lock().sequence;
        *self.snapshots.lock().entry(sequence).or_insert(0) += 1;
        Arc::new(Guard {
            sequence,
            snapshots: self.snapshots.clone(),
        })
    }

    fn get(&self, key: &[u8], at: &Snapshot) -> Result<Option<Bytes>, StoreError> {
        let state = self.state.lock();
        let versions = state.versions.get(key);
        Ok(versions.and_then(|versions| visible(versions, at.sequence()).cloned()))
    }

    fn scan<'a>(&'a self, start: &[u8], end: Option<&[u8]>, at: &Snapshot) -> Scan<'a> {
        let mut walk = Walk::new(start, end, at);
        Box::new(std::iter::from_fn(move || {
            self.next_pair(&mut walk, false).map(Ok)
        }))
    }

    fn scan_reversed<'a>(&'a self, start: &[u8], end: Option<&[u8]>, at: &Snapshot) -> Scan<'a> {
        let mut walk = Walk::new(start, end, at);
        Box::new(std::iter::from_fn(move || {
            self.next_pair(&mut walk, true).map(Ok)
        }))
    }

    fn apply(&self, batch: StoreBatch) -> Result<(), StoreError> {
        for operation in &batch.operations {
            let (StoreOperation::Put { key, .. } | StoreOperation::Delete { key }) = operation;
            check_key(key)?;
        }
        let now = Instant::now();
        let oldest = self.snapshots.lock().keys().next().copied();
        let mut state = self.state.lock();
        self.settle(&mut state, now);
        if batch.applied.index <= state.applied.index {
            return Err(StoreError::Refused(format!(
                "entry {} is not above the applied {}",
                batch.applied.index, state.applied.index
            )));
        }
        let sequence = state.sequence + 1;
        let oldest = oldest.unwrap_or(sequence);
        for operation in &batch.operations {
            let (key, value) = match operation {
                StoreOperation::Put { key, value } => (key, Some(Bytes::copy_from_slice(value))),
                StoreOperation::Delete { key } => (key, None),
            };
            let versions = state.versions.entry(key.clone()).or_default();
            if versions.last().is_some_and(|(from, _)| *from == sequence) {
                versions.pop();
            }
            // Of the versions at or below the oldest snapshot only the newest can still be read.
            let readable = versions.iter().rposition(|(from, _)| *from <= oldest);
            versions.drain(..readable.unwrap_or(0));
            versions.push((sequence, value));
        }
        state.sequence = sequence;
        state.applied = batch.applied;
        state.unflushed_bytes += size_bytes(&batch);
        state.unflushed.push_back(batch);
        let chance = self.disk.lock().random.random_ratio(1, FLUSH_CHANCE);
        if state.flush.is_none() && (chance || state.unflushed_bytes >= FLUSH_SIZE_BYTES) {
            self.begin_flush(&mut state, now);
        }
        Ok(())
    }

    fn applied(&self) -> Applied {
        self.state.lock().applied
    }

    fn flushed(&self) -> Applied {
        self.with_state(|state| state.flushed)
    }

    fn request_flush(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        self.settle(&mut state, now);
        self.begin_flush(&mut state, now);
    }

    fn pressure_permille(&self) -> u32 {
        let unflushed = self.with_state(|state| state.unflushed_bytes);
        let above = unflushed.saturating_sub(STOP_SIZE_BYTES / 2);
        (above * 1_000 / (STOP_SIZE_BYTES / 2)).min(1_000) as u32
    }

    fn set_history_horizon(&self, timestamp: i64) {
        let mut state = self.state.lock();
        state.horizon = state.horizon.max(timestamp);
    }

    fn forget_spans(&self, spans: Vec<(Vec<u8>, Vec<u8>)>) {
        self.state.lock().forgotten = spans;
    }

    fn size_bytes(&self) -> u64 {
        let state = self.state.lock();
        let sizes = state.versions.iter().map(|(key, versions)| {
            let value = versions.last().and_then(|(_, value)| value.as_ref());
            key.len() + value.map_or(0, Bytes::len)
        });
        sizes.sum::<usize>() as u64
    }
}

pub(super) struct SimStores {
    disk: Arc<Mutex<Disk>>,
    generation: u64,
}

impl SimStores {
    pub(super) fn new(disk: Arc<Mutex<Disk>>, generation: u64) -> SimStores {
        SimStores { disk, generation }
    }
}

fn usable(disk: &Disk, generation: u64) -> Result<(), StoreError> {
    if disk.generation != generation {
        return Err(StoreError::Io(CRASHED.to_owned()));
    }
    if disk.failing {
        return Err(StoreError::Io("simulated failure of a file".to_owned()));
    }
    Ok(())
}

impl Stores for SimStores {
    fn open(&self, replica: ReplicaId) -> Result<Arc<dyn Store>, StoreError> {
        let mut disk = self.disk.lock();
        usable(&disk, self.generation)?;
        if !disk.stores.folders.contains_key(&replica) {
            let life = disk.stores.next_life();
            let folder = Folder {
                life,
                ..Folder::default()
            };
            disk.stores.folders.insert(replica, folder);
        }
        let folder = disk.stores.folders.get_mut(&replica);
        let folder = folder.expect("it was just made sure of");
        if folder.installing {
            return Err(StoreError::Installing(replica));
        }
        let store = folder.open.get_or_insert_with(|| {
            Arc::new(SimStore::new(
                self.disk.clone(),
                self.generation,
                replica,
                folder.life,
                &folder.content,
            ))
        });
        Ok(store.clone())
    }

    fn list(&self) -> Result<Vec<(ReplicaId, bool)>, StoreError> {
        let disk = self.disk.lock();
        usable(&disk, self.generation)?;
        let folders = disk.stores.folders.iter();
        Ok(folders
            .map(|(replica, folder)| (*replica, folder.installing))
            .collect())
    }

    fn begin_install(&self, replica: ReplicaId) -> Result<Box<dyn Install>, StoreError> {
        settle_all(&self.disk, Instant::now());
        let mut disk = self.disk.lock();
        usable(&disk, self.generation)?;
        let life = disk.stores.next_life();
        let folder = disk.stores.folders.entry(replica).or_default();
        folder.installing = true;
        folder.life = life;
        folder.open = None;
        let mut content = Content::default();
        if planted::is(Bug::InstallLeavesOldRows) {
            content.rows = folder.content.rows.clone();
        }
        Ok(Box::new(SimInstall {
            disk: self.disk.clone(),
            generation: self.generation,
            replica,
            life,
            content,
            last: Vec::new(),
        }))
    }

    fn remove(&self, replica: ReplicaId) -> Result<(), StoreError> {
        let mut disk = self.disk.lock();
        usable(&disk, self.generation)?;
        disk.stores.folders.remove(&replica);
        Ok(())
    }

    fn copy(&self, from: ReplicaId, to: ReplicaId, edit: EditCopy<'_>) -> Result<(), StoreError> {
        settle_all(&self.disk, Instant::now());
        let (life, mut content) = {
            let mut disk = self.disk.lock();
            usable(&disk, self.generation)?;
            let life = disk.stores.next_life();
            let folders = &disk.stores.folders;
            if folders.contains_key(&to) {
                return Err(StoreError::Refused(format!("{to} exists")));
            }
            match folders.get(&from) {
                None => return Err(StoreError::Refused(format!("{from} does not exist"))),
                Some(folder) if folder.installing => return Err(StoreError::Installing(from)),
                Some(folder) => (life, folder.content.clone()),
            }
        };
        let copy = SimStore::new(self.disk.clone(), self.generation, to, life, &content);
        let batch = edit(&copy)?;
        for operation in &batch.operations {
            let (StoreOperation::Put { key, .. } | StoreOperation::Delete { key }) = operation;
            check_key(key)?;
        }
        content.apply(batch);
        let mut disk = self.disk.lock();
        let folders = &mut disk.stores.folders;
        let copy = Folder {
            life,
            content,
            ..Folder::default()
        };
        folders.insert(to, copy);
        Ok(())
    }
}

struct SimInstall {
    disk: Arc<Mutex<Disk>>,
    generation: u64,
    replica: ReplicaId,
    life: u64,
    content: Content,
    last: Vec<u8>,
}

impl Install for SimInstall {
    fn add(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Result<(), StoreError> {
        for (key, value) in pairs {
            check_key(&key)?;
            if *key <= *self.last {
                return Err(StoreError::Refused("keys out of order".to_owned()));
            }
            self.last = key.to_vec();
            self.content.rows.insert(key.to_vec(), value);
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, applied: Applied) -> Result<Arc<dyn Store>, StoreError> {
        let mut disk = self.disk.lock();
        usable(&disk, self.generation)?;
        let folder = disk.stores.folders.get_mut(&self.replica);
        let Some(folder) = folder.filter(|folder| folder.life == self.life) else {
            return Err(StoreError::Refused(format!(
                "{} was removed, or another installation has begun",
                self.replica
            )));
        };
        self.content.applied = applied;
        let store = Arc::new(SimStore::new(
            self.disk.clone(),
            self.generation,
            self.replica,
            self.life,
            &self.content,
        ));
        folder.content = self.content;
        folder.installing = false;
        folder.open = Some(store.clone());
        Ok(store)
    }
}
