//! Registers on a strong table, or on an eventual one where each write is a compare-and-set: every history of every
//! key must be linearizable. On the eventual table reads are serial or at QUORUM, as are the commits: what somebody
//! has been shown, both must show. Where data centres agree by themselves, each key has a home, and only who is there
//! reads and writes it; beside them are partitions that all data centres agree on.

use super::client::{
    Ending, FINAL_CLIENT, PATIENCE_MS, Registers, Step, create, create_shared, insist, read,
    read_all, unleash, write,
};
use super::{Counts, NAMESPACE, replication};
use crate::checker::linearizable::{self, Action, Answer, Operation, Verdict};
use crate::cluster::{Cluster, Door};
use crate::nemesis::Strikes;
use crate::plan::Plan;
use api::{
    Assignment, Check, CheckOperator, Condition, Error, KeyRange, Level, Mutation, Patience,
    ReadBound, ReadRequest, Refused, Returning, RowOperation, Selection, WriteRequest,
    WriteResponse,
};
use catalog::{Change, Protocol};
use model::{Timestamp, Value};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What the registers are kept by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A strong table.
    Strong,
    /// An eventual one, by compare-and-set among all replicas.
    Swapped,
    /// An eventual one, by compare-and-set among the replicas of a key's home, or, in some partitions, among all.
    Regional,
}

struct Game {
    cluster: Cluster,
    plan: Plan,
    kind: Kind,
    /// On an eventual table: how many must have merged what all have agreed on. Plain reads show it only after a QUORUM
    /// has, so at other levels all reads are serial.
    commit_level: Level,
    registers: Arc<Registers>,
    keys: u64,
    counts: Mutex<Counts>,
    history: Mutex<BTreeMap<u64, Vec<Operation>>>,
    /// What was true at a timestamp, by answers: it must stay true for ever.
    facts: Mutex<Vec<Fact>>,
    /// What somebody saw last, for comparisons that have a chance.
    last_seen: Mutex<BTreeMap<u64, Option<u64>>>,
    next_value: Mutex<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Fact {
    key: u64,
    at: Timestamp,
    value: Option<u64>,
}

/// After the faults copies may be on their way for so long.
const HOMECOMING: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);

/// Of so many partitions one is everybody's, where others are of keys with homes.
const PARTITIONS_IN_TURN: u64 = 3;

/// Facts remembered.
const FACTS_MAX: usize = 500;

pub(super) async fn run(
    cluster: &Cluster,
    plan: &Plan,
    kind: Kind,
) -> Result<(Counts, Strikes), String> {
    let registers = match kind {
        Kind::Strong => create(cluster, Protocol::Strong, plan).await?,
        Kind::Swapped => create(cluster, Protocol::Eventual, plan).await?,
        Kind::Regional => create_shared(cluster, plan, plan.factors.len() as u64).await?,
    };
    let levels = [Level::Quorum, Level::Any, Level::One, Level::Quorum];
    let commit_level = match kind {
        Kind::Strong | Kind::Regional => Level::Quorum,
        Kind::Swapped => levels[cluster.draw_random().random_range(0..levels.len())],
    };
    let game = Arc::new(Game {
        commit_level,
        cluster: cluster.clone(),
        plan: plan.clone(),
        kind,
        registers,
        keys: plan.keys,
        counts: Mutex::default(),
        history: Mutex::default(),
        facts: Mutex::default(),
        last_seen: Mutex::default(),
        next_value: Mutex::new(1),
    });
    // The faults begin when the table serves.
    for key in 0..game.keys {
        let first = game.survivors_at_home(key)[0];
        game.insist_on_read(first, key).await?;
    }
    let step: Step = {
        let game = game.clone();
        Arc::new(move |door, client, random| {
            let game = game.clone();
            Box::pin(async move { game.step(door, client, random).await })
        })
    };
    let strikes = unleash(cluster, plan, step).await?;
    if kind == Kind::Regional {
        game.bring_home().await?;
    }
    for key in 0..game.keys {
        for node in game.survivors_at_home(key) {
            game.insist_on_read(node, key).await?;
        }
        game.insist_on_write(key).await?;
        for node in game.survivors_at_home(key) {
            game.insist_on_read(node, key).await?;
        }
    }
    game.judge()?;
    let counts = *game.counts.lock();
    Ok((counts, strikes))
}

