//! The acceptor's side of Paxos: the rules are `crate::paxos`'s, here is where they become durable.
//!
//! A partition's state is part of the replica's log, as the state that a step has led to, and of its store, under
//! a key of its own kind. Each step builds on the last one appended, merged or not, so the log's order is the
//! order of the steps; an answer goes out only when the entry of its step is synced, whatever durability the
//! table asks for its rows. A restarted replica has promised whatever it has told anybody.

use super::record::Record;
use super::{EventualReplica, Writer, broken, elsewhere};
use crate::message::{RawRow, ReplicaError, Reply};
use crate::paxos::{Ballot, PartitionState, PaxosReply, PaxosRequest, RawState};
use api::KeyRange;
use catalog::Durability;
use model::PlacementEpoch;
use std::collections::BTreeMap;
use std::sync::Arc;
use world::planted::{self, Bug};
use world::{Kind, StoreOperation};

/// A page of states ends behind the one that passes this size.
const STATES_BYTES_MAX: usize = 1 << 20;

/// Where the store keeps a partition's state.
pub(super) fn state_key(partition: &[u8]) -> Vec<u8> {
    let mut key = vec![Kind::State as u8];
    key.extend_from_slice(PREFIX);
    key.extend_from_slice(partition);
    key
}

const PREFIX: &[u8] = b"paxos";

/// Where the store keeps the states of a range's partitions.
pub(super) fn span(range: &KeyRange) -> (Vec<u8>, Vec<u8>) {
    let end = match &range.end {
        Some(end) => state_key(end),
        // The prefix ends with a letter.
        None => model::key::prefix_end(&state_key(&[])).unwrap_or_default(),
    };
    (state_key(&range.start), end)
}

/// What states of log entries, in their order, come to in the store.
pub(super) fn stored<'a>(
    states: impl Iterator<Item = &'a RawState>,
) -> impl Iterator<Item = StoreOperation> {
    let newest: BTreeMap<&[u8], &[u8]> = states
        .map(|state| (state.partition.as_slice(), state.state.as_slice()))
        .collect();
    newest
        .into_iter()
        .map(|(partition, state)| StoreOperation::Put {
            key: state_key(partition),
            value: state.to_vec(),
        })
}

/// How durable a promise or acceptance is when it is told.
fn vote_durability() -> Durability {
    if planted::is(Bug::PromiseNotSynced) {
        return Durability::Periodic { interval_ms: 1_000 };
    }
    Durability::Synced
}

/// What `Bug::PaxosForgetsAccepted` does.
pub(super) fn forget_accepted(record: &mut Record) {
    for raw in &mut record.states {
        if let Ok(mut state) = PartitionState::from_bytes(&raw.state) {
            state.accepted = None;
            raw.state = state.to_bytes();
        }
    }
}

impl EventualReplica {
    pub(super) async fn paxos(
        self: &Arc<Self>,
        epoch: PlacementEpoch,
        request: PaxosRequest,
    ) -> Result<Reply, ReplicaError> {
        match request {
            PaxosRequest::Prepare {
                partition,
                ballot,
                read,
            } => {
                let promise = |state: &mut PartitionState| {
                    state.promise(ballot)?;
                    Ok(Vec::new())
                };
                self.settle().await?;
                match self
                    .step(epoch, partition, vote_durability(), promise)
                    .await?
                {
                    Err(later) => Ok(Reply::Paxos(PaxosReply::Outbid(later))),
                    Ok(state) => Ok(Reply::Paxos(PaxosReply::Promised {
                        accepted: state.accepted,
                        committed: state.committed,
                        // Behind the promise, so that it has all that was committed before.
                        page: self.read(&read)?,
                    })),
                }
            }
            PaxosRequest::Accept {
                partition,
                proposal,
            } => {
                let accept = |state: &mut PartitionState| {
                    state.accept(proposal)?;
                    Ok(Vec::new())
                };
                let outcome = self.step(epoch, partition, vote_durability(), accept);
                Ok(Reply::Paxos(match outcome.await? {
                    Ok(_) => PaxosReply::Accepted,
                    Err(later) => PaxosReply::Outbid(later),
                }))
            }
            PaxosRequest::Commit {
                partition,
                proposal,
                durability,
            } => {
                let commit = |state: &mut PartitionState| {
                    let deltas = proposal.deltas.clone();
                    state.commit(proposal);
                    Ok(deltas)
                };
                let outcome = self.step(epoch, partition, durability, commit).await?;
                debug_assert!(outcome.is_ok(), "a decision is never refused");
                Ok(Reply::Applied)
            }
            PaxosRequest::States { range } => {
                self.settle().await?;
                self.states(&range).map(Reply::Paxos)
            }
        }
    }

