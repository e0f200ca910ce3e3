//! A partition key as CQL serializes it, which is what tokens are hashed from: one column's bytes as they
//! are; of several each as a 16-bit length, the bytes and a zero.
//!
//! Values are made canonical first, as a key does, so that a decoded key has the token that it was stored
//! under: decimals without trailing zeros, integers in their shortest form. DynamoDB's numbers and Spanner's
//! NUMERIC, which CQL does not have, are hashed as their canonical text.

use crate::key::{self, Direction, KeyError};
use crate::{Type, Value};

/// The serialized key; an error when a value is null, too long, or not of its type.
pub fn serialize(columns: &[(&Value, &Type)]) -> Result<Vec<u8>, KeyError> {
    let mut bytes = Vec::new();
    if let [(value, kind)] = columns {
        append(value, kind, &mut bytes)?;
        return Ok(bytes);
    }
    for (value, kind) in columns {
        let start = bytes.len();
        bytes.extend_from_slice(&[0, 0]);
        append(value, kind, &mut bytes)?;
        let length = u16::try_from(bytes.len() - start - 2)
            .map_err(|_| KeyError::Mismatch((*kind).clone()))?;
        bytes[start..start + 2].copy_from_slice(&length.to_be_bytes());
        bytes.push(0);
    }
    Ok(bytes)
}

