//! What one replica knows, shared between the machine that applies (below Raft) and the requests (above).
//! Pure: readings of the clock come in as arguments.

use crate::command::Prepare;
use crate::latches::{LatchId, Latches, Spans};
use crate::locks::Locks;
use crate::outcomes::Outcomes;
use crate::request::CommandId;
use crate::step::{Ending, Span};
use api::KeyRange;
use cluster::Tablet;
use consensus::{Leadership, Member, ProposeError};
use minicbor::{Decode, Encode};
use model::{Interval, LeaseEpoch, PlacementEpoch, ReplicaId, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;
use world::planted::{self, Bug};

/// Commands that are remembered, so that a repeated one is not applied again.
pub(crate) const COMMANDS_MAX: usize = 8_192;

/// A lease as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Lease {
    #[n(0)]
    pub epoch: LeaseEpoch,
    #[n(1)]
    pub holder: ReplicaId,
    #[n(2)]
    pub end: Timestamp,
    /// The holder gave it up: a successor need not wait, and starts above this.
    #[n(3)]
    pub released: Option<Timestamp>,
}

impl Default for Lease {
    /// Before the first lease.
    fn default() -> Lease {
        Lease {
            epoch: LeaseEpoch(0),
            holder: ReplicaId(0),
            end: Timestamp::MIN,
            released: Some(Timestamp::MIN),
        }
    }
}

impl Lease {
    /// Whether a successor may begin: nobody serves in this lease any more, whatever true time is.
    pub fn is_over(&self, now: Interval) -> bool {
        self.released.is_some()
            || now.is_after(self.end)
            || planted::is(Bug::NewLeaseholderDoesNotWait)
    }

    /// Above what a successor commits: nothing above it was promised to anyone.
    pub fn promised(&self) -> Timestamp {
        // Who does not wait forgets the predecessor altogether: what it promised would make each commit wait.
        if planted::is(Bug::LosePromised) || planted::is(Bug::NewLeaseholderDoesNotWait) {
            return Timestamp::MIN;
        }
        self.released.unwrap_or(self.end)
    }
}

/// Commands applied of late.
#[derive(Default)]
pub(crate) struct Recent {
    timestamps: BTreeMap<CommandId, Timestamp>,
    order: VecDeque<(Timestamp, CommandId)>,
}

impl Recent {
    pub fn find(&self, id: CommandId) -> Option<Timestamp> {
        self.timestamps.get(&id).copied()
    }

    /// Adds a command; returns the one that is forgotten for it.
    pub fn add(&mut self, timestamp: Timestamp, id: CommandId) -> Option<(Timestamp, CommandId)> {
        self.timestamps.insert(id, timestamp);
        self.order.push_back((timestamp, id));
        if self.order.len() <= COMMANDS_MAX {
            return None;
        }
        let oldest = self.order.pop_front()?;
        self.timestamps.remove(&oldest.1);
        Some(oldest)
    }

    /// All, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &(Timestamp, CommandId)> {
        self.order.iter()
    }

    pub fn newest(&self) -> Option<Timestamp> {
        self.order.back().map(|(timestamp, _)| *timestamp)
    }

    /// Whether a command that committed at or after this time would still be known.
    pub fn reaches(&self, timestamp: Timestamp) -> bool {
        self.order.len() < COMMANDS_MAX
            || self
                .order
                .front()
                .is_some_and(|(oldest, _)| *oldest < timestamp)
    }
}

/// A late message about an attempt to commit that began so long ago is refused. Endings are remembered for longer.
const ATTEMPT_MICROS_MAX: i64 = 20_000_000;
const ENDINGS_MICROS: i64 = 30_000_000;
/// Endings that are remembered; when there are more, nothing new is prepared for a while.
const ENDINGS_MAX: usize = 200_000;

/// How attempts to commit have ended that had a share here, for as long as a late message about one may come.
#[derive(Default)]
pub(crate) struct Endings {
    by_id: BTreeMap<CommandId, (Timestamp, Ending)>,
    order: BTreeSet<(Timestamp, CommandId)>,
}

