//! Runs `BEGIN TRANSACTION … COMMIT TRANSACTION`: one transaction of the inner language, begun again when it has
//! lost a conflict. The rows that LET names are read first, then the result, then the conditions decide; what they
//! let pass is written and committed together.

use super::rows::{EncodedRows, encoded_answer, select_answer};
use super::{Execution, Metadata, read, write};
use crate::error::{Error, WriteType};
use crate::plan::term::Term;
use crate::plan::transaction::{Check, ResultPlan, TransactionPlan};
use crate::protocol::request::Parameters;
use crate::types::order::compare;
use api::{Retry, TransactionOptions};
use model::{Timestamp, Value};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

const ATTEMPTS_MAX: u32 = 10;
/// Before the second attempt; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(2);

/// The transaction that a statement's reads belong to.
pub struct Open {
    inner: Mutex<Box<dyn api::Transaction>>,
    has_lost: AtomicBool,
}

impl Open {
    pub async fn read(&self, request: api::ReadRequest) -> Result<api::ReadResponse, api::Error> {
        let response = self.inner.lock().await.read(request).await;
        self.noted(response)
    }

    /// What is written is seen by the statements behind.
    async fn write(&self, mutations: Vec<api::Mutation>) -> Result<(), Error> {
        let written = self.inner.lock().await.write(mutations).await;
        self.noted(written)
            .map_err(|error| Error::from_write(error, WriteType::Cas))
    }

    fn noted<T>(&self, result: Result<T, api::Error>) -> Result<T, api::Error> {
        if let Err(api::Error::Retry(Retry::Aborted(_))) = &result {
            self.has_lost.store(true, Ordering::Relaxed);
        }
        result
    }
}

pub async fn run(execution: &Execution<'_>, plan: &TransactionPlan) -> Result<Vec<u8>, Error> {
    let first_attempt = execution.server.database.now().latest;
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS_MAX {
        let (result, has_lost) = attempt(execution, plan, first_attempt).await;
        if !has_lost {
            return result;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    attempt(execution, plan, first_attempt).await.0
}

/// One attempt, and whether it failed for a conflict.
async fn attempt(
    execution: &Execution<'_>,
    plan: &TransactionPlan,
    first_attempt: Timestamp,
) -> (Result<Vec<u8>, Error>, bool) {
    let options = TransactionOptions {
        first_attempt: Some(first_attempt),
        ..Default::default()
    };
    let inner = match execution.server.database.begin(options).await {
        Ok(inner) => inner,
        Err(error) => return (Err(Error::from_write(error, WriteType::Cas)), false),
    };
    let open = Open {
        inner: Mutex::new(inner),
        has_lost: AtomicBool::new(false),
    };
    // A transaction's result is one answer.
    let parameters = Parameters {
        page_size: None,
        paging_state: None,
        ..execution.parameters.clone()
    };
    let within = Execution {
        parameters: &parameters,
        transaction: Some(&open),
        ..*execution
    };
    let result = body(&within, &open, plan).await;
    let result = match result {
        Ok(answer) => {
            let committed = open.inner.into_inner().commit(Vec::new()).await;
            if let Err(api::Error::Retry(Retry::Aborted(_))) = &committed {
                open.has_lost.store(true, Ordering::Relaxed);
            }
            committed
                .map(|_| answer)
                .map_err(|error| Error::from_write(error, WriteType::Cas))
        }
        Err(error) => {
            open.inner.into_inner().rollback().await;
            Err(error)
        }
    };
    let has_lost = result.is_err() && open.has_lost.load(Ordering::Relaxed);
    (result, has_lost)
}

/// Everything but the commit.
async fn body(
    execution: &Execution<'_>,
    open: &Open,
    plan: &TransactionPlan,
) -> Result<Vec<u8>, Error> {
    let mut rows = Vec::with_capacity(plan.lets.len());
    for select in &plan.lets {
        let (found, _) = read::rows(execution, select).await?;
        if found.count > 1 {
            return Err(Error::invalid(
                "a SELECT in a LET assignment has found more than one row",
            ));
        }
        rows.push(cells(&found, select.metadata.columns.len()));
    }
    let references = plan.references.iter().map(|reference| {
        let row = rows[reference.row].as_ref();
        row.and_then(|cells| cells[reference.column].clone())
    });
    let references: Vec<Option<Vec<u8>>> = references.collect();
    let values = execution.values.followed_by(plan.markers, &references)?;
    let execution = Execution {
        values: &values,
        ..*execution
    };
    let answer = match &plan.result {
        None => execution.reply.void(&[]),
        Some(ResultPlan::Select(select)) => {
            let (found, _) = read::rows(&execution, select).await?;
            select_answer(&execution, select, &found, None, Metadata::default())
        }
        Some(ResultPlan::References(metadata, positions)) => {
            let mut row = EncodedRows {
                bytes: Vec::new(),
                count: 1,
                warnings: Vec::new(),
            };
            for position in positions {
                values.put(*position, &mut row.bytes);
            }
            encoded_answer(&execution, metadata, &row)
        }
    };
    for check in &plan.checks {
        if !holds(check, &rows, &execution)? {
            return Ok(answer);
        }
    }
    for statement in &plan.statements {
        let lowered = write::lower(&execution, statement, &execution.context()).await?;
        open.write(lowered.mutations).await?;
    }
    Ok(answer)
}

/// The one row's cells as they are encoded; `None` without a row.
fn cells(rows: &EncodedRows, width: usize) -> Option<Vec<Option<Vec<u8>>>> {
    if rows.count == 0 {
        return None;
    }
    let mut rest = rows.bytes.as_slice();
    let cells = (0..width).map(|_| {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        rest = behind;
        let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
        let (cell, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some(cell.to_vec())
    });
    Some(cells.collect())
}

fn holds(
    check: &Check,
    rows: &[Option<Vec<Option<Vec<u8>>>>],
    execution: &Execution<'_>,
) -> Result<bool, Error> {
    let context = execution.context();
    let value = |term: &Term| -> Result<Value, Error> {
        term.evaluate(&context)?
            .ok_or_else(|| Error::invalid("Invalid unset value for a condition"))
    };
    match check {
        Check::Row { row, is_null } => Ok(rows[*row].is_none() == *is_null),
        Check::Term { term, is_null } => Ok(value(term)?.is_null() == *is_null),
        Check::Compare {
            left,
            operator,
            right,
            kind,
        } => {
            use crate::grammar::ast::Operator;
            let (left, right) = (value(left)?, value(right)?);
            if left.is_null() || right.is_null() {
                return Ok(false);
            }
            let ordering = compare(&left, &right, kind);
            Ok(match operator {
                Operator::Equal => ordering.is_eq(),
                Operator::NotEqual => ordering.is_ne(),
                Operator::Less => ordering.is_lt(),
                Operator::LessOrEqual => ordering.is_le(),
                Operator::Greater => ordering.is_gt(),
                Operator::GreaterOrEqual => ordering.is_ge(),
                other => {
                    return Err(Error::invalid(format!(
                        "conditions of a transaction cannot use {other}"
                    )));
                }
            })
        }
    }
}
