//! Which functions there are, with which arguments. Of several overloads the one that needs the
//! fewest coercions is taken, and of equals the first here.

use super::{Body, Function, arithmetic as a, text as t, time as d};
use crate::types::SqlType;

/// A parameter's or result's type.
#[derive(Clone, Copy, Debug, PartialEq)]
enum K {
    Bool,
    Int,
    Float,
    Numeric,
    Str,
    Bytes,
    Date,
    Time,
    Strings,
    BytesArray,
    Ints,
}

impl K {
    fn kind(self) -> SqlType {
        match self {
            K::Bool => SqlType::Bool,
            K::Int => SqlType::Int64,
            K::Float => SqlType::Float64,
            K::Numeric => SqlType::Numeric,
            K::Str => SqlType::String,
            K::Bytes => SqlType::Bytes,
            K::Date => SqlType::Date,
            K::Time => SqlType::Timestamp,
            K::Strings => SqlType::array(SqlType::String),
            K::BytesArray => SqlType::array(SqlType::Bytes),
            K::Ints => SqlType::array(SqlType::Int64),
        }
    }
}

struct Signature {
    name: &'static str,
    parameters: &'static [K],
    /// Parameters at the end that may be left out.
    optional: usize,
    /// The last parameter may be repeated.
    variadic: bool,
    result: K,
    body: Body,
}

const fn fixed(name: &'static str, parameters: &'static [K], result: K, body: Body) -> Signature {
    Signature {
        name,
        parameters,
        optional: 0,
        variadic: false,
        result,
        body,
    }
}

const fn optional(
    name: &'static str,
    parameters: &'static [K],
    optional: usize,
    result: K,
    body: Body,
) -> Signature {
    Signature {
        name,
        parameters,
        optional,
        variadic: false,
        result,
        body,
    }
}

const fn variadic(
    name: &'static str,
    parameters: &'static [K],
    result: K,
    body: Body,
) -> Signature {
    Signature {
        name,
        parameters,
        optional: 0,
        variadic: true,
        result,
        body,
    }
}

use K::{Bool, Bytes, BytesArray, Date, Float, Int, Ints, Numeric, Str, Strings, Time};

