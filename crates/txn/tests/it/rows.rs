//! What writes do to rows, and what reads see of them, on one node.

use crate::cluster::{Cluster, row_key, simulate};
use api::{
    Atomicity, Condition, Direction, Error, KeyRange, Mutation, ReadBound, Refused, Retry,
    Returning, RowOperation, Selection,
};
use catalog::Change;
use model::Timestamp;
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[test]
fn a_write_is_there_and_one_sync_is_enough() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "kv");
        cluster.start_all().await;
        cluster
            .write(vec![cluster.put("kv", &[1], "a")])
            .await
            .unwrap();
        assert_eq!(cluster.get("kv", &[1]).await.as_deref(), Some("a"));
        // The simulated disk's syncs take less than 3 ms each.
        let begun = Instant::now();
        cluster
            .write(vec![cluster.put("kv", &[2], "b")])
            .await
            .unwrap();
        assert!(
            begun.elapsed() < Duration::from_millis(4),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(cluster.get("kv", &[3]).await, None);
    });
}

#[test]
fn writes_are_pipelined_and_only_conflicting_ones_take_turns() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "kv");
        cluster.start_all().await;
        cluster
            .write(vec![cluster.put("kv", &[0], "first")])
            .await
            .unwrap();
        let begun = Instant::now();
        let mut writers = tokio::task::JoinSet::new();
        for number in 0..100 {
            let tablet = cluster.tablet(1);
            let request = cluster.request(vec![cluster.put("kv", &[number], "x")]);
            writers.spawn(async move { tablet.write(request).await.unwrap() });
        }
        let mut timestamps = Vec::new();
        while let Some(response) = writers.join_next().await {
            timestamps.push(response.unwrap().commit_timestamp.unwrap());
        }
        timestamps.sort();
        timestamps.dedup();
        assert_eq!(timestamps.len(), 100);
        assert!(
            begun.elapsed() < Duration::from_millis(15),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(cluster.scan("kv").await.len(), 100);
    });
}

#[test]
fn conditions_are_evaluated_on_the_row_as_it_is() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "kv");
        cluster.start_all().await;
        cluster
            .write(vec![cluster.insert("kv", &[1], "a")])
            .await
            .unwrap();
        let again = cluster.write(vec![cluster.insert("kv", &[1], "b")]).await;
        assert_eq!(
            again,
            Err(Error::Refused(Refused::RowExists { mutation: 0 }))
        );
        let mut conditional = cluster.put("kv", &[1], "c");
        conditional.condition = Some(Condition::RowMissing);
        conditional.returning = Returning::Old;
        let refused = cluster.write(vec![conditional.clone()]).await;
        let Err(Error::Refused(Refused::ConditionFailed { row: Some(_), .. })) = refused else {
            panic!("{refused:?}");
        };
        conditional.condition = Some(Condition::RowExists);
        conditional.returning = Returning::Both;
        let response = cluster.write(vec![conditional]).await.unwrap();
        assert!(response.returned[0].old.is_some() && response.returned[0].new.is_some());
        assert_eq!(cluster.get("kv", &[1]).await.as_deref(), Some("c"));
    });
}

#[test]
fn a_batch_is_all_or_nothing_and_a_loose_one_is_not() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "kv");
        cluster.start_all().await;
        cluster
            .write(vec![cluster.put("kv", &[1], "a")])
            .await
            .unwrap();
        let batch = vec![
            cluster.put("kv", &[2], "b"),
            cluster.insert("kv", &[1], "x"),
        ];
        let refused = cluster.write(batch.clone()).await;
        assert_eq!(
            refused,
            Err(Error::Refused(Refused::RowExists { mutation: 1 }))
        );
        assert_eq!(cluster.get("kv", &[2]).await, None);
        let mut loose = cluster.request(batch);
        loose.atomicity = Atomicity::Each;
        let refused = cluster.write_as(loose).await;
        assert_eq!(
            refused,
            Err(Error::Refused(Refused::RowExists { mutation: 1 }))
        );
        assert_eq!(cluster.get("kv", &[2]).await.as_deref(), Some("b"));
    });
}

