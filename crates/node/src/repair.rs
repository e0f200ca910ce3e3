//! Repair on demand: an operator names tables, and each of their tablets is repaired step by step on a node that holds
//! it, while whoever asked can look on.

use crate::core::Core;
use crate::rpc::{Failure, Reply, Request};
use crate::upkeep::{coordinator, known, repairer, throttle};
use api::{Error, Refused};
use model::{TableId, TabletId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Repairs that are remembered after their end.
const REMEMBERED_MAX: usize = 64;
const STEP_PATIENCE: Duration = Duration::from_secs(60);
/// A step is tried so often before its tablet is given up.
const ATTEMPTS_MAX: u32 = 5;
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);

/// How far a repair on demand has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairProgress {
    pub tablets: u64,
    /// Of them, those that were gone through, with success or without.
    pub tablets_done: u64,
    /// Those of which some part was repaired without all replicas, since one was away.
    pub tablets_partial: u64,
    pub tablets_failed: u64,
    /// What one replica of each tablet holds.
    pub compared_bytes: u64,
    /// Rows that were brought to replicas that lacked them.
    pub streamed_rows: u64,
    pub is_finished: bool,
    /// Of the last tablet that failed.
    pub error: Option<String>,
}

/// The repairs that were asked for through this node.
#[derive(Default)]
pub(crate) struct Repairs {
    by_number: Mutex<BTreeMap<u64, RepairProgress>>,
}

impl Repairs {
    pub fn progress(&self, number: u64) -> Option<RepairProgress> {
        self.by_number.lock().get(&number).cloned()
    }

    fn begin(&self, tablets: u64) -> u64 {
        let mut by_number = self.by_number.lock();
        let number = by_number.last_key_value().map_or(1, |(last, _)| last + 1);
        if by_number.len() >= REMEMBERED_MAX {
            by_number.pop_first();
        }
        let progress = RepairProgress {
            tablets,
            ..RepairProgress::default()
        };
        by_number.insert(number, progress);
        number
    }

    fn update(&self, number: u64, update: impl FnOnce(&mut RepairProgress)) {
        if let Some(progress) = self.by_number.lock().get_mut(&number) {
            update(progress);
        }
    }
}

/// Begins a repair of all eventual tables, of a namespace's, or of one; returns its number.
pub(crate) fn begin(
    core: &Arc<Core>,
    namespace: Option<&str>,
    table: Option<&str>,
) -> Result<u64, Error> {
    let view = core.view();
    let catalog = view.state.catalog();
    if let Some(namespace) = namespace {
        if !catalog.namespaces.contains_key(namespace) {
            return Err(Error::invalid(format!("there is no keyspace {namespace}")));
        }
        if let Some(name) = table {
            let found = catalog
                .table_by_name(namespace, name)
                .ok_or_else(|| Error::Refused(Refused::NoTable(format!("{namespace}.{name}"))))?;
            if found.is_strong() {
                return Err(Error::invalid(format!(
                    "{namespace}.{name} is a strong table: its replicas agree on every write and need no repair"
                )));
            }
        }
    }
    let roots: Vec<TableId> = catalog
        .tables
        .values()
        .filter(|known| !known.is_strong() && known.id == known.root)
        .filter(|known| namespace.is_none_or(|namespace| known.namespace() == namespace))
        .filter(|known| table.is_none_or(|name| known.name() == name))
        .map(|known| known.id)
        .collect();
    let tablets: Vec<TabletId> = roots
        .into_iter()
        .flat_map(|root| view.tablets(root).iter().map(|tablet| tablet.id))
        .collect();
    let number = core.repairs.begin(tablets.len() as u64);
    let repairing = Arc::clone(core);
    core.tasks.spawn(async move {
        for tablet in tablets {
            let outcome = repair_tablet(&repairing, number, tablet).await;
            repairing.repairs.update(number, |progress| {
                progress.tablets_done += 1;
                match outcome {
                    Ok(true) => {}
                    Ok(false) => progress.tablets_partial += 1,
                    Err(error) => {
                        progress.tablets_failed += 1;
                        progress.error = Some(error);
                    }
                }
            });
        }
        let finish = |progress: &mut RepairProgress| progress.is_finished = true;
        repairing.repairs.update(number, finish);
    });
    Ok(number)
}

/// Says whether all replicas took part in all steps.
async fn repair_tablet(core: &Arc<Core>, number: u64, id: TabletId) -> Result<bool, String> {
    let mut from = Vec::new();
    let mut is_whole = true;
    let mut attempts = 0;
    loop {
        // A table that was dropped meanwhile needs no repair.
        let Some((_, tablet)) = known(core, id) else {
            return Ok(is_whole);
        };
        let holder = if tablet.replica_on(core.node).is_some() {
            Some(core.node)
        } else {
            repairer(core, &tablet)
        };
        let holder = holder.ok_or_else(|| format!("tablet {id}: no replica is alive"))?;
        let answer = if holder == core.node {
            step(core, id, &from).await
        } else {
            let request = Request::Repair {
                tablet: id,
                from: from.clone(),
            };
            let answer = core.call(holder, request, STEP_PATIENCE).await;
            answer.unwrap_or_else(|error| Reply::Failed(Failure::Other(error.to_string())))
        };
        match answer {
            Reply::Repaired(step) => {
                attempts = 0;
                is_whole &= step.is_whole;
                core.repairs.update(number, |progress| {
                    progress.compared_bytes += step.compared_bytes;
                    progress.streamed_rows += step.streamed_rows;
                });
                match step.next {
                    Some(next) => from = next,
                    None => return Ok(is_whole),
                }
            }
            answer => {
                attempts += 1;
                if attempts >= ATTEMPTS_MAX {
                    return Err(match answer {
                        Reply::Failed(failure) => format!("tablet {id}: {failure}"),
                        _ => format!("tablet {id}: an answer that makes no sense"),
                    });
                }
                sleep(ATTEMPT_PAUSE).await;
            }
        }
    }
}

/// One step of a repair, by the replica of this node.
pub(crate) async fn step(core: &Arc<Core>, id: TabletId, from: &[u8]) -> Reply {
    let Some((table, tablet)) = known(core, id) else {
        return Reply::Failed(Failure::Other(format!("there is no tablet {id}")));
    };
    let from = from.max(&tablet.range.start);
    match coordinator(core).repair_step(&table, &tablet, from).await {
        Ok(step) => {
            core.metrics.repaired(&step);
            throttle(core, &step).await;
            Reply::Repaired(step)
        }
        Err(error) => Reply::Failed(Failure::Other(error)),
    }
}
