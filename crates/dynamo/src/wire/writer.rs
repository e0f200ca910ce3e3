//! Writes JSON into one buffer. The caller keeps the grammar: commas are put by `key` and `element`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt::{Display, Write};

#[derive(Debug, Default)]
pub struct Writer {
    text: String,
}

impl Writer {
    pub fn with_capacity(capacity: usize) -> Writer {
        Writer {
            text: String::with_capacity(capacity),
        }
    }

    pub fn finish(self) -> String {
        self.text
    }

    /// A comma, unless a value would be the first of its object or array.
    fn separate(&mut self) {
        if !matches!(self.text.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.text.push(',');
        }
    }

    pub fn begin_object(&mut self) {
        self.separate();
        self.text.push('{');
    }

    pub fn end_object(&mut self) {
        self.text.push('}');
    }

    pub fn begin_array(&mut self) {
        self.separate();
        self.text.push('[');
    }

    pub fn end_array(&mut self) {
        self.text.push(']');
    }

    pub fn key(&mut self, name: &str) {
        self.separate();
        self.quoted(name);
        self.text.push(':');
    }

    pub fn string(&mut self, value: &str) {
        self.separate();
        self.quoted(value);
    }

    pub fn base64(&mut self, bytes: &[u8]) {
        self.separate();
        self.text.push('"');
        STANDARD.encode_string(bytes, &mut self.text);
        self.text.push('"');
    }

    /// A number or a bool, as it prints.
    pub fn plain(&mut self, value: impl Display) {
        self.separate();
        self.display(value);
    }

    /// As a string, where what it prints needs no escapes.
    pub fn quoted_plain(&mut self, value: impl Display) {
        self.separate();
        self.text.push('"');
        self.display(value);
        self.text.push('"');
    }

    fn display(&mut self, value: impl Display) {
        // Writing into a string cannot fail.
        let _ = write!(self.text, "{value}");
    }

    fn quoted(&mut self, value: &str) {
        self.text.push('"');
        let mut start = 0;
        for (index, byte) in value.bytes().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.text.push_str(&value[start..index]);
            start = index + 1;
            match byte {
                b'"' => self.text.push_str("\\\""),
                b'\\' => self.text.push_str("\\\\"),
                b'\n' => self.text.push_str("\\n"),
                b'\r' => self.text.push_str("\\r"),
                b'\t' => self.text.push_str("\\t"),
                _ => self.display(format_args!("\\u{byte:04x}")),
            }
        }
        self.text.push_str(&value[start..]);
        self.text.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_json() {
        let mut writer = Writer::default();
        writer.begin_object();
        writer.key("a\"\u{1}");
        writer.begin_array();
        writer.plain(1);
        writer.string("x\ny");
        writer.begin_object();
        writer.end_object();
        writer.base64(b"\x00\xff");
        writer.end_array();
        writer.key("b");
        writer.quoted_plain(2.5);
        writer.end_object();
        assert_eq!(
            writer.finish(),
            r#"{"a\"\u0001":[1,"x\ny",{},"AP8="],"b":"2.5"}"#
        );
    }
}
