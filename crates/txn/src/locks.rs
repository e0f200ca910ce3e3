//! Who keeps which keys between its requests: transactions that have read and not yet committed, and prepared
//! ones whose ending is not known here yet.
//!
//! Latches order the work of a moment, locks that of a transaction. A request first latches its keys and then
//! asks whether locks are in its way; while it waits for one it holds no latch. Conflicts are settled by age
//! (wound-wait; Rosenkrantz, Stearns and Lewis, ACM TODS 1978): the older of two takes the younger's locks away,
//! and the younger waits for the older. What is prepared is never wounded, and waits for nothing, so every
//! wait is for something that ends by itself: there are no deadlocks to look for.
//!
//! Locks of transactions that are not prepared are in this leaseholder's memory alone. One that is lost with the
//! lease costs its transaction a second look at what it read, never its correctness.

use crate::latches::Spans;
use crate::request::CommandId;
use api::{ColumnSet, KeyRange, TransactionId};
use model::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::oneshot;
use world::planted::{self, Bug};

/// Transactions that may hold locks in one tablet.
const OWNERS_MAX: usize = 10_000;
/// Locks of one transaction in one tablet; beyond, they become one that spans them all.
const HELD_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LockMode {
    /// Others may read.
    Shared,
    Exclusive,
}

/// Columns of the rows in a range that a transaction keeps.
#[derive(Clone)]
struct Held {
    range: KeyRange,
    columns: ColumnSet,
    mode: LockMode,
    /// Nothing in the range has changed since, but by the transaction itself.
    since: Timestamp,
}

#[derive(Default)]
struct Owner {
    held: Vec<Held>,
    /// When it was last heard of, in microseconds of this node's own count.
    touched_micros: u64,
    /// Until then it counts on its locks for its commit, and cannot be wounded.
    confirmed: Option<Confirmed>,
}

/// What the attempt of a transaction that began then may rely on.
#[derive(Clone, Copy)]
struct Confirmed {
    until: Timestamp,
    began: Timestamp,
}

/// What a prepared transaction keeps from others.
struct Prepared {
    timestamp: Timestamp,
    spans: Spans,
}

struct Waiting {
    spans: Spans,
    turn: Option<oneshot::Sender<()>>,
}

/// A place among those who wait for locks, by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaitId(TransactionId, u64);

#[derive(Default)]
pub(crate) struct Locks {
    owners: BTreeMap<TransactionId, Owner>,
    /// Owners of locks on exactly one key, so that a request looks at no others.
    points: BTreeMap<Vec<u8>, BTreeSet<TransactionId>>,
    /// Owners of locks on ranges.
    ranged: BTreeSet<TransactionId>,
    prepared: BTreeMap<CommandId, Prepared>,
    /// Transactions that lost their locks to older ones and have not heard of it yet, and when that was.
    wounded: BTreeMap<TransactionId, u64>,
    waiting: BTreeMap<WaitId, Waiting>,
    last_wait: u64,
}

/// Whether a request may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Clear,
    /// Something older, or prepared, is in the way.
    Blocked,
}

