//! Grouping and the aggregate functions.

use super::{Operator, OrderedRow, State, Storage};
use crate::error::Error;
use crate::plan::{Aggregate, AggregateFunction, Row};
use crate::typed::{Expression, Scope, evaluate_all};
use crate::types::SqlType;
use crate::value;
use model::{Number, Value};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct AggregateState {
    input: Option<Operator>,
    keys: Vec<Expression>,
    aggregates: Vec<Aggregate>,
}

impl AggregateState {
    pub fn new(
        input: Operator,
        keys: Vec<Expression>,
        aggregates: Vec<Aggregate>,
    ) -> AggregateState {
        AggregateState {
            input: Some(input),
            keys,
            aggregates,
        }
    }

    pub async fn next(
        &mut self,
        state: &mut State,
        storage: &mut dyn Storage,
    ) -> Result<Option<Vec<Row>>, Error> {
        let Some(mut input) = self.input.take() else {
            return Ok(None);
        };
        let mut groups: BTreeMap<OrderedRow, Vec<Accumulator>> = BTreeMap::new();
        let fresh = || {
            self.aggregates
                .iter()
                .map(Accumulator::new)
                .collect::<Vec<_>>()
        };
        if self.keys.is_empty() {
            groups.insert(OrderedRow(Vec::new()), fresh());
        }
        while let Some(batch) = input.next(state, storage).await? {
            for row in &batch {
                let slots = std::mem::take(&mut state.slots);
                let result = self.add(row, &slots, &mut groups, state, &fresh);
                state.slots = slots;
                result?;
            }
        }
        let mut rows = Vec::with_capacity(groups.len());
        for (key, accumulators) in groups {
            let mut row = key.0;
            for (accumulator, aggregate) in accumulators.into_iter().zip(&self.aggregates) {
                row.push(accumulator.finish(aggregate)?);
            }
            rows.push(row);
        }
        Ok(match rows.is_empty() {
            true => None,
            false => Some(rows),
        })
    }

