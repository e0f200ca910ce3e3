//! What GoogleSQL does with values: equality, order, text forms and casts. Null handling is the caller's,
//! except where said.

use crate::error::Error;
use crate::types::SqlType;
use base64::Engine;
use jiff::civil;
use jiff::tz::TimeZone;
use model::{Number, Value};
use std::cmp::Ordering;

/// Days since 1970-01-01 of 0001-01-01 and 9999-12-31.
pub const DATE_MIN: i32 = -719_162;
pub const DATE_MAX: i32 = 2_932_896;
/// Seconds of 0001-01-01 00:00:00 and of 9999-12-31 23:59:59 UTC.
pub const SECONDS_MIN: i64 = -62_135_596_800;
pub const SECONDS_MAX: i64 = 253_402_300_799;

/// The zone of casts and functions that name none: Spanner's default.
pub const DEFAULT_TIME_ZONE: &str = "America/Los_Angeles";

/// The total order of ORDER BY and of keys, on two values of one type: NULL first, then NaN, and numbers by
/// value.
pub fn order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Int(left), Value::Int(right)) => left.cmp(right),
        (Value::Float32(left), Value::Float32(right)) => {
            float_order(f64::from(*left), f64::from(*right))
        }
        (Value::Float64(left), Value::Float64(right)) => float_order(*left, *right),
        (Value::Number(left), Value::Number(right)) => left.cmp(right),
        (Value::Text(left), Value::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
        (Value::Bytes(left), Value::Bytes(right)) => left.cmp(right),
        (Value::Uuid(left), Value::Uuid(right)) => left.cmp(right),
        (Value::Date(left), Value::Date(right)) => left.cmp(right),
        (
            Value::Timestamp { seconds, nanos },
            Value::Timestamp {
                seconds: other_seconds,
                nanos: other_nanos,
            },
        ) => (seconds, nanos).cmp(&(other_seconds, other_nanos)),
        (Value::Json(left), Value::Json(right)) => left.cmp(right),
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => left
            .iter()
            .zip(right)
            .map(|(left, right)| order(left, right))
            .find(|ordering| ordering.is_ne())
            .unwrap_or_else(|| left.len().cmp(&right.len())),
        // The analyser gives both sides one type; anything else has no order, and any fixed one will do.
        _ => rank(left).cmp(&rank(right)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Int(_) => 2,
        Value::Float32(_) | Value::Float64(_) => 3,
        Value::Number(_) => 4,
        Value::Text(_) => 5,
        Value::Bytes(_) => 6,
        _ => 7,
    }
}

fn float_order(left: f64, right: f64) -> Ordering {
    match (left.is_nan(), right.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => left.partial_cmp(&right).unwrap_or(Ordering::Equal),
    }
}

/// What a comparison operator sees: `None` when either side is NULL or NaN.
pub fn compare(left: &Value, right: &Value) -> Compared {
    match (left, right) {
        (Value::Null, _) | (_, Value::Null) => Compared::Unknown,
        (Value::Float64(left), Value::Float64(right)) => match left.partial_cmp(right) {
            Some(ordering) => Compared::As(ordering),
            None => Compared::NotANumber,
        },
        (Value::Float32(left), Value::Float32(right)) => match left.partial_cmp(right) {
            Some(ordering) => Compared::As(ordering),
            None => Compared::NotANumber,
        },
        (Value::Tuple(left), Value::Tuple(right)) | (Value::List(left), Value::List(right)) => {
            compare_each(left, right)
        }
        _ => Compared::As(order(left, right)),
    }
}

/// Equality of arrays and structs: false as soon as a pair differs, unknown if a pair has a NULL.
fn compare_each(left: &[Value], right: &[Value]) -> Compared {
    if left.len() != right.len() {
        return Compared::As(left.len().cmp(&right.len()));
    }
    let mut unknown = false;
    for (left, right) in left.iter().zip(right) {
        match compare(left, right) {
            Compared::As(Ordering::Equal) => {}
            Compared::Unknown => unknown = true,
            other => return other,
        }
    }
    match unknown {
        true => Compared::Unknown,
        false => Compared::As(Ordering::Equal),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    As(Ordering),
    /// A NULL on either side.
    Unknown,
    /// Not equal, and neither less nor greater.
    NotANumber,
}

// ---- text forms ----

pub fn date_text(days: i32) -> String {
    match civil_date(days) {
        Some(date) => format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day()),
        None => String::new(),
    }
}

