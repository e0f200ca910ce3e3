//! Logged batches: writes over several partitions that all happen, or none, in the end.
//!
//! Before anything is written the whole batch is kept by a few nodes; when all of it is written they forget it. If
//! that does not come about, because its coordinator is gone or replicas are, each of those nodes writes it after a
//! while: to the replicas that it can reach, and for each of the others it keeps a hint. So it is whole in a data centre
//! that is cut off, too. It is forgotten when each replica has its part or a durable hint of it; where a hint cannot be
//! kept, when a quorum has; else it is tried again, until it is too old. The changes keep the timestamps and the expiry
//! that they were accepted with, so a late replay neither shadows what was written since nor raises what was deleted.
//! Readers may see some of a batch before the rest.

use super::write::{Part, is_missed};
use super::{Coordinator, Failure, PLACEMENT_ROUNDS_MAX};
use crate::batchlog::{Batch, BatchId, BatchPart, BatchRequest};
use crate::level::{Place, Places, Purpose, Required};
use crate::message::{RawRow, ReplicaError};
use crate::peers::{Neighbour, spawn};
use api::trace::event;
use api::{Error, Level, Outcome, Retry, WriteStep};
use cluster::Tablet;
use futures::future::{BoxFuture, join_all};
use model::{NodeId, TabletId, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use world::planted::{self, Bug};

/// Nodes other than the coordinator's that keep a batch.
const KEEPERS_MAX: usize = 2;
/// Nodes that must have kept it before anything is written, where there are so many.
const KEPT_MIN: usize = 2;
/// The batch log is looked through so often.
const REPLAY_PAUSE: Duration = Duration::from_secs(1);
/// A replayed batch has so long; what is left is tried in the next round.
const REPLAY_PATIENCE: Duration = Duration::from_secs(5);
const REPLAYED_AT_ONCE_MAX: usize = 16;

impl Coordinator {
    /// Writes parts of several partitions: all of them, sooner or later, or none.
    pub(super) async fn write_logged(
        &self,
        parts: Vec<Part>,
        level: Level,
        deadline: Instant,
    ) -> Result<(), Error> {
        for part in &parts {
            self.check_alive(part, level)?;
        }
        let batch = self.batch(&parts, deadline);
        let id = batch.id;
        let mut keepers = choose_keepers(self.peers.neighbours());
        keepers.push(self.peers.this_node());
        if let Err(error) = self.keep(&keepers, batch, deadline).await {
            // Whoever has kept it may already be the only one: it is not known.
            self.end(keepers, id);
            return Err(error);
        }
        let first_tablet = parts.first().map(|part| Arc::clone(&part.tablet));
        match self.write_parts(parts, level, deadline).await {
            Ok(()) => {
                self.end(keepers, id);
                Ok(())
            }
            // It is kept, and will be written.
            Err(error) => Err(match (error.outcome(), first_tablet) {
                (Outcome::NotApplied, Some(tablet)) => self.unknown(&tablet, level),
                _ => error,
            }),
        }
    }

    fn batch(&self, parts: &[Part], deadline: Instant) -> Batch {
        let left = deadline.saturating_duration_since(Instant::now());
        let twice = i64::try_from(left.as_micros() * 2).unwrap_or(i64::MAX);
        Batch {
            id: BatchId {
                node: self.peers.this_node(),
                incarnation: self.gateway.incarnation(),
                sequence: self.gateway.next_number(),
            },
            // Not before its coordinator has given up.
            replay_after: self.gateway.now().plus_micros(twice),
            parts: parts
                .iter()
                .map(|part| BatchPart {
                    root: part.tablet.root,
                    deltas: part.deltas.clone(),
                    durability: part.durability,
                    expires: part.expires,
                    hint_expires: part.hint_expires,
                })
                .collect(),
        }
    }

    /// Has the batch kept by enough nodes.
    async fn keep(&self, keepers: &[NodeId], batch: Batch, deadline: Instant) -> Result<(), Error> {
        let (sender, mut receiver) = mpsc::channel(keepers.len().max(1));
        for keeper in keepers {
            let (coordinator, sender, keeper) = (self.clone(), sender.clone(), *keeper);
            let request = BatchRequest::Keep(batch.clone());
            spawn(self.peers.as_ref(), async move {
                let is_kept = coordinator.ask_keeper(keeper, request, deadline).await;
                let _ = sender.send(is_kept).await;
            });
        }
        drop(sender);
        let (needed, mut kept) = (KEPT_MIN.min(keepers.len()), 0);
        while kept < needed {
            match timeout_at(deadline, receiver.recv()).await {
                Ok(Some(is_kept)) => kept += usize::from(is_kept),
                Ok(None) | Err(_) => return Err(not_kept(needed as u32, kept as u32)),
            }
        }
        Ok(())
    }

    /// Tells the nodes that keep a batch to forget it. One that does not hear of it writes it once more.
    fn end(&self, keepers: Vec<NodeId>, id: BatchId) {
        for keeper in keepers {
            let coordinator = self.clone();
            spawn(self.peers.as_ref(), async move {
                let deadline = Instant::now() + REPLAY_PATIENCE;
                let forget = BatchRequest::Forget(id);
                coordinator.ask_keeper(keeper, forget, deadline).await;
            });
        }
    }

    async fn ask_keeper(&self, keeper: NodeId, request: BatchRequest, deadline: Instant) -> bool {
        let this_node = self.peers.this_node();
        let (verb, done) = match &request {
            BatchRequest::Keep(_) => ("BATCH_STORE", "kept"),
            BatchRequest::Forget(_) => ("BATCH_REMOVE", "forgotten"),
        };
        let is_done = if keeper == this_node {
            let outcome = self.batches.handle(request).await;
            outcome
                .inspect_err(|error| tracing::warn!(%error, "a batch is not kept"))
                .is_ok()
        } else {
            event(this_node, || format!("Sending {verb} to {keeper}"));
            let patience_ms = super::remaining_ms(deadline);
            let outcome = self.peers.batch(keeper, request, patience_ms).await;
            outcome
                .inspect_err(|error| tracing::debug!(%keeper, %error, "a batch is not kept"))
                .inspect_err(|error| event(this_node, || format!("{keeper}: {error}")))
                .is_ok()
        };
        if is_done {
            event(keeper, || format!("{verb}: {done}"));
        }
        is_done
    }

    /// Writes what this node keeps and nobody has ended in time, for as long as the node lives.
    pub async fn replay_batches(self) {
        loop {
            sleep(REPLAY_PAUSE).await;
            let due = self.batches.due(self.gateway.now(), REPLAYED_AT_ONCE_MAX);
            join_all(due.iter().map(|batch| self.replay(batch))).await;
        }
    }

    pub(super) async fn replay(&self, batch: &Batch) {
        let deadline = Instant::now() + REPLAY_PATIENCE;
        let parts = self.parts_of(batch).into_iter();
        let bringing = parts.map(|(number, part)| {
            let replayed = Replayed {
                id: batch.id,
                number,
                deadline,
            };
            self.bring(replayed, part, PLACEMENT_ROUNDS_MAX)
        });
        if join_all(bringing)
            .await
            .into_iter()
            .all(|is_settled| is_settled)
        {
            self.batches.forget(batch.id);
        } else {
            tracing::debug!(?batch.id, "a batch is not written yet");
        }
    }

    /// Brings a part of a batch to all its replicas; says whether it needs not be brought again.
    fn bring(&self, replayed: Replayed, part: Part, rounds: u32) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let places = Places::new(&part.tablet, self.peers.as_ref());
            let bringing = places.replicas.iter();
            let bringing = bringing.map(|place| self.bring_to(&replayed, place, &part));
            let mut quorum = Required::new(Level::Quorum, Purpose::Write, &places).ok();
            let (mut is_everywhere, mut newer) = (true, None);
            for (place, brought) in places.replicas.iter().zip(join_all(bringing).await) {
                match (brought, &mut quorum) {
                    (Brought::Taken, Some(quorum)) => quorum.acknowledge(place, Purpose::Write),
                    (Brought::Taken | Brought::Hinted, _) => {}
                    (Brought::Stale(tablet), _) => newer = Some(tablet),
                    (Brought::Missed, _) => is_everywhere = false,
                }
            }
            let Some(newer) = newer else {
                return is_everywhere || quorum.is_some_and(|quorum| quorum.is_reached());
            };
            if rounds == 0 {
                return false;
            }
            // Writing again is harmless: the deltas carry their timestamps.
            let parts = self.place_anew(&part, newer, replayed.deadline).await;
            let bringing = parts.into_iter();
            let bringing = bringing.map(|part| self.bring(replayed, part, rounds - 1));
            join_all(bringing)
                .await
                .into_iter()
                .all(|is_settled| is_settled)
        })
    }

    async fn bring_to(&self, replayed: &Replayed, place: &Place, part: &Part) -> Brought {
        let (node, deadline) = (place.replica.node, replayed.deadline);
        if place.is_alive {
            let asking = self.ask(place, part.request(place), deadline);
            match timeout_at(deadline, asking).await {
                // What is too old for a replica it needs no hint of.
                Ok(Ok(_) | Err(Failure::Refused(ReplicaError::Expired))) => return Brought::Taken,
                Ok(Err(Failure::Refused(ReplicaError::StaleEpoch(newer)))) => {
                    return Brought::Stale(newer);
                }
                Ok(Err(failure)) if !is_missed(&failure) => return Brought::Missed,
                Ok(Err(_)) | Err(_) => {}
            }
        }
        let of = (replayed.number, part.tablet.id, node);
        let is_worth_it = |until: Timestamp| until > self.gateway.now();
        if self.batches.is_hinted(replayed.id, of) {
            return Brought::Hinted;
        }
        if part.hint_expires.is_some_and(is_worth_it) && self.keep_hint(node, part).await {
            self.batches.note_hinted(replayed.id, of);
            return Brought::Hinted;
        }
        Brought::Missed
    }

    /// What is left to write of a batch, by the tablets as they are now. Of what is too old, and of tables that are
    /// gone, nothing is.
    fn parts_of(&self, batch: &Batch) -> Vec<(usize, Part)> {
        let now = self.gateway.now();
        let mut parts: BTreeMap<(usize, TabletId), Part> = BTreeMap::new();
        for (number, kept) in batch.parts.iter().enumerate() {
            if kept.expires <= now {
                continue;
            }
            for delta in &kept.deltas {
                let Some(tablet) = self.peers.tablet(kept.root, &delta.key) else {
                    continue;
                };
                let part = parts
                    .entry((number, tablet.id))
                    .or_insert_with(|| part_of(kept, tablet));
                part.deltas
                    .push(if planted::is(Bug::BatchlogNewTimestamps) {
                        restamped(delta, now)
                    } else {
                        delta.clone()
                    });
            }
        }
        let parts = parts.into_iter();
        parts.map(|((number, _), part)| (number, part)).collect()
    }
}

