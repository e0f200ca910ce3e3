//! The errors of the protocol (section 8), and the one place where the inner language's errors become them.

use crate::protocol::wire::{
    put_inet_address, put_int, put_length, put_short, put_short_bytes, put_string,
};
use crate::protocol::{Version, level_code};
use api::{FailureReason, Level, Outcome, Refused, ReplicaFailure, Retry, WriteStep};
use model::SchemaVersion;
use std::net::IpAddr;

/// What the client is told. The message is for people, the kind for drivers.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ErrorKind {
    Server,
    Protocol,
    Unavailable {
        level: Level,
        required: u32,
        alive: u32,
    },
    Overloaded,
    /// The statement was lowered with a catalog that is too old. Tried again here; a client that sees it after all
    /// is told that the server is overloaded, which it may try again too.
    StaleSchema {
        current: SchemaVersion,
    },
    IsBootstrapping,
    Truncate,
    WriteTimeout {
        level: Level,
        received: u32,
        required: u32,
        write_type: WriteType,
        /// Of a compare-and-set: how often others came in between.
        contentions: u32,
    },
    ReadTimeout {
        level: Level,
        received: u32,
        required: u32,
        data_present: bool,
    },
    ReadFailure {
        level: Level,
        received: u32,
        required: u32,
        failures: Vec<ReplicaFailure>,
        data_present: bool,
    },
    FunctionFailure {
        keyspace: String,
        function: String,
        arguments: Vec<String>,
    },
    WriteFailure {
        level: Level,
        received: u32,
        required: u32,
        failures: Vec<ReplicaFailure>,
        write_type: WriteType,
    },
    /// v5; older versions see a WriteTimeout of type CAS.
    CasWriteUnknown {
        level: Level,
        received: u32,
        required: u32,
    },
    Syntax,
    Unauthorized,
    Invalid,
    Config,
    AlreadyExists {
        keyspace: String,
        table: String,
    },
    Unprepared {
        id: Vec<u8>,
    },
}

/// What kind of write failed (section 8, Write_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteType {
    Simple,
    Batch,
    UnloggedBatch,
    Cas,
    Counter,
    /// Of a logged batch: keeping it, before anything of it is written.
    BatchLog,
}

impl WriteType {
    fn name(self) -> &'static str {
        match self {
            WriteType::Simple => "SIMPLE",
            WriteType::Batch => "BATCH",
            WriteType::UnloggedBatch => "UNLOGGED_BATCH",
            WriteType::Cas => "CAS",
            WriteType::Counter => "COUNTER",
            WriteType::BatchLog => "BATCH_LOG",
        }
    }
}

