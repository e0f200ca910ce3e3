//! How a node comes to life: it founds a cluster, joins one, or returns to its own.

use crate::StartError;
use crate::clock::{self, NodeClock};
use crate::config::Config;
use crate::core::{Core, Parts};
use crate::follow;
use crate::gateway::Gateway;
use crate::identity::{Identity, Records, draw_16};
use crate::leases;
use crate::liveness;
use crate::mend;
use crate::peers::NodePeers;
use crate::placement;
use crate::replicas;
use crate::rpc::{Reply, Request, Rpc, timed_frame};
use crate::service;
use crate::split;
use crate::tasks::Tasks;
use crate::transactions;
use crate::upkeep;
use crate::view::Views;
use bytes::Bytes;
use cluster::{Command, NodeProfile, Refusal, State};
use consensus::{Groups, Member, Origin, Outbound};
use model::{ClusterId, Incarnation, NodeId, ReplicaId};
use quorum::Coordinator;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use world::{Clock, World};

/// The internode protocol's versions that this node speaks.
const VERSION: u32 = 1;
const JOIN_PATIENCE: Duration = Duration::from_secs(3);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const REGISTER_PATIENCE: Duration = Duration::from_secs(5);
/// After so long without a quorum of the meta group a node that was a member before serves without it.
const ALONE_AFTER: Duration = Duration::from_secs(3);
/// What it complains about then.
const ALONE: &str = "meta group";
/// The meta group's replica on the founding node.
const FIRST_REPLICA: ReplicaId = ReplicaId(1);

struct Frames {
    rpc: Arc<Rpc>,
    views: Arc<Views>,
    clock: Arc<NodeClock>,
}

impl Outbound for Frames {
    fn send(&self, to: NodeId, frame: Bytes) {
        if let Some(address) = self.views.current().address(to) {
            self.rpc
                .send(address, timed_frame(self.clock.raw(), &frame));
        }
    }
}

/// Stops the tasks of a start that does not come to its end, and of a node that nobody holds any more.
pub(crate) struct Stop {
    tasks: Arc<Tasks>,
    rpc: Arc<Rpc>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.rpc.stop();
        self.tasks.stop();
    }
}

pub(crate) struct Started {
    pub core: Arc<Core>,
    pub gateway: Arc<Gateway>,
    pub stop: Stop,
}

pub(crate) async fn start(mut world: World, config: Config) -> Result<Started, StartError> {
    let tasks = Arc::new(Tasks::new());
    let rpc = Arc::new(Rpc::new(
        Arc::clone(&world.network),
        world.random.next_u64(),
    ));
    let stop = Stop {
        tasks: Arc::clone(&tasks),
        rpc: Arc::clone(&rpc),
    };
    let core_cell: Arc<OnceLock<Weak<Core>>> = Arc::default();
    tasks.spawn(service::receive(
        Arc::clone(&world.network),
        Arc::clone(&rpc),
        Arc::clone(&core_cell),
    ));
    let views = Arc::new(Views::new());
    let records = Records::new(Arc::clone(&world.log));
    let (identity, profile) = identify(&world, &config, &records, &rpc, &views).await?;
    views.set_this_node(identity.node);
    let clock = Arc::new(NodeClock::new(
        Arc::clone(&world.clock),
        (identity.node, identity.incarnation),
        records.clock_floor(),
    ));
    world.clock = Arc::clone(&clock) as Arc<dyn Clock>;

    let mut consensus = consensus::Config::new(identity.node, world.random.next_u64());
    if config.log_entries_kept > 0 {
        consensus.log_entries_kept = config.log_entries_kept;
    }
    let (groups, driver) = Groups::new(
        Arc::clone(&world.log),
        Arc::new(Frames {
            rpc: Arc::clone(&rpc),
            views: Arc::clone(&views),
            clock: Arc::clone(&clock),
        }),
        consensus,
    );
    let (gossip, packets) = mpsc::channel(liveness::PACKETS_MAX);
    let core = Arc::new(Core::new(Parts {
        world,
        clock,
        config,
        node: identity.node,
        incarnation: identity.incarnation,
        profile,
        rpc,
        views,
        tasks: Arc::clone(&tasks),
        groups,
        gossip,
        leads_meta: watch::Sender::new(false),
    }));
    // The only holders are the node and its tasks, which end with it.
    let _ = core_cell.set(Arc::downgrade(&core));
    tasks.spawn(driver.run());
    tasks.spawn(liveness::run(Arc::clone(&core), packets));
    tasks.spawn(clock::run(Arc::clone(&core)));
    return_to_cluster(&core, identity).await?;
    tasks.spawn(follow::beat(Arc::clone(&core)));
    tasks.spawn(follow::remember_peers(Arc::clone(&core)));
    tasks.spawn(follow::remember_state(Arc::clone(&core)));
    let version = core.view().state.version();
    tasks.spawn(replicas::reconcile(Arc::clone(&core)));
    core.replicas.reach(version).await;
    tasks.spawn(placement::run(Arc::clone(&core)));
    tasks.spawn(leases::balance(Arc::clone(&core)));
    tasks.spawn(transactions::run(Arc::clone(&core)));
    tasks.spawn(split::watch_sizes(Arc::clone(&core)));

    let timestamps = Arc::new(quorum::Gateway::new(
        Arc::clone(&core.world.clock),
        core.incarnation,
    ));
    let peers = Arc::new(NodePeers::new(&core));
    let coordinator = Coordinator::new(
        peers,
        timestamps,
        Arc::clone(&core.missed),
        Arc::clone(&core.batches),
        Arc::clone(&core.speeds),
    );
    tasks.spawn(coordinator.clone().replay_hints());
    tasks.spawn(coordinator.clone().replay_batches());
    tasks.spawn(upkeep::run(Arc::clone(&core)));
    tasks.spawn(mend::run(Arc::clone(&core)));
    let gateway = Gateway::new(&core, coordinator);
    liveness::settle(&core).await;
    clock::settle(&core).await;
    core.set_serving();
    Ok(Started {
        core,
        gateway,
        stop,
    })
}

