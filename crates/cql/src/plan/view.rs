//! A table as CQL sees it: its columns in the order of `SELECT *` (partition key, clustering columns, then
//! static and regular ones by name), each with the place where its value is found.

use crate::error::Error;
use crate::types::name::is_known;
use catalog::{ColumnRole, Partitioning, Table};
use model::{ColumnId, Type};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct View {
    pub keyspace: String,
    pub name: String,
    pub columns: Vec<ViewColumn>,
    pub source: Source,
}

#[derive(Clone, Debug)]
pub struct ViewColumn {
    pub name: String,
    pub kind: Type,
    pub role: ColumnRole,
    pub descending: bool,
    pub place: Place,
}

/// Where a column's value is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the key: partition columns first. All columns of a virtual table are here.
    Key(usize),
    /// In the cells of the row.
    Row(ColumnId),
    /// In the cells of the partition's header.
    Header(ColumnId),
}

#[derive(Clone, Debug)]
pub enum Source {
    Stored(Arc<Table>),
    /// Computed: a table of the system keyspaces.
    System(&'static crate::system::SystemTable),
}

impl View {
    pub fn of(table: &Arc<Table>) -> Result<View, Error> {
        if table.spec.partitioning == Partitioning::Range {
            return Err(Error::invalid(format!(
                "table {} is partitioned by the range of its primary key (it was made at another door) and \
                 cannot be used in CQL yet",
                table.name()
            )));
        }
        let mut columns = Vec::new();
        for (position, column) in table.key_columns().enumerate() {
            columns.push(ViewColumn {
                name: column.name.clone(),
                kind: column.kind.clone(),
                role: column.role,
                descending: column.descending,
                place: Place::Key(position),
            });
        }
        for role in [ColumnRole::Static, ColumnRole::Regular] {
            let mut others: Vec<_> = table
                .columns()
                .iter()
                .filter(|column| column.role == role && is_known(&column.kind))
                .collect();
            others.sort_by(|left, right| left.name.cmp(&right.name));
            for column in others {
                columns.push(ViewColumn {
                    name: column.name.clone(),
                    kind: column.kind.clone(),
                    role,
                    descending: false,
                    place: if role == ColumnRole::Static {
                        Place::Header(column.id)
                    } else {
                        Place::Row(column.id)
                    },
                });
            }
        }
        Ok(View {
            keyspace: table.namespace().to_owned(),
            name: table.name().to_owned(),
            columns,
            source: Source::Stored(table.clone()),
        })
    }

    pub fn index(&self, name: &str) -> Result<usize, Error> {
        self.columns
            .iter()
            .position(|column| column.name == name)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "Undefined column name {name} in table {}.{}",
                    self.keyspace, self.name
                ))
            })
    }

    pub fn of_role(&self, role: ColumnRole) -> impl Iterator<Item = (usize, &ViewColumn)> {
        self.columns
            .iter()
            .enumerate()
            .filter(move |(_, column)| column.role == role)
    }

    pub fn partition_count(&self) -> usize {
        self.of_role(ColumnRole::Partition).count()
    }

    pub fn clustering_count(&self) -> usize {
        self.of_role(ColumnRole::Clustering).count()
    }

    pub fn has_statics(&self) -> bool {
        self.of_role(ColumnRole::Static).next().is_some()
    }

    /// The table that is written to; system tables are not.
    pub fn stored(&self) -> Result<&Arc<Table>, Error> {
        match &self.source {
            Source::Stored(table) => Ok(table),
            Source::System(_) => Err(Error::invalid(format!(
                "Cannot modify system table {}.{}: it is computed",
                self.keyspace, self.name
            ))),
        }
    }
}
