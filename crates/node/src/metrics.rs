//! The node's metrics: requests as the gateway answers them, and what is looked up at each scrape.

use crate::clock::ClockStatus;
use crate::core::Core;
use crate::replicas::Held;
use api::Error;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use quorum::RepairStep;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// Counters of one kind of request; looked up once, since families lock.
pub(crate) struct Requests {
    ok: Counter,
    refused: Counter,
    retry: Counter,
    broken: Counter,
    seconds: Histogram,
}

impl Requests {
    fn new(kind: &'static str, outcomes: &Family<OutcomeLabels, Counter>) -> Requests {
        let counter = |outcome| {
            outcomes
                .get_or_create(&OutcomeLabels { kind, outcome })
                .clone()
        };
        Requests {
            ok: counter("ok"),
            refused: counter("refused"),
            retry: counter("retry"),
            broken: counter("broken"),
            // 50 µs to about 13 s.
            seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 19)),
        }
    }

    pub fn observe<T>(&self, outcome: &Result<T, Error>, elapsed: Duration) {
        let counter = match outcome {
            Ok(_) => &self.ok,
            Err(Error::Refused(_)) => &self.refused,
            Err(Error::Retry(_)) => &self.retry,
            Err(Error::Broken(_)) => &self.broken,
        };
        counter.inc();
        self.seconds.observe(elapsed.as_secs_f64());
    }
}

pub(crate) struct Metrics {
    outcomes: Family<OutcomeLabels, Counter>,
    pub reads: Requests,
    pub writes: Requests,
    pub changes: Requests,
    /// Commits of transactions that span tablets: in two phases.
    pub commits: Requests,
    /// Requests that other nodes sent to this one.
    pub served: Counter,
    /// Of them, those that were refused because too many were in flight.
    pub shed: Counter,
    /// Steps of repair that this node's replicas have led.
    repair_steps: Counter,
    repair_compared_bytes: Counter,
    repair_streamed_rows: Counter,
    repair_streamed_bytes: Counter,
    /// What this node's new replicas of eventual tablets, and those that take over, were sent by others.
    filled_rows: Counter,
    filled_bytes: Counter,
    /// Rows of strong tables that this node has deleted because they had expired.
    expired_rows: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let outcomes = Family::default();
        Metrics {
            reads: Requests::new("read", &outcomes),
            writes: Requests::new("write", &outcomes),
            changes: Requests::new("change", &outcomes),
            commits: Requests::new("commit", &outcomes),
            served: Counter::default(),
            shed: Counter::default(),
            repair_steps: Counter::default(),
            repair_compared_bytes: Counter::default(),
            repair_streamed_rows: Counter::default(),
            repair_streamed_bytes: Counter::default(),
            filled_rows: Counter::default(),
            filled_bytes: Counter::default(),
            expired_rows: Counter::default(),
            outcomes,
        }
    }
}

impl Metrics {
    pub fn repaired(&self, step: &RepairStep) {
        self.repair_steps.inc();
        self.repair_compared_bytes.inc_by(step.compared_bytes);
        self.repair_streamed_rows.inc_by(step.streamed_rows);
        self.repair_streamed_bytes.inc_by(step.streamed_bytes);
    }

    /// A replica here has taken over a page of what another holds.
    pub fn filled(&self, rows: u64, bytes: u64) {
        self.filled_rows.inc_by(rows);
        self.filled_bytes.inc_by(bytes);
    }

    pub fn expired(&self, rows: u64) {
        self.expired_rows.inc_by(rows);
    }

