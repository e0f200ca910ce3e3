//! From predicates on key columns to key ranges: which keys a scan needs to read, and in which order they come.
//!
//! Exact: a conjunct that becomes part of the ranges is not checked again, so ranges hold exactly the rows that
//! satisfy it. NULL satisfies no comparison, so ranges leave it out. An encoded component is self-delimiting,
//! so `prefix · component` and `prefix_end(prefix · component)` bound the keys that have exactly that value.

use crate::plan::Scan;
use crate::typed::{Comparison, Expression, Node};
use crate::types::SqlType;
use api::{KeyRange, Selection};
use catalog::{Column, Partitioning, Table};
use model::Value;
use model::key;
use std::cmp::Ordering;

/// Points and ranges that one scan may come to; beyond it later key columns are left to the filter.
const RANGES_MAX: usize = 10_000;

/// What conjuncts say about one key column.
#[derive(Clone, Debug)]
enum Constraint {
    /// One of these values (NULL for IS NULL), ordered, without duplicates.
    Points(Vec<Value>),
    /// Within bounds, and not NULL.
    Range {
        low: Option<(Value, bool)>,
        high: Option<(Value, bool)>,
    },
}

/// Narrows the scan by the predicate; returns what of it must still be checked.
pub fn select(scan: &mut Scan, predicate: Expression) -> Option<Expression> {
    let mut conjuncts = Vec::new();
    flatten(predicate, &mut conjuncts);
    let table = scan.table.clone();
    let key_columns: Vec<&Column> = table.key_columns().collect();
    let mut used = vec![false; conjuncts.len()];
    let mut points: Vec<Vec<Value>> = vec![Vec::new()];
    let mut last = None;
    let hashed = match table.spec.partitioning {
        Partitioning::Hash => table.partition_columns().count(),
        Partitioning::Range => 0,
    };
    let mut absorbed = used.clone();
    for (depth, column) in key_columns.iter().enumerate() {
        let Some((constraint, by)) = constraint(scan, column, &conjuncts) else {
            break;
        };
        match constraint {
            Constraint::Points(values) if points.len() * values.len() <= RANGES_MAX => {
                let extended = points.iter().flat_map(|prefix| {
                    values.iter().map(move |value| {
                        let mut point = prefix.clone();
                        point.push(value.clone());
                        point
                    })
                });
                points = extended.collect();
            }
            Constraint::Points(_) => break,
            // A range of a column that is hashed says nothing about tokens.
            Constraint::Range { .. } if depth < hashed => break,
            range @ Constraint::Range { .. } => {
                for index in by {
                    absorbed[index] = true;
                }
                last = Some((*column, range));
                break;
            }
        }
        for index in by {
            absorbed[index] = true;
        }
    }
    let depth = points.first().map_or(0, Vec::len);
    if depth < hashed || (depth == 0 && last.is_none() && !points.is_empty()) {
        return join(conjuncts, &used);
    }
    let whole_keys = depth == key_columns.len();
    if let Some(selection) = selection(&table, &points, last.as_ref(), whole_keys) {
        scan.selection = selection;
        used = absorbed;
    }
    join(conjuncts, &used)
}

fn flatten(predicate: Expression, conjuncts: &mut Vec<Expression>) {
    match predicate.node {
        Node::And(items) => {
            for item in items {
                flatten(item, conjuncts);
            }
        }
        _ => conjuncts.push(predicate),
    }
}

fn join(conjuncts: Vec<Expression>, used: &[bool]) -> Option<Expression> {
    let mut rest: Vec<Expression> = conjuncts
        .into_iter()
        .zip(used)
        .filter(|(_, used)| !**used)
        .map(|(conjunct, _)| conjunct)
        .collect();
    match rest.len() {
        0 => None,
        1 => rest.pop(),
        _ => Some(Expression {
            kind: SqlType::Bool,
            at: rest[0].at,
            node: Node::And(rest),
        }),
    }
}

