//! From the mutations of the waist to deltas: rows of cells with timestamps that replicas merge. Pure.
//!
//! What a mutation does to its record is `api::evaluate`'s business; this adds what needs the shape of keys.

use crate::message::RawRow;
use crate::partition::Layout;
use api::evaluate::{Moment, blind_change};
use api::{Error, KeyRange, Mutation, RowOperation};
use catalog::Table;

/// Lowers one blind mutation. `moment.timestamp` counts unless the mutation names its own.
pub fn lower(table: &Table, mutation: &Mutation, moment: Moment) -> Result<RawRow, Error> {
    let is_header = || Layout::new(table).is_header(&mutation.key);
    let moment = Moment {
        timestamp: mutation.timestamp.unwrap_or(moment.timestamp),
        ..moment
    };
    let row = match &mutation.operation {
        RowOperation::DeleteRange { range } => {
            if !is_header() {
                return Err(Error::unsupported(
                    "rows of an eventual table can be deleted by range only within one partition",
                ));
            }
            let clipped = clip(range, &mutation.key);
            if clipped.is_empty() {
                model::Row::default()
            } else {
                let operation = RowOperation::DeleteRange { range: clipped };
                let mutation = Mutation {
                    operation,
                    ..mutation.clone()
                };
                blind_change(table, &mutation, moment)?
            }
        }
        RowOperation::Replace { .. } if is_header() => {
            return Err(Error::invalid("a partition cannot be replaced as one row"));
        }
        _ => blind_change(table, mutation, moment)?,
    };
    Ok(RawRow {
        key: mutation.key.clone(),
        row: row.to_bytes(),
    })
}

/// A range of rows, cut to the partition of this header.
fn clip(range: &KeyRange, header: &[u8]) -> KeyRange {
    let prefix = header[..header.len().saturating_sub(1)].to_vec();
    range.intersection(&KeyRange::prefix(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{header_key, row_key, table};
    use crate::partition::decode_row;
    use api::{Assignment, Condition};
    use model::{ColumnId, Timestamp, Value};

    fn moment() -> Moment {
        Moment {
            timestamp: Timestamp(50),
            now_seconds: 7,
        }
    }

    fn merge_of(key: Vec<u8>) -> Mutation {
        Mutation::new(
            table().id,
            key,
            RowOperation::Merge {
                marker: true,
                assignments: vec![Assignment::Set {
                    column: ColumnId(3),
                    path: None,
                    value: Value::Int(5),
                }],
                ttl_seconds: None,
            },
        )
    }

    #[test]
    fn a_mutation_s_own_timestamp_counts() {
        let mut mutation = merge_of(row_key(1, 2));
        let delta = lower(&table(), &mutation, moment()).unwrap();
        let row = decode_row(&delta.row).unwrap();
        assert_eq!(row.cells[0].timestamp, Timestamp(50));
        mutation.timestamp = Some(Timestamp(9));
        let delta = lower(&table(), &mutation, moment()).unwrap();
        let row = decode_row(&delta.row).unwrap();
        assert_eq!(row.marker.unwrap().timestamp, Timestamp(9));
    }

    #[test]
    fn a_deleted_range_is_cut_to_its_partition() {
        let delete = |key, range| {
            let mutation = Mutation::new(table().id, key, RowOperation::DeleteRange { range });
            lower(&table(), &mutation, moment())
        };
        let delta = delete(header_key(1), KeyRange::all()).unwrap();
        let row = decode_row(&delta.row).unwrap();
        let tombstone = &row.range_tombstones[0];
        assert!(tombstone.start <= row_key(1, i32::MIN) && row_key(1, i32::MAX) < tombstone.end);
        assert!(
            !KeyRange {
                start: tombstone.start.clone(),
                end: Some(tombstone.end.clone())
            }
            .contains(&row_key(2, 0))
        );
        assert!(delete(row_key(1, 1), KeyRange::all()).is_err());
    }

    #[test]
    fn what_needs_the_row_is_refused() {
        let mut mutation = merge_of(row_key(1, 2));
        mutation.condition = Some(Condition::RowMissing);
        let error = lower(&table(), &mutation, moment()).unwrap_err();
        assert!(error.to_string().contains("not blind"));
        let check = Mutation::new(table().id, row_key(1, 2), RowOperation::Check);
        assert!(lower(&table(), &check, moment()).is_err());
    }
}