fn profile(world: &World, config: &Config, host_id: [u8; 16]) -> NodeProfile {
    NodeProfile {
        host_id,
        internode: world.network.local_address().to_string(),
        client_address: config.client_address.to_string(),
        cql_port: config.cql_port,
        dynamo_port: config.dynamo_port,
        spanner_port: config.spanner_port,
        admin_port: config.admin_port,
        data_center: config.data_center.clone(),
        rack: config.rack.clone(),
        version: config.version.clone(),
    }
}

/// Finds out who this node is, and makes its new incarnation durable.
async fn identify(
    world: &World,
    config: &Config,
    records: &Records,
    rpc: &Arc<Rpc>,
    views: &Views,
) -> Result<(Identity, NodeProfile), StartError> {
    let known = records
        .identity()
        .map_err(|error| StartError::Identity(error.to_string()))?;
    let mut identity = match known {
        Some(identity) => identity,
        None => {
            let fresh = Identity {
                host_id: draw_16(world.random.as_ref()),
                cluster: ClusterId::default(),
                node: NodeId(0),
                incarnation: Incarnation(0),
                meta_replica: None,
                is_founder: false,
            };
            // Before anybody hears of it: a host that asks twice gets one id.
            records.put_identity(&fresh).await?;
            fresh
        }
    };
    let profile = profile(world, config, identity.host_id);
    introduce(world, &identity);
    if identity.node == NodeId(0) {
        if config.join.is_empty() {
            identity.cluster = ClusterId(draw_16(world.random.as_ref()));
            identity.node = NodeId(1);
            identity.meta_replica = Some(FIRST_REPLICA);
            identity.is_founder = true;
        } else {
            let (cluster, node) = join(rpc, config, &profile, views).await?;
            identity.cluster = cluster;
            identity.node = node;
        }
    }
    identity.incarnation = Incarnation(identity.incarnation.0 + 1);
    records.put_identity(&identity).await?;
    introduce(world, &identity);
    Ok((identity, profile))
}

/// Says to the network who this node is.
fn introduce(world: &World, identity: &Identity) {
    world.network.identify(world::Identity {
        cluster: identity.cluster,
        node: identity.node,
        incarnation: identity.incarnation,
        version_min: VERSION,
        version_max: VERSION,
        advertised: world.network.local_address().to_string(),
    });
}

