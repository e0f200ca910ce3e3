//! BeginTransaction, Commit, Rollback, BatchWrite.

use crate::grpc::Answers;
use crate::mutations::{self, Lowered};
use crate::sessions::Session;
use crate::status::{self, as_message, of_api, of_sql};
use crate::transactions::{Phase, TransactionStorage};
use crate::{Door, wire};
use api::{Commit, WriteRequest};
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use pb::commit_request::Transaction as CommitTransaction;
use pb::commit_response::CommitStats;
use pb::transaction_options::Mode;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// Groups of one BatchWrite.
const GROUPS_MAX: usize = 10_000;
/// Spanner's limit.
const COMMIT_DELAY_MICROS_MAX: u64 = 500_000;

pub async fn begin_transaction(
    door: Arc<Door>,
    request: pb::BeginTransactionRequest,
) -> Result<pb::Transaction, Status> {
    let session = door.sessions.find(&door, &request.session)?;
    let options = request.options.unwrap_or_default();
    door.transactions.begin(&door, &session, &options).await
}

pub async fn commit(
    door: Arc<Door>,
    request: pb::CommitRequest,
) -> Result<pb::CommitResponse, Status> {
    let session = door.sessions.find(&door, &request.session)?;
    check_delay(request.max_commit_delay.as_ref())?;
    let (commit, count) = match &request.transaction {
        Some(CommitTransaction::SingleUseTransaction(options)) => {
            if !matches!(options.mode, Some(Mode::ReadWrite(_))) {
                return Err(Status::invalid_argument(
                    "Only a read-write transaction can be committed.",
                ));
            }
            let catalog = door.database.catalog();
            let lowered = mutations::lower(&catalog, &session.namespace, &request.mutations)?;
            let count = lowered.count;
            (write_at_once(&door, &catalog, lowered).await?, count)
        }
        Some(CommitTransaction::TransactionId(id)) => {
            commit_open(&door, &session, id, &request.mutations).await?
        }
        None => return Err(Status::invalid_argument("Commit without a transaction.")),
    };
    Ok(pb::CommitResponse {
        commit_timestamp: Some(wire::timestamp(commit.timestamp)),
        commit_stats: request.return_commit_stats.then_some(CommitStats {
            mutation_count: count as i64,
        }),
        ..Default::default()
    })
}

/// A commit may be delayed to be gathered with others. Here commits are gathered without a delay, so only the
/// limits of the parameter count.
fn check_delay(delay: Option<&prost_types::Duration>) -> Result<(), Status> {
    match delay.map(wire::duration_micros) {
        None | Some(Some(0..=COMMIT_DELAY_MICROS_MAX)) => Ok(()),
        _ => Err(Status::invalid_argument(
            "max_commit_delay must be between 0 and 500 ms.",
        )),
    }
}

/// Mutations without a transaction around them: one atomic write, unless something must be looked at first.
async fn write_at_once(
    door: &Door,
    catalog: &catalog::Catalog,
    lowered: Lowered,
) -> Result<Commit, Status> {
    let mutations = lowered.mutations;
    if mutations::may_orphan(catalog, &mutations) {
        let mut inner = door
            .database
            .begin(api::TransactionOptions::default())
            .await
            .map_err(of_api)?;
        buffer(catalog, &mut inner, mutations).await?;
        return inner.commit(Vec::new()).await.map_err(of_api);
    }
    if mutations.is_empty() {
        return Ok(Commit {
            timestamp: door.database.now().latest,
            mutation_count: 0,
        });
    }
    let written = door
        .database
        .write(WriteRequest::new(mutations.clone()))
        .await;
    let response =
        written.map_err(|error| of_sql(sql::rows::explain(error, &mutations, catalog)))?;
    Ok(Commit {
        // An eventual table has no commit timestamps; the clock's reading is the nearest thing.
        timestamp: response
            .commit_timestamp
            .unwrap_or_else(|| door.database.now().latest),
        mutation_count: mutations.len() as u64,
    })
}

/// Hands mutations to an open transaction in their order, with a look at children before each deletion.
async fn buffer(
    catalog: &catalog::Catalog,
    inner: &mut Box<dyn api::Transaction>,
    mutations: Vec<api::Mutation>,
) -> Result<(), Status> {
    for mutation in mutations {
        if let (Some(range), Some(table)) =
            (mutations::doomed(&mutation), catalog.table(mutation.table))
        {
            let mut storage = TransactionStorage(&mut *inner);
            sql::refuse_orphans(table, catalog, &range, &mut storage)
                .await
                .map_err(of_sql)?;
        }
        let list = vec![mutation];
        inner
            .write(list.clone())
            .await
            .map_err(|error| of_sql(sql::rows::explain(error, &list, catalog)))?;
    }
    Ok(())
}

