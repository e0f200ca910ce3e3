//! Tokens to a tree: a hand-written recursive-descent parser of GoogleSQL. Knows the grammar and nothing of
//! tables or types. Input never panics it: nesting is bounded by `DEPTH_MAX`, lists by `ITEMS_MAX`. What is
//! GoogleSQL and not built is refused as unimplemented, with the feature's name, not as a syntax error.

mod definition;
mod expression;
mod manipulation;
mod query;

use crate::ast::{Definition, Hint, Name, Path, Statement};
use crate::error::{Error, Offset};
use crate::lexer::{Token, TokenKind, tokenize};

/// How deep expressions, queries and types may nest.
pub const DEPTH_MAX: u16 = 100;
/// Items of any one list.
pub const ITEMS_MAX: usize = 100_000;

/// Words that are never names unless quoted.
const RESERVED: [&str; 96] = [
    "ALL",
    "AND",
    "ANY",
    "ARRAY",
    "AS",
    "ASC",
    "ASSERT_ROWS_MODIFIED",
    "AT",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COLLATE",
    "CONTAINS",
    "CREATE",
    "CROSS",
    "CUBE",
    "CURRENT",
    "DEFAULT",
    "DEFINE",
    "DESC",
    "DISTINCT",
    "ELSE",
    "END",
    "ENUM",
    "ESCAPE",
    "EXCEPT",
    "EXCLUDE",
    "EXISTS",
    "EXTRACT",
    "FALSE",
    "FETCH",
    "FOLLOWING",
    "FOR",
    "FROM",
    "FULL",
    "GROUP",
    "GROUPING",
    "GROUPS",
    "HASH",
    "HAVING",
    "IF",
    "IGNORE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOOKUP",
    "MERGE",
    "NATURAL",
    "NEW",
    "NO",
    "NOT",
    "NULL",
    "NULLS",
    "OF",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PRECEDING",
    "PROTO",
    "RANGE",
    "RECURSIVE",
    "RESPECT",
    "RIGHT",
    "ROLLUP",
    "ROWS",
    "SELECT",
    "SET",
    "SOME",
    "STRUCT",
    "TABLESAMPLE",
    "THEN",
    "TO",
    "TREAT",
    "TRUE",
    "UNBOUNDED",
    "UNION",
    "UNNEST",
    "USING",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "WITHIN",
    "GRAPH_TABLE",
];

pub(crate) fn is_reserved(word: &str) -> bool {
    RESERVED
        .iter()
        .any(|reserved| reserved.eq_ignore_ascii_case(word))
}

/// Parses a query or a data manipulation statement, and the hints before it.
pub fn parse_statement(text: &str) -> Result<(Vec<Hint>, Statement), Error> {
    let parse = |parser: &mut Parser| {
        let hints = match parser.is_symbol("@{") {
            true => parser.hints()?,
            false => Vec::new(),
        };
        let statement = parser.statement()?;
        parser.accept_symbol(";");
        parser.expect_end()?;
        Ok((hints, statement))
    };
    Parser::new(text)
        .and_then(|mut parser| parse(&mut parser))
        .map_err(|error| error.in_text(text))
}

/// Parses one statement of data definition.
pub fn parse_definition(text: &str) -> Result<Definition, Error> {
    let parse = |parser: &mut Parser| {
        let definition = parser.definition()?;
        parser.accept_symbol(";");
        parser.expect_end()?;
        Ok(definition)
    };
    Parser::new(text)
        .and_then(|mut parser| parse(&mut parser))
        .map_err(|error| error.in_text(text))
}

pub(crate) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u16,
}

impl Parser {
    fn new(text: &str) -> Result<Parser, Error> {
        Ok(Parser {
            tokens: tokenize(text)?,
            at: 0,
            depth: 0,
        })
    }

    fn statement(&mut self) -> Result<Statement, Error> {
        match self.keyword_here().as_deref() {
            Some("SELECT" | "WITH") => Ok(Statement::Query(self.query()?)),
            Some("INSERT") => Ok(Statement::Insert(self.insert()?)),
            Some("UPDATE") => Ok(Statement::Update(self.update()?)),
            Some("DELETE") => Ok(Statement::Delete(self.delete()?)),
            Some("CREATE" | "DROP" | "ALTER" | "GRANT" | "REVOKE" | "ANALYZE" | "RENAME") => {
                Ok(Statement::Definition(self.definition()?))
            }
            Some(word @ ("MERGE" | "CALL" | "GRAPH" | "FROM" | "EXPORT" | "BEGIN" | "TABLE")) => {
                Err(Error::unimplemented(format!("the {word} statement")).at(self.here()))
            }
            _ if self.is_symbol("(") => Ok(Statement::Query(self.query()?)),
            _ => Err(self.unexpected("")),
        }
    }

    /// `@{name=value, …}` within a statement: accepted; none of these hints means anything here yet.
    fn skip_hint(&mut self) -> Result<(), Error> {
        if self.is_symbol("@{") {
            self.hints()?;
        }
        Ok(())
    }

    // ---- tokens ----

