//! The real world behind the ports: the kernel's clock, TCP and random bits. Files are in `storage`, whose log and
//! stores own their formats.

mod clock;
mod kernel;
mod network;
mod random;

pub use clock::SystemClock;
pub use network::{NetworkStatistics, TcpNetwork};
pub use random::SystemRandom;
