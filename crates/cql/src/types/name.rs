//! CQL's names of types, and the Java class names that the protocol's custom types go by.

use super::DEPTH_MAX;
use crate::error::Error;
use crate::grammar::ast::{TypeName, quoted};
use model::Type;
use std::collections::BTreeMap;

/// The type of a native name.
pub fn native(name: &str) -> Option<Type> {
    Some(match name {
        "ascii" => Type::Ascii,
        "bigint" => Type::BigInt,
        "blob" => Type::bytes(),
        "boolean" => Type::Bool,
        "counter" => Type::Counter,
        "date" => Type::Date,
        "decimal" => Type::Decimal,
        "double" => Type::Float64,
        "duration" => Type::Duration,
        "float" => Type::Float32,
        "inet" => Type::Inet,
        "int" => Type::Int,
        "smallint" => Type::SmallInt,
        "text" | "varchar" => Type::text(),
        "time" => Type::Time,
        "timestamp" => Type::TimestampMillis,
        "timeuuid" => Type::TimeUuid,
        "tinyint" => Type::TinyInt,
        "uuid" => Type::Uuid,
        "varint" => Type::Varint,
        _ => return None,
    })
}

/// The type that a statement names, its user-defined types looked up among those of its keyspace.
pub fn resolve(
    name: &TypeName,
    keyspace: &str,
    types: &BTreeMap<String, Type>,
) -> Result<Type, Error> {
    match name {
        TypeName::Named {
            keyspace: other,
            name,
        } => {
            if other.is_none()
                && let Some(kind) = native(name)
            {
                return Ok(kind);
            }
            if other.as_ref().is_some_and(|other| other != keyspace) {
                return Err(Error::invalid(format!(
                    "Statement on keyspace {keyspace} cannot refer to a user type in keyspace {}; user \
                     types can only be used in the keyspace they are defined in",
                    other.as_deref().unwrap_or_default()
                )));
            }
            let kind = types
                .get(name)
                .ok_or_else(|| Error::invalid(format!("Unknown type {keyspace}.{name}")))?;
            Ok(with_frozen(kind, false))
        }
        TypeName::Frozen(inner) => {
            let inner = match inner.as_ref() {
                // A frozen collection freezes what is in it, so its elements need not say so themselves.
                TypeName::List(element) => TypeName::List(Box::new(frozen_name(element))),
                TypeName::Set(element) => TypeName::Set(Box::new(frozen_name(element))),
                TypeName::Map(key, value) => {
                    TypeName::Map(Box::new(frozen_name(key)), Box::new(frozen_name(value)))
                }
                other => other.clone(),
            };
            Ok(freeze(&resolve(&inner, keyspace, types)?))
        }
        TypeName::List(element) => Ok(Type::List {
            element: Box::new(element_type(element, keyspace, types, name)?),
            frozen: false,
        }),
        TypeName::Set(element) => Ok(Type::Set {
            element: Box::new(element_type(element, keyspace, types, name)?),
            frozen: false,
        }),
        TypeName::Map(key, value) => Ok(Type::Map {
            key: Box::new(element_type(key, keyspace, types, name)?),
            value: Box::new(element_type(value, keyspace, types, name)?),
            frozen: false,
        }),
        TypeName::Tuple(fields) => Ok(Type::Tuple {
            fields: fields
                .iter()
                .map(|field| Ok(freeze(&resolve(field, keyspace, types)?)))
                .collect::<Result<_, Error>>()?,
        }),
        TypeName::Vector(element, dimension) => {
            let element = resolve(element, keyspace, types)?;
            if super::wire::fixed_size(&element).is_none() {
                return Err(Error::invalid(format!(
                    "vectors of {} are not supported yet",
                    cql_name(&element)
                )));
            }
            Ok(Type::Vector {
                element: Box::new(element),
                dimension: *dimension,
            })
        }
        TypeName::Custom(class) => Err(Error::invalid(format!(
            "custom type '{class}' is not supported"
        ))),
    }
}

