//! How a DynamoDB table lies in the catalog: the hash key is the partition column, the range key the clustering
//! column, and the one column of type `Document`, named `item`, holds all other attributes.
//!
//! A table `orders.items` is the table `items` of the namespace `orders`; a name without a dot lives in the
//! namespace `dynamodb`. Tables that other doors made, with other columns, are not listed here.

use crate::error::Failure;
use crate::wire::attribute::{write_item, write_value};
use crate::wire::writer::Writer;
use api::document::{self, AttributeType, Attributes, Item};
use api::{KeyRange, ReadRow};
use catalog::{Catalog, Column, ColumnRole, Table};
use model::key::{self, Direction};
use model::{CellContent, ColumnId, Row, Type, Value};
use std::sync::Arc;

/// Where tables live whose names have no dot.
pub const DEFAULT_NAMESPACE: &str = "dynamodb";
/// The column of the attributes that are no keys (unless a key attribute has this name).
pub const DOCUMENT_COLUMN: &str = "item";

const HASH_KEY_SIZE_BYTES_MAX: usize = 2048;
const RANGE_KEY_SIZE_BYTES_MAX: usize = 1024;

pub const KEY_MISMATCH: &str = "The provided key element does not match the schema";

/// Namespace and table of a table's name.
pub fn split_name(name: &str) -> (&str, &str) {
    match name.split_once('.') {
        Some((namespace, table)) if !namespace.is_empty() && !table.is_empty() => {
            (namespace, table)
        }
        _ => (DEFAULT_NAMESPACE, name),
    }
}

/// A table's name as clients know it.
pub fn full_name(table: &Table) -> String {
    if table.namespace() == DEFAULT_NAMESPACE {
        table.name().to_owned()
    } else {
        format!("{}.{}", table.namespace(), table.name())
    }
}

/// What the operations on items want to know of a table.
#[derive(Clone, Debug)]
pub struct Schema {
    pub table: Arc<Table>,
    /// As the client named it.
    pub name: String,
    hash: usize,
    range: Option<usize>,
    pub document: ColumnId,
}

/// An item's primary key.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub bytes: Vec<u8>,
    pub attributes: Vec<(String, Value)>,
}

impl Key {
    pub fn size_bytes(&self) -> u64 {
        let size = |(name, value): &(String, Value)| document::attribute_size_bytes(name, value);
        self.attributes.iter().map(size).sum()
    }
}

/// An item as it is stored, in two parts.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredItem {
    pub key: Vec<(String, Value)>,
    pub document: Item,
}

impl StoredItem {
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes {
            key: &self.key,
            document: &self.document,
        }
    }

    pub fn size_bytes(&self) -> u64 {
        let size = |(name, value): &(String, Value)| document::attribute_size_bytes(name, value);
        self.key.iter().map(size).sum::<u64>() + document::item_size_bytes(&self.document)
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.begin_object();
        for (name, value) in &self.key {
            writer.key(name);
            write_value(writer, value);
        }
        for (name, value) in &self.document {
            writer.key(name);
            write_value(writer, value);
        }
        writer.end_object();
    }

    pub fn into_item(self) -> Item {
        let mut item = self.document;
        item.extend(self.key);
        item
    }
}

pub fn write_key(writer: &mut Writer, key: &[(String, Value)]) {
    write_item(writer, key.iter().map(|(name, value)| (name, value)));
}

/// The attribute type of a key column.
pub fn attribute_type(kind: &Type) -> Option<AttributeType> {
    match kind {
        Type::Text { .. } => Some(AttributeType::String),
        Type::Number => Some(AttributeType::Number),
        Type::Bytes { .. } => Some(AttributeType::Binary),
        _ => None,
    }
}

impl Schema {
    pub fn find(catalog: &Catalog, name: &str) -> Option<Schema> {
        let (namespace, table) = split_name(name);
        Schema::of(catalog.table_by_name(namespace, table)?, name.to_owned())
    }

    /// `None` for a table that is not of this door's shape.
    pub fn of(table: &Arc<Table>, name: String) -> Option<Schema> {
        let mut hash = None;
        let mut range = None;
        let mut document = None;
        for (index, column) in table.columns().iter().enumerate() {
            let slot = match column.role {
                ColumnRole::Partition => &mut hash,
                ColumnRole::Clustering => &mut range,
                ColumnRole::Regular if column.kind == Type::Document && document.is_none() => {
                    document = Some(column.id);
                    continue;
                }
                _ => return None,
            };
            if slot.is_some() || attribute_type(&column.kind).is_none() {
                return None;
            }
            *slot = Some(index);
        }
        Some(Schema {
            table: table.clone(),
            name,
            hash: hash?,
            range,
            document: document?,
        })
    }

    pub fn hash(&self) -> &Column {
        &self.table.columns()[self.hash]
    }

