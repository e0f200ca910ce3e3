//! Values that are kept as a cell per element: collections and user types that are not frozen.

use model::key::{self, Direction};
use model::{Cell, CellContent, Type, Value};

/// The value that the cells of a column make up; null when there is no live one.
pub fn assemble(cells: &[Cell], kind: &Type) -> Value {
    let live = cells.iter().filter_map(|cell| match &cell.content {
        CellContent::Live { value, .. } => Some((cell.path.as_deref()?, value)),
        CellContent::Tombstone { .. } => None,
    });
    let decoded = |path: &[u8], kind: &Type| {
        key::decode(path, kind, Direction::Ascending).map_or(Value::Null, |(value, _)| value)
    };
    let value = match kind {
        Type::List { .. } => Value::List(live.map(|(_, value)| value.clone()).collect()),
        Type::Set { element, .. } => {
            Value::Set(live.map(|(path, _)| decoded(path, element)).collect())
        }
        Type::Map { key, .. } => Value::Map(
            live.map(|(path, value)| (decoded(path, key), value.clone()))
                .collect(),
        ),
        Type::User { fields, .. } => {
            let mut values = vec![Value::Null; fields.len()];
            for (path, value) in live {
                if let Some(slot) = field_index(path).and_then(|index| values.get_mut(index)) {
                    *slot = value.clone();
                }
            }
            if values.iter().all(Value::is_null) {
                return Value::Null;
            }
            return Value::Tuple(values);
        }
        _ => return Value::Null,
    };
    if is_empty(&value) { Value::Null } else { value }
}

/// Whether it is a collection without elements: a column that keeps a cell per element cannot tell it from null.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::List(elements) | Value::Set(elements) => elements.is_empty(),
        Value::Map(pairs) => pairs.is_empty(),
        _ => false,
    }
}

/// The path of a field of a user-defined type that is not frozen.
pub fn field_path(index: usize) -> Vec<u8> {
    (index as u16).to_be_bytes().to_vec()
}

fn field_index(path: &[u8]) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(path.try_into().ok()?)))
}
