//! What quorum reads of a last-write-wins register may show: at least every write that was acknowledged at a
//! quorum before the read began, and at least what any earlier quorum read has shown; nothing that nobody wrote.
//!
//! Writes are ordered by (timestamp, tombstone, value), the order in which replicas merge them. An absent value
//! is the work of some tombstone, of the smallest one that explains it; or of a value that has expired, which keeps its
//! place in the order. Readers' clocks differ: while a value expires, one reader may miss it and a later one see it.

use super::Micros;
use std::fmt;

pub type Value = u64;

/// A write's place in the order of merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    pub timestamp: i64,
    pub is_tombstone: bool,
    pub value: Value,
}

/// When a value expires, by the clocks of different readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The first may miss it.
    pub from: Micros,
    /// Who begins to read later does not see it.
    pub until: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Write {
        rank: Rank,
        is_acknowledged: bool,
        expiry: Option<Expiry>,
    },
    /// What was there.
    Read { value: Option<Value> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub event: Event,
    pub called: Micros,
    pub returned: Micros,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A value that nobody had written when the read returned.
    Invented { read: Operation },
    /// Something acknowledged or shown before is missing.
    Stale { read: Operation, missing: Rank },
    /// A value that should be gone by itself.
    Expired { read: Operation, expiry: Expiry },
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Invented { read } => write!(
                formatter,
                "a read at {}..{} us shows {:?}, which nobody had written",
                read.called, read.returned, read.event
            ),
            Violation::Stale { read, missing } => write!(
                formatter,
                "a read at {}..{} us shows {:?}, but {missing:?} was acknowledged or shown before it began",
                read.called, read.returned, read.event
            ),
            Violation::Expired { read, expiry } => write!(
                formatter,
                "a read at {}..{} us shows {:?}, which had expired by {} us",
                read.called, read.returned, read.event, expiry.until
            ),
        }
    }
}

/// Judges the history of one key.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let mut reads: Vec<Operation> = history
        .iter()
        .filter(|operation| matches!(operation.event, Event::Read { .. }))
        .copied()
        .collect();
    reads.sort_by_key(|read| (read.returned, read.called));
    // What reads have shown, in the order of their returns.
    let mut shown: Vec<(Micros, Rank)> = Vec::new();
    for read in reads {
        let Event::Read { value } = read.event else {
            continue;
        };
        let acknowledged = history
            .iter()
            .filter_map(|operation| match operation.event {
                Event::Write {
                    rank,
                    is_acknowledged: true,
                    ..
                } if operation.returned < read.called => Some(rank),
                _ => None,
            });
        let earlier = shown
            .iter()
            .filter(|(returned, _)| *returned < read.called)
            .map(|(_, rank)| *rank);
        let floor = acknowledged.chain(earlier).max();
        let explained = explain(history, &read, value, floor)?;
        shown.extend(explained.map(|rank| (read.returned, rank)));
    }
    Ok(())
}

