//! INSERT, UPDATE and DELETE, alone; with conditions, their `[applied]` answers.

use super::rows::computed_answer;
use super::{Execution, Timeout, tombstones};
use crate::error::{Error, WriteType};
use crate::plan::condition::{ReadyConditions, holds_for_missing};
use crate::plan::keys::Rows;
use crate::plan::lower::{Existing, Lowered};
use crate::plan::modify::{ModifyPlan, has_counters};
use crate::plan::selector::{RowView, column};
use crate::plan::term::Context;
use api::{
    Atomicity, Condition, Mutation, ReadRequest, Refused, Returning, RowOperation, Selection,
    WriteRequest,
};
use model::{Row, Timestamp, Type, Value};
use std::collections::BTreeMap;

/// How often a condition that holds for a missing row is tried both ways.
const CONDITION_ATTEMPTS_MAX: usize = 8;

pub async fn modify(execution: &Execution<'_>, plan: &ModifyPlan) -> Result<Vec<u8>, Error> {
    let context = execution.context();
    let lowered = if plan.condition.is_some() || plan.table.is_strong() {
        lower_unread(plan, &context)?
    } else {
        lower(execution, plan, &context).await?
    };
    if plan.condition.is_some() {
        let statement = Conditional::new(plan, lowered, &context)?;
        return Box::pin(conditional(execution, vec![statement], &context)).await;
    }
    let atomicity = if lowered.headers.len() > 1 {
        Atomicity::Each
    } else {
        Atomicity::All
    };
    let write_type = match has_counters(&plan.table) {
        true => WriteType::Counter,
        false => WriteType::Simple,
    };
    write(
        execution,
        lowered.mutations,
        atomicity,
        execution.parameters.timestamp,
        write_type,
    )
    .await?;
    Ok(execution.reply.void(&[]))
}

/// Lowers a statement that is evaluated on the rows as they are in any case: where elements of lists stand is found out
/// there, so that nothing comes in between.
pub fn lower_unread(plan: &ModifyPlan, context: &Context<'_>) -> Result<Lowered, Error> {
    plan.lower(context, &Existing::Later)
}

/// Lowers a statement, having read the lists that it changes by index or value.
pub async fn lower(
    execution: &Execution<'_>,
    plan: &ModifyPlan,
    context: &Context<'_>,
) -> Result<Lowered, Error> {
    let mut existing = BTreeMap::new();
    let mut tombstones = 0;
    let mut next = Some(plan.rows_to_read(context)?).filter(|keys| !keys.is_empty());
    let mut selection = next.take().map(Selection::Keys);
    while let Some(keys) = selection.take() {
        let mut request = ReadRequest::new(plan.table.id, keys);
        request.bound = execution.read_bound();
        request.patience = execution.patience(Timeout::Read);
        let response = execution.read(request).await;
        let response = response.map_err(Error::from_read)?;
        tombstones += response.tombstones;
        tombstones::check(execution, &plan.table, tombstones)?;
        existing.extend(response.rows.into_iter().map(|row| (row.key, row.row)));
        selection = response.next;
    }
    plan.lower(context, &Existing::Read(existing))
}

/// Writes mutations. The client's default timestamp counts on eventual tables; strong ones have their own clock.
pub async fn write(
    execution: &Execution<'_>,
    mut mutations: Vec<Mutation>,
    atomicity: Atomicity,
    timestamp: Option<i64>,
    write_type: WriteType,
) -> Result<(), Error> {
    if mutations.is_empty() {
        return Ok(());
    }
    let catalog = execution.server.database.catalog();
    let is_strong = |mutation: &Mutation| {
        catalog
            .table(mutation.table)
            .is_some_and(|table| table.is_strong())
    };
    let mut request_timestamp = timestamp.map(Timestamp);
    let mut timeout = Timeout::Write;
    if mutations.iter().any(is_strong) {
        timeout = Timeout::CounterWrite;
        for mutation in mutations.iter_mut().filter(|mutation| !is_strong(mutation)) {
            mutation.timestamp = mutation.timestamp.or(request_timestamp);
        }
        request_timestamp = None;
    }
    let request = WriteRequest {
        mutations,
        atomicity,
        level: execution.level(),
        serial_level: execution.serial_level(),
        timestamp: request_timestamp,
        assertions: Vec::new(),
        patience: execution.patience(timeout),
        transaction: None,
        kept_as: None,
        tombstones_max: None,
    };
    match execution.server.database.write(request).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::from_write(error, write_type)),
    }
}

