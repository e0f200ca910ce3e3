//! Queries: FROM, WHERE, GROUP BY, SELECT, DISTINCT, ORDER BY, LIMIT, in the order in which they take effect.

use super::from::Source;
use super::grouping::{has_aggregate, lift, same};
use super::scope::{NameScope, ScopeColumn};
use super::shape::{cast_columns, order_from_scan, prune, push_limit, sort_and_trim};
use super::{Analyser, Environment, LOCK_SCANNED_RANGES, SELECTS_MAX, ScanLocks};
use crate::ast::{self, Body, OrderItem, SelectItem, SetOperator};
use crate::error::Error;
use crate::plan::{OutputColumn, Plan, Relation, SetOperation, SortKey};
use crate::push_down::applied;
use crate::typed::Expression;
use crate::types::SqlType;
use model::Value;
use std::sync::Arc;

pub(super) fn analyse_query(
    environment: Environment<'_>,
    text: Arc<str>,
    query: &ast::Query,
    locks: Option<ScanLocks>,
) -> Result<Plan, Error> {
    let mut analyser = Analyser::new(environment, locks);
    let (root, columns) = analyser.query(query, None)?;
    if analyser.has_for_update && locks.is_some() {
        return Err(Error::invalid(format!(
            "FOR UPDATE does not go with the statement hint {LOCK_SCANNED_RANGES}"
        )));
    }
    Ok(Plan {
        text,
        columns,
        root,
        subqueries: analyser.subqueries,
        for_update: analyser.has_for_update,
    })
}

/// A select list: what its items are called, and what they are.
struct Items {
    columns: Vec<OutputColumn>,
    expressions: Vec<Expression>,
}

impl<'a> Analyser<'a> {
    pub(super) fn query(
        &mut self,
        query: &ast::Query,
        outer: Option<&NameScope<'_>>,
    ) -> Result<(Relation, Vec<OutputColumn>), Error> {
        let in_sight = self.with.len();
        for (name, query) in &query.with {
            self.with.push((name.text.clone(), query.clone()));
        }
        let around = self.for_update;
        self.for_update |= query.for_update;
        self.has_for_update |= self.for_update;
        let result = self.query_here(query, outer);
        self.for_update = around;
        self.with.truncate(in_sight);
        result
    }

    fn query_here(
        &mut self,
        query: &ast::Query,
        outer: Option<&NameScope<'_>>,
    ) -> Result<(Relation, Vec<OutputColumn>), Error> {
        let limit = self.row_count(query.limit.as_ref(), "LIMIT")?;
        let offset = self
            .row_count(query.offset.as_ref(), "OFFSET")?
            .unwrap_or(0);
        let keep = limit.map(|limit| limit.saturating_add(offset));
        let (mut relation, columns) = match &query.body {
            Body::Select(select) => self.select(select, &query.order_by, keep, outer)?,
            Body::Query(inner) => {
                let (relation, columns) = self.query(inner, outer)?;
                self.sort_output(relation, columns, &query.order_by, keep)?
            }
            Body::Set {
                operator,
                distinct,
                bodies,
            } => {
                let (relation, columns) = self.set(*operator, *distinct, bodies, outer)?;
                self.sort_output(relation, columns, &query.order_by, keep)?
            }
        };
        if limit.is_some() || offset > 0 {
            push_limit(&mut relation, keep);
            relation = Relation::Limit {
                input: Box::new(relation),
                count: limit,
                offset,
            };
        }
        Ok((relation, columns))
    }

