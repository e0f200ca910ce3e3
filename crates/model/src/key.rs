//! Order-preserving keys: comparing encoded keys as bytes compares the values in their types' natural order.
//!
//! A component is encoded by its type and is self-delimiting; a descending one is complemented. A key of a
//! hash-partitioned table is
//!
//! ```text
//! token (8 bytes, i64 with the sign bit flipped) · partition columns · 0x10                        header
//! token (8 bytes, i64 with the sign bit flipped) · partition columns · 0x20 · clustering columns   row
//! ```
//!
//! and of a range-partitioned one, where an interleaved child's key extends its parent's,
//!
//! ```text
//! root's primary key · 0x20                                                                        row
//! root's primary key · 0x30 · child's table id (8 bytes) · the child's own columns · 0x20          child row
//! ```
//!
//! so a parent's row sorts before its children, and a partition's header before its rows.
//!
//! The bytes of each type are in docs/formats/key.md. Floats are in the order of Cassandra's comparators at
//! every door: -0 below 0, all NaNs alike and above everything. What a type's order holds equal encodes
//! alike (1.0 and 1.00 as decimals), so decoding yields one canonical value of them.

mod decode;

use crate::{Number, Type, Value, number};
use num_bigint::{BigInt, Sign};

/// Ends the key of a partition's header.
pub const HEADER: u8 = 0x10;
/// Comes before clustering columns, and ends the key of a row of a range-partitioned table.
pub const ROW: u8 = 0x20;
/// Comes before the table id of an interleaved child.
pub const CHILD: u8 = 0x30;

/// Ends a list, set or map; below every component's first byte, so that the shorter one sorts first.
const END: u8 = 0x00;
/// A component that is null, whole.
const NULL: u8 = 0x01;
/// Comes before the body of a component that is not null.
const PRESENT: u8 = 0x02;

/// In a byte string, 0x00 is written as `00 FF`, and `00 01` ends it.
const ESCAPED_ZERO: u8 = 0xFF;
const TERMINATOR: u8 = 0x01;

/// Lengths of integers below this are one byte; longer ones take four more.
const LENGTH_SHORT_MAX: usize = 0x7B;
const LENGTH_LONG: u8 = 0x7F;

/// A decimal's sign byte.
const NEGATIVE: u8 = 0x01;
const ZERO: u8 = 0x02;
const POSITIVE: u8 = 0x03;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Ascending,
    Descending,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a value of type {0:?} cannot be part of a key")]
    Unsupported(Type),
    #[error("the value does not have the key column's type {0:?}")]
    Mismatch(Type),
    #[error("a key ends in the middle of a component, or has bytes that no encoder writes")]
    Malformed,
}

/// Appends one component. `Value::Null` sorts first (last when descending). On an error `key` is as before.
pub fn encode(
    value: &Value,
    kind: &Type,
    direction: Direction,
    key: &mut Vec<u8>,
) -> Result<(), KeyError> {
    let start = key.len();
    if let Err(error) = encode_component(value, kind, key) {
        key.truncate(start);
        return Err(error);
    }
    if direction == Direction::Descending {
        for byte in &mut key[start..] {
            *byte = !*byte;
        }
    }
    Ok(())
}

/// Reads one component from the front of `key` and returns it with what follows.
pub fn decode<'a>(
    key: &'a [u8],
    kind: &Type,
    direction: Direction,
) -> Result<(Value, &'a [u8]), KeyError> {
    decode::decode(key, kind, direction)
}

/// What follows the component at the front of `key`; cheaper than `decode`, which also checks its content.
pub fn skip<'a>(key: &'a [u8], kind: &Type, direction: Direction) -> Result<&'a [u8], KeyError> {
    decode::skip(key, kind, direction)
}

/// Whether values of the type can be part of a key.
pub fn is_supported(kind: &Type) -> bool {
    match kind {
        Type::Counter | Type::Duration | Type::Json | Type::Document | Type::Array { .. } => false,
        Type::List { element, frozen } | Type::Set { element, frozen } => {
            *frozen && is_supported(element)
        }
        Type::Map { key, value, frozen } => *frozen && is_supported(key) && is_supported(value),
        Type::Tuple { fields } => fields.iter().all(is_supported),
        Type::User { fields, frozen, .. } => {
            *frozen && fields.iter().all(|(_, kind)| is_supported(kind))
        }
        Type::Vector { element, .. } => is_supported(element),
        _ => true,
    }
}

