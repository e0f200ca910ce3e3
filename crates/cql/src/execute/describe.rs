//! DESCRIBE, which `cqlsh` leaves to the server: the catalog as statements that would make it again.

use super::Execution;
use super::rows::computed_answer;
use crate::error::Error;
use crate::grammar::ast::{Describe, OptionValue, TableName, literal, quoted};
use crate::options::{
    DESCRIBED, durable_writes, replication_map, show_map, table_option, table_option_text,
};
use crate::plan::view::{View, ViewColumn};
use crate::system::{self, PARTITIONER};
use crate::types::name::cql_name;
use catalog::{Catalog, ColumnRole, Durability, Namespace, Protocol, Table};
use model::{Type, Value};
use std::fmt::Write;

/// A described thing.
struct Item {
    keyspace: String,
    kind: &'static str,
    name: String,
    statement: String,
}

pub fn describe(execution: &Execution<'_>, target: &Describe) -> Result<Vec<u8>, Error> {
    let catalog = execution.server.database.catalog();
    let keyspace = execution.connection.keyspace();
    if *target == Describe::Cluster {
        return Ok(cluster(execution));
    }
    let items = items(&catalog, keyspace.as_deref(), target)?;
    let is_list = matches!(
        target,
        Describe::Keyspaces
            | Describe::Tables
            | Describe::Types
            | Describe::Functions
            | Describe::Aggregates
    );
    let mut columns = vec![
        ("keyspace_name", Type::text()),
        ("type", Type::text()),
        ("name", Type::text()),
    ];
    if !is_list {
        columns.push(("create_statement", Type::text()));
    }
    let rows: Vec<Vec<Value>> = items
        .into_iter()
        .map(|item| {
            let mut row = vec![
                Value::Text(item.keyspace),
                Value::Text(item.kind.to_owned()),
                Value::Text(item.name),
            ];
            if !is_list {
                row.push(Value::Text(item.statement));
            }
            row
        })
        .collect();
    Ok(computed_answer(
        execution, "system", "describe", columns, &rows,
    ))
}

fn cluster(execution: &Execution<'_>) -> Vec<u8> {
    let topology = execution.server.database.topology();
    let columns = vec![
        ("cluster", Type::text()),
        ("partitioner", Type::text()),
        ("snitch", Type::text()),
    ];
    let row = vec![
        Value::Text(topology.cluster_name.clone()),
        Value::Text(PARTITIONER.rsplit('.').next().unwrap_or_default().into()),
        // Nodes say their data centre and rack themselves, which is what this snitch does.
        Value::Text("GossipingPropertyFileSnitch".into()),
    ];
    computed_answer(execution, "system", "describe", columns, &[row])
}

