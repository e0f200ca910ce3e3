//! A cluster of groups on simulated disks and a network of channels, on one paused runtime.

use bytes::Bytes;
use consensus::{
    Committed, CommittedEntry, Config, Driver, GroupSpec, Groups, Leadership, MachineError, Member,
    Origin, Outbound, SnapshotSource, StateMachine, StoreSource,
};
use model::{NodeId, ReplicaId, TabletId};
use parking_lot::Mutex;
use sim::disk::SimDisk;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use world::{Applied, Install, Store, StoreBatch, StoreError, StoreOperation, Stores};

pub const TABLET: TabletId = TabletId(5);
const STATE: u8 = 4;

/// Keeps every command under its index.
pub struct Journal {
    stores: Arc<dyn Stores>,
    replica: ReplicaId,
    store: Option<Arc<dyn Store>>,
    install: Option<Box<dyn Install>>,
    pub leadership: Arc<Mutex<Vec<Leadership>>>,
}

impl Journal {
    pub fn open(stores: Arc<dyn Stores>, replica: ReplicaId) -> Journal {
        let store = match stores.open(replica) {
            Ok(store) => Some(store),
            Err(StoreError::Installing(_)) => None,
            Err(error) => panic!("{error}"),
        };
        Journal {
            stores,
            replica,
            store,
            install: None,
            leadership: Arc::default(),
        }
    }
}

pub fn contents(store: &dyn Store) -> Vec<(u64, String)> {
    let snapshot = store.snapshot();
    store
        .scan(&[STATE, 1], None, &snapshot)
        .map(|pair| {
            let (key, value) = pair.unwrap();
            let index = u64::from_be_bytes(key[2..].try_into().unwrap());
            (index, String::from_utf8(value.to_vec()).unwrap())
        })
        .collect()
}

fn failed(error: StoreError) -> MachineError {
    MachineError(error.to_string())
}

impl StateMachine for Journal {
    fn applied(&self) -> Option<Applied> {
        self.store.as_ref().map(|store| store.applied())
    }

    fn flushed(&self) -> Applied {
        self.store
            .as_ref()
            .map(|store| store.flushed())
            .unwrap_or_default()
    }

    fn request_flush(&mut self) {
        self.store.as_ref().unwrap().request_flush();
    }

    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, MachineError> {
        let store = self.store.as_ref().unwrap();
        let mut results = Vec::new();
        for entry in entries {
            assert_eq!(entry.index, store.applied().index.max(1) + 1);
            let mut operations = Vec::new();
            if let CommittedEntry::Command(command) = &entry.entry {
                let mut key = vec![STATE, 1];
                key.extend(entry.index.to_be_bytes());
                operations.push(StoreOperation::Put {
                    key,
                    value: command.to_vec(),
                });
                results.push(command.clone());
            } else {
                results.push(Bytes::new());
            }
            let applied = Applied {
                index: entry.index,
                term: entry.term,
            };
            store
                .apply(StoreBatch {
                    operations,
                    applied,
                })
                .map_err(failed)?;
        }
        Ok(results)
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, MachineError> {
        Ok(Box::new(StoreSource::new(self.store.clone().unwrap())))
    }

    fn begin_install(&mut self) -> Result<(), MachineError> {
        self.install = None;
        self.install = Some(self.stores.begin_install(self.replica).map_err(failed)?);
        Ok(())
    }

    fn install(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Result<(), MachineError> {
        self.install.as_mut().unwrap().add(pairs).map_err(failed)
    }

    fn finish_install(&mut self, applied: Applied) -> Result<(), MachineError> {
        let install = self.install.take().unwrap();
        self.store = Some(install.finish(applied).map_err(failed)?);
        Ok(())
    }

    fn leadership(&mut self, leadership: Leadership) {
        self.leadership.lock().push(leadership);
    }
}

#[derive(Default)]
struct Wires {
    groups: BTreeMap<NodeId, Groups>,
    cut: BTreeSet<(NodeId, NodeId)>,
    frames: u64,
}

struct Wire {
    from: NodeId,
    wires: Arc<Mutex<Wires>>,
}

impl Outbound for Wire {
    fn send(&self, to: NodeId, frame: Bytes) {
        let wires = self.wires.clone();
        let from = self.from;
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let groups = {
                let mut wires = wires.lock();
                wires.frames += 1;
                match wires.cut.contains(&(from, to)) {
                    true => None,
                    false => wires.groups.get(&to).cloned(),
                }
            };
            if let Some(groups) = groups {
                groups.deliver(from, frame);
            }
        });
    }
}

pub struct Node {
    pub disk: SimDisk,
    pub groups: Option<Groups>,
    pub stores: Option<Arc<dyn Stores>>,
    task: Option<JoinHandle<()>>,
    starts: u64,
}

pub struct Cluster {
    pub nodes: BTreeMap<u64, Node>,
    wires: Arc<Mutex<Wires>>,
    pub log_entries_kept: u64,
}

