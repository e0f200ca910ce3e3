//! From restrictions of key columns to keys and key ranges.

use super::term::{Context, Term};
use crate::error::Error;
use api::KeyRange;
use catalog::Table;
use model::key::{self, Direction, prefix_end};
use model::{Type, Value};

/// Keys or ranges that one statement may name: the product of its INs.
const KEYS_MAX: usize = 25_000;
/// What a partition key serializes to at most.
const KEY_SIZE_BYTES_MAX: usize = 65_535;

/// How one key column is restricted.
#[derive(Clone, Debug)]
pub enum Choice {
    Equal(Term),
    In(Vec<Term>),
    /// `IN ?`: a marker of a list.
    InMarker(Term),
}

/// One end of a slice: of one clustering column, or of several together.
#[derive(Clone, Debug)]
pub struct Bound {
    pub terms: TupleTerm,
    pub is_inclusive: bool,
}

#[derive(Clone, Debug)]
pub enum TupleTerm {
    Terms(Vec<Term>),
    /// A marker of a tuple.
    Marker(Term),
}

/// Restrictions on the primary key: all partition columns, the first clustering columns, and perhaps a slice of
/// what follows them.
#[derive(Clone, Debug, Default)]
pub struct KeyPlan {
    pub partition: Vec<Choice>,
    pub clustering: Vec<Choice>,
    /// `(a, b) IN ((1, 2), …)`: instead of `clustering`, or behind it.
    pub tuples: Option<Vec<TupleTerm>>,
    /// A marker of a list of tuples, for the same.
    pub tuples_marker: Option<Term>,
    pub tuple_width: usize,
    pub lower: Option<Bound>,
    pub upper: Option<Bound>,
}

/// A partition, with what is wanted of it.
#[derive(Debug)]
pub struct Partition {
    pub values: Vec<Value>,
    pub header: Vec<u8>,
    pub rows: Rows,
}

#[derive(Debug)]
pub enum Rows {
    /// The whole partition.
    All,
    /// Rows by their whole key, with the clustering values, in key order.
    Keys(Vec<(Vec<u8>, Vec<Value>)>),
    /// In key order, not overlapping.
    Ranges(Vec<KeyRange>),
}

impl KeyPlan {
    /// Whether the plan names whole rows.
    pub fn names_rows(&self, clustering_count: usize) -> bool {
        self.lower.is_none()
            && self.upper.is_none()
            && self.clustering.len() + self.tuple_width == clustering_count
    }

    pub fn restricts_clustering(&self) -> bool {
        !self.clustering.is_empty()
            || self.tuple_width > 0
            || self.lower.is_some()
            || self.upper.is_some()
    }

    pub fn has_in(&self) -> bool {
        self.tuple_width > 0
            || self
                .partition
                .iter()
                .chain(&self.clustering)
                .any(|choice| !matches!(choice, Choice::Equal(_)))
    }

    pub fn has_partition_in(&self) -> bool {
        self.partition
            .iter()
            .any(|choice| !matches!(choice, Choice::Equal(_)))
    }

    /// The markers that are the partition key, where each column is equal to one.
    pub fn key_positions(&self) -> Vec<u16> {
        let positions: Option<Vec<u16>> = self
            .partition
            .iter()
            .map(|choice| match choice {
                Choice::Equal(Term::Marker { index, .. }) => u16::try_from(*index).ok(),
                _ => None,
            })
            .collect();
        positions.unwrap_or_default()
    }

    /// The one row that is meant, with the values of its key, when every key column equals one value: by far the
    /// most common, so it goes the short way. `None` for all other plans.
    pub fn point(
        &self,
        table: &Table,
        context: &Context<'_>,
    ) -> Result<Option<(Vec<Value>, Vec<u8>)>, Error> {
        if self.tuple_width > 0 || self.lower.is_some() || self.upper.is_some() {
            return Ok(None);
        }
        let mut values = Vec::with_capacity(self.partition.len() + self.clustering.len());
        let mut columns = table.key_columns();
        for (choice, column) in self
            .partition
            .iter()
            .chain(&self.clustering)
            .zip(&mut columns)
        {
            let Choice::Equal(term) = choice else {
                return Ok(None);
            };
            values.push(term.required(context, &column.name)?);
        }
        if columns.next().is_some() {
            return Ok(None);
        }
        check_partition_key(table, &values[..self.partition.len()])?;
        let key = table.row_key(&values).map_err(bad_key)?;
        Ok(Some((values, key)))
    }

