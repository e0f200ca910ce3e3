//! The rows that clients write, some to a partition, each of several registers: a plain column, and the elements of a map.
//! A write may be of one register or of many: what it does to each is said for each by itself, as if it were alone.

use crate::checker::last_write::Rank;
use crate::cluster::Cluster;
use crate::plan::Plan;
use crate::workload::client::{Shape, column, create_table};
use api::{Assignment, Element, KeyRange, Mutation, ReadRow, RowOperation};
use catalog::{Partitioning, Protocol, Table};
use model::key::{self, Direction};
use model::{CellContent, ColumnId, Row, Type, Value};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Keys that the maps have elements of.
const ELEMENTS: u64 = 2;
const TTL_SECONDS_MAX: u32 = 3;

/// `p bigint, k bigint` → `v bigint, m map<bigint, bigint>`.
pub(super) struct Rows {
    pub table: Arc<Table>,
    value: ColumnId,
    map: ColumnId,
    /// How many there are.
    pub count: u64,
    per_partition: u64,
}

/// What is judged by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Register {
    pub row: u64,
    pub part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Column,
    Element(u64),
}

impl fmt::Display for Register {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Part::Column => write!(formatter, "row {}", self.row),
            Part::Element(element) => write!(formatter, "row {}, element {element}", self.row),
        }
    }
}

/// What clients do to a row, or to more of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    /// The column alone, or the whole row, for some seconds.
    PutExpiring,
    PutElement,
    /// The map as a whole.
    Overwrite,
    DeleteColumn,
    DeleteElement,
    DeleteRow,
    /// Some neighbours.
    DeleteRange,
    DeletePartition,
}

impl Kind {
    pub const PUTS: [Kind; 8] = [
        Kind::Put,
        Kind::Put,
        Kind::Put,
        Kind::Put,
        Kind::PutExpiring,
        Kind::PutElement,
        Kind::PutElement,
        Kind::Overwrite,
    ];
    pub const DELETIONS: [Kind; 5] = [
        Kind::DeleteColumn,
        Kind::DeleteElement,
        Kind::DeleteRow,
        Kind::DeleteRange,
        Kind::DeletePartition,
    ];

    /// Whether it leaves nothing but tombstones.
    pub fn is_deletion(self) -> bool {
        Kind::DELETIONS.contains(&self)
    }
}

/// A write, and what it does to each register that it is about.
#[derive(Clone)]
pub(super) struct Change {
    pub mutation: Mutation,
    pub timestamp: i64,
    pub effects: Vec<(Register, Rank)>,
    pub ttl_seconds: Option<u32>,
}

impl Rows {
    pub async fn create(
        cluster: &Cluster,
        plan: &Plan,
        count: u64,
        per_partition: u64,
    ) -> Result<Rows, String> {
        let map = Type::Map {
            key: Box::new(Type::BigInt),
            value: Box::new(Type::BigInt),
            frozen: false,
        };
        let shape = Shape {
            name: "registers",
            partitioning: Partitioning::Hash,
            keys: 2,
            columns: &[
                ("p", Type::BigInt),
                ("k", Type::BigInt),
                ("v", Type::BigInt),
                ("m", map),
            ],
        };
        let table = create_table(cluster, Protocol::Eventual, plan, shape).await?;
        Ok(Rows {
            value: column(&table, "v")?,
            map: column(&table, "m")?,
            table,
            count,
            per_partition,
        })
    }

    pub fn partition(&self, row: u64) -> u64 {
        row / self.per_partition
    }

    pub fn key(&self, row: u64) -> Vec<u8> {
        let values = [self.partition(row), row].map(|number| Value::Int(number as i64));
        let key = self.table.row_key(&values);
        key.expect("bigints are the table's key")
    }

    fn header(&self, row: u64) -> Vec<u8> {
        let partition = Value::Int(self.partition(row) as i64);
        let key = self.table.header_key(&[partition]);
        key.expect("one bigint is the table's partition key")
    }

    /// What a row shows, if it is there.
    pub fn shown(&self, number: u64, row: Option<&Row>) -> BTreeMap<Register, Option<u64>> {
        let register = |part| Register { row: number, part };
        let live = |path: Option<Vec<u8>>, column| {
            let mut cells = row.map_or(&[][..], |row| row.cells(column)).iter();
            cells.find_map(|cell| match &cell.content {
                CellContent::Live {
                    value: Value::Int(value),
                    ..
                } if cell.path == path => Some(*value as u64),
                _ => None,
            })
        };
        let column = (register(Part::Column), live(None, self.value));
        let elements = (0..ELEMENTS).map(|element| {
            let shown = live(Some(path(element)), self.map);
            (register(Part::Element(element)), shown)
        });
        std::iter::once(column).chain(elements).collect()
    }

    /// The same of all rows.
    pub fn all_shown(&self, rows: &[ReadRow]) -> BTreeMap<Register, Option<u64>> {
        (0..self.count)
            .flat_map(|number| {
                let key = self.key(number);
                let read = rows.iter().find(|read| read.key == key);
                self.shown(number, read.map(|read| &read.row))
            })
            .collect()
    }

