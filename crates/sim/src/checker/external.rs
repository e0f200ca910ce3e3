//! External consistency of single writes over many keys (Spanner, OSDI 2012, section 1): if one write was acknowledged
//! before another was asked for, its commit timestamp is the smaller one; and a snapshot at a timestamp shows of every
//! key the newest write up to it. Together: no snapshot shows the second of two writes without the first.

use super::Micros;
use model::Timestamp;
use std::collections::BTreeMap;

/// An acknowledged write. Values are unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: u64,
    pub value: u64,
    pub commit: Timestamp,
    pub called: Micros,
    pub returned: Micros,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub at: Timestamp,
    /// What was shown, by key.
    pub values: BTreeMap<u64, Option<u64>>,
}

/// Says what is wrong, if anything is.
pub fn check(writes: &[Write], snapshots: &[Snapshot]) -> Result<(), String> {
    check_order(writes)?;
    snapshots
        .iter()
        .try_for_each(|snapshot| check_snapshot(writes, snapshot))
}

fn check_order(writes: &[Write]) -> Result<(), String> {
    let mut by_call: Vec<&Write> = writes.iter().collect();
    by_call.sort_by_key(|write| write.called);
    let mut by_return = by_call.clone();
    by_return.sort_by_key(|write| write.returned);
    let mut ended = by_return.into_iter().peekable();
    // Of those that ended before the one looked at began.
    let mut newest: Option<&Write> = None;
    for write in by_call {
        while let Some(before) = ended.next_if(|before| before.returned < write.called) {
            if newest.is_none_or(|newest| newest.commit < before.commit) {
                newest = Some(before);
            }
        }
        if let Some(newest) = newest
            && newest.commit >= write.commit
        {
            return Err(format!(
                "the order of real time is not that of commit timestamps: {newest:?} had ended when {write:?} began"
            ));
        }
    }
    Ok(())
}

fn check_snapshot(writes: &[Write], snapshot: &Snapshot) -> Result<(), String> {
    for (key, shown) in &snapshot.values {
        let of_key = || writes.iter().filter(|write| write.key == *key);
        let shown_at = match shown {
            None => Timestamp::MIN,
            Some(value) => match of_key().find(|write| write.value == *value) {
                Some(write) => write.commit,
                // Its writer never heard: when it was is not known.
                None => continue,
            },
        };
        let missed = of_key().find(|write| write.commit > shown_at && write.commit <= snapshot.at);
        if shown_at > snapshot.at || missed.is_some() {
            return Err(format!(
                "the snapshot at {} shows {shown:?} of key {key} (of {shown_at}), and misses {missed:?}",
                snapshot.at
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: u64, value: u64, commit: i64, called: Micros, returned: Micros) -> Write {
        Write {
            key,
            value,
            commit: Timestamp(commit),
            called,
            returned,
        }
    }

    fn snapshot(at: i64, values: &[(u64, Option<u64>)]) -> Snapshot {
        Snapshot {
            at: Timestamp(at),
            values: values.iter().copied().collect(),
        }
    }

    #[test]
    fn what_overlaps_may_commit_in_either_order() {
        let writes = [write(1, 10, 200, 0, 50), write(2, 20, 100, 40, 90)];
        assert_eq!(check(&writes, &[]), Ok(()));
    }

    #[test]
    fn a_later_write_with_an_earlier_timestamp_is_found() {
        let writes = [
            write(1, 10, 200, 0, 50),
            write(3, 30, 90, 10, 20),
            write(2, 20, 200, 51, 90),
        ];
        assert!(check(&writes, &[]).unwrap_err().contains("real time"));
    }

    #[test]
    fn a_snapshot_shows_the_newest_up_to_it_of_every_key() {
        let writes = [
            write(1, 10, 100, 0, 10),
            write(1, 11, 200, 20, 30),
            write(2, 20, 150, 12, 19),
        ];
        let shows = |at, values: &[(u64, Option<u64>)]| check(&writes, &[snapshot(at, values)]);
        assert_eq!(shows(99, &[(1, None), (2, None)]), Ok(()));
        assert_eq!(shows(150, &[(1, Some(10)), (2, Some(20))]), Ok(()));
        assert!(
            shows(150, &[(1, None), (2, Some(20))]).is_err(),
            "the second without the first"
        );
        assert!(shows(150, &[(1, Some(11))]).is_err(), "from the future");
        assert_eq!(shows(250, &[(1, Some(99))]), Ok(()), "of unknown outcome");
    }
}