impl Game {
    fn fresh_value(&self) -> u64 {
        let mut next = self.next_value.lock();
        *next += 1;
        *next
    }

    /// Whether a key is read and written through this node: through any, or through those of its home.
    fn is_at_home(&self, key: u64, node: usize) -> bool {
        let centre = self.plan.centre(node).map(|centre| centre as u64);
        !self.has_home(key) || centre == Some(key % self.registers.per_partition)
    }

    /// Whether one data centre agrees on a key by itself: all of a partition do, or none.
    fn has_home(&self, key: u64) -> bool {
        let turn = key / self.registers.per_partition % PARTITIONS_IN_TURN;
        self.kind == Kind::Regional && turn != PARTITIONS_IN_TURN - 1
    }

    fn survivors_at_home(&self, key: u64) -> Vec<usize> {
        let survivors = self.cluster.survivors().into_iter();
        survivors
            .filter(|node| self.is_at_home(key, *node))
            .collect()
    }

    /// Whatever the nemesis has made of it: in the end every data centre has its copies again.
    async fn bring_home(&self) -> Result<(), String> {
        let wanted = replication(Protocol::Eventual, &self.plan, &self.plan.factors);
        let deadline = Instant::now() + HOMECOMING;
        while Instant::now() < deadline {
            sleep(LOOK).await;
            let Some(door) = self.cluster.door(0) else {
                continue;
            };
            let catalog = door.database.catalog();
            let known = catalog.namespaces.get(NAMESPACE);
            if known.is_some_and(|known| known.replication == wanted) {
                if self.cluster.is_settled() {
                    return Ok(());
                }
                continue;
            }
            let change = Change::AlterNamespace {
                name: NAMESPACE.into(),
                replication: Some(wanted.clone()),
                properties: BTreeMap::new(),
            };
            // Where it fails it is asked for again.
            let _ = door.database.change_catalog(change).await;
        }
        Err(format!(
            "{} s after all faults have ended, copies are not where they should be",
            HOMECOMING.as_secs()
        ))
    }

    async fn step(&self, door: Door, client: u64, mut random: SmallRng) {
        let keys = (0..self.keys).filter(|key| self.is_at_home(*key, door.node));
        let keys: Vec<u64> = keys.collect();
        let key = keys[random.random_range(0..keys.len() as u64) as usize];
        let action = match random.random_range(0..100) {
            0..8 if self.commit_level == Level::Quorum && self.kind != Kind::Regional => {
                return self.scan(door, client).await;
            }
            8..20 if self.kind == Kind::Strong => {
                return self.revisit(door, &mut random).await;
            }
            0..50 => Action::Read,
            50..70 => Action::Write(Some(self.fresh_value())),
            70..80 => Action::Write(None),
            _ => Action::CompareAndSet {
                expected: self.last_seen.lock().get(&key).copied().flatten(),
                new: self.fresh_value(),
            },
        };
        match action {
            Action::Read => {
                let level = self.read_level(key, &mut random);
                self.read(door, client, key, level).await;
            }
            action => {
                self.write(door, client, key, action).await;
            }
        }
    }

    fn read_level(&self, key: u64, random: &mut SmallRng) -> Level {
        let is_plain = self.kind != Kind::Strong && random.random_bool(0.5);
        match self.commit_level(key) {
            quorum @ (Level::Quorum | Level::LocalQuorum) if is_plain => quorum,
            _ => self.serial_level(key),
        }
    }

    fn commit_level(&self, key: u64) -> Level {
        match self.has_home(key) {
            true => Level::LocalQuorum,
            false => self.commit_level,
        }
    }

    /// Of reads that see all that was agreed.
    fn serial_level(&self, key: u64) -> Level {
        match self.kind {
            Kind::Strong => Level::Default,
            Kind::Regional if self.has_home(key) => Level::LocalSerial,
            Kind::Swapped | Kind::Regional => Level::Serial,
        }
    }

