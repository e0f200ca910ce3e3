//! Lists on a strong table: transactions over several keys append to them and read them, while others write under
//! conditions, and read now or in the past through any node. The history must be serializable and follow real time as
//! far as the table's ordering promises (`checker::serializable`), at the timestamps that the answers named
//! (`checker::timestamps`).
//!
//! A list is a set of cells in one row: an append adds a cell, and the cells' write timestamps are the order of the
//! list. So an append needs no read, and a list shows when each of its elements was committed. A second column holds
//! the last element: what conditions ask for, and the proof that rows are not torn.

use super::Counts;
use super::client::{
    Ending, FINAL_CLIENT, PATIENCE_MS, Pages, Shape, Step as ClientStep, await_within, column,
    create_table, insist, read_snapshot, unleash, write,
};
use crate::checker::serializable::{
    self, Element, Key, Moment, Outcome, Promise, Step, Transaction,
};
use crate::checker::{second_opinion, timestamps};
use crate::clock::EPOCH_MICROS;
use crate::cluster::{Cluster, Door};
use crate::nemesis::Strikes;
use crate::plan::Plan;
use api::{
    Assignment, Check, CheckOperator, Commit, Condition, Error, KeyRange, Mutation, Patience,
    ReadBound, ReadRequest, Refused, Returning, RowOperation, Selection, TransactionOptions,
    WriteRequest, WriteResponse,
};
use catalog::{Protocol, Table};
use model::{ColumnId, Row, Timestamp, Type, Value};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// A list that has been appended to so often is left alone, and a new one takes its place.
const APPENDS_MAX: u64 = 40;
/// A transaction that loses a conflict is tried so often.
const ATTEMPTS_MAX: u32 = 4;
/// Timestamps remembered, to be read at.
const INSTANTS_MAX: usize = 60;

struct Lists {
    table: Arc<Table>,
    list: ColumnId,
    tail: ColumnId,
}

impl Lists {
    fn key(&self, number: Key) -> Vec<u8> {
        self.table
            .row_key(&[Value::Int(number as i64)])
            .expect("one bigint is the table's key")
    }

    fn read(&self, keys: &[Key]) -> ReadRequest {
        let keys = keys.iter().map(|key| self.key(*key)).collect();
        let mut request = ReadRequest::new(self.table.id, Selection::Keys(keys));
        request.patience = Patience { ms: PATIENCE_MS };
        request
    }

    fn append(&self, key: Key, element: Element) -> Mutation {
        let set = |column, path, value| Assignment::Set {
            column,
            path,
            value,
        };
        let assignments = vec![
            set(
                self.list,
                Some(element.to_be_bytes().to_vec()),
                Value::Int(element as i64),
            ),
            set(self.tail, None, Value::Int(element as i64)),
        ];
        let operation = RowOperation::Merge {
            marker: true,
            assignments,
            ttl_seconds: None,
        };
        Mutation::new(self.table.id, self.key(key), operation)
    }

    /// The list ends with this element, or is empty.
    fn ends_with(&self, last: Option<Element>) -> Condition {
        match last {
            None => Condition::RowMissing,
            Some(last) => Condition::Columns(vec![Check {
                column: self.tail,
                operator: CheckOperator::Equal,
                values: vec![Value::Int(last as i64)],
                part: None,
            }]),
        }
    }

    /// A row's elements in the order of their commits.
    fn elements(&self, row: Option<&Row>) -> Vec<(Timestamp, Element)> {
        let cells = row.map_or(&[][..], |row| row.cells(self.list));
        let mut elements: Vec<(Timestamp, Element)> = cells
            .iter()
            .filter_map(|cell| {
                let path = cell.path.as_deref()?.try_into().ok()?;
                Some((cell.timestamp, u64::from_be_bytes(path)))
            })
            .collect();
        elements.sort();
        elements
    }

    fn tail(&self, row: Option<&Row>) -> Option<Element> {
        match row?.value(self.tail) {
            Some(Value::Int(last)) => Some(*last as u64),
            _ => None,
        }
    }
}

/// The keys that are appended to now, and how often each has been.
struct Slots {
    active: Vec<(Key, u64)>,
    next_key: Key,
}

/// What a client knows of a transaction of its own under way.
#[derive(Default)]
struct Attempt {
    steps: Vec<Step>,
    is_committing: bool,
}

