//! Writes: to all replicas at once, answered when the level is reached. Replicas that are slower go on by
//! themselves. What a replica misses is kept for it as a hint.

use super::{Coordinator, Failure, PLACEMENT_ROUNDS_MAX, TabletError, no_tablet};
use crate::grace::{change_expires, hint_expires};
use crate::level::{Place, Places, Purpose, Required};
use crate::lower::lower;
use crate::message::{Action, RawRow, ReplicaError, Request};
use crate::partition::Layout;
use crate::paxos::{PaxosRequest, Proposal};
use crate::peers::{Peers, spawn};
use api::evaluate::{Moment, needs_read};
use api::{Atomicity, Error, Level, Outcome, Retry, WriteRequest, WriteResponse, WriteStep};
use catalog::{Catalog, Durability};
use cluster::Tablet;
use futures::TryFutureExt;
use futures::future::BoxFuture;
use model::{TabletId, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use world::planted::{self, Bug};

/// Tablets that one request may write to.
const TABLETS_PER_REQUEST_MAX: usize = 1024;

/// The part of a request that goes to one tablet.
#[derive(Clone)]
pub(super) struct Part {
    pub tablet: Arc<Tablet>,
    pub deltas: Vec<RawRow>,
    /// What they are of, if they were agreed upon.
    pub decided: Option<Decided>,
    pub durability: Durability,
    /// Until when replicas take it.
    pub expires: Timestamp,
    /// Until when it may be delivered late; `None`: it is not worth a hint.
    pub hint_expires: Option<Timestamp>,
}

/// How many partitions a write reaches, where that counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Partitions {
    One,
    Several,
}

/// A decision about a partition, by its header's key.
#[derive(Clone)]
pub(super) struct Decided {
    pub partition: Vec<u8>,
    pub proposal: Proposal,
}

/// How a replica's part of a write has ended.
enum Taken {
    Acknowledged,
    /// It has missed it, and a durable hint says so.
    Hinted,
    Failed(Failure),
}

impl Coordinator {
    /// Carries out a write whose tables are all eventual.
    pub async fn write(
        &self,
        catalog: &Catalog,
        request: WriteRequest,
    ) -> Result<WriteResponse, Error> {
        if !request.assertions.is_empty() {
            return Err(Error::unsupported(
                "read assertions hold on strong tables only",
            ));
        }
        let deadline = Instant::now() + Duration::from_millis(u64::from(request.patience.ms));
        if request.mutations.iter().any(needs_read) {
            return Box::pin(self.write_conditionally(catalog, request, deadline)).await;
        }
        self.write_blindly(catalog, request, deadline).await
    }

    /// Writes what depends on nothing that is there.
    pub(super) async fn write_blindly(
        &self,
        catalog: &Catalog,
        request: WriteRequest,
        deadline: Instant,
    ) -> Result<WriteResponse, Error> {
        let (mut parts, partitions) = self.split(catalog, &request)?;
        let is_spanning = partitions == Partitions::Several;
        match request.atomicity {
            Atomicity::All if is_spanning => {
                return Err(Error::unsupported(
                    "a write over several partitions of eventual tables cannot be atomic to readers: use a logged batch, \
                 which happens whole in the end, or a keyspace with consistency = 'strong'",
                ));
            }
            Atomicity::Logged if is_spanning => {
                Box::pin(self.write_logged(parts, request.level, deadline)).await?;
            }
            _ if parts.len() == 1 => {
                let part = parts.remove(0);
                self.write_part(part, request.level, deadline).await?;
            }
            _ => Box::pin(self.write_parts(parts, request.level, deadline)).await?,
        }
        Ok(WriteResponse::default())
    }

