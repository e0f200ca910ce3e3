//! Typed values out of JSON, with the service's words for values of a wrong kind.
//!
//! The words depend on the wanted type, and for structures on whether they stand in a field or inside a list
//! or map; they are facts of the service, quirks of its Java included. `null` is always the same as absence,
//! and unknown members are skipped.

use super::reader::{Kind, Malformed, Reader, is_json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;

/// Why a body cannot be read. Both are a `SerializationException`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON.
    Malformed,
    /// JSON, with a value of a wrong kind.
    Kind(String),
}

impl From<Malformed> for DecodeError {
    fn from(_: Malformed) -> DecodeError {
        DecodeError::Malformed
    }
}

impl DecodeError {
    fn kind<T>(message: impl Into<String>) -> Result<T, DecodeError> {
        Err(DecodeError::Kind(message.into()))
    }
}

/// Where a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The member of a structure.
    Field,
    /// An element of a list, or a map's value.
    Element,
}

pub trait Decode: Sized {
    /// The name of its class in the service's messages.
    const CLASS: &'static str;

    /// Reads a value that is not `null`.
    fn decode(reader: &mut Reader<'_>, position: Position) -> Result<Self, DecodeError>;
}

/// Reads a value or `null`.
pub fn optional<T: Decode>(
    reader: &mut Reader<'_>,
    position: Position,
) -> Result<Option<T>, DecodeError> {
    if reader.kind()? == Kind::Null {
        reader.word()?;
        return Ok(None);
    }
    T::decode(reader, position).map(Some)
}

/// Reads a whole body. Text that is not JSON is malformed even when a wrong kind comes first in it.
pub fn body<T: Decode>(text: &str) -> Result<T, DecodeError> {
    let mut reader = Reader::new(text);
    let decoded = T::decode(&mut reader, Position::Element);
    match decoded {
        Ok(value) => {
            reader.end()?;
            Ok(value)
        }
        Err(DecodeError::Kind(_)) if !is_json(text) => Err(DecodeError::Malformed),
        Err(error) => Err(error),
    }
}

const STRUCTURE: &str = "Start of structure or map found where not expected";
const UNEXPECTED_FIELD: &str = "Unexpected field type";

/// The service's complaint about a kind that a scalar cannot be made of.
fn not_a_scalar<T>(reader: &mut Reader<'_>, kind: Kind, scalar: &str) -> Result<T, DecodeError> {
    match kind {
        Kind::True => DecodeError::kind(format!("TRUE_VALUE cannot be converted to {scalar}")),
        Kind::False => DecodeError::kind(format!("FALSE_VALUE cannot be converted to {scalar}")),
        Kind::String => DecodeError::kind(format!("STRING_VALUE cannot be converted to {scalar}")),
        Kind::Number => {
            let is_whole = reader
                .number()?
                .parse::<f64>()
                .is_ok_and(|value| value.fract() == 0.0);
            let name = if is_whole { "NUMBER" } else { "DECIMAL" };
            DecodeError::kind(format!("{name}_VALUE cannot be converted to {scalar}"))
        }
        Kind::Array => DecodeError::kind(format!(
            "Unrecognized collection type class java.lang.{scalar}"
        )),
        Kind::Object => DecodeError::kind(STRUCTURE),
        Kind::Null => DecodeError::kind(UNEXPECTED_FIELD),
    }
}

impl Decode for String {
    const CLASS: &'static str = "java.lang.String";

    fn decode(reader: &mut Reader<'_>, _: Position) -> Result<String, DecodeError> {
        match reader.kind()? {
            Kind::String => Ok(reader.string()?.into_owned()),
            kind => not_a_scalar(reader, kind, "String"),
        }
    }
}

impl Decode for bool {
    const CLASS: &'static str = "java.lang.Boolean";

