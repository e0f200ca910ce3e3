//! What a coordinator and a replica see of the node that they run on. Crate `node` implements it over its
//! connections and its tablet map.

use crate::{BatchRequest, EventualReplica, ReplicaError, Reply, Request};
use async_trait::async_trait;
use cluster::Tablet;
use model::{NodeId, TableId, TabletId};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

/// A piece of work that outlives the request that began it.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs tasks as part of the node: when the node stops, they stop; after that, spawning does nothing.
pub trait Tasks: Send + Sync {
    fn spawn(&self, task: Task);
}

/// Why no answer came. Whether the request was carried out is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No answer within the patience.
    #[error("no answer in time")]
    Timeout,
    /// No connection, or the answer was not understood.
    #[error("unreachable: {0}")]
    Unreachable(String),
}

/// Another node that is alive, as seen from this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub node: NodeId,
    /// In this node's data centre.
    pub is_local: bool,
    pub rack: Arc<str>,
    /// In this node's data centre and rack.
    pub is_same_rack: bool,
}

#[async_trait]
pub trait Peers: Tasks + 'static {
    /// Sends to another node and awaits its answer, at most so long.
    async fn call(
        &self,
        node: NodeId,
        request: Request,
        patience_ms: u32,
    ) -> Result<Reply, CallError>;

    /// Has another node keep or forget a batch; returns when it has.
    async fn batch(
        &self,
        node: NodeId,
        request: BatchRequest,
        patience_ms: u32,
    ) -> Result<(), CallError>;

    /// The other nodes that are alive.
    fn neighbours(&self) -> Vec<Neighbour>;

    /// This node's own replica, for calls without encoding; else `NoReplica`, or `NotYet`.
    fn local(&self, tablet: TabletId) -> Result<Arc<EventualReplica>, ReplicaError>;

    fn this_node(&self) -> NodeId;

    fn is_alive(&self, node: NodeId) -> bool;

    /// Where a node is, for LOCAL levels.
    fn data_center(&self, node: NodeId) -> Arc<str>;

    /// Whether a node stands in this node's data centre and rack.
    fn is_same_rack(&self, node: NodeId) -> bool;

    /// Where clients reach a node.
    fn client_address(&self, node: NodeId) -> Option<IpAddr>;

    /// The tablet of a table group that holds the key; `None` while the map has none.
    fn tablet(&self, root: TableId, key: &[u8]) -> Option<Arc<Tablet>>;

    /// The tablet that holds the greatest keys below `end` (`None`: the table's end).
    fn tablet_before(&self, root: TableId, end: Option<&[u8]>) -> Option<Arc<Tablet>>;
}

impl<F> Tasks for F
where
    F: Fn(Task) + Send + Sync,
{
    fn spawn(&self, task: Task) {
        self(task);
    }
}

/// Spawns a future on a node's tasks. If it works for a traced request, that is told of it.
pub(crate) fn spawn(tasks: &dyn Tasks, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(Box::pin(api::trace::inherit(task)));
}
