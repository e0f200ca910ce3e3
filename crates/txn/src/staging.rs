//! Evaluation of a tablet's write: the rows that it needs are read first; then, with its commit timestamp
//! known, its mutations are evaluated one after the other, each on what the one before it left.

use crate::command::{Stamp, WriteEncoder};
use crate::latches::Spans;
use crate::versions::View;
use api::evaluate::{Evaluated, Moment, evaluate};
use api::{
    Assignment, Atomicity, ColumnSet, Direction, Error, KeyRange, Mutation, ReadAssertion, Refused,
    Retry, ReturnedRows, Returning, RowOperation,
};
use catalog::{Catalog, Partitioning, Table};
use model::key::{CHILD, HEADER};
use model::{ColumnId, Row, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Rows that one write may delete by ranges.
const DOOMED_ROWS_MAX: usize = 100_000;
/// A command's size.
const COMMAND_BYTES_MAX: usize = 16 << 20;

/// A mutation with what it takes to evaluate it.
struct Step<'a> {
    mutation: &'a Mutation,
    table: Arc<Table>,
    /// Deletes all rows of its table here, and the one under its key.
    doomed: Option<KeyRange>,
    /// The row that must be there for this one.
    parent: Option<Vec<u8>>,
    /// Where the rows interleaved in its row are, if its table has children.
    children: Option<KeyRange>,
}

pub(crate) struct Staging<'a> {
    steps: Vec<Step<'a>>,
    assertions: &'a [ReadAssertion],
    atomicity: Atomicity,
    /// Tables interleaved in one of the tables written.
    children: Vec<Arc<Table>>,
    /// Rows as they are after the steps done so far.
    rows: BTreeMap<Vec<u8>, Option<Row>>,
    changed: BTreeSet<Vec<u8>>,
}

/// What a write comes to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub returned: Vec<ReturnedRows>,
    /// `Atomicity::Each`: the first mutation that was refused.
    pub refused: Option<Error>,
}