struct Game {
    cluster: Cluster,
    lists: Lists,
    is_external: bool,
    clock_bound_micros: i64,
    counts: Mutex<Counts>,
    history: Mutex<Vec<Transaction>>,
    slots: Mutex<Slots>,
    /// Timestamps that answers have named, newest last.
    instants: Mutex<Vec<Timestamp>>,
    /// The write timestamps that rows have shown.
    times: Mutex<BTreeMap<Element, Timestamp>>,
    next_element: Mutex<Element>,
}

pub(super) async fn run(cluster: &Cluster, plan: &Plan) -> Result<(Counts, Strikes), String> {
    let set = Type::Set {
        element: Box::new(Type::BigInt),
        frozen: false,
    };
    let shape = Shape {
        name: "lists",
        partitioning: plan.partitioning,
        keys: 1,
        columns: &[("k", Type::BigInt), ("list", set), ("tail", Type::BigInt)],
    };
    let table = create_table(cluster, Protocol::Strong, plan, shape).await?;
    let slots = plan.keys + 1;
    let game = Arc::new(Game {
        cluster: cluster.clone(),
        lists: Lists {
            list: column(&table, "list")?,
            tail: column(&table, "tail")?,
            table,
        },
        is_external: plan.is_external,
        clock_bound_micros: plan.clock_bound_micros,
        counts: Mutex::default(),
        history: Mutex::default(),
        slots: Mutex::new(Slots {
            active: (0..slots).map(|key| (key, 0)).collect(),
            next_key: slots,
        }),
        instants: Mutex::default(),
        times: Mutex::default(),
        next_element: Mutex::new(1),
    });
    // The faults begin when the table serves.
    game.insist_on_read(0).await?;
    let step: ClientStep = {
        let game = game.clone();
        Arc::new(move |door, client, random| {
            let game = game.clone();
            Box::pin(async move { game.step(door, client, random).await })
        })
    };
    let strikes = unleash(cluster, plan, step).await?;
    for node in cluster.survivors() {
        game.insist_on_read(node).await?;
        game.insist_on_transaction(node).await?;
        game.insist_on_past(node).await?;
    }
    game.insist_on_read(cluster.survivors()[0]).await?;
    game.judge()?;
    let counts = *game.counts.lock();
    Ok((counts, strikes))
}

impl Game {
    async fn step(&self, door: Door, client: u64, mut random: SmallRng) {
        match random.random_range(0..100) {
            0..45 => self.transact(door, client, &mut random).await,
            45..65 => {
                self.write(door, client, &mut random).await;
            }
            65..80 => {
                let keys = self.draw_keys(&mut random);
                self.read_now(door, client, &keys).await;
            }
            _ => {
                let bound = self.draw_bound(&door, &mut random);
                let keys = self.draw_keys(&mut random);
                self.read_past(door, client, &keys, bound, &mut random)
                    .await;
            }
        }
    }

    fn fresh_element(&self) -> Element {
        let mut next = self.next_element.lock();
        *next += 1;
        *next
    }

    fn draw_keys(&self, random: &mut SmallRng) -> Vec<Key> {
        let slots = self.slots.lock();
        let mut keys: Vec<Key> = slots.active.iter().map(|(key, _)| *key).collect();
        drop(slots);
        let wanted = random.random_range(1..=keys.len());
        while keys.len() > wanted {
            keys.remove(random.random_range(0..keys.len()));
        }
        // Whoever locks them need not do so in order.
        if random.random_bool(0.5) {
            keys.reverse();
        }
        keys
    }

    /// All lists that there have been.
    fn all_keys(&self) -> Vec<Key> {
        (0..self.slots.lock().next_key).collect()
    }

    /// A new element for a list; a list that is long enough is replaced by a new one.
    fn append_to(&self, key: Key) -> Step {
        let mut slots = self.slots.lock();
        let next_key = slots.next_key;
        if let Some(slot) = slots.active.iter_mut().find(|slot| slot.0 == key) {
            slot.1 += 1;
            if slot.1 >= APPENDS_MAX {
                *slot = (next_key, 0);
                slots.next_key += 1;
            }
        }
        drop(slots);
        let element = self.fresh_element();
        Step::Append { key, element }
    }

