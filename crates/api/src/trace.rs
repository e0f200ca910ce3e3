//! Traces: what one request made nodes do, and when, for a client that asks to know.
//!
//! Whoever does something for a request calls `event`, which costs nothing unless the request is traced: the recorder
//! travels with the request's task, and into tasks that it spawns through `inherit`. A finished trace is kept by the
//! node that coordinated it, within limits and for a while, and with it its recorder: what is done for a request after
//! its answer (a replica beyond its level, say) is shown as well.

use minicbor::{Decode, Encode};
use model::{NodeId, Timestamp};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Events of one trace; later ones are left out.
const EVENTS_MAX: usize = 500;
/// Traces that a node keeps; older ones go first.
const TRACES_MAX: usize = 256;
/// A trace is kept so long.
const KEPT: Duration = Duration::from_secs(3_600);

/// What a request has done.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Trace {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: [u8; 16],
    #[n(1)]
    pub started_at: Timestamp,
    #[n(2)]
    pub duration_micros: u64,
    /// What kind of request it was, in the door's words.
    #[n(3)]
    pub request: String,
    /// Its statement, levels and the like, by name.
    #[n(4)]
    pub parameters: Vec<(String, String)>,
    /// The client's address.
    #[n(5)]
    pub client: Option<String>,
    #[n(6)]
    pub coordinator: NodeId,
    /// In the order in which the coordinator knew of them; some may be later than the answer.
    #[n(7)]
    pub events: Vec<TraceEvent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TraceEvent {
    /// Since the request began, by the coordinator's clock.
    #[n(0)]
    pub elapsed_micros: u64,
    /// Who did it.
    #[n(1)]
    pub source: NodeId,
    #[n(2)]
    pub activity: String,
}

tokio::task_local! {
    static CURRENT: Recorder;
}

/// Collects the events of one request. Clones collect together.
#[derive(Clone, Debug)]
pub struct Recorder {
    began: Instant,
    events: Arc<Mutex<Vec<TraceEvent>>>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder {
            began: Instant::now(),
            events: Arc::default(),
        }
    }
}

impl Recorder {
    /// Carries out a request whose events are collected here.
    pub async fn record<T>(&self, request: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), request).await
    }

    pub fn elapsed_micros(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// What was collected so far.
    pub fn events(&self) -> Vec<TraceEvent> {
        locked(&self.events).clone()
    }
}

/// Notes what a node has done, if the request at hand is traced.
pub fn event(source: NodeId, activity: impl FnOnce() -> String) {
    // Without a recorder nobody asked.
    let _ = CURRENT.try_with(|recorder| {
        let elapsed_micros = recorder.elapsed_micros();
        let mut events = locked(&recorder.events);
        if events.len() < EVENTS_MAX {
            events.push(TraceEvent {
                elapsed_micros,
                source,
                activity: activity(),
            });
        }
    });
}

/// The same future, for a task of its own that works for the request at hand.
pub fn inherit<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let recorder = CURRENT.try_with(Recorder::clone).ok();
    async move {
        match recorder {
            Some(recorder) => CURRENT.scope(recorder, work).await,
            None => work.await,
        }
    }
}

/// The traces that a node keeps.
#[derive(Debug, Default)]
pub struct Traces {
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    since: Instant,
    /// Without its events, which the recorder has.
    trace: Trace,
    recorder: Recorder,
}

impl Traces {
    /// The trace's events are those that its recorder has whenever it is shown.
    pub fn keep(&self, trace: Trace, recorder: Recorder) {
        let mut kept = locked(&self.kept);
        if kept.len() == TRACES_MAX {
            kept.pop_front();
        }
        kept.push_back(Kept {
            since: Instant::now(),
            trace,
            recorder,
        });
    }

    /// Oldest first.
    pub fn all(&self) -> Vec<Trace> {
        let mut kept = locked(&self.kept);
        while kept.front().is_some_and(|it| it.since.elapsed() > KEPT) {
            kept.pop_front();
        }
        let shown = |it: &Kept| Trace {
            events: it.recorder.events(),
            ..it.trace.clone()
        };
        kept.iter().map(shown).collect()
    }
}

/// Nothing panics while it holds one of these.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(number: u8) -> Trace {
        Trace {
            id: [number; 16],
            started_at: Timestamp(1),
            duration_micros: 2,
            request: "test".into(),
            parameters: vec![],
            client: None,
            coordinator: NodeId(1),
            events: vec![],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_a_traced_request_and_its_tasks_are_collected() {
        event(NodeId(1), || unreachable!("nobody traces this"));
        let recorder = Recorder::default();
        recorder
            .record(async {
                event(NodeId(1), || "begins".into());
                tokio::time::sleep(Duration::from_millis(2)).await;
                let task = inherit(async { event(NodeId(2), || "helps".into()) });
                tokio::spawn(task).await.unwrap();
                tokio::spawn(async { event(NodeId(3), || "is not asked".into()) })
                    .await
                    .unwrap();
            })
            .await;
        let events = recorder.events();
        let told: Vec<(u64, NodeId, &str)> = events
            .iter()
            .map(|event| (event.elapsed_micros, event.source, event.activity.as_str()))
            .collect();
        assert_eq!(
            told,
            [(0, NodeId(1), "begins"), (2_000, NodeId(2), "helps")]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn traces_are_kept_within_limits_and_for_a_while() {
        let traces = Traces::default();
        for number in 0..300u16 {
            traces.keep(trace(number as u8), Recorder::default());
        }
        assert_eq!(traces.all().len(), TRACES_MAX);
        tokio::time::advance(KEPT / 2).await;
        let recorder = Recorder::default();
        traces.keep(trace(9), recorder.clone());
        tokio::time::advance(KEPT * 3 / 4).await;
        assert_eq!(traces.all(), [trace(9)]);
        // What comes after the answer belongs to it.
        recorder
            .record(async { event(NodeId(2), || "is late".into()) })
            .await;
        let [late] = traces.all().try_into().unwrap();
        assert_eq!(late.events, recorder.events());
        assert_eq!(late.events.len(), 1);
    }
}
