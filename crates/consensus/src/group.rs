//! One Raft group, without clock, disk or network: ticks, messages and proposals go in, effects come out as
//! operations for the log, items for other nodes, and calls of the state machine.
//!
//! What a `Ready` of the library says must be durable is numbered and waits for its round's batch; what a
//! follower answers waits with it. A leader's messages do not wait: its own copy of an entry counts only when it
//! is durable.

use crate::confirm::Confirming;
use crate::frame::{Kind, Outbox};
use crate::groups::{Config, Done, Origin, ProposeError, Role};
use crate::log::{Found, GroupLog, command_data, command_of, conf_change};
use crate::snapshot::{Receiving, Sending};
use crate::{ChangeMembers, Committed, CommittedEntry, Leadership, Member, StateMachine};
use bytes::Bytes;
use model::{NodeId, ReplicaId, TabletId};
use protobuf::Message as _;
use raft::eraftpb::{ConfChange, Entry, EntryType, Message, MessageType};
use raft::{GetEntriesContext, RawNode, StateRole, Storage};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tracing::{error, info, trace, warn};
use world::{Applied, Log, LogError, LogOperation};

/// One message of appended entries.
const APPEND_BYTES_MAX: u64 = 512 << 10;
/// Messages of entries under way to one member.
const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Entries handed to the state machine at once.
const COMMITTED_BYTES_MAX: u64 = 4 << 20;
/// After losing leadership a proposal may still come to be applied; so long its proposer waits to hear.
const PENDING_TICKS_MAX: u64 = 100;
/// A new group's designated first leader stands for election at every tick for so long.
const EAGER_TICKS: u64 = 20;
/// Entries below the cut are forgotten when there are so many.
const CUT_ENTRIES_MIN: u64 = 64;

pub(crate) type Resolver = Box<dyn FnOnce(Result<Done, ProposeError>) + Send>;

pub(crate) struct Pending {
    index: u64,
    term: u64,
    is_change: bool,
    since_tick: u64,
    resolver: Resolver,
}

/// What must be done when a round's batch is durable.
pub(crate) struct Awaiting {
    pub tablet: TabletId,
    pub opened_at: u64,
    ready: u64,
    messages: Vec<Message>,
}

/// The effects of one round, of all groups together.
pub(crate) struct Round<'a> {
    pub operations: Vec<LogOperation>,
    pub awaiting: Vec<Awaiting>,
    pub outbox: &'a mut Outbox,
}

pub(crate) struct Group {
    pub tablet: TabletId,
    pub replica: ReplicaId,
    /// Tells this group from one of the same tablet that was stopped before it.
    pub opened_at: u64,
    pub(crate) raw: RawNode<GroupLog>,
    pub(crate) machine: Box<dyn StateMachine>,
    pub(crate) config: Config,
    /// Where messages came from: a joining replica knows no members yet.
    heard_from: BTreeMap<ReplicaId, NodeId>,
    pub(crate) queued: Vec<(Vec<u8>, Resolver)>,
    pub(crate) pending: VecDeque<Pending>,
    pub(crate) confirming: Vec<Confirming>,
    /// So many confirmations were asked for.
    pub(crate) confirms: u64,
    /// Operations that arose outside of a `Ready`.
    pub(crate) operations: Vec<LogOperation>,
    /// Batches that this group waits for.
    pub(crate) in_flight: usize,
    pub(crate) is_broken: bool,
    /// An installation was begun: the state is as good as before, but is gone after a restart, and no more of it
    /// is flushed. So the installation must come to its end, if not from the sender that began it.
    pub(crate) is_given_up: bool,
    pub(crate) is_hibernating: bool,
    pub(crate) idle_ticks: u64,
    pub(crate) ticks: u64,
    eager_until: u64,
    /// The term that the election timeout was chosen for.
    timeout_term: Option<u64>,
    reported: Option<Leadership>,
    pub(crate) receiving: Option<Receiving>,
    pub(crate) sending: BTreeMap<ReplicaId, Sending>,
    pub(crate) request_tick: Option<u64>,
    /// Whom to ask for a state in the next round.
    pub(crate) wanted_from: Option<ReplicaId>,
}

