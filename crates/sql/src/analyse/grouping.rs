//! From expressions over a select's input to expressions over its groups.

use super::scope::NameScope;
use crate::error::Error;
use crate::typed::{Expression, Node};

/// Structural equality without the places in the text.
pub(super) fn same(left: &Expression, right: &Expression) -> bool {
    if left.kind != right.kind {
        return false;
    }
    let mut left = left.clone();
    let mut right = right.clone();
    clear_places(&mut left);
    clear_places(&mut right);
    left == right
}

fn clear_places(expression: &mut Expression) {
    expression.at = 0;
    for child in expression.children_mut() {
        clear_places(child);
    }
}

pub(super) fn has_aggregate(expression: &Expression) -> bool {
    matches!(expression.node, Node::Aggregate(_))
        || expression
            .children()
            .iter()
            .any(|child| has_aggregate(child))
}

/// Rewrites an expression over the input into one over the aggregate's output.
pub(super) fn lift(
    expression: &Expression,
    keys: &[Expression],
    scope: &NameScope<'_>,
) -> Result<Expression, Error> {
    if let Some(position) = keys.iter().position(|key| same(key, expression)) {
        return Ok(Expression {
            kind: expression.kind.clone(),
            node: Node::Column(position),
            at: expression.at,
        });
    }
    let mut lifted = expression.clone();
    match &mut lifted.node {
        Node::Aggregate(index) => lifted.node = Node::Column(keys.len() + *index),
        Node::Column(position) => {
            let Some(column) = scope.columns.get(*position) else {
                return Err(
                    Error::unimplemented("a correlated subquery over groups").at(expression.at)
                );
            };
            let name = &column.name;
            return Err(Error::invalid(format!(
                "SELECT list expression references column {name} which is neither grouped nor aggregated"
            ))
            .at(expression.at));
        }
        _ => {
            for child in lifted.children_mut() {
                *child = lift(child, keys, scope)?;
            }
        }
    }
    Ok(lifted)
}
