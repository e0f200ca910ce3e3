//! The path of a read: choose a timestamp that may be read here, wait for what commits below it, read.

use crate::idle;
use crate::latches::Spans;
use crate::participant;
use crate::reading::Reading;
use crate::request::{CommandId, TabletError, TabletRead};
use crate::state::Unheld;
use crate::tablet::{Inner, no_leader};
use crate::versions::View;
use crate::write::{self, OnLock};
use api::{
    ColumnSet, Error, KeyRange, Locking, Outcome, ReadBound, ReadResponse, Refused, Selection,
};
use catalog::Table;
use model::{Interval, LeaseEpoch, Timestamp};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use world::planted::{self, Bug};

/// Where a read is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// From what this replica has applied, whatever that is.
    Applied,
    /// At a timestamp at or below what is closed here.
    Closed(Timestamp),
    /// By the leaseholder: now, or then.
    Lease(Option<Timestamp>),
}

pub(crate) async fn read(
    inner: &Inner,
    read: &TabletRead,
    deadline: Instant,
) -> Result<ReadResponse, TabletError> {
    inner.check_route(read.epoch)?;
    let catalog = inner.catalog(read.schema).await?;
    let table = catalog
        .table(read.table)
        .ok_or_else(|| Error::Refused(Refused::NoTable(read.table.to_string())))?;
    let response = match read.locking {
        Some(locking) => locked(inner, table, read, locking, deadline).await,
        None => serve(inner, table, read, deadline).await,
    }?;
    // What a split takes away may be gone from the store while one reads.
    match is_within(inner.replica.state.lock().serving(), read) {
        true => Ok(response),
        false => Err(inner.stale_route()),
    }
}

async fn serve(
    inner: &Inner,
    table: &Table,
    read: &TabletRead,
    deadline: Instant,
) -> Result<ReadResponse, TabletError> {
    let is_external = table.spec.replication.ordering == catalog::Ordering::External;
    let mut planned = plan(inner, read, is_external)?;
    if matches!(planned, Plan::Lease(_))
        && let Some(at) = looks_back_to(inner, read)?
        && idle::close(inner, at, deadline).await?
    {
        planned = plan(inner, read, is_external)?;
    }
    match planned {
        Plan::Applied => {
            let mut response = read_at(inner, table, read, Timestamp::MAX)?;
            response.timestamp = None;
            Ok(response)
        }
        Plan::Closed(at) => {
            if is_external && !planted::is(Bug::ShowBeforeItsTime) {
                // What commits then may still be kept back from whoever asks at an earlier time elsewhere.
                let passed = timeout_at(deadline, write::wait_out(inner, at, true)).await;
                passed.map_err(|_| no_leader(Outcome::NotApplied))??;
            }
            read_history(inner, table, read, at)
        }
        Plan::Lease(then) => {
            let at = loop {
                inner.hold().await?;
                let (at, epoch) =
                    match promise(inner, &|served| is_within(served, read), then, is_external)? {
                        Promise::At(at, epoch) => (at, epoch),
                        Promise::Wait(wait) if Instant::now() + wait < deadline => {
                            sleep(wait).await;
                            continue;
                        }
                        Promise::Wait(_) => return Err(no_leader(Outcome::NotApplied)),
                    };
                tracing::trace!(
                    tablet = %inner.spec.tablet.id, node = %inner.spec.node, %epoch, %at, "reads"
                );
                inner.extend(inner.now()?);
                await_writes(inner, read, at, epoch).await?;
                // What is prepared may have been acknowledged elsewhere, ahead of this clock: where only
                // conflicts are ordered, a strong read waits for all of it, and looks again from there.
                let until = match then {
                    None if !is_external => Timestamp::MAX,
                    _ => at,
                };
                if !await_prepared(inner, read, until, epoch).await? || then.is_some() {
                    break at;
                }
            };
            let response = match then {
                Some(_) => read_history(inner, table, read, at)?,
                None => read_at(inner, table, read, at)?,
            };
            await_clock(inner, read, at).await?;
            Ok(response)
        }
    }
}

/// A read that locks what it reads: it waits for older transactions in its way, and reads the newest state, which
/// nobody changes until the transaction ends.
async fn locked(
    inner: &Inner,
    table: &Table,
    read: &TabletRead,
    locking: Locking,
    deadline: Instant,
) -> Result<ReadResponse, TabletError> {
    if !matches!(read.bound, ReadBound::Strong) {
        return Err(participant::not_strong());
    }
    let transaction = locking.transaction;
    let is_external = table.spec.replication.ordering == catalog::Ordering::External;
    let ranges: Vec<KeyRange> = match &read.selection {
        Selection::Keys(keys) => keys.iter().cloned().map(participant::point).collect(),
        Selection::Ranges(ranges) => ranges.clone(),
    };
    let spans = participant::read_spans(&ranges, locking);
    inner.hold().await?;
    let command = CommandId::default();
    let occupying = write::occupy(inner, &spans, command, Some(transaction), OnLock::Wait);
    let latched = match timeout_at(deadline, occupying).await {
        Ok(latched) => latched?,
        Err(_) => return Err(TabletError::Locked),
    };
    inner.hold().await?;
    let at = inner.promise_now(&|served| is_within(served, read), is_external)?;
    inner.extend(inner.now()?);
    participant::keep(inner, transaction, &spans, at)?;
    let response = read_at(inner, table, read, at)?;
    if let (Selection::Ranges(ranges), Some(_)) = (&read.selection, &response.next) {
        let covered = api::covered(&read.selection, read.direction, &response);
        let mut state = inner.replica.state.lock();
        for range in ranges {
            state.locks.narrow(transaction, range, &covered);
        }
    }
    drop(latched);
    await_clock(inner, read, at).await?;
    Ok(response)
}

