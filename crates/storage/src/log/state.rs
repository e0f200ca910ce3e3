//! What a log looks like to its readers: everything queued included, whether or not it is on disk yet.
//!
//! Each log keeps its newest entries in memory (its tail): always those that are not written yet, and of the
//! written ones as many as the budget allows. Older ones are read from the files.

use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use world::{LogBatch, LogBounds, LogEntry, LogError, LogId, LogOperation};

/// A log's tail is never cut shorter than this for want of memory.
const TAIL_BYTES_MIN: u64 = 4 << 10;
/// What an entry costs in memory apart from its data.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

struct Cached {
    entry: LogEntry,
    /// Number of the batch that brought it.
    batch: u64,
}

pub(super) struct OneLog {
    first: u64,
    next: u64,
    /// The entries `next - tail.len() .. next`.
    tail: VecDeque<Cached>,
    tail_bytes: u64,
    records: BTreeMap<Vec<u8>, Bytes>,
}

impl Default for OneLog {
    fn default() -> Self {
        OneLog::recovered(1, 1)
    }
}

impl OneLog {
    /// A log as it was found in the files: its entries are there, none in memory.
    pub(super) fn recovered(first: u64, next: u64) -> OneLog {
        OneLog {
            first,
            next,
            tail: VecDeque::new(),
            tail_bytes: 0,
            records: BTreeMap::new(),
        }
    }

    pub(super) fn set_record(&mut self, key: Vec<u8>, value: Bytes) {
        self.records.insert(key, value);
    }

    fn exists(&self) -> bool {
        self.first > 1 || self.next > self.first || !self.records.is_empty()
    }

    fn bounds(&self) -> LogBounds {
        LogBounds {
            first: self.first,
            last: self.next - 1,
        }
    }

    fn tail_first(&self) -> u64 {
        self.next - self.tail.len() as u64
    }

    fn push(&mut self, entry: &LogEntry, batch: u64) {
        self.tail_bytes += cost(entry);
        self.next = entry.index + 1;
        let entry = entry.clone();
        self.tail.push_back(Cached { entry, batch });
    }

    fn pop_front(&mut self) {
        if let Some(cached) = self.tail.pop_front() {
            self.tail_bytes -= cost(&cached.entry);
        }
    }

    /// Drops the entries at `index` and above.
    fn truncate(&mut self, index: u64) {
        while self.next > index {
            self.next -= 1;
            if let Some(cached) = self.tail.pop_back() {
                self.tail_bytes -= cost(&cached.entry);
            }
        }
    }

    fn cut(&mut self, first: u64) {
        if first <= self.first {
            return;
        }
        while !self.tail.is_empty() && self.tail_first() < first {
            self.pop_front();
        }
        self.first = first;
        self.next = self.next.max(first);
    }

    /// Forgets written entries of the tail until it costs at most `limit_bytes`.
    fn trim(&mut self, limit_bytes: u64, written: u64) {
        while self.tail_bytes > limit_bytes {
            match self.tail.front() {
                Some(cached) if cached.batch <= written => self.pop_front(),
                _ => return,
            }
        }
    }
}

fn cost(entry: &LogEntry) -> u64 {
    entry.data.len() as u64 + ENTRY_OVERHEAD_BYTES
}

/// Where wanted entries are.
pub(super) enum Found {
    Here(Vec<LogEntry>),
    /// In the files, up to this index at most.
    Written {
        last: u64,
    },
}

pub(super) struct Logs {
    logs: HashMap<LogId, OneLog>,
    tail_bytes: u64,
    budget_bytes: u64,
    /// All batches up to this number are in the files.
    pub(super) written: u64,
}

impl Logs {
    pub(super) fn new(logs: HashMap<LogId, OneLog>, budget_bytes: u64) -> Logs {
        Logs {
            logs,
            tail_bytes: 0,
            budget_bytes,
            written: 0,
        }
    }

    /// Says what is wrong with a batch, with nothing changed.
    pub(super) fn check(&self, batch: &LogBatch) -> Result<(), LogError> {
        // The spans (first, next) that the batch itself has changed so far. Few logs are in one batch.
        let mut spans: Vec<(LogId, (u64, u64))> = Vec::new();
        for operation in &batch.operations {
            let (log, change) = match operation {
                LogOperation::Append { log, entries } => match entries.first() {
                    Some(entry) => (*log, (Some(entry.index), entries.len() as u64)),
                    None => continue,
                },
                LogOperation::Cut { log, first } => (*log, (None, *first)),
                LogOperation::Remove { log } => (*log, (None, 0)),
                LogOperation::Put { .. } | LogOperation::Delete { .. } => continue,
            };
            let known = spans.iter_mut().find(|(other, _)| *other == log);
            let span = match known {
                Some((_, span)) => span,
                None => {
                    let one = self.logs.get(&log);
                    spans.push((log, one.map_or((1, 1), |one| (one.first, one.next))));
                    &mut spans.last_mut().expect("it was just pushed").1
                }
            };
            match (operation, change) {
                (LogOperation::Append { entries, .. }, (Some(begin), count)) => {
                    check_append(log, *span, begin, entries)?;
                    span.1 = begin + count;
                }
                (LogOperation::Remove { .. }, _) => *span = (1, 1),
                (_, (_, first)) => *span = (span.0.max(first), span.1.max(first)),
            }
        }
        Ok(())
    }

