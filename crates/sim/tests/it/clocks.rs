//! What may happen to clocks and to the time master: one test each, over a few seeds.

use sim::{Lines, Script, Workload, run, run_script};
use world::planted::Bug;

fn passes(script: Script) {
    for seed in 1..5 {
        let report = run_script(seed, script, None, Lines::Kept);
        assert_eq!(report.failure, None, "{script:?}, seed {seed}");
        assert!(report.counts.succeeded > 100, "{:?}", report.counts);
        let name = format!("{script:?}");
        let strikes = report.lines.iter().filter(|line| line.contains(&name));
        assert!(strikes.count() > 1, "{script:?} has hardly struck");
    }
}

fn is_found(script: Script, bug: Bug) -> bool {
    (1..40).any(|seed| {
        let report = run_script(seed, script, Some(bug), Lines::Dropped);
        report.failure.is_some()
    })
}

#[test]
fn the_time_master_is_killed() {
    passes(Script::MasterKilled);
}

#[test]
fn the_time_master_is_paused() {
    passes(Script::MasterPaused);
}

#[test]
fn the_time_master_is_cut_off() {
    passes(Script::MasterPartitioned);
}

#[test]
fn the_time_masters_oscillator_jumps() {
    passes(Script::MasterForward);
}

#[test]
fn the_wall_clock_of_the_time_master_is_set() {
    passes(Script::MasterStepped);
}

#[test]
fn the_oscillator_of_a_node_jumps() {
    passes(Script::NodeForward);
}

#[test]
fn the_wall_clock_of_a_node_is_set() {
    passes(Script::NodeStepped);
}

#[test]
fn without_fences_a_wall_clock_that_is_set_breaks_the_order() {
    assert!(is_found(Script::NodeStepped, Bug::FencingSwitchedOff));
}

#[test]
fn commit_timestamps_follow_real_time() {
    for seed in 1..10 {
        let report = run(seed, Workload::External, None, Lines::Dropped);
        assert_eq!(report.failure, None, "replay: {}", report.replay_command());
        assert!(report.counts.succeeded > 0);
    }
}
