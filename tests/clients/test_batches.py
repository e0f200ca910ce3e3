"""Batches over several partitions of eventual tables, through the official Python driver."""

import pytest
from cassandra import ConsistencyLevel
from cassandra.query import BatchStatement, BatchType, SimpleStatement

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
