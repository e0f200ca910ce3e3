//! Merging is associative, commutative and idempotent, and the codec is exact and strict.

use crate::values::any_value;
use model::row::{Expiry, RowError};
use model::{Cell, CellContent, ColumnId, Deletion, Marker, RangeTombstone, Row, Timestamp, Value};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Few enough timestamps that equal ones are common.
fn timestamp() -> impl Strategy<Value = Timestamp> {
    (0i64..6).prop_map(Timestamp)
}

fn expiry() -> impl Strategy<Value = Option<Expiry>> {
    option::weighted(
        0.3,
        (0i64..4, 0u32..3).prop_map(|(at_seconds, ttl_seconds)| Expiry {
            at_seconds,
            ttl_seconds,
        }),
    )
}

fn deletion() -> impl Strategy<Value = Deletion> {
    (timestamp(), 0i64..3).prop_map(|(timestamp, local_seconds)| Deletion {
        timestamp,
        local_seconds,
    })
}

fn content() -> impl Strategy<Value = CellContent> {
    let few = prop::sample::select(vec![
        Value::Int(-1),
        Value::Int(1),
        Value::Text("a".into()),
        Value::Float64(0.0),
        Value::Float64(-0.0),
        Value::Null,
        Value::List(vec![Value::Bool(true)]),
    ]);
    prop_oneof![
        (few, expiry()).prop_map(|(value, expiry)| CellContent::Live { value, expiry }),
        (0i64..3).prop_map(|local_seconds| CellContent::Tombstone { local_seconds }),
    ]
}

fn cell() -> impl Strategy<Value = Cell> {
    let path = option::of(vec(0u8..3, 0..2));
    (0u64..3, path, timestamp(), content()).prop_map(|(column, path, timestamp, content)| Cell {
        column: ColumnId(column),
        path,
        timestamp,
        content,
    })
}

fn range() -> impl Strategy<Value = RangeTombstone> {
    (0u8..8, 0u8..8, deletion()).prop_map(|(start, end, deletion)| RangeTombstone {
        start: vec![start],
        end: vec![end],
        deletion,
    })
}

/// A row as a door may put it together: in any order.
fn change() -> impl Strategy<Value = Row> {
    let marker =
        (timestamp(), expiry()).prop_map(|(timestamp, expiry)| Marker { timestamp, expiry });
    let deletion = option::weighted(0.3, deletion());
    (
        option::of(marker),
        deletion,
        vec(cell(), 0..6),
        vec(range(), 0..4),
    )
        .prop_map(|(marker, deletion, cells, range_tombstones)| Row {
            marker,
            deletion,
            cells,
            range_tombstones,
        })
}

fn merged(rows: &[&Row]) -> Row {
    let mut result = Row::default();
    for row in rows {
        result.merge(row);
    }
    result
}

