//! Queries.

use super::Parser;
use crate::ast::{
    Body, From, Hint, JoinCondition, JoinKind, OrderItem, Query, Select, SelectItem, SetOperator,
};
use crate::error::Error;
use crate::lexer::TokenKind;

/// Spanner has 20 a query.
const JOINS_MAX: usize = 50;

fn join(left: From, right: From, kind: JoinKind, condition: JoinCondition) -> From {
    From::Join {
        left: Box::new(left),
        right: Box::new(right),
        kind,
        condition,
    }
}

/// `t.column`: an array of the row beside it, perhaps.
fn is_path(from: &From) -> bool {
    matches!(from, From::Table { path, .. } if path.parts.len() > 1)
}

impl Parser {
    pub(super) fn query(&mut self) -> Result<Query, Error> {
        let at = self.here();
        let mut with = Vec::new();
        if self.accept("WITH") {
            if self.is_keyword("RECURSIVE") {
                return Err(self.unimplemented("WITH RECURSIVE"));
            }
            with = self.list(|parser| {
                let name = parser.name()?;
                parser.expect("AS")?;
                parser.expect_symbol("(")?;
                let query = parser.nested(Parser::query)?;
                parser.expect_symbol(")")?;
                Ok((name, query))
            })?;
        }
        let body = self.query_body()?;
        let order_by = match self.accept("ORDER") {
            true => {
                self.expect("BY")?;
                self.list(Parser::order_item)?
            }
            false => Vec::new(),
        };
        let (mut limit, mut offset) = (None, None);
        if self.accept("LIMIT") {
            limit = Some(self.expression()?);
            if self.accept("OFFSET") {
                offset = Some(self.expression()?);
            }
        }
        let mut for_update = false;
        match self.keyword_here().as_deref() {
            Some("FOR") if self.is_keyword_ahead(1, "UPDATE") => {
                for_update = true;
                self.advance();
                self.advance();
            }
            _ if self.is_symbol("|>") => return Err(self.unimplemented("pipe syntax")),
            _ => {}
        }
        Ok(Query {
            with,
            body,
            order_by,
            limit,
            offset,
            for_update,
            at,
        })
    }

    fn query_body(&mut self) -> Result<Body, Error> {
        let first = self.query_primary()?;
        let mut bodies = vec![first];
        let mut operation: Option<(SetOperator, bool)> = None;
        loop {
            let operator = match self.keyword_here().as_deref() {
                Some("UNION") => SetOperator::Union,
                Some("INTERSECT") => SetOperator::Intersect,
                Some("EXCEPT") => SetOperator::Except,
                _ => break,
            };
            let at = self.here();
            self.advance();
            self.skip_hint()?;
            let distinct = self.accept("DISTINCT");
            if !distinct {
                self.expect("ALL")?;
            }
            if operation.is_some_and(|known| known != (operator, distinct)) {
                return Err(Error::invalid(
                    "Different set operations cannot be used in the same query without using parentheses for \
                     grouping",
                )
                .at(at));
            }
            operation = Some((operator, distinct));
            bodies.push(self.query_primary()?);
        }
        Ok(match operation {
            None => bodies.remove(0),
            Some((operator, distinct)) => Body::Set {
                operator,
                distinct,
                bodies,
            },
        })
    }

    fn query_primary(&mut self) -> Result<Body, Error> {
        if self.accept_symbol("(") {
            let query = self.nested(Parser::query)?;
            self.expect_symbol(")")?;
            return Ok(Body::Query(Box::new(query)));
        }
        Ok(Body::Select(Box::new(self.select()?)))
    }

    fn order_item(&mut self) -> Result<OrderItem, Error> {
        let expression = self.expression()?;
        if self.is_keyword("COLLATE") {
            return Err(self.unimplemented("COLLATE"));
        }
        let descending = !self.accept("ASC") && self.accept("DESC");
        let nulls_first = match self.accept("NULLS") {
            false => None,
            true if self.accept("FIRST") => Some(true),
            true => {
                self.expect("LAST")?;
                Some(false)
            }
        };
        Ok(OrderItem {
            expression,
            descending,
            nulls_first,
        })
    }

