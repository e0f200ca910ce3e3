//! TRUNCATE: every partition is deleted, one after the other, as of the moment it began. Not atomic: a reader may
//! see some partitions gone and others not yet. What is written meanwhile stays.

use super::Execution;
use crate::error::{Error, WriteType};
use crate::grammar::ast::TableName;
use crate::plan::Planner;
use api::{
    Atomicity, Direction, KeyRange, Level, Mutation, Projection, ReadBound, ReadRequest,
    RowOperation, Selection, WriteRequest,
};
use catalog::ColumnRole;
use model::ColumnId;
use std::collections::BTreeSet;

/// Partitions deleted by one write.
const PARTITIONS_PER_WRITE: usize = 200;
const ROWS_PER_READ: u32 = 10_000;

pub async fn truncate(execution: &Execution<'_>, name: &TableName) -> Result<Vec<u8>, Error> {
    let database = &execution.server.database;
    let catalog = database.catalog();
    let keyspace = execution.connection.keyspace();
    let mut planner = Planner::without_markers(&catalog, keyspace.as_deref());
    let view = planner.view(name)?;
    let table = view.stored()?.clone();
    let timestamp = (!table.is_strong()).then_some(execution.now);
    // Keys are enough, but for headers, which are only there by their cells.
    let statics: Vec<ColumnId> = table
        .columns()
        .iter()
        .filter(|column| column.role == ColumnRole::Static)
        .map(|column| column.id)
        .collect();
    let mut next = Some(Selection::Ranges(vec![KeyRange::all()]));
    let mut partitions: BTreeSet<Vec<u8>> = BTreeSet::new();
    while let Some(selection) = next.take() {
        let response = database
            .read(ReadRequest {
                direction: Direction::Forward,
                projection: Projection::Columns(statics.clone()),
                row_limit: Some(ROWS_PER_READ),
                headers: view.has_statics(),
                bound: ReadBound::Level(Level::Default),
                ..ReadRequest::new(table.id, selection)
            })
            .await
            .map_err(Error::from_read)?;
        next = response.next;
        for row in response.rows {
            let header = table.header_of(&row.key).unwrap_or(row.key);
            partitions.insert(header);
        }
        while partitions.len() >= PARTITIONS_PER_WRITE || (next.is_none() && !partitions.is_empty())
        {
            let mut mutations = Vec::new();
            while mutations.len() < PARTITIONS_PER_WRITE
                && let Some(header) = partitions.pop_first()
            {
                mutations.push(Mutation::new(table.id, header, RowOperation::Delete));
            }
            let request = WriteRequest {
                atomicity: Atomicity::Each,
                timestamp,
                ..WriteRequest::new(mutations)
            };
            database
                .write(request)
                .await
                .map_err(|error| Error::from_write(error, WriteType::Simple))?;
        }
    }
    Ok(execution.reply.void(&[]))
}
