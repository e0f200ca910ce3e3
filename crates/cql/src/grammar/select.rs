//! SELECT.

use super::ast::*;
use super::lexer::{TokenKind, is_reserved};
use super::parser::Parser;
use crate::error::Error;

impl Parser<'_> {
    pub(super) fn select(&mut self) -> Result<Select, Error> {
        self.expect_word("select")?;
        let is_json = self.is_word("json")
            && !matches!(self.peek_at(1), TokenKind::Symbol("," | "(" | "."))
            && !self.is_word_at(1, "from")
            && !self.is_word_at(1, "as");
        if is_json {
            self.next();
        }
        let is_distinct = self.is_word("distinct")
            && !matches!(self.peek_at(1), TokenKind::Symbol(","))
            && !self.is_word_at(1, "from");
        if is_distinct {
            self.next();
        }
        let selectors = if self.accept("*") {
            Vec::new()
        } else {
            self.selectors()?
        };
        self.expect_word("from")?;
        let table = self.table_name()?;
        let relations = if self.accept_word("where") {
            self.relations()?
        } else {
            Vec::new()
        };
        let mut group_by = Vec::new();
        if self.accept_words(&["group", "by"]) {
            group_by = self.names()?;
        }
        let order_by = self.order_by()?;
        let mut per_partition_limit = None;
        if self.accept_words(&["per", "partition", "limit"]) {
            per_partition_limit = Some(self.term()?);
        }
        let mut limit = None;
        if self.accept_word("limit") {
            limit = Some(self.term()?);
        }
        Ok(Select {
            is_json,
            is_distinct,
            selectors,
            table,
            relations,
            group_by,
            order_by,
            per_partition_limit,
            limit,
            allow_filtering: self.accept_words(&["allow", "filtering"]),
        })
    }

    fn order_by(&mut self) -> Result<Vec<(String, bool)>, Error> {
        let mut order = Vec::new();
        if self.accept_words(&["order", "by"]) {
            loop {
                let name = self.name()?;
                order.push((name, self.is_descending()));
                if !self.accept(",") {
                    break;
                }
            }
        }
        Ok(order)
    }

    pub(super) fn is_descending(&mut self) -> bool {
        !self.accept_word("asc") && self.accept_word("desc")
    }

    fn selectors(&mut self) -> Result<Vec<(Selector, Option<String>)>, Error> {
        let mut selectors = Vec::new();
        loop {
            let selector = self.selector()?;
            let alias = if self.accept_word("as") {
                Some(self.name()?)
            } else {
                None
            };
            selectors.push((selector, alias));
            if !self.accept(",") {
                return Ok(selectors);
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, Error> {
        let mut selector = self.deeper(Parser::simple_selector)?;
        loop {
            if self.accept(".") {
                selector = Selector::Field(Box::new(selector), self.name()?);
            } else if self.accept("[") {
                let element = self.term()?;
                self.expect("]")?;
                selector = Selector::Element(Box::new(selector), element);
            } else {
                return Ok(selector);
            }
        }
    }

    fn simple_selector(&mut self) -> Result<Selector, Error> {
        let is_call = matches!(self.peek_at(1), TokenKind::Symbol("("));
        match self.peek().clone() {
            TokenKind::Word(word) if word == "cast" && is_call => {
                self.next();
                self.next();
                let inner = self.selector()?;
                self.expect_word("as")?;
                let kind = self.type_name()?;
                self.expect(")")?;
                Ok(Selector::Cast(Box::new(inner), kind))
            }
            // `token` is reserved, yet a function.
            TokenKind::Word(word) if is_call => {
                self.next();
                self.next();
                self.call(word)
            }
            TokenKind::Word(word) if !is_reserved(&word) => {
                let is_constant = matches!(word.as_str(), "true" | "false");
                if is_constant {
                    return self.term().map(Selector::Term);
                }
                self.name().map(Selector::Column)
            }
            TokenKind::QuotedName(_) => self.name().map(Selector::Column),
            _ => self.term().map(Selector::Term),
        }
    }

    fn call(&mut self, name: String) -> Result<Selector, Error> {
        if name == "count" {
            let is_star = self.accept("*");
            let is_one =
                !is_star && matches!(self.peek(), TokenKind::Integer(digits) if digits == "1");
            if is_one {
                self.next();
            }
            if is_star || is_one {
                self.expect(")")?;
                return Ok(Selector::CountRows);
            }
        }
        let mut arguments = Vec::new();
        if self.accept(")") {
            return Ok(Selector::Function(name, arguments));
        }
        loop {
            arguments.push(self.selector()?);
            if self.accept(")") {
                return Ok(Selector::Function(name, arguments));
            }
            self.expect(",")?;
        }
    }
}
