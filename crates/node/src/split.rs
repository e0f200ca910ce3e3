//! Splitting a tablet, as an operator asks for it, or because it has grown. The meta group allots the ids, the
//! placement loop has the leaseholder divide the tablet, and the map follows; whoever asks waits for that.
//!
//! How large a tablet is one of its replicas knows: of a strong tablet the leaseholder, of an eventual one the first that is
//! alive. Its store's size says when to look, for it counts old versions and what an earlier split has left over; the rows
//! themselves say whether to split, and where.

use crate::core::Core;
use crate::follow;
use crate::replicas::Held;
use crate::upkeep;
use api::{Error, Outcome, Refused, Retry};
use cluster::{Command, Effect, Refusal, Tablet};
use model::{TableId, TabletId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const PREPARE_PATIENCE: Duration = Duration::from_secs(10);
const DIVIDE_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How often the tablets' sizes are looked at.
const MEASURE_INTERVAL: Duration = Duration::from_secs(2);
/// A store that has grown by less than this part of itself is not measured again.
const GROWTH_DIVISOR: u64 = 8;

/// Splits the tablets that are this node's to measure, when they have grown large.
pub(crate) async fn watch_sizes(core: Arc<Core>) {
    let mut measured: BTreeMap<TabletId, u64> = BTreeMap::new();
    loop {
        sleep(MEASURE_INTERVAL).await;
        let held = core.replicas.all();
        measured.retain(|tablet, _| held.contains_key(tablet));
        let limit = core.view().state.split_size_bytes();
        for replica in held.values() {
            let tablet = &replica.tablet;
            let (size_bytes, is_mine) = match &replica.held {
                Held::Strong(strong) => {
                    let status = strong.status();
                    (status.size_bytes, status.is_leaseholder)
                }
                Held::Eventual(eventual) => (
                    eventual.store().size_bytes(),
                    upkeep::repairer(&core, tablet) == Some(core.node),
                ),
            };
            let known = measured.get(&tablet.id).copied().unwrap_or(0);
            let is_grown = size_bytes > known + known / GROWTH_DIVISOR;
            if is_mine && size_bytes >= limit && is_grown {
                measured.insert(tablet.id, size_bytes);
                split_if_large(&core, tablet, &replica.held, limit).await;
            }
        }
    }
}

async fn split_if_large(core: &Core, tablet: &Tablet, held: &Held, limit: u64) {
    let catalog = core.views.catalog();
    let Some(root) = catalog.table(tablet.root) else {
        return;
    };
    let tablet = tablet.id;
    let measured = match held {
        Held::Strong(strong) => strong.measure(root).await,
        Held::Eventual(eventual) => eventual.measure(root).await,
    };
    let measure = match measured {
        Ok(measure) => measure,
        Err(error) => {
            tracing::warn!(%tablet, %error, "a tablet cannot be measured");
            return;
        }
    };
    let Some(middle) = measure.middle.filter(|_| measure.size_bytes >= limit) else {
        return;
    };
    tracing::info!(%tablet, size_bytes = measure.size_bytes, "a tablet has grown large");
    if let Err(error) = split(core, root.id, middle).await {
        tracing::debug!(%tablet, %error, "not split");
    }
}

/// Waits, not for ever, until the tablet that holds a key is no part of a split under way.
async fn await_settled(core: &Core, root: TableId, key: &[u8]) {
    let deadline = Instant::now() + PREPARE_PATIENCE;
    let mut versions = core.views.watch_version();
    while Instant::now() < deadline {
        let view = core.view();
        let tablet = view.tablet_of(root, key);
        if tablet.is_none_or(|tablet| !view.state.is_splitting(tablet.id)) {
            return;
        }
        let _ = timeout(LOOK_INTERVAL, versions.changed()).await;
    }
}

pub(crate) async fn split(core: &Core, table: TableId, key: Vec<u8>) -> Result<(), Error> {
    let view = core.view();
    let table = view
        .state
        .catalog()
        .table(table)
        .ok_or_else(|| Error::Refused(Refused::NoTable(table.to_string())))?;
    let root = view.state.catalog().table(table.root);
    let key = root
        .and_then(|root| root.boundary(&key))
        .map(<[u8]>::to_vec)
        .ok_or_else(|| Error::invalid("the key is not one of the table's"))?;
    await_settled(core, table.root, &key).await;
    let view = core.view();
    let tablet = view
        .tablet_of(table.root, &key)
        .ok_or_else(|| Error::invalid("no tablet holds the key"))?;
    let unknown = Error::Retry(Retry::NoLeader {
        outcome: Outcome::Unknown,
    });
    let command = Command::PrepareSplit {
        tablet: tablet.id,
        epoch: tablet.epoch,
        key,
    };
    let created = match follow::execute(core, command, PREPARE_PATIENCE).await {
        Ok(Ok(applied)) => applied.effects.iter().find_map(|effect| match effect {
            Effect::SplitPrepared(created) => Some(*created),
            _ => None,
        }),
        Ok(Err(Refusal::OldEpoch { .. })) => {
            return Err(Error::Retry(Retry::Aborted("the tablet has moved".into())));
        }
        Ok(Err(refusal)) => return Err(Error::invalid(refusal.to_string())),
        Err(_) => return Err(unknown),
    };
    let Some(created) = created else {
        return Err(unknown);
    };
    let deadline = Instant::now() + DIVIDE_PATIENCE;
    let mut versions = core.views.watch_version();
    while Instant::now() < deadline {
        let view = core.view();
        if view.state.tablet(created).is_some() {
            await_settled(core, table.root, &tablet.range.start).await;
            return Ok(());
        }
        if view.state.tablet(tablet.id).is_none() {
            return Err(Error::Refused(Refused::NoTable(table.name().to_owned())));
        }
        let _ = timeout(LOOK_INTERVAL, versions.changed()).await;
    }
    Err(unknown)
}
