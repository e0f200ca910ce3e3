//! Random bits, from a generator that the operating system seeds once.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use std::fmt;
use std::io;
use world::Random;

pub struct SystemRandom {
    generator: Mutex<StdRng>,
}

impl SystemRandom {
    pub fn new() -> io::Result<SystemRandom> {
        let generator = StdRng::try_from_os_rng().map_err(io::Error::other)?;
        Ok(SystemRandom {
            generator: Mutex::new(generator),
        })
    }
}

impl Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        self.generator.lock().next_u64()
    }
}

impl fmt::Debug for SystemRandom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SystemRandom")
    }
}
