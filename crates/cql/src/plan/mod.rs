//! Statements made ready: names looked up, types settled, markers described. A plan holds everything that an
//! execution needs, so that executing one does no string work and asks the catalog nothing.

pub mod condition;
pub mod function;
pub mod keys;
pub mod lower;
pub mod modify;
pub mod restrict;
pub mod select;
pub mod selector;
pub mod term;
pub mod transaction;
pub mod view;

use crate::error::Error;
use crate::grammar::ast;
use crate::grammar::ast::Statement;
use crate::protocol::response::{ColumnSpec, RowsMetadata};
use catalog::Catalog;
use model::Type;
use std::sync::Arc;

/// A statement, ready to execute under the catalog that it was planned with.
#[derive(Debug)]
pub enum Plan {
    Select(Box<select::SelectPlan>),
    Modify(Box<modify::ModifyPlan>),
    Batch(BatchPlan),
    Transaction(Box<transaction::TransactionPlan>),
    /// Definitions, USE, TRUNCATE and DESCRIBE are looked up when they are executed.
    Other(Box<Statement>),
}

#[derive(Debug)]
pub struct BatchPlan {
    pub kind: ast::BatchKind,
    pub timestamp: Option<term::Term>,
    pub statements: Vec<modify::ModifyPlan>,
}

/// A plan with what PREPARE tells about it.
#[derive(Debug)]
pub struct Planned {
    pub plan: Plan,
    pub markers: RowsMetadata,
    /// Whether every marker has a name: then values may be given by name.
    pub marker_names: Vec<String>,
    /// The markers that make up the partition key, in its order; empty when others are needed too.
    pub key_positions: Vec<u16>,
    /// The tables that the plan was made for, with their versions then.
    pub tables: Vec<Arc<catalog::Table>>,
}

impl Planned {
    /// Whether the tables are still as they were when the plan was made.
    pub fn is_current(&self, catalog: &Catalog) -> bool {
        self.tables.iter().all(|table| {
            catalog
                .table(table.id)
                .is_some_and(|now| Arc::ptr_eq(now, table) || now.version == table.version)
        })
    }

    pub fn result(&self) -> Option<&RowsMetadata> {
        match &self.plan {
            Plan::Select(select) => Some(&select.metadata),
            _ => None,
        }
    }
}

/// What planning needs and gathers.
pub struct Planner<'a> {
    pub catalog: &'a Catalog,
    /// The keyspace of names that say none.
    pub keyspace: Option<&'a str>,
    names: &'a [Option<String>],
    markers: Vec<Option<ColumnSpec>>,
    tables: Vec<Arc<catalog::Table>>,
    /// Inside a transaction: the rows that terms may refer to.
    references: Option<transaction::References>,
}

/// Plans a parsed statement.
pub fn plan(
    parsed: &crate::grammar::Parsed,
    catalog: &Catalog,
    keyspace: Option<&str>,
) -> Result<Planned, Error> {
    let mut planner = Planner {
        catalog,
        keyspace,
        names: &parsed.markers,
        markers: vec![None; parsed.markers.len()],
        tables: Vec::new(),
        references: None,
    };
    let mut key_positions = Vec::new();
    let mut place = (String::new(), String::new());
    let plan = match &parsed.statement {
        Statement::Select(select) => {
            let plan = select::plan(select, &mut planner)?;
            key_positions = plan.access.key_positions();
            place = (plan.view.keyspace.clone(), plan.view.name.clone());
            Plan::Select(Box::new(plan))
        }
        Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
            let plan = modify::plan(&parsed.statement, &mut planner)?;
            key_positions = plan.keys.key_positions();
            place = (plan.view.keyspace.clone(), plan.view.name.clone());
            Plan::Modify(Box::new(plan))
        }
        Statement::Batch(batch) => {
            let plan = plan_batch(batch, &mut planner)?;
            if let Some(first) = plan.statements.first() {
                place = (first.view.keyspace.clone(), first.view.name.clone());
            }
            Plan::Batch(plan)
        }
        Statement::Transaction(transaction) => {
            let plan = transaction::plan(transaction, &mut planner)?;
            let views = plan.lets.iter().map(|select| &select.view);
            let mut views = views.chain(plan.statements.iter().map(|statement| &statement.view));
            if let Some(view) = views.next() {
                place = (view.keyspace.clone(), view.name.clone());
            }
            Plan::Transaction(Box::new(plan))
        }
        other => Plan::Other(Box::new(other.clone())),
    };
    let markers: Option<Vec<ColumnSpec>> = planner.markers.into_iter().collect();
    let columns = markers.ok_or_else(|| {
        Error::invalid("bind markers are not allowed here: their types cannot be known")
    })?;
    Ok(Planned {
        plan,
        marker_names: columns.iter().map(|column| column.name.clone()).collect(),
        markers: RowsMetadata {
            keyspace: place.0,
            table: place.1,
            columns,
        },
        key_positions,
        tables: planner.tables,
    })
}

