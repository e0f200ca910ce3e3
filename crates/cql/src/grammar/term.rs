//! Terms: literals, bind markers, function calls, collections.

use super::ast::*;
use super::lexer::TokenKind;
use super::parser::Parser;
use crate::error::Error;
use crate::protocol::VALUES_MAX;

impl Parser<'_> {
    /// Takes a bind marker if one is ahead.
    pub(super) fn marker(&mut self) -> Result<Option<usize>, Error> {
        let name = if self.accept("?") {
            None
        } else if matches!(self.peek(), TokenKind::Symbol(":"))
            && matches!(
                self.peek_at(1),
                TokenKind::Word(_) | TokenKind::QuotedName(_)
            )
        {
            self.next();
            match self.next() {
                TokenKind::Word(name) | TokenKind::QuotedName(name) => Some(name),
                _ => return Err(self.unexpected("")),
            }
        } else {
            return Ok(None);
        };
        if self.markers.len() == VALUES_MAX {
            return Err(Error::invalid(format!(
                "Too many markers(?). {} markers exceed the allowed maximum of {VALUES_MAX}",
                self.markers.len() + 1
            )));
        }
        self.markers.push(name);
        Ok(Some(self.markers.len() - 1))
    }

    pub(super) fn term(&mut self) -> Result<Term, Error> {
        self.deeper(Parser::term_inner)
    }

    fn term_inner(&mut self) -> Result<Term, Error> {
        if let Some(marker) = self.marker()? {
            return Ok(Term::Marker(marker));
        }
        if self.is_reference() {
            return self.reference().map(Term::Reference);
        }
        match self.peek().clone() {
            TokenKind::Symbol("[") => {
                self.next();
                self.term_list("]").map(Term::List)
            }
            TokenKind::Symbol("{") => {
                self.next();
                self.braces()
            }
            TokenKind::Symbol("(") => self.parenthesis(),
            TokenKind::Word(word) if matches!(self.peek_at(1), TokenKind::Symbol("(")) => {
                self.next();
                self.next();
                let arguments = self.term_list(")")?;
                Ok(Term::Function {
                    name: word,
                    arguments,
                })
            }
            // system.now() and the like.
            TokenKind::Word(word)
                if word == "system" && matches!(self.peek_at(1), TokenKind::Symbol(".")) =>
            {
                self.next();
                self.next();
                self.term_inner()
            }
            _ => self.constant().map(Term::Constant),
        }
    }

    pub(super) fn constant(&mut self) -> Result<Constant, Error> {
        let is_negative = matches!(self.peek(), TokenKind::Symbol("-"));
        let kind = self.peek_at(usize::from(is_negative)).clone();
        let constant = match kind {
            TokenKind::Integer(digits) if is_negative => Constant::Integer(format!("-{digits}")),
            TokenKind::Integer(digits) => Constant::Integer(digits),
            TokenKind::Float(digits) if is_negative => Constant::Float(format!("-{digits}")),
            TokenKind::Float(digits) => Constant::Float(digits),
            TokenKind::Duration {
                months,
                days,
                nanos,
            } => {
                let sign = if is_negative { -1 } else { 1 };
                Constant::Duration {
                    months: months * sign,
                    days: days * sign,
                    nanos: nanos * i64::from(sign),
                }
            }
            TokenKind::Word(word) if word == "nan" => Constant::Float("NaN".into()),
            TokenKind::Word(word) if word == "infinity" => {
                Constant::Float(if is_negative { "-inf" } else { "inf" }.into())
            }
            _ if is_negative => return Err(self.unexpected("")),
            TokenKind::Text(text) => Constant::Text(text),
            TokenKind::Uuid(uuid) => Constant::Uuid(uuid),
            TokenKind::Blob(bytes) => Constant::Blob(bytes),
            TokenKind::Word(word) => match word.as_str() {
                "null" => Constant::Null,
                "true" => Constant::Boolean(true),
                "false" => Constant::Boolean(false),
                _ => return Err(self.unexpected("")),
            },
            _ => return Err(self.unexpected("")),
        };
        if is_negative {
            self.next();
        }
        self.next();
        Ok(constant)
    }

    /// Terms up to the closing symbol.
    fn term_list(&mut self, close: &str) -> Result<Vec<Term>, Error> {
        let mut terms = Vec::new();
        if self.accept(close) {
            return Ok(terms);
        }
        loop {
            terms.push(self.term()?);
            if self.accept(close) {
                return Ok(terms);
            }
            self.expect(",")?;
        }
    }

    /// A set, a map, or the literal of a user-defined type.
    fn braces(&mut self) -> Result<Term, Error> {
        if self.accept("}") {
            return Ok(Term::Map(Vec::new()));
        }
        let is_name = matches!(self.peek(), TokenKind::Word(_) | TokenKind::QuotedName(_))
            && matches!(self.peek_at(1), TokenKind::Symbol(":"));
        let is_constant = matches!(self.peek(), TokenKind::Word(word)
            if matches!(word.as_str(), "true" | "false" | "null" | "nan" | "infinity"));
        if is_name && !is_constant {
            let mut fields = Vec::new();
            loop {
                let name = self.name()?;
                self.expect(":")?;
                fields.push((name, self.term()?));
                if self.accept("}") {
                    return Ok(Term::Fields(fields));
                }
                self.expect(",")?;
            }
        }
        let first = self.term()?;
        if !self.accept(":") {
            let mut elements = vec![first];
            while !self.accept("}") {
                self.expect(",")?;
                elements.push(self.term()?);
            }
            return Ok(Term::Set(elements));
        }
        let mut pairs = vec![(first, self.term()?)];
        while !self.accept("}") {
            self.expect(",")?;
            let key = self.term()?;
            self.expect(":")?;
            pairs.push((key, self.term()?));
        }
        Ok(Term::Map(pairs))
    }

    /// A tuple, or a type in front of a term.
    fn parenthesis(&mut self) -> Result<Term, Error> {
        let position = self.position();
        self.next();
        let is_type = matches!(self.peek(), TokenKind::Word(word)
            if crate::types::name::native(word).is_some()
                || matches!(word.as_str(), "list" | "set" | "map" | "frozen" | "tuple" | "vector"));
        if is_type && let Ok(kind) = self.type_name() {
            self.expect(")")?;
            let term = self.term()?;
            return Ok(Term::Typed(kind, Box::new(term)));
        }
        self.rewind(position + 1);
        self.term_list(")").map(Term::Tuple)
    }

    pub(super) fn operator(&mut self) -> Option<Operator> {
        let operators = [
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("!=", Operator::NotEqual),
            ("=", Operator::Equal),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        operators
            .into_iter()
            .find(|(symbol, _)| self.accept(symbol))
            .map(|(_, operator)| operator)
    }

    /// What follows IN: a marker for the whole list, or a list in parentheses.
    pub(super) fn in_values(&mut self) -> Result<InValues, Error> {
        if let Some(marker) = self.marker()? {
            return Ok(InValues::Marker(marker));
        }
        self.expect("(")?;
        self.term_list(")").map(InValues::Terms)
    }

    /// WHERE's relations, joined by AND.
    pub(super) fn relations(&mut self) -> Result<Vec<Relation>, Error> {
        let mut relations = Vec::new();
        loop {
            self.relation(&mut relations)?;
            if !self.accept_word("and") {
                return Ok(relations);
            }
        }
    }

    fn relation(&mut self, relations: &mut Vec<Relation>) -> Result<(), Error> {
        if self.is_word("token") && matches!(self.peek_at(1), TokenKind::Symbol("(")) {
            self.next();
            self.next();
            let names = self.names()?;
            self.expect(")")?;
            return self.comparison(RelationLeft::Token(names), relations);
        }
        if self.accept("(") {
            // Relations may stand in parentheses themselves.
            let position = self.position();
            if let Ok(names) = self.names()
                && self.accept(")")
            {
                return self.comparison(RelationLeft::Columns(names), relations);
            }
            self.rewind(position);
            self.deeper(|parser| parser.relation(relations))?;
            return self.expect(")");
        }
        let name = self.name()?;
        if self.accept("[") {
            let element = self.term()?;
            self.expect("]")?;
            return self.comparison(RelationLeft::Element(name, element), relations);
        }
        self.comparison(RelationLeft::Column(name), relations)
    }

    fn comparison(
        &mut self,
        left: RelationLeft,
        relations: &mut Vec<Relation>,
    ) -> Result<(), Error> {
        let (operator, right) = if let Some(operator) = self.operator() {
            (operator, InValues::Terms(vec![self.term()?]))
        } else if self.accept_word("in") {
            (Operator::In, self.in_values()?)
        } else if self.accept_words(&["not", "in"]) {
            (Operator::NotIn, self.in_values()?)
        } else if self.accept_words(&["contains", "key"]) {
            (Operator::ContainsKey, InValues::Terms(vec![self.term()?]))
        } else if self.accept_word("contains") {
            (Operator::Contains, InValues::Terms(vec![self.term()?]))
        } else if self.accept_word("like") {
            (Operator::Like, InValues::Terms(vec![self.term()?]))
        } else if self.accept_words(&["is", "not", "null"]) {
            (Operator::IsNotNull, InValues::Terms(Vec::new()))
        } else if self.accept_word("between") {
            let low = self.term()?;
            self.expect_word("and")?;
            relations.push(Relation {
                left: left.clone(),
                operator: Operator::GreaterOrEqual,
                right: InValues::Terms(vec![low]),
            });
            (Operator::LessOrEqual, InValues::Terms(vec![self.term()?]))
        } else {
            return Err(self.unexpected(""));
        };
        relations.push(Relation {
            left,
            operator,
            right,
        });
        Ok(())
    }
}