fn items(catalog: &Catalog, keyspace: Option<&str>, target: &Describe) -> Result<Vec<Item>, Error> {
    let in_scope = |namespace: &&Namespace| keyspace.is_none_or(|name| namespace.name == name);
    match target {
        Describe::Keyspaces => {
            let mut items: Vec<Item> = catalog.namespaces.values().map(keyspace_item).collect();
            for name in [
                "system",
                "system_schema",
                "system_traces",
                "system_virtual_schema",
            ] {
                items.push(Item {
                    keyspace: name.into(),
                    kind: "keyspace",
                    name: name.into(),
                    statement: String::new(),
                });
            }
            items.sort_by(|left, right| left.name.cmp(&right.name));
            Ok(items)
        }
        Describe::Tables => Ok(catalog
            .namespaces
            .values()
            .filter(in_scope)
            .flat_map(|namespace| table_items(catalog, namespace))
            .collect()),
        Describe::Types => Ok(catalog
            .namespaces
            .values()
            .filter(in_scope)
            .flat_map(type_items)
            .collect()),
        Describe::Functions | Describe::Aggregates | Describe::Cluster => Ok(Vec::new()),
        Describe::Schema { .. } => Ok(catalog
            .namespaces
            .values()
            .flat_map(|namespace| whole_keyspace(catalog, namespace))
            .collect()),
        Describe::Keyspace(name) => {
            let name = name
                .as_deref()
                .or(keyspace)
                .ok_or_else(|| Error::invalid("No keyspace specified and no current keyspace"))?;
            described_keyspace(catalog, name)
        }
        Describe::Table(name) => described_table(catalog, keyspace, name),
        Describe::Type(name) => {
            let keyspace = scope(keyspace, name)?;
            let namespace = catalog.namespaces.get(keyspace);
            let found = namespace
                .into_iter()
                .flat_map(type_items)
                .find(|item| item.name == name.name);
            found.map(|item| vec![item]).ok_or_else(|| {
                Error::invalid(format!(
                    "User defined type '{}' not found in '{keyspace}'",
                    name.name
                ))
            })
        }
        Describe::Other(what, name) => Err(Error::invalid(format!("{what} '{name}' not found"))),
        Describe::Named(name) => {
            if name.keyspace.is_none() && catalog.namespaces.contains_key(&name.name)
                || system::is_system(&name.name)
            {
                return described_keyspace(catalog, &name.name);
            }
            described_table(catalog, keyspace, name)
                .map_err(|_| Error::invalid(format!("'{name}' not found in keyspaces")))
        }
    }
}

fn scope<'a>(keyspace: Option<&'a str>, name: &'a TableName) -> Result<&'a str, Error> {
    name.keyspace
        .as_deref()
        .or(keyspace)
        .ok_or_else(|| Error::invalid("No keyspace specified and no current keyspace"))
}

fn described_keyspace(catalog: &Catalog, name: &str) -> Result<Vec<Item>, Error> {
    if let Some(namespace) = catalog.namespaces.get(name) {
        return Ok(whole_keyspace(catalog, namespace));
    }
    let views = system::views_of(name);
    if views.is_empty() {
        return Err(Error::invalid(format!("'{name}' not found in keyspaces")));
    }
    let mut items = vec![Item {
        keyspace: name.to_owned(),
        kind: "keyspace",
        name: name.to_owned(),
        statement: format!(
            "/*\nWarning: Keyspace {name} is a virtual keyspace and cannot be recreated with CQL.\nStructure, for reference:*/\n// VIRTUAL KEYSPACE {name};"
        ),
    }];
    items.extend(views.iter().map(virtual_item));
    Ok(items)
}

fn described_table(
    catalog: &Catalog,
    keyspace: Option<&str>,
    name: &TableName,
) -> Result<Vec<Item>, Error> {
    let keyspace = scope(keyspace, name)?;
    if let Some(view) = system::view(keyspace, &name.name) {
        return Ok(vec![virtual_item(&view)]);
    }
    let table = catalog.table_by_name(keyspace, &name.name).ok_or_else(|| {
        Error::invalid(format!(
            "Table '{}' not found in keyspace '{keyspace}'",
            name.name
        ))
    })?;
    let view = View::of(table)?;
    Ok(vec![table_item(table, &view)])
}

fn whole_keyspace(catalog: &Catalog, namespace: &Namespace) -> Vec<Item> {
    let mut items = vec![keyspace_item(namespace)];
    items.extend(type_items(namespace));
    items.extend(table_items(catalog, namespace));
    items
}

fn keyspace_item(namespace: &Namespace) -> Item {
    let replication = show_map(&replication_map(namespace));
    let mut statement = format!(
        "CREATE KEYSPACE {} WITH replication = {replication}  AND durable_writes = {}",
        quoted(&namespace.name),
        durable_writes(namespace)
    );
    if namespace.replication.protocol == Protocol::Strong {
        statement.push_str(" AND consistency = 'strong'");
    }
    if let Durability::Periodic { interval_ms } = namespace.replication.durability {
        let _ = write!(
            statement,
            " AND durability = 'periodic' AND durability_interval_ms = {interval_ms}"
        );
    }
    statement.push(';');
    Item {
        keyspace: namespace.name.clone(),
        kind: "keyspace",
        name: namespace.name.clone(),
        statement,
    }
}

