//! DeleteItem.

use super::write::{Conditional, ItemWrite, write_consumed};
use super::{Context, required};
use crate::capacity::Report;
use crate::error::Failure;
use crate::expression::Placeholders;
use crate::wire::constraint::{
    COLLECTION_METRICS, CONDITIONAL_OPERATOR, CONSUMED_CAPACITY, Constraints, ON_CONDITION_FAILURE,
    RETURN_VALUES,
};
use crate::wire::decode::body;
use crate::wire::shape::DeleteItemRequest;
use crate::wire::writer::Writer;
use api::RowOperation;

pub async fn run(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: DeleteItemRequest = body(text)?;
    check_constraints(&request)?;
    let conditional = Conditional {
        expression: request.condition_expression.as_deref(),
        expected: request.expected.as_ref(),
        conditional_operator: request.conditional_operator.as_deref(),
    };
    conditional.check_usage(
        request.expression_attribute_names.is_some(),
        request.expression_attribute_values.is_some(),
    )?;
    let key = required(&request.key, "Key")?.check()?;
    if !matches!(
        request.return_values.as_deref(),
        None | Some("ALL_OLD" | "NONE")
    ) {
        return Err(Failure::validation(
            "ReturnValues can only be ALL_OLD or NONE",
        ));
    }
    let expected = conditional.parse_expected()?;
    let mut placeholders = Placeholders::new(
        request.expression_attribute_names.as_ref(),
        request.expression_attribute_values.as_ref(),
    )?;
    let condition = conditional
        .parse_expression(&mut placeholders)?
        .or(expected);
    placeholders.finish()?;
    let schema = context.schema(required(&request.table_name, "TableName")?)?;
    let key = schema.key(key)?;
    let report = Report::parse(request.return_consumed_capacity.as_deref());
    let wants_old = request.return_values.as_deref() == Some("ALL_OLD");
    let written = ItemWrite {
        schema: &schema,
        key,
        operation: RowOperation::Delete,
        condition,
        wants_old,
        wants_new: false,
        wants_failed: request.return_values_on_condition_check_failure.as_deref()
            == Some("ALL_OLD"),
        report,
    }
    .send(context)
    .await?;
    let mut writer = Writer::with_capacity(64);
    writer.begin_object();
    if let Some(old) = written.old.as_ref().filter(|_| wants_old) {
        writer.key("Attributes");
        old.write(&mut writer);
    }
    write_consumed(&mut writer, report, &schema, written.old.as_ref(), 0);
    writer.end_object();
    Ok(writer.finish())
}

fn check_constraints(request: &DeleteItemRequest) -> Result<(), String> {
    let mut constraints = Constraints::default();
    constraints.one_of(
        "returnConsumedCapacity",
        request.return_consumed_capacity.as_deref(),
        CONSUMED_CAPACITY,
    );
    constraints.table_name(request.table_name.as_deref());
    constraints.one_of(
        "returnValues",
        request.return_values.as_deref(),
        RETURN_VALUES,
    );
    constraints.one_of(
        "returnItemCollectionMetrics",
        request.return_item_collection_metrics.as_deref(),
        COLLECTION_METRICS,
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
