//! Where the partition ends in a key, and rows as bytes.

use catalog::{ColumnRole, Partitioning, Table};
use model::key::{self, Direction, HEADER};
use model::{Row, Type};
use world::Kind;

/// Bytes of the token that a key of a hash-partitioned table begins with.
const TOKEN_BYTES: usize = 8;

/// The shape of a table's keys, as far as the partition goes. A table's key columns never change.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The partition columns' types; `None` for range-partitioned tables, which have no partitions.
    partition: Option<Vec<(Type, Direction)>>,
}

impl Layout {
    pub fn new(table: &Table) -> Layout {
        let columns = || {
            table
                .columns()
                .iter()
                .filter(|column| column.role == ColumnRole::Partition)
                .map(|column| {
                    let direction = if column.descending {
                        Direction::Descending
                    } else {
                        Direction::Ascending
                    };
                    (column.kind.clone(), direction)
                })
                .collect()
        };
        Layout {
            partition: (table.spec.partitioning == Partitioning::Hash).then(columns),
        }
    }

    /// How many bytes of `key` are token and partition columns; `None` when it does not hold all of them.
    pub fn partition_length(&self, key: &[u8]) -> Option<usize> {
        let columns = self.partition.as_ref()?;
        let mut rest = key.get(TOKEN_BYTES..)?;
        for (kind, direction) in columns {
            rest = key::skip(rest, kind, *direction).ok()?;
        }
        Some(key.len() - rest.len())
    }

    pub fn is_header(&self, key: &[u8]) -> bool {
        key.last() == Some(&HEADER) && self.partition_length(key) == Some(key.len() - 1)
    }

    /// The key of the header of the partition that this key, or bound of a range, lies in; `None` when it lies
    /// in no partition.
    pub fn header_of(&self, key: &[u8]) -> Option<Vec<u8>> {
        let length = self.partition_length(key)?;
        if *key.get(length)? < HEADER {
            return None;
        }
        let mut header = Vec::with_capacity(length + 1);
        header.extend_from_slice(&key[..length]);
        header.push(HEADER);
        Some(header)
    }

    /// Whether the row belongs to the partition of this header.
    pub fn is_in_partition(header: &[u8], row_key: &[u8]) -> bool {
        match header.split_last() {
            Some((_, prefix)) => row_key.len() > prefix.len() && row_key.starts_with(prefix),
            None => false,
        }
    }
}

/// The key under which the store keeps a row or header.
pub(crate) fn store_key(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 1);
    stored.push(Kind::Row as u8);
    stored.extend_from_slice(key);
    stored
}

pub(crate) fn decode_row(bytes: &[u8]) -> Result<Row, String> {
    Row::from_bytes(bytes).map_err(|error| format!("a stored row cannot be read: {error}"))
}
