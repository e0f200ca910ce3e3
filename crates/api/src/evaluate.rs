//! What a mutation does to the row that is there: pure, and shared by whoever holds the row.
//!
//! Two functions for two kinds of table. `evaluate` serves strong tables: it is handed the row as it is, checks
//! the condition, and returns the whole row as it will be, so that what is replicated is an effect and no logic
//! runs below consensus. `blind_change` serves eventual tables: it turns a mutation that needs no read into a
//! change that replicas merge.
//!
//! Neither looks at other rows: deletions of ranges and of partitions, interleaved parents and children are the
//! business of the caller, who can see them.

use crate::collection;
use crate::document::Item;
use crate::{
    Assignment, Check, CheckOperator, Condition, Error, Mutation, Part, Refused, ReturnedRows,
    Returning, RowOperation,
};
use catalog::Table;
use model::key::Direction;
use model::row::Expiry;
use model::{
    Cell, CellContent, ColumnId, Deletion, Marker, RangeTombstone, Row, Timestamp, Type, Value,
};
use std::borrow::Cow;
use std::cmp::Ordering;

/// When a mutation happens.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The commit timestamp on a strong table, the write timestamp on an eventual one.
    pub timestamp: Timestamp,
    /// Seconds since the epoch by the evaluating node's wall clock: expiry and `gc_grace` count from here.
    pub now_seconds: i64,
}

/// What became of a mutation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluated {
    /// The row afterwards; `None` when there is none.
    pub new: Option<Row>,
    /// False when the mutation only checked something.
    pub is_write: bool,
    pub returned: ReturnedRows,
}

/// Evaluates the mutation with index `index` of its request against `current`, the visible row (see
/// `Row::make_visible`) or `None` when there is none. Mutations of one request on one row are evaluated one
/// after the other, each against what the one before it left.
///
/// `DeleteRange` is not a matter of one row and is refused here.
pub fn evaluate(
    table: &Table,
    index: u32,
    mutation: &Mutation,
    current: Option<&Row>,
    moment: Moment,
) -> Result<Evaluated, Error> {
    if let Some(condition) = &mutation.condition
        && !condition_holds(table, condition, current)?
    {
        let row = wants_old(mutation.returning)
            .then(|| current.cloned())
            .flatten();
        return Err(Error::Refused(Refused::ConditionFailed {
            mutation: index,
            row,
        }));
    }
    let operation = resolved(table, &mutation.operation, current)?;
    let new = match operation.as_ref() {
        RowOperation::Merge {
            marker,
            assignments,
            ttl_seconds,
        } => {
            let expiry = expiry(table, *ttl_seconds, moment);
            overlay(current, assignments, *marker, expiry, moment)
        }
        RowOperation::Replace { assignments } => overlay(None, assignments, true, None, moment),
        RowOperation::Delete => None,
        RowOperation::Insert { assignments } => match current {
            Some(_) => return Err(Error::Refused(Refused::RowExists { mutation: index })),
            None => overlay(None, assignments, true, None, moment),
        },
        RowOperation::Update { assignments } => match current {
            None => return Err(Error::Refused(Refused::RowMissing { mutation: index })),
            Some(_) => overlay(current, assignments, true, None, moment),
        },
        RowOperation::UpdateDocument { column, update } => {
            let item = document(current, *column).cloned().unwrap_or_default();
            if current.is_none() && !update.creates_item() {
                return Ok(Evaluated::default());
            }
            let updated = update.apply(&item).map_err(|message| {
                Error::Refused(Refused::UpdateFailed {
                    mutation: index,
                    message,
                })
            })?;
            let set = Assignment::Set {
                column: *column,
                path: None,
                value: Value::Document(updated),
            };
            overlay(current, &[set], true, None, moment)
        }
        RowOperation::Check => current.cloned(),
        RowOperation::DeleteRange { .. } => {
            return Err(Error::invalid(
                "a range deletion cannot be evaluated against one row",
            ));
        }
    };
    let returned = ReturnedRows {
        old: wants_old(mutation.returning)
            .then(|| current.cloned())
            .flatten(),
        new: matches!(mutation.returning, Returning::New | Returning::Both)
            .then(|| new.clone())
            .flatten(),
    };
    Ok(Evaluated {
        new,
        is_write: !matches!(mutation.operation, RowOperation::Check),
        returned,
    })
}