    /// Takes one step: the state that it leads to, with rows to merge, becomes the next entry of the log. Returns
    /// when that is durable and merged; at once when the step is refused.
    async fn step(
        self: &Arc<Self>,
        epoch: PlacementEpoch,
        partition: Vec<u8>,
        durability: Durability,
        rule: impl FnOnce(&mut PartitionState) -> Result<Vec<RawRow>, Ballot>,
    ) -> Result<Result<PartitionState, Ballot>, ReplicaError> {
        self.yield_to_pressure().await?;
        let (appended, state) = {
            let mut writer = self.writer.lock();
            // Once more: the placement may have changed while the request waited.
            self.check_epoch(epoch)?;
            if !self.tablet.read().range.contains(&partition) {
                return Err(elsewhere());
            }
            let mut state = self.state_of(&writer, &partition)?;
            let deltas = match rule(&mut state) {
                Ok(deltas) => deltas,
                Err(later) => return Ok(Err(later)),
            };
            let record = Record {
                deltas,
                states: vec![RawState {
                    partition,
                    state: state.to_bytes(),
                }],
            };
            let data = record.encode();
            let appended = self.append(&mut writer, record, data, durability)?;
            (appended, state)
        };
        self.merged(appended).await?;
        Ok(Ok(state))
    }

    /// The state that the last entry left, merged or not.
    fn state_of(&self, writer: &Writer, partition: &[u8]) -> Result<PartitionState, ReplicaError> {
        if let Some((_, state)) = writer.states.get(partition) {
            return PartitionState::from_bytes(state).map_err(ReplicaError::Broken);
        }
        let stored = self
            .store
            .get(&state_key(partition), &self.store.snapshot())
            .map_err(broken)?;
        match stored {
            Some(state) => PartitionState::from_bytes(&state).map_err(ReplicaError::Broken),
            None => Ok(PartitionState::default()),
        }
    }

    /// A page of what is remembered of the partitions in a range.
    fn states(&self, range: &KeyRange) -> Result<PaxosReply, ReplicaError> {
        let (start, end) = span(range);
        let snapshot = self.store.snapshot();
        let (mut states, mut size) = (Vec::new(), 0);
        for item in self.store.scan(&start, Some(&end), &snapshot) {
            let (key, state) = item.map_err(broken)?;
            let partition = key[1 + PREFIX.len()..].to_vec();
            if size >= STATES_BYTES_MAX {
                return Ok(PaxosReply::States {
                    states,
                    next: Some(partition),
                });
            }
            size += partition.len() + state.len();
            states.push(RawState {
                partition,
                state: state.to_vec(),
            });
        }
        Ok(PaxosReply::States { states, next: None })
    }

    /// Takes over what another replica remembers, while this one is being filled, in data centre `center`.
    pub async fn absorb_states(
        self: &Arc<Self>,
        states: Vec<RawState>,
        center: &str,
    ) -> Result<(), ReplicaError> {
        if states.is_empty() {
            return Ok(());
        }
        self.yield_to_pressure().await?;
        let appended = {
            let mut writer = self.writer.lock();
            let mut record = Record::default();
            for RawState { partition, state } in states {
                let other = PartitionState::from_bytes(&state).map_err(ReplicaError::Invalid)?;
                let mut known = self.state_of(&writer, &partition)?;
                // Its rows come with the rows.
                known.absorb(other, center);
                record.states.push(RawState {
                    partition,
                    state: known.to_bytes(),
                });
            }
            let data = record.encode();
            self.append(&mut writer, record, data, Durability::Synced)?
        };
        self.merged(appended).await
    }
}
