//! The parser's ground: tokens, names, types, options, and which statement begins here.

use super::ast::*;
use super::lexer::{self, Token, TokenKind, is_reserved};
use crate::error::Error;

/// Statements longer than this are refused.
const TOKENS_MAX: usize = 1_000_000;
/// Brackets may be nested this deep.
const DEPTH_MAX: usize = 32;

/// A statement with its bind markers.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub statement: Statement,
    /// The name of each marker, in order; `None` for `?`.
    pub markers: Vec<Option<String>>,
}

pub fn parse(text: &str) -> Result<Parsed, Error> {
    let mut parser = Parser::over(text)?;
    let statement = parser.statement()?;
    if let Statement::Unsupported(_) = statement {
        return Ok(Parsed {
            statement,
            markers: Vec::new(),
        });
    }
    while parser.accept(";") {}
    if parser.peek() != &TokenKind::End {
        return Err(parser.unexpected("EOF"));
    }
    Ok(Parsed {
        statement,
        markers: parser.markers,
    })
}

/// Parses a type by itself, as the system tables' definitions have them.
pub fn parse_type(text: &str) -> Result<TypeName, Error> {
    let mut parser = Parser::over(text)?;
    parser.type_name()
}

/// Parses the value of an option, as it is kept in the catalog.
pub fn parse_option(text: &str) -> Result<OptionValue, Error> {
    let mut parser = Parser::over(text)?;
    parser.option_value("option")
}

pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    pub(super) markers: Vec<Option<String>>,
    depth: usize,
    /// `row.column` is a term inside a transaction only.
    pub(super) in_transaction: bool,
}

