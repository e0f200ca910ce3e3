//! One read of one tablet: digests, and reconciliation where they differ.

use super::{Coordinator, Failure, PLACEMENT_ROUNDS_MAX, TabletError};
use crate::level::{Place, Places, Purpose, Required, Standing};
use crate::merge::{Merged, Reconciled, reconcile, single};
use crate::message::{Action, Digest, Page, RawRow, ReplicaError, ReplicaRead, Reply, Request};
use crate::partition::Layout;
use crate::peers::{Peers, spawn};
use api::{Broken, Error, Level, Outcome, Retry};
use catalog::{Durability, Speculation};
use cluster::Tablet;
use futures::poll;
use model::{TableId, Timestamp};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use world::planted::{self, Bug};

/// A read of a part of one tablet.
pub(super) struct Exchange<'a> {
    pub coordinator: &'a Coordinator,
    pub layout: &'a Layout,
    pub level: Level,
    pub durability: Durability,
    /// What replicas lack of the answer is written back first, so that whoever reads later sees it as well.
    pub repairs: bool,
    pub table: TableId,
    pub speculation: Speculation,
    /// Until when replicas take what a repair of this read brings them.
    pub expires: Timestamp,
    pub deadline: Instant,
    pub read: ReplicaRead,
}

/// What a replica has answered.
enum Answer {
    Page(Page),
    Digest(Digest),
}

/// How the short way has ended.
enum Here {
    Read(Merged),
    Failed,
    /// For what it is not known: it is asked as others are, who may stand in for it.
    Waits,
}

type Answers = mpsc::Receiver<(Place, Result<Reply, Failure>)>;
type Sender = mpsc::Sender<(Place, Result<Reply, Failure>)>;

