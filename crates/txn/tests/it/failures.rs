//! Crashes, partitions and laggards: every acknowledged write stays, and nothing is applied twice.

use crate::cluster::{Cluster, simulate};
use api::{ReadBound, TransactionId};
use catalog::Change;
use model::{PlacementEpoch, TableId};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::sleep;
use txn::{Attempt, Share, Span, Step, Stepped, TabletStep};
use world::Clock;

#[test]
fn every_acknowledged_write_survives_each_node_in_turn() {
    simulate(|| async {
        let mut cluster = Cluster::new(3, "kv");
        cluster.start_all().await;
        let mut written = 0;
        for round in 0..6 {
            for _ in 0..20 {
                let value = written.to_string();
                let put = cluster.insert("kv", &[written], &value);
                cluster.write(vec![put]).await.unwrap();
                written += 1;
            }
            let down = round % 3 + 1;
            if round == 3 {
                cluster.flush();
                sleep(Duration::from_secs(2)).await;
            }
            cluster.crash(down);
            for _ in 0..20 {
                let value = written.to_string();
                let put = cluster.insert("kv", &[written], &value);
                cluster.write(vec![put]).await.unwrap();
                written += 1;
            }
            cluster.start(down).await;
        }
        let found: BTreeSet<String> = cluster.scan("kv").await.into_iter().collect();
        let expected: BTreeSet<String> = (0..written).map(|number| number.to_string()).collect();
        assert_eq!(found, expected);
    });
}

#[test]
fn a_retried_write_is_applied_once_across_leaseholders() {
    simulate(|| async {
        let mut cluster = Cluster::new(3, "kv");
        cluster.start_all().await;
        cluster
            .write(vec![cluster.put("kv", &[1], "a")])
            .await
            .unwrap();
        let holder = cluster.leaseholder().await;
        let tablet = cluster.tablet(holder);
        let request = cluster.request(vec![cluster.insert("kv", &[2], "b")]);
        let first = tokio::spawn({
            let request = request.clone();
            async move { tablet.write(request).await }
        });
        // Its entry reaches the others; it does not hear of it.
        sleep(Duration::from_micros(3_200)).await;
        cluster.isolate(holder);
        // Whatever became of it: the same command, at whoever leads next, ends in one row and no refusal.
        let response = cluster.write_as(request).await.unwrap();
        assert!(response.commit_timestamp.is_some());
        cluster.heal();
        let _ = first.await.unwrap();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(cluster.get("kv", &[2]).await.as_deref(), Some("b"));
    });
}

#[test]
fn a_laggard_gets_the_rows_and_the_past_and_the_lease() {
    simulate(|| async {
        let mut cluster = Cluster::new(3, "parent");
        cluster.start_all().await;
        let first = cluster
            .write(vec![cluster.put("parent", &[1], "old")])
            .await
            .unwrap();
        let first = first.commit_timestamp.unwrap();
        let holder = cluster.leaseholder().await;
        let laggard = holder % 3 + 1;
        cluster.crash(laggard);
        for number in 0..300 {
            let write = vec![cluster.put("parent", &[number % 30], &format!("new {number}"))];
            cluster.write(write).await.unwrap();
        }
        cluster.flush();
        for number in 0..50 {
            let write = vec![cluster.put("parent", &[number % 30], &format!("newer {number}"))];
            cluster.write(write).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        cluster.start(laggard).await;
        sleep(Duration::from_secs(2)).await;
        cluster
            .write(vec![cluster.put("parent", &[100], "last")])
            .await
            .unwrap();
        sleep(Duration::from_secs(1)).await;
        let first_index = |id: u64| {
            let groups = cluster.nodes[&id].groups.clone().unwrap();
            groups.status(crate::cluster::TABLET).unwrap().first_index
        };
        assert!(first_index(laggard) > 200, "{}", first_index(laggard));
        // The laggard leads next, with only what it was sent.
        let other = (1..=3).find(|id| *id != holder && *id != laggard).unwrap();
        cluster.crash(other);
        cluster.tablet(holder).release().await;
        cluster.nodes[&holder]
            .groups
            .clone()
            .unwrap()
            .transfer_leadership(
                crate::cluster::TABLET,
                crate::cluster::member(laggard).replica,
            );
        sleep(Duration::from_secs(1)).await;
        assert_eq!(cluster.scan("parent").await.len(), 31);
        assert_eq!(cluster.leaseholder().await, laggard);
        let old = cluster.get_at("parent", &[1], ReadBound::At(first)).await;
        assert_eq!(old.as_deref(), Some("old"));
    });
}

/// The table is dropped while another participant has not heard how the transaction ended.
#[test]
fn a_tablet_is_done_with_when_all_know_what_it_has_decided() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "kv");
        cluster.start_all().await;
        let table = cluster.table("kv");
        let tablet = cluster.tablet(1);
        let elsewhere = Span::point(TableId(99), b"key".to_vec());
        let step = async |step: Step| {
            let schema = cluster.request(Vec::new()).schema;
            let step = TabletStep {
                tablet: cluster.descriptor().id,
                epoch: PlacementEpoch(1),
                schema,
                patience_ms: 2_000,
                step,
            };
            cluster.tablet(1).step(step).await
        };
        let share = |key: i64| {
            let mutation = cluster.put("kv", &[key], "a");
            let id = cluster.command();
            Share {
                attempt: Attempt {
                    id,
                    transaction: TransactionId::default(),
                    began: cluster.nodes[&1].clock.now().unwrap().earliest,
                    coordinator: Span::point(table.id, mutation.key.clone()),
                    kept_as: None,
                },
                mutations: vec![mutation],
                assertions: Vec::new(),
            }
        };
        let decided = share(1);
        let Ok(Stepped::Prepared(prepared)) = step(Step::Prepare(decided.clone())).await else {
            panic!("it is not prepared");
        };
        let decide = Step::Decide {
            attempt: decided.attempt.clone(),
            timestamp: prepared.timestamp,
            before: prepared.before,
            is_external: prepared.is_external,
            participants: vec![decided.attempt.coordinator.clone(), elsewhere],
        };
        let decision = step(decide).await;
        assert!(matches!(decision, Ok(Stepped::Decided(_))), "{decision:?}");
        assert!(!tablet.is_done_with().await, "the table is there");
        let late = share(2);
        cluster.change(Change::DropTable { table: table.id });
        assert!(!tablet.is_done_with().await, "the other does not know");
        let refused = step(Step::Prepare(late)).await;
        assert!(refused.is_err(), "{refused:?}");
        sleep(Duration::from_secs(5)).await;
        assert!(!tablet.is_done_with().await, "the other does not answer");
        cluster.others_hear.send_replace(true);
        sleep(Duration::from_secs(5)).await;
        assert!(tablet.is_done_with().await, "nothing is left to be told");
    });
}
