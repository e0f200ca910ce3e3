//! Decimal numbers of up to 38 significant digits: DynamoDB's N (1E-130 to 9.99…E+125) and Spanner's
//! NUMERIC (29 digits before the point, 9 after it).
//!
//! Arithmetic is exact or an error for DynamoDB's; NUMERIC's rounds half away from zero at the ninth place.

use minicbor::{Decode, Decoder, Encode, Encoder};
use num_bigint::BigInt;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Significant digits.
pub const DIGITS_MAX: usize = 38;
/// The decimal exponent of the first digit lies within.
const MAGNITUDE_MIN: i32 = -130;
const MAGNITUDE_MAX: i32 = 125;
/// Digits after the point of a NUMERIC.
const NUMERIC_SCALE: i32 = 9;
/// The largest NUMERIC in units of its last place.
const NUMERIC_UNITS_MAX: i128 = 10i128.pow(DIGITS_MAX as u32) - 1;

/// `(-1)^negative × coefficient × 10^exponent`, canonical: the coefficient has no trailing zero digits,
/// and zero is `0 × 10^0`, not negative. So equal numbers are equal structs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Number {
    negative: bool,
    exponent: i32,
    /// The coefficient's high and low 64 bits.
    high: u64,
    low: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    #[error("not a number")]
    Invalid,
    #[error("more than 38 significant digits")]
    TooManyDigits,
    #[error("magnitude larger than the supported range")]
    Overflow,
    #[error("magnitude smaller than the supported range")]
    Underflow,
    #[error("division by zero")]
    DivisionByZero,
}

impl Number {
    pub const ZERO: Number = Number {
        negative: false,
        exponent: 0,
        high: 0,
        low: 0,
    };

    /// Any coefficient; trailing zeros move into the exponent.
    pub fn from_parts(
        negative: bool,
        mut coefficient: u128,
        mut exponent: i32,
    ) -> Result<Number, NumberError> {
        if coefficient == 0 {
            return Ok(Number::ZERO);
        }
        while coefficient.is_multiple_of(10) {
            coefficient /= 10;
            exponent = exponent.saturating_add(1);
        }
        let digits = coefficient.ilog10() as i32 + 1;
        let magnitude = exponent.saturating_add(digits - 1);
        if magnitude > MAGNITUDE_MAX {
            return Err(NumberError::Overflow);
        }
        if magnitude < MAGNITUDE_MIN {
            return Err(NumberError::Underflow);
        }
        if digits > DIGITS_MAX as i32 {
            return Err(NumberError::TooManyDigits);
        }
        Ok(Number {
            negative,
            exponent,
            high: (coefficient >> 64) as u64,
            low: coefficient as u64,
        })
    }

    pub fn is_negative(&self) -> bool {
        self.negative
    }

    pub fn is_zero(&self) -> bool {
        self.high == 0 && self.low == 0
    }

