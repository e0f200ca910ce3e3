//! Varints and decimals: big-endian two's complement in its shortest form.

use crate::error::Error;
use model::{Type, Value};
use num_bigint::BigInt;

/// The shortest form of a two's complement number; of no bytes, that of zero.
pub fn shortest(bytes: &[u8]) -> Vec<u8> {
    let mut start = 0;
    while start + 1 < bytes.len() {
        let sign_repeats = match bytes[start] {
            0x00 => bytes[start + 1] < 0x80,
            0xFF => bytes[start + 1] >= 0x80,
            _ => false,
        };
        if !sign_repeats {
            break;
        }
        start += 1;
    }
    if bytes.is_empty() {
        vec![0]
    } else {
        bytes[start..].to_vec()
    }
}

pub fn varint_from_i64(value: i64) -> Vec<u8> {
    shortest(&value.to_be_bytes())
}

/// `None` when it needs more than 64 bits.
pub fn varint_to_i64(bytes: &[u8]) -> Option<i64> {
    let bytes = shortest(bytes);
    if bytes.len() > 8 {
        return None;
    }
    let fill = if bytes[0] >= 0x80 { 0xFF } else { 0 };
    let mut whole = [fill; 8];
    whole[8 - bytes.len()..].copy_from_slice(&bytes);
    Some(i64::from_be_bytes(whole))
}

/// Digits of a literal beyond this are refused: parsing is quadratic.
const DIGITS_MAX: usize = 10_000;

pub fn varint_from_text(text: &str) -> Option<Vec<u8>> {
    if text.len() > DIGITS_MAX {
        return None;
    }
    Some(text.parse::<BigInt>().ok()?.to_signed_bytes_be())
}

pub fn varint_to_text(bytes: &[u8]) -> String {
    BigInt::from_signed_bytes_be(bytes).to_string()
}

/// A decimal literal as scale and unscaled number.
pub fn decimal_from_text(text: &str) -> Option<(i32, Vec<u8>)> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + fraction.len() > DIGITS_MAX {
        return None;
    }
    let unscaled: BigInt = format!("{whole}{fraction}").parse().ok()?;
    let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    Some((scale, unscaled.to_signed_bytes_be()))
}

pub fn decimal_to_text(scale: i32, unscaled: &[u8]) -> String {
    let digits = varint_to_text(unscaled);
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits.as_str()),
    };
    match usize::try_from(scale) {
        Ok(0) => format!("{sign}{digits}"),
        Ok(scale) if scale <= 400 => {
            let padded = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            format!("{sign}{whole}.{fraction}")
        }
        _ => format!("{sign}{digits}E{}", -i64::from(scale)),
    }
}

pub fn decimal_to_f64(scale: i32, unscaled: &[u8]) -> f64 {
    format!("{}e{}", varint_to_text(unscaled), -i64::from(scale))
        .parse()
        .unwrap_or(f64::NAN)
}

/// The low 64 bits.
pub fn wrap_to_i64(bytes: &[u8]) -> i64 {
    let tail = &bytes[bytes.len().saturating_sub(8)..];
    varint_to_i64(tail).unwrap_or(0)
}

/// Scales this far apart are not added: the sum would have as many digits.
const SCALE_DISTANCE_MAX: u32 = 10_000;

/// Adds a decimal to a sum; a null sum counts as zero.
pub fn add_decimal(sum: &Value, scale: i32, unscaled: &[u8]) -> Result<Value, Error> {
    let (sum_scale, sum) = match sum {
        Value::Decimal { scale, unscaled } => (*scale, BigInt::from_signed_bytes_be(unscaled)),
        _ => (scale, BigInt::from(0)),
    };
    let other = BigInt::from_signed_bytes_be(unscaled);
    let distance = sum_scale.abs_diff(scale);
    if distance > SCALE_DISTANCE_MAX {
        return Err(Error::invalid(
            "decimals of so different scales cannot be added",
        ));
    }
    let factor = BigInt::from(10).pow(distance);
    let total = if sum_scale >= scale {
        sum + other * factor
    } else {
        sum * factor + other
    };
    Ok(Value::Decimal {
        scale: sum_scale.max(scale),
        unscaled: total.to_signed_bytes_be(),
    })
}

