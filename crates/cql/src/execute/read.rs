//! SELECT: keys or ranges to read, rows to filter, count, sort, cut and encode.
//!
//! A partition's header comes into play when the table has static columns. Reading forward over whole partitions,
//! headers arrive before their partition's rows; otherwise they are fetched first. A partition that has static
//! cells and no rows is one row of the result, unless clustering columns are restricted.

use super::rows::{EncodedRows, select_answer};
use super::tombstones::{self, Tombstones};
use super::{Execution, Metadata, Timeout};
use crate::error::Error;
use crate::paging::PagingState;
use crate::plan::keys::{Partition, Rows, bad_key, token_range};
use crate::plan::restrict::{Access, ReadyFilter};
use crate::plan::select::SelectPlan;
use crate::plan::selector::{Output, RowView, Running, column};
use crate::plan::term::{Context, Term};
use crate::plan::view::Source;
use crate::system::SystemContext;
use crate::types::wire::put_value;
use api::{Direction, KeyRange, Projection, ReadBound, ReadRequest, ReadRow, Selection};
use catalog::Table;
use model::key::{HEADER, ROW};
use model::{Row, Timestamp, Value};
use std::collections::BTreeMap;

/// A result without paging may not be larger.
const RESULT_SIZE_BYTES_MAX: usize = 256 << 20;
/// Rows per request where most of them may be filtered out.
const SCAN_ROWS: u32 = 2_000;
/// Rows looked at for one page; then it is answered as it is, and the client comes back.
const PAGE_SCAN_ROWS_MAX: u64 = 100_000;
const SIZE_BYTES_PER_READ: u32 = 4 << 20;
const NO_LIMIT: u32 = u32::MAX;
/// As in Cassandra, where a client that asks for a count names no page size.
const INNER_PAGE_ROWS: u32 = 10_000;

pub async fn select(
    execution: &Execution<'_>,
    plan: &SelectPlan,
    metadata: Metadata<'_>,
) -> Result<Vec<u8>, Error> {
    let (rows, state) = rows(execution, plan).await?;
    Ok(select_answer(
        execution,
        plan,
        &rows,
        state.as_deref(),
        metadata,
    ))
}

/// The rows of a page, encoded, and where the next one begins.
pub async fn rows(
    execution: &Execution<'_>,
    plan: &SelectPlan,
) -> Result<(EncodedRows, Option<Vec<u8>>), Error> {
    let context = execution.context();
    let filters = plan
        .filters
        .iter()
        .map(|filter| filter.ready(&context, &plan.view))
        .collect::<Result<Vec<_>, _>>()?;
    let limit = limit(&plan.limit, &context, "LIMIT")?;
    let partition_limit = limit_of_partition(plan, &context)?;
    let table = match &plan.view.source {
        Source::System(table) => {
            let catalog = execution.server.database.catalog();
            let topology = execution.server.database.topology();
            let traces = match table.keyspace {
                "system_traces" => execution.server.database.traces().await,
                _ => Vec::new(),
            };
            let rows = (table.rows)(&SystemContext {
                catalog: &catalog,
                topology: &topology,
                traces: &traces,
            });
            let rows = system(execution, plan, &filters, limit, rows)?;
            return Ok((rows, None));
        }
        Source::Stored(table) => table,
    };
    let state = match &execution.parameters.paging_state {
        Some(state) => Some(PagingState::decode(state, table.uuid)?),
        None => None,
    };
    let mut scan = Scan {
        execution,
        plan,
        table,
        context,
        filters,
        sink: Sink::new(plan),
        rows_left: state.as_ref().map_or(limit, |state| state.rows_left),
        page_left: page_size(execution, plan),
        partition_limit,
        partition_left: state
            .as_ref()
            .map_or(partition_limit, |state| state.partition_rows_left),
        partition: state
            .as_ref()
            .map_or(Vec::new(), |state| state.partition.clone()),
        header: None,
        fetched: BTreeMap::new(),
        is_pending: false,
        point_values: None,
        scanned: 0,
        tombstones: Tombstones::default(),
        at: None,
        resume: None,
        has_ended: false,
    };
    if plan.is_aggregate || plan.sorts {
        scan.rows_left = NO_LIMIT;
    }
    if let Some(selection) = scan.begin(state.as_ref()).await? {
        scan.run(selection).await?;
    }
    let resume = scan.resume.take();
    let (rows_left, partition_left, partition) = (
        scan.rows_left,
        scan.partition_left,
        std::mem::take(&mut scan.partition),
    );
    let warnings = scan.warnings();
    let mut rows = scan.sink.finish(plan, limit)?;
    rows.warnings = warnings;
    let state = resume.map(|position| {
        PagingState {
            table: table.uuid,
            rows_left,
            partition_rows_left: partition_left,
            position,
            partition,
        }
        .encode()
    });
    Ok((rows, state))
}

