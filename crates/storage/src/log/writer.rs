//! The log thread: takes all that waits, writes it as one record, syncs once, and wakes whoever waited.
//!
//! Each record is synced before the next one is written; `check` relies on it when it tells a torn tail from
//! damage. What nobody waits for (`write_later`) therefore stays in memory until its time has come.

use super::Shared;
use super::completion::Completion;
use protobuf::well_known_types::BytesValue;
use raft_engine::{Command, Engine, LogBatch as Record, MessageExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use world::{LogBatch, LogEntry, LogId, LogOperation};

/// A group is written in records of about this size at most; a batch is never divided.
const RECORD_BYTES_MAX: usize = 8 << 20;
/// An entry in a file begins with its index and its term.
const ENTRY_HEADER_BYTES: usize = 16;
/// First byte of the keys of records: the callers' own, and those of this module.
const CALLERS_KEY: u8 = 1;
/// Where the log was cut, because `raft-engine` forgets that of a log without entries: 8 bytes, big-endian.
pub(super) const FIRST_KEY: [u8; 1] = [0];

/// What is written together.
pub(super) struct Group {
    pub(super) batches: Vec<LogBatch>,
    pub(super) bytes: u64,
    /// Number of the last batch.
    pub(super) last: u64,
    pub(super) completion: Arc<Completion>,
}

/// How entries look inside `raft-engine`, which wants a protobuf message.
#[derive(Clone)]
pub(super) struct Framing;

impl MessageExt for Framing {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let index = entry.value.first_chunk::<8>();
        index.map_or(0, |index| u64::from_be_bytes(*index))
    }
}

fn encode(entry: &LogEntry) -> BytesValue {
    let mut value = Vec::with_capacity(ENTRY_HEADER_BYTES + entry.data.len());
    value.extend_from_slice(&entry.index.to_be_bytes());
    value.extend_from_slice(&entry.term.to_be_bytes());
    value.extend_from_slice(&entry.data);
    BytesValue {
        value,
        ..BytesValue::default()
    }
}

/// `None` on bytes that `encode` never makes.
pub(super) fn decode(entry: BytesValue) -> Option<LogEntry> {
    let (index, rest) = entry.value.split_first_chunk::<8>()?;
    let (term, _) = rest.split_first_chunk::<8>()?;
    Some(LogEntry {
        index: u64::from_be_bytes(*index),
        term: u64::from_be_bytes(*term),
        data: bytes::Bytes::from(entry.value).slice(ENTRY_HEADER_BYTES..),
    })
}

pub(super) fn encode_key(key: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(1 + key.len());
    encoded.push(CALLERS_KEY);
    encoded.extend_from_slice(key);
    encoded
}

/// A caller's key as it was given; `None` for this module's own.
pub(super) fn decode_key(key: &[u8]) -> Option<&[u8]> {
    match key.split_first() {
        Some((&CALLERS_KEY, key)) => Some(key),
        _ => None,
    }
}

/// The body of the log thread.
pub(super) fn run(shared: &Shared, engine: &Engine) {
    let mut record = Record::default();
    while let Some(group) = shared.next_group() {
        // Where a sync fails, the library panics: what the file holds then is unknown.
        let written = catch_unwind(AssertUnwindSafe(|| {
            write_group(shared, engine, &mut record, &group)
        }));
        match written {
            Ok(Ok(())) => shared.group_is_written(&group),
            Ok(Err(error)) => return shared.fail(&error.to_string(), Some(&group)),
            Err(_) => return shared.fail("a write or sync of the log failed", Some(&group)),
        }
    }
}

fn write_group(
    shared: &Shared,
    engine: &Engine,
    record: &mut Record,
    group: &Group,
) -> raft_engine::Result<()> {
    for batch in &group.batches {
        for operation in &batch.operations {
            add(shared, record, operation)?;
        }
        if record.approximate_size() >= RECORD_BYTES_MAX {
            write_record(shared, engine, record)?;
        }
    }
    write_record(shared, engine, record)
}

fn write_record(shared: &Shared, engine: &Engine, record: &mut Record) -> raft_engine::Result<()> {
    if record.is_empty() {
        return Ok(());
    }
    let begin = Instant::now();
    let bytes = engine.write(record, true)?;
    let micros = begin.elapsed().as_micros() as u64;
    shared.metrics.count_sync(bytes as u64, micros);
    Ok(())
}

fn add(shared: &Shared, record: &mut Record, operation: &LogOperation) -> raft_engine::Result<()> {
    match operation {
        LogOperation::Append { log, entries } => {
            let count = entries.len() as u64;
            shared.metrics.entries.fetch_add(count, Ordering::Relaxed);
            let entries: Vec<BytesValue> = entries.iter().map(encode).collect();
            record.add_entries::<Framing>(log.0, &entries)
        }
        LogOperation::Put { log, key, value } => record.put(log.0, encode_key(key), value.to_vec()),
        LogOperation::Delete { log, key } => {
            record.delete(log.0, encode_key(key));
            Ok(())
        }
        LogOperation::Cut { log, first } => cut(record, *log, *first),
        LogOperation::Remove { log } => {
            record.add_command(log.0, Command::Clean);
            Ok(())
        }
    }
}

pub(super) fn cut(record: &mut Record, log: LogId, first: u64) -> raft_engine::Result<()> {
    record.add_command(log.0, Command::Compact { index: first });
    record.put(log.0, FIRST_KEY.to_vec(), first.to_be_bytes().to_vec())
}
