//! Numbers.

use super::mismatch;
use crate::error::Error;
use crate::value::{float_text, numeric_text};
use model::{Number, Value};

type Result<T> = std::result::Result<T, Error>;

fn ints(name: &str, values: &[Value]) -> Result<(i64, i64)> {
    match values {
        [Value::Int(left), Value::Int(right)] => Ok((*left, *right)),
        _ => Err(mismatch(name)),
    }
}

fn int(name: &str, values: &[Value]) -> Result<i64> {
    match values {
        [Value::Int(value)] => Ok(*value),
        _ => Err(mismatch(name)),
    }
}

fn floats(name: &str, values: &[Value]) -> Result<(f64, f64)> {
    match values {
        [Value::Float64(left), Value::Float64(right)] => Ok((*left, *right)),
        _ => Err(mismatch(name)),
    }
}

fn float(name: &str, values: &[Value]) -> Result<f64> {
    match values {
        [Value::Float64(value)] => Ok(*value),
        _ => Err(mismatch(name)),
    }
}

fn numerics(name: &str, values: &[Value]) -> Result<(Number, Number)> {
    match values {
        [Value::Number(left), Value::Number(right)] => Ok((*left, *right)),
        _ => Err(mismatch(name)),
    }
}

fn numeric(name: &str, values: &[Value]) -> Result<Number> {
    match values {
        [Value::Number(value)] => Ok(*value),
        _ => Err(mismatch(name)),
    }
}

fn int_result(result: Option<i64>, left: i64, sign: &str, right: i64) -> Result<Value> {
    result
        .map(Value::Int)
        .ok_or_else(|| Error::out_of_range(format!("int64 overflow: {left} {sign} {right}")))
}

/// Arithmetic on finite numbers that leaves the range is an error; infinities pass through.
fn float_result(result: f64, left: f64, sign: &str, right: f64) -> Result<Value> {
    let went_out = !result.is_finite() && left.is_finite() && right.is_finite();
    match went_out {
        true => Err(Error::out_of_range(format!(
            "double overflow: {} {sign} {}",
            float_text(left),
            float_text(right)
        ))),
        false => Ok(Value::Float64(result)),
    }
}

fn numeric_result<E>(
    result: std::result::Result<Number, E>,
    left: Number,
    sign: &str,
    right: Number,
) -> Result<Value> {
    result.map(Value::Number).map_err(|_| {
        Error::out_of_range(format!(
            "numeric overflow: {} {sign} {}",
            numeric_text(left),
            numeric_text(right)
        ))
    })
}

macro_rules! binary {
    ($int:ident, $numeric:ident, $float:ident, $sign:literal, $checked:ident, $numeric_op:ident, $op:tt) => {
        pub fn $int(values: &[Value]) -> Result<Value> {
            let (left, right) = ints($sign, values)?;
            int_result(left.$checked(right), left, $sign, right)
        }

        pub fn $numeric(values: &[Value]) -> Result<Value> {
            let (left, right) = numerics($sign, values)?;
            numeric_result(left.$numeric_op(right), left, $sign, right)
        }

        pub fn $float(values: &[Value]) -> Result<Value> {
            let (left, right) = floats($sign, values)?;
            float_result(left $op right, left, $sign, right)
        }
    };
}

binary!(add_int, add_numeric, add_float, "+", checked_add, numeric_add, +);
binary!(subtract_int, subtract_numeric, subtract_float, "-", checked_sub, numeric_sub, -);
binary!(multiply_int, multiply_numeric, multiply_float, "*", checked_mul, numeric_mul, *);

pub fn divide_numeric(values: &[Value]) -> Result<Value> {
    let (left, right) = numerics("/", values)?;
    if right.is_zero() {
        return Err(division_by_zero(&numeric_text(left)));
    }
    numeric_result(left.numeric_div(right), left, "/", right)
}

pub fn divide_float(values: &[Value]) -> Result<Value> {
    let (left, right) = floats("/", values)?;
    if right == 0.0 {
        return Err(division_by_zero(&float_text(left)));
    }
    float_result(left / right, left, "/", right)
}

/// INT64 / INT64 is a FLOAT64.
pub fn divide_int(values: &[Value]) -> Result<Value> {
    let (left, right) = ints("/", values)?;
    match right {
        0 => Err(division_by_zero(&left.to_string())),
        _ => Ok(Value::Float64(left as f64 / right as f64)),
    }
}

pub fn ieee_divide(values: &[Value]) -> Result<Value> {
    let (left, right) = floats("IEEE_DIVIDE", values)?;
    Ok(Value::Float64(left / right))
}