/// Asks the given addresses in turn, for as long as it takes.
async fn join(
    rpc: &Rpc,
    config: &Config,
    profile: &NodeProfile,
    views: &Views,
) -> Result<(ClusterId, NodeId), StartError> {
    loop {
        for address in &config.join {
            let request = Request::Join(profile.clone());
            match rpc.call(*address, request, JOIN_PATIENCE).await {
                Ok(Reply::Joined {
                    cluster,
                    node,
                    state,
                }) => {
                    match State::from_bytes(&state) {
                        Ok(state) => views.publish(Arc::new(state)),
                        Err(error) => return Err(StartError::Identity(error.to_string())),
                    }
                    return Ok((cluster, node));
                }
                Ok(Reply::Proposed(Err(refusal))) => return Err(StartError::Refused(refusal)),
                outcome => tracing::debug!(%address, ?outcome, "not joined yet"),
            }
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Registers this start with the meta group. Where that has no quorum that can be reached, a node that was a member before
/// does not wait for it for long: it knows what it held, and eventual tables ask for no more. It registers when it can.
async fn return_to_cluster(core: &Arc<Core>, identity: Identity) -> Result<(), StartError> {
    let is_new = identity.incarnation == Incarnation(1);
    let (sender, mut registered) = oneshot::channel();
    let registering = Arc::clone(core);
    core.tasks.spawn(async move {
        let outcome = register(&registering, &identity).await;
        if outcome.is_ok() {
            replicas::remove_strays(&registering).await;
            registering.is_registered.send_replace(true);
            registering.complain(ALONE, None);
        }
        if let Err(Err(error)) = sender.send(outcome) {
            tracing::error!(%error, "this node stops: the cluster does not take it back");
            registering.stop();
        }
    });
    let mut versions = core.views.watch_version();
    let stopped = |_| StartError::Meta;
    if is_new {
        return registered.await.map_err(stopped)?;
    }
    if let Ok(outcome) = timeout(ALONE_AFTER, &mut registered).await {
        return outcome.map_err(stopped)?;
    }
    follow::recall_state(core);
    tokio::select! {
        biased;
        outcome = registered => outcome.map_err(stopped)?,
        _ = versions.wait_for(|version| *version > 0) => {
            let complaint = "no quorum of it can be reached: this node serves what it held of eventual tables, no more";
            core.complain(ALONE, Some(complaint.into()));
            Ok(())
        }
    }
}

/// Opens the meta group, where this node has a replica of it, and registers the incarnation. When it returns,
/// this node has a state that is at least as new as its start.
async fn register(core: &Arc<Core>, identity: &Identity) -> Result<(), StartError> {
    if let Some(replica) = identity.meta_replica {
        let origin = if identity.is_founder && replica == FIRST_REPLICA {
            Origin::Founded(vec![Member {
                replica,
                node: identity.node,
                is_learner: false,
            }])
        } else {
            Origin::Joining
        };
        if !replicas::create_meta(core, replica, origin).await {
            return Err(StartError::Meta);
        }
        core.groups.campaign(cluster::META);
    } else {
        follow::pull_first(core).await;
    }
    let is_unfounded = identity.is_founder && core.view().state.version() == 0;
    let command = if is_unfounded {
        Command::Found {
            cluster: identity.cluster,
            name: core.config.cluster_name.clone(),
            replication_factor: core.config.replication_factor,
            incarnation: identity.incarnation,
            profile: core.profile.clone(),
        }
    } else {
        Command::Start {
            node: identity.node,
            incarnation: identity.incarnation,
            profile: core.profile.clone(),
        }
    };
    let mut command = command;
    // An earlier proposal of this very start has no outcome.
    let mut is_in_doubt = false;
    loop {
        match follow::execute(core, command.clone(), REGISTER_PATIENCE).await {
            Ok(Ok(_)) => return Ok(()),
            // The state was behind its log: the cluster had been founded in a former life.
            Ok(Err(Refusal::AlreadyFounded)) => {
                command = Command::Start {
                    node: identity.node,
                    incarnation: identity.incarnation,
                    profile: core.profile.clone(),
                };
            }
            // This very start, registered by a proposal whose answer was lost. Without one, it is a disk that was
            // copied before the last start.
            Ok(Err(Refusal::OldIncarnation { theirs, known, .. }))
                if theirs == known && is_in_doubt =>
            {
                return Ok(());
            }
            Ok(Err(refusal)) => return Err(StartError::Refused(refusal)),
            Err(_) => {
                is_in_doubt = true;
                tracing::info!("waiting for a quorum of the meta group");
            }
        }
    }
}
