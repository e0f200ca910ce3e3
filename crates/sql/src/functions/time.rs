//! Dates and instants.

use super::{Body, Function, mismatch};
use crate::error::Error;
use crate::types::SqlType;
use crate::value::{
    DATE_MAX, DATE_MIN, DEFAULT_TIME_ZONE, civil_date, date_text, days_of, instant,
    parse_timestamp, timestamp_of_nanos, timestamp_text, zone,
};
use jiff::civil;
use model::Value;

type Result<T> = std::result::Result<T, Error>;

const NANOS: i128 = 1_000_000_000;

fn date_value(days: i64) -> Result<Value> {
    match i32::try_from(days) {
        Ok(days) if (DATE_MIN..=DATE_MAX).contains(&days) => Ok(Value::Date(days)),
        _ => Err(Error::out_of_range("Date is out of supported range")),
    }
}

pub fn date_plus(values: &[Value]) -> Result<Value> {
    match values {
        [Value::Date(days), Value::Int(more)] => date_value(i64::from(*days).saturating_add(*more)),
        _ => Err(mismatch("+")),
    }
}

pub fn plus_date(values: &[Value]) -> Result<Value> {
    match values {
        [Value::Int(more), Value::Date(days)] => date_value(i64::from(*days).saturating_add(*more)),
        _ => Err(mismatch("+")),
    }
}

pub fn date_minus(values: &[Value]) -> Result<Value> {
    match values {
        [Value::Date(days), Value::Int(less)] => date_value(i64::from(*days).saturating_sub(*less)),
        _ => Err(mismatch("-")),
    }
}

fn zone_name(values: &[Value]) -> &str {
    match values.get(1) {
        Some(Value::Text(name)) => name,
        _ => DEFAULT_TIME_ZONE,
    }
}

pub fn date_of_parts(values: &[Value]) -> Result<Value> {
    let [Value::Int(year), Value::Int(month), Value::Int(day)] = values else {
        return Err(mismatch("DATE"));
    };
    let invalid = || Error::out_of_range(format!("Invalid date: {year}-{month}-{day}"));
    let date = (|| {
        let (year, month, day) = (
            i16::try_from(*year).ok()?,
            i8::try_from(*month).ok()?,
            i8::try_from(*day).ok()?,
        );
        civil::Date::new(year, month, day).ok()
    })()
    .ok_or_else(invalid)?;
    date_value(i64::from(days_of(date)))
}

pub fn date_of_timestamp(values: &[Value]) -> Result<Value> {
    match values.first() {
        Some(Value::Timestamp { seconds, nanos }) => {
            let civil = zone(zone_name(values))?.to_datetime(instant(*seconds, *nanos)?);
            Ok(Value::Date(days_of(civil.date())))
        }
        _ => Err(mismatch("DATE")),
    }
}

pub fn timestamp_of_text(values: &[Value]) -> Result<Value> {
    match values.first() {
        Some(Value::Text(text)) => parse_timestamp(text, zone_name(values)),
        _ => Err(mismatch("TIMESTAMP")),
    }
}

pub fn timestamp_of_date(values: &[Value]) -> Result<Value> {
    match values.first() {
        Some(Value::Date(days)) => parse_timestamp(&date_text(*days), zone_name(values)),
        _ => Err(mismatch("TIMESTAMP")),
    }
}

pub fn text_of_timestamp(values: &[Value]) -> Result<Value> {
    match values.first() {
        Some(Value::Timestamp { seconds, nanos }) => {
            timestamp_text(*seconds, *nanos, &zone(zone_name(values))?).map(Value::Text)
        }
        _ => Err(mismatch("STRING")),
    }
}

fn nanos_of(value: &Value) -> Option<i128> {
    match value {
        Value::Timestamp { seconds, nanos } => {
            Some(i128::from(*seconds) * NANOS + i128::from(*nanos))
        }
        _ => None,
    }
}

fn unix(values: &[Value], unit: i128) -> Result<Value> {
    let nanos = values
        .first()
        .and_then(nanos_of)
        .ok_or_else(|| mismatch("UNIX_SECONDS"))?;
    Ok(Value::Int(nanos.div_euclid(unit) as i64))
}

pub fn unix_seconds(values: &[Value]) -> Result<Value> {
    unix(values, NANOS)
}

pub fn unix_millis(values: &[Value]) -> Result<Value> {
    unix(values, NANOS / 1_000)
}

pub fn unix_micros(values: &[Value]) -> Result<Value> {
    unix(values, NANOS / 1_000_000)
}

pub fn unix_date(values: &[Value]) -> Result<Value> {
    match values {
        [Value::Date(days)] => Ok(Value::Int(i64::from(*days))),
        _ => Err(mismatch("UNIX_DATE")),
    }
}