#[test]
fn a_command_is_applied_once_however_often_it_comes() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "kv");
        cluster.start_all().await;
        let mut insert = cluster.insert("kv", &[1], "a");
        insert.returning = Returning::Both;
        let request = cluster.request(vec![insert]);
        let first = cluster.write_as(request.clone()).await.unwrap();
        cluster
            .write(vec![cluster.put("kv", &[1], "b")])
            .await
            .unwrap();
        assert_eq!(cluster.write_as(request.clone()).await.unwrap(), first);
        cluster.crash(1);
        cluster.start(1).await;
        assert_eq!(cluster.write_as(request).await.unwrap(), first);
        assert_eq!(cluster.get("kv", &[1]).await.as_deref(), Some("b"));
    });
}

#[test]
fn the_past_is_read_as_it_was() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "parent");
        cluster.config.history_ms = 60_000;
        cluster.start_all().await;
        let mut commits = Vec::new();
        for (number, value) in ["a", "b", "", "c"].into_iter().enumerate() {
            let mutation = match value {
                "" => cluster.delete("parent", &[1]),
                _ => cluster.put("parent", &[1], value),
            };
            let other = cluster.put("parent", &[2 + number as i64], "other");
            let response = cluster.write(vec![mutation, other]).await.unwrap();
            commits.push((response.commit_timestamp.unwrap(), value));
            sleep(Duration::from_millis(10)).await;
        }
        let selection = Selection::Ranges(vec![KeyRange::all()]);
        for (index, (at, value)) in commits.iter().enumerate() {
            let expected = (!value.is_empty()).then(|| value.to_string());
            let bound = ReadBound::At(*at);
            assert_eq!(cluster.get_at("parent", &[1], bound).await, expected);
            let count = index + 1 + usize::from(expected.is_some());
            for direction in [Direction::Forward, Direction::Backward] {
                let mut read = cluster.read_request("parent", selection.clone(), bound);
                read.direction = direction;
                let response = cluster.read_as(read).await.unwrap();
                assert_eq!(response.rows.len(), count, "at {at} {direction:?}");
                assert_eq!(response.timestamp, Some(*at));
            }
        }
        let before = ReadBound::At(commits[0].0.plus_micros(-1));
        assert_eq!(cluster.get_at("parent", &[1], before).await, None);
        sleep(Duration::from_secs(61)).await;
        let read = cluster.read_request("parent", selection, before);
        let too_old = cluster.read_as(read).await;
        assert!(
            matches!(too_old, Err(Error::Refused(Refused::TooOld(_)))),
            "{too_old:?}"
        );
    });
}

#[test]
fn scans_page_in_both_directions() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "parent");
        cluster.start_all().await;
        for number in 0..10 {
            let value = number.to_string();
            cluster
                .write(vec![cluster.put("parent", &[number], &value)])
                .await
                .unwrap();
            let child = cluster.put("child", &[number, 1], "child");
            cluster.write(vec![child]).await.unwrap();
        }
        for direction in [Direction::Forward, Direction::Backward] {
            let mut selection = Selection::Ranges(vec![KeyRange::all()]);
            let mut seen = Vec::new();
            let mut pages = 0;
            loop {
                let mut read = cluster.read_request("parent", selection, ReadBound::Strong);
                read.direction = direction;
                read.row_limit = Some(3);
                let response = cluster.read_as(read).await.unwrap();
                assert!(response.rows.len() <= 3);
                seen.extend(cluster.values("parent", &response));
                pages += 1;
                match response.next {
                    Some(next) => selection = next,
                    None => break,
                }
            }
            assert!(pages <= 5, "{pages}");
            let mut expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
            if direction == Direction::Backward {
                expected.reverse();
            }
            assert_eq!(seen, expected);
        }
    });
}

