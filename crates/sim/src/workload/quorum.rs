//! Rows of last-write-wins registers on an eventual table, read and written at one of some levels, with the clients' own
//! timestamps: rows, columns and elements of maps, some of which expire; deleted one by one, by rows, by ranges of rows and
//! by partitions. What a level promises is seen by later reads of those whom it promises it to: at QUORUM everybody's at
//! QUORUM, at LOCAL_QUORUM those of clients in the same data centre. In the end all replicas hold the same, and nothing
//! that is older than what was acknowledged at any level.

mod rows;

use super::Counts;
use super::client::{Ending, PATIENCE_MS, Step, insist, read, read_all, unleash, write};
use crate::checker::last_write::{self, Event, Expiry, Operation, Rank};
use crate::cluster::{Cluster, Door};
use crate::nemesis::Strikes;
use crate::plan::Plan;
use api::{
    KeyRange, Level, Patience, ReadBound, ReadRequest, Selection, WriteRequest, WriteResponse,
};
use model::Timestamp;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use rows::{Change, Kind, Register, Rows};
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
        use Level::{All, Any, EachQuorum, LocalOne, LocalQuorum, One, Quorum, Three, Two};
        let local = LocalQuorum;
        Levels {
            writes: vec![
                Any, One, Two, Three, LocalOne, local, local, local, local, Quorum, Quorum,
                EachQuorum, EachQuorum, All,
            ],
            reads: vec![
                One, Two, Three, LocalOne, local, local, local, local, Quorum, Quorum, EachQuorum,
                All,
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
    rows: Rows,
    levels: Levels,
    /// The greatest write of each register that was acknowledged, at whatever level.
    acknowledged: Mutex<BTreeMap<Register, Rank>>,
    counts: Mutex<Counts>,
    history: Mutex<BTreeMap<(View, Register), Vec<Operation>>>,
    /// By partition.
    stamps: Mutex<BTreeMap<u64, Stamps>>,
    next_value: Mutex<u64>,
}

/// Timestamps of the writes in one partition.
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
const MICROS_PER_SECOND: u64 = 1_000_000;
/// A client's clock is behind by no more than this: much less than `gc_grace`, or what it writes could come behind a
/// tombstone that is forgotten.
const BEHIND_MICROS: u64 = 500_000;
/// Rows of one partition, at most.
const ROWS_PER_PARTITION_MAX: u64 = 3;

/// After the faults the replicas may differ for so long.
const CONVERGENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(
    cluster: &Cluster,
    plan: &Plan,
    levels: Levels,
) -> Result<(Counts, Strikes), String> {
    let per_partition = cluster
        .draw_random()
        .random_range(1..=ROWS_PER_PARTITION_MAX);
    let rows = Rows::create(cluster, plan, plan.keys * 2, per_partition).await?;
    let game = Arc::new(Game {
        cluster: cluster.clone(),
        plan: plan.clone(),
        rows,
        levels,
        acknowledged: Mutex::default(),
        counts: Mutex::default(),
        history: Mutex::default(),
        stamps: Mutex::default(),
        next_value: Mutex::new(1),
    });
    for row in 0..game.rows.count {
        game.insist_on_read(0, row).await?;
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
    let nodes: Vec<usize> = cluster.survivors().into_iter().step_by(some).collect();
    for row in 0..game.rows.count {
        for node in &nodes {
            game.insist_on_read(*node, row).await?;
        }
        game.insist_on_write(row).await?;
        for node in &nodes {
            game.insist_on_read(*node, row).await?;
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
    /// A timestamp for a write in a partition: of two values of one timestamp the greater wins, wherever they meet, and of
    /// a value and a tombstone the tombstone.
    fn draw_timestamp(&self, partition: u64, kind: Kind, random: &mut SmallRng) -> i64 {
        let mut all = self.stamps.lock();
        let stamps = all.entry(partition).or_default();
        let mut behind = 0;
        let is_tombstone = kind.is_deletion();
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
        stamps.last - behind
    }

    fn draw_change(&self, row: u64, kind: Kind, random: &mut SmallRng) -> Change {
        let timestamp = self.draw_timestamp(self.rows.partition(row), kind, random);
        let next_value = || {
            let mut next = self.next_value.lock();
            *next += 1;
            *next
        };
        self.rows.change(kind, row, timestamp, next_value, random)
    }

    async fn step(&self, door: Door, mut random: SmallRng) {
        let row = random.random_range(0..self.rows.count);
        match random.random_range(0..100) {
            0..12 => self.scan(door).await,
            12..55 => {
                let reads = &self.levels.reads;
                let level = match reads.as_slice() {
                    [only] => *only,
                    several => several[random.random_range(0..several.len())],
                };
                self.read(door, row, level).await;
            }
            number => {
                let kinds = match number {
                    85.. => Kind::DELETIONS.as_slice(),
                    _ => Kind::PUTS.as_slice(),
                };
                let kind = kinds[random.random_range(0..kinds.len())];
                let change = self.draw_change(row, kind, &mut random);
                let level = self.levels.writes[random.random_range(0..self.levels.writes.len())];
                self.write(door, change, level).await;
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

    /// Waits until all replicas are where they should be and hold the same, and show for every register a value not older than
    /// any that was acknowledged, and nothing that has expired.
    async fn converge(&self) -> Result<(), String> {
        let deadline = Instant::now() + CONVERGENCE;
        loop {
            let lack = match self.cluster.is_settled() {
                true => self.cluster.differences(self.rows.table.id)?,
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

    /// Registers for which a node's replica, or the nearest, shows something that should not be seen any more.
    async fn shortcomings(&self) -> Vec<String> {
        let mut found = Vec::new();
        for row in 0..self.rows.count {
            let called = self.cluster.now();
            let mut shown = Vec::new();
            for node in self.cluster.survivors() {
                match self.peek(node, row).await {
                    Ok(values) => shown.push(values),
                    Err(error) => {
                        found.push(format!("row {row} through node {}: {error}", node + 1))
                    }
                }
            }
            let Some(first) = shown.first() else {
                continue;
            };
            for register in first.keys() {
                let values: Vec<Option<u64>> = shown.iter().map(|it| it[register]).collect();
                let is_same = values.windows(2).all(|pair| pair[0] == pair[1]);
                let is_right = |value: &Option<u64>| self.is_current(*register, *value, called);
                if !is_same || !values.iter().all(is_right) {
                    let acknowledged = self.acknowledged.lock().get(register).copied();
                    found.push(format!(
                        "the replicas show {values:?} for {register}, of which {acknowledged:?} was acknowledged"
                    ));
                }
            }
        }
        found
    }

    /// What a node's own replica shows, or the nearest.
    async fn peek(&self, node: usize, row: u64) -> Result<BTreeMap<Register, Option<u64>>, String> {
        let door = self.cluster.door(node).ok_or("the node is down")?;
        let selection = Selection::Keys(vec![self.rows.key(row)]);
        let request = self.read_request(selection, Level::One);
        match read(&self.cluster, door, request).await {
            Ending::Answer(response) => {
                let found = response.rows.first().map(|read| &read.row);
                Ok(self.rows.shown(row, found))
            }
            failed => Err(failed.to_string()),
        }
    }

    /// Whether a value that is read from `called` on is that of a write not older than what was acknowledged; none, the
    /// work of such a tombstone, or of a value that has expired.
    fn is_current(&self, register: Register, value: Option<u64>, called: u64) -> bool {
        let Some(floor) = self.acknowledged.lock().get(&register).copied() else {
            return true;
        };
        let history = self.history.lock();
        let operations = history.get(&(View::Everywhere, register));
        let operations = operations.map(Vec::as_slice).unwrap_or_default();
        operations.iter().any(|operation| match operation.event {
            Event::Write { rank, expiry, .. } => {
                let may_be_over = expiry.is_some_and(|expiry| expiry.from <= self.cluster.now());
                let must_be_over = expiry.is_some_and(|expiry| expiry.until < called);
                let shows = match value {
                    None => rank.is_tombstone || may_be_over,
                    Some(value) => !rank.is_tombstone && rank.value == value && !must_be_over,
                };
                shows && rank >= floor
            }
            Event::Read { .. } => false,
        })
    }

    fn note(&self, register: Register, operation: &Operation, level: Level) {
        self.cluster.note("client", register.row, || {
            format!(
                "{register} {level:?} {:?} (since {})",
                operation.event, operation.called
            )
        });
    }

    fn record_read(
        &self,
        (node, level): (usize, Level),
        shown: BTreeMap<Register, Option<u64>>,
        called: u64,
    ) {
        let returned = self.cluster.now();
        for (register, value) in shown {
            let operation = Operation {
                event: Event::Read { value },
                called,
                returned,
            };
            self.note(register, &operation, level);
            let mut history = self.history.lock();
            for view in self.views(level, node) {
                history.entry((view, register)).or_default().push(operation);
            }
        }
    }

    /// Who is not promised to see it may see it all the same.
    fn record_write(
        &self,
        (node, level): (usize, Level),
        change: &Change,
        called: u64,
        is_acknowledged: bool,
    ) {
        let promised = self.views(level, node);
        let returned = self.cluster.now();
        let expiry = change
            .ttl_seconds
            .map(|ttl| self.expiry(ttl, called, returned));
        let centres = (0..self.plan.factors.len()).map(View::Centre);
        let views: Vec<View> = centres.chain([View::Everywhere]).collect();
        for (register, rank) in &change.effects {
            let mut history = self.history.lock();
            for view in &views {
                let operation = Operation {
                    event: Event::Write {
                        rank: *rank,
                        is_acknowledged: is_acknowledged && promised.contains(view),
                        expiry,
                    },
                    called,
                    returned,
                };
                if *view == View::Everywhere {
                    self.note(*register, &operation, level);
                }
                let operations = history.entry((*view, *register)).or_default();
                operations.push(operation);
            }
        }
    }

    /// A value lives for its TTL from some moment of its write on, in whole seconds of the writer's clock, and is looked at
    /// by readers' clocks.
    fn expiry(&self, ttl_seconds: u32, called: u64, returned: u64) -> Expiry {
        let apart = 2 * self.plan.clock_bound_micros.unsigned_abs();
        let ttl = u64::from(ttl_seconds) * MICROS_PER_SECOND;
        Expiry {
            from: (called + ttl).saturating_sub(MICROS_PER_SECOND + apart),
            until: returned + ttl + apart,
        }
    }

    fn read_request(&self, selection: Selection, level: Level) -> ReadRequest {
        let mut request = ReadRequest::new(self.rows.table.id, selection);
        request.bound = ReadBound::Level(level);
        request.patience = Patience { ms: PATIENCE_MS };
        request
    }

    async fn read(&self, door: Door, row: u64, level: Level) -> Ending<()> {
        let (called, node) = (self.cluster.now(), door.node);
        let request = self.read_request(Selection::Keys(vec![self.rows.key(row)]), level);
        let ending = read(&self.cluster, door, request).await;
        ending.may_have_happened(&self.counts);
        ending.map(|response| {
            let found = response.rows.first().map(|read| &read.row);
            self.record_read((node, level), self.rows.shown(row, found), called);
        })
    }

    async fn scan(&self, door: Door) {
        let (called, node) = (self.cluster.now(), door.node);
        let selection = Selection::Ranges(vec![KeyRange::all()]);
        let mut request = self.read_request(selection, Level::Quorum);
        request.row_limit = Some(3);
        let ending = read_all(&self.cluster, door, request).await;
        ending.may_have_happened(&self.counts);
        if let Ending::Answer(rows) = ending {
            self.record_read((node, Level::Quorum), self.rows.all_shown(&rows), called);
        }
    }

    async fn write(&self, door: Door, change: Change, level: Level) -> Ending<WriteResponse> {
        let (called, node) = (self.cluster.now(), door.node);
        let mut request = WriteRequest::new(vec![change.mutation.clone()]);
        request.level = level;
        request.timestamp = Some(Timestamp(change.timestamp));
        request.patience = Patience { ms: PATIENCE_MS };
        let ending = write(&self.cluster, door, request).await;
        if ending.may_have_happened(&self.counts) {
            let is_acknowledged = matches!(ending, Ending::Answer(_));
            if is_acknowledged && self.is_kept(level) {
                let mut acknowledged = self.acknowledged.lock();
                for (register, rank) in &change.effects {
                    let greatest = acknowledged.entry(*register).or_insert(*rank);
                    *greatest = (*greatest).max(*rank);
                }
            }
            self.record_write((node, level), &change, called, is_acknowledged);
        } else {
            self.cluster.note("client", change.timestamp as u64, || {
                format!("{:?} refused: {ending}", change.effects)
            });
        }
        ending
    }

    /// Whether what was acknowledged at a level is there in the end. With ANY a node without a replica may have nothing
    /// but a hint, which lives for half of `gc_grace`, and whole data centres are away for longer. Where a replica that is
    /// away is made anew from the others, or its node replaced, what it alone had is lost.
    fn is_kept(&self, level: Level) -> bool {
        let has_centres = !self.plan.factors.is_empty();
        match level {
            Level::Any => !has_centres && !self.plan.replaces,
            Level::One | Level::Two | Level::Three | Level::LocalOne if self.plan.replaces => false,
            Level::One | Level::Two | Level::Three | Level::LocalOne => {
                !has_centres || self.plan.rebuild_after_seconds == 0
            }
            _ => true,
        }
    }

    async fn insist_on_read(&self, node: usize, row: u64) -> Result<(), String> {
        let reading = |door| self.read(door, row, Level::Quorum);
        let what = format!("a read of row {row}");
        insist(&self.cluster, node, &what, reading).await
    }

    async fn insist_on_write(&self, row: u64) -> Result<(), String> {
        let survivors = self.cluster.survivors();
        let node = survivors[row as usize % survivors.len()];
        let mut random = self.cluster.draw_random();
        let change = self.draw_change(row, Kind::Put, &mut random);
        let writing = |door| self.write(door, change.clone(), Level::Quorum);
        let what = format!("a write of row {row}");
        insist(&self.cluster, node, &what, writing).await?;
        Ok(())
    }

    fn judge(&self) -> Result<(), String> {
        for ((view, register), history) in self.history.lock().iter() {
            last_write::check(history)
                .map_err(|violation| format!("{register}, {view:?}: {violation}"))?;
        }
        Ok(())
    }
}
