//! Compare-and-set and serial reads over a few replicas in memory.

use super::*;
use crate::paxos::{Ballot, PartitionState, PaxosReply, PaxosRequest, Proposal};
use api::{Check, CheckOperator, Condition, Refused, Returning};
use model::Incarnation;

fn swap(clustering: i32, expected: Option<i64>, value: i64) -> WriteRequest {
    let mut request = put(clustering, value, Level::Quorum);
    request.mutations[0].returning = Returning::Old;
    request.mutations[0].condition = Some(match expected {
        None => Condition::RowMissing,
        Some(value) => Condition::Columns(vec![Check {
            column: VALUE,
            operator: CheckOperator::Equal,
            values: vec![Value::Int(value)],
            part: None,
        }]),
    });
    request
}

async fn read(coordinator: &Coordinator, level: Level) -> Vec<i64> {
    values(coordinator, get(1, level)).await.unwrap()
}

fn ballot(timestamp: i64) -> Ballot {
    Ballot {
        timestamp: Timestamp(timestamp),
        node: NodeId(9),
        incarnation: Incarnation(1),
        sequence: 0,
    }
}

impl Cluster {
    /// Has one replica take a step of somebody else's.
    async fn step(&self, node: u64, request: PaxosRequest) -> Reply {
        let request = Request {
            tablet: self.tablet.id,
            epoch: self.tablet.epoch,
            action: Action::Paxos(request),
        };
        self.replicas[&NodeId(node)].handle(request).await
    }

    /// Has some replicas accept an insert of row 1 that somebody else began.
    async fn accepted(&self, nodes: &[u64], timestamp: i64, value: i64) {
        for node in nodes {
            let accept = PaxosRequest::Accept {
                partition: header_key(1),
                proposal: Proposal::new(
                    ballot(timestamp),
                    vec![delta(1, 1, timestamp, value)],
                    None,
                ),
            };
            let reply = self.step(*node, accept).await;
            assert_eq!(reply, Reply::Paxos(PaxosReply::Accepted));
        }
    }

