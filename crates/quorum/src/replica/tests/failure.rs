//! A store that fails, and what becomes of its replica.

use super::*;
use std::sync::atomic::AtomicBool;
use world::{Scan, Snapshot, StoreOperation};

/// A store that cannot be read while it is failing.
struct Flaky {
    inner: Arc<dyn Store>,
    is_failing: AtomicBool,
}

impl Store for Flaky {
    fn snapshot(&self) -> Snapshot {
        self.inner.snapshot()
    }

    fn get(&self, key: &[u8], at: &Snapshot) -> Result<Option<Bytes>, StoreError> {
        if self.is_failing.load(Ordering::Relaxed) {
            return Err(StoreError::Io("no such block".into()));
        }
        self.inner.get(key, at)
    }

    fn scan<'a>(&'a self, start: &[u8], end: Option<&[u8]>, at: &Snapshot) -> Scan<'a> {
        self.inner.scan(start, end, at)
    }

    fn scan_reversed<'a>(&'a self, start: &[u8], end: Option<&[u8]>, at: &Snapshot) -> Scan<'a> {
        self.inner.scan_reversed(start, end, at)
    }

    fn apply(&self, batch: StoreBatch) -> Result<(), StoreError> {
        let is_row = |operation: &StoreOperation| matches!(operation, StoreOperation::Put { .. });
        assert!(batch.operations.iter().all(is_row));
        self.inner.apply(batch)
    }

    fn applied(&self) -> Applied {
        self.inner.applied()
    }

    fn flushed(&self) -> Applied {
        self.inner.flushed()
    }

    fn request_flush(&self) {
        self.inner.request_flush();
    }

    fn pressure_permille(&self) -> u32 {
        self.inner.pressure_permille()
    }

    fn set_history_horizon(&self, timestamp: i64) {
        self.inner.set_history_horizon(timestamp);
    }

    fn forget_spans(&self, spans: Vec<(Vec<u8>, Vec<u8>)>) {
        self.inner.forget_spans(spans);
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
}

fn open_on(store: Arc<dyn Store>, log: Arc<dyn Log>) -> Arc<EventualReplica> {
    let config = ReplicaConfig {
        tablet: tablet(),
        replica: ReplicaId(9),
        table: Arc::new(table()),
        clock: Arc::new(Stopped(1_000_000)),
    };
    let tasks = Arc::new(|task: Task| {
        tokio::spawn(task);
    });
    EventualReplica::open(config, store, log, tasks).unwrap()
}

fn request(action: Action) -> Request {
    Request {
        tablet: tablet().id,
        epoch: tablet().epoch,
        action,
    }
}

fn synced(replica: &Arc<EventualReplica>, row: i32) -> impl Future<Output = bool> + use<> {
    let replica = replica.clone();
    async move {
        let deltas = vec![delta(1, row, 10, row.into())];
        replica.apply(deltas, Durability::Synced).await.is_ok()
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_store_has_failed_stops_and_is_opened_anew_with_all_that_its_log_has() {
    let (log, stores) = SimDisk::new(1).open();
    let store = Arc::new(Flaky {
        inner: stores.open(ReplicaId(9)).unwrap(),
        is_failing: AtomicBool::new(false),
    });
    let old = open_on(store.clone(), log.clone());
    assert!(synced(&old, 1).await);
    // Two are on their way to the log when the store fails.
    let writing = [2, 3].map(|row| tokio::spawn(synced(&old, row)));
    tokio::task::yield_now().await;
    store.is_failing.store(true, Ordering::Relaxed);
    for writing in writing {
        assert!(!writing.await.unwrap(), "it is not known");
    }
    assert!(
        matches!(old.failure(), Some(Failure::Store(_))),
        "{:?}",
        old.failure()
    );
    store.is_failing.store(false, Ordering::Relaxed);
    assert!(!synced(&old, 4).await, "it has stopped for good");

    old.stop().await.unwrap();
    let new = open_on(store, log);
    assert_eq!(new.failure(), None);
    for row in [1, 2, 3] {
        assert_eq!(value(&new, 1, row), Some(Value::Int(row.into())));
    }
    assert_eq!(value(&new, 1, 4), None);
    assert!(synced(&new, 5).await);
    // Whoever still holds the old one changes nothing.
    assert!(!synced(&old, 6).await);
    assert!(synced(&new, 7).await);
    assert_eq!(value(&new, 1, 6), None);
    assert_eq!(value(&new, 1, 7), Some(Value::Int(7)));
}

#[tokio::test(start_paused = true)]
async fn a_failed_log_is_told_from_a_failed_store() {
    let disk = SimDisk::new(1);
    let replica = open(&disk);
    disk.set_failing(true);
    assert!(!synced(&replica, 1).await);
    disk.set_failing(false);
    assert!(matches!(replica.failure(), Some(Failure::Log(_))));
    assert!(replica.stop().await.is_err(), "the log is closed");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_is_noted_and_others_go_on() {
    let (log, stores) = SimDisk::new(1).open();
    let store = Arc::new(Flaky {
        inner: stores.open(ReplicaId(9)).unwrap(),
        is_failing: AtomicBool::new(false),
    });
    let replica = open_on(store.clone(), log);
    assert!(synced(&replica, 1).await);
    store.is_failing.store(true, Ordering::Relaxed);
    let point = Action::Read(read(ReplicaSelection::Keys(vec![row_key(1, 1)])));
    let refused = replica.handle(request(point)).await;
    assert!(matches!(refused, Reply::Refused(ReplicaError::Broken(_))));
    assert!(replica.unreadable().is_some());
    let scan = Action::Read(range(Direction::Forward));
    assert!(matches!(
        replica.handle(request(scan)).await,
        Reply::Page(_)
    ));
    assert_eq!(replica.failure(), None);
}