/// Which part of which batch is brought to its replicas, and until when.
#[derive(Clone, Copy)]
struct Replayed {
    id: BatchId,
    number: usize,
    deadline: Instant,
}

/// What has become of a part of a batch at one replica.
enum Brought {
    Taken,
    /// It lacks it, and a durable hint says so.
    Hinted,
    Missed,
    /// The placement is newer than the one that it was brought under.
    Stale(Tablet),
}

fn part_of(kept: &BatchPart, tablet: Arc<Tablet>) -> Part {
    Part {
        tablet,
        deltas: Vec::new(),
        decided: None,
        durability: kept.durability,
        expires: kept.expires,
        hint_expires: kept.hint_expires,
    }
}

/// What `Bug::BatchlogNewTimestamps` does.
fn restamped(delta: &RawRow, now: Timestamp) -> RawRow {
    let Ok(mut row) = crate::partition::decode_row(&delta.row) else {
        return delta.clone();
    };
    if let Some(marker) = &mut row.marker {
        marker.timestamp = now;
    }
    for cell in &mut row.cells {
        cell.timestamp = now;
    }
    RawRow {
        key: delta.key.clone(),
        row: row.to_bytes(),
    }
}

/// Who keeps a batch beside its coordinator: near nodes, in racks that differ from the coordinator's and from each
/// other where there are such.
fn choose_keepers(mut neighbours: Vec<Neighbour>) -> Vec<NodeId> {
    let mut chosen: Vec<Neighbour> = Vec::new();
    while chosen.len() < KEEPERS_MAX {
        let best = neighbours.iter().enumerate().min_by_key(|(_, candidate)| {
            let shares_rack =
                candidate.is_same_rack || chosen.iter().any(|other| other.rack == candidate.rack);
            (!candidate.is_local, shares_rack, candidate.node)
        });
        let Some((index, _)) = best else { break };
        chosen.push(neighbours.remove(index));
    }
    chosen.into_iter().map(|chosen| chosen.node).collect()
}

