//! The meta group's state (catalog, nodes, tablet map, settings) and the rules by which it changes:
//! membership, placement, the lifecycle of tablets.

mod tablet;

pub use tablet::{Replica, Tablet};
