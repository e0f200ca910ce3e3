//! Nodes with one strong tablet each, on simulated disks and clocks and a network of channels.

use api::{
    Assignment, Atomicity, Direction, Error, KeyRange, Mutation, Projection, ReadAssertion,
    ReadBound, ReadResponse, RowOperation, Selection, WriteResponse,
};
use bytes::Bytes;
use catalog::{
    Catalog, Change, Column, ColumnRole, Durability, Ordering, Partitioning, Protocol, Replication,
    Table, TableSpec, Type,
};
use cluster::{Replica, Tablet};
use consensus::{Config, Groups, Member, Origin, Outbound};
use model::{
    ColumnId, Incarnation, NodeId, PlacementEpoch, ReplicaId, RequestId, TableId, TabletId,
    Timestamp, Value,
};
use parking_lot::Mutex;
use sim::disk::SimDisk;
use sim::{SimClock, TrueTime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use txn::{
    CommandId, Ending, Others, Span, Stepped, StrongConfig, StrongTablet, TabletError, TabletRead,
    TabletSpec, TabletWrite,
};
use world::Stores;

pub const TABLET: TabletId = TabletId(1);
pub const CLOCK_BOUND_MICROS: i64 = 500;

#[derive(Default)]
struct Wires {
    groups: BTreeMap<NodeId, Groups>,
    cut: BTreeSet<(NodeId, NodeId)>,
}

/// There is but one tablet here.
struct NoOthers {
    /// Whether the other participants answer.
    hear: watch::Receiver<bool>,
}

#[async_trait::async_trait]
impl Others for NoOthers {
    fn spawn(&self, task: txn::Task) {
        tokio::spawn(task);
    }

    async fn resolve(&self, _: &Span, _: CommandId, _: Ending) -> bool {
        *self.hear.borrow()
    }

    async fn ask(&self, _: &Span, _: CommandId) -> Option<Stepped> {
        None
    }
}

struct Wire {
    from: NodeId,
    wires: Arc<Mutex<Wires>>,
}

impl Outbound for Wire {
    fn send(&self, to: NodeId, frame: Bytes) {
        let (wires, from) = (self.wires.clone(), self.from);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_micros(300)).await;
            let groups = {
                let wires = wires.lock();
                match wires.cut.contains(&(from, to)) {
                    true => None,
                    false => wires.groups.get(&to).cloned(),
                }
            };
            if let Some(groups) = groups {
                groups.deliver(from, frame);
            }
        });
    }
}

pub struct Node {
    disk: SimDisk,
    pub clock: SimClock,
    pub tasks: Vec<JoinHandle<()>>,
    pub tablet: Option<StrongTablet>,
    pub groups: Option<Groups>,
    pub stores: Option<Arc<dyn Stores>>,
    starts: u64,
}

pub struct Cluster {
    pub nodes: BTreeMap<u64, Node>,
    wires: Arc<Mutex<Wires>>,
    catalog: watch::Sender<Arc<Catalog>>,
    root: TableId,
    requests: Arc<Mutex<u64>>,
    pub config: StrongConfig,
    pub log_entries_kept: u64,
    /// Whether the other participants of a transaction answer.
    pub others_hear: watch::Sender<bool>,
}

fn column(name: &str, kind: Type, role: ColumnRole) -> Column {
    Column {
        id: ColumnId(0),
        name: name.into(),
        kind,
        role,
        descending: false,
        not_null: false,
        options: BTreeMap::new(),
    }
}

fn spec(name: &str, partitioning: Partitioning, ordering: Ordering) -> TableSpec {
    let key_role = match partitioning {
        Partitioning::Hash => ColumnRole::Partition,
        Partitioning::Range => ColumnRole::Clustering,
    };
    TableSpec {
        namespace: "n".into(),
        name: name.into(),
        partitioning,
        replication: Replication {
            protocol: Protocol::Strong,
            factor_by_data_center: BTreeMap::new(),
            factor: 0,
            durability: Durability::Synced,
            ordering,
        },
        columns: vec![
            column("k", Type::BigInt, key_role),
            column("v", Type::text(), ColumnRole::Regular),
        ],
        parent: None,
        cascade: false,
        gc_grace_seconds: 864_000,
        default_ttl_seconds: 0,
        properties: BTreeMap::new(),
    }
}

