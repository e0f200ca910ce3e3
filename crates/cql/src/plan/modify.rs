//! INSERT, UPDATE and DELETE made ready.

use super::Planner;
use super::condition::{self, ConditionPlan};
use super::keys::{Choice, KeyPlan};
use super::restrict::{self, Access};
use super::term::Term;
use super::view::{Place, View};
use crate::error::Error;
use crate::grammar::ast::{self, DeleteTarget, Operation, Statement};
use crate::types::name::cql_name;
use crate::types::number::is_number;
use catalog::{ColumnRole, Table};
use model::{ColumnId, Type, Value};
use std::sync::Arc;

#[derive(Debug)]
pub struct ModifyPlan {
    pub view: View,
    pub table: Arc<Table>,
    pub kind: ModifyKind,
    pub keys: KeyPlan,
    pub changes: Vec<Change>,
    pub timestamp: Option<Term>,
    pub ttl: Option<Term>,
    pub condition: Option<ConditionPlan>,
    /// The statement names rows by their whole key.
    pub names_rows: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModifyKind {
    Insert,
    Update,
    Delete,
}

#[derive(Debug)]
pub struct Change {
    pub column: usize,
    pub(super) id: ColumnId,
    pub(super) kind: Type,
    pub(super) is_static: bool,
    pub(super) action: Action,
}

#[derive(Debug)]
pub(super) enum Action {
    /// A plain column or a frozen value.
    Set(Term),
    /// All of a collection.
    SetAll(Term),
    /// Elements of a set, pairs of a map, or elements behind a list's last.
    Append(Term),
    Prepend(Term),
    /// Elements out of a set, keys out of a map.
    Discard(Term),
    /// Elements out of a list, wherever they stand: reads the list first.
    DiscardFromList(Term),
    SetKey(Term, Term),
    RemoveKey(Term),
    /// By index: reads the list first.
    SetIndex(Term, Term),
    RemoveIndex(Term),
    SetField(usize, Term),
    Remove,
    /// Of a counter.
    Increment(Term),
    Decrement(Term),
    /// Of another number, inside a transaction: reads it first.
    Plus(Term),
    Minus(Term),
}

/// A counter table has no other columns than counters beside its key. It is strong, whatever its keyspace is.
pub fn has_counters(table: &Table) -> bool {
    table
        .columns()
        .iter()
        .any(|column| column.kind == Type::Counter)
}

impl ModifyPlan {
    /// What may not be said of a counter: its updates are neither idempotent nor ordered by the client.
    fn check_counters(self) -> Result<ModifyPlan, Error> {
        if !has_counters(&self.table) {
            return Ok(self);
        }
        if self.kind == ModifyKind::Insert {
            return Err(Error::invalid(
                "INSERT statements are not allowed on counter tables, use UPDATE instead",
            ));
        }
        if self.condition.is_some() {
            return Err(Error::invalid(
                "Conditional updates are not supported on counter tables",
            ));
        }
        if self.timestamp.is_some() {
            return Err(Error::invalid(
                "Cannot provide custom timestamp for counter updates",
            ));
        }
        if self.ttl.is_some() {
            return Err(Error::invalid(
                "Cannot provide custom TTL for counter updates",
            ));
        }
        Ok(self)
    }
}

pub fn plan(statement: &Statement, planner: &mut Planner<'_>) -> Result<ModifyPlan, Error> {
    match statement {
        Statement::Insert(insert) => plan_insert(insert, planner)?.check_counters(),
        Statement::Update(update) => plan_update(update, planner)?.check_counters(),
        Statement::Delete(delete) => plan_delete(delete, planner)?.check_counters(),
        _ => Err(Error::invalid(
            "Invalid statement in batch: only UPDATE, INSERT and DELETE are allowed",
        )),
    }
}

fn plan_insert(insert: &ast::Insert, planner: &mut Planner<'_>) -> Result<ModifyPlan, Error> {
    let view = planner.view(&insert.table)?;
    let table = view.stored()?.clone();
    if insert.columns.len() != insert.values.len() {
        return Err(Error::invalid("Unmatched column names/values"));
    }
    let mut key_terms: Vec<Option<Term>> = vec![None; table.key_columns().count()];
    let mut changes = Vec::new();
    for (position, (name, term)) in insert.columns.iter().zip(&insert.values).enumerate() {
        if insert.columns[..position].contains(name) {
            return Err(Error::invalid(format!(
                "The column names contains duplicates: {name}"
            )));
        }
        let index = view.index(name)?;
        let column = &view.columns[index];
        if let Place::Key(position) = column.place {
            key_terms[position] = Some(planner.term(term, &column.kind, &column.name)?);
        } else {
            changes.push(plan_set(&view, index, term, planner)?);
        }
    }
    let (timestamp, ttl) = plan_using(&insert.using, planner)?;
    let (partition_terms, clustering_terms) = key_terms.split_at(view.partition_count());
    let has_no_clustering = clustering_terms.iter().all(Option::is_none);
    let only_statics = has_no_clustering
        && !clustering_terms.is_empty()
        && !changes.is_empty()
        && changes.iter().all(|change| change.is_static);
    let mut keys = KeyPlan::default();
    let missing = |position: usize| {
        Error::invalid(format!(
            "Some partition key parts are missing: {}",
            view.columns[position].name
        ))
    };
    for (position, term) in partition_terms.iter().enumerate() {
        let term = term.clone().ok_or_else(|| missing(position))?;
        keys.partition.push(Choice::Equal(term));
    }
    if !only_statics {
        for (position, term) in clustering_terms.iter().enumerate() {
            let term = term.clone().ok_or_else(|| {
                Error::invalid(format!(
                    "Some clustering keys are missing: {}",
                    view.columns[partition_terms.len() + position].name
                ))
            })?;
            keys.clustering.push(Choice::Equal(term));
        }
    }
    Ok(ModifyPlan {
        names_rows: !only_statics,
        kind: ModifyKind::Insert,
        keys,
        changes,
        timestamp,
        ttl,
        condition: insert.if_not_exists.then_some(ConditionPlan::NotExists),
        table,
        view,
    })
}

fn plan_using(
    using: &ast::Using,
    planner: &mut Planner<'_>,
) -> Result<(Option<Term>, Option<Term>), Error> {
    let timestamp = match &using.timestamp {
        Some(term) => Some(planner.term(term, &Type::BigInt, "[timestamp]")?),
        None => None,
    };
    let ttl = match &using.ttl {
        Some(term) => Some(planner.term(term, &Type::Int, "[ttl]")?),
        None => None,
    };
    Ok((timestamp, ttl))
}

/// The keys of an UPDATE or DELETE: its relations must all be about them.
fn plan_keys(
    relations: &[ast::Relation],
    view: &View,
    planner: &mut Planner<'_>,
) -> Result<KeyPlan, Error> {
    for relation in relations {
        let is_key = match &relation.left {
            ast::RelationLeft::Column(name) => {
                matches!(view.columns[view.index(name)?].place, Place::Key(_))
            }
            ast::RelationLeft::Columns(_) => true,
            ast::RelationLeft::Token(_) => {
                return Err(Error::invalid(
                    "The token function cannot be used in WHERE clauses for UPDATE and DELETE statements",
                ));
            }
            ast::RelationLeft::Element(..) => false,
        };
        if !is_key {
            return Err(Error::invalid(format!(
                "Non PRIMARY KEY columns found in where clause: {}",
                match &relation.left {
                    ast::RelationLeft::Column(name) | ast::RelationLeft::Element(name, _) => name,
                    _ => "",
                }
            )));
        }
    }
    let restrictions = restrict::plan(relations, view, planner)?;
    let Access::Partitions(keys) = restrictions.access else {
        let missing: Vec<_> = view
            .of_role(ColumnRole::Partition)
            .filter(|(_, column)| {
                !relations.iter().any(|relation| {
                    matches!(&relation.left, ast::RelationLeft::Column(name) if *name == column.name)
                })
            })
            .map(|(_, column)| column.name.as_str())
            .collect();
        if missing.is_empty() {
            return Err(Error::invalid(
                "Only EQ and IN relation are supported on the partition key (unless you use the token() \
                 function) for UPDATE and DELETE statements",
            ));
        }
        return Err(Error::invalid(format!(
            "Some partition key parts are missing: {}",
            missing.join(", ")
        )));
    };
    if let Some(filter) = restrictions.filters.first() {
        let column = &view.columns[filter.column];
        return Err(Error::invalid(format!(
            "PRIMARY KEY column \"{}\" cannot be restricted as preceding column \"{}\" is not restricted",
            column.name,
            view.columns[filter.column.saturating_sub(1)].name
        )));
    }
    Ok(keys)
}

fn plan_update(update: &ast::Update, planner: &mut Planner<'_>) -> Result<ModifyPlan, Error> {
    let view = planner.view(&update.table)?;
    let table = view.stored()?.clone();
    // Markers are typed where they stand: the order of planning does not matter to their numbers.
    let (timestamp, ttl) = plan_using(&update.using, planner)?;
    let mut changes = Vec::new();
    for (name, operation) in &update.operations {
        let index = view.index(name)?;
        if matches!(view.columns[index].place, Place::Key(_)) {
            return Err(Error::invalid(format!(
                "PRIMARY KEY part {name} found in SET part"
            )));
        }
        changes.push(plan_operation(&view, index, operation, planner)?);
    }
    let keys = plan_keys(&update.relations, &view, planner)?;
    let names_rows = keys.names_rows(view.clustering_count());
    let only_statics = changes.iter().all(|change| change.is_static);
    let is_of_header = only_statics && !keys.restricts_clustering();
    if !names_rows && !is_of_header {
        let missing: Vec<_> = view
            .of_role(ColumnRole::Clustering)
            .skip(keys.clustering.len())
            .map(|(_, column)| column.name.as_str())
            .collect();
        return Err(Error::invalid(format!(
            "Some clustering keys are missing: {}",
            missing.join(", ")
        )));
    }
    let condition = match &update.condition {
        Some(clause) => Some(condition::plan(clause, &view, planner)?),
        None => None,
    };
    check_condition(&condition, &keys, &timestamp)?;
    Ok(ModifyPlan {
        view,
        table,
        kind: ModifyKind::Update,
        keys,
        changes,
        timestamp,
        ttl,
        condition,
        names_rows,
    })
}

fn check_condition(
    condition: &Option<ConditionPlan>,
    keys: &KeyPlan,
    timestamp: &Option<Term>,
) -> Result<(), Error> {
    if condition.is_none() {
        return Ok(());
    }
    if keys.has_in() {
        return Err(Error::invalid(
            "IN on the primary key is not supported with conditional updates",
        ));
    }
    if timestamp.is_some() {
        return Err(Error::invalid(
            "Cannot provide custom timestamp for conditional updates",
        ));
    }
    Ok(())
}

fn plan_delete(delete: &ast::Delete, planner: &mut Planner<'_>) -> Result<ModifyPlan, Error> {
    let view = planner.view(&delete.table)?;
    let table = view.stored()?.clone();
    let (timestamp, _) = plan_using(&delete.using, planner)?;
    let mut changes = Vec::new();
    for target in &delete.targets {
        changes.push(plan_target(&view, target, planner)?);
    }
    let keys = plan_keys(&delete.relations, &view, planner)?;
    let names_rows = keys.names_rows(view.clustering_count());
    let only_statics = changes.iter().all(|change| change.is_static);
    let is_of_header = only_statics && !keys.restricts_clustering();
    if !changes.is_empty() && !names_rows && !is_of_header {
        return Err(Error::invalid(
            "Range deletions are not supported for specific columns",
        ));
    }
    let condition = match &delete.condition {
        Some(clause) => Some(condition::plan(clause, &view, planner)?),
        None => None,
    };
    check_condition(&condition, &keys, &timestamp)?;
    if condition.is_some() && !names_rows && keys.restricts_clustering() {
        return Err(Error::invalid(
            "DELETE statements must restrict all PRIMARY KEY columns with equality relations in order to use \
             IF conditions",
        ));
    }
    Ok(ModifyPlan {
        view,
        table,
        kind: ModifyKind::Delete,
        keys,
        changes,
        timestamp,
        ttl: None,
        condition,
        names_rows,
    })
}

fn change(view: &View, index: usize, action: Action) -> Result<Change, Error> {
    let column = &view.columns[index];
    let (id, is_static) = match column.place {
        Place::Row(id) => (id, false),
        Place::Header(id) => (id, true),
        Place::Key(_) => {
            return Err(Error::invalid(format!(
                "Invalid identifier {} for deletion (should not be a PRIMARY KEY part)",
                column.name
            )));
        }
    };
    Ok(Change {
        column: index,
        id,
        kind: column.kind.clone(),
        is_static,
        action,
    })
}

fn plan_set(
    view: &View,
    index: usize,
    term: &ast::Term,
    planner: &mut Planner<'_>,
) -> Result<Change, Error> {
    let column = &view.columns[index];
    let planned = planner.term(term, &column.kind, &column.name)?;
    let action = if column.kind.is_multi_cell() {
        Action::SetAll(planned)
    } else {
        Action::Set(planned)
    };
    change(view, index, action)
}

fn plan_operation(
    view: &View,
    index: usize,
    operation: &Operation,
    planner: &mut Planner<'_>,
) -> Result<Change, Error> {
    let column = &view.columns[index];
    let kind = &column.kind;
    let name = column.name.as_str();
    let wrong = |what: &str| {
        Error::invalid(format!(
            "Invalid operation ({what}) for {} column {name}",
            if kind.is_multi_cell() {
                cql_name(kind)
            } else if matches!(
                kind,
                Type::List { .. } | Type::Set { .. } | Type::Map { .. }
            ) {
                "frozen collection".into()
            } else {
                format!("non collection {}", cql_name(kind))
            }
        ))
    };
    let is_counter = *kind == Type::Counter;
    let action = match operation {
        Operation::Add(term) if is_counter => Action::Increment(planner.term(term, kind, name)?),
        Operation::Subtract(term) if is_counter => {
            Action::Decrement(planner.term(term, kind, name)?)
        }
        Operation::Add(term) if planner.in_transaction() && is_number(kind) => {
            Action::Plus(planner.term(term, kind, name)?)
        }
        Operation::Subtract(term) if planner.in_transaction() && is_number(kind) => {
            Action::Minus(planner.term(term, kind, name)?)
        }
        Operation::Set(_) if is_counter => {
            return Err(Error::invalid(format!(
                "Cannot set the value of counter column {name} (counters can only be incremented/decremented, \
                 not set)"
            )));
        }
        Operation::Set(term) => return plan_set(view, index, term, planner),
        Operation::Add(term) if collection_parts(kind).is_some() => {
            Action::Append(planner.term(term, kind, name)?)
        }
        Operation::Add(_) => return Err(wrong(&format!("{name} = {name} + …"))),
        Operation::Prepend(term) if matches!(kind, Type::List { frozen: false, .. }) => {
            Action::Prepend(planner.term(term, kind, name)?)
        }
        Operation::Prepend(term) if collection_parts(kind).is_some() => {
            Action::Append(planner.term(term, kind, name)?)
        }
        Operation::Prepend(_) => return Err(wrong(&format!("{name} = … + {name}"))),
        Operation::Subtract(term) => match collection_parts(kind) {
            Some(_) if matches!(kind, Type::List { .. }) => {
                Action::DiscardFromList(planner.term(term, kind, name)?)
            }
            Some((Some(key), _)) => {
                let keys = Type::Set {
                    element: Box::new(key.clone()),
                    frozen: true,
                };
                Action::Discard(planner.term(term, &keys, name)?)
            }
            _ => return Err(wrong(&format!("{name} = {name} - …"))),
        },
        Operation::SetElement(key, value) => match kind {
            Type::Map {
                key: key_kind,
                value: value_kind,
                frozen: false,
            } => Action::SetKey(
                planner.term(key, key_kind, &format!("key({name})"))?,
                planner.term(value, value_kind, &format!("value({name})"))?,
            ),
            Type::List {
                element,
                frozen: false,
            } => Action::SetIndex(
                planner.term(key, &Type::Int, &format!("idx({name})"))?,
                planner.term(value, element, &format!("value({name})"))?,
            ),
            _ => return Err(wrong(&format!("{name}[…] = …"))),
        },
        Operation::SetField(field, term) => {
            let (position, field_kind) = user_field(kind, field, name)?;
            let planned = planner.term(term, &field_kind, &format!("{name}.{field}"))?;
            Action::SetField(position, planned)
        }
    };
    change(view, index, action)
}

/// What a non-frozen collection's paths and values are: the key of a set's element or map's pair; for lists none.
fn collection_parts(kind: &Type) -> Option<(Option<&Type>, &Type)> {
    match kind {
        Type::List {
            element,
            frozen: false,
        } => Some((None, element)),
        Type::Set {
            element,
            frozen: false,
        } => Some((Some(element), element)),
        Type::Map {
            key,
            value,
            frozen: false,
        } => Some((Some(key), value)),
        _ => None,
    }
}

fn user_field(kind: &Type, field: &str, column: &str) -> Result<(usize, Type), Error> {
    if !kind.is_multi_cell() {
        return Err(Error::invalid(format!(
            "Invalid operation ({column}.{field} = …) for non-UDT or frozen column {column}"
        )));
    }
    find_field(kind, field, column)
}

/// A field of a user-defined type, by its position.
pub(super) fn find_field(kind: &Type, field: &str, column: &str) -> Result<(usize, Type), Error> {
    let Type::User { fields, name, .. } = kind else {
        return Err(Error::invalid(format!(
            "Invalid operation ({column}.{field} = …) for non-UDT column {column}"
        )));
    };
    fields
        .iter()
        .position(|(known, _)| known == field)
        .map(|position| (position, fields[position].1.clone()))
        .ok_or_else(|| {
            Error::invalid(format!(
                "UDT column {column} ({name}) does not have a field named {field}"
            ))
        })
}

fn plan_target(
    view: &View,
    target: &DeleteTarget,
    planner: &mut Planner<'_>,
) -> Result<Change, Error> {
    match target {
        DeleteTarget::Column(name) => change(view, view.index(name)?, Action::Remove),
        DeleteTarget::Element(name, term) => {
            let index = view.index(name)?;
            let action = match &view.columns[index].kind {
                Type::Map {
                    key, frozen: false, ..
                }
                | Type::Set {
                    element: key,
                    frozen: false,
                } => Action::RemoveKey(planner.term(term, key, &format!("key({name})"))?),
                Type::List { frozen: false, .. } => {
                    Action::RemoveIndex(planner.term(term, &Type::Int, &format!("idx({name})"))?)
                }
                _ => {
                    return Err(Error::invalid(format!(
                        "Invalid deletion operation for frozen or non collection column {name}"
                    )));
                }
            };
            change(view, index, action)
        }
        DeleteTarget::Field(name, field) => {
            let index = view.index(name)?;
            let (position, _) = user_field(&view.columns[index].kind, field, name)?;
            let null = Action::SetField(position, Term::Constant(Value::Null));
            change(view, index, null)
        }
    }
}
