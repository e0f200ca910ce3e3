//! INFORMATION_SCHEMA: views of the catalog, made when a statement names one.

use crate::error::Error;
use crate::plan::{OutputColumn, Row};
use crate::rows::{COMMIT_TIMESTAMP_OPTION, declared_columns, is_key};
use crate::types::{SqlType, column_type_text};
use catalog::{Catalog, Table};
use model::Value;
use std::sync::Arc;

pub struct View {
    pub columns: Vec<OutputColumn>,
    pub rows: Vec<Row>,
}

/// Names of a view's columns; those that end in `#` are INT64, in `?` BOOL, in `@` TIMESTAMP, others STRING.
type Columns = &'static [&'static str];

const SCHEMATA: Columns = &[
    "CATALOG_NAME",
    "SCHEMA_NAME",
    "SCHEMA_OWNER",
    "EFFECTIVE_TIMESTAMP#",
    "PROTO_BUNDLE",
];
const TABLES: Columns = &[
    "TABLE_CATALOG",
    "TABLE_SCHEMA",
    "TABLE_NAME",
    "TABLE_TYPE",
    "PARENT_TABLE_NAME",
    "ON_DELETE_ACTION",
    "SPANNER_STATE",
    "INTERLEAVE_TYPE",
    "ROW_DELETION_POLICY_EXPRESSION",
];
const COLUMNS: Columns = &[
    "TABLE_CATALOG",
    "TABLE_SCHEMA",
    "TABLE_NAME",
    "COLUMN_NAME",
    "ORDINAL_POSITION#",
    "COLUMN_DEFAULT",
    "DATA_TYPE",
    "IS_NULLABLE",
    "SPANNER_TYPE",
    "IS_GENERATED",
    "GENERATION_EXPRESSION",
    "IS_STORED",
    "SPANNER_STATE",
    "IS_IDENTITY",
    "IS_HIDDEN?",
];
const INDEXES: Columns = &[
    "TABLE_CATALOG",
    "TABLE_SCHEMA",
    "TABLE_NAME",
    "INDEX_NAME",
    "INDEX_TYPE",
    "PARENT_TABLE_NAME",
    "IS_UNIQUE?",
    "IS_NULL_FILTERED?",
    "INDEX_STATE",
    "SPANNER_IS_MANAGED?",
];
const INDEX_COLUMNS: Columns = &[
    "TABLE_CATALOG",
    "TABLE_SCHEMA",
    "TABLE_NAME",
    "INDEX_NAME",
    "INDEX_TYPE",
    "COLUMN_NAME",
    "ORDINAL_POSITION#",
    "COLUMN_ORDERING",
    "IS_NULLABLE",
    "SPANNER_TYPE",
];
const COLUMN_OPTIONS: Columns = &[
    "TABLE_CATALOG",
    "TABLE_SCHEMA",
    "TABLE_NAME",
    "COLUMN_NAME",
    "OPTION_NAME",
    "OPTION_TYPE",
    "OPTION_VALUE",
];
const TABLE_CONSTRAINTS: Columns = &[
    "CONSTRAINT_CATALOG",
    "CONSTRAINT_SCHEMA",
    "CONSTRAINT_NAME",
    "TABLE_CATALOG",
    "TABLE_SCHEMA",
    "TABLE_NAME",
    "CONSTRAINT_TYPE",
    "IS_DEFERRABLE",
    "INITIALLY_DEFERRED",
    "ENFORCED",
];
const KEY_COLUMN_USAGE: Columns = &[
    "CONSTRAINT_CATALOG",
    "CONSTRAINT_SCHEMA",
    "CONSTRAINT_NAME",
    "TABLE_CATALOG",
    "TABLE_SCHEMA",
    "TABLE_NAME",
    "COLUMN_NAME",
    "ORDINAL_POSITION#",
    "POSITION_IN_UNIQUE_CONSTRAINT#",
];
const CONSTRAINT_COLUMN_USAGE: Columns = &[
    "TABLE_CATALOG",
    "TABLE_SCHEMA",
    "TABLE_NAME",
    "COLUMN_NAME",
    "CONSTRAINT_CATALOG",
    "CONSTRAINT_SCHEMA",
    "CONSTRAINT_NAME",
];
const DATABASE_OPTIONS: Columns = &[
    "CATALOG_NAME",
    "SCHEMA_NAME",
    "OPTION_NAME",
    "OPTION_TYPE",
    "OPTION_VALUE",
];
const REFERENTIAL_CONSTRAINTS: Columns = &[
    "CONSTRAINT_CATALOG",
    "CONSTRAINT_SCHEMA",
    "CONSTRAINT_NAME",
    "UNIQUE_CONSTRAINT_CATALOG",
    "UNIQUE_CONSTRAINT_SCHEMA",
    "UNIQUE_CONSTRAINT_NAME",
    "MATCH_OPTION",
    "UPDATE_RULE",
    "DELETE_RULE",
    "SPANNER_STATE",
];
const VIEWS: Columns = &[
    "TABLE_CATALOG",
    "TABLE_SCHEMA",
    "TABLE_NAME",
    "VIEW_DEFINITION",
    "SECURITY_TYPE",
];
const SEQUENCES: Columns = &["CATALOG", "SCHEMA", "NAME", "DATA_TYPE"];
const CHANGE_STREAMS: Columns = &[
    "CHANGE_STREAM_CATALOG",
    "CHANGE_STREAM_SCHEMA",
    "CHANGE_STREAM_NAME",
    "ALL?",
];

