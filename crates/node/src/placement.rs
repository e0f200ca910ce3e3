//! The placement loop: on the node that leads the meta group, carries out what `cluster::plan` says; on every
//! node, keeps the members of the groups that it leads in line with the tablet map. Both look at the state as it
//! is and take one step towards where it should be, so they can stop and begin again anywhere.

use crate::core::Core;
use crate::follow;
use crate::replicas::member;
use crate::rpc::{Reply, Request};
use crate::service::{self, leader_of};
use cluster::{Command, Liveness, META, Replica, Split, Step, Tablet, plan};
use consensus::{ChangeMembers, FOUNDED_AT, Role};
use model::{NodeId, TabletId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use world::planted::{self, Bug};

const INTERVAL: Duration = Duration::from_millis(250);
const STEPS_AT_ONCE_MAX: usize = 16;
const STEP_PATIENCE: Duration = Duration::from_secs(5);
const ADMIT_PATIENCE: Duration = Duration::from_secs(3);
const CHANGE_PATIENCE: Duration = Duration::from_secs(3);

pub(crate) async fn run(core: Arc<Core>) {
    let mut dead = Dead::default();
    let mut rest = Rest::default();
    loop {
        let lost = dead.look(&core);
        let seen = Seen::now(&core, &lost);
        let mut has_steps = false;
        if !rest.lasts(&seen) {
            let plan = match seen.leads_meta {
                true => carry_out_plan(&core, &lost).await,
                false => Plan::default(),
            };
            let mut is_all = !plan.has_any;
            is_all &= !converge_groups(&core).await;
            is_all &= !settle_splits(&core).await;
            is_all &= !let_dropped_go(&core).await;
            rest = Rest::new(is_all.then_some(seen));
            has_steps = plan.is_busy;
        }
        if has_steps {
            // The next steps are at hand; but a learner that is being filled needs its time.
            sleep(INTERVAL / 5).await;
        } else {
            let mut versions = core.views.watch_version();
            let _ = timeout(INTERVAL, versions.changed()).await;
        }
    }
}

/// All that the loop's steps follow from.
#[derive(PartialEq)]
struct Seen {
    version: u64,
    replicas_version: u64,
    groups_changes: u64,
    leads_meta: bool,
    alive: Vec<NodeId>,
    lost: BTreeSet<NodeId>,
}

impl Seen {
    fn now(core: &Core, lost: &BTreeSet<NodeId>) -> Seen {
        // What is read first may be older than what is read after it, and is then looked at once more.
        let groups_changes = core.groups.changes();
        let replicas_version = *core.replicas.watch_version().borrow();
        let state = Arc::clone(&core.view().state);
        let nodes = state.nodes().keys().copied();
        Seen {
            version: state.version(),
            replicas_version,
            groups_changes,
            leads_meta: *core.leads_meta.borrow(),
            alive: nodes.filter(|node| core.views.is_alive(*node)).collect(),
            lost: lost.clone(),
        }
    }
}

/// While all is as it was when there was nothing to do, there is nothing to do; it is looked at now and then all the same.
#[derive(Default)]
struct Rest {
    seen: Option<Seen>,
    looks: u32,
}

/// Looks that are left out at a time.
const REST_LOOKS: u32 = 20;

impl Rest {
    fn new(seen: Option<Seen>) -> Rest {
        Rest { seen, looks: 0 }
    }

    fn lasts(&mut self, seen: &Seen) -> bool {
        self.looks += 1;
        self.looks <= REST_LOOKS && self.seen.as_ref() == Some(seen)
    }
}

/// What there was to do.
#[derive(Default)]
struct Plan {
    has_any: bool,
    /// The next steps follow at once.
    is_busy: bool,
}

/// Since when nodes have been dead, as this node has seen it.
#[derive(Default)]
struct Dead {
    since: BTreeMap<NodeId, Instant>,
}

impl Dead {
    /// The nodes that have been dead for so long that what they hold is to be made anew.
    fn look(&mut self, core: &Core) -> BTreeSet<NodeId> {
        let now = Instant::now();
        let state = &core.view().state;
        let delay = Duration::from_secs(state.rebuild_after_seconds());
        let members: BTreeSet<NodeId> = state.members().map(|node| node.id).collect();
        self.since
            .retain(|node, _| members.contains(node) && !core.views.is_alive(*node));
        for node in members {
            if !core.views.is_alive(node) {
                self.since.entry(node).or_insert(now);
            }
        }
        let is_lost = |since: &Instant| now.duration_since(*since) >= delay;
        let lost = self.since.iter().filter(|(_, since)| is_lost(since));
        lost.map(|(node, _)| *node).collect()
    }
}

/// Steps that somebody planned when the tablets stood as they did then: for the simulator, which carries them out when
/// they do not any more.
#[derive(Debug)]
pub struct LatePlan(Vec<Step>);

/// What a leader of the meta group would do by what this node knows, were these nodes dead for good.
pub(crate) fn foresee(core: &Core, lost: &BTreeSet<NodeId>) -> LatePlan {
    let nodes = Liveness {
        is_alive: &|node| core.views.is_alive(node) && !lost.contains(&node),
        is_lost: &|node| lost.contains(&node),
    };
    LatePlan(plan(&core.view().state, &nodes, STEPS_AT_ONCE_MAX))
}

pub(crate) async fn carry_out_late(core: &Core, plan: LatePlan) {
    let carrying = plan.0.into_iter().map(|step| carry_out(core, step));
    futures::future::join_all(carrying).await;
}

/// Whether all groups here keep a majority when this node is lost.
pub(crate) fn spares(core: &Core, node: NodeId) -> bool {
    core.groups.statuses().iter().all(|status| {
        let voters = || status.members.iter().filter(|member| !member.is_learner);
        let others = voters().filter(|voter| voter.node != node);
        others.count() * 2 > voters().count()
    })
}

/// Of groups that are led here: the node of a voter that leaves, or has left the map, and the nodes of the others.
pub(crate) fn leaving_voters(core: &Core) -> Vec<(NodeId, Vec<NodeId>)> {
    let state = Arc::clone(&core.view().state);
    let statuses = core.groups.statuses().into_iter();
    let led = statuses.filter(|status| status.role == Role::Leader && status.tablet != META);
    let leaving = led.filter_map(|status| {
        let tablet = state.tablet(status.tablet)?;
        let stays = |replica| tablet.staying().any(|voter| voter.id == replica);
        let voters: Vec<_> = status.members.iter().filter(|it| !it.is_learner).collect();
        let gone = voters.iter().find(|voter| !stays(voter.replica))?;
        let others = voters.iter().filter(|voter| voter.replica != gone.replica);
        Some((gone.node, others.map(|voter| voter.node).collect()))
    });
    leaving.collect()
}

async fn carry_out_plan(core: &Core, lost: &BTreeSet<NodeId>) -> Plan {
    let state = Arc::clone(&core.view().state);
    let nodes = Liveness {
        is_alive: &|node| core.views.is_alive(node),
        is_lost: &|node| lost.contains(&node),
    };
    let steps = plan(&state, &nodes, STEPS_AT_ONCE_MAX);
    let done = Plan {
        has_any: !steps.is_empty(),
        is_busy: steps.iter().any(|step| !matches!(step, Step::Settle(_))),
    };
    let carrying = steps.into_iter().map(|step| carry_out(core, step));
    futures::future::join_all(carrying).await;
    done
}

async fn carry_out(core: &Core, step: Step) {
    tracing::debug!(?step, "next");
    match step {
        Step::Propose(command) => propose(core, command).await,
        Step::Fill { tablet, replica } => {
            if fill_one(core, tablet, replica).await {
                let replica = replica.id;
                propose(core, Command::Promote { tablet, replica }).await;
            }
        }
        Step::Divide(split) => divide(core, &split).await,
        Step::Settle(split) => settle(core, &split).await,
        Step::LetGo { tablet, leaving } => let_go(core, tablet, leaving).await,
        Step::TakeOver {
            tablet,
            leaving,
            is_lost,
        } => take_over(core, tablet, leaving, is_lost).await,
    }
}

/// Has all other replicas of an eventual tablet take over what one of them has that was retired, and what each other
/// have; then the one goes. All that was acknowledged with it is then on every other.
async fn take_over(core: &Core, tablet: TabletId, leaving: Replica, is_lost: bool) {
    let view = core.view();
    let Some(place) = view.state.tablet(tablet) else {
        return;
    };
    if place.leaving != Some(leaving.id) {
        return;
    }
    let staying = place
        .staying()
        .filter(|voter| !view.state.is_removed(voter.node));
    let staying = staying.filter(|_| !planted::is(Bug::LeaveWithoutTakeOver));
    let filling = staying.map(|replica| {
        let request = Request::Fill {
            tablet,
            replica: *replica,
            epoch: Some(place.epoch),
            lost: is_lost.then_some(leaving.node),
        };
        core.call(replica.node, request, ADMIT_PATIENCE)
    });
    let answers = futures::future::join_all(filling).await;
    let is_complete =
        |answer: &Result<Reply, _>| matches!(answer, Ok(Reply::Admitted { is_complete: true }));
    if answers.iter().all(is_complete) {
        let command = Command::RemoveReplica {
            tablet,
            epoch: place.epoch,
            replica: leaving.id,
        };
        propose(core, command).await;
    }
}

/// Has a strong tablet's group, or the meta group, let go of a replica that was retired, and then the map.
async fn let_go(core: &Core, tablet: TabletId, leaving: Replica) {
    let view = core.view();
    let place = view.state.tablet(tablet);
    let Some(place) = place.filter(|place| place.leaving == Some(leaving.id)) else {
        return;
    };
    let replica = leaving.id;
    let request = || Request::LetGo { tablet, replica };
    if planted::is(Bug::MapLetsGoFirst) || ask_leader(core, place, request).await {
        let command = Command::RemoveReplica {
            tablet,
            epoch: place.epoch,
            replica,
        };
        propose(core, command).await;
    }
}

async fn propose(core: &Core, command: Command) {
    match follow::execute(core, command, STEP_PATIENCE).await {
        Ok(Ok(_)) => {}
        // Somebody was faster, or the plan was made with an older state.
        Ok(Err(refusal)) => tracing::debug!(%refusal, "a step was refused"),
        Err(error) => tracing::debug!(%error, "a step has no outcome"),
    }
}

/// Asks whoever can fill a learner to do so. Says whether it is filled.
async fn fill_one(core: &Core, tablet: TabletId, replica: Replica) -> bool {
    let view = core.view();
    let Some(place) = view.state.tablet(tablet) else {
        return false;
    };
    let table = view.state.catalog().table(place.root);
    let is_strong = tablet == META || table.is_some_and(|table| table.is_strong());
    if !is_strong {
        let request = Request::Fill {
            tablet,
            replica,
            epoch: Some(place.epoch),
            lost: None,
        };
        let answer = core.call(replica.node, request, ADMIT_PATIENCE).await;
        return matches!(answer, Ok(Reply::Admitted { is_complete: true }));
    }
    let member = member(&replica);
    ask_leader(core, place, || Request::Admit { tablet, member }).await
}

/// Asks a strong tablet's leader, whoever that is, to change the group's members. Says whether that is done.
async fn ask_leader(core: &Core, place: &Tablet, request: impl Fn() -> Request) -> bool {
    for leader in candidates(core, place) {
        let answer = match core.call(leader, request(), ADMIT_PATIENCE).await {
            Ok(answer) => answer,
            Err(_) => continue,
        };
        match answer {
            Reply::Admitted { is_complete } => {
                core.set_hint(place.id, Some(leader));
                return is_complete;
            }
            Reply::NotLeader {
                leader: Some(leader),
            } => core.set_hint(place.id, Some(leader)),
            _ => {}
        }
    }
    false
}

/// Has the leaseholder divide a tablet, and the map follow.
async fn divide(core: &Core, split: &Split) {
    let tablet = split.left.id;
    for leader in candidates(core, &split.left) {
        let request = Request::Split {
            at: split.right.range.start.clone(),
            left: split.left.clone(),
            right: split.right.clone(),
        };
        let answer = if leader == core.node {
            service::divide_here(core, request).await
        } else {
            core.call(leader, request, STEP_PATIENCE).await.ok()
        };
        match answer {
            Some(Reply::Divided(Ok(()))) => {
                let right = split.right.id;
                propose(core, Command::FinishSplit { tablet, right }).await;
                return;
            }
            other => tracing::debug!(%tablet, %leader, ?other, "not divided yet"),
        }
    }
}

/// Asks each of the first replicas of an eventual tablet's right half for a sign of life. When all have given one, each
/// has been made of the left one's beside it, and those may go where they like.
async fn settle(core: &Core, split: &Split) {
    let view = core.view();
    let Some(right) = view.state.tablet(split.right.id) else {
        return;
    };
    let founders = view.state.founders_of_half(split);
    let founders = founders.filter(|_| !planted::is(Bug::SplitSettledEarly));
    let asking = founders.map(|founder| {
        let request = quorum::Request {
            tablet: right.id,
            epoch: right.epoch,
            action: quorum::Action::Repair(quorum::RepairRequest::Begin),
        };
        core.call(founder.node, Request::Quorum(request), ADMIT_PATIENCE)
    });
    let answers = futures::future::join_all(asking).await;
    let is_there =
        |answer: &Result<Reply, _>| matches!(answer, Ok(Reply::Quorum(quorum::Reply::Repair(_))));
    if answers.iter().all(is_there) {
        let (tablet, right) = (split.left.id, right.id);
        propose(core, Command::SettleSplit { tablet, right }).await;
    }
}

/// Whom to ask for a strong tablet's leader, likeliest first.
fn candidates(core: &Core, tablet: &Tablet) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = leader_of(core, tablet.id).into_iter().collect();
    nodes.extend(core.hint(tablet.id));
    nodes.extend(tablet.voters().map(|voter| voter.node));
    let mut seen = Vec::new();
    nodes.retain(|node| {
        let is_new = !seen.contains(node);
        seen.push(*node);
        is_new
    });
    nodes
}

