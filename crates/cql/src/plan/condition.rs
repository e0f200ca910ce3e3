//! IF: conditions of INSERT, UPDATE and DELETE.

use super::Planner;
use super::term::{Context, Term};
use super::view::{Place, View};
use crate::error::Error;
use crate::grammar::ast::{ColumnCondition, ConditionClause, InValues, Operator};
use api::{Check, CheckOperator, Condition};
use model::{ColumnId, Type, Value};

#[derive(Clone, Debug)]
pub enum ConditionPlan {
    NotExists,
    Exists,
    Columns(Vec<CheckPlan>),
}

#[derive(Clone, Debug)]
pub struct CheckPlan {
    /// Index into the view's columns.
    pub column: usize,
    operator: CheckOperator,
    values: CheckValues,
}

#[derive(Clone, Debug)]
enum CheckValues {
    Terms(Vec<Term>),
    ListMarker(Term),
}

/// Conditions with values: of the row, and of the partition's header.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadyConditions {
    pub row: Option<Condition>,
    pub header: Option<Condition>,
}

pub fn plan(
    clause: &ConditionClause,
    view: &View,
    planner: &mut Planner<'_>,
) -> Result<ConditionPlan, Error> {
    let conditions = match clause {
        ConditionClause::Exists => return Ok(ConditionPlan::Exists),
        ConditionClause::Columns(conditions) => conditions,
    };
    conditions
        .iter()
        .map(|condition| plan_check(condition, view, planner))
        .collect::<Result<_, _>>()
        .map(ConditionPlan::Columns)
}

fn plan_check(
    condition: &ColumnCondition,
    view: &View,
    planner: &mut Planner<'_>,
) -> Result<CheckPlan, Error> {
    let index = view.index(&condition.column)?;
    let column = &view.columns[index];
    if matches!(column.place, Place::Key(_)) {
        return Err(Error::invalid(format!(
            "PRIMARY KEY column '{}' cannot have IF conditions",
            column.name
        )));
    }
    if column.kind.is_multi_cell() || condition.element.is_some() {
        return Err(Error::invalid(format!(
            "conditions on the non-frozen collection '{}' or its elements are not supported yet",
            column.name
        )));
    }
    let operator = match condition.operator {
        Operator::Equal => CheckOperator::Equal,
        Operator::NotEqual => CheckOperator::NotEqual,
        Operator::Less => CheckOperator::Less,
        Operator::LessOrEqual => CheckOperator::LessOrEqual,
        Operator::Greater => CheckOperator::Greater,
        Operator::GreaterOrEqual => CheckOperator::GreaterOrEqual,
        Operator::In => CheckOperator::In,
        other => return Err(Error::invalid(format!("IF conditions cannot use {other}"))),
    };
    let values = match &condition.values {
        InValues::Terms(terms) => CheckValues::Terms(
            terms
                .iter()
                .map(|term| planner.term(term, &column.kind, &column.name))
                .collect::<Result<_, _>>()?,
        ),
        InValues::Marker(marker) => {
            let kind = Type::List {
                element: Box::new(column.kind.clone()),
                frozen: true,
            };
            let term = crate::grammar::ast::Term::Marker(*marker);
            CheckValues::ListMarker(planner.term(&term, &kind, &format!("in({})", column.name))?)
        }
    };
    Ok(CheckPlan {
        column: index,
        operator,
        values,
    })
}

impl CheckPlan {
    fn ready(&self, column: ColumnId, context: &Context<'_>) -> Result<Check, Error> {
        let unset = || Error::invalid("Invalid unset value for a condition");
        let values = match &self.values {
            CheckValues::Terms(terms) => terms
                .iter()
                .map(|term| term.evaluate(context)?.ok_or_else(unset))
                .collect::<Result<_, _>>()?,
            CheckValues::ListMarker(term) => match term.evaluate(context)? {
                Some(Value::List(values)) => values,
                _ => return Err(Error::invalid("Invalid null value for IN condition")),
            },
        };
        let is_order = !matches!(
            self.operator,
            CheckOperator::Equal | CheckOperator::NotEqual | CheckOperator::In
        );
        if is_order && values.iter().any(Value::is_null) {
            return Err(Error::invalid(
                "Invalid comparison with null in a condition",
            ));
        }
        Ok(Check {
            column,
            operator: self.operator,
            values,
        })
    }
}

impl ConditionPlan {
    /// Splits the condition by where its columns are. `names_row` says that the statement names a row and not
    /// just a partition, whose header is meant then.
    pub fn ready(
        &self,
        view: &View,
        names_row: bool,
        context: &Context<'_>,
    ) -> Result<ReadyConditions, Error> {
        let mut ready = ReadyConditions::default();
        let whole = match self {
            ConditionPlan::NotExists => Condition::RowMissing,
            ConditionPlan::Exists => Condition::RowExists,
            ConditionPlan::Columns(checks) => {
                let (mut row, mut header) = (Vec::new(), Vec::new());
                for check in checks {
                    match view.columns[check.column].place {
                        Place::Row(id) => row.push(check.ready(id, context)?),
                        Place::Header(id) => header.push(check.ready(id, context)?),
                        Place::Key(_) => {}
                    }
                }
                ready.row = (!row.is_empty()).then_some(Condition::Columns(row));
                ready.header = (!header.is_empty()).then_some(Condition::Columns(header));
                return Ok(ready);
            }
        };
        if names_row {
            ready.row = Some(whole);
        } else {
            ready.header = Some(whole);
        }
        Ok(ready)
    }

    /// The view's columns that an answer shows when the condition did not hold.
    pub fn shown_columns(&self, view: &View) -> Vec<usize> {
        match self {
            ConditionPlan::Columns(checks) => {
                let mut columns: Vec<usize> = checks.iter().map(|check| check.column).collect();
                columns.sort_unstable();
                columns.dedup();
                columns
            }
            _ => (0..view.columns.len()).collect(),
        }
    }
}

/// Whether checks hold for a row that is not there: CQL compares with null then, where the inner language wants
/// a row.
pub fn holds_for_missing(condition: &Condition) -> bool {
    let Condition::Columns(checks) = condition else {
        return false;
    };
    checks.iter().all(|check| match check.operator {
        CheckOperator::Equal => check.values.iter().all(Value::is_null),
        CheckOperator::NotEqual => check.values.iter().all(|value| !value.is_null()),
        CheckOperator::In => check.values.iter().any(Value::is_null),
        _ => false,
    })
}
