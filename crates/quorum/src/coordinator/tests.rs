mod batch;
mod cas;
mod reads;

use super::*;
use crate::batchlog::{BatchRequest, Batchlog};
use crate::fixture::{Stopped, VALUE, delta, header_key, row_key, table, tombstone};
use crate::hints::HintLimits;
use crate::message::{Action, RawRow, ReplicaRead, ReplicaSelection};
use crate::peers::{Neighbour, Task, Tasks};
use crate::replica::{EventualReplica, ReplicaConfig};
use api::{
    Assignment, Direction, Error, FailureReason, KeyRange, Level, Mutation, Outcome, ReadBound,
    ReadRequest, ReplicaFailure, Retry, RowOperation, Selection, WriteRequest, WriteStep,
};
use async_trait::async_trait;
use catalog::{Catalog, Durability, Table};
use cluster::Replica;
use model::{Incarnation, NodeId, PlacementEpoch, ReplicaId, TableId, TabletId, Timestamp, Value};
use parking_lot::Mutex;
use sim::disk::SimDisk;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use world::planted::{self, Bug};

#[derive(Clone, Copy, PartialEq)]
enum Health {
    Well,
    /// Known to be dead.
    Dead,
    /// Thought alive, answers nothing.
    Silent,
    /// Answers with an error.
    Failing,
}

struct Cluster {
    replicas: BTreeMap<NodeId, Arc<EventualReplica>>,
    batches: BTreeMap<NodeId, Arc<Batchlog>>,
    health: Mutex<BTreeMap<NodeId, Health>>,
    /// Of answers, beside the millisecond that each takes.
    delays: Mutex<BTreeMap<NodeId, Duration>>,
    /// Requests to other nodes.
    calls: AtomicUsize,
    tablet: Arc<Tablet>,
    is_removed_here: Mutex<bool>,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn address(node: u64) -> IpAddr {
    IpAddr::from([10, 0, 0, node as u8])
}

impl Tasks for Cluster {
    fn spawn(&self, task: Task) {
        tokio::spawn(task);
    }
}

#[async_trait]
impl Peers for Cluster {
    async fn call(
        &self,
        node: NodeId,
        request: Request,
        patience_ms: u32,
    ) -> Result<Reply, CallError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let delay = self.delays.lock().get(&node).copied().unwrap_or_default();
        tokio::time::sleep(ms(1) + delay).await;
        let health = self.health.lock()[&node];
        match health {
            Health::Failing => Ok(Reply::Refused(ReplicaError::Broken("disk".into()))),
            Health::Well => {
                let request = Request::decode(&request.encode()).unwrap();
                let reply = self.replicas[&node].handle(request).await;
                Ok(Reply::decode(&reply.encode()).unwrap())
            }
            _ => {
                tokio::time::sleep(Duration::from_millis(patience_ms.into())).await;
                Err(CallError::Timeout)
            }
        }
    }

    async fn batch(&self, node: NodeId, request: BatchRequest, _: u32) -> Result<(), CallError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if self.health.lock()[&node] != Health::Well {
            return Err(CallError::Timeout);
        }
        let kept = self.batches[&node].handle(request).await;
        kept.map_err(|error| CallError::Unreachable(error.to_string()))
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        let others = self.replicas.keys().filter(|node| **node != NodeId(1));
        let alive = others.filter(|node| self.is_alive(**node));
        alive
            .map(|node| Neighbour {
                node: *node,
                is_local: true,
                rack: node.to_string().into(),
                is_same_rack: false,
            })
            .collect()
    }

    fn local(&self, tablet: TabletId) -> Result<Arc<EventualReplica>, ReplicaError> {
        if self.health.lock()[&NodeId(1)] == Health::Failing {
            return Err(ReplicaError::Broken("disk".into()));
        }
        let is_here = !*self.is_removed_here.lock();
        let here = self.replicas.get(&NodeId(1)).filter(|_| is_here);
        here.cloned().ok_or(ReplicaError::NoReplica(tablet))
    }

    fn this_node(&self) -> NodeId {
        NodeId(1)
    }

    fn is_alive(&self, node: NodeId) -> bool {
        self.health.lock()[&node] != Health::Dead
    }

    fn data_center(&self, node: NodeId) -> Arc<str> {
        if node.0 <= 3 { "a" } else { "b" }.into()
    }

    fn is_same_rack(&self, node: NodeId) -> bool {
        node == self.this_node()
    }

    fn client_address(&self, node: NodeId) -> Option<IpAddr> {
        Some(address(node.0))
    }

    fn tablet(&self, _: TableId, _: &[u8]) -> Option<Arc<Tablet>> {
        Some(self.tablet.clone())
    }

    fn tablet_before(&self, _: TableId, _: Option<&[u8]>) -> Option<Arc<Tablet>> {
        Some(self.tablet.clone())
    }
}

