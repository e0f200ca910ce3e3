//! Asks the other nodes about their clocks, answers them, and draws the consequences on this node: a node whose clock
//! cannot be relied on gives up its leases and leads nothing that others could lead.

use super::keeping::Surroundings;
use super::reference::{Claim, Claimant, Grant, Local};
use crate::core::Core;
use crate::replicas::Held;
use crate::rpc::{ClockAnswer, ClockPoll, Reply, Request};
use crate::service::leader_of;
use cluster::META;
use consensus::Role;
use model::{NodeId, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use world::Clock;

/// How often peers are asked while there is a reading, while there is none, and at most.
const INTERVAL: Duration = Duration::from_millis(250);
const INTERVAL_WITHOUT: Duration = Duration::from_millis(50);
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// A slower answer says little about a clock.
const PATIENCE: Duration = Duration::from_millis(500);
/// A start waits so long for a reading, so that the first requests are not refused for want of one.
const SETTLE_PATIENCE: Duration = Duration::from_secs(3);
const RELEASE_PATIENCE: Duration = Duration::from_millis(200);
/// No reading for so long is something that an operator should look at.
const SILENCE_MAX: Duration = Duration::from_secs(5);

pub(crate) async fn run(core: Arc<Core>) {
    let mut was_fenced = false;
    let mut read_last = Instant::now();
    loop {
        round(&core).await;
        let reading = core.clock.now();
        let fenced = core.clock.fenced();
        if fenced.is_none() && was_fenced {
            tracing::info!("this node's clock is well again: the fence is down");
        }
        was_fenced = fenced.is_some();
        if reading.is_ok() {
            read_last = Instant::now();
        }
        let error = reading.as_ref().err().map(ToString::to_string);
        let is_overdue = was_fenced || read_last.elapsed() >= SILENCE_MAX;
        core.complain("clock", error.filter(|_| is_overdue));
        if was_fenced {
            hand_over(&core).await;
        }
        let interval = match reading.is_ok() || was_fenced {
            true => INTERVAL,
            false => INTERVAL_WITHOUT,
        };
        sleep(INTERVAL_MIN).await;
        let _ = timeout(interval - INTERVAL_MIN, core.clock.doubt.notified()).await;
    }
}

/// Waits, not for long, until this node can tell the time.
pub(crate) async fn settle(core: &Core) {
    let reading = async {
        while core.clock.now().is_err() {
            sleep(INTERVAL_MIN).await;
        }
    };
    let _ = timeout(SETTLE_PATIENCE, reading).await;
}

async fn round(core: &Arc<Core>) {
    let surroundings = surroundings(core);
    let (round, asked) = core.clock.round(&surroundings);
    if let Some(floor) = round.floor {
        put_floor(core, floor).await;
    }
    for peer in &surroundings.members {
        let complaint = core
            .clock
            .is_contradicted_by(*peer)
            .then(|| "it contradicts this node's: look at both machines' time".to_owned());
        core.complain(&format!("clock of {peer}"), complaint);
    }
    for peer in round.peers {
        core.tasks
            .spawn(exchange(Arc::clone(core), peer, round.claim, asked));
    }
    if let Some(claim) = round.claim
        && let Some(grant) = consider(core, core.clock.claimant(), claim).await
    {
        core.clock.granted_by(core.node, (claim, asked), grant);
    }
}

fn surroundings(core: &Core) -> Surroundings {
    let meta = core.groups.status(META);
    let leads = meta.as_ref().is_some_and(|meta| meta.role == Role::Leader);
    let members = meta.map(|meta| meta.members).unwrap_or_default();
    Surroundings {
        leads,
        leader: leader_of(core, META),
        voters: members
            .iter()
            .filter(|member| leads && !member.is_learner)
            .map(|member| member.node)
            .collect(),
        members: core.view().state.members().map(|node| node.id).collect(),
    }
}

/// One question and its answer. `asked` is from before the claim was made.
async fn exchange(core: Arc<Core>, peer: NodeId, claim: Option<Claim>, asked: Local) {
    let (began, poll) = core.clock.ask(peer, claim);
    let request = Request::Clock(poll.clone());
    if let Ok(Reply::Clock(answer)) = core.call(peer, request, PATIENCE).await {
        core.clock.answered(peer, (began, &poll), asked, &answer);
    }
}

/// What a peer is told.
pub(crate) async fn answer(core: &Core, from: NodeId, poll: ClockPoll) -> Reply {
    let received = core.clock.raw();
    core.clock.heard(from, poll.reading, poll.accuses);
    let grant = match poll.claim {
        Some(claim) => {
            let life = poll.life;
            consider(core, Claimant { node: from, life }, claim).await
        }
        None => None,
    };
    let master = core.clock.master().or_else(|| leader_of(core, META));
    let authority_micros = core.clock.authority_micros();
    Reply::Clock(ClockAnswer {
        received,
        sent: core.clock.raw(),
        authority_micros,
        master,
        grant,
    })
}

/// What this node, as a voter, thinks of a claim. What it must not forget is on disk before anybody hears of it.
async fn consider(core: &Core, from: Claimant, claim: Claim) -> Option<Grant> {
    // Only who takes part in the meta group hears of its elections.
    let leader = core.groups.status(META).and_then(|meta| meta.leader);
    let leader = leader.map(|leader| leader.node);
    let considered = core.clock.consider(from, claim, leader)?;
    if let Some(floor) = considered.floor
        && !put_floor(core, floor).await
    {
        return None;
    }
    Some(considered.grant)
}

async fn put_floor(core: &Core, floor: Timestamp) -> bool {
    match core.records.put_clock_floor(floor).await {
        Ok(()) => {
            core.clock.set_floor(floor);
            true
        }
        Err(error) => {
            tracing::error!(%error, "cluster time cannot be recorded");
            false
        }
    }
}

/// A fenced node gives up its leases, and leads no group that another node could lead.
async fn hand_over(core: &Core) {
    let held = core.replicas.all();
    let releasing = held.values().filter_map(|held| match &held.held {
        Held::Strong(strong) => Some(strong.release()),
        Held::Eventual(_) => None,
    });
    let _ = timeout(RELEASE_PATIENCE, futures::future::join_all(releasing)).await;
    for status in core.groups.statuses() {
        let heir = status.members.iter().find(|member| {
            member.node != core.node && !member.is_learner && core.views.is_alive(member.node)
        });
        if let (Role::Leader, Some(heir)) = (status.role, heir) {
            core.groups.transfer_leadership(status.tablet, heir.replica);
        }
    }
}
