//! Stories told by requests and answers.

use super::{Client, serve};
use dynamo::Credentials;
use std::collections::BTreeMap;

/// Operation, body, and the answer as it must come back.
const STORY: &[(&str, &str, &str)] = &[
    (
        "GetItem",
        r##"{"TableName":"shop.orders","Key":{"id":{"S":"1"}}}"##,
        r##"400 {"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"Requested resource not found"}"##,
    ),
    (
        "PutItem",
        r##"{"TableName":"shop.orders","Item":{"id":{"S":"1"},"line":{"N":"1"},"what":{"S":"tiles"},"count":{"N":"3"}}}"##,
        "200 {}",
    ),
    (
        "PutItem",
        r##"{"TableName":"shop.orders","Item":{"id":{"S":"1"},"line":{"N":"2.0"},"tags":{"SS":["b","a"]}},
            "ConditionExpression":"attribute_not_exists(id)","ReturnConsumedCapacity":"TOTAL"}"##,
        r##"200 {"ConsumedCapacity":{"CapacityUnits":1,"TableName":"shop.orders"}}"##,
    ),
    (
        "UpdateItem",
        r##"{"TableName":"shop.orders","Key":{"id":{"S":"1"},"line":{"N":"1"}},
            "UpdateExpression":"SET #c = #c - :one, at.first = :one","ExpressionAttributeNames":{"#c":"count"},
            "ExpressionAttributeValues":{":one":{"N":"1"}}}"##,
        r##"400 {"__type":"com.amazon.coral.validate#ValidationException","message":"Invalid UpdateExpression: Attribute name is a reserved keyword; reserved keyword: at"}"##,
    ),
    (
        "UpdateItem",
        r##"{"TableName":"shop.orders","Key":{"id":{"S":"1"},"line":{"N":"1"}},
            "UpdateExpression":"SET #c = #c - :one","ExpressionAttributeNames":{"#c":"count"},
            "ExpressionAttributeValues":{":one":{"N":"1"}},"ReturnValues":"UPDATED_NEW"}"##,
        r##"200 {"Attributes":{"count":{"N":"2"}}}"##,
    ),
    (
        "DeleteItem",
        r##"{"TableName":"shop.orders","Key":{"id":{"S":"1"},"line":{"N":"1"}},
            "ConditionExpression":"what = :w","ExpressionAttributeValues":{":w":{"S":"grout"}},
            "ReturnValuesOnConditionCheckFailure":"ALL_OLD"}"##,
        r##"400 {"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"The conditional request failed","Item":{"count":{"N":"2"},"id":{"S":"1"},"line":{"N":"1"},"what":{"S":"tiles"}}}"##,
    ),
    (
        "Query",
        r##"{"TableName":"shop.orders","KeyConditionExpression":"id = :i AND line > :l","ScanIndexForward":false,
            "ExpressionAttributeValues":{":i":{"S":"1"},":l":{"N":"0"}},"Limit":1,"ConsistentRead":true}"##,
        r##"200 {"Count":1,"Items":[{"id":{"S":"1"},"line":{"N":"2"},"tags":{"SS":["a","b"]}}],"ScannedCount":1,"LastEvaluatedKey":{"id":{"S":"1"},"line":{"N":"2"}}}"##,
    ),
    (
        "Query",
        r##"{"TableName":"shop.orders","KeyConditionExpression":"id = :i","ScanIndexForward":false,
            "ExpressionAttributeValues":{":i":{"S":"1"}},"ConsistentRead":true,
            "ExclusiveStartKey":{"id":{"S":"1"},"line":{"N":"2"}},"ProjectionExpression":"what"}"##,
        r##"200 {"Count":1,"Items":[{"what":{"S":"tiles"}}],"ScannedCount":1}"##,
    ),
    (
        "BatchGetItem",
        r##"{"RequestItems":{"shop.orders":{"Keys":[{"id":{"S":"1"},"line":{"N":"2e0"}},{"id":{"S":"2"},"line":{"N":"2"}}],
            "AttributesToGet":["line"]}}}"##,
        r##"200 {"Responses":{"shop.orders":[{"line":{"N":"2"}}]},"UnprocessedKeys":{}}"##,
    ),
    (
        "ExecuteTransaction",
        r##"{"TransactStatements":[]}"##,
        r##"400 {"__type":"com.amazon.coral.service#UnknownOperationException","message":"ExecuteTransaction is not supported yet"}"##,
    ),
];

#[tokio::test]
async fn a_shop() {
    let served = serve(Credentials::default()).await;
    let mut client = Client::connect(served.address).await;
    let mut steps = STORY.iter();
    let first = steps.next().expect("a first step");
    let answer = client.call(first.0, first.1).await;
    assert_eq!(format!("{} {}", answer.status, answer.text()), first.2);
    let created = client
        .call(
            "CreateTable",
            r#"{"TableName":"shop.orders","BillingMode":"PAY_PER_REQUEST",
                "AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"},{"AttributeName":"line","AttributeType":"N"}],
                "KeySchema":[{"AttributeName":"id","KeyType":"HASH"},{"AttributeName":"line","KeyType":"RANGE"}]}"#,
        )
        .await;
    assert_eq!(created.status, 200, "{}", created.text());
    for (operation, body, expected) in steps {
        let answer = client.call(operation, body).await;
        let found = format!("{} {}", answer.status, answer.text());
        assert_eq!(found, *expected, "{operation} {body}");
    }
    served.stop.send(()).expect("still running");
    drop(client);
    served.task.await.expect("no panic").expect("stops");
}

#[tokio::test]
async fn signatures_are_verified_when_there_are_credentials() {
    let credentials = Credentials {
        secrets: BTreeMap::from([("AKID".to_string(), "secret".to_string())]),
    };
    let served = serve(credentials).await;
    let mut client = Client::connect(served.address).await;
    for (authorization, kind) in [
        (
            "Credential=a, SignedHeaders=b, Signature=c",
            "IncompleteSignatureException",
        ),
        (
            "Credential=other/20300101/r/dynamodb/aws4_request, SignedHeaders=host, Signature=c",
            "UnrecognizedClientException",
        ),
        (
            "Credential=AKID/20300101/r/dynamodb/aws4_request, SignedHeaders=host, Signature=c",
            "InvalidSignatureException",
        ),
    ] {
        let head = format!(
            "POST / HTTP/1.1\nhost: x\ncontent-type: application/json\nx-amz-date: 20300101T000000Z\n\
             x-amz-target: DynamoDB_20120810.ListTables\nauthorization: AWS4-HMAC-SHA256 {authorization}\n"
        );
        let answer = client.send(&head, b"{}").await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(kind), "{}", answer.text());
    }
}
