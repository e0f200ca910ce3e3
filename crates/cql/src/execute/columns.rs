//! Columns of CREATE TABLE and ALTER TABLE, by CQL's rules.

use crate::error::Error;
use crate::grammar::ast::{ColumnDefinition, CreateTable};
use crate::plan::modify::has_counters;
use crate::types::name::{check_depth, cql_name, resolve};
use catalog::{Change, Column, ColumnRole, Namespace, Table};
use model::{ColumnId, Type};
use std::collections::BTreeMap;
use std::sync::Arc;

fn column(definition: &ColumnDefinition, kind: Type, role: ColumnRole) -> Column {
    Column {
        id: ColumnId(0),
        name: definition.name.clone(),
        kind,
        role,
        descending: false,
        not_null: false,
        options: BTreeMap::new(),
    }
}

/// A table's columns in the catalog's order: partition key, clustering key, the others.
pub fn table_columns(
    create: &CreateTable,
    keyspace: &str,
    namespace: &Namespace,
) -> Result<Vec<Column>, Error> {
    let table = &create.table.name;
    if create.partition_key.is_empty() {
        return Err(Error::invalid(format!(
            "No PRIMARY KEY specifed for table '{keyspace}.{table}' (exactly one required)"
        )));
    }
    let mut kinds: BTreeMap<&str, Type> = BTreeMap::new();
    for definition in &create.columns {
        let kind = resolve(&definition.kind, keyspace, &namespace.types)?;
        check_depth(&kind)?;
        if kinds.insert(&definition.name, kind).is_some() {
            return Err(Error::invalid(format!(
                "Duplicate column '{}' declaration for table '{keyspace}.{table}'",
                definition.name
            )));
        }
    }
    let mut columns = Vec::new();
    let partition = create
        .partition_key
        .iter()
        .map(|name| (name, ColumnRole::Partition));
    let clustering = create
        .clustering_key
        .iter()
        .map(|name| (name, ColumnRole::Clustering));
    for (name, role) in partition.chain(clustering) {
        let definition = create.columns.iter().find(|one| one.name == *name);
        let (Some(definition), Some(kind)) = (definition, kinds.remove(name.as_str())) else {
            let what = if columns.iter().any(|column: &Column| column.name == *name) {
                format!(
                    "Duplicate column '{name}' in PRIMARY KEY clause for table '{keyspace}.{table}'"
                )
            } else {
                format!(
                    "Unknown column '{name}' referenced in PRIMARY KEY for table '{keyspace}.{table}'"
                )
            };
            return Err(Error::invalid(what));
        };
        columns.push(key_column(definition, kind, role)?);
    }
    order_clustering(create, &mut columns)?;
    for definition in &create.columns {
        let Some(kind) = kinds.remove(definition.name.as_str()) else {
            continue;
        };
        if definition.is_static && create.clustering_key.is_empty() {
            return Err(Error::invalid(
                "Static columns are only useful (and thus allowed) if the table has at least one clustering \
                 column",
            ));
        }
        let role = if definition.is_static {
            ColumnRole::Static
        } else {
            ColumnRole::Regular
        };
        check_collection(&definition.name, &kind)?;
        columns.push(column(definition, kind, role));
    }
    let is_key =
        |column: &&Column| matches!(column.role, ColumnRole::Partition | ColumnRole::Clustering);
    let mut others = columns.iter().filter(|column| !is_key(column));
    let is_counter = |column: &Column| column.kind == Type::Counter;
    if others.clone().any(is_counter) && !others.all(is_counter) {
        return Err(Error::invalid(
            "Cannot mix counter and non counter columns in the same table",
        ));
    }
    Ok(columns)
}

fn key_column(
    definition: &ColumnDefinition,
    kind: Type,
    role: ColumnRole,
) -> Result<Column, Error> {
    let name = &definition.name;
    if definition.is_static {
        return Err(Error::invalid(format!(
            "Static column '{name}' cannot be part of the PRIMARY KEY"
        )));
    }
    if kind.is_multi_cell() {
        let what = if matches!(kind, Type::User { .. }) {
            "user type"
        } else {
            "collection type"
        };
        return Err(Error::invalid(format!(
            "Invalid non-frozen {what} {} for PRIMARY KEY column '{name}'",
            cql_name(&kind)
        )));
    }
    if !model::key::is_supported(&kind) {
        return Err(Error::invalid(format!(
            "{} type is not supported for PRIMARY KEY column '{name}'",
            cql_name(&kind)
        )));
    }
    Ok(column(definition, kind, role))
}

/// Elements of sets and keys of maps become cell paths: they must have an order.
fn check_collection(name: &str, kind: &Type) -> Result<(), Error> {
    let path = match kind {
        Type::Set {
            element,
            frozen: false,
        } => element,
        Type::Map {
            key, frozen: false, ..
        } => key,
        _ => return Ok(()),
    };
    if !model::key::is_supported(path) {
        return Err(Error::invalid(format!(
            "{} is not supported as the element of a set or the key of a map (column {name})",
            cql_name(path)
        )));
    }
    Ok(())
}

