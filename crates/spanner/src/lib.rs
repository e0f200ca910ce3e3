//! The Spanner door: gRPC services of `google.spanner.v1` and its admin services over the inner language.
//!
//! ```text
//! HTTP/2 ── grpc (method tables) ──> sessions, transactions ──> queries, commit ──> sql, api::Database
//!                                └─> instances, databases, operations ──> catalog changes
//! ```
//!
//! A door decodes, checks, lowers and encodes. Open transactions are one node's alone: what is asked of one at another
//! node is passed on to it (`forward`), and the name of a session is known everywhere. A commit goes on when its
//! client's connection is lost, and its outcome is kept for the repetition. Read-write transactions are `api::Transaction`s, whose lost
//! conflicts show as ABORTED with a delay; an optimistic one takes no locks and hears so at commit. Tables made at other doors are
//! visible where their types have counterparts.
//!
//! Refused by name: backups, roles, IAM, instance partitions, the
//! PostgreSQL dialect, and what `sql` refuses.

mod commit;
mod databases;
mod ended;
mod explain;
mod forward;
mod grpc;
mod instances;
mod keys;
mod metrics;
mod mutations;
mod names;
mod operations;
mod partitioned_dml;
mod partitions;
mod queries;
mod results;
mod sessions;
mod status;
mod transactions;
mod wire;

pub use metrics::Metrics;

use api::{Database, DoorPeer};
use std::future::Future;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Calls of one connection that run at a time; further ones wait.
const STREAMS_MAX: u32 = 1_000;
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// A silent connection is asked for a sign of life, and closed without one.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub metrics: Metrics,
}

/// What all requests share.
pub struct Door {
    database: Arc<dyn Database>,
    sessions: sessions::Sessions,
    transactions: transactions::Transactions,
    operations: operations::Operations,
    metrics: Metrics,
}

grpc::service! {
    /// Sessions, reads, queries, transactions.
    Spanner, "google.spanner.v1.Spanner",
    {
        unary CreateSession => sessions::create;
        unary BatchCreateSessions => sessions::batch_create;
        unary GetSession => sessions::get;
        unary ListSessions => sessions::list;
        unary DeleteSession => sessions::delete;
        unary_of_transaction ExecuteSql => queries::execute_sql;
        streaming_of_transaction ExecuteStreamingSql => queries::execute_streaming_sql;
        unary_of_transaction ExecuteBatchDml => queries::execute_batch_dml;
        unary_of_transaction Read => queries::read;
        streaming_of_transaction StreamingRead => queries::streaming_read;
        unary BeginTransaction => commit::begin_transaction;
        unary_of_transaction Commit => commit::commit;
        unary_of_transaction Rollback => commit::rollback;
        streaming BatchWrite => commit::batch_write;
        unary PartitionQuery => partitions::query;
        unary PartitionRead => partitions::read;
    }
}

grpc::service! {
    /// Operations, all of them done.
    OperationsService, "google.longrunning.Operations",
    {
        unary GetOperation => operations::get;
        unary ListOperations => operations::list;
        unary CancelOperation => operations::cancel;
        unary DeleteOperation => operations::delete;
        unary WaitOperation => operations::wait;
    }
}

/// Serves the door until `stop` is ready; calls that are under way are answered first.
pub async fn serve(
    listener: TcpListener,
    database: Arc<dyn Database>,
    options: Options,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let door = Arc::new(Door {
        database,
        sessions: Default::default(),
        transactions: Default::default(),
        operations: Default::default(),
        metrics: options.metrics,
    });
    let sweeping = transactions::end_idle(door.clone());
    let peer = Arc::new(forward::Peer::new(door.clone()));
    let this_peer: Weak<dyn DoorPeer> = Arc::<forward::Peer>::downgrade(&peer);
    door.database.open_to_peers(forward::DOOR, this_peer);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(Spanner(door.clone()))
        .add_service(databases::DatabaseAdmin(door.clone()))
        .add_service(instances::InstanceAdmin(door.clone()))
        .add_service(OperationsService(door))
        .serve_with_incoming_shutdown(incoming, stop);
    tokio::select! {
        biased;
        served = serving => served.map_err(io::Error::other),
        never = sweeping => match never {},
        never = peer.give_up_rests() => match never {},
    }
}
