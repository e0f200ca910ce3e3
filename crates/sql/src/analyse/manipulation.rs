//! INSERT, UPDATE, DELETE.

use super::scope::{NameScope, ScopeColumn};
use super::{Analyser, Environment, ScanLocks, find_column};
use crate::ast::{self, InsertSource as Source, Name, Node, SelectItem, Statement, ThenReturn};
use crate::error::Error;
use crate::plan::{
    Action, CellExpression, InsertSource, Manipulation, OutputColumn, Relation, Returning, Scan,
};
use crate::push_down::{filtered, whole_range};
use crate::rows::is_key;
use crate::typed::Expression;
use crate::types::SqlType;
use api::{Direction, Selection};
use catalog::Table;
use model::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) fn analyse_manipulation(
    environment: Environment<'_>,
    text: Arc<str>,
    statement: &Statement,
    locks: Option<ScanLocks>,
) -> Result<Manipulation, Error> {
    let mut analyser = Analyser::new(environment, locks);
    let (table, action, returning) = match statement {
        Statement::Insert(insert) => analyser.insert(insert)?,
        Statement::Update(update) => analyser.update(update)?,
        Statement::Delete(delete) => analyser.delete(delete)?,
        _ => return Err(Error::invalid("not a data manipulation statement")),
    };
    Ok(Manipulation {
        text,
        table,
        action,
        returning,
        subqueries: analyser.subqueries,
    })
}

type Parts = (Arc<Table>, Action, Option<Returning>);

impl<'a> Analyser<'a> {
    fn insert(&mut self, insert: &ast::Insert) -> Result<Parts, Error> {
        let table = self.target(&insert.table)?;
        let mut columns = Vec::new();
        for name in &insert.columns {
            let index = column(&table, name)?;
            if columns.contains(&index) {
                return Err(Error::invalid(format!(
                    "INSERT has columns with duplicate name: {}",
                    name.text
                ))
                .at(name.at));
            }
            columns.push(index);
        }
        for key in table.key_columns().filter(|key| key.not_null) {
            let given = columns
                .iter()
                .any(|index| table.columns()[*index].id == key.id);
            if !given {
                return Err(Error::invalid(format!(
                    "INSERT must specify a value for primary key column {} of table {}",
                    key.name,
                    table.name()
                )));
            }
        }
        let source = match &insert.source {
            Source::Values(rows) => {
                let mut values = Vec::new();
                for row in rows {
                    values.push(self.values_row(&table, &columns, row)?);
                }
                InsertSource::Values(values)
            }
            Source::Query(query) => {
                let (relation, output) = self.query(query, None)?;
                InsertSource::Query(fit(&table, &columns, relation, &output)?)
            }
        };
        let returning = self.returning(&table, None, insert.returning.as_ref())?;
        let conflict = insert.conflict;
        let action = Action::Insert {
            conflict,
            columns,
            source,
        };
        Ok((table, action, returning))
    }

    fn values_row(
        &mut self,
        table: &Table,
        columns: &[usize],
        row: &[ast::Expression],
    ) -> Result<Vec<CellExpression>, Error> {
        if row.len() != columns.len() {
            let at = row.first().map_or(0, |value| value.at);
            return Err(Error::invalid(format!(
                "Inserted row has wrong column count; Has {}, expected {}",
                row.len(),
                columns.len()
            ))
            .at(at));
        }
        let scope = NameScope::default();
        columns
            .iter()
            .zip(row)
            .map(|(index, value)| self.cell(table, *index, value, &scope))
            .collect()
    }

    /// One value for one column.
    fn cell(
        &mut self,
        table: &Table,
        index: usize,
        text: &ast::Expression,
        scope: &NameScope<'_>,
    ) -> Result<CellExpression, Error> {
        let column = &table.columns()[index];
        if let Node::Call(call) = &text.node
            && call.name == "PENDING_COMMIT_TIMESTAMP"
            && call.arguments.is_empty()
        {
            return Ok(CellExpression::CommitTimestamp);
        }
        let kind = column_kind(table, index)?;
        if text.node == Node::Default {
            // No column has a default but NULL yet.
            return Ok(CellExpression::Value(Expression::literal(
                Value::Null,
                kind,
            )));
        }
        let draft = self.draft(text, scope)?;
        if !self.can_coerce(&draft, &kind) {
            return Err(Error::invalid(format!(
                "Value has type {} which cannot be inserted into column {}, which has type {kind}",
                draft.kind(),
                column.name
            ))
            .at(text.at));
        }
        self.coerce(draft, &kind).map(CellExpression::Value)
    }

