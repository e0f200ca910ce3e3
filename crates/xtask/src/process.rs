//! Running programs: their output passes through, and the closing lines of test runners are counted.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
}

impl Tally {
    pub fn one(is_success: bool) -> Tally {
        Tally {
            passed: u64::from(is_success),
            failed: u64::from(!is_success),
        }
    }

    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// The cargo that runs this.
pub fn cargo(root: &Path) -> Command {
    let mut command =
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root);
    command
}

/// Where cargo puts what it builds.
pub fn target(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root.join(target),
        None => root.join("target"),
    }
}

/// Runs a binary of the workspace with the caller's arguments.
pub fn cargo_run(
    root: &Path,
    binary: &str,
    selection: &[&str],
    arguments: &[String],
) -> Result<(), String> {
    let mut command = cargo(root);
    command
        .args(["run", "--quiet"])
        .args(selection)
        .args(["--bin", binary, "--"])
        .args(arguments);
    succeed(&mut command)
}

/// Runs a program that must succeed.
pub fn succeed(command: &mut Command) -> Result<(), String> {
    let shown = show(command);
    let status = command
        .status()
        .map_err(|error| format!("{shown}: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{shown} ended with {status}")),
    }
}

/// Runs a test runner and counts by its closing lines. One that fails without a count is one failure.
pub fn count(command: &mut Command) -> Result<Tally, String> {
    let shown = show(command);
    println!("$ {shown}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|error| format!("{shown}: {error}"))?;
            println!("{line}");
            tally.add(closing_line(&line).unwrap_or_default());
        }
    }
    let status = child.wait().map_err(|error| format!("{shown}: {error}"))?;
    if !status.success() && tally.failed == 0 {
        println!("{shown} ended with {status}");
        tally.failed = 1;
    }
    Ok(tally)
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The counts of a line that closes a run: cargo test's, pytest's, or the plain one.
fn closing_line(line: &str) -> Option<Tally> {
    let line = line.trim().trim_matches('=').trim();
    let is_cargo = line.starts_with("test result:");
    let is_pytest = line.contains(" in ") && line.ends_with('s');
    let is_plain = line.ends_with(" failed") && line.contains(" passed, ");
    let is_pytest_timed = is_pytest || (line.contains("s (") && line.ends_with(')'));
    if !(is_cargo || is_plain || is_pytest_timed) {
        return None;
    }
    let words: Vec<&str> = line
        .split([' ', ',', ';'])
        .filter(|word| !word.is_empty())
        .collect();
    let before = |name: &[&str]| {
        let at = words.iter().position(|word| name.contains(word))?;
        words[..at].last()?.parse::<u64>().ok()
    };
    let (passed, failed) = (before(&["passed"]), before(&["failed"]));
    let errors = before(&["error", "errors"]);
    passed.or(failed).or(errors)?;
    Some(Tally {
        passed: passed.unwrap_or(0),
        failed: failed.unwrap_or(0) + errors.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::{Tally, closing_line};

    #[test]
    fn closing_lines_are_counted() {
        let tally = |passed, failed| Some(Tally { passed, failed });
        let cargo = "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(closing_line(cargo), tally(3, 1));
        assert_eq!(
            closing_line("===== 2 failed, 5 passed, 1 warning in 3.21s ====="),
            tally(5, 2)
        );
        assert_eq!(
            closing_line("== 5 passed in 63.21s (0:01:03) =="),
            tally(5, 0)
        );
        assert_eq!(closing_line("1 error in 0.10s"), tally(0, 1));
        assert_eq!(closing_line("120 passed, 0 failed"), tally(120, 0));
        assert_eq!(closing_line("a test that passed in 3 s"), None);
        assert_eq!(closing_line("nothing to see"), None);
    }
}
