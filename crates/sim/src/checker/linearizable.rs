//! Linearizability of one register (Herlihy and Wing 1990), by the search of Wing and Gong with Lowe's memory of
//! configurations that have been tried ("Testing for linearizability", 2017).
//!
//! Values are unique: no two writes of a history write the same. An operation whose outcome is unknown may take
//! effect at any time after it began, or never. Those that nobody can have seen are left out before the search,
//! which keeps it short: taking away a write that no answer shows leaves every other answer legal.

use super::Micros;
use std::collections::{BTreeSet, HashSet};

/// Configurations tried before the search gives up.
const STEPS_MAX: u64 = 3_000_000;

pub type Value = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Read,
    /// `None` deletes.
    Write(Option<Value>),
    /// Writes `new` if the register holds `expected`.
    CompareAndSet {
        expected: Option<Value>,
        new: Value,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Saw(Option<Value>),
    Done,
    /// The comparison failed; the register held this, if the answer says.
    Failed {
        held: Option<Option<Value>>,
    },
    /// It may have happened, may yet, or never will.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub client: u64,
    pub action: Action,
    pub answer: Answer,
    pub called: Micros,
    /// `Micros::MAX` when no answer came.
    pub returned: Micros,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// No order explains the answers; the operations that the longest attempt could not get past.
    Violation(Vec<Operation>),
    /// The search gave up.
    Undecided,
}

/// Judges the history of one register that was empty at first.
pub fn check(history: &[Operation]) -> Verdict {
    let mut operations = prune(history);
    operations.sort_by_key(|operation| (operation.called, operation.returned));
    Search::new(&operations).run()
}

/// Drops reads without answer, and writes of unknown outcome whose value nobody has seen.
fn prune(history: &[Operation]) -> Vec<Operation> {
    let mut seen = BTreeSet::new();
    let mut saw_empty = false;
    for operation in history {
        let shown = match (operation.action, operation.answer) {
            (_, Answer::Saw(value)) => Some(value),
            (_, Answer::Failed { held }) => held,
            (Action::CompareAndSet { expected, .. }, Answer::Done) => Some(expected),
            _ => None,
        };
        match shown {
            Some(Some(value)) => {
                seen.insert(value);
            }
            Some(None) => saw_empty = true,
            None => {}
        }
        // A failed comparison without the value only says what the register did not hold.
        if let (Action::CompareAndSet { .. }, Answer::Failed { held: None }) =
            (operation.action, operation.answer)
        {
            return history
                .iter()
                .filter(|operation| {
                    operation.action != Action::Read || operation.answer != Answer::Unknown
                })
                .copied()
                .collect();
        }
    }
    // A comparison of unknown outcome that may have made a seen value shows what it expected, in turn.
    loop {
        let before = (seen.len(), saw_empty);
        for operation in history {
            if let (Action::CompareAndSet { expected, new }, Answer::Unknown) =
                (operation.action, operation.answer)
                && seen.contains(&new)
            {
                match expected {
                    Some(value) => {
                        seen.insert(value);
                    }
                    None => saw_empty = true,
                }
            }
        }
        if before == (seen.len(), saw_empty) {
            break;
        }
    }
    history
        .iter()
        .filter(|operation| {
            operation.answer != Answer::Unknown
                || match operation.action {
                    Action::Read => false,
                    Action::Write(Some(value)) => seen.contains(&value),
                    Action::Write(None) => saw_empty,
                    Action::CompareAndSet { new, .. } => seen.contains(&new),
                }
        })
        .copied()
        .collect()
}

/// A configuration on the way: what may come next, most promising first, and how many of it have been tried.
struct Frame {
    candidates: Vec<usize>,
    tried: usize,
    /// What led out of this configuration, with the register before it.
    chosen: Option<(usize, Option<Value>)>,
}