fn limit(term: &Option<Term>, context: &Context<'_>, name: &str) -> Result<u32, Error> {
    let Some(term) = term else {
        return Ok(NO_LIMIT);
    };
    match term.evaluate(context)? {
        Some(Value::Int(limit)) if limit > 0 => Ok(limit.min(i64::from(NO_LIMIT - 1)) as u32),
        Some(Value::Null) => Err(Error::invalid(format!(
            "Invalid null value of {}",
            name.to_lowercase()
        ))),
        Some(_) => Err(Error::invalid(format!("{name} must be strictly positive"))),
        None => Ok(NO_LIMIT),
    }
}

fn limit_of_partition(plan: &SelectPlan, context: &Context<'_>) -> Result<u32, Error> {
    if plan.is_distinct {
        return Ok(1);
    }
    limit(&plan.per_partition_limit, context, "PER PARTITION LIMIT")
}

fn page_size(execution: &Execution<'_>, plan: &SelectPlan) -> u32 {
    if plan.is_aggregate || plan.sorts {
        return NO_LIMIT;
    }
    execution.parameters.page_size.unwrap_or(NO_LIMIT)
}

/// Where rows go.
enum Sink {
    Rows(EncodedRows),
    Aggregates(Vec<Running>),
    /// By the clustering part of their keys.
    Sorted(Vec<(Vec<u8>, Vec<u8>)>),
}

impl Sink {
    fn new(plan: &SelectPlan) -> Sink {
        if plan.is_aggregate {
            Sink::Aggregates(plan.outputs.iter().map(|_| Running::default()).collect())
        } else if plan.sorts {
            Sink::Sorted(Vec::new())
        } else {
            Sink::Rows(EncodedRows::default())
        }
    }

    fn add(
        &mut self,
        plan: &SelectPlan,
        row: &RowView<'_>,
        sort_key: &[u8],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        match self {
            Sink::Rows(rows) => {
                encode_row(plan, row, context, &mut rows.bytes)?;
                rows.count += 1;
                if rows.bytes.len() > RESULT_SIZE_BYTES_MAX {
                    return Err(Error::invalid(
                        "the result is too large for one answer: use paging",
                    ));
                }
            }
            Sink::Aggregates(running) => {
                for (output, running) in plan.outputs.iter().zip(running) {
                    if let Output::Aggregate(aggregate) = output {
                        aggregate.add(running, row, context)?;
                    }
                }
            }
            Sink::Sorted(rows) => {
                let mut bytes = Vec::new();
                encode_row(plan, row, context, &mut bytes)?;
                rows.push((sort_key.to_vec(), bytes));
            }
        }
        Ok(())
    }

    fn finish(self, plan: &SelectPlan, limit: u32) -> Result<EncodedRows, Error> {
        match self {
            Sink::Rows(rows) => Ok(rows),
            Sink::Aggregates(running) => {
                let mut rows = EncodedRows {
                    bytes: Vec::new(),
                    count: 1,
                    warnings: Vec::new(),
                };
                let columns = plan.outputs.iter().zip(&plan.metadata.columns);
                for ((output, column), running) in columns.zip(running) {
                    let value = match output {
                        Output::Aggregate(aggregate) => aggregate.finish(running),
                        Output::Row(_) => Value::Null,
                    };
                    put_value(&value, &column.kind, &mut rows.bytes);
                }
                Ok(rows)
            }
            Sink::Sorted(mut rows) => {
                rows.sort_by(|left, right| left.0.cmp(&right.0));
                if plan.is_reversed {
                    rows.reverse();
                }
                rows.truncate(limit as usize);
                Ok(EncodedRows {
                    count: rows.len() as u32,
                    bytes: rows.into_iter().flat_map(|(_, bytes)| bytes).collect(),
                    warnings: Vec::new(),
                })
            }
        }
    }
}

