//! What a node remembers of itself across starts: small records in a log of its own.
//!
//! Invariant: an incarnation is durable before anybody hears of it, and so is a node's id.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use model::{ClusterId, Incarnation, NodeId, ReplicaId, Timestamp};
use std::sync::Arc;
use world::{Log, LogBatch, LogError, LogId, LogOperation, Random};

/// The log that no replica has.
const OWN_LOG: LogId = LogId(0);
const IDENTITY: &[u8] = b"identity";
const PEERS: &[u8] = b"peers";
const CLOCK_FLOOR: &[u8] = b"clock";
const STATE: &[u8] = b"state";

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Identity {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub host_id: [u8; 16],
    /// All zero until the node has founded or joined a cluster.
    #[n(1)]
    pub cluster: ClusterId,
    /// 0 until then.
    #[n(2)]
    pub node: NodeId,
    #[n(3)]
    pub incarnation: Incarnation,
    /// The meta group's replica of this node, if it has one.
    #[n(4)]
    pub meta_replica: Option<ReplicaId>,
    /// This node founded its cluster.
    #[n(5)]
    pub is_founder: bool,
}

pub(crate) struct Records {
    log: Arc<dyn Log>,
}

impl Records {
    pub fn new(log: Arc<dyn Log>) -> Records {
        Records { log }
    }

    pub fn identity(&self) -> Result<Option<Identity>, minicbor::decode::Error> {
        let record = self.log.get(OWN_LOG, IDENTITY);
        record.map(|record| minicbor::decode(&record)).transpose()
    }

    pub async fn put_identity(&self, identity: &Identity) -> Result<(), LogError> {
        self.put(IDENTITY, identity).await
    }

    /// Internode addresses of other members, as last known: whom to ask after a restart.
    pub fn peers(&self) -> Vec<String> {
        let record = self.log.get(OWN_LOG, PEERS);
        record
            .and_then(|record| minicbor::decode(&record).ok())
            .unwrap_or_default()
    }

    pub async fn put_peers(&self, peers: &[String]) -> Result<(), LogError> {
        self.put(PEERS, &peers).await
    }

    /// The state of the meta group as this node had it not long before it stopped, encoded.
    pub fn state(&self) -> Option<Bytes> {
        self.log.get(OWN_LOG, STATE)
    }

    /// Durable soon: within `interval_ms`.
    pub fn put_state_later(&self, state: Vec<u8>, interval_ms: u32) {
        let operation = LogOperation::Put {
            log: OWN_LOG,
            key: STATE.to_vec(),
            value: state.into(),
        };
        let operations = vec![operation];
        self.log.write_later(LogBatch { operations }, interval_ms);
    }

    /// No cluster time that this node has consented to has come so far.
    pub fn clock_floor(&self) -> Option<Timestamp> {
        let record = self.log.get(OWN_LOG, CLOCK_FLOOR);
        record.and_then(|record| minicbor::decode(&record).ok())
    }

    pub async fn put_clock_floor(&self, floor: Timestamp) -> Result<(), LogError> {
        self.put(CLOCK_FLOOR, &floor).await
    }

    async fn put<T: Encode<()>>(&self, key: &[u8], value: &T) -> Result<(), LogError> {
        let value = minicbor::to_vec(value).expect("encoding to memory does not fail");
        let operation = LogOperation::Put {
            log: OWN_LOG,
            key: key.to_vec(),
            value: Bytes::from(value),
        };
        let operations = vec![operation];
        self.log.write(LogBatch { operations }).await
    }
}

pub(crate) fn draw_16(random: &dyn Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random.next_u64().to_be_bytes());
    bytes[8..].copy_from_slice(&random.next_u64().to_be_bytes());
    // A version 4 UUID, since CQL shows it as one.
    bytes[6] = (bytes[6] & 0x0F) | 0x40;
    bytes[8] = (bytes[8] & 0x3F) | 0x80;
    bytes
}
