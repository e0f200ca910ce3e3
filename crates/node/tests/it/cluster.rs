//! Nodes that can be crashed and started again, and requests in short.

use api::{
    Assignment, Atomicity, Database, Error, Level, Mutation, ReadBound, ReadRequest, RowOperation,
    Selection, WriteRequest,
};
use catalog::{
    Change, Column, ColumnRole, Durability, Ordering, Partitioning, Protocol, Replication,
    TableSpec, Type,
};
use model::{ColumnId, TableId, Value};
use node::{Config, Node};
use sim::disk::SimDisk;
use sim::{Conditions, Lines, SimClock, SimNetwork, SimRandom, Trace, TrueTime};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use world::World;

pub struct Cluster {
    pub network: SimNetwork,
    time: TrueTime,
    disks: BTreeMap<u8, SimDisk>,
    pub nodes: BTreeMap<u8, Arc<Node>>,
    starts: u64,
}

pub fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, number], 7000))
}

impl Cluster {
    pub fn new() -> Cluster {
        if std::env::var_os("TESSERA_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_env("TESSERA_LOG");
            let _ = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_test_writer()
                .try_init();
        }
        let network = SimNetwork::new(1, Conditions::CALM, Trace::new(Lines::Dropped));
        tokio::spawn(network.clone().run());
        Cluster {
            network,
            time: TrueTime::start(),
            disks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            starts: 0,
        }
    }

    /// Starts a node: the first founds a cluster, the others join it.
    pub async fn start(&mut self, number: u8) -> Arc<Node> {
        let starting = self.starting(number);
        let node = starting.await;
        self.nodes.insert(number, Arc::clone(&node));
        node
    }

    fn starting(&mut self, number: u8) -> impl Future<Output = Arc<Node>> + use<> {
        self.starts += 1;
        let disk = self
            .disks
            .entry(number)
            .or_insert_with(|| SimDisk::new(u64::from(number)));
        let (log, stores) = disk.open();
        let world = World {
            clock: Arc::new(SimClock::new(self.time, 1_000)),
            network: self.network.attach(address(number)),
            log,
            stores,
            random: Arc::new(SimRandom::new(self.starts)),
        };
        let config = Config {
            join: if number == 1 {
                Vec::new()
            } else {
                vec![address(1)]
            },
            client_address: address(number).ip(),
            rack: format!("rack{number}"),
            ..Config::default()
        };
        async move { Node::start(world, config).await.expect("the node starts") }
    }

    /// Starts several at once: none of them alone may be able to.
    pub async fn start_together(&mut self, numbers: &[u8]) {
        let starting: Vec<_> = numbers
            .iter()
            .map(|number| tokio::spawn(self.starting(*number)))
            .collect();
        for (number, starting) in numbers.iter().zip(starting) {
            let node = starting.await.expect("the start does not panic");
            self.nodes.insert(*number, node);
        }
    }

    pub fn crash(&mut self, number: u8) {
        let node = self.nodes.remove(&number).expect("the node runs");
        node.crash();
        self.network.detach(address(number));
        self.disks[&number].crash();
    }

    /// Its disk fails at the next sync.
    pub fn fail_disk(&self, number: u8) {
        self.disks[&number].set_failing(true);
    }

    pub async fn stop(&mut self, number: u8) {
        let node = self.nodes.remove(&number).expect("the node runs");
        node.shutdown().await;
        self.network.detach(address(number));
        self.disks[&number].sync();
    }

    pub fn database(&self, number: u8) -> Arc<dyn Database> {
        self.nodes[&number].database()
    }

    /// Three nodes, with everything at three replicas.
    pub async fn of_three() -> Cluster {
        let mut cluster = Cluster::new();
        for number in 1..=3 {
            cluster.start(number).await;
        }
        cluster.settle(3).await;
        cluster
    }

