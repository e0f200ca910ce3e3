//! Between rows of the inner language and values by column: reading a row's columns, checking a value against
//! its column, and making mutations. The one place that knows Spanner's rules for what a row may hold.

use crate::error::{Error, ErrorKind};
use crate::types::{SqlType, column_type_text};
use crate::value;
use api::{Assignment, Mutation, ReadRow, Refused, RowOperation};
use catalog::{Catalog, Column, ColumnRole, Table};
use model::{Type, Value};

/// The longest encoded key.
pub const KEY_BYTES_MAX: usize = 8 << 10;
/// The largest value of one column.
pub const CELL_BYTES_MAX: usize = 10 << 20;

/// The option under which a column keeps its place in the declaration, counted from 1. Key columns come first
/// in the catalog whatever the statement said.
pub const ORDINAL_OPTION: &str = "spanner/ordinal";
/// The option that says `allow_commit_timestamp = true`.
pub const COMMIT_TIMESTAMP_OPTION: &str = "spanner/allow_commit_timestamp";

/// Indexes of a table's columns in the order of their declaration.
pub fn declared_columns(table: &Table) -> Vec<usize> {
    let ordinal = |index: usize| -> u64 {
        let options = &table.columns()[index].options;
        options
            .get(ORDINAL_OPTION)
            .and_then(|text| text.parse().ok())
            .unwrap_or(index as u64 + 1)
    };
    let mut indexes: Vec<usize> = (0..table.columns().len()).collect();
    indexes.sort_by_key(|index| (ordinal(*index), *index));
    indexes
}

pub fn is_key(column: &Column) -> bool {
    matches!(column.role, ColumnRole::Partition | ColumnRole::Clustering)
}

/// The values of some columns (indexes into the table's) of a row that was read.
pub fn values(table: &Table, columns: &[usize], row: &ReadRow) -> Result<Vec<Value>, Error> {
    let needs_key = columns.iter().any(|index| is_key(&table.columns()[*index]));
    let key = match needs_key {
        true => table.decode_key(&row.key).map_err(|error| {
            Error::Database(api::Error::Broken(api::Broken {
                message: format!("a key of table {} cannot be decoded: {error}", table.name()),
                outcome: api::Outcome::NotApplied,
            }))
        })?,
        false => Vec::new(),
    };
    let value_of = |index: &usize| {
        let column = &table.columns()[*index];
        if !is_key(column) {
            return row.row.value(column.id).cloned().unwrap_or(Value::Null);
        }
        let position = table.key_columns().position(|key| key.id == column.id);
        position
            .and_then(|position| key.get(position).cloned())
            .unwrap_or(Value::Null)
    };
    Ok(columns.iter().map(value_of).collect())
}

/// What is to be written into a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Value(Value),
    /// The commit timestamp of the transaction.
    CommitTimestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    Insert,
    Update,
    InsertOrUpdate,
    Replace,
}

/// A mutation that writes one row. `columns` are indexes into the table's columns, one for each cell, all
/// different; the whole key must be among them.
pub fn write(
    table: &Table,
    kind: WriteKind,
    columns: &[usize],
    cells: Vec<Cell>,
) -> Result<Mutation, Error> {
    let mut key: Vec<Option<Value>> = vec![None; table.key_columns().count()];
    let mut assignments = Vec::new();
    for (index, cell) in columns.iter().zip(cells) {
        let column = &table.columns()[*index];
        let value = match cell {
            Cell::Value(value) => value,
            Cell::CommitTimestamp => {
                check_commit_timestamp(table, column)?;
                if is_key(column) {
                    return Err(Error::unimplemented(
                        "the commit timestamp in a primary key column",
                    ));
                }
                assignments.push(Assignment::SetCommitTimestamp { column: column.id });
                continue;
            }
        };
        check(table, column, &value)?;
        match table.key_columns().position(|key| key.id == column.id) {
            Some(position) => key[position] = Some(value),
            None => assignments.push(Assignment::Set {
                column: column.id,
                path: None,
                value,
            }),
        }
    }
    let mut whole_key = Vec::with_capacity(key.len());
    for (value, column) in key.into_iter().zip(table.key_columns()) {
        whole_key.push(match value {
            Some(value) => value,
            None if matches!(kind, WriteKind::Update) || column.not_null => {
                return Err(missing_column(table, column));
            }
            None => Value::Null,
        });
    }
    if kind != WriteKind::Update {
        for (index, column) in table.columns().iter().enumerate() {
            if column.not_null && !columns.contains(&index) {
                return Err(missing_column(table, column));
            }
        }
    }
    let operation = match kind {
        WriteKind::Insert => RowOperation::Insert { assignments },
        WriteKind::Update => RowOperation::Update { assignments },
        WriteKind::InsertOrUpdate => RowOperation::Merge {
            marker: true,
            assignments,
            ttl_seconds: None,
        },
        WriteKind::Replace => RowOperation::Replace { assignments },
    };
    Ok(Mutation::new(
        table.id,
        row_key(table, &whole_key)?,
        operation,
    ))
}

