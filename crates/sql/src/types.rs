//! GoogleSQL's types as this engine knows them, and how they map to the catalog's.

use crate::ast::{TypeLength, TypeName};
use crate::error::Error;
use model::Type;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlType {
    Bool,
    Int64,
    Float32,
    Float64,
    Numeric,
    String,
    Bytes,
    Date,
    Timestamp,
    Json,
    Uuid,
    Array(Box<SqlType>),
    Struct(Vec<(String, SqlType)>),
}

impl SqlType {
    pub fn array(element: SqlType) -> SqlType {
        SqlType::Array(Box::new(element))
    }

    /// How a column of any door looks from here; `None` when its type has no counterpart.
    pub fn of_column(kind: &Type) -> Option<SqlType> {
        Some(match kind {
            Type::Bool => SqlType::Bool,
            Type::TinyInt | Type::SmallInt | Type::Int | Type::BigInt => SqlType::Int64,
            Type::Float32 => SqlType::Float32,
            Type::Float64 => SqlType::Float64,
            Type::Numeric => SqlType::Numeric,
            Type::Ascii | Type::Text { .. } => SqlType::String,
            Type::Bytes { .. } => SqlType::Bytes,
            Type::Date => SqlType::Date,
            Type::TimestampMillis | Type::TimestampNanos => SqlType::Timestamp,
            Type::Json => SqlType::Json,
            Type::Uuid | Type::TimeUuid => SqlType::Uuid,
            Type::Array { element } => SqlType::array(SqlType::of_column(element)?),
            Type::List {
                element,
                frozen: true,
            } => SqlType::array(SqlType::of_column(element)?),
            _ => return None,
        })
    }

    /// A type in an expression: no lengths, structs allowed.
    pub fn of_name(name: &TypeName) -> Result<SqlType, Error> {
        match name {
            TypeName::Array(element) => match SqlType::of_name(element)? {
                SqlType::Array(_) => Err(Error::invalid("Arrays of arrays are not supported")),
                element => Ok(SqlType::array(element)),
            },
            TypeName::Struct(fields) => {
                let fields = fields.iter().map(|(name, kind)| {
                    let name = name
                        .as_ref()
                        .map_or(String::new(), |name| name.text.clone());
                    SqlType::of_name(kind).map(|kind| (name, kind))
                });
                Ok(SqlType::Struct(fields.collect::<Result<_, _>>()?))
            }
            TypeName::Scalar { name, at, length } => {
                if length.is_some() {
                    return Err(Error::unimplemented("type parameters in expressions").at(*at));
                }
                scalar(name).map_err(|error| error.at(*at))
            }
        }
    }

    pub fn is_numeric(&self) -> bool {
        matches!(
            self,
            SqlType::Int64 | SqlType::Float32 | SqlType::Float64 | SqlType::Numeric
        )
    }

    /// Whether `<`, MIN and ORDER BY make sense.
    pub fn is_orderable(&self) -> bool {
        !matches!(self, SqlType::Json | SqlType::Array(_) | SqlType::Struct(_))
    }

    /// Whether `=`, GROUP BY and DISTINCT make sense.
    pub fn is_comparable(&self) -> bool {
        match self {
            SqlType::Json => false,
            SqlType::Array(element) => element.is_comparable(),
            SqlType::Struct(fields) => fields.iter().all(|(_, kind)| kind.is_comparable()),
            _ => true,
        }
    }

    /// Whether a value of this type turns into the other without a CAST.
    pub fn coerces_to(&self, to: &SqlType) -> bool {
        self == to
            || match (self, to) {
                (SqlType::Int64, SqlType::Float64 | SqlType::Numeric) => true,
                (SqlType::Float32 | SqlType::Numeric, SqlType::Float64) => true,
                (SqlType::Struct(left), SqlType::Struct(right)) => {
                    left.len() == right.len()
                        && left
                            .iter()
                            .zip(right)
                            .all(|((_, left), (_, right))| left.coerces_to(right))
                }
                _ => false,
            }
    }

    /// The type that values of both turn into.
    pub fn supertype(&self, other: &SqlType) -> Option<SqlType> {
        if self.coerces_to(other) {
            return Some(other.clone());
        }
        if other.coerces_to(self) {
            return Some(self.clone());
        }
        let both = [self, other];
        (both.contains(&&SqlType::Float32) && both.iter().all(|kind| kind.is_numeric()))
            .then_some(SqlType::Float64)
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            SqlType::Bool => "BOOL",
            SqlType::Int64 => "INT64",
            SqlType::Float32 => "FLOAT32",
            SqlType::Float64 => "FLOAT64",
            SqlType::Numeric => "NUMERIC",
            SqlType::String => "STRING",
            SqlType::Bytes => "BYTES",
            SqlType::Date => "DATE",
            SqlType::Timestamp => "TIMESTAMP",
            SqlType::Json => "JSON",
            SqlType::Uuid => "UUID",
            SqlType::Array(element) => return write!(formatter, "ARRAY<{element}>"),
            SqlType::Struct(fields) => {
                write!(formatter, "STRUCT<")?;
                for (index, (name, kind)) in fields.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    let space = if name.is_empty() { "" } else { " " };
                    write!(formatter, "{comma}{name}{space}{kind}")?;
                }
                return write!(formatter, ">");
            }
        };
        formatter.write_str(name)
    }
}

