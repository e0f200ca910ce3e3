//! `system_schema` and `system_virtual_schema`: the catalog as Cassandra's drivers read it.

use super::{KEYSPACES, SystemContext, SystemTable, no_rows, text, text_map};
use crate::grammar::ast::OptionValue;
use crate::options::{durable_writes, replication_map, table_option};
use crate::plan::modify::has_counters;
use crate::plan::view::{View, ViewColumn};
use crate::types::name::cql_name;
use catalog::{ColumnRole, Durability, Protocol, Table};
use model::{Type, Value};
use std::sync::Arc;

const COLUMNS: &[(&str, &str, char)] = &[
    ("keyspace_name", "text", 'p'),
    ("table_name", "text", 'c'),
    ("column_name", "text", 'c'),
    ("clustering_order", "text", 'r'),
    ("column_name_bytes", "blob", 'r'),
    ("kind", "text", 'r'),
    ("position", "int", 'r'),
    ("type", "text", 'r'),
];

/// Options of a table with the type of their column, in the order of `tables`' columns.
const OPTIONS: [&str; 21] = [
    "additional_write_policy",
    "allow_auto_snapshot",
    "bloom_filter_fp_chance",
    "caching",
    "cdc",
    "comment",
    "compaction",
    "compression",
    "crc_check_chance",
    "dclocal_read_repair_chance",
    "default_time_to_live",
    "extensions",
    "gc_grace_seconds",
    "incremental_backups",
    "max_index_interval",
    "memtable",
    "memtable_flush_period_in_ms",
    "min_index_interval",
    "read_repair",
    "read_repair_chance",
    "speculative_retry",
];

pub const TABLES: [SystemTable; 13] = [
    SystemTable {
        keyspace: "system_schema",
        name: "keyspaces",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("consistency", "text", 'r'),
            ("durability", "text", 'r'),
            ("durable_writes", "boolean", 'r'),
            ("replication", "frozen<map<text, text>>", 'r'),
        ],
        rows: keyspaces,
    },
    SystemTable {
        keyspace: "system_schema",
        name: "tables",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("table_name", "text", 'c'),
            ("additional_write_policy", "text", 'r'),
            ("allow_auto_snapshot", "boolean", 'r'),
            ("bloom_filter_fp_chance", "double", 'r'),
            ("caching", "frozen<map<text, text>>", 'r'),
            ("cdc", "boolean", 'r'),
            ("comment", "text", 'r'),
            ("compaction", "frozen<map<text, text>>", 'r'),
            ("compression", "frozen<map<text, text>>", 'r'),
            ("crc_check_chance", "double", 'r'),
            ("dclocal_read_repair_chance", "double", 'r'),
            ("default_time_to_live", "int", 'r'),
            ("extensions", "frozen<map<text, blob>>", 'r'),
            ("gc_grace_seconds", "int", 'r'),
            ("incremental_backups", "boolean", 'r'),
            ("max_index_interval", "int", 'r'),
            ("memtable", "text", 'r'),
            ("memtable_flush_period_in_ms", "int", 'r'),
            ("min_index_interval", "int", 'r'),
            ("read_repair", "text", 'r'),
            ("read_repair_chance", "double", 'r'),
            ("speculative_retry", "text", 'r'),
            ("flags", "frozen<set<text>>", 'r'),
            ("id", "uuid", 'r'),
        ],
        rows: tables,
    },
    SystemTable {
        keyspace: "system_schema",
        name: "columns",
        columns: COLUMNS,
        rows: columns,
    },
    SystemTable {
        keyspace: "system_schema",
        name: "dropped_columns",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("table_name", "text", 'c'),
            ("column_name", "text", 'c'),
            ("dropped_time", "timestamp", 'r'),
            ("kind", "text", 'r'),
            ("type", "text", 'r'),
        ],
        rows: dropped_columns,
    },
    SystemTable {
        keyspace: "system_schema",
        name: "types",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("type_name", "text", 'c'),
            ("field_names", "frozen<list<text>>", 'r'),
            ("field_types", "frozen<list<text>>", 'r'),
        ],
        rows: types,
    },
    SystemTable {
        keyspace: "system_schema",
        name: "triggers",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("table_name", "text", 'c'),
            ("trigger_name", "text", 'c'),
            ("options", "frozen<map<text, text>>", 'r'),
        ],
        rows: no_rows,
    },
    SystemTable {
        keyspace: "system_schema",
        name: "indexes",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("table_name", "text", 'c'),
            ("index_name", "text", 'c'),
            ("kind", "text", 'r'),
            ("options", "frozen<map<text, text>>", 'r'),
        ],
        rows: no_rows,
    },
    SystemTable {
        keyspace: "system_schema",
        name: "views",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("view_name", "text", 'c'),
            ("base_table_id", "uuid", 'r'),
            ("base_table_name", "text", 'r'),
            ("id", "uuid", 'r'),
            ("include_all_columns", "boolean", 'r'),
            ("where_clause", "text", 'r'),
        ],
        rows: no_rows,
    },
    SystemTable {
        keyspace: "system_schema",
        name: "functions",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("function_name", "text", 'c'),
            ("argument_types", "frozen<list<text>>", 'c'),
            ("argument_names", "frozen<list<text>>", 'r'),
            ("body", "text", 'r'),
            ("called_on_null_input", "boolean", 'r'),
            ("deterministic", "boolean", 'r'),
            ("language", "text", 'r'),
            ("monotonic", "boolean", 'r'),
            ("return_type", "text", 'r'),
        ],
        rows: no_rows,
    },
    SystemTable {
        keyspace: "system_schema",
        name: "aggregates",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("aggregate_name", "text", 'c'),
            ("argument_types", "frozen<list<text>>", 'c'),
            ("deterministic", "boolean", 'r'),
            ("final_func", "text", 'r'),
            ("initcond", "text", 'r'),
            ("return_type", "text", 'r'),
            ("state_func", "text", 'r'),
            ("state_type", "text", 'r'),
        ],
        rows: no_rows,
    },
    SystemTable {
        keyspace: "system_virtual_schema",
        name: "keyspaces",
        columns: &[("keyspace_name", "text", 'p')],
        rows: virtual_keyspaces,
    },
    SystemTable {
        keyspace: "system_virtual_schema",
        name: "tables",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("table_name", "text", 'c'),
            ("comment", "text", 'r'),
        ],
        rows: virtual_tables,
    },
    SystemTable {
        keyspace: "system_virtual_schema",
        name: "columns",
        columns: COLUMNS,
        rows: virtual_columns,
    },
];

