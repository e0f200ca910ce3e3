//! Values and types on the wire: Spanner sends values in the JSON-like `google.protobuf.Value`, where the type
//! says how to read them (`google.spanner.v1.TypeCode` documents each).

use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use model::{Number, Value};
use pb::{StructType, Type, TypeCode, struct_type::Field};
use prost_types::value::Kind;
use prost_types::{ListValue, Value as Wire};
use sql::types::SqlType;
use sql::value as text;

/// How deep types and values may nest.
const DEPTH_MAX: usize = 32;

pub fn type_of(kind: &SqlType) -> Type {
    let code = match kind {
        SqlType::Bool => TypeCode::Bool,
        SqlType::Int64 => TypeCode::Int64,
        SqlType::Float32 => TypeCode::Float32,
        SqlType::Float64 => TypeCode::Float64,
        SqlType::Numeric => TypeCode::Numeric,
        SqlType::String => TypeCode::String,
        SqlType::Bytes => TypeCode::Bytes,
        SqlType::Date => TypeCode::Date,
        SqlType::Timestamp => TypeCode::Timestamp,
        SqlType::Json => TypeCode::Json,
        SqlType::Uuid => TypeCode::Uuid,
        SqlType::Array(_) => TypeCode::Array,
        SqlType::Struct(_) => TypeCode::Struct,
    };
    let mut made = Type {
        code: code as i32,
        ..Type::default()
    };
    match kind {
        SqlType::Array(element) => made.array_element_type = Some(Box::new(type_of(element))),
        SqlType::Struct(fields) => {
            let fields = fields.iter().map(|(name, kind)| Field {
                name: name.clone(),
                r#type: Some(type_of(kind)),
            });
            made.struct_type = Some(StructType {
                fields: fields.collect(),
            });
        }
        _ => {}
    }
    made
}

/// A declared type; `None` for one that is not built.
pub fn kind_of(made: &Type) -> Result<SqlType, String> {
    kind_within(made, DEPTH_MAX)
}

fn kind_within(made: &Type, depth: usize) -> Result<SqlType, String> {
    let depth = depth
        .checked_sub(1)
        .ok_or_else(|| format!("types nest deeper than {DEPTH_MAX}"))?;
    if made.type_annotation != 0 {
        return Err("types of the PostgreSQL dialect are not supported".to_owned());
    }
    Ok(match made.code() {
        TypeCode::Bool => SqlType::Bool,
        TypeCode::Int64 => SqlType::Int64,
        TypeCode::Float32 => SqlType::Float32,
        TypeCode::Float64 => SqlType::Float64,
        TypeCode::Numeric => SqlType::Numeric,
        TypeCode::String => SqlType::String,
        TypeCode::Bytes => SqlType::Bytes,
        TypeCode::Date => SqlType::Date,
        TypeCode::Timestamp => SqlType::Timestamp,
        TypeCode::Json => SqlType::Json,
        TypeCode::Uuid => SqlType::Uuid,
        TypeCode::Array => match &made.array_element_type {
            Some(element) => SqlType::array(kind_within(element, depth)?),
            None => return Err("an ARRAY type without its element's type".to_owned()),
        },
        TypeCode::Struct => {
            let fields = made.struct_type.iter().flat_map(|made| &made.fields);
            let mut kinds = Vec::new();
            for field in fields {
                let kind = field
                    .r#type
                    .as_ref()
                    .ok_or("a STRUCT field without a type")?;
                kinds.push((field.name.clone(), kind_within(kind, depth)?));
            }
            SqlType::Struct(kinds)
        }
        other => return Err(format!("the type {} is not supported", other.as_str_name())),
    })
}

/// The type to take for a value whose type nobody declared.
pub fn natural_kind(value: &Wire) -> SqlType {
    natural_within(value, 3)
}

fn natural_within(value: &Wire, depth: usize) -> SqlType {
    match &value.kind {
        Some(Kind::BoolValue(_)) => SqlType::Bool,
        Some(Kind::NumberValue(_)) => SqlType::Float64,
        Some(Kind::StringValue(_)) => SqlType::String,
        Some(Kind::ListValue(list)) if depth > 0 => SqlType::array(
            list.values
                .first()
                .map_or(SqlType::Int64, |first| natural_within(first, depth - 1)),
        ),
        _ => SqlType::Int64,
    }
}

