//! Sleep: a quiet group's members stop counting ticks, and say nothing until something happens. Nodes then watch
//! over each other, one sign of life for all groups they share; a group wakes when the node of its leader, or of
//! one of its members, falls silent or comes back.

use crate::Member;
use crate::frame::{Kind, Outbox};
use crate::group::Group;
use bytes::BufMut;
use model::{NodeId, ReplicaId};
use raft::StateRole;

impl Group {
    /// A quiet leader tells its members to stop counting, and stops itself. Nodes, not groups, then watch over each
    /// other.
    pub(crate) fn hibernate(&mut self, is_alive: &dyn Fn(NodeId) -> bool, outbox: &mut Outbox) {
        let last = self.raw.raft.raft_log.last_index();
        let is_quiet = self.is_leader()
            && self.pending.is_empty()
            && self.queued.is_empty()
            && self.confirming.is_empty()
            && self.in_flight == 0
            && self.sending.is_empty()
            && self.committed() == last
            && self.raw.store().applied().index == last
            && self.raw.raft.lead_transferee.is_none();
        if !is_quiet {
            return;
        }
        let others: Vec<Member> = self
            .members()
            .iter()
            .filter(|member| member.replica != self.replica)
            .copied()
            .collect();
        let matched = self.matched();
        let lags = others
            .iter()
            .any(|member| is_alive(member.node) && !matched.contains(&(member.replica, last)));
        if lags {
            return;
        }
        let term = self.raw.raft.term;
        for member in others {
            let address = (self.tablet, member.replica, self.replica);
            outbox.push(member.node, Kind::Hibernate, address, |body| {
                body.put_u64(term);
                body.put_u64(last);
            });
        }
        self.fall_asleep();
    }

    pub fn hear_hibernate(&mut self, from: ReplicaId, body: &[u8]) {
        let Some((term, last)) = body.split_first_chunk::<8>() else {
            return;
        };
        let Ok(last) = <[u8; 8]>::try_from(last) else {
            return;
        };
        let (term, last) = (u64::from_be_bytes(*term), u64::from_be_bytes(last));
        let raft = &self.raw.raft;
        if raft.term == term
            && raft.leader_id == from.0
            && raft.raft_log.last_index() == last
            && raft.raft_log.committed == last
            && self.in_flight == 0
            && !self.is_broken
        {
            self.fall_asleep();
        }
    }

    fn fall_asleep(&mut self) {
        self.is_hibernating = true;
        self.raw.mut_store().shrink();
    }

    pub fn wake(&mut self) {
        if self.rouse() && self.raw.raft.state == StateRole::Leader {
            self.raw.ping();
        }
    }

    /// Counts ticks again, and leaves it to the caller to wake the others. Says whether it slept.
    pub(crate) fn rouse(&mut self) -> bool {
        let slept = std::mem::take(&mut self.is_hibernating);
        if slept {
            self.idle_ticks = 0;
            self.raw.raft.election_elapsed = 0;
        }
        slept
    }

    /// A node has gone silent, or has come back: whoever counted on it counts again.
    pub fn node_changed(&mut self, node: NodeId, is_alive: bool) {
        let leads = self.is_leader();
        let concerns = match leads {
            true => self.members().iter().any(|member| member.node == node),
            false => self.leader().is_none_or(|leader| leader.node == node),
        };
        if !concerns {
            return;
        }
        let was_hibernating = self.is_hibernating;
        self.wake();
        if was_hibernating && !leads && !is_alive {
            // The silence has lasted an election timeout already.
            self.raw.raft.election_elapsed = self.config.election_ticks as usize;
        }
    }

    /// Whether the loop must tick this group.
    pub fn is_awake(&self) -> bool {
        !self.is_hibernating
            || !self.pending.is_empty()
            || !self.sending.is_empty()
            || self.receiving.is_some()
    }
}
