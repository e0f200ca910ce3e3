//! Clients that do not speak the protocol: each gets an answer or loses its connection; the next one is served.

use super::{Client, serve};
use dynamo::Credentials;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn bad_http_costs_only_its_connection() {
    let served = serve(Credentials::default()).await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET",
        b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{",
        b"POST / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0",
    ] {
        let mut client = Client::connect(served.address).await;
        client.stream.write_all(bytes).await.expect("writes");
        client.stream.shutdown().await.expect("half-closes");
        let mut rest = Vec::new();
        // Closed or reset: both are fine.
        let _ = client.stream.read_to_end(&mut rest).await;
    }
    let mut client = Client::connect(served.address).await;
    let long = format!("GET / HTTP/1.1\nhost: {}\n", "x".repeat(100_000));
    let refused = tokio::time::timeout(std::time::Duration::from_secs(5), async {
        client.stream.write_all(long.as_bytes()).await.ok();
        let mut rest = Vec::new();
        let _ = client.stream.read_to_end(&mut rest).await;
    });
    refused.await.expect("an endless head is refused");
    let answer = Client::connect(served.address)
        .await
        .send("GET / HTTP/1.1\nhost: x\n", b"")
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_body_of_more_than_16_megabytes_is_refused() {
    let served = serve(Credentials::default()).await;
    let mut client = Client::connect(served.address).await;
    let body = vec![b'a'; (16 << 20) + 1];
    let answer = client
        .send(
            "POST / HTTP/1.1\nhost: x\ncontent-type: application/json\n",
            &body,
        )
        .await;
    assert_eq!(answer.status, 413);
}

const OPERATIONS: &[&str] = &[
    "GetItem",
    "PutItem",
    "UpdateItem",
    "DeleteItem",
    "Query",
    "Scan",
    "BatchGetItem",
    "BatchWriteItem",
    "CreateTable",
    "UpdateTable",
    "DescribeTable",
    "ListTables",
    "TagResource",
];

/// Bodies that are nearly requests.
fn body() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_string()),
        Just("true".to_string()),
        "-?[0-9]{1,25}(\\.[0-9]{1,3})?".prop_map(|number| number),
        "[a-z#: =.,()]{0,12}".prop_map(|text| format!("\"{text}\"")),
    ];
    let key = prop::sample::select(vec![
        "TableName",
        "Key",
        "Item",
        "S",
        "N",
        "B",
        "SS",
        "NS",
        "L",
        "M",
        "Limit",
        "RequestItems",
        "Keys",
        "tab",
        "UpdateExpression",
        "ConditionExpression",
        "ExpressionAttributeValues",
        ":a",
        "PutRequest",
        "KeySchema",
        "AttributeDefinitions",
        "ExclusiveStartKey",
        "KeyConditions",
        "Expected",
        "Segment",
        "TotalSegments",
    ]);
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|elements| format!("[{}]", elements.join(","))),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<String> = members
                    .into_iter()
                    .map(|(key, value)| format!("\"{key}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_body_gets_an_answer(bodies in prop::collection::vec(body(), 8)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let served = serve(Credentials::default()).await;
            let mut client = Client::connect(served.address).await;
            for body in &bodies {
                for operation in OPERATIONS {
                    let answer = client.call(operation, body).await;
                    assert!(matches!(answer.status, 200 | 400), "{operation} {body}: {answer:?}");
                }
            }
        });
    }
}