impl Endings {
    /// All, oldest first.
    pub fn all(&self) -> impl Iterator<Item = (Timestamp, CommandId, Ending)> {
        let find = |(at, id): &(Timestamp, CommandId)| Some((*at, *id, self.find(*id)?));
        self.order.iter().filter_map(find)
    }

    pub fn find(&self, id: CommandId) -> Option<Ending> {
        self.by_id.get(&id).map(|(_, ending)| *ending)
    }

    /// Adds one; returns those that are forgotten by now.
    pub fn add(
        &mut self,
        at: Timestamp,
        id: CommandId,
        ending: Ending,
    ) -> Vec<(Timestamp, CommandId)> {
        if let Some((known, _)) = self.by_id.insert(id, (at, ending)) {
            self.order.remove(&(known, id));
        }
        self.order.insert((at, id));
        let horizon = self.newest().plus_micros(-ENDINGS_MICROS);
        let mut forgotten = Vec::new();
        while let Some(oldest) = self.order.first().copied().filter(|(at, _)| *at < horizon) {
            self.order.remove(&oldest);
            self.by_id.remove(&oldest.1);
            forgotten.push(oldest);
        }
        forgotten
    }

    pub fn newest(&self) -> Timestamp {
        self.order.last().map_or(Timestamp::MIN, |(at, _)| *at)
    }

    /// Whether the ending of an attempt that began then would still be known.
    pub fn reaches(&self, began: Timestamp) -> bool {
        began > self.newest().plus_micros(-ATTEMPT_MICROS_MAX)
    }

    pub fn is_full(&self) -> bool {
        self.by_id.len() >= ENDINGS_MAX
    }
}

/// A decision to commit that some participants may not know yet.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Decision {
    #[n(0)]
    pub timestamp: Timestamp,
    #[n(1)]
    pub participants: Vec<Span>,
}

/// What a proposed write waits for.
pub(crate) type Completion = Result<consensus::Done, ProposeError>;

struct InFlight {
    latch: LatchId,
    spans: Spans,
    answer: oneshot::Sender<Completion>,
    waits_out_the_clock: bool,
}

/// A lease that this replica holds, or held a moment ago.
pub(crate) struct Holding {
    pub epoch: LeaseEpoch,
    pub term: u64,
    /// The highest timestamp that was read, closed or committed.
    pub promised: Timestamp,
    pub last_commit: Timestamp,
    pub is_extending: bool,
    /// A split is proposed that leaves these keys here: nothing more is promised for others.
    pub divides_to: Option<KeyRange>,
}

pub(crate) struct State {
    pub leadership: Option<Leadership>,
    /// As applied.
    pub lease: Lease,
    pub applied_index: u64,
    pub applied_term: u64,
    /// All that commits from now on is above.
    pub closed: Timestamp,
    /// No row in the store is newer. Raised before a batch is applied, so that who reads it after taking a
    /// snapshot knows about all that the snapshot holds.
    pub newest: Timestamp,
    /// A closed timestamp that counts when its entry is applied.
    pub announced: Option<(LeaseEpoch, u64, Timestamp)>,
    pub recent: Recent,
    pub range: KeyRange,
    /// The right half of the last split, while the log does not say that it lives on its own.
    pub division: Option<Arc<Tablet>>,
    /// What was routed by an older placement may have meant keys that the last split has taken away.
    pub epoch_min: PlacementEpoch,
    /// What lies outside of the range may go once this entry is flushed: it must not come back as part of what
    /// others take for whole.
    pub forgets_at: Option<u64>,
    pub holding: Option<Holding>,
    pub is_acquiring: bool,
    pub latches: Latches,
    pub locks: Locks,
    /// Shares that are prepared here, as applied.
    pub prepared: BTreeMap<CommandId, Arc<Prepare>>,
    /// Decisions that were made here, as applied.
    pub decisions: BTreeMap<CommandId, Arc<Decision>>,
    pub endings: Endings,
    pub outcomes: Outcomes,
    /// Decisions whose participants are being told.
    pub finishing: BTreeSet<CommandId>,
    /// Writes that are proposed and not applied, by commit timestamp.
    in_flight: BTreeMap<Timestamp, InFlight>,
    /// Writes that are applied while their timestamp has not passed for certain.
    waiting_out: VecDeque<(Timestamp, Spans)>,
    pub is_stopped: bool,
}

