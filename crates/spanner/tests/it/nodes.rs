//! Two doors of one cluster: a transaction that is open at one of them and is asked for at the other.

use super::{LOCAL, Served, by_id, connect, pb, serve_over, text};
use api::reference::Reference;
use api::trace::{Recorder, Trace};
use api::{
    Database, DoorPeer, Error, Fate, NodeInfo, Patience, ReadRequest, ReadResponse, Retry,
    Topology, Transaction, TransactionId, TransactionOptions, WriteRequest, WriteResponse,
};
use async_trait::async_trait;
use catalog::{Catalog, Change};
use model::{Interval, NodeId, Timestamp};
use pb::commit_request::Transaction as CommitTransaction;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Code, Status};

/// What nodes share: the rows, and the doors by node.
#[derive(Default)]
struct Cluster {
    doors: Mutex<BTreeMap<NodeId, Weak<dyn DoorPeer>>>,
    /// So many answers between nodes are lost from now on.
    lost: Mutex<u32>,
    dead: Mutex<Option<NodeId>>,
    /// What the tablets say of a transaction that is open nowhere.
    fate: Mutex<Option<Fate>>,
}

struct Node {
    id: NodeId,
    reference: Arc<Reference>,
    cluster: Arc<Cluster>,
}

#[async_trait]
impl Database for Node {
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
        self.reference.read(request).await
    }

    async fn write(&self, request: WriteRequest) -> Result<WriteResponse, Error> {
        self.reference.write(request).await
    }

    async fn begin(&self, options: TransactionOptions) -> Result<Box<dyn Transaction>, Error> {
        self.reference.begin(options).await
    }

    async fn fate(&self, _: TransactionId, namespace: &str) -> Fate {
        assert_eq!(namespace, "db");
        let fate = self.cluster.fate.lock().unwrap().take();
        fate.unwrap_or_else(|| Fate::Unknown("nobody knows".into()))
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
        let topology = self.reference.topology();
        let dead = *self.cluster.dead.lock().unwrap();
        let nodes = [NodeId(1), NodeId(2)].map(|id| NodeInfo {
            id,
            is_alive: dead != Some(id),
            ..topology.nodes[0].clone()
        });
        Arc::new(Topology {
            this_node: self.id,
            nodes: nodes.to_vec(),
            ..Topology::clone(&topology)
        })
    }

    fn watch_topology(&self) -> watch::Receiver<Arc<Topology>> {
        self.reference.watch_topology()
    }

    fn open_to_peers(&self, _: &'static str, peer: Weak<dyn DoorPeer>) {
        self.cluster.doors.lock().unwrap().insert(self.id, peer);
    }

    async fn ask_peer(
        &self,
        node: NodeId,
        _: &'static str,
        question: Vec<u8>,
        _: Patience,
    ) -> Result<Vec<u8>, Error> {
        let door = self.cluster.doors.lock().unwrap()[&node].upgrade().unwrap();
        let answer = door.answer(&question).await;
        let mut lost = self.cluster.lost.lock().unwrap();
        if *lost > 0 {
            *lost -= 1;
            return Err(Error::Retry(Retry::NotServing("no answer in time".into())));
        }
        Ok(answer)
    }
}

/// A session that both nodes are asked under; the reference's transactions are all the first one's.
async fn serve_two() -> (Served, Served, Arc<Cluster>) {
    let reference = Reference::new(LOCAL, 9042);
    let cluster = Arc::new(Cluster::default());
    let node = |id| {
        Arc::new(Node {
            id: NodeId(id),
            reference: reference.clone(),
            cluster: cluster.clone(),
        })
    };
    let first = serve_over(node(1)).await;
    let listener = tokio::net::TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(spanner::serve(
        listener,
        node(2),
        Default::default(),
        std::future::pending(),
    ));
    let second = Served {
        address,
        client: super::SpannerClient::new(connect(address).await),
        session: first.session.clone(),
    };
    (first, second, cluster)
}

impl Served {
    async fn append(&mut self, id: &[u8], seqno: i64) -> Result<(), Status> {
        let mut request = self.sql("UPDATE t SET v = v || 'x' WHERE k = 1", by_id(id));
        request.seqno = seqno;
        self.client.execute_sql(request).await.map(|_| ())
    }
}

