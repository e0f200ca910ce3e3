//! Strings and bytes. Strings are counted in characters.

use super::mismatch;
use crate::error::Error;
use crate::value::{base64_text, parse_base64};
use model::Value;

type Result<T> = std::result::Result<T, Error>;

/// The longest string or byte string that a function makes.
const RESULT_BYTES_MAX: usize = 16 << 20;

fn bytes_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Text(text) => Some(text.as_bytes()),
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

fn texts<'a, const N: usize>(name: &str, values: &'a [Value]) -> Result<[&'a str; N]> {
    let texts: Option<Vec<&str>> = values
        .iter()
        .map(|value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    texts
        .and_then(|texts| texts.try_into().ok())
        .ok_or_else(|| mismatch(name))
}

/// Bytes in the form of `like`: text stays text.
fn same_form(like: &Value, bytes: Vec<u8>) -> Result<Value> {
    if bytes.len() > RESULT_BYTES_MAX {
        return Err(Error::out_of_range(format!(
            "the result is longer than {RESULT_BYTES_MAX} bytes"
        )));
    }
    Ok(match like {
        Value::Text(_) => Value::Text(
            String::from_utf8(bytes)
                .map_err(|_| Error::out_of_range("the result is not valid UTF-8"))?,
        ),
        _ => Value::Bytes(bytes),
    })
}

pub fn concat(values: &[Value]) -> Result<Value> {
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend_from_slice(bytes_of(value).ok_or_else(|| mismatch("CONCAT"))?);
    }
    same_form(values.first().unwrap_or(&Value::Null), bytes)
}

fn both<'a>(name: &str, values: &'a [Value]) -> Result<(&'a [u8], &'a [u8])> {
    match values {
        [left, right] => bytes_of(left).zip(bytes_of(right)),
        _ => None,
    }
    .ok_or_else(|| mismatch(name))
}

pub fn starts_with(values: &[Value]) -> Result<Value> {
    let (whole, part) = both("STARTS_WITH", values)?;
    Ok(Value::Bool(whole.starts_with(part)))
}

pub fn ends_with(values: &[Value]) -> Result<Value> {
    let (whole, part) = both("ENDS_WITH", values)?;
    Ok(Value::Bool(whole.ends_with(part)))
}

pub fn length(values: &[Value]) -> Result<Value> {
    match values {
        [Value::Text(text)] => Ok(Value::Int(text.chars().count() as i64)),
        [Value::Bytes(bytes)] => Ok(Value::Int(bytes.len() as i64)),
        _ => Err(mismatch("LENGTH")),
    }
}

pub fn byte_length(values: &[Value]) -> Result<Value> {
    let bytes = values.first().and_then(bytes_of);
    bytes
        .map(|bytes| Value::Int(bytes.len() as i64))
        .ok_or_else(|| mismatch("BYTE_LENGTH"))
}

pub fn lower(values: &[Value]) -> Result<Value> {
    let [text] = texts("LOWER", values)?;
    Ok(Value::Text(text.to_lowercase()))
}

pub fn upper(values: &[Value]) -> Result<Value> {
    let [text] = texts("UPPER", values)?;
    Ok(Value::Text(text.to_uppercase()))
}

fn trimmed<'a>(name: &str, values: &'a [Value], start: bool, end: bool) -> Result<&'a str> {
    let (mut text, set) = match values {
        [Value::Text(text)] => (text.as_str(), None),
        [Value::Text(text), Value::Text(set)] => (text.as_str(), Some(set)),
        _ => return Err(mismatch(name)),
    };
    let goes = |character: char| match set {
        Some(set) => set.contains(character),
        None => character.is_whitespace(),
    };
    if start {
        text = text.trim_start_matches(goes);
    }
    if end {
        text = text.trim_end_matches(goes);
    }
    Ok(text)
}

pub fn trim(values: &[Value]) -> Result<Value> {
    trimmed("TRIM", values, true, true).map(|text| Value::Text(text.to_owned()))
}

pub fn trim_start(values: &[Value]) -> Result<Value> {
    trimmed("LTRIM", values, true, false).map(|text| Value::Text(text.to_owned()))
}

pub fn trim_end(values: &[Value]) -> Result<Value> {
    trimmed("RTRIM", values, false, true).map(|text| Value::Text(text.to_owned()))
}

/// The items (characters or bytes) from a 1-based position, which counts from the end when negative.
fn slice<T: Copy>(items: &[T], position: i64, length: Option<i64>) -> &[T] {
    let count = items.len() as i64;
    let start = match position {
        0 => 0,
        position if position > 0 => (position - 1).min(count),
        position => count.saturating_add(position).max(0),
    };
    let end = match length {
        Some(length) => start.saturating_add(length).min(count),
        None => count,
    };
    &items[start as usize..end.max(start) as usize]
}

