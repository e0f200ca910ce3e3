//! Messages between nodes over TCP: one connection for each direction of a pair, opened by the sender.
//!
//! ```text
//!  send ── queue of the address ── outgoing task ══ TCP ══ incoming task ── queue ── receive
//! ```
//!
//! Invariants:
//! * Nothing of a peer is handed over before its hello was accepted, by both sides (docs/formats/internode.md).
//! * The highest incarnation that was seen of each node is remembered; connections of lower ones are refused, and
//!   closed where they are open.
//! * Queues are bounded in bytes. A message that does not fit, or whose address cannot be reached, is dropped and
//!   counted: senders repeat what matters.
//! * `send` never waits.

mod frame;
mod hello;
mod incoming;
mod outgoing;

use async_trait::async_trait;
use bytes::Bytes;
use model::{Incarnation, NodeId};
use outgoing::Queue;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use world::{Identity, Incoming, Network, Rejection};

/// The largest message.
const MESSAGE_SIZE_MAX: usize = 32 << 20;
/// Waiting for one address.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Received from all peers together and not yet taken; then their connections are not read.
const RECEIVED_BYTES_MAX: usize = 128 << 20;
const RECEIVED_MESSAGES_MAX: usize = 16_384;
/// Addresses that messages are queued for.
const ADDRESSES_MAX: usize = 1_024;
/// Connections that peers hold open.
const CONNECTIONS_MAX: usize = 1_024;
/// From the connection to the end of both hellos.
const HELLO_DURATION_MAX: Duration = Duration::from_secs(5);

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkStatistics {
    pub sent_messages: u64,
    pub sent_bytes: u64,
    pub received_messages: u64,
    pub received_bytes: u64,
    pub dropped_messages: u64,
    /// Hellos refused, by either side.
    pub rejections: u64,
}

#[derive(Default)]
struct Counters {
    sent_messages: AtomicU64,
    sent_bytes: AtomicU64,
    received_messages: AtomicU64,
    received_bytes: AtomicU64,
    dropped_messages: AtomicU64,
    rejections: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

pub struct TcpNetwork {
    shared: Arc<Shared>,
    received: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
    runtime: Handle,
}

/// What all connections of a node share.
struct Shared {
    advertised: SocketAddr,
    /// `None` until the node has said who it is.
    identity: watch::Sender<Option<Identity>>,
    stop: watch::Sender<bool>,
    queues: Mutex<BTreeMap<SocketAddr, Arc<Queue>>>,
    incarnations: Mutex<BTreeMap<NodeId, Arc<AtomicU64>>>,
    arrivals: mpsc::Sender<Incoming>,
    /// A permit for each byte that may be received and not yet taken.
    room: Semaphore,
    counters: Counters,
}

impl TcpNetwork {
    /// Listens on `listen`. Peers are told to come to `advertised`, or to the address that was bound.
    pub async fn bind(
        listen: SocketAddr,
        advertised: Option<SocketAddr>,
    ) -> io::Result<Arc<TcpNetwork>> {
        let listener = TcpListener::bind(listen).await?;
        TcpNetwork::start(listener, advertised)
    }

    /// As `bind`, with a socket that listens already.
    pub fn start(
        listener: TcpListener,
        advertised: Option<SocketAddr>,
    ) -> io::Result<Arc<TcpNetwork>> {
        let bound = listener.local_addr()?;
        let (arrivals, received) = mpsc::channel(RECEIVED_MESSAGES_MAX);
        let shared = Arc::new(Shared {
            advertised: match advertised {
                // A port of 0 is the one that was bound.
                Some(address) if address.port() == 0 => SocketAddr::new(address.ip(), bound.port()),
                Some(address) => address,
                None => bound,
            },
            identity: watch::Sender::new(None),
            stop: watch::Sender::new(false),
            queues: Mutex::default(),
            incarnations: Mutex::default(),
            arrivals,
            room: Semaphore::new(RECEIVED_BYTES_MAX),
            counters: Counters::default(),
        });
        tokio::spawn(incoming::accept(Arc::clone(&shared), listener));
        Ok(Arc::new(TcpNetwork {
            shared,
            received: tokio::sync::Mutex::new(received),
            runtime: Handle::current(),
        }))
    }

