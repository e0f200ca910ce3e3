//! Version 1 UUIDs: for `now()` and for the positions of list elements.

use model::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

/// From 1582-10-15 to 1970-01-01, in units of 100 ns.
const EPOCH_OFFSET_TICKS: u64 = 122_192_928_000_000_000;
const TICKS_PER_MICRO: u64 = 10;
/// List prepends count backwards from the first instant of 2010, so that all of them lie before every append.
const PREPEND_REFERENCE_MICROS: i64 = 1_262_304_000_000_000;

/// Gives out UUIDs that grow and are never given out twice by this process.
#[derive(Debug)]
pub struct TimeUuids {
    /// Clock sequence and node, random: two processes do not collide.
    tail: [u8; 8],
    last_ticks: AtomicU64,
}

impl TimeUuids {
    /// `random` are 8 random bytes.
    pub fn new(mut random: [u8; 8]) -> TimeUuids {
        random[0] = random[0] & 0x3F | 0x80;
        // The multicast bit says that the node is not a network card's address.
        random[2] |= 0x01;
        TimeUuids {
            tail: random,
            last_ticks: AtomicU64::new(0),
        }
    }

    fn reserve(&self, now: Timestamp, count: u64) -> u64 {
        let ticks = ticks(now);
        let step = |last: u64| Some((last + 1).max(ticks) + count - 1);
        match self
            .last_ticks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
        {
            Ok(last) | Err(last) => (last + 1).max(ticks),
        }
    }

    pub fn next(&self, now: Timestamp) -> [u8; 16] {
        from_ticks(self.reserve(now, 1), self.tail)
    }

    /// Positions behind everything appended so far, ascending.
    pub fn append(&self, now: Timestamp, count: usize) -> Vec<[u8; 16]> {
        let first = self.reserve(now, count as u64);
        (0..count as u64)
            .map(|offset| from_ticks(first + offset, self.tail))
            .collect()
    }

    /// Positions before everything that is there, ascending.
    pub fn prepend(&self, now: Timestamp, count: usize) -> Vec<[u8; 16]> {
        let first = self.reserve(now, count as u64);
        let reference = ticks(Timestamp(PREPEND_REFERENCE_MICROS));
        (0..count as u64)
            .rev()
            .map(|offset| {
                let ahead = (first + offset).saturating_sub(reference);
                from_ticks(reference.saturating_sub(ahead), self.tail)
            })
            .collect()
    }
}

fn ticks(at: Timestamp) -> u64 {
    (EPOCH_OFFSET_TICKS as i64).saturating_add(at.0.saturating_mul(TICKS_PER_MICRO as i64)) as u64
}

fn from_ticks(ticks: u64, tail: [u8; 8]) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid[0..4].copy_from_slice(&(ticks as u32).to_be_bytes());
    uuid[4..6].copy_from_slice(&((ticks >> 32) as u16).to_be_bytes());
    uuid[6..8].copy_from_slice(&((ticks >> 48) as u16 & 0x0FFF | 0x1000).to_be_bytes());
    uuid[8..].copy_from_slice(&tail);
    uuid
}

/// The UUID of one of many things that happened about then, in their order.
pub fn numbered(at: Timestamp, number: u32) -> [u8; 16] {
    let mut tail = [0x80, 0, 0x01, 0, 0, 0, 0, 0];
    tail[4..].copy_from_slice(&number.to_be_bytes());
    from_ticks(ticks(at), tail)
}

/// Microseconds since 1970 of a version 1 UUID.
pub fn micros(uuid: &[u8; 16]) -> Option<i64> {
    if uuid[6] >> 4 != 1 {
        return None;
    }
    let low = u64::from(u32::from_be_bytes([uuid[0], uuid[1], uuid[2], uuid[3]]));
    let middle = u64::from(u16::from_be_bytes([uuid[4], uuid[5]]));
    let high = u64::from(u16::from_be_bytes([uuid[6], uuid[7]]) & 0x0FFF);
    let ticks = high << 48 | middle << 32 | low;
    Some((ticks as i64 - EPOCH_OFFSET_TICKS as i64).div_euclid(TICKS_PER_MICRO as i64))
}

/// The smallest (or largest) UUID that has a millisecond.
pub fn bound(millis: i64, is_upper: bool) -> [u8; 16] {
    let micros = millis.saturating_mul(1000);
    if is_upper {
        from_ticks(ticks(Timestamp(micros)) + 9_999, [0x7F; 8])
    } else {
        from_ticks(ticks(Timestamp(micros)), [0x80; 8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grow_and_tell_the_time() {
        let uuids = TimeUuids::new([7; 8]);
        let now = Timestamp(1_700_000_000_000_000);
        let first = uuids.next(now);
        let second = uuids.next(now);
        assert_ne!(first, second);
        assert_eq!(micros(&first), Some(now.0));
        assert_eq!(micros(&second), Some(now.0));
        let appended = uuids.append(now, 3);
        let prepended = uuids.prepend(now, 3);
        let earlier = uuids.prepend(now, 1);
        assert!(micros(&appended[0]) <= micros(&appended[2]));
        assert!(micros(&prepended[2]) < micros(&appended[0]));
        assert!(micros(&earlier[0]) <= micros(&prepended[0]));
    }
}
