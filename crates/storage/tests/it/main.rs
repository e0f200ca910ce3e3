//! Proofs of what the design needs of the log and the stores, on real files.

mod conformance;
mod damage;
mod log_damage;
mod power;
mod tree;
