//! The path of a write: latch, read, evaluate, choose a timestamp, propose, answer when it is applied and its
//! timestamp has passed.

use crate::command::{PrepareHead, Verdict, WriteEncoder};
use crate::latches::{LatchId, Spans};
use crate::locks::{WaitId, Way};
use crate::request::{CommandId, TabletError, TabletWrite};
use crate::rows::Replica;
use crate::staging::{Staging, moment};
use crate::state::{Completion, State, Unheld};
use crate::step::Attempt;
use crate::tablet::{Inner, aborted, no_leader};
use crate::versions::View;
use api::{Error, Outcome, ReadAssertion, Retry, ReturnedRows, TransactionId, WriteResponse};
use catalog::Catalog;
use consensus::ProposeError;
use model::{Interval, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use world::planted::{self, Bug};
use world::{ClockError, Store};

/// The longest that back-pressure slows one write down.
const PRESSURE_DELAY_MAX: Duration = Duration::from_millis(50);
const PRESSURE_STOP: u32 = 1_000;
/// A commit timestamp may lie so far before the gateway's reading of its own clock.
pub(crate) const CLOCK_MARGIN_MICROS: i64 = 1_000_000;
/// How often a clock that has no reading is looked at again.
const CLOCK_PAUSE: Duration = Duration::from_millis(5);

/// What is to be evaluated and proposed.
pub(crate) struct Task<'a> {
    pub id: CommandId,
    /// It is remembered that the command was applied.
    pub is_kept: bool,
    pub first_attempt: Option<Timestamp>,
    pub assertions: &'a [ReadAssertion],
    /// Whose locks are not in the way, but vouch for what was read.
    pub transaction: Option<TransactionId>,
    pub purpose: Purpose<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    Commit,
    /// Of a transaction that spans tablets: what comes out is kept until it is known how that ends.
    Prepare(&'a Attempt),
}

/// Whether a request may wait for locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLock {
    Wait,
    /// It may be prepared elsewhere, where others wait for it.
    GiveUp,
}

/// A place among those who wait for locks; leaves it when dropped.
struct Place<'a> {
    replica: &'a Replica,
    id: WaitId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.replica.state.lock().locks.stop_waiting(self.id);
    }
}

/// A place in the line for latches; leaves it when dropped, unless the write that it was for was proposed.
pub(crate) struct Latched<'a> {
    replica: &'a Replica,
    id: LatchId,
    is_handed_over: bool,
}

impl Drop for Latched<'_> {
    fn drop(&mut self) {
        if !self.is_handed_over {
            self.replica.state.lock().latches.release(self.id);
        }
    }
}

/// How a write stands after evaluation.
pub(crate) enum Step {
    /// Nothing had to be proposed.
    Answered {
        answer: Result<WriteResponse, Error>,
        /// The newest commit that it shows and that may not have passed yet.
        shows: Option<Timestamp>,
    },
    Proposed {
        timestamp: Timestamp,
        answer: oneshot::Receiver<Completion>,
        returned: Vec<ReturnedRows>,
        refused: Option<Error>,
    },
    /// An earlier attempt was applied then.
    Repeated(Timestamp),
}

