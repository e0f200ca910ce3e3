//! Shapes of relation trees: what a scan reads, what of a predicate its keys can answer, where an order or a limit
//! comes for free, which columns nobody uses. Nothing here knows names.

use super::coercion::fold;
use super::scope::ScopeColumn;
use crate::ast::JoinKind;
use crate::plan::{Applied, Join, OutputColumn, Relation, Scan, SortKey};
use crate::ranges;
use crate::rows::declared_columns;
use crate::typed::{Comparison, Expression, Node};
use crate::types::SqlType;
use api::{Direction, KeyRange, Selection};
use catalog::{Partitioning, Table};
use model::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A scan of everything, with the columns that SQL can see in the order of their declaration.
pub(super) fn whole_scan(table: &Arc<Table>) -> (Scan, Vec<ScopeColumn>) {
    let mut columns = Vec::new();
    let mut names = Vec::new();
    for index in declared_columns(table) {
        let column = &table.columns()[index];
        if let Some(kind) = SqlType::of_column(&column.kind) {
            columns.push(index);
            names.push(ScopeColumn {
                qualifier: None,
                name: column.name.clone(),
                kind,
                is_hidden: false,
            });
        }
    }
    let scan = Scan {
        table: table.clone(),
        columns,
        selection: Selection::Ranges(vec![whole_range(table)]),
        direction: Direction::Forward,
        row_limit: None,
    };
    (scan, names)
}

pub(super) fn whole_range(table: &Table) -> KeyRange {
    match table.spec.partitioning {
        Partitioning::Hash => KeyRange::all(),
        Partitioning::Range => match table.key_prefix(&[]) {
            Ok(prefix) => KeyRange::prefix(prefix),
            Err(_) => KeyRange::all(),
        },
    }
}

