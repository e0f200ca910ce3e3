//! One replica of a strong tablet, as its node holds it: the handle, and the lease.

use crate::command::{Control, Verdict, encode_control};
use crate::idle;
use crate::recovery::{self, Others};
use crate::request::{TabletError, TabletRead, TabletWrite};
use crate::rows::{ClosedMessage, Replica, Rows};
use crate::state::{Holding, State, Unheld};
use crate::step::{Span, Stepped, TabletStep};
use api::{Broken, Error, Outcome, Retry};
use catalog::{Catalog, Table};
use cluster::Tablet;
use consensus::{GroupSpec, Groups, Origin, ProposeError};
use model::{
    Interval, LeaseEpoch, NodeId, PlacementEpoch, ReplicaId, SchemaVersion, TabletId, Timestamp,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use storage::Measure;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use world::planted::{self, Bug};
use world::{Clock, StoreError, Stores};

/// How often the upkeep of an idle tablet looks at its history.
const IDLE_UPKEEP: Duration = Duration::from_secs(30);
/// A request that the tablet's own catalog is behind waits for it so long.
const SCHEMA_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct StrongConfig {
    pub lease_ms: u64,
    /// How long older versions are kept.
    pub history_ms: u64,
    /// How often an active leaseholder tells followers what is closed.
    pub closed_interval_ms: u64,
    /// Requests that may wait for latches, per tablet.
    pub waiting_max: usize,
}

impl Default for StrongConfig {
    fn default() -> StrongConfig {
        StrongConfig {
            lease_ms: 3_000,
            history_ms: 3_600_000,
            closed_interval_ms: 200,
            waiting_max: 10_000,
        }
    }
}

impl StrongConfig {
    pub(crate) fn lease_micros(&self) -> i64 {
        self.lease_ms as i64 * 1_000
    }

    pub(crate) fn history_micros(&self) -> i64 {
        self.history_ms as i64 * 1_000
    }
}

/// What a replica of a strong tablet is made from.
pub struct TabletSpec {
    pub tablet: Tablet,
    pub replica: ReplicaId,
    pub node: NodeId,
    pub origin: Origin,
    pub groups: Groups,
    pub stores: Arc<dyn Stores>,
    pub clock: Arc<dyn Clock>,
    pub catalog: watch::Receiver<Arc<Catalog>>,
    pub others: Arc<dyn Others>,
    pub config: StrongConfig,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    pub epoch: LeaseEpoch,
    pub holder: ReplicaId,
    pub end: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TabletStatus {
    pub tablet: TabletId,
    pub is_leaseholder: bool,
    /// The lease in force as this replica has applied it.
    pub lease: Option<LeaseStatus>,
    /// Snapshot reads up to here are served by this replica.
    pub closed: Timestamp,
    pub size_bytes: u64,
}

pub(crate) struct Inner {
    pub spec: TabletSpec,
    pub replica: Arc<Replica>,
    /// As the meta group last said. The range in force is the log's.
    pub placed: Mutex<Tablet>,
    /// Keeps the order of commit timestamps and the order of proposals the same.
    pub proposing: Mutex<()>,
    /// One confirmation of a leader without a lease at a time.
    pub confirming: tokio::sync::Mutex<()>,
}

/// The handle; cheap to clone.
#[derive(Clone)]
pub struct StrongTablet {
    pub(crate) inner: Arc<Inner>,
}

/// Takes back the mark that somebody is acquiring the lease, also when that somebody goes away.
struct Acquiring<'a>(&'a Replica);

impl Drop for Acquiring<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_acquiring = false;
        self.0.changed.notify_waiters();
    }
}

impl StrongTablet {
    /// Opens the replica's store and joins (or continues) its group. The caller runs `run` as a task.
    pub async fn start(spec: TabletSpec) -> Result<StrongTablet, TabletError> {
        let broken = |message: String| {
            TabletError::Api(Error::Broken(Broken {
                message,
                outcome: Outcome::NotApplied,
            }))
        };
        let replica = Replica::new(spec.tablet.range.clone());
        let rows = Rows::open(replica.clone(), spec.replica, spec.stores.clone())
            .map_err(|error| broken(error.to_string()))?;
        spec.groups
            .create(GroupSpec {
                tablet: spec.tablet.id,
                replica: spec.replica,
                origin: spec.origin.clone(),
                machine: Box::new(rows),
            })
            .await
            .map_err(|error| broken(error.to_string()))?;
        Ok(StrongTablet {
            inner: Arc::new(Inner {
                placed: Mutex::new(spec.tablet.clone()),
                spec,
                replica,
                proposing: Mutex::new(()),
                confirming: tokio::sync::Mutex::new(()),
            }),
        })
    }

