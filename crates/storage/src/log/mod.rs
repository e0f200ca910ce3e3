//! The real log of a node, over `raft-engine`.
//!
//! Callers queue batches under one short lock, which also makes them visible to readers; the log thread takes
//! all that has gathered while it was syncing and writes it at once. So the more writers there are, the more of
//! them share a sync, and a lone writer waits for nobody.
//!
//! Invariants: batches reach the files in the order of the calls, each whole; nothing is acknowledged before the
//! sync that covers it; after a failed write or sync nothing is acknowledged ever again.
//!
//! Deliberately not here: when to cut a log (its owner knows what it needs), and repair of damaged files.

mod check;
mod completion;
mod metrics;
mod state;
mod writer;

use crate::OpenError;
use bytes::Bytes;
pub use check::TornTail;
pub(crate) use check::sync_directory;
use completion::{Completion, Written};
pub use metrics::{GROUP_SIZES, LogMetrics};
use parking_lot::{Condvar, Mutex};
use raft_engine::{Config, Engine, ReadableSize, RecoveryMode};
use state::{Found, Logs, OneLog};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use world::{Durable, Log, LogBatch, LogBounds, LogEntry, LogError, LogId, LogOperation};
use writer::Group;

/// A larger batch is refused: it would not fit one record.
const BATCH_BYTES_MAX: u64 = 256 << 20;
/// What nobody waits for is written anyway when this much of it has gathered.
const LATER_BYTES_MAX: u64 = 4 << 20;
/// Queued bytes at which writers should begin to slow down, and at which they should stop.
const SLOW_BYTES: u64 = 32 << 20;
const STOP_BYTES: u64 = 128 << 20;
/// What an operation costs in the queue apart from its data.
const OPERATION_BYTES: u64 = 64;

/// How long opening waits for another process to let go of the directory.
const IN_USE_WAIT: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A file that has reached this size is closed, and a new one begun.
    pub file_bytes: u64,
    /// When all files together are larger, the live entries of the oldest ones are rewritten and they go.
    pub purge_bytes: u64,
    /// Memory for written entries, so that those who replicate or apply them need not read files.
    pub tail_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            file_bytes: 32 << 20,
            purge_bytes: 256 << 20,
            tail_bytes: 16 << 20,
        }
    }
}

struct Queue {
    logs: Logs,
    batches: Vec<LogBatch>,
    bytes: u64,
    /// Number of the last queued batch.
    last: u64,
    /// Of all that is queued now.
    completion: Arc<Completion>,
    /// Somebody waits for what is queued.
    waited_for: bool,
    /// When what nobody waits for is written.
    deadline: Option<Instant>,
    /// The log thread waits until `deadline` or a signal.
    asleep: bool,
    closing: bool,
    failed: Option<String>,
}

pub(crate) struct Shared {
    queue: Mutex<Queue>,
    signal: Condvar,
    /// Nothing can be written any more: for those who do not wait for what they write.
    has_failed: AtomicBool,
    pub(crate) metrics: Arc<LogMetrics>,
}

impl Shared {
    /// What is to be written next; waits for it. `None`: the log is closed.
    fn next_group(&self) -> Option<Group> {
        let mut queue = self.queue.lock();
        loop {
            let overdue = queue.deadline.is_some_and(|at| at <= Instant::now());
            let due = queue.waited_for || queue.closing || overdue || queue.bytes > LATER_BYTES_MAX;
            if due && !queue.batches.is_empty() {
                break;
            }
            if queue.closing {
                return None;
            }
            queue.asleep = true;
            match queue.deadline {
                Some(deadline) => {
                    self.signal.wait_until(&mut queue, deadline);
                }
                None => self.signal.wait(&mut queue),
            }
            queue.asleep = false;
        }
        queue.waited_for = false;
        queue.deadline = None;
        Some(Group {
            batches: std::mem::take(&mut queue.batches),
            bytes: std::mem::take(&mut queue.bytes),
            last: queue.last,
            completion: std::mem::take(&mut queue.completion),
        })
    }