fn wire(kind: Kind) -> Wire {
    Wire { kind: Some(kind) }
}

fn wire_text(text: String) -> Wire {
    wire(Kind::StringValue(text))
}

pub fn null() -> Wire {
    wire(Kind::NullValue(0))
}

pub fn encode(value: &Value) -> Wire {
    match value {
        Value::Null => null(),
        Value::Bool(value) => wire(Kind::BoolValue(*value)),
        Value::Int(value) => wire_text(value.to_string()),
        // Widened through its decimal text, so that 0.1 stays 0.1 for clients that read doubles.
        Value::Float32(value) => encode_float(match value.is_finite() {
            true => value.to_string().parse().unwrap_or(f64::from(*value)),
            false => f64::from(*value),
        }),
        Value::Float64(value) => encode_float(*value),
        Value::Number(number) => wire_text(text::numeric_text(*number)),
        Value::Text(text) | Value::Json(text) => wire_text(text.clone()),
        Value::Bytes(bytes) => wire_text(text::base64_text(bytes)),
        Value::Uuid(bytes) => wire_text(text::uuid_text(bytes)),
        Value::Date(days) => wire_text(text::date_text(*days)),
        Value::Timestamp { seconds, nanos } => {
            wire_text(text::timestamp_wire_text(*seconds, *nanos))
        }
        Value::List(values) | Value::Tuple(values) => wire(Kind::ListValue(ListValue {
            values: values.iter().map(encode).collect(),
        })),
        // Types of other doors that no SQL type stands for never get here.
        _ => null(),
    }
}

fn encode_float(value: f64) -> Wire {
    if value.is_nan() {
        return wire_text("NaN".to_owned());
    }
    if value.is_infinite() {
        return wire_text(if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned());
    }
    wire(Kind::NumberValue(value))
}

/// Reads a value of a type; the error says what was expected.
pub fn decode(value: &Wire, kind: &SqlType) -> Result<Value, String> {
    decode_within(value, kind, DEPTH_MAX)
}

fn decode_within(value: &Wire, kind: &SqlType, depth: usize) -> Result<Value, String> {
    let depth = depth
        .checked_sub(1)
        .ok_or_else(|| format!("values nest deeper than {DEPTH_MAX}"))?;
    let expected = || format!("Expected {kind}");
    let found = match &value.kind {
        None | Some(Kind::NullValue(_)) => return Ok(Value::Null),
        Some(found) => found,
    };
    Ok(match (kind, found) {
        (SqlType::Bool, Kind::BoolValue(value)) => Value::Bool(*value),
        (SqlType::Float64, Kind::NumberValue(value)) => Value::Float64(*value),
        (SqlType::Float32, Kind::NumberValue(value)) => {
            let narrow = *value as f32;
            if narrow.is_infinite() && value.is_finite() {
                return Err(format!("{}: {value} is out of range", expected()));
            }
            Value::Float32(narrow)
        }
        (SqlType::Float64 | SqlType::Float32, Kind::StringValue(name)) => {
            let value = match name.as_str() {
                "NaN" => f64::NAN,
                "Infinity" => f64::INFINITY,
                "-Infinity" => f64::NEG_INFINITY,
                _ => return Err(expected()),
            };
            match kind {
                SqlType::Float64 => Value::Float64(value),
                _ => Value::Float32(value as f32),
            }
        }
        (SqlType::Array(element), Kind::ListValue(list)) => {
            let items = list.values.iter();
            let items: Result<Vec<Value>, String> = items
                .map(|item| decode_within(item, element, depth))
                .collect();
            Value::List(items?)
        }
        (SqlType::Struct(fields), Kind::ListValue(list)) => {
            if list.values.len() != fields.len() {
                return Err(expected());
            }
            let items = list.values.iter().zip(fields);
            let items: Result<Vec<Value>, String> = items
                .map(|(item, (_, kind))| decode_within(item, kind, depth))
                .collect();
            Value::Tuple(items?)
        }
        (_, Kind::StringValue(written)) => decode_text(written, kind).ok_or_else(expected)?,
        _ => return Err(expected()),
    })
}

