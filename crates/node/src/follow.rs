//! Following the meta group: replicas of it hear of changes as they apply them, everybody else pulls them when
//! somebody's beat shows a newer version. Proposals go to its leader, wherever that is.

use crate::core::Core;
use crate::leases;
use crate::meta::Outcome;
use crate::rpc::{Reply, Request};
use cluster::{Applied, Command, META, Proposal, ProposalId, Refusal, State};
use consensus::{ProposeError, Role};
use model::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const PULL_PATIENCE: Duration = Duration::from_secs(2);
const PROPOSE_PATIENCE: Duration = Duration::from_secs(3);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const BEAT_INTERVAL: Duration = Duration::from_millis(500);
/// Nodes that one round of beats goes to.
const BEAT_NODES: usize = 4;

/// How often a state that changes is kept for the next start, at most, and how soon that is durable.
const REMEMBER_INTERVAL: Duration = Duration::from_millis(200);
const REMEMBER_WITHIN_MS: u32 = 100;
/// So much of it is written, on average.
const REMEMBERED_BYTES_PER_MS: u64 = 200;

/// Why a proposal has no outcome. It may yet be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the meta group did not answer in time")]
pub(crate) struct NoAnswer;

/// Proposes a command, repeating it until it has an outcome or the patience is over. Repeats are recognized by
/// the proposal's id, so it is accepted at most once.
pub(crate) async fn propose(
    core: &Core,
    command: Command,
    patience: Duration,
) -> Result<Outcome, NoAnswer> {
    let deadline = Instant::now() + patience;
    let proposal = Proposal {
        id: ProposalId {
            node: core.node,
            incarnation: core.incarnation,
            sequence: core.next_request().0,
        },
        command,
    };
    let mut attempt = 0;
    loop {
        if core.is_stopping() && attempt > 0 {
            return Err(NoAnswer);
        }
        if let Some(outcome) = attempt_proposal(core, &proposal, attempt).await {
            return Ok(outcome);
        }
        if Instant::now() >= deadline {
            return Err(NoAnswer);
        }
        attempt += 1;
        sleep(RETRY_PAUSE).await;
    }
}

async fn attempt_proposal(core: &Core, proposal: &Proposal, attempt: usize) -> Option<Outcome> {
    if let Some(status) = core.groups.status(META) {
        // Whom the group has let go of hears nothing of later leaders.
        let mut members = status.members.iter();
        if members.any(|member| member.replica == status.replica) {
            *core.meta_leader.lock() = status.leader.map(|leader| leader.node);
        }
        if status.role == Role::Leader {
            return propose_here(core, proposal).await.ok();
        }
    }
    let known = *core.meta_leader.lock();
    let to = match known {
        Some(leader) if leader != core.node && attempt.is_multiple_of(2) => {
            core.view().address(leader)?
        }
        _ => *meta_addresses(core).get(attempt % meta_addresses(core).len().max(1))?,
    };
    let request = Request::Propose(proposal.clone());
    match core.rpc.call(to, request, PROPOSE_PATIENCE).await {
        Ok(Reply::Proposed(outcome)) => Some(outcome),
        Ok(Reply::NotLeader { leader }) => {
            *core.meta_leader.lock() = leader;
            None
        }
        _ => {
            *core.meta_leader.lock() = None;
            None
        }
    }
}

/// Where other replicas of the meta group may be reached, those first that are alive; before any state is known, where peers last were.
fn meta_addresses(core: &Core) -> Vec<SocketAddr> {
    let view = core.view();
    let replicas = view.state.tablet(META).map(|meta| meta.replicas.clone());
    let mut replicas = replicas.unwrap_or_default();
    // Whoever is dead is silent for as long as it is waited for.
    replicas.sort_by_key(|replica| !core.views.is_alive(replica.node));
    let mut addresses: Vec<SocketAddr> = replicas
        .iter()
        .filter(|replica| replica.node != core.node)
        .filter_map(|replica| view.address(replica.node))
        .collect();
    if addresses.is_empty() {
        let known = core.records.peers();
        addresses.extend(
            known
                .iter()
                .filter_map(|peer| peer.parse::<SocketAddr>().ok()),
        );
        addresses.extend(&core.config.join);
    }
    addresses
}

/// Proposes to this node's replica. `Err` is the leader as far as it is known, when this is not it or lost it.
pub(crate) async fn propose_here(
    core: &Core,
    proposal: &Proposal,
) -> Result<Outcome, Option<NodeId>> {
    let command = minicbor::to_vec(proposal).expect("encoding to memory does not fail");
    let proposed = core.groups.propose(META, command);
    match timeout(PROPOSE_PATIENCE, proposed).await {
        Ok(Ok(done)) => minicbor::decode(&done.result).map_err(|error| {
            tracing::error!(%error, "the meta group's answer is malformed");
            None
        }),
        Ok(Err(ProposeError::NotLeader { leader })) => Err(leader.map(|leader| leader.node)),
        _ => Err(None),
    }
}

/// Proposes, and waits until this node has the state that holds the command.
pub(crate) async fn execute(
    core: &Core,
    command: Command,
    patience: Duration,
) -> Result<Result<Applied, Refusal>, NoAnswer> {
    let deadline = Instant::now() + patience;
    let outcome = propose(core, command, patience).await?;
    if let Ok(applied) = &outcome {
        let remaining = deadline.saturating_duration_since(Instant::now());
        reach(core, applied.version, remaining.max(RETRY_PAUSE)).await?;
    }
    Ok(outcome)
}

