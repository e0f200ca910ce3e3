//! Agreeing on what becomes of one partition: rounds of Paxos among its replicas, until nothing is left under way
//! that somebody else began. `crate::paxos` has the rules; here is who is asked, who is awaited, and for how long.
//!
//! ```text
//! settle:   prepare ─┬─ outbid ──────────────── back off, higher ballot
//!                    ├─ something under way ─── propose it again, commit it, once more
//!                    └─ nothing ─── what the last decision lacks is spread; the rows are merged and repaired
//! propose:  accept at a quorum, or not known
//! commit:   to all replicas, until the level is reached
//! ```
//!
//! A round trip each: so a serial read takes one where nothing is under way, and a compare-and-set two before its
//! commit.

use super::write::{Decided, Part};
use super::{Coordinator, Failure};
use crate::grace::{change_expires, hint_expires};
use crate::level::{Place, Places, Purpose, Required};
use crate::merge::{Merged, reconcile};
use crate::message::{Action, Page, RawRow, ReplicaError, ReplicaRead, Reply, Request};
use crate::partition::Layout;
use crate::paxos::{
    Ballot, Electorate, PaxosReply, PaxosRequest, Promise, Proposal, Survey, Tally, survey,
};
use crate::peers::spawn;
use api::{Broken, Error, Level, Outcome, Retry, WriteStep};
use catalog::Table;
use cluster::Tablet;
use model::{ReplicaId, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use world::planted::{self, Bug};

/// Who has not answered a step within this is not waited for any longer: a new ballot may find others.
const STEP_PATIENCE: Duration = Duration::from_secs(1);
/// A decision has at least so long to reach as many replicas as its level asks for, however late it was made.
const COMMIT_PATIENCE_MIN: Duration = Duration::from_secs(2);
/// After each lost round a proposer waits up to twice as long, at most this.
const BACKOFF_MIN: Duration = Duration::from_millis(4);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Whatever a table's `gc_grace`, what was proposed so recently is never too old.
const KEPT_SECONDS_MIN: i64 = 60;

/// What is to be agreed upon, and by whom.
pub(super) struct Subject<'a> {
    pub coordinator: &'a Coordinator,
    pub table: &'a Table,
    pub layout: &'a Layout,
    /// The key of the partition's header.
    pub partition: Vec<u8>,
    /// `Serial` or `LocalSerial`.
    pub level: Level,
    /// What is read with each promise.
    pub read: ReplicaRead,
    pub deadline: Instant,
}

/// One client's business with one partition.
pub(super) struct Agreement<'a> {
    coordinator: &'a Coordinator,
    table: &'a Table,
    layout: &'a Layout,
    partition: Vec<u8>,
    level: Level,
    read: ReplicaRead,
    deadline: Instant,
    /// The next ballot lies above this.
    floor: Timestamp,
    /// Rounds that were lost to others.
    losses: u32,
    /// A newer placement than the map had.
    placement: Option<Arc<Tablet>>,
    /// How often others' ballots came in between.
    contentions: u32,
    /// Votes of the last step that fell short, for the error.
    tally: Option<Tally>,
}

/// A quorum's promise, with nothing under way.
pub(super) struct Settled {
    tablet: Arc<Tablet>,
    places: Places,
    electorate: Electorate,
    pub ballot: Ballot,
    pub now_seconds: i64,
    pub last: Option<Proposal>,
    pub merged: Merged,
}

/// Why an agreement did not come about.
pub(super) enum Ended {
    /// Too few votes in time, or too much contention.
    Timeout,
    Error(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::Error(error)
    }
}

/// How a proposal fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vote {
    Decided,
    /// Nobody has accepted it, and nobody will.
    Rejected,
    /// Some may have accepted it: it may be decided yet, by others.
    Open,
}

/// The answers to one step, as far as they were waited for.
#[derive(Default)]
struct Poll {
    replies: Vec<(Place, Reply)>,
    outbid: Option<Ballot>,
    newer: Option<Tablet>,
    /// Replicas that have done nothing, for certain.
    idle: usize,
    asked: usize,
    tally: Option<Tally>,
}

impl Poll {
    fn votes(&self) -> Vec<ReplicaId> {
        let votes = self.replies.iter().map(|(place, _)| place.replica.id);
        votes.collect()
    }
}

