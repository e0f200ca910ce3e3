//! Shows that the checkers find planted bugs: looks for the first seed that shows each, and holds a list of such seeds
//! against what they show now.

use crate::{Next, find_bug, in_parallel};
use sim::{Lines, Report, Workload, run};
use world::planted::Bug;

/// A planted bug must be found within so many seeds.
const SEEDS_MAX: u64 = 10_000;
/// What changes the course of things moves the seed that shows a bug: behind the one on the list so many are tried.
const DRIFT_SEEDS: u64 = 200;

/// A bug that no seed shows within reason, and the test that shows it.
fn shown_by_a_test(bug: Bug) -> Option<&'static str> {
    match bug {
        Bug::VoteNotPersisted => Some("consensus: a_vote_outlives_a_crash"),
        // A commit must be so late that somebody has asked for it meanwhile, and its node has begun a new life: one seed in
        // thousands.
        Bug::RefusedCommits => Some("txn: what_is_refused_is_not_committed_by_what_comes_late"),
        // No quorum shows whether who is being filled was repaired, too. What a read has shown is on a majority of the
        // voters. They come one at a time, and majorities of n and of n + 1 meet, whatever the newcomer lacks. The next one
        // is filled from a majority of those, by replicas that refuse older placements since, so it has it. And when a voter
        // goes, the others have taken over what such a majority has. The repair of who is being filled is a margin.
        Bug::ReadRepairSkipsPending => {
            Some("quorum: a_read_repair_that_skips_who_is_being_filled_leaves_it_without")
        }
        _ => None,
    }
}

/// Which workloads can show a bug.
fn suspects(bug: Bug) -> Vec<Workload> {
    match bug {
        Bug::NewLeaseholderDoesNotWait | Bug::LosePromised | Bug::InstallLeavesOldRows => vec![
            Workload::Register,
            Workload::Append,
            Workload::Bank,
            Workload::External,
        ],
        Bug::ServeAfterLeaseEnd
        | Bug::AppliedIndexOutsideBatch
        | Bug::SplitForgetsRowsEarly
        | Bug::SplitFoundsEmptyHalf => vec![Workload::Register, Workload::Append],
        Bug::SplitForgetsPromised => vec![Workload::Append],
        Bug::FencingSwitchedOff
        | Bug::NewMasterDoesNotWait
        | Bug::SampleNeverExpires
        | Bug::ForgetFloor => {
            vec![Workload::External]
        }
        Bug::SkipReadRepair
        | Bug::FirstOfEqualTimestampsWins
        | Bug::CountFailedReplicaAsAcknowledged
        | Bug::MergeForgetsTombstoneAtEqualTimestamp
        | Bug::PurgeWithoutRepair
        | Bug::DigestIgnoresTombstones
        | Bug::OlderRangeWins
        | Bug::OverwriteKeepsElements
        | Bug::ReplicaHidesCellTombstones
        | Bug::ExpiredIsShown => vec![Workload::Quorum, Workload::Heal],
        Bug::AcknowledgeBeforeSync | Bug::CutLogAboveFlushed => Workload::ALL.to_vec(),
        Bug::NoCommitWait
        | Bug::SnapshotIgnoresPrepared
        | Bug::ClosedPassesPrepared
        | Bug::CoordinatorForgets
        | Bug::PrepareUnderOldEpoch
        | Bug::RetryAppliesTwice
        | Bug::FollowerReadPastSafeTime
        | Bug::ReadOnlyParticipantNotValidated
        | Bug::UpdatePassesReaders
        | Bug::ReaderForgetsCommit
        | Bug::ShowBeforeItsTime
        | Bug::SplitForgetsPrepared
        | Bug::HistoryGoesTooSoon => vec![Workload::Append, Workload::Bank],
        Bug::PushedCommitNotWaitedOut | Bug::DropForgetsDecisions => vec![Workload::Bank],
        // It takes many transactions that read in one tablet and write in another.
        Bug::CommitAbovePromises => vec![Workload::Append],
        Bug::PaxosForgetsAccepted
        | Bug::CommitWithoutQuorum
        | Bug::BallotReuse
        | Bug::PromiseNotSynced => vec![Workload::Cas],
        Bug::CentresShareBallots => vec![Workload::Regions],
        Bug::ReplayHintAfterGrace => vec![Workload::Heal],
        Bug::BatchlogNewTimestamps => vec![Workload::Batches],
        Bug::SplitSeedsTooSoon | Bug::SplitSettledEarly => {
            vec![Workload::Quorum, Workload::Heal, Workload::Cas]
        }
        Bug::SplitForgetsVotes | Bug::CommitNotAwaited => vec![Workload::Cas],
        Bug::LeaveWithoutTakeOver | Bug::ForgetWhoLeaves => vec![Workload::Centres],
        Bug::StreamMissesWrites => vec![Workload::Quorum, Workload::Cas, Workload::Centres],
        Bug::MapLetsGoFirst => {
            vec![Workload::Register, Workload::Append, Workload::Bank]
        }
        Bug::CommitNotKept => vec![Workload::Recall],
        Bug::VoteNotPersisted | Bug::ReadRepairSkipsPending | Bug::RefusedCommits => Vec::new(),
    }
}

