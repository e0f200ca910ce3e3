//! Read-write transactions on strong tables, as a door drives them, and the one that buffers what it writes.

use crate::evaluate::{Moment, evaluate};
use crate::{
    Assignment, Atomicity, ColumnSet, Database, Direction, Error, KeyRange, Level, Mutation,
    Patience, Projection, ReadAssertion, ReadBound, ReadRequest, ReadResponse, ReadRow, Refused,
    RowOperation, Selection, WriteRequest,
};
use async_trait::async_trait;
use catalog::Table;
use minicbor::{Decode, Encode};
use model::{Cell, ColumnId, Incarnation, NodeId, RequestId, Row, TableId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct TransactionOptions {
    pub patience: Patience,
    /// When the first attempt began, so that a retried transaction does not lose again and again.
    pub first_attempt: Option<Timestamp>,
    pub concurrency: Concurrency,
    /// Whether the tablets remember for a while that it was committed: `Database::fate` finds that out.
    pub is_kept: bool,
}

/// How a transaction has ended that is open nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Committed(Timestamp),
    /// It was not committed, and will not be.
    Aborted,
    /// Why that is not known.
    Unknown(String),
}

/// How a transaction keeps what it has read from changing before it commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// What it reads is locked: others wait, the older of two that are in each other's way goes first.
    #[default]
    Locks,
    /// Nothing is locked; at the commit it is aborted if what it read has changed.
    Validation,
}

/// Names a transaction that holds locks, and orders all of them by age: of two in each other's way, the smaller
/// one is older and wins (wound-wait; Rosenkrantz, Stearns and Lewis, 1978).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct TransactionId {
    /// When its first attempt began.
    #[n(0)]
    pub start: Timestamp,
    #[n(1)]
    pub node: NodeId,
    #[n(2)]
    pub incarnation: Incarnation,
    #[n(3)]
    pub request: RequestId,
}

/// A read that locks what it reads until its transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Locking {
    #[n(0)]
    pub transaction: TransactionId,
    /// What others may read as well, and not change.
    #[n(2)]
    pub shared: ColumnSet,
    /// What will be written: two that both read first would otherwise abort each other.
    #[n(3)]
    pub exclusive: ColumnSet,
}

/// An open transaction. Dropping it rolls it back.
#[async_trait]
pub trait Transaction: Send {
    /// No other transaction has it, of this node or another, in this life or another.
    fn id(&self) -> TransactionId;

    /// Reads committed state, overlaid with what this transaction has buffered. The request's own bound does
    /// not count.
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResponse, Error>;

    /// As `read`, of rows of which these columns will be written next: they are locked for that at once, and read with
    /// what is asked for, so that the write need not ask for them again. `All` also where rows will be deleted; no column
    /// locks whether there are rows, and so keeps others from reading any of them.
    async fn read_to_write(
        &mut self,
        request: ReadRequest,
        written: Projection,
    ) -> Result<ReadResponse, Error>;

    /// Buffers mutations. `Insert` and `Update` are checked against what is there, at once.
    async fn write(&mut self, mutations: Vec<Mutation>) -> Result<(), Error>;

    /// Commits, with `mutations` added at the end. `Retry::Aborted` says that nothing was done.
    async fn commit(self: Box<Self>, mutations: Vec<Mutation>) -> Result<Commit, Error>;

    async fn rollback(self: Box<Self>);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    pub timestamp: Timestamp,
}

/// A transaction that remembers what it read, buffers what it writes, and asks for both to be checked and applied
/// in one atomic write at its end. It is serializable, since at the commit timestamp all that it read still stood.
/// Unless it is to be validated only, its reads lock what they read, so that others wait where it would otherwise be aborted; the locks
/// may be lost (with a lease), the check at the end never.
pub struct Buffered {
    database: Arc<dyn Database>,
    id: TransactionId,
    concurrency: Concurrency,
    is_kept: bool,
    patience: Patience,
    mutations: Vec<Mutation>,
    assertions: Vec<ReadAssertion>,
    /// Rows as this transaction has left them.
    rows: BTreeMap<(TableId, Vec<u8>), Known>,
    /// Rows as they are committed, read in order to be written.
    committed: BTreeMap<(TableId, Vec<u8>), Known>,
    /// What `rows` held before the statement under way, newest last.
    undo: Vec<((TableId, Vec<u8>), Option<Known>)>,
}

/// What a transaction knows of a row without asking, since it has locked it.
#[derive(Clone, Debug)]
struct Known {
    /// `None` is a row that is not there.
    row: Option<Row>,
    /// Of a row that is there; of its other columns nothing is known, nor are they locked.
    columns: Projection,
}

impl Known {
    fn covers(&self, wanted: &Projection) -> bool {
        match (&self.columns, wanted) {
            (Projection::All, _) => true,
            (Projection::Columns(_), Projection::All) => false,
            (Projection::Columns(known), Projection::Columns(wanted)) => {
                wanted.iter().all(|column| known.contains(column))
            }
        }
    }