impl Group {
    pub fn open(
        tablet: TabletId,
        replica: ReplicaId,
        origin: Origin,
        machine: Box<dyn StateMachine>,
        log: Arc<dyn Log>,
        config: Config,
    ) -> Result<Group, LogError> {
        let mut operations = Vec::new();
        let applied = machine.applied();
        let (mut group_log, found) =
            GroupLog::open(log, tablet, replica, applied, &mut operations)?;
        let mut is_broken = false;
        let mut is_new = false;
        match (found, origin) {
            (Found::Nothing, Origin::Founded(mut members)) => {
                members.sort_unstable();
                group_log.found(members, &mut operations);
                is_new = true;
            }
            (Found::Nothing, Origin::Joining) | (Found::Usable, _) => {}
            (Found::Broken(why), _) => {
                warn!(%tablet, %replica, why, "replica is broken and waits for a snapshot");
                is_broken = true;
            }
        }
        let raw = raw_node(replica, group_log, &config)?;
        let mut group = Group {
            tablet,
            replica,
            opened_at: 0,
            raw,
            machine,
            config,
            heard_from: BTreeMap::new(),
            queued: Vec::new(),
            pending: VecDeque::new(),
            confirming: Vec::new(),
            confirms: 0,
            operations,
            in_flight: 0,
            is_broken,
            is_given_up: false,
            is_hibernating: false,
            idle_ticks: 0,
            ticks: 0,
            eager_until: 0,
            timeout_term: None,
            reported: None,
            receiving: None,
            sending: BTreeMap::new(),
            request_tick: None,
            wanted_from: None,
        };
        group.stand_early(is_new);
        Ok(group)
    }

    /// A lone voter leads at once. Of a new group's members one, by the tablet's number, does not wait for a
    /// timeout either.
    fn stand_early(&mut self, is_new: bool) {
        let voters: Vec<ReplicaId> = self.voters().collect();
        if self.is_broken || voters.is_empty() {
            return;
        }
        if self.is_alone() {
            self.campaign();
        } else if is_new && voters[self.tablet.0 as usize % voters.len()] == self.replica {
            self.eager_until = EAGER_TICKS;
            self.campaign();
        }
    }

    fn voters(&self) -> impl Iterator<Item = ReplicaId> {
        let voters = self.members().iter().filter(|member| !member.is_learner);
        voters.map(|member| member.replica)
    }

    fn is_alone(&self) -> bool {
        self.voters().eq([self.replica])
    }

    pub fn members(&self) -> &[Member] {
        self.raw.store().members()
    }