    /// The partitions that are meant, in the order of their tokens.
    pub fn partitions(
        &self,
        table: &Table,
        context: &Context<'_>,
    ) -> Result<Vec<Partition>, Error> {
        let columns: Vec<_> = table.partition_columns().collect();
        let mut partitions = Vec::new();
        for values in product(&self.partition, context, |index| &columns[index].name)? {
            check_partition_key(table, &values)?;
            let header = table.header_key(&values).map_err(bad_key)?;
            partitions.push((values, header));
        }
        if partitions.len() > 1 {
            partitions.sort_by(|left, right| left.1.cmp(&right.1));
            partitions.dedup_by(|left, right| left.1 == right.1);
        }
        partitions
            .into_iter()
            .map(|(values, header)| {
                let rows = self.rows(table, &values, context)?;
                Ok(Partition {
                    values,
                    header,
                    rows,
                })
            })
            .collect()
    }

    fn rows(
        &self,
        table: &Table,
        partition: &[Value],
        context: &Context<'_>,
    ) -> Result<Rows, Error> {
        let columns: Vec<_> = table.clustering_columns().collect();
        let mut prefixes = product(&self.clustering, context, |index| &columns[index].name)?;
        if self.tuple_width > 0 {
            let tuples = self.evaluate_tuples(context)?;
            prefixes = prefixes
                .iter()
                .flat_map(|prefix| {
                    tuples.iter().map(|tuple| {
                        let mut values = prefix.clone();
                        values.extend_from_slice(tuple);
                        values
                    })
                })
                .collect();
        }
        let mut values = partition.to_vec();
        if self.names_rows(columns.len()) {
            let mut keys = Vec::with_capacity(prefixes.len());
            for clustering in prefixes {
                values.truncate(partition.len());
                values.extend_from_slice(&clustering);
                keys.push((table.row_key(&values).map_err(bad_key)?, clustering));
            }
            if keys.len() > 1 {
                keys.sort_by(|left, right| left.0.cmp(&right.0));
                keys.dedup_by(|left, right| left.0 == right.0);
            }
            return Ok(Rows::Keys(keys));
        }
        if !self.restricts_clustering() {
            return Ok(Rows::All);
        }
        let mut ranges = Vec::new();
        for clustering in prefixes {
            values.truncate(partition.len());
            values.extend_from_slice(&clustering);
            let prefix = table.key_prefix(&values).map_err(bad_key)?;
            let rest = &columns[clustering.len()..];
            let kinds: Vec<(&Type, Direction)> = rest
                .iter()
                .map(|column| {
                    let direction = if column.descending {
                        Direction::Descending
                    } else {
                        Direction::Ascending
                    };
                    (&column.kind, direction)
                })
                .collect();
            let names = rest.first().map_or("", |column| column.name.as_str());
            ranges.extend(self.slice(&prefix, &kinds, names, context)?);
        }
        ranges.sort();
        ranges.dedup();
        Ok(Rows::Ranges(ranges))
    }

    fn evaluate_tuples(&self, context: &Context<'_>) -> Result<Vec<Vec<Value>>, Error> {
        if let Some(marker) = &self.tuples_marker {
            let Value::List(tuples) = marker.required(context, "in")? else {
                return Err(Error::invalid("Invalid null value for IN restriction"));
            };
            return tuples
                .into_iter()
                .map(|tuple| match tuple {
                    Value::Tuple(values) => Ok(values),
                    _ => Err(Error::invalid("Invalid null value in multi-column IN")),
                })
                .collect();
        }
        self.tuples
            .iter()
            .flatten()
            .map(|tuple| tuple.evaluate(context))
            .collect()
    }

