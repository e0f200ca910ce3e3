//! Last-write-wins registers on an eventual table, read and written at one of some levels, with the clients' own
//! timestamps. What a level promises is seen by later reads of those whom it promises it to: at QUORUM everybody's at
//! QUORUM, at LOCAL_QUORUM those of clients in the same data centre. In the end all replicas hold the same, and nothing
//! that is older than what was acknowledged at any level.

use super::Counts;
use super::client::{
    Ending, PATIENCE_MS, Registers, Step, create, insist, read, read_all, unleash, write,
};
use crate::checker::last_write::{self, Event, Operation, Rank};
use crate::cluster::{Cluster, Door};
use crate::nemesis::Strikes;
use crate::plan::Plan;
use api::{
    Assignment, KeyRange, Level, Mutation, Patience, ReadBound, ReadRequest, RowOperation,
    Selection, WriteRequest, WriteResponse,
};
use catalog::Protocol;
use model::{Timestamp, Value};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// At which levels clients write and read; one that is named twice is drawn twice as often.
pub(super) struct Levels {
    writes: Vec<Level>,
    reads: Vec<Level>,
}

impl Levels {
    pub fn quorum() -> Levels {
        Levels {
            writes: vec![Level::Quorum],
            reads: vec![Level::Quorum],
        }
    }

    pub fn healing() -> Levels {
        Levels {
            writes: vec![Level::Any, Level::One, Level::Quorum, Level::Quorum],
            reads: vec![Level::Quorum],
        }
    }

    pub fn of_centres() -> Levels {
        use Level::{All, Any, EachQuorum, LocalOne, LocalQuorum, One, Quorum, Two};
        let local = LocalQuorum;
        Levels {
            writes: vec![
                Any, One, Two, LocalOne, local, local, local, local, Quorum, Quorum, EachQuorum,
                EachQuorum, All,
            ],
            reads: vec![
                One, LocalOne, local, local, local, local, Quorum, Quorum, EachQuorum, All,
            ],
        }
    }

    /// Whether tombstones go within the run, and replicas are compared in the end.
    fn heals(&self) -> bool {
        self.writes != [Level::Quorum]
    }
}

/// Those who read what some levels promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum View {
    /// Who asks a majority of all replicas.
    Everywhere,
    /// Who asks a majority of a data centre's.
    Centre(usize),
}

struct Game {
    cluster: Cluster,
    plan: Plan,
    registers: Arc<Registers>,
    keys: u64,
    levels: Levels,
    /// The greatest write of each key that was acknowledged, at whatever level.
    acknowledged: Mutex<BTreeMap<u64, Rank>>,
    counts: Mutex<Counts>,
    history: Mutex<BTreeMap<(View, u64), Vec<Operation>>>,
    stamps: Mutex<BTreeMap<u64, Stamps>>,
    next_value: Mutex<u64>,
}

/// Timestamps of one key's writes: no two values share one, but a tombstone may share a value's.
#[derive(Default)]
struct Stamps {
    last: i64,
    is_used_by_value: bool,
    is_used_by_tombstone: bool,
    /// When `last` was given out.
    given_at: u64,
    /// Of those between the last two, how many clients with clocks that are behind have had.
    late: i64,
}

/// Between timestamps of clients with the right time, where those of others find room.
const STAMP_STEP: i64 = 4;
/// A client's clock is behind by no more than this: much less than `gc_grace`, or what it writes could come behind a
/// tombstone that is forgotten.
const BEHIND_MICROS: u64 = 500_000;
/// Keys, behind those of the registers, whose values expire.
const EXPIRING_KEYS: u64 = 2;
const EXPIRY_SECONDS_MAX: u32 = 3;

/// After the faults the replicas may differ for so long.
const CONVERGENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(
    cluster: &Cluster,
    plan: &Plan,
    levels: Levels,
) -> Result<(Counts, Strikes), String> {
    let registers = create(cluster, Protocol::Eventual, plan).await?;
    let game = Arc::new(Game {
        cluster: cluster.clone(),
        plan: plan.clone(),
        registers,
        keys: plan.keys * 2,
        levels,
        acknowledged: Mutex::default(),
        counts: Mutex::default(),
        history: Mutex::default(),
        stamps: Mutex::default(),
        next_value: Mutex::new(1),
    });
    for key in 0..game.keys {
        game.insist_on_read(0, key).await?;
    }
    let step: Step = {
        let game = game.clone();
        Arc::new(move |door, _, random| {
            let game = game.clone();
            Box::pin(async move { game.step(door, random).await })
        })
    };
    let strikes = unleash(cluster, plan, step).await?;
    if game.levels.heals() {
        game.converge().await?;
    }
    // Of many nodes some, in all data centres.
    let some = match plan.factors.is_empty() {
        true => 1,
        false => cluster.size() / plan.factors.len() + 1,
    };
    for key in 0..game.keys {
        for node in (0..cluster.size()).step_by(some) {
            game.insist_on_read(node, key).await?;
        }
        game.insist_on_write(key).await?;
        for node in (0..cluster.size()).step_by(some) {
            game.insist_on_read(node, key).await?;
        }
    }
    game.judge()?;
    let counts = *game.counts.lock();
    Ok((counts, strikes))
}

