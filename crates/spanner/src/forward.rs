//! Requests of a read-write transaction that is open at another node. They are carried out there, whichever node a
//! client's connection has come to, and the answers go back the same way: a client need not know that there are
//! several nodes.
//!
//! Where that node cannot be asked the request is carried out here, where nothing is known of the transaction: see
//! `transactions` for what it hears. Each of these requests may be asked for again, since numbered statements and
//! commits are answered and not done again; so they are, while the node lives.
//!
//! A streamed answer comes in pieces, each of which is asked for: what is left of it waits at the other node.

use crate::Door;
use crate::grpc::Answers;
use crate::status::{RETRY_INFO, of_api};
use crate::transactions::decode_id;
use crate::{commit, queries};
use api::{DoorPeer, Error, PEER_MESSAGE_BYTES_MAX, Patience};
use async_trait::async_trait;
use futures::StreamExt;
use googleapis_tonic_google_spanner_v1::google::spanner::v1 as pb;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::NodeId;
use parking_lot::Mutex;
use pb::commit_request::Transaction as CommitTransaction;
use pb::transaction_selector::Selector;
use prost::Message;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// What the doors of a cluster call each other.
pub const DOOR: &str = "spanner";
/// A node is asked again when it has not answered for so long: the answer may be lost.
const PATIENCE: Patience = Patience { ms: 15_000 };
const ASKS_MAX: u32 = 4;
const ASK_PAUSE: Duration = Duration::from_millis(100);
/// A piece of a streamed answer is sent when it has grown to this.
const PIECE_BYTES: usize = 4 << 20;
/// A streamed answer of which nobody has asked for the rest for so long is given up, and with it its transaction can
/// go on.
const REST_KEPT: Duration = Duration::from_secs(10);
const RESTS_MAX: usize = 1_000;
/// Messages that wait for a slow client before the next piece is asked for.
const MESSAGES_AHEAD: usize = 4;

/// A request that may name a read-write transaction.
pub trait OfTransaction: Message + Default + 'static {
    fn transaction(&self) -> Option<&[u8]>;
}

fn selected(selector: Option<&pb::TransactionSelector>) -> Option<&[u8]> {
    match selector?.selector.as_ref()? {
        Selector::Id(id) => Some(id),
        Selector::SingleUse(_) | Selector::Begin(_) => None,
    }
}

impl OfTransaction for pb::ExecuteSqlRequest {
    fn transaction(&self) -> Option<&[u8]> {
        selected(self.transaction.as_ref())
    }
}

impl OfTransaction for pb::ExecuteBatchDmlRequest {
    fn transaction(&self) -> Option<&[u8]> {
        selected(self.transaction.as_ref())
    }
}

impl OfTransaction for pb::ReadRequest {
    fn transaction(&self) -> Option<&[u8]> {
        selected(self.transaction.as_ref())
    }
}

impl OfTransaction for pb::CommitRequest {
    fn transaction(&self) -> Option<&[u8]> {
        match self.transaction.as_ref()? {
            CommitTransaction::TransactionId(id) => Some(id),
            CommitTransaction::SingleUseTransaction(_) => None,
        }
    }
}

impl OfTransaction for pb::RollbackRequest {
    fn transaction(&self) -> Option<&[u8]> {
        Some(&self.transaction_id)
    }
}

