//! One node by itself.

use crate::cluster::{Cluster, count, create_table, get, put, put_all};
use api::{Atomicity, Error, ReadRequest, Refused, Retry, Selection, WriteRequest};
use catalog::{Partitioning, Protocol};
use node::Health;

const EVENTUAL: [(Protocol, Partitioning); 2] = [
    (Protocol::Eventual, Partitioning::Hash),
    (Protocol::Eventual, Partitioning::Range),
];
const STRONG: [(Protocol, Partitioning); 2] = [
    (Protocol::Strong, Partitioning::Hash),
    (Protocol::Strong, Partitioning::Range),
];

#[tokio::test(start_paused = true)]
async fn eventual_tables_are_made_written_and_read() {
    write_and_read(EVENTUAL).await;
}

#[tokio::test(start_paused = true)]
async fn strong_tables_are_made_written_and_read() {
    write_and_read(STRONG).await;
}

async fn write_and_read(kinds: [(Protocol, Partitioning); 2]) {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let database = cluster.database(1);
    for (number, (protocol, partitioning)) in kinds.into_iter().enumerate() {
        let name = format!("t{number}");
        let table = create_table(database.as_ref(), &name, protocol, partitioning).await;
        put(database.as_ref(), table, "a", "one").await.unwrap();
        assert_eq!(
            get(database.as_ref(), table, "a").await,
            Ok(Some("one".into()))
        );
        put(database.as_ref(), table, "a", "two").await.unwrap();
        assert_eq!(
            get(database.as_ref(), table, "a").await,
            Ok(Some("two".into()))
        );
        assert_eq!(get(database.as_ref(), table, "b").await, Ok(None));
        put_all(database.as_ref(), table, 0..100, "many")
            .await
            .unwrap();
        assert_eq!(count(database.as_ref(), table, 7).await, 101);
        assert_eq!(count(database.as_ref(), table, 1_000).await, 101);
    }
    assert_eq!(cluster.nodes[&1].status().health, Health::Serving);
}

#[tokio::test(start_paused = true)]
async fn eventual_tables_outlive_restarts() {
    restart(EVENTUAL).await;
}

#[tokio::test(start_paused = true)]
async fn strong_tables_outlive_restarts() {
    restart(STRONG).await;
}