impl Inner {
    /// Promises, as the leaseholder, that what commits from now on is above the timestamp returned, at which all
    /// that has committed can be read; if what it is for is `within` the keys that are served.
    pub fn promise_now(
        &self,
        within: Within<'_>,
        is_external: bool,
    ) -> Result<Timestamp, TabletError> {
        match promise(self, within, None, is_external)? {
            Promise::At(at, _) => Ok(at),
            Promise::Wait(_) => Err(no_leader(Outcome::NotApplied)),
        }
    }
}

/// Waits until nothing is prepared that may commit at or below the timestamp and touches what is read. Says
/// whether it had to wait.
async fn await_prepared(
    inner: &Inner,
    read: &TabletRead,
    until: Timestamp,
    epoch: LeaseEpoch,
) -> Result<bool, TabletError> {
    let mut has_waited = false;
    loop {
        let changed = inner.replica.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        {
            let state = inner.replica.state.lock();
            let holding = state.holding.as_ref();
            if state.is_stopped || holding.is_none_or(|holding| holding.epoch != epoch) {
                return Err(TabletError::NotLeaseholder { hint: None });
            }
            let is_prepared = state
                .locks
                .is_prepared(until, &|spans| touches(read, spans));
            if !is_prepared || planted::is(Bug::SnapshotIgnoresPrepared) {
                return Ok(has_waited);
            }
        }
        has_waited = true;
        changed.await;
    }
}

/// Whether something lies within a range of keys.
type Within<'a> = &'a (dyn Fn(&KeyRange) -> bool + Sync);

fn is_within(served: &KeyRange, read: &TabletRead) -> bool {
    match &read.selection {
        Selection::Keys(keys) => keys.iter().all(|key| served.contains(key)),
        Selection::Ranges(ranges) => ranges
            .iter()
            .all(|range| range.is_empty() || range.intersection(served) == *range),
    }
}

fn ago(now: Interval, micros: u64) -> Timestamp {
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    Timestamp(now.earliest.0.saturating_sub(micros))
}

/// The earliest timestamp at which a read of the past may be served.
fn looks_back_to(inner: &Inner, read: &TabletRead) -> Result<Option<Timestamp>, TabletError> {
    Ok(match read.bound {
        ReadBound::At(at) | ReadBound::MinTimestamp(at) => Some(at),
        ReadBound::ExactStaleness { micros } | ReadBound::MaxStaleness { micros } => {
            Some(ago(inner.now()?, micros))
        }
        ReadBound::Strong | ReadBound::Level(_) | ReadBound::Eventual => None,
    })
}

fn plan(inner: &Inner, read: &TabletRead, is_external: bool) -> Result<Plan, TabletError> {
    let now = match read.bound {
        ReadBound::Strong | ReadBound::Level(_) => return Ok(Plan::Lease(None)),
        ReadBound::Eventual => return Ok(Plan::Applied),
        _ => inner.now()?,
    };
    // Together: what is closed after a split says nothing about the keys that it has taken away.
    let closed = {
        let state = inner.replica.state.lock();
        if !is_within(state.serving(), read) {
            return Err(inner.stale_route());
        }
        state.closed
    };
    let ago = |micros| ago(now, micros);
    let exactly = |at: Timestamp| match at <= closed || planted::is(Bug::FollowerReadPastSafeTime) {
        true => Plan::Closed(at),
        false => Plan::Lease(Some(at)),
    };
    // Where the order of real time is promised, not at a time that may not have passed yet.
    let served_at_once = match is_external {
        true => closed.min(now.earliest.plus_micros(-1)),
        false => closed,
    };
    let at_least = |at: Timestamp| match at <= served_at_once {
        true => Plan::Closed(served_at_once),
        false if at <= now.earliest => Plan::Lease(None),
        false => Plan::Lease(Some(at)),
    };
    Ok(match read.bound {
        ReadBound::At(at) => exactly(at),
        ReadBound::ExactStaleness { micros } => exactly(ago(micros)),
        ReadBound::MaxStaleness { micros } => at_least(ago(micros)),
        ReadBound::MinTimestamp(at) => at_least(at),
        ReadBound::Strong | ReadBound::Level(_) | ReadBound::Eventual => Plan::Applied,
    })
}

