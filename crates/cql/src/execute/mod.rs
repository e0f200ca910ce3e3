//! Executing requests: each becomes one answer.

mod batch;
mod columns;
mod define;
pub mod describe;
mod read;
mod rows;
mod tombstones;
mod transaction;
mod truncate;
mod write;

use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::grammar::ast::Statement;
use crate::grammar::parse;
use crate::plan::term::Context;
use crate::plan::{Plan, Planned, plan};
use crate::prepared::{Prepared, PreparedStatements, digest};
use crate::protocol::request::{Parameters, Request, Values};
use crate::protocol::response::{Reply, ResultKind, RowsMetadata};
use crate::protocol::{Version, frame, wire};
use crate::server::Server;
use api::{Level, Patience, ReadBound, ReadRequest, ReadResponse};
use catalog::Catalog;
use model::{SchemaVersion, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// Unlogged batches over more partitions than this are warned about, as in Cassandra.
const BATCH_PARTITIONS_WARNED: usize = 10;

/// How often a statement is planned anew because its table changed under way.
const SCHEMA_ATTEMPTS_MAX: u32 = 3;
/// A catalog that replicas have already should arrive here within this.
const SCHEMA_PATIENCE: Duration = Duration::from_secs(3);

/// What an execution has to hand.
pub struct Execution<'a> {
    pub server: &'a Server,
    pub connection: &'a Connection,
    pub reply: Reply,
    pub parameters: &'a Parameters,
    pub values: &'a Values,
    pub now: Timestamp,
    /// The transaction that the statement is part of.
    pub transaction: Option<&'a transaction::Open>,
}

impl Execution<'_> {
    /// Reads, inside the transaction if there is one.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadResponse, api::Error> {
        match self.transaction {
            Some(open) => open.read(request).await,
            None => self.server.database.read(request).await,
        }
    }

    pub fn context(&self) -> Context<'_> {
        Context {
            values: self.values,
            now: self.now,
            uuids: &self.server.uuids,
        }
    }

    pub fn read_bound(&self) -> ReadBound {
        ReadBound::Level(self.parameters.level)
    }

    pub fn level(&self) -> Level {
        self.parameters.level
    }

    /// How long a request of a kind may take; where no cluster says, as long as other doors' may.
    pub fn patience(&self, kind: Timeout) -> Patience {
        let setting = self.server.database.setting(kind.setting());
        setting.map_or(Patience::default(), |ms| Patience {
            ms: u32::try_from(ms).unwrap_or(u32::MAX),
        })
    }

    /// Who agrees on conditional writes.
    pub fn serial_level(&self) -> Level {
        self.parameters.serial_level.unwrap_or(Level::Serial)
    }
}

/// Kinds of requests by how long they may take, which are Cassandra's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// A read of partitions that it names.
    Read,
    Range,
    Write,
    /// A write of a strong table, which those of counters are: it may have to wait for a leaseholder.
    CounterWrite,
    /// For replicas to agree on a conditional write.
    CasContention,
}

impl Timeout {
    fn setting(self) -> &'static str {
        match self {
            Timeout::Read => "read_request_timeout_ms",
            Timeout::Range => "range_request_timeout_ms",
            Timeout::Write => "write_request_timeout_ms",
            Timeout::CounterWrite => "counter_write_request_timeout_ms",
            Timeout::CasContention => "cas_contention_timeout_ms",
        }
    }
}

/// Answers a request; an error becomes an ERROR frame at the caller's. A statement whose table changed under way is
/// planned once more, with the catalog that the replicas have.
pub async fn execute(
    server: &Server,
    connection: &Connection,
    reply: Reply,
    request: Request,
) -> Result<Vec<u8>, Error> {
    let mut attempts = 1;
    loop {
        let result = attempt(server, connection, reply, &request).await;
        match &result {
            Err(error) if attempts < SCHEMA_ATTEMPTS_MAX => {
                let ErrorKind::StaleSchema { current } = error.kind else {
                    return result;
                };
                attempts += 1;
                wait_for_schema(server, current).await;
            }
            _ => return result,
        }
    }
}

/// Waits a little until this node has a catalog.
async fn wait_for_schema(server: &Server, wanted: SchemaVersion) {
    let mut catalogs = server.database.watch_catalog();
    let arrived = catalogs.wait_for(|catalog| catalog.version >= wanted);
    // Without it the next attempt will say so.
    let _ = tokio::time::timeout(SCHEMA_PATIENCE, arrived).await;
}

async fn attempt(
    server: &Server,
    connection: &Connection,
    reply: Reply,
    request: &Request,
) -> Result<Vec<u8>, Error> {
    match request {
        Request::Query { text, parameters } => {
            // Boxed as all that is rarer than EXECUTE: its future would make every request's larger.
            Box::pin(query(server, connection, reply, text, parameters)).await
        }
        Request::Prepare { text, keyspace } => {
            prepare(server, connection, reply, text, keyspace.as_deref())
        }
        Request::Execute {
            id,
            result_metadata_id,
            parameters,
        } => {
            let prepared = current(server, id)?;
            let values = arrange(&prepared.planned, &parameters.values)?;
            let execution = Execution {
                server,
                connection,
                reply,
                parameters,
                values: values.as_ref().unwrap_or(&parameters.values),
                now: server.now(),
                transaction: None,
            };
            let metadata = Metadata {
                skip: parameters.skip_metadata,
                known_id: result_metadata_id.as_deref(),
            };
            run(&execution, &prepared.planned, metadata).await
        }
        Request::Batch(request) => {
            Box::pin(batch::protocol_batch(server, connection, reply, request)).await
        }
        Request::Startup(_) | Request::Options | Request::Register(_) => Err(Error::server(
            "a request of the connection reached the statements",
        )),
    }
}

