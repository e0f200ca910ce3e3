mod failure;

use super::*;
use crate::fixture::{
    Stopped, delta, header_delta, header_key, row_key, static_delta, table, tombstone,
};
use crate::message::{Covered, Page, ReplicaRead, ReplicaSelection};
use crate::peers::Task;
use api::{Direction, KeyRange};
use cluster::Replica;
use model::{NodeId, PlacementEpoch, TabletId, Value};
use sim::disk::SimDisk;

fn tablet() -> Tablet {
    Tablet {
        id: TabletId(5),
        root: table().id,
        range: KeyRange::all(),
        replicas: vec![Replica {
            id: ReplicaId(9),
            node: NodeId(1),
            is_learner: false,
        }],
        epoch: PlacementEpoch(3),
        leaving: None,
    }
}

fn open(disk: &SimDisk) -> Arc<EventualReplica> {
    let (log, stores) = disk.open();
    open_of(tablet(), ReplicaId(9), log, stores.as_ref())
}

fn open_of(
    tablet: Tablet,
    replica: ReplicaId,
    log: Arc<dyn Log>,
    stores: &dyn world::Stores,
) -> Arc<EventualReplica> {
    let config = ReplicaConfig {
        tablet,
        replica,
        table: Arc::new(table()),
        clock: Arc::new(Stopped(1_000_000)),
    };
    let store = stores.open(replica).unwrap();
    let tasks = Arc::new(|task: Task| {
        tokio::spawn(task);
    });
    EventualReplica::open(config, store, log, tasks).unwrap()
}

fn read(rows: ReplicaSelection) -> ReplicaRead {
    ReplicaRead {
        rows,
        row_limit: None,
        size_bytes_max: 1 << 20,
        now_seconds: 100,
    }
}

fn range(direction: Direction) -> ReplicaRead {
    read(ReplicaSelection::Range {
        range: KeyRange::all(),
        direction,
    })
}

fn keys(page: &Page) -> Vec<Vec<u8>> {
    page.rows.iter().map(|raw| raw.key.clone()).collect()
}

fn value(replica: &EventualReplica, partition: i32, clustering: i32) -> Option<Value> {
    let page = replica
        .read(&read(ReplicaSelection::Keys(vec![row_key(
            partition, clustering,
        )])))
        .unwrap();
    let row = decode_row(&page.rows.first()?.row).unwrap();
    row.value(crate::fixture::VALUE).cloned()
}

