//! The CQL door: Cassandra's native protocol v3 to v5 on one side, `api` on the other.
//!
//! ```text
//! protocol   frames, segments, requests, answers: bytes only
//! grammar    CQL text to statements: names only
//! types      CQL's types: names, wire encoding, literals
//! plan       statements made ready with the catalog: keys, filters, selectors, changes, conditions
//! execute    plans to requests of the inner language, and their answers to frames
//! system     the tables that drivers and cqlsh read, computed
//! connection one task a client; server: accepting, events
//! ```
//!
//! A prepared statement's execution decodes the bound bytes straight into values and keys, and encodes the rows'
//! cells straight into the answer. Names are looked up when it is prepared; when a table changes, its prepared
//! statements are forgotten, and clients prepare them again.
//!
//! Not here yet, and refused: secondary indexes, materialized views, roles, JSON, GROUP BY, logged batches
//! over several partitions of eventual tables, conditions on elements of collections, tracing (a request that asks
//! for it is answered without a trace).

mod connection;
pub mod error;
mod events;
mod execute;
pub mod grammar;
mod metrics;
mod options;
mod paging;
mod plan;
mod prepared;
pub mod protocol;
mod server;
mod system;
mod timeuuid;
pub mod trace;
mod types;

pub use metrics::Metrics;
pub use server::{Options, serve};