fn frozen_name(name: &TypeName) -> TypeName {
    match name {
        TypeName::Frozen(_) => name.clone(),
        other => TypeName::Frozen(Box::new(other.clone())),
    }
}

fn element_type(
    element: &TypeName,
    keyspace: &str,
    types: &BTreeMap<String, Type>,
    whole: &TypeName,
) -> Result<Type, Error> {
    let kind = resolve(element, keyspace, types)?;
    if kind.is_multi_cell() {
        let what = if matches!(kind, Type::User { .. }) {
            "Non-frozen UDTs are not allowed inside collections"
        } else {
            "Non-frozen collections are not allowed inside collections"
        };
        return Err(Error::invalid(format!("{what}: {whole}")));
    }
    if kind == Type::Counter {
        return Err(Error::invalid(format!(
            "Counters are not allowed inside collections: {whole}"
        )));
    }
    Ok(kind)
}

/// The same type kept in a single cell, with all that is in it.
pub fn freeze(kind: &Type) -> Type {
    match kind {
        Type::List { element, .. } => Type::List {
            element: Box::new(freeze(element)),
            frozen: true,
        },
        Type::Set { element, .. } => Type::Set {
            element: Box::new(freeze(element)),
            frozen: true,
        },
        Type::Map { key, value, .. } => Type::Map {
            key: Box::new(freeze(key)),
            value: Box::new(freeze(value)),
            frozen: true,
        },
        Type::Tuple { fields } => Type::Tuple {
            fields: fields.iter().map(freeze).collect(),
        },
        Type::User { .. } => with_frozen(kind, true),
        other => other.clone(),
    }
}

fn with_frozen(kind: &Type, frozen: bool) -> Type {
    match kind {
        Type::User { name, fields, .. } => Type::User {
            name: name.clone(),
            fields: fields.clone(),
            frozen,
        },
        other => other.clone(),
    }
}

/// How deep a type is nested.
pub fn depth(kind: &Type) -> usize {
    1 + match kind {
        Type::List { element, .. }
        | Type::Set { element, .. }
        | Type::Array { element }
        | Type::Vector { element, .. } => depth(element),
        Type::Map { key, value, .. } => depth(key).max(depth(value)),
        Type::Tuple { fields } => fields.iter().map(depth).max().unwrap_or(0),
        Type::User { fields, .. } => fields
            .iter()
            .map(|field| depth(&field.1))
            .max()
            .unwrap_or(0),
        _ => 0,
    }
}

pub fn check_depth(kind: &Type) -> Result<(), Error> {
    if depth(kind) > DEPTH_MAX {
        return Err(Error::invalid(format!(
            "types may be nested at most {DEPTH_MAX} deep"
        )));
    }
    Ok(())
}

/// Whether CQL has a name and an encoding for the type: columns of other doors' own types are not shown.
pub fn is_known(kind: &Type) -> bool {
    !matches!(kind, Type::Document)
}