/// The transaction has too many locks here, and those of others stand between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Locks {
    /// Whether there is nothing that could be in anybody's way.
    pub fn is_idle(&self) -> bool {
        self.owners.is_empty() && self.prepared.is_empty() && self.waiting.is_empty()
    }

    pub fn is_wounded(&self, transaction: TransactionId) -> bool {
        self.wounded.contains_key(&transaction)
    }

    /// Clears the way for a request of this age: wounds what is younger, and says whether anything is left.
    /// A request that waits already names its place, and is not in its own way.
    pub fn clear_way(
        &mut self,
        spans: &Spans,
        age: TransactionId,
        place: Option<WaitId>,
        now_micros: u64,
    ) -> Way {
        let (wounds, way) = self.obstacles(spans, age, place);
        for victim in wounds {
            tracing::debug!(?victim, by = ?age, "wounded");
            self.drop_owner(victim);
            self.wounded.insert(victim, now_micros);
        }
        way
    }

    fn obstacles(
        &self,
        spans: &Spans,
        age: TransactionId,
        place: Option<WaitId>,
    ) -> (Vec<TransactionId>, Way) {
        let mut wounds = Vec::new();
        let mut way = Way::Clear;
        for owner in self.holders_near(spans) {
            let Some(held) = self.owners.get(&owner) else {
                continue;
            };
            if owner == age || !held.held.iter().any(|lock| conflicts(spans, lock)) {
                continue;
            }
            if age < owner && held.confirmed.is_none() {
                wounds.push(owner);
            } else {
                way = Way::Blocked;
            }
        }
        let is_prepared =
            |prepared: &Prepared| spans.changes(&prepared.spans) || prepared.spans.changes(spans);
        if self.prepared.values().any(is_prepared) {
            way = Way::Blocked;
        }
        let before = place.unwrap_or(WaitId(age, u64::MAX));
        let is_before = |(id, waiting): (&WaitId, &Waiting)| {
            id.0 != age && (spans.changes(&waiting.spans) || waiting.spans.changes(spans))
        };
        if self.waiting.range(..before).any(is_before) {
            way = Way::Blocked;
        }
        (wounds, way)
    }

    /// The transactions that may hold something in the spans.
    fn holders_near(&self, spans: &Spans) -> BTreeSet<TransactionId> {
        let mut near = self.ranged.clone();
        for (point, _) in &spans.points {
            near.extend(self.points.get(point.as_slice()).into_iter().flatten());
        }
        for (range, _) in spans.ranges.iter().chain(&spans.shared) {
            if range.is_empty() {
                continue;
            }
            if let Some(key) = single_key(range) {
                near.extend(self.points.get(key).into_iter().flatten());
                continue;
            }
            let from = self.points.range(range.start.clone()..);
            let inside = from.take_while(|(key, _)| range.contains(key));
            near.extend(inside.flat_map(|(_, owners)| owners));
        }
        near
    }

    /// Locks spans, of which the way is clear and which are latched.
    pub fn lock(
        &mut self,
        transaction: TransactionId,
        spans: &Spans,
        since: Timestamp,
        now_micros: u64,
    ) -> Result<(), TooMany> {
        if self.owners.len() >= OWNERS_MAX && !self.owners.contains_key(&transaction) {
            return Err(TooMany);
        }
        let owner = self.owners.entry(transaction).or_default();
        owner.touched_micros = now_micros;
        for wanted in locks_on(spans, since) {
            let range = &wanted.range;
            let is_known = owner.held.iter().any(|held| {
                held.since <= since
                    && held.covers(range, wanted.columns)
                    && (held.mode == LockMode::Exclusive || wanted.mode == LockMode::Shared)
            });
            if is_known {
                continue;
            }
            owner.held.push(wanted.clone());
            match single_key(range) {
                Some(key) => {
                    let owners = self.points.entry(key.to_vec()).or_default();
                    owners.insert(transaction);
                }
                None => {
                    self.ranged.insert(transaction);
                }
            }
        }
        if owner.held.len() > HELD_MAX {
            return self.escalate(transaction, now_micros);
        }
        Ok(())
    }

    /// Puts one lock in place of many, if that is in nobody's way.
    fn escalate(&mut self, transaction: TransactionId, now_micros: u64) -> Result<(), TooMany> {
        let Some(owner) = self.owners.get(&transaction) else {
            return Ok(());
        };
        let mut wholes: Vec<Held> = Vec::new();
        for mode in [LockMode::Shared, LockMode::Exclusive] {
            let held = || owner.held.iter().filter(|held| held.mode == mode);
            if let Some(whole) = hull(held().map(|held| &held.range)) {
                let columns = held().map(|held| held.columns);
                wholes.push(Held {
                    range: whole,
                    columns: columns.fold(ColumnSet::NONE, ColumnSet::and),
                    mode,
                    since: held()
                        .map(|held| held.since)
                        .max()
                        .unwrap_or(Timestamp::MAX),
                });
            }
        }
        let mut spans = Spans::default();
        for whole in &wholes {
            let span = (whole.range.clone(), whole.columns);
            match whole.mode {
                LockMode::Shared => spans.shared.push(span),
                LockMode::Exclusive => spans.ranges.push(span),
            }
        }
        if self.clear_way(&spans, transaction, None, now_micros) == Way::Blocked {
            return Err(TooMany);
        }
        self.drop_owner(transaction);
        let owner = Owner {
            held: wholes,
            touched_micros: now_micros,
            confirmed: None,
        };
        self.owners.insert(transaction, owner);
        self.ranged.insert(transaction);
        Ok(())
    }

    /// A range read was cut short: what lies behind the cut need not stay locked.
    pub fn narrow(&mut self, transaction: TransactionId, asked: &KeyRange, to: &[KeyRange]) {
        let Some(owner) = self.owners.get_mut(&transaction) else {
            return;
        };
        // One lock of each mode at most is of this read: the last.
        for mode in [LockMode::Shared, LockMode::Exclusive] {
            let is_of_it = |held: &Held| held.range == *asked && held.mode == mode;
            let Some(at) = owner.held.iter().rposition(is_of_it) else {
                continue;
            };
            let wide = owner.held.remove(at);
            for range in to.iter().filter(|range| !range.is_empty()) {
                let part = range.intersection(asked);
                if let Some(key) = single_key(&part) {
                    let owners = self.points.entry(key.to_vec()).or_default();
                    owners.insert(transaction);
                }
                owner.held.push(Held {
                    range: part,
                    ..wide.clone()
                });
            }
        }
        if owner
            .held
            .iter()
            .all(|held| single_key(&held.range).is_some())
        {
            self.ranged.remove(&transaction);
        }
        self.wake();
    }

    /// Whether nothing of these columns in the range has changed since then, because the transaction has kept it locked.
    pub fn has_kept(
        &self,
        transaction: TransactionId,
        (range, columns): (&KeyRange, ColumnSet),
        since: Timestamp,
    ) -> bool {
        if planted::is(Bug::PrepareUnderOldEpoch) {
            return true;
        }
        let owner = self.owners.get(&transaction);
        owner.is_some_and(|owner| {
            let mut held = owner.held.iter();
            held.any(|held| held.since <= since && held.covers(range, columns))
        })
    }

    /// The attempt of the transaction that began at `began` counts on its locks until then.
    pub fn confirm(&mut self, transaction: TransactionId, until: Timestamp, began: Timestamp) {
        if let Some(owner) = self.owners.get_mut(&transaction) {
            let known = owner.confirmed.unwrap_or(Confirmed { until, began });
            owner.confirmed = Some(Confirmed {
                until: known.until.max(until),
                began: known.began.max(began),
            });
        }
    }

    /// The attempt has been given up, and nothing is decided on the strength of it: the locks can be taken away
    /// again. A word that comes late is not about a later attempt.
    pub fn withdraw(&mut self, transaction: TransactionId, began: Timestamp) {
        if let Some(owner) = self.owners.get_mut(&transaction)
            && owner
                .confirmed
                .is_some_and(|confirmed| confirmed.began <= began)
        {
            owner.confirmed = None;
            self.wake();
        }
    }

    /// The latest time until which anybody counts on its locks.
    pub fn confirmed_until(&self) -> Option<Timestamp> {
        self.owners
            .values()
            .filter_map(|owner| owner.confirmed)
            .map(|confirmed| confirmed.until)
            .max()
    }

    /// The transaction is alive.
    pub fn touch(&mut self, transaction: TransactionId, now_micros: u64) {
        if let Some(owner) = self.owners.get_mut(&transaction) {
            owner.touched_micros = now_micros;
        }
    }

    /// The transaction has ended.
    pub fn release(&mut self, transaction: TransactionId) {
        self.wounded.remove(&transaction);
        if self.drop_owner(transaction) {
            self.wake();
        }
    }

    /// Ends transactions that were not heard of since then. Those that count on their locks keep them until the
    /// time has passed that they count to.
    pub fn expire(&mut self, touched_before_micros: u64, now: model::Interval) {
        let is_gone = |owner: &Owner| {
            let counts_on_it = owner
                .confirmed
                .is_some_and(|confirmed| !now.is_after(confirmed.until));
            owner.touched_micros < touched_before_micros && !counts_on_it
        };
        let gone: Vec<TransactionId> = self
            .owners
            .iter()
            .filter(|(_, owner)| is_gone(owner))
            .map(|(id, _)| *id)
            .collect();
        for transaction in &gone {
            tracing::debug!(?transaction, "abandoned");
            self.drop_owner(*transaction);
            // Should it come back after all, it hears of it.
            self.wounded.insert(*transaction, touched_before_micros);
        }
        let forget_before = touched_before_micros.saturating_sub(WOUNDED_KEPT_MICROS);
        self.wounded.retain(|_, since| *since >= forget_before);
        if !gone.is_empty() {
            self.wake();
        }
    }

    /// Leadership is lost: nothing that was not prepared is kept here any more.
    pub fn clear(&mut self) {
        self.owners.clear();
        self.points.clear();
        self.ranged.clear();
        self.wounded.clear();
        // They find out by themselves that they have to go elsewhere.
        self.waiting.clear();
    }

    fn drop_owner(&mut self, transaction: TransactionId) -> bool {
        let Some(owner) = self.owners.remove(&transaction) else {
            return false;
        };
        for held in &owner.held {
            if let Some(key) = single_key(&held.range)
                && let Some(owners) = self.points.get_mut(key)
            {
                owners.remove(&transaction);
                if owners.is_empty() {
                    self.points.remove(key);
                }
            }
        }
        self.ranged.remove(&transaction);
        true
    }

    pub fn add_prepared(&mut self, id: CommandId, timestamp: Timestamp, spans: Spans) {
        self.prepared.insert(id, Prepared { timestamp, spans });
    }

    pub fn end_prepared(&mut self, id: CommandId) {
        if self.prepared.remove(&id).is_some() {
            self.wake();
        }
    }

    /// All commits of what is prepared lie at or above this.
    pub fn prepared_from(&self) -> Option<Timestamp> {
        self.prepared
            .values()
            .map(|prepared| prepared.timestamp)
            .min()
    }

    /// Whether a prepared transaction that may commit at or below `at` changes what `reads` selects.
    pub fn is_prepared(&self, at: Timestamp, reads: &dyn Fn(&Spans) -> bool) -> bool {
        let mut prepared = self.prepared.values();
        prepared.any(|prepared| prepared.timestamp <= at && reads(&prepared.spans))
    }

    /// Joins those who wait.
    pub fn wait(&mut self, age: TransactionId, spans: Spans) -> WaitId {
        self.last_wait += 1;
        let id = WaitId(age, self.last_wait);
        self.waiting.insert(id, Waiting { spans, turn: None });
        id
    }

    /// Resolves when the way may be clear; `None` when it is already, or nobody waits here any more.
    pub fn turn(&mut self, id: WaitId) -> Option<oneshot::Receiver<()>> {
        let is_clear = {
            let waiting = self.waiting.get(&id)?;
            let (wounds, way) = self.obstacles(&waiting.spans, id.0, Some(id));
            wounds.is_empty() && way == Way::Clear
        };
        if is_clear {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.get_mut(&id)?.turn = Some(sender);
        Some(receiver)
    }

    pub fn stop_waiting(&mut self, id: WaitId) {
        if self.waiting.remove(&id).is_some() {
            self.wake();
        }
    }

    /// Tells those who wait and whose way is clear, oldest first.
    fn wake(&mut self) {
        let ready: Vec<WaitId> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.turn.is_some())
            .filter(|(id, waiting)| {
                self.obstacles(&waiting.spans, id.0, Some(**id)).1 == Way::Clear
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            if let Some(turn) = self.waiting.get_mut(&id).and_then(|it| it.turn.take()) {
                // Whoever has gone takes itself off the list.
                let _ = turn.send(());
            }
        }
    }
}

