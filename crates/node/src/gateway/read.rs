//! Reads of strong tables: keys from all their tablets at once, ranges tablet after tablet in the order of the
//! answer.

use super::strong::{self, Ended};
use super::table_of;
use crate::core::Core;
use api::{
    Direction, Error, KeyRange, ReadBound, ReadRequest, ReadResponse, ReadRow, Retry, Selection,
};
use catalog::{Catalog, Ordering, Table};
use cluster::Tablet;
use model::{SchemaVersion, TabletId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;
use txn::TabletRead;

/// A request is routed anew so often.
const ROUTES_MAX: u32 = 20;
/// Whatever the request says, an answer ends here.
const SIZE_BYTES_MAX: u32 = 16 << 20;

struct Reading<'a> {
    core: &'a Core,
    table: &'a Table,
    schema: SchemaVersion,
    deadline: Instant,
}

pub(super) async fn read(
    core: &Core,
    table: &Arc<Table>,
    mut request: ReadRequest,
) -> Result<ReadResponse, Error> {
    let deadline = strong::deadline(request.patience);
    request.size_bytes_max = request.size_bytes_max.min(SIZE_BYTES_MAX);
    let mut catalog = core.views.catalog();
    let mut has_refreshed = false;
    for _ in 0..ROUTES_MAX {
        let current = table_of(&catalog, request.table)?;
        let reading = Reading {
            core,
            table: current,
            schema: catalog.version,
            deadline,
        };
        let outcome = match &request.selection {
            Selection::Keys(keys) => reading.keys(&request, keys).await,
            Selection::Ranges(ranges) => reading.ranges(&request, ranges).await,
        };
        match outcome {
            Ok(response) => return Ok(response),
            Err(Ended::Rerouted) => catalog = core.views.catalog(),
            Err(Ended::Error(Error::Retry(Retry::StaleSchema { current }))) => {
                let newer = core.views.catalog();
                if has_refreshed || !is_same(table, &newer) {
                    return Err(Error::Retry(Retry::StaleSchema { current }));
                }
                has_refreshed = true;
                catalog = newer;
            }
            Err(Ended::Error(error)) => return Err(error),
        }
    }
    Err(Error::Retry(Retry::Overloaded(
        "the tablets move faster than the request".into(),
    )))
}

fn is_same(table: &Table, newer: &Catalog) -> bool {
    newer
        .table(table.id)
        .is_some_and(|newer| newer.version == table.version)
}