    /// Upkeep: closed timestamps, history. Ends when the tablet stops; costs next to nothing while it is idle.
    pub async fn run(self) {
        let inner = &self.inner;
        let interval = Duration::from_millis(inner.spec.config.closed_interval_ms.max(1));
        let mut watch = recovery::Watch::default();
        loop {
            let lease_changed = inner.replica.lease_changed.notified();
            tokio::pin!(lease_changed);
            lease_changed.as_mut().enable();
            if inner.replica.state.lock().is_stopped {
                return;
            }
            inner.forget_history();
            inner.forget_right_half();
            let is_open = recovery::look(inner, &mut watch);
            if inner.close_timestamp() || is_open {
                sleep(interval).await;
            } else {
                tokio::select! {
                    biased;
                    () = &mut lease_changed => {}
                    () = sleep(IDLE_UPKEEP) => {}
                }
            }
        }
    }

    pub async fn write(&self, write: TabletWrite) -> Result<api::WriteResponse, TabletError> {
        let deadline = deadline(write.patience_ms);
        crate::write::write(&self.inner, &write, deadline).await
    }

    pub async fn read(&self, read: TabletRead) -> Result<api::ReadResponse, TabletError> {
        let deadline = deadline(read.patience_ms);
        match timeout_at(deadline, crate::read::read(&self.inner, &read, deadline)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(no_leader(Outcome::NotApplied)),
        }
    }

    /// A step of a transaction that spans several tablets.
    pub async fn step(&self, step: TabletStep) -> Result<Stepped, TabletError> {
        let deadline = deadline(step.patience_ms);
        crate::participant::step(&self.inner, &step, deadline).await
    }

    /// Takes a newer descriptor from the meta group (other replicas; the range changes by `split` only).
    pub fn placed(&self, tablet: Tablet) {
        let mut placed = self.inner.placed.lock();
        if tablet.epoch > placed.epoch {
            *placed = tablet;
        }
    }

    /// Gives the lease up in the log, so that a successor need not wait. Before a clean stop.
    pub async fn release(&self) {
        let inner = &self.inner;
        let proposed = {
            let _order = inner.proposing.lock();
            let mut state = inner.replica.state.lock();
            let Some(holding) = state.holding.take() else {
                return;
            };
            // Transactions may still commit that count on what they have read here.
            let counted_on = state.locks.confirmed_until();
            let control = Control::Release {
                epoch: holding.epoch,
                promised: holding.promised.max(counted_on.unwrap_or(Timestamp::MIN)),
            };
            drop(state);
            let tablet = inner.spec.tablet.id;
            inner.spec.groups.propose(tablet, encode_control(&control))
        };
        // If it fails the lease lapses by itself.
        let _ = proposed.await;
    }

    /// For a tablet whose table is gone: whether nobody will have to ask it any more how a transaction ended. Nothing is
    /// prepared for a table that is gone, so that stays true.
    pub async fn is_done_with(&self) -> bool {
        let inner = &self.inner;
        if inner.hold().await.is_err() {
            return false;
        }
        let Ok(now) = inner.spec.clock.now() else {
            return false;
        };
        let _order = inner.proposing.lock();
        let is_gone = inner
            .spec
            .catalog
            .borrow()
            .table(inner.spec.tablet.root)
            .is_none();
        let state = inner.replica.state.lock();
        let mut prepared = state.prepared.values();
        is_gone
            && state.check_held(now).is_ok()
            && !state.has_in_flight()
            && state.decisions.is_empty()
            && !prepared.any(|share| inner.decides(&state, &share.head.coordinator))
    }

    /// Stops taking requests and leaves the group; log and store stay.
    pub async fn stop(&self) {
        {
            let mut state = self.inner.replica.state.lock();
            state.is_stopped = true;
            state.holding = None;
        }
        self.inner.replica.lease_changed.notify_waiters();
        self.inner.replica.changed.notify_waiters();
        self.inner.spec.groups.stop(self.inner.spec.tablet.id).await;
    }

    /// How large the tablet is, and where its middle lies. `root` is the root of its table group.
    pub async fn measure(&self, root: &Table) -> Result<Measure, StoreError> {
        let Some(store) = self.inner.replica.store() else {
            return Ok(Measure::default());
        };
        let range = self.inner.replica.state.lock().range.clone();
        storage::measure(&store, &range, root).await
    }

