//! Runs plans: pulls batches of rows through a tree of operators. A scan pages through the inner language;
//! what must see everything first (sorts, aggregates, DISTINCT) holds at most `MEMORY_BYTES_MAX` and refuses
//! beyond. Knows no door and no transaction: it reads and writes through `Storage`.

mod aggregate;
mod apply;
mod join;
mod manipulation;

pub use manipulation::{Effect, execute_manipulation, refuse_orphans};

use crate::error::{Error, ErrorKind};
use crate::plan::{Applied, Plan, Relation, Row, Scan, SortKey, Subquery};
use crate::rows;
use crate::typed::{Expression, Scope, evaluate_all};
use crate::value;
use api::{Mutation, Projection, ReadRequest, ReadResponse, Selection};
use async_trait::async_trait;
use futures::future::BoxFuture;
use model::Value;
use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// What all operators of a statement may hold together.
pub const MEMORY_BYTES_MAX: usize = 256 << 20;
/// Rows that one page of a scan asks for.
const PAGE_ROWS: u64 = 1_000;
/// Bytes that one page of a scan asks for.
const PAGE_BYTES: u32 = 1 << 20;

/// What a statement runs on: a snapshot, or a transaction.
#[async_trait]
pub trait Storage: Send {
    /// The request's bound is the implementation's to set.
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResponse, api::Error>;

    /// As `read`, of rows of which these columns will be written next. A storage may lock them for that, and read more than
    /// is asked for.
    async fn read_to_write(
        &mut self,
        request: ReadRequest,
        written: Projection,
    ) -> Result<ReadResponse, api::Error> {
        let _ = written;
        self.read(request).await
    }

    /// Buffers mutations. Read-only storage refuses.
    async fn write(&mut self, mutations: Vec<Mutation>) -> Result<(), api::Error>;
}

/// A query under way: `next` yields batches until there are none.
pub struct Cursor {
    text: Arc<str>,
    operator: Operator,
    state: State,
}

/// What operators share.
struct State {
    slots: Vec<Value>,
    memory: Memory,
}

impl State {
    fn put(&mut self, slot: usize, value: Value) {
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, Value::Null);
        }
        self.slots[slot] = value;
    }
}

/// Counts what is held against the limit.
#[derive(Default)]
struct Memory {
    held_bytes: usize,
}

impl Memory {
    fn hold(&mut self, row: &[Value]) -> Result<(), Error> {
        self.held_bytes += row.iter().map(value::size_bytes).sum::<usize>() + 32;
        match self.held_bytes > MEMORY_BYTES_MAX {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::ResourceExhausted,
                format!(
                    "the statement holds more than {MEMORY_BYTES_MAX} bytes; add a filter, a LIMIT, or an ORDER BY \
                     that follows the primary key"
                ),
            )),
        }
    }
}

impl Cursor {
    /// Runs the plan's subqueries and stands before its first row.
    pub async fn open(plan: Plan, storage: &mut dyn Storage) -> Result<Cursor, Error> {
        let mut state = State {
            slots: Vec::new(),
            memory: Memory::default(),
        };
        run_subqueries(plan.subqueries, &mut state, storage)
            .await
            .map_err(|error| error.in_text(&plan.text))?;
        Ok(Cursor {
            text: plan.text,
            operator: Operator::of(plan.root),
            state,
        })
    }

    /// The next rows, at least one; `None` at the end.
    pub async fn next(&mut self, storage: &mut dyn Storage) -> Result<Option<Vec<Row>>, Error> {
        let next = self.operator.next(&mut self.state, storage).await;
        next.map_err(|error| error.in_text(&self.text))
    }

    pub async fn all(&mut self, storage: &mut dyn Storage) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        while let Some(batch) = self.next(storage).await? {
            for row in &batch {
                self.state.memory.hold(row)?;
            }
            rows.extend(batch);
        }
        Ok(rows)
    }
}

async fn run_subqueries(
    subqueries: Vec<Subquery>,
    state: &mut State,
    storage: &mut dyn Storage,
) -> Result<(), Error> {
    for subquery in subqueries {
        let value = apply::result(subquery.root, subquery.form, state, storage).await?;
        state.put(subquery.slot, value);
    }
    Ok(())
}

