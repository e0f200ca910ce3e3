//! A member that lags behind the leader's log, or whose state is unusable, is sent the leader's state in
//! chunks.
//!
//! The sender holds one state open and sends a chunk at a time; each answer says which chunk the receiver
//! wants next, so that a lost message costs a chunk and not the transfer. The last chunk is empty. The receiver
//! builds the new state beside the old one, records the members that belong to it, waits until that is
//! durable, lets the state machine swap, and then begins anew from log and state as a restarted replica does: the
//! library never sees the snapshot.

use crate::frame::{Item, Kind, Outbox};
use crate::group::Group;
use crate::log::InstallRecord;
use crate::{MachineError, Member, SnapshotSource};
use bytes::{Buf, BufMut, Bytes};
use minicbor::{Decode, Encode};
use model::{NodeId, ReplicaId};
use raft::SnapshotStatus;
use tracing::{error, info, warn};
use world::Applied;

/// About how large a chunk is.
const CHUNK_BYTES: usize = 256 << 10;
/// States that a group sends at the same time.
const SENDING_MAX: usize = 2;
/// A chunk that is not answered is sent again after so many ticks, and the transfer ends after so many more.
const RESEND_TICKS: u64 = 10;
const GIVE_UP_TICKS: u64 = 150;

/// A transfer, on the leader.
pub(crate) struct Sending {
    id: u64,
    source: Box<dyn SnapshotSource>,
    applied: Applied,
    members: Vec<Member>,
    /// The chunk that was sent last, and the key that it begins behind.
    sequence: u64,
    after: Option<Bytes>,
    /// The last key in it.
    last: Option<Bytes>,
    sent_tick: u64,
    answered_tick: u64,
    /// The library waits for this transfer.
    is_awaited: bool,
}

/// A transfer, on the member that receives it.
pub(crate) struct Receiving {
    id: u64,
    from: ReplicaId,
    record: InstallRecord,
    next: u64,
    is_complete: bool,
    heard_tick: u64,
}

