//! Locks among themselves: ages, modes, escalation, memory.

use super::*;
use model::{ColumnId, Interval, NodeId, RequestId};

fn age(start: i64) -> TransactionId {
    TransactionId {
        start: Timestamp(start),
        ..TransactionId::default()
    }
}

fn key(name: &str) -> KeyRange {
    KeyRange {
        start: name.as_bytes().to_vec(),
        end: Some([name.as_bytes(), &[0]].concat()),
    }
}

fn range(start: &str, end: &str) -> KeyRange {
    KeyRange {
        start: start.into(),
        end: Some(end.into()),
    }
}

fn writes(name: &str) -> Spans {
    Spans::of_rows(&[name.into()], &[], &[])
}

fn reads(range: KeyRange) -> Spans {
    Spans::of_rows(&[], &[], &[range])
}

fn with(owner: i64, spans: &Spans) -> Locks {
    let mut locks = Locks::default();
    locks.lock(age(owner), spans, Timestamp(7), 0).unwrap();
    locks
}

/// Of one column of a row: what reads, or changes, it.
fn column(name: &str, column: u64, changes: bool) -> Spans {
    let column = ColumnSet::of([ColumnId(column)]);
    match changes {
        true => Spans {
            points: vec![(name.into(), column)],
            ..Spans::default()
        },
        false => Spans {
            shared: vec![(key(name), column.and(ColumnSet::EXISTENCE))],
            ..Spans::default()
        },
    }
}

#[test]
fn readers_share_and_a_younger_writer_waits() {
    let mut locks = with(1, &reads(key("a")));
    assert_eq!(
        locks.clear_way(&reads(key("a")), age(2), None, 0),
        Way::Clear
    );
    assert_eq!(locks.clear_way(&writes("a"), age(2), None, 0), Way::Blocked);
    assert_eq!(locks.clear_way(&writes("b"), age(2), None, 0), Way::Clear);
    assert_eq!(locks.clear_way(&writes("a"), age(1), None, 0), Way::Clear);
    locks.release(age(1));
    assert_eq!(locks.clear_way(&writes("a"), age(2), None, 0), Way::Clear);
    assert!(locks.is_idle());
}

#[test]
fn an_older_writer_wounds_a_younger_reader_unless_it_is_confirmed() {
    let mut locks = with(5, &reads(range("a", "m")));
    assert_eq!(locks.clear_way(&writes("c"), age(1), None, 0), Way::Clear);
    assert!(locks.is_wounded(age(5)));
    assert!(!locks.has_kept(age(5), (&key("c"), ColumnSet::ALL), Timestamp(9)));
    let mut locks = with(5, &reads(range("a", "m")));
    locks.confirm(age(5), Timestamp(100), Timestamp(8));
    assert_eq!(locks.clear_way(&writes("c"), age(1), None, 0), Way::Blocked);
    assert_eq!(locks.confirmed_until(), Some(Timestamp(100)));
    locks.withdraw(age(5), Timestamp(7));
    assert_eq!(locks.clear_way(&writes("c"), age(1), None, 0), Way::Blocked);
    let place = locks.wait(age(1), writes("c"));
    let mut turn = locks.turn(place).expect("blocked");
    locks.withdraw(age(5), Timestamp(8));
    assert!(turn.try_recv().is_ok());
    assert_eq!(
        locks.clear_way(&writes("c"), age(1), Some(place), 0),
        Way::Clear
    );
    assert!(locks.is_wounded(age(5)));
}

#[test]
fn columns_of_one_row_are_locked_apart() {
    let mut locks = with(1, &column("a", 1, false));
    locks
        .lock(age(1), &column("a", 1, true), Timestamp(7), 0)
        .unwrap();
    let mut way = |spans: &Spans| locks.clear_way(spans, age(2), None, 0);
    assert_eq!(way(&column("a", 2, false)), Way::Clear);
    assert_eq!(way(&column("a", 2, true)), Way::Clear);
    assert_eq!(way(&column("a", 1, false)), Way::Blocked);
    assert_eq!(way(&column("a", 1, true)), Way::Blocked);
    // The row may not go, nor be written anew.
    assert_eq!(way(&writes("a")), Way::Blocked);
    assert_eq!(way(&reads(range("", "b"))), Way::Blocked);
    let kept = |columns| locks.has_kept(age(1), (&key("a"), columns), Timestamp(8));
    assert!(kept(ColumnSet::of([ColumnId(1)]).and(ColumnSet::EXISTENCE)));
    assert!(!kept(ColumnSet::of([ColumnId(2)])));
}

#[test]
fn what_is_prepared_is_in_everybodys_way() {
    let mut locks = Locks::default();
    let id = CommandId::default();
    locks.add_prepared(id, Timestamp(50), writes("a"));
    assert_eq!(locks.clear_way(&writes("a"), age(1), None, 0), Way::Blocked);
    assert_eq!(
        locks.clear_way(&reads(range("", "b")), age(1), None, 0),
        Way::Blocked
    );
    assert_eq!(locks.clear_way(&writes("b"), age(1), None, 0), Way::Clear);
    let touches = |spans: &Spans| spans.writes(b"a", ColumnSet::ALL);
    assert!(locks.is_prepared(Timestamp(50), &touches));
    assert!(!locks.is_prepared(Timestamp(49), &touches));
    assert_eq!(locks.prepared_from(), Some(Timestamp(50)));
    locks.end_prepared(id);
    assert_eq!(locks.clear_way(&writes("a"), age(1), None, 0), Way::Clear);
}

