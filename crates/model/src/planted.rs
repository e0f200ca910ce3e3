//! Planted bugs: each makes one promise false on purpose, so that the simulator's checkers can be shown to
//! notice. They exist only with the feature `planted`, which only `sim` turns on; without it `is` is `false` at
//! compile time.

macro_rules! bugs {
    ($($bug:ident,)*) => {
        /// One broken promise each. The name says what goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Bug {
            $($bug,)*
        }

        impl Bug {
            pub const ALL: &'static [Bug] = &[$(Bug::$bug,)*];
        }
    };
}

bugs! {
    AcknowledgeBeforeSync,
    AppliedIndexOutsideBatch,
    ServeAfterLeaseEnd,
    NewLeaseholderDoesNotWait,
    CutLogAboveFlushed,
    LosePromised,
    MergeForgetsTombstoneAtEqualTimestamp,
    InstallLeavesOldRows,
    VoteNotPersisted,
    SkipReadRepair,
    ReadRepairSkipsPending,
    CountFailedReplicaAsAcknowledged,
    ReplayHintAfterGrace,
    PurgeWithoutRepair,
    DigestIgnoresTombstones,
    NoCommitWait,
    SnapshotIgnoresPrepared,
    ClosedPassesPrepared,
    CoordinatorForgets,
    PrepareUnderOldEpoch,
    RetryAppliesTwice,
    FollowerReadPastSafeTime,
    ReadOnlyParticipantNotValidated,
    CommitAbovePromises,
    ReaderForgetsCommit,
    ShowBeforeItsTime,
    HistoryGoesTooSoon,
    SplitForgetsPromised,
    SplitForgetsRowsEarly,
    SplitFoundsEmptyHalf,
    PaxosForgetsAccepted,
    CommitWithoutQuorum,
    BallotReuse,
    PromiseNotSynced,
    BatchlogNewTimestamps,
    FencingSwitchedOff,
    NewMasterDoesNotWait,
    SampleNeverExpires,
    LeaveWithoutTakeOver,
    ForgetWhoLeaves,
    UpdatePassesReaders,
    ForgetFloor,
    MapLetsGoFirst,
    PushedCommitNotWaitedOut,
    SplitForgetsPrepared,
    DropForgetsDecisions,
    StreamMissesWrites,
    FirstOfEqualTimestampsWins,
    OlderRangeWins,
    OverwriteKeepsElements,
    ReplicaHidesCellTombstones,
    ExpiredIsShown,
    SplitSeedsTooSoon,
    SplitForgetsVotes,
    CommitNotAwaited,
    SplitSettledEarly,
    CentresShareBallots,
    CommitNotKept,
    RefusedCommits,
}

#[cfg(feature = "planted")]
mod active {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants `bug` (or none) in everything that runs on this thread from now on.
    pub fn plant(bug: Option<Bug>) {
        ACTIVE.with(|active| active.set(bug));
    }

    pub fn is(bug: Bug) -> bool {
        ACTIVE.with(|active| active.get() == Some(bug))
    }
}

#[cfg(feature = "planted")]
pub use active::{is, plant};

/// Whether this bug is planted here.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}