impl Receiving {
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct ChunkHeader {
    #[n(0)]
    id: u64,
    #[n(1)]
    sequence: u64,
    #[n(2)]
    record: InstallRecord,
    #[n(3)]
    pair_count: u32,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
enum Answer {
    /// Chunks below this one are there.
    #[n(0)]
    Next {
        #[n(0)]
        id: u64,
        #[n(1)]
        sequence: u64,
    },
    /// The state is installed, or not needed.
    #[n(1)]
    Done {
        #[n(0)]
        id: u64,
    },
    /// The receiver does not know this transfer: another must begin.
    #[n(2)]
    Unknown {
        #[n(0)]
        id: u64,
    },
}

impl Group {
    /// Begins to send the state to a member. `is_awaited`: the library wants it.
    pub(crate) fn start_sending(&mut self, to: ReplicaId, is_awaited: bool, outbox: &mut Outbox) {
        if let Some(sending) = self.sending.get_mut(&to) {
            sending.is_awaited |= is_awaited;
            return;
        }
        let source = match self.is_leader() && self.sending.len() < SENDING_MAX {
            true => self.machine.snapshot(),
            false => Err(MachineError("too many transfers".into())),
        };
        let source = match source {
            Ok(source) => source,
            Err(error) => {
                warn!(tablet = %self.tablet, %to, %error, "the state is not sent");
                if is_awaited {
                    self.raw.report_snapshot(to.0, SnapshotStatus::Failure);
                }
                return;
            }
        };
        let applied = self.raw.store().applied();
        info!(tablet = %self.tablet, %to, index = applied.index, "sending the state");
        let sending = Sending {
            // Unique among this leader's transfers, and with the term among all leaders'.
            id: (self.raw.raft.term << 24) ^ self.ticks ^ (to.0 << 48),
            source,
            applied,
            members: self.members().to_vec(),
            sequence: 0,
            after: None,
            last: None,
            sent_tick: self.ticks,
            answered_tick: self.ticks,
            is_awaited,
        };
        self.sending.insert(to, sending);
        self.send_chunk(to, outbox);
    }

    fn send_chunk(&mut self, to: ReplicaId, outbox: &mut Outbox) {
        let node = self.node_of(to);
        let ticks = self.ticks;
        let address = (self.tablet, to, self.replica);
        let (Some(sending), Some(node)) = (self.sending.get_mut(&to), node) else {
            return;
        };
        let pairs = match sending.source.read(sending.after.as_deref(), CHUNK_BYTES) {
            Ok(pairs) => pairs,
            Err(error) => {
                error!(tablet = %self.tablet, %error, "the state cannot be read");
                return self.end_sending(to, SnapshotStatus::Failure);
            }
        };
        sending.sent_tick = ticks;
        sending.last = pairs.last().map(|(key, _)| key.clone());
        let header = ChunkHeader {
            id: sending.id,
            sequence: sending.sequence,
            record: InstallRecord {
                index: sending.applied.index,
                term: sending.applied.term,
                members: sending.members.clone(),
            },
            pair_count: pairs.len() as u32,
        };
        outbox.push(node, Kind::SnapshotChunk, address, |body| {
            let header = minicbor::to_vec(&header).expect("writing to memory does not fail");
            body.put_u32(header.len() as u32);
            body.put_slice(&header);
            for (key, value) in &pairs {
                body.put_u32(key.len() as u32);
                body.put_u32(value.len() as u32);
                body.put_slice(key);
                body.put_slice(value);
            }
        });
    }

    fn end_sending(&mut self, to: ReplicaId, status: SnapshotStatus) {
        if let Some(sending) = self.sending.remove(&to)
            && sending.is_awaited
        {
            self.raw.report_snapshot(to.0, status);
        }
    }

    pub(crate) fn hear_snapshot_answer(
        &mut self,
        from: ReplicaId,
        body: &[u8],
        outbox: &mut Outbox,
    ) {
        let Ok(answer) = minicbor::decode::<Answer>(body) else {
            return;
        };
        let ticks = self.ticks;
        let Some(sending) = self.sending.get_mut(&from) else {
            return;
        };
        match answer {
            Answer::Next { id, sequence } if id == sending.id => {
                sending.answered_tick = ticks;
                if sequence == sending.sequence + 1 && sending.last.is_some() {
                    sending.sequence = sequence;
                    sending.after = sending.last.take();
                    self.send_chunk(from, outbox);
                }
            }
            Answer::Done { id } if id == sending.id => {
                info!(tablet = %self.tablet, to = %from, "the state is installed");
                self.end_sending(from, SnapshotStatus::Finish);
            }
            Answer::Unknown { id } if id == sending.id => {
                self.end_sending(from, SnapshotStatus::Failure);
            }
            _ => {}
        }
    }

    /// Asks the leader for its state, now and then.
    pub(crate) fn want_snapshot(&mut self, leader: ReplicaId) {
        let is_recent = self
            .request_tick
            .is_some_and(|tick| self.ticks < tick + RESEND_TICKS);
        if self.receiving.is_none() && !is_recent {
            self.request_tick = Some(self.ticks);
            self.wanted_from = Some(leader);
        }
    }

    pub(crate) fn hear_snapshot_request(&mut self, from: ReplicaId, outbox: &mut Outbox) {
        if self.is_leader() {
            self.wake();
            self.start_sending(from, false, outbox);
        }
    }

    pub(crate) fn hear_snapshot_chunk(&mut self, node: NodeId, item: &Item, outbox: &mut Outbox) {
        let Some((header, pairs)) = decode_chunk(item.body.clone()) else {
            warn!(tablet = %self.tablet, %node, "a chunk of a state is not readable");
            return;
        };
        self.wake();
        let id = header.id;
        let is_known = self
            .receiving
            .as_ref()
            .is_some_and(|receiving| receiving.id == id && receiving.from == item.from);
        if !is_known {
            if header.sequence != 0 {
                return self.answer(node, item.from, &Answer::Unknown { id }, outbox);
            }
            let is_needed =
                self.is_broken || self.is_given_up || self.committed() < header.record.index;
            if self.is_leader() || !is_needed {
                return self.answer(node, item.from, &Answer::Done { id }, outbox);
            }
            // A new leader may have applied less than this replica: neither what it acknowledged may be lost, nor
            // may a state that serves go back.
            let known = self.raw.store();
            let is_behind = header.record.index + 1 < known.first()
                || !self.is_broken && header.record.index < known.applied().index;
            if is_behind {
                return self.answer(node, item.from, &Answer::Unknown { id }, outbox);
            }
            if let Err(error) = self.machine.begin_install() {
                error!(tablet = %self.tablet, %error, "the installation cannot begin");
                return;
            }
            self.is_given_up = true;
            info!(tablet = %self.tablet, from = %item.from, index = header.record.index, "installing");
            let store = self.raw.store();
            store.push_install(&header.record, &mut self.operations);
            self.receiving = Some(Receiving {
                id,
                from: item.from,
                record: header.record,
                next: 0,
                is_complete: false,
                heard_tick: self.ticks,
            });
        }
        self.take_chunk(node, header.sequence, pairs, outbox);
    }

    fn take_chunk(
        &mut self,
        node: NodeId,
        sequence: u64,
        pairs: Vec<(Bytes, Bytes)>,
        outbox: &mut Outbox,
    ) {
        let Some(receiving) = &mut self.receiving else {
            return;
        };
        receiving.heard_tick = self.ticks;
        if sequence == receiving.next && !receiving.is_complete {
            if pairs.is_empty() {
                receiving.is_complete = true;
            } else if let Err(error) = self.machine.install(pairs) {
                error!(tablet = %self.tablet, %error, "a chunk cannot be installed");
                self.receiving = None;
                self.is_broken = true;
                return;
            }
            receiving.next += 1;
        }
        if !receiving.is_complete {
            let answer = Answer::Next {
                id: receiving.id,
                sequence: receiving.next,
            };
            let from = receiving.from;
            self.answer(node, from, &answer, outbox);
        }
    }

    fn answer(&self, node: NodeId, to: ReplicaId, answer: &Answer, outbox: &mut Outbox) {
        let address = (self.tablet, to, self.replica);
        outbox.push(node, Kind::SnapshotAnswer, address, |body| {
            body.extend(minicbor::to_vec(answer).expect("writing to memory does not fail"));
        });
    }

    /// When all of a state is there and nothing is on its way to the log, takes it.
    pub(crate) fn finish_receiving(&mut self, outbox: &mut Outbox) {
        if let Some(leader) = self.wanted_from.take()
            && let Some(node) = self.node_of(leader)
        {
            let address = (self.tablet, leader, self.replica);
            outbox.push(node, Kind::SnapshotRequest, address, |_| {});
        }
        let is_ready = self.receiving.as_ref().is_some_and(Receiving::is_complete)
            && self.in_flight == 0
            && self.operations.is_empty();
        if !is_ready {
            return;
        }
        let Some(receiving) = self.receiving.take() else {
            return;
        };
        let index = receiving.record.index;
        match self.finish_install(receiving.record) {
            Ok(()) => {
                info!(tablet = %self.tablet, index, "installed");
                self.is_broken = false;
                self.is_given_up = false;
                self.forget_pending(index);
                if let Some(node) = self.node_of(receiving.from) {
                    let done = Answer::Done { id: receiving.id };
                    self.answer(node, receiving.from, &done, outbox);
                }
            }
            Err(error) => {
                error!(tablet = %self.tablet, %error, "the installation failed");
                self.is_broken = true;
            }
        }
    }

    fn finish_install(&mut self, record: InstallRecord) -> Result<(), MachineError> {
        let applied = Applied {
            index: record.index,
            term: record.term,
        };
        self.machine.finish_install(applied)?;
        let failed = |error: world::LogError| MachineError(error.to_string());
        // What the library holds and has not handed out was never promised to anyone: it is dropped with it.
        let mut log = self.raw.mut_store().take();
        log.installed(record, &mut self.operations)
            .map_err(failed)?;
        self.rebuild(log).map_err(failed)
    }

    pub(crate) fn tick_snapshots(
        &mut self,
        is_alive: &dyn Fn(NodeId) -> bool,
        outbox: &mut Outbox,
    ) {
        if self
            .receiving
            .as_ref()
            .is_some_and(|receiving| receiving.heard_tick + GIVE_UP_TICKS < self.ticks)
            && self
                .receiving
                .take_if(|receiving| !receiving.is_complete)
                .is_some()
        {
            warn!(tablet = %self.tablet, "the sender of a state is gone");
        }
        if self.sending.is_empty() {
            return;
        }
        let leads = self.is_leader();
        let receivers: Vec<ReplicaId> = self.sending.keys().copied().collect();
        for to in receivers {
            let is_reachable = self.node_of(to).is_some_and(is_alive);
            let Some(sending) = self.sending.get(&to) else {
                continue;
            };
            if !leads || !is_reachable || sending.answered_tick + GIVE_UP_TICKS < self.ticks {
                self.end_sending(to, SnapshotStatus::Failure);
            } else if sending.sent_tick + RESEND_TICKS <= self.ticks {
                self.send_chunk(to, outbox);
            }
        }
    }
}

fn decode_chunk(mut body: Bytes) -> Option<(ChunkHeader, Vec<(Bytes, Bytes)>)> {
    let header_length = body.try_get_u32().ok()? as usize;
    if body.len() < header_length {
        return None;
    }
    let header: ChunkHeader = minicbor::decode(&body.split_to(header_length)).ok()?;
    let mut pairs = Vec::new();
    for _ in 0..header.pair_count {
        let key_length = body.try_get_u32().ok()? as usize;
        let value_length = body.try_get_u32().ok()? as usize;
        if body.len() < key_length.checked_add(value_length)? {
            return None;
        }
        let key = body.split_to(key_length);
        pairs.push((key, body.split_to(value_length)));
    }
    body.is_empty().then_some((header, pairs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn chunk(pairs: &Pairs, pair_count: u32) -> Vec<u8> {
        let record = InstallRecord {
            index: 9,
            term: 2,
            members: Vec::new(),
        };
        let header = ChunkHeader {
            id: 1,
            sequence: 4,
            record,
            pair_count,
        };
        let header = minicbor::to_vec(&header).unwrap();
        let mut body = Vec::new();
        body.put_u32(header.len() as u32);
        body.put_slice(&header);
        for (key, value) in pairs {
            body.put_u32(key.len() as u32);
            body.put_u32(value.len() as u32);
            body.put_slice(key);
            body.put_slice(value);
        }
        body
    }

    fn pairs() -> impl Strategy<Value = Pairs> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
        proptest::collection::vec((bytes(), bytes()), 0..5)
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_chunk(bytes.into());
        }

        #[test]
        fn chunks_come_back_whole_or_not_at_all(pairs in pairs(), cut in any::<prop::sample::Index>()) {
            let body = chunk(&pairs, pairs.len() as u32);
            let cut = cut.index(body.len());
            prop_assert!(decode_chunk(body[..cut].to_vec().into()).is_none());
            let longer = [&body[..], &[0]].concat();
            prop_assert!(decode_chunk(longer.into()).is_none());
            let (header, read) = decode_chunk(body.into()).unwrap();
            prop_assert_eq!(header.sequence, 4);
            let read: Pairs = read.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
            prop_assert_eq!(read, pairs);
        }

        /// An announcement alone takes neither memory nor time.
        #[test]
        fn more_pairs_than_there_are_is_refused(pairs in pairs(), more in 1..=u32::MAX - 5) {
            let count = pairs.len() as u32 + more;
            prop_assert!(decode_chunk(chunk(&pairs, count).into()).is_none());
        }

        #[test]
        fn damaged_chunks_are_refused_or_read(pairs in pairs(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut body = chunk(&pairs, pairs.len() as u32);
            let at = at.index(body.len());
            body[at] = byte;
            let size = body.len();
            if let Some((_, read)) = decode_chunk(body.into()) {
                let taken: usize = read.iter().map(|(key, value)| 8 + key.len() + value.len()).sum();
                prop_assert!(taken < size);
            }
        }
    }
}
