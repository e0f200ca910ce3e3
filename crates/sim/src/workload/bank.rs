//! A bank on a strong table: transfers between accounts that lie in several tablets, two in a row where accounts are
//! paired (each in a column of its own, which is all that is locked), each with an entry in the ledger, which lies in
//! yet another. Nobody ever sees money made or lost: at every timestamp, at every replica, the accounts
//! hold together what they held at first, each holds what the ledger says, and none is overdrawn. In the end the
//! ledger has every transfer that was acknowledged and none that was refused.
//!
//! Where outcomes are recalled, another node is asked how a transfer ended that may have happened: what it says counts
//! like what the client itself has heard.

use super::client::{
    Ending, FINAL_CLIENT, PATIENCE_MS, Pages, Shape, Step, await_within, column, create_table,
    insist, read_snapshot, unleash, write,
};
use super::receipts::Receipts;
use super::{Counts, NAMESPACE};
use crate::cluster::{Cluster, Door};
use crate::nemesis::Strikes;
use crate::plan::Plan;
use api::{
    Assignment, Check, CheckOperator, Commit, Condition, Database, Error, KeyRange, Mutation,
    Patience, Projection, ReadBound, ReadRequest, ReadRow, Refused, Retry, RowOperation, Selection,
    Transaction, TransactionId, TransactionOptions, WriteRequest,
};
use catalog::{Protocol, Table};
use model::{ColumnId, Row, Timestamp, Type, Value};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// What each account holds at first.
const INITIAL: i64 = 100;
/// The keys of the ledger's entries begin here; below are the accounts.
const LEDGER: i64 = 1_000;
/// A transfer that loses a conflict is tried so often.
const ATTEMPTS_MAX: u32 = 4;
/// Nobody reads what is older.
const PAST_MAX: Duration = Duration::from_secs(2);
/// Who asks how a transfer has ended waits so long.
const RECALL_PATIENCE: Duration = Duration::from_secs(25);
/// Snapshots remembered.
const SNAPSHOTS_MAX: usize = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transfer {
    source: i64,
    target: i64,
    amount: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged { at: Timestamp, returned: u64 },
    Refused,
    Unknown,
}

/// What somebody saw at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Snapshot {
    /// By account.
    balances: Vec<Option<i64>>,
    /// Entries by key, if they were read.
    ledger: Option<BTreeMap<i64, Transfer>>,
}

/// Who saw it, and when.
#[derive(Clone, Copy)]
struct Sight {
    node: usize,
    /// `None`: by a transaction with locks.
    bound: Option<ReadBound>,
    at: Option<Timestamp>,
    called: u64,
    /// It has all that was acknowledged before the call.
    is_current: bool,
}

impl fmt::Display for Sight {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bound {
            Some(bound) => write!(formatter, "a read of {bound:?}")?,
            None => write!(formatter, "a transaction")?,
        }
        write!(formatter, " through node {}", self.node + 1)?;
        if let Some(at) = self.at {
            write!(formatter, " at {at}")?;
        }
        write!(
            formatter,
            ", called {} us after the beginning,",
            self.called
        )
    }
}

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Accounts,
    /// The ledger too.
    Everything,
}

struct Columns {
    /// Of the accounts in a row.
    balances: [ColumnId; 2],
    source: ColumnId,
    target: ColumnId,
    amount: ColumnId,
}

/// What becomes of transfers whose client has heard no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcomes {
    AsHeard,
    Recalled,
}

struct Game {
    cluster: Cluster,
    outcomes: Outcomes,
    table: Arc<Table>,
    columns: Columns,
    accounts: i64,
    accounts_in_row: i64,
    is_external: bool,
    counts: Mutex<Counts>,
    /// By the key of the ledger's entry.
    transfers: Mutex<BTreeMap<i64, (Transfer, Fate)>>,
    snapshots: Mutex<Vec<(Sight, Snapshot)>>,
    /// Transfers that nobody knew of when they were asked for, by the key of the entry.
    unknown: Mutex<BTreeMap<i64, (Transfer, TransactionId)>>,
    next_entry: Mutex<i64>,
    receipts: Arc<Receipts>,
}

