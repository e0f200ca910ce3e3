//! Three nodes: growth, failure, and clients that ask the wrong one.

use crate::cluster::{Cluster, address, count, create_table, get, get_at, put, put_all};
use api::{Level, ReadBound};
use catalog::{Partitioning, Protocol};
use model::NodeId;
use node::Health;
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn eventual_tables_get_three_replicas_with_the_third_node() {
    grow(Protocol::Eventual).await;
}

#[tokio::test(start_paused = true)]
async fn strong_tables_get_three_replicas_with_the_third_node() {
    grow(Protocol::Strong).await;
}

async fn grow(protocol: Protocol) {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let database = cluster.database(1);
    let table = create_table(database.as_ref(), "t", protocol, Partitioning::Hash).await;
    put_all(database.as_ref(), table, 0..200, "before")
        .await
        .unwrap();
    cluster.start(2).await;
    sleep(Duration::from_secs(5)).await;
    let status = cluster.nodes[&2].status();
    assert!(
        status.tablets[1..]
            .iter()
            .all(|tablet| tablet.replicas.len() == 1),
        "{status:#?}"
    );
    cluster.start(3).await;
    for id in 200..300 {
        put(database.as_ref(), table, &id.to_string(), "during")
            .await
            .unwrap();
    }
    cluster.settle(3).await;
    for number in 1..=3 {
        let database = cluster.database(number);
        assert_eq!(count(database.as_ref(), table, 50).await, 300);
        let level = ReadBound::Level(Level::All);
        for id in ["0", "199", "200", "299"] {
            assert!(
                get_at(database.as_ref(), table, id, level)
                    .await
                    .unwrap()
                    .is_some()
            );
        }
    }
    // The founder may go now.
    cluster.crash(1);
    sleep(Duration::from_secs(5)).await;
    let database = cluster.database(2);
    assert_eq!(count(database.as_ref(), table, 1_000).await, 300);
}

#[tokio::test(start_paused = true)]
async fn eventual_every_node_answers_for_every_tablet() {
    ask_everybody(Protocol::Eventual).await;
}

#[tokio::test(start_paused = true)]
async fn strong_every_node_answers_for_every_tablet() {
    ask_everybody(Protocol::Strong).await;
}

async fn ask_everybody(protocol: Protocol) {
    let cluster = Cluster::of_three().await;
    let partitioning = Partitioning::Hash;
    let table = create_table(cluster.database(2).as_ref(), "t", protocol, partitioning).await;
    for (number, writer) in [(1, 3), (2, 1), (3, 2)] {
        let database = cluster.database(writer);
        let id = number.to_string();
        put(database.as_ref(), table, &id, "here").await.unwrap();
        for reader in 1..=3 {
            let database = cluster.database(reader);
            assert_eq!(
                get(database.as_ref(), table, &id).await,
                Ok(Some("here".into()))
            );
        }
    }
    let topology = cluster.database(3).topology();
    assert_eq!(topology.this_node, NodeId(3));
    assert_eq!(topology.nodes.len(), 3);
    assert!(topology.nodes.iter().all(|node| node.is_alive));
}

