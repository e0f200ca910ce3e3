"""Dividing tablets: the rows stay what they are for readers and writers, before, under and after it."""

import os
import subprocess
import threading
import time

import boto3
import pytest
from botocore.config import Config
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster as CqlCluster, ExecutionProfile
from cassandra.policies import WhiteListRoundRobinPolicy
from cassandra.query import BatchStatement, BatchType, SimpleStatement
from google.cloud import spanner

from conftest import binary, status, wait_until


@pytest.fixture
def database(node):
    if node.admin is None:
        pytest.skip("the server was given without its admin port")
    os.environ["SPANNER_EMULATOR_HOST"] = node.spanner
    client = spanner.Client(project="split")
    instance = client.instance("split", f"{client.project_name}/instanceConfigs/emulator-config", node_count=1)
    if not instance.exists():
        instance.create().result(30)
    ddl = [
        "CREATE TABLE Numbers (id INT64 NOT NULL, value STRING(MAX)) PRIMARY KEY (id)",
        "CREATE TABLE Parts (id INT64 NOT NULL, part INT64 NOT NULL) PRIMARY KEY (id, part), INTERLEAVE IN PARENT Numbers",
    ]
    made = instance.database("numbers", ddl_statements=ddl)
    made.create().result(30)
    yield made
    made.drop()


def split(admin, namespace, table, *key):
    command = [binary(), "split", "--admin", admin, namespace, table, *key]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def tablets(admin, table):
    return [tablet for tablet in status(admin)["tablets"] if tablet["table"] == table]


def insert(database, numbers):
    with database.batch() as batch:
        batch.insert("Numbers", ("id", "value"), [(number, f"value {number}") for number in numbers])
        batch.insert("Parts", ("id", "part"), [(number, part) for number in numbers for part in range(3)])


def all_rows(database):
    with database.snapshot(multi_use=True) as snapshot:
        rows = list(snapshot.read("Numbers", ("id", "value"), spanner.KeySet(all_=True)))
        parts = list(snapshot.read("Parts", ("id", "part"), spanner.KeySet(all_=True)))
    return [tuple(row) for row in rows], [tuple(row) for row in parts]


def expected(count):
    rows = [(number, f"value {number}") for number in range(count)]
    return rows, [(number, part) for number in range(count) for part in range(3)]


def test_rows_are_on_their_sides_and_can_be_written_on_both(node, database):
    insert(database, range(100))
    for key in ("50", "25", "75"):
        done = split(node.admin, "numbers", "Numbers", key)
        assert done.returncode == 0, done.stderr
    assert len(tablets(node.admin, "numbers.Numbers")) == 4
    assert all_rows(database) == expected(100)
    # Row by row: an atomic write lies in one tablet.
    for number in range(100, 104):
        insert(database, [number])
    for number in (10, 30, 60, 90):
        with database.batch() as batch:
            batch.update("Numbers", ("id", "value"), [(number, "new")])
    rows, parts = expected(104)
    rows = [(number, "new" if number in (10, 30, 60, 90) else value) for number, value in rows]
    assert all_rows(database) == (rows, parts)


def test_a_split_that_makes_no_sense_is_refused(node, database):
    assert "no table" in split(node.admin, "numbers", "Nothing", "1").stderr
    assert "no value of column" in split(node.admin, "numbers", "Numbers", "many").stderr
    assert split(node.admin, "numbers", "Numbers", "50").returncode == 0
    again = split(node.admin, "numbers", "Numbers", "50")
    assert again.returncode == 1 and "does not lie inside" in again.stderr
    # A row and what is interleaved in it are never parted.
    assert split(node.admin, "numbers", "Parts", "20", "1").returncode == 0
    starts = [tablet["start"] for tablet in tablets(node.admin, "numbers.Numbers")]
    assert len(starts) == 3


def test_reads_and_writes_go_on_under_splits(node, database):
    insert(database, range(0, 400, 10))
    acknowledged, wrong, stopping = set(), [], threading.Event()

    def write():
        number = 0
        while not stopping.is_set():
            number += 1
            insert(database, [1000 + number])
            acknowledged.add(1000 + number)

    def read():
        while not stopping.is_set():
            before = set(acknowledged)
            rows, _ = all_rows(database)
            shown = {number for number, _ in rows}
            if not (set(range(0, 400, 10)) | before) <= shown:
                wrong.append(before - shown)

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    try:
        for key in (200, 100, 300, 1005, 1010, 50):
            done = split(node.admin, "numbers", "Numbers", str(key))
            assert done.returncode == 0, done.stderr
            time.sleep(0.2)
    finally:
        stopping.set()
        for thread in threads:
            thread.join(60)
    assert not wrong
    assert len(acknowledged) > 10
    assert len(tablets(node.admin, "numbers.Numbers")) == 7
    rows, _ = all_rows(database)
    assert {number for number, _ in rows} == set(range(0, 400, 10)) | acknowledged


def items(client):
    pages = client.get_paginator("scan").paginate(TableName="halves", ConsistentRead=True)
    return {item["id"]["S"]: item["value"]["S"] for page in pages for item in page["Items"]}


