//! What a table's `gc_grace` allows: how long a change may be on its way. Pure.
//!
//! A tombstone may be forgotten only once nothing that it shadows can come back. So a change that was made at `t` is
//! refused by every replica from `t + max(gc_grace / 2, LIFE_MIN)` on: first deliveries, hints and repairs of reads
//! alike carry that moment, however late a message comes.

use model::Timestamp;

const MICROS_PER_SECOND: i64 = 1_000_000;
/// A change may be on its way for so long however short `gc_grace` is: a client's patience is of that order.
const LIFE_MIN_MICROS: i64 = 10 * MICROS_PER_SECOND;

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
