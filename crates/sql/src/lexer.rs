//! GoogleSQL text to tokens. Knows the lexical rules (comments, quoted names, the string forms with their
//! escapes, numbers) and nothing of the grammar. Never panics; refuses texts longer than `TEXT_BYTES_MAX`.

use crate::error::{Error, Offset};

/// Spanner's own limit on a statement is a million characters.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Debug, PartialEq)]
pub enum TokenKind {
    /// A name or a keyword. Only an unquoted one can be a keyword.
    Word {
        text: String,
        quoted: bool,
    },
    /// As written: decimal or `0x…`.
    Integer(String),
    Float(String),
    String(String),
    Bytes(Vec<u8>),
    /// `@name`.
    Parameter(String),
    /// `@@name`.
    SystemVariable(String),
    Symbol(&'static str),
    End,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub kind: TokenKind,
    pub start: Offset,
    pub end: Offset,
}

/// Longest first, so that the first match is the right one.
const SYMBOLS: [&str; 37] = [
    "<<", ">>", "<=", ">=", "<>", "!=", "||", "=>", "->", "|>", "+=", "-=", "@{", "(", ")", "[",
    "]", "{", "}", ",", ".", ";", ":", "+", "-", "*", "/", "~", "&", "|", "^", "=", "<", ">", "?",
    "!", "@",
];

pub fn tokenize(text: &str) -> Result<Vec<Token>, Error> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the statement is longer than {TEXT_BYTES_MAX} bytes"
        )));
    }
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next().map_err(|error| error.in_text(text))?;
        let is_end = token.kind == TokenKind::End;
        tokens.push(token);
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn byte(&self, ahead: usize) -> u8 {
        self.text
            .as_bytes()
            .get(self.at + ahead)
            .copied()
            .unwrap_or(0)
    }

    fn next(&mut self) -> Result<Token, Error> {
        self.skip_blanks()?;
        let start = self.at;
        let kind = self.kind()?;
        Ok(Token {
            kind,
            start,
            end: self.at,
        })
    }

    fn skip_blanks(&mut self) -> Result<(), Error> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with('#') || trimmed.starts_with("--") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if trimmed.starts_with("/*") {
                let Some(end) = trimmed.find("*/") else {
                    return Err(Error::syntax("Unclosed comment").at(self.at));
                };
                self.at += end + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn kind(&mut self) -> Result<TokenKind, Error> {
        let start = self.at;
        let first = self.byte(0);
        if start >= self.text.len() {
            return Ok(TokenKind::End);
        }
        if first == b'`' {
            self.at += 1;
            let text = self.quoted('`', 1, false, false)?.0;
            if text.is_empty() {
                return Err(Error::syntax("Invalid empty identifier").at(start));
            }
            return Ok(TokenKind::Word { text, quoted: true });
        }
        if let Some(literal) = self.string_literal()? {
            return Ok(literal);
        }
        if is_word_start(first) {
            let text = self.word();
            return Ok(TokenKind::Word {
                text,
                quoted: false,
            });
        }
        if first.is_ascii_digit() || (first == b'.' && self.byte(1).is_ascii_digit()) {
            return self.number();
        }
        if first == b'@' && self.byte(1) == b'@' && is_word_start(self.byte(2)) {
            self.at += 2;
            return Ok(TokenKind::SystemVariable(self.word()));
        }
        if first == b'@' && is_word_start(self.byte(1)) {
            self.at += 1;
            return Ok(TokenKind::Parameter(self.word()));
        }
        if first == b'@' && self.byte(1) == b'`' {
            self.at += 2;
            return Ok(TokenKind::Parameter(self.quoted('`', 1, false, false)?.0));
        }
        for symbol in SYMBOLS {
            if self.rest().starts_with(symbol) {
                self.at += symbol.len();
                return Ok(TokenKind::Symbol(symbol));
            }
        }
        let found = self.rest().chars().next().unwrap_or(' ');
        Err(Error::syntax(format!("Illegal input character {found:?}")).at(start))
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while is_word(self.byte(0)) {
            self.at += 1;
        }
        self.text[start..self.at].to_owned()
    }

    fn number(&mut self) -> Result<TokenKind, Error> {
        let start = self.at;
        if self.byte(0) == b'0' && matches!(self.byte(1), b'x' | b'X') {
            self.at += 2;
            let digits = self.at;
            while self.byte(0).is_ascii_hexdigit() {
                self.at += 1;
            }
            if self.at == digits || is_word(self.byte(0)) {
                return Err(Error::syntax("Invalid hexadecimal number").at(start));
            }
            return Ok(TokenKind::Integer(self.text[start..self.at].to_owned()));
        }
        let mut is_float = false;
        while self.byte(0).is_ascii_digit() {
            self.at += 1;
        }
        if self.byte(0) == b'.' {
            is_float = true;
            self.at += 1;
            while self.byte(0).is_ascii_digit() {
                self.at += 1;
            }
        }
        if matches!(self.byte(0), b'e' | b'E') {
            let signed = usize::from(matches!(self.byte(1), b'+' | b'-'));
            if self.byte(1 + signed).is_ascii_digit() {
                is_float = true;
                self.at += 1 + signed;
                while self.byte(0).is_ascii_digit() {
                    self.at += 1;
                }
            }
        }
        if is_word(self.byte(0)) {
            return Err(Error::syntax("Missing whitespace between literal and alias").at(self.at));
        }
        let text = self.text[start..self.at].to_owned();
        Ok(if is_float {
            TokenKind::Float(text)
        } else {
            TokenKind::Integer(text)
        })
    }

    /// A string or bytes literal with its prefixes, if there is one here.
    fn string_literal(&mut self) -> Result<Option<TokenKind>, Error> {
        let (mut raw, mut bytes, mut prefix) = (false, false, 0);
        while prefix < 2 {
            match self.byte(prefix) {
                b'r' | b'R' if !raw => raw = true,
                b'b' | b'B' if !bytes => bytes = true,
                _ => break,
            }
            prefix += 1;
        }
        let quote = match self.byte(prefix) {
            b'\'' => '\'',
            b'"' => '"',
            _ => return Ok(None),
        };
        self.at += prefix;
        let triple: String = std::iter::repeat_n(quote, 3).collect();
        let count = if self.rest().starts_with(&triple) {
            3
        } else {
            1
        };
        self.at += count;
        let (text, data) = self.quoted(quote, count, raw, bytes)?;
        Ok(Some(if bytes {
            TokenKind::Bytes(data)
        } else {
            TokenKind::String(text)
        }))
    }

    /// The rest of a quoted thing, its closing quote included; text, or bytes when `bytes`.
    fn quoted(
        &mut self,
        quote: char,
        count: usize,
        raw: bool,
        bytes: bool,
    ) -> Result<(String, Vec<u8>), Error> {
        let start = self.at;
        let close: String = std::iter::repeat_n(quote, count).collect();
        let mut data = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(&close) {
                self.at += close.len();
                break;
            }
            let Some(next) = rest.chars().next() else {
                let what = if quote == '`' {
                    "identifier"
                } else {
                    "string literal"
                };
                return Err(Error::syntax(format!("Unclosed {what}")).at(start.saturating_sub(1)));
            };
            if next == '\n' && count == 1 {
                return Err(Error::syntax("Unclosed string literal").at(start.saturating_sub(1)));
            }
            self.at += next.len_utf8();
            if next == '\\' {
                self.escape(raw, bytes, &mut data)?;
            } else {
                data.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if bytes {
            return Ok((String::new(), data));
        }
        let text = String::from_utf8(data)
            .map_err(|_| Error::syntax("Structurally invalid UTF8 string").at(start))?;
        Ok((text, Vec::new()))
    }

    /// What follows a backslash.
    fn escape(&mut self, raw: bool, bytes: bool, data: &mut Vec<u8>) -> Result<(), Error> {
        let at = self.at - 1;
        let Some(next) = self.rest().chars().next() else {
            return Err(Error::syntax("Unclosed string literal").at(at));
        };
        self.at += next.len_utf8();
        if raw {
            data.push(b'\\');
            data.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(());
        }
        let illegal = || Error::syntax(format!("Illegal escape sequence: \\{next}")).at(at);
        let code = match next {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            '\\' | '?' | '"' | '\'' | '`' => next as u32,
            '0'..='3' => {
                self.at -= 1;
                self.digits(3, 8).ok_or_else(illegal)?
            }
            'x' | 'X' => self.digits(2, 16).ok_or_else(illegal)?,
            'u' if !bytes => self.digits(4, 16).ok_or_else(illegal)?,
            'U' if !bytes => self.digits(8, 16).ok_or_else(illegal)?,
            _ => return Err(illegal()),
        };
        if bytes {
            data.push(code as u8);
            return Ok(());
        }
        let character = char::from_u32(code).ok_or_else(illegal)?;
        data.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn digits(&mut self, count: usize, radix: u32) -> Option<u32> {
        let digits = self.rest().get(..count)?;
        if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let value = u32::from_str_radix(digits, radix).ok()?;
        self.at += count;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(text: &str) -> Vec<TokenKind> {
        let mut kinds: Vec<TokenKind> = tokenize(text)
            .unwrap()
            .into_iter()
            .map(|token| token.kind)
            .collect();
        assert_eq!(kinds.pop(), Some(TokenKind::End));
        kinds
    }

    #[test]
    fn literals_of_every_form() {
        assert_eq!(
            kinds(r#"'a\n' r'\n' b'\xff' """x"y""" '' 1 0xAF 1.5e-3 .5 7. @p @{"#),
            vec![
                TokenKind::String("a\n".into()),
                TokenKind::String("\\n".into()),
                TokenKind::Bytes(vec![0xFF]),
                TokenKind::String("x\"y".into()),
                TokenKind::String(String::new()),
                TokenKind::Integer("1".into()),
                TokenKind::Integer("0xAF".into()),
                TokenKind::Float("1.5e-3".into()),
                TokenKind::Float(".5".into()),
                TokenKind::Float("7.".into()),
                TokenKind::Parameter("p".into()),
                TokenKind::Symbol("@{"),
            ]
        );
    }

    #[test]
    fn comments_and_names() {
        let word = |text: &str, quoted| TokenKind::Word {
            text: text.into(),
            quoted,
        };
        assert_eq!(
            kinds("a -- x\n # y\n /* z\n */ `b c`.d"),
            vec![
                word("a", false),
                word("b c", true),
                TokenKind::Symbol("."),
                word("d", false)
            ]
        );
    }

    #[test]
    fn errors_name_the_place() {
        let message = |text| tokenize(text).unwrap_err().to_string();
        assert_eq!(
            message("SELECT\n  'abc"),
            "Syntax error: Unclosed string literal [at 2:3]"
        );
        assert_eq!(
            message("a ยง"),
            "Syntax error: Illegal input character 'ย' [at 1:3]"
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,60}") {
            let _ = tokenize(&text);
        }

        #[test]
        fn never_panics_on_quotes(text in r#"[rbRB'"`\\xuU0-9a-f\n.@-]{0,40}"#) {
            let _ = tokenize(&text);
        }
    }
}