fn of_unix(values: &[Value], unit: i128) -> Result<Value> {
    match values {
        [Value::Int(count)] => timestamp_of_nanos(i128::from(*count) * unit),
        _ => Err(mismatch("TIMESTAMP_SECONDS")),
    }
}

pub fn timestamp_seconds(values: &[Value]) -> Result<Value> {
    of_unix(values, NANOS)
}

pub fn timestamp_millis(values: &[Value]) -> Result<Value> {
    of_unix(values, NANOS / 1_000)
}

pub fn timestamp_micros(values: &[Value]) -> Result<Value> {
    of_unix(values, NANOS / 1_000_000)
}

pub fn date_from_unix(values: &[Value]) -> Result<Value> {
    match values {
        [Value::Int(days)] => date_value(*days),
        _ => Err(mismatch("DATE_FROM_UNIX_DATE")),
    }
}

// ---- parts ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatePart {
    Nanosecond,
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    DayOfWeek,
    DayOfYear,
    Week,
    IsoWeek,
    Month,
    Quarter,
    Year,
    IsoYear,
    Date,
}

impl DatePart {
    pub fn parse(name: &str) -> Option<DatePart> {
        Some(match name.to_ascii_uppercase().as_str() {
            "NANOSECOND" => DatePart::Nanosecond,
            "MICROSECOND" => DatePart::Microsecond,
            "MILLISECOND" => DatePart::Millisecond,
            "SECOND" => DatePart::Second,
            "MINUTE" => DatePart::Minute,
            "HOUR" => DatePart::Hour,
            "DAY" => DatePart::Day,
            "DAYOFWEEK" => DatePart::DayOfWeek,
            "DAYOFYEAR" => DatePart::DayOfYear,
            "WEEK" => DatePart::Week,
            "ISOWEEK" => DatePart::IsoWeek,
            "MONTH" => DatePart::Month,
            "QUARTER" => DatePart::Quarter,
            "YEAR" => DatePart::Year,
            "ISOYEAR" => DatePart::IsoYear,
            "DATE" => DatePart::Date,
            _ => return None,
        })
    }

    /// Nanoseconds, for the parts of fixed length.
    fn nanos(self) -> Option<i128> {
        Some(match self {
            DatePart::Nanosecond => 1,
            DatePart::Microsecond => 1_000,
            DatePart::Millisecond => 1_000_000,
            DatePart::Second => NANOS,
            DatePart::Minute => 60 * NANOS,
            DatePart::Hour => 3_600 * NANOS,
            DatePart::Day => 86_400 * NANOS,
            _ => return None,
        })
    }
}

/// EXTRACT: one part of a date or of an instant in a zone.
pub fn extract(part: DatePart, value: &Value, zone_name: &str) -> Result<Value> {
    let (civil, nanos) = match value {
        Value::Null => return Ok(Value::Null),
        Value::Date(days) => {
            let date = civil_date(*days).ok_or_else(|| mismatch("EXTRACT"))?;
            (date.to_datetime(civil::Time::midnight()), 0)
        }
        Value::Timestamp { seconds, nanos } => {
            let civil = zone(zone_name)?.to_datetime(instant(*seconds, *nanos)?);
            (civil, *nanos)
        }
        _ => return Err(mismatch("EXTRACT")),
    };
    let date = civil.date();
    let iso = date.iso_week_date();
    // Weeks begin on Sunday; days before the first Sunday are in week 0.
    let sunday_based = i64::from(date.weekday().to_sunday_zero_offset());
    let year_day = i64::from(date.day_of_year());
    Ok(Value::Int(match part {
        DatePart::Nanosecond => i64::from(nanos),
        DatePart::Microsecond => i64::from(nanos / 1_000),
        DatePart::Millisecond => i64::from(nanos / 1_000_000),
        DatePart::Second => i64::from(civil.second()),
        DatePart::Minute => i64::from(civil.minute()),
        DatePart::Hour => i64::from(civil.hour()),
        DatePart::Day => i64::from(civil.day()),
        DatePart::DayOfWeek => sunday_based + 1,
        DatePart::DayOfYear => year_day,
        DatePart::Week => (year_day - 1 + 7 - sunday_based) / 7,
        DatePart::IsoWeek => i64::from(iso.week()),
        DatePart::Month => i64::from(civil.month()),
        DatePart::Quarter => (i64::from(civil.month()) + 2) / 3,
        DatePart::Year => i64::from(civil.year()),
        DatePart::IsoYear => i64::from(iso.year()),
        DatePart::Date => return Ok(Value::Date(days_of(date))),
    }))
}

// ---- DATE_ADD and its kin: the part is fixed in analysis ----