    pub fn leader(&self) -> Option<Member> {
        let leader = ReplicaId(self.raw.raft.leader_id);
        self.members()
            .iter()
            .find(|member| member.replica == leader)
            .copied()
    }

    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader && !self.is_broken
    }

    pub fn role(&self) -> Role {
        match self.raw.raft.state {
            _ if self.is_broken => Role::Broken,
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        }
    }

    pub fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// On the leader: what the others are known to hold.
    pub fn matched(&self) -> Vec<(ReplicaId, u64)> {
        if !self.is_leader() {
            return Vec::new();
        }
        let progress = self.raw.raft.prs();
        self.members()
            .iter()
            .filter(|member| member.replica != self.replica)
            .filter_map(|member| {
                let progress = progress.get(member.replica.0)?;
                Some((member.replica, progress.matched))
            })
            .collect()
    }

    pub(crate) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.members()
            .iter()
            .find(|member| member.replica == replica)
            .map(|member| member.node)
            .or_else(|| self.heard_from.get(&replica).copied())
    }

    pub fn propose(&mut self, command: Vec<u8>, resolver: Resolver) {
        if !self.is_leader() {
            let leader = self
                .leader()
                .filter(|member| member.replica != self.replica);
            return resolver(Err(ProposeError::NotLeader { leader }));
        }
        if self.queued.len() + self.pending.len() >= self.config.group_proposals_max {
            return resolver(Err(ProposeError::Overloaded));
        }
        self.wake();
        self.idle_ticks = 0;
        self.queued.push((command, resolver));
    }

    pub fn change_members(&mut self, change: ChangeMembers, resolver: Resolver) {
        self.flush_proposals();
        if !self.is_leader() {
            let leader = self.leader();
            return resolver(Err(ProposeError::NotLeader { leader }));
        }
        self.wake();
        self.idle_ticks = 0;
        let proposed = self
            .raw
            .propose_conf_change(Vec::new(), conf_change(change));
        match proposed {
            Ok(()) => self.await_applied(true, self.raw.raft.raft_log.last_index(), resolver),
            Err(_) => resolver(Err(ProposeError::Dropped)),
        }
    }

    pub fn transfer_leadership(&mut self, to: ReplicaId) {
        self.wake();
        self.raw.transfer_leader(to.0);
    }

    pub fn campaign(&mut self) {
        // The library takes a learner's word for it and trips over its own absence among the voters.
        if self.is_broken || self.in_flight > 0 || !self.raw.raft.promotable() {
            return;
        }
        self.wake();
        if let Err(error) = self.raw.campaign() {
            warn!(tablet = %self.tablet, %error, "cannot stand for election");
        }
        self.choose_timeout();
    }

    fn await_applied(&mut self, is_change: bool, index: u64, resolver: Resolver) {
        self.pending.push_back(Pending {
            index,
            term: self.raw.raft.term,
            is_change,
            since_tick: self.ticks,
            resolver,
        });
    }

    /// Appends what was proposed since the last round, as one message to each member.
    pub(crate) fn flush_proposals(&mut self) {
        if self.queued.is_empty() {
            return;
        }
        let queued = std::mem::take(&mut self.queued);
        if !self.is_leader() {
            let leader = self.leader();
            for (_, resolver) in queued {
                resolver(Err(ProposeError::NotLeader { leader }));
            }
            return;
        }
        let mut entries = Vec::with_capacity(queued.len());
        let mut resolvers = Vec::with_capacity(queued.len());
        for (command, resolver) in queued {
            entries.push(Entry {
                data: command_data(command),
                ..Entry::default()
            });
            resolvers.push(resolver);
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.replica.0;
        message.set_entries(entries.into());
        let first = self.raw.raft.raft_log.last_index() + 1;
        match self.raw.step(message) {
            Ok(()) => {
                for (index, resolver) in (first..).zip(resolvers) {
                    self.await_applied(false, index, resolver);
                }
            }
            Err(_) => {
                for resolver in resolvers {
                    resolver(Err(ProposeError::Dropped));
                }
            }
        }
    }

    /// Takes a message of the library's from another member.
    pub fn step(&mut self, node: NodeId, from: ReplicaId, body: &Bytes) {
        let Ok(message) = Message::parse_from_carllerche_bytes(body) else {
            warn!(tablet = %self.tablet, %node, "a Raft message is not readable");
            return;
        };
        let kind = message.get_msg_type();
        trace!(
            tablet = %self.tablet,
            from = message.from,
            to = message.to,
            ?kind,
            term = message.term,
            index = message.index,
            log_term = message.log_term,
            entries = message.entries.len(),
            commit = message.commit,
            reject = message.reject,
            hint = message.reject_hint,
            own_term = self.raw.raft.term,
            own_last = self.raw.raft.raft_log.last_index(),
            own_committed = self.raw.raft.raft_log.committed,
            in_flight = self.in_flight,
            is_broken = self.is_broken,
            "hears"
        );
        // Proposals are never forwarded, snapshots travel by themselves, and a replica that is about to change its
        // state behind the library's back must not take on more.
        if matches!(kind, MessageType::MsgPropose | MessageType::MsgSnapshot)
            || message.from != from.0
            || self.receiving.as_ref().is_some_and(Receiving::is_complete)
        {
            return;
        }
        self.heard_from.insert(from, node);
        if kind != MessageType::MsgHeartbeatResponse {
            self.wake();
        }
        if !matches!(
            kind,
            MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse
        ) {
            self.idle_ticks = 0;
        }
        let is_from_leader = matches!(kind, MessageType::MsgHeartbeat | MessageType::MsgAppend);
        if self.has_lost_entries(&message) {
            return;
        }
        // The library refuses messages of members that it does not know; that is no error here.
        let _ = self.raw.step(message);
        self.choose_timeout();
        if is_from_leader && (self.is_broken || self.is_given_up) {
            self.want_snapshot(from);
        }
    }

    /// A leader never says that more is committed than this replica has acknowledged, unless this replica's log
    /// has lost what it acknowledged.
    fn has_lost_entries(&mut self, message: &Message) -> bool {
        let lost = message.get_msg_type() == MessageType::MsgHeartbeat
            && message.term >= self.raw.raft.term
            && message.commit > self.raw.raft.raft_log.last_index();
        if lost && !self.is_broken {
            error!(
                tablet = %self.tablet,
                replica = %self.replica,
                committed = message.commit,
                last = self.raw.raft.raft_log.last_index(),
                "the log has lost entries that this replica had acknowledged"
            );
            self.is_broken = true;
        }
        if lost {
            self.want_snapshot(ReplicaId(message.from));
        }
        lost
    }

    /// One tick of the loop's clock. Pushes what is to be said at once.
    pub fn tick(&mut self, is_alive: &dyn Fn(NodeId) -> bool, outbox: &mut Outbox) {
        self.ticks += 1;
        self.expire_pending();
        self.tick_snapshots(is_alive, outbox);
        if self.is_broken || self.is_hibernating {
            return;
        }
        // A disk that is slower than an election is no reason for one; and the library insists that a leader
        // begins with all of its log durable.
        if self.raw.raft.state != StateRole::Leader && self.in_flight > 0 {
            return;
        }
        self.choose_timeout();
        self.raw.tick();
        self.choose_timeout();
        let is_leaderless = self.raw.raft.leader_id == 0;
        if is_leaderless && (self.ticks <= self.eager_until || self.is_alone()) {
            self.campaign();
        }
        self.idle_ticks += 1;
        // Not with a heartbeat on its way, whose answer would wake everyone.
        let is_between = self.raw.raft.heartbeat_elapsed() > 0;
        if self.idle_ticks >= self.config.hibernate_ticks && is_between {
            self.hibernate(is_alive, outbox);
        }
    }

    /// The library draws timeouts at random from the thread; here each term's is a function of the seed.
    fn choose_timeout(&mut self) {
        let term = self.raw.raft.term;
        if self.timeout_term == Some(term)
            && self.raw.raft.randomized_election_timeout() == self.timeout(term)
        {
            return;
        }
        self.timeout_term = Some(term);
        let timeout = self.timeout(term);
        self.raw.raft.set_randomized_election_timeout(timeout);
    }

    fn timeout(&self, term: u64) -> usize {
        let ticks = self.config.election_ticks;
        let random = mix(self.config.random_seed ^ mix(self.replica.0) ^ mix(term << 20));
        (ticks + random % ticks) as usize
    }

    /// Handles all that the library has ready, into the round.
    pub fn process(&mut self, round: &mut Round<'_>) {
        self.raw.mut_store().trim();
        self.finish_receiving(round.outbox);
        self.flush_proposals();
        let mut awaiting: Option<Awaiting> = None;
        if !self.operations.is_empty() {
            round.operations.append(&mut self.operations);
            awaiting = Some(Awaiting {
                tablet: self.tablet,
                opened_at: self.opened_at,
                ready: 0,
                messages: Vec::new(),
            });
        }
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            let entries = ready.take_entries();
            let written_before = round.operations.len();
            // A commit index alone need not be durable: the leader tells it again.
            if let Some(hard) = ready.hs()
                && (ready.must_sync() || !entries.is_empty())
            {
                let hard = hard.clone();
                self.raw.mut_store().set_hard(hard, &mut round.operations);
            }
            self.raw.mut_store().append(&entries, &mut round.operations);
            let messages = ready.take_messages();
            let held = ready.take_persisted_messages();
            let committed = ready.take_committed_entries();
            self.keep_committed_changes(&committed, &mut round.operations);
            let confirmed = ready.take_read_states();
            self.take_confirmed(&confirmed);
            let number = ready.number();
            self.raw.advance_append_async(ready);
            self.send(messages, round.outbox);
            let is_written = round.operations.len() > written_before;
            if is_written || awaiting.is_some() || self.in_flight > 0 {
                let awaiting = awaiting.get_or_insert_with(|| Awaiting {
                    tablet: self.tablet,
                    opened_at: self.opened_at,
                    ready: 0,
                    messages: Vec::new(),
                });
                awaiting.ready = number;
                awaiting.messages.extend(held);
            } else {
                self.raw.on_persist_ready(number);
                self.send(held, round.outbox);
            }
            self.apply(committed);
        }
        if let Some(awaiting) = awaiting {
            self.in_flight += 1;
            round.awaiting.push(awaiting);
        }
        self.answer_confirmed();
        self.report_leadership();
    }

    /// Members count from the entry on that changes them, once it is applied. A replica that forgot in a crash that
    /// it was committed would count by the members before, and a founder, say, would elect itself alone while
    /// the others go on without it. So the commit is on its way to the log before anything that counts by the new
    /// members is.
    fn keep_committed_changes(&mut self, committed: &[Entry], operations: &mut Vec<LogOperation>) {
        let changes = committed
            .iter()
            .any(|entry| entry.get_entry_type() != EntryType::EntryNormal);
        if changes {
            let hard = self.raw.raft.hard_state();
            self.raw.mut_store().set_hard(hard, operations);
        }
    }

    /// The batch is durable.
    pub fn persisted(&mut self, awaiting: Awaiting, outbox: &mut Outbox) {
        self.in_flight -= 1;
        if awaiting.ready > 0 {
            self.raw.on_persist_ready(awaiting.ready);
        }
        self.send(awaiting.messages, outbox);
    }

    fn send(&mut self, messages: Vec<Message>, outbox: &mut Outbox) {
        for message in messages {
            let to = ReplicaId(message.to);
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.start_sending(to, true, outbox);
                continue;
            }
            // A leader that cannot apply must be replaced: it falls silent.
            if self.is_broken && self.raw.raft.state == StateRole::Leader {
                continue;
            }
            let Some(node) = self.node_of(to) else {
                continue;
            };
            let address = (self.tablet, to, self.replica);
            outbox.push(node, Kind::Raft, address, |body| {
                if let Err(error) = message.write_to_vec(body) {
                    error!(%error, "a Raft message cannot be written");
                }
            });
        }
    }

    fn apply(&mut self, committed: Vec<Entry>) {
        let Some(last) = committed.last() else {
            return;
        };
        let last = Applied {
            index: last.index,
            term: last.term,
        };
        if self.is_broken {
            return;
        }
        let mut entries = Vec::with_capacity(committed.len());
        for entry in committed {
            entries.push(self.decode(entry));
        }
        let results = match self.machine.apply(&entries) {
            Ok(results) => results,
            Err(error) => {
                error!(tablet = %self.tablet, replica = %self.replica, %error, "replica is broken");
                self.is_broken = true;
                return self.give_up_pending();
            }
        };
        self.raw.mut_store().set_applied(last);
        self.raw.advance_apply_to(last.index);
        let mut results = results.into_iter();
        for entry in &entries {
            let result = results.next().unwrap_or_default();
            self.resolve(entry, result);
        }
    }

    fn decode(&mut self, entry: Entry) -> Committed {
        let decoded = match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => CommittedEntry::Empty,
            EntryType::EntryNormal => CommittedEntry::Command(command_of(entry.data)),
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                let change = ConfChange::parse_from_bytes(&entry.data).unwrap_or_default();
                if let Err(error) = self.raw.apply_conf_change(&change) {
                    error!(tablet = %self.tablet, %error, "a change of members cannot be applied");
                }
                let members = self.raw.mut_store().change_members(&change).to_vec();
                info!(tablet = %self.tablet, ?members, "members changed");
                self.step_down_if_removed(&members);
                CommittedEntry::Members(members)
            }
        };
        Committed {
            index: entry.index,
            term: entry.term,
            entry: decoded,
        }
    }

    /// Who asks for a leader's removal hands the group over first; but a member whose removal was under way when it was
    /// elected is a leader without a vote of its own. It must not go on: the library counts on it.
    fn step_down_if_removed(&mut self, members: &[Member]) {
        let mut voters = members.iter().filter(|member| !member.is_learner);
        if self.raw.raft.state == StateRole::Leader
            && voters.all(|voter| voter.replica != self.replica)
        {
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// Answers the proposals that this entry decides about: its own; and, when it is of a later term, all that
    /// were proposed in an earlier one, for terms in a log never go back.
    fn resolve(&mut self, entry: &Committed, result: Bytes) {
        while let Some(pending) = self.pending.front() {
            let is_own = pending.index == entry.index && pending.term == entry.term;
            if !is_own && pending.index > entry.index && pending.term >= entry.term {
                return;
            }
            let Some(pending) = self.pending.pop_front() else {
                return;
            };
            let is_change = matches!(entry.entry, CommittedEntry::Members(_));
            if is_own && pending.is_change == is_change {
                return (pending.resolver)(Ok(Done {
                    index: entry.index,
                    term: entry.term,
                    result,
                }));
            }
            (pending.resolver)(Err(ProposeError::Dropped));
        }
    }

    fn expire_pending(&mut self) {
        if self.is_leader() {
            return;
        }
        while let Some(pending) = self.pending.front()
            && pending.since_tick + PENDING_TICKS_MAX < self.ticks
            && let Some(pending) = self.pending.pop_front()
        {
            (pending.resolver)(Err(ProposeError::Unknown));
        }
    }

    /// Answers all proposals: nothing more will be heard of them here.
    pub fn give_up_pending(&mut self) {
        for (_, resolver) in std::mem::take(&mut self.queued) {
            resolver(Err(ProposeError::Dropped));
        }
        for confirming in std::mem::take(&mut self.confirming) {
            confirming.give_up();
        }
        self.forget_pending(u64::MAX);
    }

    /// Answers the proposals up to an index that is not seen one by one.
    pub(crate) fn forget_pending(&mut self, index: u64) {
        while let Some(pending) = self.pending.front()
            && pending.index <= index
            && let Some(pending) = self.pending.pop_front()
        {
            (pending.resolver)(Err(ProposeError::Unknown));
        }
    }

    fn report_leadership(&mut self) {
        let term = self.raw.raft.term;
        let now = match self.is_leader() {
            true => Leadership::Leader { term },
            false => Leadership::Follower {
                term,
                leader: self
                    .leader()
                    .filter(|leader| leader.replica != self.replica),
            },
        };
        if self.reported != Some(now) {
            self.reported = Some(now);
            self.machine.leadership(now);
        }
    }

    /// Forgets the beginning of the log, as far as the state machine has it durably and members that lag have had
    /// their chance.
    pub fn cut(&mut self) -> Result<(), LogError> {
        if self.is_broken || self.receiving.is_some() {
            return Ok(());
        }
        let log = self.raw.store();
        let kept = match self.members().len() {
            1 => 0,
            _ => self.config.log_entries_kept,
        };
        let wanted = (log.applied().index + 1).saturating_sub(kept);
        let first = storage::cut_point(self.machine.flushed(), wanted);
        if wanted > first + 2 * self.config.log_entries_kept {
            self.machine.request_flush();
        }
        if first < log.first() + CUT_ENTRIES_MIN {
            return Ok(());
        }
        let mut operations = Vec::new();
        self.raw.mut_store().cut_to(first, &mut operations)?;
        self.operations.append(&mut operations);
        Ok(())
    }

    /// Begins anew behind an installed state, as after a restart.
    pub(crate) fn rebuild(&mut self, log: GroupLog) -> Result<(), LogError> {
        self.raw = raw_node(self.replica, log, &self.config)?;
        self.timeout_term = None;
        self.choose_timeout();
        Ok(())
    }
}

fn raw_node(
    replica: ReplicaId,
    log: GroupLog,
    config: &Config,
) -> Result<RawNode<GroupLog>, LogError> {
    let ticks = config.election_ticks as usize;
    let raft_config = raft::Config {
        id: replica.0,
        election_tick: ticks,
        heartbeat_tick: (ticks / 5).max(2),
        min_election_tick: ticks,
        max_election_tick: 2 * ticks,
        applied: log.applied().index,
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
        max_committed_size_per_ready: COMMITTED_BYTES_MAX,
        check_quorum: true,
        pre_vote: true,
        // The library batches entries into a waiting message that has none even if they do not follow that
        // message's index: the follower then acknowledges entries that do not exist, and they count as replicated.
        batch_append: false,
        ..raft::Config::default()
    };
    // What cannot be read now would panic inside the library.
    let last = log.last();
    log.term(last)
        .map_err(|error| LogError::Corrupt(format!("entry {last}: {error}")))?;
    let unread = log.applied().index.max(log.first() - 1) + 1;
    if unread <= last {
        log.entries(unread, unread + 1, None, GetEntriesContext::empty(false))
            .map_err(|error| LogError::Corrupt(format!("entry {unread}: {error}")))?;
    }
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&raft_config, log, &logger)
        .map_err(|error| LogError::Corrupt(format!("the library refuses the log: {error}")))
}

/// A bijection that scatters (SplitMix64's finalizer).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