/// The smallest byte string greater than every string that begins with `prefix`; `None` when there is none
/// (all bytes are 0xFF).
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(end);
        }
        end.pop();
    }
    None
}

fn encode_component(value: &Value, kind: &Type, key: &mut Vec<u8>) -> Result<(), KeyError> {
    if value.is_null() {
        key.push(NULL);
        return Ok(());
    }
    key.push(PRESENT);
    encode_body(value, kind, key)
}

fn encode_body(value: &Value, kind: &Type, key: &mut Vec<u8>) -> Result<(), KeyError> {
    let mismatch = || KeyError::Mismatch(kind.clone());
    match (kind, value) {
        (Type::Bool, Value::Bool(value)) => key.push(u8::from(*value)),
        (Type::TinyInt, Value::Int(value)) => {
            let value = i8::try_from(*value).map_err(|_| mismatch())?;
            key.push(value as u8 ^ 0x80);
        }
        (Type::SmallInt, Value::Int(value)) => {
            let value = i16::try_from(*value).map_err(|_| mismatch())?;
            key.extend_from_slice(&(value as u16 ^ 1 << 15).to_be_bytes());
        }
        (Type::Int, Value::Int(value)) => {
            let value = i32::try_from(*value).map_err(|_| mismatch())?;
            push_i32(value, key);
        }
        (Type::BigInt, Value::Int(value)) => push_i64(*value, key),
        (Type::Varint, Value::Varint(bytes)) => {
            push_integer(shortest(bytes).ok_or_else(mismatch)?, key);
        }
        (Type::Float32, Value::Float32(value)) => {
            // Java's Float.compare: -0 below 0, all NaNs alike and above everything.
            let bits = if value.is_nan() {
                0x7FC0_0000
            } else {
                value.to_bits()
            };
            let ordered = if bits >> 31 == 1 {
                !bits
            } else {
                bits | 1 << 31
            };
            key.extend_from_slice(&ordered.to_be_bytes());
        }
        (Type::Float64, Value::Float64(value)) => {
            let bits = if value.is_nan() {
                0x7FF8_0000_0000_0000
            } else {
                value.to_bits()
            };
            let ordered = if bits >> 63 == 1 {
                !bits
            } else {
                bits | 1 << 63
            };
            key.extend_from_slice(&ordered.to_be_bytes());
        }
        (Type::Decimal, Value::Decimal { scale, unscaled }) => {
            let unscaled = shortest(unscaled).ok_or_else(mismatch)?;
            push_decimal(*scale, unscaled, key);
        }
        (Type::Number | Type::Numeric, Value::Number(value)) => push_number(value, key),
        (Type::Ascii, Value::Text(value)) if value.is_ascii() => push_bytes(value.as_bytes(), key),
        (Type::Text { .. }, Value::Text(value)) => push_bytes(value.as_bytes(), key),
        (Type::Bytes { .. }, Value::Bytes(value)) => push_bytes(value, key),
        (Type::Uuid, Value::Uuid(value)) => key.extend_from_slice(&uuid_to_ordered(value)),
        (Type::TimeUuid, Value::Uuid(value)) => key.extend_from_slice(&timeuuid_to_ordered(value)),
        (Type::Inet, Value::Inet(value)) if matches!(value.len(), 4 | 16) => push_bytes(value, key),
        (Type::Date, Value::Date(value)) => push_i32(*value, key),
        (Type::Time, Value::Time(value)) => push_i64(*value, key),
        (Type::TimestampMillis, Value::Timestamp { seconds, nanos }) => {
            push_i64(millis(*seconds, *nanos).ok_or_else(mismatch)?, key);
        }
        (Type::TimestampNanos, Value::Timestamp { seconds, nanos }) if *nanos < 1_000_000_000 => {
            push_i64(*seconds, key);
            key.extend_from_slice(&nanos.to_be_bytes());
        }
        (
            Type::List { .. }
            | Type::Set { .. }
            | Type::Map { .. }
            | Type::Tuple { .. }
            | Type::User { .. }
            | Type::Vector { .. },
            value,
        ) => encode_composed(value, kind, key)?,
        (Type::Counter | Type::Duration | Type::Json | Type::Document | Type::Array { .. }, _) => {
            return Err(KeyError::Unsupported(kind.clone()));
        }
        _ => return Err(mismatch()),
    }
    Ok(())
}

