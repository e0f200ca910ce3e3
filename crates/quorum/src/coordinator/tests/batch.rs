//! Logged batches over a few replicas in memory.

use super::*;
use api::Atomicity;

/// Row 1 of some partitions.
fn batch(partitions: i32, value: i64) -> WriteRequest {
    let mut request = put(1, value, Level::Quorum);
    let first = request.mutations[0].clone();
    request.mutations = (1..=partitions)
        .map(|partition| Mutation {
            key: row_key(partition, 1),
            ..first.clone()
        })
        .collect();
    request.atomicity = Atomicity::Logged;
    request
}

async fn shown(coordinator: &Coordinator, partition: i32) -> Vec<i64> {
    let mut request = get(1, Level::Quorum);
    request.selection = Selection::Keys(vec![row_key(partition, 1)]);
    values(coordinator, request).await.unwrap()
}

impl Cluster {
    fn kept(&self) -> Vec<bool> {
        let sizes = self.batches.values().map(|batches| batches.size_bytes());
        sizes.map(|size| size > 0).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_kept_until_it_is_written() {
    let (cluster, coordinator) = cluster(3);
    let writing = {
        let coordinator = coordinator.clone();
        tokio::spawn(async move { coordinator.write(&catalog(), batch(2, 7)).await })
    };
    tokio::time::sleep(Duration::from_micros(2_500)).await;
    assert_eq!(cluster.kept(), [true, true, true]);
    writing.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(cluster.kept(), [false, false, false]);
    for partition in 1..=2 {
        assert_eq!(shown(&coordinator, partition).await, [7]);
    }
    // Within one partition there is nothing to keep.
    cluster.calls.store(0, Ordering::Relaxed);
    coordinator.write(&catalog(), batch(1, 8)).await.unwrap();
    assert_eq!(cluster.kept(), [false, false, false]);
}

#[tokio::test(start_paused = true)]
async fn what_a_coordinator_leaves_behind_is_written_with_its_own_timestamps() {
    let (cluster, coordinator) = cluster(3);
    let writing = {
        let coordinator = coordinator.clone();
        tokio::spawn(async move {
            let mut request = batch(2, 7);
            request.timestamp = Some(Timestamp(20));
            coordinator.write(&catalog(), request).await
        })
    };
    // It is kept, and nothing is written.
    tokio::time::sleep(Duration::from_micros(2_500)).await;
    writing.abort();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let newer = {
        let mut request = put(1, 8, Level::Quorum);
        request.timestamp = Some(Timestamp(30));
        request
    };
    coordinator.write(&catalog(), newer).await.unwrap();
    let due = cluster.batches[&NodeId(2)].due(Timestamp(i64::MAX), 10);
    assert_eq!(due.len(), 1);
    for batch in due {
        coordinator.replay(&batch).await;
    }
    assert_eq!(shown(&coordinator, 1).await, [8]);
    assert_eq!(shown(&coordinator, 2).await, [7]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_nobody_else_keeps_is_not_written() {
    let (cluster, coordinator) = cluster(3);
    cluster.set(2, Health::Silent);
    cluster.set(3, Health::Silent);
    let mut request = batch(2, 7);
    request.level = Level::One;
    let error = coordinator.write(&catalog(), request).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    cluster.set(2, Health::Well);
    cluster.set(3, Health::Well);
    assert_eq!(shown(&coordinator, 1).await, Vec::<i64>::new());
    assert_eq!(cluster.kept(), [false, false, false]);
}

/// A batch over two partitions that its coordinator has left after it was kept.
async fn left_behind(coordinator: &Coordinator, level: Level) {
    let writing = {
        let coordinator = coordinator.clone();
        let request = WriteRequest {
            level,
            ..batch(2, 7)
        };
        tokio::spawn(async move { coordinator.write(&catalog(), request).await })
    };
    tokio::time::sleep(Duration::from_micros(2_500)).await;
    writing.abort();
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn rows_at(cluster: &Cluster, node: u64) -> usize {
    let request = ReplicaRead {
        rows: ReplicaSelection::Keys(vec![row_key(1, 1), row_key(2, 1)]),
        row_limit: None,
        size_bytes_max: 1 << 20,
        now_seconds: 0,
    };
    let page = cluster.replicas[&NodeId(node)].read(&request).unwrap();
    page.rows.len()
}

/// Half of the replicas are out of reach: those that are not take the batch, and the others get it when they are back.
#[tokio::test(start_paused = true)]
async fn a_batch_is_whole_in_a_data_centre_that_is_cut_off() {
    let (cluster, coordinator) = cluster(6);
    for (node, health) in [(4, Health::Dead), (5, Health::Silent), (6, Health::Failing)] {
        cluster.set(node, health);
    }
    left_behind(&coordinator, Level::LocalQuorum).await;
    assert_eq!(rows_at(&cluster, 1), 0, "nothing is written yet");
    for batch in cluster.batches[&NodeId(1)].due(Timestamp(i64::MAX), 10) {
        coordinator.replay(&batch).await;
    }
    for node in 1..=3 {
        assert_eq!(rows_at(&cluster, node), 2);
    }
    assert_eq!(cluster.batches[&NodeId(1)].size_bytes(), 0, "forgotten");
    let hinted = coordinator.hints.nodes();
    assert_eq!(hinted, [NodeId(4), NodeId(5), NodeId(6)]);
    for node in 4..=6 {
        cluster.set(node, Health::Well);
    }
    tokio::spawn(coordinator.clone().replay_hints());
    delivered(&coordinator).await;
    for node in 4..=6 {
        assert_eq!(rows_at(&cluster, node), 2);
    }
}

/// What cannot be hinted is kept until a quorum has it, and no hint is kept twice meanwhile.
#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_hinted_is_tried_again_until_a_quorum_has_it() {
    let (cluster, coordinator) = cluster(3);
    left_behind(&coordinator, Level::One).await;
    cluster.set(2, Health::Dead);
    cluster.set(3, Health::Dead);
    let batches = &cluster.batches[&NodeId(1)];
    let due = || batches.due(Timestamp(i64::MAX), 10).pop().unwrap();
    let mut without = due().as_ref().clone();
    for part in &mut without.parts {
        part.hint_expires = None;
    }
    coordinator.replay(&without).await;
    assert!(batches.size_bytes() > 0);
    assert_eq!(coordinator.hints.nodes(), []);
    assert_eq!(rows_at(&cluster, 1), 2);
    // One of its two parts can be.
    let mut half = due().as_ref().clone();
    half.parts.extend(half.parts.clone());
    half.parts[1].hint_expires = None;
    coordinator.replay(&half).await;
    let kept = coordinator.hints.size_bytes();
    assert!(kept > 0 && batches.size_bytes() > 0);
    coordinator.replay(&half).await;
    assert_eq!(coordinator.hints.size_bytes(), kept);
    cluster.set(2, Health::Well);
    coordinator.replay(&without).await;
    assert_eq!(batches.size_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_a_logged_batch_spans_partitions() {
    let (_, coordinator) = cluster(3);
    let mut request = batch(2, 7);
    request.atomicity = Atomicity::All;
    let outcome = coordinator.write(&catalog(), request).await;
    assert!(matches!(
        outcome,
        Err(Error::Refused(api::Refused::Unsupported(_)))
    ));
}