async fn commit_open(
    door: &Door,
    session: &Session,
    id: &[u8],
    mutations: &[pb::Mutation],
) -> Result<(Commit, u64), Status> {
    let mut state = door.transactions.read_write(door, session, id).await?;
    match &state.phase {
        Phase::Active(_) => {}
        Phase::Committed(commit) => return Ok((*commit, commit.mutation_count)),
        Phase::Ended(status) => return Err(status.clone()),
    }
    let catalog = door.database.catalog();
    let lowered = mutations::lower(&catalog, &session.namespace, mutations)?;
    // Whatever happens from here, the transaction is not open any more.
    let unknown = Status::unknown("the commit was interrupted; its outcome is unknown");
    let phase = std::mem::replace(&mut state.phase, Phase::Ended(unknown));
    let Phase::Active(mut inner) = phase else {
        return Err(Status::internal("the transaction is not open"));
    };
    let result = async {
        if mutations::may_orphan(&catalog, &lowered.mutations) {
            buffer(&catalog, &mut inner, lowered.mutations).await?;
            return inner.commit(Vec::new()).await.map_err(of_api);
        }
        let list = lowered.mutations;
        let committed = inner.commit(list.clone()).await;
        committed.map_err(|error| of_sql(sql::rows::explain(error, &list, &catalog)))
    }
    .await;
    match result {
        Ok(mut commit) => {
            door.transactions.ended(door, id);
            commit.mutation_count = lowered.count.max(commit.mutation_count);
            state.phase = Phase::Committed(commit);
            Ok((commit, commit.mutation_count))
        }
        Err(status) => {
            // UNAVAILABLE says that nothing was done. Clients repeat such a commit; but what it would commit is
            // gone, so they are told to begin anew.
            let status = match status.code() {
                Code::Unavailable => status::aborted(status.message()),
                _ => status,
            };
            match status.code() {
                Code::Aborted => door.transactions.aborted(door, &mut state, &status),
                _ => {
                    state.phase = Phase::Ended(status.clone());
                    door.transactions.ended(door, id);
                }
            }
            Err(status)
        }
    }
}

pub async fn rollback(door: Arc<Door>, request: pb::RollbackRequest) -> Result<(), Status> {
    let session = door.sessions.find(&door, &request.session)?;
    let mut state = match door
        .transactions
        .read_write(&door, &session, &request.transaction_id)
        .await
    {
        Ok(state) => state,
        // One that is not there has nothing left to undo.
        Err(status) if status.code() == Code::Aborted => return Ok(()),
        Err(status) => return Err(status),
    };
    if let Phase::Committed(_) = state.phase {
        return Err(Status::failed_precondition(
            "Cannot rollback a transaction after Commit has been called.",
        ));
    }
    let ended = Phase::Ended(Status::failed_precondition(
        "Cannot start a read or query within a transaction after Rollback has been called.",
    ));
    if let Phase::Active(inner) = std::mem::replace(&mut state.phase, ended) {
        inner.rollback().await;
        door.transactions.ended(&door, &request.transaction_id);
    }
    Ok(())
}

/// Commits groups of mutations one by one, each for itself.
pub async fn batch_write(
    door: Arc<Door>,
    request: pb::BatchWriteRequest,
) -> Result<Answers<pb::BatchWriteResponse>, Status> {
    let session = door.sessions.find(&door, &request.session)?;
    if request.mutation_groups.len() > GROUPS_MAX {
        return Err(Status::invalid_argument(format!(
            "a batch has at most {GROUPS_MAX} groups"
        )));
    }
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        for (index, group) in request.mutation_groups.iter().enumerate() {
            let catalog = door.database.catalog();
            let result = match mutations::lower(&catalog, &session.namespace, &group.mutations) {
                Ok(lowered) => write_at_once(&door, &catalog, lowered).await,
                Err(status) => Err(status),
            };
            let answer = pb::BatchWriteResponse {
                indexes: vec![index as i32],
                commit_timestamp: result
                    .as_ref()
                    .ok()
                    .map(|commit| wire::timestamp(commit.timestamp)),
                status: Some(match &result {
                    Ok(_) => Default::default(),
                    Err(status) => as_message(status),
                }),
            };
            if sender.send(Ok(answer)).await.is_err() {
                return;
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}
