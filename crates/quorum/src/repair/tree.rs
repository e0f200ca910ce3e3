//! The Merkle tree of a range of keys: a hash for each leaf, a stretch of about `LEAF_BYTES` of rows, and one of them
//! all. Replicas that hold the same have the same tree; where only leaves differ, only their rows are exchanged. Pure.
//!
//! The replica that begins a comparison cuts the leaves by what it holds, and the others hash what they hold between the
//! same keys. A step of a repair is a range so short (`STEP_BYTES`) that two levels do: the root is sent along, and leaves
//! come back only where it differs.

use api::KeyRange;
use minicbor::{Decode, Encode};
use model::murmur3;

/// Rows of about this size make a leaf: what is exchanged for one row that differs.
pub(crate) const LEAF_BYTES: usize = 16 << 10;
/// Rows of about this size are compared in one step.
pub(crate) const STEP_BYTES: usize = 2 << 20;
/// A replica that holds more than this of a step's range asks for a shorter one.
pub(crate) const STEP_BYTES_MAX: usize = 3 * STEP_BYTES;

/// A range and the keys at which its second and later leaves begin, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Leaves {
    #[n(0)]
    pub range: KeyRange,
    #[cbor(n(1), with = "crate::message::byte_strings")]
    pub starts: Vec<Vec<u8>>,
}

impl Leaves {
    pub fn count(&self) -> usize {
        self.starts.len() + 1
    }

    /// The range of one leaf.
    pub fn leaf(&self, index: usize) -> KeyRange {
        let start = match index.checked_sub(1) {
            Some(before) => &self.starts[before],
            None => &self.range.start,
        };
        KeyRange {
            start: start.clone(),
            end: self.starts.get(index).or(self.range.end.as_ref()).cloned(),
        }
    }

    /// The leaves below a key, which the range ends at then.
    pub fn up_to(mut self, end: Vec<u8>) -> Leaves {
        self.starts.retain(|start| *start < end);
        self.range.end = Some(end);
        self
    }
}

/// Cuts leaves while a scan goes on.
pub(crate) struct Cutter {
    leaves: Leaves,
    leaf_bytes: usize,
    total_bytes: usize,
}

impl Cutter {
    pub fn new(range: KeyRange) -> Cutter {
        Cutter {
            leaves: Leaves {
                range,
                starts: Vec::new(),
            },
            leaf_bytes: 0,
            total_bytes: 0,
        }
    }

    /// Takes the next row. False: the step is full, and ends before this row.
    pub fn add(&mut self, key: &[u8], size_bytes: usize) -> bool {
        if self.total_bytes >= STEP_BYTES {
            self.leaves.range.end = Some(key.to_vec());
            return false;
        }
        if self.leaf_bytes >= LEAF_BYTES {
            self.leaves.starts.push(key.to_vec());
            self.leaf_bytes = 0;
        }
        self.leaf_bytes += size_bytes;
        self.total_bytes += size_bytes;
        true
    }

    pub fn finish(self) -> (Leaves, usize) {
        (self.leaves, self.total_bytes)
    }
}

/// The hashes of leaves, from first to last.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Tree(#[n(0)] pub Vec<u64>);

impl Tree {
    /// The hash of all leaves together.
    pub fn root(&self) -> u64 {
        let bytes: Vec<u8> = self.0.iter().flat_map(|leaf| leaf.to_be_bytes()).collect();
        murmur3::token(&bytes) as u64
    }

    /// The ranges in which two trees over the same leaves differ, neighbours joined; all of it when they have not the
    /// same leaves.
    pub fn difference(&self, other: &Tree, leaves: &Leaves) -> Vec<KeyRange> {
        if self.0.len() != leaves.count() || other.0.len() != leaves.count() {
            return vec![leaves.range.clone()];
        }
        let mut ranges: Vec<KeyRange> = Vec::new();
        for index in (0..leaves.count()).filter(|index| self.0[*index] != other.0[*index]) {
            let leaf = leaves.leaf(index);
            match ranges.last_mut() {
                Some(last) if last.end.as_ref() == Some(&leaf.start) => last.end = leaf.end,
                _ => ranges.push(leaf),
            }
        }
        ranges
    }
}

