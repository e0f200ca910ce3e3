"""DynamoDB global tables through boto3: nodes as plain processes on this machine, a data centre each or several, whose names are the
regions. Eventual tables: each region reads and writes by itself, also when the other is gone, and both come to the same. Strong
ones: three regions are as one.
"""

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from conftest import Addresses, binary, free_ports, status, stop, wait_until
from hosts import PORTS, Hosts, available

EAST, WEST, NORTH = "us-east-1", "us-west-2", "eu-north-1"


class Regions:
    """Nodes with data directories, each in a region."""

    DOORS = ("cql", "dynamo", "spanner", "admin", "internode")

    def __init__(self, folder, *regions):
        self.folder, self.regions = Path(folder), regions
        self.hosts = [f"127.0.0.{index + 1}" for index in range(len(regions))]
        self.ports = dict(zip(self.DOORS, free_ports(len(self.DOORS), self.hosts)))
        self.processes = [None] * len(regions)

    def addresses(self, index):
        return Addresses(**{name: f"{self.hosts[index]}:{port}" for name, port in self.ports.items()})

    def start(self, index):
        arguments = ["--data-dir", str(self.folder / f"node{index}"), "--listen", self.hosts[index]]
        arguments += ["--locality", f"dc={self.regions[index]},rack=rack{index}"]
        for name, port in self.ports.items():
            arguments += [f"--{name}-port", str(port)]
        if index > 0:
            arguments += ["--join", self.addresses(0).internode]
        with open(self.folder / f"node{index}.log", "ab") as log:
            self.processes[index] = subprocess.Popen([binary(), "start", *arguments], stdout=log, stderr=log)
        wait_until(f"node {index + 1} answers", lambda: status(self.addresses(index).admin))

    def start_all(self):
        for index in range(len(self.regions)):
            self.start(index)
        for index in range(len(self.regions)):
            wait_until("all nodes know each other", lambda: self.alive_from(index) == len(self.regions))

    def alive_from(self, index):
        return sum(node["alive"] for node in status(self.addresses(index).admin)["nodes"])

    def kill(self, index):
        self.processes[index].send_signal(signal.SIGKILL)
        self.processes[index].wait()

    def of(self, region):
        return [index for index, name in enumerate(self.regions) if name == region]

    def client(self, region, nth=0):
        """A client of one node of a region."""
        return boto3.client(
            "dynamodb",
            endpoint_url=f"http://{self.addresses(self.of(region)[nth]).dynamo}",
            config=Config(retries={"max_attempts": 2, "mode": "standard"}, max_pool_connections=32, read_timeout=30),
            region_name=region,
            aws_access_key_id="suite",
            aws_secret_access_key="suite-secret",
        )


def running(*regions):
    with tempfile.TemporaryDirectory(prefix="tessera-test-") as folder:
        made = Regions(folder, *regions)
        try:
            made.start_all()
            yield made
        except BaseException:
            for log in sorted(made.folder.glob("*.log")):
                print(f"---- {log.name}\n{log.read_text(errors='replace')[-4000:]}")
            raise
        finally:
            for process in reversed(made.processes):
                if process is not None:
                    stop(process)


@pytest.fixture(scope="module")
def three():
    """A node in each of three regions."""
    yield from running(EAST, WEST, NORTH)


@pytest.fixture
def two():
    """Three nodes in one region and three in another, of this test alone."""
    yield from running(EAST, WEST, EAST, WEST, EAST, WEST)


def create_table(client, name):
    client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return name


def update(client, table, *changes, **more):
    return client.update_table(TableName=table, ReplicaUpdates=list(changes), **more)["TableDescription"]


def create(region, **more):
    return {"Create": {"RegionName": region, **more}}


def delete(region):
    return {"Delete": {"RegionName": region}}


def described(client, table):
    return client.describe_table(TableName=table)["Table"]


def replicas(description):
    return {replica["RegionName"]: replica["ReplicaStatus"] for replica in description.get("Replicas", [])}


def wait_active(client, table, *regions):
    def is_active():
        found = described(client, table)
        return found["TableStatus"] == "ACTIVE" and replicas(found) == {region: "ACTIVE" for region in regions}

    wait_until(f"{table} is active, also in {regions}", is_active)


def refused(call, code, part=""):
    with pytest.raises(ClientError) as caught:
        call()
    error = caught.value.response["Error"]
    assert error["Code"] == code, error
    assert part in error["Message"], error


