//! CREATE, ALTER and DROP: checked by CQL's rules here, and by everybody's where the change is applied.

use super::Execution;
use crate::error::Error;
use crate::grammar::ast::{
    Alteration, ColumnDefinition, CreateTable, OptionValue, Statement, TableName, TypeAlteration,
    TypeName,
};
use crate::options::{GC_GRACE_SECONDS_DEFAULT, keyspace_options, table_options};
use crate::protocol::response::{ChangeKind, ChangeTarget, SchemaChange};
use crate::system::is_system;
use crate::types::name::{check_depth, cql_name, freeze, resolve};
use catalog::{Catalog, Change, Column, ColumnRole, Namespace, Partitioning, Table, TableSpec};
use model::{ColumnId, Type};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keyspaces and tables have names of at most this length.
const NAME_LENGTH_MAX: usize = 48;

/// A definition, looked up: the change to make and what to tell about it, or nothing to do.
type Outcome = Result<Option<(Change, SchemaChange)>, Error>;

pub async fn define(execution: &Execution<'_>, statement: &Statement) -> Result<Vec<u8>, Error> {
    let catalog = execution.server.database.catalog();
    let keyspace = execution
        .parameters
        .keyspace
        .clone()
        .or_else(|| execution.connection.keyspace());
    let definer = Definer {
        execution,
        catalog: &catalog,
        keyspace,
    };
    let Some((change, event)) = definer.outcome(statement)? else {
        return Ok(execution.reply.void(&[]));
    };
    let changed = execution.server.database.change_catalog(change).await;
    match changed {
        Ok(_) => Ok(execution.reply.schema_change(&event, &[])),
        // Another client was faster: the same as if it had been there before.
        Err(api::Error::Refused(api::Refused::Catalog(
            catalog::ChangeError::TableExists(_) | catalog::ChangeError::NamespaceExists(_),
        ))) if is_lenient(statement) => Ok(execution.reply.void(&[])),
        Err(api::Error::Refused(api::Refused::Catalog(catalog::ChangeError::TableExists(_)))) => {
            let table = match &event.target {
                ChangeTarget::Table(table) => table.as_str(),
                _ => "",
            };
            Err(Error::already_exists(&event.keyspace, table))
        }
        Err(error) => Err(Error::from_read(error)),
    }
}

fn is_lenient(statement: &Statement) -> bool {
    match statement {
        Statement::CreateKeyspace { if_not_exists, .. } => *if_not_exists,
        Statement::CreateTable(create) => create.if_not_exists,
        _ => false,
    }
}

struct Definer<'a> {
    execution: &'a Execution<'a>,
    catalog: &'a Catalog,
    keyspace: Option<String>,
}

fn event(change: ChangeKind, keyspace: &str, target: ChangeTarget) -> SchemaChange {
    SchemaChange {
        change,
        keyspace: keyspace.to_owned(),
        target,
    }
}

fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let is_valid = !name.is_empty()
        && name.len() <= NAME_LENGTH_MAX
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_valid {
        return Err(Error::invalid(format!(
            "{what} name must not be empty or not contain non-alphanumeric-underscore characters and be at \
             most {NAME_LENGTH_MAX} long (got \"{name}\")"
        )));
    }
    Ok(())
}