struct Search<'a> {
    operations: &'a [Operation],
    done: Vec<u64>,
    state: Option<Value>,
    tried: HashSet<(Vec<u64>, Option<Value>)>,
    frames: Vec<Frame>,
    /// Whether some answer says only what the register did not hold.
    has_vague_failures: bool,
    longest: usize,
    stuck: Vec<Operation>,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Search<'a> {
        Search {
            operations,
            done: vec![0; operations.len().div_ceil(64)],
            state: None,
            tried: HashSet::new(),
            frames: Vec::new(),
            has_vague_failures: operations
                .iter()
                .any(|operation| operation.answer == Answer::Failed { held: None }),
            longest: 0,
            stuck: operations.iter().take(12).copied().collect(),
        }
    }

    fn is_done(&self, index: usize) -> bool {
        self.done[index / 64] & (1 << (index % 64)) != 0
    }

    fn flip(&mut self, index: usize) {
        self.done[index / 64] ^= 1 << (index % 64);
    }

    fn undone(&self) -> impl Iterator<Item = (usize, &'a Operation)> + '_ {
        self.operations
            .iter()
            .enumerate()
            .filter(|(index, _)| !self.is_done(*index))
    }

    /// Everything that has an answer has been placed; the rest may never happen.
    fn is_complete(&self) -> bool {
        self.undone()
            .all(|(_, operation)| operation.answer == Answer::Unknown)
    }

    /// What may come next: nothing undone has returned before it began, and its answer fits.
    fn candidates(&self) -> Vec<usize> {
        let mut first: Option<&Operation> = None;
        for (_, operation) in self.undone() {
            if first.is_some_and(|first| operation.called > first.returned) {
                break;
            }
            if first.is_none_or(|first| operation.returned < first.returned) {
                first = Some(operation);
            }
        }
        let Some(first) = first else {
            return Vec::new();
        };
        let mut candidates: Vec<usize> = Vec::new();
        for (index, operation) in self.undone() {
            if operation.called > first.returned {
                break;
            }
            match step(self.state, operation) {
                None => {}
                // What only looks, and fits, may as well come now. (A deletion of nothing may be needed later.)
                Some(_) if only_looks(operation) => return vec![index],
                Some(_) if self.is_pointless(operation) => {}
                Some(_) => candidates.push(index),
            }
        }
        // Whoever must come first waits for its value, or can go.
        let wanted = needs(first);
        candidates.sort_by_key(|index| {
            let operation = &self.operations[*index];
            let is_wanted = wanted.is_some_and(|wanted| {
                (wanted == self.state && operation == first)
                    || (wanted != self.state && makes(operation) == wanted)
            });
            (!is_wanted, operation.returned)
        });
        candidates
    }

    /// An operation of unknown outcome whose value nobody is left to see need not have happened.
    fn is_pointless(&self, operation: &Operation) -> bool {
        operation.answer == Answer::Unknown
            && !self.has_vague_failures
            && !self
                .undone()
                .any(|(_, other)| needs(other) == Some(makes(operation)))
    }

    fn run(mut self) -> Verdict {
        let mut steps = 0;
        let candidates = self.candidates();
        self.enter(candidates);
        while !self.is_complete() {
            steps += 1;
            if steps > STEPS_MAX {
                return Verdict::Undecided;
            }
            let Some(frame) = self.frames.last_mut() else {
                return Verdict::Violation(self.stuck);
            };
            let Some(index) = frame.candidates.get(frame.tried).copied() else {
                // Nothing fits here: take back what led here, and try what comes after it.
                self.frames.pop();
                if let Some((index, state)) =
                    self.frames.last_mut().and_then(|frame| frame.chosen.take())
                {
                    self.flip(index);
                    self.state = state;
                }
                continue;
            };
            frame.tried += 1;
            let Some(state) = step(self.state, &self.operations[index]) else {
                continue;
            };
            self.flip(index);
            if self.tried.insert((self.done.clone(), state)) {
                frame_of(&mut self.frames).chosen = Some((index, self.state));
                self.state = state;
                let candidates = self.candidates();
                self.enter(candidates);
                self.remember();
            } else {
                self.flip(index);
            }
        }
        Verdict::Linearizable
    }

    fn enter(&mut self, candidates: Vec<usize>) {
        self.frames.push(Frame {
            candidates,
            tried: 0,
            chosen: None,
        });
    }

    fn remember(&mut self) {
        if self.frames.len() <= self.longest {
            return;
        }
        self.longest = self.frames.len();
        self.stuck = self
            .undone()
            .map(|(_, operation)| *operation)
            .take(12)
            .collect();
    }
}

