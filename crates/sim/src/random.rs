//! Random bits from the seed.

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use world::Random;

pub struct SimRandom {
    generator: Mutex<SmallRng>,
}

impl SimRandom {
    pub fn new(seed: u64) -> SimRandom {
        SimRandom {
            generator: Mutex::new(SmallRng::seed_from_u64(seed)),
        }
    }
}

impl Random for SimRandom {
    fn next_u64(&self) -> u64 {
        self.generator.lock().next_u64()
    }
}
