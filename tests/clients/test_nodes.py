"""Nodes leave while clients write: nothing that was acknowledged is lost, and the node ends with nothing on it."""

import subprocess
import threading
import time

import boto3
import pytest
from botocore.config import Config
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster as CqlCluster, ExecutionProfile
from cassandra.policies import RoundRobinPolicy

from conftest import binary, start_ephemeral, status, stop, wait_until

@pytest.fixture
def four_nodes():
    running = []
    try:
        for _ in range(4):
            start_next(running)
        wait_until("four nodes know each other", lambda: len(alive(running[0][1].admin)) == 4)
        yield running
    finally:
        for process, _ in reversed(running):
            stop(process)


def start_next(running):
    """One node more; ids are given in this order."""
    arguments = ["--listen", f"127.0.0.{len(running) + 1}"]
    if running:
        first = running[0][1]
        arguments += ["--join", first.internode, "--cql-port", str(first.host_port("cql")[1])]
    running.append(start_ephemeral(*arguments))


def alive(admin):
    return [node for node in status(admin)["nodes"] if node["alive"]]


def tessera(admin, *arguments):
    command = [binary(), *arguments, "--admin", admin]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def node_state(admin, node):
    return next(each for each in status(admin)["nodes"] if each["id"] == node)["state"]


def is_full(admin, without):
    """All tablets have three voters, none of them on the node."""
    for tablet in status(admin)["tablets"]:
        voters = [replica["node"] for replica in tablet["replicas"] if not replica["learner"]]
        if len(voters) != 3 or len(tablet["replicas"]) != 3 or without in voters:
            return False
    return True


class Writer(threading.Thread):
    """Writes numbered rows, and remembers which were acknowledged."""

    def __init__(self, write):
        super().__init__(daemon=True)
        self.write, self.acknowledged, self.errors, self.stopping = write, [], 0, threading.Event()

    def run(self):
        number = 0
        while not self.stopping.is_set():
            number += 1
            try:
                self.write(number)
                self.acknowledged.append(number)
            except Exception:  # noqa: BLE001: any error means "not acknowledged", which is what is counted
                self.errors += 1
                time.sleep(0.05)

    def finish(self):
        self.stopping.set()
        self.join(60)
        assert not self.is_alive(), "a client hangs"


def dynamo(addresses):
    config = Config(retries={"max_attempts": 3}, connect_timeout=2, read_timeout=12)
    client = boto3.client(
        "dynamodb",
        endpoint_url=f"http://{addresses.dynamo}",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=config,
    )
    client.create_table(
        TableName="moving",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName="moving", WaiterConfig={"Delay": 1})

    def write(number):
        client.put_item(TableName="moving", Item={"id": {"N": str(number)}, "value": {"S": f"value {number}"}})

    def read(number):
        answer = client.get_item(TableName="moving", Key={"id": {"N": str(number)}}, ConsistentRead=True)
        return answer.get("Item", {}).get("value", {}).get("S")

    return write, read


def cql(addresses):
    host, port = addresses.host_port("cql")
    profile = ExecutionProfile(
        load_balancing_policy=RoundRobinPolicy(), consistency_level=ConsistencyLevel.QUORUM, request_timeout=10
    )
    client = CqlCluster([host], port=port, execution_profiles={EXEC_PROFILE_DEFAULT: profile}, connect_timeout=5)
    session = client.connect()
    session.execute(
        "CREATE KEYSPACE moving WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}"
    )
    session.execute("CREATE TABLE moving.rows (id int PRIMARY KEY, value text)")
    insert = session.prepare("INSERT INTO moving.rows (id, value) VALUES (?, ?)")
    select = session.prepare("SELECT value FROM moving.rows WHERE id = ?")

    def write(number):
        session.execute(insert, (number, f"value {number}"))

    def read(number):
        row = session.execute(select, (number,)).one()
        return row and row.value

    return write, read


