"""The DynamoDB door through its official clients: boto3 (client and resource) and the AWS CLI."""

import decimal
import gzip
import itertools
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from boto3.dynamodb.conditions import Attr, Key
from boto3.dynamodb.types import Binary
from botocore.config import Config
from botocore.exceptions import ClientError

D = decimal.Decimal
RUN = f"r{os.getpid()}x{time.time_ns() % 1_000_000}"
NAMES = (f"{RUN}.t{number}" for number in itertools.count())
SESSION = dict(
    region_name="us-east-1", aws_access_key_id="suite", aws_secret_access_key="suite-secret"
)


def config():
    return Config(retries={"max_attempts": 0, "mode": "standard"}, max_pool_connections=64)


@pytest.fixture(scope="module")
def endpoint(node):
    return f"http://{node.dynamo}"


@pytest.fixture(scope="module")
def client(endpoint):
    return boto3.client("dynamodb", endpoint_url=endpoint, config=config(), **SESSION)


@pytest.fixture(scope="module")
def resource(endpoint):
    return boto3.resource("dynamodb", endpoint_url=endpoint, config=config(), **SESSION)


def make(resource, range_type=None, hash_type="S"):
    keys = [("pk", "HASH", hash_type)]
    if range_type is not None:
        keys.append(("sk", "RANGE", range_type))
    table = resource.create_table(
        TableName=next(NAMES),
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind, _ in keys],
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": kind} for name, _, kind in keys
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    table.wait_until_exists()
    return table


@pytest.fixture(scope="module")
def hashed(resource):
    return make(resource)


@pytest.fixture(scope="module")
def ranged(resource):
    return make(resource, "N")


def refused(call, code, part=""):
    with pytest.raises(ClientError) as caught:
        call()
    error = caught.value.response["Error"]
    assert error["Code"] == code, error
    assert part in error["Message"], error
    return caught.value.response


# --- tables


def test_table_life(client):
    name = f"{RUN}.life_of-a.table"
    made = client.create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": "h", "KeyType": "HASH"},
            {"AttributeName": "r", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "h", "AttributeType": "B"},
            {"AttributeName": "r", "AttributeType": "N"},
        ],
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 6},
        Tags=[{"Key": "team", "Value": "tiles"}],
        DeletionProtectionEnabled=True,
    )["TableDescription"]
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    table = client.describe_table(TableName=name)["Table"]
    assert table["TableStatus"] == "ACTIVE"
    assert table["TableId"] == made["TableId"]
    assert table["TableArn"] == f"arn:aws:dynamodb:us-east-1:000000000000:table/{name}"
    assert [key["KeyType"] for key in table["KeySchema"]] == ["HASH", "RANGE"]
    assert table["ProvisionedThroughput"]["WriteCapacityUnits"] == 6
    assert table["DeletionProtectionEnabled"] is True
    assert name in client.list_tables()["TableNames"]
    refused(lambda: client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "h", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "h", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    ), "ResourceInUseException")

    arn = table["TableArn"]
    client.tag_resource(ResourceArn=arn, Tags=[{"Key": "empty", "Value": ""}])
    tags = client.list_tags_of_resource(ResourceArn=arn)["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"team": "tiles", "empty": ""}
    client.untag_resource(ResourceArn=arn, TagKeys=["team"])
    assert [tag["Key"] for tag in client.list_tags_of_resource(ResourceArn=arn)["Tags"]] == ["empty"]

    refused(lambda: client.delete_table(TableName=name), "ValidationException", "protected")
    client.update_table(
        TableName=name, DeletionProtectionEnabled=False, BillingMode="PAY_PER_REQUEST"
    )
    table = client.describe_table(TableName=name)["Table"]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert client.describe_time_to_live(TableName=name)["TimeToLiveDescription"][
        "TimeToLiveStatus"
    ] == "DISABLED"
    assert client.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"][
        "PointInTimeRecoveryDescription"
    ]["PointInTimeRecoveryStatus"] == "DISABLED"
    assert client.delete_table(TableName=name)["TableDescription"]["TableStatus"] == "DELETING"
    client.get_waiter("table_not_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    refused(lambda: client.describe_table(TableName=name), "ResourceNotFoundException", name)


def test_tables_made_at_once_are_all_there(client):
    names = [f"atonce{RUN}.t{number}" for number in range(6)]

    def create(name):
        return client.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "h", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "h", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(create, names))
    pages = client.get_paginator("list_tables").paginate(PaginationConfig={"PageSize": 2})
    listed = [name for page in pages for name in page["TableNames"]]
    assert set(names) <= set(listed)
    assert listed == sorted(listed)
    for name in names:
        client.delete_table(TableName=name)


