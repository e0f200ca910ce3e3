//! Expressions and type names, by precedence climbing over GoogleSQL's table of operators.

use super::{DEPTH_MAX, Parser, is_reserved};
use crate::ast::{
    BinaryOperator, Call, Expression, InSet, IndexAccess, IsWhat, Name, Node, TypeLength, TypeName,
    UnaryOperator,
};
use crate::error::{Error, Offset};
use crate::lexer::TokenKind;

/// Binary operators below comparison, with how tightly they bind.
fn binary_operator(symbol: &str) -> Option<(BinaryOperator, u8)> {
    Some(match symbol {
        "|" => (BinaryOperator::BitOr, 1),
        "^" => (BinaryOperator::BitXor, 2),
        "&" => (BinaryOperator::BitAnd, 3),
        "<<" => (BinaryOperator::ShiftLeft, 4),
        ">>" => (BinaryOperator::ShiftRight, 4),
        "+" => (BinaryOperator::Add, 5),
        "-" => (BinaryOperator::Subtract, 5),
        "*" => (BinaryOperator::Multiply, 6),
        "/" => (BinaryOperator::Divide, 6),
        "||" => (BinaryOperator::Concat, 6),
        _ => return None,
    })
}

fn comparison(symbol: &str) -> Option<BinaryOperator> {
    Some(match symbol {
        "=" => BinaryOperator::Equal,
        "!=" | "<>" => BinaryOperator::NotEqual,
        "<" => BinaryOperator::Less,
        "<=" => BinaryOperator::LessOrEqual,
        ">" => BinaryOperator::Greater,
        ">=" => BinaryOperator::GreaterOrEqual,
        _ => return None,
    })
}

impl Parser {
    pub(super) fn expression(&mut self) -> Result<Expression, Error> {
        self.nested(Parser::or_expression)
    }

    fn make(&self, node: Node, at: Offset, below: u16) -> Result<Expression, Error> {
        if below >= DEPTH_MAX {
            return Err(self.too_deep());
        }
        Ok(Expression {
            node,
            at,
            depth: below + 1,
        })
    }

    fn leaf(&self, node: Node, at: Offset) -> Expression {
        Expression { node, at, depth: 1 }
    }

    fn or_expression(&mut self) -> Result<Expression, Error> {
        self.chain("OR", Parser::and_expression, Node::Or)
    }

    fn and_expression(&mut self) -> Result<Expression, Error> {
        self.chain("AND", Parser::not_expression, Node::And)
    }

    /// `operand AND operand AND …` as one node, so that long chains stay shallow.
    fn chain(
        &mut self,
        keyword: &str,
        operand: fn(&mut Parser) -> Result<Expression, Error>,
        node: fn(Vec<Expression>) -> Node,
    ) -> Result<Expression, Error> {
        let first = operand(self)?;
        if !self.is_keyword(keyword) {
            return Ok(first);
        }
        let (at, mut below) = (first.at, first.depth);
        let mut operands = vec![first];
        while self.accept(keyword) {
            let next = operand(self)?;
            below = below.max(next.depth);
            operands.push(next);
        }
        self.make(node(operands), at, below)
    }

    fn not_expression(&mut self) -> Result<Expression, Error> {
        let at = self.here();
        if self.is_keyword("NOT") {
            self.advance();
            let operand = self.nested(Parser::not_expression)?;
            let below = operand.depth;
            return self.make(
                Node::Unary(UnaryOperator::Not, Box::new(operand)),
                at,
                below,
            );
        }
        self.comparison_expression()
    }

    fn comparison_expression(&mut self) -> Result<Expression, Error> {
        let mut left = self.binary_expression(0)?;
        // Comparisons do not associate, but IS may follow one: `a = b IS NULL` is refused by GoogleSQL, so a
        // single pass with a loop for IS is enough.
        loop {
            let (at, below) = (self.here(), left.depth);
            if let TokenKind::Symbol(symbol) = self.token().kind
                && let Some(operator) = comparison(symbol)
            {
                self.advance();
                let right = self.binary_expression(0)?;
                let below = below.max(right.depth);
                let node = Node::Binary(operator, Box::new(left), Box::new(right));
                left = self.make(node, at, below)?;
                if let TokenKind::Symbol(symbol) = self.token().kind
                    && comparison(symbol).is_some()
                {
                    return Err(self.unexpected("end of comparison"));
                }
                continue;
            }
            let Some(next) = self.predicate(left.clone())? else {
                return Ok(left);
            };
            left = next;
        }
    }

