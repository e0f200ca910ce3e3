//! Events for clients that have REGISTERed: what changed from one catalog, or topology, to the next.

use crate::plan::view::View;
use crate::protocol::response::{ChangeKind, ChangeTarget, Event, SchemaChange};
use api::{NodeInfo, Topology};
use catalog::{Catalog, Namespace, Table};
use std::sync::Arc;

/// Keyspaces before what is in them when they come, after when they go.
pub fn schema_events(before: &Catalog, after: &Catalog) -> Vec<Event> {
    let mut events = Vec::new();
    let mut push = |change, keyspace: &str, target| {
        events.push(Event::Schema(SchemaChange {
            change,
            keyspace: keyspace.to_owned(),
            target,
        }));
    };
    for (name, namespace) in &before.namespaces {
        if !after.namespaces.contains_key(name) {
            for table in shown(before, namespace) {
                let target = ChangeTarget::Table(table.name().to_owned());
                push(ChangeKind::Dropped, name, target);
            }
            push(ChangeKind::Dropped, name, ChangeTarget::Keyspace);
        }
    }
    for (name, namespace) in &after.namespaces {
        let Some(known) = before.namespaces.get(name) else {
            push(ChangeKind::Created, name, ChangeTarget::Keyspace);
            for kind in namespace.types.keys() {
                push(ChangeKind::Created, name, ChangeTarget::Type(kind.clone()));
            }
            for table in shown(after, namespace) {
                let target = ChangeTarget::Table(table.name().to_owned());
                push(ChangeKind::Created, name, target);
            }
            continue;
        };
        if known.replication != namespace.replication || known.properties != namespace.properties {
            push(ChangeKind::Updated, name, ChangeTarget::Keyspace);
        }
        for (kind, definition) in &namespace.types {
            let change = match known.types.get(kind) {
                None => ChangeKind::Created,
                Some(old) if old != definition => ChangeKind::Updated,
                Some(_) => continue,
            };
            push(change, name, ChangeTarget::Type(kind.clone()));
        }
        for table in shown(after, namespace) {
            let old = known
                .tables
                .get(table.name())
                .and_then(|id| before.table(*id));
            let change = match old {
                None => ChangeKind::Created,
                Some(old) if old.id != table.id || old.version != table.version => {
                    ChangeKind::Updated
                }
                Some(_) => continue,
            };
            push(change, name, ChangeTarget::Table(table.name().to_owned()));
        }
        for table in shown(before, known) {
            if !namespace.tables.contains_key(table.name()) {
                let target = ChangeTarget::Table(table.name().to_owned());
                push(ChangeKind::Dropped, name, target);
            }
        }
        for kind in known.types.keys() {
            if !namespace.types.contains_key(kind) {
                push(ChangeKind::Dropped, name, ChangeTarget::Type(kind.clone()));
            }
        }
    }
    events
}

/// The namespace's tables that CQL shows.
fn shown<'a>(
    catalog: &'a Catalog,
    namespace: &'a Namespace,
) -> impl Iterator<Item = &'a Arc<Table>> {
    namespace
        .tables
        .values()
        .filter_map(|id| catalog.table(*id))
        .filter(|table| View::of(table).is_ok())
}

pub fn topology_events(before: &Topology, after: &Topology) -> Vec<Event> {
    let find = |topology: &Topology, node: &NodeInfo| {
        topology
            .nodes
            .iter()
            .find(|other| other.id == node.id)
            .cloned()
    };
    let mut events = Vec::new();
    for node in &after.nodes {
        let (address, port) = (node.address, node.cql_port);
        let is_up = Event::Status {
            is_up: node.is_alive,
            address,
            port,
        };
        match find(before, node) {
            None => {
                events.push(Event::Topology {
                    is_new: true,
                    address,
                    port,
                });
                events.push(is_up);
            }
            Some(old) if old.is_alive != node.is_alive => events.push(is_up),
            Some(_) => {}
        }
    }
    for node in &before.nodes {
        if find(after, node).is_none() {
            events.push(Event::Topology {
                is_new: false,
                address: node.address,
                port: node.cql_port,
            });
        }
    }
    events
}
