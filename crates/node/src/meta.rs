//! The meta group's replica on this node: `cluster::State` as a replicated state machine over a store.
//!
//! Each piece of the state is a key of the store, written with the entry that changed it, so what survives a
//! crash is the state after some entry, and the log brings the rest.

use crate::view::Views;
use bytes::Bytes;
use cluster::{Applied as Accepted, Proposal, Refusal, State};
use consensus::{
    Committed, CommittedEntry, Leadership, MachineError, SnapshotSource, StateMachine,
};
use model::ReplicaId;
use std::sync::Arc;
use tokio::sync::watch;
use world::{
    Applied, Install, Kind, Snapshot, Store, StoreBatch, StoreError, StoreOperation, Stores,
};

/// The answer to a proposal, as it leaves the state machine.
pub(crate) type Outcome = Result<Accepted, Refusal>;

pub(crate) struct MetaMachine {
    replica: ReplicaId,
    stores: Arc<dyn Stores>,
    /// `None` while there is no usable state.
    store: Option<Arc<dyn Store>>,
    state: Arc<State>,
    install: Option<Box<dyn Install>>,
    views: Arc<Views>,
    leads: watch::Sender<bool>,
}

fn broken(error: impl std::fmt::Display) -> MachineError {
    MachineError(format!("meta state: {error}"))
}

/// Behind the store's own record.
const FIRST_KEY: [u8; 2] = [Kind::State as u8, 1];

fn load(store: &dyn Store) -> Result<State, MachineError> {
    let at = store.snapshot();
    let mut pieces = Vec::new();
    for pair in store.scan(&FIRST_KEY, Some(&[Kind::State as u8 + 1]), &at) {
        pieces.push(pair.map_err(broken)?);
    }
    let pieces = pieces.iter().map(|(key, value)| (&key[1..], &value[..]));
    State::from_pieces(pieces).map_err(broken)
}

impl MetaMachine {
    /// Opens what the replica's store holds; a store that is half installed or corrupt waits for a snapshot.
    pub fn open(
        replica: ReplicaId,
        stores: Arc<dyn Stores>,
        views: Arc<Views>,
        leads: watch::Sender<bool>,
    ) -> MetaMachine {
        let mut machine = MetaMachine {
            replica,
            stores,
            store: None,
            state: Arc::default(),
            install: None,
            views,
            leads,
        };
        let opened = machine.stores.open(replica).map_err(broken);
        match opened.and_then(|store| Ok((load(store.as_ref())?, store))) {
            Ok((state, store)) => machine.adopt(store, state),
            Err(error) => tracing::warn!(%error, "the meta group's replica needs a snapshot"),
        }
        machine
    }

    fn adopt(&mut self, store: Arc<dyn Store>, state: State) {
        self.store = Some(store);
        self.state = Arc::new(state);
        self.views.publish(Arc::clone(&self.state));
    }

    fn store(&self) -> Result<&Arc<dyn Store>, MachineError> {
        self.store.as_ref().ok_or_else(|| broken("no usable state"))
    }
}

impl StateMachine for MetaMachine {
    fn applied(&self) -> Option<Applied> {
        self.store.as_ref().map(|store| store.applied())
    }

    fn flushed(&self) -> Applied {
        let flushed = self.store.as_ref().map(|store| store.flushed());
        flushed.unwrap_or_default()
    }

    fn request_flush(&mut self) {
        if let Some(store) = &self.store {
            store.request_flush();
        }
    }

    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, MachineError> {
        let Some(last) = entries.last() else {
            return Ok(Vec::new());
        };
        let store = Arc::clone(self.store()?);
        let mut results = Vec::with_capacity(entries.len());
        let mut state = self.state.as_ref().clone();
        for committed in entries {
            let CommittedEntry::Command(command) = &committed.entry else {
                results.push(Bytes::new());
                continue;
            };
            let proposal: Proposal = minicbor::decode(command).map_err(broken)?;
            let outcome: Outcome = match state.apply(&proposal) {
                Ok((next, accepted)) => {
                    state = next;
                    Ok(accepted)
                }
                Err(refusal) => Err(refusal),
            };
            let outcome = minicbor::to_vec(&outcome).expect("encoding to memory does not fail");
            results.push(outcome.into());
        }
        let operations = if state.version() == self.state.version() {
            Vec::new()
        } else {
            operations(state.pieces_since(&self.state))
        };
        let applied = Applied {
            index: last.index,
            term: last.term,
        };
        store
            .apply(StoreBatch {
                operations,
                applied,
            })
            .map_err(broken)?;
        self.state = Arc::new(state);
        self.views.publish(Arc::clone(&self.state));
        Ok(results)
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, MachineError> {
        let store = Arc::clone(self.store()?);
        let applied = store.applied();
        let at = store.snapshot();
        Ok(Box::new(MetaSnapshot { store, at, applied }))
    }

    fn begin_install(&mut self) -> Result<(), MachineError> {
        self.install = Some(self.stores.begin_install(self.replica).map_err(broken)?);
        Ok(())
    }

    fn install(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Result<(), MachineError> {
        let install = self.install.as_mut();
        let install = install.ok_or_else(|| broken("no installation has begun"))?;
        install.add(pairs).map_err(broken)
    }

    fn finish_install(&mut self, applied: Applied) -> Result<(), MachineError> {
        let install = self.install.take();
        let install = install.ok_or_else(|| broken("no installation has begun"))?;
        let store = install.finish(applied).map_err(broken)?;
        let state = load(store.as_ref())?;
        self.adopt(store, state);
        Ok(())
    }

    fn leadership(&mut self, leadership: Leadership) {
        let leads = matches!(leadership, Leadership::Leader { .. });
        self.leads.send_if_modified(|known| {
            let changed = *known != leads;
            *known = leads;
            changed
        });
    }
}

fn operations(pieces: Vec<cluster::Piece>) -> Vec<StoreOperation> {
    let stored = |mut key: Vec<u8>| {
        key.insert(0, Kind::State as u8);
        key
    };
    pieces
        .into_iter()
        .map(|(key, value)| match value {
            Some(value) => StoreOperation::Put {
                key: stored(key),
                value,
            },
            None => StoreOperation::Delete { key: stored(key) },
        })
        .collect()
}

struct MetaSnapshot {
    store: Arc<dyn Store>,
    at: Snapshot,
    applied: Applied,
}

impl SnapshotSource for MetaSnapshot {
    fn applied(&self) -> Applied {
        self.applied
    }

    fn read(
        &mut self,
        after: Option<&[u8]>,
        size_bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, MachineError> {
        let start = match after {
            None => FIRST_KEY.to_vec(),
            Some(after) => {
                let mut start = after.to_vec();
                start.push(0);
                start
            }
        };
        let mut pairs = Vec::new();
        let mut size_bytes = 0;
        for pair in self.store.scan(&start, None, &self.at) {
            let (key, value) = pair.map_err(|error: StoreError| broken(error))?;
            size_bytes += key.len() + value.len();
            pairs.push((key, value));
            if size_bytes >= size_bytes_max {
                break;
            }
        }
        Ok(pairs)
    }
}
