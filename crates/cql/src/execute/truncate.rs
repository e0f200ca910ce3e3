//! TRUNCATE: one change of the catalog, which gives the table a new id and with it new tablets. So it is all or nothing,
//! takes what no level would reach (a node that is away, hints, batches that wait, rows written ahead of the clock),
//! and needs no replica but the meta group's majority. What is written meanwhile may go with the rest.

use super::Execution;
use crate::error::Error;
use crate::grammar::ast::TableName;
use crate::plan::Planner;
use catalog::Change;

pub async fn truncate(execution: &Execution<'_>, name: &TableName) -> Result<Vec<u8>, Error> {
    let database = &execution.server.database;
    let catalog = database.catalog();
    let keyspace = execution.connection.keyspace();
    let mut planner = Planner::without_markers(&catalog, keyspace.as_deref());
    let view = planner.view(name)?;
    let table = view.stored()?.id;
    database
        .change_catalog(Change::TruncateTable { table })
        .await
        .map_err(|error| Error::from_truncate(error, catalog.version))?;
    Ok(execution.reply.void(&[]))
}
