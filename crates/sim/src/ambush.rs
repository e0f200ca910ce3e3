//! Lies in wait for a moment that only the course of things can name: the next message of some step of a transaction or an election,
//! or the next sync of some node's log. Whoever waits can then strike those who are at that step.

use bytes::Bytes;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// A message of this step arrives: one of `node::TRANSACTION_STEPS`, or `node::VOTE_STEP`.
    Step(&'static str),
    /// The node at this address makes something durable.
    Sync(SocketAddr),
}

struct Waiting {
    spot: Spot,
    /// So many are let pass.
    pass: u32,
    found: oneshot::Sender<(SocketAddr, SocketAddr)>,
}

/// Clones are the same ambush: there is one at a time.
#[derive(Clone, Default)]
pub struct Ambush {
    waiting: Arc<Mutex<Option<Waiting>>>,
}

impl Ambush {
    /// Waits until it has happened once more than `pass` times; returns who sent and who received, or the node twice.
    pub async fn lie(
        &self,
        spot: Spot,
        pass: u32,
        patience: Duration,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let (found, finding) = oneshot::channel();
        *self.waiting.lock() = Some(Waiting { spot, pass, found });
        let met = timeout(patience, finding).await;
        self.waiting.lock().take();
        met.ok()?.ok()
    }

    fn happens(&self, is_spot: impl Fn(Spot) -> bool, from: SocketAddr, to: SocketAddr) {
        let mut waiting = self.waiting.lock();
        match waiting.take() {
            Some(mine) if !is_spot(mine.spot) => *waiting = Some(mine),
            Some(mine) if mine.pass > 0 => {
                *waiting = Some(Waiting {
                    pass: mine.pass - 1,
                    ..mine
                });
            }
            Some(mine) => {
                // Whoever waited may have lost patience in this moment.
                let _ = mine.found.send((from, to));
            }
            None => {}
        }
    }

    pub(crate) fn arrived(&self, from: SocketAddr, to: SocketAddr, message: &Bytes) {
        let is_spot = |spot| match spot {
            Spot::Step(step) => step_of(message) == Some(step),
            Spot::Sync(_) => false,
        };
        self.happens(is_spot, from, to);
    }

    #[cfg(feature = "nodes")]
    pub(crate) fn synced(&self, node: SocketAddr) {
        self.happens(|spot| spot == Spot::Sync(node), node, node);
    }
}

/// Which step of a transaction or an election a message is of.
#[cfg(feature = "nodes")]
pub(crate) fn step_of(message: &[u8]) -> Option<&'static str> {
    node::message_step(message)
}

#[cfg(not(feature = "nodes"))]
pub(crate) fn step_of(_: &[u8]) -> Option<&'static str> {
    None
}