fn division_by_zero(left: &str) -> Error {
    Error::out_of_range(format!("division by zero: {left} / 0"))
}

pub fn mod_int(values: &[Value]) -> Result<Value> {
    let (left, right) = ints("MOD", values)?;
    match right {
        0 => Err(division_by_zero(&left.to_string())),
        _ => Ok(Value::Int(left.wrapping_rem(right))),
    }
}

pub fn div_int(values: &[Value]) -> Result<Value> {
    let (left, right) = ints("DIV", values)?;
    match right {
        0 => Err(division_by_zero(&left.to_string())),
        _ => int_result(left.checked_div(right), left, "/", right),
    }
}

fn units(number: Number) -> i128 {
    number.numeric_units().unwrap_or(0)
}

fn of_units(units: i128) -> Result<Value> {
    Number::from_numeric_units(units)
        .map(Value::Number)
        .map_err(|_| Error::out_of_range("numeric overflow"))
}

pub fn mod_numeric(values: &[Value]) -> Result<Value> {
    let (left, right) = numerics("MOD", values)?;
    match units(right) {
        0 => Err(division_by_zero(&numeric_text(left))),
        divisor => of_units(units(left) % divisor),
    }
}

pub fn div_numeric(values: &[Value]) -> Result<Value> {
    let (left, right) = numerics("DIV", values)?;
    match units(right) {
        0 => Err(division_by_zero(&numeric_text(left))),
        divisor => (units(left) / divisor)
            .checked_mul(1_000_000_000)
            .map_or_else(|| Err(Error::out_of_range("numeric overflow")), of_units),
    }
}

pub fn negate_int(values: &[Value]) -> Result<Value> {
    let value = int("-", values)?;
    let negated = value.checked_neg().map(Value::Int);
    negated.ok_or_else(|| Error::out_of_range(format!("int64 overflow: -({value})")))
}

pub fn negate_numeric(values: &[Value]) -> Result<Value> {
    Ok(Value::Number(numeric("-", values)?.negate()))
}

pub fn negate_float(values: &[Value]) -> Result<Value> {
    Ok(Value::Float64(-float("-", values)?))
}

pub fn abs_int(values: &[Value]) -> Result<Value> {
    let value = int("ABS", values)?;
    let absolute = value.checked_abs().map(Value::Int);
    absolute.ok_or_else(|| Error::out_of_range(format!("int64 overflow: ABS({value})")))
}

pub fn abs_numeric(values: &[Value]) -> Result<Value> {
    Ok(Value::Number(numeric("ABS", values)?.abs()))
}

pub fn abs_float(values: &[Value]) -> Result<Value> {
    Ok(Value::Float64(float("ABS", values)?.abs()))
}

pub fn sign_int(values: &[Value]) -> Result<Value> {
    Ok(Value::Int(int("SIGN", values)?.signum()))
}

pub fn sign_numeric(values: &[Value]) -> Result<Value> {
    let sign = units(numeric("SIGN", values)?).signum();
    of_units(sign * 1_000_000_000)
}

pub fn sign_float(values: &[Value]) -> Result<Value> {
    let value = float("SIGN", values)?;
    Ok(Value::Float64(if value == 0.0 || value.is_nan() {
        value
    } else {
        value.signum()
    }))
}

pub fn bit_not(values: &[Value]) -> Result<Value> {
    Ok(Value::Int(!int("~", values)?))
}

pub fn bit_and(values: &[Value]) -> Result<Value> {
    let (left, right) = ints("&", values)?;
    Ok(Value::Int(left & right))
}

pub fn bit_or(values: &[Value]) -> Result<Value> {
    let (left, right) = ints("|", values)?;
    Ok(Value::Int(left | right))
}

pub fn bit_xor(values: &[Value]) -> Result<Value> {
    let (left, right) = ints("^", values)?;
    Ok(Value::Int(left ^ right))
}

fn bytewise(name: &str, values: &[Value], combine: fn(u8, u8) -> u8) -> Result<Value> {
    match values {
        [Value::Bytes(left), Value::Bytes(right)] if left.len() == right.len() => Ok(Value::Bytes(
            left.iter()
                .zip(right)
                .map(|(left, right)| combine(*left, *right))
                .collect(),
        )),
        [Value::Bytes(_), Value::Bytes(_)] => Err(Error::out_of_range(format!(
            "Bitwise binary operator {name} for BYTES requires equal length of the inputs"
        ))),
        _ => Err(mismatch(name)),
    }
}

