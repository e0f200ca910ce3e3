//! What a table's `gc_grace` allows: how long a change may be on its way, and which tombstones may go. Pure.
//!
//! A tombstone may be forgotten when what it shadows is nowhere any more and cannot come back. With
//! `life = max(gc_grace / 2, LIFE_MIN)`, and all times from wall clocks that differ by less than `CLOCK_SLACK`:
//!
//! * A change that was made at `t` is refused by every replica from `t + life` on: first deliveries, hints and repairs
//!   of reads alike carry that moment, however late a message comes. So from then on it is on some replica, or on none
//!   for ever.
//! * A repair of its range that began after that, in which every replica took part, has brought it to all of them. And
//!   a replica that has a tombstone neither keeps in sight nor shows to others what it shadows.
//! * So of a range repaired since `b`, the tombstones made before `b - life - CLOCK_SLACK` shadow nothing anywhere.
//!   They go once they are also older than `gc_grace`, which is the operator's margin on top.
//!
//! A cell with a TTL counts as a tombstone that was made when it expired. While a replica is away no repair is whole and
//! no tombstone goes, so a replica that returns, after whatever time, has missed no purge.

use model::Timestamp;

const MICROS_PER_SECOND: i64 = 1_000_000;
/// A change may be on its way for so long however short `gc_grace` is: a client's patience is of that order.
const LIFE_MIN_MICROS: i64 = 10 * MICROS_PER_SECOND;
/// Wall clocks of nodes are taken to differ by less; nodes that see more say so.
const CLOCK_SLACK_MICROS: i64 = 2 * MICROS_PER_SECOND;

/// Until when replicas take a change that is made now.
pub fn change_expires(now: Timestamp, gc_grace_seconds: u32) -> Timestamp {
    now.plus_micros(life_micros(gc_grace_seconds))
}

/// Until when a change that is made now is worth a hint; `None` when it is worth none.
pub fn hint_expires(
    now: Timestamp,
    gc_grace_seconds: u32,
    age_max_seconds: u32,
) -> Option<Timestamp> {
    let half = i64::from(gc_grace_seconds) * MICROS_PER_SECOND / 2;
    let age_max = half.min(i64::from(age_max_seconds) * MICROS_PER_SECOND);
    (age_max > 0).then(|| now.plus_micros(age_max))
}

/// Tombstones made before this many seconds since 1970 may go, of a range that was repaired since `repaired`.
pub fn purgeable_before(repaired: Timestamp, now: Timestamp, gc_grace_seconds: u32) -> i64 {
    let grace = i64::from(gc_grace_seconds) * MICROS_PER_SECOND;
    let everywhere = repaired.plus_micros(-life_micros(gc_grace_seconds) - CLOCK_SLACK_MICROS);
    everywhere.min(now.plus_micros(-grace)).seconds()
}

fn life_micros(gc_grace_seconds: u32) -> i64 {
    (i64::from(gc_grace_seconds) * MICROS_PER_SECOND / 2).max(LIFE_MIN_MICROS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u32 = 86_400;

    #[test]
    fn a_change_lives_half_of_gc_grace_but_not_less_than_a_client_s_patience() {
        let expires = |grace| change_expires(Timestamp(0), grace).seconds();
        assert_eq!(expires(10 * DAY), i64::from(5 * DAY));
        assert_eq!(expires(4), 10);
        assert_eq!(expires(0), 10);
    }

    #[test]
    fn a_tombstone_goes_when_it_is_old_and_its_range_was_repaired_long_enough_after_it() {
        let second = |second: i64| Timestamp(second * MICROS_PER_SECOND);
        let before = |repaired, now| purgeable_before(second(repaired), second(now), 100);
        assert_eq!(before(1_000, 1_000), 900, "younger than gc_grace");
        assert_eq!(
            before(1_000, 5_000),
            948,
            "half of gc_grace and the slack before the repair"
        );
    }

    #[test]
    fn a_hint_lives_as_long_as_is_asked_and_at_most_half_of_gc_grace() {
        let expires = |grace, age_max| {
            let expires = hint_expires(Timestamp(0), grace, age_max);
            expires.map(Timestamp::seconds)
        };
        assert_eq!(expires(10 * DAY, 10_800), Some(10_800));
        assert_eq!(expires(60, 10_800), Some(30));
        assert_eq!(expires(0, 10_800), None);
        assert_eq!(expires(10 * DAY, 0), None);
    }
}
