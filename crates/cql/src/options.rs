//! The options of keyspaces and tables: which there are, how they are kept in the catalog, and their defaults.
//!
//! Options that this database has no use for (compaction, compression, caching, …) are checked for their shape,
//! kept, and shown again, so that schemas travel both ways.

use crate::error::Error;
use crate::grammar::ast::{OptionValue, literal};
use crate::grammar::parse_option;
use catalog::{
    Durability, NO_READ_REPAIR, Namespace, Ordering, Protocol, READ_REPAIR, Replication,
    SPECULATIVE_RETRY, Speculation, Table,
};
use std::collections::BTreeMap;

/// Keys of this door's properties begin so.
const PREFIX: &str = "cql/";
/// What `durability = 'periodic'` syncs within, unless it says.
const INTERVAL_MS_DEFAULT: u32 = 100;
const INTERVAL_MS_MIN: u32 = 10;
const INTERVAL_MS_MAX: u32 = 10_000;
/// Seconds after which tombstones may go.
pub const GC_GRACE_SECONDS_DEFAULT: u32 = 864_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text,
    Number,
    Boolean,
    Map,
}

/// Name, shape and default of each table option, but for the two that the catalog has fields for.
const TABLE_OPTIONS: [(&str, Shape, &str); 21] = [
    ("additional_write_policy", Shape::Text, "'99p'"),
    ("allow_auto_snapshot", Shape::Boolean, "true"),
    ("bloom_filter_fp_chance", Shape::Number, "0.01"),
    (
        "caching",
        Shape::Map,
        "{'keys': 'ALL', 'rows_per_partition': 'NONE'}",
    ),
    ("cdc", Shape::Boolean, "false"),
    ("comment", Shape::Text, "''"),
    (
        "compaction",
        Shape::Map,
        "{'class': 'org.apache.cassandra.db.compaction.SizeTieredCompactionStrategy', 'max_threshold': '32', \
         'min_threshold': '4'}",
    ),
    (
        "compression",
        Shape::Map,
        "{'chunk_length_in_kb': '16', 'class': 'org.apache.cassandra.io.compress.LZ4Compressor'}",
    ),
    ("crc_check_chance", Shape::Number, "1.0"),
    ("dclocal_read_repair_chance", Shape::Number, "0.0"),
    ("default_time_to_live", Shape::Number, "0"),
    ("extensions", Shape::Map, "{}"),
    ("gc_grace_seconds", Shape::Number, "864000"),
    ("incremental_backups", Shape::Boolean, "true"),
    ("max_index_interval", Shape::Number, "2048"),
    ("memtable", Shape::Text, "'default'"),
    ("memtable_flush_period_in_ms", Shape::Number, "0"),
    ("min_index_interval", Shape::Number, "128"),
    ("read_repair", Shape::Text, "'BLOCKING'"),
    ("read_repair_chance", Shape::Number, "0.0"),
    ("speculative_retry", Shape::Text, "'99p'"),
];

/// Those that DESCRIBE shows, in its order.
pub const DESCRIBED: [&str; 18] = [
    "additional_write_policy",
    "allow_auto_snapshot",
    "bloom_filter_fp_chance",
    "caching",
    "cdc",
    "comment",
    "compaction",
    "compression",
    "memtable",
    "crc_check_chance",
    "default_time_to_live",
    "gc_grace_seconds",
    "incremental_backups",
    "max_index_interval",
    "memtable_flush_period_in_ms",
    "min_index_interval",
    "read_repair",
    "speculative_retry",
];

/// What WITH of CREATE TABLE or ALTER TABLE comes to.
#[derive(Debug, Default)]
pub struct TableOptions {
    pub gc_grace_seconds: Option<u32>,
    pub default_ttl_seconds: Option<u32>,
    pub properties: BTreeMap<String, String>,
    pub id: Option<[u8; 16]>,
}

pub fn table_options(options: &[(String, OptionValue)]) -> Result<TableOptions, Error> {
    let mut found = TableOptions::default();
    for (name, value) in options {
        if name == "id" {
            let OptionValue::Text(text) = value else {
                return Err(Error::syntax("Invalid value for the property 'id'"));
            };
            let id = crate::grammar::lexer::uuid(text)
                .ok_or_else(|| Error::config("Invalid table id"))?;
            found.id = Some(id);
            continue;
        }
        let (_, shape, _) = TABLE_OPTIONS
            .iter()
            .find(|(known, _, _)| known == name)
            .ok_or_else(|| Error::syntax(format!("Unknown property '{name}'")))?;
        check_shape(name, *shape, value)?;
        match name.as_str() {
            "gc_grace_seconds" => found.gc_grace_seconds = Some(seconds(name, value)?),
            "default_time_to_live" => found.default_ttl_seconds = Some(seconds(name, value)?),
            "speculative_retry" => {
                let policy = speculation(value)?;
                let property = literal(&policy.to_string());
                found.properties.insert(SPECULATIVE_RETRY.into(), property);
            }
            "read_repair" => {
                let value = read_repair(value)?;
                found.properties.insert(READ_REPAIR.into(), value);
            }
            _ => {
                found
                    .properties
                    .insert(format!("{PREFIX}{name}"), show(value, *shape));
            }
        }
    }
    Ok(found)
}

