//! The legacy parameters: Expected, QueryFilter, ScanFilter, KeyConditions and AttributeUpdates, lowered to
//! the same trees as expressions.

use crate::wire::attribute::Attribute;
use crate::wire::decode::Map;
use crate::wire::shape::{
    AttributeValueUpdate, Condition as WireCondition, ExpectedAttributeValue,
};
use api::document::{
    self, AttributeType, Comparator, Condition, Dialect, Operand, Path, SetOperand, SetValue,
    Update,
};
use model::Value;
use std::cmp::Ordering;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonOperator {
    Equal,
    NotEqual,
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    NotNull,
    Null,
    Contains,
    NotContains,
    BeginsWith,
    In,
    Between,
}

const NAMES: [(&str, ComparisonOperator); 13] = [
    ("EQ", ComparisonOperator::Equal),
    ("NE", ComparisonOperator::NotEqual),
    ("LE", ComparisonOperator::LessOrEqual),
    ("LT", ComparisonOperator::Less),
    ("GE", ComparisonOperator::GreaterOrEqual),
    ("GT", ComparisonOperator::Greater),
    ("NOT_NULL", ComparisonOperator::NotNull),
    ("NULL", ComparisonOperator::Null),
    ("CONTAINS", ComparisonOperator::Contains),
    ("NOT_CONTAINS", ComparisonOperator::NotContains),
    ("BEGINS_WITH", ComparisonOperator::BeginsWith),
    ("IN", ComparisonOperator::In),
    ("BETWEEN", ComparisonOperator::Between),
];

impl ComparisonOperator {
    pub fn parse(name: &str) -> Option<ComparisonOperator> {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, operator)| *operator)
    }

    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, operator)| *operator == self)
            .map_or("", |(name, _)| name)
    }

    fn takes(self, count: usize) -> bool {
        match self {
            ComparisonOperator::NotNull | ComparisonOperator::Null => count == 0,
            ComparisonOperator::Between => count == 2,
            ComparisonOperator::In => count >= 1,
            _ => count == 1,
        }
    }

    fn accepts(self, kind: AttributeType) -> bool {
        use AttributeType::{Binary, BinarySet, Number, NumberSet, String, StringSet};
        match self {
            ComparisonOperator::Equal | ComparisonOperator::NotEqual => true,
            ComparisonOperator::BeginsWith => matches!(kind, String | Binary),
            ComparisonOperator::Contains | ComparisonOperator::NotContains => {
                !matches!(kind, StringSet | NumberSet | BinarySet)
                    && matches!(kind, String | Number | Binary)
            }
            _ => matches!(kind, String | Number | Binary),
        }
    }
}

/// A condition on one top-level attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub attribute: String,
    pub operator: ComparisonOperator,
    pub values: Vec<Value>,
}

impl Comparison {
    /// The rules on the number and types of values.
    pub fn check(&self) -> Result<(), String> {
        self.check_count()?;
        check_same_type(&self.values)?;
        for kind in self.values.iter().filter_map(AttributeType::of) {
            if !self.operator.accepts(kind) {
                return Err(format!(
                    "One or more parameter values were invalid: ComparisonOperator {} is not valid for {} \
                     AttributeValue type",
                    self.operator.name(),
                    kind.descriptor()
                ));
            }
        }
        self.check_bounds()
    }

    fn check_count(&self) -> Result<(), String> {
        if self.operator.takes(self.values.len()) {
            return Ok(());
        }
        Err(format!(
            "One or more parameter values were invalid: Invalid number of argument(s) for the {} \
             ComparisonOperator",
            self.operator.name()
        ))
    }

    fn check_bounds(&self) -> Result<(), String> {
        if let (ComparisonOperator::Between, [low, high]) = (self.operator, self.values.as_slice())
            && document::compare(low, high) == Some(Ordering::Greater)
        {
            return Err(
                "The BETWEEN condition was provided a range where the lower bound is greater than the upper \
                 bound"
                    .into(),
            );
        }
        Ok(())
    }

