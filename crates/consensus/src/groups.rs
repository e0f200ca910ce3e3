//! The handle to all groups of a node.

use crate::driver::Driver;
use crate::group::Resolver;
use crate::{Member, StateMachine};
use bytes::Bytes;
use model::{NodeId, ReplicaId, TabletId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, mpsc, oneshot};
use world::LogError;

/// Where frames for other nodes go. Best effort; must not block.
pub trait Outbound: Send + Sync {
    fn send(&self, to: NodeId, frame: Bytes);
}

/// How the groups of a node run.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: NodeId,
    /// Varies the election timeouts; the same seed gives the same run.
    pub random_seed: u64,
    pub tick_ms: u64,
    /// An election begins after one to two times so many ticks of silence.
    pub election_ticks: u64,
    /// A quiet group hibernates after so many ticks.
    pub hibernate_ticks: u64,
    /// Proposals that wait for the loop, of all groups together.
    pub queue_length_max: usize,
    /// Unanswered proposals of one group.
    pub group_proposals_max: usize,
    /// Entries that are kept in the log, though flushed, for members that lag.
    pub log_entries_kept: u64,
}

impl Config {
    pub fn new(node: NodeId, random_seed: u64) -> Config {
        Config {
            node,
            random_seed,
            tick_ms: 100,
            election_ticks: 10,
            hibernate_ticks: 20,
            queue_length_max: 16_384,
            group_proposals_max: 4_096,
            log_entries_kept: 4_096,
        }
    }
}

/// How a group comes to be on this node. What its log says has precedence: a group that has one is continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A new group: all of its first members begin with the same list, and with the same state: none, or one that
    /// says that it is the state after the entry [`FOUNDED_AT`](crate::FOUNDED_AT).
    Founded(Vec<Member>),
    /// A replica that joins an existing group: it waits for the leader to send its state.
    Joining,
}

pub struct GroupSpec {
    pub tablet: TabletId,
    pub replica: ReplicaId,
    pub origin: Origin,
    pub machine: Box<dyn StateMachine>,
}

/// A proposal that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub index: u64,
    pub term: u64,
    /// What the state machine answered.
    pub result: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not proposed.
    #[error("this replica does not lead")]
    NotLeader { leader: Option<Member> },
    /// Not applied, and never will be.
    #[error("the proposal was dropped")]
    Dropped,
    /// Too many proposals are waiting; not proposed.
    #[error("too many proposals are waiting")]
    Overloaded,
    /// There is no such group here; not proposed.
    #[error("no such group")]
    NoGroup,
    /// Proposed, and then leadership was lost, or the group stopped: it may be applied or not.
    #[error("it is unknown whether the proposal was applied")]
    Unknown,
}

/// One step of a change of members. One at a time; a second is `Dropped` while one is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeMembers {
    AddLearner(Member),
    /// Makes a voter, of a learner or of a new member.
    AddVoter(Member),
    Remove(ReplicaId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Candidate,
    /// The state or the log is unusable; waits for a snapshot, and does not stand for election.
    Broken,
}

/// What is known about a group, as of the last round of the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    pub tablet: TabletId,
    pub replica: ReplicaId,
    pub role: Role,
    pub term: u64,
    pub leader: Option<Member>,
    pub members: Vec<Member>,
    pub committed: u64,
    pub applied: u64,
    /// Of the log.
    pub first_index: u64,
    pub last_index: u64,
    pub is_hibernating: bool,
    /// On the leader: the last entry that each other member is known to hold.
    pub matched: Vec<(ReplicaId, u64)>,
}

/// What the loop is asked to do.
pub(crate) enum Input {
    Create(GroupSpec, oneshot::Sender<Result<(), LogError>>),
    Stop(TabletId, oneshot::Sender<()>),
    Remove(TabletId, oneshot::Sender<()>),
    Frame(NodeId, Bytes),
    Propose(TabletId, Vec<u8>, Resolver),
    ChangeMembers(TabletId, ChangeMembers, Resolver),
    Confirm(TabletId, Resolver),
    Transfer(TabletId, ReplicaId),
    Campaign(TabletId),
    Broadcast(TabletId, Bytes),
}

/// What the loop shows of its groups.
#[derive(Default)]
pub(crate) struct Board {
    pub statuses: Mutex<BTreeMap<TabletId, GroupStatus>>,
    pub changed: Notify,
    /// How often something has changed.
    pub changes: AtomicU64,
}

impl Board {
    pub fn tell(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }
}

/// The handle to all groups of a node; cheap to clone.
#[derive(Clone)]
pub struct Groups {
    inputs: mpsc::Sender<Input>,
    board: Arc<Board>,
}

impl Groups {
    /// The caller runs the driver, as one task.
    pub fn new(
        log: Arc<dyn world::Log>,
        outbound: Arc<dyn Outbound>,
        config: Config,
    ) -> (Groups, Driver) {
        let (sender, receiver) = mpsc::channel(config.queue_length_max);
        let board = Arc::new(Board::default());
        let driver = Driver::new(log, outbound, config, receiver, board.clone());
        let groups = Groups {
            inputs: sender,
            board,
        };
        (groups, driver)
    }

    /// Adds a group, or continues it from its log. Resolves when it runs.
    pub async fn create(&self, spec: GroupSpec) -> Result<(), LogError> {
        let (sender, receiver) = oneshot::channel();
        let stopped = || LogError::Failed("the groups have stopped".into());
        self.inputs
            .send(Input::Create(spec, sender))
            .await
            .map_err(|_| stopped())?;
        receiver.await.map_err(|_| stopped())?
    }

