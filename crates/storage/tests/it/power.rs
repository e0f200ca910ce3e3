//! `kill -9` and loss of power at random points: the test runs itself as a child that writes, ends it, opens what
//! it left, and looks for every entry that the child had said to be acknowledged. The child flushes, cuts,
//! rewrites files and replaces entries all the while.
//!
//! Power fails by a copy of the block device under a file system of its own: it lacks whatever the kernel had not
//! written to the device yet. That takes the right to mount; where there is none, the test says so and ends.

use bytes::Bytes;
use model::ReplicaId;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use storage::{LogOptions, Options, Replay, Storage, StoreOptions, cut_point, open, replay};
use tempfile::TempDir;
use world::{
    Applied, Kind, LogBatch, LogEntry, LogId, LogOperation, Store, StoreBatch, StoreOperation,
};

const REPLICAS: u64 = 4;
const ROUNDS: u32 = 12;
const POWER_ROUNDS: u32 = 5;
/// Rows of a replica: entry `i` writes row `i % ROWS`.
const ROWS: u64 = 40;
/// Entries that the child keeps in its logs at least, so that there is something to check.
const KEPT: u64 = 30;

fn options() -> Options {
    Options {
        log: LogOptions {
            file_bytes: 128 << 10,
            purge_bytes: 512 << 10,
            tail_bytes: 32 << 10,
        },
        stores: StoreOptions {
            memtable_bytes: 256 << 10,
            flush_bytes: 48 << 10,
            ..StoreOptions::default()
        },
    }
}

fn entry(replica: u64, index: u64) -> LogEntry {
    let padding = "x".repeat((index * 37 % 400) as usize);
    LogEntry {
        index,
        term: index / 100,
        data: Bytes::from(format!("{replica}/{index}/{padding}")),
    }
}

fn row(number: u64) -> Vec<u8> {
    [&[Kind::Row as u8], &number.to_be_bytes()[..]].concat()
}

/// Entry `index` writes one row and removes another.
fn effects(index: u64) -> StoreBatch {
    let put = StoreOperation::Put {
        key: row(index % ROWS),
        value: index.to_string().into_bytes(),
    };
    let delete = StoreOperation::Delete {
        key: row((index + ROWS / 2) % ROWS),
    };
    let term = index / 100;
    StoreBatch {
        operations: vec![put, delete],
        applied: Applied { index, term },
    }
}

/// The state after entry `last`.
fn state(last: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut state = BTreeMap::new();
    for index in last.saturating_sub(2 * ROWS).max(1)..=last {
        state.insert(row(index % ROWS), index.to_string().into_bytes());
        state.remove(&row((index + ROWS / 2) % ROWS));
    }
    state
}

fn content(store: &Arc<dyn Store>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let at = store.snapshot();
    let pairs = store.scan(&[], None, &at).map(|pair| {
        let (key, value) = pair.unwrap();
        (key.to_vec(), value.to_vec())
    });
    pairs.collect()
}

/// Brings a store up to its log; returns the last entry.
fn recover(storage: &Storage, replica: u64) -> (Arc<dyn Store>, u64) {
    let log = LogId(replica);
    let store = storage.stores.open(ReplicaId(replica)).unwrap();
    let applied = store.applied();
    if applied.index >= 2 * ROWS {
        assert_eq!(
            content(&store),
            state(applied.index),
            "exactly a prefix was flushed"
        );
    }
    let found = replay(storage.log.bounds(log), applied).expect("no gap");
    let Replay::From { first, last } = found else {
        panic!("the store is ahead of its log: {found:?}");
    };
    let mut next = first;
    while next <= last {
        for read in storage.log.entries(log, next, last, 64 << 10).unwrap() {
            assert_eq!(read, entry(replica, next));
            store.apply(effects(next)).unwrap();
            next += 1;
        }
    }
    if last >= 2 * ROWS {
        assert_eq!(content(&store), state(last), "replay restores the state");
    }
    (store, last)
}

async fn write_for_ever(storage: Arc<Storage>, replica: u64) {
    let log = LogId(replica);
    let (store, mut last) = recover(&storage, replica);
    loop {
        let count = 1 + last % 5;
        // Sometimes the newest acknowledged entry is replaced by an equal one, as in a change of leaders.
        let first = if last % 7 == 3 { last } else { last + 1 };
        let first = first.max(storage.log.bounds(log).map_or(1, |bounds| bounds.first));
        last += count;
        let entries = (first..=last).map(|index| entry(replica, index)).collect();
        let mut operations = vec![LogOperation::Append { log, entries }];
        operations.push(LogOperation::Put {
            log,
            key: b"last".to_vec(),
            value: Bytes::from(last.to_string()),
        });
        storage.log.write(LogBatch { operations }).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "ack {replica} {last}").unwrap();
        out.flush().unwrap();
        drop(out);
        for index in store.applied().index + 1..=last {
            store.apply(effects(index)).unwrap();
        }
        if last.is_multiple_of(11) {
            store.request_flush();
            let first = cut_point(store.flushed(), last.saturating_sub(KEPT));
            let operations = vec![LogOperation::Cut { log, first }];
            drop(storage.log.write(LogBatch { operations }));
        }
    }
}