fn missing_column(table: &Table, column: &Column) -> Error {
    match is_key(column) {
        true => Error::invalid(format!(
            "Primary key column {} of table {} must have a value",
            column.name,
            table.name()
        )),
        false => Error::new(
            ErrorKind::FailedPrecondition,
            format!(
                "A new row in table {} does not specify a non-null value for NOT NULL column: {}",
                table.name(),
                column.name
            ),
        ),
    }
}

fn check_commit_timestamp(table: &Table, column: &Column) -> Result<(), Error> {
    let allowed = column
        .options
        .get(COMMIT_TIMESTAMP_OPTION)
        .map(String::as_str)
        == Some("true");
    match allowed && column.kind == Type::TimestampNanos {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::FailedPrecondition,
            format!(
                "Cannot write commit timestamp because the allow_commit_timestamp column option is not set to \
                 true for column {}.{}",
                table.name(),
                column.name
            ),
        )),
    }
}

/// The key of a row, with Spanner's limit on its size.
pub fn row_key(table: &Table, values: &[Value]) -> Result<Vec<u8>, Error> {
    let key = table.row_key(values).map_err(|error| {
        Error::invalid(format!("Invalid key for table {}: {error}", table.name()))
    })?;
    match key.len() <= KEY_BYTES_MAX {
        true => Ok(key),
        false => Err(Error::invalid(format!(
            "Key for table {} too large. Size: {} bytes, limit: {KEY_BYTES_MAX}",
            table.name(),
            key.len()
        ))),
    }
}

/// Whether a value of the column's SQL type may stand in the column.
pub fn check(table: &Table, column: &Column, value: &Value) -> Result<(), Error> {
    let precondition = |message: String| Err(Error::new(ErrorKind::FailedPrecondition, message));
    if value.is_null() {
        return match column.not_null {
            true => precondition(format!(
                "{} must not be NULL in table {}.",
                column.name,
                table.name()
            )),
            false => Ok(()),
        };
    }
    if let Some(message) = misfit(&column.kind, value) {
        return precondition(format!(
            "New value exceeds the maximum size limit for this column: {}.{}, {message}",
            table.name(),
            column.name
        ));
    }
    if !has_type(&column.kind, value) {
        return Err(Error::invalid(format!(
            "Invalid value for column {} in table {}: Expected {}",
            column.name,
            table.name(),
            column_type_text(&column.kind)
        )));
    }
    if value::size_bytes(value) > CELL_BYTES_MAX + 64 {
        return precondition(format!(
            "New value exceeds the maximum size limit for this column: {}.{}, size: {}, limit: {CELL_BYTES_MAX}.",
            table.name(),
            column.name,
            value::size_bytes(value)
        ));
    }
    Ok(())
}

