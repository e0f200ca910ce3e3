//! Writes of single keys one after the other, through different nodes and to different tablets of an `external` table,
//! and snapshots of all keys at exact timestamps: commit timestamps follow real time, whatever the clocks do.

use super::Counts;
use super::client::{
    Ending, FINAL_CLIENT, PATIENCE_MS, Registers, Step, create, insist, read_all, unleash, write,
};
use crate::checker::external::{self, Snapshot, Write};
use crate::cluster::{Cluster, Door};
use crate::nemesis::Strikes;
use crate::plan::Plan;
use api::{
    Assignment, KeyRange, Mutation, Patience, ReadBound, ReadRequest, RowOperation, Selection,
    WriteRequest,
};
use catalog::Protocol;
use model::{Timestamp, Value};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use std::sync::Arc;

/// Keys, more than the table has tablets to begin with.
const KEYS: u64 = 12;
/// Snapshots are taken so far around a commit.
const AROUND_MICROS: i64 = 20_000;

struct Game {
    cluster: Cluster,
    registers: Arc<Registers>,
    counts: Mutex<Counts>,
    writes: Mutex<Vec<Write>>,
    snapshots: Mutex<Vec<Snapshot>>,
    next_value: Mutex<u64>,
}

pub(super) async fn run(cluster: &Cluster, plan: &Plan) -> Result<(Counts, Strikes), String> {
    let game = Arc::new(Game {
        cluster: cluster.clone(),
        registers: create(cluster, Protocol::Strong, plan).await?,
        counts: Mutex::default(),
        writes: Mutex::default(),
        snapshots: Mutex::default(),
        next_value: Mutex::new(0),
    });
    // The faults begin when the table serves.
    game.insist_on_writes().await?;
    let step: Step = {
        let game = game.clone();
        Arc::new(move |door, client, random| {
            let game = game.clone();
            Box::pin(async move { game.step(door, client, random).await })
        })
    };
    let strikes = unleash(cluster, plan, step).await?;
    game.insist_on_writes().await?;
    external::check(&game.writes.lock(), &game.snapshots.lock())?;
    let counts = *game.counts.lock();
    Ok((counts, strikes))
}

impl Game {
    async fn step(&self, door: Door, client: u64, mut random: SmallRng) {
        if random.random_bool(0.25) {
            return self.look(door, &mut random).await;
        }
        // The second write begins when the first has ended, elsewhere.
        let first = random.random_range(0..KEYS);
        let second = (first + random.random_range(1..KEYS)) % KEYS;
        self.write(door, client, first).await;
        let elsewhere = random.random_range(0..self.cluster.size());
        if let Some(door) = self.cluster.door(elsewhere) {
            self.write(door, client, second).await;
        }
    }

    async fn write(&self, door: Door, client: u64, key: u64) -> Ending<()> {
        let value = {
            let mut next = self.next_value.lock();
            *next += 1;
            *next
        };
        let operation = RowOperation::Merge {
            marker: true,
            assignments: vec![Assignment::Set {
                column: self.registers.value,
                path: None,
                value: Value::Int(value as i64),
            }],
            ttl_seconds: None,
        };
        let table = &self.registers.table;
        let mutation = Mutation::new(table.id, self.registers.key(key), operation);
        let mut request = WriteRequest::new(vec![mutation]);
        request.patience = Patience { ms: PATIENCE_MS };
        let called = self.cluster.now();
        let node = door.node;
        let ending = write(&self.cluster, door, request).await;
        let returned = self.cluster.now();
        ending.may_have_happened(&self.counts);
        if let Ending::Answer(response) = &ending
            && let Some(commit) = response.commit_timestamp
        {
            self.cluster.note("client", key, || {
                format!(
                    "{client} key {key} = {value} at {commit} through node {}",
                    node + 1
                )
            });
            self.writes.lock().push(Write {
                key,
                value,
                commit,
                called,
                returned,
            });
        }
        ending.map(|_| ())
    }

    /// Looks at all keys as they were around a recent commit.
    async fn look(&self, door: Door, random: &mut SmallRng) {
        let Some(last) = self.writes.lock().last().map(|write| write.commit) else {
            return;
        };
        let around = match random.random_bool(0.5) {
            true => 0,
            false => random.random_range(-AROUND_MICROS..=AROUND_MICROS),
        };
        let at = Timestamp(last.0 + around);
        let selection = Selection::Ranges(vec![KeyRange::all()]);
        let mut request = ReadRequest::new(self.registers.table.id, selection);
        request.bound = ReadBound::At(at);
        request.patience = Patience { ms: PATIENCE_MS };
        let ending = read_all(&self.cluster, door, request).await;
        ending.may_have_happened(&self.counts);
        if let Ending::Answer(rows) = ending {
            let values = self.registers.values(&rows, KEYS);
            self.snapshots.lock().push(Snapshot { at, values });
        }
    }

    /// Every node takes writes.
    async fn insist_on_writes(&self) -> Result<(), String> {
        for key in 0..KEYS {
            let survivors = self.cluster.survivors();
            let node = survivors[key as usize % survivors.len()];
            let writing = |door| self.write(door, FINAL_CLIENT, key);
            let what = format!("a write of key {key}");
            insist(&self.cluster, node, &what, writing).await?;
        }
        Ok(())
    }
}
