//! The column types of all three doors, in one list.

use minicbor::{Decode, Encode};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Type {
    #[n(0)]
    Bool,
    #[n(1)]
    TinyInt,
    #[n(2)]
    SmallInt,
    #[n(3)]
    Int,
    /// bigint, INT64.
    #[n(4)]
    BigInt,
    #[n(5)]
    Counter,
    #[n(6)]
    Varint,
    #[n(7)]
    Float32,
    #[n(8)]
    Float64,
    /// CQL's decimal of any size.
    #[n(9)]
    Decimal,
    /// DynamoDB's N.
    #[n(10)]
    Number,
    /// Spanner's NUMERIC.
    #[n(11)]
    Numeric,
    #[n(12)]
    Ascii,
    /// text, varchar, STRING(n), S. The length limit of Spanner's is counted in characters.
    #[n(13)]
    Text {
        #[n(0)]
        length_max: Option<u64>,
    },
    /// blob, BYTES(n), B. The length limit is counted in bytes.
    #[n(14)]
    Bytes {
        #[n(0)]
        length_max: Option<u64>,
    },
    #[n(15)]
    Uuid,
    #[n(16)]
    TimeUuid,
    #[n(17)]
    Inet,
    #[n(18)]
    Date,
    #[n(19)]
    Time,
    /// CQL's timestamp, in milliseconds.
    #[n(20)]
    TimestampMillis,
    /// Spanner's TIMESTAMP, in nanoseconds.
    #[n(21)]
    TimestampNanos,
    #[n(22)]
    Duration,
    #[n(23)]
    Json,
    /// A DynamoDB item: everything but its key attributes, in one column.
    #[n(24)]
    Document,
    #[n(25)]
    List {
        #[n(0)]
        element: Box<Type>,
        #[n(1)]
        frozen: bool,
    },
    #[n(26)]
    Set {
        #[n(0)]
        element: Box<Type>,
        #[n(1)]
        frozen: bool,
    },
    #[n(27)]
    Map {
        #[n(0)]
        key: Box<Type>,
        #[n(1)]
        value: Box<Type>,
        #[n(2)]
        frozen: bool,
    },
    #[n(28)]
    Tuple {
        #[n(0)]
        fields: Vec<Type>,
    },
    /// A user-defined type of the table's namespace.
    #[n(29)]
    User {
        #[n(0)]
        name: String,
        #[n(1)]
        fields: Vec<(String, Type)>,
        #[n(2)]
        frozen: bool,
    },
    /// Spanner's ARRAY: elements may be null.
    #[n(30)]
    Array {
        #[n(0)]
        element: Box<Type>,
    },
    #[n(31)]
    Vector {
        #[n(0)]
        element: Box<Type>,
        #[n(1)]
        dimension: u32,
    },
}

impl Type {
    pub fn text() -> Type {
        Type::Text { length_max: None }
    }

    pub fn bytes() -> Type {
        Type::Bytes { length_max: None }
    }

    /// A collection that keeps a cell per element.
    pub fn is_multi_cell(&self) -> bool {
        matches!(
            self,
            Type::List { frozen: false, .. }
                | Type::Set { frozen: false, .. }
                | Type::Map { frozen: false, .. }
                | Type::User { frozen: false, .. }
        )
    }
}