/// Too few nodes have said that they keep the batch. One that has may write it. As in Cassandra, the level is not the
/// client's but that of the batch log.
fn not_kept(required: u32, received: u32) -> Error {
    Error::Retry(Retry::WriteTimeout {
        level: if required == 1 {
            Level::One
        } else {
            Level::Two
        },
        required,
        received,
        outcome: Outcome::Unknown,
        step: WriteStep::Batchlog,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_kept_near_and_in_racks_of_their_own() {
        let neighbour = |node, is_local, rack: &str, is_same_rack| Neighbour {
            node: NodeId(node),
            is_local,
            rack: rack.into(),
            is_same_rack,
        };
        let keepers = choose_keepers(vec![
            neighbour(2, false, "x", false),
            neighbour(3, true, "a", true),
            neighbour(4, true, "b", false),
            neighbour(5, true, "b", false),
            neighbour(6, true, "c", false),
        ]);
        assert_eq!(keepers, [NodeId(4), NodeId(6)]);
        let keepers = choose_keepers(vec![
            neighbour(2, true, "a", true),
            neighbour(3, true, "a", true),
            neighbour(4, true, "a", true),
        ]);
        assert_eq!(keepers, [NodeId(2), NodeId(3)]);
        assert_eq!(choose_keepers(vec![]), []);
    }
}
