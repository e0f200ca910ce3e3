//! Subqueries in expressions. One that is about no row around it runs once, before the statement, and its result has
//! a slot. One that is about the row (correlated) runs for each: the columns that it reads of the row are put into
//! slots for it, and its result is a column behind the row's own.

use super::coercion::Draft;
use super::scope::NameScope;
use super::{Analyser, Frame};
use crate::ast::{self, Name};
use crate::error::Error;
use crate::plan::{Applied, Subquery, SubqueryForm};
use crate::typed::{Expression, Node};
use crate::types::SqlType;

impl Analyser<'_> {
    /// A column of a row around the subquery under analysis: a slot that is filled row by row.
    pub(super) fn outer_column(
        &mut self,
        qualifier: Option<&str>,
        name: &Name,
        scope: &NameScope<'_>,
    ) -> Result<Option<Draft>, Error> {
        let Some((level, position, kind)) = scope.find_outer(qualifier, name)? else {
            return Ok(None);
        };
        let Some(target) = self.frames.len().checked_sub(level) else {
            return Err(Error::unimplemented("a correlated subquery here").at(name.at));
        };
        let known = self.frames[target].parameters.iter();
        let known = known.clone().find(|(_, column)| *column == position);
        let slot = match known.map(|(slot, _)| *slot) {
            Some(slot) => slot,
            None => {
                let slot = self.new_slot();
                self.frames[target].parameters.push((slot, position));
                slot
            }
        };
        for frame in &mut self.frames[target..] {
            frame.is_correlated = true;
        }
        Ok(Some(Draft::firm(Expression {
            kind,
            node: Node::Slot(slot),
            at: name.at,
        })))
    }

    /// Analyses a subquery into where its result will be: a slot, or a column behind the row's own when it is
    /// about that row.
    pub(super) fn subquery(
        &mut self,
        query: &ast::Query,
        form: SubqueryForm,
        scope: &NameScope<'_>,
    ) -> Result<(Node, SqlType), Error> {
        let outer_aggregates = self.aggregates.take();
        let outer_applied = self.applied.take();
        // FOR UPDATE around an expression's subquery is not about it.
        let around = std::mem::replace(&mut self.for_update, false);
        self.frames.push(Frame::default());
        let result = self.query(query, Some(scope));
        self.for_update = around;
        let frame = self.frames.pop().unwrap_or_default();
        self.applied = outer_applied;
        self.aggregates = outer_aggregates;
        let (root, columns) = result?;
        let kind = match (form, columns.as_slice()) {
            (SubqueryForm::Exists, _) => SqlType::Bool,
            (_, [column]) => column.kind.clone(),
            _ => {
                return Err(Error::invalid(
                    "A scalar, IN or ARRAY subquery cannot have more than one column",
                )
                .at(query.at));
            }
        };
        if !frame.is_correlated {
            let slot = self.new_slot();
            self.subqueries.push(Subquery { slot, form, root });
            return Ok((Node::Slot(slot), kind));
        }
        let Some(applied) = &mut self.applied else {
            return Err(Error::unimplemented("a correlated subquery here").at(query.at));
        };
        applied.push(Applied {
            parameters: frame.parameters,
            form,
            root,
        });
        let column = scope.columns.len() + applied.len() - 1;
        Ok((Node::Column(column), kind))
    }
}
