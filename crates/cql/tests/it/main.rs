//! The door over the reference database, by raw frames.

mod client;
mod garbage;
mod stories;