def test_limits_and_endpoints(client):
    assert client.describe_limits()["TableMaxReadCapacityUnits"] > 0
    assert client.describe_endpoints()["Endpoints"][0]["CachePeriodInMinutes"] > 0


# --- items


def test_every_type_comes_back(hashed):
    item = {
        "pk": "types",
        "text": "grüße \"quoted\" \n 😀",
        "empty": "",
        "number": D("-1234567890.0987654321"),
        "large": D("99999999999999999999999999999999999999"),
        "small": D("1E-130"),
        "binary": Binary(bytes(range(256))),
        "yes": True,
        "none": None,
        "texts": {"a", "b"},
        "numbers": {D(1), D("2.5")},
        "binaries": {Binary(b"x"), Binary(b"")},
        "list": [1, "two", [D(3)], {"four": None}],
        "map": {"nested": {"deep": {"er": [True]}}, "size": D(1)},
    }
    hashed.put_item(Item=item)
    assert hashed.get_item(Key={"pk": "types"}, ConsistentRead=True)["Item"] == item


def test_numbers(client, resource):
    table = make(resource, hash_type="N").name

    def put(text):
        client.put_item(TableName=table, Item={"pk": {"N": text}, "from": {"S": text}})

    for text, canonical in [
        ("1000", "1000"), ("1e3", "1000"), ("-0.0", "0"), ("00.50", "0.5"), ("+1", "1"),
        ("1.23456789012345678901234567890123456789e-100", None), (".5", "0.5"),
        ("9.9999999999999999999999999999999999999E+125", "9" * 38 + "0" * 88),
    ]:
        if canonical is None:
            refused(lambda: put(text), "ValidationException", "more than 38 significant digits")
            continue
        put(text)
        found = client.get_item(TableName=table, Key={"pk": {"N": canonical}}, ConsistentRead=True)
        assert found["Item"] == {"pk": {"N": canonical}, "from": {"S": text}}
    assert client.scan(TableName=table, ConsistentRead=True)["Count"] == 5
    for text, part in [
        ("1e126", "Number overflow"), ("1e-131", "Number underflow"), ("NaN", "cannot be converted"),
        ("Infinity", "cannot be converted"), ("", "cannot be converted"), ("1 2", "cannot be converted"),
    ]:
        refused(lambda: put(text), "ValidationException", part)


def test_put_returns_and_conditions(hashed):
    hashed.put_item(Item={"pk": "put", "v": 1})
    old = hashed.put_item(Item={"pk": "put", "v": 2}, ReturnValues="ALL_OLD")
    assert old["Attributes"] == {"pk": "put", "v": 1}
    refused(
        lambda: hashed.put_item(
            Item={"pk": "put"}, ConditionExpression=Attr("pk").not_exists()
        ),
        "ConditionalCheckFailedException",
        "The conditional request failed",
    )
    response = refused(
        lambda: hashed.put_item(
            Item={"pk": "put"},
            ConditionExpression="v > :v",
            ExpressionAttributeValues={":v": 5},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        ),
        "ConditionalCheckFailedException",
    )
    assert response["Item"] == {"pk": {"S": "put"}, "v": {"N": "2"}}
    hashed.put_item(Item={"pk": "put", "v": 3}, ConditionExpression=Attr("v").eq(2) & Attr("pk").eq("put"))
    hashed.put_item(Item={"pk": "put", "v": 4}, Expected={"v": {"Value": 3}})
    refused(
        lambda: hashed.put_item(Item={"pk": "put"}, Expected={"v": {"Exists": False}}),
        "ConditionalCheckFailedException",
    )
    assert hashed.get_item(Key={"pk": "put"}, ConsistentRead=True)["Item"]["v"] == 4
    assert "Item" not in hashed.get_item(Key={"pk": "nobody"})


def test_projection(hashed):
    hashed.put_item(Item={"pk": "project", "a": {"b": [1, 2, {"c": 3}]}, "name": "n"})
    found = hashed.get_item(
        Key={"pk": "project"},
        ProjectionExpression="#n, a.b[2].c, a.b[0]",
        ExpressionAttributeNames={"#n": "name"},
        ConsistentRead=True,
    )
    assert found["Item"] == {"name": "n", "a": {"b": [1, {"c": 3}]}}
    found = hashed.get_item(Key={"pk": "project"}, AttributesToGet=["name"], ConsistentRead=True)
    assert found["Item"] == {"name": "n"}


def update(table, key, expression, values=None, returned="ALL_NEW", **more):
    if values:
        more["ExpressionAttributeValues"] = values
    return table.update_item(
        Key={"pk": key}, UpdateExpression=expression, ReturnValues=returned, **more
    ).get("Attributes")


