//! The replicas that this node holds, brought in line with the tablet map: opened, told of new placements,
//! closed and removed. Every step can be repeated.

use crate::core::Core;
use crate::fill::Streams;
use crate::identity::Identity;
use crate::mend;
use crate::meta::MetaMachine;
use crate::others::NodeOthers;
use crate::peers::NodePeers;
use cluster::{META, Replica, Split, State, Tablet};
use consensus::{GroupSpec, Member, Origin};
use model::{ReplicaId, TabletId};
use parking_lot::RwLock;
use quorum::{EventualReplica, ReplicaConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;
use txn::{Seeded, StrongTablet, TabletSpec};
use world::planted::{self, Bug};
use world::watch;
use world::{LogBatch, LogId, LogOperation};

/// What failed is tried again so often.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// A replica that is to be made from one that is not as far is tried again so often.
const SEED_INTERVAL: Duration = Duration::from_millis(50);
/// Replicas opened at one time.
const OPEN_AT_ONCE: usize = 64;

#[derive(Clone)]
pub(crate) enum Held {
    Strong(StrongTablet),
    Eventual(Arc<EventualReplica>),
}

pub(crate) struct HeldReplica {
    pub replica: ReplicaId,
    /// As this replica was last told.
    pub tablet: Arc<Tablet>,
    pub held: Held,
}

pub(crate) struct Replicas {
    held: RwLock<Arc<BTreeMap<TabletId, Arc<HeldReplica>>>>,
    /// The version of the state that this node's replicas are in line with.
    version: watch::Sender<u64>,
    /// Wakes who opens replicas, when one has been closed that is to be opened anew.
    reopening: Notify,
    pub streams: Streams,
}

impl Replicas {
    pub fn new() -> Replicas {
        Replicas {
            held: RwLock::default(),
            version: watch::Sender::new(0),
            reopening: Notify::new(),
            streams: Streams::default(),
        }
    }

    pub fn all(&self) -> Arc<BTreeMap<TabletId, Arc<HeldReplica>>> {
        Arc::clone(&self.held.read())
    }

    pub fn get(&self, tablet: TabletId) -> Option<Arc<HeldReplica>> {
        self.held.read().get(&tablet).cloned()
    }

    pub fn strong(&self, tablet: TabletId) -> Option<StrongTablet> {
        match &self.held.read().get(&tablet)?.held {
            Held::Strong(strong) => Some(strong.clone()),
            Held::Eventual(_) => None,
        }
    }

    pub fn eventual(&self, tablet: TabletId) -> Option<Arc<EventualReplica>> {
        match &self.held.read().get(&tablet)?.held {
            Held::Strong(_) => None,
            Held::Eventual(replica) => Some(Arc::clone(replica)),
        }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<TabletId, Arc<HeldReplica>>)) {
        let mut held = self.held.write();
        let mut map = held.as_ref().clone();
        change(&mut map);
        *held = Arc::new(map);
    }

    /// Lets go of a replica that has stopped, so that it is opened from what it has on disk.
    pub fn open_anew(&self, tablet: TabletId, replica: ReplicaId) {
        self.change(|map| {
            if map.get(&tablet).is_some_and(|held| held.replica == replica) {
                map.remove(&tablet);
            }
        });
        self.reopening.notify_one();
    }

    pub fn watch_version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Waits until this node's replicas are in line with a version of the state.
    pub async fn reach(&self, version: u64) {
        let mut versions = self.watch_version();
        let _ = versions.wait_for(|known| *known >= version).await;
    }
}

/// Follows the tablet map for as long as the node lives.
pub(crate) async fn reconcile(core: Arc<Core>) {
    let mut versions = core.views.watch_version();
    let mut registered = core.is_registered.subscribe();
    loop {
        versions.borrow_and_update();
        let is_registered = *registered.borrow_and_update();
        let state = Arc::clone(&core.view().state);
        let opened = match is_registered {
            true => bring_in_line(&core, &state).await,
            false => open_known(&core, &state).await,
        };
        match opened {
            Opened::Open => {
                core.replicas.version.send_replace(state.version());
                let changed = tokio::select! {
                    biased;
                    changed = versions.changed() => changed.is_ok(),
                    changed = registered.changed(), if !is_registered => changed.is_ok(),
                    () = core.replicas.reopening.notified() => true,
                };
                if !changed {
                    return;
                }
            }
            Opened::Waits => {
                let _ = timeout(SEED_INTERVAL, versions.changed()).await;
            }
            Opened::Failed => {
                let _ = timeout(RETRY_INTERVAL, versions.changed()).await;
            }
        }
    }
}

