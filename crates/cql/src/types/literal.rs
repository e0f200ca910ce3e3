//! Literals to values: which constants a type accepts, and how its text form is read.

use super::name::cql_name;
use super::number;
use super::wire::{check_duration, timestamp_from_millis};
use crate::error::Error;
use crate::grammar::ast::Constant;
use model::{Type, Value};
use std::net::IpAddr;

const SECONDS_PER_DAY: i64 = 86_400;

/// The value of a constant where a `kind` is wanted; `receiver` names the place in errors.
pub fn value(constant: &Constant, kind: &Type, receiver: &str) -> Result<Value, Error> {
    let mismatch = || {
        Error::invalid(format!(
            "Invalid {} constant ({}) for \"{receiver}\" of type {}",
            category(constant),
            show(constant),
            cql_name(kind)
        ))
    };
    match constant {
        Constant::Null => Ok(Value::Null),
        Constant::Boolean(value) if *kind == Type::Bool => Ok(Value::Bool(*value)),
        Constant::Blob(bytes) if matches!(kind, Type::Bytes { .. }) => {
            Ok(Value::Bytes(bytes.clone()))
        }
        Constant::Uuid(uuid) if *kind == Type::Uuid => Ok(Value::Uuid(*uuid)),
        Constant::Uuid(uuid) if *kind == Type::TimeUuid => {
            if uuid[6] >> 4 != 1 {
                return Err(Error::invalid("Invalid version for TimeUUID type."));
            }
            Ok(Value::Uuid(*uuid))
        }
        Constant::Duration {
            months,
            days,
            nanos,
        } if *kind == Type::Duration => {
            check_duration(*months, *days, *nanos)?;
            Ok(Value::Duration {
                months: *months,
                days: *days,
                nanos: *nanos,
            })
        }
        Constant::Integer(digits) => integer(digits, kind).ok_or_else(|| {
            if is_integer(kind) {
                Error::invalid(format!("Unable to make {} from '{digits}'", cql_name(kind)))
            } else {
                mismatch()
            }
        }),
        Constant::Float(digits) => float(digits, kind).ok_or_else(mismatch),
        Constant::Text(text) => match from_text(text, kind) {
            Some(result) => result,
            None => Err(mismatch()),
        },
        _ => Err(mismatch()),
    }
}

fn category(constant: &Constant) -> &'static str {
    match constant {
        Constant::Null => "NULL",
        Constant::Boolean(_) => "BOOLEAN",
        Constant::Integer(_) => "INTEGER",
        Constant::Float(_) => "FLOAT",
        Constant::Text(_) => "STRING",
        Constant::Uuid(_) => "UUID",
        Constant::Blob(_) => "HEX",
        Constant::Duration { .. } => "DURATION",
    }
}

fn show(constant: &Constant) -> String {
    match constant {
        Constant::Null => "null".into(),
        Constant::Boolean(value) => value.to_string(),
        Constant::Integer(text) | Constant::Float(text) => text.clone(),
        Constant::Text(text) => format!("'{text}'"),
        Constant::Uuid(uuid) => uuid::Uuid::from_bytes(*uuid).to_string(),
        Constant::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("0x{hex}")
        }
        Constant::Duration {
            months,
            days,
            nanos,
        } => format!("{months}mo{days}d{nanos}ns"),
    }
}

/// The type that a constant has where nothing says which (a selected literal).
pub fn natural_type(constant: &Constant) -> Option<Type> {
    Some(match constant {
        Constant::Null => return None,
        Constant::Boolean(_) => Type::Bool,
        Constant::Integer(digits) => {
            if digits.parse::<i32>().is_ok() {
                Type::Int
            } else if digits.parse::<i64>().is_ok() {
                Type::BigInt
            } else {
                Type::Varint
            }
        }
        Constant::Float(_) => Type::Float64,
        Constant::Text(_) => Type::text(),
        Constant::Uuid(_) => Type::Uuid,
        Constant::Blob(_) => Type::bytes(),
        Constant::Duration { .. } => Type::Duration,
    })
}

fn is_integer(kind: &Type) -> bool {
    matches!(
        kind,
        Type::TinyInt
            | Type::SmallInt
            | Type::Int
            | Type::BigInt
            | Type::Counter
            | Type::Varint
            | Type::Decimal
            | Type::Date
            | Type::Time
            | Type::TimestampMillis
    )
}

