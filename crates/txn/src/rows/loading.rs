//! What a store holds beside the rows, read when a replica opens it or was sent it.

use crate::command::{self, Command, Prepare};
use crate::keys;
use crate::outcomes::Outcomes;
use crate::request::CommandId;
use crate::split::Division;
use crate::state::{Decision, Endings, Lease, Recent};
use api::KeyRange;
use std::collections::BTreeMap;
use std::sync::Arc;
use world::{Snapshot, Store, StoreError};

pub(super) struct Loaded {
    pub lease: Lease,
    pub range: Option<KeyRange>,
    pub division: Option<Division>,
    pub recent: Recent,
    pub endings: Endings,
    pub outcomes: Outcomes,
    pub prepared: BTreeMap<CommandId, Arc<Prepare>>,
    pub decisions: BTreeMap<CommandId, Arc<Decision>>,
}

pub(super) fn load(store: &dyn Store) -> Result<Loaded, StoreError> {
    let snapshot = store.snapshot();
    let lease = match store.get(&keys::lease(), &snapshot)? {
        Some(bytes) => minicbor::decode(&bytes).map_err(|_| decode_failed("the lease"))?,
        None => Lease::default(),
    };
    let range: Option<KeyRange> = match store.get(&keys::range(), &snapshot)? {
        Some(bytes) => Some(minicbor::decode(&bytes).map_err(|_| decode_failed("the key range"))?),
        None => None,
    };
    let division: Option<Division> = match store.get(&keys::division(), &snapshot)? {
        Some(bytes) => Some(minicbor::decode(&bytes).map_err(|_| decode_failed("the division"))?),
        None => None,
    };
    let mut recent = Recent::default();
    let (start, end) = keys::commands();
    for pair in store.scan(&start, Some(&end), &snapshot) {
        let (key, _) = pair?;
        let (timestamp, id) =
            keys::decode_command(&key).ok_or_else(|| decode_failed("a command's id"))?;
        recent.add(timestamp, id);
    }
    let mut endings = Endings::default();
    let (start, end) = keys::endings();
    for pair in store.scan(&start, Some(&end), &snapshot) {
        let (key, value) = pair?;
        let (at, id) =
            keys::decode_ending(&key).ok_or_else(|| decode_failed("how a transaction ended"))?;
        let ending =
            minicbor::decode(&value).map_err(|_| decode_failed("how a transaction ended"))?;
        endings.add(at, id, ending);
    }
    let outcomes = load_outcomes(store, &snapshot)?;
    let mut prepared = BTreeMap::new();
    let (start, end) = keys::all_prepared();
    for pair in store.scan(&start, Some(&end), &snapshot) {
        let Some(Command::Prepare(prepare)) = command::decode(pair?.1) else {
            return Err(decode_failed("a prepared share"));
        };
        prepared.insert(prepare.head.id, Arc::new(prepare));
    }
    let mut decisions = BTreeMap::new();
    let (start, end) = keys::decisions();
    for pair in store.scan(&start, Some(&end), &snapshot) {
        let (key, value) = pair?;
        let id = keys::decode_decision(&key).ok_or_else(|| decode_failed("a decision"))?;
        let decision = minicbor::decode(&value).map_err(|_| decode_failed("a decision"))?;
        decisions.insert(id, Arc::new(decision));
    }
    Ok(Loaded {
        lease,
        range,
        division,
        recent,
        endings,
        outcomes,
        prepared,
        decisions,
    })
}

fn decode_failed(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} is not readable"))
}

fn load_outcomes(store: &dyn Store, snapshot: &Snapshot) -> Result<Outcomes, StoreError> {
    let mut outcomes = Outcomes::default();
    let (start, end) = keys::commits();
    for pair in store.scan(&start, Some(&end), snapshot) {
        let (key, _) = pair?;
        let commit = keys::decode_commit(&key);
        let (timestamp, id) = commit.ok_or_else(|| decode_failed("a commit that is kept"))?;
        outcomes.add_commit(timestamp, id);
    }
    let (start, end) = keys::refusals();
    for pair in store.scan(&start, Some(&end), snapshot) {
        let (key, value) = pair?;
        let refusal = || decode_failed("a commit that is refused");
        let id = keys::decode_refusal(&key).ok_or_else(refusal)?;
        let at = minicbor::decode(&value).map_err(|_| refusal())?;
        outcomes.add_refusal(at, id);
    }
    Ok(outcomes)
}
