//! What a door asks the same door of another node, as one message and its answer.

use crate::core::Core;
use crate::rpc::{Reply, Request};
use api::{Error, PEER_MESSAGE_BYTES_MAX, Patience, Refused, Retry};
use model::NodeId;
use std::time::Duration;

pub(super) async fn ask(
    core: &Core,
    node: NodeId,
    door: &'static str,
    question: Vec<u8>,
    patience: Patience,
) -> Result<Vec<u8>, Error> {
    if question.len() > PEER_MESSAGE_BYTES_MAX {
        return Err(Error::Refused(Refused::TooLarge(format!(
            "{} bytes are too many to be passed on to {node}, at most {PEER_MESSAGE_BYTES_MAX} are: ask it itself",
            question.len()
        ))));
    }
    let request = Request::Door {
        door: door.to_owned(),
        question,
    };
    let mut topologies = core.views.watch_topology();
    let is_lost = topologies.wait_for(|topology| {
        let mut nodes = topology.nodes.iter();
        !nodes.any(|other| other.id == node && other.is_alive)
    });
    let why = tokio::select! {
        biased;
        reply = core.call(node, request, Duration::from_millis(u64::from(patience.ms))) => match reply {
            Ok(Reply::Door(answer)) => return Ok(answer),
            Ok(_) => "the answer is not one to this question".to_owned(),
            Err(failure) => failure.to_string(),
        },
        _ = is_lost => "it is not alive".to_owned(),
    };
    Err(Error::Retry(Retry::NotServing(format!("{node}: {why}"))))
}