pub fn member(node: u64) -> Member {
    Member {
        replica: ReplicaId(node * 10),
        node: NodeId(node),
        is_learner: false,
    }
}

impl Cluster {
    /// `root` names the table whose tablet it is.
    pub fn new(count: u64, root: &str) -> Cluster {
        let mut founded = Catalog::default();
        founded
            .apply(&Change::CreateNamespace {
                name: "n".into(),
                replication: spec("", Partitioning::Hash, Ordering::Conflict).replication,
                properties: BTreeMap::new(),
            })
            .unwrap();
        let catalog = catalog_over(founded);
        let root = catalog.table_by_name("n", root).unwrap().id;
        let time = TrueTime::start();
        let nodes = (1..=count)
            .map(|id| {
                let node = Node {
                    disk: SimDisk::new(id),
                    clock: SimClock::new(time, CLOCK_BOUND_MICROS),
                    tasks: Vec::new(),
                    tablet: None,
                    groups: None,
                    stores: None,
                    starts: 0,
                };
                (id, node)
            })
            .collect();
        Cluster {
            nodes,
            wires: Arc::default(),
            catalog: watch::Sender::new(Arc::new(catalog)),
            root,
            requests: Arc::default(),
            others_hear: watch::Sender::new(false),
            config: StrongConfig::default(),
            log_entries_kept: 20,
        }
    }

    pub fn table(&self, name: &str) -> Arc<Table> {
        let catalog = self.catalog.borrow();
        catalog.table_by_name("n", name).unwrap().clone()
    }

    /// Has all nodes know of a change.
    pub fn change(&self, change: Change) {
        let mut catalog = Catalog::clone(&self.catalog.borrow());
        catalog.apply(&change).unwrap();
        self.catalog.send_replace(Arc::new(catalog));
    }

    pub fn descriptor(&self) -> Tablet {
        Tablet {
            id: TABLET,
            root: self.root,
            range: KeyRange::all(),
            replicas: self
                .nodes
                .keys()
                .map(|id| Replica {
                    id: member(*id).replica,
                    node: NodeId(*id),
                    is_learner: false,
                })
                .collect(),
            epoch: PlacementEpoch(1),
            leaving: None,
        }
    }

