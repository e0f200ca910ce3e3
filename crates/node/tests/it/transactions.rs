//! Transactions over several tablets: all of one or nothing of it, whoever is in the way and whoever dies.

use crate::cluster::{Cluster, create_table, get, key, note, put};
use api::{
    Atomicity, Concurrency, Condition, Database, Error, KeyRange, Mutation, Outcome, ReadBound,
    ReadRequest, Refused, Retry, RowOperation, Selection, Transaction, TransactionOptions,
    WriteRequest,
};
use catalog::{Change, Partitioning, Protocol};
use model::{TableId, Value};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const ACCOUNTS: u32 = 12;
const START: i64 = 100;

async fn accounts(database: &dyn Database) -> TableId {
    let table = create_table(database, "accounts", Protocol::Strong, Partitioning::Hash).await;
    for account in 0..ACCOUNTS {
        let balance = START.to_string();
        put(database, table, &account.to_string(), &balance)
            .await
            .unwrap();
    }
    table
}

async fn read_in(
    transaction: &mut dyn Transaction,
    database: &dyn Database,
    table: TableId,
    id: &str,
) -> Result<i64, Error> {
    let selection = Selection::Keys(vec![key(database, table, id)]);
    let response = transaction.read(ReadRequest::new(table, selection)).await?;
    Ok(balance_of(database, table, &response.rows[0].row))
}

fn balance_of(database: &dyn Database, table: TableId, row: &model::Row) -> i64 {
    let catalog = database.catalog();
    let table = catalog.table(table).unwrap();
    match row.value(table.column_by_name("note").unwrap().id) {
        Some(Value::Text(text)) => text.parse().unwrap(),
        other => panic!("no balance: {other:?}"),
    }
}

async fn transfer(
    database: &dyn Database,
    table: TableId,
    from: &str,
    to: &str,
    amount: i64,
) -> Result<(), Error> {
    let mut transaction = database.begin(TransactionOptions::default()).await?;
    let first = read_in(transaction.as_mut(), database, table, from).await?;
    let second = read_in(transaction.as_mut(), database, table, to).await?;
    transaction
        .write(vec![note(
            database,
            table,
            from,
            &(first - amount).to_string(),
        )])
        .await?;
    transaction
        .write(vec![note(
            database,
            table,
            to,
            &(second + amount).to_string(),
        )])
        .await?;
    transaction.commit(Vec::new()).await.map(|_| ())
}

