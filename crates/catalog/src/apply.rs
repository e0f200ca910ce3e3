//! Applying a change to the catalog: the rules that all doors share, checked in the order in which the meta
//! group agrees on changes. A change that breaks one is refused and leaves the catalog as it was.
//!
//! Rules of one door alone (which options there are, what an ALTER may say) are the door's.

use crate::{
    Catalog, Change, ChangeError, Column, ColumnRole, Namespace, Partitioning, Protocol,
    Replication, Table, TableSpec, Type,
};
use model::key;
use model::{ColumnId, TableId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Columns that a table may have had in its life, dropped ones included.
const COLUMNS_MAX: u64 = 10_000;
/// Tables from a root to its innermost descendant (Spanner's limit is seven).
const INTERLEAVING_DEPTH_MAX: usize = 7;
/// Namespaces with this name, or this name and an underscore in front, are the doors' own views.
const SYSTEM: &str = "system";

impl Catalog {
    /// Applies a change, or refuses it and changes nothing. The version grows by one.
    pub fn apply(&mut self, change: &Change) -> Result<(), ChangeError> {
        // Tables are shared, so a copy is a pointer for each.
        let mut next = self.clone();
        match change {
            Change::All(changes) => {
                for change in changes {
                    next.apply_one(change)?;
                }
            }
            change => next.apply_one(change)?,
        }
        next.version.0 += 1;
        *self = next;
        Ok(())
    }

    fn apply_one(&mut self, change: &Change) -> Result<(), ChangeError> {
        match change {
            Change::CreateNamespace {
                name,
                replication,
                properties,
            } => self.create_namespace(name, replication, properties),
            Change::AlterNamespace {
                name,
                replication,
                properties,
            } => self.alter_namespace(name, replication.as_ref(), properties),
            Change::DropNamespace { name } => self.drop_namespace(name),
            Change::CreateTable { spec, uuid } => self.create_table(spec, *uuid),
            Change::DropTable { table } => self.drop_table(*table),
            Change::TruncateTable { table } => self.truncate_table(*table),
            Change::AddColumns { table, columns } => self.add_columns(*table, columns),
            Change::DropColumns {
                table,
                columns,
                at_micros,
            } => self.drop_columns(*table, columns, *at_micros),
            Change::RenameColumn {
                table,
                column,
                name,
            } => self.rename_column(*table, *column, name),
            Change::AlterColumn { table, column } => self.alter_column(*table, column),
            Change::AlterTable {
                table,
                gc_grace_seconds,
                default_ttl_seconds,
                properties,
            } => {
                let table = self.table_mut(*table)?;
                if let Some(seconds) = gc_grace_seconds {
                    table.spec.gc_grace_seconds = *seconds;
                }
                if let Some(seconds) = default_ttl_seconds {
                    table.spec.default_ttl_seconds = *seconds;
                }
                replace(&mut table.spec.properties, properties);
                Ok(())
            }
            Change::PutType {
                namespace,
                name,
                kind,
            } => self.put_type(namespace, name, kind.as_ref()),
            Change::PutProperty { key, value } => {
                put(&mut self.properties, key, value);
                Ok(())
            }
            Change::All(_) => Err(invalid("changes cannot be nested")),
            Change::SealTable {
                table,
                version,
                at_micros,
            } => self.seal_table(*table, *version, *at_micros),
            Change::ReplicateTable {
                table,
                version,
                replication,
                properties,
            } => self.replicate_table(*table, *version, replication, properties),
        }
    }

    fn create_namespace(
        &mut self,
        name: &str,
        replication: &Replication,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), ChangeError> {
        check_name("namespace", name)?;
        refuse_system(name)?;
        if self.namespaces.contains_key(name) {
            return Err(ChangeError::NamespaceExists(name.into()));
        }
        let mut namespace = Namespace {
            name: name.into(),
            replication: replication.clone(),
            tables: BTreeMap::new(),
            types: BTreeMap::new(),
            properties: BTreeMap::new(),
        };
        replace(&mut namespace.properties, properties);
        self.namespaces.insert(name.into(), namespace);
        Ok(())
    }

    fn alter_namespace(
        &mut self,
        name: &str,
        replication: Option<&Replication>,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), ChangeError> {
        refuse_system(name)?;
        let namespace = self.namespace_mut(name)?;
        replace(&mut namespace.properties, properties);
        let Some(replication) = replication else {
            return Ok(());
        };
        let has_tables = !namespace.tables.is_empty();
        if has_tables && namespace.replication.protocol != replication.protocol {
            return Err(invalid(format!(
                "namespace {name} has tables, so its replication protocol cannot change"
            )));
        }
        namespace.replication = replication.clone();
        let tables: Vec<TableId> = namespace.tables.values().copied().collect();
        for id in tables {
            if self.table(id).is_some_and(|table| table.has_own_copies) {
                continue;
            }
            // A table's protocol and ordering are its own: counters are strong in any keyspace.
            let table = self.table_mut(id)?;
            table.spec.replication = Replication {
                protocol: table.spec.replication.protocol,
                ordering: table.spec.replication.ordering,
                ..replication.clone()
            };
        }
        Ok(())
    }

    fn drop_namespace(&mut self, name: &str) -> Result<(), ChangeError> {
        refuse_system(name)?;
        let namespace = self
            .namespaces
            .remove(name)
            .ok_or_else(|| ChangeError::NoNamespace(name.into()))?;
        for id in namespace.tables.values() {
            self.tables.remove(id);
        }
        Ok(())
    }

    fn create_table(&mut self, spec: &TableSpec, uuid: [u8; 16]) -> Result<(), ChangeError> {
        check_name("table", &spec.name)?;
        let namespace = self.namespace_mut(&spec.namespace)?;
        if namespace.tables.contains_key(&spec.name) {
            return Err(ChangeError::TableExists(spec.name.clone()));
        }
        check_spec(spec)?;
        let mut spec = spec.clone();
        let id = TableId(self.next_table_id.max(1));
        let mut root = id;
        let mut ancestors = Vec::new();
        if let Some(parent) = spec.parent {
            let parent = self
                .tables
                .get(&parent)
                .ok_or_else(|| ChangeError::NoTable(parent.to_string()))?;
            check_interleaving(&spec, parent)?;
            root = parent.root;
            ancestors.clone_from(&parent.ancestors);
            let inherited: u32 = ancestors.iter().map(|(_, count)| count).sum();
            let own = parent.key_columns().count() as u32 - inherited;
            ancestors.push((parent.id, own));
            // One table group has one set of tablets.
            spec.replication = parent.spec.replication.clone();
        }
        let mut next_column_id = 1;
        for column in &mut spec.columns {
            column.id = ColumnId(next_column_id);
            next_column_id += 1;
        }
        self.next_table_id = id.0 + 1;
        self.namespace_mut(&spec.namespace)?
            .tables
            .insert(spec.name.clone(), id);
        let table = Table {
            id,
            root,
            uuid,
            spec,
            next_column_id,
            ancestors,
            dropped: BTreeMap::new(),
            version: 1,
            sealed_at_micros: None,
            has_own_copies: false,
        };
        self.tables.insert(id, Arc::new(table));
        Ok(())
    }

    fn drop_table(&mut self, id: TableId) -> Result<(), ChangeError> {
        self.refuse_parent(id)?;
        let table = self
            .tables
            .remove(&id)
            .ok_or_else(|| ChangeError::NoTable(id.to_string()))?;
        self.namespace_mut(table.namespace())?
            .tables
            .remove(table.name());
        Ok(())
    }

    fn seal_table(
        &mut self,
        id: TableId,
        version: u64,
        at_micros: Option<i64>,
    ) -> Result<(), ChangeError> {
        self.check_version(id, version)?;
        let table = self.table_mut(id)?;
        if !table.is_strong() {
            return Err(invalid("only strong tables can be sealed"));
        }
        table.sealed_at_micros = at_micros;
        Ok(())
    }

    fn replicate_table(
        &mut self,
        id: TableId,
        version: u64,
        replication: &Replication,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), ChangeError> {
        let known = self.check_version(id, version)?;
        if known.spec.parent.is_some() || self.child_of(id).is_some() {
            return Err(invalid("tables that share tablets are replicated alike"));
        }
        let is_remade = known.spec.replication.protocol != replication.protocol;
        if is_remade && !known.is_sealed() {
            return Err(invalid(
                "a table keeps its replication protocol unless it is sealed and empty",
            ));
        }
        let table = self.table_mut(id)?;
        table.spec.replication = replication.clone();
        table.sealed_at_micros = None;
        table.has_own_copies = true;
        replace(&mut table.spec.properties, properties);
        check_spec(&table.spec)?;
        if is_remade {
            self.remake(id)?;
        }
        Ok(())
    }

    fn truncate_table(&mut self, id: TableId) -> Result<(), ChangeError> {
        self.refuse_parent(id)?;
        let table = self.table_mut(id)?;
        if table.root != id {
            return Err(invalid(format!(
                "table {} is interleaved in another",
                table.name()
            )));
        }
        self.remake(id)
    }

    /// Gives a table a new id, and so new tablets with nothing in them.
    fn remake(&mut self, id: TableId) -> Result<(), ChangeError> {
        let table = self
            .tables
            .remove(&id)
            .ok_or_else(|| ChangeError::NoTable(id.to_string()))?;
        let mut table = Arc::unwrap_or_clone(table);
        table.id = TableId(self.next_table_id.max(1));
        table.root = table.id;
        self.next_table_id = table.id.0 + 1;
        let tables = &mut self.namespace_mut(table.namespace())?.tables;
        tables.insert(table.name().to_owned(), table.id);
        self.tables.insert(table.id, Arc::new(table));
        Ok(())
    }

    /// The table, which a change was made for as it is now.
    fn check_version(&self, id: TableId, version: u64) -> Result<&Table, ChangeError> {
        let table = self
            .tables
            .get(&id)
            .ok_or_else(|| ChangeError::NoTable(id.to_string()))?;
        match table.version == version {
            true => Ok(table),
            false => Err(ChangeError::Changed(table.name().into())),
        }
    }

    fn add_columns(&mut self, id: TableId, columns: &[Column]) -> Result<(), ChangeError> {
        let table = self.table_mut(id)?;
        for column in columns {
            check_name("column", &column.name)?;
            if table.column_by_name(&column.name).is_some() {
                return Err(ChangeError::ColumnExists(column.name.clone()));
            }
            if !matches!(column.role, ColumnRole::Regular | ColumnRole::Static) {
                return Err(invalid("the primary key cannot change"));
            }
            let id = ColumnId(table.next_column_id);
            table.next_column_id += 1;
            table.spec.columns.push(Column {
                id,
                ..column.clone()
            });
        }
        check_spec(&table.spec)?;
        if table.next_column_id > COLUMNS_MAX {
            return Err(invalid(format!("more than {COLUMNS_MAX} columns")));
        }
        Ok(())
    }

    fn drop_columns(
        &mut self,
        id: TableId,
        columns: &[ColumnId],
        at_micros: i64,
    ) -> Result<(), ChangeError> {
        let table = self.table_mut(id)?;
        for id in columns {
            let index = position(table, *id)?;
            if is_key(&table.spec.columns[index]) {
                return Err(invalid(format!(
                    "column {} is part of the primary key",
                    table.spec.columns[index].name
                )));
            }
            let column = table.spec.columns.remove(index);
            table.dropped.insert(column.name, (column.kind, at_micros));
        }
        Ok(())
    }

    fn rename_column(
        &mut self,
        id: TableId,
        column: ColumnId,
        name: &str,
    ) -> Result<(), ChangeError> {
        check_name("column", name)?;
        let has_child = self.child_of(id).is_some();
        let table = self.table_mut(id)?;
        let index = position(table, column)?;
        if table.column_by_name(name).is_some() {
            return Err(ChangeError::ColumnExists(name.into()));
        }
        let column = &mut table.spec.columns[index];
        if is_key(column) && (has_child || table.spec.parent.is_some()) {
            return Err(invalid(
                "a key column of an interleaved table, or of one with interleaved tables, keeps its name",
            ));
        }
        column.name = name.into();
        Ok(())
    }

    fn alter_column(&mut self, id: TableId, changed: &Column) -> Result<(), ChangeError> {
        let table = self.table_mut(id)?;
        let index = position(table, changed.id)?;
        let column = &mut table.spec.columns[index];
        let same_place = column.name == changed.name
            && column.role == changed.role
            && column.descending == changed.descending;
        let converts = if is_key(column) {
            without_lengths(&column.kind) == without_lengths(&changed.kind)
        } else {
            is_wider(&column.kind, &changed.kind)
        };
        if !same_place || !converts {
            return Err(invalid(format!(
                "column {} cannot become {:?}",
                column.name, changed.kind
            )));
        }
        *column = changed.clone();
        Ok(())
    }

    fn put_type(
        &mut self,
        namespace_name: &str,
        name: &str,
        kind: Option<&Type>,
    ) -> Result<(), ChangeError> {
        check_name("type", name)?;
        let namespace = self.namespace_mut(namespace_name)?;
        let Some(kind) = kind else {
            if namespace.types.remove(name).is_none() {
                return Err(ChangeError::NoType(name.into()));
            }
            let user = namespace.types.iter().find(|(_, kind)| uses(kind, name));
            if let Some((user, _)) = user {
                return Err(invalid(format!("type {name} is used by type {user}")));
            }
            if let Some(table) = self.table_using(namespace_name, name) {
                return Err(invalid(format!(
                    "type {name} is used by table {}",
                    table.name()
                )));
            }
            return Ok(());
        };
        let Type::User { fields, .. } = kind else {
            return Err(invalid("a type of a namespace has named fields"));
        };
        if fields.iter().any(|(_, kind)| uses(kind, name)) {
            return Err(invalid(format!("type {name} contains itself")));
        }
        for (_, field) in fields {
            check_types_exist(field, namespace)?;
        }
        let names: BTreeSet<&String> = fields.iter().map(|(name, _)| name).collect();
        if names.len() < fields.len() {
            return Err(invalid(format!("type {name} has two fields of one name")));
        }
        namespace.types.insert(name.into(), kind.clone());
        let namespace_types: Vec<String> = namespace.types.keys().cloned().collect();
        for other in namespace_types {
            if let Some(other) = namespace.types.get_mut(&other) {
                substitute(other, name, fields);
            }
        }
        self.substitute_in_tables(namespace_name, name, fields)
    }

    /// Columns carry their types whole, so those that have a type follow its change. Keys would not: a user
    /// type in a key may change its fields' names only.
    fn substitute_in_tables(
        &mut self,
        namespace: &str,
        name: &str,
        fields: &[(String, Type)],
    ) -> Result<(), ChangeError> {
        let ids: Vec<TableId> = self
            .tables
            .values()
            .filter(|table| table.namespace() == namespace)
            .filter(|table| {
                let mut columns = table.columns().iter();
                columns.any(|column| uses(&column.kind, name))
            })
            .map(|table| table.id)
            .collect();
        for id in ids {
            let table = self.table_mut(id)?;
            for column in &mut table.spec.columns {
                let before = column.kind.clone();
                substitute(&mut column.kind, name, fields);
                if is_key(column) && !is_same_shape(&before, &column.kind) {
                    return Err(invalid(format!(
                        "type {name} is part of the primary key of table {}",
                        table.spec.name
                    )));
                }
            }
        }
        Ok(())
    }

    fn table_using(&self, namespace: &str, name: &str) -> Option<&Arc<Table>> {
        self.tables
            .values()
            .filter(|table| table.namespace() == namespace)
            .find(|table| {
                let mut columns = table.columns().iter();
                columns.any(|column| uses(&column.kind, name))
            })
    }

    fn child_of(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables
            .values()
            .find(|table| table.spec.parent == Some(id))
    }

    fn refuse_parent(&self, id: TableId) -> Result<(), ChangeError> {
        match self.child_of(id) {
            Some(child) => Err(invalid(format!(
                "table {} is interleaved in it",
                child.name()
            ))),
            None => Ok(()),
        }
    }

    fn namespace_mut(&mut self, name: &str) -> Result<&mut Namespace, ChangeError> {
        self.namespaces
            .get_mut(name)
            .ok_or_else(|| ChangeError::NoNamespace(name.into()))
    }

    /// The table, to be changed: its version grows.
    fn table_mut(&mut self, id: TableId) -> Result<&mut Table, ChangeError> {
        let table = self
            .tables
            .get_mut(&id)
            .ok_or_else(|| ChangeError::NoTable(id.to_string()))?;
        let table = Arc::make_mut(table);
        table.version += 1;
        Ok(table)
    }
}

fn invalid(message: impl Into<String>) -> ChangeError {
    ChangeError::Invalid(message.into())
}

fn check_name(what: &str, name: &str) -> Result<(), ChangeError> {
    if name.is_empty() {
        return Err(invalid(format!("a {what} needs a name")));
    }
    Ok(())
}

fn refuse_system(name: &str) -> Result<(), ChangeError> {
    let rest = name.strip_prefix(SYSTEM);
    if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_')) {
        return Err(invalid(format!("namespace {name} belongs to the system")));
    }
    Ok(())
}