enum Operator {
    Rows(Vec<Row>),
    Values(Vec<Vec<Expression>>),
    Scan(Box<ScanState>),
    Unnest {
        array: Option<Expression>,
        with_offset: bool,
    },
    Filter {
        input: Box<Operator>,
        predicate: Expression,
    },
    Project {
        input: Box<Operator>,
        expressions: Vec<Expression>,
    },
    Aggregate(Box<aggregate::AggregateState>),
    Distinct {
        input: Box<Operator>,
        seen: BTreeSet<OrderedRow>,
    },
    Sort {
        input: Option<Box<Operator>>,
        keys: Vec<SortKey>,
        keep: Option<usize>,
    },
    Limit {
        input: Box<Operator>,
        left: Option<u64>,
        skip: u64,
    },
    Trim {
        input: Box<Operator>,
        width: usize,
    },
    Union(VecDeque<Operator>),
    Set(Box<join::SetState>),
    Join(Box<join::JoinState>),
    Flatten(Box<join::FlattenState>),
    Apply {
        input: Box<Operator>,
        applied: Vec<Applied>,
    },
}

/// A row under the total order of `value::order`.
#[derive(Clone)]
pub(crate) struct OrderedRow(pub Row);

impl PartialEq for OrderedRow {
    fn eq(&self, other: &OrderedRow) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for OrderedRow {}

impl PartialOrd for OrderedRow {
    fn partial_cmp(&self, other: &OrderedRow) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedRow {
    fn cmp(&self, other: &OrderedRow) -> Ordering {
        self.0
            .iter()
            .zip(&other.0)
            .map(|(left, right)| value::order(left, right))
            .find(|ordering| ordering.is_ne())
            .unwrap_or_else(|| self.0.len().cmp(&other.0.len()))
    }
}

struct ScanState {
    scan: Scan,
    /// What is left to read; `None` when all is.
    rest: Option<Selection>,
    rows_left: Option<u64>,
}

impl Operator {
    fn of(relation: Relation) -> Operator {
        let boxed = |relation: Box<Relation>| Box::new(Operator::of(*relation));
        match relation {
            Relation::Rows(rows) => Operator::Rows(rows),
            Relation::Values(rows) => Operator::Values(rows),
            Relation::Scan(scan) => Operator::Scan(Box::new(ScanState {
                rest: Some(scan.selection.clone()),
                rows_left: scan.row_limit,
                scan,
            })),
            Relation::Unnest { array, with_offset } => Operator::Unnest {
                array: Some(array),
                with_offset,
            },
            Relation::Filter { input, predicate } => Operator::Filter {
                input: boxed(input),
                predicate,
            },
            Relation::Project { input, expressions } => Operator::Project {
                input: boxed(input),
                expressions,
            },
            Relation::Aggregate {
                input,
                keys,
                aggregates,
            } => Operator::Aggregate(Box::new(aggregate::AggregateState::new(
                Operator::of(*input),
                keys,
                aggregates,
            ))),
            Relation::Distinct { input } => Operator::Distinct {
                input: boxed(input),
                seen: BTreeSet::new(),
            },
            Relation::Sort { input, keys, keep } => Operator::Sort {
                input: Some(boxed(input)),
                keys,
                keep,
            },
            Relation::Limit {
                input,
                count,
                offset,
            } => Operator::Limit {
                input: boxed(input),
                left: count,
                skip: offset,
            },
            Relation::Trim { input, width } => Operator::Trim {
                input: boxed(input),
                width,
            },
            Relation::UnionAll(relations) => {
                Operator::Union(relations.into_iter().map(Operator::of).collect())
            }
            Relation::Set {
                operation,
                distinct,
                left,
                right,
            } => Operator::Set(Box::new(join::SetState::new(
                operation,
                distinct,
                Operator::of(*left),
                Operator::of(*right),
            ))),
            Relation::Join(join) => Operator::Join(Box::new(join::JoinState::new(*join))),
            Relation::Flatten {
                input,
                array,
                with_offset,
                keeps_all,
            } => Operator::Flatten(Box::new(join::FlattenState {
                input: Operator::of(*input),
                array,
                with_offset,
                keeps_all,
            })),
            Relation::Apply { input, applied } => Operator::Apply {
                input: boxed(input),
                applied,
            },
        }
    }