fn frame_of(frames: &mut [Frame]) -> &mut Frame {
    frames
        .last_mut()
        .expect("a choice is made in a configuration")
}

fn only_looks(operation: &Operation) -> bool {
    matches!(operation.answer, Answer::Saw(_) | Answer::Failed { .. })
}

/// What the register must hold for this operation to come next, as far as its answer says.
fn needs(operation: &Operation) -> Option<Option<Value>> {
    match (operation.action, operation.answer) {
        (_, Answer::Saw(value)) => Some(value),
        (_, Answer::Failed { held }) => held,
        (Action::CompareAndSet { expected, .. }, _) => Some(expected),
        _ => None,
    }
}

/// What the register holds after this operation, if it changes it.
fn makes(operation: &Operation) -> Option<Value> {
    match operation.action {
        Action::Read => None,
        Action::Write(value) => value,
        Action::CompareAndSet { new, .. } => Some(new),
    }
}

/// The register after the operation, if it can have answered as it did.
fn step(state: Option<Value>, operation: &Operation) -> Option<Option<Value>> {
    match (operation.action, operation.answer) {
        (Action::Read, Answer::Saw(value)) => (value == state).then_some(state),
        (Action::Read, _) => Some(state),
        (Action::Write(value), _) => Some(value),
        (Action::CompareAndSet { expected, new }, Answer::Done) => {
            (expected == state).then_some(Some(new))
        }
        (Action::CompareAndSet { expected, .. }, Answer::Failed { held }) => {
            (expected != state && held.is_none_or(|held| held == state)).then_some(state)
        }
        (Action::CompareAndSet { expected, new }, _) => {
            Some(if expected == state { Some(new) } else { state })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(action: Action, answer: Answer, called: Micros, returned: Micros) -> Operation {
        Operation {
            client: 0,
            action,
            answer,
            called,
            returned,
        }
    }

    fn write(value: Value, called: Micros, returned: Micros) -> Operation {
        operation(Action::Write(Some(value)), Answer::Done, called, returned)
    }

    fn lost(value: Value, called: Micros) -> Operation {
        operation(
            Action::Write(Some(value)),
            Answer::Unknown,
            called,
            Micros::MAX,
        )
    }

    fn read(value: Option<Value>, called: Micros, returned: Micros) -> Operation {
        operation(Action::Read, Answer::Saw(value), called, returned)
    }

    fn set(expected: Option<Value>, new: Value, answer: Answer, called: Micros) -> Operation {
        operation(
            Action::CompareAndSet { expected, new },
            answer,
            called,
            called + 5,
        )
    }

    fn is_violation(history: &[Operation]) -> bool {
        matches!(check(history), Verdict::Violation(_))
    }

    #[test]
    fn sequential_and_concurrent_histories_pass() {
        assert_eq!(check(&[]), Verdict::Linearizable);
        let history = [
            read(None, 0, 1),
            write(1, 2, 10),
            read(None, 3, 4),
            read(Some(1), 5, 6),
            write(2, 11, 20),
            write(3, 11, 20),
            read(Some(3), 21, 22),
            set(Some(3), 4, Answer::Done, 30),
            set(
                Some(3),
                5,
                Answer::Failed {
                    held: Some(Some(4)),
                },
                40,
            ),
            operation(Action::Write(None), Answer::Done, 50, 51),
            read(None, 52, 53),
        ];
        assert_eq!(check(&history), Verdict::Linearizable);
    }

    #[test]
    fn a_stale_read_is_noticed() {
        assert!(is_violation(&[
            write(1, 0, 1),
            write(2, 2, 3),
            read(Some(1), 4, 5)
        ]));
        assert!(is_violation(&[write(1, 0, 1), read(None, 2, 3)]));
    }

    #[test]
    fn a_value_that_was_seen_does_not_vanish() {
        assert!(is_violation(&[
            write(1, 0, 1),
            write(2, 2, 20),
            read(Some(2), 3, 4),
            read(Some(1), 5, 6),
        ]));
    }

    #[test]
    fn a_lost_update_is_noticed() {
        assert!(is_violation(&[
            write(1, 0, 1),
            set(Some(1), 2, Answer::Done, 2),
            set(Some(1), 3, Answer::Done, 10),
        ]));
        // Overlapping, both succeed.
        assert!(is_violation(&[
            write(1, 0, 1),
            set(Some(1), 2, Answer::Done, 2),
            set(Some(1), 3, Answer::Done, 4),
        ]));
    }

    #[test]
    fn an_unknown_write_may_happen_late_or_never_but_only_once() {
        assert_eq!(
            check(&[
                write(1, 0, 1),
                lost(2, 2),
                read(Some(1), 10, 11),
                read(Some(2), 90, 91)
            ]),
            Verdict::Linearizable
        );
        assert_eq!(
            check(&[write(1, 0, 1), lost(2, 2), read(Some(1), 10, 11)]),
            Verdict::Linearizable
        );
        assert!(is_violation(&[
            write(1, 0, 1),
            lost(2, 2),
            read(Some(2), 10, 11),
            read(Some(1), 20, 21),
        ]));
        // It cannot be seen before it began.
        assert!(is_violation(&[lost(2, 20), read(Some(2), 10, 11)]));
    }

    #[test]
    fn a_failed_comparison_says_what_the_register_was_not() {
        let failed = Answer::Failed { held: None };
        assert!(is_violation(&[
            write(1, 0, 1),
            set(Some(1), 2, failed, 5),
            read(Some(1), 20, 21)
        ]));
        assert_eq!(
            check(&[write(1, 0, 1), lost(3, 2), set(Some(1), 2, failed, 5)]),
            Verdict::Linearizable
        );
    }

    #[test]
    fn a_deletion_may_wait_for_what_it_deletes() {
        let history = [
            read(None, 0, 1),
            write(1, 2, 20),
            operation(Action::Write(None), Answer::Done, 3, 20),
            read(Some(1), 4, 5),
            read(None, 21, 22),
        ];
        assert_eq!(check(&history), Verdict::Linearizable);
    }

    #[test]
    fn unknown_comparisons_chain() {
        let unknown = |expected, new, called| {
            let mut operation = set(expected, new, Answer::Unknown, called);
            operation.returned = Micros::MAX;
            operation
        };
        assert_eq!(
            check(&[
                write(1, 0, 1),
                unknown(Some(1), 2, 2),
                unknown(Some(2), 3, 3),
                read(Some(3), 10, 11)
            ]),
            Verdict::Linearizable
        );
        assert!(is_violation(&[
            write(1, 0, 1),
            unknown(Some(7), 3, 3),
            read(Some(3), 10, 11)
        ]));
    }

    #[test]
    fn many_concurrent_unknown_writes_stay_cheap() {
        let mut history: Vec<Operation> = (0..200).map(|number| lost(number, number)).collect();
        for number in 0..100 {
            history.push(read(Some(number), 1_000 + number * 10, 1_005 + number * 10));
        }
        assert_eq!(check(&history), Verdict::Linearizable);
        history.push(read(Some(5), 9_000, 9_001));
        assert_ne!(check(&history), Verdict::Linearizable);
    }
}
