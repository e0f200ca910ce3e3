//! A torn tail is cut; damage is refused, with nothing changed; a failed write closes the log.

use bytes::Bytes;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use storage::{LogOptions, OpenError, Options, Replay, Storage, open};
use tempfile::TempDir;
use world::{Applied, LogBatch, LogEntry, LogError, LogId, LogOperation};

const LOG: LogId = LogId(7);

fn batch(index: u64, data: &str) -> LogBatch {
    let data = Bytes::from(format!("{index} {data}"));
    let entries = vec![LogEntry {
        index,
        term: 1,
        data,
    }];
    let key = b"last".to_vec();
    let value = Bytes::from(index.to_string());
    let put = LogOperation::Put {
        log: LOG,
        key,
        value,
    };
    LogBatch {
        operations: vec![LogOperation::Append { log: LOG, entries }, put],
    }
}

fn small_files() -> Options {
    Options {
        log: LogOptions {
            file_bytes: 4_000,
            ..LogOptions::default()
        },
        ..Options::default()
    }
}

/// Entries 1 ..= `count`, a record each.
async fn fill(directory: &Path, options: Options, count: u64) {
    let storage = open(directory, options).unwrap();
    for index in 1..=count {
        let written = storage.log.write(batch(index, "some data of an entry"));
        written.await.unwrap();
    }
    storage.close();
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("log")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "raftlog")
        })
        .collect();
    paths.sort();
    paths
}

fn last(storage: &Storage) -> u64 {
    storage.log.bounds(LOG).map_or(0, |bounds| bounds.last)
}

/// Every entry up to the last, and the record that was written with the last.
fn check(storage: &Storage) {
    let last = last(storage);
    for index in 1..=last {
        let entries = storage.log.entries(LOG, index, index, 1).unwrap();
        assert!(entries[0].data.starts_with(format!("{index} ").as_bytes()));
    }
    let value = Bytes::from(last.to_string());
    assert_eq!(storage.log.get(LOG, b"last"), (last > 0).then_some(value));
}

#[tokio::test]
async fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let source = TempDir::new().unwrap();
    fill(source.path(), Options::default(), 5).await;
    let whole = fs::read(&files(source.path())[0]).unwrap();
    let shorter = TempDir::new().unwrap();
    fill(shorter.path(), Options::default(), 4).await;
    let begin = fs::read(&files(shorter.path())[0]).unwrap().len();
    assert!(begin < whole.len());
    for torn_at in (begin..whole.len()).step_by(3) {
        // What the disk holds behind the torn record: nothing, zeros allocated ahead, or what was there before.
        for rest in [vec![], vec![0; 5_000], vec![0xa5; 300]] {
            let directory = TempDir::new().unwrap();
            fs::create_dir_all(directory.path().join("log")).unwrap();
            let name = files(source.path())[0].file_name().unwrap().to_owned();
            let content = [&whole[..torn_at], &rest].concat();
            fs::write(directory.path().join("log").join(name), &content).unwrap();
            let storage = open(directory.path(), Options::default()).unwrap();
            assert_eq!(last(&storage), 4);
            let was_torn = content[begin..].iter().any(|byte| *byte != 0);
            assert_eq!(storage.torn_tails.len(), usize::from(was_torn));
            check(&storage);
            storage.log.write(batch(5, "again")).await.unwrap();
            storage.close();
            let storage = open(directory.path(), Options::default()).unwrap();
            assert_eq!(last(&storage), 5);
            assert!(storage.torn_tails.is_empty());
            check(&storage);
        }
    }
}

