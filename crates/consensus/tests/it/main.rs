//! Groups of several nodes in one process: elections, failures, restarts, snapshots, changes of members.

mod cluster;
mod groups;
