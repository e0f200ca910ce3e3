//! What can be said of each key by itself: which transactions committed, in which order its list grew, which version
//! each of them read; and the anomalies that show here already.

use super::story::{name, shown, tell};
use super::{Anomaly, Class, Element, Key, Outcome, Step, Transaction};
use std::collections::{BTreeMap, BTreeSet};

/// How one key's list grew.
#[derive(Default)]
pub(super) struct Order {
    /// The longest list read: version `n` is its first `n` elements.
    pub seen: Vec<Element>,
    /// What committed transactions appended and nobody saw: comes after all of `seen`, in any order.
    pub unseen: Vec<Element>,
}

/// A version that a transaction read of a key, its own appends not counted.
pub(super) struct Observation {
    pub reader: usize,
    pub key: Key,
    pub version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// The list had so many elements.
    Length(usize),
    /// The list ended with an element that is in no list read.
    Unplaced(Element),
}

pub(super) struct Versions {
    /// Whether a transaction counts, by its index in the history.
    pub is_committed: Vec<bool>,
    /// Who appended an element to a key.
    writers: BTreeMap<(Key, Element), usize>,
    pub orders: BTreeMap<Key, Order>,
    pub observations: Vec<Observation>,
}

/// What a transaction saw of a key before it appended to it itself.
enum Seen {
    List(Vec<Element>),
    Last(Option<Element>),
}

impl Seen {
    fn last(&self) -> Option<Element> {
        match self {
            Seen::List(list) => list.last().copied(),
            Seen::Last(last) => *last,
        }
    }
}

impl Versions {
    pub fn infer(history: &[Transaction], anomalies: &mut Vec<Anomaly>) -> Versions {
        let mut writers = BTreeMap::new();
        for (index, transaction) in history.iter().enumerate() {
            for step in &transaction.steps {
                if let Step::Append { key, element } = step {
                    let before = writers.insert((*key, *element), index);
                    assert_eq!(before, None, "a key's elements are unique");
                }
            }
        }
        let mut versions = Versions {
            is_committed: committed(history, &writers),
            writers,
            orders: BTreeMap::new(),
            observations: Vec::new(),
        };
        let mut seen: Vec<(usize, Key, Seen)> = Vec::new();
        for index in versions.committed() {
            for (key, what) in external(history, index, anomalies) {
                seen.push((index, key, what));
            }
        }
        versions.order(history, &seen, anomalies);
        versions.observe(history, &seen, anomalies);
        versions
    }

    pub fn writer(&self, key: Key, element: Element) -> Option<usize> {
        self.writers.get(&(key, element)).copied()
    }

    pub fn committed(&self) -> impl Iterator<Item = usize> + use<> {
        let committed: Vec<usize> = (0..self.is_committed.len())
            .filter(|index| self.is_committed[*index])
            .collect();
        committed.into_iter()
    }

    /// Finds each key's order, and what in it cannot be.
    fn order(
        &mut self,
        history: &[Transaction],
        seen: &[(usize, Key, Seen)],
        anomalies: &mut Vec<Anomaly>,
    ) {
        for (_, key, what) in seen {
            let order = self.orders.entry(*key).or_default();
            if let Seen::List(list) = what
                && list.len() > order.seen.len()
            {
                order.seen.clone_from(list);
            }
        }
        for index in self.committed() {
            for (key, elements) in appends(&history[index]) {
                let order = self.orders.entry(key).or_default();
                let mut places = elements
                    .iter()
                    .map(|element| order.seen.iter().position(|other| other == element));
                // Its appends must show in the order in which it made them, from the first on.
                if !places
                    .clone()
                    .is_sorted_by_key(|place| (place.is_none(), place))
                {
                    anomalies.push(Anomaly {
                        class: Class::IncompatibleOrder,
                        story: format!(
                            "key {key} became {}, which does not fit the order of appends of\n{}",
                            shown(&order.seen),
                            tell(history, index)
                        ),
                    });
                }
                let unseen = elements
                    .iter()
                    .filter(|_| places.next().flatten().is_none());
                order.unseen.extend(unseen);
            }
        }
        for (key, order) in &mut self.orders {
            let mut once = BTreeSet::new();
            let double = order.seen.iter().find(|element| !once.insert(**element));
            if let Some(double) = double {
                anomalies.push(Anomaly {
                    class: Class::Duplicate,
                    story: format!("key {key} holds {double} twice: {:?}", order.seen),
                });
                // Such a list is no order.
                order.seen.clear();
            }
        }
    }

    /// Finds the version of each read, and those that are none.
    fn observe(
        &mut self,
        history: &[Transaction],
        seen: &[(usize, Key, Seen)],
        anomalies: &mut Vec<Anomaly>,
    ) {
        for (reader, key, what) in seen {
            let (reader, key) = (*reader, *key);
            let order = &self.orders[&key].seen;
            if let Seen::List(list) = what {
                for element in list {
                    self.judge_element(history, reader, key, *element, anomalies);
                }
                if !order.starts_with(list) {
                    if !order.is_empty() {
                        anomalies.push(Anomaly {
                            class: Class::IncompatibleOrder,
                            story: format!(
                                "key {key} cannot have been both {} and {}, which was read by\n{}",
                                shown(order),
                                shown(list),
                                tell(history, reader)
                            ),
                        });
                    }
                    continue;
                }
            }
            let last = what.last();
            if let (Seen::Last(_), Some(element)) = (what, last) {
                self.judge_element(history, reader, key, element, anomalies);
            }
            if let Some(last) = last {
                self.judge_end(history, reader, key, last, anomalies);
            }
            let version = match (what, last) {
                (Seen::List(list), _) => Version::Length(list.len()),
                (Seen::Last(_), None) => Version::Length(0),
                (Seen::Last(_), Some(last)) => {
                    match order.iter().position(|element| *element == last) {
                        Some(position) => Version::Length(position + 1),
                        None => Version::Unplaced(last),
                    }
                }
            };
            self.observations.push(Observation {
                reader,
                key,
                version,
            });
        }
    }