impl Exchange<'_> {
    /// Reads, and repairs what has to be. `None`: what is asked for is not all in one tablet any more.
    pub async fn run(&self, mut tablet: Arc<Tablet>) -> Result<Option<Merged>, Error> {
        for _ in 0..PLACEMENT_ROUNDS_MAX {
            match self.run_once(&tablet).await {
                Ok(merged) => return Ok(Some(merged)),
                Err(TabletError::Api(error)) => return Err(error),
                Err(TabletError::Stale(newer)) => {
                    let Some(first) = self.read.rows.first() else {
                        return Ok(Some(Merged::default()));
                    };
                    let placement = self
                        .coordinator
                        .newer_placement(newer, first, self.deadline);
                    tablet = placement.await;
                    let is_within = self.read.rows.is_within(&tablet.range);
                    if !is_within && Instant::now() < self.deadline {
                        return Ok(None);
                    }
                }
            }
        }
        Err(Error::Retry(Retry::NotServing(format!(
            "the placement of tablet {} keeps changing",
            tablet.id
        ))))
    }

    async fn run_once(&self, tablet: &Tablet) -> Result<Merged, TabletError> {
        let peers = self.coordinator.peers.as_ref();
        let places = Places::new(tablet, peers);
        let mut required = Required::new(self.level, Purpose::Read, &places)?;
        let speeds = &self.coordinator.speeds;
        let standing = |place: &Place| Standing {
            is_failing: speeds.is_failing(place.replica.id),
            is_same_rack: peers.is_same_rack(place.replica.node),
            slowness: speeds.slowness(place.replica.node),
        };
        let (mut chosen, mut spare) = required.choose(&places, peers.this_node(), standing);
        if let [only] = chosen.as_slice()
            && only.replica.node == peers.this_node()
        {
            match self.read_here(tablet, only, &mut required).await? {
                Here::Read(merged) => return Ok(merged),
                Here::Failed if spare.is_empty() => return Err(short(peers, &required, false)),
                Here::Failed => chosen = vec![spare.remove(0)],
                Here::Waits => {}
            }
        }
        let mut answers = self.collect(tablet, chosen, spare, &mut required).await?;
        let digest_of = |answer: &Answer| match answer {
            Answer::Page(page) => page.digest(),
            Answer::Digest(digest) => *digest,
        };
        let agree = match answers.split_first() {
            Some(((_, first), rest)) => {
                rest.is_empty() || {
                    let first = digest_of(first);
                    rest.iter().all(|(_, answer)| digest_of(answer) == first)
                }
            }
            None => false,
        };
        let page = answers.iter_mut().find_map(|(_, answer)| match answer {
            Answer::Page(page) => Some(page),
            Answer::Digest(_) => None,
        });
        match page {
            Some(page) if agree => single(std::mem::take(page)).map_err(broken),
            _ => self.repair(tablet, answers, &required).await,
        }
    }

    fn request(&self, tablet: &Tablet, action: Action) -> Request {
        Request {
            tablet: tablet.id,
            epoch: tablet.epoch,
            action,
        }
    }

    /// The short way where this node alone is asked.
    async fn read_here(
        &self,
        tablet: &Tablet,
        place: &Place,
        required: &mut Required,
    ) -> Result<Here, TabletError> {
        let request = self.request(tablet, Action::Read(self.read.clone()));
        let mut reading = pin!(self.coordinator.ask(place, request, self.deadline));
        match poll!(&mut reading) {
            Poll::Ready(Ok(Reply::Page(page))) => Ok(Here::Read(single(page).map_err(broken)?)),
            Poll::Ready(Ok(_)) => Err(broken("a read was not answered with rows".into())),
            Poll::Ready(Err(failure)) => {
                self.fail(required, place, failure)?;
                Ok(Here::Failed)
            }
            Poll::Pending => Ok(Here::Waits),
        }
    }

    /// Asks as many replicas as the level needs; where one fails, another in its place; and where they take longer than the
    /// table's option says, one more. Gives up when those that have not answered yet could not suffice.
    async fn collect(
        &self,
        tablet: &Tablet,
        chosen: Vec<Place>,
        mut spare: Vec<Place>,
        required: &mut Required,
    ) -> Result<Vec<(Place, Answer)>, TabletError> {
        let (sender, mut receiver) = mpsc::channel((chosen.len() + spare.len()).max(1));
        let (began, speeds) = (Instant::now(), &self.coordinator.speeds);
        let whole = self.deadline.duration_since(began);
        let patience = speeds.patience(self.table, self.speculation, whole);
        let mut extra_at = patience.filter(|_| !spare.is_empty()).map(|it| began + it);
        let mut silent = Vec::with_capacity(chosen.len());
        for (index, place) in chosen.into_iter().enumerate() {
            let action = if index == 0 {
                Action::Read(self.read.clone())
            } else {
                Action::Digest(self.read.clone())
            };
            silent.push((place.clone(), began));
            self.send(place, self.request(tablet, action), &sender);
        }
        let ask_one_more = |missing: &[Place], spare: &mut Vec<Place>, silent: &mut Vec<_>| {
            let next = self.stand_in(missing, spare)?;
            let action = Action::Read(self.read.clone());
            silent.push((next.clone(), Instant::now()));
            self.send(next, self.request(tablet, action), &sender);
            Some(())
        };
        let mut answers = Vec::new();
        while !required.is_reached() {
            let until = extra_at.map_or(self.deadline, |at| at.min(self.deadline));
            let (place, outcome) = match timeout_at(until, receiver.recv()).await {
                Ok(Some(answer)) => answer,
                Err(_) if extra_at.take().is_some() && Instant::now() < self.deadline => {
                    self.note_silent(&silent);
                    let missing: Vec<Place> = places_of(&silent).cloned().collect();
                    if ask_one_more(&missing, &mut spare, &mut silent).is_some() {
                        speeds.count_extra_read();
                    }
                    continue;
                }
                Ok(None) | Err(_) => {
                    self.note_silent(&silent);
                    places_of(&silent).for_each(|place| required.note_silent(place));
                    return Err(self.short(required, &answers));
                }
            };
            silent.retain(|(other, _)| other.replica.id != place.replica.id);
            match outcome {
                Ok(Reply::Page(page)) => {
                    required.acknowledge(&place, Purpose::Read);
                    answers.push((place, Answer::Page(page)));
                }
                Ok(Reply::Digest(digest)) => {
                    required.acknowledge(&place, Purpose::Read);
                    answers.push((place, Answer::Digest(digest)));
                }
                Ok(_) => return Err(broken("a read was not answered with rows".into())),
                Err(failure) => {
                    self.fail(required, &place, failure)?;
                    let has_more = ask_one_more(&[place], &mut spare, &mut silent).is_some();
                    if !has_more && !required.could_be_reached(places_of(&silent), Purpose::Read) {
                        return Err(self.short(required, &answers));
                    }
                }
            }
        }
        speeds.note_read(self.table, began.elapsed());
        Ok(answers)
    }

    /// Counts a replica that has given no answer.
    fn fail(
        &self,
        required: &mut Required,
        place: &Place,
        failure: Failure,
    ) -> Result<(), TabletError> {
        match failure {
            Failure::Refused(ReplicaError::StaleEpoch(tablet)) => Err(TabletError::Stale(tablet)),
            Failure::Refused(error) => {
                tracing::debug!(node = %place.replica.node, %error, "a replica refused a read");
                if matches!(error, ReplicaError::Broken(_)) {
                    self.coordinator.speeds.note_failing(place.replica.id);
                }
                required.fail(place, Purpose::Read);
                Ok(())
            }
            Failure::Silent(_) => {
                required.note_silent(place);
                Ok(())
            }
        }
    }

    fn short(&self, required: &Required, answers: &[(Place, Answer)]) -> TabletError {
        short(self.coordinator.peers.as_ref(), required, has_page(answers))
    }

    /// Those have not answered since they were asked: others are asked before them from now on.
    fn note_silent(&self, silent: &[(Place, Instant)]) {
        for (place, asked_at) in silent {
            let speeds = &self.coordinator.speeds;
            speeds.note(place.replica.node, asked_at.elapsed());
        }
    }

    /// One of the spare replicas that counts where one of those would.
    fn stand_in(&self, missing: &[Place], spare: &mut Vec<Place>) -> Option<Place> {
        let fits = |other: &Place| {
            let mut missing = missing.iter();
            self.level != Level::EachQuorum
                || missing.any(|place| place.data_center == other.data_center)
        };
        let at = spare.iter().position(fits)?;
        Some(spare.remove(at))
    }

    fn send(&self, place: Place, request: Request, sender: &Sender) {
        let (coordinator, sender) = (self.coordinator.clone(), sender.clone());
        let deadline = self.deadline;
        let is_read = matches!(request.action, Action::Read(_) | Action::Digest(_));
        spawn(self.coordinator.peers.as_ref(), async move {
            let began = Instant::now();
            let outcome = coordinator.ask(&place, request, deadline).await;
            let node = place.replica.node;
            let tells = is_read && node != coordinator.peers.this_node();
            if tells && !matches!(outcome, Err(Failure::Refused(_))) {
                coordinator.speeds.note(node, began.elapsed());
            }
            // The reader may have what it needs, or have gone.
            let _ = sender.send((place, outcome)).await;
        });
    }

    /// Gets the data of all that answered, merges it, and writes it back to whom it lacks.
    async fn repair(
        &self,
        tablet: &Tablet,
        answers: Vec<(Place, Answer)>,
        required: &Required,
    ) -> Result<Merged, TabletError> {
        let this_node = self.coordinator.peers.this_node();
        api::trace::event(this_node, || "The digests differ".into());
        let (sender, receiver) = mpsc::channel(answers.len().max(1));
        let (mut places, mut pages) = (Vec::new(), Vec::new());
        let mut awaited = 0;
        for (place, answer) in answers {
            match answer {
                Answer::Page(page) => {
                    places.push(place);
                    pages.push(page);
                }
                Answer::Digest(_) => {
                    let request = self.request(tablet, Action::Read(self.read.clone()));
                    self.send(place, request, &sender);
                    awaited += 1;
                }
            }
        }
        for (place, reply) in self.await_all(receiver, awaited, required).await? {
            let Reply::Page(page) = reply else {
                return Err(broken("a read was not answered with rows".into()));
            };
            places.push(place);
            pages.push(page);
        }
        let Reconciled { merged, repairs } =
            reconcile(self.layout, &self.read.rows, &pages).map_err(broken)?;
        if self.repairs && !planted::is(Bug::SkipReadRepair) {
            let (mut places, mut repairs) = (places, repairs);
            let pending = self.pending(tablet);
            repairs.extend(pending.iter().map(|_| union(&repairs)).collect::<Vec<_>>());
            places.extend(pending);
            self.write_back(tablet, places, repairs, required).await?;
        }
        Ok(merged)
    }

    /// Replicas that are being filled: they may have been filled from one that is repaired only now.
    fn pending(&self, tablet: &Tablet) -> Vec<Place> {
        if planted::is(Bug::ReadRepairSkipsPending) {
            return Vec::new();
        }
        let places = Places::new(tablet, self.coordinator.peers.as_ref());
        let pending = places.replicas.into_iter();
        pending
            .filter(|place| place.replica.is_learner && place.is_alive)
            .collect()
    }

    async fn write_back(
        &self,
        tablet: &Tablet,
        places: Vec<Place>,
        repairs: Vec<Vec<RawRow>>,
        required: &Required,
    ) -> Result<(), TabletError> {
        let (sender, receiver) = mpsc::channel(places.len().max(1));
        let mut awaited = 0;
        for (place, deltas) in places.into_iter().zip(repairs) {
            if deltas.is_empty() {
                continue;
            }
            let (this_node, node) = (self.coordinator.peers.this_node(), place.replica.node);
            api::trace::event(this_node, || {
                format!("Read repair: {node} lacks {} rows", deltas.len())
            });
            let action = Action::Apply {
                deltas,
                durability: self.durability,
                expires: Some(self.expires),
            };
            self.send(place, self.request(tablet, action), &sender);
            awaited += 1;
        }
        self.await_all(receiver, awaited, required).await?;
        Ok(())
    }

    /// All of so many answers, or the error that says that the level was missed.
    async fn await_all(
        &self,
        mut receiver: Answers,
        awaited: usize,
        required: &Required,
    ) -> Result<Vec<(Place, Reply)>, TabletError> {
        let mut replies = Vec::with_capacity(awaited);
        while replies.len() < awaited {
            match timeout_at(self.deadline, receiver.recv()).await {
                Ok(Some((place, Ok(reply)))) => replies.push((place, reply)),
                Ok(Some((_, Err(Failure::Refused(ReplicaError::StaleEpoch(tablet)))))) => {
                    return Err(TabletError::Stale(tablet));
                }
                Ok(Some((_, Err(_))) | None) | Err(_) => {
                    let missing = (awaited - replies.len()) as u32;
                    return Err(TabletError::Api(Error::Retry(Retry::ReadTimeout {
                        level: self.level,
                        required: required.total(),
                        received: required.total().saturating_sub(missing),
                        data_present: true,
                    })));
                }
            }
        }
        Ok(replies)
    }
}