    /// Lowers the mutations and sorts them by tablet.
    fn split(
        &self,
        catalog: &Catalog,
        request: &WriteRequest,
    ) -> Result<(Vec<Part>, Partitions), Error> {
        let now = self.gateway.now();
        let moment = Moment {
            timestamp: request
                .timestamp
                .unwrap_or_else(|| self.gateway.next_timestamp()),
            now_seconds: now.seconds(),
        };
        let mut parts: BTreeMap<TabletId, Part> = BTreeMap::new();
        let mut first_partition = None;
        let mut partitions = Partitions::One;
        for mutation in &request.mutations {
            let table = catalog
                .table(mutation.table)
                .ok_or_else(|| Error::Refused(api::Refused::NoTable(mutation.table.to_string())))?;
            if request.atomicity != Atomicity::Each && request.mutations.len() > 1 {
                let partition = Layout::new(table).header_of(&mutation.key);
                let place = (table.id, partition.unwrap_or_else(|| mutation.key.clone()));
                if *first_partition.get_or_insert_with(|| place.clone()) != place {
                    partitions = Partitions::Several;
                }
            }
            let delta = lower(table, mutation, moment)?;
            let tablet = self
                .peers
                .tablet(table.root, &mutation.key)
                .ok_or_else(|| no_tablet(table))?;
            let expires = change_expires(now, table.spec.gc_grace_seconds);
            let hint_age_max = self.hints.limits().age_max_seconds;
            let hint_expires = hint_expires(now, table.spec.gc_grace_seconds, hint_age_max);
            let part = parts.entry(tablet.id).or_insert_with(|| Part {
                tablet,
                deltas: Vec::new(),
                decided: None,
                durability: table.spec.replication.durability,
                expires,
                hint_expires,
            });
            part.deltas.push(delta);
            // Tables of one group may differ: the strictest counts for all.
            part.expires = part.expires.min(expires);
            part.hint_expires = part.hint_expires.min(hint_expires);
        }
        if parts.len() > TABLETS_PER_REQUEST_MAX {
            return Err(Error::Refused(api::Refused::TooLarge(format!(
                "a write may reach at most {TABLETS_PER_REQUEST_MAX} tablets"
            ))));
        }
        Ok((parts.into_values().collect(), partitions))
    }

    /// Says `Unavailable` when too few replicas of a part are alive.
    pub(super) fn check_alive(&self, part: &Part, level: Level) -> Result<(), Error> {
        let places = Places::new(&part.tablet, self.peers.as_ref());
        Required::new(level, Purpose::Write, &places).map(|_| ())
    }

    /// All parts at once; the first error, in the order of the tablets, is the answer.
    pub(super) async fn write_parts(
        &self,
        parts: Vec<Part>,
        level: Level,
        deadline: Instant,
    ) -> Result<(), Error> {
        let count = parts.len();
        let first_tablet = parts.first().map(|part| Arc::clone(&part.tablet));
        let (sender, mut receiver) = mpsc::channel(count.max(1));
        for (index, part) in parts.into_iter().enumerate() {
            let (coordinator, sender) = (self.clone(), sender.clone());
            spawn(self.peers.as_ref(), async move {
                let outcome = coordinator.write_part(part, level, deadline).await;
                // Nobody listens any more when the client has gone.
                let _ = sender.send((index, outcome)).await;
            });
        }
        drop(sender);
        let mut first_error: Option<(usize, Error)> = None;
        let mut answered = 0;
        while let Some((index, outcome)) = receiver.recv().await {
            answered += 1;
            if let Err(error) = outcome
                && first_error.as_ref().is_none_or(|(first, _)| index < *first)
            {
                first_error = Some((index, error));
            }
        }
        match (first_error, first_tablet) {
            (Some((_, error)), _) => Err(error),
            // This node is stopping.
            (None, Some(tablet)) if answered < count => Err(self.unknown(&tablet, level)),
            (None, _) => Ok(()),
        }
    }

    pub(super) async fn write_part(
        &self,
        part: Part,
        level: Level,
        deadline: Instant,
    ) -> Result<(), Error> {
        let mut part = Arc::new(part);
        for round in 0..PLACEMENT_ROUNDS_MAX {
            match self.write_once(&part, level, deadline).await {
                Ok(()) => return Ok(()),
                // Somebody may have taken it under the older placement, or may be brought it by a hint.
                Err(TabletError::Api(error))
                    if round > 0 && error.outcome() == Outcome::NotApplied =>
                {
                    return Err(self.unknown(&part.tablet, level));
                }
                Err(TabletError::Api(error)) => return Err(error),
                // Writing again is harmless: the deltas carry their timestamps.
                Err(TabletError::Stale(tablet)) => {
                    let mut parts = self.place_anew(&part, tablet, deadline).await;
                    match (parts.pop(), parts.is_empty()) {
                        (Some(only), true) => part = Arc::new(only),
                        (last, _) => {
                            parts.extend(last);
                            return self.write_halves(parts, level, deadline).await;
                        }
                    }
                }
            }
        }
        tracing::warn!(tablet = %part.tablet.id, "the placement keeps changing");
        Err(self.unknown(&part.tablet, level))
    }