/// Days since the epoch as a calendar date, within GoogleSQL's range.
pub fn civil_date(days: i32) -> Option<civil::Date> {
    if !(DATE_MIN..=DATE_MAX).contains(&days) {
        return None;
    }
    civil::date(1970, 1, 1)
        .checked_add(jiff::Span::new().days(days))
        .ok()
}

pub fn days_of(date: civil::Date) -> i32 {
    let epoch = civil::date(1970, 1, 1);
    // Both lie within jiff's range, so the span exists; 32 bits hold any number of days between them.
    epoch.until(date).map_or(0, |span| span.get_days())
}

pub fn parse_date(text: &str) -> Option<i32> {
    let mut parts = text.trim().splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = |text: &str, max: usize| {
        (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !(digits(year, 4) && year.len() == 4 && digits(month, 2) && digits(day, 2)) {
        return None;
    }
    let date = civil::Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()?;
    Some(days_of(date)).filter(|days| (DATE_MIN..=DATE_MAX).contains(days))
}

pub fn zone(name: &str) -> Result<TimeZone, Error> {
    if let Some(offset) = offset_seconds(name) {
        let offset = jiff::tz::Offset::from_seconds(offset)
            .map_err(|_| Error::out_of_range(format!("Invalid time zone: {name}")))?;
        return Ok(TimeZone::fixed(offset));
    }
    if name.eq_ignore_ascii_case("UTC") || name.eq_ignore_ascii_case("Z") {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| Error::out_of_range(format!("Invalid time zone: {name}")))
}

/// `+8`, `-08:30`, `+0800`.
fn offset_seconds(text: &str) -> Option<i32> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    if rest.is_empty()
        || !rest
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b':')
    {
        return None;
    }
    let (hours, minutes) = match rest.split_once(':') {
        Some((hours, minutes)) => (hours.parse::<i32>().ok()?, minutes.parse::<i32>().ok()?),
        None if rest.len() > 2 => {
            let split = rest.len() - 2;
            (rest[..split].parse().ok()?, rest[split..].parse().ok()?)
        }
        None => (rest.parse().ok()?, 0),
    };
    (hours <= 14 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

pub fn instant(seconds: i64, nanos: u32) -> Result<jiff::Timestamp, Error> {
    jiff::Timestamp::new(seconds, nanos as i32)
        .map_err(|_| Error::out_of_range("Timestamp is out of supported range"))
}

pub fn timestamp(instant: jiff::Timestamp) -> Result<Value, Error> {
    let nanoseconds = instant.as_nanosecond();
    timestamp_of_nanos(nanoseconds)
}

pub fn timestamp_of_nanos(nanoseconds: i128) -> Result<Value, Error> {
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    match i64::try_from(seconds) {
        Ok(seconds) if (SECONDS_MIN..=SECONDS_MAX).contains(&seconds) => Ok(Value::Timestamp {
            seconds,
            nanos: nanoseconds.rem_euclid(1_000_000_000) as u32,
        }),
        _ => Err(Error::out_of_range("Timestamp is out of supported range")),
    }
}

/// RFC 3339 in UTC with as few digits as the fraction needs, in groups of three: how Spanner answers.
pub fn timestamp_wire_text(seconds: i64, nanos: u32) -> String {
    let Ok(instant) = instant(seconds, nanos) else {
        return String::new();
    };
    let civil = TimeZone::UTC.to_datetime(instant);
    format!("{}{}Z", civil_text(civil, 'T'), fraction(nanos))
}

fn civil_text(civil: civil::DateTime, separator: char) -> String {
    format!(
        "{:04}-{:02}-{:02}{separator}{:02}:{:02}:{:02}",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second()
    )
}

fn fraction(nanos: u32) -> String {
    if nanos == 0 {
        String::new()
    } else if nanos.is_multiple_of(1_000_000) {
        format!(".{:03}", nanos / 1_000_000)
    } else if nanos.is_multiple_of(1_000) {
        format!(".{:06}", nanos / 1_000)
    } else {
        format!(".{nanos:09}")
    }
}

/// What CAST(timestamp AS STRING) gives: civil time and offset in a zone.
pub fn timestamp_text(seconds: i64, nanos: u32, zone: &TimeZone) -> Result<String, Error> {
    let instant = instant(seconds, nanos)?;
    let civil = zone.to_datetime(instant);
    let offset = zone.to_offset(instant).seconds();
    let (hours, minutes) = (offset.abs() / 3600, offset.abs() % 3600 / 60);
    let sign = if offset < 0 { '-' } else { '+' };
    let minutes = match minutes {
        0 => String::new(),
        minutes => format!(":{minutes:02}"),
    };
    Ok(format!(
        "{}{}{sign}{hours:02}{minutes}",
        civil_text(civil, ' '),
        fraction(nanos)
    ))
}

/// Reads `YYYY-MM-DD[( |T)HH:MM:SS[.fffffffff]][ ][zone]`.
pub fn parse_timestamp(text: &str, default_zone: &str) -> Result<Value, Error> {
    let invalid = || Error::out_of_range(format!("Invalid timestamp: '{text}'"));
    let trimmed = text.trim();
    let date_end = trimmed
        .char_indices()
        .find(|(at, character)| !(character.is_ascii_digit() || (*character == '-' && *at < 8)))
        .map_or(trimmed.len(), |(at, _)| at);
    let days = parse_date(&trimmed[..date_end]).ok_or_else(invalid)?;
    let mut rest = &trimmed[date_end..];
    let (mut time, mut nanos) = ((0, 0, 0), 0u32);
    let follows_time = rest.starts_with(['T', 't', ' '])
        && rest[1..]
            .trim_start()
            .starts_with(|c: char| c.is_ascii_digit());
    if follows_time {
        rest = rest[1..].trim_start();
        let end = rest
            .find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.'))
            .unwrap_or(rest.len());
        (time, nanos) = parse_time(&rest[..end]).ok_or_else(invalid)?;
        rest = &rest[end..];
    }
    let zone_name = match rest.trim() {
        "" => default_zone,
        name => name,
    };
    let date = civil_date(days).ok_or_else(invalid)?;
    let civil =
        date.to_datetime(civil::Time::new(time.0, time.1, time.2, 0).map_err(|_| invalid())?);
    let instant = zone(zone_name)
        .map_err(|_| invalid())?
        .to_timestamp(civil)
        .map_err(|_| invalid())?;
    timestamp_of_nanos(instant.as_nanosecond() + i128::from(nanos))
}

fn parse_time(text: &str) -> Option<((i8, i8, i8), u32)> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, fraction),
        None => (text, ""),
    };
    let mut parts = clock.split(':');
    let mut part = || -> Option<i8> {
        let text = parts.next()?;
        (1..=2).contains(&text.len()).then(|| text.parse().ok())?
    };
    let time = (part()?, part()?, part().unwrap_or(0));
    if parts.next().is_some() || fraction.len() > 9 {
        return None;
    }
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some((time, nanos))
}