/// A statement with a condition, ready to be tried.
pub struct Conditional<'a> {
    plan: &'a ModifyPlan,
    mutations: Vec<Mutation>,
    conditions: ReadyConditions,
    header: Vec<u8>,
    row_key: Option<Vec<u8>>,
    key_values: Vec<Value>,
}

impl<'a> Conditional<'a> {
    pub fn new(
        plan: &'a ModifyPlan,
        lowered: Lowered,
        context: &Context<'_>,
    ) -> Result<Conditional<'a>, Error> {
        let mut partitions = plan.keys.partitions(&plan.table, context)?;
        let (Some(partition), true) = (partitions.pop(), partitions.is_empty()) else {
            return Err(Error::invalid(
                "IN on the partition key is not supported with conditional updates",
            ));
        };
        let row_key = match partition.rows {
            Rows::Keys(mut keys) => keys.pop().map(|(key, _)| key),
            _ => None,
        };
        let conditions = match &plan.condition {
            Some(condition) => condition.ready(&plan.view, row_key.is_some(), context)?,
            None => ReadyConditions::default(),
        };
        Ok(Conditional {
            plan,
            mutations: lowered.mutations,
            conditions,
            header: partition.header,
            row_key,
            key_values: lowered.key_values,
        })
    }

    /// The mutations with the conditions on them; where no mutation is of the record that a condition is about,
    /// one is added that changes nothing. Of several statements those come first, before all mutations, so that each
    /// condition is about the rows as they were.
    fn guarded(&self, is_alone: bool) -> (Vec<Mutation>, Vec<Mutation>) {
        let mut mutations = self.mutations.clone();
        let mut checks = Vec::new();
        let record = [
            (Some(&self.header), &self.conditions.header),
            (self.row_key.as_ref(), &self.conditions.row),
        ];
        for (key, condition) in record {
            let (Some(key), Some(condition)) = (key, condition) else {
                continue;
            };
            let mut found = mutations.iter_mut().find(|mutation| mutation.key == *key);
            if let Some(mutation) = found.as_mut().filter(|_| is_alone) {
                mutation.condition = Some(condition.clone());
                mutation.returning = Returning::Old;
                continue;
            }
            let mut check = Mutation::new(self.plan.table.id, key.clone(), RowOperation::Check);
            check.condition = Some(condition.clone());
            check.returning = Returning::Old;
            checks.push(check);
        }
        (checks, mutations)
    }

    /// Where a condition holds for the record's absence, asks for that absence instead. False when it does not.
    fn ask_for_absence(&mut self, key: &[u8]) -> bool {
        let condition = if key == self.header {
            &mut self.conditions.header
        } else {
            &mut self.conditions.row
        };
        match condition {
            Some(known) if holds_for_missing(known) => {
                *condition = Some(Condition::RowMissing);
                true
            }
            _ => false,
        }
    }
}

