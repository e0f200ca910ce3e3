//! The stores of a node: one tree per replica, one block cache and one memory budget for all of them, and two
//! threads, one that flushes and one that compacts.
//!
//! Flushes begin when the memtables of all stores together pass half of the budget (largest first), when one
//! memtable alone has grown large, when one has been waiting for long (or its log could never be cut), and when
//! somebody asks. Long before the budget is full, `pressure_permille` rises, so that proposals slow down rather
//! than stop.

mod history;
mod install;
mod manifest;
mod snapshot;
mod stores;
mod tree;

use crate::log::FileLog;
use lsm_tree::{Cache, DescriptorTable};
use model::ReplicaId;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
pub(crate) use stores::FileStores;
use tree::Tree;
use world::StoreError;

/// How often the threads look for what is overdue.
const TICK: Duration = Duration::from_secs(1);
/// A flush that failed is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Memory for what is not flushed yet, of all stores together.
    pub memtable_bytes: u64,
    /// A store whose memtable is larger is flushed.
    pub flush_bytes: u64,
    /// What has waited longer is flushed, so that the log can be cut.
    pub flush_age: Duration,
    /// Memory for blocks of tables.
    pub cache_bytes: u64,
    /// Files that are kept open.
    pub open_files: usize,
    /// A store is rewritten to be rid of old history when this much of it was written, and a third of its size.
    pub history_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            memtable_bytes: 96 << 20,
            flush_bytes: 24 << 20,
            flush_age: Duration::from_secs(300),
            cache_bytes: 64 << 20,
            open_files: 512,
            history_bytes: 32 << 20,
        }
    }
}

/// Counters of all stores since they were opened.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    pub flushes: AtomicU64,
    pub flushed_bytes: AtomicU64,
    pub flush_micros: AtomicU64,
    pub compactions: AtomicU64,
    pub compaction_micros: AtomicU64,
    /// Flushes and compactions that failed.
    pub failures: AtomicU64,
    /// Now in all memtables.
    pub unflushed_bytes: AtomicU64,
}

/// What the stores of a node share.
pub(crate) struct Node {
    directory: PathBuf,
    options: StoreOptions,
    cache: Arc<Cache>,
    descriptors: Arc<DescriptorTable>,
    open: Mutex<BTreeMap<ReplicaId, Arc<Tree>>>,
    work: Mutex<Work>,
    flush_signal: Condvar,
    compact_signal: Condvar,
    /// The budget was passed, and the flush thread has been told.
    pressed: AtomicBool,
    metrics: Arc<StoreMetrics>,
}

#[derive(Default)]
struct Work {
    flushes: VecDeque<Weak<Tree>>,
    compactions: VecDeque<Weak<Tree>>,
    stopping: bool,
}

/// Ramps from nothing at `from` to 1,000 at `to`.
fn ramp_permille(value: u64, from: u64, to: u64) -> u32 {
    let above = value.saturating_sub(from);
    (above * 1_000 / (to - from).max(1)).min(1_000) as u32
}

impl Node {
    fn new(directory: &Path, options: &StoreOptions) -> Arc<Node> {
        Arc::new(Node {
            directory: directory.to_owned(),
            options: options.clone(),
            cache: Arc::new(Cache::with_capacity_bytes(options.cache_bytes)),
            descriptors: Arc::new(DescriptorTable::new(options.open_files)),
            open: Mutex::default(),
            work: Mutex::default(),
            flush_signal: Condvar::new(),
            compact_signal: Condvar::new(),
            pressed: AtomicBool::new(false),
            metrics: Arc::default(),
        })
    }

    fn memory_pressure_permille(&self) -> u32 {
        let budget = self.options.memtable_bytes;
        let unflushed = self.metrics.unflushed_bytes.load(Ordering::Relaxed);
        ramp_permille(unflushed, budget / 10 * 7, budget)
    }

    /// A store has grown by `bytes` to `mine` that are not flushed.
    fn note_unflushed(&self, tree: &Tree, mine: u64, bytes: u64) {
        let all = self
            .metrics
            .unflushed_bytes
            .fetch_add(bytes, Ordering::Relaxed)
            + bytes;
        if mine >= self.options.flush_bytes {
            self.request_flush(tree);
        } else if all >= self.options.memtable_bytes / 2
            && !self.pressed.swap(true, Ordering::Relaxed)
        {
            let _work = self.work.lock();
            self.flush_signal.notify_one();
        }
    }

    fn request_flush(&self, tree: &Tree) {
        if tree.flush_requested.swap(true, Ordering::Relaxed) {
            return;
        }
        let open = self.open.lock().get(&tree.replica).map(Arc::downgrade);
        if let Some(tree) = open {
            self.work.lock().flushes.push_back(tree);
            self.flush_signal.notify_one();
        }
    }

    fn request_compaction(&self, tree: &Tree) {
        let open = self.open.lock().get(&tree.replica).map(Arc::downgrade);
        if let Some(tree) = open {
            self.work.lock().compactions.push_back(tree);
            self.compact_signal.notify_one();
        }
    }

    fn trees(&self) -> Vec<Arc<Tree>> {
        self.open.lock().values().cloned().collect()
    }

    /// The largest memtable, if all together are over half of the budget.
    fn largest(&self) -> Option<Arc<Tree>> {
        if self.metrics.unflushed_bytes.load(Ordering::Relaxed) < self.options.memtable_bytes / 2 {
            self.pressed.store(false, Ordering::Relaxed);
            return None;
        }
        let trees = self.trees().into_iter();
        trees.max_by_key(|tree| tree.unflushed_bytes.load(Ordering::Relaxed))
    }

