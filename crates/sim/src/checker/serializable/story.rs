//! Anomalies in lines that can be followed without knowing the theory.

use super::graph::{Because, Edge};
use super::{Element, Micros, Moment, Outcome, Step, Transaction};

/// Elements of a list that are shown, from its end.
const SHOWN: usize = 6;

/// A transaction's name in stories: its place in the history.
pub(super) fn name(index: usize) -> String {
    format!("T{index}")
}

/// The end of a list.
pub(super) fn shown(list: &[Element]) -> String {
    let tail = &list[list.len().saturating_sub(SHOWN)..];
    let words: Vec<String> = tail.iter().map(Element::to_string).collect();
    let more = if tail.len() < list.len() { "… " } else { "" };
    format!("[{more}{}]", words.join(" "))
}

fn seconds(micros: Micros) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// Who a transaction was, and what it did and saw.
pub(in crate::checker) fn tell(history: &[Transaction], index: usize) -> String {
    let transaction = &history[index];
    let steps: Vec<String> = transaction
        .steps
        .iter()
        .map(|step| match step {
            Step::Append { key, element } => format!("appended {element} to key {key}"),
            Step::Read { key, list } => format!("read key {key} as {}", shown(list)),
            Step::Tail {
                key,
                last: Some(last),
            } => format!("found key {key} to end with {last}"),
            Step::Tail { key, last: None } => format!("found key {key} empty"),
        })
        .collect();
    let until = match transaction.returned {
        Micros::MAX => "without an answer".to_string(),
        returned => format!("to {}", seconds(returned)),
    };
    let remark = match (transaction.outcome, transaction.moment) {
        (Outcome::Aborted, _) => ", rolled back",
        (Outcome::Unknown, _) => ", outcome unknown",
        (Outcome::Committed, Moment::Past) => ", a read of the past",
        (Outcome::Committed, Moment::Within) => "",
    };
    let at = match transaction.timestamp {
        Some(timestamp) => format!(", timestamp {timestamp}"),
        None => String::new(),
    };
    format!(
        "    {} (client {}, from {} {until}{at}{remark}): {}",
        name(index),
        transaction.client,
        seconds(transaction.called),
        steps.join(", ")
    )
}

fn because(history: &[Transaction], from: usize, edge: Edge) -> String {
    let (first, second) = (name(from), name(edge.to));
    match edge.because {
        Because::WriteWrite { key, before, after } => {
            format!("{second} appended {after} to key {key} behind the {before} of {first}")
        }
        Because::WriteRead { key, element } => {
            format!("{second} saw key {key} end with the {element} of {first}")
        }
        Because::ReadWrite {
            key,
            last: Some(last),
            next,
        } => format!(
            "{first} saw key {key} end with {last}, without the {next} that {second} appended behind it"
        ),
        Because::ReadWrite {
            key,
            last: None,
            next,
        } => format!("{first} saw key {key} empty, without the {next} that {second} appended"),
        Because::Process => format!(
            "client {} called {second} when it had the answer to {first}",
            history[from].client
        ),
        Because::RealTime => format!(
            "{first} had returned at {} s, and {second} was called at {} s",
            seconds(history[from].returned),
            seconds(history[edge.to].called)
        ),
    }
}

/// A cycle: its transactions, and why each came before the next.
pub(super) fn tell_cycle(history: &[Transaction], cycle: &[(usize, Edge)]) -> String {
    let mut lines = vec![format!(
        "{} transactions that each came before the next, and the last before the first:",
        cycle.len()
    )];
    lines.extend(cycle.iter().map(|(index, _)| tell(history, *index)));
    lines.extend(cycle.iter().map(|(from, edge)| {
        format!(
            "  {} before {}: {}",
            name(*from),
            name(edge.to),
            because(history, *from, *edge)
        )
    }));
    lines.join("\n")
}