/// The type as CQL writes it.
pub fn cql_name(kind: &Type) -> String {
    let frozen = |frozen: bool, name: String| {
        if frozen {
            format!("frozen<{name}>")
        } else {
            name
        }
    };
    match kind {
        Type::Bool => "boolean".into(),
        Type::TinyInt => "tinyint".into(),
        Type::SmallInt => "smallint".into(),
        Type::Int => "int".into(),
        Type::BigInt => "bigint".into(),
        Type::Counter => "counter".into(),
        Type::Varint => "varint".into(),
        Type::Float32 => "float".into(),
        Type::Float64 => "double".into(),
        Type::Decimal | Type::Number | Type::Numeric => "decimal".into(),
        Type::Ascii => "ascii".into(),
        Type::Text { .. } | Type::Json => "text".into(),
        Type::Bytes { .. } | Type::Document => "blob".into(),
        Type::Uuid => "uuid".into(),
        Type::TimeUuid => "timeuuid".into(),
        Type::Inet => "inet".into(),
        Type::Date => "date".into(),
        Type::Time => "time".into(),
        Type::TimestampMillis | Type::TimestampNanos => "timestamp".into(),
        Type::Duration => "duration".into(),
        Type::List {
            element,
            frozen: is_frozen,
        } => frozen(*is_frozen, format!("list<{}>", cql_name(element))),
        Type::Array { element } => frozen(true, format!("list<{}>", cql_name(element))),
        Type::Set {
            element,
            frozen: is_frozen,
        } => frozen(*is_frozen, format!("set<{}>", cql_name(element))),
        Type::Map {
            key,
            value,
            frozen: is_frozen,
        } => frozen(
            *is_frozen,
            format!("map<{}, {}>", cql_name(key), cql_name(value)),
        ),
        Type::Tuple { fields } => {
            let fields: Vec<String> = fields.iter().map(cql_name).collect();
            format!("frozen<tuple<{}>>", fields.join(", "))
        }
        Type::User {
            name,
            frozen: is_frozen,
            ..
        } => frozen(*is_frozen, quoted(name)),
        Type::Vector { element, dimension } => {
            format!("vector<{}, {dimension}>", cql_name(element))
        }
    }
}

/// The name of the Java class that stands for the type where the protocol has no number for it.
pub fn class_name(kind: &Type, keyspace: &str) -> String {
    let simple = match kind {
        Type::Bool => "BooleanType",
        Type::TinyInt => "ByteType",
        Type::SmallInt => "ShortType",
        Type::Int => "Int32Type",
        Type::BigInt => "LongType",
        Type::Counter => "CounterColumnType",
        Type::Varint => "IntegerType",
        Type::Float32 => "FloatType",
        Type::Float64 => "DoubleType",
        Type::Decimal | Type::Number | Type::Numeric => "DecimalType",
        Type::Ascii => "AsciiType",
        Type::Text { .. } | Type::Json => "UTF8Type",
        Type::Bytes { .. } | Type::Document => "BytesType",
        Type::Uuid => "UUIDType",
        Type::TimeUuid => "TimeUUIDType",
        Type::Inet => "InetAddressType",
        Type::Date => "SimpleDateType",
        Type::Time => "TimeType",
        Type::TimestampMillis | Type::TimestampNanos => "TimestampType",
        Type::Duration => "DurationType",
        Type::List { element, .. } | Type::Array { element } => {
            return format!(
                "org.apache.cassandra.db.marshal.ListType({})",
                class_name(element, keyspace)
            );
        }
        Type::Set { element, .. } => {
            return format!(
                "org.apache.cassandra.db.marshal.SetType({})",
                class_name(element, keyspace)
            );
        }
        Type::Map { key, value, .. } => {
            return format!(
                "org.apache.cassandra.db.marshal.MapType({},{})",
                class_name(key, keyspace),
                class_name(value, keyspace)
            );
        }
        Type::Tuple { fields } => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| class_name(field, keyspace))
                .collect();
            return format!(
                "org.apache.cassandra.db.marshal.TupleType({})",
                fields.join(",")
            );
        }
        Type::User { name, fields, .. } => {
            let hex =
                |text: &str| -> String { text.bytes().map(|byte| format!("{byte:02x}")).collect() };
            let fields: Vec<String> = fields
                .iter()
                .map(|(field, kind)| format!("{}:{}", hex(field), class_name(kind, keyspace)))
                .collect();
            return format!(
                "org.apache.cassandra.db.marshal.UserType({keyspace},{},{})",
                hex(name),
                fields.join(",")
            );
        }
        Type::Vector { element, dimension } => {
            return format!(
                "org.apache.cassandra.db.marshal.VectorType({} , {dimension})",
                class_name(element, keyspace)
            );
        }
    };
    format!("org.apache.cassandra.db.marshal.{simple}")
}
