//! Safe time of a tablet that nobody writes to: its lease has lapsed, and nothing is taken or logged for a read of the past.
//!
//! What commits after a moment lies above a margin before it, whoever commits it: a lease starts above what its
//! taker's clock says at the latest, less the margin. So a leader without a lease that is confirmed to have led at a
//! moment, with all of its log applied, knows all commits that will ever be at or below its earliest reading of that
//! moment, less the margin. It closes what lies there, and tells the other replicas.

use crate::request::TabletError;
use crate::rows::ClosedMessage;
use crate::state::{State, Unheld};
use crate::tablet::{Inner, no_leader};
use api::Outcome;
use model::{Interval, LeaseEpoch, Timestamp};
use tokio::time::{Instant, timeout_at};

/// More than clocks are uncertain by; where they are more so, the first commits of a lease wait for the difference.
const MARGIN_MICROS: i64 = 1_000_000;

/// All commits of a lease that is taken now lie above this.
pub(crate) fn starts_above(now: Interval) -> Timestamp {
    now.latest.plus_micros(-MARGIN_MICROS)
}

fn closes_up_to(now: Interval) -> Timestamp {
    now.earliest.plus_micros(-MARGIN_MICROS)
}

/// Closes what lies the margin behind now, if `at` does, and this replica leads a tablet that nobody holds. Says whether
/// `at` is closed.
pub(crate) async fn close(
    inner: &Inner,
    at: Timestamp,
    deadline: Instant,
) -> Result<bool, TabletError> {
    let now = inner.now()?;
    // Who reads where the lease is held, or follows, or asks for what is too near, waits for nobody.
    if at > closes_up_to(now) || idle_since(&inner.replica.state.lock(), now).is_none() {
        return Ok(false);
    }
    let is_closed = || at <= inner.replica.state.lock().closed;
    let closing = async {
        let _one_at_a_time = inner.confirming.lock().await;
        if is_closed() {
            return Ok(());
        }
        close_now(inner).await
    };
    let closed = timeout_at(deadline, closing).await;
    closed.map_err(|_| no_leader(Outcome::NotApplied))??;
    Ok(is_closed())
}

async fn close_now(inner: &Inner) -> Result<(), TabletError> {
    let (now, idle) = {
        let _order = inner.proposing.lock();
        let now = inner.now()?;
        (now, idle_since(&inner.replica.state.lock(), now))
    };
    let Some(idle) = idle else {
        return Ok(());
    };
    let Ok(confirmed) = inner.spec.groups.confirm(inner.spec.tablet.id).await else {
        // Whoever leads by now is found on the way to the lease.
        return Ok(());
    };
    let message = {
        let _order = inner.proposing.lock();
        let mut state = inner.replica.state.lock();
        // What had been proposed is applied by now: nobody has held the tablet since.
        if confirmed.term != idle.1 || idle_since(&state, now) != Some(idle) {
            return Ok(());
        }
        let closed = state.held_back(closes_up_to(now));
        if let Some(holding) = &mut state.holding {
            holding.promised = holding.promised.max(closed);
        }
        state.closed = state.closed.max(closed);
        ClosedMessage {
            epoch: state.lease.epoch,
            index: state.applied_index,
            closed,
        }
    };
    inner.tell_closed(message);
    Ok(())
}

/// The last lease and the term in which this replica leads, if that lease was over at the time and nothing is under way.
fn idle_since(state: &State, then: Interval) -> Option<(LeaseEpoch, u64)> {
    let Err(Unheld::NeedsLease { term }) = state.check_held(then) else {
        return None;
    };
    let is_idle = !state.is_stopped
        && !state.is_acquiring
        && state.applied_term == term
        && state.lease.is_over(then)
        && !state.has_in_flight()
        && !state.is_dividing();
    is_idle.then_some((state.lease.epoch, term))
}