impl<'a> Staging<'a> {
    pub fn new(
        catalog: &Catalog,
        mutations: &'a [Mutation],
        assertions: &'a [ReadAssertion],
        atomicity: Atomicity,
    ) -> Result<Staging<'a>, Error> {
        let mut steps = Vec::with_capacity(mutations.len());
        let mut children: Vec<Arc<Table>> = Vec::new();
        for mutation in mutations {
            let table = catalog
                .table(mutation.table)
                .ok_or_else(|| Error::Refused(Refused::NoTable(mutation.table.to_string())))?;
            if mutation.timestamp.is_some() {
                return Err(Error::invalid(
                    "a strong table takes its timestamps from the clock",
                ));
            }
            let step = Step::new(catalog, table, mutation);
            if step.children.is_some() && children.is_empty() {
                let root = table.root;
                let tables = catalog.tables.values();
                children.extend(tables.filter(|it| it.root == root).cloned());
            }
            steps.push(step);
        }
        Ok(Staging {
            steps,
            assertions,
            atomicity,
            children,
            rows: BTreeMap::new(),
            changed: BTreeSet::new(),
        })
    }

    /// Whether one of the tables promises the order of real time.
    pub fn is_external(&self) -> bool {
        self.steps
            .iter()
            .any(|step| step.table.spec.replication.ordering == catalog::Ordering::External)
    }

    /// Whether a table of these takes no writes any more, or is gone.
    pub fn is_sealed(&self, catalog: &Catalog) -> bool {
        let mut last = None;
        self.steps.iter().any(|step| {
            let id = step.table.id;
            // Mostly all are of one table.
            let is_next = last.replace(id) != Some(id);
            is_next && catalog.table(id).is_none_or(|table| table.is_sealed())
        })
    }

    pub fn spans(&self) -> Spans {
        let mut spans = Spans::default();
        for step in &self.steps {
            let written = ColumnSet::written_by(&step.mutation.operation);
            let point = (step.mutation.key.clone(), written);
            match (&step.doomed, &step.children) {
                (Some(range), _) => {
                    spans.ranges.push((range.clone(), ColumnSet::ALL));
                    spans.points.push(point);
                }
                (None, Some(children)) => {
                    spans.points.push(point);
                    if step.deletes() {
                        spans.ranges.push((children.clone(), ColumnSet::ALL));
                    }
                }
                (None, None) => spans.points.push(point),
            }
            // The parent's row must not go away meanwhile. Its own changes do not matter.
            if let Some(parent) = &step.parent {
                spans.shared.push((row_range(parent), ColumnSet::EXISTENCE));
            }
        }
        spans
            .points
            .sort_unstable_by(|one, other| one.0.cmp(&other.0));
        spans.points.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                kept.1 = kept.1.and(later.1);
            }
            is_same
        });
        let assertions = self.assertions.iter();
        spans
            .shared
            .extend(assertions.map(|assertion| (assertion.range.clone(), assertion.columns)));
        spans
    }

    /// Reads what the steps need, under their latches.
    /// `unsure` are the assertions that no lock vouches for.
    pub fn load(
        &mut self,
        catalog: &Catalog,
        view: &View,
        unsure: &[&ReadAssertion],
        now_seconds: i64,
    ) -> Result<(), Error> {
        for assertion in unsure {
            let table = catalog.table(assertion.table);
            let counts = |key: &[u8]| {
                table.is_none_or(|table| table.owns_key(key) || key.last() == Some(&HEADER))
            };
            if view.has_changed(&assertion.range, assertion.timestamp, counts)? {
                return Err(Error::Retry(Retry::Aborted(
                    "a row that was read has changed since".into(),
                )));
            }
        }
        let mut wanted: BTreeSet<&[u8]> = BTreeSet::new();
        let mut ranges: Vec<&KeyRange> = Vec::new();
        for step in &self.steps {
            if step.needs_row() {
                wanted.insert(&step.mutation.key);
            }
            wanted.extend(step.parent.as_deref());
            ranges.extend(&step.doomed);
            if step.deletes() {
                ranges.extend(&step.children);
            }
        }
        let mut loaded = BTreeMap::new();
        for key in wanted {
            let row = match view.get(key)? {
                Some(version) => visible(version.row()?, now_seconds),
                None => None,
            };
            loaded.insert(key.to_vec(), row);
        }
        for range in ranges {
            let mut rest = Some(range.clone());
            while let Some(range) = rest {
                let window = view.window(&range, Direction::Forward, usize::MAX)?;
                for (key, version) in window.rows {
                    loaded.insert(key, visible(version.row()?, now_seconds));
                }
                if loaded.len() > DOOMED_ROWS_MAX {
                    return Err(Error::Refused(Refused::TooLarge(format!(
                        "one write may delete at most {DOOMED_ROWS_MAX} rows by range; delete in smaller ranges"
                    ))));
                }
                rest = window.rest;
            }
        }
        self.rows = loaded;
        Ok(())
    }

    /// Evaluates all steps. Once: the rows loaded are then as the steps left them.
    pub fn evaluate(&mut self, moment: Moment) -> Result<Outcome, Error> {
        let steps = std::mem::take(&mut self.steps);
        let mut outcome = Outcome::default();
        let mut result = Ok(());
        for (index, step) in steps.iter().enumerate() {
            match self.step(step, index as u32, moment) {
                Ok(returned) => outcome.returned.push(returned),
                Err(error) if self.atomicity == Atomicity::Each => {
                    outcome.refused.get_or_insert(error);
                    outcome.returned.push(ReturnedRows::default());
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let wants_rows = steps
            .iter()
            .any(|step| step.mutation.returning != Returning::Nothing);
        if !wants_rows {
            outcome.returned.clear();
        }
        self.steps = steps;
        result.map(|()| outcome)
    }

    fn step(&mut self, step: &Step<'_>, index: u32, moment: Moment) -> Result<ReturnedRows, Error> {
        let mutation = step.mutation;
        if let Some(range) = &step.doomed {
            let keys: Vec<Vec<u8>> = self.keys_in(range);
            for key in keys {
                if step.table.owns_key(&key) {
                    self.delete_row(&step.table, &key)?;
                } else if key == mutation.key {
                    self.put(key, None);
                }
            }
            if mutation.operation == RowOperation::Delete {
                self.put(mutation.key.clone(), None);
            }
            return Ok(ReturnedRows::default());
        }
        if let Some(parent) = &step.parent
            && self.rows.get(parent).is_none_or(Option::is_none)
        {
            return Err(Error::Refused(Refused::RowMissing { mutation: index }));
        }
        let current = self.rows.get(&mutation.key).and_then(Option::as_ref);
        let is_there = current.is_some();
        let Evaluated {
            new,
            is_write,
            returned,
        } = evaluate(&step.table, index, mutation, current, moment)?;
        if is_write {
            if step.deletes() && is_there {
                self.delete_row(&step.table, &mutation.key)?;
            }
            self.put(mutation.key.clone(), new);
        }
        Ok(returned)
    }

    fn put(&mut self, key: Vec<u8>, row: Option<Row>) {
        self.changed.insert(key.clone());
        self.rows.insert(key, row);
    }

    fn keys_in(&self, range: &KeyRange) -> Vec<Vec<u8>> {
        self.rows
            .range(range.start.clone()..)
            .take_while(|(key, _)| range.contains(key))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Deletes a row with the rows interleaved in it.
    fn delete_row(&mut self, table: &Table, key: &[u8]) -> Result<(), Error> {
        if let Some(range) = children_of(table, key) {
            let mut children = self.keys_in(&range);
            children.retain(|child| self.rows.get(child).is_some_and(Option::is_some));
            for child in &children {
                let owner = self.children.iter().find(|table| table.owns_key(child));
                if let Some(owner) = owner
                    && !owner.spec.cascade
                {
                    return Err(Error::invalid(format!(
                        "a row of table {} cannot be deleted: rows of table {}, which is interleaved in it \
                         without cascade, are there",
                        table.name(),
                        owner.name(),
                    )));
                }
            }
            for child in children {
                self.put(child, None);
            }
        }
        self.put(key.to_vec(), None);
        Ok(())
    }

    /// The rows that have changed, into a command; false when there are none.
    pub fn encode(&self, encoder: &mut WriteEncoder) -> Result<bool, Error> {
        for key in &self.changed {
            let row = self.rows.get(key).and_then(Option::as_ref);
            encoder.row(key, row.map(Row::to_bytes).as_deref());
        }
        if encoder.size() > COMMAND_BYTES_MAX {
            return Err(Error::Refused(Refused::TooLarge(format!(
                "an atomic write may come to at most {COMMAND_BYTES_MAX} bytes"
            ))));
        }
        Ok(!self.changed.is_empty())
    }

    /// The columns that hold the commit timestamp itself after all steps.
    pub fn stamps(&self) -> Vec<Stamp> {
        let mut stamps: BTreeMap<&[u8], BTreeSet<ColumnId>> = BTreeMap::new();
        for step in &self.steps {
            let key = step.mutation.key.as_slice();
            let assignments = match &step.mutation.operation {
                RowOperation::Merge { assignments, .. }
                | RowOperation::Insert { assignments }
                | RowOperation::Update { assignments } => assignments.as_slice(),
                RowOperation::Replace { assignments } => {
                    stamps.remove(key);
                    assignments
                }
                RowOperation::Delete => {
                    stamps.remove(key);
                    &[]
                }
                RowOperation::DeleteRange { range } => {
                    stamps.retain(|key, _| !range.contains(key));
                    &[]
                }
                RowOperation::UpdateDocument { .. } | RowOperation::Check => &[],
            };
            for assignment in assignments {
                match assignment {
                    Assignment::SetCommitTimestamp { column } => {
                        stamps.entry(key).or_default().insert(*column);
                    }
                    Assignment::Set { column, .. }
                    | Assignment::Add { column, .. }
                    | Assignment::Remove { column, .. }
                    | Assignment::SetElementAt { column, .. }
                    | Assignment::RemoveElements { column, .. }
                    | Assignment::SetCollection { column, .. } => {
                        if let Some(columns) = stamps.get_mut(key) {
                            columns.remove(column);
                        }
                    }
                }
            }
        }
        stamps
            .into_iter()
            .filter(|(_, columns)| !columns.is_empty())
            .map(|(key, columns)| Stamp {
                key: key.to_vec(),
                columns: columns.into_iter().collect(),
            })
            .collect()
    }

    /// The answer to a write that was applied by an earlier attempt, from the versions around its commit.
    pub fn replay(&self, before: &View, after: &View) -> Result<Vec<ReturnedRows>, Error> {
        let row = |view: &View, key: &[u8]| match view.get(key)? {
            Some(version) => version.row().map(Some),
            None => Ok(None),
        };
        let wants = |step: &Step<'_>| step.mutation.returning != Returning::Nothing;
        if !self.steps.iter().any(wants) {
            return Ok(Vec::new());
        }
        let mut returned = Vec::new();
        for step in &self.steps {
            let mut rows = ReturnedRows::default();
            let key = &step.mutation.key;
            if matches!(step.mutation.returning, Returning::Old | Returning::Both) {
                rows.old = row(before, key)?;
            }
            if matches!(step.mutation.returning, Returning::New | Returning::Both) {
                rows.new = row(after, key)?;
            }
            returned.push(rows);
        }
        Ok(returned)
    }

    /// The keys must lie in the tablet.
    pub fn is_within(&self, range: &KeyRange) -> bool {
        let covers = |inner: &KeyRange| inner.is_empty() || inner.intersection(range) == *inner;
        self.steps.iter().all(|step| {
            range.contains(&step.mutation.key) && step.doomed.as_ref().is_none_or(covers)
        }) && self
            .assertions
            .iter()
            .all(|assertion| covers(&assertion.range))
    }
}

impl<'a> Step<'a> {
    fn new(catalog: &Catalog, table: &Arc<Table>, mutation: &'a Mutation) -> Step<'a> {
        let owns = table.spec.partitioning == Partitioning::Range || table.owns_key(&mutation.key);
        let doomed = match &mutation.operation {
            RowOperation::DeleteRange { range } => Some(with_children(table, range)),
            RowOperation::Delete if !owns && mutation.key.last() == Some(&HEADER) => {
                let mut prefix = mutation.key.clone();
                prefix.pop();
                Some(KeyRange::prefix(prefix))
            }
            _ => None,
        };
        let is_parent = doomed.is_none()
            && catalog
                .tables
                .values()
                .any(|other| other.spec.parent == Some(table.id));
        let needs_parent = table.spec.parent.is_some()
            && doomed.is_none()
            && !matches!(
                mutation.operation,
                RowOperation::Delete | RowOperation::Check
            );
        Step {
            mutation,
            parent: needs_parent
                .then(|| table.parent_key(&mutation.key))
                .flatten(),
            children: is_parent
                .then(|| children_of(table, &mutation.key))
                .flatten(),
            doomed,
            table: table.clone(),
        }
    }

    /// Whether the row under the key, if there is one, goes away.
    fn deletes(&self) -> bool {
        matches!(
            self.mutation.operation,
            RowOperation::Delete | RowOperation::Replace { .. }
        )
    }

    /// Whether evaluation depends on the row that is there.
    fn needs_row(&self) -> bool {
        let is_merge = matches!(self.mutation.operation, RowOperation::Merge { .. });
        is_merge || self.children.is_some() || api::evaluate::needs_read(self.mutation)
    }
}

fn children_of(table: &Table, key: &[u8]) -> Option<KeyRange> {
    if table.spec.partitioning != Partitioning::Range {
        return None;
    }
    let mut prefix = key.to_vec();
    prefix.pop();
    prefix.push(CHILD);
    Some(KeyRange::prefix(prefix))
}

/// A range that ends right behind a row is widened to the rows interleaved in that row.
fn with_children(table: &Table, range: &KeyRange) -> KeyRange {
    let last = range.end.as_deref().and_then(|end| end.strip_suffix(&[0]));
    match last.filter(|last| table.owns_key(last)) {
        Some(last) => KeyRange {
            start: range.start.clone(),
            end: children_of(table, last)
                .map_or_else(|| range.end.clone(), |children| children.end),
        },
        None => range.clone(),
    }
}

fn row_range(key: &[u8]) -> KeyRange {
    KeyRange {
        start: key.to_vec(),
        end: Some(crate::keys::successor(key)),
    }
}

fn visible(mut row: Row, now_seconds: i64) -> Option<Row> {
    row.make_visible(None, now_seconds).then_some(row)
}

pub(crate) fn moment(timestamp: Timestamp, wall_micros: i64) -> Moment {
    Moment {
        timestamp,
        now_seconds: wall_micros.div_euclid(1_000_000),
    }
}