def test_halves_survive_kill_9_of_each_node(cluster):
    client = boto3.client(
        "dynamodb",
        endpoint_url=f"http://{cluster.addresses(0).dynamo}",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"max_attempts": 5}, read_timeout=15),
    )
    client.create_table(
        TableName="halves",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName="halves", WaiterConfig={"Delay": 1})
    cluster.wait_grown()

    def put(numbers, value):
        for number in numbers:
            client.put_item(TableName="halves", Item={"id": {"S": f"id {number}"}, "value": {"S": value}})

    put(range(100), "before")
    admin = cluster.addresses(1).admin
    for number in (1, 2, 3):
        done = split(admin, "dynamodb", "halves", f"id {number}")
        assert done.returncode == 0, done.stderr
    put(range(50), "after")
    whole = {f"id {number}": "after" if number < 50 else "before" for number in range(100)}
    assert items(client) == whole
    for index in range(3):
        cluster.kill(index)
        cluster.start(index)
        cluster.wait_grown()
    assert len(tablets(admin, "dynamodb.halves")) == 11
    wait_until("all rows can be read", lambda: items(client) == whole)
    put(range(100), "later")
    assert set(items(client).values()) == {"later"}


def connect(cluster, index):
    """A session whose requests all go to one node."""
    policy = WhiteListRoundRobinPolicy([cluster.HOSTS[index]])
    profile = ExecutionProfile(load_balancing_policy=policy, request_timeout=20)
    profiles = {EXEC_PROFILE_DEFAULT: profile}
    client = CqlCluster([cluster.HOSTS[index]], port=cluster.ports["cql"], execution_profiles=profiles)
    return client, client.connect()


def test_eventual_halves_take_every_write_under_splits_and_survive_kill_9(cluster):
    """Batches over many partitions, compare-and-set and scans go on while the tablets below them are divided."""
    cluster.wait_grown()
    client, session = connect(cluster, 0)
    session.execute("CREATE KEYSPACE split WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}")
    session.execute("CREATE TABLE split.rows (id text PRIMARY KEY, value int)")
    session.execute("CREATE TABLE split.turns (id text PRIMARY KEY, value int)")
    insert = session.prepare("INSERT INTO split.rows (id, value) VALUES (?, ?)")
    scan = SimpleStatement("SELECT id, value FROM split.rows", consistency_level=ConsistencyLevel.QUORUM, fetch_size=50)
    step = session.prepare("UPDATE split.turns SET value = ? WHERE id = 'a' IF value = ?")
    session.execute("INSERT INTO split.turns (id, value) VALUES ('a', 0) IF NOT EXISTS")
    stopping, errors = threading.Event(), []
    written, steps = [0], [0]

    def write_all(number):
        batch = BatchStatement(BatchType.UNLOGGED, consistency_level=ConsistencyLevel.QUORUM)
        for row in range(40):
            batch.add(insert, (f"row {row}", number))
        session.execute(batch, timeout=20)
        written[0] = number

    def guarded(work):
        def run():
            try:
                while not stopping.is_set():
                    work()
            except Exception as error:
                errors.append(error)

        return run

    def write():
        write_all(written[0] + 1)

    def take_a_turn():
        assert session.execute(step, (steps[0] + 1, steps[0]), timeout=20).was_applied
        steps[0] += 1

    def read():
        least = written[0]
        rows = {row.id: row.value for row in session.execute(scan, timeout=20)}
        assert len(rows) == 40 and min(rows.values()) >= least, rows

    write_all(1)
    threads = [threading.Thread(target=guarded(work)) for work in (write, take_a_turn, read)]
    for thread in threads:
        thread.start()
    admin = cluster.addresses(1).admin
    before = len(tablets(admin, "split.rows"))
    try:
        for number in range(6):
            done = split(admin, "split", "rows", f"row {number}")
            assert done.returncode == 0, done.stderr
        for key in ("a", "b"):
            done = split(admin, "split", "turns", key)
            assert done.returncode == 0, done.stderr
    finally:
        stopping.set()
        for thread in threads:
            thread.join(60)
    assert not errors, errors
    assert written[0] > 3 and steps[0] > 3
    assert len(tablets(admin, "split.rows")) == before + 6
    wait_until("settled", lambda: not any(tablet["splitting"] for tablet in status(admin)["tablets"]))
    again = split(admin, "split", "rows", "row 1")
    assert again.returncode == 1 and "does not lie inside" in again.stderr
    for index in range(3):
        cluster.kill(index)
        cluster.start(index)
        cluster.wait_grown()
    client.shutdown()
    client, session = connect(cluster, 1)

    def is_all_there():
        rows = {row.id: row.value for row in session.execute(scan, timeout=20)}
        return rows == {f"row {row}": written[0] for row in range(40)}

    wait_until("all rows can be read", is_all_there)
    serial = SimpleStatement("SELECT value FROM split.turns WHERE id = 'a'", consistency_level=ConsistencyLevel.SERIAL)
    assert session.execute(serial).one().value == steps[0]
    client.shutdown()