/// How an attempt to open replicas has ended, from good to bad.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Opened {
    Open,
    /// It is to be made from a replica here that is not as far yet.
    Waits,
    Failed,
}

/// While the meta group does not know of this start, its state here may be older than what this node did before it: so
/// nothing is begun, and nothing ended. What is there of eventual replicas goes on, by the placement that it remembers.
async fn open_known(core: &Arc<Core>, state: &State) -> Opened {
    let mut outcome = Opened::Open;
    for tablet in state.tablets().values() {
        let table = state.catalog().table(tablet.root);
        let Some(replica) = tablet.replica_on(core.node) else {
            continue;
        };
        if tablet.id == META || table.is_none_or(|table| table.is_strong()) {
            continue;
        }
        match core.replicas.get(tablet.id) {
            Some(held) if held.replica == replica.id && held.tablet.epoch != tablet.epoch => {
                tell(core, &held, tablet);
            }
            Some(_) => {}
            None if has_store(core, *replica) == Ok(true) => {
                outcome = outcome.max(open(core, state, tablet, *replica).await);
            }
            None => {}
        }
    }
    outcome
}

async fn bring_in_line(core: &Arc<Core>, state: &State) -> Opened {
    let mut outcome = Opened::Open;
    if let Some(meta) = state.tablet(META)
        && let Some(replica) = meta.replica_on(core.node)
        && core.groups.status(META).is_none()
        && !join_meta(core, *replica).await
    {
        outcome = Opened::Failed;
    }
    leave_meta(core, state).await;
    let is_removed = state
        .node(core.node)
        .is_some_and(|node| node.status == cluster::NodeStatus::Removed);
    let complaint = is_removed.then(|| "this node was removed from the cluster: stop it".into());
    core.complain("membership", complaint);
    let mut missing: Vec<(Arc<Tablet>, Replica)> = Vec::new();
    let tablets = state.tablets().values().chain(state.dropped().values());
    for tablet in tablets.filter(|tablet| tablet.id != META) {
        let Some(replica) = tablet.replica_on(core.node) else {
            continue;
        };
        match core.replicas.get(tablet.id) {
            Some(held) if held.replica == replica.id => {
                if held.tablet.epoch != tablet.epoch {
                    tell(core, &held, tablet);
                }
            }
            Some(held) => {
                close(core, &held).await;
                missing.push((Arc::clone(tablet), *replica));
            }
            None => missing.push((Arc::clone(tablet), *replica)),
        }
    }
    for held in core.replicas.all().values() {
        let id = held.tablet.id;
        let place = state.tablet(id).or_else(|| state.dropped().get(&id));
        if place.is_none_or(|place| place.replica_on(core.node).is_none()) {
            close(core, held).await;
        }
    }
    for some in missing.chunks(OPEN_AT_ONCE) {
        let opening = some
            .iter()
            .map(|(tablet, replica)| open(core, state, tablet, *replica));
        let opened = futures::future::join_all(opening).await;
        outcome = opened.into_iter().fold(outcome, Opened::max);
    }
    for held in core.replicas.all().values() {
        if let Held::Eventual(replica) = &held.held
            && !state.splits().contains_key(&held.tablet.id)
        {
            replica.forget_other_halves();
        }
    }
    outcome
}

fn tell(core: &Core, held: &HeldReplica, tablet: &Arc<Tablet>) {
    match &held.held {
        Held::Strong(strong) => strong.placed(tablet.as_ref().clone()),
        Held::Eventual(replica) => replica.set_tablet(tablet.as_ref().clone()),
    }
    let told = HeldReplica {
        replica: held.replica,
        tablet: Arc::clone(tablet),
        held: held.held.clone(),
    };
    core.replicas.change(|map| {
        map.insert(tablet.id, Arc::new(told));
    });
}

async fn open(core: &Arc<Core>, state: &State, tablet: &Arc<Tablet>, replica: Replica) -> Opened {
    let table = state.catalog().table(tablet.root);
    if table.is_none() && !state.dropped().contains_key(&tablet.id) {
        return Opened::Open;
    }
    let opened = if table.is_none_or(|table| table.is_strong()) {
        open_strong(core, state, tablet, replica).await
    } else {
        open_eventual(core, state, tablet, replica).await
    };
    let topic = mend::topic(replica.id, tablet.id);
    match opened {
        Ok(None) => Opened::Waits,
        Ok(Some(held)) => {
            let held = HeldReplica {
                replica: replica.id,
                tablet: Arc::clone(tablet),
                held,
            };
            core.replicas.change(|map| {
                map.insert(tablet.id, Arc::new(held));
            });
            core.complain(&topic, None);
            Opened::Open
        }
        Err(error) => {
            tracing::error!(tablet = %tablet.id, replica = %replica.id, %error, "a replica cannot be opened");
            core.complain(&topic, Some(error));
            Opened::Failed
        }
    }
}