    /// The row as it is with this laid over what is committed.
    fn over(&self, committed: Option<Row>) -> Option<Row> {
        let (Projection::Columns(columns), Some(own), Some(mut row)) =
            (&self.columns, &self.row, committed)
        else {
            return self.row.clone();
        };
        row.marker = own.marker.or(row.marker);
        row.cells.retain(|cell| !columns.contains(&cell.column));
        let known = |cell: &&Cell| columns.contains(&cell.column);
        row.cells.extend(own.cells.iter().filter(known).cloned());
        row.cells
            .sort_by(|one, other| (one.column, &one.path).cmp(&(other.column, &other.path)));
        Some(row)
    }
}

fn both(one: Projection, other: Projection) -> Projection {
    match (one, other) {
        (Projection::Columns(one), Projection::Columns(other)) => {
            let columns: BTreeSet<ColumnId> = one.into_iter().chain(other).collect();
            Projection::Columns(columns.into_iter().collect())
        }
        _ => Projection::All,
    }
}

/// What a mutation needs to know of the row as it is.
fn needed_by(mutation: &Mutation) -> Projection {
    match (&mutation.operation, &mutation.condition) {
        (RowOperation::Update { assignments }, None) => {
            Projection::Columns(assignments.iter().map(Assignment::column).collect())
        }
        _ => Projection::All,
    }
}

/// More ranges than this are folded into one that covers them all, per table.
const ASSERTIONS_MAX: usize = 1_000;
/// Rows that one buffered range deletion may touch.
const RANGE_DELETE_ROWS_MAX: usize = 80_000;

impl Buffered {
    pub fn new(
        database: Arc<dyn Database>,
        id: TransactionId,
        options: &TransactionOptions,
    ) -> Buffered {
        Buffered {
            database,
            id,
            concurrency: options.concurrency,
            is_kept: options.is_kept,
            patience: options.patience,
            mutations: Vec::new(),
            assertions: Vec::new(),
            rows: BTreeMap::new(),
            committed: BTreeMap::new(),
            undo: Vec::new(),
        }
    }

    /// The id under which it is known where it locks; none where it does not.
    fn locking_id(&self) -> Option<TransactionId> {
        (self.concurrency == Concurrency::Locks).then_some(self.id)
    }

    fn table(&self, id: TableId) -> Result<Arc<Table>, Error> {
        let table = self.database.catalog().table(id).cloned();
        table.ok_or_else(|| Error::Refused(Refused::NoTable(id.to_string())))
    }

