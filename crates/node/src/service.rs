//! Takes what arrives from other nodes and hands it to whom it concerns. Every request is a task of its own;
//! past a limit they are refused.

use crate::clock;
use crate::core::Core;
use crate::fill;
use crate::follow;
use crate::liveness::Input;
use crate::repair;
use crate::replicas::Held;
use crate::rpc::{
    self, CONSENSUS, ENVELOPE, Envelope, Failure, GOSSIP, Reply, Request, Rpc, TIMED_CONSENSUS,
    Taken, split_timed,
};
use cluster::{Command, Effect, META, NodeProfile};
use consensus::Role;
use model::{ClusterId, Interval, NodeId, TabletId};
use quorum::ReplicaError;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use world::{Incoming, Network};

/// Requests of other nodes under way at one time.
const SERVED_AT_ONCE_MAX: usize = 8_192;
/// A request that is ahead of this node waits so long for the node to catch up.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(2);
const JOIN_PATIENCE: Duration = Duration::from_secs(5);

/// Receives until the network is shut down. Before the node has its core, only answers count.
pub(crate) async fn receive(
    network: Arc<dyn Network>,
    rpc: Arc<Rpc>,
    core: Arc<OnceLock<Weak<Core>>>,
) {
    let slots = Arc::new(Semaphore::new(SERVED_AT_ONCE_MAX));
    let mut taken = Taken::default();
    while let Some(incoming) = network.receive().await {
        let Some(tag) = incoming.message.first().copied() else {
            continue;
        };
        let body = incoming.message.slice(1..);
        let core = core.get().and_then(Weak::upgrade);
        match (tag, core) {
            (ENVELOPE, core) => match rpc::decode(&body) {
                Ok(envelope) => take(&rpc, core, (&slots, &mut taken), &incoming, envelope),
                Err(error) => {
                    tracing::warn!(from = %incoming.from.node, %error, "a message is not understood");
                }
            },
            (CONSENSUS, Some(core)) => core.groups.deliver(incoming.from.node, body),
            (TIMED_CONSENSUS, Some(core)) => {
                let Some((reading, frame)) = split_timed(body) else {
                    tracing::warn!(from = %incoming.from.node, "a frame is cut short");
                    continue;
                };
                // Before the frame is: what it may acknowledge must not be told by a clock that it shows to be wrong.
                core.clock.heard(incoming.from.node, reading, false);
                core.groups.deliver(incoming.from.node, frame);
            }
            (GOSSIP, Some(core)) => {
                // A full queue is a lost packet, which gossip expects.
                let _ = core.gossip.try_send(Input::Packet(body));
            }
            (CONSENSUS | TIMED_CONSENSUS | GOSSIP, None) => {}
            (tag, _) => tracing::warn!(from = %incoming.from.node, tag, "unknown kind of message"),
        }
    }
}

fn take(
    rpc: &Rpc,
    core: Option<Arc<Core>>,
    (slots, taken): (&Arc<Semaphore>, &mut Taken),
    incoming: &Incoming,
    envelope: Envelope,
) {
    let (from, address) = (incoming.from.node, incoming.address);
    match (envelope, core) {
        (Envelope::Reply { id, reply }, _) => rpc.answered(id, reply),
        (Envelope::Request { id, .. }, None) => {
            rpc.reply(address, id, Reply::Failed(Failure::NotServing));
        }
        (
            Envelope::Request {
                id,
                patience_ms,
                request,
            },
            Some(core),
        ) => {
            let is_stranger = incoming.from.cluster == ClusterId::default();
            if is_stranger && !matches!(request, Request::Join(_)) {
                rpc.reply(address, id, Reply::Failed(Failure::NotServing));
                return;
            }
            if !is_stranger && !taken.is_new(from, incoming.from.incarnation, id) {
                return;
            }
            let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
                core.metrics.shed.inc();
                rpc.reply(address, id, Reply::Failed(Failure::Overloaded));
                return;
            };
            core.metrics.served.inc();
            let tasks = Arc::clone(&core.tasks);
            tasks.spawn(async move {
                let reply = serve(&core, from, address, request, patience_ms).await;
                core.rpc.reply(address, id, reply);
                drop(slot);
            });
        }
        (
            Envelope::Beat {
                version,
                clock,
                led,
            },
            Some(core),
        ) => {
            if let Some(led) = led {
                core.led.hear(from, led);
            }
            heard(&core, from, address, version, clock);
        }
        (Envelope::Beat { .. }, None) => {}
    }
}

