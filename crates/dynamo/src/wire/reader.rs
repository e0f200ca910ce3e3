//! A pull parser for JSON text: the caller says what it expects, nothing is built that was not asked for.

use std::borrow::Cow;

/// Levels of arrays and objects: an item nests 32 levels, each two of JSON, below a few of the request's own.
pub const DEPTH_MAX: u32 = 160;

/// The text is not JSON, or nests too deeply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    True,
    False,
    Number,
    String,
    Array,
    Object,
}

#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    position: usize,
    depth: u32,
}

/// Where the reader is in an array or object.
#[derive(Debug)]
pub struct Sequence {
    is_first: bool,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Reader<'a> {
        Reader {
            text,
            position: 0,
            depth: 0,
        }
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// The next byte behind white space, which stays where it is.
    fn peek(&mut self) -> Result<u8, Malformed> {
        let bytes = self.bytes();
        while let Some(byte) = bytes.get(self.position) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(*byte);
            }
            self.position += 1;
        }
        Err(Malformed)
    }

    fn expect(&mut self, expected: u8) -> Result<(), Malformed> {
        if self.peek()? == expected {
            self.position += 1;
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// What the next value is.
    pub fn kind(&mut self) -> Result<Kind, Malformed> {
        match self.peek()? {
            b'n' => Ok(Kind::Null),
            b't' => Ok(Kind::True),
            b'f' => Ok(Kind::False),
            b'"' => Ok(Kind::String),
            b'[' => Ok(Kind::Array),
            b'{' => Ok(Kind::Object),
            b'-' | b'0'..=b'9' => Ok(Kind::Number),
            _ => Err(Malformed),
        }
    }

    /// Reads `null`, `true` or `false`.
    pub fn word(&mut self) -> Result<Kind, Malformed> {
        let kind = self.kind()?;
        let word = match kind {
            Kind::Null => "null",
            Kind::True => "true",
            Kind::False => "false",
            _ => return Err(Malformed),
        };
        if !self.text[self.position..].starts_with(word) {
            return Err(Malformed);
        }
        self.position += word.len();
        Ok(kind)
    }

    /// Reads a number and returns its text.
    pub fn number(&mut self) -> Result<&'a str, Malformed> {
        self.peek()?;
        let start = self.position;
        let bytes = self.bytes();
        let digits = |mut position: usize| {
            let start = position;
            while bytes.get(position).is_some_and(u8::is_ascii_digit) {
                position += 1;
            }
            (position > start).then_some(position).ok_or(Malformed)
        };
        let mut position = start + usize::from(bytes[start] == b'-');
        let leading_zero = bytes.get(position) == Some(&b'0');
        let whole = digits(position)?;
        if leading_zero && whole > position + 1 {
            return Err(Malformed);
        }
        position = whole;
        if bytes.get(position) == Some(&b'.') {
            position = digits(position + 1)?;
        }
        if matches!(bytes.get(position), Some(b'e' | b'E')) {
            position += 1;
            if matches!(bytes.get(position), Some(b'+' | b'-')) {
                position += 1;
            }
            position = digits(position)?;
        }
        self.position = position;
        Ok(&self.text[start..position])
    }

    /// Reads a string; it is copied only when it has escapes.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Malformed> {
        self.expect(b'"')?;
        let bytes = self.bytes();
        let start = self.position;
        loop {
            match bytes.get(self.position) {
                Some(b'"') => {
                    let string = &self.text[start..self.position];
                    self.position += 1;
                    return Ok(Cow::Borrowed(string));
                }
                Some(b'\\') => return self.escaped_string(start).map(Cow::Owned),
                Some(0..=0x1F) | None => return Err(Malformed),
                Some(_) => self.position += 1,
            }
        }
    }

    /// Goes on from the first backslash.
    fn escaped_string(&mut self, start: usize) -> Result<String, Malformed> {
        let bytes = self.bytes();
        let mut string = String::from(&self.text[start..self.position]);
        loop {
            let run = self.position;
            while !matches!(
                bytes.get(self.position),
                Some(b'"' | b'\\' | 0..=0x1F) | None
            ) {
                self.position += 1;
            }
            string.push_str(&self.text[run..self.position]);
            match bytes.get(self.position) {
                Some(b'"') => {
                    self.position += 1;
                    return Ok(string);
                }
                Some(b'\\') => {
                    self.position += 1;
                    string.push(self.escape()?);
                }
                _ => return Err(Malformed),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        let byte = *self.bytes().get(self.position).ok_or(Malformed)?;
        self.position += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                let code = if (0xD800..0xDC00).contains(&first) {
                    // The first half of a surrogate pair: the second must follow.
                    if !self.text[self.position..].starts_with("\\u") {
                        return Err(Malformed);
                    }
                    self.position += 2;
                    let second = self.hex()?;
                    if !(0xDC00..0xE000).contains(&second) {
                        return Err(Malformed);
                    }
                    0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
                } else {
                    first
                };
                char::from_u32(code).ok_or(Malformed)?
            }
            _ => return Err(Malformed),
        })
    }

    fn hex(&mut self) -> Result<u32, Malformed> {
        let digits = self
            .bytes()
            .get(self.position..self.position + 4)
            .ok_or(Malformed)?;
        let mut code = 0;
        for digit in digits {
            code = code * 16 + char::from(*digit).to_digit(16).ok_or(Malformed)?;
        }
        self.position += 4;
        Ok(code)
    }

    fn begin(&mut self, opening: u8) -> Result<Sequence, Malformed> {
        self.expect(opening)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Malformed);
        }
        Ok(Sequence { is_first: true })
    }

    pub fn begin_object(&mut self) -> Result<Sequence, Malformed> {
        self.begin(b'{')
    }

    pub fn begin_array(&mut self) -> Result<Sequence, Malformed> {
        self.begin(b'[')
    }

    /// Whether another element follows, with the comma before it read; if none does, the end is read.
    fn advance(&mut self, sequence: &mut Sequence, closing: u8) -> Result<bool, Malformed> {
        let byte = self.peek()?;
        if byte == closing {
            self.position += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if sequence.is_first {
            sequence.is_first = false;
        } else {
            self.expect(b',')?;
        }
        Ok(true)
    }

    pub fn next_element(&mut self, sequence: &mut Sequence) -> Result<bool, Malformed> {
        self.advance(sequence, b']')
    }

    pub fn next_key(&mut self, sequence: &mut Sequence) -> Result<Option<Cow<'a, str>>, Malformed> {
        if !self.advance(sequence, b'}')? {
            return Ok(None);
        }
        let key = self.string()?;
        self.expect(b':')?;
        Ok(Some(key))
    }

    /// Reads one value of any kind and returns its text.
    pub fn skip(&mut self) -> Result<&'a str, Malformed> {
        self.peek()?;
        let start = self.position;
        match self.kind()? {
            Kind::Null | Kind::True | Kind::False => {
                self.word()?;
            }
            Kind::Number => {
                self.number()?;
            }
            Kind::String => {
                self.string()?;
            }
            Kind::Array => {
                let mut sequence = self.begin_array()?;
                while self.next_element(&mut sequence)? {
                    self.skip()?;
                }
            }
            Kind::Object => {
                let mut sequence = self.begin_object()?;
                while self.next_key(&mut sequence)?.is_some() {
                    self.skip()?;
                }
            }
        }
        Ok(&self.text[start..self.position])
    }

    /// Nothing but white space may be left.
    pub fn end(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Ok(_) => Err(Malformed),
            Err(Malformed) => Ok(()),
        }
    }
}

