//! GetItem.

use super::{Context, check_duplicate_names, check_key_paths, read_bound, required};
use crate::capacity::{Report, read_units};
use crate::error::Failure;
use crate::expression::projection::{self, Projection};
use crate::expression::{Placeholders, Usage};
use crate::table::StoredItem;
use crate::wire::attribute::write_item;
use crate::wire::constraint::{CONSUMED_CAPACITY, Constraints};
use crate::wire::decode::{Map, body};
use crate::wire::shape::GetItemRequest;
use crate::wire::writer::Writer;
use api::document::Path;
use api::{ReadRequest, Selection};

/// What an answer carries of an item, and the paths that it is made of.
#[derive(Debug, Default)]
pub struct Wanted {
    pub projection: Option<Projection>,
    pub paths: Vec<Path>,
}

impl Wanted {
    /// From ProjectionExpression or AttributesToGet; the caller closes the placeholders.
    pub fn parse(
        expression: Option<&str>,
        attributes_to_get: Option<&Vec<String>>,
        placeholders: &mut Placeholders<'_>,
    ) -> Result<Wanted, String> {
        if let Some(text) = expression {
            let parsed = projection::parse(text, placeholders)
                .map_err(|error| format!("Invalid ProjectionExpression: {error}"))?;
            return Ok(Wanted {
                projection: Some(parsed.projection),
                paths: parsed.paths,
            });
        }
        Ok(Wanted {
            projection: attributes_to_get.map(Projection::of_attributes),
            paths: Vec::new(),
        })
    }

    /// The whole of it, of one request that has no other expressions.
    pub fn only(
        expression: Option<&str>,
        attributes_to_get: Option<&Vec<String>>,
        names: Option<&Map<String>>,
    ) -> Result<Wanted, String> {
        let mut placeholders = Placeholders::new(names, None)?;
        let wanted = Wanted::parse(expression, attributes_to_get, &mut placeholders)?;
        placeholders.finish()?;
        Ok(wanted)
    }

    pub fn write(&self, writer: &mut Writer, item: &StoredItem) {
        match &self.projection {
            None => item.write(writer),
            Some(projection) => {
                let attributes = item.attributes();
                write_item(writer, &projection.apply(|name| attributes.get(name)));
            }
        }
    }
}

pub fn check_usage(
    has_expression: bool,
    has_attributes_to_get: bool,
    has_names: bool,
) -> Result<(), String> {
    Usage {
        expressions: &[("ProjectionExpression", has_expression)],
        legacy: &[("AttributesToGet", has_attributes_to_get)],
        has_names,
        has_values: false,
    }
    .check()
}

pub async fn run(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: GetItemRequest = body(text)?;
    let mut constraints = Constraints::default();
    constraints.one_of(
        "returnConsumedCapacity",
        request.return_consumed_capacity.as_deref(),
        CONSUMED_CAPACITY,
    );
    constraints.attributes_to_get("attributesToGet", request.attributes_to_get.as_ref());
    constraints.table_name(request.table_name.as_deref());
    constraints.present("key", &request.key);
    constraints.finish()?;
    check_usage(
        request.projection_expression.is_some(),
        request.attributes_to_get.is_some(),
        request.expression_attribute_names.is_some(),
    )?;
    let key = required(&request.key, "Key")?.check()?;
    check_duplicate_names(request.attributes_to_get.as_ref())?;
    let wanted = Wanted::only(
        request.projection_expression.as_deref(),
        request.attributes_to_get.as_ref(),
        request.expression_attribute_names.as_ref(),
    )?;
    let schema = context.schema(required(&request.table_name, "TableName")?)?;
    let key = schema.key(key)?;
    check_key_paths(&schema, &wanted.paths)?;
    let mut read = ReadRequest::new(schema.table.id, Selection::Keys(vec![key.bytes]));
    read.bound = read_bound(&schema, request.consistent_read);
    let response = context.database.read(read).await?;
    let item = response.rows.into_iter().next().map(|row| StoredItem {
        key: key.attributes,
        document: schema.document_of(row.row),
    });
    let report = Report::parse(request.return_consumed_capacity.as_deref());
    let mut writer = Writer::with_capacity(512);
    writer.begin_object();
    if let Some(item) = &item {
        writer.key("Item");
        wanted.write(&mut writer, item);
    }
    if report.is_wanted() {
        let size = item.as_ref().map_or(0, StoredItem::size_bytes);
        let units = read_units(size, request.consistent_read == Some(true));
        report.write(&mut writer, &schema.name, units);
    }
    writer.end_object();
    Ok(writer.finish())
}
