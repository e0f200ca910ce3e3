//! Key sets to selections of the inner language.

use crate::wire;
use api::{KeyRange, Selection};
use catalog::{Column, Partitioning, Table};
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use model::{Value, key};
use pb::key_range::{EndKeyType, StartKeyType};
use prost_types::ListValue;
use sql::types::SqlType;
use tonic::Status;

/// Keys and ranges of one key set.
const PARTS_MAX: usize = 80_000;

/// The values of a key, or of the beginning of one.
fn key_values(table: &Table, list: &ListValue) -> Result<Vec<Value>, Status> {
    let columns: Vec<&Column> = table.key_columns().collect();
    if list.values.len() > columns.len() {
        return Err(wrong_length(table, list.values.len()));
    }
    let decode = |(value, column): (&prost_types::Value, &&Column)| {
        let kind = SqlType::of_column(&column.kind).ok_or_else(|| {
            crate::status::unimplemented(&format!("key column {} in Spanner", column.name))
        })?;
        wire::decode(value, &kind).map_err(|expected| {
            Status::failed_precondition(format!(
                "Invalid value for column {} in table {}: {expected}.",
                column.name,
                table.name()
            ))
        })
    };
    list.values.iter().zip(&columns).map(decode).collect()
}

fn wrong_length(table: &Table, found: usize) -> Status {
    Status::invalid_argument(format!(
        "Wrong number of key parts for table {}. Expected: {}. Got: {found}",
        table.name(),
        table.key_columns().count()
    ))
}

/// The encoded key of one row.
pub fn row_key(table: &Table, list: &ListValue) -> Result<Vec<u8>, Status> {
    let values = key_values(table, list)?;
    if values.len() != table.key_columns().count() {
        return Err(wrong_length(table, values.len()));
    }
    sql::rows::row_key(table, &values).map_err(crate::status::of_sql)
}

fn prefix(table: &Table, list: &ListValue) -> Result<Vec<u8>, Status> {
    let values = key_values(table, list)?;
    table.key_prefix(&values).map_err(|error| {
        Status::invalid_argument(format!("Invalid key for table {}: {error}", table.name()))
    })
}

/// A range in the key's order: a bound that is the beginning of a key stands for all keys that begin so.
pub fn range(table: &Table, range: &pb::KeyRange) -> Result<KeyRange, Status> {
    let after = |list: &ListValue| -> Result<Option<Vec<u8>>, Status> {
        Ok(key::prefix_end(&prefix(table, list)?))
    };
    let start = match &range.start_key_type {
        Some(StartKeyType::StartClosed(list)) => Some(prefix(table, list)?),
        Some(StartKeyType::StartOpen(list)) => after(list)?,
        None => {
            return Err(Status::invalid_argument(
                "A key range must have start_closed or start_open.",
            ));
        }
    };
    let end = match &range.end_key_type {
        Some(EndKeyType::EndClosed(list)) => after(list)?,
        Some(EndKeyType::EndOpen(list)) => Some(prefix(table, list)?),
        None => {
            return Err(Status::invalid_argument(
                "A key range must have end_closed or end_open.",
            ));
        }
    };
    Ok(match start {
        Some(start) => KeyRange { start, end },
        // Nothing comes after the last prefix.
        None => KeyRange {
            start: Vec::new(),
            end: Some(Vec::new()),
        },
    })
}

/// All rows of a table.
pub fn whole(table: &Table) -> KeyRange {
    match (table.spec.partitioning, table.key_prefix(&[])) {
        (Partitioning::Range, Ok(prefix)) => KeyRange::prefix(prefix),
        _ => KeyRange::all(),
    }
}

/// A key set as a selection: in the key's order, each row once.
pub fn selection(table: &Table, set: &pb::KeySet) -> Result<Selection, Status> {
    if set.keys.len() + set.ranges.len() > PARTS_MAX {
        return Err(Status::invalid_argument(format!(
            "A key set has at most {PARTS_MAX} keys and ranges"
        )));
    }
    let mut keys = Vec::with_capacity(set.keys.len());
    for list in &set.keys {
        keys.push(row_key(table, list)?);
    }
    let mut ranges = Vec::with_capacity(set.ranges.len());
    for part in &set.ranges {
        let range = range(table, part)?;
        if !range.is_empty() {
            ranges.push(range);
        }
    }
    if set.all {
        return Ok(Selection::Ranges(vec![whole(table)]));
    }
    if ranges.is_empty() {
        keys.sort();
        keys.dedup();
        return Ok(Selection::Keys(keys));
    }
    ranges.extend(keys.into_iter().map(single));
    Ok(Selection::Ranges(union(ranges)))
}

/// Exactly one key.
fn single(key: Vec<u8>) -> KeyRange {
    let mut end = key.clone();
    end.push(0);
    KeyRange {
        start: key,
        end: Some(end),
    }
}

/// The same keys in ranges that are ordered and do not overlap.
fn union(mut ranges: Vec<KeyRange>) -> Vec<KeyRange> {
    ranges.sort();
    let mut merged: Vec<KeyRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end.as_ref().is_none_or(|end| range.start <= *end) => {
                last.end = match (last.end.take(), range.end) {
                    (Some(left), Some(right)) => Some(left.max(right)),
                    _ => None,
                };
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn made(start: u8, end: Option<u8>) -> KeyRange {
        KeyRange {
            start: vec![start],
            end: end.map(|end| vec![end]),
        }
    }

    proptest! {
        #[test]
        fn a_union_holds_the_same_keys_once(parts in prop::collection::vec((0u8..20, prop::option::of(0u8..20)), 0..6)) {
            let ranges: Vec<KeyRange> = parts
                .iter()
                .map(|(start, end)| made(*start, *end))
                .filter(|range| !range.is_empty())
                .collect();
            let merged = union(ranges.clone());
            for key in 0u8..22 {
                let inside = ranges.iter().any(|range| range.contains(&[key]));
                let times = merged.iter().filter(|range| range.contains(&[key])).count();
                prop_assert_eq!(times, usize::from(inside));
            }
        }
    }
}
