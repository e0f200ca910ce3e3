//! What waits for one address, and the task that connects to it and writes.

use super::frame::{FrameWriter, Frames};
use super::hello::{self, HelloError};
use super::{Counters, HELLO_DURATION_MAX, Shared};
use bytes::Bytes;
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, watch};
use world::Identity;

const CONNECT_DURATION_MAX: Duration = Duration::from_secs(3);
/// A peer that takes longer than this for one message is given up, and what was being written with it.
const WRITE_DURATION_MAX: Duration = Duration::from_secs(20);
/// Between attempts to connect: doubles up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// After a peer's refusal, which only an operator can change.
const PAUSE_REFUSED: Duration = Duration::from_secs(1);
/// An address that nothing was sent to for this long is forgotten.
const IDLE_DURATION_MAX: Duration = Duration::from_secs(60);

/// Messages for one address, in order.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: Vec<Bytes>,
    bytes: usize,
}

impl Queue {
    /// False when there is no room.
    pub fn push(&self, message: Bytes, bytes_max: usize) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.bytes + message.len() > bytes_max {
            return false;
        }
        waiting.bytes += message.len();
        waiting.messages.push(message);
        if waiting.messages.len() == 1 {
            self.filled.notify_one();
        }
        true
    }

    /// All that waits, swapped for the empty `batch`.
    fn take(&self, batch: &mut Vec<Bytes>) {
        let mut waiting = self.waiting.lock();
        std::mem::swap(&mut waiting.messages, batch);
        waiting.bytes = 0;
    }

    fn is_empty(&self) -> bool {
        self.waiting.lock().messages.is_empty()
    }

    /// Resolves when something waits.
    async fn filled(&self) {
        while self.is_empty() {
            self.filled.notified().await;
        }
    }
}

/// Why a connection was left.
enum Ended {
    /// Nothing to send for a while: the address is forgotten.
    Idle,
    /// This node's identity changed, or the peer closed: connect again.
    Outdated,
    /// What was being written is lost.
    Failed,
}

struct Connection {
    /// Nothing comes after the hello; its end tells that the peer is gone.
    frames: Frames<OwnedReadHalf>,
    writer: FrameWriter<OwnedWriteHalf>,
    peer: Identity,
    highest_incarnation: Arc<AtomicU64>,
    own_identity: watch::Receiver<Option<Identity>>,
}

/// Runs until the network is shut down or the address has been idle.
pub(super) async fn run(shared: Arc<Shared>, to: SocketAddr, queue: Arc<Queue>) {
    tokio::select! {
        biased;
        () = shared.stopped() => {}
        () = deliver(&shared, to, &queue) => {}
    }
}

async fn deliver(shared: &Shared, to: SocketAddr, queue: &Arc<Queue>) {
    let mut pause = PAUSE_MIN;
    let mut last_refusal = String::new();
    loop {
        if tokio::time::timeout(IDLE_DURATION_MAX, queue.filled())
            .await
            .is_err()
            && forget(shared, to, queue)
        {
            return;
        }
        let connected = tokio::time::timeout(HELLO_DURATION_MAX, connect(shared, to)).await;
        let error = match connected {
            Ok(Ok(connection)) => {
                last_refusal.clear();
                tracing::debug!(%to, peer = %connection.peer.node, "connected to a peer");
                match write(shared, connection, queue).await {
                    Ended::Idle => {
                        if forget(shared, to, queue) {
                            return;
                        }
                    }
                    // Also here a pause: a peer may close every connection as soon as it is open.
                    Ended::Outdated | Ended::Failed => tokio::time::sleep(PAUSE_MIN).await,
                }
                pause = PAUSE_MIN;
                continue;
            }
            Ok(Err(error)) => error,
            Err(elapsed) => io::Error::from(elapsed).into(),
        };
        // Who sends to a peer that is not there would rather know soon than be late: nothing is kept for it.
        let mut lost = Vec::new();
        queue.take(&mut lost);
        shared.drop_messages(lost.len());
        if error.is_refusal() {
            let refusal = error.to_string();
            if refusal != last_refusal {
                tracing::warn!(%to, %error, "cannot talk to a peer");
                last_refusal = refusal;
            }
            tokio::time::sleep(PAUSE_REFUSED).await;
        } else {
            tracing::debug!(%to, %error, "cannot reach a peer");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Gives the address up, unless something has been queued meanwhile.
fn forget(shared: &Shared, to: SocketAddr, queue: &Arc<Queue>) -> bool {
    let mut queues = shared.queues.lock();
    if !queue.is_empty() {
        return false;
    }
    queues.remove(&to);
    true
}

async fn connect(shared: &Shared, to: SocketAddr) -> Result<Connection, HelloError> {
    let identified = shared.identified().await;
    let (ours, own_identity) = identified.ok_or(HelloError::Magic)?;
    let stream = tokio::time::timeout(CONNECT_DURATION_MAX, TcpStream::connect(to))
        .await
        .map_err(io::Error::from)??;
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let mut frames = Frames::new(reader);
    let mut writer = FrameWriter::new(writer);
    let (peer, highest_incarnation) =
        hello::connect(shared, &ours, &mut frames, &mut writer).await?;
    Ok(Connection {
        frames,
        writer,
        peer,
        highest_incarnation,
        own_identity,
    })
}

async fn write(shared: &Shared, connection: Connection, queue: &Queue) -> Ended {
    let Connection {
        mut frames,
        mut writer,
        peer,
        highest_incarnation,
        mut own_identity,
    } = connection;
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            _ = own_identity.changed() => return Ended::Outdated,
            _ = frames.next(0) => return Ended::Outdated,
            filled = tokio::time::timeout(IDLE_DURATION_MAX, queue.filled()) => {
                if filled.is_err() {
                    return Ended::Idle;
                }
            }
        }
        if highest_incarnation.load(Ordering::Relaxed) > peer.incarnation.0 {
            return Ended::Outdated;
        }
        queue.take(&mut batch);
        let error = match write_batch(&mut writer, &batch).await {
            Ok(()) => {
                let bytes = batch.iter().map(Bytes::len).sum();
                Counters::add(&shared.counters.sent_messages, batch.len());
                Counters::add(&shared.counters.sent_bytes, bytes);
                batch.clear();
                continue;
            }
            Err(error) => error,
        };
        shared.drop_messages(batch.len());
        tracing::debug!(peer = %peer.node, %error, "lost the connection to a peer");
        return Ended::Failed;
    }
}

/// Writes all that waited in as few writes as possible.
async fn write_batch(writer: &mut FrameWriter<OwnedWriteHalf>, batch: &[Bytes]) -> io::Result<()> {
    for message in batch {
        tokio::time::timeout(WRITE_DURATION_MAX, writer.put(message)).await??;
    }
    tokio::time::timeout(WRITE_DURATION_MAX, writer.flush()).await?
}
