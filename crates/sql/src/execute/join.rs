//! What brings two inputs together: joins, INTERSECT and EXCEPT, rows with the elements of their arrays.
//!
//! The right side is held in memory, by its keys; the left side streams past it. Without keys all rows have the
//! same, the empty one.

use super::{Operator, OrderedRow, PAGE_ROWS, State, Storage, not_empty};
use crate::ast::JoinKind;
use crate::error::Error;
use crate::plan::{Join, Relation, Row, SetOperation};
use crate::typed::{Expression, Scope};
use crate::value::{self, Compared};
use model::Value;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) struct JoinState {
    join: Join,
    left: Operator,
    /// Until it has been read.
    right: Option<Operator>,
    rows: Vec<Row>,
    by_key: BTreeMap<OrderedRow, Vec<usize>>,
    has_partner: Vec<bool>,
    /// Left rows that have been read and not yet looked at.
    ahead: VecDeque<Row>,
    is_left_done: bool,
    /// Right rows without a partner are told from here on.
    told: usize,
}

impl JoinState {
    pub fn new(mut join: Join) -> JoinState {
        let take = |relation: &mut Relation| {
            Operator::of(std::mem::replace(relation, Relation::Rows(Vec::new())))
        };
        JoinState {
            left: take(&mut join.left),
            right: Some(take(&mut join.right)),
            join,
            rows: Vec::new(),
            by_key: BTreeMap::new(),
            has_partner: Vec::new(),
            ahead: VecDeque::new(),
            is_left_done: false,
            told: 0,
        }
    }

    pub async fn next(
        &mut self,
        state: &mut State,
        storage: &mut dyn Storage,
    ) -> Result<Option<Vec<Row>>, Error> {
        if let Some(right) = self.right.take() {
            self.build(right, state, storage).await?;
        }
        let mut out = Vec::new();
        while !self.is_left_done && out.len() < PAGE_ROWS as usize {
            match self.ahead.pop_front() {
                Some(row) => self.probe(row, state, &mut out)?,
                None => match self.left.next(state, storage).await? {
                    Some(batch) => self.ahead.extend(batch),
                    None => self.is_left_done = true,
                },
            }
        }
        if self.is_left_done && matches!(self.join.kind, JoinKind::Right | JoinKind::Full) {
            while self.told < self.rows.len() && out.len() < PAGE_ROWS as usize {
                if !self.has_partner[self.told] {
                    let mut row = vec![Value::Null; self.join.left_width];
                    row.extend(self.rows[self.told].iter().cloned());
                    out.push(row);
                }
                self.told += 1;
            }
        }
        Ok(not_empty(out))
    }

    async fn build(
        &mut self,
        mut right: Operator,
        state: &mut State,
        storage: &mut dyn Storage,
    ) -> Result<(), Error> {
        while let Some(batch) = right.next(state, storage).await? {
            for row in batch {
                state.memory.hold(&row)?;
                let keys = self.join.keys.iter().map(|(_, right)| right);
                if let Some(key) = key(keys, &row, state)? {
                    state.memory.hold(&key.0)?;
                    let indexes = self.by_key.entry(key).or_default();
                    indexes.push(self.rows.len());
                }
                self.rows.push(row);
            }
        }
        self.has_partner = vec![false; self.rows.len()];
        Ok(())
    }

    /// The pairs of a left row.
    fn probe(&mut self, left: Row, state: &State, out: &mut Vec<Row>) -> Result<(), Error> {
        let keys = self.join.keys.iter().map(|(left, _)| left);
        let found = key(keys, &left, state)?.and_then(|key| self.by_key.get(&key));
        let candidates = found.map_or(&[] as &[usize], Vec::as_slice);
        let mut is_alone = true;
        for index in candidates {
            let mut row = left.clone();
            row.extend(self.rows[*index].iter().cloned());
            let scope = Scope {
                row: &row,
                slots: &state.slots,
            };
            if let Some(condition) = &self.join.condition
                && !condition.holds(scope)?
            {
                continue;
            }
            is_alone = false;
            self.has_partner[*index] = true;
            out.push(row);
        }
        if is_alone && matches!(self.join.kind, JoinKind::Left | JoinKind::Full) {
            let mut row = left;
            row.resize(row.len() + self.join.right_width, Value::Null);
            out.push(row);
        }
        Ok(())
    }
}

