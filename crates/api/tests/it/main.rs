//! The waist's own rules, told over the in-memory reference.

mod lists;
mod reference;
mod transactions;

use api::reference::Reference;
use api::{
    Assignment, Database, Error, Mutation, ReadRequest, ReadRow, RowOperation, Selection,
    WriteRequest, WriteResponse,
};
use catalog::{
    Change, Column, ColumnRole, Durability, Ordering, Partitioning, Protocol, Replication, Table,
    TableSpec,
};
use model::{ColumnId, Type, Value};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// A database with one table `t (p BIGINT, c BIGINT, v TEXT, w TEXT)`.
pub struct Scene {
    pub database: Arc<Reference>,
    pub table: Arc<Table>,
}

pub fn column(name: &str, kind: Type, role: ColumnRole) -> Column {
    Column {
        id: ColumnId(0),
        name: name.into(),
        kind,
        role,
        descending: false,
        not_null: false,
        options: BTreeMap::new(),
    }
}

pub fn replication(protocol: Protocol) -> Replication {
    Replication {
        protocol,
        factor_by_data_center: BTreeMap::new(),
        factor: 1,
        durability: Durability::Synced,
        ordering: Ordering::Conflict,
    }
}

pub fn spec(
    name: &str,
    partitioning: Partitioning,
    protocol: Protocol,
    columns: Vec<Column>,
) -> TableSpec {
    TableSpec {
        namespace: "n".into(),
        name: name.into(),
        partitioning,
        replication: replication(protocol),
        columns,
        parent: None,
        cascade: false,
        gc_grace_seconds: 864_000,
        default_ttl_seconds: 0,
        properties: BTreeMap::new(),
    }
}

impl Scene {
    pub async fn new(partitioning: Partitioning, protocol: Protocol) -> Scene {
        let database = Reference::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9042);
        let name = "n".to_owned();
        let replication = replication(protocol);
        let create = Change::CreateNamespace {
            name,
            replication,
            properties: BTreeMap::new(),
        };
        database.change_catalog(create).await.unwrap();
        let first = match partitioning {
            Partitioning::Hash => ColumnRole::Partition,
            Partitioning::Range => ColumnRole::Clustering,
        };
        let columns = vec![
            column("p", Type::BigInt, first),
            column("c", Type::BigInt, ColumnRole::Clustering),
            column("v", Type::text(), ColumnRole::Regular),
            column("w", Type::text(), ColumnRole::Regular),
        ];
        let spec = spec("t", partitioning, protocol, columns);
        let catalog = database
            .change_catalog(Change::CreateTable {
                spec,
                uuid: [7; 16],
            })
            .await
            .unwrap();
        let table = catalog.table_by_name("n", "t").unwrap().clone();
        Scene { database, table }
    }

    pub fn key(&self, p: i64, c: i64) -> Vec<u8> {
        self.table.row_key(&[Value::Int(p), Value::Int(c)]).unwrap()
    }

    pub fn set(&self, value: &str) -> Vec<Assignment> {
        self.set_column("v", value)
    }

    pub fn set_column(&self, column: &str, value: &str) -> Vec<Assignment> {
        vec![Assignment::Set {
            column: self.table.column_by_name(column).unwrap().id,
            path: None,
            value: Value::Text(value.into()),
        }]
    }

    pub fn mutation(&self, p: i64, c: i64, operation: RowOperation) -> Mutation {
        Mutation::new(self.table.id, self.key(p, c), operation)
    }

    pub fn put(&self, p: i64, c: i64, value: &str) -> Mutation {
        let operation = RowOperation::Merge {
            marker: true,
            assignments: self.set(value),
            ttl_seconds: None,
        };
        self.mutation(p, c, operation)
    }

    pub async fn write(&self, mutations: Vec<Mutation>) -> Result<WriteResponse, Error> {
        self.database.write(WriteRequest::new(mutations)).await
    }

    pub fn text(&self, found: &ReadRow) -> String {
        let column = self.table.column_by_name("v").unwrap().id;
        match found.row.value(column) {
            Some(Value::Text(text)) => text.clone(),
            other => format!("{other:?}"),
        }
    }

    pub fn everything(&self) -> ReadRequest {
        ReadRequest::new(self.table.id, Selection::Ranges(vec![api::KeyRange::all()]))
    }

    /// The values of all rows, in the order of their keys.
    pub async fn texts(&self) -> Vec<String> {
        let response = self.database.read(self.everything()).await.unwrap();
        response.rows.iter().map(|found| self.text(found)).collect()
    }
}
