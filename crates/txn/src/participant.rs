//! A tablet's part in a transaction that spans several: it locks, prepares, decides, and is told.
//!
//! ```text
//! gateway ─┬─ Prepare → each tablet: evaluate, log the share ─┐
//!          └───────────────────────────────────────────────────┴→ Decide → coordinator: log the commit → answer
//!                                                                             └─ Resolve → the others, later
//! ```
//!
//! A share waits for no lock: what is prepared waits for its ending alone, so that others may wait for it. Where
//! locks are in the way the gateway takes all of them first, with nothing prepared, and then prepares again.
//! A tablet that was only read logs nothing: it vouches for what was read until its lease ends, and the commit
//! must lie below that.

use crate::command::{Control, Verdict, encode_control};
use crate::latches::Spans;
use crate::request::{CommandId, TabletError};
use crate::staging::{Staging, moment};
use crate::state::{State, Unheld};
use crate::step::{Attempt, Ending, Prepared, Share, Span, Step, Stepped, TabletStep};
use crate::tablet::{Inner, aborted, no_leader};
use crate::write::{self, CLOCK_MARGIN_MICROS, OnLock, Purpose, Task, wait_out};
use api::{Atomicity, Error, KeyRange, Locking, Outcome, Refused, Retry, TransactionId};
use catalog::{Catalog, Ordering};
use consensus::{Done, ProposeError};
use model::Timestamp;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};
use world::planted::{self, Bug};

pub(crate) async fn step(
    inner: &Arc<Inner>,
    request: &TabletStep,
    deadline: Instant,
) -> Result<Stepped, TabletError> {
    match &request.step {
        Step::Lock(share) => {
            inner.check_route(request.epoch)?;
            let catalog = inner.catalog(request.schema).await?;
            lock(inner, &catalog, share, deadline).await
        }
        Step::Prepare(share) => {
            inner.check_route(request.epoch)?;
            let catalog = inner.catalog(request.schema).await?;
            if share.mutations.is_empty() {
                return vouch(inner, &catalog, share, deadline).await;
            }
            prepare(inner, &catalog, share, deadline).await
        }
        Step::Decide {
            attempt,
            timestamp,
            before,
            is_external,
            participants,
        } => {
            inner.check_whole(request.epoch)?;
            let decision = Decided {
                attempt,
                timestamp: *timestamp,
                before: *before,
                is_external: *is_external,
                participants,
            };
            decide(inner, decision, deadline)
                .await
                .map(Stepped::Decided)
        }
        Step::Resolve { id, ending } => {
            inner.check_whole(request.epoch)?;
            let resolving = resolve(inner, *id, *ending);
            let resolved = timeout_at(deadline, resolving).await;
            resolved.map_err(|_| no_leader(Outcome::NotApplied))??;
            // Of keys that a split has taken away in the meantime, the other half knows nothing.
            inner.check_whole(request.epoch)?;
            Ok(Stepped::Done)
        }
        Step::Ask { id } => {
            inner.check_whole(request.epoch)?;
            let asked = timeout_at(deadline, ask(inner, *id)).await;
            let asked = asked.map_err(|_| no_leader(Outcome::NotApplied))??;
            // The half that holds the coordinator's key may know more.
            inner.check_whole(request.epoch)?;
            Ok(asked)
        }
        Step::Recall {
            kept_as,
            began,
            refuses,
        } => {
            inner.check_whole(request.epoch)?;
            let recalling = recall(inner, *kept_as, *began, *refuses);
            let recalled = timeout_at(deadline, recalling).await;
            let recalled = recalled.map_err(|_| no_leader(Outcome::NotApplied))??;
            // A half that has split off meanwhile is to be asked as well.
            inner.check_whole(request.epoch)?;
            Ok(recalled)
        }
        Step::Touch(transaction) => {
            let now_micros = inner.spec.clock.monotonic_micros();
            let mut state = inner.replica.state.lock();
            check_leads(&state)?;
            state.locks.touch(*transaction, now_micros);
            Ok(Stepped::Done)
        }
        Step::Release {
            transaction,
            committed_at,
        } => {
            let mut state = inner.replica.state.lock();
            check_leads(&state)?;
            if let (Some(holding), Some(timestamp)) = (&mut state.holding, committed_at)
                && !planted::is(Bug::ReaderForgetsCommit)
            {
                holding.promised = holding.promised.max(*timestamp);
            }
            state.locks.release(*transaction);
            Ok(Stepped::Done)
        }
    }
}

