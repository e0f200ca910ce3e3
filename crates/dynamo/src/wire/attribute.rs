//! Attribute values and items on the wire: `{"S": "text"}` and `{"name": {"S": "text"}, …}`.
//!
//! An attribute value can be of the right JSON kind and still not be valid (two types at once, a number of 39
//! digits, an empty set): that is found while reading and kept, because the service reports it only after
//! other checks.

use super::decode::{
    Blob, Decode, DecodeError, MapDecode, Position, list_elements, optional, require_list,
    require_map, require_structure,
};
use super::reader::{Kind, Reader};
use super::writer::Writer;
use api::document::{self, AttributeType, Item};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::number::NumberError;
use model::{Number, Value};

const CLASS: &str = "com.amazonaws.dynamodb.v20120810.AttributeValue";

const EMPTY: &str =
    "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes";
const TWO_TYPES: &str = "Supplied AttributeValue has more than one datatypes set, must contain exactly one of \
    the supported datatypes";
pub const TOO_DEEP: &str =
    "Nesting Levels have exceeded supported limits: Attributes have 32 levels of nesting";

/// A value, or why it is not valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute(pub Result<Value, String>);

/// An item or a key as a request gives it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttributeMap {
    /// Attributes that are not valid are here as nulls.
    pub item: Item,
    /// The first attribute that is not valid, and why.
    pub invalid: Option<(String, String)>,
}

impl AttributeMap {
    /// The item, if all its attributes are valid.
    pub fn check(&self) -> Result<&Item, String> {
        match &self.invalid {
            Some((_, message)) => Err(message.clone()),
            None => Ok(&self.item),
        }
    }
}

impl Decode for Attribute {
    const CLASS: &'static str = CLASS;

    fn decode(reader: &mut Reader<'_>, position: Position) -> Result<Attribute, DecodeError> {
        require_structure(reader, position, CLASS)?;
        let mut sequence = reader.begin_object()?;
        let mut found: Option<(AttributeType, Result<Value, String>)> = None;
        let mut has_two = false;
        while let Some(key) = reader.next_key(&mut sequence)? {
            let Some(kind) = AttributeType::from_descriptor(&key) else {
                reader.skip()?;
                continue;
            };
            if reader.kind()? == Kind::Null {
                reader.word()?;
                continue;
            }
            let value = typed_value(reader, kind)?;
            match &found {
                Some((earlier, result)) if *earlier != kind => {
                    has_two = true;
                    if result.is_ok() && value.is_err() {
                        found = Some((kind, value));
                    }
                }
                _ => found = Some((kind, value)),
            }
        }
        Ok(Attribute(match found {
            None => Err(EMPTY.into()),
            Some((_, Ok(_))) if has_two => Err(TWO_TYPES.into()),
            Some((_, result)) => result,
        }))
    }
}

/// Reads the value behind a type's descriptor.
fn typed_value(
    reader: &mut Reader<'_>,
    kind: AttributeType,
) -> Result<Result<Value, String>, DecodeError> {
    Ok(match kind {
        AttributeType::String => Ok(Value::Text(String::decode(reader, Position::Field)?)),
        AttributeType::Number => parse_number(&String::decode(reader, Position::Field)?),
        AttributeType::Binary => Ok(Value::Bytes(Blob::decode(reader, Position::Field)?.0)),
        AttributeType::Bool => Ok(Value::Bool(bool::decode(reader, Position::Field)?)),
        AttributeType::Null => {
            if bool::decode(reader, Position::Field)? {
                Ok(Value::Null)
            } else {
                Err("One or more parameter values were invalid: Null attribute value types must have the \
                     value of true"
                    .into())
            }
        }
        AttributeType::StringSet => string_set(Vec::decode(reader, Position::Field)?),
        AttributeType::NumberSet => number_set(&Vec::decode(reader, Position::Field)?),
        AttributeType::BinarySet => binary_set(Vec::decode(reader, Position::Field)?),
        AttributeType::List => {
            require_list(reader)?;
            let elements = list_elements(reader, |reader| {
                Ok(optional::<Attribute>(reader, Position::Element)?
                    .map_or(Err(EMPTY.into()), |attribute| attribute.0))
            })?;
            elements
                .into_iter()
                .collect::<Result<_, _>>()
                .map(Value::List)
        }
        AttributeType::Map => {
            require_map(reader, CLASS)?;
            let map = AttributeMap::decode_entries(reader)?;
            match map.invalid {
                Some((_, message)) => Err(message),
                None => Ok(Value::Document(map.item)),
            }
        }
    })
}

