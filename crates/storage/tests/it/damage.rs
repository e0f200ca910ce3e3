//! Random damage to any file: an error or the whole truth, never a panic, never wrong data.

use crate::conformance::copy;
use bytes::Bytes;
use model::ReplicaId;
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use storage::{OpenError, Options, open};
use tempfile::TempDir;
use world::{
    Applied, Kind, LogBatch, LogEntry, LogId, LogOperation, Store, StoreBatch, StoreError,
    StoreOperation,
};

const REPLICA: ReplicaId = ReplicaId(7);
const LOG: LogId = LogId(7);
const ENTRIES: u64 = 40;

/// A data directory with a log and a store of several tables.
struct Sample {
    directory: TempDir,
    files: Vec<PathBuf>,
    content: Vec<(Bytes, Bytes)>,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(make);

fn make() -> Sample {
    let directory = TempDir::new().unwrap();
    let storage = open(directory.path(), Options::default()).unwrap();
    let store = storage.stores.open(REPLICA).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for index in 1..=ENTRIES {
        let entry = LogEntry {
            index,
            term: 1,
            data: Bytes::from(format!("entry {index} {}", "x".repeat(index as usize * 5))),
        };
        let operations = vec![LogOperation::Append {
            log: LOG,
            entries: vec![entry],
        }];
        runtime
            .block_on(storage.log.write(LogBatch { operations }))
            .unwrap();
        let operations = (0..20).map(|number: u64| StoreOperation::Put {
            key: [&[Kind::Row as u8], &(number * index).to_be_bytes()[..]].concat(),
            value: format!("{index} {}", "y".repeat(30)).into_bytes(),
        });
        let batch = StoreBatch {
            operations: operations.collect(),
            applied: Applied { index, term: 1 },
        };
        store.apply(batch).unwrap();
        while index % 20 == 0 && store.flushed() < store.applied() {
            store.request_flush();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    let at = store.snapshot();
    let content = store.scan(&[], None, &at).map(Result::unwrap).collect();
    drop(store);
    storage.close();
    let mut files = Vec::new();
    list(directory.path(), &mut files);
    files.sort();
    Sample {
        directory,
        files,
        content,
    }
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// What is done to a file, at a place given as a fraction of its length.
#[derive(Clone, Debug)]
enum Damage {
    Flip { bit: u8 },
    Zero { bytes: usize },
    Random { bytes: Vec<u8> },
    Truncate,
    Remove,
    Duplicate { bytes: usize },
}

fn damages() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (0..8u8).prop_map(|bit| Damage::Flip { bit }),
        1 => (1..600usize).prop_map(|bytes| Damage::Zero { bytes }),
        2 => proptest::collection::vec(any::<u8>(), 1..40).prop_map(|bytes| Damage::Random { bytes }),
        1 => Just(Damage::Truncate),
        1 => Just(Damage::Remove),
        1 => (1..300usize).prop_map(|bytes| Damage::Duplicate { bytes }),
    ]
}

fn inflict(path: &Path, damage: &Damage, permille: usize) {
    let mut content = fs::read(path).unwrap();
    let at = content.len() * permille / 1_000;
    match damage {
        Damage::Flip { bit } => {
            if let Some(byte) = content.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Damage::Zero { bytes } => content
            .iter_mut()
            .skip(at)
            .take(*bytes)
            .for_each(|byte| *byte = 0),
        Damage::Random { bytes } => {
            let places = content.iter_mut().skip(at).zip(bytes);
            places.for_each(|(place, byte)| *place = *byte);
        }
        Damage::Truncate => content.truncate(at),
        Damage::Duplicate { bytes } => {
            let end = (at + bytes).min(content.len());
            let again = content[at..end].to_vec();
            content.splice(at..at, again);
        }
        Damage::Remove => return fs::remove_file(path).unwrap(),
    }
    // Not in place: tables are links.
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

fn read_store(store: &Arc<dyn Store>) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let at = store.snapshot();
    let pairs: Vec<(Bytes, Bytes)> = store.scan(&[], None, &at).collect::<Result<_, _>>()?;
    for (key, value) in &pairs {
        assert_eq!(
            store.get(key, &at)?.as_ref(),
            Some(value),
            "get and scan agree"
        );
    }
    Ok(pairs)
}

fn check(directory: &Path, in_log: bool) {
    let storage = match open(directory, Options::default()) {
        Ok(storage) => storage,
        Err(error) => {
            assert!(in_log, "damage of a store concerns that store: {error}");
            assert!(!matches!(error, OpenError::InUse(_)), "{error}");
            return;
        }
    };
    if let Some(bounds) = storage.log.bounds(LOG) {
        assert_eq!(bounds.first, 1);
        assert!(in_log || bounds.last == ENTRIES);
        for index in 1..=bounds.last {
            let entries = storage.log.entries(LOG, index, index, 1).unwrap();
            assert!(
                entries[0]
                    .data
                    .starts_with(format!("entry {index} ").as_bytes())
            );
        }
    }
    match storage.stores.open(REPLICA) {
        Ok(store) => match read_store(&store) {
            Ok(content) => {
                assert_eq!(store.applied().index, ENTRIES);
                assert_eq!(content, SAMPLE.content, "wrong data were read");
            }
            Err(error) => assert!(!in_log, "{error}"),
        },
        Err(error) => assert!(!in_log, "{error}"),
    }
    storage.close();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn any_damage_is_an_error_or_harmless(
        file in any::<prop::sample::Index>(),
        damage in damages(),
        permille in 0..1_000usize,
    ) {
        let sample = &*SAMPLE;
        let original = file.get(&sample.files);
        let inside = original.strip_prefix(sample.directory.path()).unwrap();
        let directory = TempDir::new().unwrap();
        copy(sample.directory.path(), directory.path());
        inflict(&directory.path().join(inside), &damage, permille);
        check(directory.path(), inside.starts_with("log"));
    }
}

/// No checksum of the log's format covers the byte that says how a record is compressed.
#[test]
fn a_record_that_says_that_it_is_compressed_is_damage() {
    const FIRST_RECORDS_TYPE: usize = 53 + 16 + 7;
    let directory = TempDir::new().unwrap();
    copy(SAMPLE.directory.path(), directory.path());
    let mut files = Vec::new();
    list(&directory.path().join("log"), &mut files);
    let is_log = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "raftlog");
    let path = files.into_iter().find(is_log).unwrap();
    let mut content = fs::read(&path).unwrap();
    assert_eq!(content[FIRST_RECORDS_TYPE], 0);
    content[FIRST_RECORDS_TYPE] = 1;
    fs::write(&path, content).unwrap();
    let opened = open(directory.path(), Options::default());
    assert!(matches!(opened, Err(OpenError::Corrupt(_))));
}
