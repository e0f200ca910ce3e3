//! How far a replica has come in taking over what others hold, so that a stream that was cut short goes on where it was.
//!
//! It is noted in the log behind what was taken, so it never runs ahead of that. It holds within one placement: what
//! the others take meanwhile is sent here as well, or counted on more of them.

use super::{EventualReplica, broken};
use crate::message::ReplicaError;
use minicbor::{Decode, Encode};
use model::{NodeId, PlacementEpoch};
use std::collections::BTreeMap;
use world::{LogBatch, LogOperation};

/// The log's record of it.
const FILLING: &[u8] = b"filling";
/// How soon a note is durable: what is lost of it is streamed once more.
const NOTED_WITHIN_MS: u32 = 100;

/// What comes next from one of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Stage {
    #[n(0)]
    #[default]
    Begin,
    /// Its rows from this key on.
    #[n(1)]
    Rows(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// What it has promised, accepted and knows to be decided, from this partition on.
    #[n(2)]
    States(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Nothing: all of it is here.
    #[n(3)]
    Done,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Filling {
    #[n(0)]
    epoch: PlacementEpoch,
    #[n(1)]
    stages: BTreeMap<NodeId, Stage>,
}

impl EventualReplica {
    fn filling(&self, epoch: PlacementEpoch) -> Result<Filling, ReplicaError> {
        let record = self.log.get(self.log_id, FILLING);
        let known: Option<Filling> = record
            .map(|record| minicbor::decode(&record))
            .transpose()
            .map_err(|error| broken(format!("the record of streams is malformed: {error}")))?;
        let is_of_now = |known: &Filling| known.epoch == epoch;
        Ok(known.filter(is_of_now).unwrap_or(Filling {
            epoch,
            stages: BTreeMap::new(),
        }))
    }

    /// How far this replica has come with a node's, in this placement.
    pub fn stage(&self, epoch: PlacementEpoch, source: NodeId) -> Result<Stage, ReplicaError> {
        let mut known = self.filling(epoch)?;
        Ok(known.stages.remove(&source).unwrap_or_default())
    }

    /// Notes it, once all before it has been applied.
    pub fn note_stage(
        &self,
        epoch: PlacementEpoch,
        source: NodeId,
        stage: Stage,
    ) -> Result<(), ReplicaError> {
        let mut known = self.filling(epoch)?;
        known.stages.insert(source, stage);
        let value = minicbor::to_vec(&known).expect("writing to memory does not fail");
        let put = LogOperation::Put {
            log: self.log_id,
            key: FILLING.to_vec(),
            value: value.into(),
        };
        let operations = vec![put];
        self.log
            .write_later(LogBatch { operations }, NOTED_WITHIN_MS);
        Ok(())
    }
}
