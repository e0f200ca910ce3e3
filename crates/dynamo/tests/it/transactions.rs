//! Transactions, told by requests and answers: what is written, why not, and what a repeated token does.

use super::{Client, serve};
use dynamo::Credentials;

async fn scene() -> (super::Served, Client) {
    let served = serve(Credentials::default()).await;
    let mut client = Client::connect(served.address).await;
    for name in ["bank.accounts", "bank.audit"] {
        let body = format!(
            r#"{{"TableName":"{name}","BillingMode":"PAY_PER_REQUEST",
                "AttributeDefinitions":[{{"AttributeName":"id","AttributeType":"S"}}],
                "KeySchema":[{{"AttributeName":"id","KeyType":"HASH"}}]}}"#
        );
        assert_eq!(client.call("CreateTable", &body).await.status, 200);
    }
    for (id, balance) in [("ada", 10), ("bob", 1)] {
        let body = format!(
            r#"{{"TableName":"bank.accounts","Item":{{"id":{{"S":"{id}"}},"balance":{{"N":"{balance}"}}}}}}"#
        );
        assert_eq!(client.call("PutItem", &body).await.status, 200);
    }
    (served, client)
}

async fn tell(client: &mut Client, story: &[(&str, &str, &str)]) {
    for (operation, body, expected) in story {
        let answer = client.call(operation, body).await;
        let found = format!("{} {}", answer.status, answer.text());
        assert_eq!(found, *expected, "{operation} {body}");
    }
}

/// Moves five from one account to the other, and notes it.
const TRANSFER: &str = r##""TransactItems":[
    {"Update":{"TableName":"bank.accounts","Key":{"id":{"S":"ada"}},"UpdateExpression":"SET balance = balance - :n",
        "ConditionExpression":"balance >= :n","ExpressionAttributeValues":{":n":{"N":"5"}},
        "ReturnValuesOnConditionCheckFailure":"ALL_OLD"}},
    {"Update":{"TableName":"bank.accounts","Key":{"id":{"S":"bob"}},"UpdateExpression":"ADD balance :n",
        "ExpressionAttributeValues":{":n":{"N":"5"}}}},
    {"Put":{"TableName":"bank.audit","Item":{"id":{"S":"1"},"what":{"S":"transfer"}}}}]"##;

const BALANCES: &str = r##"{"TransactItems":[
    {"Get":{"TableName":"bank.accounts","Key":{"id":{"S":"ada"}},"ProjectionExpression":"balance"}},
    {"Get":{"TableName":"bank.audit","Key":{"id":{"S":"none"}}}},
    {"Get":{"TableName":"bank.accounts","Key":{"id":{"S":"bob"}},"ProjectionExpression":"balance"}}],
    "ReturnConsumedCapacity":"TOTAL"}"##;

const CONSUMED: &str = r##","ConsumedCapacity":[{"CapacityUnits":4,"ReadCapacityUnits":4,"TableName":"bank.accounts"},{"CapacityUnits":2,"ReadCapacityUnits":2,"TableName":"bank.audit"}]}"##;

