//! Prepared statements, shared by all connections of a node: bounded, and forgotten oldest first. A client that
//! asks for one that is gone is told so, and prepares it again.

use crate::error::Error;
use crate::plan::Planned;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Statements kept.
const STATEMENTS_MAX: usize = 10_000;

pub type StatementId = [u8; 16];

/// 16 bytes that stand for some parts: ids only need to differ, and the same text must give the same id on
/// every node.
pub fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let hash = hasher.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    id
}

#[derive(Debug)]
pub struct Prepared {
    pub id: StatementId,
    pub text: String,
    pub planned: Planned,
    /// Of the result's columns; of a statement without rows, that of none.
    pub result_metadata_id: [u8; 16],
}

#[derive(Default)]
struct Statements {
    by_id: BTreeMap<StatementId, Arc<Prepared>>,
    /// In the order of preparation.
    order: VecDeque<StatementId>,
}

#[derive(Default)]
pub struct PreparedStatements {
    statements: RwLock<Statements>,
}

impl PreparedStatements {
    pub fn id(keyspace: Option<&str>, text: &str) -> StatementId {
        digest(&[keyspace.unwrap_or_default().as_bytes(), text.as_bytes()])
    }

    pub fn get(&self, id: &[u8]) -> Result<Arc<Prepared>, Error> {
        let known = StatementId::try_from(id).ok();
        known
            .and_then(|id| self.statements.read().by_id.get(&id).cloned())
            .ok_or_else(|| Error::unprepared(id))
    }

    pub fn insert(&self, prepared: Arc<Prepared>) {
        let mut statements = self.statements.write();
        let id = prepared.id;
        if statements.by_id.insert(id, prepared).is_none() {
            statements.order.push_back(id);
        }
        while statements.by_id.len() > STATEMENTS_MAX {
            let Some(oldest) = statements.order.pop_front() else {
                break;
            };
            statements.by_id.remove(&oldest);
        }
    }

    pub fn remove(&self, id: &StatementId) {
        let mut statements = self.statements.write();
        statements.by_id.remove(id);
        statements.order.retain(|known| known != id);
    }

    pub fn len(&self) -> usize {
        self.statements.read().by_id.len()
    }
}