#[test]
fn waiting_is_by_age_whoever_came_first() {
    let mut locks = with(1, &writes("a"));
    let young = locks.wait(age(9), writes("a"));
    let old = locks.wait(age(3), writes("a"));
    let mut young_turn = locks.turn(young).unwrap();
    let mut old_turn = locks.turn(old).unwrap();
    locks.release(age(1));
    assert!(old_turn.try_recv().is_ok());
    assert!(young_turn.try_recv().is_err());
    assert_eq!(
        locks.clear_way(&writes("a"), age(9), Some(young), 0),
        Way::Blocked
    );
    assert_eq!(
        locks.clear_way(&writes("a"), age(3), Some(old), 0),
        Way::Clear
    );
    locks.stop_waiting(old);
    assert!(young_turn.try_recv().is_ok());
}

#[test]
fn a_lock_vouches_for_what_was_read_since_it_was_taken() {
    let locks = with(1, &reads(range("a", "m")));
    assert!(locks.has_kept(age(1), (&range("b", "c"), ColumnSet::ALL), Timestamp(7)));
    assert!(!locks.has_kept(age(1), (&range("b", "c"), ColumnSet::ALL), Timestamp(6)));
    assert!(!locks.has_kept(age(1), (&range("b", "z"), ColumnSet::ALL), Timestamp(7)));
    assert!(!locks.has_kept(age(2), (&range("b", "c"), ColumnSet::ALL), Timestamp(7)));
}

#[test]
fn a_read_that_was_cut_short_keeps_only_what_it_read() {
    let mut locks = with(1, &reads(range("a", "z")));
    locks.narrow(age(1), &range("a", "z"), &[range("a", "f")]);
    assert_eq!(locks.clear_way(&writes("g"), age(2), None, 0), Way::Clear);
    assert_eq!(locks.clear_way(&writes("b"), age(2), None, 0), Way::Blocked);
}

#[test]
fn many_locks_become_one_that_spans_them() {
    let mut locks = Locks::default();
    for number in 0..=HELD_MAX {
        let spans = reads(key(&format!("k{number:06}")));
        locks.lock(age(1), &spans, Timestamp(1), 0).unwrap();
    }
    assert_eq!(locks.owners[&age(1)].held.len(), 1);
    assert!(locks.points.is_empty());
    assert_eq!(
        locks.clear_way(&writes("k000500x"), age(2), None, 0),
        Way::Blocked
    );
}

#[test]
fn who_is_not_heard_of_loses_its_locks() {
    let mut locks = with(1, &writes("a"));
    let now = Interval {
        earliest: Timestamp(10),
        latest: Timestamp(10),
    };
    locks.touch(age(1), 500);
    locks.expire(500, now);
    assert_eq!(locks.clear_way(&writes("a"), age(2), None, 0), Way::Blocked);
    locks.expire(501, now);
    assert_eq!(locks.clear_way(&writes("a"), age(2), None, 0), Way::Clear);
    assert!(locks.is_wounded(age(1)));
}

#[test]
fn ages_order_by_start_and_then_by_who_asked() {
    let other = TransactionId {
        node: NodeId(2),
        request: RequestId(1),
        ..age(5)
    };
    assert!(age(5) < other && other < age(6));
}

/// Few long keys weigh as much as many short ones.
#[test]
fn locks_take_bounded_memory() {
    let mut locks = Locks::default();
    let long = |owner: i64, key: u32| format!("{owner:04}{key:04}{}", "x".repeat(8_000));
    let mut owners = 0;
    while locks.weight_bytes <= WEIGHT_BYTES_MAX {
        owners += 1;
        for number in 0..100 {
            let spans = writes(&long(owners, number));
            assert_eq!(locks.lock(age(owners), &spans, Timestamp(1), 0), Ok(()));
        }
    }
    assert!((2..20).contains(&owners), "{owners}");
    let other = writes("other");
    assert_eq!(
        locks.lock(age(1_000), &other, Timestamp(1), 0),
        Err(TooMany)
    );
    // Who asks for more keeps one lock in place of many.
    let spans = writes(&long(1, 100));
    assert_eq!(locks.lock(age(1), &spans, Timestamp(1), 0), Ok(()));
    assert_eq!(locks.owners[&age(1)].held.len(), 1);
    assert!(locks.weight_bytes <= WEIGHT_BYTES_MAX);
    for owner in 1..=owners {
        locks.release(age(owner));
    }
    assert_eq!(locks.weight_bytes, 0);
    assert_eq!(locks.lock(age(1_000), &other, Timestamp(1), 0), Ok(()));
}
