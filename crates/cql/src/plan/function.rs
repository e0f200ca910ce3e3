//! The native functions of single values. Aggregates are the select's.

use super::term::Context;
use crate::error::Error;
use crate::timeuuid;
use crate::types::name::{cql_name, native};
use crate::types::wire::{self, millis_from_timestamp, timestamp_from_millis};
use model::{Type, Value};

#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    pub arguments: Vec<Type>,
    pub result: Type,
    body: Body,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    Now,
    Uuid,
    CurrentTimestamp,
    CurrentDate,
    CurrentTime,
    ToTimestamp,
    ToDate,
    ToUnixTimestamp,
    TimeUuidBound { is_upper: bool },
    ToBlob,
    FromBlob,
}

const MILLIS_PER_DAY: i64 = 86_400_000;

/// The function of a name for arguments of these types; `None` is an argument whose type is open.
pub fn find(name: &str, arguments: &[Option<Type>]) -> Result<Function, Error> {
    let flat: String = name
        .chars()
        .filter(|next| *next != '_')
        .collect::<String>()
        .to_ascii_lowercase();
    let time_like = |default: Type| -> Vec<Type> {
        let given = arguments.first().cloned().flatten();
        vec![match given {
            Some(kind @ (Type::TimeUuid | Type::TimestampMillis | Type::Date)) => kind,
            _ => default,
        }]
    };
    let (parameters, result, body) = match flat.as_str() {
        "now" | "currenttimeuuid" => (vec![], Type::TimeUuid, Body::Now),
        "uuid" => (vec![], Type::Uuid, Body::Uuid),
        "currenttimestamp" => (vec![], Type::TimestampMillis, Body::CurrentTimestamp),
        "currentdate" => (vec![], Type::Date, Body::CurrentDate),
        "currenttime" => (vec![], Type::Time, Body::CurrentTime),
        "totimestamp" | "dateof" => (
            time_like(Type::TimeUuid),
            Type::TimestampMillis,
            Body::ToTimestamp,
        ),
        "todate" => (time_like(Type::TimeUuid), Type::Date, Body::ToDate),
        "tounixtimestamp" | "unixtimestampof" => (
            time_like(Type::TimeUuid),
            Type::BigInt,
            Body::ToUnixTimestamp,
        ),
        "mintimeuuid" | "maxtimeuuid" => (
            vec![Type::TimestampMillis],
            Type::TimeUuid,
            Body::TimeUuidBound {
                is_upper: flat.starts_with("max"),
            },
        ),
        other => blob_function(other)
            .ok_or_else(|| Error::invalid(format!("Unknown function {name} called")))?,
    };
    if parameters.len() != arguments.len() {
        return Err(Error::invalid(format!(
            "Invalid number of arguments in call to function {name}: {} required but {} provided",
            parameters.len(),
            arguments.len()
        )));
    }
    for (expected, given) in parameters.iter().zip(arguments) {
        let fits = match given {
            None => true,
            Some(given) => {
                given == expected
                    || (matches!(expected, Type::TimestampMillis | Type::Date)
                        && matches!(given, Type::Text { .. } | Type::Int | Type::BigInt))
                    || (is_number(expected) && is_number(given))
                    || (matches!(expected, Type::TimeUuid) && matches!(given, Type::Uuid))
                    || (matches!(expected, Type::Ascii) && matches!(given, Type::Text { .. }))
                    || (matches!(expected, Type::Inet | Type::Time)
                        && matches!(given, Type::Text { .. }))
            }
        };
        if !fits {
            return Err(Error::invalid(format!(
                "Type error: {} cannot be passed as an argument of function {name} of type {}",
                given.as_ref().map(cql_name).unwrap_or_default(),
                cql_name(expected)
            )));
        }
    }
    Ok(Function {
        name: name.to_owned(),
        arguments: parameters,
        result,
        body,
    })
}

fn is_number(kind: &Type) -> bool {
    matches!(
        kind,
        Type::TinyInt
            | Type::SmallInt
            | Type::Int
            | Type::BigInt
            | Type::Varint
            | Type::Float32
            | Type::Float64
            | Type::Decimal
    )
}

/// `intAsBlob`, `blobAsInt` and their sisters, underscores taken out.
fn blob_function(flat: &str) -> Option<(Vec<Type>, Type, Body)> {
    if let Some(kind) = flat.strip_prefix("blobas").and_then(native) {
        return Some((vec![Type::bytes()], kind, Body::FromBlob));
    }
    let kind = flat.strip_suffix("asblob").and_then(native)?;
    Some((vec![kind], Type::bytes(), Body::ToBlob))
}

impl Function {
    pub fn call(&self, arguments: &[Value], context: &Context<'_>) -> Result<Value, Error> {
        if arguments.iter().any(Value::is_null) {
            return Ok(Value::Null);
        }
        let now_millis = context.now.0.div_euclid(1000);
        let first = arguments.first().unwrap_or(&Value::Null);
        Ok(match self.body {
            Body::Now => Value::Uuid(context.uuids.next(context.now)),
            Body::Uuid => Value::Uuid(*uuid::Uuid::new_v4().as_bytes()),
            Body::CurrentTimestamp => timestamp_from_millis(now_millis),
            Body::CurrentDate => day_of(now_millis),
            Body::CurrentTime => {
                Value::Time(context.now.0.rem_euclid(MILLIS_PER_DAY * 1000) * 1000)
            }
            Body::ToTimestamp => timestamp_from_millis(self.millis(first)?),
            Body::ToDate => day_of(self.millis(first)?),
            Body::ToUnixTimestamp => Value::Int(self.millis(first)?),
            Body::TimeUuidBound { is_upper } => {
                Value::Uuid(timeuuid::bound(self.millis(first)?, is_upper))
            }
            Body::ToBlob => {
                let mut out = Vec::new();
                wire::encode(first, &self.arguments[0], &mut out);
                Value::Bytes(out)
            }
            Body::FromBlob => match first {
                Value::Bytes(bytes) => wire::decode(&self.result, bytes).map_err(|error| {
                    Error::invalid(format!(
                        "In call to function system.{}, value 0x{} is not a valid binary representation \
                         for type {}: {}",
                        self.name,
                        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
                        cql_name(&self.result),
                        error.message
                    ))
                })?,
                _ => Value::Null,
            },
        })
    }

    fn millis(&self, value: &Value) -> Result<i64, Error> {
        Ok(match value {
            Value::Uuid(uuid) => timeuuid::micros(uuid)
                .ok_or_else(|| {
                    Error::invalid(format!("function {} needs a version 1 UUID", self.name))
                })?
                .div_euclid(1000),
            Value::Timestamp { seconds, nanos } => millis_from_timestamp(*seconds, *nanos),
            Value::Date(days) => i64::from(*days) * MILLIS_PER_DAY,
            _ => {
                return Err(Error::invalid(format!(
                    "function {} cannot be called on this type",
                    self.name
                )));
            }
        })
    }
}

fn day_of(millis: i64) -> Value {
    Value::Date(millis.div_euclid(MILLIS_PER_DAY) as i32)
}
