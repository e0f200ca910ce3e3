//! The gateway's side of a transaction that spans tablets: two-phase commit over their groups.
//!
//! ```text
//! prepare everywhere at once ─┬─ all ready ─→ decide, at the coordinator ─→ answer (it tells the others)
//!                             ├─ something is locked ─→ give up what is prepared, lock everywhere, once more
//!                             └─ refused, or no answer ─→ give up what is prepared, answer
//! ```
//!
//! Until the coordinator is asked to decide nothing can be committed, so every failure before that is certain.
//! The commit costs two rounds of consensus: one of all participants at once, one of the coordinator.

use super::strong::{self, Ended};
use super::table_of;
use super::write::{Part, moved, split};
use crate::core::Core;
use api::{
    Error, Mutation, Outcome, ReadAssertion, Retry, ReturnedRows, Returning, TransactionId,
    WriteRequest, WriteResponse,
};
use catalog::Catalog;
use cluster::Tablet;
use model::{Interval, TabletId, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use txn::{Attempt, CommandId, Ending, Prepared, Share, Span, Step, Stepped};

/// Attempts at one commit: each after the first has locked everything before.
const ATTEMPTS_MAX: u32 = 10;
/// What is given up is told so for this long; then the participants ask by themselves.
const GIVE_UP_PATIENCE: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(5);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// One tablet's part of a write.
pub(super) struct TabletPart {
    pub tablet: Arc<Tablet>,
    pub positions: Vec<u32>,
    pub mutations: Vec<Mutation>,
    pub assertions: Vec<ReadAssertion>,
}

/// A write by tablets; `None` while the map has no tablet for some of it.
pub(super) fn by_tablet(
    core: &Core,
    catalog: &Catalog,
    request: &WriteRequest,
) -> Result<Option<Vec<TabletPart>>, Error> {
    let mutations = (0..).zip(request.mutations.iter().cloned()).collect();
    let Some(parts) = split(core, catalog, mutations)?.reachable(&mut Vec::new()) else {
        return Ok(None);
    };
    let mut all: BTreeMap<TabletId, TabletPart> = BTreeMap::new();
    for Part {
        tablet,
        positions,
        mutations,
    } in parts
    {
        let part = TabletPart {
            tablet,
            positions,
            mutations,
            assertions: Vec::new(),
        };
        all.insert(part.tablet.id, part);
    }
    let view = core.view();
    for assertion in &request.assertions {
        let root = table_of(catalog, assertion.table)?.root;
        for tablet in view.tablets(root) {
            let range = tablet.range.intersection(&assertion.range);
            if range.is_empty() {
                continue;
            }
            let part = all.entry(tablet.id).or_insert_with(|| TabletPart {
                tablet: Arc::clone(tablet),
                positions: Vec::new(),
                mutations: Vec::new(),
                assertions: Vec::new(),
            });
            part.assertions.push(ReadAssertion {
                range,
                ..assertion.clone()
            });
        }
    }
    Ok(Some(all.into_values().collect()))
}

/// How a round of preparing went.
enum Round {
    Ready(Vec<Prepared>),
    /// Something is locked by others.
    Blocked,
    Failed(Ended),
}

pub(super) struct Commit<'a> {
    pub core: &'a Arc<Core>,
    pub catalog: &'a Catalog,
    pub parts: &'a [TabletPart],
    pub transaction: TransactionId,
    /// Under which the tablets remember the commit, if they are to.
    pub kept_as: Option<CommandId>,
    pub deadline: Instant,
}