    /// The ranges of keys behind `prefix` that lie within both bounds.
    fn slice(
        &self,
        prefix: &[u8],
        kinds: &[(&Type, Direction)],
        name: &str,
        context: &Context<'_>,
    ) -> Result<Vec<KeyRange>, Error> {
        let mut ranges = vec![KeyRange::prefix(prefix.to_vec())];
        for (bound, is_lower) in [(&self.lower, true), (&self.upper, false)] {
            let Some(bound) = bound else { continue };
            let values = bound.terms.evaluate(context)?;
            if values.iter().any(Value::is_null) {
                return Err(Error::invalid(format!(
                    "Invalid null value in condition for column {name}"
                )));
            }
            let side = bound_ranges(prefix, kinds, &values, is_lower, bound.is_inclusive)?;
            ranges = intersect(&ranges, &side);
        }
        Ok(ranges)
    }
}

impl TupleTerm {
    fn evaluate(&self, context: &Context<'_>) -> Result<Vec<Value>, Error> {
        match self {
            TupleTerm::Terms(terms) => terms
                .iter()
                .map(|term| {
                    term.evaluate(context)?.ok_or_else(|| {
                        Error::invalid("Invalid unset value for a clustering column")
                    })
                })
                .collect(),
            TupleTerm::Marker(term) => match term.evaluate(context)? {
                Some(Value::Tuple(values)) => Ok(values),
                _ => Err(Error::invalid(
                    "Invalid null value for a tuple of clustering columns",
                )),
            },
        }
    }
}

/// Everything above (or below) a tuple of clustering values: for each column, those that equal the tuple before
/// it and exceed it there. Columns may run in different directions.
fn bound_ranges(
    prefix: &[u8],
    kinds: &[(&Type, Direction)],
    values: &[Value],
    is_lower: bool,
    is_inclusive: bool,
) -> Result<Vec<KeyRange>, Error> {
    let mut ranges = Vec::new();
    let mut equal = prefix.to_vec();
    for (index, (value, (kind, direction))) in values.iter().zip(kinds).enumerate() {
        let start = equal.len();
        key::encode(value, kind, *direction, &mut equal).map_err(bad_key)?;
        let whole = KeyRange::prefix(equal[..start].to_vec());
        let here = KeyRange::prefix(equal.clone());
        let goes_up = is_lower == (*direction == Direction::Ascending);
        let beyond = if goes_up {
            KeyRange {
                start: here.end.clone().unwrap_or_default(),
                end: whole.end,
            }
        } else {
            KeyRange {
                start: whole.start,
                end: Some(here.start.clone()),
            }
        };
        // Nothing lies above a prefix that has no end.
        let is_topmost = goes_up && here.end.is_none();
        if !is_topmost && !beyond.is_empty() {
            ranges.push(beyond);
        }
        if is_inclusive && index + 1 == values.len() {
            ranges.push(here);
        }
    }
    ranges.sort();
    Ok(ranges)
}

fn intersect(left: &[KeyRange], right: &[KeyRange]) -> Vec<KeyRange> {
    left.iter()
        .flat_map(|left| right.iter().map(|right| left.intersection(right)))
        .filter(|range| !range.is_empty())
        .collect()
}

/// All combinations of what the columns may be.
fn product<'n>(
    choices: &[Choice],
    context: &Context<'_>,
    name: impl Fn(usize) -> &'n String,
) -> Result<Vec<Vec<Value>>, Error> {
    let mut rows: Vec<Vec<Value>> = vec![Vec::with_capacity(choices.len())];
    for (index, choice) in choices.iter().enumerate() {
        let values = match choice {
            Choice::Equal(term) => {
                // By far the most common: no copies.
                let value = term.required(context, name(index))?;
                if let [row] = &mut rows[..] {
                    row.push(value);
                    continue;
                }
                vec![value]
            }
            Choice::In(terms) => terms
                .iter()
                .map(|term| term.required(context, name(index)))
                .collect::<Result<_, _>>()?,
            Choice::InMarker(term) => match term.evaluate(context)? {
                Some(Value::List(values)) => values,
                Some(_) => {
                    return Err(Error::invalid(format!(
                        "Invalid null value for column {}",
                        name(index)
                    )));
                }
                None => {
                    return Err(Error::invalid(format!(
                        "Invalid unset value for column {}",
                        name(index)
                    )));
                }
            },
        };
        if rows.len().saturating_mul(values.len()) > KEYS_MAX {
            return Err(Error::invalid(format!(
                "IN restrictions name more than {KEYS_MAX} keys"
            )));
        }
        rows = rows
            .iter()
            .flat_map(|row| {
                values.iter().map(|value| {
                    let mut row = row.clone();
                    row.push(value.clone());
                    row
                })
            })
            .collect();
    }
    Ok(rows)
}

