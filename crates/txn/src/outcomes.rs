//! What a tablet remembers of transactions whose doors keep their outcomes: which it has committed, for whoever has not
//! heard so and asks, and which it will not commit, because somebody was told that they have not been. Part of the
//! replicated state: all replicas remember alike.
//!
//! A commit is remembered for an hour, and as one of the last `COMMITS_MAX`. Whoever asks about one that may be older
//! than what is remembered hears that nothing is known.

use crate::request::CommandId;
use crate::step::Ending;
use model::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

const KEPT_MICROS: i64 = 3_600 * 1_000_000;
/// 66 bytes each, or so.
const COMMITS_MAX: usize = 100_000;
/// When there are more, nothing is refused for a while.
const REFUSALS_MAX: usize = 10_000;

#[derive(Default)]
pub(crate) struct Outcomes {
    /// Oldest first. It is looked through for one when somebody asks, which is rare.
    commits: BTreeSet<(Timestamp, CommandId)>,
    /// With when.
    refusals: BTreeMap<CommandId, Timestamp>,
    refusals_order: BTreeSet<(Timestamp, CommandId)>,
}

/// Where the store keeps what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Commit(Timestamp, CommandId),
    Refusal(CommandId),
}

impl Outcomes {
    pub fn find(&self, id: CommandId) -> Option<Ending> {
        if self.is_refused(id) {
            return Some(Ending::Aborted);
        }
        let mut commits = self.commits.iter().rev();
        let found = commits.find(|(_, commit)| *commit == id);
        found.map(|(timestamp, _)| Ending::Committed(*timestamp))
    }

    pub fn is_refused(&self, id: CommandId) -> bool {
        self.refusals.contains_key(&id)
    }

    /// Whether a transaction that began then, and was committed here, would still be known.
    pub fn reaches(&self, began: Timestamp) -> bool {
        let oldest = self.commits.first();
        let is_full = self.commits.len() >= COMMITS_MAX;
        began > self.horizon() && !(is_full && oldest.is_some_and(|(oldest, _)| *oldest >= began))
    }

    pub fn is_full(&self) -> bool {
        self.refusals.len() >= REFUSALS_MAX
    }

    pub fn add_commit(&mut self, timestamp: Timestamp, id: CommandId) -> Vec<Kept> {
        self.commits.insert((timestamp, id));
        self.forget()
    }

    pub fn add_refusal(&mut self, at: Timestamp, id: CommandId) -> Vec<Kept> {
        if let Some(known) = self.refusals.insert(id, at) {
            self.refusals_order.remove(&(known, id));
        }
        self.refusals_order.insert((at, id));
        self.forget()
    }

    pub fn refusals(&self) -> impl Iterator<Item = (CommandId, Timestamp)> {
        self.refusals.iter().map(|(id, at)| (*id, *at))
    }

    /// The newest commit.
    pub fn newest(&self) -> Timestamp {
        self.commits.last().map_or(Timestamp::MIN, |(at, _)| *at)
    }

    /// What is older is forgotten.
    fn horizon(&self) -> Timestamp {
        let refusal = self.refusals_order.last();
        let refusal = refusal.map_or(Timestamp::MIN, |(at, _)| *at);
        self.newest().max(refusal).plus_micros(-KEPT_MICROS)
    }

    /// What is not remembered any more.
    fn forget(&mut self) -> Vec<Kept> {
        let horizon = self.horizon();
        let mut forgotten = Vec::new();
        while let Some((at, id)) = self.commits.first().copied()
            && (at < horizon || self.commits.len() > COMMITS_MAX)
        {
            self.commits.pop_first();
            forgotten.push(Kept::Commit(at, id));
        }
        while let Some((at, id)) = self.refusals_order.first().copied()
            && at < horizon
        {
            self.refusals_order.pop_first();
            self.refusals.remove(&id);
            forgotten.push(Kept::Refusal(id));
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Incarnation, NodeId, RequestId};

    fn id(number: u64) -> CommandId {
        CommandId {
            node: NodeId(1),
            incarnation: Incarnation(2),
            request: RequestId(number),
        }
    }

    #[test]
    fn a_commit_is_remembered_for_an_hour() {
        let mut outcomes = Outcomes::default();
        assert!(outcomes.reaches(Timestamp(0)));
        assert_eq!(outcomes.add_commit(Timestamp(5), id(1)), []);
        assert_eq!(outcomes.find(id(1)), Some(Ending::Committed(Timestamp(5))));
        assert_eq!(outcomes.find(id(2)), None);
        assert_eq!(outcomes.add_commit(Timestamp(5 + KEPT_MICROS), id(2)), []);
        assert!(outcomes.reaches(Timestamp(6)) && !outcomes.reaches(Timestamp(5)));
        let forgotten = outcomes.add_commit(Timestamp(6 + KEPT_MICROS), id(3));
        assert_eq!(forgotten, [Kept::Commit(Timestamp(5), id(1))]);
        assert_eq!(outcomes.find(id(1)), None);
    }

    #[test]
    fn the_last_of_many_commits_are_remembered_and_no_others_are_spoken_for() {
        let mut outcomes = Outcomes::default();
        for number in 1..=COMMITS_MAX as u64 {
            let forgotten = outcomes.add_commit(Timestamp(number as i64), id(number));
            assert_eq!(forgotten, []);
        }
        let last = COMMITS_MAX as u64 + 1;
        let forgotten = outcomes.add_commit(Timestamp(last as i64), id(last));
        assert_eq!(forgotten, [Kept::Commit(Timestamp(1), id(1))]);
        assert!(!outcomes.reaches(Timestamp(1)) && !outcomes.reaches(Timestamp(2)));
        assert!(outcomes.reaches(Timestamp(3)));
    }

    #[test]
    fn a_refusal_outlives_any_number_of_commits_and_is_forgotten_after_an_hour() {
        let mut outcomes = Outcomes::default();
        outcomes.add_refusal(Timestamp(1), id(0));
        for number in 1..=COMMITS_MAX as u64 + 1 {
            outcomes.add_commit(Timestamp(number as i64), id(number));
        }
        assert_eq!(outcomes.find(id(0)), Some(Ending::Aborted));
        let forgotten = outcomes.add_refusal(Timestamp(2 + KEPT_MICROS), id(last()));
        assert!(forgotten.contains(&Kept::Refusal(id(0))));
        assert!(outcomes.is_refused(id(last())) && !outcomes.is_refused(id(0)));
    }

    fn last() -> u64 {
        COMMITS_MAX as u64 + 2
    }
}
