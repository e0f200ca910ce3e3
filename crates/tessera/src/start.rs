//! `tessera start`: the composition root. The order matters: ports are taken first, so that the node can tell
//! others what they are; doors open when the node serves; at the end they close before the node hands over its
//! leases and the storage lets go of its files.

use crate::options::{ClockSettings, Settings, StartOptions};
use crate::registry;
use crate::source::NodeSource;
use api::Database;
use node::{HintLimits, Node, RepairConfig, StrongConfig};
use prometheus_client::registry::Registry;
use serde_json::json;
use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use world::World;

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
const DOORS_TIMEOUT: Duration = Duration::from_secs(2);

pub fn run(options: StartOptions) -> Result<(), String> {
    let began = Instant::now();
    let settings = Settings::resolve(options)?;
    let filter = tracing_subscriber::EnvFilter::try_new(log_filter(&settings.log_level))
        .map_err(|error| format!("--log-level {:?}: {error}", settings.log_level))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .with_target(false)
        .init();
    if settings.end_with_parent {
        let death =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
        death.map_err(|error| format!("cannot follow the parent process: {error}"))?;
    }
    let temporary = match settings.is_ephemeral {
        true => {
            let made = tempfile::Builder::new().prefix("tessera-").tempdir();
            Some(made.map_err(|error| format!("no temporary directory: {error}"))?)
        }
        false => None,
    };
    let folder = match (&temporary, &settings.data_dir) {
        (Some(temporary), _) => temporary.path().to_owned(),
        (None, Some(folder)) => folder.clone(),
        (None, None) => PathBuf::from("tessera-data"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tessera")
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let ended = runtime.block_on(serve(&settings, &folder, began));
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// What is logged at a level. Below it, two libraries have something to say about every store that they open.
fn log_filter(level: &str) -> String {
    match level {
        "info" | "debug" => format!("{level},lsm_tree=warn,raft_engine=warn"),
        other => other.to_owned(),
    }
}

/// The doors' listeners, bound before the node starts.
struct Listeners {
    cql: TcpListener,
    dynamo: TcpListener,
    spanner: TcpListener,
    admin: TcpListener,
}

async fn bind(settings: &Settings, port: u16, name: &str) -> Result<TcpListener, String> {
    let address = SocketAddr::new(settings.listen, port);
    TcpListener::bind(address).await.map_err(|error| {
        format!("cannot listen on {address}: {error}; another port can be given with --{name}-port")
    })
}

fn port(listener: &TcpListener) -> Result<u16, String> {
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|error| error.to_string())
}

async fn serve(settings: &Settings, folder: &Path, began: Instant) -> Result<(), String> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let ports = settings.ports;
    let listeners = Listeners {
        cql: bind(settings, ports.cql, "cql").await?,
        dynamo: bind(settings, ports.dynamo, "dynamo").await?,
        spanner: bind(settings, ports.spanner, "spanner").await?,
        admin: bind(settings, ports.admin, "admin").await?,
    };
    let internode = SocketAddr::new(settings.listen, ports.internode);
    let advertised = SocketAddr::new(settings.advertise, ports.internode);
    let network = os::TcpNetwork::bind(internode, Some(advertised))
        .await
        .map_err(|error| {
            format!("cannot listen on {internode}: {error}; another port can be given with --internode-port")
        })?;
    let storage = open(settings, folder)?;
    let world = World {
        clock: Arc::new(match settings.clock {
            ClockSettings::Measured(source) => os::SystemClock::new(source),
            ClockSettings::Fixed { bound_ms } => {
                os::SystemClock::fixed(Duration::from_millis(bound_ms))
            }
        }),
        network,
        log: storage.log.clone(),
        stores: storage.stores.clone(),
        random: Arc::new(
            os::SystemRandom::new().map_err(|error| format!("no random bits: {error}"))?,
        ),
    };
    let config = node::Config {
        cluster_name: settings.cluster_name.clone(),
        join: resolve(&settings.join).await?,
        client_address: settings.advertise,
        cql_port: port(&listeners.cql)?,
        dynamo_port: port(&listeners.dynamo)?,
        spanner_port: port(&listeners.spanner)?,
        admin_port: port(&listeners.admin)?,
        data_center: settings.data_center.clone(),
        rack: settings.rack.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        replication_factor: settings.replication_factor,
        log_entries_kept: 0,
        strong: StrongConfig::default(),
        hints: HintLimits {
            age_max_seconds: settings.hint_window_seconds,
            ..HintLimits::default()
        },
        repair: RepairConfig {
            interval_ms: u64::from(settings.repair_interval_seconds) * 1_000,
            ..RepairConfig::default()
        },
        stream_bytes_per_second: settings.stream_bytes_per_second,
        ..node::Config::default()
    };
    let internode = world.network.local_address();
    let node = tokio::select! {
        started = Node::start(world, config.clone()) => started.map_err(|error| error.to_string())?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let (stop, _) = watch::channel(false);
    let mut doors = open_doors(listeners, &node, &storage, &stop);
    announce(settings, &config, internode, folder, &node, began);
    let ended = tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        Some(ended) = doors.join_next() => Err(match ended {
            Ok(Err(error)) => format!("a door closed: {error}"),
            Ok(Ok(())) => "a door closed".into(),
            Err(error) => format!("a door failed: {error}"),
        }),
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    let _ = tokio::time::timeout(DOORS_TIMEOUT, async {
        while doors.join_next().await.is_some() {}
    })
    .await;
    doors.abort_all();
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, node.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            "the node did not hand over within {} s",
            SHUTDOWN_TIMEOUT.as_secs()
        );
    }
    drop(node);
    storage.close();
    ended
}