fn append(value: &Value, kind: &Type, bytes: &mut Vec<u8>) -> Result<(), KeyError> {
    let mismatch = || KeyError::Mismatch(kind.clone());
    match (kind, value) {
        (Type::Bool, Value::Bool(value)) => bytes.push(u8::from(*value)),
        (Type::TinyInt, Value::Int(value)) => {
            bytes.push(i8::try_from(*value).map_err(|_| mismatch())? as u8);
        }
        (Type::SmallInt, Value::Int(value)) => {
            let value = i16::try_from(*value).map_err(|_| mismatch())?;
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        (Type::Int, Value::Int(value)) => {
            let value = i32::try_from(*value).map_err(|_| mismatch())?;
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        (Type::BigInt, Value::Int(value)) => bytes.extend_from_slice(&value.to_be_bytes()),
        (Type::Varint, Value::Varint(value)) => {
            bytes.extend_from_slice(key::shortest(value).ok_or_else(mismatch)?);
        }
        (Type::Float32, Value::Float32(value)) => {
            let value = if value.is_nan() { f32::NAN } else { *value };
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        (Type::Float64, Value::Float64(value)) => {
            let value = if value.is_nan() { f64::NAN } else { *value };
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        (Type::Number | Type::Numeric, Value::Number(value)) => {
            bytes.extend_from_slice(value.to_string().as_bytes());
        }
        (Type::Ascii | Type::Text { .. }, Value::Text(value)) => {
            bytes.extend_from_slice(value.as_bytes());
        }
        (Type::Bytes { .. }, Value::Bytes(value)) | (Type::Inet, Value::Inet(value)) => {
            bytes.extend_from_slice(value);
        }
        (Type::Uuid | Type::TimeUuid, Value::Uuid(value)) => bytes.extend_from_slice(value),
        (Type::Date, Value::Date(value)) => {
            bytes.extend_from_slice(&(*value as u32 ^ 1 << 31).to_be_bytes());
        }
        (Type::Time, Value::Time(value)) => bytes.extend_from_slice(&value.to_be_bytes()),
        (Type::TimestampMillis, Value::Timestamp { seconds, nanos }) => {
            let millis = key::millis(*seconds, *nanos).ok_or_else(mismatch)?;
            bytes.extend_from_slice(&millis.to_be_bytes());
        }
        (Type::TimestampNanos, Value::Timestamp { seconds, nanos }) => {
            bytes.extend_from_slice(&seconds.to_be_bytes());
            bytes.extend_from_slice(&nanos.to_be_bytes());
        }
        (
            Type::Decimal | Type::List { .. } | Type::Set { .. } | Type::Map { .. },
            Value::Decimal { .. } | Value::List(_) | Value::Set(_) | Value::Map(_),
        )
        | (Type::Tuple { .. } | Type::User { .. } | Type::Vector { .. }, _)
            if !value.is_null() =>
        {
            append_composed(&canonical(value, kind)?, kind, bytes)?;
        }
        (Type::Counter | Type::Duration | Type::Json | Type::Document | Type::Array { .. }, _) => {
            return Err(KeyError::Unsupported(kind.clone()));
        }
        _ => return Err(mismatch()),
    }
    Ok(())
}

/// What a key gives back for this value.
fn canonical(value: &Value, kind: &Type) -> Result<Value, KeyError> {
    let mut encoded = Vec::new();
    key::encode(value, kind, Direction::Ascending, &mut encoded)?;
    Ok(key::decode(&encoded, kind, Direction::Ascending)?.0)
}

fn append_composed(value: &Value, kind: &Type, bytes: &mut Vec<u8>) -> Result<(), KeyError> {
    match (kind, value) {
        (Type::Decimal, Value::Decimal { scale, unscaled }) => {
            bytes.extend_from_slice(&scale.to_be_bytes());
            bytes.extend_from_slice(unscaled);
        }
        (Type::List { element, .. }, Value::List(values))
        | (Type::Set { element, .. }, Value::Set(values)) => {
            bytes.extend_from_slice(&length(values.len(), kind)?);
            for value in values {
                append_sized(value, element, bytes)?;
            }
        }
        (
            Type::Map {
                key: key_kind,
                value: value_kind,
                ..
            },
            Value::Map(pairs),
        ) => {
            bytes.extend_from_slice(&length(pairs.len(), kind)?);
            for (name, value) in pairs {
                append_sized(name, key_kind, bytes)?;
                append_sized(value, value_kind, bytes)?;
            }
        }
        (Type::Tuple { fields }, Value::Tuple(values)) => {
            for (value, field) in values.iter().zip(fields) {
                append_sized(value, field, bytes)?;
            }
        }
        (Type::User { fields, .. }, Value::Tuple(values)) => {
            for (value, (_, field)) in values.iter().zip(fields) {
                append_sized(value, field, bytes)?;
            }
        }
        (Type::Vector { element, .. }, Value::List(values)) => {
            for value in values {
                append(value, element, bytes)?;
            }
        }
        _ => return Err(KeyError::Mismatch(kind.clone())),
    }
    Ok(())
}

fn length(length: usize, kind: &Type) -> Result<[u8; 4], KeyError> {
    i32::try_from(length)
        .map(i32::to_be_bytes)
        .map_err(|_| KeyError::Mismatch(kind.clone()))
}

fn append_sized(value: &Value, kind: &Type, bytes: &mut Vec<u8>) -> Result<(), KeyError> {
    if value.is_null() {
        bytes.extend_from_slice(&(-1i32).to_be_bytes());
        return Ok(());
    }
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    append(value, kind, bytes)?;
    let size = length(bytes.len() - start - 4, kind)?;
    bytes[start..start + 4].copy_from_slice(&size);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::serialize;
    use crate::murmur3::token;
    use crate::{Number, Type, Value};

    #[test]
    fn one_column_is_raw_and_several_are_composite() {
        let text = Value::Text("ab".into());
        let int = Value::Int(7);
        assert_eq!(serialize(&[(&text, &Type::text())]).unwrap(), b"ab");
        assert_eq!(
            serialize(&[(&text, &Type::text()), (&int, &Type::Int)]).unwrap(),
            b"\x00\x02ab\x00\x00\x04\x00\x00\x00\x07\x00"
        );
        let number = Value::Number(Number::from(1_200));
        assert_eq!(serialize(&[(&number, &Type::Number)]).unwrap(), b"1200");
        assert!(serialize(&[(&Value::Null, &Type::Int)]).is_err());
        assert!(serialize(&[(&Value::Int(1 << 40), &Type::Int)]).is_err());
    }

    #[test]
    fn tokens_of_integers_are_cassandras() {
        // `SELECT token(k)` of an int column in Cassandra.
        let of = |value| token(&serialize(&[(&Value::Int(value), &Type::Int)]).unwrap());
        assert_eq!(of(1), -4_069_959_284_402_364_209);
        assert_eq!(of(2), -3_248_873_570_005_575_792);
        assert_eq!(of(0), -3_485_513_579_396_041_028);
    }
}
