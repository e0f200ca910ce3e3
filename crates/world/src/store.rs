//! Ordered stores, one per tablet replica. A store has no journal: the replica's log is its journal.
//!
//! A flushed store is exactly the state after one entry, and says which; on a crash everything behind it is
//! lost, and replay of the log from there on restores it. One task writes a store; any number read it.

use bytes::Bytes;
use model::ReplicaId;
use std::sync::Arc;

/// The kind byte that a key begins with inside a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// key → the row as it is now.
    Row = 1,
    /// key · superseding timestamp → the row before; strong tables only.
    Past = 2,
    /// timestamp · sequence → change record.
    Change = 3,
    /// Lease, promises, prepared transactions, repair marks, key span, schema version.
    State = 4,
}

/// The eight bytes that end a `Past` key: its superseding timestamp in microseconds, so that bytes sort as the
/// numbers do.
pub fn past_suffix(superseded_at: i64) -> [u8; 8] {
    ((superseded_at as u64) ^ (1 << 63)).to_be_bytes()
}

/// When the version under this `Past` key was superseded; `None` for any other key.
pub fn past_superseded_at(key: &[u8]) -> Option<i64> {
    if key.first() != Some(&(Kind::Past as u8)) {
        return None;
    }
    let (_, suffix) = key[1..].split_last_chunk::<8>()?;
    Some((u64::from_be_bytes(*suffix) ^ (1 << 63)) as i64)
}

/// Reserved: the store keeps its applied index here. Callers' own `State` keys go on with a byte other than 0.
pub const APPLIED_KEY: [u8; 2] = [Kind::State as u8, 0];

/// The log entry whose effects a store holds in full, with all before it and none after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Applied {
    pub index: u64,
    pub term: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOperation {
    Put { key: Vec<u8>, value: Vec<u8> },
    Delete { key: Vec<u8> },
}

/// The effects of one or more whole log entries.
#[derive(Clone, Debug, Default)]
pub struct StoreBatch {
    pub operations: Vec<StoreOperation>,
    /// The last entry of the batch.
    pub applied: Applied,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// This replica stops and is rebuilt.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    #[error("the store failed: {0}")]
    Io(String),
    /// An installation of this replica was begun and not finished: it needs a new snapshot.
    #[error("replica {0} is being installed")]
    Installing(ReplicaId),
    /// The call breaks a rule of this port; nothing was changed. A bug of the caller's.
    #[error("refused: {0}")]
    Refused(String),
    /// Memory or files are over their budget; come back later.
    #[error("the store is over its budget")]
    Overloaded,
}

/// A moment of a store that reads can be made at for as long as this lives.
pub trait SnapshotGuard: Send + Sync {
    fn sequence(&self) -> u64;
}

pub type Snapshot = Arc<dyn SnapshotGuard>;

/// Keys and values in order (descending when reversed).
pub type Scan<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send + 'a>;

pub trait Store: Send + Sync {
    /// The newest published state: always at an entry's end.
    fn snapshot(&self) -> Snapshot;

    fn get(&self, key: &[u8], at: &Snapshot) -> Result<Option<Bytes>, StoreError>;

    /// Keys in `start .. end` (`None`: to the end of the store).
    fn scan<'a>(&'a self, start: &[u8], end: Option<&[u8]>, at: &Snapshot) -> Scan<'a>;

    fn scan_reversed<'a>(&'a self, start: &[u8], end: Option<&[u8]>, at: &Snapshot) -> Scan<'a>;

    /// Applies a batch and publishes it. Its `applied` is above the store's. One caller at a time. Refused with
    /// nothing applied: keys that do not begin with a kind byte, that are longer than 65,535 bytes, or reserved.
    /// Never refused for want of memory: `pressure_permille` says so earlier.
    fn apply(&self, batch: StoreBatch) -> Result<(), StoreError>;

    /// The last entry applied.
    fn applied(&self) -> Applied;

    /// The last entry whose effects survive a crash: the log may be cut behind it.
    fn flushed(&self) -> Applied;

    /// Asks for a flush of everything applied so far; it happens soon, elsewhere. `flushed` tells.
    fn request_flush(&self);

    /// How far proposals should slow down now: 0 is not at all, 1,000 is stop.
    fn pressure_permille(&self) -> u32;

    /// `Past` entries that end with a superseding timestamp (microseconds, see [`past_suffix`]) below this one may
    /// vanish at any time from now on, also under a snapshot. Never goes back.
    fn set_history_horizon(&self, timestamp: i64);

    /// Keys in these spans (`start .. end` each) are nobody's any more: they may vanish at any time from now on, also
    /// under a snapshot, and are not all gone before others are. Takes the place of what was said before; said
    /// anew after each opening.
    fn forget_spans(&self, spans: Vec<(Vec<u8>, Vec<u8>)>);

    /// About how many bytes the store holds.
    fn size_bytes(&self) -> u64;
}

/// Looks at a copy that nobody else sees yet, and says what makes of it what it is to be. The batch's `applied` may
/// be any.
pub type EditCopy<'a> = &'a (dyn Fn(&dyn Store) -> Result<StoreBatch, StoreError> + Sync);

/// The stores of a node.
pub trait Stores: Send + Sync {
    /// Opens the replica's store, creating an empty one if there is none; the same one while it is open. Fails on
    /// one that is marked as being installed: that one needs a new snapshot.
    fn open(&self, replica: ReplicaId) -> Result<Arc<dyn Store>, StoreError>;

    /// All replicas that have a folder here, and whether an installation of it was cut short.
    fn list(&self) -> Result<Vec<(ReplicaId, bool)>, StoreError>;

    /// Begins the installation of a snapshot: marks the replica as `installing`, durably. Its old content can
    /// still be read by whoever holds it.
    fn begin_install(&self, replica: ReplicaId) -> Result<Box<dyn Install>, StoreError>;

    /// Removes a replica's folder. Whoever holds the store may still read it.
    fn remove(&self, replica: ReplicaId) -> Result<(), StoreError>;

    /// Makes `to` a copy of `from` as it is flushed, by hard links, so cheap; then changes it as `edit` says. Call
    /// after a flush. After a crash `to` is whole and changed, or does not exist. Fails if `to` exists, or `edit`
    /// fails.
    fn copy(&self, from: ReplicaId, to: ReplicaId, edit: EditCopy<'_>) -> Result<(), StoreError>;
}

/// A store under construction from a snapshot. Dropping it leaves the replica marked as `installing`.
pub trait Install: Send {
    /// Adds pairs in ascending order of keys, above all added before.
    fn add(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Result<(), StoreError>;

    /// Makes the content durable with `applied`, swaps it in and removes the mark. Returns the new store.
    fn finish(self: Box<Self>, applied: Applied) -> Result<Arc<dyn Store>, StoreError>;
}
