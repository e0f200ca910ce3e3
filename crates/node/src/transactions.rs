//! The read-write transactions that this node has open for clients, and where they hold locks. Those whose client
//! is silent are ended; for the others the tablets hear now and then that they are alive.

use crate::core::Core;
use crate::gateway::send_release;
use api::{Error, Retry, TransactionId};
use model::TabletId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A transaction whose client was silent for so long is over.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Tablets are told this often that a transaction is alive: well within the time after which they end it.
const TOUCH_INTERVAL: Duration = Duration::from_secs(3);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const OPEN_MAX: usize = 100_000;

struct Open {
    /// Where it may hold locks.
    tablets: BTreeSet<TabletId>,
    heard: Instant,
    touched: Instant,
}

#[derive(Default)]
pub(crate) struct Transactions {
    open: Mutex<BTreeMap<TransactionId, Open>>,
}

impl Transactions {
    pub fn begin(&self, id: TransactionId) -> Result<(), Error> {
        let mut open = self.open.lock();
        if open.len() >= OPEN_MAX {
            return Err(Error::Retry(Retry::Overloaded(
                "too many transactions are open".into(),
            )));
        }
        let now = Instant::now();
        open.insert(
            id,
            Open {
                tablets: BTreeSet::new(),
                heard: now,
                touched: now,
            },
        );
        Ok(())
    }

    /// The client has asked for something. Fails when it was silent for too long before.
    pub fn hear(&self, id: TransactionId) -> Result<(), Error> {
        match self.open.lock().get_mut(&id) {
            Some(open) => {
                open.heard = Instant::now();
                Ok(())
            }
            None => Err(Error::Retry(Retry::Aborted(format!(
                "it was idle for more than {} s",
                IDLE_MAX.as_secs()
            )))),
        }
    }

    /// A tablet is about to be asked for locks.
    pub fn visits(&self, id: TransactionId, tablet: TabletId) {
        if let Some(open) = self.open.lock().get_mut(&id) {
            open.tablets.insert(tablet);
        }
    }

    /// Where the transaction may hold locks; it is not open any more.
    pub fn end(&self, id: TransactionId) -> BTreeSet<TabletId> {
        let ended = self.open.lock().remove(&id);
        ended.map(|open| open.tablets).unwrap_or_default()
    }

    pub fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// Those whose clients are gone, and those of which tablets should hear, with where.
    fn sweep(&self) -> (Vec<TransactionId>, Vec<(TransactionId, BTreeSet<TabletId>)>) {
        let now = Instant::now();
        let mut open = self.open.lock();
        let mut silent = Vec::new();
        let mut alive = Vec::new();
        for (id, transaction) in open.iter_mut() {
            if now - transaction.heard > IDLE_MAX {
                silent.push(*id);
            } else if now - transaction.touched > TOUCH_INTERVAL {
                transaction.touched = now;
                alive.push((*id, transaction.tablets.clone()));
            }
        }
        (silent, alive)
    }
}

pub(crate) async fn run(core: Arc<Core>) {
    loop {
        sleep(SWEEP_INTERVAL).await;
        let (silent, alive) = core.transactions.sweep();
        for id in silent {
            tracing::debug!(?id, "a transaction is ended: its client is silent");
            let tablets = core.transactions.end(id);
            send_release(&core, id, tablets, None);
        }
        for (id, tablets) in alive {
            crate::gateway::send_touch(&core, id, tablets);
        }
    }
}
