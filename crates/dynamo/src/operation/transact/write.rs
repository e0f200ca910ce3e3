//! TransactWriteItems.

use super::in_progress::in_progress;
use super::token::Token;
use super::{
    Address, Consumed, Cut, NOT_ONE_EACH, check_distinct, check_items, check_size, check_table_name,
};
use crate::capacity::{Report, read_units, write_units};
use crate::error::{Failure, Reason};
use crate::expression::update::{self, Parsed};
use crate::expression::{Placeholders, Usage, condition};
use crate::operation::put::{TOO_LARGE, replace};
use crate::operation::update::check_targets;
use crate::operation::{Context, required};
use crate::table::{Key, Schema, StoredItem};
use crate::wire::attribute::{Attribute, AttributeMap};
use crate::wire::constraint::{
    COLLECTION_METRICS, CONSUMED_CAPACITY, Constraints, ON_CONDITION_FAILURE,
};
use crate::wire::decode::{Map, body};
use crate::wire::shape::{TransactWriteItem, TransactWriteItemsRequest};
use crate::wire::writer::Writer;
use api::document::{self, Condition, ITEM_SIZE_BYTES_MAX, Item};
use api::evaluate::{Moment, evaluate};
use api::{
    Error, Mutation, Patience, Refused, Retry, ReturnedRows, Returning, RowOperation, WriteRequest,
    WriteResponse,
};
use model::Row;
use std::time::Duration;

const ATTEMPTS_MAX: u32 = 6;
/// Before the second attempt; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(5);
/// An item that has not been free for so long is in conflict.
const PROBE_MS: u32 = 100;

pub async fn run(context: &Context<'_>, text: &str) -> Result<String, Failure> {
    let request: TransactWriteItemsRequest = body(text)?;
    check_constraints(&request)?;
    let drafts = request
        .transact_items
        .iter()
        .flatten()
        .map(Draft::parse)
        .collect::<Result<Vec<_>, Failure>>()?;
    check_size(drafts.iter().map(|draft| draft.size_bytes).sum())?;
    let actions = drafts
        .into_iter()
        .map(|draft| draft.lower(context))
        .collect::<Result<Vec<_>, Failure>>()?;
    check_distinct(actions.iter().map(|action| &action.address))?;
    let _turn = match &request.client_request_token {
        Some(text) => Some(context.tokens_in_progress.enter(text).await?),
        None => None,
    };
    let token = match &request.client_request_token {
        Some(text) => {
            let mutations: Vec<Mutation> = actions.iter().map(Action::mutation).collect();
            Some(Token::new(context, text, &mutations).await?)
        }
        None => None,
    };
    let report = Report::parse(request.return_consumed_capacity.as_deref());
    let transaction = Transaction {
        actions,
        token,
        report,
    };
    let mut writer = Writer::with_capacity(128);
    writer.begin_object();
    match transaction.send(context).await? {
        Done::Now(response) => {
            let consumed = transaction.consumed(response);
            consumed.write(&mut writer, report, "WriteCapacityUnits");
        }
        Done::Before(cut) => {
            let consumed = transaction.consumed_by_reading(&cut);
            consumed.write(&mut writer, report, "ReadCapacityUnits");
        }
    }
    writer.end_object();
    Ok(writer.finish())
}

/// One operation as the request has it, its expressions parsed, before anything is known of its table.
struct Draft<'r> {
    table_name: &'r str,
    change: Change<'r>,
    condition: Option<Condition>,
    wants_failed: bool,
    size_bytes: u64,
}