impl Commit<'_> {
    /// Commits, or does nothing, or says that it does not know.
    pub async fn run(&self) -> Result<WriteResponse, Ended> {
        let mut pause = RETRY_PAUSE;
        for _ in 0..ATTEMPTS_MAX {
            let attempt = self.attempt();
            match self.prepare(&attempt).await {
                Round::Ready(prepared) if self.is_read_only() => {
                    return read_only(&prepared, self.core.now());
                }
                Round::Ready(prepared) => return self.decide(&attempt, prepared).await,
                Round::Failed(ended) => {
                    self.give_up(&attempt);
                    return Err(ended);
                }
                Round::Blocked => {
                    self.give_up(&attempt);
                    self.lock(&attempt).await?;
                }
            }
            if Instant::now() + pause >= self.deadline {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
        Err(Ended::Error(Error::Retry(Retry::Aborted(
            "others were in the way all the time".into(),
        ))))
    }

    fn is_read_only(&self) -> bool {
        self.parts.iter().all(|part| part.mutations.is_empty())
    }

    fn attempt(&self) -> Attempt {
        let writers = || self.parts.iter().filter(|part| !part.mutations.is_empty());
        // A coordinator that is here saves a way.
        let is_near = |part: &&TabletPart| {
            self.core.hint(part.tablet.id).unwrap_or(self.core.node) == self.core.node
        };
        let coordinator = writers().find(is_near).or_else(|| writers().next());
        let coordinator = coordinator.and_then(|part| {
            let key = part.mutations.first()?.key.clone();
            Some(Span::point(part.tablet.root, key))
        });
        Attempt {
            id: strong::command(self.core),
            transaction: self.transaction,
            began: self.core.now().earliest,
            kept_as: self.kept_as,
            // What only reads needs none: there is nothing to decide.
            coordinator: coordinator.unwrap_or_else(|| Span::point(Default::default(), Vec::new())),
        }
    }

    fn share(&self, attempt: &Attempt, part: &TabletPart) -> Share {
        Share {
            attempt: attempt.clone(),
            mutations: part.mutations.clone(),
            assertions: part.assertions.clone(),
        }
    }

    async fn everywhere(&self, step: impl Fn(&TabletPart) -> Step) -> Vec<Result<Stepped, Ended>> {
        let asking = self.parts.iter().map(|part| {
            let step = step(part);
            strong::step(
                self.core,
                &part.tablet,
                self.catalog.version,
                step,
                self.deadline,
            )
        });
        futures::future::join_all(asking).await
    }

    async fn prepare(&self, attempt: &Attempt) -> Round {
        let outcomes = self
            .everywhere(|part| Step::Prepare(self.share(attempt, part)))
            .await;
        let mut prepared = Vec::with_capacity(outcomes.len());
        let mut is_blocked = false;
        let mut failures = Vec::new();
        for (part, outcome) in self.parts.iter().zip(outcomes) {
            match outcome {
                Ok(Stepped::Prepared(one)) => prepared.push(one),
                Ok(_) => is_blocked = true,
                Err(ended) => failures.push((part, ended)),
            }
        }
        if let Some(ended) = first_failure(failures) {
            return Round::Failed(ended);
        }
        match is_blocked {
            true => Round::Blocked,
            false => Round::Ready(prepared),
        }
    }

    /// Takes all locks, waiting by age, while nothing is prepared.
    async fn lock(&self, attempt: &Attempt) -> Result<(), Ended> {
        // Where it locks, it must be released.
        for part in self.parts {
            self.core
                .transactions
                .visits(self.transaction, part.tablet.id);
        }
        // The attempt that was given up is remembered as such: a lock is not part of it.
        let attempt = Attempt {
            id: strong::command(self.core),
            ..attempt.clone()
        };
        let outcomes = self
            .everywhere(|part| Step::Lock(self.share(&attempt, part)))
            .await;
        let failed = self.parts.iter().zip(outcomes);
        let failed = failed.filter_map(|(part, outcome)| Some((part, outcome.err()?)));
        match first_failure(failed.collect()) {
            Some(ended) => Err(ended),
            None => Ok(()),
        }
    }

    async fn decide(
        &self,
        attempt: &Attempt,
        prepared: Vec<Prepared>,
    ) -> Result<WriteResponse, Ended> {
        let timestamp = prepared.iter().map(|it| it.timestamp).max();
        let before = prepared.iter().map(|it| it.before).min();
        let step = Step::Decide {
            attempt: attempt.clone(),
            timestamp: timestamp.unwrap_or(Timestamp::MIN),
            before: before.unwrap_or(Timestamp::MAX),
            is_external: prepared.iter().any(|it| it.is_external),
            participants: self
                .parts
                .iter()
                .filter(|part| !part.mutations.is_empty())
                .map(|part| Span {
                    root: part.tablet.root,
                    range: part.tablet.range.clone(),
                })
                .collect(),
        };
        let timestamp = self.await_decision(attempt, step).await?;
        Ok(WriteResponse {
            commit_timestamp: Some(timestamp),
            returned: self.returned(prepared),
        })
    }

    /// Asks the tablet that holds the coordinator's key, whichever that is by now.
    async fn await_decision(&self, attempt: &Attempt, step: Step) -> Result<Timestamp, Ended> {
        let unknown = || {
            Ended::Error(Error::Retry(Retry::NoLeader {
                outcome: Outcome::Unknown,
            }))
        };
        let Span { root, range } = &attempt.coordinator;
        let mut is_in_doubt = false;
        while Instant::now() < self.deadline {
            let Some(tablet) = self.core.view().tablet_of(*root, &range.start).cloned() else {
                // The table is dropped, and what was decided with it: the participants ask by themselves.
                return Err(unknown());
            };
            let asked = strong::step(
                self.core,
                &tablet,
                self.catalog.version,
                step.clone(),
                self.deadline,
            );
            match asked.await {
                Ok(Stepped::Decided(timestamp)) => return Ok(timestamp),
                // An earlier try may have been carried out before.
                Err(Ended::Rerouted) => is_in_doubt = true,
                Err(Ended::Error(error @ Error::Retry(Retry::Aborted(_)))) => {
                    self.give_up(attempt);
                    return Err(Ended::Error(error));
                }
                // The coordinator was never reached, or has done nothing.
                Err(Ended::Error(error))
                    if !is_in_doubt && error.outcome() == Outcome::NotApplied =>
                {
                    self.give_up(attempt);
                    return Err(Ended::Error(error));
                }
                Ok(_) | Err(Ended::Error(_)) => return Err(unknown()),
            }
        }
        Err(unknown())
    }

    fn returned(&self, prepared: Vec<Prepared>) -> Vec<ReturnedRows> {
        let mutations = self.parts.iter().flat_map(|part| &part.mutations);
        if mutations
            .clone()
            .all(|mutation| mutation.returning == Returning::Nothing)
        {
            return Vec::new();
        }
        let mut all = Vec::new();
        let positions = self.parts.iter().flat_map(|part| &part.positions);
        let count = positions.max().map_or(0, |last| *last as usize + 1);
        for (part, one) in self.parts.iter().zip(prepared) {
            super::write::place(&mut all, count, &part.positions, one.returned);
        }
        all
    }

    /// Tells everybody, as a task, that the attempt has ended. Who does not hear of it asks the coordinator.
    fn give_up(&self, attempt: &Attempt) {
        for part in self.parts.iter().filter(|part| !part.mutations.is_empty()) {
            let core = Arc::clone(self.core);
            let (tablet, schema) = (Arc::clone(&part.tablet), self.catalog.version);
            let step = Step::Resolve {
                id: attempt.id,
                ending: Ending::Aborted,
            };
            self.core.tasks.spawn(async move {
                let deadline = Instant::now() + GIVE_UP_PATIENCE;
                let told = strong::step(&core, &tablet, schema, step, deadline).await;
                if told.is_err() {
                    tracing::debug!(tablet = %tablet.id, "an attempt that was given up will be asked for");
                }
            });
        }
    }
}

/// The commit of a transaction that has written nothing: all that it read stands together at the timestamp, and now.
fn read_only(prepared: &[Prepared], now: Interval) -> Result<WriteResponse, Ended> {
    let timestamp = prepared.iter().map(|it| it.timestamp).max();
    let before = prepared.iter().map(|it| it.before).min();
    if timestamp >= before || before.is_some_and(|before| !now.is_before(before)) {
        let reason = "its promises have run out";
        return Err(Ended::Error(Error::Retry(Retry::Aborted(reason.into()))));
    }
    Ok(WriteResponse {
        commit_timestamp: timestamp,
        returned: Vec::new(),
    })
}

/// What to tell of several failures: what the caller did wrong, by the order of its mutations; else the first.
fn first_failure(failures: Vec<(&TabletPart, Ended)>) -> Option<Ended> {
    let mut best: Option<(u32, Ended)> = None;
    for (part, ended) in failures {
        let (rank, ended) = match ended {
            Ended::Error(error @ Error::Refused(_)) => {
                let rank = named(&error).and_then(|at| part.positions.get(at as usize));
                let rank = rank.or(part.positions.first()).copied().unwrap_or(0);
                (rank, Ended::Error(moved(error, &part.positions)))
            }
            // Nothing was decided, so nothing was done.
            Ended::Error(Error::Retry(Retry::NoLeader { .. })) => {
                let outcome = Outcome::NotApplied;
                (
                    u32::MAX,
                    Ended::Error(Error::Retry(Retry::NoLeader { outcome })),
                )
            }
            ended => (u32::MAX - 1, ended),
        };
        if best.as_ref().is_none_or(|(known, _)| rank < *known) {
            best = Some((rank, ended));
        }
    }
    best.map(|(_, ended)| ended)
}

/// The mutation that an error speaks of.
fn named(error: &Error) -> Option<u32> {
    use api::Refused;
    match error {
        Error::Refused(
            Refused::RowExists { mutation }
            | Refused::RowMissing { mutation }
            | Refused::ConditionFailed { mutation, .. }
            | Refused::UpdateFailed { mutation, .. },
        ) => Some(*mutation),
        _ => None,
    }
}