    fn update(&mut self, update: &ast::Update) -> Result<Parts, Error> {
        let table = self.target(&update.table)?;
        let scope = table_scope(&table, update.alias.as_ref());
        let mut assignments: Vec<(usize, CellExpression)> = Vec::new();
        for (path, value) in &update.assignments {
            let name = assigned_column(path, &table, update.alias.as_ref())?;
            let index = column(&table, name)?;
            let found = &table.columns()[index];
            if is_key(found) {
                return Err(Error::invalid(format!(
                    "Cannot UPDATE value on non-writable column: {}. Primary key columns cannot be updated",
                    found.name
                ))
                .at(name.at));
            }
            if assignments.iter().any(|(other, _)| *other == index) {
                return Err(Error::invalid(format!(
                    "Update item {} assigned more than once",
                    found.name
                ))
                .at(name.at));
            }
            assignments.push((index, self.cell(&table, index, value, &scope)?));
        }
        let predicate = self.condition(&update.filter, &scope, "WHERE clause")?;
        let returning = self.returning(&table, update.alias.as_ref(), update.returning.as_ref())?;
        let values = assignments.iter().filter_map(|(_, cell)| match cell {
            CellExpression::Value(expression) => Some(expression),
            CellExpression::CommitTimestamp => None,
        });
        let mut scan = all_columns(&table);
        scan.for_update = self.locks_scan();
        scan.looked_at = Some(looked_at(&predicate, values, returning.as_ref()));
        let rows = filtered(Relation::Scan(scan), Some(predicate));
        Ok((table, Action::Update { rows, assignments }, returning))
    }

    fn delete(&mut self, delete: &ast::Delete) -> Result<Parts, Error> {
        let table = self.target(&delete.table)?;
        let scope = table_scope(&table, delete.alias.as_ref());
        let predicate = self.condition(&delete.filter, &scope, "WHERE clause")?;
        let returning = self.returning(&table, delete.alias.as_ref(), delete.returning.as_ref())?;
        let mut scan = all_columns(&table);
        scan.for_update = self.locks_scan();
        scan.looked_at = Some(looked_at(&predicate, [], returning.as_ref()));
        let rows = filtered(Relation::Scan(scan), Some(predicate));
        Ok((table, Action::Delete { rows }, returning))
    }

    fn target(&mut self, path: &ast::Path) -> Result<Arc<Table>, Error> {
        if path.parts.len() == 2
            && path.parts[0]
                .text
                .eq_ignore_ascii_case("INFORMATION_SCHEMA")
        {
            return Err(
                Error::invalid(format!("{} cannot be written", path.dotted())).at(path.at()),
            );
        }
        self.table(path)
    }

    fn returning(
        &mut self,
        table: &Arc<Table>,
        alias: Option<&Name>,
        clause: Option<&ThenReturn>,
    ) -> Result<Option<Returning>, Error> {
        let Some(clause) = clause else {
            return Ok(None);
        };
        let scope = table_scope(table, alias);
        let visible = crate::rows::declared_columns(table);
        let mut returning = Returning {
            columns: Vec::new(),
            expressions: Vec::new(),
            with_action: clause.action.is_some(),
        };
        for item in &clause.items {
            match item {
                SelectItem::Star { except, .. } => {
                    for index in &visible {
                        let column = &scope.columns[*index];
                        let excepted = except
                            .iter()
                            .any(|name| name.text.eq_ignore_ascii_case(&column.name));
                        if !excepted && !column.name.is_empty() {
                            returning.columns.push(OutputColumn {
                                name: column.name.clone(),
                                kind: column.kind.clone(),
                            });
                            returning
                                .expressions
                                .push(Expression::column(*index, column.kind.clone()));
                        }
                    }
                }
                SelectItem::Expression { expression, alias } => {
                    let name = match (alias, &expression.node) {
                        (Some(alias), _) => alias.text.clone(),
                        (None, Node::Name(name)) => name.clone(),
                        (None, Node::Field(_, field)) => field.text.clone(),
                        _ => String::new(),
                    };
                    let expression = self.expression(expression, &scope)?;
                    returning.columns.push(OutputColumn {
                        name,
                        kind: expression.kind.clone(),
                    });
                    returning.expressions.push(expression);
                }
            }
        }
        if let Some(action) = &clause.action {
            returning.columns.push(OutputColumn {
                name: action.text.clone(),
                kind: SqlType::String,
            });
        }
        Ok(Some(returning))
    }
}