pub(super) async fn run(
    cluster: &Cluster,
    plan: &Plan,
    outcomes: Outcomes,
) -> Result<(Counts, Strikes), String> {
    let bigint = |name| (name, Type::BigInt);
    let shape = Shape {
        name: "bank",
        partitioning: plan.partitioning,
        keys: 1,
        columns: &[
            "k",
            "balance",
            "other_balance",
            "source",
            "target",
            "amount",
        ]
        .map(bigint),
    };
    let table = create_table(cluster, Protocol::Strong, plan, shape).await?;
    let game = Arc::new(Game {
        cluster: cluster.clone(),
        outcomes,
        columns: Columns {
            balances: [column(&table, "balance")?, column(&table, "other_balance")?],
            source: column(&table, "source")?,
            target: column(&table, "target")?,
            amount: column(&table, "amount")?,
        },
        table,
        accounts: plan.keys as i64 + 2,
        accounts_in_row: 1 + plan.keys as i64 % 2,
        is_external: plan.is_external,
        counts: Mutex::default(),
        transfers: Mutex::default(),
        snapshots: Mutex::default(),
        unknown: Mutex::default(),
        next_entry: Mutex::new(LEDGER),
        receipts: Arc::new(Receipts::new(cluster, plan)),
    });
    game.open_accounts().await?;
    let step: Step = {
        let game = game.clone();
        Arc::new(move |door, client, random| {
            let game = game.clone();
            Box::pin(async move { game.step(door, client, random).await })
        })
    };
    let mut random = cluster.draw_random();
    let receipts = game.receipts.clone();
    let coming_and_going = tokio::spawn(async move {
        if random.random() {
            receipts.come_and_go(random).await;
        }
    });
    let strikes = unleash(cluster, plan, step).await;
    coming_and_going.abort();
    game.receipts.end();
    let strikes = strikes?;
    game.recall_unknown().await;
    for node in cluster.survivors() {
        game.insist_on_transfer(node).await?;
        game.insist_on_audit(node).await?;
        game.insist_on_snapshot(node).await?;
    }
    game.judge_ledgers()?;
    let counts = *game.counts.lock();
    Ok((counts, strikes))
}

fn draw_scope(random: &mut SmallRng) -> Scope {
    match random.random_bool(0.3) {
        true => Scope::Everything,
        false => Scope::Accounts,
    }
}

impl Game {
    fn key(&self, number: i64) -> Vec<u8> {
        self.table
            .row_key(&[Value::Int(number)])
            .expect("one bigint is the table's key")
    }

    /// The row that an account is in, and its column.
    fn place(&self, account: i64) -> (i64, ColumnId) {
        let column = self.columns.balances[(account % self.accounts_in_row) as usize];
        (account / self.accounts_in_row, column)
    }

    /// The rows that hold accounts.
    fn account_rows(&self) -> impl Iterator<Item = i64> {
        0..=self.place(self.accounts - 1).0
    }

    fn read_request(&self, scope: Scope) -> ReadRequest {
        self.read_selection(match scope {
            Scope::Accounts => {
                Selection::Keys(self.account_rows().map(|row| self.key(row)).collect())
            }
            Scope::Everything => Selection::Ranges(vec![KeyRange::all()]),
        })
    }

    fn read_selection(&self, selection: Selection) -> ReadRequest {
        let mut request = ReadRequest::new(self.table.id, selection);
        request.patience = Patience { ms: PATIENCE_MS };
        request
    }