    /// A write of a part given up half-way: some replicas may have it.
    pub(super) fn unknown(&self, tablet: &Tablet, level: Level) -> Error {
        let places = Places::new(tablet, self.peers.as_ref());
        Error::Retry(Retry::WriteTimeout {
            level,
            required: Required::total_of(level, Purpose::Write, &places),
            received: 0,
            outcome: Outcome::Unknown,
            step: WriteStep::Replicas,
        })
    }

    /// The parts of what was one, some of which may have been written while it was.
    fn write_halves(
        &self,
        parts: Vec<Part>,
        level: Level,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), Error>> {
        let first_tablet = parts.first().map(|part| Arc::clone(&part.tablet));
        let writing = self.write_parts(parts, level, deadline);
        Box::pin(
            writing.map_err(move |error| match (error.outcome(), first_tablet) {
                (Outcome::NotApplied, Some(tablet)) => self.unknown(&tablet, level),
                _ => error,
            }),
        )
    }

    /// What becomes of a part of a write when its tablet has a newer placement: the same with that one, or, if the tablet
    /// was divided, one part for each half.
    pub(super) async fn place_anew(
        &self,
        part: &Part,
        said: Tablet,
        deadline: Instant,
    ) -> Vec<Part> {
        let mut parts: BTreeMap<TabletId, Part> = BTreeMap::new();
        // What was decided about a partition is in its tablet, also if it changes nothing.
        let of_partition = part.decided.as_ref().map(|decided| &decided.partition);
        let first = of_partition.or(part.deltas.first().map(|delta| &delta.key));
        let Some(first) = first else {
            return vec![part.clone()];
        };
        let mut tablet = self.newer_placement(said.clone(), first, deadline).await;
        if of_partition.is_some() {
            let part = part.clone();
            return vec![Part { tablet, ..part }];
        }
        for delta in &part.deltas {
            if !tablet.range.contains(&delta.key) {
                tablet = match parts
                    .values()
                    .find(|it| it.tablet.range.contains(&delta.key))
                {
                    Some(part) => Arc::clone(&part.tablet),
                    None => {
                        self.newer_placement(said.clone(), &delta.key, deadline)
                            .await
                    }
                };
            }
            let part = parts.entry(tablet.id).or_insert_with(|| Part {
                tablet: Arc::clone(&tablet),
                deltas: Vec::new(),
                ..part.clone()
            });
            part.deltas.push(delta.clone());
        }
        parts.into_values().collect()
    }

    async fn write_once(
        &self,
        part: &Arc<Part>,
        level: Level,
        deadline: Instant,
    ) -> Result<(), TabletError> {
        let mut places = Places::new(&part.tablet, self.peers.as_ref());
        if planted::is(Bug::StreamMissesWrites) {
            places.replicas.retain(|place| !place.replica.is_learner);
        }
        let required = Required::new(level, Purpose::Write, &places)?;
        match places.replicas.as_slice() {
            [only] if only.replica.node == self.peers.this_node() && level != Level::Any => {
                self.write_here(only, part, required, deadline).await
            }
            all => Box::pin(self.write_all(all, part, required, deadline)).await,
        }
    }

    /// The short way where there is nobody to wait for but this node.
    async fn write_here(
        &self,
        place: &Place,
        part: &Part,
        mut required: Required,
        deadline: Instant,
    ) -> Result<(), TabletError> {
        match timeout_at(deadline, self.ask(place, part.request(place), deadline)).await {
            Ok(Ok(_)) => required.acknowledge(place, Purpose::Write),
            Ok(Err(failure)) => fail(&mut required, place, failure)?,
            Err(_) => {}
        }
        conclude(self.peers.as_ref(), &required)
    }

    async fn write_all(
        &self,
        all: &[Place],
        part: &Arc<Part>,
        mut required: Required,
        deadline: Instant,
    ) -> Result<(), TabletError> {
        let (sender, mut receiver) = mpsc::channel(all.len().max(1) * 2);
        let level = required.level;
        for place in all {
            let (coordinator, sender) = (self.clone(), sender.clone());
            let (place, part) = (place.clone(), part.clone());
            spawn(self.peers.as_ref(), async move {
                coordinator
                    .write_to(&place, &part, level, deadline, sender)
                    .await;
            });
        }
        drop(sender);
        let mut awaited: Vec<&Place> = all.iter().filter(|place| place.is_alive).collect();
        while !required.is_reached() && required.is_reachable() {
            let (place, taken) = match timeout_at(deadline, receiver.recv()).await {
                Ok(Some(answer)) => answer,
                Ok(None) | Err(_) => {
                    awaited.iter().for_each(|it| required.note_silent(it));
                    break;
                }
            };
            awaited.retain(|other| other.replica.id != place.replica.id);
            match taken {
                Taken::Acknowledged => required.acknowledge(&place, Purpose::Write),
                Taken::Hinted if level == Level::Any => {
                    required.acknowledge(&place, Purpose::Write);
                }
                Taken::Hinted => {}
                Taken::Failed(failure) => fail(&mut required, &place, failure)?,
            }
        }
        conclude(self.peers.as_ref(), &required)
    }