#[tokio::test]
async fn all_of_a_transaction_happens_or_nothing() {
    let (_served, mut client) = scene().await;
    let transfer = format!(r#"{{{TRANSFER},"ReturnConsumedCapacity":"INDEXES"}}"#);
    let unfit = r##"{"TransactItems":[
        {"ConditionCheck":{"TableName":"bank.audit","Key":{"id":{"S":"1"}},"ConditionExpression":"attribute_exists(id)"}},
        {"Put":{"TableName":"bank.accounts","Item":{"id":{"S":"ada"}},"ConditionExpression":"attribute_not_exists(id)",
            "ReturnValuesOnConditionCheckFailure":"ALL_OLD"}},
        {"Update":{"TableName":"bank.accounts","Key":{"id":{"S":"bob"}},"UpdateExpression":"SET a.b = :n",
            "ExpressionAttributeValues":{":n":{"N":"5"}}}},
        {"Delete":{"TableName":"bank.audit","Key":{"id":{"S":"2"}}}}]}"##;
    let balances = |ada: i32, bob: i32| {
        format!(
            r##"200 {{"Responses":[{{"Item":{{"balance":{{"N":"{ada}"}}}}}},{{}},{{"Item":{{"balance":{{"N":"{bob}"}}}}}}]{CONSUMED}"##
        )
    };
    let (before, after) = (balances(10, 1), balances(5, 6));
    let last = balances(0, 11);
    tell(
        &mut client,
        &[
            ("TransactGetItems", BALANCES, &before),
            (
                "TransactWriteItems",
                &transfer,
                r##"200 {"ConsumedCapacity":[{"CapacityUnits":4,"WriteCapacityUnits":4,"TableName":"bank.accounts","Table":{"CapacityUnits":4,"WriteCapacityUnits":4}},{"CapacityUnits":2,"WriteCapacityUnits":2,"TableName":"bank.audit","Table":{"CapacityUnits":2,"WriteCapacityUnits":2}}]}"##,
            ),
            ("TransactGetItems", BALANCES, &after),
            (
                "TransactWriteItems",
                unfit,
                r##"400 {"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","CancellationReasons":[{"Code":"None"},{"Code":"ConditionalCheckFailed","Item":{"balance":{"N":"5"},"id":{"S":"ada"}},"Message":"The conditional request failed"},{"Code":"ValidationError","Message":"The document path provided in the update expression is invalid for update"},{"Code":"None"}],"Message":"Transaction cancelled, please refer cancellation reasons for specific reasons [None, ConditionalCheckFailed, ValidationError, None]"}"##,
            ),
            ("TransactWriteItems", &format!("{{{TRANSFER}}}"), "200 {}"),
            ("TransactGetItems", BALANCES, &last),
            (
                "TransactWriteItems",
                &format!("{{{TRANSFER}}}"),
                r##"400 {"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","CancellationReasons":[{"Code":"ConditionalCheckFailed","Item":{"balance":{"N":"0"},"id":{"S":"ada"}},"Message":"The conditional request failed"},{"Code":"None"},{"Code":"None"}],"Message":"Transaction cancelled, please refer cancellation reasons for specific reasons [ConditionalCheckFailed, None, None]"}"##,
            ),
            ("TransactGetItems", BALANCES, &last),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_token_counts_once() {
    let (_served, mut client) = scene().await;
    let transfer =
        format!(r#"{{{TRANSFER},"ClientRequestToken":"t1","ReturnConsumedCapacity":"TOTAL"}}"#);
    let other = format!(
        r#"{{{},"ClientRequestToken":"t1"}}"#,
        TRANSFER.replace("transfer", "theft")
    );
    let after = format!(
        r##"200 {{"Responses":[{{"Item":{{"balance":{{"N":"5"}}}}}},{{}},{{"Item":{{"balance":{{"N":"6"}}}}}}]{CONSUMED}"##
    );
    tell(
        &mut client,
        &[
            (
                "TransactWriteItems",
                &transfer,
                r##"200 {"ConsumedCapacity":[{"CapacityUnits":4,"WriteCapacityUnits":4,"TableName":"bank.accounts"},{"CapacityUnits":2,"WriteCapacityUnits":2,"TableName":"bank.audit"}]}"##,
            ),
            (
                "TransactWriteItems",
                &transfer,
                r##"200 {"ConsumedCapacity":[{"CapacityUnits":4,"ReadCapacityUnits":4,"TableName":"bank.accounts"},{"CapacityUnits":2,"ReadCapacityUnits":2,"TableName":"bank.audit"}]}"##,
            ),
            (
                "TransactWriteItems",
                &other,
                r##"400 {"__type":"com.amazonaws.dynamodb.v20120810#IdempotentParameterMismatchException","Message":"The provided client token has already been used with different parameters"}"##,
            ),
            ("TransactGetItems", BALANCES, &after),
            // Nobody sees where tokens are kept.
            ("ListTables", "{}", r##"200 {"TableNames":["bank.accounts","bank.audit"]}"##),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_the_request_itself() {
    let (_served, mut client) = scene().await;
    let get = r##"{"Get":{"TableName":"bank.accounts","Key":{"id":{"S":"ada"}}}}"##;
    let twice = format!(r#"{{"TransactItems":[{get},{get}]}}"#);
    let many = format!(r#"{{"TransactItems":[{}]}}"#, vec![get; 101].join(","));
    let validation = |message: &str| {
        format!(
            r##"400 {{"__type":"com.amazon.coral.validate#ValidationException","message":"{message}"}}"##
        )
    };
    let too_many = validation(&format!(
        "1 validation error detected: Value '[{}]' at 'transactItems' failed to satisfy constraint: Member must \
         have length less than or equal to 100",
        vec!["{...}"; 101].join(", ")
    ));
    let put = |table: &str, item: &str| {
        format!(r##"{{"TransactItems":[{{"Put":{{"TableName":"{table}","Item":{item}}}}}]}}"##)
    };
    let large = format!(
        r##"{{"TransactItems":[{}]}}"##,
        (0..11)
            .map(|number| format!(
                r##"{{"Put":{{"TableName":"bank.accounts","Item":{{"id":{{"S":"{number}"}},"x":{{"S":"{}"}}}}}}}}"##,
                "x".repeat(390_000)
            ))
            .collect::<Vec<_>>()
            .join(",")
    );
    let story: Vec<(&str, String, String)> = vec![
        ("TransactGetItems", twice, validation("Transaction request cannot include multiple operations on one item")),
        ("TransactGetItems", many, too_many),
        ("TransactWriteItems", r##"{"TransactItems":[{}]}"##.into(), validation("TransactItems can only contain one of Check, Put, Update or Delete")),
        (
            "TransactWriteItems",
            r##"{"TransactItems":[{"Update":{"TableName":"bank.accounts","Key":{"id":{"S":"ada"}}}}],"ClientRequestToken":""}"##.into(),
            validation(
                "2 validation errors detected: Value '' at 'clientRequestToken' failed to satisfy constraint: \
                 Member must have length greater than or equal to 1; Value null at \
                 'transactItems.1.member.update.updateExpression' failed to satisfy constraint: Member must not be null",
            ),
        ),
        (
            "TransactWriteItems",
            put("bank.none", r##"{"id":{"S":"1"}}"##),
            r##"400 {"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"Requested resource not found"}"##.into(),
        ),
        (
            "TransactWriteItems",
            put("bank.accounts", r##"{"idea":{"S":"1"}}"##),
            validation("One or more parameter values were invalid: Missing the key id in the item"),
        ),
        ("TransactWriteItems", large, validation("Aggregated size of all the items in the transaction cannot exceed 4 MB")),
    ];
    for (operation, body, expected) in &story {
        tell(&mut client, &[(operation, body, expected)]).await;
    }
}
