//! Leases and what they promise (ARCHITECTURE, "The strong path").

use crate::cluster::{Cluster, row_key, simulate};
use api::{ReadBound, Selection};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use txn::TabletError;

#[test]
fn a_restarted_leaseholder_waits_for_the_end_of_its_own_lease() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "kv");
        cluster.start_all().await;
        cluster
            .write(vec![cluster.put("kv", &[1], "a")])
            .await
            .unwrap();
        let end = cluster.tablet(1).status().lease.unwrap().end;
        cluster.crash(1);
        cluster.start(1).await;
        let response = cluster
            .write(vec![cluster.put("kv", &[2], "b")])
            .await
            .unwrap();
        assert!(response.commit_timestamp.unwrap() > end);
    });
}

#[test]
fn a_released_lease_is_taken_at_once() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "kv");
        cluster.start_all().await;
        cluster
            .write(vec![cluster.put("kv", &[1], "a")])
            .await
            .unwrap();
        let before = cluster.tablet(1).status().lease.unwrap();
        cluster.tablet(1).release().await;
        assert!(!cluster.tablet(1).status().is_leaseholder);
        cluster.crash(1);
        cluster.start(1).await;
        let begun = Instant::now();
        cluster
            .write(vec![cluster.put("kv", &[2], "b")])
            .await
            .unwrap();
        assert!(
            begun.elapsed() < Duration::from_millis(50),
            "{:?}",
            begun.elapsed()
        );
        let after = cluster.tablet(1).status().lease.unwrap();
        assert!(after.epoch > before.epoch);
    });
}

#[test]
fn an_idle_lease_lapses_and_a_used_one_does_not() {
    simulate(|| async {
        let mut cluster = Cluster::new(1, "kv");
        cluster.start_all().await;
        cluster
            .write(vec![cluster.put("kv", &[1], "a")])
            .await
            .unwrap();
        let epoch = cluster.tablet(1).status().lease.unwrap().epoch;
        for _ in 0..20 {
            sleep(Duration::from_millis(500)).await;
            cluster.get("kv", &[1]).await.unwrap();
        }
        let status = cluster.tablet(1).status();
        assert!(status.is_leaseholder && status.lease.unwrap().epoch == epoch);
        sleep(Duration::from_secs(4)).await;
        assert!(!cluster.tablet(1).status().is_leaseholder);
        cluster.get("kv", &[1]).await.unwrap();
        assert!(cluster.tablet(1).status().lease.unwrap().epoch > epoch);
    });
}

#[test]
fn strong_reads_need_no_quorum_while_the_lease_holds_and_stop_when_it_ends() {
    simulate(|| async {
        let mut cluster = Cluster::new(3, "kv");
        cluster.start_all().await;
        cluster
            .write(vec![cluster.put("kv", &[1], "a")])
            .await
            .unwrap();
        let holder = cluster.leaseholder().await;
        cluster.isolate(holder);
        let tablet = cluster.tablet(holder);
        let key = row_key(&cluster.table("kv"), &[1]);
        let read = cluster.read_request("kv", Selection::Keys(vec![key]), ReadBound::Strong);
        assert_eq!(tablet.read(read.clone()).await.unwrap().rows.len(), 1);
        sleep(Duration::from_secs(4)).await;
        let refused = tablet.read(read).await;
        assert!(
            matches!(
                refused,
                Err(TabletError::NotLeaseholder { .. } | TabletError::Api(_))
            ),
            "{refused:?}"
        );
    });
}

#[test]
fn a_successor_serves_only_when_the_old_lease_is_over() {
    simulate(|| async {
        let mut cluster = Cluster::new(3, "kv");
        cluster.start_all().await;
        cluster
            .write(vec![cluster.put("kv", &[1], "a")])
            .await
            .unwrap();
        let holder = cluster.leaseholder().await;
        let old = cluster.tablet(holder).status().lease.unwrap();
        let begun = Instant::now();
        cluster.crash(holder);
        let commit = cluster
            .write(vec![cluster.put("kv", &[1], "b")])
            .await
            .unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        assert!(commit.commit_timestamp.unwrap() > old.end);
        let now = cluster.leaseholder().await;
        assert!(cluster.tablet(now).status().lease.unwrap().epoch > old.epoch);
        assert_eq!(cluster.get("kv", &[1]).await.as_deref(), Some("b"));
    });
}

#[test]
fn followers_serve_what_is_closed() {
    simulate(|| async {
        let mut cluster = Cluster::new(3, "parent");
        cluster.start_all().await;
        let commit = cluster
            .write(vec![cluster.put("parent", &[1], "a")])
            .await
            .unwrap();
        let commit = commit.commit_timestamp.unwrap();
        sleep(Duration::from_millis(500)).await;
        let holder = cluster.leaseholder().await;
        let key = row_key(&cluster.table("parent"), &[1]);
        for id in 1..=3 {
            let tablet = cluster.tablet(id);
            for bound in [
                ReadBound::At(commit),
                ReadBound::MaxStaleness { micros: 1_000_000 },
                ReadBound::ExactStaleness { micros: 300_000 },
                ReadBound::MinTimestamp(commit),
                ReadBound::Eventual,
            ] {
                let selection = Selection::Keys(vec![key.clone()]);
                let read = cluster.read_request("parent", selection, bound);
                let response = tablet.read(read).await;
                let response = response.unwrap_or_else(|error| panic!("{id} {bound:?} {error:?}"));
                assert_eq!(response.rows.len(), 1, "{id} {bound:?}");
            }
            let selection = Selection::Keys(vec![key.clone()]);
            let read = cluster.read_request("parent", selection, ReadBound::Strong);
            let strong = tablet.read(read).await;
            assert_eq!(strong.is_ok(), id == holder, "{strong:?}");
        }
    });
}
