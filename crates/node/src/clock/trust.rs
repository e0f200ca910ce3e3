//! Whether this node's clock may be relied on: what its peers' clocks say about it. Pure.
//!
//! A node notes of each peer whether their intervals met when last compared. A contradiction that is new puts this
//! node *in doubt*: what others said before counts no more, and until a majority agrees anew it issues no timestamps.
//! That takes one round trip when it is the peer that is wrong. When it is this node, the doubt becomes a *fence*: the
//! node gives up its leases and says why, and comes back when its clock has agreed with a majority for a while.
//!
//! Invariants:
//! * A node that is contradicted by as many as agree with it (itself included) is not trusted, but for the time
//!   master, which is right by definition where nobody else decides.
//! * Nobody is heard twice: one opinion a peer, the newest.

use super::reference::Local;
use model::{Interval, NodeId};
use std::collections::BTreeMap;
use std::fmt;
use world::planted::{self, Bug};

/// A doubt that lasts so long becomes a fence.
const DOUBT_MICROS: i64 = 300_000;
/// So long the clock must have been well before a fence falls.
const PROBATION_MICROS: i64 = 1_000_000;

/// What two clocks say of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Agrees,
    /// The peer's clock is ahead of this one by so much at least; behind where it is negative.
    Contradicts {
        ahead_micros: i64,
    },
    /// The peer says so; this node has not seen it. It counts against this clock, but is not passed on: two that
    /// accuse each other because each is accused would do so for ever.
    Accused {
        ahead_micros: i64,
    },
}

/// Compares a peer's reading, taken between two moments, with this node's readings at these moments.
pub(crate) fn compare(before: Interval, theirs: Interval, after: Interval) -> Verdict {
    let ahead = theirs.earliest.0.saturating_sub(after.latest.0);
    let behind = before.earliest.0.saturating_sub(theirs.latest.0);
    match (ahead > 0, behind > 0) {
        (true, _) => Verdict::Contradicts {
            ahead_micros: ahead,
        },
        (_, true) => Verdict::Contradicts {
            ahead_micros: -behind,
        },
        (false, false) => Verdict::Agrees,
    }
}

#[derive(Clone, Copy, Debug)]
struct Opinion {
    verdict: Verdict,
    /// From before the peer was asked.
    since: Local,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    Trusted,
    /// Peers disagree; whom to believe is being found out.
    Doubted {
        since: Local,
    },
    Fenced {
        since: Local,
        why: String,
    },
}

/// What has become of the trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Fenced(String),
    Recovered,
}

pub(crate) struct Comparisons {
    opinions: BTreeMap<NodeId, Opinion>,
    /// The newest contradiction: older agreement does not count.
    doubt: Option<Local>,
    trust: Trust,
    /// When this clock was last known to be wrong.
    last_wrong: Local,
}

impl Comparisons {
    pub fn new() -> Comparisons {
        Comparisons {
            opinions: BTreeMap::new(),
            doubt: None,
            trust: Trust::Trusted,
            last_wrong: Local(0),
        }
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    pub fn is_fenced(&self) -> bool {
        matches!(self.trust, Trust::Fenced { .. })
    }

    /// For how long the fence has stood.
    pub fn fenced_micros(&self, now: Local) -> Option<i64> {
        match &self.trust {
            Trust::Fenced { since, .. } => Some(now.since(*since)),
            _ => None,
        }
    }

    /// Whether this peer's clock is known not to agree with this one.
    pub fn contradicts(&self, peer: NodeId) -> bool {
        self.opinions
            .get(&peer)
            .is_some_and(|opinion| opinion.verdict != Verdict::Agrees)
    }

    /// Whether this node has seen by itself that the peer's clock does not agree with this one.
    pub fn accuses(&self, peer: NodeId) -> bool {
        self.opinions
            .get(&peer)
            .is_some_and(|opinion| matches!(opinion.verdict, Verdict::Contradicts { .. }))
    }

    /// Only members have a say.
    pub fn keep_members(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.opinions.retain(|peer, _| is_member(*peer));
    }

    /// Takes in a comparison that began at `since`. Says whether it raises a doubt.
    pub fn note(&mut self, peer: NodeId, verdict: Verdict, since: Local, now: Local) -> bool {
        let before = self.opinions.get(&peer).copied();
        if before.is_some_and(|before| before.since > since) {
            return false;
        }
        self.opinions.insert(peer, Opinion { verdict, since });
        let is_new =
            verdict != Verdict::Agrees && !before.is_some_and(|it| it.verdict != Verdict::Agrees);
        if is_new {
            self.doubt = Some(now);
        }
        is_new
    }

    /// This node's own clocks contradict each other: there is nothing to ask.
    pub fn fence(&mut self, why: String, now: Local) {
        self.last_wrong = now;
        if !self.is_fenced() && !planted::is(Bug::FencingSwitchedOff) {
            self.trust = Trust::Fenced { since: now, why };
        }
    }

    /// What the peers think has been about a reading that is given up.
    pub fn forget_opinions(&mut self) {
        self.opinions.clear();
        self.doubt = None;
    }

    fn contradicting(&self) -> impl Iterator<Item = (NodeId, i64)> + '_ {
        self.opinions
            .iter()
            .filter_map(|(peer, opinion)| match opinion.verdict {
                Verdict::Contradicts { ahead_micros } | Verdict::Accused { ahead_micros } => {
                    Some((*peer, ahead_micros))
                }
                Verdict::Agrees => None,
            })
    }

