//! The one place where errors become gRPC statuses.

use api::{Outcome, Refused, Retry};
use catalog::ChangeError;
use googleapis_tonic_google_rpc::google::rpc::{RetryInfo, Status as RpcStatus};
use prost::Message;
use sql::ErrorKind;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// Where clients look in an answer's metadata for when to try again.
pub const RETRY_INFO: &str = "google.rpc.retryinfo-bin";
/// How long an aborted client waits before it tries again: enough for the winner to be done.
const ABORT_DELAY_MS: i32 = 10;
/// How long one waits that was turned away by a node with too much to do.
const OVERLOAD_DELAY_MS: i32 = 200;

pub fn of_sql(error: sql::Error) -> Status {
    match error {
        sql::Error::Database(error) => of_api(error),
        sql::Error::Statement { kind, .. } => {
            let code = match kind {
                ErrorKind::InvalidArgument => Code::InvalidArgument,
                ErrorKind::Unimplemented => Code::Unimplemented,
                ErrorKind::OutOfRange => Code::OutOfRange,
                ErrorKind::NotFound => Code::NotFound,
                ErrorKind::AlreadyExists => Code::AlreadyExists,
                ErrorKind::FailedPrecondition => Code::FailedPrecondition,
                ErrorKind::ResourceExhausted => Code::ResourceExhausted,
            };
            Status::new(code, error.to_string())
        }
    }
}

pub fn of_api(error: api::Error) -> Status {
    let message = error.to_string();
    match error {
        api::Error::Refused(refused) => of_refused(refused, message),
        api::Error::Retry(retry) => match retry {
            Retry::Aborted(_) => aborted(&message),
            Retry::Overloaded(_) => Status::resource_exhausted(message),
            // The client's next try is lowered with the newer catalog.
            Retry::StaleSchema { .. }
            | Retry::NotServing(_)
            | Retry::Unavailable { .. }
            | Retry::ReadTimeout { .. } => Status::unavailable(message),
            Retry::WriteTimeout { outcome, .. }
            | Retry::Failure { outcome, .. }
            | Retry::NoLeader { outcome } => match outcome {
                Outcome::NotApplied => Status::unavailable(message),
                // Clients repeat what is UNAVAILABLE; a commit that may have happened must not be repeated.
                Outcome::Unknown => Status::unknown(format!("{message}; the outcome is unknown")),
            },
        },
        api::Error::Broken(_) => {
            tracing::error!(%message, "a request met a broken replica");
            Status::internal(message)
        }
    }
}

/// Of the commit of a transaction that was begun before. Clients repeat a commit that hears UNAVAILABLE or
/// RESOURCE_EXHAUSTED, but what it would commit is gone with the first try: where nothing was done they are told to
/// begin anew.
pub fn of_commit(error: sql::Error) -> Status {
    match &error {
        sql::Error::Database(inner @ api::Error::Retry(retry))
            if inner.outcome() == Outcome::NotApplied =>
        {
            let delay_ms = match retry {
                Retry::Overloaded(_) => OVERLOAD_DELAY_MS,
                _ => ABORT_DELAY_MS,
            };
            aborted_for(&inner.to_string(), delay_ms)
        }
        _ => of_sql(error),
    }
}

fn of_refused(refused: Refused, message: String) -> Status {
    match refused {
        Refused::NoTable(_) | Refused::RowMissing { .. } => Status::not_found(message),
        Refused::RowExists { .. } => Status::already_exists(message),
        Refused::Unsupported(_) => Status::unimplemented(message),
        Refused::TooOld(_) => Status::failed_precondition(format!(
            "Read-only transaction timestamp has exceeded the maximum timestamp staleness: {message}"
        )),
        Refused::ConditionFailed { .. }
        | Refused::UpdateFailed { .. }
        | Refused::TooManyTombstones { .. } => Status::failed_precondition(message),
        Refused::TooLarge(_) | Refused::Invalid(_) => Status::invalid_argument(message),
        Refused::Catalog(error) => of_change(&error),
    }
}

fn of_change(error: &ChangeError) -> Status {
    let message = error.to_string();
    match error {
        ChangeError::NamespaceExists(_) => Status::already_exists(message),
        ChangeError::NoNamespace(_) | ChangeError::NoTable(_) | ChangeError::NoColumn(_) => {
            Status::not_found(message)
        }
        ChangeError::TableExists(_) | ChangeError::ColumnExists(_) => {
            Status::failed_precondition(message)
        }
        ChangeError::Changed(_) => Status::aborted(message),
        ChangeError::NoType(_) | ChangeError::Invalid(_) => Status::invalid_argument(message),
    }
}

/// ABORTED, with the delay in both places where clients look for it.
pub fn aborted(message: &str) -> Status {
    aborted_for(message, ABORT_DELAY_MS)
}

fn aborted_for(message: &str, delay_ms: i32) -> Status {
    let retry = RetryInfo {
        retry_delay: Some(prost_types::Duration {
            seconds: 0,
            nanos: delay_ms * 1_000_000,
        }),
    };
    let retry = retry.encode_to_vec();
    let details = RpcStatus {
        code: Code::Aborted as i32,
        message: message.to_owned(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: retry.clone(),
        }],
    };
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(RETRY_INFO, MetadataValue::from_bytes(&retry));
    Status::with_details_and_metadata(
        Code::Aborted,
        message,
        details.encode_to_vec().into(),
        metadata,
    )
}

/// As a message inside another (a batch's status).
pub fn as_message(status: &Status) -> RpcStatus {
    RpcStatus {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    }
}

pub fn unimplemented(feature: &str) -> Status {
    Status::unimplemented(format!("{feature} is not supported by Tessera yet"))
}
