//! Commands that a running node carries out, asked for over its admin port.

use crate::options::{
    NodeCommand, NodeOptions, RebuildOptions, RepairOptions, SetOptions, SplitOptions,
};
use crate::status;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(300);

pub fn split(options: &SplitOptions) -> Result<(), String> {
    let body =
        json!({ "namespace": options.namespace, "table": options.table, "key": options.key });
    carry_out(&options.admin, "split", &body)
}

pub fn set(options: &SetOptions) -> Result<(), String> {
    let body = json!({ "name": options.name, "value": options.value });
    carry_out(&options.admin, "set", &body)
}

pub fn node(options: &NodeOptions) -> Result<(), String> {
    let admin = &options.admin;
    match options.command {
        NodeCommand::List => {
            let status = fetch(admin, "GET", "/api/status", "")?;
            print!("{}", status::nodes(&status));
            Ok(())
        }
        NodeCommand::Decommission { node } => {
            carry_out(admin, "decommission", &json!({ "node": node }))
        }
        NodeCommand::Recommission { node } => {
            carry_out(admin, "recommission", &json!({ "node": node }))
        }
        NodeCommand::Replace { node, successor } => {
            let body = json!({ "node": node, "successor": successor });
            carry_out(admin, "replace", &body)
        }
        NodeCommand::Remove { node } => carry_out(admin, "remove", &json!({ "node": node })),
    }
}

fn carry_out(admin: &str, command: &str, body: &Value) -> Result<(), String> {
    let path = format!("/api/command/{command}");
    let answer = fetch(admin, "POST", &path, &body.to_string())?;
    println!("{answer}");
    Ok(())
}

/// Asks for a repair and looks on until it is through.
pub fn repair(options: &RepairOptions) -> Result<(), String> {
    let body = json!({ "namespace": options.namespace, "table": options.table });
    let command = |name: &str, body: Value| {
        let path = format!("/api/command/{name}");
        fetch(&options.admin, "POST", &path, &body.to_string())
    };
    let begun = command("repair", body)?;
    let mut shown = String::new();
    loop {
        let progress = command("repair-progress", json!({ "repair": begun["repair"] }))?;
        let line = format!(
            "{} of {} tablets, {} bytes compared, {} rows brought to replicas that lacked them",
            progress["tablets_done"],
            progress["tablets"],
            progress["compared_bytes"],
            progress["streamed_rows"]
        );
        if line != shown {
            println!("{line}");
            shown = line;
        }
        if progress["finished"] == true {
            return match (&progress["tablets_failed"], &progress["tablets_partial"]) {
                (failed, _) if *failed != 0 => Err(format!(
                    "{failed} tablets could not be repaired: {}",
                    progress["error"]
                )),
                (_, partial) if *partial != 0 => Err(format!(
                    "{partial} tablets were repaired without all their replicas: repeat it when all nodes are back"
                )),
                _ => Ok(()),
            };
        }
        std::thread::sleep(PROGRESS_INTERVAL);
    }
}

/// Looks on until tables have the copies that they should have. Copies are made and taken away by themselves from the moment
/// that a replication is changed: there is nothing to begin.
pub fn rebuild(options: &RebuildOptions) -> Result<(), String> {
    let body = json!({ "namespace": options.namespace }).to_string();
    let mut shown = String::new();
    loop {
        let copies = fetch(&options.admin, "POST", "/api/command/copies", &body)?;
        let lines = copies_lines(&copies);
        if lines != shown {
            println!("{lines}");
            shown = lines;
        }
        if copies["settled"] == true {
            return Ok(());
        }
        std::thread::sleep(PROGRESS_INTERVAL);
    }
}

fn copies_lines(copies: &Value) -> String {
    let mut lines: Vec<String> = copies["data_centers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|center| {
            format!(
                "{}: {} of {} copies, {} being filled, {} to go",
                center["data_center"].as_str().unwrap_or_default(),
                center["settled"],
                center["wanted"],
                center["filling"],
                center["leaving"]
            )
        })
        .collect();
    let dead = copies["dead"].as_array().into_iter().flatten();
    let dead: Vec<&str> = dead.filter_map(Value::as_str).collect();
    if copies["settled"] != true && !dead.is_empty() {
        lines.push(format!(
            "not alive, and perhaps waited for: {}",
            dead.join(" ")
        ));
    }
    lines.join("\n")
}

/// One request over a connection of its own; answers that are not a success become errors.
pub fn fetch(admin: &str, method: &str, path: &str, body: &str) -> Result<Value, String> {
    let failed =
        |error: std::io::Error| format!("no answer from the admin port at {admin}: {error}");
    let mut stream = TcpStream::connect(admin).map_err(failed)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("{admin} does not speak HTTP"))?;
    let value: Value =
        serde_json::from_str(body).map_err(|error| format!("{admin} answered no JSON: {error}"))?;
    if head.split(' ').nth(1) == Some("200") {
        return Ok(value);
    }
    Err(match &value["error"] {
        Value::String(message) => message.clone(),
        _ => body.trim().to_owned(),
    })
}