/// Everything before the proposal can be given up without a trace; after it, what is not known is said to be
/// unknown. The locks here of a transaction that commits by it end with it: nobody need be told to release them.
pub(crate) async fn write(
    inner: &Inner,
    write: &TabletWrite,
    deadline: Instant,
) -> Result<WriteResponse, TabletError> {
    let release = || {
        if let Some(transaction) = write.transaction {
            inner.replica.state.lock().locks.release(transaction);
        }
    };
    inner.check_route(write.epoch)?;
    let catalog = inner.catalog(write.schema).await?;
    let mut staging = Staging::new(
        &catalog,
        &write.mutations,
        &write.assertions,
        write.atomicity,
    )?;
    let is_external = staging.is_external();
    let task = Task {
        id: write.command,
        is_kept: write.is_kept,
        first_attempt: write.first_attempt,
        assertions: &write.assertions,
        transaction: write.transaction,
        purpose: Purpose::Commit,
    };
    let latched = enter(inner, &task, &staging, OnLock::Wait, deadline).await?;
    let latched = latched.ok_or(TabletError::Locked)?;
    let staged = stage(inner, &catalog, &task, &mut staging, latched);
    let staged = timeout_at(deadline, staged).await;
    match staged.map_err(|_| no_leader(Outcome::NotApplied))?? {
        Step::Answered { answer, shows } => {
            // Also what a refusal tells must not be ahead of a read that follows it.
            if let Some(shows) = shows {
                let passed = timeout_at(deadline, wait_out(inner, shows, is_external)).await;
                passed.map_err(|_| no_leader(Outcome::NotApplied))??;
            }
            let answer = answer?;
            release();
            Ok(answer)
        }
        Step::Repeated(timestamp) => {
            let replayed = replay(inner, &staging, timestamp);
            let replayed = timeout_at(deadline, replayed).await;
            let replayed = replayed.map_err(|_| no_leader(Outcome::Unknown))??;
            release();
            Ok(replayed)
        }
        Step::Proposed {
            timestamp,
            answer,
            returned,
            refused,
        } => {
            let finished = async {
                let verdict = applied(inner, answer.await.unwrap_or(Err(ProposeError::Unknown)))?;
                if let Verdict::Ended(_) = verdict {
                    return Err(aborted("somebody was told that it was not committed"));
                }
                wait_out(inner, timestamp, is_external).await
            };
            let finished = timeout_at(deadline, finished).await;
            release();
            finished.map_err(|_| no_leader(Outcome::Unknown))??;
            match refused {
                Some(error) => Err(error.into()),
                None => Ok(WriteResponse {
                    commit_timestamp: Some(timestamp),
                    returned,
                }),
            }
        }
    }
}

/// Latches what the task works on, at a moment when no lock is in the way; `None` when one is and it may not wait.
pub(crate) async fn enter<'a>(
    inner: &'a Inner,
    task: &Task<'_>,
    staging: &Staging<'_>,
    on_lock: OnLock,
    deadline: Instant,
) -> Result<Option<Latched<'a>>, TabletError> {
    let holding = async {
        inner.hold().await?;
        slow_down(store(inner)?.as_ref()).await
    };
    let held = timeout_at(deadline, holding).await;
    held.map_err(|_| no_leader(Outcome::NotApplied))??;
    let spans = staging.spans();
    let occupying = occupy(inner, &spans, task.id, task.transaction, on_lock);
    let occupied = timeout_at(deadline, occupying).await;
    occupied.map_err(|_| TabletError::Locked)?
}

/// Reads, evaluates and proposes, under the latches.
pub(crate) async fn stage(
    inner: &Inner,
    catalog: &Catalog,
    task: &Task<'_>,
    staging: &mut Staging<'_>,
    mut latched: Latched<'_>,
) -> Result<Step, TabletError> {
    loop {
        inner.hold().await?;
        // First: of what a split has taken away, what an earlier attempt has left is not known here any more.
        if !staging.is_within(inner.replica.state.lock().serving()) {
            return Err(inner.stale_route());
        }
        if let Some(timestamp) = earlier_attempt(inner, task)? {
            return Ok(Step::Repeated(timestamp));
        }
        load(inner, catalog, task, staging)?;
        if let Some(step) = propose(inner, task, staging, &mut latched)? {
            return Ok(step);
        }
    }
}

/// Reads what evaluation needs, and makes sure that what the task relies on still stands.
pub(crate) fn load(
    inner: &Inner,
    catalog: &Catalog,
    task: &Task<'_>,
    staging: &mut Staging<'_>,
) -> Result<(), TabletError> {
    let is_kept = |assertion: &ReadAssertion| {
        task.transaction.is_some_and(|transaction| {
            let state = inner.replica.state.lock();
            let locks = &state.locks;
            let what = (&assertion.range, assertion.columns);
            locks.has_kept(transaction, what, assertion.timestamp)
        })
    };
    let unsure: Vec<&ReadAssertion> = task
        .assertions
        .iter()
        .filter(|assertion| !is_kept(assertion))
        .collect();
    let latest = View::new(store(inner)?, Timestamp::MAX, || Timestamp::MIN);
    let wall_micros = inner.spec.clock.wall_micros();
    staging.load(catalog, &latest, &unsure, wall_micros.div_euclid(1_000_000))?;
    check_assertions_kept(inner, &unsure)
}