fn wants_old(returning: Returning) -> bool {
    matches!(returning, Returning::Old | Returning::Both)
}

fn document(row: Option<&Row>, column: ColumnId) -> Option<&Item> {
    match row.and_then(|row| row.value(column)) {
        Some(Value::Document(item)) => Some(item),
        _ => None,
    }
}

fn expiry(table: &Table, ttl_seconds: Option<u32>, moment: Moment) -> Option<Expiry> {
    match ttl_seconds.unwrap_or(table.spec.default_ttl_seconds) {
        0 => None,
        ttl => Some(Expiry {
            at_seconds: moment.now_seconds.saturating_add(i64::from(ttl)),
            ttl_seconds: ttl,
        }),
    }
}

/// The operation with what it does to elements of lists, by where or what they are, put as what it does to their cells.
pub fn resolved<'a>(
    table: &Table,
    operation: &'a RowOperation,
    current: Option<&Row>,
) -> Result<Cow<'a, RowOperation>, Error> {
    let RowOperation::Merge {
        marker,
        assignments,
        ttl_seconds,
    } = operation
    else {
        return Ok(Cow::Borrowed(operation));
    };
    if !assignments.iter().any(Assignment::needs_read) {
        return Ok(Cow::Borrowed(operation));
    }
    Ok(Cow::Owned(RowOperation::Merge {
        marker: *marker,
        assignments: resolved_assignments(table, assignments, current)?,
        ttl_seconds: *ttl_seconds,
    }))
}

/// As `resolved`, of the assignments of one row.
pub fn resolved_assignments(
    table: &Table,
    assignments: &[Assignment],
    current: Option<&Row>,
) -> Result<Vec<Assignment>, Error> {
    let mut resolved = Vec::with_capacity(assignments.len());
    for assignment in assignments {
        match assignment {
            Assignment::SetElementAt {
                column,
                position,
                value,
            } => {
                let (column, path) = (*column, Some(path_at(current, *column, *position)?));
                resolved.push(match value {
                    Value::Null => Assignment::Remove { column, path },
                    value => Assignment::Set {
                        column,
                        path,
                        value: value.clone(),
                    },
                });
            }
            Assignment::RemoveElements { column, values } => {
                let paths = paths_of(table, current, *column, values)?;
                resolved.extend(paths.into_iter().map(|path| Assignment::Remove {
                    column: *column,
                    path: Some(path),
                }));
            }
            other => resolved.push(other.clone()),
        }
    }
    Ok(resolved)
}

fn live_elements(
    current: Option<&Row>,
    column: ColumnId,
) -> impl Iterator<Item = (&[u8], &Value)> + Clone {
    let cells = current.map_or(&[][..], |row| row.cells(column));
    cells.iter().filter_map(|cell| match &cell.content {
        CellContent::Live { value, .. } => Some((cell.path.as_deref()?, value)),
        CellContent::Tombstone { .. } => None,
    })
}

fn path_at(current: Option<&Row>, column: ColumnId, position: i64) -> Result<Vec<u8>, Error> {
    let mut paths = live_elements(current, column).map(|(path, _)| path);
    let count = paths.clone().count();
    if count == 0 {
        return Err(Error::invalid(
            "Attempted to set an element on a list which is null",
        ));
    }
    let found = usize::try_from(position).ok().and_then(|at| paths.nth(at));
    found.map(<[u8]>::to_vec).ok_or_else(|| {
        Error::invalid(format!(
            "List index {position} out of bound, list has size {count}"
        ))
    })
}

fn paths_of(
    table: &Table,
    current: Option<&Row>,
    column: ColumnId,
    values: &[Value],
) -> Result<Vec<Vec<u8>>, Error> {
    let Some(Type::List { element, .. }) = table.column(column).map(|column| &column.kind) else {
        return Err(Error::invalid("elements by value are those of lists"));
    };
    let mut paths = Vec::new();
    for (path, value) in live_elements(current, column) {
        for unwanted in values {
            if compare(value, unwanted, element)? == Ordering::Equal {
                paths.push(path.to_vec());
                break;
            }
        }
    }
    Ok(paths)
}

