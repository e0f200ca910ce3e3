//! Update expressions.
//!
//! Every right-hand side, and every index, refers to the item as it was before. No two paths of an update
//! overlap (the door refuses that), so the order of its parts does not show.

use super::path::Parent;
use super::{
    AttributeType, Attributes, DEPTH_MAX, ITEM_SIZE_BYTES_MAX, Item, Path, depth, item_size_bytes,
};
use minicbor::{Decode, Encode};
use model::number::NumberError;
use model::{Number, Value};

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Update {
    #[n(0)]
    pub set: Vec<(Path, SetValue)>,
    #[n(1)]
    pub remove: Vec<Path>,
    /// Numbers to add, or sets whose members to add. In the legacy dialect also lists to append.
    #[n(2)]
    pub add: Vec<(Path, Value)>,
    /// Sets whose members to delete.
    #[n(3)]
    pub delete: Vec<(Path, Value)>,
    /// What the item's key attributes add to its size.
    #[n(4)]
    pub key_size_bytes: u32,
    #[n(5)]
    pub dialect: Dialect,
}

/// Whose messages to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Dialect {
    #[default]
    #[n(0)]
    Expression,
    /// The legacy parameter AttributeUpdates.
    #[n(1)]
    AttributeUpdates,
}

/// A right-hand side of SET.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum SetValue {
    #[n(0)]
    Operand(#[n(0)] SetOperand),
    #[n(1)]
    Plus(#[n(0)] SetOperand, #[n(1)] SetOperand),
    #[n(2)]
    Minus(#[n(0)] SetOperand, #[n(1)] SetOperand),
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum SetOperand {
    #[n(0)]
    Path(#[n(0)] Path),
    #[n(1)]
    Value(#[n(0)] Value),
    #[n(2)]
    IfNotExists(#[n(0)] Path, #[n(1)] Box<SetOperand>),
    #[n(3)]
    ListAppend(#[n(0)] Box<SetOperand>, #[n(1)] Box<SetOperand>),
    /// Arithmetic in parentheses or inside a function's argument.
    #[n(4)]
    Nested(#[n(0)] Box<SetValue>),
}

const NO_ATTRIBUTE: &str =
    "The provided expression refers to an attribute that does not exist in the item";
const WRONG_TYPE: &str = "An operand in the update expression has an incorrect data type";
const WRONG_TYPE_LEGACY: &str = "Type mismatch for attribute to update";
const INVALID_PATH: &str =
    "The document path provided in the update expression is invalid for update";
const TOO_LARGE: &str = "Item size to update has exceeded the maximum allowed size";
const TOO_DEEP: &str = "Nesting Levels have exceeded supported limits";

impl Update {
    /// Whether it makes an item where there is none: removals alone do not.
    pub fn creates_item(&self) -> bool {
        !self.set.is_empty()
            || !self.add.is_empty()
            || (self.remove.is_empty() && self.delete.is_empty())
    }

    /// The item after the update, or DynamoDB's message.
    pub fn apply(&self, item: &Item) -> Result<Item, String> {
        let before = Attributes::of(item);
        let mut written = Vec::with_capacity(self.set.len() + self.add.len() + self.delete.len());
        let mut removed = Vec::with_capacity(self.remove.len());
        for (path, value) in &self.set {
            written.push((path, value.evaluate(&before)?));
        }
        for (path, value) in &self.add {
            written.push((path, self.add_to(path.resolve(&before), value)?));
        }
        for (path, value) in &self.delete {
            require_parent(path, item)?;
            if let Some(existing) = path.resolve(&before) {
                match self.delete_from(existing, value)? {
                    Some(rest) => written.push((path, rest)),
                    None => removed.push(path),
                }
            }
        }
        for path in &self.remove {
            require_parent(path, item)?;
            // An index past the end must not hit an element that this very update appends.
            if path.resolve(&before).is_some() {
                removed.push(path);
            }
        }
        // Ascending, so that what is appended to a list keeps the order of its indexes; then removals
        // from the back, so that none moves the target of another.
        written.sort_by_key(|(path, _)| *path);
        removed.sort();
        let mut after = item.clone();
        for (path, value) in written {
            put(path, value, &mut after)?;
        }
        for path in removed.into_iter().rev() {
            match path.parent(&mut after).ok_or(INVALID_PATH)? {
                Parent::Map(fields, name) => drop(fields.remove(name)),
                Parent::List(elements, index) => drop(elements.remove(index as usize)),
            }
        }
        check_limits(&after, self.key_size_bytes)?;
        Ok(after)
    }

    fn wrong_type(&self) -> String {
        match self.dialect {
            Dialect::Expression => WRONG_TYPE.into(),
            Dialect::AttributeUpdates => WRONG_TYPE_LEGACY.into(),
        }
    }

    fn add_to(&self, existing: Option<&Value>, operand: &Value) -> Result<Value, String> {
        match (existing, operand) {
            (None, operand) => Ok(operand.clone()),
            (Some(Value::Number(number)), Value::Number(operand)) => {
                arithmetic(number.checked_add(*operand))
            }
            (Some(existing @ Value::Set(members)), Value::Set(added))
                if AttributeType::of(existing) == AttributeType::of(operand) =>
            {
                Ok(Value::Set(union(members, added)))
            }
            (Some(Value::List(elements)), Value::List(added))
                if self.dialect == Dialect::AttributeUpdates =>
            {
                Ok(Value::List(elements.iter().chain(added).cloned().collect()))
            }
            _ => Err(self.wrong_type()),
        }
    }

    /// What is left of a set, if anything is.
    fn delete_from(&self, existing: &Value, operand: &Value) -> Result<Option<Value>, String> {
        match (existing, operand) {
            (Value::Set(members), Value::Set(deleted))
                if AttributeType::of(existing) == AttributeType::of(operand) =>
            {
                let rest: Vec<Value> = members
                    .iter()
                    .filter(|member| !deleted.contains(member))
                    .cloned()
                    .collect();
                Ok((!rest.is_empty()).then_some(Value::Set(rest)))
            }
            _ => Err(self.wrong_type()),
        }
    }
}

impl SetValue {
    fn evaluate(&self, item: &Attributes<'_>) -> Result<Value, String> {
        match self {
            SetValue::Operand(operand) => operand.evaluate(item),
            SetValue::Plus(left, right) => {
                arithmetic(left.number(item)?.checked_add(right.number(item)?))
            }
            SetValue::Minus(left, right) => {
                arithmetic(left.number(item)?.checked_sub(right.number(item)?))
            }
        }
    }
}

impl SetOperand {
    fn evaluate(&self, item: &Attributes<'_>) -> Result<Value, String> {
        match self {
            SetOperand::Path(path) => path
                .resolve(item)
                .cloned()
                .ok_or_else(|| NO_ATTRIBUTE.into()),
            SetOperand::Value(value) => Ok(value.clone()),
            SetOperand::IfNotExists(path, otherwise) => match path.resolve(item) {
                Some(value) => Ok(value.clone()),
                None => otherwise.evaluate(item),
            },
            SetOperand::ListAppend(first, second) => {
                let mut elements = first.list(item)?;
                elements.extend(second.list(item)?);
                Ok(Value::List(elements))
            }
            SetOperand::Nested(value) => value.evaluate(item),
        }
    }

    fn number(&self, item: &Attributes<'_>) -> Result<Number, String> {
        match self.evaluate(item)? {
            Value::Number(number) => Ok(number),
            _ => Err(WRONG_TYPE.into()),
        }
    }

    fn list(&self, item: &Attributes<'_>) -> Result<Vec<Value>, String> {
        match self.evaluate(item)? {
            Value::List(elements) => Ok(elements),
            _ => Err(WRONG_TYPE.into()),
        }
    }
}

fn arithmetic(result: Result<Number, NumberError>) -> Result<Value, String> {
    result.map(Value::Number).map_err(|error| {
        match error {
            NumberError::Overflow => {
                "Number overflow. Attempting to store a number with magnitude larger than supported range"
            }
            NumberError::Underflow => {
                "Number underflow. Attempting to store a number with magnitude smaller than supported range"
            }
            _ => "Attempting to store more than 38 significant digits in a Number",
        }
        .into()
    })
}

/// Two sorted sets as one.
fn union(left: &[Value], right: &[Value]) -> Vec<Value> {
    let mut members: Vec<Value> = left.iter().chain(right).cloned().collect();
    members.sort_by(|left, right| super::compare(left, right).unwrap_or(std::cmp::Ordering::Equal));
    members.dedup();
    members
}

fn require_parent(path: &Path, item: &Item) -> Result<(), String> {
    if path.has_parent(item) {
        Ok(())
    } else {
        Err(INVALID_PATH.into())
    }
}

fn put(path: &Path, value: Value, item: &mut Item) -> Result<(), String> {
    match path.parent(item).ok_or(INVALID_PATH)? {
        Parent::Map(fields, name) => {
            fields.insert(name.to_owned(), value);
        }
        Parent::List(elements, index) => match elements.get_mut(index as usize) {
            Some(element) => *element = value,
            None => elements.push(value),
        },
    }
    Ok(())
}

fn check_limits(item: &Item, key_size_bytes: u32) -> Result<(), String> {
    if item_size_bytes(item) + u64::from(key_size_bytes) > ITEM_SIZE_BYTES_MAX {
        return Err(TOO_LARGE.into());
    }
    if item.values().any(|value| depth(value) > DEPTH_MAX) {
        return Err(TOO_DEEP.into());
    }
    Ok(())
}