#[tokio::test]
async fn a_transaction_goes_on_at_any_node_and_its_commit_is_heard_at_all() {
    let (mut first, mut second, cluster) = serve_two().await;
    first.insert(vec![(1, "a".into())]).await;
    let id = first.begin().await;
    second.append(&id, 1).await.unwrap();
    // Carried out, and asked for once more when the answer does not come.
    *cluster.lost.lock().unwrap() = 1;
    second.append(&id, 2).await.unwrap();
    first.append(&id, 3).await.unwrap();
    let mut read = second.sql("SELECT v FROM t WHERE k = 1", by_id(&id));
    let rows = second.client.execute_sql(read.clone()).await.unwrap();
    assert_eq!(rows.into_inner().rows[0].values, [text("axxx")]);
    read.sql = "SELECT nothing FROM t".into();
    let refused = second.client.execute_sql(read).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    *cluster.lost.lock().unwrap() = 1;
    let committed = second.commit(&id).await.unwrap();
    assert_eq!(first.value(1).await, "axxx");
    for served in [&mut first, &mut second] {
        let again = served.commit(&id).await.unwrap();
        assert_eq!(again.commit_timestamp, committed.commit_timestamp);
        let late = served.append(&id, 4).await.unwrap_err();
        assert_eq!(late.code(), Code::FailedPrecondition, "{late:?}");
    }
    assert_eq!(second.value(1).await, "axxx");
}

#[tokio::test]
async fn a_batch_and_a_rollback_reach_the_node_that_has_the_transaction() {
    let (mut first, mut second, _) = serve_two().await;
    first.insert(vec![(1, "a".into())]).await;
    let id = first.begin().await;
    let statement = pb::execute_batch_dml_request::Statement {
        sql: "UPDATE t SET v = 'b' WHERE k = 1".into(),
        ..Default::default()
    };
    let batch = pb::ExecuteBatchDmlRequest {
        session: second.session.clone(),
        transaction: by_id(&id),
        statements: vec![statement; 2],
        seqno: 1,
        ..Default::default()
    };
    let done = second.client.execute_batch_dml(batch).await.unwrap();
    assert_eq!(done.into_inner().result_sets.len(), 2);
    let rollback = pb::RollbackRequest {
        session: second.session.clone(),
        transaction_id: id.clone(),
    };
    second.client.rollback(rollback).await.unwrap();
    let late = first.commit(&id).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition, "{late:?}");
    assert_eq!(first.value(1).await, "a");
}

#[tokio::test]
async fn a_long_answer_is_streamed_in_pieces_and_given_up_with_its_client() {
    let (mut first, mut second, _) = serve_two().await;
    let long = "é".repeat(500_000);
    for key in 1..=30 {
        first.insert(vec![(key, long.clone())]).await;
    }
    let id = first.begin().await;
    let request = second.sql("SELECT v FROM t ORDER BY k", by_id(&id));
    let there = second.stream(request.clone()).await;
    let here = first.stream(request.clone()).await;
    let values = |messages: &[pb::PartialResultSet]| -> Vec<prost_types::Value> {
        let values = messages.iter().map(|message| message.values.clone());
        values.flatten().collect()
    };
    assert!(there.len() > 20, "{} messages", there.len());
    assert_eq!(values(&there), values(&here));
    // Who goes away in the middle does not keep the transaction from others.
    let stream = second.client.execute_streaming_sql(request).await.unwrap();
    drop(stream);
    let committed = tokio::time::timeout(Duration::from_secs(5), second.commit(&id)).await;
    committed.unwrap().unwrap();
}

#[tokio::test]
async fn where_the_node_is_dead_a_commit_hears_what_the_tablets_know() {
    let (mut first, mut second, cluster) = serve_two().await;
    first.insert(vec![(1, "a".into())]).await;
    let (one, other) = (first.begin().await, first.begin().await);
    *cluster.dead.lock().unwrap() = Some(NodeId(1));
    let status = second.append(&one, 1).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    let status = second.commit(&one).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
    assert!(status.message().contains("nobody knows"), "{status:?}");
    *cluster.fate.lock().unwrap() = Some(Fate::Committed(Timestamp(5_000_000)));
    // Once it is known, nobody is asked again.
    for _ in 0..2 {
        let request = pb::CommitRequest {
            session: second.session.clone(),
            transaction: Some(CommitTransaction::TransactionId(one.clone())),
            return_commit_stats: true,
            ..Default::default()
        };
        let answer = second.client.commit(request).await.unwrap().into_inner();
        let at = answer.commit_timestamp.unwrap();
        assert_eq!((at.seconds, at.nanos), (5, 0));
        assert_eq!(answer.commit_stats, None, "the tablets have not counted");
    }
    *cluster.fate.lock().unwrap() = Some(Fate::Aborted);
    let status = second.commit(&other).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    let delay = status.metadata().get_bin("google.rpc.retryinfo-bin");
    assert!(delay.is_some(), "{status:?}");
}