pub fn bit_not_bytes(values: &[Value]) -> Result<Value> {
    match values {
        [Value::Bytes(bytes)] => Ok(Value::Bytes(bytes.iter().map(|byte| !byte).collect())),
        _ => Err(mismatch("~")),
    }
}

pub fn bit_and_bytes(values: &[Value]) -> Result<Value> {
    bytewise("&", values, |left, right| left & right)
}

pub fn bit_or_bytes(values: &[Value]) -> Result<Value> {
    bytewise("|", values, |left, right| left | right)
}

pub fn bit_xor_bytes(values: &[Value]) -> Result<Value> {
    bytewise("^", values, |left, right| left ^ right)
}

fn shift(values: &[Value], name: &str, by: fn(u64, u32) -> u64) -> Result<Value> {
    let (left, right) = ints(name, values)?;
    if right < 0 {
        return Err(Error::out_of_range(format!(
            "Bitwise binary operator {name} requires a non-negative right operand"
        )));
    }
    Ok(Value::Int(match u32::try_from(right) {
        Ok(right) if right < 64 => by(left as u64, right) as i64,
        _ => 0,
    }))
}

pub fn shift_left(values: &[Value]) -> Result<Value> {
    shift(values, "<<", |left, right| left << right)
}

pub fn shift_right(values: &[Value]) -> Result<Value> {
    shift(values, ">>", |left, right| left >> right)
}

pub fn bit_count(values: &[Value]) -> Result<Value> {
    Ok(Value::Int(i64::from(
        int("BIT_COUNT", values)?.count_ones(),
    )))
}

/// A function of one number: outside `valid`, and where it has no finite value, it is an error.
fn of_float(
    name: &str,
    values: &[Value],
    valid: fn(f64) -> bool,
    body: fn(f64) -> f64,
) -> Result<Value> {
    let value = float(name, values)?;
    let result = body(value);
    match valid(value) && (result.is_finite() || !value.is_finite()) {
        true => Ok(Value::Float64(result)),
        false => Err(Error::out_of_range(format!(
            "Floating point error in function: {name}({})",
            float_text(value)
        ))),
    }
}

pub fn floor(values: &[Value]) -> Result<Value> {
    of_float("FLOOR", values, |_| true, f64::floor)
}

pub fn ceil(values: &[Value]) -> Result<Value> {
    of_float("CEIL", values, |_| true, f64::ceil)
}

pub fn sqrt(values: &[Value]) -> Result<Value> {
    of_float(
        "SQRT",
        values,
        |value| value >= 0.0 || value.is_nan(),
        f64::sqrt,
    )
}

pub fn exp(values: &[Value]) -> Result<Value> {
    of_float("EXP", values, |_| true, f64::exp)
}

pub fn ln(values: &[Value]) -> Result<Value> {
    of_float("LN", values, |value| value > 0.0 || value.is_nan(), f64::ln)
}

pub fn log10(values: &[Value]) -> Result<Value> {
    of_float(
        "LOG10",
        values,
        |value| value > 0.0 || value.is_nan(),
        f64::log10,
    )
}

pub fn sin(values: &[Value]) -> Result<Value> {
    of_float("SIN", values, |value| !value.is_infinite(), f64::sin)
}

pub fn cos(values: &[Value]) -> Result<Value> {
    of_float("COS", values, |value| !value.is_infinite(), f64::cos)
}

pub fn tan(values: &[Value]) -> Result<Value> {
    of_float("TAN", values, |value| !value.is_infinite(), f64::tan)
}

pub fn asin(values: &[Value]) -> Result<Value> {
    of_float(
        "ASIN",
        values,
        |value| value.abs() <= 1.0 || value.is_nan(),
        f64::asin,
    )
}

pub fn acos(values: &[Value]) -> Result<Value> {
    of_float(
        "ACOS",
        values,
        |value| value.abs() <= 1.0 || value.is_nan(),
        f64::acos,
    )
}

pub fn atan(values: &[Value]) -> Result<Value> {
    of_float("ATAN", values, |_| true, f64::atan)
}

pub fn atan2(values: &[Value]) -> Result<Value> {
    let (left, right) = floats("ATAN2", values)?;
    Ok(Value::Float64(left.atan2(right)))
}

pub fn log(values: &[Value]) -> Result<Value> {
    let [first, base] = values else {
        return ln(values);
    };
    let (value, base) = floats("LOG", &[first.clone(), base.clone()])?;
    if value <= 0.0 || base <= 0.0 || base == 1.0 {
        return Err(Error::out_of_range("Floating point error in function: LOG"));
    }
    Ok(Value::Float64(value.ln() / base.ln()))
}

