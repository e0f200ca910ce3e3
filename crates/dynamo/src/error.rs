//! Errors as the service words them, and where the inner language's errors become them.

use crate::wire::attribute::write_item;
use crate::wire::decode::DecodeError;
use crate::wire::writer::Writer;
use api::document::Item;
use api::{Error, Refused, Retry};
use catalog::ChangeError;

/// A refusal on its way to the client.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub status: u16,
    pub kind: &'static str,
    pub message: Option<String>,
    /// The item that failed a condition, when the request asked for it.
    pub item: Option<Item>,
    /// Set while the catalog of the request was older than a tablet's: worth lowering once more.
    pub is_stale: bool,
    /// Of a cancelled transaction: one for each of its items, in their order.
    pub reasons: Vec<Reason>,
}

/// What was wrong with one item of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    code: &'static str,
    message: Option<String>,
    /// The item as it was, where a condition failed on it and the request asked for it.
    item: Option<Item>,
}

impl Reason {
    pub fn none() -> Reason {
        Reason {
            code: "None",
            message: None,
            item: None,
        }
    }

    pub fn is_none(&self) -> bool {
        *self == Reason::none()
    }

    pub fn condition_failed(item: Option<Item>) -> Reason {
        Reason {
            code: "ConditionalCheckFailed",
            message: Some(CONDITION_FAILED_MESSAGE.into()),
            item,
        }
    }

    /// An update that cannot be applied to the item that is there.
    pub fn validation(message: String) -> Reason {
        Reason {
            code: "ValidationError",
            message: Some(message),
            item: None,
        }
    }

    pub fn conflict() -> Reason {
        Reason {
            code: "TransactionConflict",
            message: Some(CONFLICT_MESSAGE.into()),
            item: None,
        }
    }

    fn write(&self, writer: &mut Writer) {
        writer.begin_object();
        writer.key("Code");
        writer.string(self.code);
        if let Some(item) = &self.item {
            writer.key("Item");
            write_item(writer, item);
        }
        if let Some(message) = &self.message {
            writer.key("Message");
            writer.string(message);
        }
        writer.end_object();
    }
}

pub const VALIDATION: &str = "com.amazon.coral.validate#ValidationException";
pub const SERIALIZATION: &str = "com.amazon.coral.service#SerializationException";
pub const UNKNOWN_OPERATION: &str = "com.amazon.coral.service#UnknownOperationException";
pub const MISSING_TOKEN: &str = "com.amazon.coral.service#MissingAuthenticationTokenException";
pub const INCOMPLETE_SIGNATURE: &str = "com.amazon.coral.service#IncompleteSignatureException";
pub const INVALID_SIGNATURE: &str = "com.amazon.coral.service#InvalidSignatureException";
pub const UNRECOGNIZED_CLIENT: &str = "com.amazon.coral.service#UnrecognizedClientException";
pub const ACCESS_DENIED: &str = "com.amazon.coral.service#AccessDeniedException";
pub const CONDITION_FAILED: &str =
    "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException";
pub const NOT_FOUND: &str = "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException";
pub const IN_USE: &str = "com.amazonaws.dynamodb.v20120810#ResourceInUseException";
const THROTTLED: &str = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
const TRANSACTION_CONFLICT: &str = "com.amazonaws.dynamodb.v20120810#TransactionConflictException";
const CANCELLED: &str = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
pub const IDEMPOTENT_MISMATCH: &str =
    "com.amazonaws.dynamodb.v20120810#IdempotentParameterMismatchException";
pub const IN_PROGRESS: &str = "com.amazonaws.dynamodb.v20120810#TransactionInProgressException";
const INTERNAL: &str = "com.amazonaws.dynamodb.v20120810#InternalServerError";

const CONDITION_FAILED_MESSAGE: &str = "The conditional request failed";
const CONFLICT_MESSAGE: &str = "Transaction is ongoing for the item";

impl Failure {
    pub fn new(kind: &'static str, message: impl Into<String>) -> Failure {
        Failure {
            status: 400,
            kind,
            message: Some(message.into()),
            item: None,
            is_stale: false,
            reasons: Vec::new(),
        }
    }

