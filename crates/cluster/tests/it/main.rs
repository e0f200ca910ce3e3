//! The rules of the cluster, as stories: commands in, effects and placement out.

mod gossip;
mod placement;
mod spread;
mod story;