#[rustfmt::skip]
static SIGNATURES: &[Signature] = &[
    // Operators have names that no identifier can have.
    fixed("+", &[Int, Int], Int, a::add_int),
    fixed("+", &[Numeric, Numeric], Numeric, a::add_numeric),
    fixed("+", &[Float, Float], Float, a::add_float),
    fixed("+", &[Date, Int], Date, d::date_plus),
    fixed("+", &[Int, Date], Date, d::plus_date),
    fixed("-", &[Int, Int], Int, a::subtract_int),
    fixed("-", &[Numeric, Numeric], Numeric, a::subtract_numeric),
    fixed("-", &[Float, Float], Float, a::subtract_float),
    fixed("-", &[Date, Int], Date, d::date_minus),
    fixed("*", &[Int, Int], Int, a::multiply_int),
    fixed("*", &[Numeric, Numeric], Numeric, a::multiply_numeric),
    fixed("*", &[Float, Float], Float, a::multiply_float),
    fixed("/", &[Int, Int], Float, a::divide_int),
    fixed("/", &[Numeric, Numeric], Numeric, a::divide_numeric),
    fixed("/", &[Float, Float], Float, a::divide_float),
    fixed("u-", &[Int], Int, a::negate_int),
    fixed("u-", &[Numeric], Numeric, a::negate_numeric),
    fixed("u-", &[Float], Float, a::negate_float),
    fixed("~", &[Int], Int, a::bit_not),
    fixed("~", &[Bytes], Bytes, a::bit_not_bytes),
    fixed("&", &[Int, Int], Int, a::bit_and),
    fixed("&", &[Bytes, Bytes], Bytes, a::bit_and_bytes),
    fixed("|", &[Int, Int], Int, a::bit_or),
    fixed("|", &[Bytes, Bytes], Bytes, a::bit_or_bytes),
    fixed("^", &[Int, Int], Int, a::bit_xor),
    fixed("^", &[Bytes, Bytes], Bytes, a::bit_xor_bytes),
    fixed("<<", &[Int, Int], Int, a::shift_left),
    fixed(">>", &[Int, Int], Int, a::shift_right),
    variadic("CONCAT", &[Str, Str], Str, t::concat),
    variadic("CONCAT", &[Bytes, Bytes], Bytes, t::concat),
    variadic("CONCAT", &[Str], Str, t::concat),
    variadic("CONCAT", &[Bytes], Bytes, t::concat),
    // Numbers.
    fixed("ABS", &[Int], Int, a::abs_int),
    fixed("ABS", &[Numeric], Numeric, a::abs_numeric),
    fixed("ABS", &[Float], Float, a::abs_float),
    fixed("SIGN", &[Int], Int, a::sign_int),
    fixed("SIGN", &[Numeric], Numeric, a::sign_numeric),
    fixed("SIGN", &[Float], Float, a::sign_float),
    fixed("MOD", &[Int, Int], Int, a::mod_int),
    fixed("MOD", &[Numeric, Numeric], Numeric, a::mod_numeric),
    fixed("DIV", &[Int, Int], Int, a::div_int),
    fixed("DIV", &[Numeric, Numeric], Numeric, a::div_numeric),
    fixed("SAFE_ADD", &[Int, Int], Int, a::add_int),
    fixed("SAFE_SUBTRACT", &[Int, Int], Int, a::subtract_int),
    fixed("SAFE_MULTIPLY", &[Int, Int], Int, a::multiply_int),
    fixed("SAFE_NEGATE", &[Int], Int, a::negate_int),
    fixed("SAFE_DIVIDE", &[Int, Int], Float, a::divide_int),
    fixed("SAFE_DIVIDE", &[Numeric, Numeric], Numeric, a::divide_numeric),
    fixed("SAFE_DIVIDE", &[Float, Float], Float, a::divide_float),
    fixed("IEEE_DIVIDE", &[Float, Float], Float, a::ieee_divide),
    fixed("FLOOR", &[Float], Float, a::floor),
    fixed("FLOOR", &[Numeric], Numeric, a::floor_numeric),
    fixed("CEIL", &[Float], Float, a::ceil),
    fixed("CEIL", &[Numeric], Numeric, a::ceil_numeric),
    fixed("CEILING", &[Float], Float, a::ceil),
    fixed("CEILING", &[Numeric], Numeric, a::ceil_numeric),
    optional("ROUND", &[Float, Int], 1, Float, a::round),
    optional("ROUND", &[Numeric, Int], 1, Numeric, a::round_numeric),
    optional("TRUNC", &[Float, Int], 1, Float, a::trunc),
    optional("TRUNC", &[Numeric, Int], 1, Numeric, a::trunc_numeric),
    fixed("SQRT", &[Float], Float, a::sqrt),
    fixed("POW", &[Float, Float], Float, a::pow),
    fixed("POWER", &[Float, Float], Float, a::pow),
    fixed("EXP", &[Float], Float, a::exp),
    fixed("LN", &[Float], Float, a::ln),
    fixed("LOG10", &[Float], Float, a::log10),
    optional("LOG", &[Float, Float], 1, Float, a::log),
    fixed("SIN", &[Float], Float, a::sin),
    fixed("COS", &[Float], Float, a::cos),
    fixed("TAN", &[Float], Float, a::tan),
    fixed("ASIN", &[Float], Float, a::asin),
    fixed("ACOS", &[Float], Float, a::acos),
    fixed("ATAN", &[Float], Float, a::atan),
    fixed("ATAN2", &[Float, Float], Float, a::atan2),
    fixed("IS_NAN", &[Float], Bool, a::is_nan),
    fixed("IS_INF", &[Float], Bool, a::is_inf),
    fixed("BIT_COUNT", &[Int], Int, a::bit_count),
    optional("GENERATE_ARRAY", &[Int, Int, Int], 1, Ints, a::generate_array),
    // Text and bytes.
    fixed("STARTS_WITH", &[Str, Str], Bool, t::starts_with),
    fixed("STARTS_WITH", &[Bytes, Bytes], Bool, t::starts_with),
    fixed("ENDS_WITH", &[Str, Str], Bool, t::ends_with),
    fixed("ENDS_WITH", &[Bytes, Bytes], Bool, t::ends_with),
    fixed("LENGTH", &[Str], Int, t::length),
    fixed("LENGTH", &[Bytes], Int, t::length),
    fixed("CHAR_LENGTH", &[Str], Int, t::length),
    fixed("CHARACTER_LENGTH", &[Str], Int, t::length),
    fixed("BYTE_LENGTH", &[Str], Int, t::byte_length),
    fixed("BYTE_LENGTH", &[Bytes], Int, t::byte_length),
    fixed("LOWER", &[Str], Str, t::lower),
    fixed("UPPER", &[Str], Str, t::upper),
    optional("TRIM", &[Str, Str], 1, Str, t::trim),
    optional("LTRIM", &[Str, Str], 1, Str, t::trim_start),
    optional("RTRIM", &[Str, Str], 1, Str, t::trim_end),
    optional("SUBSTR", &[Str, Int, Int], 1, Str, t::substr),
    optional("SUBSTR", &[Bytes, Int, Int], 1, Bytes, t::substr),
    optional("SUBSTRING", &[Str, Int, Int], 1, Str, t::substr),
    optional("SUBSTRING", &[Bytes, Int, Int], 1, Bytes, t::substr),
    fixed("LEFT", &[Str, Int], Str, t::left),
    fixed("RIGHT", &[Str, Int], Str, t::right),
    fixed("STRPOS", &[Str, Str], Int, t::strpos),
    fixed("REPLACE", &[Str, Str, Str], Str, t::replace),
    fixed("REVERSE", &[Str], Str, t::reverse),
    fixed("REVERSE", &[Bytes], Bytes, t::reverse),
    fixed("REPEAT", &[Str, Int], Str, t::repeat),
    fixed("REPEAT", &[Bytes, Int], Bytes, t::repeat),
    optional("LPAD", &[Str, Int, Str], 1, Str, t::lpad),
    optional("RPAD", &[Str, Int, Str], 1, Str, t::rpad),
    optional("SPLIT", &[Str, Str], 1, Strings, t::split),
    fixed("ARRAY_TO_STRING", &[Strings, Str], Str, t::join),
    fixed("ARRAY_TO_STRING", &[BytesArray, Bytes], Bytes, t::join),
    fixed("TO_HEX", &[Bytes], Str, t::to_hex),
    fixed("FROM_HEX", &[Str], Bytes, t::from_hex),
    fixed("TO_BASE64", &[Bytes], Str, t::to_base64),
    fixed("FROM_BASE64", &[Str], Bytes, t::from_base64),
    // Dates and instants.
    fixed("DATE", &[Int, Int, Int], Date, d::date_of_parts),
    optional("DATE", &[Time, Str], 1, Date, d::date_of_timestamp),
    optional("TIMESTAMP", &[Str, Str], 1, Time, d::timestamp_of_text),
    optional("TIMESTAMP", &[Date, Str], 1, Time, d::timestamp_of_date),
    optional("STRING", &[Time, Str], 1, Str, d::text_of_timestamp),
    fixed("UNIX_SECONDS", &[Time], Int, d::unix_seconds),
    fixed("UNIX_MILLIS", &[Time], Int, d::unix_millis),
    fixed("UNIX_MICROS", &[Time], Int, d::unix_micros),
    fixed("UNIX_DATE", &[Date], Int, d::unix_date),
    fixed("TIMESTAMP_SECONDS", &[Int], Time, d::timestamp_seconds),
    fixed("TIMESTAMP_MILLIS", &[Int], Time, d::timestamp_millis),
    fixed("TIMESTAMP_MICROS", &[Int], Time, d::timestamp_micros),
    fixed("DATE_FROM_UNIX_DATE", &[Int], Date, d::date_from_unix),
];

