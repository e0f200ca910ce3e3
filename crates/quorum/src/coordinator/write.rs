//! Writes: to all replicas at once, answered when the level is reached. Replicas that are slower go on by
//! themselves.

use super::{Coordinator, Failure, PLACEMENT_ROUNDS_MAX, TabletError, no_tablet};
use crate::level::{Place, Places, Purpose, Required};
use crate::lower::lower;
use crate::message::{Action, RawRow, ReplicaError, Request};
use crate::partition::Layout;
use crate::peers::spawn;
use api::evaluate::Moment;
use api::{Atomicity, Error, Level, Outcome, Retry, WriteRequest, WriteResponse};
use catalog::{Catalog, Durability, Table};
use cluster::Tablet;
use model::TabletId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use world::planted::{self, Bug};

/// Tablets that one request may write to.
const TABLETS_PER_REQUEST_MAX: usize = 1024;

/// The part of a request that goes to one tablet.
struct Part {
    tablet: Arc<Tablet>,
    deltas: Vec<RawRow>,
    durability: Durability,
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
        let mut parts = self.split(catalog, &request)?;
        if parts.len() == 1 {
            let part = parts.remove(0);
            self.write_part(part, request.level, deadline).await?;
        } else {
            self.write_parts(parts, request.level, deadline).await?;
        }
        Ok(WriteResponse::default())
    }

    /// Lowers the mutations and sorts them by tablet.
    fn split(&self, catalog: &Catalog, request: &WriteRequest) -> Result<Vec<Part>, Error> {
        let moment = Moment {
            timestamp: request
                .timestamp
                .unwrap_or_else(|| self.gateway.next_timestamp()),
            now_seconds: self.gateway.now_seconds(),
        };
        let mut parts: BTreeMap<TabletId, Part> = BTreeMap::new();
        let mut partitions = OnePartition::default();
        for mutation in &request.mutations {
            let table = catalog
                .table(mutation.table)
                .ok_or_else(|| Error::Refused(api::Refused::NoTable(mutation.table.to_string())))?;
            if request.atomicity == Atomicity::All && request.mutations.len() > 1 {
                partitions.check(table, &mutation.key)?;
            }
            let delta = lower(table, mutation, moment)?;
            let tablet = self
                .peers
                .tablet(table.root, &mutation.key)
                .ok_or_else(|| no_tablet(table))?;
            let durability = table.spec.replication.durability;
            let part = parts.entry(tablet.id).or_insert_with(|| Part {
                tablet,
                deltas: Vec::new(),
                durability,
            });
            part.deltas.push(delta);
        }
        if parts.len() > TABLETS_PER_REQUEST_MAX {
            return Err(Error::Refused(api::Refused::TooLarge(format!(
                "a write may reach at most {TABLETS_PER_REQUEST_MAX} tablets"
            ))));
        }
        Ok(parts.into_values().collect())
    }

    /// All parts at once; the first error, in the order of the tablets, is the answer.
    async fn write_parts(
        &self,
        parts: Vec<Part>,
        level: Level,
        deadline: Instant,
    ) -> Result<(), Error> {
        let count = parts.len();
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
        match first_error {
            Some((_, error)) => Err(error),
            // This node is stopping.
            None if answered < count => Err(unknown(level)),
            None => Ok(()),
        }
    }

    async fn write_part(
        &self,
        mut part: Part,
        level: Level,
        deadline: Instant,
    ) -> Result<(), Error> {
        for _ in 0..PLACEMENT_ROUNDS_MAX {
            match self.write_once(&part, level, deadline).await {
                Ok(()) => return Ok(()),
                Err(TabletError::Api(error)) => return Err(error),
                // Writing again is harmless: the deltas carry their timestamps.
                Err(TabletError::Stale(tablet)) => {
                    part.tablet = self.newer_placement(tablet).await;
                }
            }
        }
        tracing::warn!(tablet = %part.tablet.id, "the placement keeps changing");
        Err(unknown(level))
    }

    async fn write_once(
        &self,
        part: &Part,
        level: Level,
        deadline: Instant,
    ) -> Result<(), TabletError> {
        let places = Places::new(&part.tablet, self.peers.as_ref());
        let required = Required::new(level, Purpose::Write, &places)?;
        let request = Request {
            tablet: part.tablet.id,
            epoch: part.tablet.epoch,
            action: Action::Apply {
                deltas: part.deltas.clone(),
                durability: part.durability,
            },
        };
        let alive: Vec<&Place> = places
            .replicas
            .iter()
            .filter(|place| place.is_alive)
            .collect();
        match alive.as_slice() {
            [only] if only.replica.node == self.peers.this_node() => {
                self.write_here(only, request, required, deadline).await
            }
            alive => self.write_all(alive, &request, required, deadline).await,
        }
    }

    /// The short way where there is nobody to wait for but this node.
    async fn write_here(
        &self,
        place: &Place,
        request: Request,
        mut required: Required,
        deadline: Instant,
    ) -> Result<(), TabletError> {
        match timeout_at(deadline, self.ask(place, request, deadline)).await {
            Ok(Ok(_)) => required.acknowledge(place, Purpose::Write),
            Ok(Err(failure)) => fail(&mut required, place, failure)?,
            Err(_) => {}
        }
        conclude(&required)
    }

    async fn write_all(
        &self,
        alive: &[&Place],
        request: &Request,
        mut required: Required,
        deadline: Instant,
    ) -> Result<(), TabletError> {
        let (sender, mut receiver) = mpsc::channel(alive.len().max(1));
        for place in alive {
            let (coordinator, sender) = (self.clone(), sender.clone());
            let (place, request) = ((*place).clone(), request.clone());
            spawn(self.peers.as_ref(), async move {
                let outcome = coordinator.ask(&place, request, deadline).await;
                // The level may have been reached without this one.
                let _ = sender.send((place, outcome)).await;
            });
        }
        drop(sender);
        while !required.is_reached() && required.is_reachable() {
            match timeout_at(deadline, receiver.recv()).await {
                Ok(Some((place, Ok(_)))) => required.acknowledge(&place, Purpose::Write),
                Ok(Some((place, Err(failure)))) => fail(&mut required, &place, failure)?,
                Ok(None) | Err(_) => break,
            }
        }
        conclude(&required)
    }
}

