//! Division of a replica, when its tablet is: it keeps what is below the cut, and beside it a replica of the new tablet is
//! made from what it holds.
//!
//! * From the moment it is told of the narrower range it refuses what was meant for the whole, so what it will ever have
//!   taken of the other half's keys is in its log by then. The copy is made when all of that is in the store: whatever
//!   this replica has acknowledged, promised or accepted, the one beside it has acknowledged, promised and accepted.
//! * Notes of repairs are not taken along: the new tablet is repaired anew before it forgets any tombstone.
//! * What it keeps of the other half's keys nobody asks for. It goes with compaction when the other half's replicas have
//!   all been made.

use super::repair::scan_end;
use super::{EventualReplica, broken, failed, paxos};
use crate::message::ReplicaError;
use crate::partition::store_key;
use api::KeyRange;
use catalog::Table;
use cluster::Tablet;
use model::ReplicaId;
use std::time::Duration;
use storage::Measure;
use world::planted::{self, Bug};
use world::{Applied, Kind, Store, StoreBatch, StoreError, StoreOperation, Stores};

/// How often one looks whether the store holds what it should.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// A flush that takes longer is waited for by who asks next.
const LOOKS_MAX: u32 = 400;

/// The state that a new half begins with counts as its first entry.
const FIRST: Applied = Applied { index: 1, term: 0 };

/// A part of the store's keys, `start .. end`.
type Span = (Vec<u8>, Vec<u8>);

impl EventualReplica {
    /// Makes a replica of the tablet that the other half has become, in the store of that id; says whether it is there.
    /// Can be repeated, and cut short anywhere.
    pub async fn seed(
        &self,
        right: &Tablet,
        replica: ReplicaId,
        stores: &dyn Stores,
    ) -> Result<bool, ReplicaError> {
        if self.is_broken() {
            return Err(failed());
        }
        let wanted = {
            let writer = self.writer.lock();
            if self.tablet.read().range.contains(&right.range.start) {
                return Ok(false);
            }
            writer.next_index - 1
        };
        let mut looks = 0;
        let is_due = || self.is_recorded() && self.store.flushed().index >= wanted;
        while !is_due() && !planted::is(Bug::SplitSeedsTooSoon) {
            if looks == LOOKS_MAX {
                return Ok(false);
            }
            if self.store.applied().index >= wanted {
                self.store.request_flush();
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
            looks += 1;
        }
        let edit = |copy: &dyn Store| half(copy);
        match stores.copy(ReplicaId(self.log_id.0), replica, &edit) {
            Ok(()) => Ok(true),
            Err(StoreError::Refused(_) | StoreError::Installing(_)) => Ok(false),
            Err(error) => Err(broken(error)),
        }
    }

    /// How large the tablet is, and where its middle lies. `root` is the root of its table group.
    pub async fn measure(&self, root: &Table) -> Result<Measure, StoreError> {
        let range = self.tablet.read().range.clone();
        storage::measure(&self.store, &range, root).await
    }

    /// Gives up what splits have taken away, once it is needed no more.
    pub fn forget_other_halves(&self) {
        let range = self.tablet.read().range.clone();
        let mut forgotten = self.forgotten.lock();
        if forgotten.as_ref() == Some(&range) {
            return;
        }
        let spans = spans_outside(&range);
        let snapshot = self.store.snapshot();
        let holds = |(start, end): &Span| {
            let mut pairs = self.store.scan(start, Some(end), &snapshot);
            pairs.next().is_some()
        };
        if spans.iter().any(holds) {
            self.store.forget_spans(spans);
        }
        *forgotten = Some(range);
    }
}

/// What makes a half of a copy of the whole. All that is kept is kept by key, and nobody asks for others' keys.
fn half(copy: &dyn Store) -> Result<StoreBatch, StoreError> {
    let mut operations = Vec::new();
    if planted::is(Bug::SplitForgetsVotes) {
        let (start, end) = paxos::span(&KeyRange::all());
        for pair in copy.scan(&start, Some(&end), &copy.snapshot()) {
            let key = pair?.0.to_vec();
            operations.push(StoreOperation::Delete { key });
        }
    }
    Ok(StoreBatch {
        operations,
        applied: FIRST,
    })
}

/// The rows and the states of partitions that are not in the range.
fn spans_outside(range: &KeyRange) -> Vec<Span> {
    let below = KeyRange {
        start: Vec::new(),
        end: Some(range.start.clone()),
    };
    let above = range.end.as_ref().map(|end| KeyRange {
        start: end.clone(),
        end: None,
    });
    let outside = [Some(below), above].into_iter().flatten();
    let outside = outside.filter(|range| !range.is_empty());
    outside
        .flat_map(|range| {
            let rows = match range.start.is_empty() {
                true => vec![Kind::Row as u8],
                false => store_key(&range.start),
            };
            [(rows, scan_end(&range)), paxos::span(&range)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_of_a_range_is_nothing_of_it() {
        let range = |start: &[u8], end: Option<&[u8]>| KeyRange {
            start: start.to_vec(),
            end: end.map(<[u8]>::to_vec),
        };
        assert_eq!(spans_outside(&KeyRange::all()), []);
        let spans = spans_outside(&range(b"d", Some(b"m")));
        let is_outside = |key: &[u8]| {
            spans
                .iter()
                .any(|(start, end)| start.as_slice() <= key && key < end.as_slice())
        };
        for (id, outside) in [
            (b"a", true),
            (b"d", false),
            (b"l", false),
            (b"m", true),
            (b"z", true),
        ] {
            assert_eq!(is_outside(&store_key(id)), outside, "{id:?}");
            assert_eq!(is_outside(&paxos::state_key(id)), outside, "{id:?}");
        }
        // Nothing else that the store keeps.
        assert!(!is_outside(&super::super::headers_mark()));
        assert!(!is_outside(&world::APPLIED_KEY));
        assert_eq!(spans_outside(&range(b"", Some(b"m"))).len(), 2);
    }
}