/// Frozen collections, tuples and user types: element by element, the shorter first.
fn encode_composed(value: &Value, kind: &Type, key: &mut Vec<u8>) -> Result<(), KeyError> {
    match (kind, value) {
        (Type::List { element, .. }, Value::List(values)) => {
            for value in values {
                encode_component(value, element, key)?;
            }
            key.push(END);
        }
        (Type::Set { element, .. }, Value::Set(values)) => {
            // A door may hand over elements in any order: a key has one.
            let mut elements = Vec::with_capacity(values.len());
            for value in values {
                let mut encoded = Vec::new();
                encode_component(value, element, &mut encoded)?;
                elements.push(encoded);
            }
            elements.sort_unstable();
            elements.dedup();
            for element in elements {
                key.extend_from_slice(&element);
            }
            key.push(END);
        }
        (
            Type::Map {
                key: key_kind,
                value: value_kind,
                ..
            },
            Value::Map(pairs),
        ) => {
            let mut entries = std::collections::BTreeMap::new();
            for (name, value) in pairs {
                let mut encoded_name = Vec::new();
                encode_component(name, key_kind, &mut encoded_name)?;
                let mut encoded_value = Vec::new();
                encode_component(value, value_kind, &mut encoded_value)?;
                entries.insert(encoded_name, encoded_value);
            }
            for (name, value) in entries {
                key.extend_from_slice(&name);
                key.extend_from_slice(&value);
            }
            key.push(END);
        }
        (Type::Tuple { fields }, Value::Tuple(values)) if values.len() <= fields.len() => {
            for (index, field) in fields.iter().enumerate() {
                encode_component(values.get(index).unwrap_or(&Value::Null), field, key)?;
            }
        }
        (Type::User { fields, .. }, Value::Tuple(values)) if values.len() <= fields.len() => {
            for (index, (_, field)) in fields.iter().enumerate() {
                encode_component(values.get(index).unwrap_or(&Value::Null), field, key)?;
            }
        }
        (Type::Vector { element, dimension }, Value::List(values))
            if values.len() as u64 == u64::from(*dimension) =>
        {
            for value in values {
                encode_component(value, element, key)?;
            }
        }
        _ => return Err(KeyError::Mismatch(kind.clone())),
    }
    Ok(())
}

fn push_i32(value: i32, key: &mut Vec<u8>) {
    key.extend_from_slice(&(value as u32 ^ 1 << 31).to_be_bytes());
}

fn push_i64(value: i64, key: &mut Vec<u8>) {
    key.extend_from_slice(&(value as u64 ^ 1 << 63).to_be_bytes());
}

fn push_bytes(bytes: &[u8], key: &mut Vec<u8>) {
    key.reserve(bytes.len() + 2);
    let mut rest = bytes;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        key.extend_from_slice(&rest[..=zero]);
        key.push(ESCAPED_ZERO);
        rest = &rest[zero + 1..];
    }
    key.extend_from_slice(rest);
    key.extend_from_slice(&[0, TERMINATOR]);
}

/// A two's complement integer without superfluous sign bytes; `None` when there is no byte at all.
pub(crate) fn shortest(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    while let [first, second, ..] = rest {
        let superfluous = (*first == 0x00 && *second < 0x80) || (*first == 0xFF && *second >= 0x80);
        if !superfluous {
            break;
        }
        rest = &rest[1..];
    }
    (!rest.is_empty()).then_some(rest)
}

/// An integer in its shortest form: sign and length first, so that longer ones are further from zero.
fn push_integer(bytes: &[u8], key: &mut Vec<u8>) {
    let negative = bytes[0] >= 0x80;
    let flip = if negative { 0xFF } else { 0x00 };
    let length = bytes.len() - 1;
    if length <= LENGTH_SHORT_MAX {
        key.push((0x80 | length as u8) ^ flip);
    } else {
        key.push((0x80 | LENGTH_LONG) ^ flip);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        key.extend(length.to_be_bytes().map(|byte| byte ^ flip));
    }
    key.extend_from_slice(bytes);
}

fn push_small_integer(value: i64, key: &mut Vec<u8>) {
    let bytes = value.to_be_bytes();
    push_integer(shortest(&bytes).unwrap_or(&bytes), key);
}