pub fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text
        .trim()
        .trim_start_matches('{')
        .trim_end_matches('}')
        .bytes()
        .filter(|byte| *byte != b'-')
        .collect();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// GoogleSQL's text of a double: the shortest that reads back.
pub fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let magnitude = value.abs();
    if value == 0.0 || (1e-5..1e15).contains(&magnitude) {
        return format!("{value}");
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

pub fn parse_float(text: &str) -> Option<f64> {
    let trimmed = text.trim();
    match trimmed.to_ascii_lowercase().as_str() {
        "inf" | "+inf" | "infinity" | "+infinity" => return Some(f64::INFINITY),
        "-inf" | "-infinity" => return Some(f64::NEG_INFINITY),
        "nan" => return Some(f64::NAN),
        _ => {}
    }
    let is_number = trimmed
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'+' | b'-' | b'e' | b'E'));
    let value: f64 = if is_number {
        trimmed.parse().ok()?
    } else {
        return None;
    };
    value.is_finite().then_some(value)
}

pub fn parse_integer(text: &str) -> Option<i64> {
    let trimmed = text.trim();
    let (negative, digits) = match trimmed.as_bytes().first()? {
        b'-' => (true, &trimmed[1..]),
        b'+' => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    let magnitude = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(hex) => {
            if hex.starts_with('+') {
                return None;
            }
            i128::from(u64::from_str_radix(hex, 16).ok()?)
        }
        None if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<i128>().ok()?,
        None => return None,
    };
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

// ---- casts ----

/// CAST, without NULLs and within one instant's zone. `kind` is the value's type.
pub fn cast(value: &Value, kind: &SqlType, to: &SqlType) -> Result<Value, Error> {
    if value.is_null() || kind == to {
        return Ok(value.clone());
    }
    let bad = |text: &str| {
        Error::out_of_range(format!(
            "Bad {} value: {text}",
            to.to_string().to_lowercase()
        ))
    };
    Ok(match (value, to) {
        (Value::Bool(value), SqlType::String) => Value::Text(value.to_string()),
        (Value::Bool(value), SqlType::Int64) => Value::Int(i64::from(*value)),
        (Value::Int(value), SqlType::Bool) => Value::Bool(*value != 0),
        (Value::Int(value), SqlType::String) => Value::Text(value.to_string()),
        (Value::Int(value), SqlType::Float64) => Value::Float64(*value as f64),
        (Value::Int(value), SqlType::Float32) => Value::Float32(*value as f32),
        (Value::Int(value), SqlType::Numeric) => Value::Number(Number::from(*value)),
        (Value::Float32(_) | Value::Float64(_), _) => return cast_float(value, to),
        (Value::Number(number), _) => return cast_numeric(*number, to),
        (Value::Text(text), _) => return cast_text(text, to, bad),
        (Value::Bytes(bytes), SqlType::String) => match String::from_utf8(bytes.clone()) {
            Ok(text) => Value::Text(text),
            Err(_) => {
                return Err(Error::out_of_range("Invalid cast of bytes to UTF8 string"));
            }
        },
        (Value::Bytes(bytes), SqlType::Uuid) => match <[u8; 16]>::try_from(bytes.as_slice()) {
            Ok(bytes) => Value::Uuid(bytes),
            Err(_) => return Err(bad("bytes of another length than 16")),
        },
        (Value::Date(days), SqlType::String) => Value::Text(date_text(*days)),
        (Value::Date(days), SqlType::Timestamp) => {
            parse_timestamp(&date_text(*days), DEFAULT_TIME_ZONE)?
        }
        (Value::Timestamp { seconds, nanos }, SqlType::String) => {
            Value::Text(timestamp_text(*seconds, *nanos, &zone(DEFAULT_TIME_ZONE)?)?)
        }
        (Value::Timestamp { seconds, nanos }, SqlType::Date) => Value::Date(days_of(
            zone(DEFAULT_TIME_ZONE)?
                .to_datetime(instant(*seconds, *nanos)?)
                .date(),
        )),
        (Value::Uuid(bytes), SqlType::String) => Value::Text(uuid_text(bytes)),
        (Value::Uuid(bytes), SqlType::Bytes) => Value::Bytes(bytes.to_vec()),
        (Value::Tuple(values), SqlType::Struct(fields)) => {
            let SqlType::Struct(own) = kind else {
                return Err(cannot_cast(kind, to));
            };
            let values = values.iter().zip(own).zip(fields);
            Value::Tuple(
                values
                    .map(|((value, (_, from)), (_, to))| cast(value, from, to))
                    .collect::<Result<_, _>>()?,
            )
        }
        (Value::List(values), SqlType::Array(element)) => {
            let SqlType::Array(own) = kind else {
                return Err(cannot_cast(kind, to));
            };
            let values = values.iter().map(|value| cast(value, own, element));
            Value::List(values.collect::<Result<_, _>>()?)
        }
        _ => return Err(cannot_cast(kind, to)),
    })
}

pub fn cannot_cast(kind: &SqlType, to: &SqlType) -> Error {
    Error::invalid(format!("Invalid cast from {kind} to {to}"))
}

/// Whether CAST between the types exists at all.
pub fn can_cast(from: &SqlType, to: &SqlType) -> bool {
    use SqlType as T;
    if from == to {
        return true;
    }
    match (from, to) {
        (T::Bool, T::String | T::Int64) | (T::Int64, T::Bool) => true,
        (from, to) if from.is_numeric() && (to.is_numeric() || *to == T::String) => true,
        (T::String, to) => !matches!(to, T::Array(_) | T::Struct(_) | T::Json),
        (T::Bytes, T::String | T::Uuid) | (T::Uuid, T::String | T::Bytes) => true,
        (T::Date, T::String | T::Timestamp) | (T::Timestamp, T::String | T::Date) => true,
        (T::Array(from), T::Array(to)) => can_cast(from, to),
        (T::Struct(from), T::Struct(to)) => {
            from.len() == to.len()
                && from
                    .iter()
                    .zip(to)
                    .all(|((_, from), (_, to))| can_cast(from, to))
        }
        _ => false,
    }
}

fn cast_float(value: &Value, to: &SqlType) -> Result<Value, Error> {
    let float = match value {
        Value::Float32(value) => f64::from(*value),
        Value::Float64(value) => *value,
        _ => return Err(Error::invalid("not a floating point value")),
    };
    Ok(match to {
        SqlType::String => Value::Text(match value {
            Value::Float32(value) if value.is_finite() => format!("{value}"),
            _ => float_text(float),
        }),
        SqlType::Float64 => Value::Float64(float),
        SqlType::Float32 => {
            let narrow = float as f32;
            if float.is_finite() && narrow.is_infinite() {
                return Err(Error::out_of_range(format!(
                    "float32 overflow: {}",
                    float_text(float)
                )));
            }
            Value::Float32(narrow)
        }
        SqlType::Int64 => {
            let rounded = float.round();
            if !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded) {
                return Err(Error::out_of_range(format!(
                    "int64 out of range: {}",
                    float_text(float)
                )));
            }
            Value::Int(rounded as i64)
        }
        SqlType::Numeric => {
            let number = Number::parse_numeric(&format!("{float}"));
            Value::Number(number.map_err(|_| {
                Error::out_of_range(format!("numeric out of range: {}", float_text(float)))
            })?)
        }
        _ => return Err(Error::invalid(format!("Invalid cast to {to}"))),
    })
}

