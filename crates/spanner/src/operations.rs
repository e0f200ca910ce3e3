//! Long-running operations. All of ours are done when they are answered; the last ones are remembered, so that
//! a client that polls all the same finds them.

use crate::Door;
use googleapis_tonic_google_longrunning::google::longrunning as pb;
use parking_lot::Mutex;
use prost::Message;
use prost::Name as _;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tonic::Status;

/// Operations that are remembered.
const OPERATIONS_MAX: usize = 1_000;

#[derive(Default)]
pub struct Operations {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_name: BTreeMap<String, pb::Operation>,
    oldest: VecDeque<String>,
}

impl Operations {
    fn remember(&self, operation: &pb::Operation) {
        let mut state = self.state.lock();
        let name = operation.name.clone();
        if state
            .by_name
            .insert(name.clone(), operation.clone())
            .is_none()
        {
            state.oldest.push_back(name);
        }
        while state.oldest.len() > OPERATIONS_MAX {
            if let Some(oldest) = state.oldest.pop_front() {
                state.by_name.remove(&oldest);
            }
        }
    }

    pub fn is_known(&self, name: &str) -> bool {
        self.state.lock().by_name.contains_key(name)
    }

    pub fn under(&self, prefix: &str) -> Vec<(String, pb::Operation)> {
        let state = self.state.lock();
        state
            .by_name
            .range(prefix.to_owned()..)
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(name, operation)| (name.clone(), operation.clone()))
            .collect()
    }
}

/// A message with its name, as `Any` carries it. The generated messages do not know their own names.
pub fn any(name: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/{name}"),
        value: message.encode_to_vec(),
    }
}

pub fn empty() -> prost_types::Any {
    any(&<()>::full_name(), &())
}

/// An operation that is done. `owner` is the resource that it is about.
pub fn done(
    door: &Door,
    owner: &str,
    id: Option<&str>,
    metadata: prost_types::Any,
    result: Result<prost_types::Any, Status>,
) -> pb::Operation {
    let id = match id {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => format!("_auto_{}", uuid::Uuid::new_v4().simple()),
    };
    let operation = pb::Operation {
        name: format!("{owner}/operations/{id}"),
        metadata: Some(metadata),
        done: true,
        result: Some(match result {
            Ok(response) => pb::operation::Result::Response(response),
            Err(status) => pb::operation::Result::Error(crate::status::as_message(&status)),
        }),
    };
    door.operations.remember(&operation);
    operation
}

pub async fn get(
    door: Arc<Door>,
    request: pb::GetOperationRequest,
) -> Result<pb::Operation, Status> {
    let found = door
        .operations
        .state
        .lock()
        .by_name
        .get(&request.name)
        .cloned();
    found.ok_or_else(|| Status::not_found(format!("Operation not found: {}", request.name)))
}

pub async fn list(
    door: Arc<Door>,
    request: pb::ListOperationsRequest,
) -> Result<pb::ListOperationsResponse, Status> {
    let found = door.operations.under(&request.name);
    let (operations, next_page_token) =
        crate::names::page(found, request.page_size, &request.page_token);
    Ok(pb::ListOperationsResponse {
        operations,
        next_page_token,
        ..Default::default()
    })
}

/// It is done: there is nothing to cancel.
pub async fn cancel(door: Arc<Door>, request: pb::CancelOperationRequest) -> Result<(), Status> {
    get(door, pb::GetOperationRequest { name: request.name }).await?;
    Ok(())
}

pub async fn delete(door: Arc<Door>, request: pb::DeleteOperationRequest) -> Result<(), Status> {
    let mut state = door.operations.state.lock();
    state.oldest.retain(|name| *name != request.name);
    match state.by_name.remove(&request.name) {
        Some(_) => Ok(()),
        None => Err(Status::not_found(format!(
            "Operation not found: {}",
            request.name
        ))),
    }
}

pub async fn wait(
    door: Arc<Door>,
    request: pb::WaitOperationRequest,
) -> Result<pb::Operation, Status> {
    get(door, pb::GetOperationRequest { name: request.name }).await
}
