//! Read-write transactions on strong tables, as a door drives them, and the one that needs nothing but reads
//! and atomic writes.

use crate::evaluate::{Moment, evaluate};
use crate::{
    Atomicity, Database, Direction, Error, KeyRange, Level, Mutation, Patience, Projection,
    ReadAssertion, ReadBound, ReadRequest, ReadResponse, ReadRow, Refused, RowOperation, Selection,
    WriteRequest,
};
use async_trait::async_trait;
use catalog::Table;
use model::{Row, TableId, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct TransactionOptions {
    pub patience: Patience,
    /// When the first attempt began, so that a retried transaction does not lose again and again.
    pub first_attempt: Option<Timestamp>,
}

/// An open transaction. Dropping it rolls it back.
#[async_trait]
pub trait Transaction: Send {
    /// Reads committed state, overlaid with what this transaction has buffered. The request's own bound does
    /// not count.
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResponse, Error>;

    /// Buffers mutations. `Insert` and `Update` are checked against what is there, at once.
    async fn write(&mut self, mutations: Vec<Mutation>) -> Result<(), Error>;

    /// Commits, with `mutations` added at the end. `Retry::Aborted` says that nothing was done.
    async fn commit(self: Box<Self>, mutations: Vec<Mutation>) -> Result<Commit, Error>;

    async fn rollback(self: Box<Self>);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    pub timestamp: Timestamp,
    pub mutation_count: u64,
}

/// A transaction that takes no locks: it remembers what it read, buffers what it writes, and asks for both to
/// be checked and applied in one atomic write at its end. It is serializable, since at the commit timestamp all
/// that it read still stood; under contention it aborts where a locking one would wait.
pub struct Buffered {
    database: Arc<dyn Database>,
    patience: Patience,
    mutations: Vec<Mutation>,
    assertions: Vec<ReadAssertion>,
    /// Rows as this transaction has left them; `None` is a row that it deleted.
    rows: BTreeMap<(TableId, Vec<u8>), Option<Row>>,
    /// What `rows` held before the statement under way, newest last.
    undo: Vec<((TableId, Vec<u8>), Option<Option<Row>>)>,
}

/// More ranges than this are folded into one that covers them all, per table.
const ASSERTIONS_MAX: usize = 1_000;
/// Rows that one buffered range deletion may touch.
const RANGE_DELETE_ROWS_MAX: usize = 80_000;

impl Buffered {
    pub fn new(database: Arc<dyn Database>, options: &TransactionOptions) -> Buffered {
        Buffered {
            database,
            patience: options.patience,
            mutations: Vec::new(),
            assertions: Vec::new(),
            rows: BTreeMap::new(),
            undo: Vec::new(),
        }
    }

    fn table(&self, id: TableId) -> Result<Arc<Table>, Error> {
        let table = self.database.catalog().table(id).cloned();
        table.ok_or_else(|| Error::Refused(Refused::NoTable(id.to_string())))
    }

    /// Reads what is committed, and remembers that it was relied upon.
    async fn read_committed(&mut self, mut request: ReadRequest) -> Result<ReadResponse, Error> {
        request.bound = ReadBound::Strong;
        request.patience = self.patience;
        let (table, selection, direction) =
            (request.table, request.selection.clone(), request.direction);
        let response = self.database.read(request).await?;
        let timestamp = response.timestamp.ok_or_else(|| {
            Error::unsupported("transactions read strong tables only, and this table is eventual")
        })?;
        for range in covered(&selection, direction, &response) {
            self.assertions.push(ReadAssertion {
                table,
                range,
                timestamp,
            });
        }
        if self.assertions.len() > ASSERTIONS_MAX {
            self.fold_assertions();
        }
        Ok(response)
    }

    fn fold_assertions(&mut self) {
        let mut folded: BTreeMap<TableId, ReadAssertion> = BTreeMap::new();
        for assertion in self.assertions.drain(..) {
            match folded.get_mut(&assertion.table) {
                None => {
                    folded.insert(assertion.table, assertion);
                }
                Some(whole) => {
                    whole.timestamp = whole.timestamp.min(assertion.timestamp);
                    whole.range.start = whole.range.start.clone().min(assertion.range.start);
                    whole.range.end = match (whole.range.end.take(), assertion.range.end) {
                        (Some(left), Some(right)) => Some(left.max(right)),
                        _ => None,
                    };
                }
            }
        }
        self.assertions = folded.into_values().collect();
    }

    /// The row as this transaction sees it.
    async fn current(&mut self, table: TableId, key: &[u8]) -> Result<Option<Row>, Error> {
        if let Some(row) = self.rows.get(&(table, key.to_vec())) {
            return Ok(row.clone());
        }
        let request = ReadRequest::new(table, Selection::Keys(vec![key.to_vec()]));
        let response = self.read_committed(request).await?;
        Ok(response.rows.into_iter().next().map(|found| found.row))
    }

    async fn write_one(&mut self, index: u32, mutation: Mutation) -> Result<(), Error> {
        if let RowOperation::DeleteRange { range } = mutation.operation {
            return self.delete_range(mutation.table, range).await;
        }
        let table = self.table(mutation.table)?;
        let current = self.current(mutation.table, &mutation.key).await?;
        let now = self.database.now().latest;
        let moment = Moment {
            timestamp: now,
            now_seconds: now.seconds(),
        };
        let evaluated = evaluate(&table, index, &mutation, current.as_ref(), moment)?;
        self.leave(mutation.table, mutation.key.clone(), evaluated.new);
        self.mutations.push(mutation);
        Ok(())
    }

    fn leave(&mut self, table: TableId, key: Vec<u8>, row: Option<Row>) {
        let before = self.rows.insert((table, key.clone()), row);
        self.undo.push(((table, key), before));
    }

    async fn delete_range(&mut self, table: TableId, range: KeyRange) -> Result<(), Error> {
        let mut next = Some(Selection::Ranges(vec![range]));
        let mut keys = Vec::new();
        while let Some(selection) = next.take() {
            let mut request = ReadRequest::new(table, selection);
            request.projection = Projection::Columns(Vec::new());
            let response = self.read(request).await?;
            keys.extend(response.rows.into_iter().map(|found| found.key));
            if keys.len() > RANGE_DELETE_ROWS_MAX {
                return Err(Error::Refused(Refused::TooLarge(format!(
                    "a transaction deletes at most {RANGE_DELETE_ROWS_MAX} rows by range"
                ))));
            }
            next = response.next;
        }
        for key in keys {
            self.leave(table, key.clone(), None);
            self.mutations
                .push(Mutation::new(table, key, RowOperation::Delete));
        }
        Ok(())
    }

    /// Lays this transaction's own rows over what was read of `covered`.
    fn overlay(
        &self,
        table: TableId,
        covered: &[KeyRange],
        direction: Direction,
        response: &mut ReadResponse,
    ) {
        let mut rows: BTreeMap<Vec<u8>, Row> = response
            .rows
            .drain(..)
            .map(|found| (found.key, found.row))
            .collect();
        for ((owner, key), row) in self.rows.range((table, Vec::new())..) {
            if *owner != table {
                break;
            }
            if covered.iter().any(|range| range.contains(key)) {
                match row {
                    Some(row) => rows.insert(key.clone(), row.clone()),
                    None => rows.remove(key),
                };
            }
        }
        response.rows = rows
            .into_iter()
            .map(|(key, row)| ReadRow { key, row })
            .collect();
        if direction == Direction::Backward {
            response.rows.reverse();
        }
    }
}

/// The ranges that an answer speaks for: all that was asked, or as far as it got.
fn covered(selection: &Selection, direction: Direction, response: &ReadResponse) -> Vec<KeyRange> {
    let ranges = match selection {
        Selection::Keys(keys) => return keys.iter().map(|key| single(key.clone())).collect(),
        Selection::Ranges(ranges) => ranges,
    };
    let Some(Selection::Ranges(rest)) = &response.next else {
        return ranges.clone();
    };
    // What is left to read is not covered: it begins (or, backward, ends) where the answer stopped.
    let mut done = Vec::new();
    for range in ranges {
        let Some(left) = rest.first() else {
            done.push(range.clone());
            continue;
        };
        let is_cut = match direction {
            Direction::Forward => range.end == left.end && range.start <= left.start,
            Direction::Backward => range.start == left.start,
        };
        if !is_cut {
            done.push(range.clone());
            continue;
        }
        done.push(match direction {
            Direction::Forward => KeyRange {
                start: range.start.clone(),
                end: Some(left.start.clone()),
            },
            Direction::Backward => KeyRange {
                start: left.end.clone().unwrap_or_default(),
                end: range.end.clone(),
            },
        });
        break;
    }
    done
}

fn single(key: Vec<u8>) -> KeyRange {
    let mut end = key.clone();
    end.push(0);
    KeyRange {
        start: key,
        end: Some(end),
    }
}

#[async_trait]
impl Transaction for Buffered {
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResponse, Error> {
        let (table, selection, direction) =
            (request.table, request.selection.clone(), request.direction);
        let mut response = self.read_committed(request).await?;
        match &selection {
            Selection::Ranges(_) => {
                let covered = covered(&selection, direction, &response);
                self.overlay(table, &covered, direction, &mut response);
            }
            Selection::Keys(keys) => {
                let mut found: BTreeMap<Vec<u8>, Row> = response
                    .rows
                    .drain(..)
                    .map(|found| (found.key, found.row))
                    .collect();
                for key in keys {
                    let row = match self.rows.get(&(table, key.clone())) {
                        Some(row) => row.clone(),
                        None => found.remove(key),
                    };
                    response.rows.extend(row.map(|row| ReadRow {
                        key: key.clone(),
                        row,
                    }));
                }
            }
        }
        Ok(response)
    }

    async fn write(&mut self, mutations: Vec<Mutation>) -> Result<(), Error> {
        // A statement that fails leaves nothing of itself behind: the transaction goes on without it.
        let count = self.mutations.len();
        self.undo.clear();
        for (index, mutation) in (0..).zip(mutations) {
            if let Err(error) = self.write_one(index, mutation).await {
                self.mutations.truncate(count);
                for (key, before) in self.undo.drain(..).rev() {
                    match before {
                        Some(row) => self.rows.insert(key, row),
                        None => self.rows.remove(&key),
                    };
                }
                return Err(error);
            }
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>, mutations: Vec<Mutation>) -> Result<Commit, Error> {
        let buffered = self.mutations.len() as u32;
        self.mutations.extend(mutations);
        let mutation_count = self.mutations.len() as u64;
        if self.mutations.is_empty() && self.assertions.is_empty() {
            return Ok(Commit {
                timestamp: self.database.now().latest,
                mutation_count,
            });
        }
        let request = WriteRequest {
            mutations: self.mutations,
            atomicity: Atomicity::All,
            level: Level::Default,
            timestamp: None,
            assertions: self.assertions,
            patience: self.patience,
        };
        let response = self.database.write(request).await;
        let response = response.map_err(|error| renumbered(error, buffered))?;
        let timestamp = response
            .commit_timestamp
            .ok_or_else(|| Error::unsupported("transactions write strong tables only"))?;
        Ok(Commit {
            timestamp,
            mutation_count,
        })
    }

    async fn rollback(self: Box<Self>) {}
}

/// An error of a commit counts the caller's mutations from its own first, not from those buffered before.
fn renumbered(mut error: Error, buffered: u32) -> Error {
    if let Error::Refused(
        Refused::RowExists { mutation }
        | Refused::RowMissing { mutation }
        | Refused::ConditionFailed { mutation, .. }
        | Refused::UpdateFailed { mutation, .. },
    ) = &mut error
    {
        *mutation = mutation.saturating_sub(buffered);
    }
    error
}
