//! A node's durable state: one log for all its tablets, and one ordered store per tablet replica.
//!
//! ```text
//! DIRECTORY/log/       the log's files (docs/formats/log.md)
//! DIRECTORY/stores/    a folder per replica, and marks (docs/formats/store.md)
//! ```
//!
//! `open` gives both behind the ports of `world`, with the threads that write, flush and compact. What a store
//! has not flushed is lost in a crash and comes back by replay of the log: `replay` says from where, `cut_point`
//! how far the log may be cut.
//!
//! Deliberately not here: what rows look like, and what an entry means.

#[cfg(feature = "conformance")]
pub mod conformance;
mod log;
mod measure;
mod replay;
mod store;

pub use log::{FileLog, GROUP_SIZES, LogMetrics, LogOptions, TornTail};
pub use measure::{Measure, measure};
pub use replay::{Gap, Replay, cut_point, replay};
pub use store::{StoreMetrics, StoreOptions};

use std::path::Path;
use std::sync::Arc;

/// Why a data directory cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Io(String),
    #[error("another process uses this data directory: {0}")]
    InUse(String),
    /// Says where, and what to do.
    #[error("the data is corrupt: {0}")]
    Corrupt(String),
}

impl OpenError {
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> OpenError + use<'_> {
        move |error| OpenError::Io(format!("{}: {error}", path.display()))
    }
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub log: LogOptions,
    pub stores: StoreOptions,
}

/// Counters of log and stores.
#[derive(Clone)]
pub struct Metrics {
    pub log: Arc<LogMetrics>,
    pub stores: Arc<StoreMetrics>,
}

/// An open data directory.
pub struct Storage {
    pub log: Arc<dyn world::Log>,
    pub stores: Arc<dyn world::Stores>,
    pub metrics: Metrics,
    /// What was cut off the log when it was opened: writes that a crash had cut short.
    pub torn_tails: Vec<TornTail>,
    file_log: Arc<FileLog>,
    threads: store::Threads,
}

/// Opens a data directory, or makes one. One process at a time.
pub fn open(directory: &Path, options: Options) -> Result<Storage, OpenError> {
    make_directory(directory)?;
    let log = Arc::new(FileLog::open(&directory.join("log"), &options.log)?);
    let stores = directory.join("stores");
    let (stores, threads, store_metrics) = store::FileStores::open(&stores, &options.stores, &log)?;
    Ok(Storage {
        log: log.clone(),
        stores: Arc::new(stores),
        metrics: Metrics {
            log: log.metrics().clone(),
            stores: store_metrics,
        },
        torn_tails: log.torn_tails().to_vec(),
        file_log: log,
        threads,
    })
}

/// Makes sure that the directory itself survives a loss of power.
fn make_directory(directory: &Path) -> Result<(), OpenError> {
    if directory.join("stores").exists() {
        return Ok(());
    }
    for inner in ["log", "stores"] {
        let inner = directory.join(inner);
        std::fs::create_dir_all(&inner).map_err(OpenError::io(&inner))?;
    }
    log::sync_directory(directory)?;
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => log::sync_directory(parent),
        _ => Ok(()),
    }
}

impl Storage {
    /// Writes what is queued in the log, finishes the flush and the compaction under way, and lets go of the
    /// files. Stores are not flushed: replay brings back what they have not. What still holds the log or a store
    /// gets errors from the log, and may read the store.
    pub fn close(mut self) {
        self.threads.stop();
        self.file_log.close();
    }
}
