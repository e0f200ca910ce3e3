//! Last-write-wins registers on an eventual table, read at QUORUM and written with the clients' own timestamps at one of
//! some levels. Writes at QUORUM are seen by later reads; in the end every replica, asked alone, shows the same, and
//! nothing that is older than what was acknowledged at any level.

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

struct Game {
    cluster: Cluster,
    registers: Arc<Registers>,
    keys: u64,
    levels: Vec<Level>,
    /// The greatest write of each key that was acknowledged, at whatever level.
    acknowledged: Mutex<BTreeMap<u64, Rank>>,
    counts: Mutex<Counts>,
    history: Mutex<BTreeMap<u64, Vec<Operation>>>,
    stamps: Mutex<BTreeMap<u64, Stamps>>,
    next_value: Mutex<u64>,
}

/// Timestamps of one key's writes: no two values share one, but a tombstone may share a value's.
#[derive(Default)]
struct Stamps {
    last: i64,
    is_used_by_value: bool,
}

/// After the faults the replicas may differ for so long.
const CONVERGENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(
    cluster: &Cluster,
    plan: &Plan,
    levels: &[Level],
) -> Result<(Counts, Strikes), String> {
    let registers = create(cluster, Protocol::Eventual, plan).await?;
    let game = Arc::new(Game {
        cluster: cluster.clone(),
        registers,
        keys: plan.keys * 2,
        levels: levels.to_vec(),
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
    if levels != [Level::Quorum] {
        game.converge().await?;
    }
    for key in 0..game.keys {
        for node in 0..cluster.size() {
            game.insist_on_read(node, key).await?;
        }
        game.insist_on_write(key).await?;
        for node in 0..cluster.size() {
            game.insist_on_read(node, key).await?;
        }
    }
    game.judge()?;
    let counts = *game.counts.lock();
    Ok((counts, strikes))
}

impl Game {
    fn draw_rank(&self, key: u64, is_tombstone: bool, random: &mut SmallRng) -> Rank {
        let mut all = self.stamps.lock();
        let stamps = all.entry(key).or_default();
        // A value that comes when a tombstone of its timestamp has been forgotten is rightly there: where tombstones go
        // within the run, values do not come behind them.
        let forgets = self.levels != [Level::Quorum];
        let shares = random.random_bool(0.6) && (is_tombstone || !forgets);
        if is_tombstone {
            if !shares || stamps.last == 0 {
                stamps.last += 1;
                stamps.is_used_by_value = false;
            }
        } else {
            if !shares || stamps.is_used_by_value || stamps.last == 0 {
                stamps.last += 1;
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
            timestamp: stamps.last,
            is_tombstone,
            value,
        }
    }

    async fn step(&self, door: Door, mut random: SmallRng) {
        let key = random.random_range(0..self.keys);
        match random.random_range(0..100) {
            0..12 => self.scan(door).await,
            12..55 => {
                self.read(door, key).await;
            }
            number => {
                let rank = self.draw_rank(key, number >= 85, &mut random);
                let level = self.levels[random.random_range(0..self.levels.len())];
                self.write(door, key, rank, level).await;
            }
        }
    }

    /// Waits until each node's replica, asked alone, shows for every key the same value, that of a write not older than
    /// any that was acknowledged.
    async fn converge(&self) -> Result<(), String> {
        let deadline = Instant::now() + CONVERGENCE;
        for key in 0..self.keys {
            loop {
                let mut shown = Vec::new();
                for node in 0..self.cluster.size() {
                    shown.push(self.peek(node, key).await);
                }
                let is_same = shown.windows(2).all(|pair| pair[0] == pair[1]);
                if let (true, Some(Ok(value))) = (is_same, shown.first())
                    && self.is_current(key, *value)
                {
                    break;
                }
                if Instant::now() >= deadline {
                    let acknowledged = self.acknowledged.lock().get(&key).copied();
                    return Err(format!(
                        "{} s after all faults have ended, the replicas show {shown:?} for key {key}, of which \
                         {acknowledged:?} was acknowledged",
                        CONVERGENCE.as_secs()
                    ));
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
        Ok(())
    }

    /// What a node's own replica shows.
    async fn peek(&self, node: usize, key: u64) -> Result<Option<u64>, String> {
        let door = self.cluster.door(node).ok_or("the node is down")?;
        let mut request = self.read_request(Selection::Keys(vec![self.registers.key(key)]));
        request.bound = ReadBound::Level(Level::One);
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
        let operations = history.get(&key).map(Vec::as_slice).unwrap_or_default();
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

    fn record(&self, key: u64, operation: Operation) {
        self.cluster.note("client", key, || {
            format!(
                "key {key} {:?} (since {})",
                operation.event, operation.called
            )
        });
        self.history.lock().entry(key).or_default().push(operation);
    }

    fn read_request(&self, selection: Selection) -> ReadRequest {
        let mut request = ReadRequest::new(self.registers.table.id, selection);
        request.bound = ReadBound::Level(Level::Quorum);
        request.patience = Patience { ms: PATIENCE_MS };
        request
    }

    async fn read(&self, door: Door, key: u64) -> Ending<()> {
        let called = self.cluster.now();
        let request = self.read_request(Selection::Keys(vec![self.registers.key(key)]));
        let ending = read(&self.cluster, door, request).await;
        ending.may_have_happened(&self.counts);
        match ending {
            Ending::Answer(response) => {
                let row = response.rows.first().map(|read| &read.row);
                let value = self.registers.value_of(row);
                self.record(
                    key,
                    Operation {
                        event: Event::Read { value },
                        called,
                        returned: self.cluster.now(),
                    },
                );
                Ending::Answer(())
            }
            Ending::Error(error) => Ending::Error(error),
            Ending::Silence => Ending::Silence,
        }
    }

    async fn scan(&self, door: Door) {
        let called = self.cluster.now();
        let mut request = self.read_request(Selection::Ranges(vec![KeyRange::all()]));
        request.row_limit = Some(3);
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
                    event: Event::Read { value },
                    called,
                    returned,
                },
            );
        }
    }

    async fn write(&self, door: Door, key: u64, rank: Rank, level: Level) -> Ending<WriteResponse> {
        let called = self.cluster.now();
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
            if is_acknowledged {
                let mut acknowledged = self.acknowledged.lock();
                let greatest = acknowledged.entry(key).or_insert(rank);
                *greatest = rank.max(*greatest);
            }
            // What fewer have than a quorum, a quorum read may miss.
            let is_acknowledged = is_acknowledged && level == Level::Quorum;
            self.record(
                key,
                Operation {
                    event: Event::Write {
                        rank,
                        is_acknowledged,
                    },
                    called,
                    returned: self.cluster.now(),
                },
            );
        } else {
            self.cluster.note("client", key, || {
                format!("key {key} {rank:?} refused: {ending}")
            });
        }
        ending
    }

    async fn insist_on_read(&self, node: usize, key: u64) -> Result<(), String> {
        let reading = |door| self.read(door, key);
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
        for (key, history) in self.history.lock().iter() {
            last_write::check(history).map_err(|violation| format!("key {key}: {violation}"))?;
        }
        Ok(())
    }
}