    pub fn without_message(kind: &'static str) -> Failure {
        Failure {
            message: None,
            ..Failure::new(kind, "")
        }
    }

    pub fn validation(message: impl Into<String>) -> Failure {
        Failure::new(VALIDATION, message)
    }

    pub fn not_found() -> Failure {
        Failure::new(NOT_FOUND, "Requested resource not found")
    }

    /// As the operations on tables word it.
    pub fn table_not_found(name: &str) -> Failure {
        Failure::new(
            NOT_FOUND,
            format!("Requested resource not found: Table: {name} not found"),
        )
    }

    /// What is part of the service and not built here.
    pub fn not_supported(what: &str) -> Failure {
        Failure::validation(format!("{what} is not supported yet"))
    }

    pub fn internal(message: impl Into<String>) -> Failure {
        Failure {
            status: 500,
            ..Failure::new(INTERNAL, message)
        }
    }

    /// A transaction that did not happen; one reason at least is not `None`.
    pub fn cancelled(reasons: Vec<Reason>) -> Failure {
        let codes: Vec<&str> = reasons.iter().map(|reason| reason.code).collect();
        let message = format!(
            "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
            codes.join(", ")
        );
        Failure {
            reasons,
            ..Failure::new(CANCELLED, message)
        }
    }

    /// The name without its prefix: `ValidationException`.
    pub fn name(&self) -> &'static str {
        self.kind.rsplit('#').next().unwrap_or(self.kind)
    }

    pub fn body(&self) -> String {
        let mut writer = Writer::with_capacity(256);
        writer.begin_object();
        writer.key("__type");
        writer.string(self.kind);
        if !self.reasons.is_empty() {
            writer.key("CancellationReasons");
            writer.begin_array();
            for reason in &self.reasons {
                reason.write(&mut writer);
            }
            writer.end_array();
        }
        if let Some(message) = &self.message {
            let capitals = [
                SERIALIZATION,
                ACCESS_DENIED,
                CANCELLED,
                IDEMPOTENT_MISMATCH,
                IN_PROGRESS,
            ];
            let is_capital = capitals.contains(&self.kind);
            writer.key(if is_capital { "Message" } else { "message" });
            writer.string(message);
        }
        if let Some(item) = &self.item {
            writer.key("Item");
            write_item(&mut writer, item);
        }
        writer.end_object();
        writer.finish()
    }
}

/// Validation messages travel as plain strings until here.
impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::validation(message)
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Failure {
        match error {
            DecodeError::Malformed => Failure::without_message(SERIALIZATION),
            DecodeError::Kind(message) => Failure::new(SERIALIZATION, message),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let shown = error.to_string();
        match error {
            Error::Refused(refused) => from_refused(refused, shown),
            Error::Retry(Retry::Aborted(_)) => Failure::new(TRANSACTION_CONFLICT, CONFLICT_MESSAGE),
            Error::Retry(Retry::Overloaded(_)) => Failure::new(THROTTLED, shown),
            Error::Retry(Retry::StaleSchema { .. }) => Failure {
                is_stale: true,
                ..Failure::internal(shown)
            },
            Error::Retry(_) | Error::Broken(_) => Failure::internal(shown),
        }
    }
}

fn from_refused(refused: Refused, shown: String) -> Failure {
    match refused {
        Refused::NoTable(_) => Failure {
            // The table may have been made anew under another id.
            is_stale: true,
            ..Failure::not_found()
        },
        Refused::ConditionFailed { .. } => Failure::new(CONDITION_FAILED, CONDITION_FAILED_MESSAGE),
        Refused::Catalog(ChangeError::TableExists(name)) => {
            Failure::new(IN_USE, format!("Table already exists: {name}"))
        }
        Refused::Catalog(ChangeError::NoTable(_)) => Failure::not_found(),
        Refused::Catalog(ChangeError::Changed(_)) => Failure::new(IN_USE, shown),
        // The door never asks for these.
        Refused::RowExists { .. } | Refused::RowMissing { .. } => Failure::internal(shown),
        _ => Failure::validation(shown),
    }
}
