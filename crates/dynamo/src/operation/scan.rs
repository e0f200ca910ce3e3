//! Scan: all items, or those of one of up to a million segments. Segments divide the range of hash tokens evenly.

use super::get::Wanted;
use super::page::{PageRequest, check_select};
use super::query::{check_start_values, continue_from, no_index, parse_filter, prefixed};
use super::{Context, check_duplicate_names, check_key_paths, read_bound, required};
use crate::capacity::Report;
use crate::error::Failure;
use crate::expression::{Placeholders, Usage, legacy};
use crate::wire::constraint::{CONDITIONAL_OPERATOR, CONSUMED_CAPACITY, Constraints, SELECT};
use crate::wire::decode::body;
use crate::wire::shape::ScanRequest;
use api::document::{Condition, Path};
use api::{Direction, KeyRange};

const SEGMENTS_MAX: i64 = 1_000_000;

pub async fn run(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: ScanRequest = body(text)?;
    check_constraints(&request)?;
    let plan = plan(&request)?;
    let schema = context.schema(required(&request.table_name, "TableName")?)?;
    if let Some(index) = &request.index_name {
        return Err(no_index(index));
    }
    let mut range = segment_range(request.segment, request.total_segments);
    if let Some(start) = &request.exclusive_start_key {
        let key = schema
            .key(&start.item)
            .map_err(|failure| prefixed("The provided starting key is invalid", failure))?;
        if !range.contains(&key.bytes) {
            return Err(Failure::validation(format!(
                "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use \
                 ExclusiveStartKey with correct Segment. TotalSegments: {} Segment: {}",
                request.total_segments.unwrap_or_default(),
                request.segment.unwrap_or_default()
            )));
        }
        continue_from(&mut range, key.bytes, Direction::Forward);
    }
    check_key_paths(&schema, &plan.wanted.paths)?;
    check_key_paths(&schema, &plan.filter_paths)?;
    let is_count = request.select.as_deref() == Some("COUNT");
    let page = PageRequest {
        schema: &schema,
        range,
        direction: Direction::Forward,
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

/// The keys of a segment: keys begin with the token, in big-endian order.
fn segment_range(segment: Option<i32>, total: Option<i32>) -> KeyRange {
    let (Some(segment), Some(total)) = (segment, total) else {
        return KeyRange::all();
    };
    let boundary = |segment: i32| (segment as u128) * (1u128 << 64) / (total as u128);
    let key = |boundary: u128| {
        u64::try_from(boundary)
            .ok()
            .map(|token| token.to_be_bytes().to_vec())
    };
    let start = match segment {
        0 => Vec::new(),
        segment => key(boundary(segment)).unwrap_or_default(),
    };
    KeyRange {
        start,
        end: key(boundary(segment + 1)),
    }
}

/// A request's expressions, parsed.
struct Plan {
    filter: Option<Condition>,
    filter_paths: Vec<Path>,
    wanted: Wanted,
}

fn plan(request: &ScanRequest) -> Result<Plan, Failure> {
    Usage {
        expressions: &[
            (
                "ProjectionExpression",
                request.projection_expression.is_some(),
            ),
            ("FilterExpression", request.filter_expression.is_some()),
        ],
        legacy: &[
            ("AttributesToGet", request.attributes_to_get.is_some()),
            ("ScanFilter", request.scan_filter.is_some()),
            (
                "ConditionalOperator",
                request.conditional_operator.is_some(),
            ),
        ],
        has_names: request.expression_attribute_names.is_some(),
        has_values: request.expression_attribute_values.is_some(),
    }
    .check()?;
    check_duplicate_names(request.attributes_to_get.as_ref())?;
    let legacy_filter = request
        .scan_filter
        .as_ref()
        .map(legacy::comparisons)
        .transpose()?;
    check_start_values(request.exclusive_start_key.as_ref())?;
    check_segments(request)?;
    let mut placeholders = Placeholders::new(
        request.expression_attribute_names.as_ref(),
        request.expression_attribute_values.as_ref(),
    )?;
    let (filter, filter_paths, _) = parse_filter(
        request.filter_expression.as_deref(),
        legacy_filter,
        "ScanFilter",
        request.conditional_operator.as_deref(),
        &mut placeholders,
    )?;
    let wanted = Wanted::parse(
        request.projection_expression.as_deref(),
        request.attributes_to_get.as_ref(),
        &mut placeholders,
    )?;
    placeholders.finish()?;
    check_select(
        request.select.as_deref(),
        request.projection_expression.is_some(),
        request.attributes_to_get.is_some(),
        request.index_name.is_some(),
    )?;
    Ok(Plan {
        filter,
        filter_paths,
        wanted,
    })
}

fn check_segments(request: &ScanRequest) -> Result<(), String> {
    match (request.segment, request.total_segments) {
        (Some(_), None) => Err(
            "The TotalSegments parameter is required but was not present in the request when Segment \
             parameter is present"
                .into(),
        ),
        (None, Some(_)) => Err(
            "The Segment parameter is required but was not present in the request when parameter \
             TotalSegments is present"
                .into(),
        ),
        (Some(segment), Some(total)) if segment >= total => Err(format!(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: \
             {segment} is not less than TotalSegments: {total}"
        )),
        _ => Ok(()),
    }
}

fn check_constraints(request: &ScanRequest) -> Result<(), String> {
    let mut constraints = Constraints::default();
    constraints.one_of("select", request.select.as_deref(), SELECT);
    constraints.resource_name("indexName", request.index_name.as_deref());
    let total = request.total_segments.map(i64::from);
    constraints.at_least("totalSegments", total, 1);
    constraints.at_most("totalSegments", total, SEGMENTS_MAX);
    constraints.one_of(
        "returnConsumedCapacity",
        request.return_consumed_capacity.as_deref(),
        CONSUMED_CAPACITY,
    );
    constraints.table_name(request.table_name.as_deref());
    constraints.one_of(
        "conditionalOperator",
        request.conditional_operator.as_deref(),
        CONDITIONAL_OPERATOR,
    );
    constraints.conditions("scanFilter", request.scan_filter.as_ref());
    let segment = request.segment.map(i64::from);
    constraints.at_least("segment", segment, 0);
    constraints.at_most("segment", segment, SEGMENTS_MAX - 1);
    constraints.at_least("limit", request.limit.map(i64::from), 1);
    constraints.attributes_to_get("attributesToGet", request.attributes_to_get.as_ref());
    constraints.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_all_tokens_once() {
        for total in [1, 2, 3, 7, 1_000_000] {
            let ranges =
                [0, total / 2, total - 1].map(|segment| segment_range(Some(segment), Some(total)));
            assert_eq!(ranges[0].start, Vec::<u8>::new());
            assert_eq!(ranges[2].end, None);
            if total > 1 {
                let next = segment_range(Some(1), Some(total));
                assert_eq!(ranges[0].end.as_ref(), Some(&next.start));
            }
        }
    }
}