fn replace(properties: &mut BTreeMap<String, String>, changes: &BTreeMap<String, String>) {
    for (key, value) in changes {
        put(properties, key, value);
    }
}

fn put(properties: &mut BTreeMap<String, String>, key: &str, value: &str) {
    if value.is_empty() {
        properties.remove(key);
    } else {
        properties.insert(key.into(), value.into());
    }
}

fn position(table: &Table, id: ColumnId) -> Result<usize, ChangeError> {
    table
        .spec
        .columns
        .iter()
        .position(|column| column.id == id)
        .ok_or_else(|| ChangeError::NoColumn(id.to_string()))
}

fn is_key(column: &Column) -> bool {
    matches!(column.role, ColumnRole::Partition | ColumnRole::Clustering)
}

fn check_spec(spec: &TableSpec) -> Result<(), ChangeError> {
    let mut names = BTreeSet::new();
    for column in &spec.columns {
        check_name("column", &column.name)?;
        if !names.insert(&column.name) {
            return Err(ChangeError::ColumnExists(column.name.clone()));
        }
        if is_key(column) && !key::is_supported(&column.kind) {
            return Err(invalid(format!(
                "column {} of type {:?} cannot be part of the primary key",
                column.name, column.kind
            )));
        }
        let is_clustering = column.role == ColumnRole::Clustering;
        if column.descending && !is_clustering {
            return Err(invalid(format!(
                "column {} is not a clustering column, so it has no order",
                column.name
            )));
        }
        if column.kind == Type::Counter && spec.replication.protocol == Protocol::Eventual {
            return Err(invalid("tables with counters are strong"));
        }
    }
    if !spec.columns.is_sorted_by_key(|column| match column.role {
        ColumnRole::Partition => 0,
        ColumnRole::Clustering => 1,
        ColumnRole::Static | ColumnRole::Regular => 2,
    }) {
        return Err(invalid(
            "partition columns come first, then clustering columns, then the others",
        ));
    }
    let has = |role| spec.columns.iter().any(|column| column.role == role);
    match spec.partitioning {
        Partitioning::Hash if !has(ColumnRole::Partition) => {
            Err(invalid("a hash-partitioned table needs a partition column"))
        }
        Partitioning::Hash if spec.parent.is_some() => {
            Err(invalid("only range-partitioned tables are interleaved"))
        }
        Partitioning::Hash if has(ColumnRole::Static) && !has(ColumnRole::Clustering) => Err(
            invalid("static columns need a table with clustering columns"),
        ),
        Partitioning::Range if has(ColumnRole::Partition) || has(ColumnRole::Static) => Err(
            invalid("a range-partitioned table has neither partition nor static columns"),
        ),
        _ => Ok(()),
    }
}

