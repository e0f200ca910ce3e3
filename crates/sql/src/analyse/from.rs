//! FROM: tables, subqueries, arrays and joins of them to rows with names.

use super::query::scope_of;
use super::scope::{NameScope, ScopeColumn};
use super::shape::whole_scan;
use super::{Analyser, Environment};
use crate::ast::{self, From, JoinCondition, JoinKind};
use crate::error::Error;
use crate::information_schema;
use crate::plan::{Join, Relation};
use crate::push_down::{filtered, joined};
use crate::typed::{Comparison, Expression, Node};
use crate::types::SqlType;

/// What FROM comes to: rows, and their names.
pub(super) struct Source<'o> {
    pub relation: Relation,
    pub scope: NameScope<'o>,
}

type Named = (Relation, Vec<ScopeColumn>);

impl<'a> Analyser<'a> {
    pub(super) fn source<'o>(
        &mut self,
        from: Option<&From>,
        outer: Option<&'o NameScope<'o>>,
    ) -> Result<Source<'o>, Error> {
        let (relation, columns) = match from {
            None => (Relation::Rows(vec![Vec::new()]), Vec::new()),
            Some(from) => self.from(from, outer)?,
        };
        Ok(Source {
            relation,
            scope: NameScope { columns, outer },
        })
    }

    fn from(&mut self, from: &From, outer: Option<&NameScope<'_>>) -> Result<Named, Error> {
        match from {
            From::Table { path, hints, alias } => {
                check_hints(hints, path)?;
                self.table_source(path, alias.as_ref())
            }
            From::Query { query, alias } => {
                let (relation, columns) = self.query(query, outer)?;
                let qualifier = alias.as_ref().map(|alias| alias.text.clone());
                Ok((relation, scope_of(&columns, qualifier)))
            }
            From::Unnest {
                array,
                alias,
                offset,
            } => {
                let none = NameScope {
                    columns: Vec::new(),
                    outer,
                };
                let (array, columns) =
                    self.array_source(array, alias.as_ref(), offset.as_ref(), &none)?;
                let relation = Relation::Unnest {
                    array,
                    with_offset: offset.is_some(),
                };
                Ok((relation, columns))
            }
            From::Join {
                left,
                right,
                kind,
                condition,
            } => {
                let left = self.from(left, outer)?;
                if let Some((array, alias, offset)) = array_beside(right, &left.1) {
                    return self.flatten(left, (&array, alias, offset), *kind, condition, outer);
                }
                let right = self.from(right, outer)?;
                match condition {
                    JoinCondition::Using(names) => self.join_using(left, right, *kind, names),
                    JoinCondition::On(condition) => {
                        let scope = NameScope {
                            columns: left.1.iter().chain(&right.1).cloned().collect(),
                            outer,
                        };
                        let condition = self.condition(condition, &scope, "JOIN ON clause")?;
                        Ok(join(left, right, *kind, Some(condition)))
                    }
                    JoinCondition::None => Ok(join(left, right, *kind, None)),
                }
            }
        }
    }

    /// An array's elements, as the scope says it is written.
    fn array_source(
        &mut self,
        array: &ast::Expression,
        alias: Option<&ast::Name>,
        offset: Option<&ast::Name>,
        scope: &NameScope<'_>,
    ) -> Result<(Expression, Vec<ScopeColumn>), Error> {
        let array = self.expression(array, scope)?;
        let SqlType::Array(element) = array.kind.clone() else {
            return Err(Error::invalid(format!(
                "Values referenced in UNNEST must be arrays. UNNEST contains expression of type {}",
                array.kind
            ))
            .at(array.at));
        };
        if let SqlType::Struct(_) = *element {
            return Err(Error::unimplemented("UNNEST of an array of structs").at(array.at));
        }
        let column = |name: Option<&ast::Name>, kind: SqlType| ScopeColumn {
            qualifier: None,
            name: name.map_or(String::new(), |name| name.text.clone()),
            kind,
            is_hidden: false,
        };
        let mut columns = vec![column(alias, *element)];
        if let Some(offset) = offset {
            columns.push(column(Some(offset), SqlType::Int64));
        }
        Ok((array, columns))
    }

    /// A join with an array, which may be one of the row's own.
    fn flatten(
        &mut self,
        (left, left_columns): Named,
        (array, alias, offset): (&ast::Expression, Option<&ast::Name>, Option<&ast::Name>),
        kind: JoinKind,
        condition: &JoinCondition,
        outer: Option<&NameScope<'_>>,
    ) -> Result<Named, Error> {
        if matches!(kind, JoinKind::Right | JoinKind::Full) {
            return Err(Error::unimplemented("RIGHT and FULL JOIN with UNNEST").at(array.at));
        }
        let mut scope = NameScope {
            columns: left_columns,
            outer,
        };
        let at = array.at;
        let (array, elements) = self.array_source(array, alias, offset, &scope)?;
        scope.columns.extend(elements);
        let keeps_all = kind == JoinKind::Left;
        let relation = Relation::Flatten {
            input: Box::new(left),
            array,
            with_offset: offset.is_some(),
            keeps_all,
        };
        let condition = match condition {
            JoinCondition::None => return Ok((relation, scope.columns)),
            JoinCondition::On(condition) if !keeps_all => condition,
            JoinCondition::On(_) => {
                return Err(Error::unimplemented("LEFT JOIN with UNNEST ON a condition").at(at));
            }
            JoinCondition::Using(_) => {
                return Err(Error::unimplemented("JOIN with UNNEST USING columns").at(at));
            }
        };
        let condition = self.condition(condition, &scope, "JOIN ON clause")?;
        Ok((filtered(relation, Some(condition)), scope.columns))
    }

    /// USING: each named column is there once, before all others; by their tables' names both are still found.
    fn join_using(
        &mut self,
        mut left: Named,
        mut right: Named,
        kind: JoinKind,
        names: &[ast::Name],
    ) -> Result<Named, Error> {
        let left_width = left.1.len();
        let mut equal = Vec::new();
        let mut merged = Vec::new();
        for name in names {
            let side = |columns: &mut Vec<ScopeColumn>| {
                let scope = NameScope {
                    columns: std::mem::take(columns),
                    outer: None,
                };
                let found = scope.find(None, name);
                *columns = scope.columns;
                let position = found?.ok_or_else(|| {
                    Error::invalid(format!(
                        "Column {} in USING clause not found on both sides of the JOIN",
                        name.text
                    ))
                    .at(name.at)
                })?;
                columns[position].is_hidden = true;
                Ok::<_, Error>((position, columns[position].kind.clone()))
            };
            let (left_at, left_kind) = side(&mut left.1)?;
            let (right_at, right_kind) = side(&mut right.1)?;
            let common = left_kind
                .supertype(&right_kind)
                .filter(SqlType::is_comparable);
            let common = common.ok_or_else(|| {
                Error::invalid(format!(
                    "Column {} in USING has incompatible types on either side of the join: {left_kind} and \
                     {right_kind}",
                    name.text
                ))
                .at(name.at)
            })?;
            let own = Expression::column(left_at, left_kind).cast(&common);
            let other = Expression::column(left_width + right_at, right_kind).cast(&common);
            let value = match kind {
                JoinKind::Inner | JoinKind::Left => own.clone(),
                JoinKind::Right => other.clone(),
                JoinKind::Full => Expression {
                    kind: common.clone(),
                    node: Node::Coalesce(vec![own.clone(), other.clone()]),
                    at: name.at,
                },
            };
            merged.push((name.text.clone(), value));
            equal.push(Expression {
                kind: SqlType::Bool,
                node: Node::Compare(Comparison::Equal, Box::new(own), Box::new(other)),
                at: name.at,
            });
        }
        let condition = Expression {
            kind: SqlType::Bool,
            node: Node::And(equal),
            at: 0,
        };
        let (relation, columns) = join(left, right, kind, Some(condition));
        let first = merged.iter().map(|(name, value)| ScopeColumn {
            qualifier: None,
            name: name.clone(),
            kind: value.kind.clone(),
            is_hidden: false,
        });
        let all: Vec<ScopeColumn> = first.chain(columns.iter().cloned()).collect();
        let own = columns.iter().enumerate();
        let own = own.map(|(position, column)| Expression::column(position, column.kind.clone()));
        let expressions = merged.into_iter().map(|(_, value)| value).chain(own);
        let relation = Relation::Project {
            input: Box::new(relation),
            expressions: expressions.collect(),
        };
        Ok((relation, all))
    }

    fn table_source(
        &mut self,
        path: &ast::Path,
        alias: Option<&ast::Name>,
    ) -> Result<Named, Error> {
        let last = path.parts.last().map_or("", |name| name.text.as_str());
        let qualifier = Some(alias.map_or(last, |alias| alias.text.as_str()).to_owned());
        if let [name] = path.parts.as_slice() {
            let found = self
                .with
                .iter()
                .rposition(|(with, _)| with.eq_ignore_ascii_case(&name.text));
            if let Some(index) = found {
                let query = self.with[index].1.clone();
                // A WITH query sees those before it, and locks what it says itself.
                let hidden = self.with.split_off(index);
                let around = std::mem::replace(&mut self.for_update, false);
                let result = self.query(&query, None);
                self.for_update = around;
                self.with.extend(hidden);
                let (relation, columns) = result?;
                return Ok((relation, scope_of(&columns, qualifier)));
            }
        }
        if let [schema, name] = path.parts.as_slice() {
            if schema.text.eq_ignore_ascii_case("INFORMATION_SCHEMA") {
                let Environment {
                    catalog, namespace, ..
                } = self.environment;
                let table = information_schema::table(catalog, namespace, &name.text)
                    .map_err(|error| error.at(path.at()))?;
                return Ok((
                    Relation::Rows(table.rows),
                    scope_of(&table.columns, qualifier),
                ));
            }
            if schema.text.eq_ignore_ascii_case("SPANNER_SYS") {
                return Err(Error::unimplemented("SPANNER_SYS").at(path.at()));
            }
            return Err(
                Error::invalid(format!("Table not found: {}", path.dotted())).at(path.at()),
            );
        }
        let table = self.table(path)?;
        let (mut scan, columns) = whole_scan(&table);
        scan.for_update = self.locks_scan();
        let columns = columns.into_iter().map(|column| ScopeColumn {
            qualifier: qualifier.clone(),
            ..column
        });
        Ok((Relation::Scan(scan), columns.collect()))
    }
}