def test_update_expressions(hashed):
    assert update(hashed, "u", "SET a = :one, l = :l", {":one": 1, ":l": [1, 2]}) == {
        "pk": "u", "a": 1, "l": [1, 2],
    }
    assert update(hashed, "u", "SET b = a, a = a + :one ADD n :one", {":one": 1}, "UPDATED_NEW") == {
        "a": 2, "b": 1, "n": 1,
    }
    assert update(hashed, "u", "SET l[7] = :x REMOVE l[0]", {":x": "end"})["l"] == [2, "end"]
    assert update(hashed, "u", "SET l = list_append(l, :l)", {":l": [9]}, "UPDATED_OLD") == {
        "l": [2, "end"],
    }
    assert update(hashed, "u", "ADD s :s", {":s": {"x", "y"}})["s"] == {"x", "y"}
    assert "s" not in update(hashed, "u", "DELETE s :s", {":s": {"x", "y", "z"}})
    assert update(hashed, "u", "SET c = if_not_exists(c, :z), k = pk", {":z": 0})["k"] == "u"
    assert update(hashed, "u", "SET a = :one", {":one": 1}, "ALL_OLD")["a"] == 2
    refused(
        lambda: update(hashed, "u", "SET x.y = :one", {":one": 1}),
        "ValidationException",
        "The document path provided in the update expression is invalid for update",
    )
    refused(
        lambda: update(hashed, "u", "SET a = nope + :one", {":one": 1}),
        "ValidationException",
        "refers to an attribute that does not exist",
    )
    refused(lambda: update(hashed, "u", "SET pk = :one", {":one": 1}), "ValidationException", "part of the key")
    refused(
        lambda: update(hashed, "u", "SET a = :one", {":one": 1}, ConditionExpression=Attr("a").gt(100)),
        "ConditionalCheckFailedException",
    )
    hashed.update_item(Key={"pk": "only-removes"}, UpdateExpression="REMOVE a")
    assert "Item" not in hashed.get_item(Key={"pk": "only-removes"}, ConsistentRead=True)
    hashed.update_item(Key={"pk": "only-key"})
    assert hashed.get_item(Key={"pk": "only-key"}, ConsistentRead=True)["Item"] == {"pk": "only-key"}


def test_legacy_updates(hashed):
    def change(**updates):
        return hashed.update_item(
            Key={"pk": "legacy"}, AttributeUpdates=updates, ReturnValues="ALL_NEW"
        )["Attributes"]

    assert change(a={"Value": 1, "Action": "PUT"}, n={"Value": 5, "Action": "ADD"}) == {
        "pk": "legacy", "a": 1, "n": 5,
    }
    assert change(n={"Value": -2, "Action": "ADD"}, a={"Action": "DELETE"}) == {"pk": "legacy", "n": 3}
    refused(
        lambda: change(n={"Value": {"x"}, "Action": "ADD"}), "ValidationException", "Type mismatch"
    )


def test_counter_under_contention(hashed):
    def add(_):
        return int(
            hashed.meta.client.update_item(
                TableName=hashed.name,
                Key={"pk": "counter"},
                UpdateExpression="ADD n :one",
                ExpressionAttributeValues={":one": 1},
                ReturnValues="UPDATED_NEW",
            )["Attributes"]["n"]
        )

    with ThreadPoolExecutor(8) as pool:
        seen = sorted(pool.map(add, range(200)))
    assert seen == list(range(1, 201))


def test_delete(hashed):
    hashed.put_item(Item={"pk": "gone", "v": 1})
    refused(
        lambda: hashed.delete_item(Key={"pk": "gone"}, ConditionExpression=Attr("v").eq(2)),
        "ConditionalCheckFailedException",
    )
    assert hashed.delete_item(Key={"pk": "gone"}, ReturnValues="ALL_OLD")["Attributes"]["v"] == 1
    assert "Attributes" not in hashed.delete_item(Key={"pk": "gone"}, ReturnValues="ALL_OLD")