/// What has changed since a time before the history that is kept cannot be told. Asked after looking, since
/// history goes meanwhile.
fn check_assertions_kept(inner: &Inner, unsure: &[&ReadAssertion]) -> Result<(), TabletError> {
    let Some(oldest) = unsure.iter().map(|it| it.timestamp).min() else {
        return Ok(());
    };
    let history_micros = inner.spec.config.history_micros();
    if oldest < inner.now()?.earliest.plus_micros(-history_micros) {
        return Err(aborted(
            "what was read is older than the history that is kept",
        ));
    }
    Ok(())
}

/// Latches the spans at a moment when no lock of another transaction is in the way, having wounded those that are
/// younger. While it waits for older ones it holds no latch, so that nobody waits for it.
pub(crate) async fn occupy<'a>(
    inner: &'a Inner,
    spans: &Spans,
    command: CommandId,
    transaction: Option<TransactionId>,
    on_lock: OnLock,
) -> Result<Option<Latched<'a>>, TabletError> {
    enum Next {
        Go,
        GiveUp,
        Wait(Option<oneshot::Receiver<()>>, Option<WaitId>),
    }
    let mut place: Option<Place<'a>> = None;
    let mut age = transaction;
    loop {
        let latched = latch(inner, spans.clone()).await?;
        let now = inner.now()?;
        let next = {
            let mut state = inner.replica.state.lock();
            let state = &mut *state;
            if transaction.is_some_and(|transaction| state.locks.is_wounded(transaction)) {
                return Err(aborted("an older transaction was in the way"));
            }
            if state.locks.is_idle() {
                return Ok(Some(latched));
            }
            // A single write is as old as its wait.
            let age = *age.get_or_insert(TransactionId {
                start: now.latest,
                node: command.node,
                incarnation: command.incarnation,
                request: command.request,
            });
            let held_place = place.as_ref().map(|place| place.id);
            let now_micros = inner.spec.clock.monotonic_micros();
            match state.locks.clear_way(spans, age, held_place, now_micros) {
                Way::Clear => Next::Go,
                Way::Blocked if on_lock == OnLock::GiveUp => Next::GiveUp,
                Way::Blocked => {
                    let id = held_place.unwrap_or_else(|| state.locks.wait(age, spans.clone()));
                    let is_new = held_place.is_none().then_some(id);
                    Next::Wait(state.locks.turn(id), is_new)
                }
            }
        };
        match next {
            Next::Go => return Ok(Some(latched)),
            Next::GiveUp => return Ok(None),
            Next::Wait(turn, new) => {
                drop(latched);
                if let Some(id) = new {
                    place = Some(Place {
                        replica: &inner.replica,
                        id,
                    });
                }
                match turn {
                    Some(turn) => await_turn(inner, turn).await?,
                    // Leadership was lost and found meanwhile: nobody knows of this place any more.
                    None => place = None,
                }
                inner.hold().await?;
            }
        }
    }
}

pub(crate) fn store(inner: &Inner) -> Result<Arc<dyn Store>, TabletError> {
    inner
        .replica
        .store()
        .ok_or(TabletError::NotLeaseholder { hint: None })
}

/// Smooth back-pressure: the fuller the store, the slower the writers, long before they would have to stop.
async fn slow_down(store: &dyn Store) -> Result<(), TabletError> {
    let pressure = store.pressure_permille();
    if pressure == 0 {
        return Ok(());
    }
    sleep(PRESSURE_DELAY_MAX * pressure.min(PRESSURE_STOP) / PRESSURE_STOP).await;
    if pressure >= PRESSURE_STOP && store.pressure_permille() >= PRESSURE_STOP {
        return Err(TabletError::Api(Error::Retry(Retry::Overloaded(
            "the store cannot keep up".into(),
        ))));
    }
    Ok(())
}

async fn latch<'a>(inner: &'a Inner, spans: Spans) -> Result<Latched<'a>, TabletError> {
    let (latched, turn) = {
        let mut state = inner.replica.state.lock();
        if state.latches.len() >= inner.spec.config.waiting_max {
            return Err(TabletError::Api(Error::Retry(Retry::Overloaded(
                "too many writes wait for the same tablet".into(),
            ))));
        }
        let (id, turn) = state.latches.join(spans);
        let latched = Latched {
            replica: &inner.replica,
            id,
            is_handed_over: false,
        };
        (latched, turn)
    };
    if let Some(turn) = turn {
        await_turn(inner, turn).await?;
    }
    Ok(latched)
}