fn cluster(nodes: u64) -> (Arc<Cluster>, Coordinator) {
    cluster_with_learners(nodes, 0)
}

/// The last so many of the nodes are being filled.
fn cluster_with_learners(nodes: u64, learners: u64) -> (Arc<Cluster>, Coordinator) {
    let tablet = Tablet {
        id: TabletId(5),
        root: table().id,
        range: KeyRange::all(),
        replicas: (1..=nodes)
            .map(|node| Replica {
                id: ReplicaId(node + 10),
                node: NodeId(node),
                is_learner: node > nodes - learners,
            })
            .collect(),
        epoch: PlacementEpoch(1),
        leaving: None,
    };
    let open = |replica: &Replica| {
        let (log, stores) = SimDisk::new(replica.id.0).open();
        let config = ReplicaConfig {
            tablet: tablet.clone(),
            replica: replica.id,
            table: Arc::new(table()),
            clock: Arc::new(Stopped(1_000_000)),
        };
        let tasks = Arc::new(|task: Task| {
            tokio::spawn(task);
        });
        let store = stores.open(replica.id).unwrap();
        EventualReplica::open(config, store, log, tasks).unwrap()
    };
    let cluster = Arc::new(Cluster {
        replicas: tablet
            .replicas
            .iter()
            .map(|replica| (replica.node, open(replica)))
            .collect(),
        batches: (1..=nodes)
            .map(|node| {
                let (log, _) = SimDisk::new(node + 200).open();
                (NodeId(node), Arc::new(Batchlog::open(log)))
            })
            .collect(),
        delays: Mutex::default(),
        calls: AtomicUsize::new(0),
        health: Mutex::new(
            (1..=nodes)
                .map(|node| (NodeId(node), Health::Well))
                .collect(),
        ),
        tablet: Arc::new(tablet.clone()),
        is_removed_here: Mutex::new(false),
    });
    let gateway = Arc::new(Gateway::new(Arc::new(Stopped(1_000_000)), Incarnation(1)));
    let hints = Hints::open(SimDisk::new(99).open().0, HintLimits::default());
    let batches = cluster.batches[&NodeId(1)].clone();
    let (hints, speeds) = (Arc::new(hints), Arc::new(Speeds::default()));
    let coordinator = Coordinator::new(cluster.clone(), gateway, hints, batches, speeds);
    (cluster, coordinator)
}

impl Cluster {
    fn set(&self, node: u64, health: Health) {
        self.health.lock().insert(NodeId(node), health);
    }

    /// Writes to one replica behind the coordinator's back.
    async fn plant(&self, node: u64, deltas: Vec<RawRow>) {
        self.replicas[&NodeId(node)]
            .apply(deltas, Durability::Synced)
            .await
            .unwrap();
    }
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.tables.insert(table().id, Arc::new(table()));
    catalog
}

fn put(clustering: i32, value: i64, level: Level) -> WriteRequest {
    let operation = RowOperation::Merge {
        marker: true,
        assignments: vec![Assignment::Set {
            column: VALUE,
            path: None,
            value: Value::Int(value),
        }],
        ttl_seconds: None,
    };
    let mutation = Mutation::new(table().id, row_key(1, clustering), operation);
    WriteRequest {
        level,
        ..WriteRequest::new(vec![mutation])
    }
}

async fn values(coordinator: &Coordinator, request: ReadRequest) -> Result<Vec<i64>, Error> {
    let response = coordinator.read(&table(), &request).await?;
    Ok(response
        .rows
        .iter()
        .map(|read| match read.row.value(VALUE) {
            Some(Value::Int(value)) => *value,
            _ => -1,
        })
        .collect())
}

fn get(clustering: i32, level: Level) -> ReadRequest {
    let mut request = ReadRequest::new(table().id, Selection::Keys(vec![row_key(1, clustering)]));
    request.bound = ReadBound::Level(level);
    request
}

