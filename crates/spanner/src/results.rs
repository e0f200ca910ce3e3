//! Rows to answers: metadata, the streaming of partial result sets with resume tokens, and whole result sets.
//!
//! A resume token says at which timestamp the rows were read and how many were sent: running the same request
//! again at that timestamp and leaving out as many rows goes on exactly behind them. A message carries one only
//! where a row ends.

use crate::transactions::{Held, Phase, ReadWriteState, SnapshotStorage, TransactionStorage};
use crate::{Door, status, wire};
use api::{Mutation, Projection, ReadBound, ReadRequest, ReadResponse};
use async_trait::async_trait;
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use model::Timestamp;
use pb::{PartialResultSet, ResultSet, ResultSetMetadata, ResultSetStats, StructType, struct_type};
use prost::Message;
use prost_types::ListValue;
use prost_types::value::Kind;
use sql::{Cursor, OutputColumn, Plan, Row};
use tokio::sync::OwnedMutexGuard;
use tokio::sync::mpsc::Sender;
use tonic::Status;

/// A message is sent when it has grown to this.
const MESSAGE_BYTES: usize = 512 << 10;
/// A longer string is cut into pieces of this many bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// Spanner's own limit on an answer that is not streamed.
const WHOLE_BYTES_MAX: usize = 10 << 20;

pub fn metadata(
    columns: &[OutputColumn],
    transaction: Option<pb::Transaction>,
) -> ResultSetMetadata {
    let fields = columns.iter().map(|column| struct_type::Field {
        name: column.name.clone(),
        r#type: Some(wire::type_of(&column.kind)),
    });
    ResultSetMetadata {
        row_type: Some(StructType {
            fields: fields.collect(),
        }),
        transaction,
        undeclared_parameters: None,
    }
}

/// What rows come from.
pub enum Source {
    Snapshot {
        storage: SnapshotStorage,
        tells: bool,
    },
    Transaction(OwnedMutexGuard<ReadWriteState>),
}

impl Source {
    pub fn new(door: &Door, held: Held, resume: Option<Resume>) -> Result<Source, Status> {
        Ok(match held {
            Held::Snapshot(snapshot) => {
                let bound = match resume.and_then(|resume| resume.timestamp) {
                    Some(at) => ReadBound::At(at),
                    None => snapshot.bound,
                };
                Source::Snapshot {
                    storage: SnapshotStorage::new(door.database.clone(), bound),
                    tells: snapshot.tells,
                }
            }
            Held::ReadWrite(guard) => Source::Transaction(guard),
            Held::PartitionedDml => {
                return Err(Status::invalid_argument(
                    "A partitioned DML transaction executes UPDATE and DELETE statements only.",
                ));
            }
        })
    }

    /// Refuses what a transaction that has ended cannot serve.
    pub fn check(&mut self, is_last: bool) -> Result<(), Status> {
        if let Source::Transaction(state) = self {
            state.active()?;
            state.is_complete = is_last;
        }
        Ok(())
    }

    fn timestamp(&self) -> Option<Timestamp> {
        match self {
            Source::Snapshot { storage, .. } => storage.timestamp,
            Source::Transaction(_) => None,
        }
    }

    /// What the metadata says of the transaction: what it began with, or the timestamp if that was asked for.
    fn transaction(&self, door: &Door, begun: Option<pb::Transaction>) -> Option<pb::Transaction> {
        match (self, begun) {
            (_, Some(begun)) => Some(begun),
            (
                Source::Snapshot {
                    storage,
                    tells: true,
                },
                None,
            ) => {
                let at = storage
                    .timestamp
                    .unwrap_or_else(|| door.database.now().latest);
                Some(pb::Transaction {
                    read_timestamp: Some(wire::timestamp(at)),
                    ..Default::default()
                })
            }
            _ => None,
        }
    }

    pub fn precommit_token(&mut self) -> Option<pb::MultiplexedSessionPrecommitToken> {
        match self {
            Source::Transaction(state) => state.precommit_token(),
            Source::Snapshot { .. } => None,
        }
    }

    /// An aborted transaction stays so, and one that the client has not heard of is gone.
    fn failed(&mut self, door: &Door, status: Status, is_unheard_of: bool) -> Status {
        if let Source::Transaction(state) = self {
            match status.code() {
                tonic::Code::Aborted => door.transactions.aborted(door, state, &status),
                _ if is_unheard_of => door.transactions.forget(door, state),
                _ => {}
            }
        }
        status
    }
}

#[async_trait]
impl sql::Storage for Source {
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResponse, api::Error> {
        match self {
            Source::Snapshot { storage, .. } => storage.read(request).await,
            Source::Transaction(state) => match &mut state.phase {
                Phase::Active(inner) => TransactionStorage(inner).read(request).await,
                _ => Err(api::Error::invalid("the transaction has ended")),
            },
        }
    }