/// What any replica lacks, each row once.
fn union(repairs: &[Vec<RawRow>]) -> Vec<RawRow> {
    let rows: BTreeMap<&[u8], &RawRow> = repairs
        .iter()
        .flatten()
        .map(|raw| (raw.key.as_slice(), raw))
        .collect();
    rows.into_values().cloned().collect()
}

fn places_of(asked: &[(Place, Instant)]) -> impl Iterator<Item = &Place> + Clone {
    asked.iter().map(|(place, _)| place)
}

fn has_page(answers: &[(Place, Answer)]) -> bool {
    answers
        .iter()
        .any(|(_, answer)| matches!(answer, Answer::Page(_)))
}

/// The answer when too few replicas have answered.
fn short(peers: &dyn Peers, required: &Required, data_present: bool) -> TabletError {
    let (level, received) = (required.level, required.received());
    let error = if required.has_failures() {
        Retry::Failure {
            level,
            required: required.total(),
            received,
            failures: required.failures(peers),
            outcome: Outcome::NotApplied,
            is_write: false,
            data_present,
        }
    } else {
        Retry::ReadTimeout {
            level,
            required: required.total(),
            received,
            data_present,
        }
    };
    TabletError::Api(Error::Retry(error))
}

fn broken(message: String) -> TabletError {
    TabletError::Api(Error::Broken(Broken {
        message,
        outcome: Outcome::NotApplied,
    }))
}
