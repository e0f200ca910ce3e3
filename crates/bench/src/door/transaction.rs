//! Spanner's read-write transactions: one adds to a random row in each of several tables, so in as many tablets,
//! and commits. The first statement begins the transaction; one that is aborted begins anew.

use super::spanner::{Settings, int};
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as spanner;
use prost_types::{ListValue, Struct};
use spanner::spanner_client::SpannerClient;
use spanner::transaction_options::{Mode, ReadWrite};
use spanner::transaction_selector::Selector;
use std::collections::BTreeMap;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A transaction that is aborted so often counts as failed.
const ATTEMPTS_MAX: u32 = 50;
/// Rows written by one commit when the tables are filled.
const ROWS_AT_A_TIME: u64 = 5_000;

pub fn definitions(settings: &Settings) -> Vec<String> {
    (0..settings.participants)
        .map(|number| {
            format!("CREATE TABLE account{number} (id INT64, value INT64) PRIMARY KEY (id)")
        })
        .collect()
}

/// Puts a row under every key of every table.
pub async fn fill(
    client: &mut SpannerClient<Channel>,
    session: &str,
    settings: &Settings,
) -> Result<(), Status> {
    use spanner::{commit_request::Transaction, mutation};
    for number in 0..settings.participants {
        for first in (0..settings.keys).step_by(ROWS_AT_A_TIME as usize) {
            let ids = first..(first + ROWS_AT_A_TIME).min(settings.keys);
            let row = |id| ListValue {
                values: vec![int(id), int(0)],
            };
            let write = mutation::Write {
                table: format!("account{number}"),
                columns: vec!["id".into(), "value".into()],
                values: ids.map(row).collect(),
            };
            let request = spanner::CommitRequest {
                session: session.to_owned(),
                mutations: vec![spanner::Mutation {
                    operation: Some(mutation::Operation::InsertOrUpdate(write)),
                }],
                transaction: Some(Transaction::SingleUseTransaction(read_write())),
                ..Default::default()
            };
            client.commit(request).await?;
        }
    }
    Ok(())
}

fn read_write() -> spanner::TransactionOptions {
    spanner::TransactionOptions {
        mode: Some(Mode::ReadWrite(ReadWrite::default())),
        ..Default::default()
    }
}

/// Adds to a row of each table, until it is committed.
pub async fn run(
    client: &mut SpannerClient<Channel>,
    session: &str,
    settings: &Settings,
    key: u64,
) -> Result<(), Status> {
    let mut last = Status::aborted("");
    for _ in 0..ATTEMPTS_MAX {
        match attempt(client, session, settings, key).await {
            Err(status) if status.code() == Code::Aborted => last = status,
            outcome => return outcome,
        }
    }
    Err(last)
}

async fn attempt(
    client: &mut SpannerClient<Channel>,
    session: &str,
    settings: &Settings,
    key: u64,
) -> Result<(), Status> {
    let mut id = None;
    for number in 0..settings.participants as u64 {
        let selector = match &id {
            None => Selector::Begin(read_write()),
            Some(id) => Selector::Id(Clone::clone(id)),
        };
        // Each table's row is another one.
        let row = (key + number * 7_919) % settings.keys;
        let request = spanner::ExecuteSqlRequest {
            session: session.to_owned(),
            transaction: Some(spanner::TransactionSelector {
                selector: Some(selector),
            }),
            sql: format!("UPDATE account{number} SET value = value + 1 WHERE id = @id"),
            params: Some(Struct {
                fields: BTreeMap::from([("id".to_owned(), int(row))]),
            }),
            param_types: [(
                "id".to_owned(),
                spanner::Type {
                    code: spanner::TypeCode::Int64 as i32,
                    ..Default::default()
                },
            )]
            .into_iter()
            .collect(),
            seqno: number as i64 + 1,
            ..Default::default()
        };
        let answer = client.execute_sql(request).await?.into_inner();
        let begun = answer.metadata.and_then(|metadata| metadata.transaction);
        id = id.or(begun.map(|transaction| transaction.id));
    }
    let Some(id) = id else {
        return Err(Status::internal("no transaction was begun"));
    };
    let request = spanner::CommitRequest {
        session: session.to_owned(),
        transaction: Some(spanner::commit_request::Transaction::TransactionId(id)),
        ..Default::default()
    };
    client.commit(request).await.map(drop)
}
