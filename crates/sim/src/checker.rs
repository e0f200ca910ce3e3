//! Judges of histories: what clients have done and seen, and whether a correct database could have answered so.
//! Pure; each has hand-made bad histories in its tests, and planted bugs that it is shown to notice.

pub mod external;
pub mod last_write;
pub mod linearizable;
#[cfg(feature = "nodes")]
pub mod second_opinion;
pub mod serializable;
pub mod timestamps;

/// Simulated time in microseconds. An operation that ends before another begins was first.
pub type Micros = u64;
