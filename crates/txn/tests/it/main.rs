//! A strong tablet on one node and on three: commits, conditions, history, leases, failures.

mod cluster;
mod failures;
mod leases;
mod outcomes;
mod rows;
mod split;