    /// The next batch, never empty.
    fn next<'a>(
        &'a mut self,
        state: &'a mut State,
        storage: &'a mut dyn Storage,
    ) -> BoxFuture<'a, Result<Option<Vec<Row>>, Error>> {
        Box::pin(async move {
            match self {
                Operator::Rows(rows) => Ok(not_empty(std::mem::take(rows))),
                Operator::Values(rows) => {
                    let scope = Scope {
                        row: &[],
                        slots: &state.slots,
                    };
                    let rows: Result<Vec<Row>, Error> = std::mem::take(rows)
                        .iter()
                        .map(|row| evaluate_all(row, scope))
                        .collect();
                    rows.map(not_empty)
                }
                Operator::Scan(scan) => scan.next(storage).await,
                Operator::Unnest { array, with_offset } => match array.take() {
                    Some(array) => unnest(&array, *with_offset, state).map(not_empty),
                    None => Ok(None),
                },
                Operator::Filter { input, predicate } => loop {
                    let Some(batch) = input.next(state, storage).await? else {
                        return Ok(None);
                    };
                    let mut kept = Vec::with_capacity(batch.len());
                    for row in batch {
                        let scope = Scope {
                            row: &row,
                            slots: &state.slots,
                        };
                        if predicate.holds(scope)? {
                            kept.push(row);
                        }
                    }
                    if !kept.is_empty() {
                        return Ok(Some(kept));
                    }
                },
                Operator::Project { input, expressions } => {
                    let Some(batch) = input.next(state, storage).await? else {
                        return Ok(None);
                    };
                    let rows: Result<Vec<Row>, Error> = batch
                        .iter()
                        .map(|row| {
                            let scope = Scope {
                                row,
                                slots: &state.slots,
                            };
                            evaluate_all(expressions, scope)
                        })
                        .collect();
                    rows.map(Some)
                }
                Operator::Aggregate(aggregate) => aggregate.next(state, storage).await,
                Operator::Distinct { input, seen } => loop {
                    let Some(batch) = input.next(state, storage).await? else {
                        return Ok(None);
                    };
                    let mut fresh = Vec::new();
                    for row in batch {
                        if seen.insert(OrderedRow(row.clone())) {
                            state.memory.hold(&row)?;
                            fresh.push(row);
                        }
                    }
                    if !fresh.is_empty() {
                        return Ok(Some(fresh));
                    }
                },
                Operator::Sort { input, keys, keep } => match input.take() {
                    Some(input) => sorted(*input, keys, *keep, state, storage)
                        .await
                        .map(not_empty),
                    None => Ok(None),
                },
                Operator::Limit { input, left, skip } => {
                    limited(input, left, skip, state, storage).await
                }
                Operator::Trim { input, width } => {
                    let mut batch = input.next(state, storage).await?;
                    for row in batch.iter_mut().flatten() {
                        row.truncate(*width);
                    }
                    Ok(batch)
                }
                Operator::Union(operators) => {
                    while let Some(first) = operators.front_mut() {
                        if let Some(batch) = first.next(state, storage).await? {
                            return Ok(Some(batch));
                        }
                        operators.pop_front();
                    }
                    Ok(None)
                }
                Operator::Set(set) => set.next(state, storage).await,
                Operator::Join(join) => join.next(state, storage).await,
                Operator::Flatten(flatten) => flatten.next(state, storage).await,
                Operator::Apply { input, applied } => {
                    apply::next(input, applied, state, storage).await
                }
            }
        })
    }
}

fn not_empty(rows: Vec<Row>) -> Option<Vec<Row>> {
    match rows.is_empty() {
        true => None,
        false => Some(rows),
    }
}

