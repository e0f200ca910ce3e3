//! Replicas of eventual tablets whose log or store has failed: operators are told, and those whose store has failed are
//! opened anew, so that they merge from their logs what they have acknowledged. The other replicas serve meanwhile.
//!
//! Not everything is mended so: a log that has failed is closed until the node starts again, and a store that fails again
//! and again needs another disk. Both are said in `/health` and `tessera status`.

use crate::core::Core;
use crate::replicas::Held;
use model::{ReplicaId, TabletId};
use quorum::{EventualReplica, Failure};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Replicas are looked at so often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A replica is opened anew so often in a node's life; then something is wrong that opening does not mend.
const OPENINGS_MAX: u32 = 3;

/// For as long as the node lives.
pub(crate) async fn run(core: Arc<Core>) {
    let mut openings: BTreeMap<ReplicaId, u32> = BTreeMap::new();
    let mut shown: BTreeMap<ReplicaId, TabletId> = BTreeMap::new();
    loop {
        sleep(LOOK_INTERVAL).await;
        for held in core.replicas.all().values() {
            let Held::Eventual(replica) = &held.held else {
                continue;
            };
            let opened = openings.get(&held.replica).copied().unwrap_or_default();
            let Some(Trouble { complaint, remedy }) = look_at(&core, replica, opened).await else {
                continue;
            };
            core.complain(&topic(held.replica, held.tablet.id), Some(complaint));
            shown.insert(held.replica, held.tablet.id);
            if remedy == Remedy::OpenAnew {
                // Behind the complaint, which ends when it is open.
                openings.insert(held.replica, opened + 1);
                core.replicas.open_anew(held.tablet.id, held.replica);
            }
        }
        let view = core.view();
        shown.retain(|replica, tablet| {
            let place = view.state.tablet(*tablet);
            let is_there = place.is_some_and(|place| place.replica(*replica).is_some());
            if !is_there {
                core.complain(&topic(*replica, *tablet), None);
            }
            is_there
        });
    }
}

/// What complaints about a replica are filed under.
pub(crate) fn topic(replica: ReplicaId, tablet: TabletId) -> String {
    format!("replica {replica} of tablet {tablet}")
}

/// What is wrong with a replica.
struct Trouble {
    complaint: String,
    remedy: Remedy,
}

#[derive(PartialEq, Eq)]
enum Remedy {
    OpenAnew,
    /// None that the node has.
    Operator,
}

async fn look_at(core: &Core, replica: &EventualReplica, opened: u32) -> Option<Trouble> {
    let for_operator = |complaint: String| {
        Some(Trouble {
            complaint,
            remedy: Remedy::Operator,
        })
    };
    let failure = match replica.failure() {
        Some(Failure::Store(error)) => Failure::Store(error),
        Some(failure) => {
            return for_operator(format!(
                "it has failed: {failure}; start this node again, or take it out"
            ));
        }
        None => {
            let what = replica.unreadable()?;
            return for_operator(format!(
                "some of it cannot be read, other replicas answer: {what}"
            ));
        }
    };
    if opened >= OPENINGS_MAX {
        return for_operator(format!(
            "it has failed again and again: {failure}; take this node out (tessera node decommission {}) or give it \
             another disk",
            core.node
        ));
    }
    if let Err(error) = replica.stop().await {
        return for_operator(format!(
            "it has failed: {failure}, and so has the log: {error}; start this node again, or take it out"
        ));
    }
    Some(Trouble {
        complaint: format!("it has failed: {failure}; it is opened anew"),
        remedy: Remedy::OpenAnew,
    })
}
