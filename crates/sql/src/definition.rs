//! Data definition: statements to catalog changes, and tables back to statements. Checks Spanner's own rules;
//! what all doors share the catalog checks again when it applies the change.

use crate::analyse::{find_column, find_table};
use crate::ast::{AlterTable, ColumnDefinition, CreateTable, Definition, Name, OptionValue, Path};
use crate::error::{Error, ErrorKind};
use crate::rows::{COMMIT_TIMESTAMP_OPTION, ORDINAL_OPTION, declared_columns, is_key};
use crate::types::{column_type, column_type_text};
use catalog::{
    Catalog, Change, Column, ColumnRole, Durability, Ordering, Partitioning, Protocol, Replication,
    Table, TableSpec,
};
use model::{ColumnId, Type};
use std::collections::BTreeMap;

pub const KEY_COLUMNS_MAX: usize = 16;
pub const COLUMNS_MAX: usize = 1_024;
/// Levels of interleaving, the root included.
pub const INTERLEAVE_DEPTH_MAX: usize = 7;
const NAME_LENGTH_MAX: usize = 128;

/// How Spanner keeps a database: strong, in real-time order, as many copies as the cluster's default.
pub fn replication() -> Replication {
    Replication {
        protocol: Protocol::Strong,
        factor_by_data_center: BTreeMap::new(),
        factor: 0,
        durability: Durability::Synced,
        ordering: Ordering::External,
    }
}

/// What a definition needs beside its text.
pub struct DefinitionContext<'a> {
    pub catalog: &'a Catalog,
    pub namespace: &'a str,
    /// The new table's id as other doors show it.
    pub uuid: [u8; 16],
    pub now_micros: i64,
}

/// The change a statement asks for; `None` when IF [NOT] EXISTS says that there is nothing to do.
pub fn change(
    definition: &Definition,
    context: &DefinitionContext<'_>,
) -> Result<Option<Change>, Error> {
    match definition {
        Definition::CreateDatabase { .. } => Err(Error::invalid(
            "CREATE DATABASE is only the first statement of CreateDatabase",
        )),
        Definition::CreateTable(create) => create_table(create, context),
        Definition::DropTable { name, if_exists } => drop_table(name, *if_exists, context),
        Definition::AlterTable { name, action } => alter_table(name, action, context),
    }
}

fn simple_name(path: &Path) -> Result<&Name, Error> {
    match path.parts.as_slice() {
        [name] => Ok(name),
        _ => Err(Error::unimplemented("named schemas").at(path.at())),
    }
}

fn check_name(name: &Name, what: &str) -> Result<(), Error> {
    let mut bytes = name.text.bytes();
    let valid = bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.text.len() <= NAME_LENGTH_MAX;
    match valid {
        true => Ok(()),
        false => Err(Error::invalid(format!("{what} name not valid: {}", name.text)).at(name.at)),
    }
}

fn create_table(
    create: &CreateTable,
    context: &DefinitionContext<'_>,
) -> Result<Option<Change>, Error> {
    let name = simple_name(&create.name)?;
    check_name(name, "Table")?;
    if let Some(existing) = find_table(context.catalog, context.namespace, &name.text) {
        return match create.if_not_exists {
            true => Ok(None),
            false => Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!("Duplicate name in schema: {}.", existing.name()),
            )),
        };
    }
    if create.columns.len() > COLUMNS_MAX {
        return Err(Error::invalid(format!(
            "Table {} has too many columns; the limit is {COLUMNS_MAX}.",
            name.text
        )));
    }
    let mut columns = Vec::new();
    for (index, definition) in create.columns.iter().enumerate() {
        let duplicate = create.columns[..index]
            .iter()
            .any(|other| other.name.text.eq_ignore_ascii_case(&definition.name.text));
        if duplicate {
            return Err(Error::invalid(format!(
                "Duplicate column name {}.{}.",
                name.text, definition.name.text
            )));
        }
        columns.push(column(definition, index as u64 + 1)?);
    }
    let mut ordered = key_columns(create, name, &mut columns)?;
    let key_count = ordered.len();
    ordered.extend(columns);
    let parent = match &create.interleave {
        None => None,
        Some(interleave) => {
            let parent_name = simple_name(&interleave.parent)?;
            let parent = find_table(context.catalog, context.namespace, &parent_name.text);
            let parent = parent.ok_or_else(|| table_not_found(&parent_name.text))?;
            check_interleaving(name, &ordered[..key_count], parent)?;
            Some((parent.id, interleave.cascade))
        }
    };
    let replication = match context.catalog.namespaces.get(context.namespace) {
        Some(namespace) => namespace.replication.clone(),
        None => replication(),
    };
    Ok(Some(Change::CreateTable {
        spec: TableSpec {
            namespace: context.namespace.to_owned(),
            name: name.text.clone(),
            partitioning: Partitioning::Range,
            replication,
            columns: ordered,
            parent: parent.map(|(id, _)| id),
            cascade: parent.is_some_and(|(_, cascade)| cascade),
            gc_grace_seconds: 864_000,
            default_ttl_seconds: 0,
            properties: BTreeMap::new(),
        },
        uuid: context.uuid,
    }))
}

