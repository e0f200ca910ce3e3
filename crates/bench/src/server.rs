//! The servers under test: started here as child processes, or somebody else's, known by their process id.

use serde::Deserialize;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What `tessera start --ephemeral` prints.
#[derive(Clone, Debug, Deserialize)]
pub struct Addresses {
    pub cql: String,
    pub dynamo: String,
    pub spanner: String,
    pub internode: String,
}

/// One running node. Dropping it stops it.
pub struct Server {
    child: Child,
    pub addresses: Addresses,
}

pub struct Start<'a> {
    pub binary: &'a Path,
    /// The address that all doors listen on; nodes of one cluster need one each.
    pub listen: &'a str,
    pub join: Option<&'a str>,
    /// The command that runs the binary, such as a profiler; empty for none.
    pub wrapper: &'a [String],
}

impl Server {
    pub fn start(options: &Start) -> io::Result<Server> {
        let mut words: Vec<PathBuf> = options.wrapper.iter().map(PathBuf::from).collect();
        words.push(options.binary.to_owned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["start", "--ephemeral", "--listen", options.listen]);
        if let Some(join) = options.join {
            command.args(["--join", join]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("the server has no standard output"))?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let addresses = serde_json::from_str(&line).map_err(|error| {
            io::Error::other(format!(
                "the server's first line is not its addresses: {error}: {line:?}"
            ))
        });
        match addresses {
            Ok(addresses) => Ok(Server { child, addresses }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> io::Result<()> {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Seconds of processor time (user and system, all threads) that a process has used so far.
pub fn cpu_seconds(process: u32) -> io::Result<f64> {
    /// Clock ticks a second: fixed by the kernel's interface to user space.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is a name in parentheses, which may hold anything.
    let fields = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest)
        .unwrap_or_default();
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Bytes of memory that a process has resident.
pub fn resident_bytes(process: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap_or_default();
    let kib = line
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or_default();
    Ok(kib << 10)
}
