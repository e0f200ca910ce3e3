//! A cluster of simulated nodes, and what can be done to them.

use crate::ambush::Ambush;
use crate::clock::{SimClock, TrueTime};
use crate::disk::SimDisk;
use crate::network::SimNetwork;
use crate::plan::{Plan, centre_name};
use crate::random::SimRandom;
use crate::trace::Trace;
use api::Database;
use cluster::META;
use model::{NodeId, TableId};
use node::{Config, LatePlan, Node, RepairConfig, StrongConfig};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use world::watch;
use world::{Durable, Log, LogBatch, LogBounds, LogEntry, LogError, LogId, World};

const STREAM_PAGE_BYTES: u32 = 100;
/// Whether a node goes on again is asked so often.
const RESUMED_LOOK: Duration = Duration::from_millis(1);
/// How long, in simulated time, a cluster without faults may take to form or to heal.
pub const HEAL_PATIENCE: Duration = Duration::from_secs(40);
/// An orderly stop that takes longer becomes a crash.
pub const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Clones are the same cluster. Nodes are counted from 0 here; node 0 founds the cluster.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    time: TrueTime,
    network: SimNetwork,
    trace: Trace,
    members: Mutex<Vec<Member>>,
    random: Mutex<SmallRng>,
    /// What must never happen, and did.
    complaints: Mutex<Vec<String>>,
    /// Nodes that are dead for good.
    lost: Mutex<BTreeSet<usize>>,
    /// Those of them that the cluster was told to forget.
    removed: Mutex<BTreeSet<usize>>,
    log_entries_kept: u64,
    repair_interval_ms: u64,
    strong: StrongConfig,
    /// Each node's data centre, where there are several.
    centres: Vec<Option<usize>>,
}

struct Member {
    address: SocketAddr,
    disk: SimDisk,
    clock: SimClock,
    /// What the cluster calls it, once it has joined.
    id: Option<NodeId>,
    /// Counts the starts.
    life: u64,
    state: Life,
}

enum Life {
    Down,
    Starting {
        task: AbortHandle,
    },
    Up {
        node: Arc<Node>,
        /// Changes when the node crashes: whoever talks to it hears nothing more.
        gone: watch::Sender<bool>,
    },
}

/// A node as its clients see it.
pub struct Door {
    pub node: usize,
    pub database: Arc<dyn Database>,
    pub gone: watch::Receiver<bool>,
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 7000))
}

/// Oscillators differ by less than nodes allow for, and wall clocks that nobody vouches for by seconds.
fn clock(time: TrueTime, plan: &Plan, index: usize) -> SimClock {
    if !plan.is_cluster_time {
        return SimClock::new(time, plan.clock_bound_micros);
    }
    let clock = SimClock::unbounded(time);
    clock.set_drift_ppm([-60, 60, 0, 30, -30][index % 5]);
    clock.set_skew([0, 2_000_000, -3_000_000, 400_000, -50][index % 5]);
    clock
}

fn member(time: TrueTime, plan: &Plan, index: usize, seed: u64) -> Member {
    Member {
        address: address(index),
        disk: SimDisk::new(seed),
        clock: clock(time, plan, index),
        id: None,
        life: 0,
        state: Life::Down,
    }
}

impl Cluster {
    /// Call within the simulator's runtime. No node is started yet.
    pub fn new(plan: &Plan, network: SimNetwork, trace: Trace, mut random: SmallRng) -> Cluster {
        let time = TrueTime::start();
        let members = (0..plan.nodes)
            .map(|index| member(time, plan, index, random.random()))
            .collect();
        Cluster {
            shared: Arc::new(Shared {
                time,
                network,
                trace,
                members: Mutex::new(members),
                random: Mutex::new(random),
                complaints: Mutex::new(Vec::new()),
                lost: Mutex::default(),
                removed: Mutex::default(),
                log_entries_kept: plan.log_entries_kept,
                repair_interval_ms: plan.repair_interval_ms,
                strong: StrongConfig {
                    lease_ms: plan.lease_ms,
                    history_ms: plan.history_ms,
                    ..StrongConfig::default()
                },
                centres: (0..plan.nodes).map(|node| plan.centre(node)).collect(),
            }),
        }
    }

