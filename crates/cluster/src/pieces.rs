//! The state in pieces, each under a key of its own, so that a change writes what it changed and no more.
//!
//! | key behind the kind byte | value |
//! |---|---|
//! | `h` | head: cluster id, name, version, settings, next ids, newest proposals |
//! | `c` | the catalog without its tables |
//! | `n` · node id (8 bytes) | node |
//! | `r` · tablet id (8 bytes) | tablet |
//! | `f` · tablet id (8 bytes) | the replicas that the tablet began with |
//! | `s` · tablet id (8 bytes) | the tablet's split, as it is prepared |
//! | `d` · tablet id (8 bytes) | a strong tablet whose table is gone |
//! | `t` · table id (8 bytes) | table |

use crate::state::Head;
use crate::{Split, State, Tablet};
use catalog::{Catalog, Table};
use model::{NodeId, TableId, TabletId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Key and value; `None` removes the key.
pub type Piece = (Vec<u8>, Option<Vec<u8>>);

const HEAD: u8 = b'h';
const CATALOG: u8 = b'c';
const NODE: u8 = b'n';
const TABLET: u8 = b'r';
const FOUNDERS: u8 = b'f';
const SPLIT: u8 = b's';
const DROPPED: u8 = b'd';
const TABLE: u8 = b't';

fn key(kind: u8, id: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&id.to_be_bytes());
    key
}

fn encoded<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    // Writing to memory does not fail, and no type here refuses to be encoded.
    minicbor::to_vec(value).expect("encoding to memory does not fail")
}

/// What differs between two maps of shared values, by address: snapshots share what they have in common.
fn differences<K: Ord + Copy, V: minicbor::Encode<()>>(
    old: &BTreeMap<K, Arc<V>>,
    new: &BTreeMap<K, Arc<V>>,
    key_of: impl Fn(K) -> Vec<u8>,
    pieces: &mut Vec<Piece>,
) {
    for (id, value) in new {
        if !old.get(id).is_some_and(|known| Arc::ptr_eq(known, value)) {
            pieces.push((key_of(*id), Some(encoded(value.as_ref()))));
        }
    }
    for id in old.keys().filter(|id| !new.contains_key(id)) {
        pieces.push((key_of(*id), None));
    }
}

impl State {
    /// What turns `old`'s pieces into this state's.
    pub fn pieces_since(&self, old: &State) -> Vec<Piece> {
        let mut pieces = vec![(vec![HEAD], Some(encoded(&self.head)))];
        if !Arc::ptr_eq(&self.catalog, &old.catalog) {
            let bare = Catalog {
                version: self.catalog.version,
                namespaces: self.catalog.namespaces.clone(),
                tables: BTreeMap::new(),
                properties: self.catalog.properties.clone(),
                next_table_id: self.catalog.next_table_id,
            };
            pieces.push((vec![CATALOG], Some(encoded(&bare))));
            let key_of = |id: TableId| key(TABLE, id.0);
            differences(
                &old.catalog.tables,
                &self.catalog.tables,
                key_of,
                &mut pieces,
            );
        }
        let key_of = |id: NodeId| key(NODE, id.0);
        differences(&old.nodes, &self.nodes, key_of, &mut pieces);
        let key_of = |id: TabletId| key(TABLET, id.0);
        differences(&old.tablets, &self.tablets, key_of, &mut pieces);
        let key_of = |id: TabletId| key(FOUNDERS, id.0);
        differences(&old.founders, &self.founders, key_of, &mut pieces);
        let key_of = |id: TabletId| key(SPLIT, id.0);
        differences(&old.splits, &self.splits, key_of, &mut pieces);
        let key_of = |id: TabletId| key(DROPPED, id.0);
        differences(&old.dropped, &self.dropped, key_of, &mut pieces);
        pieces
    }

    /// All pieces.
    pub fn pieces(&self) -> Vec<Piece> {
        self.pieces_since(&State::default())
    }

    /// The state that these pieces make up, in any order. None make up the state before founding.
    pub fn from_pieces<'a>(
        pieces: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<State, minicbor::decode::Error> {
        let mut state = State::default();
        let mut catalog = Catalog::default();
        let mut tables = BTreeMap::new();
        for (key, value) in pieces {
            match key.first() {
                Some(&HEAD) => state.head = minicbor::decode::<Head>(value)?,
                Some(&CATALOG) => catalog = minicbor::decode(value)?,
                Some(&NODE) => {
                    let node: crate::NodeRecord = minicbor::decode(value)?;
                    state.nodes.insert(node.id, Arc::new(node));
                }
                Some(&TABLET) => {
                    let tablet: Tablet = minicbor::decode(value)?;
                    state.tablets.insert(tablet.id, Arc::new(tablet));
                }
                Some(&FOUNDERS) => {
                    let id = <[u8; 8]>::try_from(&key[1..])
                        .map_err(|_| minicbor::decode::Error::message("malformed key"))?;
                    let id = TabletId(u64::from_be_bytes(id));
                    state
                        .founders
                        .insert(id, Arc::new(minicbor::decode(value)?));
                }
                Some(&SPLIT) => {
                    let split: Split = minicbor::decode(value)?;
                    state.splits.insert(split.left.id, Arc::new(split));
                }
                Some(&DROPPED) => {
                    let tablet: Tablet = minicbor::decode(value)?;
                    state.dropped.insert(tablet.id, Arc::new(tablet));
                }
                Some(&TABLE) => {
                    let table: Table = minicbor::decode(value)?;
                    tables.insert(table.id, Arc::new(table));
                }
                _ => {
                    return Err(minicbor::decode::Error::message(
                        "unknown piece of the meta state",
                    ));
                }
            }
        }
        catalog.tables = tables;
        state.catalog = Arc::new(catalog);
        Ok(state)
    }

    /// The whole state as one byte string, for a node that follows from afar.
    pub fn to_bytes(&self) -> Vec<u8> {
        let pieces: Vec<(minicbor::bytes::ByteVec, minicbor::bytes::ByteVec)> = self
            .pieces()
            .into_iter()
            .filter_map(|(key, value)| Some((key.into(), value?.into())))
            .collect();
        encoded(&pieces)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<State, minicbor::decode::Error> {
        let pieces: Vec<(minicbor::bytes::ByteVec, minicbor::bytes::ByteVec)> =
            minicbor::decode(bytes)?;
        let pieces = pieces
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_slice()));
        State::from_pieces(pieces)
    }
}
