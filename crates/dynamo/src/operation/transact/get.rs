//! TransactGetItems: items of any tables as they were at one moment.

use super::{Consumed, Cut, check_distinct, check_items, check_size, check_table_name};
use crate::capacity::{Report, read_units};
use crate::error::Failure;
use crate::operation::get::{Wanted, check_usage};
use crate::operation::{Context, check_key_paths, required};
use crate::table::StoredItem;
use crate::wire::constraint::{CONSUMED_CAPACITY, Constraints};
use crate::wire::decode::body;
use crate::wire::shape::{Get, TransactGetItemsRequest};
use crate::wire::writer::Writer;

pub async fn run(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: TransactGetItemsRequest = body(text)?;
    check_constraints(&request)?;
    let gets: Vec<&Get> = request
        .transact_items
        .iter()
        .flatten()
        .filter_map(|item| item.get.as_ref())
        .collect();
    let mut wanted = Vec::with_capacity(gets.len());
    for get in &gets {
        check_usage(
            get.projection_expression.is_some(),
            false,
            get.expression_attribute_names.is_some(),
        )?;
        required(&get.key, "Key")?.check()?;
        wanted.push(Wanted::only(
            get.projection_expression.as_deref(),
            None,
            get.expression_attribute_names.as_ref(),
        )?);
    }
    let mut places = Vec::with_capacity(gets.len());
    for (get, wanted) in gets.iter().zip(&wanted) {
        let schema = context.strong_schema(required(&get.table_name, "TableName")?)?;
        let key = schema.key(&required(&get.key, "Key")?.item)?;
        check_key_paths(&schema, &wanted.paths)?;
        let address = (schema.table.id, key.bytes);
        places.push((address, schema, key.attributes));
    }
    check_distinct(places.iter().map(|(address, ..)| address))?;
    let mut cut = Cut::read(context, places.iter().map(|(address, ..)| address)).await?;
    let mut consumed = Consumed::default();
    let mut size_bytes = 0;
    let mut writer = Writer::with_capacity(1024);
    writer.begin_object();
    writer.key("Responses");
    writer.begin_array();
    for ((address, schema, key), wanted) in places.into_iter().zip(&wanted) {
        let item = cut.rows.remove(&address).map(|row| StoredItem {
            key,
            document: schema.document_of(row),
        });
        let size = item.as_ref().map_or(0, StoredItem::size_bytes);
        size_bytes += size;
        consumed.add(&schema.name, read_units(size, true));
        writer.begin_object();
        if let Some(item) = &item {
            writer.key("Item");
            wanted.write(&mut writer, item);
        }
        writer.end_object();
    }
    check_size(size_bytes)?;
    writer.end_array();
    let report = Report::parse(request.return_consumed_capacity.as_deref());
    consumed.write(&mut writer, report, "ReadCapacityUnits");
    writer.end_object();
    Ok(writer.finish())
}

fn check_constraints(request: &TransactGetItemsRequest) -> Result<(), String> {
    let mut constraints = Constraints::default();
    constraints.one_of(
        "returnConsumedCapacity",
        request.return_consumed_capacity.as_deref(),
        CONSUMED_CAPACITY,
    );
    check_items(&mut constraints, request.transact_items.as_ref());
    for (index, item) in request.transact_items.iter().flatten().enumerate() {
        let path = format!("transactItems.{}.member.get", index + 1);
        constraints.present(&path, &item.get);
        if let Some(get) = &item.get {
            constraints.present(&format!("{path}.key"), &get.key);
            check_table_name(&mut constraints, &path, &get.table_name);
        }
    }
    constraints.finish()
}