fn type_items(namespace: &Namespace) -> Vec<Item> {
    namespace
        .types
        .iter()
        .filter_map(|(name, kind)| {
            let Type::User { fields, .. } = kind else {
                return None;
            };
            let fields: Vec<String> = fields
                .iter()
                .map(|(field, kind)| format!("    {} {}", quoted(field), cql_name(kind)))
                .collect();
            Some(Item {
                keyspace: namespace.name.clone(),
                kind: "type",
                name: name.clone(),
                statement: format!(
                    "CREATE TYPE {}.{} (\n{}\n);",
                    quoted(&namespace.name),
                    quoted(name),
                    fields.join(",\n")
                ),
            })
        })
        .collect()
}

fn table_items(catalog: &Catalog, namespace: &Namespace) -> Vec<Item> {
    namespace
        .tables
        .values()
        .filter_map(|id| {
            let table = catalog.table(*id)?;
            Some(table_item(table, &View::of(table).ok()?))
        })
        .collect()
}

fn table_item(table: &Table, view: &View) -> Item {
    let mut statement = format!("CREATE TABLE {}", structure(view));
    statement.push_str(" WITH ");
    let mut options = Vec::new();
    let clustering: Vec<String> = view
        .of_role(ColumnRole::Clustering)
        .map(|(_, column)| {
            let order = if column.descending { "DESC" } else { "ASC" };
            format!("{} {order}", quoted(&column.name))
        })
        .collect();
    if !clustering.is_empty() {
        options.push(format!("CLUSTERING ORDER BY ({})", clustering.join(", ")));
    }
    for name in DESCRIBED {
        let shown = match table_option(table, name) {
            OptionValue::Map(pairs) => show_map(&pairs),
            OptionValue::Text(_) => table_option_text(table, name),
        };
        options.push(format!("{name} = {shown}"));
    }
    statement.push_str(&options.join("\n    AND "));
    statement.push(';');
    Item {
        keyspace: view.keyspace.clone(),
        kind: "table",
        name: view.name.clone(),
        statement,
    }
}

/// Name, columns and primary key, in parentheses.
fn structure(view: &View) -> String {
    let names = |role| -> Vec<String> {
        view.of_role(role)
            .map(|(_, column)| quoted(&column.name))
            .collect()
    };
    let partition = names(ColumnRole::Partition);
    let clustering = names(ColumnRole::Clustering);
    let is_simple = partition.len() == 1 && clustering.is_empty();
    let mut lines: Vec<String> = view
        .columns
        .iter()
        .map(|column| column_line(column, is_simple))
        .collect();
    if !is_simple {
        let partition = if partition.len() == 1 {
            partition[0].clone()
        } else {
            format!("({})", partition.join(", "))
        };
        let mut key = vec![partition];
        key.extend(clustering);
        lines.push(format!("    PRIMARY KEY ({})", key.join(", ")));
    }
    format!(
        "{}.{} (\n{}\n)",
        quoted(&view.keyspace),
        quoted(&view.name),
        lines.join(",\n")
    )
}

fn column_line(column: &ViewColumn, is_simple: bool) -> String {
    let suffix = match column.role {
        ColumnRole::Static => " static",
        ColumnRole::Partition if is_simple => " PRIMARY KEY",
        _ => "",
    };
    format!(
        "    {} {}{suffix}",
        quoted(&column.name),
        cql_name(&column.kind)
    )
}

fn virtual_item(view: &View) -> Item {
    Item {
        keyspace: view.keyspace.clone(),
        kind: "table",
        name: view.name.clone(),
        statement: format!(
            "/*\nWarning: Table {}.{} is a virtual table and cannot be recreated with CQL.\nStructure, for \
             reference:\nVIRTUAL TABLE {} WITH comment = {};\n*/",
            view.keyspace,
            view.name,
            structure(view),
            literal("")
        ),
    }
}
