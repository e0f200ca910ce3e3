//! The simulated log. Batches queue up; a sync takes seeded time and covers what was queued when it began; what
//! comes meanwhile waits for the next one.

use super::{CRASHED, Disk, SYNC_MICROS};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use world::planted::{self, Bug};
use world::{Durable, Log, LogBatch, LogBounds, LogEntry, LogError, LogId, LogOperation};

/// One log's content.
#[derive(Clone)]
struct OneLog {
    /// Index of the first of `entries`, or of the next append where there are none.
    first: u64,
    entries: VecDeque<LogEntry>,
    records: BTreeMap<Vec<u8>, Bytes>,
}

impl Default for OneLog {
    fn default() -> Self {
        OneLog {
            first: 1,
            entries: VecDeque::new(),
            records: BTreeMap::new(),
        }
    }
}

impl OneLog {
    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn exists(&self) -> bool {
        self.next() > 1 || !self.records.is_empty()
    }
}

#[derive(Clone, Default)]
struct Content {
    logs: BTreeMap<LogId, OneLog>,
}

impl Content {
    /// Says what is wrong with a batch, with nothing changed.
    fn check(&self, batch: &LogBatch) -> Result<(), String> {
        // What the batch itself has changed so far: (first, next) by log.
        let mut spans: BTreeMap<LogId, (u64, u64)> = BTreeMap::new();
        for operation in &batch.operations {
            let span_of = |log: &LogId| {
                self.logs
                    .get(log)
                    .map_or((1, 1), |one| (one.first, one.next()))
            };
            match operation {
                LogOperation::Append { log, entries } => {
                    let span = spans.entry(*log).or_insert_with(|| span_of(log));
                    let Some(begin) = entries.first().map(|entry| entry.index) else {
                        continue;
                    };
                    if begin < span.0 || begin > span.1 {
                        return Err(format!(
                            "append at {begin} to log {} which holds {} .. {}",
                            log.0, span.0, span.1
                        ));
                    }
                    if let Some((at, _)) = (begin..)
                        .zip(entries)
                        .find(|(at, entry)| entry.index != *at)
                    {
                        return Err(format!("a gap at {at} in an append to log {}", log.0));
                    }
                    span.1 = begin + entries.len() as u64;
                }
                LogOperation::Cut { log, first } => {
                    let span = spans.entry(*log).or_insert_with(|| span_of(log));
                    *span = (span.0.max(*first), span.1.max(*first));
                }
                LogOperation::Remove { log } => {
                    spans.insert(*log, (1, 1));
                }
                LogOperation::Put { .. } | LogOperation::Delete { .. } => {}
            }
        }
        Ok(())
    }

    fn apply(&mut self, batch: &LogBatch) {
        for operation in &batch.operations {
            match operation {
                LogOperation::Append { log, entries } => {
                    if let Some(begin) = entries.first().map(|entry| entry.index) {
                        let one = self.logs.entry(*log).or_default();
                        one.entries.truncate((begin - one.first) as usize);
                        one.entries.extend(entries.iter().cloned());
                    }
                }
                LogOperation::Put { log, key, value } => {
                    let one = self.logs.entry(*log).or_default();
                    one.records.insert(key.clone(), value.clone());
                }
                LogOperation::Delete { log, key } => {
                    if let Some(one) = self.logs.get_mut(log) {
                        one.records.remove(key);
                    }
                }
                LogOperation::Cut { log, first } => {
                    let one = self.logs.entry(*log).or_default();
                    let dropped = first.saturating_sub(one.first);
                    let present = (one.entries.len() as u64).min(dropped);
                    one.entries.drain(..present as usize);
                    one.first += dropped;
                }
                LogOperation::Remove { log } => {
                    self.logs.remove(log);
                }
            }
        }
    }
}

/// A sync under way: covers the batches numbered below `covers`.
struct Sync {
    begin: Instant,
    end: Instant,
    covers: u64,
}

#[derive(Default)]
pub(super) struct LogDisk {
    /// What a crash now would keep for certain.
    durable: Content,
    /// What this opening reads.
    visible: Content,
    /// Queued and not yet durable, oldest first, each with whether somebody waits for it.
    queue: VecDeque<LogBatch>,
    /// Batches that have become durable since the beginning of time: the number of the queue's first.
    synced: u64,
    /// The sync under way and the one after it, which begins at its end.
    syncs: VecDeque<Sync>,
    /// When what is queued and nobody waits for must begin to be synced.
    deadline: Option<Instant>,
    failed: Option<String>,
}

impl LogDisk {
    fn queued(&self) -> u64 {
        self.synced + self.queue.len() as u64
    }
}

/// Makes a sync cover the newest queued batch, and says when that one ends.
fn schedule(disk: &mut Disk, now: Instant) -> Instant {
    let latency = disk.latency(SYNC_MICROS);
    let covers = disk.log.queued();
    let log = &mut disk.log;
    log.deadline = None;
    let begin = match log.syncs.back_mut() {
        // It has not begun, or begins in this very moment.
        Some(last) if last.begin >= now => {
            last.covers = covers;
            return last.end;
        }
        Some(last) => last.end,
        None => now,
    };
    let end = begin + latency;
    log.syncs.push_back(Sync { begin, end, covers });
    end
}

