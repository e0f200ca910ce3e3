//! Cluster time: one node's clock is the reference, and the others know how far from it they can be at most. Pure:
//! moments of this machine's monotonic clock, samples and answers come in; intervals and claims come out.
//!
//! External consistency needs a common reference, not UTC. The reference is kept by the *time master*, the leader of
//! the meta group, and its reading there is exact. Everybody else takes samples of it: four timestamps, of which the
//! outer two are this node's and the inner two the master's, say in which interval the reference lies, and the
//! interval widens with the sample's age, since oscillators differ.
//!
//! ```text
//!   leads the meta group        a majority of voters           a majority knows
//!   ─────────────────▶ candidate ──grants──▶ elect ──the reference──▶ master ──┐
//!        ▲                  ▲                  │                        │      │ renews
//!        └── follower ◀─────┴──── grants lapse ┴────────────────────────┘◀─────┘
//! ```
//!
//! Invariants:
//! * There is one master at a time, by everybody's clock. A voter that has granted knows no other master for
//!   `GRANT_MICROS` of its own clock; the master counts `LIFE_MICROS` of its own from before it asked, which is less.
//!   A voter that has just started has forgotten whom it granted to, so it elects nobody for as long.
//! * A sample does not outlive the authority under which it was given. So a new master begins when no reading of the
//!   old reference is left, and need not wait any longer.
//! * A new reference begins at or above all that the old one can have shown: at the `latest` of the new master's own
//!   interval, and above what a majority of voters has heard from the old master. What they have heard is also on
//!   their disks, rounded up, for the day when all of them start at once.
//! * A lone node is its own master, without asking and without waiting. Its reading, too, is good only as far as a record
//!   on its disk says, and begins at or above that record after a start, wherever its wall clock stands by then.

use minicbor::{Decode, Encode};
use model::{Interval, NodeId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use world::planted::{self, Bug};

/// How long a sample, and a master's authority, are good for without news.
pub(crate) const LIFE_MICROS: i64 = 2_000_000;
/// How long a voter keeps to the master that it has granted to. More than a life, by any two clocks.
const GRANT_MICROS: i64 = LIFE_MICROS + LIFE_MICROS / 500;
/// The rates of two nodes' oscillators differ by at most so much.
const DRIFT_PPM: i64 = 200;
/// How fast the master lets the reference follow its wall clock. Part of what `DRIFT_PPM` allows for.
const SLEW_PPM: i64 = 50;
/// The same where nobody else reads it: after a start it may be ahead by what the record was, and be so for seconds only.
const SLEW_ALONE_PPM: i64 = 100_000;
/// It does not follow when it is that close.
const SLEW_FROM_MICROS: i64 = 1_000;
/// A worse sample replaces a better one that is so old.
const SAMPLE_AGE_MAX_MICROS: i64 = 1_000_000;
/// How far the record of the reference on disk is ahead of it, so that it need not be written often.
const FLOOR_AHEAD_MICROS: i64 = 3_000_000;
/// A lone node writes the next record when so much is left of the last.
const FLOOR_LEFT_MICROS: i64 = 1_000_000;

/// A moment of this machine's monotonic clock, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Local(pub u64);

impl Local {
    const NEVER: Local = Local(0);

    pub fn since(self, earlier: Local) -> i64 {
        i64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(i64::MAX)
    }

    pub fn plus(self, micros: i64) -> Local {
        Local(self.0.saturating_add_signed(micros))
    }
}

/// By how much two clocks may differ after a time.
pub(crate) fn drift(micros: i64) -> i64 {
    micros.max(0) / 1_000 * DRIFT_PPM / 1_000 + 1
}

/// What is known of the reference, as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    at: Local,
    earliest: i64,
    latest: i64,
    /// From then on it says nothing any more.
    until: Local,
    /// This node keeps the reference: it does not drift from itself, but is bent towards the wall clock.
    is_own: bool,
    slew_ppm: i64,
}

