//! `sim`: runs seeds, replays one, or shows that the checkers find planted bugs.

mod hunt;

use clap::Parser;
use sim::{Lines, Report, Strikes, Workload, run};
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use world::planted::Bug;

/// Of so many seeds one is run twice, to see that it is the same run.
const DETERMINISM_EVERY: u64 = 100;
/// As large as a main thread's.
const THREAD_STACK_BYTES: usize = 8 << 20;

/// Runs whole clusters in simulated time, with faults, from seeds.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    /// Run this one seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Run so many seeds per workload.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Its name; all of them if not said.
    #[arg(long)]
    workload: Option<Workload>,
    /// Run on so many threads; on all cores if not said.
    #[arg(long)]
    threads: Option<usize>,
    /// Print what happens, in readable lines.
    #[arg(long)]
    trace: bool,
    /// Plant this bug, by its name (see `--list-bugs`).
    #[arg(long)]
    bug: Option<String>,
    /// Plant each bug in turn, and look for a seed that shows it.
    #[arg(long)]
    find_bugs: bool,
    /// Plant each bug in turn, and see that it is found where the list of them says, or soon behind, and nothing
    /// without it.
    #[arg(long)]
    check_bugs: bool,
    /// Say which bugs can be planted.
    #[arg(long)]
    list_bugs: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .init();
    }
    sim::watch_panics();
    if arguments.list_bugs {
        for bug in Bug::ALL {
            println!("{bug:?}");
        }
        return ExitCode::SUCCESS;
    }
    let bug = match arguments.bug.as_deref().map(find_bug) {
        Some(Err(message)) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
        Some(Ok(bug)) => Some(bug),
        None => None,
    };
    let all_is_well = match (arguments.check_bugs, arguments.find_bugs, arguments.seed) {
        (true, _, _) => hunt::check(arguments.threads),
        (false, true, _) => hunt::find_all(bug, arguments.threads),
        (false, false, Some(seed)) => replay(&arguments, seed, bug),
        (false, false, None) => run_many(&arguments, bug),
    };
    if all_is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn find_bug(name: &str) -> Result<Bug, String> {
    Bug::ALL
        .iter()
        .copied()
        .find(|bug| format!("{bug:?}").eq_ignore_ascii_case(name))
        .ok_or_else(|| format!("no bug is called {name}: see --list-bugs"))
}

fn workloads(chosen: Option<Workload>) -> Vec<Workload> {
    match chosen {
        Some(workload) => vec![workload],
        None => Workload::ALL.to_vec(),
    }
}

fn replay(arguments: &Arguments, seed: u64, bug: Option<Bug>) -> bool {
    let lines = if arguments.trace {
        Lines::Printed
    } else {
        Lines::Dropped
    };
    let mut failed = 0;
    let mut passed = 0;
    for workload in workloads(arguments.workload) {
        let report = run(seed, workload, bug, lines);
        println!("{}", summary(&report));
        match &report.failure {
            Some(_) => failed += 1,
            None => passed += 1,
        }
        complain(&report);
    }
    println!("{passed} passed, {failed} failed");
    failed == 0
}

fn run_many(arguments: &Arguments, bug: Option<Bug>) -> bool {
    let (mut passed, mut failed) = (0, 0);
    for workload in workloads(arguments.workload) {
        let mut total = Total::default();
        let run_one = |job: u64| {
            let mut report = run(arguments.first + job, workload, bug, Lines::Dropped);
            if report.failure.is_none() && job.is_multiple_of(DETERMINISM_EVERY) {
                let again = run(report.seed, workload, bug, Lines::Dropped);
                if again.hash != report.hash {
                    report.failure = Some(format!(
                        "two runs differ: {:016x} ({} events) and {:016x} ({} events)",
                        report.hash, report.events, again.hash, again.events
                    ));
                }
            }
            report
        };
        in_parallel(arguments.seeds, arguments.threads, run_one, |report| {
            if arguments.trace || report.failure.is_some() {
                println!("{}", summary(&report));
            }
            match &report.failure {
                Some(_) => failed += 1,
                None => passed += 1,
            }
            complain(&report);
            total.add(&report);
            Next::GoOn
        });
        println!("{workload}: {total}");
    }
    println!("{passed} passed, {failed} failed");
    failed == 0
}

enum Next {
    GoOn,
    Enough,
}

/// Does the jobs `0..jobs` on several threads, one job on one thread from beginning to end, and hands their results
/// over in order.
fn in_parallel<T: Send>(
    jobs: u64,
    threads: Option<usize>,
    work: impl Fn(u64) -> T + Sync,
    mut take: impl FnMut(T) -> Next,
) {
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicU64::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.unwrap_or_else(cores) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            let thread = std::thread::Builder::new().stack_size(THREAD_STACK_BYTES);
            let working = move || {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs || sender.send((job, work(job))).is_err() {
                        break;
                    }
                }
            };
            thread
                .spawn_scoped(scope, working)
                .expect("a machine that simulates has threads");
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut due = 0;
        for (job, result) in receiver {
            early.insert(job, result);
            while let Some(result) = early.remove(&due) {
                due += 1;
                if let Next::Enough = take(result) {
                    next.store(jobs, Ordering::Relaxed);
                    return;
                }
            }
        }
    });
}

/// What all seeds of a workload came to, to see that the faults have struck and the clients got somewhere.
#[derive(Default)]
struct Total {
    answered: u64,
    refused: u64,
    unknown: u64,
    simulated_seconds: f64,
    strikes: Strikes,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.answered += report.counts.succeeded;
        self.refused += report.counts.refused;
        self.unknown += report.counts.unknown;
        self.simulated_seconds += report.simulated.as_secs_f64();
        for (fault, count) in &report.strikes {
            *self.strikes.entry(*fault).or_default() += count;
        }
    }
}

impl fmt::Display for Total {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} operations answered, {} refused, {} with unknown outcome, in {:.0} simulated s under {:?}",
            self.answered, self.refused, self.unknown, self.simulated_seconds, self.strikes
        )
    }
}

fn summary(report: &Report) -> String {
    let strikes: Vec<String> = report
        .strikes
        .iter()
        .map(|(fault, count)| format!("{fault:?} {count}"))
        .collect();
    format!(
        "seed {} {}: {} answered, {} refused, {} unknown; {} messages; {:.1} s simulated; {} events, hash {:016x}; {}",
        report.seed,
        report.workload,
        report.counts.succeeded,
        report.counts.refused,
        report.counts.unknown,
        report.messages.delivered,
        report.simulated.as_secs_f64(),
        report.events,
        report.hash,
        strikes.join(", "),
    )
}

fn complain(report: &Report) {
    if let Some(failure) = &report.failure {
        println!("FAILED: {failure}\n  replay: {}", report.replay_command());
    }
}
