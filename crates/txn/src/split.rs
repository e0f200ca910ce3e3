//! Division of a tablet: a command in its log that takes the keys from one on away from it, and gives them to a new
//! tablet whose replicas stand beside its own.
//!
//! ```text
//!            left's log   … writes │ Split │ writes below the cut │ Settle
//!  each replica of left            │ narrows its range, notes the division
//!  beside it, from left's store    └──► right's replica: everything from the cut on, as of Split
//! ```
//!
//! * The leaseholder proposes the split after everything that it has promised about the right half's keys, and
//!   promises nothing about them from then on; the split carries how far those promises reach, and right's first
//!   lease begins above it, when that time has passed for certain.
//! * What left keeps of right's keys does not change any more: a write that comes behind the split is refused by
//!   all replicas alike. So the right half can be made at any time after, again after a crash, from any replica of
//!   left: also one that never applied the split, and was sent a state instead.
//! * It goes from left only when the log says that right lives on its own (`Settle`).
//!
//! Whoever made a right half begins its group with that state as its first; whoever could not waits to be sent one.

use crate::CommandId;
use crate::command::{Control, Prepare, Verdict, encode_control, encode_prepare};
use crate::keys;
use crate::outcomes::Outcomes;
use crate::request::TabletError;
use crate::state::{Decision, Endings, Lease, Recent};
use crate::tablet::{Inner, StrongTablet, no_leader};
use api::{Error, KeyRange, Outcome, Retry};
use cluster::Tablet;
use consensus::{Done, FOUNDED_AT, ProposeError};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::{LeaseEpoch, PlacementEpoch, ReplicaId, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;
use world::planted::{self, Bug};
use world::{APPLIED_KEY, Kind, Store, StoreBatch, StoreError, StoreOperation};

/// How often one looks whether a store is flushed.
const FLUSH_INTERVAL: Duration = Duration::from_millis(5);
/// A flush that takes longer is waited for by who asks next.
const FLUSH_LOOKS_MAX: u32 = 400;

/// How a tablet is to be divided: `[start, at)` stays, `[at, end)` becomes a tablet of its own, with a new
/// replica beside each present one.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitPlan {
    pub at: Vec<u8>,
    /// The present tablet after the split.
    pub left: Tablet,
    /// The new one; its replicas are on the same nodes.
    pub right: Tablet,
}

/// What became of the attempt to make a replica of the right half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeded {
    /// Its store is there.
    Done,
    /// The replica of the left half does not know of the split yet, or has no state.
    NotYet,
    /// The right half lives on its own already: its members send their state.
    Settled,
}

/// What right's replicas are made from, beside the rows: the same on all of them, however late they are made. Here
/// all that a tablet keeps beside its rows is divided by key.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Division {
    #[n(0)]
    pub right: Tablet,
    /// The placement in which the range is narrowed.
    #[n(1)]
    pub left_epoch: PlacementEpoch,
    #[n(2)]
    promised: Timestamp,
    /// Right's keys of the kind `state`, all of them, with their values.
    #[n(3)]
    state: Vec<(ByteVec, ByteVec)>,
}

impl Division {
    pub fn new(left: &Tablet, right: &Tablet, promised: Timestamp) -> Division {
        let mut division = Division {
            right: right.clone(),
            left_epoch: left.epoch,
            promised,
            state: Vec::new(),
        };
        division.put(keys::range(), encode(&right.range));
        division
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.state.push((key.into(), value.into()));
    }

    /// Before right's first lease: nobody holds one, and nothing up to `promised` may be committed.
    pub fn with_lease(mut self, epoch: LeaseEpoch) -> Division {
        let end = match planted::is(Bug::SplitForgetsPromised) {
            true => Timestamp::MIN,
            false => self.promised,
        };
        let lease = Lease {
            epoch,
            holder: ReplicaId(0),
            end,
            released: None,
        };
        self.put(keys::lease(), encode(&lease));
        self
    }

    /// Whoever asks again about what was done before the split may ask either half.
    pub fn with_remembered(mut self, recent: &Recent, endings: &Endings) -> Division {
        for (timestamp, id) in recent.all() {
            self.put(keys::command(*timestamp, *id), Vec::new());
        }
        for (at, id, ending) in endings.all() {
            self.put(keys::ending(at, id), encode(&ending));
        }
        self
    }

