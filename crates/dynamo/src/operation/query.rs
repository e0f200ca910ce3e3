//! Query: the items of one partition, in the order of their range keys.

use super::get::Wanted;
use super::page::{PageRequest, check_select};
use super::{Context, check_duplicate_names, check_key_paths, read_bound, required};
use crate::capacity::Report;
use crate::error::Failure;
use crate::expression::legacy::{Comparison, ComparisonOperator};
use crate::expression::{Placeholders, Usage, condition, key_condition, legacy};
use crate::table::{Bound, RangeBounds, Schema, attribute_type, behind};
use crate::wire::attribute::AttributeMap;
use crate::wire::constraint::{CONDITIONAL_OPERATOR, CONSUMED_CAPACITY, Constraints, SELECT};
use crate::wire::decode::body;
use crate::wire::shape::QueryRequest;
use api::document::{AttributeType, Attributes, Condition, Item, Path};
use api::{Direction, KeyRange};
use catalog::{Column, ColumnRole};
use model::Value;

pub async fn run(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: QueryRequest = body(text)?;
    check_constraints(&request)?;
    let plan = plan(&request)?;
    let schema = context.schema(required(&request.table_name, "TableName")?)?;
    if let Some(index) = &request.index_name {
        return Err(no_index(index));
    }
    let start = request.exclusive_start_key.as_ref().map(|key| &key.item);
    check_start_length(&schema, start)?;
    for column in schema.key_columns() {
        check_key_condition(&schema, column, start, &plan.key)?;
    }
    let (hash, range) = key_comparisons(&schema, &plan.key)?;
    if let Some(start) = start {
        check_start(&schema, start, hash, range)?;
    }
    check_key_paths(&schema, &plan.wanted.paths)?;
    check_filter(&schema, &plan)?;
    let is_backward = request.scan_index_forward == Some(false);
    let direction = if is_backward {
        Direction::Backward
    } else {
        Direction::Forward
    };
    let mut key_range = schema.partition_range(hash, &range_bounds(range))?;
    if let Some(start) = start {
        continue_from(&mut key_range, schema.key(start)?.bytes, direction);
    }
    let is_count = request.select.as_deref() == Some("COUNT");
    let page = PageRequest {
        schema: &schema,
        range: key_range,
        direction,
        limit: request.limit.map(|limit| limit as u32),
        bound: read_bound(&schema, request.consistent_read),
        filter: plan.filter.as_ref(),
        is_count,
    }
    .read(context)
    .await?;
    Ok(page.write(
        &schema,
        (!is_count).then_some(&plan.wanted),
        Report::parse(request.return_consumed_capacity.as_deref()),
        request.consistent_read == Some(true),
    ))
}

pub fn no_index(name: &str) -> Failure {
    Failure::validation(format!(
        "The table does not have the specified index: {name}"
    ))
}

/// Takes what a page before has read from a range.
pub fn continue_from(range: &mut KeyRange, key: Vec<u8>, direction: Direction) {
    let rest = match direction {
        Direction::Forward => KeyRange {
            start: behind(key),
            end: None,
        },
        Direction::Backward => KeyRange {
            start: Vec::new(),
            end: Some(key),
        },
    };
    *range = range.intersection(&rest);
}

/// A request's expressions, parsed.
struct Plan {
    key: Vec<Comparison>,
    filter: Option<Condition>,
    /// The paths that the filter mentions, and the name of the parameter that it came in.
    filter_paths: Vec<Path>,
    filter_name: &'static str,
    wanted: Wanted,
}

