//! What the door counts: requests by method and outcome, and how long they took.

use crate::databases::DatabaseAdmin;
use crate::instances::InstanceAdmin;
use crate::{OperationsService, Spanner};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tonic::Code;

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
    pub(crate) sessions: Gauge,
    pub(crate) transactions: Gauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let requests = Family::<RequestLabels, Counter>::default();
        let services = [
            Spanner::METHODS,
            DatabaseAdmin::METHODS,
            InstanceAdmin::METHODS,
            OperationsService::METHODS,
        ];
        // A rate is known from the first request on only where a zero stood before it.
        for operation in services.into_iter().flatten().copied() {
            let outcome = outcome(Code::Ok);
            let _ = requests.get_or_create(&RequestLabels { operation, outcome });
        }
        Metrics {
            requests,
            // 50 µs to about 13 s.
            latency: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_05, 2.0, 19))
            }),
            sessions: Gauge::default(),
            transactions: Gauge::default(),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("spanner");
        registry.register(
            "requests",
            "Requests by method and outcome (a gRPC status code)",
            self.requests.clone(),
        );
        registry.register(
            "request_seconds",
            "From the decoded request to the last answer",
            self.latency.clone(),
        );
        registry.register("sessions", "Sessions alive", self.sessions.clone());
        registry.register(
            "transactions",
            "Transactions remembered",
            self.transactions.clone(),
        );
    }

    pub(crate) fn measure(&self, operation: &'static str) -> Measured {
        Measured {
            metrics: self.clone(),
            operation,
            began: Instant::now(),
        }
    }
}

/// A request under way.
pub(crate) struct Measured {
    metrics: Metrics,
    operation: &'static str,
    began: Instant,
}

impl Measured {
    pub fn finish(self, code: Code) {
        let (operation, outcome) = (self.operation, outcome(code));
        self.metrics
            .requests
            .get_or_create(&RequestLabels { operation, outcome })
            .inc();
        self.metrics
            .latency
            .get_or_create(&OperationLabels { operation })
            .observe(self.began.elapsed().as_secs_f64());
    }
}

fn outcome(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
