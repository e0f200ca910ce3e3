//! What a request asks of the replicas. A property of the request; the table decides what it comes to.

use minicbor::{Decode, Encode};
use model::Timestamp;

/// How many replicas must answer (Cassandra's consistency levels; CQL native protocol v5, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Level {
    #[n(0)]
    Any,
    #[n(1)]
    One,
    #[n(2)]
    Two,
    #[n(3)]
    Three,
    #[n(4)]
    Quorum,
    #[n(5)]
    All,
    #[n(6)]
    LocalQuorum,
    #[n(7)]
    EachQuorum,
    #[n(8)]
    Serial,
    #[n(9)]
    LocalSerial,
    #[n(10)]
    LocalOne,
    /// Whatever the table's protocol calls safe: QUORUM on an eventual table. What doors without levels use.
    #[n(11)]
    Default,
}

/// Which state a read must see.
///
/// | bound | strong table | eventual table |
/// |---|---|---|
/// | `Strong` | every write acknowledged before the read began | QUORUM |
/// | `Eventual` | any replica's applied state | ONE |
/// | `Level(l)` | as `Strong` | `l`; the serial ones within one partition, behind all that was agreed on there |
/// | the others | a consistent snapshot at one timestamp | refused |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ReadBound {
    #[n(0)]
    Strong,
    #[n(1)]
    Eventual,
    #[n(2)]
    Level(#[n(0)] Level),
    /// The state exactly then; waits when it lies ahead.
    #[n(3)]
    At(#[n(0)] Timestamp),
    /// Exactly as long ago.
    #[n(4)]
    ExactStaleness {
        #[n(0)]
        micros: u64,
    },
    /// The newest that some near replica can serve at once, not older than this.
    #[n(5)]
    MaxStaleness {
        #[n(0)]
        micros: u64,
    },
    #[n(6)]
    MinTimestamp(#[n(0)] Timestamp),
}
