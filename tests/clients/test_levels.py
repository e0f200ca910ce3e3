"""What each consistency level needs, and what clients are told when it is not there: on three nodes, some of them away."""

import subprocess
import time

import pytest
from cassandra import (
    ConsistencyLevel,
    InvalidRequest,
    ReadTimeout,
    Unavailable,
    WriteTimeout,
    WriteType,
)
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster as CqlCluster, ExecutionProfile
from cassandra.policies import FallthroughRetryPolicy, WhiteListRoundRobinPolicy
from cassandra.query import BatchStatement, SimpleStatement

from conftest import binary, wait_until
from doors import stopped, tessera, thinks_dead

# Of three replicas in one data centre.
REQUIRED = {
    "ANY": 1,
    "ONE": 1,
    "TWO": 2,
    "THREE": 3,
    "QUORUM": 2,
    "ALL": 3,
    "LOCAL_ONE": 1,
    "LOCAL_QUORUM": 2,
    "EACH_QUORUM": 2,
}


def create(cluster, door):
    door.run("CREATE KEYSPACE levels WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}")
    door.run("CREATE TABLE levels.t (k int PRIMARY KEY, v int)")
    cluster.wait_grown()
    door.run("INSERT INTO levels.t (k, v) VALUES (1, 1)", ConsistencyLevel.ALL)


def wait_dead(cluster, *dead):
    for index in dead:
        wait_until(f"node {index + 1} to be taken for dead", lambda index=index: thinks_dead(cluster, 0, index))


def level_of(name):
    return getattr(ConsistencyLevel, name)


def check_unavailable(door, alive):
    """Every level, for reads and writes, with so many of three replicas alive."""
    for name, required in REQUIRED.items():
        level = level_of(name)
        for statement in ["INSERT INTO levels.t (k, v) VALUES (1, 1)", "SELECT v FROM levels.t WHERE k = 1"]:
            if name == "ANY" and statement.startswith("SELECT"):
                with pytest.raises(InvalidRequest, match="only supported for writes"):
                    door.run(statement, level)
                continue
            if alive >= required:
                door.run(statement, level)
                continue
            with pytest.raises(Unavailable) as refused:
                door.run(statement, level)
            told = refused.value
            assert (told.consistency, told.required_replicas, told.alive_replicas) == (level, required, alive), name
    for name in ["SERIAL", "LOCAL_SERIAL"]:
        level = level_of(name)
        swap = SimpleStatement(
            "UPDATE levels.t SET v = 1 WHERE k = 1 IF EXISTS",
            consistency_level=ConsistencyLevel.ONE,
            serial_consistency_level=level,
        )
        read = SimpleStatement("SELECT v FROM levels.t WHERE k = 1", consistency_level=level)
        for statement in [swap, read]:
            if alive >= 2:
                assert door.session.execute(statement).one() is not None
                continue
            with pytest.raises(Unavailable) as refused:
                door.session.execute(statement)
            told = refused.value
            assert (told.consistency, told.required_replicas, told.alive_replicas) == (level, 2, alive), name


def test_too_few_alive_is_said_with_counts(cluster, doors):
    door = doors(0)
    create(cluster, door)
    check_unavailable(door, 3)
    cluster.kill(2)
    wait_dead(cluster, 2)
    check_unavailable(door, 2)
    cluster.kill(1)
    wait_dead(cluster, 1)
    check_unavailable(door, 1)


