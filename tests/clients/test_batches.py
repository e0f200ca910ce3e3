"""Batches over several partitions of eventual tables, through the official Python driver."""

import threading
from collections import defaultdict

import pytest
from cassandra import ConsistencyLevel
from cassandra.query import BatchStatement, BatchType, SimpleStatement

from conftest import wait_until
from doors import PATIENCE_SECONDS
from test_cql import connect, tuples


@pytest.fixture(scope="module")
def session(node):
    cluster, session = connect(node.cql)
    cluster.profile_manager.default.consistency_level = ConsistencyLevel.QUORUM
    session.execute("DROP KEYSPACE IF EXISTS batched")
    session.execute("CREATE KEYSPACE batched WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}")
    session.set_keyspace("batched")
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v int)")
    session.execute("CREATE TABLE u (k int, c int, v int, s int static, PRIMARY KEY (k, c))")
    yield session
    cluster.shutdown()


@pytest.mark.parametrize("kind", [BatchType.LOGGED, BatchType.UNLOGGED])
def test_batches_over_partitions_and_tables(session, kind):
    session.execute("TRUNCATE t")
    session.execute("TRUNCATE u")
    insert = session.prepare("INSERT INTO t (k, v) VALUES (?, ?)")
    batch = BatchStatement(batch_type=kind)
    for key in range(40):
        batch.add(insert, (key, key * 2))
        batch.add(SimpleStatement("INSERT INTO u (k, c, v, s) VALUES (%s, 1, %s, 7)"), (key, key))
    batch.add(SimpleStatement("DELETE FROM u WHERE k = 5 AND c = 9"))
    session.execute(batch)
    assert sorted(tuples(session.execute("SELECT k, v FROM t"))) == [(key, key * 2) for key in range(40)]
    assert len(tuples(session.execute("SELECT k, s, v FROM u"))) == 40


def test_timestamps_of_batches(session):
    session.execute(
        "BEGIN BATCH USING TIMESTAMP 100 INSERT INTO t (k, v) VALUES (101, 1); INSERT INTO t (k, v) VALUES (102, 1) "
        "APPLY BATCH"
    )
    session.execute(
        "BEGIN BATCH INSERT INTO t (k, v) VALUES (101, 2) USING TIMESTAMP 50; "
        "INSERT INTO t (k, v) VALUES (102, 2) USING TIMESTAMP 200 APPLY BATCH"
    )
    rows = sorted(tuples(session.execute("SELECT k, v, writetime(v) FROM t WHERE k IN (101, 102)")))
    assert rows == [(101, 1, 100), (102, 2, 200)]


def test_batches_at_each_level(session):
    for level in ["ANY", "ONE", "LOCAL_ONE", "QUORUM", "LOCAL_QUORUM", "EACH_QUORUM", "ALL"]:
        batch = BatchStatement(consistency_level=getattr(ConsistencyLevel, level))
        batch.add(SimpleStatement("INSERT INTO t (k, v) VALUES (201, 1)"))
        batch.add(SimpleStatement("INSERT INTO t (k, v) VALUES (202, 1)"))
        session.execute(batch)
    assert len(tuples(session.execute("SELECT k FROM t WHERE k IN (201, 202)"))) == 2


def test_a_batch_whose_coordinator_dies_happens_in_whole_or_not_at_all(cluster, doors):
    door, other = doors(0), doors(1)
    door.run("CREATE KEYSPACE torn WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}")
    door.run("CREATE TABLE torn.t (k int PRIMARY KEY, whose int)")
    cluster.wait_grown()
    insert = door.session.prepare("INSERT INTO torn.t (k, whose) VALUES (?, ?)")
    size, begun, acknowledged = 12, [], set()
    room, dead = threading.Semaphore(40), threading.Event()

    def submit():
        while not dead.is_set():
            room.acquire()
            number = len(begun)
            batch = BatchStatement(consistency_level=ConsistencyLevel.QUORUM)
            for k in range(number * size, (number + 1) * size):
                batch.add(insert, (k, number))
            begun.append(number)
            try:
                future = door.session.execute_async(batch)
            except Exception:  # noqa: BLE001: the node has gone
                return

            def done(_, number=number):
                acknowledged.add(number)
                room.release()

            future.add_callbacks(done, lambda _: room.release())

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    wait_until("many batches", lambda: len(acknowledged) > 100)
    cluster.kill(0)
    dead.set()
    room.release()
    thread.join()

    def found(door, level):
        """By batch: which of its rows are there, with their timestamps."""
        batches = defaultdict(dict)
        for row in door.insist("SELECT k, whose, writetime(whose) AS at FROM torn.t", level):
            batches[row.whose][row.k] = row.at
        return batches

    def is_whole(batches):
        return all(len(rows) == size for rows in batches.values()) and batches.keys() >= acknowledged

    wait_until(
        "what was torn to be mended",
        lambda: is_whole(found(other, ConsistencyLevel.QUORUM)),
        PATIENCE_SECONDS,
    )
    assert len(acknowledged) < len(begun), "some were under way"
    # The node that began them may have some of them still to write.
    cluster.start(0)
    returned = doors(0)

    def agree():
        here, there = found(returned, ConsistencyLevel.ONE), found(other, ConsistencyLevel.ONE)
        return is_whole(here) and here == there == found(other, ConsistencyLevel.ALL)

    wait_until("each node to have all of it", agree, PATIENCE_SECONDS)
    # Whoever wrote it: at the batch's own time.
    assert all(len(set(rows.values())) == 1 for rows in found(other, ConsistencyLevel.ALL).values())