fn scalar(name: &str) -> Result<SqlType, Error> {
    Ok(match name.to_ascii_uppercase().as_str() {
        "BOOL" | "BOOLEAN" => SqlType::Bool,
        "INT64" => SqlType::Int64,
        "FLOAT32" => SqlType::Float32,
        "FLOAT64" => SqlType::Float64,
        "NUMERIC" | "DECIMAL" => SqlType::Numeric,
        "STRING" => SqlType::String,
        "BYTES" => SqlType::Bytes,
        "DATE" => SqlType::Date,
        "TIMESTAMP" => SqlType::Timestamp,
        "JSON" => SqlType::Json,
        "UUID" => SqlType::Uuid,
        "INTERVAL" | "TOKENLIST" | "DATETIME" | "TIME" | "BIGNUMERIC" | "GEOGRAPHY" => {
            return Err(Error::unimplemented(format!("the type {name}")));
        }
        _ => return Err(Error::invalid(format!("Type not found: {name}"))),
    })
}

/// The longest STRING(n), in characters; of MAX too.
pub const STRING_LENGTH_MAX: u64 = 2_621_440;
/// The longest BYTES(n).
pub const BYTES_LENGTH_MAX: u64 = 10_485_760;

/// A column's type as the catalog keeps it.
pub fn column_type(name: &TypeName) -> Result<Type, Error> {
    match name {
        TypeName::Array(element) => match column_type(element)? {
            Type::Array { .. } => Err(Error::invalid("Arrays of arrays are not supported")),
            element => Ok(Type::Array {
                element: Box::new(element),
            }),
        },
        TypeName::Struct(_) => Err(Error::invalid("STRUCT is not a column type")),
        TypeName::Scalar { name, length, at } => {
            let kind = scalar(name).map_err(|error| error.at(*at))?;
            sized(&kind, *length).map_err(|error| error.at(*at))
        }
    }
}

fn sized(kind: &SqlType, length: Option<TypeLength>) -> Result<Type, Error> {
    let limit = |max: u64| match length {
        None => Err(Error::invalid(format!(
            "Expected a length: {kind}(n) or {kind}(MAX)"
        ))),
        Some(TypeLength::Max) => Ok(None),
        Some(TypeLength::Exactly(length)) if (1..=max).contains(&length) => Ok(Some(length)),
        Some(TypeLength::Exactly(length)) => Err(Error::invalid(format!(
            "Invalid length for {kind}: {length} is not within 1 and {max}"
        ))),
    };
    let plain = match kind {
        SqlType::String => {
            return Ok(Type::Text {
                length_max: limit(STRING_LENGTH_MAX)?,
            });
        }
        SqlType::Bytes => {
            return Ok(Type::Bytes {
                length_max: limit(BYTES_LENGTH_MAX)?,
            });
        }
        SqlType::Bool => Type::Bool,
        SqlType::Int64 => Type::BigInt,
        SqlType::Float32 => Type::Float32,
        SqlType::Float64 => Type::Float64,
        SqlType::Numeric => Type::Numeric,
        SqlType::Date => Type::Date,
        SqlType::Timestamp => Type::TimestampNanos,
        SqlType::Json => Type::Json,
        SqlType::Uuid => Type::Uuid,
        SqlType::Array(_) | SqlType::Struct(_) => {
            return Err(Error::invalid("not a scalar type"));
        }
    };
    match length {
        None => Ok(plain),
        Some(_) => Err(Error::invalid(format!("{kind} takes no length"))),
    }
}

/// A column's type as DDL and INFORMATION_SCHEMA write it.
pub fn column_type_text(kind: &Type) -> String {
    let sized = |name: &str, length: &Option<u64>| match length {
        Some(length) => format!("{name}({length})"),
        None => format!("{name}(MAX)"),
    };
    match kind {
        Type::Text { length_max } => sized("STRING", length_max),
        Type::Ascii => "STRING(MAX)".to_owned(),
        Type::Bytes { length_max } => sized("BYTES", length_max),
        Type::Array { element } | Type::List { element, .. } => {
            format!("ARRAY<{}>", column_type_text(element))
        }
        other => match SqlType::of_column(other) {
            Some(kind) => kind.to_string(),
            None => format!("{other:?}"),
        },
    }
}