/// By bytes, for zeros' and NaN's sake.
fn same(left: &Row, right: &Row) -> bool {
    left.to_bytes() == right.to_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn merging_obeys_its_laws(a in change(), b in change(), c in change()) {
        let ab = merged(&[&a, &b]);
        prop_assert!(same(&ab, &merged(&[&b, &a])), "commutative: {ab:?}");
        let bc = merged(&[&b, &c]);
        let left = merged(&[&ab, &c]);
        let right = merged(&[&a, &bc]);
        prop_assert!(same(&left, &right), "associative: {left:?} {right:?}");
        let a = merged(&[&a]);
        prop_assert!(same(&merged(&[&a, &a]), &a), "idempotent: {a:?}");
        prop_assert!(same(&merged(&[&ab, &a]), &ab), "absorbing: {ab:?}");
    }

    #[test]
    fn a_point_is_covered_by_the_newest_deletion(row in change(), point in 0u8..8) {
        let key = [point];
        let newest = row
            .range_tombstones
            .iter()
            .filter(|range| range.start[..] <= key[..] && key[..] < range.end[..])
            .map(|range| range.deletion)
            .chain(row.deletion)
            .max_by_key(|deletion| deletion.timestamp)
            .map(|deletion| deletion.timestamp);
        let covering = merged(&[&row]).covering_deletion(&key);
        prop_assert_eq!(covering.map(|deletion| deletion.timestamp), newest);
    }

    #[test]
    fn nothing_dead_is_visible(row in change(), covering in option::of(deletion()), now in 0i64..5) {
        let mut seen = row.clone();
        let exists = seen.make_visible(covering, now);
        prop_assert_eq!(exists, !seen.is_empty());
        for cell in &seen.cells {
            let CellContent::Live { expiry, .. } = &cell.content else {
                return Err(TestCaseError::fail("a visible tombstone"));
            };
            prop_assert!(expiry.is_none_or(|expiry| expiry.at_seconds > now));
            for deletion in row.deletion.iter().chain(&covering) {
                prop_assert!(cell.timestamp > deletion.timestamp);
            }
        }
        // A row that was merged before shows the same.
        let mut of_merged = merged(&[&row]);
        of_merged.make_visible(covering, now);
        prop_assert!(same(&of_merged, &seen));
    }

    #[test]
    fn a_strong_row_keeps_no_tombstones(row in change(), next in change()) {
        let mut strong = Row::default();
        strong.apply_strong(&row);
        let exists = strong.apply_strong(&next);
        prop_assert_eq!(exists, !strong.is_empty());
        prop_assert!(strong.deletion.is_none() && strong.range_tombstones.is_empty());
        let live = |cell: &Cell| matches!(cell.content, CellContent::Live { .. });
        prop_assert!(strong.cells.iter().all(live));
    }

    #[test]
    fn purging_early_enough_changes_nothing_seen(row in change(), now in 2i64..5, before in 0i64..3) {
        let mut row = merged(&[&row]);
        let mut purged = row.clone();
        purged.purge_tombstones(before);
        row.make_visible(None, now.max(before));
        purged.make_visible(None, now.max(before));
        prop_assert!(same(&row, &purged));
    }

    #[test]
    fn the_codec_is_exact(row in change(), value in any_value(), timestamp in any::<i64>()) {
        let mut row = merged(&[&row]);
        prop_assert!(same(&Row::from_bytes(&row.to_bytes()).unwrap(), &row));
        row.cells.push(Cell {
            column: ColumnId(u64::MAX),
            path: None,
            timestamp: Timestamp(timestamp),
            content: CellContent::Live { value, expiry: None },
        });
        let bytes = row.to_bytes();
        let decoded = Row::from_bytes(&bytes).unwrap();
        prop_assert_eq!(format!("{decoded:?}"), format!("{row:?}"));
        for end in 0..bytes.len() {
            prop_assert!(Row::from_bytes(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn damaged_bytes_decode_to_their_own_row_or_are_refused(row in change(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = row.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(row) = Row::from_bytes(&bytes) {
            prop_assert_eq!(row.to_bytes(), bytes);
        }
    }

    #[test]
    fn any_bytes_decode_or_are_refused(mut bytes in vec(any::<u8>(), 0..60)) {
        bytes.insert(0, 1);
        if let Ok(row) = Row::from_bytes(&bytes) {
            prop_assert_eq!(row.to_bytes(), bytes);
        }
    }
}

#[test]
fn a_small_row_is_small() {
    let row = Row {
        marker: Some(Marker {
            timestamp: Timestamp(1_764_000_000_000_000),
            expiry: None,
        }),
        cells: vec![Cell {
            column: ColumnId(2),
            path: None,
            timestamp: Timestamp(1_764_000_000_000_000),
            content: CellContent::Live {
                value: Value::Text("ab".into()),
                expiry: None,
            },
        }],
        ..Row::default()
    };
    // Format, flags, base, count; cell: flags, column, tag, length, text. As docs/formats/row.md says.
    let expected = [
        &[1, 1][..],
        &1_764_000_000_000_000i64.to_be_bytes(),
        &[1, 0, 2, 9, 2, b'a', b'b'],
    ]
    .concat();
    assert_eq!(row.to_bytes(), expected);
    assert_eq!(Row::from_bytes(&expected), Ok(row));
}

#[test]
fn the_format_byte_is_checked() {
    assert_eq!(Row::from_bytes(&[2, 0]), Err(RowError::Format(2)));
    assert!(Row::from_bytes(&[]).is_err());
    let huge_count = [&[1, 0][..], &[0; 8], &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]].concat();
    assert!(Row::from_bytes(&huge_count).is_err());
}

#[test]
fn at_equal_timestamps_the_tombstone_wins() {
    let live = Cell {
        column: ColumnId(1),
        path: None,
        timestamp: Timestamp(5),
        content: CellContent::Live {
            value: Value::Int(1),
            expiry: None,
        },
    };
    let dead = Cell {
        content: CellContent::Tombstone { local_seconds: 0 },
        ..live.clone()
    };
    let row = |cell: &Cell| Row {
        cells: vec![cell.clone()],
        ..Row::default()
    };
    assert_eq!(
        merged(&[&row(&live), &row(&dead)]).cells,
        std::slice::from_ref(&dead)
    );
    assert_eq!(merged(&[&row(&dead), &row(&live)]).cells, [dead]);
}
