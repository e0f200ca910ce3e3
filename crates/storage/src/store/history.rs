//! Drops `Past` entries below the history horizon, and what lies in forgotten spans, while tables are being
//! compacted.
//!
//! By plain removal, without a tombstone: each `Past` key is written once, and its neighbours above the horizon
//! answer every read that is still allowed; and nobody reads a forgotten span, so an older version that comes to
//! light there does no harm.

use lsm_tree::compaction::filter::Context;
use lsm_tree::compaction::{CompactionFilter, Factory, ItemAccessor, Verdict};
use parking_lot::RwLock;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use world::past_superseded_at;

/// Keys from the first to below the second.
pub(super) type Span = (Vec<u8>, Vec<u8>);

/// What one store may forget.
pub(super) struct History {
    horizon: AtomicI64,
    /// Only ever swapped as a whole.
    spans: AssertUnwindSafe<RwLock<Arc<[Span]>>>,
}

impl History {
    pub(super) fn new() -> Arc<History> {
        Arc::new(History {
            horizon: AtomicI64::new(i64::MIN),
            spans: AssertUnwindSafe(RwLock::new(Arc::new([]))),
        })
    }

    pub(super) fn set_spans(&self, spans: Vec<Span>) {
        *self.spans.write() = spans.into();
    }

    pub(super) fn spans(&self) -> Arc<[Span]> {
        self.spans.read().clone()
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
            spans: self.0.spans(),
        })
    }
}

struct HistoryFilter {
    /// As of the compaction's begin.
    horizon: i64,
    spans: Arc<[Span]>,
}

impl CompactionFilter for HistoryFilter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        let key: &[u8] = item.key();
        let is_old = past_superseded_at(key).is_some_and(|at| at < self.horizon);
        let is_in = |(start, end): &Span| start.as_slice() <= key && key < end.as_slice();
        match is_old || self.spans.iter().any(is_in) {
            true => Ok(Verdict::Destroy),
            false => Ok(Verdict::Keep),
        }
    }
}
