//! Key conditions: which partition, and which range of its sort keys. A KeyConditionExpression is a condition
//! expression of a narrow form; it becomes the same comparisons as the legacy KeyConditions.

use super::legacy::{Comparison, ComparisonOperator};
use api::document::{Comparator, Condition, Operand, Path};
use model::Value;

/// The comparisons of a parsed key condition.
pub fn comparisons(condition: &Condition) -> Result<Vec<Comparison>, String> {
    let mut comparisons = Vec::new();
    collect(condition, &mut comparisons)?;
    Ok(comparisons)
}

/// The rules that do not depend on the table.
pub fn check(comparisons: &[Comparison]) -> Result<(), String> {
    for comparison in comparisons {
        comparison.check()?;
    }
    if !(1..=2).contains(&comparisons.len()) {
        return Err("Conditions can be of length 1 or 2 only".into());
    }
    Ok(())
}

const NESTED: &str = "KeyConditionExpressions cannot contain nested operations";

fn collect(condition: &Condition, comparisons: &mut Vec<Comparison>) -> Result<(), String> {
    let invalid = |operator: &str| {
        Err(format!(
            "Invalid operator used in KeyConditionExpression: {operator}"
        ))
    };
    match condition {
        Condition::And(conditions) => conditions
            .iter()
            .try_for_each(|inner| collect(inner, comparisons)),
        Condition::Or(_) => invalid("OR"),
        Condition::Not(_) => invalid("NOT"),
        Condition::In { .. } => invalid("IN"),
        Condition::Exists(_) => invalid("attribute_exists"),
        Condition::Missing(_) => invalid("attribute_not_exists"),
        Condition::HasType { .. } => invalid("attribute_type"),
        Condition::Contains { .. } => invalid("contains"),
        Condition::Compare {
            comparator: Comparator::NotEqual,
            ..
        } => invalid("<>"),
        Condition::Compare {
            left,
            comparator,
            right,
        } => {
            let comparison = comparison(left, *comparator, right)?;
            push(comparisons, comparison)
        }
        Condition::Between { value, low, high } => {
            let path = first_operand("BETWEEN", value)?;
            let values = [low, high].map(literal);
            let attribute = single_attribute(path, [low, high])?;
            let [low, high] = values;
            push(
                comparisons,
                Comparison {
                    attribute,
                    operator: ComparisonOperator::Between,
                    values: vec![low?, high?],
                },
            )
        }
        Condition::BeginsWith { value, prefix } => {
            let path = first_operand("begins_with", value)?;
            let attribute = single_attribute(path, [prefix])?;
            push(
                comparisons,
                Comparison {
                    attribute,
                    operator: ComparisonOperator::BeginsWith,
                    values: vec![literal(prefix)?],
                },
            )
        }
    }
}

fn push(comparisons: &mut Vec<Comparison>, comparison: Comparison) -> Result<(), String> {
    if comparisons
        .iter()
        .any(|earlier| earlier.attribute == comparison.attribute)
    {
        return Err("KeyConditionExpressions must only contain one condition per key".into());
    }
    comparisons.push(comparison);
    Ok(())
}

fn comparison(
    left: &Operand,
    comparator: Comparator,
    right: &Operand,
) -> Result<Comparison, String> {
    let (path, value, comparator) = match (left, right) {
        (Operand::Size(_), _) | (_, Operand::Size(_)) => return Err(NESTED.into()),
        (Operand::Path(path), value) => (path, value, comparator),
        (value, Operand::Path(path)) => (path, value, mirrored(comparator)),
        (Operand::Value(_), Operand::Value(_)) => {
            return Err(
                "Invalid condition in KeyConditionExpression: No key attribute specified".into(),
            );
        }
    };
    let attribute = single_attribute(path, [value])?;
    let operator = match comparator {
        Comparator::Less => ComparisonOperator::Less,
        Comparator::LessOrEqual => ComparisonOperator::LessOrEqual,
        Comparator::Greater => ComparisonOperator::Greater,
        Comparator::GreaterOrEqual => ComparisonOperator::GreaterOrEqual,
        Comparator::Equal | Comparator::NotEqual => ComparisonOperator::Equal,
    };
    Ok(Comparison {
        attribute,
        operator,
        values: vec![literal(value)?],
    })
}

fn mirrored(comparator: Comparator) -> Comparator {
    match comparator {
        Comparator::Less => Comparator::Greater,
        Comparator::LessOrEqual => Comparator::GreaterOrEqual,
        Comparator::Greater => Comparator::Less,
        Comparator::GreaterOrEqual => Comparator::LessOrEqual,
        other => other,
    }
}

fn first_operand<'a>(operator: &str, operand: &'a Operand) -> Result<&'a Path, String> {
    match operand {
        Operand::Path(path) => Ok(path),
        _ => Err(format!(
            "Invalid condition in KeyConditionExpression: {operator} operator must have the key attribute as \
             its first operand"
        )),
    }
}

fn single_attribute<'a>(
    path: &Path,
    others: impl IntoIterator<Item = &'a Operand>,
) -> Result<String, String> {
    if !path.steps.is_empty() {
        return Err("KeyConditionExpressions cannot have conditions on nested attributes".into());
    }
    for other in others {
        if let Operand::Path(_) = other {
            return Err(
                "Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition"
                    .into(),
            );
        }
    }
    Ok(path.name.clone())
}

fn literal(operand: &Operand) -> Result<Value, String> {
    match operand {
        Operand::Value(value) => Ok(value.clone()),
        _ => Err(NESTED.into()),
    }
}
