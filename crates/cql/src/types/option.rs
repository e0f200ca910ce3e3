//! Types as numbers on the wire ([option], section 3).

use crate::protocol::Version;
use crate::protocol::wire::{put_length, put_short, put_string};
use crate::types::name::class_name;
use model::Type;

const CUSTOM: u16 = 0x0000;

/// Writes a type. What a version has no number for goes as a custom type with its Java class name, which
/// drivers know.
pub fn put_type(out: &mut Vec<u8>, kind: &Type, keyspace: &str, version: Version) {
    if let Some(code) = native_code(kind, version) {
        put_short(out, code);
        return;
    }
    match kind {
        Type::List { element, .. } | Type::Array { element } => {
            put_short(out, 0x0020);
            put_type(out, element, keyspace, version);
        }
        Type::Map { key, value, .. } => {
            put_short(out, 0x0021);
            put_type(out, key, keyspace, version);
            put_type(out, value, keyspace, version);
        }
        Type::Set { element, .. } => {
            put_short(out, 0x0022);
            put_type(out, element, keyspace, version);
        }
        Type::User { name, fields, .. } => {
            put_short(out, 0x0030);
            put_string(out, keyspace);
            put_string(out, name);
            put_short(out, fields.len() as u16);
            for (field, kind) in fields {
                put_string(out, field);
                put_type(out, kind, keyspace, version);
            }
        }
        Type::Tuple { fields } => {
            put_short(out, 0x0031);
            put_short(out, fields.len() as u16);
            for kind in fields {
                put_type(out, kind, keyspace, version);
            }
        }
        other => {
            put_short(out, CUSTOM);
            put_string(out, &class_name(other, keyspace));
        }
    }
}

fn native_code(kind: &Type, version: Version) -> Option<u16> {
    Some(match kind {
        Type::Ascii => 0x0001,
        Type::BigInt => 0x0002,
        Type::Bytes { .. } => 0x0003,
        Type::Bool => 0x0004,
        Type::Counter => 0x0005,
        Type::Decimal | Type::Number | Type::Numeric => 0x0006,
        Type::Float64 => 0x0007,
        Type::Float32 => 0x0008,
        Type::Int => 0x0009,
        Type::TimestampMillis | Type::TimestampNanos => 0x000B,
        Type::Uuid => 0x000C,
        Type::Text { .. } | Type::Json => 0x000D,
        Type::Varint => 0x000E,
        Type::TimeUuid => 0x000F,
        Type::Inet => 0x0010,
        Type::Date if version >= Version::V4 => 0x0011,
        Type::Time if version >= Version::V4 => 0x0012,
        Type::SmallInt if version >= Version::V4 => 0x0013,
        Type::TinyInt if version >= Version::V4 => 0x0014,
        Type::Duration if version >= Version::V5 => 0x0015,
        _ => return None,
    })
}

/// The bytes that a result's metadata id is computed over: the columns as v5 writes them.
pub fn fingerprint(columns: &[(String, Type)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_length(&mut out, columns.len());
    for (name, kind) in columns {
        put_string(&mut out, name);
        put_type(&mut out, kind, "", Version::V5);
    }
    out
}
