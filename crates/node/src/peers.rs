//! What the eventual path sees of the node.

use crate::core::{CallFailure, Core};
use crate::rpc::{Reply, Request};
use async_trait::async_trait;
use cluster::Tablet;
use model::{NodeId, TableId, TabletId};
use quorum::{
    BatchRequest, CallError, EventualReplica, Neighbour, Peers, ReplicaError, Task, Tasks,
};
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Weak, since the node holds its replicas and they hold this.
pub(crate) struct NodePeers {
    core: Weak<Core>,
    node: NodeId,
}

impl NodePeers {
    pub fn new(core: &Arc<Core>) -> NodePeers {
        NodePeers {
            core: Arc::downgrade(core),
            node: core.node,
        }
    }
}

impl Tasks for NodePeers {
    fn spawn(&self, task: Task) {
        if let Some(core) = self.core.upgrade() {
            core.tasks.spawn(task);
        }
    }
}

#[async_trait]
impl Peers for NodePeers {
    async fn call(
        &self,
        node: NodeId,
        request: quorum::Request,
        patience_ms: u32,
    ) -> Result<quorum::Reply, CallError> {
        let Some(core) = self.core.upgrade() else {
            return Err(CallError::Unreachable("this node has stopped".into()));
        };
        let patience = Duration::from_millis(u64::from(patience_ms));
        match core.call(node, Request::Quorum(request), patience).await {
            Ok(Reply::Quorum(reply)) => Ok(reply),
            Ok(_) => Err(CallError::Unreachable("the answer makes no sense".into())),
            Err(CallFailure::Call(crate::rpc::CallError::Timeout)) => Err(CallError::Timeout),
            Err(error) => Err(CallError::Unreachable(error.to_string())),
        }
    }

    async fn batch(
        &self,
        node: NodeId,
        request: BatchRequest,
        patience_ms: u32,
    ) -> Result<(), CallError> {
        let Some(core) = self.core.upgrade() else {
            return Err(CallError::Unreachable("this node has stopped".into()));
        };
        let patience = Duration::from_millis(u64::from(patience_ms));
        match core.call(node, Request::Batch(request), patience).await {
            Ok(Reply::Done) => Ok(()),
            Ok(reply) => Err(CallError::Unreachable(format!("answered with {reply:?}"))),
            Err(CallFailure::Call(crate::rpc::CallError::Timeout)) => Err(CallError::Timeout),
            Err(error) => Err(CallError::Unreachable(error.to_string())),
        }
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        let Some(core) = self.core.upgrade() else {
            return Vec::new();
        };
        let topology = core.views.topology();
        let here = topology.nodes.iter().find(|node| node.id == self.node);
        let (center, rack) = here.map_or(("", ""), |here| {
            (here.data_center.as_str(), here.rack.as_str())
        });
        let others = topology.nodes.iter().filter(|node| node.id != self.node);
        others
            .filter(|node| node.is_alive)
            .map(|node| Neighbour {
                node: node.id,
                is_local: node.data_center == center,
                rack: node.rack.as_str().into(),
                is_same_rack: node.data_center == center && node.rack == rack,
            })
            .collect()
    }

    fn local(&self, tablet: TabletId) -> Result<Arc<EventualReplica>, ReplicaError> {
        match self.core.upgrade() {
            Some(core) => core.replica_of(tablet),
            None => Err(ReplicaError::NoReplica(tablet)),
        }
    }

    fn this_node(&self) -> NodeId {
        self.node
    }

    fn is_alive(&self, node: NodeId) -> bool {
        self.core
            .upgrade()
            .is_some_and(|core| core.views.is_alive(node))
    }

    fn data_center(&self, node: NodeId) -> Arc<str> {
        let known = self
            .core
            .upgrade()
            .and_then(|core| core.view().data_center(node).cloned());
        known.unwrap_or_else(|| Arc::from(""))
    }

    fn is_same_rack(&self, node: NodeId) -> bool {
        self.core
            .upgrade()
            .is_some_and(|core| core.view().is_same_rack(self.node, node))
    }

    fn client_address(&self, node: NodeId) -> Option<IpAddr> {
        let topology = self.core.upgrade()?.views.topology();
        let known = topology.nodes.iter().find(|known| known.id == node);
        known.map(|known| known.address)
    }

    fn tablet(&self, root: TableId, key: &[u8]) -> Option<Arc<Tablet>> {
        let core = self.core.upgrade()?;
        core.view().tablet_of(root, key).cloned()
    }

    fn tablet_before(&self, root: TableId, end: Option<&[u8]>) -> Option<Arc<Tablet>> {
        let core = self.core.upgrade()?;
        core.view().tablet_before(root, end).cloned()
    }
}