    pub fn into_condition(self) -> Condition {
        let path = Path::attribute(self.attribute);
        let attribute = Operand::Path(path.clone());
        let mut values = self.values.into_iter().map(Operand::Value);
        // The number of values is checked; a missing one would compare with null.
        let mut next = || values.next().unwrap_or(Operand::Value(Value::Null));
        let compare = |comparator, right| Condition::Compare {
            left: attribute.clone(),
            comparator,
            right,
        };
        match self.operator {
            ComparisonOperator::Equal => compare(Comparator::Equal, next()),
            ComparisonOperator::NotEqual => compare(Comparator::NotEqual, next()),
            ComparisonOperator::LessOrEqual => compare(Comparator::LessOrEqual, next()),
            ComparisonOperator::Less => compare(Comparator::Less, next()),
            ComparisonOperator::GreaterOrEqual => compare(Comparator::GreaterOrEqual, next()),
            ComparisonOperator::Greater => compare(Comparator::Greater, next()),
            ComparisonOperator::NotNull => Condition::Exists(path),
            ComparisonOperator::Null => Condition::Missing(path),
            ComparisonOperator::Contains => Condition::Contains {
                container: attribute,
                element: next(),
            },
            ComparisonOperator::NotContains => Condition::Not(Box::new(Condition::Contains {
                container: attribute,
                element: next(),
            })),
            ComparisonOperator::BeginsWith => Condition::BeginsWith {
                value: attribute,
                prefix: next(),
            },
            ComparisonOperator::In => Condition::In {
                value: attribute,
                candidates: values.collect(),
            },
            ComparisonOperator::Between => Condition::Between {
                value: attribute,
                low: next(),
                high: next(),
            },
        }
    }
}

fn check_same_type(values: &[Value]) -> Result<(), String> {
    let mut kinds = values.iter().map(AttributeType::of);
    let first = kinds.next();
    if kinds.any(|kind| Some(kind) != first) {
        return Err(
            "One or more parameter values were invalid: AttributeValues inside AttributeValueList must be of \
             same type"
                .into(),
        );
    }
    Ok(())
}

fn valid_values(attributes: &[Attribute]) -> Result<Vec<Value>, String> {
    attributes
        .iter()
        .map(|attribute| attribute.0.clone())
        .collect()
}

/// The conditions of KeyConditions, QueryFilter or ScanFilter; constraints on the operator's name are
/// checked already.
pub fn comparisons(conditions: &Map<WireCondition>) -> Result<Vec<Comparison>, String> {
    let mut comparisons = Vec::with_capacity(conditions.len());
    for (attribute, condition) in conditions.iter() {
        let name = condition.comparison_operator.as_deref().unwrap_or("");
        let operator = ComparisonOperator::parse(name)
            .ok_or_else(|| format!("Unsupported operator on a condition: {name}"))?;
        let values = valid_values(condition.attribute_value_list.as_deref().unwrap_or(&[]))?;
        let comparison = Comparison {
            attribute: attribute.to_owned(),
            operator,
            values,
        };
        comparison.check()?;
        comparisons.push(comparison);
    }
    Ok(comparisons)
}

/// Several conditions as one, by ConditionalOperator.
pub fn join(comparisons: Vec<Comparison>, conditional_operator: Option<&str>) -> Condition {
    let conditions: Vec<Condition> = comparisons
        .into_iter()
        .map(Comparison::into_condition)
        .collect();
    match conditional_operator {
        Some("OR") if !conditions.is_empty() => Condition::Or(conditions),
        _ => Condition::And(conditions),
    }
}

/// Expected, as a condition.
pub fn expected(
    expected: &Map<ExpectedAttributeValue>,
    conditional_operator: Option<&str>,
) -> Result<Condition, String> {
    let comparisons = expected
        .iter()
        .map(|(attribute, condition)| expected_comparison(attribute, condition))
        .collect::<Result<_, _>>()?;
    Ok(join(comparisons, conditional_operator))
}

const INVALID: &str = "One or more parameter values were invalid: ";