fn heard(
    core: &Arc<Core>,
    from: NodeId,
    address: SocketAddr,
    version: u64,
    clock: Option<Interval>,
) {
    if version > core.view().state.version() && !core.pulls.is_asked(address) {
        let core = Arc::clone(core);
        let tasks = Arc::clone(&core.tasks);
        tasks.spawn(async move {
            follow::pull(&core, address).await;
        });
    }
    core.clock.heard(from, clock, false);
}

async fn serve(
    core: &Arc<Core>,
    from: NodeId,
    address: SocketAddr,
    request: Request,
    patience_ms: u32,
) -> Reply {
    match request {
        Request::Join(profile) => join(core, profile).await,
        Request::Propose(proposal) => match follow::propose_here(core, &proposal).await {
            Ok(outcome) => Reply::Proposed(outcome),
            Err(leader) => Reply::NotLeader { leader },
        },
        Request::Pull { have } => {
            let view = core.view();
            let is_newer = view.state.version() > have;
            Reply::State(is_newer.then(|| view.state.to_bytes()))
        }
        Request::Reach { version } => {
            if version > core.view().state.version() {
                follow::pull(core, address).await;
            }
            let patience = Duration::from_millis(u64::from(patience_ms));
            let reaching = async {
                follow::reach(core, version, patience).await.is_ok() && {
                    core.replicas.reach(version).await;
                    true
                }
            };
            match timeout(patience, reaching).await {
                Ok(true) => Reply::Done,
                _ => Reply::Failed(Failure::NotServing),
            }
        }
        Request::Quorum(request) => Reply::Quorum(serve_quorum(core, address, request).await),
        Request::Batch(request) => match core.batches.handle(request).await {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(Failure::Other(error.to_string())),
        },
        Request::Traces => Reply::Traces(core.traces.all()),
        Request::Repair { tablet, from } => repair::step(core, tablet, &from).await,
        Request::Clock(poll) => clock::answer(core, from, poll).await,
        Request::Admit { tablet, member } => fill::admit(core, tablet, member).await,
        Request::Fill {
            tablet,
            replica,
            epoch,
            lost,
        } => fill::serve(core, tablet, replica, epoch.unwrap_or_default(), lost),
        Request::LetGo { tablet, replica } => fill::let_go(core, tablet, replica).await,
        Request::Campaign(tablets) => {
            for tablet in tablets {
                core.groups.campaign(tablet);
            }
            Reply::Done
        }
        Request::Door { door, question } => answer_at(core, &door, &question).await,
        request => serve_strong(core, from, address, request).await,
    }
}

async fn answer_at(core: &Core, door: &str, question: &[u8]) -> Reply {
    let peer = core.doors.lock().get(door).and_then(Weak::upgrade);
    match peer {
        Some(peer) if core.is_serving() => Reply::Door(peer.answer(question).await),
        _ => Reply::Failed(Failure::NotServing),
    }
}

async fn serve_strong(
    core: &Arc<Core>,
    from: NodeId,
    address: SocketAddr,
    request: Request,
) -> Reply {
    let absent = |tablet: TabletId| {
        tracing::debug!(%tablet, %from, "asked for a tablet that is not here");
        txn::TabletError::NotLeaseholder { hint: None }
    };
    match request {
        Request::Write(write) => {
            catch_up(core, address, write.schema, write.tablet, write.epoch).await;
            Reply::Written(match core.replicas.strong(write.tablet) {
                Some(strong) => strong.write(write).await,
                None => Err(absent(write.tablet)),
            })
        }
        Request::Read(read) => {
            catch_up(core, address, read.schema, read.tablet, read.epoch).await;
            Reply::Read(match core.replicas.strong(read.tablet) {
                Some(strong) => strong.read(read).await,
                None => Err(absent(read.tablet)),
            })
        }
        Request::Step(step) => {
            catch_up(core, address, step.schema, step.tablet, step.epoch).await;
            Reply::Stepped(match core.replicas.strong(step.tablet) {
                Some(strong) => strong.step(step).await,
                None => Err(absent(step.tablet)),
            })
        }
        request @ Request::Split { .. } => divide_here(core, request)
            .await
            .unwrap_or(Reply::Failed(Failure::NotServing)),
        _ => Reply::Failed(Failure::Other("the request has no meaning here".into())),
    }
}

