//! What the stores need of the library under them, and what they make of it.

use crate::conformance::copy;
use bytes::Bytes;
use model::ReplicaId;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use storage::{Options, Storage, StoreOptions, open};
use tempfile::TempDir;
use world::{
    Applied, Kind, Store, StoreBatch, StoreError, StoreOperation, past_suffix, past_superseded_at,
};

const REPLICA: ReplicaId = ReplicaId(7);
const COPY: ReplicaId = ReplicaId(8);

fn row(number: u64) -> Vec<u8> {
    [&[Kind::Row as u8], &number.to_be_bytes()[..]].concat()
}

fn apply(store: &Arc<dyn Store>, index: u64, operations: Vec<StoreOperation>) {
    let applied = Applied { index, term: 1 };
    store
        .apply(StoreBatch {
            operations,
            applied,
        })
        .unwrap();
}

fn put(number: u64, value: impl Into<Vec<u8>>) -> StoreOperation {
    StoreOperation::Put {
        key: row(number),
        value: value.into(),
    }
}

/// Changes nothing about a copy.
fn as_it_is(copy: &dyn Store) -> Result<StoreBatch, StoreError> {
    Ok(StoreBatch {
        operations: Vec::new(),
        applied: copy.applied(),
    })
}

fn flush(store: &Arc<dyn Store>) {
    let target = store.applied();
    while store.flushed() < target {
        store.request_flush();
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn content(store: &Arc<dyn Store>) -> Vec<(Bytes, Bytes)> {
    let at = store.snapshot();
    store.scan(&[], None, &at).map(Result::unwrap).collect()
}

fn tables(directory: &Path, folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("stores").join(folder).join("tables")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Many batches, with flushes and compactions in between.
fn fill(store: &Arc<dyn Store>, first: u64, last: u64) {
    for index in first..=last {
        let value = format!("{index} {}", "x".repeat(200));
        apply(store, index, vec![put(index * 7_919 % 500, value)]);
        if index % 100 == 0 {
            flush(store);
        }
    }
}

#[test]
fn readers_see_whole_batches_while_everything_happens_at_once() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        stores: StoreOptions {
            memtable_bytes: 64 << 10,
            flush_bytes: 16 << 10,
            ..StoreOptions::default()
        },
        ..Options::default()
    };
    let storage = open(directory.path(), options).unwrap();
    let store = storage.stores.open(REPLICA).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut newest = 0;
                while !done.load(Ordering::Relaxed) {
                    let at = store.snapshot();
                    let values: Vec<(Bytes, Bytes)> = store
                        .scan(&row(0), Some(&row(20)), &at)
                        .map(Result::unwrap)
                        .collect();
                    let Some((_, first)) = values.first() else {
                        continue;
                    };
                    assert!(
                        values.iter().all(|(_, value)| value == first),
                        "half a batch"
                    );
                    assert_eq!(values.len(), 20);
                    let read = store.get(&row(13), &at).unwrap();
                    assert_eq!(read.as_ref(), Some(first), "get and scan agree");
                    let index: u64 = std::str::from_utf8(first).unwrap().trim().parse().unwrap();
                    assert!(index >= newest, "time goes back");
                    newest = index;
                }
            });
        }
        for index in 1..=1_000 {
            let value = format!("{index:>60}");
            while store.pressure_permille() > 500 {
                std::thread::sleep(Duration::from_micros(100));
            }
            apply(
                &store,
                index,
                (0..20).map(|number| put(number, value.clone())).collect(),
            );
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(storage.metrics.stores.flushes.load(Ordering::Relaxed) > 10);
    storage.close();
}

#[test]
fn a_batch_without_operations_is_flushed_as_any_other() {
    let directory = TempDir::new().unwrap();
    let storage = open(directory.path(), Options::default()).unwrap();
    let store = storage.stores.open(REPLICA).unwrap();
    apply(&store, 1, vec![put(1, "one")]);
    flush(&store);
    apply(&store, 2, Vec::new());
    flush(&store);
    assert_eq!(store.flushed().index, 2);
    let flushes = || storage.metrics.stores.flushes.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(20));
    let before = flushes();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(flushes(), before, "there is nothing more to flush");
    drop(store);
    storage.close();
    let storage = open(directory.path(), Options::default()).unwrap();
    let store = storage.stores.open(REPLICA).unwrap();
    assert_eq!(store.applied().index, 2);
    assert_eq!(content(&store).len(), 1);
}