    fn select(&mut self) -> Result<Select, Error> {
        let at = self.here();
        self.expect("SELECT")?;
        self.skip_hint()?;
        let distinct = self.accept("DISTINCT");
        if !distinct {
            self.accept("ALL");
        }
        if self.is_keyword("AS") {
            return Err(self.unimplemented("SELECT AS STRUCT and SELECT AS VALUE"));
        }
        let items = self.select_items()?;
        let from = match self.accept("FROM") {
            true => Some(self.from()?),
            false => None,
        };
        let filter = match self.accept("WHERE") {
            true => Some(self.expression()?),
            false => None,
        };
        let mut group_by = Vec::new();
        if self.accept("GROUP") {
            self.skip_hint()?;
            self.expect("BY")?;
            if self.is_keyword("ROLLUP") || self.is_keyword("CUBE") || self.is_keyword("GROUPING") {
                return Err(self.unimplemented("grouping sets"));
            }
            group_by = self.list(Parser::expression)?;
        }
        let having = match self.accept("HAVING") {
            true => Some(self.expression()?),
            false => None,
        };
        for word in ["QUALIFY", "WINDOW"] {
            if self.is_keyword(word) {
                return Err(self.unimplemented(word));
            }
        }
        Ok(Select {
            distinct,
            items,
            from,
            filter,
            group_by,
            having,
            at,
        })
    }

    /// A select list; a comma may end it.
    pub(super) fn select_items(&mut self) -> Result<Vec<SelectItem>, Error> {
        let mut items = vec![self.select_item()?];
        while self.accept_symbol(",") {
            let ends = matches!(self.token().kind, TokenKind::End)
                || self.is_symbol(")")
                || self.is_keyword("FROM");
            if ends {
                break;
            }
            items.push(self.select_item()?);
        }
        Ok(items)
    }

    fn select_item(&mut self) -> Result<SelectItem, Error> {
        let at = self.here();
        if self.accept_symbol("*") {
            let except = self.except_columns()?;
            return Ok(SelectItem::Star {
                of: None,
                except,
                at,
            });
        }
        let is_dotted_star = matches!(self.ahead(0), TokenKind::Word { .. })
            && self.is_symbol_ahead(1, ".")
            && self.is_symbol_ahead(2, "*");
        if is_dotted_star {
            let of = Some(self.name()?);
            self.advance();
            self.advance();
            let except = self.except_columns()?;
            return Ok(SelectItem::Star { of, except, at });
        }
        let expression = self.expression()?;
        let alias = self.alias()?;
        Ok(SelectItem::Expression { expression, alias })
    }

    fn except_columns(&mut self) -> Result<Vec<crate::ast::Name>, Error> {
        if self.is_keyword("REPLACE") {
            return Err(self.unimplemented("SELECT * REPLACE"));
        }
        if !(self.is_keyword("EXCEPT") && self.is_symbol_ahead(1, "(")) {
            return Ok(Vec::new());
        }
        self.advance();
        self.expect_symbol("(")?;
        let names = self.list(Parser::name)?;
        self.expect_symbol(")")?;
        Ok(names)
    }

