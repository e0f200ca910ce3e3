//! What the admin port shows of the node: its status as JSON, its health, and the commands it takes.

use admin::{CommandError, Source};
use async_trait::async_trait;
use catalog::Table;
use model::{NodeId, Type, Value as Cell};
use node::{ClockStatus, Copies, Health, Node, NodeState, Status, TabletStatus};
use serde_json::{Value, json};
use std::sync::Arc;

pub struct NodeSource {
    pub node: Arc<Node>,
}

#[async_trait]
impl Source for NodeSource {
    fn status(&self) -> Value {
        render(&self.node.status())
    }

    fn health(&self) -> Result<String, String> {
        match self.node.status().health {
            Health::Serving => Ok("ok".into()),
            Health::Degraded(why) => Ok(format!("ok, but {why}")),
            Health::Starting => Err("starting".into()),
            Health::Stopping => Err("stopping".into()),
        }
    }

    async fn command(&self, name: &str, arguments: Value) -> Result<Value, CommandError> {
        match name {
            "split" => self.split(&arguments).await,
            "set" => self.set(&arguments).await,
            "decommission" | "recommission" | "remove" | "replace" => {
                self.change_node(name, &arguments).await
            }
            "repair" => self.repair(&arguments),
            "repair-progress" => self.repair_progress(&arguments),
            "copies" => self.copies(&arguments),
            _ => Err(CommandError::Unknown),
        }
    }
}