    fn record(&self, key: u64, operation: Operation) {
        if let Answer::Saw(value) | Answer::Failed { held: Some(value) } = operation.answer {
            self.last_seen.lock().insert(key, value);
        }
        self.cluster.note("client", key, || {
            format!(
                "{} key {key} {:?} → {:?} (since {})",
                operation.client, operation.action, operation.answer, operation.called
            )
        });
        self.history.lock().entry(key).or_default().push(operation);
    }

    async fn read(&self, door: Door, client: u64, key: u64, level: Level) -> Ending<Option<u64>> {
        let called = self.cluster.now();
        let selection = Selection::Keys(vec![self.registers.key(key)]);
        let mut request = ReadRequest::new(self.registers.table.id, selection);
        request.bound = ReadBound::Level(level);
        request.patience = Patience { ms: PATIENCE_MS };
        let ending = read(&self.cluster, door, request).await;
        ending.may_have_happened(&self.counts);
        match ending {
            Ending::Answer(response) => {
                let row = response.rows.first().map(|read| &read.row);
                let value = self.registers.value_of(row);
                self.learn(key, response.timestamp, value);
                self.record(
                    key,
                    Operation {
                        client,
                        action: Action::Read,
                        answer: Answer::Saw(value),
                        called,
                        returned: self.cluster.now(),
                    },
                );
                Ending::Answer(value)
            }
            Ending::Error(error) => {
                self.cluster.note("client", key, || {
                    format!("{client} key {key} cannot read: {error}")
                });
                Ending::Error(error)
            }
            Ending::Silence => Ending::Silence,
        }
    }

    fn learn(&self, key: u64, at: Option<Timestamp>, value: Option<u64>) {
        let Some(at) = at else {
            return;
        };
        let mut facts = self.facts.lock();
        if facts.len() >= FACTS_MAX {
            facts.remove(0);
        }
        facts.push(Fact { key, at, value });
    }

    /// Reads the past through any node: it must be as it was shown once, whoever leads by now.
    async fn revisit(&self, door: Door, random: &mut SmallRng) {
        let fact = {
            let facts = self.facts.lock();
            if facts.is_empty() {
                return;
            }
            // Recent ones mostly: they are the ones that a new leaseholder could still change.
            let behind = random.random_range(0..facts.len().min(8));
            match random.random_bool(0.7) {
                true => facts[facts.len() - 1 - behind],
                false => facts[random.random_range(0..facts.len())],
            }
        };
        let selection = Selection::Keys(vec![self.registers.key(fact.key)]);
        let mut request = ReadRequest::new(self.registers.table.id, selection);
        request.bound = ReadBound::At(fact.at);
        request.patience = Patience { ms: PATIENCE_MS };
        let node = door.node;
        let ending = read(&self.cluster, door, request).await;
        ending.may_have_happened(&self.counts);
        if let Ending::Answer(response) = ending {
            let row = response.rows.first().map(|read| &read.row);
            let value = self.registers.value_of(row);
            if value != fact.value {
                self.cluster.complain(format!(
                    "the past has changed: {fact:?}, but node {} shows {value:?} now",
                    node + 1
                ));
            }
        }
    }

    /// All registers at once: each of them is a read that happened somewhere between beginning and end.
    async fn scan(&self, door: Door, client: u64) {
        let called = self.cluster.now();
        let selection = Selection::Ranges(vec![KeyRange::all()]);
        let mut request = ReadRequest::new(self.registers.table.id, selection);
        request.row_limit = Some(2);
        request.patience = Patience { ms: PATIENCE_MS };
        let ending = read_all(&self.cluster, door, request).await;
        ending.may_have_happened(&self.counts);
        let Ending::Answer(rows) = ending else {
            return;
        };
        let returned = self.cluster.now();
        for (key, value) in self.registers.values(&rows, self.keys) {
            self.record(
                key,
                Operation {
                    client,
                    action: Action::Read,
                    answer: Answer::Saw(value),
                    called,
                    returned,
                },
            );
        }
    }