/// A transaction that was wounded hears of it within this time, or never asks again.
const WOUNDED_KEPT_MICROS: u64 = 60_000_000;

impl Held {
    fn covers(&self, range: &KeyRange, columns: ColumnSet) -> bool {
        let is_within = range.is_empty() || range.intersection(&self.range) == *range;
        is_within && self.columns.contains(columns)
    }
}

/// The locks that a request on these spans takes.
fn locks_on(spans: &Spans, since: Timestamp) -> Vec<Held> {
    let lock = |range: KeyRange, columns, mode| Held {
        range,
        columns,
        mode,
        since,
    };
    let points = spans.points.iter().map(|(point, columns)| {
        let range = KeyRange {
            start: point.clone(),
            end: Some(crate::keys::successor(point)),
        };
        lock(range, *columns, LockMode::Exclusive)
    });
    let ranges = spans
        .ranges
        .iter()
        .map(|(range, columns)| lock(range.clone(), *columns, LockMode::Exclusive));
    let shared = spans
        .shared
        .iter()
        .map(|(range, columns)| lock(range.clone(), *columns, LockMode::Shared));
    let mut locks: Vec<Held> = points.chain(ranges).chain(shared).collect();
    locks.retain(|held| !held.range.is_empty() && !held.columns.is_empty());
    locks
}

