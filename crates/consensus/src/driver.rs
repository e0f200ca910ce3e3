//! The loop that runs all groups of a node.
//!
//! A round takes what has come in, lets the groups that it touched work, and makes of what they want one batch for
//! the log and one frame for each other node. The next round does not wait for the batch: several may be on
//! their way, and what they hold back is released when they are durable, in order.

use crate::frame::{self, Item, Kind, Outbox};
use crate::group::{Awaiting, Group, Round};
use crate::groups::{Board, Config, GroupSpec, GroupStatus, Input, Outbound, ProposeError, Role};
use bytes::Bytes;
use model::{NodeId, TabletId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, warn};
use world::{Durable, Log, LogBatch, LogError, LogId, LogOperation};

/// Inputs of one round.
const ROUND_INPUTS_MAX: usize = 1_024;
/// Batches on their way to the log. With more, inputs wait, and so make larger batches.
const BATCHES_IN_FLIGHT_MAX: usize = 32;
/// Every so many ticks, each node that shares a group with this one hears something.
const LIFE_TICKS: u64 = 2;
/// How often a group looks whether its log can be cut.
const CUT_TICKS: u64 = 10;

struct Batch {
    durable: Durable,
    awaiting: Vec<Awaiting>,
    removed: Vec<oneshot::Sender<()>>,
}

/// What is known of another node.
#[derive(Default)]
struct Peer {
    /// Its last start, as its frames say.
    start: u64,
    heard_tick: u64,
    is_alive: bool,
}

/// The loop behind a `Groups`.
pub struct Driver {
    log: Arc<dyn Log>,
    outbound: Arc<dyn Outbound>,
    config: Config,
    inputs: mpsc::Receiver<Input>,
    board: Arc<Board>,
    groups: BTreeMap<TabletId, Group>,
    /// Groups with something to do in this round.
    touched: BTreeSet<TabletId>,
    /// Groups that count ticks.
    awake: BTreeSet<TabletId>,
    in_flight: VecDeque<Batch>,
    removals: Vec<(LogOperation, oneshot::Sender<()>)>,
    outbox: Outbox,
    peers: BTreeMap<NodeId, Peer>,
    /// The nodes that share a group with this one, while that does not change.
    neighbours: Option<BTreeSet<NodeId>>,
    ticks: u64,
    /// Groups opened since the start.
    opened: u64,
}

impl Driver {
    pub(crate) fn new(
        log: Arc<dyn Log>,
        outbound: Arc<dyn Outbound>,
        config: Config,
        inputs: mpsc::Receiver<Input>,
        board: Arc<Board>,
    ) -> Driver {
        Driver {
            log,
            outbound,
            outbox: Outbox::new(config.random_seed),
            config,
            inputs,
            board,
            groups: BTreeMap::new(),
            touched: BTreeSet::new(),
            awake: BTreeSet::new(),
            in_flight: VecDeque::new(),
            removals: Vec::new(),
            peers: BTreeMap::new(),
            neighbours: None,
            ticks: 0,
            opened: 0,
        }
    }

    /// Runs until the last handle is gone or the log fails. Dropping the future stops all groups at once.
    pub async fn run(mut self) {
        let mut ticker = tokio::time::interval(Duration::from_millis(self.config.tick_ms));
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inputs = Vec::new();
        loop {
            let can_take = self.in_flight.len() < BATCHES_IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                durable = next_durable(&mut self.in_flight) => {
                    if let Err(error) = durable {
                        return self.fail(&error);
                    }
                    self.persisted();
                }
                _ = ticker.tick() => self.tick(),
                count = self.inputs.recv_many(&mut inputs, ROUND_INPUTS_MAX), if can_take => {
                    if count == 0 {
                        return;
                    }
                    for input in inputs.drain(..) {
                        self.take(input);
                    }
                }
            }
            if let Err(error) = self.round() {
                return self.fail(&error);
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Create(spec, answer) => {
                let _ = answer.send(self.create(spec));
            }
            Input::Stop(tablet, answer) => {
                self.stop(tablet);
                let _ = answer.send(());
            }
            Input::Remove(tablet, answer) => {
                if let Some(replica) = self.stop(tablet) {
                    let log = LogId(replica.0);
                    self.removals.push((LogOperation::Remove { log }, answer));
                }
            }
            Input::Frame(from, frame) => self.deliver(from, frame),
            Input::Propose(tablet, command, resolver) => match self.touch(tablet) {
                Some(group) => group.propose(command, resolver),
                None => resolver(Err(ProposeError::NoGroup)),
            },
            Input::ChangeMembers(tablet, change, resolver) => match self.touch(tablet) {
                Some(group) => group.change_members(change, resolver),
                None => resolver(Err(ProposeError::NoGroup)),
            },
            Input::Confirm(tablet, resolver) => match self.touch(tablet) {
                Some(group) => group.confirm(resolver),
                None => resolver(Err(ProposeError::NoGroup)),
            },
            Input::Transfer(tablet, to) => {
                if let Some(group) = self.touch(tablet) {
                    group.transfer_leadership(to);
                }
            }
            Input::Campaign(tablet) => {
                if let Some(group) = self.touch(tablet) {
                    group.campaign();
                }
            }
            Input::Broadcast(tablet, message) => self.broadcast(tablet, &message),
        }
    }

