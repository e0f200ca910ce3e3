//! Comparing values in their type's natural order, through the order-preserving key encoding.

use super::wire;
use model::key::{self, Direction};
use model::{Type, Value};
use std::cmp::Ordering;

/// Bytes that compare as the values do; for types without an order of their own, as their bytes do.
pub fn sort_key(value: &Value, kind: &Type) -> Vec<u8> {
    let mut out = Vec::new();
    if key::encode(value, kind, Direction::Ascending, &mut out).is_err() {
        out.clear();
        wire::encode(value, kind, &mut out);
    }
    out
}

pub fn compare(left: &Value, right: &Value, kind: &Type) -> Ordering {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Text(left), Value::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
        (Value::Bytes(left), Value::Bytes(right)) => left.cmp(right),
        _ => sort_key(left, kind).cmp(&sort_key(right, kind)),
    }
}

/// Puts a set's elements in order and drops what is there twice.
pub fn normalise_set(mut elements: Vec<Value>, kind: &Type) -> Vec<Value> {
    elements.sort_by(|left, right| compare(left, right, kind));
    elements.dedup_by(|left, right| compare(left, right, kind) == Ordering::Equal);
    elements
}

/// Puts a map's pairs in the order of their keys; of pairs with one key the last stays.
pub fn normalise_map(mut pairs: Vec<(Value, Value)>, kind: &Type) -> Vec<(Value, Value)> {
    pairs.reverse();
    pairs.sort_by(|left, right| compare(&left.0, &right.0, kind));
    pairs.dedup_by(|later, first| compare(&later.0, &first.0, kind) == Ordering::Equal);
    pairs
}