/// What the conjuncts say about a column, and which of them say it. Points win over bounds, which then stay
/// in the filter.
fn constraint(
    scan: &Scan,
    column: &Column,
    conjuncts: &[Expression],
) -> Option<(Constraint, Vec<usize>)> {
    let mut low: Option<(Value, bool)> = None;
    let mut high: Option<(Value, bool)> = None;
    let mut by = Vec::new();
    for (index, conjunct) in conjuncts.iter().enumerate() {
        match said(scan, column, &conjunct.node) {
            Some(Constraint::Points(mut values)) => {
                values.sort_by(crate::value::order);
                values.dedup();
                return Some((Constraint::Points(values), vec![index]));
            }
            Some(Constraint::Range {
                low: more_low,
                high: more_high,
            }) => {
                tighten(&mut low, more_low, Ordering::Greater);
                tighten(&mut high, more_high, Ordering::Less);
                by.push(index);
            }
            None => {}
        }
    }
    match by.is_empty() {
        true => None,
        false => Some((Constraint::Range { low, high }, by)),
    }
}

/// Keeps the tighter bound: the greater low one, the lesser high one, the exclusive one of equals.
fn tighten(bound: &mut Option<(Value, bool)>, more: Option<(Value, bool)>, tighter: Ordering) {
    let Some((value, inclusive)) = more else {
        return;
    };
    let replaces = match bound {
        None => true,
        Some((known, known_inclusive)) => match crate::value::order(&value, known) {
            Ordering::Equal => *known_inclusive && !inclusive,
            ordering => ordering == tighter,
        },
    };
    if replaces {
        *bound = Some((value, inclusive));
    }
}

fn said(scan: &Scan, column: &Column, node: &Node) -> Option<Constraint> {
    let is_column = |expression: &Expression| {
        matches!(expression.node, Node::Column(position)
            if scan.columns.get(position).is_some_and(|index| scan.table.columns()[*index].id == column.id))
    };
    match node {
        Node::Compare(comparison, left, right) => {
            let (comparison, value) = match (is_column(left), is_column(right)) {
                (true, _) => (*comparison, right.as_literal()?),
                (_, true) => (comparison.flipped(), left.as_literal()?),
                _ => return None,
            };
            // A comparison with NULL is never true: no points at all.
            if value.is_null() {
                return Some(Constraint::Points(Vec::new()));
            }
            if !is_exact(value) {
                return None;
            }
            let value = value.clone();
            Some(match comparison {
                Comparison::Equal => Constraint::Points(vec![value]),
                Comparison::NotEqual => return None,
                Comparison::Less => Constraint::Range {
                    low: None,
                    high: Some((value, false)),
                },
                Comparison::LessOrEqual => Constraint::Range {
                    low: None,
                    high: Some((value, true)),
                },
                Comparison::Greater => Constraint::Range {
                    low: Some((value, false)),
                    high: None,
                },
                Comparison::GreaterOrEqual => Constraint::Range {
                    low: Some((value, true)),
                    high: None,
                },
            })
        }
        Node::IsNull(operand) if is_column(operand) => Some(Constraint::Points(vec![Value::Null])),
        Node::In(operand, items) if is_column(operand) => {
            let values: Option<Vec<&Value>> = items.iter().map(Expression::as_literal).collect();
            points(values?.into_iter())
        }
        Node::InArray(operand, array) if is_column(operand) => match array.as_literal()? {
            Value::List(values) => points(values.iter()),
            Value::Null => Some(Constraint::Points(Vec::new())),
            _ => None,
        },
        Node::Call(function, arguments) if function.name == "STARTS_WITH" => {
            let [operand, prefix] = arguments.as_slice() else {
                return None;
            };
            match is_column(operand) {
                true => prefix_range(prefix.as_literal()?),
                false => None,
            }
        }
        _ => None,
    }
}

/// `IN`: NULLs among the values match nothing.
fn points<'v>(values: impl Iterator<Item = &'v Value>) -> Option<Constraint> {
    let values: Vec<Value> = values.filter(|value| !value.is_null()).cloned().collect();
    values
        .iter()
        .all(is_exact)
        .then_some(Constraint::Points(values))
}

/// Whether SQL's equality is the key's: not for NaN, and not for zero, which has two encodings.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Float64(value) => !value.is_nan() && *value != 0.0,
        Value::Float32(value) => !value.is_nan() && *value != 0.0,
        _ => true,
    }
}