    /// Closes all connections and the listener; `receive` answers `None` from then on.
    pub fn shut_down(&self) {
        self.shared.stop.send_replace(true);
    }

    pub fn statistics(&self) -> NetworkStatistics {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetworkStatistics {
            sent_messages: read(&counters.sent_messages),
            sent_bytes: read(&counters.sent_bytes),
            received_messages: read(&counters.received_messages),
            received_bytes: read(&counters.received_bytes),
            dropped_messages: read(&counters.dropped_messages),
            rejections: read(&counters.rejections),
        }
    }
}

impl Drop for TcpNetwork {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Shared {
    fn drop_messages(&self, count: usize) {
        Counters::add(&self.counters.dropped_messages, count);
    }

    /// Resolves when the network is shut down.
    async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // An error is the sender's end, which is a stop too.
        let _ = stop.wait_for(|stopped| *stopped).await;
    }

    /// Waits until the node has said who it is. The receiver tells of the next change.
    async fn identified(&self) -> Option<(Identity, watch::Receiver<Option<Identity>>)> {
        let mut receiver = self.identity.subscribe();
        let identity = receiver.wait_for(Option::is_some).await.ok()?.clone()?;
        receiver.mark_unchanged();
        Some((identity, receiver))
    }

    /// Both checks of a peer's hello. What is returned holds the highest incarnation seen of it, as it grows.
    fn check(&self, ours: &Identity, peer: &Identity) -> Result<Arc<AtomicU64>, Rejection> {
        ours.accepts(peer)?;
        if peer.node == NodeId(0) || peer.cluster != ours.cluster {
            // Not a member: it has no incarnation that could be compared.
            return Ok(Arc::new(AtomicU64::new(peer.incarnation.0)));
        }
        let mut incarnations = self.incarnations.lock();
        let known = incarnations.entry(peer.node).or_default();
        let highest = known.fetch_max(peer.incarnation.0, Ordering::Relaxed);
        if highest > peer.incarnation.0 {
            return Err(Rejection::OldIncarnation {
                node: peer.node,
                theirs: peer.incarnation,
                known: Incarnation(highest),
            });
        }
        Ok(Arc::clone(known))
    }
}

#[async_trait]
impl Network for TcpNetwork {
    fn identify(&self, identity: Identity) {
        if identity.node != NodeId(0) {
            // A clone of this node's disk is an old incarnation here too.
            let mut incarnations = self.shared.incarnations.lock();
            let own = incarnations.entry(identity.node).or_default();
            own.fetch_max(identity.incarnation.0, Ordering::Relaxed);
        }
        self.shared.identity.send_replace(Some(identity));
    }

    fn send(&self, to: SocketAddr, message: Bytes) {
        if message.len() > MESSAGE_SIZE_MAX || *self.shared.stop.borrow() {
            self.shared.drop_messages(1);
            return;
        }
        // The lock is held while the message is queued, so that an idle queue cannot be given up in between.
        let mut queues = self.shared.queues.lock();
        let queue = match queues.get(&to) {
            Some(queue) => queue,
            None if queues.len() >= ADDRESSES_MAX => {
                self.shared.drop_messages(1);
                return;
            }
            None => {
                let queue = Arc::new(Queue::default());
                let task = outgoing::run(Arc::clone(&self.shared), to, Arc::clone(&queue));
                self.runtime.spawn(task);
                queues.entry(to).or_insert(queue)
            }
        };
        if !queue.push(message, QUEUE_BYTES_MAX) {
            self.shared.drop_messages(1);
        }
    }

    async fn receive(&self) -> Option<Incoming> {
        let mut received = self.received.lock().await;
        if *self.shared.stop.borrow() {
            return None;
        }
        let incoming = match received.try_recv() {
            Ok(incoming) => incoming,
            Err(_) => tokio::select! {
                biased;
                () = self.shared.stopped() => return None,
                incoming = received.recv() => incoming?,
            },
        };
        self.shared.room.add_permits(incoming.message.len());
        Some(incoming)
    }

    fn local_address(&self) -> SocketAddr {
        self.shared.advertised
    }
}
