//! What operators ask of the cluster through any node, beside splits: a command of the meta group, and its outcome in
//! words.

use crate::core::Core;
use crate::follow;
use api::Copies;
use api::{Error, Outcome, Retry};
use cluster::{Applied, Command};
use model::NodeId;
use std::collections::BTreeMap;
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

pub(crate) async fn decommission(
    core: &Core,
    node: NodeId,
    successor: Option<NodeId>,
) -> Result<(), Error> {
    let command = Command::Decommission { node, successor };
    execute(core, command).await.map(|_| ())
}

pub(crate) async fn recommission(core: &Core, node: NodeId) -> Result<(), Error> {
    let command = Command::Recommission { node };
    execute(core, command).await.map(|_| ())
}

/// A node that is alive leaves with nothing on it: what it alone has acknowledged would be lost with it.
pub(crate) async fn remove(
    core: &Core,
    node: NodeId,
    successor: Option<NodeId>,
) -> Result<(), Error> {
    let held = core.view().state.replicas_on(node);
    if held > 0 && core.views.is_alive(node) {
        return Err(Error::invalid(format!(
            "{node} is alive and holds {held} replicas: decommission it, and remove it when it is drained"
        )));
    }
    let command = Command::RemoveNode { node, successor };
    execute(core, command).await.map(|_| ())
}

pub(crate) async fn replace(core: &Core, node: NodeId, successor: NodeId) -> Result<(), Error> {
    match core.views.is_alive(node) {
        true => decommission(core, node, Some(successor)).await,
        false => remove(core, node, Some(successor)).await,
    }
}

pub(crate) fn copies(
    core: &Core,
    namespace: Option<&str>,
) -> Result<BTreeMap<String, Copies>, Error> {
    let state = &core.view().state;
    if let Some(name) = namespace
        && !state.catalog().namespaces.contains_key(name)
    {
        return Err(Error::invalid(format!("there is no keyspace {name}")));
    }
    Ok(state.copies(namespace))
}
