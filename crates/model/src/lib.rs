//! The vocabulary that every layer shares: ids, timestamps, values, rows, and the order-preserving encoding
//! of keys. Nothing here does input or output, reads a clock, or knows a protocol.

pub mod id;
pub mod key;
pub mod murmur3;
pub mod number;
pub mod partition;
pub mod planted;
pub mod row;
mod row_codec;
pub mod time;
pub mod types;
pub mod value;

pub use id::*;
pub use number::{Number, NumberError};
pub use row::{
    Cell, CellContent, CellPath, Deletion, Expiry, Marker, RangeTombstone, Row, RowError,
};
pub use time::{Interval, Timestamp};
pub use types::Type;
pub use value::Value;