    fn touch(&mut self, tablet: TabletId) -> Option<&mut Group> {
        let group = self.groups.get_mut(&tablet)?;
        self.touched.insert(tablet);
        Some(group)
    }

    fn create(&mut self, spec: GroupSpec) -> Result<(), LogError> {
        if let Some(group) = self.groups.get(&spec.tablet) {
            return match group.replica == spec.replica {
                true => Ok(()),
                false => Err(LogError::Refused(format!(
                    "another replica of {} runs here",
                    spec.tablet
                ))),
            };
        }
        let mut group = Group::open(
            spec.tablet,
            spec.replica,
            spec.origin,
            spec.machine,
            self.log.clone(),
            self.config.clone(),
        )?;
        self.opened += 1;
        group.opened_at = self.opened;
        self.touched.insert(spec.tablet);
        self.awake.insert(spec.tablet);
        self.publish(&group);
        self.groups.insert(spec.tablet, group);
        self.neighbours = None;
        self.board.tell();
        Ok(())
    }

    fn stop(&mut self, tablet: TabletId) -> Option<model::ReplicaId> {
        let mut group = self.groups.remove(&tablet)?;
        self.neighbours = None;
        group.give_up_pending();
        self.touched.remove(&tablet);
        self.awake.remove(&tablet);
        self.board.statuses.lock().remove(&tablet);
        self.board.tell();
        Some(group.replica)
    }

    fn broadcast(&mut self, tablet: TabletId, message: &Bytes) {
        let Some(group) = self.groups.get(&tablet) else {
            return;
        };
        for member in group.members() {
            if member.replica != group.replica {
                let address = (tablet, member.replica, group.replica);
                self.outbox
                    .push(member.node, Kind::Machine, address, |body| {
                        body.extend_from_slice(message);
                    });
            }
        }
    }

    fn deliver(&mut self, from: NodeId, frame: Bytes) {
        let Some((start, items)) = frame::decode(frame) else {
            warn!(%from, "a frame is not readable");
            return;
        };
        let peer = self.peers.entry(from).or_default();
        let is_back = !peer.is_alive || peer.start != start;
        *peer = Peer {
            start,
            heard_tick: self.ticks,
            is_alive: true,
        };
        if is_back {
            self.node_changed(from, true);
        }
        for item in items {
            self.deliver_item(from, item);
        }
    }

    fn deliver_item(&mut self, from: NodeId, item: Item) {
        let Some(group) = self.groups.get_mut(&item.tablet) else {
            return;
        };
        // A replica that was removed and made anew must not hear what its predecessor was told.
        if group.replica != item.to {
            return;
        }
        self.touched.insert(item.tablet);
        let outbox = &mut self.outbox;
        match item.kind {
            Kind::Raft => group.step(from, item.from, &item.body),
            Kind::Machine => group.machine.message(item.from, item.body),
            Kind::SnapshotChunk => group.hear_snapshot_chunk(from, &item, outbox),
            Kind::SnapshotAnswer => group.hear_snapshot_answer(item.from, &item.body, outbox),
            Kind::SnapshotRequest => group.hear_snapshot_request(item.from, outbox),
            Kind::Hibernate => group.hear_hibernate(item.from, &item.body),
        }
    }

    fn persisted(&mut self) {
        let Some(batch) = self.in_flight.pop_front() else {
            return;
        };
        for awaiting in batch.awaiting {
            let tablet = awaiting.tablet;
            if let Some(group) = self.groups.get_mut(&tablet)
                && group.opened_at == awaiting.opened_at
            {
                group.persisted(awaiting, &mut self.outbox);
                self.touched.insert(tablet);
            }
        }
        for removed in batch.removed {
            let _ = removed.send(());
        }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        self.watch_nodes();
        let peers = &self.peers;
        let this_node = self.config.node;
        let is_alive =
            |node: NodeId| node == this_node || peers.get(&node).is_some_and(|peer| peer.is_alive);
        for tablet in &self.awake {
            if let Some(group) = self.groups.get_mut(tablet) {
                group.tick(&is_alive, &mut self.outbox);
                if (group.ticks + tablet.0).is_multiple_of(CUT_TICKS)
                    && let Err(error) = group.cut()
                {
                    warn!(%tablet, %error, "the log cannot be cut");
                }
                self.touched.insert(*tablet);
            }
        }
    }

