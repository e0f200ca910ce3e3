use super::versions::{Version, Versions};
use super::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

fn append(key: Key, element: Element) -> Step {
    Step::Append { key, element }
}

fn read(key: Key, list: &[Element]) -> Step {
    let list = list.to_vec();
    Step::Read { key, list }
}

fn tail(key: Key, last: Option<Element>) -> Step {
    Step::Tail { key, last }
}

/// A transaction of a client of its own.
fn at(called: Micros, returned: Micros, steps: &[Step]) -> Transaction {
    Transaction {
        client: called * 1_000 + returned % 1_000,
        steps: steps.to_vec(),
        outcome: Outcome::Committed,
        moment: Moment::Within,
        timestamp: None,
        called,
        returned,
    }
}

/// At the same time as all others that this makes.
fn concurrent(steps: &[Step]) -> Transaction {
    at(0, 100, steps)
}

fn unknown(called: Micros, steps: &[Step]) -> Transaction {
    Transaction {
        outcome: Outcome::Unknown,
        ..at(called, Micros::MAX, steps)
    }
}

fn aborted(steps: &[Step]) -> Transaction {
    Transaction {
        outcome: Outcome::Aborted,
        ..concurrent(steps)
    }
}

fn past(called: Micros, returned: Micros, steps: &[Step]) -> Transaction {
    Transaction {
        moment: Moment::Past,
        ..at(called, returned, steps)
    }
}

fn classes(history: &[Transaction], promise: Promise) -> Vec<String> {
    let anomalies = check(history, promise);
    anomalies
        .iter()
        .map(|anomaly| anomaly.class.to_string())
        .collect()
}

#[track_caller]
fn holds(history: &[Transaction], promise: Promise) {
    assert_eq!(check(history, promise), [], "{promise:?}");
}

#[track_caller]
fn breaks(history: &[Transaction], promise: Promise, class: &str) {
    assert_eq!(classes(history, promise), [class], "{promise:?}");
}

#[test]
fn what_happened_one_after_the_other_is_strict() {
    let history = [
        at(0, 1, &[read(1, &[]), append(1, 10), read(1, &[10])]),
        at(2, 3, &[append(1, 11), append(2, 20)]),
        at(4, 5, &[tail(1, Some(11)), append(1, 12), append(1, 13)]),
        at(6, 7, &[read(1, &[10, 11, 12, 13]), read(2, &[20])]),
        aborted(&[append(1, 14), read(1, &[10, 14])]),
    ];
    holds(&history, Promise::Strict);
    holds(&[], Promise::Strict);
}

#[test]
fn what_contradicts_itself_is_internal() {
    breaks(
        &[concurrent(&[append(1, 10), read(1, &[])])],
        Promise::Serializable,
        "internal",
    );
    let history = [
        concurrent(&[append(1, 10)]),
        concurrent(&[read(1, &[]), read(1, &[10])]),
    ];
    assert!(classes(&history, Promise::Serializable).contains(&"internal".into()));
    let history = [
        concurrent(&[append(1, 10)]),
        concurrent(&[tail(1, None), read(1, &[10])]),
    ];
    assert!(classes(&history, Promise::Serializable).contains(&"internal".into()));
}

#[test]
fn what_nobody_appended_is_invented() {
    breaks(
        &[concurrent(&[read(1, &[10])])],
        Promise::Serializable,
        "invented",
    );
}

#[test]
fn an_element_comes_once() {
    let history = [
        concurrent(&[append(1, 10)]),
        concurrent(&[read(1, &[10, 10])]),
    ];
    breaks(&history, Promise::Serializable, "duplicate");
}

#[test]
fn lists_of_one_key_are_prefixes_of_each_other() {
    let history = [
        concurrent(&[append(1, 10)]),
        concurrent(&[append(1, 11)]),
        concurrent(&[read(1, &[10, 11])]),
        concurrent(&[read(1, &[11])]),
    ];
    breaks(&history, Promise::Serializable, "incompatible-order");
    // As one transaction appended them.
    let history = [
        concurrent(&[append(1, 10), append(1, 11)]),
        concurrent(&[read(1, &[11, 10])]),
    ];
    assert!(classes(&history, Promise::Serializable).contains(&"incompatible-order".into()));
}