    pub fn register(&self, registry: &mut Registry, core: &Arc<Core>) {
        registry.register(
            "node_requests",
            "Requests at the gateway",
            self.outcomes.clone(),
        );
        for (name, requests) in [
            ("node_read_seconds", &self.reads),
            ("node_write_seconds", &self.writes),
            ("node_change_seconds", &self.changes),
            ("node_commit_seconds", &self.commits),
        ] {
            registry.register(name, "Time to answer", requests.seconds.clone());
        }
        registry.register(
            "node_internode_served",
            "Requests of other nodes",
            self.served.clone(),
        );
        registry.register(
            "node_internode_shed",
            "Requests of other nodes that were refused for want of room",
            self.shed.clone(),
        );
        for (name, help, counter) in [
            (
                "node_repair_steps",
                "Ranges of eventual tablets that were compared",
                &self.repair_steps,
            ),
            (
                "node_repair_compared_bytes",
                "What was compared",
                &self.repair_compared_bytes,
            ),
            (
                "node_repair_streamed_rows",
                "Rows brought to replicas that lacked them",
                &self.repair_streamed_rows,
            ),
            (
                "node_repair_streamed_bytes",
                "Read and sent where replicas differed",
                &self.repair_streamed_bytes,
            ),
            (
                "node_filled_rows",
                "Rows that replicas here were streamed by others, to be filled or to take over",
                &self.filled_rows,
            ),
            ("node_filled_bytes", "Their size", &self.filled_bytes),
            (
                "node_expired_rows",
                "Rows of strong tables that were deleted because they had expired",
                &self.expired_rows,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register_collector(Box::new(Levels(Arc::downgrade(core))));
    }
}

/// What is looked up when somebody asks.
struct Levels(Weak<Core>);

impl fmt::Debug for Levels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Levels")
    }
}

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(core) = self.0.upgrade() else {
            return Ok(());
        };
        let view = core.view();
        let held = core.replicas.all();
        let leases = held.values().filter(|held| match &held.held {
            Held::Strong(strong) => strong.status().is_leaseholder,
            Held::Eventual(_) => false,
        });
        let alive = view
            .state
            .members()
            .filter(|node| core.views.is_alive(node.id));
        for (name, help, value) in [
            ("node_replicas", "Replicas held", held.len()),
            ("node_leases", "Leases held", leases.count()),
            (
                "node_tablets",
                "Tablets of the cluster",
                view.state.tablets().len().saturating_sub(1),
            ),
            (
                "node_splits_under_way",
                "Splits of tablets of the cluster that are not settled",
                view.state.splits().len(),
            ),
            (
                "node_members_alive",
                "Members taken for alive",
                alive.count(),
            ),
            (
                "node_transactions_open",
                "Read-write transactions that clients have open here",
                core.transactions.count(),
            ),
            (
                "node_internode_in_flight",
                "Requests to other nodes that are unanswered",
                core.rpc.in_flight(),
            ),
            (
                "node_hint_bytes",
                "Bytes kept for replicas that have missed writes",
                core.missed.size_bytes() as usize,
            ),
            (
                "node_batch_bytes",
                "Bytes of logged batches that are kept until they are written",
                core.batches.size_bytes(),
            ),
            (
                "node_consensus_queue_length",
                "Proposals and messages that wait for the consensus loop",
                core.groups.queue_length(),
            ),
            (
                "node_meta_version",
                "Version of the meta group's state",
                view.state.version() as usize,
            ),
        ] {
            level(&mut encoder, name, help, value as i64)?;
        }
        let hints = core.missed.counts();
        for (name, help, count) in [
            (
                "node_hints_stored",
                "Writes kept for a replica that missed them",
                hints.stored.load(Ordering::Relaxed),
            ),
            (
                "node_hints_replayed",
                "Hints that were delivered",
                hints.replayed.load(Ordering::Relaxed),
            ),
            (
                "node_hints_dropped",
                "Hints that were too old, for a table that is gone, or past the limits",
                hints.dropped.load(Ordering::Relaxed),
            ),
            (
                "node_reads_speculative",
                "Reads of eventual tables that asked one replica more, since others were slow",
                core.speeds.extra_reads(),
            ),
        ] {
            let counter = ConstCounter::new(count);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        encode_clock(&mut encoder, &core.clock.status())
    }
}

fn level(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: i64,
) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(value);
    let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    gauge.encode(metric)
}

/// What is not known has no sample.
fn encode_clock(
    encoder: &mut DescriptorEncoder<'_>,
    clock: &ClockStatus,
) -> Result<(), fmt::Error> {
    let source = Info::new(vec![("source", clock.source.name())]);
    let help = "Whose word the clock's bound is";
    let metric = encoder.encode_descriptor("node_clock", help, None, source.metric_type())?;
    source.encode(metric)?;
    for (name, help, value) in [
        (
            "node_clock_bound_micros",
            "Half the width of the interval that true time lies in",
            clock.bound_micros,
        ),
        (
            "node_clock_offset_micros",
            "How far this machine's wall clock is ahead of the node's time: with the source `cluster`, the master's",
            clock.offset_micros,
        ),
        (
            "node_clock_sample_age_micros",
            "Since the time master was asked for the sample in use",
            clock.sample_age_micros,
        ),
        (
            "node_clock_round_trip_micros",
            "How long that took",
            clock.round_trip_micros,
        ),
        (
            "node_clock_fenced",
            "1 while the node has fenced itself",
            Some(i64::from(clock.fenced.is_some())),
        ),
        (
            "node_clock_usable",
            "1 while strong tables can be served",
            Some(i64::from(clock.error.is_none())),
        ),
    ] {
        if let Some(value) = value {
            level(encoder, name, help, value)?;
        }
    }
    Ok(())
}
