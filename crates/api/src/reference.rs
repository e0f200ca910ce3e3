//! The reference implementation of the waist: one process, one lock, everything in memory. It is the shortest
//! program that answers every request as a cluster must, so doors are tested over it, and clusters against it.
//!
//! Strong tables keep every version of a row for ever; eventual ones keep the merged record. A range-partitioned
//! database's tables may be written in one atomic request as if they were one tablet: how tables are split over
//! tablets is not modelled. Nothing is durable.

use crate::evaluate::{Evaluated, Moment, blind_change, evaluate};
use crate::trace::{Recorder, Trace, Traces};
use crate::{
    Atomicity, Buffered, Concurrency, Database, Direction, Error, KeyRange, Mutation, NodeInfo,
    Projection, ReadBound, ReadRequest, ReadResponse, ReadRow, Refused, Retry, ReturnedRows,
    RowOperation, Selection, Topology, Transaction, TransactionId, TransactionOptions,
    WriteRequest, WriteResponse,
};
use async_trait::async_trait;
use catalog::{Catalog, Change, Table};
use model::key::HEADER;
use model::{Incarnation, Interval, NodeId, RequestId, Row, TableId, Timestamp};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// All versions of a record, oldest first; `None` is its absence from then on.
type Versions = Vec<(Timestamp, Option<Row>)>;

#[derive(Default)]
struct State {
    /// By table group.
    groups: BTreeMap<TableId, BTreeMap<Vec<u8>, Versions>>,
    last: Timestamp,
}

pub struct Reference {
    state: Mutex<State>,
    catalog: watch::Sender<Arc<Catalog>>,
    topology: watch::Sender<Arc<Topology>>,
    traces: Traces,
    reads: AtomicU64,
    begun: AtomicU64,
    this: std::sync::Weak<Reference>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(since.as_micros() as i64)
}

impl Reference {
    /// An empty database of one node that doors show at `address`.
    pub fn new(address: std::net::IpAddr, cql_port: u16) -> Arc<Reference> {
        let node = NodeInfo {
            id: NodeId(1),
            host_id: [1; 16],
            address,
            cql_port,
            data_center: "dc1".into(),
            rack: "rack1".into(),
            is_alive: true,
            tokens: vec![0],
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let topology = Topology {
            cluster_name: "tessera".into(),
            this_node: NodeId(1),
            nodes: vec![node],
        };
        Arc::new_cyclic(|this| Reference {
            state: Mutex::default(),
            catalog: watch::Sender::new(Arc::default()),
            topology: watch::Sender::new(Arc::new(topology)),
            traces: Traces::default(),
            reads: AtomicU64::new(0),
            begun: AtomicU64::new(1),
            this: this.clone(),
        })
    }

    /// How often it was read from.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    fn table(&self, id: TableId) -> Result<Arc<Table>, Error> {
        let table = self.catalog.borrow().table(id).cloned();
        table.ok_or_else(|| Error::Refused(Refused::NoTable(id.to_string())))
    }

    fn write_now(&self, request: &WriteRequest) -> Result<WriteResponse, Error> {
        let mut state = lock(&self.state);
        state.check_assertions(self, request)?;
        let timestamp = wall().max(state.last.next());
        let mut staged = Staged {
            moment: Moment {
                timestamp,
                now_seconds: wall().seconds(),
            },
            rows: BTreeMap::new(),
        };
        let mut response = WriteResponse::default();
        let mut is_strong = false;
        for (index, mutation) in request.mutations.iter().enumerate() {
            let table = self.table(mutation.table)?;
            if table.is_sealed() {
                return Err(Error::Retry(Retry::StaleSchema {
                    current: self.catalog.borrow().version,
                }));
            }
            if table.is_strong() {
                is_strong = true;
                if mutation.timestamp.or(request.timestamp).is_some() {
                    return Err(Error::invalid(
                        "a strong table takes its timestamps from the clock",
                    ));
                }
                response
                    .returned
                    .push(staged.strong(&state, &table, index as u32, mutation)?);
            } else {
                let moment = Moment {
                    timestamp: mutation
                        .timestamp
                        .or(request.timestamp)
                        .unwrap_or(timestamp),
                    ..staged.moment
                };
                staged.eventual(&state, &table, mutation, moment)?;
                response.returned.push(ReturnedRows::default());
            }
        }
        state.last = timestamp;
        for ((root, key), row) in staged.rows {
            state
                .groups
                .entry(root)
                .or_default()
                .entry(key)
                .or_default()
                .push((timestamp, row));
        }
        response.commit_timestamp =
            (is_strong || request.mutations.is_empty()).then_some(timestamp);
        Ok(response)
    }
}

