//! What a node is told when it starts.

use crate::upkeep::RepairConfig;
use quorum::HintLimits;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use txn::StrongConfig;

#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name, as CQL shows it; only the founding node's counts.
    pub cluster_name: String,
    /// Internode addresses of a cluster to join. Empty: found one, unless this node already belongs to one.
    pub join: Vec<SocketAddr>,
    /// Where clients reach this node's doors.
    pub client_address: IpAddr,
    pub cql_port: u16,
    pub dynamo_port: u16,
    pub spanner_port: u16,
    pub admin_port: u16,
    pub data_center: String,
    pub rack: String,
    /// The version of the software, for peers and people.
    pub version: String,
    /// Copies of a table that does not say; only the founding node's counts. 0: the default, three.
    pub replication_factor: u32,
    /// Entries of a strong tablet's log that stay for replicas that lag; beyond it they are sent a snapshot. 0: the
    /// default of `consensus`.
    pub log_entries_kept: u64,
    /// How long leases and histories of strong tablets are.
    pub strong: StrongConfig,
    /// What is kept for replicas of eventual tables that miss writes.
    pub hints: HintLimits,
    /// The repair of eventual tables in the background.
    pub repair: RepairConfig,
    /// What this node's replicas of eventual tables take over from others, to be filled or when one leaves: the budget of
    /// the network.
    pub stream_bytes_per_second: u64,
    /// So much of it is asked for at once.
    pub stream_page_bytes: u32,
}

/// As Apache Cassandra's `stream_throughput_outbound`.
pub const STREAM_BYTES_PER_SECOND: u64 = 24 << 20;

impl Default for Config {
    fn default() -> Config {
        Config {
            cluster_name: "tessera".into(),
            join: Vec::new(),
            client_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            cql_port: 9042,
            dynamo_port: 8000,
            spanner_port: 9010,
            admin_port: 8080,
            data_center: "datacenter1".into(),
            rack: "rack1".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            replication_factor: 0,
            log_entries_kept: 0,
            strong: StrongConfig::default(),
            hints: HintLimits::default(),
            repair: RepairConfig::default(),
            stream_bytes_per_second: STREAM_BYTES_PER_SECOND,
            stream_page_bytes: 1 << 20,
        }
    }
}