fn plan(request: &QueryRequest) -> Result<Plan, Failure> {
    Usage {
        expressions: &[
            (
                "ProjectionExpression",
                request.projection_expression.is_some(),
            ),
            ("FilterExpression", request.filter_expression.is_some()),
            (
                "KeyConditionExpression",
                request.key_condition_expression.is_some(),
            ),
        ],
        legacy: &[
            ("AttributesToGet", request.attributes_to_get.is_some()),
            ("QueryFilter", request.query_filter.is_some()),
            (
                "ConditionalOperator",
                request.conditional_operator.is_some(),
            ),
            ("KeyConditions", request.key_conditions.is_some()),
        ],
        has_names: request.expression_attribute_names.is_some(),
        has_values: request.expression_attribute_values.is_some(),
    }
    .check()?;
    let legacy_filter = request
        .query_filter
        .as_ref()
        .map(legacy::comparisons)
        .transpose()?;
    check_duplicate_names(request.attributes_to_get.as_ref())?;
    check_start_values(request.exclusive_start_key.as_ref())?;
    if request.key_conditions.is_none() && request.key_condition_expression.is_none() {
        return Err(Failure::validation(
            "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.",
        ));
    }
    let mut placeholders = Placeholders::new(
        request.expression_attribute_names.as_ref(),
        request.expression_attribute_values.as_ref(),
    )?;
    let key_expression = request
        .key_condition_expression
        .as_deref()
        .map(|text| {
            condition::parse(text, &mut placeholders)
                .map_err(|error| format!("Invalid KeyConditionExpression: {error}"))
        })
        .transpose()?;
    let (filter, filter_paths, filter_name) = parse_filter(
        request.filter_expression.as_deref(),
        legacy_filter,
        "QueryFilter",
        request.conditional_operator.as_deref(),
        &mut placeholders,
    )?;
    let wanted = Wanted::parse(
        request.projection_expression.as_deref(),
        request.attributes_to_get.as_ref(),
        &mut placeholders,
    )?;
    placeholders.finish()?;
    let key = match (&key_expression, &request.key_conditions) {
        (Some(parsed), _) => key_condition::comparisons(&parsed.condition)?,
        (None, Some(conditions)) => legacy::comparisons(conditions)?,
        (None, None) => Vec::new(),
    };
    key_condition::check(&key)?;
    check_select(
        request.select.as_deref(),
        request.projection_expression.is_some(),
        request.attributes_to_get.is_some(),
        request.index_name.is_some(),
    )?;
    Ok(Plan {
        key,
        filter,
        filter_paths,
        filter_name,
        wanted,
    })
}

/// A filter in either dialect, its paths, and what the service calls it.
pub fn parse_filter(
    expression: Option<&str>,
    legacy_filter: Option<Vec<Comparison>>,
    legacy_name: &'static str,
    conditional_operator: Option<&str>,
    placeholders: &mut Placeholders<'_>,
) -> Result<(Option<Condition>, Vec<Path>, &'static str), String> {
    if let Some(text) = expression {
        let parsed = condition::parse(text, placeholders)
            .map_err(|error| format!("Invalid FilterExpression: {error}"))?;
        return Ok((Some(parsed.condition), parsed.paths, "Filter Expression"));
    }
    let Some(comparisons) = legacy_filter else {
        return Ok((None, Vec::new(), legacy_name));
    };
    let paths = comparisons
        .iter()
        .map(|comparison| Path::attribute(comparison.attribute.clone()))
        .collect();
    let condition = legacy::join(comparisons, conditional_operator);
    Ok((Some(condition), paths, legacy_name))
}

const INVALID_START: &str = "The provided starting key is invalid";

/// Values of a starting key that are not valid in themselves.
pub fn check_start_values(start: Option<&AttributeMap>) -> Result<(), String> {
    let Some(Err(message)) = start.map(AttributeMap::check) else {
        return Ok(());
    };
    let is_bare = [
        "contains duplicates",
        "number set",
        "numeric value",
        "significant digits",
        "number with magnitude",
    ]
    .iter()
    .any(|part| message.contains(part));
    if is_bare {
        Err(message)
    } else {
        Err(format!("{INVALID_START}: {message}"))
    }
}

fn check_start_length(schema: &Schema, start: Option<&Item>) -> Result<(), String> {
    match start {
        Some(start) if start.len() != schema.key_columns().count() => Err(INVALID_START.into()),
        _ => Ok(()),
    }
}

fn find<'a>(key: &'a [Comparison], column: &Column) -> Option<&'a Comparison> {
    key.iter()
        .find(|comparison| comparison.attribute == column.name)
}

fn check_key_condition(
    schema: &Schema,
    column: &Column,
    start: Option<&Item>,
    key: &[Comparison],
) -> Result<(), String> {
    let is_hash = column.role == ColumnRole::Partition;
    if let Some(start) = start {
        let value = start.get(&column.name).ok_or(INVALID_START)?;
        schema.check_key_value(column, value)?;
    }
    if is_hash && schema.range().is_none() && key.len() > 1 {
        return Err("Query key condition not supported".into());
    }
    let Some(comparison) = find(key, column) else {
        if is_hash || key.len() > 1 {
            return Err(format!(
                "Query condition missed key schema element: {}",
                column.name
            ));
        }
        return Ok(());
    };
    if matches!(
        comparison.operator,
        ComparisonOperator::Null
            | ComparisonOperator::NotNull
            | ComparisonOperator::NotEqual
            | ComparisonOperator::Contains
            | ComparisonOperator::NotContains
            | ComparisonOperator::In
    ) {
        return Err("Attempted conditional constraint is not an indexable operation".into());
    }
    let expected = attribute_type(&column.kind);
    let mut kinds = comparison.values.iter().map(AttributeType::of);
    if kinds.any(|kind| kind != expected) {
        return Err(
            "One or more parameter values were invalid: Condition parameter type does not match schema type"
                .into(),
        );
    }
    if is_hash && comparison.operator != ComparisonOperator::Equal {
        return Err("Query key condition not supported".into());
    }
    if comparison.operator == ComparisonOperator::Equal {
        for value in &comparison.values {
            schema.check_key_value(column, value)?;
        }
    }
    Ok(())
}