fn integer(digits: &str, kind: &Type) -> Option<Value> {
    Some(match kind {
        Type::TinyInt => Value::Int(digits.parse::<i8>().ok()?.into()),
        Type::SmallInt => Value::Int(digits.parse::<i16>().ok()?.into()),
        Type::Int => Value::Int(digits.parse::<i32>().ok()?.into()),
        Type::BigInt | Type::Counter => Value::Int(digits.parse().ok()?),
        Type::Varint => Value::Varint(number::varint_from_text(digits)?),
        Type::TimestampMillis | Type::TimestampNanos => timestamp_from_millis(digits.parse().ok()?),
        // As Cassandra has it: days since the epoch, shifted by 2^31.
        Type::Date => Value::Date((digits.parse::<u32>().ok()? ^ 0x8000_0000) as i32),
        Type::Time => {
            let nanos = digits.parse::<i64>().ok()?;
            if !(0..SECONDS_PER_DAY * 1_000_000_000).contains(&nanos) {
                return None;
            }
            Value::Time(nanos)
        }
        _ => return float(digits, kind),
    })
}

fn float(digits: &str, kind: &Type) -> Option<Value> {
    Some(match kind {
        Type::Float32 => Value::Float32(digits.parse().ok()?),
        Type::Float64 => Value::Float64(digits.parse().ok()?),
        Type::Decimal => {
            let (scale, unscaled) = number::decimal_from_text(digits)?;
            Value::Decimal { scale, unscaled }
        }
        _ => return None,
    })
}

/// `None` when the type takes no strings.
fn from_text(text: &str, kind: &Type) -> Option<Result<Value, Error>> {
    let parsed = match kind {
        Type::Text { .. } => Ok(Value::Text(text.to_owned())),
        Type::Ascii if text.is_ascii() => Ok(Value::Text(text.to_owned())),
        Type::Ascii => Err(Error::invalid(format!(
            "Invalid ASCII character in string literal: '{text}'"
        ))),
        Type::Inet => inet(text)
            .ok_or_else(|| Error::invalid(format!("Unable to make inet address from '{text}'"))),
        Type::Date => date(text).map(Value::Date).ok_or_else(|| {
            Error::invalid(format!(
                "Unable to coerce '{text}' to a formatted date (long)"
            ))
        }),
        Type::Time => time(text).map(Value::Time).ok_or_else(|| {
            Error::invalid(format!(
                "Unable to coerce '{text}' to a formatted time (long)"
            ))
        }),
        Type::TimestampMillis | Type::TimestampNanos => timestamp(text)
            .map(timestamp_from_millis)
            .ok_or_else(|| Error::invalid(format!("Unable to parse a date/time from '{text}'"))),
        _ => return None,
    };
    Some(parsed)
}

pub fn inet(text: &str) -> Option<Value> {
    Some(Value::Inet(inet_bytes(text.parse().ok()?)))
}

pub fn inet_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The reverse: year, month, day.
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let next = if month == 12 {
        days_from_civil(year + 1, 1, 1)
    } else {
        days_from_civil(year, month + 1, 1)
    };
    next - days_from_civil(year, month, 1)
}

/// Digits only: Rust's own parsing would let a sign through.
fn digits(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > 9 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn civil(text: &str) -> Option<i64> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = unsigned.splitn(3, '-');
    let year = sign * digits(parts.next()?)?;
    let month = digits(parts.next()?)?;
    let day = digits(parts.next()?)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    Some(days_from_civil(year, month, day))
}

fn date(text: &str) -> Option<i32> {
    if let Ok(shifted) = text.parse::<u32>() {
        return Some((shifted ^ 0x8000_0000) as i32);
    }
    i32::try_from(civil(text)?).ok()
}

/// `hh:mm[:ss[.fraction]]` as nanoseconds; a day has no leap seconds.
fn clock(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let hours = digits(parts.next()?)?;
    let minutes = digits(parts.next()?)?;
    let (seconds, fraction) = match parts.next() {
        Some(seconds) => seconds.split_once('.').unwrap_or((seconds, "0")),
        None => ("0", "0"),
    };
    let seconds = digits(seconds)?;
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 59 || fraction.len() > 9 {
        return None;
    }
    let nanos = digits(fraction)? * 10_i64.pow(9 - fraction.len() as u32);
    Some((hours * 3600 + minutes * 60 + seconds) * 1_000_000_000 + nanos)
}

fn time(text: &str) -> Option<i64> {
    if let Ok(nanos) = text.parse::<i64>() {
        return (0..SECONDS_PER_DAY * 1_000_000_000)
            .contains(&nanos)
            .then_some(nanos);
    }
    // Seconds must be there, unlike in a timestamp.
    if text.split(':').count() != 3 {
        return None;
    }
    clock(text)
}