/// Whether values of the type can be added.
pub fn is_number(kind: &Type) -> bool {
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

/// The sum or difference of two numbers of one type, in which it wraps; `None` when one of them is null.
pub fn plus(
    left: &Value,
    right: &Value,
    kind: &Type,
    is_minus: bool,
) -> Result<Option<Value>, Error> {
    let sum = match (left, right) {
        (Value::Int(left), Value::Int(right)) => {
            let sum = match is_minus {
                true => left.wrapping_sub(*right),
                false => left.wrapping_add(*right),
            };
            Value::Int(match kind {
                Type::TinyInt => i64::from(sum as i8),
                Type::SmallInt => i64::from(sum as i16),
                Type::Int => i64::from(sum as i32),
                _ => sum,
            })
        }
        (Value::Float32(left), Value::Float32(right)) => Value::Float32(match is_minus {
            true => left - right,
            false => left + right,
        }),
        (Value::Float64(left), Value::Float64(right)) => Value::Float64(match is_minus {
            true => left - right,
            false => left + right,
        }),
        (Value::Varint(left), Value::Varint(right)) => {
            let (left, right) = (
                BigInt::from_signed_bytes_be(left),
                BigInt::from_signed_bytes_be(right),
            );
            let sum = match is_minus {
                true => left - right,
                false => left + right,
            };
            Value::Varint(sum.to_signed_bytes_be())
        }
        (Value::Decimal { .. }, Value::Decimal { scale, unscaled }) => {
            let right = BigInt::from_signed_bytes_be(unscaled);
            let right = if is_minus { -right } else { right };
            add_decimal(left, *scale, &right.to_signed_bytes_be())?
        }
        _ => return Ok(None),
    };
    Ok(Some(sum))
}

/// Divides in the scale that the decimal has; of null, zero.
pub fn divide_decimal(sum: Value, divisor: i64) -> Value {
    match sum {
        Value::Decimal { scale, unscaled } => {
            let quotient = BigInt::from_signed_bytes_be(&unscaled) / divisor;
            Value::Decimal {
                scale,
                unscaled: quotient.to_signed_bytes_be(),
            }
        }
        _ => Value::Decimal {
            scale: 0,
            unscaled: vec![0],
        },
    }
}

/// DynamoDB's and Spanner's numbers as CQL's decimal.
pub fn put_decimal(number: &model::Number, out: &mut Vec<u8>) {
    let coefficient = BigInt::from(number.coefficient());
    let unscaled = if number.is_negative() {
        -coefficient
    } else {
        coefficient
    };
    out.extend_from_slice(&(-number.exponent()).to_be_bytes());
    out.extend_from_slice(&unscaled.to_signed_bytes_be());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_forms() {
        assert_eq!(shortest(&[0, 0, 0x7F]), [0x7F]);
        assert_eq!(shortest(&[0, 0x80]), [0, 0x80]);
        assert_eq!(shortest(&[0xFF, 0xFF, 0x80]), [0x80]);
        assert_eq!(shortest(&[0xFF, 0x7F]), [0xFF, 0x7F]);
        for number in [0, 1, -1, 127, 128, -128, -129, i64::MAX, i64::MIN] {
            let bytes = varint_from_i64(number);
            assert_eq!(Some(number), varint_to_i64(&bytes));
            assert_eq!(varint_from_text(&number.to_string()), Some(bytes));
        }
    }

    #[test]
    fn decimals() {
        assert_eq!(decimal_from_text("-1.50"), Some((2, vec![0xFF, 0x6A])));
        assert_eq!(decimal_from_text("2e3"), Some((-3, vec![2])));
        assert_eq!(decimal_to_text(2, &[0xFF, 0x6A]), "-1.50");
        assert_eq!(decimal_to_text(3, &[5]), "0.005");
        assert_eq!(decimal_to_text(-3, &[5]), "5E3");
        assert_eq!(decimal_to_f64(1, &[15]), 1.5);
    }
}
