//! When a read of an eventual table asks one replica more: the table option `speculative_retry`, as Cassandra 4.1 and later
//! spell it.

use crate::Table;
use std::fmt;

/// Part of the latencies of a table's reads, in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentile(pub u32);

/// When one more replica is asked, if the level has not been reached by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speculation {
    Never,
    /// At once.
    Always,
    /// When that part of the table's reads is done by then.
    Percentile(Percentile),
    After {
        micros: u64,
    },
    /// The earlier of both.
    Earlier(Percentile, u64),
    /// The later of both.
    Later(Percentile, u64),
}

/// The property of a table that holds it, as CQL text.
pub const SPECULATIVE_RETRY: &str = "cql/speculative_retry";
pub const SPECULATION_DEFAULT: Speculation = Speculation::Percentile(Percentile(9_900));

impl Speculation {
    /// `NONE`, `NEVER`, `ALWAYS`, `99p`, `99PERCENTILE`, `50ms`, `MIN(99p,50ms)`, `MAX(99p,50ms)`; `None` if it is none of
    /// these.
    pub fn parse(text: &str) -> Option<Speculation> {
        let text: String = text.split_whitespace().collect();
        let text = text.to_ascii_lowercase();
        match text.as_str() {
            "none" | "never" => return Some(Speculation::Never),
            "always" => return Some(Speculation::Always),
            _ => {}
        }
        let pair = |name: &str| {
            let inner = text.strip_prefix(name)?.strip_prefix('(')?;
            let (one, other) = inner.strip_suffix(')')?.split_once(',')?;
            let parts = (percentile(one), micros(other));
            let turned = (percentile(other), micros(one));
            match (parts, turned) {
                ((Some(part), Some(micros)), _) | (_, (Some(part), Some(micros))) => {
                    Some((part, micros))
                }
                _ => None,
            }
        };
        let earlier = pair("min").map(|(part, micros)| Speculation::Earlier(part, micros));
        let later = pair("max").map(|(part, micros)| Speculation::Later(part, micros));
        let alone = percentile(&text).map(Speculation::Percentile);
        let after = micros(&text).map(|micros| Speculation::After { micros });
        earlier.or(later).or(alone).or(after)
    }
}

/// `99p`, `99.9percentile`.
fn percentile(text: &str) -> Option<Percentile> {
    let number = text.strip_suffix("percentile").or(text.strip_suffix('p'))?;
    let percent: f64 = number.parse().ok()?;
    (0.0..=100.0)
        .contains(&percent)
        .then_some(Percentile((percent * 100.0).round() as u32))
}

/// `50ms`, `2.5ms`.
fn micros(text: &str) -> Option<u64> {
    let millis: f64 = text.strip_suffix("ms")?.parse().ok()?;
    (0.0..=3_600_000.0)
        .contains(&millis)
        .then_some((millis * 1_000.0).round() as u64)
}

impl fmt::Display for Percentile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match rest {
            0 => write!(formatter, "{whole}p"),
            _ => write!(formatter, "{}p", f64::from(self.0) / 100.0),
        }
    }
}

/// As Cassandra shows it.
impl fmt::Display for Speculation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |micros: u64| micros as f64 / 1_000.0;
        match *self {
            Speculation::Never => formatter.write_str("NEVER"),
            Speculation::Always => formatter.write_str("ALWAYS"),
            Speculation::Percentile(part) => write!(formatter, "{part}"),
            Speculation::After { micros } => write!(formatter, "{}ms", ms(micros)),
            Speculation::Earlier(part, micros) => write!(formatter, "MIN({part},{}ms)", ms(micros)),
            Speculation::Later(part, micros) => write!(formatter, "MAX({part},{}ms)", ms(micros)),
        }
    }
}

impl Table {
    pub fn speculation(&self) -> Speculation {
        let property = self.spec.properties.get(SPECULATIVE_RETRY);
        let text = property.map(|text| text.trim_matches('\''));
        text.and_then(Speculation::parse)
            .unwrap_or(SPECULATION_DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read_and_shown_as_cassandra_shows_it() {
        for (text, shown) in [
            ("NONE", "NEVER"),
            ("never", "NEVER"),
            ("Always", "ALWAYS"),
            ("99p", "99p"),
            ("99.9PERCENTILE", "99.9p"),
            ("50ms", "50ms"),
            ("2.5MS", "2.5ms"),
            ("MIN(99p, 50ms)", "MIN(99p,50ms)"),
            ("max( 20ms ,90percentile )", "MAX(90p,20ms)"),
        ] {
            let parsed = Speculation::parse(text).map(|it| it.to_string());
            assert_eq!(parsed.as_deref(), Some(shown), "{text}");
        }
        for wrong in [
            "",
            "99",
            "101p",
            "-1p",
            "p",
            "ms",
            "-5ms",
            "soon",
            "MIN(99p)",
            "MIN(1ms,2ms)",
            "MAX(99p,98p)",
            "NaNp",
        ] {
            assert_eq!(Speculation::parse(wrong), None, "{wrong}");
        }
    }
}