/// Only whoever leads has locks.
fn check_leads(state: &State) -> Result<(), TabletError> {
    match state.leader_term() {
        Err(Unheld::NotLeader(leader)) => Err(TabletError::NotLeaseholder {
            hint: leader.map(|leader| leader.node),
        }),
        _ => Ok(()),
    }
}

fn task<'a>(share: &'a Share, purpose: Purpose<'a>) -> Task<'a> {
    Task {
        id: share.attempt.id,
        is_kept: false,
        first_attempt: None,
        assertions: &share.assertions,
        transaction: Some(share.attempt.transaction),
        purpose,
    }
}

/// Refuses an attempt that was given up here, or may have been so long ago that nobody remembers.
fn check_attempt(inner: &Inner, attempt: &Attempt) -> Result<(), TabletError> {
    let state = inner.replica.state.lock();
    if state.endings.find(attempt.id).is_some() {
        return Err(aborted("the attempt has ended here"));
    }
    if !state.endings.reaches(attempt.began) {
        return Err(aborted("the attempt has taken too long"));
    }
    if state.endings.is_full() {
        return Err(TabletError::Api(Error::Retry(Retry::Overloaded(
            "too many transactions have ended of late".into(),
        ))));
    }
    Ok(())
}

/// Takes the locks of a share, with nothing prepared anywhere.
async fn lock(
    inner: &Inner,
    catalog: &Catalog,
    share: &Share,
    deadline: Instant,
) -> Result<Stepped, TabletError> {
    check_attempt(inner, &share.attempt)?;
    // Who waits here with a promise kept there is in the way of whoever does it the other way round.
    let (transaction, began) = (share.attempt.transaction, share.attempt.began);
    inner
        .replica
        .state
        .lock()
        .locks
        .withdraw(transaction, began);
    let staging = Staging::new(catalog, &share.mutations, &share.assertions, Atomicity::All)?;
    let task = task(share, Purpose::Commit);
    let latched = write::enter(inner, &task, &staging, OnLock::Wait, deadline).await?;
    let _latched = latched.ok_or(TabletError::Locked)?;
    let spans = staging.spans();
    let within = |served: &KeyRange| staging.is_within(served);
    let since = inner.promise_now(&within, staging.is_external())?;
    keep(inner, transaction, &spans, since)?;
    Ok(Stepped::Locked)
}

/// Locks spans that are latched and of which the way is clear.
pub(crate) fn keep(
    inner: &Inner,
    transaction: TransactionId,
    spans: &Spans,
    since: Timestamp,
) -> Result<(), TabletError> {
    let now_micros = inner.spec.clock.monotonic_micros();
    let mut state = inner.replica.state.lock();
    let locked = state.locks.lock(transaction, spans, since, now_micros);
    locked.map_err(|_| aborted("there are too many locks"))
}

pub(crate) fn point(key: Vec<u8>) -> KeyRange {
    KeyRange {
        end: Some(crate::keys::successor(&key)),
        start: key,
    }
}

/// The share of a tablet that was only read: nothing is logged, but what was read is kept as it is.
async fn vouch(
    inner: &Inner,
    catalog: &Catalog,
    share: &Share,
    deadline: Instant,
) -> Result<Stepped, TabletError> {
    let mut staging = Staging::new(catalog, &[], &share.assertions, Atomicity::All)?;
    let task = task(share, Purpose::Commit);
    let latched = write::enter(inner, &task, &staging, OnLock::GiveUp, deadline).await?;
    let Some(_latched) = latched else {
        return Ok(Stepped::Blocked);
    };
    inner.hold().await?;
    if !planted::is(Bug::ReadOnlyParticipantNotValidated) {
        write::load(inner, catalog, &task, &mut staging)?;
    }
    let is_external = share.assertions.iter().any(|assertion| {
        let table = catalog.table(assertion.table);
        table.is_some_and(|table| table.spec.replication.ordering == Ordering::External)
    });
    let within = |served: &KeyRange| staging.is_within(served);
    let since = inner.promise_now(&within, is_external)?;
    // Above all that it may have read.
    let timestamp = since.next();
    let transaction = share.attempt.transaction;
    keep(inner, transaction, &staging.spans(), since)?;
    let mut state = inner.replica.state.lock();
    // A split carries what is vouched for by then, and no more.
    if !staging.is_within(state.serving()) {
        drop(state);
        return Err(inner.stale_route());
    }
    let before = state.lease.end;
    state
        .locks
        .confirm(transaction, before, share.attempt.began);
    Ok(Stepped::Prepared(Prepared {
        timestamp,
        before,
        is_external,
        returned: Vec::new(),
    }))
}