impl Known {
    /// In which interval the reference lies, were it not expired.
    fn at(&self, now: Local) -> Interval {
        let age = now.since(self.at);
        let drift = if self.is_own { 0 } else { drift(age) };
        let age = age + age / 1_000 * self.slew_ppm / 1_000;
        Interval {
            earliest: Timestamp(self.earliest.saturating_add(age - drift)),
            latest: Timestamp(self.latest.saturating_add(age + drift)),
        }
    }

    fn is_live(&self, now: Local) -> bool {
        let is_expired = now >= self.until;
        // A reference that has no authority yet was never good.
        let is_forgiven = planted::is(Bug::SampleNeverExpires) && self.until > Local::NEVER;
        !is_expired || is_forgiven
    }
}

/// An exchange with the master, as it ended here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub began: Local,
    pub ended: Local,
    /// The master's readings when the question came and when the answer left.
    pub received: Interval,
    pub sent: Interval,
    /// What was left of the master's authority when the answer left.
    pub authority_micros: i64,
}

impl Sample {
    /// The part of the exchange that the messages were under way.
    pub fn round_trip_micros(&self) -> i64 {
        let whole = self.ended.since(self.began);
        let there = self.sent.earliest.0 - self.received.earliest.0;
        whole - there.clamp(0, whole)
    }

    fn known(&self) -> Known {
        // Both clocks cut microseconds off, and they differ while the exchange lasts.
        let way = self.round_trip_micros() + drift(self.ended.since(self.began)) + 1;
        Known {
            at: self.ended,
            earliest: self.sent.earliest.0 - 1,
            latest: self.sent.latest.0 + way,
            until: self.began.plus(self.authority_micros.min(LIFE_MICROS)),
            is_own: false,
            slew_ppm: 0,
        }
    }
}

/// Who claims to be master: a node that has forgotten its reference is another than the one that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Claimant {
    #[n(0)]
    pub node: NodeId,
    /// Counts what the node has forgotten, restarts included.
    #[n(1)]
    pub life: u64,
}

/// What a would-be master asks of the others: nothing but their grant, or that they take note of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Claim {
    #[n(0)]
    Election,
    #[n(1)]
    Reference(#[n(0)] Timestamp),
}

/// A voter's consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Grant {
    /// Any reference that this voter has consented to, but for the claimant's own, has stayed below.
    #[n(0)]
    pub bound: Timestamp,
    /// The bound comes from the disk, if there is one at all: this voter remembers no master.
    #[n(1)]
    pub is_cold: bool,
}

/// What a voter thinks of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Considered {
    pub grant: Grant,
    /// Must be on disk before the grant is given.
    pub floor: Option<Timestamp>,
}

struct Granted {
    until: Local,
    grant: Grant,
    knows_reference: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Follower,
    Candidate,
    /// Has begun a reference, which a majority does not know yet; or has known.
    Elect,
}

/// How the meta group stands, as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Electorate {
    pub voters: BTreeSet<NodeId>,
    /// This node is the cluster.
    pub is_alone: bool,
}

pub(crate) struct Reference {
    claimant: Claimant,
    began: Local,
    known: Option<Known>,
    /// Whose reference is known.
    master: Option<NodeId>,
    /// When this node's own reference began.
    elected: Local,
    round_trip_micros: i64,
    role: Role,
    electorate: Electorate,
    /// What the others, and this node, have granted to this node.
    grants: BTreeMap<NodeId, Granted>,
    /// As long as it was alone it had authority, and a life longer.
    alone_until: Local,
    /// Until then others may hold samples of this node's reference.
    company_until: Local,
    /// Whom this node has granted to.
    granted: Option<(Claimant, Local)>,
    /// The highest reference that it consented to, when, and whose it was.
    heard: Option<(i64, Local, Claimant)>,
    /// What is on disk: no reference that this node has consented to has come so far.
    floor: Option<Timestamp>,
}

impl Reference {
    pub fn new(claimant: Claimant, began: Local, floor: Option<Timestamp>) -> Reference {
        Reference {
            claimant,
            began,
            known: None,
            master: None,
            elected: Local::NEVER,
            round_trip_micros: 0,
            role: Role::Follower,
            electorate: Electorate::default(),
            grants: BTreeMap::new(),
            alone_until: Local::NEVER,
            company_until: Local::NEVER,
            granted: None,
            heard: None,
            floor,
        }
    }

