"""Transactions of DynamoDB that meet another, which does not end: what boto3 hears, and of which items."""

import os
import threading
import time

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from conftest import spanner_client, start_ephemeral, stop


@pytest.fixture
def served():
    process, addresses = start_ephemeral()
    yield addresses
    stop(process)


class Keeper(threading.Thread):
    """A read-write transaction at the Spanner door that has locked an item, and keeps it until it is told to end."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.has_locked, self.ending = threading.Event(), threading.Event()
        os.environ["SPANNER_EMULATOR_HOST"] = address
        instance = spanner_client(address, "p").instance(
            "i", "projects/p/instanceConfigs/emulator-config", node_count=1
        )
        instance.create().result(30)
        self.database = instance.database("bank")

    def run(self):
        self.database.run_in_transaction(self.keep)

    def keep(self, transaction):
        sql = "SELECT id FROM accounts WHERE id = 'ada' FOR UPDATE"
        while True:
            assert list(transaction.execute_sql(sql)) == [["ada"]]
            self.has_locked.set()
            if self.ending.wait(2):
                return


class Call(threading.Thread):
    """A call of its own; how it ended and after how long."""

    def __init__(self, call, **arguments):
        super().__init__(daemon=True)
        self.call, self.arguments = call, arguments
        self.answer, self.error = None, None
        self.start()

    def run(self):
        began = time.monotonic()
        try:
            self.answer = self.call(**self.arguments)
        except ClientError as error:
            self.error = error.response
        self.seconds = time.monotonic() - began

    def code(self):
        self.join(60)
        assert not self.is_alive() and self.answer is None, self.answer
        return self.error["Error"]["Code"]


def put(name):
    return {"Put": {"TableName": "bank.accounts", "Item": {"id": {"S": name}, "balance": {"N": "1"}}}}


def test_conflicts_are_told_item_by_item(served):
    # Nothing is tried again by the client.
    config = Config(retries={"max_attempts": 0}, read_timeout=50, max_pool_connections=20)
    client = boto3.client(
        "dynamodb",
        endpoint_url=f"http://{served.dynamo}",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=config,
    )
    client.create_table(
        TableName="bank.accounts",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    ada = {"id": {"S": "ada"}, "balance": {"N": "10"}}
    client.put_item(TableName="bank.accounts", Item=ada)
    # The table of tokens is made when the first comes.
    client.transact_write_items(TransactItems=[put("other")], ClientRequestToken="warm")
    keeper = Keeper(served.spanner)
    keeper.start()
    try:
        assert keeper.has_locked.wait(20)
        single = Call(client.put_item, TableName="bank.accounts", Item={"id": {"S": "ada"}})
        batch = Call(
            client.batch_write_item,
            RequestItems={"bank.accounts": [{"PutRequest": {"Item": {"id": {"S": "ada"}}}}]},
        )
        several = Call(client.transact_write_items, TransactItems=[put("bob"), put("ada"), put("cem")])
        first = Call(client.transact_write_items, TransactItems=[put("ada")], ClientRequestToken="t")
        time.sleep(1)
        again = Call(client.transact_write_items, TransactItems=[put("ada")], ClientRequestToken="t")
        assert again.code() == "TransactionInProgressException"
        assert again.seconds < 8 and first.is_alive(), again.seconds
        assert single.code() == "TransactionConflictException"
        assert several.code() == "TransactionCanceledException"
        reasons = [reason["Code"] for reason in several.error["CancellationReasons"]]
        assert reasons == ["None", "TransactionConflict", "None"]
        assert "[None, TransactionConflict, None]" in several.error["Error"]["Message"]
        assert first.code() == "TransactionCanceledException"
        assert [reason["Code"] for reason in first.error["CancellationReasons"]] == ["TransactionConflict"]
        batch.join(60)
        [left] = batch.answer["UnprocessedItems"]["bank.accounts"]
        assert left["PutRequest"]["Item"]["id"] == {"S": "ada"}
        assert client.get_item(TableName="bank.accounts", Key={"id": {"S": "ada"}})["Item"] == ada
    finally:
        keeper.ending.set()
        keeper.join(60)
    assert not keeper.is_alive()
    # Nothing is in the way any more; the token has not been used up by what was refused.
    client.transact_write_items(TransactItems=[put("ada"), put("bob")], ClientRequestToken="u")
    client.transact_write_items(TransactItems=[put("ada")], ClientRequestToken="t")
    found = client.get_item(TableName="bank.accounts", Key={"id": {"S": "ada"}}, ConsistentRead=True)["Item"]
    assert found["balance"] == {"N": "1"}
