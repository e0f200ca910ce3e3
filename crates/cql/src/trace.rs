//! Tracing of requests that ask for it (section 2.2, the tracing flag): what they made nodes do is kept, and shown in
//! `system_traces`.

use crate::connection::Connection;
use crate::error::Error;
use crate::execute::execute;
use crate::protocol::request::{Parameters, Request};
use crate::protocol::response::Reply;
use crate::protocol::{flag, frame};
use crate::server::Server;
use api::Level;
use api::trace::{Recorder, Trace, event};

pub type TraceId = [u8; 16];

/// A statement is shown up to so many bytes.
const STATEMENT_BYTES_MAX: usize = 4_096;

/// Executes a request and keeps the trace of it, also when it fails; `with_id` tells the client which one it is.
pub async fn traced(
    server: &Server,
    connection: &Connection,
    reply: Reply,
    request: Request,
) -> (TraceId, Result<Vec<u8>, Error>) {
    let started_at = server.now();
    let id = server.uuids.next(started_at);
    let (kind, parameters) = describe(server, &request);
    let recorder = Recorder::default();
    let coordinator = server.database.topology().this_node;
    let executing = async {
        let result = execute(server, connection, reply, request).await;
        result.inspect_err(|error| event(coordinator, || format!("Failed: {}", error.message)))
    };
    let result = recorder.record(executing).await;
    let trace = Trace {
        id,
        started_at,
        duration_micros: recorder.elapsed_micros(),
        request: kind.into(),
        parameters,
        client: connection.client.map(|client| client.to_string()),
        coordinator,
        events: Vec::new(),
    };
    server.database.keep_trace(trace, recorder);
    (id, result)
}

/// The answer with the trace's id before all else in its body.
pub fn with_id(mut answer: Vec<u8>, id: &TraceId) -> Vec<u8> {
    answer[1] |= flag::TRACING;
    let body = frame::HEADER_SIZE_BYTES;
    answer.splice(body..body, id.iter().copied());
    frame::finish(&mut answer);
    answer
}

fn describe(server: &Server, request: &Request) -> (&'static str, Vec<(String, String)>) {
    let mut shown = Vec::new();
    let statement = |text: &str| {
        let mut end = text.len().min(STATEMENT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        ("query".to_owned(), text[..end].to_owned())
    };
    let kind = match request {
        Request::Query { text, parameters } => {
            shown.push(statement(text));
            shown.extend(levels(parameters));
            "Execute CQL3 query"
        }
        Request::Execute { id, parameters, .. } => {
            if let Ok(prepared) = server.prepared.get(id) {
                shown.push(statement(&prepared.text));
            }
            shown.extend(levels(parameters));
            "Execute CQL3 prepared query"
        }
        Request::Batch(batch) => {
            shown.extend(levels(&batch.parameters));
            "Execute batch of CQL3 queries"
        }
        Request::Prepare { text, .. } => {
            shown.push(statement(text));
            "Preparing CQL3 query"
        }
        Request::Startup(_) | Request::Options | Request::Register(_) => "Connection",
    };
    (kind, shown)
}

fn levels(parameters: &Parameters) -> Vec<(String, String)> {
    let mut shown = vec![(
        "consistency_level".to_owned(),
        level_name(parameters.level).to_owned(),
    )];
    if let Some(level) = parameters.serial_level {
        let name = level_name(level).to_owned();
        shown.push(("serial_consistency_level".to_owned(), name));
    }
    if let Some(size) = parameters.page_size {
        shown.push(("page_size".to_owned(), size.to_string()));
    }
    shown
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Any => "ANY",
        Level::One => "ONE",
        Level::Two => "TWO",
        Level::Three => "THREE",
        Level::Quorum | Level::Default => "QUORUM",
        Level::All => "ALL",
        Level::LocalQuorum => "LOCAL_QUORUM",
        Level::EachQuorum => "EACH_QUORUM",
        Level::Serial => "SERIAL",
        Level::LocalSerial => "LOCAL_SERIAL",
        Level::LocalOne => "LOCAL_ONE",
    }
}
