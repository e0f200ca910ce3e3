//! Ids and epochs. All are allocated by the meta group and never reused, unless said otherwise.

use minicbor::{Decode, Encode};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A node of the cluster; 1 is the node that founded it. 0 is no node.
    NodeId, "n");
id!(
    /// A start of a node: each start registers a higher one, peers refuse a lower one.
    Incarnation, "i");
id!(
    /// A contiguous range of a table group's key space. Tablet 0 is the meta group.
    TabletId, "t");
id!(
    /// One replica of one tablet on one node.
    ReplicaId, "r");
id!(
    /// A table, index or the root of a table group.
    TableId, "T");
id!(
    /// A column within its table; never reused after a drop.
    ColumnId, "c");
id!(
    /// A version of the whole catalog; grows by one with each change.
    SchemaVersion, "s");
id!(
    /// A version of one tablet's placement (its replicas and its key span).
    PlacementEpoch, "p");
id!(
    /// A lease of one tablet; each new holder, or the same one after a restart, takes a higher one.
    LeaseEpoch, "l");
id!(
    /// A request, unique within its gateway's incarnation.
    RequestId, "q");

/// The identity of a cluster: 16 random bytes drawn once by the founding node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ClusterId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}
