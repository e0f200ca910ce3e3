//! INSERT, UPDATE, DELETE.

use super::Parser;
use crate::ast::{Delete, Expression, Insert, InsertSource, OnConflict, Path, ThenReturn, Update};
use crate::error::Error;

impl Parser {
    pub(super) fn insert(&mut self) -> Result<Insert, Error> {
        self.expect("INSERT")?;
        let conflict = if self.accept("OR") {
            if self.accept("IGNORE") {
                OnConflict::Ignore
            } else {
                self.expect("UPDATE")?;
                OnConflict::Update
            }
        } else if self.accept("IGNORE") {
            OnConflict::Ignore
        } else {
            OnConflict::Refuse
        };
        self.accept("INTO");
        let table = self.target()?;
        self.expect_symbol("(")?;
        let columns = self.list(Parser::name)?;
        self.expect_symbol(")")?;
        let source = if self.accept("VALUES") {
            InsertSource::Values(self.list(Parser::values_row)?)
        } else if self.is_query_here() || self.is_symbol("(") {
            InsertSource::Query(Box::new(self.query()?))
        } else {
            return Err(self.unexpected("keyword VALUES or a query"));
        };
        if self.is_keyword("ON") {
            return Err(self.unimplemented("ON CONFLICT"));
        }
        self.refuse_assert_rows()?;
        Ok(Insert {
            table,
            conflict,
            columns,
            source,
            returning: self.then_return()?,
        })
    }

    fn values_row(&mut self) -> Result<Vec<Expression>, Error> {
        self.expect_symbol("(")?;
        let values = self.list(Parser::expression)?;
        self.expect_symbol(")")?;
        Ok(values)
    }

    pub(super) fn update(&mut self) -> Result<Update, Error> {
        self.expect("UPDATE")?;
        let table = self.target()?;
        let alias = self.alias()?;
        self.expect("SET")?;
        let assignments = self.list(|parser| {
            if parser.is_symbol("(") {
                return Err(parser.unimplemented("nested updates"));
            }
            let column = parser.path()?;
            parser.expect_symbol("=")?;
            Ok((column, parser.expression()?))
        })?;
        if self.is_keyword("FROM") {
            return Err(self.unimplemented("UPDATE … FROM"));
        }
        let filter = self.required_where("UPDATE")?;
        self.refuse_assert_rows()?;
        Ok(Update {
            table,
            alias,
            assignments,
            filter,
            returning: self.then_return()?,
        })
    }

    pub(super) fn delete(&mut self) -> Result<Delete, Error> {
        self.expect("DELETE")?;
        self.accept("FROM");
        let table = self.target()?;
        let alias = self.alias()?;
        let filter = self.required_where("DELETE")?;
        self.refuse_assert_rows()?;
        Ok(Delete {
            table,
            alias,
            filter,
            returning: self.then_return()?,
        })
    }

    fn target(&mut self) -> Result<Path, Error> {
        let table = self.path()?;
        if self.is_symbol("@{") {
            self.hints()?;
        }
        Ok(table)
    }

    fn required_where(&mut self, statement: &str) -> Result<Expression, Error> {
        if !self.is_keyword("WHERE") {
            return Err(
                Error::syntax(format!("{statement} must have a WHERE clause")).at(self.here()),
            );
        }
        self.advance();
        self.expression()
    }

    fn refuse_assert_rows(&self) -> Result<(), Error> {
        if self.is_keyword("ASSERT_ROWS_MODIFIED") {
            return Err(self.unimplemented("ASSERT_ROWS_MODIFIED"));
        }
        Ok(())
    }

    fn then_return(&mut self) -> Result<Option<ThenReturn>, Error> {
        if !self.accept("THEN") {
            return Ok(None);
        }
        self.expect("RETURN")?;
        let mut action = None;
        if self.accept_all(&["WITH", "ACTION"]) {
            let at = self.here();
            action = match self.accept("AS") {
                true => Some(self.name()?),
                false => Some(crate::ast::Name {
                    text: "ACTION".to_owned(),
                    at,
                }),
            };
        }
        let items = self.select_items()?;
        Ok(Some(ThenReturn { action, items }))
    }
}
