//! Messages between nodes: best effort, unordered between connections, and bounded. Requests, answers,
//! deadlines and retries are built above (crate `node`).

use async_trait::async_trait;
use bytes::Bytes;
use minicbor::{Decode, Encode};
use model::{ClusterId, Incarnation, NodeId};
use std::net::SocketAddr;

/// Who a node says it is in the handshake of every connection.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// All zero while the node has not joined a cluster yet: it may then only ask to join.
    #[n(0)]
    pub cluster: ClusterId,
    /// 0 while it has no id.
    #[n(1)]
    pub node: NodeId,
    #[n(2)]
    pub incarnation: Incarnation,
    #[n(3)]
    pub version_min: u32,
    #[n(4)]
    pub version_max: u32,
    /// Where peers reach it.
    #[n(5)]
    pub advertised: String,
}

/// Why a peer's hello was refused. Final for this pair of identities.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("peer belongs to cluster {theirs}, this node to {ours}")]
    OtherCluster { ours: ClusterId, theirs: ClusterId },
    #[error(
        "peer speaks internode versions {theirs_min} to {theirs_max}, this node {ours_min} to {ours_max}"
    )]
    Version {
        ours_min: u32,
        ours_max: u32,
        theirs_min: u32,
        theirs_max: u32,
    },
    #[error(
        "peer {node} starts as {theirs}, but {known} has been seen: a cloned or restored disk?"
    )]
    OldIncarnation {
        node: NodeId,
        theirs: Incarnation,
        known: Incarnation,
    },
}

impl Identity {
    /// Whether a connection with `peer` may carry messages; both sides ask. The check of incarnations is the
    /// network's, which remembers the highest it has seen of each node.
    pub fn accepts(&self, peer: &Identity) -> Result<(), Rejection> {
        let unknown = ClusterId::default();
        if self.cluster != peer.cluster && self.cluster != unknown && peer.cluster != unknown {
            return Err(Rejection::OtherCluster {
                ours: self.cluster,
                theirs: peer.cluster,
            });
        }
        if self.version_max < peer.version_min || peer.version_max < self.version_min {
            return Err(Rejection::Version {
                ours_min: self.version_min,
                ours_max: self.version_max,
                theirs_min: peer.version_min,
                theirs_max: peer.version_max,
            });
        }
        Ok(())
    }
}

/// A message that has arrived.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The sender's identity as of its connection's hello.
    pub from: Identity,
    /// Where it can be answered: its advertised address, resolved.
    pub address: SocketAddr,
    pub message: Bytes,
}

#[async_trait]
pub trait Network: Send + Sync {
    /// Sets who this node says it is; connections made from now on carry it, older ones are closed.
    fn identify(&self, identity: Identity);

    /// Sends one message of at most 32 MiB. It may be lost, delayed, duplicated, and overtaken. Messages to an
    /// address whose queue is full are dropped. Never blocks.
    fn send(&self, to: SocketAddr, message: Bytes);

    /// The next message for this node. `None` when the network is shut down. One caller at a time.
    async fn receive(&self) -> Option<Incoming>;

    /// The address that peers reach this node at.
    fn local_address(&self) -> SocketAddr;
}