def begin_writing(addresses):
    """Writers at two doors, of which some writes have been acknowledged."""
    doors = {"dynamo": dynamo(addresses), "cql": cql(addresses)}
    writers = {door: Writer(write) for door, (write, _) in doors.items()}
    for writer in writers.values():
        writer.start()
    wait_until("writes are acknowledged", lambda: all(len(it.acknowledged) > 50 for it in writers.values()))
    return doors, writers


def end_writing(doors, writers):
    """Everything that was acknowledged is there."""
    for door, writer in writers.items():
        writer.finish()
        _, read = doors[door]
        lost = [number for number in writer.acknowledged if read(number) != f"value {number}"]
        assert not lost, f"{door}: {len(lost)} of {len(writer.acknowledged)} acknowledged writes are gone"
        print(f"{door}: {len(writer.acknowledged)} acknowledged, {writer.errors} errors")


def test_nothing_is_lost_when_a_node_leaves_or_dies(four_nodes):
    admin = four_nodes[0][1].admin
    doors, writers = begin_writing(four_nodes[0][1])

    done = tessera(admin, "node", "decommission", "2")
    assert done.returncode == 0, done.stderr
    wait_until("node 2 is drained", lambda: node_state(admin, 2) == "drained", 90)
    assert is_full(admin, 2)
    # Three nodes are left for three copies.
    refused = tessera(admin, "node", "decommission", "3")
    assert refused.returncode == 1 and "add a node first" in refused.stderr
    assert "drained" in tessera(admin, "node", "list").stdout
    assert tessera(admin, "node", "recommission", "2").returncode == 0

    assert tessera(admin, "set", "rebuild_after_seconds", "2").returncode == 0
    process, _ = four_nodes[2]
    process.kill()
    process.wait()
    wait_until("what node 3 held is elsewhere", lambda: is_full(admin, 3), 120)
    counts = {door: len(writer.acknowledged) for door, writer in writers.items()}
    wait_until(
        "writes go on", lambda: all(len(it.acknowledged) > counts[door] + 20 for door, it in writers.items())
    )
    removed = tessera(admin, "node", "remove", "3")
    assert removed.returncode == 0, removed.stderr
    assert all(node["id"] != 3 for node in status(admin)["nodes"])

    end_writing(doors, writers)


def test_a_node_is_replaced_while_it_lives_and_when_it_is_dead(four_nodes):
    admin = four_nodes[0][1].admin
    doors, writers = begin_writing(four_nodes[0][1])
    held = replicas_on(admin, 2)
    assert held > 0

    start_next(four_nodes)
    replaced = tessera(admin, "node", "replace", "2", "5")
    assert replaced.returncode == 0, replaced.stderr
    wait_until("node 2 is drained", lambda: node_state(admin, 2) == "drained", 90)
    assert is_full(admin, 2)
    # But for the meta group's, which goes where it stands apart from the others.
    assert replicas_on(admin, 5) >= held - 1
    # All that a move does is retried behind the doors.
    assert {door: writer.errors for door, writer in writers.items()} == {"dynamo": 0, "cql": 0}
    assert tessera(admin, "node", "remove", "2").returncode == 0

    process, _ = four_nodes[2]
    process.kill()
    process.wait()
    start_next(four_nodes)
    wait_until("node 6 is there", lambda: any(node["id"] == 6 for node in alive(admin)))
    wait_until("node 3 is seen to be dead", lambda: all(node["id"] != 3 for node in alive(admin)))
    replaced = tessera(admin, "node", "replace", "3", "6")
    assert replaced.returncode == 0, replaced.stderr
    wait_until("what node 3 held is elsewhere", lambda: is_full(admin, 3), 120)
    assert replicas_on(admin, 6) > 0
    assert {node["id"] for node in status(admin)["nodes"]} == {1, 4, 5, 6}

    end_writing(doors, writers)


def replicas_on(admin, node):
    tablets = status(admin)["tablets"]
    return sum(any(replica["node"] == node for replica in tablet["replicas"]) for tablet in tablets)
