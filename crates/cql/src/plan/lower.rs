//! Changes made ready become mutations: the values of one execution put into a `ModifyPlan`.
//!
//! Elements of collections are cells with paths: a set's element, a map's key, a list's position. What a list's
//! index or an element's value means is known only when the list has been read (`rows_to_read`).

use super::keys::{Partition, Rows};
use super::modify::{Action, Change, ModifyKind, ModifyPlan};
use super::term::{Context, Term};
use crate::error::Error;
use crate::types::number;
use api::collection::field_path;
use api::evaluate::resolved_assignments;
use api::{Assignment, Element, Mutation, RowOperation};
use model::key::{self, Direction};
use model::{Row, Timestamp, Type, Value};
use std::collections::BTreeMap;

/// A TTL may not be longer (20 years, as in Cassandra).
const TTL_SECONDS_MAX: i64 = 20 * 365 * 24 * 60 * 60;

/// What the values of one execution come to.
#[derive(Default)]
pub struct Lowered {
    pub mutations: Vec<Mutation>,
    /// The headers of the partitions that are written.
    pub headers: Vec<Vec<u8>>,
    /// A statement with a condition names one partition: its values.
    pub key_values: Vec<Value>,
}

/// Rows whose lists are looked at before they are changed.
pub enum Existing {
    Read(BTreeMap<Vec<u8>, Row>),
    /// They are looked at where the write is evaluated.
    Later,
}

impl Existing {
    fn row(&self, key: &[u8]) -> Current<'_> {
        match self {
            Existing::Read(rows) => Current::Known(rows.get(key)),
            Existing::Later => Current::Later,
        }
    }
}

/// The row that is changed.
#[derive(Clone, Copy)]
enum Current<'a> {
    Known(Option<&'a Row>),
    Later,
}

/// The timestamp and time to live that USING gives.
struct Using {
    timestamp: Option<Timestamp>,
    ttl_seconds: Option<u32>,
}

impl ModifyPlan {
    /// The keys of rows that must be read before the statement can be lowered.
    pub fn rows_to_read(&self, context: &Context<'_>) -> Result<Vec<Vec<u8>>, Error> {
        let mut keys = Vec::new();
        let needs = |is_static: bool| {
            self.changes
                .iter()
                .any(|change| change.is_static == is_static && change.action.reads())
        };
        if !needs(true) && !needs(false) {
            return Ok(keys);
        }
        for partition in self.keys.partitions(&self.table, context)? {
            if needs(true) {
                keys.push(partition.header);
            }
            if let (true, Rows::Keys(rows)) = (needs(false), partition.rows) {
                keys.extend(rows.into_iter().map(|(key, _)| key));
            }
        }
        Ok(keys)
    }

    pub fn lower(&self, context: &Context<'_>, existing: &Existing) -> Result<Lowered, Error> {
        let using = self.using(context)?;
        let mut lowered = Lowered::default();
        if !self.has_statics()
            && let Some((key_values, key)) = self.keys.point(&self.table, context)?
        {
            lowered.headers.extend(self.table.header_of(&key));
            lowered.key_values = key_values;
            let operation = self.row_operation(&key, &using, context, existing)?;
            lowered
                .mutations
                .push(self.mutation(key, operation, &using));
            return Ok(lowered);
        }
        for partition in self.keys.partitions(&self.table, context)? {
            self.lower_partition(partition, &using, context, existing, &mut lowered)?;
        }
        Ok(lowered)
    }

    fn using(&self, context: &Context<'_>) -> Result<Using, Error> {
        let mut using = Using {
            timestamp: None,
            ttl_seconds: None,
        };
        if let Some(term) = &self.timestamp {
            using.timestamp = timestamp_value(term, context)?;
        }
        if let Some(term) = &self.ttl
            && let Some(value) = term.evaluate(context)?
        {
            using.ttl_seconds = Some(match value {
                Value::Int(ttl) if ttl < 0 => {
                    return Err(Error::invalid(format!(
                        "A TTL must be greater or equal to 0, but was {ttl}"
                    )));
                }
                Value::Int(ttl) if ttl > TTL_SECONDS_MAX => {
                    return Err(Error::invalid(format!(
                        "ttl is too large. requested ({ttl}) maximum ({TTL_SECONDS_MAX})"
                    )));
                }
                Value::Int(ttl) => ttl as u32,
                _ => 0,
            });
        }
        Ok(using)
    }

