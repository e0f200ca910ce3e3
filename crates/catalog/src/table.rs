//! Tables and their columns. How key columns become a key: `layout`.

use crate::Type;
use minicbor::{Decode, Encode};
use model::{ColumnId, TableId};
use std::collections::BTreeMap;

/// How a table's tablets are kept alike.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Replication {
    #[n(0)]
    pub protocol: Protocol,
    /// Copies per data centre; an empty map means `factor` copies anywhere.
    #[n(1)]
    pub factor_by_data_center: BTreeMap<String, u32>,
    /// Copies in all; never more than there are nodes. 0 means the cluster's `replication_factor`.
    #[n(2)]
    pub factor: u32,
    #[n(3)]
    pub durability: Durability,
    #[n(4)]
    pub ordering: Ordering,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Protocol {
    /// A Raft group with a leaseholder.
    #[n(0)]
    Strong,
    /// Replicas that are equals.
    #[n(1)]
    Eventual,
}

/// When a plain write to an eventual table is acknowledged; strong tables are always synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Durability {
    #[n(0)]
    Synced,
    /// Acknowledge first, sync within this many milliseconds (10 to 10,000).
    #[n(1)]
    Periodic {
        #[n(0)]
        interval_ms: u32,
    },
}

/// Which order the commit timestamps of a strong table promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ordering {
    /// Real time, by waiting out the clock (Spanner).
    #[n(0)]
    External,
    /// That of conflicting operations; no wait.
    #[n(1)]
    Conflict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Partitioning {
    /// By the Murmur3 token of the partition columns.
    #[n(0)]
    Hash,
    /// By the primary key.
    #[n(1)]
    Range,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ColumnRole {
    /// Hash-partitioned tables: hashed to the token.
    #[n(0)]
    Partition,
    /// The rest of the key; for range-partitioned tables all of the primary key.
    #[n(1)]
    Clustering,
    /// One value a partition, kept in its header.
    #[n(2)]
    Static,
    #[n(3)]
    Regular,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Column {
    #[n(0)]
    pub id: ColumnId,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub kind: Type,
    #[n(3)]
    pub role: ColumnRole,
    /// Key columns only.
    #[n(4)]
    pub descending: bool,
    /// Spanner's NOT NULL.
    #[n(5)]
    pub not_null: bool,
    /// The door's own (Spanner's `allow_commit_timestamp`, say).
    #[n(6)]
    pub options: BTreeMap<String, String>,
}

/// A table as a door asks for it: ids are given by the meta group. Column ids of a spec are ignored.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct TableSpec {
    #[n(0)]
    pub namespace: String,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub partitioning: Partitioning,
    #[n(3)]
    pub replication: Replication,
    /// Key columns first, in the key's order (partition, then clustering); then the others in the order in
    /// which they were declared.
    #[n(4)]
    pub columns: Vec<Column>,
    /// The table that this one is interleaved in; its primary key must begin with the parent's, which the
    /// columns repeat.
    #[n(5)]
    pub parent: Option<TableId>,
    /// Deleting a parent's row deletes the rows interleaved in it; else it is refused while there are any.
    #[n(6)]
    pub cascade: bool,
    /// Seconds after which a tombstone may be purged (Cassandra's default 864,000).
    #[n(7)]
    pub gc_grace_seconds: u32,
    /// Seconds to live of a write that names none; 0 for ever.
    #[n(8)]
    pub default_ttl_seconds: u32,
    /// The door's own: CQL's options, DynamoDB's description, Spanner's DDL. Keys begin with the door's name
    /// and a slash.
    #[n(9)]
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Table {
    #[n(0)]
    pub id: TableId,
    /// The root of the table group: itself, or the outermost ancestor. Tablets belong to the root.
    #[n(1)]
    pub root: TableId,
    /// Random, stable: what CQL shows as the table's id.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub uuid: [u8; 16],
    #[n(3)]
    pub spec: TableSpec,
    #[n(4)]
    pub next_column_id: u64,
    /// Table ids from the root to the parent, with the number of primary key columns that each adds.
    #[n(5)]
    pub ancestors: Vec<(TableId, u32)>,
    /// Dropped columns: name → (type, when in microseconds); a column that returns hides older cells.
    #[n(6)]
    pub dropped: BTreeMap<String, (Type, i64)>,
    /// Grows with every change of this table.
    #[n(7)]
    pub version: u64,
    /// Since when, in microseconds, its tablets take no writes: somebody looks whether it is empty.
    #[n(8)]
    pub sealed_at_micros: Option<i64>,
    /// Its copies were asked for by themselves: they do not follow its namespace's.
    #[cbor(n(9), default)]
    pub has_own_copies: bool,
}

/// The property of an eventual table whose value [`NO_READ_REPAIR`] says that a read merges what replicas answer and
/// writes nothing back.
pub const READ_REPAIR: &str = "cql/read_repair";
pub const NO_READ_REPAIR: &str = "'NONE'";

impl Table {
    pub fn repairs_reads(&self) -> bool {
        let property = self.spec.properties.get(READ_REPAIR);
        property.is_none_or(|value| value != NO_READ_REPAIR)
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn namespace(&self) -> &str {
        &self.spec.namespace
    }

    pub fn columns(&self) -> &[Column] {
        &self.spec.columns
    }

    pub fn column(&self, id: ColumnId) -> Option<&Column> {
        self.spec.columns.iter().find(|column| column.id == id)
    }

    pub fn column_by_name(&self, name: &str) -> Option<&Column> {
        self.spec.columns.iter().find(|column| column.name == name)
    }

    pub fn is_strong(&self) -> bool {
        self.spec.replication.protocol == Protocol::Strong
    }

    pub fn is_sealed(&self) -> bool {
        self.sealed_at_micros.is_some()
    }

    pub fn partition_columns(&self) -> impl Iterator<Item = &Column> {
        self.spec
            .columns
            .iter()
            .filter(|column| column.role == ColumnRole::Partition)
    }

    pub fn clustering_columns(&self) -> impl Iterator<Item = &Column> {
        self.spec
            .columns
            .iter()
            .filter(|column| column.role == ColumnRole::Clustering)
    }

    /// The primary key: partition columns, then clustering columns.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.partition_columns().chain(self.clustering_columns())
    }
}

/// Tables are shared in memory and written out whole.
pub(crate) mod shared {
    use super::Table;
    use minicbor::{Decode, Decoder, Encode, Encoder};
    use model::TableId;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    pub fn encode<C, W: minicbor::encode::Write>(
        tables: &BTreeMap<TableId, Arc<Table>>,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.array(tables.len() as u64)?;
        for table in tables.values() {
            table.as_ref().encode(encoder, context)?;
        }
        Ok(())
    }

    pub fn decode<C>(
        decoder: &mut Decoder<'_>,
        context: &mut C,
    ) -> Result<BTreeMap<TableId, Arc<Table>>, minicbor::decode::Error> {
        let mut tables = BTreeMap::new();
        let count = decoder
            .array()?
            .ok_or_else(|| minicbor::decode::Error::message("indefinite table list"))?;
        for _ in 0..count {
            let table = Table::decode(decoder, context)?;
            tables.insert(table.id, Arc::new(table));
        }
        Ok(tables)
    }
}