    pub fn status(&self) -> TabletStatus {
        let now = self.inner.spec.clock.now();
        let state = self.inner.replica.state.lock();
        let is_leaseholder = now.is_ok_and(|now| state.check_held(now).is_ok());
        TabletStatus {
            tablet: self.inner.spec.tablet.id,
            is_leaseholder,
            lease: (state.lease.epoch.0 > 0).then_some(LeaseStatus {
                epoch: state.lease.epoch,
                holder: state.lease.holder,
                end: state.lease.end,
            }),
            closed: state.closed,
            size_bytes: self
                .inner
                .replica
                .store()
                .map_or(0, |store| store.size_bytes()),
        }
    }
}

pub(crate) fn deadline(patience_ms: u32) -> Instant {
    Instant::now() + Duration::from_millis(u64::from(patience_ms))
}

pub(crate) fn aborted(reason: &str) -> TabletError {
    TabletError::Api(Error::Retry(Retry::Aborted(reason.into())))
}

pub(crate) fn no_leader(outcome: Outcome) -> TabletError {
    TabletError::Api(Error::Retry(Retry::NoLeader { outcome }))
}

impl Inner {
    /// Whether the coordinator's key is one of this tablet's.
    pub fn decides(&self, state: &State, coordinator: &Span) -> bool {
        coordinator.root == self.spec.tablet.root && state.range.contains(&coordinator.range.start)
    }

    pub fn now(&self) -> Result<Interval, TabletError> {
        self.spec
            .clock
            .now()
            .map_err(|error| TabletError::Api(Error::Retry(Retry::NotServing(error.to_string()))))
    }

    /// Refuses what was routed by an older placement.
    pub fn check_route(&self, epoch: PlacementEpoch) -> Result<(), TabletError> {
        let placed = self.placed.lock();
        match epoch < placed.epoch {
            true => Err(TabletError::StaleRoute(placed.clone())),
            false => Ok(()),
        }
    }

    /// As `check_route`, for what names no keys: it may mean keys that a split has taken away, though the map does
    /// not show it yet.
    pub fn check_whole(&self, epoch: PlacementEpoch) -> Result<(), TabletError> {
        self.check_route(epoch)?;
        let epoch_min = self.replica.state.lock().epoch_min;
        match epoch < epoch_min {
            true => Err(self.stale_route()),
            false => Ok(()),
        }
    }

    pub fn stale_route(&self) -> TabletError {
        TabletError::StaleRoute(self.placed.lock().clone())
    }

    /// The node's catalog, at least as new as the one that the request was lowered with.
    pub async fn catalog(&self, wanted: SchemaVersion) -> Result<Arc<Catalog>, TabletError> {
        let current = self.spec.catalog.borrow().clone();
        if current.version >= wanted {
            return Ok(current);
        }
        let mut catalogs = self.spec.catalog.clone();
        let newer = catalogs.wait_for(|catalog| catalog.version >= wanted);
        match timeout_at(Instant::now() + SCHEMA_PATIENCE, newer).await {
            Ok(Ok(catalog)) => Ok(catalog.clone()),
            _ => Err(TabletError::Api(Error::Retry(Retry::NotServing(
                "this node's catalog is behind".into(),
            )))),
        }
    }

    /// Makes sure that this replica holds the lease now, taking one if it leads and may.
    pub async fn hold(&self) -> Result<(), TabletError> {
        loop {
            let changed = self.replica.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = self.now()?;
            let acquires = {
                let mut state = self.replica.state.lock();
                if state.is_stopped {
                    return Err(TabletError::NotLeaseholder { hint: None });
                }
                match state.check_held(now) {
                    Ok(()) => return Ok(()),
                    Err(Unheld::NotLeader(leader)) => {
                        let hint = leader.map(|leader| leader.node);
                        return Err(TabletError::NotLeaseholder { hint });
                    }
                    Err(Unheld::NeedsLease { term }) if !state.is_acquiring => {
                        state.is_acquiring = true;
                        Some(term)
                    }
                    Err(Unheld::NeedsLease { .. }) => None,
                }
            };
            match acquires {
                Some(term) => {
                    let acquiring = Acquiring(&self.replica);
                    self.acquire(term).await?;
                    drop(acquiring);
                }
                None => changed.await,
            }
        }
    }

