//! What the door counts: requests by operation and outcome, how long they took, connections, prepared statements.

use crate::error::{Error, ErrorKind};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Query,
    Prepare,
    Execute,
    Batch,
}

const OPERATIONS: [&str; 4] = ["query", "prepare", "execute", "batch"];
const OUTCOMES: [&str; 4] = ["ok", "refused", "retry", "broken"];

/// Clones share their counts. The counters of a request are looked up once, not with each request.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    latency: Family<OperationLabels, Histogram, fn() -> Histogram>,
    counters: [[Counter; 4]; 4],
    histograms: [Histogram; 4],
    connections: Gauge,
    pub(crate) prepared: Gauge,
    /// Of all requests under way: what the node's budget is counted with.
    pub(crate) in_flight_bytes: Gauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let requests = Family::<RequestLabels, Counter>::default();
        // 20 µs to about 10 s.
        let latency: Family<OperationLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_02, 2.0, 20)));
        let counters = OPERATIONS.map(|operation| {
            OUTCOMES.map(|outcome| {
                requests
                    .get_or_create(&RequestLabels { operation, outcome })
                    .clone()
            })
        });
        let histograms = OPERATIONS.map(|operation| {
            latency
                .get_or_create(&OperationLabels { operation })
                .clone()
        });
        Metrics {
            requests,
            latency,
            counters,
            histograms,
            connections: Gauge::default(),
            prepared: Gauge::default(),
            in_flight_bytes: Gauge::default(),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("cql");
        registry.register(
            "requests",
            "Requests by operation and outcome (ok, refused, retry, broken)",
            self.requests.clone(),
        );
        registry.register(
            "request_seconds",
            "From the request's last byte to the answer",
            self.latency.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "prepared_statements",
            "Prepared statements kept",
            self.prepared.clone(),
        );
        registry.register(
            "in_flight_bytes",
            "Bytes of requests under way",
            self.in_flight_bytes.clone(),
        );
    }

    pub(crate) fn request(
        &self,
        operation: Operation,
        result: &Result<Vec<u8>, Error>,
        took: Duration,
    ) {
        let outcome = match result {
            Ok(_) => 0,
            Err(error) => match error.kind {
                ErrorKind::Server => 3,
                ErrorKind::Unavailable { .. }
                | ErrorKind::Overloaded
                | ErrorKind::StaleSchema { .. }
                | ErrorKind::IsBootstrapping
                | ErrorKind::WriteTimeout { .. }
                | ErrorKind::ReadTimeout { .. }
                | ErrorKind::ReadFailure { .. }
                | ErrorKind::WriteFailure { .. }
                | ErrorKind::CasWriteUnknown { .. } => 2,
                _ => 1,
            },
        };
        self.counters[operation as usize][outcome].inc();
        self.histograms[operation as usize].observe(took.as_secs_f64());
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }
}