fn scan(limit: Option<u32>, direction: Direction) -> ReadRequest {
    let mut request = ReadRequest::new(table().id, Selection::Ranges(vec![KeyRange::all()]));
    request.row_limit = limit;
    request.direction = direction;
    request
}

#[tokio::test(start_paused = true)]
async fn a_single_node_writes_and_reads() {
    let (_, coordinator) = cluster(1);
    coordinator
        .write(&catalog(), put(1, 7, Level::Quorum))
        .await
        .unwrap();
    assert_eq!(values(&coordinator, get(1, Level::One)).await.unwrap(), [7]);
    assert_eq!(
        values(&coordinator, get(2, Level::One)).await.unwrap(),
        Vec::<i64>::new()
    );
}

#[tokio::test(start_paused = true)]
async fn a_quorum_is_enough_and_less_is_said_with_counts() {
    let (cluster, coordinator) = cluster(3);
    cluster.set(3, Health::Silent);
    coordinator
        .write(&catalog(), put(1, 7, Level::Quorum))
        .await
        .unwrap();
    let error = coordinator
        .write(&catalog(), put(1, 8, Level::All))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        Error::Retry(Retry::WriteTimeout {
            level: Level::All,
            required: 3,
            received: 2,
            outcome: Outcome::Unknown,
            step: WriteStep::Replicas,
        })
    );
    cluster.set(3, Health::Dead);
    let error = coordinator
        .write(&catalog(), put(1, 8, Level::All))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        Error::Retry(Retry::Unavailable {
            level: Level::All,
            required: 3,
            alive: 2,
        })
    );
    cluster.set(2, Health::Failing);
    let error = coordinator
        .write(&catalog(), put(1, 9, Level::Quorum))
        .await
        .unwrap_err();
    let failure = |node, reason| ReplicaFailure {
        address: address(node),
        reason,
    };
    let failed = |received, failures| {
        Error::Retry(Retry::Failure {
            level: Level::Quorum,
            required: 2,
            received,
            failures,
            outcome: Outcome::Unknown,
            is_write: true,
            data_present: false,
        })
    };
    // Said as soon as nobody is left who could: before this node's own answer, perhaps.
    let only = || vec![failure(2, FailureReason::Unknown)];
    assert!(
        [0, 1]
            .map(|received| failed(received, only()))
            .contains(&error)
    );
    cluster.set(3, Health::Silent);
    let error = coordinator
        .write(&catalog(), put(1, 9, Level::Quorum))
        .await
        .unwrap_err();
    let failures = vec![
        failure(2, FailureReason::Unknown),
        failure(3, FailureReason::Timeout),
    ];
    assert_eq!(error, failed(1, failures));
    planted::plant(Some(Bug::CountFailedReplicaAsAcknowledged));
    let counted = coordinator
        .write(&catalog(), put(1, 9, Level::Quorum))
        .await;
    planted::plant(None);
    assert!(counted.is_ok(), "the planted bug does something");
}

#[tokio::test(start_paused = true)]
async fn a_quorum_read_repairs_what_it_shows() {
    let (cluster, coordinator) = cluster(3);
    cluster.plant(1, vec![delta(1, 1, 5, 50)]).await;
    cluster
        .plant(2, vec![delta(1, 1, 6, 60), tombstone(1, 2, 9)])
        .await;
    assert_eq!(
        values(&coordinator, get(1, Level::Quorum)).await.unwrap(),
        [60]
    );
    cluster.set(2, Health::Dead);
    assert_eq!(
        values(&coordinator, get(1, Level::Quorum)).await.unwrap(),
        [60]
    );
}

#[tokio::test(start_paused = true)]
async fn without_read_repair_a_shown_value_can_vanish() {
    let (cluster, coordinator) = cluster(3);
    cluster.plant(2, vec![delta(1, 1, 6, 60)]).await;
    planted::plant(Some(Bug::SkipReadRepair));
    assert_eq!(
        values(&coordinator, get(1, Level::Quorum)).await.unwrap(),
        [60]
    );
    cluster.set(2, Health::Dead);
    let later = values(&coordinator, get(1, Level::Quorum)).await.unwrap();
    planted::plant(None);
    assert_eq!(later, Vec::<i64>::new());
}

