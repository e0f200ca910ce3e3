//! The rules of `Log`.

use super::{NewDisk, Random};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use world::{Log, LogBatch, LogBounds, LogEntry, LogError, LogId, LogOperation};

const LOG: LogId = LogId(7);

fn entry(index: u64, term: u64, data: &str) -> LogEntry {
    LogEntry {
        index,
        term,
        data: Bytes::copy_from_slice(data.as_bytes()),
    }
}

fn append(log: LogId, entries: Vec<LogEntry>) -> LogOperation {
    LogOperation::Append { log, entries }
}

fn put(log: LogId, key: &str, value: &str) -> LogOperation {
    LogOperation::Put {
        log,
        key: key.as_bytes().to_vec(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn batch(operations: Vec<LogOperation>) -> LogBatch {
    LogBatch { operations }
}

async fn write(log: &Arc<dyn Log>, operations: Vec<LogOperation>) {
    let written = log.write(batch(operations)).await;
    assert_eq!(written, Ok(()), "a write within the rules succeeds");
}

async fn write_entries(log: &Arc<dyn Log>, indexes: std::ops::RangeInclusive<u64>, term: u64) {
    let entries = indexes.map(|index| entry(index, term, &format!("{index} of {term}")));
    write(log, vec![append(LOG, entries.collect())]).await;
}

/// All entries of a log, each read.
fn read_all(log: &Arc<dyn Log>, id: LogId) -> Vec<LogEntry> {
    let mut entries = Vec::new();
    let Some(bounds) = log.bounds(id) else {
        return entries;
    };
    let mut next = bounds.first;
    while next <= bounds.last {
        let read = log.entries(id, next, bounds.last, 1_000);
        let read = read.expect("entries within the bounds can be read");
        assert!(!read.is_empty(), "at least one entry is read");
        for entry in read {
            assert_eq!(entry.index, next, "entries come in order");
            next += 1;
            entries.push(entry);
        }
    }
    entries
}

fn bounds(first: u64, last: u64) -> Option<LogBounds> {
    Some(LogBounds { first, last })
}

pub(super) async fn entries_are_read_back(new: NewDisk<'_>) {
    let mut disk = new();
    let (log, _) = disk.open();
    assert_eq!(log.bounds(LOG), None);
    assert_eq!(log.logs(), vec![]);
    write_entries(&log, 1..=10, 1).await;
    for round in 0..2 {
        let (log, _) = match round {
            0 => (log.clone(), None),
            _ => {
                disk.close();
                let (log, stores) = disk.open();
                (log, Some(stores))
            }
        };
        assert_eq!(log.bounds(LOG), bounds(1, 10));
        assert_eq!(log.logs(), vec![LOG]);
        let read = log.entries(LOG, 3, 5, 1 << 20);
        let texts: Vec<LogEntry> = (3..=5)
            .map(|index| entry(index, 1, &format!("{index} of 1")))
            .collect();
        assert_eq!(read, Ok(texts));
        let one = log.entries(LOG, 3, 5, 0).expect("a limit leaves one entry");
        assert_eq!(one.len(), 1, "at least one entry, whatever the limit");
        assert_eq!(log.entries(LOG, 9, 12, 1), Err(LogError::Missing(LOG, 11)));
        assert_eq!(log.entries(LOG, 11, 11, 1), Err(LogError::Missing(LOG, 11)));
        assert_eq!(log.entries(LOG, 0, 1, 1), Err(LogError::Missing(LOG, 0)));
        let other = LogId(8);
        assert_eq!(
            log.entries(other, 1, 1, 1),
            Err(LogError::Missing(other, 1))
        );
    }
    disk.close();
}

pub(super) async fn an_append_replaces_what_it_overlaps(new: NewDisk<'_>) {
    let mut disk = new();
    let (log, _) = disk.open();
    write_entries(&log, 1..=10, 1).await;
    write_entries(&log, 4..=6, 2).await;
    let terms = |log: &Arc<dyn Log>| -> Vec<u64> {
        read_all(log, LOG).iter().map(|entry| entry.term).collect()
    };
    assert_eq!(terms(&log), [1, 1, 1, 2, 2, 2]);
    disk.crash();
    let (log, _) = disk.open();
    assert_eq!(terms(&log), [1, 1, 1, 2, 2, 2]);
    write_entries(&log, 7..=7, 3).await;
    disk.close();
    let (log, _) = disk.open();
    assert_eq!(terms(&log), [1, 1, 1, 2, 2, 2, 3]);
    disk.close();
}

pub(super) async fn what_is_queued_is_visible_at_once(new: NewDisk<'_>) {
    let mut disk = new();
    let (log, _) = disk.open();
    let first = log.write(batch(vec![append(LOG, vec![entry(1, 1, "a")])]));
    log.write_later(batch(vec![append(LOG, vec![entry(2, 1, "b")])]), 60_000);
    // Nobody waits for this one; it is written all the same.
    drop(log.write(batch(vec![
        append(LOG, vec![entry(3, 1, "c")]),
        put(LOG, "k", "v"),
    ])));
    assert_eq!(log.bounds(LOG), bounds(1, 3));
    assert_eq!(read_all(&log, LOG).len(), 3);
    assert_eq!(log.get(LOG, b"k"), Some(Bytes::from_static(b"v")));
    assert_eq!(first.await, Ok(()));
    write_entries(&log, 4..=4, 1).await;
    disk.crash();
    let (log, _) = disk.open();
    assert_eq!(
        read_all(&log, LOG).len(),
        4,
        "all before a synced batch are synced"
    );
    disk.close();
}

pub(super) async fn records_are_kept_apart_from_entries(new: NewDisk<'_>) {
    let mut disk = new();
    let (log, _) = disk.open();
    let other = LogId(9);
    write(&log, vec![put(LOG, "vote", "1"), put(other, "vote", "2")]).await;
    write(&log, vec![put(LOG, "vote", "3"), put(LOG, "", "empty")]).await;
    write_entries(&log, 1..=3, 1).await;
    let delete = LogOperation::Delete {
        log: other,
        key: b"nothing".to_vec(),
    };
    write(&log, vec![delete, LogOperation::Cut { log: LOG, first: 3 }]).await;
    for _ in 0..2 {
        disk.crash();
        let (log, _) = disk.open();
        assert_eq!(log.get(LOG, b"vote"), Some(Bytes::from_static(b"3")));
        assert_eq!(log.get(LOG, b""), Some(Bytes::from_static(b"empty")));
        assert_eq!(log.get(other, b"vote"), Some(Bytes::from_static(b"2")));
        assert_eq!(log.get(other, b"term"), None);
        assert_eq!(log.bounds(LOG), bounds(3, 3));
        assert_eq!(log.bounds(other), bounds(1, 0));
        assert_eq!(log.logs(), vec![LOG, other]);
    }
    let (log, _) = {
        disk.close();
        disk.open()
    };
    let delete = LogOperation::Delete {
        log: LOG,
        key: b"vote".to_vec(),
    };
    write(&log, vec![delete]).await;
    assert_eq!(log.get(LOG, b"vote"), None);
    disk.crash();
    let (log, _) = disk.open();
    assert_eq!(log.get(LOG, b"vote"), None);
    disk.close();
}

pub(super) async fn a_cut_log_goes_on_where_it_was_cut(new: NewDisk<'_>) {
    let mut disk = new();
    let (log, _) = disk.open();
    write_entries(&log, 1..=10, 1).await;
    let cut = |first| vec![LogOperation::Cut { log: LOG, first }];
    write(&log, cut(4)).await;
    assert_eq!(log.bounds(LOG), bounds(4, 10));
    assert_eq!(log.entries(LOG, 3, 4, 1), Err(LogError::Missing(LOG, 3)));
    write(&log, cut(2)).await;
    assert_eq!(log.bounds(LOG), bounds(4, 10), "a cut never goes back");
    write(&log, cut(11)).await;
    assert_eq!(log.bounds(LOG), bounds(11, 10), "all entries are gone");
    disk.crash();
    let (log, _) = disk.open();
    assert_eq!(log.bounds(LOG), bounds(11, 10));
    write_entries(&log, 11..=12, 2).await;
    // Behind a snapshot.
    write(&log, cut(100)).await;
    assert_eq!(log.bounds(LOG), bounds(100, 99));
    disk.crash();
    let (log, _) = disk.open();
    assert_eq!(log.bounds(LOG), bounds(100, 99));
    write_entries(&log, 100..=103, 3).await;
    disk.close();
    let (log, _) = disk.open();
    assert_eq!(log.bounds(LOG), bounds(100, 103));
    assert_eq!(read_all(&log, LOG).len(), 4);
    disk.close();
}

pub(super) async fn a_removed_log_leaves_nothing(new: NewDisk<'_>) {
    let mut disk = new();
    let (log, _) = disk.open();
    let other = LogId(8);
    write_entries(&log, 1..=3, 1).await;
    write(&log, vec![put(LOG, "k", "v"), put(other, "k", "v")]).await;
    write(&log, vec![LogOperation::Remove { log: LOG }]).await;
    let check = |log: &Arc<dyn Log>| {
        assert_eq!(log.bounds(LOG), None);
        assert_eq!(log.get(LOG, b"k"), None);
        assert_eq!(log.logs(), vec![other]);
    };
    check(&log);
    disk.crash();
    let (log, _) = disk.open();
    check(&log);
    disk.close();
}

pub(super) async fn a_batch_that_breaks_a_rule_changes_nothing(new: NewDisk<'_>) {
    let mut disk = new();
    let (log, _) = disk.open();
    write_entries(&log, 1..=5, 1).await;
    write(&log, vec![LogOperation::Cut { log: LOG, first: 3 }]).await;
    let refused = [
        vec![append(LOG, vec![entry(7, 1, "gap")])],
        vec![append(LOG, vec![entry(2, 1, "below the first")])],
        vec![append(LOG, vec![entry(6, 1, ""), entry(8, 1, "inner gap")])],
        vec![
            put(LOG, "k", "v"),
            LogOperation::Cut { log: LOG, first: 6 },
            append(LOG, vec![entry(5, 1, "below this batch's cut")]),
        ],
        vec![append(LogId(9), vec![entry(2, 1, "a log begins at 1")])],
    ];
    for operations in refused {
        let result = log.write(batch(operations)).await;
        assert!(matches!(result, Err(LogError::Refused(_))), "{result:?}");
    }
    assert_eq!(log.bounds(LOG), bounds(3, 5));
    assert_eq!(log.get(LOG, b"k"), None);
    // Within one batch the rules hold step by step.
    let operations = vec![
        append(LOG, vec![entry(6, 1, "")]),
        append(LOG, vec![entry(7, 1, "")]),
        LogOperation::Cut {
            log: LOG,
            first: 20,
        },
        append(LOG, vec![entry(20, 1, "")]),
        LogOperation::Remove { log: LogId(3) },
    ];
    write(&log, operations).await;
    assert_eq!(log.bounds(LOG), bounds(20, 20));
    disk.close();
    let (log, _) = disk.open();
    assert_eq!(log.bounds(LOG), bounds(20, 20));
    disk.close();
}

pub(super) async fn what_is_acknowledged_survives_and_the_rest_is_a_prefix(new: NewDisk<'_>) {
    for unsynced in [1, 2, 5] {
        let mut disk = new();
        let (log, _) = disk.open();
        let other = LogId(8);
        let pair = |index: u64| {
            let text = format!("{index}");
            vec![
                append(LOG, vec![entry(index, 1, &text)]),
                append(other, vec![entry(index, 1, &text)]),
                put(LOG, "last", &text),
            ]
        };
        for index in 1..=3 {
            write(&log, pair(index)).await;
        }
        for index in 4..4 + unsynced {
            drop(log.write(batch(pair(index))));
        }
        disk.crash();
        let (log, _) = disk.open();
        let last = log.bounds(LOG).map_or(0, |bounds| bounds.last);
        assert!(last >= 3, "an acknowledged entry was lost");
        assert_eq!(log.bounds(other), bounds(1, last), "a batch is atomic");
        let text = last.to_string().into_bytes();
        assert_eq!(log.get(LOG, b"last"), Some(Bytes::from(text)));
        assert_eq!(read_all(&log, LOG).len() as u64, last);
        write(&log, pair(last + 1)).await;
        disk.close();
    }
}

pub(super) async fn what_nobody_waits_for_survives_after_its_interval(new: NewDisk<'_>) {
    let mut disk = new();
    let (log, _) = disk.open();
    for index in 1..=5 {
        log.write_later(batch(vec![append(LOG, vec![entry(index, 0, "x")])]), 10);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    disk.crash();
    let (log, _) = disk.open();
    assert_eq!(log.bounds(LOG), bounds(1, 5));
    disk.close();
}

pub(super) async fn old_entries_are_read_from_files(new: NewDisk<'_>) {
    let mut disk = new();
    let (log, _) = disk.open();
    let text = "x".repeat(10_000);
    for index in 1..=200 {
        let data = format!("{index} {text}");
        write(&log, vec![append(LOG, vec![entry(index, index, &data)])]).await;
    }
    let check = |log: &Arc<dyn Log>| {
        let entries = read_all(log, LOG);
        assert_eq!(entries.len(), 200);
        for entry in entries {
            assert_eq!(entry.term, entry.index);
            assert_eq!(entry.data, format!("{} {text}", entry.index).as_bytes());
        }
    };
    check(&log);
    disk.crash();
    let (log, _) = disk.open();
    check(&log);
    disk.close();
}

/// What a log should hold.
#[derive(Clone, Default)]
struct Model {
    first: u64,
    entries: Vec<LogEntry>,
    records: BTreeMap<Vec<u8>, Bytes>,
}

impl Model {
    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn compare(&self, log: &Arc<dyn Log>, id: LogId) {
        let exists = self.first > 1 || !self.entries.is_empty() || !self.records.is_empty();
        let expected = LogBounds {
            first: self.first,
            last: self.next() - 1,
        };
        assert_eq!(log.bounds(id), exists.then_some(expected));
        assert_eq!(read_all(log, id), self.entries);
        for key in 0..4u8 {
            assert_eq!(log.get(id, &[key]), self.records.get(&vec![key]).cloned());
        }
    }
}

fn step(random: &mut Random, id: LogId, model: &mut Model) -> LogOperation {
    match random.below(10) {
        0 => {
            let first = model.first + random.below(model.entries.len() as u64 + 3);
            let dropped = (first - model.first).min(model.entries.len() as u64);
            model.entries.drain(..dropped as usize);
            model.first = first;
            LogOperation::Cut { log: id, first }
        }
        1 if random.below(4) == 0 => {
            *model = Model {
                first: 1,
                ..Model::default()
            };
            LogOperation::Remove { log: id }
        }
        1 | 2 => {
            let key = vec![random.below(4) as u8];
            model.records.remove(&key);
            LogOperation::Delete { log: id, key }
        }
        3 | 4 => {
            let key = vec![random.below(4) as u8];
            let value = Bytes::from(random.next().to_string());
            model.records.insert(key.clone(), value.clone());
            LogOperation::Put {
                log: id,
                key,
                value,
            }
        }
        _ => {
            let back = random.below(4).min(model.entries.len() as u64);
            let back = if random.below(3) == 0 { back } else { 0 };
            let begin = model.next() - back;
            let entries: Vec<LogEntry> = (begin..begin + 1 + random.below(5))
                .map(|index| entry(index, random.below(9), &random.next().to_string()))
                .collect();
            model.entries.truncate((begin - model.first) as usize);
            model.entries.extend(entries.iter().cloned());
            append(id, entries)
        }
    }
}

pub(super) async fn agrees_with_a_model(new: NewDisk<'_>, seed: u64) {
    let mut random = Random(seed);
    let mut disk = new();
    let (mut log, _) = disk.open();
    let mut models: BTreeMap<LogId, Model> =
        (1..=3).map(|id| (LogId(id), Model::default())).collect();
    models.values_mut().for_each(|model| model.first = 1);
    for _ in 0..60 {
        let mut operations = Vec::new();
        for _ in 0..1 + random.below(4) {
            let id = LogId(1 + random.below(3));
            let model = models.get_mut(&id).expect("there are three");
            operations.push(step(&mut random, id, model));
        }
        write(&log, operations).await;
        match random.below(12) {
            0 => {
                disk.crash();
                log = disk.open().0;
            }
            1 => {
                disk.close();
                log = disk.open().0;
            }
            _ => {}
        }
        for (id, model) in &models {
            model.compare(&log, *id);
        }
    }
    disk.close();
}