impl Definer<'_> {
    fn outcome(&self, statement: &Statement) -> Outcome {
        match statement {
            Statement::CreateKeyspace {
                name,
                if_not_exists,
                options,
            } => self.create_keyspace(name, *if_not_exists, options),
            Statement::AlterKeyspace {
                name,
                if_exists,
                options,
            } => self.alter_keyspace(name, *if_exists, options),
            Statement::DropKeyspace { name, if_exists } => {
                refuse_system(name)?;
                if !self.catalog.namespaces.contains_key(name) {
                    return missing(*if_exists, || no_keyspace(name));
                }
                let change = Change::DropNamespace { name: name.clone() };
                let event = event(ChangeKind::Dropped, name, ChangeTarget::Keyspace);
                Ok(Some((change, event)))
            }
            Statement::CreateTable(create) => self.create_table(create),
            Statement::AlterTable {
                table,
                if_exists,
                alteration,
            } => self.alter_table(table, *if_exists, alteration),
            Statement::DropTable { table, if_exists } => {
                let keyspace = self.keyspace_of(table)?;
                refuse_system(keyspace)?;
                let Some(found) = self.catalog.table_by_name(keyspace, &table.name) else {
                    return missing(*if_exists, || no_table(keyspace, &table.name));
                };
                let change = Change::DropTable { table: found.id };
                let target = ChangeTarget::Table(table.name.clone());
                Ok(Some((change, event(ChangeKind::Dropped, keyspace, target))))
            }
            Statement::CreateType {
                name,
                if_not_exists,
                fields,
            } => self.create_type(name, *if_not_exists, fields),
            Statement::AlterType {
                name,
                if_exists,
                alteration,
            } => self.alter_type(name, *if_exists, alteration),
            Statement::DropType { name, if_exists } => self.drop_type(name, *if_exists),
            _ => Err(Error::server("a statement without an executor")),
        }
    }

    fn keyspace_of<'n>(&'n self, name: &'n TableName) -> Result<&'n str, Error> {
        name.keyspace
            .as_deref()
            .or(self.keyspace.as_deref())
            .ok_or_else(|| {
                Error::invalid(
                    "No keyspace has been specified. USE a keyspace, or explicitly specify \
                     keyspace.tablename",
                )
            })
    }

    fn namespace(&self, keyspace: &str) -> Result<&Namespace, Error> {
        self.catalog
            .namespaces
            .get(keyspace)
            .ok_or_else(|| no_keyspace(keyspace))
    }

    fn data_centers(&self) -> Vec<String> {
        let topology = self.execution.server.database.topology();
        let mut names: Vec<String> = topology
            .nodes
            .iter()
            .map(|node| node.data_center.clone())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn create_keyspace(
        &self,
        name: &str,
        if_not_exists: bool,
        options: &[(String, OptionValue)],
    ) -> Outcome {
        refuse_system(name)?;
        check_name("Keyspace", name)?;
        if self.catalog.namespaces.contains_key(name) {
            return missing(if_not_exists, || Error::already_exists(name, ""));
        }
        let options = keyspace_options(name, options, None, &self.data_centers())?;
        if !options.has_replication {
            return Err(Error::config("Missing mandatory option 'replication'"));
        }
        let change = Change::CreateNamespace {
            name: name.to_owned(),
            replication: options.replication,
            properties: options.properties,
        };
        let event = event(ChangeKind::Created, name, ChangeTarget::Keyspace);
        Ok(Some((change, event)))
    }

    fn alter_keyspace(
        &self,
        name: &str,
        if_exists: bool,
        options: &[(String, OptionValue)],
    ) -> Outcome {
        refuse_system(name)?;
        let Some(namespace) = self.catalog.namespaces.get(name) else {
            return missing(if_exists, || no_keyspace(name));
        };
        let options = keyspace_options(name, options, Some(namespace), &self.data_centers())?;
        let changes_protocol = options.replication.protocol != namespace.replication.protocol;
        if changes_protocol && !namespace.tables.is_empty() {
            return Err(Error::invalid(
                "the consistency of a keyspace that has tables cannot be changed",
            ));
        }
        let replication =
            (options.replication != namespace.replication).then_some(options.replication);
        let change = Change::AlterNamespace {
            name: name.to_owned(),
            replication,
            properties: options.properties,
        };
        let event = event(ChangeKind::Updated, name, ChangeTarget::Keyspace);
        Ok(Some((change, event)))
    }

    fn create_table(&self, create: &CreateTable) -> Outcome {
        let keyspace = self.keyspace_of(&create.table)?;
        let name = &create.table.name;
        refuse_system(keyspace)?;
        check_name("Table", name)?;
        let namespace = self.namespace(keyspace)?;
        if namespace.tables.contains_key(name) {
            return missing(create.if_not_exists, || {
                Error::already_exists(keyspace, name)
            });
        }
        let columns = table_columns(create, keyspace, namespace)?;
        let options = table_options(&create.options)?;
        let uuid = options
            .id
            .unwrap_or_else(|| *uuid::Uuid::new_v4().as_bytes());
        let change = Change::CreateTable {
            spec: TableSpec {
                namespace: keyspace.to_owned(),
                name: name.clone(),
                partitioning: Partitioning::Hash,
                replication: namespace.replication.clone(),
                columns,
                parent: None,
                cascade: false,
                gc_grace_seconds: options.gc_grace_seconds.unwrap_or(GC_GRACE_SECONDS_DEFAULT),
                default_ttl_seconds: options.default_ttl_seconds.unwrap_or(0),
                properties: options.properties,
            },
            uuid,
        };
        let target = ChangeTarget::Table(name.clone());
        Ok(Some((change, event(ChangeKind::Created, keyspace, target))))
    }

    fn alter_table(&self, name: &TableName, if_exists: bool, alteration: &Alteration) -> Outcome {
        let keyspace = self.keyspace_of(name)?;
        refuse_system(keyspace)?;
        let Some(table) = self.catalog.table_by_name(keyspace, &name.name) else {
            return missing(if_exists, || no_table(keyspace, &name.name));
        };
        let namespace = self.namespace(keyspace)?;
        let changes = match alteration {
            Alteration::Add {
                if_not_exists,
                columns,
            } => add_columns(table, columns, *if_not_exists, namespace)?,
            Alteration::Drop {
                if_exists,
                columns,
                timestamp,
            } => {
                let at_micros = timestamp.unwrap_or(self.execution.now.0);
                drop_columns(table, columns, *if_exists, at_micros)?
            }
            Alteration::Rename { if_exists, columns } => rename(table, columns, *if_exists)?,
            Alteration::Options(options) => {
                let options = table_options(options)?;
                if options.id.is_some() {
                    return Err(Error::config("Cannot alter table id."));
                }
                vec![Change::AlterTable {
                    table: table.id,
                    gc_grace_seconds: options.gc_grace_seconds,
                    default_ttl_seconds: options.default_ttl_seconds,
                    properties: options.properties,
                }]
            }
            Alteration::ChangeType => {
                return Err(Error::invalid(
                    "Altering column types is no longer supported",
                ));
            }
        };
        let target = ChangeTarget::Table(name.name.clone());
        Ok(one(changes).map(|change| (change, event(ChangeKind::Updated, keyspace, target))))
    }

    fn create_type(
        &self,
        name: &TableName,
        if_not_exists: bool,
        fields: &[(String, TypeName)],
    ) -> Outcome {
        let keyspace = self.keyspace_of(name)?;
        refuse_system(keyspace)?;
        let namespace = self.namespace(keyspace)?;
        if namespace.types.contains_key(&name.name) {
            return missing(if_not_exists, || {
                Error::invalid(format!(
                    "A user type with name '{}' already exists",
                    name.name
                ))
            });
        }
        let fields = type_fields(fields, keyspace, namespace)?;
        Ok(Some(put_type(
            keyspace,
            &name.name,
            fields,
            ChangeKind::Created,
        )))
    }

    fn alter_type(
        &self,
        name: &TableName,
        if_exists: bool,
        alteration: &TypeAlteration,
    ) -> Outcome {
        let keyspace = self.keyspace_of(name)?;
        refuse_system(keyspace)?;
        let namespace = self.namespace(keyspace)?;
        let Some(Type::User { fields, .. }) = namespace.types.get(&name.name) else {
            return missing(if_exists, || no_type(keyspace, &name.name));
        };
        if let Some(user) = self.user_of(keyspace, &name.name) {
            return Err(Error::invalid(format!(
                "altering user type '{keyspace}.{}' is not supported while {user} uses it",
                name.name
            )));
        }
        let mut fields = fields.clone();
        match alteration {
            TypeAlteration::Add(added) => {
                for (field, kind) in type_fields(added, keyspace, namespace)? {
                    if fields.iter().any(|(known, _)| *known == field) {
                        return Err(Error::invalid(format!(
                            "Cannot add field {field} to type {}: a field with name {field} already exists",
                            name.name
                        )));
                    }
                    fields.push((field, kind));
                }
            }
            TypeAlteration::Rename(renames) => {
                for (from, to) in renames {
                    let field = fields.iter_mut().find(|(known, _)| known == from);
                    let (field, _) = field.ok_or_else(|| {
                        Error::invalid(format!(
                            "Unkown field {from} in user type {keyspace}.{}",
                            name.name
                        ))
                    })?;
                    field.clone_from(to);
                }
            }
        }
        Ok(Some(put_type(
            keyspace,
            &name.name,
            fields,
            ChangeKind::Updated,
        )))
    }

    fn drop_type(&self, name: &TableName, if_exists: bool) -> Outcome {
        let keyspace = self.keyspace_of(name)?;
        refuse_system(keyspace)?;
        let namespace = self.namespace(keyspace)?;
        if !namespace.types.contains_key(&name.name) {
            return missing(if_exists, || no_type(keyspace, &name.name));
        }
        if let Some(user) = self.user_of(keyspace, &name.name) {
            return Err(Error::invalid(format!(
                "Cannot drop user type '{keyspace}.{}' as it is still used by {user}",
                name.name
            )));
        }
        let change = Change::PutType {
            namespace: keyspace.to_owned(),
            name: name.name.clone(),
            kind: None,
        };
        let target = ChangeTarget::Type(name.name.clone());
        Ok(Some((change, event(ChangeKind::Dropped, keyspace, target))))
    }

    /// A table or type that uses a user-defined type.
    fn user_of(&self, keyspace: &str, name: &str) -> Option<String> {
        let namespace = self.catalog.namespaces.get(keyspace)?;
        let other = namespace
            .types
            .iter()
            .find(|(other, kind)| *other != name && mentions(kind, name));
        if let Some((other, _)) = other {
            return Some(format!("user type {other}"));
        }
        namespace
            .tables
            .values()
            .filter_map(|id| self.catalog.table(*id))
            .find(|table| {
                table
                    .columns()
                    .iter()
                    .any(|column| mentions(&column.kind, name))
            })
            .map(|table| format!("table {}", table.name()))
    }
}

