//! Partitioned DML: an UPDATE or DELETE of any number of rows, a thousand of them in a transaction at a time.
//!
//! The keys are read page by page, and each page is a transaction of its own that looks at its rows again: so a
//! row is changed as the statement says as long as it still matches, at least once, and a statement that ends
//! early has changed some rows and not others. That is what clients of partitioned DML sign up to. A part whose
//! outcome is unknown is therefore simply done again.

use crate::Door;
use crate::status::{of_api, of_sql};
use crate::transactions::TransactionStorage;
use api::{Projection, ReadRequest, Selection, TransactionOptions};
use model::Timestamp;
use sql::Manipulation;
use std::time::Duration;
use tonic::{Code, Status};

const PART_ROWS: u32 = 1_000;
const ATTEMPTS_MAX: u32 = 10;
/// Before the second attempt at a part; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(5);

/// Returns how many rows were changed at least.
pub async fn execute(door: &Door, mut manipulation: Manipulation) -> Result<i64, Status> {
    if manipulation.returning.is_some() {
        return Err(Status::invalid_argument(
            "Partitioned DML does not support THEN RETURN.",
        ));
    }
    if manipulation.is_void() {
        return Ok(0);
    }
    let scan = manipulation.partitionable().ok_or_else(|| {
        Status::invalid_argument(
            "Partitioned DML is for UPDATE and DELETE statements whose rows do not depend on each other.",
        )
    })?;
    let table = scan.table.id;
    let mut rest = Some(scan.selection.clone());
    let mut row_count = 0;
    while let Some(selection) = rest.take() {
        let mut read = ReadRequest::new(table, selection);
        read.projection = Projection::Columns(Vec::new());
        read.row_limit = Some(PART_ROWS);
        let page = door.database.read(read).await.map_err(of_api)?;
        rest = page.next;
        let keys: Vec<Vec<u8>> = page.rows.into_iter().map(|row| row.key).collect();
        if keys.is_empty() {
            continue;
        }
        let mut part = manipulation.clone();
        if let Some(scan) = part.partitionable() {
            scan.selection = Selection::Keys(keys);
        }
        row_count += execute_part(door, &part).await?;
    }
    Ok(row_count)
}

async fn execute_part(door: &Door, part: &Manipulation) -> Result<i64, Status> {
    let first_attempt = door.database.now().latest;
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS_MAX {
        match attempt(door, part.clone(), first_attempt).await {
            Err(status)
                if matches!(
                    status.code(),
                    Code::Aborted | Code::Unavailable | Code::Unknown
                ) =>
            {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            result => return result,
        }
    }
    attempt(door, part.clone(), first_attempt).await
}

async fn attempt(door: &Door, part: Manipulation, first_attempt: Timestamp) -> Result<i64, Status> {
    let options = TransactionOptions {
        first_attempt: Some(first_attempt),
        ..Default::default()
    };
    let mut inner = door.database.begin(options).await.map_err(of_api)?;
    let catalog = door.database.catalog();
    let mut storage = TransactionStorage(&mut inner);
    let effect = sql::execute_manipulation(part, &catalog, &mut storage)
        .await
        .map_err(of_sql)?;
    inner.commit(Vec::new()).await.map_err(of_api)?;
    Ok(effect.row_count)
}
