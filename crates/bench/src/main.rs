//! Load generators for the three doors, and runs that report throughput, latency and the servers' processor
//! time. `--address` points at any server that speaks the protocol; without it, the release binary is started
//! on loopback for the run.

mod alarm;
mod door;
mod keys;
mod load;
mod report;
mod server;

use clap::{Parser, ValueEnum};
use door::{cql, dynamo, spanner};
use load::{Plan, Schedule, Tally};
use report::Report;
use server::{Server, Start};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Door {
    Cql,
    Dynamo,
    Spanner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Durability {
    Synced,
    Periodic,
}

#[derive(Clone, Debug, Parser)]
#[command(
    name = "bench",
    about = "Measures a door of Tessera, or any server that speaks its protocol"
)]
struct Options {
    /// The doors to measure, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["cql", "dynamo", "spanner"])]
    door: Vec<Door>,
    /// A server that is running already, as HOST:PORT; give one door with it. Several: connections are spread
    #[arg(long, value_delimiter = ',')]
    address: Vec<String>,
    /// Process ids of servers given by --address, for their processor time
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// Nodes to start where no address is given
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// The binary to start
    #[arg(long, default_value = "target/release/tessera")]
    binary: PathBuf,
    /// Shares of reads in percent, one run each
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100])]
    reads: Vec<u32>,
    /// Seconds measured in each run
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Seconds before that
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Exactly so many operations instead, without a warm-up
    #[arg(long)]
    operations: Option<u64>,
    /// Operations per second; without it, a closed loop
    #[arg(long)]
    rate: Option<f64>,
    /// Connections
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests under way on each connection (DynamoDB: that many connections more)
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// Different keys
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Popular keys come up more often (exponent 0.99) instead of all alike
    #[arg(long)]
    zipfian: bool,
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// CQL keyspaces: when a write is acknowledged
    #[arg(long, value_enum, default_value = "periodic")]
    durability: Durability,
    /// CQL: ONE is 1, QUORUM is 4, LOCAL_QUORUM is 6
    #[arg(long, default_value_t = 1)]
    consistency: u16,
    /// Spanner: a write is a transaction that adds to a row in each of so many tables, one tablet each
    #[arg(long, default_value_t = 0)]
    participants: usize,
    /// CQL: the options of CREATE KEYSPACE, for servers other than Tessera
    #[arg(long)]
    keyspace_options: Option<String>,
    /// Runs the server under this command, such as `valgrind --tool=callgrind`
    #[arg(long, value_delimiter = ' ')]
    wrapper: Vec<String>,
    /// Writes the reports as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    // One thread: the generator is to take as little of the machine as it can.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let reports = runtime.block_on(run(&options))?;
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&reports)?)?;
    }
    Ok(())
}

async fn run(options: &Options) -> io::Result<Vec<Report>> {
    let mut servers = Vec::new();
    if options.address.is_empty() {
        servers = start(options).await?;
    } else if options.door.len() != 1 {
        return Err(io::Error::other("--address needs exactly one --door"));
    }
    let pids: Vec<u32> = match servers.is_empty() {
        true => options.pid.clone(),
        false => servers.iter().map(Server::id).collect(),
    };
    println!("{}", Report::heading());
    let mut reports = Vec::new();
    for door in &options.door {
        let addresses: Vec<String> = match servers.is_empty() {
            true => options.address.clone(),
            false => servers
                .iter()
                .map(|server| address_of(server, *door))
                .collect(),
        };
        prepare(*door, &addresses, options).await?;
        for share in &options.reads {
            let report = measure(*door, &addresses, &pids, *share, options).await?;
            println!("{}", report.lines());
            reports.push(report);
        }
    }
    for server in servers.into_iter().rev() {
        server.stop()?;
    }
    Ok(reports)
}

fn address_of(server: &Server, door: Door) -> String {
    match door {
        Door::Cql => server.addresses.cql.clone(),
        Door::Dynamo => server.addresses.dynamo.clone(),
        Door::Spanner => server.addresses.spanner.clone(),
    }
}

