//! The command line and the configuration file. Both have the same names; the command line wins.

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use world::ClockSource;

#[derive(Parser)]
#[command(
    name = "tessera",
    version,
    about = "A distributed database with Cassandra's, DynamoDB's and Spanner's front doors",
    long_about = "A distributed database with Cassandra's, DynamoDB's and Spanner's front doors.\n\n\
                  Without a command: `tessera start`, one node on loopback with its data in ./tessera-data."
)]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Runs a node until Ctrl-C or SIGTERM
    Start(Box<StartOptions>),
    /// Runs three nodes on 127.0.0.1, 127.0.0.2 and 127.0.0.3, with data that goes when they stop
    Demo,
    /// Shows nodes, tablets, leases and health
    Status(AdminOptions),
    /// Cuts a tablet in two, before the partition or the root row of a key
    Split(SplitOptions),
    /// Changes a setting of the cluster; `tessera status` shows them
    Set(SetOptions),
    /// Lists the nodes, and takes them out of the cluster
    Node(NodeOptions),
    /// Repairs eventual tables: compares their replicas and brings each what it lacks
    Repair(RepairOptions),
    /// Looks on until all tables have the copies that their replication asks for in each data centre
    Rebuild(RebuildOptions),
    /// Prints the version
    Version,
}

impl Command {
    pub fn start() -> Command {
        Command::Start(Box::default())
    }
}

