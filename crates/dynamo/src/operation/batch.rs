//! BatchGetItem and BatchWriteItem: many reads or writes in one request, each by itself.

use super::get::{Wanted, check_usage};
use super::put::{TOO_LARGE, replace};
use super::{Context, check_duplicate_names, read_bound, write_request};
use crate::capacity::{Report, read_units, write_units};
use crate::error::Failure;
use crate::table::{KEY_MISMATCH, Key, Schema, write_key};
use crate::wire::attribute::write_item;
use crate::wire::constraint::{COLLECTION_METRICS, CONSUMED_CAPACITY, Constraints};
use crate::wire::decode::{InnerList, body};
use crate::wire::shape::{
    BatchGetItemRequest, BatchWriteItemRequest, KeysAndAttributes, WriteRequest as WireWrite,
};
use crate::wire::writer::Writer;
use api::document::{self, ITEM_SIZE_BYTES_MAX};
use api::{
    Atomicity, Error, Mutation, ReadRequest, Retry, ReturnedRows, Returning, RowOperation,
    Selection,
};
use std::collections::BTreeSet;

const READS_MAX: usize = 100;
const WRITES_MAX: usize = 25;
/// An answer of BatchGetItem ends before it passes this.
const ANSWER_SIZE_BYTES_MAX: u64 = 16 << 20;
/// Asked of the database at once.
const READ_SIZE_BYTES: u32 = 4 << 20;

const DUPLICATES: &str = "Provided list of item keys contains duplicates";

/// `{a=…, b=…}`: what a constraint shows of a map of tables.
fn show<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let shown: Vec<String> = names.map(|name| format!("{name}=...")).collect();
    format!("{{{}}}", shown.join(", "))
}

pub async fn get(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: BatchGetItemRequest = body(text)?;
    check_get_constraints(&request)?;
    let tables = request.request_items.as_ref().map_or(&[][..], |map| &map.0);
    let mut count = 0;
    let mut wanted = Vec::with_capacity(tables.len());
    for (_, request) in tables {
        wanted.push(check_get(request, &mut count)?);
    }
    let mut reads = Vec::with_capacity(tables.len());
    for ((name, request), wanted) in tables.iter().zip(wanted) {
        let schema = context.schema(name)?;
        let keys = request
            .keys
            .iter()
            .flatten()
            .map(|key| Ok(schema.key(&key.0.item)?.bytes))
            .collect::<Result<Vec<_>, Failure>>()?;
        reads.push(TableRead {
            schema,
            request,
            wanted,
            keys,
        });
    }
    let report = Report::parse(request.return_consumed_capacity.as_deref());
    let mut writer = Writer::with_capacity(4096);
    let mut room_bytes = ANSWER_SIZE_BYTES_MAX;
    let mut done = Vec::with_capacity(reads.len());
    writer.begin_object();
    writer.key("Responses");
    writer.begin_object();
    for read in &reads {
        writer.key(&read.schema.name);
        done.push(read.run(context, &mut writer, &mut room_bytes).await?);
    }
    writer.end_object();
    writer.key("UnprocessedKeys");
    writer.begin_object();
    for (read, done) in reads.iter().zip(&done) {
        if !done.unprocessed.is_empty() {
            read.write_unprocessed(&mut writer, &done.unprocessed)?;
        }
    }
    writer.end_object();
    if report.is_wanted() {
        writer.key("ConsumedCapacity");
        writer.begin_array();
        for (read, done) in reads.iter().zip(&done) {
            report.write_entry(&mut writer, &read.schema.name, done.units);
        }
        writer.end_array();
    }
    writer.end_object();
    Ok(writer.finish())
}

/// The reads of one table.
struct TableRead<'a> {
    schema: Schema,
    request: &'a KeysAndAttributes,
    wanted: Wanted,
    keys: Vec<Vec<u8>>,
}

