//! A second table of the bank's, with a row for some transfers, that comes and goes: a transaction over a table that is
//! dropped meanwhile is done as a whole, or not at all.

use super::client::{Shape, column, spec};
use crate::cluster::Cluster;
use crate::plan::Plan;
use api::{Assignment, Mutation, RowOperation};
use catalog::{Change, Protocol, Table};
use model::{Type, Value};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// One change of the catalog is waited for so long.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Receipts {
    cluster: Cluster,
    plan: Plan,
    /// As it was created last, until it is known to be gone.
    table: Mutex<Option<Arc<Table>>>,
}

impl Receipts {
    pub fn new(cluster: &Cluster, plan: &Plan) -> Receipts {
        Receipts {
            cluster: cluster.clone(),
            plan: plan.clone(),
            table: Mutex::default(),
        }
    }

    /// A row for an entry of the ledger, while there is a table.
    pub fn row(&self, entry: i64) -> Option<Mutation> {
        let table = self.table.lock().clone()?;
        let key = table.row_key(&[Value::Int(entry)]).ok()?;
        let assignment = Assignment::Set {
            column: column(&table, "entry").ok()?,
            path: None,
            value: Value::Int(entry),
        };
        let assignments = vec![assignment];
        let operation = RowOperation::Insert { assignments };
        Some(Mutation::new(table.id, key, operation))
    }

    /// Nobody writes receipts any more.
    pub fn end(&self) {
        *self.table.lock() = None;
    }

    /// Creates the table and drops it, over and over. Never ends.
    pub async fn come_and_go(&self, mut random: SmallRng) {
        let mut number = 0;
        loop {
            sleep(Duration::from_millis(random.random_range(100..1_500))).await;
            let node = random.random_range(0..self.cluster.size());
            let known = self.table.lock().clone();
            match known {
                None => {
                    number += 1;
                    self.create(node, &format!("receipts{number}")).await;
                }
                Some(table) => self.drop(node, &table).await,
            }
        }
    }

    async fn create(&self, node: usize, name: &str) {
        let Some(door) = self.cluster.door(node) else {
            return;
        };
        let shape = Shape {
            name,
            partitioning: self.plan.partitioning,
            keys: 1,
            columns: &[("k", Type::BigInt), ("entry", Type::BigInt)],
        };
        let (_, spec) = spec(&shape, Protocol::Strong, &self.plan);
        let namespace = spec.namespace.clone();
        let change = Change::CreateTable {
            spec,
            uuid: [8; 16],
        };
        let created = timeout(PATIENCE, door.database.change_catalog(change)).await;
        self.cluster.note("receipts", node as u64, || {
            format!("{name} comes: {created:?}")
        });
        let catalog = door.database.catalog();
        *self.table.lock() = catalog.table_by_name(&namespace, name).cloned();
    }

    async fn drop(&self, node: usize, table: &Table) {
        let Some(door) = self.cluster.door(node) else {
            return;
        };
        let change = Change::DropTable { table: table.id };
        let dropped = timeout(PATIENCE, door.database.change_catalog(change)).await;
        self.cluster.note("receipts", node as u64, || {
            format!("{} goes: {dropped:?}", table.name())
        });
        if door.database.catalog().table(table.id).is_none() {
            *self.table.lock() = None;
        }
    }
}
