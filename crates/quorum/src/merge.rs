//! Bringing together what several replicas have read. Pure.
//!
//! A page speaks only for the part of the selection that its replica has looked through. What is merged is the
//! part that all pages speak for: beyond it one replica may have cut its page short where another still has a
//! newer row or a tombstone.

use crate::message::{Covered, Page, RawRow, ReplicaSelection};
use crate::partition::{Layout, decode_row};
use api::Direction;
use model::{Deletion, Row};
use std::collections::BTreeMap;

/// Rows and headers of a part of the selection, as all replicas that were asked know them together.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Merged {
    /// By key.
    pub headers: BTreeMap<Vec<u8>, Row>,
    /// In the order of the pages.
    pub rows: Vec<(Vec<u8>, Row)>,
    pub covered: Covered,
    /// As encoded, headers not counted.
    pub size_bytes: usize,
}

/// A merged page, and what each replica lacks of it, in the order of the pages.
#[derive(Debug)]
pub(crate) struct Reconciled {
    pub merged: Merged,
    pub repairs: Vec<Vec<RawRow>>,
}

/// Reads a page that all replicas agree on.
pub(crate) fn single(page: Page) -> Result<Merged, String> {
    let size_bytes = page.rows.iter().map(RawRow::size_bytes).sum();
    let decode = |raw: RawRow| Ok::<_, String>((raw.key, decode_row(&raw.row)?));
    Ok(Merged {
        headers: page
            .headers
            .into_iter()
            .map(decode)
            .collect::<Result<_, _>>()?,
        rows: page
            .rows
            .into_iter()
            .map(decode)
            .collect::<Result<_, _>>()?,
        covered: page.covered,
        size_bytes,
    })
}

/// Merges the pages of several replicas.
pub(crate) fn reconcile(
    layout: &Layout,
    selection: &ReplicaSelection,
    pages: &[Page],
) -> Result<Reconciled, String> {
    let covered = common_coverage(selection, pages);
    let scope = Scope::new(layout, selection, &covered);
    let mut repairs = vec![Vec::new(); pages.len()];
    let headers = merge_kind(
        pages,
        |page| &page.headers,
        |key| scope.has_header(key),
        |_| None,
        &mut repairs,
    )?;
    let covering = |key: &[u8]| {
        if headers.is_empty() {
            return None;
        }
        let (header, _) = headers.get(&layout.header_of(key)?)?;
        header.covering_deletion(key)
    };
    let rows = merge_kind(
        pages,
        |page| &page.rows,
        |key| scope.has_row(key),
        covering,
        &mut repairs,
    )?;
    let size_bytes = rows.iter().map(|(key, (_, size))| key.len() + size).sum();
    let mut rows: Vec<(Vec<u8>, Row)> =
        rows.into_iter().map(|(key, (row, _))| (key, row)).collect();
    if is_backward(selection) {
        rows.reverse();
    }
    Ok(Reconciled {
        merged: Merged {
            headers: headers
                .into_iter()
                .map(|(key, (row, _))| (key, row))
                .collect(),
            rows,
            covered,
            size_bytes,
        },
        repairs,
    })
}

/// Merges either the headers or the rows, without what their headers shadow; adds to each replica's repairs what it
/// lacks, but for what any of them may have forgotten for good. Yields rows with their encoded sizes.
fn merge_kind<'a>(
    pages: &'a [Page],
    of: impl Fn(&'a Page) -> &'a Vec<RawRow>,
    is_in_scope: impl Fn(&[u8]) -> bool,
    covering: impl Fn(&[u8]) -> Option<Deletion>,
    repairs: &mut [Vec<RawRow>],
) -> Result<BTreeMap<Vec<u8>, (Row, usize)>, String> {
    let mut versions: BTreeMap<&[u8], Vec<Option<&[u8]>>> = BTreeMap::new();
    for (index, page) in pages.iter().enumerate() {
        for raw in of(page) {
            if is_in_scope(&raw.key) {
                let versions = versions
                    .entry(&raw.key)
                    .or_insert_with(|| vec![None; pages.len()]);
                versions[index] = Some(&raw.row);
            }
        }
    }
    let purged_before = pages.iter().map(|page| page.purged_before).min();
    let purged_before = purged_before.unwrap_or_default();
    let mut merged = BTreeMap::new();
    for (key, versions) in versions {
        let mut present = versions.iter().copied().flatten();
        let first = present.next().ok_or("a key without a version")?;
        let mut row = decode_row(first)?;
        let mut encoded = first.to_vec();
        if present.clone().any(|version| version != first) {
            for version in present {
                row.merge(&decode_row(version)?);
            }
            encoded = row.to_bytes();
        }
        let covering = covering(key);
        if let Some(covering) = covering {
            if !row.drop_covered(covering) {
                continue;
            }
            encoded = row.to_bytes();
        }
        let lasting = |mut row: Row| {
            if let Some(covering) = covering {
                row.drop_covered(covering);
            }
            row.purge_tombstones(purged_before);
            row.to_bytes()
        };
        for (version, repair) in versions.iter().zip(repairs.iter_mut()) {
            if *version == Some(encoded.as_slice()) {
                continue;
            }
            let held = version.map_or(Ok(Row::default()), decode_row)?;
            if lasting(held) != lasting(row.clone()) {
                repair.push(RawRow {
                    key: key.to_vec(),
                    row: encoded.clone(),
                });
            }
        }
        merged.insert(key.to_vec(), (row, encoded.len()));
    }
    Ok(merged)
}

