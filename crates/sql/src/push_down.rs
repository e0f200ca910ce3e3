//! Where conditions are answered: as far down in a relation tree as comes to the same, by the keys of scans where they
//! can. The analyser does so once for a statement, the executor again for a subquery whose row is known.

use crate::ast::JoinKind;
use crate::plan::{Applied, Join, Relation, Scan};
use crate::ranges;
use crate::typed::{Comparison, Expression, Node};
use crate::types::SqlType;
use api::{KeyRange, Selection};
use catalog::{Partitioning, Table};
use model::Value;

pub(crate) fn whole_range(table: &Table) -> KeyRange {
    match table.spec.partitioning {
        Partitioning::Hash => KeyRange::all(),
        Partitioning::Range => match table.key_prefix(&[]) {
            Ok(prefix) => KeyRange::prefix(prefix),
            Err(_) => KeyRange::all(),
        },
    }
}

/// WHERE: what of it the key can answer becomes the scan's selection, the rest a filter.
pub(crate) fn filtered(relation: Relation, filter: Option<Expression>) -> Relation {
    let Some(predicate) = filter else {
        return relation;
    };
    let (relation, rest) = match relation {
        Relation::Scan(mut scan) => {
            let rest = ranges::select(&mut scan, predicate);
            (Relation::Scan(scan), rest)
        }
        Relation::Join(join) if join.kind != JoinKind::Full => {
            let (join, rest) = push_into_join(*join, predicate);
            (Relation::Join(Box::new(join)), rest)
        }
        other => (other, Some(predicate)),
    };
    match rest {
        None => relation,
        Some(predicate) => match predicate.folded() {
            Expression {
                node: Node::Literal(Value::Bool(true)),
                ..
            } => relation,
            Expression {
                node: Node::Literal(_),
                ..
            } => Relation::Rows(Vec::new()),
            predicate => Relation::Filter {
                input: Box::new(relation),
                predicate,
            },
        },
    }
}

fn conjuncts(predicate: Expression, found: &mut Vec<Expression>) {
    match predicate.node {
        Node::And(items) => items.into_iter().for_each(|item| conjuncts(item, found)),
        _ => found.push(predicate),
    }
}

fn all_of(mut items: Vec<Expression>) -> Option<Expression> {
    match items.len() {
        0 => None,
        1 => items.pop(),
        _ => Some(Expression {
            kind: SqlType::Bool,
            at: items[0].at,
            node: Node::And(items),
        }),
    }
}

/// Which sides of a join an expression looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Neither,
    Left,
    Right,
    Both,
}

fn side(expression: &Expression, left_width: usize) -> Side {
    let mut side = Side::Neither;
    expression.columns(&mut |position| {
        let one = match position < left_width {
            true => Side::Left,
            false => Side::Right,
        };
        side = match side {
            Side::Neither => one,
            same if same == one => one,
            _ => Side::Both,
        };
    });
    side
}

