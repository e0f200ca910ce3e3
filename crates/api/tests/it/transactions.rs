//! `Buffered`: reads its own writes, aborts when what it read has changed, leaves nothing behind otherwise.

use crate::Scene;
use api::{
    Assignment, Check, CheckOperator, Condition, Database, Error, KeyRange, Projection,
    ReadRequest, Retry, RowOperation, Selection, Transaction, TransactionOptions,
};
use catalog::{Partitioning, Protocol};
use model::Value;

async fn scene() -> Scene {
    let scene = Scene::new(Partitioning::Range, Protocol::Strong).await;
    scene
        .write(vec![scene.put(1, 1, "one"), scene.put(1, 2, "two")])
        .await
        .unwrap();
    scene
}

async fn begin(scene: &Scene) -> Box<dyn Transaction> {
    scene
        .database
        .begin(TransactionOptions::default())
        .await
        .unwrap()
}

fn one(scene: &Scene, p: i64, c: i64) -> ReadRequest {
    ReadRequest::new(scene.table.id, Selection::Keys(vec![scene.key(p, c)]))
}

#[tokio::test]
async fn reads_its_own_writes_and_nobody_else_does() {
    let scene = scene().await;
    let mut transaction = begin(&scene).await;
    let update = RowOperation::Update {
        assignments: scene.set("changed"),
    };
    let writes = vec![
        scene.mutation(1, 1, update),
        scene.mutation(1, 2, RowOperation::Delete),
        scene.put(1, 3, "three"),
    ];
    transaction.write(writes).await.unwrap();
    let seen = transaction.read(scene.everything()).await.unwrap();
    let texts: Vec<String> = seen.rows.iter().map(|row| scene.text(row)).collect();
    assert_eq!(texts, ["changed", "three"]);
    assert_eq!(scene.texts().await, ["one", "two"]);
    transaction.commit(Vec::new()).await.unwrap();
    assert_eq!(scene.texts().await, ["changed", "three"]);
}

#[tokio::test]
async fn aborts_when_a_row_that_it_read_has_changed() {
    let scene = scene().await;
    let mut transaction = begin(&scene).await;
    transaction.read(one(&scene, 1, 1)).await.unwrap();
    scene
        .write(vec![scene.put(1, 2, "elsewhere")])
        .await
        .unwrap();
    transaction
        .write(vec![scene.put(1, 5, "five")])
        .await
        .unwrap();
    scene.write(vec![scene.put(1, 1, "changed")]).await.unwrap();
    let aborted = transaction.commit(Vec::new()).await;
    assert!(
        matches!(aborted, Err(Error::Retry(Retry::Aborted(_)))),
        "{aborted:?}"
    );
    assert_eq!(scene.texts().await, ["changed", "elsewhere"]);
}

#[tokio::test]
async fn a_row_that_appears_in_a_range_that_was_read_is_a_conflict() {
    let scene = scene().await;
    let mut transaction = begin(&scene).await;
    let range = KeyRange {
        start: scene.key(1, 5),
        end: Some(scene.key(1, 9)),
    };
    let request = ReadRequest::new(scene.table.id, Selection::Ranges(vec![range]));
    assert!(transaction.read(request).await.unwrap().rows.is_empty());
    scene.write(vec![scene.put(1, 7, "phantom")]).await.unwrap();
    let aborted = transaction.commit(vec![scene.put(1, 1, "x")]).await;
    assert!(
        matches!(aborted, Err(Error::Retry(Retry::Aborted(_)))),
        "{aborted:?}"
    );
}

#[tokio::test]
async fn what_lies_behind_a_limit_was_not_read() {
    let scene = scene().await;
    let mut transaction = begin(&scene).await;
    let request = ReadRequest {
        row_limit: Some(1),
        ..scene.everything()
    };
    assert_eq!(transaction.read(request).await.unwrap().rows.len(), 1);
    scene.write(vec![scene.put(1, 2, "behind")]).await.unwrap();
    transaction
        .commit(vec![scene.put(1, 1, "mine")])
        .await
        .unwrap();
    assert_eq!(scene.texts().await, ["mine", "behind"]);
}