/// Waits until this node has a version of the state, asking for it where it does not come by itself.
pub(crate) async fn reach(core: &Core, version: u64, patience: Duration) -> Result<(), NoAnswer> {
    let deadline = Instant::now() + patience;
    let mut versions = core.views.watch_version();
    let mut attempt = 0;
    if core.view().state.version() < version && core.groups.status(META).is_some() {
        // A replica of the meta group hears of it soon, by itself.
        let _ = timeout(RETRY_PAUSE, versions.changed()).await;
    }
    while core.view().state.version() < version {
        let addresses = meta_addresses(core);
        if let Some(from) = addresses.get(attempt % addresses.len().max(1)) {
            pull(core, *from).await;
        }
        attempt += 1;
        if core.view().state.version() >= version {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(NoAnswer);
        }
        let _ = timeout(RETRY_PAUSE, versions.changed()).await;
    }
    Ok(())
}

/// Pulls of the meta group's state: one at a time from a node, so that who is silent keeps nobody from asking another.
#[derive(Default)]
pub(crate) struct Pulls {
    by_address: Mutex<BTreeMap<SocketAddr, Arc<tokio::sync::Mutex<()>>>>,
}

impl Pulls {
    fn from(&self, address: SocketAddr) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.by_address.lock().entry(address).or_default())
    }

    pub fn is_asked(&self, address: SocketAddr) -> bool {
        self.from(address).try_lock().is_err()
    }
}

/// Asks a node for a newer state. Says whether it answered, or a newer one came meanwhile.
pub(crate) async fn pull(core: &Core, from: SocketAddr) -> bool {
    let known = core.view().state.version();
    let pulls = core.pulls.from(from);
    let _one_at_a_time = pulls.lock().await;
    let have = core.view().state.version();
    if have > known {
        return true;
    }
    let answer = core
        .rpc
        .call(from, Request::Pull { have }, PULL_PATIENCE)
        .await;
    match answer {
        Ok(Reply::State(Some(bytes))) => match State::from_bytes(&bytes) {
            Ok(state) => core.views.publish(Arc::new(state)),
            Err(error) => tracing::error!(%from, %error, "a peer's state is malformed"),
        },
        Ok(Reply::State(None)) => {}
        _ => return false,
    }
    true
}

/// Before this node knows anything: asks everybody it may know until somebody answers with a state.
pub(crate) async fn pull_first(core: &Core) {
    while core.view().state.version() == 0 {
        for from in meta_addresses(core) {
            if pull(core, from).await && core.view().state.version() > 0 {
                return;
            }
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Tells others which version this node has: a few now and then, and everybody at once when the leader of the
/// meta group has a new one.
pub(crate) async fn beat(core: Arc<Core>) {
    let mut versions = core.views.watch_version();
    let mut turn = 0;
    loop {
        let is_new = tokio::select! {
            biased;
            changed = versions.changed() => {
                if changed.is_err() {
                    return;
                }
                true
            }
            () = sleep(BEAT_INTERVAL) => false,
        };
        let view = core.view();
        let version = view.state.version();
        let clock = core.clock.raw();
        let led = leases::led_here(&core);
        let others: Vec<SocketAddr> = view
            .addresses()
            .iter()
            .filter(|(node, _)| **node != core.node)
            .map(|(_, address)| *address)
            .collect();
        let count = if is_new && *core.leads_meta.borrow() {
            others.len()
        } else {
            others.len().min(BEAT_NODES)
        };
        for offset in 0..count {
            core.rpc
                .beat(others[(turn + offset) % others.len()], version, clock, led);
        }
        turn = turn.wrapping_add(count);
    }
}

/// Keeps the state for the next start, in case that nobody can be asked for it then: now and then while it changes, the
/// rarer the larger it is.
pub(crate) async fn remember_state(core: Arc<Core>) {
    let mut versions = core.views.watch_version();
    loop {
        versions.borrow_and_update();
        let state = core.view().state.to_bytes();
        let pause = Duration::from_millis(state.len() as u64 / REMEMBERED_BYTES_PER_MS);
        core.records.put_state_later(state, REMEMBER_WITHIN_MS);
        sleep(pause.max(REMEMBER_INTERVAL)).await;
        if versions.changed().await.is_err() {
            return;
        }
    }
}

/// Takes up the state that was kept in a former life, if this node has none that is newer.
pub(crate) fn recall_state(core: &Core) {
    let Some(bytes) = core.records.state() else {
        return;
    };
    match State::from_bytes(&bytes) {
        Ok(state) => core.views.publish(Arc::new(state)),
        Err(error) => tracing::error!(%error, "the state that was kept is malformed"),
    }
}

/// Keeps the addresses of peers for the next start.
pub(crate) async fn remember_peers(core: Arc<Core>) {
    let mut versions = core.views.watch_version();
    let mut known = core.records.peers();
    loop {
        let view = core.view();
        let peers: Vec<String> = view
            .state
            .members()
            .filter(|node| node.id != core.node)
            .map(|node| node.profile.internode.clone())
            .collect();
        if peers != known {
            match core.records.put_peers(&peers).await {
                Ok(()) => known = peers,
                Err(error) => {
                    tracing::error!(%error, "peers' addresses cannot be kept");
                    return;
                }
            }
        }
        if versions.changed().await.is_err() {
            return;
        }
    }
}