/// Texts that begin with a prefix lie between it and the next text that does not.
fn prefix_range(prefix: &Value) -> Option<Constraint> {
    let (low, high) = match prefix {
        Value::Bytes(bytes) => (
            Value::Bytes(bytes.clone()),
            key::prefix_end(bytes).map(Value::Bytes),
        ),
        Value::Text(text) => {
            let mut characters: Vec<char> = text.chars().collect();
            let mut end = None;
            // The next character of the last one that has a next.
            while let Some(last) = characters.pop() {
                let next = (last as u32 + 1..=char::MAX as u32).find_map(char::from_u32);
                if let Some(next) = next {
                    characters.push(next);
                    end = Some(Value::Text(characters.iter().collect()));
                    break;
                }
            }
            (Value::Text(text.clone()), end)
        }
        _ => return None,
    };
    Some(Constraint::Range {
        low: Some((low, true)),
        high: high.map(|high| (high, false)),
    })
}

/// The keys and ranges of every combination of points, in the key's order. `None` when a value cannot be
/// encoded; then nothing is narrowed.
fn selection(
    table: &Table,
    points: &[Vec<Value>],
    last: Option<&(&Column, Constraint)>,
    whole_keys: bool,
) -> Option<Selection> {
    if whole_keys {
        let keys: Result<Vec<Vec<u8>>, _> =
            points.iter().map(|point| table.row_key(point)).collect();
        let mut keys = keys.ok()?;
        keys.sort();
        keys.dedup();
        return Some(Selection::Keys(keys));
    }
    let mut ranges = Vec::with_capacity(points.len());
    for point in points {
        let prefix = table.key_prefix(point).ok()?;
        let range = match last {
            None => KeyRange::prefix(prefix),
            Some((column, Constraint::Range { low, high })) => {
                component_range(column, prefix, low.as_ref(), high.as_ref())?
            }
            Some((_, Constraint::Points(_))) => return None,
        };
        if !range.is_empty() {
            ranges.push(range);
        }
    }
    ranges.sort();
    ranges.dedup();
    Some(Selection::Ranges(ranges))
}

fn component_range(
    column: &Column,
    prefix: Vec<u8>,
    low: Option<&(Value, bool)>,
    high: Option<&(Value, bool)>,
) -> Option<KeyRange> {
    let direction = match column.descending {
        true => key::Direction::Descending,
        false => key::Direction::Ascending,
    };
    let with = |value: &Value| {
        let mut bytes = prefix.clone();
        key::encode(value, &column.kind, direction, &mut bytes)
            .ok()
            .map(|()| bytes)
    };
    // NULL comes first in ascending order, last in descending: either way it is cut off.
    let null = with(&Value::Null)?;
    let whole = KeyRange::prefix(prefix.clone());
    let bound = |bound: Option<&(Value, bool)>| match bound {
        Some((value, inclusive)) => with(value).map(|bytes| Some((bytes, *inclusive))),
        None => Some(None),
    };
    let (low, high) = (bound(low)?, bound(high)?);
    let (first, end_bound) = match column.descending {
        false => (low, high),
        true => (high, low),
    };
    let start = match (first, column.descending) {
        (Some((bytes, true)), _) => bytes,
        (Some((bytes, false)), _) => key::prefix_end(&bytes)?,
        (None, false) => key::prefix_end(&null)?,
        (None, true) => whole.start,
    };
    let end = match (end_bound, column.descending) {
        (Some((bytes, true)), _) => key::prefix_end(&bytes),
        (Some((bytes, false)), _) => Some(bytes),
        (None, false) => whole.end,
        (None, true) => Some(null),
    };
    Some(KeyRange { start, end })
}

/// Whether the scan's rows come ordered by these columns (index into the table's columns, descending, NULLs
/// first); turns the scan round when that is all it takes.
pub fn order(scan: &mut Scan, wanted: &[(usize, bool, bool)]) -> bool {
    let table = scan.table.clone();
    if table.spec.partitioning != Partitioning::Range {
        return false;
    }
    let keys: Vec<&Column> = table.key_columns().collect();
    let mut backward = None;
    for (index, (column, descending, nulls_first)) in wanted.iter().enumerate() {
        let Some(key) = keys.get(index) else {
            // Every column of the key is in place: rows are unique by it, and what follows decides nothing.
            break;
        };
        if table.columns()[*column].id != key.id || *nulls_first == *descending {
            return false;
        }
        let turned = *descending != key.descending;
        if *backward.get_or_insert(turned) != turned {
            return false;
        }
    }
    if backward == Some(true) {
        scan.direction = api::Direction::Backward;
        match &mut scan.selection {
            Selection::Keys(keys) => keys.reverse(),
            Selection::Ranges(ranges) => ranges.reverse(),
        }
    }
    true
}

#[cfg(test)]
mod tests;