impl Reading<'_> {
    /// A read of several tablets of an external table is made at one timestamp, so that it is a snapshot.
    async fn bound(&self, bound: ReadBound) -> Result<ReadBound, Ended> {
        let now = || self.core.now_within(self.deadline);
        Ok(match bound {
            ReadBound::Strong | ReadBound::Level(_)
                if self.table.spec.replication.ordering == Ordering::External =>
            {
                ReadBound::At(now().await?.latest)
            }
            ReadBound::ExactStaleness { micros } | ReadBound::MaxStaleness { micros } => {
                let micros = i64::try_from(micros).unwrap_or(i64::MAX);
                let now = now().await?;
                ReadBound::At(Timestamp(now.earliest.0.saturating_sub(micros)))
            }
            ReadBound::MinTimestamp(timestamp) => ReadBound::At(timestamp),
            bound => bound,
        })
    }

    async fn tablet(
        &self,
        tablet: &Tablet,
        request: &ReadRequest,
        selection: Selection,
    ) -> Result<ReadResponse, Ended> {
        if let Some(locking) = request.locking {
            self.core
                .transactions
                .visits(locking.transaction, tablet.id);
        }
        let read = TabletRead::new(tablet.id, tablet.epoch, self.schema, request, selection);
        strong::read(self.core, tablet, read, self.deadline).await
    }

    async fn keys(&self, request: &ReadRequest, keys: &[Vec<u8>]) -> Result<ReadResponse, Ended> {
        let view = self.core.view();
        let mut by_tablet: BTreeMap<TabletId, (Arc<Tablet>, Vec<Vec<u8>>)> = BTreeMap::new();
        for key in keys {
            let Some(tablet) = view.tablet_of(self.table.root, key) else {
                strong::await_tablet(self.core, self.deadline).await?;
                return Err(Ended::Rerouted);
            };
            let entry = by_tablet
                .entry(tablet.id)
                .or_insert_with(|| (Arc::clone(tablet), Vec::new()));
            entry.1.push(key.clone());
        }
        if by_tablet.len() <= 1 {
            return match by_tablet.into_values().next() {
                Some((tablet, keys)) => self.tablet(&tablet, request, Selection::Keys(keys)).await,
                None => Ok(ReadResponse {
                    timestamp: Some(self.core.now().earliest),
                    ..ReadResponse::default()
                }),
            };
        }
        let request = ReadRequest {
            bound: match request.locking {
                // What is locked is read as it is now.
                Some(_) => request.bound,
                None => self.bound(request.bound).await?,
            },
            ..request.clone()
        };
        let parts = by_tablet.into_values().map(|(tablet, keys)| {
            let request = &request;
            async move { self.tablet(&tablet, request, Selection::Keys(keys)).await }
        });
        let parts = futures::future::join_all(parts).await;
        let parts: Result<Vec<ReadResponse>, Ended> = parts.into_iter().collect();
        Ok(merge(&request, keys, parts?))
    }

    async fn ranges(
        &self,
        request: &ReadRequest,
        ranges: &[KeyRange],
    ) -> Result<ReadResponse, Ended> {
        let pieces = self.pieces(request.direction, ranges).await?;
        if let [piece] = pieces.as_slice() {
            let selection = Selection::Ranges(vec![piece.range.clone()]);
            return self.tablet(&piece.tablet, request, selection).await;
        }
        if let (Some(_), [piece, after @ ..]) = (request.locking, pieces.as_slice()) {
            // Each tablet locks at a time of its own, and an answer speaks of one.
            let selection = Selection::Ranges(vec![piece.range.clone()]);
            let mut part = self.tablet(&piece.tablet, request, selection).await?;
            part.next = match &part.next {
                Some(Selection::Ranges(next)) => {
                    rest(request.direction, ranges, &pieces, next.first())
                }
                _ => rest(request.direction, ranges, after, None),
            };
            return Ok(part);
        }
        let mut request = request.clone();
        request.bound = self.bound(request.bound).await?;
        let mut reading = Pages {
            response: ReadResponse::default(),
            rows_left: request.row_limit,
            bytes_left: request.size_bytes_max,
        };
        let mut left = ranges.to_vec();
        let mut pieces = pieces;
        let mut routes = 0;
        loop {
            match self.pages(&mut request, &left, &pieces, &mut reading).await {
                Ok(()) => break,
                // What has been read is of one snapshot with the rest, which is routed anew.
                Err((index, Ended::Rerouted)) if !reading.response.rows.is_empty() => {
                    let rest = rest(request.direction, &left, &pieces[index..], None);
                    let Some(Selection::Ranges(rest)) = rest else {
                        break;
                    };
                    routes += 1;
                    if routes == ROUTES_MAX {
                        reading.response.next = Some(Selection::Ranges(rest));
                        break;
                    }
                    pieces = self.pieces(request.direction, &rest).await?;
                    left = rest;
                }
                Err((_, ended)) => return Err(ended),
            }
        }
        let mut response = reading.response;
        if response.timestamp.is_none() {
            response.timestamp = Some(self.core.now().earliest);
        }
        Ok(response)
    }

    /// Reads piece after piece until the answer is full; fails with the piece that could not be read.
    async fn pages(
        &self,
        request: &mut ReadRequest,
        ranges: &[KeyRange],
        pieces: &[Piece],
        reading: &mut Pages,
    ) -> Result<(), (usize, Ended)> {
        for (index, piece) in pieces.iter().enumerate() {
            request.row_limit = reading.rows_left;
            request.size_bytes_max = reading.bytes_left;
            let selection = Selection::Ranges(vec![piece.range.clone()]);
            let outcome = self.tablet(&piece.tablet, request, selection).await;
            let part = outcome.map_err(|ended| (index, ended))?;
            let mut is_full = false;
            if let Some(left) = &mut reading.rows_left {
                *left = left.saturating_sub(count_rows(self.table, &part.rows));
                is_full |= *left == 0;
            }
            let size: usize = part.rows.iter().map(size_bytes).sum();
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            reading.bytes_left = reading.bytes_left.saturating_sub(size);
            is_full |= reading.bytes_left == 0;
            let response = &mut reading.response;
            response.timestamp = match (response.timestamp, part.timestamp) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            response.rows.extend(part.rows);
            let is_last = index + 1 == pieces.len();
            if part.next.is_some() || (is_full && !is_last) {
                let (from, cursor) = match &part.next {
                    Some(Selection::Ranges(next)) => (&pieces[index..], next.first()),
                    _ => (&pieces[index + 1..], None),
                };
                response.next = rest(request.direction, ranges, from, cursor);
                return Ok(());
            }
        }
        Ok(())
    }

    /// The ranges cut at tablets' bounds, in the order of the answer.
    async fn pieces(&self, direction: Direction, ranges: &[KeyRange]) -> Result<Vec<Piece>, Ended> {
        let view = self.core.view();
        let tablets = view.tablets(self.table.root);
        if tablets.is_empty() {
            strong::await_tablet(self.core, self.deadline).await?;
            return Err(Ended::Rerouted);
        }
        let mut pieces = Vec::new();
        for (position, range) in ranges.iter().enumerate() {
            let first = pieces.len();
            let above = tablets.partition_point(|tablet| tablet.range.start <= range.start);
            for tablet in &tablets[above.saturating_sub(1)..] {
                let part = tablet.range.intersection(range);
                if part.is_empty() {
                    if range
                        .end
                        .as_ref()
                        .is_some_and(|end| *end <= tablet.range.start)
                    {
                        break;
                    }
                    continue;
                }
                pieces.push(Piece {
                    tablet: Arc::clone(tablet),
                    range: part,
                    position,
                });
            }
            if direction == Direction::Backward {
                pieces[first..].reverse();
            }
        }
        Ok(pieces)
    }
}

