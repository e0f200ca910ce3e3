//! Commits whose answers are lost, that meet a database with too much to do, and what they are counted as.

use super::{LOCAL, Served, by_id, connect, pb, serve, serve_over, text};
use api::reference::Reference;
use api::trace::{Recorder, Trace};
use api::{
    Buffered, Concurrency, Database, Error, ReadRequest, ReadResponse, Retry, Topology,
    Transaction, TransactionOptions, WriteRequest, WriteResponse,
};
use async_trait::async_trait;
use catalog::{Catalog, Change};
use model::Interval;
use pb::commit_request::Transaction as CommitTransaction;
use prost_types::ListValue;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tonic::{Code, Status};

/// The reference, with writes that are refused, or held up, when a test says so.
struct Faulty {
    reference: Arc<Reference>,
    this: Weak<Faulty>,
    /// What the next write hears.
    refusal: Mutex<Option<Error>>,
    /// Writes wait while it is `true`.
    is_held: watch::Sender<bool>,
    /// After so many reads they wait as well.
    reads_left: Mutex<Option<u32>>,
    has_come: Notify,
}

impl Faulty {
    fn new() -> Arc<Faulty> {
        Arc::new_cyclic(|this| Faulty {
            reference: Reference::new(LOCAL, 9042),
            this: this.clone(),
            refusal: Mutex::default(),
            is_held: watch::Sender::new(false),
            reads_left: Mutex::default(),
            has_come: Notify::new(),
        })
    }

    async fn wait(&self) {
        let mut is_held = self.is_held.subscribe();
        if *is_held.borrow() {
            self.has_come.notify_one();
        }
        is_held.wait_for(|is_held| !is_held).await.unwrap();
    }
}

#[async_trait]
impl Database for Faulty {
    fn catalog(&self) -> Arc<Catalog> {
        self.reference.catalog()
    }

