//! Which ranges of a tablet were repaired, with all its replicas taking part, and since when. Pure; each replica keeps
//! its own, durably (docs/formats/eventual-log.md).
//!
//! A mark `(range, since)` says: whatever any replica held of the range at `since`, all of them hold.

use api::KeyRange;
use minicbor::{Decode, Encode};
use model::Timestamp;

/// More marks than this are joined, at the price of the older time.
const MARKS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Mark {
    #[n(0)]
    range: KeyRange,
    #[n(1)]
    since: Timestamp,
}

/// Ascending, without overlaps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct Marks(#[n(0)] Vec<Mark>);

impl Marks {
    /// Since when all of the range has been repaired; `None` when some of it never was.
    pub fn since(&self, range: &KeyRange) -> Option<Timestamp> {
        let mut rest = range.clone();
        let mut oldest = None;
        for mark in &self.0 {
            if !mark.range.contains(&rest.start) {
                continue;
            }
            oldest = Some(oldest.map_or(mark.since, |oldest: Timestamp| oldest.min(mark.since)));
            match &mark.range.end {
                None => return oldest,
                Some(end) => rest.start.clone_from(end),
            }
            if rest.is_empty() {
                return oldest;
            }
        }
        None
    }

    /// Notes that a range was repaired. What was known to be repaired later stays so.
    pub fn add(&mut self, range: &KeyRange, since: Timestamp) {
        if range.is_empty() {
            return;
        }
        let mut marks: Vec<Mark> = Vec::with_capacity(self.0.len() + 2);
        // The parts of the new range that nothing newer covers, from its begin.
        let mut rest = Some(range.clone());
        for mark in self.0.drain(..) {
            let (below, inner, above) = divide(&mark.range, range);
            marks.extend(below.map(|range| Mark { range, ..mark }));
            if let Some(inner) = inner.filter(|_| mark.since >= since) {
                if let Some(open) = rest.take() {
                    let (before, _, after) = divide(&open, &inner);
                    marks.extend(before.map(|range| Mark { range, since }));
                    rest = after;
                }
                marks.push(Mark {
                    range: inner,
                    since: mark.since,
                });
            }
            marks.extend(above.map(|range| Mark { range, ..mark }));
        }
        marks.extend(rest.map(|range| Mark { range, since }));
        marks.sort_by(|left, right| left.range.start.cmp(&right.range.start));
        self.0 = marks;
        self.join_equal();
        self.join_surplus();
    }

    fn join_equal(&mut self) {
        self.0.dedup_by(|next, mark| {
            let is_same = next.since == mark.since && touches(mark, next);
            if is_same {
                mark.range.end = next.range.end.take();
            }
            is_same
        });
    }

    /// Joins the neighbours that are closest in time, until there are few enough.
    fn join_surplus(&mut self) {
        while self.0.len() > MARKS_MAX {
            let closest = (1..self.0.len())
                .filter(|index| touches(&self.0[index - 1], &self.0[*index]))
                .min_by_key(|index| {
                    let (left, right) = (self.0[index - 1].since, self.0[*index].since);
                    left.0.abs_diff(right.0)
                });
            // Without neighbours that touch, the last one is forgotten: it is repaired again, no more.
            let Some(index) = closest else {
                self.0.pop();
                continue;
            };
            let next = self.0.remove(index);
            let mark = &mut self.0[index - 1];
            mark.since = mark.since.min(next.since);
            mark.range.end = next.range.end;
        }
    }
}

fn touches(left: &Mark, right: &Mark) -> bool {
    left.range.end.as_ref() == Some(&right.range.start)
}

/// The parts of a range below, within and above another one.
fn divide(
    range: &KeyRange,
    by: &KeyRange,
) -> (Option<KeyRange>, Option<KeyRange>, Option<KeyRange>) {
    let some = |range: KeyRange| (!range.is_empty()).then_some(range);
    let below = KeyRange {
        start: Vec::new(),
        end: Some(by.start.clone()),
    };
    let above = by.end.as_ref().map(|end| KeyRange {
        start: end.clone(),
        end: None,
    });
    (
        some(range.intersection(&below)),
        some(range.intersection(by)),
        above.and_then(|above| some(range.intersection(&above))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u8, end: u8) -> KeyRange {
        KeyRange {
            start: vec![start],
            end: (end < 100).then(|| vec![end]),
        }
    }

    fn since(marks: &Marks, start: u8, end: u8) -> Option<i64> {
        marks.since(&range(start, end)).map(|since| since.0)
    }

    #[test]
    fn the_oldest_mark_counts_and_a_gap_is_no_mark() {
        let mut marks = Marks::default();
        assert_eq!(since(&marks, 0, 100), None);
        marks.add(&range(10, 20), Timestamp(5));
        marks.add(&range(20, 100), Timestamp(7));
        assert_eq!(since(&marks, 10, 100), Some(5));
        assert_eq!(since(&marks, 20, 30), Some(7));
        assert_eq!(since(&marks, 5, 15), None);
        marks.add(&range(0, 10), Timestamp(5));
        assert_eq!(marks.0.len(), 2, "neighbours of one time are one");
        assert_eq!(since(&marks, 0, 100), Some(5));
    }

    /// Against a map of points, with marks that come in any order.
    #[test]
    fn each_point_has_its_newest_mark() {
        let mut state: u64 = 7;
        let mut draw = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let mut marks = Marks::default();
            let mut points = [None::<i64>; 100];
            for _ in 0..12 {
                let start = draw(100) as u8;
                let end = start + draw(u64::from(101 - start)) as u8;
                let time = draw(6) as i64;
                marks.add(&range(start, end), Timestamp(time));
                for point in &mut points[usize::from(start)..usize::from(end)] {
                    *point = (*point).max(Some(time));
                }
                for point in 0..99u8 {
                    let known = since(&marks, point, point + 1);
                    assert_eq!(known, points[usize::from(point)], "{point} {marks:?}");
                }
            }
        }
    }

    #[test]
    fn too_many_marks_are_joined_to_the_older_time() {
        let mut marks = Marks::default();
        for point in 0..=98u8 {
            marks.add(&range(point, point + 1), Timestamp(i64::from(point)));
        }
        assert_eq!(marks.0.len(), MARKS_MAX);
        assert_eq!(since(&marks, 0, 99), Some(0));
        for point in 0..=98u8 {
            assert!(since(&marks, point, point + 1).unwrap() <= i64::from(point));
        }
    }
}