    pub fn coefficient(&self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    pub fn exponent(&self) -> i32 {
        self.exponent
    }

    /// Significant digits; zero has one.
    pub fn digit_count(&self) -> u32 {
        self.coefficient().checked_ilog10().map_or(1, |log| log + 1)
    }

    /// The decimal exponent of the first digit: 2 for 123, -1 for 0.1, 0 for zero.
    pub fn magnitude(&self) -> i32 {
        self.exponent + self.digit_count() as i32 - 1
    }

    /// Reads `[+-] digits [. digits] [e [+-] digits]`, as DynamoDB does. Zeros in front and at the end do
    /// not count as digits.
    pub fn parse(text: &str) -> Result<Number, NumberError> {
        Literal::parse(text)?.exact()
    }

    /// As `parse`, for NUMERIC: places after the ninth are rounded half away from zero, and at most 29
    /// digits stand before the point.
    pub fn parse_numeric(text: &str) -> Result<Number, NumberError> {
        Literal::parse(text)?.numeric()
    }

    /// The sum, if it can be written with 38 digits.
    pub fn checked_add(self, other: Number) -> Result<Number, NumberError> {
        let (large, small) = if self.exponent >= other.exponent {
            (self, other)
        } else {
            (other, self)
        };
        if large.is_zero() {
            return Ok(small);
        }
        if small.is_zero() {
            return Ok(large);
        }
        // In units of the smaller exponent. Where this overflows, the sum ends in the smaller number's last
        // digit, which is not zero, and begins beyond the 38th before it.
        let shift = (large.exponent - small.exponent) as u32;
        let aligned = 10u128
            .checked_pow(shift)
            .and_then(|factor| large.coefficient().checked_mul(factor))
            .ok_or(NumberError::TooManyDigits)?;
        let (negative, coefficient) = if large.negative == small.negative {
            let sum = aligned
                .checked_add(small.coefficient())
                .ok_or(NumberError::TooManyDigits)?;
            (large.negative, sum)
        } else if aligned >= small.coefficient() {
            (large.negative, aligned - small.coefficient())
        } else {
            (small.negative, small.coefficient() - aligned)
        };
        Number::from_parts(negative, coefficient, small.exponent)
    }

    /// The difference, if it can be written with 38 digits.
    pub fn checked_sub(self, other: Number) -> Result<Number, NumberError> {
        self.checked_add(other.negate())
    }

    pub fn negate(self) -> Number {
        Number {
            negative: !self.negative && !self.is_zero(),
            ..self
        }
    }

    pub fn abs(self) -> Number {
        Number {
            negative: false,
            ..self
        }
    }

    /// Exactly, if it is a whole number that fits.
    pub fn to_i64(self) -> Option<i64> {
        if self.is_zero() {
            return Some(0);
        }
        let exponent = u32::try_from(self.exponent).ok()?;
        let magnitude = self
            .coefficient()
            .checked_mul(10u128.checked_pow(exponent)?)?;
        let magnitude = i128::try_from(magnitude).ok()?;
        i64::try_from(if self.negative { -magnitude } else { magnitude }).ok()
    }

    /// The nearest double.
    pub fn to_f64(self) -> f64 {
        let sign = if self.negative { "-" } else { "" };
        format!("{sign}{}e{}", self.coefficient(), self.exponent)
            .parse()
            .unwrap_or(f64::NAN)
    }

    /// The shortest decimal that reads back as this double.
    pub fn from_f64(value: f64) -> Result<Number, NumberError> {
        if !value.is_finite() {
            return Err(NumberError::Invalid);
        }
        Number::parse(&format!("{value:e}"))
    }

    /// The number in units of 10⁻⁹, if it is a NUMERIC.
    pub fn numeric_units(self) -> Option<i128> {
        if self.is_zero() {
            return Some(0);
        }
        let shift = u32::try_from(self.exponent + NUMERIC_SCALE).ok()?;
        let magnitude = self.coefficient().checked_mul(10u128.checked_pow(shift)?)?;
        let magnitude = i128::try_from(magnitude).ok()?;
        (magnitude <= NUMERIC_UNITS_MAX).then_some(if self.negative {
            -magnitude
        } else {
            magnitude
        })
    }

    /// The NUMERIC with this many units of 10⁻⁹.
    pub fn from_numeric_units(units: i128) -> Result<Number, NumberError> {
        if units.unsigned_abs() > NUMERIC_UNITS_MAX as u128 {
            return Err(NumberError::Overflow);
        }
        Number::from_parts(units < 0, units.unsigned_abs(), -NUMERIC_SCALE)
    }

    /// Rounds half away from zero to a NUMERIC.
    pub fn to_numeric(self) -> Result<Number, NumberError> {
        Literal {
            negative: self.negative,
            coefficient: BigInt::from(self.coefficient()),
            exponent: i64::from(self.exponent),
            digits: 0,
        }
        .numeric()
    }

    pub fn numeric_add(self, other: Number) -> Result<Number, NumberError> {
        let (left, right) = self.both_units(other)?;
        Number::from_numeric_units(left + right)
    }

    pub fn numeric_sub(self, other: Number) -> Result<Number, NumberError> {
        let (left, right) = self.both_units(other)?;
        Number::from_numeric_units(left - right)
    }

    pub fn numeric_mul(self, other: Number) -> Result<Number, NumberError> {
        let (left, right) = self.both_units(other)?;
        let product = BigInt::from(left) * BigInt::from(right);
        let units = divide_rounding(product, BigInt::from(10u64.pow(NUMERIC_SCALE as u32)));
        Number::from_numeric_units(i128::try_from(units).map_err(|_| NumberError::Overflow)?)
    }

    pub fn numeric_div(self, other: Number) -> Result<Number, NumberError> {
        let (left, right) = self.both_units(other)?;
        if right == 0 {
            return Err(NumberError::DivisionByZero);
        }
        let dividend = BigInt::from(left) * BigInt::from(10u64.pow(NUMERIC_SCALE as u32));
        let units = divide_rounding(dividend, BigInt::from(right));
        Number::from_numeric_units(i128::try_from(units).map_err(|_| NumberError::Overflow)?)
    }

    fn both_units(self, other: Number) -> Result<(i128, i128), NumberError> {
        let left = self.numeric_units().ok_or(NumberError::Overflow)?;
        let right = other.numeric_units().ok_or(NumberError::Overflow)?;
        Ok((left, right))
    }
}

/// Half away from zero. The divisor is not zero.
fn divide_rounding(dividend: BigInt, divisor: BigInt) -> BigInt {
    let negative =
        (dividend.sign() == num_bigint::Sign::Minus) != (divisor.sign() == num_bigint::Sign::Minus);
    let dividend = dividend.into_parts().1;
    let divisor = divisor.into_parts().1;
    let quotient = BigInt::from((&dividend * 2u8 + &divisor) / (&divisor * 2u8));
    if negative { -quotient } else { quotient }
}

/// A literal as it is written, before limits and rounding.
struct Literal {
    negative: bool,
    coefficient: BigInt,
    exponent: i64,
    /// Of the coefficient; 0 when not counted.
    digits: usize,
}

/// A literal of more digits than this has a tail that neither rounding nor any limit can see.
const LITERAL_DIGITS_MAX: usize = 512;

impl Literal {
    fn parse(text: &str) -> Result<Literal, NumberError> {
        let bytes = text.as_bytes();
        let (negative, bytes) = match bytes.split_first() {
            Some((b'-', rest)) => (true, rest),
            Some((b'+', rest)) => (false, rest),
            _ => (false, bytes),
        };
        let split = bytes
            .iter()
            .position(|byte| matches!(byte, b'e' | b'E'))
            .unwrap_or(bytes.len());
        let (mantissa, exponent) = bytes.split_at(split);
        let mut exponent = match exponent.split_first() {
            None => 0,
            Some((_, text)) => parse_exponent(text)?,
        };
        let mut digits = Vec::with_capacity(mantissa.len().min(LITERAL_DIGITS_MAX));
        let mut seen_digit = false;
        let mut seen_point = false;
        for byte in mantissa {
            match byte {
                b'0'..=b'9' => {
                    seen_digit = true;
                    if seen_point {
                        exponent -= 1;
                    }
                    if *byte == b'0' && digits.is_empty() {
                        continue;
                    }
                    if digits.len() < LITERAL_DIGITS_MAX {
                        digits.push(*byte - b'0');
                    } else {
                        // Too long for either kind; the last digit is kept from being a trailing zero.
                        exponent += 1;
                        if *byte != b'0' {
                            digits[LITERAL_DIGITS_MAX - 1] = 1;
                        }
                    }
                }
                b'.' if !seen_point => seen_point = true,
                _ => return Err(NumberError::Invalid),
            }
        }
        if !seen_digit {
            return Err(NumberError::Invalid);
        }
        while digits.last() == Some(&0) {
            digits.pop();
            exponent += 1;
        }
        Ok(Literal {
            negative,
            coefficient: BigInt::from(
                num_bigint::BigUint::from_radix_be(&digits, 10).unwrap_or_default(),
            ),
            exponent,
            digits: digits.len(),
        })
    }