/// Looks for a seed that shows each bug, or the one that is asked for, and says so in lines of the list.
pub fn find_all(only: Option<Bug>, threads: Option<usize>) -> bool {
    let (mut found, mut missed) = (0, 0);
    println!("{HEAD}");
    for &bug in Bug::ALL {
        if only.is_some_and(|only| only != bug) {
            continue;
        }
        if let Some(test) = shown_by_a_test(bug) {
            println!("# {bug:?}: shown by a test ({test})");
            continue;
        }
        match first(bug, &suspects(bug), 1, SEEDS_MAX, threads) {
            Some(report) => {
                found += 1;
                let failure = report.failure.unwrap_or_default();
                let what = failure.lines().next().unwrap_or_default();
                println!("{bug:?} {} {} # {what}", report.workload, report.seed);
            }
            None => {
                missed += 1;
                println!("# {bug:?}: NOT found within {SEEDS_MAX} seeds");
            }
        }
    }
    println!("{found} passed, {missed} failed");
    missed == 0
}

const HEAD: &str = "# Which seed shows each planted bug first: bug, workload, seed, and what is seen. Written by\n\
    # cargo xtask sim --find-bugs | grep -v ' passed, ' > list; mv list crates/sim/planted-bugs.txt";

/// Sees that each bug of the list is found, that the seed which shows it passes without it, and that none is missing.
pub fn check(threads: Option<usize>) -> bool {
    let (mut passed, mut failed) = (0, 0);
    let mut known = Vec::new();
    let lines = include_str!("../planted-bugs.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let outcome = read(line).and_then(|(bug, workload, seed)| {
            known.push(bug);
            check_one(bug, workload, seed, threads)
        });
        match outcome {
            Ok(()) => passed += 1,
            Err(message) => {
                failed += 1;
                println!("FAILED: {message}");
            }
        }
    }
    for bug in Bug::ALL {
        if !known.contains(bug) && shown_by_a_test(*bug).is_none() {
            failed += 1;
            println!("FAILED: {bug:?} is not in the list of planted bugs");
        }
    }
    println!("{passed} passed, {failed} failed");
    failed == 0
}

fn read(line: &str) -> Result<(Bug, Workload, u64), String> {
    let (place, _) = line.split_once('#').unwrap_or((line, ""));
    let mut words = place.split_whitespace();
    let (Some(bug), Some(workload), Some(seed), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(format!("not a bug, a workload and a seed: {line:?}"));
    };
    let seed = seed.parse().map_err(|_| format!("not a seed: {seed:?}"))?;
    Ok((find_bug(bug)?, workload.parse()?, seed))
}

fn check_one(
    bug: Bug,
    workload: Workload,
    seed: u64,
    threads: Option<usize>,
) -> Result<(), String> {
    let found = first(bug, &[workload], seed, DRIFT_SEEDS, threads).ok_or_else(|| {
        format!("{bug:?} is not found by seed {seed} of {workload} nor by {DRIFT_SEEDS} behind it")
    })?;
    let without = run(found.seed, workload, None, Lines::Dropped);
    match &without.failure {
        None => Ok(()),
        Some(failure) => Err(format!(
            "seed {} of {workload} fails without {bug:?} as well: {failure}\n  replay: {}",
            found.seed,
            without.replay_command()
        )),
    }
}

/// The first seed from `from` on that shows a bug, and the workload that does.
fn first(
    bug: Bug,
    suspects: &[Workload],
    from: u64,
    seeds: u64,
    threads: Option<usize>,
) -> Option<Report> {
    let count = suspects.len() as u64;
    let mut found = None;
    let run_one = |job: u64| {
        let workload = suspects[(job % count) as usize];
        run(from + job / count, workload, Some(bug), Lines::Dropped)
    };
    in_parallel(seeds * count, threads, run_one, |report| {
        if report.failure.is_none() {
            return Next::GoOn;
        }
        found = Some(report);
        Next::Enough
    });
    found
}