    /// What is refused is so in both halves. That something was committed before, the left one alone remembers: whoever
    /// asks, asks all tablets.
    pub fn with_refusals(mut self, outcomes: &Outcomes) -> Division {
        for (id, at) in outcomes.refusals() {
            self.put(keys::refusal(id), encode(&at));
        }
        self
    }

    /// Of a share, each half keeps what is its own; both know the decisions, and see to it that others do.
    pub fn with_open(
        mut self,
        prepared: &BTreeMap<CommandId, Arc<Prepare>>,
        decisions: &BTreeMap<CommandId, Arc<Decision>>,
    ) -> Division {
        for (id, share) in prepared {
            let part = share.within(&self.right.range);
            if let Some(part) = part.filter(|_| !planted::is(Bug::SplitForgetsPrepared)) {
                self.put(keys::prepared(*id), encode_prepare(&part));
            }
        }
        for (id, decision) in decisions {
            self.put(keys::decision(*id), encode(decision.as_ref()));
        }
        self
    }
}

/// What makes right's state of a copy of left's. Rows need not change, for nobody asks for keys outside of the
/// range.
fn right_half(copy: &dyn Store, right: &Tablet) -> Result<StoreBatch, StoreError> {
    let snapshot = copy.snapshot();
    let division: Option<Division> = match copy.get(&keys::division(), &snapshot)? {
        Some(bytes) => Some(
            minicbor::decode(&bytes)
                .map_err(|_| StoreError::Corrupt("the division is not readable".into()))?,
        ),
        None => None,
    };
    let division = division
        .filter(|division| division.right.id == right.id)
        .ok_or_else(|| StoreError::Refused(format!("{} is divided no more", right.id)))?;
    let state: BTreeMap<Vec<u8>, Vec<u8>> = division
        .state
        .into_iter()
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    let mut operations = Vec::new();
    for pair in copy.scan(&[Kind::State as u8], None, &snapshot) {
        let (key, _) = pair?;
        if !state.contains_key(key.as_ref()) && key.as_ref() != APPLIED_KEY {
            let key = key.to_vec();
            operations.push(StoreOperation::Delete { key });
        }
    }
    let puts = state.into_iter();
    operations.extend(puts.map(|(key, value)| StoreOperation::Put { key, value }));
    Ok(StoreBatch {
        operations,
        applied: FOUNDED_AT,
    })
}

fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

impl StrongTablet {
    /// As the leaseholder: divides the tablet. Done also when it is divided like this already.
    pub async fn split(&self, plan: SplitPlan) -> Result<(), TabletError> {
        let inner = &self.inner;
        inner.hold().await?;
        let Some(decided) = propose(inner, plan)? else {
            return Ok(());
        };
        match decided.await.unwrap_or(Err(ProposeError::Unknown)) {
            Ok(done) => match Verdict::decode(&done.result) {
                Verdict::Done | Verdict::Repeated => Ok(()),
                Verdict::OldEpoch | Verdict::Ended(_) => {
                    Err(TabletError::NotLeaseholder { hint: None })
                }
            },
            Err(ProposeError::NotLeader { leader }) => Err(TabletError::NotLeaseholder {
                hint: leader.map(|leader| leader.node),
            }),
            Err(ProposeError::Unknown) => Err(no_leader(Outcome::Unknown)),
            Err(_) => Err(no_leader(Outcome::NotApplied)),
        }
    }

    /// The right half of the last split, while this replica knows that it may need this one.
    pub fn division(&self) -> Option<Arc<Tablet>> {
        self.inner.replica.state.lock().division.clone()
    }

    /// As the leader: says in the log that a right half lives on its own.
    pub async fn settle(&self, right: &Tablet) {
        let inner = &self.inner;
        let control = Control::Settle { right: right.id };
        let proposed = inner
            .spec
            .groups
            .propose(inner.spec.tablet.id, encode_control(&control));
        // If it fails, it is tried again as long as the division is there.
        let _ = proposed.await;
    }