fn check_interleaving(spec: &TableSpec, parent: &Table) -> Result<(), ChangeError> {
    if parent.spec.partitioning != Partitioning::Range {
        return Err(invalid("only range-partitioned tables are interleaved"));
    }
    if parent.namespace() != spec.namespace {
        return Err(invalid("a parent lies in its child's namespace"));
    }
    if parent.ancestors.len() + 2 > INTERLEAVING_DEPTH_MAX {
        return Err(invalid(format!(
            "tables are interleaved at most {INTERLEAVING_DEPTH_MAX} deep"
        )));
    }
    let theirs = &parent.spec.replication;
    if (theirs.protocol, theirs.ordering) != (spec.replication.protocol, spec.replication.ordering)
    {
        return Err(invalid("a child is replicated as its parent is"));
    }
    let mut own = spec.columns.iter().filter(|column| is_key(column));
    for column in parent.key_columns() {
        let same = own.next().is_some_and(|own| {
            own.name == column.name
                && without_lengths(&own.kind) == without_lengths(&column.kind)
                && own.descending == column.descending
        });
        if !same {
            return Err(invalid(format!(
                "the primary key does not begin with the parent's: column {} differs",
                column.name
            )));
        }
    }
    Ok(())
}

/// The type with no limits of length, nested ones included: what values and their encoding depend on.
fn without_lengths(kind: &Type) -> Type {
    match kind {
        Type::Text { .. } => Type::text(),
        Type::Bytes { .. } => Type::bytes(),
        Type::Array { element } => Type::Array {
            element: Box::new(without_lengths(element)),
        },
        other => other.clone(),
    }
}

