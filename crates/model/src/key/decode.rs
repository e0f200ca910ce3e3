//! Decoding of keys: the exact inverse of encoding. What no encoder writes is refused; no bytes panic, and nothing
//! is allocated that they do not pay for.

use super::{
    Direction, END, ESCAPED_ZERO, KeyError, LENGTH_LONG, LENGTH_SHORT_MAX, NEGATIVE, NULL,
    POSITIVE, PRESENT, TERMINATOR, ZERO, shortest, timeuuid_from_ordered, uuid_from_ordered,
};
use crate::{Number, Type, Value, number};
use num_bigint::{BigInt, BigUint, Sign};

/// A decoded decimal whose exponent does not fit in a scale gets zeros appended, at most this many.
const PADDING_DIGITS_MAX: i64 = 1 << 16;

/// Reads one component from the front of `key` and returns it with what follows.
pub(super) fn decode<'a>(
    key: &'a [u8],
    kind: &Type,
    direction: Direction,
) -> Result<(Value, &'a [u8]), KeyError> {
    let mut reader = Reader {
        rest: key,
        mask: match direction {
            Direction::Ascending => 0x00,
            Direction::Descending => 0xFF,
        },
    };
    let value = decode_component(&mut reader, kind)?;
    Ok((value, reader.rest))
}

/// As `decode`, without making the value: what follows the component. Lengths are checked, contents are not.
pub(super) fn skip<'a>(
    key: &'a [u8],
    kind: &Type,
    direction: Direction,
) -> Result<&'a [u8], KeyError> {
    let mask = match direction {
        Direction::Ascending => 0x00,
        Direction::Descending => 0xFF,
    };
    let mut reader = Reader { rest: key, mask };
    match reader.byte()? {
        NULL => return Ok(reader.rest),
        PRESENT => {}
        _ => return Err(KeyError::Malformed),
    }
    let size = match kind {
        Type::Bool | Type::TinyInt => 1,
        Type::SmallInt => 2,
        Type::Int | Type::Float32 | Type::Date => 4,
        Type::BigInt | Type::Float64 | Type::Time | Type::TimestampMillis => 8,
        Type::TimestampNanos => 12,
        Type::Uuid | Type::TimeUuid => 16,
        Type::Ascii | Type::Text { .. } | Type::Bytes { .. } | Type::Inet => loop {
            let zero = reader.rest.iter().position(|byte| *byte == mask);
            reader.rest = &reader.rest[zero.ok_or(KeyError::Malformed)? + 1..];
            match reader.byte()? {
                ESCAPED_ZERO => {}
                TERMINATOR => break 0,
                _ => return Err(KeyError::Malformed),
            }
        },
        _ => {
            decode_body(&mut reader, kind)?;
            0
        }
    };
    reader.rest.get(size..).ok_or(KeyError::Malformed)
}