async fn prepare(
    inner: &Inner,
    catalog: &Catalog,
    share: &Share,
    deadline: Instant,
) -> Result<Stepped, TabletError> {
    let mut staging = Staging::new(catalog, &share.mutations, &share.assertions, Atomicity::All)?;
    let is_external = staging.is_external();
    let task = task(share, Purpose::Prepare(&share.attempt));
    if let Some(prepared) = prepared_before(inner, catalog, &task, &mut staging).await? {
        return Ok(Stepped::Prepared(prepared));
    }
    check_attempt(inner, &share.attempt)?;
    let latched = write::enter(inner, &task, &staging, OnLock::GiveUp, deadline).await?;
    let Some(latched) = latched else {
        return Ok(Stepped::Blocked);
    };
    check_attempt(inner, &share.attempt)?;
    let staged = write::stage(inner, catalog, &task, &mut staging, latched);
    let staged = timeout_at(deadline, staged).await;
    match staged.map_err(|_| no_leader(Outcome::NotApplied))?? {
        write::Step::Answered { answer, shows } => {
            // What a refusal tells must not be ahead of a read that follows it.
            if let Some(shows) = shows {
                let passed = timeout_at(deadline, wait_out(inner, shows, is_external)).await;
                passed.map_err(|_| no_leader(Outcome::NotApplied))??;
            }
            match answer {
                Err(error) => Err(error.into()),
                // A share is proposed also when it changes nothing.
                Ok(_) => Err(no_leader(Outcome::NotApplied)),
            }
        }
        write::Step::Repeated(_) => Err(aborted("the attempt has ended here")),
        write::Step::Proposed {
            timestamp,
            answer,
            returned,
            ..
        } => {
            let answer = timeout_at(deadline, answer).await;
            let answer = answer.map_err(|_| no_leader(Outcome::Unknown))?;
            match write::applied(inner, answer.unwrap_or(Err(ProposeError::Unknown)))? {
                Verdict::Done => Ok(Stepped::Prepared(Prepared {
                    timestamp,
                    before: inner.replica.state.lock().lease.end,
                    is_external,
                    returned,
                })),
                Verdict::Ended(_) => Err(aborted("the attempt has ended here")),
                // Prepared by a request that came twice: it is asked for again.
                Verdict::Repeated | Verdict::OldEpoch => Err(no_leader(Outcome::NotApplied)),
            }
        }
    }
}

/// The answer to a request that came before and has prepared its share. The share keeps what it was made from, so
/// it is evaluated once more for what it returns.
async fn prepared_before(
    inner: &Inner,
    catalog: &Catalog,
    task: &Task<'_>,
    staging: &mut Staging<'_>,
) -> Result<Option<Prepared>, TabletError> {
    inner.hold().await?;
    let known = inner.replica.state.lock().prepared.get(&task.id).cloned();
    let Some(known) = known else {
        return Ok(None);
    };
    let timestamp = known.head.timestamp;
    let view = crate::versions::View::new(write::store(inner)?, Timestamp::MAX, || Timestamp::MIN);
    let wall_micros = inner.spec.clock.wall_micros();
    staging.load(catalog, &view, &[], wall_micros.div_euclid(1_000_000))?;
    let outcome = staging.evaluate(moment(timestamp, wall_micros))?;
    Ok(Some(Prepared {
        timestamp,
        before: inner.replica.state.lock().lease.end,
        is_external: staging.is_external(),
        returned: outcome.returned,
    }))
}