/// Whether a text is one JSON value.
pub fn is_json(text: &str) -> bool {
    let mut reader = Reader::new(text);
    reader.skip().is_ok() && reader.end().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_with_and_without_escapes() {
        let read = |text: &str| Reader::new(text).string().map(Cow::into_owned);
        assert_eq!(read(r#""plain ü""#), Ok("plain ü".into()));
        assert_eq!(
            read(r#""a\n\"\u00fc\ud83d\ude00z""#),
            Ok("a\n\"ü😀z".into())
        );
        for bad in [
            r#""open"#,
            r#""\ud83d""#,
            r#""\x""#,
            "\"a\nb\"",
            r#""\u12""#,
        ] {
            assert_eq!(read(bad), Err(Malformed), "{bad}");
        }
    }

    #[test]
    fn only_json_is_json() {
        for good in [
            "{}",
            " [1, -0.5e+3, \"a\", null, {\"a\": [true,false]}] ",
            "0",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "hi",
            "{,}",
            "[1,]",
            "{\"a\" 1}",
            "01",
            "1.",
            "-",
            "nul",
            "{} {}",
            "[1 2]",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
        assert!(is_json(&format!("{}{}", "[".repeat(160), "]".repeat(160))));
        assert!(!is_json(&format!("{}{}", "[".repeat(161), "]".repeat(161))));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,64}") {
            is_json(&text);
        }

        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}:,"0-9a.eE\\u \-ntrufls+]{0,24}"#) {
            let expected = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            // serde_json refuses numbers that overflow a double; such are fine here.
            prop_assert!(is_json(&text) == expected || text.contains(['e', 'E']));
        }
    }
}