/// Takes the key's columns out of `columns`, in the key's order.
fn key_columns(
    create: &CreateTable,
    table: &Name,
    columns: &mut Vec<Column>,
) -> Result<Vec<Column>, Error> {
    if create.primary_key.len() > KEY_COLUMNS_MAX {
        return Err(Error::invalid(format!(
            "Table {} has too many key columns; the limit is {KEY_COLUMNS_MAX}.",
            table.text
        )));
    }
    let mut key = Vec::new();
    for part in &create.primary_key {
        let position = columns
            .iter()
            .position(|column| column.name.eq_ignore_ascii_case(&part.column.text));
        let Some(position) = position else {
            return Err(Error::invalid(format!(
                "Table {} references nonexistent or repeated key column {}.",
                table.text, part.column.text
            ))
            .at(part.column.at));
        };
        let mut column = columns.remove(position);
        if matches!(column.kind, Type::Array { .. } | Type::Json) {
            return Err(Error::invalid(format!(
                "Column {}.{} has type {}, but is part of the primary key.",
                table.text,
                column.name,
                column_type_text(&column.kind)
            ))
            .at(part.column.at));
        }
        column.role = ColumnRole::Clustering;
        column.descending = part.descending;
        key.push(column);
    }
    Ok(key)
}

fn check_interleaving(name: &Name, key: &[Column], parent: &Table) -> Result<(), Error> {
    if parent.ancestors.len() + 2 > INTERLEAVE_DEPTH_MAX {
        return Err(Error::invalid(format!(
            "Table {} is too deeply nested; the limit is {INTERLEAVE_DEPTH_MAX}.",
            name.text
        )));
    }
    if parent.spec.partitioning != Partitioning::Range {
        return Err(Error::unimplemented(
            "interleaving in a hash-partitioned table",
        ));
    }
    for (position, wanted) in parent.key_columns().enumerate() {
        let matches = key.get(position).is_some_and(|own| {
            own.name.eq_ignore_ascii_case(&wanted.name)
                && own.kind == wanted.kind
                && own.descending == wanted.descending
        });
        if !matches {
            return Err(Error::invalid(format!(
                "Interleaved table {} must have the primary key of its parent {} as the first columns of its own \
                 (column {} at position {} does not match).",
                name.text,
                parent.name(),
                wanted.name,
                position + 1
            )));
        }
        if key[position].not_null != wanted.not_null {
            return Err(Error::invalid(format!(
                "Interleaved table {} and its parent {} must agree on NOT NULL for key column {}.",
                name.text,
                parent.name(),
                wanted.name
            )));
        }
    }
    Ok(())
}

fn column(definition: &ColumnDefinition, ordinal: u64) -> Result<Column, Error> {
    check_name(&definition.name, "Column")?;
    let kind = column_type(&definition.kind)?;
    let mut column = Column {
        id: ColumnId(0),
        name: definition.name.text.clone(),
        kind,
        role: ColumnRole::Regular,
        descending: false,
        not_null: definition.not_null,
        options: BTreeMap::from([(ORDINAL_OPTION.to_owned(), ordinal.to_string())]),
    };
    set_options(&mut column, &definition.options)?;
    Ok(column)
}