impl Stamps {
    /// Moves on, or, for a client with a clock that is behind, does not: returns by how much its timestamp is before the
    /// last one.
    fn give(&mut self, is_behind: bool, now: u64) -> i64 {
        let is_recent = now < self.given_at + BEHIND_MICROS;
        if is_behind && is_recent && self.late + 1 < STAMP_STEP {
            self.late += 1;
            return self.late;
        }
        self.last += STAMP_STEP;
        self.given_at = now;
        self.late = 0;
        0
    }
}

impl Game {
    fn draw_rank(&self, key: u64, is_tombstone: bool, random: &mut SmallRng) -> Rank {
        let mut all = self.stamps.lock();
        let stamps = all.entry(key).or_default();
        let mut behind = 0;
        // A value that comes when a tombstone of its timestamp has been forgotten is rightly there: where tombstones go
        // within the run, values do not come behind them.
        let forgets = self.levels.heals();
        let shares = random.random_bool(0.6) && (is_tombstone || !forgets);
        if !self.plan.factors.is_empty() {
            let is_behind = random.random_bool(0.3);
            behind = stamps.give(is_behind, self.cluster.now());
        } else if is_tombstone {
            if !shares || stamps.last == 0 {
                stamps.last += 1;
                stamps.is_used_by_value = false;
            }
            stamps.is_used_by_tombstone = true;
        } else {
            // Two values of one timestamp: the greater wins, wherever they meet.
            let joins_value = random.random_bool(0.3) && stamps.is_used_by_value;
            let joins = match stamps.is_used_by_value {
                true => joins_value && !stamps.is_used_by_tombstone,
                false => shares,
            };
            if !joins || stamps.last == 0 {
                stamps.last += 1;
                stamps.is_used_by_tombstone = false;
            }
            stamps.is_used_by_value = true;
        }
        let value = if is_tombstone {
            0
        } else {
            let mut next = self.next_value.lock();
            *next += 1;
            *next
        };
        Rank {
            timestamp: stamps.last - behind,
            is_tombstone,
            value,
        }
    }

    async fn step(&self, door: Door, mut random: SmallRng) {
        let key = random.random_range(0..self.keys);
        match random.random_range(0..100) {
            0..6 if !self.plan.factors.is_empty() => self.write_expiring(door, &mut random).await,
            0..12 => self.scan(door).await,
            12..55 => {
                let reads = &self.levels.reads;
                let level = match reads.as_slice() {
                    [only] => *only,
                    several => several[random.random_range(0..several.len())],
                };
                self.read(door, key, level).await;
            }
            number => {
                let rank = self.draw_rank(key, number >= 85, &mut random);
                let level = self.levels.writes[random.random_range(0..self.levels.writes.len())];
                self.write(door, key, rank, level).await;
            }
        }
    }

    /// Whose reads see what was acknowledged at a level through a node, and who has read what was shown at it.
    fn views(&self, level: Level, node: usize) -> Vec<View> {
        let centres = || (0..self.plan.factors.len()).map(View::Centre);
        match level {
            Level::Quorum => vec![View::Everywhere],
            Level::LocalQuorum => {
                let centre = self.plan.centre(node).map(View::Centre);
                centre.into_iter().collect()
            }
            Level::EachQuorum | Level::All => centres().chain([View::Everywhere]).collect(),
            _ => Vec::new(),
        }
    }

    /// A value that nobody judges until it has expired everywhere.
    async fn write_expiring(&self, door: Door, random: &mut SmallRng) {
        let key = self.keys + random.random_range(0..EXPIRING_KEYS);
        let level = self.levels.writes[random.random_range(0..self.levels.writes.len())];
        let operation = RowOperation::Merge {
            marker: true,
            assignments: vec![Assignment::Set {
                column: self.registers.value,
                path: None,
                value: Value::Int(1),
            }],
            ttl_seconds: Some(random.random_range(1..=EXPIRY_SECONDS_MAX)),
        };
        let target = self.registers.key(key);
        let mutation = Mutation::new(self.registers.table.id, target, operation);
        let mut request = WriteRequest::new(vec![mutation]);
        request.level = level;
        request.patience = Patience { ms: PATIENCE_MS };
        let ending = write(&self.cluster, door, request).await;
        ending.may_have_happened(&self.counts);
    }

