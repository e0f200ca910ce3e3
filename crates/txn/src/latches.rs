//! Who may work on which keys: requests that overlap take turns, in the order in which they came.
//!
//! A request asks for all its spans at once and waits for those before it that it conflicts with, so there is
//! nothing to deadlock on. Latches are held from evaluation until the effects are applied. On points only the last
//! request before matters: that one waits for the one before it. A request that gives up while it waits keeps its
//! place until its turn comes, so that those behind it still wait for those before it.

use api::{ColumnSet, KeyRange};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use tokio::sync::oneshot;

/// The keys that a request works on, and which columns of their rows. Latches know whole rows only.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spans {
    /// Exclusive.
    pub points: Vec<(Vec<u8>, ColumnSet)>,
    /// Exclusive.
    pub ranges: Vec<(KeyRange, ColumnSet)>,
    /// Read: shared with others that read.
    pub shared: Vec<(KeyRange, ColumnSet)>,
}

impl Spans {
    /// Whether this request changes anything that the other one looks at or changes.
    pub fn changes(&self, other: &Spans) -> bool {
        let is_changed = |(point, columns): &(Vec<u8>, ColumnSet)| self.writes(point, *columns);
        other.points.iter().any(is_changed)
            || other
                .ranges
                .iter()
                .chain(&other.shared)
                .any(|(range, columns)| self.writes_in(range, *columns))
    }

    /// Whether this request changes something of these columns in `range`.
    pub fn writes_in(&self, range: &KeyRange, columns: ColumnSet) -> bool {
        self.points
            .iter()
            .any(|(point, own)| own.overlaps(columns) && range.contains(point))
            || self
                .ranges
                .iter()
                .any(|(span, own)| own.overlaps(columns) && !span.intersection(range).is_empty())
    }

    pub fn writes(&self, key: &[u8], columns: ColumnSet) -> bool {
        self.points
            .iter()
            .any(|(point, own)| own.overlaps(columns) && point == key)
            || self
                .ranges
                .iter()
                .any(|(range, own)| own.overlaps(columns) && range.contains(key))
    }