/// For each right half that is led here, and so has its state on a majority: tells the map so. For each left half
/// that is led here, and of which the map says so: tells its log. Says whether there was any.
async fn settle_splits(core: &Core) -> bool {
    let state = Arc::clone(&core.view().state);
    let mut has_any = false;
    for status in core.groups.statuses() {
        if status.role != Role::Leader {
            continue;
        }
        let split = state.split_into(status.tablet);
        if let Some(split) = split.filter(|_| status.committed > FOUNDED_AT.index) {
            let (tablet, right) = (split.left.id, split.right.id);
            propose(core, Command::SettleSplit { tablet, right }).await;
            has_any = true;
        }
        let strong = core.replicas.strong(status.tablet);
        let Some((strong, right)) = strong.and_then(|it| Some((it.clone(), it.division()?))) else {
            continue;
        };
        has_any = true;
        // A state from before the split was prepared does not know it either.
        let is_known = right.replicas.iter().all(|it| state.has_allotted(it.id));
        let split = state.splits().get(&status.tablet);
        if is_known && split.is_none_or(|split| split.right.id != right.id) {
            strong.settle(&right).await;
        }
    }
    has_any
}

/// The tablets of tables that are gone, of those that are led here, go when nobody has to hear of them any more. Says
/// whether there are any.
async fn let_dropped_go(core: &Core) -> bool {
    let state = Arc::clone(&core.view().state);
    let led = state
        .dropped()
        .keys()
        .filter(|id| leader_of(core, **id) == Some(core.node));
    let looking = led.filter_map(|id| {
        let strong = core.replicas.strong(*id)?;
        Some(async move {
            // One whose group has no majority is not waited for.
            let is_done_with = timeout(CHANGE_PATIENCE, strong.is_done_with()).await;
            is_done_with.unwrap_or(false).then_some(*id)
        })
    });
    let looked = futures::future::join_all(looking).await;
    let tablets: Vec<TabletId> = looked.iter().flatten().copied().collect();
    if !tablets.is_empty() {
        propose(core, Command::Forget { tablets }).await;
    }
    !looked.is_empty()
}

