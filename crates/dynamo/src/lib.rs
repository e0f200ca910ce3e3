//! The DynamoDB door: AWS JSON 1.0 over HTTP, as every AWS SDK and the AWS CLI speak it (API version
//! `DynamoDB_20120810`).
//!
//! ```text
//! http        size, method, operation, signature, compression, CRC
//! wire        JSON to typed requests and back; the model's constraints
//! expression  conditions, updates, projections, key conditions, and their legacy forms
//! operation   one file per family: checks in the service's order, then the inner language
//! table       how an item lies in a row
//! ```
//!
//! A table is hash-partitioned and strong. Its hash key is the partition column, its range key the clustering
//! column, and everything else of an item is one document. Conditions and updates are evaluated where the row
//! is held (`api::document`), so that each costs one round of replication.
//!
//! Deliberately not here yet, and refused in the service's form: indexes, streams, PartiQL, TTL,
//! backups, global tables, and throttling by provisioned throughput.

mod capacity;
mod error;
mod expression;
mod http;
mod metrics;
mod operation;
mod signature;
mod table;
mod wire;

pub use metrics::Metrics;
pub use operation::Place;
pub use signature::Credentials;

use api::Database;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// A request's head must be there within, counted from the answer before.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);
const HEAD_SIZE_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
/// What is under way at the stop may take so long to finish.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Options {
    /// What the ARNs of tables and the health check say.
    pub place: Place,
    /// Signatures are verified if there are any.
    pub credentials: Credentials,
    /// More wait to be accepted.
    pub connections_max: usize,
    pub metrics: Metrics,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            place: Place {
                region: "us-east-1".into(),
                account: "000000000000".into(),
            },
            credentials: Credentials::default(),
            connections_max: 10_000,
            metrics: Metrics::default(),
        }
    }
}

/// Serves the door until `stop` is ready; requests that are under way are answered first.
pub async fn serve(
    listener: TcpListener,
    database: Arc<dyn Database>,
    options: Options,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let door = Arc::new(http::Door {
        database,
        place: options.place,
        credentials: options.credentials,
        metrics: options.metrics,
        tokens_in_progress: Default::default(),
        next_request_id: AtomicU64::new(uuid::Uuid::new_v4().as_u64_pair().0),
    });
    let permits = Arc::new(Semaphore::new(options.connections_max));
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &permits) => {
                let (stream, permit) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, say: others must close first.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                };
                let door = door.clone();
                let stopped = stopped.clone();
                connections.spawn(async move {
                    door.metrics.connection_opened();
                    connection(stream, &door, stopped).await;
                    door.metrics.connection_closed();
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    // Nobody listening any more is fine: there is no connection then.
    let _ = stopping.send(true);
    let all_closed = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_PATIENCE, all_closed)
        .await
        .is_err()
    {
        connections.shutdown().await;
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

async fn connection(stream: TcpStream, door: &Arc<http::Door>, mut stopped: watch::Receiver<bool>) {
    let service = service_fn(|request| http::handle(door.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_SIZE_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let stop = async {
        // The sender outlives all connections; if it did not, that would be a stop too.
        let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
    };
    // Errors are the client's: it went away, or did not speak HTTP; hyper has answered what can be answered.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
