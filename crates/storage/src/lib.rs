//! A node's durable state: one log for all its tablets, and one ordered store per tablet replica.

mod replay;

pub use replay::{Gap, Replay, cut_point, replay};