#[derive(Args)]
pub struct AdminOptions {
    /// The admin port of any node, as HOST:PORT
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub admin: String,
    /// Prints the JSON as it comes
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct SplitOptions {
    /// The admin port of any node, as HOST:PORT
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub admin: String,
    /// Keyspace or database
    pub namespace: String,
    pub table: String,
    /// The first primary key values of the right half, in the key's order
    #[arg(required = true)]
    pub key: Vec<String>,
}

#[derive(Args)]
pub struct NodeOptions {
    /// The admin port of any node, as HOST:PORT
    #[arg(long, default_value = "127.0.0.1:8080", global = true)]
    pub admin: String,
    #[command(subcommand)]
    pub command: NodeCommand,
}

#[derive(Subcommand)]
pub enum NodeCommand {
    /// Shows the nodes with what they hold
    List,
    /// Moves all that a node holds to others; when it is drained, stop it and remove it
    Decommission { node: u64 },
    /// Keeps a node that was to leave
    Recommission { node: u64 },
    /// Gives a node's place to another: its replicas move there, or are made anew there if it is dead
    Replace { node: u64, successor: u64 },
    /// Takes out a node that is drained, or dead for good: it cannot come back under its id
    Remove { node: u64 },
}

#[derive(Args)]
pub struct SetOptions {
    /// The admin port of any node, as HOST:PORT
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub admin: String,
    /// `replication_factor`, `split_size_bytes`, …
    pub name: String,
    pub value: u64,
}

#[derive(Args)]
pub struct RepairOptions {
    /// The admin port of any node, as HOST:PORT
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub admin: String,
    /// All eventual tables, if not given
    pub namespace: Option<String>,
    /// All of the keyspace, if not given
    pub table: Option<String>,
}

#[derive(Args)]
pub struct RebuildOptions {
    /// The admin port of any node, as HOST:PORT
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub admin: String,
    /// All keyspaces, if not given
    pub namespace: Option<String>,
}

/// What `tessera start` takes, on the command line and in the file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct StartOptions {
    /// A TOML file with these settings under the same names (`listen = "10.0.0.1"`)
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// For test suites: a temporary directory that goes at exit, free ports, one line of JSON that says them
    #[arg(long)]
    #[serde(skip)]
    pub ephemeral: bool,
    /// Where the data is [default: ./tessera-data]
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// The address that all ports listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<IpAddr>,
    /// The address that clients and other nodes reach this node at [default: the one it listens on]
    #[arg(long, value_name = "ADDRESS")]
    pub advertise: Option<IpAddr>,
    /// Internode address of a node of the cluster to join; may be given several times
    #[arg(long, value_name = "HOST:PORT")]
    pub join: Vec<String>,
    /// Where this node stands, such as dc=eu-west,rack=b [default: dc=datacenter1,rack=rack1]
    #[arg(long, value_name = "dc=…,rack=…")]
    pub locality: Option<String>,
    /// The cluster's name, as its founding node gives it [default: tessera]
    #[arg(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// Copies of a table that does not say, as the founding node gives it [default: 3]
    #[arg(long, value_name = "COPIES")]
    pub replication_factor: Option<u32>,
    /// What strong tables take the time from, the same on all nodes: `single`, one node's own clock; `cluster`, the
    /// time master's clock, which the others measure; `kernel`, this machine's, kept by a time daemon; `fixed`, this
    /// machine's, wrong by no more than --clock-bound-ms [default: single while there is one node, then cluster]
    #[arg(long, value_name = "SOURCE")]
    pub clock: Option<String>,
    /// How far this machine's clock may be from true time: your promise, with --clock fixed, which it implies
    #[arg(long, value_name = "MILLISECONDS")]
    pub clock_bound_ms: Option<u64>,
    /// Listens beyond loopback although neither clients nor nodes are authenticated or encrypted yet
    #[arg(long)]
    pub insecure: bool,
    /// Cassandra's native protocol [default: 9042]
    #[arg(long, value_name = "PORT")]
    pub cql_port: Option<u16>,
    /// DynamoDB's HTTP [default: 8000]
    #[arg(long, value_name = "PORT")]
    pub dynamo_port: Option<u16>,
    /// Spanner's gRPC [default: 9010]
    #[arg(long, value_name = "PORT")]
    pub spanner_port: Option<u16>,
    /// Health, metrics, state and commands over HTTP [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Between nodes [default: 7000]
    #[arg(long, value_name = "PORT")]
    pub internode_port: Option<u16>,
    /// Bytes of changes kept in memory over all tablets before they are flushed [default: 100663296]
    #[arg(long, value_name = "BYTES")]
    pub memtable_bytes: Option<u64>,
    /// Bytes of file blocks cached in memory [default: 67108864]
    #[arg(long, value_name = "BYTES")]
    pub cache_bytes: Option<u64>,
    /// How long writes that a node has missed are kept for it, in seconds; 0: not at all, only repair brings
    /// them [default: 10800]
    #[arg(long, value_name = "SECONDS")]
    pub hint_window_seconds: Option<u32>,
    /// Every tablet of an eventual table is repaired in the background once in so many seconds [default: 3600]
    #[arg(long, value_name = "SECONDS")]
    pub repair_interval_seconds: Option<u32>,
    /// How many bytes a second replicas of eventual tables here take over from others, when they are filled or when one
    /// leaves [default: 25165824]
    #[arg(long, value_name = "BYTES")]
    pub stream_bytes_per_second: Option<u64>,
    /// The least important messages to log: error, warn, info, debug, trace [default: info; ephemeral: warn]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Stops when the process that started it ends: `demo` starts its nodes so
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub end_with_parent: bool,
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Settings {
    pub is_ephemeral: bool,
    pub data_dir: Option<PathBuf>,
    pub listen: IpAddr,
    pub advertise: IpAddr,
    pub join: Vec<String>,
    pub data_center: String,
    pub rack: String,
    pub cluster_name: String,
    pub replication_factor: u32,
    pub ports: Ports,
    pub clock: ClockSettings,
    pub memtable_bytes: Option<u64>,
    pub cache_bytes: Option<u64>,
    pub hint_window_seconds: u32,
    pub repair_interval_seconds: u32,
    pub stream_bytes_per_second: u64,
    pub log_level: String,
    pub end_with_parent: bool,
}

/// Where the time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockSettings {
    /// From something that says itself how wrong it may be.
    Measured(ClockSource),
    /// From the wall clock, as somebody promises.
    Fixed { bound_ms: u64 },
}

impl ClockSettings {
    fn resolve(source: Option<&str>, bound_ms: Option<u64>) -> Result<ClockSettings, String> {
        let source = source.map(str::parse::<ClockSource>).transpose()?;
        match (source, bound_ms) {
            (None | Some(ClockSource::Fixed), Some(bound_ms)) => {
                Ok(ClockSettings::Fixed { bound_ms })
            }
            (Some(ClockSource::Fixed), None) => Err(
                "--clock fixed is your promise about this machine's clock: give --clock-bound-ms, the most by which \
                 it may be wrong (100 with an ordinary NTP daemon)"
                    .into(),
            ),
            (Some(source), Some(_)) => Err(format!(
                "--clock {source} finds out by itself how wrong the clock may be: leave out --clock-bound-ms"
            )),
            // A cluster of one node is its own time master.
            (source, None) => Ok(ClockSettings::Measured(
                source.unwrap_or(ClockSource::Cluster),
            )),
        }
    }
}

