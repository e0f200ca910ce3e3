//! Specs of tables for tests.

use catalog::{
    Catalog, Change, Column, ColumnRole, Durability, Ordering, Partitioning, Protocol, Replication,
    Table, TableSpec, Type,
};
use model::{ColumnId, TableId};
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn replication(protocol: Protocol) -> Replication {
    Replication {
        protocol,
        factor_by_data_center: BTreeMap::new(),
        factor: 0,
        durability: Durability::Synced,
        ordering: Ordering::Conflict,
    }
}

pub fn column(name: &str, kind: Type, role: ColumnRole) -> Column {
    Column {
        id: ColumnId(99),
        name: name.into(),
        kind,
        role,
        descending: false,
        not_null: false,
        options: BTreeMap::new(),
    }
}

pub fn partition(name: &str, kind: Type) -> Column {
    column(name, kind, ColumnRole::Partition)
}

pub fn clustering(name: &str, kind: Type) -> Column {
    column(name, kind, ColumnRole::Clustering)
}

pub fn regular(name: &str, kind: Type) -> Column {
    column(name, kind, ColumnRole::Regular)
}

pub fn descending(column: Column) -> Column {
    Column {
        descending: true,
        ..column
    }
}

pub fn spec(name: &str, partitioning: Partitioning, columns: Vec<Column>) -> TableSpec {
    TableSpec {
        namespace: "shop".into(),
        name: name.into(),
        partitioning,
        replication: replication(Protocol::Strong),
        columns,
        parent: None,
        cascade: false,
        gc_grace_seconds: 864_000,
        default_ttl_seconds: 0,
        properties: BTreeMap::new(),
    }
}

pub fn child(name: &str, parent: TableId, columns: Vec<Column>) -> TableSpec {
    TableSpec {
        parent: Some(parent),
        ..spec(name, Partitioning::Range, columns)
    }
}

pub fn create(spec: TableSpec) -> Change {
    Change::CreateTable {
        spec,
        uuid: [7; 16],
    }
}

pub fn shop() -> Catalog {
    let mut catalog = Catalog::default();
    catalog
        .apply(&Change::CreateNamespace {
            name: "shop".into(),
            replication: replication(Protocol::Strong),
            properties: BTreeMap::new(),
        })
        .unwrap();
    catalog
}

/// Applies the creation and returns the table.
pub fn created(catalog: &mut Catalog, spec: TableSpec) -> Arc<Table> {
    let name = spec.name.clone();
    catalog.apply(&create(spec)).unwrap();
    catalog.table_by_name("shop", &name).unwrap().clone()
}