    /// IS, LIKE, BETWEEN and IN after an operand.
    fn predicate(&mut self, left: Expression) -> Result<Option<Expression>, Error> {
        let at = self.here();
        let operand_depth = left.depth;
        let operand = Box::new(left);
        if self.accept("IS") {
            let negated = self.accept("NOT");
            let what = match self.keyword_here().as_deref() {
                Some("NULL") => IsWhat::Null,
                Some("TRUE") => IsWhat::True,
                Some("FALSE") => IsWhat::False,
                Some("DISTINCT") => return Err(self.unimplemented("IS DISTINCT FROM")),
                _ => return Err(self.unexpected("NULL, TRUE or FALSE")),
            };
            self.advance();
            let node = Node::Is {
                operand,
                what,
                negated,
            };
            return self.make(node, at, operand_depth).map(Some);
        }
        let negated = self.is_keyword("NOT")
            && ["LIKE", "IN", "BETWEEN"]
                .iter()
                .any(|keyword| self.is_keyword_ahead(1, keyword));
        if negated {
            self.advance();
        }
        if self.accept("LIKE") {
            if ["ANY", "SOME", "ALL"]
                .iter()
                .any(|word| self.is_keyword(word))
            {
                return Err(self.unimplemented("LIKE ANY and LIKE ALL"));
            }
            let pattern = self.binary_expression(0)?;
            let below = operand_depth.max(pattern.depth);
            let node = Node::Like {
                operand,
                pattern: Box::new(pattern),
                negated,
            };
            return self.make(node, at, below).map(Some);
        }
        if self.accept("BETWEEN") {
            let low = self.binary_expression(0)?;
            self.expect("AND")?;
            let high = self.binary_expression(0)?;
            let below = operand_depth.max(low.depth).max(high.depth);
            let node = Node::Between {
                operand,
                low: Box::new(low),
                high: Box::new(high),
                negated,
            };
            return self.make(node, at, below).map(Some);
        }
        if self.accept("IN") {
            let (among, below) = self.in_set()?;
            let node = Node::In {
                operand,
                among,
                negated,
            };
            return self.make(node, at, operand_depth.max(below)).map(Some);
        }
        Ok(None)
    }

    fn in_set(&mut self) -> Result<(InSet, u16), Error> {
        if self.accept("UNNEST") {
            self.expect_symbol("(")?;
            let array = self.expression()?;
            self.expect_symbol(")")?;
            let depth = array.depth;
            return Ok((InSet::Unnest(Box::new(array)), depth));
        }
        self.expect_symbol("(")?;
        if self.is_query_here() {
            let query = self.nested(Parser::query)?;
            self.expect_symbol(")")?;
            return Ok((InSet::Query(Box::new(query)), 1));
        }
        let items = self.list(Parser::expression)?;
        self.expect_symbol(")")?;
        let depth = deepest(&items);
        Ok((InSet::List(items), depth))
    }

    fn binary_expression(&mut self, binding: u8) -> Result<Expression, Error> {
        let mut left = self.unary_expression()?;
        while let TokenKind::Symbol(symbol) = self.token().kind {
            let Some((operator, own)) = binary_operator(symbol) else {
                break;
            };
            if own <= binding {
                break;
            }
            let at = self.here();
            self.advance();
            let right = self.binary_expression(own)?;
            let below = left.depth.max(right.depth);
            let node = Node::Binary(operator, Box::new(left), Box::new(right));
            left = self.make(node, at, below)?;
        }
        Ok(left)
    }