    pub async fn start_all(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            self.start(id).await;
        }
    }

    pub async fn start(&mut self, id: u64) {
        let members = self.nodes.keys().map(|id| member(*id)).collect();
        let tablet = self.descriptor();
        let node = self.nodes.get_mut(&id).unwrap();
        node.starts += 1;
        let (log, stores) = node.disk.open();
        let mut config = Config::new(NodeId(id), id * 1_000 + node.starts);
        config.log_entries_kept = self.log_entries_kept;
        let wire = Wire {
            from: NodeId(id),
            wires: self.wires.clone(),
        };
        let (groups, driver) = Groups::new(log, Arc::new(wire), config);
        node.tasks.push(tokio::spawn(driver.run()));
        self.wires.lock().groups.insert(NodeId(id), groups.clone());
        node.groups = Some(groups);
        node.stores = Some(stores);
        let replica = member(id).replica;
        let opened = self
            .open(id, tablet, replica, Origin::Founded(members))
            .await;
        self.nodes.get_mut(&id).unwrap().tablet = Some(opened);
    }

    /// Opens a replica of some tablet on a node that runs.
    pub async fn open(
        &mut self,
        id: u64,
        tablet: Tablet,
        replica: ReplicaId,
        origin: Origin,
    ) -> StrongTablet {
        let node = self.nodes.get_mut(&id).unwrap();
        let tablet = StrongTablet::start(TabletSpec {
            tablet,
            replica,
            node: NodeId(id),
            origin,
            groups: node.groups.clone().unwrap(),
            stores: node.stores.clone().unwrap(),
            clock: Arc::new(node.clock.clone()),
            catalog: self.catalog.subscribe(),
            others: Arc::new(NoOthers {
                hear: self.others_hear.subscribe(),
            }),
            config: self.config.clone(),
        })
        .await
        .unwrap();
        node.tasks.push(tokio::spawn(tablet.clone().run()));
        tablet
    }

    pub fn crash(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        for task in node.tasks.drain(..) {
            task.abort();
        }
        node.tablet = None;
        node.groups = None;
        node.stores = None;
        self.wires.lock().groups.remove(&NodeId(id));
        node.disk.crash();
    }

    pub fn isolate(&self, id: u64) {
        let mut wires = self.wires.lock();
        for other in self.nodes.keys() {
            wires.cut.insert((NodeId(id), NodeId(*other)));
            wires.cut.insert((NodeId(*other), NodeId(id)));
        }
    }

    pub fn heal(&self) {
        self.wires.lock().cut.clear();
    }

    pub fn tablet(&self, id: u64) -> StrongTablet {
        self.nodes[&id].tablet.clone().unwrap()
    }

    pub fn flush(&self) {
        for (id, node) in &self.nodes {
            if let Some(stores) = &node.stores {
                stores.open(member(*id).replica).unwrap().request_flush();
            }
        }
    }

    pub fn command(&self) -> CommandId {
        let mut requests = self.requests.lock();
        *requests += 1;
        CommandId {
            node: NodeId(99),
            incarnation: Incarnation(1),
            request: RequestId(*requests),
        }
    }

    pub fn request(&self, mutations: Vec<Mutation>) -> TabletWrite {
        TabletWrite {
            tablet: TABLET,
            epoch: PlacementEpoch(1),
            schema: self.catalog.borrow().version,
            command: self.command(),
            first_attempt: None,
            mutations,
            atomicity: Atomicity::All,
            assertions: Vec::new(),
            patience_ms: 2_000,
            transaction: None,
            is_kept: false,
        }
    }

    pub fn put(&self, table: &str, key: &[i64], value: &str) -> Mutation {
        let table = self.table(table);
        Mutation::new(table.id, row_key(&table, key), merge(&table, value))
    }

    pub fn insert(&self, table: &str, key: &[i64], value: &str) -> Mutation {
        let table = self.table(table);
        let RowOperation::Merge { assignments, .. } = merge(&table, value) else {
            unreachable!()
        };
        let operation = RowOperation::Insert { assignments };
        Mutation::new(table.id, row_key(&table, key), operation)
    }

    pub fn delete(&self, table: &str, key: &[i64]) -> Mutation {
        let table = self.table(table);
        Mutation::new(table.id, row_key(&table, key), RowOperation::Delete)
    }

    pub fn assertion(&self, table: &str, key: &[i64], timestamp: Timestamp) -> ReadAssertion {
        let table = self.table(table);
        let key = row_key(&table, key);
        let mut end = key.clone();
        end.push(0);
        ReadAssertion {
            table: table.id,
            range: KeyRange {
                start: key,
                end: Some(end),
            },
            timestamp,
            columns: api::ColumnSet::ALL,
        }
    }

    /// Sends a write to the leaseholder, wherever it is, as a gateway does.
    pub async fn write_as(&self, mut write: TabletWrite) -> Result<WriteResponse, Error> {
        let first = self.nodes.values().next().unwrap().clock.clone();
        let began = world::Clock::now(&first).unwrap().earliest;
        let mut target = 0;
        for _ in 0..400 {
            let ids: Vec<u64> = self
                .nodes
                .iter()
                .filter(|(_, node)| node.tablet.is_some())
                .map(|(id, _)| *id)
                .collect();
            let id = ids[target % ids.len()];
            match self.tablet(id).write(write.clone()).await {
                Ok(response) => return Ok(response),
                Err(TabletError::Api(Error::Retry(
                    api::Retry::NoLeader { .. } | api::Retry::NotServing(_),
                )))
                | Err(TabletError::NotLeaseholder { .. }) => {
                    write.first_attempt = Some(began);
                    target += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(TabletError::Api(error)) => return Err(error),
                Err(other) => panic!("{other:?}"),
            }
        }
        panic!("nobody took the write");
    }

    pub async fn write(&self, mutations: Vec<Mutation>) -> Result<WriteResponse, Error> {
        self.write_as(self.request(mutations)).await
    }

    pub fn read_request(&self, table: &str, selection: Selection, bound: ReadBound) -> TabletRead {
        TabletRead {
            tablet: TABLET,
            epoch: PlacementEpoch(1),
            schema: self.catalog.borrow().version,
            table: self.table(table).id,
            selection,
            direction: Direction::Forward,
            projection: Projection::All,
            row_limit: None,
            size_bytes_max: 1 << 20,
            headers: false,
            bound,
            patience_ms: 2_000,
            locking: None,
        }
    }

    pub async fn read_as(&self, read: TabletRead) -> Result<ReadResponse, Error> {
        for attempt in 0..400 {
            let ids: Vec<u64> = self
                .nodes
                .iter()
                .filter(|(_, node)| node.tablet.is_some())
                .map(|(id, _)| *id)
                .collect();
            let id = ids[attempt % ids.len()];
            match self.tablet(id).read(read.clone()).await {
                Ok(response) => return Ok(response),
                Err(TabletError::Api(Error::Retry(_)))
                | Err(TabletError::NotLeaseholder { .. }) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(TabletError::Api(error)) => return Err(error),
                Err(other) => panic!("{other:?}"),
            }
        }
        panic!("nobody took the read");
    }

    pub async fn get_at(&self, table: &str, key: &[i64], bound: ReadBound) -> Option<String> {
        let key = row_key(&self.table(table), key);
        let read = self.read_request(table, Selection::Keys(vec![key]), bound);
        let response = self.read_as(read).await.unwrap();
        self.values(table, &response).pop()
    }

    pub async fn get(&self, table: &str, key: &[i64]) -> Option<String> {
        self.get_at(table, key, ReadBound::Strong).await
    }

    pub async fn scan(&self, table: &str) -> Vec<String> {
        let selection = Selection::Ranges(vec![KeyRange::all()]);
        let read = self.read_request(table, selection, ReadBound::Strong);
        let response = self.read_as(read).await.unwrap();
        assert_eq!(response.next, None);
        self.values(table, &response)
    }

    pub fn values(&self, table: &str, response: &ReadResponse) -> Vec<String> {
        let table = self.table(table);
        let column = table.column_by_name("v").unwrap().id;
        let value = |row: &api::ReadRow| match row.row.value(column) {
            Some(Value::Text(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        response.rows.iter().map(value).collect()
    }

    /// The node that holds the lease, once one does.
    pub async fn leaseholder(&self) -> u64 {
        for _ in 0..1_000 {
            for (id, node) in &self.nodes {
                if let Some(tablet) = &node.tablet
                    && tablet.status().is_leaseholder
                {
                    return *id;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no leaseholder");
    }
}

/// `kv` is hash-partitioned with conflict order; `parent`, with `child` and the cascading `tail` interleaved in
/// it, is range-partitioned with external order.
fn catalog_over(mut founded: Catalog) -> Catalog {
    let parent = create(
        &mut founded,
        spec("parent", Partitioning::Range, Ordering::External),
    );
    create(
        &mut founded,
        spec("kv", Partitioning::Hash, Ordering::Conflict),
    );
    for (name, cascade) in [("child", false), ("tail", true)] {
        let mut spec = spec(name, Partitioning::Range, Ordering::External);
        spec.parent = Some(parent);
        spec.cascade = cascade;
        spec.columns
            .insert(1, column("c", Type::BigInt, ColumnRole::Clustering));
        create(&mut founded, spec);
    }
    founded
}

fn create(catalog: &mut Catalog, spec: TableSpec) -> TableId {
    let name = spec.name.clone();
    let uuid = [7; 16];
    catalog.apply(&Change::CreateTable { spec, uuid }).unwrap();
    catalog.table_by_name("n", &name).unwrap().id
}

pub fn row_key(table: &Table, key: &[i64]) -> Vec<u8> {
    let values: Vec<Value> = key.iter().map(|part| Value::Int(*part)).collect();
    table.row_key(&values).unwrap()
}

fn merge(table: &Table, value: &str) -> RowOperation {
    RowOperation::Merge {
        marker: true,
        assignments: vec![Assignment::Set {
            column: table.column_by_name("v").unwrap().id,
            path: None,
            value: Value::Text(value.into()),
        }],
        ttl_seconds: None,
    }
}

/// Runs a test on a paused current-thread runtime.
pub fn simulate<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async {
            let limit = Duration::from_secs(600);
            let outcome = tokio::time::timeout(limit, test()).await;
            outcome.expect("the test does not come to an end");
        });
}
