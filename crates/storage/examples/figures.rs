//! Prints what the log and the stores cost on this machine. `cargo run --release -p storage --example figures`,
//! optionally with one word: `log`, `store`,
//! `stalls` or `idle`. A second one is the number of rows.

use bytes::Bytes;
use model::ReplicaId;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use storage::{Options, Storage, open};
use world::{
    Applied, Kind, LogBatch, LogEntry, LogId, LogOperation, Store, StoreBatch, StoreOperation,
};

const ROWS_DEFAULT: u64 = 200_000;
const VALUE_BYTES: usize = 200;
const LOGS: u64 = 64;

fn main() {
    let what = std::env::args().nth(1).unwrap_or_default();
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    if what.is_empty() || what == "idle" {
        idle(&directory.path().join("idle"));
    }
    if what.is_empty() || what == "store" {
        let rows = std::env::args().nth(2).and_then(|rows| rows.parse().ok());
        store(
            &directory.path().join("store"),
            rows.unwrap_or(ROWS_DEFAULT),
        );
    }
    if what.is_empty() || what == "stalls" {
        stalls(&directory.path().join("stalls"));
    }
    if what.is_empty() || what == "log" {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        for writers in [1, 16, 256, 4_000] {
            let directory = directory.path().join(format!("log-{writers}"));
            runtime.block_on(log(&directory, writers, None));
        }
        let directory = directory.path().join("log-periodic");
        runtime.block_on(log(&directory, 256, Some(10)));
    }
}

fn open_here(directory: &Path) -> Storage {
    std::fs::create_dir_all(directory).expect("a directory");
    open(directory, Options::default()).expect("an open data directory")
}

fn batch(log: u64, index: u64) -> LogBatch {
    let entry = LogEntry {
        index,
        term: 1,
        data: Bytes::from(vec![7; VALUE_BYTES]),
    };
    let log = LogId(log);
    LogBatch {
        operations: vec![LogOperation::Append {
            log,
            entries: vec![entry],
        }],
    }
}