type ArrayBeside<'f> = (
    ast::Expression,
    Option<&'f ast::Name>,
    Option<&'f ast::Name>,
);

/// The right side of a join, if it is an array: UNNEST, or a column of a table to the left.
fn array_beside<'f>(from: &'f From, left: &[ScopeColumn]) -> Option<ArrayBeside<'f>> {
    match from {
        From::Unnest {
            array,
            alias,
            offset,
        } => Some((array.clone(), alias.as_ref(), offset.as_ref())),
        From::Table { path, alias, .. } => {
            let [first, rest @ ..] = path.parts.as_slice() else {
                return None;
            };
            let is_column = !rest.is_empty()
                && left.iter().any(|column| {
                    let qualifier = column.qualifier.as_ref();
                    qualifier.is_some_and(|own| own.eq_ignore_ascii_case(&first.text))
                });
            let name = ast::Expression {
                node: ast::Node::Name(first.text.clone()),
                at: first.at,
                depth: 1,
            };
            let path = rest.iter().fold(name, |of, field| ast::Expression {
                depth: of.depth + 1,
                at: of.at,
                node: ast::Node::Field(Box::new(of), field.clone()),
            });
            let last = rest.last();
            is_column.then(|| (path, alias.as_ref().or(last), None))
        }
        _ => None,
    }
}

fn join(
    (left, left_columns): Named,
    (right, right_columns): Named,
    kind: JoinKind,
    condition: Option<Expression>,
) -> Named {
    let made = Join {
        kind,
        left,
        right,
        left_width: left_columns.len(),
        right_width: right_columns.len(),
        keys: Vec::new(),
        condition: None,
    };
    let columns = left_columns.into_iter().chain(right_columns).collect();
    (joined(made, condition), columns)
}

fn check_hints(hints: &[ast::Hint], path: &ast::Path) -> Result<(), Error> {
    for hint in hints {
        let is_index = hint.name.eq_ignore_ascii_case("FORCE_INDEX");
        if is_index && !hint.value.eq_ignore_ascii_case("_BASE_TABLE") {
            return Err(Error::invalid(format!(
                "The table {} does not have a secondary index called {}",
                path.dotted(),
                hint.value
            ))
            .at(path.at()));
        }
    }
    Ok(())
}