/// A join under a condition of its own: what looks at one side only is answered there where that comes to the same,
/// and equalities between the sides become keys.
pub(crate) fn joined(mut join: Join, condition: Option<Expression>) -> Relation {
    let mut all = Vec::new();
    if let Some(condition) = condition {
        conjuncts(condition, &mut all);
    }
    let (mut of_left, mut of_right, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for item in all {
        match side(&item, join.left_width) {
            Side::Left if matches!(join.kind, JoinKind::Inner | JoinKind::Right) => {
                of_left.push(item);
            }
            Side::Right if matches!(join.kind, JoinKind::Inner | JoinKind::Left) => {
                of_right.push(item);
            }
            _ => rest.push(item),
        }
    }
    narrow(&mut join, of_left, of_right);
    let mut others: Vec<Expression> = join.condition.take().into_iter().collect();
    for item in rest {
        match key(item, join.left_width) {
            Ok(pair) => join.keys.push(pair),
            Err(item) => others.push(item),
        }
    }
    join.condition = all_of(others);
    Relation::Join(Box::new(join))
}

/// Puts conditions on one side below the join.
fn narrow(join: &mut Join, of_left: Vec<Expression>, mut of_right: Vec<Expression>) {
    let empty = || Relation::Rows(Vec::new());
    for item in &mut of_right {
        item.remap(&|position| position - join.left_width);
    }
    join.left = filtered(std::mem::replace(&mut join.left, empty()), all_of(of_left));
    join.right = filtered(
        std::mem::replace(&mut join.right, empty()),
        all_of(of_right),
    );
}

/// An equality between the sides, the right side over the right row alone.
fn key(item: Expression, left_width: usize) -> Result<(Expression, Expression), Expression> {
    let Node::Compare(Comparison::Equal, one, other) = &item.node else {
        return Err(item);
    };
    let (left, right) = match (side(one, left_width), side(other, left_width)) {
        (Side::Left, Side::Right) => (one, other),
        (Side::Right, Side::Left) => (other, one),
        _ => return Err(item),
    };
    let mut right = right.as_ref().clone();
    right.remap(&|position| position - left_width);
    Ok((left.as_ref().clone(), right))
}

/// WHERE over a join: returns what must be checked above it.
fn push_into_join(mut join: Join, predicate: Expression) -> (Join, Option<Expression>) {
    let mut all = Vec::new();
    conjuncts(predicate, &mut all);
    let (mut of_left, mut of_right, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for item in all {
        match (side(&item, join.left_width), join.kind) {
            // Rows that are there for lack of a partner must not come about by a condition on the partner.
            (Side::Left, JoinKind::Inner | JoinKind::Left) => of_left.push(item),
            (Side::Right, JoinKind::Inner | JoinKind::Right) => of_right.push(item),
            (Side::Both, JoinKind::Inner) => match key(item, join.left_width) {
                Ok(pair) => join.keys.push(pair),
                Err(item) => rest.push(item),
            },
            _ => rest.push(item),
        }
    }
    narrow(&mut join, of_left, of_right);
    (join, all_of(rest))
}

/// WHERE with correlated subqueries, whose results are columns behind the row's own `width`: what needs none of
/// them is answered first.
pub(crate) fn applied(
    relation: Relation,
    filter: Option<Expression>,
    subqueries: Vec<Applied>,
    width: usize,
) -> Relation {
    if subqueries.is_empty() {
        return filtered(relation, filter);
    }
    let mut all = Vec::new();
    if let Some(filter) = filter {
        conjuncts(filter, &mut all);
    }
    let (before, behind) = all
        .into_iter()
        .partition(|item| side(item, width) != Side::Right && side(item, width) != Side::Both);
    let input = Relation::Apply {
        input: Box::new(filtered(relation, all_of(before))),
        applied: subqueries,
    };
    match all_of(behind) {
        None => input,
        Some(predicate) => Relation::Filter {
            input: Box::new(input),
            predicate,
        },
    }
}

/// Puts values into slots, and lets scans read only what those values leave of them.
pub(crate) fn bind(relation: &mut Relation, values: &[(usize, Value)]) {
    for expression in relation.expressions_mut() {
        substitute(expression, values);
    }
    for input in relation.inputs_mut() {
        bind(input, values);
    }
    let is_whole = |scan: &Scan| {
        scan.row_limit.is_none()
            && scan.selection == Selection::Ranges(vec![whole_range(&scan.table)])
    };
    if let Relation::Filter { input, predicate } = relation
        && let Relation::Scan(scan) = input.as_ref()
        && is_whole(scan)
    {
        *relation = filtered(Relation::Scan(scan.clone()), Some(predicate.clone()));
    }
}

fn substitute(expression: &mut Expression, values: &[(usize, Value)]) {
    if let Node::Slot(slot) = &expression.node
        && let Some((_, value)) = values.iter().find(|(known, _)| known == slot)
    {
        expression.node = Node::Literal(value.clone());
    }
    for child in expression.children_mut() {
        substitute(child, values);
    }
}
