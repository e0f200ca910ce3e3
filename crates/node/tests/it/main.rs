//! Whole nodes over a simulated disk and network, with time paused: what a client of one node, and of three, may
//! rely on.

mod cluster;
mod fates;
mod one_node;
mod reads;
mod three_nodes;
mod transactions;