    /// All that there are and were.
    pub fn size(&self) -> usize {
        self.shared.members.lock().len()
    }

    pub fn network(&self) -> &SimNetwork {
        &self.shared.network
    }

    pub fn trace(&self) -> &Trace {
        &self.shared.trace
    }

    /// Simulated microseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.shared.time.elapsed_micros()
    }

    pub fn address(&self, index: usize) -> SocketAddr {
        address(index)
    }

    /// A generator of its own for someone, from the seed.
    pub fn draw_random(&self) -> SmallRng {
        SmallRng::seed_from_u64(self.shared.random.lock().random())
    }

    /// Notes what must never happen.
    pub fn complain(&self, complaint: String) {
        self.note("complain", 0, || complaint.clone());
        self.shared.complaints.lock().push(complaint);
    }

    pub fn complaints(&self) -> Vec<String> {
        self.shared.complaints.lock().clone()
    }

    pub fn note(&self, kind: &str, number: u64, line: impl FnOnce() -> String) {
        self.shared.trace.note(kind, &[number], line);
    }

    /// One more node, which has not joined yet.
    pub fn enlist(&self, plan: &Plan) -> usize {
        let seed = self.shared.random.lock().random();
        let mut members = self.shared.members.lock();
        let index = members.len();
        members.push(member(self.shared.time, plan, index, seed));
        index
    }

    /// Starts a node that is down, but not for good. Returns at once; `door` tells when it serves.
    pub fn start(&self, index: usize) {
        let is_lost = self.is_lost(index);
        let mut members = self.shared.members.lock();
        let others = (0..members.len()).filter(|other| *other != index);
        let join = match index {
            0 => Vec::new(),
            late if late >= self.shared.centres.len() => others.map(address).collect(),
            _ => vec![address(0)],
        };
        let member = &mut members[index];
        if is_lost || !matches!(member.state, Life::Down) {
            return;
        }
        member.life += 1;
        member.clock.thaw();
        let life = member.life;
        self.note("start", index as u64, || {
            format!("node {} for the {life}. time", index + 1)
        });
        let (log, stores) = member.disk.open();
        let world = World {
            clock: Arc::new(member.clock.clone()),
            network: self.shared.network.attach(member.address),
            log: Arc::new(TracedLog {
                inner: log,
                node: index as u64,
                address: member.address,
                trace: self.shared.trace.clone(),
                ambush: self.shared.network.ambush().clone(),
            }),
            stores,
            random: Arc::new(SimRandom::new(self.shared.random.lock().random())),
        };
        let locality = Config::default();
        let centre = self.shared.centres.get(index).copied().flatten();
        let (data_center, rack) = match centre {
            Some(centre) => (centre_name(centre), format!("rack{index}")),
            None => (locality.data_center, locality.rack),
        };
        let config = Config {
            cluster_name: "sim".into(),
            data_center,
            rack,
            join,
            client_address: address(index).ip(),
            log_entries_kept: self.shared.log_entries_kept,
            repair: RepairConfig {
                interval_ms: self.shared.repair_interval_ms,
                ..RepairConfig::default()
            },
            strong: self.shared.strong.clone(),
            // A row or two: so streams are cut short in the midst.
            stream_page_bytes: STREAM_PAGE_BYTES,
            ..Config::default()
        };
        let cluster = self.clone();
        let task = tokio::spawn(async move {
            let outcome = Node::start(world, config).await;
            cluster.started(index, life, outcome);
        });
        member.state = Life::Starting {
            task: task.abort_handle(),
        };
    }

    fn started(&self, index: usize, life: u64, outcome: Result<Arc<Node>, node::StartError>) {
        match outcome {
            Ok(node) => {
                self.note("serve", index as u64, || {
                    format!("node {} is {}", index + 1, node.id())
                });
                let mut members = self.shared.members.lock();
                let member = &mut members[index];
                member.id = Some(node.id());
                if member.life == life {
                    let gone = watch::Sender::new(false);
                    member.state = Life::Up { node, gone };
                }
            }
            Err(error) => {
                self.complain(format!("node {} does not start: {error}", index + 1));
            }
        }
    }

    /// An orderly stop: the node hands over what it holds, and all that it has written is durable.
    pub async fn stop(&self, index: usize) {
        let Some((node, life)) = self.node(index) else {
            return;
        };
        self.note("stop", index as u64, || format!("node {}", index + 1));
        let _ = tokio::time::timeout(STOP_PATIENCE, node.shutdown()).await;
        if self.shared.members.lock()[index].life == life {
            self.disk(index).sync();
            self.crash(index);
        }
    }

    /// Divides the tablet that holds a key, through one node.
    pub async fn split(&self, index: usize, table: TableId, key: Vec<u8>) -> Result<(), String> {
        let (node, _) = self.node(index).ok_or("the node is down")?;
        let splitting = node.split_tablet(table, key);
        splitting.await.map_err(|error| error.to_string())
    }

    /// What the cluster calls a node. Who has not joined yet is called as if all joined in order.
    fn id_of(&self, index: usize) -> NodeId {
        let id = self.shared.members.lock()[index].id;
        id.unwrap_or(NodeId(index as u64 + 1))
    }

    fn index_of(&self, id: NodeId) -> usize {
        let index = (0..self.size()).find(|index| self.id_of(*index) == id);
        index.unwrap_or(id.0 as usize - 1)
    }

    /// Says through one node that another is to leave the cluster, or to stay.
    pub async fn take_out(&self, through: usize, index: usize, leaves: bool) -> Result<(), String> {
        let (node, _) = self.node(through).ok_or("the node is down")?;
        let id = self.id_of(index);
        let outcome = match leaves {
            true => node.decommission(id, None).await,
            false => node.recommission(id).await,
        };
        outcome.map_err(|error| error.to_string())
    }

    /// Puts a node in the place of one that is dead for good, through one that knows of both; or in that of one that lives,
    /// and goes when the other has what it has.
    pub async fn replace(
        &self,
        through: usize,
        old: usize,
        new: usize,
        is_dead: bool,
    ) -> Result<(), String> {
        let (node, _) = self.node(through).ok_or("the node is down")?;
        if !self.is_up(new) {
            return Err("the new node has not joined".into());
        }
        let (old_id, new_id) = (self.id_of(old), self.id_of(new));
        // Somebody may have told it to leave, and then it takes nobody's place.
        let _ = node.recommission(new_id).await;
        if !is_dead {
            let outcome = node.decommission(old_id, Some(new_id)).await;
            if outcome.is_err() {
                // Where others leave as well, there may be no node for what it has.
                for index in self.survivors() {
                    let _ = node.recommission(self.id_of(index)).await;
                }
            }
            return outcome.map_err(|error| error.to_string());
        }
        let topology = node.database().topology();
        let known = topology.nodes.iter().find(|known| known.id == old_id);
        if known.is_some_and(|known| known.is_alive) {
            return Err("the old node is not known to be dead".into());
        }
        let outcome = match known {
            Some(_) => node.replace(old_id, new_id).await,
            // An attempt before had another outcome than its answer.
            None => Ok(()),
        };
        outcome.map_err(|error| error.to_string())?;
        self.shared.removed.lock().insert(old);
        Ok(())
    }

    /// Whether all tables have, as every node knows, the copies that they should have, where they should have them.
    pub fn is_settled(&self) -> bool {
        self.survivors().into_iter().all(|index| {
            self.node(index).is_some_and(|(node, _)| {
                let copies = node.copies(None).unwrap_or_default();
                copies.values().all(node::Copies::is_settled)
            })
        })
    }

    /// Whether the meta group goes on without any one of its voters, as every node knows: nobody is about to come or go.
    pub fn can_lose_one(&self) -> bool {
        self.survivors().into_iter().all(|index| {
            self.node(index).is_some_and(|(node, _)| {
                let tablets = node.status().tablets;
                let meta = tablets.iter().find(|tablet| tablet.id == META);
                meta.is_some_and(|meta| {
                    let mut voters = meta.replicas.iter();
                    voters.len() >= 3 && voters.all(|it| !it.is_learner && !it.is_leaving)
                })
            })
        })
    }

    /// Whether some node knows of a replica that is on its way out, and of no other on the nodes of its data centre.
    pub fn is_last_leaving(&self, is_in: impl Fn(usize) -> bool) -> bool {
        let statuses = (0..self.size()).filter_map(|index| Some(self.node(index)?.0.status()));
        let mut tablets = statuses.flat_map(|status| status.tablets);
        tablets.any(|tablet| {
            let replicas = tablet.replicas.iter();
            let mut here = replicas.filter(|replica| is_in(self.index_of(replica.node)));
            here.next().is_some_and(|replica| replica.is_leaving) && here.next().is_none()
        })
    }

    /// Which replicas of an eventual table hold something else than others, all they hold compared; tombstones that
    /// some replica may have forgotten do not count.
    pub fn differences(&self, table: TableId) -> Result<Vec<String>, String> {
        let up = (0..self.size()).find_map(|index| self.node(index));
        let (first, _) = up.ok_or("no node is up")?;
        let mut found = Vec::new();
        for tablet in first.status().tablets {
            if tablet.table != table {
                continue;
            }
            let mut holders = Vec::new();
            for replica in &tablet.replicas {
                let (node, _) = self
                    .node(self.index_of(replica.node))
                    .ok_or_else(|| format!("{} is not up", replica.node))?;
                holders.push(node);
            }
            let purged = holders.iter().map(|node| node.purged_before(tablet.id));
            let purged = purged.collect::<Option<Vec<i64>>>();
            let Some(purged) = purged else {
                found.push(format!("{} is not everywhere", tablet.id));
                continue;
            };
            let purged_before = purged.into_iter().max().unwrap_or_default();
            let contents: Vec<_> = holders
                .iter()
                .map(|node| node.contents(tablet.id, purged_before))
                .collect();
            for (node, held) in holders.iter().zip(&contents) {
                if *held != contents[0] {
                    found.push(format!(
                        "{} on {} and {}",
                        tablet.id,
                        holders[0].id(),
                        node.id()
                    ));
                }
            }
        }
        Ok(found)
    }

    /// Changes a setting of the cluster, through the first node.
    pub async fn set(&self, name: &str, value: u64) -> Result<(), String> {
        let (node, _) = self.node(0).ok_or("the node is down")?;
        let setting = node.set(name, value).await;
        setting.map_err(|error| error.to_string())
    }

    /// Power loss of one node: its tasks stop where they are, and what it had not synced is gone.
    pub fn crash(&self, index: usize) {
        let mut members = self.shared.members.lock();
        let member = &mut members[index];
        let state = std::mem::replace(&mut member.state, Life::Down);
        let (address, disk) = (member.address, member.disk.clone());
        member.life += u64::from(!matches!(state, Life::Down));
        drop(members);
        if matches!(state, Life::Down) {
            return;
        }
        self.note("crash", index as u64, || format!("node {}", index + 1));
        self.shared.network.detach(address);
        match state {
            Life::Down => {}
            Life::Starting { task } => task.abort(),
            Life::Up { node, gone } => {
                node.crash();
                gone.send_replace(true);
            }
        }
        disk.crash();
    }

    /// Who keeps the cluster's time, as far as anybody says.
    pub fn time_master(&self) -> Option<usize> {
        let mut claims = (0..self.size()).filter_map(|index| {
            let (node, _) = self.node(index)?;
            let clock = node.status().clock;
            (clock.master == Some(node.id()) && clock.error.is_none()).then_some(index)
        });
        claims.next_back()
    }

    /// Why a node has fenced itself.
    pub fn fenced(&self, index: usize) -> Option<String> {
        let (node, _) = self.node(index)?;
        node.status().clock.fenced
    }

    pub fn is_up(&self, index: usize) -> bool {
        matches!(self.shared.members.lock()[index].state, Life::Up { .. })
    }

    pub fn is_down(&self, index: usize) -> bool {
        matches!(self.shared.members.lock()[index].state, Life::Down)
    }

    pub fn door(&self, index: usize) -> Option<Door> {
        match &self.shared.members.lock()[index].state {
            Life::Up { node, gone } => Some(Door {
                node: index,
                database: node.database(),
                gone: gone.subscribe(),
            }),
            _ => None,
        }
    }

    /// A node that is up, and which of its lives this is.
    fn node(&self, index: usize) -> Option<(Arc<Node>, u64)> {
        let members = self.shared.members.lock();
        match &members[index].state {
            Life::Up { node, .. } => Some((node.clone(), members[index].life)),
            _ => None,
        }
    }

    pub fn clock(&self, index: usize) -> SimClock {
        self.shared.members.lock()[index].clock.clone()
    }

    /// A node's process stands still, until [`Cluster::resume`] or its end. One runtime cannot halt some of its tasks; but
    /// when no message comes or goes, no client is answered, and no clock advances, all that they do is as if they had
    /// done it at the moment when they stopped.
    pub fn pause(&self, index: usize) {
        self.note("pause", index as u64, || format!("node {}", index + 1));
        self.clock(index).freeze();
        self.shared.network.hold(address(index));
    }

    pub fn resume(&self, index: usize) {
        self.clock(index).thaw();
        self.shared.network.release(address(index));
    }

    /// Waits until a node's process goes on.
    pub async fn resumed(&self, index: usize) {
        let clock = self.clock(index);
        while clock.is_frozen() {
            tokio::time::sleep(RESUMED_LOOK).await;
        }
    }

    pub fn disk(&self, index: usize) -> SimDisk {
        self.shared.members.lock()[index].disk.clone()
    }

    /// Founds the cluster and lets others join, one after the other, until it has so many nodes.
    pub async fn form(&self, nodes: usize) -> Result<(), String> {
        for index in 0..nodes {
            self.start(index);
            self.wait("the cluster to form", || self.is_up(index))
                .await?;
        }
        self.wait("all nodes to know each other", || self.has_formed(nodes))
            .await
    }

    /// Whether every node, but for one that stays dead, is up and sees all others alive.
    pub fn is_whole(&self) -> bool {
        self.has_formed(self.size())
    }

    fn has_formed(&self, nodes: usize) -> bool {
        let survivors = self.survivors();
        let removed = self.shared.removed.lock().len();
        survivors
            .iter()
            .filter(|index| **index < nodes)
            .all(|index| {
                self.door(*index).is_some_and(|door| {
                    let topology = door.database.topology();
                    let dead = topology.nodes.iter().filter(|node| !node.is_alive);
                    let lost = self.size() - removed - survivors.len();
                    topology.nodes.len() == nodes - removed && dead.count() <= lost
                })
            })
    }

    /// The nodes that are there in the end.
    pub fn survivors(&self) -> Vec<usize> {
        let lost = self.shared.lost.lock().clone();
        (0..self.size())
            .filter(|index| !lost.contains(index))
            .collect()
    }

    pub fn is_lost(&self, index: usize) -> bool {
        self.shared.lost.lock().contains(&index)
    }

    /// A node dies and does not come back, also not when all faults end.
    pub fn lose(&self, index: usize) {
        self.note("lose", index as u64, || format!("node {}", index + 1));
        self.shared.lost.lock().insert(index);
        self.crash(index);
    }

    /// What one node would have done now, were another dead for good.
    pub fn foresee(&self, index: usize, lost: Option<usize>) -> Option<LatePlan> {
        let (node, _) = self.node(index)?;
        let lost: BTreeSet<NodeId> = lost.iter().map(|index| self.id_of(*index)).collect();
        Some(node.foresee(&lost))
    }

    /// A node whose replica is on its way out while its group still counts it, and the group's other voters' nodes.
    pub fn leaving_voter(&self) -> Option<(usize, Vec<usize>)> {
        let index = |node: NodeId| self.index_of(node);
        (0..self.size())
            .filter_map(|leader| self.node(leader))
            .flat_map(|(node, _)| node.leaving_voters())
            .map(|(gone, others)| (index(gone), others.into_iter().map(index).collect()))
            .next()
    }

    /// Whether no group is lost with a node, as far as anybody knows: for a while some have but two voters.
    pub fn spares(&self, index: usize) -> bool {
        let victim = self.id_of(index);
        (0..self.size())
            .filter_map(|other| self.node(other))
            .all(|(node, _)| node.spares(victim))
    }

    pub async fn carry_out(&self, index: usize, plan: LatePlan) {
        if let Some((node, _)) = self.node(index) {
            node.carry_out(plan).await;
        }
    }

    /// Ends all faults and starts what is down.
    pub fn heal(&self) {
        self.note("heal", 0, || "all faults end".into());
        let network = &self.shared.network;
        network.set_conditions(crate::network::Conditions::CALM);
        network.join_all();
        let survivors = self.survivors();
        for index in 0..self.size() {
            self.resume(index);
            self.disk(index).set_slow(1);
            self.clock(index).set_right();
            if survivors.contains(&index) {
                self.start(index);
            }
        }
    }

    /// Waits for a condition, in simulated time.
    pub async fn wait(&self, what: &str, holds: impl Fn() -> bool) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + HEAL_PATIENCE;
        while !holds() {
            if tokio::time::Instant::now() >= deadline {
                return Err(format!(
                    "waited {} s for {what} in vain",
                    HEAL_PATIENCE.as_secs()
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// A log that tells the trace, and whoever lies in wait, when something has become durable.
struct TracedLog {
    inner: Arc<dyn Log>,
    node: u64,
    address: SocketAddr,
    trace: Trace,
    ambush: Ambush,
}

impl Log for TracedLog {
    fn write(&self, batch: LogBatch) -> Durable {
        let operations = batch.operations.len() as u64;
        let durable = self.inner.write(batch);
        let (node, trace) = (self.node, self.trace.clone());
        let (address, ambush) = (self.address, self.ambush.clone());
        Box::pin(async move {
            let outcome = durable.await;
            trace.note(
                "sync",
                &[node, operations, u64::from(outcome.is_ok())],
                || format!("node {}: {operations} operations {outcome:?}", node + 1),
            );
            ambush.synced(address);
            outcome
        })
    }

    fn write_later(&self, batch: LogBatch, interval_ms: u32) {
        self.inner.write_later(batch, interval_ms);
    }

    fn entries(
        &self,
        log: LogId,
        first: u64,
        last: u64,
        size_bytes_max: u64,
    ) -> Result<Vec<LogEntry>, LogError> {
        self.inner.entries(log, first, last, size_bytes_max)
    }

    fn bounds(&self, log: LogId) -> Option<LogBounds> {
        self.inner.bounds(log)
    }

    fn get(&self, log: LogId, key: &[u8]) -> Option<bytes::Bytes> {
        self.inner.get(log, key)
    }

    fn logs(&self) -> Vec<LogId> {
        self.inner.logs()
    }

    fn pressure_permille(&self) -> u32 {
        self.inner.pressure_permille()
    }
}