/// Tries conditional statements of one partition together, and answers with `[applied]`.
pub async fn conditional(
    execution: &Execution<'_>,
    mut statements: Vec<Conditional<'_>>,
    context: &Context<'_>,
) -> Result<Vec<u8>, Error> {
    let original: Vec<ReadyConditions> = statements
        .iter()
        .map(|statement| statement.conditions.clone())
        .collect();
    let is_strong = |statement: &Conditional<'_>| statement.plan.table.is_strong();
    let timeout = match statements.iter().all(is_strong) {
        true => Timeout::CounterWrite,
        false => Timeout::CasContention,
    };
    for _ in 0..CONDITION_ATTEMPTS_MAX {
        let (mut mutations, mut owners, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for (owner, statement) in statements.iter().enumerate() {
            let (checks, own_changes) = statement.guarded(statements.len() == 1);
            for check in checks {
                mutations.push(check);
                owners.push(owner);
            }
            changes.extend(own_changes.into_iter().map(|change| (change, owner)));
        }
        for (change, owner) in changes {
            mutations.push(change);
            owners.push(owner);
        }
        let keys: Vec<Vec<u8>> = mutations
            .iter()
            .map(|mutation| mutation.key.clone())
            .collect();
        let request = WriteRequest {
            mutations,
            atomicity: Atomicity::All,
            level: execution.level(),
            serial_level: execution.serial_level(),
            timestamp: None,
            assertions: Vec::new(),
            patience: execution.patience(timeout),
            transaction: None,
            kept_as: None,
            tombstones_max: Some(tombstones::most(execution)),
        };
        let (index, row) = match execution.server.database.write(request).await {
            Ok(_) => return Ok(applied(execution, &statements)),
            Err(api::Error::Refused(Refused::ConditionFailed { mutation, row })) => {
                (mutation as usize, row)
            }
            Err(api::Error::Refused(Refused::TooManyTombstones { count })) => {
                let table = &statements[0].plan.table;
                return Err(tombstones::too_many(execution, table, count));
            }
            Err(error) => return Err(Error::from_write(error, WriteType::Cas)),
        };
        let (Some(&owner), Some(key)) = (owners.get(index), keys.get(index)) else {
            return Err(Error::server("a condition failed that was not asked"));
        };
        let statement = &mut statements[owner];
        match row {
            None if statement.ask_for_absence(key) => continue,
            // It was there after all: the original condition decides.
            Some(_) if asked_absence(&statement.conditions, &original[owner], key, statement) => {
                statement.conditions = original[owner].clone();
                continue;
            }
            row => {
                let statement = &statements[owner];
                let is_batch = statements.len() > 1;
                return not_applied(execution, statement, key, row, context, is_batch);
            }
        }
    }
    Err(Error::overloaded(
        "the row keeps appearing and disappearing: try again",
    ))
}

/// Whether the condition on this key was changed to ask for absence.
fn asked_absence(
    now: &ReadyConditions,
    original: &ReadyConditions,
    key: &[u8],
    statement: &Conditional<'_>,
) -> bool {
    if key == statement.header {
        now.header != original.header
    } else {
        now.row != original.row
    }
}

fn place<'a>(statements: &'a [Conditional<'_>]) -> (&'a str, &'a str) {
    statements.first().map_or(("", ""), |statement| {
        let view = &statement.plan.view;
        (view.keyspace.as_str(), view.name.as_str())
    })
}

fn applied(execution: &Execution<'_>, statements: &[Conditional<'_>]) -> Vec<u8> {
    let (keyspace, table) = place(statements);
    let columns = vec![("[applied]", Type::Bool)];
    computed_answer(
        execution,
        keyspace,
        table,
        columns,
        &[vec![Value::Bool(true)]],
    )
}

/// The answer of a condition that did not hold: with the row, if there is one.
fn not_applied(
    execution: &Execution<'_>,
    statement: &Conditional<'_>,
    key: &[u8],
    row: Option<Row>,
    context: &Context<'_>,
    is_batch: bool,
) -> Result<Vec<u8>, Error> {
    let view = &statement.plan.view;
    let mut columns = vec![("[applied]", Type::Bool)];
    let mut values = vec![Value::Bool(false)];
    if let (Some(row), Some(condition)) = (&row, &statement.plan.condition) {
        let is_header = key == statement.header;
        let found = RowView {
            key: &statement.key_values,
            row: (!is_header).then_some(row),
            header: is_header.then_some(row),
        };
        let mut shown = condition.shown_columns(view);
        if is_batch {
            // Of several statements: which row it was.
            shown.extend(0..view.partition_count() + view.clustering_count());
            shown.sort_unstable();
            shown.dedup();
        }
        for index in shown {
            let (selector, kind) = column(view, index);
            columns.push((view.columns[index].name.as_str(), kind));
            values.push(selector.value(&found, context)?);
        }
    }
    Ok(computed_answer(
        execution,
        &view.keyspace,
        &view.name,
        columns,
        &[values],
    ))
}
