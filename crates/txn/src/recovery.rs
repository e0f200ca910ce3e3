//! What becomes of transactions when those who drove them are gone: participants in doubt ask the coordinator, a
//! coordinator whose gateway is silent gives up, and decisions are carried to whoever has not heard of them.
//!
//! Runs on the leaseholder, as part of its upkeep, and does nothing while nothing is open.

use crate::command::{Control, encode_control};
use crate::participant::resolve;
use crate::request::CommandId;
use crate::step::{Ending, Span, Stepped};
use crate::tablet::Inner;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A piece of work that outlives the request that began it.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The other tablets, as the node reaches them.
#[async_trait]
pub trait Others: Send + Sync {
    /// Runs a task as part of the node: when the node stops, it stops.
    fn spawn(&self, task: Task);

    /// Tells all tablets that hold keys of the span how an attempt ended. True when it is durable at all of them,
    /// or the table is gone.
    async fn resolve(&self, span: &Span, id: CommandId, ending: Ending) -> bool;

    /// Asks the tablet that holds the coordinator's key. `None`: no answer, or the table is gone.
    async fn ask(&self, coordinator: &Span, id: CommandId) -> Option<Stepped>;
}

/// A participant that was not told within this time asks.
const IN_DOUBT: Duration = Duration::from_secs(2);
/// A coordinator waits so long for its gateway.
const GATEWAY_PATIENCE: Duration = Duration::from_secs(6);
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// A transaction that was not heard of for so long is over.
const IDLE_MICROS: u64 = 10_000_000;
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// What has been open, as this replica has seen it.
#[derive(Default)]
pub(crate) struct Watch {
    prepared: BTreeMap<CommandId, Seen>,
}

#[derive(Clone, Copy)]
struct Seen {
    since: Instant,
    /// When something is to be done about it next.
    due: Instant,
}

/// Looks at what is open. Says whether there is anything to look at again soon.
pub(crate) fn look(inner: &Arc<Inner>, watch: &mut Watch) -> bool {
    let Ok(now) = inner.spec.clock.now() else {
        return true;
    };
    let now_micros = inner.spec.clock.monotonic_micros();
    let (prepared, decisions, is_open) = {
        let mut state = inner.replica.state.lock();
        if state.check_held(now).is_err() {
            if state.leader_term().is_err() {
                watch.prepared.clear();
                return false;
            }
            let is_open = !state.prepared.is_empty() || !state.decisions.is_empty();
            return is_open && wake_lease(inner);
        }
        state
            .locks
            .expire(now_micros.saturating_sub(IDLE_MICROS), now);
        let prepared: Vec<(CommandId, Span)> = state
            .prepared
            .iter()
            .map(|(id, share)| (*id, share.head.coordinator.clone()))
            .collect();
        let finishing = &state.finishing;
        let decisions: Vec<CommandId> = state
            .decisions
            .keys()
            .filter(|id| !finishing.contains(id))
            .copied()
            .collect();
        let is_open = !state.locks.is_idle() || !state.decisions.is_empty();
        (prepared, decisions, is_open)
    };
    if is_open {
        inner.extend(now);
    }
    for id in decisions {
        tell_others(inner, id);
    }
    let before = std::mem::take(&mut watch.prepared);
    for (id, coordinator) in prepared {
        let is_mine = inner.decides(&inner.replica.state.lock(), &coordinator);
        let now = Instant::now();
        let mut seen = before.get(&id).copied().unwrap_or(Seen {
            since: now,
            due: now + if is_mine { GATEWAY_PATIENCE } else { IN_DOUBT },
        });
        if now >= seen.due {
            seen.due = now + ASK_INTERVAL;
            tracing::debug!(
                tablet = %inner.spec.tablet.id, ?id, open = ?seen.since.elapsed(), "in doubt"
            );
            let inner_there = inner.clone();
            inner.spec.others.spawn(Box::pin(async move {
                if is_mine {
                    // If it fails, the next look tries again.
                    let _ = resolve(&inner_there, id, Ending::Aborted).await;
                } else {
                    settle(&inner_there, &coordinator, id).await;
                }
            }));
        }
        watch.prepared.insert(id, seen);
    }
    is_open
}

/// A replica that leads and has something open takes the lease, though nobody asks for it.
fn wake_lease(inner: &Arc<Inner>) -> bool {
    let inner_there = inner.clone();
    inner.spec.others.spawn(Box::pin(async move {
        let _ = inner_there.hold().await;
    }));
    true
}

/// Finds out how a prepared attempt ended.
async fn settle(inner: &Inner, coordinator: &Span, id: CommandId) {
    if let Some(Stepped::Ended(ending)) = inner.spec.others.ask(coordinator, id).await {
        tracing::debug!(tablet = %inner.spec.tablet.id, ?id, ?ending, "no longer in doubt");
        let _ = resolve(inner, id, ending).await;
    }
}

/// Carries a decision to all participants, as a task, and forgets it when all know.
pub(crate) fn tell_others(inner: &Arc<Inner>, id: CommandId) {
    let decision = {
        let mut state = inner.replica.state.lock();
        let Some(decision) = state.decisions.get(&id).cloned() else {
            return;
        };
        if !state.finishing.insert(id) {
            return;
        }
        decision
    };
    let inner_there = inner.clone();
    inner.spec.others.spawn(Box::pin(async move {
        let inner = inner_there;
        let ending = Ending::Committed(decision.timestamp);
        let telling = decision
            .participants
            .iter()
            .map(|span| tell(&inner, span, id, ending));
        let all_know = futures::future::join_all(telling)
            .await
            .into_iter()
            .all(|it| it);
        if all_know {
            forget(&inner, id).await;
        }
        inner.replica.state.lock().finishing.remove(&id);
    }));
}

async fn tell(inner: &Inner, span: &Span, id: CommandId, ending: Ending) -> bool {
    let is_here = span.root == inner.spec.tablet.root && {
        let range = inner.replica.state.lock().range.clone();
        span.range.intersection(&range) == span.range
    };
    if is_here {
        // Its own share ended with the decision.
        return true;
    }
    let mut pause = RETRY_PAUSE;
    while !inner.spec.others.resolve(span, id, ending).await {
        let leads = {
            let state = inner.replica.state.lock();
            state.holding.is_some() && !state.is_stopped
        };
        if !leads {
            // A successor finds the decision in its state.
            return false;
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
    true
}

async fn forget(inner: &Inner, id: CommandId) {
    let proposed = {
        let _order = inner.proposing.lock();
        let Some(epoch) = inner
            .replica
            .state
            .lock()
            .holding
            .as_ref()
            .map(|it| it.epoch)
        else {
            return;
        };
        let control = Control::Forget {
            epoch,
            ids: vec![id],
        };
        let tablet = inner.spec.tablet.id;
        inner.spec.groups.propose(tablet, encode_control(&control))
    };
    // If it is lost, the participants are told once more.
    let _ = proposed.await;
}