def test_refusals(hashed, client):
    name = hashed.name
    for item, part in [
        ({"v": {"S": "x"}}, "Missing the key pk in the item"),
        ({"pk": {"N": "1"}}, "Type mismatch for key pk expected: S actual: N"),
        ({"pk": {"S": ""}}, "empty string value. Key: pk"),
        ({"pk": {"S": "x" * 2049}}, "Size of hashkey has exceeded"),
        ({"pk": {"S": "x"}, "v": {"SS": []}}, "may not be empty"),
        ({"pk": {"S": "x"}, "v": {"SS": ["a", "a"]}}, "contains duplicates"),
        ({"pk": {"S": "x"}, "v": {"S": "y" * (400 * 1024)}}, "Item size has exceeded"),
    ]:
        refused(lambda: client.put_item(TableName=name, Item=item), "ValidationException", part)
    deep = {"S": "bottom"}
    for _ in range(32):
        deep = {"L": [deep]}
    client.put_item(TableName=name, Item={"pk": {"S": "deep"}, "v": deep})
    refused(
        lambda: client.put_item(TableName=name, Item={"pk": {"S": "deep"}, "v": {"L": [deep]}}),
        "ValidationException",
        "Nesting Levels have exceeded",
    )
    key = {"pk": {"S": "x"}}
    for arguments, part in [
        (dict(ConditionExpression="size(pk"), "Syntax error"),
        (dict(ConditionExpression="name = :v", ExpressionAttributeValues={":v": {"S": ""}}), "reserved keyword: name"),
        (dict(ConditionExpression="a = :v"), ":v"),
        (dict(ConditionExpression=""), "can not be empty"),
        (
            dict(ConditionExpression="attribute_exists(a)", ExpressionAttributeNames={"#x": "y"}),
            "unused in expressions: keys: {#x}",
        ),
        (
            dict(ConditionExpression="attribute_exists(a)", Expected={"a": {"Exists": False}}),
            "Can not use both expression and non-expression parameters",
        ),
    ]:
        refused(
            lambda: client.delete_item(TableName=name, Key=key, **arguments), "ValidationException", part
        )
    refused(lambda: client.get_item(TableName="no.such", Key=key), "ResourceNotFoundException")
    refused(
        lambda: client.get_item(TableName=name, Key={"pk": {"S": "x"}, "y": {"S": "z"}}),
        "ValidationException",
        "The provided key element does not match the schema",
    )


def test_what_is_not_built_is_refused(client, hashed):
    definitions = [{"AttributeName": "pk", "AttributeType": "S"}]
    schema = [{"AttributeName": "pk", "KeyType": "HASH"}]
    refused(
        lambda: client.create_table(
            TableName="suite.indexed",
            KeySchema=schema,
            AttributeDefinitions=definitions,
            BillingMode="PAY_PER_REQUEST",
            GlobalSecondaryIndexes=[
                {"IndexName": "index", "KeySchema": schema, "Projection": {"ProjectionType": "ALL"}}
            ],
        ),
        "ValidationException",
        "not supported yet",
    )
    for call in [
        lambda: client.execute_statement(Statement='SELECT * FROM "x"'),
        lambda: client.update_time_to_live(
            TableName=hashed.name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
        ),
        lambda: client.list_backups(),
    ]:
        refused(call, "UnknownOperationException", "not supported yet")


# --- transactions


def key(name):
    return {"pk": {"S": name}}


def test_transact_get(client, resource, hashed):
    other = make(resource, "N")
    hashed.put_item(Item={"pk": "tg", "a": 1, "b": {"c": 2}})
    other.put_item(Item={"pk": "tg", "sk": 1, "x": "y"})
    found = client.transact_get_items(
        TransactItems=[
            {"Get": {"TableName": other.name, "Key": key("tg") | {"sk": {"N": "1"}}}},
            {"Get": {"TableName": hashed.name, "Key": key("tg none")}},
            {"Get": {
                "TableName": hashed.name, "Key": key("tg"), "ProjectionExpression": "#b.c",
                "ExpressionAttributeNames": {"#b": "b"},
            }},
        ],
        ReturnConsumedCapacity="TOTAL",
    )
    assert [answer.get("Item") for answer in found["Responses"]] == [
        {"pk": {"S": "tg"}, "sk": {"N": "1"}, "x": {"S": "y"}}, None, {"b": {"M": {"c": {"N": "2"}}}},
    ]
    units = {each["TableName"]: each["ReadCapacityUnits"] for each in found["ConsumedCapacity"]}
    assert units == {other.name: 2, hashed.name: 4}
    get = {"Get": {"TableName": hashed.name, "Key": key("tg")}}
    refused(
        lambda: client.transact_get_items(TransactItems=[get, get]),
        "ValidationException", "multiple operations on one item",
    )
    refused(
        lambda: client.transact_get_items(TransactItems=[
            {"Get": {"TableName": "suite.none", "Key": key("x")}}
        ]),
        "ResourceNotFoundException",
    )


def put(table, name, **more):
    return {"Put": {"TableName": table.name, "Item": key(name)} | more}


def reasons(call):
    answer = refused(call, "TransactionCanceledException", "Transaction cancelled")
    return answer["CancellationReasons"]