fn is_backward(selection: &ReplicaSelection) -> bool {
    matches!(
        selection,
        ReplicaSelection::Range {
            direction: Direction::Backward,
            ..
        }
    )
}

/// How far all pages have looked.
fn common_coverage(selection: &ReplicaSelection, pages: &[Page]) -> Covered {
    let mut common = Covered::All;
    for page in pages {
        common = match (common, &page.covered) {
            (Covered::All, other) => other.clone(),
            (common, Covered::All) => common,
            (Covered::Keys(left), Covered::Keys(right)) => Covered::Keys(left.min(*right)),
            (Covered::To(left), Covered::To(right)) if is_backward(selection) => {
                Covered::To(left.max(right.clone()))
            }
            (Covered::To(left), Covered::To(right)) => Covered::To(left.min(right.clone())),
            // A replica that answers about keys when asked about a range has answered nothing.
            (_, _) => Covered::Keys(0),
        };
    }
    common
}

/// Which keys lie in what all pages speak for.
struct Scope<'a> {
    layout: &'a Layout,
    selection: &'a ReplicaSelection,
    covered: &'a Covered,
    /// Of a backward range: the lowest header spoken for.
    header_floor: Vec<u8>,
}

impl<'a> Scope<'a> {
    fn new(layout: &'a Layout, selection: &'a ReplicaSelection, covered: &'a Covered) -> Self {
        let header_floor = match covered {
            Covered::To(key) => layout.header_of(key).unwrap_or_else(|| key.clone()),
            _ => Vec::new(),
        };
        Scope {
            layout,
            selection,
            covered,
            header_floor,
        }
    }

    fn has_row(&self, key: &[u8]) -> bool {
        match (self.covered, self.selection) {
            (Covered::All, _) => true,
            (Covered::To(end), _) if is_backward(self.selection) => key >= end.as_slice(),
            (Covered::To(end), _) => key < end.as_slice(),
            (Covered::Keys(count), ReplicaSelection::Keys(keys)) => keys
                .iter()
                .take(*count as usize)
                .any(|covered| covered == key),
            (Covered::Keys(_), ReplicaSelection::Range { .. }) => false,
        }
    }

