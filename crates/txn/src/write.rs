//! The path of a write: latch, read, evaluate, choose a timestamp, propose, answer when it is applied and its
//! timestamp has passed.

use crate::command::{Verdict, WriteEncoder};
use crate::latches::LatchId;
use crate::request::{TabletError, TabletWrite};
use crate::rows::Replica;
use crate::staging::{Staging, moment};
use crate::state::{Completion, State, Unheld};
use crate::tablet::{Inner, no_leader};
use crate::versions::View;
use api::{Error, Outcome, Retry, ReturnedRows, WriteResponse};
use catalog::Catalog;
use consensus::ProposeError;
use model::{Interval, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use world::Store;

/// The longest that back-pressure slows one write down.
const PRESSURE_DELAY_MAX: Duration = Duration::from_millis(50);
const PRESSURE_STOP: u32 = 1_000;
/// A commit timestamp may lie so far before the gateway's reading of its own clock.
const CLOCK_MARGIN_MICROS: i64 = 1_000_000;

/// A place in the line for latches; leaves it when dropped, unless the write that it was for was proposed.
struct Latched<'a> {
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
enum Step {
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
/// unknown.
pub(crate) async fn write(
    inner: &Inner,
    write: &TabletWrite,
    deadline: Instant,
) -> Result<WriteResponse, TabletError> {
    inner.check_route(write.epoch)?;
    let catalog = inner.catalog(write.schema).await?;
    let mut staging = Staging::new(
        &catalog,
        &write.mutations,
        &write.assertions,
        write.atomicity,
    )?;
    let is_external = staging.is_external();
    let prepared = timeout_at(deadline, prepare(inner, &catalog, write, &mut staging)).await;
    match prepared.map_err(|_| no_leader(Outcome::NotApplied))?? {
        Step::Answered { answer, shows } => {
            // Also what a refusal tells must not be ahead of a read that follows it.
            if let Some(shows) = shows {
                let passed = timeout_at(deadline, wait_out(inner, shows, is_external)).await;
                passed.map_err(|_| no_leader(Outcome::NotApplied))??;
            }
            Ok(answer?)
        }
        Step::Repeated(timestamp) => {
            let replayed = replay(inner, &staging, timestamp);
            let replayed = timeout_at(deadline, replayed).await;
            replayed.map_err(|_| no_leader(Outcome::Unknown))?
        }
        Step::Proposed {
            timestamp,
            answer,
            returned,
            refused,
        } => {
            let finished = async {
                applied(inner, answer.await.unwrap_or(Err(ProposeError::Unknown)))?;
                wait_out(inner, timestamp, is_external).await
            };
            let finished = timeout_at(deadline, finished).await;
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

async fn prepare(
    inner: &Inner,
    catalog: &Catalog,
    write: &TabletWrite,
    staging: &mut Staging<'_>,
) -> Result<Step, TabletError> {
    inner.hold().await?;
    slow_down(store(inner)?.as_ref()).await?;
    let mut latched = latch(inner, staging).await?;
    loop {
        inner.hold().await?;
        if let Some(timestamp) = earlier_attempt(inner, write)? {
            return Ok(Step::Repeated(timestamp));
        }
        if !staging.is_within(&inner.replica.state.lock().range) {
            return Err(inner.stale_route());
        }
        let latest = View::new(store(inner)?, Timestamp::MAX, || Timestamp::MIN);
        let wall_micros = inner.spec.clock.wall_micros();
        staging.load(catalog, &latest, wall_micros.div_euclid(1_000_000))?;
        check_assertions_kept(inner, write)?;
        if let Some(step) = propose(inner, write, staging, &mut latched)? {
            return Ok(step);
        }
    }
}

/// What has changed since a time before the history that is kept cannot be told. Asked after looking, since
/// history goes meanwhile.
fn check_assertions_kept(inner: &Inner, write: &TabletWrite) -> Result<(), TabletError> {
    let Some(oldest) = write.assertions.iter().map(|it| it.timestamp).min() else {
        return Ok(());
    };
    let history_micros = inner.spec.config.history_micros();
    if oldest < inner.now()?.earliest.plus_micros(-history_micros) {
        return Err(TabletError::Api(Error::Retry(Retry::Aborted(
            "what was read is older than the history that is kept".into(),
        ))));
    }
    Ok(())
}

fn store(inner: &Inner) -> Result<Arc<dyn Store>, TabletError> {
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

async fn latch<'a>(inner: &'a Inner, staging: &Staging<'_>) -> Result<Latched<'a>, TabletError> {
    let (latched, turn) = {
        let mut state = inner.replica.state.lock();
        if state.latches.len() >= inner.spec.config.waiting_max {
            return Err(TabletError::Api(Error::Retry(Retry::Overloaded(
                "too many writes wait for the same tablet".into(),
            ))));
        }
        let (id, turn) = state.latches.join(staging.spans());
        let latched = Latched {
            replica: &inner.replica,
            id,
            is_handed_over: false,
        };
        (latched, turn)
    };
    let Some(mut turn) = turn else {
        return Ok(latched);
    };
    // Who goes first may be waiting for a word that does not come any more, once leadership is lost.
    loop {
        let changed = inner.replica.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if let Err(Unheld::NotLeader(leader)) = inner.replica.state.lock().leader_term() {
            return Err(TabletError::NotLeaseholder {
                hint: leader.map(|leader| leader.node),
            });
        }
        tokio::select! {
            biased;
            _ = &mut turn => return Ok(latched),
            () = changed => {}
        }
    }
}

/// When an earlier attempt of this command was applied, if one was.
fn earlier_attempt(inner: &Inner, write: &TabletWrite) -> Result<Option<Timestamp>, TabletError> {
    let state = inner.replica.state.lock();
    if let Some(timestamp) = state.recent.find(write.command) {
        return Ok(Some(timestamp));
    }
    match write.first_attempt {
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

/// Chooses the timestamp, evaluates, and proposes: in one go, so that the log has commands in the order of their
/// timestamps. `None`: the lease ran out meanwhile.
fn propose(
    inner: &Inner,
    write: &TabletWrite,
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
    // Here too, for there may be no reads.
    state.forget_waited_out(now);
    let lease_end = state.lease.end;
    let extension = state.extension(now, inner.spec.config.lease_micros());
    let Some(holding) = &mut state.holding else {
        return Ok(None);
    };
    let epoch = holding.epoch;
    let earliest = if is_external {
        now.latest
    } else {
        now.earliest
    };
    let timestamp = earliest.max(holding.promised.next());
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
    let mut encoder = WriteEncoder::new(epoch, write.command, timestamp, extension);
    let has_effects = staging.encode(&mut encoder)?;
    holding.promised = timestamp;
    if !has_effects {
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
    let answer = state.propose(timestamp, latched.id, staging.spans(), is_external);
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
fn applied(inner: &Inner, completion: Completion) -> Result<(), TabletError> {
    match completion {
        Ok(done) => match Verdict::decode(&done.result) {
            Verdict::Done | Verdict::Repeated => Ok(()),
            Verdict::OldEpoch => Err(TabletError::NotLeaseholder { hint: None }),
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

/// Waits until the commit timestamp has passed: for certain where the table promises the order of real time;
/// else only if it was pushed ahead of the clock.
async fn wait_out(
    inner: &Inner,
    timestamp: Timestamp,
    is_external: bool,
) -> Result<(), TabletError> {
    loop {
        // It is applied: with a clock that fails, how it went is known, but not whether it may be told.
        let now = inner.now().map_err(|_| no_leader(Outcome::Unknown))?;
        let reached = if is_external {
            now.earliest.0 - 1
        } else {
            now.latest.0
        };
        if reached >= timestamp.0 {
            return Ok(());
        }
        sleep(Duration::from_micros((timestamp.0 - reached) as u64)).await;
    }
}