def put(client, table, key, **attributes):
    item = {"id": {"S": key}, **{name: {"S": value} for name, value in attributes.items()}}
    client.put_item(TableName=table, Item=item)
    return item


def get(client, table, key, consistent=True):
    return client.get_item(TableName=table, Key={"id": {"S": key}}, ConsistentRead=consistent).get("Item")


def test_a_region_comes_and_goes(three):
    east, west = three.client(EAST), three.client(WEST)
    table = create_table(east, "comes")
    answer = update(east, table, create(WEST))
    assert answer["TableStatus"] == "UPDATING"
    assert replicas(answer) == {WEST: "CREATING"}
    wait_active(east, table, WEST)
    wait_active(west, table, EAST)
    for client, region in ((east, EAST), (west, WEST)):
        found = described(client, table)
        assert found["GlobalTableVersion"] == "2019.11.21"
        assert found["MultiRegionConsistency"] == "EVENTUAL"
        assert found["TableArn"] == f"arn:aws:dynamodb:{region}:000000000000:table/{table}"
        assert found["TableId"] == described(east, table)["TableId"]
    item = put(east, table, "one", what="tile")
    assert get(east, table, "one") == item
    wait_until("the item is in the west", lambda: get(west, table, "one", False) == item)
    put(west, table, "two", what="grout")
    wait_until("the other is in the east", lambda: east.scan(TableName=table)["Count"] == 2)
    # Only its own regions have it.
    north = three.client(NORTH)
    refused(lambda: described(north, table), "ResourceNotFoundException")
    refused(lambda: get(north, table, "one"), "ResourceNotFoundException")
    assert table not in north.list_tables()["TableNames"]
    assert table in west.list_tables()["TableNames"]
    # With items in it, too, a global table gains a region.
    update(west, table, create(NORTH))
    wait_active(north, table, EAST, WEST)
    assert north.scan(TableName=table, ConsistentRead=True)["Count"] == 2
    refused(lambda: east.delete_table(TableName=table), "ValidationException", "delete them first")
    answer = update(west, table, delete(EAST))
    assert replicas(answer) == {NORTH: "ACTIVE", EAST: "DELETING"}
    wait_active(west, table, NORTH)
    refused(lambda: get(east, table, "one"), "ResourceNotFoundException")
    assert get(west, table, "one") == item
    update(north, table, delete(WEST))
    wait_active(north, table)
    found = described(north, table)
    assert not {"Replicas", "GlobalTableVersion", "MultiRegionConsistency"} & set(found)
    assert north.scan(TableName=table, ConsistentRead=True)["Count"] == 2
    north.delete_table(TableName=table)
    refused(lambda: described(north, table), "ResourceNotFoundException")


def test_all_operations_on_items_work_in_each_region(three):
    east, west = three.client(EAST), three.client(WEST)
    table = create_table(east, "operations")
    update(east, table, create(WEST))
    wait_active(west, table, EAST)
    missing = {"TableName": table, "ConditionExpression": "attribute_not_exists(id)"}
    west.put_item(Item={"id": {"S": "a"}, "n": {"N": "1"}}, **missing)
    refused(lambda: west.put_item(Item={"id": {"S": "a"}}, **missing), "ConditionalCheckFailedException")

    def add(client, amount):
        return client.update_item(
            TableName=table,
            Key={"id": {"S": "a"}},
            UpdateExpression="ADD n :n SET m = :m",
            ExpressionAttributeValues={":n": {"N": str(amount)}, ":m": {"S": "seen"}},
            ReturnValues="ALL_NEW",
        )["Attributes"]

    assert add(west, 4) == {"id": {"S": "a"}, "n": {"N": "5"}, "m": {"S": "seen"}}
    wait_until("the east has it", lambda: (get(east, table, "a") or {}).get("n") == {"N": "5"})
    assert add(east, -2)["n"] == {"N": "3"}
    old = east.put_item(TableName=table, Item={"id": {"S": "a"}}, ReturnValues="ALL_OLD")["Attributes"]
    assert old["n"] == {"N": "3"}
    requests = [{"PutRequest": {"Item": {"id": {"S": f"b{number}"}}}} for number in range(25)]
    assert not east.batch_write_item(RequestItems={table: requests})["UnprocessedItems"]
    keys = [{"id": {"S": f"b{number}"}} for number in range(25)]
    found = east.batch_get_item(RequestItems={table: {"Keys": keys, "ConsistentRead": True}})
    assert len(found["Responses"][table]) == 25
    wait_until("all are in the west", lambda: west.scan(TableName=table)["Count"] == 26)
    west.delete_item(TableName=table, Key={"id": {"S": "b0"}}, ConditionExpression="attribute_exists(id)")
    assert get(west, table, "b0") is None
    condition = {":id": {"S": "b1"}}
    query = {"KeyConditionExpression": "id = :id", "ExpressionAttributeValues": condition, "ConsistentRead": True}
    assert west.query(TableName=table, **query)["Count"] == 1
    action = {"Put": {"TableName": table, "Item": {"id": {"S": "t"}}}}
    refused(lambda: west.transact_write_items(TransactItems=[action]), "ValidationException", "not supported yet")
    read = {"Get": {"TableName": table, "Key": {"id": {"S": "a"}}}}
    refused(lambda: west.transact_get_items(TransactItems=[read]), "ValidationException", "not supported yet")