    fn set(&self, key: i64, values: &[(ColumnId, i64)], is_new: bool) -> Mutation {
        let assignments = values
            .iter()
            .map(|(column, value)| Assignment::Set {
                column: *column,
                path: None,
                value: Value::Int(*value),
            })
            .collect();
        let operation = match is_new {
            true => RowOperation::Insert { assignments },
            false => RowOperation::Update { assignments },
        };
        Mutation::new(self.table.id, self.key(key), operation)
    }

    fn balance(&self, account: i64, balance: i64) -> Mutation {
        let (row, column) = self.place(account);
        self.set(row, &[(column, balance)], false)
    }

    fn entry(&self, key: i64, transfer: Transfer) -> Mutation {
        let values = [
            (self.columns.source, transfer.source),
            (self.columns.target, transfer.target),
            (self.columns.amount, transfer.amount),
        ];
        self.set(key, &values, true)
    }

    fn int(row: &Row, column: ColumnId) -> Option<i64> {
        match row.value(column) {
            Some(Value::Int(value)) => Some(*value),
            _ => None,
        }
    }

    fn balance_in(&self, rows: &[ReadRow], account: i64) -> Option<i64> {
        let (row, column) = self.place(account);
        let key = self.key(row);
        let found = rows.iter().find(|read| read.key == key)?;
        Self::int(&found.row, column)
    }

    /// What rows say of the accounts, and of the ledger if it was read.
    fn snapshot(&self, rows: &[ReadRow], scope: Scope) -> Snapshot {
        let entries = || {
            let next = *self.next_entry.lock();
            let mut by_key: BTreeMap<&[u8], &Row> = BTreeMap::new();
            by_key.extend(rows.iter().map(|read| (read.key.as_slice(), &read.row)));
            (LEDGER..next)
                .filter_map(|entry| {
                    let row = *by_key.get(self.key(entry).as_slice())?;
                    let transfer = Transfer {
                        source: Self::int(row, self.columns.source)?,
                        target: Self::int(row, self.columns.target)?,
                        amount: Self::int(row, self.columns.amount)?,
                    };
                    Some((entry, transfer))
                })
                .collect()
        };
        Snapshot {
            balances: (0..self.accounts)
                .map(|account| self.balance_in(rows, account))
                .collect(),
            ledger: (scope == Scope::Everything).then(entries),
        }
    }

    async fn open_accounts(&self) -> Result<(), String> {
        for row in self.account_rows() {
            let places = (0..self.accounts).map(|account| self.place(account));
            let own = places.filter(|place| place.0 == row);
            let values: Vec<(ColumnId, i64)> = own.map(|(_, column)| (column, INITIAL)).collect();
            let opening = async |door| {
                let request = WriteRequest::new(vec![self.set(row, &values, true)]);
                match write(&self.cluster, door, request).await {
                    Ending::Error(Error::Refused(Refused::RowExists { .. })) => Ending::Answer(()),
                    ending => ending.map(|_| ()),
                }
            };
            insist(&self.cluster, 0, "opening an account", opening).await?;
        }
        // Whoever reads the past finds them open.
        sleep(PAST_MAX * 2).await;
        Ok(())
    }

    async fn step(&self, door: Door, client: u64, mut random: SmallRng) {
        // Its clock is asked, too.
        self.cluster.resumed(door.node).await;
        match random.random_range(0..100) {
            0..45 => self.transfer(door, client, &mut random).await,
            45..55 => self.transfer_at_once(door, client, &mut random).await,
            55..62 => {
                let scope = draw_scope(&mut random);
                self.audit(door, client, scope).await;
            }
            _ => {
                let (bound, is_current) = self.draw_bound(&door, &mut random);
                let scope = draw_scope(&mut random);
                self.look(door, client, bound, is_current, scope).await;
            }
        }
    }

    /// A transfer that may be too large, and the key of its entry.
    fn draw_transfer(&self, random: &mut SmallRng) -> (i64, Transfer) {
        let mut next = self.next_entry.lock();
        let entry = *next;
        *next += 1;
        drop(next);
        let source = random.random_range(0..self.accounts);
        let target = (source + random.random_range(1..self.accounts)) % self.accounts;
        let transfer = Transfer {
            source,
            target,
            amount: random.random_range(1..60),
        };
        (entry, transfer)
    }