async fn start(options: &Options) -> io::Result<Vec<Server>> {
    let mut servers: Vec<Server> = Vec::new();
    for index in 0..options.nodes {
        let listen = format!("127.0.0.{}", index + 1);
        let join = servers
            .first()
            .map(|first| first.addresses.internode.clone());
        servers.push(Server::start(&Start {
            binary: &options.binary,
            listen: &listen,
            join: join.as_deref(),
            wrapper: &options.wrapper,
        })?);
    }
    if options.nodes > 1 {
        // Groups grow to their replication factor in the background once the last node is there.
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    Ok(servers)
}

fn cql_settings(options: &Options) -> cql::Settings {
    let factor = options.nodes.min(3);
    let durability = match options.durability {
        Durability::Synced => "synced",
        Durability::Periodic => "periodic",
    };
    let usual = format!(
        "WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': {factor}}} AND durability = '{durability}'"
    );
    cql::Settings {
        keyspace: "bench".into(),
        keyspace_options: options.keyspace_options.clone().unwrap_or(usual),
        consistency: options.consistency,
        in_flight: options.in_flight,
        value_bytes: options.value_bytes,
    }
}

fn dynamo_settings(options: &Options) -> dynamo::Settings {
    dynamo::Settings {
        table: "bench".into(),
        value_bytes: options.value_bytes,
        is_consistent: true,
    }
}

fn spanner_settings(options: &Options) -> spanner::Settings {
    spanner::Settings {
        database: "bench-load".into(),
        value_bytes: options.value_bytes,
        participants: options.participants,
        keys: options.keys,
    }
}

/// Makes the table, and writes every key once where reads are to find them.
async fn prepare(door: Door, addresses: &[String], options: &Options) -> io::Result<()> {
    let address = &addresses[0];
    match door {
        Door::Cql => cql::create(address, &cql_settings(options)).await?,
        Door::Dynamo => dynamo::create(address, &dynamo_settings(options)).await?,
        Door::Spanner => spanner::create(address, &spanner_settings(options)).await?,
    }
    if options.reads.iter().any(|share| *share > 0) && options.operations.is_none() {
        let plan = Plan {
            operations: Some(options.keys),
            rate: None,
            read_permille: 0,
            is_sequential: true,
            ..plan(0, options)
        };
        let (tally, _) = drive(door, addresses, &plan, options).await?;
        if tally.failures > 0 {
            let failures = tally.failures;
            return Err(io::Error::other(format!(
                "{failures} of the rows to be read could not be written"
            )));
        }
    }
    Ok(())
}

fn plan(reads_percent: u32, options: &Options) -> Plan {
    Plan {
        warm_up: Duration::from_secs_f64(options.warm_up),
        duration: Duration::from_secs_f64(options.seconds),
        operations: options.operations,
        rate: options.rate,
        read_permille: reads_percent * 10,
        key_count: options.keys,
        is_zipfian: options.zipfian,
        is_sequential: false,
        seed: options.seed,
    }
}

async fn measure(
    door: Door,
    addresses: &[String],
    pids: &[u32],
    reads_percent: u32,
    options: &Options,
) -> io::Result<Report> {
    let plan = plan(reads_percent, options);
    let before = tokio::spawn({
        let (pids, warm_up) = (pids.to_vec(), plan.warm_up);
        async move {
            tokio::time::sleep(START_DELAY + warm_up).await;
            cpu_of(&pids)
        }
    });
    let (tally, elapsed) = drive(door, addresses, &plan, options).await?;
    let after = cpu_of(pids);
    let measured = match options.operations {
        Some(_) => elapsed,
        None => plan.duration,
    };
    let mut report = Report::new(
        format!("{door:?} {reads_percent}% reads").to_lowercase(),
        &tally,
        measured,
    );
    if !pids.is_empty() {
        let resident = pids
            .iter()
            .filter_map(|pid| server::resident_bytes(*pid).ok())
            .sum();
        report.set_server(after - before.await.map_err(io::Error::other)?, resident);
    }
    Ok(report)
}

/// Connections are made first and begin together, this much later.
const START_DELAY: Duration = Duration::from_millis(100);

/// Runs a plan on all connections. Also returns how long it took.
async fn drive(
    door: Door,
    addresses: &[String],
    plan: &Plan,
    options: &Options,
) -> io::Result<(Tally, Duration)> {
    let mut running = JoinSet::new();
    let begin = Instant::now() + START_DELAY;
    let lanes = connections(door, options);
    for index in 0..lanes {
        let address = &addresses[index % addresses.len()];
        let schedule = Schedule::new(plan, begin, index, lanes);
        match door {
            Door::Cql => {
                let (stream, wire) = cql::connect(address, &cql_settings(options)).await?;
                running.spawn(load::drive(stream, wire, schedule));
            }
            Door::Dynamo => {
                let (stream, wire) = dynamo::connect(address, &dynamo_settings(options)).await?;
                running.spawn(load::drive(stream, wire, schedule));
            }
            Door::Spanner if index % options.in_flight == 0 => {
                let count = options.in_flight;
                let sessions =
                    spanner::Spanner::connect(address, &spanner_settings(options), count).await?;
                for (lane, session) in sessions.into_iter().enumerate() {
                    running.spawn(session.drive(Schedule::new(plan, begin, index + lane, lanes)));
                }
            }
            // This lane shares the connection that the first of its group has made.
            Door::Spanner => {}
        }
    }
    let mut tally = Tally::new();
    while let Some(finished) = running.join_next().await {
        tally.add(&finished.map_err(io::Error::other)??);
    }
    Ok((tally, begin.elapsed()))
}

/// How many connections (and for gRPC, streams) keep requests under way.
fn connections(door: Door, options: &Options) -> usize {
    match door {
        Door::Cql => options.connections,
        Door::Dynamo | Door::Spanner => options.connections * options.in_flight,
    }
}

fn cpu_of(pids: &[u32]) -> f64 {
    pids.iter()
        .filter_map(|pid| server::cpu_seconds(*pid).ok())
        .sum()
}
