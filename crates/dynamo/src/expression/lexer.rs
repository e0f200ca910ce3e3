//! Tokens of expressions, and the parser's view of them.

use super::Placeholders;
use api::document::{Path, Step};

/// The longest expression.
const EXPRESSION_SIZE_BYTES_MAX: usize = 4096;
/// The deepest nesting of parentheses and functions.
const NESTING_MAX: u32 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bare name, a keyword or a function.
    Word,
    /// `#name`.
    Name,
    /// `:value`.
    Value,
    Digits,
    /// One or two characters that mean something, or one that means nothing.
    Symbol,
    End,
}

#[derive(Clone, Copy, Debug)]
pub struct Token {
    pub kind: Kind,
    start: usize,
    end: usize,
}

/// The tokens of one expression, and how deep the parser is.
#[derive(Debug)]
pub struct Tokens<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    position: usize,
    nesting: u32,
}

/// The service's message, without the name of the parameter.
pub type ExpressionError = String;

impl<'a> Tokens<'a> {
    pub fn new(text: &'a str) -> Result<Tokens<'a>, ExpressionError> {
        if text.is_empty() {
            return Err("The expression can not be empty;".into());
        }
        if text.len() > EXPRESSION_SIZE_BYTES_MAX {
            return Err(format!(
                "Expression size has exceeded the maximum allowed size; expression size: {}",
                text.len()
            ));
        }
        let mut tokens = Vec::new();
        let mut start = 0;
        while let Some(token) = next_token(text, start) {
            start = token.end;
            tokens.push(token);
        }
        tokens.push(Token {
            kind: Kind::End,
            start: text.len(),
            end: text.len(),
        });
        Ok(Tokens {
            text,
            tokens,
            position: 0,
            nesting: 0,
        })
    }

    /// The next token. The last one, `End`, is never passed.
    pub fn peek(&self) -> Token {
        self.tokens[self.position]
    }

    pub fn text_of(&self, token: Token) -> &'a str {
        &self.text[token.start..token.end]
    }

    pub fn advance(&mut self) -> Token {
        let token = self.peek();
        if token.kind != Kind::End {
            self.position += 1;
        }
        token
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        let token = self.peek();
        token.kind == Kind::Symbol && self.text_of(token) == symbol
    }

    pub fn next_is(&self, symbol: &str) -> bool {
        self.is_symbol(symbol)
    }

    pub fn take_symbol(&mut self, symbol: &str) -> bool {
        let is_there = self.is_symbol(symbol);
        if is_there {
            self.position += 1;
        }
        is_there
    }

    pub fn expect_symbol(&mut self, symbol: &str) -> Result<(), ExpressionError> {
        if self.take_symbol(symbol) {
            Ok(())
        } else {
            Err(self.syntax_error())
        }
    }

    /// Whether the next token is this keyword, in any case.
    pub fn next_is_keyword(&self, keyword: &str) -> bool {
        let token = self.peek();
        token.kind == Kind::Word && self.text_of(token).eq_ignore_ascii_case(keyword)
    }

    pub fn take_keyword(&mut self, keyword: &str) -> bool {
        let is_there = self.next_is_keyword(keyword);
        if is_there {
            self.position += 1;
        }
        is_there
    }

    /// Whether a word and an opening parenthesis follow.
    pub fn next_is_function(&self) -> bool {
        self.peek().kind == Kind::Word
            && self
                .tokens
                .get(self.position + 1)
                .is_some_and(|token| token.kind == Kind::Symbol && self.text_of(*token) == "(")
    }

    pub fn expect_end(&self) -> Result<(), ExpressionError> {
        if self.peek().kind == Kind::End {
            Ok(())
        } else {
            Err(self.syntax_error())
        }
    }

    /// The next token is not what the grammar wants: it is named together with its neighbours.
    pub fn syntax_error(&self) -> ExpressionError {
        let token = self.peek();
        let first = self.tokens[self.position.saturating_sub(1)];
        let last = self.tokens[(self.position + 1).min(self.tokens.len() - 1)];
        let shown = match token.kind {
            Kind::End => "<EOF>",
            _ => self.text_of(token),
        };
        format!(
            "Syntax error; token: \"{shown}\", near: \"{}\"",
            self.text[first.start..last.end].trim_end()
        )
    }

    /// Counts a level of nesting; `leave` must follow.
    pub fn enter(&mut self) -> Result<(), ExpressionError> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(format!(
                "The expression is nested too deeply; levels: {NESTING_MAX}"
            ));
        }
        Ok(())
    }

    pub fn leave(&mut self) {
        self.nesting -= 1;
    }
}