/// WHERE: what of it the key can answer becomes the scan's selection, the rest a filter.
pub(super) fn filtered(relation: Relation, filter: Option<Expression>) -> Relation {
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
        Some(predicate) => match fold(predicate) {
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
pub(super) fn joined(mut join: Join, condition: Option<Expression>) -> Relation {
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
pub(super) fn applied(
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

pub(super) fn sort_and_trim(
    input: Relation,
    expressions: Vec<Expression>,
    keys: Vec<SortKey>,
    width: usize,
    keep: Option<u64>,
) -> Relation {
    let total = expressions.len();
    let mut relation = Relation::Project {
        input: Box::new(input),
        expressions,
    };
    if !keys.is_empty() {
        relation = Relation::Sort {
            input: Box::new(relation),
            keys,
            keep: keep.and_then(|keep| usize::try_from(keep).ok()),
        };
    }
    match total > width {
        true => Relation::Trim {
            input: Box::new(relation),
            width,
        },
        false => relation,
    }
}

/// Whether the scan below yields rows in the wanted order already; turns it round if that is what it takes.
pub(super) fn order_from_scan(
    input: &mut Relation,
    expressions: &[Expression],
    keys: &[SortKey],
) -> bool {
    if keys.is_empty() {
        return true;
    }
    let scan = match input {
        Relation::Scan(scan) => scan,
        Relation::Filter { input, .. } => match input.as_mut() {
            Relation::Scan(scan) => scan,
            _ => return false,
        },
        _ => return false,
    };
    let mut wanted = Vec::new();
    for key in keys {
        let Node::Column(position) = expressions[key.column].node else {
            return false;
        };
        wanted.push((scan.columns[position], key.descending, key.nulls_first));
    }
    ranges::order(scan, &wanted)
}

/// Lets a scan stop early when nothing between it and the limit drops or reorders rows.
pub(super) fn push_limit(relation: &mut Relation, keep: Option<u64>) {
    match relation {
        Relation::Project { input, .. } | Relation::Trim { input, .. } => push_limit(input, keep),
        Relation::Scan(scan) => scan.row_limit = keep,
        _ => {}
    }
}

pub(super) fn cast_columns(
    relation: Relation,
    own: &[OutputColumn],
    wanted: &[OutputColumn],
) -> Relation {
    if own
        .iter()
        .zip(wanted)
        .all(|(own, wanted)| own.kind == wanted.kind)
    {
        return relation;
    }
    let expressions = own
        .iter()
        .zip(wanted)
        .enumerate()
        .map(|(position, (own, wanted))| {
            let column = Expression::column(position, own.kind.clone());
            match own.kind == wanted.kind {
                true => column,
                false => Expression {
                    kind: wanted.kind.clone(),
                    at: 0,
                    node: Node::Cast {
                        operand: Box::new(column),
                        safe: false,
                    },
                },
            }
        });
    Relation::Project {
        expressions: expressions.collect(),
        input: Box::new(relation),
    }
}

/// Makes the scan at the bottom read only the columns that anything above it uses.
pub(super) fn prune(relation: &mut Relation) {
    let mut used = BTreeSet::new();
    if !collect(relation, &mut used) {
        return;
    }
    let used: Vec<usize> = used.into_iter().collect();
    rewrite(relation, &|position| {
        used.binary_search(&position).unwrap_or(position)
    });
    if let Some(scan) = bottom(relation) {
        scan.columns = used
            .iter()
            .map(|position| scan.columns[*position])
            .collect();
    }
}

/// Columns of the scan that are used above it; false when there is no scan to prune.
fn collect(relation: &Relation, used: &mut BTreeSet<usize>) -> bool {
    let mut see = |expression: &Expression| {
        expression.columns(&mut |position| {
            used.insert(position);
        })
    };
    match relation {
        Relation::Trim { input, .. }
        | Relation::Sort { input, .. }
        | Relation::Distinct { input } => collect(input, used),
        Relation::Project { input, expressions } => match is_over_scan(input) {
            true => {
                expressions.iter().for_each(&mut see);
                collect(input, used)
            }
            false => collect(input, used),
        },
        Relation::Filter { input, predicate } => match is_over_scan(input) {
            true => {
                see(predicate);
                collect(input, used)
            }
            false => collect(input, used),
        },
        Relation::Aggregate {
            input,
            keys,
            aggregates,
        } => {
            if !is_over_scan(input) {
                return false;
            }
            keys.iter().for_each(&mut see);
            aggregates
                .iter()
                .filter_map(|aggregate| aggregate.argument.as_ref())
                .for_each(&mut see);
            collect(input, used)
        }
        Relation::Scan(_) => true,
        _ => false,
    }
}

/// Rows of the input are the scan's own.
fn is_over_scan(relation: &Relation) -> bool {
    match relation {
        Relation::Scan(_) => true,
        Relation::Filter { input, .. } => is_over_scan(input),
        _ => false,
    }
}

fn rewrite(relation: &mut Relation, new: &dyn Fn(usize) -> usize) {
    match relation {
        Relation::Trim { input, .. }
        | Relation::Sort { input, .. }
        | Relation::Distinct { input } => {
            rewrite(input, new);
        }
        Relation::Project { input, expressions } => {
            if is_over_scan(input) {
                for expression in expressions {
                    expression.remap(new);
                }
            }
            rewrite(input, new);
        }
        Relation::Filter { input, predicate } => {
            if is_over_scan(input) {
                predicate.remap(new);
            }
            rewrite(input, new);
        }
        Relation::Aggregate {
            input,
            keys,
            aggregates,
        } => {
            for key in keys {
                key.remap(new);
            }
            for aggregate in aggregates {
                if let Some(argument) = &mut aggregate.argument {
                    argument.remap(new);
                }
            }
            rewrite(input, new);
        }
        _ => {}
    }
}

fn bottom(relation: &mut Relation) -> Option<&mut Scan> {
    match relation {
        Relation::Trim { input, .. }
        | Relation::Sort { input, .. }
        | Relation::Distinct { input }
        | Relation::Project { input, .. }
        | Relation::Filter { input, .. }
        | Relation::Aggregate { input, .. } => bottom(input),
        Relation::Scan(scan) => Some(scan),
        _ => None,
    }
}
