//! The rules of `Stores`, `Store` and `Install`.

use super::{NewDisk, Random};
use bytes::Bytes;
use model::ReplicaId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use world::{
    APPLIED_KEY, Applied, Kind, Store, StoreBatch, StoreError, StoreOperation, Stores, past_suffix,
};

const REPLICA: ReplicaId = ReplicaId(7);
const OTHER: ReplicaId = ReplicaId(8);
/// A flush that was asked for takes no longer, on any disk that is not broken.
const FLUSH_MS_MAX: u64 = 20_000;

fn key(kind: Kind, name: &str) -> Vec<u8> {
    [&[kind as u8], name.as_bytes()].concat()
}

fn row(name: &str) -> Vec<u8> {
    key(Kind::Row, name)
}

fn put(name: &str, value: &str) -> StoreOperation {
    StoreOperation::Put {
        key: row(name),
        value: value.as_bytes().to_vec(),
    }
}

fn delete(name: &str) -> StoreOperation {
    StoreOperation::Delete { key: row(name) }
}

fn applied(index: u64) -> Applied {
    Applied { index, term: 3 }
}

fn apply(store: &Arc<dyn Store>, index: u64, operations: Vec<StoreOperation>) {
    let result = store.apply(StoreBatch {
        operations,
        applied: applied(index),
    });
    assert_eq!(result, Ok(()), "a batch within the rules is applied");
}

