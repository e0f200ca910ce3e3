//! A leader's confirmation that it still leads, without an entry in the log (Ongaro 2014, "Consensus: Bridging Theory and
//! Practice", section 6.4): a round of heartbeats that a majority answers in its term.

use crate::group::{Group, Resolver};
use crate::groups::{Done, ProposeError};
use bytes::Bytes;
use raft::ReadState;

pub(crate) struct Confirming {
    /// What the library knows it by.
    context: u64,
    term: u64,
    /// The end of the log when it was asked for.
    index: u64,
    has_majority: bool,
    resolver: Resolver,
}

impl Confirming {
    pub fn give_up(self) {
        (self.resolver)(Err(ProposeError::Dropped));
    }
}

impl Group {
    /// Resolves when it is known that this replica led at a moment after the call, and all that its log held then is
    /// applied here.
    pub fn confirm(&mut self, resolver: Resolver) {
        self.flush_proposals();
        if !self.is_leader() {
            let leader = self.leader();
            return resolver(Err(ProposeError::NotLeader { leader }));
        }
        // The library forgets what a leader asks that has not committed in its own term.
        if !self.raw.raft.commit_to_current_term() {
            return resolver(Err(ProposeError::Dropped));
        }
        // The heartbeats wake the others: all may sleep again as soon as this is over.
        if self.rouse() {
            self.idle_ticks = self.config.hibernate_ticks;
        }
        self.confirms += 1;
        self.confirming.push(Confirming {
            context: self.confirms,
            term: self.raw.raft.term,
            index: self.raw.raft.raft_log.last_index(),
            has_majority: false,
            resolver,
        });
        self.raw.read_index(self.confirms.to_be_bytes().to_vec());
    }

    /// A majority has answered.
    pub(crate) fn take_confirmed(&mut self, states: &[ReadState]) {
        for state in states {
            let mut asked = self.confirming.iter_mut();
            let is_it = |it: &&mut Confirming| state.request_ctx == it.context.to_be_bytes();
            if let Some(confirming) = asked.find(is_it) {
                confirming.has_majority = true;
            }
        }
    }

    /// Answers what is confirmed and applied, and what will not be any more.
    pub(crate) fn answer_confirmed(&mut self) {
        if self.confirming.is_empty() {
            return;
        }
        let leads_in = self.is_leader().then_some(self.raw.raft.term);
        let applied = self.raw.store().applied().index;
        for confirming in std::mem::take(&mut self.confirming) {
            if leads_in != Some(confirming.term) {
                let leader = self.leader();
                (confirming.resolver)(Err(ProposeError::NotLeader { leader }));
            } else if confirming.has_majority && confirming.index <= applied {
                (confirming.resolver)(Ok(Done {
                    index: applied,
                    term: confirming.term,
                    result: Bytes::new(),
                }));
            } else {
                self.confirming.push(confirming);
            }
        }
    }
}