def test_transact_write(client, resource, hashed):
    """Every action, over tables and tablets: all or none, and a reason for each item when none."""
    other = make(resource, "N")
    hashed.put_item(Item={"pk": "tw checked", "n": 1})
    hashed.put_item(Item={"pk": "tw gone"})
    items = [
        {"ConditionCheck": {
            "TableName": hashed.name, "Key": key("tw checked"), "ConditionExpression": "n = :n",
            "ExpressionAttributeValues": {":n": {"N": "1"}}, "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }},
        {"Put": {"TableName": other.name, "Item": key("tw") | {"sk": {"N": "1"}, "x": {"S": "y"}}}},
        {"Update": {
            "TableName": hashed.name, "Key": key("tw counted"), "UpdateExpression": "ADD n :n",
            "ExpressionAttributeValues": {":n": {"N": "1"}},
        }},
        {"Delete": {
            "TableName": hashed.name, "Key": key("tw gone"), "ConditionExpression": "attribute_exists(pk)",
        }},
    ]
    done = client.transact_write_items(TransactItems=items, ReturnConsumedCapacity="TOTAL")
    units = {each["TableName"]: each["WriteCapacityUnits"] for each in done["ConsumedCapacity"]}
    assert units == {hashed.name: 6, other.name: 2}
    assert other.get_item(Key={"pk": "tw", "sk": 1}, ConsistentRead=True)["Item"]["x"] == "y"
    assert hashed.get_item(Key={"pk": "tw counted"}, ConsistentRead=True)["Item"]["n"] == 1
    assert "Item" not in hashed.get_item(Key={"pk": "tw gone"}, ConsistentRead=True)

    hashed.put_item(Item={"pk": "tw checked", "n": 2})
    found = reasons(lambda: client.transact_write_items(TransactItems=items))
    assert [each["Code"] for each in found] == ["ConditionalCheckFailed", "None", "None", "ConditionalCheckFailed"]
    assert found[0]["Item"]["n"] == {"N": "2"} and "Item" not in found[3]
    assert hashed.get_item(Key={"pk": "tw counted"}, ConsistentRead=True)["Item"]["n"] == 1
    for wrong, text in [
        ([put(hashed, "tw twice"), put(hashed, "tw twice")], "multiple operations on one item"),
        ([put(hashed, "a") | {"Delete": {"TableName": hashed.name, "Key": key("a")}}], "can only contain one of"),
    ]:
        refused(lambda: client.transact_write_items(TransactItems=wrong), "ValidationException", text)


def test_transact_write_tokens(client, hashed):
    add = {"Update": {
        "TableName": hashed.name, "Key": key("token"), "UpdateExpression": "ADD n :n",
        "ExpressionAttributeValues": {":n": {"N": "1"}},
    }}
    token = f"{RUN}-token"

    def write(items):
        return client.transact_write_items(
            TransactItems=items, ClientRequestToken=token, ReturnConsumedCapacity="TOTAL"
        )["ConsumedCapacity"][0]

    assert write([add])["WriteCapacityUnits"] == 2
    assert write([add])["ReadCapacityUnits"] == 2
    assert hashed.get_item(Key={"pk": "token"}, ConsistentRead=True)["Item"]["n"] == 1
    refused(lambda: write([add, put(hashed, "token more")]), "IdempotentParameterMismatchException", "token")
    # Many at once with one token: it happens once, and all hear that it did.
    token = f"{RUN}-many"
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: write([add]), range(8)))) == 8
    assert hashed.get_item(Key={"pk": "token"}, ConsistentRead=True)["Item"]["n"] == 2
    assert not [name for name in client.list_tables()["TableNames"] if "token" in name]


def test_transfers_keep_the_sum(client, hashed):
    """Transfers between accounts in many tablets, while others look: every look sees the same sum."""
    accounts = [f"account {number}" for number in range(6)]
    for name in accounts:
        hashed.put_item(Item={"pk": name, "n": 10})

    def change(name, amount):
        return {"Update": {
            "TableName": hashed.name, "Key": key(name), "UpdateExpression": "SET n = n + :n",
            "ConditionExpression": "n >= :least",
            "ExpressionAttributeValues": {":n": {"N": str(amount)}, ":least": {"N": str(-min(amount, 0))}},
        }}

    def transfer(number):
        source, target = accounts[number % 6], accounts[(number * 5 + 1) % 6]
        if source == target:
            return 0
        try:
            client.transact_write_items(TransactItems=[change(source, -3), change(target, 3)])
            return 1
        except ClientError as error:
            assert error.response["Error"]["Code"] == "TransactionCanceledException", error
            return 0

    def look(_):
        found = client.transact_get_items(TransactItems=[
            {"Get": {"TableName": hashed.name, "Key": key(name)}} for name in accounts
        ])
        return sum(int(answer["Item"]["n"]["N"]) for answer in found["Responses"])

    with ThreadPoolExecutor(8) as pool:
        looks = pool.map(look, range(40))
        transfers = pool.map(transfer, range(80))
        assert set(looks) == {60}
        assert sum(transfers) > 20
    assert look(0) == 60


