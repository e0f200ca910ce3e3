//! One request to one strong tablet: finding the leaseholder, and trying again while that is safe.
//!
//! A write keeps its command id over all attempts, so a tablet applies it at most once; if the patience runs
//! out after an attempt that may have been proposed, the outcome is reported as unknown.

use crate::core::{CallFailure, Core};
use crate::follow;
use crate::rpc::{Reply, Request};
use api::{
    Error, Outcome, Patience, ReadBound, ReadResponse, Refused, Retry, TransactionId, WriteResponse,
};
use cluster::Tablet;
use model::{NodeId, SchemaVersion, Timestamp};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use txn::{CommandId, Step, Stepped, TabletError, TabletRead, TabletStep, TabletWrite};

/// One node is waited for so long before another is asked.
const ATTEMPT_MS_MAX: u32 = 2_000;
/// So much longer than the node has time, its answer is waited for: that it had not enough is an answer too.
const ANSWER_GRACE: Duration = Duration::from_millis(100);
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// How a request to a tablet ended without an answer for the client.
pub(super) enum Ended {
    Error(Error),
    /// The tablet's range is not what the gateway thought: route again. Nothing was done.
    Rerouted,
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::Error(error)
    }
}

/// The way to a tablet: whom to ask next.
struct Path<'a> {
    core: &'a Core,
    tablet: &'a Tablet,
    deadline: Instant,
    attempt: u32,
    /// Any replica may do, for the first attempt.
    prefers_local: bool,
    /// Others held locks when it was asked last.
    is_locked: bool,
    /// Why the node that was asked last serves nothing.
    refusal: Option<String>,
}

impl<'a> Path<'a> {
    fn new(core: &'a Core, tablet: &'a Tablet, deadline: Instant) -> Path<'a> {
        Path {
            core,
            tablet,
            deadline,
            attempt: 0,
            prefers_local: false,
            is_locked: false,
            refusal: None,
        }
    }

    /// Why there is no more time.
    fn no_time(&self, is_ambiguous: bool) -> Ended {
        if self.is_locked && !is_ambiguous {
            let reason = "it waited too long for what others have locked";
            return Ended::Error(Error::Retry(Retry::Aborted(reason.into())));
        }
        match &self.refusal {
            Some(why) if !is_ambiguous => {
                Ended::Error(Error::Retry(Retry::NotServing(why.clone())))
            }
            _ => no_leader(is_ambiguous),
        }
    }

    fn target(&self) -> Option<NodeId> {
        let core = self.core;
        let is_replica = |node: NodeId| self.tablet.replica_on(node).is_some();
        if self.prefers_local && self.attempt == 0 && is_replica(core.node) {
            return Some(core.node);
        }
        let hint = core.hint(self.tablet.id);
        if let Some(hint) = hint.filter(|hint| is_replica(*hint) && core.views.is_alive(*hint)) {
            return Some(hint);
        }
        if self.attempt == 0 && is_replica(core.node) {
            return Some(core.node);
        }
        let alive: Vec<NodeId> = self
            .tablet
            .voters()
            .map(|voter| voter.node)
            .filter(|node| core.views.is_alive(*node))
            .collect();
        match alive.len() {
            0 => self.tablet.replicas.first().map(|replica| replica.node),
            count => Some(alive[self.attempt as usize % count]),
        }
    }

    fn remaining_ms(&self) -> u32 {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX)
    }

    /// The table was dropped while the request was under way.
    fn is_gone(&self) -> bool {
        self.attempt > 0 && self.core.view().state.tablet(self.tablet.id).is_none()
    }

    async fn pause(&mut self) {
        let pause = PAUSE_MIN * 2u32.saturating_pow(self.attempt.min(8));
        self.attempt += 1;
        let until = (Instant::now() + pause.min(PAUSE_MAX)).min(self.deadline);
        sleep_until(until).await;
    }

    /// Takes in that a node does not hold the lease.
    async fn not_there(&mut self, asked: NodeId, hint: Option<NodeId>) {
        let hint = hint.filter(|hint| *hint != asked && self.core.views.is_alive(*hint));
        self.core.set_hint(self.tablet.id, hint);
        if hint.is_none() || self.attempt > 2 {
            self.pause().await;
        } else {
            self.attempt += 1;
        }
    }
}

