//! Values as the protocol carries them (section 6): big-endian, collections with 4-byte counts and lengths.

use super::order::{normalise_map, normalise_set};
use super::{DEPTH_MAX, name::cql_name, number};
use crate::error::Error;
use crate::protocol::wire::{put_int, put_length, put_null};
use model::{Type, Value};

const NANOS_PER_DAY: i64 = 86_400_000_000_000;

/// The size of a value whose type has only one, as vectors hold them.
pub fn fixed_size(kind: &Type) -> Option<usize> {
    Some(match kind {
        Type::Int | Type::Float32 => 4,
        Type::BigInt | Type::Float64 | Type::TimestampMillis => 8,
        Type::Uuid | Type::TimeUuid => 16,
        _ => return None,
    })
}

/// Reads one value that is not null. Empty bytes, which Cassandra lets stand for "no value" of any type, are
/// null here, but for strings and blobs.
pub fn decode(kind: &Type, bytes: &[u8]) -> Result<Value, Error> {
    decode_nested(kind, bytes, 0)
}

fn wrong_length(kind: &Type, expected: &str, bytes: &[u8]) -> Error {
    Error::invalid(format!(
        "Expected {expected} for a {} ({})",
        cql_name(kind),
        bytes.len()
    ))
}

fn fixed<const N: usize>(kind: &Type, bytes: &[u8]) -> Result<[u8; N], Error> {
    bytes.try_into().map_err(|_| {
        wrong_length(
            kind,
            &format!("{N} byte{}", if N == 1 { "" } else { "s" }),
            bytes,
        )
    })
}

fn text(bytes: &[u8]) -> Result<Value, Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Value::Text(text.to_owned())),
        Err(_) => Err(Error::invalid("String didn't validate.")),
    }
}

fn decode_nested(kind: &Type, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::invalid("a value is nested too deep"));
    }
    match kind {
        Type::Text { .. } | Type::Json => return text(bytes),
        Type::Bytes { .. } => return Ok(Value::Bytes(bytes.to_vec())),
        Type::Ascii => {
            if !bytes.is_ascii() {
                return Err(Error::invalid("Invalid byte for ascii: outside 0 to 127"));
            }
            return text(bytes);
        }
        _ if bytes.is_empty() => return Ok(Value::Null),
        _ => {}
    }
    Ok(match kind {
        Type::Bool => Value::Bool(fixed::<1>(kind, bytes)?[0] != 0),
        Type::TinyInt => Value::Int(i8::from_be_bytes(fixed(kind, bytes)?).into()),
        Type::SmallInt => Value::Int(i16::from_be_bytes(fixed(kind, bytes)?).into()),
        Type::Int => Value::Int(i32::from_be_bytes(fixed(kind, bytes)?).into()),
        Type::BigInt | Type::Counter => Value::Int(i64::from_be_bytes(fixed(kind, bytes)?)),
        Type::Varint => Value::Varint(number::shortest(bytes)),
        Type::Float32 => Value::Float32(f32::from_be_bytes(fixed(kind, bytes)?)),
        Type::Float64 => Value::Float64(f64::from_be_bytes(fixed(kind, bytes)?)),
        Type::Decimal => {
            let (scale, unscaled) = bytes
                .split_first_chunk::<4>()
                .filter(|(_, unscaled)| !unscaled.is_empty())
                .ok_or_else(|| wrong_length(kind, "at least 5 bytes", bytes))?;
            Value::Decimal {
                scale: i32::from_be_bytes(*scale),
                unscaled: number::shortest(unscaled),
            }
        }
        Type::Uuid => Value::Uuid(fixed(kind, bytes)?),
        Type::TimeUuid => {
            let uuid: [u8; 16] = fixed(kind, bytes)?;
            if uuid[6] >> 4 != 1 {
                return Err(Error::invalid("Invalid version for TimeUUID type."));
            }
            Value::Uuid(uuid)
        }
        Type::Inet if bytes.len() == 4 || bytes.len() == 16 => Value::Inet(bytes.to_vec()),
        Type::Inet => return Err(wrong_length(kind, "4 or 16 bytes", bytes)),
        Type::Date => {
            let days = u32::from_be_bytes(fixed(kind, bytes)?);
            Value::Date((days ^ 0x8000_0000) as i32)
        }
        Type::Time => {
            let nanos = i64::from_be_bytes(fixed(kind, bytes)?);
            if !(0..NANOS_PER_DAY).contains(&nanos) {
                return Err(Error::invalid(format!("Invalid value for time: {nanos}")));
            }
            Value::Time(nanos)
        }
        Type::TimestampMillis | Type::TimestampNanos => {
            timestamp_from_millis(i64::from_be_bytes(fixed(kind, bytes)?))
        }
        Type::Duration => duration(bytes)?,
        _ => return decode_collection(kind, bytes, depth),
    })
}

