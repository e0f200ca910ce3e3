//! What the clients of all workloads have in common: a table, a way to a node, and patience.

use super::Counts;
use crate::cluster::{Cluster, Door, HEAL_PATIENCE};
use crate::nemesis::{self, Strikes};
use crate::plan::{Plan, centre_name};
use api::{
    Error, Outcome, ReadBound, ReadRequest, ReadResponse, ReadRow, WriteRequest, WriteResponse,
};
use catalog::{
    Change, Column, ColumnRole, Durability, Ordering, Partitioning, Protocol, Replication, Table,
    TableSpec,
};
use model::{ColumnId, Timestamp, Type, Value};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

pub(crate) const NAMESPACE: &str = "sim";
/// A client's patience with one operation.
pub(super) const PATIENCE_MS: u32 = 3_000;
/// The client that acts after the heal.
pub(super) const FINAL_CLIENT: u64 = 999;

/// A table of registers: `k bigint` → `v bigint`, hash-partitioned.
pub(super) struct Registers {
    pub table: Arc<Table>,
    pub value: ColumnId,
    /// So many follow each other in one partition; alone in theirs they have no clustering column.
    pub per_partition: u64,
}

impl Registers {
    pub fn key(&self, number: u64) -> Vec<u8> {
        let of = |number: u64| Value::Int(number as i64);
        let key = match self.per_partition {
            1 => self.table.row_key(&[of(number)]),
            several => self.table.row_key(&[of(number / several), of(number)]),
        };
        key.expect("bigints are the table's key")
    }

    /// The value that a row holds, if it is there.
    pub fn value_of(&self, row: Option<&model::Row>) -> Option<u64> {
        match row?.value(self.value) {
            Some(Value::Int(value)) => Some(*value as u64),
            _ => None,
        }
    }

    /// Values by key number, for the keys below `keys`.
    pub fn values(&self, rows: &[ReadRow], keys: u64) -> BTreeMap<u64, Option<u64>> {
        (0..keys)
            .map(|number| {
                let key = self.key(number);
                let row = rows.iter().find(|read| read.key == key);
                (number, self.value_of(row.map(|read| &read.row)))
            })
            .collect()
    }
}

/// Columns of a table by name.
pub(super) struct Shape<'a> {
    pub name: &'a str,
    pub partitioning: Partitioning,
    /// So many of the columns, the first ones, are the key.
    pub keys: usize,
    pub columns: &'a [(&'a str, Type)],
}

/// The replication of the workloads' tables, with so many copies in each data centre.
pub(crate) fn replication(protocol: Protocol, plan: &Plan, factors: &[u32]) -> Replication {
    let factors = factors.iter().enumerate();
    Replication {
        protocol,
        factor_by_data_center: factors
            .map(|(centre, factor)| (centre_name(centre), *factor))
            .collect(),
        factor: 0,
        durability: Durability::Synced,
        ordering: if plan.is_external {
            Ordering::External
        } else {
            Ordering::Conflict
        },
    }
}

pub(super) fn spec(shape: &Shape<'_>, protocol: Protocol, plan: &Plan) -> (Replication, TableSpec) {
    let replication = replication(protocol, plan, &plan.factors);
    let role = |index| match (index, shape.partitioning) {
        (0, Partitioning::Hash) => ColumnRole::Partition,
        (index, _) if index < shape.keys => ColumnRole::Clustering,
        _ => ColumnRole::Regular,
    };
    let columns = shape.columns.iter().enumerate();
    let columns = columns.map(|(index, (name, kind))| Column {
        id: ColumnId(0),
        name: (*name).into(),
        kind: kind.clone(),
        role: role(index),
        descending: false,
        not_null: false,
        options: BTreeMap::new(),
    });
    let spec = TableSpec {
        namespace: NAMESPACE.into(),
        name: shape.name.into(),
        partitioning: shape.partitioning,
        replication: replication.clone(),
        columns: columns.collect(),
        parent: None,
        cascade: false,
        gc_grace_seconds: plan.gc_grace_seconds,
        default_ttl_seconds: 0,
        properties: BTreeMap::new(),
    };
    (replication, spec)
}

