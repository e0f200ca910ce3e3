//! The door over the reference, by the generated clients: what the official Python client does not show.

mod commit;
mod locks;
mod nodes;

use googleapis_tonic_google_spanner_admin_database_v1::google::spanner::admin::database::v1 as ddl;
use googleapis_tonic_google_spanner_admin_instance_v1::google::spanner::admin::instance::v1 as instances;
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use pb::spanner_client::SpannerClient;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use tonic::transport::Channel;

const PARENT: &str = "projects/p/instances/i";
const DATABASE: &str = "projects/p/instances/i/databases/db";

struct Served {
    address: SocketAddr,
    client: SpannerClient<Channel>,
    session: String,
}

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn serve() -> Served {
    serve_over(api::reference::Reference::new(LOCAL, 9042)).await
}

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

async fn serve_over(database: std::sync::Arc<dyn api::Database>) -> Served {
    let listener = tokio::net::TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(spanner::serve(
        listener,
        database,
        Default::default(),
        std::future::pending(),
    ));
    let channel = connect(address).await;
    let mut admin = instances::instance_admin_client::InstanceAdminClient::new(channel.clone());
    let made = instances::CreateInstanceRequest {
        parent: "projects/p".into(),
        instance_id: "i".into(),
        instance: None,
    };
    assert!(admin.create_instance(made).await.unwrap().into_inner().done);
    let mut admin = ddl::database_admin_client::DatabaseAdminClient::new(channel.clone());
    let made = ddl::CreateDatabaseRequest {
        parent: PARENT.into(),
        create_statement: "CREATE DATABASE db".into(),
        extra_statements: vec![
            "CREATE TABLE t (k INT64 NOT NULL, v STRING(MAX)) PRIMARY KEY (k)".into(),
        ],
        ..Default::default()
    };
    assert!(admin.create_database(made).await.unwrap().into_inner().done);
    let mut client = SpannerClient::new(channel);
    let session = client
        .create_session(pb::CreateSessionRequest {
            database: DATABASE.into(),
            session: Some(pb::Session {
                multiplexed: true,
                ..Default::default()
            }),
        })
        .await
        .unwrap()
        .into_inner();
    Served {
        address,
        client,
        session: session.name,
    }
}

fn text(text: impl Into<String>) -> Value {
    Value {
        kind: Some(Kind::StringValue(text.into())),
    }
}

fn read_write() -> pb::TransactionOptions {
    pb::TransactionOptions {
        mode: Some(pb::transaction_options::Mode::ReadWrite(Default::default())),
        ..Default::default()
    }
}

fn by_id(id: &[u8]) -> Option<pb::TransactionSelector> {
    Some(pb::TransactionSelector {
        selector: Some(pb::transaction_selector::Selector::Id(id.to_vec())),
    })
}

impl Served {
    fn sql(
        &self,
        sql: &str,
        transaction: Option<pb::TransactionSelector>,
    ) -> pb::ExecuteSqlRequest {
        pb::ExecuteSqlRequest {
            session: self.session.clone(),
            sql: sql.into(),
            transaction,
            ..Default::default()
        }
    }

    async fn insert(&mut self, rows: Vec<(i64, String)>) {
        let rows = rows.into_iter().map(|(key, value)| ListValue {
            values: vec![text(key.to_string()), text(value)],
        });
        let write = pb::mutation::Write {
            table: "t".into(),
            columns: vec!["k".into(), "v".into()],
            values: rows.collect(),
        };
        let request = pb::CommitRequest {
            session: self.session.clone(),
            mutations: vec![pb::Mutation {
                operation: Some(pb::mutation::Operation::InsertOrUpdate(write)),
            }],
            return_commit_stats: true,
            transaction: Some(pb::commit_request::Transaction::SingleUseTransaction(
                read_write(),
            )),
            ..Default::default()
        };
        let answer = self.client.commit(request).await.unwrap().into_inner();
        assert!(answer.commit_stats.unwrap().mutation_count >= 2);
    }

    async fn begin(&mut self) -> Vec<u8> {
        let request = pb::BeginTransactionRequest {
            session: self.session.clone(),
            options: Some(read_write()),
            ..Default::default()
        };
        let begun = self
            .client
            .begin_transaction(request)
            .await
            .unwrap()
            .into_inner();
        assert!(
            begun.precommit_token.is_some(),
            "the session is multiplexed"
        );
        begun.id
    }

    async fn commit(&mut self, id: &[u8]) -> Result<pb::CommitResponse, tonic::Status> {
        let request = pb::CommitRequest {
            session: self.session.clone(),
            transaction: Some(pb::commit_request::Transaction::TransactionId(id.to_vec())),
            ..Default::default()
        };
        Ok(self.client.commit(request).await?.into_inner())
    }

