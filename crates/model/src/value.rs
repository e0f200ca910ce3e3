//! One value of any type of the three doors. The column's type says how to read it: an `Int` may be a
//! `tinyint` or an `INT64`; ranges and lengths are checked by the door before a value gets here.

use crate::number::Number;
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Value {
    /// SQL's and CQL's null; inside a `Document`, DynamoDB's NULL attribute.
    #[n(0)]
    Null,
    #[n(1)]
    Bool(#[n(0)] bool),
    /// tinyint, smallint, int, bigint, counter, INT64, ENUM.
    #[n(2)]
    Int(#[n(0)] i64),
    /// CQL varint: two's complement, big-endian, shortest form.
    #[n(3)]
    Varint(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(4)]
    Float32(#[n(0)] f32),
    #[n(5)]
    Float64(#[n(0)] f64),
    /// CQL decimal: `unscaled × 10^-scale`, `unscaled` as a varint.
    #[n(6)]
    Decimal {
        #[n(0)]
        scale: i32,
        #[cbor(n(1), with = "minicbor::bytes")]
        unscaled: Vec<u8>,
    },
    /// DynamoDB's N and Spanner's NUMERIC.
    #[n(7)]
    Number(#[n(0)] Number),
    /// text, ascii, STRING, S.
    #[n(8)]
    Text(#[n(0)] String),
    /// blob, BYTES, B, PROTO.
    #[n(9)]
    Bytes(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// uuid and timeuuid (they differ in order, so the type counts).
    #[n(10)]
    Uuid(#[cbor(n(0), with = "minicbor::bytes")] [u8; 16]),
    /// inet: 4 or 16 bytes.
    #[n(11)]
    Inet(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Days since 1970-01-01.
    #[n(12)]
    Date(#[n(0)] i32),
    /// Nanoseconds since midnight.
    #[n(13)]
    Time(#[n(0)] i64),
    /// An instant: CQL's milliseconds and Spanner's nanoseconds both fit.
    #[n(14)]
    Timestamp {
        /// Seconds since 1970-01-01 00:00 UTC, rounded down.
        #[n(0)]
        seconds: i64,
        /// 0 ..= 999,999,999, counted forward from `seconds`.
        #[n(1)]
        nanos: u32,
    },
    #[n(15)]
    Duration {
        #[n(0)]
        months: i32,
        #[n(1)]
        days: i32,
        #[n(2)]
        nanos: i64,
    },
    /// list, vector, ARRAY, L. Elements may be `Null` where the door allows it.
    #[n(16)]
    List(#[n(0)] Vec<Value>),
    /// set, SS, NS, BS: in the element type's order, without duplicates.
    #[n(17)]
    Set(#[n(0)] Vec<Value>),
    /// map: in the key type's order, without duplicate keys.
    #[n(18)]
    Map(#[n(0)] Vec<(Value, Value)>),
    /// tuple, user-defined type, STRUCT: one value a field.
    #[n(19)]
    Tuple(#[n(0)] Vec<Value>),
    /// JSON, normalised by the door.
    #[n(20)]
    Json(#[n(0)] String),
    /// A DynamoDB item or its M.
    #[n(21)]
    Document(#[n(0)] BTreeMap<String, Value>),
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
}
