//! Compare-and-set: mutations that depend on the rows as they are, agreed upon partition by partition.
//!
//! What is evaluated is what a quorum has promised on; what is proposed are the rows that this leads to, with the
//! ballot's timestamp. A ballot that is not later than all that was read is raised above it first: clients and other
//! gateways may have clocks that are ahead, and what is decided must not be shadowed by what it followed.
//!
//! A proposer that lost sight of its proposal prepares a new ballot and finds out what became of it. Only when
//! there is no time left, or too much was decided since, is the outcome unknown.

use super::Coordinator;
use super::agreement::{Agreement, Ended, Settled, Subject, Vote};
use crate::lower::lower;
use crate::merge::Merged;
use crate::message::{Covered, RawRow, ReplicaRead, ReplicaSelection};
use crate::partition::Layout;
use crate::paxos::{Fate, Proposal, fate};
use crate::visible::View;
use api::evaluate::{Evaluated, Moment, evaluate, needs_read, resolved};
use api::{
    Assignment, Atomicity, Error, Level, Mutation, Outcome, Projection, Refused, ReturnedRows,
    Returning, RowOperation, WriteRequest, WriteResponse,
};
use catalog::{Catalog, Table};
use model::{Row, Timestamp, Value};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use tokio::time::{Instant, timeout_at};
use world::planted::{self, Bug};

/// The rows that one compare-and-set looks at, together.
const READ_BYTES_MAX: u32 = 16 << 20;

/// Mutations of one partition that take effect together or not at all.
struct Swap<'a> {
    table: &'a Table,
    layout: Layout,
    partition: Vec<u8>,
    mutations: &'a [Mutation],
    serial_level: Level,
    commit_level: Level,
    tombstones_max: Option<u64>,
    deadline: Instant,
}

impl Coordinator {
    /// Carries out a write of which some mutations need the rows as they are.
    pub(super) async fn write_conditionally(
        &self,
        catalog: &Catalog,
        request: WriteRequest,
        deadline: Instant,
    ) -> Result<WriteResponse, Error> {
        if request.atomicity != Atomicity::Each {
            return self
                .compare_and_set(catalog, &request, &request.mutations, deadline)
                .await;
        }
        let blind = WriteRequest {
            mutations: request
                .mutations
                .iter()
                .filter(|mutation| !needs_read(mutation))
                .cloned()
                .collect(),
            ..request.clone()
        };
        if !blind.mutations.is_empty() {
            self.write_blindly(catalog, blind, deadline).await?;
        }
        let mut response = WriteResponse {
            returned: vec![ReturnedRows::default(); request.mutations.len()],
            ..WriteResponse::default()
        };
        for (index, mutation) in request.mutations.iter().enumerate() {
            if !needs_read(mutation) {
                continue;
            }
            let alone = std::slice::from_ref(mutation);
            let outcome = self.compare_and_set(catalog, &request, alone, deadline);
            let mut one = outcome.await.map_err(|error| at_position(error, index))?;
            if let Some(returned) = one.returned.pop() {
                response.returned[index] = returned;
            }
        }
        Ok(response)
    }

    async fn compare_and_set(
        &self,
        catalog: &Catalog,
        request: &WriteRequest,
        mutations: &[Mutation],
        deadline: Instant,
    ) -> Result<WriteResponse, Error> {
        let swap = Swap::new(catalog, request, mutations, deadline)?;
        let place = (swap.table.root, swap.partition.clone());
        let mut agreement = Agreement::new(Subject {
            coordinator: self,
            table: swap.table,
            layout: &swap.layout,
            partition: swap.partition.clone(),
            level: swap.serial_level,
            read: ReplicaRead {
                rows: ReplicaSelection::Keys(swap.keys()),
                row_limit: None,
                size_bytes_max: READ_BYTES_MAX,
                now_seconds: self.gateway.now_seconds(),
            },
            deadline,
        });
        agreement.check_commit_level(swap.commit_level)?;
        let Ok(_turn) = timeout_at(deadline, self.turns.take(place)).await else {
            return Err(agreement.write_timeout(Outcome::NotApplied));
        };
        let mut proposed = Proposed::default();
        match swap.agree(&mut agreement, &mut proposed).await {
            Ok(response) => Ok(response),
            Err(Ended::Timeout) => Err(agreement.write_timeout(proposed.outcome())),
            Err(Ended::Error(error)) if proposed.is_open() && !is_verdict(&error) => {
                tracing::debug!(%error, "the outcome of a proposal stays unknown");
                Err(agreement.write_timeout(Outcome::Unknown))
            }
            Err(Ended::Error(error)) => Err(error),
        }
    }
}

/// Whether the error says what has become of the write, once something was proposed.
fn is_verdict(error: &Error) -> bool {
    matches!(error, Error::Refused(_)) || error.outcome() == Outcome::Unknown
}

/// What one request has proposed and lost sight of.
#[derive(Default)]
struct Proposed {
    origins: Vec<Timestamp>,
    returned: Vec<ReturnedRows>,
}

