//! `tessera demo`: three nodes as three processes on loopback, with the usual ports on an address each, as CQL
//! drivers expect.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

const HOSTS: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
const START_SECONDS_MAX: u64 = 30;
const STOP_SECONDS_MAX: u64 = 10;

pub fn run() -> Result<(), String> {
    // One thread, which lives as long as the process: the nodes end with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(demo())
}

async fn demo() -> Result<(), String> {
    let folder = tempfile::Builder::new()
        .prefix("tessera-demo-")
        .tempdir()
        .map_err(|error| format!("no temporary directory: {error}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut nodes: Vec<Child> = Vec::new();
    let outcome = tokio::select! {
        outcome = start_all(folder.path(), &mut nodes) => match outcome {
            Ok(()) => {
                print(folder.path());
                tokio::select! {
                    _ = interrupt.recv() => Ok(()),
                    _ = terminate.recv() => Ok(()),
                    () = all_ended(&mut nodes, folder.path()) => Err("no node is left".to_owned()),
                }
            }
            Err(error) => Err(error),
        },
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    println!("stopping");
    for node in nodes.iter_mut().rev() {
        stop(node).await;
    }
    outcome
}

async fn start_all(folder: &Path, nodes: &mut Vec<Child>) -> Result<(), String> {
    let binary =
        std::env::current_exe().map_err(|error| format!("where is this binary? {error}"))?;
    for (index, host) in HOSTS.iter().enumerate() {
        let data = data_folder(folder, index);
        let mut command = Command::new(&binary);
        command.args([
            "start",
            "--end-with-parent",
            "--log-level",
            "warn",
            "--listen",
            host,
        ]);
        command
            .arg("--data-dir")
            .arg(data)
            .stdout(Stdio::null())
            .stdin(Stdio::null());
        if index > 0 {
            command.args(["--join", &format!("{}:7000", HOSTS[0])]);
        }
        let node = command
            .spawn()
            .map_err(|error| format!("node {} does not start: {error}", index + 1))?;
        nodes.push(node);
        wait_healthy(host, nodes.last_mut()).await?;
    }
    Ok(())
}

async fn wait_healthy(host: &str, mut node: Option<&mut Child>) -> Result<(), String> {
    for _ in 0..START_SECONDS_MAX * 20 {
        let admin = format!("{host}:8080");
        let answer = tokio::task::spawn_blocking(move || {
            crate::command::fetch(&admin, "GET", "/api/status", "")
        })
        .await;
        if matches!(answer, Ok(Ok(_))) {
            return Ok(());
        }
        if let Some(Ok(Some(status))) = node.as_mut().map(|node| node.try_wait()) {
            return Err(format!(
                "the node on {host} ended with {status}; is something else on its ports?"
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!(
        "the node on {host} does not answer within {START_SECONDS_MAX} s"
    ))
}

/// A node that ends is told of, with how to start it again; the others go on without it, which is what there is to see.
async fn all_ended(nodes: &mut [Child], folder: &Path) {
    let mut ended = [false; HOSTS.len()];
    while ended.contains(&false) {
        for (index, node) in nodes.iter_mut().enumerate() {
            if let (false, Ok(Some(status))) = (ended[index], node.try_wait()) {
                ended[index] = true;
                let (host, data) = (HOSTS[index], data_folder(folder, index));
                println!(
                    "The node on {host} ended ({status}). To start it again while the others run:"
                );
                println!(
                    "  tessera start --listen {host} --data-dir {}",
                    data.display()
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn data_folder(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("node{}", index + 1))
}

fn print(folder: &Path) {
    println!(
        "Three nodes, with their data in {} until they stop:",
        folder.display()
    );
    for host in HOSTS {
        println!(
            "  {host}   CQL :9042   DynamoDB :8000   Spanner :9010   console http://{host}:8080/"
        );
    }
    println!("Connect to any of them:");
    println!("  CQL       cqlsh {} 9042", HOSTS[0]);
    println!(
        "  DynamoDB  aws dynamodb list-tables --endpoint-url http://{}:8000",
        HOSTS[0]
    );
    println!("  Spanner   export SPANNER_EMULATOR_HOST={}:9010", HOSTS[0]);
    println!("See them: tessera status. Kill one, and see the others go on. Stop them: Ctrl-C.");
}

/// Asks a node to stop; one that does not is killed.
async fn stop(node: &mut Child) {
    if matches!(node.try_wait(), Ok(Some(_))) {
        return;
    }
    if let Some(pid) = node
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()))
    {
        let asked: io::Result<()> =
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(Into::into);
        if asked.is_ok()
            && tokio::time::timeout(Duration::from_secs(STOP_SECONDS_MAX), node.wait())
                .await
                .is_ok()
        {
            return;
        }
    }
    if let Err(error) = node.kill().await {
        eprintln!("tessera: a node could not be stopped: {error}");
    }
}
