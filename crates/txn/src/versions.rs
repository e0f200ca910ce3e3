//! Rows as they were at one timestamp: the present row, or the older version that was in force then.
//!
//! A row that is as old as the timestamp, or older, is the one. Else it is the first older version that was
//! superseded after the timestamp, if that one was committed by then. While nothing in the store is newer than the
//! timestamp, older versions need not be looked at.

use crate::keys;
use api::{Broken, Direction, Error, KeyRange, Outcome, Retry};
use bytes::Bytes;
use model::{Row, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use world::{Snapshot, Store, StoreError};

/// Rows that are read from the store at a time.
const WINDOW_ROWS: usize = 256;
/// Superseded rows that are held at a time.
const WINDOW_PAST: usize = 4_096;

pub(crate) fn store_error(error: StoreError) -> Error {
    match error {
        StoreError::Overloaded => Error::Retry(Retry::Overloaded("the store is full".into())),
        other => Error::Broken(Broken {
            message: other.to_string(),
            outcome: Outcome::NotApplied,
        }),
    }
}

pub(crate) fn unreadable(what: &str) -> Error {
    Error::Broken(Broken {
        message: format!("{what} is not readable"),
        outcome: Outcome::NotApplied,
    })
}

/// A stored row: when it was committed, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    stored: Bytes,
    pub timestamp: Timestamp,
}

impl Version {
    fn new(stored: Bytes) -> Result<Version, Error> {
        let timestamp = keys::decode_version(&stored)
            .ok_or_else(|| unreadable("a row's timestamp"))?
            .0;
        Ok(Version { stored, timestamp })
    }

    /// Bytes in the store.
    pub fn len(&self) -> usize {
        self.stored.len()
    }

    pub fn row(&self) -> Result<Row, Error> {
        Row::from_bytes(&self.stored[8..]).map_err(|_| unreadable("a row"))
    }
}

/// Rows of a window, in the direction asked for, and the range that is left.
pub(crate) struct Window {
    pub rows: Vec<(Vec<u8>, Version)>,
    pub rest: Option<KeyRange>,
}

pub(crate) struct View {
    store: Arc<dyn Store>,
    snapshot: Snapshot,
    at: Timestamp,
    /// Nothing in the snapshot is newer than `at`.
    is_latest: bool,
}