/// The function for `name(…, INTERVAL n part)` or `name(a, b, part)`, with its parameters and result. The
/// arguments are what the text has, less the part.
pub fn interval_function(name: &str, part: DatePart) -> Option<(Function, Vec<SqlType>, SqlType)> {
    use SqlType::{Date, Int64, Timestamp};
    let (label, body): (&'static str, Body) = match (name, part) {
        ("TIMESTAMP_ADD", DatePart::Nanosecond) => {
            ("TIMESTAMP_ADD NANOSECOND", |v| add_nanos(v, 1))
        }
        ("TIMESTAMP_ADD", DatePart::Microsecond) => {
            ("TIMESTAMP_ADD MICROSECOND", |v| add_nanos(v, 1_000))
        }
        ("TIMESTAMP_ADD", DatePart::Millisecond) => {
            ("TIMESTAMP_ADD MILLISECOND", |v| add_nanos(v, 1_000_000))
        }
        ("TIMESTAMP_ADD", DatePart::Second) => ("TIMESTAMP_ADD SECOND", |v| add_nanos(v, NANOS)),
        ("TIMESTAMP_ADD", DatePart::Minute) => {
            ("TIMESTAMP_ADD MINUTE", |v| add_nanos(v, 60 * NANOS))
        }
        ("TIMESTAMP_ADD", DatePart::Hour) => {
            ("TIMESTAMP_ADD HOUR", |v| add_nanos(v, 3_600 * NANOS))
        }
        ("TIMESTAMP_ADD", DatePart::Day) => ("TIMESTAMP_ADD DAY", |v| add_nanos(v, 86_400 * NANOS)),
        ("TIMESTAMP_SUB", DatePart::Nanosecond) => {
            ("TIMESTAMP_SUB NANOSECOND", |v| add_nanos(v, -1))
        }
        ("TIMESTAMP_SUB", DatePart::Microsecond) => {
            ("TIMESTAMP_SUB MICROSECOND", |v| add_nanos(v, -1_000))
        }
        ("TIMESTAMP_SUB", DatePart::Millisecond) => {
            ("TIMESTAMP_SUB MILLISECOND", |v| add_nanos(v, -1_000_000))
        }
        ("TIMESTAMP_SUB", DatePart::Second) => ("TIMESTAMP_SUB SECOND", |v| add_nanos(v, -NANOS)),
        ("TIMESTAMP_SUB", DatePart::Minute) => {
            ("TIMESTAMP_SUB MINUTE", |v| add_nanos(v, -60 * NANOS))
        }
        ("TIMESTAMP_SUB", DatePart::Hour) => {
            ("TIMESTAMP_SUB HOUR", |v| add_nanos(v, -3_600 * NANOS))
        }
        ("TIMESTAMP_SUB", DatePart::Day) => {
            ("TIMESTAMP_SUB DAY", |v| add_nanos(v, -86_400 * NANOS))
        }
        ("TIMESTAMP_DIFF", part) => return difference(part),
        ("DATE_ADD", DatePart::Day) => ("DATE_ADD DAY", |v| add_days(v, 1)),
        ("DATE_ADD", DatePart::Week) => ("DATE_ADD WEEK", |v| add_days(v, 7)),
        ("DATE_ADD", DatePart::Month) => ("DATE_ADD MONTH", |v| add_months(v, 1)),
        ("DATE_ADD", DatePart::Quarter) => ("DATE_ADD QUARTER", |v| add_months(v, 3)),
        ("DATE_ADD", DatePart::Year) => ("DATE_ADD YEAR", |v| add_months(v, 12)),
        ("DATE_SUB", DatePart::Day) => ("DATE_SUB DAY", |v| add_days(v, -1)),
        ("DATE_SUB", DatePart::Week) => ("DATE_SUB WEEK", |v| add_days(v, -7)),
        ("DATE_SUB", DatePart::Month) => ("DATE_SUB MONTH", |v| add_months(v, -1)),
        ("DATE_SUB", DatePart::Quarter) => ("DATE_SUB QUARTER", |v| add_months(v, -3)),
        ("DATE_SUB", DatePart::Year) => ("DATE_SUB YEAR", |v| add_months(v, -12)),
        ("DATE_DIFF", DatePart::Day) => ("DATE_DIFF DAY", days_between),
        ("DATE_DIFF", DatePart::Month) => ("DATE_DIFF MONTH", |v| months_between(v, 1)),
        ("DATE_DIFF", DatePart::Quarter) => ("DATE_DIFF QUARTER", |v| months_between(v, 3)),
        ("DATE_DIFF", DatePart::Year) => ("DATE_DIFF YEAR", |v| months_between(v, 12)),
        _ => return None,
    };
    let function = Function {
        name: label,
        strict: true,
        body,
    };
    Some(match name {
        "TIMESTAMP_ADD" | "TIMESTAMP_SUB" => (function, vec![Timestamp, Int64], Timestamp),
        "DATE_DIFF" => (function, vec![Date, Date], Int64),
        _ => (function, vec![Date, Int64], Date),
    })
}

