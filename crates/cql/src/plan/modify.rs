//! INSERT, UPDATE and DELETE made ready, and lowered to mutations.

use super::Planner;
use super::condition::{self, ConditionPlan};
use super::keys::{Choice, KeyPlan, Partition, Rows};
use super::restrict::{self, Access};
use super::selector::field_path;
use super::term::{Context, Term};
use super::view::{Place, View};
use crate::error::Error;
use crate::grammar::ast::{self, DeleteTarget, Operation, Statement};
use crate::types::name::cql_name;
use crate::types::order::compare;
use api::{Assignment, Element, Mutation, RowOperation};
use catalog::{ColumnRole, Table};
use model::key::{self, Direction};
use model::row::CellContent;
use model::{Cell, ColumnId, Row, Timestamp, Type, Value};
use std::sync::Arc;

/// A TTL may not be longer (20 years, as in Cassandra).
const TTL_SECONDS_MAX: i64 = 20 * 365 * 24 * 60 * 60;

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
    id: ColumnId,
    kind: Type,
    is_static: bool,
    action: Action,
}

#[derive(Debug)]
enum Action {
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
}

pub fn plan(statement: &Statement, planner: &mut Planner<'_>) -> Result<ModifyPlan, Error> {
    match statement {
        Statement::Insert(insert) => plan_insert(insert, planner),
        Statement::Update(update) => plan_update(update, planner),
        Statement::Delete(delete) => plan_delete(delete, planner),
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
    let action = match operation {
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
    let Type::User {
        fields,
        frozen: false,
        name,
    } = kind
    else {
        return Err(Error::invalid(format!(
            "Invalid operation ({column}.{field} = …) for non-UDT or frozen column {column}"
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

/// What the values of one execution come to.
pub struct Lowered {
    pub mutations: Vec<Mutation>,
    /// The headers of the partitions that are written.
    pub headers: Vec<Vec<u8>>,
    /// A statement with a condition names one partition: its values.
    pub key_values: Vec<Value>,
}

/// Rows whose lists are looked at before they are changed.
pub type Existing = std::collections::BTreeMap<Vec<u8>, Row>;

/// The timestamp and time to live that USING gives.
struct Using {
    timestamp: Option<Timestamp>,
    ttl_seconds: Option<u32>,
}

impl ModifyPlan {
    /// The keys of rows that must be read before the statement can be lowered.
    pub fn rows_to_read(&self, context: &Context<'_>) -> Result<Vec<Vec<u8>>, Error> {
        let mut keys = Vec::new();
        let needs = |is_static: bool| {
            self.changes
                .iter()
                .any(|change| change.is_static == is_static && change.action.reads())
        };
        if !needs(true) && !needs(false) {
            return Ok(keys);
        }
        for partition in self.keys.partitions(&self.table, context)? {
            if needs(true) {
                keys.push(partition.header);
            }
            if let (true, Rows::Keys(rows)) = (needs(false), partition.rows) {
                keys.extend(rows.into_iter().map(|(key, _)| key));
            }
        }
        Ok(keys)
    }

    pub fn lower(&self, context: &Context<'_>, existing: &Existing) -> Result<Lowered, Error> {
        let using = self.using(context)?;
        let mut lowered = Lowered {
            mutations: Vec::new(),
            headers: Vec::new(),
            key_values: Vec::new(),
        };
        for partition in self.keys.partitions(&self.table, context)? {
            self.lower_partition(partition, &using, context, existing, &mut lowered)?;
        }
        Ok(lowered)
    }

    fn using(&self, context: &Context<'_>) -> Result<Using, Error> {
        let mut using = Using {
            timestamp: None,
            ttl_seconds: None,
        };
        if let Some(term) = &self.timestamp {
            using.timestamp = timestamp_value(term, context)?;
        }
        if let Some(term) = &self.ttl
            && let Some(value) = term.evaluate(context)?
        {
            using.ttl_seconds = Some(match value {
                Value::Int(ttl) if ttl < 0 => {
                    return Err(Error::invalid(format!(
                        "A TTL must be greater or equal to 0, but was {ttl}"
                    )));
                }
                Value::Int(ttl) if ttl > TTL_SECONDS_MAX => {
                    return Err(Error::invalid(format!(
                        "ttl is too large. requested ({ttl}) maximum ({TTL_SECONDS_MAX})"
                    )));
                }
                Value::Int(ttl) => ttl as u32,
                _ => 0,
            });
        }
        Ok(using)
    }

    fn lower_partition(
        &self,
        partition: Partition,
        using: &Using,
        context: &Context<'_>,
        existing: &Existing,
        lowered: &mut Lowered,
    ) -> Result<(), Error> {
        let Partition {
            values,
            header,
            rows,
        } = partition;
        let push = |key: Vec<u8>, operation: RowOperation, lowered: &mut Lowered| {
            let mut mutation = Mutation::new(self.table.id, key, operation);
            mutation.timestamp = using.timestamp;
            lowered.mutations.push(mutation);
        };
        let is_removal = self.kind == ModifyKind::Delete && self.changes.is_empty();
        let statics = self.assignments(true, context, existing.get(&header))?;
        if !statics.is_empty() || (!self.names_rows && !is_removal) {
            let operation = RowOperation::Merge {
                marker: false,
                assignments: statics,
                ttl_seconds: using.ttl_seconds,
            };
            push(header.clone(), operation, lowered);
        }
        match rows {
            Rows::Keys(rows) => {
                for (key, clustering) in rows {
                    lowered.key_values = values.clone();
                    lowered.key_values.extend(clustering);
                    let operation = if is_removal {
                        RowOperation::Delete
                    } else {
                        let assignments = self.assignments(false, context, existing.get(&key))?;
                        let is_insert = self.kind == ModifyKind::Insert;
                        let is_static_only = !self.changes.is_empty()
                            && self.changes.iter().all(|change| change.is_static);
                        // UPDATE t SET static = … with a whole key writes the static column only.
                        if !is_insert && is_static_only {
                            continue;
                        }
                        RowOperation::Merge {
                            marker: is_insert,
                            assignments,
                            ttl_seconds: using.ttl_seconds,
                        }
                    };
                    push(key, operation, lowered);
                }
            }
            Rows::All if is_removal => push(header.clone(), RowOperation::Delete, lowered),
            Rows::Ranges(ranges) if is_removal => {
                for range in ranges {
                    push(header.clone(), RowOperation::DeleteRange { range }, lowered);
                }
            }
            Rows::All | Rows::Ranges(_) => {}
        }
        if lowered.key_values.is_empty() {
            lowered.key_values = values;
        }
        lowered.headers.push(header);
        Ok(())
    }

    fn assignments(
        &self,
        of_statics: bool,
        context: &Context<'_>,
        existing: Option<&Row>,
    ) -> Result<Vec<Assignment>, Error> {
        let mut assignments = Vec::with_capacity(self.changes.len());
        for change in &self.changes {
            if change.is_static == of_statics {
                let name = &self.view.columns[change.column].name;
                change.lower(name, context, existing, &mut assignments)?;
            }
        }
        Ok(assignments)
    }
}

/// A write timestamp; null and unset are none.
pub fn timestamp_value(term: &Term, context: &Context<'_>) -> Result<Option<Timestamp>, Error> {
    match term.evaluate(context)? {
        Some(Value::Int(i64::MIN)) => Err(Error::invalid(format!(
            "Out of bound timestamp, must be in [{}, {}]",
            i64::MIN + 1,
            i64::MAX
        ))),
        Some(Value::Int(timestamp)) => Ok(Some(Timestamp(timestamp))),
        Some(_) => Err(Error::invalid("Invalid null value of timestamp")),
        None => Ok(None),
    }
}

impl Action {
    fn reads(&self) -> bool {
        matches!(
            self,
            Action::DiscardFromList(_) | Action::SetIndex(..) | Action::RemoveIndex(_)
        )
    }
}

impl Change {
    fn lower(
        &self,
        name: &str,
        context: &Context<'_>,
        existing: Option<&Row>,
        out: &mut Vec<Assignment>,
    ) -> Result<(), Error> {
        let set = |path: Option<Vec<u8>>, value: Value| {
            if value.is_null() {
                Assignment::Remove {
                    column: self.id,
                    path,
                }
            } else {
                Assignment::Set {
                    column: self.id,
                    path,
                    value,
                }
            }
        };
        match &self.action {
            Action::Set(term) => {
                if let Some(value) = term.evaluate(context)? {
                    out.push(set(None, value));
                }
            }
            Action::Remove => out.push(set(None, Value::Null)),
            Action::SetAll(term) => {
                if let Some(value) = term.evaluate(context)? {
                    let elements = self.elements(value, false, context)?;
                    out.push(Assignment::SetCollection {
                        column: self.id,
                        elements,
                    });
                }
            }
            Action::Append(term) | Action::Prepend(term) => {
                let is_prepend = matches!(self.action, Action::Prepend(_));
                if let Some(value) = term.evaluate(context)? {
                    for element in self.elements(value, is_prepend, context)? {
                        out.push(set(Some(element.path), element.value));
                    }
                }
            }
            Action::Discard(term) => {
                if let Some(Value::Set(keys)) = term.evaluate(context)? {
                    for key in keys {
                        out.push(set(Some(self.path(&key)?), Value::Null));
                    }
                }
            }
            Action::SetKey(key, value) => {
                let path = self.path(&key_value(key, context)?)?;
                if let Some(value) = value.evaluate(context)? {
                    out.push(set(Some(path), value));
                }
            }
            Action::RemoveKey(key) => {
                out.push(set(
                    Some(self.path(&key_value(key, context)?)?),
                    Value::Null,
                ));
            }
            Action::SetField(index, term) => {
                if let Some(value) = term.evaluate(context)? {
                    out.push(set(Some(field_path(*index)), value));
                }
            }
            Action::DiscardFromList(term) => {
                if let (Some(Value::List(unwanted)), Some(row)) =
                    (term.evaluate(context)?, existing)
                {
                    self.discard_from_list(row, &unwanted, out);
                }
            }
            Action::SetIndex(index, value) => {
                let path = self.path_at(index, name, context, existing)?;
                if let Some(value) = value.evaluate(context)? {
                    out.push(set(Some(path), value));
                }
            }
            Action::RemoveIndex(index) => {
                let path = self.path_at(index, name, context, existing)?;
                out.push(set(Some(path), Value::Null));
            }
        }
        Ok(())
    }

    fn discard_from_list(&self, row: &Row, unwanted: &[Value], out: &mut Vec<Assignment>) {
        let Type::List { element, .. } = &self.kind else {
            return;
        };
        for cell in live(row.cells(self.id)) {
            if let CellContent::Live { value, .. } = &cell.content
                && unwanted
                    .iter()
                    .any(|candidate| compare(candidate, value, element).is_eq())
            {
                out.push(Assignment::Remove {
                    column: self.id,
                    path: cell.path.clone(),
                });
            }
        }
    }

    /// The path of the list's element that stands at an index now.
    fn path_at(
        &self,
        index: &Term,
        name: &str,
        context: &Context<'_>,
        existing: Option<&Row>,
    ) -> Result<Vec<u8>, Error> {
        let index = match index.evaluate(context)? {
            Some(Value::Int(index)) => index,
            _ => {
                return Err(Error::invalid(format!(
                    "Invalid null value for list index of {name}"
                )));
            }
        };
        let cells: Vec<&Cell> = existing
            .map(|row| live(row.cells(self.id)).collect())
            .unwrap_or_default();
        if cells.is_empty() {
            return Err(Error::invalid(
                "Attempted to set an element on a list which is null",
            ));
        }
        usize::try_from(index)
            .ok()
            .and_then(|index| cells.get(index)?.path.clone())
            .ok_or_else(|| {
                Error::invalid(format!(
                    "List index {index} out of bound, list has size {}",
                    cells.len()
                ))
            })
    }

    /// The path of an element's key.
    fn path(&self, key: &Value) -> Result<Vec<u8>, Error> {
        let kind = match &self.kind {
            Type::Set { element, .. } => element,
            Type::Map { key, .. } => key,
            _ => return Err(Error::server("a path of a column that has none")),
        };
        let mut path = Vec::new();
        key::encode(key, kind, Direction::Ascending, &mut path)
            .map_err(|error| Error::invalid(format!("Invalid element of a collection: {error}")))?;
        Ok(path)
    }

    fn elements(
        &self,
        value: Value,
        is_prepend: bool,
        context: &Context<'_>,
    ) -> Result<Vec<Element>, Error> {
        match value {
            Value::List(values) => {
                let positions = if is_prepend {
                    context.uuids.prepend(context.now, values.len())
                } else {
                    context.uuids.append(context.now, values.len())
                };
                let encoded = positions.into_iter().zip(values).map(|(uuid, value)| {
                    let mut path = Vec::new();
                    key::encode(
                        &Value::Uuid(uuid),
                        &Type::TimeUuid,
                        Direction::Ascending,
                        &mut path,
                    )
                    .map_err(super::keys::bad_key)?;
                    Ok(Element { path, value })
                });
                encoded.collect()
            }
            // A set's element is its path; the value only says that it is there.
            Value::Set(values) => values
                .iter()
                .map(|value| {
                    Ok(Element {
                        path: self.path(value)?,
                        value: Value::Bool(true),
                    })
                })
                .collect(),
            Value::Map(pairs) => pairs
                .into_iter()
                .map(|(key, value)| {
                    Ok(Element {
                        path: self.path(&key)?,
                        value,
                    })
                })
                .collect(),
            Value::Tuple(fields) => Ok(fields
                .into_iter()
                .enumerate()
                .filter(|(_, value)| !value.is_null())
                .map(|(index, value)| Element {
                    path: field_path(index),
                    value,
                })
                .collect()),
            _ => Ok(Vec::new()),
        }
    }
}

fn key_value(term: &Term, context: &Context<'_>) -> Result<Value, Error> {
    match term.evaluate(context)? {
        Some(Value::Null) => Err(Error::invalid("Invalid null map key")),
        Some(value) => Ok(value),
        None => Err(Error::invalid("Invalid unset map key")),
    }
}

fn live(cells: &[Cell]) -> impl Iterator<Item = &Cell> {
    cells
        .iter()
        .filter(|cell| cell.path.is_some() && matches!(cell.content, CellContent::Live { .. }))
}
