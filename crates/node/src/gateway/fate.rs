//! How a transaction has ended whose node is dead, or does not remember it: the tablets know, and all of its database
//! are asked, since which of them it wrote to is not known here.
//!
//! One that knows of the commit settles it. That there was none is claimed only when nothing can commit it any more:
//! the life of the node that had it is over, so that no other tablets than those that are here now have heard of it,
//! and each of these has put into its log that it will not carry it out. Else what is on its way may still come. A table
//! that was dropped since is asked no more: what was written to it alone is gone with it, commit or not.

use super::strong::{self, Ended};
use crate::core::Core;
use api::{Fate, TransactionId};
use cluster::Tablet;
use futures::StreamExt;
use model::{SchemaVersion, TabletId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use txn::{Ending, Step, Stepped};

/// Long enough for tablets whose leaseholder has died to find another.
const PATIENCE: Duration = Duration::from_secs(20);
/// What was under way when its node died has been carried out by then, or never will be, but for bad luck.
const ARRIVAL: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(200);
const TABLETS_AT_ONCE: usize = 16;

pub(super) async fn fate(core: &Core, transaction: TransactionId, namespace: &str) -> Fate {
    let deadline = Instant::now() + PATIENCE;
    let unknown = |why: &str| Fate::Unknown(why.into());
    let Ok(Ok(_turn)) = timeout_at(deadline, core.fates.acquire()).await else {
        return unknown("too many are being looked for");
    };
    let arrived = Instant::now() + ARRIVAL;
    let mut asking = Asking {
        core,
        transaction,
        answers: BTreeMap::new(),
    };
    while Instant::now() < deadline {
        let (schema, tablets, is_over) = look(core, transaction, namespace);
        if tablets.is_empty() {
            return unknown("there are no tablets to ask");
        }
        // At first without a word in their logs, for most often one of them knows.
        let refuses = is_over && asking.has_asked(&tablets);
        let steps = asking.round(schema, &tablets, refuses, deadline).await;
        match steps {
            Some(committed) => return Fate::Committed(committed),
            None if asking.have_all_refused(&tablets) => return Fate::Aborted,
            None if !is_over && asking.has_asked(&tablets) && Instant::now() >= arrived => {
                return unknown(
                    "no tablet knows of it, and the node that had it has not come back",
                );
            }
            None => {}
        }
        if !is_over || refuses {
            sleep(PAUSE).await;
        }
    }
    unknown("not all tablets have answered, or they have forgotten what is so old")
}

/// The strong tablets of a namespace, and whether the life of the node that made the transaction was over before
/// they were all there were: from one state of the cluster.
fn look(
    core: &Core,
    transaction: TransactionId,
    namespace: &str,
) -> (SchemaVersion, Vec<Arc<Tablet>>, bool) {
    let view = core.view();
    let catalog = view.state.catalog();
    let tables = catalog.tables.values();
    let roots = tables.filter(|table| {
        table.spec.namespace == namespace && table.is_strong() && table.id == table.root
    });
    let tablets = roots.flat_map(|table| view.tablets(table.id)).cloned();
    let is_own = transaction.node == core.node && transaction.incarnation == core.incarnation;
    let life = view.state.node(transaction.node);
    let is_later = life.is_some_and(|node| node.incarnation > transaction.incarnation);
    // What is open here nobody asks about.
    (catalog.version, tablets.collect(), is_own || is_later)
}

struct Asking<'a> {
    core: &'a Core,
    transaction: TransactionId,
    /// Whether a tablet, as it was placed then, has refused.
    answers: BTreeMap<TabletId, (Arc<Tablet>, bool)>,
}

impl Asking<'_> {
    /// Asks those that have not refused yet. Returns when it was committed, if one knows.
    async fn round(
        &mut self,
        schema: SchemaVersion,
        tablets: &[Arc<Tablet>],
        refuses: bool,
        deadline: Instant,
    ) -> Option<model::Timestamp> {
        let step = Step::Recall {
            kept_as: strong::command_of(self.transaction),
            began: self.transaction.start,
            refuses,
        };
        let core = self.core;
        let open: Vec<Arc<Tablet>> = tablets
            .iter()
            .filter(|tablet| !self.has_refused(tablet))
            .cloned()
            .collect();
        let mut answers = futures::stream::iter(open)
            .map(|tablet| {
                let step = step.clone();
                async move {
                    let answer = strong::step(core, &tablet, schema, step, deadline).await;
                    (tablet, answer)
                }
            })
            .buffer_unordered(TABLETS_AT_ONCE);
        while let Some((tablet, answer)) = answers.next().await {
            let refused = match answer {
                Ok(Stepped::Ended(Ending::Committed(timestamp))) => return Some(timestamp),
                Ok(Stepped::Ended(Ending::Aborted)) => true,
                Ok(_) => false,
                Err(Ended::Rerouted) => continue,
                Err(Ended::Error(error)) => {
                    tracing::debug!(tablet = %tablet.id, %error, "does not say how a transaction ended");
                    continue;
                }
            };
            self.answers.insert(tablet.id, (tablet, refused));
        }
        None
    }

    fn has_asked(&self, tablets: &[Arc<Tablet>]) -> bool {
        let mut tablets = tablets.iter();
        tablets.all(|tablet| self.answer(tablet).is_some())
    }

    fn have_all_refused(&self, tablets: &[Arc<Tablet>]) -> bool {
        tablets.iter().all(|tablet| self.has_refused(tablet))
    }

    fn has_refused(&self, tablet: &Tablet) -> bool {
        self.answer(tablet) == Some(true)
    }

    /// What a tablet has answered for all the keys that it has now: one that was divided since is asked anew, with its
    /// other half.
    fn answer(&self, tablet: &Tablet) -> Option<bool> {
        let (asked, refused) = self.answers.get(&tablet.id)?;
        (asked.range == tablet.range).then_some(*refused)
    }
}
