//! Condition and filter expressions.
//!
//! A comparison whose operands differ in type, or one of which is missing, is false, except `<>`, which is
//! the opposite of `=`.

use super::{AttributeType, Attributes, Item, Path, compare};
use minicbor::{Decode, Encode};
use model::{Number, Value};
use std::borrow::Cow;
use std::cmp::Ordering;

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Condition {
    /// True when there are none.
    #[n(0)]
    And(#[n(0)] Vec<Condition>),
    #[n(1)]
    Or(#[n(0)] Vec<Condition>),
    #[n(2)]
    Not(#[n(0)] Box<Condition>),
    #[n(3)]
    Compare {
        #[n(0)]
        left: Operand,
        #[n(1)]
        comparator: Comparator,
        #[n(2)]
        right: Operand,
    },
    #[n(4)]
    Between {
        #[n(0)]
        value: Operand,
        /// Inclusive, as `high`.
        #[n(1)]
        low: Operand,
        #[n(2)]
        high: Operand,
    },
    #[n(5)]
    In {
        #[n(0)]
        value: Operand,
        #[n(1)]
        candidates: Vec<Operand>,
    },
    #[n(6)]
    Exists(#[n(0)] Path),
    #[n(7)]
    Missing(#[n(0)] Path),
    #[n(8)]
    HasType {
        #[n(0)]
        path: Path,
        #[n(1)]
        kind: AttributeType,
    },
    #[n(9)]
    BeginsWith {
        #[n(0)]
        value: Operand,
        #[n(1)]
        prefix: Operand,
    },
    /// A substring, a set's member, or a list's element.
    #[n(10)]
    Contains {
        #[n(0)]
        container: Operand,
        #[n(1)]
        element: Operand,
    },
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Operand {
    #[n(0)]
    Path(#[n(0)] Path),
    #[n(1)]
    Value(#[n(0)] Value),
    /// `size(…)`: of S in UTF-16 units, of B in bytes, of sets, L and M in elements; others have none.
    #[n(2)]
    Size(#[n(0)] Box<Operand>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Comparator {
    #[n(0)]
    Equal,
    #[n(1)]
    NotEqual,
    #[n(2)]
    Less,
    #[n(3)]
    LessOrEqual,
    #[n(4)]
    Greater,
    #[n(5)]
    GreaterOrEqual,
}

impl Condition {
    /// Whether it holds of a whole item.
    pub fn holds(&self, item: &Item) -> bool {
        self.holds_of(&Attributes::of(item))
    }

    /// Whether it holds of the row whose key attributes are `key` and whose other attributes are
    /// `document`; `None` is no row, which has no key attributes either.
    pub fn holds_for(&self, key: &[(String, Value)], document: Option<&Item>) -> bool {
        match document {
            Some(document) => self.holds_of(&Attributes { key, document }),
            None => self.holds_of(&Attributes::of(&Item::new())),
        }
    }

    pub fn holds_of(&self, item: &Attributes<'_>) -> bool {
        match self {
            Condition::And(conditions) => conditions.iter().all(|inner| inner.holds_of(item)),
            Condition::Or(conditions) => conditions.iter().any(|inner| inner.holds_of(item)),
            Condition::Not(inner) => !inner.holds_of(item),
            Condition::Compare {
                left,
                comparator,
                right,
            } => holds_between(
                left.resolve(item).as_deref(),
                *comparator,
                right.resolve(item).as_deref(),
            ),
            Condition::Between { value, low, high } => {
                let value = value.resolve(item);
                holds_between(
                    value.as_deref(),
                    Comparator::GreaterOrEqual,
                    low.resolve(item).as_deref(),
                ) && holds_between(
                    value.as_deref(),
                    Comparator::LessOrEqual,
                    high.resolve(item).as_deref(),
                )
            }
            Condition::In { value, candidates } => value.resolve(item).is_some_and(|value| {
                candidates
                    .iter()
                    .any(|candidate| candidate.resolve(item).as_deref() == Some(&*value))
            }),
            Condition::Exists(path) => path.resolve(item).is_some(),
            Condition::Missing(path) => path.resolve(item).is_none(),
            Condition::HasType { path, kind } => {
                path.resolve(item).and_then(AttributeType::of) == Some(*kind)
            }
            Condition::BeginsWith { value, prefix } => begins_with(
                value.resolve(item).as_deref(),
                prefix.resolve(item).as_deref(),
            ),
            Condition::Contains { container, element } => contains(
                container.resolve(item).as_deref(),
                element.resolve(item).as_deref(),
            ),
        }
    }
}

impl Operand {
    fn resolve<'a>(&'a self, item: &Attributes<'a>) -> Option<Cow<'a, Value>> {
        match self {
            Operand::Path(path) => path.resolve(item).map(Cow::Borrowed),
            Operand::Value(value) => Some(Cow::Borrowed(value)),
            Operand::Size(inner) => {
                let count = match &*inner.resolve(item)? {
                    Value::Text(text) => text.encode_utf16().count(),
                    Value::Bytes(bytes) => bytes.len(),
                    Value::Set(elements) | Value::List(elements) => elements.len(),
                    Value::Document(fields) => fields.len(),
                    _ => return None,
                };
                Some(Cow::Owned(Value::Number(Number::from(count as i64))))
            }
        }
    }
}

fn holds_between(left: Option<&Value>, comparator: Comparator, right: Option<&Value>) -> bool {
    let are_equal = || left.is_some() && left == right;
    let order = || match (left, right) {
        (Some(left), Some(right)) => compare(left, right),
        _ => None,
    };
    match comparator {
        Comparator::Equal => are_equal(),
        Comparator::NotEqual => !are_equal(),
        Comparator::Less => order() == Some(Ordering::Less),
        Comparator::LessOrEqual => order().is_some_and(Ordering::is_le),
        Comparator::Greater => order() == Some(Ordering::Greater),
        Comparator::GreaterOrEqual => order().is_some_and(Ordering::is_ge),
    }
}

fn begins_with(value: Option<&Value>, prefix: Option<&Value>) -> bool {
    match (value, prefix) {
        (Some(Value::Text(value)), Some(Value::Text(prefix))) => value.starts_with(prefix.as_str()),
        (Some(Value::Bytes(value)), Some(Value::Bytes(prefix))) => value.starts_with(prefix),
        _ => false,
    }
}

fn contains(container: Option<&Value>, element: Option<&Value>) -> bool {
    let (Some(container), Some(element)) = (container, element) else {
        return false;
    };
    match (container, element) {
        (Value::Text(text), Value::Text(part)) => text.contains(part.as_str()),
        (Value::Bytes(bytes), Value::Bytes(part)) => {
            part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
        }
        (Value::Set(members) | Value::List(members), element) => members.contains(element),
        _ => false,
    }
}