async fn limited(
    input: &mut Operator,
    left: &mut Option<u64>,
    skip: &mut u64,
    state: &mut State,
    storage: &mut dyn Storage,
) -> Result<Option<Vec<Row>>, Error> {
    loop {
        if *left == Some(0) {
            return Ok(None);
        }
        let Some(mut batch) = input.next(state, storage).await? else {
            return Ok(None);
        };
        let skipped = (*skip).min(batch.len() as u64);
        *skip -= skipped;
        batch.drain(..skipped as usize);
        if let Some(left) = left {
            let wanted = usize::try_from(*left).unwrap_or(usize::MAX);
            batch.truncate(wanted);
            *left -= batch.len() as u64;
        }
        if !batch.is_empty() {
            return Ok(Some(batch));
        }
    }
}

fn unnest(array: &Expression, with_offset: bool, state: &State) -> Result<Vec<Row>, Error> {
    let scope = Scope {
        row: &[],
        slots: &state.slots,
    };
    let Value::List(items) = array.evaluate(scope)? else {
        return Ok(Vec::new());
    };
    let rows = items
        .into_iter()
        .enumerate()
        .map(|(index, item)| match with_offset {
            true => vec![item, Value::Int(index as i64)],
            false => vec![item],
        });
    Ok(rows.collect())
}

async fn sorted(
    mut input: Operator,
    keys: &[SortKey],
    keep: Option<usize>,
    state: &mut State,
    storage: &mut dyn Storage,
) -> Result<Vec<Row>, Error> {
    let mut rows: Vec<Row> = Vec::new();
    let order = |left: &Row, right: &Row| compare(left, right, keys);
    while let Some(batch) = input.next(state, storage).await? {
        for row in batch {
            if keep.is_none() {
                state.memory.hold(&row)?;
            }
            rows.push(row);
        }
        // With a limit, only the first rows matter: what cannot be among them is dropped as it comes.
        if let Some(keep) = keep
            && rows.len() > keep.saturating_mul(2).max(PAGE_ROWS as usize * 2)
        {
            rows.sort_by(order);
            rows.truncate(keep);
        }
    }
    rows.sort_by(order);
    if let Some(keep) = keep {
        rows.truncate(keep);
    }
    Ok(rows)
}

fn compare(left: &Row, right: &Row, keys: &[SortKey]) -> Ordering {
    for key in keys {
        let (left, right) = (&left[key.column], &right[key.column]);
        let ordering = match (left.is_null(), right.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) if key.nulls_first => Ordering::Less,
            (true, false) => Ordering::Greater,
            (false, true) if key.nulls_first => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) if key.descending => value::order(right, left),
            (false, false) => value::order(left, right),
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
    Ordering::Equal
}

impl ScanState {
    async fn next(&mut self, storage: &mut dyn Storage) -> Result<Option<Vec<Row>>, Error> {
        let table = Arc::clone(&self.scan.table);
        while let Some(selection) = self.rest.take() {
            if self.rows_left == Some(0) {
                return Ok(None);
            }
            let wanted = self.rows_left.unwrap_or(PAGE_ROWS).min(PAGE_ROWS);
            let looked_at = self.scan.looked_at.as_ref();
            let is_looked_at = |index: &&usize| looked_at.is_none_or(|them| them.contains(*index));
            let columns = self.scan.columns.iter().filter(is_looked_at);
            let columns = columns.map(|index| &table.columns()[*index]);
            let mut request = ReadRequest::new(table.id, selection);
            request.direction = self.scan.direction;
            request.projection = Projection::Columns(
                columns
                    .filter(|column| !rows::is_key(column))
                    .map(|column| column.id)
                    .collect(),
            );
            request.row_limit = Some(wanted as u32);
            request.size_bytes_max = PAGE_BYTES;
            let response = match self.scan.for_update {
                true => {
                    let written = request.projection.clone();
                    storage.read_to_write(request, written).await?
                }
                false => storage.read(request).await?,
            };
            self.rest = response.next;
            let mut batch = Vec::with_capacity(response.rows.len());
            for row in &response.rows {
                batch.push(rows::values(&table, &self.scan.columns, row)?);
            }
            if let Some(left) = &mut self.rows_left {
                *left = left.saturating_sub(batch.len() as u64);
            }
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