/// Waits for a turn. Who goes first may be waiting for a word that does not come any more, once leadership is lost.
async fn await_turn(inner: &Inner, mut turn: oneshot::Receiver<()>) -> Result<(), TabletError> {
    loop {
        let changed = inner.replica.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        {
            let state = inner.replica.state.lock();
            if state.is_stopped {
                return Err(TabletError::NotLeaseholder { hint: None });
            }
            if let Err(Unheld::NotLeader(leader)) = state.leader_term() {
                return Err(TabletError::NotLeaseholder {
                    hint: leader.map(|leader| leader.node),
                });
            }
        }
        tokio::select! {
            biased;
            _ = &mut turn => return Ok(()),
            () = changed => {}
        }
    }
}

/// When an earlier attempt of this command was applied, if one was.
fn earlier_attempt(inner: &Inner, task: &Task<'_>) -> Result<Option<Timestamp>, TabletError> {
    let state = inner.replica.state.lock();
    if let Some(timestamp) = state.recent.find(task.id)
        && !planted::is(Bug::RetryAppliesTwice)
    {
        return Ok(Some(timestamp));
    }
    match task.first_attempt {
        Some(first)
            if !state
                .recent
                .reaches(first.plus_micros(-CLOCK_MARGIN_MICROS)) =>
        {
            Err(no_leader(Outcome::Unknown))
        }
        _ => Ok(None),
    }
}

/// Answers a command that an earlier attempt has applied.
async fn replay(
    inner: &Inner,
    staging: &Staging<'_>,
    timestamp: Timestamp,
) -> Result<WriteResponse, TabletError> {
    let store = store(inner)?;
    let before = timestamp.plus_micros(-1);
    let before = View::new(store.clone(), before, || Timestamp::MAX);
    let after = View::new(store, timestamp, || Timestamp::MAX);
    let returned = staging.replay(&before, &after)?;
    wait_out(inner, timestamp, staging.is_external()).await?;
    Ok(WriteResponse {
        commit_timestamp: Some(timestamp),
        returned,
    })
}

/// Refuses what is for a table that was sealed meanwhile. Under the lock that promises are made under: whoever has read
/// with the seal known here has seen all that is let through, or waits for it.
fn check_unsealed(inner: &Inner, staging: &Staging<'_>) -> Result<(), TabletError> {
    let catalog = inner.spec.catalog.borrow();
    match staging.is_sealed(&catalog) {
        true => Err(TabletError::Api(Error::Retry(Retry::StaleSchema {
            current: catalog.version,
        }))),
        false => Ok(()),
    }
}

/// Chooses the timestamp, evaluates, and proposes: in one go, so that the log has commands in the order of their
/// timestamps. `None`: the lease ran out meanwhile.
fn propose(
    inner: &Inner,
    task: &Task<'_>,
    staging: &mut Staging<'_>,
    latched: &mut Latched<'_>,
) -> Result<Option<Step>, TabletError> {
    let is_external = staging.is_external();
    let _order = inner.proposing.lock();
    let now = inner.now()?;
    let mut state = inner.replica.state.lock();
    if state.check_held(now).is_err() {
        return Ok(None);
    }
    check_unsealed(inner, staging)?;
    // Here too, for there may be no reads.
    state.forget_waited_out(now);
    let lease_end = state.lease.end;
    let extension = state.extension(now, inner.spec.config.lease_micros());
    let newest = state.newest;
    let Some(holding) = &mut state.holding else {
        return Ok(None);
    };
    let epoch = holding.epoch;
    let earliest = if is_external && !planted::is(Bug::NoCommitWait) {
        now.latest
    } else {
        now.earliest
    };
    let timestamp = earliest.max(holding.promised.next()).max(newest.next());
    if timestamp >= lease_end {
        return Err(TabletError::Api(Error::Retry(Retry::NotServing(
            "promises reach to the lease's end".into(),
        ))));
    }
    let moment = moment(timestamp, inner.spec.clock.wall_micros());
    let outcome = match staging.evaluate(moment) {
        Ok(outcome) => outcome,
        Err(error) => return Ok(Some(looked(&mut state, staging, now, Err(error)))),
    };
    let mut encoder = match task.purpose {
        Purpose::Commit => WriteEncoder::new(epoch, (task.id, task.is_kept), timestamp, extension),
        Purpose::Prepare(attempt) => {
            let spans = staging.spans();
            WriteEncoder::prepare(&PrepareHead {
                epoch,
                id: task.id,
                timestamp,
                lease_end: extension,
                transaction: attempt.transaction,
                coordinator: attempt.coordinator.clone(),
                points: spans.points.into_iter().map(|(key, _)| key).collect(),
                ranges: spans.ranges.into_iter().map(|(range, _)| range).collect(),
                shared: spans.shared.into_iter().map(|(range, _)| range).collect(),
                stamps: staging.stamps(),
                kept_as: attempt.kept_as,
            })
        }
    };
    let has_effects = staging.encode(&mut encoder)?;
    holding.promised = timestamp;
    if !has_effects && matches!(task.purpose, Purpose::Commit) {
        let answer = match outcome.refused {
            Some(error) => Err(error),
            None => Ok(WriteResponse {
                commit_timestamp: Some(timestamp),
                returned: outcome.returned,
            }),
        };
        return Ok(Some(looked(&mut state, staging, now, answer)));
    }
    holding.last_commit = timestamp;
    tracing::trace!(
        tablet = %inner.spec.tablet.id, node = %inner.spec.node, %epoch, %timestamp, "proposes"
    );
    let is_ahead = is_external || timestamp > now.earliest;
    let waits = is_ahead && matches!(task.purpose, Purpose::Commit);
    let answer = state.propose(timestamp, latched.id, staging.spans(), waits);
    latched.is_handed_over = true;
    drop(state);
    let replica = inner.replica.clone();
    inner.spec.groups.propose_with(
        inner.spec.tablet.id,
        encoder.finish(),
        Box::new(move |completion| {
            replica.state.lock().complete(timestamp, completion);
            replica.changed.notify_waiters();
        }),
    );
    Ok(Some(Step::Proposed {
        timestamp,
        answer,
        returned: outcome.returned,
        refused: outcome.refused,
    }))
}

