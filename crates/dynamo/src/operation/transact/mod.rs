//! TransactWriteItems and TransactGetItems: up to a hundred items of any tables, all or none, at one timestamp.
//!
//! A write is one atomic write of the waist, conditions included, so that it costs no more than its tablets'
//! agreement. Only when it is refused are the items read, in one consistent cut, to say of each what was wrong
//! with it: the reasons are those of one moment at which the transaction could not happen. If by that moment
//! nothing is wrong any more, the write is tried again.
//!
//! The service refuses a write that meets another transaction on an item at once. Here it waits for the other
//! to end first, and only one that has waited in vain is refused (`TransactionConflict`); so is a plain
//! write (`TransactionConflictException`).

pub mod get;
mod in_progress;
mod token;
pub mod write;

pub use in_progress::TokensInProgress;

use super::Context;
use crate::capacity::Report;
use crate::error::Failure;
use crate::wire::constraint::Constraints;
use crate::wire::writer::Writer;
use api::{ReadBound, ReadRequest, Selection};
use model::{Row, TableId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

const ITEMS_MAX: usize = 100;
const SIZE_BYTES_MAX: u64 = 4 << 20;

const NOT_ONE_EACH: &str = "TransactItems can only contain one of Check, Put, Update or Delete";

/// An item's place: its table and its key.
type Address = (TableId, Vec<u8>);

fn check_distinct<'a>(addresses: impl Iterator<Item = &'a Address>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for address in addresses {
        if !seen.insert(address) {
            return Err(
                "Transaction request cannot include multiple operations on one item".into(),
            );
        }
    }
    Ok(())
}

fn check_size(size_bytes: u64) -> Result<(), String> {
    if size_bytes > SIZE_BYTES_MAX {
        return Err(
            "Aggregated size of all the items in the transaction cannot exceed 4 MB".into(),
        );
    }
    Ok(())
}

/// The constraints of the list that both operations have. `shown` is what a violation shows of it.
fn check_items<T>(constraints: &mut Constraints, items: Option<&Vec<T>>) {
    constraints.present("transactItems", &items);
    if let Some(items) = items {
        let shown = format!("[{}]", vec!["{...}"; items.len()].join(", "));
        constraints.length("transactItems", items.len(), 1, ITEMS_MAX, &shown);
    }
}

fn check_table_name(constraints: &mut Constraints, path: &str, name: &Option<String>) {
    let path = format!("{path}.tableName");
    constraints.present(&path, name);
    constraints.resource_name(&path, name.as_deref());
}

/// Rows as they all were at one timestamp, which no write that was acknowledged before lies above.
struct Cut {
    at: Timestamp,
    rows: BTreeMap<Address, Row>,
}

impl Cut {
    async fn read<'a>(
        context: &Context<'_>,
        addresses: impl Iterator<Item = &'a Address>,
    ) -> Result<Cut, Failure> {
        let mut by_table: BTreeMap<TableId, Vec<Vec<u8>>> = BTreeMap::new();
        let mut count = 0;
        for (table, key) in addresses {
            by_table.entry(*table).or_default().push(key.clone());
            count += 1;
        }
        let at = context.database.now().latest;
        // One row is a cut by itself, and need not wait for the clock.
        let bound = match count {
            1 => ReadBound::Strong,
            _ => ReadBound::At(at),
        };
        let reads = by_table.into_iter().map(|(table, keys)| async move {
            let mut found = Vec::with_capacity(keys.len());
            let mut next = Some(Selection::Keys(keys));
            while let Some(selection) = next.take() {
                let mut read = ReadRequest::new(table, selection);
                read.bound = bound;
                let response = context.database.read(read).await?;
                let rows = response.rows.into_iter();
                found.extend(rows.map(|row| ((table, row.key), row.row)));
                next = response.next;
            }
            Ok::<_, Failure>(found)
        });
        let mut rows = BTreeMap::new();
        for found in futures::future::join_all(reads).await {
            rows.extend(found?);
        }
        Ok(Cut { at, rows })
    }
}

/// What a transaction has consumed of each table, in the order of the request.
#[derive(Debug, Default)]
struct Consumed {
    tables: Vec<(String, f64)>,
}

impl Consumed {
    /// Adds what an item costs; in a transaction everything is done twice, once to prepare and once to commit.
    fn add(&mut self, table_name: &str, units: f64) {
        let units = units * 2.0;
        match self.tables.iter_mut().find(|(name, _)| name == table_name) {
            Some((_, sum)) => *sum += units,
            None => self.tables.push((table_name.to_owned(), units)),
        }
    }

    /// Writes the member ConsumedCapacity, if it is wanted; `kind` is `ReadCapacityUnits` or
    /// `WriteCapacityUnits`.
    fn write(&self, writer: &mut Writer, report: Report, kind: &str) {
        if !report.is_wanted() {
            return;
        }
        writer.key("ConsumedCapacity");
        writer.begin_array();
        for (name, units) in &self.tables {
            report.write_transaction_entry(writer, name, *units, kind);
        }
        writer.end_array();
    }
}