    fn exact(self) -> Result<Number, NumberError> {
        if self.digits == 0 {
            return Ok(Number::ZERO);
        }
        let magnitude = self.exponent.saturating_add(self.digits as i64 - 1);
        if magnitude > i64::from(MAGNITUDE_MAX) {
            return Err(NumberError::Overflow);
        }
        if magnitude < i64::from(MAGNITUDE_MIN) {
            return Err(NumberError::Underflow);
        }
        if self.digits > DIGITS_MAX {
            return Err(NumberError::TooManyDigits);
        }
        let coefficient =
            u128::try_from(self.coefficient).map_err(|_| NumberError::TooManyDigits)?;
        Number::from_parts(self.negative, coefficient, self.exponent as i32)
    }

    fn numeric(self) -> Result<Number, NumberError> {
        let shift = self.exponent.saturating_add(i64::from(NUMERIC_SCALE));
        if self.coefficient.sign() == num_bigint::Sign::NoSign {
            return Ok(Number::ZERO);
        }
        let units = if shift >= 0 {
            if shift > DIGITS_MAX as i64 {
                return Err(NumberError::Overflow);
            }
            self.coefficient * BigInt::from(10u8).pow(shift as u32)
        } else if shift < -(LITERAL_DIGITS_MAX as i64) - 1 {
            return Ok(Number::ZERO);
        } else {
            divide_rounding(
                self.coefficient,
                BigInt::from(10u8).pow(shift.unsigned_abs() as u32),
            )
        };
        let units = i128::try_from(units).map_err(|_| NumberError::Overflow)?;
        Number::from_numeric_units(if self.negative { -units } else { units })
    }
}

/// Beyond any limit it stays there, so that a long exponent is an overflow and not an invalid number.
fn parse_exponent(text: &[u8]) -> Result<i64, NumberError> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return Err(NumberError::Invalid);
    }
    let mut exponent = 0i64;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return Err(NumberError::Invalid);
        }
        exponent = (exponent * 10 + i64::from(*byte - b'0')).min(1 << 48);
    }
    Ok(if negative { -exponent } else { exponent })
}