fn decode_text(written: &str, kind: &SqlType) -> Option<Value> {
    Some(match kind {
        SqlType::Int64 => Value::Int(written.parse().ok()?),
        SqlType::String => Value::Text(written.to_owned()),
        SqlType::Bytes => Value::Bytes(text::parse_base64(written)?),
        SqlType::Numeric => Value::Number(Number::parse_numeric(written).ok()?),
        SqlType::Date => Value::Date(text::parse_date(written)?),
        SqlType::Timestamp => decode_timestamp(written)?,
        SqlType::Json => Value::Json(text::normal_json(written)?),
        SqlType::Uuid => Value::Uuid(text::parse_uuid(written)?),
        _ => return None,
    })
}

/// RFC 3339 with an offset or Z.
fn decode_timestamp(written: &str) -> Option<Value> {
    let has_zone = written.ends_with(['Z', 'z'])
        || written
            .get(19..)
            .is_some_and(|rest| rest.contains(['+', '-']));
    match has_zone {
        true => text::parse_timestamp(written, "UTC").ok(),
        false => None,
    }
}

pub fn timestamp(micros: model::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: micros.0.div_euclid(1_000_000),
        nanos: (micros.0.rem_euclid(1_000_000) * 1_000) as i32,
    }
}

/// Rounded down to microseconds, in which commit timestamps are counted.
pub fn micros(timestamp: &prost_types::Timestamp) -> model::Timestamp {
    let micros = timestamp
        .seconds
        .saturating_mul(1_000_000)
        .saturating_add(i64::from(timestamp.nanos) / 1_000);
    model::Timestamp(micros)
}

pub fn duration_micros(duration: &prost_types::Duration) -> Option<u64> {
    let micros = duration
        .seconds
        .checked_mul(1_000_000)?
        .checked_add(i64::from(duration.nanos) / 1_000)?;
    u64::try_from(micros).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(value: Value, kind: SqlType) {
        assert_eq!(decode(&encode(&value), &kind), Ok(value));
    }

    #[test]
    fn every_type_round_trips() {
        round_trip(Value::Null, SqlType::Date);
        round_trip(Value::Bool(true), SqlType::Bool);
        round_trip(Value::Int(i64::MIN), SqlType::Int64);
        round_trip(Value::Float64(f64::NEG_INFINITY), SqlType::Float64);
        round_trip(Value::Float32(0.1), SqlType::Float32);
        round_trip(
            Value::Number(
                Number::parse_numeric("-12345678901234567890123456789.123456789").unwrap(),
            ),
            SqlType::Numeric,
        );
        round_trip(Value::Text("ä".into()), SqlType::String);
        round_trip(Value::Bytes(vec![0, 255]), SqlType::Bytes);
        round_trip(Value::Date(-719_162), SqlType::Date);
        round_trip(
            Value::Timestamp {
                seconds: -62_135_596_800,
                nanos: 1,
            },
            SqlType::Timestamp,
        );
        round_trip(Value::Json("{\"a\":[1,null]}".into()), SqlType::Json);
        round_trip(Value::Uuid([7; 16]), SqlType::Uuid);
        round_trip(
            Value::List(vec![Value::Int(1), Value::Null]),
            SqlType::array(SqlType::Int64),
        );
    }

    #[test]
    fn wrong_forms_are_refused() {
        let number = wire(Kind::NumberValue(1.0));
        assert_eq!(
            decode(&number, &SqlType::Int64),
            Err("Expected INT64".into())
        );
        for (written, kind) in [
            ("12x", SqlType::Int64),
            ("2020-13-01", SqlType::Date),
            ("2020-01-01T00:00:00", SqlType::Timestamp),
            ("{", SqlType::Json),
            ("***", SqlType::Bytes),
        ] {
            assert!(
                decode(&wire_text(written.into()), &kind).is_err(),
                "{written}"
            );
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(written in ".{0,40}") {
            for kind in [SqlType::Int64, SqlType::Numeric, SqlType::Date, SqlType::Timestamp, SqlType::Json,
                SqlType::Uuid, SqlType::Bytes, SqlType::Float32] {
                let _ = decode(&wire_text(written.clone()), &kind);
            }
        }

        #[test]
        fn times_never_panic(written in "[0-9TZ:. +-]{0,40}") {
            let _ = decode(&wire_text(written.clone()), &SqlType::Timestamp);
            let _ = decode(&wire_text(written), &SqlType::Date);
        }
    }
}
