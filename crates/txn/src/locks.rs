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
/// As many as are left of a transaction's locks when they become one of each mode.
const ESCALATED: usize = 2;
/// What the locks in one tablet may take; beyond, those of whoever asks for more become one, and who has none is refused.
const WEIGHT_BYTES_MAX: usize = 16 << 20;

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
    weight_bytes: usize,
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
    /// Of all owners' locks.
    weight_bytes: usize,
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
        let is_full = self.owners.len() >= OWNERS_MAX || self.weight_bytes > WEIGHT_BYTES_MAX;
        if is_full && !self.owners.contains_key(&transaction) {
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
        let count = owner.held.len();
        self.weigh(transaction);
        let is_heavy = self.weight_bytes > WEIGHT_BYTES_MAX && count > ESCALATED;
        match count > HELD_MAX || is_heavy {
            true => self.escalate(transaction, now_micros),
            false => Ok(()),
        }
    }

    fn weigh(&mut self, transaction: TransactionId) {
        if let Some(owner) = self.owners.get_mut(&transaction) {
            self.weight_bytes -= owner.weight_bytes;
            owner.weight_bytes = owner.held.iter().map(Held::weight_bytes).sum();
            self.weight_bytes += owner.weight_bytes;
        }
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
            weight_bytes: 0,
            touched_micros: now_micros,
            confirmed: None,
        };
        self.owners.insert(transaction, owner);
        self.ranged.insert(transaction);
        self.weigh(transaction);
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
        self.weigh(transaction);
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
        self.weight_bytes = 0;
        self.wounded.clear();
        // They find out by themselves that they have to go elsewhere.
        self.waiting.clear();
    }

    fn drop_owner(&mut self, transaction: TransactionId) -> bool {
        let Some(owner) = self.owners.remove(&transaction) else {
            return false;
        };
        self.weight_bytes -= owner.weight_bytes;
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
    /// A key stands in the list of points as well.
    fn weight_bytes(&self) -> usize {
        let end = self.range.end.as_ref().map_or(0, Vec::len);
        size_of::<Held>() + 2 * self.range.start.len() + end
    }

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
mod tests;