impl State {
    /// The record under a key as of `at`, tombstones and all.
    fn record(&self, root: TableId, key: &[u8], at: Timestamp) -> Option<&Row> {
        let versions = self.groups.get(&root)?.get(key)?;
        versions
            .iter()
            .rev()
            .find(|(timestamp, _)| *timestamp <= at)?
            .1
            .as_ref()
    }

    fn check_assertions(&self, database: &Reference, request: &WriteRequest) -> Result<(), Error> {
        for assertion in &request.assertions {
            let table = database.table(assertion.table)?;
            let Some(records) = self.groups.get(&table.root) else {
                continue;
            };
            let changed = range_of(records, &assertion.range).any(|(key, versions)| {
                table.owns_key(key)
                    && versions
                        .last()
                        .is_some_and(|(last, _)| *last > assertion.timestamp)
            });
            if changed {
                return Err(Error::Retry(Retry::Aborted(
                    "a row that was read has changed".into(),
                )));
            }
        }
        Ok(())
    }
}

/// Records as a request leaves them, before any of it counts.
struct Staged {
    moment: Moment,
    rows: BTreeMap<(TableId, Vec<u8>), Option<Row>>,
}

impl Staged {
    fn record(&self, state: &State, root: TableId, key: &[u8]) -> Option<Row> {
        match self.rows.get(&(root, key.to_vec())) {
            Some(row) => row.clone(),
            None => state.record(root, key, Timestamp::MAX).cloned(),
        }
    }

    /// Keys of live records in a range, staged ones included.
    fn keys(&self, state: &State, root: TableId, range: &KeyRange) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        if let Some(records) = state.groups.get(&root) {
            keys.extend(range_of(records, range).map(|(key, _)| key.clone()));
        }
        keys.extend(
            self.rows
                .keys()
                .filter(|(owner, key)| *owner == root && range.contains(key))
                .map(|(_, key)| key.clone()),
        );
        keys.sort();
        keys.dedup();
        keys.retain(|key| self.record(state, root, key).is_some());
        keys
    }

    fn strong(
        &mut self,
        state: &State,
        table: &Table,
        index: u32,
        mutation: &Mutation,
    ) -> Result<ReturnedRows, Error> {
        let doomed = match &mutation.operation {
            RowOperation::DeleteRange { range } => Some(range.clone()),
            RowOperation::Delete
                if mutation.key.last() == Some(&HEADER) && !table.owns_key(&mutation.key) =>
            {
                let mut prefix = mutation.key.clone();
                prefix.pop();
                Some(KeyRange::prefix(prefix))
            }
            _ => None,
        };
        if let Some(range) = doomed {
            for key in self.keys(state, table.root, &range) {
                if table.owns_key(&key) || key == mutation.key {
                    self.delete(state, table, &key)?;
                }
            }
            return Ok(ReturnedRows::default());
        }
        self.check_parent(state, table, index, mutation)?;
        let mut current = self.record(state, table.root, &mutation.key);
        if !current
            .as_mut()
            .is_some_and(|row| row.make_visible(None, self.moment.now_seconds))
        {
            current = None;
        }
        let Evaluated {
            new,
            is_write,
            returned,
        } = evaluate(table, index, mutation, current.as_ref(), self.moment)?;
        if is_write {
            if new.is_none() {
                self.delete(state, table, &mutation.key)?;
            }
            self.rows.insert((table.root, mutation.key.clone()), new);
        }
        Ok(returned)
    }

    /// A row of an interleaved table needs its parent's row.
    fn check_parent(
        &self,
        state: &State,
        table: &Table,
        index: u32,
        mutation: &Mutation,
    ) -> Result<(), Error> {
        let is_delete = matches!(
            mutation.operation,
            RowOperation::Delete | RowOperation::Check
        );
        if is_delete || table.spec.parent.is_none() {
            return Ok(());
        }
        match table.parent_key(&mutation.key) {
            Some(parent) if self.record(state, table.root, &parent).is_none() => {
                Err(Error::Refused(Refused::RowMissing { mutation: index }))
            }
            _ => Ok(()),
        }
    }

    /// Deletes a row, and the rows interleaved in it.
    fn delete(&mut self, state: &State, table: &Table, key: &[u8]) -> Result<(), Error> {
        if table.spec.partitioning == catalog::Partitioning::Range && table.owns_key(key) {
            let mut prefix = key.to_vec();
            prefix.pop();
            prefix.push(model::key::CHILD);
            for child in self.keys(state, table.root, &KeyRange::prefix(prefix)) {
                self.rows.insert((table.root, child), None);
            }
        }
        self.rows.insert((table.root, key.to_vec()), None);
        Ok(())
    }

    fn eventual(
        &mut self,
        state: &State,
        table: &Table,
        mutation: &Mutation,
        moment: Moment,
    ) -> Result<(), Error> {
        let change = blind_change(table, mutation, moment)?;
        let mut record = self
            .record(state, table.root, &mutation.key)
            .unwrap_or_default();
        record.merge(&change);
        self.rows
            .insert((table.root, mutation.key.clone()), Some(record));
        Ok(())
    }
}