fn difference(part: DatePart) -> Option<(Function, Vec<SqlType>, SqlType)> {
    part.nanos()?;
    let (label, body): (&'static str, Body) = match part {
        DatePart::Nanosecond => ("TIMESTAMP_DIFF NANOSECOND", |v| nanos_between(v, 1)),
        DatePart::Microsecond => ("TIMESTAMP_DIFF MICROSECOND", |v| nanos_between(v, 1_000)),
        DatePart::Millisecond => ("TIMESTAMP_DIFF MILLISECOND", |v| {
            nanos_between(v, 1_000_000)
        }),
        DatePart::Second => ("TIMESTAMP_DIFF SECOND", |v| nanos_between(v, NANOS)),
        DatePart::Minute => ("TIMESTAMP_DIFF MINUTE", |v| nanos_between(v, 60 * NANOS)),
        DatePart::Hour => ("TIMESTAMP_DIFF HOUR", |v| nanos_between(v, 3_600 * NANOS)),
        _ => ("TIMESTAMP_DIFF DAY", |v| nanos_between(v, 86_400 * NANOS)),
    };
    let function = Function {
        name: label,
        strict: true,
        body,
    };
    let parameters = vec![SqlType::Timestamp, SqlType::Timestamp];
    Some((function, parameters, SqlType::Int64))
}

fn add_nanos(values: &[Value], unit: i128) -> Result<Value> {
    match values {
        [instant, Value::Int(count)] => {
            let nanos = nanos_of(instant).ok_or_else(|| mismatch("TIMESTAMP_ADD"))?;
            timestamp_of_nanos(nanos + i128::from(*count) * unit)
        }
        _ => Err(mismatch("TIMESTAMP_ADD")),
    }
}

fn nanos_between(values: &[Value], unit: i128) -> Result<Value> {
    let pair = match values {
        [left, right] => nanos_of(left).zip(nanos_of(right)),
        _ => None,
    };
    let (left, right) = pair.ok_or_else(|| mismatch("TIMESTAMP_DIFF"))?;
    i64::try_from((left - right) / unit)
        .map(Value::Int)
        .map_err(|_| Error::out_of_range("TIMESTAMP_DIFF overflows INT64"))
}

fn add_days(values: &[Value], unit: i64) -> Result<Value> {
    match values {
        [Value::Date(days), Value::Int(count)] => {
            date_value(i64::from(*days).saturating_add(count.saturating_mul(unit)))
        }
        _ => Err(mismatch("DATE_ADD")),
    }
}

fn add_months(values: &[Value], unit: i64) -> Result<Value> {
    let [Value::Date(days), Value::Int(count)] = values else {
        return Err(mismatch("DATE_ADD"));
    };
    let out = || Error::out_of_range("Date is out of supported range");
    let date = civil_date(*days).ok_or_else(out)?;
    let months = count
        .checked_mul(unit)
        .and_then(|months| {
            months.checked_add(i64::from(date.year()) * 12 + i64::from(date.month()) - 1)
        })
        .ok_or_else(out)?;
    let year = i16::try_from(months.div_euclid(12)).map_err(|_| out())?;
    let month = months.rem_euclid(12) as i8 + 1;
    let first = civil::Date::new(year, month, 1).map_err(|_| out())?;
    let day = date.day().min(first.days_in_month());
    let date = civil::Date::new(year, month, day).map_err(|_| out())?;
    date_value(i64::from(days_of(date)))
}

fn days_between(values: &[Value]) -> Result<Value> {
    match values {
        [Value::Date(left), Value::Date(right)] => {
            Ok(Value::Int(i64::from(*left) - i64::from(*right)))
        }
        _ => Err(mismatch("DATE_DIFF")),
    }
}

/// Boundaries of months (quarters, years) between two dates.
fn months_between(values: &[Value], unit: i64) -> Result<Value> {
    let [Value::Date(left), Value::Date(right)] = values else {
        return Err(mismatch("DATE_DIFF"));
    };
    let periods = |days: i32| {
        civil_date(days).map(|date| {
            (i64::from(date.year()) * 12 + i64::from(date.month()) - 1).div_euclid(unit)
        })
    };
    match periods(*left).zip(periods(*right)) {
        Some((left, right)) => Ok(Value::Int(left - right)),
        None => Err(Error::out_of_range("Date is out of supported range")),
    }
}