fn encode_row(
    plan: &SelectPlan,
    row: &RowView<'_>,
    context: &Context<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    for (output, column) in plan.outputs.iter().zip(&plan.metadata.columns) {
        if let Output::Row(selector) = output {
            selector.put(row, &column.kind, context, out)?;
        }
    }
    Ok(())
}

fn system(
    execution: &Execution<'_>,
    plan: &SelectPlan,
    filters: &[ReadyFilter],
    limit: u32,
    rows: Vec<Vec<Value>>,
) -> Result<EncodedRows, Error> {
    let context = execution.context();
    let mut sink = Sink::new(plan);
    let mut left = if plan.is_aggregate { NO_LIMIT } else { limit };
    for values in &rows {
        let passes = filters
            .iter()
            .all(|filter| filter.passes(values.get(filter.column).unwrap_or(&Value::Null)));
        if !passes {
            continue;
        }
        if left == 0 {
            break;
        }
        left -= 1;
        let row = RowView {
            key: values,
            row: None,
            header: None,
        };
        sink.add(plan, &row, &[], &context)?;
    }
    sink.finish(plan, limit)
}

struct Scan<'a> {
    execution: &'a Execution<'a>,
    plan: &'a SelectPlan,
    table: &'a Table,
    context: Context<'a>,
    filters: Vec<ReadyFilter>,
    sink: Sink,
    rows_left: u32,
    page_left: u32,
    partition_limit: u32,
    partition_left: u32,
    /// The header's key of the partition that is being read; empty before the first, or when nobody asks.
    partition: Vec<u8>,
    /// Its header, if it is needed and there is one.
    header: Option<Row>,
    /// Headers that were fetched ahead.
    fetched: BTreeMap<Vec<u8>, Row>,
    /// The header has come, and no row of its partition yet.
    is_pending: bool,
    /// The key's values, when there is only one key.
    point_values: Option<Vec<Value>>,
    scanned: u64,
    tombstones: Tombstones,
    /// What all of a strong table's rows are read at, so that a statement that takes several reads sees one state.
    at: Option<Timestamp>,
    /// Where to go on, once the page is full.
    resume: Option<Vec<u8>>,
    /// The page became full by a row before the one that was read last.
    has_ended: bool,
}