    fn row_count(
        &mut self,
        text: Option<&ast::Expression>,
        clause: &str,
    ) -> Result<Option<u64>, Error> {
        let Some(text) = text else { return Ok(None) };
        let draft = self.draft(text, &NameScope::default())?;
        let wrong = || {
            Error::invalid(format!(
                "{clause} expects a non-negative integer literal or parameter"
            ))
            .at(text.at)
        };
        if !self.can_coerce(&draft, &SqlType::Int64) {
            return Err(wrong());
        }
        match self.coerce(draft, &SqlType::Int64)?.as_literal() {
            Some(Value::Int(count)) => u64::try_from(*count).map(Some).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }

    fn set(
        &mut self,
        operator: SetOperator,
        distinct: bool,
        bodies: &[Body],
        outer: Option<&NameScope<'_>>,
    ) -> Result<(Relation, Vec<OutputColumn>), Error> {
        let name = match operator {
            SetOperator::Union => "UNION",
            SetOperator::Intersect => "INTERSECT",
            SetOperator::Except => "EXCEPT",
        };
        let name = format!("{name} {}", if distinct { "DISTINCT" } else { "ALL" });
        let mut parts = Vec::new();
        for body in bodies {
            parts.push(match body {
                Body::Select(select) => self.select(select, &[], None, outer)?,
                Body::Query(query) => self.query(query, outer)?,
                Body::Set {
                    operator,
                    distinct,
                    bodies,
                } => self.set(*operator, *distinct, bodies, outer)?,
            });
        }
        let mut columns = parts[0].1.clone();
        for (_, other) in &parts {
            if other.len() != columns.len() {
                return Err(Error::invalid(format!(
                    "Queries in {name} have mismatched column count: {} and {}",
                    columns.len(),
                    other.len()
                )));
            }
            for (column, other) in columns.iter_mut().zip(other) {
                column.kind = column.kind.supertype(&other.kind).ok_or_else(|| {
                    Error::invalid(format!(
                        "Column {} in {name} has incompatible types: {}, {}",
                        column.name, column.kind, other.kind
                    ))
                })?;
            }
        }
        let compares = distinct || operator != SetOperator::Union;
        if compares && let Some(column) = columns.iter().find(|it| !it.kind.is_comparable()) {
            return Err(Error::invalid(format!(
                "Column {} of type {} cannot be used in {name}",
                column.name, column.kind
            )));
        }
        let mut relations = parts
            .into_iter()
            .map(|(relation, own)| cast_columns(relation, &own, &columns));
        let operation = match operator {
            SetOperator::Union => {
                let all = Relation::UnionAll(relations.collect());
                return Ok(match distinct {
                    true => (
                        Relation::Distinct {
                            input: Box::new(all),
                        },
                        columns,
                    ),
                    false => (all, columns),
                });
            }
            SetOperator::Intersect => SetOperation::Intersect,
            SetOperator::Except => SetOperation::Except,
        };
        let first = relations.next().unwrap_or(Relation::Rows(Vec::new()));
        let relation = relations.fold(first, |left, right| Relation::Set {
            operation,
            distinct,
            left: Box::new(left),
            right: Box::new(right),
        });
        Ok((relation, columns))
    }

    /// ORDER BY over nothing but the output's columns.
    fn sort_output(
        &mut self,
        relation: Relation,
        columns: Vec<OutputColumn>,
        order_by: &[OrderItem],
        keep: Option<u64>,
    ) -> Result<(Relation, Vec<OutputColumn>), Error> {
        if order_by.is_empty() {
            return Ok((relation, columns));
        }
        let scope = NameScope {
            columns: scope_of(&columns, None),
            outer: None,
        };
        let width = columns.len();
        let mut expressions: Vec<Expression> = columns
            .iter()
            .enumerate()
            .map(|(position, column)| Expression::column(position, column.kind.clone()))
            .collect();
        let mut keys = Vec::new();
        for item in order_by {
            let column = match ordinal(item, width)? {
                Some(column) => column,
                None => {
                    expressions.push(self.expression(&item.expression, &scope)?);
                    expressions.len() - 1
                }
            };
            keys.push(sort_key(item, column, &expressions[column].kind)?);
        }
        let sorted = sort_and_trim(relation, expressions, keys, width, keep);
        Ok((sorted, columns))
    }

    // ---- SELECT ----

    fn select(
        &mut self,
        select: &ast::Select,
        order_by: &[OrderItem],
        keep: Option<u64>,
        outer: Option<&NameScope<'_>>,
    ) -> Result<(Relation, Vec<OutputColumn>), Error> {
        self.selects += 1;
        if self.selects > SELECTS_MAX {
            return Err(Error::invalid(format!(
                "the statement comes to more than {SELECTS_MAX} selects"
            ))
            .at(select.at));
        }
        if self.for_update && select.from.is_none() {
            return Err(
                Error::invalid("FOR UPDATE takes a query with a FROM clause").at(select.at),
            );
        }
        let Source { relation, scope } = self.source(select.from.as_ref(), outer)?;
        let outer_applied = self.applied.replace(Vec::new());
        let result = self.select_from(select, order_by, keep, relation, &scope);
        self.applied = outer_applied;
        result
    }

    fn select_from(
        &mut self,
        select: &ast::Select,
        order_by: &[OrderItem],
        keep: Option<u64>,
        relation: Relation,
        scope: &NameScope<'_>,
    ) -> Result<(Relation, Vec<OutputColumn>), Error> {
        let filter = match &select.filter {
            Some(filter) => {
                if select.from.is_none() {
                    return Err(Error::invalid(
                        "Query without FROM clause cannot have a WHERE clause",
                    )
                    .at(filter.at));
                }
                Some(self.condition(filter, scope, "WHERE clause")?)
            }
            None => None,
        };
        let of_filter = self.applied.as_ref().map_or(0, Vec::len);
        let outer_aggregates = self.aggregates.replace(Vec::new());
        let result = self.select_over(select, order_by, scope);
        let aggregates =
            std::mem::replace(&mut self.aggregates, outer_aggregates).unwrap_or_default();
        let mut body = result?;
        let mut subqueries = self.applied.replace(Vec::new()).unwrap_or_default();
        let of_items = subqueries.split_off(of_filter);
        let mut input = applied(relation, filter, subqueries, scope.columns.len());
        if !of_items.is_empty() {
            input = Relation::Apply {
                input: Box::new(input),
                applied: of_items,
            };
        }
        let is_aggregated = !aggregates.is_empty() || !select.group_by.is_empty();
        if is_aggregated {
            let having = body.having.take();
            let keys = body.keys.clone();
            for expression in body.expressions_mut() {
                *expression = lift(expression, &keys, scope)?;
            }
            input = Relation::Aggregate {
                input: Box::new(input),
                keys: body.keys,
                aggregates,
            };
            if let Some((having, keys)) = having {
                let predicate = lift(&having, &keys, scope)?;
                input = Relation::Filter {
                    input: Box::new(input),
                    predicate,
                };
            }
        } else if let Some((having, _)) = &body.having {
            return Err(Error::invalid(
                "The HAVING clause requires GROUP BY or aggregation to be present",
            )
            .at(having.at));
        }
        let width = body.items.columns.len();
        let mut expressions = body.items.expressions;
        let mut keys = Vec::new();
        for (item, target) in order_by.iter().zip(body.order) {
            let column = match target {
                OrderTarget::Item(column) => column,
                OrderTarget::Expression(expression) => {
                    if select.distinct {
                        return Err(Error::invalid(
                            "ORDER BY of a SELECT DISTINCT must name its columns",
                        )
                        .at(item.expression.at));
                    }
                    match expressions
                        .iter()
                        .position(|known| same(known, &expression))
                    {
                        Some(column) => column,
                        None => {
                            expressions.push(expression);
                            expressions.len() - 1
                        }
                    }
                }
            };
            keys.push(sort_key(item, column, &expressions[column].kind)?);
        }
        if select.distinct {
            input = distinct(input, expressions, &body.items.columns)?;
            expressions = columns_of(&body.items.columns);
        }
        let mut relation = match is_aggregated
            || select.distinct
            || !order_from_scan(&mut input, &expressions, &keys)
        {
            true => sort_and_trim(input, expressions, keys, width, keep),
            false => {
                expressions.truncate(width);
                Relation::Project {
                    input: Box::new(input),
                    expressions,
                }
            }
        };
        prune(&mut relation);
        Ok((relation, body.items.columns))
    }

    fn select_over(
        &mut self,
        select: &ast::Select,
        order_by: &[OrderItem],
        scope: &NameScope<'_>,
    ) -> Result<SelectBody, Error> {
        let items = self.items(&select.items, scope)?;
        let aggregates = self.aggregates.take();
        let keys = self.group_keys(select, &items, scope);
        self.aggregates = aggregates;
        let keys = keys?;
        let having = match &select.having {
            Some(having) => Some((
                self.condition(having, scope, "HAVING clause")?,
                keys.clone(),
            )),
            None => None,
        };
        let mut order = Vec::new();
        for item in order_by {
            let by_alias = match &item.expression.node {
                ast::Node::Name(name) => items
                    .columns
                    .iter()
                    .position(|column| column.name.eq_ignore_ascii_case(name)),
                _ => ordinal(item, items.columns.len())?,
            };
            order.push(match by_alias {
                Some(column) => OrderTarget::Item(column),
                None => OrderTarget::Expression(self.expression(&item.expression, scope)?),
            });
        }
        Ok(SelectBody {
            items,
            keys,
            having,
            order,
        })
    }

    fn items(&mut self, items: &[SelectItem], scope: &NameScope<'_>) -> Result<Items, Error> {
        let mut made = Items {
            columns: Vec::new(),
            expressions: Vec::new(),
        };
        for item in items {
            match item {
                SelectItem::Star { of, except, at } => {
                    expand_star(of.as_ref(), except, scope, &mut made)
                        .map_err(|error| error.at(*at))?;
                }
                SelectItem::Expression { expression, alias } => {
                    let name = match alias {
                        Some(alias) => alias.text.clone(),
                        None => implied_name(expression),
                    };
                    let expression = self.expression(expression, scope)?;
                    made.columns.push(OutputColumn {
                        name,
                        kind: expression.kind.clone(),
                    });
                    made.expressions.push(expression);
                }
            }
        }
        Ok(made)
    }

    fn group_keys(
        &mut self,
        select: &ast::Select,
        items: &Items,
        scope: &NameScope<'_>,
    ) -> Result<Vec<Expression>, Error> {
        let mut keys = Vec::new();
        for text in &select.group_by {
            let by_item = match &text.node {
                ast::Node::Integer(digits) => {
                    let index = digits.parse::<usize>().ok();
                    let index = index.and_then(|index| index.checked_sub(1));
                    Some(
                        index
                            .filter(|index| *index < items.columns.len())
                            .ok_or_else(|| {
                                Error::invalid(format!(
                                    "GROUP BY column number {digits} is out of range"
                                ))
                                .at(text.at)
                            })?,
                    )
                }
                ast::Node::Name(name) => {
                    let named = ast::Name {
                        text: name.clone(),
                        at: text.at,
                    };
                    match scope.find(None, &named) {
                        Ok(Some(_)) => None,
                        _ => items
                            .columns
                            .iter()
                            .position(|column| column.name.eq_ignore_ascii_case(name)),
                    }
                }
                _ => None,
            };
            let key = match by_item {
                Some(index) => items.expressions[index].clone(),
                None => self.expression(text, scope)?,
            };
            if has_aggregate(&key) {
                return Err(
                    Error::invalid("Aggregate functions are not allowed in GROUP BY").at(text.at),
                );
            }
            if !key.kind.is_comparable() {
                return Err(Error::invalid(format!(
                    "Grouping by expressions of type {} is not allowed",
                    key.kind
                ))
                .at(text.at));
            }
            keys.push(key);
        }
        Ok(keys)
    }
}

/// SELECT DISTINCT: the items are made first, then told apart.
fn distinct(
    input: Relation,
    expressions: Vec<Expression>,
    columns: &[OutputColumn],
) -> Result<Relation, Error> {
    if let Some(column) = columns.iter().find(|column| !column.kind.is_comparable()) {
        return Err(Error::invalid(format!(
            "Column {} of type {} cannot be used in SELECT DISTINCT",
            column.name, column.kind
        )));
    }
    Ok(Relation::Distinct {
        input: Box::new(Relation::Project {
            input: Box::new(input),
            expressions,
        }),
    })
}

/// Each column as itself.
fn columns_of(columns: &[OutputColumn]) -> Vec<Expression> {
    let columns = columns.iter().enumerate();
    columns
        .map(|(position, column)| Expression::column(position, column.kind.clone()))
        .collect()
}

struct SelectBody {
    items: Items,
    keys: Vec<Expression>,
    having: Option<(Expression, Vec<Expression>)>,
    order: Vec<OrderTarget>,
}

impl SelectBody {
    fn expressions_mut(&mut self) -> impl Iterator<Item = &mut Expression> {
        let ordered = self.order.iter_mut().filter_map(|target| match target {
            OrderTarget::Expression(expression) => Some(expression),
            OrderTarget::Item(_) => None,
        });
        self.items.expressions.iter_mut().chain(ordered)
    }
}

enum OrderTarget {
    /// An item of the select list.
    Item(usize),
    Expression(Expression),
}

fn expand_star(
    of: Option<&ast::Name>,
    except: &[ast::Name],
    scope: &NameScope<'_>,
    made: &mut Items,
) -> Result<(), Error> {
    if scope.columns.is_empty() {
        return Err(Error::invalid("SELECT * must have a FROM clause"));
    }
    if let Some(of) = of
        && !scope.has_qualifier(&of.text)
    {
        return Err(Error::invalid(format!("Unrecognized name: {}", of.text)));
    }
    for name in except {
        if scope.find(None, name)?.is_none() {
            return Err(Error::invalid(format!(
                "Column {} in SELECT * EXCEPT list does not exist",
                name.text
            )));
        }
    }
    for (position, column) in scope.columns.iter().enumerate() {
        let is_of = of.is_none_or(|of| {
            column
                .qualifier
                .as_ref()
                .is_some_and(|own| own.eq_ignore_ascii_case(&of.text))
        });
        let is_excepted = except
            .iter()
            .any(|name| name.text.eq_ignore_ascii_case(&column.name));
        let is_shown = of.is_some() || !column.is_hidden;
        if is_of && is_shown && !is_excepted {
            made.columns.push(OutputColumn {
                name: column.name.clone(),
                kind: column.kind.clone(),
            });
            made.expressions
                .push(Expression::column(position, column.kind.clone()));
        }
    }
    Ok(())
}

/// A column without an alias is named after what it reads, or not at all.
fn implied_name(expression: &ast::Expression) -> String {
    match &expression.node {
        ast::Node::Name(name) => name.clone(),
        ast::Node::Field(_, field) => field.text.clone(),
        _ => String::new(),
    }
}

pub(super) fn scope_of(columns: &[OutputColumn], qualifier: Option<String>) -> Vec<ScopeColumn> {
    columns
        .iter()
        .map(|column| ScopeColumn {
            qualifier: qualifier.clone(),
            name: column.name.clone(),
            kind: column.kind.clone(),
            is_hidden: false,
        })
        .collect()
}

fn ordinal(item: &OrderItem, width: usize) -> Result<Option<usize>, Error> {
    let ast::Node::Integer(digits) = &item.expression.node else {
        return Ok(None);
    };
    let index = digits.parse::<usize>().ok();
    match index.and_then(|index| index.checked_sub(1)) {
        Some(index) if index < width => Ok(Some(index)),
        _ => Err(
            Error::invalid(format!("ORDER BY column number {digits} is out of range"))
                .at(item.expression.at),
        ),
    }
}

fn sort_key(item: &OrderItem, column: usize, kind: &SqlType) -> Result<SortKey, Error> {
    if !kind.is_orderable() {
        return Err(Error::invalid(format!(
            "ORDER BY does not support expressions of type {kind}"
        ))
        .at(item.expression.at));
    }
    Ok(SortKey {
        column,
        descending: item.descending,
        nulls_first: item.nulls_first.unwrap_or(!item.descending),
    })
}
