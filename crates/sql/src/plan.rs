//! What the analyser makes and the executor runs: a tree of relations with typed expressions, no names left.

use crate::ast::{JoinKind, OnConflict};
use crate::typed::Expression;
use crate::types::SqlType;
use api::{Direction, Selection};
use catalog::Table;
use model::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A row of values, by position.
pub type Row = Vec<Value>;

#[derive(Clone, Debug, PartialEq)]
pub struct OutputColumn {
    pub name: String,
    pub kind: SqlType,
}

/// A query, ready to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The statement, for the places that errors name.
    pub text: Arc<str>,
    pub columns: Vec<OutputColumn>,
    pub root: Relation,
    /// Run first, in this order; each result is a slot of everything after it.
    pub subqueries: Vec<Subquery>,
    /// Whether it says FOR UPDATE anywhere, which only a read-write transaction may.
    pub for_update: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// Where its result goes.
    pub slot: usize,
    pub form: SubqueryForm,
    pub root: Relation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubqueryForm {
    /// Whether there is a row.
    Exists,
    /// The one value of the one row; NULL without a row.
    Scalar,
    /// The values of the one column.
    Array,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Relation {
    /// Rows that analysis knows already: none, one empty row, INFORMATION_SCHEMA.
    Rows(Vec<Row>),
    /// One row per list of expressions, which see no columns.
    Values(Vec<Vec<Expression>>),
    Scan(Scan),
    /// One row per element, with its index if asked.
    Unnest {
        array: Expression,
        with_offset: bool,
    },
    Filter {
        input: Box<Relation>,
        predicate: Expression,
    },
    Project {
        input: Box<Relation>,
        expressions: Vec<Expression>,
    },
    /// Rows are the keys, then the aggregates. Without keys there is always one row.
    Aggregate {
        input: Box<Relation>,
        keys: Vec<Expression>,
        aggregates: Vec<Aggregate>,
    },
    Distinct {
        input: Box<Relation>,
    },
    Sort {
        input: Box<Relation>,
        keys: Vec<SortKey>,
        /// Rows behind this many are not needed.
        keep: Option<usize>,
    },
    Limit {
        input: Box<Relation>,
        count: Option<u64>,
        offset: u64,
    },
    /// The first columns only.
    Trim {
        input: Box<Relation>,
        width: usize,
    },
    UnionAll(Vec<Relation>),
    /// INTERSECT and EXCEPT.
    Set {
        operation: SetOperation,
        distinct: bool,
        left: Box<Relation>,
        right: Box<Relation>,
    },
    Join(Box<Join>),
    /// Each row of the input with each element of an array that is made of it, and the element's index if asked.
    Flatten {
        input: Box<Relation>,
        array: Expression,
        with_offset: bool,
        /// A row without elements stays, with NULLs.
        keeps_all: bool,
    },
    /// Each row of the input, with the results of subqueries about it behind its own values.
    Apply {
        input: Box<Relation>,
        applied: Vec<Applied>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOperation {
    Intersect,
    Except,
}

/// Rows of both sides, those of the right behind those of the left.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    pub kind: JoinKind,
    pub left: Relation,
    pub right: Relation,
    pub left_width: usize,
    pub right_width: usize,
    /// What must be equal: an expression over the left row, and one over the right.
    pub keys: Vec<(Expression, Expression)>,
    /// What else must hold, over both.
    pub condition: Option<Expression>,
}

/// A correlated subquery.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The slots that it reads, and the columns of the row that go there.
    pub parameters: Vec<(usize, usize)>,
    pub form: SubqueryForm,
    pub root: Relation,
}

impl Relation {
    pub fn inputs_mut(&mut self) -> Vec<&mut Relation> {
        match self {
            Relation::Rows(_) | Relation::Values(_) | Relation::Scan(_) => Vec::new(),
            Relation::Unnest { .. } => Vec::new(),
            Relation::Filter { input, .. }
            | Relation::Project { input, .. }
            | Relation::Aggregate { input, .. }
            | Relation::Distinct { input }
            | Relation::Sort { input, .. }
            | Relation::Limit { input, .. }
            | Relation::Trim { input, .. }
            | Relation::Flatten { input, .. } => vec![input],
            Relation::UnionAll(inputs) => inputs.iter_mut().collect(),
            Relation::Set { left, right, .. } => vec![left, right],
            Relation::Join(join) => vec![&mut join.left, &mut join.right],
            Relation::Apply { input, applied } => {
                let roots = applied.iter_mut().map(|applied| &mut applied.root);
                std::iter::once(input.as_mut()).chain(roots).collect()
            }
        }
    }

    /// The expressions of this relation itself.
    pub fn expressions_mut(&mut self) -> Vec<&mut Expression> {
        match self {
            Relation::Values(rows) => rows.iter_mut().flatten().collect(),
            Relation::Unnest { array, .. } | Relation::Flatten { array, .. } => vec![array],
            Relation::Filter { predicate, .. } => vec![predicate],
            Relation::Project { expressions, .. } => expressions.iter_mut().collect(),
            Relation::Aggregate {
                keys, aggregates, ..
            } => {
                let arguments = aggregates.iter_mut().flat_map(|aggregate| {
                    aggregate
                        .argument
                        .iter_mut()
                        .chain(&mut aggregate.delimiter)
                });
                keys.iter_mut().chain(arguments).collect()
            }
            Relation::Join(join) => {
                let keys = join.keys.iter_mut();
                let keys = keys.flat_map(|(left, right)| [left, right]);
                keys.chain(&mut join.condition).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The scan whose rows are all there is to the relation, each by itself: parts of the scan yield parts of the
    /// answer.
    fn partitionable(&mut self) -> Option<&mut Scan> {
        match self {
            Relation::Scan(scan) if scan.row_limit.is_none() => Some(scan),
            Relation::Filter { input, .. }
            | Relation::Project { input, .. }
            | Relation::Trim { input, .. } => input.partitionable(),
            _ => None,
        }
    }
}

impl Plan {
    /// What to narrow for a part of the answer; `None` if the query has no such parts.
    pub fn partitionable(&mut self) -> Option<&mut Scan> {
        match self.subqueries.is_empty() {
            true => self.root.partitionable(),
            false => None,
        }
    }
}

/// Rows of one table, by key or by key range.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    pub table: Arc<Table>,
    /// Indexes into the table's columns: what a row holds.
    pub columns: Vec<usize>,
    /// Which of the table's columns are looked at, where not all that a row holds are: the others are null.
    pub looked_at: Option<BTreeSet<usize>>,
    pub selection: Selection,
    pub direction: Direction,
    /// No more rows than this are needed.
    pub row_limit: Option<u64>,
    /// What is looked at is kept from others as if it were to be written: FOR UPDATE.
    pub for_update: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// `None` for COUNT(*).
    pub argument: Option<Expression>,
    /// STRING_AGG's delimiter.
    pub delimiter: Option<Expression>,
    pub distinct: bool,
    pub kind: SqlType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateFunction {
    Count,
    CountIf,
    Sum,
    Average,
    Minimum,
    Maximum,
    AnyValue,
    ArrayAgg,
    StringAgg,
    LogicalAnd,
    LogicalOr,
}

// ---- data manipulation ----

#[derive(Clone, Debug, PartialEq)]
pub struct Manipulation {
    /// The statement, for the places that errors name.
    pub text: Arc<str>,
    pub table: Arc<Table>,
    pub action: Action,
    pub returning: Option<Returning>,
    pub subqueries: Vec<Subquery>,
}

impl Manipulation {
    /// Whether analysis has found already that there are no rows to change.
    pub fn is_void(&self) -> bool {
        match &self.action {
            Action::Update { rows, .. } | Action::Delete { rows } => {
                matches!(rows, Relation::Rows(rows) if rows.is_empty())
            }
            Action::Insert { .. } => false,
        }
    }

    /// What to narrow to change a part of the rows; `None` if what becomes of a row may depend on others.
    pub fn partitionable(&mut self) -> Option<&mut Scan> {
        match &mut self.action {
            Action::Update { rows, .. } | Action::Delete { rows } if self.subqueries.is_empty() => {
                rows.partitionable()
            }
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Insert {
        conflict: OnConflict,
        /// Indexes into the table's columns.
        columns: Vec<usize>,
        source: InsertSource,
    },
    Update {
        /// Rows are all columns of the table, in its order.
        rows: Relation,
        assignments: Vec<(usize, CellExpression)>,
    },
    Delete {
        /// Rows are all columns of the table, in its order.
        rows: Relation,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum InsertSource {
    Values(Vec<Vec<CellExpression>>),
    /// Rows have the columns of the insert.
    Query(Relation),
}

#[derive(Clone, Debug, PartialEq)]
pub enum CellExpression {
    Value(Expression),
    /// PENDING_COMMIT_TIMESTAMP().
    CommitTimestamp,
}

/// THEN RETURN: expressions over all columns of the table, in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct Returning {
    pub columns: Vec<OutputColumn>,
    pub expressions: Vec<Expression>,
    /// The last output column names the action.
    pub with_action: bool,
}