impl<'a> Agreement<'a> {
    pub fn new(subject: Subject<'a>) -> Agreement<'a> {
        let Subject {
            coordinator,
            table,
            layout,
            partition,
            level,
            read,
            deadline,
        } = subject;
        Agreement {
            coordinator,
            table,
            layout,
            partition,
            level,
            read,
            deadline,
            floor: Timestamp::MIN,
            losses: 0,
            placement: None,
            contentions: 0,
            tally: None,
        }
    }

    /// The next ballot will be later than this.
    pub fn raise(&mut self, floor: Timestamp) {
        self.floor = self.floor.max(floor);
    }

    pub fn write_timeout(&self, outcome: Outcome) -> Error {
        let Tally { required, received } = self.tally();
        Error::Retry(Retry::WriteTimeout {
            level: self.level,
            required,
            received,
            outcome,
            step: WriteStep::Agreement {
                contentions: self.contentions,
            },
        })
    }

    pub fn read_timeout(&self) -> Error {
        let Tally { required, received } = self.tally();
        Error::Retry(Retry::ReadTimeout {
            level: self.level,
            required,
            received,
            data_present: false,
        })
    }

    /// Of the last step that fell short; before there was any, of nobody's votes.
    fn tally(&self) -> Tally {
        self.tally.unwrap_or_else(|| match self.tablet() {
            Ok(tablet) => {
                let places = Places::new(&tablet, self.coordinator.peers.as_ref());
                Electorate::of(self.level, &places).tally(&[])
            }
            Err(_) => Tally {
                required: 1,
                received: 0,
            },
        })
    }

    /// A quorum's promise for a new ballot, what others had begun finished, and the rows as a quorum knows them.
    pub async fn settle(&mut self) -> Result<Settled, Ended> {
        loop {
            let tablet = self.tablet()?;
            let places = Places::new(&tablet, self.coordinator.peers.as_ref());
            let electorate = Electorate::new(self.level, &places)?;
            let node = self.coordinator.peers.this_node();
            let ballot = self.coordinator.gateway.next_ballot(node, self.floor);
            let request = PaxosRequest::Prepare {
                partition: self.partition.clone(),
                ballot,
                read: self.read.clone(),
            };
            let poll = self.poll(&tablet, &places, &electorate, request).await;
            if !electorate.is_quorum(&poll.votes()) {
                self.lose(poll).await?;
                continue;
            }
            let (askers, promises, pages) = promised(poll)?;
            let mut settled = Settled {
                tablet,
                places,
                electorate,
                ballot,
                now_seconds: self.read.now_seconds,
                last: None,
                merged: Merged::default(),
            };
            match survey(&promises) {
                Survey::UnderWay { found, last } => {
                    settled.last = last;
                    let finished = self.finish(&settled, found).await?;
                    if !(planted::is(Bug::BallotReuse) && finished) {
                        continue;
                    }
                }
                Survey::Settled { last, knowing } => {
                    let knowing: Vec<ReplicaId> =
                        knowing.iter().map(|at| askers[*at].replica.id).collect();
                    settled.last = last;
                    if !self.spread(&settled, &knowing).await? {
                        continue;
                    }
                }
            }
            settled.merged = match self.merge(&settled, &askers, &pages).await? {
                Some(merged) => merged,
                None => continue,
            };
            return Ok(settled);
        }
    }

    /// A new proposal, to follow what was decided last.
    pub fn proposal(&self, settled: &Settled, deltas: Vec<RawRow>) -> Proposal {
        let new = Proposal::new(settled.ballot, deltas, settled.last.as_ref());
        new.among(self.deciding(settled))
    }

    /// The data centre that decides alone; `None`: all do.
    fn deciding<'s>(&self, settled: &'s Settled) -> Option<&'s str> {
        (self.level == Level::LocalSerial).then_some(&settled.places.local)
    }

    /// Asks a quorum to accept a proposal under a ballot that it has promised.
    pub async fn propose(&mut self, settled: &Settled, proposal: &Proposal) -> Result<Vote, Ended> {
        let request = PaxosRequest::Accept {
            partition: self.partition.clone(),
            proposal: proposal.clone(),
        };
        let Settled {
            tablet,
            places,
            electorate,
            ..
        } = settled;
        let poll = self.poll(tablet, places, electorate, request).await;
        let votes = poll.votes();
        if electorate.is_quorum(&votes)
            || (planted::is(Bug::CommitWithoutQuorum) && !votes.is_empty())
        {
            return Ok(Vote::Decided);
        }
        let vote = if poll.idle == poll.asked {
            Vote::Rejected
        } else {
            Vote::Open
        };
        match self.lose(poll).await {
            // The caller knows best what it means that there is no time left.
            Ok(()) | Err(Ended::Timeout) => Ok(vote),
            Err(error) => Err(error),
        }
    }

    /// Has all replicas merge a decision; returns when so many have as the level asks for. It stays decided
    /// whatever this returns.
    pub async fn commit(
        &self,
        settled: &Settled,
        decided: Proposal,
        level: Level,
    ) -> Result<(), Error> {
        let gc_grace_seconds = self.table.spec.gc_grace_seconds;
        let hint_age_max = self.coordinator.hints.limits().age_max_seconds;
        let made_at = decided.origin.timestamp.min(self.coordinator.gateway.now());
        let part = Part {
            tablet: Arc::clone(&settled.tablet),
            deltas: decided.deltas.clone(),
            decided: Some(Decided {
                partition: self.partition.clone(),
                proposal: decided,
            }),
            durability: self.table.spec.replication.durability,
            expires: change_expires(made_at, gc_grace_seconds),
            hint_expires: hint_expires(made_at, gc_grace_seconds, hint_age_max),
        };
        let deadline = self.deadline.max(Instant::now() + COMMIT_PATIENCE_MIN);
        let coordinator = self.coordinator.clone();
        if level == Level::Any {
            spawn(self.coordinator.peers.as_ref(), async move {
                // Whoever comes next finds the decision.
                let _ = coordinator.write_part(part, level, deadline).await;
            });
            return Ok(());
        }
        let tablet = Arc::clone(&part.tablet);
        let outcome = coordinator.write_part(part, level, deadline).await;
        outcome.map_err(|error| match error.outcome() {
            Outcome::Unknown => error,
            // Too few are alive by now: what is decided is not undone by that.
            Outcome::NotApplied => coordinator.unknown(&tablet, level),
        })
    }

    /// Whether a commit at this level could be carried out now.
    pub fn check_commit_level(&self, level: Level) -> Result<(), Error> {
        let tablet = self.tablet()?;
        let places = Places::new(&tablet, self.coordinator.peers.as_ref());
        match level {
            Level::Any => Ok(()),
            level => Required::new(level, Purpose::Write, &places).map(|_| ()),
        }
    }

    fn tablet(&self) -> Result<Arc<Tablet>, Error> {
        let known = self
            .coordinator
            .peers
            .tablet(self.table.root, &self.partition);
        match (known, &self.placement) {
            (Some(known), Some(told))
                if told.id == known.id
                    && told.epoch > known.epoch
                    && told.range.contains(&self.partition) =>
            {
                Ok(Arc::clone(told))
            }
            (Some(known), _) => Ok(known),
            (None, _) => Err(super::no_tablet(self.table)),
        }
    }

    fn request(&self, tablet: &Tablet, request: PaxosRequest) -> Request {
        Request {
            tablet: tablet.id,
            epoch: tablet.epoch,
            action: Action::Paxos(request),
        }
    }

    fn commit_request(&self, proposal: Proposal) -> PaxosRequest {
        PaxosRequest::Commit {
            partition: self.partition.clone(),
            proposal,
            durability: self.table.spec.replication.durability,
        }
    }

    /// Asks all members that are alive, until a quorum has done what was asked or too few are left that could.
    async fn poll(
        &self,
        tablet: &Tablet,
        places: &Places,
        electorate: &Electorate,
        request: PaxosRequest,
    ) -> Poll {
        let members = places.replicas.iter();
        let members = members.filter(|place| place.is_alive && electorate.has(place.replica.id));
        let mut could: Vec<ReplicaId> = members.clone().map(|place| place.replica.id).collect();
        let mut poll = Poll {
            asked: could.len(),
            ..Poll::default()
        };
        let request = self.request(tablet, request);
        let deadline = self.deadline.min(Instant::now() + STEP_PATIENCE);
        let (sender, mut receiver) = mpsc::channel(could.len().max(1));
        for place in members {
            let (coordinator, sender) = (self.coordinator.clone(), sender.clone());
            let (place, request) = (place.clone(), request.clone());
            spawn(self.coordinator.peers.as_ref(), async move {
                let outcome = coordinator.ask(&place, request, deadline).await;
                // A quorum may have answered without this one.
                let _ = sender.send((place, outcome)).await;
            });
        }
        drop(sender);
        while !electorate.is_quorum(&poll.votes()) && electorate.is_quorum(&could) {
            let Ok(Some((place, outcome))) = timeout_at(deadline, receiver.recv()).await else {
                break;
            };
            let id = place.replica.id;
            match outcome {
                Ok(Reply::Paxos(PaxosReply::Outbid(later))) => {
                    poll.idle += 1;
                    let known = poll.outbid.map(|known| known.timestamp);
                    if known.is_none_or(|known| known < later.timestamp) {
                        poll.outbid = Some(later);
                    }
                }
                Ok(reply) => {
                    poll.replies.push((place, reply));
                    continue;
                }
                Err(Failure::Refused(ReplicaError::StaleEpoch(newer))) => {
                    poll.idle += 1;
                    poll.newer = Some(newer);
                }
                Err(Failure::Refused(
                    ReplicaError::NoReplica(_)
                    | ReplicaError::NotYet(_)
                    | ReplicaError::Overloaded(_)
                    | ReplicaError::Invalid(_),
                )) => poll.idle += 1,
                Err(failure) => {
                    tracing::debug!(node = %place.replica.node, ?failure, "no vote");
                }
            }
            could.retain(|able| *able != id);
        }
        poll.tally = Some(electorate.tally(&poll.votes()));
        poll
    }

    /// After a step that too few have taken: learns from it, and waits until it is worth trying again.
    async fn lose(&mut self, poll: Poll) -> Result<(), Ended> {
        self.tally = poll.tally.or(self.tally);
        if let Some(later) = poll.outbid {
            self.contentions += 1;
            self.raise(later.timestamp);
        }
        if let Some(newer) = poll.newer {
            let placement = self
                .coordinator
                .newer_placement(newer, &self.partition, self.deadline);
            self.placement = Some(placement.await);
        } else {
            self.back_off().await;
        }
        if Instant::now() >= self.deadline {
            return Err(Ended::Timeout);
        }
        Ok(())
    }

    /// Up to twice as long after each loss; how long exactly differs between proposers and between attempts, so that
    /// one of them gets through.
    async fn back_off(&mut self) {
        self.losses += 1;
        let longest = BACKOFF_MIN
            .saturating_mul(1 << self.losses.min(10))
            .min(BACKOFF_MAX);
        let node = self.coordinator.peers.this_node();
        let draw = self.coordinator.gateway.next_ballot(node, self.floor);
        let seed = minicbor::to_vec(draw).expect("writing to memory does not fail");
        let drawn = model::murmur3::token(&seed) as u64 % (longest.as_micros() as u64).max(1);
        sleep(Duration::from_micros(drawn)).await;
    }

    /// Proposes again what somebody else began. True when it is decided and a quorum has merged it.
    async fn finish(&mut self, settled: &Settled, found: Proposal) -> Result<bool, Ended> {
        let proposal = if self.is_expired(&found) {
            // Its rows could raise what has been purged since. An empty proposal ends it.
            self.proposal(settled, Vec::new())
        } else {
            found.again(settled.ballot).among(self.deciding(settled))
        };
        if self.propose(settled, &proposal).await? != Vote::Decided {
            return Ok(false);
        }
        self.commit_to_quorum(settled, proposal, &[]).await
    }

    /// Has a quorum know the last decision, so that plain reads at QUORUM see what is shown here. False when that
    /// did not succeed.
    async fn spread(&mut self, settled: &Settled, knowing: &[ReplicaId]) -> Result<bool, Ended> {
        match &settled.last {
            Some(last) if !settled.electorate.is_quorum(knowing) && !self.is_expired(last) => {
                self.commit_to_quorum(settled, last.clone(), knowing).await
            }
            _ => Ok(true),
        }
    }

    async fn commit_to_quorum(
        &mut self,
        settled: &Settled,
        decided: Proposal,
        knowing: &[ReplicaId],
    ) -> Result<bool, Ended> {
        let Settled {
            tablet,
            places,
            electorate,
            ..
        } = settled;
        let request = self.commit_request(decided);
        // Who knows it merges it once more, which changes nothing; they count all the same.
        let poll = self.poll(tablet, places, electorate, request).await;
        let mut votes = poll.votes();
        votes.extend_from_slice(knowing);
        if electorate.is_quorum(&votes) {
            return Ok(true);
        }
        self.lose(poll).await?;
        Ok(false)
    }

    /// Whether its rows are too old to be merged again: tombstones that shadow them may have been purged.
    fn is_expired(&self, proposal: &Proposal) -> bool {
        let kept_seconds = i64::from(self.table.spec.gc_grace_seconds) / 2;
        let age = self.read.now_seconds - proposal.origin.timestamp.seconds();
        age > kept_seconds.max(KEPT_SECONDS_MIN)
    }

    /// The rows as all that promised know them together; who lacks some gets them first.
    async fn merge(
        &mut self,
        settled: &Settled,
        askers: &[Place],
        pages: &[Page],
    ) -> Result<Option<Merged>, Ended> {
        let reconciled = reconcile(self.layout, &self.read.rows, pages).map_err(broken)?;
        let lacking = askers.iter().zip(reconciled.repairs);
        let lacking = lacking.filter(|(_, deltas)| !deltas.is_empty());
        let repairs: Vec<(Place, Vec<RawRow>)> = lacking
            .map(|(place, deltas)| (place.clone(), deltas))
            .collect();
        if repairs.is_empty() {
            return Ok(Some(reconciled.merged));
        }
        let whole: Vec<ReplicaId> = askers
            .iter()
            .map(|place| place.replica.id)
            .filter(|id| repairs.iter().all(|(place, _)| place.replica.id != *id))
            .collect();
        let is_enough = self.repair(settled, repairs, whole).await;
        if !is_enough {
            self.lose(Poll::default()).await?;
            return Ok(None);
        }
        Ok(Some(reconciled.merged))
    }

    /// Writes back what replicas lack; true when a quorum has it all.
    async fn repair(
        &self,
        settled: &Settled,
        repairs: Vec<(Place, Vec<RawRow>)>,
        mut whole: Vec<ReplicaId>,
    ) -> bool {
        let deadline = self.deadline.min(Instant::now() + STEP_PATIENCE);
        let expires = change_expires(
            self.coordinator.gateway.now(),
            self.table.spec.gc_grace_seconds,
        );
        let (sender, mut receiver) = mpsc::channel(repairs.len());
        for (place, deltas) in repairs {
            let (coordinator, sender) = (self.coordinator.clone(), sender.clone());
            let request = Request {
                tablet: settled.tablet.id,
                epoch: settled.tablet.epoch,
                action: Action::Apply {
                    deltas,
                    durability: self.table.spec.replication.durability,
                    expires: Some(expires),
                },
            };
            spawn(self.coordinator.peers.as_ref(), async move {
                let is_done = coordinator.ask(&place, request, deadline).await.is_ok();
                let _ = sender.send((place.replica.id, is_done)).await;
            });
        }
        drop(sender);
        while !settled.electorate.is_quorum(&whole) {
            match timeout_at(deadline, receiver.recv()).await {
                Ok(Some((id, true))) => whole.push(id),
                Ok(Some((_, false))) => {}
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }
}

/// Takes the promises out of their replies.
#[allow(clippy::type_complexity)]
fn promised(poll: Poll) -> Result<(Vec<Place>, Vec<Promise>, Vec<Page>), Ended> {
    let (mut places, mut promises, mut pages) = (Vec::new(), Vec::new(), Vec::new());
    for (place, reply) in poll.replies {
        let Reply::Paxos(PaxosReply::Promised {
            accepted,
            committed,
            page,
        }) = reply
        else {
            return Err(broken("a ballot was not answered with a promise".into()).into());
        };
        places.push(place);
        promises.push(Promise {
            accepted,
            committed,
        });
        pages.push(page);
    }
    Ok((places, promises, pages))
}

fn broken(message: String) -> Error {
    Error::Broken(Broken {
        message,
        outcome: Outcome::NotApplied,
    })
}