/// What became of them.
struct TableDone {
    units: f64,
    /// Keys that did not fit into the answer.
    unprocessed: Vec<Vec<u8>>,
}

impl TableRead<'_> {
    async fn run(
        &self,
        context: &Context<'_>,
        writer: &mut Writer,
        room_bytes: &mut u64,
    ) -> Result<TableDone, Failure> {
        let is_consistent = self.request.consistent_read == Some(true);
        let mut units = 0.0;
        let mut found = 0;
        let mut unprocessed = Vec::new();
        let mut next = Some(Selection::Keys(self.keys.clone()));
        writer.begin_array();
        while let Some(selection) = next.take() {
            let mut read = ReadRequest::new(self.schema.table.id, selection);
            read.bound = read_bound(&self.schema, self.request.consistent_read);
            read.size_bytes_max = READ_SIZE_BYTES;
            let response = context.database.read(read).await?;
            let mut is_full = false;
            for row in response.rows {
                if is_full {
                    unprocessed.push(row.key);
                    continue;
                }
                let key = row.key.clone();
                let item = self.schema.item(row)?;
                let size = item.size_bytes();
                if size > *room_bytes {
                    is_full = true;
                    unprocessed.push(key);
                    continue;
                }
                *room_bytes -= size;
                found += 1;
                units += read_units(size, is_consistent);
                self.wanted.write(writer, &item);
            }
            match response.next {
                Some(Selection::Keys(keys)) if is_full => unprocessed.extend(keys),
                rest => next = rest,
            }
        }
        writer.end_array();
        let missing = self.keys.len() - found - unprocessed.len().min(self.keys.len() - found);
        units += missing as f64 * read_units(0, is_consistent);
        Ok(TableDone { units, unprocessed })
    }

    fn write_unprocessed(&self, writer: &mut Writer, keys: &[Vec<u8>]) -> Result<(), Failure> {
        writer.key(&self.schema.name);
        writer.begin_object();
        writer.key("Keys");
        writer.begin_array();
        for key in keys {
            write_key(writer, &self.schema.decode_key(key)?);
        }
        writer.end_array();
        if let Some(names) = &self.request.attributes_to_get {
            writer.key("AttributesToGet");
            writer.begin_array();
            for name in names {
                writer.string(name);
            }
            writer.end_array();
        }
        if let Some(is_consistent) = self.request.consistent_read {
            writer.key("ConsistentRead");
            writer.plain(is_consistent);
        }
        if let Some(text) = &self.request.projection_expression {
            writer.key("ProjectionExpression");
            writer.string(text);
        }
        if let Some(names) = &self.request.expression_attribute_names {
            writer.key("ExpressionAttributeNames");
            writer.begin_object();
            for (key, name) in names.iter() {
                writer.key(key);
                writer.string(name);
            }
            writer.end_object();
        }
        writer.end_object();
        Ok(())
    }
}

fn check_get_constraints(request: &BatchGetItemRequest) -> Result<(), String> {
    let mut constraints = Constraints::default();
    constraints.one_of(
        "returnConsumedCapacity",
        request.return_consumed_capacity.as_deref(),
        CONSUMED_CAPACITY,
    );
    constraints.present("requestItems", &request.request_items);
    if let Some(items) = &request.request_items {
        let names = || items.iter().map(|(name, _)| name);
        constraints.length("requestItems", items.len(), 1, usize::MAX, &show(names()));
        constraints.table_names("requestItems", names(), || show(names()));
        for (name, table) in items.iter() {
            let path = format!("requestItems.{name}.member.keys");
            constraints.present(&path, &table.keys);
            if let Some(keys) = &table.keys {
                let shown = format!("[{}]", vec!["{...}"; keys.len()].join(", "));
                constraints.length(&path, keys.len(), 1, READS_MAX, &shown);
            }
            constraints.attributes_to_get(
                &format!("requestItems.{name}.member.attributesToGet"),
                table.attributes_to_get.as_ref(),
            );
        }
    }
    constraints.finish()
}