    async fn read_to_write(
        &mut self,
        request: ReadRequest,
        written: Projection,
    ) -> Result<ReadResponse, api::Error> {
        match self {
            Source::Snapshot { storage, .. } => storage.read(request).await,
            Source::Transaction(state) => match &mut state.phase {
                Phase::Active(inner) => {
                    let mut storage = TransactionStorage(inner);
                    storage.read_to_write(request, written).await
                }
                _ => Err(api::Error::invalid("the transaction has ended")),
            },
        }
    }

    async fn write(&mut self, mutations: Vec<Mutation>) -> Result<(), api::Error> {
        match self {
            Source::Snapshot { storage, .. } => storage.write(mutations).await,
            Source::Transaction(state) => match &mut state.phase {
                Phase::Active(inner) => TransactionStorage(inner).write(mutations).await,
                _ => Err(api::Error::invalid("the transaction has ended")),
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    pub timestamp: Option<Timestamp>,
    pub rows: u64,
}

impl Resume {
    pub fn decode(token: &[u8]) -> Result<Option<Resume>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let invalid = || Status::invalid_argument("Invalid resume token.");
        let (timestamp, rows) = token.split_at_checked(8).ok_or_else(invalid)?;
        let timestamp = i64::from_be_bytes(timestamp.try_into().map_err(|_| invalid())?);
        let rows = u64::from_be_bytes(rows.try_into().map_err(|_| invalid())?);
        Ok(Some(Resume {
            timestamp: (timestamp != i64::MIN).then_some(Timestamp(timestamp)),
            rows,
        }))
    }

    fn encode(self) -> Vec<u8> {
        let timestamp = self.timestamp.map_or(i64::MIN, |at| at.0);
        let mut token = timestamp.to_be_bytes().to_vec();
        token.extend_from_slice(&self.rows.to_be_bytes());
        token
    }
}

/// A query with what it runs on.
pub struct Run {
    pub plan: Plan,
    pub source: Source,
    pub begun: Option<pb::Transaction>,
    pub resume: Option<Resume>,
    /// Whether the client wants to know what the query cost.
    pub profile: bool,
}

/// Rows under way to a client, gathered into messages.
struct Messages {
    sender: Sender<Result<PartialResultSet, Status>>,
    metadata: Option<ResultSetMetadata>,
    values: Vec<prost_types::Value>,
    size_bytes: usize,
    timestamp: Option<Timestamp>,
    rows_sent: u64,
    has_sent: bool,
}

/// The client is gone.
struct Gone;

impl Messages {
    async fn send(&mut self, mut message: PartialResultSet) -> Result<(), Gone> {
        message.metadata = self.metadata.take();
        self.size_bytes = 0;
        self.has_sent = true;
        self.sender.send(Ok(message)).await.map_err(|_| Gone)
    }

    /// Sends what is gathered; the last value goes on in the next message if `chunked`.
    async fn flush(&mut self, chunked: bool, at_row_end: bool) -> Result<(), Gone> {
        let resume = Resume {
            timestamp: self.timestamp,
            rows: self.rows_sent,
        };
        let message = PartialResultSet {
            values: std::mem::take(&mut self.values),
            chunked_value: chunked,
            resume_token: match at_row_end {
                true => resume.encode(),
                false => Vec::new(),
            },
            ..PartialResultSet::default()
        };
        self.send(message).await
    }

    async fn row(&mut self, row: &Row) -> Result<(), Gone> {
        for value in row {
            let value = wire::encode(value);
            match value.kind {
                Some(Kind::StringValue(text)) if text.len() > CHUNK_BYTES => {
                    self.long(&text).await?
                }
                kind => {
                    let value = prost_types::Value { kind };
                    self.size_bytes += value.encoded_len();
                    self.values.push(value);
                }
            }
        }
        self.rows_sent += 1;
        match self.size_bytes >= MESSAGE_BYTES {
            true => self.flush(false, true).await,
            false => Ok(()),
        }
    }

    /// A long text in pieces.
    async fn long(&mut self, text: &str) -> Result<(), Gone> {
        let mut rest = text;
        while rest.len() > CHUNK_BYTES {
            let mut end = CHUNK_BYTES;
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (piece, more) = rest.split_at(end);
            self.push_text(piece);
            self.flush(true, false).await?;
            rest = more;
        }
        self.push_text(rest);
        Ok(())
    }

    fn push_text(&mut self, text: &str) {
        self.size_bytes += text.len();
        self.values.push(prost_types::Value {
            kind: Some(Kind::StringValue(text.to_owned())),
        });
    }
}

/// Streams a query's rows until they end or the client is gone.
pub async fn stream(door: &Door, run: Run, sender: Sender<Result<PartialResultSet, Status>>) {
    let began = tokio::time::Instant::now();
    let mut source = run.source;
    let mut messages = Messages {
        sender: sender.clone(),
        metadata: None,
        values: Vec::new(),
        size_bytes: 0,
        timestamp: None,
        rows_sent: 0,
        has_sent: false,
    };
    let columns = run.plan.columns.clone();
    let result = async {
        let mut skip = run.resume.map_or(0, |resume| resume.rows);
        let mut cursor = Cursor::open(run.plan, &mut source).await?;
        let mut batch = cursor.next(&mut source).await?;
        // The first read has fixed the timestamp that the metadata may have to tell.
        let transaction = source.transaction(door, run.begun.clone());
        messages.metadata = Some(metadata(&columns, transaction));
        messages.timestamp = source.timestamp();
        while let Some(rows) = batch {
            for row in &rows {
                if skip > 0 {
                    skip -= 1;
                    messages.rows_sent += 1;
                } else if messages.row(row).await.is_err() {
                    return Ok(false);
                }
            }
            batch = cursor.next(&mut source).await?;
        }
        Ok(true)
    }
    .await;
    match result {
        Ok(false) => {}
        Ok(true) => {
            let message = PartialResultSet {
                values: std::mem::take(&mut messages.values),
                stats: run.profile.then(|| query_stats(messages.rows_sent, began)),
                precommit_token: source.precommit_token(),
                last: true,
                ..PartialResultSet::default()
            };
            // Nobody listening any more: there is nobody to tell.
            let _ = messages.send(message).await;
        }
        Err(error) => {
            let is_unheard_of = run.begun.is_some() && !messages.has_sent;
            let status = source.failed(door, status::of_sql(error), is_unheard_of);
            let _ = sender.send(Err(status)).await;
        }
    }
}

fn query_stats(rows: u64, began: tokio::time::Instant) -> ResultSetStats {
    let text = |text: String| prost_types::Value {
        kind: Some(Kind::StringValue(text)),
    };
    let elapsed = began.elapsed().as_secs_f64() * 1_000.0;
    let fields = [
        ("rows_returned".to_owned(), text(rows.to_string())),
        (
            "elapsed_time".to_owned(),
            text(format!("{elapsed:.2} msecs")),
        ),
    ];
    ResultSetStats {
        query_stats: Some(prost_types::Struct {
            fields: fields.into_iter().collect(),
        }),
        ..ResultSetStats::default()
    }
}

/// Runs a query into one answer.
pub async fn whole(door: &Door, run: Run) -> Result<ResultSet, Status> {
    let began = tokio::time::Instant::now();
    let mut source = run.source;
    let columns = run.plan.columns.clone();
    let mut rows = Vec::new();
    let mut size_bytes = 0;
    let result: Result<bool, sql::Error> = async {
        let mut cursor = Cursor::open(run.plan, &mut source).await?;
        while let Some(batch) = cursor.next(&mut source).await? {
            for row in &batch {
                let list = list(row);
                size_bytes += list.encoded_len();
                if size_bytes > WHOLE_BYTES_MAX {
                    return Ok(false);
                }
                rows.push(list);
            }
        }
        Ok(true)
    }
    .await;
    match result {
        Err(error) => {
            let is_unheard_of = run.begun.is_some();
            return Err(source.failed(door, status::of_sql(error), is_unheard_of));
        }
        Ok(false) => {
            return Err(Status::failed_precondition(format!(
                "The result is larger than {WHOLE_BYTES_MAX} bytes; use the streaming method"
            )));
        }
        Ok(true) => {}
    }
    let transaction = source.transaction(door, run.begun);
    Ok(ResultSet {
        metadata: Some(metadata(&columns, transaction)),
        stats: run.profile.then(|| query_stats(rows.len() as u64, began)),
        rows,
        precommit_token: source.precommit_token(),
        ..ResultSet::default()
    })
}

pub fn list(row: &Row) -> ListValue {
    ListValue {
        values: row.iter().map(wire::encode).collect(),
    }
}

/// A whole answer as the only message of a stream.
pub fn as_partial(result: ResultSet) -> PartialResultSet {
    PartialResultSet {
        metadata: result.metadata,
        values: result.rows.into_iter().flat_map(|row| row.values).collect(),
        stats: result.stats,
        precommit_token: result.precommit_token,
        last: true,
        ..PartialResultSet::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn resume_tokens_round_trip() {
        for timestamp in [None, Some(Timestamp(7))] {
            let resume = Resume { timestamp, rows: 3 };
            assert_eq!(Resume::decode(&resume.encode()).unwrap(), Some(resume));
        }
        assert!(Resume::decode(b"").unwrap().is_none());
    }

    proptest! {
        #[test]
        fn any_resume_token_is_read_or_refused(token in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Resume::decode(&token);
        }
    }
}