    /// What a list ended with when somebody saw it last: a condition that has a chance.
    fn last_seen(&self, key: Key) -> Option<Element> {
        let history = self.history.lock();
        let seen = history.iter().rev().find_map(|transaction| {
            let mut steps = transaction.steps.iter().rev();
            steps.find_map(|step| match step {
                Step::Read { key: other, list } if *other == key => Some(list.last().copied()),
                Step::Append {
                    key: other,
                    element,
                } if *other == key && transaction.outcome == Outcome::Committed => {
                    Some(Some(*element))
                }
                _ => None,
            })
        });
        seen.flatten()
    }

    /// Takes a list out of a row, as a transaction that has appended `own` to it sees it.
    fn list(&self, key: Key, row: Option<&Row>, own: &[Element]) -> Vec<Element> {
        let mut list = Vec::new();
        let mut times = self.times.lock();
        let elements = self.lists.elements(row);
        for (at, element) in &elements {
            // What is not committed has no timestamp yet.
            if own.contains(element) {
                continue;
            }
            list.push(*element);
            let known = *times.entry(*element).or_insert(*at);
            if known != *at {
                self.cluster.complain(format!(
                    "{element} of key {key} was written at {known}, and now it was at {at}"
                ));
            }
        }
        let is_there = |mine: &&Element| elements.iter().any(|(_, element)| element == *mine);
        list.extend(own.iter().filter(is_there));
        let tail = self.lists.tail(row);
        if tail != list.last().copied() {
            self.cluster.complain(format!(
                "the row of key {key} is torn: it ends with {tail:?}, and its list is {list:?}"
            ));
        }
        list
    }

    fn record(&self, transaction: Transaction) {
        if let (Some(at), Outcome::Committed) = (transaction.timestamp, transaction.outcome) {
            let mut instants = self.instants.lock();
            if instants.len() >= INSTANTS_MAX {
                instants.remove(0);
            }
            instants.push(at);
        }
        self.cluster.note("client", transaction.client, || {
            format!(
                "{} {:?} {:?} at {:?}: {:?} (since {})",
                transaction.client,
                transaction.outcome,
                transaction.moment,
                transaction.timestamp,
                transaction.steps,
                transaction.called
            )
        });
        self.history.lock().push(transaction);
    }

    /// A transaction with locks, tried again when it loses a conflict.
    async fn transact(&self, door: Door, client: u64, random: &mut SmallRng) {
        let node = door.node;
        let mut door = Some(door);
        let keys = self.draw_keys(random);
        let reads_only = random.random_bool(0.2);
        let wishes: Vec<(Key, bool)> = (0..random.random_range(1..=keys.len() + 2))
            .map(|index| (keys[index % keys.len()], !reads_only && random.random()))
            .collect();
        let mut first_attempt = None;
        for _ in 0..ATTEMPTS_MAX {
            let Some(door) = door.take().or_else(|| self.cluster.door(node)) else {
                return;
            };
            let began = door.database.now().earliest;
            let options = TransactionOptions {
                patience: Patience { ms: PATIENCE_MS },
                first_attempt,
                ..TransactionOptions::default()
            };
            first_attempt.get_or_insert(began);
            match self.attempt(door, client, &wishes, options, random).await {
                Ending::Error(Error::Retry(api::Retry::Aborted(_))) => {}
                _ => return,
            }
            sleep(Duration::from_millis(random.random_range(0..20))).await;
        }
    }

    /// One attempt at a transaction: reads and appends (true), in this order.
    async fn attempt(
        &self,
        door: Door,
        client: u64,
        wishes: &[(Key, bool)],
        options: TransactionOptions,
        random: &mut SmallRng,
    ) -> Ending<Commit> {
        let called = self.cluster.now();
        let attempt = Mutex::new(Attempt::default());
        let database = door.database.clone();
        let patience = Duration::from_secs(20);
        let doing = self.run_transaction(&*database, &attempt, wishes, options, random);
        let ending = await_within(&self.cluster, door, patience, doing).await;
        let attempt = attempt.into_inner();
        let may_have_happened = ending.may_have_happened(&self.counts) && attempt.is_committing;
        let outcome = match &ending {
            Ending::Answer(_) => Outcome::Committed,
            _ if may_have_happened => Outcome::Unknown,
            _ => Outcome::Aborted,
        };
        if outcome != Outcome::Committed {
            self.cluster
                .note("client", client, || format!("{client}: {ending}"));
        }
        self.record(Transaction {
            client,
            steps: attempt.steps,
            outcome,
            moment: Moment::Within,
            timestamp: match &ending {
                Ending::Answer(commit) => Some(commit.timestamp),
                _ => None,
            },
            called,
            returned: match outcome {
                Outcome::Unknown => u64::MAX,
                _ => self.cluster.now(),
            },
        });
        ending
    }

