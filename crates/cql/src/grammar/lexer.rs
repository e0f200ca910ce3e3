//! CQL text to tokens.

use crate::error::Error;

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub kind: TokenKind,
    /// Where it begins, in bytes.
    pub at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TokenKind {
    /// A keyword or an unquoted name, in lower case.
    Word(String),
    QuotedName(String),
    Text(String),
    Integer(String),
    Float(String),
    Uuid([u8; 16]),
    Blob(Vec<u8>),
    Duration {
        months: i32,
        days: i32,
        nanos: i64,
    },
    Symbol(&'static str),
    End,
}

/// Words that cannot be names unless quoted.
pub fn is_reserved(word: &str) -> bool {
    matches!(
        word,
        "add"
            | "allow"
            | "alter"
            | "and"
            | "apply"
            | "asc"
            | "authorize"
            | "batch"
            | "begin"
            | "between"
            | "by"
            | "columnfamily"
            | "create"
            | "default"
            | "delete"
            | "desc"
            | "describe"
            | "drop"
            | "entries"
            | "execute"
            | "from"
            | "full"
            | "grant"
            | "if"
            | "in"
            | "index"
            | "infinity"
            | "insert"
            | "into"
            | "is"
            | "keyspace"
            | "limit"
            | "materialized"
            | "mbean"
            | "mbeans"
            | "modify"
            | "nan"
            | "norecursive"
            | "not"
            | "null"
            | "of"
            | "on"
            | "or"
            | "order"
            | "primary"
            | "rename"
            | "replace"
            | "revoke"
            | "schema"
            | "select"
            | "set"
            | "table"
            | "to"
            | "token"
            | "truncate"
            | "unlogged"
            | "unset"
            | "update"
            | "use"
            | "using"
            | "view"
            | "where"
            | "with"
    )
}

/// Longest first where one begins with another.
const SYMBOLS: [&str; 25] = [
    "<=", ">=", "!=", "+=", "-=", "(", ")", "[", "]", "{", "}", "<", ">", "=", ",", ";", ".", ":",
    "*", "+", "-", "/", "%", "?", "@",
];

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

/// All tokens, `End` last.
pub fn tokens(text: &str) -> Result<Vec<Token>, Error> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::with_capacity(text.len() / 5 + 2);
    loop {
        lexer.skip_blank()?;
        let at = lexer.at;
        let kind = lexer.token()?;
        let is_end = kind == TokenKind::End;
        tokens.push(Token { kind, at });
        if is_end {
            return Ok(tokens);
        }
    }
}

/// Line (from 1) and column (from 0) of a place in the text, as Cassandra counts them.
pub fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let line_start = before
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |newline| newline + 1);
    (line, before.len() - line_start)
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, at: usize, what: &str) -> Error {
        let (line, column) = place(self.text, at);
        Error::syntax(format!("line {line}:{column} {what}"))
    }

    fn skip_blank(&mut self) -> Result<(), Error> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{c}']);
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("--") || trimmed.starts_with("//") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if let Some(comment) = trimmed.strip_prefix("/*") {
                let end = comment
                    .find("*/")
                    .ok_or_else(|| self.error(self.at, "unterminated comment"))?;
                self.at += end + 4;
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<TokenKind, Error> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(TokenKind::End);
        };
        match first {
            '\'' => {
                self.at += 1;
                Ok(TokenKind::Text(self.quoted('\'', "string literal")?))
            }
            '"' => {
                self.at += 1;
                let name = self.quoted('"', "quoted name")?;
                if name.is_empty() {
                    return Err(self.error(self.at, "an empty quoted name"));
                }
                Ok(TokenKind::QuotedName(name))
            }
            '$' if rest.starts_with("$$") => {
                let body = &rest[2..];
                let end = body
                    .find("$$")
                    .ok_or_else(|| self.error(self.at, "unterminated string literal"))?;
                self.at += end + 4;
                Ok(TokenKind::Text(body[..end].to_owned()))
            }
            _ if first.is_ascii_digit() || first.is_ascii_alphabetic() => self.word_or_number(),
            _ => {
                for symbol in SYMBOLS {
                    if rest.starts_with(symbol) {
                        self.at += symbol.len();
                        return Ok(TokenKind::Symbol(symbol));
                    }
                }
                Err(self.error(
                    self.at,
                    &format!("no viable alternative at character '{first}'"),
                ))
            }
        }
    }

    /// What follows an opening quote; a doubled quote stands for itself.
    fn quoted(&mut self, quote: char, what: &str) -> Result<String, Error> {
        let start = self.at;
        let mut value = String::new();
        loop {
            let rest = self.rest();
            let end = rest
                .find(quote)
                .ok_or_else(|| self.error(start, &format!("unterminated {what}")))?;
            value.push_str(&rest[..end]);
            self.at += end + 1;
            if !self.rest().starts_with(quote) {
                return Ok(value);
            }
            value.push(quote);
            self.at += 1;
        }
    }

    fn word_or_number(&mut self) -> Result<TokenKind, Error> {
        let rest = self.rest();
        if let Some(uuid) = rest.get(..36).and_then(uuid) {
            self.at += 36;
            return Ok(TokenKind::Uuid(uuid));
        }
        let first = rest.as_bytes()[0];
        let length = rest
            .bytes()
            .position(|byte| !byte.is_ascii_alphanumeric() && byte != b'_')
            .unwrap_or(rest.len());
        let word = &rest[..length];
        if !first.is_ascii_digit() {
            // An ISO 8601 duration may hold dashes and colons: P1Y2M, PT3H, P0001-02-03T04:05:06.
            if matches!(first, b'P' | b'p')
                && word[1..].starts_with(|next: char| next.is_ascii_digit() || next == 'T')
                && let Some((duration, length)) = iso_duration(rest)
            {
                self.at += length;
                return Ok(duration);
            }
            self.at += length;
            return Ok(TokenKind::Word(word.to_ascii_lowercase()));
        }
        if let Some(hex) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
            let bytes = blob(hex).ok_or_else(|| self.error(self.at, "a blob of odd length"))?;
            self.at += length;
            return Ok(TokenKind::Blob(bytes));
        }
        self.number()
    }

    fn number(&mut self) -> Result<TokenKind, Error> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let digits = |from: usize| -> usize {
            bytes[from..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count()
        };
        let mut length = digits(0);
        let mut is_float = false;
        if bytes.get(length) == Some(&b'.') {
            is_float = true;
            length += 1;
            length += digits(length);
        }
        if matches!(bytes.get(length), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
            let exponent = digits(length + 1 + sign);
            if exponent > 0 {
                is_float = true;
                length += 1 + sign + exponent;
            }
        }
        let is_followed_by_unit = rest[length..]
            .chars()
            .next()
            .is_some_and(|next| next.is_ascii_alphabetic() || next == 'µ');
        if is_followed_by_unit {
            if let Some((duration, length)) = unit_duration(rest).filter(|_| !is_float) {
                self.at += length;
                return Ok(duration);
            }
            return Err(self.error(
                self.at,
                &format!("no viable alternative at input '{}'", &rest[..length]),
            ));
        }
        self.at += length;
        let text = rest[..length].to_owned();
        Ok(if is_float {
            TokenKind::Float(text)
        } else {
            TokenKind::Integer(text)
        })
    }
}