/// The partition's value, and the condition on the range key; checked already.
fn key_comparisons<'a>(
    schema: &Schema,
    key: &'a [Comparison],
) -> Result<(&'a Value, Option<&'a Comparison>), Failure> {
    let hash = find(key, schema.hash())
        .and_then(|comparison| comparison.values.first())
        .ok_or_else(|| Failure::validation("Query key condition not supported"))?;
    Ok((hash, schema.range().and_then(|column| find(key, column))))
}

/// A starting key must lie inside what is queried.
fn check_start(
    schema: &Schema,
    start: &Item,
    hash: &Value,
    range: Option<&Comparison>,
) -> Result<(), Failure> {
    schema
        .key(start)
        .map_err(|failure| prefixed(INVALID_START, failure))?;
    let is_other_partition = start.get(&schema.hash().name) != Some(hash);
    let Some(range) = range else {
        if is_other_partition {
            return Err(Failure::validation(
                "The provided starting key is outside query boundaries based on provided conditions",
            ));
        }
        return Ok(());
    };
    let condition = range.clone().into_condition();
    if !condition.holds_of(&Attributes::of(start)) {
        return Err(Failure::validation(
            "The provided starting key does not match the range key predicate",
        ));
    }
    if is_other_partition {
        return Err(Failure::validation(
            "The query can return at most one row and cannot be restarted",
        ));
    }
    Ok(())
}

pub fn prefixed(prefix: &str, failure: Failure) -> Failure {
    Failure {
        message: failure
            .message
            .map(|message| format!("{prefix}: {message}")),
        ..failure
    }
}

/// A query's filter leaves the key alone.
fn check_filter(schema: &Schema, plan: &Plan) -> Result<(), String> {
    for column in schema.key_columns() {
        if plan
            .filter_paths
            .iter()
            .any(|path| path.name == column.name)
        {
            return Err(format!(
                "{} can only contain non-primary key attributes: Primary key attribute: {}",
                plan.filter_name, column.name
            ));
        }
    }
    Ok(())
}

fn range_bounds(comparison: Option<&Comparison>) -> RangeBounds {
    let Some(comparison) = comparison else {
        return RangeBounds::default();
    };
    let value = |index: usize| comparison.values.get(index).cloned().unwrap_or(Value::Null);
    let (start, end) = match comparison.operator {
        ComparisonOperator::Equal => (Bound::At(value(0)), Bound::Behind(value(0))),
        ComparisonOperator::Less => (Bound::Open, Bound::At(value(0))),
        ComparisonOperator::LessOrEqual => (Bound::Open, Bound::Behind(value(0))),
        ComparisonOperator::Greater => (Bound::Behind(value(0)), Bound::Open),
        ComparisonOperator::GreaterOrEqual => (Bound::At(value(0)), Bound::Open),
        ComparisonOperator::Between => (Bound::At(value(0)), Bound::Behind(value(1))),
        ComparisonOperator::BeginsWith => {
            let prefix = match value(0) {
                Value::Text(text) => text.into_bytes(),
                Value::Bytes(bytes) => bytes,
                _ => Vec::new(),
            };
            let end = model::key::prefix_end(&prefix)
                .map_or(Bound::Open, |end| Bound::At(Value::Bytes(end)));
            (Bound::At(value(0)), end)
        }
        // Refused by `check_key_condition`.
        _ => (Bound::Open, Bound::Open),
    };
    RangeBounds { start, end }
}

fn check_constraints(request: &QueryRequest) -> Result<(), String> {
    let mut constraints = Constraints::default();
    constraints.one_of("select", request.select.as_deref(), SELECT);
    constraints.resource_name("indexName", request.index_name.as_deref());
    constraints.one_of(
        "returnConsumedCapacity",
        request.return_consumed_capacity.as_deref(),
        CONSUMED_CAPACITY,
    );
    constraints.conditions("queryFilter", request.query_filter.as_ref());
    constraints.table_name(request.table_name.as_deref());
    constraints.one_of(
        "conditionalOperator",
        request.conditional_operator.as_deref(),
        CONDITIONAL_OPERATOR,
    );
    constraints.attributes_to_get("attributesToGet", request.attributes_to_get.as_ref());
    constraints.at_least("limit", request.limit.map(i64::from), 1);
    constraints.conditions("keyConditions", request.key_conditions.as_ref());
    constraints.finish()
}