impl Proposed {
    fn is_open(&self) -> bool {
        !self.origins.is_empty()
    }

    fn outcome(&self) -> Outcome {
        if self.is_open() {
            Outcome::Unknown
        } else {
            Outcome::NotApplied
        }
    }
}

/// What the mutations come to on the rows as they are.
struct Change {
    deltas: Vec<RawRow>,
    returned: Vec<ReturnedRows>,
}

impl<'a> Swap<'a> {
    fn new(
        catalog: &'a Catalog,
        request: &WriteRequest,
        mutations: &'a [Mutation],
        deadline: Instant,
    ) -> Result<Swap<'a>, Error> {
        if matches!(request.level, Level::Serial | Level::LocalSerial) {
            return Err(Error::invalid(
                "SERIAL and LOCAL_SERIAL are not supported as conditional update commit consistency. Use ANY if \
                 you mean \"make sure it is accepted but I don't care how many replicas commit it for non-SERIAL \
                 reads\"",
            ));
        }
        let first = mutations
            .first()
            .ok_or_else(|| Error::invalid("a write of nothing"))?;
        let table = catalog
            .table(first.table)
            .ok_or_else(|| Error::Refused(Refused::NoTable(first.table.to_string())))?;
        let layout = Layout::new(table);
        let mut partition: Option<Vec<u8>> = None;
        for mutation in mutations {
            let header = layout.header_of(&mutation.key);
            let is_same = partition
                .as_ref()
                .is_none_or(|known| Some(known) == header.as_ref());
            if mutation.table != table.id || !is_same || header.is_none() {
                return Err(Error::invalid(
                    "conditional writes that belong together must be of one partition of one table",
                ));
            }
            partition = header;
        }
        let names_time = mutations
            .iter()
            .any(|mutation| mutation.timestamp.is_some());
        if names_time || request.timestamp.is_some() {
            return Err(Error::invalid(
                "Cannot provide custom timestamp for conditional updates",
            ));
        }
        Ok(Swap {
            table,
            layout,
            partition: partition.unwrap_or_default(),
            mutations,
            serial_level: match request.serial_level {
                Level::LocalSerial => Level::LocalSerial,
                _ => Level::Serial,
            },
            commit_level: request.level,
            tombstones_max: request.tombstones_max,
            deadline,
        })
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = self
            .mutations
            .iter()
            .map(|mutation| mutation.key.clone())
            .collect();
        keys.sort();
        keys.dedup();
        keys
    }

    async fn agree(
        &self,
        agreement: &mut Agreement<'_>,
        proposed: &mut Proposed,
    ) -> Result<WriteResponse, Ended> {
        loop {
            let mut settled = agreement.settle().await?;
            match fate(&proposed.origins, settled.last.as_ref()) {
                Fate::Decided => {
                    let decided = settled.last.clone();
                    let returned = std::mem::take(&mut proposed.returned);
                    return match decided {
                        Some(decided) => self.commit(agreement, &settled, decided, returned).await,
                        None => Ok(answer(returned)),
                    };
                }
                Fate::Forgotten => return Err(agreement.write_timeout(Outcome::Unknown).into()),
                Fate::Lost => proposed.origins.clear(),
                Fate::Open => {}
            }
            let merged = std::mem::take(&mut settled.merged);
            if merged.covered != Covered::All {
                return Err(Error::Refused(Refused::TooLarge(format!(
                    "a conditional write looks at more than {READ_BYTES_MAX} bytes of rows"
                )))
                .into());
            }
            if let Some(newest) = shadowing(&merged, settled.ballot.timestamp) {
                agreement.raise(newest);
                continue;
            }
            let moment = Moment {
                timestamp: settled.ballot.timestamp,
                now_seconds: settled.now_seconds,
            };
            let change = match self.evaluate(merged, moment) {
                Ok(change) => change,
                Err(refusal) if proposed.is_open() => {
                    // It must not be decided after its client has been told that it was refused.
                    let nothing = agreement.proposal(&settled, vec![]);
                    if agreement.propose(&settled, &nothing).await? != Vote::Decided {
                        continue;
                    }
                    proposed.origins.clear();
                    // For whoever comes next; nobody waits for it.
                    let _ = agreement.commit(&settled, nothing, Level::Any).await;
                    return Err(refusal.into());
                }
                Err(refusal) => return Err(refusal.into()),
            };
            if change.deltas.is_empty() {
                return Ok(answer(change.returned));
            }
            let proposal = agreement.proposal(&settled, change.deltas);
            proposed.origins.push(settled.ballot.timestamp);
            proposed.returned = change.returned;
            match agreement.propose(&settled, &proposal).await? {
                Vote::Decided => {
                    let returned = std::mem::take(&mut proposed.returned);
                    return self.commit(agreement, &settled, proposal, returned).await;
                }
                Vote::Rejected => {
                    proposed.origins.pop();
                }
                Vote::Open => {}
            }
            if Instant::now() >= self.deadline {
                return Err(Ended::Timeout);
            }
        }
    }

    async fn commit(
        &self,
        agreement: &Agreement<'_>,
        settled: &Settled,
        decided: Proposal,
        returned: Vec<ReturnedRows>,
    ) -> Result<WriteResponse, Ended> {
        let level = match planted::is(Bug::CommitNotAwaited) {
            true => Level::Any,
            false => self.commit_level,
        };
        agreement.commit(settled, decided, level).await?;
        Ok(answer(returned))
    }

    /// Checks the conditions and works out the rows' changes; each mutation sees what those before it leave.
    fn evaluate(&self, merged: Merged, moment: Moment) -> Result<Change, Error> {
        let tombstones = AtomicU64::new(0);
        let view = View::new(
            self.table,
            &self.layout,
            &Projection::All,
            moment.now_seconds,
            &tombstones,
        );
        let mut rows: BTreeMap<Vec<u8>, Row> = view
            .by_key(merged)
            .into_iter()
            .map(|(key, read)| (key, read.row))
            .collect();
        let count = tombstones.into_inner();
        if self.tombstones_max.is_some_and(|most| count > most) {
            return Err(Error::Refused(Refused::TooManyTombstones { count }));
        }
        let mut change = Change {
            deltas: Vec::new(),
            returned: Vec::new(),
        };
        for (index, mutation) in (0..).zip(self.mutations) {
            let current = rows.get(&mutation.key);
            let is_range = matches!(mutation.operation, RowOperation::DeleteRange { .. });
            let evaluated = if is_range {
                // Of many rows; only its condition is about the one.
                let check = Mutation {
                    operation: RowOperation::Check,
                    ..mutation.clone()
                };
                evaluate(self.table, index, &check, current, moment)?
            } else {
                evaluate(self.table, index, mutation, current, moment)?
            };
            let operation = resolved(self.table, &mutation.operation, current)?;
            if let Some(blind) = blind(mutation, operation.as_ref(), &evaluated) {
                change.deltas.push(lower(self.table, &blind, moment)?);
            }
            change.returned.push(evaluated.returned);
            match evaluated.new {
                Some(row) => rows.insert(mutation.key.clone(), row),
                None => rows.remove(&mutation.key),
            };
        }
        let wants_rows = |mutation: &Mutation| mutation.returning != Returning::Nothing;
        if !self.mutations.iter().any(wants_rows) {
            change.returned.clear();
        }
        Ok(change)
    }
}