fn parse_number(text: &str) -> Result<Value, String> {
    if text.is_empty() {
        return Err("The parameter cannot be converted to a numeric value".into());
    }
    match Number::parse(text) {
        Ok(number) => Ok(Value::Number(number)),
        Err(NumberError::Overflow) => Err(
            "Number overflow. Attempting to store a number with magnitude larger than supported range"
                .into(),
        ),
        Err(NumberError::Underflow) => Err(
            "Number underflow. Attempting to store a number with magnitude smaller than supported range"
                .into(),
        ),
        Err(NumberError::TooManyDigits) => {
            Err("Attempting to store more than 38 significant digits in a Number".into())
        }
        Err(_) => Err(format!(
            "The parameter cannot be converted to a numeric value: {text}"
        )),
    }
}

fn string_set(members: Vec<String>) -> Result<Value, String> {
    if members.is_empty() {
        return Err(
            "One or more parameter values were invalid: An string set  may not be empty".into(),
        );
    }
    let shown = || format!("[{}]", members.join(", "));
    let values = members.iter().cloned().map(Value::Text).collect();
    sorted_set(values).ok_or_else(|| {
        format!(
            "One or more parameter values were invalid: Input collection {} contains duplicates.",
            shown()
        )
    })
}

fn number_set(members: &[String]) -> Result<Value, String> {
    if members.is_empty() {
        return Err(
            "One or more parameter values were invalid: An number set  may not be empty".into(),
        );
    }
    let values = members
        .iter()
        .map(|member| parse_number(member))
        .collect::<Result<_, _>>()?;
    sorted_set(values).ok_or_else(|| "Input collection contains duplicates".into())
}

fn binary_set(members: Vec<Blob>) -> Result<Value, String> {
    if members.is_empty() {
        return Err(
            "One or more parameter values were invalid: Binary sets should not be empty".into(),
        );
    }
    let shown: Vec<String> = members
        .iter()
        .map(|member| STANDARD.encode(&member.0))
        .collect();
    let values = members
        .into_iter()
        .map(|member| Value::Bytes(member.0))
        .collect();
    sorted_set(values).ok_or_else(|| {
        format!(
            "One or more parameter values were invalid: Input collection [{}]of type BS contains duplicates.",
            shown.join(", ")
        )
    })
}

/// The set, if no member comes twice.
fn sorted_set(mut values: Vec<Value>) -> Option<Value> {
    values
        .sort_by(|left, right| document::compare(left, right).unwrap_or(std::cmp::Ordering::Equal));
    let has_duplicates = values.windows(2).any(|pair| pair[0] == pair[1]);
    (!has_duplicates).then_some(Value::Set(values))
}

impl MapDecode for AttributeMap {
    const VALUE_CLASS: &'static str = CLASS;

    fn decode_entries(reader: &mut Reader<'_>) -> Result<AttributeMap, DecodeError> {
        let mut sequence = reader.begin_object()?;
        let mut map = AttributeMap::default();
        while let Some(name) = reader.next_key(&mut sequence)? {
            let Some(attribute) = optional::<Attribute>(reader, Position::Element)? else {
                continue;
            };
            let value = attribute.0.unwrap_or_else(|message| {
                map.invalid
                    .get_or_insert((name.clone().into_owned(), message));
                Value::Null
            });
            map.item.insert(name.into_owned(), value);
        }
        Ok(map)
    }
}

impl Decode for AttributeMap {
    const CLASS: &'static str = "java.util.Map";

    fn decode(reader: &mut Reader<'_>, _: Position) -> Result<AttributeMap, DecodeError> {
        require_map(reader, CLASS)?;
        let mut map = AttributeMap::decode_entries(reader)?;
        if map.invalid.is_none() {
            map.invalid = map
                .item
                .iter()
                .find(|(_, value)| document::depth(value) > document::DEPTH_MAX)
                .map(|(name, _)| (name.clone(), TOO_DEEP.into()));
        }
        Ok(map)
    }
}

/// Writes `{"S": …}` and so on.
pub fn write_value(writer: &mut Writer, value: &Value) {
    writer.begin_object();
    match value {
        Value::Text(text) => {
            writer.key("S");
            writer.string(text);
        }
        Value::Number(number) => {
            writer.key("N");
            writer.quoted_plain(number);
        }
        Value::Bytes(bytes) => {
            writer.key("B");
            writer.base64(bytes);
        }
        Value::Bool(value) => {
            writer.key("BOOL");
            writer.plain(value);
        }
        Value::List(elements) => {
            writer.key("L");
            writer.begin_array();
            for element in elements {
                write_value(writer, element);
            }
            writer.end_array();
        }
        Value::Document(fields) => {
            writer.key("M");
            write_item(writer, fields);
        }
        Value::Set(members) => write_set(writer, members),
        // Null, and what no door of this kind stores.
        _ => {
            writer.key("NULL");
            writer.plain(true);
        }
    }
    writer.end_object();
}

