//! What timestamps promise, on histories of `serializable`: the commit timestamp of a transaction, and the timestamp
//! of a snapshot, say exactly what is seen.
//!
//! * A snapshot at a timestamp shows every commit at or below it, and nothing above, whichever replicas it came from.
//! * A transaction with locks has seen, of what it read, every commit of others at or below its own timestamp, and nothing
//!   above: its reads still hold at its commit.
//! * On `external` tables, if a commit was acknowledged before another transaction was called, then its timestamp is
//!   smaller (Corbett et al., "Spanner", OSDI 2012, section 4.1.2: external consistency).
//!
//! This asks for more than an order that explains the answers: the order must be that of the timestamps. It takes a
//! history one element at a time, so it is cheap, and what it says is short.

use super::serializable::{Element, Key, Moment, Outcome, Step, Transaction, tell};
use model::Timestamp;
use std::collections::BTreeMap;

/// What is known of one append.
#[derive(Clone, Copy)]
struct Append {
    element: Element,
    at: Timestamp,
    writer: usize,
}

/// Says what contradicts the timestamps, in lines. `is_external`: timestamps follow real time.
pub fn check(history: &[Transaction], is_external: bool) -> Vec<String> {
    let mut appends: BTreeMap<Key, Vec<Append>> = BTreeMap::new();
    for (writer, transaction) in history.iter().enumerate() {
        let Some(at) = transaction.timestamp else {
            continue;
        };
        if transaction.outcome == Outcome::Aborted {
            continue;
        }
        for step in &transaction.steps {
            if let Step::Append { key, element } = step {
                let element = *element;
                appends.entry(*key).or_default().push(Append {
                    element,
                    at,
                    writer,
                });
            }
        }
    }
    let mut complaints = Vec::new();
    for reader in 0..history.len() {
        if history[reader].outcome == Outcome::Committed {
            complaints.extend(judge_reads(history, reader, &appends));
        }
    }
    if is_external {
        complaints.extend(judge_order(history));
    }
    complaints
}

fn judge_reads(
    history: &[Transaction],
    reader: usize,
    appends: &BTreeMap<Key, Vec<Append>>,
) -> Option<String> {
    history[reader].timestamp?;
    history[reader].steps.iter().find_map(|step| {
        let known = appends.get(&step.key())?;
        let others = || known.iter().filter(|append| append.writer != reader);
        let (append, is_seen) = match step {
            Step::Append { .. } => return None,
            Step::Read { list, .. } => {
                let sees = |append: &&Append| list.contains(&append.element);
                others()
                    .map(|append| (append, sees(&append)))
                    .find(|(append, is_seen)| *is_seen != is_visible(history, reader, append))?
            }
            Step::Tail { last, .. } => {
                let end = match last {
                    None => Timestamp(i64::MIN),
                    Some(last) => {
                        let last = known.iter().find(|append| append.element == *last)?;
                        if last.writer == reader {
                            return None;
                        }
                        if !is_visible(history, reader, last) {
                            return Some(complaint(history, reader, last, true));
                        }
                        last.at
                    }
                };
                // Behind the last comes nothing that is visible.
                let newer = others()
                    .find(|append| append.at > end && is_visible(history, reader, append))?;
                (newer, false)
            }
        };
        Some(complaint(history, reader, append, is_seen))
    })
}

/// Whether a commit belongs into what a transaction reads. (One of the same timestamp, on keys that it only reads, has
/// come before it.)
fn is_visible(history: &[Transaction], reader: usize, append: &Append) -> bool {
    let at = history[reader].timestamp;
    at.is_none_or(|at| append.at <= at)
}

fn complaint(history: &[Transaction], reader: usize, append: &Append, is_seen: bool) -> String {
    let verb = if is_seen { "was seen" } else { "was not seen" };
    format!(
        "{} of timestamp {} {verb} at another:\n{}\n{}",
        append.element,
        append.at,
        tell(history, append.writer),
        tell(history, reader)
    )
}