/// The end of a write that changes nothing: its answer shows what it has looked at.
fn looked(
    state: &mut State,
    staging: &Staging<'_>,
    now: Interval,
    answer: Result<WriteResponse, Error>,
) -> Step {
    let looks_at = staging.spans();
    let shows = state.conflicts_waiting_out(now, Timestamp::MAX, &|spans| spans.changes(&looks_at));
    Step::Answered { answer, shows }
}

/// What became of a proposal, in the words of the tablet.
pub(crate) fn applied(inner: &Inner, completion: Completion) -> Result<Verdict, TabletError> {
    match completion {
        Ok(done) => match Verdict::decode(&done.result) {
            Verdict::OldEpoch => Err(TabletError::NotLeaseholder { hint: None }),
            verdict => Ok(verdict),
        },
        Err(ProposeError::NotLeader { leader }) => Err(TabletError::NotLeaseholder {
            hint: leader
                .map(|leader| leader.node)
                .filter(|node| *node != inner.spec.node),
        }),
        Err(ProposeError::Dropped | ProposeError::NoGroup) => {
            Err(TabletError::NotLeaseholder { hint: None })
        }
        Err(ProposeError::Overloaded) => Err(TabletError::Api(Error::Retry(Retry::Overloaded(
            "too many proposals are waiting".into(),
        )))),
        Err(ProposeError::Unknown) => Err(no_leader(Outcome::Unknown)),
    }
}

/// Waits until the commit timestamp has passed for certain. Where a table promises the order of real time, every write
/// does; else only one that a promise has pushed ahead of the clock: a snapshot at another node's present must have
/// all that was acknowledged before.
pub(crate) async fn wait_out(
    inner: &Inner,
    timestamp: Timestamp,
    is_external: bool,
) -> Result<(), TabletError> {
    loop {
        // It is applied: with a clock that fails, how it went is known, but not whether it may be told.
        let now = match inner.spec.clock.now() {
            Ok(now) => now,
            Err(ClockError::Unbounded(_)) => {
                sleep(CLOCK_PAUSE).await;
                continue;
            }
            Err(ClockError::Fenced(_)) => return Err(no_leader(Outcome::Unknown)),
        };
        let reached = match is_external {
            true if planted::is(Bug::NoCommitWait) => now.latest.0,
            true => now.earliest.0 - 1,
            false if planted::is(Bug::PushedCommitNotWaitedOut) => now.latest.0,
            false => now.earliest.0,
        };
        if reached >= timestamp.0 {
            return Ok(());
        }
        sleep(Duration::from_micros((timestamp.0 - reached) as u64)).await;
    }
}