    /// Sends signs of life, and notices who sends none. One frame a node, however many groups it shares.
    fn watch_nodes(&mut self) {
        if self.ticks.is_multiple_of(LIFE_TICKS) {
            let (config, groups) = (&self.config, &self.groups);
            let nodes = self.neighbours.get_or_insert_with(|| {
                let members = groups.values().flat_map(|group| group.members());
                let nodes = members.map(|member| member.node);
                nodes.filter(|node| *node != config.node).collect()
            });
            for node in nodes.iter() {
                self.outbox.sign_of_life(*node);
            }
        }
        let silent: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| {
                peer.is_alive && peer.heard_tick + self.config.election_ticks < self.ticks
            })
            .map(|(node, _)| *node)
            .collect();
        for node in silent {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.is_alive = false;
            }
            self.node_changed(node, false);
        }
    }

    fn node_changed(&mut self, node: NodeId, is_alive: bool) {
        debug!(%node, is_alive, "a node is seen to have changed");
        for (tablet, group) in &mut self.groups {
            group.node_changed(node, is_alive);
            self.touched.insert(*tablet);
        }
    }

    /// Lets the touched groups work, and sends out what they want.
    fn round(&mut self) -> Result<(), LogError> {
        let mut round = Round {
            operations: Vec::new(),
            awaiting: Vec::new(),
            outbox: &mut self.outbox,
        };
        for tablet in std::mem::take(&mut self.touched) {
            if let Some(group) = self.groups.get_mut(&tablet) {
                group.process(&mut round);
                match group.is_awake() {
                    true => self.awake.insert(tablet),
                    false => self.awake.remove(&tablet),
                };
                match publish(&self.board, group) {
                    Change::Nothing => {}
                    Change::Status => self.board.tell(),
                    Change::Members => {
                        self.neighbours = None;
                        self.board.tell();
                    }
                }
            }
        }
        let Round {
            mut operations,
            awaiting,
            ..
        } = round;
        let mut removed = Vec::new();
        for (operation, answer) in std::mem::take(&mut self.removals) {
            operations.push(operation);
            removed.push(answer);
        }
        let is_empty = operations.is_empty();
        if !is_empty || !awaiting.is_empty() {
            // What is held back with nothing to write waits for the batches before it.
            let durable: Durable = match is_empty {
                true => Box::pin(std::future::ready(Ok(()))),
                false => self.log.write(LogBatch { operations }),
            };
            self.in_flight.push_back(Batch {
                durable,
                awaiting,
                removed,
            });
        }
        for (node, frame) in self.outbox.drain() {
            self.outbound.send(node, frame);
        }
        Ok(())
    }

    /// The log is closed: nothing that is not durable may be promised any more, so nothing is.
    fn fail(mut self, error: &LogError) {
        error!(%error, "the log has failed; all groups stop");
        for group in self.groups.values_mut() {
            group.give_up_pending();
        }
        for status in self.board.statuses.lock().values_mut() {
            status.role = Role::Broken;
            status.leader = None;
        }
        self.board.tell();
    }

    fn publish(&self, group: &Group) {
        publish(&self.board, group);
    }
}

/// What is new about a group that somebody may have waited for.
enum Change {
    Nothing,
    Status,
    /// It has other members, or was not shown before.
    Members,
}

/// Updates what is shown of a group.
fn publish(board: &Board, group: &Group) -> Change {
    let store = group.raw.store();
    let mut statuses = board.statuses.lock();
    let role = group.role();
    let term = group.raw.raft.term;
    let leader = group.leader();
    let matched = group.matched();
    if let Some(status) = statuses.get_mut(&group.tablet)
        && status.members == group.members()
    {
        let is_changed = status.role != role
            || status.term != term
            || status.leader != leader
            || status.applied != store.applied().index
            || status.committed != group.committed()
            || status.is_hibernating != group.is_hibernating
            || status.matched != matched;
        status.role = role;
        status.term = term;
        status.leader = leader;
        status.committed = group.committed();
        status.applied = store.applied().index;
        status.first_index = store.first();
        status.last_index = store.last();
        status.is_hibernating = group.is_hibernating;
        status.matched = matched;
        return match is_changed {
            true => Change::Status,
            false => Change::Nothing,
        };
    }
    let status = GroupStatus {
        tablet: group.tablet,
        replica: group.replica,
        role,
        term,
        leader,
        members: group.members().to_vec(),
        committed: group.committed(),
        applied: store.applied().index,
        first_index: store.first(),
        last_index: store.last(),
        is_hibernating: group.is_hibernating,
        matched,
    };
    statuses.insert(group.tablet, status);
    Change::Members
}

/// Resolves when the oldest batch is durable.
async fn next_durable(in_flight: &mut VecDeque<Batch>) -> Result<(), LogError> {
    poll_fn(|context| match in_flight.front_mut() {
        Some(batch) => batch.durable.as_mut().poll(context),
        None => Poll::Pending,
    })
    .await
}
