//! Bringing a learner up to the others: the two ways of catching up, behind one answer: done, or not yet.
//!
//! A learner of a strong tablet is fed by its group's leader, and becomes a voter when it is close. A learner of
//! an eventual tablet gets every write from the moment the coordinators know of it, which is why it streams what
//! was there before from replicas that have taken the epoch in which it was added: they refuse writes of
//! coordinators that do not send to it. In the same way the voters of an eventual tablet take over what one of them has
//! that is on its way out: behind the epoch in which it was retired, so that nothing is acknowledged by it alone
//! afterwards.

use crate::core::Core;
use crate::replicas::Held;
use crate::rpc::{Failure, Reply, Request};
use api::KeyRange;
use cluster::{Replica, Tablet};
use consensus::{ChangeMembers, GroupStatus, Member, ProposeError, Role};
use model::{NodeId, PlacementEpoch, ReplicaId, TabletId};
use parking_lot::Mutex;
use quorum::{
    Action, Covered, EventualReplica, PaxosReply, PaxosRequest, RawRow, ReplicaRead,
    ReplicaSelection, Stage,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// A learner may be so many entries behind when it becomes a voter.
const LAG_ENTRIES_MAX: u64 = 64;
const CHANGE_PATIENCE: Duration = Duration::from_secs(5);
const PAGE_PATIENCE: Duration = Duration::from_secs(10);
const PAGE_ATTEMPTS_MAX: u32 = 20;

/// The group, if it is led here; else who leads it.
fn led(core: &Core, tablet: TabletId) -> Result<GroupStatus, Reply> {
    match core.groups.status(tablet) {
        Some(status) if status.role == Role::Leader => Ok(status),
        status => Err(Reply::NotLeader {
            leader: status.and_then(|it| it.leader).map(|leader| leader.node),
        }),
    }
}

/// On the leader: brings a member one step closer to being a voter.
pub(crate) async fn admit(core: &Core, tablet: TabletId, member: Member) -> Reply {
    let status = match led(core, tablet) {
        Ok(status) => status,
        Err(other) => return other,
    };
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
    self::change(core, tablet, change).await
}

/// On the leader: ends a member's part in the group; when that is its own, somebody else leads first.
pub(crate) async fn let_go(core: &Core, tablet: TabletId, replica: ReplicaId) -> Reply {
    let status = match led(core, tablet) {
        Ok(status) => status,
        Err(other) => return other,
    };
    if status.replica == replica {
        let heir = status.members.iter().find(|member| {
            !member.is_learner && member.replica != replica && core.views.is_alive(member.node)
        });
        if let Some(heir) = heir {
            if let Some(strong) = core.replicas.strong(tablet) {
                strong.release().await;
            }
            core.groups.transfer_leadership(tablet, heir.replica);
        }
        return Reply::Admitted { is_complete: false };
    }
    // Where it is no member as far as is known here, too: what has not been applied may make it one. Once more, so that a
    // majority of those who stay know that it is in force: should this leader be lost, they count by it.
    for _ in 0..2 {
        let answer = change(core, tablet, ChangeMembers::Remove(replica)).await;
        if !matches!(answer, Reply::Admitted { is_complete: true }) {
            return answer;
        }
    }
    Reply::Admitted { is_complete: true }
}

async fn change(core: &Core, tablet: TabletId, change: ChangeMembers) -> Reply {
    let changing = core.groups.change_members(tablet, change);
    match tokio::time::timeout(CHANGE_PATIENCE, changing).await {
        Ok(Ok(())) => Reply::Admitted {
            is_complete: !matches!(change, ChangeMembers::AddLearner(_)),
        },
        Ok(Err(ProposeError::NotLeader { leader })) => Reply::NotLeader {
            leader: leader.map(|leader| leader.node),
        },
        _ => Reply::Admitted { is_complete: false },
    }
}

/// Streams under way and done, on the learner's node.
#[derive(Default)]
pub(crate) struct Streams {
    by_replica: Mutex<BTreeMap<(ReplicaId, PlacementEpoch), bool>>,
    /// When the budget allows the next page, of all of them.
    next_page_at: Mutex<Option<Instant>>,
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

    /// Waits as long as the budget asks for after so much.
    async fn throttle(&self, bytes: u64, bytes_per_second: u64) {
        let pause = bytes.saturating_mul(1_000_000) / bytes_per_second.max(1);
        let until = {
            let mut next = self.next_page_at.lock();
            let now = Instant::now();
            let begin = next.map_or(now, |next| next.max(now));
            *next.insert(begin + Duration::from_micros(pause))
        };
        sleep_until(until).await;
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

/// On the node of an eventual tablet's replica: fills it from the others, in a placement not older than `epoch`, and says
/// whether that is done. The one that is on its way out may be missing if its node is `lost`.
pub(crate) fn serve(
    core: &Arc<Core>,
    tablet: TabletId,
    replica: Replica,
    epoch: PlacementEpoch,
    lost: Option<NodeId>,
) -> Reply {
    let Some(held) = core.replicas.get(tablet) else {
        return Reply::Failed(Failure::NotServing);
    };
    let Held::Eventual(learner) = &held.held else {
        return Reply::Failed(Failure::Other("the tablet is not an eventual one".into()));
    };
    if held.replica != replica.id {
        return Reply::Failed(Failure::NotServing);
    }
    if held.tablet.epoch < epoch {
        return Reply::Admitted { is_complete: false };
    }
    let stream = (replica.id, held.tablet.epoch);
    let is_complete = core.replicas.streams.poll(stream, || {
        let (core, learner) = (Arc::clone(core), Arc::clone(learner));
        let tablet = Arc::clone(&held.tablet);
        let tasks = Arc::clone(&core.tasks);
        tasks.spawn(async move {
            let outcome = fill(&core, &tablet, replica, lost, &learner).await;
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
    lost: Option<NodeId>,
    learner: &Arc<EventualReplica>,
) -> Result<(), String> {
    let view = core.view();
    let sources: Vec<Source> = tablet
        .voters()
        .filter(|voter| !view.state.is_removed(voter.node))
        .map(|voter| Source {
            node: voter.node,
            center: view.data_center(voter.node).cloned().unwrap_or_default(),
            is_leaving: tablet.leaving == Some(voter.id),
            is_heard: voter.id == replica.id,
        })
        .collect();
    let mut sources = Sources {
        sources,
        here: view.data_center(replica.node).cloned().unwrap_or_default(),
        lost,
    };
    let learner = Learner {
        replica: learner,
        center: &sources.here,
    };
    for source in &mut sources.sources {
        if source.is_heard || !core.views.is_alive(source.node) {
            continue;
        }
        match stream(core, tablet, learner, source.node).await {
            Ok(rows) => {
                tracing::debug!(tablet = %tablet.id, source = %source.node, rows, "streamed");
                source.is_heard = true;
            }
            Err(error) => return Err(format!("{}: {error}", source.node)),
        }
    }
    match sources.lacking() {
        Some(lacking) => Err(lacking),
        None => Ok(()),
    }
}

/// A voter that a replica is filled from.
struct Source {
    node: NodeId,
    center: Arc<str>,
    is_leaving: bool,
    /// All that it has was streamed from it, or it is the replica itself.
    is_heard: bool,
}

struct Sources {
    /// Those on nodes that were not removed from the cluster: what the others alone have is lost.
    sources: Vec<Source>,
    /// The data centre of the replica that is filled.
    here: Arc<str>,
    /// There is no hope for this one.
    lost: Option<NodeId>,
}

impl Sources {
    /// Who has not been heard and has to be. Of every quorum that a write was acknowledged by, somebody must have been
    /// heard: of a majority of all; of a quorum of the replica's own data centre, for local levels; and where it is the
    /// first of its own, or somebody is on its way out, of a quorum of each. Who is on its way out must have been
    /// heard himself: what was acknowledged at ONE may be nowhere else.
    fn lacking(&self) -> Option<String> {
        let heard = self.count(|source| source.is_heard);
        let needed = self.sources.len() / 2 + 1;
        if heard < needed {
            return Some(format!("{heard} of {needed} replicas are there"));
        }
        let mut leaving = self.sources.iter().filter(|source| source.is_leaving);
        if let Some(missing) = leaving.find(|it| !it.is_heard && self.lost != Some(it.node)) {
            return Some(format!("{}, which leaves, is not there", missing.node));
        }
        let has_leaving = self.count(|source| source.is_leaving) > 0;
        let is_first = self.count(|source| source.center == self.here) == 0;
        let mut centers: Vec<&Arc<str>> = self.sources.iter().map(|it| &it.center).collect();
        centers.sort();
        centers.dedup();
        centers
            .into_iter()
            .filter(|center| has_leaving || is_first || **center == self.here)
            .find_map(|center| {
                let voters = self.count(|source| source.center == *center);
                let heard = self.count(|source| source.center == *center && source.is_heard);
                // As many as meet every quorum of them, also one without somebody who was on his way out and was taken
                // back.
                let needed = voters / 2 + 1;
                (heard < needed)
                    .then(|| format!("{heard} of {needed} replicas of {center} are there"))
            })
    }

    fn count(&self, is_it: impl Fn(&Source) -> bool) -> usize {
        self.sources.iter().filter(|source| is_it(source)).count()
    }
}

/// The replica that is filled, and its data centre.
#[derive(Clone, Copy)]
struct Learner<'a> {
    replica: &'a Arc<EventualReplica>,
    center: &'a str,
}

/// Takes over what the source has and this replica has not taken over in this placement yet.
async fn stream(
    core: &Core,
    tablet: &Tablet,
    learner: Learner<'_>,
    source: NodeId,
) -> Result<u64, String> {
    let mut rows = 0;
    let text = |error: quorum::ReplicaError| error.to_string();
    let replica = learner.replica;
    let mut stage = replica.stage(tablet.epoch, source).map_err(text)?;
    loop {
        stage = match stage {
            Stage::Begin => {
                let start = tablet.range.start.clone();
                stream_rows(core, tablet, learner, source, start, &mut rows).await?
            }
            Stage::Rows(from) => {
                stream_rows(core, tablet, learner, source, from, &mut rows).await?
            }
            Stage::States(from) => stream_states(core, tablet, learner, source, from).await?,
            Stage::Done => return Ok(rows),
        };
        let noted = replica.note_stage(tablet.epoch, source, stage.clone());
        noted.map_err(text)?;
    }
}

/// A page of rows, and what comes next.
async fn stream_rows(
    core: &Core,
    tablet: &Tablet,
    learner: Learner<'_>,
    source: NodeId,
    from: Vec<u8>,
    rows: &mut u64,
) -> Result<Stage, String> {
    let range = KeyRange {
        start: from,
        end: tablet.range.end.clone(),
    };
    let action = Action::Read(ReplicaRead {
        rows: ReplicaSelection::Range {
            range,
            direction: api::Direction::Forward,
        },
        row_limit: None,
        size_bytes_max: core.config.stream_page_bytes,
        // Nothing counts as expired: the copy is exact.
        now_seconds: i64::MIN,
    });
    let reply = ask(core, tablet, source, action).await?;
    let quorum::Reply::Page(page) = reply else {
        return Err(format!("a read was answered with {reply:?}"));
    };
    let deltas: Vec<RawRow> = page.headers.into_iter().chain(page.rows).collect();
    let sizes = deltas.iter().map(|delta| delta.key.len() + delta.row.len());
    let (count, bytes) = (deltas.len() as u64, sizes.sum::<usize>() as u64);
    if !deltas.is_empty() {
        learner
            .replica
            .apply(deltas, catalog::Durability::Synced)
            .await
            .map_err(|error| error.to_string())?;
    }
    *rows += count;
    core.metrics.filled(count, bytes);
    let rate = core.config.stream_bytes_per_second;
    core.replicas.streams.throttle(bytes, rate).await;
    match page.covered {
        Covered::All => Ok(Stage::States(tablet.range.start.clone())),
        Covered::To(key) => Ok(Stage::Rows(key)),
        Covered::Keys(_) => Err("a page of a range speaks of keys".into()),
    }
}

/// What the source has promised and accepted, and knows to be decided, partition by partition: a page, and what comes
/// next.
async fn stream_states(
    core: &Core,
    tablet: &Tablet,
    learner: Learner<'_>,
    source: NodeId,
    from: Vec<u8>,
) -> Result<Stage, String> {
    let range = KeyRange {
        start: from,
        end: tablet.range.end.clone(),
    };
    let request = Action::Paxos(PaxosRequest::States { range });
    let reply = ask(core, tablet, source, request).await?;
    let quorum::Reply::Paxos(PaxosReply::States { states, next }) = reply else {
        return Err(format!("a stream was answered with {reply:?}"));
    };
    learner
        .replica
        .absorb_states(states, learner.center)
        .await
        .map_err(|error| error.to_string())?;
    Ok(next.map_or(Stage::Done, Stage::States))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `(data centre, is_heard)`, with who leaves.
    fn sources(here: &str, voters: &[(&str, bool)], leaving: Option<u64>) -> Sources {
        let source = |(index, (center, is_heard)): (usize, &(&str, bool))| Source {
            node: NodeId(index as u64),
            center: (*center).into(),
            is_leaving: leaving == Some(index as u64),
            is_heard: *is_heard,
        };
        Sources {
            sources: voters.iter().enumerate().map(source).collect(),
            here: here.into(),
            lost: None,
        }
    }

    fn is_enough(here: &str, voters: &[(&str, bool)]) -> bool {
        sources(here, voters, None).lacking().is_none()
    }

    #[tokio::test(start_paused = true)]
    async fn streams_to_a_node_share_one_budget_and_save_nothing_up() {
        let streams = Streams::default();
        let three_pages = async || {
            for _ in 0..3 {
                streams.throttle(500, 1_000).await;
            }
        };
        let began = Instant::now();
        tokio::join!(three_pages(), three_pages());
        assert_eq!(began.elapsed().as_secs(), 3);
        sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        three_pages().await;
        assert_eq!(began.elapsed().as_millis(), 1_500);
    }

    #[test]
    fn a_copy_meets_every_quorum_of_its_own_data_centre() {
        let (yes, no) = (true, false);
        assert!(is_enough("a", &[("a", yes), ("a", yes), ("a", no)]));
        assert!(!is_enough("a", &[("a", yes), ("a", no), ("a", no)]));
        // A majority, but not of those whose answers LOCAL_QUORUM has counted here.
        let b = [("b", yes), ("b", yes), ("b", yes)];
        assert!(!is_enough("a", &[[("a", no); 1].as_slice(), &b].concat()));
        assert!(is_enough("b", &[[("a", no); 2].as_slice(), &b].concat()));
        // The first of its data centre is to show what the others have acknowledged.
        assert!(!is_enough("c", &[[("a", no); 2].as_slice(), &b].concat()));
        let a = [("a", yes), ("a", yes), ("a", no)];
        assert!(is_enough("c", &[a, b].concat()));
        // The one here may alone have what was acknowledged while the other was on its way out, and was taken back.
        let a = [("a", yes), ("a", no)];
        assert!(!is_enough("a", &[a.as_slice(), &b].concat()));
    }

    #[test]
    fn who_leaves_is_heard_unless_it_is_lost() {
        let voters = [("a", true), ("a", true), ("a", false)];
        let mut taken = sources("a", &voters, Some(2));
        assert!(taken.lacking().is_some());
        taken.lost = Some(NodeId(2));
        assert_eq!(taken.lacking(), None);
        // The last of a data centre: what local levels have acknowledged there is nowhere else.
        let voters = [("a", true), ("a", true), ("b", false)];
        let mut taken = sources("a", &voters, Some(2));
        taken.lost = Some(NodeId(2));
        assert!(taken.lacking().is_some());
        taken.sources.pop();
        assert_eq!(taken.lacking(), None);
    }
}