/// Reads a key's bytes, complemented where the component is descending.
struct Reader<'a> {
    rest: &'a [u8],
    mask: u8,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, KeyError> {
        let (first, rest) = self.rest.split_first().ok_or(KeyError::Malformed)?;
        self.rest = rest;
        Ok(first ^ self.mask)
    }

    fn peek(&self) -> Result<u8, KeyError> {
        let first = self.rest.first().ok_or(KeyError::Malformed)?;
        Ok(first ^ self.mask)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], KeyError> {
        let (first, rest) = self.rest.split_first_chunk().ok_or(KeyError::Malformed)?;
        self.rest = rest;
        Ok(first.map(|byte: u8| byte ^ self.mask))
    }

    fn i32(&mut self) -> Result<i32, KeyError> {
        Ok((u32::from_be_bytes(self.array()?) ^ 1 << 31) as i32)
    }

    fn i64(&mut self) -> Result<i64, KeyError> {
        Ok((u64::from_be_bytes(self.array()?) ^ 1 << 63) as i64)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, KeyError> {
        let zero = self.mask;
        let mut bytes = Vec::new();
        loop {
            let end = self.rest.iter().position(|byte| *byte == zero);
            let end = end.ok_or(KeyError::Malformed)?;
            let start = bytes.len();
            bytes.extend_from_slice(&self.rest[..end]);
            if self.mask != 0 {
                for byte in &mut bytes[start..] {
                    *byte ^= self.mask;
                }
            }
            self.rest = &self.rest[end + 1..];
            match self.byte()? {
                ESCAPED_ZERO => bytes.push(0),
                TERMINATOR => return Ok(bytes),
                _ => return Err(KeyError::Malformed),
            }
        }
    }

    /// Two's complement, checked to be the shortest form.
    fn integer(&mut self) -> Result<Vec<u8>, KeyError> {
        let header = self.byte()?;
        let negative = header < 0x80;
        let flip = if negative { 0xFF } else { 0x00 };
        let short = usize::from((header ^ flip) & 0x7F);
        let length = if short <= LENGTH_SHORT_MAX {
            short
        } else if short == usize::from(LENGTH_LONG) {
            let bytes: [u8; 4] = self.array()?;
            let length = u32::from_be_bytes(bytes.map(|byte| byte ^ flip)) as usize;
            if length <= LENGTH_SHORT_MAX {
                return Err(KeyError::Malformed);
            }
            length
        } else {
            return Err(KeyError::Malformed);
        };
        if self.rest.len() <= length {
            return Err(KeyError::Malformed);
        }
        let (bytes, rest) = self.rest.split_at(length + 1);
        self.rest = rest;
        let bytes: Vec<u8> = bytes.iter().map(|byte| byte ^ self.mask).collect();
        let canonical = shortest(&bytes).is_some_and(|short| short.len() == bytes.len());
        if !canonical || (bytes[0] >= 0x80) != negative {
            return Err(KeyError::Malformed);
        }
        Ok(bytes)
    }

    /// Sign, exponent and digits as `push_digits` wrote them; no digits for zero.
    fn digits(&mut self) -> Result<(bool, i64, Vec<u8>), KeyError> {
        let negative = match self.byte()? {
            ZERO => return Ok((false, 0, Vec::new())),
            NEGATIVE => true,
            POSITIVE => false,
            _ => return Err(KeyError::Malformed),
        };
        if negative {
            self.mask ^= 0xFF;
        }
        let result = self.exponent_and_digits();
        if negative {
            self.mask ^= 0xFF;
        }
        let (exponent, digits) = result?;
        Ok((negative, exponent, digits))
    }

    fn exponent_and_digits(&mut self) -> Result<(i64, Vec<u8>), KeyError> {
        let bytes = self.integer()?;
        if bytes.len() > 8 {
            return Err(KeyError::Malformed);
        }
        let sign = if bytes[0] >= 0x80 { -1 } else { 0 };
        let exponent = bytes
            .iter()
            .fold(sign, |value: i64, byte| value << 8 | i64::from(*byte));
        let mut digits = Vec::new();
        loop {
            match self.byte()? {
                END => break,
                pair @ 1..=100 => digits.extend([(pair - 1) / 10, (pair - 1) % 10]),
                _ => return Err(KeyError::Malformed),
            }
        }
        // Canonical: begins with a digit, and the last pair is not `00`.
        let pair_is_zero = digits.ends_with(&[0, 0]);
        if digits.last() == Some(&0) {
            digits.pop();
        }
        if pair_is_zero || digits.first().is_none_or(|digit| *digit == 0) {
            return Err(KeyError::Malformed);
        }
        Ok((exponent, digits))
    }
}

fn decode_component(reader: &mut Reader<'_>, kind: &Type) -> Result<Value, KeyError> {
    match reader.byte()? {
        NULL => Ok(Value::Null),
        PRESENT => decode_body(reader, kind),
        _ => Err(KeyError::Malformed),
    }
}

