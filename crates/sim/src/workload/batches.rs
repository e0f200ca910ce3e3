//! Logged batches over all registers of an eventual table, each with one value and one timestamp for all of them: when
//! the faults have ended and what is outstanding was replayed, all registers show one and the same batch, and no
//! acknowledged one is newer.

use super::Counts;
use super::client::{Ending, PATIENCE_MS, Registers, Step, create, insist, read, unleash, write};
use crate::cluster::{Cluster, Door, HEAL_PATIENCE};
use crate::nemesis::Strikes;
use crate::plan::Plan;
use api::{
    Assignment, Atomicity, Level, Mutation, Patience, ReadBound, ReadRequest, RowOperation,
    Selection, WriteRequest,
};
use catalog::Protocol;
use model::{Timestamp, Value};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A batch is replayed when twice its client's patience is over; then it has so long.
const REPLAY_PATIENCE: Duration = Duration::from_secs(15);

struct Game {
    cluster: Cluster,
    registers: Arc<Registers>,
    keys: u64,
    counts: Mutex<Counts>,
    state: Mutex<State>,
}

/// A batch's number is its value and its timestamp.
#[derive(Default)]
struct State {
    last: u64,
    newest_acknowledged: u64,
}

pub(super) async fn run(cluster: &Cluster, plan: &Plan) -> Result<(Counts, Strikes), String> {
    let registers = create(cluster, Protocol::Eventual, plan).await?;
    let game = Arc::new(Game {
        cluster: cluster.clone(),
        registers,
        keys: plan.keys + 2,
        counts: Mutex::default(),
        state: Mutex::default(),
    });
    // The faults begin when the table serves.
    game.shown(0).await?;
    let step: Step = {
        let game = game.clone();
        Arc::new(move |door, _, random| {
            let game = game.clone();
            Box::pin(async move { game.step(door, random).await })
        })
    };
    let strikes = unleash(cluster, plan, step).await?;
    sleep(Duration::from_millis(2 * u64::from(PATIENCE_MS)) + REPLAY_PATIENCE).await;
    game.judge().await?;
    let counts = *game.counts.lock();
    Ok((counts, strikes))
}

impl Game {
    async fn step(&self, door: Door, mut random: SmallRng) {
        if random.random_bool(0.2) {
            let key = random.random_range(0..self.keys);
            let ending = self.read(door, key).await;
            ending.may_have_happened(&self.counts);
            return;
        }
        let number = {
            let mut state = self.state.lock();
            state.last += 1;
            state.last
        };
        let ending = write(&self.cluster, door, self.batch(number)).await;
        ending.may_have_happened(&self.counts);
        if matches!(ending, Ending::Answer(_)) {
            let mut state = self.state.lock();
            state.newest_acknowledged = state.newest_acknowledged.max(number);
        }
        self.cluster
            .note("client", number, || format!("batch {number}: {ending}"));
    }

    fn batch(&self, number: u64) -> WriteRequest {
        let put = |key| {
            let operation = RowOperation::Merge {
                marker: true,
                assignments: vec![Assignment::Set {
                    column: self.registers.value,
                    path: None,
                    value: Value::Int(number as i64),
                }],
                ttl_seconds: None,
            };
            Mutation::new(self.registers.table.id, self.registers.key(key), operation)
        };
        WriteRequest {
            atomicity: Atomicity::Logged,
            level: Level::Quorum,
            timestamp: Some(Timestamp(number as i64)),
            patience: Patience { ms: PATIENCE_MS },
            ..WriteRequest::new((0..self.keys).map(put).collect())
        }
    }

    async fn read(&self, door: Door, key: u64) -> Ending<Option<u64>> {
        let selection = Selection::Keys(vec![self.registers.key(key)]);
        let mut request = ReadRequest::new(self.registers.table.id, selection);
        request.bound = ReadBound::Level(Level::Quorum);
        request.patience = Patience { ms: PATIENCE_MS };
        match read(&self.cluster, door, request).await {
            Ending::Answer(response) => {
                let row = response.rows.first().map(|read| &read.row);
                Ending::Answer(self.registers.value_of(row))
            }
            Ending::Error(error) => Ending::Error(error),
            Ending::Silence => Ending::Silence,
        }
    }

    /// What all registers show through one node.
    async fn shown(&self, node: usize) -> Result<BTreeSet<Option<u64>>, String> {
        let mut shown = BTreeSet::new();
        for key in 0..self.keys {
            let what = format!("a read of key {key}");
            let reading = |door| self.read(door, key);
            shown.insert(insist(&self.cluster, node, &what, reading).await?);
        }
        Ok(shown)
    }

    async fn judge(&self) -> Result<(), String> {
        let deadline = Instant::now() + HEAL_PATIENCE;
        loop {
            let shown = self.shown(0).await?;
            if shown.len() == 1 {
                break;
            }
            if Instant::now() >= deadline {
                return Err(format!("a batch stays half done: registers show {shown:?}"));
            }
            sleep(Duration::from_millis(500)).await;
        }
        // Nothing is outstanding any more: it stays so, through every node.
        sleep(REPLAY_PATIENCE).await;
        let acknowledged = self.state.lock().newest_acknowledged;
        for node in 0..self.cluster.size() {
            let shown = self.shown(node).await?;
            let newest = shown.last().copied().flatten().unwrap_or(0);
            if shown.len() != 1 || newest < acknowledged {
                return Err(format!(
                    "node {} shows {shown:?} when batch {acknowledged} was acknowledged",
                    node + 1
                ));
            }
        }
        Ok(())
    }
}