enum Promise {
    /// Nothing will commit at or below this any more but what is under way in this lease.
    At(Timestamp, LeaseEpoch),
    /// The timestamp lies ahead.
    Wait(Duration),
}

/// Promises, as the leaseholder, that what commits from now on is above the timestamp to be read.
fn promise(
    inner: &Inner,
    within: Within<'_>,
    then: Option<Timestamp>,
    is_external: bool,
) -> Result<Promise, TabletError> {
    let now = inner.now()?;
    let mut state = inner.replica.state.lock();
    match state.check_held(now) {
        Ok(()) => {}
        Err(Unheld::NeedsLease { .. }) => return Ok(Promise::Wait(Duration::ZERO)),
        Err(Unheld::NotLeader(leader)) => {
            return Err(TabletError::NotLeaseholder {
                hint: leader.map(|leader| leader.node),
            });
        }
    }
    if !within(state.serving()) {
        return Err(inner.stale_route());
    }
    let Some(holding) = &mut state.holding else {
        return Ok(Promise::Wait(Duration::ZERO));
    };
    let at = match then {
        Some(then) if then > now.latest => {
            let wait = then.0.saturating_sub(now.latest.0) as u64;
            return Ok(Promise::Wait(Duration::from_micros(wait)));
        }
        Some(then) => then,
        None if is_external => now.latest.max(holding.last_commit),
        None => now.earliest.max(holding.last_commit),
    };
    holding.promised = holding.promised.max(at);
    Ok(Promise::At(at, holding.epoch))
}

/// Whether a write touches what is read.
fn touches(read: &TabletRead, spans: &Spans) -> bool {
    match &read.selection {
        Selection::Keys(keys) => keys.iter().any(|key| spans.writes(key, ColumnSet::ALL)),
        Selection::Ranges(ranges) => ranges
            .iter()
            .any(|range| spans.writes_in(range, ColumnSet::ALL)),
    }
}

/// Waits until no write at or below the timestamp is under way that touches what is read. If the lease is lost
/// meanwhile, nobody here knows what became of those writes.
async fn await_writes(
    inner: &Inner,
    read: &TabletRead,
    at: Timestamp,
    epoch: LeaseEpoch,
) -> Result<(), TabletError> {
    loop {
        let changed = inner.replica.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        {
            let state = inner.replica.state.lock();
            let holding = state.holding.as_ref();
            if state.is_stopped || holding.is_none_or(|holding| holding.epoch != epoch) {
                return Err(TabletError::NotLeaseholder { hint: None });
            }
            if !state.conflicts_in_flight(at, &|spans| touches(read, spans)) {
                return Ok(());
            }
        }
        changed.await;
    }
}

/// Waits with the writes that it has seen until their timestamps have passed for certain.
async fn await_clock(inner: &Inner, read: &TabletRead, at: Timestamp) -> Result<(), TabletError> {
    loop {
        let now: Interval = inner.now()?;
        let waits_for = inner
            .replica
            .state
            .lock()
            .conflicts_waiting_out(now, at, &|spans| touches(read, spans));
        match waits_for {
            None => return Ok(()),
            Some(timestamp) => {
                let wait = (timestamp.0 - now.earliest.0).max(0) as u64 + 1;
                sleep(Duration::from_micros(wait)).await;
            }
        }
    }
}

/// Reads the past, as far as it is kept; asked again afterwards, since it goes while one reads.
fn read_history(
    inner: &Inner,
    table: &Table,
    read: &TabletRead,
    at: Timestamp,
) -> Result<ReadResponse, TabletError> {
    check_kept(inner, at)?;
    let response = read_at(inner, table, read, at)?;
    check_kept(inner, at)?;
    Ok(response)
}

fn check_kept(inner: &Inner, at: Timestamp) -> Result<(), TabletError> {
    let history_micros = inner.spec.config.history_micros();
    let horizon = inner.now()?.earliest.plus_micros(-history_micros);
    if at < horizon {
        let kept_seconds = history_micros / 1_000_000;
        return Err(TabletError::Api(Error::Refused(Refused::TooOld(format!(
            "the read timestamp {at} lies before the history that is kept ({kept_seconds} s)"
        )))));
    }
    Ok(())
}

fn read_at(
    inner: &Inner,
    table: &Table,
    read: &TabletRead,
    at: Timestamp,
) -> Result<ReadResponse, TabletError> {
    let store = inner
        .replica
        .store()
        .ok_or(TabletError::NotLeaseholder { hint: None })?;
    let view = View::new(store, at, || inner.replica.state.lock().newest);
    let now_seconds = inner.spec.clock.wall_micros().div_euclid(1_000_000);
    let mut response = Reading::new(&view, table, read, now_seconds).run()?;
    response.timestamp = Some(at);
    Ok(response)
}