impl<'a> Parser<'a> {
    fn over(text: &'a str) -> Result<Parser<'a>, Error> {
        let tokens = lexer::tokens(text)?;
        if tokens.len() > TOKENS_MAX {
            return Err(Error::invalid("the statement is too long"));
        }
        Ok(Parser {
            text,
            tokens,
            at: 0,
            markers: Vec::new(),
            depth: 0,
            in_transaction: false,
        })
    }
}

impl Parser<'_> {
    pub(super) fn peek(&self) -> &TokenKind {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> &TokenKind {
        // The last token is End, and nothing moves past it.
        &self.tokens[(self.at + ahead).min(self.tokens.len() - 1)].kind
    }

    pub(super) fn next(&mut self) -> TokenKind {
        let kind = self.tokens[self.at].kind.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        kind
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn rewind(&mut self, position: usize) {
        self.at = position;
    }

    /// The error at the token ahead.
    pub(super) fn unexpected(&self, expected: &str) -> Error {
        let token = &self.tokens[self.at];
        let (line, column) = lexer::place(self.text, token.at);
        let end = self
            .tokens
            .get(self.at + 1)
            .map_or(self.text.len(), |next| next.at);
        let input = match token.kind {
            TokenKind::End => "<EOF>",
            _ => self.text[token.at..end].trim_end(),
        };
        if expected.is_empty() {
            Error::syntax(format!(
                "line {line}:{column} no viable alternative at input '{input}'"
            ))
        } else {
            Error::syntax(format!(
                "line {line}:{column} mismatched input '{input}' expecting {expected}"
            ))
        }
    }

    pub(super) fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.depth == DEPTH_MAX {
            return Err(Error::syntax(format!(
                "literals and types may be nested at most {DEPTH_MAX} deep"
            )));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    pub(super) fn accept(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), TokenKind::Symbol(found) if *found == symbol);
        if found {
            self.at += 1;
        }
        found
    }

    pub(super) fn expect(&mut self, symbol: &str) -> Result<(), Error> {
        if self.accept(symbol) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("'{symbol}'")))
        }
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), TokenKind::Word(found) if found == word)
    }

    pub(super) fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.peek_at(ahead), TokenKind::Word(found) if found == word)
    }

    pub(super) fn accept_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.at += 1;
        }
        found
    }

    /// Accepts all of the words, or none.
    pub(super) fn accept_words(&mut self, words: &[&str]) -> bool {
        let found = words
            .iter()
            .enumerate()
            .all(|(ahead, word)| self.is_word_at(ahead, word));
        if found {
            self.at += words.len();
        }
        found
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<(), Error> {
        if self.accept_word(word) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("K_{}", word.to_uppercase())))
        }
    }

    /// A keyspace's, table's, column's or type's name.
    pub(super) fn name(&mut self) -> Result<String, Error> {
        match self.peek() {
            TokenKind::Word(word) if !is_reserved(word) => {}
            TokenKind::QuotedName(_) => {}
            _ => return Err(self.unexpected("")),
        }
        match self.next() {
            TokenKind::Word(name) | TokenKind::QuotedName(name) => Ok(name),
            _ => Err(self.unexpected("IDENT")),
        }
    }

    pub(super) fn table_name(&mut self) -> Result<TableName, Error> {
        let first = self.name()?;
        if self.accept(".") {
            let name = self.name()?;
            return Ok(TableName {
                keyspace: Some(first),
                name,
            });
        }
        Ok(TableName {
            keyspace: None,
            name: first,
        })
    }

    pub(super) fn names(&mut self) -> Result<Vec<String>, Error> {
        let mut names = vec![self.name()?];
        while self.accept(",") {
            names.push(self.name()?);
        }
        Ok(names)
    }

    pub(super) fn if_exists(&mut self) -> bool {
        self.accept_words(&["if", "exists"])
    }

    pub(super) fn if_not_exists(&mut self) -> bool {
        self.accept_words(&["if", "not", "exists"])
    }

    pub(super) fn integer(&mut self) -> Result<i64, Error> {
        let is_negative = self.accept("-");
        let TokenKind::Integer(digits) = self.peek() else {
            return Err(self.unexpected("INTEGER"));
        };
        let sign = if is_negative { "-" } else { "" };
        let number = format!("{sign}{digits}")
            .parse()
            .map_err(|_| self.unexpected("a smaller INTEGER"))?;
        self.next();
        Ok(number)
    }

    pub(super) fn type_name(&mut self) -> Result<TypeName, Error> {
        self.deeper(Parser::type_name_inner)
    }

    fn type_name_inner(&mut self) -> Result<TypeName, Error> {
        if let TokenKind::Text(class) = self.peek() {
            let class = class.clone();
            self.next();
            return Ok(TypeName::Custom(class));
        }
        // `set` is reserved, yet a type.
        if self.is_word("set") && matches!(self.peek_at(1), TokenKind::Symbol("<")) {
            self.next();
            return Ok(TypeName::Set(Box::new(self.type_parameter()?)));
        }
        let is_generic = matches!(self.peek_at(1), TokenKind::Symbol("<"));
        let TableName { keyspace, name } = self.table_name()?;
        if !is_generic {
            return Ok(TypeName::Named { keyspace, name });
        }
        match name.as_str() {
            "list" => Ok(TypeName::List(Box::new(self.type_parameter()?))),
            "frozen" => Ok(TypeName::Frozen(Box::new(self.type_parameter()?))),
            "map" => {
                self.expect("<")?;
                let key = self.type_name()?;
                self.expect(",")?;
                let value = self.type_name()?;
                self.expect(">")?;
                Ok(TypeName::Map(Box::new(key), Box::new(value)))
            }
            "tuple" => {
                self.expect("<")?;
                let mut fields = vec![self.type_name()?];
                while self.accept(",") {
                    fields.push(self.type_name()?);
                }
                self.expect(">")?;
                Ok(TypeName::Tuple(fields))
            }
            "vector" => {
                self.expect("<")?;
                let element = self.type_name()?;
                self.expect(",")?;
                let dimension = u32::try_from(self.integer()?)
                    .ok()
                    .filter(|dimension| (1..=8192).contains(dimension))
                    .ok_or_else(|| Error::invalid("vectors may only have 1 to 8192 dimensions"))?;
                self.expect(">")?;
                Ok(TypeName::Vector(Box::new(element), dimension))
            }
            _ => Err(self.unexpected("")),
        }
    }

    fn type_parameter(&mut self) -> Result<TypeName, Error> {
        self.expect("<")?;
        let inner = self.type_name()?;
        self.expect(">")?;
        Ok(inner)
    }

    fn statement(&mut self) -> Result<Statement, Error> {
        let TokenKind::Word(word) = self.peek().clone() else {
            return Err(self.unexpected(""));
        };
        match word.as_str() {
            "select" => self.select().map(Statement::Select),
            "insert" => self.insert(),
            "update" => self.update(),
            "delete" => self.delete(),
            "begin" => self.batch(),
            "use" => {
                self.next();
                self.name().map(Statement::Use)
            }
            "create" => self.create(),
            "alter" => self.alter(),
            "drop" => self.drop(),
            "truncate" => {
                self.next();
                if !self.accept_word("table") {
                    self.accept_word("columnfamily");
                }
                self.table_name().map(Statement::Truncate)
            }
            "describe" | "desc" => self.describe(),
            "grant" | "revoke" => Ok(Statement::Unsupported("Roles and permissions are")),
            "list" => Ok(Statement::Unsupported("Roles and permissions are")),
            "comment" => Ok(Statement::Unsupported("COMMENT ON is")),
            _ => Err(self.unexpected("")),
        }
    }
}