/// What the client said about the result's metadata.
#[derive(Clone, Copy, Default)]
pub struct Metadata<'a> {
    pub skip: bool,
    /// v5: the id of those it has.
    pub known_id: Option<&'a [u8]>,
}

async fn query(
    server: &Server,
    connection: &Connection,
    reply: Reply,
    text: &str,
    parameters: &Parameters,
) -> Result<Vec<u8>, Error> {
    let keyspace = parameters
        .keyspace
        .clone()
        .or_else(|| connection.keyspace());
    let parsed = parse(text)?;
    let catalog = server.database.catalog();
    let planned = plan(&parsed, &catalog, keyspace.as_deref())?;
    let values = arrange(&planned, &parameters.values)?;
    let execution = Execution {
        server,
        connection,
        reply,
        parameters,
        values: values.as_ref().unwrap_or(&parameters.values),
        now: server.now(),
        transaction: None,
    };
    run(&execution, &planned, Metadata::default()).await
}

/// Checks the number of values, and puts named ones in the markers' order.
fn arrange(planned: &Planned, values: &Values) -> Result<Option<Values>, Error> {
    if values.is_named() {
        return values.arranged(&planned.marker_names).map(Some);
    }
    if values.len() != planned.marker_names.len() {
        return Err(Error::invalid(format!(
            "Invalid amount of bind variables: there were {} markers(?) in CQL but {} bound variables",
            planned.marker_names.len(),
            values.len()
        )));
    }
    Ok(None)
}

/// A prepared statement whose tables are as they were; of one whose tables have changed the client must learn the
/// new shape, so it is forgotten.
pub(super) fn current(server: &Server, id: &[u8]) -> Result<Arc<Prepared>, Error> {
    let prepared = server.prepared.get(id)?;
    let catalog = server.database.catalog();
    if prepared.planned.is_current(&catalog) {
        return Ok(prepared);
    }
    server.prepared.remove(&prepared.id);
    Err(Error::unprepared(id))
}

pub async fn run(
    execution: &Execution<'_>,
    planned: &Planned,
    metadata: Metadata<'_>,
) -> Result<Vec<u8>, Error> {
    match &planned.plan {
        Plan::Select(plan) => read::select(execution, plan, metadata).await,
        Plan::Modify(plan) => write::modify(execution, plan).await,
        Plan::Batch(plan) => Box::pin(batch::text_batch(execution, plan)).await,
        Plan::Transaction(plan) => Box::pin(transaction::run(execution, plan)).await,
        Plan::Other(statement) => Box::pin(other(execution, statement)).await,
    }
}

async fn other(execution: &Execution<'_>, statement: &Statement) -> Result<Vec<u8>, Error> {
    let reply = execution.reply;
    match statement {
        Statement::Use(keyspace) => {
            let catalog = execution.server.database.catalog();
            let exists =
                catalog.namespaces.contains_key(keyspace) || crate::system::is_system(keyspace);
            if !exists {
                return Err(Error::invalid(format!(
                    "Keyspace '{keyspace}' does not exist"
                )));
            }
            execution.connection.set_keyspace(keyspace);
            Ok(reply.set_keyspace(keyspace))
        }
        Statement::Truncate(table) => truncate::truncate(execution, table).await,
        Statement::Describe(target) => describe::describe(execution, target),
        Statement::Unsupported(what) => Err(Error::invalid(format!("{what} not supported yet"))),
        definition => define::define(execution, definition).await,
    }
}

fn prepare(
    server: &Server,
    connection: &Connection,
    reply: Reply,
    text: &str,
    keyspace: Option<&str>,
) -> Result<Vec<u8>, Error> {
    let keyspace = keyspace
        .map(str::to_owned)
        .or_else(|| connection.keyspace());
    let id = PreparedStatements::id(keyspace.as_deref(), text);
    let catalog = server.database.catalog();
    let known = server
        .prepared
        .get(&id)
        .ok()
        .filter(|known| known.planned.is_current(&catalog));
    let prepared = match known {
        Some(known) => known,
        None => {
            let prepared = make_prepared(id, text, keyspace.as_deref(), &catalog)?;
            let prepared = Arc::new(prepared);
            server.prepared.insert(prepared.clone());
            prepared
        }
    };
    Ok(prepared_answer(reply, &prepared))
}

fn make_prepared(
    id: [u8; 16],
    text: &str,
    keyspace: Option<&str>,
    catalog: &Catalog,
) -> Result<Prepared, Error> {
    let parsed = parse(text)?;
    let planned = plan(&parsed, catalog, keyspace)?;
    let result_metadata_id = match &planned.plan {
        Plan::Select(select) => select.metadata_id,
        _ => digest(&[]),
    };
    Ok(Prepared {
        id,
        text: text.to_owned(),
        planned,
        result_metadata_id,
    })
}

fn prepared_answer(reply: Reply, prepared: &Prepared) -> Vec<u8> {
    let mut out = reply.result(ResultKind::Prepared, &[], 256);
    wire::put_short_bytes(&mut out, &prepared.id);
    if reply.version >= Version::V5 {
        wire::put_short_bytes(&mut out, &prepared.result_metadata_id);
    }
    prepared.planned.markers.encode_markers(
        reply.version,
        &prepared.planned.key_positions,
        &mut out,
    );
    match prepared.planned.result() {
        Some(metadata) => metadata.encode(reply.version, Default::default(), &mut out),
        None => RowsMetadata::encode_none(&mut out),
    }
    frame::finish(&mut out);
    out
}
