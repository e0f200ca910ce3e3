//! A clean stop: nothing is lost without it, but with it others need not wait for leases to end.

use crate::core::Core;
use crate::liveness::Input;
use crate::replicas::Held;
use consensus::Role;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const RELEASE_PATIENCE: Duration = Duration::from_secs(2);
/// For what was sent last to leave.
const FAREWELL: Duration = Duration::from_millis(50);

pub(crate) async fn shutdown(core: &Core) {
    core.set_stopping();
    let held = core.replicas.all();
    let releasing = held.values().filter_map(|held| match &held.held {
        Held::Strong(strong) if strong.status().is_leaseholder => Some(strong.release()),
        _ => None,
    });
    let _ = timeout(RELEASE_PATIENCE, futures::future::join_all(releasing)).await;
    for status in core.groups.statuses() {
        if status.role != Role::Leader {
            continue;
        }
        let heir = status.members.iter().find(|member| {
            member.node != core.node && !member.is_learner && core.views.is_alive(member.node)
        });
        if let Some(heir) = heir {
            core.groups.transfer_leadership(status.tablet, heir.replica);
        }
    }
    // A full queue leaves the others to find out by themselves.
    let _ = core.gossip.try_send(Input::Leave);
    sleep(FAREWELL).await;
    core.stop();
}