    pub fn claimant(&self) -> Claimant {
        self.claimant
    }

    pub fn read(&self, now: Local) -> Option<Interval> {
        let known = self.known.filter(|known| known.is_live(now))?;
        Some(known.at(now))
    }

    /// Why there is no reading.
    pub fn why_not(&self) -> &'static str {
        match (self.role, self.known) {
            (Role::Candidate, _) => "this node is about to become time master",
            (Role::Elect, _) if self.electorate.is_alone => {
                "the record of its time is not on its disk yet"
            }
            (Role::Elect, _) => "this node is time master and has lost the majority of voters",
            (Role::Follower, None) => "no sample of the time master yet",
            (Role::Follower, Some(_)) => "the last sample of the time master is too old",
        }
    }

    pub fn master(&self) -> Option<NodeId> {
        self.master
    }

    pub fn sample_age_micros(&self, now: Local) -> Option<i64> {
        let known = self.known.filter(|known| !known.is_own)?;
        Some(now.since(known.at))
    }

    pub fn round_trip_micros(&self) -> Option<i64> {
        self.known.filter(|known| !known.is_own)?;
        Some(self.round_trip_micros)
    }

    /// For how long this node is time master without further news.
    pub fn authority_micros(&self, now: Local) -> i64 {
        match self.known {
            // Who bends it by more than others expect gives no samples of it.
            Some(known) if known.slew_ppm.abs() > SLEW_PPM => 0,
            Some(known) if known.is_own && self.role == Role::Elect && now < known.until => {
                known.until.since(now).min(LIFE_MICROS)
            }
            _ => 0,
        }
    }

    pub fn is_master(&self, now: Local) -> bool {
        self.authority_micros(now) > 0
    }

    /// Everything that was known may be wrong.
    pub fn forget(&mut self, now: Local) {
        self.resign(now);
        self.known = None;
        self.master = None;
        self.claimant.life += 1;
    }

    /// This node does not lead the meta group, or should not be master. What it knows stays good to its end.
    pub fn resign(&mut self, now: Local) {
        self.role = Role::Follower;
        self.grants.clear();
        self.alone_until = Local::NEVER;
        self.electorate = Electorate::default();
        if let Some(known) = &mut self.known {
            // Who was alone had as long as its record.
            known.until = known.until.min(now.plus(LIFE_MICROS));
        }
    }

    /// This node leads the meta group: what it asks the others now. `None` where it is alone and asks nobody.
    pub fn lead(&mut self, now: Local, wall: i64, electorate: Electorate) -> Option<Claim> {
        let was_alone = self.electorate.is_alone;
        self.electorate = electorate;
        if self.electorate.is_alone {
            self.lead_alone(now, wall);
            return None;
        }
        self.company_until = now.plus(LIFE_MICROS);
        if let (true, Role::Elect, Some(known)) = (was_alone, self.role, self.known) {
            self.alone_until = now.plus(LIFE_MICROS).min(known.until);
        }
        if self.role == Role::Follower {
            self.role = Role::Candidate;
            self.grants.clear();
        }
        self.count(now, wall);
        self.slew(now, wall, SLEW_PPM);
        Some(match (self.role, self.known) {
            (Role::Elect, Some(known)) => Claim::Reference(known.at(now).latest),
            _ => Claim::Election,
        })
    }

    fn lead_alone(&mut self, now: Local, wall: i64) {
        if self.role != Role::Elect {
            let own = self.known.map(|known| known.at(now).latest.0);
            let floor = match planted::is(Bug::ForgetFloor) {
                true => None,
                false => self.floor.map(|floor| floor.0),
            };
            self.begin(now, own.or(floor.max(Some(wall))).unwrap_or(wall));
        }
        let is_watched = now < self.company_until;
        self.slew(
            now,
            wall,
            if is_watched { SLEW_PPM } else { SLEW_ALONE_PPM },
        );
        self.keep_below_floor();
    }

    /// Alone: the reading is good until it reaches what is on disk.
    fn keep_below_floor(&mut self) {
        if let Some(known) = &mut self.known {
            let floor = self.floor.unwrap_or(Timestamp::MIN);
            let left = floor.0.saturating_sub(known.latest).max(0);
            let faster = known.slew_ppm.max(0);
            let micros = i128::from(left) * 1_000_000 / i128::from(1_000_000 + faster);
            known.until = known.at.plus(i64::try_from(micros).unwrap_or(i64::MAX));
        }
    }

    /// What a lone node should have on disk by now, so that it can go on telling the time.
    pub fn wanted_floor(&self, now: Local) -> Option<Timestamp> {
        let known = self
            .known
            .filter(|_| self.electorate.is_alone && self.role == Role::Elect)?;
        let reading = known.at(now).latest;
        let is_low = self
            .floor
            .is_none_or(|floor| floor < reading.plus_micros(FLOOR_LEFT_MICROS));
        is_low.then(|| reading.plus_micros(FLOOR_AHEAD_MICROS))
    }

    fn begin(&mut self, now: Local, start: i64) {
        self.role = Role::Elect;
        self.master = Some(self.claimant.node);
        self.elected = now;
        // Nobody knows this reference yet.
        for granted in self.grants.values_mut() {
            granted.knows_reference = false;
        }
        self.known = Some(Known {
            at: now,
            earliest: start,
            latest: start,
            until: Local::NEVER,
            is_own: true,
            slew_ppm: 0,
        });
    }

    /// Follows the own wall clock, by so much at most. The reading has no steps: only its rate changes, so that what
    /// differs would be gone in a second.
    fn slew(&mut self, now: Local, wall: i64, slew_ppm_max: i64) {
        if let Some(known) = &mut self.known
            && known.is_own
        {
            let reading = known.at(now).latest.0;
            known.at = now;
            known.earliest = reading;
            known.latest = reading;
            let ahead = wall.saturating_sub(reading);
            known.slew_ppm = match (-SLEW_FROM_MICROS..=SLEW_FROM_MICROS).contains(&ahead) {
                true => 0,
                false => ahead.clamp(-slew_ppm_max, slew_ppm_max),
            };
        }
    }

    /// A claim of this node was granted. `asked` is from before the question left.
    pub fn granted_by(
        &mut self,
        voter: NodeId,
        claim: Claim,
        asked: Local,
        grant: Grant,
        (now, wall): (Local, i64),
    ) {
        let knows_reference = matches!(claim, Claim::Reference(_));
        // An answer that belongs to an earlier candidacy, or to an earlier reference.
        let is_stale = knows_reference && (self.role != Role::Elect || asked < self.elected);
        if self.role == Role::Follower || is_stale {
            return;
        }
        let until = asked.plus(LIFE_MICROS);
        let known = self.grants.get(&voter);
        if known.is_some_and(|known| known.until >= until && known.knows_reference) {
            return;
        }
        let granted = Granted {
            until,
            grant,
            knows_reference,
        };
        self.grants.insert(voter, granted);
        self.count(now, wall);
    }

    /// Counts the grants: whether they make this node elect, and how far its authority reaches.
    fn count(&mut self, now: Local, wall: i64) {
        if self.role == Role::Candidate && self.majority_until(false) > now {
            let start = self.start(now, wall);
            self.begin(now, start);
        }
        if self.role != Role::Elect || self.electorate.is_alone {
            return;
        }
        let authority = self.majority_until(true).max(self.alone_until);
        if let Some(known) = &mut self.known {
            known.until = authority;
        }
        if authority <= now && self.majority_until(false) <= now {
            // Somebody else may be elected by now.
            self.role = Role::Candidate;
            self.grants.retain(|_, granted| granted.until > now);
        }
    }

    /// Until when a majority of the voters stands by this node.
    fn majority_until(&self, knows_reference: bool) -> Local {
        let voters = &self.electorate.voters;
        let mut ends: Vec<Local> = voters
            .iter()
            .map(|voter| match self.grants.get(voter) {
                Some(granted) if granted.knows_reference || !knows_reference => granted.until,
                _ => Local::NEVER,
            })
            .collect();
        ends.sort_unstable_by(|one, other| other.cmp(one));
        ends.get(voters.len() / 2).copied().unwrap_or(Local::NEVER)
    }

    /// Where the reference of a new master begins.
    fn start(&self, now: Local, wall: i64) -> i64 {
        let live = self.grants.values().filter(|granted| granted.until > now);
        let bound = live.clone().map(|granted| granted.grant.bound.0).max();
        let own = self.known.map(|known| known.at(now).latest.0);
        let is_cold = own.is_none() && live.clone().all(|granted| granted.grant.is_cold);
        let first = is_cold.then_some(wall);
        bound.max(own).max(first).unwrap_or(wall)
    }

    /// Another node, or this one, claims to be master. `leader` is the meta group's, as far as this node knows.
    pub fn consider(
        &mut self,
        from: Claimant,
        claim: Claim,
        now: Local,
        leader: Option<NodeId>,
    ) -> Option<Considered> {
        let waits = !planted::is(Bug::NewMasterDoesNotWait);
        if leader.is_some_and(|leader| leader != from.node) {
            return None;
        }
        let holder = self.granted.filter(|(_, until)| now < *until);
        let is_held = holder.is_some_and(|(holder, _)| holder != from);
        let is_fresh = self.granted.is_none() && now.since(self.began) < GRANT_MICROS;
        if (is_held || (is_fresh && claim == Claim::Election)) && waits {
            return None;
        }
        let grant = match holder {
            // Its own reference goes on.
            Some((holder, _)) if holder == from && self.has_heard_from(from) => Grant {
                bound: Timestamp::MIN,
                is_cold: false,
            },
            _ => self.bound(now),
        };
        self.granted = Some((from, now.plus(GRANT_MICROS)));
        let mut floor = None;
        if let Claim::Reference(reference) = claim {
            // A claim that was long under way says nothing new.
            if self.heard.is_none_or(|(heard, ..)| heard < reference.0) {
                self.heard = Some((reference.0, now, from));
            }
            let end = reference.plus_micros(GRANT_MICROS);
            if self.floor.is_none_or(|floor| floor < end) {
                floor = Some(end.plus_micros(FLOOR_AHEAD_MICROS));
            }
        }
        Some(Considered { grant, floor })
    }

    fn has_heard_from(&self, claimant: Claimant) -> bool {
        self.heard.is_some_and(|(_, _, whose)| whose == claimant)
    }

    /// It is on disk.
    pub fn set_floor(&mut self, floor: Timestamp) {
        self.floor = self.floor.max(Some(floor));
        if self.electorate.is_alone && self.role == Role::Elect {
            self.keep_below_floor();
        }
    }

    /// What any reference that this node has consented to has stayed below.
    fn bound(&self, now: Local) -> Grant {
        match self.heard {
            Some((reference, at, _)) => {
                let age = match planted::is(Bug::NewMasterDoesNotWait) {
                    true => now.since(at),
                    false => now.since(at).max(GRANT_MICROS),
                };
                Grant {
                    bound: Timestamp(reference.saturating_add(age + drift(age))),
                    is_cold: false,
                }
            }
            None => Grant {
                bound: self.floor.unwrap_or(Timestamp::MIN),
                is_cold: true,
            },
        }
    }

    /// An exchange with the time master has ended. `replaces`: what is known does not hold beside it.
    pub fn take(&mut self, master: NodeId, sample: &Sample, now: Local, replaces: bool) {
        if self.role == Role::Elect || sample.authority_micros <= 0 {
            return;
        }
        let new = sample.known();
        if !new.is_live(now) {
            return;
        }
        let width = |known: Known| {
            let Interval { earliest, latest } = known.at(now);
            latest.0 - earliest.0
        };
        let keeps_old = self.known.is_some_and(|old| {
            !replaces
                && self.master == Some(master)
                && !old.is_own
                && now < old.until
                && now.since(old.at) < SAMPLE_AGE_MAX_MICROS
                && width(old) < width(new)
        });
        if !keeps_old {
            self.known = Some(new);
            self.master = Some(master);
            self.round_trip_micros = sample.round_trip_micros();
        }
    }
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