    fn decode(reader: &mut Reader<'_>, _: Position) -> Result<bool, DecodeError> {
        match reader.kind()? {
            Kind::True | Kind::False => Ok(reader.word()? == Kind::True),
            Kind::String => match reader.string()?.to_ascii_uppercase().as_str() {
                "TRUE" | "1" | "YES" => Ok(true),
                "FALSE" | "0" | "NO" => Ok(false),
                _ => DecodeError::kind("Unexpected token received from parser"),
            },
            kind => not_a_scalar(reader, kind, "Boolean"),
        }
    }
}

fn whole_number(reader: &mut Reader<'_>, scalar: &str) -> Result<i64, DecodeError> {
    match reader.kind()? {
        Kind::Number => {
            let text = reader.number()?;
            // A fraction is cut off; what is out of range saturates, and fails a constraint later.
            Ok(text.parse::<i64>().unwrap_or_else(|_| {
                text.parse::<f64>()
                    .map_or(i64::MAX, |value| value.floor() as i64)
            }))
        }
        kind => not_a_scalar(reader, kind, scalar),
    }
}

impl Decode for i32 {
    const CLASS: &'static str = "java.lang.Integer";

    fn decode(reader: &mut Reader<'_>, _: Position) -> Result<i32, DecodeError> {
        let value = whole_number(reader, "Integer")?;
        Ok(value.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32)
    }
}

impl Decode for i64 {
    const CLASS: &'static str = "java.lang.Long";

    fn decode(reader: &mut Reader<'_>, _: Position) -> Result<i64, DecodeError> {
        whole_number(reader, "Long")
    }
}

/// Bytes in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Decode for Blob {
    const CLASS: &'static str = "java.nio.ByteBuffer";

    fn decode(reader: &mut Reader<'_>, _: Position) -> Result<Blob, DecodeError> {
        let text = match reader.kind()? {
            Kind::String => reader.string()?,
            Kind::Array => {
                return DecodeError::kind("Unrecognized collection type class java.nio.ByteBuffer");
            }
            Kind::Object => return DecodeError::kind(STRUCTURE),
            _ => {
                return DecodeError::kind("only base-64-encoded strings are convertible to bytes");
            }
        };
        let length = text.encode_utf16().count();
        if !length.is_multiple_of(4) {
            return DecodeError::kind(format!(
                "Base64 encoded length is expected a multiple of 4 bytes but found: {length}"
            ));
        }
        match STANDARD.decode(text.as_bytes()) {
            Ok(bytes) => Ok(Blob(bytes)),
            Err(_) => DecodeError::kind("Invalid last non-pad Base64 character dectected"),
        }
    }
}

impl<T: Decode> Decode for Vec<T> {
    const CLASS: &'static str = "java.util.List";

    fn decode(reader: &mut Reader<'_>, _: Position) -> Result<Vec<T>, DecodeError> {
        begin_list(reader, UNEXPECTED_FIELD)?;
        list_elements(reader, |reader| {
            match optional(reader, Position::Element)? {
                Some(element) => Ok(element),
                // The service has no use for a null in a list either.
                None => DecodeError::kind(UNEXPECTED_FIELD),
            }
        })
    }
}

fn begin_list(reader: &mut Reader<'_>, scalar_message: &str) -> Result<(), DecodeError> {
    match reader.kind()? {
        Kind::Array => Ok(()),
        Kind::Object => DecodeError::kind(STRUCTURE),
        _ => DecodeError::kind(scalar_message),
    }
}