impl View {
    /// `newest` is asked after the snapshot was taken.
    pub fn new(store: Arc<dyn Store>, at: Timestamp, newest: impl FnOnce() -> Timestamp) -> View {
        let snapshot = store.snapshot();
        View {
            is_latest: newest() <= at,
            store,
            snapshot,
            at,
        }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Version>, Error> {
        let stored = self
            .store
            .get(&keys::row(key), &self.snapshot)
            .map_err(store_error)?;
        if let Some(stored) = stored {
            let version = Version::new(stored)?;
            if version.timestamp <= self.at {
                return Ok(Some(version));
            }
        }
        if self.is_latest {
            return Ok(None);
        }
        let start = keys::past(key, self.at.next());
        let end = model::key::prefix_end(&keys::past_prefix(key));
        let mut found = self.store.scan(&start, end.as_deref(), &self.snapshot);
        let Some(pair) = found.next() else {
            return Ok(None);
        };
        let version = Version::new(pair.map_err(store_error)?.1)?;
        Ok((version.timestamp <= self.at).then_some(version))
    }

    /// About `rows_wanted` rows of a range, from its beginning or from its end.
    pub fn window(
        &self,
        range: &KeyRange,
        direction: Direction,
        rows_wanted: usize,
    ) -> Result<Window, Error> {
        if range.is_empty() {
            return Ok(Window {
                rows: Vec::new(),
                rest: None,
            });
        }
        let count_max = rows_wanted.clamp(1, WINDOW_ROWS);
        let (present, mut rest) = self.present(range, direction, count_max)?;
        let mut rows: BTreeMap<Vec<u8>, Version> = present
            .iter()
            .filter(|(_, version)| version.timestamp <= self.at)
            .cloned()
            .collect();
        if !self.is_latest {
            let covered = match &rest {
                Some(rest) => without(range, rest, direction),
                None => range.clone(),
            };
            let (past, past_rest) = self.superseded(&covered, direction)?;
            if let Some(cut) = past_rest {
                // What lies behind the cut is read with the next window.
                rows.retain(|key, _| !cut.contains(key));
                rest = Some(match (&rest, direction) {
                    (None, _) => cut,
                    (Some(rest), Direction::Forward) => KeyRange {
                        start: cut.start,
                        end: rest.end.clone(),
                    },
                    (Some(rest), Direction::Backward) => KeyRange {
                        start: rest.start.clone(),
                        end: cut.end,
                    },
                });
            }
            for (key, version) in past {
                if version.timestamp <= self.at {
                    rows.entry(key).or_insert(version);
                }
            }
        }
        let mut rows: Vec<_> = rows.into_iter().collect();
        if direction == Direction::Backward {
            rows.reverse();
        }
        Ok(Window { rows, rest })
    }

    /// Rows as they are in the snapshot, and what is left of the range.
    fn present(
        &self,
        range: &KeyRange,
        direction: Direction,
        count_max: usize,
    ) -> Result<(Vec<(Vec<u8>, Version)>, Option<KeyRange>), Error> {
        let start = keys::row(&range.start);
        let end = range.end.as_deref().map_or_else(keys::rows_end, keys::row);
        let pairs = match direction {
            Direction::Forward => self.store.scan(&start, Some(&end), &self.snapshot),
            Direction::Backward => self.store.scan_reversed(&start, Some(&end), &self.snapshot),
        };
        let mut rows = Vec::new();
        for pair in pairs {
            let (key, stored) = pair.map_err(store_error)?;
            let key = key[1..].to_vec();
            rows.push((key, Version::new(stored)?));
            if rows.len() == count_max {
                break;
            }
        }
        let rest = match rows.last() {
            Some((last, _)) if rows.len() == count_max => Some(behind(range, last, direction)),
            _ => None,
        };
        Ok((rows, rest))
    }

    /// Of each key in the range, the version that was in force at the timestamp or came first after it; and
    /// what is left of the range.
    fn superseded(
        &self,
        range: &KeyRange,
        direction: Direction,
    ) -> Result<(BTreeMap<Vec<u8>, Version>, Option<KeyRange>), Error> {
        let start = keys::past_bound(&range.start);
        let end = range
            .end
            .as_deref()
            .map_or_else(keys::past_end, keys::past_bound);
        let pairs = match direction {
            Direction::Forward => self.store.scan(&start, Some(&end), &self.snapshot),
            Direction::Backward => self.store.scan_reversed(&start, Some(&end), &self.snapshot),
        };
        let mut found: BTreeMap<Vec<u8>, Version> = BTreeMap::new();
        for pair in pairs {
            let (stored_key, stored) = pair.map_err(store_error)?;
            let (key, superseded_at) =
                keys::decode_past(&stored_key).ok_or_else(|| unreadable("an older row's key"))?;
            if superseded_at <= self.at {
                continue;
            }
            let is_known = found.contains_key(&key);
            if found.len() >= WINDOW_PAST && !is_known {
                let last = match direction {
                    Direction::Forward => found.last_key_value(),
                    Direction::Backward => found.first_key_value(),
                };
                let rest = last.map(|(last, _)| behind(range, last, direction));
                return Ok((found, rest));
            }
            // The one superseded first counts: forward it comes first, backward last.
            if !is_known || direction == Direction::Backward {
                found.insert(key, Version::new(stored)?);
            }
        }
        Ok((found, None))
    }

    /// Whether a row of the range that `counts` has changed after the timestamp.
    pub fn has_changed(
        &self,
        range: &KeyRange,
        since: Timestamp,
        counts: impl Fn(&[u8]) -> bool,
    ) -> Result<bool, Error> {
        let start = keys::row(&range.start);
        let end = range.end.as_deref().map_or_else(keys::rows_end, keys::row);
        for pair in self.store.scan(&start, Some(&end), &self.snapshot) {
            let (key, stored) = pair.map_err(store_error)?;
            if Version::new(stored)?.timestamp > since && counts(&key[1..]) {
                return Ok(true);
            }
        }
        let start = keys::past_bound(&range.start);
        let end = range
            .end
            .as_deref()
            .map_or_else(keys::past_end, keys::past_bound);
        for pair in self.store.scan(&start, Some(&end), &self.snapshot) {
            let (stored_key, _) = pair.map_err(store_error)?;
            let (key, superseded_at) =
                keys::decode_past(&stored_key).ok_or_else(|| unreadable("an older row's key"))?;
            if superseded_at > since && counts(&key) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What of the range lies behind a key.
pub(crate) fn behind(range: &KeyRange, key: &[u8], direction: Direction) -> KeyRange {
    match direction {
        Direction::Forward => KeyRange {
            start: keys::successor(key),
            end: range.end.clone(),
        },
        Direction::Backward => KeyRange {
            start: range.start.clone(),
            end: Some(key.to_vec()),
        },
    }
}

fn without(range: &KeyRange, rest: &KeyRange, direction: Direction) -> KeyRange {
    match direction {
        Direction::Forward => KeyRange {
            start: range.start.clone(),
            end: Some(rest.start.clone()),
        },
        Direction::Backward => KeyRange {
            start: rest.end.clone().unwrap_or_default(),
            end: range.end.clone(),
        },
    }
}