#[tokio::test(start_paused = true)]
async fn a_killed_leaseholder_is_replaced_within_five_seconds() {
    let mut cluster = Cluster::of_three().await;
    let database = cluster.database(1);
    let table = create_table(
        database.as_ref(),
        "r",
        Protocol::Strong,
        Partitioning::Range,
    )
    .await;
    put(database.as_ref(), table, "a", "one").await.unwrap();
    for round in 0..2 {
        let holder = cluster
            .nodes
            .values()
            .find_map(|node| node.status().tablets.last()?.leaseholder)
            .expect("somebody holds the lease");
        cluster.crash(holder.0 as u8);
        let killed = Instant::now();
        let survivor = *cluster.nodes.keys().next().unwrap();
        let database = cluster.database(survivor);
        put(database.as_ref(), table, "a", &round.to_string())
            .await
            .unwrap();
        let took = killed.elapsed();
        assert!(took < Duration::from_secs(5), "took {took:?}");
        assert_eq!(
            get(database.as_ref(), table, "a").await,
            Ok(Some(round.to_string()))
        );
        sleep(Duration::from_secs(3).saturating_sub(took)).await;
        let topology = cluster.database(survivor).topology();
        let seen = topology.nodes.iter().find(|node| node.id == holder);
        assert!(!seen.unwrap().is_alive);
        cluster.start(holder.0 as u8).await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(
            get(cluster.database(holder.0 as u8).as_ref(), table, "a").await,
            Ok(Some(round.to_string()))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn eventual_tables_outlive_a_loss_of_power() {
    lose_power(Protocol::Eventual).await;
}

#[tokio::test(start_paused = true)]
async fn strong_tables_outlive_a_loss_of_power() {
    lose_power(Protocol::Strong).await;
}

async fn lose_power(protocol: Protocol) {
    let mut cluster = Cluster::of_three().await;
    let database = cluster.database(1);
    let table = create_table(database.as_ref(), "t", protocol, Partitioning::Hash).await;
    put_all(database.as_ref(), table, 0..50, "kept")
        .await
        .unwrap();
    for number in 1..=3 {
        cluster.crash(number);
    }
    cluster.start_together(&[3, 2, 1]).await;
    sleep(Duration::from_secs(3)).await;
    for number in 1..=3 {
        let database = cluster.database(number);
        assert_eq!(count(database.as_ref(), table, 1_000).await, 50);
    }
}

#[tokio::test(start_paused = true)]
async fn changes_skip_the_dead_and_reach_them_later() {
    let mut cluster = Cluster::of_three().await;
    cluster.crash(3);
    sleep(Duration::from_secs(4)).await;
    let database = cluster.database(2);
    let table = create_table(database.as_ref(), "s", Protocol::Strong, Partitioning::Hash).await;
    put(database.as_ref(), table, "a", "one").await.unwrap();
    cluster.start(3).await;
    let database = cluster.database(3);
    assert!(database.catalog().table(table).is_some());
    assert_eq!(
        get(database.as_ref(), table, "a").await,
        Ok(Some("one".into()))
    );
    cluster.settle(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_cut_off_catches_up() {
    let cluster = Cluster::of_three().await;
    for (from, to) in [(3, 1), (1, 3), (3, 2), (2, 3)] {
        cluster.network.cut(address(from), address(to));
    }
    sleep(Duration::from_secs(5)).await;
    let database = cluster.database(1);
    let table = create_table(
        database.as_ref(),
        "e",
        Protocol::Eventual,
        Partitioning::Hash,
    )
    .await;
    put(database.as_ref(), table, "a", "one").await.unwrap();
    assert!(cluster.database(3).catalog().table(table).is_none());
    cluster.network.join_all();
    sleep(Duration::from_secs(8)).await;
    let database = cluster.database(3);
    assert!(database.catalog().table(table).is_some());
    assert_eq!(
        get(database.as_ref(), table, "a").await,
        Ok(Some("one".into()))
    );
    assert!(database.topology().nodes.iter().all(|node| node.is_alive));
}

/// Its replicas answer nothing any more: operators are told, and reads at ONE through it are answered by others.
#[tokio::test(start_paused = true)]
async fn a_node_whose_log_has_failed_says_so_and_reads_from_others() {
    let cluster = Cluster::of_three().await;
    let database = cluster.database(2);
    let partitioning = Partitioning::Hash;
    let table = create_table(database.as_ref(), "t", Protocol::Eventual, partitioning).await;
    put_all(database.as_ref(), table, 0..20, "before")
        .await
        .unwrap();
    assert_eq!(cluster.nodes[&1].status().health, Health::Serving);
    cluster.fail_disk(1);
    put_all(database.as_ref(), table, 0..20, "after")
        .await
        .unwrap();
    sleep(Duration::from_secs(3)).await;
    let health = cluster.nodes[&1].status().health;
    let Health::Degraded(complaint) = &health else {
        panic!("{health:?}");
    };
    assert!(complaint.contains("has failed: the log"), "{complaint}");
    let here = cluster.database(1);
    for level in [Level::One, Level::LocalOne] {
        for id in 0..20 {
            let bound = ReadBound::Level(level);
            let found = get_at(here.as_ref(), table, &id.to_string(), bound).await;
            assert_eq!(found.unwrap().as_deref(), Some("after"));
        }
    }
}
