//! The tree of the text to a tree of relations: names are resolved against one catalog snapshot, types are
//! checked and coerced, parameters become literals, predicates on keys become key ranges. Pure.
//!
//! A literal, NULL or undeclared parameter is *loose*: it takes the type of what it meets. `Draft` carries
//! that until `coerce` or `settle` ends it.

mod call;
mod coercion;
mod expression;
mod from;
mod grouping;
mod manipulation;
mod query;
mod scope;
mod shape;
mod subquery;

use crate::ast::{Hint, Statement};
use crate::error::Error;
use crate::parse::parse_statement;
use crate::plan::{Aggregate, Applied, Manipulation, Plan, Subquery};
use crate::types::SqlType;
use catalog::{Catalog, Table};
use model::{Timestamp, Value};
use std::sync::Arc;

/// Selects that one statement may come to, after WITH is expanded.
const SELECTS_MAX: usize = 500;

/// What a statement is analysed against.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    pub catalog: &'a Catalog,
    pub namespace: &'a str,
    pub parameters: &'a dyn Parameters,
    /// CURRENT_TIMESTAMP of this statement.
    pub now: Timestamp,
}

/// The parameters that came with a statement.
pub trait Parameters {
    /// Names compare without case.
    fn find(&self, name: &str) -> Option<ParameterType>;

    /// The parameter's value, read as this type.
    fn value(&self, name: &str, kind: &SqlType) -> Result<Value, Error>;
}

pub enum ParameterType {
    Declared(SqlType),
    /// The type to take when nothing around it decides.
    Undeclared(SqlType),
}

/// No parameters.
pub struct NoParameters;

impl Parameters for NoParameters {
    fn find(&self, _: &str) -> Option<ParameterType> {
        None
    }

    fn value(&self, name: &str, _: &SqlType) -> Result<Value, Error> {
        Err(Error::invalid(format!("there is no parameter {name}")))
    }
}

/// A statement that is ready to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Prepared {
    Query(Plan),
    Manipulation(Box<Manipulation>),
}

/// Parses and analyses a query or a data manipulation statement.
pub fn prepare(text: &str, environment: Environment<'_>) -> Result<Prepared, Error> {
    let (hints, statement) = parse_statement(text)?;
    let locks = scan_locks(&hints).map_err(|error| error.in_text(text))?;
    let shared: Arc<str> = Arc::from(text);
    let prepared = match &statement {
        Statement::Query(query) => {
            query::analyse_query(environment, shared, query, locks).map(Prepared::Query)
        }
        Statement::Definition(_) => Err(Error::invalid(
            "A statement of data definition goes through UpdateDatabaseDdl",
        )),
        _ => manipulation::analyse_manipulation(environment, shared, &statement, locks)
            .map(|manipulation| Prepared::Manipulation(Box::new(manipulation))),
    };
    prepared.map_err(|error| error.in_text(text))
}

/// What a statement says of the locks on all that it scans. A hint: where there are no locks it means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanLocks {
    Shared,
    /// As FOR UPDATE, in subqueries too.
    Exclusive,
}

/// LOCK_SCANNED_RANGES, if it is among a statement's hints.
fn scan_locks(hints: &[Hint]) -> Result<Option<ScanLocks>, Error> {
    let mut hints = hints.iter();
    let Some(hint) = hints.find(|hint| hint.name.eq_ignore_ascii_case(LOCK_SCANNED_RANGES)) else {
        return Ok(None);
    };
    match hint.value.to_ascii_lowercase().as_str() {
        "shared" => Ok(Some(ScanLocks::Shared)),
        "exclusive" => Ok(Some(ScanLocks::Exclusive)),
        other => Err(Error::invalid(format!(
            "The statement hint {LOCK_SCANNED_RANGES} is EXCLUSIVE or SHARED, not {other}"
        ))),
    }
}

const LOCK_SCANNED_RANGES: &str = "LOCK_SCANNED_RANGES";

pub(crate) struct Analyser<'a> {
    environment: Environment<'a>,
    /// Whether the statement as a whole says what its scans lock.
    locks: Option<ScanLocks>,
    subqueries: Vec<Subquery>,
    /// Of the select under analysis; `None` where aggregates have no place.
    aggregates: Option<Vec<Aggregate>>,
    /// WITH queries in sight, innermost last.
    with: Vec<(String, crate::ast::Query)>,
    /// Whether the query under analysis, or one that it is a part of, says FOR UPDATE.
    for_update: bool,
    /// Whether any has said so.
    has_for_update: bool,
    selects: usize,
    /// Results of subqueries and values of outer rows have places of their own, counted here.
    slots: usize,
    /// The subqueries around the expression under analysis, innermost last.
    frames: Vec<Frame>,
    /// Correlated subqueries of the select under analysis; `None` where they have no place.
    applied: Option<Vec<Applied>>,
}

/// A subquery under analysis.
#[derive(Default)]
struct Frame {
    /// Slots for columns of the row that it is about.
    parameters: Vec<(usize, usize)>,
    /// Whether it depends on any row around it.
    is_correlated: bool,
}

impl<'a> Analyser<'a> {
    fn new(environment: Environment<'a>, locks: Option<ScanLocks>) -> Analyser<'a> {
        Analyser {
            environment,
            locks,
            subqueries: Vec::new(),
            aggregates: None,
            with: Vec::new(),
            for_update: false,
            has_for_update: false,
            selects: 0,
            slots: 0,
            frames: Vec::new(),
            applied: None,
        }
    }

    /// Whether a scan keeps others from what it scans.
    fn locks_scan(&self) -> bool {
        self.for_update || self.locks == Some(ScanLocks::Exclusive)
    }

    fn new_slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    fn table(&self, path: &crate::ast::Path) -> Result<Arc<Table>, Error> {
        let [name] = path.parts.as_slice() else {
            return Err(
                Error::invalid(format!("Table not found: {}", path.dotted())).at(path.at()),
            );
        };
        find_table(
            self.environment.catalog,
            self.environment.namespace,
            &name.text,
        )
        .cloned()
        .ok_or_else(|| Error::invalid(format!("Table not found: {}", name.text)).at(name.at))
    }
}

/// A table by name without regard to case, as GoogleSQL has it; an exact match wins.
pub fn find_table<'c>(catalog: &'c Catalog, namespace: &str, name: &str) -> Option<&'c Arc<Table>> {
    if let Some(table) = catalog.table_by_name(namespace, name) {
        return Some(table);
    }
    let tables = &catalog.namespaces.get(namespace)?.tables;
    let (_, id) = tables
        .iter()
        .find(|(other, _)| other.eq_ignore_ascii_case(name))?;
    catalog.table(*id)
}

/// A column's index by name without regard to case.
pub fn find_column(table: &Table, name: &str) -> Option<usize> {
    let columns = table.columns();
    columns
        .iter()
        .position(|column| column.name == name)
        .or_else(|| {
            columns
                .iter()
                .position(|column| column.name.eq_ignore_ascii_case(name))
        })
}

#[cfg(test)]
mod tests;