/// Why a request cannot be served here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unheld {
    /// Another replica leads, or none.
    NotLeader(Option<Member>),
    /// This replica leads in this term, and must take a lease first.
    NeedsLease { term: u64 },
}

impl State {
    pub fn new(range: KeyRange) -> State {
        State {
            leadership: None,
            lease: Lease::default(),
            applied_index: 0,
            applied_term: 0,
            closed: Timestamp::MIN,
            newest: Timestamp::MIN,
            announced: None,
            recent: Recent::default(),
            range,
            division: None,
            epoch_min: PlacementEpoch(0),
            forgets_at: None,
            holding: None,
            is_acquiring: false,
            latches: Latches::default(),
            locks: Locks::default(),
            prepared: BTreeMap::new(),
            decisions: BTreeMap::new(),
            endings: Endings::default(),
            outcomes: Outcomes::default(),
            finishing: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            waiting_out: VecDeque::new(),
            is_stopped: false,
        }
    }

    pub fn leader_term(&self) -> Result<u64, Unheld> {
        match self.leadership {
            Some(Leadership::Leader { term }) => Ok(term),
            Some(Leadership::Follower { leader, .. }) => Err(Unheld::NotLeader(leader)),
            None => Err(Unheld::NotLeader(None)),
        }
    }

    /// Whether this replica holds the lease at this moment, whatever true time is.
    pub fn check_held(&self, now: Interval) -> Result<(), Unheld> {
        let holding = self.holding.as_ref();
        let is_current = holding.is_some_and(|holding| holding.epoch == self.lease.epoch);
        // The planted bug serves on when time is up, and when leadership is lost.
        if is_current && planted::is(Bug::ServeAfterLeaseEnd) {
            return Ok(());
        }
        let term = self.leader_term()?;
        let is_held = is_current
            && holding.is_some_and(|holding| holding.term == term)
            && self.lease.released.is_none()
            && now.is_before(self.lease.end);
        match is_held {
            true => Ok(()),
            false => Err(Unheld::NeedsLease { term }),
        }
    }

    /// Whether a split is proposed and not decided.
    pub fn is_dividing(&self) -> bool {
        self.holding
            .as_ref()
            .is_some_and(|holding| holding.divides_to.is_some())
    }

    /// The keys that this tablet may still be asked for.
    pub fn serving(&self) -> &KeyRange {
        let kept = self.holding.as_ref().and_then(|it| it.divides_to.as_ref());
        kept.unwrap_or(&self.range)
    }

    /// The new end that a command should carry, once half of the lease is gone.
    pub fn extension(&self, now: Interval, lease_micros: i64) -> Option<Timestamp> {
        let half = self.lease.end.plus_micros(-lease_micros / 2);
        (now.latest > half).then(|| now.latest.plus_micros(lease_micros))
    }

    /// Leadership changed: what was held is held no more. Requests that wait find out.
    pub fn lead(&mut self, leadership: Leadership) {
        let term = match leadership {
            Leadership::Leader { term } => Some(term),
            Leadership::Follower { .. } => None,
        };
        self.leadership = Some(leadership);
        let keeps = self
            .holding
            .as_ref()
            .is_some_and(|holding| Some(holding.term) == term);
        if !keeps {
            self.locks.clear();
        }
        if !keeps && !planted::is(Bug::ServeAfterLeaseEnd) {
            self.holding = None;
        }
    }

    /// Takes note of a write about to be proposed.
    pub fn propose(
        &mut self,
        timestamp: Timestamp,
        latch: LatchId,
        spans: Spans,
        waits_out_the_clock: bool,
    ) -> oneshot::Receiver<Completion> {
        let (answer, receiver) = oneshot::channel();
        let in_flight = InFlight {
            latch,
            spans,
            answer,
            waits_out_the_clock,
        };
        self.in_flight.insert(timestamp, in_flight);
        receiver
    }

