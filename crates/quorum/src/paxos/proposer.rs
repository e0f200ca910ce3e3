//! What a proposer makes of the promises that it was given.

use super::Proposal;
use model::Timestamp;

/// What one replica told with its promise.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Promise {
    pub accepted: Option<Proposal>,
    pub committed: Option<Proposal>,
}

/// What a quorum of promises says together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Survey {
    /// This may be decided: it has to be proposed again before anything else. With the newest decision before it.
    UnderWay {
        found: Proposal,
        last: Option<Proposal>,
    },
    /// Nothing is. The newest decision, and which of the promises know of it.
    Settled {
        last: Option<Proposal>,
        knowing: Vec<usize>,
    },
}

pub(crate) fn survey(promises: &[Promise]) -> Survey {
    let last = promises
        .iter()
        .filter_map(|promise| promise.committed.as_ref())
        .max_by_key(|decided| decided.origin.timestamp);
    let under_way = promises
        .iter()
        .filter_map(|promise| promise.accepted.as_ref())
        .filter(|accepted| accepted.may_follow(last))
        .max_by_key(|accepted| accepted.ballot.timestamp);
    if let Some(accepted) = under_way {
        return Survey::UnderWay {
            found: accepted.clone(),
            last: last.cloned(),
        };
    }
    let origin = |decided: &Option<Proposal>| decided.as_ref().map(|decided| decided.origin);
    let newest = last.map(|last| last.origin);
    Survey::Settled {
        knowing: (0..promises.len())
            .filter(|index| origin(&promises[*index].committed) == newest)
            .collect(),
        last: last.cloned(),
    }
}

/// What has become of proposals whose proposer lost sight of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// One of them was decided, by whoever found it.
    Decided,
    /// None was, but one may still be, unless something is decided first.
    Open,
    /// None was, and none will be.
    Lost,
    /// More has been decided since than is remembered.
    Forgotten,
}

/// Judges by the newest decision. All proposals were made by one proposer for one request.
pub(crate) fn fate(own: &[Timestamp], last: Option<&Proposal>) -> Fate {
    let (Some(first), Some(newest)) = (own.iter().min(), own.iter().max()) else {
        return Fate::Lost;
    };
    let Some(last) = last else {
        return Fate::Open;
    };
    let decided =
        |origin: &Timestamp| last.origin.timestamp == *origin || last.history.contains(origin);
    if own.iter().any(decided) {
        return Fate::Decided;
    }
    let is_complete = last.history.len() < Proposal::HISTORY_MAX
        || last.history.last().is_some_and(|oldest| oldest < first);
    if !is_complete && last.origin.timestamp > *first {
        return Fate::Forgotten;
    }
    if last.origin.timestamp < *newest {
        return Fate::Open;
    }
    Fate::Lost
}

#[cfg(test)]
mod tests {
    use super::super::ballot::ballot;
    use super::*;

    fn proposal(timestamp: i64) -> Proposal {
        Proposal::new(ballot(timestamp, 1), vec![], None)
    }

    fn promise(accepted: Option<Proposal>, committed: Option<Proposal>) -> Promise {
        Promise {
            accepted,
            committed,
        }
    }

    #[test]
    fn the_latest_accepted_proposal_is_under_way_unless_it_is_history() {
        let promises = [
            promise(Some(proposal(3)), Some(proposal(1))),
            promise(Some(proposal(4)), None),
        ];
        assert_eq!(
            survey(&promises),
            Survey::UnderWay {
                found: proposal(4),
                last: Some(proposal(1)),
            }
        );
        // Decided and committed elsewhere.
        let promises = [
            promise(Some(proposal(4).again(ballot(9, 2))), None),
            promise(None, Some(proposal(4))),
            promise(Some(proposal(3)), None),
        ];
        assert_eq!(
            survey(&promises),
            Survey::Settled {
                last: Some(proposal(4)),
                knowing: vec![1],
            }
        );
        assert_eq!(
            survey(&[Promise::default(), Promise::default()]),
            Survey::Settled {
                last: None,
                knowing: vec![0, 1],
            }
        );
    }

    #[test]
    fn a_loser_of_a_decision_never_comes_back() {
        // Accepted by one under ballot 6; then 5's proposal was decided under ballot 7.
        let promises = [
            promise(Some(proposal(6)), None),
            promise(None, Some(proposal(5).again(ballot(7, 2)))),
        ];
        assert!(matches!(survey(&promises), Survey::Settled { .. }));
    }

    #[test]
    fn a_proposer_learns_what_became_of_its_proposal() {
        let chain = |origins: &[i64]| {
            let mut last: Option<Proposal> = None;
            for origin in origins {
                last = Some(Proposal::new(ballot(*origin, 1), vec![], last.as_ref()));
            }
            last
        };
        let of = |own: &[i64], origins: &[i64]| {
            let own: Vec<Timestamp> = own.iter().map(|own| Timestamp(*own)).collect();
            fate(&own, chain(origins).as_ref())
        };
        assert_eq!(of(&[], &[]), Fate::Lost);
        assert_eq!(of(&[4], &[]), Fate::Open);
        assert_eq!(of(&[4], &[2, 3]), Fate::Open);
        assert_eq!(of(&[4], &[2, 4]), Fate::Decided);
        assert_eq!(of(&[4], &[4, 6, 8]), Fate::Decided);
        assert_eq!(of(&[4, 7], &[4, 6]), Fate::Decided);
        assert_eq!(of(&[4], &[2, 6, 8]), Fate::Lost);
        assert_eq!(of(&[4, 7], &[2, 6]), Fate::Open);
        let long: Vec<i64> = (10..40).collect();
        assert_eq!(of(&[4], &long), Fate::Forgotten);
        assert_eq!(of(&[50], &long), Fate::Open);
        assert_eq!(of(&[30], &long), Fate::Decided);
    }
}
