//! What a run found, for people and as JSON.

use crate::load::Tally;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

#[derive(Clone, Debug, Serialize)]
pub struct Latencies {
    pub count: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub name: String,
    pub seconds: f64,
    pub operations_per_second: f64,
    pub failures: u64,
    pub reads: Option<Latencies>,
    pub writes: Option<Latencies>,
    /// Microseconds of the servers' processor time an operation, where their process ids are known.
    pub server_cpu_us_per_operation: Option<f64>,
    pub server_cpu_seconds: Option<f64>,
    pub server_resident_bytes: Option<u64>,
}

fn latencies(histogram: &Histogram<u64>) -> Option<Latencies> {
    (!histogram.is_empty()).then(|| Latencies {
        count: histogram.len(),
        p50_us: histogram.value_at_quantile(0.5),
        p99_us: histogram.value_at_quantile(0.99),
        p999_us: histogram.value_at_quantile(0.999),
        max_us: histogram.max(),
    })
}

impl Report {
    pub fn new(name: String, tally: &Tally, measured: Duration) -> Report {
        let count = tally.reads.len() + tally.writes.len();
        Report {
            name,
            seconds: measured.as_secs_f64(),
            operations_per_second: count as f64 / measured.as_secs_f64(),
            failures: tally.failures,
            reads: latencies(&tally.reads),
            writes: latencies(&tally.writes),
            server_cpu_us_per_operation: None,
            server_cpu_seconds: None,
            server_resident_bytes: None,
        }
    }

    /// Adds what the servers used while `count` operations were made.
    pub fn set_server(&mut self, cpu_seconds: f64, resident_bytes: u64) {
        let count = self.operations_per_second * self.seconds;
        self.server_cpu_seconds = Some(cpu_seconds);
        self.server_cpu_us_per_operation = (count > 0.0).then(|| cpu_seconds * 1e6 / count);
        self.server_resident_bytes = Some(resident_bytes);
    }

    pub fn heading() -> String {
        format!(
            "{:<34} {:>9} {:>7} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8}",
            "run",
            "ops/s",
            "failed",
            "p50 us",
            "p99 us",
            "p999 us",
            "max us",
            "cpu us/op",
            "rss MB"
        )
    }

    pub fn lines(&self) -> String {
        let mut lines = Vec::new();
        for (kind, latencies) in [("reads", &self.reads), ("writes", &self.writes)] {
            let Some(latencies) = latencies else { continue };
            let share = latencies.count as f64 / self.seconds;
            let cpu = self
                .server_cpu_us_per_operation
                .map_or("-".into(), |cpu| format!("{cpu:.1}"));
            let resident = self
                .server_resident_bytes
                .map_or("-".into(), |bytes| format!("{:.0}", bytes as f64 / 1e6));
            lines.push(format!(
                "{:<34} {share:>9.0} {:>7} {:>8} {:>8} {:>8} {:>8} {cpu:>9} {resident:>8}",
                format!("{} {kind}", self.name),
                self.failures,
                latencies.p50_us,
                latencies.p99_us,
                latencies.p999_us,
                latencies.max_us,
            ));
        }
        if lines.is_empty() {
            lines.push(format!(
                "{:<34} no operation succeeded, {} failed",
                self.name, self.failures
            ));
        }
        lines.join("\n")
    }
}