#[tokio::test]
async fn a_statement_that_fails_leaves_the_transaction_as_it_was() {
    let scene = scene().await;
    let mut transaction = begin(&scene).await;
    transaction
        .write(vec![scene.put(1, 3, "three")])
        .await
        .unwrap();
    let insert = RowOperation::Insert {
        assignments: scene.set("again"),
    };
    transaction
        .write(vec![scene.put(1, 4, "four"), scene.mutation(1, 1, insert)])
        .await
        .unwrap_err();
    transaction.commit(Vec::new()).await.unwrap();
    assert_eq!(scene.texts().await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_rollback_leaves_nothing() {
    let scene = scene().await;
    let mut transaction = begin(&scene).await;
    transaction
        .write(vec![scene.put(1, 1, "gone")])
        .await
        .unwrap();
    transaction.rollback().await;
    assert_eq!(scene.texts().await, ["one", "two"]);
}

/// One read is enough for a row that is looked at in order to be changed, and the commit still relies on it.
#[tokio::test]
async fn a_row_that_is_read_to_be_written_is_read_once() {
    let scene = scene().await;
    let update = || {
        let assignments = scene.set("changed");
        scene.mutation(1, 1, RowOperation::Update { assignments })
    };
    let mut first = begin(&scene).await;
    let mut request = one(&scene, 1, 1);
    request.projection = Projection::Columns(Vec::new());
    let written = || {
        let assignments = scene.set("changed");
        Projection::Columns(assignments.iter().map(Assignment::column).collect())
    };
    let reading = first.read_to_write(request.clone(), written());
    let seen = reading.await.unwrap();
    assert_eq!(
        scene.text(&seen.rows[0]),
        "one",
        "what is written is read as well"
    );
    let reads = scene.database.reads();
    first.write(vec![update()]).await.unwrap();
    assert_eq!(scene.database.reads(), reads);
    let reading = first.read_to_write(one(&scene, 1, 1), written());
    let seen = reading.await.unwrap();
    assert_eq!(scene.text(&seen.rows[0]), "changed");
    first.commit(Vec::new()).await.unwrap();
    assert_eq!(scene.texts().await, ["changed", "two"]);

    let mut second = begin(&scene).await;
    second.read_to_write(request, written()).await.unwrap();
    scene
        .write(vec![scene.put(1, 1, "by another")])
        .await
        .unwrap();
    second.write(vec![update()]).await.unwrap();
    let aborted = second.commit(Vec::new()).await;
    assert!(
        matches!(aborted, Err(Error::Retry(Retry::Aborted(_)))),
        "{aborted:?}"
    );
    assert_eq!(scene.texts().await, ["by another", "two"]);
}

/// A transaction that has written a column knows nothing of the others, until it looks at them.
#[tokio::test]
async fn what_it_has_written_is_laid_over_what_others_commit_in_other_columns() {
    let scene = scene().await;
    let update = |column, value| {
        let assignments = scene.set_column(column, value);
        scene.mutation(1, 1, RowOperation::Update { assignments })
    };
    let other = scene.table.column_by_name("w").unwrap().id;
    let mut transaction = begin(&scene).await;
    transaction.write(vec![update("v", "mine")]).await.unwrap();
    scene.write(vec![update("w", "theirs")]).await.unwrap();
    for selection in [
        Selection::Keys(vec![scene.key(1, 1)]),
        Selection::Ranges(vec![KeyRange {
            start: scene.key(1, 1),
            end: Some(scene.key(1, 2)),
        }]),
    ] {
        let request = ReadRequest::new(scene.table.id, selection);
        let seen = transaction.read(request).await.unwrap();
        assert_eq!(scene.text(&seen.rows[0]), "mine");
        let theirs = Value::Text("theirs".into());
        assert_eq!(seen.rows[0].row.value(other), Some(&theirs));
    }
    // The second write of a column builds on the first, and one that needs the whole row has it whole.
    let mut conditional = update("w", "mine as well");
    conditional.condition = Some(Condition::Columns(vec![Check {
        column: other,
        operator: CheckOperator::Equal,
        values: vec![Value::Text("theirs".into())],
        part: None,
    }]));
    transaction.write(vec![conditional]).await.unwrap();
    let seen = transaction.read(one(&scene, 1, 1)).await.unwrap();
    assert_eq!(scene.text(&seen.rows[0]), "mine");
    let mine = Value::Text("mine as well".into());
    assert_eq!(seen.rows[0].row.value(other), Some(&mine));
}