/// Divides a tablet whose leaseholder should be here.
pub(crate) async fn divide_here(core: &Core, request: Request) -> Option<Reply> {
    let Request::Split { at, left, right } = request else {
        return None;
    };
    let strong = core.replicas.strong(left.id)?;
    let plan = txn::SplitPlan { at, left, right };
    Some(Reply::Divided(strong.split(plan).await))
}

/// Waits, not for long, until this node knows the catalog and the placement that a request was made with, and
/// says whether it does.
async fn catch_up(
    core: &Core,
    address: SocketAddr,
    schema: model::SchemaVersion,
    tablet: TabletId,
    epoch: model::PlacementEpoch,
) -> bool {
    let is_known = || {
        core.views.catalog().version >= schema
            && core
                .replicas
                .get(tablet)
                .is_some_and(|held| held.tablet.epoch >= epoch)
    };
    if is_known() {
        return true;
    }
    let mut versions = core.replicas.watch_version();
    let waiting = async {
        follow::pull(core, address).await;
        while !is_known() && versions.changed().await.is_ok() {}
    };
    let _ = timeout(CATCH_UP_PATIENCE, waiting).await;
    is_known()
}

async fn serve_quorum(
    core: &Arc<Core>,
    address: SocketAddr,
    request: quorum::Request,
) -> quorum::Reply {
    let schema = core.views.catalog().version;
    if !catch_up(core, address, schema, request.tablet, request.epoch).await
        && core.replicas.get(request.tablet).is_some()
    {
        // Who streams from here relies on this replica refusing older epochs from now on.
        let reason = "the tablet's placement is not known here yet";
        return quorum::Reply::Refused(ReplicaError::Overloaded(reason.into()));
    }
    match core.replica_of(request.tablet) {
        Ok(replica) => replica.handle(request).await,
        Err(error) => quorum::Reply::Refused(error),
    }
}

async fn join(core: &Arc<Core>, profile: NodeProfile) -> Reply {
    if !core.is_serving() {
        return Reply::Failed(Failure::NotServing);
    }
    match follow::execute(core, Command::Join { profile }, JOIN_PATIENCE).await {
        Ok(Ok(applied)) => {
            let joined = applied.effects.iter().find_map(|effect| match effect {
                Effect::NodeJoined(node) => Some(*node),
                _ => None,
            });
            let state = &core.view().state;
            match joined {
                Some(node) => Reply::Joined {
                    cluster: state.cluster(),
                    node,
                    state: state.to_bytes(),
                },
                None => Reply::Failed(Failure::Other("no node joined".into())),
            }
        }
        Ok(Err(refusal)) => Reply::Proposed(Err(refusal)),
        Err(_) => Reply::Failed(Failure::NotServing),
    }
}

/// Who leads a tablet's group, as this node knows; for the meta group and strong tablets.
pub(crate) fn leader_of(core: &Core, tablet: TabletId) -> Option<NodeId> {
    if let Some(status) = core.groups.status(tablet) {
        return match status.role {
            Role::Leader => Some(core.node),
            _ => status.leader.map(|leader| leader.node),
        };
    }
    match tablet {
        META => *core.meta_leader.lock(),
        tablet => core.hint(tablet),
    }
}

/// The leaseholder of a strong tablet, where its replica here knows.
pub(crate) fn leaseholder_of(core: &Core, tablet: &cluster::Tablet) -> Option<NodeId> {
    let held = core.replicas.get(tablet.id)?;
    let Held::Strong(strong) = &held.held else {
        return None;
    };
    let status = strong.status();
    if status.is_leaseholder {
        return Some(core.node);
    }
    let holder = status.lease?.holder;
    tablet.replica(holder).map(|replica| replica.node)
}
