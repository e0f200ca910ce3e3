//! Whom a read asks, and what it does when they are slow or fail.

use super::*;

/// How many of these rows of the first partition one replica has.
fn rows_at(cluster: &Cluster, node: u64, clusterings: &[i32]) -> usize {
    let keys = clusterings.iter().map(|clustering| row_key(1, *clustering));
    let request = ReplicaRead {
        rows: ReplicaSelection::Keys(keys.collect()),
        row_limit: None,
        size_bytes_max: 1 << 20,
        now_seconds: 0,
    };
    let page = cluster.replicas[&NodeId(node)].read(&request).unwrap();
    page.rows.len()
}

fn with_speculation(text: &str) -> Table {
    let mut table = table();
    let property = (catalog::SPECULATIVE_RETRY.into(), format!("'{text}'"));
    table.spec.properties.extend([property]);
    table
}

/// One replica says nothing: another is asked as soon as the table's option says, and from then on before it.
#[tokio::test(start_paused = true)]
async fn a_read_does_not_wait_for_a_slow_replica() {
    let (cluster, coordinator) = cluster(3);
    coordinator
        .write(&catalog(), put(1, 7, Level::All))
        .await
        .unwrap();
    let timed = async |table: &Table| {
        let began = Instant::now();
        let outcome = coordinator.read(table, &get(1, Level::Quorum)).await;
        (outcome.map(|found| found.rows.len()), began.elapsed())
    };
    let (eager, patient) = (with_speculation("20ms"), with_speculation("NONE"));
    cluster.set(2, Health::Silent);
    let (outcome, took) = timed(&patient).await;
    assert!(matches!(
        outcome,
        Err(Error::Retry(Retry::ReadTimeout { .. }))
    ));
    assert!(took >= ms(1_000), "{took:?}");
    // By now it is known to be slow.
    let (outcome, took) = timed(&patient).await;
    assert_eq!((outcome, took), (Ok(1), ms(1)));
    assert_eq!(coordinator.speeds.extra_reads(), 0);
    cluster.set(2, Health::Well);
    cluster.set(3, Health::Silent);
    let (outcome, took) = timed(&eager).await;
    assert_eq!((outcome, took), (Ok(1), ms(21)));
    assert_eq!(coordinator.speeds.extra_reads(), 1);
    // Who is asked in any case need not be waited for, and costs a call more.
    cluster.set(3, Health::Well);
    let before = cluster.calls.load(Ordering::Relaxed);
    let (outcome, took) = timed(&with_speculation("ALWAYS")).await;
    assert_eq!((outcome, took), (Ok(1), ms(1)));
    assert_eq!(cluster.calls.load(Ordering::Relaxed) - before, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failing_replica_is_replaced_by_a_spare_one() {
    let (cluster, coordinator) = cluster(3);
    coordinator
        .write(&catalog(), put(1, 7, Level::All))
        .await
        .unwrap();
    cluster.set(2, Health::Failing);
    assert_eq!(
        values(&coordinator, get(1, Level::Quorum)).await.unwrap(),
        [7]
    );
    cluster.set(3, Health::Silent);
    let failed = |node, reason| ReplicaFailure {
        address: address(node),
        reason,
    };
    assert_eq!(
        values(&coordinator, get(1, Level::Quorum)).await,
        Err(Error::Retry(Retry::Failure {
            level: Level::Quorum,
            required: 2,
            received: 1,
            failures: vec![
                failed(2, FailureReason::Unknown),
                failed(3, FailureReason::Timeout),
            ],
            outcome: Outcome::NotApplied,
            is_write: false,
            data_present: true,
        }))
    );
    // The others are not known to have failed.
    cluster.set(2, Health::Silent);
    assert_eq!(
        values(&coordinator, get(1, Level::Quorum)).await,
        Err(Error::Retry(Retry::ReadTimeout {
            level: Level::Quorum,
            required: 2,
            received: 1,
            data_present: true,
        }))
    );
    // One dead, one failing: nobody is waited for.
    cluster.set(2, Health::Failing);
    cluster.set(3, Health::Dead);
    assert!(matches!(
        values(&coordinator, get(1, Level::Quorum)).await,
        Err(Error::Retry(Retry::Failure { received: 1, .. }))
    ));
}

/// Two are asked for a quorum and the third at once as well: whichever of them fails, the others are awaited.
#[tokio::test(start_paused = true)]
async fn a_read_goes_on_while_those_that_were_asked_could_suffice() {
    let (cluster, coordinator) = cluster(3);
    coordinator
        .write(&catalog(), put(1, 7, Level::All))
        .await
        .unwrap();
    let always = with_speculation("ALWAYS");
    cluster.set(2, Health::Failing);
    cluster.delays.lock().insert(NodeId(3), ms(30));
    let found = coordinator.read(&always, &get(1, Level::Quorum)).await;
    assert_eq!(found.unwrap().rows.len(), 1);
    // Nobody is left that could: said at once.
    cluster.set(3, Health::Failing);
    cluster.delays.lock().clear();
    let began = Instant::now();
    let error = coordinator.read(&always, &get(1, Level::Quorum)).await;
    assert!(matches!(error, Err(Error::Retry(Retry::Failure { .. }))));
    assert_eq!(began.elapsed(), ms(1));
}

/// This node's own replica has failed: at ONE another is asked, and from then on before it.
#[tokio::test(start_paused = true)]
async fn a_read_at_one_does_not_stay_with_a_failed_replica_here() {
    for level in [Level::One, Level::LocalOne] {
        let (cluster, coordinator) = cluster(3);
        coordinator
            .write(&catalog(), put(1, 7, Level::All))
            .await
            .unwrap();
        cluster.set(1, Health::Failing);
        assert_eq!(values(&coordinator, get(1, level)).await.unwrap(), [7]);
        assert!(coordinator.speeds.is_failing(ReplicaId(11)));
        cluster.set(2, Health::Failing);
        assert_eq!(values(&coordinator, get(1, level)).await.unwrap(), [7]);
        // All have failed: the answer says so, of each.
        cluster.set(3, Health::Failing);
        let error = values(&coordinator, get(1, level)).await.unwrap_err();
        let Error::Retry(Retry::Failure { failures, .. }) = error else {
            panic!("{error:?}");
        };
        let mut failed: Vec<IpAddr> = failures.iter().map(|failure| failure.address).collect();
        failed.sort();
        assert_eq!(failed, [address(1), address(2), address(3)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_repair_that_skips_who_is_being_filled_leaves_it_without() {
    for bug in [None, Some(Bug::ReadRepairSkipsPending)] {
        let (cluster, coordinator) = cluster_with_learners(4, 1);
        cluster.plant(1, vec![delta(1, 1, 5, 50)]).await;
        planted::plant(bug);
        let shown = values(&coordinator, get(1, Level::Quorum)).await;
        planted::plant(None);
        assert_eq!(shown.unwrap(), [50]);
        let count = rows_at(&cluster, 4, &[1]);
        assert_eq!(count == 0, bug.is_some(), "{bug:?}");
    }
}

/// A write goes to who is being filled as well: what the stream has passed already comes no other way.
#[tokio::test(start_paused = true)]
async fn a_write_that_skips_who_is_being_filled_is_missing_there() {
    for bug in [None, Some(Bug::StreamMissesWrites)] {
        let (cluster, coordinator) = cluster_with_learners(4, 1);
        planted::plant(bug);
        let written = coordinator
            .write(&catalog(), put(1, 7, Level::Quorum))
            .await;
        planted::plant(None);
        written.unwrap();
        tokio::time::sleep(ms(100)).await;
        let count = rows_at(&cluster, 4, &[1]);
        assert_eq!(count == 0, bug.is_some(), "{bug:?}");
    }
}

/// Who is being filled may have been filled from a replica that is repaired only now: it is brought the same.
#[tokio::test(start_paused = true)]
async fn a_read_repair_reaches_replicas_that_are_being_filled() {
    let (cluster, coordinator) = cluster_with_learners(5, 2);
    let rows_at = |node| rows_at(&cluster, node, &[1, 2]);
    // Each of the two that are read lacks what the other has.
    cluster.plant(1, vec![delta(1, 1, 5, 50)]).await;
    cluster.plant(2, vec![delta(1, 2, 6, 60)]).await;
    cluster.set(5, Health::Dead);
    let mut request = get(1, Level::Quorum);
    request.selection = Selection::Keys(vec![row_key(1, 1), row_key(1, 2)]);
    assert_eq!(
        values(&coordinator, request.clone()).await.unwrap(),
        [50, 60]
    );
    assert_eq!([1, 2, 3, 4, 5].map(rows_at), [2, 2, 0, 2, 0]);
    // One that is thought alive and takes nothing leaves the repair, and so the read, open.
    cluster.plant(1, vec![delta(1, 1, 7, 70)]).await;
    cluster.set(4, Health::Silent);
    let missed = values(&coordinator, request).await;
    assert!(
        matches!(missed, Err(Error::Retry(Retry::ReadTimeout { .. }))),
        "{missed:?}"
    );
}
