//! The placement that a replica goes by: the newest that it was told of, also in a former life.
//!
//! Whoever fills a replica from here, or makes half a tablet of it, relies on nothing being taken any more that was meant
//! for an older placement. A node that starts anew may know less than it did: so the placement is a record of the log,
//! durable before anything is read or copied on the strength of it.

use super::{EventualReplica, Failure, broken};
use crate::message::ReplicaError;
use cluster::Tablet;
use model::PlacementEpoch;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use world::{Durable, Log, LogBatch, LogId, LogOperation};

/// The log's record of it.
const PLACEMENT: &[u8] = b"placement";
/// Nothing was ever meant for an older one.
const FIRST: PlacementEpoch = PlacementEpoch(1);

/// The placement that this replica was told of last, if that is on record.
pub(super) fn recorded(log: &dyn Log, log_id: LogId) -> Result<Option<Tablet>, ReplicaError> {
    let record = log.get(log_id, PLACEMENT);
    let tablet = record.map(|record| minicbor::decode(&record)).transpose();
    tablet.map_err(|error| broken(format!("the record of the placement is malformed: {error}")))
}

impl EventualReplica {
    /// Puts a placement on record, where a crash could make the replica go by an older one.
    pub(super) fn record_placement(self: &Arc<Self>, tablet: &Tablet) {
        let epoch = tablet.epoch;
        if epoch <= FIRST {
            self.recorded.fetch_max(epoch.0, Ordering::AcqRel);
            return;
        }
        let value = minicbor::to_vec(tablet).expect("writing to memory does not fail");
        let put = LogOperation::Put {
            log: self.log_id,
            key: PLACEMENT.to_vec(),
            value: value.into(),
        };
        let operations = vec![put];
        let durable = self.log.write(LogBatch { operations });
        let replica = Arc::clone(self);
        crate::peers::spawn(self.tasks.as_ref(), async move {
            replica.await_record(epoch, durable).await;
        });
    }

    async fn await_record(&self, epoch: PlacementEpoch, durable: Durable) {
        match durable.await {
            Ok(()) => {
                self.recorded.fetch_max(epoch.0, Ordering::AcqRel);
            }
            Err(error) => {
                self.fail(Failure::Log(error.to_string()));
            }
        }
    }

    /// Whether a crash would not make it go by an older placement than it does.
    pub(super) fn is_recorded(&self) -> bool {
        self.recorded.load(Ordering::Acquire) >= self.known.load(Ordering::Acquire)
    }
}