#[test]
fn a_copy_by_links_and_its_original_compact_on_their_own() {
    let directory = TempDir::new().unwrap();
    let storage = open(directory.path(), Options::default()).unwrap();
    let store = storage.stores.open(REPLICA).unwrap();
    fill(&store, 1, 1_000);
    storage.stores.copy(REPLICA, COPY, &as_it_is).unwrap();
    let shared = tables(directory.path(), "r7-1");
    assert!(!shared.is_empty());
    for table in &shared {
        use std::os::unix::fs::MetadataExt;
        assert!(
            fs::metadata(table).unwrap().nlink() >= 2,
            "tables are linked, not copied"
        );
    }
    let copied = storage.stores.open(COPY).unwrap();
    assert_eq!(content(&store), content(&copied));
    std::thread::scope(|scope| {
        scope.spawn(|| fill(&store, 1_001, 2_500));
        scope.spawn(|| {
            for index in 1_001..=2_500 {
                apply(&copied, index, vec![put(index, "of the copy")]);
                if index % 100 == 0 {
                    flush(&copied);
                }
            }
        });
    });
    let (original, copy) = (content(&store), content(&copied));
    assert_ne!(original, copy);
    drop((store, copied));
    storage.close();
    let storage = open(directory.path(), Options::default()).unwrap();
    let store = storage.stores.open(REPLICA).unwrap();
    assert_eq!(content(&store), original);
    storage.stores.remove(REPLICA).unwrap();
    drop(store);
    let copied = storage.stores.open(COPY).unwrap();
    assert_eq!(content(&copied), copy, "links outlive the original");
    storage.close();
}

#[test]
fn a_crash_between_the_links_leaves_no_copy() {
    let directory = TempDir::new().unwrap();
    let storage = open(directory.path(), Options::default()).unwrap();
    let store = storage.stores.open(REPLICA).unwrap();
    fill(&store, 1, 1_000);
    let expected = content(&store);
    drop(store);
    storage.close();
    // Some links, and no more.
    let unfinished = directory
        .path()
        .join("stores")
        .join("r8-1.new")
        .join("tables");
    fs::create_dir_all(&unfinished).unwrap();
    let table = &tables(directory.path(), "r7-1")[0];
    fs::hard_link(table, unfinished.join(table.file_name().unwrap())).unwrap();
    let storage = open(directory.path(), Options::default()).unwrap();
    assert_eq!(storage.stores.list(), Ok(vec![(REPLICA, false)]));
    assert!(!unfinished.exists());
    let store = storage.stores.open(REPLICA).unwrap();
    assert_eq!(content(&store), expected);
    storage.stores.copy(REPLICA, COPY, &as_it_is).unwrap();
    assert_eq!(content(&storage.stores.open(COPY).unwrap()), expected);
    storage.close();
}

#[test]
fn a_crash_at_each_step_of_an_installation_keeps_the_mark_or_finishes() {
    let directory = TempDir::new().unwrap();
    let storage = open(directory.path(), Options::default()).unwrap();
    let store = storage.stores.open(REPLICA).unwrap();
    fill(&store, 1, 100);
    drop(store);
    let mut install = storage.stores.begin_install(REPLICA).unwrap();
    let value = Bytes::from_static(b"new");
    install
        .add(vec![(Bytes::from(row(1)), value.clone())])
        .unwrap();
    let before = TempDir::new().unwrap();
    copy(directory.path(), before.path());
    install
        .finish(Applied {
            index: 500,
            term: 2,
        })
        .unwrap();
    let after = TempDir::new().unwrap();
    copy(directory.path(), after.path());
    // Renamed, and not yet unmarked.
    let between = TempDir::new().unwrap();
    copy(directory.path(), between.path());
    fs::write(between.path().join("stores").join("r7.installing"), "").unwrap();
    for (image, marked) in [(&before, true), (&between, true), (&after, false)] {
        let storage = open(image.path(), Options::default()).unwrap();
        assert_eq!(storage.stores.list(), Ok(vec![(REPLICA, marked)]));
        if marked {
            let refused = storage.stores.open(REPLICA).err();
            assert_eq!(refused, Some(StoreError::Installing(REPLICA)));
            let install = storage.stores.begin_install(REPLICA).unwrap();
            install
                .finish(Applied {
                    index: 600,
                    term: 2,
                })
                .unwrap();
            assert_eq!(content(&storage.stores.open(REPLICA).unwrap()), vec![]);
        } else {
            let store = storage.stores.open(REPLICA).unwrap();
            assert_eq!(content(&store), vec![(Bytes::from(row(1)), value.clone())]);
        }
        storage.close();
    }
    storage.close();
}