    /// Stops a group and drops its state machine. Its log stays.
    pub async fn stop(&self, tablet: TabletId) {
        let (sender, receiver) = oneshot::channel();
        if self.inputs.send(Input::Stop(tablet, sender)).await.is_ok() {
            let _ = receiver.await;
        }
    }

    /// Stops a group and forgets its log. Resolves when that is durable. The caller removes the store.
    pub async fn remove(&self, tablet: TabletId) {
        let (sender, receiver) = oneshot::channel();
        if self
            .inputs
            .send(Input::Remove(tablet, sender))
            .await
            .is_ok()
        {
            let _ = receiver.await;
        }
    }

    /// Takes a frame that another node's `Outbound` sent. Dropped when the loop is far behind.
    pub fn deliver(&self, from: NodeId, frame: Bytes) {
        let _ = self.inputs.try_send(Input::Frame(from, frame));
    }

    /// Proposes a command. It is queued at once, in the order of the calls; the future tells what became of
    /// it. Dropping the future does not take the proposal back.
    pub fn propose(
        &self,
        tablet: TabletId,
        command: Vec<u8>,
    ) -> impl Future<Output = Result<Done, ProposeError>> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        self.propose_with(
            tablet,
            command,
            Box::new(move |outcome| {
                let _ = sender.send(outcome);
            }),
        );
        async move { receiver.await.unwrap_or(Err(ProposeError::Unknown)) }
    }

    /// As `propose`; `resolved` is called at most once, possibly before this returns, else by the loop: it must
    /// not wait. It is dropped uncalled when the loop is, which means `Unknown`.
    pub fn propose_with(
        &self,
        tablet: TabletId,
        command: Vec<u8>,
        resolved: Box<dyn FnOnce(Result<Done, ProposeError>) + Send>,
    ) {
        let input = Input::Propose(tablet, command, resolved);
        if let Err(refused) = self.inputs.try_send(input) {
            let (input, error) = match refused {
                mpsc::error::TrySendError::Full(input) => (input, ProposeError::Overloaded),
                mpsc::error::TrySendError::Closed(input) => (input, ProposeError::NoGroup),
            };
            if let Input::Propose(_, _, resolved) = input {
                resolved(Err(error));
            }
        }
    }

    /// Proposes a change of members; resolves when it is in force on the leader.
    pub async fn change_members(
        &self,
        tablet: TabletId,
        change: ChangeMembers,
    ) -> Result<(), ProposeError> {
        let (sender, receiver) = oneshot::channel();
        let resolver: Resolver = Box::new(move |outcome| {
            let _ = sender.send(outcome);
        });
        self.inputs
            .send(Input::ChangeMembers(tablet, change, resolver))
            .await
            .map_err(|_| ProposeError::NoGroup)?;
        receiver
            .await
            .unwrap_or(Err(ProposeError::Unknown))
            .map(|_| ())
    }

    /// Resolves, on the leader, when it is known to have led at a moment after the call, and to have applied all that was
    /// proposed here before: a round of heartbeats, without an entry in the log.
    pub async fn confirm(&self, tablet: TabletId) -> Result<Done, ProposeError> {
        let (sender, receiver) = oneshot::channel();
        let resolver: Resolver = Box::new(move |outcome| {
            let _ = sender.send(outcome);
        });
        self.inputs
            .send(Input::Confirm(tablet, resolver))
            .await
            .map_err(|_| ProposeError::NoGroup)?;
        receiver.await.unwrap_or(Err(ProposeError::Dropped))
    }

    /// Asks the group, if it is led here, to be led by another member. Best effort.
    pub fn transfer_leadership(&self, tablet: TabletId, to: ReplicaId) {
        let _ = self.inputs.try_send(Input::Transfer(tablet, to));
    }

    /// Asks that this replica stand for election now. Best effort.
    pub fn campaign(&self, tablet: TabletId) {
        let _ = self.inputs.try_send(Input::Campaign(tablet));
    }

    /// Sends a message to the state machines of all other members. Best effort; travels with the loop's frames.
    pub fn broadcast(&self, tablet: TabletId, message: Bytes) {
        let _ = self.inputs.try_send(Input::Broadcast(tablet, message));
    }

    /// Inputs that wait for the loop.
    pub fn queue_length(&self) -> usize {
        self.inputs.max_capacity() - self.inputs.capacity()
    }

    pub fn status(&self, tablet: TabletId) -> Option<GroupStatus> {
        self.board.statuses.lock().get(&tablet).cloned()
    }

    /// How many groups here are like that.
    pub fn count(&self, is_like_that: impl FnMut(&&GroupStatus) -> bool) -> usize {
        self.board
            .statuses
            .lock()
            .values()
            .filter(is_like_that)
            .count()
    }

    /// Grows with each change of a group's status.
    pub fn changes(&self) -> u64 {
        self.board.changes.load(Ordering::Relaxed)
    }

    /// All groups here, by tablet.
    pub fn statuses(&self) -> Vec<GroupStatus> {
        self.board.statuses.lock().values().cloned().collect()
    }

    /// Resolves when `condition` holds for the group's status; `None` when there is no such group, or the loop has
    /// ended.
    pub async fn wait_for(
        &self,
        tablet: TabletId,
        condition: impl Fn(&GroupStatus) -> bool + Send,
    ) -> Option<GroupStatus> {
        loop {
            let changed = self.board.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let status = self.status(tablet)?;
            if condition(&status) {
                return Some(status);
            }
            changed.await;
        }
    }
}