    /// Waits until all replicas are where they should be and hold the same, and show for every key a value not older than
    /// any that was acknowledged, and nothing that has expired.
    async fn converge(&self) -> Result<(), String> {
        let deadline = Instant::now() + CONVERGENCE;
        loop {
            let lack = match self.cluster.is_settled() {
                true => self.cluster.differences(self.registers.table.id)?,
                false => vec!["replicas are still on their way".to_owned()],
            };
            let lack = match lack.is_empty() {
                true => self.shortcomings().await,
                false => lack,
            };
            if lack.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!(
                    "{} s after all faults have ended: {}",
                    CONVERGENCE.as_secs(),
                    lack.join("; ")
                ));
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Keys for which a node's replica, or the nearest, shows something that should not be seen any more.
    async fn shortcomings(&self) -> Vec<String> {
        let expiring = match self.plan.factors.is_empty() {
            true => 0,
            false => EXPIRING_KEYS,
        };
        let mut found = Vec::new();
        for key in 0..self.keys + expiring {
            let mut shown = Vec::new();
            for node in 0..self.cluster.size() {
                shown.push(self.peek(node, key).await);
            }
            let is_right = |peeked: &Result<Option<u64>, String>| match peeked {
                Ok(value) if key < self.keys => self.is_current(key, *value),
                Ok(value) => value.is_none(),
                Err(_) => false,
            };
            let is_same = shown.windows(2).all(|pair| pair[0] == pair[1]);
            if !is_same || !shown.iter().all(is_right) {
                let acknowledged = self.acknowledged.lock().get(&key).copied();
                found.push(format!(
                    "the replicas show {shown:?} for key {key}, of which {acknowledged:?} was acknowledged"
                ));
            }
        }
        found
    }

    /// What a node's own replica shows, or the nearest.
    async fn peek(&self, node: usize, key: u64) -> Result<Option<u64>, String> {
        let door = self.cluster.door(node).ok_or("the node is down")?;
        let selection = Selection::Keys(vec![self.registers.key(key)]);
        let request = self.read_request(selection, Level::One);
        match read(&self.cluster, door, request).await {
            Ending::Answer(response) => {
                let row = response.rows.first().map(|read| &read.row);
                Ok(self.registers.value_of(row))
            }
            failed => Err(failed.to_string()),
        }
    }

    /// Whether a value is that of a write not older than what was acknowledged; none, the work of such a tombstone.
    fn is_current(&self, key: u64, value: Option<u64>) -> bool {
        let Some(floor) = self.acknowledged.lock().get(&key).copied() else {
            return true;
        };
        let history = self.history.lock();
        let operations = history.get(&(View::Everywhere, key));
        let operations = operations.map(Vec::as_slice).unwrap_or_default();
        operations.iter().any(|operation| match operation.event {
            Event::Write { rank, .. } => {
                let shows = if rank.is_tombstone {
                    value.is_none()
                } else {
                    value == Some(rank.value)
                };
                shows && rank >= floor
            }
            Event::Read { .. } => false,
        })
    }

    fn note(&self, key: u64, operation: &Operation, level: Level) {
        self.cluster.note("client", key, || {
            format!(
                "key {key} {level:?} {:?} (since {})",
                operation.event, operation.called
            )
        });
    }

    fn record_read(&self, node: usize, level: Level, key: u64, operation: Operation) {
        self.note(key, &operation, level);
        let mut history = self.history.lock();
        for view in self.views(level, node) {
            history.entry((view, key)).or_default().push(operation);
        }
    }

    /// Who is not promised to see it may see it all the same.
    fn record_write(
        &self,
        node: usize,
        level: Level,
        key: u64,
        rank: Rank,
        (called, returned): (u64, Option<u64>),
    ) {
        let promised = self.views(level, node);
        let centres = (0..self.plan.factors.len()).map(View::Centre);
        let mut history = self.history.lock();
        for view in centres.chain([View::Everywhere]) {
            let operation = Operation {
                event: Event::Write {
                    rank,
                    is_acknowledged: returned.is_some() && promised.contains(&view),
                },
                called,
                returned: returned.unwrap_or_else(|| self.cluster.now()),
            };
            if view == View::Everywhere {
                self.note(key, &operation, level);
            }
            history.entry((view, key)).or_default().push(operation);
        }
    }

    fn read_request(&self, selection: Selection, level: Level) -> ReadRequest {
        let mut request = ReadRequest::new(self.registers.table.id, selection);
        request.bound = ReadBound::Level(level);
        request.patience = Patience { ms: PATIENCE_MS };
        request
    }

    async fn read(&self, door: Door, key: u64, level: Level) -> Ending<()> {
        let (called, node) = (self.cluster.now(), door.node);
        let request = self.read_request(Selection::Keys(vec![self.registers.key(key)]), level);
        let ending = read(&self.cluster, door, request).await;
        ending.may_have_happened(&self.counts);
        match ending {
            Ending::Answer(response) => {
                let row = response.rows.first().map(|read| &read.row);
                let value = self.registers.value_of(row);
                let operation = Operation {
                    event: Event::Read { value },
                    called,
                    returned: self.cluster.now(),
                };
                self.record_read(node, level, key, operation);
                Ending::Answer(())
            }
            Ending::Error(error) => Ending::Error(error),
            Ending::Silence => Ending::Silence,
        }
    }

    async fn scan(&self, door: Door) {
        let (called, node) = (self.cluster.now(), door.node);
        let selection = Selection::Ranges(vec![KeyRange::all()]);
        let mut request = self.read_request(selection, Level::Quorum);
        request.row_limit = Some(3);
        let ending = read_all(&self.cluster, door, request).await;
        ending.may_have_happened(&self.counts);
        let Ending::Answer(rows) = ending else {
            return;
        };
        let returned = self.cluster.now();
        for (key, value) in self.registers.values(&rows, self.keys) {
            let operation = Operation {
                event: Event::Read { value },
                called,
                returned,
            };
            self.record_read(node, Level::Quorum, key, operation);
        }
    }

    async fn write(&self, door: Door, key: u64, rank: Rank, level: Level) -> Ending<WriteResponse> {
        let (called, node) = (self.cluster.now(), door.node);
        let operation = if rank.is_tombstone {
            RowOperation::Delete
        } else {
            RowOperation::Merge {
                marker: true,
                assignments: vec![Assignment::Set {
                    column: self.registers.value,
                    path: None,
                    value: Value::Int(rank.value as i64),
                }],
                ttl_seconds: None,
            }
        };
        // A row deleted by itself, or with its partition: to readers it is the same.
        let target = if rank.is_tombstone && rank.timestamp % 2 == 0 {
            self.registers.header(key)
        } else {
            self.registers.key(key)
        };
        let mutation = Mutation::new(self.registers.table.id, target, operation);
        let mut request = WriteRequest::new(vec![mutation]);
        request.level = level;
        request.timestamp = Some(Timestamp(rank.timestamp));
        request.patience = Patience { ms: PATIENCE_MS };
        let ending = write(&self.cluster, door, request).await;
        if ending.may_have_happened(&self.counts) {
            let is_acknowledged = matches!(ending, Ending::Answer(_));
            if is_acknowledged && self.is_kept(level) {
                let mut acknowledged = self.acknowledged.lock();
                let greatest = acknowledged.entry(key).or_insert(rank);
                *greatest = rank.max(*greatest);
            }
            let returned = is_acknowledged.then(|| self.cluster.now());
            self.record_write(node, level, key, rank, (called, returned));
        } else {
            self.cluster.note("client", key, || {
                format!("key {key} {rank:?} refused: {ending}")
            });
        }
        ending
    }

    /// Whether what was acknowledged at a level is there in the end. With ANY a node without a replica may have nothing
    /// but a hint, which lives for half of `gc_grace`, and whole data centres are away for longer. Where a replica that is
    /// away is made anew from the others, what it alone had is lost.
    fn is_kept(&self, level: Level) -> bool {
        let has_centres = !self.plan.factors.is_empty();
        match level {
            Level::Any => !has_centres,
            Level::One | Level::Two | Level::LocalOne => {
                !has_centres || self.plan.rebuild_after_seconds == 0
            }
            _ => true,
        }
    }

    async fn insist_on_read(&self, node: usize, key: u64) -> Result<(), String> {
        let reading = |door| self.read(door, key, Level::Quorum);
        insist(
            &self.cluster,
            node,
            &format!("a read of key {key}"),
            reading,
        )
        .await
    }

    async fn insist_on_write(&self, key: u64) -> Result<(), String> {
        let node = key as usize % self.cluster.size();
        let mut random = self.cluster.draw_random();
        let rank = self.draw_rank(key, false, &mut random);
        let writing = |door| self.write(door, key, rank, Level::Quorum);
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
        for ((view, key), history) in self.history.lock().iter() {
            last_write::check(history)
                .map_err(|violation| format!("key {key}, {view:?}: {violation}"))?;
        }
        Ok(())
    }
}
