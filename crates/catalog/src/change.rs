//! Changes of the catalog: what a door asks for. The pure function that applies them: `apply`.

use crate::{Column, Replication, TableSpec, Type};
use minicbor::{Decode, Encode};
use model::{ColumnId, TableId};
use std::collections::BTreeMap;

/// One change. A door checks its own rules first; `Catalog::apply` checks those that all doors share, again,
/// in the order in which the meta group agrees on changes.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Change {
    #[n(0)]
    CreateNamespace {
        #[n(0)]
        name: String,
        #[n(1)]
        replication: Replication,
        #[n(2)]
        properties: BTreeMap<String, String>,
    },
    /// Replaces the properties named; an empty value removes one.
    #[n(1)]
    AlterNamespace {
        #[n(0)]
        name: String,
        #[n(1)]
        replication: Option<Replication>,
        #[n(2)]
        properties: BTreeMap<String, String>,
    },
    /// With everything in it.
    #[n(2)]
    DropNamespace {
        #[n(0)]
        name: String,
    },
    #[n(3)]
    CreateTable {
        #[n(0)]
        spec: TableSpec,
        #[cbor(n(1), with = "minicbor::bytes")]
        uuid: [u8; 16],
    },
    /// Refused while another table is interleaved in it.
    #[n(4)]
    DropTable {
        #[n(0)]
        table: TableId,
    },
    #[n(5)]
    AddColumns {
        #[n(0)]
        table: TableId,
        #[n(1)]
        columns: Vec<Column>,
    },
    #[n(6)]
    DropColumns {
        #[n(0)]
        table: TableId,
        #[n(1)]
        columns: Vec<ColumnId>,
        /// Microseconds: cells written before it do not return if a column of the name does.
        #[n(2)]
        at_micros: i64,
    },
    #[n(7)]
    RenameColumn {
        #[n(0)]
        table: TableId,
        #[n(1)]
        column: ColumnId,
        #[n(2)]
        name: String,
    },
    /// Spanner's ALTER COLUMN: a wider type, NOT NULL, options.
    #[n(8)]
    AlterColumn {
        #[n(0)]
        table: TableId,
        #[n(1)]
        column: Column,
    },
    #[n(9)]
    AlterTable {
        #[n(0)]
        table: TableId,
        #[n(1)]
        gc_grace_seconds: Option<u32>,
        #[n(2)]
        default_ttl_seconds: Option<u32>,
        /// Replaces the properties named; an empty value removes one.
        #[n(3)]
        properties: BTreeMap<String, String>,
    },
    #[n(10)]
    PutType {
        #[n(0)]
        namespace: String,
        #[n(1)]
        name: String,
        /// `None` drops it.
        #[n(2)]
        kind: Option<Type>,
    },
    /// An empty value removes it.
    #[n(11)]
    PutProperty {
        #[n(0)]
        key: String,
        #[n(1)]
        value: String,
    },
    /// Several as one: all or none.
    #[n(12)]
    All(#[n(0)] Vec<Change>),
    /// Has a strong table take no more writes, or take them again.
    #[n(13)]
    SealTable {
        #[n(0)]
        table: TableId,
        /// Refused if the table's version is another.
        #[n(1)]
        version: u64,
        /// When it is sealed, in microseconds; `None` lifts the seal.
        #[n(2)]
        at_micros: Option<i64>,
    },
    /// Gives a table a replication of its own, whatever becomes of its namespace's. With the protocol that it has, its
    /// tablets follow; with the other one it is made anew under a new id, with nothing in it: whoever asks for
    /// that has sealed it and found it empty.
    #[n(14)]
    ReplicateTable {
        #[n(0)]
        table: TableId,
        /// Refused if the table's version is another.
        #[n(1)]
        version: u64,
        #[n(2)]
        replication: Replication,
        /// Replaces the properties named; an empty value removes one.
        #[n(3)]
        properties: BTreeMap<String, String>,
    },
    /// The table stays and what was in it goes, for good: it has a new id from then on, and with it new tablets.
    /// Refused for a table that shares its tablets.
    #[n(15)]
    TruncateTable {
        #[n(0)]
        table: TableId,
    },
}

/// Why a change was refused; the catalog stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum ChangeError {
    #[n(0)]
    #[error("namespace {0} already exists")]
    NamespaceExists(#[n(0)] String),
    #[n(1)]
    #[error("namespace {0} does not exist")]
    NoNamespace(#[n(0)] String),
    #[n(2)]
    #[error("table {0} already exists")]
    TableExists(#[n(0)] String),
    #[n(3)]
    #[error("table {0} does not exist")]
    NoTable(#[n(0)] String),
    #[n(4)]
    #[error("column {0} already exists")]
    ColumnExists(#[n(0)] String),
    #[n(5)]
    #[error("column {0} does not exist")]
    NoColumn(#[n(0)] String),
    #[n(6)]
    #[error("type {0} does not exist")]
    NoType(#[n(0)] String),
    #[n(7)]
    #[error("{0}")]
    Invalid(#[n(0)] String),
    /// The change was made for another version of the table.
    #[n(8)]
    #[error("table {0} has changed meanwhile")]
    Changed(#[n(0)] String),
}