/// Whether all values of `from` can be read as `to`.
fn is_wider(from: &Type, to: &Type) -> bool {
    let rank = |kind: &Type| match kind {
        Type::TinyInt => Some(0),
        Type::SmallInt => Some(1),
        Type::Int => Some(2),
        Type::BigInt => Some(3),
        _ => None,
    };
    match (rank(from), rank(to)) {
        (Some(from), Some(to)) => from <= to,
        _ => without_lengths(from) == without_lengths(to),
    }
}

/// Whether the user type of this name occurs in a type.
fn uses(kind: &Type, type_name: &str) -> bool {
    match kind {
        Type::User { name, fields, .. } => {
            name == type_name || fields.iter().any(|(_, kind)| uses(kind, type_name))
        }
        Type::List { element, .. }
        | Type::Set { element, .. }
        | Type::Array { element }
        | Type::Vector { element, .. } => uses(element, type_name),
        Type::Map { key, value, .. } => uses(key, type_name) || uses(value, type_name),
        Type::Tuple { fields } => fields.iter().any(|kind| uses(kind, type_name)),
        _ => false,
    }
}

/// Every user type inside is one of the namespace's.
fn check_types_exist(kind: &Type, namespace: &Namespace) -> Result<(), ChangeError> {
    match kind {
        Type::User { name, .. } if !namespace.types.contains_key(name) => {
            Err(ChangeError::NoType(name.clone()))
        }
        Type::List { element, .. }
        | Type::Set { element, .. }
        | Type::Array { element }
        | Type::Vector { element, .. } => check_types_exist(element, namespace),
        Type::Map { key, value, .. } => {
            check_types_exist(key, namespace)?;
            check_types_exist(value, namespace)
        }
        Type::Tuple { fields } => fields
            .iter()
            .try_for_each(|kind| check_types_exist(kind, namespace)),
        _ => Ok(()),
    }
}