async fn total(database: &dyn Database, table: TableId, bound: ReadBound) -> Result<i64, Error> {
    let mut selection = Selection::Ranges(vec![KeyRange::all()]);
    let mut sum = 0;
    loop {
        let request = ReadRequest {
            bound,
            ..ReadRequest::new(table, selection)
        };
        let response = database.read(request).await?;
        for found in &response.rows {
            sum += balance_of(database, table, &found.row);
        }
        match response.next {
            Some(next) => selection = next,
            None => return Ok(sum),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_over_several_tablets_is_all_or_nothing() {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let database = cluster.database(1);
    let table = accounts(database.as_ref()).await;
    let all = |text: &str| -> Vec<Mutation> {
        (0..ACCOUNTS)
            .map(|id| note(database.as_ref(), table, &id.to_string(), text))
            .collect()
    };
    database.write(WriteRequest::new(all("1"))).await.unwrap();
    assert_eq!(
        get(database.as_ref(), table, "7").await.unwrap().as_deref(),
        Some("1")
    );
    let mut conditional = all("2");
    conditional[5].condition = Some(Condition::RowMissing);
    let request = WriteRequest {
        atomicity: Atomicity::All,
        ..WriteRequest::new(conditional)
    };
    let refused = database.write(request).await;
    assert!(
        matches!(
            refused,
            Err(Error::Refused(Refused::ConditionFailed { mutation: 5, .. }))
        ),
        "{refused:?}"
    );
    for id in 0..ACCOUNTS {
        let found = get(database.as_ref(), table, &id.to_string())
            .await
            .unwrap();
        assert_eq!(found.as_deref(), Some("1"));
    }
    // Nothing is left that is in anybody's way.
    database.write(WriteRequest::new(all("3"))).await.unwrap();
    assert_eq!(
        get(database.as_ref(), table, "0").await.unwrap().as_deref(),
        Some("3")
    );
}

#[tokio::test(start_paused = true)]
async fn a_commit_has_one_timestamp_in_all_its_tablets() {
    let cluster = Cluster::of_three().await;
    let database = cluster.database(2);
    let table = accounts(database.as_ref()).await;
    let ids = ["0", "1", "2", "3", "4"];
    let mutations = ids.map(|id| note(database.as_ref(), table, id, "7"));
    let response = database
        .write(WriteRequest::new(mutations.to_vec()))
        .await
        .unwrap();
    let committed = response.commit_timestamp.unwrap();
    for id in ids {
        let request = |bound| ReadRequest {
            bound,
            ..ReadRequest::new(
                table,
                Selection::Keys(vec![key(database.as_ref(), table, id)]),
            )
        };
        let after = database
            .read(request(ReadBound::At(committed)))
            .await
            .unwrap();
        let row = &after.rows[0].row;
        assert_eq!(balance_of(database.as_ref(), table, row), 7);
        assert!(row.cells.iter().all(|cell| cell.timestamp == committed));
        let before = request(ReadBound::At(committed.plus_micros(-1)));
        let before = database.read(before).await.unwrap();
        assert_eq!(
            balance_of(database.as_ref(), table, &before.rows[0].row),
            START
        );
    }
}

#[tokio::test(start_paused = true)]
async fn transfers_at_once_keep_the_total() {
    let cluster = Cluster::of_three().await;
    let database = cluster.database(1);
    let table = accounts(database.as_ref()).await;
    let mut tasks = Vec::new();
    for client in 0..9u32 {
        let database = cluster.database(1 + (client % 3) as u8);
        tasks.push(tokio::spawn(async move {
            let mut committed = 0;
            for round in 0..10u32 {
                let from = (client * 7 + round * 5) % ACCOUNTS;
                let to = (from + 1 + (client + round) % (ACCOUNTS - 1)) % ACCOUNTS;
                let (from, to) = (from.to_string(), to.to_string());
                match transfer(database.as_ref(), table, &from, &to, 1).await {
                    Ok(()) => committed += 1,
                    Err(Error::Retry(Retry::Aborted(_))) => {}
                    Err(error) => panic!("{error:?}"),
                }
                let sum = total(
                    database.as_ref(),
                    table,
                    ReadBound::ExactStaleness { micros: 0 },
                );
                assert_eq!(sum.await.unwrap(), START * i64::from(ACCOUNTS));
            }
            committed
        }));
    }
    let mut committed = 0;
    for task in tasks {
        committed += task.await.unwrap();
    }
    assert!(committed > 20, "only {committed} of 90 were committed");
    assert_eq!(
        total(database.as_ref(), table, ReadBound::Strong)
            .await
            .unwrap(),
        START * i64::from(ACCOUNTS)
    );
}

#[tokio::test(start_paused = true)]
async fn the_older_of_two_wins_and_the_younger_hears_of_it() {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let database = cluster.database(1);
    let table = accounts(database.as_ref()).await;
    let mut older = database.begin(TransactionOptions::default()).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    let mut younger = database.begin(TransactionOptions::default()).await.unwrap();
    read_in(older.as_mut(), database.as_ref(), table, "1")
        .await
        .unwrap();
    read_in(younger.as_mut(), database.as_ref(), table, "1")
        .await
        .unwrap();
    read_in(younger.as_mut(), database.as_ref(), table, "2")
        .await
        .unwrap();
    let both = |text: &str| {
        vec![
            note(database.as_ref(), table, "1", text),
            note(database.as_ref(), table, "2", text),
        ]
    };
    older.commit(both("5")).await.unwrap();
    let lost = younger.commit(both("6")).await;
    assert!(
        matches!(lost, Err(Error::Retry(Retry::Aborted(_)))),
        "{lost:?}"
    );
    assert_eq!(
        get(database.as_ref(), table, "1").await.unwrap().as_deref(),
        Some("5")
    );
}

/// One that takes no locks is its door's alone: the node neither counts it nor ends it.
#[tokio::test(start_paused = true)]
async fn what_locks_nothing_is_not_open_at_the_node() {
    let mut cluster = Cluster::new();
    let node = cluster.start(1).await;
    let database = cluster.database(1);
    let table = accounts(database.as_ref()).await;
    let open = || -> usize {
        let mut registry = Registry::default();
        node.metrics(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let lines = text.lines();
        let found = lines.filter_map(|line| line.strip_prefix("node_transactions_open "));
        found.map(|count| count.parse::<usize>().unwrap()).sum()
    };
    let optimistic = TransactionOptions {
        concurrency: Concurrency::Validation,
        ..Default::default()
    };
    let locking = database.begin(TransactionOptions::default()).await.unwrap();
    assert_eq!(open(), 1);
    let mut reader = database.begin(optimistic).await.unwrap();
    read_in(reader.as_mut(), database.as_ref(), table, "1")
        .await
        .unwrap();
    assert_eq!(open(), 1);
    locking.rollback().await;
    assert_eq!(open(), 0);
    sleep(Duration::from_secs(15)).await;
    reader
        .commit(vec![note(database.as_ref(), table, "2", "7")])
        .await
        .unwrap();
    assert_eq!(
        get(database.as_ref(), table, "2").await.unwrap().as_deref(),
        Some("7")
    );
}

#[tokio::test(start_paused = true)]
async fn the_younger_waits_for_the_older() {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let database = cluster.database(1);
    let table = accounts(database.as_ref()).await;
    let mut older = database.begin(TransactionOptions::default()).await.unwrap();
    older
        .write(vec![note(database.as_ref(), table, "1", "5")])
        .await
        .unwrap();
    let there = Arc::clone(&database);
    let waiting = tokio::spawn(async move { put(there.as_ref(), table, "1", "6").await });
    sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished());
    older.commit(Vec::new()).await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(
        get(database.as_ref(), table, "1").await.unwrap().as_deref(),
        Some("6")
    );
}

#[tokio::test(start_paused = true)]
async fn a_range_that_was_read_takes_no_new_rows_and_one_that_is_idle_gives_way() {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let database = cluster.database(1);
    let table = accounts(database.as_ref()).await;
    let mut reader = database.begin(TransactionOptions::default()).await.unwrap();
    let mut selection = Selection::Ranges(vec![KeyRange::all()]);
    loop {
        let response = reader
            .read(ReadRequest::new(table, selection))
            .await
            .unwrap();
        match response.next {
            Some(next) => selection = next,
            None => break,
        }
    }
    let there = Arc::clone(&database);
    let phantom = tokio::spawn(async move { put(there.as_ref(), table, "new", "1").await });
    sleep(Duration::from_secs(1)).await;
    assert!(!phantom.is_finished());
    // The client of the reader is silent for good: after ten seconds it is over.
    let outcome = phantom.await.unwrap();
    let is_waiting_over = matches!(&outcome, Err(error) if error.outcome() == Outcome::NotApplied);
    assert!(outcome.is_ok() || is_waiting_over, "{outcome:?}");
    sleep(Duration::from_secs(4)).await;
    put(database.as_ref(), table, "new", "2").await.unwrap();
    let late = reader
        .commit(vec![note(database.as_ref(), table, "1", "9")])
        .await;
    assert!(
        matches!(late, Err(Error::Retry(Retry::Aborted(_)))),
        "{late:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_transaction_leaves_nothing_locked() {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let database = cluster.database(1);
    let table = accounts(database.as_ref()).await;
    let mut transaction = database.begin(TransactionOptions::default()).await.unwrap();
    transaction
        .write(vec![note(database.as_ref(), table, "1", "5")])
        .await
        .unwrap();
    drop(transaction);
    sleep(Duration::from_millis(10)).await;
    put(database.as_ref(), table, "1", "6").await.unwrap();
}

/// The node that drives commits dies again and again, and so do leaseholders: whatever was prepared ends by itself,
/// one way, everywhere.
#[tokio::test(start_paused = true)]
async fn crashes_leave_nothing_half_done() {
    let mut cluster = Cluster::of_three().await;
    let database = cluster.database(1);
    let table = accounts(database.as_ref()).await;
    for round in 0..12u64 {
        let victim = 1 + (round % 3) as u8;
        let survivor = 1 + ((round + 1) % 3) as u8;
        let database = cluster.database(victim);
        let writing = tokio::spawn(async move {
            for step in 0..40u32 {
                let (from, to) = (step % ACCOUNTS, (step * 5 + 1) % ACCOUNTS);
                if from != to {
                    let (from, to) = (from.to_string(), to.to_string());
                    let _ = transfer(database.as_ref(), table, &from, &to, 1).await;
                }
            }
        });
        sleep(Duration::from_micros(3_000 + round * 1_700)).await;
        cluster.crash(victim);
        writing.abort();
        let database = cluster.database(survivor);
        let request = (0..ACCOUNTS).map(|id| {
            let mut check = note(database.as_ref(), table, &id.to_string(), "");
            check.operation = RowOperation::Check;
            check.condition = Some(Condition::RowExists);
            check
        });
        // Takes every key, so everything in the way must have ended.
        let mut request = WriteRequest::new(request.collect());
        request.patience.ms = 30_000;
        database.write(request).await.unwrap();
        let sum = total(database.as_ref(), table, ReadBound::Strong)
            .await
            .unwrap();
        assert_eq!(sum, START * i64::from(ACCOUNTS), "in round {round}");
        cluster.start(victim).await;
    }
}

/// How long they stay is shown where that can be held up: `a_tablet_is_done_with_when_all_know_what_it_has_decided`.
#[tokio::test(start_paused = true)]
async fn the_tablets_of_a_dropped_table_go_and_what_was_written_with_them_stays() {
    let mut cluster = Cluster::of_three().await;
    let database = cluster.database(1);
    let (protocol, partitioning) = (Protocol::Strong, Partitioning::Hash);
    let kept = create_table(database.as_ref(), "kept", protocol, partitioning).await;
    // Its leaders come to be spread over the nodes.
    sleep(Duration::from_secs(30)).await;
    for round in 0..12u32 {
        let name = format!("dropped {round}");
        let dropped = create_table(database.as_ref(), &name, protocol, partitioning).await;
        let ids: Vec<String> = (0..24).map(|id| format!("{round} {id}")).collect();
        // The first key's tablet decides.
        let keys = [dropped, kept].into_iter();
        let keys = keys.flat_map(|table| ids.iter().map(move |id| (table, id)));
        let mutations = keys.map(|(table, id)| note(database.as_ref(), table, id, "there"));
        let request = WriteRequest {
            atomicity: Atomicity::All,
            ..WriteRequest::new(mutations.collect())
        };
        database.write(request).await.unwrap();
        // The others are being told.
        sleep(Duration::from_micros(100) * round).await;
        let victim = 2 + (round % 2) as u8;
        cluster.crash(victim);
        let change = Change::DropTable { table: dropped };
        database.change_catalog(change).await.unwrap();
        sleep(Duration::from_secs(20)).await;
        for id in &ids {
            let found = get(database.as_ref(), kept, id).await.unwrap();
            assert_eq!(found.as_deref(), Some("there"), "{id}");
        }
        cluster.start(victim).await;
        sleep(Duration::from_secs(10)).await;
        assert_eq!(cluster.nodes[&1].replicas(), 8);
    }
}
