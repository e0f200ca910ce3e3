//! SELECT made ready.

use super::Planner;
use super::restrict::{self, Access, Filter};
use super::selector::{self, Aggregate, AggregateKind, Output};
use super::term::Term;
use super::view::{Place, Source, View};
use crate::error::Error;
use crate::grammar::ast;
use crate::protocol::response::{ColumnSpec, RowsMetadata};
use api::Projection;
use catalog::ColumnRole;
use model::{ColumnId, Type};

#[derive(Debug)]
pub struct SelectPlan {
    pub view: View,
    pub access: Access,
    pub filters: Vec<Filter>,
    pub outputs: Vec<Output>,
    pub metadata: RowsMetadata,
    /// Of the metadata: v5 clients tell by it whether theirs are current.
    pub metadata_id: [u8; 16],
    pub is_reversed: bool,
    /// Rows of several partitions must be sorted by the clustering columns.
    pub sorts: bool,
    pub is_distinct: bool,
    pub limit: Option<Term>,
    pub per_partition_limit: Option<Term>,
    pub projection: Projection,
    /// The partition's header is needed: static columns are read.
    pub needs_header: bool,
    pub needs_key: bool,
    pub is_aggregate: bool,
}

pub fn plan(select: &ast::Select, planner: &mut Planner<'_>) -> Result<SelectPlan, Error> {
    if select.is_json {
        return Err(Error::invalid("SELECT JSON is not supported yet"));
    }
    if !select.group_by.is_empty() {
        return Err(Error::invalid("GROUP BY is not supported yet"));
    }
    let view = planner.view(&select.table)?;
    let (outputs, columns) = plan_outputs(select, &view, planner)?;
    let restrictions = restrict::plan(&select.relations, &view, planner)?;
    check_partition_relations(select, &view, &restrictions)?;
    if restrictions.needs_filtering && !select.allow_filtering {
        return Err(unfilterable(&restrictions, &view));
    }
    let is_reversed = order(&select.order_by, &view, &restrictions.access)?;
    let per_partition_limit = limit_term(
        &select.per_partition_limit,
        "[per_partition_limit]",
        planner,
    )?;
    let limit = limit_term(&select.limit, "[limit]", planner)?;
    let is_aggregate = outputs
        .iter()
        .any(|output| matches!(output, Output::Aggregate(_)));
    if is_aggregate && per_partition_limit.is_some() {
        return Err(Error::invalid(
            "PER PARTITION LIMIT is not allowed with aggregate queries.",
        ));
    }
    if select.is_distinct {
        check_distinct(select, &view)?;
        if per_partition_limit.is_some() {
            return Err(Error::invalid(
                "PER PARTITION LIMIT is not allowed with SELECT DISTINCT queries",
            ));
        }
    }
    let mut places = places(&outputs, &restrictions.filters, &view);
    // A partition that has static cells and no rows is a row of the result, whatever is selected, unless rows are
    // asked for by their clustering columns.
    let needs_header = view.has_statics()
        && (places.iter().any(|place| matches!(place, Place::Header(_)))
            || !restrictions.access.restricts_clustering());
    if needs_header {
        // Any of them shows that the partition is there.
        places.extend(
            view.of_role(ColumnRole::Static)
                .map(|(_, column)| column.place),
        );
    }
    let sorts = !select.order_by.is_empty()
        && matches!(&restrictions.access, Access::Partitions(keys) if keys.has_partition_in());
    let needs_key = sorts
        || outputs.iter().any(|output| match output {
            Output::Row(selector) => selector.uses_key(),
            Output::Aggregate(aggregate) => aggregate
                .argument
                .as_ref()
                .is_some_and(|(selector, _)| selector.uses_key()),
        })
        || places.iter().any(|place| matches!(place, Place::Key(_)));
    let kinds: Vec<_> = columns
        .iter()
        .map(|column| (column.name.clone(), column.kind.clone()))
        .collect();
    let fingerprint = crate::types::option::fingerprint(&kinds);
    Ok(SelectPlan {
        metadata: RowsMetadata {
            keyspace: view.keyspace.clone(),
            table: view.name.clone(),
            columns,
        },
        metadata_id: crate::prepared::digest(&[&fingerprint]),
        outputs: as_aggregates(outputs, is_aggregate, &kinds),
        is_reversed,
        sorts,
        is_distinct: select.is_distinct,
        limit,
        per_partition_limit,
        projection: projection(&places, &view),
        needs_header,
        needs_key,
        is_aggregate,
        access: restrictions.access,
        filters: restrictions.filters,
        view,
    })
}

/// Beside an aggregate, a plain selector gives its value in the first row.
fn as_aggregates(
    outputs: Vec<Output>,
    is_aggregate: bool,
    kinds: &[(String, Type)],
) -> Vec<Output> {
    if !is_aggregate {
        return outputs;
    }
    outputs
        .into_iter()
        .zip(kinds)
        .map(|(output, (_, kind))| match output {
            Output::Row(selector) => Output::Aggregate(Aggregate {
                kind: AggregateKind::First,
                argument: Some((selector, kind.clone())),
            }),
            aggregate => aggregate,
        })
        .collect()
}

