//! Which key the next operation touches.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A stream of key numbers in `0 .. count`.
pub struct Keys {
    count: u64,
    zipf: Option<Zipf>,
    random: SmallRng,
}

/// The generator of Gray et al., "Quickly generating billion-record synthetic databases" (SIGMOD 1994), as
/// YCSB uses it, with its exponent.
struct Zipf {
    zeta: f64,
    alpha: f64,
    eta: f64,
    half_power: f64,
}

const ZIPF_EXPONENT: f64 = 0.99;

impl Zipf {
    fn new(count: u64) -> Zipf {
        let zeta_of = |count: u64| {
            (1..=count)
                .map(|rank| (rank as f64).powf(-ZIPF_EXPONENT))
                .sum::<f64>()
        };
        let zeta = zeta_of(count);
        let alpha = 1.0 / (1.0 - ZIPF_EXPONENT);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - ZIPF_EXPONENT))
            / (1.0 - zeta_of(2.min(count)) / zeta);
        Zipf {
            zeta,
            alpha,
            eta,
            half_power: 0.5_f64.powf(ZIPF_EXPONENT),
        }
    }

    fn rank(&self, uniform: f64, count: u64) -> u64 {
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + self.half_power {
            return 1.min(count - 1);
        }
        let rank = (count as f64 * (self.eta * uniform - self.eta + 1.0).powf(self.alpha)) as u64;
        rank.min(count - 1)
    }
}

impl Keys {
    pub fn new(count: u64, is_zipfian: bool, seed: u64) -> Keys {
        let count = count.max(2);
        Keys {
            count,
            zipf: is_zipfian.then(|| Zipf::new(count)),
            random: SmallRng::seed_from_u64(seed),
        }
    }

    pub fn next(&mut self) -> u64 {
        match &self.zipf {
            None => self.random.random_range(0..self.count),
            Some(zipf) => {
                let rank = zipf.rank(self.random.random(), self.count);
                // Popular keys lie anywhere, not side by side.
                rank.wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.count
            }
        }
    }

    /// True in `permille` of 1,000 calls.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.random.random_range(0..1_000) < permille
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;

    fn share_of_most_popular(is_zipfian: bool) -> f64 {
        let mut keys = Keys::new(1_000, is_zipfian, 7);
        let mut seen = [0_u32; 1_000];
        for _ in 0..100_000 {
            seen[keys.next() as usize] += 1;
        }
        f64::from(*seen.iter().max().unwrap()) / 100_000.0
    }

    #[test]
    fn zipfian_keys_are_skewed_and_uniform_ones_are_not() {
        assert!(
            share_of_most_popular(true) > 0.08,
            "rank 0 of 1,000 has a share of about 13 %"
        );
        assert!(share_of_most_popular(false) < 0.005);
    }
}