impl FromStr for Number {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Number, NumberError> {
        Number::parse(text)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        let mut coefficient = value.unsigned_abs();
        let mut exponent = 0;
        while coefficient != 0 && coefficient.is_multiple_of(10) {
            coefficient /= 10;
            exponent += 1;
        }
        Number {
            negative: value < 0,
            exponent,
            high: 0,
            low: coefficient,
        }
    }
}

/// In plain digits, without an exponent, whatever the magnitude: as DynamoDB and Spanner answer.
impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            formatter.write_str("-")?;
        }
        let digits = self.coefficient().to_string();
        if self.exponent >= 0 {
            let zeros = self.exponent as usize;
            return write!(formatter, "{digits}{:0<zeros$}", "");
        }
        let places = self.exponent.unsigned_abs() as usize;
        if digits.len() > places {
            let (whole, fraction) = digits.split_at(digits.len() - places);
            write!(formatter, "{whole}.{fraction}")
        } else {
            write!(formatter, "0.{digits:0>places$}")
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        // Sign, then the first digit's place, then digits padded to the same length.
        let rank = |number: &Number| {
            if number.is_zero() {
                return (0i32, 0i32, 0u128);
            }
            let digits = number.coefficient().ilog10();
            let padded = number.coefficient() * 10u128.pow(DIGITS_MAX as u32 - 1 - digits);
            (1, number.exponent + digits as i32, padded)
        };
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => rank(self).cmp(&rank(other)),
            (true, true) => rank(other).cmp(&rank(self)),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<C> Encode<C> for Number {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder
            .array(4)?
            .bool(self.negative)?
            .i32(self.exponent)?
            .u64(self.high)?
            .u64(self.low)?;
        Ok(())
    }
}

/// By hand, so that what arrives is canonical or refused.
impl<'b, C> Decode<'b, C> for Number {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Number, minicbor::decode::Error> {
        if decoder.array()? != Some(4) {
            return Err(minicbor::decode::Error::message("a number has four parts"));
        }
        let negative = decoder.bool()?;
        let exponent = decoder.i32()?;
        let high = decoder.u64()?;
        let low = decoder.u64()?;
        Number::from_parts(negative, u128::from(high) << 64 | u128::from(low), exponent)
            .map_err(|error| minicbor::decode::Error::message(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Number, NumberError};

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn text_becomes_canonical() {
        for (text, canonical) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("0E500", "0"),
            ("007", "7"),
            ("1.500", "1.5"),
            ("-.5", "-0.5"),
            ("5.", "5"),
            ("1e3", "1000"),
            ("1.23E-4", "0.000123"),
            ("+12.0e1", "120"),
        ] {
            assert_eq!(number(text).to_string(), canonical, "{text}");
        }
        assert_eq!(number("1E125").to_string().len(), 126);
    }