# --- queries and scans


@pytest.fixture(scope="module")
def series(ranged):
    with ranged.batch_writer() as batch:
        for key in ("one", "two"):
            for number in range(60):
                batch.put_item(
                    Item={"pk": key, "sk": D(number - 30) / 2, "even": number % 2 == 0, "pad": "x" * 50}
                )
    return ranged


def numbers(response):
    return [item["sk"] for item in response["Items"]]


def test_query_ranges(series):
    def query(condition, **more):
        return numbers(series.query(
            KeyConditionExpression=Key("pk").eq("one") & condition, ConsistentRead=True, **more
        ))

    everything = [D(number - 30) / 2 for number in range(60)]
    assert numbers(series.query(KeyConditionExpression=Key("pk").eq("one"), ConsistentRead=True)) == everything
    assert query(Key("sk").lt(-14)) == [D(-15), D("-14.5")]
    assert query(Key("sk").lte(-14)) == [D(-15), D("-14.5"), D(-14)]
    assert query(Key("sk").gt(14)) == [D("14.5")]
    assert query(Key("sk").gte(14)) == [D(14), D("14.5")]
    assert query(Key("sk").between(D("-0.5"), D("0.5"))) == [D("-0.5"), D(0), D("0.5")]
    assert query(Key("sk").eq(D("1.50"))) == [D("1.5")]
    assert query(Key("sk").gt(13), ScanIndexForward=False) == [D("14.5"), D(14), D("13.5")]
    legacy = series.query(
        KeyConditions={
            "pk": {"AttributeValueList": ["one"], "ComparisonOperator": "EQ"},
            "sk": {"AttributeValueList": [D(14)], "ComparisonOperator": "GE"},
        },
        QueryFilter={"even": {"AttributeValueList": [True], "ComparisonOperator": "EQ"}},
        ConsistentRead=True,
    )
    assert numbers(legacy) == [D(14)]


def test_query_pages(series):
    for forward in (True, False):
        seen, start, pages = [], None, 0
        while True:
            more = {"ExclusiveStartKey": start} if start else {}
            page = series.query(
                KeyConditionExpression=Key("pk").eq("two"),
                FilterExpression=Attr("even").eq(True),
                ScanIndexForward=forward,
                Limit=7,
                ConsistentRead=True,
                **more,
            )
            pages += 1
            assert page["ScannedCount"] <= 7 and page["Count"] == len(page["Items"])
            seen += numbers(page)
            start = page.get("LastEvaluatedKey")
            if start is None:
                break
            assert set(start) == {"pk", "sk"}
        assert pages == 9
        assert seen == sorted((D(number - 30) / 2 for number in range(0, 60, 2)), reverse=not forward)
    count = series.query(KeyConditionExpression=Key("pk").eq("two"), Select="COUNT", ConsistentRead=True)
    assert count["Count"] == 60 and "Items" not in count
    refused(
        lambda: series.query(
            KeyConditionExpression=Key("pk").eq("two"), ExclusiveStartKey={"pk": "one", "sk": 1}
        ),
        "ValidationException",
        "outside query boundaries",
    )


def test_begins_with_and_binary_order(resource):
    texts = make(resource, "S")
    for sk in ["a", "ab", "ab\x00", "abc", "ab\uffff", "ab😀", "ac", "b"]:
        texts.put_item(Item={"pk": "p", "sk": sk})
    found = texts.query(
        KeyConditionExpression=Key("pk").eq("p") & Key("sk").begins_with("ab"), ConsistentRead=True
    )
    assert [item["sk"] for item in found["Items"]] == ["ab", "ab\x00", "abc", "ab\uffff", "ab😀"]
    binaries = make(resource, "B")
    keys = [b"\x00", b"\x00\x01", b"\x7f", b"\xff", b"\xff\x00", b"\xff\xff"]
    for sk in reversed(keys):
        binaries.put_item(Item={"pk": "p", "sk": Binary(sk)})
    found = binaries.query(KeyConditionExpression=Key("pk").eq("p"), ConsistentRead=True)
    assert [item["sk"].value for item in found["Items"]] == keys
    found = binaries.query(
        KeyConditionExpression=Key("pk").eq("p") & Key("sk").begins_with(Binary(b"\xff")),
        ConsistentRead=True,
    )
    assert [item["sk"].value for item in found["Items"]] == keys[3:]


def test_a_page_ends_at_a_megabyte(client, resource):
    table = make(resource, "N")
    with table.batch_writer() as batch:
        for number in range(30):
            batch.put_item(Item={"pk": "big", "sk": number, "pad": "x" * 100_000})
    paginator = client.get_paginator("query")
    sizes = [
        page["Count"]
        for page in paginator.paginate(
            TableName=table.name,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": "big"}},
            ConsistentRead=True,
        )
    ]
    assert sum(sizes) == 30 and len(sizes) == 3 and sizes[0] == 11
    total = sum(page["Count"] for page in client.get_paginator("scan").paginate(
        TableName=table.name, Select="COUNT", ConsistentRead=True
    ))
    assert total == 30


