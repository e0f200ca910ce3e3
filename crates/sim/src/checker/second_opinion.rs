//! What the crate `adya`, an independent implementation of Elle, says about a history of `serializable`: where the two
//! judges disagree, one of them is wrong.
//!
//! It hears less than our own judge does: nothing of steps that saw only the end of a list, nor of what a transaction
//! of unknown outcome saw. So an anomaly that it finds must be one for ours as well; the other way round that holds
//! for histories without such steps and outcomes.

use super::serializable::{Outcome, Step, Transaction};
use adya::history::{Interner, Mop, Op, OpType, ReadValue, Scalar};
use adya::{History, Opts, Valid, Workload};
use std::time::Duration;

/// It spends so long at most on a knot of transactions.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The anomalies that it finds under one of its models (`serializable`, `strict-serializable`), by name, with its
/// explanations. Real time binds all transactions alike: `Moment::Past` is not known to it.
pub fn anomalies(history: &[Transaction], model: &str) -> Vec<String> {
    let options = Opts {
        models: vec![model.into()],
        timeout: TIMEOUT,
        ..Opts::default()
    };
    let report = adya::check(&translate(history), Workload::ListAppend, &options);
    if report.valid != Valid::False {
        return Vec::new();
    }
    report
        .anomalies
        .into_iter()
        .flat_map(|(name, anomalies)| {
            let tell = move |anomaly: adya::Anomaly| format!("{name}: {}", anomaly.explanation);
            anomalies.into_iter().map(tell)
        })
        .collect()
}

/// Each transaction becomes a process of its own, since one of unknown outcome must be its process's last.
fn translate(history: &[Transaction]) -> History {
    let mut interner = Interner::default();
    let mut events = Vec::new();
    for (process, transaction) in history.iter().enumerate() {
        let kind = match transaction.outcome {
            Outcome::Committed => OpType::Ok,
            Outcome::Aborted => OpType::Fail,
            Outcome::Unknown => OpType::Info,
        };
        let mut scalar = |number: u64| interner.intern(Scalar::Int(number as i64));
        let mut steps = Vec::new();
        for step in &transaction.steps {
            match step {
                Step::Append { key, element } => steps.push(Mop::Append {
                    key: scalar(*key),
                    value: scalar(*element),
                }),
                Step::Read { key, list } if kind != OpType::Info => steps.push(Mop::Read {
                    key: scalar(*key),
                    value: ReadValue::List(list.iter().map(|element| scalar(*element)).collect()),
                }),
                Step::Read { .. } | Step::Tail { .. } => {}
            }
        }
        // Who returns when another is called overlaps with it.
        let events_of = [
            (transaction.called, 0, OpType::Invoke),
            (transaction.returned, 1, kind),
        ];
        events.extend(events_of.map(|(at, rank, kind)| {
            let op = Op {
                index: 0,
                kind,
                process: Some(process as i64),
                value: steps.clone(),
                time: i64::try_from(at.saturating_mul(1_000)).ok(),
            };
            ((at, rank), op)
        }));
    }
    events.sort_by_key(|(place, _)| *place);
    let ops = events
        .into_iter()
        .zip(0..)
        .map(|((_, op), index)| Op { index, ..op })
        .collect();
    History::from_ops(ops, interner)
}
