//! DynamoDB's conditions and updates on one item: trees that a door parses and a leaseholder evaluates. Pure.

use minicbor::{Decode, Encode};
use model::Value;
use std::collections::BTreeMap;

/// An item: attribute name → value.
pub type Item = BTreeMap<String, Value>;

/// A condition expression.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Condition {
    #[n(0)]
    Not(#[n(0)] Box<Condition>),
}

/// An update expression.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Update {}

impl Condition {
    pub fn holds(&self, item: &Item) -> bool {
        match self {
            Condition::Not(inner) => !inner.holds(item),
        }
    }
}

impl Update {
    /// The item after the update. Right-hand sides read the item as it was before.
    pub fn apply(&self, item: &Item) -> Result<Item, String> {
        Ok(item.clone())
    }
}
