//! Hinted handoff: what a replica has missed is kept as a hint, and delivered when the replica's node is back.
//!
//! A hint says which node has missed the change, and the change. Where it belongs is looked up when it is delivered:
//! to that node, while it has a replica of the keys' tablet; to all replicas, when it has none any more, since then
//! somebody else was filled in its place and nobody may have the change but this hint.

use super::write::Part;
use super::{Coordinator, Failure};
use crate::hints::{Hint, HintError, Kept};
use crate::message::{Action, RawRow, ReplicaError, Request};
use catalog::Durability;
use cluster::Tablet;
use futures::future::{join_all, try_join_all};
use model::{NodeId, TabletId, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use world::planted::{self, Bug};

/// Hints are looked through so often while there is nothing to deliver.
const IDLE_PAUSE: Duration = Duration::from_millis(500);
/// Hints of one node that are delivered together.
const ROUND_BYTES_MAX: u64 = 256 << 10;
/// A replica has so long to take one.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(5);

/// What has become of one hint.
enum Delivery {
    Delivered,
    /// Too late, or its table is gone.
    Pointless,
    /// Its node is not back.
    Waiting,
    Failed(Hint),
}

impl Coordinator {
    /// Keeps a part of a write for a node that has missed it. Says whether it is durable.
    pub(super) async fn keep_hint(&self, node: NodeId, part: &Part) -> bool {
        let Some(expires) = part.hint_expires else {
            return false;
        };
        let hint = Hint {
            root: part.tablet.root,
            deltas: part.deltas.clone(),
            expires,
            offset_bytes: 0,
        };
        match self.hints.store(node, hint).await {
            Ok(()) => {
                let this_node = self.peers.this_node();
                api::trace::event(this_node, || format!("Keeping a hint for {node}"));
                true
            }
            Err(HintError::Full) => {
                tracing::debug!(%node, "no room for a hint");
                false
            }
            Err(HintError::Log(error)) => {
                tracing::warn!(%node, %error, "a hint cannot be kept");
                false
            }
        }
    }

    /// Delivers hints for as long as the node lives.
    pub async fn replay_hints(self) {
        loop {
            let nodes = self.hints.nodes();
            let rounds = nodes.into_iter().map(|node| self.replay_round(node));
            let got_on = join_all(rounds).await.contains(&true);
            if !got_on {
                sleep(IDLE_PAUSE).await;
            }
        }
    }

    /// Delivers the oldest hints of a node, and waits as long as the rate allows no more. Says whether any is gone.
    async fn replay_round(&self, node: NodeId) -> bool {
        let kept = match self.hints.oldest(node, ROUND_BYTES_MAX) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!(%node, %error, "hints cannot be read");
                return false;
            }
        };
        let is_alive = node == self.peers.this_node() || self.peers.is_alive(node);
        let deliveries = kept.iter().map(|kept| self.deliver(node, is_alive, kept));
        let deliveries = join_all(deliveries).await;
        let (mut below, mut delivered_bytes) = (None, 0);
        let (mut replayed, mut dropped, mut again) = (0, 0, Vec::new());
        for (kept, delivery) in kept.iter().zip(deliveries) {
            match delivery {
                Delivery::Delivered => {
                    replayed += 1;
                    delivered_bytes += kept.size_bytes;
                }
                Delivery::Pointless => dropped += 1,
                // Younger ones were tried all the same; they are repeated in their turn.
                Delivery::Waiting => break,
                Delivery::Failed(hint) => again.push(hint),
            }
            below = Some(kept.index + 1);
        }
        let Some(below) = below.filter(|_| replayed + dropped > 0) else {
            return false;
        };
        self.hints.forget(node, below, again);
        let counts = self.hints.counts();
        counts.replayed.fetch_add(replayed, Ordering::Relaxed);
        counts.dropped.fetch_add(dropped, Ordering::Relaxed);
        tracing::debug!(%node, replayed, dropped, "hints");
        let rate = self.hints.limits().replay_bytes_per_second.max(1);
        sleep(Duration::from_micros(delivered_bytes * 1_000_000 / rate)).await;
        true
    }

    async fn deliver(&self, node: NodeId, is_alive: bool, kept: &Kept) -> Delivery {
        let Some(hint) = &kept.hint else {
            tracing::error!(%node, index = kept.index, "a hint cannot be read");
            return Delivery::Pointless;
        };
        let is_late = hint.expires <= self.gateway.now();
        if is_late && !planted::is(Bug::ReplayHintAfterGrace) {
            return Delivery::Pointless;
        }
        let mut parts: BTreeMap<TabletId, (Arc<Tablet>, Vec<RawRow>)> = BTreeMap::new();
        for delta in &hint.deltas {
            // No tablet holds it: the table is gone.
            if let Some(tablet) = self.peers.tablet(hint.root, &delta.key) {
                let part = parts.entry(tablet.id);
                let (_, deltas) = part.or_insert_with(|| (tablet, Vec::new()));
                deltas.push(delta.clone());
            }
        }
        if parts.is_empty() {
            return Delivery::Pointless;
        }
        let has_replica = |tablet: &Tablet| tablet.replica_on(node).is_some();
        if !is_alive && parts.values().any(|(tablet, _)| has_replica(tablet)) {
            return Delivery::Waiting;
        }
        let expires = (!planted::is(Bug::ReplayHintAfterGrace)).then_some(hint.expires);
        let sending = parts.into_values().flat_map(|(tablet, deltas)| {
            let targets = match tablet.replica_on(node) {
                Some(replica) => vec![replica.node],
                None => tablet.replicas.iter().map(|replica| replica.node).collect(),
            };
            targets.into_iter().map(move |target| {
                self.deliver_to(target, Arc::clone(&tablet), deltas.clone(), expires)
            })
        });
        match try_join_all(sending).await {
            Ok(_) => Delivery::Delivered,
            Err(Failure::Refused(ReplicaError::Expired)) => Delivery::Pointless,
            Err(failure) => {
                tracing::debug!(%node, ?failure, "a hint is not delivered yet");
                Delivery::Failed(hint.clone())
            }
        }
    }

    async fn deliver_to(
        &self,
        node: NodeId,
        tablet: Arc<Tablet>,
        deltas: Vec<RawRow>,
        expires: Option<Timestamp>,
    ) -> Result<(), Failure> {
        let request = Request {
            tablet: tablet.id,
            epoch: tablet.epoch,
            action: Action::Apply {
                deltas,
                durability: Durability::Synced,
                expires,
            },
        };
        let deadline = Instant::now() + DELIVERY_PATIENCE;
        self.ask_node(node, request, deadline).await?;
        Ok(())
    }
}
