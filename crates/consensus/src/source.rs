//! The state of a machine that keeps everything in one store, as it is sent to other members.

use crate::{MachineError, SnapshotSource};
use bytes::Bytes;
use std::sync::Arc;
use world::{APPLIED_KEY, Applied, Snapshot, Store};

/// All pairs of a store at one moment.
pub struct StoreSource {
    store: Arc<dyn Store>,
    snapshot: Snapshot,
    applied: Applied,
}

impl StoreSource {
    /// Call between two entries, by the task that applies them.
    pub fn new(store: Arc<dyn Store>) -> StoreSource {
        StoreSource {
            snapshot: store.snapshot(),
            applied: store.applied(),
            store,
        }
    }
}

impl SnapshotSource for StoreSource {
    fn applied(&self) -> Applied {
        self.applied
    }

    fn read(
        &mut self,
        after: Option<&[u8]>,
        size_bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, MachineError> {
        let mut start = after.unwrap_or_default().to_vec();
        if after.is_some() {
            // The next key in order.
            start.push(0);
        }
        let mut pairs = Vec::new();
        let mut size = 0;
        for pair in self.store.scan(&start, None, &self.snapshot) {
            let (key, value) = pair.map_err(|error| MachineError(error.to_string()))?;
            if key.as_ref() == APPLIED_KEY {
                continue;
            }
            size += key.len() + value.len();
            pairs.push((key, value));
            if size >= size_bytes_max {
                break;
            }
        }
        Ok(pairs)
    }
}