#[tokio::test]
async fn a_bad_record_with_good_ones_behind_it_is_damage() {
    let directory = TempDir::new().unwrap();
    fill(directory.path(), Options::default(), 5).await;
    let path = &files(directory.path())[0];
    let whole = fs::read(path).unwrap();
    let shorter = TempDir::new().unwrap();
    fill(shorter.path(), Options::default(), 4).await;
    let last_record = fs::read(&files(shorter.path())[0]).unwrap().len();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(path, &damaged).unwrap();
        match open(directory.path(), Options::default()) {
            Err(OpenError::Corrupt(text)) => {
                assert!(at < last_record, "the last record might be a torn one");
                assert!(
                    text.contains("move this node's data directory away"),
                    "{text}"
                );
                assert_eq!(fs::read(path).unwrap(), damaged, "nothing was changed");
            }
            Err(other) => panic!("byte {at}: {other}"),
            Ok(storage) => {
                assert!(at >= last_record, "damage at byte {at} was not noticed");
                assert_eq!(last(&storage), 4);
                check(&storage);
                storage.close();
            }
        }
    }
}

#[tokio::test]
async fn only_the_last_file_may_be_torn() {
    let directory = TempDir::new().unwrap();
    fill(directory.path(), small_files(), 200).await;
    let paths = files(directory.path());
    assert!(paths.len() > 3, "this test wants several files");
    let middle = fs::read(&paths[1]).unwrap();

    fs::write(&paths[1], &middle[..middle.len() - 1]).unwrap();
    let torn = open(directory.path(), small_files());
    assert!(matches!(torn.err(), Some(OpenError::Corrupt(_))));

    fs::remove_file(&paths[1]).unwrap();
    let missing = open(directory.path(), small_files());
    assert!(matches!(missing.err(), Some(OpenError::Corrupt(_))));

    fs::write(&paths[1], &middle).unwrap();
    // A file that had just been begun.
    let newest = paths[paths.len() - 1].with_file_name(format!("{:016}.raftlog", paths.len() + 1));
    fs::write(&newest, &middle[..20]).unwrap();
    let storage = open(directory.path(), small_files()).unwrap();
    assert_eq!(last(&storage), 200);
    check(&storage);
    storage.log.write(batch(201, "goes on")).await.unwrap();
    storage.close();
    let storage = open(directory.path(), small_files()).unwrap();
    assert_eq!(last(&storage), 201);
    storage.close();
}

#[tokio::test]
async fn a_directory_is_opened_once() {
    let directory = TempDir::new().unwrap();
    let storage = open(directory.path(), Options::default()).unwrap();
    let second = open(directory.path(), Options::default());
    assert!(matches!(second.err(), Some(OpenError::InUse(_))));
    storage.close();
    open(directory.path(), Options::default()).unwrap().close();
}