#[test]
fn g1a_reads_what_was_rolled_back() {
    let history = [
        aborted(&[append(1, 10)]),
        concurrent(&[read(1, &[10])]),
        concurrent(&[tail(1, Some(10))]),
    ];
    breaks(&history, Promise::Serializable, "G1a");
}

#[test]
fn g1b_reads_between_two_appends_of_one_transaction() {
    let history = [
        concurrent(&[append(1, 10), append(1, 11)]),
        concurrent(&[read(1, &[10])]),
    ];
    assert!(classes(&history, Promise::Serializable).contains(&"G1b".into()));
}

#[test]
fn g0_interleaves_writes() {
    let history = [
        concurrent(&[append(1, 10), append(2, 20)]),
        concurrent(&[append(1, 11), append(2, 21)]),
        concurrent(&[read(1, &[10, 11])]),
        concurrent(&[read(2, &[21, 20])]),
    ];
    breaks(&history, Promise::Serializable, "G0");
}

#[test]
fn g1c_lets_two_transactions_see_each_other() {
    let history = [
        concurrent(&[append(1, 10), read(2, &[20])]),
        concurrent(&[append(2, 20), read(1, &[10])]),
    ];
    breaks(&history, Promise::Serializable, "G1c");
}

#[test]
fn g_single_sees_half_of_a_transaction() {
    let history = [
        concurrent(&[append(1, 10), append(2, 20)]),
        concurrent(&[read(1, &[10]), read(2, &[])]),
    ];
    breaks(&history, Promise::Serializable, "G-single");
    // A lost update.
    let history = [
        concurrent(&[read(1, &[]), append(1, 10)]),
        concurrent(&[read(1, &[]), append(1, 11)]),
        concurrent(&[read(1, &[10, 11])]),
    ];
    breaks(&history, Promise::Serializable, "G-single");
}

#[test]
fn g2_is_write_skew() {
    let history = [
        concurrent(&[read(1, &[]), read(2, &[]), append(1, 10)]),
        concurrent(&[read(1, &[]), read(2, &[]), append(2, 20)]),
    ];
    breaks(&history, Promise::Serializable, "G2-item");
    // Two that read disagree about the order of two that write.
    let history = [
        concurrent(&[append(1, 10)]),
        concurrent(&[append(2, 20)]),
        concurrent(&[read(1, &[10]), read(2, &[])]),
        concurrent(&[read(1, &[]), read(2, &[20])]),
    ];
    breaks(&history, Promise::Serializable, "G2-item");
}

#[test]
fn a_stale_read_breaks_real_time_alone() {
    let stale = [at(0, 1, &[append(1, 10)]), at(2, 3, &[read(1, &[])])];
    holds(&stale, Promise::Serializable);
    breaks(&stale, Promise::PerKey, "G-single-realtime");
    breaks(&stale, Promise::Strict, "G-single-realtime");
    let own: Vec<Transaction> = stale
        .into_iter()
        .map(|transaction| Transaction {
            client: 7,
            ..transaction
        })
        .collect();
    breaks(&own, Promise::Strict, "G-single-process");
    // Whoever asks for the past gets it; but not the future, and not half of a transaction.
    let history = [at(0, 1, &[append(1, 10)]), past(2, 3, &[read(1, &[])])];
    holds(&history, Promise::Strict);
    let history = [past(0, 1, &[read(1, &[10])]), at(2, 3, &[append(1, 10)])];
    breaks(&history, Promise::Strict, "G1c-realtime");
    let history = [
        at(0, 1, &[append(1, 10), append(2, 20)]),
        past(2, 3, &[read(1, &[10]), read(2, &[])]),
    ];
    breaks(&history, Promise::Serializable, "G-single");
}