/// Why a value of the right type is too large for the column.
fn misfit(kind: &Type, value: &Value) -> Option<String> {
    let too_long = |size: usize, limit: Option<u64>| {
        let limit = limit.unwrap_or(CELL_BYTES_MAX as u64);
        (size as u64 > limit).then(|| format!("size: {size}, limit: {limit}."))
    };
    match (kind, value) {
        (Type::Text { length_max }, Value::Text(text)) => match length_max {
            Some(_) => too_long(text.chars().count(), *length_max),
            None => too_long(text.len(), None),
        },
        (Type::Bytes { length_max }, Value::Bytes(bytes)) => too_long(bytes.len(), *length_max),
        (Type::TinyInt, Value::Int(value)) => i8::try_from(*value)
            .is_err()
            .then(|| format!("value: {value}, type: tinyint.")),
        (Type::SmallInt, Value::Int(value)) => i16::try_from(*value)
            .is_err()
            .then(|| format!("value: {value}, type: smallint.")),
        (Type::Int, Value::Int(value)) => i32::try_from(*value)
            .is_err()
            .then(|| format!("value: {value}, type: int.")),
        (Type::Array { element }, Value::List(items)) => {
            items.iter().find_map(|item| misfit(element, item))
        }
        _ => None,
    }
}

fn has_type(kind: &Type, value: &Value) -> bool {
    match (SqlType::of_column(kind), value) {
        (_, Value::Null) => true,
        (Some(SqlType::Bool), Value::Bool(_))
        | (Some(SqlType::Int64), Value::Int(_))
        | (Some(SqlType::Float32), Value::Float32(_))
        | (Some(SqlType::Float64), Value::Float64(_))
        | (Some(SqlType::Numeric), Value::Number(_))
        | (Some(SqlType::String), Value::Text(_))
        | (Some(SqlType::Bytes), Value::Bytes(_))
        | (Some(SqlType::Date), Value::Date(_))
        | (Some(SqlType::Timestamp), Value::Timestamp { .. })
        | (Some(SqlType::Json), Value::Json(_))
        | (Some(SqlType::Uuid), Value::Uuid(_)) => true,
        (Some(SqlType::Array(_)), Value::List(items)) => match kind {
            Type::Array { element } | Type::List { element, .. } => {
                items.iter().all(|item| has_type(element, item))
            }
            _ => false,
        },
        _ => false,
    }
}

/// A key as messages show it: `[1,abc]`.
pub fn key_text(values: &[Value]) -> String {
    let parts: Vec<String> = values.iter().map(value_text).collect();
    format!("[{}]", parts.join(","))
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float32(value) => value.to_string(),
        Value::Float64(value) => value::float_text(*value),
        Value::Number(value) => value::numeric_text(*value),
        Value::Text(text) => text.clone(),
        Value::Bytes(bytes) => value::base64_text(bytes),
        Value::Date(days) => value::date_text(*days),
        Value::Timestamp { seconds, nanos } => value::timestamp_wire_text(*seconds, *nanos),
        Value::Uuid(bytes) => value::uuid_text(bytes),
        other => format!("{other:?}"),
    }
}

/// Says in Spanner's words which row a refused mutation met.
pub fn explain(error: api::Error, mutations: &[Mutation], catalog: &Catalog) -> Error {
    let index = match &error {
        api::Error::Refused(Refused::RowExists { mutation } | Refused::RowMissing { mutation }) => {
            *mutation
        }
        _ => return Error::Database(error),
    };
    let found = mutations
        .get(index as usize)
        .and_then(|mutation| Some((mutation, catalog.table(mutation.table)?)));
    let Some((mutation, table)) = found else {
        return Error::Database(error);
    };
    let key = table.decode_key(&mutation.key).unwrap_or_default();
    let (row, name) = (key_text(&key), table.name());
    match (&error, &mutation.operation) {
        (api::Error::Refused(Refused::RowExists { .. }), _) => Error::new(
            ErrorKind::AlreadyExists,
            format!("Row {row} in table {name} already exists"),
        ),
        (_, RowOperation::Update { .. }) => Error::new(
            ErrorKind::NotFound,
            format!("Row {row} in table {name} not found"),
        ),
        _ => {
            let parent = table.spec.parent.and_then(|parent| catalog.table(parent));
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "Parent row for row {row} in table {name} is missing{}. Row cannot be written.",
                    parent.map_or(String::new(), |parent| format!(
                        " (table {})",
                        parent.name()
                    ))
                ),
            )
        }
    }
}