/// Writes assignments over a row, in their order. A row that keeps neither marker nor cells is gone.
fn overlay(
    current: Option<&Row>,
    assignments: &[Assignment],
    marker: bool,
    expiry: Option<Expiry>,
    moment: Moment,
) -> Option<Row> {
    let mut row = current.cloned().unwrap_or_default();
    if marker {
        row.marker = Some(Marker {
            timestamp: moment.timestamp,
            expiry,
        });
    }
    for assignment in assignments {
        match assignment {
            Assignment::Set {
                column,
                path,
                value,
            } => put(&mut row, *column, path, value, expiry, moment),
            Assignment::SetCommitTimestamp { column } => {
                put(
                    &mut row,
                    *column,
                    &None,
                    &timestamp_value(moment.timestamp),
                    expiry,
                    moment,
                );
            }
            Assignment::Add { column, amount } => {
                let before = match row.value(*column) {
                    Some(Value::Int(before)) => *before,
                    _ => 0,
                };
                let sum = Value::Int(before.wrapping_add(*amount));
                put(&mut row, *column, &None, &sum, expiry, moment);
            }
            Assignment::Remove { column, path } => remove(&mut row, *column, path),
            // `resolved` leaves none.
            Assignment::SetElementAt { .. } | Assignment::RemoveElements { .. } => {}
            Assignment::SetCollection { column, elements } => {
                remove(&mut row, *column, &None);
                for element in elements {
                    put(
                        &mut row,
                        *column,
                        &Some(element.path.clone()),
                        &element.value,
                        expiry,
                        moment,
                    );
                }
            }
        }
    }
    (row.marker.is_some() || !row.cells.is_empty()).then_some(row)
}

fn put(
    row: &mut Row,
    column: ColumnId,
    path: &Option<Vec<u8>>,
    value: &Value,
    expiry: Option<Expiry>,
    moment: Moment,
) {
    // A missing cell is null already; a collection's element may hold one (a set's has no value of its own).
    if value.is_null() && path.is_none() {
        return remove(row, column, path);
    }
    let cell = Cell {
        column,
        path: path.clone(),
        timestamp: moment.timestamp,
        content: CellContent::Live {
            value: value.clone(),
            expiry,
        },
    };
    match find(row, column, path) {
        Ok(at) => row.cells[at] = cell,
        Err(at) => row.cells.insert(at, cell),
    }
}

/// Removes a cell; without a path, all cells of the column.
fn remove(row: &mut Row, column: ColumnId, path: &Option<Vec<u8>>) {
    match path {
        None => row.cells.retain(|cell| cell.column != column),
        Some(_) => {
            if let Ok(at) = find(row, column, path) {
                row.cells.remove(at);
            }
        }
    }
}

fn find(row: &Row, column: ColumnId, path: &Option<Vec<u8>>) -> Result<usize, usize> {
    row.cells
        .binary_search_by(|cell| cell.column.cmp(&column).then_with(|| cell.path.cmp(path)))
}

/// A timestamp as a value of Spanner's type.
pub fn timestamp_value(timestamp: Timestamp) -> Value {
    Value::Timestamp {
        seconds: timestamp.0.div_euclid(1_000_000),
        nanos: (timestamp.0.rem_euclid(1_000_000) as u32) * 1_000,
    }
}

