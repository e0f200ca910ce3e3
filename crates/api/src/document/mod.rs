//! DynamoDB's conditions and updates on one item: trees that a door parses and a leaseholder evaluates.
//!
//! Everything here is pure, and total: whatever the item holds, a condition is true or false, and an update
//! yields a new item or one of DynamoDB's own messages. Names and values are substituted already; reserved
//! words, placeholders and limits on the text are the door's business. Values inside an item are those of
//! DynamoDB's ten attribute types, spelt `Text`, `Number`, `Bytes`, `Bool`, `Null`, `List`, `Document`, and
//! `Set` (never empty, sorted, so that equal sets are equal values).

mod condition;
mod path;
mod size;
mod update;

#[cfg(test)]
mod tests;

pub use condition::{Comparator, Condition, Operand};
pub use path::{Path, Step};
pub use size::{
    DEPTH_MAX, ITEM_SIZE_BYTES_MAX, attribute_size_bytes, depth, item_size_bytes, value_size_bytes,
};
pub use update::{Dialect, SetOperand, SetValue, Update};

use minicbor::{Decode, Encode};
use model::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// An item, or an M: attribute name → value.
pub type Item = BTreeMap<String, Value>;

/// DynamoDB's attribute types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum AttributeType {
    #[n(0)]
    String,
    #[n(1)]
    Number,
    #[n(2)]
    Binary,
    #[n(3)]
    StringSet,
    #[n(4)]
    NumberSet,
    #[n(5)]
    BinarySet,
    #[n(6)]
    Map,
    #[n(7)]
    List,
    #[n(8)]
    Null,
    #[n(9)]
    Bool,
}

impl AttributeType {
    /// The type of a value; `None` for values that no item holds.
    pub fn of(value: &Value) -> Option<AttributeType> {
        Some(match value {
            Value::Text(_) => AttributeType::String,
            Value::Number(_) => AttributeType::Number,
            Value::Bytes(_) => AttributeType::Binary,
            Value::Set(members) => match members.first()? {
                Value::Text(_) => AttributeType::StringSet,
                Value::Number(_) => AttributeType::NumberSet,
                Value::Bytes(_) => AttributeType::BinarySet,
                _ => return None,
            },
            Value::Document(_) => AttributeType::Map,
            Value::List(_) => AttributeType::List,
            Value::Null => AttributeType::Null,
            Value::Bool(_) => AttributeType::Bool,
            _ => return None,
        })
    }

    /// Its descriptor on the wire.
    pub fn descriptor(self) -> &'static str {
        match self {
            AttributeType::String => "S",
            AttributeType::Number => "N",
            AttributeType::Binary => "B",
            AttributeType::StringSet => "SS",
            AttributeType::NumberSet => "NS",
            AttributeType::BinarySet => "BS",
            AttributeType::Map => "M",
            AttributeType::List => "L",
            AttributeType::Null => "NULL",
            AttributeType::Bool => "BOOL",
        }
    }

    pub fn from_descriptor(descriptor: &str) -> Option<AttributeType> {
        Some(match descriptor {
            "S" => AttributeType::String,
            "N" => AttributeType::Number,
            "B" => AttributeType::Binary,
            "SS" => AttributeType::StringSet,
            "NS" => AttributeType::NumberSet,
            "BS" => AttributeType::BinarySet,
            "M" => AttributeType::Map,
            "L" => AttributeType::List,
            "NULL" => AttributeType::Null,
            "BOOL" => AttributeType::Bool,
            _ => return None,
        })
    }
}

/// The order of two values of one ordered type (S by UTF-8 bytes, N by value, B by unsigned bytes);
/// `None` for anything else.
pub fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        (Value::Number(left), Value::Number(right)) => Some(left.cmp(right)),
        (Value::Bytes(left), Value::Bytes(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// An item in two parts: its key attributes, which a row's key holds, and the rest.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub key: &'a [(String, Value)],
    pub document: &'a Item,
}

impl<'a> Attributes<'a> {
    pub fn of(document: &'a Item) -> Attributes<'a> {
        Attributes { key: &[], document }
    }

    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.key
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
            .or_else(|| self.document.get(name))
    }
}