    async fn run_transaction(
        &self,
        database: &dyn api::Database,
        attempt: &Mutex<Attempt>,
        wishes: &[(Key, bool)],
        options: TransactionOptions,
        random: &mut SmallRng,
    ) -> Result<Commit, Error> {
        let mut transaction = database.begin(options).await?;
        for (key, is_append) in wishes.iter().copied() {
            // Now and then it thinks, and seldom for so long that its locks are taken away.
            match random.random_range(0..300) {
                0 => sleep(Duration::from_secs(12)).await,
                1..10 => sleep(Duration::from_millis(500)).await,
                10..120 => sleep(Duration::from_millis(random.random_range(0..20))).await,
                _ => {}
            }
            if is_append {
                let step = self.append_to(key);
                attempt.lock().steps.push(step.clone());
                let mutation = self.mutation(&step);
                transaction.write(mutation.into_iter().collect()).await?;
                continue;
            }
            let response = transaction.read(self.lists.read(&[key])).await?;
            let mut attempt = attempt.lock();
            let own: Vec<Element> = attempt
                .steps
                .iter()
                .filter_map(|step| match step {
                    Step::Append {
                        key: other,
                        element,
                    } if *other == key => Some(*element),
                    _ => None,
                })
                .collect();
            let list = self.list(key, response.rows.first().map(|read| &read.row), &own);
            attempt.steps.push(Step::Read { key, list });
        }
        match random.random_range(0..40) {
            0 => {
                transaction.rollback().await;
                return Err(Error::invalid("rolled back"));
            }
            1 => {
                drop(transaction);
                return Err(Error::invalid("abandoned"));
            }
            _ => {}
        }
        attempt.lock().is_committing = true;
        transaction.commit(Vec::new()).await
    }

    fn mutation(&self, step: &Step) -> Option<Mutation> {
        match step {
            Step::Append { key, element } => Some(self.lists.append(*key, *element)),
            Step::Tail { key, last } => {
                let key = self.lists.key(*key);
                let mut check = Mutation::new(self.lists.table.id, key, RowOperation::Check);
                check.condition = Some(self.lists.ends_with(*last));
                check.returning = Returning::Old;
                Some(check)
            }
            Step::Read { .. } => None,
        }
    }

    /// Appends to some lists at once, if some of them (or of others) end as this client believes.
    async fn write(&self, door: Door, client: u64, random: &mut SmallRng) -> Ending<WriteResponse> {
        let mut keys = self.draw_keys(random);
        if random.random_bool(0.5) {
            keys.truncate(1);
        }
        let mut steps = Vec::new();
        let mut mutations: Vec<Mutation> = Vec::new();
        let mut tails: Vec<Option<Key>> = Vec::new();
        for key in keys {
            let condition = random.random_bool(0.4).then(|| Step::Tail {
                key,
                last: self.last_seen(key),
            });
            let only_checks = condition.is_some() && random.random_bool(0.2);
            let append = (!only_checks).then(|| self.append_to(key));
            let check = condition.as_ref().and_then(|step| self.mutation(step));
            mutations.extend(match append.as_ref().and_then(|step| self.mutation(step)) {
                Some(append) => Some(match check {
                    Some(check) => Mutation {
                        operation: append.operation,
                        ..check
                    },
                    None => append,
                }),
                None => check,
            });
            tails.push(condition.as_ref().map(Step::key));
            steps.extend(condition);
            steps.extend(append);
        }
        let mut request = WriteRequest::new(mutations);
        request.patience = Patience { ms: PATIENCE_MS };
        let called = self.cluster.now();
        let ending = write(&self.cluster, door, request).await;
        let returned = self.cluster.now();
        let happened = ending.may_have_happened(&self.counts);
        let mut transaction = Transaction {
            client,
            steps,
            outcome: Outcome::Committed,
            moment: Moment::Within,
            timestamp: None,
            called,
            returned,
        };
        match &ending {
            Ending::Answer(response) => transaction.timestamp = response.commit_timestamp,
            _ if happened => {
                transaction.outcome = Outcome::Unknown;
                transaction.returned = u64::MAX;
            }
            Ending::Error(Error::Refused(Refused::ConditionFailed { mutation, row })) => {
                // Whoever is refused has seen why.
                if let Some(Some(key)) = tails.get(*mutation as usize).copied() {
                    let list = self.list(key, row.as_ref(), &[]);
                    self.record(Transaction {
                        steps: vec![Step::Read { key, list }],
                        ..transaction.clone()
                    });
                }
                transaction.outcome = Outcome::Aborted;
            }
            _ => transaction.outcome = Outcome::Aborted,
        }
        if transaction.outcome != Outcome::Committed {
            self.cluster
                .note("client", client, || format!("{client}: {ending}"));
        }
        self.record(transaction);
        ending
    }