fn cast_numeric(number: Number, to: &SqlType) -> Result<Value, Error> {
    Ok(match to {
        SqlType::String => Value::Text(numeric_text(number)),
        SqlType::Float64 => Value::Float64(number.to_f64()),
        SqlType::Float32 => Value::Float32(number.to_f64() as f32),
        SqlType::Int64 => {
            let units = number.numeric_units().unwrap_or(i128::MAX);
            let half = if units < 0 { -500_000_000 } else { 500_000_000 };
            let rounded = units.saturating_add(half) / 1_000_000_000;
            Value::Int(i64::try_from(rounded).map_err(|_| {
                Error::out_of_range(format!("int64 out of range: {}", numeric_text(number)))
            })?)
        }
        _ => return Err(cannot_cast(&SqlType::Numeric, to)),
    })
}

/// A NUMERIC in plain digits.
pub fn numeric_text(number: Number) -> String {
    let Some(units) = number.numeric_units() else {
        return number.to_string();
    };
    let magnitude = units.unsigned_abs();
    let (whole, rest) = (magnitude / 1_000_000_000, magnitude % 1_000_000_000);
    let sign = if units < 0 { "-" } else { "" };
    let fraction = format!("{rest:09}");
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{fraction}"),
    }
}

fn cast_text(text: &str, to: &SqlType, bad: impl Fn(&str) -> Error) -> Result<Value, Error> {
    Ok(match to {
        SqlType::Bool => match text.trim().to_ascii_lowercase().as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => return Err(bad(text)),
        },
        SqlType::Int64 => Value::Int(parse_integer(text).ok_or_else(|| bad(text))?),
        SqlType::Float64 => Value::Float64(parse_float(text).ok_or_else(|| bad(text))?),
        SqlType::Float32 => {
            let wide = parse_float(text).ok_or_else(|| bad(text))?;
            return cast_float(&Value::Float64(wide), to);
        }
        SqlType::Numeric => Value::Number(
            Number::parse_numeric(text.trim())
                .map_err(|_| Error::out_of_range(format!("Invalid NUMERIC value: {text}")))?,
        ),
        SqlType::Bytes => Value::Bytes(text.as_bytes().to_vec()),
        SqlType::Date => Value::Date(
            parse_date(text)
                .ok_or_else(|| Error::out_of_range(format!("Invalid date: '{text}'")))?,
        ),
        SqlType::Timestamp => parse_timestamp(text, DEFAULT_TIME_ZONE)?,
        SqlType::Uuid => Value::Uuid(
            parse_uuid(text)
                .ok_or_else(|| Error::out_of_range(format!("Invalid UUID: '{text}'")))?,
        ),
        _ => return Err(cannot_cast(&SqlType::String, to)),
    })
}

pub fn base64_text(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Standard and URL-safe alphabets, padded or not: clients differ.
pub fn parse_base64(text: &str) -> Option<Vec<u8>> {
    let cleaned: String = text
        .chars()
        .filter(|character| *character != '=')
        .map(|character| match character {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(cleaned)
        .ok()
}

/// Bytes that a value holds in memory, roughly: what the executor's limits count.
pub fn size_bytes(value: &Value) -> usize {
    let inner = match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(values) | Value::Tuple(values) => values.iter().map(size_bytes).sum(),
        _ => 0,
    };
    inner + std::mem::size_of::<Value>()
}

/// A JSON document in one form: no blanks, names in order. `None` when it is none.
pub fn normal_json(text: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(value.to_string())
}
