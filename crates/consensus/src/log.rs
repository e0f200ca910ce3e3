//! A group's part of the node's log, as the Raft library reads it: entries (with the newest in memory), hard
//! state, and the members. Changes are handed out as operations for the round's one batch.
//!
//! Records beside the entries: `hard` (term, vote, commit), `cut` (index and term of the entry before the
//! first), `members` (those at some entry and the changes after it), `install` (the members that belong to a
//! snapshot under installation). A change of members is recorded with the entry that proposes it, so that no crash
//! can part them; what the members *are* follows from how far the state machine is applied.

use crate::{ChangeMembers, Member};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use model::{NodeId, ReplicaId, TabletId};
use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState};
use raft::eraftpb::{Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::VecDeque;
use std::sync::Arc;
use world::planted::{self, Bug};
use world::{Applied, Log, LogBounds, LogEntry, LogError, LogId, LogOperation};

/// Entries of a group that are kept in memory.
const CACHE_BYTES_MAX: usize = 1 << 20;
/// The last byte of an entry's data says what it is; a leader's first entry of its term has no data.
const COMMAND: u8 = 0;
const MEMBERS: u8 = 1;

const HARD_KEY: &[u8] = b"hard";
const CUT_KEY: &[u8] = b"cut";
const MEMBERS_KEY: &[u8] = b"members";
const INSTALL_KEY: &[u8] = b"install";
const TABLET_KEY: &[u8] = b"tablet";

/// Which tablet's replica this is, if its log says so.
pub fn tablet_of(log: &dyn Log, replica: ReplicaId) -> Option<TabletId> {
    let record = log.get(LogId(replica.0), TABLET_KEY)?;
    Some(TabletId(u64::from_be_bytes(
        record.as_ref().try_into().ok()?,
    )))
}

/// A new group begins behind an entry that nobody has, so that a member that joins later, with an empty log, is
/// always sent the state, and with it the first members.
pub const FOUNDED_AT: Applied = Applied { index: 1, term: 1 };

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct MembersRecord {
    #[n(0)]
    at: u64,
    #[n(1)]
    members: Vec<Member>,
    /// Proposed after `at`, committed or not.
    #[n(2)]
    changes: Vec<RecordedChange>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct RecordedChange {
    #[n(0)]
    index: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    change: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct InstallRecord {
    #[n(0)]
    pub index: u64,
    #[n(1)]
    pub term: u64,
    #[n(2)]
    pub members: Vec<Member>,
}

/// What the log says about a group at the start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing: the group must be founded or joined.
    Nothing,
    Usable,
    /// The log and the state do not meet: a snapshot is needed.
    Broken(String),
}

pub(crate) struct GroupLog {
    log: Arc<dyn Log>,
    id: LogId,
    tablet: TabletId,
    /// The entry before the first.
    cut: Applied,
    last: u64,
    /// The last entry's term, which the library wants to know at any time, also when the log has failed.
    last_term: Option<u64>,
    hard: HardState,
    record: MembersRecord,
    /// What a snapshot would be of, and the members then.
    applied: Applied,
    members: Vec<Member>,
    cache: VecDeque<Entry>,
    cache_bytes: usize,
}

impl GroupLog {
    /// Reads what is there. `applied` is what the state machine holds, if that is usable. Pushes the
    /// operations by which log and state are brought together.
    pub fn open(
        log: Arc<dyn Log>,
        tablet: TabletId,
        replica: ReplicaId,
        applied: Option<Applied>,
        operations: &mut Vec<LogOperation>,
    ) -> Result<(GroupLog, Found), LogError> {
        let id = LogId(replica.0);
        let is_known = tablet_of(log.as_ref(), replica) == Some(tablet);
        let hard = log.get(id, HARD_KEY);
        let bounds = log.bounds(id).unwrap_or(LogBounds { first: 1, last: 0 });
        let cut = match log.get(id, CUT_KEY) {
            Some(record) => decode_applied(&record)
                .ok_or_else(|| corrupt(id, "the record of the cut is not readable"))?,
            None => Applied::default(),
        };
        let record = match log.get(id, MEMBERS_KEY) {
            Some(record) => minicbor::decode(&record)
                .map_err(|_| corrupt(id, "the record of the members is not readable"))?,
            None => MembersRecord::default(),
        };
        let mut group = GroupLog {
            log,
            id,
            tablet,
            cut,
            last: bounds.last.max(cut.index),
            last_term: None,
            hard: HardState::default(),
            record,
            applied: cut,
            members: Vec::new(),
            cache: VecDeque::new(),
            cache_bytes: 0,
        };
        if !is_known {
            group.push_tablet(operations);
        }
        if let Some(hard) = &hard {
            group.hard =
                decode_hard(hard).ok_or_else(|| corrupt(id, "the hard state is not readable"))?;
        } else if applied.is_none_or(|applied| applied <= FOUNDED_AT) {
            let found = match applied {
                Some(_) => Found::Nothing,
                None => Found::Broken("an installation was cut short".into()),
            };
            return Ok((group, found));
        }
        let found = group.meet(applied, operations)?;
        group.last_term = Some(group.term_of(group.last)?);
        Ok((group, found))
    }

    /// Brings the log to where the state is.
    fn meet(
        &mut self,
        applied: Option<Applied>,
        operations: &mut Vec<LogOperation>,
    ) -> Result<Found, LogError> {
        let Some(applied) = applied else {
            self.members = self.members_at(self.cut.index);
            return Ok(Found::Broken("the state is not usable".into()));
        };
        let applied = match applied.index {
            0 => FOUNDED_AT,
            _ => applied,
        };
        if applied.index < self.cut.index {
            self.members = self.members_at(self.cut.index);
            return Ok(Found::Broken(format!(
                "the log begins at entry {}, the state ends at {}",
                self.cut.index + 1,
                applied.index
            )));
        }
        let is_on_log = applied.index <= self.last && self.term_of(applied.index)? == applied.term;
        if !is_on_log {
            // An installation was finished but for the reset of the log.
            let install = self.log.get(self.id, INSTALL_KEY);
            let install =
                install.and_then(|record| minicbor::decode::<InstallRecord>(&record).ok());
            let members = match install {
                Some(install) if install.index == applied.index => install.members,
                _ => {
                    return Ok(Found::Broken(format!(
                        "the state ends at entry {}, which the log does not have",
                        applied.index
                    )));
                }
            };
            self.reset(applied, members, operations);
        }
        self.applied = applied;
        self.members = self.members_at(applied.index);
        let known = self.hard.commit.max(applied.index);
        self.hard.commit = known.max(self.committed_alone()).min(self.last);
        Ok(Found::Usable)
    }

    /// What a lone voter has written it has committed, up to the change that made it one of several. A crash can
    /// take the commit index and the applied state back to a time before that change: without this, the member
    /// would lead alone once more, beside the leader of the others.
    fn committed_alone(&self) -> u64 {
        let is_alone = |members: &[Member]| {
            let mut voters = members.iter().filter(|member| !member.is_learner);
            voters
                .next()
                .is_some_and(|voter| voter.replica.0 == self.id.0)
                && voters.next().is_none()
        };
        if !is_alone(&self.members) {
            return 0;
        }
        let later = self
            .record
            .changes
            .iter()
            .filter(|change| change.index > self.applied.index);
        later
            .map(|change| change.index)
            .find(|index| !is_alone(&self.members_at(*index)))
            .unwrap_or(0)
    }

    /// Takes the log out of the library's hands.
    pub fn take(&mut self) -> GroupLog {
        GroupLog {
            log: self.log.clone(),
            id: self.id,
            tablet: self.tablet,
            cut: self.cut,
            last: self.last,
            last_term: self.last_term,
            hard: self.hard.clone(),
            record: std::mem::take(&mut self.record),
            applied: self.applied,
            members: std::mem::take(&mut self.members),
            cache: std::mem::take(&mut self.cache),
            cache_bytes: std::mem::take(&mut self.cache_bytes),
        }
    }

    pub fn found(&mut self, members: Vec<Member>, operations: &mut Vec<LogOperation>) {
        self.hard.term = FOUNDED_AT.term;
        self.reset(FOUNDED_AT, members, operations);
    }

    /// Forgets all entries: the log goes on behind `applied`. Term and vote stay.
    pub fn reset(
        &mut self,
        applied: Applied,
        members: Vec<Member>,
        operations: &mut Vec<LogOperation>,
    ) {
        operations.push(LogOperation::Remove { log: self.id });
        self.push_tablet(operations);
        self.cache.clear();
        self.cache_bytes = 0;
        self.cut = applied;
        self.last = applied.index;
        self.last_term = Some(applied.term);
        self.applied = applied;
        self.members = members.clone();
        self.record = MembersRecord {
            at: applied.index,
            members,
            changes: Vec::new(),
        };
        self.hard.commit = applied.index;
        self.hard.term = self.hard.term.max(applied.term);
        self.push_cut(operations);
        self.push_hard(operations);
        self.push_members(operations);
    }

    /// After a snapshot was installed: what of the log follows it stays, if it does follow.
    pub fn installed(
        &mut self,
        install: InstallRecord,
        operations: &mut Vec<LogOperation>,
    ) -> Result<(), LogError> {
        let applied = Applied {
            index: install.index,
            term: install.term,
        };
        let follows = applied.index >= self.cut.index
            && applied.index <= self.last
            && self.term_of(applied.index)? == applied.term;
        if follows {
            self.record.at = applied.index;
            self.record.members = install.members;
            self.record
                .changes
                .retain(|change| change.index > applied.index);
            self.applied = applied;
            self.members = self.record.members.clone();
            self.hard.commit = self.hard.commit.max(applied.index);
            self.cut_to(applied.index + 1, operations)?;
            self.push_members(operations);
            self.push_hard(operations);
        } else {
            self.reset(applied, install.members, operations);
        }
        operations.push(LogOperation::Delete {
            log: self.id,
            key: INSTALL_KEY.to_vec(),
        });
        Ok(())
    }

    pub fn push_install(&self, record: &InstallRecord, operations: &mut Vec<LogOperation>) {
        operations.push(LogOperation::Put {
            log: self.id,
            key: INSTALL_KEY.to_vec(),
            value: encode(record),
        });
    }

    /// Forgets the entries below `first`.
    pub fn cut_to(
        &mut self,
        first: u64,
        operations: &mut Vec<LogOperation>,
    ) -> Result<(), LogError> {
        if first <= self.cut.index + 1 {
            return Ok(());
        }
        let before = first - 1;
        let term = self.term_of(before)?;
        if self
            .record
            .changes
            .iter()
            .any(|change| change.index <= before)
        {
            self.record.members = self.members_at(before);
            self.record.changes.retain(|change| change.index > before);
            self.record.at = before;
            self.push_members(operations);
        }
        self.cut = Applied {
            index: before,
            term,
        };
        while self
            .cache
            .front()
            .is_some_and(|entry| entry.index <= before)
        {
            self.forget_front();
        }
        self.push_cut(operations);
        Ok(())
    }

    /// Takes what a `Ready` wants kept.
    pub fn append(&mut self, entries: &[Entry], operations: &mut Vec<LogOperation>) {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return;
        };
        while self.cache.back().is_some_and(|entry| entry.index >= first) {
            if let Some(entry) = self.cache.pop_back() {
                self.cache_bytes -= entry.data.len();
            }
        }
        let changes_before = self.record.changes.len();
        self.record.changes.retain(|change| change.index < first);
        let mut members_changed = changes_before != self.record.changes.len();
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.get_entry_type() == EntryType::EntryConfChange {
                members_changed = true;
                self.record.changes.push(RecordedChange {
                    index: entry.index,
                    change: entry.data.to_vec(),
                });
            }
            kept.push(LogEntry {
                index: entry.index,
                term: entry.term,
                data: entry_to_log(entry),
            });
            self.cache_bytes += entry.data.len();
            self.cache.push_back(entry.clone());
        }
        if let Some(last) = entries.last() {
            self.last = last.index;
            self.last_term = Some(last.term);
        }
        operations.push(LogOperation::Append {
            log: self.id,
            entries: kept,
        });
        if members_changed {
            self.push_members(operations);
        }
    }

    /// Remembers a term, a vote and a commit index, durably.
    pub fn set_hard(&mut self, hard: HardState, operations: &mut Vec<LogOperation>) {
        self.hard = hard;
        self.push_hard(operations);
    }

    pub fn set_applied(&mut self, applied: Applied) {
        self.applied = applied;
    }

    /// The members after the change in an entry that is being applied.
    pub fn change_members(&mut self, change: &ConfChange) -> &[Member] {
        apply_change(&mut self.members, change);
        &self.members
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn applied(&self) -> Applied {
        self.applied
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    pub fn first(&self) -> u64 {
        self.cut.index + 1
    }

    /// Keeps the cache within its limit. Only between rounds: what a round has appended can be read from the
    /// log only when the round's batch is queued.
    pub fn trim(&mut self) {
        while self.cache_bytes > CACHE_BYTES_MAX {
            self.forget_front();
        }
    }

    /// Gives the memory of cached entries back: the group is quiet.
    pub fn shrink(&mut self) {
        self.cache = VecDeque::new();
        self.cache_bytes = 0;
    }

    fn forget_front(&mut self) {
        if let Some(entry) = self.cache.pop_front() {
            self.cache_bytes -= entry.data.len();
        }
    }

    fn members_at(&self, index: u64) -> Vec<Member> {
        let mut members = self.record.members.clone();
        for recorded in &self.record.changes {
            if recorded.index > index {
                break;
            }
            if let Ok(change) = ConfChange::parse_from_bytes(&recorded.change) {
                apply_change(&mut members, &change);
            }
        }
        members
    }

    fn term_of(&self, index: u64) -> Result<u64, LogError> {
        if index == self.cut.index {
            return Ok(self.cut.term);
        }
        if index == self.last
            && let Some(term) = self.last_term
        {
            return Ok(term);
        }
        if let Some(entry) = self.cached(index) {
            return Ok(entry.term);
        }
        let entries = self.log.entries(self.id, index, index, 0)?;
        entries
            .first()
            .map(|entry| entry.term)
            .ok_or(LogError::Missing(self.id, index))
    }

    fn cached(&self, index: u64) -> Option<&Entry> {
        let first = self.cache.front()?.index;
        self.cache.get(index.checked_sub(first)? as usize)
    }

    fn push_cut(&self, operations: &mut Vec<LogOperation>) {
        operations.push(LogOperation::Cut {
            log: self.id,
            first: self.cut.index + 1,
        });
        let mut value = Vec::with_capacity(16);
        value.extend_from_slice(&self.cut.index.to_be_bytes());
        value.extend_from_slice(&self.cut.term.to_be_bytes());
        operations.push(LogOperation::Put {
            log: self.id,
            key: CUT_KEY.to_vec(),
            value: value.into(),
        });
    }

    fn push_hard(&self, operations: &mut Vec<LogOperation>) {
        let vote = match planted::is(Bug::VoteNotPersisted) {
            true => 0,
            false => self.hard.vote,
        };
        let mut value = Vec::with_capacity(24);
        value.extend_from_slice(&self.hard.term.to_be_bytes());
        value.extend_from_slice(&vote.to_be_bytes());
        value.extend_from_slice(&self.hard.commit.to_be_bytes());
        operations.push(LogOperation::Put {
            log: self.id,
            key: HARD_KEY.to_vec(),
            value: value.into(),
        });
    }

    fn push_tablet(&self, operations: &mut Vec<LogOperation>) {
        operations.push(LogOperation::Put {
            log: self.id,
            key: TABLET_KEY.to_vec(),
            value: self.tablet.0.to_be_bytes().to_vec().into(),
        });
    }

    fn push_members(&self, operations: &mut Vec<LogOperation>) {
        operations.push(LogOperation::Put {
            log: self.id,
            key: MEMBERS_KEY.to_vec(),
            value: encode(&self.record),
        });
    }
}

impl Storage for GroupLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), conf_state(&self.members)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.cut.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut entries = Vec::new();
        let mut size = 0u64;
        let mut next = low;
        while next < high {
            if self.cached(next).is_none() {
                // The cache holds a tail of the log: what lies before it is read in one go.
                let last = match self.cache.front() {
                    Some(front) => (high - 1).min(front.index - 1),
                    None => high - 1,
                };
                let left = max_size.saturating_sub(size);
                let read = self.log.entries(self.id, next, last, left);
                for entry in read.map_err(storage_error)? {
                    size += entry.data.len() as u64;
                    next = entry.index + 1;
                    entries.push(entry_from_log(entry));
                }
                if size >= max_size {
                    break;
                }
                continue;
            }
            let Some(entry) = self.cached(next) else {
                break;
            };
            size += entry.data.len() as u64;
            if size > max_size && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
            next += 1;
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.cut.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        self.term_of(index).map_err(storage_error)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.cut.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let mut metadata = SnapshotMetadata::default();
        metadata.set_conf_state(conf_state(&self.members));
        metadata.index = self.applied.index;
        metadata.term = self.applied.term;
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(metadata);
        Ok(snapshot)
    }
}