#[tokio::test]
async fn files_that_nobody_needs_go() {
    let directory = TempDir::new().unwrap();
    let options = Options {
        log: LogOptions {
            file_bytes: 64 << 10,
            purge_bytes: 256 << 10,
            tail_bytes: 64 << 10,
        },
        ..Options::default()
    };
    let storage = open(directory.path(), options.clone()).unwrap();
    let text = "x".repeat(2_000);
    let idle = LogOperation::Put {
        log: LogId(1),
        key: b"vote".to_vec(),
        value: Bytes::from_static(b"kept"),
    };
    let operations = vec![idle];
    storage.log.write(LogBatch { operations }).await.unwrap();
    for index in 1..=2_000 {
        storage.log.write(batch(index, &text)).await.unwrap();
        if index % 50 == 0 {
            let first = index - 20;
            let operations = vec![LogOperation::Cut { log: LOG, first }];
            storage.log.write(LogBatch { operations }).await.unwrap();
        }
    }
    let size = || -> u64 {
        let sizes = files(directory.path()).into_iter();
        sizes.map(|path| fs::metadata(path).unwrap().len()).sum()
    };
    for _ in 0..100 {
        if size() < 1 << 20 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(size() < 1 << 20, "{} bytes of files stay", size());
    storage.close();
    let storage = open(directory.path(), options).unwrap();
    let kept = Some(Bytes::from_static(b"kept"));
    assert_eq!(storage.log.get(LogId(1), b"vote"), kept);
    let bounds = storage.log.bounds(LOG).unwrap();
    assert_eq!((bounds.first, bounds.last), (1_980, 2_000));
    let entries = storage.log.entries(LOG, 1_980, 2_000, u64::MAX).unwrap();
    assert_eq!(entries.len(), 21);
    storage.close();
}

#[tokio::test]
async fn a_log_that_begins_above_the_store_is_a_gap() {
    let directory = TempDir::new().unwrap();
    fill(directory.path(), Options::default(), 9).await;
    let storage = open(directory.path(), Options::default()).unwrap();
    let applied = storage.stores.open(model::ReplicaId(7)).unwrap().applied();
    let found = storage::replay(storage.log.bounds(LOG), applied);
    assert_eq!(found, Ok(Replay::From { first: 1, last: 9 }));
    let first = storage::cut_point(applied, 6);
    assert_eq!(first, 1, "nothing is flushed");
    let operations = vec![LogOperation::Cut { log: LOG, first: 6 }];
    storage.log.write(LogBatch { operations }).await.unwrap();
    let error = storage::replay(storage.log.bounds(LOG), Applied::default()).unwrap_err();
    assert!(error.to_string().contains("rebuild this replica"));
    storage.close();
}

/// Writers come and go, some give up waiting; nobody else waits for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_writer_is_woken() {
    let directory = TempDir::new().unwrap();
    let storage = open(directory.path(), Options::default()).unwrap();
    let writers: Vec<_> = (1..=400)
        .map(|writer: u64| {
            let log = storage.log.clone();
            tokio::spawn(async move {
                for index in 1..=30 {
                    let entry = LogEntry {
                        index,
                        term: writer,
                        data: Bytes::from_static(b"x"),
                    };
                    let operations = vec![LogOperation::Append {
                        log: LogId(writer),
                        entries: vec![entry],
                    }];
                    let written = log.write(LogBatch { operations });
                    if (writer + index).is_multiple_of(5) {
                        let wait = std::time::Duration::from_micros(index * 30);
                        let _ = tokio::time::timeout(wait, written).await;
                    } else {
                        written.await.unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        let wait = std::time::Duration::from_secs(30);
        tokio::time::timeout(wait, writer)
            .await
            .expect("woken")
            .unwrap();
    }
    let logs = storage.log.logs();
    assert_eq!(logs.len(), 400);
    for log in logs {
        let entries = storage.log.entries(log, 1, 30, u64::MAX).unwrap();
        assert_eq!(entries.len(), 30);
    }
    storage.close();
}

/// The other process of the next test, which has no room for a large file.
#[tokio::test]
async fn child_without_room() {
    let Ok(directory) = std::env::var("STORAGE_CHILD_WITHOUT_ROOM") else {
        return;
    };
    let storage = open(Path::new(&directory), Options::default()).unwrap();
    let text = "x".repeat(10_000);
    let mut index = 1;
    let error = loop {
        match storage.log.write(batch(index, &text)).await {
            Ok(()) => index += 1,
            Err(error) => break error,
        }
        assert!(index < 10_000, "there was room after all");
    };
    assert!(matches!(error, LogError::Failed(_)), "{error}");
    let later = storage.log.write(batch(index, "small")).await;
    assert!(matches!(later, Err(LogError::Failed(_))), "closed for good");
    storage.log.write_later(batch(index, "small"), 1);
    println!("acknowledged {}", index - 1);
}

#[tokio::test]
async fn a_failed_write_closes_the_log_and_loses_nothing_acknowledged() {
    let directory = TempDir::new().unwrap();
    let program = std::env::current_exe().unwrap();
    let script = "trap '' XFSZ; ulimit -f 1000; exec \"$0\" --exact log_damage::child_without_room --nocapture";
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(program)
        .env("STORAGE_CHILD_WITHOUT_ROOM", directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let acknowledged = text.split("acknowledged ").nth(1);
    let acknowledged = acknowledged.and_then(|rest| rest.lines().next());
    let acknowledged: u64 = acknowledged
        .expect("the child says so")
        .trim()
        .parse()
        .unwrap();
    assert!(acknowledged > 10);
    let storage = open(directory.path(), Options::default()).unwrap();
    assert!(last(&storage) >= acknowledged);
    check(&storage);
    storage.close();
}
