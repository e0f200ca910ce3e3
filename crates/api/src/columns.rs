//! Sets of columns, as locks know them.

use crate::{Assignment, Projection, RowOperation};
use minicbor::{Decode, Encode};
use model::ColumnId;

/// Columns of a row, or that the row is there at all. A column is one of 63 bits, by its number: in a table of more columns two may
/// stand for each other, and are then locked together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct ColumnSet(#[n(0)] u64);

impl ColumnSet {
    pub const NONE: ColumnSet = ColumnSet(0);
    pub const ALL: ColumnSet = ColumnSet(u64::MAX);
    /// No column, but whether the row is there.
    pub const EXISTENCE: ColumnSet = ColumnSet(1 << EXISTENCE_BIT);

    pub fn of(columns: impl IntoIterator<Item = ColumnId>) -> ColumnSet {
        let bits = columns
            .into_iter()
            .map(|column| 1 << (column.0 % EXISTENCE_BIT));
        ColumnSet(bits.fold(0, |all, bit| all | bit))
    }

    /// What an answer depends on: the columns that it carries, and which rows there are.
    pub fn read_by(projection: &Projection) -> ColumnSet {
        match projection {
            Projection::All => ColumnSet::ALL,
            Projection::Columns(columns) => {
                ColumnSet::of(columns.iter().copied()).and(ColumnSet::EXISTENCE)
            }
        }
    }

    /// What an operation may change. Only an update leaves it at its columns: it refuses a row that is not there, and
    /// one that is there stays.
    pub fn written_by(operation: &RowOperation) -> ColumnSet {
        match operation {
            RowOperation::Update { assignments } => {
                ColumnSet::of(assignments.iter().map(Assignment::column))
            }
            _ => ColumnSet::ALL,
        }
    }

    #[must_use]
    pub fn and(self, other: ColumnSet) -> ColumnSet {
        ColumnSet(self.0 | other.0)
    }

    pub fn overlaps(self, other: ColumnSet) -> bool {
        self.0 & other.0 != 0
    }

    pub fn contains(self, other: ColumnSet) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

const EXISTENCE_BIT: u64 = 63;

#[cfg(test)]
mod tests {
    use super::*;
    use model::Value;

    #[test]
    fn columns_of_one_row_are_apart_and_a_row_that_comes_or_goes_is_in_the_way_of_all() {
        let read = |column| ColumnSet::read_by(&Projection::Columns(vec![ColumnId(column)]));
        let update = RowOperation::Update {
            assignments: vec![Assignment::Set {
                column: ColumnId(4),
                path: None,
                value: Value::Int(1),
            }],
        };
        let written = ColumnSet::written_by(&update);
        assert!(written.overlaps(read(4)));
        assert!(!written.overlaps(read(5)));
        assert!(!written.overlaps(ColumnSet::EXISTENCE));
        assert!(written.overlaps(read(4 + 63)), "two columns of one bit");
        let deleted = ColumnSet::written_by(&RowOperation::Delete);
        assert!(deleted.overlaps(read(5)) && deleted.overlaps(ColumnSet::EXISTENCE));
        assert!(ColumnSet::ALL.contains(read(5)) && !read(5).contains(read(4)));
    }
}