fn next_token(text: &str, from: usize) -> Option<Token> {
    let rest = &text[from..];
    let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
    let start = from + rest.len() - trimmed.len();
    let first = trimmed.chars().next()?;
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let run = |skipped: usize| {
        let tail = &trimmed[skipped..];
        skipped
            + tail
                .find(|character| !is_part(character))
                .unwrap_or(tail.len())
    };
    let (kind, length) = match first {
        '#' => (Kind::Name, run(1)),
        ':' => (Kind::Value, run(1)),
        '0'..='9' => {
            let length = trimmed
                .find(|character: char| !character.is_ascii_digit())
                .unwrap_or(trimmed.len());
            (Kind::Digits, length)
        }
        '<' | '>' => {
            let is_double = match trimmed.as_bytes().get(1) {
                Some(b'=') => true,
                Some(b'>') => first == '<',
                _ => false,
            };
            (Kind::Symbol, if is_double { 2 } else { 1 })
        }
        character if is_part(character) => (Kind::Word, run(0)),
        character => (Kind::Symbol, character.len_utf8()),
    };
    Some(Token {
        kind,
        start,
        end: start + length,
    })
}

/// A path as it is read: what its names stand for is looked up later, when the grammar is known to hold.
#[derive(Clone, Debug)]
pub struct RawPath<'a> {
    pub elements: Vec<RawElement<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub enum RawElement<'a> {
    Bare(&'a str),
    Placeholder(&'a str),
    Index(u32),
}

impl<'a> RawPath<'a> {
    /// Reads a path; the caller has seen that it begins with a name.
    pub fn parse(tokens: &mut Tokens<'a>) -> Result<RawPath<'a>, ExpressionError> {
        let mut path = RawPath {
            elements: vec![name_element(tokens)?],
        };
        path.parse_steps(tokens)?;
        Ok(path)
    }

    /// Reads what may follow a path.
    pub fn parse_steps(&mut self, tokens: &mut Tokens<'a>) -> Result<(), ExpressionError> {
        loop {
            if tokens.take_symbol(".") {
                self.elements.push(name_element(tokens)?);
            } else if tokens.take_symbol("[") {
                let token = tokens.peek();
                if token.kind != Kind::Digits {
                    return Err(tokens.syntax_error());
                }
                let digits = tokens.text_of(token);
                let index = digits.parse().map_err(|_| {
                    format!("List index is not within the allowable range; index: [{digits}]")
                })?;
                tokens.advance();
                tokens.expect_symbol("]")?;
                self.elements.push(RawElement::Index(index));
            } else {
                return Ok(());
            }
        }
    }

    /// Looks its names up. `undefined` is told of placeholders that are not defined.
    pub fn resolve(
        &self,
        placeholders: &mut Placeholders<'_>,
        undefined: impl FnMut(&str),
    ) -> Path {
        let mut steps = self.resolve_steps(placeholders, undefined).into_iter();
        let name = match steps.next() {
            Some(Step::Field(name)) => name,
            _ => String::new(),
        };
        Path {
            name,
            steps: steps.collect(),
        }
    }

    pub fn resolve_steps(
        &self,
        placeholders: &mut Placeholders<'_>,
        mut undefined: impl FnMut(&str),
    ) -> Vec<Step> {
        let resolve = |element: &RawElement<'a>| match element {
            RawElement::Bare(name) => Step::Field((*name).to_owned()),
            RawElement::Placeholder(name) => {
                let target = placeholders.name(name);
                if target.is_none() {
                    undefined(name);
                }
                Step::Field(target.unwrap_or_default().to_owned())
            }
            RawElement::Index(index) => Step::Index(*index),
        };
        self.elements.iter().map(resolve).collect()
    }

    /// The first bare name in it that is reserved.
    pub fn reserved(&self) -> Option<&'a str> {
        self.elements.iter().find_map(|element| match element {
            RawElement::Bare(name) if super::reserved::is_reserved(name) => Some(*name),
            _ => None,
        })
    }
}

fn name_element<'a>(tokens: &mut Tokens<'a>) -> Result<RawElement<'a>, ExpressionError> {
    let token = tokens.peek();
    let element = match token.kind {
        Kind::Word => RawElement::Bare(tokens.text_of(token)),
        Kind::Name => RawElement::Placeholder(tokens.text_of(token)),
        _ => return Err(tokens.syntax_error()),
    };
    tokens.advance();
    Ok(element)
}
