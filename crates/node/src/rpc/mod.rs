//! Requests and answers over the network's messages: ids, patience, bounds. Messages may be lost, late, or
//! twice; an answer counts once, a request is taken once, and every request that changes something can be repeated
//! (writes, proposals and joins carry their own identity).

mod message;
mod taken;

pub(crate) use message::{
    CONSENSUS, ClockAnswer, ClockPoll, ENVELOPE, Envelope, Failure, GOSSIP, Reply, Request,
    TIMED_CONSENSUS, decode, encode, split_timed, tagged, timed_frame,
};
pub use message::{TRANSACTION_STEPS, VOTE_STEP, message_step};
pub(crate) use taken::Taken;

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use world::Network;

/// Requests of this node that may be unanswered at one time.
const IN_FLIGHT_MAX: usize = 65_536;

/// Why no answer came. Whether the request was carried out is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no answer in time")]
    Timeout,
    /// Nothing was sent.
    #[error("too many requests are unanswered")]
    Overloaded,
    #[error("this node is stopping")]
    Stopped,
}

pub(crate) struct Rpc {
    network: Arc<dyn Network>,
    next_id: AtomicU64,
    /// `None` once stopped.
    pending: Mutex<Option<BTreeMap<u64, oneshot::Sender<Reply>>>>,
}

/// Forgets a request when whoever asked has gone.
struct Waiting<'a> {
    rpc: &'a Rpc,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.rpc.pending.lock().as_mut() {
            pending.remove(&self.id);
        }
    }
}

impl Rpc {
    /// `first_id` differs from start to start, so that an answer to a former life is no answer to this one.
    pub fn new(network: Arc<dyn Network>, first_id: u64) -> Rpc {
        Rpc {
            network,
            next_id: AtomicU64::new(first_id >> 16),
            pending: Mutex::new(Some(BTreeMap::new())),
        }
    }

    pub async fn call(
        &self,
        to: SocketAddr,
        request: Request,
        patience: Duration,
    ) -> Result<Reply, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut pending = self.pending.lock();
            let pending = pending.as_mut().ok_or(CallError::Stopped)?;
            if pending.len() >= IN_FLIGHT_MAX {
                return Err(CallError::Overloaded);
            }
            pending.insert(id, sender);
        }
        let _waiting = Waiting { rpc: self, id };
        let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let envelope = Envelope::Request {
            id,
            patience_ms,
            request,
        };
        self.network.send(to, encode(&envelope));
        match tokio::time::timeout(patience, receiver).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(CallError::Stopped),
            Err(_) => Err(CallError::Timeout),
        }
    }

    /// Takes the answer to a request; one that nobody waits for any more is dropped.
    pub fn answered(&self, id: u64, reply: Reply) {
        let sender = self
            .pending
            .lock()
            .as_mut()
            .and_then(|pending| pending.remove(&id));
        if let Some(sender) = sender {
            let _ = sender.send(reply);
        }
    }

    pub fn reply(&self, to: SocketAddr, id: u64, reply: Reply) {
        self.network
            .send(to, encode(&Envelope::Reply { id, reply }));
    }

    pub fn beat(&self, to: SocketAddr, version: u64, clock: Option<model::Interval>, led: u64) {
        let beat = Envelope::Beat {
            version,
            clock,
            led: Some(led),
        };
        self.network.send(to, encode(&beat));
    }

    pub fn send(&self, to: SocketAddr, message: Bytes) {
        self.network.send(to, message);
    }

    pub fn in_flight(&self) -> usize {
        self.pending.lock().as_ref().map_or(0, BTreeMap::len)
    }

    /// Nobody is answered any more.
    pub fn stop(&self) {
        let pending = self.pending.lock().take();
        drop(pending);
    }
}
