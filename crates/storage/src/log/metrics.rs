//! What the log counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the classes of `group_sizes`: batches that shared one sync. The last class has no bound.
pub const GROUP_SIZES: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// Counters since the log was opened.
#[derive(Debug, Default)]
pub struct LogMetrics {
    /// Writes that were synced.
    pub syncs: AtomicU64,
    /// Batches that callers handed in and that are durable.
    pub batches: AtomicU64,
    pub entries: AtomicU64,
    /// Bytes written to files, framing included.
    pub written_bytes: AtomicU64,
    /// Time that writing and syncing took in all.
    pub sync_micros: AtomicU64,
    /// The longest write and sync.
    pub sync_micros_max: AtomicU64,
    /// How many syncs carried how many batches: class `i` up to `GROUP_SIZES[i]`, the last one more.
    pub group_sizes: [AtomicU64; GROUP_SIZES.len() + 1],
    /// Bytes that wait to be written now.
    pub queued_bytes: AtomicU64,
}

impl LogMetrics {
    pub(super) fn count_group(&self, batches: u64) {
        self.batches.fetch_add(batches, Ordering::Relaxed);
        let class = GROUP_SIZES.iter().position(|bound| batches <= *bound);
        self.group_sizes[class.unwrap_or(GROUP_SIZES.len())].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_sync(&self, bytes: u64, micros: u64) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.sync_micros.fetch_add(micros, Ordering::Relaxed);
        self.sync_micros_max.fetch_max(micros, Ordering::Relaxed);
    }
}