    fn agreeing_since(&self, since: Local) -> usize {
        self.opinions
            .values()
            .filter(|opinion| opinion.verdict == Verdict::Agrees && opinion.since >= since)
            .count()
    }

    /// Whether as many agree as must. `is_master`: a tie is decided for this node.
    fn is_agreed(&self, is_master: bool) -> bool {
        let contradicting = self.contradicting().count();
        let agreeing = 1 + self.agreeing_since(self.doubt.unwrap_or(Local(0)));
        agreeing > contradicting || (agreeing == contradicting && is_master) || contradicting == 0
    }

    /// Works out whether this clock is trusted. `has_peers`: somebody could agree with it. `has_caught_up`: it has a
    /// reading, and none that it gave before was later.
    pub fn judge(&mut self, now: Local, situation: Situation) -> Option<Change> {
        if self.contradicting().next().is_none() {
            self.doubt = None;
        }
        let is_agreed = self.is_agreed(situation.is_master) || planted::is(Bug::FencingSwitchedOff);
        if !is_agreed {
            self.last_wrong = now;
        }
        match (&self.trust, is_agreed) {
            (Trust::Trusted, true) => None,
            (Trust::Trusted, false) => {
                self.trust = Trust::Doubted { since: now };
                None
            }
            (Trust::Doubted { .. }, true) => {
                self.trust = Trust::Trusted;
                None
            }
            (Trust::Doubted { since }, false) if now.since(*since) < DOUBT_MICROS => None,
            (Trust::Doubted { .. }, false) => {
                let why = self.explain();
                self.trust = Trust::Fenced {
                    since: now,
                    why: why.clone(),
                };
                Some(Change::Fenced(why))
            }
            (Trust::Fenced { since, .. }, is_agreed) => {
                let is_well = is_agreed
                    && situation.has_caught_up
                    && now.since(self.last_wrong) >= PROBATION_MICROS
                    && (!situation.has_peers || self.agreeing_since(*since) > 0);
                if is_well {
                    self.trust = Trust::Trusted;
                }
                is_well.then_some(Change::Recovered)
            }
        }
    }

    fn explain(&self) -> String {
        let parts: Vec<String> = self
            .contradicting()
            .map(|(peer, ahead)| {
                let side = if ahead > 0 { "behind" } else { "ahead of" };
                format!(
                    "{side} {peer}'s by {}",
                    Milliseconds(ahead.saturating_abs())
                )
            })
            .collect();
        format!("its clock is {} at least", parts.join(", "))
    }
}

/// What `judge` must know beside the opinions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Situation {
    pub is_master: bool,
    pub has_peers: bool,
    pub has_caught_up: bool,
}

/// Microseconds, for people.
pub(crate) struct Milliseconds(pub i64);

