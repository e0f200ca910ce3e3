//! Writes: each mutation to its tablet.

use super::commit;
use super::strong::{self, Ended};
use super::{Gateway, table_of};
use crate::core::Core;
use api::{
    Atomicity, Error, Mutation, Outcome, Refused, Retry, ReturnedRows, Returning, RowOperation,
    WriteRequest, WriteResponse,
};
use catalog::Catalog;
use cluster::Tablet;
use model::TabletId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use txn::{CommandId, TabletWrite};

/// Mutations that one request may carry.
const MUTATIONS_MAX: usize = 100_000;
/// A request is routed anew so often.
const ROUTES_MAX: u32 = 20;
/// A write that lost against others waits so long before it tries again.
const ABORT_PAUSE: Duration = Duration::from_millis(5);
const ABORT_PAUSE_MAX: Duration = Duration::from_millis(200);

/// The part of a request that goes to one tablet.
pub(super) struct Part {
    pub tablet: Arc<Tablet>,
    /// Where the mutations stand in the request.
    pub positions: Vec<u32>,
    pub mutations: Vec<Mutation>,
}

impl Gateway {
    /// What ends with the write itself of the locks that its transaction has is taken out of `locked`.
    pub(super) async fn write_any(
        &self,
        request: WriteRequest,
        locked: &mut BTreeSet<TabletId>,
    ) -> Result<WriteResponse, Error> {
        let catalog = self.core.views.catalog();
        if request.mutations.len() > MUTATIONS_MAX {
            return Err(Error::Refused(Refused::TooLarge(format!(
                "a write has at most {MUTATIONS_MAX} mutations"
            ))));
        }
        let mut strong_count = 0;
        for mutation in &request.mutations {
            strong_count += usize::from(table_of(&catalog, mutation.table)?.is_strong());
        }
        for assertion in &request.assertions {
            if !table_of(&catalog, assertion.table)?.is_strong() {
                return Err(Error::unsupported(
                    "a transaction relies on what it read, which takes strong tables",
                ));
            }
        }
        if strong_count == 0 && !request.mutations.is_empty() {
            return self.eventual.write(&catalog, request).await;
        }
        if strong_count == request.mutations.len() {
            // Boxed here and below, as all that is larger than a blind write of eventual rows: else its future would be as
            // large, and making one copies all of it.
            return Box::pin(write(&self.core, catalog, request, locked)).await;
        }
        if request.atomicity != Atomicity::Each {
            return Err(Error::unsupported(
                "an atomic write over strong and eventual tables is not possible: write them apart",
            ));
        }
        Box::pin(self.write_mixed(&catalog, request)).await
    }

    /// Strong and eventual tables in one request, each mutation by itself.
    async fn write_mixed(
        &self,
        catalog: &Arc<Catalog>,
        request: WriteRequest,
    ) -> Result<WriteResponse, Error> {
        let count = request.mutations.len();
        let mut strong = WriteRequest {
            mutations: Vec::new(),
            ..request.clone()
        };
        let mut eventual = strong.clone();
        let mut positions = Vec::new();
        for (position, mutation) in request.mutations.into_iter().enumerate() {
            if table_of(catalog, mutation.table)?.is_strong() {
                positions.push(position as u32);
                strong.mutations.push(mutation);
            } else {
                eventual.mutations.push(mutation);
            }
        }
        // Not a transaction's: those are of strong tables alone.
        let mut locked = BTreeSet::new();
        let (strong, eventual) = futures::future::join(
            write(&self.core, Arc::clone(catalog), strong, &mut locked),
            self.eventual.write(catalog, eventual),
        )
        .await;
        eventual?;
        let strong = strong.map_err(|error| moved(error, &positions))?;
        let mut response = WriteResponse {
            commit_timestamp: strong.commit_timestamp,
            returned: Vec::new(),
        };
        place(&mut response.returned, count, &positions, strong.returned);
        Ok(response)
    }
}