/// The child. As a test of its own it does nothing.
#[test]
fn child_that_writes() {
    let Ok(directory) = std::env::var("STORAGE_CHILD_THAT_WRITES") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let storage = Arc::new(open(Path::new(&directory), options()).unwrap());
        println!("\nopened");
        let writers = (1..=REPLICAS).map(|replica| {
            let storage = storage.clone();
            tokio::spawn(write_for_ever(storage, replica))
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
}

/// A child that has opened `directory` and writes.
struct Writer {
    child: Child,
    /// Ends with the child; gives the last acknowledged entry of each replica.
    reader: JoinHandle<BTreeMap<u64, u64>>,
}

impl Writer {
    fn start(directory: &Path) -> Writer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "power::child_that_writes", "--nocapture"])
            .env("STORAGE_CHILD_THAT_WRITES", directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (opened, has_opened) = std::sync::mpsc::channel();
        // The whole of the output is read: what the child said before it died counts.
        let reader = std::thread::spawn(move || {
            let mut acknowledged = BTreeMap::new();
            for line in lines {
                let line = line.unwrap();
                if line == "opened" {
                    opened.send(()).unwrap();
                }
                let words: Vec<&str> = line.split(' ').collect();
                if let ["ack", replica, last] = words[..]
                    && let (Ok(replica), Ok(last)) = (replica.parse(), last.parse())
                {
                    acknowledged.insert(replica, last);
                }
            }
            acknowledged
        });
        has_opened.recv().expect("the child opens its directory");
        Writer { child, reader }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(run("kill", &[signal, &id]), "a signal is sent");
    }

    fn kill(mut self) -> BTreeMap<u64, u64> {
        self.signal("-9");
        let status = self.child.wait().unwrap();
        assert!(!status.success(), "the child was killed, it did not end");
        self.reader.join().unwrap()
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// Opens what is left and looks for what was acknowledged. Returns the last entry of each replica.
fn check(directory: &Path, acknowledged: &BTreeMap<u64, u64>) -> BTreeMap<u64, u64> {
    let storage = open(directory, options()).unwrap();
    let mut found = BTreeMap::new();
    for (replica, last) in acknowledged {
        let bounds = storage.log.bounds(LogId(*replica)).unwrap();
        assert!(bounds.last >= *last, "entry {last} of {replica} was lost");
        let value = storage.log.get(LogId(*replica), b"last").unwrap();
        assert_eq!(value, bounds.last.to_string(), "batches are atomic");
        found.insert(*replica, recover(&storage, *replica).1);
    }
    storage.close();
    found
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let directory = TempDir::new().unwrap();
    let mut last = BTreeMap::new();
    for round in 0..ROUNDS {
        let writer = Writer::start(directory.path());
        let micros = u64::from(round) * 29_989 % 250_000 + 300;
        std::thread::sleep(Duration::from_micros(micros));
        last.extend(writer.kill());
        last = check(directory.path(), &last);
    }
    assert_eq!(last.len() as u64, REPLICAS);
    let least = last.values().min().unwrap();
    assert!(
        *least > 200,
        "too little was written to prove much: {last:?}"
    );
}

/// A file system in a file, mounted for as long as this lives.
struct Mounted {
    image: PathBuf,
    directory: PathBuf,
}

impl Mounted {
    fn new(image: PathBuf, directory: PathBuf) -> Option<Mounted> {
        std::fs::create_dir_all(&directory).unwrap();
        let (from, to) = (image.to_str().unwrap(), directory.to_str().unwrap());
        run("mount", &["-o", "loop", from, to]).then_some(Mounted { image, directory })
    }

    /// What the device holds in this moment, while nothing is written through the file system. The kernel may
    /// still be writing what was written before: then once more.
    fn copy(&self, to: &Path) {
        let (from, to) = (self.image.to_str().unwrap(), to.to_str().unwrap());
        for _ in 0..50 {
            assert!(run("cp", &["--sparse=always", from, to]));
            if run("cmp", &["-s", from, to]) {
                return;
            }
        }
        panic!("the device does not come to rest");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["-l", self.directory.to_str().unwrap()]);
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_fails() {
    let directory = TempDir::new().unwrap();
    let image = |round: u32| directory.path().join(format!("image-{round}"));
    let file = std::fs::File::create(image(0)).unwrap();
    file.set_len(96 << 20).unwrap();
    let made = run("mkfs.ext4", &["-q", "-F", image(0).to_str().unwrap()]);
    let mut last = BTreeMap::new();
    for round in 0..POWER_ROUNDS {
        let mount = |name: &str, round| {
            let directory = directory.path().join(format!("{name}-{round}"));
            Mounted::new(image(round), directory)
        };
        let Some(mounted) = made.then(|| mount("before", round)).flatten() else {
            println!("no right to mount a file system here: nothing is tested");
            return;
        };
        let writer = Writer::start(&mounted.directory.join("data"));
        std::thread::sleep(Duration::from_millis(u64::from(round) * 190 % 400 + 20));
        writer.signal("-STOP");
        mounted.copy(&image(round + 1));
        last.extend(writer.kill());
        drop(mounted);
        let mounted = mount("after", round + 1).expect("it could be mounted before");
        last = check(&mounted.directory.join("data"), &last);
    }
    assert_eq!(last.len() as u64, REPLICAS);
}