    /// Whoever sees an element says that it was appended, and for good.
    fn judge_element(
        &self,
        history: &[Transaction],
        reader: usize,
        key: Key,
        element: Element,
        anomalies: &mut Vec<Anomaly>,
    ) {
        let (class, story) = match self.writer(key, element) {
            None => (
                Class::Invented,
                format!("nobody appended {element} to key {key}, where it was read by"),
            ),
            Some(writer) if history[writer].outcome == Outcome::Aborted => (
                Class::AbortedRead,
                format!(
                    "{element} was appended by {}, which was rolled back, and read by",
                    name(writer)
                ),
            ),
            Some(_) => return,
        };
        anomalies.push(Anomaly {
            class,
            story: format!("{story}\n{}", tell(history, reader)),
        });
    }

    /// What a list ends with is the last that its transaction appended to it.
    fn judge_end(
        &self,
        history: &[Transaction],
        reader: usize,
        key: Key,
        last: Element,
        anomalies: &mut Vec<Anomaly>,
    ) {
        let Some(writer) = self.writer(key, last) else {
            return;
        };
        let appended = appends(&history[writer]);
        let Some(newest) = appended.get(&key).and_then(|elements| elements.last()) else {
            return;
        };
        if *newest != last {
            anomalies.push(Anomaly {
                class: Class::IntermediateRead,
                story: format!(
                    "key {key} ended with {last} for {}, but {} appended {newest} as well:\n{}\n{}",
                    name(reader),
                    name(writer),
                    tell(history, writer),
                    tell(history, reader)
                ),
            });
        }
    }
}

/// Which transactions count: those that said so, and those of unknown outcome of which such a one saw something.
fn committed(history: &[Transaction], writers: &BTreeMap<(Key, Element), usize>) -> Vec<bool> {
    let mut is_committed: Vec<bool> = history
        .iter()
        .map(|transaction| transaction.outcome == Outcome::Committed)
        .collect();
    let mut fresh: Vec<usize> = (0..history.len())
        .filter(|index| is_committed[*index])
        .collect();
    while let Some(reader) = fresh.pop() {
        for step in &history[reader].steps {
            let elements = match step {
                Step::Read { list, .. } => list.as_slice(),
                Step::Tail { last, .. } => last.as_slice(),
                Step::Append { .. } => &[],
            };
            for element in elements {
                if let Some(writer) = writers.get(&(step.key(), *element))
                    && !is_committed[*writer]
                    && history[*writer].outcome == Outcome::Unknown
                {
                    is_committed[*writer] = true;
                    fresh.push(*writer);
                }
            }
        }
    }
    is_committed
}

/// What a transaction appended to each key, in order.
pub(super) fn appends(transaction: &Transaction) -> BTreeMap<Key, Vec<Element>> {
    let mut appends: BTreeMap<Key, Vec<Element>> = BTreeMap::new();
    for step in &transaction.steps {
        if let Step::Append { key, element } = step {
            appends.entry(*key).or_default().push(*element);
        }
    }
    appends
}

/// What a transaction saw of each key, without its own appends. All that it saw of one key must be one version.
fn external(
    history: &[Transaction],
    index: usize,
    anomalies: &mut Vec<Anomaly>,
) -> BTreeMap<Key, Seen> {
    let mut seen: BTreeMap<Key, Seen> = BTreeMap::new();
    let mut own: BTreeMap<Key, Vec<Element>> = BTreeMap::new();
    let mut is_consistent = true;
    let all_own = appends(&history[index]);
    let is_own = |key: &Key, element: Element| {
        let own = all_own.get(key);
        own.is_some_and(|own| own.contains(&element))
    };
    for step in &history[index].steps {
        match step {
            Step::Append { key, element } => own.entry(*key).or_default().push(*element),
            Step::Read { key, list } => {
                let own = own.get(key).map_or(&[][..], Vec::as_slice);
                let Some(list) = list.strip_suffix(own) else {
                    is_consistent = false;
                    continue;
                };
                // What it appends later it cannot have seen.
                is_consistent &= !list.iter().any(|element| is_own(key, *element));
                is_consistent &= match seen.get(key) {
                    Some(Seen::List(before)) => before == list,
                    Some(Seen::Last(last)) => last.as_ref() == list.last(),
                    None => true,
                };
                seen.insert(*key, Seen::List(list.to_vec()));
            }
            Step::Tail { key, last } => {
                if let Some(own) = own.get(key).and_then(|own| own.last()) {
                    is_consistent &= Some(*own) == *last;
                    continue;
                }
                is_consistent &= !last.is_some_and(|last| is_own(key, last));
                is_consistent &= seen.get(key).is_none_or(|before| before.last() == *last);
                seen.entry(*key).or_insert(Seen::Last(*last));
            }
        }
    }
    if !is_consistent {
        anomalies.push(Anomaly {
            class: Class::Internal,
            story: format!(
                "a transaction contradicts itself:\n{}",
                tell(history, index)
            ),
        });
    }
    seen
}
