//! Drops `Past` entries below the history horizon while tables are being compacted.
//!
//! By plain removal, without a tombstone: each `Past` key is written once, and its neighbours above the horizon
//! answer every read that is still allowed.

use lsm_tree::compaction::filter::Context;
use lsm_tree::compaction::{CompactionFilter, Factory, ItemAccessor, Verdict};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use world::past_superseded_at;

/// The horizon of one store.
pub(super) struct History {
    horizon: AtomicI64,
}

impl History {
    pub(super) fn new() -> Arc<History> {
        Arc::new(History {
            horizon: AtomicI64::new(i64::MIN),
        })
    }

    pub(super) fn raise(&self, horizon: i64) {
        self.horizon.fetch_max(horizon, Ordering::Relaxed);
    }

    pub(super) fn horizon(&self) -> i64 {
        self.horizon.load(Ordering::Relaxed)
    }
}

pub(super) struct HistoryFilters(pub(super) Arc<History>);

impl Factory for HistoryFilters {
    fn name(&self) -> &str {
        "history"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(HistoryFilter {
            horizon: self.0.horizon(),
        })
    }
}

struct HistoryFilter {
    /// As of the compaction's begin.
    horizon: i64,
}

impl CompactionFilter for HistoryFilter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        match past_superseded_at(item.key()) {
            Some(at) if at < self.horizon => Ok(Verdict::Destroy),
            _ => Ok(Verdict::Keep),
        }
    }
}
