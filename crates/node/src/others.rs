//! How a strong tablet reaches the other participants of its transactions.

use crate::core::Core;
use crate::gateway::step_at;
use async_trait::async_trait;
use cluster::Tablet;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;
use txn::{CommandId, Ending, Others, Span, Step, Stepped, Task};
use world::planted::{self, Bug};

const PATIENCE: Duration = Duration::from_secs(2);

/// Weak, since the node holds its replicas and they hold this.
pub(crate) struct NodeOthers {
    core: Weak<Core>,
}

impl NodeOthers {
    pub fn new(core: &Arc<Core>) -> NodeOthers {
        NodeOthers {
            core: Arc::downgrade(core),
        }
    }
}

/// The tablets that hold keys of the span; `None` when the table is gone.
fn tablets(core: &Core, span: &Span) -> Option<Vec<Arc<Tablet>>> {
    let view = core.view();
    view.state.catalog().table(span.root)?;
    let all = view.tablets(span.root).iter();
    Some(all.filter(|it| holds(it, span)).cloned().collect())
}

fn holds(tablet: &Tablet, span: &Span) -> bool {
    !tablet.range.intersection(&span.range).is_empty()
}

/// As `tablets`, of a table that is gone: as long as they know something that others may have to hear.
fn dropped(core: &Core, span: &Span) -> Vec<Arc<Tablet>> {
    let view = core.view();
    let all = view.state.dropped().values();
    all.filter(|it| it.root == span.root && holds(it, span))
        .filter(|_| !planted::is(Bug::DropForgetsDecisions))
        .cloned()
        .collect()
}

#[async_trait]
impl Others for NodeOthers {
    fn spawn(&self, task: Task) {
        if let Some(core) = self.core.upgrade() {
            core.tasks.spawn(task);
        }
    }

    async fn resolve(&self, span: &Span, id: CommandId, ending: Ending) -> bool {
        let Some(core) = self.core.upgrade() else {
            return false;
        };
        let Some(tablets) = tablets(&core, span) else {
            return true;
        };
        let deadline = Instant::now() + PATIENCE;
        let telling = tablets.iter().map(|tablet| {
            let step = Step::Resolve { id, ending };
            step_at(&core, tablet, step, deadline)
        });
        let told = futures::future::join_all(telling).await;
        !tablets.is_empty() && told.into_iter().all(|it| it.is_some())
    }

    async fn ask(&self, coordinator: &Span, id: CommandId) -> Option<Stepped> {
        let core = self.core.upgrade()?;
        let tablets = match tablets(&core, coordinator) {
            Some(tablets) => tablets,
            None => match dropped(&core, coordinator) {
                // They go when all have heard of what they have decided: this was not committed.
                gone if gone.is_empty() => return Some(Stepped::Ended(Ending::Aborted)),
                dropped => dropped,
            },
        };
        let deadline = Instant::now() + PATIENCE;
        step_at(&core, tablets.first()?, Step::Ask { id }, deadline).await
    }
}
