//! The door itself: accepts connections, and tells them what changes.

use crate::connection;
use crate::events::{schema_events, topology_events};
use crate::metrics::Metrics;
use crate::prepared::PreparedStatements;
use crate::protocol::response::Event;
use crate::timeuuid::TimeUuids;
use api::Database;
use model::Timestamp;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinSet;

/// Events that wait for a slow connection; beyond that it misses some.
const EVENTS_MAX: usize = 1024;
/// What is under way at the stop may take so long to finish.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Options {
    /// More wait to be accepted.
    pub connections_max: usize,
    /// Of all requests under way on this node together; beyond that they are refused.
    pub in_flight_size_bytes_max: usize,
    pub metrics: Metrics,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connections_max: 10_000,
            in_flight_size_bytes_max: 256 << 20,
            metrics: Metrics::default(),
        }
    }
}

/// What all connections share.
pub struct Server {
    pub(crate) database: Arc<dyn Database>,
    pub(crate) prepared: PreparedStatements,
    pub(crate) uuids: TimeUuids,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) options: Options,
}

impl Server {
    pub(crate) fn new(database: Arc<dyn Database>, options: Options) -> Server {
        let mut random = [0; 8];
        random.copy_from_slice(&uuid::Uuid::new_v4().as_bytes()[..8]);
        Server {
            database,
            prepared: PreparedStatements::default(),
            uuids: TimeUuids::new(random),
            events: broadcast::Sender::new(EVENTS_MAX),
            options,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.database.now().earliest
    }
}

/// Serves the door until `stop` is ready; requests that are under way are answered first.
pub async fn serve(
    listener: TcpListener,
    database: Arc<dyn Database>,
    options: Options,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(options.connections_max));
    let server = Arc::new(Server::new(database, options));
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut watchers = JoinSet::new();
    watchers.spawn(watch_catalog(server.clone()));
    watchers.spawn(watch_topology(server.clone()));
    tokio::pin!(stop);
    loop {
        let permit = permits.clone().acquire_owned();
        let accepted = async {
            let permit = permit.await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            Ok::<_, io::Error>((stream, permit))
        };
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = accepted => {
                let (stream, permit) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, say: others must close first.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                };
                let server = server.clone();
                let stopped = stopped.clone();
                connections.spawn(async move {
                    server.options.metrics.connection_opened();
                    if let Err(error) = connection::run(stream, server.clone(), stopped).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                    server.options.metrics.connection_closed();
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

async fn watch_catalog(server: Arc<Server>) {
    let mut catalogs = server.database.watch_catalog();
    let mut before = catalogs.borrow_and_update().clone();
    while catalogs.changed().await.is_ok() {
        let after = catalogs.borrow_and_update().clone();
        for event in schema_events(&before, &after) {
            // Nobody may have registered.
            let _ = server.events.send(event);
        }
        before = after;
    }
}

async fn watch_topology(server: Arc<Server>) {
    let mut topologies = server.database.watch_topology();
    let mut before = topologies.borrow_and_update().clone();
    while topologies.changed().await.is_ok() {
        let after = topologies.borrow_and_update().clone();
        for event in topology_events(&before, &after) {
            let _ = server.events.send(event);
        }
        before = after;
    }
}