/// What one door asks another.
#[derive(Debug, PartialEq, Encode, Decode)]
enum Question {
    /// To carry out a request.
    #[n(0)]
    Request {
        #[n(0)]
        method: String,
        #[cbor(n(1), with = "minicbor::bytes")]
        message: Vec<u8>,
    },
    /// The next piece of a streamed answer.
    #[n(1)]
    Rest(#[n(0)] u64),
    /// Nobody wants the rest of a streamed answer.
    #[n(2)]
    GiveUp(#[n(0)] u64),
}

#[derive(Debug, Default, PartialEq, Encode, Decode)]
struct Answer {
    #[n(0)]
    messages: Vec<ByteVec>,
    /// There are more: what to ask for them with.
    #[n(1)]
    rest: Option<u64>,
    /// How it ended behind these messages, if not well.
    #[n(2)]
    failure: Option<Failure>,
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct Failure {
    #[n(0)]
    code: i32,
    #[n(1)]
    message: String,
    #[cbor(n(2), with = "minicbor::bytes")]
    details: Vec<u8>,
    /// When to try again.
    #[cbor(n(3), with = "minicbor::bytes")]
    retry_info: Option<Vec<u8>>,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        let retry_info = status.metadata().get_bin(RETRY_INFO);
        Failure {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: status.details().to_vec(),
            retry_info: retry_info.and_then(|info| Some(info.to_bytes().ok()?.to_vec())),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        let mut metadata = MetadataMap::new();
        if let Some(info) = &failure.retry_info {
            metadata.insert_bin(RETRY_INFO, MetadataValue::from_bytes(info));
        }
        let (code, details) = (Code::from(failure.code), failure.details.into());
        Status::with_details_and_metadata(code, failure.message, details, metadata)
    }
}

impl Answer {
    fn failed(status: Status) -> Answer {
        Answer {
            failure: Some(status.into()),
            ..Answer::default()
        }
    }

    /// The one message that it holds.
    fn only<A: Message + Default>(mut self) -> Result<A, Status> {
        match (self.failure, self.messages.pop()) {
            (Some(failure), _) => Err(failure.into()),
            (None, Some(message)) => decode(&message),
            (None, None) => Err(Status::internal("another node's answer is empty")),
        }
    }
}

fn decode<A: Message + Default>(message: &[u8]) -> Result<A, Status> {
    A::decode(message).map_err(|error| Status::internal(format!("between nodes: {error}")))
}

/// The node that a request is to be carried out at, if that is another one and is alive.
fn elsewhere(door: &Door, request: &impl OfTransaction) -> Option<NodeId> {
    let owner = decode_id(request.transaction()?)?.node;
    let topology = door.database.topology();
    let mut nodes = topology.nodes.iter();
    let is_alive = nodes.any(|node| node.id == owner && node.is_alive);
    (owner != topology.this_node && is_alive).then_some(owner)
}

/// Carries a request out where its transaction is.
pub async fn unary<Q, A, F, O>(
    door: Arc<Door>,
    method: &'static str,
    request: Q,
    handler: F,
) -> Result<A, Status>
where
    Q: OfTransaction,
    A: Message + Default,
    F: FnOnce(Arc<Door>, Q) -> O,
    O: Future<Output = Result<A, Status>>,
{
    if let Some(node) = elsewhere(&door, &request)
        && let Some(answer) = carry_out(&door, node, method, &request).await?
    {
        return answer.only();
    }
    handler(door, request).await
}

/// As `unary`, with an answer of many messages.
pub async fn streaming<Q, A, F, O>(
    door: Arc<Door>,
    method: &'static str,
    request: Q,
    handler: F,
) -> Result<Answers<A>, Status>
where
    Q: OfTransaction,
    A: Message + Default + 'static,
    F: FnOnce(Arc<Door>, Q) -> O,
    O: Future<Output = Result<Answers<A>, Status>>,
{
    let Some(node) = elsewhere(&door, &request) else {
        return handler(door, request).await;
    };
    match carry_out(&door, node, method, &request).await? {
        None => handler(door, request).await,
        Some(Answer {
            messages,
            failure: Some(failure),
            ..
        }) if messages.is_empty() => Err(failure.into()),
        Some(first) => {
            let (sender, receiver) = mpsc::channel(MESSAGES_AHEAD);
            tokio::spawn(async move { pass_on(&door, node, first, &sender).await });
            Ok(Box::pin(ReceiverStream::new(receiver)))
        }
    }
}

/// Sends all pieces of a streamed answer on, for as long as there is a client.
async fn pass_on<A: Message + Default>(
    door: &Door,
    node: NodeId,
    first: Answer,
    client: &mpsc::Sender<Result<A, Status>>,
) {
    let mut piece = first;
    loop {
        let messages = piece.messages.iter().map(|message| decode(message));
        let failure = piece.failure.map(|failure| Err(failure.into()));
        for message in messages.chain(failure) {
            if client.send(message).await.is_err() {
                if let Some(rest) = piece.rest {
                    // If it is lost, the rest is given up in a while.
                    let _ = ask(door, node, &Question::GiveUp(rest)).await;
                }
                return;
            }
        }
        let Some(rest) = piece.rest else { return };
        piece = match ask(door, node, &Question::Rest(rest)).await {
            Ok(piece) => piece,
            // The client begins again behind the last message.
            Err(error) => Answer::failed(Status::unavailable(error.to_string())),
        };
    }
}

/// Has another node carry a request out. `None`: it cannot be asked.
async fn carry_out(
    door: &Door,
    node: NodeId,
    method: &str,
    request: &impl OfTransaction,
) -> Result<Option<Answer>, Status> {
    let question = Question::Request {
        method: method.to_owned(),
        message: request.encode_to_vec(),
    };
    for _ in 0..ASKS_MAX {
        match ask(door, node, &question).await {
            Ok(answer) => return Ok(Some(answer)),
            Err(error @ Error::Refused(_)) => return Err(of_api(error)),
            Err(error) => tracing::debug!(%node, method, %error, "a request was not passed on"),
        }
        if elsewhere(door, request).is_none() {
            break;
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
    Ok(None)
}

async fn ask(door: &Door, node: NodeId, question: &Question) -> Result<Answer, Error> {
    let question = encode(question);
    let answer = door.database.ask_peer(node, DOOR, question, PATIENCE);
    minicbor::decode(&answer.await?)
        .map_err(|error| Error::Retry(api::Retry::NotServing(format!("{node}: {error}"))))
}

fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

type Encoded = Answers<Vec<u8>>;

struct Rest {
    stream: Encoded,
    asked: Instant,
}

/// What other nodes' doors ask this one.
pub struct Peer {
    door: Arc<Door>,
    /// Streamed answers of which more is to be asked for.
    rests: Mutex<(u64, BTreeMap<u64, Rest>)>,
}

impl Peer {
    pub fn new(door: Arc<Door>) -> Peer {
        Peer {
            door,
            rests: Mutex::default(),
        }
    }

    async fn carry_out(&self, method: &str, message: &[u8]) -> Result<Answer, Status> {
        let door = Arc::clone(&self.door);
        match method {
            "Commit" => only(commit::commit(door, decode(message)?).await?),
            "Rollback" => only(commit::rollback(door, decode(message)?).await?),
            "ExecuteSql" => only(queries::execute_sql(door, decode(message)?).await?),
            "ExecuteBatchDml" => only(queries::execute_batch_dml(door, decode(message)?).await?),
            "Read" => only(queries::read(door, decode(message)?).await?),
            "ExecuteStreamingSql" => {
                let stream = queries::execute_streaming_sql(door, decode(message)?).await?;
                Ok(self.piece(encoded(stream)).await)
            }
            "StreamingRead" => {
                let stream = queries::streaming_read(door, decode(message)?).await?;
                Ok(self.piece(encoded(stream)).await)
            }
            _ => Err(Status::unimplemented(format!(
                "{method} is not carried out for another node"
            ))),
        }
    }

    /// The next piece of a stream; what is left of it is kept.
    async fn piece(&self, mut stream: Encoded) -> Answer {
        let mut piece = Answer::default();
        let mut size_bytes = 0;
        while size_bytes < PIECE_BYTES {
            match stream.next().await {
                None => return piece,
                Some(Err(status)) => {
                    piece.failure = Some(status.into());
                    return piece;
                }
                Some(Ok(message)) => {
                    size_bytes += message.len();
                    piece.messages.push(message.into());
                }
            }
        }
        let mut rests = self.rests.lock();
        let (last, open) = &mut *rests;
        let asked = Instant::now();
        open.retain(|_, rest| rest.asked + REST_KEPT > asked);
        if open.len() >= RESTS_MAX {
            let many = "too many answers are being streamed to other nodes";
            piece.failure = Some(Status::unavailable(many).into());
            return piece;
        }
        *last += 1;
        open.insert(*last, Rest { stream, asked });
        piece.rest = Some(*last);
        piece
    }

    async fn rest(&self, number: u64) -> Answer {
        let rest = self.rests.lock().1.remove(&number);
        match rest {
            Some(rest) => self.piece(rest.stream).await,
            None => Answer::failed(Status::unavailable(
                "the rest of the answer was not asked for in time",
            )),
        }
    }

    /// Gives up what nobody asks for, for as long as the door is open.
    pub async fn give_up_rests(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(REST_KEPT / 4).await;
            let now = Instant::now();
            let mut rests = self.rests.lock();
            rests.1.retain(|_, rest| rest.asked + REST_KEPT > now);
        }
    }
}

fn only(message: impl Message) -> Result<Answer, Status> {
    Ok(Answer {
        messages: vec![message.encode_to_vec().into()],
        ..Answer::default()
    })
}

fn encoded<A: Message + 'static>(stream: Answers<A>) -> Encoded {
    Box::pin(stream.map(|message| message.map(|message| message.encode_to_vec())))
}

#[async_trait]
impl DoorPeer for Peer {
    async fn answer(&self, question: &[u8]) -> Vec<u8> {
        let answer = match minicbor::decode(question) {
            Ok(Question::Request { method, message }) => self
                .carry_out(&method, &message)
                .await
                .unwrap_or_else(Answer::failed),
            Ok(Question::Rest(number)) => self.rest(number).await,
            Ok(Question::GiveUp(number)) => {
                self.rests.lock().1.remove(&number);
                Answer::default()
            }
            Err(error) => Answer::failed(Status::internal(format!("between nodes: {error}"))),
        };
        let bytes = encode(&answer);
        match bytes.len() > PEER_MESSAGE_BYTES_MAX {
            true => encode(&Answer::failed(Status::resource_exhausted(
                "the answer is too large to be passed on between nodes",
            ))),
            false => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::aborted;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = minicbor::decode::<Question>(&bytes);
            let _ = minicbor::decode::<Answer>(&bytes);
        }
    }

    #[test]
    fn a_status_keeps_all_that_clients_look_for() {
        let status = aborted("an older transaction was in the way");
        let bytes = encode(&Answer::failed(status.clone()));
        let read: Answer = minicbor::decode(&bytes).unwrap();
        let read = read.only::<pb::CommitResponse>().unwrap_err();
        assert_eq!(
            (read.code(), read.message(), read.details()),
            (status.code(), status.message(), status.details())
        );
        let delay = |status: &Status| status.metadata().get_bin(RETRY_INFO).cloned();
        assert!(delay(&status).is_some());
        assert_eq!(delay(&read), delay(&status));
    }
}