/// What a row is found by; `None` when it equals nothing, as NULL and NaN do not even equal themselves.
fn key<'e>(
    expressions: impl Iterator<Item = &'e Expression>,
    row: &Row,
    state: &State,
) -> Result<Option<OrderedRow>, Error> {
    let scope = Scope {
        row,
        slots: &state.slots,
    };
    let mut values = Vec::new();
    for expression in expressions {
        let value = expression.evaluate(scope)?;
        if value::compare(&value, &value) != Compared::As(Ordering::Equal) {
            return Ok(None);
        }
        values.push(value);
    }
    Ok(Some(OrderedRow(values)))
}

pub(super) struct SetState {
    operation: SetOperation,
    distinct: bool,
    left: Operator,
    /// Until it has been read.
    right: Option<Operator>,
    /// How often the right side has each row.
    counts: BTreeMap<OrderedRow, u64>,
    seen: BTreeSet<OrderedRow>,
}

impl SetState {
    pub fn new(
        operation: SetOperation,
        distinct: bool,
        left: Operator,
        right: Operator,
    ) -> SetState {
        SetState {
            operation,
            distinct,
            left,
            right: Some(right),
            counts: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    pub async fn next(
        &mut self,
        state: &mut State,
        storage: &mut dyn Storage,
    ) -> Result<Option<Vec<Row>>, Error> {
        if let Some(mut right) = self.right.take() {
            while let Some(batch) = right.next(state, storage).await? {
                for row in batch {
                    state.memory.hold(&row)?;
                    *self.counts.entry(OrderedRow(row)).or_default() += 1;
                }
            }
        }
        while let Some(batch) = self.left.next(state, storage).await? {
            let mut kept = Vec::new();
            for row in batch {
                if self.keeps(&row, state)? {
                    kept.push(row);
                }
            }
            if !kept.is_empty() {
                return Ok(Some(kept));
            }
        }
        Ok(None)
    }

    fn keeps(&mut self, row: &Row, state: &mut State) -> Result<bool, Error> {
        let row = OrderedRow(row.clone());
        let count = self.counts.get_mut(&row);
        let wants_match = self.operation == SetOperation::Intersect;
        if !self.distinct {
            // ALL: each row of the right side answers for one of the left.
            let matches = count.is_some_and(|count| {
                let is_left = *count > 0;
                *count = count.saturating_sub(1);
                is_left
            });
            return Ok(matches == wants_match);
        }
        if count.is_some() != wants_match || self.seen.contains(&row) {
            return Ok(false);
        }
        state.memory.hold(&row.0)?;
        self.seen.insert(row);
        Ok(true)
    }
}

/// Rows with each element of an array made of them.
pub(super) struct FlattenState {
    pub input: Operator,
    pub array: Expression,
    pub with_offset: bool,
    /// A row without elements stays, with NULLs.
    pub keeps_all: bool,
}

impl FlattenState {
    pub async fn next(
        &mut self,
        state: &mut State,
        storage: &mut dyn Storage,
    ) -> Result<Option<Vec<Row>>, Error> {
        while let Some(batch) = self.input.next(state, storage).await? {
            let mut rows = Vec::new();
            for row in batch {
                self.flatten(row, state, &mut rows)?;
            }
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }

    fn flatten(&self, mut row: Row, state: &State, out: &mut Vec<Row>) -> Result<(), Error> {
        let scope = Scope {
            row: &row,
            slots: &state.slots,
        };
        let items = match self.array.evaluate(scope)? {
            Value::List(items) => items,
            _ => Vec::new(),
        };
        if items.is_empty() && self.keeps_all {
            let width = 1 + usize::from(self.with_offset);
            row.resize(row.len() + width, Value::Null);
            out.push(row);
            return Ok(());
        }
        for (index, item) in items.into_iter().enumerate() {
            let mut row = row.clone();
            row.push(item);
            if self.with_offset {
                row.push(Value::Int(index as i64));
            }
            out.push(row);
        }
        Ok(())
    }
}