impl fmt::Display for Milliseconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:03} ms", self.0 / 1_000, self.0 % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    const WELL: Situation = Situation {
        is_master: false,
        has_peers: true,
        has_caught_up: true,
    };
    const BEHIND: Verdict = Verdict::Contradicts { ahead_micros: 900 };

    fn at(ms: u64) -> Local {
        Local(ms * 1_000)
    }

    fn interval(earliest: i64, latest: i64) -> Interval {
        Interval {
            earliest: Timestamp(earliest),
            latest: Timestamp(latest),
        }
    }

    #[test]
    fn intervals_that_may_have_met_agree() {
        let (before, after) = (interval(100, 120), interval(200, 220));
        let compare = |earliest, latest| compare(before, interval(earliest, latest), after);
        assert_eq!(compare(90, 100), Verdict::Agrees);
        assert_eq!(compare(220, 300), Verdict::Agrees);
        assert_eq!(compare(221, 300), Verdict::Contradicts { ahead_micros: 1 });
        assert_eq!(compare(80, 99), Verdict::Contradicts { ahead_micros: -1 });
    }

    #[test]
    fn a_wrong_peer_raises_one_doubt_that_another_peer_ends() {
        let mut clock = Comparisons::new();
        clock.note(NodeId(3), Verdict::Agrees, at(0), at(1));
        assert!(clock.note(NodeId(2), BEHIND, at(10), at(11)));
        assert_eq!(clock.judge(at(11), WELL), None);
        // What node 3 said before counts no more.
        assert_eq!(clock.trust(), &Trust::Doubted { since: at(11) });
        clock.note(NodeId(3), Verdict::Agrees, at(11), at(12));
        assert_eq!(clock.judge(at(12), WELL), None);
        assert_eq!(clock.trust(), &Trust::Trusted);
        assert!(
            !clock.note(NodeId(2), BEHIND, at(20), at(21)),
            "it is known to be wrong"
        );
        clock.judge(at(21), WELL);
        assert_eq!(clock.trust(), &Trust::Trusted);
        assert!(clock.contradicts(NodeId(2)) && !clock.contradicts(NodeId(3)));
    }

    #[test]
    fn contradicted_by_a_majority_it_fences_itself_and_returns_when_it_is_well() {
        let mut clock = Comparisons::new();
        for peer in [2, 3] {
            clock.note(NodeId(peer), BEHIND, at(10), at(11));
        }
        clock.judge(at(11), WELL);
        let change = clock.judge(at(400), WELL);
        assert!(
            matches!(&change, Some(Change::Fenced(why)) if why.contains("behind n2's by 0.900 ms")),
            "{change:?}"
        );
        for peer in [2, 3] {
            clock.note(NodeId(peer), Verdict::Agrees, at(500), at(501));
        }
        assert_eq!(clock.judge(at(501), WELL), None, "not yet");
        let behind = Situation {
            has_caught_up: false,
            ..WELL
        };
        assert_eq!(
            clock.judge(at(2_000), behind),
            None,
            "it has shown later times"
        );
        assert_eq!(clock.judge(at(2_000), WELL), Some(Change::Recovered));
        assert_eq!(clock.trust(), &Trust::Trusted);
    }

    #[test]
    fn one_against_one_only_the_master_is_right() {
        for is_master in [false, true] {
            let mut clock = Comparisons::new();
            clock.note(NodeId(2), BEHIND, at(10), at(11));
            let situation = Situation { is_master, ..WELL };
            clock.judge(at(11), situation);
            assert_eq!(clock.judge(at(400), situation).is_some(), !is_master);
        }
    }

    #[test]
    fn a_lone_clock_that_jumped_returns_without_a_witness() {
        let mut clock = Comparisons::new();
        clock.fence("it jumped".into(), at(1));
        let alone = Situation {
            has_peers: false,
            ..WELL
        };
        assert_eq!(clock.judge(at(500), alone), None);
        assert_eq!(clock.judge(at(1_500), WELL), None, "peers must have agreed");
        assert_eq!(clock.judge(at(1_500), alone), Some(Change::Recovered));
    }

    #[test]
    fn who_is_merely_accused_accuses_nobody() {
        let mut clock = Comparisons::new();
        let accused = Verdict::Accused { ahead_micros: -1 };
        assert!(clock.note(NodeId(2), accused, at(10), at(11)));
        assert!(clock.contradicts(NodeId(2)) && !clock.accuses(NodeId(2)));
        clock.note(NodeId(2), BEHIND, at(12), at(13));
        assert!(clock.accuses(NodeId(2)));
    }

    #[test]
    fn an_answer_to_an_older_question_changes_nothing() {
        let mut clock = Comparisons::new();
        clock.note(NodeId(2), Verdict::Agrees, at(20), at(30));
        assert!(!clock.note(NodeId(2), BEHIND, at(10), at(31)));
        clock.judge(at(31), WELL);
        assert_eq!(clock.trust(), &Trust::Trusted);
    }
}