/// An answer that is being put together, and what still goes into it.
struct Pages {
    response: ReadResponse,
    rows_left: Option<u32>,
    bytes_left: u32,
}

/// The part of a requested range that lies in one tablet.
struct Piece {
    tablet: Arc<Tablet>,
    range: KeyRange,
    /// Which of the request's ranges it is of.
    position: usize,
}

/// What is left of the request: the present range from the cursor (or the first piece) on, and all after it.
fn rest(
    direction: Direction,
    ranges: &[KeyRange],
    pieces: &[Piece],
    cursor: Option<&KeyRange>,
) -> Option<Selection> {
    let first = pieces.first()?;
    let whole = &ranges[first.position];
    let from = cursor.unwrap_or(&first.range);
    let present = match direction {
        Direction::Forward => KeyRange {
            start: from.start.clone(),
            end: whole.end.clone(),
        },
        Direction::Backward => KeyRange {
            start: whole.start.clone(),
            end: from.end.clone(),
        },
    };
    let after = ranges[first.position + 1..].iter().cloned();
    let rest: Vec<KeyRange> = std::iter::once(present)
        .chain(after)
        .filter(|range| !range.is_empty())
        .collect();
    (!rest.is_empty()).then_some(Selection::Ranges(rest))
}

/// The answers of several tablets in the order of the request's keys, up to the first key that was not read and
/// within the request's limits.
fn merge(request: &ReadRequest, keys: &[Vec<u8>], parts: Vec<ReadResponse>) -> ReadResponse {
    let mut found: BTreeMap<Vec<u8>, ReadRow> = BTreeMap::new();
    let mut unread: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut response = ReadResponse::default();
    for part in parts {
        if let Some(Selection::Keys(rest)) = part.next {
            unread.extend(rest);
        }
        response.timestamp = match (response.timestamp, part.timestamp) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        found.extend(part.rows.into_iter().map(|row| (row.key.clone(), row)));
    }
    let rows_max = request.row_limit.map_or(usize::MAX, |limit| limit as usize);
    let mut size = 0;
    for (index, key) in keys.iter().enumerate() {
        let is_full = response.rows.len() >= rows_max || size >= request.size_bytes_max as usize;
        // A key that was not read and yet found was named twice: once before the part ended, once behind.
        if is_full || (unread.contains(key) && !found.contains_key(key)) {
            response.next = Some(Selection::Keys(keys[index..].to_vec()));
            return response;
        }
        if let Some(row) = found.get(key) {
            size += size_bytes(row);
            response.rows.push(row.clone());
        }
    }
    response
}

/// Headers do not count against a limit.
fn count_rows(table: &Table, rows: &[ReadRow]) -> u32 {
    let rows = rows.iter().filter(|row| table.owns_key(&row.key));
    u32::try_from(rows.count()).unwrap_or(u32::MAX)
}

/// About what a row takes as encoded.
fn size_bytes(row: &ReadRow) -> usize {
    row.key.len() + row.row.to_bytes().len()
}