fn check_shape(name: &str, shape: Shape, value: &OptionValue) -> Result<(), Error> {
    let text = match (shape, value) {
        (Shape::Map, OptionValue::Map(pairs)) => {
            let needs_class = name == "compaction" && !pairs.iter().any(|(key, _)| key == "class");
            if needs_class {
                return Err(Error::config(
                    "Missing sub-option 'class' for the 'compaction' option.",
                ));
            }
            return Ok(());
        }
        (Shape::Map, _) => {
            return Err(Error::syntax(format!(
                "Invalid value for property '{name}'. It should be a map."
            )));
        }
        (_, OptionValue::Map(_)) => {
            return Err(Error::syntax(format!(
                "Invalid value for property '{name}'. It should be a string."
            )));
        }
        (_, OptionValue::Text(text)) => text,
    };
    let fits = match shape {
        Shape::Number => text.parse::<f64>().is_ok_and(f64::is_finite),
        Shape::Boolean => is_boolean(text),
        Shape::Text | Shape::Map => true,
    };
    if !fits {
        return Err(Error::syntax(format!("Invalid value {text} for '{name}'")));
    }
    Ok(())
}

fn read_repair(value: &OptionValue) -> Result<String, Error> {
    let chosen = match value {
        OptionValue::Text(text) => literal(&text.to_ascii_uppercase()),
        OptionValue::Map(_) => String::new(),
    };
    match chosen.as_str() {
        "'BLOCKING'" | NO_READ_REPAIR => Ok(chosen),
        _ => Err(Error::config(
            "Invalid value for 'read_repair': it is BLOCKING or NONE",
        )),
    }
}

fn speculation(value: &OptionValue) -> Result<Speculation, Error> {
    let text = match value {
        OptionValue::Text(text) => text.as_str(),
        OptionValue::Map(_) => "",
    };
    Speculation::parse(text).ok_or_else(|| {
        Error::config(format!(
            "Invalid value '{text}' for 'speculative_retry': it is NEVER, ALWAYS, a percentile (99p), a time (50ms), \
             MIN or MAX of a percentile and a time"
        ))
    })
}

