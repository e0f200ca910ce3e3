//! What the log has done about transactions, as the requests above see it once the batch is in the store.

use crate::command::Prepare;
use crate::latches::Spans;
use crate::request::CommandId;
use crate::state::{Decision, State};
use model::Timestamp;
use std::sync::Arc;

/// A step of a transaction that the requests above should see.
pub(crate) enum Shown {
    Prepared(Arc<Prepare>),
    Decided(CommandId, Arc<Decision>),
    /// Committed or given up, and no longer prepared.
    Ended(CommandId, Option<(Timestamp, Spans)>),
    Forgotten(CommandId),
    /// What a split has left here of a share.
    Divided(CommandId, Option<Arc<Prepare>>),
}

impl State {
    pub fn show(&mut self, step: Shown) {
        match step {
            Shown::Prepared(prepare) => {
                let head = &prepare.head;
                self.locks
                    .add_prepared(head.id, head.timestamp, head.spans());
                // From here on the share keeps its keys, and nothing of this transaction is needed beside it.
                self.locks.release(head.transaction);
                self.prepared.insert(head.id, prepare);
            }
            Shown::Ended(id, committed) => {
                self.prepared.remove(&id);
                self.locks.end_prepared(id);
                if let Some((timestamp, spans)) = committed
                    && self.holding.is_some()
                {
                    self.wait_out(timestamp, spans);
                }
            }
            Shown::Divided(id, part) => {
                self.prepared.remove(&id);
                self.locks.end_prepared(id);
                if let Some(part) = part {
                    let head = &part.head;
                    self.locks.add_prepared(id, head.timestamp, head.spans());
                    self.prepared.insert(id, part);
                }
            }
            Shown::Decided(id, decision) => {
                self.decisions.insert(id, decision);
            }
            Shown::Forgotten(id) => {
                self.decisions.remove(&id);
                self.finishing.remove(&id);
            }
        }
    }
}
