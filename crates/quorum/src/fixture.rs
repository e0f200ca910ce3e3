//! A table for tests: partition `p int`, clustering `c int`, regular `v int`, static `s int`.

use crate::message::RawRow;
use crate::partition::Layout;
use catalog::{
    Column, ColumnRole, Durability, Ordering, Partitioning, Protocol, Replication, Table, TableSpec,
};
use model::{
    Cell, CellContent, ColumnId, Deletion, Interval, Marker, Row, TableId, Timestamp, Type, Value,
};
use std::collections::BTreeMap;
use world::{Clock, ClockError, ClockSource};

pub(crate) const VALUE: ColumnId = ColumnId(3);
pub(crate) const STATIC: ColumnId = ColumnId(4);

/// A wall clock that stands still.
pub(crate) struct Stopped(pub i64);

impl Clock for Stopped {
    fn now(&self) -> Result<Interval, ClockError> {
        Err(ClockError::Unbounded("stopped".into()))
    }

    fn wall_micros(&self) -> i64 {
        self.0
    }

    fn monotonic_micros(&self) -> u64 {
        0
    }

    fn source(&self) -> ClockSource {
        ClockSource::Simulated
    }

    fn wall_error_micros(&self) -> Result<i64, ClockError> {
        Ok(0)
    }
}

pub(crate) fn table() -> Table {
    let column = |id: u64, name: &str, role| Column {
        id: ColumnId(id),
        name: name.into(),
        kind: Type::Int,
        role,
        descending: false,
        not_null: false,
        options: BTreeMap::new(),
    };
    Table {
        id: TableId(1),
        root: TableId(1),
        uuid: [0; 16],
        spec: TableSpec {
            namespace: "test".into(),
            name: "fixture".into(),
            partitioning: Partitioning::Hash,
            replication: Replication {
                protocol: Protocol::Eventual,
                factor_by_data_center: BTreeMap::new(),
                factor: 3,
                durability: Durability::Synced,
                ordering: Ordering::Conflict,
            },
            columns: vec![
                column(1, "p", ColumnRole::Partition),
                column(2, "c", ColumnRole::Clustering),
                column(3, "v", ColumnRole::Regular),
                column(4, "s", ColumnRole::Static),
            ],
            parent: None,
            cascade: false,
            gc_grace_seconds: 864_000,
            default_ttl_seconds: 0,
            properties: BTreeMap::new(),
        },
        next_column_id: 5,
        ancestors: Vec::new(),
        dropped: BTreeMap::new(),
        version: 1,
        sealed_at_micros: None,
        has_own_copies: false,
    }
}

pub(crate) fn row_key(partition: i32, clustering: i32) -> Vec<u8> {
    table()
        .row_key(&[Value::Int(partition.into()), Value::Int(clustering.into())])
        .expect("two ints are this table's key")
}

pub(crate) fn header_key(partition: i32) -> Vec<u8> {
    table()
        .header_key(&[Value::Int(partition.into())])
        .expect("an int is this table's partition key")
}

pub(crate) fn layout() -> Layout {
    Layout::new(&table())
}

fn cell(column: ColumnId, timestamp: i64, value: i64) -> Cell {
    Cell {
        column,
        path: None,
        timestamp: Timestamp(timestamp),
        content: CellContent::Live {
            value: Value::Int(value),
            expiry: None,
        },
    }
}

fn deletion(timestamp: i64) -> Deletion {
    Deletion {
        timestamp: Timestamp(timestamp),
        local_seconds: 0,
    }
}

/// An INSERT.
pub(crate) fn delta(partition: i32, clustering: i32, timestamp: i64, value: i64) -> RawRow {
    let row = Row {
        marker: Some(Marker {
            timestamp: Timestamp(timestamp),
            expiry: None,
        }),
        cells: vec![cell(VALUE, timestamp, value)],
        ..Row::default()
    };
    RawRow {
        key: row_key(partition, clustering),
        row: row.to_bytes(),
    }
}

/// A DELETE of a row.
pub(crate) fn tombstone(partition: i32, clustering: i32, timestamp: i64) -> RawRow {
    let row = Row {
        deletion: Some(deletion(timestamp)),
        ..Row::default()
    };
    RawRow {
        key: row_key(partition, clustering),
        row: row.to_bytes(),
    }
}

/// A DELETE of a partition.
pub(crate) fn header_delta(partition: i32, timestamp: i64) -> RawRow {
    let row = Row {
        deletion: Some(deletion(timestamp)),
        ..Row::default()
    };
    RawRow {
        key: header_key(partition),
        row: row.to_bytes(),
    }
}

/// A static column's value.
pub(crate) fn static_delta(partition: i32, timestamp: i64, value: i64) -> RawRow {
    let row = Row {
        cells: vec![cell(STATIC, timestamp, value)],
        ..Row::default()
    };
    RawRow {
        key: header_key(partition),
        row: row.to_bytes(),
    }
}