/// For each group that is led here: members that the map has are added as learners, and those that it has no
/// more are removed. The map lets go last; but a leader with an old state may have added once more what had left already.
/// Says whether there were any.
async fn converge_groups(core: &Core) -> bool {
    let mut has_any = false;
    let state = Arc::clone(&core.view().state);
    for status in core.groups.statuses() {
        if status.role != Role::Leader {
            continue;
        }
        let Some(tablet) = state.tablet(status.tablet) else {
            continue;
        };
        let missing = tablet.replicas.iter().find(|replica| {
            let is_member = status
                .members
                .iter()
                .any(|known| known.replica == replica.id);
            !is_member && replica.is_learner && tablet.leaving != Some(replica.id)
        });
        // A member that this state is too old to know must not be removed for it.
        let surplus = status.members.iter().find(|known| {
            tablet.replica(known.replica).is_none() && state.has_allotted(known.replica)
        });
        let change = match (missing, surplus) {
            (Some(replica), _) => ChangeMembers::AddLearner(member(replica)),
            (None, Some(known)) => ChangeMembers::Remove(known.replica),
            (None, None) => continue,
        };
        has_any = true;
        let changing = core.groups.change_members(status.tablet, change);
        match timeout(CHANGE_PATIENCE, changing).await {
            Ok(Ok(())) => {}
            outcome => {
                tracing::debug!(tablet = %status.tablet, ?change, ?outcome, "not changed");
            }
        }
    }
    has_any
}