impl NodeSource {
    async fn split(&self, arguments: &Value) -> Result<Value, CommandError> {
        let word = |name: &str| {
            let found = arguments[name].as_str();
            found.ok_or_else(|| {
                CommandError::Invalid(format!("`{name}` is missing or not a string"))
            })
        };
        let (namespace, name) = (word("namespace")?, word("table")?);
        let catalog = self.node.database().catalog();
        let table = catalog.table_by_name(namespace, name).ok_or_else(|| {
            CommandError::Invalid(format!("there is no table {namespace}.{name}"))
        })?;
        let values = arguments["key"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let key = parse_key(table, values).map_err(CommandError::Invalid)?;
        self.node
            .split_tablet(table.id, key)
            .await
            .map_err(command_error)?;
        Ok(json!({ "split": format!("{namespace}.{name}") }))
    }

    async fn change_node(&self, what: &str, arguments: &Value) -> Result<Value, CommandError> {
        let id = |name: &str| arguments[name].as_u64().map(NodeId);
        let missing = |name: &str| CommandError::Invalid(format!("`{name}`, a number, is missing"));
        let node = id("node").ok_or_else(|| missing("node"))?;
        let changed = match what {
            "decommission" => self.node.decommission(node, None).await,
            "recommission" => self.node.recommission(node).await,
            "remove" => self.node.remove_node(node, None).await,
            _ => {
                let successor = id("successor").ok_or_else(|| missing("successor"))?;
                self.node.replace(node, successor).await
            }
        };
        changed.map_err(command_error)?;
        Ok(json!({ what: node.0 }))
    }

    async fn set(&self, arguments: &Value) -> Result<Value, CommandError> {
        let (Some(name), Some(value)) = (arguments["name"].as_str(), arguments["value"].as_u64())
        else {
            let message = "`name`, a string, or `value`, a number, is missing";
            return Err(CommandError::Invalid(message.into()));
        };
        self.node.set(name, value).await.map_err(command_error)?;
        Ok(json!({ "set": name, "value": value }))
    }

    fn repair(&self, arguments: &Value) -> Result<Value, CommandError> {
        let (namespace, table) = (arguments["namespace"].as_str(), arguments["table"].as_str());
        if table.is_some() && namespace.is_none() {
            let message = "a table is named with its keyspace";
            return Err(CommandError::Invalid(message.into()));
        }
        let number = self.node.repair(namespace, table).map_err(command_error)?;
        Ok(json!({ "repair": number }))
    }

    /// The copies that tables have and should have, by data centre, and the nodes that cannot take part at the moment.
    fn copies(&self, arguments: &Value) -> Result<Value, CommandError> {
        let namespace = arguments["namespace"].as_str();
        let copies = self.node.copies(namespace).map_err(command_error)?;
        let nodes = self.node.status().nodes;
        let dead = nodes.iter().filter(|node| !node.is_alive);
        let dead: Vec<String> = dead.map(|node| node.id.to_string()).collect();
        let centers: Vec<Value> = copies
            .iter()
            .map(|(name, copies)| {
                json!({
                    "data_center": name,
                    "wanted": copies.wanted,
                    "settled": copies.settled,
                    "filling": copies.filling,
                    "leaving": copies.leaving,
                })
            })
            .collect();
        let is_settled = copies.values().all(Copies::is_settled);
        Ok(json!({ "data_centers": centers, "dead": dead, "settled": is_settled }))
    }

    fn repair_progress(&self, arguments: &Value) -> Result<Value, CommandError> {
        let number = arguments["repair"].as_u64();
        let progress = number.and_then(|number| self.node.repair_progress(number));
        let progress = progress
            .ok_or_else(|| CommandError::Invalid("no such repair was begun here".into()))?;
        Ok(json!({
            "tablets": progress.tablets,
            "tablets_done": progress.tablets_done,
            "tablets_partial": progress.tablets_partial,
            "tablets_failed": progress.tablets_failed,
            "compared_bytes": progress.compared_bytes,
            "streamed_rows": progress.streamed_rows,
            "finished": progress.is_finished,
            "error": progress.error,
        }))
    }
}

fn command_error(error: api::Error) -> CommandError {
    match error {
        api::Error::Refused(refused) => CommandError::Invalid(refused.to_string()),
        error => CommandError::Failed(error.to_string()),
    }
}

/// The key that begins with these values, which are texts as an operator types them.
fn parse_key(table: &Table, values: &[Value]) -> Result<Vec<u8>, String> {
    let columns: Vec<_> = table.key_columns().collect();
    if values.is_empty() || values.len() > columns.len() {
        return Err(format!(
            "a key of {} has 1 to {} values",
            table.name(),
            columns.len()
        ));
    }
    let mut cells = Vec::with_capacity(values.len());
    for (column, value) in columns.iter().zip(values) {
        let text = value
            .as_str()
            .ok_or_else(|| "key values are given as strings".to_owned())?;
        cells.push(match &column.kind {
            Type::TinyInt | Type::SmallInt | Type::Int | Type::BigInt => {
                let number = text.parse();
                Cell::Int(
                    number
                        .map_err(|_| format!("{text:?} is no value of column {}", column.name))?,
                )
            }
            Type::Text { .. } | Type::Ascii => Cell::Text(text.into()),
            other => return Err(format!("keys of type {other:?} cannot be typed here yet")),
        });
    }
    table.key_prefix(&cells).map_err(|error| error.to_string())
}

fn render(status: &Status) -> Value {
    let health = match &status.health {
        Health::Starting => "starting".into(),
        Health::Serving => "serving".into(),
        Health::Stopping => "stopping".into(),
        Health::Degraded(why) => format!("degraded: {why}"),
    };
    let nodes: Vec<Value> = status
        .nodes
        .iter()
        .map(|node| {
            json!({
                "id": node.id.0,
                "alive": node.is_alive,
                "state": match node.state {
                    NodeState::Member => "member",
                    NodeState::Leaving => "leaving",
                    NodeState::Drained => "drained",
                },
                "incarnation": node.incarnation.0,
                "client_address": node.client_address,
                "cql_port": node.cql_port,
                "internode": node.internode,
                "data_center": node.data_center,
                "rack": node.rack,
                "replicas": node.replicas,
                "version": node.version,
            })
        })
        .collect();
    json!({
        "cluster": status.cluster_name,
        "cluster_id": status.cluster.to_string(),
        "this_node": status.this_node.0,
        "incarnation": status.incarnation.0,
        "health": health,
        "schema_version": status.schema.0,
        "meta_version": status.meta_version,
        "meta_leader": status.meta_leader.map(|node| node.0),
        "settings": status.settings.iter().map(|(name, value)| (name.to_string(), json!(value)))
            .collect::<serde_json::Map<String, Value>>(),
        "clock": clock(&status.clock),
        "nodes": nodes,
        "tablets": status.tablets.iter().map(tablet).collect::<Vec<_>>(),
    })
}

/// `summary` is the rest in one line.
fn clock(clock: &ClockStatus) -> Value {
    let mut summary = match clock.bound_micros {
        Some(bound) => format!("{}, within {} us", clock.source, bound),
        None => clock.source.to_string(),
    };
    if let Some(master) = clock.master {
        summary += &format!(", time master {}", master.0);
    }
    if let Some(error) = &clock.error {
        summary += &format!("; {error}");
    }
    json!({
        "summary": summary,
        "source": clock.source.name(),
        "bound_micros": clock.bound_micros,
        "offset_micros": clock.offset_micros,
        "master": clock.master.map(|node| node.0),
        "sample_age_micros": clock.sample_age_micros,
        "round_trip_micros": clock.round_trip_micros,
        "fenced": clock.fenced,
        "error": clock.error,
    })
}

fn tablet(tablet: &TabletStatus) -> Value {
    let replicas: Vec<Value> = tablet
        .replicas
        .iter()
        .map(|replica| {
            json!({
                "id": replica.id.0,
                "node": replica.node.0,
                "learner": replica.is_learner,
                "leaving": replica.is_leaving,
            })
        })
        .collect();
    json!({
        "id": tablet.id.0,
        "table": tablet.table_name,
        "replication": if tablet.is_strong { "strong" } else { "eventual" },
        "epoch": tablet.epoch.0,
        "start": hex(&tablet.start),
        "end": tablet.end.as_deref().map(hex),
        "splitting": tablet.is_splitting,
        "leaseholder": tablet.leaseholder.map(|node| node.0),
        "replicas": replicas,
        "applied": tablet.applied,
        "size_bytes": tablet.size_bytes,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