fn is_boolean(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

fn seconds(name: &str, value: &OptionValue) -> Result<u32, Error> {
    let OptionValue::Text(text) = value else {
        return Err(Error::syntax(format!("Invalid value for '{name}'")));
    };
    text.parse::<u32>()
        .ok()
        .filter(|seconds| *seconds <= 630_720_000 || name == "gc_grace_seconds")
        .ok_or_else(|| {
            Error::config(format!(
                "{name} must be greater than or equal to 0 and not too large (got {text})"
            ))
        })
}

/// An option's value as CQL text, which is how the catalog keeps it.
fn show(value: &OptionValue, shape: Shape) -> String {
    match value {
        OptionValue::Map(pairs) => show_map(pairs),
        OptionValue::Text(text) if shape == Shape::Text => literal(text),
        OptionValue::Text(text) => text.to_ascii_lowercase(),
    }
}

pub fn show_map(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{}: {}", literal(key), literal(value)))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

/// A table's option as CQL text.
pub fn table_option_text(table: &Table, name: &str) -> String {
    match name {
        "gc_grace_seconds" => table.spec.gc_grace_seconds.to_string(),
        "default_time_to_live" => table.spec.default_ttl_seconds.to_string(),
        _ => table
            .spec
            .properties
            .get(&format!("{PREFIX}{name}"))
            .cloned()
            .unwrap_or_else(|| {
                TABLE_OPTIONS
                    .iter()
                    .find(|(known, _, _)| *known == name)
                    .map_or(String::new(), |(_, _, default)| (*default).to_owned())
            }),
    }
}

/// A table's option as a value.
pub fn table_option(table: &Table, name: &str) -> OptionValue {
    parse_option(&table_option_text(table, name)).unwrap_or(OptionValue::Text(String::new()))
}

/// What WITH of CREATE KEYSPACE or ALTER KEYSPACE comes to, on top of what there is.
pub struct KeyspaceOptions {
    pub replication: Replication,
    pub has_replication: bool,
    pub properties: BTreeMap<String, String>,
}

pub fn keyspace_options(
    keyspace: &str,
    options: &[(String, OptionValue)],
    base: Option<&Namespace>,
    data_centers: &[String],
) -> Result<KeyspaceOptions, Error> {
    let mut found = KeyspaceOptions {
        replication: base.map_or_else(default_replication, |base| base.replication.clone()),
        has_replication: false,
        properties: BTreeMap::new(),
    };
    let mut interval_ms = None;
    let mut is_periodic = None;
    for (name, value) in options {
        match (name.as_str(), value) {
            ("replication", OptionValue::Map(pairs)) => {
                let pairs = expand(keyspace, pairs, data_centers)?;
                replication(keyspace, &pairs, data_centers, &mut found.replication)?;
                found.has_replication = true;
                found
                    .properties
                    .insert(format!("{PREFIX}replication"), show_map(&pairs));
            }
            ("durable_writes", OptionValue::Text(text)) if is_boolean(text) => {
                found
                    .properties
                    .insert(format!("{PREFIX}durable_writes"), text.to_ascii_lowercase());
            }
            ("consistency", OptionValue::Text(text)) => {
                found.replication.protocol = match text.to_ascii_lowercase().as_str() {
                    "strong" => Protocol::Strong,
                    "eventual" => Protocol::Eventual,
                    _ => {
                        return Err(Error::config(format!(
                            "consistency must be 'strong' or 'eventual', not '{text}'"
                        )));
                    }
                };
            }
            ("durability", OptionValue::Text(text)) => {
                is_periodic = Some(match text.to_ascii_lowercase().as_str() {
                    "synced" => false,
                    "periodic" => true,
                    _ => {
                        return Err(Error::config(format!(
                            "durability must be 'synced' or 'periodic', not '{text}'"
                        )));
                    }
                });
            }
            ("durability_interval_ms", OptionValue::Text(text)) => {
                let range = INTERVAL_MS_MIN..=INTERVAL_MS_MAX;
                interval_ms = Some(text.parse().ok().filter(|ms| range.contains(ms)).ok_or_else(
                    || {
                        Error::config(format!(
                            "durability_interval_ms must lie between {INTERVAL_MS_MIN} and {INTERVAL_MS_MAX}"
                        ))
                    },
                )?);
            }
            ("replication" | "durable_writes" | "consistency" | "durability", _) => {
                return Err(Error::syntax(format!(
                    "Invalid value for property '{name}'"
                )));
            }
            _ => return Err(Error::syntax(format!("Unknown property '{name}'"))),
        }
    }
    match (is_periodic, interval_ms) {
        (Some(false), _) => found.replication.durability = Durability::Synced,
        (None, None) => {}
        (_, interval_ms) => {
            found.replication.durability = Durability::Periodic {
                interval_ms: interval_ms.unwrap_or(INTERVAL_MS_DEFAULT),
            };
        }
    }
    Ok(found)
}

fn default_replication() -> Replication {
    Replication {
        protocol: Protocol::Eventual,
        factor_by_data_center: BTreeMap::new(),
        factor: 0,
        durability: Durability::Synced,
        ordering: Ordering::Conflict,
    }
}

const SIMPLE: &str = "org.apache.cassandra.locator.SimpleStrategy";
const NETWORK: &str = "org.apache.cassandra.locator.NetworkTopologyStrategy";

/// The replication map with the strategy's whole name, and NetworkTopologyStrategy's `replication_factor` said
/// for each data centre.
fn expand(
    keyspace: &str,
    pairs: &[(String, String)],
    data_centers: &[String],
) -> Result<Vec<(String, String)>, Error> {
    let class = pairs
        .iter()
        .find(|(key, _)| key == "class")
        .map(|(_, class)| class.rsplit('.').next().unwrap_or_default())
        .ok_or_else(|| Error::config("Missing replication strategy class"))?;
    let class = match class {
        "SimpleStrategy" => SIMPLE,
        "NetworkTopologyStrategy" => NETWORK,
        other => {
            return Err(Error::config(format!(
                "Unable to find replication strategy class '{other}' for keyspace {keyspace}: there are \
                 SimpleStrategy and NetworkTopologyStrategy"
            )));
        }
    };
    let mut expanded = vec![("class".to_owned(), class.to_owned())];
    for (key, value) in pairs.iter().filter(|(key, _)| key != "class") {
        if class == NETWORK && key == "replication_factor" {
            for data_center in data_centers {
                if !pairs.iter().any(|(key, _)| key == data_center) {
                    expanded.push((data_center.clone(), value.clone()));
                }
            }
        } else {
            expanded.push((key.clone(), value.clone()));
        }
    }
    expanded.sort();
    Ok(expanded)
}

fn replication(
    keyspace: &str,
    pairs: &[(String, String)],
    data_centers: &[String],
    replication: &mut Replication,
) -> Result<(), Error> {
    let factor = |text: &str| {
        text.parse::<u32>().map_err(|_| {
            Error::config(format!(
                "Replication factor must be numeric and non-negative; got '{text}'"
            ))
        })
    };
    replication.factor_by_data_center.clear();
    replication.factor = 0;
    let is_simple = pairs.iter().any(|(_, value)| value == SIMPLE);
    for (key, value) in pairs.iter().filter(|(key, _)| key != "class") {
        if is_simple && key == "replication_factor" {
            replication.factor = factor(value)?;
        } else if !is_simple && data_centers.contains(key) {
            replication
                .factor_by_data_center
                .insert(key.clone(), factor(value)?);
        } else {
            return Err(Error::config(format!(
                "Unrecognized strategy option {{{key}}} passed to {} for keyspace {keyspace}",
                if is_simple {
                    "SimpleStrategy"
                } else {
                    "NetworkTopologyStrategy"
                }
            )));
        }
    }
    if is_simple && replication.factor == 0 {
        return Err(Error::config(
            "SimpleStrategy requires a replication_factor strategy option of at least 1.",
        ));
    }
    if !is_simple {
        replication.factor = replication.factor_by_data_center.values().sum();
        if replication.factor == 0 {
            return Err(Error::config(
                "Configuration for at least one datacenter must be present",
            ));
        }
    }
    Ok(())
}

/// The replication map that a keyspace shows.
pub fn replication_map(namespace: &Namespace) -> Vec<(String, String)> {
    if let Some(text) = namespace.properties.get(&format!("{PREFIX}replication"))
        && let Ok(OptionValue::Map(pairs)) = parse_option(text)
    {
        return pairs;
    }
    // A namespace of another door.
    let by_data_center = &namespace.replication.factor_by_data_center;
    if by_data_center.is_empty() {
        let factor = namespace.replication.factor.max(1);
        return vec![
            ("class".into(), SIMPLE.into()),
            ("replication_factor".into(), factor.to_string()),
        ];
    }
    let mut pairs = vec![("class".to_owned(), NETWORK.to_owned())];
    pairs.extend(
        by_data_center
            .iter()
            .map(|(name, factor)| (name.clone(), factor.to_string())),
    );
    pairs
}

pub fn durable_writes(namespace: &Namespace) -> bool {
    namespace
        .properties
        .get(&format!("{PREFIX}durable_writes"))
        .is_none_or(|text| text == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> OptionValue {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        OptionValue::Map(pairs.iter().map(owned).collect())
    }

    #[test]
    fn read_repair_is_blocking_or_none() {
        let options = |text: &str| {
            let value = OptionValue::Text(text.into());
            table_options(&[("read_repair".to_owned(), value)])
        };
        let kept = options("none").unwrap().properties;
        assert_eq!(kept[READ_REPAIR], NO_READ_REPAIR);
        assert_eq!(READ_REPAIR, format!("{PREFIX}read_repair"));
        assert!(options("BLOCKING").is_ok());
        assert!(options("sometimes").is_err());
    }

    #[test]
    fn keyspaces() {
        let options = [
            (
                "replication".to_owned(),
                map(&[
                    ("class", "NetworkTopologyStrategy"),
                    ("replication_factor", "3"),
                ]),
            ),
            ("consistency".to_owned(), OptionValue::Text("strong".into())),
            (
                "durability".to_owned(),
                OptionValue::Text("periodic".into()),
            ),
        ];
        let found = keyspace_options("k", &options, None, &["dc1".into(), "dc2".into()]).unwrap();
        assert_eq!(found.replication.factor, 6);
        assert_eq!(found.replication.protocol, Protocol::Strong);
        assert_eq!(
            found.replication.durability,
            Durability::Periodic { interval_ms: 100 }
        );
        let unknown = [("replication".to_owned(), map(&[("class", "X")]))];
        assert!(keyspace_options("k", &unknown, None, &[]).is_err());
    }

    #[test]
    fn defaults_can_be_read_back() {
        for (name, shape, default) in TABLE_OPTIONS {
            let value = parse_option(default).unwrap();
            check_shape(name, shape, &value).unwrap();
        }
        for name in DESCRIBED {
            assert!(TABLE_OPTIONS.iter().any(|(known, _, _)| *known == name));
        }
    }
}