#[test]
fn appends_out_of_the_order_of_time_are_g0() {
    let history = [
        at(0, 1, &[append(1, 10)]),
        at(2, 3, &[append(1, 11)]),
        at(4, 5, &[read(1, &[11, 10])]),
    ];
    holds(&history, Promise::Serializable);
    breaks(&history, Promise::PerKey, "G0-realtime");
}

#[test]
fn real_time_may_bind_one_key_and_not_two() {
    // The second append of the past is seen without the first: an order by commit timestamps may do that.
    let history = [
        at(0, 1, &[append(1, 10)]),
        at(2, 3, &[append(2, 20)]),
        at(4, 9, &[read(1, &[]), read(2, &[20])]),
        at(4, 9, &[read(1, &[10])]),
    ];
    let mut history = history;
    breaks(&history, Promise::PerKey, "G-single-realtime");
    history[2].moment = Moment::Past;
    holds(&history, Promise::PerKey);
    assert!(!check(&history, Promise::Strict).is_empty());
}

#[test]
fn what_was_acknowledged_does_not_vanish() {
    // Nobody ever sees 11.
    let history = [
        at(0, 1, &[append(1, 10)]),
        at(2, 3, &[append(1, 11)]),
        at(4, 5, &[read(1, &[10])]),
    ];
    breaks(&history, Promise::PerKey, "G-single-realtime");
}

#[test]
fn an_unknown_outcome_is_free_until_it_is_seen() {
    let maybe = unknown(0, &[append(1, 10), append(2, 20)]);
    let history = [maybe.clone(), at(5, 6, &[read(1, &[]), read(2, &[])])];
    holds(&history, Promise::Strict);
    let history = [
        maybe.clone(),
        at(5, 6, &[read(1, &[]), read(2, &[])]),
        at(7, 8, &[read(1, &[10]), read(2, &[20])]),
    ];
    holds(&history, Promise::Strict);
    // All of it or nothing.
    let history = [maybe.clone(), at(5, 6, &[read(1, &[10]), read(2, &[])])];
    breaks(&history, Promise::Serializable, "G-single");
    // What it saw counts as soon as it does.
    let history = [
        unknown(0, &[append(3, 30), append(1, 10)]),
        unknown(0, &[read(1, &[]), append(2, 20)]),
        at(5, 6, &[read(2, &[20]), read(1, &[10])]),
    ];
    holds(&history, Promise::Serializable);
    let history = [
        at(0, 1, &[append(1, 10)]),
        unknown(2, &[read(1, &[]), append(2, 20)]),
        at(5, 6, &[read(2, &[20])]),
    ];
    breaks(&history, Promise::PerKey, "G-single-realtime");
    // Not before it began.
    let history = [at(0, 1, &[read(1, &[10])]), unknown(2, &[append(1, 10)])];
    breaks(&history, Promise::Strict, "G1c-realtime");
}

#[test]
fn a_story_can_be_followed() {
    let history = [at(0, 1, &[append(1, 10)]), at(2, 3, &[read(1, &[])])];
    let anomalies = check(&history, Promise::Strict);
    let lines = [
        "G-single-realtime: 2 transactions that each came before the next, and the last before the first:",
        "    T0 (client 1, from 0.000000 to 0.000001): appended 10 to key 1",
        "    T1 (client 2003, from 0.000002 to 0.000003): read key 1 as []",
        "  T0 before T1: T0 had returned at 0.000001 s, and T1 was called at 0.000002 s",
        "  T1 before T0: T1 saw key 1 empty, without the 10 that T0 appended",
    ];
    assert_eq!(anomalies[0].to_string(), lines.join("\n"));
}

/// Whether `second` must come behind `first` whatever they saw: the definition, where the graph has a reduction.
fn must_follow(first: &Transaction, second: &Transaction, promise: Promise) -> bool {
    let in_time = first.returned < second.called && second.moment == Moment::Within;
    let touches = |transaction: &Transaction, key| {
        let mut steps = transaction.steps.iter();
        steps.any(|step| step.key() == key)
    };
    in_time
        && match promise {
            Promise::Serializable => false,
            Promise::Strict => true,
            Promise::PerKey => (0..KEYS).any(|key| {
                touches(first, key)
                    && touches(second, key)
                    && [first, second]
                        .iter()
                        .any(|one| one.appends_to(key) || one.only_reads(key))
            }),
        }
}