    fn watch_catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.reference.watch_catalog()
    }

    async fn change_catalog(&self, change: Change) -> Result<Arc<Catalog>, Error> {
        self.reference.change_catalog(change).await
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadResponse, Error> {
        let is_last = match self.reads_left.lock().unwrap().as_mut() {
            Some(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            None => false,
        };
        if is_last {
            self.wait().await;
        }
        self.reference.read(request).await
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteResponse, Error> {
        if let Some(error) = self.refusal.lock().unwrap().take() {
            return Err(error);
        }
        self.wait().await;
        self.reference.write(request).await
    }

    async fn begin(&self, options: TransactionOptions) -> Result<Box<dyn Transaction>, Error> {
        let id = self.reference.begin(options.clone()).await?.id();
        let options = TransactionOptions {
            concurrency: Concurrency::Validation,
            ..options
        };
        let this = self.this.upgrade().unwrap();
        Ok(Box::new(Buffered::new(this, id, &options)))
    }

    fn keep_trace(&self, trace: Trace, recorder: Recorder) {
        self.reference.keep_trace(trace, recorder);
    }

    async fn traces(&self) -> Vec<Trace> {
        self.reference.traces().await
    }

    fn now(&self) -> Interval {
        self.reference.now()
    }

    fn topology(&self) -> Arc<Topology> {
        self.reference.topology()
    }

    fn watch_topology(&self) -> watch::Receiver<Arc<Topology>> {
        self.reference.watch_topology()
    }
}

impl Served {
    /// The same session on a connection of its own.
    async fn another(&self) -> Served {
        Served {
            address: self.address,
            client: super::SpannerClient::new(connect(self.address).await),
            session: self.session.clone(),
        }
    }

    /// A transaction that has appended an `x` to the row of key 1.
    async fn appended(&mut self) -> Vec<u8> {
        let id = self.begin().await;
        self.execute(&id, "UPDATE t SET v = v || 'x' WHERE k = 1", 1)
            .await
            .unwrap();
        id
    }

    async fn execute(&mut self, id: &[u8], sql: &str, seqno: i64) -> Result<(), Status> {
        let mut request = self.sql(sql, by_id(id));
        request.seqno = seqno;
        self.client.execute_sql(request).await.map(|_| ())
    }

    /// How many mutations the commit says that it was.
    async fn count(&mut self, id: &[u8], rows: i64) -> Result<i64, Status> {
        let values = (1..=rows).map(|key| ListValue {
            values: vec![text((-key).to_string()), text("by mutation")],
        });
        let write = pb::mutation::Write {
            table: "t".into(),
            columns: vec!["k".into(), "v".into()],
            values: values.collect(),
        };
        let request = pb::CommitRequest {
            session: self.session.clone(),
            transaction: Some(CommitTransaction::TransactionId(id.to_vec())),
            mutations: vec![pb::Mutation {
                operation: Some(pb::mutation::Operation::Insert(write)),
            }],
            return_commit_stats: true,
            ..Default::default()
        };
        let answer = self.client.commit(request).await?.into_inner();
        Ok(answer.commit_stats.unwrap().mutation_count)
    }
}

#[tokio::test]
async fn a_commit_goes_on_without_its_client_and_a_repetition_waits_for_it() {
    let database = Faulty::new();
    let mut served = serve_over(database.clone()).await;
    served.insert(vec![(1, "a".into())]).await;
    let id = served.appended().await;
    database.is_held.send_replace(true);
    let mut other = served.another().await;
    let commit_id = id.clone();
    let first = tokio::spawn(async move { other.commit(&commit_id).await });
    database.has_come.notified().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let committed = {
        let again = served.commit(&id);
        tokio::pin!(again);
        let early = tokio::time::timeout(Duration::from_millis(200), &mut again).await;
        assert!(early.is_err(), "the outcome is not known yet: {early:?}");
        database.is_held.send_replace(false);
        again.await.unwrap()
    };
    assert_eq!(served.value(1).await, "ax");
    let third = served.commit(&id).await.unwrap();
    assert_eq!(third.commit_timestamp, committed.commit_timestamp);
    assert_eq!(served.value(1).await, "ax");
}

#[tokio::test]
async fn a_statement_goes_on_without_its_client_and_is_not_half_done() {
    let database = Faulty::new();
    let mut served = serve_over(database.clone()).await;
    let rows = (1..=3).map(|key| (key, "a".into()));
    served.insert(rows.collect()).await;
    let id = served.begin().await;
    let append = "UPDATE t SET v = v || 'x' WHERE k > 0";
    // Of the rows, and of the first two of them.
    *database.reads_left.lock().unwrap() = Some(3);
    database.is_held.send_replace(true);
    let mut other = served.another().await;
    let first_id = id.clone();
    let first = tokio::spawn(async move { other.execute(&first_id, append, 1).await });
    database.has_come.notified().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    *database.reads_left.lock().unwrap() = None;
    let repeated = {
        let again = served.execute(&id, append, 1);
        tokio::pin!(again);
        let early = tokio::time::timeout(Duration::from_millis(200), &mut again).await;
        assert!(early.is_err(), "the first is not done yet: {early:?}");
        database.is_held.send_replace(false);
        again.await
    };
    repeated.unwrap();
    served.commit(&id).await.unwrap();
    for key in 1..=3 {
        assert_eq!(served.value(key).await, "ax");
    }
}

#[tokio::test]
async fn a_commit_that_meets_overload_is_to_be_begun_anew() {
    let database = Faulty::new();
    let mut served = serve_over(database.clone()).await;
    served.insert(vec![(1, "a".into())]).await;
    let id = served.appended().await;
    let overloaded = Error::Retry(Retry::Overloaded("too much".into()));
    *database.refusal.lock().unwrap() = Some(overloaded);
    for _ in 0..2 {
        let status = served.commit(&id).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{status:?}");
        let delay = status.metadata().get_bin("google.rpc.retryinfo-bin");
        assert!(delay.is_some(), "{status:?}");
    }
    let id = served.appended().await;
    served.commit(&id).await.unwrap();
    assert_eq!(served.value(1).await, "ax");
}

#[tokio::test]
async fn what_may_have_been_committed_is_not_said_to_be_aborted() {
    let mut served = serve().await;
    served.insert(vec![(1, "a".into())]).await;
    let id = served.appended().await;
    // The number of the node, and that of its start, one higher than they are.
    for place in [15, 23] {
        let mut of_another = id.clone();
        of_another[place] += 1;
        let status = served.commit(&of_another).await.unwrap_err();
        assert_eq!(status.code(), Code::Unknown, "{status:?}");
        let status = served.execute(&of_another, "SELECT 1", 1).await;
        assert_eq!(status.unwrap_err().code(), Code::Aborted);
        let rollback = pb::RollbackRequest {
            session: served.session.clone(),
            transaction_id: of_another,
        };
        served.client.rollback(rollback).await.unwrap();
    }
    served.commit(&id).await.unwrap();
    assert_eq!(served.value(1).await, "ax");
}

#[tokio::test]
async fn an_outcome_is_remembered_behind_thousands_of_others() {
    let mut served = serve().await;
    served.insert(vec![(1, "a".into())]).await;
    let id = served.appended().await;
    let committed = served.commit(&id).await.unwrap();
    for _ in 0..3_000 {
        let other = served.begin().await;
        served.commit(&other).await.unwrap();
    }
    let again = served.commit(&id).await.unwrap();
    assert_eq!(again.commit_timestamp, committed.commit_timestamp);
    assert_eq!(served.value(1).await, "ax");
}

#[tokio::test]
async fn statements_count_by_columns_and_towards_the_limit() {
    let mut served = serve().await;
    served
        .insert(vec![(1, "a".into()), (2, "b".into()), (3, "c".into())])
        .await;
    let id = served.begin().await;
    for (seqno, sql) in (1..).zip([
        "INSERT INTO t (k, v) VALUES (10, 'x'), (11, 'y')",
        "UPDATE t SET v = 'z' WHERE k = 1",
        "DELETE FROM t WHERE k IN (2, 3)",
    ]) {
        served.execute(&id, sql, seqno).await.unwrap();
    }
    // Two rows of two columns, a column and its key, two deletions, and one row of two columns.
    assert_eq!(served.count(&id, 1).await.unwrap(), 4 + 2 + 2 + 2);
    let many = |count| {
        format!(
            "INSERT INTO t (k, v) SELECT k, 'x' FROM UNNEST(GENERATE_ARRAY(100, {})) AS k",
            99 + count
        )
    };
    let id = served.begin().await;
    let status = served.execute(&id, &many(40_001), 1).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().contains("too many mutations (80002"),
        "{status:?}"
    );
    served.execute(&id, &many(39_999), 2).await.unwrap();
    let status = served.count(&id, 2).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let rows = served.sql("SELECT COUNT(*) FROM t WHERE k >= 100 OR k = -2", None);
    let rows = served.client.execute_sql(rows).await.unwrap().into_inner();
    assert_eq!(rows.rows[0].values, [text("0")]);
}