    fn settle(&self, client: u64, entry: i64, transfer: Transfer, fate: Fate) {
        self.cluster.note("client", client, || {
            format!("{client} entry {entry} {transfer:?}: {fate:?}")
        });
        self.transfers.lock().insert(entry, (transfer, fate));
    }

    fn fate<T>(&self, ending: &Ending<T>, at: Option<Timestamp>, is_committing: bool) -> Fate {
        let may_have_happened = ending.may_have_happened(&self.counts) && is_committing;
        match (ending, at) {
            (Ending::Answer(_), Some(at)) => Fate::Acknowledged {
                at,
                returned: self.cluster.now(),
            },
            _ if may_have_happened => Fate::Unknown,
            _ => Fate::Refused,
        }
    }

    /// A transfer with locks, tried again when it loses a conflict.
    async fn transfer(&self, door: Door, client: u64, random: &mut SmallRng) {
        let node = door.node;
        let mut door = Some(door);
        let mut first_attempt = None;
        for _ in 0..ATTEMPTS_MAX {
            let Some(door) = door.take().or_else(|| self.cluster.door(node)) else {
                return;
            };
            let now = door.database.now().earliest;
            let options = TransactionOptions {
                patience: Patience { ms: PATIENCE_MS },
                first_attempt,
                is_kept: self.outcomes == Outcomes::Recalled,
                ..TransactionOptions::default()
            };
            first_attempt.get_or_insert(now);
            match self.attempt(door, client, options, random).await {
                Ending::Error(Error::Retry(Retry::Aborted(_))) => {}
                _ => return,
            }
            sleep(Duration::from_millis(random.random_range(0..20))).await;
        }
    }

    /// One attempt, with an entry of its own. A transfer that the source cannot pay is rolled back.
    async fn attempt(
        &self,
        door: Door,
        client: u64,
        options: TransactionOptions,
        random: &mut SmallRng,
    ) -> Ending<Option<Commit>> {
        let (entry, transfer) = self.draw_transfer(random);
        let committing = Mutex::new(None);
        let (node, database) = (door.node, door.database.clone());
        let paying = self.pay(&*database, entry, transfer, options, &committing, random);
        let patience = Duration::from_secs(10);
        let ending = await_within(&self.cluster, door, patience, paying).await;
        let at = match &ending {
            Ending::Answer(commit) => commit.map(|commit| commit.timestamp),
            _ => None,
        };
        let committing = committing.into_inner();
        let mut fate = self.fate(&ending, at, committing.is_some());
        if let (Fate::Unknown, Outcomes::Recalled, Some(id)) = (fate, self.outcomes, committing) {
            fate = self.recall(node + 1, id).await;
            if fate == Fate::Unknown {
                self.unknown.lock().insert(entry, (transfer, id));
            }
        }
        if !matches!(ending, Ending::Answer(_)) {
            self.cluster
                .note("client", client, || format!("{client}: {ending}"));
        }
        self.settle(client, entry, transfer, fate);
        ending
    }

