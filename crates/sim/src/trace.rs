//! The story of a run: a running hash of everything that happened, and on request readable lines.
//!
//! Two runs of one seed must have equal hashes: that is what makes a failure repeatable.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::Instant;

/// Lines kept for printing when a run fails; older ones are forgotten.
const LINES_MAX: usize = 2_000_000;

/// Clones write to the same story.
#[derive(Clone)]
pub struct Trace {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    start: Option<Instant>,
    hash: u64,
    events: u64,
    /// `None` when nobody wants to read it.
    lines: Option<Vec<String>>,
    prints: bool,
}

/// What is done with the readable lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    Dropped,
    Kept,
    /// Written to standard output as they come.
    Printed,
}

impl Trace {
    pub fn new(lines: Lines) -> Trace {
        Trace {
            shared: Arc::new(Mutex::new(Shared {
                start: None,
                hash: 0xcbf2_9ce4_8422_2325,
                events: 0,
                lines: (lines == Lines::Kept).then(Vec::new),
                prints: lines == Lines::Printed,
            })),
        }
    }

    /// Notes an event. The line is made only if somebody wants it; the numbers go into the hash.
    pub fn note(&self, kind: &str, numbers: &[u64], line: impl FnOnce() -> String) {
        let mut shared = self.shared.lock();
        let now = Instant::now();
        let micros = now
            .duration_since(*shared.start.get_or_insert(now))
            .as_micros() as u64;
        let mut hash = mix(shared.hash, micros);
        hash = mix(hash, hash_bytes(kind.as_bytes()));
        for number in numbers {
            hash = mix(hash, *number);
        }
        shared.hash = hash;
        shared.events += 1;
        if shared.prints || shared.lines.is_some() {
            let line = format!(
                "{:>5}.{:06}  {kind:<8} {}",
                micros / 1_000_000,
                micros % 1_000_000,
                line()
            );
            if shared.prints {
                println!("{line}");
            } else if let Some(lines) = &mut shared.lines
                && lines.len() < LINES_MAX
            {
                lines.push(line);
            }
        }
    }

    pub fn hash(&self) -> u64 {
        self.shared.lock().hash
    }

    pub fn events(&self) -> u64 {
        self.shared.lock().events
    }

    pub fn lines(&self) -> Vec<String> {
        self.shared.lock().lines.clone().unwrap_or_default()
    }
}

fn mix(hash: u64, number: u64) -> u64 {
    (hash ^ number)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
}

/// A hash that is the same on every machine and in every run.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash, u64::from_le_bytes(word));
    }
    hash
}
