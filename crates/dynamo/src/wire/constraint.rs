//! The constraints of the service's model: lengths, ranges, patterns and enumerations of members. All that a
//! request violates, up to ten, are reported at once.

use super::decode::Map;
use super::shape::{Condition, ExpectedAttributeValue};

/// So many violations are reported.
const REPORTED_MAX: usize = 10;

pub const CONSUMED_CAPACITY: &[&str] = &["INDEXES", "TOTAL", "NONE"];
pub const COLLECTION_METRICS: &[&str] = &["SIZE", "NONE"];
pub const RETURN_VALUES: &[&str] = &["ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW"];
pub const ON_CONDITION_FAILURE: &[&str] = &["ALL_OLD", "NONE"];
pub const CONDITIONAL_OPERATOR: &[&str] = &["OR", "AND"];
pub const SELECT: &[&str] = &[
    "SPECIFIC_ATTRIBUTES",
    "COUNT",
    "ALL_ATTRIBUTES",
    "ALL_PROJECTED_ATTRIBUTES",
];
pub const COMPARISON_OPERATOR: &[&str] = &[
    "IN",
    "NULL",
    "BETWEEN",
    "LT",
    "NOT_CONTAINS",
    "EQ",
    "GT",
    "NOT_NULL",
    "NE",
    "LE",
    "BEGINS_WITH",
    "GE",
    "CONTAINS",
];

#[derive(Debug, Default)]
pub struct Constraints {
    violations: Vec<String>,
}

impl Constraints {
    fn violated(&mut self, value: Option<&str>, path: &str, constraint: &str) {
        if self.violations.len() >= REPORTED_MAX {
            return;
        }
        let value = value.map_or("null".into(), |value| format!("'{value}'"));
        self.violations.push(format!(
            "Value {value} at '{path}' failed to satisfy constraint: {constraint}"
        ));
    }

    pub fn present<T>(&mut self, path: &str, value: &Option<T>) {
        if value.is_none() {
            self.violated(None, path, "Member must not be null");
        }
    }

    pub fn one_of(&mut self, path: &str, value: Option<&str>, members: &[&str]) {
        if let Some(value) = value
            && !members.contains(&value)
        {
            let set = format!(
                "Member must satisfy enum value set: [{}]",
                members.join(", ")
            );
            self.violated(Some(value), path, &set);
        }
    }

    pub fn at_least(&mut self, path: &str, value: Option<i64>, least: i64) {
        if let Some(value) = value
            && value < least
        {
            let constraint = format!("Member must have value greater than or equal to {least}");
            self.violated(Some(&value.to_string()), path, &constraint);
        }
    }

    pub fn at_most(&mut self, path: &str, value: Option<i64>, most: i64) {
        if let Some(value) = value
            && value > most
        {
            let constraint = format!("Member must have value less than or equal to {most}");
            self.violated(Some(&value.to_string()), path, &constraint);
        }
    }

    /// A length of anything, with the value as it is to be shown.
    pub fn length(&mut self, path: &str, length: usize, least: usize, most: usize, shown: &str) {
        if length < least {
            let constraint = format!("Member must have length greater than or equal to {least}");
            self.violated(Some(shown), path, &constraint);
        }
        if length > most {
            let constraint = format!("Member must have length less than or equal to {most}");
            self.violated(Some(shown), path, &constraint);
        }
    }

    /// A list of names to get.
    pub fn attributes_to_get(&mut self, path: &str, names: Option<&Vec<String>>) {
        if let Some(names) = names {
            let shown = format!("[{}]", names.join(", "));
            self.length(path, names.len(), 1, 255, &shown);
        }
    }

    /// `[a-zA-Z0-9_.-]+`, 3 to 255 characters: names of tables and indexes.
    pub fn resource_name(&mut self, path: &str, value: Option<&str>) {
        let Some(value) = value else {
            return;
        };
        self.resource_pattern(path, Some(value));
        self.length(path, value.encode_utf16().count(), 3, 255, value);
    }

    pub fn resource_pattern(&mut self, path: &str, value: Option<&str>) {
        if let Some(value) = value
            && !matches_resource_pattern(value)
        {
            self.violated(
                Some(value),
                path,
                "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
            );
        }
    }

    pub fn table_name(&mut self, value: Option<&str>) {
        if value.is_none() {
            self.violated(None, "tableName", "Member must not be null");
        }
        self.resource_name("tableName", value);
    }

    /// The keys of a map of tables.
    pub fn table_names<'a>(
        &mut self,
        path: &str,
        mut names: impl Iterator<Item = &'a str>,
        shown: impl Fn() -> String,
    ) {
        let is_fine =
            |name: &str| (3..=255).contains(&name.len()) && matches_resource_pattern(name);
        if !names.all(is_fine) {
            self.violated(
                Some(&shown()),
                path,
                "Map keys must satisfy constraint: [Member must have length less than or equal to 255, \
                 Member must have length greater than or equal to 3, Member must satisfy regular \
                 expression pattern: [a-zA-Z0-9_.-]+]",
            );
        }
    }

    /// The lengths of lists in a map.
    pub fn value_lengths(
        &mut self,
        path: &str,
        mut lengths: impl Iterator<Item = usize>,
        most: usize,
        shown: impl Fn() -> String,
    ) {
        if !lengths.all(|length| (1..=most).contains(&length)) {
            let constraint = format!(
                "Map value must satisfy constraint: [Member must have length less than or equal to {most}, \
                 Member must have length greater than or equal to 1]"
            );
            self.violated(Some(&shown()), path, &constraint);
        }
    }

    /// The comparison operators of Expected.
    pub fn expected(&mut self, expected: Option<&Map<ExpectedAttributeValue>>) {
        for (attribute, condition) in expected.into_iter().flat_map(Map::iter) {
            self.one_of(
                &format!("expected.{attribute}.member.comparisonOperator"),
                condition.comparison_operator.as_deref(),
                COMPARISON_OPERATOR,
            );
        }
    }

    /// The comparison operators of KeyConditions, QueryFilter and ScanFilter.
    pub fn conditions(&mut self, parameter: &str, conditions: Option<&Map<Condition>>) {
        for (attribute, condition) in conditions.into_iter().flat_map(Map::iter) {
            let path = format!("{parameter}.{attribute}.member.comparisonOperator");
            self.present(&path, &condition.comparison_operator);
            self.one_of(
                &path,
                condition.comparison_operator.as_deref(),
                COMPARISON_OPERATOR,
            );
        }
    }

    /// The violations as the service's message.
    pub fn finish(self) -> Result<(), String> {
        match self.violations.len() {
            0 => Ok(()),
            count => Err(format!(
                "{count} validation error{} detected: {}",
                if count > 1 { "s" } else { "" },
                self.violations.join("; ")
            )),
        }
    }
}

fn matches_resource_pattern(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_reported_together() {
        let mut constraints = Constraints::default();
        constraints.one_of("returnConsumedCapacity", Some("hi"), CONSUMED_CAPACITY);
        constraints.table_name(Some("a;"));
        assert_eq!(
            constraints.finish(),
            Err("3 validation errors detected: \
                 Value 'hi' at 'returnConsumedCapacity' failed to satisfy constraint: Member must satisfy \
                 enum value set: [INDEXES, TOTAL, NONE]; \
                 Value 'a;' at 'tableName' failed to satisfy constraint: Member must satisfy regular \
                 expression pattern: [a-zA-Z0-9_.-]+; \
                 Value 'a;' at 'tableName' failed to satisfy constraint: Member must have length greater \
                 than or equal to 3"
                .into())
        );
        assert_eq!(Constraints::default().finish(), Ok(()));
    }
}
