//! What a gateway asks of one tablet; goes between nodes as CBOR.

use api::{
    Atomicity, Direction, Locking, Mutation, Projection, ReadAssertion, ReadBound, ReadRequest,
    Selection, TransactionId,
};
use minicbor::{Decode, Encode};
use model::{
    Incarnation, NodeId, PlacementEpoch, RequestId, SchemaVersion, TableId, TabletId, Timestamp,
};

/// Names a write for ever: the gateway that made it and a count of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct CommandId {
    #[n(0)]
    pub node: NodeId,
    #[n(1)]
    pub incarnation: Incarnation,
    #[n(2)]
    pub request: RequestId,
}

/// A write whose keys all lie in one tablet.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct TabletWrite {
    #[n(0)]
    pub tablet: TabletId,
    /// The placement that the gateway routed by.
    #[n(1)]
    pub epoch: PlacementEpoch,
    /// The catalog that the request was lowered with.
    #[n(2)]
    pub schema: SchemaVersion,
    /// The same for every attempt of one write: it is applied at most once.
    #[n(3)]
    pub command: CommandId,
    /// On a repeated attempt, the gateway's `now.earliest` before the first one: a tablet that no longer
    /// remembers commands that old answers that the outcome is unknown.
    #[n(4)]
    pub first_attempt: Option<Timestamp>,
    #[n(5)]
    pub mutations: Vec<Mutation>,
    #[n(6)]
    pub atomicity: Atomicity,
    #[n(7)]
    pub assertions: Vec<ReadAssertion>,
    #[n(8)]
    pub patience_ms: u32,
    /// The transaction that this write ends.
    #[n(9)]
    pub transaction: Option<TransactionId>,
    /// Whether the tablet remembers that this command was applied, for whoever recalls it.
    #[cbor(n(10), default)]
    pub is_kept: bool,
}

/// A read whose selection lies in one tablet.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct TabletRead {
    #[n(0)]
    pub tablet: TabletId,
    #[n(1)]
    pub epoch: PlacementEpoch,
    #[n(2)]
    pub schema: SchemaVersion,
    #[n(3)]
    pub table: TableId,
    #[n(4)]
    pub selection: Selection,
    #[n(5)]
    pub direction: Direction,
    #[n(6)]
    pub projection: Projection,
    #[n(7)]
    pub row_limit: Option<u32>,
    #[n(8)]
    pub size_bytes_max: u32,
    #[n(9)]
    pub headers: bool,
    #[n(10)]
    pub bound: ReadBound,
    #[n(11)]
    pub patience_ms: u32,
    #[n(12)]
    pub locking: Option<Locking>,
}

impl TabletRead {
    /// The part of `request` that `selection` is.
    pub fn new(
        tablet: TabletId,
        epoch: PlacementEpoch,
        schema: SchemaVersion,
        request: &ReadRequest,
        selection: Selection,
    ) -> TabletRead {
        TabletRead {
            tablet,
            epoch,
            schema,
            table: request.table,
            selection,
            direction: request.direction,
            projection: request.projection.clone(),
            row_limit: request.row_limit,
            size_bytes_max: request.size_bytes_max,
            headers: request.headers,
            bound: request.bound,
            patience_ms: request.patience.ms,
            locking: request.locking,
        }
    }
}

/// Why a tablet did not answer.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum TabletError {
    /// Nothing was done. Ask the hinted node, or each of the replicas' nodes in turn.
    #[n(0)]
    NotLeaseholder {
        #[n(0)]
        hint: Option<NodeId>,
    },
    /// Nothing was done: the request was routed by an older or newer placement than the tablet has.
    #[n(1)]
    StaleRoute(#[n(0)] cluster::Tablet),
    #[n(2)]
    Api(#[n(0)] api::Error),
    /// Others have locked what is asked for. Nothing was done; ask again.
    #[n(3)]
    Locked,
}

impl From<api::Error> for TabletError {
    fn from(error: api::Error) -> TabletError {
        TabletError::Api(error)
    }
}
