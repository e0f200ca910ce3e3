//! The gateway: `api::Database` as every node offers it. It routes each request to the tablets that it concerns,
//! strong ones through their leaseholders, eventual ones through the quorum coordinator, and puts the answers
//! together.

mod change;
mod commit;
mod fate;
mod peers;
mod read;
mod strong;
mod write;

use crate::core::Core;
use crate::rpc::{Reply, Request};
use api::trace::{Recorder, Trace, event};
use api::{
    Buffered, Concurrency, Copies, Database, DoorPeer, Error, Fate, Outcome, Patience, ReadRequest,
    ReadResponse, Refused, Retry, Topology, Transaction, TransactionId, TransactionOptions,
    WriteRequest, WriteResponse,
};
use async_trait::async_trait;
use catalog::{Catalog, Change, Table};
use cluster::Tablet;
use model::{Interval, NodeId, TableId, TabletId, Timestamp};
use quorum::Coordinator;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use txn::{Step, Stepped};

/// Who is told that a transaction lives, or has ended, is told for so long: it finds out by itself too.
const NOTICE_PATIENCE: Duration = Duration::from_secs(2);

/// A node that says what it has traced does so within this.
const TRACES_PATIENCE: Duration = Duration::from_secs(1);

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

/// A step at a tablet for the node's own purposes; `None` when it was not carried out.
pub(crate) async fn step_at(
    core: &Core,
    tablet: &Tablet,
    step: Step,
    deadline: Instant,
) -> Option<Stepped> {
    let schema = core.views.catalog().version;
    strong::step(core, tablet, schema, step, deadline)
        .await
        .ok()
}

/// Tells tablets, as tasks, that a transaction has ended: by a commit, or for nothing.
pub(crate) fn send_release(
    core: &Arc<Core>,
    transaction: TransactionId,
    tablets: BTreeSet<TabletId>,
    committed_at: Option<Timestamp>,
) {
    let step = Step::Release {
        transaction,
        committed_at,
    };
    send_notice(core, tablets, step);
}

/// As `send_release`, by the outcome of a commit. Where that is not known nothing is sent: what was read must stand
/// for as long as the commit may still come, and the tablets see to that.
fn send_outcome(
    core: &Arc<Core>,
    transaction: TransactionId,
    tablets: BTreeSet<TabletId>,
    outcome: &Result<WriteResponse, Error>,
) {
    match outcome {
        Ok(response) => send_release(core, transaction, tablets, response.commit_timestamp),
        Err(error) if error.outcome() == Outcome::Unknown => {}
        Err(_) => send_release(core, transaction, tablets, None),
    }
}

/// Tells tablets, as tasks, that a transaction is alive.
pub(crate) fn send_touch(core: &Arc<Core>, id: TransactionId, tablets: BTreeSet<TabletId>) {
    send_notice(core, tablets, Step::Touch(id));
}

fn send_notice(core: &Arc<Core>, tablets: BTreeSet<TabletId>, step: Step) {
    let view = core.view();
    let known = tablets.iter().filter_map(|id| view.state.tablet(*id));
    for tablet in known {
        let tablet = Arc::clone(tablet);
        let (core_there, step) = (Arc::clone(core), step.clone());
        core.tasks.spawn(async move {
            let deadline = Instant::now() + NOTICE_PATIENCE;
            step_at(&core_there, &tablet, step, deadline).await;
        });
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
        if let Some(locking) = request.locking {
            self.core.transactions.hear(locking.transaction)?;
        }
        let began = Instant::now();
        event(self.core.node, || {
            format!("Reading table {}", request.table)
        });
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
        let outcome = match request.transaction {
            Some(transaction) => {
                self.core.transactions.hear(transaction)?;
                let mut locked = self.core.transactions.end(transaction);
                let outcome = self.write_any(request, &mut locked).await;
                send_outcome(&self.core, transaction, locked, &outcome);
                outcome
            }
            None => self.write_any(request, &mut BTreeSet::new()).await,
        };
        self.core.metrics.writes.observe(&outcome, began.elapsed());
        outcome
    }

    async fn begin(&self, options: TransactionOptions) -> Result<Box<dyn Transaction>, Error> {
        self.check_serving()?;
        let this = self.this.upgrade();
        let database: Arc<dyn Database> =
            this.ok_or_else(|| Error::Retry(Retry::NotServing("this node has stopped".into())))?;
        let start = options.first_attempt.unwrap_or(self.core.now().latest);
        let id = strong::transaction(&self.core, start);
        // One that locks nothing is open nowhere but at its client's door.
        if options.concurrency == Concurrency::Locks {
            self.core.transactions.begin(id)?;
        }
        Ok(Box::new(Buffered::new(database, id, &options)))
    }

    async fn fate(&self, transaction: TransactionId, namespace: &str) -> Fate {
        fate::fate(&self.core, transaction, namespace).await
    }

    fn release(&self, transaction: TransactionId) {
        let tablets = self.core.transactions.end(transaction);
        send_release(&self.core, transaction, tablets, None);
    }

    fn keep_trace(&self, trace: Trace, recorder: Recorder) {
        self.core.traces.keep(trace, recorder);
    }

    async fn traces(&self) -> Vec<Trace> {
        let mut traces = self.core.traces.all();
        let topology = self.core.views.topology();
        let others = topology.nodes.iter();
        let others = others.filter(|node| node.is_alive && node.id != self.core.node);
        let asking = others.map(|node| self.core.call(node.id, Request::Traces, TRACES_PATIENCE));
        for reply in futures::future::join_all(asking).await {
            if let Ok(Reply::Traces(kept)) = reply {
                traces.extend(kept);
            }
        }
        traces.sort_by_key(|trace| (trace.started_at, trace.id));
        traces
    }

    fn now(&self) -> Interval {
        self.core.now()
    }

    fn setting(&self, name: &str) -> Option<u64> {
        self.core.view().state.setting(name)
    }

    fn copies(&self, root: TableId) -> BTreeMap<String, Copies> {
        self.core.view().state.copies_of(root)
    }

    fn topology(&self) -> Arc<Topology> {
        self.core.views.topology()
    }

    fn watch_topology(&self) -> watch::Receiver<Arc<Topology>> {
        self.core.views.watch_topology()
    }

    fn open_to_peers(&self, door: &'static str, peer: Weak<dyn DoorPeer>) {
        self.core.doors.lock().insert(door, peer);
    }

    async fn ask_peer(
        &self,
        node: NodeId,
        door: &'static str,
        question: Vec<u8>,
        patience: Patience,
    ) -> Result<Vec<u8>, Error> {
        peers::ask(&self.core, node, door, question, patience).await
    }
}