fn write_set(writer: &mut Writer, members: &[Value]) {
    writer.key(match members.first() {
        Some(Value::Number(_)) => "NS",
        Some(Value::Bytes(_)) => "BS",
        _ => "SS",
    });
    writer.begin_array();
    for member in members {
        match member {
            Value::Text(text) => writer.string(text),
            Value::Number(number) => writer.quoted_plain(number),
            Value::Bytes(bytes) => writer.base64(bytes),
            _ => {}
        }
    }
    writer.end_array();
}

pub fn write_item<'a>(
    writer: &mut Writer,
    attributes: impl IntoIterator<Item = (&'a String, &'a Value)>,
) {
    writer.begin_object();
    for (name, value) in attributes {
        writer.key(name);
        write_value(writer, value);
    }
    writer.end_object();
}

#[cfg(test)]
mod tests {
    use super::super::decode::body;
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Value, String> {
        body::<Attribute>(text).expect("well formed").0
    }

    fn written(value: &Value) -> String {
        let mut writer = Writer::default();
        write_value(&mut writer, value);
        writer.finish()
    }

    #[test]
    fn values_there_and_back() {
        for text in [
            r#"{"S":"a\"b"}"#,
            r#"{"N":"-1.5"}"#,
            r#"{"B":"AP8="}"#,
            r#"{"BOOL":false}"#,
            r#"{"NULL":true}"#,
            r#"{"SS":["a","b"]}"#,
            r#"{"NS":["-1","2"]}"#,
            r#"{"BS":["AA==","AQ=="]}"#,
            r#"{"L":[{"S":""},{"L":[]}]}"#,
            r#"{"M":{"x":{"N":"0"},"y":{"M":{}}}}"#,
        ] {
            assert_eq!(written(&read(text).expect(text)), text);
        }
        assert_eq!(
            written(&read(r#"{"N":"1e3"}"#).expect("a number")),
            r#"{"N":"1000"}"#
        );
        assert_eq!(
            written(&read(r#"{"SS":["b","a"]}"#).expect("a set")),
            r#"{"SS":["a","b"]}"#
        );
    }

    #[test]
    fn invalid_values() {
        for (text, message) in [
            ("{}", EMPTY),
            (r#"{"S":null}"#, EMPTY),
            (r#"{"S":"a","N":"1"}"#, TWO_TYPES),
            (
                r#"{"N":""}"#,
                "The parameter cannot be converted to a numeric value",
            ),
            (
                r#"{"N":"b"}"#,
                "The parameter cannot be converted to a numeric value: b",
            ),
            (
                r#"{"N":"NaN"}"#,
                "The parameter cannot be converted to a numeric value: NaN",
            ),
            (
                r#"{"NS":["1","1.0"]}"#,
                "Input collection contains duplicates",
            ),
            (
                r#"{"SS":["a","a"]}"#,
                "One or more parameter values were invalid: Input collection [a, a] contains duplicates.",
            ),
            (r#"{"L":[{"M":{"a":{}}}]}"#, EMPTY),
        ] {
            assert_eq!(read(text), Err(message.to_string()), "{text}");
        }
    }

    #[test]
    fn wrong_kinds() {
        let kind = |text: &str| match body::<AttributeMap>(text) {
            Err(DecodeError::Kind(message)) => message,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(
            kind(r#"{"a":{"N":123}}"#),
            "NUMBER_VALUE cannot be converted to String"
        );
        assert_eq!(kind(r#"{"a":"x"}"#), "Unexpected value type in payload");
        assert_eq!(kind(r#"{"a":{"L":"x"}}"#), UNEXPECTED);
        assert_eq!(
            kind(r#"{"a":{"B":"abc"}}"#),
            "Base64 encoded length is expected a multiple of 4 bytes but found: 3"
        );
        assert_eq!(
            body::<AttributeMap>(r#"{"a":1"#),
            Err(DecodeError::Malformed)
        );
    }

    const UNEXPECTED: &str = "Unexpected field type";

    proptest! {
        #[test]
        fn no_text_panics(text in r#"[\[\]{}:,"0-9SNBLMU. ]{0,48}"#) {
            let _ = body::<AttributeMap>(&text);
        }
    }
}