fn push_decimal(scale: i32, unscaled: &[u8], key: &mut Vec<u8>) {
    let (sign, magnitude) = BigInt::from_signed_bytes_be(unscaled).into_parts();
    let mut digits = magnitude.to_radix_be(10);
    let exponent = digits.len() as i64 - i64::from(scale);
    while digits.last() == Some(&0) {
        digits.pop();
    }
    push_digits(sign == Sign::Minus, exponent, &digits, key);
}

fn push_number(value: &Number, key: &mut Vec<u8>) {
    let mut digits = [0u8; number::DIGITS_MAX];
    let mut coefficient = value.coefficient();
    let mut first = digits.len();
    while coefficient > 0 {
        first -= 1;
        digits[first] = (coefficient % 10) as u8;
        coefficient /= 10;
    }
    let digits = &digits[first..];
    let exponent = i64::from(value.exponent()) + digits.len() as i64;
    push_digits(value.is_negative(), exponent, digits, key);
}

/// `±0.d₁d₂d₃… × 10^exponent`: sign, exponent, then pairs of digits above zero, then zero. What follows the
/// sign of a negative number is complemented.
fn push_digits(negative: bool, exponent: i64, digits: &[u8], key: &mut Vec<u8>) {
    if digits.is_empty() {
        key.push(ZERO);
        return;
    }
    key.push(if negative { NEGATIVE } else { POSITIVE });
    let start = key.len();
    push_small_integer(exponent, key);
    for pair in digits.chunks(2) {
        key.push(pair[0] * 10 + pair.get(1).copied().unwrap_or(0) + 1);
    }
    key.push(END);
    if negative {
        for byte in &mut key[start..] {
            *byte = !*byte;
        }
    }
}

/// CQL's timestamp; `None` when it does not fit or is finer than a millisecond.
pub(crate) fn millis(seconds: i64, nanos: u32) -> Option<i64> {
    if nanos >= 1_000_000_000 || !nanos.is_multiple_of(1_000_000) {
        return None;
    }
    let millis = i128::from(seconds) * 1_000 + i128::from(nanos / 1_000_000);
    i64::try_from(millis).ok()
}

fn halves(uuid: &[u8; 16]) -> (u64, u64) {
    let value = u128::from_be_bytes(*uuid);
    ((value >> 64) as u64, value as u64)
}

fn from_halves(high: u64, low: u64) -> [u8; 16] {
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

/// Version and high time, middle time, low time: the order of version 1's timestamp.
fn time_first(high: u64) -> u64 {
    high << 48 | (high << 16) & 0xFFFF_0000_0000 | high >> 32
}

fn time_last(ordered: u64) -> u64 {
    ordered >> 48 | (ordered >> 16) & 0xFFFF_0000 | ordered << 32
}

/// Cassandra's UUIDType: by version, then version 1 by time and the others as they are.
fn uuid_to_ordered(uuid: &[u8; 16]) -> [u8; 16] {
    let (high, low) = halves(uuid);
    let version = high >> 12 & 0xF;
    let ordered = if version == 1 {
        time_first(high)
    } else {
        version << 60 | (high >> 4) & 0x0FFF_FFFF_FFFF_F000 | high & 0xFFF
    };
    from_halves(ordered, low)
}

fn uuid_from_ordered(bytes: &[u8; 16]) -> [u8; 16] {
    let (ordered, low) = halves(bytes);
    let version = ordered >> 60;
    let high = if version == 1 {
        time_last(ordered)
    } else {
        (ordered & 0x0FFF_FFFF_FFFF_F000) << 4 | version << 12 | ordered & 0xFFF
    };
    from_halves(high, low)
}

/// Cassandra's TimeUUIDType compares the lower half's bytes as signed ones.
const SIGNED_BYTES: u64 = 0x8080_8080_8080_8080;

fn timeuuid_to_ordered(uuid: &[u8; 16]) -> [u8; 16] {
    let (high, low) = halves(uuid);
    from_halves(time_first(high), low ^ SIGNED_BYTES)
}

fn timeuuid_from_ordered(bytes: &[u8; 16]) -> [u8; 16] {
    let (ordered, low) = halves(bytes);
    from_halves(time_last(ordered), low ^ SIGNED_BYTES)
}