fn keyspaces(context: &SystemContext<'_>) -> Vec<Vec<Value>> {
    let namespaces = context.catalog.namespaces.values();
    namespaces
        .map(|namespace| {
            let replication = &namespace.replication;
            let durability = match replication.durability {
                Durability::Synced => "synced",
                Durability::Periodic { .. } => "periodic",
            };
            let consistency = match replication.protocol {
                Protocol::Strong => "strong",
                Protocol::Eventual => "eventual",
            };
            vec![
                text(&namespace.name),
                text(consistency),
                text(durability),
                Value::Bool(durable_writes(namespace)),
                text_map(&replication_map(namespace)),
            ]
        })
        .collect()
}

/// The tables that CQL shows, by keyspace and name.
pub fn shown_tables(catalog: &catalog::Catalog) -> impl Iterator<Item = (&Arc<Table>, View)> {
    catalog
        .namespaces
        .values()
        .flat_map(|namespace| namespace.tables.values())
        .filter_map(|id| {
            let table = catalog.table(*id)?;
            Some((table, View::of(table).ok()?))
        })
}

fn tables(context: &SystemContext<'_>) -> Vec<Vec<Value>> {
    shown_tables(context.catalog)
        .map(|(table, _)| {
            let mut row = vec![text(table.namespace()), text(table.name())];
            row.extend(OPTIONS.iter().map(|name| option(table, name)));
            let mut flags = vec![text("compound")];
            if has_counters(table) {
                flags.push(text("counter"));
            }
            row.push(Value::Set(flags));
            row.push(Value::Uuid(table.uuid));
            row
        })
        .collect()
}

