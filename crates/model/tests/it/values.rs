//! Types, and values of them.

use model::{Number, Type, Value};
use proptest::collection::vec;
use proptest::prelude::*;

/// A scalar type that may be part of a key.
pub fn scalar_type() -> impl Strategy<Value = Type> {
    prop::sample::select(vec![
        Type::Bool,
        Type::TinyInt,
        Type::SmallInt,
        Type::Int,
        Type::BigInt,
        Type::Varint,
        Type::Float32,
        Type::Float64,
        Type::Decimal,
        Type::Number,
        Type::Numeric,
        Type::Ascii,
        Type::text(),
        Type::bytes(),
        Type::Uuid,
        Type::TimeUuid,
        Type::Inet,
        Type::Date,
        Type::Time,
        Type::TimestampMillis,
        Type::TimestampNanos,
    ])
}

/// Any type that may be part of a key.
pub fn key_type() -> impl Strategy<Value = Type> {
    scalar_type().prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|element| Type::List {
                element: Box::new(element),
                frozen: true
            }),
            inner.clone().prop_map(|element| Type::Set {
                element: Box::new(element),
                frozen: true
            }),
            (inner.clone(), inner.clone()).prop_map(|(key, value)| Type::Map {
                key: Box::new(key),
                value: Box::new(value),
                frozen: true
            }),
            vec(inner.clone(), 1..3).prop_map(|fields| Type::Tuple { fields }),
            vec(inner.clone(), 1..3).prop_map(|fields| Type::User {
                name: "u".into(),
                fields: fields.into_iter().map(|kind| ("f".into(), kind)).collect(),
                frozen: true
            }),
            inner.prop_map(|element| Type::Vector {
                element: Box::new(element),
                dimension: 2
            }),
        ]
    })
}

/// Bytes among which prefixes of each other, zeros and 0xFF are common.
pub fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(
        prop_oneof![Just(0u8), Just(1), Just(0xFF), Just(b'a'), any::<u8>()],
        0..6,
    )
}

pub fn number() -> impl Strategy<Value = Number> {
    (any::<bool>(), 0u128..2_000, -40i32..40).prop_map(|(negative, coefficient, exponent)| {
        Number::from_parts(negative, coefficient, exponent).unwrap()
    })
}

/// A value of the type, or null.
pub fn component(kind: &Type) -> BoxedStrategy<Value> {
    prop_oneof![1 => Just(Value::Null), 9 => value(kind)].boxed()
}

/// A value of the type.
pub fn value(kind: &Type) -> BoxedStrategy<Value> {
    let small = prop_oneof![-300i64..300, any::<i64>()];
    match kind {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::TinyInt => any::<i8>().prop_map(|v| Value::Int(v.into())).boxed(),
        Type::SmallInt => any::<i16>().prop_map(|v| Value::Int(v.into())).boxed(),
        Type::Int => any::<i32>().prop_map(|v| Value::Int(v.into())).boxed(),
        Type::BigInt | Type::Counter => small.prop_map(Value::Int).boxed(),
        Type::Varint => prop_oneof![
            small.prop_map(|v| Value::Varint(v.to_be_bytes().to_vec())),
            vec(any::<u8>(), 1..12).prop_map(Value::Varint),
            vec(any::<u8>(), 120..135).prop_map(Value::Varint),
        ]
        .boxed(),
        Type::Float32 => any::<u32>()
            .prop_map(|bits| Value::Float32(f32::from_bits(bits)))
            .boxed(),
        Type::Float64 => prop_oneof![
            any::<u64>().prop_map(|bits| Value::Float64(f64::from_bits(bits))),
            prop::sample::select(vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY])
                .prop_map(Value::Float64),
        ]
        .boxed(),
        Type::Decimal => (-4i32..4, small)
            .prop_map(|(scale, unscaled)| Value::Decimal {
                scale,
                unscaled: unscaled.to_be_bytes().to_vec(),
            })
            .boxed(),
        Type::Number => number().prop_map(Value::Number).boxed(),
        Type::Numeric => (-100_000i128..100_000)
            .prop_map(|units| Value::Number(Number::from_numeric_units(units).unwrap()))
            .boxed(),
        Type::Ascii => vec(0u8..0x80, 0..6)
            .prop_map(|v| Value::Text(String::from_utf8(v).unwrap()))
            .boxed(),
        Type::Text { .. } => vec(any::<char>(), 0..4)
            .prop_map(|v| Value::Text(v.into_iter().collect()))
            .boxed(),
        Type::Bytes { .. } => bytes().prop_map(Value::Bytes).boxed(),
        Type::Uuid | Type::TimeUuid => any::<[u8; 16]>()
            .prop_map(|mut v| {
                v[6] = v[6] & 0x1F | 0x10; // versions 1 and, where a bit is left over, others
                Value::Uuid(v)
            })
            .boxed(),
        Type::Inet => prop_oneof![
            any::<[u8; 4]>().prop_map(|v| Value::Inet(v.to_vec())),
            any::<[u8; 16]>().prop_map(|v| Value::Inet(v.to_vec())),
        ]
        .boxed(),
        Type::Date => any::<i32>().prop_map(Value::Date).boxed(),
        Type::Time => any::<i64>().prop_map(Value::Time).boxed(),
        Type::TimestampMillis => (-1_000_000i64..1_000_000, 0u32..1_000)
            .prop_map(|(seconds, millis)| Value::Timestamp {
                seconds,
                nanos: millis * 1_000_000,
            })
            .boxed(),
        Type::TimestampNanos => (any::<i64>(), 0u32..1_000_000_000)
            .prop_map(|(seconds, nanos)| Value::Timestamp { seconds, nanos })
            .boxed(),
        Type::List { element, .. } => vec(component(element), 0..3).prop_map(Value::List).boxed(),
        Type::Set { element, .. } => vec(component(element), 0..3).prop_map(Value::Set).boxed(),
        Type::Map { key, value, .. } => vec((component(key), component(value)), 0..3)
            .prop_map(Value::Map)
            .boxed(),
        Type::Tuple { fields } => fields
            .iter()
            .map(component)
            .collect::<Vec<_>>()
            .prop_map(Value::Tuple)
            .boxed(),
        Type::User { fields, .. } => fields
            .iter()
            .map(|(_, kind)| component(kind))
            .collect::<Vec<_>>()
            .prop_map(Value::Tuple)
            .boxed(),
        Type::Vector { element, dimension } => {
            vec(value(element), *dimension as usize..=*dimension as usize)
                .prop_map(Value::List)
                .boxed()
        }
        Type::Duration => (any::<i32>(), any::<i32>(), any::<i64>())
            .prop_map(|(months, days, nanos)| Value::Duration {
                months,
                days,
                nanos,
            })
            .boxed(),
        _ => unreachable!("no strategy for {kind:?}"),
    }
}

/// A value of any kind, with documents.
pub fn any_value() -> impl Strategy<Value = Value> {
    let typed = key_type().prop_flat_map(|kind| component(&kind));
    prop_oneof![
        typed,
        value(&Type::Duration),
        "[a-z]{0,3}".prop_map(Value::Json),
        prop::collection::btree_map("[a-z]{0,3}", value(&Type::BigInt), 0..3)
            .prop_map(Value::Document),
    ]
}
