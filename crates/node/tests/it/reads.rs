//! Reads that go to several tablets: order, limits, and where to go on.

use crate::cluster::{Cluster, create_table, key, note, put_all};
use api::{
    Atomicity, Direction, KeyRange, ReadRequest, ReadRow, RowOperation, Selection, WriteRequest,
};
use catalog::{Partitioning, Protocol};
use model::TableId;
use std::sync::Arc;

async fn table_of_forty(protocol: Protocol) -> (Cluster, Arc<dyn api::Database>, TableId) {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let database = cluster.database(1);
    let table = create_table(database.as_ref(), "t", protocol, Partitioning::Hash).await;
    put_all(database.as_ref(), table, 0..40, "x").await.unwrap();
    (cluster, database, table)
}

/// All pages of a request, one after another.
async fn pages(database: &dyn api::Database, mut request: ReadRequest) -> Vec<Vec<ReadRow>> {
    let mut pages = Vec::new();
    loop {
        let response = database.read(request.clone()).await.unwrap();
        pages.push(response.rows);
        assert!(pages.len() < 200, "the pages have no end");
        match response.next {
            Some(next) => request.selection = next,
            None => return pages,
        }
    }
}

fn keys_of(pages: &[Vec<ReadRow>]) -> Vec<Vec<u8>> {
    pages.iter().flatten().map(|row| row.key.clone()).collect()
}

async fn ranges_in_order(protocol: Protocol) {
    let (_cluster, database, table) = table_of_forty(protocol).await;
    let database = database.as_ref();
    let mut expected: Vec<Vec<u8>> = (0..40)
        .map(|id| key(database, table, &id.to_string()))
        .collect();
    expected.sort();
    for row_limit in [1, 3, 39, 40, 41] {
        let request = |direction| ReadRequest {
            direction,
            row_limit: Some(row_limit),
            ..ReadRequest::new(table, Selection::Ranges(vec![KeyRange::all()]))
        };
        let forward = pages(database, request(Direction::Forward)).await;
        assert!(forward.iter().all(|page| page.len() <= row_limit as usize));
        assert_eq!(keys_of(&forward), expected);
        let mut backward = keys_of(&pages(database, request(Direction::Backward)).await);
        backward.reverse();
        assert_eq!(backward, expected);
    }
    // By size: a page holds at least one row.
    let request = ReadRequest {
        size_bytes_max: 1,
        ..ReadRequest::new(table, Selection::Ranges(vec![KeyRange::all()]))
    };
    let single = pages(database, request).await;
    assert!(single.len() > 1);
    assert_eq!(keys_of(&single), expected);
    // Several ranges, in their order.
    let middle = expected[20].clone();
    let halves = vec![
        KeyRange {
            start: middle.clone(),
            end: None,
        },
        KeyRange {
            start: Vec::new(),
            end: Some(middle),
        },
    ];
    let request = ReadRequest {
        row_limit: Some(7),
        ..ReadRequest::new(table, Selection::Ranges(halves))
    };
    let turned = keys_of(&pages(database, request).await);
    assert_eq!(turned, [&expected[20..], &expected[..20]].concat());
}

#[tokio::test(start_paused = true)]
async fn eventual_ranges_come_in_order() {
    ranges_in_order(Protocol::Eventual).await;
}

#[tokio::test(start_paused = true)]
async fn strong_ranges_come_in_order() {
    ranges_in_order(Protocol::Strong).await;
}

async fn keys_in_order(protocol: Protocol) {
    let (_cluster, database, table) = table_of_forty(protocol).await;
    let database = database.as_ref();
    // Every third is missing.
    let keys: Vec<Vec<u8>> = (0..60)
        .rev()
        .map(|id| key(database, table, &id.to_string()))
        .collect();
    let expected = &keys[20..];
    for row_limit in [1, 7, 40, 100] {
        let request = ReadRequest {
            row_limit: Some(row_limit),
            ..ReadRequest::new(table, Selection::Keys(keys.clone()))
        };
        let found = pages(database, request).await;
        assert!(found.iter().all(|page| page.len() <= row_limit as usize));
        assert_eq!(keys_of(&found), expected);
    }
    let request = ReadRequest {
        size_bytes_max: 60,
        ..ReadRequest::new(table, Selection::Keys(keys.clone()))
    };
    assert_eq!(keys_of(&pages(database, request).await), expected);
    let none = ReadRequest::new(table, Selection::Keys(Vec::new()));
    assert_eq!(keys_of(&pages(database, none).await), Vec::<Vec<u8>>::new());
}

#[tokio::test(start_paused = true)]
async fn eventual_keys_come_in_order() {
    keys_in_order(Protocol::Eventual).await;
}

#[tokio::test(start_paused = true)]
async fn strong_keys_come_in_order() {
    keys_in_order(Protocol::Strong).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_of_many_tablets_says_which_mutation_failed() {
    let (_cluster, database, table) = table_of_forty(Protocol::Strong).await;
    let database = database.as_ref();
    // The last one is there already.
    let mutations = (50..60).chain([39]).map(|id| {
        let mut mutation = note(database, table, &id.to_string(), "new");
        if let RowOperation::Merge { assignments, .. } = mutation.operation {
            mutation.operation = RowOperation::Insert { assignments };
        }
        mutation
    });
    let request = WriteRequest {
        atomicity: Atomicity::Each,
        ..WriteRequest::new(mutations.collect())
    };
    assert_eq!(
        database.write(request).await,
        Err(api::Error::Refused(api::Refused::RowExists {
            mutation: 10
        }))
    );
    // The others have been applied.
    let count = crate::cluster::count(database, table, 1_000).await;
    assert_eq!(count, 50);
}
