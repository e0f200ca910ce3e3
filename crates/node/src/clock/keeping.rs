//! One node's time: where its readings come from, whether they are trusted, and that they never go back. Pure.
//!
//! Two kinds of sources. `single` and `cluster` read the reference (`reference`). With the others somebody vouches for
//! the wall clock, and this node holds it against its monotonic clock: an honest wall clock that counts with the
//! oscillator stays between two lines, and one that leaves them was set by somebody, which shows at the next reading,
//! before anybody is given it.

use super::reference::{
    Claim, Claimant, Considered, Electorate, Grant, Local, Reference, Sample, drift,
};
use super::trust::{Change, Comparisons, Milliseconds, Situation, Trust, Verdict, compare};
use model::{Interval, NodeId, Timestamp};
use std::collections::BTreeSet;
use world::planted::{self, Bug};
use world::{ClockError, ClockSource};

/// Peers that one round asks when all is well and there is no master, and when something is wrong.
const PEERS_USUAL: usize = 4;
const PEERS_MAX: usize = 16;
/// A fenced leader of the meta group that found nobody better becomes time master after so long: its clock may have
/// been the right one, or none was.
const FENCED_MASTER_MICROS: i64 = 5_000_000;

/// What one time master's reading may be ahead of another's, generously.
const ESTIMATE_MICROS: i64 = 1_000_000;

/// This machine's clocks at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub local: Local,
    pub wall: i64,
    /// How far the wall clock may be from true time, where somebody vouches for it.
    pub wall_error: Result<i64, ClockError>,
}

/// What a node knows of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// This node leads the meta group.
    pub leads: bool,
    /// The meta group's leader, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Of the meta group, where this node leads it.
    pub voters: BTreeSet<NodeId>,
    pub members: BTreeSet<NodeId>,
}

/// Whom to ask now, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    /// Must be on disk, for this node to go on telling the time.
    pub floor: Option<Timestamp>,
    pub claim: Option<Claim>,
    pub peers: Vec<NodeId>,
}

/// What a peer has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub began: Local,
    /// This node's reading then.
    pub before: Option<Interval>,
    pub received: Option<Interval>,
    pub sent: Option<Interval>,
    pub authority_micros: i64,
    pub master: Option<NodeId>,
}

/// Between which lines the wall clock stays while it keeps its promise and the oscillator its rate.
#[derive(Clone, Copy, Debug)]
struct Lines {
    lower: (i64, Local),
    upper: (i64, Local),
}

impl Lines {
    fn new(interval: Interval, now: Local) -> Lines {
        Lines {
            lower: (interval.earliest.0, now),
            upper: (interval.latest.0, now),
        }
    }

    fn at(&self, now: Local) -> Interval {
        let (lower_age, upper_age) = (now.since(self.lower.1), now.since(self.upper.1));
        Interval {
            earliest: Timestamp(self.lower.0 + lower_age - drift(lower_age)),
            latest: Timestamp(self.upper.0 + upper_age + drift(upper_age)),
        }
    }
}

pub(crate) struct Timekeeping {
    node: NodeId,
    source: ClockSource,
    reference: Reference,
    comparisons: Comparisons,
    lines: Option<Lines>,
    /// The last reading that was given, and when.
    last: Option<(Interval, Local)>,
    is_alone: bool,
    /// Who is time master, as a peer said.
    hint: Option<NodeId>,
    turn: usize,
}

impl Timekeeping {
    pub fn new(
        claimant: Claimant,
        source: ClockSource,
        began: Local,
        floor: Option<Timestamp>,
    ) -> Timekeeping {
        Timekeeping {
            node: claimant.node,
            source,
            reference: Reference::new(claimant, began, floor),
            comparisons: Comparisons::new(),
            lines: None,
            last: None,
            is_alone: true,
            hint: None,
            turn: 0,
        }
    }

    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    pub fn comparisons(&self) -> &Comparisons {
        &self.comparisons
    }

    pub fn keeps_reference(&self) -> bool {
        matches!(self.source, ClockSource::Single | ClockSource::Cluster)
    }

    /// What to call the source: a lone node of a cluster-to-be is the whole reference.
    pub fn source(&self) -> ClockSource {
        match self.source {
            ClockSource::Cluster if self.is_alone => ClockSource::Single,
            source => source,
        }
    }