    async fn stream(&mut self, request: pb::ExecuteSqlRequest) -> Vec<pb::PartialResultSet> {
        let mut stream = self
            .client
            .execute_streaming_sql(request)
            .await
            .unwrap()
            .into_inner();
        let mut messages = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            messages.push(message);
        }
        messages
    }

    async fn value(&mut self, key: i64) -> String {
        let sql = self.sql(&format!("SELECT v FROM t WHERE k = {key}"), None);
        let rows = self
            .client
            .execute_sql(sql)
            .await
            .unwrap()
            .into_inner()
            .rows;
        match &rows[0].values[0].kind {
            Some(Kind::StringValue(text)) => text.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_repeated_statement_and_a_repeated_commit_are_answered_and_not_done_again() {
    let mut served = serve().await;
    served.insert(vec![(1, "a".into())]).await;
    let id = served.begin().await;
    let mut update = served.sql("UPDATE t SET v = v || 'x' WHERE k = 1", by_id(&id));
    update.seqno = 1;
    let first = served
        .client
        .execute_sql(update.clone())
        .await
        .unwrap()
        .into_inner();
    let again = served
        .client
        .execute_sql(update.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first, again);
    update.sql = "UPDATE t SET v = 'other' WHERE k = 1".into();
    let other = served.client.execute_sql(update).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
    let committed = served.commit(&id).await.unwrap();
    assert_eq!(
        served.commit(&id).await.unwrap().commit_timestamp,
        committed.commit_timestamp
    );
    assert_eq!(served.value(1).await, "ax");
    let late = served.sql("SELECT 1", by_id(&id));
    let late = served.client.execute_sql(late).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_batch_whose_first_statement_fails_begins_nothing_and_says_why() {
    let mut served = serve().await;
    served.insert(vec![(1, "a".into())]).await;
    let statement = |sql: &str| pb::execute_batch_dml_request::Statement {
        sql: sql.into(),
        ..Default::default()
    };
    let (fails, succeeds) = (
        statement("INSERT INTO t (k, v) VALUES (1, 'b')"),
        statement("UPDATE t SET v = 'c' WHERE k = 1"),
    );
    let mut request = pb::ExecuteBatchDmlRequest {
        session: served.session.clone(),
        transaction: Some(pb::TransactionSelector {
            selector: Some(pb::transaction_selector::Selector::Begin(read_write())),
        }),
        statements: vec![fails.clone(), succeeds.clone()],
        seqno: 1,
        ..Default::default()
    };
    let answer = served.client.execute_batch_dml(request.clone()).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!(answer.status.unwrap().code, Code::AlreadyExists as i32);
    assert!(answer.result_sets.is_empty() && answer.precommit_token.is_none());
    // So the client begins by itself, and hears the same of the transaction that it has.
    request.transaction = by_id(&served.begin().await);
    let answer = served.client.execute_batch_dml(request.clone()).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!(answer.status.unwrap().code, Code::AlreadyExists as i32);
    (request.statements, request.seqno) = (vec![succeeds, fails], 2);
    let answer = served.client.execute_batch_dml(request).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.status.unwrap().code, Code::AlreadyExists as i32);
    assert_eq!(answer.result_sets.len(), 1);
    assert_eq!(served.value(1).await, "a");
}

#[tokio::test]
async fn the_loser_of_a_conflict_hears_aborted_with_a_delay() {
    let mut served = serve().await;
    served.insert(vec![(1, "a".into())]).await;
    let (one, two) = (served.begin().await, served.begin().await);
    for id in [&one, &two] {
        let mut update = served.sql("UPDATE t SET v = v || 'x' WHERE k = 1", by_id(id));
        update.seqno = 1;
        served.client.execute_sql(update).await.unwrap();
    }
    served.commit(&one).await.unwrap();
    for _ in 0..2 {
        let status = served.commit(&two).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{status:?}");
        let retry = status
            .metadata()
            .get_bin("google.rpc.retryinfo-bin")
            .unwrap();
        assert!(!retry.to_bytes().unwrap().is_empty());
        let details =
            googleapis_tonic_google_rpc::google::rpc::Status::decode(status.details()).unwrap();
        assert!(
            details.details[0]
                .type_url
                .ends_with("google.rpc.RetryInfo")
        );
    }
    assert_eq!(served.value(1).await, "ax");
}

#[tokio::test]
async fn a_stream_goes_on_behind_its_resume_token_at_the_same_timestamp() {
    let mut served = serve().await;
    let long = "y".repeat(3 << 20);
    let mut rows: Vec<(i64, String)> = (0..2_000)
        .map(|key| (key, format!("{key:0>1000}")))
        .collect();
    rows.push((2_000, long.clone()));
    served.insert(rows).await;
    let query = served.sql("SELECT k, v FROM t", None);
    let messages = served.stream(query.clone()).await;
    assert!(messages.len() > 4);
    assert!(messages.iter().any(|message| message.chunked_value));
    assert!(messages.last().unwrap().last);
    let all = joined(&messages);
    assert_eq!(all.len(), 2 * 2_001);
    assert_eq!(all[4_001], text(long));
    served
        .insert(vec![(0, "changed".into()), (1_999, "changed".into())])
        .await;
    for (index, message) in messages.iter().enumerate() {
        if message.resume_token.is_empty() {
            continue;
        }
        let mut rest = query.clone();
        rest.resume_token = message.resume_token.clone();
        let mut whole = joined(&messages[..=index]);
        whole.extend(joined(&served.stream(rest).await));
        assert!(whole == all, "behind message {index}");
    }
    let mut wrong = query;
    wrong.resume_token = b"what?".to_vec();
    let status = served
        .client
        .execute_streaming_sql(wrong)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn behind_the_last_statement_comes_the_end() {
    let mut served = serve().await;
    served.insert(vec![(1, "a".into())]).await;
    let id = served.begin().await;
    let mut update = served.sql("UPDATE t SET v = 'b' WHERE k = 1", by_id(&id));
    (update.seqno, update.last_statement) = (1, true);
    let first = served.client.execute_sql(update.clone()).await.unwrap();
    let again = served.client.execute_sql(update.clone()).await.unwrap();
    assert_eq!(first.into_inner(), again.into_inner());
    (update.seqno, update.last_statement) = (2, false);
    for late in [update, served.sql("SELECT 1", by_id(&id))] {
        let status = served.client.execute_sql(late).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
    }
    served.commit(&id).await.unwrap();
    assert_eq!(served.value(1).await, "b");
}

#[tokio::test]
async fn optimistic_transactions_and_delays_within_limits_are_taken() {
    use pb::transaction_options::read_write::ReadLockMode;
    use pb::transaction_options::{IsolationLevel, Mode, ReadWrite};
    let mut served = serve().await;
    served.insert(vec![(1, "a".into())]).await;
    for (lock, isolation) in [
        (ReadLockMode::Optimistic, IsolationLevel::Serializable),
        (ReadLockMode::Unspecified, IsolationLevel::RepeatableRead),
    ] {
        let options = pb::TransactionOptions {
            mode: Some(Mode::ReadWrite(ReadWrite {
                read_lock_mode: lock as i32,
                ..Default::default()
            })),
            isolation_level: isolation as i32,
            ..Default::default()
        };
        let begin = Some(pb::TransactionSelector {
            selector: Some(pb::transaction_selector::Selector::Begin(options)),
        });
        let select = served.sql("SELECT v FROM t WHERE k = 1", begin);
        let read = served
            .client
            .execute_sql(select)
            .await
            .unwrap()
            .into_inner();
        let id = read.metadata.unwrap().transaction.unwrap().id;
        served.insert(vec![(1, "b".into())]).await;
        let mut update = served.sql("UPDATE t SET v = 'lost' WHERE k = 1", by_id(&id));
        update.seqno = 1;
        served.client.execute_sql(update).await.unwrap();
        assert_eq!(served.commit(&id).await.unwrap_err().code(), Code::Aborted);
    }
    for (nanos, code) in [
        (500_000_000, Code::Ok),
        (500_001_000, Code::InvalidArgument),
    ] {
        let request = pb::CommitRequest {
            session: served.session.clone(),
            transaction: Some(pb::commit_request::Transaction::SingleUseTransaction(
                read_write(),
            )),
            max_commit_delay: Some(prost_types::Duration { seconds: 0, nanos }),
            ..Default::default()
        };
        let result = served.client.commit(request).await;
        assert_eq!(
            result.map_or_else(|status| status.code(), |_| Code::Ok),
            code
        );
    }
}

#[tokio::test]
async fn parts_are_the_whole_and_their_tokens_serve_nothing_else() {
    let mut served = serve().await;
    let rows = (0..3_000).map(|key| (key, format!("v{key}"))).collect();
    served.insert(rows).await;
    let request = pb::BeginTransactionRequest {
        session: served.session.clone(),
        options: Some(pb::TransactionOptions {
            mode: Some(pb::transaction_options::Mode::ReadOnly(Default::default())),
            ..Default::default()
        }),
        ..Default::default()
    };
    let begun = served.client.begin_transaction(request).await.unwrap();
    let id = begun.into_inner().id;
    let query = served.sql("SELECT k FROM t WHERE v != 'v7'", by_id(&id));
    let parts = pb::PartitionQueryRequest {
        session: served.session.clone(),
        sql: query.sql.clone(),
        transaction: by_id(&id),
        ..Default::default()
    };
    let parts = served.client.partition_query(parts).await.unwrap();
    let parts = parts.into_inner().partitions;
    assert_eq!(parts.len(), 16);
    // What comes later is in none of them.
    served.insert(vec![(5_000, "late".into())]).await;
    let mut found = Vec::new();
    for part in &parts {
        let mut query = query.clone();
        query.partition_token = part.partition_token.clone();
        let rows = served
            .client
            .execute_sql(query)
            .await
            .unwrap()
            .into_inner()
            .rows;
        assert!(rows.len() < 600, "{}", rows.len());
        found.extend(rows.into_iter().map(|row| row.values));
    }
    assert_eq!(found.len(), 2_999);
    found.sort_by_key(|values| format!("{values:?}"));
    found.dedup();
    assert_eq!(found.len(), 2_999);
    for (sql, token) in [
        ("SELECT k FROM t", parts[0].partition_token.clone()),
        ("SELECT COUNT(*) FROM t", parts[0].partition_token.clone()),
        (query.sql.as_str(), vec![1, 2, 3]),
    ] {
        let mut other = served.sql(sql, by_id(&id));
        other.partition_token = token;
        let status = served.client.execute_sql(other).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{sql}");
    }
}

/// The values of a stream, with chunks put together.
fn joined(messages: &[pb::PartialResultSet]) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    let mut is_open = false;
    for message in messages {
        for (index, value) in message.values.iter().enumerate() {
            let last = values.last_mut().map(|value| &mut value.kind);
            match (index == 0 && is_open, last, &value.kind) {
                (true, Some(Some(Kind::StringValue(open))), Some(Kind::StringValue(more))) => {
                    open.push_str(more);
                }
                _ => values.push(value.clone()),
            }
        }
        is_open = message.chunked_value;
    }
    values
}

#[tokio::test]
async fn undeclared_parameters_take_the_type_of_what_they_meet() {
    let mut served = serve().await;
    served.insert(vec![(7, "seven".into())]).await;
    let mut query = served.sql("SELECT v FROM t WHERE k = @K", None);
    query.params = Some(Struct {
        fields: [("k".to_owned(), text("7"))].into_iter().collect(),
    });
    let rows = served
        .client
        .execute_sql(query)
        .await
        .unwrap()
        .into_inner()
        .rows;
    assert_eq!(rows[0].values, [text("seven")]);
}

#[tokio::test]
async fn what_is_not_built_and_what_makes_no_sense_is_refused() {
    let mut served = serve().await;
    let partition = pb::PartitionQueryRequest {
        session: served.session.clone(),
        sql: "SELECT 1".into(),
        ..Default::default()
    };
    let status = served.client.partition_query(partition).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let empty = pb::CommitRequest {
        session: served.session.clone(),
        mutations: vec![pb::Mutation { operation: None }],
        transaction: Some(pb::commit_request::Transaction::SingleUseTransaction(
            read_write(),
        )),
        ..Default::default()
    };
    let status = served.client.commit(empty).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let lost = served.commit(&[0; 24]).await.unwrap_err();
    assert_eq!(lost.code(), Code::InvalidArgument);
    let mut nested = text("1");
    for _ in 0..60 {
        nested = Value {
            kind: Some(Kind::ListValue(ListValue {
                values: vec![nested],
            })),
        };
    }
    let mut query = served.sql("SELECT @x", None);
    query.params = Some(Struct {
        fields: [("x".to_owned(), nested)].into_iter().collect(),
    });
    assert!(served.client.execute_sql(query).await.is_err());
    // Bytes that are no HTTP/2 end their own connection and nothing else.
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xFF; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xFF\xFF\xFF\xFF",
    ] {
        let mut connection = tokio::net::TcpStream::connect(served.address)
            .await
            .unwrap();
        let _ = connection.write_all(garbage).await;
        let mut rest = Vec::new();
        let ended = connection.read_to_end(&mut rest);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), ended).await;
    }
    let alive = served.sql("SELECT 1", None);
    assert!(served.client.execute_sql(alive).await.is_ok());
}
