//! Shapes of relation trees: what a scan reads, where an order or a limit comes for free, which columns nobody uses.
//! Nothing here knows names.

use super::scope::ScopeColumn;
use crate::plan::{OutputColumn, Relation, Scan, SortKey};
use crate::push_down::whole_range;
use crate::ranges;
use crate::rows::declared_columns;
use crate::typed::{Expression, Node};
use crate::types::SqlType;
use api::{Direction, Selection};
use catalog::Table;
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
        looked_at: None,
        selection: Selection::Ranges(vec![whole_range(table)]),
        direction: Direction::Forward,
        row_limit: None,
        for_update: false,
    };
    (scan, names)
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
            Expression::column(position, own.kind.clone()).cast(&wanted.kind)
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
