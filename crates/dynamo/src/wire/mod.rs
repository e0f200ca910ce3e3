//! AWS JSON 1.0 in both directions: a pull parser that yields typed requests without a tree in between, and a
//! writer that puts answers straight into one buffer.
//!
//! What the parser accepts is JSON and nothing more. A value of a wrong kind is a `DecodeError::Kind` with the
//! service's words for it; anything that is not JSON is `DecodeError::Malformed`, whichever comes first in the
//! text (see `decode`).

pub mod attribute;
pub mod constraint;
pub mod decode;
pub mod reader;
pub mod shape;
pub mod writer;
