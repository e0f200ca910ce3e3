//! Document paths: an attribute, and steps into its maps and lists.

use super::{Attributes, Item};
use minicbor::{Decode, Encode};
use model::Value;
use std::fmt;

/// `name.step[2].step`: placeholders are substituted already.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Path {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Step {
    #[n(0)]
    Index(#[n(0)] u32),
    #[n(1)]
    Field(#[n(0)] String),
}

/// What a path's last step names, and where: the parent that is there.
pub(super) enum Parent<'a> {
    Map(&'a mut Item, &'a str),
    List(&'a mut Vec<Value>, u32),
}

impl Path {
    /// A top-level attribute.
    pub fn attribute(name: impl Into<String>) -> Path {
        Path {
            name: name.into(),
            steps: Vec::new(),
        }
    }

    /// The number of names and indexes in it.
    pub fn depth(&self) -> usize {
        1 + self.steps.len()
    }

    pub fn resolve<'a>(&self, item: &Attributes<'a>) -> Option<&'a Value> {
        let mut value = item.get(&self.name)?;
        for step in &self.steps {
            value = match (value, step) {
                (Value::Document(fields), Step::Field(name)) => fields.get(name)?,
                (Value::List(elements), Step::Index(index)) => elements.get(*index as usize)?,
                _ => return None,
            };
        }
        Some(value)
    }

    /// The map or list that holds what the path names; `None` when there is none of the right kind.
    pub(super) fn parent<'a>(&'a self, item: &'a mut Item) -> Option<Parent<'a>> {
        let Some((last, above)) = self.steps.split_last() else {
            return Some(Parent::Map(item, &self.name));
        };
        let mut value = item.get_mut(&self.name)?;
        for step in above {
            value = match (value, step) {
                (Value::Document(fields), Step::Field(name)) => fields.get_mut(name)?,
                (Value::List(elements), Step::Index(index)) => elements.get_mut(*index as usize)?,
                _ => return None,
            };
        }
        match (value, last) {
            (Value::Document(fields), Step::Field(name)) => Some(Parent::Map(fields, name)),
            (Value::List(elements), Step::Index(index)) => Some(Parent::List(elements, *index)),
            _ => None,
        }
    }

    /// Whether the map or list above the last step is there.
    pub(super) fn has_parent(&self, item: &Item) -> bool {
        let Some((last, above)) = self.steps.split_last() else {
            return true;
        };
        let mut value = item.get(&self.name);
        for step in above {
            value = match (value, step) {
                (Some(Value::Document(fields)), Step::Field(name)) => fields.get(name),
                (Some(Value::List(elements)), Step::Index(index)) => elements.get(*index as usize),
                _ => return false,
            };
        }
        matches!(
            (value, last),
            (Some(Value::Document(_)), Step::Field(_)) | (Some(Value::List(_)), Step::Index(_))
        )
    }
}

/// As DynamoDB's messages show paths: `[a, b, [3]]`.
impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{}", self.name)?;
        for step in &self.steps {
            match step {
                Step::Field(name) => write!(formatter, ", {name}")?,
                Step::Index(index) => write!(formatter, ", [{index}]")?,
            }
        }
        write!(formatter, "]")
    }
}
