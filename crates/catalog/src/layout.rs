//! How the key columns of a table become the keys of its rows; `model::key` has the picture.
//!
//! A hash-partitioned table has a table group of its own. A range-partitioned one shares its group with its
//! ancestors and descendants, and a key tells by its markers which of them it belongs to.

use crate::{Column, Partitioning, Table};
use model::key::{self, CHILD, Direction, HEADER, KeyError, ROW};
use model::{TableId, Value, murmur3, partition};

/// The token in front of the keys of hash-partitioned tables.
const TOKEN_SIZE: usize = 8;

impl Table {
    /// The Murmur3 token of a partition of a hash-partitioned table. The hash is over the values as CQL
    /// serializes a partition key (several columns as a composite), so that token-aware drivers route well,
    /// whichever door made the table.
    pub fn token(&self, partition_values: &[Value]) -> Result<i64, KeyError> {
        let columns: Vec<_> = partition_values
            .iter()
            .zip(self.partition_columns().map(|column| &column.kind))
            .collect();
        if columns.len() != partition_values.len()
            || columns.len() != self.partition_columns().count()
            || columns.is_empty()
        {
            return Err(KeyError::Malformed);
        }
        Ok(murmur3::token(&partition::serialize(&columns)?))
    }

    /// The key of the header of a partition of a hash-partitioned table.
    pub fn header_key(&self, partition_values: &[Value]) -> Result<Vec<u8>, KeyError> {
        let mut key = self.partition_prefix(partition_values)?;
        key.push(HEADER);
        Ok(key)
    }

    /// The key of the row whose primary key columns have these values, all of them, in the key's order.
    pub fn row_key(&self, values: &[Value]) -> Result<Vec<u8>, KeyError> {
        if values.len() != self.key_columns().count() {
            return Err(KeyError::Malformed);
        }
        self.key_prefix(values)
    }

    /// What the keys of all rows begin with whose primary key begins with `values`: at least the whole
    /// partition key of a hash-partitioned table; any number of columns, also none, of a range-partitioned
    /// one. Append further encoded components to it for the bounds of a range. All columns' values make the
    /// row's key itself. For an interleaved child whose parent's key is not given whole, keys of other tables
    /// of the group begin with it too: `owns_key` tells them apart.
    pub fn key_prefix(&self, values: &[Value]) -> Result<Vec<u8>, KeyError> {
        match self.spec.partitioning {
            Partitioning::Hash => {
                let partition_columns = self.partition_columns().count();
                if values.len() < partition_columns {
                    return Err(KeyError::Malformed);
                }
                let (partition, clustering) = values.split_at(partition_columns);
                let mut key = self.partition_prefix(partition)?;
                key.push(ROW);
                append(self.clustering_columns(), clustering, &mut key)?;
                Ok(key)
            }
            Partitioning::Range => {
                let mut key = Vec::with_capacity(values.len() * 12 + 1);
                let mut columns = self.clustering_columns();
                let mut rest = values;
                for (count, end) in self.levels() {
                    let given = rest.len().min(count);
                    append(columns.by_ref().take(count), &rest[..given], &mut key)?;
                    rest = &rest[given..];
                    if given < count {
                        return Ok(key);
                    }
                    match end {
                        LevelEnd::Row => key.push(ROW),
                        LevelEnd::Child(table) => {
                            key.push(CHILD);
                            key.extend_from_slice(&table.0.to_be_bytes());
                        }
                    }
                }
                if !rest.is_empty() {
                    return Err(KeyError::Malformed);
                }
                Ok(key)
            }
        }
    }

    /// Whether a key of the table group belongs to this table (and is a row, not a header).
    pub fn owns_key(&self, key: &[u8]) -> bool {
        self.skip_key(key) == Ok(true)
    }

    /// The primary key's values, for a key that this table owns; a header yields the partition columns.
    pub fn decode_key(&self, key: &[u8]) -> Result<Vec<Value>, KeyError> {
        let mut values = Vec::new();
        self.walk_key(key, |column, rest| {
            let (value, rest) = key::decode(rest, &column.kind, direction(column))?;
            values.push(value);
            Ok(rest)
        })?;
        Ok(values)
    }

    /// The key of the row that the row with this key is interleaved in; `None` for a table that is not
    /// interleaved, and for keys that this table does not own.
    pub fn parent_key(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.spec.parent?;
        let inherited = self.inherited_columns();
        let mut seen = 0;
        // The row's marker, where the table adds no columns of its own.
        let mut own_size = 1;
        let is_row = self.walk_key(key, |column, rest| {
            if seen == inherited {
                own_size = rest.len();
            }
            seen += 1;
            key::skip(rest, &column.kind, direction(column))
        });
        if is_row != Ok(true) {
            return None;
        }
        let marker_size = 1 + size_of::<TableId>();
        let end = key.len().checked_sub(own_size + marker_size)?;
        let mut parent = Vec::with_capacity(end + 1);
        parent.extend_from_slice(&key[..end]);
        parent.push(ROW);
        Some(parent)
    }

