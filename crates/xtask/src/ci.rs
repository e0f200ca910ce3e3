//! Everything that a change must pass, cheapest first, with the time that each part takes.

use crate::process::{Tally, cargo, count};
use crate::{clients, tidy};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Seeds that each run of the simulator's workloads takes.
const SEEDS: &str = "300";

pub fn run(root: &Path) -> Result<Tally, String> {
    let mut all = Tally::default();
    let mut summary = Vec::new();
    let mut section = |name: &'static str, run: &dyn Fn() -> Result<Tally, String>| {
        println!("\n==== {name}");
        let began = Instant::now();
        let tally = run().unwrap_or_else(|error| {
            println!("{error}");
            Tally::one(false)
        });
        all.add(tally);
        summary.push(format!(
            "{name:<28} {:>5} passed {:>3} failed {:>7.0} s",
            tally.passed,
            tally.failed,
            began.elapsed().as_secs_f64()
        ));
    };
    section("format", &|| {
        check(cargo(root).args(["fmt", "--all", "--check"]))
    });
    section("tidy", &|| tidy::run(root));
    section("clippy", &|| {
        check(cargo(root).args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]))
    });
    section("unit and golden tests", &|| clients::rust(root, &[]));
    section("simulation", &|| simulate(root, &["--seeds", SEEDS]));
    section("planted bugs", &|| simulate(root, &["--check-bugs"]));
    section("official clients", &|| clients::suites(root, &[]));
    section("example: flights", &|| {
        clients::flights(root, &["--rows".into(), "20000".into()])
    });
    println!("\n{}", summary.join("\n"));
    Ok(all)
}

fn simulate(root: &Path, arguments: &[&str]) -> Result<Tally, String> {
    let run = ["run", "--quiet", "--package", "sim", "--bin", "sim", "--"];
    count(cargo(root).args(run).args(arguments))
}

/// A command that passes or fails as a whole.
fn check(command: &mut Command) -> Result<Tally, String> {
    Ok(Tally::one(
        crate::process::succeed(command)
            .map_err(|error| println!("{error}"))
            .is_ok(),
    ))
}