/// What to do about an attempt that failed.
enum Next {
    Again,
    End(Ended),
}

async fn after(core: &Core, path: &mut Path<'_>, asked: NodeId, error: TabletError) -> Next {
    path.is_locked = matches!(error, TabletError::Locked);
    match error {
        TabletError::Locked => Next::Again,
        TabletError::NotLeaseholder { hint } => {
            path.not_there(asked, hint).await;
            Next::Again
        }
        TabletError::StaleRoute(theirs) => {
            reroute(core, path, &theirs).await;
            Next::End(Ended::Rerouted)
        }
        TabletError::Api(Error::Retry(Retry::StaleSchema { current })) => {
            await_schema(core, current, path.remaining_ms()).await;
            Next::End(Ended::Error(Error::Retry(Retry::StaleSchema { current })))
        }
        TabletError::Api(Error::Retry(Retry::NoLeader { .. })) => {
            path.not_there(asked, None).await;
            Next::Again
        }
        TabletError::Api(Error::Retry(Retry::NotServing(why))) => {
            path.refusal = Some(format!("{asked}: {why}"));
            path.not_there(asked, None).await;
            Next::Again
        }
        TabletError::Api(error) => Next::End(Ended::Error(error)),
    }
}

/// Learns of the placement that a tablet spoke of, or gives the tablet time to learn of ours.
async fn reroute(core: &Core, path: &mut Path<'_>, theirs: &Tablet) {
    let is_ours_older = |core: &Core| {
        let view = core.view();
        let ours = view.state.tablet(theirs.id);
        ours.is_none_or(|ours| ours.epoch < theirs.epoch)
    };
    if is_ours_older(core) {
        let version = core.view().state.version() + 1;
        let patience = Duration::from_millis(u64::from(path.remaining_ms().min(1_000)));
        // If it does not come in time, the next attempt is refused once more.
        let _ = follow::reach(core, version, patience).await;
    } else {
        // The map follows what the tablet knows.
        let mut versions = core.views.watch_version();
        let patience = Duration::from_millis(u64::from(path.remaining_ms()));
        let _ = timeout_at(Instant::now() + patience.min(PAUSE_MAX), versions.changed()).await;
    }
}

pub(super) async fn await_schema(core: &Core, current: SchemaVersion, patience_ms: u32) {
    let mut catalogs = core.views.watch_catalog();
    let deadline = Instant::now() + Duration::from_millis(u64::from(patience_ms.min(1_000)));
    while core.views.catalog().version < current && Instant::now() < deadline {
        let version = core.view().state.version() + 1;
        let _ = follow::reach(core, version, Duration::from_millis(100)).await;
        if core.views.catalog().version < current {
            let _ = timeout_at(deadline.min(Instant::now() + PAUSE_MAX), catalogs.changed()).await;
        }
    }
}

fn no_leader(is_ambiguous: bool) -> Ended {
    let outcome = if is_ambiguous {
        Outcome::Unknown
    } else {
        Outcome::NotApplied
    };
    Ended::Error(Error::Retry(Retry::NoLeader { outcome }))
}

/// How a write ended whose earlier attempt may have been applied. The tablet looks for that attempt before it
/// evaluates anything, so what it found out by evaluating is final, unless that attempt may still arrive; and a
/// refusal to look leaves the doubt.
fn in_doubt(ended: Ended, may_arrive: bool) -> Ended {
    match ended {
        Ended::Error(error @ Error::Refused(_)) if !may_arrive => Ended::Error(error),
        Ended::Error(error) if error.outcome() == Outcome::Unknown => Ended::Error(error),
        Ended::Error(_) | Ended::Rerouted => no_leader(true),
    }
}

fn gone(tablet: &Tablet) -> Ended {
    Ended::Error(Error::Refused(Refused::NoTable(tablet.root.to_string())))
}