    /// Waits until every tablet has so many voters and nothing is under way.
    pub async fn settle(&self, voters: usize) {
        let began = Instant::now();
        loop {
            let is_settled = self.nodes.values().all(|node| {
                let status = node.status();
                status.tablets.iter().all(|tablet| {
                    tablet.replicas.len() == voters
                        && tablet.replicas.iter().all(|replica| !replica.is_learner)
                })
            });
            if is_settled {
                return;
            }
            if began.elapsed() > Duration::from_secs(60) {
                let number = self.nodes.keys().next().expect("a node runs");
                panic!("not settled: {:#?}", self.nodes[number].status());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

pub fn replication(protocol: Protocol) -> Replication {
    Replication {
        protocol,
        factor_by_data_center: BTreeMap::new(),
        factor: 0,
        durability: Durability::Synced,
        ordering: Ordering::Conflict,
    }
}

/// Makes namespace `n`, if it is not there, and a table of (id, note) in it.
pub async fn create_table(
    database: &dyn Database,
    name: &str,
    protocol: Protocol,
    partitioning: Partitioning,
) -> TableId {
    let catalog = database.catalog();
    if !catalog.namespaces.contains_key("n") {
        let change = Change::CreateNamespace {
            name: "n".into(),
            replication: replication(Protocol::Eventual),
            properties: BTreeMap::new(),
        };
        database
            .change_catalog(change)
            .await
            .expect("a namespace is made");
    }
    let column = |name: &str, role| Column {
        id: ColumnId(0),
        name: name.into(),
        kind: Type::Text { length_max: None },
        role,
        descending: false,
        not_null: false,
        options: BTreeMap::new(),
    };
    let role = match partitioning {
        Partitioning::Hash => ColumnRole::Partition,
        Partitioning::Range => ColumnRole::Clustering,
    };
    let change = Change::CreateTable {
        spec: TableSpec {
            namespace: "n".into(),
            name: name.into(),
            partitioning,
            replication: replication(protocol),
            columns: vec![column("id", role), column("note", ColumnRole::Regular)],
            parent: None,
            cascade: false,
            gc_grace_seconds: 864_000,
            default_ttl_seconds: 0,
            properties: BTreeMap::new(),
        },
        uuid: [7; 16],
    };
    let catalog = database
        .change_catalog(change)
        .await
        .expect("a table is made");
    catalog
        .table_by_name("n", name)
        .expect("the table is there")
        .id
}

pub fn key(database: &dyn Database, table: TableId, id: &str) -> Vec<u8> {
    let catalog = database.catalog();
    let table = catalog.table(table).expect("the table is there");
    table
        .row_key(&[Value::Text(id.into())])
        .expect("a text is a key")
}

pub fn note(database: &dyn Database, table: TableId, id: &str, note: &str) -> Mutation {
    let catalog = database.catalog();
    let column = catalog
        .table(table)
        .and_then(|table| table.column_by_name("note"))
        .expect("the column is there")
        .id;
    let operation = RowOperation::Merge {
        marker: true,
        assignments: vec![Assignment::Set {
            column,
            path: None,
            value: Value::Text(note.into()),
        }],
        ttl_seconds: None,
    };
    Mutation::new(table, key(database, table, id), operation)
}

pub async fn put(
    database: &dyn Database,
    table: TableId,
    id: &str,
    text: &str,
) -> Result<(), Error> {
    let request = WriteRequest {
        level: Level::Quorum,
        ..WriteRequest::new(vec![note(database, table, id, text)])
    };
    database.write(request).await.map(|_| ())
}

/// Many rows, each by itself.
pub async fn put_all(
    database: &dyn Database,
    table: TableId,
    ids: impl Iterator<Item = u32>,
    text: &str,
) -> Result<(), Error> {
    let mutations = ids.map(|id| note(database, table, &id.to_string(), text));
    let request = WriteRequest {
        level: Level::Quorum,
        atomicity: Atomicity::Each,
        ..WriteRequest::new(mutations.collect())
    };
    database.write(request).await.map(|_| ())
}

pub async fn get_at(
    database: &dyn Database,
    table: TableId,
    id: &str,
    bound: ReadBound,
) -> Result<Option<String>, Error> {
    let request = ReadRequest {
        bound,
        ..ReadRequest::new(table, Selection::Keys(vec![key(database, table, id)]))
    };
    let response = database.read(request).await?;
    let catalog = database.catalog();
    let column = catalog
        .table(table)
        .and_then(|table| table.column_by_name("note"))
        .expect("the column is there")
        .id;
    Ok(response
        .rows
        .first()
        .and_then(|row| match row.row.value(column) {
            Some(Value::Text(text)) => Some(text.to_string()),
            _ => None,
        }))
}

pub async fn get(
    database: &dyn Database,
    table: TableId,
    id: &str,
) -> Result<Option<String>, Error> {
    get_at(database, table, id, ReadBound::Strong).await
}

/// All rows of a table, page by page.
pub async fn count(database: &dyn Database, table: TableId, row_limit: u32) -> usize {
    let mut selection = Selection::Ranges(vec![api::KeyRange::all()]);
    let mut rows = 0;
    loop {
        let request = ReadRequest {
            row_limit: Some(row_limit),
            ..ReadRequest::new(table, selection)
        };
        let response = database.read(request).await.expect("a page is read");
        assert!(response.rows.len() <= row_limit as usize);
        rows += response.rows.len();
        match response.next {
            Some(next) => selection = next,
            None => return rows,
        }
    }
}