pub fn member(node: u64) -> Member {
    Member {
        replica: ReplicaId(node * 10),
        node: NodeId(node),
        is_learner: false,
    }
}

impl Cluster {
    pub fn new(nodes: u64) -> Cluster {
        let nodes = (1..=nodes)
            .map(|node| {
                let started = Node {
                    disk: SimDisk::new(node),
                    groups: None,
                    stores: None,
                    task: None,
                    starts: 0,
                };
                (node, started)
            })
            .collect();
        Cluster {
            nodes,
            wires: Arc::default(),
            log_entries_kept: 10,
        }
    }

    /// Starts a node and its replica of the tablet.
    pub async fn start(&mut self, id: u64, origin: Origin) {
        let groups = self.start_node(id);
        let stores = self.nodes[&id].stores.clone().unwrap();
        let replica = member(id).replica;
        groups
            .create(GroupSpec {
                tablet: TABLET,
                replica,
                origin,
                machine: Box::new(Journal::open(stores, replica)),
            })
            .await
            .unwrap();
    }

    pub fn start_node(&mut self, id: u64) -> Groups {
        let node = self.nodes.get_mut(&id).unwrap();
        let (log, stores) = node.disk.open();
        node.starts += 1;
        let mut config = Config::new(NodeId(id), id * 1000 + node.starts);
        config.log_entries_kept = self.log_entries_kept;
        let wire = Wire {
            from: NodeId(id),
            wires: self.wires.clone(),
        };
        let (groups, driver): (Groups, Driver) = Groups::new(log, Arc::new(wire), config);
        node.task = Some(tokio::spawn(driver.run()));
        node.groups = Some(groups.clone());
        node.stores = Some(stores);
        self.wires.lock().groups.insert(NodeId(id), groups.clone());
        groups
    }

    /// The first three nodes found the tablet.
    pub async fn found(&mut self) {
        let members: Vec<Member> = (1..=3).map(member).collect();
        for id in 1..=3 {
            self.start(id, Origin::Founded(members.clone())).await;
        }
    }

    pub fn crash(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.task.take().unwrap().abort();
        node.groups = None;
        node.stores = None;
        self.wires.lock().groups.remove(&NodeId(id));
        node.disk.crash();
    }

    pub fn cut(&self, from: u64, to: u64) {
        self.wires.lock().cut.insert((NodeId(from), NodeId(to)));
    }

    pub fn isolate(&self, id: u64) {
        for other in self.nodes.keys() {
            self.cut(id, *other);
            self.cut(*other, id);
        }
    }

    pub fn heal(&self) {
        self.wires.lock().cut.clear();
    }

    pub fn frames(&self) -> u64 {
        self.wires.lock().frames
    }

    pub fn groups(&self, id: u64) -> Groups {
        self.nodes[&id].groups.clone().unwrap()
    }

    /// The node whose replica leads in the highest term, once there is one.
    pub async fn leader(&self) -> u64 {
        for _ in 0..600 {
            let leader = self
                .nodes
                .iter()
                .filter_map(|(id, node)| {
                    let status = node.groups.as_ref()?.status(TABLET)?;
                    (status.role == consensus::Role::Leader).then_some((status.term, *id))
                })
                .max();
            if let Some((_, id)) = leader {
                return id;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no leader");
    }

    pub async fn propose(&self, command: &str) -> u64 {
        for _ in 0..100 {
            let leader = self.leader().await;
            let proposed = self.groups(leader).propose(TABLET, command.into());
            if let Ok(done) = proposed.await {
                assert_eq!(done.result, command.as_bytes());
                return done.index;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{command} was not applied");
    }

    pub fn contents(&self, id: u64) -> Vec<(u64, String)> {
        let stores = self.nodes[&id].stores.clone().unwrap();
        contents(stores.open(member(id).replica).unwrap().as_ref())
    }

    /// Waits until the nodes hold the same, and returns it.
    pub async fn agree(&self, ids: &[u64]) -> Vec<(u64, String)> {
        for _ in 0..600 {
            let leader = self.leader().await;
            let statuses: Vec<_> = ids
                .iter()
                .filter_map(|id| self.groups(*id).status(TABLET))
                .collect();
            let last = self.groups(leader).status(TABLET).map(|s| s.last_index);
            let applied = statuses.iter().all(|status| {
                Some(status.applied) == last && status.role != consensus::Role::Broken
            });
            if statuses.len() == ids.len() && applied {
                let all: Vec<_> = ids.iter().map(|id| self.contents(*id)).collect();
                for other in &all {
                    assert_eq!(other, &all[0]);
                }
                return all.into_iter().next().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let statuses: Vec<_> = ids
            .iter()
            .map(|id| self.groups(*id).status(TABLET))
            .collect();
        panic!("no agreement: {statuses:#?}");
    }
}

/// Runs a test on a paused current-thread runtime.
pub fn simulate<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async { test().await });
}