/// Creates a table through one node and waits until all have it.
pub(super) async fn create_table(
    cluster: &Cluster,
    protocol: Protocol,
    plan: &Plan,
    shape: Shape<'_>,
) -> Result<Arc<Table>, String> {
    let (replication, spec) = spec(&shape, protocol, plan);
    let change = Change::All(vec![
        Change::CreateNamespace {
            name: NAMESPACE.into(),
            replication,
            properties: BTreeMap::new(),
        },
        Change::CreateTable {
            spec,
            uuid: [7; 16],
        },
    ]);
    if plan.split_size_bytes > 0 {
        cluster
            .set("split_size_bytes", plan.split_size_bytes)
            .await?;
    }
    if plan.rebuild_after_seconds > 0 {
        cluster
            .set("rebuild_after_seconds", plan.rebuild_after_seconds)
            .await?;
    }
    let door = cluster.door(0).ok_or("node 1 is not up")?;
    timeout(HEAL_PATIENCE, door.database.change_catalog(change))
        .await
        .map_err(|_| "the table was not created in time".to_string())?
        .map_err(|error| format!("the table was not created: {error}"))?;
    let find = |index: usize| {
        let door = cluster.door(index)?;
        let catalog = door.database.catalog();
        catalog.table_by_name(NAMESPACE, shape.name).cloned()
    };
    cluster
        .wait("the table to be everywhere", || {
            (0..cluster.size()).all(|index| !cluster.is_up(index) || find(index).is_some())
        })
        .await?;
    find(0).ok_or_else(|| "node 1 has no table".into())
}

/// A column of a table that has it.
pub(super) fn column(table: &Table, name: &str) -> Result<ColumnId, String> {
    match table.column_by_name(name) {
        Some(column) => Ok(column.id),
        None => Err(format!("the table has no column {name}")),
    }
}

/// Creates the table of registers.
pub(super) async fn create(
    cluster: &Cluster,
    protocol: Protocol,
    plan: &Plan,
) -> Result<Arc<Registers>, String> {
    let shape = Shape {
        name: "registers",
        partitioning: Partitioning::Hash,
        keys: 1,
        columns: &[("k", Type::BigInt), ("v", Type::BigInt)],
    };
    let table = create_table(cluster, protocol, plan, shape).await?;
    let value = column(&table, "v")?;
    Ok(Arc::new(Registers {
        table,
        value,
        per_partition: 1,
    }))
}

/// Creates an eventual table of registers of which several are in one partition.
pub(super) async fn create_shared(
    cluster: &Cluster,
    plan: &Plan,
    per_partition: u64,
) -> Result<Arc<Registers>, String> {
    let shape = Shape {
        name: "registers",
        partitioning: Partitioning::Hash,
        keys: 2,
        columns: &[
            ("p", Type::BigInt),
            ("k", Type::BigInt),
            ("v", Type::BigInt),
        ],
    };
    let table = create_table(cluster, Protocol::Eventual, plan, shape).await?;
    let value = column(&table, "v")?;
    Ok(Arc::new(Registers {
        table,
        value,
        per_partition,
    }))
}

/// How an operation ended, as its client knows.
pub(super) enum Ending<T> {
    Answer(T),
    Error(Error),
    /// No answer: the node has crashed or is too slow.
    Silence,
}

/// Awaits an answer of a node that may crash meanwhile.
async fn await_answer<T>(
    cluster: &Cluster,
    door: Door,
    operation: impl Future<Output = Result<T, Error>>,
) -> Ending<T> {
    let patience = Duration::from_millis(u64::from(PATIENCE_MS) + 500);
    await_within(cluster, door, patience, operation).await
}

/// The same, of a client with a patience of its own.
pub(super) async fn await_within<T>(
    cluster: &Cluster,
    mut door: Door,
    patience: Duration,
    operation: impl Future<Output = Result<T, Error>>,
) -> Ending<T> {
    let node = door.node;
    // Who stands still takes nothing and answers nothing.
    let operation = async {
        cluster.resumed(node).await;
        let outcome = operation.await;
        cluster.resumed(node).await;
        outcome
    };
    let ending = tokio::select! {
        biased;
        outcome = timeout(patience, operation) => match outcome {
            Ok(Ok(answer)) => Ending::Answer(answer),
            Ok(Err(error)) => Ending::Error(error),
            Err(_) => Ending::Silence,
        },
        _ = door.gone.changed() => Ending::Silence,
    };
    if let Ending::Error(error @ Error::Broken(_)) = &ending {
        cluster.complain(format!("node {} says: {error}", node + 1));
    }
    ending
}

pub(super) async fn read(
    cluster: &Cluster,
    door: Door,
    request: ReadRequest,
) -> Ending<ReadResponse> {
    let database = door.database.clone();
    await_answer(cluster, door, async move { database.read(request).await }).await
}

/// Reads a selection to its end, page by page.
pub(super) async fn read_all(
    cluster: &Cluster,
    door: Door,
    mut request: ReadRequest,
) -> Ending<Vec<ReadRow>> {
    let database = door.database.clone();
    let reading = async move {
        let mut rows = Vec::new();
        loop {
            let response = database.read(request.clone()).await?;
            rows.extend(response.rows);
            match response.next {
                Some(next) => request.selection = next,
                None => return Ok(rows),
            }
        }
    };
    await_answer(cluster, door, reading).await
}