    fn group_is_written(&self, group: &Group) {
        self.queue.lock().logs.written = group.last;
        self.metrics.count_group(group.batches.len() as u64);
        let queued = &self.metrics.queued_bytes;
        queued.fetch_sub(group.bytes, Ordering::Relaxed);
        group.completion.finish(Ok(()));
    }

    /// Closes the log for good.
    fn fail(&self, reason: &str, group: Option<&Group>) {
        tracing::error!(
            reason,
            "the log failed: this node acknowledges nothing more"
        );
        self.has_failed.store(true, Ordering::Relaxed);
        let queued = {
            let mut queue = self.queue.lock();
            queue.failed.get_or_insert_with(|| reason.to_owned());
            queue.batches.clear();
            std::mem::take(&mut queue.completion)
        };
        let failed = || Err(LogError::Failed(reason.to_owned()));
        if let Some(group) = group {
            group.completion.finish(failed());
        }
        queued.finish(failed());
    }

    /// Queues a batch; with `later`, nobody waits for it, but it is written by then.
    fn queue(&self, batch: LogBatch, later: Option<Instant>) -> Result<Arc<Completion>, LogError> {
        let bytes = size_bytes(&batch);
        if bytes > BATCH_BYTES_MAX {
            return Err(LogError::Refused(format!("a batch of {bytes} bytes")));
        }
        let mut queue = self.queue.lock();
        if let Some(reason) = &queue.failed {
            return Err(LogError::Failed(reason.clone()));
        }
        queue.logs.check(&batch)?;
        queue.last += 1;
        let number = queue.last;
        queue.logs.apply(&batch, number);
        queue.batches.push(batch);
        queue.bytes += bytes;
        self.metrics
            .queued_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        let wake = match later {
            None => !std::mem::replace(&mut queue.waited_for, true),
            Some(at) if queue.deadline.is_none_or(|deadline| at < deadline) => {
                queue.deadline = Some(at);
                true
            }
            Some(_) => queue.bytes > LATER_BYTES_MAX,
        };
        let completion = queue.completion.clone();
        let wake = wake && queue.asleep;
        drop(queue);
        if wake {
            self.signal.notify_one();
        }
        Ok(completion)
    }
}

fn size_bytes(batch: &LogBatch) -> u64 {
    let sizes = batch.operations.iter().map(|operation| match operation {
        LogOperation::Append { entries, .. } => {
            let data: usize = entries.iter().map(|entry| entry.data.len()).sum();
            data as u64 + OPERATION_BYTES * entries.len() as u64
        }
        LogOperation::Put { key, value, .. } => (key.len() + value.len()) as u64 + OPERATION_BYTES,
        _ => OPERATION_BYTES,
    });
    sizes.sum()
}

/// The log of a node. Closing it (or dropping the last handle) writes what is queued.
pub struct FileLog {
    shared: Arc<Shared>,
    /// Until the log is closed.
    engine: Mutex<Option<Arc<Engine>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Written bytes when files were purged last.
    purged_at: AtomicU64,
    file_bytes: u64,
    torn: Vec<TornTail>,
}

