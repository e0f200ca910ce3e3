//! `BEGIN TRANSACTION … COMMIT TRANSACTION` made ready.
//!
//! What a statement says of the rows that LET has named (`row.column`) becomes bound values behind the client's
//! own: when the rows have been read, they are put there, and everything else is planned and executed as ever.

use super::Planner;
use super::modify::{self, ModifyPlan, has_counters};
use super::restrict::Access;
use super::select::{self, SelectPlan};
use super::term::{Term, own_type};
use super::view::{Source, View};
use crate::error::Error;
use crate::grammar::ast::{self, Operator, Reference, TransactionCondition, TransactionResult};
use crate::protocol::response::{ColumnSpec, RowsMetadata};
use crate::types::name::cql_name;
use catalog::Table;
use model::Type;

#[derive(Debug)]
pub struct TransactionPlan {
    pub lets: Vec<SelectPlan>,
    pub result: Option<ResultPlan>,
    /// All must hold.
    pub checks: Vec<Check>,
    pub statements: Vec<ModifyPlan>,
    /// The values behind the client's, in their order.
    pub references: Vec<Column>,
    /// How many values are the client's.
    pub markers: usize,
}

/// A column of a row that LET has named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub row: usize,
    pub column: usize,
}

#[derive(Debug)]
pub enum ResultPlan {
    Select(Box<SelectPlan>),
    /// One row of bound values, by their positions.
    References(RowsMetadata, Vec<usize>),
}

#[derive(Debug)]
pub enum Check {
    /// Whether the row is there.
    Row {
        row: usize,
        is_null: bool,
    },
    Term {
        term: Term,
        is_null: bool,
    },
    Compare {
        left: Term,
        operator: Operator,
        right: Term,
        kind: Type,
    },
}

/// The rows that terms may refer to, and those of their columns that terms do refer to.
#[derive(Debug)]
pub struct References {
    rows: Vec<(String, Vec<ColumnSpec>)>,
    used: Vec<Column>,
    markers: usize,
}

impl References {
    fn row(&self, name: &str) -> Result<usize, Error> {
        self.rows
            .iter()
            .position(|(known, _)| known == name)
            .ok_or_else(|| Error::invalid(format!("Cannot resolve reference to row {name}")))
    }

    /// The position of the bound value that a reference stands for, and its type.
    pub fn value(&mut self, reference: &Reference) -> Result<(usize, Type), Error> {
        let row = self.row(&reference.row)?;
        let columns = &self.rows[row].1;
        let column = columns
            .iter()
            .position(|column| column.name == reference.column)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "Cannot resolve reference to {}.{}",
                    reference.row, reference.column
                ))
            })?;
        let kind = columns[column].kind.clone();
        let wanted = Column { row, column };
        let position = match self.used.iter().position(|used| *used == wanted) {
            Some(position) => position,
            None => {
                self.used.push(wanted);
                self.used.len() - 1
            }
        };
        Ok((self.markers + position, kind))
    }
}

pub fn plan(
    transaction: &ast::Transaction,
    planner: &mut Planner<'_>,
) -> Result<TransactionPlan, Error> {
    let mut lets = Vec::with_capacity(transaction.lets.len());
    let mut rows: Vec<(String, Vec<ColumnSpec>)> = Vec::with_capacity(transaction.lets.len());
    for (name, select) in &transaction.lets {
        if rows.iter().any(|(known, _)| known == name) {
            return Err(Error::invalid(format!(
                "The name '{name}' has already been used by a LET assignment"
            )));
        }
        let plan = select::plan(select, planner)?;
        check_read(&plan.view)?;
        check_single_row(&plan, name)?;
        rows.push((name.clone(), plan.metadata.columns.clone()));
        lets.push(plan);
    }
    let markers = planner.markers.len();
    planner.references = Some(References {
        rows,
        used: Vec::new(),
        markers,
    });
    let result = match &transaction.result {
        Some(result) => Some(plan_result(result, planner)?),
        None => None,
    };
    let checks = transaction
        .conditions
        .iter()
        .map(|condition| plan_check(condition, planner))
        .collect::<Result<_, _>>()?;
    let mut statements = Vec::with_capacity(transaction.statements.len());
    for statement in &transaction.statements {
        let plan = modify::plan(statement, planner)?;
        check_statement(&plan)?;
        statements.push(plan);
    }
    let references = planner.references.take();
    Ok(TransactionPlan {
        lets,
        result,
        checks,
        statements,
        references: references.map_or_else(Vec::new, |references| references.used),
        markers,
    })
}