    /// Reads what is committed, and remembers that it was relied upon.
    async fn read_committed(
        &mut self,
        mut request: ReadRequest,
        exclusive: ColumnSet,
    ) -> Result<ReadResponse, Error> {
        request.bound = ReadBound::Strong;
        request.patience = self.patience;
        let columns = match request.headers {
            true => ColumnSet::ALL,
            false => ColumnSet::read_by(&request.projection),
        };
        request.locking = self.locking_id().map(|transaction| Locking {
            transaction,
            shared: columns,
            exclusive,
        });
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
                columns,
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
                    whole.columns = whole.columns.and(assertion.columns);
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

    /// The row as this transaction sees it, as far as a mutation needs it.
    async fn current(&mut self, mutation: &Mutation) -> Result<Known, Error> {
        let place = (mutation.table, mutation.key.clone());
        let needed = needed_by(mutation);
        let own = self.rows.get(&place);
        // What is committed was asserted when it was read: should it have changed since, the commit fails.
        if let Some(known) = own.or(self.committed.get(&place))
            && known.covers(&needed)
        {
            return Ok(known.clone());
        }
        let own = own.cloned();
        let selection = Selection::Keys(vec![mutation.key.clone()]);
        let mut request = ReadRequest::new(mutation.table, selection);
        request.projection = needed.clone();
        let exclusive = ColumnSet::written_by(&mutation.operation);
        let response = self.read_committed(request, exclusive).await?;
        let committed = response.rows.into_iter().next().map(|found| found.row);
        Ok(match own {
            None => Known {
                row: committed,
                columns: needed,
            },
            Some(own) => Known {
                row: own.over(committed),
                columns: both(own.columns, needed),
            },
        })
    }

    async fn write_one(&mut self, index: u32, mutation: Mutation) -> Result<(), Error> {
        if let RowOperation::DeleteRange { range } = mutation.operation {
            return self.delete_range(mutation.table, range).await;
        }
        let table = self.table(mutation.table)?;
        let current = self.current(&mutation).await?;
        let now = self.database.now().latest;
        let moment = Moment {
            timestamp: now,
            now_seconds: now.seconds(),
        };
        let evaluated = evaluate(&table, index, &mutation, current.row.as_ref(), moment)?;
        let left = Known {
            row: evaluated.new,
            columns: current.columns,
        };
        self.leave((mutation.table, mutation.key.clone()), left);
        self.mutations.push(mutation);
        Ok(())
    }

    fn leave(&mut self, place: (TableId, Vec<u8>), left: Known) {
        let before = self.rows.insert(place.clone(), left);
        self.undo.push((place, before));
    }

    async fn delete_range(&mut self, table: TableId, range: KeyRange) -> Result<(), Error> {
        let mut next = Some(Selection::Ranges(vec![range]));
        let mut keys = Vec::new();
        while let Some(selection) = next.take() {
            let mut request = ReadRequest::new(table, selection);
            request.projection = Projection::Columns(Vec::new());
            let response = self.read_overlaid(request, ColumnSet::ALL).await?;
            keys.extend(response.rows.into_iter().map(|found| found.key));
            if keys.len() > RANGE_DELETE_ROWS_MAX {
                return Err(Error::Refused(Refused::TooLarge(format!(
                    "a transaction deletes at most {RANGE_DELETE_ROWS_MAX} rows by range"
                ))));
            }
            next = response.next;
        }
        for key in keys {
            let gone = Known {
                row: None,
                columns: Projection::All,
            };
            self.leave((table, key.clone()), gone);
            self.mutations
                .push(Mutation::new(table, key, RowOperation::Delete));
        }
        Ok(())
    }

    /// Reads what is committed, with this transaction's own rows laid over it.
    async fn read_overlaid(
        &mut self,
        request: ReadRequest,
        exclusive: ColumnSet,
    ) -> Result<ReadResponse, Error> {
        let (table, selection, direction) =
            (request.table, request.selection.clone(), request.direction);
        let columns = request.projection.clone();
        let mut response = self.read_committed(request, exclusive).await?;
        if !exclusive.is_empty() {
            self.keep_committed(table, &selection, &response, &columns);
        }
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
                    let committed = found.remove(key);
                    let row = match self.rows.get(&(table, key.clone())) {
                        Some(own) => own.over(committed),
                        None => committed,
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

    /// Remembers rows that were read by key, in order to be written.
    fn keep_committed(
        &mut self,
        table: TableId,
        selection: &Selection,
        response: &ReadResponse,
        columns: &Projection,
    ) {
        if let (Selection::Keys(keys), None) = (selection, &response.next) {
            let known = |row| Known {
                row,
                columns: columns.clone(),
            };
            for key in keys {
                self.committed.insert((table, key.clone()), known(None));
            }
            for found in &response.rows {
                let place = (table, found.key.clone());
                self.committed.insert(place, known(Some(found.row.clone())));
            }
        }
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
        for ((owner, key), own) in self.rows.range((table, Vec::new())..) {
            if *owner != table {
                break;
            }
            if covered.iter().any(|range| range.contains(key))
                && let Some(row) = own.over(rows.remove(key))
            {
                rows.insert(key.clone(), row);
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
pub fn covered(
    selection: &Selection,
    direction: Direction,
    response: &ReadResponse,
) -> Vec<KeyRange> {
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
    fn id(&self) -> TransactionId {
        self.id
    }

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResponse, Error> {
        self.read_overlaid(request, ColumnSet::NONE).await
    }

    async fn read_to_write(
        &mut self,
        mut request: ReadRequest,
        written: Projection,
    ) -> Result<ReadResponse, Error> {
        let exclusive = match &written {
            Projection::All => ColumnSet::ALL,
            Projection::Columns(columns) if columns.is_empty() => ColumnSet::EXISTENCE,
            Projection::Columns(columns) => ColumnSet::of(columns.iter().copied()),
        };
        request.projection = both(request.projection, written);
        self.read_overlaid(request, exclusive).await
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
        if self.mutations.is_empty() && self.assertions.is_empty() {
            return Ok(Commit {
                timestamp: self.database.now().latest,
            });
        }
        let request = WriteRequest {
            mutations: std::mem::take(&mut self.mutations),
            atomicity: Atomicity::All,
            level: Level::Default,
            serial_level: Level::Serial,
            timestamp: None,
            assertions: std::mem::take(&mut self.assertions),
            patience: self.patience,
            transaction: self.locking_id(),
            kept_as: self.is_kept.then_some(self.id),
            tombstones_max: None,
        };
        let response = self.database.write(request).await;
        let response = response.map_err(|error| renumbered(error, buffered))?;
        let timestamp = response
            .commit_timestamp
            .ok_or_else(|| Error::unsupported("transactions write strong tables only"))?;
        Ok(Commit { timestamp })
    }

    async fn rollback(self: Box<Self>) {}
}

impl Drop for Buffered {
    /// However it ends, by commit, by rollback, or because its client has gone: nothing stays locked.
    fn drop(&mut self) {
        if let Some(id) = self.locking_id() {
            self.database.release(id);
        }
    }
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