fn decode_collection(kind: &Type, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let mut parts = Parts { kind, bytes };
    let value = match kind {
        Type::List { element, .. } | Type::Array { element } => {
            Value::List(parts.elements(element, depth)?)
        }
        Type::Set { element, .. } => {
            Value::Set(normalise_set(parts.elements(element, depth)?, element))
        }
        Type::Map { key, value, .. } => {
            let count = parts.count()?;
            let mut pairs = Vec::new();
            for _ in 0..count {
                let key = parts.element(key, depth)?;
                let value = parts.element(value, depth)?;
                pairs.push((key, value));
            }
            Value::Map(normalise_map(pairs, key))
        }
        Type::Tuple { fields } => Value::Tuple(parts.fields(fields.iter(), depth)?),
        Type::User { fields, .. } => {
            Value::Tuple(parts.fields(fields.iter().map(|field| &field.1), depth)?)
        }
        Type::Vector { element, dimension } => {
            let size = fixed_size(element)
                .ok_or_else(|| Error::invalid("vectors of this type are not supported yet"))?;
            if bytes.len() != size * *dimension as usize {
                return Err(Error::invalid(format!(
                    "Invalid vector value: expected {} bytes, got {}",
                    size * *dimension as usize,
                    bytes.len()
                )));
            }
            parts.bytes = &[];
            let elements = bytes.chunks_exact(size);
            Value::List(
                elements
                    .map(|bytes| decode_nested(element, bytes, depth + 1))
                    .collect::<Result<_, _>>()?,
            )
        }
        other => {
            return Err(Error::invalid(format!(
                "values of type {} cannot be given in CQL",
                cql_name(other)
            )));
        }
    };
    if !parts.bytes.is_empty() {
        return Err(Error::invalid(format!(
            "Unexpected extraneous bytes after {} value",
            cql_name(kind)
        )));
    }
    Ok(value)
}

/// What is left of a collection's bytes.
struct Parts<'a> {
    kind: &'a Type,
    bytes: &'a [u8],
}

impl<'a> Parts<'a> {
    fn short(&self) -> Error {
        Error::invalid(format!(
            "Not enough bytes to read a {}",
            cql_name(self.kind)
        ))
    }

    fn int(&mut self) -> Result<i32, Error> {
        let (head, rest) = self
            .bytes
            .split_first_chunk::<4>()
            .ok_or_else(|| self.short())?;
        self.bytes = rest;
        Ok(i32::from_be_bytes(*head))
    }

    fn count(&mut self) -> Result<usize, Error> {
        let count = usize::try_from(self.int()?).map_err(|_| self.short())?;
        // Each element takes at least its length: an absurd count is noticed at once.
        if count > self.bytes.len() / 4 {
            return Err(self.short());
        }
        Ok(count)
    }

    fn part(&mut self) -> Result<Option<&'a [u8]>, Error> {
        let length = self.int()?;
        let Ok(length) = usize::try_from(length) else {
            return Ok(None);
        };
        let (part, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or_else(|| self.short())?;
        self.bytes = rest;
        Ok(Some(part))
    }

    fn element(&mut self, kind: &Type, depth: usize) -> Result<Value, Error> {
        let part = self
            .part()?
            .ok_or_else(|| Error::invalid("null is not supported inside collections"))?;
        decode_nested(kind, part, depth + 1)
    }

    fn elements(&mut self, kind: &Type, depth: usize) -> Result<Vec<Value>, Error> {
        let count = self.count()?;
        (0..count).map(|_| self.element(kind, depth)).collect()
    }

    /// Fields that are missing at the end are null.
    fn fields<'t>(
        &mut self,
        kinds: impl Iterator<Item = &'t Type>,
        depth: usize,
    ) -> Result<Vec<Value>, Error> {
        kinds
            .map(|kind| {
                if self.bytes.is_empty() {
                    return Ok(Value::Null);
                }
                match self.part()? {
                    Some(part) => decode_nested(kind, part, depth + 1),
                    None => Ok(Value::Null),
                }
            })
            .collect()
    }
}

pub fn timestamp_from_millis(millis: i64) -> Value {
    Value::Timestamp {
        seconds: millis.div_euclid(1000),
        nanos: (millis.rem_euclid(1000) * 1_000_000) as u32,
    }
}

pub fn millis_from_timestamp(seconds: i64, nanos: u32) -> i64 {
    seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(nanos / 1_000_000))
}