    /// A proposed write has come to its end.
    pub fn complete(&mut self, timestamp: Timestamp, completion: Completion) {
        let Some(write) = self.in_flight.remove(&timestamp) else {
            return;
        };
        self.latches.release(write.latch);
        if completion.is_ok() && write.waits_out_the_clock {
            self.wait_out(timestamp, write.spans);
        }
        // Nobody listens when the client has gone.
        let _ = write.answer.send(completion);
    }

    /// Remembers a commit until its timestamp has passed for certain.
    pub fn wait_out(&mut self, timestamp: Timestamp, spans: Spans) {
        let later = self.waiting_out.iter().rev();
        let later = later.take_while(|(other, _)| *other > timestamp).count();
        let at = self.waiting_out.len() - later;
        self.waiting_out.insert(at, (timestamp, spans));
    }

    /// All that commits from now on, prepared shares included, is above what this returns for `closed`.
    pub fn held_back(&self, closed: Timestamp) -> Timestamp {
        if planted::is(Bug::ClosedPassesPrepared) {
            return closed;
        }
        match self.locks.prepared_from() {
            Some(first) => closed.min(first.plus_micros(-1)),
            None => closed,
        }
    }

    /// What the leaseholder commits from now on lies above all that is in the store.
    pub fn commits_above_newest(&mut self) {
        let newest = self.newest;
        if let Some(holding) = &mut self.holding {
            holding.promised = holding.promised.max(newest);
            holding.last_commit = holding.last_commit.max(newest);
        }
    }

    /// A lease that was released leaves commits behind whose timestamps have not passed yet, and nobody else remembers
    /// which: until the newest has passed, all keys count as changed by it.
    pub fn takes_over_waits(&mut self) {
        if planted::is(Bug::ShowBeforeItsTime) {
            return;
        }
        let everything = Spans::of_rows(&[], &[KeyRange::all()], &[]);
        self.wait_out(self.newest, everything);
    }

    pub fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether a write that commits at or before `at` and touches what `reads` selects is still under way.
    pub fn conflicts_in_flight(&self, at: Timestamp, reads: &dyn Fn(&Spans) -> bool) -> bool {
        self.in_flight
            .range(..=at)
            .any(|(_, write)| reads(&write.spans))
    }

    /// Forgets applied writes whose timestamps have passed for certain.
    pub fn forget_waited_out(&mut self, now: Interval) {
        while self
            .waiting_out
            .front()
            .is_some_and(|(timestamp, _)| now.is_after(*timestamp))
        {
            self.waiting_out.pop_front();
        }
    }

    /// The latest timestamp, not yet passed for certain, of an applied write that `reads` selects.
    pub fn conflicts_waiting_out(
        &mut self,
        now: Interval,
        at: Timestamp,
        reads: &dyn Fn(&Spans) -> bool,
    ) -> Option<Timestamp> {
        self.forget_waited_out(now);
        self.waiting_out
            .iter()
            .rev()
            .find(|(timestamp, spans)| *timestamp <= at && reads(spans))
            .map(|(timestamp, _)| *timestamp)
    }

    /// A leaseholder says what is closed.
    pub fn announce(&mut self, epoch: LeaseEpoch, index: u64, closed: Timestamp) {
        let is_newer = self
            .announced
            .is_none_or(|(known, _, timestamp)| (known, timestamp) < (epoch, closed));
        if is_newer {
            self.announced = Some((epoch, index, closed));
        }
        self.count_announced();
    }

    /// An announcement counts once its entry is applied, and only in its epoch.
    pub fn count_announced(&mut self) {
        if let Some((epoch, index, closed)) = self.announced
            && index <= self.applied_index
        {
            if epoch == self.lease.epoch {
                self.closed = self.closed.max(closed);
            }
            // An announcement of a later epoch waits for that epoch's first entry.
            if epoch <= self.lease.epoch {
                self.announced = None;
            }
        }
    }
}