/// The smallest rank that explains the read and is not below the floor.
fn explain(
    history: &[Operation],
    read: &Operation,
    value: Option<Value>,
    floor: Option<Rank>,
) -> Result<Option<Rank>, Violation> {
    let issued = history
        .iter()
        .filter_map(|operation| match operation.event {
            Event::Write { rank, expiry, .. } if operation.called <= read.returned => {
                Some((rank, expiry))
            }
            _ => None,
        });
    let stale = |missing| Violation::Stale {
        read: *read,
        missing,
    };
    match (value, floor) {
        (Some(value), floor) => {
            let mut values = issued.filter(|(rank, _)| !rank.is_tombstone);
            let (rank, expiry) = values
                .find(|(rank, _)| rank.value == value)
                .ok_or(Violation::Invented { read: *read })?;
            match (floor, expiry) {
                (Some(floor), _) if rank < floor => Err(stale(floor)),
                (_, Some(expiry)) if expiry.until < read.called => Err(Violation::Expired {
                    read: *read,
                    expiry,
                }),
                _ => Ok(Some(rank)),
            }
        }
        (None, None) => Ok(None),
        (None, Some(floor)) => issued
            .filter(|(rank, expiry)| {
                let may_be_over = expiry.is_some_and(|expiry| expiry.from <= read.returned);
                (rank.is_tombstone || may_be_over) && *rank >= floor
            })
            .map(|(rank, _)| rank)
            .min()
            .map(Some)
            .ok_or(stale(floor)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(timestamp: i64, value: Value, called: Micros, returned: Micros) -> Operation {
        Operation {
            event: Event::Write {
                rank: Rank {
                    timestamp,
                    is_tombstone: false,
                    value,
                },
                is_acknowledged: true,
                expiry: None,
            },
            called,
            returned,
        }
    }

    fn delete(timestamp: i64, called: Micros, returned: Micros) -> Operation {
        Operation {
            event: Event::Write {
                rank: Rank {
                    timestamp,
                    is_tombstone: true,
                    value: 0,
                },
                is_acknowledged: true,
                expiry: None,
            },
            called,
            returned,
        }
    }

    fn expiring(mut operation: Operation, from: Micros, until: Micros) -> Operation {
        if let Event::Write { expiry, .. } = &mut operation.event {
            *expiry = Some(Expiry { from, until });
        }
        operation
    }

    fn unknown(mut operation: Operation) -> Operation {
        if let Event::Write {
            is_acknowledged, ..
        } = &mut operation.event
        {
            *is_acknowledged = false;
        }
        operation
    }

    fn read(value: Option<Value>, called: Micros, returned: Micros) -> Operation {
        Operation {
            event: Event::Read { value },
            called,
            returned,
        }
    }

    #[test]
    fn good_histories_pass() {
        let history = [
            read(None, 0, 1),
            put(10, 1, 2, 3),
            read(Some(1), 4, 5),
            put(9, 2, 6, 7),
            read(Some(1), 8, 9),
            unknown(put(20, 3, 10, 11)),
            read(Some(1), 12, 13),
            read(Some(3), 14, 15),
            delete(20, 16, 17),
            read(None, 18, 19),
            put(30, 4, 20, 40),
            read(None, 21, 22),
            read(Some(4), 23, 24),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn an_acknowledged_write_must_be_seen() {
        let history = [put(10, 1, 0, 1), put(11, 2, 2, 3), read(Some(1), 4, 5)];
        assert!(matches!(check(&history), Err(Violation::Stale { .. })));
        let history = [put(10, 1, 0, 1), read(None, 4, 5)];
        assert!(matches!(check(&history), Err(Violation::Stale { .. })));
    }

    #[test]
    fn what_was_shown_stays() {
        let history = [
            put(10, 1, 0, 1),
            unknown(put(11, 2, 2, 3)),
            read(Some(2), 4, 5),
            read(Some(1), 6, 7),
        ];
        assert!(matches!(check(&history), Err(Violation::Stale { .. })));
    }

    #[test]
    fn a_tombstone_wins_at_equal_timestamps() {
        let history = [put(10, 1, 0, 1), delete(10, 2, 3), read(Some(1), 4, 5)];
        assert!(matches!(check(&history), Err(Violation::Stale { .. })));
        let history = [delete(10, 0, 1), put(10, 1, 2, 3), read(None, 4, 5)];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn values_from_nowhere_are_noticed() {
        let history = [put(10, 1, 0, 1), read(Some(7), 4, 5)];
        assert!(matches!(check(&history), Err(Violation::Invented { .. })));
        let history = [read(Some(1), 0, 1), put(10, 1, 2, 3)];
        assert!(matches!(check(&history), Err(Violation::Invented { .. })));
    }

    #[test]
    fn an_absent_value_that_was_shown_does_not_return() {
        let history = [
            put(10, 1, 0, 1),
            unknown(delete(15, 2, 3)),
            read(None, 4, 5),
            read(Some(1), 6, 7),
        ];
        assert!(matches!(check(&history), Err(Violation::Stale { .. })));
    }

    #[test]
    fn a_value_that_expires_is_there_before_and_gone_behind() {
        let put = expiring(put(10, 1, 0, 1), 20, 30);
        let history = [
            delete(5, 0, 1),
            put,
            read(Some(1), 4, 5),
            read(None, 22, 23),
            // The clock of this reader is behind.
            read(Some(1), 24, 25),
            read(None, 31, 32),
        ];
        assert_eq!(check(&history), Ok(()));
        let too_soon = [put, read(None, 4, 5)];
        assert!(matches!(check(&too_soon), Err(Violation::Stale { .. })));
        let too_late = [put, read(Some(1), 31, 32)];
        assert!(matches!(check(&too_late), Err(Violation::Expired { .. })));
    }

    #[test]
    fn what_an_expired_value_has_replaced_does_not_return() {
        let history = [
            put(10, 1, 0, 1),
            expiring(put(11, 2, 2, 3), 20, 30),
            read(None, 31, 32),
            read(Some(1), 33, 34),
        ];
        assert!(matches!(check(&history), Err(Violation::Stale { .. })));
    }
}
