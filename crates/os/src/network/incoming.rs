//! Connections that peers open: each is read until it ends, misbehaves, or one of the two identities is outdated.

use super::frame::{FrameWriter, Frames};
use super::hello::{self, HelloError};
use super::{CONNECTIONS_MAX, Counters, HELLO_DURATION_MAX, MESSAGE_SIZE_MAX, Shared};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use world::{Identity, Incoming};

/// After a failure to accept (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A peer that is silent for this long is asked by the kernel whether it is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);

pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of peers");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            tracing::warn!(%from, "too many connections of peers: closing one");
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = shared.stopped() => {}
                () = serve(&shared, stream, from) => {}
            }
            drop(permit);
        });
    }
}

/// A connection whose hello was accepted.
struct Connection {
    frames: Frames<OwnedReadHalf>,
    /// Nothing is written after the hello, but its drop would close the connection's other half.
    _writer: FrameWriter<OwnedWriteHalf>,
    peer: Identity,
    address: SocketAddr,
    highest_incarnation: Arc<AtomicU64>,
    own_identity: watch::Receiver<Option<Identity>>,
}

async fn serve(shared: &Shared, stream: TcpStream, from: SocketAddr) {
    let greeted = tokio::time::timeout(HELLO_DURATION_MAX, greet(shared, stream, from)).await;
    let connection = match greeted {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) if error.is_refusal() => {
            tracing::warn!(%from, %error, "refused a peer");
            return;
        }
        Ok(Err(error)) => {
            tracing::info!(%from, %error, "a connection that is not a peer's");
            return;
        }
        Err(_) => {
            tracing::info!(%from, "a connection without a hello");
            return;
        }
    };
    read(shared, connection).await;
}

async fn greet(
    shared: &Shared,
    stream: TcpStream,
    from: SocketAddr,
) -> Result<Connection, HelloError> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    let (reader, writer) = stream.into_split();
    let mut frames = Frames::new(reader);
    let mut writer = FrameWriter::new(writer);
    let identified = shared.identified().await;
    let (ours, own_identity) = identified.ok_or(HelloError::Magic)?;
    let (peer, highest_incarnation) =
        hello::accept(shared, &ours, &mut frames, &mut writer).await?;
    let address = resolve(&peer.advertised, from.ip()).await?;
    Ok(Connection {
        frames,
        _writer: writer,
        peer,
        address,
        highest_incarnation,
        own_identity,
    })
}

/// Where a peer can be answered. One that listens on every address is where it came from.
async fn resolve(advertised: &str, from: IpAddr) -> Result<SocketAddr, HelloError> {
    let unresolved = || HelloError::Address(advertised.to_owned());
    let mut addresses = tokio::net::lookup_host(advertised)
        .await
        .map_err(|_| unresolved())?;
    let mut address = addresses.next().ok_or_else(unresolved)?;
    if address.ip().is_unspecified() {
        address.set_ip(from);
    }
    Ok(address)
}

async fn read(shared: &Shared, mut connection: Connection) {
    loop {
        let frame = tokio::select! {
            biased;
            // This node has become somebody else: the peer connects again.
            _ = connection.own_identity.changed() => return,
            frame = connection.frames.next(MESSAGE_SIZE_MAX) => frame,
        };
        let message = match frame {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => {
                tracing::info!(peer = %connection.peer.node, %error, "closed a peer's connection");
                return;
            }
        };
        let highest = connection.highest_incarnation.load(Ordering::Relaxed);
        if highest > connection.peer.incarnation.0 {
            return;
        }
        Counters::add(&shared.counters.received_messages, 1);
        Counters::add(&shared.counters.received_bytes, message.len());
        // The permits come back when the message is taken. While there are none, the peer's queue fills.
        match shared.room.acquire_many(message.len() as u32).await {
            Ok(permits) => permits.forget(),
            Err(_) => return,
        }
        let incoming = Incoming {
            from: connection.peer.clone(),
            address: connection.address,
            message,
        };
        if shared.arrivals.send(incoming).await.is_err() {
            return;
        }
    }
}
