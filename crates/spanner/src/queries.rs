//! ExecuteSql, ExecuteStreamingSql, ExecuteBatchDml, Read, StreamingRead.

use crate::grpc::{Answers, detached};
use crate::mutations::{CountingStorage, find_columns, find_table};
use crate::results::{self, Resume, Run, Source};
use crate::sessions::Session;
use crate::status::{self, as_message, of_sql};
use crate::transactions::{Held, Remembered, Selected, TransactionStorage};
use crate::{Door, keys, partitioned_dml, partitions, wire};
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use model::Value;
use pb::execute_sql_request::QueryMode;
use pb::read_request::LockHint;
use pb::result_set_stats::RowCount;
use sql::plan::{Relation, Scan};
use sql::types::SqlType;
use sql::{Environment, OutputColumn, ParameterType, Parameters, Plan, Prepared};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Messages that wait for a slow client before the query waits too.
const MESSAGES_AHEAD: usize = 4;
/// Statements of one batch.
const BATCH_MAX: usize = 10_000;
/// Spanner's limit.
const PARAMETERS_MAX: usize = 950;
pub const FOR_UPDATE_REFUSED: &str = "FOR UPDATE is not supported in this transaction type";

/// A request's parameters, with the types that it declares for some.
pub struct RequestParameters<'r> {
    pub values: Option<&'r prost_types::Struct>,
    pub types: &'r HashMap<String, pb::Type>,
}

impl RequestParameters<'_> {
    fn wire(&self, name: &str) -> Option<&prost_types::Value> {
        let fields = &self.values?.fields;
        fields.get(name).or_else(|| {
            let mut fields = fields.iter();
            fields
                .find(|(own, _)| own.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        })
    }

    fn declared(&self, name: &str) -> Option<&pb::Type> {
        // Names that differ only in case are one parameter, so which of them is found does not matter.
        self.types.get(name).or_else(|| {
            let mut types = self.types.iter();
            types
                .find(|(own, _)| own.eq_ignore_ascii_case(name))
                .map(|(_, kind)| kind)
        })
    }

    fn check(&self) -> Result<(), Status> {
        let count = self.values.map_or(0, |values| values.fields.len());
        if count > PARAMETERS_MAX {
            return Err(Status::invalid_argument(format!(
                "Number of parameters in query exceeds the maximum allowed limit of {PARAMETERS_MAX}."
            )));
        }
        let mut names: Vec<&String> = self.types.keys().collect();
        names.sort();
        for name in names {
            wire::kind_of(&self.types[name]).map_err(|why| {
                Status::invalid_argument(format!("Invalid type of parameter {name}: {why}"))
            })?;
        }
        Ok(())
    }
}

impl Parameters for RequestParameters<'_> {
    fn find(&self, name: &str) -> Option<ParameterType> {
        let value = self.wire(name);
        let declared = self.declared(name);
        match declared.map(wire::kind_of) {
            Some(Ok(kind)) => Some(ParameterType::Declared(kind)),
            _ => value.map(|value| ParameterType::Undeclared(wire::natural_kind(value))),
        }
    }

    fn value(&self, name: &str, kind: &SqlType) -> Result<Value, sql::Error> {
        match self.wire(name) {
            None => Ok(Value::Null),
            Some(value) => wire::decode(value, kind).map_err(|expected| {
                sql::Error::invalid(format!(
                    "Invalid value for bind parameter {name}: {expected}."
                ))
            }),
        }
    }
}

pub fn analyse(
    door: &Door,
    session: &Session,
    text: &str,
    parameters: &RequestParameters<'_>,
) -> Result<Prepared, Status> {
    parameters.check()?;
    let catalog = door.database.catalog();
    let environment = Environment {
        catalog: &catalog,
        namespace: &session.namespace,
        parameters,
        now: door.database.now().latest,
    };
    sql::prepare(text, environment).map_err(of_sql)
}

