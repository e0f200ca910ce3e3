//! Spanner's gRPC: a commit of one `insert_or_update` mutation, and a single-use strong read of one row.

use super::{payload, transaction};
use crate::alarm;
use crate::load::{Operation, Schedule, Tally};
use googleapis_tonic_google_spanner_admin_database_v1::google::spanner::admin::database::v1 as database;
use googleapis_tonic_google_spanner_admin_instance_v1::google::spanner::admin::instance::v1 as instance;
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as spanner;
use prost_types::value::Kind;
use prost_types::{ListValue, Value};
use spanner::spanner_client::SpannerClient;
use std::io;
use std::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const PROJECT: &str = "projects/bench";

#[derive(Clone)]
pub struct Settings {
    pub database: String,
    pub value_bytes: usize,
    /// A write is a transaction over so many tables; 0: a commit of one mutation.
    pub participants: usize,
    pub keys: u64,
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// What exists already is fine.
fn allow_existing<T>(result: Result<T, Status>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        Err(status) => Err(other(status)),
    }
}

async fn channel(address: &str) -> io::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(other)?;
    endpoint.tcp_nodelay(true).connect().await.map_err(other)
}

pub async fn create(address: &str, settings: &Settings) -> io::Result<()> {
    let channel = channel(address).await?;
    let mut instances = instance::instance_admin_client::InstanceAdminClient::new(channel.clone());
    let request = instance::CreateInstanceRequest {
        parent: PROJECT.into(),
        instance_id: "bench".into(),
        instance: Some(instance::Instance {
            config: format!("{PROJECT}/instanceConfigs/emulator-config"),
            display_name: "bench".into(),
            node_count: 1,
            ..Default::default()
        }),
    };
    allow_existing(instances.create_instance(request).await)?;
    let mut databases = database::database_admin_client::DatabaseAdminClient::new(channel.clone());
    let request = database::CreateDatabaseRequest {
        parent: format!("{PROJECT}/instances/bench"),
        create_statement: format!("CREATE DATABASE `{}`", settings.database),
        extra_statements: [
            "CREATE TABLE load (id INT64, value BYTES(MAX)) PRIMARY KEY (id)".into(),
        ]
        .into_iter()
        .chain(transaction::definitions(settings))
        .collect(),
        ..Default::default()
    };
    allow_existing(databases.create_database(request).await)?;
    let mut client = SpannerClient::new(channel);
    let request = spanner::CreateSessionRequest {
        database: format!("{PROJECT}/instances/bench/databases/{}", settings.database),
        session: None,
    };
    let session = client.create_session(request).await.map_err(other)?;
    let session = session.into_inner().name;
    transaction::fill(&mut client, &session, settings)
        .await
        .map_err(other)
}

/// One session on a connection of its own, with one request under way at a time.
pub struct Spanner {
    client: SpannerClient<Channel>,
    session: String,
    settings: Settings,
}

impl Spanner {
    /// `lanes` sessions that share one connection.
    pub async fn connect(
        address: &str,
        settings: &Settings,
        lanes: usize,
    ) -> io::Result<Vec<Spanner>> {
        let mut client = SpannerClient::new(channel(address).await?);
        let database = format!("{PROJECT}/instances/bench/databases/{}", settings.database);
        let mut sessions = Vec::with_capacity(lanes);
        for _ in 0..lanes {
            let request = spanner::CreateSessionRequest {
                database: database.clone(),
                session: None,
            };
            let session = client
                .create_session(request)
                .await
                .map_err(other)?
                .into_inner();
            sessions.push(Spanner {
                client: client.clone(),
                session: session.name,
                settings: settings.clone(),
            });
        }
        Ok(sessions)
    }

    /// Runs one lane to its end.
    pub async fn drive(mut self, mut schedule: Schedule) -> io::Result<Tally> {
        let mut tally = Tally::new();
        while let Some(due) = schedule.due(Instant::now()) {
            if due > Instant::now() {
                alarm::sleep_until(due).await;
            }
            let operation = schedule.draw();
            let answer = match operation {
                Operation::Read(key) => self.read(key).await,
                Operation::Write(key) => self.write(key).await,
            };
            if schedule.counts(due) {
                tally.record(operation, due.elapsed(), answer.is_ok());
            }
        }
        Ok(tally)
    }

    async fn read(&mut self, key: u64) -> Result<(), Status> {
        let request = spanner::ReadRequest {
            session: self.session.clone(),
            table: "load".into(),
            columns: vec!["value".into()],
            key_set: Some(spanner::KeySet {
                keys: vec![ListValue {
                    values: vec![int(key)],
                }],
                ..Default::default()
            }),
            ..Default::default()
        };
        self.client.read(request).await.map(drop)
    }

    async fn write(&mut self, key: u64) -> Result<(), Status> {
        if self.settings.participants > 0 {
            let client = &mut self.client;
            return transaction::run(client, &self.session, &self.settings, key).await;
        }
        use spanner::commit_request::Transaction;
        use spanner::mutation;
        use spanner::transaction_options::{Mode, ReadWrite};
        let write = mutation::Write {
            table: "load".into(),
            columns: vec!["id".into(), "value".into()],
            values: vec![ListValue {
                values: vec![int(key), bytes(&payload(key, self.settings.value_bytes))],
            }],
        };
        let options = spanner::TransactionOptions {
            mode: Some(Mode::ReadWrite(ReadWrite::default())),
            ..Default::default()
        };
        let request = spanner::CommitRequest {
            session: self.session.clone(),
            mutations: vec![spanner::Mutation {
                operation: Some(mutation::Operation::InsertOrUpdate(write)),
            }],
            transaction: Some(Transaction::SingleUseTransaction(options)),
            ..Default::default()
        };
        self.client.commit(request).await.map(drop)
    }
}

pub fn int(value: u64) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.to_string())),
    }
}

/// Base64, as bytes travel in Spanner's values. The payload's length need not be a multiple of three.
fn bytes(payload: &[u8]) -> Value {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(payload.len().div_ceil(3) * 4);
    for chunk in payload.chunks(3) {
        let group = chunk
            .iter()
            .fold(0_u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for position in 0..4 {
            match position <= chunk.len() {
                true => text.push(char::from(
                    DIGITS[(group >> (18 - 6 * position) & 63) as usize],
                )),
                false => text.push('='),
            }
        }
    }
    Value {
        kind: Some(Kind::StringValue(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, bytes};

    #[test]
    fn bytes_are_base64() {
        let text = |payload: &[u8]| match bytes(payload).kind {
            Some(Kind::StringValue(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text(b"f"), "Zg==");
        assert_eq!(text(b"fo"), "Zm8=");
        assert_eq!(text(b"foo"), "Zm9v");
        assert_eq!(text(b"foobar"), "Zm9vYmFy");
    }
}