/// Whether a request on these spans and a lock exclude each other.
fn conflicts(spans: &Spans, lock: &Held) -> bool {
    let is_update = spans.points.iter().all(|(_, it)| *it != ColumnSet::ALL);
    let is_passed =
        is_update && lock.mode == LockMode::Shared && planted::is(Bug::UpdatePassesReaders);
    if spans.writes_in(&lock.range, lock.columns) && !is_passed {
        return true;
    }
    lock.mode == LockMode::Exclusive
        && spans.shared.iter().any(|(range, columns)| {
            columns.overlaps(lock.columns) && !range.intersection(&lock.range).is_empty()
        })
}

/// The one key of a range that has but one.
pub(crate) fn single_key(range: &KeyRange) -> Option<&[u8]> {
    let end = range.end.as_deref()?;
    (end.strip_suffix(&[0]) == Some(range.start.as_slice())).then_some(range.start.as_slice())
}

/// The smallest range that holds them all.
pub(crate) fn hull<'a>(ranges: impl Iterator<Item = &'a KeyRange>) -> Option<KeyRange> {
    ranges.fold(None, |whole: Option<KeyRange>, range| {
        Some(match whole {
            None => range.clone(),
            Some(whole) => KeyRange {
                start: whole.start.min(range.start.clone()),
                end: match (whole.end, &range.end) {
                    (Some(left), Some(right)) => Some(left.max(right.clone())),
                    _ => None,
                },
            },
        })
    })
}

#[cfg(test)]
mod tests {
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
}