/// The mutation, whose operation is resolved, as one that depends on nothing, now that what it depends on is known.
fn blind(mutation: &Mutation, operation: &RowOperation, evaluated: &Evaluated) -> Option<Mutation> {
    let merge = |assignments: &[Assignment]| RowOperation::Merge {
        marker: true,
        assignments: assignments.to_vec(),
        ttl_seconds: None,
    };
    let operation = match operation {
        RowOperation::Check => return None,
        RowOperation::Insert { assignments } | RowOperation::Update { assignments } => {
            merge(assignments)
        }
        RowOperation::UpdateDocument { column, .. } => {
            let document = evaluated.new.as_ref()?.value(*column)?;
            if !evaluated.is_write {
                return None;
            }
            merge(&[Assignment::Set {
                column: *column,
                path: None,
                value: Value::clone(document),
            }])
        }
        other => other.clone(),
    };
    Some(Mutation::new(
        mutation.table,
        mutation.key.clone(),
        operation,
    ))
}

/// The newest write timestamp among the rows, if it is not before the ballot's.
fn shadowing(merged: &Merged, ballot: Timestamp) -> Option<Timestamp> {
    // Nothing can be written above the end of time.
    let above_all = Timestamp(i64::MAX / 2);
    let rows = merged.rows.iter().map(|(_, row)| row);
    rows.chain(merged.headers.values())
        .filter_map(Row::timestamp)
        .filter(|timestamp| *timestamp >= ballot && *timestamp < above_all)
        .max()
}

fn answer(returned: Vec<ReturnedRows>) -> WriteResponse {
    WriteResponse {
        commit_timestamp: None,
        returned,
    }
}

/// The error of a mutation that was carried out alone, with its place in the request.
fn at_position(error: Error, position: usize) -> Error {
    let position = position as u32;
    match error {
        Error::Refused(Refused::RowExists { .. }) => {
            Error::Refused(Refused::RowExists { mutation: position })
        }
        Error::Refused(Refused::RowMissing { .. }) => {
            Error::Refused(Refused::RowMissing { mutation: position })
        }
        Error::Refused(Refused::ConditionFailed { row, .. }) => {
            Error::Refused(Refused::ConditionFailed {
                mutation: position,
                row,
            })
        }
        Error::Refused(Refused::UpdateFailed { message, .. }) => {
            Error::Refused(Refused::UpdateFailed {
                mutation: position,
                message,
            })
        }
        other => other,
    }
}