/// Compares each transaction with the latest commit that was acknowledged before it was called.
fn judge_order(history: &[Transaction]) -> Option<String> {
    let mut commits: Vec<(u64, Timestamp, usize)> = (0..history.len())
        .filter(|index| history[*index].outcome == Outcome::Committed && history[*index].appends())
        .filter_map(|index| Some((history[index].returned, history[index].timestamp?, index)))
        .collect();
    commits.sort();
    let mut latest = Vec::with_capacity(commits.len());
    for (_, at, index) in &commits {
        let before = latest.last().copied().unwrap_or((*at, *index));
        latest.push(before.max((*at, *index)));
    }
    history.iter().enumerate().find_map(|(index, later)| {
        let at = later
            .timestamp
            .filter(|_| later.outcome == Outcome::Committed && later.moment == Moment::Within)?;
        let before = commits.partition_point(|(returned, ..)| *returned < later.called);
        let (earlier_at, earlier) = latest[before.checked_sub(1)?];
        let is_ordered = match later.appends() {
            true => earlier_at < at,
            false => earlier_at <= at,
        };
        (!is_ordered).then(|| {
            format!(
                "timestamps do not follow real time:\n{}\n{}",
                tell(history, earlier),
                tell(history, index)
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timestamp: i64, called: u64, steps: &[Step]) -> Transaction {
        Transaction {
            client: 0,
            steps: steps.to_vec(),
            outcome: Outcome::Committed,
            moment: Moment::Within,
            timestamp: Some(Timestamp(timestamp)),
            called,
            returned: called + 1,
        }
    }

    fn past(timestamp: i64, steps: &[Step]) -> Transaction {
        Transaction {
            moment: Moment::Past,
            ..at(timestamp, 1_000, steps)
        }
    }

    fn append(element: Element) -> Step {
        Step::Append { key: 1, element }
    }

    fn read(list: &[Element]) -> Step {
        let list = list.to_vec();
        Step::Read { key: 1, list }
    }

    fn tail(last: Option<Element>) -> Step {
        Step::Tail { key: 1, last }
    }

    fn is_well(history: &[Transaction]) -> bool {
        check(history, true).is_empty()
    }

    #[test]
    fn a_snapshot_shows_what_lies_at_or_below_it() {
        let first = at(10, 0, &[append(1)]);
        let second = at(20, 2, &[read(&[1]), append(2), read(&[1, 2])]);
        let snapshots = |snapshot| is_well(&[first.clone(), second.clone(), snapshot]);
        assert!(snapshots(past(9, &[read(&[])])));
        assert!(snapshots(past(10, &[read(&[1])])));
        assert!(snapshots(past(19, &[read(&[1]), tail(Some(1))])));
        assert!(snapshots(past(20, &[read(&[1, 2])])));
        assert!(!snapshots(past(9, &[read(&[1])])));
        assert!(!snapshots(past(20, &[read(&[1])])));
        assert!(!snapshots(past(20, &[tail(Some(1)), read(&[1])])));
        assert!(!snapshots(past(10, &[read(&[1, 2])])));
        assert!(!snapshots(past(19, &[tail(Some(2))])));
        assert!(!snapshots(past(19, &[tail(None)])));
        assert!(snapshots(past(9, &[tail(None)])));
    }

    #[test]
    fn what_a_transaction_read_holds_at_its_commit() {
        let first = at(10, 0, &[append(1)]);
        assert!(is_well(&[
            first.clone(),
            at(20, 2, &[read(&[1]), append(2)])
        ]));
        // A commit between what it saw and its own.
        let between = at(15, 0, &[append(3)]);
        let lost = at(20, 2, &[read(&[1]), append(2)]);
        assert!(!is_well(&[first.clone(), between.clone(), lost]));
        let lost = at(20, 2, &[tail(Some(1)), append(2)]);
        assert!(!is_well(&[first.clone(), between, lost]));
        // One that it saw, and yet lies above.
        assert!(!is_well(&[first, at(5, 0, &[read(&[1]), append(2)])]));
    }

    #[test]
    fn on_external_tables_timestamps_follow_real_time() {
        let other = |timestamp, called| {
            let step = Step::Append { key: 2, element: 7 };
            at(timestamp, called, &[step])
        };
        let first = at(10, 0, &[append(1)]);
        assert!(is_well(&[first.clone(), other(11, 2)]));
        assert!(is_well(&[first.clone(), other(9, 1)]));
        assert!(!is_well(&[first.clone(), other(9, 2)]));
        assert!(!is_well(&[first.clone(), other(10, 2)]));
        assert_eq!(check(&[first, other(9, 2)], false), [""; 0]);
    }

    #[test]
    fn what_did_not_happen_says_nothing() {
        let mut history = [at(10, 0, &[append(1)]), at(20, 2, &[read(&[])])];
        assert!(!is_well(&history));
        history[0].timestamp = None;
        assert!(is_well(&history));
        history[0].timestamp = Some(Timestamp(10));
        history[0].outcome = Outcome::Aborted;
        assert!(is_well(&history));
    }
}