    /// A write of this kind at a row, with values that nobody else writes.
    pub fn change(
        &self,
        kind: Kind,
        row: u64,
        timestamp: i64,
        mut next_value: impl FnMut() -> u64,
        random: &mut SmallRng,
    ) -> Change {
        let mut effects = Effects {
            timestamp,
            all: Vec::new(),
        };
        let element = random.random_range(0..ELEMENTS);
        let is_expiring = kind == Kind::PutExpiring;
        let ttl_seconds = is_expiring.then(|| random.random_range(1..=TTL_SECONDS_MAX));
        let merge = |marker, assignments| RowOperation::Merge {
            marker,
            assignments,
            ttl_seconds,
        };
        let (column, map) = (self.value, self.map);
        let set = |column, path, value: u64| Assignment::Set {
            column,
            path,
            value: Value::Int(value as i64),
        };
        let mut key = self.key(row);
        let operation = match kind {
            Kind::Put | Kind::PutExpiring => {
                let value = next_value();
                effects.put(row, Part::Column, value);
                let marker = kind == Kind::Put || random.random_bool(0.5);
                merge(marker, vec![set(column, None, value)])
            }
            Kind::PutElement => {
                let value = next_value();
                effects.put(row, Part::Element(element), value);
                merge(true, vec![set(map, Some(path(element)), value)])
            }
            Kind::Overwrite => {
                let mut elements = Vec::new();
                for element in 0..ELEMENTS {
                    if random.random_bool(0.5) {
                        let value = next_value();
                        effects.put(row, Part::Element(element), value);
                        elements.push(Element {
                            path: path(element),
                            value: Value::Int(value as i64),
                        });
                    } else {
                        // What was there goes right before what comes.
                        effects.delete(row, Part::Element(element), timestamp - 1);
                    }
                }
                let whole = Assignment::SetCollection {
                    column: map,
                    elements,
                };
                merge(true, vec![whole])
            }
            Kind::DeleteColumn => {
                effects.delete(row, Part::Column, timestamp);
                let path = None;
                merge(false, vec![Assignment::Remove { column, path }])
            }
            Kind::DeleteElement => {
                effects.delete(row, Part::Element(element), timestamp);
                let (column, path) = (map, Some(path(element)));
                merge(false, vec![Assignment::Remove { column, path }])
            }
            Kind::DeleteRow => {
                effects.delete_row(row);
                RowOperation::Delete
            }
            Kind::DeleteRange | Kind::DeletePartition => {
                key = self.header(row);
                let mates = (0..self.count).filter(|it| self.partition(*it) == self.partition(row));
                let mates: Vec<u64> = mates.collect();
                let (rows, operation) = match kind {
                    Kind::DeletePartition => (mates, RowOperation::Delete),
                    _ => self.delete_range(&mates, row, random),
                };
                rows.iter().for_each(|row| effects.delete_row(*row));
                operation
            }
        };
        Change {
            mutation: Mutation::new(self.table.id, key, operation),
            timestamp,
            effects: effects.all,
            ttl_seconds,
        }
    }

    /// Deletes a row and neighbours on both sides: up to a bound, or to the end of the partition.
    fn delete_range(
        &self,
        mates: &[u64],
        row: u64,
        random: &mut SmallRng,
    ) -> (Vec<u64>, RowOperation) {
        let (first, last) = (mates[0], mates[mates.len() - 1]);
        let (from, to) = (
            random.random_range(first..=row),
            random.random_range(row..=last),
        );
        let is_open = |bound, limit, random: &mut SmallRng| bound == limit && random.random();
        let range = KeyRange {
            start: match is_open(from, first, random) {
                true => Vec::new(),
                false => self.key(from),
            },
            end: match is_open(to, last, random) {
                true => None,
                false => key::prefix_end(&self.key(to)),
            },
        };
        let deleted = mates.iter().copied().filter(|it| (from..=to).contains(it));
        (deleted.collect(), RowOperation::DeleteRange { range })
    }
}

/// Collects what a write does.
struct Effects {
    timestamp: i64,
    all: Vec<(Register, Rank)>,
}

impl Effects {
    fn put(&mut self, row: u64, part: Part, value: u64) {
        let rank = Rank {
            timestamp: self.timestamp,
            is_tombstone: false,
            value,
        };
        self.all.push((Register { row, part }, rank));
    }

    fn delete(&mut self, row: u64, part: Part, timestamp: i64) {
        let rank = Rank {
            timestamp,
            is_tombstone: true,
            value: 0,
        };
        self.all.push((Register { row, part }, rank));
    }

    fn delete_row(&mut self, row: u64) {
        self.delete(row, Part::Column, self.timestamp);
        for element in 0..ELEMENTS {
            self.delete(row, Part::Element(element), self.timestamp);
        }
    }
}

/// The path of an element's cell.
fn path(element: u64) -> Vec<u8> {
    let mut path = Vec::new();
    let (key, ascending) = (Value::Int(element as i64), Direction::Ascending);
    key::encode(&key, &Type::BigInt, ascending, &mut path).expect("a bigint is a key");
    path
}