    /// A strong read: one snapshot on an external table, and one of each key on another.
    async fn read_now(&self, door: Door, client: u64, keys: &[Key]) -> Ending<()> {
        let called = self.cluster.now();
        let pages = match self.is_external {
            true => Pages::AtOneTime,
            false => Pages::EachByItself,
        };
        let ending = read_snapshot(&self.cluster, door, self.lists.read(keys), pages).await;
        ending.may_have_happened(&self.counts);
        ending.map(|(rows, timestamp)| {
            let returned = self.cluster.now();
            let reads = keys.iter().map(|key| {
                let row_key = self.lists.key(*key);
                let row = rows.iter().find(|read| read.key == row_key);
                let list = self.list(*key, row.map(|read| &read.row), &[]);
                Step::Read { key: *key, list }
            });
            let reads: Vec<Step> = reads.collect();
            let parts = match self.is_external {
                true => vec![reads],
                false => reads.into_iter().map(|read| vec![read]).collect(),
            };
            for steps in parts {
                self.record(Transaction {
                    client,
                    steps,
                    outcome: Outcome::Committed,
                    moment: Moment::Within,
                    timestamp: timestamp.filter(|_| self.is_external || keys.len() == 1),
                    called,
                    returned,
                });
            }
        })
    }

    /// A time to read at: about when something happened, some time ago, or soon.
    fn draw_bound(&self, door: &Door, random: &mut SmallRng) -> ReadBound {
        let instants = self.instants.lock();
        let now = door.database.now();
        let behind = random.random_range(0..instants.len().clamp(1, 8));
        let some = match instants.len().checked_sub(1 + behind) {
            Some(index) => instants[index],
            None => now.earliest,
        };
        let micros = [0, 1_000, 100_000, 2_000_000][random.random_range(0..4)];
        match random.random_range(0..10) {
            0..5 => ReadBound::At(Timestamp(some.0 + random.random_range(-1..=1))),
            5 => ReadBound::At(Timestamp(now.latest.0 + random.random_range(0..5_000))),
            6 => ReadBound::ExactStaleness { micros },
            7 => ReadBound::MinTimestamp(some),
            _ => ReadBound::MaxStaleness { micros },
        }
    }

    /// A read of a snapshot, by keys or as a scan.
    async fn read_past(
        &self,
        door: Door,
        client: u64,
        keys: &[Key],
        bound: ReadBound,
        random: &mut SmallRng,
    ) -> Ending<()> {
        let called = self.cluster.now();
        let node = door.node;
        let mut request = self.lists.read(keys);
        if random.random_bool(0.3) {
            request.selection = Selection::Ranges(vec![KeyRange::all()]);
        }
        if random.random_bool(0.3) {
            request.row_limit = Some(random.random_range(1..3));
        }
        request.bound = bound;
        let ending = read_snapshot(&self.cluster, door, request, Pages::AtOneTime).await;
        ending.may_have_happened(&self.counts);
        ending.map(|(rows, timestamp)| {
            let returned = self.cluster.now();
            self.judge_bound(node, bound, timestamp, called, returned);
            let read = |key: &Key| {
                let row_key = self.lists.key(*key);
                let row = rows.iter().find(|read| read.key == row_key);
                let list = self.list(*key, row.map(|read| &read.row), &[]);
                Step::Read { key: *key, list }
            };
            self.record(Transaction {
                client,
                steps: keys.iter().map(read).collect(),
                outcome: Outcome::Committed,
                moment: Moment::Past,
                timestamp,
                called,
                returned,
            });
        })
    }

