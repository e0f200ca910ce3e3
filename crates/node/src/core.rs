//! What the parts of a node share. No part owns another: each is a module of functions over the core.

use crate::clock::NodeClock;
use crate::config::Config;
use crate::follow::Pulls;
use crate::identity::Records;
use crate::leases::Led;
use crate::liveness::Input;
use crate::metrics::Metrics;
use crate::repair::Repairs;
use crate::replicas::Replicas;
use crate::rpc::{CallError, Failure, Reply, Request, Rpc};
use crate::tasks::Tasks;
use crate::transactions::Transactions;
use crate::view::{View, Views};
use api::DoorPeer;
use api::trace::{Traces, event};
use cluster::NodeProfile;
use consensus::Groups;
use model::{Incarnation, Interval, NodeId, RequestId, TabletId};
use parking_lot::{Mutex, RwLock};
use quorum::{Batchlog, EventualReplica, Hints, ReplicaError, Speeds};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep};
use world::{Clock, ClockError, World};

/// Leaseholders remembered for routing.
const HINTS_MAX: usize = 100_000;
/// Transactions of which it is looked for at one time how they have ended.
const FATES_AT_ONCE: usize = 32;
/// How often a clock that has no reading is looked at again.
const CLOCK_PAUSE: Duration = Duration::from_millis(5);

pub(crate) struct Core {
    /// Its clock is the node's own: `clock`.
    pub world: World,
    pub clock: Arc<NodeClock>,
    pub config: Config,
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub profile: NodeProfile,
    pub records: Records,
    pub rpc: Arc<Rpc>,
    pub views: Arc<Views>,
    pub tasks: Arc<Tasks>,
    pub groups: Groups,
    pub replicas: Replicas,
    pub metrics: Metrics,
    /// What replicas elsewhere have missed of this node's writes.
    pub missed: Arc<Hints>,
    /// How fast they answer its reads.
    pub speeds: Arc<Speeds>,
    /// What batches that other nodes coordinate are going to write.
    pub batches: Arc<Batchlog>,
    /// Of requests that asked to be traced, and came in here.
    pub traces: Traces,
    /// Repairs that operators have asked for here.
    pub repairs: Repairs,
    /// The transactions that are open here.
    pub transactions: Transactions,
    /// For those that look for how a transaction has ended.
    pub fates: Semaphore,
    /// This node's doors that answer those of other nodes, by name.
    pub doors: Mutex<BTreeMap<&'static str, Weak<dyn DoorPeer>>>,
    /// For the gossip task.
    pub gossip: mpsc::Sender<Input>,
    /// Whether this node leads the meta group.
    pub leads_meta: watch::Sender<bool>,
    /// What other nodes lead.
    pub led: Led,
    /// The meta group's leader, as last heard.
    pub meta_leader: Mutex<Option<NodeId>>,
    /// Who held a tablet's lease when last heard.
    hints: RwLock<BTreeMap<TabletId, NodeId>>,
    next_request: AtomicU64,
    /// The meta group knows of this start, and the state here is as new.
    pub is_registered: world::watch::Sender<bool>,
    is_serving: AtomicBool,
    is_stopping: AtomicBool,
    pub pulls: Pulls,
    /// What an operator should look at, by topic.
    complaints: Mutex<BTreeMap<String, String>>,
}

/// What a core is made from, beside its own fresh parts.
pub(crate) struct Parts {
    pub world: World,
    pub clock: Arc<NodeClock>,
    pub config: Config,
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub profile: NodeProfile,
    pub rpc: Arc<Rpc>,
    pub views: Arc<Views>,
    pub tasks: Arc<Tasks>,
    pub groups: Groups,
    pub gossip: mpsc::Sender<Input>,
    pub leads_meta: watch::Sender<bool>,
}

impl Core {
    /// This node's replica of an eventual tablet. One that the map shows here may be about to be opened.
    pub fn replica_of(&self, tablet: TabletId) -> Result<Arc<EventualReplica>, ReplicaError> {
        if let Some(replica) = self.replicas.eventual(tablet) {
            return Ok(replica);
        }
        let view = self.view();
        let place = view.state.tablet(tablet);
        match place.and_then(|place| place.replica_on(self.node)) {
            Some(_) => Err(ReplicaError::NotYet(tablet)),
            None => Err(ReplicaError::NoReplica(tablet)),
        }
    }