def test_any_needs_no_replica_alive(cluster, doors):
    door = doors(0)
    door.run("CREATE KEYSPACE single WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
    door.run("CREATE TABLE single.t (k int PRIMARY KEY, v int)")
    cluster.kill(2)
    wait_dead(cluster, 2)
    orphans = []
    for k in range(100):
        try:
            door.run(f"INSERT INTO single.t (k, v) VALUES ({k}, 1)", ConsistencyLevel.ONE)
        except Unavailable as error:
            assert (error.required_replicas, error.alive_replicas) == (1, 0)
            orphans.append(k)
    assert orphans and len(orphans) < 100
    for k in orphans:
        door.run(f"INSERT INTO single.t (k, v) VALUES ({k}, 2)", ConsistencyLevel.ANY)
        with pytest.raises(Unavailable):
            door.run(f"SELECT v FROM single.t WHERE k = {k}", ConsistencyLevel.ONE)
    cluster.start(2)

    def delivered():
        found = [door.insist(f"SELECT v FROM single.t WHERE k = {k}", ConsistencyLevel.ONE).one() for k in orphans]
        return all(row is not None and row.v == 2 for row in found)

    wait_until("the hints to be delivered", delivered, 60)


def connect_as_usual(cluster):
    """A driver with its own timeouts and its own retries, whose requests all go to the first node."""
    profile = ExecutionProfile(load_balancing_policy=WhiteListRoundRobinPolicy([cluster.HOSTS[0]]))
    client = CqlCluster(
        [cluster.HOSTS[0]], port=cluster.ports["cql"], execution_profiles={EXEC_PROFILE_DEFAULT: profile}
    )
    return client, client.connect()


def test_a_driver_as_it_comes_is_told_of_timeouts_with_counts(cluster, doors):
    """The server gives up before the driver does, and says how many have answered."""
    create(cluster, doors(0))
    client, session = connect_as_usual(cluster)

    def write(level):
        return SimpleStatement("INSERT INTO levels.t (k, v) VALUES (1, 1)", consistency_level=level)

    def read(level):
        return SimpleStatement("SELECT v FROM levels.t WHERE k = 1", consistency_level=level)

    with stopped(cluster, 1, 2):
        # At once, before they are taken for dead.
        sent = [
            session.execute_async(write(ConsistencyLevel.QUORUM)),
            session.execute_async(read(ConsistencyLevel.QUORUM)),
            session.execute_async(write(ConsistencyLevel.ALL)),
        ]
        # It would be tried once more, as nothing of it is written.
        batch = BatchStatement(consistency_level=ConsistencyLevel.ONE, retry_policy=FallthroughRetryPolicy())
        for k in [1, 2, 3]:
            batch.add(SimpleStatement(f"INSERT INTO levels.t (k, v) VALUES ({k}, 1)"))
        kept = session.execute_async(batch)
        swap = session.execute_async("UPDATE levels.t SET v = 2 WHERE k = 1 IF v = 1")
        for future, kind, required in [(sent[0], WriteTimeout, 2), (sent[1], ReadTimeout, 2), (sent[2], WriteTimeout, 3)]:
            with pytest.raises(kind) as failed:
                future.result()
            told = failed.value
            assert (told.required_responses, told.received_responses) == (required, 1)
        with pytest.raises(WriteTimeout) as failed:
            kept.result()
        told = failed.value
        assert (told.write_type, told.consistency) == (WriteType.BATCH_LOG, ConsistencyLevel.TWO)
        assert (told.required_responses, told.received_responses) == (2, 1)
        with pytest.raises(WriteTimeout) as failed:
            swap.result()
        told = failed.value
        assert (told.write_type, told.consistency) == (WriteType.CAS, ConsistencyLevel.SERIAL)
        assert (told.required_responses, told.received_responses) == (2, 1)
    client.shutdown()


def test_timeouts_are_settings(cluster, doors):
    door = doors(0)
    create(cluster, door)
    for name, ms in [("write_request_timeout_ms", 300), ("read_request_timeout_ms", 600)]:
        tessera(cluster, "set", name, str(ms))
    refused = subprocess.run(
        [binary(), "set", "read_request_timeout_ms", "0", "--admin", cluster.addresses(0).admin],
        capture_output=True,
        text=True,
    )
    assert refused.returncode != 0
    with stopped(cluster, 1, 2):
        began = time.monotonic()
        with pytest.raises(WriteTimeout) as failed:
            door.run("INSERT INTO levels.t (k, v) VALUES (1, 2)")
        assert 0.3 <= time.monotonic() - began < 1.5
        assert failed.value.received_responses == 1
        began = time.monotonic()
        with pytest.raises(ReadTimeout) as failed:
            door.run("SELECT v FROM levels.t WHERE k = 1")
        assert 0.6 <= time.monotonic() - began < 3
        assert (failed.value.received_responses, failed.value.data_retrieved) == (1, True)