/// 0 is any free port.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub cql: u16,
    pub dynamo: u16,
    pub spanner: u16,
    pub admin: u16,
    pub internode: u16,
}

const REPLICATION_FACTOR: u32 = 3;
const REPLICATION_FACTOR_MAX: u32 = 9;
const HINT_WINDOW_SECONDS: u32 = 3 * 3_600;
const REPAIR_INTERVAL_SECONDS: u32 = 3_600;

impl Settings {
    /// Lays the command line over the file over the defaults.
    pub fn resolve(line: StartOptions) -> Result<Settings, String> {
        let file = match &line.config {
            Some(path) => read(path)?,
            None => StartOptions::default(),
        };
        let is_ephemeral = line.ephemeral;
        let port = |line: Option<u16>, file: Option<u16>, usual| {
            line.or(file)
                .unwrap_or(if is_ephemeral { 0 } else { usual })
        };
        let listen = line
            .listen
            .or(file.listen)
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let advertise = line.advertise.or(file.advertise).unwrap_or(listen);
        if !(listen.is_loopback() || line.insecure || file.insecure) {
            return Err(format!(
                "{listen} can be reached from other machines, and neither clients nor nodes are authenticated or \
                 encrypted yet; if the network around it is trusted, add --insecure"
            ));
        }
        let clock = ClockSettings::resolve(
            line.clock.as_deref().or(file.clock.as_deref()),
            line.clock_bound_ms.or(file.clock_bound_ms),
        )?;
        if advertise.is_unspecified() {
            return Err(format!(
                "{advertise} is no address to be reached at: give one with --advertise"
            ));
        }
        let locality = line.locality.or(file.locality);
        let (data_center, rack) = parse_locality(locality.as_deref().unwrap_or_default())?;
        let replication_factor = line
            .replication_factor
            .or(file.replication_factor)
            .unwrap_or(REPLICATION_FACTOR);
        if !(1..=REPLICATION_FACTOR_MAX).contains(&replication_factor) {
            return Err(format!(
                "a replication factor lies between 1 and {REPLICATION_FACTOR_MAX}"
            ));
        }
        let data_dir = line.data_dir.or(file.data_dir);
        if is_ephemeral && data_dir.is_some() {
            return Err("--ephemeral has a directory of its own: leave out --data-dir".into());
        }
        let log_level = line.log_level.or(file.log_level);
        Ok(Settings {
            is_ephemeral,
            data_dir,
            listen,
            advertise,
            join: if line.join.is_empty() {
                file.join
            } else {
                line.join
            },
            data_center,
            rack,
            cluster_name: line
                .cluster_name
                .or(file.cluster_name)
                .unwrap_or_else(|| "tessera".into()),
            replication_factor,
            ports: Ports {
                cql: port(line.cql_port, file.cql_port, 9042),
                dynamo: port(line.dynamo_port, file.dynamo_port, 8000),
                spanner: port(line.spanner_port, file.spanner_port, 9010),
                admin: port(line.admin_port, file.admin_port, 8080),
                internode: port(line.internode_port, file.internode_port, 7000),
            },
            clock,
            memtable_bytes: line.memtable_bytes.or(file.memtable_bytes),
            cache_bytes: line.cache_bytes.or(file.cache_bytes),
            hint_window_seconds: line
                .hint_window_seconds
                .or(file.hint_window_seconds)
                .unwrap_or(HINT_WINDOW_SECONDS),
            repair_interval_seconds: line
                .repair_interval_seconds
                .or(file.repair_interval_seconds)
                .unwrap_or(REPAIR_INTERVAL_SECONDS)
                .max(1),
            stream_bytes_per_second: line
                .stream_bytes_per_second
                .or(file.stream_bytes_per_second)
                .unwrap_or(node::STREAM_BYTES_PER_SECOND)
                .max(1),
            log_level: log_level
                .unwrap_or_else(|| if is_ephemeral { "warn" } else { "info" }.into()),
            end_with_parent: line.end_with_parent,
        })
    }
}

