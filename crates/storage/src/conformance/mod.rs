//! What every implementation of `Log` and `Stores` must do, real or simulated, as executable checks.
//!
//! Give `log` and `stores` a way to make an empty disk. They panic, with a description, where the disk breaks a
//! rule. Run them on a tokio runtime; a simulated disk wants paused time.

mod log;
mod stores;

use std::sync::Arc;
use world::{Log, Stores};

/// A disk under test: outlives what is opened on it.
pub trait Disk {
    /// Opens log and stores. What an earlier call returned has been closed or has crashed.
    fn open(&mut self) -> (Arc<dyn Log>, Arc<dyn Stores>);

    /// An orderly stop.
    fn close(&mut self);

    /// The process dies, now.
    fn crash(&mut self);
}

pub type NewDisk<'a> = &'a dyn Fn() -> Box<dyn Disk>;

/// All checks of the log.
pub async fn log(new: NewDisk<'_>) {
    log::entries_are_read_back(new).await;
    log::an_append_replaces_what_it_overlaps(new).await;
    log::what_is_queued_is_visible_at_once(new).await;
    log::records_are_kept_apart_from_entries(new).await;
    log::a_cut_log_goes_on_where_it_was_cut(new).await;
    log::a_removed_log_leaves_nothing(new).await;
    log::a_batch_that_breaks_a_rule_changes_nothing(new).await;
    log::what_is_acknowledged_survives_and_the_rest_is_a_prefix(new).await;
    log::what_nobody_waits_for_survives_after_its_interval(new).await;
    log::old_entries_are_read_from_files(new).await;
    for seed in 1..=6 {
        log::agrees_with_a_model(new, seed).await;
    }
}

/// All checks of the stores.
pub async fn stores(new: NewDisk<'_>) {
    stores::reads_see_what_was_written(new).await;
    stores::a_snapshot_does_not_change(new).await;
    stores::a_crash_leaves_the_state_after_one_entry(new).await;
    stores::replay_is_idempotent(new).await;
    stores::a_call_that_breaks_a_rule_changes_nothing(new).await;
    stores::an_installation_is_all_or_nothing(new).await;
    stores::a_removed_replica_is_gone_and_still_read(new).await;
    stores::a_copy_lives_on_its_own(new).await;
    stores::a_copy_is_changed_before_it_is_there(new).await;
    stores::forgotten_spans_go_and_nothing_else(new).await;
    stores::only_history_below_the_horizon_goes(new).await;
}

/// A small generator, so that the suite needs no dependency (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
