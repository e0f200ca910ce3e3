//! What operators ask of the cluster through any node, beside splits: a command of the meta group, and its outcome in
//! words.

use crate::core::Core;
use crate::follow;
use api::{Error, Outcome, Retry};
use cluster::{Applied, Command};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

async fn execute(core: &Core, command: Command) -> Result<Applied, Error> {
    match follow::execute(core, command, PATIENCE).await {
        Ok(Ok(applied)) => Ok(applied),
        Ok(Err(refusal)) => Err(Error::invalid(refusal.to_string())),
        Err(_) => Err(Error::Retry(Retry::NoLeader {
            outcome: Outcome::Unknown,
        })),
    }
}

pub(crate) async fn set(core: &Core, name: &str, value: u64) -> Result<(), Error> {
    let name = name.to_owned();
    execute(core, Command::Set { name, value })
        .await
        .map(|_| ())
}