    fn lower_partition(
        &self,
        partition: Partition,
        using: &Using,
        context: &Context<'_>,
        existing: &Existing,
        lowered: &mut Lowered,
    ) -> Result<(), Error> {
        let Partition {
            values,
            header,
            rows,
        } = partition;
        let is_removal = self.is_removal();
        let statics = self.assignments(true, context, existing.row(&header))?;
        if !statics.is_empty() || (!self.names_rows && !is_removal) {
            let operation = RowOperation::Merge {
                marker: false,
                assignments: statics,
                ttl_seconds: using.ttl_seconds,
            };
            let mutation = self.mutation(header.clone(), operation, using);
            lowered.mutations.push(mutation);
        }
        match rows {
            Rows::Keys(rows) => {
                for (key, clustering) in rows {
                    lowered.key_values = values.clone();
                    lowered.key_values.extend(clustering);
                    // UPDATE t SET static = … with a whole key writes the static column only.
                    let is_static_only = !self.changes.is_empty()
                        && self.changes.iter().all(|change| change.is_static);
                    if self.kind != ModifyKind::Insert && is_static_only {
                        continue;
                    }
                    let operation = self.row_operation(&key, using, context, existing)?;
                    lowered.mutations.push(self.mutation(key, operation, using));
                }
            }
            Rows::All if is_removal => {
                let mutation = self.mutation(header.clone(), RowOperation::Delete, using);
                lowered.mutations.push(mutation);
            }
            Rows::Ranges(ranges) if is_removal => {
                for range in ranges {
                    let operation = RowOperation::DeleteRange { range };
                    let mutation = self.mutation(header.clone(), operation, using);
                    lowered.mutations.push(mutation);
                }
            }
            Rows::All | Rows::Ranges(_) => {}
        }
        if lowered.key_values.is_empty() {
            lowered.key_values = values;
        }
        lowered.headers.push(header);
        Ok(())
    }

    fn has_statics(&self) -> bool {
        self.changes.iter().any(|change| change.is_static)
    }

    /// DELETE of whole rows, ranges or partitions.
    fn is_removal(&self) -> bool {
        self.kind == ModifyKind::Delete && self.changes.is_empty()
    }

    fn mutation(&self, key: Vec<u8>, operation: RowOperation, using: &Using) -> Mutation {
        let mut mutation = Mutation::new(self.table.id, key, operation);
        mutation.timestamp = using.timestamp;
        mutation
    }

    fn row_operation(
        &self,
        key: &[u8],
        using: &Using,
        context: &Context<'_>,
        existing: &Existing,
    ) -> Result<RowOperation, Error> {
        if self.is_removal() {
            return Ok(RowOperation::Delete);
        }
        Ok(RowOperation::Merge {
            marker: self.kind == ModifyKind::Insert,
            assignments: self.assignments(false, context, existing.row(key))?,
            ttl_seconds: using.ttl_seconds,
        })
    }

    fn assignments(
        &self,
        of_statics: bool,
        context: &Context<'_>,
        current: Current<'_>,
    ) -> Result<Vec<Assignment>, Error> {
        let mut assignments = Vec::with_capacity(self.changes.len());
        for change in &self.changes {
            if change.is_static == of_statics {
                let name = &self.view.columns[change.column].name;
                change.lower(name, context, current, &mut assignments)?;
            }
        }
        match current {
            Current::Known(row) if assignments.iter().any(Assignment::needs_read) => {
                resolved_assignments(&self.table, &assignments, row).map_err(Error::from_read)
            }
            _ => Ok(assignments),
        }
    }
}