    pub fn range(&self) -> Option<&Column> {
        self.range.map(|index| &self.table.columns()[index])
    }

    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        std::iter::once(self.hash()).chain(self.range())
    }

    pub fn is_key_attribute(&self, name: &str) -> bool {
        self.key_columns().any(|column| column.name == name)
    }

    fn row_key(&self, attributes: &[(String, Value)]) -> Result<Vec<u8>, Failure> {
        let values: Vec<Value> = attributes.iter().map(|(_, value)| value.clone()).collect();
        self.table
            .row_key(&values)
            .map_err(|error| Failure::internal(error.to_string()))
    }

    /// The key that a request names: all of it, and nothing else.
    pub fn key(&self, given: &Item) -> Result<Key, Failure> {
        let attributes = self.key_attributes(given)?;
        Ok(Key {
            bytes: self.row_key(&attributes)?,
            attributes,
        })
    }

    fn key_attributes(&self, given: &Item) -> Result<Vec<(String, Value)>, String> {
        if given.len() != self.key_columns().count() {
            return Err(KEY_MISMATCH.into());
        }
        self.key_columns()
            .map(|column| {
                let value = given.get(&column.name).ok_or(KEY_MISMATCH)?;
                self.check_key_value(column, value)?;
                Ok((column.name.clone(), value.clone()))
            })
            .collect()
    }

    /// A key attribute's type and size.
    pub fn check_key_value(&self, column: &Column, value: &Value) -> Result<(), String> {
        if AttributeType::of(value) != attribute_type(&column.kind) {
            return Err(KEY_MISMATCH.into());
        }
        if let Some(kind) = empty_kind(value) {
            return Err(format!(
                "One or more parameter values were invalid: The AttributeValue for a key attribute cannot \
                 contain an empty {kind} value. Key: {}",
                column.name
            ));
        }
        check_key_size(column, value)
    }

    /// Takes a whole item apart.
    pub fn split(&self, mut item: Item) -> Result<(Key, Item), Failure> {
        let mut attributes = Vec::with_capacity(2);
        for column in self.key_columns() {
            let name = &column.name;
            let Some((name, value)) = item.remove_entry(name) else {
                return Err(Failure::validation(format!(
                    "One or more parameter values were invalid: Missing the key {name} in the item"
                )));
            };
            let expected = attribute_type(&column.kind);
            let actual = AttributeType::of(&value);
            if actual != expected {
                let shown =
                    |kind: Option<AttributeType>| kind.map_or("", AttributeType::descriptor);
                return Err(Failure::validation(format!(
                    "One or more parameter values were invalid: Type mismatch for key {name} expected: {} \
                     actual: {}",
                    shown(expected),
                    shown(actual)
                )));
            }
            if let Some(kind) = empty_kind(&value) {
                return Err(Failure::validation(format!(
                    "One or more parameter values are not valid. The AttributeValue for a key attribute \
                     cannot contain an empty {kind} value. Key: {name}"
                )));
            }
            check_key_size(column, &value)?;
            attributes.push((name, value));
        }
        let bytes = self.row_key(&attributes)?;
        Ok((Key { bytes, attributes }, item))
    }

    /// The key attributes that a row's key holds.
    pub fn decode_key(&self, bytes: &[u8]) -> Result<Vec<(String, Value)>, Failure> {
        let values = self
            .table
            .decode_key(bytes)
            .map_err(|error| Failure::internal(error.to_string()))?;
        let names = self.key_columns().map(|column| column.name.clone());
        Ok(names.zip(values).collect())
    }

    pub fn item(&self, row: ReadRow) -> Result<StoredItem, Failure> {
        Ok(StoredItem {
            key: self.decode_key(&row.key)?,
            document: self.document_of(row.row),
        })
    }

    /// A row's attributes that are no keys.
    pub fn document_of(&self, row: Row) -> Item {
        row.cells
            .into_iter()
            .find(|cell| cell.column == self.document)
            .and_then(|cell| match cell.content {
                CellContent::Live {
                    value: Value::Document(document),
                    ..
                } => Some(document),
                _ => None,
            })
            .unwrap_or_default()
    }

    /// The rows of one partition, perhaps those between encoded bounds of the range key.
    pub fn partition_range(&self, hash: &Value, bounds: &RangeBounds) -> Result<KeyRange, Failure> {
        let internal = |error: key::KeyError| Failure::internal(error.to_string());
        let prefix = self
            .table
            .key_prefix(std::slice::from_ref(hash))
            .map_err(internal)?;
        let whole = KeyRange::prefix(prefix.clone());
        let Some(column) = self.range() else {
            return Ok(whole);
        };
        let at = |value: &Value| {
            let mut key = prefix.clone();
            // Text and binary have one encoding, so that a text's successor need not be text.
            let kind = match value {
                Value::Bytes(_) => Type::bytes(),
                _ => column.kind.clone(),
            };
            key::encode(value, &kind, Direction::Ascending, &mut key).map_err(internal)?;
            Ok::<_, Failure>(key)
        };
        let start = match &bounds.start {
            Bound::Open => whole.start,
            Bound::At(value) => at(value)?,
            Bound::Behind(value) => behind(at(value)?),
        };
        let end = match &bounds.end {
            Bound::Open => whole.end,
            Bound::At(value) => Some(at(value)?),
            Bound::Behind(value) => Some(behind(at(value)?)),
        };
        Ok(KeyRange { start, end })
    }
}

/// The smallest key greater than this one: keys are complete, so none begins with another.
pub fn behind(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// Where a range of range keys begins (inclusive) and ends (exclusive).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeBounds {
    pub start: Bound,
    pub end: Bound,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Bound {
    #[default]
    Open,
    At(Value),
    Behind(Value),
}

fn empty_kind(value: &Value) -> Option<&'static str> {
    match value {
        Value::Text(text) if text.is_empty() => Some("string"),
        Value::Bytes(bytes) if bytes.is_empty() => Some("binary"),
        _ => None,
    }
}

fn check_key_size(column: &Column, value: &Value) -> Result<(), String> {
    let size = match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => return Ok(()),
    };
    let is_hash = column.role == ColumnRole::Partition;
    if is_hash && size > HASH_KEY_SIZE_BYTES_MAX {
        return Err(
            "One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit \
             of2048 bytes"
                .into(),
        );
    }
    if !is_hash && size > RANGE_KEY_SIZE_BYTES_MAX {
        return Err(
            "One or more parameter values were invalid: Aggregated size of all range keys has exceeded the \
             size limit of 1024 bytes"
                .into(),
        );
    }
    Ok(())
}