/// Given up half-way: some replicas may have the write.
fn unknown(level: Level) -> Error {
    Error::Retry(Retry::WriteTimeout {
        level,
        required: 1,
        received: 0,
        outcome: Outcome::Unknown,
    })
}

/// Counts a replica that will not acknowledge.
fn fail(required: &mut Required, place: &Place, failure: Failure) -> Result<(), TabletError> {
    if planted::is(Bug::CountFailedReplicaAsAcknowledged) {
        required.acknowledge(place, Purpose::Write);
        return Ok(());
    }
    match failure {
        Failure::Refused(ReplicaError::StaleEpoch(tablet)) => Err(TabletError::Stale(tablet)),
        // It may still answer somebody else; here it counts as silent.
        Failure::Silent(_) => Ok(()),
        Failure::Refused(error) => {
            tracing::debug!(node = %place.replica.node, %error, "a replica refused a write");
            required.fail(place, Purpose::Write);
            Ok(())
        }
    }
}

/// The answer, once nothing more is to be waited for.
fn conclude(required: &Required) -> Result<(), TabletError> {
    if required.is_reached() {
        return Ok(());
    }
    let (level, received) = (required.level, required.received());
    let error = if required.is_reachable() {
        Retry::WriteTimeout {
            level,
            required: required.total(),
            received,
            outcome: Outcome::Unknown,
        }
    } else {
        Retry::Failure {
            level,
            required: required.total(),
            received,
            failures: required.failed(),
            outcome: Outcome::Unknown,
            is_write: true,
        }
    };
    Err(TabletError::Api(Error::Retry(error)))
}

/// Sees to it that an atomic write stays within one partition: across partitions it takes a batch log.
#[derive(Default)]
struct OnePartition {
    first: Option<(model::TableId, Vec<u8>)>,
}

impl OnePartition {
    fn check(&mut self, table: &Table, key: &[u8]) -> Result<(), Error> {
        let partition = Layout::new(table)
            .header_of(key)
            .unwrap_or_else(|| key.to_vec());
        let place = (table.id, partition);
        match &self.first {
            Some(first) if *first != place => Err(Error::unsupported(
                "an atomic write over several partitions of eventual tables needs a batch log, which is not \
                 built yet: use an unlogged batch, or a keyspace with consistency = 'strong'",
            )),
            Some(_) => Ok(()),
            None => {
                self.first = Some(place);
                Ok(())
            }
        }
    }
}
