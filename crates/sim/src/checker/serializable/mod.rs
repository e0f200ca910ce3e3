//! Serializability of transactions that append to lists and read them, and how much of it follows real time: the
//! method of Elle (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", VLDB
//! 2020), with the classes of Adya ("Weak Consistency", 1999).
//!
//! A list shows the order in which it was made: whoever reads `[3 7 5]` says that 7 was appended next after 3. So the
//! longest list read of a key is the order of the key's versions, and from it follow, between transactions,
//!
//! * *ww*: one appended next after what the other had appended;
//! * *wr*: one read what the other had appended last;
//! * *rw*: one read a list that the other appended next to.
//!
//! Together with the order of real time these say who came before whom. If nobody comes before itself there is an
//! order that explains every answer; a cycle is an anomaly, and its edges are the proof.
//!
//! A key's elements are unique. A transaction of unknown outcome counts as committed if somebody saw one of its
//! elements, and is left out otherwise: what nobody saw need not have happened. What a committed transaction appended
//! and nobody saw comes after all that was read of that key. Under these rules the judgement is exact, apart from
//! `Step::Tail` of an element that is in no list read.
//!
//! # What is promised
//! | table's ordering | transactions | promise |
//! |---|---|---|
//! | `external` | all | `Strict`: an order as real time has it, reads of the past placed anywhere before their return |
//! | `conflict` | all | `PerKey`: an order, in which what touches one key is as real time has it |
//!
//! A strong read of several keys is one transaction on an `external` table, and one transaction a key on a
//! `conflict` table, where it promises no more.

mod graph;
mod story;
#[cfg(test)]
mod tests;
mod versions;

use super::Micros;
use graph::Graph;
use model::Timestamp;
use std::fmt;
pub(super) use story::tell;
use versions::Versions;

pub type Key = u64;
pub type Element = u64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Append {
        key: Key,
        element: Element,
    },
    /// Saw the whole list, what the transaction itself had appended included.
    Read {
        key: Key,
        list: Vec<Element>,
    },
    /// Saw only what the list ended with: a condition that held.
    Tail {
        key: Key,
        last: Option<Element>,
    },
}

impl Step {
    pub fn key(&self) -> Key {
        match self {
            Step::Append { key, .. } | Step::Read { key, .. } | Step::Tail { key, .. } => *key,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    /// Certainly did not happen.
    Aborted,
    Unknown,
}

/// When a transaction takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At one moment between its call and its return.
    Within,
    /// It reads a snapshot, of whatever time before its return.
    Past,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub client: u64,
    /// In the order in which they were done.
    pub steps: Vec<Step>,
    pub outcome: Outcome,
    pub moment: Moment,
    /// Of its commit or its snapshot, as far as known; only the checker `timestamps` judges it.
    pub timestamp: Option<Timestamp>,
    pub called: Micros,
    /// `Micros::MAX` when no answer came.
    pub returned: Micros,
}

impl Transaction {
    pub fn appends(&self) -> bool {
        let mut steps = self.steps.iter();
        steps.any(|step| matches!(step, Step::Append { .. }))
    }

    fn appends_to(&self, key: Key) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, Step::Append { .. }) && step.key() == key)
    }

    /// Whether it touches nothing but this key, and only reads.
    fn only_reads(&self, key: Key) -> bool {
        self.steps
            .iter()
            .all(|step| step.key() == key && !matches!(step, Step::Append { .. }))
    }
}

/// Which order must explain the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Any.
    Serializable,
    /// One that agrees with real time on transactions that touch a common key, if one of them appends to it or does
    /// nothing but read it. (Two that read a common key among others may be ordered by what else they did.)
    PerKey,
    /// One that agrees with real time.
    Strict,
}

/// Kinds of anomalies, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A transaction did not see what it had itself read or appended before.
    Internal,
    /// Somebody saw what nobody appended.
    Invented,
    /// A list holds one element twice.
    Duplicate,
    /// Two lists of one key disagree about its order, or one disagrees with the order of a transaction's appends.
    IncompatibleOrder,
    /// G1a: somebody saw what was rolled back.
    AbortedRead,
    /// G1b: somebody saw a list between two appends of one transaction.
    IntermediateRead,
    Cycle(Cycle, Clock),
}

/// Kinds of cycles by the edges between data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cycle {
    /// G0: only ww.
    Write,
    /// G1c: ww and wr.
    Information,
    /// G-single: one rw.
    Single,
    /// G2-item: more than one rw.
    AntiDependency,
}

/// Which order besides that of data a cycle needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clock {
    None,
    /// That of one client's transactions.
    Process,
    RealTime,
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Class::Internal => "internal",
            Class::Invented => "invented",
            Class::Duplicate => "duplicate",
            Class::IncompatibleOrder => "incompatible-order",
            Class::AbortedRead => "G1a",
            Class::IntermediateRead => "G1b",
            Class::Cycle(Cycle::Write, _) => "G0",
            Class::Cycle(Cycle::Information, _) => "G1c",
            Class::Cycle(Cycle::Single, _) => "G-single",
            Class::Cycle(Cycle::AntiDependency, _) => "G2-item",
        };
        let suffix = match self {
            Class::Cycle(_, Clock::Process) => "-process",
            Class::Cycle(_, Clock::RealTime) => "-realtime",
            _ => "",
        };
        write!(formatter, "{name}{suffix}")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    pub class: Class,
    /// Who saw what, and why that cannot be, in lines.
    pub story: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.class, self.story)
    }
}

/// Judges a history of lists that were empty at first: all classes of anomalies in it, with one example of each, the
/// worst first.
pub fn check(history: &[Transaction], promise: Promise) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    let versions = Versions::infer(history, &mut anomalies);
    anomalies.extend(Graph::new(history, &versions, promise).anomalies());
    anomalies.sort_by_key(|anomaly| anomaly.class);
    anomalies.dedup_by_key(|anomaly| anomaly.class);
    anomalies
}