/// Takes the answer of `PLAN`: what the statement would answer, and nothing else.
fn planned(plan: &Plan) -> pb::ResultSet {
    pb::ResultSet {
        metadata: Some(results::metadata(&plan.columns, None)),
        stats: Some(pb::ResultSetStats {
            query_plan: Some(crate::explain::plan(&plan.root)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn is_profile(mode: QueryMode) -> bool {
    matches!(
        mode,
        QueryMode::Profile | QueryMode::WithStats | QueryMode::WithPlanAndStats
    )
}

/// An answer, or what it takes to stream one.
enum Begun {
    Whole(pb::ResultSet),
    Run(Run),
}

async fn begin_detached(door: &Arc<Door>, request: pb::ExecuteSqlRequest) -> Result<Begun, Status> {
    let door = Arc::clone(door);
    detached(async move { begin(&door, &request).await }).await
}

async fn begin(door: &Door, request: &pb::ExecuteSqlRequest) -> Result<Begun, Status> {
    let session = door.sessions.find(door, &request.session)?;
    let parameters = RequestParameters {
        values: request.params.as_ref(),
        types: &request.param_types,
    };
    match analyse(door, &session, &request.sql, &parameters)? {
        Prepared::Query(mut plan) => {
            if !request.partition_token.is_empty() {
                let of = partitions::Of::query(&session, &request.sql, request.params.as_ref());
                partitions::narrow(plan.partitionable(), &request.partition_token, &of)?;
            }
            if request.query_mode() == QueryMode::Plan {
                return Ok(Begun::Whole(planned(&plan)));
            }
            let resume = Resume::decode(&request.resume_token)?;
            let selected = door
                .transactions
                .select(door, &session, request.transaction.as_ref())
                .await?;
            if plan.for_update && !selected.is_read_write() {
                return Err(Status::invalid_argument(FOR_UPDATE_REFUSED));
            }
            let mut source = Source::new(door, selected.held, resume)?;
            source.check(request.last_statement)?;
            Ok(Begun::Run(Run {
                plan,
                source,
                begun: selected.begun,
                resume,
                profile: is_profile(request.query_mode()),
            }))
        }
        Prepared::Manipulation(manipulation) => {
            if request.query_mode() == QueryMode::Plan {
                return Ok(Begun::Whole(pb::ResultSet {
                    metadata: Some(results::metadata(returning(&manipulation), None)),
                    ..Default::default()
                }));
            }
            let mut selected =
                select_for_writing(door, &session, request.transaction.as_ref()).await?;
            if let Held::PartitionedDml = selected.held {
                let row_count = partitioned_dml::execute(door, *manipulation).await?;
                return Ok(Begun::Whole(pb::ResultSet {
                    metadata: Some(results::metadata(&[], selected.begun)),
                    stats: Some(pb::ResultSetStats {
                        row_count: Some(RowCount::RowCountLowerBound(row_count)),
                        ..Default::default()
                    }),
                    ..Default::default()
                }));
            }
            let result = manipulate(
                door,
                &mut selected,
                *manipulation,
                Some((request.seqno, &request.sql)),
            )
            .await;
            if result.is_err() && selected.begun.is_some() {
                selected.forget(door);
            } else if let Some(state) = selected.read_write()
                && request.last_statement
            {
                state.is_complete = true;
            }
            result.map(Begun::Whole)
        }
    }
}

fn returning(manipulation: &sql::Manipulation) -> &[OutputColumn] {
    manipulation
        .returning
        .as_ref()
        .map_or(&[], |returning| &returning.columns)
}

async fn select_for_writing(
    door: &Door,
    session: &Session,
    selector: Option<&pb::TransactionSelector>,
) -> Result<Selected, Status> {
    let mut selected = door.transactions.select(door, session, selector).await?;
    match &mut selected.held {
        Held::ReadWrite(_) | Held::PartitionedDml => Ok(selected),
        Held::Snapshot(_) => Err(Status::invalid_argument(
            "DML statements can only be performed in a read-write or partitioned-dml transaction.",
        )),
    }
}

/// Runs a data manipulation statement. `numbered`: its sequence number and text, to answer a repetition with.
async fn manipulate(
    door: &Door,
    selected: &mut Selected,
    manipulation: sql::Manipulation,
    numbered: Option<(i64, &str)>,
) -> Result<pb::ResultSet, Status> {
    let begun = selected.begun.clone();
    let Some(state) = selected.read_write() else {
        return Err(Status::invalid_argument("not a read-write transaction"));
    };
    if let Some((seqno, text)) = numbered
        && begun.is_none()
        && let Some(Remembered::Result(result)) = state.replay(seqno, text)?
    {
        return Ok(*result);
    }
    let columns = returning(&manipulation).to_vec();
    let catalog = door.database.catalog();
    let mut count = state.mutation_count;
    let mut storage = CountingStorage {
        inner: TransactionStorage(state.active()?),
        catalog: &catalog,
        count: &mut count,
    };
    let effect = sql::execute_manipulation(manipulation, &catalog, &mut storage).await;
    let effect = match effect.map_err(of_sql) {
        Ok(effect) => effect,
        Err(status) => {
            if status.code() == tonic::Code::Aborted {
                door.transactions.aborted(door, state, &status);
            }
            return Err(status);
        }
    };
    state.mutation_count = count;
    let result = pb::ResultSet {
        metadata: Some(results::metadata(&columns, begun)),
        rows: effect.returned.iter().map(results::list).collect(),
        stats: Some(pb::ResultSetStats {
            row_count: Some(RowCount::RowCountExact(effect.row_count)),
            ..Default::default()
        }),
        precommit_token: state.precommit_token(),
        ..Default::default()
    };
    if let Some((seqno, text)) = numbered {
        let remembered = Remembered::Result(Box::new(result.clone()));
        state
            .statements
            .insert(seqno, (text.to_owned(), remembered));
    }
    Ok(result)
}

pub async fn execute_sql(
    door: Arc<Door>,
    request: pb::ExecuteSqlRequest,
) -> Result<pb::ResultSet, Status> {
    match begin_detached(&door, request).await? {
        Begun::Whole(result) => Ok(result),
        Begun::Run(run) => results::whole(&door, run).await,
    }
}

pub async fn execute_streaming_sql(
    door: Arc<Door>,
    request: pb::ExecuteSqlRequest,
) -> Result<Answers<pb::PartialResultSet>, Status> {
    match begin_detached(&door, request).await? {
        Begun::Whole(result) => Ok(once(results::as_partial(result))),
        Begun::Run(run) => Ok(spawn(door, run)),
    }
}

fn once(message: pb::PartialResultSet) -> Answers<pb::PartialResultSet> {
    Box::pin(tokio_stream::once(Ok(message)))
}

fn spawn(door: Arc<Door>, run: Run) -> Answers<pb::PartialResultSet> {
    let (sender, receiver) = mpsc::channel(MESSAGES_AHEAD);
    // Ends by itself when the client goes: its messages have nowhere to go then.
    tokio::spawn(async move { results::stream(&door, run, sender).await });
    Box::pin(ReceiverStream::new(receiver))
}

pub async fn execute_batch_dml(
    door: Arc<Door>,
    request: pb::ExecuteBatchDmlRequest,
) -> Result<pb::ExecuteBatchDmlResponse, Status> {
    detached(async move { batch_dml(&door, &request).await }).await
}

async fn batch_dml(
    door: &Door,
    request: &pb::ExecuteBatchDmlRequest,
) -> Result<pb::ExecuteBatchDmlResponse, Status> {
    if request.statements.is_empty() {
        return Err(Status::invalid_argument(
            "No statements in batch DML request.",
        ));
    }
    if request.statements.len() > BATCH_MAX {
        return Err(Status::invalid_argument(format!(
            "a batch has at most {BATCH_MAX} statements"
        )));
    }
    let session = door.sessions.find(door, &request.session)?;
    let mut selected = select_for_writing(door, &session, request.transaction.as_ref()).await?;
    if let Held::PartitionedDml = selected.held {
        return Err(Status::invalid_argument(
            "A partitioned DML transaction executes one statement, not a batch.",
        ));
    }
    let mut text = String::new();
    for statement in &request.statements {
        text.push_str(&statement.sql);
        text.push(';');
    }
    if selected.begun.is_none()
        && let Some(state) = selected.read_write()
        && let Some(Remembered::Batch(answer)) = state.replay(request.seqno, &text)?
    {
        return Ok(*answer);
    }
    let mut answer = pb::ExecuteBatchDmlResponse {
        status: Some(Default::default()),
        ..Default::default()
    };
    for statement in &request.statements {
        let parameters = RequestParameters {
            values: statement.params.as_ref(),
            types: &statement.param_types,
        };
        let result = match analyse(door, &session, &statement.sql, &parameters) {
            Ok(Prepared::Manipulation(manipulation)) => {
                manipulate(door, &mut selected, *manipulation, None).await
            }
            Ok(Prepared::Query(_)) => Err(Status::invalid_argument(
                "A batch has data manipulation statements only.",
            )),
            Err(status) => Err(status),
        };
        match result {
            Ok(mut result) => {
                // Only the first answer tells of the transaction.
                if !answer.result_sets.is_empty() {
                    result.metadata = result.metadata.map(|metadata| pb::ResultSetMetadata {
                        transaction: None,
                        ..metadata
                    });
                }
                answer.result_sets.push(result);
            }
            Err(status) if status.code() == tonic::Code::Aborted => return Err(status),
            Err(status) => {
                answer.status = Some(as_message(&status));
                // Only a statement that succeeds tells of the transaction: one that the first began is lost with it.
                if answer.result_sets.is_empty() && selected.begun.is_some() {
                    selected.forget(door);
                    return Ok(answer);
                }
                break;
            }
        }
    }
    if let Some(state) = selected.read_write() {
        state.is_complete |= request.last_statements;
        answer.precommit_token = state.precommit_token();
        let remembered = Remembered::Batch(Box::new(answer.clone()));
        state.statements.insert(request.seqno, (text, remembered));
    }
    Ok(answer)
}

// ---- reads ----

/// There are no secondary indexes, and the primary key goes by two names.
pub fn check_index(table: &catalog::Table, index: &str) -> Result<(), Status> {
    match index.is_empty() || index.eq_ignore_ascii_case("PRIMARY_KEY") {
        true => Ok(()),
        false => Err(Status::not_found(format!(
            "Index not found on table {}: {index}",
            table.name(),
        ))),
    }
}

async fn begin_read(door: &Door, request: &pb::ReadRequest) -> Result<Run, Status> {
    let session = door.sessions.find(door, &request.session)?;
    let catalog = door.database.catalog();
    let table = find_table(&catalog, &session.namespace, &request.table)?;
    check_index(table, &request.index)?;
    if request.columns.is_empty() {
        return Err(Status::invalid_argument(
            "A read must name at least one column.",
        ));
    }
    let row_limit = match u64::try_from(request.limit) {
        Ok(0) => None,
        Ok(limit) => Some(limit),
        Err(_) => {
            return Err(Status::invalid_argument(
                "A read's limit must not be negative.",
            ));
        }
    };
    let columns = find_columns(table, &request.columns)?;
    let output = columns.iter().zip(&request.columns).map(|(index, name)| {
        let column = &table.columns()[*index];
        let kind = SqlType::of_column(&column.kind).ok_or_else(|| {
            status::unimplemented(&format!(
                "reading column {} of type {:?} through Spanner",
                column.name, column.kind
            ))
        })?;
        Ok(OutputColumn {
            name: name.clone(),
            kind,
        })
    });
    let output = output.collect::<Result<Vec<OutputColumn>, Status>>()?;
    let set = request.key_set.clone().unwrap_or_default();
    let mut scan = Scan {
        looked_at: None,
        selection: keys::selection(table, &set)?,
        table: table.clone(),
        columns,
        direction: api::Direction::Forward,
        row_limit,
        for_update: request.lock_hint() == LockHint::Exclusive,
    };
    if !request.partition_token.is_empty() {
        if row_limit.is_some() {
            return Err(Status::invalid_argument(
                "A read of a partition cannot have a limit.",
            ));
        }
        let of = partitions::Of::read(table, &request.columns, &set);
        partitions::narrow(Some(&mut scan), &request.partition_token, &of)?;
    }
    let resume = Resume::decode(&request.resume_token)?;
    let selected = door
        .transactions
        .select(door, &session, request.transaction.as_ref())
        .await?;
    let for_update = scan.for_update;
    if request.lock_hint() != LockHint::Unspecified && !selected.is_read_write() {
        return Err(Status::invalid_argument(
            "A lock hint is for reads in read-write transactions only.",
        ));
    }
    let mut source = Source::new(door, selected.held, resume)?;
    source.check(false)?;
    Ok(Run {
        plan: Plan {
            for_update,
            text: Arc::from(""),
            columns: output,
            root: Relation::Scan(scan),
            subqueries: Vec::new(),
        },
        source,
        begun: selected.begun,
        resume,
        profile: false,
    })
}

pub async fn read(door: Arc<Door>, request: pb::ReadRequest) -> Result<pb::ResultSet, Status> {
    let run = begin_read(&door, &request).await?;
    results::whole(&door, run).await
}

pub async fn streaming_read(
    door: Arc<Door>,
    request: pb::ReadRequest,
) -> Result<Answers<pb::PartialResultSet>, Status> {
    let run = begin_read(&door, &request).await?;
    Ok(spawn(door, run))
}
