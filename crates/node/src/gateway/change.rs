//! Changes of the catalog: agreed on by the meta group, and answered when every node that is alive has them.

use crate::core::Core;
use crate::follow;
use crate::rpc::{Reply, Request};
use api::{Error, Outcome, Refused, Retry};
use catalog::{Catalog, Change};
use cluster::{Command, Effect, Refusal};
use model::{NodeId, TabletId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const CHANGE_PATIENCE: Duration = Duration::from_secs(20);
/// A node that is alive and still does not have the change after this is left behind: its requests will be
/// refused as stale until it does.
const REACH_PATIENCE: Duration = Duration::from_secs(10);
const REACH_CALL_PATIENCE: Duration = Duration::from_secs(2);
const CAMPAIGN_PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn change(core: &Arc<Core>, change: Change) -> Result<Arc<Catalog>, Error> {
    let state = Arc::clone(&core.view().state);
    let avoid = state
        .members()
        .map(|node| node.id)
        .filter(|id| !core.views.is_alive(*id))
        .collect();
    let command = Command::Catalog { change, avoid };
    let applied = match follow::execute(core, command, CHANGE_PATIENCE).await {
        Ok(Ok(applied)) => applied,
        Ok(Err(Refusal::Catalog(error))) => return Err(Error::Refused(Refused::Catalog(error))),
        Ok(Err(refusal)) => return Err(Error::invalid(refusal.to_string())),
        Err(_) => {
            return Err(Error::Retry(Retry::NoLeader {
                outcome: Outcome::Unknown,
            }));
        }
    };
    // This node's own replicas first: they are the likeliest to be asked next.
    let _ = timeout(REACH_PATIENCE, core.replicas.reach(applied.version)).await;
    let state = Arc::clone(&core.view().state);
    let others = state.members().map(|node| node.id);
    let reaching = others
        .filter(|id| *id != core.node)
        .map(|node| reach(core, node, applied.version));
    futures::future::join_all(reaching).await;
    elect(core, &applied.effects).await;
    Ok(core.views.catalog())
}

/// Waits until a node has a version, unless it is, or is found, dead.
async fn reach(core: &Core, node: NodeId, version: u64) {
    let deadline = Instant::now() + REACH_PATIENCE;
    while core.views.is_alive(node) && Instant::now() < deadline {
        let request = Request::Reach { version };
        if let Ok(Reply::Done) = core.call(node, request, REACH_CALL_PATIENCE).await {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    tracing::warn!(%node, version, "does not have the newest catalog yet");
}

/// Has one replica of each new strong tablet stand for election at once, a different node's for each, instead of
/// waiting for a timeout.
async fn elect(core: &Core, effects: &[Effect]) {
    let view = core.view();
    let mut by_node: BTreeMap<NodeId, Vec<TabletId>> = BTreeMap::new();
    for effect in effects {
        let Effect::TabletCreated(id) = effect else {
            continue;
        };
        let Some(tablet) = view.state.tablet(*id) else {
            continue;
        };
        let table = view.state.catalog().table(tablet.root);
        if table.is_none_or(|table| !table.is_strong()) {
            continue;
        }
        let alive: Vec<NodeId> = tablet
            .voters()
            .map(|voter| voter.node)
            .filter(|node| core.views.is_alive(*node))
            .collect();
        if let Some(node) = alive.get(id.0 as usize % alive.len().max(1)) {
            core.set_hint(*id, Some(*node));
            by_node.entry(*node).or_default().push(*id);
        }
    }
    let campaigns = by_node.into_iter().map(|(node, tablets)| async move {
        if node == core.node {
            for tablet in tablets {
                core.groups.campaign(tablet);
            }
        } else {
            let request = Request::Campaign(tablets);
            // If it does not arrive, a timeout begins the election.
            let _ = core.call(node, request, CAMPAIGN_PATIENCE).await;
        }
    });
    futures::future::join_all(campaigns).await;
}