def test_scan_segments_and_filters(series, client):
    def segment(number):
        pages = client.get_paginator("scan").paginate(
            TableName=series.name,
            Segment=number,
            TotalSegments=5,
            ConsistentRead=True,
            PaginationConfig={"PageSize": 13},
        )
        return [(item["pk"]["S"], item["sk"]["N"]) for page in pages for item in page["Items"]]

    with ThreadPoolExecutor(5) as pool:
        found = list(itertools.chain.from_iterable(pool.map(segment, range(5))))
    assert len(found) == len(set(found)) == 120
    even = series.scan(
        FilterExpression=Attr("even").eq(True) & Attr("sk").between(0, 1), ConsistentRead=True
    )
    assert even["Count"] == 4 and even["ScannedCount"] == 120
    legacy = series.scan(
        ScanFilter={
            "sk": {"AttributeValueList": [D(14)], "ComparisonOperator": "GT"},
            "even": {"AttributeValueList": [True], "ComparisonOperator": "EQ"},
        },
        ConditionalOperator="OR",
        ConsistentRead=True,
    )
    assert legacy["Count"] == 62
    refused(
        lambda: series.scan(Segment=5, TotalSegments=5), "ValidationException", "is not less than TotalSegments"
    )


def test_eventual_reads_see_settled_writes(hashed):
    hashed.put_item(Item={"pk": "settled", "v": 1})
    assert hashed.get_item(Key={"pk": "settled"}, ConsistentRead=True)["Item"]["v"] == 1
    assert "v" in hashed.get_item(Key={"pk": "settled"})["Item"]


# --- batches and capacity


def test_batches(resource, hashed, ranged):
    items = [{"pk": f"batch{number}", "v": number} for number in range(60)]
    with hashed.batch_writer(overwrite_by_pkeys=["pk"]) as batch:
        for item in items:
            batch.put_item(Item=item)
        batch.delete_item(Key={"pk": "batch59"})
    found = resource.batch_get_item(
        RequestItems={
            hashed.name: {
                "Keys": [{"pk": item["pk"]} for item in items],
                "ConsistentRead": True,
                "ProjectionExpression": "pk, v",
            },
            ranged.name: {"Keys": [{"pk": "nobody", "sk": 1}]},
        }
    )
    assert found["UnprocessedKeys"] == {}
    assert found["Responses"][ranged.name] == []
    got = sorted(found["Responses"][hashed.name], key=lambda item: item["v"])
    assert got == items[:59]
    refused(
        lambda: resource.batch_get_item(RequestItems={hashed.name: {"Keys": [{"pk": "x"}, {"pk": "x"}]}}),
        "ValidationException",
        "contains duplicates",
    )
    put = {"PutRequest": {"Item": {"pk": "x"}}}
    refused(
        lambda: resource.batch_write_item(RequestItems={hashed.name: [put] * 26}), "ValidationException", "25"
    )


def test_a_batch_get_fills_16_megabytes(client, resource):
    table = make(resource).name
    for number in range(45):
        client.put_item(
            TableName=table, Item={"pk": {"S": str(number)}, "pad": {"S": "x" * 390_000}}
        )
    keys = [{"pk": {"S": str(number)}} for number in range(45)]
    request, found, rounds = {table: {"Keys": keys, "ConsistentRead": True}}, 0, 0
    while request:
        response = client.batch_get_item(RequestItems=request)
        found += len(response["Responses"][table])
        request, rounds = response["UnprocessedKeys"], rounds + 1
    assert (found, rounds) == (45, 2)


def test_consumed_capacity(hashed, series):
    item = {"pk": "capacity", "pad": "x" * 5000}
    put = hashed.put_item(Item=item, ReturnConsumedCapacity="TOTAL")["ConsumedCapacity"]
    assert put == {"TableName": hashed.name, "CapacityUnits": 5.0}
    get = lambda **more: hashed.get_item(
        Key={"pk": "capacity"}, ReturnConsumedCapacity="INDEXES", **more
    )["ConsumedCapacity"]
    assert get()["CapacityUnits"] == 1.0
    assert get(ConsistentRead=True)["Table"]["CapacityUnits"] == 2.0
    smaller = hashed.put_item(Item={"pk": "capacity"}, ReturnConsumedCapacity="TOTAL")
    assert smaller["ConsumedCapacity"]["CapacityUnits"] == 5.0
    query = series.query(
        KeyConditionExpression=Key("pk").eq("one"), ReturnConsumedCapacity="TOTAL", ConsistentRead=True
    )
    assert query["ConsumedCapacity"]["CapacityUnits"] == 1.0


