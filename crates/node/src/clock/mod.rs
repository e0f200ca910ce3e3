//! The node's clock: what `World::clock` becomes once a node runs on it. Everything on the node reads this one.
//!
//! ```text
//!  txn, gateway ── now ──▶ NodeClock ── keeping ─┬─ reference   cluster time: samples, grants, handover
//!                             ▲                  ├─ trust       do the peers' clocks agree?
//!                 poll ───────┘                  └─ the wall clock, where somebody vouches for it
//!          (a few questions a second;
//!           fences, and takes the fence down)
//! ```
//!
//! What decides is pure (`keeping`, `reference`, `trust`); `poll` asks and answers.

mod keeping;
mod poll;
mod reference;
mod trust;

pub(crate) use poll::{answer, run, settle};
pub(crate) use reference::{Claim, Claimant, Grant};

use crate::rpc::{ClockAnswer, ClockPoll};
use keeping::{Exchange, Moment, Round, Surroundings, Timekeeping};
use model::{Incarnation, Interval, NodeId, Timestamp};
use parking_lot::Mutex;
use reference::{Considered, Local};
use std::sync::Arc;
use tokio::sync::Notify;
use trust::Trust;
use world::{Clock, ClockError, ClockSource};

/// A node forgets what it knew of cluster time less often than that between two starts.
const FORGOTTEN_BITS: u32 = 32;

/// How a node's clock stands, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockStatus {
    pub source: ClockSource,
    /// Half the width of the interval that true time lies in. `None`: there is no such interval.
    pub bound_micros: Option<i64>,
    /// How far this machine's wall clock is ahead of the time that the node keeps: cluster time, if that is the
    /// source.
    pub offset_micros: Option<i64>,
    /// Whose clock is the reference.
    pub master: Option<NodeId>,
    /// Since the time master was last asked, and how long it took; on other nodes than itself.
    pub sample_age_micros: Option<i64>,
    pub round_trip_micros: Option<i64>,
    /// Why the node has fenced itself.
    pub fenced: Option<String>,
    /// Why strong tables are not served now, fenced or not.
    pub error: Option<String>,
}

pub(crate) struct NodeClock {
    machine: Arc<dyn Clock>,
    keeping: Mutex<Timekeeping>,
    /// A doubt has arisen: ask now.
    doubt: Notify,
}

impl NodeClock {
    pub fn new(
        machine: Arc<dyn Clock>,
        (node, incarnation): (NodeId, Incarnation),
        floor: Option<Timestamp>,
    ) -> NodeClock {
        let life = incarnation.0 << FORGOTTEN_BITS;
        let claimant = Claimant { node, life };
        let began = Local(machine.monotonic_micros());
        NodeClock {
            keeping: Mutex::new(Timekeeping::new(claimant, machine.source(), began, floor)),
            machine,
            doubt: Notify::new(),
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            local: Local(self.machine.monotonic_micros()),
            wall: self.machine.wall_micros(),
            wall_error: match self.machine.source() {
                // Nobody reads it.
                ClockSource::Single | ClockSource::Cluster => Ok(0),
                _ => self.machine.wall_error_micros(),
            },
        }
    }

    /// Looks at the clocks with the lock held, so that moments come in order.
    fn with<T>(&self, act: impl FnOnce(&mut Timekeeping, &Moment) -> T) -> T {
        let mut keeping = self.keeping.lock();
        let moment = self.moment();
        act(&mut keeping, &moment)
    }

    /// What this clock says, trusted or not: for peers to compare with.
    pub fn raw(&self) -> Option<Interval> {
        self.with(|keeping, moment| keeping.read_raw(moment).ok())
    }

    /// The reading, or a guess where there is none: for what is only to be late enough.
    pub fn now_or_later(&self) -> Interval {
        self.with(|keeping, moment| {
            let reading = keeping.read(moment);
            reading.unwrap_or_else(|_| keeping.estimate(moment))
        })
    }

    /// Takes in a peer's reading that came with a message.
    pub fn heard(&self, peer: NodeId, reading: Option<Interval>, accuses: bool) {
        let Some(reading) = reading else {
            return;
        };
        if self.with(|keeping, moment| keeping.heard(peer, reading, accuses, moment)) {
            self.doubt.notify_one();
        }
    }