fn get(store: &Arc<dyn Store>, name: &str) -> Option<String> {
    let value = store.get(&row(name), &store.snapshot());
    let value = value.expect("a store can be read");
    value.map(|value| String::from_utf8_lossy(&value).into_owned())
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn collect(scan: world::Scan<'_>) -> Pairs {
    scan.map(|pair| {
        let (key, value) = pair.expect("a store can be scanned");
        (key.to_vec(), value.to_vec())
    })
    .collect()
}

/// Everything in a store, which must be the same in both directions.
fn content(store: &Arc<dyn Store>) -> Pairs {
    let at = store.snapshot();
    let pairs = collect(store.scan(&[], None, &at));
    let mut reversed = collect(store.scan_reversed(&[], None, &at));
    reversed.reverse();
    assert_eq!(pairs, reversed, "both directions see the same");
    pairs
}

fn names(store: &Arc<dyn Store>) -> Vec<String> {
    let keys = content(store).into_iter();
    keys.map(|(key, _)| String::from_utf8_lossy(&key[1..]).into_owned())
        .collect()
}

async fn flush(store: &Arc<dyn Store>) {
    let target = store.applied();
    for _ in 0..FLUSH_MS_MAX {
        if store.flushed() >= target {
            return;
        }
        store.request_flush();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("a flush that was asked for did not happen");
}

fn open(stores: &Arc<dyn Stores>, replica: ReplicaId) -> Arc<dyn Store> {
    stores.open(replica).expect("the store can be opened")
}

pub(super) async fn reads_see_what_was_written(new: NewDisk<'_>) {
    let mut disk = new();
    let (_, stores) = disk.open();
    let store = open(&stores, REPLICA);
    assert_eq!(store.applied(), Applied::default());
    assert_eq!(content(&store), vec![]);
    let names_written = ["a", "b", "ba", "c", "d"];
    apply(&store, 1, names_written.map(|name| put(name, "1")).to_vec());
    apply(
        &store,
        5,
        vec![put("b", "2"), delete("c"), delete("nothing"), put("e", "")],
    );
    for flushed in [false, true] {
        if flushed {
            flush(&store).await;
        }
        assert_eq!(store.applied(), applied(5));
        assert_eq!(get(&store, "b").as_deref(), Some("2"));
        assert_eq!(get(&store, "c"), None);
        assert_eq!(get(&store, "e").as_deref(), Some(""));
        assert_eq!(names(&store), ["a", "b", "ba", "d", "e"]);
        let at = store.snapshot();
        let (start, end) = (row("b"), row("d"));
        let middle = collect(store.scan(&start, Some(&end), &at));
        assert_eq!(middle.len(), 2, "the end is excluded, the start is not");
        let mut reversed = collect(store.scan_reversed(&start, Some(&end), &at));
        reversed.reverse();
        assert_eq!(middle, reversed);
        assert_eq!(collect(store.scan(&end, Some(&start), &at)), vec![]);
        assert_eq!(collect(store.scan(&end, Some(&end), &at)), vec![]);
        assert!(store.scan(&row("d"), None, &at).count() == 2);
    }
    // The last of several operations on one key counts.
    apply(
        &store,
        6,
        vec![put("x", "1"), delete("x"), put("y", "1"), put("y", "2")],
    );
    assert_eq!(get(&store, "x"), None);
    assert_eq!(get(&store, "y").as_deref(), Some("2"));
    assert!(
        Arc::ptr_eq(&store, &open(&stores, REPLICA)),
        "open gives the same store"
    );
    disk.close();
}

pub(super) async fn a_snapshot_does_not_change(new: NewDisk<'_>) {
    let mut disk = new();
    let (_, stores) = disk.open();
    let store = open(&stores, REPLICA);
    let mut kept = Vec::new();
    for index in 1..=40 {
        let name = format!("{:02}", index % 7);
        let operation = match index % 5 {
            0 => delete(&name),
            _ => put(&name, &index.to_string()),
        };
        apply(
            &store,
            index,
            vec![operation, put("last", &index.to_string())],
        );
        if index % 3 == 0 {
            kept.push((store.snapshot(), content(&store)));
        }
        if index % 10 == 0 {
            flush(&store).await;
        }
        for (at, expected) in &kept {
            assert_eq!(&collect(store.scan(&[], None, at)), expected);
            for (key, value) in expected {
                let read = store.get(key, at).expect("a snapshot can be read");
                assert_eq!(read.as_deref(), Some(&value[..]));
            }
        }
    }
    // A scan under way is not disturbed either.
    let at = store.snapshot();
    let expected = content(&store);
    let scan = store.scan(&[], None, &at);
    let mut seen = Vec::new();
    let mut index = 40;
    for pair in scan {
        let (key, value) = pair.expect("a store can be scanned");
        seen.push((key.to_vec(), value.to_vec()));
        index += 1;
        apply(
            &store,
            index,
            vec![put(&format!("new {index}"), "x"), delete("06")],
        );
        flush(&store).await;
    }
    assert_eq!(seen, expected);
    disk.close();
}

/// The state after each entry of a seeded history.
struct History {
    random: Random,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    states: Vec<Pairs>,
    batches: Vec<Vec<StoreOperation>>,
}

impl History {
    fn new(seed: u64) -> History {
        History {
            random: Random(seed),
            state: BTreeMap::new(),
            states: vec![vec![]],
            batches: vec![vec![]],
        }
    }

    fn step(&mut self) -> Vec<StoreOperation> {
        let index = self.batches.len();
        let mut operations = vec![put("left", &index.to_string())];
        for _ in 0..self.random.below(4) {
            let name = format!("k{}", self.random.below(12));
            operations.push(match self.random.below(4) {
                0 => delete(&name),
                _ => put(&name, &self.random.next().to_string()),
            });
        }
        operations.push(put("right", &index.to_string()));
        for operation in &operations {
            match operation.clone() {
                StoreOperation::Put { key, value } => self.state.insert(key, value),
                StoreOperation::Delete { key } => self.state.remove(&key),
            };
        }
        let state = self.state.clone();
        self.states.push(state.into_iter().collect());
        self.batches.push(operations.clone());
        operations
    }
}

pub(super) async fn a_crash_leaves_the_state_after_one_entry(new: NewDisk<'_>) {
    for seed in 1..=5 {
        let mut disk = new();
        let mut history = History::new(seed);
        let (_, stores) = disk.open();
        let store = open(&stores, REPLICA);
        assert_eq!(store.applied().index, 0);
        for index in 1..=60 {
            apply(&store, index, history.step());
            match history.random.below(8) {
                0 => flush(&store).await,
                1 => store.request_flush(),
                2 => tokio::time::sleep(Duration::from_millis(1)).await,
                _ => {}
            }
        }
        let flushed = store.flushed().index;
        disk.crash();
        let store = open(&disk.open().1, REPLICA);
        let found = store.applied().index;
        assert!(found >= flushed, "what was said to be flushed is there");
        assert_eq!(store.flushed(), store.applied());
        assert_eq!(
            content(&store),
            history.states[found as usize],
            "after entry {found}"
        );
        disk.close();
    }
}

pub(super) async fn replay_is_idempotent(new: NewDisk<'_>) {
    for seed in 1..=3 {
        let mut disk = new();
        let mut history = History::new(seed);
        for _ in 1..=50 {
            history.step();
        }
        // Several lives, each of which begins to replay where the store stands, and dies somewhere.
        loop {
            let (_, stores) = disk.open();
            let store = open(&stores, REPLICA);
            let first = store.applied().index + 1;
            assert_eq!(content(&store), history.states[first as usize - 1]);
            let last = (first + history.random.below(25)).min(50);
            for index in first..=last {
                apply(&store, index, history.batches[index as usize].clone());
                if history.random.below(6) == 0 {
                    flush(&store).await;
                }
            }
            if last == 50 {
                assert_eq!(content(&store), history.states[50]);
                break;
            }
            flush(&store).await;
            disk.crash();
        }
        disk.close();
    }
}

pub(super) async fn a_call_that_breaks_a_rule_changes_nothing(new: NewDisk<'_>) {
    let mut disk = new();
    let (_, stores) = disk.open();
    let store = open(&stores, REPLICA);
    apply(&store, 5, vec![put("a", "1")]);
    let bad_keys = [
        vec![],
        vec![0, 1],
        vec![9, 1],
        vec![1; 65_536],
        APPLIED_KEY.to_vec(),
    ];
    for key in bad_keys {
        let batch = StoreBatch {
            operations: vec![put("b", "1"), StoreOperation::Delete { key }],
            applied: applied(6),
        };
        assert!(matches!(store.apply(batch), Err(StoreError::Refused(_))));
    }
    for index in [4, 5] {
        let batch = StoreBatch {
            operations: vec![put("b", "1")],
            applied: applied(index),
        };
        assert!(matches!(store.apply(batch), Err(StoreError::Refused(_))));
    }
    assert_eq!(names(&store), ["a"]);
    assert_eq!(store.applied(), applied(5));
    assert!(matches!(
        stores.copy(OTHER, ReplicaId(9), &as_it_is),
        Err(StoreError::Refused(_))
    ));
    disk.close();
}

pub(super) async fn an_installation_is_all_or_nothing(new: NewDisk<'_>) {
    let mut disk = new();
    let (_, stores) = disk.open();
    let old = open(&stores, REPLICA);
    apply(&old, 3, vec![put("old", "1"), put("shared", "1")]);
    flush(&old).await;
    let at = old.snapshot();
    let pair = |name: &str| (Bytes::from(row(name)), Bytes::from_static(b"2"));
    let state = (Bytes::from(key(Kind::State, "s")), Bytes::from_static(b"3"));

    // One that is given up, by its owner or by a crash, leaves the mark.
    let mut install = stores
        .begin_install(REPLICA)
        .expect("an installation begins");
    install.add(vec![pair("half")]).expect("pairs are added");
    drop(install);
    assert_eq!(
        stores.open(REPLICA).err(),
        Some(StoreError::Installing(REPLICA))
    );
    assert_eq!(stores.list(), Ok(vec![(REPLICA, true)]));
    let read = old
        .get(&row("old"), &at)
        .expect("the old content can be read");
    assert_eq!(read, Some(Bytes::from_static(b"1")));
    disk.crash();
    let (_, stores) = disk.open();
    assert_eq!(
        stores.open(REPLICA).err(),
        Some(StoreError::Installing(REPLICA))
    );
    assert_eq!(stores.list(), Ok(vec![(REPLICA, true)]));

    let mut install = stores
        .begin_install(REPLICA)
        .expect("an installation begins");
    install
        .add(vec![pair("a"), pair("b")])
        .expect("pairs are added");
    let late = install.add(vec![pair("ab")]);
    assert!(matches!(late, Err(StoreError::Refused(_))), "keys ascend");
    install
        .add(vec![pair("shared"), state])
        .expect("pairs are added");
    let store = install.finish(applied(9)).expect("an installation ends");
    let check = |store: &Arc<dyn Store>, stores: &Arc<dyn Stores>| {
        assert_eq!(store.applied(), applied(9));
        assert_eq!(store.flushed(), applied(9));
        assert_eq!(names(store), ["a", "b", "shared", "s"]);
        assert_eq!(get(store, "shared").as_deref(), Some("2"));
        assert_eq!(stores.list(), Ok(vec![(REPLICA, false)]));
    };
    check(&store, &stores);
    assert!(Arc::ptr_eq(&store, &open(&stores, REPLICA)));
    disk.crash();
    let (_, stores) = disk.open();
    let store = open(&stores, REPLICA);
    check(&store, &stores);
    apply(&store, 10, vec![put("c", "1"), delete("a")]);
    flush(&store).await;
    assert_eq!(names(&store), ["b", "c", "shared", "s"]);

    // An empty one is possible, and one of a replica that was never here.
    let install = stores.begin_install(OTHER).expect("an installation begins");
    let store = install.finish(applied(4)).expect("an installation ends");
    assert_eq!(content(&store), vec![]);
    disk.close();
    let (_, stores) = disk.open();
    assert_eq!(open(&stores, OTHER).applied(), applied(4));
    assert_eq!(open(&stores, REPLICA).applied(), applied(10));
    disk.close();
}

pub(super) async fn a_removed_replica_is_gone_and_still_read(new: NewDisk<'_>) {
    let mut disk = new();
    let (_, stores) = disk.open();
    let store = open(&stores, REPLICA);
    apply(&store, 1, vec![put("a", "1")]);
    flush(&store).await;
    apply(&open(&stores, OTHER), 1, vec![put("a", "1")]);
    stores.remove(REPLICA).expect("a replica is removed");
    assert_eq!(get(&store, "a").as_deref(), Some("1"), "holders read on");
    assert_eq!(stores.list(), Ok(vec![(OTHER, false)]));
    stores
        .remove(REPLICA)
        .expect("removing nothing is no error");
    disk.crash();
    let (_, stores) = disk.open();
    assert_eq!(stores.list(), Ok(vec![(OTHER, false)]));
    drop(store);
    let store = open(&stores, REPLICA);
    assert_eq!(content(&store), vec![], "nothing comes back");
    assert_eq!(store.applied(), Applied::default());
    stores.remove(REPLICA).expect("a replica is removed");
    drop(store);
    assert_eq!(
        content(&open(&stores, REPLICA)),
        vec![],
        "nor in the same life of the node"
    );
    disk.close();
}

/// Changes nothing about a copy.
fn as_it_is(copy: &dyn Store) -> Result<StoreBatch, StoreError> {
    Ok(StoreBatch {
        operations: Vec::new(),
        applied: copy.applied(),
    })
}

pub(super) async fn a_copy_is_changed_before_it_is_there(new: NewDisk<'_>) {
    let mut disk = new();
    let (_, stores) = disk.open();
    let store = open(&stores, REPLICA);
    apply(&store, 30, vec![put("kept", "1"), put("dropped", "1")]);
    flush(&store).await;
    let failing = |_: &dyn Store| Err(StoreError::Refused("not this one".into()));
    assert!(stores.copy(REPLICA, OTHER, &failing).is_err());
    assert_eq!(stores.list(), Ok(vec![(REPLICA, false)]));
    let edit = |copy: &dyn Store| {
        assert_eq!(copy.applied(), applied(30));
        Ok(StoreBatch {
            operations: vec![delete("dropped"), put("added", "2")],
            applied: applied(1),
        })
    };
    stores
        .copy(REPLICA, OTHER, &edit)
        .expect("a replica is copied");
    // Nothing of it is in memory only.
    disk.crash();
    let (_, stores) = disk.open();
    let copy = open(&stores, OTHER);
    assert_eq!(copy.applied(), applied(1));
    assert_eq!(copy.flushed(), applied(1));
    assert_eq!(names(&copy), ["added", "kept"]);
    apply(&copy, 2, vec![put("own", "1")]);
    assert_eq!(names(&open(&stores, REPLICA)), ["dropped", "kept"]);
    disk.close();
}

pub(super) async fn forgotten_spans_go_and_nothing_else(new: NewDisk<'_>) {
    let mut disk = new();
    let (_, stores) = disk.open();
    let store = open(&stores, REPLICA);
    for index in 1..=40 {
        apply(&store, index, vec![put(&format!("k{index:02}"), "1")]);
        if index % 10 == 0 {
            flush(&store).await;
        }
    }
    let span = |from: &str, to: &str| (row(from), row(to));
    store.forget_spans(vec![span("k05", "k13"), span("k31", "k99")]);
    let kept: Vec<String> = (1..=40)
        .filter(|index| !(5..13).contains(index) && *index < 31)
        .map(|index| format!("k{index:02}"))
        .collect();
    for index in 41.. {
        assert!(index < 2_000, "what is forgotten is still there");
        apply(&store, index, vec![put("k01", "2")]);
        flush(&store).await;
        if names(&store) == kept {
            break;
        }
    }
    disk.crash();
    let (_, stores) = disk.open();
    assert_eq!(names(&open(&stores, REPLICA)), kept);
    disk.close();
}

pub(super) async fn a_copy_lives_on_its_own(new: NewDisk<'_>) {
    let mut disk = new();
    let (_, stores) = disk.open();
    let store = open(&stores, REPLICA);
    let mut history = History::new(1);
    for index in 1..=30 {
        apply(&store, index, history.step());
        if index % 7 == 0 {
            flush(&store).await;
        }
    }
    flush(&store).await;
    stores
        .copy(REPLICA, OTHER, &as_it_is)
        .expect("a replica is copied");
    assert!(matches!(
        stores.copy(REPLICA, OTHER, &as_it_is),
        Err(StoreError::Refused(_))
    ));
    let copy = open(&stores, OTHER);
    assert_eq!(copy.applied(), applied(30));
    assert_eq!(content(&copy), history.states[30]);
    for index in 31..=60 {
        let name = format!("own {index}");
        apply(
            &store,
            index,
            vec![put("side", "original"), delete(&format!("k{}", index % 12))],
        );
        apply(&copy, index, vec![put("side", "copy"), put(&name, "x")]);
        if index % 5 == 0 {
            flush(&store).await;
            flush(&copy).await;
        }
    }
    let (originals, copies) = (content(&store), content(&copy));
    assert_eq!(get(&store, "side").as_deref(), Some("original"));
    assert_eq!(get(&copy, "side").as_deref(), Some("copy"));
    disk.crash();
    let (_, stores) = disk.open();
    assert_eq!(content(&open(&stores, REPLICA)), originals);
    stores.remove(REPLICA).expect("a replica is removed");
    assert_eq!(content(&open(&stores, OTHER)), copies);
    disk.close();
    let (_, stores) = disk.open();
    assert_eq!(content(&open(&stores, OTHER)), copies);
    disk.close();
}

pub(super) async fn only_history_below_the_horizon_goes(new: NewDisk<'_>) {
    let mut disk = new();
    let (_, stores) = disk.open();
    let store = open(&stores, REPLICA);
    let past = |name: &str, at: i64| [key(Kind::Past, name), past_suffix(at).to_vec()].concat();
    let mut index = 0;
    for at in [-5, 0, 99, 100, 101, 1_000] {
        index += 1;
        let value = b"old".to_vec();
        let operation = StoreOperation::Put {
            key: past("k", at),
            value,
        };
        // A row whose key happens to end like one that was superseded long ago.
        let row = StoreOperation::Put {
            key: [row("k"), past_suffix(at).to_vec()].concat(),
            value: b"row".to_vec(),
        };
        apply(&store, index, vec![operation, row]);
    }
    store.set_history_horizon(100);
    store.set_history_horizon(50);
    for _ in 0..12 {
        index += 1;
        apply(&store, index, vec![put("more", &index.to_string())]);
        flush(&store).await;
    }
    let at = store.snapshot();
    for kept in [100, 101, 1_000] {
        let read = store
            .get(&past("k", kept), &at)
            .expect("a store can be read");
        assert!(read.is_some(), "history at or above the horizon stays");
    }
    let rows = store.scan(&row("k"), Some(&row("l")), &at).count();
    assert_eq!(rows, 6, "rows stay");
    disk.close();
}
