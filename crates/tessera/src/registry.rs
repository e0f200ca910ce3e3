//! The storage's counters as Prometheus metrics, read at each scrape.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use storage::{GROUP_SIZES, Metrics};

/// Registers log and store metrics.
pub fn register(registry: &mut Registry, metrics: Metrics) {
    registry.register_collector(Box::new(StorageCollector(metrics)));
}

struct StorageCollector(Metrics);

impl fmt::Debug for StorageCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StorageCollector")
    }
}

fn load(value: &AtomicU64) -> u64 {
    value.load(Ordering::Relaxed)
}

fn seconds(micros: &AtomicU64) -> f64 {
    load(micros) as f64 / 1e6
}

impl Collector for StorageCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (log, stores) = (&self.0.log, &self.0.stores);
        let counts = [
            ("log_syncs", "Syncs of the log's files", load(&log.syncs)),
            (
                "log_batches",
                "Batches written to the log",
                load(&log.batches),
            ),
            (
                "log_entries",
                "Entries written to the log",
                load(&log.entries),
            ),
            (
                "log_written_bytes",
                "Bytes of entries and records written to the log",
                load(&log.written_bytes),
            ),
            ("store_flushes", "Memtables flushed", load(&stores.flushes)),
            (
                "store_flushed_bytes",
                "Bytes flushed",
                load(&stores.flushed_bytes),
            ),
            (
                "store_compactions",
                "Compactions",
                load(&stores.compactions),
            ),
            (
                "store_failures",
                "Flushes and compactions that failed",
                load(&stores.failures),
            ),
        ];
        for (name, help, value) in counts {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let times = [
            (
                "log_sync_seconds",
                "Seconds spent in syncs of the log",
                seconds(&log.sync_micros),
            ),
            (
                "store_flush_seconds",
                "Seconds spent in flushes",
                seconds(&stores.flush_micros),
            ),
            (
                "store_compaction_seconds",
                "Seconds spent in compactions",
                seconds(&stores.compaction_micros),
            ),
        ];
        for (name, help, value) in times {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let levels = [
            (
                "log_queued_bytes",
                "Bytes waiting for the log",
                load(&log.queued_bytes),
            ),
            (
                "store_unflushed_bytes",
                "Bytes in memtables",
                load(&stores.unflushed_bytes),
            ),
        ];
        for (name, help, value) in levels {
            let gauge = ConstGauge::new(value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let longest = ConstGauge::new(seconds(&log.sync_micros_max));
        let name = "log_sync_seconds_max";
        longest.encode(encoder.encode_descriptor(
            name,
            "The longest sync of the log",
            None,
            longest.metric_type(),
        )?)?;
        let mut groups = encoder.encode_descriptor(
            "log_group_size",
            "Syncs by how many batches they made durable, at most `le`",
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?;
        for (index, count) in log.group_sizes.iter().enumerate() {
            let le = GROUP_SIZES
                .get(index)
                .map_or("+Inf".to_owned(), u64::to_string);
            groups
                .encode_family(&[("le", le.as_str())])?
                .encode_counter::<NoLabelSet, _, u64>(&load(count), None)?;
        }
        Ok(())
    }
}