fn check_get(request: &KeysAndAttributes, count: &mut usize) -> Result<Wanted, Failure> {
    check_usage(
        request.projection_expression.is_some(),
        request.attributes_to_get.is_some(),
        request.expression_attribute_names.is_some(),
    )?;
    check_duplicate_names(request.attributes_to_get.as_ref())?;
    let wanted = Wanted::only(
        request.projection_expression.as_deref(),
        request.attributes_to_get.as_ref(),
        request.expression_attribute_names.as_ref(),
    )?;
    let mut seen = BTreeSet::new();
    for key in request.keys.iter().flatten() {
        let item = key.0.check()?;
        let mut encoded = Writer::default();
        write_item(&mut encoded, item);
        if !seen.insert(encoded.finish()) {
            return Err(Failure::validation(DUPLICATES));
        }
        *count += 1;
        if *count > READS_MAX {
            return Err(Failure::validation(
                "Too many items requested for the BatchGetItem call",
            ));
        }
    }
    Ok(wanted)
}

pub async fn write(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let mut request: BatchWriteItemRequest = body(text)?;
    check_write_constraints(&request)?;
    let tables = request
        .request_items
        .take()
        .map_or_else(Vec::new, |items| items.0);
    check_writes(&tables)?;
    let report = Report::parse(request.return_consumed_capacity.as_deref());
    let mut mutations = Vec::new();
    let mut writes: Vec<TableWrite> = Vec::with_capacity(tables.len());
    for (name, requests) in tables {
        let schema = context.schema(&name)?;
        let first = mutations.len();
        let mut sizes = Vec::with_capacity(requests.0.len());
        let mut seen = BTreeSet::new();
        for request in requests.0 {
            let (key, operation, size) = lower_write(&schema, request)?;
            if !seen.insert(key.bytes.clone()) {
                return Err(Failure::validation(DUPLICATES));
            }
            let mut mutation = Mutation::new(schema.table.id, key.bytes, operation);
            if report.is_wanted() {
                mutation.returning = Returning::Old;
            }
            mutations.push(mutation);
            sizes.push(size);
        }
        writes.push(TableWrite {
            schema,
            first,
            sizes,
        });
    }
    let mut write = write_request(mutations);
    write.atomicity = Atomicity::Each;
    let response = match context.database.write(write).await {
        // Puts and deletes may be repeated: the client is to send all of them again.
        Err(Error::Retry(Retry::Overloaded(_) | Retry::Aborted(_))) => {
            return Ok(unprocessed(text));
        }
        result => result?,
    };
    let mut writer = Writer::with_capacity(128);
    writer.begin_object();
    writer.key("UnprocessedItems");
    writer.begin_object();
    writer.end_object();
    if report.is_wanted() {
        writer.key("ConsumedCapacity");
        writer.begin_array();
        for write in &writes {
            let units = write.units(&response.returned);
            report.write_entry(&mut writer, &write.schema.name, units);
        }
        writer.end_array();
    }
    writer.end_object();
    Ok(writer.finish())
}

/// The writes of one table.
struct TableWrite {
    schema: Schema,
    /// The index of its first mutation.
    first: usize,
    /// The size of each item's key, and of the whole item after the write.
    sizes: Vec<(u64, u64)>,
}

impl TableWrite {
    /// What they have consumed, given what was there before.
    fn units(&self, returned: &[ReturnedRows]) -> f64 {
        let mut units = 0.0;
        for (index, (key, after)) in self.sizes.iter().enumerate() {
            let old = returned
                .get(self.first + index)
                .and_then(|returned| returned.old.clone());
            let before = old.map_or(0, |row| {
                key + document::item_size_bytes(&self.schema.document_of(row))
            });
            units += write_units(before, *after);
        }
        units
    }
}

