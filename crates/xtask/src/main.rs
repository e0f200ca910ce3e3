//! The project's own chores, as `cargo xtask NAME`. No dependencies: it is built before everything else.

mod ci;
mod clients;
mod process;
mod tidy;

use process::Tally;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask NAME

  tidy                 crate edges, banned words, sizes of files and functions, links, formats
  test [FILTER]        all tests: Rust, then the official clients against the binary
  sim [OPTIONS]        clusters in the simulator; --help lists what it takes
  bench [OPTIONS]      load generators; --help lists what they take
  flights [--rows N]   the example: all flights of 2013 through the three doors
  ci                   everything that a change must pass";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let root = root();
    let ended = match name.as_str() {
        "tidy" => report(tidy::run(&root)),
        "test" => report(clients::test(&root, rest)),
        "ci" => report(ci::run(&root)),
        "flights" => report(clients::flights(&root, rest)),
        "sim" => process::cargo_run(&root, "sim", &["--package", "sim"], rest),
        "bench" => clients::bench(&root, rest),
        _ => Err(format!("there is no chore {name}\n\n{USAGE}")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Closes with the line that says how it went.
fn report(ended: Result<Tally, String>) -> Result<(), String> {
    let tally = ended?;
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 {
        return Err("something failed; it is named above".into());
    }
    Ok(())
}

/// The repository's root: two folders above this package.
fn root() -> PathBuf {
    // As cargo says it now: what is built may be shared by several checkouts.
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.ancestors().nth(2).unwrap_or(&package).to_owned()
}