fn missing(is_lenient: bool, error: impl FnOnce() -> Error) -> Outcome {
    if is_lenient { Ok(None) } else { Err(error()) }
}

fn no_keyspace(name: &str) -> Error {
    Error::invalid(format!("Keyspace '{name}' doesn't exist"))
}

fn no_table(keyspace: &str, name: &str) -> Error {
    Error::invalid(format!("Table '{keyspace}.{name}' doesn't exist"))
}

fn no_type(keyspace: &str, name: &str) -> Error {
    Error::invalid(format!("Type '{keyspace}.{name}' doesn't exist"))
}

fn refuse_system(keyspace: &str) -> Result<(), Error> {
    if is_system(keyspace) {
        return Err(Error::unauthorized(format!(
            "{keyspace} keyspace is not user-modifiable."
        )));
    }
    Ok(())
}

fn one(mut changes: Vec<Change>) -> Option<Change> {
    match changes.len() {
        0 => None,
        1 => changes.pop(),
        _ => Some(Change::All(changes)),
    }
}

fn mentions(kind: &Type, name: &str) -> bool {
    match kind {
        Type::User {
            name: other,
            fields,
            ..
        } => other == name || fields.iter().any(|(_, kind)| mentions(kind, name)),
        Type::List { element, .. }
        | Type::Set { element, .. }
        | Type::Vector { element, .. }
        | Type::Array { element } => mentions(element, name),
        Type::Map { key, value, .. } => mentions(key, name) || mentions(value, name),
        Type::Tuple { fields } => fields.iter().any(|kind| mentions(kind, name)),
        _ => false,
    }
}