fn range_of<'a>(
    records: &'a BTreeMap<Vec<u8>, Versions>,
    range: &KeyRange,
) -> Box<dyn DoubleEndedIterator<Item = (&'a Vec<u8>, &'a Versions)> + 'a> {
    if range.is_empty() {
        return Box::new(std::iter::empty());
    }
    let end = match &range.end {
        Some(end) => Bound::Excluded(end.clone()),
        None => Bound::Unbounded,
    };
    Box::new(records.range((Bound::Included(range.start.clone()), end)))
}

/// One read under way.
struct Reading<'a> {
    state: &'a State,
    table: &'a Table,
    request: &'a ReadRequest,
    at: Timestamp,
    now_seconds: i64,
    rows: Vec<ReadRow>,
    count: u32,
    size_bytes: u64,
}

impl Reading<'_> {
    /// The row under a key as a reader may see it.
    fn visible(&self, key: &[u8]) -> Option<Row> {
        let mut row = self.state.record(self.table.root, key, self.at)?.clone();
        let covering = self.table.header_of(key).and_then(|header| {
            let header = self.state.record(self.table.root, &header, self.at)?;
            header.covering_deletion(key)
        });
        if !row.make_visible(covering, self.now_seconds) {
            return None;
        }
        if let Projection::Columns(columns) = &self.request.projection {
            row.cells.retain(|cell| columns.contains(&cell.column));
        }
        Some(row)
    }

    fn add(&mut self, key: &[u8]) {
        let is_header = key.last() == Some(&HEADER) && !self.table.owns_key(key);
        let is_wanted = match &self.request.selection {
            Selection::Keys(_) => true,
            Selection::Ranges(_) if is_header => self.request.headers,
            Selection::Ranges(_) => self.table.owns_key(key),
        };
        if !is_wanted {
            return;
        }
        let Some(row) = self.visible(key) else { return };
        if is_header && row.cells.is_empty() {
            return;
        }
        self.count += u32::from(!is_header);
        self.size_bytes += (key.len() + row.to_bytes().len()) as u64;
        self.rows.push(ReadRow {
            key: key.to_vec(),
            row,
        });
    }

    fn is_full(&self) -> bool {
        self.request
            .row_limit
            .is_some_and(|limit| self.count >= limit)
            || self.size_bytes > u64::from(self.request.size_bytes_max)
    }

    fn keys(&mut self, keys: &[Vec<u8>]) -> Option<Selection> {
        for (index, key) in keys.iter().enumerate() {
            if self.is_full() {
                return Some(Selection::Keys(keys[index..].to_vec()));
            }
            self.add(key);
        }
        None
    }

    fn ranges(&mut self, ranges: &[KeyRange]) -> Option<Selection> {
        let records = self.state.groups.get(&self.table.root)?;
        for (index, range) in ranges.iter().enumerate() {
            let mut found = range_of(records, range);
            loop {
                let next = match self.request.direction {
                    Direction::Forward => found.next(),
                    Direction::Backward => found.next_back(),
                };
                let Some((key, _)) = next else { break };
                if self.is_full() {
                    let mut rest = ranges[index..].to_vec();
                    match self.request.direction {
                        Direction::Forward => rest[0].start = key.clone(),
                        Direction::Backward => {
                            let mut end = key.clone();
                            end.push(0);
                            rest[0].end = Some(end);
                        }
                    }
                    return Some(Selection::Ranges(rest));
                }
                self.add(key);
            }
        }
        None
    }
}

