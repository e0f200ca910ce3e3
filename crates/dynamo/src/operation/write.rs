//! What PutItem, UpdateItem and DeleteItem have in common: a condition in either dialect, one mutation, and the
//! item before and after it.

use super::{Context, write_request};
use crate::capacity::{Report, write_units};
use crate::error::Failure;
use crate::expression::{Placeholders, Usage, condition, legacy};
use crate::table::{Key, Schema, StoredItem};
use crate::wire::decode::Map;
use crate::wire::shape::ExpectedAttributeValue;
use crate::wire::writer::Writer;
use api::document::{self, Condition};
use api::{Error, Mutation, Refused, Returning, RowOperation};
use model::Row;

/// The condition of a write that has no other expressions.
pub struct Conditional<'a> {
    pub expression: Option<&'a str>,
    pub expected: Option<&'a Map<ExpectedAttributeValue>>,
    pub conditional_operator: Option<&'a str>,
}

impl Conditional<'_> {
    pub fn check_usage(&self, has_names: bool, has_values: bool) -> Result<(), String> {
        Usage {
            expressions: &[("ConditionExpression", self.expression.is_some())],
            legacy: &[("Expected", self.expected.is_some())],
            has_names,
            has_values,
        }
        .check()
    }

    /// Expected, or that it is missing where there is a ConditionalOperator.
    pub fn parse_expected(&self) -> Result<Option<Condition>, String> {
        let Some(expected) = self.expected else {
            if self.conditional_operator.is_some() && self.expression.is_none() {
                return Err(
                    "One or more parameter values were invalid: ConditionalOperator cannot be used without \
                     Filter or Expected"
                        .into(),
                );
            }
            return Ok(None);
        };
        legacy::expected(expected, self.conditional_operator).map(Some)
    }

    pub fn parse_expression(
        &self,
        placeholders: &mut Placeholders<'_>,
    ) -> Result<Option<Condition>, String> {
        self.expression
            .map(|text| {
                condition::parse(text, placeholders)
                    .map(|parsed| parsed.condition)
                    .map_err(|error| format!("Invalid ConditionExpression: {error}"))
            })
            .transpose()
    }
}

/// A mutation of one item, ready to be sent.
pub struct ItemWrite<'a> {
    pub schema: &'a Schema,
    pub key: Key,
    pub operation: RowOperation,
    pub condition: Option<Condition>,
    pub wants_old: bool,
    pub wants_new: bool,
    /// ReturnValuesOnConditionCheckFailure.
    pub wants_failed: bool,
    pub report: Report,
}

/// What became of it. Items are there if they exist and were asked for.
pub struct Written {
    pub old: Option<StoredItem>,
    pub new: Option<StoredItem>,
}

impl ItemWrite<'_> {
    pub async fn send(self, context: &Context<'_>) -> Result<Written, Failure> {
        let wants_old = self.wants_old || self.report.is_wanted();
        let returning = match (wants_old, self.wants_new) {
            (true, true) => Returning::Both,
            (true, false) => Returning::Old,
            (false, true) if self.wants_failed => Returning::Both,
            (false, true) => Returning::New,
            (false, false) if self.wants_failed => Returning::Old,
            (false, false) => Returning::Nothing,
        };
        let key = self.key;
        let mut mutation = Mutation::new(self.schema.table.id, key.bytes, self.operation);
        mutation.condition = self.condition.map(|condition| api::Condition::Document {
            column: self.schema.document,
            key: key.attributes.clone(),
            condition,
        });
        mutation.returning = returning;
        let stored = |row: Option<Row>| {
            row.map(|row| StoredItem {
                key: key.attributes.clone(),
                document: self.schema.document_of(row),
            })
        };
        match context.database.write(write_request(vec![mutation])).await {
            Ok(response) => {
                let returned = response.returned.into_iter().next().unwrap_or_default();
                Ok(Written {
                    old: stored(returned.old),
                    new: stored(returned.new),
                })
            }
            Err(Error::Refused(Refused::ConditionFailed { mutation, row })) => {
                let item = stored(row).filter(|_| self.wants_failed);
                let error = Error::Refused(Refused::ConditionFailed {
                    mutation,
                    row: None,
                });
                Err(Failure {
                    item: item.map(StoredItem::into_item),
                    ..error.into()
                })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes ConsumedCapacity, for an item of `after_bytes` after the write.
pub fn write_consumed(
    writer: &mut Writer,
    report: Report,
    schema: &Schema,
    old: Option<&StoredItem>,
    after_bytes: u64,
) {
    if report.is_wanted() {
        let before_bytes = old.map_or(0, StoredItem::size_bytes);
        report.write(writer, &schema.name, write_units(before_bytes, after_bytes));
    }
}

/// The size of an item in two parts.
pub fn size_bytes(key: &Key, document: &document::Item) -> u64 {
    key.size_bytes() + document::item_size_bytes(document)
}