fn put_type(
    keyspace: &str,
    name: &str,
    fields: Vec<(String, Type)>,
    kind: ChangeKind,
) -> (Change, SchemaChange) {
    let change = Change::PutType {
        namespace: keyspace.to_owned(),
        name: name.to_owned(),
        kind: Some(Type::User {
            name: name.to_owned(),
            fields,
            frozen: false,
        }),
    };
    let target = ChangeTarget::Type(name.to_owned());
    (change, event(kind, keyspace, target))
}

fn type_fields(
    fields: &[(String, TypeName)],
    keyspace: &str,
    namespace: &Namespace,
) -> Result<Vec<(String, Type)>, Error> {
    let mut found: Vec<(String, Type)> = Vec::new();
    for (name, kind) in fields {
        if found.iter().any(|(known, _)| known == name) {
            return Err(Error::invalid(format!(
                "Duplicate field name '{name}' in type"
            )));
        }
        let kind = resolve(kind, keyspace, &namespace.types)?;
        if kind == Type::Counter {
            return Err(Error::invalid("A user type cannot contain counters"));
        }
        if matches!(kind, Type::User { frozen: false, .. }) {
            return Err(Error::invalid(format!(
                "A user type cannot contain non-frozen UDTs: field {name} must be frozen"
            )));
        }
        // The whole type is either frozen or keeps a cell per field: collections in it are frozen either way.
        let kind = freeze(&kind);
        check_depth(&kind)?;
        found.push((name.clone(), kind));
    }
    Ok(found)
}

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

fn refuse_counter(kind: &Type) -> Result<(), Error> {
    if *kind == Type::Counter {
        return Err(Error::invalid(
            "Counters are not supported yet: use a keyspace with consistency = 'strong' and conditional updates",
        ));
    }
    Ok(())
}

/// A table's columns in the catalog's order: partition key, clustering key, the others.
fn table_columns(
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
        refuse_counter(&kind)?;
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

fn add_columns(
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
        refuse_counter(&kind)?;
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

fn drop_columns(
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

fn rename(
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