struct Decided<'a> {
    attempt: &'a Attempt,
    timestamp: Timestamp,
    before: Timestamp,
    is_external: bool,
    participants: &'a [Span],
}

/// What a coordinator does about a request to decide.
enum Decision {
    /// It was decided before.
    Known(Timestamp),
    /// A promise that the commit relies on may not hold any more.
    RunOut,
    Proposed(Timestamp, Proposal),
}

type Proposal = Pin<Box<dyn Future<Output = Result<Done, ProposeError>> + Send>>;

/// Commits, as the coordinator, if that is still possible; the answer is the commit timestamp, which has passed.
async fn decide(
    inner: &Arc<Inner>,
    decision: Decided<'_>,
    deadline: Instant,
) -> Result<Timestamp, TabletError> {
    let id = decision.attempt.id;
    let held = timeout_at(deadline, inner.hold()).await;
    held.map_err(|_| no_leader(Outcome::NotApplied))??;
    let timestamp = match propose_decision(inner, &decision)? {
        Decision::Known(timestamp) => timestamp,
        Decision::RunOut => {
            let given_up = timeout_at(deadline, resolve(inner, id, Ending::Aborted)).await;
            given_up.map_err(|_| no_leader(Outcome::NotApplied))??;
            return Err(aborted("its promises have run out"));
        }
        Decision::Proposed(timestamp, proposal) => {
            let outcome = timeout_at(deadline, proposal).await;
            let outcome = outcome.map_err(|_| no_leader(Outcome::Unknown))?;
            match write::applied(inner, outcome)? {
                Verdict::Done => timestamp,
                Verdict::Ended(Ending::Committed(known)) => known,
                _ => return Err(aborted("the coordinator has given it up")),
            }
        }
    };
    crate::recovery::tell_others(inner, id);
    let waiting = wait_out(inner, timestamp, decision.is_external);
    let waited = timeout_at(deadline, waiting).await;
    waited.map_err(|_| no_leader(Outcome::Unknown))??;
    Ok(timestamp)
}

fn propose_decision(inner: &Inner, decision: &Decided<'_>) -> Result<Decision, TabletError> {
    let attempt = decision.attempt;
    let _order = inner.proposing.lock();
    let now = inner.now()?;
    let state = inner.replica.state.lock();
    if state.check_held(now).is_err() {
        return Err(no_leader(Outcome::NotApplied));
    }
    match state.endings.find(attempt.id) {
        Some(Ending::Aborted) => return Err(aborted("the coordinator has given it up")),
        Some(Ending::Committed(timestamp)) => return Ok(Decision::Known(timestamp)),
        None => {}
    }
    // A part of the share may be here still, but who holds the coordinator's key decides.
    if !state.serving().contains(&attempt.coordinator.range.start) {
        drop(state);
        return Err(inner.stale_route());
    }
    let Some(prepared) = state.prepared.get(&attempt.id) else {
        // Were it decided, that would be known here, unless it is too long ago.
        return Err(match state.endings.reaches(attempt.began) {
            true => aborted("the coordinator has not prepared it"),
            false => no_leader(Outcome::Unknown),
        });
    };
    let timestamp = decision.timestamp.max(prepared.head.timestamp);
    let before = decision.before.min(state.lease.end);
    // At this moment all that was read still stands, so that whoever changes it comes after, in real time as well.
    let holds = timestamp < before && now.is_before(before);
    if !holds && !planted::is(Bug::CommitAbovePromises) {
        return Ok(Decision::RunOut);
    }
    let control = Control::Decide {
        epoch: state.lease.epoch,
        id: attempt.id,
        timestamp,
        participants: decision.participants.to_vec(),
    };
    drop(state);
    let tablet = inner.spec.tablet.id;
    let proposal = inner.spec.groups.propose(tablet, encode_control(&control));
    Ok(Decision::Proposed(timestamp, Box::pin(proposal)))
}

