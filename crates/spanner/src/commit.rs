//! BeginTransaction, Commit, Rollback, BatchWrite.

use crate::ended::{Committed, Ending};
use crate::grpc::{Answers, INTERRUPTED, detached};
use crate::mutations::{self, Lowered};
use crate::sessions::Session;
use crate::status::{aborted, as_message, of_api, of_commit, of_sql};
use crate::transactions::{Known, Phase, ReadWriteState, TransactionStorage};
use crate::{Door, wire};
use api::{Fate, TransactionId, WriteRequest};
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use model::Timestamp;
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
    let committed = match &request.transaction {
        Some(CommitTransaction::SingleUseTransaction(options)) => {
            if !matches!(options.mode, Some(Mode::ReadWrite(_))) {
                return Err(Status::invalid_argument(
                    "Only a read-write transaction can be committed.",
                ));
            }
            let catalog = door.database.catalog();
            let lowered = mutations::lower(&catalog, &session.namespace, &request.mutations)?;
            mutations::check_count(lowered.count)?;
            Committed {
                mutation_count: Some(lowered.count),
                timestamp: write_at_once(&door, &catalog, lowered).await?,
            }
        }
        Some(CommitTransaction::TransactionId(id)) => {
            commit_open(&door, session, id, request.mutations).await?
        }
        None => return Err(Status::invalid_argument("Commit without a transaction.")),
    };
    let stats = committed.mutation_count;
    let stats = stats.filter(|_| request.return_commit_stats);
    Ok(pb::CommitResponse {
        commit_timestamp: Some(wire::timestamp(committed.timestamp)),
        commit_stats: stats.map(|mutation_count| CommitStats {
            mutation_count: mutation_count as i64,
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

/// Mutations without a transaction around them: one atomic write, unless something must be looked at first. Where
/// there are no commit timestamps, the clock's reading is the nearest thing.
async fn write_at_once(
    door: &Door,
    catalog: &catalog::Catalog,
    lowered: Lowered,
) -> Result<Timestamp, Status> {
    let mutations = lowered.mutations;
    if mutations::may_orphan(catalog, &mutations) {
        let mut inner = door
            .database
            .begin(api::TransactionOptions::default())
            .await
            .map_err(of_api)?;
        buffer(catalog, &mut inner, mutations)
            .await
            .map_err(of_sql)?;
        let commit = inner.commit(Vec::new()).await.map_err(of_api)?;
        return Ok(commit.timestamp);
    }
    if mutations.is_empty() {
        return Ok(door.database.now().latest);
    }
    let written = door
        .database
        .write(WriteRequest::new(mutations.clone()))
        .await;
    let response =
        written.map_err(|error| of_sql(sql::rows::explain(error, &mutations, catalog)))?;
    let timestamp = response.commit_timestamp;
    Ok(timestamp.unwrap_or_else(|| door.database.now().latest))
}

/// Hands mutations to an open transaction in their order, with a look at children before each deletion.
async fn buffer(
    catalog: &catalog::Catalog,
    inner: &mut Box<dyn api::Transaction>,
    mutations: Vec<api::Mutation>,
) -> Result<(), sql::Error> {
    for mutation in mutations {
        if let (Some(range), Some(table)) =
            (mutations::doomed(&mutation), catalog.table(mutation.table))
        {
            let mut storage = TransactionStorage(&mut *inner);
            sql::refuse_orphans(table, catalog, &range, &mut storage).await?;
        }
        let list = vec![mutation];
        inner
            .write(list.clone())
            .await
            .map_err(|error| sql::rows::explain(error, &list, catalog))?;
    }
    Ok(())
}

/// Commits a transaction that was begun before. It goes on when its client has gone: whoever repeats the request waits
/// for the outcome and hears it.
async fn commit_open(
    door: &Arc<Door>,
    session: Session,
    id: &[u8],
    mutations: Vec<pb::Mutation>,
) -> Result<Committed, Status> {
    let state = match door.transactions.to_end(door, &session, id).await? {
        Known::Open(state) => state,
        Known::Ended(ending) => return ending.outcome(),
        Known::Nothing(id, why) => return recall(door, &session, id, &why).await,
    };
    let door = Arc::clone(door);
    detached(async move {
        let mut state = state;
        commit_held(&door, &session, &mut state, &mutations).await
    })
    .await
}

/// The outcome of a transaction of which no node knows any more: the tablets may.
async fn recall(
    door: &Door,
    session: &Session,
    id: TransactionId,
    why: &str,
) -> Result<Committed, Status> {
    match door.database.fate(id, &session.namespace).await {
        Fate::Committed(timestamp) => {
            let committed = Committed {
                timestamp,
                mutation_count: None,
            };
            let ending = Ending::Committed(committed);
            door.transactions.learnt(door, id, ending);
            Ok(committed)
        }
        // Not kept here: whoever asks by a session of another database has asked other tablets.
        Fate::Aborted => Err(aborted(&format!(
            "Transaction was not committed, and will not be: {why}"
        ))),
        Fate::Unknown(also) => Err(Status::unknown(format!(
            "Whether the transaction was committed is not known: {why}; {also}"
        ))),
    }
}

async fn commit_held(
    door: &Door,
    session: &Session,
    state: &mut ReadWriteState,
    mutations: &[pb::Mutation],
) -> Result<Committed, Status> {
    // Whatever happens from here, the transaction is not open any more.
    let interrupted = Ending::failed(Code::Unknown, INTERRUPTED);
    let inner = match std::mem::replace(&mut state.phase, Phase::Ended(interrupted)) {
        Phase::Active(inner) => inner,
        Phase::Ended(ending) => {
            state.phase = Phase::Ended(ending.clone());
            return ending.outcome();
        }
    };
    let result = commit_inner(door, session, inner, mutations, state.mutation_count).await;
    match &result {
        Err(status) if status.code() == Code::Aborted => {
            door.transactions.aborted(door, state, status);
        }
        result => {
            state.phase = Phase::Ended(match result {
                Ok(committed) => Ending::Committed(*committed),
                Err(status) => Ending::failed(status.code(), status.message()),
            });
            door.transactions.ended(door, state);
        }
    }
    result
}

async fn commit_inner(
    door: &Door,
    session: &Session,
    mut inner: Box<dyn api::Transaction>,
    mutations: &[pb::Mutation],
    count_before: u64,
) -> Result<Committed, Status> {
    let catalog = door.database.catalog();
    let lowered = mutations::lower(&catalog, &session.namespace, mutations)?;
    let mutation_count = count_before + lowered.count;
    mutations::check_count(mutation_count)?;
    let committed = async {
        if mutations::may_orphan(&catalog, &lowered.mutations) {
            buffer(&catalog, &mut inner, lowered.mutations).await?;
            return inner.commit(Vec::new()).await.map_err(sql::Error::Database);
        }
        let list = lowered.mutations;
        let committed = inner.commit(list.clone()).await;
        committed.map_err(|error| sql::rows::explain(error, &list, &catalog))
    };
    let commit = committed.await.map_err(of_commit)?;
    Ok(Committed {
        timestamp: commit.timestamp,
        mutation_count: Some(mutation_count),
    })
}

pub async fn rollback(door: Arc<Door>, request: pb::RollbackRequest) -> Result<(), Status> {
    let session = door.sessions.find(&door, &request.session)?;
    let transactions = &door.transactions;
    let known = transactions.to_end(&door, &session, &request.transaction_id);
    let late = || {
        Status::failed_precondition("Cannot rollback a transaction after Commit has been called.")
    };
    let mut state = match known.await? {
        Known::Open(state) => state,
        Known::Ended(Ending::Committed(_)) => return Err(late()),
        // One that is not there has nothing left to undo.
        Known::Ended(_) | Known::Nothing(..) => return Ok(()),
    };
    let ended = Phase::Ended(Ending::failed(
        Code::FailedPrecondition,
        "Cannot start a read or query within a transaction after Rollback has been called.",
    ));
    match std::mem::replace(&mut state.phase, ended) {
        Phase::Active(inner) => {
            inner.rollback().await;
            transactions.ended(&door, &state);
            Ok(())
        }
        Phase::Ended(ending) => {
            let is_committed = ending.outcome().is_ok();
            state.phase = Phase::Ended(ending);
            match is_committed {
                true => Err(late()),
                false => Ok(()),
            }
        }
    }
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
                Ok(lowered) => match mutations::check_count(lowered.count) {
                    Ok(()) => write_at_once(&door, &catalog, lowered).await,
                    Err(status) => Err(status),
                },
                Err(status) => Err(status),
            };
            let answer = pb::BatchWriteResponse {
                indexes: vec![index as i32],
                commit_timestamp: result
                    .as_ref()
                    .ok()
                    .map(|timestamp| wire::timestamp(*timestamp)),
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
