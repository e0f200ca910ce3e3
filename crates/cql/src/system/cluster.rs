//! `system`: this node, the others, and tables that tools look into and find empty.

use super::{
    CQL_VERSION, PARTITIONER, RELEASE_VERSION, SystemContext, SystemTable, address, no_rows,
    schema_version, text,
};
use api::NodeInfo;
use model::Value;

pub const TABLES: [SystemTable; 8] = [
    SystemTable {
        keyspace: "system",
        name: "local",
        columns: &[
            ("key", "text", 'p'),
            ("bootstrapped", "text", 'r'),
            ("broadcast_address", "inet", 'r'),
            ("broadcast_port", "int", 'r'),
            ("cluster_name", "text", 'r'),
            ("cql_version", "text", 'r'),
            ("data_center", "text", 'r'),
            ("gossip_generation", "int", 'r'),
            ("host_id", "uuid", 'r'),
            ("listen_address", "inet", 'r'),
            ("listen_port", "int", 'r'),
            ("native_protocol_version", "text", 'r'),
            ("partitioner", "text", 'r'),
            ("rack", "text", 'r'),
            ("release_version", "text", 'r'),
            ("rpc_address", "inet", 'r'),
            ("rpc_port", "int", 'r'),
            ("schema_version", "uuid", 'r'),
            ("tokens", "set<text>", 'r'),
            ("truncated_at", "map<uuid, blob>", 'r'),
        ],
        rows: local,
    },
    SystemTable {
        keyspace: "system",
        name: "peers",
        columns: &[
            ("peer", "inet", 'p'),
            ("data_center", "text", 'r'),
            ("host_id", "uuid", 'r'),
            ("preferred_ip", "inet", 'r'),
            ("rack", "text", 'r'),
            ("release_version", "text", 'r'),
            ("rpc_address", "inet", 'r'),
            ("schema_version", "uuid", 'r'),
            ("tokens", "set<text>", 'r'),
        ],
        rows: peers,
    },
    SystemTable {
        keyspace: "system",
        name: "peers_v2",
        columns: &[
            ("peer", "inet", 'p'),
            ("peer_port", "int", 'c'),
            ("data_center", "text", 'r'),
            ("host_id", "uuid", 'r'),
            ("native_address", "inet", 'r'),
            ("native_port", "int", 'r'),
            ("preferred_ip", "inet", 'r'),
            ("preferred_port", "int", 'r'),
            ("rack", "text", 'r'),
            ("release_version", "text", 'r'),
            ("schema_version", "uuid", 'r'),
            ("tokens", "set<text>", 'r'),
        ],
        rows: peers_v2,
    },
    SystemTable {
        keyspace: "system",
        name: "size_estimates",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("table_name", "text", 'c'),
            ("range_start", "text", 'c'),
            ("range_end", "text", 'c'),
            ("mean_partition_size", "bigint", 'r'),
            ("partitions_count", "bigint", 'r'),
        ],
        rows: no_rows,
    },
    SystemTable {
        keyspace: "system",
        name: "table_estimates",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("table_name", "text", 'c'),
            ("range_type", "text", 'c'),
            ("range_start", "text", 'c'),
            ("range_end", "text", 'c'),
            ("mean_partition_size", "bigint", 'r'),
            ("partitions_count", "bigint", 'r'),
        ],
        rows: no_rows,
    },
    SystemTable {
        keyspace: "system",
        name: "built_views",
        columns: &[
            ("keyspace_name", "text", 'p'),
            ("view_name", "text", 'c'),
            ("status_replicated", "boolean", 'r'),
        ],
        rows: no_rows,
    },
    SystemTable {
        keyspace: "system",
        name: "IndexInfo",
        columns: &[
            ("table_name", "text", 'p'),
            ("index_name", "text", 'c'),
            ("value", "blob", 'r'),
        ],
        rows: no_rows,
    },
    SystemTable {
        keyspace: "system",
        name: "compaction_history",
        columns: &[
            ("id", "uuid", 'p'),
            ("bytes_in", "bigint", 'r'),
            ("bytes_out", "bigint", 'r'),
            ("columnfamily_name", "text", 'r'),
            ("compacted_at", "timestamp", 'r'),
            ("keyspace_name", "text", 'r'),
        ],
        rows: no_rows,
    },
];

fn tokens(node: &NodeInfo) -> Value {
    let mut tokens: Vec<String> = node.tokens.iter().map(i64::to_string).collect();
    tokens.sort();
    tokens.dedup();
    Value::Set(tokens.into_iter().map(Value::Text).collect())
}

fn local(context: &SystemContext<'_>) -> Vec<Vec<Value>> {
    let topology = context.topology;
    let this = topology
        .nodes
        .iter()
        .find(|node| node.id == topology.this_node);
    let Some(node) = this else {
        return Vec::new();
    };
    vec![vec![
        text("local"),
        text("COMPLETED"),
        address(node.address),
        Value::Int(super::INTERNODE_PORT),
        text(&topology.cluster_name),
        text(CQL_VERSION),
        text(&node.data_center),
        Value::Int(1),
        Value::Uuid(node.host_id),
        address(node.address),
        Value::Int(super::INTERNODE_PORT),
        text("5"),
        text(PARTITIONER),
        text(&node.rack),
        text(RELEASE_VERSION),
        address(node.address),
        Value::Int(i64::from(node.cql_port)),
        Value::Uuid(schema_version(context.catalog)),
        tokens(node),
        Value::Null,
    ]]
}

/// The other nodes, also those that are down: they have not left.
fn others<'a>(context: &SystemContext<'a>) -> impl Iterator<Item = &'a NodeInfo> {
    let this = context.topology.this_node;
    context
        .topology
        .nodes
        .iter()
        .filter(move |node| node.id != this)
}

fn peers(context: &SystemContext<'_>) -> Vec<Vec<Value>> {
    others(context)
        .map(|node| {
            vec![
                address(node.address),
                text(&node.data_center),
                Value::Uuid(node.host_id),
                Value::Null,
                text(&node.rack),
                text(RELEASE_VERSION),
                address(node.address),
                Value::Uuid(schema_version(context.catalog)),
                tokens(node),
            ]
        })
        .collect()
}

fn peers_v2(context: &SystemContext<'_>) -> Vec<Vec<Value>> {
    others(context)
        .map(|node| {
            vec![
                address(node.address),
                Value::Int(super::INTERNODE_PORT),
                text(&node.data_center),
                Value::Uuid(node.host_id),
                address(node.address),
                Value::Int(i64::from(node.cql_port)),
                Value::Null,
                Value::Null,
                text(&node.rack),
                text(RELEASE_VERSION),
                Value::Uuid(schema_version(context.catalog)),
                tokens(node),
            ]
        })
        .collect()
}
