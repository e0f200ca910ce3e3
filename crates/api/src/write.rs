//! Writes: mutations of rows, with conditions, alone or as an atomic batch.

use crate::document;
use crate::{ColumnSet, KeyRange, Level, Patience, TransactionId};
use minicbor::{Decode, Encode};
use model::{CellPath, ColumnId, Row, TableId, Timestamp, Value};

#[derive(Clone, Debug, PartialEq)]
pub struct WriteRequest {
    pub mutations: Vec<Mutation>,
    pub atomicity: Atomicity,
    pub level: Level,
    /// On eventual tables, who agrees on mutations that need the row as it is: `Level::Serial` all replicas,
    /// `Level::LocalSerial` those of the gateway's data centre. `level` says then how many must have merged what was
    /// agreed.
    pub serial_level: Level,
    /// The client's own write timestamp in microseconds; refused on strong tables. A mutation may name its
    /// own. `None` takes the gateway's clock.
    pub timestamp: Option<Timestamp>,
    /// What the writer has read and relies on: the write is aborted if any of it has changed since. Strong
    /// tables only.
    pub assertions: Vec<ReadAssertion>,
    pub patience: Patience,
    /// The transaction that this write ends, which holds locks.
    pub transaction: Option<TransactionId>,
    /// The tablets remember for a while, under this name, that it was carried out.
    pub kept_as: Option<TransactionId>,
    /// On eventual tables, a write that needs rows as they are and looks at more tombstones is refused.
    pub tombstones_max: Option<u64>,
}