#[test]
fn history_below_the_horizon_goes_wherever_it_lies_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        stores: StoreOptions {
            history_bytes: 10_000,
            ..StoreOptions::default()
        },
        ..Options::default()
    };
    let storage = open(directory.path(), options).unwrap();
    let store = storage.stores.open(REPLICA).unwrap();
    let past = |number: u64, at: i64| {
        let key = [
            &[Kind::Past as u8],
            &number.to_be_bytes()[..],
            &past_suffix(at),
        ]
        .concat();
        StoreOperation::Put {
            key,
            value: vec![b'x'; 100],
        }
    };
    let history = |store: &Arc<dyn Store>| -> Vec<i64> {
        let pairs = content(store).into_iter();
        pairs
            .filter_map(|(key, _)| past_superseded_at(&key))
            .collect()
    };
    let mut index = 0;
    for at in 0..400 {
        index += 1;
        apply(
            &store,
            index,
            vec![past(index % 10, at), put(index % 10, "row")],
        );
        if at % 50 == 0 {
            flush(&store);
        }
    }
    assert_eq!(history(&store).len(), 400, "without a horizon nothing goes");
    let old = store.snapshot();
    store.set_history_horizon(1_000);
    apply(
        &store,
        index + 1,
        vec![past(1, 999), past(1, 1_000), past(1, 1_001)],
    );
    flush(&store);
    let begin = Instant::now();
    loop {
        let mut left = history(&store);
        left.sort_unstable();
        if left == [1_000, 1_001] || left == [999, 1_000, 1_001] {
            break;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{} are left",
            left.len()
        );
        index += 1;
        apply(&store, index + 1, vec![put(index % 10, "more")]);
        flush(&store);
        std::thread::sleep(Duration::from_millis(20));
    }
    let rows = store
        .scan(&row(0), Some(&row(u64::MAX)), &store.snapshot())
        .count();
    assert_eq!(rows, 10, "rows stay");
    // A snapshot from before still reads the tables that it saw.
    let seen = store
        .scan(&[Kind::Past as u8], Some(&[Kind::Past as u8 + 1]), &old)
        .count();
    assert_eq!(seen, 400);
    storage.close();
}

#[test]
fn damage_of_a_table_breaks_its_replica_only() {
    let directory = TempDir::new().unwrap();
    let storage = open(directory.path(), Options::default()).unwrap();
    for replica in [REPLICA, COPY] {
        let store = storage.stores.open(replica).unwrap();
        fill(&store, 1, 500);
    }
    storage.close();
    for path in tables(directory.path(), "r7-1") {
        let mut content = fs::read(&path).unwrap();
        let quarter = content.len() / 4;
        content[..quarter].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(&path, content).unwrap();
    }
    let storage = open(directory.path(), Options::default()).unwrap();
    let damaged = storage.stores.open(REPLICA).and_then(|store| {
        let at = store.snapshot();
        store
            .scan(&[], None, &at)
            .try_for_each(|pair| pair.map(drop))
    });
    assert!(
        matches!(damaged, Err(StoreError::Corrupt(_))),
        "{damaged:?}"
    );
    let store = storage.stores.open(COPY).unwrap();
    assert_eq!(content(&store).len(), 500);
    storage.close();
}

#[test]
fn all_stores_together_keep_to_the_memory_budget() {
    const BUDGET: u64 = 2 << 20;
    let directory = TempDir::new().unwrap();
    let options = Options {
        stores: StoreOptions {
            memtable_bytes: BUDGET,
            flush_bytes: BUDGET,
            ..StoreOptions::default()
        },
        ..Options::default()
    };
    let storage = open(directory.path(), options).unwrap();
    let stores: Vec<Arc<dyn Store>> = (1..=16)
        .map(|replica| storage.stores.open(ReplicaId(replica)).unwrap())
        .collect();
    let mut slowed = 0;
    for index in 1..=600 {
        for store in &stores {
            while store.pressure_permille() >= 500 {
                slowed += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            apply(store, index, vec![put(index, vec![b'x'; 2_000])]);
        }
    }
    // Half of the ramp from 70 % to 100 %, and one batch.
    let disk = stores.iter().map(|store| store.size_bytes()).sum::<u64>();
    assert!(disk > 600 * 16 * 1_900, "all of it is somewhere");
    assert!(stores.iter().any(|store| store.flushed().index > 0));
    for store in &stores {
        assert_eq!(content(store).len(), 600);
    }
    println!("slowed down {slowed} times");
    storage.close();
}

fn open_empty(directory: &Path) -> (Storage, Duration) {
    let begin = Instant::now();
    let storage = open(directory, Options::default()).unwrap();
    (storage, begin.elapsed())
}

#[test]
fn opening_takes_no_time() {
    let directory = TempDir::new().unwrap();
    let (storage, empty) = open_empty(directory.path());
    for replica in 1..=20 {
        let store = storage.stores.open(ReplicaId(replica)).unwrap();
        apply(&store, 1, vec![put(1, "x")]);
        flush(&store);
    }
    storage.close();
    let begin = Instant::now();
    let (storage, _) = open_empty(directory.path());
    for replica in 1..=20 {
        storage.stores.open(ReplicaId(replica)).unwrap();
    }
    let small = begin.elapsed();
    println!("empty {empty:?}, with 20 stores {small:?}");
    assert!(
        empty.max(small) < Duration::from_millis(500),
        "far too slow: {empty:?} {small:?}"
    );
    storage.close();
}