/// Carries out a write whose tables are all strong.
async fn write(
    core: &Arc<Core>,
    catalog: Arc<Catalog>,
    request: WriteRequest,
    locked: &mut BTreeSet<TabletId>,
) -> Result<WriteResponse, Error> {
    if request.timestamp.is_some() || request.mutations.iter().any(|m| m.timestamp.is_some()) {
        return Err(Error::invalid(
            "a strong table takes its timestamps from the clock: the write may not name one",
        ));
    }
    if request.mutations.is_empty() && request.assertions.is_empty() {
        return Ok(WriteResponse {
            commit_timestamp: Some(core.now().latest),
            returned: Vec::new(),
        });
    }
    let deadline = strong::deadline(request.patience);
    match request.atomicity {
        Atomicity::All | Atomicity::Logged => {
            write_all(core, catalog, request, locked, deadline).await
        }
        Atomicity::Each => Box::pin(write_each(core, catalog, request, deadline)).await,
    }
}

/// All mutations or none: in one tablet by one write, over several by a commit in two phases.
async fn write_all(
    core: &Arc<Core>,
    mut catalog: Arc<Catalog>,
    request: WriteRequest,
    locked: &mut BTreeSet<TabletId>,
    deadline: Instant,
) -> Result<WriteResponse, Error> {
    let command = match request.transaction.or(request.kept_as) {
        // So that a commit that is asked for twice is carried out once.
        Some(transaction) => strong::command_of(transaction),
        None => strong::command(core),
    };
    let began = core.now().latest;
    let mut has_refreshed = false;
    let mut pause = ABORT_PAUSE;
    let mut lost = None;
    for _ in 0..ROUTES_MAX {
        let Some(parts) = commit::by_tablet(core, &catalog, &request)? else {
            strong::await_tablet(core, deadline).await?;
            continue;
        };
        let outcome = match parts.as_slice() {
            [only] => {
                let outcome = write_one(core, &catalog, only, command, &request, deadline).await;
                if outcome.is_ok() {
                    locked.remove(&only.tablet.id);
                }
                outcome
            }
            parts => {
                let transaction = request.transaction;
                let transaction = transaction.unwrap_or_else(|| strong::transaction(core, began));
                let commit = commit::Commit {
                    core,
                    catalog: &catalog,
                    parts,
                    transaction,
                    kept_as: request.kept_as.map(strong::command_of),
                    deadline,
                };
                let began = Instant::now();
                let outcome = Box::pin(commit.run()).await;
                if let Err(Ended::Error(error)) = &outcome {
                    let failed: Result<(), Error> = Err(error.clone());
                    core.metrics.commits.observe(&failed, began.elapsed());
                } else if outcome.is_ok() {
                    core.metrics.commits.observe(&Ok(()), began.elapsed());
                }
                let tablets = parts.iter().map(|part| part.tablet.id).collect();
                match &outcome {
                    Ok(response) => {
                        let committed_at = response.commit_timestamp;
                        locked.retain(|tablet| !BTreeSet::contains(&tablets, tablet));
                        super::send_release(core, transaction, tablets, committed_at);
                    }
                    Err(Ended::Error(error)) if error.outcome() == Outcome::Unknown => {}
                    // An interactive transaction goes on with its locks, by other routes.
                    Err(Ended::Rerouted) if request.transaction.is_some() => {}
                    Err(_) => super::send_release(core, transaction, tablets, None),
                }
                outcome
            }
        };
        match outcome {
            Ok(response) => return Ok(response),
            Err(Ended::Rerouted) => {}
            Err(Ended::Error(Error::Retry(Retry::StaleSchema { current }))) => {
                let newer = core.views.catalog();
                if has_refreshed || !is_compatible(&catalog, &newer, &request.mutations) {
                    return Err(Error::Retry(Retry::StaleSchema { current }));
                }
                has_refreshed = true;
                catalog = newer;
            }
            // It has read nothing that could be stale by now: it may try again by itself.
            Err(Ended::Error(error @ Error::Retry(Retry::Aborted(_))))
                if request.assertions.is_empty()
                    && request.transaction.is_none()
                    && Instant::now() + pause < deadline =>
            {
                sleep(pause).await;
                pause = (pause * 2).min(ABORT_PAUSE_MAX);
                lost = Some(error);
            }
            Err(Ended::Error(error)) => return Err(error),
        }
    }
    Err(lost.unwrap_or_else(|| {
        Error::Retry(Retry::Overloaded(
            "the tablets move faster than the request".into(),
        ))
    }))
}