fn decode_body(reader: &mut Reader<'_>, kind: &Type) -> Result<Value, KeyError> {
    Ok(match kind {
        Type::Bool => match reader.byte()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            _ => return Err(KeyError::Malformed),
        },
        Type::TinyInt => Value::Int(i64::from((reader.byte()? ^ 0x80) as i8)),
        Type::SmallInt => {
            let value = u16::from_be_bytes(reader.array()?) ^ 1 << 15;
            Value::Int(i64::from(value as i16))
        }
        Type::Int => Value::Int(i64::from(reader.i32()?)),
        Type::BigInt => Value::Int(reader.i64()?),
        Type::Varint => Value::Varint(reader.integer()?),
        Type::Float32 => {
            let ordered = u32::from_be_bytes(reader.array()?);
            let bits = if ordered >> 31 == 1 {
                ordered ^ 1 << 31
            } else {
                !ordered
            };
            let value = f32::from_bits(bits);
            if value.is_nan() && bits != 0x7FC0_0000 {
                return Err(KeyError::Malformed);
            }
            Value::Float32(value)
        }
        Type::Float64 => {
            let ordered = u64::from_be_bytes(reader.array()?);
            let bits = if ordered >> 63 == 1 {
                ordered ^ 1 << 63
            } else {
                !ordered
            };
            let value = f64::from_bits(bits);
            if value.is_nan() && bits != 0x7FF8_0000_0000_0000 {
                return Err(KeyError::Malformed);
            }
            Value::Float64(value)
        }
        Type::Decimal => decode_decimal(reader)?,
        Type::Number | Type::Numeric => decode_number(reader)?,
        Type::Ascii => {
            let text = String::from_utf8(reader.bytes()?).map_err(|_| KeyError::Malformed)?;
            if !text.is_ascii() {
                return Err(KeyError::Malformed);
            }
            Value::Text(text)
        }
        Type::Text { .. } => {
            Value::Text(String::from_utf8(reader.bytes()?).map_err(|_| KeyError::Malformed)?)
        }
        Type::Bytes { .. } => Value::Bytes(reader.bytes()?),
        Type::Uuid => Value::Uuid(uuid_from_ordered(&reader.array()?)),
        Type::TimeUuid => Value::Uuid(timeuuid_from_ordered(&reader.array()?)),
        Type::Inet => {
            let bytes = reader.bytes()?;
            if !matches!(bytes.len(), 4 | 16) {
                return Err(KeyError::Malformed);
            }
            Value::Inet(bytes)
        }
        Type::Date => Value::Date(reader.i32()?),
        Type::Time => Value::Time(reader.i64()?),
        Type::TimestampMillis => {
            let millis = reader.i64()?;
            Value::Timestamp {
                seconds: millis.div_euclid(1_000),
                nanos: millis.rem_euclid(1_000) as u32 * 1_000_000,
            }
        }
        Type::TimestampNanos => {
            let seconds = reader.i64()?;
            let nanos = u32::from_be_bytes(reader.array()?);
            if nanos >= 1_000_000_000 {
                return Err(KeyError::Malformed);
            }
            Value::Timestamp { seconds, nanos }
        }
        Type::List { .. }
        | Type::Set { .. }
        | Type::Map { .. }
        | Type::Tuple { .. }
        | Type::User { .. }
        | Type::Vector { .. } => decode_composed(reader, kind)?,
        Type::Counter | Type::Duration | Type::Json | Type::Document | Type::Array { .. } => {
            return Err(KeyError::Unsupported(kind.clone()));
        }
    })
}

