//! Encoded keys compare as their values do, and decode to them.

use crate::values::{component, key_type, scalar_type, value};
use model::key::{Direction, decode, encode, is_supported, prefix_end, skip};
use model::{Type, Value};
use num_bigint::BigInt;
use proptest::prelude::*;
use std::cmp::Ordering;

fn encoded(value: &Value, kind: &Type, direction: Direction) -> Vec<u8> {
    let mut key = Vec::new();
    encode(value, kind, direction, &mut key).unwrap();
    key
}

/// The order that the type's own system gives: written down apart from the encoding.
fn natural_order(left: &Value, right: &Value, kind: &Type) -> Ordering {
    match (left, right) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Int(left), Value::Int(right)) => left.cmp(right),
        (Value::Varint(left), Value::Varint(right)) => {
            BigInt::from_signed_bytes_be(left).cmp(&BigInt::from_signed_bytes_be(right))
        }
        (Value::Float32(left), Value::Float32(right)) => {
            java_order(f64::from(*left), f64::from(*right))
        }
        (Value::Float64(left), Value::Float64(right)) => java_order(*left, *right),
        (
            Value::Decimal { scale, unscaled },
            Value::Decimal {
                scale: other_scale,
                unscaled: other,
            },
        ) => {
            let ten = BigInt::from(10);
            let align = |unscaled: &[u8], scale: i32| {
                BigInt::from_signed_bytes_be(unscaled) * ten.pow((10 - scale) as u32)
            };
            align(unscaled, *scale).cmp(&align(other, *other_scale))
        }
        (Value::Number(left), Value::Number(right)) => left.cmp(right),
        (Value::Text(left), Value::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
        (Value::Bytes(left), Value::Bytes(right)) | (Value::Inet(left), Value::Inet(right)) => {
            left.cmp(right)
        }
        (Value::Uuid(left), Value::Uuid(right)) => uuid_order(left, right, kind),
        (Value::Date(left), Value::Date(right)) => left.cmp(right),
        (Value::Time(left), Value::Time(right)) => left.cmp(right),
        (
            Value::Timestamp { seconds, nanos },
            Value::Timestamp {
                seconds: other,
                nanos: other_nanos,
            },
        ) => (seconds, nanos).cmp(&(other, other_nanos)),
        (Value::List(left), Value::List(right)) => {
            let (Type::List { element, .. } | Type::Vector { element, .. }) = kind else {
                panic!("a list of type {kind:?}")
            };
            sequence_order(left, right, element)
        }
        (Value::Tuple(left), Value::Tuple(right)) => {
            let kinds: Vec<&Type> = match kind {
                Type::Tuple { fields } => fields.iter().collect(),
                Type::User { fields, .. } => fields.iter().map(|(_, kind)| kind).collect(),
                _ => panic!("a tuple of type {kind:?}"),
            };
            let mut pairs = left.iter().zip(right).zip(kinds);
            pairs
                .find_map(|((left, right), kind)| {
                    Some(natural_order(left, right, kind)).filter(|order| order.is_ne())
                })
                .unwrap_or(Ordering::Equal)
        }
        (Value::Set(left), Value::Set(right)) => {
            let Type::Set { element, .. } = kind else {
                panic!("a set of type {kind:?}")
            };
            sequence_order(&sorted(left, element), &sorted(right, element), element)
        }
        _ => panic!("{left:?} and {right:?} are not both of {kind:?}"),
    }
}

fn sorted(values: &[Value], kind: &Type) -> Vec<Value> {
    let mut values = values.to_vec();
    values.sort_by(|left, right| natural_order(left, right, kind));
    values.dedup_by(|left, right| natural_order(left, right, kind).is_eq());
    values
}

fn sequence_order(left: &[Value], right: &[Value], kind: &Type) -> Ordering {
    left.iter()
        .zip(right)
        .map(|(left, right)| natural_order(left, right, kind))
        .find(|order| order.is_ne())
        .unwrap_or(left.len().cmp(&right.len()))
}

/// `Double.compare`.
fn java_order(left: f64, right: f64) -> Ordering {
    match (left.is_nan(), right.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => left.total_cmp(&right),
    }
}

fn uuid_order(left: &[u8; 16], right: &[u8; 16], kind: &Type) -> Ordering {
    let version = |uuid: &[u8; 16]| uuid[6] >> 4;
    let time = |uuid: &[u8; 16]| [&uuid[6..8], &uuid[4..6], &uuid[0..4]].concat();
    let signed = |uuid: &[u8; 16]| uuid[8..].iter().map(|byte| *byte as i8).collect::<Vec<_>>();
    if *kind == Type::TimeUuid {
        return (time(left), signed(left)).cmp(&(time(right), signed(right)));
    }
    version(left).cmp(&version(right)).then_with(|| {
        if version(left) == 1 {
            (time(left), &left[8..]).cmp(&(time(right), &right[8..]))
        } else {
            left.cmp(right)
        }
    })
}