async fn restart(kinds: [(Protocol, Partitioning); 2]) {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let mut tables = Vec::new();
    for (number, (protocol, partitioning)) in kinds.into_iter().enumerate() {
        let database = cluster.database(1);
        let name = format!("t{number}");
        let table = create_table(database.as_ref(), &name, protocol, partitioning).await;
        put(database.as_ref(), table, "a", "one").await.unwrap();
        tables.push(table);
    }
    for round in 0..3 {
        let before = cluster.nodes[&1].status();
        if round == 1 {
            cluster.stop(1).await;
        } else {
            cluster.crash(1);
        }
        cluster.start(1).await;
        let after = cluster.nodes[&1].status();
        assert_eq!(after.cluster, before.cluster);
        assert!(after.incarnation > before.incarnation);
        assert_eq!(after.schema, before.schema);
        let database = cluster.database(1);
        for table in &tables {
            let expected = if round == 0 { "one" } else { "again" };
            assert_eq!(
                get(database.as_ref(), *table, "a").await,
                Ok(Some(expected.into()))
            );
            put(database.as_ref(), *table, "a", "again").await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_is_refused() {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let database = cluster.database(1);
    let database = database.as_ref();
    let strong = create_table(database, "s", Protocol::Strong, Partitioning::Hash).await;
    let eventual = create_table(database, "e", Protocol::Eventual, Partitioning::Hash).await;
    let mutations = |table| {
        (0..20)
            .map(|id| crate::cluster::note(database, table, &id.to_string(), "x"))
            .collect::<Vec<_>>()
    };
    let over_both = [mutations(strong), mutations(eventual)].concat();
    assert!(matches!(
        database.write(WriteRequest::new(over_both)).await,
        Err(Error::Refused(Refused::Unsupported(_)))
    ));
    let each = WriteRequest {
        atomicity: Atomicity::Each,
        ..WriteRequest::new([mutations(strong), mutations(eventual)].concat())
    };
    database.write(each).await.unwrap();
    assert_eq!(count(database, strong, 100).await, 20);
    assert_eq!(count(database, eventual, 100).await, 20);
    let mut conditional = mutations(eventual).remove(0);
    conditional.condition = Some(api::Condition::RowMissing);
    assert!(matches!(
        database.write(WriteRequest::new(vec![conditional])).await,
        Err(Error::Refused(Refused::ConditionFailed { mutation: 0, .. }))
    ));
    cluster.stop(1).await;
    assert!(matches!(
        get(database, strong, "1").await,
        Err(Error::Retry(Retry::NotServing(_)))
    ));
}

#[tokio::test(start_paused = true)]
async fn eventual_tables_take_their_replicas_with_them() {
    drop_tables(EVENTUAL).await;
}

#[tokio::test(start_paused = true)]
async fn strong_tables_take_their_replicas_with_them() {
    drop_tables(STRONG).await;
}

async fn drop_tables(kinds: [(Protocol, Partitioning); 2]) {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let database = cluster.database(1);
    let database = database.as_ref();
    let mut tables = Vec::new();
    for (number, (protocol, partitioning)) in kinds.into_iter().enumerate() {
        tables.push(create_table(database, &format!("t{number}"), protocol, partitioning).await);
    }
    for table in tables {
        let change = catalog::Change::DropTable { table };
        database.change_catalog(change).await.unwrap();
        let selection = Selection::Keys(vec![b"a".to_vec()]);
        let read = database.read(ReadRequest::new(table, selection)).await;
        assert!(
            matches!(&read, Err(Error::Refused(Refused::NoTable(_)))),
            "{read:?}"
        );
    }
    let tablets = cluster.nodes[&1].status().tablets;
    assert_eq!(tablets.len(), 1, "{tablets:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_to_a_table_that_is_dropped_meanwhile_ends_soon() {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let database = cluster.database(1);
    let table = create_table(
        database.as_ref(),
        "t",
        Protocol::Strong,
        Partitioning::Range,
    )
    .await;
    let began = tokio::time::Instant::now();
    let mut requests = Vec::new();
    for id in 0..20 {
        let database = cluster.database(1);
        requests.push(tokio::spawn(async move {
            put(database.as_ref(), table, &id.to_string(), "x").await
        }));
    }
    let change = catalog::Change::DropTable { table };
    database.change_catalog(change).await.unwrap();
    for request in requests {
        // Done before, refused after, or in doubt: but not waiting for what is gone.
        let _ = request.await.unwrap();
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_split_is_left_as_it_was() {
    let mut cluster = Cluster::new();
    cluster.start(1).await;
    let database = cluster.database(1);
    let database = database.as_ref();
    for (name, protocol) in [("s", Protocol::Strong), ("e", Protocol::Eventual)] {
        let table = create_table(database, name, protocol, Partitioning::Range).await;
        put_all(database, table, 0..10, "x").await.unwrap();
        let at = crate::cluster::key(database, table, "5");
        let node = &cluster.nodes[&1];
        let split = node.split_tablet(table, at).await;
        let tablets = node.status().tablets;
        let count = tablets
            .iter()
            .filter(|tablet| tablet.table == table)
            .count();
        match split {
            Ok(()) => assert_eq!(count, 2),
            Err(Error::Refused(Refused::Unsupported(_))) => assert_eq!(count, 1),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(count_rows(database, table).await, 10);
    }
}

async fn count_rows(database: &dyn api::Database, table: model::TableId) -> usize {
    count(database, table, 1_000).await
}