    fn token(&self) -> &Token {
        // The last token is `End`, and `advance` never passes it.
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn ahead(&self, count: usize) -> &TokenKind {
        let at = (self.at + count).min(self.tokens.len() - 1);
        &self.tokens[at].kind
    }

    fn here(&self) -> Offset {
        self.token().start
    }

    fn advance(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    /// The unquoted word here, in upper case.
    fn keyword_here(&self) -> Option<String> {
        self.keyword_ahead(0)
    }

    fn keyword_ahead(&self, count: usize) -> Option<String> {
        match self.ahead(count) {
            TokenKind::Word {
                text,
                quoted: false,
            } => Some(text.to_ascii_uppercase()),
            _ => None,
        }
    }

    fn is_keyword(&self, keyword: &str) -> bool {
        self.is_keyword_ahead(0, keyword)
    }

    fn is_keyword_ahead(&self, count: usize, keyword: &str) -> bool {
        matches!(self.ahead(count), TokenKind::Word { text, quoted: false } if text.eq_ignore_ascii_case(keyword))
    }

    fn accept(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(keyword);
        if found {
            self.advance();
        }
        found
    }

    /// Accepts all of the words or none.
    fn accept_all(&mut self, keywords: &[&str]) -> bool {
        let found = keywords
            .iter()
            .enumerate()
            .all(|(ahead, keyword)| self.is_keyword_ahead(ahead, keyword));
        if found {
            for _ in keywords {
                self.advance();
            }
        }
        found
    }

    fn expect(&mut self, keyword: &str) -> Result<(), Error> {
        if self.accept(keyword) {
            return Ok(());
        }
        Err(self.unexpected(&format!("keyword {keyword}")))
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        self.is_symbol_ahead(0, symbol)
    }

    fn is_symbol_ahead(&self, count: usize, symbol: &str) -> bool {
        matches!(self.ahead(count), TokenKind::Symbol(found) if *found == symbol)
    }

    fn accept_symbol(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<(), Error> {
        if self.accept_symbol(symbol) {
            return Ok(());
        }
        Err(self.unexpected(&format!("\"{symbol}\"")))
    }

    fn expect_end(&self) -> Result<(), Error> {
        match self.token().kind {
            TokenKind::End => Ok(()),
            _ => Err(self.unexpected("end of input")),
        }
    }

    fn describe(&self) -> String {
        match &self.token().kind {
            TokenKind::Word { text, quoted } if !quoted && is_reserved(text) => {
                format!("keyword {}", text.to_ascii_uppercase())
            }
            TokenKind::Word { text, .. } => format!("identifier \"{text}\""),
            TokenKind::Integer(text) => format!("integer literal \"{text}\""),
            TokenKind::Float(text) => format!("floating point literal \"{text}\""),
            TokenKind::String(text) => format!("string literal {text:?}"),
            TokenKind::Bytes(_) => "bytes literal".to_owned(),
            TokenKind::Parameter(name) => format!("\"@{name}\""),
            TokenKind::SystemVariable(name) => format!("\"@@{name}\""),
            TokenKind::Symbol(symbol) => format!("\"{symbol}\""),
            TokenKind::End => "end of statement".to_owned(),
        }
    }

    fn unexpected(&self, wanted: &str) -> Error {
        let found = self.describe();
        let message = if wanted.is_empty() {
            format!("Unexpected {found}")
        } else {
            format!("Expected {wanted} but got {found}")
        };
        Error::syntax(message).at(self.here())
    }

    fn unimplemented(&self, feature: &str) -> Error {
        Error::unimplemented(feature).at(self.here())
    }

    // ---- pieces that every statement uses ----

    fn name(&mut self) -> Result<Name, Error> {
        let token = self.token();
        match &token.kind {
            TokenKind::Word { text, quoted } if *quoted || !is_reserved(text) => {
                let name = Name {
                    text: text.clone(),
                    at: token.start,
                };
                self.advance();
                Ok(name)
            }
            _ => Err(self.unexpected("identifier")),
        }
    }

    /// A name after a dot: any word.
    fn field_name(&mut self) -> Result<Name, Error> {
        let token = self.token();
        match &token.kind {
            TokenKind::Word { text, .. } => {
                let name = Name {
                    text: text.clone(),
                    at: token.start,
                };
                self.advance();
                Ok(name)
            }
            _ => Err(self.unexpected("identifier")),
        }
    }

    fn path(&mut self) -> Result<Path, Error> {
        let mut parts = vec![self.name()?];
        while self.accept_symbol(".") {
            parts.push(self.field_name()?);
        }
        Ok(Path { parts })
    }

    /// `AS name`, or a bare name where one may follow.
    fn alias(&mut self) -> Result<Option<Name>, Error> {
        if self.accept("AS") {
            return self.name().map(Some);
        }
        match &self.token().kind {
            TokenKind::Word { text, quoted } if *quoted || !is_reserved(text) => {
                self.name().map(Some)
            }
            _ => Ok(None),
        }
    }

    /// `item, item, …` up to what does not follow a comma.
    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Parser) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut items = vec![item(self)?];
        while self.accept_symbol(",") {
            if items.len() >= ITEMS_MAX {
                return Err(
                    Error::invalid(format!("a list has more than {ITEMS_MAX} items"))
                        .at(self.here()),
                );
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Runs `inner` one level deeper.
    fn nested<T>(
        &mut self,
        inner: impl FnOnce(&mut Parser) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.depth >= DEPTH_MAX {
            return Err(self.too_deep());
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn too_deep(&self) -> Error {
        Error::invalid(format!(
            "the statement nests deeper than {DEPTH_MAX} levels"
        ))
        .at(self.here())
    }
}

#[cfg(test)]
mod tests;