    async fn pay(
        &self,
        database: &dyn Database,
        entry: i64,
        transfer: Transfer,
        options: TransactionOptions,
        committing: &Mutex<Option<TransactionId>>,
        random: &mut SmallRng,
    ) -> Result<Option<Commit>, Error> {
        let mut transaction = database.begin(options).await?;
        let mut balances = Vec::new();
        for account in [transfer.source, transfer.target] {
            let (row, column) = self.place(account);
            let mut request = self.read_selection(Selection::Keys(vec![self.key(row)]));
            let column = Projection::Columns(vec![column]);
            request.projection = column.clone();
            // Some say from the start that they will write, and lock for it.
            let response = match entry % 2 {
                0 => transaction.read_to_write(request, column).await?,
                _ => transaction.read(request).await?,
            };
            let Some(balance) = self.balance_in(&response.rows, account) else {
                self.cluster
                    .complain(format!("account {account} has gone: {:?}", response.rows));
                return Ok(None);
            };
            balances.push(balance);
            if random.random_bool(0.1) {
                sleep(Duration::from_millis(random.random_range(0..100))).await;
            }
        }
        if balances[0] < transfer.amount {
            transaction.rollback().await;
            return Ok(None);
        }
        let mut mutations = vec![
            self.balance(transfer.source, balances[0] - transfer.amount),
            self.balance(transfer.target, balances[1] + transfer.amount),
            self.entry(entry, transfer),
        ];
        // The tablet of the first mutation often coordinates.
        if let Some(receipt) = self.receipts.row(entry) {
            mutations.insert([0, 3][random.random_range(0..2)], receipt);
        }
        // With the commit, or before it.
        let last = match random.random() {
            true => mutations,
            false => {
                transaction.write(mutations).await?;
                Vec::new()
            }
        };
        *committing.lock() = Some(transaction.id());
        Ok(Some(transaction.commit(last).await?))
    }

    /// What the tablets say of a commit, asked for at the first node from this one on that is there.
    async fn recall(&self, node: usize, id: TransactionId) -> Fate {
        let nodes = self.cluster.survivors();
        let nodes = nodes.iter().cycle().skip(node).take(nodes.len());
        let Some(door) = nodes.copied().find_map(|node| self.cluster.door(node)) else {
            return Fate::Unknown;
        };
        let database = door.database.clone();
        let asking = async { Ok(database.fate(id, NAMESPACE).await) };
        match await_within(&self.cluster, door, RECALL_PATIENCE, asking).await {
            Ending::Answer(api::Fate::Committed(at)) => Fate::Acknowledged {
                at,
                returned: self.cluster.now(),
            },
            Ending::Answer(api::Fate::Aborted) => Fate::Refused,
            _ => Fate::Unknown,
        }
    }

    /// When all is well again, what was not known before.
    async fn recall_unknown(&self) {
        let unknown = std::mem::take(&mut *self.unknown.lock());
        for (entry, (transfer, id)) in unknown {
            let fate = self.recall(0, id).await;
            self.settle(FINAL_CLIENT, entry, transfer, fate);
        }
    }

    /// A transfer as one conditional write of three rows, upon balances that were read before.
    async fn transfer_at_once(&self, door: Door, client: u64, random: &mut SmallRng) {
        let (entry, transfer) = self.draw_transfer(random);
        let node = door.node;
        let read = self.read_request(Scope::Accounts);
        let reading = read_snapshot(&self.cluster, door, read, Pages::EachByItself);
        let Ending::Answer((rows, _)) = reading.await else {
            return;
        };
        let balances = (
            self.balance_in(&rows, transfer.source),
            self.balance_in(&rows, transfer.target),
        );
        let ((Some(source), Some(target)), Some(door)) = (balances, self.cluster.door(node)) else {
            return;
        };
        if source < transfer.amount {
            return;
        }
        let conditional = |account, before, after| {
            let mut mutation = self.balance(account, after);
            mutation.condition = Some(Condition::Columns(vec![Check {
                column: self.place(account).1,
                operator: CheckOperator::Equal,
                values: vec![Value::Int(before)],
                part: None,
            }]));
            mutation
        };
        let mut request = WriteRequest::new(vec![
            self.entry(entry, transfer),
            conditional(transfer.source, source, source - transfer.amount),
            conditional(transfer.target, target, target + transfer.amount),
        ]);
        request.patience = Patience { ms: PATIENCE_MS };
        let ending = write(&self.cluster, door, request).await;
        let at = match &ending {
            Ending::Answer(response) => response.commit_timestamp,
            _ => None,
        };
        let fate = self.fate(&ending, at, true);
        self.settle(client, entry, transfer, fate);
    }