def test_what_cannot_be_is_refused(three):
    east = three.client(EAST)
    table = create_table(east, "refusals")

    def invalid(part, *changes, **more):
        refused(lambda: update(east, table, *changes, **more), "ValidationException", part)

    refused(lambda: update(east, "nowhere", create(WEST)), "ResourceNotFoundException")
    invalid("Region ap-south-1 is not available", create("ap-south-1"))
    invalid("there already", create(EAST))
    invalid("no replica", delete(WEST))
    invalid("one replica", create(WEST), create(NORTH))
    invalid("Exactly one", {})
    invalid("Exactly one", {**create(WEST), **delete(NORTH)})
    invalid("one of these", create(WEST), delete(NORTH))
    invalid("exactly three regions", create(WEST), MultiRegionConsistency="STRONG")
    invalid("multiRegionConsistency", create(WEST), MultiRegionConsistency="WEAK")
    invalid("with a Create", delete(WEST), MultiRegionConsistency="STRONG")
    invalid("KMSMasterKeyId is not supported", create(WEST, KMSMasterKeyId="alias/mine"))
    limit = {"MaxReadRequestUnits": 5}
    invalid("OnDemandThroughputOverride is not supported", create(WEST, OnDemandThroughputOverride=limit))
    witness = [{"Create": {"RegionName": NORTH}}]
    invalid("Witness", create(WEST), MultiRegionConsistency="STRONG", GlobalTableWitnessUpdates=witness)
    item = put(east, table, "one")
    invalid("with items in it", create(WEST))
    invalid("empty table", create(WEST), create(NORTH), MultiRegionConsistency="STRONG")
    # Nothing has come of all that, and it takes writes.
    assert get(east, table, "one") == item
    found = described(east, table)
    assert found["TableStatus"] == "ACTIVE" and "Replicas" not in found
    east.delete_item(TableName=table, Key={"id": {"S": "one"}})
    update(east, table, create(WEST, TableClassOverride="STANDARD_INFREQUENT_ACCESS"))
    wait_active(east, table, WEST)
    invalid("its own", delete(EAST))
    invalid("cannot be changed", create(NORTH), MultiRegionConsistency="STRONG")
    override = {"RegionName": WEST, "ProvisionedThroughputOverride": {"ReadCapacityUnits": 7}}
    update(east, table, {"Update": override})
    (shown,) = described(east, table)["Replicas"]
    assert shown["ProvisionedThroughputOverride"] == {"ReadCapacityUnits": 7}
    assert shown["ReplicaTableClassSummary"] == {"TableClass": "STANDARD_INFREQUENT_ACCESS"}
    refused(lambda: create_table(three.client(NORTH), table), "ResourceInUseException")