    /// Makes a replica of the right half beside this one, where there is none: a copy of this one's store by links,
    /// divided before it is there. Can be repeated, and cut short anywhere.
    pub async fn seed(&self, right: &Tablet, replica: ReplicaId) -> Result<Seeded, StoreError> {
        let inner = &self.inner;
        let Some(store) = inner.replica.store() else {
            return Ok(Seeded::NotYet);
        };
        match standing(store.as_ref(), right)? {
            Seeded::Done => {}
            other => return Ok(other),
        }
        let wanted = store.applied();
        let mut looks = 0;
        while store.flushed() < wanted {
            if looks == FLUSH_LOOKS_MAX {
                return Ok(Seeded::NotYet);
            }
            store.request_flush();
            sleep(FLUSH_INTERVAL).await;
            looks += 1;
        }
        let edit = |copy: &dyn Store| right_half(copy, right);
        let copied = inner.spec.stores.copy(inner.spec.replica, replica, &edit);
        match copied {
            Ok(()) => Ok(Seeded::Done),
            // Settled, or sent another state, meanwhile: to be looked at again.
            Err(StoreError::Refused(_) | StoreError::Installing(_)) => Ok(Seeded::NotYet),
            Err(error) => Err(error),
        }
    }
}

/// Where a replica of the left half stands with a split.
fn standing(store: &dyn Store, right: &Tablet) -> Result<Seeded, StoreError> {
    let unreadable = |_| StoreError::Corrupt("the state is not readable".into());
    let snapshot = store.snapshot();
    if let Some(bytes) = store.get(&keys::division(), &snapshot)? {
        let division: Division = minicbor::decode(&bytes).map_err(unreadable)?;
        if division.right.id == right.id {
            return Ok(Seeded::Done);
        }
    }
    let range: Option<KeyRange> = match store.get(&keys::range(), &snapshot)? {
        Some(bytes) => Some(minicbor::decode(&bytes).map_err(unreadable)?),
        None => None,
    };
    let is_narrowed = range.is_some_and(|range| !range.contains(&right.range.start));
    Ok(match is_narrowed {
        true => Seeded::Settled,
        false => Seeded::NotYet,
    })
}

/// Proposes a split, after all that is promised for the keys that go; `None` when it is done already.
fn propose(
    inner: &Inner,
    plan: SplitPlan,
) -> Result<Option<oneshot::Receiver<Result<Done, ProposeError>>>, TabletError> {
    let _order = inner.proposing.lock();
    let now = inner.now()?;
    let mut state = inner.replica.state.lock();
    if state.check_held(now).is_err() {
        return Err(TabletError::NotLeaseholder { hint: None });
    }
    let SplitPlan { at, left, right } = plan;
    if state.range == left.range {
        return Ok(None);
    }
    let whole = KeyRange {
        start: left.range.start.clone(),
        end: right.range.end.clone(),
    };
    if state.range != whole || right.range.start != at || left.range.end.as_ref() != Some(&at) {
        return Err(TabletError::Api(Error::invalid(
            "the split is not one of the tablet as it is",
        )));
    }
    if state.is_dividing() || state.division.is_some() {
        return Err(TabletError::Api(Error::Retry(Retry::NotServing(
            "a split is under way".into(),
        ))));
    }
    let confirmed = state.locks.confirmed_until();
    let Some(holding) = &mut state.holding else {
        return Err(TabletError::NotLeaseholder { hint: None });
    };
    let epoch = holding.epoch;
    holding.divides_to = Some(left.range.clone());
    // Locks are not divided. Who counts on one for a commit counts on nothing being committed before that.
    let promised = holding.promised.max(confirmed.unwrap_or(Timestamp::MIN));
    let control = Control::Split {
        epoch,
        at,
        left,
        right,
        promised,
    };
    drop(state);
    let (sender, decided) = oneshot::channel();
    let replica = inner.replica.clone();
    inner.spec.groups.propose_with(
        inner.spec.tablet.id,
        encode_control(&control),
        Box::new(move |outcome| {
            // While it may yet be applied, nothing is promised: until a new lease, before which it is decided.
            let is_decided = !matches!(outcome, Err(ProposeError::Unknown));
            if is_decided
                && let Some(holding) = &mut replica.state.lock().holding
                && holding.epoch == epoch
            {
                holding.divides_to = None;
            }
            replica.changed.notify_waiters();
            let _ = sender.send(outcome);
        }),
    );
    tracing::info!(tablet = %inner.spec.tablet.id, %epoch, "divides");
    Ok(Some(decided))
}

impl Inner {
    /// Gives up what a split has taken away, once nobody needs it and no crash brings it back.
    pub fn forget_right_half(&self) {
        let Some(store) = self.replica.store() else {
            return;
        };
        let range = {
            let mut state = self.replica.state.lock();
            let Some(index) = state.forgets_at else {
                return;
            };
            if store.flushed().index < index {
                drop(state);
                return store.request_flush();
            }
            state.forgets_at = None;
            state.range.clone()
        };
        store.forget_spans(keys::spans_outside(&range));
    }
}