    /// One replica's part, to its end: acknowledged, or kept as a hint. The level may be reached without it; then
    /// nobody listens.
    async fn write_to(
        &self,
        place: &Place,
        part: &Part,
        level: Level,
        deadline: Instant,
        sender: mpsc::Sender<(Place, Taken)>,
    ) {
        let node = place.replica.node;
        let failure = if place.is_alive {
            match self.ask(place, part.request(place), deadline).await {
                Ok(_) => {
                    let _ = sender.send((place.clone(), Taken::Acknowledged)).await;
                    return;
                }
                Err(failure) => Some(failure),
            }
        } else {
            None
        };
        let is_missed = failure.as_ref().is_none_or(is_missed);
        // At ANY the hint counts, so it comes first; else whoever waits should not wait for it.
        if level == Level::Any {
            let is_kept = is_missed && self.keep_hint(node, part).await;
            let taken = match failure {
                _ if is_kept => Taken::Hinted,
                Some(failure) => Taken::Failed(failure),
                None => return,
            };
            let _ = sender.send((place.clone(), taken)).await;
            return;
        }
        if let Some(failure) = failure {
            let _ = sender.send((place.clone(), Taken::Failed(failure))).await;
        }
        drop(sender);
        if is_missed {
            self.keep_hint(node, part).await;
        }
    }
}

impl Part {
    pub(super) fn request(&self, place: &Place) -> Request {
        // Of what a data centre decides by itself others take the rows alone, as a plain write.
        let decided = self.decided.as_ref();
        let decided = decided.filter(|decided| {
            decided.proposal.concerns(&place.data_center) || planted::is(Bug::CentresShareBallots)
        });
        let action = match decided {
            Some(decided) => Action::Paxos(PaxosRequest::Commit {
                partition: decided.partition.clone(),
                proposal: decided.proposal.clone(),
                durability: self.durability,
            }),
            None => Action::Apply {
                deltas: self.deltas.clone(),
                durability: self.durability,
                expires: Some(self.expires),
            },
        };
        Request {
            tablet: self.tablet.id,
            epoch: self.tablet.epoch,
            action,
        }
    }
}

/// Whether the replica lacks the write, as far as is known, and a hint would help. Who knows a newer placement refuses,
/// and the write is sent again; but not when its level was reached before.
pub(super) fn is_missed(failure: &Failure) -> bool {
    match failure {
        Failure::Silent(_) => true,
        Failure::Refused(error) => matches!(
            error,
            ReplicaError::NoReplica(_)
                | ReplicaError::NotYet(_)
                | ReplicaError::StaleEpoch(_)
                | ReplicaError::Overloaded(_)
                | ReplicaError::Broken(_)
        ),
    }
}

/// Counts a replica that will not acknowledge.
fn fail(required: &mut Required, place: &Place, failure: Failure) -> Result<(), TabletError> {
    if planted::is(Bug::CountFailedReplicaAsAcknowledged) {
        required.acknowledge(place, Purpose::Write);
        return Ok(());
    }
    match failure {
        Failure::Refused(ReplicaError::StaleEpoch(tablet)) => Err(TabletError::Stale(tablet)),
        Failure::Silent(_) => {
            required.note_silent(place);
            Ok(())
        }
        Failure::Refused(error) => {
            tracing::debug!(node = %place.replica.node, %error, "a replica refused a write");
            required.fail(place, Purpose::Write);
            Ok(())
        }
    }
}

/// The answer, once nothing more is to be waited for.
fn conclude(peers: &dyn Peers, required: &Required) -> Result<(), TabletError> {
    if required.is_reached() {
        return Ok(());
    }
    let (level, received) = (required.level, required.received());
    let error = if required.has_failures() {
        Retry::Failure {
            level,
            required: required.total(),
            received,
            failures: required.failures(peers),
            outcome: Outcome::Unknown,
            is_write: true,
            data_present: false,
        }
    } else {
        Retry::WriteTimeout {
            level,
            required: required.total(),
            received,
            outcome: Outcome::Unknown,
            step: WriteStep::Replicas,
        }
    };
    Err(TabletError::Api(Error::Retry(error)))
}