fn blob(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok())
        .collect()
}

pub fn uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|&at| bytes[at] != b'-') {
        return None;
    }
    let hex: String = text.split('-').collect();
    blob(&hex).filter(|_| hex.len() == 32)?.try_into().ok()
}

const MONTHS_PER_YEAR: i64 = 12;
const DAYS_PER_WEEK: i64 = 7;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Sums up a duration's parts, each checked against overflow.
#[derive(Default)]
struct DurationSum {
    months: i64,
    days: i64,
    nanos: i64,
}

impl DurationSum {
    fn add(&mut self, count: i64, unit: &str) -> Option<()> {
        let (field, factor) = match unit {
            "y" => (&mut self.months, MONTHS_PER_YEAR),
            "mo" => (&mut self.months, 1),
            "w" => (&mut self.days, DAYS_PER_WEEK),
            "d" => (&mut self.days, 1),
            "h" => (&mut self.nanos, 3600 * NANOS_PER_SECOND),
            "m" => (&mut self.nanos, 60 * NANOS_PER_SECOND),
            "s" => (&mut self.nanos, NANOS_PER_SECOND),
            "ms" => (&mut self.nanos, 1_000_000),
            "us" | "µs" => (&mut self.nanos, 1_000),
            "ns" => (&mut self.nanos, 1),
            _ => return None,
        };
        *field = field.checked_add(count.checked_mul(factor)?)?;
        Some(())
    }

    fn finish(self) -> Option<TokenKind> {
        Some(TokenKind::Duration {
            months: i32::try_from(self.months).ok()?,
            days: i32::try_from(self.days).ok()?,
            nanos: self.nanos,
        })
    }
}

/// `1y2mo3w4d5h6m7s8ms9us10ns`, and how long it is.
fn unit_duration(text: &str) -> Option<(TokenKind, usize)> {
    let mut sum = DurationSum::default();
    let mut at = 0;
    while text[at..].starts_with(|next: char| next.is_ascii_digit()) {
        let digits = text[at..].find(|next: char| !next.is_ascii_digit())?;
        let count: i64 = text[at..at + digits].parse().ok()?;
        at += digits;
        let unit = text[at..]
            .find(|next: char| !next.is_ascii_alphabetic() && next != 'µ')
            .unwrap_or(text.len() - at);
        sum.add(count, &text[at..at + unit].to_lowercase())?;
        at += unit;
    }
    Some((sum.finish()?, at))
}

/// `P1Y2M3DT4H5M6S`, `P4W` and `P0001-02-03T04:05:06`, and how long it is.
fn iso_duration(text: &str) -> Option<(TokenKind, usize)> {
    let length = text
        .find(|next: char| !next.is_ascii_alphanumeric() && next != '-' && next != ':')
        .unwrap_or(text.len());
    let body = text[1..length].to_ascii_lowercase();
    let mut sum = DurationSum::default();
    if body.contains('-') {
        let (date, time) = body.split_once('t')?;
        let units = ["y", "mo", "d"].iter().zip(date.split('-'));
        let clock = ["h", "m", "s"].iter().zip(time.split(':'));
        for (unit, count) in units.chain(clock) {
            sum.add(count.parse().ok()?, unit)?;
        }
        return Some((sum.finish()?, length));
    }
    let mut is_time = false;
    let mut digits = String::new();
    for next in body.chars() {
        match next {
            't' if digits.is_empty() => is_time = true,
            _ if next.is_ascii_digit() => digits.push(next),
            _ => {
                let unit = match (next, is_time) {
                    ('m', false) => "mo",
                    ('m', true) => "m",
                    ('y', false) => "y",
                    ('w', false) => "w",
                    ('d', false) => "d",
                    ('h', true) => "h",
                    ('s', true) => "s",
                    _ => return None,
                };
                sum.add(digits.parse().ok()?, unit)?;
                digits.clear();
            }
        }
    }
    if !digits.is_empty() {
        return None;
    }
    Some((sum.finish()?, length))
}