fn is_map(kind: &Type) -> bool {
    match kind {
        Type::Map { .. } => true,
        Type::List { element, .. } | Type::Set { element, .. } | Type::Vector { element, .. } => {
            is_map(element)
        }
        Type::Tuple { fields } => fields.iter().any(is_map),
        Type::User { fields, .. } => fields.iter().any(|(_, kind)| is_map(kind)),
        _ => false,
    }
}

fn typed_pair() -> impl Strategy<Value = (Type, Value, Value)> {
    key_type().prop_flat_map(|kind| (Just(kind.clone()), component(&kind), component(&kind)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn bytes_compare_as_values_do((kind, left, right) in typed_pair()) {
        let ascending = encoded(&left, &kind, Direction::Ascending)
            .cmp(&encoded(&right, &kind, Direction::Ascending));
        let descending = encoded(&left, &kind, Direction::Descending)
            .cmp(&encoded(&right, &kind, Direction::Descending));
        prop_assert_eq!(descending, ascending.reverse());
        // Which of two equal keys of a map survives is not the order's business.
        if !is_map(&kind) {
            prop_assert_eq!(ascending, natural_order(&left, &right, &kind));
        }
    }

    #[test]
    fn no_encoding_is_another_ones_prefix((kind, left, right) in typed_pair()) {
        for direction in [Direction::Ascending, Direction::Descending] {
            let left = encoded(&left, &kind, direction);
            let right = encoded(&right, &kind, direction);
            prop_assert!(left == right || !right.starts_with(&left));
        }
    }

    #[test]
    fn decoding_is_the_inverse((kind, value, _) in typed_pair(), rest in crate::values::bytes()) {
        for direction in [Direction::Ascending, Direction::Descending] {
            let key = encoded(&value, &kind, direction);
            let mut longer = key.clone();
            longer.extend_from_slice(&rest);
            let (decoded, left_over) = decode(&longer, &kind, direction).unwrap();
            prop_assert_eq!(left_over, &rest[..]);
            prop_assert_eq!(skip(&longer, &kind, direction).unwrap(), &rest[..]);
            prop_assert!(is_supported(&kind));
            prop_assert_eq!(&encoded(&decoded, &kind, direction), &key);
            // Canonical: a second round changes nothing (compared as text, for NaN's sake).
            let again = decode(&key, &kind, direction).unwrap().0;
            prop_assert_eq!(format!("{again:?}"), format!("{decoded:?}"));
            for end in 0..key.len() {
                prop_assert!(decode(&key[..end], &kind, direction).is_err());
            }
        }
    }

    #[test]
    fn any_bytes_decode_or_are_refused(kind in key_type(), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        for direction in [Direction::Ascending, Direction::Descending] {
            for first in [1u8, 2] {
                let mut key = vec![if direction == Direction::Ascending { first } else { !first }];
                key.extend_from_slice(&bytes);
                let skipped = skip(&key, &kind, direction);
                if let Ok((_, rest)) = decode(&key, &kind, direction) {
                    prop_assert_eq!(skipped, Ok(rest));
                }
                if let Ok((value, rest)) = decode(&key, &kind, direction) {
                    let used = &key[..key.len() - rest.len()];
                    prop_assert_eq!(&encoded(&value, &kind, direction)[..], used);
                }
            }
        }
    }

    #[test]
    fn a_failed_encoding_leaves_the_key_alone(kind in scalar_type(), other in scalar_type().prop_flat_map(|kind| value(&kind))) {
        let mut key = vec![7];
        if encode(&other, &kind, Direction::Descending, &mut key).is_err() {
            prop_assert_eq!(key, vec![7]);
        }
    }
}

#[test]
fn equal_decimals_are_one_key() {
    let decimal = |scale, unscaled: i64| Value::Decimal {
        scale,
        unscaled: unscaled.to_be_bytes().to_vec(),
    };
    let key = |value| encoded(&value, &Type::Decimal, Direction::Ascending);
    assert_eq!(key(decimal(1, 10)), key(decimal(2, 100)));
    assert_eq!(key(decimal(0, 0)), key(decimal(9, 0)));
    assert!(key(decimal(1, -15)) < key(decimal(0, -1)));
    let extreme = Value::Decimal {
        scale: i32::MIN,
        unscaled: vec![100],
    };
    let (decoded, _) = decode(&key(extreme.clone()), &Type::Decimal, Direction::Ascending).unwrap();
    assert_eq!(decoded, extreme);
}

#[test]
fn the_end_of_a_prefix_is_just_behind_it() {
    assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
    assert_eq!(prefix_end(b"a\xFF\xFF"), Some(b"b".to_vec()));
    assert_eq!(prefix_end(b"\xFF"), None);
    assert_eq!(prefix_end(b""), None);
}