/// Gives the user type of this name these fields wherever it occurs; whether it is frozen there stays.
fn substitute(kind: &mut Type, type_name: &str, new_fields: &[(String, Type)]) {
    match kind {
        Type::User { name, fields, .. } => {
            if name == type_name {
                *fields = new_fields.to_vec();
            } else {
                for (_, kind) in fields {
                    substitute(kind, type_name, new_fields);
                }
            }
        }
        Type::List { element, .. }
        | Type::Set { element, .. }
        | Type::Array { element }
        | Type::Vector { element, .. } => substitute(element, type_name, new_fields),
        Type::Map { key, value, .. } => {
            substitute(key, type_name, new_fields);
            substitute(value, type_name, new_fields);
        }
        Type::Tuple { fields } => {
            for kind in fields {
                substitute(kind, type_name, new_fields);
            }
        }
        _ => {}
    }
}

/// Whether two types differ at most in the names of fields.
fn is_same_shape(left: &Type, right: &Type) -> bool {
    fn nameless(kind: &Type) -> Type {
        match kind {
            Type::User { fields, .. } => Type::Tuple {
                fields: fields.iter().map(|(_, kind)| nameless(kind)).collect(),
            },
            Type::Tuple { fields } => Type::Tuple {
                fields: fields.iter().map(nameless).collect(),
            },
            Type::List { element, frozen } => Type::List {
                element: Box::new(nameless(element)),
                frozen: *frozen,
            },
            Type::Set { element, frozen } => Type::Set {
                element: Box::new(nameless(element)),
                frozen: *frozen,
            },
            Type::Map { key, value, frozen } => Type::Map {
                key: Box::new(nameless(key)),
                value: Box::new(nameless(value)),
                frozen: *frozen,
            },
            Type::Vector { element, dimension } => Type::Vector {
                element: Box::new(nameless(element)),
                dimension: *dimension,
            },
            other => other.clone(),
        }
    }
    nameless(left) == nameless(right)
}