    /// Makes a checked batch visible.
    pub(super) fn apply(&mut self, batch: &LogBatch, number: u64) {
        for operation in &batch.operations {
            match operation {
                LogOperation::Append { log, entries } => self.append(*log, entries, number),
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
                    self.tail_bytes -= one.tail_bytes;
                    one.cut(*first);
                    self.tail_bytes += one.tail_bytes;
                }
                LogOperation::Remove { log } => {
                    if let Some(one) = self.logs.remove(log) {
                        self.tail_bytes -= one.tail_bytes;
                    }
                }
            }
        }
        if self.tail_bytes > self.budget_bytes {
            self.trim_all();
        }
    }

    fn append(&mut self, log: LogId, entries: &[LogEntry], number: u64) {
        let Some(begin) = entries.first().map(|entry| entry.index) else {
            return;
        };
        let limit_bytes = self.budget_bytes / (self.logs.len() as u64 + 1);
        let one = self.logs.entry(log).or_default();
        self.tail_bytes -= one.tail_bytes;
        one.truncate(begin);
        for entry in entries {
            one.push(entry, number);
        }
        one.trim(limit_bytes.max(TAIL_BYTES_MIN), self.written);
        self.tail_bytes += one.tail_bytes;
    }

    /// Logs that were busy and are idle now keep long tails; this takes them back. Down to half of what would
    /// do, so that it does not run for each batch.
    fn trim_all(&mut self) {
        let limit_bytes = self.budget_bytes / (2 * self.logs.len() as u64);
        for one in self.logs.values_mut() {
            self.tail_bytes -= one.tail_bytes;
            one.trim(limit_bytes, self.written);
            self.tail_bytes += one.tail_bytes;
        }
    }

    pub(super) fn find(
        &self,
        log: LogId,
        first: u64,
        last: u64,
        size_bytes_max: u64,
    ) -> Result<Found, LogError> {
        let one = self.logs.get(&log);
        let one = one.ok_or(LogError::Missing(log, first))?;
        if first < one.first || first >= one.next || last < first {
            return Err(LogError::Missing(log, first));
        }
        if last >= one.next {
            return Err(LogError::Missing(log, one.next));
        }
        let tail_first = one.tail_first();
        if first < tail_first {
            let last = last.min(tail_first - 1);
            return Ok(Found::Written { last });
        }
        let span = (first - tail_first) as usize..=(last - tail_first) as usize;
        let mut entries = Vec::new();
        let mut size_bytes = 0;
        for cached in one.tail.range(span) {
            size_bytes += cached.entry.data.len() as u64;
            if !entries.is_empty() && size_bytes > size_bytes_max {
                break;
            }
            entries.push(cached.entry.clone());
        }
        Ok(Found::Here(entries))
    }

    pub(super) fn bounds(&self, log: LogId) -> Option<LogBounds> {
        let one = self.logs.get(&log).filter(|one| one.exists())?;
        Some(one.bounds())
    }

    pub(super) fn get(&self, log: LogId, key: &[u8]) -> Option<Bytes> {
        self.logs.get(&log)?.records.get(key).cloned()
    }

    pub(super) fn ids(&self) -> Vec<LogId> {
        let existing = self.logs.iter().filter(|(_, one)| one.exists());
        let mut ids: Vec<LogId> = existing.map(|(log, _)| *log).collect();
        ids.sort_unstable();
        ids
    }
}

fn check_append(
    log: LogId,
    (first, next): (u64, u64),
    begin: u64,
    entries: &[LogEntry],
) -> Result<(), LogError> {
    if begin < first || begin > next {
        return Err(LogError::Refused(format!(
            "append at {begin} to log {}, which begins at {first} and goes on at {next}",
            log.0
        )));
    }
    let gap = (begin..)
        .zip(entries)
        .find(|(at, entry)| entry.index != *at);
    match gap {
        Some((at, _)) => Err(LogError::Refused(format!(
            "an append to log {} lacks entry {at}",
            log.0
        ))),
        None => Ok(()),
    }
}