/// The oracle: tries every order of every choice of what happened.
struct Oracle<'a> {
    history: &'a [Transaction],
    promise: Promise,
    happened: Vec<bool>,
}

impl Oracle<'_> {
    fn explains(history: &[Transaction], promise: Promise) -> bool {
        let in_doubt: Vec<usize> = (0..history.len())
            .filter(|index| history[*index].outcome == Outcome::Unknown)
            .collect();
        (0..1_u32 << in_doubt.len()).any(|choice| {
            let mut happened: Vec<bool> = history
                .iter()
                .map(|transaction| transaction.outcome == Outcome::Committed)
                .collect();
            for (bit, index) in in_doubt.iter().enumerate() {
                happened[*index] = choice & (1 << bit) != 0;
            }
            let mut oracle = Oracle {
                history,
                promise,
                happened,
            };
            oracle.completes(&BTreeMap::new())
        })
    }

    fn completes(&mut self, lists: &BTreeMap<Key, Vec<Element>>) -> bool {
        let left: Vec<usize> = (0..self.history.len())
            .filter(|index| self.happened[*index])
            .collect();
        if left.is_empty() {
            return true;
        }
        left.iter().any(|next| {
            let transaction = &self.history[*next];
            let is_too_early = left
                .iter()
                .any(|other| must_follow(&self.history[*other], transaction, self.promise));
            if is_too_early {
                return false;
            }
            let Some(lists) = execute(transaction, lists) else {
                return false;
            };
            self.happened[*next] = false;
            let completes = self.completes(&lists);
            self.happened[*next] = true;
            completes
        })
    }
}

/// The lists after a transaction, if it can have seen what it says.
fn execute(
    transaction: &Transaction,
    lists: &BTreeMap<Key, Vec<Element>>,
) -> Option<BTreeMap<Key, Vec<Element>>> {
    let mut lists = lists.clone();
    for step in &transaction.steps {
        let held = lists.entry(step.key()).or_default();
        match step {
            Step::Append { element, .. } => held.push(*element),
            Step::Read { list, .. } if list == held => {}
            Step::Tail { last, .. } if last.as_ref() == held.last() => {}
            Step::Read { .. } | Step::Tail { .. } => return None,
        }
    }
    Some(lists)
}

const KEYS: u64 = 2;

/// A small history: what some order would show, at times that may not agree with it, and now and then a lie.
fn draw(random: &mut SmallRng) -> Vec<Transaction> {
    let mut states: Vec<BTreeMap<Key, Vec<Element>>> = vec![BTreeMap::new()];
    let mut history = Vec::new();
    let mut next_element = 10;
    for place in 0..random.random_range(2..6) {
        let moment = match random.random_bool(0.15) {
            true => Moment::Past,
            false => Moment::Within,
        };
        let outcome = match random.random_range(0..20) {
            _ if moment == Moment::Past => Outcome::Committed,
            0 => Outcome::Aborted,
            1..4 => Outcome::Unknown,
            _ => Outcome::Committed,
        };
        let mut lists = match moment {
            Moment::Within => states[states.len() - 1].clone(),
            Moment::Past => states[random.random_range(0..states.len())].clone(),
        };
        let mut steps = Vec::new();
        for _ in 0..random.random_range(1..4) {
            let key = random.random_range(0..KEYS);
            let list = lists.entry(key).or_default();
            steps.push(match random.random_range(0..7) {
                0..3 if moment == Moment::Within => {
                    next_element += 1;
                    list.push(next_element);
                    append(key, next_element)
                }
                3 => tail(key, list.last().copied()),
                _ => read(key, list),
            });
        }
        if outcome == Outcome::Committed || random.random_bool(0.5) {
            states.push(lists);
        }
        let called = (place * 10 + random.random_range(0..30)) as Micros;
        history.push(Transaction {
            outcome,
            moment,
            returned: match outcome {
                Outcome::Unknown => Micros::MAX,
                _ => called + random.random_range(1..30),
            },
            ..at(called, 0, &steps)
        });
    }
    if random.random_bool(0.6) {
        lie(&mut history, random);
    }
    history
}