const NAMES: [(&str, Columns); 14] = [
    ("SCHEMATA", SCHEMATA),
    ("TABLES", TABLES),
    ("COLUMNS", COLUMNS),
    ("INDEXES", INDEXES),
    ("INDEX_COLUMNS", INDEX_COLUMNS),
    ("COLUMN_OPTIONS", COLUMN_OPTIONS),
    ("TABLE_CONSTRAINTS", TABLE_CONSTRAINTS),
    ("KEY_COLUMN_USAGE", KEY_COLUMN_USAGE),
    ("CONSTRAINT_COLUMN_USAGE", CONSTRAINT_COLUMN_USAGE),
    ("DATABASE_OPTIONS", DATABASE_OPTIONS),
    ("REFERENTIAL_CONSTRAINTS", REFERENTIAL_CONSTRAINTS),
    ("VIEWS", VIEWS),
    ("SEQUENCES", SEQUENCES),
    ("CHANGE_STREAMS", CHANGE_STREAMS),
];

/// One view as it is now.
pub fn table(catalog: &Catalog, namespace: &str, name: &str) -> Result<View, Error> {
    let found = NAMES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    let Some((name, columns)) = found else {
        return Err(Error::unimplemented(format!("INFORMATION_SCHEMA.{name}")));
    };
    let tables = tables(catalog, namespace);
    let mut rows = Vec::new();
    match *name {
        "SCHEMATA" => {
            for schema in ["", "INFORMATION_SCHEMA"] {
                rows.push(vec![
                    text(""),
                    text(schema),
                    Value::Null,
                    Value::Null,
                    Value::Null,
                ]);
            }
        }
        "TABLES" => {
            rows.extend(tables.iter().map(|table| table_row(table, catalog)));
            rows.extend(NAMES.iter().map(|(name, _)| view_row(name)));
        }
        "COLUMNS" => {
            for table in &tables {
                column_rows(table, &mut rows);
            }
        }
        "DATABASE_OPTIONS" => {
            let dialect = [text(""), text(""), text("database_dialect"), text("STRING")];
            rows.push(
                dialect
                    .into_iter()
                    .chain([text("GOOGLE_STANDARD_SQL")])
                    .collect(),
            );
        }
        "REFERENTIAL_CONSTRAINTS" | "VIEWS" | "SEQUENCES" | "CHANGE_STREAMS" => {}
        _ => {
            for table in &tables {
                key_rows(name, table, &mut rows);
            }
        }
    }
    Ok(View {
        columns: columns.iter().map(|name| output_column(name)).collect(),
        rows,
    })
}