impl Error {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error {
            kind,
            message: message.into(),
        }
    }

    pub fn server(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Server, message)
    }

    pub fn protocol(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Protocol, message)
    }

    pub fn syntax(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Syntax, message)
    }

    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, message)
    }

    pub fn config(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Config, message)
    }

    pub fn unauthorized(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unauthorized, message)
    }

    pub fn overloaded(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Overloaded, message)
    }

    pub fn already_exists(keyspace: &str, table: &str) -> Error {
        let message = if table.is_empty() {
            format!("Cannot add existing keyspace \"{keyspace}\"")
        } else {
            format!("Cannot add already existing table \"{table}\" to keyspace \"{keyspace}\"")
        };
        Error::new(
            ErrorKind::AlreadyExists {
                keyspace: keyspace.into(),
                table: table.into(),
            },
            message,
        )
    }

    pub fn unprepared(id: &[u8]) -> Error {
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Error::new(
            ErrorKind::Unprepared { id: id.to_vec() },
            format!(
                "Prepared query with ID {hex} not found (either the query was not prepared on this host \
                 (maybe the host has been restarted?) or you have prepared too many queries and it has \
                 been evicted from the internal cache)"
            ),
        )
    }

    /// What a read that failed comes to.
    pub fn from_read(error: api::Error) -> Error {
        Error::from_api(error, WriteType::Simple)
    }

    /// A read that looked at more tombstones than it may: this node gave up.
    pub fn too_many_tombstones(level: Level, address: IpAddr, message: String) -> Error {
        let kind = ErrorKind::ReadFailure {
            level,
            received: 0,
            required: 1,
            failures: vec![ReplicaFailure {
                address,
                reason: FailureReason::TooManyTombstones,
            }],
            data_present: true,
        };
        Error::new(kind, message)
    }

    /// What a write that failed comes to.
    pub fn from_write(error: api::Error, write_type: WriteType) -> Error {
        Error::from_api(error, write_type)
    }

    /// What a change of the catalog that failed comes to; it was planned with that version.
    pub fn from_definition(error: api::Error, planned_with: SchemaVersion) -> Error {
        match error {
            // Dropped or truncated by somebody else meanwhile: planning it again tells which.
            api::Error::Refused(Refused::Catalog(catalog::ChangeError::NoTable(_))) => {
                let current = SchemaVersion(planned_with.0 + 1);
                Error::new(ErrorKind::StaleSchema { current }, error.to_string())
            }
            error => Error::from_api(error, WriteType::Simple),
        }
    }

    /// What a TRUNCATE that failed comes to, likewise.
    pub fn from_truncate(error: api::Error, planned_with: SchemaVersion) -> Error {
        match error {
            api::Error::Retry(_) => Error::new(ErrorKind::Truncate, error.to_string()),
            error => Error::from_definition(error, planned_with),
        }
    }

    fn from_api(error: api::Error, write_type: WriteType) -> Error {
        let message = error.to_string();
        match error {
            api::Error::Refused(refused) => Error::from_refused(refused, message),
            api::Error::Retry(retry) => Error::new(retry_kind(retry, write_type), message),
            api::Error::Broken(_) => Error::new(ErrorKind::Server, message),
        }
    }

    fn from_refused(refused: Refused, message: String) -> Error {
        match refused {
            Refused::Catalog(error) => Error::from_change(error),
            // Dropped or truncated since the statement was planned: planning it again tells which.
            Refused::NoTable(_) => {
                let current = SchemaVersion(0);
                Error::new(ErrorKind::StaleSchema { current }, message)
            }
            _ => Error::invalid(message),
        }
    }

    /// What a refused change of the catalog comes to.
    fn from_change(error: catalog::ChangeError) -> Error {
        use catalog::ChangeError;
        match error {
            ChangeError::NamespaceExists(name) => Error::already_exists(&name, ""),
            ChangeError::TableExists(name) => {
                let (keyspace, table) = name.split_once('.').unwrap_or(("", &name));
                Error::already_exists(keyspace, table)
            }
            ChangeError::NoNamespace(name) => {
                Error::invalid(format!("Keyspace '{name}' doesn't exist"))
            }
            ChangeError::NoTable(name) => Error::invalid(format!("Table '{name}' doesn't exist")),
            other => Error::invalid(other.to_string()),
        }
    }

    pub fn code(&self) -> i32 {
        match self.kind {
            ErrorKind::Server => 0x0000,
            ErrorKind::Protocol => 0x000A,
            ErrorKind::Unavailable { .. } => 0x1000,
            ErrorKind::Overloaded | ErrorKind::StaleSchema { .. } => 0x1001,
            ErrorKind::IsBootstrapping => 0x1002,
            ErrorKind::Truncate => 0x1003,
            ErrorKind::WriteTimeout { .. } => 0x1100,
            ErrorKind::ReadTimeout { .. } => 0x1200,
            ErrorKind::ReadFailure { .. } => 0x1300,
            ErrorKind::FunctionFailure { .. } => 0x1400,
            ErrorKind::WriteFailure { .. } => 0x1500,
            ErrorKind::CasWriteUnknown { .. } => 0x1700,
            ErrorKind::Syntax => 0x2000,
            ErrorKind::Unauthorized => 0x2100,
            ErrorKind::Invalid => 0x2200,
            ErrorKind::Config => 0x2300,
            ErrorKind::AlreadyExists { .. } => 0x2400,
            ErrorKind::Unprepared { .. } => 0x2500,
        }
    }

    /// The body of an ERROR frame.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if let ErrorKind::CasWriteUnknown {
            level,
            received,
            required,
        } = self.kind
            && version < Version::V5
        {
            let kind = ErrorKind::WriteTimeout {
                level,
                received,
                required,
                write_type: WriteType::Cas,
                contentions: 0,
            };
            return Error::new(kind, self.message.clone()).encode(version, out);
        }
        // v3 has no codes for failures; a timeout tells a driver the same thing.
        match (&self.kind, version) {
            (
                &ErrorKind::WriteFailure {
                    level,
                    received,
                    required,
                    write_type,
                    ..
                },
                Version::V3,
            ) => {
                let kind = ErrorKind::WriteTimeout {
                    level,
                    received,
                    required,
                    write_type,
                    contentions: 0,
                };
                return Error::new(kind, self.message.clone()).encode(version, out);
            }
            (
                &ErrorKind::ReadFailure {
                    level,
                    received,
                    required,
                    data_present,
                    ..
                },
                Version::V3,
            ) => {
                let kind = ErrorKind::ReadTimeout {
                    level,
                    received,
                    required,
                    data_present,
                };
                return Error::new(kind, self.message.clone()).encode(version, out);
            }
            _ => {}
        }
        put_int(out, self.code());
        put_string(out, &self.message);
        self.encode_details(version, out);
    }

    fn encode_details(&self, version: Version, out: &mut Vec<u8>) {
        match &self.kind {
            ErrorKind::Unavailable {
                level,
                required,
                alive,
            } => put_counts(out, *level, *required, *alive),
            ErrorKind::WriteTimeout {
                level,
                received,
                required,
                write_type,
                contentions,
            } => {
                put_counts(out, *level, *received, *required);
                put_string(out, write_type.name());
                if version >= Version::V5 && *write_type == WriteType::Cas {
                    put_short(out, u16::try_from(*contentions).unwrap_or(u16::MAX));
                }
            }
            ErrorKind::ReadTimeout {
                level,
                received,
                required,
                data_present,
            } => {
                put_counts(out, *level, *received, *required);
                out.push(u8::from(*data_present));
            }
            ErrorKind::ReadFailure {
                level,
                received,
                required,
                failures,
                data_present,
            } => {
                put_counts(out, *level, *received, *required);
                put_failures(version, failures, out);
                out.push(u8::from(*data_present));
            }
            ErrorKind::WriteFailure {
                level,
                received,
                required,
                failures,
                write_type,
            } => {
                put_counts(out, *level, *received, *required);
                put_failures(version, failures, out);
                put_string(out, write_type.name());
            }
            ErrorKind::CasWriteUnknown {
                level,
                received,
                required,
            } => put_counts(out, *level, *received, *required),
            ErrorKind::FunctionFailure {
                keyspace,
                function,
                arguments,
            } => {
                put_string(out, keyspace);
                put_string(out, function);
                crate::protocol::wire::put_string_list(out, arguments.iter().map(String::as_str));
            }
            ErrorKind::AlreadyExists { keyspace, table } => {
                put_string(out, keyspace);
                put_string(out, table);
            }
            ErrorKind::Unprepared { id } => put_short_bytes(out, id),
            _ => {}
        }
    }
}