fn expected_comparison(
    attribute: &str,
    condition: &ExpectedAttributeValue,
) -> Result<Comparison, String> {
    let list = condition.attribute_value_list.as_deref();
    if list.is_some() && condition.value.is_some() {
        return Err(format!(
            "{INVALID}Value and AttributeValueList cannot be used together for Attribute: {attribute}"
        ));
    }
    let comparison = |operator, values| Comparison {
        attribute: attribute.to_owned(),
        operator,
        values,
    };
    let value = || {
        condition
            .value
            .as_ref()
            .map(|value| value.0.clone())
            .transpose()
    };
    if let Some(name) = &condition.comparison_operator {
        if condition.exists.is_some() {
            return Err(format!(
                "{INVALID}Exists and ComparisonOperator cannot be used together for Attribute: {attribute}"
            ));
        }
        let operator = ComparisonOperator::parse(name)
            .ok_or_else(|| format!("Unsupported operator on a condition: {name}"))?;
        if !operator.takes(0) && list.is_none() && condition.value.is_none() {
            return Err(format!(
                "{INVALID}Value or AttributeValueList must be used with ComparisonOperator: {name} for \
                 Attribute: {attribute}"
            ));
        }
        let values = match list {
            Some(list) => valid_values(list)?,
            None => value()?.into_iter().collect(),
        };
        let comparison = comparison(operator, values);
        comparison.check_count()?;
        check_same_type(&comparison.values)?;
        comparison.check_bounds()?;
        return Ok(comparison);
    }
    if list.is_some() {
        return Err(format!(
            "{INVALID}AttributeValueList can only be used with a ComparisonOperator for Attribute: {attribute}"
        ));
    }
    match (condition.exists, value()?) {
        (None | Some(true), None) => {
            let exists = condition.exists.map_or("null", |_| "true");
            Err(format!(
                "{INVALID}Value must be provided when Exists is {exists} for Attribute: {attribute}"
            ))
        }
        (Some(false), Some(_)) => Err(format!(
            "{INVALID}Value cannot be used when Exists is false for Attribute: {attribute}"
        )),
        (Some(false), None) => Ok(comparison(ComparisonOperator::Null, Vec::new())),
        (_, Some(value)) => Ok(comparison(ComparisonOperator::Equal, vec![value])),
    }
}

/// AttributeUpdates, as an update.
pub fn attribute_updates(updates: &Map<AttributeValueUpdate>) -> Result<Update, String> {
    let mut update = Update {
        dialect: Dialect::AttributeUpdates,
        ..Update::default()
    };
    for (attribute, change) in updates.iter() {
        let value = change
            .value
            .as_ref()
            .map(|value| value.0.clone())
            .transpose()?;
        let path = Path::attribute(attribute);
        match (change.action.as_deref().unwrap_or("PUT"), value) {
            ("DELETE", None) => update.remove.push(path),
            (_, None) => {
                return Err(format!(
                    "{INVALID}Only DELETE action is allowed when no attribute value is specified"
                ));
            }
            ("PUT", Some(value)) => {
                update
                    .set
                    .push((path, SetValue::Operand(SetOperand::Value(value))));
            }
            ("ADD", Some(value)) => {
                require_type(&value, "ADD action is not", |kind| {
                    matches!(kind, AttributeType::Number | AttributeType::List)
                })?;
                update.add.push((path, value));
            }
            ("DELETE", Some(value)) => {
                require_type(&value, "DELETE action with value is not", |_| false)?;
                update.delete.push((path, value));
            }
            (action, Some(_)) => {
                return Err(format!(
                    "1 validation error detected: Value '{action}' at \
                     'attributeUpdates.{attribute}.member.action' failed to satisfy constraint: Member must \
                     satisfy enum value set: [ADD, DELETE, PUT]"
                ));
            }
        }
    }
    Ok(update)
}

/// Sets are always fine; `or` says what else is.
fn require_type(
    value: &Value,
    what: &str,
    or: impl Fn(AttributeType) -> bool,
) -> Result<(), String> {
    match AttributeType::of(value) {
        Some(AttributeType::StringSet | AttributeType::NumberSet | AttributeType::BinarySet) => {
            Ok(())
        }
        Some(kind) if or(kind) => Ok(()),
        kind => Err(format!(
            "{INVALID}{what} supported for the type {}",
            kind.map_or("NULL", AttributeType::descriptor)
        )),
    }
}
