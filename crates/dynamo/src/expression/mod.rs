//! DynamoDB's expression language: conditions and filters, key conditions, updates and projections, with
//! their placeholders. Lowers to the trees of `api::document`.
//!
//! The service checks an expression in phases, and reports the error of the earliest phase whatever its
//! position in the text: the grammar first, then (depending on the kind of expression) functions, reserved
//! words, placeholders, paths, and operand types. The parsers here note the first error of each phase while
//! they read and pick at the end.

pub mod condition;
pub mod key_condition;
pub mod legacy;
mod lexer;
pub mod projection;
mod reserved;
pub mod update;

#[cfg(test)]
mod tests;

use crate::wire::attribute::{Attribute, TOO_DEEP};
use crate::wire::decode::Map;
use api::document::{self, AttributeType, Path, Step};
use model::Value;
use std::collections::BTreeMap;

/// Names and values together may not be larger.
const PLACEHOLDERS_SIZE_BYTES_MAX: u64 = 2 << 20;

/// ExpressionAttributeNames and ExpressionAttributeValues: each must be used somewhere.
#[derive(Debug, Default)]
pub struct Placeholders<'a> {
    names: BTreeMap<&'a str, Placeholder<&'a str>>,
    values: BTreeMap<&'a str, Placeholder<&'a Value>>,
    name_order: Vec<&'a str>,
    value_order: Vec<&'a str>,
}

#[derive(Debug)]
struct Placeholder<T> {
    target: T,
    is_used: bool,
}

impl<'a> Placeholders<'a> {
    pub fn new(
        names: Option<&'a Map<String>>,
        values: Option<&'a Map<Attribute>>,
    ) -> Result<Placeholders<'a>, String> {
        let mut placeholders = Placeholders::default();
        let mut size = 0;
        if let Some(names) = names {
            check_keys("ExpressionAttributeNames", names, '#')?;
            for (key, target) in names.iter() {
                size += (key.len() + target.len()) as u64;
                placeholders.name_order.push(key);
                let is_used = false;
                placeholders
                    .names
                    .insert(key, Placeholder { target, is_used });
            }
        }
        if let Some(values) = values {
            check_keys("ExpressionAttributeValues", values, ':')?;
            for (key, attribute) in values.iter() {
                let target = valid_value(attribute).map_err(|message| {
                    format!(
                        "ExpressionAttributeValues contains invalid value: {message} for key {key}"
                    )
                })?;
                size += document::attribute_size_bytes(key, target);
                placeholders.value_order.push(key);
                let is_used = false;
                placeholders
                    .values
                    .insert(key, Placeholder { target, is_used });
            }
        }
        if size > PLACEHOLDERS_SIZE_BYTES_MAX {
            return Err(format!(
                "The size of ExpressionAttributeNames and ExpressionAttributeValues exceeds \
                 {PLACEHOLDERS_SIZE_BYTES_MAX} bytes"
            ));
        }
        Ok(placeholders)
    }

    fn name(&mut self, key: &str) -> Option<&'a str> {
        let placeholder = self.names.get_mut(key)?;
        placeholder.is_used = true;
        Some(placeholder.target)
    }

    fn value(&mut self, key: &str) -> Option<&'a Value> {
        let placeholder = self.values.get_mut(key)?;
        placeholder.is_used = true;
        Some(placeholder.target)
    }

    /// Refuses what no expression used.
    pub fn finish(self) -> Result<(), String> {
        let unused = |parameter: &str, keys: Vec<&str>| {
            if keys.is_empty() {
                return Ok(());
            }
            Err(format!(
                "Value provided in {parameter} unused in expressions: keys: {{{}}}",
                keys.join(", ")
            ))
        };
        let names = self.name_order.iter().copied();
        unused(
            "ExpressionAttributeNames",
            names.filter(|key| !self.names[key].is_used).collect(),
        )?;
        let values = self.value_order.iter().copied();
        unused(
            "ExpressionAttributeValues",
            values.filter(|key| !self.values[key].is_used).collect(),
        )
    }
}

fn valid_value(attribute: &Attribute) -> Result<&Value, &str> {
    match &attribute.0 {
        Ok(value) if document::depth(value) > document::DEPTH_MAX => Err(TOO_DEEP),
        Ok(value) => Ok(value),
        Err(message) => Err(message),
    }
}

