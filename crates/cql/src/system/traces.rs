//! `system_traces`: what traced requests have done, on all nodes.

use super::{SystemContext, SystemTable, address, text, text_map};
use crate::timeuuid;
use crate::types::wire::timestamp_from_millis;
use api::NodeInfo;
use api::trace::Trace;
use model::{NodeId, Value};

pub const TABLES: [SystemTable; 2] = [
    SystemTable {
        keyspace: "system_traces",
        name: "sessions",
        columns: &[
            ("session_id", "uuid", 'p'),
            ("client", "inet", 'r'),
            ("command", "text", 'r'),
            ("coordinator", "inet", 'r'),
            ("coordinator_port", "int", 'r'),
            ("duration", "int", 'r'),
            ("parameters", "map<text, text>", 'r'),
            ("request", "text", 'r'),
            ("started_at", "timestamp", 'r'),
        ],
        rows: sessions,
    },
    SystemTable {
        keyspace: "system_traces",
        name: "events",
        columns: &[
            ("session_id", "uuid", 'p'),
            ("event_id", "timeuuid", 'c'),
            ("activity", "text", 'r'),
            ("source", "inet", 'r'),
            ("source_elapsed", "int", 'r'),
            ("source_port", "int", 'r'),
            ("thread", "text", 'r'),
        ],
        rows: events,
    },
];

fn sessions(context: &SystemContext<'_>) -> Vec<Vec<Value>> {
    let row = |trace: &Trace| {
        let client = trace.client.as_ref().and_then(|client| client.parse().ok());
        vec![
            Value::Uuid(trace.id),
            client.map_or(Value::Null, address),
            text("QUERY"),
            source(context, trace.coordinator),
            Value::Int(super::INTERNODE_PORT),
            micros(trace.duration_micros),
            text_map(&trace.parameters),
            text(trace.request.clone()),
            timestamp_from_millis(trace.started_at.0.div_euclid(1_000)),
        ]
    };
    context.traces.iter().map(row).collect()
}

fn events(context: &SystemContext<'_>) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for trace in context.traces {
        for (number, event) in trace.events.iter().enumerate() {
            let at = trace.started_at.plus_micros(event.elapsed_micros as i64);
            rows.push(vec![
                Value::Uuid(trace.id),
                Value::Uuid(timeuuid::numbered(at, number as u32)),
                text(event.activity.clone()),
                source(context, event.source),
                micros(event.elapsed_micros),
                Value::Int(super::INTERNODE_PORT),
                text("tessera"),
            ]);
        }
    }
    rows
}

fn source(context: &SystemContext<'_>, node: NodeId) -> Value {
    let is_it = |known: &&NodeInfo| known.id == node;
    let known = context.topology.nodes.iter().find(is_it);
    known.map_or(Value::Null, |known| address(known.address))
}

/// As the tables' `int` holds it.
fn micros(micros: u64) -> Value {
    Value::Int(i64::from(i32::try_from(micros).unwrap_or(i32::MAX)))
}