/// Writes to one tablet.
pub(super) async fn write(
    core: &Core,
    tablet: &Tablet,
    write: &mut TabletWrite,
    deadline: Instant,
) -> Result<WriteResponse, Ended> {
    let mut path = Path::new(core, tablet, deadline);
    let mut is_ambiguous = false;
    // An attempt that was not answered may be on its way still.
    let mut may_arrive = false;
    let mut began: Option<Timestamp> = None;
    loop {
        let remaining_ms = path.remaining_ms();
        if remaining_ms == 0 || core.is_stopping() {
            return Err(path.no_time(is_ambiguous));
        }
        if path.is_gone() {
            return Err(if is_ambiguous {
                no_leader(true)
            } else {
                gone(tablet)
            });
        }
        let Some(target) = path.target() else {
            path.pause().await;
            continue;
        };
        write.patience_ms = remaining_ms.min(ATTEMPT_MS_MAX);
        if is_ambiguous {
            write.first_attempt = began;
        } else {
            began = Some(core.now().earliest);
        }
        let outcome = if target == core.node {
            match core.replicas.strong(tablet.id) {
                Some(strong) => Ok(strong.write(write.clone()).await),
                None => Ok(Err(TabletError::NotLeaseholder { hint: None })),
            }
        } else {
            call_write(core, target, write).await
        };
        match outcome {
            Ok(Ok(response)) => {
                core.set_hint(tablet.id, Some(target));
                return Ok(response);
            }
            Ok(Err(error)) => {
                is_ambiguous |= matches!(
                    &error,
                    TabletError::Api(error) if error.outcome() == Outcome::Unknown
                );
                match after(core, &mut path, target, error).await {
                    Next::Again => {}
                    Next::End(ended) if is_ambiguous => return Err(in_doubt(ended, may_arrive)),
                    Next::End(ended) => return Err(ended),
                }
            }
            Err(failure) => {
                is_ambiguous |= !failure.is_harmless();
                may_arrive |= is_ambiguous;
                path.not_there(target, None).await;
            }
        }
    }
}

async fn call_write(
    core: &Core,
    target: NodeId,
    write: &TabletWrite,
) -> Result<Result<WriteResponse, TabletError>, CallFailure> {
    let patience = Duration::from_millis(u64::from(write.patience_ms)) + ANSWER_GRACE;
    match core
        .call(target, Request::Write(write.clone()), patience)
        .await?
    {
        Reply::Written(outcome) => Ok(outcome),
        // Nobody answers a write with anything else, but a bug might.
        _ => Err(CallFailure::Call(crate::rpc::CallError::Timeout)),
    }
}

/// A step of a transaction at one tablet. Each may be repeated, so it is until it is answered or the time is up;
/// only a decision is in doubt then.
pub(super) async fn step(
    core: &Core,
    tablet: &Tablet,
    schema: SchemaVersion,
    step: Step,
    deadline: Instant,
) -> Result<Stepped, Ended> {
    let mut path = Path::new(core, tablet, deadline);
    let mut is_ambiguous = false;
    let decides = matches!(step, Step::Decide { .. });
    let mut request = TabletStep {
        tablet: tablet.id,
        epoch: tablet.epoch,
        schema,
        patience_ms: 0,
        step,
    };
    loop {
        let remaining_ms = path.remaining_ms();
        if remaining_ms == 0 || core.is_stopping() {
            return Err(path.no_time(is_ambiguous));
        }
        if path.is_gone() {
            return Err(if is_ambiguous {
                no_leader(true)
            } else {
                gone(tablet)
            });
        }
        let Some(target) = path.target() else {
            path.pause().await;
            continue;
        };
        request.patience_ms = remaining_ms.min(ATTEMPT_MS_MAX);
        let outcome = if target == core.node {
            match core.replicas.strong(tablet.id) {
                Some(strong) => Ok(strong.step(request.clone()).await),
                None => Ok(Err(TabletError::NotLeaseholder { hint: None })),
            }
        } else {
            let patience = Duration::from_millis(u64::from(request.patience_ms)) + ANSWER_GRACE;
            match core
                .call(target, Request::Step(request.clone()), patience)
                .await
            {
                Ok(Reply::Stepped(outcome)) => Ok(outcome),
                Ok(_) => Err(CallFailure::Call(crate::rpc::CallError::Timeout)),
                Err(failure) => Err(failure),
            }
        };
        match outcome {
            Ok(Ok(stepped)) => {
                core.set_hint(tablet.id, Some(target));
                return Ok(stepped);
            }
            Ok(Err(error)) => {
                is_ambiguous |= decides
                    && matches!(
                        &error,
                        TabletError::Api(error) if error.outcome() == Outcome::Unknown
                    );
                match after(core, &mut path, target, error).await {
                    Next::Again => {}
                    Next::End(ended) if is_ambiguous => return Err(undecided(ended)),
                    Next::End(ended) => return Err(ended),
                }
            }
            Err(failure) => {
                is_ambiguous |= decides && !failure.is_harmless();
                path.not_there(target, None).await;
            }
        }
    }
}

