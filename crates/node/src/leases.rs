//! Leadership, and with it leases, spread over the nodes: a node that leads many more groups than another that could
//! lead them hands some over, and one that leaves the cluster hands over all. What each leads it says with its
//! beats; the difference that counts is large enough that nothing goes to and fro.

use crate::core::Core;
use cluster::{META, NodeStatus};
use consensus::{GroupStatus, Role};
use model::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const INTERVAL: Duration = Duration::from_secs(1);
/// Groups handed over at one time.
const HANDED_OVER_MAX: usize = 4;
/// Differences up to this, and up to a part of what this node leads, stay.
const DIFFERENCE_MIN: u64 = 2;
const DIFFERENCE_DIVISOR: u64 = 10;
/// An heir may be so many entries behind.
const LAG_ENTRIES_MAX: u64 = 64;

/// How many groups each other node leads, as it has said last.
#[derive(Default)]
pub(crate) struct Led {
    by_node: Mutex<BTreeMap<NodeId, u64>>,
}

impl Led {
    pub fn hear(&self, node: NodeId, count: u64) {
        self.by_node.lock().insert(node, count);
    }
}

/// How many groups are led here, the meta group's aside.
pub(crate) fn led_here(core: &Core) -> u64 {
    core.groups.count(|status| is_led(status)) as u64
}

fn is_led(status: &GroupStatus) -> bool {
    status.role == Role::Leader && status.tablet != META
}

pub(crate) async fn balance(core: Arc<Core>) {
    loop {
        sleep(INTERVAL).await;
        if !core.is_serving() {
            continue;
        }
        let mut mine = led_here(&core);
        let mut theirs = core.led.by_node.lock().clone();
        let is_even = |count: &u64| !is_many_more(mine, *count);
        if !leaves(&core, core.node) && theirs.values().all(is_even) {
            continue;
        }
        let led: Vec<GroupStatus> = core.groups.statuses().into_iter().filter(is_led).collect();
        let mut handed_over = 0;
        for status in led {
            if handed_over == HANDED_OVER_MAX {
                break;
            }
            let Some((heir, count)) = heir(&core, &status, &theirs) else {
                continue;
            };
            if !leaves(&core, core.node) && !is_many_more(mine, count) {
                continue;
            }
            if let Some(strong) = core.replicas.strong(status.tablet) {
                strong.release().await;
            }
            tracing::debug!(tablet = %status.tablet, to = %heir.node, mine, count, "hands over");
            core.groups.transfer_leadership(status.tablet, heir.replica);
            mine -= 1;
            theirs.insert(heir.node, count + 1);
            core.led.hear(heir.node, count + 1);
            handed_over += 1;
        }
    }
}

/// Whether a node that leads so many groups should lead fewer beside one that leads so many.
fn is_many_more(mine: u64, theirs: u64) -> bool {
    mine >= theirs + DIFFERENCE_MIN.max(mine / DIFFERENCE_DIVISOR)
}

fn leaves(core: &Core, node: NodeId) -> bool {
    let view = core.view();
    let node = view.state.node(node);
    node.is_none_or(|node| node.status != NodeStatus::Member)
}

/// The member that leads least of those that could lead this group at once.
fn heir(
    core: &Core,
    status: &GroupStatus,
    theirs: &BTreeMap<NodeId, u64>,
) -> Option<(consensus::Member, u64)> {
    let view = core.view();
    let leaving = view.state.tablet(status.tablet).and_then(|it| it.leaving);
    let is_ready = |member: &&consensus::Member| {
        let matched = status.matched.iter();
        let mut matched = matched.filter(|(replica, _)| *replica == member.replica);
        member.node != core.node
            && !member.is_learner
            && core.views.is_alive(member.node)
            && !leaves(core, member.node)
            && leaving != Some(member.replica)
            && matched.any(|(_, index)| index + LAG_ENTRIES_MAX >= status.last_index)
    };
    let ready = status.members.iter().filter(is_ready);
    let counted = ready.filter_map(|member| Some((*member, *theirs.get(&member.node)?)));
    counted.min_by_key(|(member, count)| (*count, member.node))
}
