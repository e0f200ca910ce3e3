//! Subqueries: one result each, once for a statement or, where it is about a row, for each row.

use super::{Operator, State, Storage};
use crate::error::Error;
use crate::plan::{Applied, Relation, Row, SubqueryForm};
use crate::push_down::bind;
use model::Value;

/// Runs a subquery and returns what it comes to.
pub(super) async fn result(
    root: Relation,
    form: SubqueryForm,
    state: &mut State,
    storage: &mut dyn Storage,
) -> Result<Value, Error> {
    let mut operator = Operator::of(root);
    let mut rows: Vec<Row> = Vec::new();
    while let Some(batch) = operator.next(state, storage).await? {
        for row in &batch {
            state.memory.hold(row)?;
        }
        rows.extend(batch);
        if form == SubqueryForm::Exists {
            break;
        }
    }
    let mut firsts = rows
        .into_iter()
        .map(|row| row.into_iter().next().unwrap_or(Value::Null));
    Ok(match form {
        SubqueryForm::Exists => Value::Bool(firsts.next().is_some()),
        SubqueryForm::Array => Value::List(firsts.collect()),
        SubqueryForm::Scalar => {
            let value = firsts.next().unwrap_or(Value::Null);
            if firsts.next().is_some() {
                return Err(Error::out_of_range(
                    "A scalar subquery cannot produce more than one row",
                ));
            }
            value
        }
    })
}

/// Rows with the results of the subqueries about them.
pub(super) async fn next(
    input: &mut Operator,
    applied: &[Applied],
    state: &mut State,
    storage: &mut dyn Storage,
) -> Result<Option<Vec<Row>>, Error> {
    let Some(mut batch) = input.next(state, storage).await? else {
        return Ok(None);
    };
    for row in &mut batch {
        extend(row, applied, state, storage).await?;
    }
    Ok(Some(batch))
}

/// Adds the results of the subqueries about a row to it.
async fn extend(
    row: &mut Row,
    applied: &[Applied],
    state: &mut State,
    storage: &mut dyn Storage,
) -> Result<(), Error> {
    let width = row.len();
    for subquery in applied {
        let mut root = subquery.root.clone();
        let parameters = subquery.parameters.iter().map(|(slot, column)| {
            let value = row[..width].get(*column).cloned();
            (*slot, value.unwrap_or(Value::Null))
        });
        let parameters: Vec<(usize, Value)> = parameters.collect();
        bind(&mut root, &parameters);
        // What one row's subquery has held is free again for the next.
        let held_bytes = state.memory.held_bytes;
        let value = result(root, subquery.form, state, storage).await?;
        state.memory.held_bytes = held_bytes;
        row.push(value);
    }
    Ok(())
}