def test_no_write_is_lost_to_the_change(three):
    """Writers go on while the table becomes a global one, or not: whatever was acknowledged is there."""
    east, west = three.client(EAST), three.client(WEST)
    outcomes = []
    # By so much the writers are ahead of the change; from one attempt to the next it nears the moment that decides.
    lead_seconds = 0.0
    for attempt in range(16):
        table = create_table(east, f"changes{attempt}")
        acknowledged, stopping = [], threading.Event()

        def write(client, name):
            time.sleep(max(0.0, -lead_seconds))
            for number in range(1000):
                if stopping.is_set():
                    return
                key = f"{name}{number}"
                try:
                    put(client, table, key)
                except ClientError as error:
                    # Elsewhere it may be gone, or not be there yet.
                    code = error.response["Error"]["Code"]
                    assert code in ("ResourceNotFoundException", "InternalServerError"), error
                else:
                    acknowledged.append(key)

        writers = [threading.Thread(target=write, args=(east, "e")), threading.Thread(target=write, args=(west, "w"))]
        for writer in writers:
            writer.start()
        time.sleep(max(0.0, lead_seconds))
        try:
            update(east, table, create(WEST))
            outcomes.append("changed")
            lead_seconds += 0.003
        except ClientError as error:
            assert "with items in it" in error.response["Error"]["Message"], error
            outcomes.append("refused")
            lead_seconds -= 0.003
        time.sleep(0.2)
        stopping.set()
        for writer in writers:
            writer.join()
        assert acknowledged
        wait_until(
            "all that was acknowledged",
            lambda: set(acknowledged) <= {item["id"]["S"] for item in east.scan(TableName=table)["Items"]},
            10,
        )
    assert set(outcomes) == {"changed", "refused"}, "the moments should differ"


def test_a_strong_table_is_one_over_three_regions(three):
    clients = [three.client(region) for region in (EAST, WEST, NORTH)]
    east, west, north = clients
    table = create_table(east, "strong")
    answer = update(east, table, create(WEST), create(NORTH), MultiRegionConsistency="STRONG")
    assert replicas(answer) == {WEST: "CREATING", NORTH: "CREATING"}
    wait_active(east, table, WEST, NORTH)
    wait_active(north, table, EAST, WEST)
    assert described(west, table)["MultiRegionConsistency"] == "STRONG"
    for number in range(20):
        item = put(clients[number % 3], table, "one", number=str(number))
        assert get(clients[(number + 1) % 3], table, "one") == item
    # Conditions hold over all regions, and transactions go on.
    missing = {"TableName": table, "ConditionExpression": "attribute_not_exists(id)"}
    outcomes = []

    def race(client):
        try:
            client.put_item(Item={"id": {"S": "race"}}, **missing)
            outcomes.append("first")
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])

    racers = [threading.Thread(target=race, args=(client,)) for client in clients]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(outcomes) == ["ConditionalCheckFailedException"] * 2 + ["first"]
    action = {"Put": {"TableName": table, "Item": {"id": {"S": "t"}}}}
    north.transact_write_items(TransactItems=[action])
    assert get(west, table, "t")
    refused(lambda: update(east, table, delete(WEST)), "ValidationException", "in one request")
    answer = update(east, table, delete(WEST), delete(NORTH))
    assert replicas(answer) == {WEST: "DELETING", NORTH: "DELETING"}
    wait_active(east, table)
    assert get(east, table, "t")
    east.delete_table(TableName=table)