fn option(table: &Table, name: &str) -> Value {
    let value = match table_option(table, name) {
        OptionValue::Map(_) if name == "extensions" => return Value::Map(Vec::new()),
        OptionValue::Map(pairs) => return text_map(&pairs),
        OptionValue::Text(value) => value,
    };
    match name {
        "allow_auto_snapshot" | "cdc" | "incremental_backups" => Value::Bool(value == "true"),
        "bloom_filter_fp_chance"
        | "crc_check_chance"
        | "dclocal_read_repair_chance"
        | "read_repair_chance" => Value::Float64(value.parse().unwrap_or(0.0)),
        "default_time_to_live"
        | "gc_grace_seconds"
        | "max_index_interval"
        | "memtable_flush_period_in_ms"
        | "min_index_interval" => Value::Int(value.parse().unwrap_or(0)),
        _ => Value::Text(value),
    }
}

/// Rows of a `columns` table.
fn view_columns(view: &View) -> Vec<Vec<Value>> {
    let mut rows: Vec<Vec<Value>> = view
        .columns
        .iter()
        .map(|column| column_row(view, column))
        .collect();
    rows.sort_by(|left, right| format!("{:?}", left[2]).cmp(&format!("{:?}", right[2])));
    rows
}

fn column_row(view: &View, column: &ViewColumn) -> Vec<Value> {
    let position = view
        .of_role(column.role)
        .position(|(_, other)| other.name == column.name)
        .unwrap_or(0) as i64;
    let (kind, position, order) = match column.role {
        ColumnRole::Partition => ("partition_key", position, "none"),
        ColumnRole::Clustering if column.descending => ("clustering", position, "desc"),
        ColumnRole::Clustering => ("clustering", position, "asc"),
        ColumnRole::Static => ("static", -1, "none"),
        ColumnRole::Regular => ("regular", -1, "none"),
    };
    vec![
        text(&view.keyspace),
        text(&view.name),
        text(&column.name),
        text(order),
        Value::Bytes(column.name.as_bytes().to_vec()),
        text(kind),
        Value::Int(position),
        text(cql_name(&column.kind)),
    ]
}

fn columns(context: &SystemContext<'_>) -> Vec<Vec<Value>> {
    shown_tables(context.catalog)
        .flat_map(|(_, view)| view_columns(&view))
        .collect()
}

fn dropped_columns(context: &SystemContext<'_>) -> Vec<Vec<Value>> {
    shown_tables(context.catalog)
        .flat_map(|(table, _)| {
            table.dropped.iter().map(|(name, (kind, at_micros))| {
                vec![
                    text(table.namespace()),
                    text(table.name()),
                    text(name),
                    crate::types::wire::timestamp_from_millis(at_micros.div_euclid(1000)),
                    text("regular"),
                    text(cql_name(kind)),
                ]
            })
        })
        .collect()
}

fn types(context: &SystemContext<'_>) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for namespace in context.catalog.namespaces.values() {
        for (name, kind) in &namespace.types {
            let Type::User { fields, .. } = kind else {
                continue;
            };
            let names = fields.iter().map(|(field, _)| text(field)).collect();
            let kinds = fields
                .iter()
                .map(|(_, kind)| text(cql_name(kind)))
                .collect();
            rows.push(vec![
                text(&namespace.name),
                text(name),
                Value::List(names),
                Value::List(kinds),
            ]);
        }
    }
    rows
}

fn virtual_keyspaces(_: &SystemContext<'_>) -> Vec<Vec<Value>> {
    KEYSPACES.iter().map(|name| vec![text(*name)]).collect()
}

/// The system tables, by keyspace and name.
fn sorted() -> Vec<&'static SystemTable> {
    let mut tables: Vec<_> = super::tables().collect();
    tables.sort_by_key(|table| (table.keyspace, table.name));
    tables
}

fn virtual_tables(_: &SystemContext<'_>) -> Vec<Vec<Value>> {
    sorted()
        .iter()
        .map(|table| vec![text(table.keyspace), text(table.name), text("")])
        .collect()
}

fn virtual_columns(_: &SystemContext<'_>) -> Vec<Vec<Value>> {
    sorted()
        .iter()
        .flat_map(|table| view_columns(&table.view()))
        .collect()
}
