//! One seed, from the empty cluster to the verdict.

use crate::cluster::Cluster;
use crate::disk;
use crate::nemesis::Strikes;
use crate::network::{SimNetwork, Statistics};
use crate::plan::{Plan, Script};
use crate::trace::{Lines, Trace};
use crate::workload::{self, Counts, Workload};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::cell::Cell;
use std::time::Duration;
use world::planted::{self, Bug};

/// No run takes longer, in simulated time.
const RUN_SECONDS_MAX: u64 = 600;

thread_local! {
    /// Tasks that panicked on this thread: a node's panic fails the run that it belongs to.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub workload: Workload,
    pub bug: Option<Bug>,
    /// Equal for every run of one seed.
    pub hash: u64,
    pub events: u64,
    pub counts: Counts,
    pub strikes: Strikes,
    pub messages: Statistics,
    /// Simulated time that it took.
    pub simulated: Duration,
    pub failure: Option<String>,
    pub lines: Vec<String>,
}

impl Report {
    pub fn replay_command(&self) -> String {
        let bug = match self.bug {
            Some(bug) => format!(" --bug {bug:?}"),
            None => String::new(),
        };
        format!(
            "cargo xtask sim --seed {} --workload {}{bug}",
            self.seed, self.workload
        )
    }
}

/// Counts panics from now on, and says them once each.
pub fn watch_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // A node that crashes while it starts has tasks that go on until the start has heard of it: none of theirs
        // counts any more.
        if panic.to_string().contains(disk::CRASHED) {
            return;
        }
        PANICS.set(PANICS.get() + 1);
        before(panic);
    }));
}

/// Runs one seed on this thread.
pub fn run(seed: u64, workload: Workload, bug: Option<Bug>, lines: Lines) -> Report {
    run_one(seed, workload, script_of(seed, workload), bug, lines)
}

/// In some seeds of `external` nothing happens but to clocks and to who keeps the time.
fn script_of(seed: u64, workload: Workload) -> Option<Script> {
    let chosen = (seed / 6) as usize % Script::ALL.len();
    (workload == Workload::External && seed % 6 == 5).then(|| Script::ALL[chosen])
}

/// Runs one seed of a script on this thread, with the workload `external`.
pub fn run_script(seed: u64, script: Script, bug: Option<Bug>, lines: Lines) -> Report {
    run_one(seed, Workload::External, Some(script), bug, lines)
}

fn run_one(
    seed: u64,
    workload: Workload,
    script: Option<Script>,
    bug: Option<Bug>,
    lines: Lines,
) -> Report {
    planted::plant(bug);
    let panics = PANICS.get();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without input and output needs nothing that could be missing");
    let trace = Trace::new(lines);
    let mut report = runtime.block_on(run_within(seed, workload, script, trace));
    drop(runtime);
    planted::plant(None);
    report.bug = bug;
    let panicked = PANICS.get() - panics;
    if panicked > 0 && report.failure.is_none() {
        report.failure = Some(format!("{panicked} tasks panicked"));
    }
    report
}

async fn run_within(seed: u64, workload: Workload, script: Option<Script>, trace: Trace) -> Report {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut plan = Plan::draw(&mut random);
    if workload == Workload::Cas {
        plan = plan.with_late_nodes(seed);
    }
    if matches!(workload, Workload::Register | Workload::Append) {
        plan = plan.with_aim(seed);
    }
    if matches!(workload, Workload::Cas | Workload::Register) && seed % 8 == 4 {
        plan = plan.with_slow_syncs();
    }
    let moves = matches!(
        workload,
        Workload::Register | Workload::Append | Workload::Bank | Workload::Recall
    );
    if moves && seed % 16 == 3 {
        plan = plan.with_funeral();
    }
    let decides = matches!(
        workload,
        Workload::Append | Workload::Bank | Workload::Recall
    );
    if decides && seed % 16 == 9 {
        plan = plan.with_late_decisions();
    }
    if workload == Workload::Heal {
        plan = plan.with_healing();
        if seed % 4 == 3 {
            plan = plan.with_late_hints();
        }
    }
    if matches!(workload, Workload::Heal | Workload::Cas) && seed % 8 == 1 {
        plan = plan.with_replacements(seed / 8);
    }
    if workload == Workload::Quorum && seed % 8 == 5 {
        plan = plan.with_losses();
    }
    if workload == Workload::Centres {
        plan = plan.with_centres(seed);
    }
    if workload == Workload::Regions {
        plan = plan.with_regions(seed);
    }
    if matches!(workload, Workload::Register | Workload::External) {
        plan = plan.with_clocks(seed);
    }
    if workload == Workload::External {
        plan = plan.with_external_order();
        if seed % 20 == 7 {
            plan = plan.with_lone_clock();
        }
    }
    if let Some(script) = script {
        plan = plan.with_script(script);
    }
    plan.buries_alive = workload.is_strong();
    plan.loses_node &= plan.nodes >= 3 && script.is_none() && workload.is_strong();
    let network = SimNetwork::new(random.random(), plan.conditions, trace.clone());
    let postman = tokio::spawn(network.clone().run());
    let cluster = Cluster::new(
        &plan,
        network.clone(),
        trace.clone(),
        SmallRng::seed_from_u64(random.random()),
    );
    trace.note("plan", &[seed], || format!("{plan:?}"));
    let game = async {
        cluster.form(plan.nodes - plan.late_nodes).await?;
        workload::run(workload, &cluster, &plan).await
    };
    let limit = Duration::from_secs(RUN_SECONDS_MAX);
    let outcome = tokio::time::timeout(limit, game).await.unwrap_or_else(|_| {
        Err(format!(
            "not done after {RUN_SECONDS_MAX} simulated seconds"
        ))
    });
    let simulated = Duration::from_micros(cluster.now());
    for index in 0..cluster.size() {
        cluster.crash(index);
    }
    postman.abort();
    let (counts, strikes, mut failure) = match outcome {
        Ok((counts, strikes)) => (counts, strikes, None),
        Err(failure) => (Counts::default(), Strikes::default(), Some(failure)),
    };
    let complaints = cluster.complaints();
    if failure.is_none() && !complaints.is_empty() {
        failure = Some(complaints.join("\n"));
    }
    Report {
        seed,
        workload,
        bug: None,
        hash: trace.hash(),
        events: trace.events(),
        counts,
        strikes,
        messages: network.statistics(),
        simulated,
        failure,
        lines: trace.lines(),
    }
}