/// A write timestamp; null and unset are none.
pub fn timestamp_value(term: &Term, context: &Context<'_>) -> Result<Option<Timestamp>, Error> {
    match term.evaluate(context)? {
        Some(Value::Int(i64::MIN)) => Err(Error::invalid(format!(
            "Out of bound timestamp, must be in [{}, {}]",
            i64::MIN + 1,
            i64::MAX
        ))),
        Some(Value::Int(timestamp)) => Ok(Some(Timestamp(timestamp))),
        Some(_) => Err(Error::invalid("Invalid null value of timestamp")),
        None => Ok(None),
    }
}

impl Action {
    fn reads(&self) -> bool {
        matches!(
            self,
            Action::DiscardFromList(_)
                | Action::SetIndex(..)
                | Action::RemoveIndex(_)
                | Action::Plus(_)
                | Action::Minus(_)
        )
    }
}

impl Change {
    fn lower(
        &self,
        name: &str,
        context: &Context<'_>,
        current: Current<'_>,
        out: &mut Vec<Assignment>,
    ) -> Result<(), Error> {
        match &self.action {
            Action::Set(term) => {
                if let Some(value) = term.evaluate(context)? {
                    out.push(self.set(None, value));
                }
            }
            Action::Remove => out.push(self.set(None, Value::Null)),
            Action::Increment(term) | Action::Decrement(term) => {
                let is_increment = matches!(self.action, Action::Increment(_));
                // An unset value leaves the counter alone.
                if let Some(amount) = counter_amount(term, is_increment, context)? {
                    let column = self.id;
                    out.push(Assignment::Add { column, amount });
                }
            }
            Action::Plus(term) | Action::Minus(term) => {
                let is_minus = matches!(self.action, Action::Minus(_));
                let before = match current {
                    Current::Known(row) => row.and_then(|row| row.value(self.id)),
                    Current::Later => {
                        return Err(Error::server("a sum outside of a transaction"));
                    }
                };
                // Nothing comes of adding to null, or of adding null.
                if let (Some(amount), Some(before)) = (term.evaluate(context)?, before)
                    && let Some(after) = number::plus(before, &amount, &self.kind, is_minus)?
                {
                    out.push(self.set(None, after));
                }
            }
            Action::SetAll(term) => {
                if let Some(value) = term.evaluate(context)? {
                    let elements = self.elements(value, false, context)?;
                    out.push(Assignment::SetCollection {
                        column: self.id,
                        elements,
                    });
                }
            }
            Action::Append(term) | Action::Prepend(term) => {
                let is_prepend = matches!(self.action, Action::Prepend(_));
                if let Some(value) = term.evaluate(context)? {
                    for element in self.elements(value, is_prepend, context)? {
                        out.push(self.set(Some(element.path), element.value));
                    }
                }
            }
            Action::Discard(term) => {
                if let Some(Value::Set(keys)) = term.evaluate(context)? {
                    for key in keys {
                        out.push(self.set(Some(self.path(&key)?), Value::Null));
                    }
                }
            }
            Action::SetKey(key, value) => {
                let path = self.path(&key_value(key, context)?)?;
                if let Some(value) = value.evaluate(context)? {
                    out.push(self.set(Some(path), value));
                }
            }
            Action::RemoveKey(key) => {
                out.push(self.set(Some(self.path(&key_value(key, context)?)?), Value::Null));
            }
            Action::SetField(index, term) => {
                if let Some(value) = term.evaluate(context)? {
                    out.push(self.set(Some(field_path(*index)), value));
                }
            }
            Action::DiscardFromList(_) | Action::SetIndex(..) | Action::RemoveIndex(_) => {
                self.lower_list(name, context, out)?;
            }
        }
        Ok(())
    }

    fn set(&self, path: Option<Vec<u8>>, value: Value) -> Assignment {
        let column = self.id;
        if value.is_null() {
            Assignment::Remove { column, path }
        } else {
            Assignment::Set {
                column,
                path,
                value,
            }
        }
    }