/// Milliseconds since the epoch. A text without a zone is UTC.
pub fn timestamp(text: &str) -> Option<i64> {
    let text = text.trim();
    let is_number = text
        .strip_prefix('-')
        .unwrap_or(text)
        .bytes()
        .all(|byte| byte.is_ascii_digit());
    if is_number {
        return text.parse().ok();
    }
    let (text, offset_minutes) = zone(text)?;
    let (day, of_day) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], clock(&text[at + 1..])?),
        None => (text, 0),
    };
    let millis = civil(day)?
        .checked_mul(SECONDS_PER_DAY * 1000)?
        .checked_add(of_day / 1_000_000)?;
    millis.checked_sub(offset_minutes * 60_000)
}

/// Splits off a zone at the end and returns its offset in minutes.
fn zone(text: &str) -> Option<(&str, i64)> {
    for name in ["Z", "z", " UTC", " GMT", "UTC", "GMT"] {
        if let Some(rest) = text.strip_suffix(name) {
            return Some((rest.trim_end(), 0));
        }
    }
    // A sign behind the day is an offset's: the day itself has at most ten characters and a sign in front.
    let sign_at = text
        .rfind(['+', '-'])
        .filter(|&at| at >= 10 || (text[at..].starts_with('+') && at > 0));
    let Some(at) = sign_at else {
        return Some((text, 0));
    };
    let (rest, offset) = text.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let compact: String = offset[1..].chars().filter(|next| *next != ':').collect();
    let minutes = match compact.len() {
        2 => digits(&compact)? * 60,
        4 => digits(&compact[..2])? * 60 + digits(&compact[2..])?,
        _ => return None,
    };
    Some((rest.trim_end(), sign * minutes))
}

/// A value's text, as `CAST(… AS text)` gives it; `None` for types that it does not know.
pub fn to_text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Varint(bytes) => number::varint_to_text(bytes),
        Value::Float32(value) => format!("{value:?}"),
        Value::Float64(value) => format!("{value:?}"),
        Value::Decimal { scale, unscaled } => number::decimal_to_text(*scale, unscaled),
        Value::Text(text) | Value::Json(text) => text.clone(),
        Value::Uuid(uuid) => uuid::Uuid::from_bytes(*uuid).to_string(),
        Value::Inet(bytes) => match bytes.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(&bytes[..]).ok()?).to_string(),
            _ => IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?).to_string(),
        },
        Value::Date(days) => show_day(i64::from(*days)),
        Value::Time(nanos) => show_clock(*nanos, 9),
        Value::Timestamp { seconds, nanos } => {
            let of_day = seconds.rem_euclid(SECONDS_PER_DAY) * 1_000_000_000 + i64::from(*nanos);
            let day = show_day(seconds.div_euclid(SECONDS_PER_DAY));
            format!("{day}T{}Z", show_clock(of_day, 3))
        }
        _ => return None,
    })
}

fn show_day(days: i64) -> String {
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

fn show_clock(nanos: i64, places: u32) -> String {
    let seconds = nanos / 1_000_000_000;
    let fraction = nanos % 1_000_000_000 / 10_i64.pow(9 - places);
    format!(
        "{:02}:{:02}:{:02}.{fraction:0width$}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        width = places as usize
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_go_there_and_back() {
        for days in (-800_000..800_000).step_by(37) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month.into(), day.into()), days);
        }
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        assert_eq!(civil("2000-02-29"), Some(11_016));
        assert_eq!(civil("1900-02-29"), None);
    }

    #[test]
    fn timestamps() {
        let cases = [
            ("1970-01-01", 0),
            ("1970-01-01 00:00", 0),
            ("1970-01-01T01:00:00.5+0100", 500),
            ("1970-01-01 01:00:00+01:00", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2013-06-01 12:34:56.789 UTC", 1_370_090_096_789),
            ("1370090096789", 1_370_090_096_789),
            ("-5", -5),
        ];
        for (text, millis) in cases {
            assert_eq!(timestamp(text), Some(millis), "{text}");
        }
        for text in [
            "",
            "x",
            "2013-13-01",
            "2013-06-01 25:00",
            "2013-06-01T12:00+1",
        ] {
            assert!(timestamp(text).is_none() || text.is_empty(), "{text}");
        }
    }

    #[test]
    fn wrong_constants_say_what_and_where() {
        let error = value(&Constant::Text("abc".into()), &Type::Int, "v").unwrap_err();
        assert_eq!(
            error.message,
            "Invalid STRING constant ('abc') for \"v\" of type int"
        );
        let error = value(&Constant::Integer("3000000000".into()), &Type::Int, "v").unwrap_err();
        assert_eq!(error.message, "Unable to make int from '3000000000'");
    }
}