#[test]
fn interleaved_rows_need_their_parents_and_hold_or_follow_them() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "parent");
        cluster.start_all().await;
        let orphan = cluster
            .write(vec![cluster.insert("child", &[1, 1], "c")])
            .await;
        assert_eq!(
            orphan,
            Err(Error::Refused(Refused::RowMissing { mutation: 0 }))
        );
        let family = vec![
            cluster.insert("parent", &[1], "p"),
            cluster.insert("child", &[1, 1], "c"),
            cluster.insert("tail", &[1, 1], "t"),
        ];
        cluster.write(family).await.unwrap();
        let refused = cluster.write(vec![cluster.delete("parent", &[1])]).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        assert_eq!(cluster.scan("tail").await, ["t"]);
        let batch = vec![
            cluster.delete("child", &[1, 1]),
            cluster.delete("parent", &[1]),
        ];
        cluster.write(batch).await.unwrap();
        assert!(cluster.scan("tail").await.is_empty());
        assert!(cluster.scan("parent").await.is_empty());
    });
}

#[test]
fn ranges_are_deleted_with_what_is_interleaved() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "parent");
        cluster.start_all().await;
        for number in 0..5 {
            let rows = vec![
                cluster.insert("parent", &[number], &number.to_string()),
                cluster.insert("tail", &[number, 1], "t"),
            ];
            cluster.write(rows).await.unwrap();
        }
        let table = cluster.table("parent");
        let range = KeyRange {
            start: row_key(&table, &[1]),
            end: Some(row_key(&table, &[3])),
        };
        let key = range.start.clone();
        let delete = Mutation::new(table.id, key, RowOperation::DeleteRange { range });
        cluster.write(vec![delete]).await.unwrap();
        assert_eq!(cluster.scan("parent").await, ["0", "3", "4"]);
        assert_eq!(cluster.scan("tail").await.len(), 3);
    });
}

#[test]
fn what_a_transaction_has_read_must_not_have_changed() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "parent");
        cluster.start_all().await;
        let first = cluster
            .write(vec![cluster.put("parent", &[1], "a")])
            .await
            .unwrap();
        let first = first.commit_timestamp.unwrap();
        let mut request = cluster.request(vec![cluster.put("parent", &[2], "b")]);
        request.assertions = vec![
            cluster.assertion("parent", &[1], first),
            cluster.assertion("parent", &[9], first),
        ];
        cluster.write_as(request.clone()).await.unwrap();
        let second = cluster
            .write(vec![cluster.delete("parent", &[1])])
            .await
            .unwrap();
        request.command = cluster.command();
        let aborted = cluster.write_as(request.clone()).await;
        assert!(
            matches!(aborted, Err(Error::Retry(Retry::Aborted(_)))),
            "{aborted:?}"
        );
        request.command = cluster.command();
        request.mutations.clear();
        request.assertions =
            vec![cluster.assertion("parent", &[1], second.commit_timestamp.unwrap())];
        let response = cluster.write_as(request).await.unwrap();
        assert!(response.commit_timestamp > Some(Timestamp::MIN));
    });
}

#[test]
fn external_commits_are_in_the_order_of_real_time() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "parent");
        cluster.start_all().await;
        let mut last = Timestamp::MIN;
        for number in 0..20 {
            let now = world::Clock::now(&cluster.nodes[&1].clock).unwrap();
            let write = vec![cluster.put("parent", &[number], "x")];
            let commit = cluster
                .write(write)
                .await
                .unwrap()
                .commit_timestamp
                .unwrap();
            assert!(commit >= now.latest && commit > last);
            let now = world::Clock::now(&cluster.nodes[&1].clock).unwrap();
            assert!(
                now.is_after(commit),
                "acknowledged before {commit} has passed: {now:?}"
            );
            last = commit;
        }
    });
}