fn condition_holds(
    table: &Table,
    condition: &Condition,
    current: Option<&Row>,
) -> Result<bool, Error> {
    match condition {
        Condition::RowExists => Ok(current.is_some()),
        Condition::RowMissing => Ok(current.is_none()),
        Condition::Columns(checks) => {
            let Some(row) = current else { return Ok(false) };
            for check in checks {
                if !check_holds(table, check, row)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Condition::Document {
            column,
            key,
            condition,
        } => {
            let empty = Item::new();
            let item = current.map(|_| document(current, *column).unwrap_or(&empty));
            Ok(condition.holds_for(key, item))
        }
    }
}

fn check_holds(table: &Table, check: &Check, row: &Row) -> Result<bool, Error> {
    let column = table.column(check.column).ok_or_else(|| {
        Error::invalid(format!(
            "table {} has no column {}",
            table.name(),
            check.column
        ))
    })?;
    let whole = if column.kind.is_multi_cell() {
        Cow::Owned(collection::assemble(row.cells(check.column), &column.kind))
    } else {
        Cow::Borrowed(row.value(check.column).unwrap_or(&Value::Null))
    };
    let (value, kind) = match &check.part {
        None => (whole, &column.kind),
        Some(part) => {
            let (value, kind) = part_of(&whole, part, &column.kind)?;
            (Cow::Owned(value), kind)
        }
    };
    if let CheckOperator::Contains | CheckOperator::ContainsKey = check.operator {
        return contains(&value, kind, check);
    }
    let mut orderings = Vec::with_capacity(check.values.len());
    for wanted in &check.values {
        let is_null = kind.is_multi_cell() && collection::is_empty(wanted);
        let wanted = if is_null { &Value::Null } else { wanted };
        orderings.push(compare(&value, wanted, kind)?);
    }
    let first = orderings.first().copied();
    // Null equals null here, and is neither less nor greater than anything (Cassandra's conditions).
    let comparable = !value.is_null() && !check.values.iter().any(Value::is_null);
    Ok(match check.operator {
        CheckOperator::Equal => first == Some(Ordering::Equal),
        CheckOperator::NotEqual => first.is_some_and(|ordering| ordering != Ordering::Equal),
        CheckOperator::Less => comparable && first == Some(Ordering::Less),
        CheckOperator::LessOrEqual => comparable && first.is_some_and(Ordering::is_le),
        CheckOperator::Greater => comparable && first == Some(Ordering::Greater),
        CheckOperator::GreaterOrEqual => comparable && first.is_some_and(Ordering::is_ge),
        CheckOperator::In => orderings.contains(&Ordering::Equal),
        CheckOperator::Contains | CheckOperator::ContainsKey => false,
    })
}

/// A part of a value, and what type it is of.
fn part_of<'a>(whole: &Value, part: &Part, kind: &'a Type) -> Result<(Value, &'a Type), Error> {
    let mismatch = || Error::invalid("the condition is about a part that its column cannot have");
    match (part, kind) {
        (Part::Key(wanted), Type::Map { key, value, .. }) => {
            let mut found = Value::Null;
            if let Value::Map(pairs) = whole {
                for (known, value) in pairs {
                    if compare(known, wanted, key)? == Ordering::Equal {
                        found = value.clone();
                    }
                }
            }
            Ok((found, value))
        }
        (Part::Position(position), Type::List { element, .. }) => {
            let found = match whole {
                Value::List(elements) => elements.get(*position as usize).cloned(),
                _ => None,
            };
            Ok((found.unwrap_or(Value::Null), element))
        }
        (Part::Field(position), Type::User { fields, .. }) => {
            let (_, field) = fields.get(*position as usize).ok_or_else(mismatch)?;
            let found = match whole {
                Value::Tuple(values) => values.get(*position as usize).cloned(),
                _ => None,
            };
            Ok((found.unwrap_or(Value::Null), field))
        }
        _ => Err(mismatch()),
    }
}

fn contains(value: &Value, kind: &Type, check: &Check) -> Result<bool, Error> {
    let Some(wanted) = check.values.first() else {
        return Ok(false);
    };
    let is_key = check.operator == CheckOperator::ContainsKey;
    let (elements, element): (Vec<&Value>, &Type) = match (value, kind) {
        (Value::Null, _) => return Ok(false),
        (Value::List(elements), Type::List { element, .. })
        | (Value::Set(elements), Type::Set { element, .. })
            if !is_key =>
        {
            (elements.iter().collect(), element)
        }
        (Value::Map(pairs), Type::Map { key, .. }) if is_key => {
            (pairs.iter().map(|(known, _)| known).collect(), key)
        }
        (Value::Map(pairs), Type::Map { value, .. }) => {
            (pairs.iter().map(|(_, known)| known).collect(), value)
        }
        _ => {
            return Err(Error::invalid(
                "the condition asks what a column contains that is no such collection",
            ));
        }
    };
    for known in elements {
        if compare(known, wanted, element)? == Ordering::Equal {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The order of two values of one type: the order of their encoded keys. Durations have none and are equal or not.
fn compare(left: &Value, right: &Value, kind: &Type) -> Result<Ordering, Error> {
    if *kind == Type::Duration {
        return Ok(if left == right {
            Ordering::Equal
        } else {
            Ordering::Less
        });
    }
    let mut keys = [Vec::new(), Vec::new()];
    for (value, key) in [left, right].into_iter().zip(&mut keys) {
        model::key::encode(value, kind, Direction::Ascending, key).map_err(|error| {
            Error::invalid(format!("the condition cannot be compared: {error}"))
        })?;
    }
    Ok(keys[0].cmp(&keys[1]))
}

/// Whether an operation needs the row as it is.
pub fn needs_read(mutation: &Mutation) -> bool {
    mutation.condition.is_some()
        || mutation.returning != Returning::Nothing
        || match &mutation.operation {
            RowOperation::Insert { .. }
            | RowOperation::Update { .. }
            | RowOperation::UpdateDocument { .. }
            | RowOperation::Check => true,
            RowOperation::Merge { assignments, .. } => {
                assignments.iter().any(Assignment::needs_read)
            }
            RowOperation::Replace { .. }
            | RowOperation::Delete
            | RowOperation::DeleteRange { .. } => false,
        }
}

/// A blind mutation of an eventual table as a change to merge into the record under `mutation.key`. Refuses
/// what needs the row as it is.
pub fn blind_change(table: &Table, mutation: &Mutation, moment: Moment) -> Result<Row, Error> {
    if needs_read(mutation) {
        return Err(Error::unsupported(format!(
            "a write of table {}.{} depends on what is there: it is not blind",
            table.namespace(),
            table.name(),
        )));
    }
    let mut row = Row::default();
    let deletion = Deletion {
        timestamp: moment.timestamp,
        local_seconds: moment.now_seconds,
    };
    match &mutation.operation {
        RowOperation::Merge {
            marker,
            assignments,
            ttl_seconds,
        } => {
            let expiry = expiry(table, *ttl_seconds, moment);
            if *marker {
                row.marker = Some(Marker {
                    timestamp: moment.timestamp,
                    expiry,
                });
            }
            change_cells(&mut row, assignments, expiry, moment)?;
        }
        RowOperation::Replace { assignments } => {
            row.deletion = Some(Deletion {
                timestamp: moment.timestamp.plus_micros(-1),
                ..deletion
            });
            row.marker = Some(Marker {
                timestamp: moment.timestamp,
                expiry: None,
            });
            change_cells(&mut row, assignments, None, moment)?;
        }
        RowOperation::Delete => row.deletion = Some(deletion),
        RowOperation::DeleteRange { range } => {
            let end = range.end.clone().ok_or_else(|| {
                Error::invalid("a range deletion on an eventual table needs an end")
            })?;
            row.range_tombstones.push(RangeTombstone {
                start: range.start.clone(),
                end,
                deletion,
            });
        }
        _ => return Err(Error::invalid("the mutation is not blind")),
    }
    Ok(row)
}

fn change_cells(
    row: &mut Row,
    assignments: &[Assignment],
    expiry: Option<Expiry>,
    moment: Moment,
) -> Result<(), Error> {
    let tombstone = CellContent::Tombstone {
        local_seconds: moment.now_seconds,
    };
    let mut add =
        |column: ColumnId, path: &Option<Vec<u8>>, timestamp: Timestamp, content: CellContent| {
            let cell = Cell {
                column,
                path: path.clone(),
                timestamp,
                content,
            };
            match find(row, column, path) {
                Ok(at) => row.cells[at] = cell,
                Err(at) => row.cells.insert(at, cell),
            }
        };
    for assignment in assignments {
        match assignment {
            Assignment::Set {
                column,
                path,
                value,
            } if value.is_null() && path.is_none() => {
                add(*column, path, moment.timestamp, tombstone.clone());
            }
            Assignment::Set {
                column,
                path,
                value,
            } => {
                add(
                    *column,
                    path,
                    moment.timestamp,
                    CellContent::Live {
                        value: value.clone(),
                        expiry,
                    },
                );
            }
            Assignment::Remove { column, path } => {
                add(*column, path, moment.timestamp, tombstone.clone())
            }
            Assignment::SetCollection { column, elements } => {
                add(
                    *column,
                    &None,
                    moment.timestamp.plus_micros(-1),
                    tombstone.clone(),
                );
                for element in elements {
                    let content = CellContent::Live {
                        value: element.value.clone(),
                        expiry,
                    };
                    add(
                        *column,
                        &Some(element.path.clone()),
                        moment.timestamp,
                        content,
                    );
                }
            }
            Assignment::SetCommitTimestamp { .. } => {
                return Err(Error::invalid("an eventual table has no commit timestamps"));
            }
            Assignment::Add { .. } => {
                return Err(Error::invalid("an eventual table has no counters"));
            }
            Assignment::SetElementAt { .. } | Assignment::RemoveElements { .. } => {
                return Err(Error::invalid("an element of a list has to be looked up"));
            }
        }
    }
    Ok(())
}
