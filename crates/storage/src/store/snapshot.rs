//! Which moments of a store are being read at, so that no version that somebody may still see is given up.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use world::{Snapshot, SnapshotGuard};

/// A reader at sequence number `n` sees what was written with smaller numbers.
pub(super) struct Snapshots {
    state: Mutex<State>,
}

struct State {
    /// What a new reader reads at: behind the last whole batch.
    published: u64,
    /// Numbers that are read at, each by how many guards.
    live: BTreeMap<u64, u64>,
    /// The guard for `published`, as long as somebody holds it, so that readers between two batches share one.
    newest: Weak<Guard>,
}

struct Guard {
    sequence: u64,
    snapshots: Arc<Snapshots>,
}

impl SnapshotGuard for Guard {
    fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.snapshots.state.lock();
        if let Some(count) = state.live.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                state.live.remove(&self.sequence);
            }
        }
    }
}

impl Snapshots {
    pub(super) fn new(published: u64) -> Arc<Snapshots> {
        Arc::new(Snapshots {
            state: Mutex::new(State {
                published,
                live: BTreeMap::new(),
                newest: Weak::new(),
            }),
        })
    }

    pub(super) fn publish(&self, sequence: u64) {
        let mut state = self.state.lock();
        state.published = state.published.max(sequence);
    }

    pub(super) fn take(self: &Arc<Snapshots>) -> Snapshot {
        // Dropped behind the lock: its other holders may let go of it meanwhile, and its last drop takes the lock.
        let _outdated;
        let mut state = self.state.lock();
        match state.newest.upgrade() {
            Some(guard) if guard.sequence == state.published => return guard,
            outdated => _outdated = outdated,
        }
        let sequence = state.published;
        *state.live.entry(sequence).or_insert(0) += 1;
        let guard = Arc::new(Guard {
            sequence,
            snapshots: self.clone(),
        });
        state.newest = Arc::downgrade(&guard);
        guard
    }

    /// No reader reads below this number, now or ever.
    pub(super) fn watermark(&self) -> u64 {
        let state = self.state.lock();
        let oldest = state.live.keys().next().copied();
        oldest.map_or(state.published, |oldest| oldest.min(state.published))
    }
}

#[cfg(test)]
mod tests {
    use super::Snapshots;
    use std::sync::mpsc;
    use std::time::Duration;

    /// In so many a lock-out comes up nearly always, if it can.
    const ROUNDS: u64 = 2_000_000;

    #[test]
    fn a_snapshot_that_is_given_up_while_another_is_taken_locks_nobody_out() {
        let snapshots = Snapshots::new(0);
        let (done, all_done) = mpsc::channel();
        for _ in 0..3 {
            let (snapshots, done) = (snapshots.clone(), done.clone());
            std::thread::spawn(move || {
                for round in 0..ROUNDS {
                    let held = snapshots.take();
                    snapshots.publish(round);
                    drop(held);
                }
                // The test has failed already where nobody listens.
                let _ = done.send(());
            });
        }
        for _ in 0..3 {
            let patience = Duration::from_secs(60);
            all_done
                .recv_timeout(patience)
                .expect("every thread comes to its end");
        }
        assert_eq!(snapshots.watermark(), ROUNDS - 1);
    }
}