#[test]
fn rows_expire() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "kv");
        cluster.start_all().await;
        let mut put = cluster.put("kv", &[1], "a");
        if let RowOperation::Merge { ttl_seconds, .. } = &mut put.operation {
            *ttl_seconds = Some(5);
        }
        cluster.write(vec![put]).await.unwrap();
        assert!(cluster.get("kv", &[1]).await.is_some());
        sleep(Duration::from_secs(6)).await;
        assert_eq!(cluster.get("kv", &[1]).await, None);
        cluster
            .write(vec![cluster.insert("kv", &[1], "b")])
            .await
            .unwrap();
    });
}

#[test]
fn a_sealed_table_takes_no_write_however_early_it_was_lowered() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "kv");
        cluster.start_all().await;
        let early = cluster.request(vec![cluster.put("kv", &[1], "a")]);
        let known = cluster.request(vec![cluster.put("kv", &[2], "b")]);
        cluster.write_as(known.clone()).await.unwrap();
        let table = cluster.table("kv");
        let seal = |version, at_micros| Change::SealTable {
            table: table.id,
            version,
            at_micros,
        };
        cluster.change(seal(table.version, Some(1)));
        let late = cluster.request(vec![cluster.put("kv", &[3], "c")]);
        for write in [&early, &late] {
            assert!(matches!(
                cluster.write_as(write.clone()).await,
                Err(Error::Retry(Retry::StaleSchema { .. }))
            ));
        }
        // What was done before the seal is still told to whoever asks again.
        cluster.write_as(known).await.unwrap();
        assert_eq!(cluster.get("kv", &[1]).await, None);
        assert_eq!(cluster.get("kv", &[2]).await.as_deref(), Some("b"));
        cluster.change(seal(cluster.table("kv").version, None));
        cluster.write_as(early).await.unwrap();
        assert_eq!(cluster.get("kv", &[1]).await.as_deref(), Some("a"));
    });
}

#[test]
fn what_has_expired_is_deleted_and_nothing_else() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "kv");
        cluster.start_all().await;
        let put = |key: i64, ttl: Option<u32>| {
            let mut mutation = cluster.put("kv", &[key], "a");
            if let RowOperation::Merge { ttl_seconds, .. } = &mut mutation.operation {
                *ttl_seconds = ttl;
            }
            mutation
        };
        for from in (0..600).step_by(100) {
            let some = (from..from + 100).map(|key| put(key, Some(15)));
            cluster.write(some.collect()).await.unwrap();
        }
        cluster
            .write(vec![put(7, None), put(300, Some(60)), put(1_000, None)])
            .await
            .unwrap();
        let table = cluster.table("kv");
        let sweep = async || {
            let tablet = cluster.tablet(1);
            let mut sweep = tablet.expiry_sweep();
            while sweep.rest.is_some() {
                let schema = cluster.request(Vec::new()).schema;
                tablet
                    .sweep_expired(&table, schema, cluster.command(), &mut sweep)
                    .await
                    .unwrap();
            }
            sweep
        };
        let early = sweep().await;
        assert_eq!(early.deleted_rows, 0);
        assert!(early.next_expiry.is_some());
        sleep(Duration::from_secs(28)).await;
        let swept = sweep().await;
        assert_eq!(swept.deleted_rows, 598);
        assert!(swept.next_expiry > early.next_expiry, "{swept:?}");
        assert_eq!(cluster.scan("kv").await.len(), 3);
        // Nothing of them is left but history.
        let after = sweep().await;
        assert_eq!(after.deleted_rows, 0);
        assert!(after.scanned_bytes * 100 < swept.scanned_bytes, "{after:?}");
        sleep(Duration::from_secs(50)).await;
        assert_eq!(sweep().await.deleted_rows, 1);
        assert_eq!(cluster.scan("kv").await.len(), 2);
    });
}
