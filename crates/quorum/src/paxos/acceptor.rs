//! What a replica remembers of a partition's ballots, and how it answers them.

use super::Ballot;
use crate::message::RawRow;
use minicbor::{Decode, Encode};
use model::Timestamp;

/// Rows that are to be merged into a partition if they are decided; none at all only closes what came before.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// What it is proposed under now.
    #[n(0)]
    pub ballot: Ballot,
    /// What it was first proposed under: who it is, and the timestamp of its rows.
    #[n(1)]
    pub origin: Ballot,
    #[n(2)]
    pub deltas: Vec<RawRow>,
    /// The origins of the decisions before it, newest first; complete when there are fewer than
    /// `Proposal::HISTORY_MAX`.
    #[n(3)]
    pub history: Vec<Timestamp>,
    /// Who decides: the replicas of this data centre, or all. Data centres that decide by themselves know nothing of each
    /// other's proposals, only of their rows.
    #[n(4)]
    pub data_center: Option<String>,
}

impl Proposal {
    /// Decisions before it that a proposal names.
    pub const HISTORY_MAX: usize = 16;

    /// A new proposal, to follow the last decision.
    pub fn new(ballot: Ballot, deltas: Vec<RawRow>, last: Option<&Proposal>) -> Proposal {
        let before = last.map(|last| {
            let older = last.history.iter().copied();
            std::iter::once(last.origin.timestamp).chain(older)
        });
        Proposal {
            ballot,
            origin: ballot,
            deltas,
            history: before
                .into_iter()
                .flatten()
                .take(Proposal::HISTORY_MAX)
                .collect(),
            data_center: None,
        }
    }

    /// The same under another ballot.
    pub fn again(&self, ballot: Ballot) -> Proposal {
        Proposal {
            ballot,
            ..self.clone()
        }
    }

    /// The same, to be decided by a data centre alone, or by all.
    pub fn among(self, data_center: Option<&str>) -> Proposal {
        Proposal {
            data_center: data_center.map(str::to_owned),
            ..self
        }
    }

    /// Whether replicas of a data centre take part in deciding it.
    pub fn concerns(&self, center: &str) -> bool {
        self.data_center
            .as_ref()
            .is_none_or(|theirs| theirs == center)
    }

    /// Whether this may still be decided, given the newest decision that is known.
    pub fn may_follow(&self, decided: Option<&Proposal>) -> bool {
        decided.is_none_or(|decided| {
            self.ballot.timestamp > decided.ballot.timestamp && self.origin != decided.origin
        })
    }
}

/// One replica's state of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PartitionState {
    #[n(0)]
    pub promised: Option<Ballot>,
    #[n(1)]
    pub accepted: Option<Proposal>,
    /// The newest decision that this replica has merged.
    #[n(2)]
    pub committed: Option<Proposal>,
}

impl PartitionState {
    /// Promises to take part in no earlier ballot; or tells which later one was promised.
    pub fn promise(&mut self, ballot: Ballot) -> Result<(), Ballot> {
        self.admit(ballot)
    }

    pub fn accept(&mut self, proposal: Proposal) -> Result<(), Ballot> {
        self.admit(proposal.ballot)?;
        self.accepted = Some(proposal);
        Ok(())
    }

    /// Takes note of a decision, whose rows the caller merges. A decision is never refused.
    pub fn commit(&mut self, decided: Proposal) {
        let newest = self.promised.map(|promised| promised.timestamp);
        if newest.is_none_or(|newest| newest < decided.ballot.timestamp) {
            self.promised = Some(decided.ballot);
        }
        let is_newer = self
            .committed
            .as_ref()
            .is_none_or(|known| known.origin.timestamp < decided.origin.timestamp);
        if is_newer {
            self.committed = Some(decided);
        }
        let committed = self.committed.as_ref();
        if self
            .accepted
            .as_ref()
            .is_some_and(|accepted| !accepted.may_follow(committed))
        {
            self.accepted = None;
        }
    }

    /// Takes over what another replica remembers, as one does that is being filled: what concerns its data centre.
    pub fn absorb(&mut self, mut other: PartitionState, center: &str) {
        other.accepted = other.accepted.filter(|it| it.concerns(center));
        other.committed = other.committed.filter(|it| it.concerns(center));
        let later = |left: &Option<Ballot>, right: &Option<Ballot>| {
            left.is_none_or(|left| right.is_some_and(|right| right.timestamp > left.timestamp))
        };
        if later(&self.promised, &other.promised) {
            self.promised = other.promised;
        }
        let ballot = |proposal: &Option<Proposal>| proposal.as_ref().map(|known| known.ballot);
        if later(&ballot(&self.accepted), &ballot(&other.accepted)) {
            self.accepted = other.accepted;
        }
        if let Some(decided) = other.committed {
            self.commit(decided);
        }
    }

