//! The gateway: `api::Database` as every node offers it. It routes each request to the tablets that it concerns,
//! strong ones through their leaseholders, eventual ones through the quorum coordinator, and puts the answers
//! together.

mod change;
mod read;
mod strong;
mod write;

use crate::core::Core;
use api::{
    Buffered, Database, Error, ReadRequest, ReadResponse, Refused, Retry, Topology, Transaction,
    TransactionOptions, WriteRequest, WriteResponse,
};
use async_trait::async_trait;
use catalog::{Catalog, Change, Table};
use model::{Interval, TableId};
use quorum::Coordinator;
use std::sync::{Arc, Weak};
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) struct Gateway {
    core: Arc<Core>,
    eventual: Coordinator,
    this: Weak<Gateway>,
}

impl Gateway {
    pub fn new(core: &Arc<Core>, eventual: Coordinator) -> Arc<Gateway> {
        Arc::new_cyclic(|this| Gateway {
            core: Arc::clone(core),
            eventual,
            this: this.clone(),
        })
    }

    fn check_serving(&self) -> Result<(), Error> {
        if self.core.is_serving() {
            return Ok(());
        }
        let why = if self.core.is_stopping() {
            "this node is stopping"
        } else {
            "this node is starting"
        };
        Err(Error::Retry(Retry::NotServing(why.into())))
    }
}

fn table_of(catalog: &Catalog, id: TableId) -> Result<&Arc<Table>, Error> {
    catalog
        .table(id)
        .ok_or_else(|| Error::Refused(Refused::NoTable(id.to_string())))
}

#[async_trait]
impl Database for Gateway {
    fn catalog(&self) -> Arc<Catalog> {
        self.core.views.catalog()
    }

    fn watch_catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.core.views.watch_catalog()
    }

    async fn change_catalog(&self, change: Change) -> Result<Arc<Catalog>, Error> {
        self.check_serving()?;
        let began = Instant::now();
        let outcome = change::change(&self.core, change).await;
        self.core.metrics.changes.observe(&outcome, began.elapsed());
        outcome
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadResponse, Error> {
        self.check_serving()?;
        let began = Instant::now();
        let catalog = self.core.views.catalog();
        let outcome = match table_of(&catalog, request.table) {
            Ok(table) if table.is_strong() => read::read(&self.core, table, request).await,
            Ok(table) => self.eventual.read(table, &request).await,
            Err(error) => Err(error),
        };
        self.core.metrics.reads.observe(&outcome, began.elapsed());
        outcome
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteResponse, Error> {
        self.check_serving()?;
        let began = Instant::now();
        let outcome = self.write_any(request).await;
        self.core.metrics.writes.observe(&outcome, began.elapsed());
        outcome
    }

    async fn begin(&self, options: TransactionOptions) -> Result<Box<dyn Transaction>, Error> {
        self.check_serving()?;
        let this = self.this.upgrade();
        let database: Arc<dyn Database> =
            this.ok_or_else(|| Error::Retry(Retry::NotServing("this node has stopped".into())))?;
        Ok(Box::new(Buffered::new(database, &options)))
    }

    fn now(&self) -> Interval {
        self.core.now()
    }

    fn topology(&self) -> Arc<Topology> {
        self.core.views.topology()
    }

    fn watch_topology(&self) -> watch::Receiver<Arc<Topology>> {
        self.core.views.watch_topology()
    }
}