/// A write that lies in one tablet.
async fn write_one(
    core: &Core,
    catalog: &Catalog,
    part: &commit::TabletPart,
    command: CommandId,
    request: &WriteRequest,
    deadline: Instant,
) -> Result<WriteResponse, Ended> {
    let mut write = TabletWrite {
        tablet: part.tablet.id,
        epoch: part.tablet.epoch,
        schema: catalog.version,
        command,
        first_attempt: None,
        mutations: part.mutations.clone(),
        atomicity: Atomicity::All,
        assertions: part.assertions.clone(),
        patience_ms: 0,
        transaction: request.transaction,
        is_kept: request.kept_as.is_some(),
    };
    strong::write(core, &part.tablet, &mut write, deadline).await
}

/// Whether a request that was lowered with one catalog means the same with another.
fn is_compatible(old: &Catalog, new: &Catalog, mutations: &[Mutation]) -> bool {
    mutations.iter().all(|mutation| {
        let version = |catalog: &Catalog| catalog.table(mutation.table).map(|table| table.version);
        version(old).is_some() && version(old) == version(new)
    })
}

/// Where a mutation begins, and where it ends if it is of a range.
fn extent(mutation: &Mutation) -> (&[u8], Option<Option<&[u8]>>) {
    match &mutation.operation {
        RowOperation::DeleteRange { range } => (range.start.as_slice(), Some(range.end.as_deref())),
        _ => (mutation.key.as_slice(), None),
    }
}

/// Each mutation by itself; all tablets at once. The first error in the order of the mutations is the answer.
async fn write_each(
    core: &Core,
    catalog: Arc<Catalog>,
    request: WriteRequest,
    deadline: Instant,
) -> Result<WriteResponse, Error> {
    if !request.assertions.is_empty() {
        return Err(Error::invalid("assertions take an atomic write"));
    }
    let count = request.mutations.len();
    let has_returning = request
        .mutations
        .iter()
        .any(|mutation| mutation.returning != Returning::Nothing);
    let mut response = WriteResponse::default();
    let mut first_error: Option<(u32, Error)> = None;
    let mut open: Vec<(u32, Mutation)> = (0..).zip(request.mutations).collect();
    let mut catalog = catalog;
    for _ in 0..ROUTES_MAX {
        let parts = split(core, &catalog, open)?;
        open = Vec::new();
        let Some(parts) = parts.reachable(&mut open) else {
            strong::await_tablet(core, deadline).await?;
            continue;
        };
        let writing = parts
            .into_iter()
            .map(|part| write_part(core, &catalog, part, deadline));
        for (part, outcome) in futures::future::join_all(writing).await {
            match outcome {
                Ok(answer) => {
                    response.commit_timestamp =
                        response.commit_timestamp.max(answer.commit_timestamp);
                    place(
                        &mut response.returned,
                        count,
                        &part.positions,
                        answer.returned,
                    );
                }
                Err(Ended::Rerouted) => {
                    open.extend(part.positions.into_iter().zip(part.mutations));
                }
                Err(Ended::Error(error)) => {
                    let error = moved(error, &part.positions);
                    let first = part.positions.first().copied().unwrap_or(0);
                    if first_error.as_ref().is_none_or(|(known, _)| first < *known) {
                        first_error = Some((first, error));
                    }
                }
            }
        }
        if open.is_empty() {
            if !has_returning {
                response.returned.clear();
            }
            return match first_error {
                Some((_, error)) => Err(error),
                None => Ok(response),
            };
        }
        catalog = core.views.catalog();
    }
    Err(Error::Retry(Retry::Overloaded(
        "the tablets move faster than the request".into(),
    )))
}

