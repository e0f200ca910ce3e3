"""Nodes are killed under load from the three official clients: what was acknowledged is there afterwards."""

import threading
import time

import boto3
import pytest
from botocore.config import Config
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster as CqlCluster, ExecutionProfile
from cassandra.policies import RoundRobinPolicy
from google.cloud import spanner

from conftest import spanner_client, wait_until


class Writer(threading.Thread):
    """Writes numbered rows, remembers which were acknowledged, and goes on after errors."""

    def __init__(self, write):
        super().__init__(daemon=True)
        self.write, self.acknowledged, self.errors, self.last_error = write, [], 0, None
        self.stopping = threading.Event()
        self.last_success = time.monotonic()
        self.longest_gap = 0.0

    def run(self):
        number = 0
        while not self.stopping.is_set():
            number += 1
            try:
                self.write(number)
            except Exception as error:  # noqa: BLE001: any error means "not acknowledged", which is what is counted
                self.errors += 1
                self.last_error = error
                time.sleep(0.05)
                continue
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - self.last_success)
            self.last_success = now
            self.acknowledged.append(number)

    def finish(self):
        self.stopping.set()
        self.join(60)
        assert not self.is_alive(), "a client hangs"


def cql_session(cluster):
    profile = ExecutionProfile(
        load_balancing_policy=RoundRobinPolicy(), consistency_level=ConsistencyLevel.QUORUM, request_timeout=5
    )
    client = CqlCluster(
        list(cluster.HOSTS),
        port=cluster.ports["cql"],
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        connect_timeout=5,
    )
    session = client.connect()
    session.execute(
        "CREATE KEYSPACE survivors WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}"
    )
    session.execute("CREATE TABLE survivors.rows (id int PRIMARY KEY, value text)")
    insert = session.prepare("INSERT INTO survivors.rows (id, value) VALUES (?, ?)")
    select = session.prepare("SELECT value FROM survivors.rows WHERE id = ?")

    def write(number):
        session.execute(insert, (number, f"value {number}"))

    def read(number):
        row = session.execute(select, (number,)).one()
        return row and row.value

    return client.shutdown, write, read


def dynamo_table(cluster):
    config = Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=12)
    clients = [
        boto3.client(
            "dynamodb",
            endpoint_url=f"http://{cluster.addresses(index).dynamo}",
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
            config=config,
        )
        for index in range(3)
    ]
    clients[0].create_table(
        TableName="survivors",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    clients[0].get_waiter("table_exists").wait(TableName="survivors", WaiterConfig={"Delay": 1})

    def write(number):
        item = {"id": {"N": str(number)}, "value": {"S": f"value {number}"}}
        clients[number % 3].put_item(TableName="survivors", Item=item)

    def read(number):
        key = {"id": {"N": str(number)}}
        answer = clients[number % 3].get_item(TableName="survivors", Key=key, ConsistentRead=True)
        return answer.get("Item", {}).get("value", {}).get("S")

    return lambda: None, write, read


def spanner_database(cluster, monkeypatch):
    databases = []
    for index in range(3):
        address = cluster.addresses(index).spanner
        monkeypatch.setenv("SPANNER_EMULATOR_HOST", address)
        client = spanner_client(address, "test")
        instance = client.instance("survivors", "projects/test/instanceConfigs/emulator-config", node_count=1)
        if index == 0:
            instance.create().result(30)
        ddl = ["CREATE TABLE Survivors (id INT64, value STRING(MAX)) PRIMARY KEY (id)"] if index == 0 else []
        database = instance.database("survivors", ddl_statements=ddl)
        if index == 0:
            database.create().result(30)
        databases.append(database)

    sessions = [None] * len(databases)

    def write(number):
        # One try of five seconds: the client's own retries go on for an hour.
        index = number % len(databases)
        api = databases[index].spanner_api
        if sessions[index] is None:
            # Made once: a session outlives its node.
            sessions[index] = api.create_session(database=databases[index].name, retry=None, timeout=5).name
        row = [str(number), f"value {number}"]
        mutation = {"insert_or_update": {"table": "Survivors", "columns": ["id", "value"], "values": [row]}}
        request = {
            "session": sessions[index],
            "mutations": [mutation],
            "single_use_transaction": {"read_write": {}},
        }
        api.commit(request=request, retry=None, timeout=5)

    def read(number):
        with databases[number % 3].snapshot() as snapshot:
            rows = list(snapshot.read("Survivors", ("value",), spanner.KeySet(keys=[(number,)])))
        return rows[0][0] if rows else None

    return lambda: None, write, read


@pytest.mark.parametrize("door", ["cql", "dynamo", "spanner"])
def test_acknowledged_writes_survive_kill_9_of_each_node(cluster, door, monkeypatch):
    if door == "cql":
        close, write, read = cql_session(cluster)
    elif door == "dynamo":
        close, write, read = dynamo_table(cluster)
    else:
        close, write, read = spanner_database(cluster, monkeypatch)
    cluster.wait_grown()
    writer = Writer(write)
    writer.start()
    try:
        wait_until("the first writes are acknowledged", lambda: len(writer.acknowledged) > 20)
    except BaseException:
        print("the last error:", writer.last_error)
        raise
    for index in range(3):
        cluster.kill(index)
        time.sleep(4)
        count = len(writer.acknowledged)
        wait_until(f"writes go on without node {index + 1}", lambda: len(writer.acknowledged) > count + 5, 20)
        cluster.start(index)
        time.sleep(3)
        cluster.wait_grown()
    writer.finish()
    acknowledged = writer.acknowledged
    assert len(acknowledged) > 100, f"{len(acknowledged)} acknowledged, {writer.errors} errors"

    def read_patiently(number):
        deadline = time.monotonic() + 15
        while True:
            try:
                return read(number)
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    lost = [number for number in acknowledged if read_patiently(number) != f"value {number}"]
    close()
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged writes are gone: {lost[:10]}"
    print(f"{door}: {len(acknowledged)} acknowledged, {writer.errors} errors, longest gap {writer.longest_gap:.1f} s")
