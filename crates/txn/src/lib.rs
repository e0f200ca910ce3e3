//! The strong path of one tablet: a replicated state machine for rows, and the leaseholder above it that
//! decides what it applies.
//!
//! * `rows` (below Raft) applies batches: no logic that could diverge between replicas.
//! * `leaseholder` (above Raft) holds the lease and the promises, latches keys, evaluates, and proposes.
//! * `split` divides a tablet into two, in its log and in its store.
//! * [`StrongTablet`] is the handle: [`StrongTablet::write`] and [`StrongTablet::read`].
//!
//! * `locks` keeps what transactions hold between requests; `participant` is a tablet's part in one that spans
//!   several, and `recovery` what becomes of it when others are gone.
//! * `outcomes` remembers which transactions were committed here, for doors whose clients have not heard so.
//!
//! Absent on purpose: routing, and the gateway's side of a transaction (crate `node`).

mod command;
mod expired;
mod idle;
mod keys;
mod latches;
mod locks;
mod outcomes;
mod participant;
mod read;
mod reading;
mod recovery;
mod request;
mod rows;
mod shown;
mod split;
mod staging;
mod state;
mod step;
mod tablet;
mod versions;
mod write;

pub use expired::ExpirySweep;
pub use recovery::{Others, Task};
pub use request::{CommandId, TabletError, TabletRead, TabletWrite};
pub use split::{Seeded, SplitPlan};
pub use step::{Attempt, Ending, Prepared, Share, Span, Step, Stepped, TabletStep};
pub use tablet::{LeaseStatus, StrongConfig, StrongTablet, TabletSpec, TabletStatus};