fn open(settings: &Settings, folder: &Path) -> Result<storage::Storage, String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut options = storage::Options::default();
    options.stores.memtable_bytes = settings
        .memtable_bytes
        .unwrap_or(options.stores.memtable_bytes);
    options.stores.cache_bytes = settings.cache_bytes.unwrap_or(options.stores.cache_bytes);
    let storage = storage::open(folder, options).map_err(|error| error.to_string())?;
    for tail in &storage.torn_tails {
        tracing::info!(
            ?tail,
            "cut an unfinished write off the log's end, as a crash leaves it"
        );
    }
    Ok(storage)
}

/// Host names become addresses once, at start.
async fn resolve(names: &[String]) -> Result<Vec<SocketAddr>, String> {
    let mut addresses = Vec::new();
    for name in names {
        let found = tokio::net::lookup_host(name.as_str())
            .await
            .map_err(|error| format!("--join {name}: {error} (it wants HOST:PORT)"))?;
        addresses.extend(found);
    }
    Ok(addresses)
}

/// Resolves when the node is to stop.
fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut stopping = stop.subscribe();
    async move {
        // The sender outlives the doors; if it did not, that would be a stop too.
        let _ = stopping.wait_for(|stop| *stop).await;
    }
}

fn open_doors(
    listeners: Listeners,
    node: &Arc<Node>,
    storage: &storage::Storage,
    stop: &watch::Sender<bool>,
) -> JoinSet<io::Result<()>> {
    let database: Arc<dyn Database> = node.database();
    // One prefix for all: Prometheus knows other programs' `node_…`.
    let mut registry = Registry::with_prefix("tessera");
    node.metrics(&mut registry);
    registry::register(&mut registry, storage.metrics.clone());
    let (cql, dynamo, spanner) = (
        cql::Options::default(),
        dynamo::Options::default(),
        spanner::Options::default(),
    );
    cql.metrics.register(&mut registry);
    dynamo.metrics.register(&mut registry);
    spanner.metrics.register(&mut registry);
    let source = Arc::new(NodeSource { node: node.clone() });
    let mut doors = JoinSet::new();
    doors.spawn(cql::serve(
        listeners.cql,
        database.clone(),
        cql,
        stopped(stop),
    ));
    doors.spawn(dynamo::serve(
        listeners.dynamo,
        database.clone(),
        dynamo,
        stopped(stop),
    ));
    doors.spawn(spanner::serve(
        listeners.spanner,
        database,
        spanner,
        stopped(stop),
    ));
    doors.spawn(admin::serve(
        listeners.admin,
        source,
        Arc::new(registry),
        stopped(stop),
    ));
    doors
}

/// Tells whoever started the node where its doors are.
fn announce(
    settings: &Settings,
    config: &node::Config,
    internode: SocketAddr,
    folder: &Path,
    node: &Node,
    began: Instant,
) {
    let at = |port: u16| SocketAddr::new(settings.advertise, port).to_string();
    let (cql, dynamo, spanner) = (
        at(config.cql_port),
        at(config.dynamo_port),
        at(config.spanner_port),
    );
    let admin = at(config.admin_port);
    let mut out = io::stdout().lock();
    let told = if settings.is_ephemeral {
        let line = json!({
            "cql": cql,
            "dynamo": dynamo,
            "spanner": spanner,
            "admin": admin,
            "internode": internode.to_string(),
            "data_dir": folder.display().to_string(),
            "pid": std::process::id(),
        });
        writeln!(out, "{line}")
    } else {
        let (host, cql_port) = (settings.advertise, config.cql_port);
        writeln!(
            out,
            "Tessera {version}: node {node} of cluster \"{name}\", data in {folder}\n\
             \x20 CQL        {cql:<21} cqlsh {host} {cql_port}\n\
             \x20 DynamoDB   {dynamo:<21} aws dynamodb list-tables --endpoint-url http://{dynamo}\n\
             \x20 Spanner    {spanner:<21} export SPANNER_EMULATOR_HOST={spanner}\n\
             \x20 console    http://{admin}/\n\
             \x20 peers      {internode:<21} tessera start --join {internode}\n\
             up in {up} ms; Ctrl-C stops it",
            version = env!("CARGO_PKG_VERSION"),
            node = node.id(),
            name = node.status().cluster_name,
            folder = folder.display(),
            up = began.elapsed().as_millis(),
        )
    };
    if let Err(error) = told.and_then(|()| out.flush()) {
        tracing::warn!(%error, "nobody reads where the doors are");
    }
}
