//! UpdateItem.

use super::write::{Conditional, ItemWrite, write_consumed};
use super::{Context, check_key_paths, required};
use crate::capacity::Report;
use crate::error::Failure;
use crate::expression::projection::Projection;
use crate::expression::update::{self, Parsed};
use crate::expression::{Placeholders, Usage, legacy};
use crate::table::{Schema, StoredItem};
use crate::wire::attribute::write_item;
use crate::wire::constraint::{
    COLLECTION_METRICS, CONDITIONAL_OPERATOR, CONSUMED_CAPACITY, Constraints, ON_CONDITION_FAILURE,
    RETURN_VALUES,
};
use crate::wire::decode::body;
use crate::wire::shape::UpdateItemRequest;
use crate::wire::writer::Writer;
use api::RowOperation;
use api::document::{Condition, Path, Update};

pub async fn run(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: UpdateItemRequest = body(text)?;
    check_constraints(&request)?;
    let (parsed, condition) = parse_expressions(&request)?;
    let schema = context.schema(required(&request.table_name, "TableName")?)?;
    let key = schema.key(&required(&request.key, "Key")?.item)?;
    check_targets(&schema, &parsed)?;
    let mut update = parsed.update;
    update::substitute_key(&mut update, &key.attributes);
    update.key_size_bytes = key.size_bytes() as u32;
    let return_values = request.return_values.as_deref();
    let report = Report::parse(request.return_consumed_capacity.as_deref());
    let written = ItemWrite {
        schema: &schema,
        key,
        operation: RowOperation::UpdateDocument {
            column: schema.document,
            update,
        },
        condition,
        wants_old: matches!(return_values, Some("ALL_OLD" | "UPDATED_OLD")),
        wants_new: matches!(return_values, Some("ALL_NEW" | "UPDATED_NEW")) || report.is_wanted(),
        wants_failed: request.return_values_on_condition_check_failure.as_deref()
            == Some("ALL_OLD"),
        report,
    }
    .send(context)
    .await?;
    let mut writer = Writer::with_capacity(256);
    writer.begin_object();
    let returned = match return_values {
        Some("ALL_OLD" | "UPDATED_OLD") => written.old.as_ref(),
        Some("ALL_NEW" | "UPDATED_NEW") => written.new.as_ref(),
        _ => None,
    };
    if let Some(item) = returned {
        writer.key("Attributes");
        let is_part = matches!(return_values, Some("UPDATED_OLD" | "UPDATED_NEW"));
        write_returned(&mut writer, item, is_part.then_some(&parsed.targets));
    }
    let after_bytes = written.new.as_ref().map_or(0, StoredItem::size_bytes);
    write_consumed(
        &mut writer,
        report,
        &schema,
        written.old.as_ref(),
        after_bytes,
    );
    writer.end_object();
    Ok(writer.finish())
}

fn write_returned(writer: &mut Writer, item: &StoredItem, targets: Option<&Vec<Path>>) {
    match targets {
        None => item.write(writer),
        Some(targets) => {
            let attributes = item.attributes();
            write_item(
                writer,
                &Projection::of(targets).apply(|name| attributes.get(name)),
            );
        }
    }
}

/// The update and the condition, in either dialect.
fn parse_expressions(request: &UpdateItemRequest) -> Result<(Parsed, Option<Condition>), Failure> {
    Usage {
        expressions: &[
            ("UpdateExpression", request.update_expression.is_some()),
            (
                "ConditionExpression",
                request.condition_expression.is_some(),
            ),
        ],
        legacy: &[
            ("AttributeUpdates", request.attribute_updates.is_some()),
            ("Expected", request.expected.is_some()),
        ],
        has_names: request.expression_attribute_names.is_some(),
        has_values: request.expression_attribute_values.is_some(),
    }
    .check()?;
    required(&request.key, "Key")?.check()?;
    let legacy_update = match &request.attribute_updates {
        Some(updates) => legacy::attribute_updates(updates)?,
        None => Update::default(),
    };
    let conditional = Conditional {
        expression: request.condition_expression.as_deref(),
        expected: request.expected.as_ref(),
        conditional_operator: request.conditional_operator.as_deref(),
    };
    let expected = conditional.parse_expected()?;
    let mut placeholders = Placeholders::new(
        request.expression_attribute_names.as_ref(),
        request.expression_attribute_values.as_ref(),
    )?;
    let parsed = match &request.update_expression {
        Some(text) => update::parse(text, &mut placeholders)
            .map_err(|error| format!("Invalid UpdateExpression: {error}"))?,
        None => Parsed {
            targets: request
                .attribute_updates
                .iter()
                .flat_map(|updates| updates.iter().map(|(name, _)| Path::attribute(name)))
                .collect(),
            update: legacy_update,
            sources: Vec::new(),
        },
    };
    let condition = conditional
        .parse_expression(&mut placeholders)?
        .or(expected);
    placeholders.finish()?;
    Ok((parsed, condition))
}

/// Key attributes cannot be updated, and are scalars.
pub fn check_targets(schema: &Schema, parsed: &Parsed) -> Result<(), String> {
    for column in schema.key_columns() {
        if parsed.targets.iter().any(|path| path.name == column.name) {
            return Err(format!(
                "One or more parameter values were invalid: Cannot update attribute {}. This attribute is part \
                 of the key",
                column.name
            ));
        }
    }
    check_key_paths(schema, &parsed.sources)
}

fn check_constraints(request: &UpdateItemRequest) -> Result<(), String> {
    let mut constraints = Constraints::default();
    constraints.one_of(
        "returnConsumedCapacity",
        request.return_consumed_capacity.as_deref(),
        CONSUMED_CAPACITY,
    );
    constraints.table_name(request.table_name.as_deref());
    constraints.one_of(
        "returnItemCollectionMetrics",
        request.return_item_collection_metrics.as_deref(),
        COLLECTION_METRICS,
    );
    constraints.one_of(
        "returnValues",
        request.return_values.as_deref(),
        RETURN_VALUES,
    );
    constraints.present("key", &request.key);
    constraints.one_of(
        "conditionalOperator",
        request.conditional_operator.as_deref(),
        CONDITIONAL_OPERATOR,
    );
    constraints.expected(request.expected.as_ref());
    constraints.one_of(
        "returnValuesOnConditionCheckFailure",
        request.return_values_on_condition_check_failure.as_deref(),
        ON_CONDITION_FAILURE,
    );
    constraints.finish()
}