impl Scan<'_> {
    /// Whether whose partition a row belongs to matters.
    fn tracks_partitions(&self) -> bool {
        self.plan.needs_header || self.partition_limit != NO_LIMIT
    }

    fn bound(&self) -> ReadBound {
        match self.at {
            Some(at) => ReadBound::At(at),
            None => self.execution.read_bound(),
        }
    }

    /// What comes after the first read of a partition is read at the time of that one.
    fn keep(&mut self, at: Option<Timestamp>) {
        if self.table.is_strong() {
            self.at = self.at.or(at);
        }
    }

    /// Several partitions, which may lie in several tablets, are read at a time that nothing acknowledged lies above.
    fn choose_time(&mut self) {
        let now = self.execution.server.database.now();
        self.keep(Some(now.latest));
    }

    fn direction(&self) -> Direction {
        if self.plan.is_reversed {
            Direction::Backward
        } else {
            Direction::Forward
        }
    }

    /// Headers come with the rows.
    fn headers_inline(&self) -> bool {
        self.plan.needs_header && !self.plan.is_reversed && !self.plan.access.restricts_clustering()
    }

    /// What is to be read, behind the paging state's position if there is one.
    async fn begin(&mut self, state: Option<&PagingState>) -> Result<Option<Selection>, Error> {
        let mut selection = match &self.plan.access {
            Access::Scan { lower, upper } => {
                let bound = |bound: &Option<(Term, bool)>| -> Result<Option<(i64, bool)>, Error> {
                    match bound {
                        None => Ok(None),
                        Some((term, is_inclusive)) => {
                            match term.required(&self.context, "partition key token")? {
                                Value::Int(token) => Ok(Some((token, *is_inclusive))),
                                _ => Err(Error::invalid("a token is a bigint")),
                            }
                        }
                    }
                };
                let Some(range) = token_range(bound(lower)?, bound(upper)?) else {
                    return Ok(None);
                };
                self.choose_time();
                if self.headers_inline()
                    && let Some(state) = state
                {
                    self.fetch_headers(vec![state.partition.clone()]).await?;
                }
                Selection::Ranges(vec![range])
            }
            Access::Partitions(keys) => {
                if !self.plan.needs_header
                    && state.is_none()
                    && let Some((values, key)) = keys.point(self.table, &self.context)?
                {
                    self.point_values = Some(values);
                    return Ok(Some(Selection::Keys(vec![key])));
                }
                let partitions = keys.partitions(self.table, &self.context)?;
                if partitions.len() > 1 {
                    self.choose_time();
                }
                if self.plan.needs_header && (!self.headers_inline() || state.is_some()) {
                    let headers = partitions.iter().map(|one| one.header.clone()).collect();
                    self.fetch_headers(headers).await?;
                }
                self.partitions(partitions)
            }
        };
        if self.plan.is_reversed {
            match &mut selection {
                Selection::Keys(keys) => keys.reverse(),
                Selection::Ranges(ranges) => ranges.reverse(),
            }
        }
        if let Some(state) = state {
            cut(&mut selection, &state.position, self.plan.is_reversed);
            self.header = self.fetched.get(&self.partition).cloned();
        }
        let is_empty = match &selection {
            Selection::Keys(keys) => keys.is_empty(),
            Selection::Ranges(ranges) => ranges.is_empty(),
        };
        if is_empty {
            return Ok(None);
        }
        Ok(Some(selection))
    }

    fn partitions(&mut self, partitions: Vec<Partition>) -> Selection {
        let is_single = partitions.len() == 1;
        let mut keys = Vec::new();
        let mut ranges = Vec::new();
        let mut is_keys = partitions.is_empty();
        for Partition {
            mut values,
            header,
            rows,
        } in partitions
        {
            match rows {
                Rows::Keys(rows) => {
                    is_keys = true;
                    let is_point = is_single && rows.len() == 1;
                    for (key, clustering) in rows {
                        keys.push(key);
                        if is_point {
                            values.extend(clustering);
                            self.point_values = Some(std::mem::take(&mut values));
                        }
                    }
                }
                Rows::All => {
                    let mut rows = header.clone();
                    if let Some(last) = rows.last_mut() {
                        *last = ROW;
                    }
                    let mut range = KeyRange::prefix(rows);
                    if self.headers_inline() {
                        range.start = header;
                    }
                    ranges.push(range);
                }
                Rows::Ranges(more) => ranges.extend(more),
            }
        }
        if is_keys {
            Selection::Keys(keys)
        } else {
            Selection::Ranges(ranges)
        }
    }

    async fn fetch_headers(&mut self, mut keys: Vec<Vec<u8>>) -> Result<(), Error> {
        keys.retain(|key| !key.is_empty());
        if keys.is_empty() {
            return Ok(());
        }
        let mut next = Some(Selection::Keys(keys));
        while let Some(selection) = next.take() {
            let mut request = ReadRequest::new(self.table.id, selection);
            request.bound = self.bound();
            request.patience = self.execution.patience(Timeout::Read);
            let response = self.execution.read(request).await;
            let response = response.map_err(Error::from_read)?;
            self.keep(response.timestamp);
            self.count_tombstones(response.tombstones)?;
            for ReadRow { key, row } in response.rows {
                if !row.cells.is_empty() {
                    self.fetched.insert(key, row);
                }
            }
            next = response.next;
        }
        Ok(())
    }

    /// Gives up when there are too many of them: as Cassandra does, for each page anew.
    fn count_tombstones(&mut self, more: u64) -> Result<(), Error> {
        self.tombstones.count(more);
        tombstones::check(self.execution, self.table, self.tombstones.of_page())
    }

    /// What the client should know of its query.
    fn warnings(&self) -> Vec<String> {
        let most = self.tombstones.most_of_a_page();
        if !tombstones::is_worth_a_warning(self.execution, most) {
            return Vec::new();
        }
        vec![format!(
            "Read {} live rows and {most} tombstone cells for a query of {}.{} (see tombstone_warn_threshold)",
            self.scanned,
            self.table.namespace(),
            self.table.name()
        )]
    }

    /// What is read to its end for one answer is read by pages all the same: each may have so many live rows.
    fn inner_page(&self) -> Option<u32> {
        let pages = self.plan.is_aggregate || self.plan.sorts;
        pages.then(|| match self.execution.parameters.page_size {
            Some(size) => size.max(1),
            None => INNER_PAGE_ROWS,
        })
    }

    fn row_limit(&self) -> Option<u32> {
        let inner_page = self.inner_page().unwrap_or(NO_LIMIT);
        if !self.filters.is_empty() || self.partition_limit != NO_LIMIT {
            return Some(inner_page.min(SCAN_ROWS));
        }
        let wanted = self.page_left.min(self.rows_left).min(inner_page);
        (wanted != NO_LIMIT).then_some(wanted.max(1))
    }

    async fn run(&mut self, selection: Selection) -> Result<(), Error> {
        let is_first_page = self.execution.parameters.paging_state.is_none();
        let mut next = Some(selection);
        let inner_page = self.inner_page().map_or(u64::MAX, u64::from);
        let mut page_begin = 0;
        while let Some(selection) = next.take() {
            if self.scanned - page_begin >= inner_page {
                page_begin = self.scanned;
                self.tombstones.turn_page();
            }
            let request = ReadRequest {
                table: self.table.id,
                selection,
                direction: self.direction(),
                projection: self.projection(),
                row_limit: self.row_limit(),
                size_bytes_max: SIZE_BYTES_PER_READ,
                headers: self.headers_inline(),
                bound: self.bound(),
                patience: self.execution.patience(self.timeout()),
                locking: None,
            };
            let response = self.execution.read(request).await;
            let response = response.map_err(Error::from_read)?;
            self.keep(response.timestamp);
            self.count_tombstones(response.tombstones)?;
            let mut rows = response.rows.into_iter().peekable();
            while let Some(row) = rows.next() {
                if self.is_full() {
                    // There is at least this one more.
                    return Ok(());
                }
                self.scanned += 1;
                self.row(row)?;
                if self.has_ended {
                    return Ok(());
                }
                let has_more = rows.peek().is_some() || response.next.is_some() || self.is_pending;
                if !has_more {
                    self.resume = None;
                }
            }
            next = response.next;
            if self.is_full() && next.is_some() {
                return Ok(());
            }
            let pages = self.execution.parameters.page_size.is_some();
            if let (Some(selection), true) =
                (&next, pages && !self.plan.is_aggregate && !self.plan.sorts)
                && self.scanned > PAGE_SCAN_ROWS_MAX
                && !self.is_pending
            {
                self.resume = position_of(selection, self.plan.is_reversed);
                return Ok(());
            }
        }
        self.resume = None;
        if self.is_pending {
            self.static_row()?;
        } else if self.plan.needs_header
            && !self.headers_inline()
            && !self.plan.access.restricts_clustering()
            && is_first_page
            && self.partition.is_empty()
        {
            // Backward over a partition that turned out to have no rows.
            for (key, row) in std::mem::take(&mut self.fetched) {
                self.partition = key;
                self.header = Some(row);
                self.static_row()?;
            }
        }
        self.resume = None;
        Ok(())
    }

    fn timeout(&self) -> Timeout {
        match &self.plan.access {
            Access::Scan { .. } => Timeout::Range,
            Access::Partitions(_) => Timeout::Read,
        }
    }

    fn projection(&self) -> Projection {
        self.plan.projection.clone()
    }

    fn is_full(&self) -> bool {
        self.page_left == 0 || self.rows_left == 0
    }

    fn row(&mut self, ReadRow { key, row }: ReadRow) -> Result<(), Error> {
        if !self.tracks_partitions() {
            return self.emit(&key, Some(&row));
        }
        let is_header = self.headers_inline() && is_header(self.table, &key);
        let partition = if is_header {
            key.clone()
        } else {
            self.table
                .header_of(&key)
                .ok_or_else(|| Error::server("a row's key without a partition"))?
        };
        if partition != self.partition {
            if self.is_pending {
                self.static_row()?;
                if self.is_full() {
                    // The page ends before this row.
                    if self.rows_left > 0 {
                        self.resume = Some(partition);
                    }
                    self.has_ended = true;
                    return Ok(());
                }
            }
            self.header = self.fetched.get(&partition).cloned();
            self.partition = partition;
            self.partition_left = self.partition_limit;
        }
        if is_header {
            self.header = Some(row);
            self.is_pending = true;
            return Ok(());
        }
        self.is_pending = false;
        if self.partition_left == 0 {
            return Ok(());
        }
        self.emit(&key, Some(&row))
    }

    /// The row of a partition that has only static cells.
    fn static_row(&mut self) -> Result<(), Error> {
        self.is_pending = false;
        let key = self.partition.clone();
        self.emit(&key, None)
    }

    fn emit(&mut self, key: &[u8], row: Option<&Row>) -> Result<(), Error> {
        let decoded;
        let values: &[Value] = match &self.point_values {
            _ if !self.plan.needs_key => &[],
            Some(values) => values,
            None => {
                decoded = self.table.decode_key(key).map_err(bad_key)?;
                &decoded
            }
        };
        let view = RowView {
            key: values,
            row,
            header: self.header.as_ref(),
        };
        for filter in &self.filters {
            let (selector, _) = column(&self.plan.view, filter.column);
            if !filter.passes(&selector.value(&view, &self.context)?) {
                return Ok(());
            }
        }
        let sort_key = if self.plan.sorts {
            let start = self.table.header_of(key).map_or(0, |header| header.len());
            key.get(start..).unwrap_or(&[])
        } else {
            &[]
        };
        self.sink.add(self.plan, &view, sort_key, &self.context)?;
        let decrease = |left: &mut u32| {
            if *left != NO_LIMIT {
                *left -= 1;
            }
        };
        decrease(&mut self.rows_left);
        decrease(&mut self.page_left);
        decrease(&mut self.partition_left);
        if self.page_left == 0 && self.rows_left > 0 {
            let mut position = key.to_vec();
            if row.is_none() {
                // Behind the whole partition, which has no rows.
                if let Some(last) = position.last_mut() {
                    *last = ROW;
                }
            } else if !self.plan.is_reversed {
                position.push(0);
            }
            self.resume = Some(position);
        }
        Ok(())
    }
}