    fn from(&mut self) -> Result<From, Error> {
        let mut from = self.source_item()?;
        for _ in 0..=JOINS_MAX {
            let at = self.here();
            let (kind, is_cross) = match self.keyword_here().as_deref() {
                Some("JOIN" | "INNER" | "HASH") => {
                    self.accept("INNER");
                    (JoinKind::Inner, false)
                }
                Some("CROSS") => {
                    self.advance();
                    (JoinKind::Inner, true)
                }
                Some(word @ ("LEFT" | "RIGHT" | "FULL")) => {
                    let kind = match word {
                        "LEFT" => JoinKind::Left,
                        "RIGHT" => JoinKind::Right,
                        _ => JoinKind::Full,
                    };
                    self.advance();
                    self.accept("OUTER");
                    (kind, false)
                }
                Some(word @ ("NATURAL" | "PIVOT" | "UNPIVOT" | "TABLESAMPLE")) => {
                    return Err(self.unimplemented(word));
                }
                _ if self.accept_symbol(",") => {
                    from = join(
                        from,
                        self.source_item()?,
                        JoinKind::Inner,
                        JoinCondition::None,
                    );
                    continue;
                }
                _ => return Ok(from),
            };
            // Which algorithm to take is the executor's to know.
            self.accept("HASH");
            self.expect("JOIN")?;
            if self.is_symbol("@{") {
                self.hints()?;
            }
            let right = self.source_item()?;
            let condition = match self.keyword_here().as_deref() {
                Some("ON") if !is_cross => {
                    self.advance();
                    JoinCondition::On(self.expression()?)
                }
                Some("USING") if !is_cross => {
                    self.advance();
                    self.expect_symbol("(")?;
                    let names = self.list(Parser::name)?;
                    self.expect_symbol(")")?;
                    JoinCondition::Using(names)
                }
                _ => JoinCondition::None,
            };
            let needs_condition = !is_cross && !matches!(right, From::Unnest { .. });
            if needs_condition && condition == JoinCondition::None && !is_path(&right) {
                return Err(Error::invalid(
                    "JOIN must have an immediately following ON or USING clause",
                )
                .at(at));
            }
            from = join(from, right, kind, condition);
        }
        Err(Error::invalid(format!("a FROM clause has at most {JOINS_MAX} joins")).at(self.here()))
    }

    fn source_item(&mut self) -> Result<From, Error> {
        if self.accept("UNNEST") {
            self.expect_symbol("(")?;
            let array = self.expression()?;
            self.expect_symbol(")")?;
            let alias = self.alias()?;
            let mut offset = None;
            if self.accept_all(&["WITH", "OFFSET"]) {
                let at = self.here();
                offset = Some(self.alias()?.unwrap_or(crate::ast::Name {
                    text: "offset".to_owned(),
                    at,
                }));
            }
            return Ok(From::Unnest {
                array,
                alias,
                offset,
            });
        }
        if self.is_keyword("GRAPH_TABLE") {
            return Err(self.unimplemented("GRAPH_TABLE"));
        }
        if self.accept_symbol("(") {
            if !self.is_query_here() && !self.is_symbol("(") {
                let from = self.nested(Parser::from)?;
                self.expect_symbol(")")?;
                return Ok(from);
            }
            let query = self.nested(Parser::query)?;
            self.expect_symbol(")")?;
            let alias = self.alias()?;
            return Ok(From::Query {
                query: Box::new(query),
                alias,
            });
        }
        let path = self.path()?;
        if self.is_symbol("(") {
            return Err(self.unimplemented("table functions and change stream reads"));
        }
        let hints = match self.is_symbol("@{") {
            true => self.hints()?,
            false => Vec::new(),
        };
        let alias = self.alias()?;
        Ok(From::Table { path, hints, alias })
    }

    pub(super) fn hints(&mut self) -> Result<Vec<Hint>, Error> {
        self.expect_symbol("@{")?;
        let hints = self.list(|parser| {
            let name = parser.path_of_any_words()?;
            parser.expect_symbol("=")?;
            let value = match parser.token().kind.clone() {
                TokenKind::Word { text, .. }
                | TokenKind::Integer(text)
                | TokenKind::Float(text)
                | TokenKind::String(text) => text,
                TokenKind::Parameter(name) => format!("@{name}"),
                _ => return Err(parser.unexpected("a hint's value")),
            };
            parser.advance();
            Ok(Hint { name, value })
        })?;
        self.expect_symbol("}")?;
        Ok(hints)
    }

    fn path_of_any_words(&mut self) -> Result<String, Error> {
        let mut text = self.field_name()?.text;
        while self.accept_symbol(".") {
            text.push('.');
            text.push_str(&self.field_name()?.text);
        }
        Ok(text)
    }
}