/// `None`: not yet.
async fn open_strong(
    core: &Arc<Core>,
    state: &State,
    tablet: &Tablet,
    replica: Replica,
) -> Result<Option<Held>, String> {
    let Some(origin) = origin(core, state, tablet, replica).await? else {
        return Ok(None);
    };
    let is_founder = matches!(origin, Origin::Founded(_));
    let spec = TabletSpec {
        tablet: tablet.clone(),
        replica: replica.id,
        node: core.node,
        origin,
        groups: core.groups.clone(),
        stores: Arc::clone(&core.world.stores),
        clock: Arc::clone(&core.world.clock),
        catalog: core.views.watch_catalog(),
        others: Arc::new(NodeOthers::new(core)),
        config: core.config.strong.clone(),
    };
    let strong = StrongTablet::start(spec)
        .await
        .map_err(|error| format!("{error:?}"))?;
    core.tasks.spawn(strong.clone().run());
    if tablet.voters().count() == 1 && is_founder {
        core.groups.campaign(tablet.id);
    }
    Ok(Some(Held::Strong(strong)))
}

/// How a replica begins, if it has not begun before: with the others and nothing, with the others and its part of a
/// tablet that was split, or as one that is sent its state. `None`: not yet.
async fn origin(
    core: &Core,
    state: &State,
    tablet: &Tablet,
    replica: Replica,
) -> Result<Option<Origin>, String> {
    let founded = |founders: &[Replica]| Origin::Founded(founders.iter().map(member).collect());
    let is_among = |founders: &[Replica]| founders.iter().any(|founder| founder.id == replica.id);
    if let Some(split) = state.split_into(tablet.id)
        && is_among(&split.right.replicas)
    {
        // Nobody begins it empty: that would be a member who takes nothing for all there is.
        return Ok(match seed(core, split, replica).await? {
            Seeded::Done => Some(founded(&split.right.replicas)),
            Seeded::Settled => Some(Origin::Joining),
            Seeded::NotYet if planted::is(Bug::SplitFoundsEmptyHalf) => {
                Some(founded(&split.right.replicas))
            }
            Seeded::NotYet => None,
        });
    }
    let founders = state.founders(tablet.id);
    Ok(Some(match is_among(founders) {
        true => founded(founders),
        false => Origin::Joining,
    }))
}

fn has_store(core: &Core, replica: Replica) -> Result<bool, String> {
    let stores = core.world.stores.list();
    let stores = stores.map_err(|error| error.to_string())?;
    Ok(stores.iter().any(|(known, _)| *known == replica.id))
}

/// Makes a right half's replica from the left half's here, unless it is there already.
async fn seed(core: &Core, split: &Split, replica: Replica) -> Result<Seeded, String> {
    if has_store(core, replica)? {
        return Ok(Seeded::Done);
    }
    match core.replicas.strong(split.left.id) {
        Some(left) => {
            let seeded = left.seed(&split.right, replica.id).await;
            seeded.map_err(|error| error.to_string())
        }
        None => Ok(Seeded::NotYet),
    }
}

/// As `seed`, of an eventual tablet's; says whether it is there.
async fn seed_eventual(core: &Core, split: &Split, replica: Replica) -> Result<bool, String> {
    if has_store(core, replica)? {
        return Ok(true);
    }
    match core.replicas.eventual(split.left.id) {
        Some(left) => {
            let stores = core.world.stores.as_ref();
            let seeded = left.seed(&split.right, replica.id, stores).await;
            seeded.map_err(|error| error.to_string())
        }
        None => Ok(false),
    }
}

/// `None`: not yet.
async fn open_eventual(
    core: &Arc<Core>,
    state: &State,
    tablet: &Tablet,
    replica: Replica,
) -> Result<Option<Held>, String> {
    let Some(table) = state.catalog().table(tablet.root) else {
        return Ok(None);
    };
    if let Some(split) = state.split_into(tablet.id)
        && split.right.replica(replica.id).is_some()
        && !planted::is(Bug::SplitFoundsEmptyHalf)
        && !seed_eventual(core, split, replica).await?
    {
        return Ok(None);
    }
    let stores = &core.world.stores;
    let store = stores.open(replica.id).map_err(|error| error.to_string())?;
    let config = ReplicaConfig {
        tablet: tablet.clone(),
        replica: replica.id,
        table: Arc::clone(table),
        clock: Arc::clone(&core.world.clock),
    };
    let tasks = Arc::new(NodePeers::new(core));
    EventualReplica::open(config, store, Arc::clone(&core.world.log), tasks)
        .map(|replica| Some(Held::Eventual(replica)))
        .map_err(|error| error.to_string())
}