    fn admit(&mut self, ballot: Ballot) -> Result<(), Ballot> {
        match self.promised {
            Some(promised) if !ballot.is_admitted_after(Some(&promised)) => Err(promised),
            _ => {
                self.promised = Some(ballot);
                Ok(())
            }
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory does not fail")
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<PartitionState, String> {
        minicbor::decode(bytes)
            .map_err(|error| format!("a partition's Paxos state cannot be read: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ballot::ballot;
    use super::*;

    fn proposal(timestamp: i64, node: u64) -> Proposal {
        Proposal::new(ballot(timestamp, node), vec![RawRow::default()], None)
    }

    #[test]
    fn promises_bind_and_messages_may_come_twice() {
        let mut state = PartitionState::default();
        state.promise(ballot(5, 1)).unwrap();
        state.promise(ballot(5, 1)).unwrap();
        assert_eq!(state.promise(ballot(5, 2)), Err(ballot(5, 1)));
        assert_eq!(state.accept(proposal(4, 2)), Err(ballot(5, 1)));
        assert_eq!(state.accepted, None);
        state.accept(proposal(5, 1)).unwrap();
        state.accept(proposal(5, 1)).unwrap();
        // Without a promise of its own, but later than all promised.
        state.accept(proposal(7, 2)).unwrap();
        assert_eq!(state.promise(ballot(6, 1)), Err(ballot(7, 2)));
        assert_eq!(state.accepted, Some(proposal(7, 2)));
    }

    #[test]
    fn a_decision_clears_what_it_has_overtaken_and_nothing_later() {
        let mut state = PartitionState::default();
        state.accept(proposal(5, 1)).unwrap();
        state.commit(proposal(5, 1));
        assert_eq!(
            (&state.accepted, &state.committed),
            (&None, &Some(proposal(5, 1)))
        );
        state.accept(proposal(9, 2)).unwrap();
        state.commit(proposal(7, 3));
        assert_eq!(state.accepted, Some(proposal(9, 2)));
        // An older decision that comes late is only merged.
        state.commit(proposal(6, 1));
        assert_eq!(state.committed, Some(proposal(7, 3)));
        // The same proposal under a later ballot is no news.
        state.accept(proposal(7, 3).again(ballot(12, 1))).unwrap();
        state.commit(proposal(7, 3));
        assert_eq!(state.accepted, None);
        assert_eq!(state.promise(ballot(12, 2)), Err(ballot(12, 1)));
    }

    #[test]
    fn proposals_name_the_decisions_before_them() {
        let mut last: Option<Proposal> = None;
        for timestamp in 1..=20 {
            last = Some(Proposal::new(ballot(timestamp, 1), vec![], last.as_ref()));
        }
        let last = last.unwrap();
        assert_eq!(last.history.len(), Proposal::HISTORY_MAX);
        assert_eq!(last.history[0], Timestamp(19));
        assert_eq!(last.again(ballot(30, 2)).history, last.history);
    }

    #[test]
    fn state_survives_the_store_and_is_taken_over() {
        let mut source = PartitionState::default();
        source.commit(proposal(3, 1));
        source.accept(proposal(8, 1)).unwrap();
        assert_eq!(
            PartitionState::from_bytes(&source.to_bytes()).unwrap(),
            source
        );
        assert!(PartitionState::from_bytes(&[1, 2]).is_err());
        let mut learner = PartitionState::default();
        learner.promise(ballot(9, 2)).unwrap();
        learner.absorb(source.clone(), "a");
        assert_eq!(learner.promised, Some(ballot(9, 2)));
        assert_eq!(learner.accepted, source.accepted);
        assert_eq!(learner.committed, source.committed);
        let before = learner.clone();
        learner.absorb(PartitionState::default(), "a");
        assert_eq!(learner, before);
    }

    #[test]
    fn what_another_data_centre_decides_by_itself_is_not_taken_over() {
        let mut source = PartitionState::default();
        source.commit(proposal(7, 1).among(Some("b")));
        source.accept(proposal(8, 1).among(Some("b"))).unwrap();
        let own = proposal(5, 2).among(Some("a"));
        let mut learner = PartitionState::default();
        learner.accept(own.clone()).unwrap();
        learner.absorb(source.clone(), "a");
        assert_eq!((&learner.accepted, &learner.committed), (&Some(own), &None));
        assert_eq!(learner.promised, Some(ballot(8, 1)));
        learner.absorb(source.clone(), "b");
        assert_eq!(
            (learner.accepted, learner.committed),
            (source.accepted, source.committed)
        );
    }
}