    /// The key of the header of the partition that a row of a hash-partitioned table lies in; `None` for other
    /// tables and for a header itself.
    pub fn header_of(&self, key: &[u8]) -> Option<Vec<u8>> {
        let prefix = self.partition_prefix_len(key).ok()?;
        if key.get(prefix) != Some(&ROW) {
            return None;
        }
        let mut header = Vec::with_capacity(prefix + 1);
        header.extend_from_slice(&key[..prefix]);
        header.push(HEADER);
        Some(header)
    }

    /// How many bytes of a key of a hash-partitioned table are its token and partition columns.
    pub fn partition_prefix_len(&self, key: &[u8]) -> Result<usize, KeyError> {
        if self.spec.partitioning != Partitioning::Hash {
            return Err(KeyError::Malformed);
        }
        let mut rest = key.get(TOKEN_SIZE..).ok_or(KeyError::Malformed)?;
        for column in self.partition_columns() {
            rest = key::skip(rest, &column.kind, direction(column))?;
        }
        Ok(key.len() - rest.len())
    }

    /// Where a tablet may be cut that this key lies in: the beginning of the key's token in a hash-partitioned
    /// table; in a range-partitioned one, called on the root of its group, what the root row's columns take of the
    /// key, so that all that is interleaved in a row stays with it. `None` for what is no key of the table's, or the
    /// beginning of one.
    pub fn boundary<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        if self.spec.partitioning == Partitioning::Hash {
            return key.get(..TOKEN_SIZE);
        }
        let mut rest = key;
        for column in self.clustering_columns() {
            if rest.is_empty() {
                break;
            }
            rest = key::skip(rest, &column.kind, direction(column)).ok()?;
        }
        Some(&key[..key.len() - rest.len()])
    }

    fn skip_key(&self, key: &[u8]) -> Result<bool, KeyError> {
        self.walk_key(key, |column, rest| {
            key::skip(rest, &column.kind, direction(column))
        })
    }

    /// Steps over a key: `component` is called at each column's and returns what follows it. Returns true for
    /// a row and false for a header.
    fn walk_key<'a>(
        &self,
        key: &'a [u8],
        mut component: impl FnMut(&Column, &'a [u8]) -> Result<&'a [u8], KeyError>,
    ) -> Result<bool, KeyError> {
        let mut rest = key;
        if self.spec.partitioning == Partitioning::Hash {
            rest = rest.get(TOKEN_SIZE..).ok_or(KeyError::Malformed)?;
            for column in self.partition_columns() {
                rest = component(column, rest)?;
            }
            if rest == [HEADER] {
                return Ok(false);
            }
            rest = rest.strip_prefix(&[ROW]).ok_or(KeyError::Malformed)?;
            for column in self.clustering_columns() {
                rest = component(column, rest)?;
            }
        } else {
            let mut columns = self.clustering_columns();
            for (count, end) in self.levels() {
                for column in columns.by_ref().take(count) {
                    rest = component(column, rest)?;
                }
                let marker = match end {
                    LevelEnd::Row => rest.strip_prefix(&[ROW]),
                    LevelEnd::Child(table) => rest
                        .strip_prefix(&[CHILD])
                        .and_then(|rest| rest.strip_prefix(&table.0.to_be_bytes())),
                };
                rest = marker.ok_or(KeyError::Malformed)?;
            }
        }
        if rest.is_empty() {
            Ok(true)
        } else {
            Err(KeyError::Malformed)
        }
    }

    /// Token and partition columns.
    fn partition_prefix(&self, values: &[Value]) -> Result<Vec<u8>, KeyError> {
        let token = self.token(values)?;
        let mut key = Vec::with_capacity(TOKEN_SIZE + values.len() * 16 + 16);
        key.extend_from_slice(&(token as u64 ^ 1 << 63).to_be_bytes());
        append(self.partition_columns(), values, &mut key)?;
        Ok(key)
    }

    /// How many of the primary key's columns are the parent's.
    fn inherited_columns(&self) -> usize {
        self.ancestors
            .iter()
            .map(|(_, count)| *count as usize)
            .sum()
    }

    /// From the root to this table: how many primary key columns each adds, and what comes behind them.
    fn levels(&self) -> impl Iterator<Item = (usize, LevelEnd)> {
        let inherited = self.inherited_columns();
        let own = self.clustering_columns().count().saturating_sub(inherited);
        let below = self.ancestors.iter().skip(1).map(|(table, _)| *table);
        let ends = below.chain([self.id]).map(LevelEnd::Child);
        self.ancestors
            .iter()
            .map(|(_, count)| *count as usize)
            .zip(ends)
            .chain([(own, LevelEnd::Row)])
    }
}

/// What ends the columns of one table of a group within a key.
enum LevelEnd {
    Row,
    Child(TableId),
}

fn append<'a>(
    columns: impl Iterator<Item = &'a Column>,
    values: &[Value],
    key: &mut Vec<u8>,
) -> Result<(), KeyError> {
    let mut values = values.iter();
    for (column, value) in columns.zip(values.by_ref()) {
        key::encode(value, &column.kind, direction(column), key)?;
    }
    if values.next().is_some() {
        return Err(KeyError::Malformed);
    }
    Ok(())
}

fn direction(column: &Column) -> Direction {
    if column.descending {
        Direction::Descending
    } else {
        Direction::Ascending
    }
}