    /// Whether a snapshot is of the time that was asked for.
    fn judge_bound(
        &self,
        node: usize,
        bound: ReadBound,
        timestamp: Option<Timestamp>,
        called: u64,
        returned: u64,
    ) {
        let Some(Timestamp(at)) = timestamp else {
            self.cluster
                .complain("a read of a strong table does not say its timestamp".into());
            return;
        };
        // A clock that keeps its promise is wrong by less than this.
        let error = 2 * self.clock_bound_micros;
        let earliest = EPOCH_MICROS + called as i64 - error;
        let latest = EPOCH_MICROS + returned as i64 + error;
        let is_well = match bound {
            ReadBound::At(wanted) => at == wanted.0,
            ReadBound::MinTimestamp(wanted) => at >= wanted.0,
            ReadBound::MaxStaleness { micros } => at >= earliest - micros as i64,
            ReadBound::ExactStaleness { micros } => {
                (earliest - micros as i64..=latest - micros as i64).contains(&at)
            }
            _ => true,
        };
        if !is_well {
            self.cluster.complain(format!(
                "asked for {bound:?} between {earliest} and {latest}, node {} read at {at}",
                node + 1
            ));
        }
    }

    async fn insist_on_read(&self, node: usize) -> Result<(), String> {
        let keys = self.all_keys();
        let reading = |door| self.read_now(door, FINAL_CLIENT, &keys);
        insist(&self.cluster, node, "a read of all lists", reading).await
    }

    async fn insist_on_transaction(&self, node: usize) -> Result<(), String> {
        let mut wishes: Vec<(Key, bool)> = Vec::new();
        for (key, _) in &self.slots.lock().active {
            wishes.extend([(*key, false), (*key, true)]);
        }
        let transacting = async |door| {
            let mut random = self.cluster.draw_random();
            let options = TransactionOptions {
                patience: Patience { ms: PATIENCE_MS },
                ..TransactionOptions::default()
            };
            self.attempt(door, FINAL_CLIENT, &wishes, options, &mut random)
                .await
        };
        let what = "a transaction over all lists";
        insist(&self.cluster, node, what, transacting).await?;
        Ok(())
    }

    async fn insist_on_past(&self, node: usize) -> Result<(), String> {
        let keys = self.all_keys();
        let reading = async |door: Door| {
            let mut random = self.cluster.draw_random();
            let bound = self.draw_bound(&door, &mut random);
            self.read_past(door, FINAL_CLIENT, &keys, bound, &mut random)
                .await
        };
        insist(&self.cluster, node, "a read of the past", reading).await
    }

    /// The history, with the commit timestamps that rows have shown.
    fn known(&self) -> Result<Vec<Transaction>, String> {
        let mut history = self.history.lock().clone();
        let times = self.times.lock();
        for transaction in &mut history {
            for step in &transaction.steps {
                let Step::Append { key, element } = step else {
                    continue;
                };
                let Some(at) = times.get(element).copied() else {
                    continue;
                };
                if transaction.timestamp.is_some_and(|known| known != at) {
                    return Err(format!(
                        "{element} of key {key} shows {at}, and its commit said otherwise: {transaction:?}"
                    ));
                }
                transaction.timestamp = Some(at);
            }
        }
        history.sort_by_key(|transaction| (transaction.called, transaction.client));
        Ok(history)
    }

    fn judge(&self) -> Result<(), String> {
        let all = self.known()?;
        let mut locking = all.clone();
        locking.retain(|transaction| transaction.moment == Moment::Within);
        let (promise, ordering) = match self.is_external {
            true => (Promise::Strict, "external"),
            false => (Promise::PerKey, "conflict"),
        };
        if let Some(anomaly) = serializable::check(&all, promise).first() {
            return Err(format!(
                "not {promise:?} ({ordering} ordering, {} transactions): {anomaly}",
                all.len()
            ));
        }
        if let Some(complaint) = timestamps::check(&all, self.is_external).first() {
            return Err(complaint.clone());
        }
        let mut opinions = vec![(&all, "serializable")];
        if self.is_external {
            opinions.push((&locking, "strict-serializable"));
        }
        for (history, model) in opinions {
            if let Some(anomaly) = second_opinion::anomalies(history, model).first() {
                return Err(format!(
                    "the judges disagree: adya says that it is not {model}: {anomaly}"
                ));
            }
        }
        Ok(())
    }
}
