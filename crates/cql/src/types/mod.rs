//! CQL's types: their names, their numbers on the wire, how values are encoded there, and how literals are
//! read. The types themselves are `model::Type`.

pub mod literal;
pub mod name;
pub mod number;
pub mod option;
pub mod order;
pub mod wire;

/// Types and values are nested at most this deep.
pub const DEPTH_MAX: usize = 32;