    #[test]
    fn limits_are_dynamodbs() {
        assert!(Number::parse("9.9999999999999999999999999999999999999E+125").is_ok());
        assert!(Number::parse("1E-130").is_ok());
        assert_eq!(Number::parse("1E126"), Err(NumberError::Overflow));
        assert_eq!(Number::parse("-1E126"), Err(NumberError::Overflow));
        assert_eq!(Number::parse("1E-131"), Err(NumberError::Underflow));
        assert_eq!(
            Number::parse(&"1".repeat(39)),
            Err(NumberError::TooManyDigits)
        );
        assert_eq!(
            Number::parse(&format!("{}0", "1".repeat(38))).map(|n| n.exponent()),
            Ok(1)
        );
        assert_eq!(
            Number::parse(&format!("1{}1", "0".repeat(99))),
            Err(NumberError::TooManyDigits)
        );
        assert_eq!(
            Number::parse(&format!("0.1{}1", "0".repeat(999))),
            Err(NumberError::TooManyDigits)
        );
        assert_eq!(
            Number::parse("1E99999999999999999999"),
            Err(NumberError::Overflow)
        );
        for text in [
            "", "-", ".", "e5", "1e", "1e+", "1.2.3", " 1", "1 ", "0x1", "NaN",
        ] {
            assert_eq!(Number::parse(text), Err(NumberError::Invalid), "{text:?}");
        }
    }

    #[test]
    fn sums_are_exact_or_refused() {
        let sum = |left, right| number(left).checked_add(number(right));
        assert_eq!(sum("0.1", "0.2"), Ok(number("0.3")));
        assert_eq!(sum("5", "-5"), Ok(Number::ZERO));
        assert_eq!(
            sum("1e30", "1"),
            Ok(number("1000000000000000000000000000001"))
        );
        assert_eq!(sum("1e38", "1"), Err(NumberError::TooManyDigits));
        assert_eq!(sum("1e100", "1"), Err(NumberError::TooManyDigits));
        assert_eq!(sum("1e38", "-1"), Ok(number(&"9".repeat(38))));
        assert_eq!(sum("9e125", "1e125"), Err(NumberError::Overflow));
        assert_eq!(number("-3").checked_sub(number("4.5")), Ok(number("-7.5")));
    }

    #[test]
    fn order_is_numeric() {
        let ascending = [
            "-1e125", "-11", "-2", "-1.5", "-0.1", "-1e-130", "0", "1e-130", "0.1", "0.11", "1",
            "2", "11", "1e125",
        ];
        for pair in ascending.windows(2) {
            assert!(number(pair[0]) < number(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn numeric_rounds_half_away_from_zero() {
        let numeric = |text| Number::parse_numeric(text);
        assert_eq!(numeric("0.0000000005"), Ok(number("0.000000001")));
        assert_eq!(numeric("-0.0000000005"), Ok(number("-0.000000001")));
        assert_eq!(numeric("0.00000000049"), Ok(Number::ZERO));
        let largest = format!("{}.{}", "9".repeat(29), "9".repeat(9));
        assert_eq!(numeric(&largest).unwrap().to_string(), largest);
        assert_eq!(numeric("1e29"), Err(NumberError::Overflow));
        assert_eq!(numeric("1e-400000"), Ok(Number::ZERO));
        assert_eq!(
            number("2").numeric_div(number("3")),
            Ok(number("0.666666667"))
        );
        assert_eq!(
            number("-1.5").numeric_mul(number("1.5")),
            Ok(number("-2.25"))
        );
        assert_eq!(
            number("1").numeric_div(Number::ZERO),
            Err(NumberError::DivisionByZero)
        );
        let largest = numeric(&largest).unwrap();
        assert_eq!(largest.numeric_add(number("1")), Err(NumberError::Overflow));
    }

    #[test]
    fn conversions_are_exact_where_they_can_be() {
        for value in [0, 1, -1, 1_000, i64::MAX, i64::MIN] {
            assert_eq!(Number::from(value).to_i64(), Some(value));
            assert_eq!(number(&value.to_string()), Number::from(value));
        }
        assert_eq!(number("1.5").to_i64(), None);
        assert_eq!(number("1e19").to_i64(), None);
        assert_eq!(Number::from_f64(0.1), Ok(number("0.1")));
        assert_eq!(number("0.1").to_f64(), 0.1);
        assert_eq!(Number::from_f64(f64::NAN), Err(NumberError::Invalid));
    }
}