fn is_header(table: &Table, key: &[u8]) -> bool {
    key.last() == Some(&HEADER) && !table.owns_key(key)
}

/// Drops what lies before the position, in reading order.
fn cut(selection: &mut Selection, position: &[u8], is_reversed: bool) {
    match selection {
        Selection::Keys(keys) => keys.retain(|key| {
            if is_reversed {
                key.as_slice() < position
            } else {
                key.as_slice() >= position
            }
        }),
        Selection::Ranges(ranges) => {
            let rest = if is_reversed {
                KeyRange {
                    start: Vec::new(),
                    end: Some(position.to_vec()),
                }
            } else {
                KeyRange {
                    start: position.to_vec(),
                    end: None,
                }
            };
            let cut: Vec<KeyRange> = ranges
                .iter()
                .map(|range| range.intersection(&rest))
                .filter(|range| !range.is_empty())
                .collect();
            *ranges = cut;
        }
    }
}

/// Where a selection begins, in reading order.
fn position_of(selection: &Selection, is_reversed: bool) -> Option<Vec<u8>> {
    match selection {
        Selection::Keys(keys) if is_reversed => keys.first().map(|key| {
            let mut position = key.clone();
            position.push(0);
            position
        }),
        Selection::Keys(keys) => keys.first().cloned(),
        Selection::Ranges(ranges) if is_reversed => {
            ranges.first().and_then(|range| range.end.clone())
        }
        Selection::Ranges(ranges) => ranges.first().map(|range| range.start.clone()),
    }
}
