//! Splitting a tablet, as an operator asks for it. The meta group allots the ids, the placement loop has the
//! leaseholder divide the tablet, and the map follows; whoever asks waits for that.

use crate::core::Core;
use crate::follow;
use api::{Error, Outcome, Refused, Retry};
use cluster::{Command, Effect, Refusal};
use model::TableId;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const PREPARE_PATIENCE: Duration = Duration::from_secs(10);
const DIVIDE_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) async fn split(core: &Core, table: TableId, key: Vec<u8>) -> Result<(), Error> {
    let view = core.view();
    let table = view
        .state
        .catalog()
        .table(table)
        .ok_or_else(|| Error::Refused(Refused::NoTable(table.to_string())))?;
    if !table.is_strong() {
        return Err(Error::unsupported(
            "tablets of eventual tables are not split yet: only those of strong tables",
        ));
    }
    let tablet = view
        .tablet_of(table.root, &key)
        .ok_or_else(|| Error::invalid("no tablet holds the key"))?;
    let unknown = Error::Retry(Retry::NoLeader {
        outcome: Outcome::Unknown,
    });
    let command = Command::PrepareSplit {
        tablet: tablet.id,
        epoch: tablet.epoch,
        key,
    };
    let created = match follow::execute(core, command, PREPARE_PATIENCE).await {
        Ok(Ok(applied)) => applied.effects.iter().find_map(|effect| match effect {
            Effect::SplitPrepared(created) => Some(*created),
            _ => None,
        }),
        Ok(Err(Refusal::OldEpoch { .. })) => {
            return Err(Error::Retry(Retry::Aborted("the tablet has moved".into())));
        }
        Ok(Err(refusal)) => return Err(Error::invalid(refusal.to_string())),
        Err(_) => return Err(unknown),
    };
    let Some(created) = created else {
        return Err(unknown);
    };
    let deadline = Instant::now() + DIVIDE_PATIENCE;
    let mut versions = core.views.watch_version();
    while Instant::now() < deadline {
        let view = core.view();
        if view.state.tablet(created).is_some() {
            return Ok(());
        }
        if !view.state.splits().contains_key(&tablet.id) {
            return Err(Error::unsupported("the tablet refused to be split"));
        }
        let _ = timeout(LOOK_INTERVAL, versions.changed()).await;
    }
    Err(unknown)
}