fn decode_composed(reader: &mut Reader<'_>, kind: &Type) -> Result<Value, KeyError> {
    Ok(match kind {
        Type::List { element, .. } => {
            let mut values = Vec::new();
            while !reader.ends()? {
                values.push(decode_component(reader, element)?);
            }
            Value::List(values)
        }
        Type::Set { element, .. } => {
            let mut values = Vec::new();
            let mut order = Ascending::default();
            while !reader.ends()? {
                let before = reader.rest;
                values.push(decode_component(reader, element)?);
                order.check(before, reader)?;
            }
            Value::Set(values)
        }
        Type::Map { key, value, .. } => {
            let mut pairs = Vec::new();
            let mut order = Ascending::default();
            while !reader.ends()? {
                let before = reader.rest;
                let name = decode_component(reader, key)?;
                order.check(before, reader)?;
                pairs.push((name, decode_component(reader, value)?));
            }
            Value::Map(pairs)
        }
        Type::Tuple { fields } => {
            let mut values = Vec::with_capacity(fields.len());
            for field in fields {
                values.push(decode_component(reader, field)?);
            }
            Value::Tuple(values)
        }
        Type::User { fields, .. } => {
            let mut values = Vec::with_capacity(fields.len());
            for (_, field) in fields {
                values.push(decode_component(reader, field)?);
            }
            Value::Tuple(values)
        }
        Type::Vector { element, dimension } => {
            // The count comes from the type, not from the bytes; still nothing is reserved ahead of them.
            let mut values = Vec::new();
            for _ in 0..*dimension {
                values.push(decode_component(reader, element)?);
            }
            Value::List(values)
        }
        _ => return Err(KeyError::Unsupported(kind.clone())),
    })
}

/// Checks that the elements of a set, or the keys of a map, come in strictly ascending order.
#[derive(Default)]
struct Ascending {
    previous: Option<Vec<u8>>,
}

impl Ascending {
    fn check(&mut self, before: &[u8], reader: &Reader<'_>) -> Result<(), KeyError> {
        let length = before.len() - reader.rest.len();
        let element: Vec<u8> = before[..length]
            .iter()
            .map(|byte| byte ^ reader.mask)
            .collect();
        if self.previous.as_ref().is_some_and(|last| *last >= element) {
            return Err(KeyError::Malformed);
        }
        self.previous = Some(element);
        Ok(())
    }
}

impl Reader<'_> {
    /// Whether a collection ends here; if so its end is consumed.
    fn ends(&mut self) -> Result<bool, KeyError> {
        if self.peek()? == END {
            self.byte()?;
            return Ok(true);
        }
        Ok(false)
    }
}

fn decode_decimal(reader: &mut Reader<'_>) -> Result<Value, KeyError> {
    let (negative, exponent, mut digits) = reader.digits()?;
    let mut scale = (digits.len() as i64)
        .checked_sub(exponent)
        .ok_or(KeyError::Malformed)?;
    if scale < i64::from(i32::MIN) {
        let missing = i64::from(i32::MIN) - scale;
        if missing > PADDING_DIGITS_MAX {
            return Err(KeyError::Malformed);
        }
        digits.resize(digits.len() + missing as usize, 0);
        scale = i64::from(i32::MIN);
    }
    let scale = i32::try_from(scale).map_err(|_| KeyError::Malformed)?;
    let magnitude = BigUint::from_radix_be(&digits, 10).unwrap_or_default();
    let sign = if negative { Sign::Minus } else { Sign::Plus };
    Ok(Value::Decimal {
        scale,
        unscaled: BigInt::from_biguint(sign, magnitude).to_signed_bytes_be(),
    })
}

fn decode_number(reader: &mut Reader<'_>) -> Result<Value, KeyError> {
    let (negative, exponent, digits) = reader.digits()?;
    if digits.is_empty() {
        return Ok(Value::Number(Number::default()));
    }
    if digits.len() > number::DIGITS_MAX || exponent.abs() > 1_000 {
        return Err(KeyError::Malformed);
    }
    let coefficient = digits
        .iter()
        .fold(0u128, |value, digit| value * 10 + u128::from(*digit));
    let exponent = exponent as i32 - digits.len() as i32;
    Number::from_parts(negative, coefficient, exponent)
        .map(Value::Number)
        .map_err(|_| KeyError::Malformed)
}