    /// True time lies within, if this clock is to be trusted.
    pub fn read(&mut self, moment: &Moment) -> Result<Interval, ClockError> {
        let raw = self.read_raw(moment)?;
        match self.comparisons.trust() {
            Trust::Trusted => {}
            Trust::Doubted { .. } => {
                return Err(ClockError::Unbounded(
                    "its peers' clocks contradict it, and who is right is being found out".into(),
                ));
            }
            Trust::Fenced { why, .. } => return Err(ClockError::Fenced(why.clone())),
        }
        let last = self.last.map_or(raw, |(last, _)| last);
        let reading = Interval {
            earliest: raw.earliest.max(last.earliest),
            latest: raw.latest.max(last.latest),
        };
        self.last = Some((reading, moment.local));
        Ok(reading)
    }

    /// Where there is no reading: nothing that anybody was told lies later, and whoever waits for the end of it waits
    /// long enough for a new time master's reading.
    pub fn estimate(&self, moment: &Moment) -> Interval {
        let Some((last, at)) = self.last else {
            let wall = Timestamp(moment.wall);
            return Interval {
                earliest: wall,
                latest: wall,
            };
        };
        let age = moment.local.since(at);
        Interval {
            earliest: last.earliest,
            latest: last.latest.plus_micros(age + drift(age) + ESTIMATE_MICROS),
        }
    }

    /// What this clock says, trusted or not.
    pub fn read_raw(&mut self, moment: &Moment) -> Result<Interval, ClockError> {
        let unbounded = |why: &str| Err(ClockError::Unbounded(why.into()));
        if self.keeps_reference() {
            if self.source == ClockSource::Single && !self.is_alone {
                return unbounded(
                    "the source `single` is for a cluster of one node: give all nodes the source `cluster`",
                );
            }
            return match self.reference.read(moment.local) {
                Some(reading) => Ok(reading),
                None => unbounded(self.reference.why_not()),
            };
        }
        let error = moment.wall_error.clone()?;
        let reading = Interval {
            earliest: Timestamp(moment.wall.saturating_sub(error)),
            latest: Timestamp(moment.wall.saturating_add(error)),
        };
        self.hold_against_oscillator(reading, moment.local);
        Ok(reading)
    }

    fn hold_against_oscillator(&mut self, reading: Interval, now: Local) {
        let Some(lines) = &mut self.lines else {
            self.lines = Some(Lines::new(reading, now));
            return;
        };
        let expected = lines.at(now);
        let behind = expected.earliest.0 - reading.latest.0;
        let ahead = reading.earliest.0 - expected.latest.0;
        if behind > 0 || ahead > 0 {
            let direction = if behind > 0 { "back" } else { "forward" };
            let step = Milliseconds(behind.max(ahead));
            let why = format!("its wall clock was set {direction}, by {step} more than it may");
            self.comparisons.fence(why, now);
            self.lines = Some(Lines::new(reading, now));
            return;
        }
        if reading.earliest > expected.earliest {
            lines.lower = (reading.earliest.0, now);
        }
        if reading.latest < expected.latest {
            lines.upper = (reading.latest.0, now);
        }
    }

    /// Looks at how things stand, and says what is to be asked. To be called a few times a second, and when a doubt
    /// has arisen.
    pub fn round(&mut self, moment: &Moment, surroundings: &Surroundings) -> Round {
        let is_self = |node: &NodeId| *node == self.node;
        self.is_alone =
            surroundings.members.iter().all(is_self) && surroundings.voters.iter().all(is_self);
        self.comparisons
            .keep_members(|peer| surroundings.members.contains(&peer));
        let claim = self.claim(moment, surroundings);
        self.judge(moment);
        let others: Vec<NodeId> = surroundings
            .members
            .iter()
            .copied()
            .filter(|node| *node != self.node)
            .collect();
        let is_well = *self.comparisons.trust() == Trust::Trusted;
        let count = match (claim.is_some(), is_well, self.keeps_reference()) {
            (true, _, _) => others.len(),
            (false, false, _) => PEERS_MAX,
            (false, true, true) => 1,
            (false, true, false) => PEERS_USUAL,
        };
        let masters = [surroundings.leader, self.hint].into_iter().flatten();
        let mut peers: BTreeSet<NodeId> = masters
            .filter(|master| self.keeps_reference() && others.contains(master))
            .collect();
        let count = count.min(others.len());
        peers.extend((0..count).map(|offset| others[(self.turn + offset) % others.len()]));
        self.turn = self.turn.wrapping_add(count);
        Round {
            floor: self.reference.wanted_floor(moment.local),
            claim,
            peers: peers.into_iter().collect(),
        }
    }

    fn claim(&mut self, moment: &Moment, surroundings: &Surroundings) -> Option<Claim> {
        let may_be_master = self.keeps_reference()
            && surroundings.leads
            && (self.source == ClockSource::Cluster || self.is_alone)
            && self
                .comparisons
                .fenced_micros(moment.local)
                .is_none_or(|micros| micros >= FENCED_MASTER_MICROS);
        if !may_be_master {
            self.reference.resign(moment.local);
            return None;
        }
        let electorate = Electorate {
            voters: surroundings.voters.clone(),
            is_alone: self.is_alone,
        };
        self.reference.lead(moment.local, moment.wall, electorate)
    }