pub fn pow(values: &[Value]) -> Result<Value> {
    let (left, right) = floats("POW", values)?;
    let result = left.powf(right);
    let invalid = (result.is_nan() && !left.is_nan() && !right.is_nan())
        || (result.is_infinite() && left.is_finite() && right.is_finite());
    match invalid {
        true => Err(Error::out_of_range(format!(
            "Floating point error in function: POW({}, {})",
            float_text(left),
            float_text(right)
        ))),
        false => Ok(Value::Float64(result)),
    }
}

pub fn is_nan(values: &[Value]) -> Result<Value> {
    Ok(Value::Bool(float("IS_NAN", values)?.is_nan()))
}

pub fn is_inf(values: &[Value]) -> Result<Value> {
    Ok(Value::Bool(float("IS_INF", values)?.is_infinite()))
}

/// Digits of ROUND and TRUNC.
fn digits(values: &[Value]) -> i64 {
    match values.get(1) {
        Some(Value::Int(digits)) => *digits,
        _ => 0,
    }
}

fn float_digits(values: &[Value], round: fn(f64) -> f64) -> Result<Value> {
    let Some(Value::Float64(value)) = values.first() else {
        return Err(mismatch("ROUND"));
    };
    let digits = digits(values).clamp(-400, 400) as i32;
    if !value.is_finite() || digits > 300 {
        return Ok(Value::Float64(*value));
    }
    if digits < -308 {
        return Ok(Value::Float64(0.0));
    }
    let scale = 10f64.powi(digits.abs());
    let scaled = if digits < 0 {
        value / scale
    } else {
        value * scale
    };
    if !scaled.is_finite() {
        return Ok(Value::Float64(*value));
    }
    let rounded = round(scaled);
    let result = if digits < 0 {
        rounded * scale
    } else {
        rounded / scale
    };
    float_result(result, *value, "ROUND", f64::from(digits))
}

pub fn round(values: &[Value]) -> Result<Value> {
    float_digits(values, f64::round)
}

pub fn trunc(values: &[Value]) -> Result<Value> {
    float_digits(values, f64::trunc)
}

/// Units of 10⁻⁹ cut to a multiple of `step`, after adding what decides the rounding.
fn numeric_steps(values: &[Value], digits: i64, round: fn(i128, i128) -> i128) -> Result<Value> {
    let Some(Value::Number(value)) = values.first() else {
        return Err(mismatch("ROUND"));
    };
    let units = units(*value);
    if digits >= 9 {
        return Ok(Value::Number(*value));
    }
    if digits < -29 {
        return of_units(0);
    }
    of_units(round(units, 10i128.pow((9 - digits) as u32)))
}

pub fn round_numeric(values: &[Value]) -> Result<Value> {
    numeric_steps(values, digits(values), |units, step| {
        let half = if units < 0 { -(step / 2) } else { step / 2 };
        units.saturating_add(half) / step * step
    })
}

pub fn trunc_numeric(values: &[Value]) -> Result<Value> {
    numeric_steps(values, digits(values), |units, step| units / step * step)
}

pub fn floor_numeric(values: &[Value]) -> Result<Value> {
    numeric_steps(values, 0, |units, step| units.div_euclid(step) * step)
}

pub fn ceil_numeric(values: &[Value]) -> Result<Value> {
    numeric_steps(values, 0, |units, step| -((-units).div_euclid(step)) * step)
}

/// Elements that GENERATE_ARRAY makes at most.
const GENERATED_MAX: usize = 1_000_000;

pub fn generate_array(values: &[Value]) -> Result<Value> {
    let (Some(Value::Int(start)), Some(Value::Int(end))) = (values.first(), values.get(1)) else {
        return Err(mismatch("GENERATE_ARRAY"));
    };
    let step = match values.get(2) {
        Some(Value::Int(step)) => *step,
        _ => 1,
    };
    if step == 0 {
        return Err(Error::out_of_range("Sequence step cannot be 0."));
    }
    let mut items = Vec::new();
    let mut next = Some(*start);
    while let Some(value) = next {
        if (step > 0 && value > *end) || (step < 0 && value < *end) {
            break;
        }
        if items.len() >= GENERATED_MAX {
            return Err(Error::out_of_range(format!(
                "Cannot generate arrays with more than {GENERATED_MAX} elements."
            )));
        }
        items.push(Value::Int(value));
        next = value.checked_add(step);
    }
    Ok(Value::List(items))
}
