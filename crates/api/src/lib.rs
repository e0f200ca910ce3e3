//! The waist: the one inner language that every door speaks and both replication protocols answer.
//!
//! A door decodes its protocol, lowers it to the requests of this crate, and encodes the answers. It sees a
//! `Database` and nothing below. Which protocol keeps a table, where its tablets are and who leads them is
//! the business of whoever implements `Database`; a door never asks.

pub mod collection;
mod columns;
mod consistency;
pub mod document;
mod error;
pub mod evaluate;
mod read;
#[cfg(feature = "reference")]
pub mod reference;
pub mod trace;
mod transaction;
mod write;

pub use columns::ColumnSet;
pub use consistency::{Level, ReadBound};
pub use error::{Broken, Error, FailureReason, Outcome, Refused, ReplicaFailure, Retry, WriteStep};
pub use read::{Direction, KeyRange, Projection, ReadRequest, ReadResponse, ReadRow, Selection};
pub use transaction::{
    Buffered, Commit, Concurrency, Fate, Locking, Transaction, TransactionId, TransactionOptions,
    covered,
};
pub use write::{
    Assignment, Atomicity, Check, CheckOperator, Condition, Element, Mutation, Part, ReadAssertion,
    ReturnedRows, Returning, RowOperation, WriteRequest, WriteResponse, byte_strings,
};

use async_trait::async_trait;
use catalog::{Catalog, Change};
use model::{Interval, NodeId, TableId, Timestamp};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use tokio::sync::watch;

/// What a door may ask of the cluster. Every node offers it, and routes what is not its own.
#[async_trait]
pub trait Database: Send + Sync + 'static {
    /// The catalog as this node knows it now. A request takes one snapshot at entry and keeps it.
    fn catalog(&self) -> Arc<Catalog>;

    /// Wakes when the catalog changes.
    fn watch_catalog(&self) -> watch::Receiver<Arc<Catalog>>;

    /// Applies a change. Answers when all live nodes have it, with the catalog that holds it.
    async fn change_catalog(&self, change: Change) -> Result<Arc<Catalog>, Error>;

    async fn read(&self, request: ReadRequest) -> Result<ReadResponse, Error>;

    async fn write(&self, request: WriteRequest) -> Result<WriteResponse, Error>;

    /// Begins a read-write transaction on strong tables.
    async fn begin(&self, options: TransactionOptions) -> Result<Box<dyn Transaction>, Error>;

    /// Finds out how a transaction has ended that is open nowhere any more, and that wrote to tables of this namespace
    /// alone. For those that are kept (`TransactionOptions`), and not for long.
    async fn fate(&self, transaction: TransactionId, namespace: &str) -> Fate {
        let _ = (transaction, namespace);
        Fate::Unknown("nobody is there to be asked".into())
    }

    /// Gives up the locks of a transaction that has ended. Does not wait; does nothing for one that holds none.
    fn release(&self, transaction: TransactionId) {
        let _ = transaction;
    }

    /// Keeps what a traced request has done, for a while, with what its recorder still hears of.
    fn keep_trace(&self, trace: trace::Trace, recorder: trace::Recorder);

    /// The traces that the nodes keep; those of nodes that do not answer are missing.
    async fn traces(&self) -> Vec<trace::Trace>;

    /// The clock's reading.
    fn now(&self) -> Interval;

    /// The nodes as this one sees them, itself included, and what each holds.
    fn topology(&self) -> Arc<Topology>;

    /// A setting of the cluster, if there is one of that name.
    fn setting(&self, name: &str) -> Option<u64> {
        let _ = name;
        None
    }

    /// How far a table group is from the copies that it should have, by data centre.
    fn copies(&self, root: TableId) -> BTreeMap<String, Copies> {
        let _ = root;
        BTreeMap::new()
    }

    /// Wakes when nodes come, go, or change state.
    fn watch_topology(&self) -> watch::Receiver<Arc<Topology>>;

    /// Has a door answer what the door of the same name asks at other nodes, for as long as it is there.
    fn open_to_peers(&self, door: &'static str, peer: Weak<dyn DoorPeer>) {
        let _ = (door, peer);
    }

    /// Asks the door of this name at another node. On `Error::Retry` it may have heard the question all the same.
    async fn ask_peer(
        &self,
        node: NodeId,
        door: &'static str,
        question: Vec<u8>,
        patience: Patience,
    ) -> Result<Vec<u8>, Error> {
        let _ = (door, question, patience);
        let why = format!("{node} is not to be reached from here");
        Err(Error::Retry(Retry::NotServing(why)))
    }
}

/// What a door asks or answers another in one message. Nodes send each other at most 32 MiB.
pub const PEER_MESSAGE_BYTES_MAX: usize = 24 << 20;

/// A door as the same door of other nodes sees it. What they say to each other is theirs alone.
#[async_trait]
pub trait DoorPeer: Send + Sync {
    async fn answer(&self, question: &[u8]) -> Vec<u8>;
}

/// Copies of tablets in one data centre.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// As many as replication asks for and there are nodes for.
    pub wanted: u64,
    /// Those that are read and counted, of the wanted ones.
    pub settled: u64,
    /// Those that are being filled.
    pub filling: u64,
    /// Those that are one too many, and are to go.
    pub leaving: u64,
}

impl Copies {
    pub fn is_settled(&self) -> bool {
        self.settled >= self.wanted && self.filling == 0 && self.leaving == 0
    }
}

/// The nodes of the cluster, ordered by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    pub cluster_name: String,
    pub this_node: NodeId,
    pub nodes: Vec<NodeInfo>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NodeInfo {
    pub id: NodeId,
    /// Stable: what CQL shows as the host id.
    pub host_id: [u8; 16],
    /// Where clients reach its doors. Ports are the same on all nodes of a cluster unless said otherwise.
    pub address: IpAddr,
    pub cql_port: u16,
    pub data_center: String,
    pub rack: String,
    pub is_alive: bool,
    /// The tokens that this node is shown to own in CQL's ring: the ends of the hash ranges whose first
    /// replica it holds, or, before there are any, a fixed few from its id.
    pub tokens: Vec<i64>,
    pub version: String,
}

/// A deadline as a duration from now, in milliseconds: what is left of the client's patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Patience {
    pub ms: u32,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { ms: 10_000 }
    }
}

/// A commit timestamp's worth of proof that something happened.
pub type CommitTimestamp = Timestamp;
