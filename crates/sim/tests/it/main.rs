//! Whole clusters from seeds, a few of each workload: the rest is `cargo xtask sim`'s business.
#![cfg(feature = "nodes")]

mod clocks;

use sim::{Lines, Workload, run};
use world::planted::Bug;

fn passes(workload: Workload, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let report = run(seed, workload, None, Lines::Dropped);
        assert_eq!(report.failure, None, "replay: {}", report.replay_command());
        assert!(report.counts.succeeded > 0);
    }
}

#[test]
fn quorum_reads_miss_nothing() {
    passes(Workload::Quorum, 1..15);
}

#[test]
fn data_centres_that_come_and_go_lose_nothing() {
    passes(Workload::Centres, 1..7);
}

/// In this one a member of the meta group is elected while its removal is under way.
#[test]
fn a_leader_that_is_removed_leads_no_more() {
    passes(Workload::Centres, 245..246);
}

/// In these a node whose meta replica has to go starts again before its group has let it go.
#[test]
fn a_meta_replica_that_leaves_is_not_removed_under_its_group() {
    passes(Workload::Quorum, 661..662);
    passes(Workload::Quorum, 958..959);
}

#[test]
fn registers_are_linearizable() {
    passes(Workload::Register, 1..15);
}

#[test]
fn transactions_are_serializable() {
    passes(Workload::Append, 1..15);
}

#[test]
fn books_balance() {
    passes(Workload::Bank, 1..15);
}

#[test]
fn what_a_data_centre_agrees_on_is_linearizable_there() {
    passes(Workload::Regions, 1..8);
}

#[test]
fn compare_and_set_is_linearizable() {
    passes(Workload::Cas, 1..15);
}

#[test]
fn batches_happen_whole_or_not_at_all() {
    passes(Workload::Batches, 1..10);
}

#[test]
fn the_checker_notices_ballots_that_are_used_twice() {
    let found = (1..50).any(|seed| {
        run(seed, Workload::Cas, Some(Bug::BallotReuse), Lines::Dropped)
            .failure
            .is_some()
    });
    assert!(found);
}

#[test]
fn a_seed_repeats_itself() {
    for workload in Workload::ALL {
        for seed in 100..104 {
            let one = run(seed, workload, None, Lines::Dropped);
            let two = run(seed, workload, None, Lines::Dropped);
            assert_eq!(
                (one.hash, one.events),
                (two.hash, two.events),
                "{seed} {workload}"
            );
        }
    }
}

#[test]
fn the_checker_notices_a_merge_that_forgets_tombstones() {
    let bug = Some(Bug::MergeForgetsTombstoneAtEqualTimestamp);
    let found = (1..50).any(|seed| {
        run(seed, Workload::Quorum, bug, Lines::Dropped)
            .failure
            .is_some()
    });
    assert!(found);
}

#[test]
fn the_story_of_a_seed_can_be_read() {
    let report = run(1, Workload::Quorum, None, Lines::Kept);
    assert!(report.lines.len() as u64 == report.events);
    for kind in [
        "plan", "start", "serve", "deliver", "sync", "client", "heal",
    ] {
        assert!(
            report.lines.iter().any(|line| line.contains(kind)),
            "no line tells of {kind}"
        );
    }
}