fn column(table: &Table, name: &Name) -> Result<usize, Error> {
    find_column(table, &name.text).ok_or_else(|| {
        Error::invalid(format!(
            "Column {} is not present in table {}",
            name.text,
            table.name()
        ))
        .at(name.at)
    })
}

/// `SET column` or `SET alias.column`.
fn assigned_column<'p>(
    path: &'p ast::Path,
    table: &Table,
    alias: Option<&Name>,
) -> Result<&'p Name, Error> {
    match path.parts.as_slice() {
        [name] => Ok(name),
        [qualifier, name] => {
            let own = alias.map_or(table.name(), |alias| alias.text.as_str());
            match qualifier.text.eq_ignore_ascii_case(own) {
                true => Ok(name),
                false => Err(
                    Error::invalid(format!("Unrecognized name: {}", qualifier.text))
                        .at(qualifier.at),
                ),
            }
        }
        _ => Err(Error::unimplemented("updates of fields").at(path.at())),
    }
}

fn column_kind(table: &Table, index: usize) -> Result<SqlType, Error> {
    let column = &table.columns()[index];
    SqlType::of_column(&column.kind).ok_or_else(|| {
        Error::unimplemented(format!(
            "column {} of type {:?} in SQL",
            column.name, column.kind
        ))
    })
}

/// All columns of a table in the catalog's order; those that SQL cannot see have no name.
fn table_scope(table: &Table, alias: Option<&Name>) -> NameScope<'static> {
    let qualifier = alias.map_or(table.name(), |alias| alias.text.as_str());
    let columns = table.columns().iter().map(|column| {
        let kind = SqlType::of_column(&column.kind);
        ScopeColumn {
            qualifier: Some(qualifier.to_owned()),
            name: match kind {
                Some(_) => column.name.clone(),
                None => String::new(),
            },
            kind: kind.unwrap_or(SqlType::String),
            is_hidden: false,
        }
    });
    NameScope {
        columns: columns.collect(),
        outer: None,
    }
}

/// The columns that a statement needs of the rows that it changes.
fn looked_at<'e>(
    predicate: &'e Expression,
    values: impl IntoIterator<Item = &'e Expression>,
    returning: Option<&'e Returning>,
) -> BTreeSet<usize> {
    let mut columns = BTreeSet::new();
    let returned = returning.into_iter().flat_map(|it| &it.expressions);
    for expression in values.into_iter().chain(returned).chain([predicate]) {
        expression.columns(&mut |position| {
            columns.insert(position);
        });
    }
    columns
}

fn all_columns(table: &Arc<Table>) -> Scan {
    Scan {
        table: table.clone(),
        columns: (0..table.columns().len()).collect(),
        looked_at: None,
        selection: Selection::Ranges(vec![whole_range(table)]),
        direction: Direction::Forward,
        row_limit: None,
        for_update: false,
    }
}

/// A query's rows as an INSERT's columns want them.
fn fit(
    table: &Table,
    columns: &[usize],
    relation: Relation,
    output: &[OutputColumn],
) -> Result<Relation, Error> {
    if output.len() != columns.len() {
        return Err(Error::invalid(format!(
            "Inserted row has wrong column count; Has {}, expected {}",
            output.len(),
            columns.len()
        )));
    }
    let mut expressions = Vec::new();
    for (position, (index, own)) in columns.iter().zip(output).enumerate() {
        let kind = column_kind(table, *index)?;
        if !own.kind.coerces_to(&kind) {
            return Err(Error::invalid(format!(
                "Query column {} has type {} which cannot be inserted into column {}, which has type {kind}",
                position + 1,
                own.kind,
                table.columns()[*index].name
            )));
        }
        expressions.push(Expression::column(position, own.kind.clone()).cast(&kind));
    }
    Ok(Relation::Project {
        input: Box::new(relation),
        expressions,
    })
}