/// Takes in how an attempt ended; returns when that is durable.
pub(crate) async fn resolve(
    inner: &Inner,
    id: CommandId,
    ending: Ending,
) -> Result<(), TabletError> {
    inner.hold().await?;
    let proposal = {
        let _order = inner.proposing.lock();
        let now = inner.now()?;
        let state = inner.replica.state.lock();
        if state.endings.find(id).is_some() {
            return Ok(());
        }
        if state.check_held(now).is_err() {
            return Err(no_leader(Outcome::NotApplied));
        }
        let control = Control::Resolve {
            epoch: state.lease.epoch,
            id,
            ending,
            at: now.latest,
        };
        let tablet = inner.spec.tablet.id;
        inner.spec.groups.propose(tablet, encode_control(&control))
    };
    write::applied(inner, proposal.await)?;
    Ok(())
}

/// Says, as the coordinator, how an attempt ended. One of which nothing is known here is given up: if its
/// decision had been made, it would be kept until whoever asks knew of it.
async fn ask(inner: &Inner, id: CommandId) -> Result<Stepped, TabletError> {
    inner.hold().await?;
    {
        let state = inner.replica.state.lock();
        if planted::is(Bug::CoordinatorForgets) && !state.prepared.contains_key(&id) {
            return Ok(Stepped::Ended(Ending::Aborted));
        }
        if let Some(ending) = state.endings.find(id) {
            return Ok(Stepped::Ended(ending));
        }
        if let Some(decision) = state.decisions.get(&id) {
            return Ok(Stepped::Ended(Ending::Committed(decision.timestamp)));
        }
        if state.prepared.contains_key(&id) {
            return Ok(Stepped::Undecided);
        }
    }
    resolve(inner, id, Ending::Aborted).await?;
    let ending = inner.replica.state.lock().endings.find(id);
    Ok(ending.map_or(Stepped::Undecided, Stepped::Ended))
}

/// Says how a transaction has ended that is kept here; has it refused from now on, where that is asked for and nothing
/// speaks against it.
async fn recall(
    inner: &Inner,
    kept_as: CommandId,
    began: Timestamp,
    refuses: bool,
) -> Result<Stepped, TabletError> {
    inner.hold().await?;
    let proposal = {
        let _order = inner.proposing.lock();
        let now = inner.now()?;
        let state = inner.replica.state.lock();
        if state.check_held(now).is_err() {
            return Err(no_leader(Outcome::NotApplied));
        }
        let outcomes = &state.outcomes;
        let known = outcomes.find(kept_as);
        let may_refuse = refuses
            && !outcomes.is_full()
            && outcomes.reaches(began.plus_micros(-CLOCK_MARGIN_MICROS));
        match known {
            Some(_) => None,
            None if !may_refuse => return Ok(Stepped::Undecided),
            None => {
                let control = Control::Refuse {
                    epoch: state.lease.epoch,
                    kept_as,
                    at: now.latest,
                };
                let tablet = inner.spec.tablet.id;
                Some(inner.spec.groups.propose(tablet, encode_control(&control)))
            }
        }
    };
    if let Some(proposal) = proposal
        && write::applied(inner, proposal.await)? == Verdict::Repeated
    {
        // It is prepared here: how it ends is decided first.
        return Ok(Stepped::Undecided);
    }
    let known = inner.replica.state.lock().outcomes.find(kept_as);
    if let Some(Ending::Committed(timestamp)) = known {
        // What is told has passed, whatever the tables promise.
        wait_out(inner, timestamp, true).await?;
    }
    Ok(known.map_or(Stepped::Undecided, Stepped::Ended))
}

/// Spans that a range read or a point read locks.
pub(crate) fn read_spans(ranges: &[KeyRange], locking: Locking) -> Spans {
    let mut spans = Spans::default();
    let Locking {
        shared, exclusive, ..
    } = locking;
    for range in ranges {
        if !exclusive.is_empty() {
            match crate::locks::single_key(range) {
                Some(key) => spans.points.push((key.to_vec(), exclusive)),
                None => spans.ranges.push((range.clone(), exclusive)),
            }
        }
        // What is locked for a change is locked for the look at it.
        if !exclusive.contains(shared) {
            spans.shared.push((range.clone(), shared));
        }
    }
    spans
}

/// A transaction that locks takes strong reads alone.
pub(crate) fn not_strong() -> TabletError {
    TabletError::Api(Error::Refused(Refused::Invalid(
        "a locking read is a strong one".into(),
    )))
}