/// How a decision ended of which an earlier try may have been carried out. That it was given up is certain, for
/// whoever says so has looked; what else a later try meets says nothing about the earlier one.
fn undecided(ended: Ended) -> Ended {
    match ended {
        Ended::Error(Error::Retry(Retry::Aborted(_))) | Ended::Rerouted => ended,
        Ended::Error(_) => no_leader(true),
    }
}

pub(super) fn command(core: &Core) -> CommandId {
    CommandId {
        node: core.node,
        incarnation: core.incarnation,
        request: core.next_request(),
    }
}

/// The command that commits a transaction.
pub(super) fn command_of(transaction: TransactionId) -> CommandId {
    CommandId {
        node: transaction.node,
        incarnation: transaction.incarnation,
        request: transaction.request,
    }
}

/// A new transaction, as old as its first attempt.
pub(super) fn transaction(core: &Core, start: Timestamp) -> TransactionId {
    TransactionId {
        start,
        node: core.node,
        incarnation: core.incarnation,
        request: core.next_request(),
    }
}

/// Reads from one tablet.
pub(super) async fn read(
    core: &Core,
    tablet: &Tablet,
    mut read: TabletRead,
    deadline: Instant,
) -> Result<ReadResponse, Ended> {
    let prefers_local = !matches!(read.bound, ReadBound::Strong | ReadBound::Level(_));
    let mut path = Path {
        prefers_local,
        ..Path::new(core, tablet, deadline)
    };
    loop {
        let remaining_ms = path.remaining_ms();
        if remaining_ms == 0 || core.is_stopping() {
            return Err(path.no_time(false));
        }
        if path.is_gone() {
            return Err(gone(tablet));
        }
        let Some(target) = path.target() else {
            path.pause().await;
            continue;
        };
        read.patience_ms = remaining_ms.min(ATTEMPT_MS_MAX);
        let outcome = if target == core.node {
            match core.replicas.strong(tablet.id) {
                Some(strong) => Ok(strong.read(read.clone()).await),
                None => Ok(Err(TabletError::NotLeaseholder { hint: None })),
            }
        } else {
            let patience = Duration::from_millis(u64::from(read.patience_ms)) + ANSWER_GRACE;
            match core
                .call(target, Request::Read(read.clone()), patience)
                .await
            {
                Ok(Reply::Read(outcome)) => Ok(outcome),
                Ok(_) => Err(CallFailure::Call(crate::rpc::CallError::Timeout)),
                Err(failure) => Err(failure),
            }
        };
        match outcome {
            Ok(Ok(response)) => {
                if !prefers_local {
                    core.set_hint(tablet.id, Some(target));
                }
                return Ok(response);
            }
            Ok(Err(error)) => match after(core, &mut path, target, error).await {
                Next::Again => {}
                Next::End(ended) => return Err(ended),
            },
            Err(_) => path.not_there(target, None).await,
        }
    }
}

/// A table group of which this node knows no tablet that holds the key.
pub(super) async fn await_tablet(core: &Core, deadline: Instant) -> Result<(), Error> {
    if Instant::now() >= deadline {
        return Err(Error::Refused(Refused::NoTable("the table is gone".into())));
    }
    let version = core.view().state.version() + 1;
    let _ = follow::reach(core, version, Duration::from_millis(100)).await;
    sleep(PAUSE_MIN).await;
    Ok(())
}

pub(super) fn deadline(patience: Patience) -> Instant {
    Instant::now() + Duration::from_millis(u64::from(patience.ms))
}