fn lie(history: &mut [Transaction], random: &mut SmallRng) {
    let liar = random.random_range(0..history.len());
    let stranger = random.random_range(11..16);
    for step in &mut history[liar].steps {
        let Step::Read { list, .. } = step else {
            continue;
        };
        match random.random_range(0..4) {
            0 => {
                list.pop();
            }
            1 if list.len() > 1 => {
                let last = list.len() - 1;
                list.swap(last, last - 1);
            }
            2 => list.push(stranger),
            _ => list.clear(),
        }
    }
}

/// Whether all that was read of each key has its place in the longest list.
fn is_placed(history: &[Transaction]) -> bool {
    let versions = Versions::infer(history, &mut Vec::new());
    let mut observations = versions.observations.iter();
    observations.all(|observation| matches!(observation.version, Version::Length(_)))
}

/// Whether all that our judge knows of a history, the other one hears too.
#[cfg(feature = "nodes")]
fn is_fully_told(history: &[Transaction]) -> bool {
    history.iter().all(|transaction| {
        let mut steps = transaction.steps.iter();
        transaction.outcome != Outcome::Unknown
            && steps.all(|step| !matches!(step, Step::Tail { .. }))
    })
}

#[cfg(feature = "nodes")]
#[test]
fn the_second_opinion_agrees() {
    let mut told = BTreeMap::new();
    for seed in 0..4_000 {
        let mut history = draw(&mut SmallRng::seed_from_u64(seed));
        history.retain(|transaction| transaction.moment == Moment::Within);
        let models = [
            (Promise::Serializable, "serializable"),
            (Promise::Strict, "strict-serializable"),
        ];
        for (promise, model) in models {
            let ours = check(&history, promise);
            let theirs = super::super::second_opinion::anomalies(&history, model);
            // It believes in elements that nobody appended.
            let is_invented = ours.iter().any(|anomaly| anomaly.class == Class::Invented);
            if (is_fully_told(&history) && !is_invented) || ours.is_empty() {
                assert_eq!(
                    ours.is_empty(),
                    theirs.is_empty(),
                    "seed {seed}, {model}: {ours:#?}\n{theirs:#?}\n{history:#?}"
                );
            }
            *told.entry((model, theirs.is_empty())).or_insert(0) += 1;
        }
    }
    assert!(
        told.len() == 4 && told.values().all(|count| *count > 200),
        "{told:?}"
    );
}

#[test]
fn the_judgement_is_that_of_trying_every_order() {
    let (mut good, mut bad) = (BTreeMap::new(), BTreeMap::new());
    for seed in 0..30_000 {
        let history = draw(&mut SmallRng::seed_from_u64(seed));
        for promise in [Promise::Serializable, Promise::PerKey, Promise::Strict] {
            let anomalies = check(&history, promise);
            let is_explained = Oracle::explains(&history, promise);
            if is_explained || is_placed(&history) {
                assert_eq!(
                    anomalies.is_empty(),
                    is_explained,
                    "seed {seed}, {promise:?}: {anomalies:#?}\n{history:#?}"
                );
            }
            let count = match is_explained {
                true => &mut good,
                false => &mut bad,
            };
            *count.entry(format!("{promise:?}")).or_insert(0) += 1;
            for anomaly in anomalies {
                *bad.entry(anomaly.class.to_string()).or_insert(0) += 1;
            }
        }
    }
    // Both kinds are among them, and every class of anomalies.
    assert!(good.values().all(|count| *count > 5_000), "{good:?}");
    assert!(bad.len() >= 15, "{} classes were drawn: {bad:?}", bad.len());
}