    fn has_header(&self, key: &[u8]) -> bool {
        match (self.covered, self.selection) {
            (Covered::All, _) => true,
            (Covered::To(_), _) if is_backward(self.selection) => {
                key >= self.header_floor.as_slice()
            }
            (Covered::To(end), _) => key < end.as_slice(),
            (Covered::Keys(count), ReplicaSelection::Keys(keys)) => {
                keys.iter().take(*count as usize).any(|covered| {
                    covered == key || self.layout.header_of(covered).as_deref() == Some(key)
                })
            }
            (Covered::Keys(_), ReplicaSelection::Range { .. }) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{delta, header_delta, layout, row_key, tombstone};
    use api::KeyRange;
    use model::Value;

    fn forward() -> ReplicaSelection {
        ReplicaSelection::Range {
            range: KeyRange::all(),
            direction: Direction::Forward,
        }
    }

    fn page(rows: Vec<RawRow>, covered: Covered) -> Page {
        Page {
            headers: Vec::new(),
            rows,
            covered,
            purged_before: 0,
        }
    }

    fn value(row: &Row) -> Option<&Value> {
        row.value(crate::fixture::VALUE)
    }

    #[test]
    fn the_newest_cell_wins_and_each_replica_gets_what_it_lacks() {
        let pages = [
            page(vec![delta(1, 1, 10, 5)], Covered::All),
            page(vec![delta(1, 1, 11, 6), delta(1, 2, 12, 7)], Covered::All),
            page(vec![], Covered::All),
        ];
        let reconciled = reconcile(&layout(), &forward(), &pages).unwrap();
        let rows = &reconciled.merged.rows;
        assert_eq!(value(&rows[0].1), Some(&Value::Int(6)));
        assert_eq!(value(&rows[1].1), Some(&Value::Int(7)));
        let lacks: Vec<usize> = reconciled.repairs.iter().map(Vec::len).collect();
        assert_eq!(lacks, [2, 0, 2]);
    }

    #[test]
    fn nothing_is_believed_beyond_what_every_page_covers() {
        let short = page(
            vec![delta(1, 1, 10, 1)],
            Covered::To(crate::replica::successor(row_key(1, 1))),
        );
        let long = page(vec![tombstone(1, 1, 20), delta(1, 2, 10, 2)], Covered::All);
        let reconciled = reconcile(&layout(), &forward(), &[short, long]).unwrap();
        assert_eq!(
            reconciled.merged.covered,
            Covered::To(crate::replica::successor(row_key(1, 1)))
        );
        assert_eq!(reconciled.merged.rows.len(), 1);
        let mut row = reconciled.merged.rows[0].1.clone();
        assert!(!row.make_visible(None, 0));
        assert_eq!(reconciled.repairs[1], vec![]);
    }

    #[test]
    fn backward_pages_meet_at_the_higher_key_with_its_header() {
        let selection = ReplicaSelection::Range {
            range: KeyRange::all(),
            direction: Direction::Backward,
        };
        let with_header = Page {
            headers: vec![header_delta(1, 5)],
            rows: vec![delta(1, 3, 10, 3), delta(1, 2, 10, 2)],
            covered: Covered::To(row_key(1, 2)),
            purged_before: 0,
        };
        let without = page(vec![delta(1, 3, 10, 3)], Covered::To(row_key(1, 3)));
        let reconciled = reconcile(&layout(), &selection, &[with_header, without]).unwrap();
        let merged = reconciled.merged;
        assert_eq!(merged.covered, Covered::To(row_key(1, 3)));
        assert_eq!(merged.rows.len(), 1);
        assert_eq!(merged.headers.len(), 1);
        assert_eq!(reconciled.repairs[1], vec![header_delta(1, 5)]);
    }

    #[test]
    fn keys_count_as_far_as_all_have_answered() {
        let keys = vec![row_key(1, 1), row_key(1, 2)];
        let pages = [
            page(vec![delta(1, 1, 10, 1)], Covered::Keys(1)),
            page(vec![delta(1, 1, 10, 1), delta(1, 2, 10, 2)], Covered::All),
        ];
        let reconciled = reconcile(&layout(), &ReplicaSelection::Keys(keys), &pages).unwrap();
        assert_eq!(reconciled.merged.covered, Covered::Keys(1));
        assert_eq!(reconciled.merged.rows.len(), 1);
        assert!(reconciled.repairs.iter().all(Vec::is_empty));
    }

    #[test]
    fn what_a_header_shadows_is_brought_to_nobody() {
        let deleted = Page {
            headers: vec![header_delta(1, 30)],
            ..page(vec![], Covered::All)
        };
        let behind = page(vec![delta(1, 1, 20, 1), delta(1, 2, 40, 2)], Covered::All);
        let reconciled = reconcile(&layout(), &forward(), &[deleted, behind]).unwrap();
        assert_eq!(reconciled.merged.rows.len(), 1);
        assert_eq!(reconciled.repairs[0], [delta(1, 2, 40, 2)]);
        assert_eq!(reconciled.repairs[1], [header_delta(1, 30)]);
    }

    #[test]
    fn a_tombstone_that_all_may_have_forgotten_is_not_brought_back() {
        let forgotten = |purged_before| Page {
            purged_before,
            ..page(vec![], Covered::All)
        };
        let kept = |purged_before| Page {
            purged_before,
            ..page(vec![tombstone(1, 1, 20)], Covered::All)
        };
        let repairs = |one, other| {
            let pages = [forgotten(one), kept(other)];
            let reconciled = reconcile(&layout(), &forward(), &pages).unwrap();
            reconciled.repairs[0].len()
        };
        assert_eq!(repairs(1, 1), 0);
        assert_eq!(
            repairs(1, 0),
            1,
            "the other one says nothing of having had it"
        );
    }
}