#[tokio::test(start_paused = true)]
async fn a_read_under_a_new_placement_sees_all_writes_of_the_old() {
    let disk = SimDisk::new(1);
    disk.set_slow(100);
    let replica = open(&disk);
    let request = |epoch, action| Request {
        tablet: TabletId(5),
        epoch: PlacementEpoch(epoch),
        action,
    };
    let apply = |clustering| Action::Apply {
        deltas: vec![delta(1, clustering, 10, 7)],
        durability: Durability::Synced,
        expires: None,
    };
    let writer = replica.clone();
    let old = request(3, apply(1));
    let writing = tokio::spawn(async move { writer.handle(old).await });
    tokio::task::yield_now().await;
    assert_eq!(value(&replica, 1, 1), None, "still on its way to the disk");
    let newer = Tablet {
        epoch: PlacementEpoch(4),
        ..tablet()
    };
    replica.set_tablet(newer.clone());
    let page = replica
        .handle(request(4, Action::Read(range(Direction::Forward))))
        .await;
    let Reply::Page(page) = page else {
        panic!("{page:?}")
    };
    assert_eq!(keys(&page), [row_key(1, 1)]);
    assert_eq!(writing.await.unwrap(), Reply::Applied);
    assert_eq!(
        replica.handle(request(3, apply(2))).await,
        Reply::Refused(ReplicaError::StaleEpoch(newer))
    );
    assert_eq!(replica.handle(request(4, apply(2))).await, Reply::Applied);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_write_survives_a_crash() {
    let disk = SimDisk::new(1);
    let replica = open(&disk);
    replica
        .apply(vec![delta(1, 1, 10, 7)], Durability::Synced)
        .await
        .unwrap();
    assert_eq!(value(&replica, 1, 1), Some(Value::Int(7)));
    let replica = open(&disk);
    assert_eq!(value(&replica, 1, 1), Some(Value::Int(7)));
    replica
        .apply(
            vec![delta(1, 1, 9, 6), delta(1, 2, 9, 6)],
            Durability::Synced,
        )
        .await
        .unwrap();
    assert_eq!(value(&replica, 1, 1), Some(Value::Int(7)));
    assert_eq!(value(&replica, 1, 2), Some(Value::Int(6)));
}

#[tokio::test(start_paused = true)]
async fn readers_see_synced_writes_only_after_the_sync_and_periodic_ones_at_once() {
    let disk = SimDisk::new(1);
    let replica = open(&disk);
    let writing = {
        let replica = replica.clone();
        tokio::spawn(async move {
            replica
                .apply(vec![delta(1, 1, 10, 7)], Durability::Synced)
                .await
        })
    };
    tokio::task::yield_now().await;
    assert_eq!(value(&replica, 1, 1), None);
    writing.await.unwrap().unwrap();
    assert_eq!(value(&replica, 1, 1), Some(Value::Int(7)));
    replica
        .apply(
            vec![delta(1, 2, 10, 8)],
            Durability::Periodic { interval_ms: 1000 },
        )
        .await
        .unwrap();
    assert_eq!(value(&replica, 1, 2), Some(Value::Int(8)));
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_client_has_gone_is_merged_all_the_same() {
    let disk = SimDisk::new(1);
    let replica = open(&disk);
    {
        let apply = replica.apply(vec![delta(1, 1, 10, 7)], Durability::Synced);
        tokio::pin!(apply);
        let polled = tokio::time::timeout(std::time::Duration::ZERO, &mut apply).await;
        assert!(polled.is_err());
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(value(&replica, 1, 1), Some(Value::Int(7)));
}

#[tokio::test(start_paused = true)]
async fn many_writers_keep_their_order_and_the_log_is_cut() {
    let disk = SimDisk::new(3);
    let replica = open(&disk);
    for round in 0..6 {
        let mut writers = tokio::task::JoinSet::new();
        for number in 0..500 {
            let replica = replica.clone();
            writers.spawn(async move {
                replica
                    .apply(
                        vec![delta(
                            number % 50,
                            1,
                            i64::from(round * 500 + number),
                            number.into(),
                        )],
                        Durability::Synced,
                    )
                    .await
            });
        }
        while let Some(outcome) = writers.join_next().await {
            outcome.unwrap().unwrap();
        }
        replica.store.request_flush();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(replica.store.applied().index, 3000);
    assert!(replica.log.bounds(replica.log_id).unwrap().first > 1);
    let replica = open(&disk);
    for partition in 0..50 {
        assert_eq!(
            value(&replica, partition, 1),
            Some(Value::Int(i64::from(450 + partition)))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn pages_carry_headers_in_both_directions_and_say_how_far_they_reach() {
    let disk = SimDisk::new(1);
    let replica = open(&disk);
    let deltas = vec![
        delta(1, 1, 10, 1),
        delta(1, 2, 10, 2),
        header_delta(1, 5),
        static_delta(2, 10, 9),
        delta(3, 1, 10, 3),
        tombstone(3, 2, 10),
        delta(3, 3, 10, 4),
    ];
    replica.apply(deltas, Durability::Synced).await.unwrap();
    let forward = replica.read(&range(Direction::Forward)).unwrap();
    assert_eq!((forward.rows.len(), forward.headers.len()), (5, 2));
    assert_eq!(forward.covered, Covered::All);
    let backward = replica.read(&range(Direction::Backward)).unwrap();
    let mut reversed = keys(&backward);
    reversed.reverse();
    assert_eq!(reversed, keys(&forward));
    assert_eq!(backward.headers, forward.headers);

    // A limit counts what is visible here, and the page says how far it looked.
    let partition = KeyRange::prefix(header_key(3)[..header_key(3).len() - 1].to_vec());
    let limited = |direction| {
        let mut read = read(ReplicaSelection::Range {
            range: partition.clone(),
            direction,
        });
        read.row_limit = Some(2);
        replica.read(&read).unwrap()
    };
    let forward = limited(Direction::Forward);
    assert_eq!(forward.rows.len(), 3);
    assert_eq!(forward.covered, Covered::To(successor(row_key(3, 3))));
    let backward = limited(Direction::Backward);
    assert_eq!(backward.covered, Covered::To(row_key(3, 1)));

    // A range that begins inside a partition brings the header along.
    let inner = replica
        .read(&read(ReplicaSelection::Range {
            range: KeyRange {
                start: row_key(1, 2),
                end: Some(row_key(1, 3)),
            },
            direction: Direction::Backward,
        }))
        .unwrap();
    assert_eq!((inner.rows.len(), inner.headers.len()), (1, 1));
    let missing = replica
        .read(&read(ReplicaSelection::Keys(vec![row_key(1, 77)])))
        .unwrap();
    assert_eq!((missing.rows.len(), missing.headers.len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn that_headers_exist_is_remembered_across_a_restart() {
    let disk = SimDisk::new(1);
    let replica = open(&disk);
    assert!(!replica.has_headers.load(Ordering::Relaxed));
    replica
        .apply(vec![header_delta(1, 5)], Durability::Synced)
        .await
        .unwrap();
    replica.store.request_flush();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(open(&disk).has_headers.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_digest_is_equal_exactly_when_the_page_is() {
    let (one, two) = (open(&SimDisk::new(1)), open(&SimDisk::new(2)));
    let all = range(Direction::Forward);
    for replica in [&one, &two] {
        replica
            .apply(vec![delta(1, 1, 10, 1)], Durability::Synced)
            .await
            .unwrap();
    }
    let digest = |replica: &EventualReplica| replica.read(&all).unwrap().digest();
    assert_eq!(digest(&one), digest(&two));
    one.apply(vec![tombstone(1, 9, 3)], Durability::Synced)
        .await
        .unwrap();
    assert_ne!(digest(&one), digest(&two));
}

#[tokio::test(start_paused = true)]
async fn an_older_placement_is_refused_with_the_newer_one() {
    let replica = open(&SimDisk::new(1));
    let request = |epoch| Request {
        tablet: TabletId(5),
        epoch: PlacementEpoch(epoch),
        action: Action::Digest(range(Direction::Forward)),
    };
    assert!(matches!(
        replica.handle(request(2)).await,
        Reply::Refused(ReplicaError::StaleEpoch(tablet)) if tablet.epoch == PlacementEpoch(3)
    ));
    assert!(matches!(replica.handle(request(3)).await, Reply::Digest(_)));
    let mut newer = tablet();
    newer.epoch = PlacementEpoch(4);
    replica.set_tablet(newer);
    assert!(matches!(
        replica.handle(request(3)).await,
        Reply::Refused(ReplicaError::StaleEpoch(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_comes_too_late_is_refused() {
    let replica = open(&SimDisk::new(1));
    let request = |expires| Request {
        tablet: TabletId(5),
        epoch: PlacementEpoch(3),
        action: Action::Apply {
            deltas: vec![delta(1, 1, 10, 7)],
            durability: Durability::Synced,
            expires: Some(Timestamp(expires)),
        },
    };
    assert_eq!(
        replica.handle(request(1_000_000)).await,
        Reply::Refused(ReplicaError::Expired)
    );
    assert_eq!(value(&replica, 1, 1), None);
    assert_eq!(replica.handle(request(1_000_001)).await, Reply::Applied);
    assert_eq!(value(&replica, 1, 1), Some(Value::Int(7)));
}

/// What the store holds of the tablet, tombstones included, by key.
fn stored(replica: &EventualReplica) -> Vec<Vec<u8>> {
    let snapshot = replica.store.snapshot();
    let scan = replica.store.scan(&[1], Some(&[2]), &snapshot);
    scan.map(|item| item.unwrap().0[1..].to_vec()).collect()
}

async fn sweep(replica: &Arc<EventualReplica>, before_seconds: i64) {
    let mut next = Some(Sweep::default());
    while let Some(sweep) = next {
        next = replica.sweep(sweep, before_seconds).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_takes_old_tombstones_and_what_they_shadow_and_nothing_else() {
    let disk = SimDisk::new(1);
    let replica = open(&disk);
    let deltas = vec![
        delta(1, 1, 10, 1),
        delta(1, 2, 60, 2),
        header_delta(1, 50),
        tombstone(2, 1, 10),
        delta(2, 2, 10, 3),
        static_delta(3, 10, 9),
    ];
    replica.apply(deltas, Durability::Synced).await.unwrap();
    // What the header shadows is shown to nobody.
    let page = replica.read(&range(Direction::Forward)).unwrap();
    assert_eq!(keys(&page), [row_key(1, 2), row_key(2, 1), row_key(2, 2)]);
    let all = stored(&replica);
    sweep(&replica, 0).await;
    let after_nothing = stored(&replica);
    assert_eq!(
        all.len(),
        after_nothing.len() + 1,
        "only the shadowed row went"
    );
    sweep(&replica, 1).await;
    let kept = [row_key(1, 2), row_key(2, 2), header_key(3)];
    let mut kept = kept.to_vec();
    kept.sort();
    assert_eq!(stored(&replica), kept);
    assert_eq!(replica.purged_before(), 1);
    let reopened = open(&disk);
    assert_eq!(
        stored(&reopened),
        kept,
        "a replay of the log comes to the same"
    );
}

#[tokio::test(start_paused = true)]
async fn notes_of_repairs_survive_and_tell_what_may_be_purged() {
    let disk = SimDisk::new(1);
    let replica = open(&disk);
    assert_eq!(replica.purgeable_before(0), None);
    let request = |start: &[u8], end: Option<&[u8]>, since| Request {
        tablet: TabletId(5),
        epoch: PlacementEpoch(3),
        action: Action::Repair(crate::RepairRequest::Repaired {
            range: KeyRange {
                start: start.to_vec(),
                end: end.map(<[u8]>::to_vec),
            },
            since: Timestamp(since),
        }),
    };
    let noted = replica.handle(request(b"", Some(b"m"), 50_000_000)).await;
    assert_eq!(noted, Reply::Applied);
    assert_eq!(replica.repaired_since(), None, "half is not all");
    replica.handle(request(b"m", None, 40_000_000)).await;
    disk.crash();
    let replica = open(&disk);
    assert_eq!(replica.repaired_since(), Some(Timestamp(40_000_000)));
    // The clock stands at second 1, and gc_grace counts from there.
    assert_eq!(replica.purgeable_before(0), Some(1));
    assert_eq!(replica.purgeable_before(4), Some(-3));
}

/// A tablet that was divided where a partition begins: what it is then, and the other half.
fn halves(partition: i32) -> (Tablet, Tablet) {
    let at = table().boundary(&row_key(partition, 0)).unwrap().to_vec();
    let left = Tablet {
        range: KeyRange {
            start: Vec::new(),
            end: Some(at.clone()),
        },
        epoch: PlacementEpoch(4),
        ..tablet()
    };
    let right = Tablet {
        id: TabletId(6),
        range: KeyRange {
            start: at,
            end: None,
        },
        epoch: PlacementEpoch(1),
        ..tablet()
    };
    (left, right)
}

#[tokio::test(start_paused = true)]
async fn a_half_has_all_that_was_taken_and_voted_for_before() {
    let disk = SimDisk::new(1);
    let (log, stores) = disk.open();
    let whole = open_of(tablet(), ReplicaId(9), Arc::clone(&log), stores.as_ref());
    let (left, right) = halves(7);
    let apply = |tablet: &Tablet, partition, value| Request {
        tablet: tablet.id,
        epoch: tablet.epoch,
        action: Action::Apply {
            deltas: vec![delta(partition, 1, 10, value)],
            durability: Durability::Periodic { interval_ms: 1_000 },
            expires: None,
        },
    };
    for partition in 0..20 {
        let written = whole.handle(apply(&tablet(), partition, 1)).await;
        assert_eq!(written, Reply::Applied);
    }
    let is_right = |partition| right.range.contains(&row_key(partition, 1));
    let voted: Vec<i32> = (0..20).filter(|it| is_right(*it)).collect();
    assert!((1..20).contains(&voted.len()) && is_right(7));
    let ballot = crate::Ballot {
        timestamp: Timestamp(99),
        node: NodeId(3),
        incarnation: model::Incarnation(1),
        sequence: 1,
    };
    let prepare = |tablet: &Tablet, ballot| Request {
        tablet: tablet.id,
        epoch: tablet.epoch,
        action: Action::Paxos(crate::PaxosRequest::Prepare {
            partition: header_key(7),
            ballot,
            read: read(ReplicaSelection::Keys(vec![row_key(7, 1)])),
        }),
    };
    let promised = whole.handle(prepare(&tablet(), ballot)).await;
    assert!(matches!(promised, Reply::Paxos(_)), "{promised:?}");
    assert_eq!(
        whole.seed(&right, ReplicaId(10), stores.as_ref()).await,
        Ok(false)
    );
    // From here on nothing is taken that was meant for the whole.
    whole.set_tablet(left.clone());
    let stale = whole.handle(apply(&tablet(), 7, 2)).await;
    assert_eq!(
        stale,
        Reply::Refused(ReplicaError::StaleEpoch(left.clone()))
    );
    let elsewhere = whole.handle(apply(&left, 7, 2)).await;
    assert!(matches!(
        elsewhere,
        Reply::Refused(ReplicaError::Invalid(_))
    ));
    let below = (0..20).find(|it| !is_right(*it)).unwrap();
    assert_eq!(whole.handle(apply(&left, below, 3)).await, Reply::Applied);
    assert_eq!(
        whole.seed(&right, ReplicaId(10), stores.as_ref()).await,
        Ok(true)
    );
    let half = open_of(right.clone(), ReplicaId(10), log, stores.as_ref());
    for partition in voted {
        assert_eq!(value(&half, partition, 1), Some(Value::Int(1)));
    }
    let earlier = crate::Ballot {
        timestamp: Timestamp(98),
        ..ballot
    };
    let outbid = half.handle(prepare(&right, earlier)).await;
    assert_eq!(outbid, Reply::Paxos(crate::PaxosReply::Outbid(ballot)));
    assert_eq!(half.handle(apply(&right, 7, 1)).await, Reply::Applied);
    // Nothing is known to be repaired of it, and nothing goes that is not its own.
    assert_eq!(half.repaired_since(), None);
    whole.forget_other_halves();
    half.forget_other_halves();
    assert_eq!(value(&whole, below, 1), Some(Value::Int(3)));
    assert_eq!(value(&half, 7, 1), Some(Value::Int(1)));
}

#[tokio::test(start_paused = true)]
async fn a_sweep_looks_at_nothing_but_the_tablet_s_range() {
    let replica = open(&SimDisk::new(1));
    let rows = (0..20).map(|partition| tombstone(partition, 1, 10));
    let written = replica.apply(rows.collect(), Durability::Synced).await;
    assert_eq!(written, Ok(()));
    let (left, right) = halves(7);
    replica.set_tablet(left);
    let mut next = Some(Sweep::default());
    while let Some(sweep) = next {
        next = replica.sweep(sweep, 100).await.unwrap();
    }
    for partition in 0..20 {
        let key = row_key(partition, 1);
        let page = replica.read(&read(ReplicaSelection::Keys(vec![key.clone()])));
        let is_left = page.unwrap().rows.is_empty();
        assert_eq!(is_left, !right.range.contains(&key), "{partition}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_starts_anew_goes_by_the_newest_placement_that_it_was_told() {
    let disk = SimDisk::new(1);
    disk.set_slow(20);
    let replica = open(&disk);
    let (newer, _) = halves(7);
    replica.set_tablet(newer.clone());
    let request = |epoch| Request {
        tablet: TabletId(5),
        epoch: PlacementEpoch(epoch),
        action: Action::Read(read(ReplicaSelection::Keys(vec![]))),
    };
    // Whoever reads under the new placement relies on the old one being over, for good.
    let answer = replica.handle(request(4)).await;
    assert_eq!(answer, Reply::Page(Page::default()));
    disk.crash();
    drop(replica);
    // By a node that knows the old one only.
    let replica = open(&disk);
    assert_eq!(replica.tablet(), newer);
    let answer = replica.handle(request(3)).await;
    assert_eq!(answer, Reply::Refused(ReplicaError::StaleEpoch(newer)));
}

#[tokio::test(start_paused = true)]
async fn how_far_a_stream_has_come_is_known_after_a_start_and_for_one_placement() {
    let disk = SimDisk::new(1);
    let replica = open(&disk);
    let (source, other) = (NodeId(2), NodeId(3));
    let (now, later) = (PlacementEpoch(3), PlacementEpoch(4));
    assert_eq!(replica.stage(now, source), Ok(Stage::Begin));
    let rows = Stage::Rows(row_key(3, 1));
    replica.note_stage(now, source, rows.clone()).unwrap();
    replica.note_stage(now, other, Stage::Done).unwrap();
    let written = replica
        .apply(vec![delta(1, 1, 10, 7)], Durability::Synced)
        .await;
    assert_eq!(written, Ok(()));
    disk.crash();
    drop(replica);
    let replica = open(&disk);
    assert_eq!(replica.stage(now, source), Ok(rows));
    assert_eq!(replica.stage(now, other), Ok(Stage::Done));
    assert_eq!(replica.stage(later, source), Ok(Stage::Begin));
    let states = Stage::States(header_key(2));
    replica.note_stage(later, source, states.clone()).unwrap();
    assert_eq!(replica.stage(later, source), Ok(states));
    assert_eq!(replica.stage(later, other), Ok(Stage::Begin));
}