impl FileLog {
    pub fn open(directory: &Path, options: &LogOptions) -> Result<FileLog, OpenError> {
        std::fs::create_dir_all(directory).map_err(OpenError::io(directory))?;
        let torn = check::check(directory)?;
        for tail in &torn {
            let file = tail.file.display();
            tracing::info!(%file, offset = tail.offset, "cut the torn end of the log");
        }
        let config = Config {
            dir: path_to_string(directory)?,
            recovery_mode: RecoveryMode::AbsoluteConsistency,
            recovery_threads: 2,
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(options.file_bytes),
            purge_threshold: ReadableSize(options.purge_bytes.max(options.file_bytes)),
            // Old content in a reused file would look like good records behind a torn one.
            enable_log_recycle: false,
            ..Config::default()
        };
        let engine = Arc::new(open_engine(directory, &config)?);
        sync_directory(directory)?;
        let logs = Logs::new(recover(&engine)?, options.tail_bytes);
        let metrics = Arc::new(LogMetrics::default());
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                logs,
                batches: Vec::new(),
                bytes: 0,
                last: 0,
                completion: Arc::default(),
                waited_for: false,
                deadline: None,
                asleep: false,
                closing: false,
                failed: None,
            }),
            signal: Condvar::new(),
            has_failed: AtomicBool::new(false),
            metrics,
        });
        let thread = {
            let (shared, engine) = (shared.clone(), engine.clone());
            std::thread::Builder::new()
                .name("tessera-log".to_owned())
                .spawn(move || writer::run(&shared, &engine))
                .map_err(OpenError::io(directory))?
        };
        Ok(FileLog {
            shared,
            engine: Mutex::new(Some(engine)),
            thread: Mutex::new(Some(thread)),
            purged_at: AtomicU64::new(0),
            file_bytes: options.file_bytes,
            torn,
        })
    }

    pub fn metrics(&self) -> &Arc<LogMetrics> {
        &self.shared.metrics
    }

    /// What was cut off when the log was opened.
    pub fn torn_tails(&self) -> &[TornTail] {
        &self.torn
    }

    /// Writes what is queued, refuses what comes later, and lets go of the files.
    pub fn close(&self) {
        {
            let mut queue = self.shared.queue.lock();
            let closed = || "the log is closed".to_owned();
            queue.failed.get_or_insert_with(closed);
            queue.closing = true;
        }
        self.shared.signal.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the log thread panicked");
        }
        self.engine.lock().take();
    }

    /// Removes files that nobody needs, now and then. Returns logs that hold old files back: their owners should
    /// flush, and cut.
    pub(crate) fn purge(&self) -> Vec<LogId> {
        let written = self.shared.metrics.written_bytes.load(Ordering::Relaxed);
        let since = written - self.purged_at.load(Ordering::Relaxed);
        if since < self.file_bytes {
            return Vec::new();
        }
        self.purged_at.store(written, Ordering::Relaxed);
        let Some(engine) = self.engine.lock().clone() else {
            return Vec::new();
        };
        match catch_unwind(AssertUnwindSafe(|| engine.purge_expired_files())) {
            Ok(Ok(logs)) => logs.into_iter().map(LogId).collect(),
            Ok(Err(error)) => {
                self.shared.fail(&error.to_string(), None);
                Vec::new()
            }
            Err(_) => {
                self.shared
                    .fail("rewriting old files of the log failed", None);
                Vec::new()
            }
        }
    }

    fn read_files(
        &self,
        log: LogId,
        first: u64,
        last: u64,
        size_bytes_max: u64,
    ) -> Result<Vec<LogEntry>, LogError> {
        let engine = self.engine.lock().clone();
        let engine = engine.ok_or_else(|| LogError::Failed("the log is closed".to_owned()))?;
        let size_max = usize::try_from(size_bytes_max).unwrap_or(usize::MAX);
        let mut framed = Vec::new();
        let fetched = catch_unwind(AssertUnwindSafe(|| {
            let end = last + 1;
            engine.fetch_entries_to::<writer::Framing>(
                log.0,
                first,
                end,
                Some(size_max),
                &mut framed,
            )
        }));
        match fetched {
            Ok(Ok(_)) => {}
            // It was cut meanwhile.
            Ok(Err(raft_engine::Error::EntryCompacted | raft_engine::Error::EntryNotFound)) => {
                return Err(LogError::Missing(log, first));
            }
            Ok(Err(error)) => return Err(LogError::Corrupt(error.to_string())),
            Err(_) => return Err(LogError::Corrupt(format!("entry {first} of log {}", log.0))),
        }
        let entries: Option<Vec<LogEntry>> = framed.into_iter().map(writer::decode).collect();
        match entries {
            Some(entries) if entries.is_empty() => Err(LogError::Missing(log, first)),
            Some(entries) => Ok(entries),
            None => Err(LogError::Corrupt(format!("entry {first} of log {}", log.0))),
        }
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn path_to_string(path: &Path) -> Result<String, OpenError> {
    let path_string = path.to_str();
    path_string
        .map(str::to_owned)
        .ok_or_else(|| OpenError::Io(format!("{}: the path is not valid UTF-8", path.display())))
}

/// Waits a little for a process that is just ending.
fn open_engine(directory: &Path, config: &Config) -> Result<Engine, OpenError> {
    let begin = Instant::now();
    loop {
        let opened = match catch_unwind(|| Engine::open(config.clone())) {
            Ok(opened) => opened.map_err(|error| open_error(directory, &error)),
            Err(_) => Err(OpenError::Corrupt(directory.display().to_string())),
        };
        match opened {
            Err(OpenError::InUse(_)) if begin.elapsed() < IN_USE_WAIT => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

fn open_error(directory: &Path, error: &raft_engine::Error) -> OpenError {
    let text = format!("{}: {error}", directory.display());
    match error {
        raft_engine::Error::Io(_) => OpenError::Io(text),
        raft_engine::Error::Other(_) => OpenError::InUse(text),
        _ => OpenError::Corrupt(text),
    }
}

/// What is in the files. Where a log's own mark says that it was cut higher than the entries in the files begin
/// (rewriting old files can bring back what was cut), the mark counts.
fn recover(engine: &Engine) -> Result<HashMap<LogId, OneLog>, OpenError> {
    let mut logs = HashMap::new();
    let mut stale = raft_engine::LogBatch::default();
    let corrupt = |error: raft_engine::Error| OpenError::Corrupt(error.to_string());
    for id in engine.raft_groups() {
        let mark = engine.get(id, &writer::FIRST_KEY);
        let mark = mark.and_then(|mark| Some(u64::from_be_bytes(*mark.first_chunk()?)));
        let found = engine.first_index(id).unwrap_or(1);
        let first = found.max(mark.unwrap_or(1));
        let next = engine.last_index(id).map_or(first, |last| last + 1);
        if found < first && engine.first_index(id).is_some() {
            writer::cut(&mut stale, LogId(id), first).map_err(corrupt)?;
        }
        let mut one = OneLog::recovered(first, next.max(first));
        let scanned = engine.scan_raw_messages(id, None, None, false, |key, value| {
            if let Some(key) = writer::decode_key(key) {
                one.set_record(key.to_vec(), Bytes::copy_from_slice(value));
            }
            true
        });
        scanned.map_err(corrupt)?;
        logs.insert(LogId(id), one);
    }
    if !stale.is_empty() {
        engine.write(&mut stale, true).map_err(corrupt)?;
    }
    Ok(logs)
}

impl Log for FileLog {
    fn write(&self, batch: LogBatch) -> Durable {
        match self.shared.queue(batch, None) {
            Ok(completion) => Box::pin(Written::new(completion)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn write_later(&self, batch: LogBatch, interval_ms: u32) {
        let by = Instant::now() + Duration::from_millis(u64::from(interval_ms));
        if let Err(error @ LogError::Refused(_)) = self.shared.queue(batch, Some(by)) {
            tracing::error!(%error, "a batch for the log breaks the rules");
        }
    }

    fn entries(
        &self,
        log: LogId,
        first: u64,
        last: u64,
        size_bytes_max: u64,
    ) -> Result<Vec<LogEntry>, LogError> {
        let found = {
            let queue = self.shared.queue.lock();
            queue.logs.find(log, first, last, size_bytes_max)?
        };
        match found {
            Found::Here(entries) => Ok(entries),
            Found::Written { last } => self.read_files(log, first, last, size_bytes_max),
        }
    }

    fn bounds(&self, log: LogId) -> Option<LogBounds> {
        self.shared.queue.lock().logs.bounds(log)
    }

    fn get(&self, log: LogId, key: &[u8]) -> Option<Bytes> {
        self.shared.queue.lock().logs.get(log, key)
    }

    fn logs(&self) -> Vec<LogId> {
        self.shared.queue.lock().logs.ids()
    }

    fn pressure_permille(&self) -> u32 {
        if self.shared.has_failed.load(Ordering::Relaxed) {
            return 1_000;
        }
        let queued = self.shared.metrics.queued_bytes.load(Ordering::Relaxed);
        let above = queued.saturating_sub(SLOW_BYTES);
        (above * 1_000 / (STOP_BYTES - SLOW_BYTES)).min(1_000) as u32
    }
}