#[async_trait]
impl Database for Reference {
    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.borrow().clone()
    }

    fn watch_catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    async fn change_catalog(&self, change: Change) -> Result<Arc<Catalog>, Error> {
        let mut result = Ok(());
        // In one step: two changes at once must not both begin from the same catalog.
        self.catalog.send_if_modified(|current| {
            let mut catalog = Catalog::clone(current);
            result = catalog.apply(&change);
            if result.is_ok() {
                *current = Arc::new(catalog);
            }
            result.is_ok()
        });
        result.map_err(|error| Error::Refused(Refused::Catalog(error)))?;
        let catalog = self.catalog.borrow().clone();
        lock(&self.state)
            .groups
            .retain(|root, _| catalog.table(*root).is_some());
        Ok(catalog)
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadResponse, Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let table = self.table(request.table)?;
        let now = wall();
        let at = match request.bound {
            ReadBound::Strong | ReadBound::Eventual | ReadBound::Level(_) => None,
            _ if !table.is_strong() => {
                return Err(Error::invalid(
                    "an eventual table has no snapshots to read at a timestamp",
                ));
            }
            ReadBound::At(timestamp) => Some(timestamp),
            ReadBound::ExactStaleness { micros } => {
                Some(now.plus_micros(-(micros.min(i64::MAX as u64) as i64)))
            }
            ReadBound::MaxStaleness { .. } | ReadBound::MinTimestamp(_) => None,
        };
        if let Some(at) = at
            && at > now
        {
            tokio::time::sleep(std::time::Duration::from_micros((at.0 - now.0) as u64)).await;
        }
        let mut state = lock(&self.state);
        let at = at.unwrap_or(now.max(state.last));
        // A later commit must not slip in at or below a timestamp that has been read.
        state.last = state.last.max(at);
        let mut reading = Reading {
            state: &state,
            table: &table,
            request: &request,
            at: if table.is_strong() {
                at
            } else {
                Timestamp::MAX
            },
            now_seconds: now.seconds(),
            rows: Vec::new(),
            count: 0,
            size_bytes: 0,
        };
        let next = match &request.selection {
            Selection::Keys(keys) => reading.keys(keys),
            Selection::Ranges(ranges) => reading.ranges(ranges),
        };
        let rows = reading.rows;
        Ok(ReadResponse {
            rows,
            next,
            timestamp: table.is_strong().then_some(at),
            tombstones: 0,
        })
    }

    fn keep_trace(&self, trace: Trace, recorder: Recorder) {
        self.traces.keep(trace, recorder);
    }

    async fn traces(&self) -> Vec<Trace> {
        self.traces.all()
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteResponse, Error> {
        if request.atomicity != Atomicity::Each {
            return self.write_now(&request);
        }
        let mut answer = WriteResponse::default();
        for mutation in &request.mutations {
            let one = WriteRequest {
                mutations: vec![mutation.clone()],
                assertions: Vec::new(),
                ..request.clone()
            };
            let response = self.write_now(&one)?;
            answer.commit_timestamp = answer.commit_timestamp.max(response.commit_timestamp);
            answer.returned.extend(response.returned);
        }
        Ok(answer)
    }

    async fn begin(&self, options: TransactionOptions) -> Result<Box<dyn Transaction>, Error> {
        let this = self
            .this
            .upgrade()
            .ok_or_else(|| Error::Retry(Retry::NotServing("stopping".into())))?;
        let id = TransactionId {
            start: options.first_attempt.unwrap_or_else(wall),
            node: NodeId(1),
            incarnation: Incarnation(1),
            request: RequestId(self.begun.fetch_add(1, Ordering::Relaxed)),
        };
        // There are no locks here.
        let options = TransactionOptions {
            concurrency: Concurrency::Validation,
            ..options
        };
        Ok(Box::new(Buffered::new(this, id, &options)))
    }

    fn now(&self) -> Interval {
        let now = wall();
        Interval {
            earliest: now,
            latest: now,
        }
    }

    fn topology(&self) -> Arc<Topology> {
        self.topology.borrow().clone()
    }

    fn watch_topology(&self) -> watch::Receiver<Arc<Topology>> {
        self.topology.subscribe()
    }
}
