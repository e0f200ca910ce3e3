//! The rules of changes, and the layout of keys.

mod changes;
mod fixture;
mod keys;
