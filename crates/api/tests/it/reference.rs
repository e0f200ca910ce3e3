//! Writes, reads, conditions, history and merges.

use crate::Scene;
use api::{
    Assignment, Condition, Database, Direction, Error, KeyRange, Mutation, ReadBound, ReadRequest,
    Refused, Returning, RowOperation, Selection, WriteRequest,
};
use catalog::{Partitioning, Protocol};
use model::{Timestamp, Value};

#[tokio::test]
async fn insert_meets_a_row_and_update_misses_one() {
    let scene = Scene::new(Partitioning::Range, Protocol::Strong).await;
    let insert = RowOperation::Insert {
        assignments: scene.set("a"),
    };
    let update = RowOperation::Update {
        assignments: scene.set("b"),
    };
    let missing = scene
        .write(vec![scene.mutation(1, 1, update.clone())])
        .await;
    assert_eq!(
        missing,
        Err(Error::Refused(Refused::RowMissing { mutation: 0 }))
    );
    scene
        .write(vec![scene.mutation(1, 1, insert.clone())])
        .await
        .unwrap();
    let exists = scene
        .write(vec![scene.put(2, 2, "x"), scene.mutation(1, 1, insert)])
        .await;
    assert_eq!(
        exists,
        Err(Error::Refused(Refused::RowExists { mutation: 1 }))
    );
    assert_eq!(
        scene.texts().await,
        ["a"],
        "the other half of a refused batch is not there either"
    );
    scene
        .write(vec![scene.mutation(1, 1, update)])
        .await
        .unwrap();
    assert_eq!(scene.texts().await, ["b"]);
}

#[tokio::test]
async fn mutations_of_one_request_see_those_before_them() {
    let scene = Scene::new(Partitioning::Range, Protocol::Strong).await;
    let insert = RowOperation::Insert {
        assignments: scene.set("second"),
    };
    let batch = vec![
        scene.put(1, 1, "first"),
        scene.mutation(1, 1, RowOperation::Delete),
        scene.mutation(1, 1, insert),
    ];
    scene.write(batch).await.unwrap();
    assert_eq!(scene.texts().await, ["second"]);
}