fn set_options(column: &mut Column, options: &[(Name, OptionValue)]) -> Result<(), Error> {
    for (name, value) in options {
        if !name.text.eq_ignore_ascii_case("allow_commit_timestamp") {
            return Err(Error::invalid(format!("Option: {} is unknown.", name.text)).at(name.at));
        }
        match value {
            OptionValue::Bool(true) => {
                if column.kind != Type::TimestampNanos {
                    return Err(Error::new(
                        ErrorKind::FailedPrecondition,
                        format!(
                            "Option only allowed on TIMESTAMP columns, not on {}.",
                            column.name
                        ),
                    ));
                }
                let option = (COMMIT_TIMESTAMP_OPTION.to_owned(), "true".to_owned());
                column.options.extend([option]);
            }
            OptionValue::Bool(false) | OptionValue::Null => {
                column.options.remove(COMMIT_TIMESTAMP_OPTION);
            }
            _ => {
                return Err(Error::invalid(
                    "Unexpected value for option: allow_commit_timestamp. Supported values are true, false, \
                     and null.",
                )
                .at(name.at));
            }
        }
    }
    Ok(())
}

fn table_not_found(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("Table not found: {name}"))
}

fn drop_table(
    path: &Path,
    if_exists: bool,
    context: &DefinitionContext<'_>,
) -> Result<Option<Change>, Error> {
    let name = simple_name(path)?;
    let Some(table) = find_table(context.catalog, context.namespace, &name.text) else {
        return match if_exists {
            true => Ok(None),
            false => Err(table_not_found(&name.text)),
        };
    };
    let children: Vec<String> = context
        .catalog
        .tables
        .values()
        .filter(|child| child.spec.parent == Some(table.id))
        .map(|child| format!("{:?}", child.name()))
        .collect();
    if !children.is_empty() {
        return Err(Error::new(
            ErrorKind::FailedPrecondition,
            format!(
                "Cannot drop table {} with interleaved tables: {}.",
                table.name(),
                children.join(",")
            ),
        ));
    }
    Ok(Some(Change::DropTable { table: table.id }))
}

fn alter_table(
    path: &Path,
    action: &AlterTable,
    context: &DefinitionContext<'_>,
) -> Result<Option<Change>, Error> {
    let name = simple_name(path)?;
    let table = find_table(context.catalog, context.namespace, &name.text)
        .ok_or_else(|| table_not_found(&name.text))?;
    let existing = |column: &Name| {
        find_column(table, &column.text)
            .map(|index| &table.columns()[index])
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "Column not found in table {}: {}",
                        table.name(),
                        column.text
                    ),
                )
            })
    };
    let change = match action {
        AlterTable::AddColumn {
            column: definition,
            if_not_exists,
        } => {
            if find_column(table, &definition.name.text).is_some() {
                return match if_not_exists {
                    true => Ok(None),
                    false => Err(Error::new(
                        ErrorKind::FailedPrecondition,
                        format!(
                            "Duplicate column name {}.{}.",
                            table.name(),
                            definition.name.text
                        ),
                    )),
                };
            }
            if definition.not_null {
                return Err(Error::new(
                    ErrorKind::FailedPrecondition,
                    format!(
                        "Cannot add NOT NULL column {}.{} to existing table {}.",
                        table.name(),
                        definition.name.text,
                        table.name()
                    ),
                ));
            }
            let ordinals = table
                .columns()
                .iter()
                .filter_map(|column| column.options.get(ORDINAL_OPTION)?.parse::<u64>().ok());
            let last = ordinals
                .max()
                .unwrap_or(0)
                .max(table.columns().len() as u64);
            Change::AddColumns {
                table: table.id,
                columns: vec![column(definition, last + 1)?],
            }
        }
        AlterTable::DropColumn {
            column: name,
            if_exists,
        } => {
            let column = match existing(name) {
                Err(_) if *if_exists => return Ok(None),
                other => other?,
            };
            if is_key(column) {
                return Err(Error::invalid(format!(
                    "Cannot drop key column {} from table {}.",
                    column.name,
                    table.name()
                )));
            }
            Change::DropColumns {
                table: table.id,
                columns: vec![column.id],
                at_micros: context.now_micros,
            }
        }
        AlterTable::AlterColumn(definition) => {
            let old = existing(&definition.name)?;
            alter_column(table, old, definition)?
        }
        AlterTable::SetColumnOptions { column, options } => {
            let mut column = existing(column)?.clone();
            set_options(&mut column, options)?;
            Change::AlterColumn {
                table: table.id,
                column,
            }
        }
        AlterTable::SetOnDelete { .. } => {
            return Err(Error::unimplemented("ALTER TABLE … SET ON DELETE"));
        }
    };
    Ok(Some(change))
}