fn output_column(name: &str) -> OutputColumn {
    let kind = match name.chars().last() {
        Some('#') => SqlType::Int64,
        Some('?') => SqlType::Bool,
        _ => SqlType::String,
    };
    OutputColumn {
        name: name.trim_end_matches(['#', '?']).to_owned(),
        kind,
    }
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn yes_no(value: bool) -> Value {
    text(if value { "YES" } else { "NO" })
}

fn tables<'c>(catalog: &'c Catalog, namespace: &str) -> Vec<&'c Arc<Table>> {
    let namespace = catalog.namespaces.get(namespace);
    let ids = namespace
        .into_iter()
        .flat_map(|namespace| namespace.tables.values());
    ids.filter_map(|id| catalog.table(*id)).collect()
}

fn table_row(table: &Table, catalog: &Catalog) -> Row {
    let parent = table.spec.parent.and_then(|parent| catalog.table(parent));
    let or_null = |value: Option<&str>| value.map_or(Value::Null, text);
    let action = match table.spec.cascade {
        true => "CASCADE",
        false => "NO ACTION",
    };
    vec![
        text(""),
        text(""),
        text(table.name()),
        text("BASE TABLE"),
        or_null(parent.map(|parent| parent.name())),
        or_null(parent.map(|_| action)),
        text("COMMITTED"),
        or_null(parent.map(|_| "IN PARENT")),
        Value::Null,
    ]
}

fn view_row(name: &str) -> Row {
    let mut row = vec![
        text(""),
        text("INFORMATION_SCHEMA"),
        text(name),
        text("VIEW"),
    ];
    row.resize(TABLES.len(), Value::Null);
    row
}

fn column_rows(table: &Table, rows: &mut Vec<Row>) {
    for (position, index) in declared_columns(table).into_iter().enumerate() {
        let column = &table.columns()[index];
        rows.push(vec![
            text(""),
            text(""),
            text(table.name()),
            text(&column.name),
            Value::Int(position as i64 + 1),
            Value::Null,
            Value::Null,
            yes_no(!column.not_null),
            text(&column_type_text(&column.kind)),
            text("NEVER"),
            Value::Null,
            Value::Null,
            text("COMMITTED"),
            text("NO"),
            Value::Bool(false),
        ]);
    }
}

/// Rows of the views about primary keys and column options.
fn key_rows(view: &str, table: &Table, rows: &mut Vec<Row>) {
    let name = table.name();
    let constraint = format!("PK_{name}");
    let place = || [text(""), text(""), text(name)];
    match view {
        "INDEXES" => {
            let parent = [text("PRIMARY_KEY"), text("PRIMARY_KEY"), text("")];
            let flags = [
                Value::Bool(true),
                Value::Bool(false),
                Value::Null,
                Value::Bool(false),
            ];
            rows.push(place().into_iter().chain(parent).chain(flags).collect());
        }
        "TABLE_CONSTRAINTS" => {
            let row = [text(""), text(""), text(&constraint)]
                .into_iter()
                .chain(place());
            let rest = [text("PRIMARY KEY"), text("NO"), text("NO"), text("YES")];
            rows.push(row.chain(rest).collect());
        }
        "COLUMN_OPTIONS" => {
            for column in table.columns() {
                if column.options.contains_key(COMMIT_TIMESTAMP_OPTION) {
                    let rest = [
                        text(&column.name),
                        text("allow_commit_timestamp"),
                        text("BOOL"),
                        text("TRUE"),
                    ];
                    rows.push(place().into_iter().chain(rest).collect());
                }
            }
        }
        _ => {
            for (position, column) in table
                .columns()
                .iter()
                .filter(|column| is_key(column))
                .enumerate()
            {
                let position = Value::Int(position as i64 + 1);
                rows.push(match view {
                    "INDEX_COLUMNS" => {
                        let ordering = if column.descending { "DESC" } else { "ASC" };
                        let rest = [
                            text("PRIMARY_KEY"),
                            text("PRIMARY_KEY"),
                            text(&column.name),
                            position,
                            text(ordering),
                            yes_no(!column.not_null),
                            text(&column_type_text(&column.kind)),
                        ];
                        place().into_iter().chain(rest).collect()
                    }
                    "KEY_COLUMN_USAGE" => [text(""), text(""), text(&constraint)]
                        .into_iter()
                        .chain(place())
                        .chain([text(&column.name), position, Value::Null])
                        .collect(),
                    _ => place()
                        .into_iter()
                        .chain([text(&column.name), text(""), text(""), text(&constraint)])
                        .collect(),
                });
            }
        }
    }
}