    fn request(&self, key: u64, action: Action) -> WriteRequest {
        let table = &self.registers.table;
        let set = |value: u64| RowOperation::Merge {
            marker: true,
            assignments: vec![Assignment::Set {
                column: self.registers.value,
                path: None,
                value: Value::Int(value as i64),
            }],
            ttl_seconds: None,
        };
        let operation = match action {
            Action::Write(Some(value)) | Action::CompareAndSet { new: value, .. } => set(value),
            Action::Write(None) => RowOperation::Delete,
            Action::Read => RowOperation::Check,
        };
        let mut mutation = Mutation::new(table.id, self.registers.key(key), operation);
        if self.kind != Kind::Strong {
            // Who wants the old row needs to know it: this makes the write a serial one.
            mutation.returning = Returning::Old;
        }
        if let Action::CompareAndSet { expected, .. } = action {
            mutation.returning = Returning::Old;
            mutation.condition = Some(match expected {
                None => Condition::RowMissing,
                Some(value) => Condition::Columns(vec![Check {
                    column: self.registers.value,
                    operator: CheckOperator::Equal,
                    values: vec![Value::Int(value as i64)],
                    part: None,
                }]),
            });
        }
        let mut request = WriteRequest::new(vec![mutation]);
        request.level = self.commit_level(key);
        if self.has_home(key) {
            request.serial_level = Level::LocalSerial;
        }
        request.patience = Patience { ms: PATIENCE_MS };
        request
    }

    async fn write(
        &self,
        door: Door,
        client: u64,
        key: u64,
        action: Action,
    ) -> Ending<WriteResponse> {
        let called = self.cluster.now();
        let ending = write(&self.cluster, door, self.request(key, action)).await;
        let returned = self.cluster.now();
        let (answer, returned) = match &ending {
            Ending::Answer(_) => (Answer::Done, returned),
            Ending::Error(Error::Refused(Refused::ConditionFailed { row, .. })) => {
                let held = Some(self.registers.value_of(row.as_ref()));
                (Answer::Failed { held }, returned)
            }
            _ => (Answer::Unknown, u64::MAX),
        };
        if let Ending::Answer(response) = &ending {
            let value = match action {
                Action::Write(value) => value,
                Action::CompareAndSet { new, .. } => Some(new),
                Action::Read => None,
            };
            self.learn(key, response.commit_timestamp, value);
        }
        let happened = ending.may_have_happened(&self.counts);
        if !happened && answer == Answer::Unknown {
            self.cluster.note("client", key, || {
                format!("{client} key {key} {action:?} refused: {ending}")
            });
            return ending;
        }
        self.record(
            key,
            Operation {
                client,
                action,
                answer,
                called,
                returned,
            },
        );
        ending
    }

    async fn insist_on_read(&self, node: usize, key: u64) -> Result<(), String> {
        let level = self.serial_level(key);
        let reading = |door| self.read(door, FINAL_CLIENT, key, level);
        insist(
            &self.cluster,
            node,
            &format!("a read of key {key}"),
            reading,
        )
        .await?;
        Ok(())
    }

    async fn insist_on_write(&self, key: u64) -> Result<(), String> {
        let survivors = self.survivors_at_home(key);
        let node = survivors[key as usize % survivors.len()];
        let writing = |door| {
            let action = Action::Write(Some(self.fresh_value()));
            self.write(door, FINAL_CLIENT, key, action)
        };
        insist(
            &self.cluster,
            node,
            &format!("a write of key {key}"),
            writing,
        )
        .await?;
        Ok(())
    }

    fn judge(&self) -> Result<(), String> {
        for (key, history) in self.history.lock().iter() {
            match linearizable::check(history) {
                Verdict::Linearizable => {}
                Verdict::Undecided => {
                    return Err(format!(
                        "the history of key {key} ({} operations) is too hard to judge",
                        history.len()
                    ));
                }
                Verdict::Violation(stuck) => {
                    let stuck: Vec<String> = stuck
                        .iter()
                        .map(|operation| format!("    {operation:?}"))
                        .collect();
                    return Err(format!(
                        "key {key} is not linearizable; no order gets past:\n{}",
                        stuck.join("\n")
                    ));
                }
            }
        }
        Ok(())
    }
}