#[tokio::test(start_paused = true)]
async fn a_table_can_do_without_read_repair() {
    let (cluster, coordinator) = cluster(3);
    cluster.plant(2, vec![delta(1, 1, 6, 60)]).await;
    let mut table = table();
    let (name, value) = (catalog::READ_REPAIR, catalog::NO_READ_REPAIR);
    table.spec.properties.insert(name.into(), value.into());
    let request = get(1, Level::Quorum);
    let shown = coordinator.read(&table, &request).await.unwrap();
    assert_eq!(shown.rows.len(), 1, "the answers are merged all the same");
    cluster.set(2, Health::Dead);
    let later = coordinator.read(&table, &request).await.unwrap();
    assert!(later.rows.is_empty(), "nobody was told");
}

#[tokio::test(start_paused = true)]
async fn a_limited_range_is_not_cut_short_by_another_s_tombstones() {
    for direction in [Direction::Forward, Direction::Backward] {
        let (cluster, coordinator) = cluster(2);
        let live = |count: i32| (0..count).map(|row| delta(1, row, 5, row.into())).collect();
        cluster.plant(1, live(20)).await;
        cluster.plant(2, live(20)).await;
        // The second replica knows that the first half is gone.
        let gone = match direction {
            Direction::Forward => 0..10,
            Direction::Backward => 10..20,
        };
        let tombstones = gone.map(|row| tombstone(1, row, 9)).collect();
        cluster.plant(2, tombstones).await;
        let shown = values(&coordinator, scan(Some(3), direction))
            .await
            .unwrap();
        match direction {
            Direction::Forward => assert_eq!(shown, [10, 11, 12]),
            Direction::Backward => assert_eq!(shown, [9, 8, 7]),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pages_follow_each_other_without_gap_or_repetition() {
    for direction in [Direction::Forward, Direction::Backward] {
        let (cluster, coordinator) = cluster(3);
        for row in 0..30 {
            let node = row as u64 % 3 + 1;
            cluster
                .plant(node, vec![delta(row / 10, row % 10, 5, row.into())])
                .await;
            cluster
                .plant(node % 3 + 1, vec![delta(row / 10, row % 10, 5, row.into())])
                .await;
        }
        let whole = values(&coordinator, scan(None, direction)).await.unwrap();
        assert_eq!(whole.len(), 30);
        let mut request = scan(Some(4), direction);
        let mut paged = Vec::new();
        loop {
            let response = coordinator.read(&table(), &request).await.unwrap();
            assert!(response.rows.len() <= 4);
            paged.extend(response.rows.iter().map(|read| read.key.clone()));
            match response.next {
                Some(next) => request.selection = next,
                None => break,
            }
        }
        assert_eq!(paged.len(), 30);
        assert!(paged.windows(2).all(|pair| match direction {
            Direction::Forward => pair[0] < pair[1],
            Direction::Backward => pair[0] > pair[1],
        }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_deleted_at_one_replica_is_gone_at_the_reader() {
    let (cluster, coordinator) = cluster(2);
    for node in [1, 2] {
        cluster
            .plant(node, vec![delta(1, 1, 5, 1), delta(1, 2, 50, 2)])
            .await;
    }
    let delete = Mutation::new(table().id, header_key(1), RowOperation::Delete);
    let mut request = WriteRequest::new(vec![delete]);
    request.timestamp = Some(Timestamp(10));
    request.level = Level::One;
    cluster.set(2, Health::Dead);
    coordinator.write(&catalog(), request).await.unwrap();
    cluster.set(2, Health::Well);
    for level in [Level::All, Level::Quorum] {
        assert_eq!(
            values(&coordinator, get(1, level)).await.unwrap(),
            Vec::<i64>::new()
        );
        assert_eq!(values(&coordinator, get(2, level)).await.unwrap(), [2]);
    }
    let all = values(&coordinator, scan(None, Direction::Forward))
        .await
        .unwrap();
    assert_eq!(all, [2]);
    cluster.set(1, Health::Silent);
    assert_eq!(
        cluster.replicas[&NodeId(2)]
            .read(&crate::ReplicaRead {
                rows: crate::ReplicaSelection::Keys(vec![header_key(1)]),
                row_limit: None,
                size_bytes_max: 1 << 20,
                now_seconds: 1,
            })
            .unwrap()
            .headers
            .len(),
        1,
        "the header was repaired too"
    );
}

#[tokio::test(start_paused = true)]
async fn an_atomic_write_stays_in_one_partition() {
    let (_, coordinator) = cluster(1);
    let mut request = put(1, 1, Level::One);
    request.mutations.push(Mutation {
        key: row_key(1, 2),
        ..request.mutations[0].clone()
    });
    coordinator
        .write(&catalog(), request.clone())
        .await
        .unwrap();
    request.mutations.push(Mutation {
        key: row_key(2, 2),
        ..request.mutations[0].clone()
    });
    let error = coordinator
        .write(&catalog(), request.clone())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("logged batch"));
    request.atomicity = api::Atomicity::Each;
    coordinator.write(&catalog(), request).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_older_placement_is_tried_again_with_the_newer() {
    let (cluster, coordinator) = cluster(2);
    let mut newer = (*cluster.tablet).clone();
    newer.epoch = PlacementEpoch(2);
    for replica in cluster.replicas.values() {
        replica.set_tablet(newer.clone());
    }
    coordinator
        .write(&catalog(), put(1, 7, Level::All))
        .await
        .unwrap();
    assert_eq!(values(&coordinator, get(1, Level::All)).await.unwrap(), [7]);
    let request = Request {
        tablet: TabletId(5),
        epoch: PlacementEpoch(1),
        action: Action::Apply {
            deltas: vec![],
            durability: Durability::Synced,
            expires: None,
        },
    };
    assert!(matches!(
        cluster.replicas[&NodeId(2)].handle(request).await,
        Reply::Refused(ReplicaError::StaleEpoch(_))
    ));
}

/// Waits, in simulated time, until a node's hints are delivered.
async fn delivered(coordinator: &Coordinator) {
    for _ in 0..100 {
        if coordinator.hints.nodes().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("hints are still there after 10 s");
}

#[tokio::test(start_paused = true)]
async fn what_a_replica_misses_it_gets_when_it_is_back() {
    for health in [Health::Dead, Health::Silent, Health::Failing] {
        let (cluster, coordinator) = cluster(3);
        tokio::spawn(coordinator.clone().replay_hints());
        cluster.set(3, health);
        coordinator
            .write(&catalog(), put(1, 7, Level::Quorum))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(coordinator.hints.nodes(), [NodeId(3)]);
        cluster.set(3, Health::Well);
        delivered(&coordinator).await;
        for node in [1, 2] {
            cluster.set(node, Health::Dead);
        }
        let request = ReplicaRead {
            rows: ReplicaSelection::Keys(vec![row_key(1, 1)]),
            row_limit: None,
            size_bytes_max: 1 << 20,
            now_seconds: 0,
        };
        let page = cluster.replicas[&NodeId(3)].read(&request).unwrap();
        assert_eq!(page.rows.len(), 1);
    }
}

/// What a node has missed is given back no faster than the limit says.
#[tokio::test(start_paused = true)]
async fn hints_are_replayed_at_a_limited_rate() {
    const BYTES_PER_SECOND: u64 = 50;
    let (cluster, mut coordinator) = cluster(3);
    let limits = HintLimits {
        replay_bytes_per_second: BYTES_PER_SECOND,
        ..HintLimits::default()
    };
    coordinator.hints = Arc::new(Hints::open(SimDisk::new(98).open().0, limits));
    let miss = async |value| {
        cluster.set(3, Health::Dead);
        let missed = put(1, value, Level::Quorum);
        coordinator.write(&catalog(), missed).await.unwrap();
        while coordinator.hints.nodes().is_empty() {
            tokio::time::sleep(ms(1)).await;
        }
        let kept = coordinator.hints.oldest(NodeId(3), 1 << 20).unwrap();
        cluster.set(3, Health::Well);
        kept.iter().map(|kept| kept.size_bytes).sum::<u64>()
    };
    tokio::spawn(coordinator.clone().replay_hints());
    let bytes = miss(7).await;
    delivered(&coordinator).await;
    let began = Instant::now();
    // What comes next waits until the rate allows it.
    miss(8).await;
    delivered(&coordinator).await;
    let waited = began.elapsed();
    let due = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND as f64);
    assert!(waited + ms(200) >= due, "{bytes} bytes, then {waited:?}");
    assert!(waited <= due + ms(1_000), "{bytes} bytes, then {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn at_any_a_hint_is_an_acknowledgement() {
    let (cluster, coordinator) = cluster(2);
    for node in [1, 2] {
        cluster.set(node, Health::Dead);
    }
    // The coordinator's own replica is asked whatever is known of it.
    cluster.set(2, Health::Failing);
    *cluster.is_removed_here.lock() = true;
    coordinator
        .write(&catalog(), put(1, 7, Level::Any))
        .await
        .unwrap();
    assert_eq!(coordinator.hints.nodes(), [NodeId(1), NodeId(2)]);
    let error = coordinator
        .write(&catalog(), put(1, 8, Level::One))
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Retry(Retry::Failure { .. })),
        "{error}"
    );
    assert!(values(&coordinator, get(1, Level::Any)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_is_too_old_is_dropped_and_one_for_a_place_that_moved_goes_to_all() {
    let (cluster, coordinator) = cluster(3);
    cluster.set(3, Health::Dead);
    coordinator
        .write(&catalog(), put(1, 7, Level::One))
        .await
        .unwrap();
    let kept = coordinator.hints.oldest(NodeId(3), 1 << 20).unwrap();
    let hint = kept[0].hint.clone().unwrap();
    let late = crate::hints::Hint {
        expires: Timestamp(1_000_000),
        ..hint.clone()
    };
    // Node 9 has no replica of the tablet any more.
    cluster.set(9, Health::Well);
    coordinator.hints.store(NodeId(9), late).await.unwrap();
    tokio::spawn(coordinator.clone().replay_hints());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(coordinator.hints.nodes(), [NodeId(3)]);
    coordinator.hints.store(NodeId(9), hint).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        coordinator.hints.nodes(),
        [NodeId(3), NodeId(9)],
        "not all have it"
    );
    cluster.set(3, Health::Well);
    delivered(&coordinator).await;
}

/// Repairs a tablet from its begin to its end: rows brought, and whether all took part throughout.
async fn repair(cluster: &Cluster, coordinator: &Coordinator) -> (u64, bool) {
    let (mut from, mut rows, mut is_whole) = (Vec::new(), 0, true);
    loop {
        let step = coordinator
            .repair_step(&table(), &cluster.tablet, &from)
            .await
            .unwrap();
        rows += step.streamed_rows;
        is_whole &= step.is_whole;
        match step.next {
            Some(next) => from = next,
            None => return (rows, is_whole),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_repair_brings_each_replica_what_it_lacks_and_is_noted_when_all_took_part() {
    let (cluster, coordinator) = cluster(3);
    for row in 0..3_000 {
        for node in 1..=3 {
            cluster
                .plant(node, vec![delta(row, 1, 5, row.into())])
                .await;
        }
    }
    cluster.plant(2, vec![tombstone(7, 1, 9)]).await;
    cluster
        .plant(3, vec![delta(8, 1, 6, 1), delta(9, 9, 6, 2)])
        .await;
    cluster
        .plant(1, vec![crate::fixture::header_delta(10, 9)])
        .await;
    cluster.set(3, Health::Dead);
    assert_eq!(repair(&cluster, &coordinator).await, (2, false));
    let marked = |node| cluster.replicas[&NodeId(node)].repaired_since();
    assert_eq!([marked(1), marked(2), marked(3)], [None; 3]);
    cluster.set(3, Health::Well);
    let (rows, is_whole) = repair(&cluster, &coordinator).await;
    assert!(is_whole);
    assert_eq!(
        rows,
        2 + 4,
        "the tombstones to node 3, two rows to the others"
    );
    let since = Some(Timestamp(1_000_000));
    assert_eq!([marked(1), marked(2), marked(3)], [since; 3]);
    assert_eq!(repair(&cluster, &coordinator).await, (0, true));
}

#[tokio::test(start_paused = true)]
async fn a_repair_under_an_older_placement_notes_nothing() {
    let (cluster, coordinator) = cluster(2);
    let newer = Tablet {
        epoch: PlacementEpoch(2),
        ..cluster.tablet.as_ref().clone()
    };
    cluster.replicas[&NodeId(2)].set_tablet(newer);
    let step = coordinator
        .repair_step(&table(), &cluster.tablet, &[])
        .await
        .unwrap();
    assert!(!step.is_whole, "node 2 did not take part");
    assert_eq!(cluster.replicas[&NodeId(1)].repaired_since(), None);
}