/// Reads a list whose elements `element` reads.
pub fn list_elements<T>(
    reader: &mut Reader<'_>,
    mut element: impl FnMut(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut sequence = reader.begin_array()?;
    let mut elements = Vec::new();
    while reader.next_element(&mut sequence)? {
        elements.push(element(reader)?);
    }
    Ok(elements)
}

/// Reads anything that must be a list, and complains about a scalar as the service does in fields.
pub fn require_list(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    begin_list(reader, UNEXPECTED_FIELD)
}

/// What the service's Java says of a scalar where it wants a type with type parameters.
const PARAMETERIZED: &str = "class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast \
    to class java.lang.Class (sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl and java.lang.Class \
    are in module java.base of loader 'bootstrap')";

/// A list that stands inside a map (the write requests of a batch).
#[derive(Clone, Debug, PartialEq)]
pub struct InnerList<T>(pub Vec<T>);

impl<T: Decode> Decode for InnerList<T> {
    const CLASS: &'static str = "java.util.List<com.amazonaws.dynamodb.v20120810.WriteRequest>";

    fn decode(reader: &mut Reader<'_>, position: Position) -> Result<InnerList<T>, DecodeError> {
        begin_list(reader, PARAMETERIZED)?;
        Vec::decode(reader, position).map(InnerList)
    }
}

/// A map that stands inside a list (the keys of a batch).
#[derive(Clone, Debug, PartialEq)]
pub struct InnerMap<T>(pub T);

impl<T: MapDecode> Decode for InnerMap<T> {
    const CLASS: &'static str = "java.util.Map";

    fn decode(reader: &mut Reader<'_>, _: Position) -> Result<InnerMap<T>, DecodeError> {
        match reader.kind()? {
            Kind::Object => T::decode_entries(reader).map(InnerMap),
            Kind::Array => DecodeError::kind(unrecognized_map(T::VALUE_CLASS)),
            _ => DecodeError::kind(PARAMETERIZED),
        }
    }
}

/// A type read from a JSON object with free keys.
pub trait MapDecode: Sized {
    const VALUE_CLASS: &'static str;

    /// Reads the object; the caller has seen that it is one.
    fn decode_entries(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

fn unrecognized_map(value_class: &str) -> String {
    format!("Unrecognized collection type java.util.Map<java.lang.String, {value_class}>")
}

/// Sees that an object follows, for a map of values of a class.
pub fn require_map(reader: &mut Reader<'_>, value_class: &str) -> Result<(), DecodeError> {
    match reader.kind()? {
        Kind::Object => Ok(()),
        Kind::Array => DecodeError::kind(unrecognized_map(value_class)),
        _ => DecodeError::kind(UNEXPECTED_FIELD),
    }
}

/// Sees that an object follows, for a structure.
pub fn require_structure(
    reader: &mut Reader<'_>,
    position: Position,
    class: &str,
) -> Result<(), DecodeError> {
    match (reader.kind()?, position) {
        (Kind::Object, _) => Ok(()),
        (Kind::Array, _) => {
            DecodeError::kind(format!("Unrecognized collection type class {class}"))
        }
        (_, Position::Field) => DecodeError::kind(UNEXPECTED_FIELD),
        (_, Position::Element) => DecodeError::kind("Unexpected value type in payload"),
    }
}

/// A map with free keys, in the text's order; of a key that comes twice the last value counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map<T>(pub Vec<(String, T)>);

impl<T> Map<T> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
}

impl<T: Decode> MapDecode for Map<T> {
    const VALUE_CLASS: &'static str = T::CLASS;

    fn decode_entries(reader: &mut Reader<'_>) -> Result<Map<T>, DecodeError> {
        let mut sequence = reader.begin_object()?;
        let mut entries: Vec<Option<(String, T)>> = Vec::new();
        let mut positions = BTreeMap::new();
        while let Some(key) = reader.next_key(&mut sequence)? {
            let Some(value) = optional(reader, Position::Element)? else {
                continue;
            };
            if let Some(earlier) = positions.insert(key.clone().into_owned(), entries.len()) {
                entries[earlier] = None;
            }
            entries.push(Some((key.into_owned(), value)));
        }
        Ok(Map(entries.into_iter().flatten().collect()))
    }
}

impl<T: Decode> Decode for Map<T> {
    const CLASS: &'static str = "java.util.Map";

    fn decode(reader: &mut Reader<'_>, _: Position) -> Result<Map<T>, DecodeError> {
        require_map(reader, T::CLASS)?;
        Map::decode_entries(reader)
    }
}

/// Declares a request or a part of one: its members are all optional, constraints are checked afterwards.
macro_rules! structure {
    ($(#[$meta:meta])* $name:ident { $($key:literal => $field:ident: $kind:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $(pub $field: Option<$kind>,)*
        }

        impl $crate::wire::decode::Decode for $name {
            const CLASS: &'static str = concat!("com.amazonaws.dynamodb.v20120810.", stringify!($name));

            fn decode(
                reader: &mut $crate::wire::reader::Reader<'_>,
                position: $crate::wire::decode::Position,
            ) -> Result<$name, $crate::wire::decode::DecodeError> {
                $crate::wire::decode::require_structure(reader, position, Self::CLASS)?;
                let mut sequence = reader.begin_object()?;
                #[allow(unused_mut)]
                let mut decoded = $name::default();
                while let Some(key) = reader.next_key(&mut sequence)? {
                    match &*key {
                        $($key => {
                            decoded.$field = $crate::wire::decode::optional(
                                reader,
                                $crate::wire::decode::Position::Field,
                            )?;
                        })*
                        _ => {
                            reader.skip()?;
                        }
                    }
                }
                Ok(decoded)
            }
        }
    };
}

pub(crate) use structure;
