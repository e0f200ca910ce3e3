//! Building the ROWS answer.

use super::{Execution, Metadata};
use crate::plan::select::SelectPlan;
use crate::protocol::response::{ColumnSpec, MetadataOptions, ResultKind, RowsMetadata};
use crate::protocol::{Version, frame, wire};
use crate::types::wire::put_value;
use model::{Type, Value};

/// Rows on their way into an answer: encoded one behind the other.
#[derive(Default)]
pub struct EncodedRows {
    pub bytes: Vec<u8>,
    pub count: u32,
    pub warnings: Vec<String>,
}

/// The answer to a SELECT.
pub fn select_answer(
    execution: &Execution<'_>,
    plan: &SelectPlan,
    rows: &EncodedRows,
    paging_state: Option<&[u8]>,
    metadata: Metadata<'_>,
) -> Vec<u8> {
    let reply = execution.reply;
    let mut options = MetadataOptions {
        skip: metadata.skip,
        paging_state,
        changed_id: None,
    };
    if reply.version >= Version::V5
        && let Some(known) = metadata.known_id
        && known != plan.metadata_id
    {
        options.changed_id = Some(&plan.metadata_id);
    }
    let capacity = rows.bytes.len() + if options.skip { 64 } else { 512 };
    let mut out = reply.result(ResultKind::Rows, &rows.warnings, capacity);
    plan.metadata.encode(reply.version, options, &mut out);
    wire::put_int(&mut out, rows.count as i32);
    out.extend_from_slice(&rows.bytes);
    frame::finish(&mut out);
    out
}

/// An answer of rows that are encoded already.
pub fn encoded_answer(
    execution: &Execution<'_>,
    metadata: &RowsMetadata,
    rows: &EncodedRows,
) -> Vec<u8> {
    let reply = execution.reply;
    let mut out = reply.result(ResultKind::Rows, &rows.warnings, rows.bytes.len() + 256);
    metadata.encode(reply.version, MetadataOptions::default(), &mut out);
    wire::put_int(&mut out, rows.count as i32);
    out.extend_from_slice(&rows.bytes);
    frame::finish(&mut out);
    out
}

/// An answer of a few computed rows.
pub fn computed_answer(
    execution: &Execution<'_>,
    keyspace: &str,
    table: &str,
    columns: Vec<(&str, Type)>,
    rows: &[Vec<Value>],
) -> Vec<u8> {
    let reply = execution.reply;
    let metadata = RowsMetadata {
        keyspace: keyspace.to_owned(),
        table: table.to_owned(),
        columns: columns
            .into_iter()
            .map(|(name, kind)| ColumnSpec {
                name: name.to_owned(),
                kind,
            })
            .collect(),
    };
    let mut out = reply.result(ResultKind::Rows, &[], 256);
    metadata.encode(reply.version, MetadataOptions::default(), &mut out);
    wire::put_length(&mut out, rows.len());
    for row in rows {
        for (value, column) in row.iter().zip(&metadata.columns) {
            put_value(value, &column.kind, &mut out);
        }
    }
    frame::finish(&mut out);
    out
}
