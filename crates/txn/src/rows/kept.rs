//! What the machine does about transactions whose outcome is kept.

use super::{Batch, Rows, encode};
use crate::command::Verdict;
use crate::keys;
use crate::outcomes::Kept;
use crate::request::CommandId;
use crate::state::State;
use model::Timestamp;
use world::StoreOperation;
use world::planted::{self, Bug};

impl Rows {
    /// Remembers that a transaction was committed here.
    pub(super) fn keep_commit(
        &self,
        batch: &mut Batch<'_>,
        timestamp: Timestamp,
        kept_as: CommandId,
    ) {
        if planted::is(Bug::CommitNotKept) {
            return;
        }
        let mut state = self.replica.state.lock();
        let forgotten = state.outcomes.add_commit(timestamp, kept_as);
        batch.operations.push(StoreOperation::Put {
            key: keys::commit(timestamp, kept_as),
            value: Vec::new(),
        });
        batch.forget(forgotten);
    }

    /// Commits a transaction no more, unless that is done, or is for another tablet to decide.
    pub(super) fn apply_refuse(
        &self,
        batch: &mut Batch<'_>,
        kept_as: CommandId,
        at: Timestamp,
    ) -> Verdict {
        let mut state = self.replica.state.lock();
        if let Some(ending) = state.outcomes.find(kept_as) {
            return Verdict::Ended(ending);
        }
        let mut prepared = self.prepared.values();
        if prepared.any(|share| share.head.kept_as == Some(kept_as)) {
            return Verdict::Repeated;
        }
        let forgotten = state.outcomes.add_refusal(at, kept_as);
        batch.operations.push(StoreOperation::Put {
            key: keys::refusal(kept_as),
            value: encode(&at),
        });
        batch.forget(forgotten);
        Verdict::Done
    }
}

/// Whether somebody was told that this transaction has not been committed.
pub(super) fn refuses(state: &State, kept_as: Option<CommandId>) -> bool {
    kept_as.is_some_and(|kept_as| state.outcomes.is_refused(kept_as))
        && !planted::is(Bug::RefusedCommits)
}

impl Batch<'_> {
    /// Forgets outcomes.
    fn forget(&mut self, kept: Vec<Kept>) {
        let keys = kept.into_iter().map(|kept| match kept {
            Kept::Commit(timestamp, id) => keys::commit(timestamp, id),
            Kept::Refusal(id) => keys::refusal(id),
        });
        self.operations
            .extend(keys.map(|key| StoreOperation::Delete { key }));
    }
}
