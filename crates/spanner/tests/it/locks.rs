//! FOR UPDATE and lock hints: who may use them.

use super::{by_id, pb, serve};
use pb::read_request::LockHint;
use tonic::Code;

const FOR_UPDATE: &str = "SELECT v FROM t WHERE k = 1 FOR UPDATE";

#[tokio::test]
async fn only_a_read_write_transaction_locks_what_it_reads() {
    let mut served = serve().await;
    served.insert(vec![(1, "a".into())]).await;
    let begin = pb::BeginTransactionRequest {
        session: served.session.clone(),
        options: Some(pb::TransactionOptions {
            mode: Some(pb::transaction_options::Mode::ReadOnly(Default::default())),
            ..Default::default()
        }),
        ..Default::default()
    };
    let read_only = served.client.begin_transaction(begin).await.unwrap();
    let read_only = by_id(&read_only.into_inner().id);
    let id = served.begin().await;
    let read = |transaction, hint: LockHint| pb::ReadRequest {
        session: served.session.clone(),
        table: "t".into(),
        columns: vec!["v".into()],
        key_set: Some(pb::KeySet {
            all: true,
            ..Default::default()
        }),
        lock_hint: hint as i32,
        transaction,
        ..Default::default()
    };
    let hints = [LockHint::Shared, LockHint::Exclusive];
    let refused: Vec<_> = [None, read_only.clone()]
        .into_iter()
        .flat_map(|transaction| hints.map(|hint| read(transaction.clone(), hint)))
        .collect();
    let taken: Vec<_> = hints.map(|hint| read(by_id(&id), hint)).into();
    for request in refused {
        let status = served.client.read(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    for request in taken {
        let rows = served.client.read(request).await.unwrap().into_inner().rows;
        assert_eq!(rows.len(), 1);
    }
    for transaction in [None, read_only.clone()] {
        let query = served.sql(FOR_UPDATE, transaction);
        let status = served.client.execute_sql(query).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(
            status
                .message()
                .contains("FOR UPDATE is not supported in this transaction type")
        );
    }
    let parts = pb::PartitionQueryRequest {
        session: served.session.clone(),
        sql: FOR_UPDATE.into(),
        transaction: read_only,
        ..Default::default()
    };
    let status = served.client.partition_query(parts).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let query = served.sql(FOR_UPDATE, by_id(&id));
    let rows = served.client.execute_sql(query).await.unwrap();
    assert_eq!(rows.into_inner().rows.len(), 1);
    served.commit(&id).await.unwrap();
}