    /// Reads everything under locks.
    async fn audit(&self, door: Door, client: u64, scope: Scope) -> Ending<()> {
        let called = self.cluster.now();
        let (node, database) = (door.node, door.database.clone());
        let reading = async {
            let options = TransactionOptions {
                patience: Patience { ms: PATIENCE_MS },
                ..TransactionOptions::default()
            };
            let mut transaction = database.begin(options).await?;
            let rows = self.read_locked(&mut *transaction, scope).await?;
            let commit = transaction.commit(Vec::new()).await?;
            Ok((rows, commit))
        };
        let patience = Duration::from_secs(10);
        let ending = await_within(&self.cluster, door, patience, reading).await;
        ending.may_have_happened(&self.counts);
        ending.map(|(rows, commit)| {
            let sight = Sight {
                node,
                bound: None,
                at: Some(commit.timestamp),
                called,
                is_current: true,
            };
            self.see(client, sight, self.snapshot(&rows, scope));
        })
    }

    async fn read_locked(
        &self,
        transaction: &mut dyn Transaction,
        scope: Scope,
    ) -> Result<Vec<ReadRow>, Error> {
        let mut request = self.read_request(scope);
        let mut rows = Vec::new();
        loop {
            let response = transaction.read(request.clone()).await?;
            rows.extend(response.rows);
            match response.next {
                Some(next) => request.selection = next,
                None => return Ok(rows),
            }
        }
    }

    /// Now, where that is a snapshot, or a time that somebody has named, or some time ago; and whether it is now.
    fn draw_bound(&self, door: &Door, random: &mut SmallRng) -> (ReadBound, bool) {
        let now = door.database.now();
        let snapshots = self.snapshots.lock();
        let behind = random.random_range(0..snapshots.len().clamp(1, 8));
        let index = snapshots.len().checked_sub(1 + behind);
        let some = index
            .and_then(|index| snapshots[index].0.at)
            .unwrap_or(now.earliest);
        let micros = [0, 1_000, 100_000, 2_000_000][random.random_range(0..4)];
        let bound = match random.random_range(0..10) {
            0..3 if self.is_external => return (ReadBound::Strong, true),
            0..3 => return (ReadBound::At(now.latest), true),
            3..5 => ReadBound::At(Timestamp(some.0 + random.random_range(-1..=1))),
            5 => ReadBound::At(some),
            6 => ReadBound::ExactStaleness { micros },
            7 => ReadBound::MinTimestamp(some),
            _ => ReadBound::MaxStaleness { micros },
        };
        (bound, false)
    }

    /// Reads a snapshot.
    async fn look(
        &self,
        door: Door,
        client: u64,
        bound: ReadBound,
        is_current: bool,
        scope: Scope,
    ) -> Ending<()> {
        let called = self.cluster.now();
        let node = door.node;
        let mut request = self.read_request(scope);
        request.bound = bound;
        let ending = read_snapshot(&self.cluster, door, request, Pages::AtOneTime).await;
        ending.may_have_happened(&self.counts);
        ending.map(|(rows, at)| {
            let sight = Sight {
                node,
                bound: Some(bound),
                at,
                called,
                is_current,
            };
            self.see(client, sight, self.snapshot(&rows, scope));
        })
    }

    /// Judges what somebody saw, by itself and next to what others saw at that timestamp.
    fn see(&self, client: u64, sight: Sight, snapshot: Snapshot) {
        self.cluster.note("client", client, || {
            format!("{client} {sight} saw {:?}", snapshot.balances)
        });
        if let Some(complaint) = self.wrong_with(&snapshot) {
            self.cluster
                .complain(format!("{complaint}: {sight} saw {snapshot:?}"));
        }
        let mut snapshots = self.snapshots.lock();
        let other = snapshots.iter().find(|(other, seen)| {
            other.at.is_some() && other.at == sight.at && seen.balances != snapshot.balances
        });
        // What a transaction read holds at its timestamp as well, but for its own writes: audits have none.
        if let Some((other, seen)) = other {
            self.cluster.complain(format!(
                "one timestamp, two states: {other} saw {:?}, {sight} saw {:?}",
                seen.balances, snapshot.balances
            ));
        }
        if snapshots.len() >= SNAPSHOTS_MAX {
            snapshots.remove(0);
        }
        snapshots.push((sight, snapshot));
    }

