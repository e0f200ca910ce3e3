//! The system tables: computed from the catalog and the topology whenever they are read. All of them are shown as
//! virtual, which they are.

mod cluster;
mod schema;
mod traces;

use crate::grammar::parse_type;
use crate::plan::view::{Place, Source, View, ViewColumn};
use crate::types::literal::inet_bytes;
use crate::types::name::resolve;
use api::Topology;
use api::trace::Trace;
use catalog::{Catalog, ColumnRole};
use model::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What drivers and tools take this server for: they choose features by it.
pub const RELEASE_VERSION: &str = "5.0.0";
pub const CQL_VERSION: &str = "3.4.7";
pub const PARTITIONER: &str = "org.apache.cassandra.dht.Murmur3Partitioner";

/// Nodes speak to each other on this port, unless configured otherwise, which no client needs to know.
const INTERNODE_PORT: i64 = 7000;

/// What the tables are computed from.
pub struct SystemContext<'a> {
    pub catalog: &'a Catalog,
    pub topology: &'a Topology,
    /// For `system_traces` only.
    pub traces: &'a [Trace],
}

pub struct SystemTable {
    pub keyspace: &'static str,
    pub name: &'static str,
    /// Name, type, role: `p` partition, `c` clustering, `r` regular.
    columns: &'static [(&'static str, &'static str, char)],
    /// Rows with a value for each column, in order.
    pub rows: fn(&SystemContext<'_>) -> Vec<Vec<Value>>,
}

impl std::fmt::Debug for SystemTable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.keyspace, self.name)
    }
}

const KEYSPACES: [&str; 4] = [
    "system",
    "system_schema",
    "system_traces",
    "system_virtual_schema",
];

fn tables() -> impl Iterator<Item = &'static SystemTable> {
    cluster::TABLES
        .iter()
        .chain(&schema::TABLES)
        .chain(&traces::TABLES)
}

/// Whether a keyspace is the system's own: it cannot be changed.
pub fn is_system(keyspace: &str) -> bool {
    KEYSPACES.contains(&keyspace)
        || matches!(
            keyspace,
            "system_auth" | "system_distributed" | "system_views"
        )
}

pub fn view(keyspace: &str, name: &str) -> Option<View> {
    let table = tables().find(|table| table.keyspace == keyspace && table.name == name)?;
    Some(table.view())
}

impl SystemTable {
    /// All columns are found in the "key": a row is its values.
    fn view(&'static self) -> View {
        let none = BTreeMap::new();
        let columns = self.columns.iter().enumerate().map(|(index, column)| {
            let (name, kind, role) = column;
            let kind = parse_type(kind)
                .and_then(|kind| resolve(&kind, self.keyspace, &none))
                .unwrap_or(model::Type::text());
            ViewColumn {
                name: (*name).to_owned(),
                kind,
                role: match role {
                    'p' => ColumnRole::Partition,
                    'c' => ColumnRole::Clustering,
                    _ => ColumnRole::Regular,
                },
                descending: false,
                place: Place::Key(index),
            }
        });
        View {
            keyspace: self.keyspace.to_owned(),
            name: self.name.to_owned(),
            columns: columns.collect(),
            source: Source::System(self),
        }
    }
}

fn no_rows(_: &SystemContext<'_>) -> Vec<Vec<Value>> {
    Vec::new()
}

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

fn address(address: IpAddr) -> Value {
    Value::Inet(inet_bytes(address))
}

fn text_map(pairs: &[(String, String)]) -> Value {
    let mut pairs: Vec<(Value, Value)> = pairs
        .iter()
        .map(|(key, value)| (text(key), text(value)))
        .collect();
    pairs.sort_by(|left, right| format!("{:?}", left.0).cmp(&format!("{:?}", right.0)));
    Value::Map(pairs)
}

/// One schema version for all nodes: a change answers when all live nodes have it.
pub fn schema_version(catalog: &Catalog) -> [u8; 16] {
    let mut uuid = crate::prepared::digest(&[b"schema", &catalog.version.0.to_be_bytes()]);
    uuid[6] = uuid[6] & 0x0F | 0x30;
    uuid[8] = uuid[8] & 0x3F | 0x80;
    uuid
}

/// The tables of a system keyspace, by name.
pub fn views_of(keyspace: &str) -> Vec<View> {
    let mut views: Vec<View> = tables()
        .filter(|table| table.keyspace == keyspace)
        .map(SystemTable::view)
        .collect();
    views.sort_by(|left, right| left.name.cmp(&right.name));
    views
}
