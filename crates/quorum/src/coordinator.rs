//! One request's way to the replicas and back. A coordinator is a value that lives as long as its request.

mod agreement;
mod batch;
mod cas;
mod exchange;
mod handoff;
mod read;
mod repair;
#[cfg(test)]
mod tests;
mod turns;
mod write;

pub use repair::RepairStep;

use crate::level::Place;
use crate::message::{ReplicaError, Reply, Request};
use crate::peers::CallError;
use crate::{Batchlog, EventualReplica, Gateway, Hints, Peers, Speeds};
use cluster::Tablet;
use model::{NodeId, TabletId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use turns::Turns;

/// Requests to a tablet are repeated so often when its placement turns out to be newer than known.
const PLACEMENT_ROUNDS_MAX: u32 = 5;
const PLACEMENT_PAUSE: Duration = Duration::from_millis(50);
/// A replica here that is not open yet is looked for again after so long, so often.
const OPENING_PAUSE: Duration = Duration::from_millis(20);
const OPENING_LOOKS_MAX: u32 = 50;

/// Carries out requests on eventual tables. Cheap to make and to clone.
#[derive(Clone)]
pub struct Coordinator {
    peers: Arc<dyn Peers>,
    gateway: Arc<Gateway>,
    hints: Arc<Hints>,
    batches: Arc<Batchlog>,
    speeds: Arc<Speeds>,
    turns: Arc<Turns>,
}

/// Why a replica gave no answer that counts.
#[derive(Clone, Debug, PartialEq)]
enum Failure {
    Silent(CallError),
    Refused(ReplicaError),
}

/// How an operation on one tablet ended without success.
enum TabletError {
    /// The placement is newer than the one that was counted with.
    Stale(Tablet),
    Api(api::Error),
}

impl From<api::Error> for TabletError {
    fn from(error: api::Error) -> TabletError {
        TabletError::Api(error)
    }
}

impl Coordinator {
    pub fn new(
        peers: Arc<dyn Peers>,
        gateway: Arc<Gateway>,
        hints: Arc<Hints>,
        batches: Arc<Batchlog>,
        speeds: Arc<Speeds>,
    ) -> Coordinator {
        Coordinator {
            peers,
            gateway,
            hints,
            batches,
            speeds,
            turns: Arc::default(),
        }
    }

    /// Asks one replica.
    async fn ask(
        &self,
        place: &Place,
        request: Request,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        self.ask_node(place.replica.node, request, deadline).await
    }

    /// Asks a node's replica: this node's own directly, others over the network.
    async fn ask_node(
        &self,
        node: NodeId,
        request: Request,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let this_node = self.peers.this_node();
        let verb = request.action.verb();
        if node != this_node {
            api::trace::event(this_node, || format!("Sending {verb} to {node}"));
        }
        let reply = if node == this_node {
            match self.local(request.tablet, deadline).await {
                Ok(replica) => replica.handle(request).await,
                Err(error) => Reply::Refused(error),
            }
        } else {
            self.peers
                .call(node, request, remaining_ms(deadline))
                .await
                .inspect_err(|error| api::trace::event(this_node, || format!("{node}: {error}")))
                .map_err(Failure::Silent)?
        };
        api::trace::event(node, || format!("{verb}: {}", reply.summary()));
        match reply {
            Reply::Refused(error) => Err(Failure::Refused(error)),
            reply => Ok(reply),
        }
    }

    /// This node's own replica, waited for if it is about to be opened: half a tablet that was divided just now.
    async fn local(
        &self,
        tablet: TabletId,
        deadline: Instant,
    ) -> Result<Arc<EventualReplica>, ReplicaError> {
        let mut looks = 0;
        loop {
            match self.peers.local(tablet) {
                Err(ReplicaError::NotYet(_))
                    if looks < OPENING_LOOKS_MAX && Instant::now() < deadline =>
                {
                    looks += 1;
                    tokio::time::sleep(OPENING_PAUSE).await;
                }
                found => return found,
            }
        }
    }

    /// The placement of a key: the newer of what the map has by now and what a replica of its tablet said. Where that
    /// tablet has been divided, the map may be late to show the half that has the key now, and is waited for.
    async fn newer_placement(&self, said: Tablet, key: &[u8], deadline: Instant) -> Arc<Tablet> {
        loop {
            tokio::time::sleep(PLACEMENT_PAUSE).await;
            match self.peers.tablet(said.root, key) {
                Some(known) if known.id != said.id || known.epoch >= said.epoch => return known,
                Some(_) if !said.range.contains(key) && Instant::now() < deadline => {}
                _ => return Arc::new(said),
            }
        }
    }
}

fn remaining_ms(deadline: Instant) -> u32 {
    let remaining = deadline.saturating_duration_since(Instant::now());
    u32::try_from(remaining.as_millis())
        .unwrap_or(u32::MAX)
        .max(1)
}

fn no_tablet(table: &catalog::Table) -> api::Error {
    api::Error::Retry(api::Retry::NotServing(format!(
        "no tablet of table {}.{} is known here yet",
        table.namespace(),
        table.name()
    )))
}