    fn wrong_with(&self, snapshot: &Snapshot) -> Option<String> {
        let balances: Option<Vec<i64>> = snapshot.balances.iter().copied().collect();
        let Some(balances) = balances else {
            return Some("an account is missing".into());
        };
        let total: i64 = balances.iter().sum();
        if total != INITIAL * self.accounts {
            return Some(format!(
                "the accounts hold {total} and not {}",
                INITIAL * self.accounts
            ));
        }
        if balances.iter().any(|balance| *balance < 0) {
            return Some("an account is overdrawn".into());
        }
        let ledger = snapshot.ledger.as_ref()?;
        let mut booked = vec![INITIAL; balances.len()];
        for transfer in ledger.values() {
            booked[transfer.source as usize] -= transfer.amount;
            booked[transfer.target as usize] += transfer.amount;
        }
        (booked != balances).then(|| format!("the ledger makes the balances {booked:?}"))
    }

    /// Every ledger that was seen has what had been acknowledged, as far as its timestamp says, and nothing that was
    /// refused.
    fn judge_ledgers(&self) -> Result<(), String> {
        let transfers = self.transfers.lock();
        for (sight, snapshot) in self.snapshots.lock().iter() {
            let (Some(ledger), Some(seen_at)) = (&snapshot.ledger, sight.at) else {
                continue;
            };
            for (entry, (transfer, fate)) in transfers.iter() {
                let is_there = ledger.contains_key(entry);
                let must_be_there = match fate {
                    Fate::Acknowledged { at, returned } => {
                        let was_before = sight.is_current && *returned < sight.called;
                        let is_ordered = self.is_external || sight.bound.is_some();
                        if was_before && *at > seen_at && is_ordered {
                            return Err(format!(
                                "{sight} lies before {transfer:?} of {at}, which had been acknowledged"
                            ));
                        }
                        *at <= seen_at || was_before
                    }
                    Fate::Refused => false,
                    Fate::Unknown => is_there,
                };
                if is_there != must_be_there {
                    return Err(format!(
                        "entry {entry}, {transfer:?}, {fate:?}: in the ledger is {is_there}, as {sight} saw it"
                    ));
                }
            }
        }
        Ok(())
    }

    async fn insist_on_transfer(&self, node: usize) -> Result<(), String> {
        let transferring = async |door| {
            let mut random = self.cluster.draw_random();
            let options = TransactionOptions {
                patience: Patience { ms: PATIENCE_MS },
                ..TransactionOptions::default()
            };
            self.attempt(door, FINAL_CLIENT, options, &mut random).await
        };
        insist(&self.cluster, node, "a transfer", transferring).await?;
        Ok(())
    }

    /// Through each node, everything under locks.
    async fn insist_on_audit(&self, node: usize) -> Result<(), String> {
        let reading = |door| self.audit(door, FINAL_CLIENT, Scope::Everything);
        insist(&self.cluster, node, "an audit", reading).await
    }

    async fn insist_on_snapshot(&self, node: usize) -> Result<(), String> {
        let looking = async |door: Door| {
            let bound = match self.is_external {
                true => ReadBound::Strong,
                false => ReadBound::At(door.database.now().latest),
            };
            self.look(door, FINAL_CLIENT, bound, true, Scope::Everything)
                .await
        };
        insist(&self.cluster, node, "a snapshot of the bank", looking).await
    }
}