async fn write_part(
    core: &Core,
    catalog: &Catalog,
    part: Part,
    deadline: Instant,
) -> (Part, Result<WriteResponse, Ended>) {
    let mut write = TabletWrite {
        tablet: part.tablet.id,
        epoch: part.tablet.epoch,
        schema: catalog.version,
        command: strong::command(core),
        first_attempt: None,
        mutations: part.mutations.clone(),
        atomicity: Atomicity::Each,
        assertions: Vec::new(),
        patience_ms: 0,
        transaction: None,
        is_kept: false,
    };
    let outcome = strong::write(core, &part.tablet, &mut write, deadline).await;
    (part, outcome)
}

/// Mutations by tablet, and those of which no tablet is known.
pub(super) struct Split {
    parts: BTreeMap<TabletId, Part>,
    homeless: Vec<(u32, Mutation)>,
}

impl Split {
    /// The parts; `None`, with all mutations back in `open`, when some have no tablet yet.
    pub fn reachable(self, open: &mut Vec<(u32, Mutation)>) -> Option<Vec<Part>> {
        if self.homeless.is_empty() {
            return Some(self.parts.into_values().collect());
        }
        open.extend(self.homeless);
        for part in self.parts.into_values() {
            open.extend(part.positions.into_iter().zip(part.mutations));
        }
        open.sort_by_key(|(position, _)| *position);
        None
    }
}

pub(super) fn split(
    core: &Core,
    catalog: &Catalog,
    mutations: Vec<(u32, Mutation)>,
) -> Result<Split, Error> {
    let view = core.view();
    let mut split = Split {
        parts: BTreeMap::new(),
        homeless: Vec::new(),
    };
    for (position, mutation) in mutations {
        let root = table_of(catalog, mutation.table)?.root;
        if let RowOperation::DeleteRange { range } = &mutation.operation {
            let tablets = view.tablets(root).iter();
            let touched: Vec<_> = tablets
                .filter(|tablet| !tablet.range.intersection(range).is_empty())
                .cloned()
                .collect();
            for tablet in touched {
                let range = tablet.range.intersection(range);
                let mut piece = mutation.clone();
                if piece.key == range_start(&mutation) {
                    piece.key.clone_from(&range.start);
                }
                piece.operation = RowOperation::DeleteRange { range };
                split.push(&tablet, position, piece);
            }
            continue;
        }
        match view.tablet_of(root, &mutation.key) {
            Some(tablet) => split.push(tablet, position, mutation),
            None => split.homeless.push((position, mutation)),
        }
    }
    Ok(split)
}

fn range_start(mutation: &Mutation) -> &[u8] {
    extent(mutation).0
}

impl Split {
    fn push(&mut self, tablet: &Arc<Tablet>, position: u32, mutation: Mutation) {
        let part = self.parts.entry(tablet.id).or_insert_with(|| Part {
            tablet: Arc::clone(tablet),
            positions: Vec::new(),
            mutations: Vec::new(),
        });
        part.positions.push(position);
        part.mutations.push(mutation);
    }
}

/// Puts a part's returned rows where the request's mutations stand.
pub(super) fn place(
    all: &mut Vec<ReturnedRows>,
    count: usize,
    positions: &[u32],
    returned: Vec<ReturnedRows>,
) {
    if returned.is_empty() {
        return;
    }
    all.resize(count, ReturnedRows::default());
    for (position, rows) in positions.iter().zip(returned) {
        if let Some(slot) = all.get_mut(*position as usize) {
            *slot = rows;
        }
    }
}

/// An error that names a mutation of a part, naming that of the request.
pub(super) fn moved(error: Error, positions: &[u32]) -> Error {
    let original = |mutation: u32| {
        positions
            .get(mutation as usize)
            .copied()
            .unwrap_or(mutation)
    };
    match error {
        Error::Refused(refused) => Error::Refused(match refused {
            Refused::RowExists { mutation } => Refused::RowExists {
                mutation: original(mutation),
            },
            Refused::RowMissing { mutation } => Refused::RowMissing {
                mutation: original(mutation),
            },
            Refused::ConditionFailed { mutation, row } => Refused::ConditionFailed {
                mutation: original(mutation),
                row,
            },
            Refused::UpdateFailed { mutation, message } => Refused::UpdateFailed {
                mutation: original(mutation),
                message,
            },
            refused => refused,
        }),
        error => error,
    }
}