fn put_counts(out: &mut Vec<u8>, level: Level, first: u32, second: u32) {
    put_short(out, level_code(level));
    put_length(out, first as usize);
    put_length(out, second as usize);
}

/// v4 counts failures; v5 has a map from replica to reason.
fn put_failures(version: Version, failures: &[ReplicaFailure], out: &mut Vec<u8>) {
    put_length(out, failures.len());
    if version < Version::V5 {
        return;
    }
    for failure in failures {
        put_inet_address(out, failure.address);
        put_short(
            out,
            match failure.reason {
                FailureReason::Unknown => 0,
                FailureReason::TooManyTombstones => 1,
                FailureReason::Timeout => 2,
            },
        );
    }
}

fn retry_kind(retry: Retry, write_type: WriteType) -> ErrorKind {
    match retry {
        Retry::Unavailable {
            level,
            required,
            alive,
        } => ErrorKind::Unavailable {
            level,
            required,
            alive,
        },
        Retry::WriteTimeout {
            level,
            required,
            received,
            outcome,
            step,
        } => {
            let counts = Counts {
                level,
                received,
                required,
            };
            missed_write(counts, step, outcome, write_type)
        }
        Retry::ReadTimeout {
            level,
            required,
            received,
            data_present,
        } => ErrorKind::ReadTimeout {
            level,
            received,
            required,
            data_present,
        },
        Retry::Failure {
            level,
            required,
            received,
            failures,
            is_write: true,
            ..
        } => ErrorKind::WriteFailure {
            level,
            received,
            required,
            failures,
            write_type,
        },
        Retry::Failure {
            level,
            required,
            received,
            failures,
            is_write: false,
            data_present,
            ..
        } => ErrorKind::ReadFailure {
            level,
            received,
            required,
            failures,
            data_present,
        },
        // Nothing was done, or it is not known: drivers must tell these apart.
        Retry::NoLeader {
            outcome: Outcome::NotApplied,
        } => ErrorKind::Unavailable {
            level: Level::Default,
            required: 1,
            alive: 0,
        },
        Retry::NoLeader { outcome } => {
            let counts = Counts {
                level: Level::Default,
                received: 0,
                required: 1,
            };
            let step = match write_type {
                WriteType::Cas => WriteStep::Agreement { contentions: 0 },
                _ => WriteStep::Replicas,
            };
            missed_write(counts, step, outcome, write_type)
        }
        Retry::StaleSchema { current } => ErrorKind::StaleSchema { current },
        Retry::Aborted(_) | Retry::Overloaded(_) => ErrorKind::Overloaded,
        Retry::NotServing(_) => ErrorKind::IsBootstrapping,
    }
}

struct Counts {
    level: Level,
    received: u32,
    required: u32,
}