    fn round(&self, surroundings: &Surroundings) -> (Round, Local) {
        self.with(|keeping, moment| (keeping.round(moment, surroundings), moment.local))
    }

    fn ask(&self, peer: NodeId, claim: Option<Claim>) -> (Local, ClockPoll) {
        self.with(|keeping, moment| {
            let poll = ClockPoll {
                reading: keeping.read_raw(moment).ok(),
                accuses: keeping.comparisons().accuses(peer),
                claim,
                life: keeping.reference().claimant().life,
            };
            (moment.local, poll)
        })
    }

    fn answered(
        &self,
        peer: NodeId,
        (began, poll): (Local, &ClockPoll),
        asked: Local,
        answer: &ClockAnswer,
    ) {
        let exchange = Exchange {
            began,
            before: poll.reading,
            received: answer.received,
            sent: answer.sent,
            authority_micros: i64::try_from(answer.authority_micros).unwrap_or(0),
            master: answer.master,
        };
        let raises_doubt = self.with(|keeping, moment| {
            if let (Some(claim), Some(grant)) = (poll.claim, answer.grant) {
                keeping.granted_by(peer, (claim, asked), grant, moment);
            }
            keeping.exchanged(peer, &exchange, moment)
        });
        if raises_doubt {
            self.doubt.notify_one();
        }
    }

    fn claimant(&self) -> Claimant {
        self.keeping.lock().reference().claimant()
    }

    fn consider(&self, from: Claimant, claim: Claim, leader: Option<NodeId>) -> Option<Considered> {
        self.with(|keeping, moment| keeping.consider(from, claim, leader, moment.local))
    }

    fn granted_by(&self, voter: NodeId, claimed: (Claim, Local), grant: Grant) {
        self.with(|keeping, moment| keeping.granted_by(voter, claimed, grant, moment));
    }

    fn set_floor(&self, floor: Timestamp) {
        self.keeping.lock().set_floor(floor);
    }

    fn authority_micros(&self) -> u64 {
        self.with(|keeping, moment| {
            let micros = keeping.reference().authority_micros(moment.local);
            match keeping.comparisons().trust() {
                Trust::Trusted => micros.unsigned_abs(),
                // Nobody should follow a clock that may be wrong.
                Trust::Doubted { .. } | Trust::Fenced { .. } => 0,
            }
        })
    }

    fn master(&self) -> Option<NodeId> {
        self.keeping.lock().reference().master()
    }

    fn is_contradicted_by(&self, peer: NodeId) -> bool {
        self.keeping.lock().comparisons().contradicts(peer)
    }

    /// Why the node has fenced itself.
    pub fn fenced(&self) -> Option<String> {
        match self.keeping.lock().comparisons().trust() {
            Trust::Fenced { why, .. } => Some(why.clone()),
            Trust::Trusted | Trust::Doubted { .. } => None,
        }
    }

    pub fn status(&self) -> ClockStatus {
        self.with(|keeping, moment| {
            let reading = keeping.read(moment);
            let raw = keeping.read_raw(moment).ok();
            let half = |interval: &Interval| (interval.latest.0 - interval.earliest.0 + 1) / 2;
            let reference = keeping.reference();
            ClockStatus {
                source: keeping.source(),
                bound_micros: reading.as_ref().ok().map(half),
                offset_micros: raw.map(|raw| moment.wall - (raw.earliest.0 + half(&raw))),
                master: reference.master(),
                sample_age_micros: reference.sample_age_micros(moment.local),
                round_trip_micros: reference.round_trip_micros(),
                fenced: match keeping.comparisons().trust() {
                    Trust::Fenced { why, .. } => Some(why.clone()),
                    Trust::Trusted | Trust::Doubted { .. } => None,
                },
                error: reading.err().map(|error| error.to_string()),
            }
        })
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Result<Interval, ClockError> {
        self.with(Timekeeping::read)
    }

    fn wall_micros(&self) -> i64 {
        self.machine.wall_micros()
    }

    fn monotonic_micros(&self) -> u64 {
        self.machine.monotonic_micros()
    }

    fn source(&self) -> ClockSource {
        self.keeping.lock().source()
    }

    fn wall_error_micros(&self) -> Result<i64, ClockError> {
        self.machine.wall_error_micros()
    }
}

#[cfg(test)]
mod tests;