fn plan_outputs(
    select: &ast::Select,
    view: &View,
    planner: &mut Planner<'_>,
) -> Result<(Vec<Output>, Vec<ColumnSpec>), Error> {
    let mut outputs = Vec::new();
    let mut columns = Vec::new();
    if select.selectors.is_empty() {
        for (index, column) in view.columns.iter().enumerate() {
            let is_hidden = select.is_distinct
                && !matches!(column.role, ColumnRole::Partition | ColumnRole::Static);
            if is_hidden {
                continue;
            }
            let (selector, kind) = selector::column(view, index);
            outputs.push(Output::Row(selector));
            columns.push(ColumnSpec {
                name: column.name.clone(),
                kind,
            });
        }
    }
    for (selector, alias) in &select.selectors {
        let planned = selector::plan(selector, view, planner)?;
        outputs.push(planned.output);
        columns.push(ColumnSpec {
            name: alias.clone().unwrap_or(planned.name),
            kind: planned.kind,
        });
    }
    Ok((outputs, columns))
}

/// Why the rows cannot be found without ALLOW FILTERING, in Cassandra's words where it has special ones.
fn unfilterable(restrictions: &restrict::Restrictions, view: &View) -> Error {
    if matches!(restrictions.access, Access::Partitions(_))
        && let Some(filter) = restrictions
            .filters
            .iter()
            .find(|filter| view.columns[filter.column].role == ColumnRole::Clustering)
        && let Place::Key(position) = view.columns[filter.column].place
        && position > view.partition_count()
    {
        return Error::invalid(format!(
            "PRIMARY KEY column \"{}\" cannot be restricted as preceding column \"{}\" is not restricted",
            view.columns[filter.column].name,
            view.columns[filter.column - 1].name
        ));
    }
    restrict::needs_filtering()
}

fn check_partition_relations(
    select: &ast::Select,
    view: &View,
    restrictions: &restrict::Restrictions,
) -> Result<(), Error> {
    if select.allow_filtering || matches!(view.source, Source::System(_)) {
        return Ok(());
    }
    for filter in &restrictions.filters {
        let column = &view.columns[filter.column];
        let is_equal = matches!(filter.operator, ast::Operator::Equal | ast::Operator::In);
        if column.role == ColumnRole::Partition && !is_equal {
            return Err(Error::invalid(
                "Only EQ and IN relation are supported on the partition key (unless you use the token() \
                 function or allow filtering)",
            ));
        }
    }
    Ok(())
}

fn check_distinct(select: &ast::Select, view: &View) -> Result<(), Error> {
    for (selector, _) in &select.selectors {
        let ast::Selector::Column(name) = selector else {
            continue;
        };
        let column = &view.columns[view.index(name)?];
        if !matches!(column.role, ColumnRole::Partition | ColumnRole::Static) {
            return Err(Error::invalid(format!(
                "SELECT DISTINCT queries must only request partition key columns and/or static columns (not \
                 {name})"
            )));
        }
    }
    Ok(())
}

fn limit_term(
    limit: &Option<ast::Term>,
    name: &str,
    planner: &mut Planner<'_>,
) -> Result<Option<Term>, Error> {
    match limit {
        Some(term) => planner.term(term, &Type::Int, name).map(Some),
        None => Ok(None),
    }
}

/// Whether rows are wanted against the order in which they are kept.
fn order(order_by: &[(String, bool)], view: &View, access: &Access) -> Result<bool, Error> {
    if order_by.is_empty() {
        return Ok(false);
    }
    if !matches!(access, Access::Partitions(_)) {
        return Err(Error::invalid(
            "ORDER BY is only supported when the partition key is restricted by an EQ or an IN.",
        ));
    }
    let clustering: Vec<_> = view.of_role(ColumnRole::Clustering).collect();
    let mut is_reversed = None;
    let mut at = 0;
    for (name, is_descending) in order_by {
        let index = view.index(name)?;
        if view.columns[index].role != ColumnRole::Clustering {
            return Err(Error::invalid(format!(
                "Order by is currently only supported on the clustered columns of the PRIMARY KEY, got {name}"
            )));
        }
        // Columns that equal one value may be left out, and those that stand there change nothing.
        while at < clustering.len() && clustering[at].0 != index {
            at += 1;
        }
        if at == clustering.len() {
            return Err(Error::invalid(
                "Order by currently only supports the ordering of columns following their declared order in \
                 the PRIMARY KEY",
            ));
        }
        let reverses = clustering[at].1.descending != *is_descending;
        at += 1;
        if is_reversed.is_some_and(|earlier| earlier != reverses) {
            return Err(Error::invalid("Unsupported order by relation"));
        }
        is_reversed = Some(reverses);
    }
    Ok(is_reversed.unwrap_or(false))
}

fn places(outputs: &[Output], filters: &[Filter], view: &View) -> Vec<Place> {
    let mut places = Vec::new();
    for output in outputs {
        match output {
            Output::Row(selector) => selector.places(&mut places),
            Output::Aggregate(aggregate) => {
                if let Some((selector, _)) = &aggregate.argument {
                    selector.places(&mut places);
                }
            }
        }
    }
    places.extend(
        filters
            .iter()
            .map(|filter| view.columns[filter.column].place),
    );
    places
}

/// The stored columns that are read; `All` where that is the same.
fn projection(places: &[Place], view: &View) -> Projection {
    let mut columns: Vec<ColumnId> = places
        .iter()
        .filter_map(|place| match place {
            Place::Row(id) | Place::Header(id) => Some(*id),
            Place::Key(_) => None,
        })
        .collect();
    columns.sort();
    columns.dedup();
    let stored = match &view.source {
        Source::Stored(table) => table
            .columns()
            .iter()
            .filter(|column| matches!(column.role, ColumnRole::Static | ColumnRole::Regular))
            .count(),
        Source::System(_) => 0,
    };
    if columns.len() == stored {
        Projection::All
    } else {
        Projection::Columns(columns)
    }
}
