"""A bank at two doors: transfers between accounts in several tablets, each with an entry in a ledger, by the official clients.

Runs until a line comes on standard input; says `ready` when the accounts are there; then looks through the books and prints
what it found as one line of JSON. An entry and both balances change together or not at all, so whatever happened to the
servers: balances are what the ledger says, money is neither made nor lost, and every acknowledged entry is there. Each
attempt of a client at a transfer makes an entry of its own, so a transfer that was done twice has two.
"""

import json
import os
import random
import sys
import threading
import time
from collections import Counter

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from google.cloud import spanner

from conftest import spanner_client

ACCOUNTS = 12
START = 1_000
PATIENCE_SECONDS = 8


class Dynamo:
    """TransactWriteItems over items of a hash-partitioned table."""

    name = "dynamo"

    def __init__(self, addresses):
        config = Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=PATIENCE_SECONDS)
        self.clients = [
            boto3.client(
                "dynamodb",
                endpoint_url=f"http://{address}",
                region_name="us-east-1",
                aws_access_key_id="x",
                aws_secret_access_key="x",
                config=config,
            )
            for address in addresses
        ]

    def create(self):
        self.clients[0].create_table(
            TableName="bank",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for account in range(ACCOUNTS):
            item = {"id": {"S": f"account {account}"}, "balance": {"N": str(START)}}
            self.clients[0].put_item(TableName="bank", Item=item)

    def transfer(self, turn, entry, source, target, amount):
        def move(account, by):
            return {
                "Update": {
                    "TableName": "bank",
                    "Key": {"id": {"S": f"account {account}"}},
                    "UpdateExpression": "ADD balance :by",
                    "ConditionExpression": "balance >= :least",
                    "ExpressionAttributeValues": {":by": {"N": str(by)}, ":least": {"N": str(max(0, -by))}},
                }
            }

        item = {
            "id": {"S": entry},
            "source": {"N": str(source)},
            "target": {"N": str(target)},
            "amount": {"N": str(amount)},
        }
        put = {"Put": {"TableName": "bank", "Item": item, "ConditionExpression": "attribute_not_exists(id)"}}
        client = self.clients[turn % len(self.clients)]
        client.transact_write_items(TransactItems=[move(source, -amount), move(target, amount), put])
        return True

    def books(self):
        balances, entries, arguments = {}, {}, {}
        while True:
            page = self.clients[0].scan(TableName="bank", ConsistentRead=True, **arguments)
            for item in page["Items"]:
                if "balance" in item:
                    balances[int(item["id"]["S"].split()[1])] = int(item["balance"]["N"])
                else:
                    fields = (int(item[name]["N"]) for name in ("source", "target", "amount"))
                    entries[item["id"]["S"]] = tuple(fields)
            if "LastEvaluatedKey" not in page:
                return balances, entries
            arguments = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


class Spanner:
    """Read-write transactions over two tables, so over two tablets at least."""

    name = "spanner"

    def __init__(self, addresses):
        self.databases = []
        for address in addresses:
            os.environ["SPANNER_EMULATOR_HOST"] = address
            client = spanner_client(address, "bank")
            self.instance = client.instance("bank", "projects/bank/instanceConfigs/emulator-config", node_count=1)
            self.databases.append(self.instance.database("bank"))
        os.environ["SPANNER_EMULATOR_HOST"] = addresses[0]

    def create(self):
        self.instance.create().result(30)
        ddl = [
            "CREATE TABLE Accounts (id INT64, balance INT64) PRIMARY KEY (id)",
            "CREATE TABLE Entries (id STRING(MAX), source INT64, target INT64, amount INT64) PRIMARY KEY (id)",
        ]
        self.instance.database("bank", ddl_statements=ddl).create().result(30)
        with self.databases[0].batch() as batch:
            rows = [(account, START) for account in range(ACCOUNTS)]
            batch.insert("Accounts", ("id", "balance"), rows)

    def transfer(self, turn, entry, source, target, amount):
        attempts = 0

        def run(transaction):
            nonlocal attempts
            attempts += 1
            keys = spanner.KeySet(keys=[(source,), (target,)])
            rows = {row[0]: row[1] for row in transaction.read("Accounts", ("id", "balance"), keys)}
            if rows[source] < amount:
                return False
            changed = [(source, rows[source] - amount), (target, rows[target] + amount)]
            transaction.update("Accounts", ("id", "balance"), changed)
            row = (f"{entry}#{attempts}", source, target, amount)
            transaction.insert("Entries", ("id", "source", "target", "amount"), [row])
            return True

        database = self.databases[turn % len(self.databases)]
        return database.run_in_transaction(run, timeout_secs=PATIENCE_SECONDS)

    def books(self):
        with self.databases[0].snapshot(multi_use=True) as snapshot:
            everything = spanner.KeySet(all_=True)
            balances = {row[0]: row[1] for row in snapshot.read("Accounts", ("id", "balance"), everything)}
            columns = ("id", "source", "target", "amount")
            entries = {row[0]: tuple(row[1:]) for row in snapshot.read("Entries", columns, everything)}
        return balances, entries


class Clerk(threading.Thread):
    def __init__(self, door, number, stopping):
        super().__init__(daemon=True)
        self.door, self.number, self.stopping = door, number, stopping
        self.acknowledged, self.refused, self.failed = [], 0, 0
        self.gap, self.last_error = 0.0, ""

    def run(self):
        draw = random.Random(self.number)
        count, last = 0, time.monotonic()
        while not self.stopping.is_set():
            count += 1
            source, target = draw.sample(range(ACCOUNTS), 2)
            entry = f"entry {self.number}-{count}"
            try:
                is_done = self.door.transfer(self.number + count, entry, source, target, draw.randint(1, 20))
            except ClientError as error:
                # Refused, or lost to others: not done, for certain.
                is_certain = error.response["Error"]["Code"] == "TransactionCanceledException"
                self.refused += is_certain
                self.failed += not is_certain
                self.last_error = str(error)
                time.sleep(0.02)
                continue
            except Exception as error:  # noqa: BLE001: whatever it is, the outcome is unknown
                self.failed += 1
                self.last_error = repr(error)
                time.sleep(0.05)
                continue
            now = time.monotonic()
            self.gap = max(self.gap, now - last)
            last = now
            if is_done:
                self.acknowledged.append(entry)
            else:
                self.refused += 1


def look_through(door, clerks):
    deadline = time.monotonic() + 30
    while True:
        try:
            balances, entries = door.books()
            break
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    expected = {account: START for account in range(ACCOUNTS)}
    for source, target, amount in entries.values():
        expected[source] -= amount
        expected[target] += amount
    acknowledged = [entry for clerk in clerks for entry in clerk.acknowledged]
    done = Counter(entry.split("#")[0] for entry in entries)
    lost = [entry for entry in acknowledged if entry not in done]
    return {
        "acknowledged": len(acknowledged),
        "refused": sum(clerk.refused for clerk in clerks),
        "failed": sum(clerk.failed for clerk in clerks),
        "entries": len(entries),
        "gap": round(max(clerk.gap for clerk in clerks), 1),
        "lost": lost[:10],
        "twice": [entry for entry, count in done.items() if count > 1][:10],
        "total": sum(balances.values()),
        "wrong": {account: (balances.get(account), expected[account]) for account in expected
                  if balances.get(account) != expected[account]},
        "last_errors": [clerk.last_error[:200] for clerk in clerks],
    }


def main():
    addresses = json.loads(sys.argv[1])
    doors = [Spanner(addresses["spanner"]), Dynamo(addresses["dynamo"])]
    for door in doors:
        door.create()
    print("ready", flush=True)
    sys.stdin.readline()
    stopping = threading.Event()
    clerks = {door: [Clerk(door, number, stopping) for number in range(3)] for door in doors}
    for clerk in (clerk for group in clerks.values() for clerk in group):
        clerk.start()
    sys.stdin.readline()
    stopping.set()
    for clerk in (clerk for group in clerks.values() for clerk in group):
        clerk.join(90)
        assert not clerk.is_alive(), "a client hangs"
    print(json.dumps({door.name: look_through(door, group) for door, group in clerks.items()}), flush=True)


if __name__ == "__main__":
    main()
