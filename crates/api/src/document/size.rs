//! How large an item is, as DynamoDB counts it: names and texts in UTF-8 bytes, binaries in bytes, a number
//! one byte for two digits and one more, null and bool one byte, a list or map three bytes and one for each
//! element.

use super::Item;
use model::{Number, Value};

/// The largest item, its attribute names included.
pub const ITEM_SIZE_BYTES_MAX: u64 = 400 * 1024;
/// The deepest nesting of lists and maps in an item.
pub const DEPTH_MAX: u32 = 32;

pub fn item_size_bytes(item: &Item) -> u64 {
    item.iter()
        .map(|(name, value)| attribute_size_bytes(name, value))
        .sum()
}

pub fn attribute_size_bytes(name: &str, value: &Value) -> u64 {
    name.len() as u64 + value_size_bytes(value)
}

pub fn value_size_bytes(value: &Value) -> u64 {
    match value {
        Value::Text(text) => text.len() as u64,
        Value::Bytes(bytes) => bytes.len() as u64,
        Value::Number(number) => number_size_bytes(number),
        Value::Set(members) => members.iter().map(value_size_bytes).sum(),
        Value::List(elements) => {
            3 + elements
                .iter()
                .map(|element| 1 + value_size_bytes(element))
                .sum::<u64>()
        }
        Value::Document(fields) => 3 + fields.len() as u64 + item_size_bytes(fields),
        _ => 1,
    }
}

/// Two digits a byte, aligned to even powers of ten, one byte for the exponent, one for a minus.
fn number_size_bytes(number: &Number) -> u64 {
    if number.is_zero() {
        return 1;
    }
    let digits = u64::from(number.coefficient().ilog10()) + 1;
    let magnitude = i64::from(number.exponent()) + digits as i64 - 1;
    let straddles = digits.is_multiple_of(2) && magnitude % 2 == 0;
    1 + digits.div_ceil(2) + u64::from(straddles) + u64::from(number.is_negative())
}

/// The levels of lists and maps in a value: 0 for a scalar or a set.
pub fn depth(value: &Value) -> u32 {
    match value {
        Value::List(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Value::Document(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