/// Makes durable what has become so until `now`.
pub(super) fn settle(disk: &mut Disk, now: Instant) {
    loop {
        if disk.log.failed.is_some() {
            return;
        }
        if let Some(deadline) = disk.log.deadline.filter(|deadline| *deadline <= now) {
            schedule(disk, deadline);
        }
        let log = &mut disk.log;
        match log.syncs.front() {
            Some(sync) if sync.end <= now => {}
            _ => return,
        }
        let sync = log.syncs.pop_front().expect("it was just looked at");
        if disk.failing {
            log.failed = Some("simulated failure of a sync".to_owned());
            return;
        }
        while log.synced < sync.covers {
            let batch = log.queue.pop_front().expect("a sync covers queued batches");
            log.durable.apply(&batch);
            log.synced += 1;
        }
    }
}

/// Makes all that is queued durable.
pub(super) fn sync(disk: &mut Disk) {
    let log = &mut disk.log;
    log.synced += log.queue.len() as u64;
    for batch in log.queue.drain(..) {
        log.durable.apply(&batch);
    }
    log.syncs.clear();
    log.deadline = None;
}

/// Power loss: settles, keeps a seeded prefix of what was queued, and forgets the rest.
pub(super) fn crash(disk: &mut Disk, now: Instant) {
    settle(disk, now);
    let queued = disk.log.queue.len();
    let survivors = disk.random.random_range(0..=queued);
    let log = &mut disk.log;
    for batch in log.queue.drain(..).take(survivors) {
        log.durable.apply(&batch);
    }
    // Numbers go on, so that whoever waits for a lost batch does not take a later one for it.
    log.synced += queued as u64;
    log.visible = log.durable.clone();
    log.syncs.clear();
    log.deadline = None;
    log.failed = None;
}

pub(super) struct SimLog {
    disk: Arc<Mutex<Disk>>,
    generation: u64,
}

impl SimLog {
    pub(super) fn new(disk: Arc<Mutex<Disk>>, generation: u64) -> SimLog {
        SimLog { disk, generation }
    }

    /// Queues a batch, if this handle and the log still live.
    fn queue(&self, disk: &mut Disk, batch: LogBatch) -> Result<(), LogError> {
        alive(disk, self.generation)?;
        disk.log.visible.check(&batch).map_err(LogError::Refused)?;
        disk.log.visible.apply(&batch);
        disk.log.queue.push_back(batch);
        Ok(())
    }

    fn read<T>(&self, read: impl FnOnce(&Content) -> T, dead: T) -> T {
        let disk = self.disk.lock();
        if disk.generation != self.generation {
            return dead;
        }
        read(&disk.log.visible)
    }
}

fn alive(disk: &Disk, generation: u64) -> Result<(), LogError> {
    if disk.generation != generation {
        return Err(LogError::Failed(CRASHED.to_owned()));
    }
    match &disk.log.failed {
        Some(reason) => Err(LogError::Failed(reason.clone())),
        None => Ok(()),
    }
}

impl Log for SimLog {
    fn write(&self, batch: LogBatch) -> Durable {
        let now = Instant::now();
        let mut disk = self.disk.lock();
        settle(&mut disk, now);
        if let Err(error) = self.queue(&mut disk, batch) {
            return Box::pin(std::future::ready(Err(error)));
        }
        let end = schedule(&mut disk, now);
        if planted::is(Bug::AcknowledgeBeforeSync) {
            return Box::pin(std::future::ready(Ok(())));
        }
        let shared = self.disk.clone();
        let generation = self.generation;
        Box::pin(async move {
            tokio::time::sleep_until(end).await;
            let mut disk = shared.lock();
            // Not at the wake-up's own time, which is rounded up to a millisecond: others must not see a sync
            // earlier than whoever waits for it.
            settle(&mut disk, Instant::now());
            alive(&disk, generation)
        })
    }

    fn write_later(&self, batch: LogBatch, interval_ms: u32) {
        let now = Instant::now();
        let mut disk = self.disk.lock();
        settle(&mut disk, now);
        if self.queue(&mut disk, batch).is_err() {
            return;
        }
        let deadline = now + Duration::from_millis(u64::from(interval_ms));
        let log = &mut disk.log;
        log.deadline = Some(log.deadline.map_or(deadline, |other| other.min(deadline)));
    }

    fn entries(
        &self,
        log: LogId,
        first: u64,
        last: u64,
        size_bytes_max: u64,
    ) -> Result<Vec<LogEntry>, LogError> {
        let disk = self.disk.lock();
        alive(&disk, self.generation)?;
        let missing = || LogError::Missing(log, first);
        let one = disk.log.visible.logs.get(&log).ok_or_else(missing)?;
        if first < one.first || first >= one.next() || last < first {
            return Err(missing());
        }
        if last >= one.next() {
            return Err(LogError::Missing(log, one.next()));
        }
        let mut entries = Vec::new();
        let mut size_bytes = 0;
        let span = (first - one.first) as usize..=(last - one.first) as usize;
        for entry in one.entries.range(span) {
            size_bytes += entry.data.len() as u64;
            if !entries.is_empty() && size_bytes > size_bytes_max {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn bounds(&self, log: LogId) -> Option<LogBounds> {
        self.read(
            |content| {
                let one = content.logs.get(&log).filter(|one| one.exists())?;
                Some(LogBounds {
                    first: one.first,
                    last: one.next() - 1,
                })
            },
            None,
        )
    }

    fn get(&self, log: LogId, key: &[u8]) -> Option<Bytes> {
        self.read(
            |content| content.logs.get(&log)?.records.get(key).cloned(),
            None,
        )
    }

    fn logs(&self) -> Vec<LogId> {
        self.read(
            |content| {
                let existing = content.logs.iter().filter(|(_, one)| one.exists());
                existing.map(|(log, _)| *log).collect()
            },
            Vec::new(),
        )
    }
}