    /// Takes a new epoch, once an entry of this leader's own term is applied, so that what the predecessor
    /// proposed is decided; and once the predecessor's lease is over for certain.
    async fn acquire(&self, term: u64) -> Result<(), TabletError> {
        let previous = loop {
            let changed = self.replica.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = self.now()?;
            let wait = {
                let state = self.replica.state.lock();
                if state.leader_term() != Ok(term) || state.is_stopped {
                    return Ok(());
                }
                if state.applied_term < term {
                    None
                } else if state.lease.is_over(now) {
                    break state.lease;
                } else {
                    Some(state.lease.end.0 - now.earliest.0 + 1)
                }
            };
            match wait {
                None => changed.await,
                Some(micros) => sleep(Duration::from_micros(micros.max(1) as u64)).await,
            }
        };
        let now = self.now()?;
        let start = previous.promised().max(idle::starts_above(now));
        let epoch = LeaseEpoch(previous.epoch.0 + 1);
        let control = Control::Acquire {
            previous: previous.epoch,
            epoch,
            holder: self.spec.replica,
            start,
            end: now.latest.plus_micros(self.spec.config.lease_micros()),
        };
        let tablet = self.spec.tablet.id;
        let proposed = self.spec.groups.propose(tablet, encode_control(&control));
        match proposed.await {
            Ok(done) if Verdict::decode(&done.result) == Verdict::Done => {
                tracing::debug!(%tablet, node = %self.spec.node, %epoch, %start, "holds the lease");
                let mut state = self.replica.state.lock();
                if state.leader_term() == Ok(term) && done.term == term && !state.is_stopped {
                    // The lease before may have been this replica's own, and may have been extended by a
                    // command that was under way: then it has promised more meanwhile.
                    let own = state.holding.as_ref();
                    let promised = own.map_or(start, |own| own.promised.max(start));
                    let last_commit = own.map_or(start, |own| own.last_commit.max(start));
                    state.holding = Some(Holding {
                        epoch,
                        term,
                        promised,
                        last_commit,
                        is_extending: false,
                        divides_to: None,
                    });
                    state.commits_above_newest();
                    state.takes_over_waits();
                }
                drop(state);
                self.replica.lease_changed.notify_waiters();
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(ProposeError::NotLeader { leader }) => Err(TabletError::NotLeaseholder {
                hint: leader.map(|leader| leader.node),
            }),
            Err(ProposeError::Overloaded) => Err(TabletError::Api(Error::Retry(
                Retry::Overloaded("proposals are waiting".into()),
            ))),
            Err(_) => Err(TabletError::NotLeaseholder { hint: None }),
        }
    }

    /// Past half of its life, a lease that reads use is extended, beside them. Writes carry the extension
    /// themselves.
    pub fn extend(&self, now: Interval) {
        let lease_micros = self.spec.config.lease_micros();
        let control = {
            let mut state = self.replica.state.lock();
            let Some(end) = state.extension(now, lease_micros) else {
                return;
            };
            let Some(holding) = &mut state.holding else {
                return;
            };
            if holding.is_extending {
                return;
            }
            holding.is_extending = true;
            Control::Extend {
                epoch: holding.epoch,
                end,
            }
        };
        let replica = self.replica.clone();
        self.spec.groups.propose_with(
            self.spec.tablet.id,
            encode_control(&control),
            Box::new(move |_| {
                if let Some(holding) = &mut replica.state.lock().holding {
                    holding.is_extending = false;
                }
                replica.changed.notify_waiters();
            }),
        );
    }

    /// A leaseholder without proposals under way promises not to commit below now, and tells the others. Says
    /// whether there is a lease to look after.
    fn close_timestamp(&self) -> bool {
        let Ok(now) = self.spec.clock.now() else {
            // It may have a reading again in a moment.
            return self.replica.state.lock().holding.is_some();
        };
        let message = {
            let _order = self.proposing.lock();
            let mut state = self.replica.state.lock();
            if state.check_held(now).is_err() {
                return false;
            }
            if state.has_in_flight() || state.is_dividing() {
                return true;
            }
            let closed = now.earliest.min(state.lease.end.plus_micros(-1));
            let closed = state.held_back(closed);
            let (epoch, index) = (state.lease.epoch, state.applied_index);
            let Some(holding) = &mut state.holding else {
                return false;
            };
            holding.promised = holding.promised.max(closed);
            state.closed = state.closed.max(closed);
            ClosedMessage {
                epoch,
                index,
                closed,
            }
        };
        self.tell_closed(message);
        true
    }

    pub fn tell_closed(&self, message: ClosedMessage) {
        let bytes = minicbor::to_vec(message).expect("writing to memory does not fail");
        self.spec
            .groups
            .broadcast(self.spec.tablet.id, bytes.into());
    }

    fn forget_history(&self) {
        if let (Ok(now), Some(store)) = (self.spec.clock.now(), self.replica.store()) {
            let horizon = match planted::is(Bug::HistoryGoesTooSoon) {
                true => now.latest,
                false => now.earliest.plus_micros(-self.spec.config.history_micros()),
            };
            store.set_history_horizon(horizon.0);
        }
    }
}
