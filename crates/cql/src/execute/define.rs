//! CREATE, ALTER and DROP: checked by CQL's rules here, and by everybody's where the change is applied.

use super::Execution;
use super::columns::{add_columns, drop_columns, rename, table_columns};
use crate::error::Error;
use crate::grammar::ast::{
    Alteration, CreateTable, OptionValue, Statement, TableName, TypeAlteration, TypeName,
};
use crate::options::{GC_GRACE_SECONDS_DEFAULT, keyspace_options, table_options};
use crate::plan::modify::has_counters;
use crate::protocol::response::{ChangeKind, ChangeTarget, SchemaChange};
use crate::system::is_system;
use crate::types::name::{check_depth, freeze, resolve};
use catalog::{
    Catalog, Change, Durability, Namespace, Ordering, Partitioning, Protocol, TableSpec,
};
use model::Type;

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
        Err(error) => Err(Error::from_definition(error, catalog.version)),
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
        let is_of_counters = columns.iter().any(|column| column.kind == Type::Counter);
        if is_of_counters && options.default_ttl_seconds.unwrap_or(0) > 0 {
            return Err(Error::config(
                "Cannot set default_time_to_live on a table with counters",
            ));
        }
        let mut replication = namespace.replication.clone();
        if is_of_counters {
            // Exact counters need agreement on what they were.
            replication.protocol = Protocol::Strong;
            replication.durability = Durability::Synced;
            replication.ordering = Ordering::Conflict;
        }
        let uuid = options
            .id
            .unwrap_or_else(|| *uuid::Uuid::new_v4().as_bytes());
        let change = Change::CreateTable {
            spec: TableSpec {
                namespace: keyspace.to_owned(),
                name: name.clone(),
                partitioning: Partitioning::Hash,
                replication,
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
                if has_counters(table) && options.default_ttl_seconds.unwrap_or(0) > 0 {
                    return Err(Error::config(
                        "Cannot set default_time_to_live on a table with counters",
                    ));
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