pub fn substr(values: &[Value]) -> Result<Value> {
    let (Some(whole), Some(Value::Int(position))) = (values.first(), values.get(1)) else {
        return Err(mismatch("SUBSTR"));
    };
    let length = match values.get(2) {
        Some(Value::Int(length)) if *length < 0 => {
            return Err(Error::out_of_range(
                "Third argument in SUBSTR() cannot be negative",
            ));
        }
        Some(Value::Int(length)) => Some(*length),
        _ => None,
    };
    match whole {
        Value::Text(text) => {
            let characters: Vec<char> = text.chars().collect();
            Ok(Value::Text(
                slice(&characters, *position, length).iter().collect(),
            ))
        }
        Value::Bytes(bytes) => Ok(Value::Bytes(slice(bytes, *position, length).to_vec())),
        _ => Err(mismatch("SUBSTR")),
    }
}

fn text_and_count<'a>(name: &str, values: &'a [Value]) -> Result<(&'a str, usize)> {
    match values {
        [Value::Text(text), Value::Int(count), ..] if *count >= 0 => {
            Ok((text, usize::try_from(*count).unwrap_or(usize::MAX)))
        }
        [Value::Text(_), Value::Int(_), ..] => Err(Error::out_of_range(format!(
            "Second argument in {name}() cannot be negative"
        ))),
        _ => Err(mismatch(name)),
    }
}

pub fn left(values: &[Value]) -> Result<Value> {
    let (text, count) = text_and_count("LEFT", values)?;
    Ok(Value::Text(text.chars().take(count).collect()))
}

pub fn right(values: &[Value]) -> Result<Value> {
    let (text, count) = text_and_count("RIGHT", values)?;
    let skip = text.chars().count().saturating_sub(count);
    Ok(Value::Text(text.chars().skip(skip).collect()))
}

pub fn strpos(values: &[Value]) -> Result<Value> {
    let [whole, part] = texts("STRPOS", values)?;
    Ok(Value::Int(match whole.find(part) {
        Some(at) => whole[..at].chars().count() as i64 + 1,
        None => 0,
    }))
}

pub fn replace(values: &[Value]) -> Result<Value> {
    let [text, from, to] = texts("REPLACE", values)?;
    if from.is_empty() {
        return Ok(Value::Text(text.to_owned()));
    }
    let growth = text.matches(from).count().saturating_mul(to.len());
    if growth.saturating_add(text.len()) > RESULT_BYTES_MAX {
        return Err(Error::out_of_range("REPLACE makes too long a result"));
    }
    Ok(Value::Text(text.replace(from, to)))
}

pub fn reverse(values: &[Value]) -> Result<Value> {
    match values {
        [Value::Text(text)] => Ok(Value::Text(text.chars().rev().collect())),
        [Value::Bytes(bytes)] => Ok(Value::Bytes(bytes.iter().rev().copied().collect())),
        _ => Err(mismatch("REVERSE")),
    }
}

pub fn repeat(values: &[Value]) -> Result<Value> {
    let [whole, Value::Int(count)] = values else {
        return Err(mismatch("REPEAT"));
    };
    let bytes = bytes_of(whole).ok_or_else(|| mismatch("REPEAT"))?;
    if *count < 0 {
        return Err(Error::out_of_range(
            "Second argument in REPEAT() cannot be negative",
        ));
    }
    let count = usize::try_from(*count).unwrap_or(usize::MAX);
    if bytes.len().saturating_mul(count) > RESULT_BYTES_MAX {
        return Err(Error::out_of_range("REPEAT makes too long a result"));
    }
    // An empty text repeats for nothing, however often.
    let count = if bytes.is_empty() { 0 } else { count };
    same_form(whole, bytes.repeat(count))
}

fn pad(name: &str, values: &[Value], at_start: bool) -> Result<Value> {
    let (text, count) = text_and_count(name, values)?;
    let filler: Vec<char> = match values.get(2) {
        Some(Value::Text(filler)) => filler.chars().collect(),
        _ => vec![' '],
    };
    if filler.is_empty() {
        return Err(Error::out_of_range(format!(
            "Third argument in {name}() cannot be empty"
        )));
    }
    if count > RESULT_BYTES_MAX / 4 {
        return Err(Error::out_of_range(format!(
            "{name} makes too long a result"
        )));
    }
    let length = text.chars().count();
    if length >= count {
        return Ok(Value::Text(text.chars().take(count).collect()));
    }
    let padding: String = filler.iter().cycle().take(count - length).collect();
    Ok(Value::Text(match at_start {
        true => padding + text,
        false => text.to_owned() + &padding,
    }))
}

pub fn lpad(values: &[Value]) -> Result<Value> {
    pad("LPAD", values, true)
}

pub fn rpad(values: &[Value]) -> Result<Value> {
    pad("RPAD", values, false)
}