# --- the wire


def raw(endpoint, body, headers=None, method="POST", data=None):
    request = urllib.request.Request(
        endpoint, data=body.encode() if data is None else data, method=method
    )
    request.add_header("Content-Type", "application/x-amz-json-1.0")
    request.add_header(
        "Authorization", "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=0"
    )
    request.add_header("X-Amz-Date", "20300101T000000Z")
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    try:
        response = urllib.request.urlopen(request, timeout=10)
    except urllib.error.HTTPError as error:
        response = error
    body = response.read()
    if response.headers.get("x-amz-crc32"):
        assert int(response.headers["x-amz-crc32"]) == zlib.crc32(body)
    return response.status, response.headers, body


def target(operation):
    return {"X-Amz-Target": f"DynamoDB_20120810.{operation}"}


def test_wire(endpoint, hashed):
    status, _, body = raw(endpoint, "", method="GET", data=b"")
    assert status == 200 and body.startswith(b"healthy: ")
    status, headers, body = raw(endpoint, "{}", target("ListTables"))
    assert status == 200 and headers["Content-Type"] == "application/x-amz-json-1.0"
    for text in ["hi", "{", '{"a": 1} x', "[" * 100_000, '{"a": "\\ud800"}', "\x00"]:
        status, _, body = raw(endpoint, text, target("PutItem"))
        assert (status, json.loads(body)) == (
            400, {"__type": "com.amazon.coral.service#SerializationException"},
        )
    status, _, body = raw(endpoint, '{"TableName": 5}', target("GetItem"))
    assert json.loads(body)["Message"] == "NUMBER_VALUE cannot be converted to String"
    status, _, body = raw(endpoint, "{}", target("MakeCoffee"))
    assert json.loads(body)["__type"] == "com.amazon.coral.service#UnknownOperationException"
    status, _, body = raw(endpoint, "{}", target("ListTables") | {"Authorization": "none"})
    assert json.loads(body)["__type"].endswith("#MissingAuthenticationTokenException")
    zipped = gzip.compress(b'{"Limit": 1}')
    status, _, body = raw(endpoint, "", target("ListTables") | {"Content-Encoding": "gzip"}, data=zipped)
    assert status == 200 and len(json.loads(body)["TableNames"]) == 1
    hashed.put_item(Item={"pk": "zip", "pad": "x" * 10_000})
    get = json.dumps({"TableName": hashed.name, "Key": {"pk": {"S": "zip"}}, "ConsistentRead": True})
    status, headers, body = raw(endpoint, get, target("GetItem") | {"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert len(json.loads(gzip.decompress(body))["Item"]["pad"]["S"]) == 10_000
    status, _, _ = raw(endpoint, "{}", target("ListTables") | {"Content-Type": "text/plain"})
    assert status == 404


def test_hostile_requests_leave_the_node_alone(endpoint, client):
    for operation in ["PutItem", "Query", "Scan", "BatchWriteItem", "CreateTable", "UpdateItem"]:
        for text in [
            "null", "[]", '"x"', "1e999999", '{"TableName": null}', '{"Key": {"a": {"M": ' * 60 + "1" + "}}}" * 60,
            '{"RequestItems": {"x": [{}]}}', '{"Limit": 99999999999999999999}', '{"ExclusiveStartKey": {"a": []}}',
        ]:
            status, _, _ = raw(endpoint, text, target(operation))
            assert status == 400, (operation, text)
    assert client.list_tables()["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_command_line(endpoint):
    aws = Path(sys.executable).with_name("aws")
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": "suite",
        "AWS_SECRET_ACCESS_KEY": "suite-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    def run(*arguments):
        command = [sys.executable, str(aws), "--endpoint-url", endpoint, "--output", "json", "dynamodb"]
        done = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    name = f"commandline{RUN}"
    run(
        "create-table", "--table-name", name, "--billing-mode", "PAY_PER_REQUEST",
        "--attribute-definitions", "AttributeName=id,AttributeType=S",
        "--key-schema", "AttributeName=id,KeyType=HASH",
    )
    run("wait", "table-exists", "--table-name", name)
    run("put-item", "--table-name", name, "--item", '{"id": {"S": "1"}, "v": {"N": "42"}}')
    found = run(
        "get-item", "--table-name", name, "--key", '{"id": {"S": "1"}}', "--consistent-read"
    )
    assert found["Item"]["v"] == {"N": "42"}
    assert run("scan", "--table-name", name, "--consistent-read")["Count"] == 1
    run("delete-table", "--table-name", name)
