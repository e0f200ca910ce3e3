use super::SimDisk;
use bytes::Bytes;
use model::ReplicaId;
use std::sync::Arc;
use std::time::Duration;
use world::planted::{self, Bug};
use world::{
    Applied, Kind, Log, LogBatch, LogEntry, LogError, LogId, LogOperation, Store, StoreBatch,
    StoreOperation, Stores,
};

const LOG: LogId = LogId(7);
const REPLICA: ReplicaId = ReplicaId(7);

fn entry(index: u64) -> LogBatch {
    let data = Bytes::from(format!("entry {index}"));
    let entries = vec![LogEntry {
        index,
        term: 1,
        data,
    }];
    LogBatch {
        operations: vec![LogOperation::Append { log: LOG, entries }],
    }
}

fn row(index: u64) -> StoreBatch {
    let put = |name: &str| StoreOperation::Put {
        key: [&[Kind::Row as u8], name.as_bytes()].concat(),
        value: index.to_string().into_bytes(),
    };
    StoreBatch {
        operations: vec![put("left"), put("right")],
        applied: Applied { index, term: 1 },
    }
}

fn last(log: &Arc<dyn Log>) -> u64 {
    log.bounds(LOG).map_or(0, |bounds| bounds.last)
}

fn value(store: &Arc<dyn Store>, name: &str) -> u64 {
    let key = [&[Kind::Row as u8], name.as_bytes()].concat();
    let value = store.get(&key, &store.snapshot()).unwrap();
    value.map_or(0, |value| {
        std::str::from_utf8(&value).unwrap().parse().unwrap()
    })
}

#[tokio::test(start_paused = true)]
async fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
    let mut survivors = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let (log, _) = disk.open();
        for index in 1..=3 {
            log.write(entry(index)).await.unwrap();
        }
        for index in 4..=6 {
            drop(log.write(entry(index)));
        }
        assert_eq!(last(&log), 6);
        disk.crash();
        let lost = log.write(entry(7)).await;
        assert!(matches!(lost, Err(LogError::Failed(_))));
        survivors.insert(last(&disk.open().0));
    }
    assert_eq!(survivors, (3..=6).collect());
}

#[tokio::test(start_paused = true)]
async fn acknowledging_before_the_sync_loses_acknowledged_entries() {
    planted::plant(Some(Bug::AcknowledgeBeforeSync));
    let mut lost = 0;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let (log, _) = disk.open();
        log.write(entry(1)).await.unwrap();
        disk.crash();
        lost += u64::from(last(&disk.open().0) == 0);
    }
    planted::plant(None);
    assert!(lost > 0);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_synced_within_its_interval() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let (log, _) = disk.open();
        log.write_later(entry(1), 10);
        tokio::time::sleep(Duration::from_millis(20)).await;
        disk.crash();
        assert_eq!(last(&disk.open().0), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_closes_the_log_until_the_next_start() {
    let disk = SimDisk::new(1);
    let (log, _) = disk.open();
    disk.set_failing(true);
    assert!(log.write(entry(1)).await.is_err());
    disk.set_failing(false);
    assert!(log.write(entry(2)).await.is_err());
    let (log, _) = disk.open();
    let next = last(&log) + 1;
    log.write(entry(next)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_disk_takes_its_time() {
    let disk = SimDisk::new(1);
    let (log, _) = disk.open();
    disk.set_slow(100);
    let begin = tokio::time::Instant::now();
    log.write(entry(1)).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn a_store_comes_back_as_after_one_entry() {
    let mut flushed = std::collections::BTreeSet::new();
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let (_, stores) = disk.open();
        let store = stores.open(REPLICA).unwrap();
        for index in 1..=200 {
            store.apply(row(index)).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(value(&store, "left"), 200);
        disk.crash();
        let store = disk.open().1.open(REPLICA).unwrap();
        let applied = store.applied().index;
        assert_eq!(value(&store, "left"), applied);
        assert_eq!(value(&store, "right"), applied);
        flushed.insert(applied);
    }
    assert!(
        flushed.len() > 10,
        "flushes should differ by seed: {flushed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_applied_index_outside_its_batch_leaves_half_an_entry() {
    planted::plant(Some(Bug::AppliedIndexOutsideBatch));
    let mut torn = 0;
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let store = disk.open().1.open(REPLICA).unwrap();
        for index in 1..=200 {
            store.apply(row(index)).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let store = disk.open().1.open(REPLICA).unwrap();
        torn += u64::from(value(&store, "right") != store.applied().index);
    }
    planted::plant(None);
    assert!(torn > 0);
}

#[tokio::test(start_paused = true)]
async fn an_installation_that_leaves_old_rows_shows() {
    for (bug, expected) in [(None, 0), (Some(Bug::InstallLeavesOldRows), 1)] {
        planted::plant(bug);
        let disk = SimDisk::new(1);
        let (_, stores) = disk.open();
        let store = stores.open(REPLICA).unwrap();
        store.apply(row(1)).unwrap();
        store.request_flush();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(store.flushed().index, 1);
        let install = stores.begin_install(REPLICA).unwrap();
        let store = install.finish(Applied { index: 9, term: 2 }).unwrap();
        assert_eq!(store.applied().index, 9);
        assert_eq!(value(&store, "left"), expected);
        planted::plant(None);
    }
}

struct Conforming(SimDisk);

impl storage::conformance::Disk for Conforming {
    fn open(&mut self) -> (Arc<dyn Log>, Arc<dyn Stores>) {
        self.0.open()
    }

    /// There is nothing that an orderly stop would do: what is queued is written when it is synced.
    fn close(&mut self) {
        self.0.set_slow(1);
        self.0.sync();
        self.0.crash();
    }

    fn crash(&mut self) {
        self.0.crash();
    }
}

#[tokio::test(start_paused = true)]
async fn it_passes_what_the_real_one_passes() {
    for seed in 0..20 {
        let new =
            || -> Box<dyn storage::conformance::Disk> { Box::new(Conforming(SimDisk::new(seed))) };
        storage::conformance::log(&new).await;
        storage::conformance::stores(&new).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_disk() {
    async fn run(seed: u64) -> Vec<u64> {
        let disk = SimDisk::new(seed);
        let mut trace = Vec::new();
        let begin = tokio::time::Instant::now();
        for _ in 0..5 {
            let (log, stores) = disk.open();
            let store = stores.open(REPLICA).unwrap();
            trace.push(last(&log));
            trace.push(store.applied().index);
            for _ in 0..30 {
                let index = last(&log) + 1;
                let written = log.write(entry(index));
                if index.is_multiple_of(3) {
                    written.await.unwrap();
                }
                if store.applied().index < index {
                    store.apply(row(index)).unwrap();
                }
                trace.push(store.flushed().index);
                trace.push(begin.elapsed().as_micros() as u64);
            }
            disk.crash();
        }
        trace
    }
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}