fn check_keys<T>(parameter: &str, map: &Map<T>, prefix: char) -> Result<(), String> {
    if map.is_empty() {
        return Err(format!("{parameter} must not be empty"));
    }
    for (key, _) in map.iter() {
        let is_fine = key.strip_prefix(prefix).is_some_and(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        });
        if !is_fine {
            return Err(format!(
                "{parameter} contains invalid key: Syntax error; key: \"{key}\""
            ));
        }
    }
    Ok(())
}

/// Which parameters of a request are there, for the rules on mixing old and new ones.
pub struct Usage<'a> {
    /// The expression parameters that the operation has, and whether the request does.
    pub expressions: &'a [(&'a str, bool)],
    /// The legacy parameters.
    pub legacy: &'a [(&'a str, bool)],
    pub has_names: bool,
    pub has_values: bool,
}

impl Usage<'_> {
    pub fn check(&self) -> Result<(), String> {
        let present = |parameters: &[(&str, bool)]| {
            let names: Vec<String> = parameters
                .iter()
                .filter(|(_, is_present)| *is_present)
                .map(|(name, _)| (*name).to_owned())
                .collect();
            names
        };
        let expressions = present(self.expressions);
        let mut legacy = present(self.legacy);
        // KeyConditions may go with the other expressions of a query.
        let has_key_expression = expressions
            .iter()
            .any(|name| name == "KeyConditionExpression");
        if !has_key_expression {
            legacy.retain(|name| name != "KeyConditions");
        }
        if !expressions.is_empty() && !legacy.is_empty() {
            return Err(format!(
                "Can not use both expression and non-expression parameters in the same request: \
                 Non-expression parameters: {{{}}} Expression parameters: {{{}}}",
                legacy.join(", "),
                expressions.join(", ")
            ));
        }
        if self.has_names && expressions.is_empty() {
            return Err(
                "ExpressionAttributeNames can only be specified when using expressions".into(),
            );
        }
        let with_values: Vec<&(&str, bool)> = self
            .expressions
            .iter()
            .filter(|(name, _)| *name != "ProjectionExpression")
            .collect();
        if self.has_values
            && !with_values.is_empty()
            && with_values.iter().all(|(_, is_present)| !is_present)
        {
            let names: Vec<&str> = with_values.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "ExpressionAttributeValues can only be specified when using expressions: {} {} null",
                names.join(" and "),
                if names.len() > 1 { "are" } else { "is" }
            ));
        }
        Ok(())
    }
}

/// Refuses paths of which one is, or lies inside, another.
fn check_overlap<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Overlaps {
    let mut overlaps = Overlaps::default();
    let mut seen: Vec<&Path> = Vec::new();
    for path in paths {
        for earlier in &seen {
            overlaps.note(earlier, path);
        }
        if overlaps.overlap.is_some() {
            break;
        }
        seen.push(path);
    }
    overlaps
}

/// The first overlap and the first conflict.
#[derive(Debug, Default)]
struct Overlaps {
    overlap: Option<String>,
    conflict: Option<String>,
}

impl Overlaps {
    fn note(&mut self, one: &Path, two: &Path) {
        if one.name != two.name {
            return;
        }
        let problem = |what: &str| {
            Some(format!(
                "Two document paths {what} with each other; must remove or rewrite one of these paths; \
                 path one: {one}, path two: {two}"
            ))
        };
        for pair in one.steps.iter().zip(&two.steps) {
            match pair {
                (Step::Field(_), Step::Index(_)) | (Step::Index(_), Step::Field(_)) => {
                    if self.conflict.is_none() {
                        self.conflict = problem("conflict");
                    }
                    return;
                }
                (one, two) if one != two => return,
                _ => {}
            }
        }
        if self.overlap.is_none() {
            self.overlap = problem("overlap");
        }
    }
}

/// `{S:text}`, as some messages show a value.
fn show(value: &Value) -> String {
    let kind = AttributeType::of(value).map_or("NULL", AttributeType::descriptor);
    format!("AttributeValue: {{{kind}:{}}}", show_plain(value))
}

fn show_plain(value: &Value) -> String {
    use base64::Engine;
    match value {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes),
        Value::Bool(value) => value.to_string(),
        Value::Set(members) => {
            let shown: Vec<String> = members.iter().map(show_plain).collect();
            format!("[{}]", shown.join(", "))
        }
        Value::List(elements) => {
            let shown: Vec<String> = elements.iter().map(show).collect();
            format!("[{}]", shown.join(", "))
        }
        Value::Document(fields) => {
            let shown: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}={}", show(value)))
                .collect();
            format!("{{{}}}", shown.join(", "))
        }
        _ => "true".into(),
    }
}