    /// One that has been waiting for too long.
    fn overdue(&self) -> Option<Arc<Tree>> {
        let age = self.options.flush_age;
        let mut trees = self.trees().into_iter();
        trees.find(|tree| tree.unflushed_for().is_some_and(|waiting| waiting >= age))
    }

    fn next_flush(&self) -> Option<Arc<Tree>> {
        loop {
            {
                let mut work = self.work.lock();
                while let Some(tree) = work.flushes.pop_front() {
                    if let Some(tree) = tree.upgrade() {
                        return Some(tree);
                    }
                }
                if work.stopping {
                    return None;
                }
            }
            if let Some(tree) = self.largest().or_else(|| self.overdue()) {
                return Some(tree);
            }
            let mut work = self.work.lock();
            if work.flushes.is_empty() && !work.stopping {
                self.flush_signal.wait_for(&mut work, TICK);
            }
        }
    }

    fn flush_loop(&self) {
        while let Some(tree) = self.next_flush() {
            let begin = std::time::Instant::now();
            let bytes = tree.unflushed_bytes.load(Ordering::Relaxed);
            match tree.flush() {
                Ok(()) => {
                    let micros = begin.elapsed().as_micros() as u64;
                    self.metrics.flushes.fetch_add(1, Ordering::Relaxed);
                    self.metrics
                        .flushed_bytes
                        .fetch_add(bytes, Ordering::Relaxed);
                    self.metrics
                        .flush_micros
                        .fetch_add(micros, Ordering::Relaxed);
                    let mut work = self.work.lock();
                    work.compactions.push_back(Arc::downgrade(&tree));
                    self.compact_signal.notify_one();
                }
                Err(error) => {
                    self.metrics.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(replica = %tree.replica, %error, "a flush failed");
                    let mut work = self.work.lock();
                    if work.stopping {
                        return;
                    }
                    self.flush_signal.wait_for(&mut work, RETRY);
                }
            }
        }
    }

    /// The next store to compact; `None` to stop, `Some(None)` when the time has come to look around.
    fn next_compaction(&self) -> Option<Option<Arc<Tree>>> {
        let mut work = self.work.lock();
        loop {
            if work.stopping {
                return None;
            }
            while let Some(tree) = work.compactions.pop_front() {
                if let Some(tree) = tree.upgrade() {
                    return Some(Some(tree));
                }
            }
            let waited = self.compact_signal.wait_for(&mut work, TICK);
            if waited.timed_out() {
                return Some(None);
            }
        }
    }

    fn compact_loop(&self, log: &FileLog) {
        while let Some(next) = self.next_compaction() {
            let Some(tree) = next else {
                self.look_around(log);
                continue;
            };
            let begin = std::time::Instant::now();
            match tree.compact() {
                Ok(more) => {
                    let micros = begin.elapsed().as_micros() as u64;
                    self.metrics.compactions.fetch_add(1, Ordering::Relaxed);
                    self.metrics
                        .compaction_micros
                        .fetch_add(micros, Ordering::Relaxed);
                    if more {
                        let mut work = self.work.lock();
                        work.compactions.push_back(Arc::downgrade(&tree));
                    }
                }
                Err(error) => {
                    self.metrics.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(replica = %tree.replica, %error, "a compaction failed");
                }
            }
        }
    }

    /// Frees what is held for readers that have gone, and files of the log that hold little that is needed.
    fn look_around(&self, log: &FileLog) {
        for tree in self.trees() {
            tree.tick();
        }
        for held_back in log.purge() {
            let open = self.open.lock().get(&ReplicaId(held_back.0)).cloned();
            if let Some(tree) = open {
                world::Store::request_flush(&*tree);
            }
        }
    }

    fn stop(&self) {
        self.work.lock().stopping = true;
        self.flush_signal.notify_all();
        self.compact_signal.notify_all();
    }
}

/// The threads of a node's stores.
pub(crate) struct Threads {
    node: Arc<Node>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(node: &Arc<Node>, log: &Arc<FileLog>) -> std::io::Result<Threads> {
        let mut threads = Vec::new();
        let flusher = node.clone();
        let flush = std::thread::Builder::new().name("tessera-flush".to_owned());
        threads.push(flush.spawn(move || flusher.flush_loop())?);
        let (compactor, log) = (node.clone(), log.clone());
        let compact = std::thread::Builder::new().name("tessera-compact".to_owned());
        threads.push(compact.spawn(move || compactor.compact_loop(&log))?);
        Ok(Threads {
            node: node.clone(),
            threads,
        })
    }

    /// Finishes what is under way. Nothing more is flushed: the log has it.
    pub(crate) fn stop(&mut self) {
        self.node.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the stores panicked");
            }
        }
        // Trees hold the node that holds them.
        self.node.open.lock().clear();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a call of the library. It panics on some kinds of damage, which must not end the node.
fn guarded<T>(call: impl FnOnce() -> lsm_tree::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error_of(&error)),
        Err(_) => Err(StoreError::Corrupt("a table could not be read".to_owned())),
    }
}

fn error_of(error: &lsm_tree::Error) -> StoreError {
    use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    match error {
        lsm_tree::Error::Io(io) => match io.kind() {
            InvalidData | NotFound | UnexpectedEof => StoreError::Corrupt(io.to_string()),
            _ => StoreError::Io(io.to_string()),
        },
        other => StoreError::Corrupt(other.to_string()),
    }
}

fn io_error(path: &Path) -> impl Fn(std::io::Error) -> StoreError + use<'_> {
    move |error| StoreError::Io(format!("{}: {error}", path.display()))
}

fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    crate::log::sync_directory(directory).map_err(|error| StoreError::Io(error.to_string()))
}
