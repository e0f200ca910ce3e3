//! What eventual tablets need from time to time: repair, and the purge of tombstones that repair has made superfluous.
//!
//! One task a node, one thing at a time, within a budget. A tablet is repaired by the first of its replicas that is alive;
//! where two nodes both take themselves for that one, it is repaired twice, which costs no more than that. Every replica
//! purges for itself; of a strong tablet's replicas the leader looks what has expired.

use crate::core::Core;
use crate::replicas::Held;
use crate::service::leader_of;
use catalog::{Partitioning, Table};
use cluster::Tablet;
use model::{NodeId, TabletId, Timestamp};
use quorum::{Coordinator, EventualReplica, RepairStep, Sweep};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use txn::{CommandId, StrongTablet, TabletError};

/// How often, and how fast, repair goes on in the background.
#[derive(Clone, Debug)]
pub struct RepairConfig {
    /// Every tablet is repaired once in so long. Tombstones wait for it.
    pub interval_ms: u64,
    /// What is read to be compared or purged: the budget of processor and disk.
    pub compare_bytes_per_second: u64,
    /// What differs and is read from and sent to replicas: the budget of the network.
    pub stream_bytes_per_second: u64,
}

impl RepairConfig {
    /// How long a step pays for what it took of the budget.
    fn pause(&self, step: &RepairStep) -> Duration {
        let micros = |bytes: u64, rate: u64| bytes.saturating_mul(1_000_000) / rate.max(1);
        let compared = micros(step.compared_bytes, self.compare_bytes_per_second);
        let streamed = micros(step.streamed_bytes, self.stream_bytes_per_second);
        Duration::from_micros(compared.max(streamed))
    }
}

impl Default for RepairConfig {
    fn default() -> RepairConfig {
        RepairConfig {
            interval_ms: 3_600_000,
            compare_bytes_per_second: 16 << 20,
            stream_bytes_per_second: 8 << 20,
        }
    }
}

/// Whether something is due is asked so often, or as often as the interval asks for.
const TICK_MAX: Duration = Duration::from_secs(10);
/// A sweep waits until it can get on by this part of `gc_grace`.
const SWEEP_PARTS: i64 = 20;
/// A strong tablet of which nothing expires is looked at each so many intervals.
const SWEEP_INTERVALS_MAX: u32 = 24;

pub(crate) fn coordinator(core: &Arc<Core>) -> Coordinator {
    let peers = Arc::new(crate::peers::NodePeers::new(core));
    let gateway = Arc::new(quorum::Gateway::new(
        Arc::clone(&core.world.clock),
        core.incarnation,
    ));
    let (hints, batches) = (Arc::clone(&core.missed), Arc::clone(&core.batches));
    Coordinator::new(peers, gateway, hints, batches, Arc::clone(&core.speeds))
}

/// For as long as the node lives.
pub(crate) async fn run(core: Arc<Core>) {
    let config = core.config.repair.clone();
    let interval = Duration::from_millis(config.interval_ms.max(1));
    let coordinator = coordinator(&core);
    // When the next repair of a tablet is due; a tablet is new when it is first seen.
    let mut due: BTreeMap<TabletId, Instant> = BTreeMap::new();
    let mut swept: BTreeMap<TabletId, Swept> = BTreeMap::new();
    loop {
        sleep((interval / 4).min(TICK_MAX)).await;
        let held = core.replicas.all();
        due.retain(|tablet, _| held.contains_key(tablet));
        swept.retain(|tablet, _| held.contains_key(tablet));
        for (id, held) in held.iter() {
            let replica = match &held.held {
                Held::Eventual(replica) => replica,
                Held::Strong(strong) => {
                    let swept = swept.entry(*id).or_insert_with(|| Swept::new(interval));
                    if let Err(error) = expire(&core, *id, strong, swept).await {
                        tracing::debug!(tablet = %id, ?error, "what has expired stays for now");
                    }
                    continue;
                }
            };
            let due = due.entry(*id).or_insert_with(|| Instant::now() + interval);
            if *due <= Instant::now() && repairer(&core, &replica.tablet()) == Some(core.node) {
                *due = Instant::now() + interval;
                if let Err(error) = pass(&core, &coordinator, *id, interval).await {
                    tracing::debug!(tablet = %id, error, "a repair is put off");
                }
            }
            if let Err(error) = purge(&core, replica).await {
                tracing::warn!(tablet = %id, %error, "a purge failed");
            }
        }
    }
}

/// The node that repairs a tablet.
pub(crate) fn repairer(core: &Core, tablet: &Tablet) -> Option<NodeId> {
    let mut nodes = tablet.voters().map(|voter| voter.node);
    nodes.find(|node| *node == core.node || core.views.is_alive(*node))
}