    /// Keys without columns: of whole rows.
    pub fn of_rows(points: &[Vec<u8>], ranges: &[KeyRange], shared: &[KeyRange]) -> Spans {
        let whole = |ranges: &[KeyRange]| -> Vec<(KeyRange, ColumnSet)> {
            let ranges = ranges.iter().cloned();
            ranges.map(|range| (range, ColumnSet::ALL)).collect()
        };
        let points = points.iter().cloned();
        Spans {
            points: points.map(|point| (point, ColumnSet::ALL)).collect(),
            ranges: whole(ranges),
            shared: whole(shared),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LatchId(u64);

struct Held {
    spans: Spans,
    /// How many before it must go first.
    waits_for: usize,
    /// Who waits for it.
    followers: BTreeSet<LatchId>,
    turn: Option<oneshot::Sender<()>>,
    is_abandoned: bool,
}

#[derive(Default)]
pub(crate) struct Latches {
    held: BTreeMap<LatchId, Held>,
    /// The last request on each point.
    tails: BTreeMap<Vec<u8>, LatchId>,
    /// Requests that have ranges.
    ranged: BTreeSet<LatchId>,
    last: u64,
}

impl Latches {
    /// Joins the line. The receiver resolves when it is this request's turn; `None` when it is already.
    pub fn join(&mut self, spans: Spans) -> (LatchId, Option<oneshot::Receiver<()>>) {
        self.last += 1;
        let id = LatchId(self.last);
        let before = self.conflicts(&spans);
        for other in &before {
            if let Some(held) = self.held.get_mut(other) {
                held.followers.insert(id);
            }
        }
        for (point, _) in &spans.points {
            self.tails.insert(point.clone(), id);
        }
        if !spans.ranges.is_empty() || !spans.shared.is_empty() {
            self.ranged.insert(id);
        }
        let (turn, receiver) = match before.is_empty() {
            true => (None, None),
            false => {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Some(receiver))
            }
        };
        self.held.insert(
            id,
            Held {
                spans,
                waits_for: before.len(),
                followers: BTreeSet::new(),
                turn,
                is_abandoned: false,
            },
        );
        (id, receiver)
    }

    fn conflicts(&self, spans: &Spans) -> BTreeSet<LatchId> {
        let mut before = BTreeSet::new();
        for (point, _) in &spans.points {
            before.extend(self.tails.get(point.as_slice()));
        }
        for (range, _) in spans.ranges.iter().chain(&spans.shared) {
            before.extend(self.tails_in(range));
        }
        for other in &self.ranged {
            let Some(held) = self.held.get(other) else {
                continue;
            };
            let overlaps = |left: &KeyRange, right: &KeyRange| !left.intersection(right).is_empty();
            let theirs = &held.spans;
            let is_conflict = spans.points.iter().any(|(point, _)| {
                let mut others = theirs.ranges.iter().chain(&theirs.shared);
                others.any(|(range, _)| range.contains(point))
            }) || spans.ranges.iter().any(|(range, _)| {
                let mut others = theirs.ranges.iter().chain(&theirs.shared);
                others.any(|(other, _)| overlaps(range, other))
            }) || spans.shared.iter().any(|(range, _)| {
                let mut others = theirs.ranges.iter();
                others.any(|(other, _)| overlaps(range, other))
            });
            if is_conflict {
                before.insert(*other);
            }
        }
        before
    }

    /// The last request on each point in a range.
    fn tails_in(&self, range: &KeyRange) -> Vec<LatchId> {
        if range.is_empty() {
            return Vec::new();
        }
        let end = match &range.end {
            Some(end) => Bound::Excluded(end.as_slice()),
            None => Bound::Unbounded,
        };
        self.tails
            .range::<[u8], _>((Bound::Included(range.start.as_slice()), end))
            .map(|(_, id)| *id)
            .collect()
    }

    /// Ends a request: its effects are applied, or it had none, or it gave up waiting.
    pub fn release(&mut self, id: LatchId) {
        let mut ended = vec![id];
        while let Some(id) = ended.pop() {
            match self.held.get_mut(&id) {
                None => continue,
                Some(held) if held.waits_for > 0 => {
                    held.is_abandoned = true;
                    continue;
                }
                Some(_) => {}
            }
            let Some(held) = self.held.remove(&id) else {
                continue;
            };
            for (point, _) in &held.spans.points {
                if self.tails.get(point.as_slice()) == Some(&id) {
                    self.tails.remove(point.as_slice());
                }
            }
            self.ranged.remove(&id);
            for follower in held.followers {
                let Some(next) = self.held.get_mut(&follower) else {
                    continue;
                };
                next.waits_for -= 1;
                if next.waits_for > 0 {
                    continue;
                }
                let was_told = next.turn.take().is_some_and(|turn| turn.send(()).is_ok());
                if next.is_abandoned || !was_told {
                    ended.push(follower);
                }
            }
        }
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(key: &str) -> Spans {
        Spans::of_rows(&[key.as_bytes().to_vec()], &[], &[])
    }

    fn range(start: &str, end: &str) -> KeyRange {
        KeyRange {
            start: start.as_bytes().to_vec(),
            end: Some(end.as_bytes().to_vec()),
        }
    }

    fn is_turn(receiver: &mut Option<oneshot::Receiver<()>>) -> bool {
        receiver.as_mut().is_none_or(|it| it.try_recv().is_ok())
    }

    #[test]
    fn requests_on_one_key_take_turns_and_others_pass() {
        let mut latches = Latches::default();
        let (first, mut turn) = latches.join(point("a"));
        assert!(is_turn(&mut turn));
        let (second, mut second_turn) = latches.join(point("a"));
        let (_, mut third_turn) = latches.join(point("a"));
        let (_, mut other) = latches.join(point("b"));
        assert!(is_turn(&mut other));
        assert!(!is_turn(&mut second_turn));
        latches.release(first);
        assert!(is_turn(&mut second_turn));
        assert!(!is_turn(&mut third_turn));
        latches.release(second);
        assert!(is_turn(&mut third_turn));
    }

    #[test]
    fn who_gives_up_still_keeps_those_behind_it_waiting_for_those_before() {
        let mut latches = Latches::default();
        let (first, _) = latches.join(point("a"));
        let (second, _gone) = latches.join(point("a"));
        let (third, mut turn) = latches.join(point("a"));
        latches.release(second);
        assert!(!is_turn(&mut turn));
        latches.release(first);
        assert!(is_turn(&mut turn));
        latches.release(third);
        assert_eq!(latches.len(), 0);
        assert!(latches.tails.is_empty() && latches.ranged.is_empty());
    }

    #[test]
    fn who_vanished_without_a_word_is_passed_over() {
        let mut latches = Latches::default();
        let (first, _) = latches.join(point("a"));
        let (_, gone) = latches.join(point("a"));
        drop(gone);
        let (_, mut turn) = latches.join(point("a"));
        latches.release(first);
        assert!(is_turn(&mut turn));
    }

    #[test]
    fn ranges_conflict_with_points_and_readers_share() {
        let mut latches = Latches::default();
        let shared = Spans::of_rows(&[], &[], &[range("a", "m")]);
        let (first, mut turn) = latches.join(shared.clone());
        assert!(is_turn(&mut turn));
        let (second, mut turn) = latches.join(shared);
        assert!(is_turn(&mut turn));
        let (writer, mut writer_turn) = latches.join(point("c"));
        let (_, mut outside) = latches.join(point("z"));
        assert!(is_turn(&mut outside));
        latches.release(first);
        assert!(!is_turn(&mut writer_turn));
        latches.release(second);
        assert!(is_turn(&mut writer_turn));
        let exclusive = Spans::of_rows(&[], &[range("b", "d")], &[]);
        let (_, mut turn) = latches.join(exclusive);
        assert!(!is_turn(&mut turn));
        latches.release(writer);
        assert!(is_turn(&mut turn));
    }
}