/// Only what every stored value satisfies already: a longer or unlimited length, and NOT NULL taken away.
fn alter_column(
    table: &Table,
    old: &Column,
    definition: &ColumnDefinition,
) -> Result<Change, Error> {
    let kind = column_type(&definition.kind)?;
    if definition.not_null && !old.not_null {
        return Err(Error::unimplemented(
            "ALTER COLUMN … NOT NULL on a column that allows NULL (existing rows would have to be checked)",
        ));
    }
    if is_key(old) && !definition.not_null && old.not_null {
        return Err(Error::invalid(format!(
            "Cannot change NOT NULL of key column {}.{}.",
            table.name(),
            old.name
        )));
    }
    if !widens(&old.kind, &kind) {
        return Err(Error::new(
            ErrorKind::FailedPrecondition,
            format!(
                "Cannot change type of column {}.{} from {} to {}.",
                table.name(),
                old.name,
                column_type_text(&old.kind),
                column_type_text(&kind)
            ),
        ));
    }
    let mut column = Column {
        kind,
        not_null: definition.not_null,
        ..old.clone()
    };
    set_options(&mut column, &definition.options)?;
    Ok(Change::AlterColumn {
        table: table.id,
        column,
    })
}

fn widens(old: &Type, new: &Type) -> bool {
    let longer = |old: &Option<u64>, new: &Option<u64>| match (old, new) {
        (_, None) => true,
        (Some(old), Some(new)) => old <= new,
        (None, Some(_)) => false,
    };
    match (old, new) {
        (Type::Text { length_max: old }, Type::Text { length_max: new })
        | (Type::Bytes { length_max: old }, Type::Bytes { length_max: new }) => longer(old, new),
        (Type::Array { element: old }, Type::Array { element: new }) => widens(old, new),
        _ => old == new,
    }
}

/// A table as the statement that would make it.
pub fn create_statement(table: &Table, catalog: &Catalog) -> String {
    let mut text = format!("CREATE TABLE {} (\n", quoted(table.name()));
    for index in declared_columns(table) {
        let column = &table.columns()[index];
        text.push_str("  ");
        text.push_str(&quoted(&column.name));
        text.push(' ');
        text.push_str(&column_type_text(&column.kind));
        if column.not_null {
            text.push_str(" NOT NULL");
        }
        if column.options.contains_key(COMMIT_TIMESTAMP_OPTION) {
            text.push_str(" OPTIONS (\n    allow_commit_timestamp = true\n  )");
        }
        text.push_str(",\n");
    }
    let key: Vec<String> = table
        .key_columns()
        .map(|column| match column.descending {
            true => format!("{} DESC", quoted(&column.name)),
            false => quoted(&column.name),
        })
        .collect();
    text.push_str(&format!(") PRIMARY KEY({})", key.join(", ")));
    if let Some(parent) = table.spec.parent.and_then(|parent| catalog.table(parent)) {
        let action = match table.spec.cascade {
            true => "CASCADE",
            false => "NO ACTION",
        };
        text.push_str(&format!(
            ",\n  INTERLEAVE IN PARENT {} ON DELETE {action}",
            quoted(parent.name())
        ));
    }
    text
}

/// A name as it must be written: quoted when it is no plain word.
fn quoted(name: &str) -> String {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !crate::parse::is_reserved(name);
    match plain {
        true => name.to_owned(),
        false => format!("`{name}`"),
    }
}
