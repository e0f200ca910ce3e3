//! Transactions whose node dies in the middle: what the tablets say of them afterwards is what is so.

use crate::cluster::{Cluster, create_table, get, note};
use api::{Concurrency, Database, Error, Fate, TransactionId, TransactionOptions};
use catalog::{Partitioning, Protocol};
use model::{TableId, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

/// Rows of one transaction, by key, of two tables.
#[derive(Clone)]
struct Rows {
    tables: [TableId; 2],
    ids: Vec<String>,
}

impl Rows {
    /// Odd ones stay within one table and one key.
    fn of(tables: [TableId; 2], number: u64) -> Rows {
        let count = if number.is_multiple_of(2) { 6 } else { 1 };
        Rows {
            tables: match count {
                1 => [tables[0]; 2],
                _ => tables,
            },
            ids: (0..count).map(|row| format!("{number}-{row}")).collect(),
        }
    }

    async fn write(
        &self,
        database: &dyn Database,
        concurrency: Concurrency,
        begun: impl FnOnce(TransactionId),
    ) -> Result<Timestamp, Error> {
        let options = TransactionOptions {
            concurrency,
            is_kept: true,
            ..Default::default()
        };
        let mut transaction = database.begin(options).await?;
        begun(transaction.id());
        let mutations = self.places();
        let mutations = mutations.map(|(table, id)| note(database, table, id, "written"));
        transaction.write(mutations.collect()).await?;
        Ok(transaction.commit(Vec::new()).await?.timestamp)
    }

    fn places(&self) -> impl Iterator<Item = (TableId, &str)> {
        let tables = self.tables.iter().cycle().copied();
        tables.zip(self.ids.iter().map(String::as_str))
    }

    /// Whether they are there, all or none.
    async fn are_there(&self, database: &dyn Database) -> bool {
        let mut found = 0;
        for (table, id) in self.places() {
            let row = get(database, table, id).await.unwrap();
            found += usize::from(row.is_some());
        }
        assert!(found == 0 || found == self.ids.len(), "{:?}", self.ids);
        found > 0
    }
}

async fn tables(database: &dyn Database) -> [TableId; 2] {
    let (protocol, partitioning) = (Protocol::Strong, Partitioning::Hash);
    let one = create_table(database, "one", protocol, partitioning).await;
    [
        one,
        create_table(database, "two", protocol, partitioning).await,
    ]
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_found_at_any_node_and_one_that_never_came_is_ruled_out_with_the_life_of_its_node()
 {
    let mut cluster = Cluster::of_three().await;
    let database = cluster.database(1);
    let tables = tables(database.as_ref()).await;
    for (number, concurrency) in (0..).zip([
        Concurrency::Locks,
        Concurrency::Locks,
        Concurrency::Validation,
        Concurrency::Validation,
    ]) {
        let mut id = None;
        let rows = Rows::of(tables, number);
        let written = rows.write(database.as_ref(), concurrency, |it| id = Some(it));
        let committed = Fate::Committed(written.await.unwrap());
        for node in 1..=3 {
            let fate = cluster.database(node).fate(id.unwrap(), "n").await;
            assert_eq!(fate, committed, "transaction {number}");
        }
    }
    let options = TransactionOptions {
        is_kept: true,
        ..Default::default()
    };
    let open = database.begin(options).await.unwrap();
    let id = open.id();
    cluster.crash(1);
    let fate = cluster.database(2).fate(id, "n").await;
    assert!(matches!(fate, Fate::Unknown(_)), "{fate:?}");
    cluster.start(1).await;
    cluster.settle(3).await;
    for node in 1..=3 {
        assert_eq!(cluster.database(node).fate(id, "n").await, Fate::Aborted);
    }
    let fate = cluster.database(2).fate(id, "nowhere").await;
    assert!(matches!(fate, Fate::Unknown(_)), "{fate:?}");
}

/// What has been begun, by transaction, and what its client has heard.
type Begun = Arc<Mutex<BTreeMap<TransactionId, (Rows, Option<Timestamp>)>>>;

#[tokio::test(start_paused = true)]
async fn whatever_was_under_way_when_a_node_died_is_told_as_it_is() {
    let mut cluster = Cluster::of_three().await;
    let tables = tables(cluster.database(1).as_ref()).await;
    let (mut committed, mut aborted) = (0, 0);
    for round in 0..15u64 {
        let victim = 1 + (round % 3) as u8;
        let survivor = 1 + ((round + 1) % 3) as u8;
        let begun = Begun::default();
        let mut writing = Vec::new();
        for writer in 0..8 {
            let (database, begun) = (cluster.database(victim), Arc::clone(&begun));
            writing.push(tokio::spawn(async move {
                for step in 0..40 {
                    let rows = Rows::of(tables, round * 1_000 + writer * 100 + step);
                    let concurrency = match step % 3 {
                        0 => Concurrency::Validation,
                        _ => Concurrency::Locks,
                    };
                    let mut id = None;
                    let begins = |it| {
                        id = Some(it);
                        begun.lock().unwrap().insert(it, (rows.clone(), None));
                    };
                    let written = rows.write(database.as_ref(), concurrency, begins).await;
                    if let (Ok(at), Some(id)) = (written, id) {
                        let mut begun = begun.lock().unwrap();
                        begun.get_mut(&id).unwrap().1 = Some(at);
                    }
                }
            }));
        }
        sleep(Duration::from_micros(4_000 + round * 1_300)).await;
        cluster.crash(victim);
        writing.iter().for_each(|writer| writer.abort());
        let begun = std::mem::take(&mut *begun.lock().unwrap());
        let mut told = Vec::new();
        for (id, (rows, heard)) in begun {
            let database = cluster.database(survivor);
            let early = database.fate(id, "n").await;
            assert_ne!(early, Fate::Aborted, "its node may yet be alive");
            told.push((id, rows, heard, early));
        }
        cluster.start(victim).await;
        cluster.settle(3).await;
        for (id, rows, heard, early) in told {
            let database = cluster.database(survivor);
            let fate = database.fate(id, "n").await;
            let is_there = rows.are_there(database.as_ref()).await;
            match &fate {
                Fate::Committed(at) => {
                    assert!(is_there && heard.is_none_or(|heard| heard == *at));
                    committed += u32::from(heard.is_none());
                }
                Fate::Aborted => {
                    assert!(!is_there && heard.is_none());
                    aborted += 1;
                }
                Fate::Unknown(why) => panic!("{id:?}: {why}"),
            }
            if let Fate::Committed(_) = early {
                assert_eq!(early, fate);
            }
        }
    }
    assert!(committed > 0 && aborted > 0, "{committed}, {aborted}");
}