fn plan_batch(batch: &ast::Batch, planner: &mut Planner<'_>) -> Result<BatchPlan, Error> {
    let timestamp = match &batch.using.timestamp {
        Some(timestamp) => Some(planner.term(timestamp, &Type::BigInt, "[timestamp]")?),
        None => None,
    };
    let mut statements = Vec::new();
    for statement in &batch.statements {
        let plan = modify::plan(statement, planner)?;
        if timestamp.is_some() && plan.timestamp.is_some() {
            return Err(Error::invalid(
                "Timestamp must be set either on BATCH or individual statements",
            ));
        }
        statements.push(plan);
    }
    Ok(BatchPlan {
        kind: batch.kind,
        timestamp,
        statements,
    })
}

impl<'a> Planner<'a> {
    /// For looking up names where no terms are planned.
    pub fn without_markers(catalog: &'a Catalog, keyspace: Option<&'a str>) -> Planner<'a> {
        Planner {
            catalog,
            keyspace,
            names: &[],
            markers: Vec::new(),
            tables: Vec::new(),
            references: None,
        }
    }

    /// Whether the statement is part of a transaction, where terms may refer to rows.
    pub fn in_transaction(&self) -> bool {
        self.references.is_some()
    }

    /// The position of the bound value that a reference stands for, and its type.
    pub fn reference(&mut self, reference: &ast::Reference) -> Result<(usize, Type), Error> {
        match &mut self.references {
            Some(references) => references.value(reference),
            None => Err(Error::invalid(format!(
                "Cannot resolve reference to {}.{}",
                reference.row, reference.column
            ))),
        }
    }

    /// The type that a marker stands for. Its name is its own, or its place's.
    pub fn set_marker(&mut self, index: usize, kind: &Type, receiver: &str) -> Result<(), Error> {
        let name = self
            .names
            .get(index)
            .and_then(Option::as_deref)
            .unwrap_or(receiver);
        let marker = self
            .markers
            .get_mut(index)
            .ok_or_else(|| Error::server("a bind marker without a number"))?;
        *marker = Some(ColumnSpec {
            name: name.to_owned(),
            kind: kind.clone(),
        });
        Ok(())
    }

    /// A term where a value of a type is wanted.
    pub fn term(
        &mut self,
        term: &ast::Term,
        kind: &Type,
        receiver: &str,
    ) -> Result<term::Term, Error> {
        term::plan(term, kind, receiver, self)
    }

    /// The keyspace that a name means.
    pub fn keyspace_of<'n>(&'n self, name: &'n ast::TableName) -> Result<&'n str, Error> {
        name.keyspace.as_deref().or(self.keyspace).ok_or_else(|| {
            Error::invalid(
                "No keyspace has been specified. USE a keyspace, or explicitly specify \
                 keyspace.tablename",
            )
        })
    }

    /// The user-defined types of a keyspace.
    pub fn types_of(&self, keyspace: &str) -> std::collections::BTreeMap<String, Type> {
        self.catalog
            .namespaces
            .get(keyspace)
            .map(|namespace| namespace.types.clone())
            .unwrap_or_default()
    }

    /// The table or virtual table of a name.
    pub fn view(&mut self, name: &ast::TableName) -> Result<view::View, Error> {
        let keyspace = self.keyspace_of(name)?.to_owned();
        if let Some(view) = crate::system::view(&keyspace, &name.name) {
            return Ok(view);
        }
        if !self.catalog.namespaces.contains_key(&keyspace) && !crate::system::is_system(&keyspace)
        {
            return Err(Error::invalid(format!(
                "keyspace {keyspace} does not exist"
            )));
        }
        let table = self
            .catalog
            .table_by_name(&keyspace, &name.name)
            .ok_or_else(|| Error::invalid(format!("table {} does not exist", name.name)))?;
        let view = view::View::of(table)?;
        self.tables.push(table.clone());
        Ok(view)
    }
}