    fn judge(&mut self, moment: &Moment) {
        let reading = self.read_raw(moment).ok();
        let has_caught_up = reading.is_some_and(|reading| {
            self.last
                .is_none_or(|(last, _)| reading.earliest >= last.earliest)
        });
        let situation = Situation {
            is_master: self.reference.is_master(moment.local),
            has_peers: !self.is_alone,
            has_caught_up,
        };
        match self.comparisons.judge(moment.local, situation) {
            Some(Change::Fenced(_)) if self.keeps_reference() => {
                // Measured anew, from the ground up; what the peers thought was about what it said before.
                self.reference.forget(moment.local);
                self.comparisons.forget_opinions();
            }
            _ => {}
        }
    }

    /// A peer's reading came with a message, whose way is as long as it is: the peer can be ahead, but hardly behind.
    /// Says whether that raises a doubt.
    pub fn heard(
        &mut self,
        peer: NodeId,
        theirs: Interval,
        accuses: bool,
        moment: &Moment,
    ) -> bool {
        let Ok(ours) = self.read_raw(moment) else {
            return false;
        };
        let ahead_micros = theirs.earliest.0.saturating_sub(ours.latest.0);
        // Whoever finds this clock ahead must say so: a message that is late looks the same from here.
        let is_accused = accuses && !self.comparisons.contradicts(peer);
        if ahead_micros <= 0 && !is_accused {
            return false;
        }
        let verdict = match ahead_micros > 0 {
            true => Verdict::Contradicts { ahead_micros },
            false => Verdict::Accused {
                ahead_micros: theirs.latest.0.saturating_sub(ours.earliest.0).min(-1),
            },
        };
        self.note(peer, verdict, moment.local, moment)
    }

    fn note(&mut self, peer: NodeId, verdict: Verdict, since: Local, moment: &Moment) -> bool {
        let raises_doubt = self.comparisons.note(peer, verdict, since, moment.local);
        self.judge(moment);
        raises_doubt
    }

    /// A question to a peer was answered. Says whether that raises a doubt.
    pub fn exchanged(&mut self, peer: NodeId, exchange: &Exchange, moment: &Moment) -> bool {
        if exchange.master.is_some() {
            self.hint = exchange.master;
        }
        let after = self.read_raw(moment).ok();
        let verdict = match (exchange.before, exchange.sent, after) {
            (Some(before), Some(theirs), Some(after)) => Some(compare(before, theirs, after)),
            _ => None,
        };
        let is_contradicted = verdict.is_some_and(|verdict| verdict != Verdict::Agrees)
            && !self.comparisons.is_fenced()
            && !planted::is(Bug::FencingSwitchedOff);
        if let (Some(sent), false, true) = (exchange.sent, is_contradicted, self.keeps_reference())
        {
            let sample = Sample {
                began: exchange.began,
                ended: moment.local,
                received: exchange.received.unwrap_or(sent),
                sent,
                authority_micros: exchange.authority_micros,
            };
            let replaces = verdict != Some(Verdict::Agrees);
            self.reference.take(peer, &sample, moment.local, replaces);
        }
        match verdict {
            Some(verdict) => self.note(peer, verdict, exchange.began, moment),
            None => false,
        }
    }

    /// A node claims to be time master.
    pub fn consider(
        &mut self,
        from: Claimant,
        claim: Claim,
        leader: Option<NodeId>,
        now: Local,
    ) -> Option<Considered> {
        // Nor does a voter take note of a reference that it knows to be wrong.
        let is_contradicted =
            self.comparisons.contradicts(from.node) && !planted::is(Bug::FencingSwitchedOff);
        // Who cannot count a grant's time must not give one.
        let is_reliable = self
            .comparisons
            .fenced_micros(now)
            .is_none_or(|micros| micros >= FENCED_MASTER_MICROS);
        if self.source != ClockSource::Cluster || is_contradicted || !is_reliable {
            return None;
        }
        self.reference.consider(from, claim, now, leader)
    }

    pub fn granted_by(
        &mut self,
        voter: NodeId,
        (claim, asked): (Claim, Local),
        grant: Grant,
        moment: &Moment,
    ) {
        let now = (moment.local, moment.wall);
        self.reference.granted_by(voter, claim, asked, grant, now);
    }

    pub fn set_floor(&mut self, floor: Timestamp) {
        self.reference.set_floor(floor);
    }
}