/// All of a request, as it came, to be sent again.
fn unprocessed(text: &str) -> String {
    use crate::wire::reader::Reader;
    let mut reader = Reader::new(text);
    let mut items = "{}";
    if let Ok(mut sequence) = reader.begin_object() {
        while let Ok(Some(key)) = reader.next_key(&mut sequence) {
            match reader.skip() {
                Ok(value) if key == "RequestItems" => items = value,
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
    format!("{{\"UnprocessedItems\":{items}}}")
}

fn check_write_constraints(request: &BatchWriteItemRequest) -> Result<(), String> {
    let mut constraints = Constraints::default();
    constraints.one_of(
        "returnConsumedCapacity",
        request.return_consumed_capacity.as_deref(),
        CONSUMED_CAPACITY,
    );
    constraints.one_of(
        "returnItemCollectionMetrics",
        request.return_item_collection_metrics.as_deref(),
        COLLECTION_METRICS,
    );
    constraints.present("requestItems", &request.request_items);
    if let Some(items) = &request.request_items {
        let names = || items.iter().map(|(name, _)| name);
        constraints.length("requestItems", items.len(), 1, usize::MAX, &show(names()));
        constraints.table_names("requestItems", names(), || show(names()));
        let lengths = items.iter().map(|(_, requests)| requests.0.len());
        constraints.value_lengths("requestItems", lengths, WRITES_MAX, || show(names()));
        for (name, requests) in items.iter() {
            for (index, request) in requests.0.iter().enumerate() {
                let path = format!("requestItems.{name}.member.{}.member", index + 1);
                if let Some(delete) = &request.delete_request {
                    constraints.present(&format!("{path}.deleteRequest.key"), &delete.key);
                }
                if let Some(put) = &request.put_request {
                    constraints.present(&format!("{path}.putRequest.item"), &put.item);
                }
            }
        }
    }
    constraints.finish()
}

fn check_writes(tables: &[(String, InnerList<WireWrite>)]) -> Result<(), Failure> {
    let mut count = 0;
    for (_, requests) in tables {
        if requests
            .0
            .iter()
            .any(|request| request.put_request.is_some() == request.delete_request.is_some())
        {
            return Err(Failure::validation(
                "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the \
                 supported datatypes",
            ));
        }
        for request in &requests.0 {
            count += 1;
            if let Some(item) = request
                .put_request
                .as_ref()
                .and_then(|put| put.item.as_ref())
                && document::item_size_bytes(item.check()?) > ITEM_SIZE_BYTES_MAX
            {
                return Err(Failure::validation(TOO_LARGE));
            }
            if let Some(key) = request
                .delete_request
                .as_ref()
                .and_then(|delete| delete.key.as_ref())
            {
                key.check()?;
            }
        }
    }
    if count > WRITES_MAX {
        return Err(Failure::validation(
            "Too many items requested for the BatchWriteItem call",
        ));
    }
    Ok(())
}

/// The key, the operation, and the sizes of the key and of the item after it.
fn lower_write(
    schema: &Schema,
    request: WireWrite,
) -> Result<(Key, RowOperation, (u64, u64)), Failure> {
    if let Some(item) = request.put_request.and_then(|put| put.item) {
        let (key, document) = schema.split(item.item).map_err(in_batch)?;
        let key_size = key.size_bytes();
        let sizes = (key_size, key_size + document::item_size_bytes(&document));
        return Ok((key, replace(schema.document, document), sizes));
    }
    let key = request.delete_request.and_then(|delete| delete.key);
    let key = schema.key(&key.unwrap_or_default().item)?;
    let key_size = key.size_bytes();
    Ok((key, RowOperation::Delete, (key_size, 0)))
}

/// The service words some refusals of items otherwise in a batch.
fn in_batch(failure: Failure) -> Failure {
    match &failure.message {
        Some(message)
            if message.contains("Missing the key") || message.contains("Type mismatch for key") =>
        {
            Failure::validation(KEY_MISMATCH)
        }
        _ => failure,
    }
}