/// What giving an argument for a parameter costs: coercions of values with a type of their own, then of
/// literals. Fewer of the first are better than any number of the second.
pub type Cost = (u32, u32);

/// The cheapest signature for the arguments: its function, the types to coerce them to, and the result's type.
/// `cost(argument, parameter)` is `None` when the argument cannot be given for the parameter.
/// `None`: there is no function of the name. `Some(None)`: there is, but for other arguments.
pub fn resolve(
    name: &str,
    count: usize,
    cost: &dyn Fn(usize, &SqlType) -> Option<Cost>,
) -> Option<Option<(Function, Vec<SqlType>, SqlType)>> {
    let named = || SIGNATURES.iter().filter(|signature| signature.name == name);
    named().next()?;
    let mut best: Option<(Cost, &Signature, Vec<SqlType>)> = None;
    for signature in named() {
        let Some(parameters) = parameters(signature, count) else {
            continue;
        };
        let costs: Option<Vec<Cost>> = parameters
            .iter()
            .enumerate()
            .map(|(index, parameter)| cost(index, parameter))
            .collect();
        let Some(costs) = costs else { continue };
        let total = costs
            .iter()
            .fold((0, 0), |sum, cost| (sum.0 + cost.0, sum.1 + cost.1));
        if best.as_ref().is_none_or(|(known, ..)| total < *known) {
            best = Some((total, signature, parameters));
        }
    }
    Some(best.map(|(_, signature, parameters)| {
        let function = Function {
            name: signature.name,
            strict: signature.name != "ARRAY_TO_STRING",
            body: signature.body,
        };
        (function, parameters, signature.result.kind())
    }))
}

fn parameters(signature: &Signature, count: usize) -> Option<Vec<SqlType>> {
    let all = signature.parameters;
    if signature.variadic && count >= all.len() {
        let last = *all.last()?;
        let repeated = std::iter::repeat_n(last, count - all.len());
        return Some(all.iter().copied().chain(repeated).map(K::kind).collect());
    }
    let within = (all.len() - signature.optional..=all.len()).contains(&count);
    within.then(|| {
        all[..count]
            .iter()
            .map(|parameter| parameter.kind())
            .collect()
    })
}