fn storage_error(error: LogError) -> raft::Error {
    match error {
        LogError::Missing(..) => raft::Error::Store(StorageError::Unavailable),
        other => raft::Error::Store(StorageError::Other(Box::new(other))),
    }
}

fn corrupt(id: LogId, what: &str) -> LogError {
    LogError::Corrupt(format!("log {}: {what}", id.0))
}

fn encode<T: Encode<()>>(value: &T) -> Bytes {
    minicbor::to_vec(value)
        .expect("writing to memory does not fail")
        .into()
}

fn decode_applied(bytes: &[u8]) -> Option<Applied> {
    let (index, term) = bytes.split_first_chunk::<8>()?;
    Some(Applied {
        index: u64::from_be_bytes(*index),
        term: u64::from_be_bytes(term.try_into().ok()?),
    })
}

fn decode_hard(bytes: &[u8]) -> Option<HardState> {
    let (term, rest) = bytes.split_first_chunk::<8>()?;
    let (vote, commit) = rest.split_first_chunk::<8>()?;
    Some(HardState {
        term: u64::from_be_bytes(*term),
        vote: u64::from_be_bytes(*vote),
        commit: u64::from_be_bytes(commit.try_into().ok()?),
        ..HardState::default()
    })
}

/// A command as the data of an entry.
pub(crate) fn command_data(mut command: Vec<u8>) -> Bytes {
    command.push(COMMAND);
    command.into()
}