/// Closes a replica that this node should not hold any more, and removes what it kept.
async fn close(core: &Core, held: &HeldReplica) {
    core.replicas.change(|map| {
        map.remove(&held.tablet.id);
    });
    if let Held::Strong(strong) = &held.held {
        strong.stop().await;
        core.groups.remove(held.tablet.id).await;
    }
    remove(core, held.replica).await;
}

async fn remove(core: &Core, replica: ReplicaId) {
    let operations = vec![LogOperation::Remove {
        log: LogId(replica.0),
    }];
    if let Err(error) = core.world.log.write(LogBatch { operations }).await {
        tracing::error!(%replica, %error, "a replica's log cannot be removed");
    }
    if let Err(error) = core.world.stores.remove(replica) {
        tracing::error!(%replica, %error, "a replica's store cannot be removed");
    }
}

/// Removes what is left of replicas that the map does not know here. To be called with a state that is known to be current:
/// an old one would not know the newest replicas.
pub(crate) async fn remove_strays(core: &Core) {
    let view = core.view();
    let known: BTreeSet<ReplicaId> = view
        .state
        .tablets()
        .values()
        .map(AsRef::as_ref)
        .chain(view.state.dropped().values().map(AsRef::as_ref))
        // What a split has made is there before the map shows it.
        .chain(view.state.splits().values().map(|split| &split.right))
        .filter_map(|tablet| tablet.replica_on(core.node))
        .map(|replica| replica.id)
        // The meta group's replica runs by now. If the map has no place for it any more, it leaves as it should: with
        // its record, so that the founder's replica never begins the group anew, and not under its group's feet.
        .chain(core.groups.statuses().iter().map(|group| group.replica))
        .collect();
    let mut found: BTreeSet<ReplicaId> = core
        .world
        .log
        .logs()
        .into_iter()
        .filter(|log| log.0 != 0 && !quorum::is_hint_log(*log) && !quorum::is_batch_log(*log))
        .map(|log| ReplicaId(log.0))
        .collect();
    match core.world.stores.list() {
        Ok(list) => found.extend(list.into_iter().map(|(replica, _)| replica)),
        Err(error) => tracing::error!(%error, "the stores cannot be listed"),
    }
    for replica in found.difference(&known) {
        tracing::info!(%replica, "removing what is left of a replica");
        remove(core, *replica).await;
    }
}

pub(crate) fn member(replica: &Replica) -> Member {
    Member {
        replica: replica.id,
        node: replica.node,
        is_learner: replica.is_learner,
    }
}

/// Ends this node's part in the meta group, once the map has none for it.
async fn leave_meta(core: &Core, state: &State) {
    let (Some(status), Some(meta)) = (core.groups.status(META), state.tablet(META)) else {
        return;
    };
    if meta.replica(status.replica).is_some() || !state.has_allotted(status.replica) {
        return;
    }
    let identity = match core.records.identity() {
        Ok(Some(identity)) => identity,
        _ => return,
    };
    let identity = Identity {
        meta_replica: None,
        is_founder: false,
        ..identity
    };
    if let Err(error) = core.records.put_identity(&identity).await {
        tracing::error!(%error, "the end of the meta group's replica cannot be recorded");
        return;
    }
    core.groups.remove(META).await;
    core.leads_meta.send_replace(false);
    remove(core, status.replica).await;
}

/// Becomes a member of the meta group, whose leader will send its state.
async fn join_meta(core: &Core, replica: Replica) -> bool {
    let identity = match core.records.identity() {
        Ok(Some(identity)) => identity,
        _ => return false,
    };
    let identity = Identity {
        meta_replica: Some(replica.id),
        ..identity
    };
    if let Err(error) = core.records.put_identity(&identity).await {
        tracing::error!(%error, "the meta group's replica cannot be recorded");
        return false;
    }
    create_meta(core, replica.id, Origin::Joining).await
}

pub(crate) async fn create_meta(core: &Core, replica: ReplicaId, origin: Origin) -> bool {
    let machine = MetaMachine::open(
        replica,
        Arc::clone(&core.world.stores),
        Arc::clone(&core.views),
        core.leads_meta.clone(),
    );
    let spec = GroupSpec {
        tablet: META,
        replica,
        origin,
        machine: Box::new(machine),
    };
    match core.groups.create(spec).await {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, "the meta group cannot be opened");
            false
        }
    }
}
