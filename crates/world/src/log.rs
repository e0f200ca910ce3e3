//! The one durable log of a node, shared by all its tablets: each log has a dense run of entries and a few
//! small keyed records (hard state, votes, promises). One thread writes; whatever waits is merged into one
//! batch and one sync.

use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;

/// Which log: a replica's id, since a replica that is rebuilt must not meet its predecessor's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Counts from 1 without gaps.
    pub index: u64,
    /// The Raft term; 0 in the log of an eventual replica.
    pub term: u64,
    pub data: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOperation {
    /// Appends; entries at or above the first one's index are replaced (Raft's conflict rule). The first index
    /// is at most one above the last and not below the log's first.
    Append {
        log: LogId,
        entries: Vec<LogEntry>,
    },
    /// Sets a small record of this log, apart from its entries.
    Put {
        log: LogId,
        key: Vec<u8>,
        value: Bytes,
    },
    Delete {
        log: LogId,
        key: Vec<u8>,
    },
    /// Forgets the entries below `first`, which becomes the first index unless it is higher already. Where that
    /// leaves none, the next append begins at `first`: so a log is reset behind a snapshot.
    Cut {
        log: LogId,
        first: u64,
    },
    /// Forgets entries and records of a log.
    Remove {
        log: LogId,
    },
}

#[derive(Clone, Debug, Default)]
pub struct LogBatch {
    pub operations: Vec<LogOperation>,
}

/// The entries that a log holds: `first ..= last`, empty when `last < first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    pub first: u64,
    pub last: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Nothing may be acknowledged any more: what a failed sync has left behind is unknown.
    #[error("the log failed and is closed: {0}")]
    Failed(String),
    #[error("log {0:?} has no entry {1}")]
    Missing(LogId, u64),
    #[error("the log is corrupt: {0}")]
    Corrupt(String),
    /// The batch breaks a rule of its operations; nothing of it was queued. A bug of the caller's.
    #[error("refused: {0}")]
    Refused(String),
}

/// Resolves when the batch is as durable as it was asked to be.
pub type Durable = Pin<Box<dyn Future<Output = Result<(), LogError>> + Send>>;

pub trait Log: Send + Sync {
    /// Queues an atomic batch. Batches are written in the order of the calls. The future resolves when the
    /// batch and all before it are synced. The batch is written also if the future is dropped. What is queued
    /// is visible to reads at once.
    fn write(&self, batch: LogBatch) -> Durable;

    /// As `write`, but nobody waits: the batch is synced with the next write that does, or within
    /// `interval_ms`.
    fn write_later(&self, batch: LogBatch, interval_ms: u32);

    /// Entries of `first ..= last`, at least one, up to about `size_bytes_max`; `Missing` says the first index in
    /// the range that the log does not hold. Reads from memory or the page cache.
    fn entries(
        &self,
        log: LogId,
        first: u64,
        last: u64,
        size_bytes_max: u64,
    ) -> Result<Vec<LogEntry>, LogError>;

    /// `None` when the log has never been written, or has been removed.
    fn bounds(&self, log: LogId) -> Option<LogBounds>;

    fn get(&self, log: LogId, key: &[u8]) -> Option<Bytes>;

    /// All logs that exist, ascending.
    fn logs(&self) -> Vec<LogId>;

    /// How far writers should slow down now, for what is queued: 0 is not at all, 1,000 is stop.
    fn pressure_permille(&self) -> u32 {
        0
    }
}