fn read(path: &Path) -> Result<StartOptions, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// `dc=…,rack=…`, either or both.
fn parse_locality(text: &str) -> Result<(String, String), String> {
    let (mut data_center, mut rack) = ("datacenter1".to_owned(), "rack1".to_owned());
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        match part
            .split_once('=')
            .map(|(name, value)| (name.trim(), value.trim()))
        {
            Some(("dc", value)) if !value.is_empty() => data_center = value.into(),
            Some(("rack", value)) if !value.is_empty() => rack = value.into(),
            _ => return Err(format!("a locality is dc=NAME,rack=NAME, not {text:?}")),
        }
    }
    Ok((data_center, rack))
}

#[cfg(test)]
mod tests {
    use super::{ClockSettings, CommandLine, Settings, StartOptions};
    use clap::CommandFactory;
    use std::io::Write;
    use world::ClockSource;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn help_tells_the_defaults_of_the_stores() {
        let stores = storage::StoreOptions::default();
        let start = CommandLine::command();
        let start = start.find_subcommand("start").unwrap();
        for (name, bytes) in [
            ("memtable-bytes", stores.memtable_bytes),
            ("cache-bytes", stores.cache_bytes),
        ] {
            let mut arguments = start.get_arguments();
            let argument = arguments.find(|one| one.get_long() == Some(name)).unwrap();
            let help = argument.get_help().unwrap().to_string();
            assert!(help.contains(&format!("[default: {bytes}]")), "{help}");
        }
    }

    #[test]
    fn the_command_line_wins_over_the_file_over_the_defaults() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(
            b"cql-port = 19042\nlocality = \"dc=eu\"\njoin = [\"a:7000\"]\nadmin-port = 1\n",
        )
        .unwrap();
        let line = StartOptions {
            config: Some(file.path().into()),
            admin_port: Some(2),
            ..StartOptions::default()
        };
        let settings = Settings::resolve(line).unwrap();
        assert_eq!(
            (
                settings.ports.cql,
                settings.ports.admin,
                settings.ports.dynamo
            ),
            (19042, 2, 8000)
        );
        assert_eq!(
            (settings.data_center.as_str(), settings.rack.as_str()),
            ("eu", "rack1")
        );
        assert_eq!(settings.join, ["a:7000"]);
    }

    #[test]
    fn unknown_settings_and_open_addresses_are_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"cql-prot = 1\n").unwrap();
        let line = StartOptions {
            config: Some(file.path().into()),
            ..StartOptions::default()
        };
        assert!(Settings::resolve(line).unwrap_err().contains("cql-prot"));
        let listen = Some("0.0.0.0".parse().unwrap());
        let line = StartOptions {
            listen,
            ..StartOptions::default()
        };
        assert!(
            Settings::resolve(line.clone())
                .unwrap_err()
                .contains("--insecure")
        );
        let line = StartOptions {
            insecure: true,
            ..line
        };
        assert!(Settings::resolve(line).unwrap_err().contains("--advertise"));
        let locality = Some("zone=1".to_owned());
        let line = StartOptions {
            locality,
            ..StartOptions::default()
        };
        assert!(Settings::resolve(line).unwrap_err().contains("dc=NAME"));
    }

    #[test]
    fn the_clock_needs_no_promise_but_with_the_source_fixed() {
        let resolve = |clock: Option<&str>, clock_bound_ms| {
            let clock = clock.map(str::to_owned);
            let line = StartOptions {
                clock,
                clock_bound_ms,
                ..StartOptions::default()
            };
            Settings::resolve(line).map(|settings| settings.clock)
        };
        let cluster = ClockSettings::Measured(ClockSource::Cluster);
        assert_eq!(resolve(None, None), Ok(cluster));
        let single = ClockSettings::Measured(ClockSource::Single);
        assert_eq!(resolve(Some("single"), None), Ok(single));
        let fixed = ClockSettings::Fixed { bound_ms: 100 };
        assert_eq!(resolve(None, Some(100)), Ok(fixed));
        assert_eq!(resolve(Some("fixed"), Some(100)), Ok(fixed));
        assert!(
            resolve(Some("fixed"), None)
                .unwrap_err()
                .contains("--clock-bound-ms")
        );
        assert!(resolve(Some("kernel"), Some(1)).is_err());
        assert!(
            resolve(Some("sundial"), None)
                .unwrap_err()
                .contains("sundial")
        );
    }

    #[test]
    fn an_ephemeral_node_takes_free_ports() {
        let line = StartOptions {
            ephemeral: true,
            ..StartOptions::default()
        };
        assert_eq!(Settings::resolve(line).unwrap().ports.cql, 0);
    }
}