    fn unary_expression(&mut self) -> Result<Expression, Error> {
        let at = self.here();
        let operator = match self.token().kind {
            TokenKind::Symbol("-") => UnaryOperator::Minus,
            TokenKind::Symbol("+") => UnaryOperator::Plus,
            TokenKind::Symbol("~") => UnaryOperator::BitNot,
            _ => return self.postfix_expression(),
        };
        self.advance();
        // A minus belongs to its literal, so that the smallest INT64 can be written.
        if operator == UnaryOperator::Minus
            && let TokenKind::Integer(text) = &self.token().kind
        {
            let node = Node::Integer(format!("-{text}"));
            self.advance();
            return Ok(self.leaf(node, at));
        }
        let operand = self.nested(Parser::unary_expression)?;
        let below = operand.depth;
        self.make(Node::Unary(operator, Box::new(operand)), at, below)
    }

    fn postfix_expression(&mut self) -> Result<Expression, Error> {
        let mut operand = self.primary()?;
        loop {
            let (at, below) = (self.here(), operand.depth);
            if self.accept_symbol(".") {
                if self.is_symbol("*") || self.is_symbol("(") {
                    return Err(self.unexpected("field name"));
                }
                let field = self.field_name()?;
                operand = self.make(Node::Field(Box::new(operand), field), at, below)?;
            } else if self.is_symbol("[") {
                operand = self.subscript(operand)?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn subscript(&mut self, array: Expression) -> Result<Expression, Error> {
        let at = self.here();
        self.expect_symbol("[")?;
        let access = match self.keyword_here().as_deref() {
            Some("OFFSET") => Some(IndexAccess::Offset),
            Some("ORDINAL") => Some(IndexAccess::Ordinal),
            Some("SAFE_OFFSET") => Some(IndexAccess::SafeOffset),
            Some("SAFE_ORDINAL") => Some(IndexAccess::SafeOrdinal),
            _ => None,
        };
        let access = access.filter(|_| self.is_symbol_ahead(1, "("));
        let index = if access.is_some() {
            self.advance();
            self.expect_symbol("(")?;
            let index = self.expression()?;
            self.expect_symbol(")")?;
            index
        } else {
            self.expression()?
        };
        self.expect_symbol("]")?;
        let below = array.depth.max(index.depth);
        let node = Node::Index {
            array: Box::new(array),
            access: access.unwrap_or(IndexAccess::Offset),
            index: Box::new(index),
        };
        self.make(node, at, below)
    }

    pub(super) fn is_query_here(&self) -> bool {
        self.is_keyword("SELECT") || self.is_keyword("WITH")
    }

    fn primary(&mut self) -> Result<Expression, Error> {
        let at = self.here();
        let literal = match &self.token().kind {
            TokenKind::Integer(text) => Some(Node::Integer(text.clone())),
            TokenKind::Float(text) => Some(Node::Float(text.clone())),
            TokenKind::String(text) => Some(Node::String(text.clone())),
            TokenKind::Bytes(bytes) => Some(Node::Bytes(bytes.clone())),
            TokenKind::Parameter(name) => Some(Node::Parameter(name.clone())),
            TokenKind::SystemVariable(_) => return Err(self.unimplemented("system variables")),
            TokenKind::Symbol("?") => return Err(self.unimplemented("positional parameters")),
            _ => None,
        };
        if let Some(node) = literal {
            self.advance();
            return Ok(self.leaf(node, at));
        }
        if self.is_symbol("(") {
            return self.parenthesised();
        }
        if self.is_symbol("[") {
            return self.array_literal(None, at);
        }
        if let Some(keyword) = self.keyword_here()
            && let Some(expression) = self.keyword_expression(&keyword)?
        {
            return Ok(expression);
        }
        self.name_or_call()
    }

    fn parenthesised(&mut self) -> Result<Expression, Error> {
        let at = self.here();
        self.expect_symbol("(")?;
        if self.is_query_here() {
            let query = self.nested(Parser::query)?;
            self.expect_symbol(")")?;
            return Ok(self.leaf(Node::Subquery(Box::new(query)), at));
        }
        let first = self.expression()?;
        if self.accept_symbol(")") {
            return Ok(first);
        }
        self.expect_symbol(",")?;
        let mut items = vec![first];
        items.extend(self.list(Parser::expression)?);
        self.expect_symbol(")")?;
        let below = deepest(&items);
        let fields = items.into_iter().map(|item| (item, None)).collect();
        self.make(Node::Struct(fields), at, below)
    }

    /// What begins with a reserved word, and the typed literals.
    fn keyword_expression(&mut self, keyword: &str) -> Result<Option<Expression>, Error> {
        let at = self.here();
        if let TokenKind::String(text) = self.ahead(1) {
            let typed = match keyword {
                "DATE" | "TIMESTAMP" | "NUMERIC" | "JSON" | "UUID" => Some(keyword),
                "DECIMAL" => Some("NUMERIC"),
                "BIGNUMERIC" | "DATETIME" | "TIME" => {
                    return Err(self.unimplemented(&format!("the type {keyword}")));
                }
                _ => None,
            };
            if let Some(name) = typed {
                let kind = TypeName::Scalar {
                    name: name.to_owned(),
                    length: None,
                    at,
                };
                let node = Node::Typed(kind, text.clone());
                self.advance();
                self.advance();
                return Ok(Some(self.leaf(node, at)));
            }
        }
        let simple = match keyword {
            "NULL" => Some(Node::Null),
            "TRUE" => Some(Node::Bool(true)),
            "FALSE" => Some(Node::Bool(false)),
            "DEFAULT" => Some(Node::Default),
            _ => None,
        };
        if let Some(node) = simple {
            self.advance();
            return Ok(Some(self.leaf(node, at)));
        }
        match keyword {
            "CASE" => self.nested(Parser::case).map(Some),
            "CAST" => self.cast(false).map(Some),
            "SAFE_CAST" if self.is_symbol_ahead(1, "(") => self.cast(true).map(Some),
            "EXTRACT" => self.extract().map(Some),
            "EXISTS" => {
                self.advance();
                self.skip_hint()?;
                let query = self.parenthesised_query()?;
                Ok(Some(self.leaf(Node::Exists(Box::new(query)), at)))
            }
            "ARRAY" => self.array().map(Some),
            "STRUCT" => self.structure().map(Some),
            "INTERVAL" => {
                self.advance();
                let amount = self.expression()?;
                let part = self.field_name()?;
                let below = amount.depth;
                self.make(Node::Interval(Box::new(amount), part), at, below)
                    .map(Some)
            }
            "NEW" => Err(self.unimplemented("NEW (protocol buffer constructors)")),
            _ => Ok(None),
        }
    }

    fn parenthesised_query(&mut self) -> Result<crate::ast::Query, Error> {
        self.expect_symbol("(")?;
        let query = self.nested(Parser::query)?;
        self.expect_symbol(")")?;
        Ok(query)
    }

    fn case(&mut self) -> Result<Expression, Error> {
        let at = self.here();
        self.expect("CASE")?;
        let operand = match self.is_keyword("WHEN") {
            true => None,
            false => Some(Box::new(self.expression()?)),
        };
        let mut below = operand.as_ref().map_or(1, |operand| operand.depth);
        let mut whens = Vec::new();
        while self.accept("WHEN") {
            let when = self.expression()?;
            self.expect("THEN")?;
            let then = self.expression()?;
            below = below.max(when.depth).max(then.depth);
            whens.push((when, then));
        }
        if whens.is_empty() {
            return Err(self.unexpected("keyword WHEN"));
        }
        let otherwise = match self.accept("ELSE") {
            true => Some(Box::new(self.expression()?)),
            false => None,
        };
        below = below.max(otherwise.as_ref().map_or(1, |otherwise| otherwise.depth));
        self.expect("END")?;
        let node = Node::Case {
            operand,
            whens,
            otherwise,
        };
        self.make(node, at, below)
    }

    fn cast(&mut self, safe: bool) -> Result<Expression, Error> {
        let at = self.here();
        self.advance();
        self.expect_symbol("(")?;
        let operand = self.expression()?;
        self.expect("AS")?;
        let to = self.type_name()?;
        if self.is_keyword("FORMAT") {
            return Err(self.unimplemented("CAST … FORMAT"));
        }
        self.expect_symbol(")")?;
        let below = operand.depth;
        let node = Node::Cast {
            operand: Box::new(operand),
            to,
            safe,
        };
        self.make(node, at, below)
    }

    fn extract(&mut self) -> Result<Expression, Error> {
        let at = self.here();
        self.advance();
        self.expect_symbol("(")?;
        let part = self.field_name()?;
        if self.is_symbol("(") {
            return Err(self.unimplemented("EXTRACT(WEEK(weekday) …)"));
        }
        self.expect("FROM")?;
        let operand = self.expression()?;
        let zone = match self.accept_all(&["AT", "TIME", "ZONE"]) {
            true => Some(Box::new(self.expression()?)),
            false => None,
        };
        self.expect_symbol(")")?;
        let below = operand
            .depth
            .max(zone.as_ref().map_or(1, |zone| zone.depth));
        let node = Node::Extract {
            part,
            operand: Box::new(operand),
            zone,
        };
        self.make(node, at, below)
    }

    fn array(&mut self) -> Result<Expression, Error> {
        let at = self.here();
        if self.is_symbol_ahead(1, "(") {
            self.advance();
            let query = self.parenthesised_query()?;
            return Ok(self.leaf(Node::ArraySubquery(Box::new(query)), at));
        }
        if self.is_symbol_ahead(1, "[") {
            self.advance();
            return self.array_literal(None, at);
        }
        let TypeName::Array(element) = self.type_name()? else {
            return Err(self.unexpected("\"<\""));
        };
        self.array_literal(Some(*element), at)
    }

    fn array_literal(
        &mut self,
        element: Option<TypeName>,
        at: Offset,
    ) -> Result<Expression, Error> {
        self.expect_symbol("[")?;
        let items = match self.is_symbol("]") {
            true => Vec::new(),
            false => self.list(Parser::expression)?,
        };
        self.expect_symbol("]")?;
        let below = deepest(&items);
        self.make(Node::Array { element, items }, at, below)
    }

    fn structure(&mut self) -> Result<Expression, Error> {
        let at = self.here();
        if !self.is_symbol_ahead(1, "(") {
            return Err(self.unimplemented("STRUCT<…> constructors with types"));
        }
        self.advance();
        self.expect_symbol("(")?;
        let fields = match self.is_symbol(")") {
            true => Vec::new(),
            false => self.list(|parser| {
                let value = parser.expression()?;
                let name = match parser.accept("AS") {
                    true => Some(parser.name()?),
                    false => None,
                };
                Ok((value, name))
            })?,
        };
        self.expect_symbol(")")?;
        let below = fields.iter().map(|(value, _)| value.depth).max();
        self.make(Node::Struct(fields), at, below.unwrap_or(1))
    }

    fn name_or_call(&mut self) -> Result<Expression, Error> {
        let at = self.here();
        // IF is reserved and a function; LEFT and RIGHT too.
        let reserved_function = self.is_symbol_ahead(1, "(")
            && matches!(
                self.keyword_here().as_deref(),
                Some("IF" | "LEFT" | "RIGHT" | "GROUPING" | "HASH" | "RANGE")
            );
        let name = match reserved_function {
            true => self.field_name()?,
            false => match self.name() {
                Ok(name) => name,
                Err(_) => return Err(self.unexpected("")),
            },
        };
        if self.is_symbol("(") {
            return self.call(name, false);
        }
        let prefix = name.text.to_ascii_uppercase();
        if matches!(prefix.as_str(), "SAFE" | "NET" | "KEYS" | "AEAD")
            && self.is_symbol(".")
            && self.is_symbol_ahead(2, "(")
        {
            self.advance();
            let function = self.field_name()?;
            if prefix == "SAFE" {
                return self.call(function, true);
            }
            let text = format!("{prefix}.{}", function.text);
            return self.call(Name { text, at }, false);
        }
        Ok(self.leaf(Node::Name(name.text), at))
    }

    fn call(&mut self, name: Name, safe: bool) -> Result<Expression, Error> {
        self.expect_symbol("(")?;
        let mut call = Call {
            name: name.text.to_ascii_uppercase(),
            safe,
            star: false,
            distinct: false,
            arguments: Vec::new(),
        };
        if self.accept_symbol("*") {
            call.star = true;
        } else if !self.is_symbol(")") {
            call.distinct = self.accept("DISTINCT");
            call.arguments = self.list(|parser| {
                if parser.is_symbol_ahead(1, "=>") {
                    return Err(parser.unimplemented("named arguments"));
                }
                if parser.is_query_here() {
                    return Err(parser.unexpected("expression"));
                }
                parser.expression()
            })?;
        }
        match self.keyword_here().as_deref() {
            Some("ORDER") => return Err(self.unimplemented("ORDER BY in aggregate functions")),
            Some("LIMIT") => return Err(self.unimplemented("LIMIT in aggregate functions")),
            Some("HAVING") => return Err(self.unimplemented("HAVING in aggregate functions")),
            Some("IGNORE" | "RESPECT") => {
                return Err(self.unimplemented("IGNORE NULLS and RESPECT NULLS"));
            }
            _ => {}
        }
        self.expect_symbol(")")?;
        if self.is_symbol("@{") {
            self.hints()?;
        }
        if self.is_keyword("OVER") {
            return Err(self.unimplemented("window functions (OVER)"));
        }
        let below = deepest(&call.arguments);
        self.make(Node::Call(call), name.at, below)
    }

    // ---- types ----

    pub(super) fn type_name(&mut self) -> Result<TypeName, Error> {
        self.nested(Parser::type_name_here)
    }

    fn type_name_here(&mut self) -> Result<TypeName, Error> {
        let at = self.here();
        let Some(keyword) = self.keyword_here() else {
            return Err(self.unexpected("a type"));
        };
        match keyword.as_str() {
            "ARRAY" => {
                self.advance();
                self.expect_symbol("<")?;
                let element = self.type_name()?;
                self.close_angle()?;
                if self.is_symbol("(") {
                    return Err(self.unimplemented("vector_length on ARRAY columns"));
                }
                Ok(TypeName::Array(Box::new(element)))
            }
            "STRUCT" => {
                self.advance();
                self.expect_symbol("<")?;
                let fields = match self.is_symbol(">") || self.is_symbol(">>") {
                    true => Vec::new(),
                    false => self.list(Parser::struct_field)?,
                };
                self.close_angle()?;
                Ok(TypeName::Struct(fields))
            }
            _ => {
                if is_reserved(&keyword) {
                    return Err(self.unexpected("a type"));
                }
                let name = self.path()?.dotted();
                let length = match self.accept_symbol("(") {
                    true => Some(self.type_length()?),
                    false => None,
                };
                Ok(TypeName::Scalar { name, length, at })
            }
        }
    }

    fn struct_field(&mut self) -> Result<(Option<Name>, TypeName), Error> {
        let named = !self.is_symbol_ahead(1, ",")
            && !self.is_symbol_ahead(1, ">")
            && !self.is_symbol_ahead(1, ">>")
            && !self.is_symbol_ahead(1, "<")
            && !self.is_symbol_ahead(1, "(");
        let name = match named {
            true => Some(self.name()?),
            false => None,
        };
        Ok((name, self.type_name()?))
    }

    /// `>`; of `>>` one half, the other stays for the type outside.
    fn close_angle(&mut self) -> Result<(), Error> {
        if self.is_symbol(">>") {
            let at = self.at;
            self.tokens[at].kind = TokenKind::Symbol(">");
            self.tokens[at].start += 1;
            return Ok(());
        }
        self.expect_symbol(">")
    }

    fn type_length(&mut self) -> Result<TypeLength, Error> {
        let length = if self.accept("MAX") {
            TypeLength::Max
        } else {
            match self.token().kind.clone() {
                TokenKind::Integer(text) => {
                    let value = match text.strip_prefix("0x") {
                        Some(digits) => u64::from_str_radix(digits, 16).ok(),
                        None => text.parse().ok(),
                    };
                    let value = value.ok_or_else(|| self.unexpected("a length"))?;
                    self.advance();
                    TypeLength::Exactly(value)
                }
                _ => return Err(self.unexpected("a length or MAX")),
            }
        };
        self.expect_symbol(")")?;
        Ok(length)
    }
}

fn deepest(items: &[Expression]) -> u16 {
    items.iter().map(|item| item.depth).max().unwrap_or(1)
}
