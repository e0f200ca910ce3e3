//! Global tables where there is but one region: what is refused, and seals that somebody has left behind.

use super::{Client, Served, serve_over};
use api::Database;
use api::reference::Reference;
use catalog::Change;
use dynamo::Credentials;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const CREATE: &str = r#"{"TableName":"tiles","BillingMode":"PAY_PER_REQUEST",
    "AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}],
    "KeySchema":[{"AttributeName":"id","KeyType":"HASH"}]}"#;
const PUT: &str = r#"{"TableName":"tiles","Item":{"id":{"S":"1"}}}"#;

async fn scene() -> (Arc<Reference>, Served, Client) {
    let database = Reference::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9042);
    let served = serve_over(database.clone(), Credentials::default()).await;
    let mut client = Client::connect(served.address).await;
    assert_eq!(client.call("CreateTable", CREATE).await.status, 200);
    (database, served, client)
}

async fn seal(database: &Reference, seconds_ago: i64) {
    let catalog = database.catalog();
    let table = catalog.table_by_name("dynamodb", "tiles").unwrap();
    let since = database.now().latest.plus_micros(-seconds_ago * 1_000_000);
    let change = Change::SealTable {
        table: table.id,
        version: table.version,
        at_micros: Some(since.0),
    };
    database.change_catalog(change).await.unwrap();
}

#[tokio::test]
async fn a_region_that_there_is_not_is_refused() {
    let (_, _served, mut client) = scene().await;
    let body = r#"{"TableName":"tiles","ReplicaUpdates":[{"Create":{"RegionName":"eu-west-1"}}]}"#;
    let answer = client.call("UpdateTable", body).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().contains("the cluster's data centres are dc1"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_sealed_table_takes_no_writes_until_the_seal_is_old() {
    let (database, _served, mut client) = scene().await;
    seal(&database, 0).await;
    let answer = client.call("PutItem", PUT).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    let described = client
        .call("DescribeTable", r#"{"TableName":"tiles"}"#)
        .await;
    assert!(described.text().contains(r#""TableStatus":"UPDATING""#));
    let body = r#"{"TableName":"tiles","ReplicaUpdates":[{"Create":{"RegionName":"eu-west-1"}}]}"#;
    let answer = client.call("UpdateTable", body).await;
    assert!(answer.text().contains("ResourceInUseException"));
    seal(&database, 31).await;
    let answer = client.call("PutItem", PUT).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let catalog = database.catalog();
    assert!(
        !catalog
            .table_by_name("dynamodb", "tiles")
            .unwrap()
            .is_sealed()
    );
}