/// Hashes the rows of a range, which come in the order of their keys, leaf by leaf.
pub(crate) struct Hasher<'a> {
    leaves: &'a Leaves,
    hashes: Vec<u64>,
    buffer: Vec<u8>,
}

impl<'a> Hasher<'a> {
    pub fn new(leaves: &'a Leaves) -> Hasher<'a> {
        Hasher {
            leaves,
            hashes: Vec::with_capacity(leaves.count()),
            buffer: Vec::new(),
        }
    }

    pub fn add(&mut self, key: &[u8], row: &[u8]) {
        self.close_before(key);
        for part in [key, row] {
            self.buffer
                .extend_from_slice(&(part.len() as u32).to_be_bytes());
            self.buffer.extend_from_slice(part);
        }
    }

    /// Closes the leaves that end at or before this key.
    fn close_before(&mut self, key: &[u8]) {
        let starts = &self.leaves.starts;
        while starts
            .get(self.hashes.len())
            .is_some_and(|start| start.as_slice() <= key)
        {
            self.close();
        }
    }

    fn close(&mut self) {
        self.hashes.push(murmur3::token(&self.buffer) as u64);
        self.buffer.clear();
    }

    pub fn finish(mut self) -> Tree {
        while self.hashes.len() < self.leaves.count() {
            self.close();
        }
        Tree(self.hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(starts: &[&str]) -> Leaves {
        Leaves {
            range: KeyRange {
                start: b"a".to_vec(),
                end: None,
            },
            starts: starts
                .iter()
                .map(|start| start.as_bytes().to_vec())
                .collect(),
        }
    }

    fn tree(leaves: &Leaves, rows: &[(&str, &str)]) -> Tree {
        let mut hasher = Hasher::new(leaves);
        for (key, row) in rows {
            hasher.add(key.as_bytes(), row.as_bytes());
        }
        hasher.finish()
    }

    #[test]
    fn only_leaves_that_differ_are_named_and_neighbours_are_joined() {
        let leaves = leaves(&["c", "e", "g"]);
        let one = tree(&leaves, &[("a", "1"), ("c", "2"), ("f", "3"), ("h", "4")]);
        let same = tree(&leaves, &[("a", "1"), ("c", "2"), ("f", "3"), ("h", "4")]);
        assert_eq!(one.root(), same.root());
        assert_eq!(one.difference(&same, &leaves), vec![]);
        let other = tree(&leaves, &[("a", "1"), ("d", "2"), ("f", "9"), ("h", "4")]);
        assert_ne!(one.root(), other.root());
        let range = |start: &str, end: &str| KeyRange {
            start: start.as_bytes().to_vec(),
            end: Some(end.as_bytes().to_vec()),
        };
        assert_eq!(one.difference(&other, &leaves), [range("c", "g")]);
        let empty = tree(&leaves, &[]);
        assert_eq!(
            one.difference(&empty, &leaves),
            std::slice::from_ref(&leaves.range)
        );
        assert_eq!(
            one.difference(&Tree(vec![1]), &leaves),
            std::slice::from_ref(&leaves.range)
        );
    }

    #[test]
    fn where_a_key_ends_and_its_row_begins_counts() {
        let leaves = leaves(&[]);
        assert_ne!(tree(&leaves, &[("ab", "c")]), tree(&leaves, &[("a", "bc")]));
    }

    #[test]
    fn leaves_and_steps_are_cut_by_size() {
        let mut cutter = Cutter::new(KeyRange::all());
        let key = |number: usize| format!("{number:06}").into_bytes();
        let full = (0..)
            .find(|number| !cutter.add(&key(*number), LEAF_BYTES / 2))
            .unwrap();
        let (leaves, bytes) = cutter.finish();
        assert_eq!(bytes, STEP_BYTES);
        assert_eq!(leaves.count(), STEP_BYTES / LEAF_BYTES);
        assert_eq!(leaves.range.end, Some(key(full)));
        assert_eq!(leaves.leaf(0).end, Some(key(2)));
        let shorter = leaves.up_to(key(4));
        assert_eq!((shorter.count(), shorter.leaf(1).end), (2, Some(key(4))));
    }
}
