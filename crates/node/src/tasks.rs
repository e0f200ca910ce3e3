//! All tasks of a node, so that stopping them is stopping the node: what a crash is in the simulator.

use parking_lot::Mutex;
use std::future::Future;
use tokio::task::JoinSet;

/// `None` once stopped: nothing is spawned any more.
pub(crate) struct Tasks {
    set: Mutex<Option<JoinSet<()>>>,
}

impl Tasks {
    pub fn new() -> Tasks {
        Tasks {
            set: Mutex::new(Some(JoinSet::new())),
        }
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(set) = self.set.lock().as_mut() {
            // Reaps what has ended; a task that panicked has said so on its way.
            while set.try_join_next().is_some() {}
            set.spawn(task);
        }
    }

    pub fn stop(&self) {
        // The tasks are aborted outside the lock: dropping one may spawn, or stop the node again.
        let set = self.set.lock().take();
        drop(set);
    }
}