/// What a write comes to that too few have answered in time.
fn missed_write(
    counts: Counts,
    step: WriteStep,
    outcome: Outcome,
    write_type: WriteType,
) -> ErrorKind {
    let Counts {
        level,
        received,
        required,
    } = counts;
    let timeout = |write_type, contentions| ErrorKind::WriteTimeout {
        level,
        received,
        required,
        write_type,
        contentions,
    };
    match (step, write_type) {
        (WriteStep::Batchlog, _) => timeout(WriteType::BatchLog, 0),
        // It is decided; only too few replicas are known to have it, as after any other write.
        (WriteStep::Replicas, WriteType::Cas) => timeout(WriteType::Simple, 0),
        (WriteStep::Replicas, _) => timeout(write_type, 0),
        (WriteStep::Agreement { .. }, _) if outcome == Outcome::Unknown => {
            ErrorKind::CasWriteUnknown {
                level,
                received,
                required,
            }
        }
        (WriteStep::Agreement { contentions }, _) => timeout(WriteType::Cas, contentions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_and_from_v5_on_told_by_replica() {
        let failure = |address: [u8; 4], reason| ReplicaFailure {
            address: address.into(),
            reason,
        };
        let error = Error::from_write(
            api::Error::Retry(Retry::Failure {
                level: Level::Quorum,
                required: 2,
                received: 1,
                failures: vec![
                    failure([10, 0, 0, 2], FailureReason::Unknown),
                    failure([10, 0, 0, 3], FailureReason::TooManyTombstones),
                ],
                outcome: Outcome::Unknown,
                is_write: true,
                data_present: false,
            }),
            WriteType::Simple,
        );
        let details = |version| {
            let mut out = Vec::new();
            error.encode_details(version, &mut out);
            out
        };
        let counts = [0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2];
        let kind = b"\x00\x06SIMPLE";
        assert_eq!(details(Version::V4), [&counts[..], kind].concat());
        let reasons = [4, 10, 0, 0, 2, 0, 0, 4, 10, 0, 0, 3, 0, 1];
        assert_eq!(details(Version::V5), [&counts[..], &reasons, kind].concat());
        // What v3 cannot say is a timeout there.
        let mut out = Vec::new();
        error.encode(Version::V3, &mut out);
        assert_eq!(out[..4], 0x1100_i32.to_be_bytes());
    }

    /// The details of a v5 frame, of a write that was missed at this step.
    fn missed(step: WriteStep, outcome: Outcome, write_type: WriteType) -> (i32, Vec<u8>) {
        let timeout = Retry::WriteTimeout {
            level: Level::Two,
            required: 2,
            received: 1,
            outcome,
            step,
        };
        let error = Error::from_write(api::Error::Retry(timeout), write_type);
        let mut out = Vec::new();
        error.encode_details(Version::V5, &mut out);
        let counts = [0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        (error.code(), out.strip_prefix(&counts).unwrap().to_vec())
    }

    #[test]
    fn a_write_timeout_says_what_was_waited_for() {
        use WriteType::{Batch, Cas};
        let (unknown, not_applied) = (Outcome::Unknown, Outcome::NotApplied);
        let timeout = |details: &[u8]| (0x1100, details.to_vec());
        let batchlog = WriteStep::Batchlog;
        assert_eq!(
            missed(batchlog, unknown, Batch),
            timeout(b"\x00\x09BATCH_LOG")
        );
        let replicas = WriteStep::Replicas;
        assert_eq!(missed(replicas, unknown, Batch), timeout(b"\x00\x05BATCH"));
        assert_eq!(missed(replicas, unknown, Cas), timeout(b"\x00\x06SIMPLE"));
        let agreement = WriteStep::Agreement { contentions: 3 };
        assert_eq!(
            missed(agreement, not_applied, Cas),
            timeout(b"\x00\x03CAS\x00\x03")
        );
        assert_eq!(missed(agreement, unknown, Cas), (0x1700, vec![]));
    }

    #[test]
    fn a_read_failure_says_whether_data_came() {
        let failed = |data_present| {
            let failure = Retry::Failure {
                level: Level::Quorum,
                required: 2,
                received: 1,
                failures: vec![ReplicaFailure {
                    address: [10, 0, 0, 2].into(),
                    reason: FailureReason::Timeout,
                }],
                outcome: Outcome::NotApplied,
                is_write: false,
                data_present,
            };
            let mut out = Vec::new();
            let error = Error::from_read(api::Error::Retry(failure));
            error.encode_details(Version::V5, &mut out);
            out[10..].to_vec()
        };
        assert_eq!(failed(true), [0, 0, 0, 1, 4, 10, 0, 0, 2, 0, 2, 1]);
        assert_eq!(failed(false), [0, 0, 0, 1, 4, 10, 0, 0, 2, 0, 2, 0]);
    }
}
