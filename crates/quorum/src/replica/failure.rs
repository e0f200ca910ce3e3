//! What becomes of a replica whose log or store has failed: it stops, takes part in nothing from then on, and says why.
//!
//! After a failed store it can be opened anew: what it has acknowledged is in its log. For that the old one must be
//! certain to do nothing more to either, and what is in the log certain to stay there: `stop` sees to both. A failed log
//! is the whole node's, and closed.

use super::EventualReplica;
use crate::message::ReplicaError;
use std::sync::atomic::Ordering;
use world::{LogBatch, LogError};

/// Why a replica has stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the log: {0}")]
    Log(String),
    #[error("the store: {0}")]
    Store(String),
}

impl EventualReplica {
    /// Why this replica answers nothing any more.
    pub fn failure(&self) -> Option<Failure> {
        if !self.is_broken() {
            return None;
        }
        self.failure.lock().clone()
    }

    /// What a read has met that could not be read; everything else goes on.
    pub fn unreadable(&self) -> Option<String> {
        self.unreadable.lock().clone()
    }

    pub(super) fn fail(&self, failure: Failure) {
        let mut first = self.failure.lock();
        if first.is_none() {
            tracing::error!(replica = %self.log_id.0, %failure, "a replica has failed");
            *first = Some(failure);
        }
        self.is_broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn note_unreadable(&self, error: &ReplicaError) {
        let ReplicaError::Broken(what) = error else {
            return;
        };
        let mut known = self.unreadable.lock();
        if known.is_none() && !self.is_broken() {
            tracing::error!(replica = %self.log_id.0, what, "a replica cannot be read");
            *known = Some(what.clone());
        }
    }

    /// Of a replica that has failed: returns when it does nothing more to its log and store, and all that is in its log is
    /// durable.
    pub async fn stop(&self) -> Result<(), LogError> {
        // Whoever appends or merges looks whether it has failed behind this lock.
        drop(self.writer.lock());
        self.log.write(LogBatch::default()).await
    }
}