/// The command in an entry's data.
pub(crate) fn command_of(mut data: Bytes) -> Bytes {
    data.truncate(data.len().saturating_sub(1));
    data
}

fn entry_to_log(entry: &Entry) -> Bytes {
    if entry.get_entry_type() == EntryType::EntryNormal {
        return entry.data.clone();
    }
    let mut data = Vec::with_capacity(entry.data.len() + 1);
    data.extend_from_slice(&entry.data);
    data.push(MEMBERS);
    data.into()
}

fn entry_from_log(kept: LogEntry) -> Entry {
    let mut entry = Entry {
        index: kept.index,
        term: kept.term,
        data: kept.data,
        ..Entry::default()
    };
    if entry.data.last() == Some(&MEMBERS) {
        entry.set_entry_type(EntryType::EntryConfChange);
        entry.data.truncate(entry.data.len() - 1);
    }
    entry
}

pub(crate) fn conf_state(members: &[Member]) -> ConfState {
    let mut state = ConfState::default();
    for member in members {
        match member.is_learner {
            true => state.mut_learners().push(member.replica.0),
            false => state.mut_voters().push(member.replica.0),
        }
    }
    state
}

/// How a change is proposed: the member's node travels in the context.
pub(crate) fn conf_change(change: ChangeMembers) -> ConfChange {
    let (kind, replica, node) = match change {
        ChangeMembers::AddLearner(member) => {
            (ConfChangeType::AddLearnerNode, member.replica, member.node)
        }
        ChangeMembers::AddVoter(member) => (ConfChangeType::AddNode, member.replica, member.node),
        ChangeMembers::Remove(replica) => (ConfChangeType::RemoveNode, replica, NodeId(0)),
    };
    let mut conf_change = ConfChange::default();
    conf_change.set_change_type(kind);
    conf_change.node_id = replica.0;
    conf_change.context = node.0.to_be_bytes().to_vec().into();
    conf_change
}