impl WriteRequest {
    pub fn new(mutations: Vec<Mutation>) -> WriteRequest {
        WriteRequest {
            mutations,
            atomicity: Atomicity::All,
            level: Level::Default,
            serial_level: Level::Serial,
            timestamp: None,
            assertions: Vec::new(),
            patience: Patience::default(),
            transaction: None,
            kept_as: None,
            tombstones_max: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Atomicity {
    /// All mutations or none, at one timestamp.
    #[n(0)]
    All,
    /// Each mutation by itself: the first error is returned, others may have been applied (unlogged batch).
    #[n(1)]
    Each,
    /// All mutations or none, in the end: on eventual tables readers may see some of them before the others. On
    /// strong tables as `All`.
    #[n(2)]
    Logged,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Mutation {
    #[n(0)]
    pub table: TableId,
    /// A row's key, or a header's for static columns and partition deletions.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: Vec<u8>,
    #[n(2)]
    pub operation: RowOperation,
    /// Needs the row as it is: on eventual tables that takes compare-and-set, within one partition. Evaluated
    /// before the operation.
    #[n(3)]
    pub condition: Option<Condition>,
    #[n(4)]
    pub returning: Returning,
    /// This mutation's own write timestamp (CQL's USING TIMESTAMP in a batch).
    #[n(5)]
    pub timestamp: Option<Timestamp>,
}

impl Mutation {
    pub fn new(table: TableId, key: Vec<u8>, operation: RowOperation) -> Mutation {
        Mutation {
            table,
            key,
            operation,
            condition: None,
            returning: Returning::Nothing,
            timestamp: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum RowOperation {
    /// Writes cells into whatever is there. `marker` makes the row exist on its own (CQL INSERT; Spanner's
    /// insert_or_update; a DynamoDB put). Blind: needs no read.
    #[n(0)]
    Merge {
        #[n(0)]
        marker: bool,
        #[n(1)]
        assignments: Vec<Assignment>,
        /// Of the marker and the cells; 0 and `None` are for ever.
        #[n(2)]
        ttl_seconds: Option<u32>,
    },
    /// Replaces the whole row. Blind.
    #[n(1)]
    Replace {
        #[n(0)]
        assignments: Vec<Assignment>,
    },
    /// Deletes the row; with a header's key, the whole partition. Blind.
    #[n(2)]
    Delete,
    /// Deletes all rows of the table in the range; `key` is the header's for hash-partitioned tables (the
    /// range lies inside that partition), and the range's start for others. Blind.
    #[n(3)]
    DeleteRange {
        #[n(0)]
        range: KeyRange,
    },
    /// As `Merge` with a marker; `Refused::RowExists` if there is a row.
    #[n(4)]
    Insert {
        #[n(0)]
        assignments: Vec<Assignment>,
    },
    /// As `Merge`; `Refused::RowMissing` if there is no row.
    #[n(5)]
    Update {
        #[n(0)]
        assignments: Vec<Assignment>,
    },
    /// Applies a DynamoDB update to the document in `column`, which a missing row counts as empty.
    #[n(6)]
    UpdateDocument {
        #[n(0)]
        column: ColumnId,
        #[n(1)]
        update: document::Update,
    },
    /// Changes nothing: a mutation that only carries a condition.
    #[n(7)]
    Check,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Assignment {
    /// The column, or with a path one element of a collection.
    #[n(0)]
    Set {
        #[n(0)]
        column: ColumnId,
        #[cbor(n(1), with = "minicbor::bytes")]
        path: Option<CellPath>,
        #[n(2)]
        value: Value,
    },
    #[n(1)]
    Remove {
        #[n(0)]
        column: ColumnId,
        #[cbor(n(1), with = "minicbor::bytes")]
        path: Option<CellPath>,
    },
    /// Replaces a whole non-frozen collection: a tombstone just below the write's timestamp, then the
    /// elements.
    #[n(2)]
    SetCollection {
        #[n(0)]
        column: ColumnId,
        #[n(1)]
        elements: Vec<Element>,
    },
    /// Spanner's `PENDING_COMMIT_TIMESTAMP()`: the commit timestamp as a `Value::Timestamp`.
    #[n(3)]
    SetCommitTimestamp {
        #[n(0)]
        column: ColumnId,
    },
    /// CQL's counters: adds to a whole number. A missing one counts as 0, and a sum of more than 64 bits wraps
    /// around. Strong tables only.
    #[n(4)]
    Add {
        #[n(0)]
        column: ColumnId,
        #[n(1)]
        amount: i64,
    },
    /// The element at this position of a list that keeps a cell per element, counted from 0; a null removes it. Refused
    /// where the list has none there. Needs the row as it is.
    #[n(5)]
    SetElementAt {
        #[n(0)]
        column: ColumnId,
        #[n(1)]
        position: i64,
        #[n(2)]
        value: Value,
    },
    /// Removes the elements of such a list that are among these values. Needs the row as it is.
    #[n(6)]
    RemoveElements {
        #[n(0)]
        column: ColumnId,
        #[n(1)]
        values: Vec<Value>,
    },
}

impl Assignment {
    pub fn column(&self) -> ColumnId {
        match self {
            Assignment::Set { column, .. }
            | Assignment::Remove { column, .. }
            | Assignment::SetCollection { column, .. }
            | Assignment::SetCommitTimestamp { column }
            | Assignment::Add { column, .. }
            | Assignment::SetElementAt { column, .. }
            | Assignment::RemoveElements { column, .. } => *column,
        }
    }

    /// Whether what it does to the row depends on what is there, but for sums.
    pub fn needs_read(&self) -> bool {
        matches!(
            self,
            Assignment::SetElementAt { .. } | Assignment::RemoveElements { .. }
        )
    }
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Element {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub path: CellPath,
    #[n(1)]
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Condition {
    #[n(0)]
    RowExists,
    #[n(1)]
    RowMissing,
    /// All of these hold, and the row exists.
    #[n(2)]
    Columns(#[n(0)] Vec<Check>),
    /// A DynamoDB condition on the item: the document in `column` together with `key`, the key attributes.
    #[n(3)]
    Document {
        #[n(0)]
        column: ColumnId,
        /// The key attributes of the item, by name.
        #[n(1)]
        key: Vec<(String, Value)>,
        #[n(2)]
        condition: document::Condition,
    },
}

/// `column operator value`, or the same of a part of the column's value. A missing column, and a part that is not there,
/// are null.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Check {
    #[n(0)]
    pub column: ColumnId,
    #[n(1)]
    pub operator: CheckOperator,
    #[n(2)]
    pub values: Vec<Value>,
    /// `None` is the whole value.
    #[n(3)]
    pub part: Option<Part>,
}

/// A part of a composed value.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Part {
    /// The value under this key of a map.
    #[n(0)]
    Key(#[n(0)] Value),
    /// The element at this position of a list, counted from 0.
    #[n(1)]
    Position(#[n(0)] u32),
    /// The field at this position of a user-defined type.
    #[n(2)]
    Field(#[n(0)] u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum CheckOperator {
    #[n(0)]
    Equal,
    #[n(1)]
    NotEqual,
    #[n(2)]
    Less,
    #[n(3)]
    LessOrEqual,
    #[n(4)]
    Greater,
    #[n(5)]
    GreaterOrEqual,
    #[n(6)]
    In,
    /// The set, list or map has this element or value.
    #[n(7)]
    Contains,
    /// The map has this key.
    #[n(8)]
    ContainsKey,
}

/// Which row the answer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Returning {
    #[n(0)]
    Nothing,
    /// The row before, and, when the condition fails, the row that failed it.
    #[n(1)]
    Old,
    #[n(2)]
    New,
    #[n(3)]
    Both,
}

/// A strong read that a write relies on: nothing of `table` in `range` has changed since `timestamp`, as far as it was
/// read.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct ReadAssertion {
    #[n(0)]
    pub table: TableId,
    #[n(1)]
    pub range: KeyRange,
    #[n(2)]
    pub timestamp: Timestamp,
    /// What of the rows was read. Where no lock vouches for that, a change of any other column counts as well.
    #[n(3)]
    pub columns: ColumnSet,
}

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct WriteResponse {
    /// On strong tables; the largest when there are several.
    #[n(0)]
    pub commit_timestamp: Option<Timestamp>,
    /// One a mutation, in order; empty when none asked for rows.
    #[n(1)]
    pub returned: Vec<ReturnedRows>,
}

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct ReturnedRows {
    #[n(0)]
    pub old: Option<Row>,
    #[n(1)]
    pub new: Option<Row>,
}

/// Lists of byte strings as CBOR byte strings.
pub mod byte_strings {
    use minicbor::{Decoder, Encoder};

    pub fn encode<C, W: minicbor::encode::Write>(
        strings: &[Vec<u8>],
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.array(strings.len() as u64)?;
        for string in strings {
            encoder.bytes(string)?;
        }
        Ok(())
    }

    pub fn decode<C>(
        decoder: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Vec<Vec<u8>>, minicbor::decode::Error> {
        decoder
            .array_iter::<minicbor::bytes::ByteVec>()?
            .map(|item| item.map(Into::into))
            .collect()
    }
}