/// Each writer appends one entry at a time and waits for it (unless `periodic`).
async fn log(directory: &Path, writers: u64, periodic: Option<u32>) {
    let storage = Arc::new(open_here(directory));
    // Writers of one log take turns at its indexes, as proposals do in front of one loop.
    let next: Arc<Vec<parking_lot::Mutex<u64>>> =
        Arc::new((0..LOGS).map(|_| parking_lot::Mutex::new(1)).collect());
    let (done, micros) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let end = Instant::now() + Duration::from_secs(3);
    let cpu = cpu_micros();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (storage, next) = (storage.clone(), next.clone());
            let (done, micros) = (done.clone(), micros.clone());
            tokio::spawn(async move {
                let log = writer % LOGS;
                while Instant::now() < end {
                    let begin = Instant::now();
                    let written = {
                        let mut next = next[log as usize].lock();
                        let batch = batch(log + 1, *next);
                        *next += 1;
                        match periodic {
                            None => Some(storage.log.write(batch)),
                            Some(interval_ms) => {
                                storage.log.write_later(batch, interval_ms);
                                None
                            }
                        }
                    };
                    if let Some(written) = written {
                        written.await.expect("a durable entry");
                    } else {
                        tokio::task::yield_now().await;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    micros.fetch_add(begin.elapsed().as_micros() as u64, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a writer");
    }
    let (done, micros) = (done.load(Ordering::Relaxed), micros.load(Ordering::Relaxed));
    let syncs = storage.metrics.log.syncs.load(Ordering::Relaxed).max(1);
    let sync_micros = storage.metrics.log.sync_micros.load(Ordering::Relaxed);
    println!(
        "log, {writers} writers{}: {} entries/s, mean {} us, {:.1} entries a sync, sync {} us, cpu {:.2} us an entry",
        periodic.map_or(String::new(), |ms| format!(", periodic {ms} ms")),
        done / 3,
        micros / done.max(1),
        done as f64 / syncs as f64,
        sync_micros / syncs,
        (cpu_micros() - cpu) as f64 / done as f64
    );
}

fn row(number: u64) -> Vec<u8> {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [
        &[Kind::Row as u8],
        &scattered.to_be_bytes()[..],
        b"partition",
    ]
    .concat()
}

fn time(name: &str, count: u64, mut call: impl FnMut(u64)) {
    let begin = Instant::now();
    for number in 0..count {
        call(number);
    }
    let nanos = begin.elapsed().as_nanos() as u64 / count;
    println!("{name}: {nanos} ns");
}

fn reads(state: &str, store: &Arc<dyn Store>, rows: u64) {
    time(&format!("snapshot, {state}"), rows, |_| {
        std::hint::black_box(store.snapshot());
    });
    time(&format!("get, {state}"), rows, |number| {
        let read = store.get(&row(number * 7 % rows), &store.snapshot());
        assert!(read.expect("a row").is_some());
    });
    time(&format!("get of nothing, {state}"), rows, |number| {
        let read = store.get(&row(rows + number), &store.snapshot());
        assert!(read.expect("no row").is_none());
    });
    time(&format!("scan of 100, {state}"), rows / 100, |number| {
        let at = store.snapshot();
        let seen = store.scan(&row(number), None, &at).take(100).count();
        std::hint::black_box(seen);
    });
    time(&format!("scan of 1, {state}"), rows / 10, |number| {
        let at = store.snapshot();
        let seen = store.scan(&row(number), None, &at).take(1).count();
        std::hint::black_box(seen);
    });
}

fn store(directory: &Path, rows: u64) {
    let storage = open_here(directory);
    let store = storage.stores.open(ReplicaId(1)).expect("a store");
    time("apply of one row", rows, |number| {
        let put = StoreOperation::Put {
            key: row(number),
            value: vec![7; VALUE_BYTES],
        };
        let index = number + 1;
        let batch = StoreBatch {
            operations: vec![put],
            applied: Applied { index, term: 1 },
        };
        store.apply(batch).expect("applied");
    });
    reads("as it is after that", &store, rows);
    while store.flushed() < store.applied() {
        store.request_flush();
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(2));
    reads("from tables", &store, rows);
    println!(
        "{} bytes on disk, {:?}",
        store.size_bytes(),
        storage.metrics.stores
    );
    storage.close();
}

/// How long single reads take while another thread writes as fast as back-pressure lets it.
fn stalls(directory: &Path) {
    let storage = open_here(directory);
    let store = storage.stores.open(ReplicaId(1)).expect("a store");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for index in 1..=2 * ROWS_DEFAULT {
                while store.pressure_permille() > 300 {
                    std::thread::sleep(Duration::from_micros(200));
                }
                let put = StoreOperation::Put {
                    key: row(index),
                    value: vec![7; 2 * VALUE_BYTES],
                };
                let batch = StoreBatch {
                    operations: vec![put],
                    applied: Applied { index, term: 1 },
                };
                store.apply(batch).expect("applied");
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut nanos = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let begin = Instant::now();
            let at = store.snapshot();
            store
                .get(&row(1 + nanos.len() as u64), &at)
                .expect("a read");
            nanos.push(begin.elapsed().as_nanos() as u64);
        }
        nanos.sort_unstable();
        let at = |permille: usize| nanos[(nanos.len() - 1) * permille / 1_000] / 1_000;
        println!(
            "reads while writing: {} of them, p50 {} us, p99 {} us, p99.9 {} us, max {} us",
            nanos.len(),
            at(500),
            at(990),
            at(999),
            at(1_000)
        );
    });
    println!("{:?}", storage.metrics.stores);
    storage.close();
}

fn idle(directory: &Path) {
    let before = resident_bytes();
    let begin = Instant::now();
    let storage = open_here(directory);
    println!("open of an empty directory: {:?}", begin.elapsed());
    println!("resident for it: {} KB", (resident_bytes() - before) >> 10);
    let before = resident_bytes();
    let begin = Instant::now();
    let stores: Vec<Arc<dyn Store>> = (1..=200)
        .map(|replica| storage.stores.open(ReplicaId(replica)).expect("a store"))
        .collect();
    println!("200 new stores: {:?}", begin.elapsed());
    println!(
        "resident for them: {} KB",
        (resident_bytes() - before) >> 10
    );
    drop(stores);
    storage.close();
    let begin = Instant::now();
    let storage = open_here(directory);
    for replica in 1..=200 {
        storage.stores.open(ReplicaId(replica)).expect("a store");
    }
    println!("opened again with all 200: {:?}", begin.elapsed());
    storage.close();
}

/// Field of `/proc/self/stat` or `statm`, counted from 0.
fn proc_field(file: &str, field: usize) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let value = text.split_whitespace().nth(field);
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn resident_bytes() -> u64 {
    proc_field("statm", 1) * 4_096
}

fn cpu_micros() -> u64 {
    (proc_field("stat", 13) + proc_field("stat", 14)) * 10_000
}