/// What the pages of a read after the first are read at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// The timestamp of the first: all of it is one snapshot.
    AtOneTime,
    /// As the first was asked for: each is a read by itself.
    EachByItself,
}

/// Reads a selection to its end, page by page; with the timestamp of the first page.
pub(super) async fn read_snapshot(
    cluster: &Cluster,
    door: Door,
    mut request: ReadRequest,
    pages: Pages,
) -> Ending<(Vec<ReadRow>, Option<Timestamp>)> {
    let database = door.database.clone();
    let reading = async move {
        let mut rows = Vec::new();
        let mut first = None;
        loop {
            let response = database.read(request.clone()).await?;
            rows.extend(response.rows);
            let at = *first.get_or_insert(response.timestamp);
            let Some(next) = response.next else {
                return Ok((rows, at));
            };
            request.selection = next;
            if let (Some(at), Pages::AtOneTime) = (at, pages) {
                request.bound = ReadBound::At(at);
            }
        }
    };
    await_answer(cluster, door, reading).await
}

pub(super) async fn write(
    cluster: &Cluster,
    door: Door,
    request: WriteRequest,
) -> Ending<WriteResponse> {
    let database = door.database.clone();
    await_answer(cluster, door, async move { database.write(request).await }).await
}

impl<T> Ending<T> {
    pub fn map<U>(self, to: impl FnOnce(T) -> U) -> Ending<U> {
        match self {
            Ending::Answer(answer) => Ending::Answer(to(answer)),
            Ending::Error(error) => Ending::Error(error),
            Ending::Silence => Ending::Silence,
        }
    }

    /// Counts it, and tells whether what was asked may have happened.
    pub fn may_have_happened(&self, counts: &Mutex<Counts>) -> bool {
        let mut counts = counts.lock();
        match self {
            Ending::Answer(_) => counts.succeeded += 1,
            Ending::Error(error) if error.outcome() == Outcome::NotApplied => {
                counts.refused += 1;
                return false;
            }
            Ending::Error(_) | Ending::Silence => counts.unknown += 1,
        }
        true
    }
}

impl<T> std::fmt::Display for Ending<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Answer(_) => formatter.write_str("ok"),
            Ending::Error(error) => write!(formatter, "{:?}: {error}", error.outcome()),
            Ending::Silence => formatter.write_str("silence"),
        }
    }
}

/// A client's next step: given who it is, does one operation through the door.
pub(super) type Step =
    Arc<dyn Fn(Door, u64, SmallRng) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Lets clients and nemesis loose for as long as the plan says; returns when all have ended and the faults too.
pub(super) async fn unleash(cluster: &Cluster, plan: &Plan, step: Step) -> Result<Strikes, String> {
    let until = Instant::now() + Duration::from_secs(plan.fault_seconds);
    let mut clients = Vec::new();
    for client in 0..plan.clients {
        let (cluster, plan, step) = (cluster.clone(), plan.clone(), step.clone());
        let mut random = cluster.draw_random();
        clients.push(tokio::spawn(async move {
            while Instant::now() < until {
                sleep(Duration::from_millis(
                    random.random_range(0..=plan.think_ms),
                ))
                .await;
                let node = random.random_range(0..cluster.size());
                let its_own = {
                    use rand::SeedableRng;
                    SmallRng::seed_from_u64(random.random())
                };
                if let Some(door) = cluster.door(node) {
                    step(door, client, its_own).await;
                }
            }
        }));
    }
    let random = cluster.draw_random();
    let nemesis = tokio::spawn(nemesis::run(cluster.clone(), plan.clone(), random, until));
    for client in clients {
        client
            .await
            .map_err(|error| format!("a client failed: {error}"))?;
    }
    let strikes = nemesis
        .await
        .map_err(|error| format!("the nemesis failed: {error}"))?;
    cluster
        .wait("all nodes to be back after the heal", || cluster.is_whole())
        .await?;
    Ok(strikes)
}

/// Repeats an operation through one node until it succeeds: after the heal it must, within the bound.
pub(super) async fn insist<T, F>(
    cluster: &Cluster,
    node: usize,
    what: &str,
    operation: impl Fn(Door) -> F,
) -> Result<T, String>
where
    F: Future<Output = Ending<T>>,
{
    let deadline = Instant::now() + HEAL_PATIENCE;
    loop {
        let ending = match cluster.door(node) {
            Some(door) => operation(door).await,
            None => Ending::Silence,
        };
        match ending {
            Ending::Answer(answer) => return Ok(answer),
            failed if Instant::now() >= deadline => {
                return Err(format!(
                    "{} s after all faults have ended, {what} through node {} still fails: {failed}",
                    HEAL_PATIENCE.as_secs(),
                    node + 1,
                ));
            }
            _ => sleep(Duration::from_millis(200)).await,
        }
    }
}
