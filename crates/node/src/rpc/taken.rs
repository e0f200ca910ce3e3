//! Which requests were taken of late, by sender: a message that the network brings twice is carried out once. (A
//! condition that did not hold the first time may hold the second time, when the answer has been given.)
//!
//! A sender counts its requests, so a window of bits behind the highest number does. What is older than the window
//! cannot be told from a repetition and counts as lost.

use model::{Incarnation, NodeId};
use std::collections::BTreeMap;

/// Requests of one sender that may overtake each other.
const WINDOW: u64 = 65_536;
const WORD_BITS: u64 = u64::BITS as u64;

#[derive(Default)]
pub(crate) struct Taken {
    by_sender: BTreeMap<NodeId, Window>,
}

struct Window {
    incarnation: Incarnation,
    highest: u64,
    /// A ring: the bit of a number is at its remainder.
    bits: Box<[u64]>,
}

impl Taken {
    /// Notes a request; false when it was noted before, or is of a former life of its sender.
    pub fn is_new(&mut self, sender: NodeId, incarnation: Incarnation, id: u64) -> bool {
        match self.by_sender.get_mut(&sender) {
            Some(window) if window.incarnation == incarnation => window.is_new(id),
            Some(window) if window.incarnation > incarnation => false,
            _ => {
                let mut window = Window {
                    incarnation,
                    highest: id,
                    bits: vec![0; (WINDOW / WORD_BITS) as usize].into(),
                };
                window.set(id);
                self.by_sender.insert(sender, window);
                true
            }
        }
    }
}

impl Window {
    fn is_new(&mut self, id: u64) -> bool {
        if id > self.highest {
            for skipped in id.saturating_sub(WINDOW).max(self.highest) + 1..id {
                self.clear(skipped);
            }
            self.highest = id;
            self.set(id);
            return true;
        }
        if self.highest - id >= WINDOW || self.is_set(id) {
            return false;
        }
        self.set(id);
        true
    }

    fn place(id: u64) -> (usize, u64) {
        let bit = id % WINDOW;
        ((bit / WORD_BITS) as usize, 1 << (bit % WORD_BITS))
    }

    fn is_set(&self, id: u64) -> bool {
        let (word, mask) = Window::place(id);
        self.bits[word] & mask != 0
    }

    fn set(&mut self, id: u64) {
        let (word, mask) = Window::place(id);
        self.bits[word] |= mask;
    }

    fn clear(&mut self, id: u64) {
        let (word, mask) = Window::place(id);
        self.bits[word] &= !mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_of_a_life_is_new_once_whatever_its_order() {
        let mut taken = Taken::default();
        let mut is_new = |node, incarnation, id| {
            let incarnation = Incarnation(incarnation);
            taken.is_new(NodeId(node), incarnation, id)
        };
        assert!(is_new(1, 5, 1_000));
        assert!(!is_new(1, 5, 1_000));
        assert!(is_new(1, 5, 1_003));
        assert!(is_new(1, 5, 1_001));
        assert!(!is_new(1, 5, 1_001));
        assert!(is_new(1, 5, 990));
        assert!(is_new(2, 5, 1_000), "another sender");
        assert!(is_new(1, 6, 1_000), "another life");
        assert!(!is_new(1, 5, 1_004), "a former life");
    }

    #[test]
    fn the_window_moves_on() {
        let mut taken = Taken::default();
        let mut is_new = |id| taken.is_new(NodeId(1), Incarnation(1), id);
        assert!(is_new(10));
        assert!(is_new(10 + WINDOW));
        assert!(!is_new(10), "too old to tell");
        assert!(is_new(11), "its place in the ring is free");
        assert!(!is_new(11));
        assert!(is_new(5 * WINDOW));
        assert!(is_new(5 * WINDOW - 1));
        assert!(is_new(4 * WINDOW + 10));
        assert!(!is_new(4 * WINDOW));
    }
}