def test_puts_at_once_come_to_one_whole_item(two):
    east, west = two.client(EAST), two.client(WEST)
    table = create_table(east, "converges")
    update(east, table, create(WEST))
    wait_active(west, table, EAST)
    keys = [f"item{number}" for number in range(20)]

    def write(client, name):
        for number in range(10):
            for key in keys:
                # Attributes of its own in each region: a mixture would have both.
                put(client, table, key, **{name: str(number), "who": name})

    writers = [threading.Thread(target=write, args=(east, "east")), threading.Thread(target=write, args=(west, "west"))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for key in keys:
        wait_until(f"{key} is the same on both sides", lambda: get(east, table, key) == get(west, table, key), 10)
        item = get(east, table, key)
        who = item["who"]["S"]
        assert item == {"id": {"S": key}, "who": {"S": who}, who: {"S": "9"}}
    # Counting in one region is exact, whichever node is asked.
    counters = [two.client(WEST, nth) for nth in range(3)]

    def count(client):
        for _ in range(10):
            client.update_item(
                TableName=table,
                Key={"id": {"S": "counter"}},
                UpdateExpression="ADD n :one",
                ExpressionAttributeValues={":one": {"N": "1"}},
            )

    counting = [threading.Thread(target=count, args=(client,)) for client in counters]
    for thread in counting:
        thread.start()
    for thread in counting:
        thread.join()
    assert get(west, table, "counter")["n"] == {"N": "30"}


def test_a_region_goes_on_without_the_other(two):
    east, west = two.client(EAST), two.client(WEST)
    table = create_table(east, "alone")
    update(east, table, create(WEST))
    wait_active(west, table, EAST)
    item = put(east, table, "before", what="tile")
    wait_until("the item is in the west", lambda: get(west, table, "before") == item)
    for index in two.of(EAST):
        two.kill(index)
    # Those that are gone are not known to be yet: neither reads nor writes wait for them.
    for number in range(50):
        item = put(west, table, f"alone{number}", what="grout")
        assert get(west, table, f"alone{number}") == item
    west.put_item(
        TableName=table,
        Item={"id": {"S": "before"}, "what": {"S": "both"}},
        ConditionExpression="what = :tile",
        ExpressionAttributeValues={":tile": {"S": "tile"}},
    )
    first = two.of(WEST)[0]
    wait_until("the east is known to be gone", lambda: two.alive_from(first) == 3)
    assert west.scan(TableName=table, ConsistentRead=True)["Count"] == 51
    west.delete_item(TableName=table, Key={"id": {"S": "alone0"}})
    for index in two.of(EAST):
        two.start(index)
    wait_until(
        "the east has what it has missed",
        lambda: east.scan(TableName=table, ConsistentRead=True)["Count"] == 50
        and get(east, table, "before")["what"] == {"S": "both"},
        60,
    )


# One operation, from within a region that others may be cut off from.
OPERATION = """
import boto3, json, sys
from botocore.config import Config
region, endpoint, operation, arguments = sys.argv[1:]
client = boto3.client(
    "dynamodb",
    endpoint_url=endpoint,
    region_name=region,
    aws_access_key_id="suite",
    aws_secret_access_key="suite-secret",
    config=Config(retries={"max_attempts": 3, "mode": "standard"}),
)
print(json.dumps(getattr(client, operation)(**json.loads(arguments)), default=str))
"""


def test_regions_that_are_cut_off_from_each_other_both_go_on():
    if not available():
        pytest.skip("takes network namespaces: Linux, iproute2, root")
    with tempfile.TemporaryDirectory(prefix="tessera-test-") as folder, Hosts(folder, groups=(3, 3)) as hosts:

        def ask(group, operation, **arguments):
            endpoint = f"http://{hosts.address(3 * group)}:{PORTS['dynamo']}"
            command = [sys.executable, "-c", OPERATION, f"dc{group + 1}", endpoint, operation, json.dumps(arguments)]
            done = hosts.within(group, command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        def put_in(group, key, **attributes):
            item = {"id": {"S": key}, **{name: {"S": value} for name, value in attributes.items()}}
            ask(group, "put_item", TableName="cut", Item=item)
            return item

        def get_in(group, key):
            found = ask(group, "get_item", TableName="cut", Key={"id": {"S": key}}, ConsistentRead=True)
            return found.get("Item")

        def alive_from(index):
            return sum(node["alive"] for node in hosts.status(index)["nodes"])

        for index in range(6):
            hosts.start(index)
        wait_until("six nodes know each other", lambda: alive_from(0) == 6 and alive_from(3) == 6)
        ask(
            0,
            "create_table",
            TableName="cut",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        ask(0, "update_table", TableName="cut", ReplicaUpdates=[create("dc2")])
        wait_until(
            "the table is there in both regions",
            lambda: ask(1, "describe_table", TableName="cut")["Table"]["TableStatus"] == "ACTIVE",
        )
        put_in(0, "both", first="1")
        hosts.cut_group(1)
        wait_until("the others to be taken for dead", lambda: alive_from(0) == 3 and alive_from(3) == 3)
        # The same item, first here and then there; and one of its own on each side, on conditions.
        put_in(0, "both", east="2")
        later = put_in(1, "both", west="3")
        count = {"UpdateExpression": "ADD n :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}
        for group, key in ((0, "east"), (1, "west")):
            for _ in range(3):
                ask(group, "update_item", TableName="cut", Key={"id": {"S": key}}, **count)
            assert get_in(group, key)["n"] == {"N": "3"}
        assert get_in(0, "both") == {"id": {"S": "both"}, "east": {"S": "2"}}
        assert get_in(1, "both") == later
        hosts.mend_group(1)
        for group in range(2):
            wait_until("the later one wins on both sides", lambda: get_in(group, "both") == later, 60)
            for key in ("east", "west"):
                wait_until(
                    "each has what the other has counted",
                    lambda: (get_in(group, key) or {}).get("n") == {"N": "3"},
                    60,
                )
