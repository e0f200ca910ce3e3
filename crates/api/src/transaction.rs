//! Read-write transactions on strong tables, as a door drives them.

use crate::{Error, Mutation, Patience, ReadRequest, ReadResponse};
use async_trait::async_trait;
use model::Timestamp;

#[derive(Clone, Debug, Default)]
pub struct TransactionOptions {
    pub patience: Patience,
    /// The previous attempt's age, so that a retried transaction does not lose again and again.
    pub first_attempt: Option<Timestamp>,
}

/// An open transaction. Dropping it rolls it back.
#[async_trait]
pub trait Transaction: Send {
    /// Reads committed state, overlaid with what this transaction has buffered.
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResponse, Error>;

    /// Buffers mutations. `Insert` and `Update` are checked against what is there, at once.
    async fn write(&mut self, mutations: Vec<Mutation>) -> Result<(), Error>;

    /// Commits, with `mutations` added at the end. `Retry::Aborted` says that nothing was done.
    async fn commit(self: Box<Self>, mutations: Vec<Mutation>) -> Result<Commit, Error>;

    async fn rollback(self: Box<Self>);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    pub timestamp: Timestamp,
    pub mutation_count: u64,
}

/// A transaction that takes no locks: it remembers what it read, buffers what it writes, and asks for both to
/// be checked and applied in one atomic write.
pub struct Buffered {}