    /// What is done to elements of a list by where, or what, they are.
    fn lower_list(
        &self,
        name: &str,
        context: &Context<'_>,
        out: &mut Vec<Assignment>,
    ) -> Result<(), Error> {
        match &self.action {
            Action::DiscardFromList(term) => {
                if let Some(Value::List(values)) = term.evaluate(context)? {
                    let column = self.id;
                    out.push(Assignment::RemoveElements { column, values });
                }
            }
            Action::SetIndex(index, value) => {
                let position = list_index(index, name, context)?;
                let value = value.evaluate(context)?;
                out.extend(value.map(|value| self.set_at(position, value)));
            }
            Action::RemoveIndex(index) => {
                let position = list_index(index, name, context)?;
                out.push(self.set_at(position, Value::Null));
            }
            _ => {}
        }
        Ok(())
    }

    fn set_at(&self, position: i64, value: Value) -> Assignment {
        Assignment::SetElementAt {
            column: self.id,
            position,
            value,
        }
    }

    /// The path of an element's key.
    fn path(&self, key: &Value) -> Result<Vec<u8>, Error> {
        let kind = match &self.kind {
            Type::Set { element, .. } => element,
            Type::Map { key, .. } => key,
            _ => return Err(Error::server("a path of a column that has none")),
        };
        let mut path = Vec::new();
        key::encode(key, kind, Direction::Ascending, &mut path)
            .map_err(|error| Error::invalid(format!("Invalid element of a collection: {error}")))?;
        Ok(path)
    }

    fn elements(
        &self,
        value: Value,
        is_prepend: bool,
        context: &Context<'_>,
    ) -> Result<Vec<Element>, Error> {
        match value {
            Value::List(values) => {
                let positions = if is_prepend {
                    context.uuids.prepend(context.now, values.len())
                } else {
                    context.uuids.append(context.now, values.len())
                };
                let encoded = positions.into_iter().zip(values).map(|(uuid, value)| {
                    let mut path = Vec::new();
                    key::encode(
                        &Value::Uuid(uuid),
                        &Type::TimeUuid,
                        Direction::Ascending,
                        &mut path,
                    )
                    .map_err(super::keys::bad_key)?;
                    Ok(Element { path, value })
                });
                encoded.collect()
            }
            // A set's element is its path; the value only says that it is there.
            Value::Set(values) => values
                .iter()
                .map(|value| {
                    Ok(Element {
                        path: self.path(value)?,
                        value: Value::Bool(true),
                    })
                })
                .collect(),
            Value::Map(pairs) => pairs
                .into_iter()
                .map(|(key, value)| {
                    Ok(Element {
                        path: self.path(&key)?,
                        value,
                    })
                })
                .collect(),
            Value::Tuple(fields) => Ok(fields
                .into_iter()
                .enumerate()
                .filter(|(_, value)| !value.is_null())
                .map(|(index, value)| Element {
                    path: field_path(index),
                    value,
                })
                .collect()),
            _ => Ok(Vec::new()),
        }
    }
}

/// What is added to a counter.
fn counter_amount(
    term: &Term,
    is_increment: bool,
    context: &Context<'_>,
) -> Result<Option<i64>, Error> {
    match term.evaluate(context)? {
        None => Ok(None),
        Some(Value::Int(amount)) if is_increment => Ok(Some(amount)),
        Some(Value::Int(amount)) => amount.checked_neg().map(Some).ok_or_else(|| {
            Error::invalid(format!(
                "The negation of {amount} overflows supported counter precision (signed 8 bytes integer)"
            ))
        }),
        Some(_) if is_increment => Err(Error::invalid("Invalid null value for counter increment")),
        Some(_) => Err(Error::invalid("Invalid null value for counter decrement")),
    }
}

fn key_value(term: &Term, context: &Context<'_>) -> Result<Value, Error> {
    match term.evaluate(context)? {
        Some(Value::Null) => Err(Error::invalid("Invalid null map key")),
        Some(value) => Ok(value),
        None => Err(Error::invalid("Invalid unset map key")),
    }
}

fn list_index(index: &Term, name: &str, context: &Context<'_>) -> Result<i64, Error> {
    match index.evaluate(context)? {
        Some(Value::Int(index)) => Ok(index),
        _ => Err(Error::invalid(format!(
            "Invalid null value for list index of {name}"
        ))),
    }
}