    pub fn new(parts: Parts) -> Core {
        let (log, limits) = (Arc::clone(&parts.world.log), parts.config.hints.clone());
        Core {
            batches: Arc::new(Batchlog::open(Arc::clone(&log))),
            missed: Arc::new(Hints::open(log, limits)),
            speeds: Arc::default(),
            repairs: Repairs::default(),
            records: Records::new(Arc::clone(&parts.world.log)),
            world: parts.world,
            clock: parts.clock,
            config: parts.config,
            node: parts.node,
            incarnation: parts.incarnation,
            profile: parts.profile,
            rpc: parts.rpc,
            views: parts.views,
            tasks: parts.tasks,
            groups: parts.groups,
            replicas: Replicas::new(),
            metrics: Metrics::default(),
            traces: Traces::default(),
            transactions: Transactions::default(),
            fates: Semaphore::new(FATES_AT_ONCE),
            doors: Mutex::default(),
            gossip: parts.gossip,
            leads_meta: parts.leads_meta,
            led: Led::default(),
            meta_leader: Mutex::new(None),
            hints: RwLock::default(),
            next_request: AtomicU64::new(1),
            is_registered: world::watch::Sender::new(false),
            is_serving: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            pulls: Pulls::default(),
            complaints: Mutex::default(),
        }
    }

    pub fn view(&self) -> Arc<View> {
        self.views.current()
    }

    /// Unique within this incarnation.
    pub fn next_request(&self) -> RequestId {
        RequestId(self.next_request.fetch_add(1, Ordering::Relaxed))
    }

    pub fn is_serving(&self) -> bool {
        self.is_serving.load(Ordering::Relaxed) && !self.is_stopping()
    }

    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    pub fn set_serving(&self) {
        self.is_serving.store(true, Ordering::Relaxed);
    }

    pub fn set_stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Stops everything where it is.
    pub fn stop(&self) {
        self.set_stopping();
        self.rpc.stop();
        self.tasks.stop();
    }

    pub fn hint(&self, tablet: TabletId) -> Option<NodeId> {
        self.hints.read().get(&tablet).copied()
    }

    pub fn set_hint(&self, tablet: TabletId, node: Option<NodeId>) {
        if self.hint(tablet) == node {
            return;
        }
        let mut hints = self.hints.write();
        match node {
            Some(node) => {
                if hints.len() >= HINTS_MAX {
                    hints.clear();
                }
                hints.insert(tablet, node);
            }
            None => {
                hints.remove(&tablet);
            }
        }
    }

    /// Sets, or takes back, what an operator should know about a topic.
    pub fn complain(&self, topic: &str, complaint: Option<String>) {
        let mut complaints = self.complaints.lock();
        match complaint {
            Some(complaint) => {
                if complaints.get(topic) != Some(&complaint) {
                    tracing::warn!(topic, complaint, "needs attention");
                    complaints.insert(topic.to_owned(), complaint);
                }
            }
            None => {
                complaints.remove(topic);
            }
        }
    }

    pub fn complaint(&self) -> Option<String> {
        let complaints = self.complaints.lock();
        let first = complaints.iter().next();
        first.map(|(topic, complaint)| match complaints.len() {
            1 => format!("{topic}: {complaint}"),
            count => format!("{topic}: {complaint} (and {} more)", count - 1),
        })
    }

    /// Sends a request to a node and awaits its answer.
    pub async fn call(
        &self,
        to: NodeId,
        request: Request,
        patience: Duration,
    ) -> Result<Reply, CallFailure> {
        let address = self.view().address(to);
        let address = address.ok_or(CallFailure::NoAddress(to))?;
        let name = request.shown_name();
        if let Some(name) = name {
            event(self.node, || format!("Sending {name} to {to}"));
        }
        match self.rpc.call(address, request, patience).await? {
            Reply::Failed(failure) => Err(CallFailure::Failed(failure)),
            reply => {
                if let Some(name) = name {
                    event(to, || format!("{name}: answered"));
                }
                Ok(reply)
            }
        }
    }

    /// The clock's reading; where it cannot bound its error, an interval that ends late enough, for what needs no
    /// more.
    pub fn now(&self) -> Interval {
        self.clock.now_or_later()
    }

    /// The clock's reading, waited for where it has none for the moment.
    pub async fn now_within(&self, deadline: Instant) -> Result<Interval, api::Error> {
        loop {
            match self.clock.now() {
                Ok(now) => return Ok(now),
                Err(ClockError::Unbounded(_)) if Instant::now() < deadline => {
                    sleep(CLOCK_PAUSE).await;
                }
                Err(error) => {
                    return Err(api::Error::Retry(api::Retry::NotServing(error.to_string())));
                }
            }
        }
    }
}

/// Why a node gave no answer that says something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallFailure {
    #[error("{0} has no known address")]
    NoAddress(NodeId),
    #[error(transparent)]
    Call(#[from] CallError),
    /// The node did nothing.
    #[error(transparent)]
    Failed(Failure),
}

impl CallFailure {
    /// Whether the request was certainly not carried out.
    pub fn is_harmless(&self) -> bool {
        !matches!(
            self,
            CallFailure::Call(CallError::Timeout | CallError::Stopped)
        )
    }
}