/// Appends a value with its length, or a null.
pub fn put_value(value: &Value, kind: &Type, out: &mut Vec<u8>) {
    if value.is_null() {
        return put_null(out);
    }
    let start = out.len();
    put_int(out, 0);
    encode(value, kind, out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a value's bytes. A null, or a value that its type does not allow, appends nothing.
pub fn encode(value: &Value, kind: &Type, out: &mut Vec<u8>) {
    match (value, kind) {
        (Value::Bool(value), _) => out.push(u8::from(*value)),
        (Value::Int(value), Type::TinyInt) => out.push(*value as u8),
        (Value::Int(value), Type::SmallInt) => {
            out.extend_from_slice(&(*value as i16).to_be_bytes());
        }
        (Value::Int(value), Type::Int) => out.extend_from_slice(&(*value as i32).to_be_bytes()),
        (Value::Int(value), _) => out.extend_from_slice(&value.to_be_bytes()),
        (Value::Varint(value), _) => out.extend_from_slice(value),
        (Value::Float32(value), _) => out.extend_from_slice(&value.to_be_bytes()),
        (Value::Float64(value), _) => out.extend_from_slice(&value.to_be_bytes()),
        (Value::Decimal { scale, unscaled }, _) => {
            put_int(out, *scale);
            out.extend_from_slice(unscaled);
        }
        (Value::Text(value) | Value::Json(value), _) => out.extend_from_slice(value.as_bytes()),
        (Value::Bytes(value) | Value::Inet(value), _) => out.extend_from_slice(value),
        (Value::Uuid(value), _) => out.extend_from_slice(value),
        (Value::Date(days), _) => {
            out.extend_from_slice(&(*days as u32 ^ 0x8000_0000).to_be_bytes());
        }
        (Value::Time(nanos), _) => out.extend_from_slice(&nanos.to_be_bytes()),
        (Value::Timestamp { seconds, nanos }, _) => {
            out.extend_from_slice(&millis_from_timestamp(*seconds, *nanos).to_be_bytes());
        }
        (
            Value::Duration {
                months,
                days,
                nanos,
            },
            _,
        ) => {
            put_vint(i64::from(*months), out);
            put_vint(i64::from(*days), out);
            put_vint(*nanos, out);
        }
        (Value::List(elements), Type::Vector { element, .. }) => {
            for value in elements {
                encode(value, element, out);
            }
        }
        (
            Value::List(elements) | Value::Set(elements),
            Type::List { element, .. } | Type::Set { element, .. } | Type::Array { element },
        ) => {
            put_length(out, elements.len());
            for value in elements {
                put_value(value, element, out);
            }
        }
        (
            Value::Map(pairs),
            Type::Map {
                key: key_kind,
                value: value_kind,
                ..
            },
        ) => {
            put_length(out, pairs.len());
            for (key, value) in pairs {
                put_value(key, key_kind, out);
                put_value(value, value_kind, out);
            }
        }
        (Value::Tuple(values), Type::Tuple { fields }) => {
            for (value, kind) in values.iter().zip(fields) {
                put_value(value, kind, out);
            }
        }
        (Value::Tuple(values), Type::User { fields, .. }) => {
            for (value, (_, kind)) in values.iter().zip(fields) {
                put_value(value, kind, out);
            }
        }
        (Value::Number(number), _) => super::number::put_decimal(number, out),
        _ => {}
    }
}

/// Variable-length integers of durations: zigzag, then as many leading one bits as bytes follow.
fn put_vint(value: i64, out: &mut Vec<u8>) {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    let bits = 64 - (zigzag | 1).leading_zeros() as usize;
    let extra = ((bits - 1) / 7).min(8);
    let bytes = zigzag.to_be_bytes();
    if extra == 8 {
        out.push(0xFF);
        out.extend_from_slice(&bytes);
        return;
    }
    let start = out.len();
    out.extend_from_slice(&bytes[8 - extra - 1..]);
    out[start] |= !(0xFF_u8 >> extra);
}

fn vint(bytes: &mut &[u8]) -> Option<i64> {
    let (&first, rest) = bytes.split_first()?;
    let extra = first.leading_ones() as usize;
    let (tail, rest) = rest.split_at_checked(extra)?;
    let mut number = if extra >= 7 {
        0
    } else {
        u64::from(first & (0xFF >> (extra + 1)))
    };
    for byte in tail {
        number = number << 8 | u64::from(*byte);
    }
    *bytes = rest;
    Some((number >> 1) as i64 ^ -((number & 1) as i64))
}

fn duration(mut bytes: &[u8]) -> Result<Value, Error> {
    let bad = || Error::invalid("Invalid bytes for a duration");
    let months = vint(&mut bytes).ok_or_else(bad)?;
    let days = vint(&mut bytes).ok_or_else(bad)?;
    let nanos = vint(&mut bytes).ok_or_else(bad)?;
    if !bytes.is_empty() {
        return Err(bad());
    }
    let months = i32::try_from(months).map_err(|_| bad())?;
    let days = i32::try_from(days).map_err(|_| bad())?;
    check_duration(months, days, nanos)?;
    Ok(Value::Duration {
        months,
        days,
        nanos,
    })
}

/// All parts of a duration have one sign.
pub fn check_duration(months: i32, days: i32, nanos: i64) -> Result<(), Error> {
    let is_negative = months < 0 || days < 0 || nanos < 0;
    let is_positive = months > 0 || days > 0 || nanos > 0;
    if is_negative && is_positive {
        return Err(Error::invalid(
            "The duration months, days and nanoseconds must be all of the same sign",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(kind: &Type, value: Value) {
        let mut bytes = Vec::new();
        encode(&value, kind, &mut bytes);
        assert_eq!(decode(kind, &bytes).unwrap(), value, "{kind:?}");
    }

    #[test]
    fn scalars_round_trip() {
        round_trip(&Type::TinyInt, Value::Int(-128));
        round_trip(&Type::SmallInt, Value::Int(-2));
        round_trip(&Type::Int, Value::Int(i64::from(i32::MIN)));
        round_trip(&Type::BigInt, Value::Int(i64::MAX));
        round_trip(&Type::Date, Value::Date(-1));
        round_trip(&Type::Date, Value::Date(i32::MIN));
        round_trip(&Type::Inet, Value::Inet(vec![127, 0, 0, 1]));
        round_trip(&Type::TimestampMillis, timestamp_from_millis(-1));
        round_trip(
            &Type::Decimal,
            Value::Decimal {
                scale: -3,
                unscaled: vec![0xFF],
            },
        );
        round_trip(
            &Type::Duration,
            Value::Duration {
                months: -1,
                days: -2,
                nanos: i64::MIN,
            },
        );
        let tuple = Type::Tuple {
            fields: vec![Type::Int, Type::text()],
        };
        round_trip(
            &tuple,
            Value::Tuple(vec![Value::Null, Value::Text("x".into())]),
        );
    }

    #[test]
    fn goldens() {
        let mut out = Vec::new();
        encode(&Value::Date(0), &Type::Date, &mut out);
        assert_eq!(out, [0x80, 0, 0, 0]);
        out.clear();
        let duration = Value::Duration {
            months: 1,
            days: 2,
            nanos: 3_000,
        };
        encode(&duration, &Type::Duration, &mut out);
        assert_eq!(out, [2, 4, 0x97, 0x70]);
    }

    #[test]
    fn collections_are_put_in_order() {
        let kind = Type::Set {
            element: Box::new(Type::Int),
            frozen: true,
        };
        let mut bytes = vec![0, 0, 0, 3];
        for element in [5_i32, -1, 5] {
            bytes.extend_from_slice(&[0, 0, 0, 4]);
            bytes.extend_from_slice(&element.to_be_bytes());
        }
        let set = Value::Set(vec![Value::Int(-1), Value::Int(5)]);
        assert_eq!(decode(&kind, &bytes).unwrap(), set);
        bytes[3] = 200;
        decode(&kind, &bytes).unwrap_err();
    }

    proptest! {
        #[test]
        fn vints_round_trip(value in any::<i64>(), shift in 0_u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_vint(value, &mut out);
            let mut rest = &out[..];
            prop_assert_eq!(vint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_panic(
            index in 0_usize..20,
            bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xFF), any::<u8>()], 0..64),
        ) {
            let list = Type::List { element: Box::new(Type::Int), frozen: true };
            let map = Type::Map {
                key: Box::new(Type::text()),
                value: Box::new(list.clone()),
                frozen: true,
            };
            let kinds = [
                Type::Bool, Type::TinyInt, Type::SmallInt, Type::Int, Type::BigInt, Type::Varint,
                Type::Float32, Type::Float64, Type::Decimal, Type::Ascii, Type::text(), Type::bytes(),
                Type::Uuid, Type::TimeUuid, Type::Inet, Type::Date, Type::Duration, list, map.clone(),
                Type::Tuple { fields: vec![map, Type::Duration] },
            ];
            if let Ok(value) = decode(&kinds[index], &bytes) {
                let mut out = Vec::new();
                encode(&value, &kinds[index], &mut out);
                let again = decode(&kinds[index], &out).unwrap_or(Value::Null);
                // What is not a number equals nothing, itself included: its bytes do.
                let is_number = value == value.clone();
                prop_assert!(again == value || !is_number, "{again:?}, {value:?}");
                let mut twice = Vec::new();
                encode(&again, &kinds[index], &mut twice);
                prop_assert_eq!(twice, out);
            }
        }
    }
}
