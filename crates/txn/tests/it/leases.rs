//! Leases and what they promise (ARCHITECTURE, "The strong path").

use crate::cluster::{Cluster, TABLET, row_key, simulate};
use api::{ReadBound, Selection};
use consensus::Role;
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

/// The node that leads the group.
fn leader(cluster: &Cluster) -> u64 {
    let leads = |id: &u64| {
        let status = cluster.nodes[id].groups.as_ref().unwrap().status(TABLET);
        status.unwrap().role == Role::Leader
    };
    (1..=3).find(leads).unwrap()
}

fn last_index(cluster: &Cluster, id: u64) -> u64 {
    let status = cluster.nodes[&id].groups.as_ref().unwrap().status(TABLET);
    status.unwrap().last_index
}

#[test]
fn the_past_of_an_idle_tablet_is_read_without_a_lease_and_without_an_entry() {
    simulate(|| async {
        for root in ["kv", "parent"] {
            let mut cluster = Cluster::new(3, root);
            cluster.start_all().await;
            let commit = cluster
                .write(vec![cluster.put(root, &[1], "a")])
                .await
                .unwrap();
            let commit = commit.commit_timestamp.unwrap();
            sleep(Duration::from_secs(10)).await;
            let leader = leader(&cluster);
            let (epoch, index) = {
                let status = cluster.tablet(leader).status();
                assert!(!status.is_leaseholder);
                (status.lease.unwrap().epoch, last_index(&cluster, leader))
            };
            for bound in [
                ReadBound::ExactStaleness { micros: 5_000_000 },
                ReadBound::MaxStaleness { micros: 2_000_000 },
                ReadBound::MinTimestamp(commit.plus_micros(8_000_000)),
                ReadBound::At(commit.plus_micros(8_500_000)),
            ] {
                let value = cluster.get_at(root, &[1], bound).await;
                assert_eq!(value.as_deref(), Some("a"), "{bound:?}");
            }
            // The others have been told.
            let key = row_key(&cluster.table(root), &[1]);
            for id in 1..=3 {
                let at = ReadBound::At(commit.plus_micros(8_500_000));
                let read = cluster.read_request(root, Selection::Keys(vec![key.clone()]), at);
                assert_eq!(cluster.tablet(id).read(read).await.unwrap().rows.len(), 1);
            }
            assert_eq!(last_index(&cluster, leader), index);
            // What may be too near takes a lease, above all that was closed.
            let near = ReadBound::ExactStaleness { micros: 1_000 };
            cluster.get_at(root, &[1], near).await.unwrap();
            let lease = cluster.tablet(leader).status().lease.unwrap();
            assert_eq!(lease.epoch.0, epoch.0 + 1);
        }
    });
}

#[test]
fn a_leader_whose_loop_stood_still_serves_no_past_that_has_changed() {
    simulate(|| async {
        let mut cluster = Cluster::new(3, "kv");
        cluster.start_all().await;
        cluster
            .write(vec![cluster.put("kv", &[1], "a")])
            .await
            .unwrap();
        sleep(Duration::from_secs(10)).await;
        let old = leader(&cluster);
        cluster.isolate(old);
        for task in cluster.nodes.get_mut(&old).unwrap().tasks.drain(..) {
            task.abort();
        }
        let commit = cluster
            .write(vec![cluster.put("kv", &[1], "b")])
            .await
            .unwrap();
        sleep(Duration::from_secs(5)).await;
        let at = ReadBound::At(commit.commit_timestamp.unwrap());
        let selection = Selection::Keys(vec![row_key(&cluster.table("kv"), &[1])]);
        let read = cluster.read_request("kv", selection, at);
        let served = cluster.tablet(old).read(read).await;
        assert!(served.is_err(), "{served:?}");
    });
}
