//! What the door counts: requests by operation and outcome, and how long they took.

use crate::operation::Operation;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// The outcome of a request that was answered as asked; others are called as their error is.
pub(crate) const OK: &str = "ok";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

/// Clones share their counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    latency: Family<OperationLabels, Histogram, fn() -> Histogram>,
    connections: Gauge,
    in_flight: Gauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let requests = Family::<RequestLabels, Counter>::default();
        // A rate is known from the first request on only where a zero stood before it.
        for operation in Operation::ALL {
            let (operation, outcome) = (operation.name(), OK);
            let _ = requests.get_or_create(&RequestLabels { operation, outcome });
        }
        Metrics {
            requests,
            // 50 µs to about 13 s.
            latency: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_05, 2.0, 19))
            }),
            connections: Gauge::default(),
            in_flight: Gauge::default(),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("dynamo");
        registry.register(
            "requests",
            "Requests by operation and outcome (ok, or the error's name)",
            self.requests.clone(),
        );
        registry.register(
            "request_seconds",
            "From the request's last byte to the answer",
            self.latency.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register("in_flight", "Requests under way", self.in_flight.clone());
    }

    /// Counts a request as under way until what is returned is dropped.
    pub(crate) fn enter(&self) -> InFlight<'_> {
        self.in_flight.inc();
        InFlight(&self.in_flight)
    }

    pub(crate) fn request(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        self.requests
            .get_or_create(&RequestLabels { operation, outcome })
            .inc();
        self.latency
            .get_or_create(&OperationLabels { operation })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }
}

/// One request under way; clients that go away drop it too.
pub(crate) struct InFlight<'a>(&'a Gauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