fn apply_change(members: &mut Vec<Member>, change: &ConfChange) {
    let replica = ReplicaId(change.node_id);
    let node = <[u8; 8]>::try_from(change.context.as_ref()).map_or(0, u64::from_be_bytes);
    members.retain(|member| member.replica != replica);
    if change.get_change_type() != ConfChangeType::RemoveNode {
        members.push(Member {
            replica,
            node: NodeId(node),
            is_learner: change.get_change_type() == ConfChangeType::AddLearnerNode,
        });
        members.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim::disk::SimDisk;
    use world::LogBatch;

    /// Also when an installation has begun the log anew.
    #[tokio::test(start_paused = true)]
    async fn a_log_says_which_tablet_it_is_of() {
        let (log, _) = SimDisk::new(1).open();
        let (tablet, replica) = (TabletId(3), ReplicaId(7));
        assert_eq!(tablet_of(log.as_ref(), replica), None);
        let mut operations = Vec::new();
        let founded = Some(Applied::default());
        let opened = GroupLog::open(log.clone(), tablet, replica, founded, &mut operations);
        let (mut group, _) = opened.unwrap();
        group.reset(FOUNDED_AT, Vec::new(), &mut operations);
        log.write(LogBatch { operations }).await.unwrap();
        assert_eq!(tablet_of(log.as_ref(), replica), Some(tablet));
    }

    /// A voter that forgets its vote gives it to two candidates of one term.
    #[test]
    fn a_vote_outlives_a_crash() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (tablet, replica) = (TabletId(3), ReplicaId(7));
        for (bug, vote) in [(None, 3), (Some(Bug::VoteNotPersisted), 0)] {
            planted::plant(bug);
            let found = runtime.block_on(async {
                let disk = SimDisk::new(1);
                let (log, _) = disk.open();
                let mut operations = Vec::new();
                let founded = Some(Applied::default());
                let opened = GroupLog::open(log.clone(), tablet, replica, founded, &mut operations);
                let (mut group, _) = opened.unwrap();
                let hard = HardState {
                    term: 5,
                    vote: 3,
                    commit: FOUNDED_AT.index,
                    ..HardState::default()
                };
                group.set_hard(hard, &mut operations);
                log.write(LogBatch { operations }).await.unwrap();
                disk.crash();
                let (log, _) = disk.open();
                let mut operations = Vec::new();
                let opened = GroupLog::open(log, tablet, replica, founded, &mut operations);
                assert!(
                    operations.is_empty(),
                    "it knows whose it is: {operations:?}"
                );
                opened.unwrap().0.hard
            });
            planted::plant(None);
            assert_eq!((found.term, found.vote), (5, vote), "{bug:?}");
        }
    }
}
