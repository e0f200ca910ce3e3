//! IF: conditions of INSERT, UPDATE and DELETE.

use super::Planner;
use super::modify::find_field;
use super::term::{Context, Term};
use super::view::{Place, View};
use crate::error::Error;
use crate::grammar::ast::{ColumnCondition, ConditionClause, InValues, Operator};
use crate::types::name::cql_name;
use api::{Check, CheckOperator, Condition, Part};
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
    part: Option<PartPlan>,
    operator: CheckOperator,
    values: CheckValues,
}

/// Which part of the column's value is meant.
#[derive(Clone, Debug)]
enum PartPlan {
    Key(Term),
    Index(Term),
    Field(u32),
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
    let name = column.name.as_str();
    let (part, part_kind) = plan_part(condition, name, &column.kind, planner)?;
    let operator = match condition.operator {
        Operator::Equal => CheckOperator::Equal,
        Operator::NotEqual => CheckOperator::NotEqual,
        Operator::Less => CheckOperator::Less,
        Operator::LessOrEqual => CheckOperator::LessOrEqual,
        Operator::Greater => CheckOperator::Greater,
        Operator::GreaterOrEqual => CheckOperator::GreaterOrEqual,
        Operator::In => CheckOperator::In,
        Operator::Contains => CheckOperator::Contains,
        Operator::ContainsKey => CheckOperator::ContainsKey,
        other => return Err(Error::invalid(format!("IF conditions cannot use {other}"))),
    };
    if part_kind == Type::Duration && is_order(operator) {
        return Err(Error::invalid(format!(
            "Slice conditions ( {} ) are not supported on durations",
            condition.operator
        )));
    }
    // What a value on the right is of.
    let kind = match (operator, &part_kind) {
        (CheckOperator::Contains, Type::List { element, .. } | Type::Set { element, .. }) => {
            element.as_ref().clone()
        }
        (CheckOperator::Contains, Type::Map { value, .. }) => value.as_ref().clone(),
        (CheckOperator::ContainsKey, Type::Map { key, .. }) => key.as_ref().clone(),
        (CheckOperator::Contains | CheckOperator::ContainsKey, _) => {
            return Err(Error::invalid(format!(
                "Cannot use {} on column {name} of type {}",
                condition.operator,
                cql_name(&part_kind)
            )));
        }
        _ => part_kind,
    };
    let values = match &condition.values {
        InValues::Terms(terms) => CheckValues::Terms(
            terms
                .iter()
                .map(|term| planner.term(term, &kind, name))
                .collect::<Result<_, _>>()?,
        ),
        InValues::Marker(marker) => {
            let kind = Type::List {
                element: Box::new(kind),
                frozen: true,
            };
            let term = crate::grammar::ast::Term::Marker(*marker);
            CheckValues::ListMarker(planner.term(&term, &kind, &format!("in({name})"))?)
        }
    };
    Ok(CheckPlan {
        column: index,
        part,
        operator,
        values,
    })
}

fn is_order(operator: CheckOperator) -> bool {
    matches!(
        operator,
        CheckOperator::Less
            | CheckOperator::LessOrEqual
            | CheckOperator::Greater
            | CheckOperator::GreaterOrEqual
    )
}

/// The part that a condition is about, and what type it is of: the whole column's if it names none.
fn plan_part(
    condition: &ColumnCondition,
    name: &str,
    kind: &Type,
    planner: &mut Planner<'_>,
) -> Result<(Option<PartPlan>, Type), Error> {
    if let Some(field) = &condition.field {
        let (position, field_kind) = find_field(kind, field, name)?;
        return Ok((Some(PartPlan::Field(position as u32)), field_kind));
    }
    let Some(element) = &condition.element else {
        return Ok((None, kind.clone()));
    };
    match kind {
        Type::Map { key, value, .. } => {
            let key = planner.term(element, key, &format!("key({name})"))?;
            Ok((Some(PartPlan::Key(key)), value.as_ref().clone()))
        }
        Type::List { element: of, .. } => {
            let index = planner.term(element, &Type::Int, &format!("idx({name})"))?;
            Ok((Some(PartPlan::Index(index)), of.as_ref().clone()))
        }
        Type::Set { .. } => Err(Error::invalid(format!(
            "Invalid element access syntax for set column {name}"
        ))),
        _ => Err(Error::invalid(format!(
            "Invalid element access syntax for non-collection column {name}"
        ))),
    }
}

impl PartPlan {
    fn ready(&self, context: &Context<'_>) -> Result<Part, Error> {
        match self {
            PartPlan::Field(position) => Ok(Part::Field(*position)),
            PartPlan::Key(key) => match key.evaluate(context)? {
                Some(Value::Null) | None => {
                    Err(Error::invalid("Invalid null value for map element access"))
                }
                Some(key) => Ok(Part::Key(key)),
            },
            PartPlan::Index(index) => match index.evaluate(context)? {
                Some(Value::Int(index)) => u32::try_from(index)
                    .map(Part::Position)
                    .map_err(|_| Error::invalid(format!("Invalid negative list index {index}"))),
                _ => Err(Error::invalid("Invalid null value for list element access")),
            },
        }
    }
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
        if is_order(self.operator) && values.iter().any(Value::is_null) {
            return Err(Error::invalid(
                "Invalid comparison with null in a condition",
            ));
        }
        Ok(Check {
            column,
            operator: self.operator,
            values,
            part: match &self.part {
                Some(part) => Some(part.ready(context)?),
                None => None,
            },
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
        CheckOperator::Equal => check.values.iter().all(is_nothing),
        CheckOperator::NotEqual => !check.values.iter().any(is_nothing),
        CheckOperator::In => check.values.iter().any(is_nothing),
        _ => false,
    })
}

/// Whether a value is what a missing column compares equal to.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || api::collection::is_empty(value)
}