/// Repairs a tablet from its begin to its end, but for what has been repaired of late: so what a stop has cut short goes
/// on where it was.
async fn pass(
    core: &Arc<Core>,
    coordinator: &Coordinator,
    id: TabletId,
    interval: Duration,
) -> Result<(), String> {
    let begin = core.world.clock.wall_micros();
    let recent = begin - interval.as_micros() as i64 / 2;
    let mut from = Vec::new();
    loop {
        let (table, tablet) = known(core, id).ok_or("the tablet is gone")?;
        from = from.max(tablet.range.start.clone());
        let step = coordinator.repair_step(&table, &tablet, &from).await?;
        throttle(core, &step).await;
        core.metrics.repaired(&step);
        let Some(next) = step.next else {
            return Ok(());
        };
        from = next;
        let replica = core.replicas.eventual(id).ok_or("the replica is gone")?;
        let rest = api::KeyRange {
            start: from.clone(),
            end: tablet.range.end.clone(),
        };
        if replica
            .range_repaired_since(&rest)
            .is_some_and(|since| since.0 > recent && since.0 < begin)
        {
            return Ok(());
        }
    }
}

/// A tablet and its table, as they are now.
pub(crate) fn known(core: &Core, id: TabletId) -> Option<(Arc<Table>, Arc<Tablet>)> {
    let state = Arc::clone(&core.view().state);
    let tablet = state.tablet(id)?;
    let table = state.catalog().table(tablet.root)?;
    Some((Arc::clone(table), Arc::clone(tablet)))
}

/// Waits as long as the budget asks for after so much.
pub(crate) async fn throttle(core: &Core, step: &RepairStep) {
    sleep(core.config.repair.pause(step)).await;
}

/// When the last sweep over a strong tablet was, and what it has seen.
struct Swept {
    due: Instant,
    interval: Duration,
    newest: Option<Timestamp>,
    next_expiry: Option<i64>,
}

impl Swept {
    fn new(interval: Duration) -> Swept {
        Swept {
            due: Instant::now() + interval,
            interval,
            newest: None,
            next_expiry: None,
        }
    }
}

/// Has the rows of a strong tablet that have expired deleted, if it is led here and there can be any. The longer none of its
/// rows expires, the rarer it is looked at.
async fn expire(
    core: &Arc<Core>,
    id: TabletId,
    strong: &StrongTablet,
    swept: &mut Swept,
) -> Result<(), TabletError> {
    if swept.due > Instant::now() || leader_of(core, id) != Some(core.node) {
        return Ok(());
    }
    let Some((table, _)) = known(core, id) else {
        return Ok(());
    };
    let now = core.world.clock.wall_micros().div_euclid(1_000_000);
    let newest = strong.newest();
    swept.due = Instant::now() + swept.interval;
    let is_same = swept.newest == Some(newest) && swept.next_expiry.is_none_or(|at| at > now);
    if is_same || table.spec.partitioning != Partitioning::Hash {
        return Ok(());
    }
    let mut sweep = strong.expiry_sweep();
    while sweep.rest.is_some() {
        let scanned = sweep.scanned_bytes;
        let command = CommandId {
            node: core.node,
            incarnation: core.incarnation,
            request: core.next_request(),
        };
        let schema = core.views.catalog().version;
        strong
            .sweep_expired(&table, schema, command, &mut sweep)
            .await?;
        let step = RepairStep {
            compared_bytes: sweep.scanned_bytes - scanned,
            ..RepairStep::default()
        };
        throttle(core, &step).await;
    }
    let expires = sweep.deleted_rows > 0 || sweep.next_expiry.is_some();
    let interval = Duration::from_millis(core.config.repair.interval_ms.max(1));
    swept.interval = match expires {
        true => interval,
        false => (swept.interval * 2).min(interval * SWEEP_INTERVALS_MAX),
    };
    core.metrics.expired(sweep.deleted_rows);
    swept.newest = Some(newest);
    swept.next_expiry = sweep.next_expiry;
    Ok(())
}

/// Lets go of the tombstones of a replica that may go, when that gets it on far enough.
async fn purge(core: &Core, replica: &Arc<EventualReplica>) -> Result<(), quorum::ReplicaError> {
    let Some((table, _)) = known(core, replica.tablet().id) else {
        return Ok(());
    };
    let gc_grace = table.spec.gc_grace_seconds;
    let Some(before) = replica.purgeable_before(gc_grace) else {
        return Ok(());
    };
    let least = (i64::from(gc_grace) / SWEEP_PARTS).max(1);
    if before < replica.purged_before() + least {
        return Ok(());
    }
    let mut next = Some(Sweep::default());
    while let Some(sweep) = next {
        let scanned = sweep.scanned_bytes;
        next = replica.sweep(sweep, before).await?;
        if let Some(sweep) = &next {
            let step = RepairStep {
                compared_bytes: sweep.scanned_bytes - scanned,
                ..RepairStep::default()
            };
            throttle(core, &step).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_a_repair_pays_for_what_it_compares_or_streams() {
        let config = RepairConfig {
            compare_bytes_per_second: 1_000,
            stream_bytes_per_second: 100,
            ..RepairConfig::default()
        };
        let pause = |compared_bytes, streamed_bytes| {
            let step = RepairStep {
                compared_bytes,
                streamed_bytes,
                ..RepairStep::default()
            };
            config.pause(&step).as_millis()
        };
        assert_eq!(pause(0, 0), 0);
        assert_eq!(pause(500, 0), 500);
        // Both budgets are kept, and what is streamed was compared in the same time.
        assert_eq!(pause(500, 200), 2_000);
        assert_eq!(pause(5_000, 200), 5_000);
    }
}