fn check_table(table: &Table) -> Result<(), Error> {
    if table.is_strong() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Transactions take tables of keyspaces WITH consistency = 'strong': {}.{} is eventual",
        table.namespace(),
        table.name()
    )))
}

fn check_read(view: &View) -> Result<(), Error> {
    match &view.source {
        Source::Stored(table) => check_table(table),
        Source::System(_) => Err(Error::invalid(
            "Transactions cannot read the tables of the system",
        )),
    }
}

fn check_single_row(plan: &SelectPlan, name: &str) -> Result<(), Error> {
    let is_single = match &plan.access {
        Access::Partitions(keys) if !keys.has_in() => {
            plan.limit.is_some() || keys.names_rows(plan.view.clustering_count())
        }
        _ => false,
    };
    if is_single && !plan.is_aggregate {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "SELECT in LET assignment {name} without the whole primary key must specify the partition key and LIMIT 1"
    )))
}

fn check_statement(plan: &ModifyPlan) -> Result<(), Error> {
    check_table(&plan.table)?;
    let refused = if plan.condition.is_some() {
        "Updates within transactions may not specify their own conditions"
    } else if plan.timestamp.is_some() {
        "Updates within transactions may not specify custom timestamps"
    } else if has_counters(&plan.table) {
        "Counter columns cannot be accessed within a transaction"
    } else {
        return Ok(());
    };
    Err(Error::invalid(refused))
}

fn plan_result(result: &TransactionResult, planner: &mut Planner<'_>) -> Result<ResultPlan, Error> {
    let references = match result {
        TransactionResult::Select(select) => {
            let plan = select::plan(select, planner)?;
            check_read(&plan.view)?;
            return Ok(ResultPlan::Select(Box::new(plan)));
        }
        TransactionResult::References(references) => references,
    };
    let mut metadata = RowsMetadata::default();
    let mut values = Vec::with_capacity(references.len());
    for reference in references {
        let (value, kind) = planner.reference(reference)?;
        values.push(value);
        metadata.columns.push(ColumnSpec {
            name: format!("{}.{}", reference.row, reference.column),
            kind,
        });
    }
    Ok(ResultPlan::References(metadata, values))
}

fn plan_check(condition: &TransactionCondition, planner: &mut Planner<'_>) -> Result<Check, Error> {
    match condition {
        TransactionCondition::Row { row, is_null } => {
            let references = planner.references.as_ref();
            let row = match references {
                Some(references) => references.row(row)?,
                None => return Err(Error::server("a condition outside of a transaction")),
            };
            Ok(Check::Row {
                row,
                is_null: *is_null,
            })
        }
        TransactionCondition::Term { left, is_null } => {
            let kind = kind_of(left, left, planner)?;
            Ok(Check::Term {
                term: planner.term(left, &kind, "condition")?,
                is_null: *is_null,
            })
        }
        TransactionCondition::Compare {
            left,
            operator,
            right,
        } => {
            let kind = kind_of(left, right, planner)?;
            if kind.is_multi_cell() {
                return Err(Error::invalid(format!(
                    "conditions on values of type {} are not supported yet",
                    cql_name(&kind)
                )));
            }
            Ok(Check::Compare {
                left: planner.term(left, &kind, "condition")?,
                operator: *operator,
                right: planner.term(right, &kind, "condition")?,
                kind,
            })
        }
    }
}

/// The type of a comparison: that of the side that refers to a row, or else has a type of its own.
fn kind_of(left: &ast::Term, right: &ast::Term, planner: &mut Planner<'_>) -> Result<Type, Error> {
    for term in [left, right] {
        if let ast::Term::Reference(reference) = term {
            return planner.reference(reference).map(|(_, kind)| kind);
        }
    }
    [left, right].into_iter().find_map(own_type).ok_or_else(|| {
        Error::invalid("a condition of a transaction must refer to a row that LET has named")
    })
}