fn check_partition_key(table: &Table, values: &[Value]) -> Result<(), Error> {
    let size = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 1,
    };
    if let [value] = values
        && size(value) == 0
    {
        return Err(Error::invalid("Key may not be empty"));
    }
    let total: usize = values.iter().map(size).sum();
    if total > KEY_SIZE_BYTES_MAX {
        return Err(Error::invalid(format!(
            "Key length of {total} is longer than maximum of {KEY_SIZE_BYTES_MAX}"
        )));
    }
    if values.iter().any(Value::is_null) {
        let column = table.partition_columns().next();
        return Err(Error::invalid(format!(
            "Invalid null value in condition for column {}",
            column.map_or("", |column| column.name.as_str())
        )));
    }
    Ok(())
}

pub fn bad_key(error: key::KeyError) -> Error {
    Error::invalid(format!("Invalid primary key: {error}"))
}

/// The range of keys of partitions whose tokens lie in a range; `None` when there is none.
pub fn token_range(lower: Option<(i64, bool)>, upper: Option<(i64, bool)>) -> Option<KeyRange> {
    let flip = |token: i64| (token as u64 ^ 1 << 63).to_be_bytes().to_vec();
    let start = match lower {
        None => Vec::new(),
        Some((token, true)) => flip(token),
        Some((token, false)) => flip(token.checked_add(1)?),
    };
    let end = match upper {
        None => None,
        Some((token, false)) => Some(flip(token)),
        Some((token, true)) => prefix_end(&flip(token)),
    };
    let range = KeyRange { start, end };
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(values: &[i64], directions: &[Direction]) -> Vec<u8> {
        let mut out = vec![0xAB];
        for (value, direction) in values.iter().zip(directions) {
            key::encode(&Value::Int(*value), &Type::Int, *direction, &mut out).unwrap();
        }
        out
    }

    #[test]
    fn tuples_compare_by_column_whatever_the_directions() {
        use Direction::{Ascending, Descending};
        for directions in [
            [Ascending, Ascending],
            [Ascending, Descending],
            [Descending, Ascending],
            [Descending, Descending],
        ] {
            let kinds: Vec<_> = directions
                .iter()
                .map(|direction| (&Type::Int, *direction))
                .collect();
            for (is_lower, is_inclusive) in
                [(true, true), (true, false), (false, true), (false, false)]
            {
                let bound = [Value::Int(2), Value::Int(3)];
                let ranges = bound_ranges(&[0xAB], &kinds, &bound, is_lower, is_inclusive).unwrap();
                for first in 0..5 {
                    for second in 0..5 {
                        let found = ranges
                            .iter()
                            .any(|range| range.contains(&encoded(&[first, second], &directions)));
                        let order = (first, second).cmp(&(2, 3));
                        let expected = if order.is_eq() {
                            is_inclusive
                        } else {
                            order.is_gt() == is_lower
                        };
                        assert_eq!(
                            found, expected,
                            "{first} {second} {directions:?} {is_lower}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn token_ranges() {
        assert_eq!(token_range(None, None), Some(KeyRange::all()));
        assert_eq!(token_range(Some((i64::MAX, false)), None), None);
        assert_eq!(token_range(Some((5, false)), Some((5, true))), None);
        let range = token_range(Some((-1, false)), Some((1, true))).unwrap();
        assert!(range.contains(&[0x80, 0, 0, 0, 0, 0, 0, 1, 9]));
        assert!(!range.contains(&[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 9]));
    }
}