#[tokio::test]
async fn a_condition_that_fails_returns_the_row_that_failed_it() {
    let scene = Scene::new(Partitioning::Hash, Protocol::Strong).await;
    scene.write(vec![scene.put(1, 1, "there")]).await.unwrap();
    let mutation = Mutation {
        condition: Some(Condition::RowMissing),
        returning: Returning::Old,
        ..scene.put(1, 1, "new")
    };
    match scene.write(vec![mutation]).await {
        Err(Error::Refused(Refused::ConditionFailed {
            mutation: 0,
            row: Some(row),
        })) => {
            let column = scene.table.column_by_name("v").unwrap().id;
            assert_eq!(row.value(column), Some(&Value::Text("there".into())));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn old_timestamps_read_old_rows() {
    let scene = Scene::new(Partitioning::Range, Protocol::Strong).await;
    let first = scene
        .write(vec![scene.put(1, 1, "old")])
        .await
        .unwrap()
        .commit_timestamp
        .unwrap();
    let second = scene
        .write(vec![scene.put(1, 1, "new")])
        .await
        .unwrap()
        .commit_timestamp
        .unwrap();
    assert!(second > first);
    for (at, expected) in [
        (first, "old"),
        (second, "new"),
        (second.plus_micros(-1), "old"),
    ] {
        let request = ReadRequest {
            bound: ReadBound::At(at),
            ..scene.everything()
        };
        let response = scene.database.read(request).await.unwrap();
        assert_eq!(scene.text(&response.rows[0]), expected, "at {at}");
    }
    let before = ReadRequest {
        bound: ReadBound::At(first.plus_micros(-1)),
        ..scene.everything()
    };
    assert!(scene.database.read(before).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn pages_join_up_in_both_directions() {
    let scene = Scene::new(Partitioning::Range, Protocol::Strong).await;
    let rows = (0..10)
        .map(|number| scene.put(1, number, &number.to_string()))
        .collect();
    scene.write(rows).await.unwrap();
    for direction in [Direction::Forward, Direction::Backward] {
        let mut found = Vec::new();
        let mut request = ReadRequest {
            row_limit: Some(3),
            direction,
            ..scene.everything()
        };
        loop {
            let response = scene.database.read(request.clone()).await.unwrap();
            assert!(response.rows.len() <= 3);
            found.extend(response.rows.iter().map(|row| scene.text(row)));
            match response.next {
                Some(next) => request.selection = next,
                None => break,
            }
        }
        let mut expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        if direction == Direction::Backward {
            expected.reverse();
        }
        assert_eq!(found, expected, "{direction:?}");
    }
}

#[tokio::test]
async fn eventual_rows_merge_by_timestamp_and_refuse_conditions() {
    let scene = Scene::new(Partitioning::Hash, Protocol::Eventual).await;
    let at = |timestamp: i64, value: &str| WriteRequest {
        timestamp: Some(Timestamp(timestamp)),
        ..WriteRequest::new(vec![scene.put(1, 1, value)])
    };
    scene.database.write(at(20, "newer")).await.unwrap();
    scene.database.write(at(10, "older, later")).await.unwrap();
    assert_eq!(scene.texts().await, ["newer"]);
    let header = scene.table.header_key(&[Value::Int(1)]).unwrap();
    let partition = Mutation::new(scene.table.id, header, RowOperation::Delete);
    let delete = WriteRequest {
        timestamp: Some(Timestamp(15)),
        ..WriteRequest::new(vec![partition.clone()])
    };
    scene.database.write(delete).await.unwrap();
    assert_eq!(scene.texts().await, ["newer"], "the deletion is older");
    let delete = WriteRequest {
        timestamp: Some(Timestamp(20)),
        ..WriteRequest::new(vec![partition])
    };
    scene.database.write(delete).await.unwrap();
    assert!(
        scene.texts().await.is_empty(),
        "a tombstone wins at equal timestamps"
    );
    let condition = Some(Condition::RowMissing);
    let refused = scene
        .write(vec![Mutation {
            condition,
            ..scene.put(1, 1, "x")
        }])
        .await;
    assert!(
        matches!(refused, Err(Error::Refused(Refused::Unsupported(_)))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn range_deletions_stay_inside_their_range() {
    for protocol in [Protocol::Strong, Protocol::Eventual] {
        let scene = Scene::new(Partitioning::Hash, protocol).await;
        let rows = (0..5)
            .map(|number| scene.put(1, number, &number.to_string()))
            .collect();
        scene.write(rows).await.unwrap();
        let range = KeyRange {
            start: scene.key(1, 1),
            end: Some(scene.key(1, 3)),
        };
        let header = scene.table.header_key(&[Value::Int(1)]).unwrap();
        let delete = Mutation::new(scene.table.id, header, RowOperation::DeleteRange { range });
        scene.write(vec![delete]).await.unwrap();
        assert_eq!(scene.texts().await, ["0", "3", "4"], "{protocol:?}");
    }
}

#[tokio::test]
async fn a_row_without_marker_lives_by_its_cells() {
    let scene = Scene::new(Partitioning::Hash, Protocol::Strong).await;
    let merge = |assignments| RowOperation::Merge {
        marker: false,
        assignments,
        ttl_seconds: None,
    };
    scene
        .write(vec![scene.mutation(1, 1, merge(scene.set("cell")))])
        .await
        .unwrap();
    assert_eq!(scene.texts().await, ["cell"]);
    let column = scene.table.column_by_name("v").unwrap().id;
    let remove = vec![Assignment::Remove { column, path: None }];
    scene
        .write(vec![scene.mutation(1, 1, merge(remove))])
        .await
        .unwrap();
    assert!(scene.texts().await.is_empty());
}

#[tokio::test]
async fn keys_are_answered_in_the_order_asked() {
    let scene = Scene::new(Partitioning::Hash, Protocol::Strong).await;
    scene
        .write(vec![scene.put(1, 1, "a"), scene.put(2, 2, "b")])
        .await
        .unwrap();
    let keys = vec![scene.key(2, 2), scene.key(9, 9), scene.key(1, 1)];
    let request = ReadRequest::new(scene.table.id, Selection::Keys(keys));
    let response = scene.database.read(request).await.unwrap();
    let texts: Vec<String> = response.rows.iter().map(|row| scene.text(row)).collect();
    assert_eq!(texts, ["b", "a"]);
}