    fn add(
        &self,
        row: &Row,
        slots: &[Value],
        groups: &mut BTreeMap<OrderedRow, Vec<Accumulator>>,
        state: &mut State,
        fresh: &dyn Fn() -> Vec<Accumulator>,
    ) -> Result<(), Error> {
        let scope = Scope { row, slots };
        let key = OrderedRow(evaluate_all(&self.keys, scope)?);
        if !groups.contains_key(&key) {
            state.memory.hold(&key.0)?;
            groups.insert(key.clone(), fresh());
        }
        let Some(accumulators) = groups.get_mut(&key) else {
            return Ok(());
        };
        for (accumulator, aggregate) in accumulators.iter_mut().zip(&self.aggregates) {
            let argument = match &aggregate.argument {
                Some(argument) => Some(argument.evaluate(scope)?),
                None => None,
            };
            if let Some(value) = &argument
                && (aggregate.distinct || accumulator.keeps_values())
            {
                state.memory.hold(std::slice::from_ref(value))?;
            }
            if accumulator.delimiter.is_none()
                && let Some(delimiter) = &aggregate.delimiter
            {
                accumulator.delimiter = Some(delimiter.evaluate(scope)?);
            }
            accumulator.add(aggregate, argument)?;
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Accumulator {
    /// Values already counted, when only distinct ones count.
    seen: Option<BTreeSet<OrderedRow>>,
    delimiter: Option<Value>,
    sum: Sum,
}

#[derive(Clone)]
enum Sum {
    Count(i64),
    Integer { total: i128, count: i64 },
    Float { total: f64, count: i64 },
    Numeric { total: i128, count: i64 },
    Best(Option<Value>),
    Values(Vec<Value>),
    Logical(Option<bool>),
}

impl Accumulator {
    fn new(aggregate: &Aggregate) -> Accumulator {
        use AggregateFunction as F;
        let kind = aggregate.argument.as_ref().map(|argument| &argument.kind);
        let sum = match aggregate.function {
            F::Count | F::CountIf => Sum::Count(0),
            F::Sum | F::Average => match (kind, aggregate.function) {
                (Some(SqlType::Numeric), _) => Sum::Numeric { total: 0, count: 0 },
                (Some(SqlType::Int64), F::Sum) => Sum::Integer { total: 0, count: 0 },
                _ => Sum::Float {
                    total: 0.0,
                    count: 0,
                },
            },
            F::Minimum | F::Maximum | F::AnyValue => Sum::Best(None),
            F::ArrayAgg | F::StringAgg => Sum::Values(Vec::new()),
            F::LogicalAnd | F::LogicalOr => Sum::Logical(None),
        };
        Accumulator {
            seen: aggregate.distinct.then(BTreeSet::new),
            delimiter: None,
            sum,
        }
    }

    fn keeps_values(&self) -> bool {
        matches!(self.sum, Sum::Values(_))
    }

    fn add(&mut self, aggregate: &Aggregate, argument: Option<Value>) -> Result<(), Error> {
        use AggregateFunction as F;
        let Some(value) = argument else {
            if let Sum::Count(count) = &mut self.sum {
                *count += 1;
            }
            return Ok(());
        };
        // NULLs count for nothing, except as elements of an array.
        if value.is_null() && !matches!(aggregate.function, F::ArrayAgg) {
            return Ok(());
        }
        if let Some(seen) = &mut self.seen
            && !seen.insert(OrderedRow(vec![value.clone()]))
        {
            return Ok(());
        }
        match &mut self.sum {
            Sum::Count(count) => {
                if aggregate.function == F::Count || value == Value::Bool(true) {
                    *count += 1;
                }
            }
            Sum::Integer { total, count } => {
                if let Value::Int(value) = value {
                    *total += i128::from(value);
                    *count += 1;
                }
            }
            Sum::Float { total, count } => {
                *total += match value {
                    Value::Int(value) => value as f64,
                    Value::Float32(value) => f64::from(value),
                    Value::Float64(value) => value,
                    _ => 0.0,
                };
                *count += 1;
            }
            Sum::Numeric { total, count } => {
                if let Value::Number(number) = value {
                    let units = number.numeric_units().unwrap_or(0);
                    *total = total
                        .checked_add(units)
                        .ok_or_else(|| Error::out_of_range("numeric overflow in SUM"))?;
                    *count += 1;
                }
            }
            Sum::Best(best) => {
                let wanted = match aggregate.function {
                    F::Minimum => Ordering::Less,
                    F::Maximum => Ordering::Greater,
                    _ => Ordering::Equal,
                };
                let replaces = match best {
                    None => true,
                    Some(_) if wanted == Ordering::Equal => false,
                    Some(known) => prefers(&value, known, wanted),
                };
                if replaces {
                    *best = Some(value);
                }
            }
            Sum::Values(values) => values.push(value),
            Sum::Logical(known) => {
                let value = value == Value::Bool(true);
                *known = Some(match (aggregate.function, *known) {
                    (_, None) => value,
                    (F::LogicalAnd, Some(known)) => known && value,
                    (_, Some(known)) => known || value,
                });
            }
        }
        Ok(())
    }

    fn finish(self, aggregate: &Aggregate) -> Result<Value, Error> {
        Ok(match self.sum {
            Sum::Count(count) => Value::Int(count),
            Sum::Integer { count: 0, .. }
            | Sum::Float { count: 0, .. }
            | Sum::Numeric { count: 0, .. } => Value::Null,
            Sum::Integer { total, .. } => Value::Int(
                i64::try_from(total).map_err(|_| Error::out_of_range("int64 overflow in SUM"))?,
            ),
            Sum::Float { total, count } => Value::Float64(match aggregate.function {
                AggregateFunction::Average => total / count as f64,
                _ => total,
            }),
            Sum::Numeric { total, count } => {
                let overflow = |_| Error::out_of_range("numeric overflow in SUM");
                let total = Number::from_numeric_units(total).map_err(overflow)?;
                Value::Number(match aggregate.function {
                    AggregateFunction::Average => {
                        total.numeric_div(Number::from(count)).map_err(overflow)?
                    }
                    _ => total,
                })
            }
            Sum::Best(best) => best.unwrap_or(Value::Null),
            Sum::Logical(known) => known.map_or(Value::Null, Value::Bool),
            Sum::Values(values) if values.is_empty() => Value::Null,
            Sum::Values(values) if aggregate.function == AggregateFunction::StringAgg => {
                joined(values, self.delimiter)
            }
            Sum::Values(values) => Value::List(values),
        })
    }
}

/// Whether a value takes the place of the best so far. NaN beats all, as MIN and MAX want it.
fn prefers(value: &Value, known: &Value, wanted: Ordering) -> bool {
    let is_nan = |value: &Value| match value {
        Value::Float64(value) => value.is_nan(),
        Value::Float32(value) => value.is_nan(),
        _ => false,
    };
    match (is_nan(value), is_nan(known)) {
        (_, true) => false,
        (true, false) => true,
        (false, false) => value::order(value, known) == wanted,
    }
}

fn joined(values: Vec<Value>, delimiter: Option<Value>) -> Value {
    let bytes = |value: &Value| match value {
        Value::Text(text) => text.as_bytes().to_vec(),
        Value::Bytes(bytes) => bytes.clone(),
        _ => Vec::new(),
    };
    let delimiter = delimiter.as_ref().map_or(b",".to_vec(), bytes);
    let is_text = matches!(values.first(), Some(Value::Text(_)));
    let parts: Vec<Vec<u8>> = values.iter().map(bytes).collect();
    let whole = parts.join(delimiter.as_slice());
    match is_text {
        true => Value::Text(String::from_utf8_lossy(&whole).into_owned()),
        false => Value::Bytes(whole),
    }
}
