//! Bringing a learner up to the others: the two ways of catching up, behind one answer: done, or not yet.
//!
//! A learner of a strong tablet is fed by its group's leader, and becomes a voter when it is close. A learner of
//! an eventual tablet gets every write from the moment the coordinators know of it, which is why it streams what
//! was there before from replicas that have taken the epoch in which it was added: they refuse writes of
//! coordinators that do not send to it.

use crate::core::Core;
use crate::replicas::Held;
use crate::rpc::{Failure, Reply, Request};
use cluster::{Replica, Tablet};
use consensus::{ChangeMembers, Member, ProposeError, Role};
use model::{NodeId, PlacementEpoch, ReplicaId, TabletId};
use parking_lot::Mutex;
use quorum::{
    Action, Covered, EventualReplica, PaxosReply, PaxosRequest, RawRow, ReplicaRead,
    ReplicaSelection,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// A learner may be so many entries behind when it becomes a voter.
const LAG_ENTRIES_MAX: u64 = 64;
const CHANGE_PATIENCE: Duration = Duration::from_secs(5);
/// A page of a stream.
const PAGE_BYTES: u32 = 1 << 20;
const PAGE_PATIENCE: Duration = Duration::from_secs(10);
const PAGE_ATTEMPTS_MAX: u32 = 20;

/// On the leader: brings a member one step closer to being a voter.
pub(crate) async fn admit(core: &Core, tablet: TabletId, member: Member) -> Reply {
    let Some(status) = core.groups.status(tablet) else {
        return Reply::NotLeader { leader: None };
    };
    if status.role != Role::Leader {
        return Reply::NotLeader {
            leader: status.leader.map(|leader| leader.node),
        };
    }
    let known = status
        .members
        .iter()
        .find(|known| known.replica == member.replica);
    let change = match known {
        None => ChangeMembers::AddLearner(Member {
            is_learner: true,
            ..member
        }),
        Some(known) if known.is_learner => {
            let matched = status
                .matched
                .iter()
                .find(|(replica, _)| *replica == member.replica)
                .map_or(0, |(_, index)| *index);
            if matched + LAG_ENTRIES_MAX < status.last_index || matched == 0 {
                return Reply::Admitted { is_complete: false };
            }
            ChangeMembers::AddVoter(Member {
                is_learner: false,
                ..member
            })
        }
        Some(_) => return Reply::Admitted { is_complete: true },
    };
    let changing = core.groups.change_members(tablet, change);
    match tokio::time::timeout(CHANGE_PATIENCE, changing).await {
        Ok(Ok(())) => Reply::Admitted {
            is_complete: matches!(change, ChangeMembers::AddVoter(_)),
        },
        Ok(Err(ProposeError::NotLeader { leader })) => Reply::NotLeader {
            leader: leader.map(|leader| leader.node),
        },
        _ => Reply::Admitted { is_complete: false },
    }
}

/// On the leader: says whether the group counts a replica, by the changes of members that are in force.
pub(crate) fn counts(core: &Core, tablet: TabletId, replica: ReplicaId) -> Reply {
    match core.groups.status(tablet) {
        Some(status) if status.role == Role::Leader => Reply::Counted(
            status
                .members
                .iter()
                .any(|member| member.replica == replica && !member.is_learner),
        ),
        Some(status) => Reply::NotLeader {
            leader: status.leader.map(|leader| leader.node),
        },
        None => Reply::NotLeader { leader: None },
    }
}

/// Streams under way and done, on the learner's node.
#[derive(Default)]
pub(crate) struct Streams {
    by_replica: Mutex<BTreeMap<(ReplicaId, PlacementEpoch), bool>>,
}

impl Streams {
    /// Whether the replica is filled in this placement; begins the stream if there is none, through `begin`.
    fn poll(&self, replica: (ReplicaId, PlacementEpoch), begin: impl FnOnce()) -> bool {
        let mut streams = self.by_replica.lock();
        if let Some(is_complete) = streams.get(&replica) {
            return *is_complete;
        }
        // What was done in an earlier placement is of no use any more.
        streams.retain(|(other, _), is_complete| *other != replica.0 || !*is_complete);
        streams.insert(replica, false);
        drop(streams);
        begin();
        false
    }

    fn end(&self, replica: (ReplicaId, PlacementEpoch), is_complete: bool) {
        let mut streams = self.by_replica.lock();
        if is_complete {
            streams.insert(replica, true);
        } else {
            streams.remove(&replica);
        }
    }
}

/// On the node of an eventual tablet's replica: fills it from the others, and says whether that is done.
pub(crate) fn serve(core: &Arc<Core>, tablet: TabletId, replica: Replica) -> Reply {
    let Some(held) = core.replicas.get(tablet) else {
        return Reply::Failed(Failure::NotServing);
    };
    let Held::Eventual(learner) = &held.held else {
        return Reply::Failed(Failure::Other("the tablet is not an eventual one".into()));
    };
    if held.replica != replica.id {
        return Reply::Failed(Failure::NotServing);
    }
    let stream = (replica.id, held.tablet.epoch);
    let is_complete = core.replicas.streams.poll(stream, || {
        let (core, learner) = (Arc::clone(core), Arc::clone(learner));
        let tablet = Arc::clone(&held.tablet);
        let tasks = Arc::clone(&core.tasks);
        tasks.spawn(async move {
            let outcome = fill(&core, &tablet, replica, &learner).await;
            if let Err(error) = &outcome {
                tracing::warn!(tablet = %tablet.id, replica = %replica.id, error, "filling failed");
            }
            core.replicas.streams.end(stream, outcome.is_ok());
        });
    });
    Reply::Admitted { is_complete }
}

/// Streams from all settled replicas that are alive: what only one of them has was acknowledged too, if its client
/// asked for no more. Every write that a quorum has acknowledged is on one of a majority, itself included.
async fn fill(
    core: &Core,
    tablet: &Tablet,
    replica: Replica,
    learner: &Arc<EventualReplica>,
) -> Result<(), String> {
    let sources: Vec<NodeId> = tablet.voters().map(|voter| voter.node).collect();
    let needed = sources.len() / 2 + 1;
    let mut complete = usize::from(sources.contains(&replica.node));
    for source in sources {
        if source == replica.node || !core.views.is_alive(source) {
            continue;
        }
        match stream(core, tablet, learner, source).await {
            Ok(rows) => {
                tracing::debug!(tablet = %tablet.id, %source, rows, "streamed");
                complete += 1;
            }
            Err(error) => return Err(format!("{source}: {error}")),
        }
    }
    if complete < needed {
        return Err(format!("{complete} of {needed} replicas are there"));
    }
    Ok(())
}

async fn stream(
    core: &Core,
    tablet: &Tablet,
    learner: &Arc<EventualReplica>,
    source: NodeId,
) -> Result<u64, String> {
    let mut range = tablet.range.clone();
    let mut rows = 0;
    loop {
        let action = Action::Read(ReplicaRead {
            rows: ReplicaSelection::Range {
                range: range.clone(),
                direction: api::Direction::Forward,
            },
            row_limit: None,
            size_bytes_max: PAGE_BYTES,
            // Nothing counts as expired: the copy is exact.
            now_seconds: i64::MIN,
        });
        let reply = ask(core, tablet, source, action).await?;
        let quorum::Reply::Page(page) = reply else {
            return Err(format!("a read was answered with {reply:?}"));
        };
        let deltas: Vec<RawRow> = page.headers.into_iter().chain(page.rows).collect();
        rows += deltas.len() as u64;
        if !deltas.is_empty() {
            learner
                .apply(deltas, catalog::Durability::Synced)
                .await
                .map_err(|error| error.to_string())?;
        }
        match page.covered {
            Covered::All => break,
            Covered::To(key) => range.start = key,
            Covered::Keys(_) => return Err("a page of a range speaks of keys".into()),
        }
    }
    stream_states(core, tablet, learner, source).await?;
    Ok(rows)
}

/// What the source has promised and accepted, and knows to be decided, partition by partition.
async fn stream_states(
    core: &Core,
    tablet: &Tablet,
    learner: &Arc<EventualReplica>,
    source: NodeId,
) -> Result<(), String> {
    let mut range = tablet.range.clone();
    loop {
        let request = PaxosRequest::States {
            range: range.clone(),
        };
        let reply = ask(core, tablet, source, Action::Paxos(request)).await?;
        let quorum::Reply::Paxos(PaxosReply::States { states, next }) = reply else {
            return Err(format!("a stream was answered with {reply:?}"));
        };
        learner
            .absorb_states(states)
            .await
            .map_err(|error| error.to_string())?;
        match next {
            Some(next) => range.start = next,
            None => return Ok(()),
        }
    }
}

/// Asks the source for a page, again and again if need be.
async fn ask(
    core: &Core,
    tablet: &Tablet,
    source: NodeId,
    action: Action,
) -> Result<quorum::Reply, String> {
    let mut attempts = 0;
    loop {
        let request = quorum::Request {
            tablet: tablet.id,
            epoch: tablet.epoch,
            action: action.clone(),
        };
        let answer = core
            .call(source, Request::Quorum(request), PAGE_PATIENCE)
            .await;
        attempts += 1;
        match answer {
            Ok(Reply::Quorum(quorum::Reply::Refused(error))) if attempts == PAGE_ATTEMPTS_MAX => {
                return Err(error.to_string());
            }
            Ok(Reply::Quorum(quorum::Reply::Refused(_))) => {}
            Ok(Reply::Quorum(reply)) => return Ok(reply),
            other if attempts == PAGE_ATTEMPTS_MAX => return Err(format!("{other:?}")),
            _ => {}
        }
        sleep(Duration::from_millis(200)).await;
    }
}
