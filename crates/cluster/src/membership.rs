//! Nodes that leave: first their replicas go, then they do. A node that is gone for good leaves at once, and its
//! replicas are made anew.

use crate::{Effect, NodeRecord, NodeStatus, Refusal, State, placement};
use model::NodeId;
use std::sync::Arc;

impl State {
    pub(crate) fn decommission(
        &mut self,
        id: NodeId,
        successor: Option<NodeId>,
    ) -> Result<Vec<Effect>, Refusal> {
        let node = self.present(id)?;
        let effects = self.put_node(NodeRecord {
            status: NodeStatus::Decommissioning,
            successor: self.check_successor(id, successor)?,
            ..node.as_ref().clone()
        });
        let mut before = self.clone();
        before.nodes.insert(id, node);
        self.check_copies(&before)?;
        Ok(effects)
    }

    pub(crate) fn recommission(&mut self, id: NodeId) -> Result<Vec<Effect>, Refusal> {
        let node = self.present(id)?;
        Ok(self.put_node(NodeRecord {
            status: NodeStatus::Member,
            successor: None,
            ..node.as_ref().clone()
        }))
    }

    pub(crate) fn remove_node(
        &mut self,
        id: NodeId,
        successor: Option<NodeId>,
    ) -> Result<Vec<Effect>, Refusal> {
        let node = self.present(id)?;
        let effects = self.put_node(NodeRecord {
            status: NodeStatus::Removed,
            successor: self.check_successor(id, successor)?,
            ..node.as_ref().clone()
        });
        if self.takers().next().is_none() {
            return Err(Refusal::Invalid(format!("{id} is the last node")));
        }
        Ok(effects)
    }

    /// Not removed.
    fn present(&self, id: NodeId) -> Result<Arc<NodeRecord>, Refusal> {
        let node = self.nodes.get(&id);
        let present = node.filter(|node| node.status != NodeStatus::Removed);
        present.cloned().ok_or(Refusal::NoNode(id))
    }

    fn put_node(&mut self, node: NodeRecord) -> Vec<Effect> {
        let id = node.id;
        self.nodes.insert(id, Arc::new(node));
        vec![Effect::NodeChanged(id)]
    }

    fn check_successor(
        &self,
        id: NodeId,
        successor: Option<NodeId>,
    ) -> Result<Option<NodeId>, Refusal> {
        if let Some(other) = successor
            && (other == id || !self.takers().any(|node| node.id == other))
        {
            return Err(Refusal::Invalid(format!(
                "{other} cannot take over from {id}"
            )));
        }
        Ok(successor)
    }

    /// Whether all tables can keep as many copies as they could before.
    fn check_copies(&self, before: &State) -> Result<(), Refusal> {
        if self.takers().next().is_none() {
            return Err(Refusal::Invalid(
                "nobody is left to take its replicas".into(),
            ));
        }
        for table in self.catalog.tables.values().filter(|it| it.root == it.id) {
            let replication = &table.spec.replication;
            let had = placement::copies(before, replication);
            let has = placement::copies(self, replication);
            if has < had {
                return Err(Refusal::Invalid(format!(
                    "{}.{} has {had} copies, and without this node there are nodes for {has}: add a node first",
                    table.namespace(),
                    table.name(),
                )));
            }
        }
        Ok(())
    }
}