pub fn split(values: &[Value]) -> Result<Value> {
    let (text, delimiter) = match values {
        [Value::Text(text)] => (text.as_str(), ","),
        [Value::Text(text), Value::Text(delimiter)] => (text.as_str(), delimiter.as_str()),
        _ => return Err(mismatch("SPLIT")),
    };
    let part = |text: &str| Value::Text(text.to_owned());
    Ok(Value::List(match (text, delimiter) {
        ("", _) => vec![part("")],
        (text, "") => text.chars().map(|c| Value::Text(c.to_string())).collect(),
        (text, delimiter) => text.split(delimiter).map(part).collect(),
    }))
}

/// ARRAY_TO_STRING: nulls are left out.
pub fn join(values: &[Value]) -> Result<Value> {
    let [Value::List(items), delimiter] = values else {
        return Ok(Value::Null);
    };
    let Some(separator) = bytes_of(delimiter) else {
        return Ok(Value::Null);
    };
    let parts: Vec<&[u8]> = items.iter().filter_map(bytes_of).collect();
    same_form(delimiter, parts.join(separator))
}

pub fn to_hex(values: &[Value]) -> Result<Value> {
    match values {
        [Value::Bytes(bytes)] => Ok(Value::Text(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        )),
        _ => Err(mismatch("TO_HEX")),
    }
}

pub fn from_hex(values: &[Value]) -> Result<Value> {
    let [text] = texts("FROM_HEX", values)?;
    let padded = match text.len() % 2 {
        0 => text.to_owned(),
        _ => format!("0{text}"),
    };
    let bytes: Option<Vec<u8>> = padded
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            Some((high * 16 + low) as u8)
        })
        .collect();
    bytes
        .map(Value::Bytes)
        .ok_or_else(|| Error::out_of_range("Failed to decode invalid hexadecimal string"))
}

pub fn to_base64(values: &[Value]) -> Result<Value> {
    match values {
        [Value::Bytes(bytes)] => Ok(Value::Text(base64_text(bytes))),
        _ => Err(mismatch("TO_BASE64")),
    }
}

pub fn from_base64(values: &[Value]) -> Result<Value> {
    let [text] = texts("FROM_BASE64", values)?;
    parse_base64(text)
        .map(Value::Bytes)
        .ok_or_else(|| Error::out_of_range("Failed to decode invalid base64 string"))
}

/// LIKE: `%` any run, `_` any one character (or byte), `\` takes the next literally.
pub fn like(operand: &Value, pattern: &Value) -> Result<Value> {
    match (operand, pattern) {
        (Value::Null, _) | (_, Value::Null) => Ok(Value::Null),
        (Value::Text(text), Value::Text(pattern)) => {
            let text: Vec<char> = text.chars().collect();
            let pattern: Vec<char> = pattern.chars().collect();
            Ok(Value::Bool(matches(
                &text,
                &compile(&pattern, '%', '_', '\\')?,
            )))
        }
        (Value::Bytes(text), Value::Bytes(pattern)) => Ok(Value::Bool(matches(
            text,
            &compile(pattern, b'%', b'_', b'\\')?,
        ))),
        _ => Err(mismatch("LIKE")),
    }
}

enum Piece<T> {
    Run,
    One,
    Exactly(T),
}

fn compile<T: Copy + PartialEq>(pattern: &[T], run: T, one: T, escape: T) -> Result<Vec<Piece<T>>> {
    let mut pieces = Vec::with_capacity(pattern.len());
    let mut items = pattern.iter();
    while let Some(item) = items.next() {
        pieces.push(if *item == run {
            Piece::Run
        } else if *item == one {
            Piece::One
        } else if *item == escape {
            let next = items
                .next()
                .ok_or_else(|| Error::out_of_range("LIKE pattern ends with a backslash"))?;
            Piece::Exactly(*next)
        } else {
            Piece::Exactly(*item)
        });
    }
    Ok(pieces)
}

/// Greedy with one point to return to: linear in memory, at worst quadratic in time.
fn matches<T: PartialEq>(text: &[T], pieces: &[Piece<T>]) -> bool {
    let (mut at, mut piece) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while at < text.len() {
        match pieces.get(piece) {
            Some(Piece::Run) => {
                back = Some((piece + 1, at));
                piece += 1;
                continue;
            }
            Some(Piece::One) => {
                at += 1;
                piece += 1;
                continue;
            }
            Some(Piece::Exactly(item)) if *item == text[at] => {
                at += 1;
                piece += 1;
                continue;
            }
            _ => {}
        }
        match &mut back {
            Some((after, from)) => {
                *from += 1;
                (at, piece) = (*from, *after);
            }
            None => return false,
        }
    }
    pieces[piece..]
        .iter()
        .all(|piece| matches!(piece, Piece::Run))
}