enum Change<'r> {
    Put(&'r Item),
    Update(&'r Item, Parsed),
    Delete(&'r Item),
    Check(&'r Item),
}

/// What all kinds of operations have, as the request has it.
struct Members<'r> {
    table_name: &'r Option<String>,
    /// The item that is put, or the key of the others.
    item: &'r Option<AttributeMap>,
    update: Option<&'r String>,
    condition: Option<&'r String>,
    names: Option<&'r Map<String>>,
    values: Option<&'r Map<Attribute>>,
    on_condition_failure: Option<&'r str>,
}

macro_rules! members {
    ($operation:ident, $item:ident) => {
        Members {
            table_name: &$operation.table_name,
            item: &$operation.$item,
            update: None,
            condition: $operation.condition_expression.as_ref(),
            names: $operation.expression_attribute_names.as_ref(),
            values: $operation.expression_attribute_values.as_ref(),
            on_condition_failure: $operation
                .return_values_on_condition_check_failure
                .as_deref(),
        }
    };
}

impl<'r> Members<'r> {
    fn parse_expressions(&self) -> Result<(Parsed, Option<Condition>), String> {
        let present = [
            ("UpdateExpression", self.update.is_some()),
            ("ConditionExpression", self.condition.is_some()),
        ];
        Usage {
            expressions: &present[usize::from(self.update.is_none())..],
            legacy: &[],
            has_names: self.names.is_some(),
            has_values: self.values.is_some(),
        }
        .check()?;
        let mut placeholders = Placeholders::new(self.names, self.values)?;
        let update = self.update.map(|text| {
            update::parse(text, &mut placeholders)
                .map_err(|error| format!("Invalid UpdateExpression: {error}"))
        });
        let update = update.transpose()?;
        let condition = self.condition.map(|text| {
            condition::parse(text, &mut placeholders)
                .map_err(|error| format!("Invalid ConditionExpression: {error}"))
        });
        let condition = condition.transpose()?.map(|parsed| parsed.condition);
        placeholders.finish()?;
        Ok((update.unwrap_or_default(), condition))
    }

    fn values_size_bytes(&self) -> u64 {
        let values = self.values.into_iter().flat_map(Map::iter);
        values
            .filter_map(|(name, value)| Some((name, value.0.as_ref().ok()?)))
            .map(|(name, value)| document::attribute_size_bytes(name, value))
            .sum()
    }

    fn draft(
        self,
        change: impl FnOnce(&'r Item, Parsed) -> Change<'r>,
    ) -> Result<Draft<'r>, Failure> {
        let item = required(self.item, "Key")?.check()?;
        let (update, condition) = self.parse_expressions()?;
        Ok(Draft {
            table_name: required(self.table_name, "TableName")?,
            change: change(item, update),
            condition,
            wants_failed: self.on_condition_failure == Some("ALL_OLD"),
            size_bytes: document::item_size_bytes(item) + self.values_size_bytes(),
        })
    }
}

impl<'r> Draft<'r> {
    fn parse(item: &'r TransactWriteItem) -> Result<Draft<'r>, Failure> {
        match (&item.put, &item.update, &item.delete, &item.condition_check) {
            (Some(put), None, None, None) => {
                let draft = members!(put, item).draft(|item, _| Change::Put(item))?;
                if let Change::Put(item) = &draft.change
                    && document::item_size_bytes(item) > ITEM_SIZE_BYTES_MAX
                {
                    return Err(Failure::validation(TOO_LARGE));
                }
                Ok(draft)
            }
            (None, Some(update), None, None) => Members {
                update: update.update_expression.as_ref(),
                ..members!(update, key)
            }
            .draft(Change::Update),
            (None, None, Some(delete), None) => {
                members!(delete, key).draft(|key, _| Change::Delete(key))
            }
            (None, None, None, Some(check)) => {
                members!(check, key).draft(|key, _| Change::Check(key))
            }
            _ => Err(Failure::validation(NOT_ONE_EACH)),
        }
    }

    fn lower(self, context: &Context<'_>) -> Result<Action, Failure> {
        let schema = context.strong_schema(self.table_name)?;
        let (key, operation) = match self.change {
            Change::Put(item) => {
                let (key, document) = schema.split(item.clone())?;
                (key, replace(schema.document, document))
            }
            Change::Update(key, parsed) => {
                let key = schema.key(key)?;
                check_targets(&schema, &parsed)?;
                let mut update = parsed.update;
                update::substitute_key(&mut update, &key.attributes);
                update.key_size_bytes = key.size_bytes() as u32;
                let column = schema.document;
                (key, RowOperation::UpdateDocument { column, update })
            }
            Change::Delete(key) => (schema.key(key)?, RowOperation::Delete),
            Change::Check(key) => (schema.key(key)?, RowOperation::Check),
        };
        let address = (schema.table.id, key.bytes.clone());
        Ok(Action {
            condition: self.condition.map(|condition| api::Condition::Document {
                column: schema.document,
                key: key.attributes.clone(),
                condition,
            }),
            schema,
            key,
            address,
            operation,
            wants_failed: self.wants_failed,
        })
    }
}

/// One operation, ready to be sent.
struct Action {
    schema: Schema,
    key: Key,
    address: Address,
    operation: RowOperation,
    condition: Option<api::Condition>,
    wants_failed: bool,
}

impl Action {
    fn mutation(&self) -> Mutation {
        let (table, key) = self.address.clone();
        Mutation {
            condition: self.condition.clone(),
            ..Mutation::new(table, key, self.operation.clone())
        }
    }

    fn size_bytes(&self, row: Option<Row>) -> u64 {
        row.map_or(0, |row| {
            self.key.size_bytes() + document::item_size_bytes(&self.schema.document_of(row))
        })
    }

    /// What is wrong with it, given the row that is there.
    fn reason(&self, index: u32, row: Option<&Row>, moment: Moment) -> Result<Reason, Failure> {
        let mutation = Mutation {
            returning: Returning::Old,
            ..self.mutation()
        };
        match evaluate(&self.schema.table, index, &mutation, row, moment) {
            Ok(_) => Ok(Reason::none()),
            Err(Error::Refused(Refused::ConditionFailed { row, .. })) => {
                let item = row.filter(|_| self.wants_failed).map(|row| StoredItem {
                    key: self.key.attributes.clone(),
                    document: self.schema.document_of(row),
                });
                Ok(Reason::condition_failed(item.map(StoredItem::into_item)))
            }
            Err(Error::Refused(Refused::UpdateFailed { message, .. })) => {
                Ok(Reason::validation(message))
            }
            Err(error) => Err(error.into()),
        }
    }
}

struct Transaction {
    actions: Vec<Action>,
    token: Option<Token>,
    report: Report,
}

/// How a transaction ended that did not fail.
enum Done {
    Now(WriteResponse),
    /// An earlier request with the same token has done it; the items as they are now.
    Before(Cut),
}

/// What there is to say of a transaction that was refused.
enum Verdict {
    Done(Cut),
    Cancelled(Vec<Reason>),
    /// Nothing is wrong with it (any more).
    Fine,
}

impl Transaction {
    async fn send(&self, context: &Context<'_>) -> Result<Done, Failure> {
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS_MAX {
            match context.database.write(self.request()).await {
                Ok(response) => return Ok(Done::Now(response)),
                Err(Error::Refused(
                    Refused::ConditionFailed { .. } | Refused::UpdateFailed { .. },
                )) => match self.examine(context).await? {
                    Verdict::Done(cut) => return Ok(Done::Before(cut)),
                    Verdict::Cancelled(reasons) => return Err(Failure::cancelled(reasons)),
                    Verdict::Fine => {}
                },
                Err(Error::Retry(Retry::Aborted(_))) => {
                    return Err(self.conflict(context).await);
                }
                Err(error) => return Err(error.into()),
            }
            if attempt < ATTEMPTS_MAX {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        Err(self.conflicts_everywhere())
    }

    /// What to say when others were in the way for as long as a client waits: of which items they are so now.
    async fn conflict(&self, context: &Context<'_>) -> Failure {
        let items = self.actions.iter().map(|action| &action.address);
        let token = self.token.iter().map(|token| &token.address);
        let probes = items.chain(token).map(|address| is_held(context, address));
        let held = futures::future::join_all(probes).await;
        let (items, token) = held.split_at(self.actions.len());
        if token.contains(&true) {
            return in_progress();
        }
        if !items.contains(&true) {
            return self.conflicts_everywhere();
        }
        let reasons = items.iter().map(|is_held| match is_held {
            true => Reason::conflict(),
            false => Reason::none(),
        });
        Failure::cancelled(reasons.collect())
    }

    /// Which items the others were at is not known: all of them are named.
    fn conflicts_everywhere(&self) -> Failure {
        let reasons = self.actions.iter().map(|_| Reason::conflict());
        Failure::cancelled(reasons.collect())
    }

    fn request(&self) -> WriteRequest {
        let actions = self.actions.iter().map(|action| Mutation {
            returning: match (&action.operation, self.report.is_wanted()) {
                (_, false) => Returning::Nothing,
                (RowOperation::UpdateDocument { .. }, true) => Returning::Both,
                (_, true) => Returning::Old,
            },
            ..action.mutation()
        });
        let token = self.token.iter().map(Token::mutation);
        WriteRequest::new(actions.chain(token).collect())
    }

    async fn examine(&self, context: &Context<'_>) -> Result<Verdict, Failure> {
        let items = self.actions.iter().map(|action| &action.address);
        let token = self.token.iter().map(|token| &token.address);
        let cut = Cut::read(context, items.chain(token)).await?;
        if let Some(token) = &self.token
            && token.is_spent(cut.rows.get(&token.address))?
        {
            return Ok(Verdict::Done(cut));
        }
        let moment = Moment {
            timestamp: cut.at,
            now_seconds: cut.at.seconds(),
        };
        let reasons = (0..)
            .zip(&self.actions)
            .map(|(index, action)| action.reason(index, cut.rows.get(&action.address), moment))
            .collect::<Result<Vec<Reason>, Failure>>()?;
        if reasons.iter().all(Reason::is_none) {
            return Ok(Verdict::Fine);
        }
        Ok(Verdict::Cancelled(reasons))
    }

    fn consumed(&self, response: WriteResponse) -> Consumed {
        let mut consumed = Consumed::default();
        let mut returned = response.returned.into_iter();
        for action in &self.actions {
            let ReturnedRows { old, new } = returned.next().unwrap_or_default();
            let before = action.size_bytes(old);
            let after = match &action.operation {
                RowOperation::Replace { assignments } => {
                    let document = assignments.iter().find_map(|assignment| match assignment {
                        api::Assignment::Set {
                            value: model::Value::Document(document),
                            ..
                        } => Some(document::item_size_bytes(document)),
                        _ => None,
                    });
                    action.key.size_bytes() + document.unwrap_or(0)
                }
                _ => action.size_bytes(new),
            };
            consumed.add(&action.schema.name, write_units(before, after));
        }
        consumed
    }

    fn consumed_by_reading(&self, cut: &Cut) -> Consumed {
        let mut consumed = Consumed::default();
        for action in &self.actions {
            let size = action.size_bytes(cut.rows.get(&action.address).cloned());
            consumed.add(&action.schema.name, read_units(size, true));
        }
        consumed
    }
}

/// Whether others keep the item from being written.
async fn is_held(context: &Context<'_>, (table, key): &Address) -> bool {
    let check = Mutation::new(*table, key.clone(), RowOperation::Check);
    let mut probe = WriteRequest::new(vec![check]);
    probe.patience = Patience { ms: PROBE_MS };
    let probed = context.database.write(probe).await;
    matches!(probed, Err(Error::Retry(Retry::Aborted(_))))
}

fn check_constraints(request: &TransactWriteItemsRequest) -> Result<(), String> {
    let mut constraints = Constraints::default();
    constraints.one_of(
        "returnConsumedCapacity",
        request.return_consumed_capacity.as_deref(),
        CONSUMED_CAPACITY,
    );
    constraints.one_of(
        "returnItemCollectionMetrics",
        request.return_item_collection_metrics.as_deref(),
        COLLECTION_METRICS,
    );
    if let Some(token) = &request.client_request_token {
        let length = token.encode_utf16().count();
        constraints.length("clientRequestToken", length, 1, 36, token);
    }
    check_items(&mut constraints, request.transact_items.as_ref());
    for (index, item) in request.transact_items.iter().flatten().enumerate() {
        check_item(&mut constraints, index + 1, item);
    }
    constraints.finish()
}

fn check_item(constraints: &mut Constraints, number: usize, item: &TransactWriteItem) {
    let on_failure = |constraints: &mut Constraints, path: &str, value: &Option<String>| {
        constraints.one_of(
            &format!("{path}.returnValuesOnConditionCheckFailure"),
            value.as_deref(),
            ON_CONDITION_FAILURE,
        );
    };
    let path = |member: &str| format!("transactItems.{number}.member.{member}");
    if let Some(check) = &item.condition_check {
        let path = path("conditionCheck");
        constraints.present(&format!("{path}.key"), &check.key);
        check_table_name(constraints, &path, &check.table_name);
        constraints.present(
            &format!("{path}.conditionExpression"),
            &check.condition_expression,
        );
        on_failure(
            constraints,
            &path,
            &check.return_values_on_condition_check_failure,
        );
    }
    if let Some(put) = &item.put {
        let path = path("put");
        constraints.present(&format!("{path}.item"), &put.item);
        check_table_name(constraints, &path, &put.table_name);
        on_failure(
            constraints,
            &path,
            &put.return_values_on_condition_check_failure,
        );
    }
    if let Some(delete) = &item.delete {
        let path = path("delete");
        constraints.present(&format!("{path}.key"), &delete.key);
        check_table_name(constraints, &path, &delete.table_name);
        on_failure(
            constraints,
            &path,
            &delete.return_values_on_condition_check_failure,
        );
    }
    if let Some(update) = &item.update {
        let path = path("update");
        constraints.present(&format!("{path}.key"), &update.key);
        constraints.present(
            &format!("{path}.updateExpression"),
            &update.update_expression,
        );
        check_table_name(constraints, &path, &update.table_name);
        on_failure(
            constraints,
            &path,
            &update.return_values_on_condition_check_failure,
        );
    }
}