    async fn state(&self, node: u64) -> PartitionState {
        let states = PaxosRequest::States {
            range: KeyRange::all(),
        };
        match self.step(node, states).await {
            Reply::Paxos(PaxosReply::States { states, next: None }) => states
                .first()
                .map(|raw| PartitionState::from_bytes(&raw.state).unwrap())
                .unwrap_or_default(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn conditions_are_checked_against_what_is_there() {
    let (_, coordinator) = cluster(3);
    let catalog = catalog();
    let write = |request| coordinator.write(&catalog, request);
    let failed = |value: i64, outcome: Result<_, Error>| match outcome {
        Err(Error::Refused(Refused::ConditionFailed { mutation: 0, row })) => {
            assert_eq!(row.unwrap().value(VALUE), Some(&Value::Int(value)));
        }
        other => panic!("{other:?}"),
    };
    write(swap(1, None, 5)).await.unwrap();
    failed(5, write(swap(1, None, 6)).await);
    failed(5, write(swap(1, Some(4), 6)).await);
    let response = write(swap(1, Some(5), 6)).await.unwrap();
    let old = response.returned[0].old.as_ref().unwrap();
    assert_eq!(old.value(VALUE), Some(&Value::Int(5)));
    for level in [Level::Serial, Level::LocalSerial, Level::Quorum] {
        assert_eq!(read(&coordinator, level).await, [6]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_swap_takes_two_rounds_and_a_commit_and_a_serial_read_one() {
    let (cluster, coordinator) = cluster(3);
    let calls = || cluster.calls.swap(0, Ordering::Relaxed);
    for (expected, value) in [(None, 5), (Some(5), 6)] {
        let request = swap(1, expected, value);
        coordinator.write(&catalog(), request).await.unwrap();
        // Whoever was not needed for a quorum catches up.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(calls(), 3 * 2);
    }
    assert_eq!(read(&coordinator, Level::Serial).await, [6]);
    assert_eq!(calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_finished_first() {
    let (cluster, coordinator) = cluster(3);
    // Whether one or three have accepted: the promise of this quorum shows it.
    cluster.accepted(&[1], 900_000, 7).await;
    assert_eq!(read(&coordinator, Level::Quorum).await, Vec::<i64>::new());
    assert_eq!(read(&coordinator, Level::Serial).await, [7]);
    assert_eq!(read(&coordinator, Level::Quorum).await, [7]);
    let committed = cluster.state(1).await.committed.unwrap();
    assert_eq!(committed.origin, ballot(900_000));
    assert_eq!(committed.deltas, [delta(1, 1, 900_000, 7)]);
    cluster.accepted(&[1, 2], 2_000_000, 8).await;
    coordinator
        .write(&catalog(), swap(1, Some(8), 9))
        .await
        .unwrap();
    assert_eq!(read(&coordinator, Level::Serial).await, [9]);
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_few_have_merged_is_spread_before_it_is_shown() {
    let (cluster, coordinator) = cluster(3);
    let commit = PaxosRequest::Commit {
        partition: header_key(1),
        proposal: Proposal::new(ballot(900_000), vec![delta(1, 1, 900_000, 7)], None),
        durability: Durability::Synced,
    };
    assert_eq!(cluster.step(1, commit).await, Reply::Applied);
    assert_eq!(read(&coordinator, Level::Serial).await, [7]);
    let mut knowing = 0;
    for node in 1..=3 {
        knowing += u32::from(cluster.state(node).await.committed.is_some());
    }
    assert!(knowing >= 2);
}

#[tokio::test(start_paused = true)]
async fn later_ballots_of_others_and_later_writes_are_outbid() {
    let (cluster, coordinator) = cluster(3);
    for node in 1..=3 {
        let prepare = PaxosRequest::Prepare {
            partition: header_key(1),
            ballot: ballot(5_000_000),
            read: crate::ReplicaRead {
                rows: crate::ReplicaSelection::Keys(vec![]),
                row_limit: None,
                size_bytes_max: 1_000,
                now_seconds: 0,
            },
        };
        let reply = cluster.step(node, prepare).await;
        assert!(matches!(reply, Reply::Paxos(PaxosReply::Promised { .. })));
    }
    coordinator
        .write(&catalog(), swap(1, None, 5))
        .await
        .unwrap();
    assert!(cluster.state(1).await.promised.unwrap().timestamp > Timestamp(5_000_000));
    // A client whose clock is ahead by a minute.
    let mut ahead = put(1, 6, Level::Quorum);
    ahead.timestamp = Some(Timestamp(60_000_000));
    coordinator.write(&catalog(), ahead).await.unwrap();
    coordinator
        .write(&catalog(), swap(1, Some(6), 7))
        .await
        .unwrap();
    assert_eq!(read(&coordinator, Level::Quorum).await, [7]);
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_nothing_happens_and_that_is_said() {
    let (cluster, coordinator) = cluster(3);
    cluster.set(2, Health::Silent);
    cluster.set(3, Health::Silent);
    let error = coordinator.write(&catalog(), swap(1, None, 5)).await;
    let timeout = |outcome| {
        Err(Error::Retry(Retry::WriteTimeout {
            level: Level::Serial,
            required: 2,
            received: 1,
            outcome,
            step: WriteStep::Agreement { contentions: 0 },
        }))
    };
    assert_eq!(error.map(|_| ()), timeout(Outcome::NotApplied));
    assert!(matches!(
        values(&coordinator, get(1, Level::Serial)).await,
        Err(Error::Retry(Retry::ReadTimeout {
            level: Level::Serial,
            required: 2,
            received: 1,
            ..
        }))
    ));
    cluster.set(2, Health::Dead);
    cluster.set(3, Health::Dead);
    assert!(matches!(
        coordinator.write(&catalog(), swap(1, None, 5)).await,
        Err(Error::Retry(Retry::Unavailable { alive: 1, .. }))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_quorum_lost_after_the_proposal_leaves_the_outcome_open() {
    let (cluster, coordinator) = cluster(3);
    let writing = {
        let coordinator = coordinator.clone();
        tokio::spawn(async move { coordinator.write(&catalog(), swap(1, None, 5)).await })
    };
    // Between the promise and the acceptance.
    tokio::time::sleep(Duration::from_micros(1_500)).await;
    cluster.set(2, Health::Silent);
    cluster.set(3, Health::Silent);
    let error = writing.await.unwrap().unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    cluster.set(2, Health::Well);
    cluster.set(3, Health::Well);
    // It was accepted here; whoever comes next finishes it.
    assert_eq!(read(&coordinator, Level::Serial).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn increments_under_contention_are_all_counted() {
    let (_, coordinator) = cluster(3);
    coordinator
        .write(&catalog(), swap(1, None, 0))
        .await
        .unwrap();
    let mut clients = Vec::new();
    for _ in 0..8 {
        let coordinator = coordinator.clone();
        clients.push(tokio::spawn(async move {
            for _ in 0..10 {
                loop {
                    let value = read(&coordinator, Level::Serial).await[0];
                    let request = swap(1, Some(value), value + 1);
                    match coordinator.write(&catalog(), request).await {
                        Ok(_) => break,
                        Err(Error::Refused(Refused::ConditionFailed { .. })) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(read(&coordinator, Level::Serial).await, [80]);
}

#[tokio::test(start_paused = true)]
async fn serial_requests_stay_within_one_partition() {
    let (_, coordinator) = cluster(3);
    let mut two = swap(1, None, 5);
    let mut other = two.mutations[0].clone();
    other.key = row_key(2, 1);
    two.mutations.push(other);
    let mut range = scan(None, Direction::Forward);
    range.bound = ReadBound::Level(Level::Serial);
    assert!(matches!(
        coordinator.write(&catalog(), two).await,
        Err(Error::Refused(Refused::Invalid(_)))
    ));
    assert!(matches!(
        coordinator.read(&table(), &range).await,
        Err(Error::Refused(Refused::Invalid(_)))
    ));
    coordinator
        .write(&catalog(), swap(1, None, 5))
        .await
        .unwrap();
    let header = header_key(1);
    range.selection =
        Selection::Ranges(vec![KeyRange::prefix(header[..header.len() - 1].to_vec())]);
    assert_eq!(values(&coordinator, range).await.unwrap(), [5]);
}

#[tokio::test(start_paused = true)]
async fn what_a_data_centre_agrees_on_reaches_others_as_a_plain_write() {
    let (cluster, coordinator) = cluster(6);
    // Their own agreement is under way meanwhile, on another row.
    cluster.accepted(&[4, 5], 900_000, 7).await;
    let mut request = swap(2, None, 5);
    request.level = Level::LocalQuorum;
    request.serial_level = Level::LocalSerial;
    coordinator.write(&catalog(), request).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for node in [1, 2, 3] {
        assert!(cluster.state(node).await.committed.is_some());
    }
    for node in [4, 5] {
        let state = cluster.state(node).await;
        assert_eq!(state.promised, Some(ballot(900_000)));
        assert!(state.accepted.is_some() && state.committed.is_none());
    }
    let all = values(&coordinator, get(2, Level::All)).await;
    assert_eq!(all.unwrap(), [5]);
}