fn order_clustering(create: &CreateTable, columns: &mut [Column]) -> Result<(), Error> {
    if create.clustering_order.is_empty() {
        return Ok(());
    }
    let names: Vec<&String> = create
        .clustering_order
        .iter()
        .map(|(name, _)| name)
        .collect();
    let expected: Vec<&String> = create.clustering_key.iter().collect();
    if names.iter().any(|name| !expected.contains(name)) {
        return Err(Error::invalid(
            "Only clustering columns can be defined in CLUSTERING ORDER directive",
        ));
    }
    if names.len() < expected.len() {
        let missing = expected.iter().find(|name| !names.contains(name));
        return Err(Error::invalid(format!(
            "Missing CLUSTERING ORDER for column {}",
            missing.map_or("", |name| name.as_str())
        )));
    }
    if names != expected {
        return Err(Error::invalid(
            "The order of columns in the CLUSTERING ORDER directive must match that of the clustering columns",
        ));
    }
    for (name, is_descending) in &create.clustering_order {
        if let Some(column) = columns.iter_mut().find(|column| column.name == *name) {
            column.descending = *is_descending;
        }
    }
    Ok(())
}

pub fn add_columns(
    table: &Arc<Table>,
    definitions: &[ColumnDefinition],
    if_not_exists: bool,
    namespace: &Namespace,
) -> Result<Vec<Change>, Error> {
    let mut columns = Vec::new();
    for definition in definitions {
        let name = &definition.name;
        if table.column_by_name(name).is_some() {
            if if_not_exists {
                continue;
            }
            return Err(Error::invalid(format!(
                "Column with name '{name}' already exists"
            )));
        }
        let kind = resolve(&definition.kind, table.namespace(), &namespace.types)?;
        check_depth(&kind)?;
        if has_counters(table) != (kind == Type::Counter) {
            return Err(Error::invalid(format!(
                "Cannot add column {name} of type {}: a table has counters beside its key, or none",
                cql_name(&kind)
            )));
        }
        check_collection(name, &kind)?;
        if let Some((dropped, _)) = table.dropped.get(name)
            && *dropped != kind
        {
            return Err(Error::invalid(format!(
                "Cannot re-add previously dropped column '{name}' of type {}, incompatible with previous type \
                 {}",
                cql_name(&kind),
                cql_name(dropped)
            )));
        }
        if definition.is_static && table.clustering_columns().next().is_none() {
            return Err(Error::invalid(
                "Static columns are only useful (and thus allowed) if the table has at least one clustering \
                 column",
            ));
        }
        let role = if definition.is_static {
            ColumnRole::Static
        } else {
            ColumnRole::Regular
        };
        columns.push(column(definition, kind, role));
    }
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![Change::AddColumns {
        table: table.id,
        columns,
    }])
}

pub fn drop_columns(
    table: &Arc<Table>,
    names: &[String],
    if_exists: bool,
    at_micros: i64,
) -> Result<Vec<Change>, Error> {
    let mut columns = Vec::new();
    for name in names {
        let Some(column) = table.column_by_name(name) else {
            if if_exists {
                continue;
            }
            return Err(Error::invalid(format!(
                "Column {name} was not found in table '{}.{}'",
                table.namespace(),
                table.name()
            )));
        };
        if matches!(column.role, ColumnRole::Partition | ColumnRole::Clustering) {
            return Err(Error::invalid(format!(
                "Cannot drop PRIMARY KEY column {name}"
            )));
        }
        columns.push(column.id);
    }
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![Change::DropColumns {
        table: table.id,
        columns,
        at_micros,
    }])
}

pub fn rename(
    table: &Arc<Table>,
    renames: &[(String, String)],
    if_exists: bool,
) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    for (from, to) in renames {
        let Some(column) = table.column_by_name(from) else {
            if if_exists {
                continue;
            }
            return Err(Error::invalid(format!(
                "Column {from} was not found in table {}.{}",
                table.namespace(),
                table.name()
            )));
        };
        if !matches!(column.role, ColumnRole::Partition | ColumnRole::Clustering) {
            return Err(Error::invalid(format!(
                "Cannot rename non PRIMARY KEY column {from}"
            )));
        }
        if table.column_by_name(to).is_some() {
            return Err(Error::invalid(format!(
                "Cannot rename column {from} to {to} in table {}.{}; another column with that name already \
                 exists",
                table.namespace(),
                table.name()
            )));
        }
        changes.push(Change::RenameColumn {
            table: table.id,
            column: column.id,
            name: to.clone(),
        });
    }
    Ok(changes)
}
