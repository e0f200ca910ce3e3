//! The catalog: namespaces, tables, columns and types, as immutable snapshots that every node holds and that
//! a request takes one of at entry. Pure data and rules; the meta group (crate `cluster`) agrees on its
//! changes.

mod apply;
mod change;
mod layout;
mod speculation;
mod table;

pub use change::{Change, ChangeError};
pub use model::Type;
pub use speculation::{Percentile, SPECULATIVE_RETRY, Speculation};
pub use table::{
    Column, ColumnRole, Durability, NO_READ_REPAIR, Ordering, Partitioning, Protocol, READ_REPAIR,
    Replication, Table, TableSpec,
};

use minicbor::{Decode, Encode};
use model::{SchemaVersion, TableId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything a request needs to know about names and shapes, at one version.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Catalog {
    #[n(0)]
    pub version: SchemaVersion,
    #[n(1)]
    pub namespaces: BTreeMap<String, Namespace>,
    /// By id. Shared, so that a snapshot costs a pointer per table.
    #[cbor(n(2), with = "table::shared")]
    pub tables: BTreeMap<TableId, Arc<Table>>,
    /// What a door keeps for itself beside namespaces and tables (Spanner's instances, say). Keys begin
    /// with the door's name and a slash.
    #[n(3)]
    pub properties: BTreeMap<String, String>,
    #[n(4)]
    pub next_table_id: u64,
}

/// A CQL keyspace, a Spanner database, or the prefix of a DynamoDB table's name.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Namespace {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub replication: Replication,
    /// By the lower-case name that CQL gives it, without quotes.
    #[n(2)]
    pub tables: BTreeMap<String, TableId>,
    /// User-defined types.
    #[n(3)]
    pub types: BTreeMap<String, Type>,
    /// The door's own: CQL's replication map and `durable_writes`, Spanner's DDL texts. Keys begin with the
    /// door's name and a slash.
    #[n(4)]
    pub properties: BTreeMap<String, String>,
}

impl Catalog {
    pub fn table(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables.get(&id)
    }

    pub fn table_by_name(&self, namespace: &str, name: &str) -> Option<&Arc<Table>> {
        let id = self.namespaces.get(namespace)?.tables.get(name)?;
        self.tables.get(id)
    }
}
