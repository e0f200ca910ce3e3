//! `tessera status`: a node's view of its cluster, as a table.

use crate::command::fetch;
use crate::options::AdminOptions;
use serde_json::Value;

pub fn run(options: &AdminOptions) -> Result<(), String> {
    let status = fetch(&options.admin, "GET", "/api/status", "")?;
    if options.json {
        println!("{status}");
        return Ok(());
    }
    print!("{}", render(&status));
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn render(status: &Value) -> String {
    let mut out = String::new();
    for name in [
        "cluster",
        "cluster_id",
        "this_node",
        "health",
        "schema_version",
        "meta_version",
        "meta_leader",
    ] {
        out += &format!("{:<16}{}\n", name.replace('_', " "), text(&status[name]));
    }
    out += &format!("{:<19} {}\n", "clock", text(&status["clock"]["summary"]));
    for (name, value) in status["settings"].as_object().into_iter().flatten() {
        out += &format!("{:<19} {}\n", name.replace('_', " "), text(value));
    }
    let rows = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    out += &format!("\n{}", nodes(status));
    let tablets: Vec<Vec<String>> = rows("tablets")
        .iter()
        .map(|tablet| {
            let replicas = tablet["replicas"].as_array().cloned().unwrap_or_default();
            let places: Vec<String> = replicas
                .iter()
                .map(|replica| {
                    let mark = match (&replica["learner"], &replica["leaving"]) {
                        (Value::Bool(true), _) => "+",
                        (_, Value::Bool(true)) => "-",
                        _ => "",
                    };
                    format!("{}{mark}", text(&replica["node"]))
                })
                .collect();
            let activity = match tablet["splitting"] == true {
                true => "splitting",
                false => "",
            };
            vec![
                text(&tablet["id"]),
                text(&tablet["table"]),
                text(&tablet["replication"]),
                text(&tablet["leaseholder"]),
                places.join(" "),
                text(&tablet["applied"]),
                text(&tablet["size_bytes"]),
                activity.to_owned(),
            ]
        })
        .collect();
    let heading = [
        "tablet",
        "table",
        "replication",
        "leaseholder",
        "replicas",
        "applied here",
        "bytes here",
        "under way",
    ];
    out += &format!("\n{}", table(&heading, &tablets));
    out
}

/// The nodes, as a table.
pub fn nodes(status: &Value) -> String {
    let nodes: Vec<Vec<String>> = status["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| {
            let state = match (node["alive"] == true, node["state"].as_str()) {
                (false, _) => "dead",
                (true, Some(state @ ("leaving" | "drained"))) => state,
                (true, _) => "alive",
            };
            let cells = [
                "id",
                "client_address",
                "internode",
                "data_center",
                "rack",
                "replicas",
                "version",
            ];
            [
                vec![state.to_owned()],
                cells.iter().map(|cell| text(&node[cell])).collect(),
            ]
            .concat()
        })
        .collect();
    let heading = [
        "state",
        "node",
        "clients at",
        "peers at",
        "data center",
        "rack",
        "replicas",
        "version",
    ];
    table(&heading, &nodes)
}

fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut out = line(heading.to_vec());
    for row in rows {
        out += &line(row.iter().map(String::as_str).collect());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::render;
    use serde_json::json;

    #[test]
    fn nodes_and_tablets_are_listed() {
        let status = json!({
            "cluster": "tessera", "health": "serving", "this_node": 1,
            "clock": { "summary": "cluster, within 90 us, time master 2" },
            "nodes": [{ "id": 1, "alive": true, "client_address": "127.0.0.1" }, { "id": 2, "alive": false }],
            "tablets": [{ "id": 3, "table": "n.t", "replication": "strong", "leaseholder": 1,
                          "replicas": [{ "node": 1 }, { "node": 2, "learner": true }] }],
        });
        let shown = render(&status);
        assert!(shown.contains("alive  1     127.0.0.1"), "{shown}");
        assert!(shown.contains("dead   2"), "{shown}");
        assert!(
            shown.contains("clock               cluster, within 90 us"),
            "{shown}"
        );
        assert!(
            shown.contains("n.t    strong       1            1 2+"),
            "{shown}"
        );
    }
}
