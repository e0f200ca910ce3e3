"""The CQL door, through the official Python driver and cqlsh."""

import contextlib
import datetime
import decimal
import ipaddress
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid

import pytest
from cassandra import (
    AlreadyExists,
    ConsistencyLevel,
    InvalidRequest,
    ProtocolVersion,
    ReadFailure,
    ReadTimeout,
    Unauthorized,
    Unavailable,
)
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import DCAwareRoundRobinPolicy, FallthroughRetryPolicy, TokenAwarePolicy
from cassandra.protocol import ConfigurationException, SyntaxException
from cassandra.query import (
    UNSET_VALUE,
    BatchStatement,
    BatchType,
    SimpleStatement,
)
from cassandra.util import Date, Duration, Time

from conftest import binary, status


def connect(address, version=ProtocolVersion.V5, **arguments):
    host, port = address.rsplit(":", 1)
    profile = ExecutionProfile(load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy()))
    cluster = Cluster(
        [host],
        port=int(port),
        protocol_version=version,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        **arguments,
    )
    return cluster, cluster.connect()


@pytest.fixture(scope="module", params=[ProtocolVersion.V3, ProtocolVersion.V4, ProtocolVersion.V5])
def session(request, node):
    cluster, session = connect(node.cql, request.param)
    session.execute("DROP KEYSPACE IF EXISTS suite")
    session.execute(
        "CREATE KEYSPACE suite WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    session.set_keyspace("suite")
    yield session
    cluster.shutdown()


@pytest.fixture()
def table(session):
    """A fresh table: partition key k, clustering columns a and b (descending), static s, regular v."""
    name = f"t{uuid.uuid4().hex[:12]}"
    session.execute(
        f"CREATE TABLE {name} (k int, a int, b text, s text static, v int, PRIMARY KEY (k, a, b)) "
        "WITH CLUSTERING ORDER BY (a ASC, b DESC)"
    )
    yield name
    session.execute(f"DROP TABLE {name}")


@pytest.fixture(scope="module")
def strong(node):
    cluster, session = connect(node.cql)
    session.execute("DROP KEYSPACE IF EXISTS suite_strong")
    session.execute(
        "CREATE KEYSPACE suite_strong WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1} "
        "AND consistency = 'strong'"
    )
    session.set_keyspace("suite_strong")
    yield session
    cluster.shutdown()


def tuples(result):
    return [tuple(row) for row in result]


# Connecting


def test_falls_back_to_a_version_that_the_server_speaks(node):
    host, port = node.cql.rsplit(":", 1)
    cluster = Cluster([host], port=int(port), load_balancing_policy=DCAwareRoundRobinPolicy())
    cluster.connect().execute("SELECT key FROM system.local")
    assert cluster.protocol_version == ProtocolVersion.V5
    cluster.shutdown()


@pytest.mark.parametrize("compression", ["lz4", "snappy"])
def test_compression(node, compression):
    pytest.importorskip(compression if compression == "lz4" else "snappy")
    version = ProtocolVersion.V5 if compression == "lz4" else ProtocolVersion.V4
    cluster, session = connect(node.cql, version, compression=compression)
    text = "x" * 300_000
    session.execute(
        "CREATE KEYSPACE IF NOT EXISTS packed WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    session.execute("CREATE TABLE IF NOT EXISTS packed.t (k int PRIMARY KEY, v text)")
    session.execute("INSERT INTO packed.t (k, v) VALUES (1, %s)", (text,))
    assert session.execute("SELECT v FROM packed.t WHERE k = 1").one().v == text
    session.execute("DROP KEYSPACE packed")
    cluster.shutdown()


def test_what_drivers_read_of_the_cluster(session):
    local = session.execute("SELECT * FROM system.local WHERE key = 'local'").one()
    assert local.bootstrapped == "COMPLETED"
    assert local.partitioner.endswith("Murmur3Partitioner")
    assert local.cql_version and local.release_version.startswith("5.0.")
    assert local.tokens
    metadata = session.cluster.metadata
    assert metadata.token_map is not None
    assert "suite" in metadata.keyspaces
    assert metadata.keyspaces["system"].virtual
    assert session.cluster.control_connection.wait_for_schema_agreement()
    rows = session.execute("SELECT table_name FROM system_virtual_schema.tables WHERE keyspace_name = 'system'")
    assert "local" in [row.table_name for row in rows]
    assert session.execute("SELECT count(*) FROM system.size_estimates").one()[0] == 0


def test_token_aware_routing(session, table):
    prepared = session.prepare(f"SELECT v FROM {table} WHERE k = ?")
    # v3 does not tell the key's positions; the driver finds them in its metadata.
    bound = prepared.bind((1,))
    assert bound.routing_key == struct.pack(">i", 1)
    session.execute(f"INSERT INTO {table} (k, a, b) VALUES (1, 1, 'x')")
    token = session.execute(f"SELECT token(k) AS t FROM {table} WHERE k = 1").one().t
    assert token == -4069959284402364209
    metadata = session.cluster.metadata
    assert metadata.token_map.token_class.from_key(bound.routing_key).value == token
    assert metadata.get_replicas("suite", bound.routing_key)


# Types


SCALARS = [
    ("ascii", "plain"),
    ("bigint", -(2**63)),
    ("blob", b"\x00\xff"),
    ("boolean", True),
    ("date", Date(datetime.date(1969, 12, 31))),
    ("decimal", decimal.Decimal("-123456789012345678901234567890.000123")),
    ("double", 1e300),
    ("float", -0.5),
    ("inet", "2001:db8::1"),
    ("inet", "127.0.0.1"),
    ("int", -(2**31)),
    ("smallint", -(2**15)),
    ("text", "grün ✓"),
    ("time", Time(86399999999999)),
    ("timestamp", datetime.datetime(1965, 1, 2, 3, 4, 5, 678000)),
    ("timeuuid", uuid.uuid1()),
    ("tinyint", -128),
    ("uuid", uuid.uuid4()),
    ("varint", -(10**40)),
    ("duration", Duration(14, 3, 5_000_000_000)),
    ("list<int>", [3, 1, 3]),
    ("set<text>", {"b", "a"}),
    ("map<text, bigint>", {"x": 1, "y": -1}),
    ("frozen<list<text>>", ["a", "b"]),
    ("frozen<set<uuid>>", {uuid.UUID(int=1), uuid.UUID(int=2)}),
    ("frozen<map<int, text>>", {2: "two", 1: "one"}),
    ("map<int, frozen<list<text>>>", {1: ["a"], 2: []}),
    ("tuple<int, text, boolean>", (1, None, True)),
]


def plain(value):
    """What drivers wrap, without the wrapping."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if not isinstance(value, str) and hasattr(value, "isdisjoint"):
        return sorted(value)
    return value


def test_every_type_goes_there_and_back(session):
    for index, (kind, value) in enumerate(SCALARS):
        if kind == "duration" and session.cluster.protocol_version < 4:
            continue
        name = f"typed{index}"
        session.execute(f"CREATE TABLE {name} (k int PRIMARY KEY, v {kind})")
        insert = session.prepare(f"INSERT INTO {name} (k, v) VALUES (?, ?)")
        session.execute(insert, (1, value))
        session.execute(insert, (2, None))
        found = session.execute(f"SELECT v FROM {name} WHERE k = 1").one().v
        assert plain(found) == plain(value), kind
        assert session.execute(f"SELECT v FROM {name} WHERE k = 2").one().v is None
        # The driver writes decimals, durations and tuples as literals of other types.
        if kind not in ("decimal", "duration", "tuple<int, text, boolean>"):
            session.execute(f"INSERT INTO {name} (k, v) VALUES (3, %s)", (value,))
            found = session.execute(f"SELECT v FROM {name} WHERE k = 3").one().v
            assert plain(found) == plain(value), f"{kind} as a literal"
        session.execute(f"DROP TABLE {name}")


KEYS = [
    ("bigint", [-(2**63), -1, 0, 1, 2**63 - 1]),
    ("text", ["a", "a\x00", "ab", "b", "é"]),
    ("double", [float("-inf"), -1.5, 0.0, 1e-300, float("inf")]),
    ("decimal", [decimal.Decimal(d) for d in ("-10", "-9.99", "0", "0.001", "1E+5")]),
    ("varint", [-(10**30), -256, 0, 255, 10**30]),
    ("timestamp", [datetime.datetime(1950, 1, 1), datetime.datetime(1970, 1, 1), datetime.datetime(2030, 1, 1)]),
    ("inet", ["10.0.0.1", "10.0.0.2", "192.168.0.1"]),
    ("boolean", [False, True]),
    ("frozen<list<int>>", [[], [1], [1, 2], [2]]),
]


@pytest.mark.parametrize("order", ["ASC", "DESC"])
def test_clustering_order_of_types(session, order):
    for index, (kind, values) in enumerate(KEYS):
        name = f"ordered{index}"
        session.execute(
            f"CREATE TABLE {name} (k int, c {kind}, PRIMARY KEY (k, c)) WITH CLUSTERING ORDER BY (c {order})"
        )
        insert = session.prepare(f"INSERT INTO {name} (k, c) VALUES (1, ?)")
        for value in reversed(values):
            session.execute(insert, (value,))
        found = [row.c for row in session.execute(f"SELECT c FROM {name} WHERE k = 1 ORDER BY c ASC")]
        assert found == values, kind
        above = session.prepare(f"SELECT c FROM {name} WHERE k = 1 AND c > ?")
        assert len(list(session.execute(above, (values[0],)))) == len(values) - 1
        at_most = session.prepare(f"SELECT c FROM {name} WHERE k = 1 AND c <= ?")
        assert len(list(session.execute(at_most, (values[0],)))) == 1
        session.execute(f"DROP TABLE {name}")


def test_user_defined_types(session):
    session.execute("CREATE TYPE address (street text, number int, tags set<text>)")
    session.execute("CREATE TABLE homes (k int PRIMARY KEY, f frozen<address>, p address, l list<frozen<address>>)")
    session.execute(
        "INSERT INTO homes (k, f, p, l) VALUES (1, {street: 'a', number: 1, tags: {'x'}}, {street: 'b'}, "
        "[{street: 'c', number: 3}])"
    )
    session.execute("UPDATE homes SET p.number = 7 WHERE k = 1")
    row = session.execute("SELECT f, p, l, f.street AS street, p.number AS number FROM homes WHERE k = 1").one()
    assert (row.f.street, row.f.number, set(row.f.tags)) == ("a", 1, {"x"})
    assert (row.p.street, row.p.number) == ("b", 7)
    assert row.l[0].number == 3
    assert (row.street, row.number) == ("a", 7)
    with pytest.raises(InvalidRequest, match="still used"):
        session.execute("DROP TYPE address")
    session.execute("DROP TABLE homes")
    session.execute("DROP TYPE address")


# Writing


def test_update_is_an_upsert_but_leaves_no_marker(session, table):
    session.execute(f"UPDATE {table} SET v = 1 WHERE k = 1 AND a = 1 AND b = 'x'")
    assert tuples(session.execute(f"SELECT * FROM {table} WHERE k = 1")) == [(1, 1, "x", None, 1)]
    session.execute(f"UPDATE {table} SET v = null WHERE k = 1 AND a = 1 AND b = 'x'")
    assert tuples(session.execute(f"SELECT * FROM {table} WHERE k = 1")) == []
    session.execute(f"INSERT INTO {table} (k, a, b) VALUES (1, 1, 'x')")
    assert tuples(session.execute(f"SELECT * FROM {table} WHERE k = 1")) == [(1, 1, "x", None, None)]


def test_deletes(session, table):
    insert = session.prepare(f"INSERT INTO {table} (k, a, b, v) VALUES (?, ?, ?, ?)")

    def fill():
        for a in range(4):
            for b in "xyz":
                session.execute(insert, (1, a, b, a))

    def left():
        return [(row.a, row.b) for row in session.execute(f"SELECT a, b FROM {table} WHERE k = 1")]

    fill()
    session.execute(f"DELETE FROM {table} WHERE k = 1 AND a = 0 AND b = 'y'")
    assert (0, "y") not in left() and len(left()) == 11
    session.execute(f"DELETE FROM {table} WHERE k = 1 AND a = 1")
    assert len(left()) == 8
    session.execute(f"DELETE FROM {table} WHERE k = 1 AND a = 2 AND b > 'x'")
    assert [key for key in left() if key[0] == 2] == [(2, "x")]
    session.execute(f"DELETE FROM {table} WHERE k = 1 AND a >= 2 AND a < 4")
    assert left() == [(0, "z"), (0, "x")]
    session.execute(f"DELETE v FROM {table} WHERE k = 1 AND a = 0 AND b = 'z'")
    assert session.execute(f"SELECT v FROM {table} WHERE k = 1 AND a = 0 AND b = 'z'").one().v is None
    session.execute(f"DELETE FROM {table} WHERE k = 1")
    assert left() == []
    fill()
    session.execute(f"DELETE FROM {table} WHERE k = 1 AND a IN (0, 1) AND b IN ('x', 'y')")
    assert len(left()) == 8
    session.execute(f"TRUNCATE {table}")
    assert left() == []


def test_timestamps_decide(session, table):
    write = f"INSERT INTO {table} (k, a, b, v) VALUES (1, 1, 'x', %s) USING TIMESTAMP %s"
    session.execute(write, (10, 10))
    session.execute(write, (5, 5))
    row = session.execute(f"SELECT v, writetime(v) AS at FROM {table} WHERE k = 1").one()
    assert (row.v, row.at) == (10, 10)
    session.execute(f"DELETE FROM {table} USING TIMESTAMP 9 WHERE k = 1")
    assert session.execute(f"SELECT v FROM {table} WHERE k = 1").one().v == 10
    session.execute(f"DELETE FROM {table} USING TIMESTAMP 10 WHERE k = 1")
    assert session.execute(f"SELECT v FROM {table} WHERE k = 1").one() is None


def test_time_to_live(session, table):
    session.execute(f"INSERT INTO {table} (k, a, b, v) VALUES (1, 1, 'x', 1) USING TTL 1000")
    session.execute(f"INSERT INTO {table} (k, a, b, v) VALUES (1, 1, 'y', 1) USING TTL 1")
    assert 990 < session.execute(f"SELECT ttl(v) AS t FROM {table} WHERE k = 1 AND a = 1 AND b = 'x'").one().t <= 1000
    deadline = time.monotonic() + 10
    while len(list(session.execute(f"SELECT * FROM {table} WHERE k = 1"))) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(InvalidRequest, match="ttl is too large"):
        session.execute(f"INSERT INTO {table} (k, a, b) VALUES (1, 1, 'x') USING TTL 999999999")


def test_static_columns(session, table):
    session.execute(f"INSERT INTO {table} (k, s) VALUES (1, 'only')")
    session.execute(f"INSERT INTO {table} (k, a, b, s, v) VALUES (2, 1, 'x', 'both', 1)")
    session.execute(f"INSERT INTO {table} (k, a, b, v) VALUES (2, 2, 'x', 2)")
    session.execute(f"INSERT INTO {table} (k, a, b, v) VALUES (3, 1, 'x', 3)")
    rows = sorted(tuples(session.execute(f"SELECT k, a, s, v FROM {table}")), key=str)
    expected = [(1, None, "only", None), (2, 1, "both", 1), (2, 2, "both", 2), (3, 1, None, 3)]
    assert rows == sorted(expected, key=str)
    for fetch_size in (1, 2, 3):
        paged = SimpleStatement(f"SELECT k, a, s, v FROM {table}", fetch_size=fetch_size)
        assert sorted(tuples(session.execute(paged)), key=str) == sorted(expected, key=str)
    backwards = tuples(session.execute(f"SELECT a, s FROM {table} WHERE k = 2 ORDER BY a DESC, b ASC"))
    assert backwards == [(2, "both"), (1, "both")]
    assert tuples(session.execute(f"SELECT a, s FROM {table} WHERE k = 2 AND a = 2")) == [(2, "both")]
    assert tuples(session.execute(f"SELECT a, s FROM {table} WHERE k = 1 AND a = 2")) == []
    distinct = tuples(session.execute(f"SELECT DISTINCT k, s FROM {table}"))
    assert sorted(distinct, key=str) == sorted([(1, "only"), (2, "both"), (3, None)], key=str)
    # Of a partition that has no rows, or none any more, the static columns are shown alone.
    for b in "uvwxyz":
        session.execute(f"INSERT INTO {table} (k, a, b, v) VALUES (1, 1, '{b}', 1)")
    session.execute(f"DELETE FROM {table} WHERE k = 1 AND a = 1 AND b > 'v'")
    for b in "uv":
        session.execute(f"DELETE FROM {table} WHERE k = 1 AND a = 1 AND b = '{b}'")
    for order in ("", "ORDER BY a DESC, b ASC"):
        for fetch_size in (1, 2, 5_000):
            alone = SimpleStatement(f"SELECT k, a, s, v FROM {table} WHERE k = 1 {order}", fetch_size=fetch_size)
            assert tuples(session.execute(alone)) == [(1, None, "only", None)]
    assert sorted(tuples(session.execute(f"SELECT k, a, s, v FROM {table} WHERE k IN (1, 3)"))) == [
        (1, None, "only", None),
        (3, 1, None, 3),
    ]
    session.execute(f"UPDATE {table} SET s = 'new' WHERE k = 2")
    assert {row.s for row in session.execute(f"SELECT s FROM {table} WHERE k = 2")} == {"new"}


def test_collections(session):
    session.execute("DROP TABLE IF EXISTS collected")
    session.execute("CREATE TABLE collected (k int PRIMARY KEY, l list<int>, s set<text>, m map<text, int>)")

    def one(column):
        value = session.execute(f"SELECT {column} FROM collected WHERE k = 1").one()[0]
        return None if value is None else plain(value)

    session.execute("UPDATE collected SET l = [1, 2], s = {'a'}, m = {'x': 1} WHERE k = 1")
    session.execute("UPDATE collected SET l = l + [3], s = s + {'b', 'c'}, m = m + {'y': 2} WHERE k = 1")
    session.execute("UPDATE collected SET l = [-1, 0] + l, s = s - {'a'}, m['z'] = 3 WHERE k = 1")
    assert one("l") == [-1, 0, 1, 2, 3]
    assert one("s") == ["b", "c"]
    assert one("m") == {"x": 1, "y": 2, "z": 3}
    session.execute("UPDATE collected SET l[0] = 9, m = m - {'x'} WHERE k = 1")
    session.execute("DELETE l[1], s['b'], m['z'] FROM collected WHERE k = 1")
    assert (one("l"), one("s"), one("m")) == ([9, 1, 2, 3], ["c"], {"y": 2})
    session.execute("UPDATE collected SET l = l - [1, 3], m['y'] = null WHERE k = 1")
    assert (one("l"), one("m")) == ([9, 2], None)
    session.execute("UPDATE collected SET l = [], s = {} WHERE k = 1")
    # An empty collection is none at all, and so nothing is left of the row, which no INSERT has made.
    assert session.execute("SELECT * FROM collected WHERE k = 1").one() is None
    with pytest.raises(InvalidRequest, match="list which is null"):
        session.execute("UPDATE collected SET l[0] = 1 WHERE k = 1")
    session.execute("INSERT INTO collected (k, m) VALUES (1, {'a': 1, 'b': 2})")
    assert session.execute("SELECT m['b'] AS b FROM collected WHERE k = 1").one().b == 2
    rows = session.execute("SELECT k FROM collected WHERE m CONTAINS KEY 'a' AND m CONTAINS 2 ALLOW FILTERING")
    assert tuples(rows) == [(1,)]


def test_unset_and_named_values(session, table):
    session.execute(f"INSERT INTO {table} (k, a, b, v) VALUES (1, 1, 'x', 7)")
    named = session.prepare(f"INSERT INTO {table} (k, a, b, v) VALUES (:k, :a, :b, :value)")
    assert [column.name for column in named.column_metadata] == ["k", "a", "b", "value"]
    if session.cluster.protocol_version >= 4:
        session.execute(named, {"k": 1, "a": 1, "b": "x", "value": UNSET_VALUE})
        assert session.execute(f"SELECT v FROM {table} WHERE k = 1").one().v == 7
    session.execute(named, {"k": 1, "a": 1, "b": "x", "value": None})
    assert session.execute(f"SELECT v FROM {table} WHERE k = 1").one().v is None


def test_batches(session, table):
    insert = session.prepare(f"INSERT INTO {table} (k, a, b, v) VALUES (?, ?, ?, ?)")
    batch = BatchStatement(BatchType.UNLOGGED)
    for key in range(20):
        batch.add(insert, (key, 1, "x", key))
    batch.add(SimpleStatement(f"INSERT INTO {table} (k, a, b, v) VALUES (100, 1, 'x', 100)"))
    result = session.execute_async(batch)
    result.result()
    if session.cluster.protocol_version >= 4:
        assert "21 partitions" in result.warnings[0]
    assert session.execute(f"SELECT count(*) FROM {table}").one()[0] == 21
    logged = BatchStatement(BatchType.LOGGED)
    logged.add(insert, (1, 2, "y", 1))
    logged.add(insert, (1, 2, "z", 1))
    session.execute(logged)
    assert len(list(session.execute(f"SELECT * FROM {table} WHERE k = 1"))) == 3
    logged.add(insert, (2, 2, "z", 1))
    session.execute(logged)
    assert session.execute(f"SELECT v FROM {table} WHERE k = 2 AND a = 2 AND b = 'z'").one().v == 1
    session.execute(
        f"BEGIN BATCH USING TIMESTAMP 5 INSERT INTO {table} (k, a, b, v) VALUES (300, 1, 'a', 1); "
        f"UPDATE {table} SET s = 's' WHERE k = 300 APPLY BATCH"
    )
    row = session.execute(f"SELECT s, writetime(v) AS at FROM {table} WHERE k = 300").one()
    assert (row.s, row.at) == ("s", 5)


# Reading


def fill(session, table, partitions=3, rows=10):
    insert = session.prepare(f"INSERT INTO {table} (k, a, b, v) VALUES (?, ?, ?, ?)")
    for k in range(partitions):
        for a in range(rows):
            session.execute(insert, (k, a // 2, "xy"[a % 2], a))


def test_restrictions(session, table):
    fill(session, table)

    def values(where, *arguments):
        statement = session.prepare(f"SELECT v FROM {table} WHERE {where}")
        return [row.v for row in session.execute(statement, arguments)]

    assert values("k = ?", 1) == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]
    assert values("k = ? AND a = ?", 1, 2) == [5, 4]
    assert values("k = ? AND a = ? AND b = ?", 1, 2, "x") == [4]
    assert values("k = ? AND a > ? AND a <= ?", 1, 1, 3) == [5, 4, 7, 6]
    assert values("k = ? AND a = ? AND b < ?", 1, 2, "y") == [4]
    assert values("k = ? AND a IN ? AND b = ?", 1, [3, 0, 3], "y") == [1, 7]
    assert values("k = ? AND (a, b) > (?, ?)", 1, 3, "x") == [7, 9, 8]
    assert values("k = ? AND (a, b) <= (?, ?)", 1, 1, "x") == [1, 0, 2]
    assert values("k = ? AND (a, b) IN ((?, ?), (?, ?))", 1, 4, "x", 0, "y") == [1, 8]
    assert sorted(values("k IN ? AND a = ? AND b = ?", [0, 2, 9], 1, "x")) == [2, 2]
    assert values("k = ? AND a = ? LIMIT ?", 1, 2, 1) == [5]
    with pytest.raises(InvalidRequest, match="ALLOW FILTERING"):
        session.execute(f"SELECT * FROM {table} WHERE v = 1")
    with pytest.raises(InvalidRequest, match="cannot be restricted as preceding column"):
        session.execute(f"SELECT * FROM {table} WHERE k = 1 AND b = 'x'")
    with pytest.raises(InvalidRequest, match="Only EQ and IN relation"):
        session.execute(f"SELECT * FROM {table} WHERE k > 1")
    with pytest.raises(InvalidRequest, match="Undefined column name nope"):
        session.execute(f"SELECT nope FROM {table}")
    filtered = session.execute(f"SELECT k, v FROM {table} WHERE v >= 8 AND b = 'x' ALLOW FILTERING")
    assert sorted(tuples(filtered)) == [(0, 8), (1, 8), (2, 8)]


def test_order_and_limits(session, table):
    fill(session, table)
    backwards = session.execute(f"SELECT v FROM {table} WHERE k = 1 ORDER BY a DESC, b ASC LIMIT 3")
    assert [row.v for row in backwards] == [8, 9, 6]
    slices = session.execute(f"SELECT v FROM {table} WHERE k = 1 AND a >= 1 AND a < 3 ORDER BY a DESC")
    assert [row.v for row in slices] == [4, 5, 2, 3]
    with pytest.raises(InvalidRequest, match="Unsupported order by"):
        session.execute(f"SELECT v FROM {table} WHERE k = 1 ORDER BY a DESC, b DESC")
    sorted_rows = session.execute(f"SELECT k, a, b FROM {table} WHERE k IN (0, 1) ORDER BY a ASC, b DESC LIMIT 3")
    assert [(row.a, row.b) for row in sorted_rows] == [(0, "y"), (0, "y"), (0, "x")]
    per_partition = list(session.execute(f"SELECT k, v FROM {table} PER PARTITION LIMIT 2"))
    assert len(per_partition) == 6
    paged = SimpleStatement(f"SELECT k, v FROM {table} PER PARTITION LIMIT 3 LIMIT 8", fetch_size=2)
    assert len(list(session.execute(paged))) == 8
    with pytest.raises(InvalidRequest, match="LIMIT must be strictly positive"):
        session.execute(f"SELECT v FROM {table} LIMIT 0")


@pytest.mark.parametrize("fetch_size", [1, 3, 7, 30, 31, 1000])
def test_paging(session, table, fetch_size):
    fill(session, table)
    for query in (
        f"SELECT k, a, b FROM {table}",
        f"SELECT k, a, b FROM {table} WHERE k IN (0, 1, 2) AND a IN (0, 1, 2, 3, 4)",
        f"SELECT k, a, b FROM {table} WHERE k = 1 ORDER BY a DESC",
        f"SELECT k, a, b FROM {table} WHERE k IN (0, 2) AND a IN (1, 3) AND b IN ('x', 'y')",
        f"SELECT k, a, b FROM {table} WHERE b = 'x' ALLOW FILTERING",
    ):
        whole = tuples(session.execute(SimpleStatement(query, fetch_size=None)))
        result = session.execute(SimpleStatement(query, fetch_size=fetch_size))
        assert len(result.current_rows) == min(fetch_size, len(whole))
        assert tuples(result) == whole, query
    first = session.execute(SimpleStatement(f"SELECT k, a, b FROM {table}", fetch_size=4))
    again = session.execute(
        SimpleStatement(f"SELECT k, a, b FROM {table}", fetch_size=4), paging_state=first.paging_state
    )
    assert tuples(again.current_rows) == tuples(session.execute(f"SELECT k, a, b FROM {table}"))[4:8]


def test_who_pages_through_a_table_that_is_truncated_finds_nothing_more(session, table):
    for number in range(40):
        session.execute(f"INSERT INTO {table} (k, a, b, v) VALUES ({number % 4}, {number}, 'x', 1)")
    prepared = session.prepare(f"SELECT a FROM {table} WHERE k = ?")
    prepared.fetch_size = 4
    begun = [session.execute(SimpleStatement(f"SELECT a FROM {table}", fetch_size=7)), session.execute(prepared, (1,))]
    assert [len(result.current_rows) for result in begun] == [7, 4]
    session.execute(f"TRUNCATE {table}")
    for result in begun:
        result.fetch_next_page()
        assert not result.current_rows and not result.has_more_pages
    # What was prepared before works on what is written after.
    session.execute(f"INSERT INTO {table} (k, a, b, v) VALUES (1, 2, 'x', 3)")
    assert tuples(session.execute(prepared, (1,))) == [(2,)]


def test_token_ranges_cover_the_table(session, table):
    fill(session, table, partitions=20, rows=1)
    select = session.prepare(f"SELECT k FROM {table} WHERE token(k) > ? AND token(k) <= ?")
    bounds = [-(2**63), -(2**62), 0, 2**62, 2**63 - 1]
    found = [row.k for low, high in zip(bounds, bounds[1:]) for row in session.execute(select, (low, high))]
    assert sorted(found) == list(range(20))
    assert [row.k for row in session.execute(f"SELECT k FROM {table}")] == found


def test_functions_and_aggregates(session, table):
    fill(session, table, partitions=1)
    row = session.execute(
        f"SELECT count(*) AS n, count(v) AS nv, min(v) AS low, max(v) AS high, sum(v) AS total, avg(v) AS mean FROM {table}"
    ).one()
    assert (row.n, row.nv, row.low, row.high, row.total, row.mean) == (10, 10, 0, 9, 45, 4)
    assert session.execute(f"SELECT count(*) FROM {table} WHERE k = 77").one()[0] == 0
    row = session.execute(
        f"SELECT CAST(v AS text) AS t, CAST(v AS double) AS d, intAsBlob(v) AS b, blobAsInt(intAsBlob(v)) AS i "
        f"FROM {table} WHERE k = 0 AND a = 1 AND b = 'x'"
    ).one()
    assert (row.t, row.d, row.b, row.i) == ("2", 2.0, b"\x00\x00\x00\x02", 2)
    session.execute("CREATE TABLE IF NOT EXISTS timed (k timeuuid PRIMARY KEY, at timestamp, d date)")
    session.execute("INSERT INTO timed (k, at, d) VALUES (now(), toTimestamp(now()), currentDate())")
    row = session.execute("SELECT k, at, d, toTimestamp(k) AS t, toDate(k) AS day, toUnixTimestamp(at) AS u FROM timed").one()
    assert abs((row.t - row.at).total_seconds()) < 5
    assert row.day == row.d and row.u > 1_500_000_000_000
    session.execute("DROP TABLE timed")


def test_order_of_the_columns_of_select_star(session, table):
    session.execute(f"INSERT INTO {table} (k, a, b, s, v) VALUES (1, 2, 'x', 'st', 3)")
    assert session.execute(f"SELECT * FROM {table}").one()._asdict() == {"k": 1, "a": 2, "b": "x", "s": "st", "v": 3}
    assert list(session.execute(f"SELECT * FROM {table}").column_names) == ["k", "a", "b", "s", "v"]
    assert list(session.execute(f"SELECT v AS x, k FROM {table}").column_names) == ["x", "k"]


# Prepared statements and the schema


def test_prepared_statements_survive_schema_changes(session):
    session.execute("DROP TABLE IF EXISTS changing")
    session.execute("CREATE TABLE changing (k int PRIMARY KEY, v int)")
    select = session.prepare("SELECT * FROM changing WHERE k = ?")
    insert = session.prepare("INSERT INTO changing (k, v) VALUES (?, ?)")
    session.execute(insert, (1, 2))
    assert tuples(session.execute(select, (1,))) == [(1, 2)]
    session.execute("ALTER TABLE changing ADD w text")
    session.execute(insert, (2, 3))
    assert tuples(session.execute(select, (2,))) == [(2, 3, None)]
    session.execute("ALTER TABLE changing DROP v")
    assert tuples(session.execute(select, (2,))) == [(2, None)]
    with pytest.raises(InvalidRequest, match="v"):
        session.execute(insert, (2, 3))
    session.execute("ALTER TABLE changing RENAME k TO key")
    assert session.execute("SELECT key FROM changing").one() is not None
    session.execute("ALTER TABLE changing ADD v int")
    assert {row.v for row in session.execute("SELECT v FROM changing")} == {None}
    session.execute("DROP TABLE changing")


def test_schema_changes_reach_other_connections(session, node):
    cluster, _ = connect(node.cql)
    session.execute("DROP TABLE IF EXISTS announced")
    session.execute("CREATE TABLE announced (k int PRIMARY KEY, v frozen<list<int>>)")
    deadline = time.monotonic() + 20
    while "announced" not in cluster.metadata.keyspaces["suite"].tables:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    session.execute("DROP TABLE announced")
    while "announced" in cluster.metadata.keyspaces["suite"].tables:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cluster.shutdown()


def test_definitions_are_shown_as_they_were_made(session):
    session.execute("DROP TABLE IF EXISTS shown")
    session.execute(
        "CREATE TABLE shown (\"K\" int, p text, c int, d timeuuid, v map<text, frozen<set<int>>>, s int static, "
        "PRIMARY KEY ((\"K\", p), c, d)) WITH CLUSTERING ORDER BY (c DESC, d ASC) AND comment = 'it''s' "
        "AND gc_grace_seconds = 60 AND default_time_to_live = 3600 AND compaction = "
        "{'class': 'LeveledCompactionStrategy', 'sstable_size_in_mb': 160}"
    )
    session.cluster.refresh_table_metadata("suite", "shown")
    table = session.cluster.metadata.keyspaces["suite"].tables["shown"]
    assert [column.name for column in table.partition_key] == ["K", "p"]
    assert [(column.name, column.is_reversed) for column in table.clustering_key] == [("c", True), ("d", False)]
    assert table.columns["s"].is_static
    assert table.columns["v"].cql_type == "map<text, frozen<set<int>>>"
    assert table.options["comment"] == "it's"
    assert table.options["gc_grace_seconds"] == 60
    assert table.options["compaction"]["sstable_size_in_mb"] == "160"
    session.execute("ALTER TABLE shown WITH read_repair = 'none'")
    with pytest.raises(ConfigurationException, match="BLOCKING or NONE"):
        session.execute("ALTER TABLE shown WITH read_repair = 'sometimes'")
    statement = session.execute("DESCRIBE TABLE suite.shown").one().create_statement
    assert "read_repair = 'NONE'" in statement
    session.execute("DROP TABLE shown")
    session.execute(statement)
    session.execute("DROP TABLE shown")


def test_keyspaces(session):
    session.execute("DROP KEYSPACE IF EXISTS other")
    network = "{'class': 'NetworkTopologyStrategy', 'replication_factor': 1}"
    session.execute(
        f"CREATE KEYSPACE other WITH replication = {network} AND durability = 'periodic' AND durability_interval_ms = 50"
    )
    with pytest.raises(AlreadyExists):
        session.execute(f"CREATE KEYSPACE other WITH replication = {network}")
    session.execute(f"CREATE KEYSPACE IF NOT EXISTS other WITH replication = {network}")
    row = session.execute("SELECT * FROM system_schema.keyspaces WHERE keyspace_name = 'other'").one()
    assert row.replication["class"].endswith("NetworkTopologyStrategy")
    assert (row.consistency, row.durability) == ("eventual", "periodic")
    session.execute("ALTER KEYSPACE other WITH durable_writes = false AND durability = 'synced'")
    assert not session.execute("SELECT * FROM system_schema.keyspaces WHERE keyspace_name = 'other'").one().durable_writes
    for statement in (
        "CREATE KEYSPACE bad WITH replication = {'class': 'NoSuchStrategy'}",
        "CREATE KEYSPACE bad WITH replication = {'class': 'NetworkTopologyStrategy', 'nowhere': 3}",
        "CREATE KEYSPACE bad WITH durable_writes = true",
        "CREATE KEYSPACE bad WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1} AND consistency = 'x'",
    ):
        with pytest.raises(ConfigurationException):
            session.execute(statement)
    session.execute("DROP KEYSPACE other")
    with pytest.raises(InvalidRequest, match="doesn't exist"):
        session.execute("DROP KEYSPACE other")
    session.execute("DROP KEYSPACE IF EXISTS other")


def test_errors(session, table):
    cases = [
        ("SELEC * FROM t", SyntaxException, "no viable alternative"),
        (f"SELECT * FROM {table} WHERE", SyntaxException, "no viable alternative"),
        (f"CREATE TABLE {table} (k int PRIMARY KEY)", AlreadyExists, ""),
        ("CREATE TABLE bad (k int)", InvalidRequest, "PRIMARY KEY"),
        ("CREATE TABLE bad (k list<int> PRIMARY KEY)", InvalidRequest, "non-frozen collection"),
        ("CREATE TABLE bad (k int PRIMARY KEY, v list<list<int>>)", InvalidRequest, "Non-frozen collections"),
        ("CREATE TABLE bad (k int PRIMARY KEY, v nothing)", InvalidRequest, "Unknown type"),
        ("CREATE TABLE bad (k int PRIMARY KEY, v counter, w int)", InvalidRequest, "Cannot mix counter"),
        ("CREATE TABLE bad (k int PRIMARY KEY) WITH nonsense = 1", SyntaxException, "Unknown property"),
        ("CREATE TABLE system.bad (k int PRIMARY KEY)", Unauthorized, "not user-modifiable"),
        ("CREATE INDEX ON t (v)", InvalidRequest, "not supported yet"),
        ("INSERT INTO system.local (key) VALUES ('x')", InvalidRequest, "Cannot modify system table"),
        ("SELECT * FROM missing", InvalidRequest, "missing"),
        ("SELECT * FROM nowhere.t", InvalidRequest, "keyspace nowhere does not exist"),
        ("USE nowhere", InvalidRequest, "does not exist"),
        (f"INSERT INTO {table} (k, a) VALUES (1, 1)", InvalidRequest, "Some clustering keys are missing: b"),
        (f"INSERT INTO {table} (a, b) VALUES (1, 'x')", InvalidRequest, "Some partition key parts are missing: k"),
        (f"INSERT INTO {table} (k, a, b) VALUES ('x', 1, 'x')", InvalidRequest, "Invalid STRING constant"),
        (f"INSERT INTO {table} (k, a, b) VALUES (null, 1, 'x')", InvalidRequest, "null"),
        (f"UPDATE {table} SET a = 1 WHERE k = 1 AND a = 1 AND b = 'x'", InvalidRequest, "PRIMARY KEY part a"),
        (f"DELETE FROM {table} WHERE v = 1", InvalidRequest, "Non PRIMARY KEY columns"),
        (f"SELECT nosuch(v) FROM {table}", InvalidRequest, "Unknown function"),
        (f"SELECT writetime(k) FROM {table}", InvalidRequest, "PRIMARY KEY part k"),
    ]
    for statement, kind, message in cases:
        with pytest.raises(kind, match=message):
            session.execute(statement)
    with pytest.raises(InvalidRequest):
        session.prepare("SELECT nope FROM system.local")
    # The connection is as good as before.
    assert session.execute("SELECT key FROM system.local").one().key == "local"


def test_many_requests_at_once(session, table):
    insert = session.prepare(f"INSERT INTO {table} (k, a, b, v) VALUES (?, ?, ?, ?)")
    futures = [session.execute_async(insert, (key, 0, "x", key)) for key in range(3000)]
    for future in futures:
        future.result()
    select = session.prepare(f"SELECT v FROM {table} WHERE k = ?")
    futures = [(key, session.execute_async(select, (key,))) for key in range(3000)]
    assert all(future.result().one().v == key for key, future in futures)


def test_consistency_levels(session, table):
    """With one replica of everything; `test_levels.py` has those of three."""
    for name in ("ANY", "ONE", "TWO", "THREE", "QUORUM", "ALL", "LOCAL_ONE", "LOCAL_QUORUM", "EACH_QUORUM"):
        level = getattr(ConsistencyLevel, name)
        for text in (f"INSERT INTO {table} (k, a, b) VALUES (1, 1, 'x')", f"SELECT * FROM {table} WHERE k = 1"):
            statement = SimpleStatement(text, consistency_level=level, retry_policy=FallthroughRetryPolicy())
            if name in ("TWO", "THREE"):
                with pytest.raises(Unavailable) as refused:
                    session.execute(statement)
                told = refused.value
                required = 2 if name == "TWO" else 3
                assert (told.consistency, told.required_replicas, told.alive_replicas) == (level, required, 1)
            elif name == "ANY" and text.startswith("SELECT"):
                with pytest.raises(InvalidRequest, match="only supported for writes"):
                    session.execute(statement)
            else:
                session.execute(statement)


# Conditions


def test_conditions_on_strong_tables(strong):
    strong.execute("CREATE TABLE IF NOT EXISTS accounts (k int PRIMARY KEY, v int, w text)")
    strong.execute("TRUNCATE accounts")
    insert = strong.prepare("INSERT INTO accounts (k, v) VALUES (?, ?) IF NOT EXISTS")
    assert tuples(strong.execute(insert, (1, 10))) == [(True,)]
    result = strong.execute(insert, (1, 20))
    assert not result.was_applied
    assert tuples(result) == [(False, 1, 10, None)]
    update = strong.prepare("UPDATE accounts SET v = ? WHERE k = ? IF v = ?")
    assert strong.execute(update, (11, 1, 10)).was_applied
    result = strong.execute(update, (12, 1, 10))
    assert not result.was_applied and result.one().v == 11
    assert not strong.execute("UPDATE accounts SET v = 1 WHERE k = 2 IF EXISTS").was_applied
    assert strong.execute("UPDATE accounts SET v = 1 WHERE k = 2 IF v = null").was_applied
    assert strong.execute("SELECT v FROM accounts WHERE k = 2").one().v == 1
    assert not strong.execute("UPDATE accounts SET v = 5 WHERE k = 2 IF v = null").was_applied
    assert strong.execute("UPDATE accounts SET v = 2 WHERE k = 2 IF v IN (1, 5) AND w = null").was_applied
    assert strong.execute("UPDATE accounts SET v = 3 WHERE k = 2 IF v >= 2 AND v != 9").was_applied
    assert not strong.execute("DELETE FROM accounts WHERE k = 2 IF v = 7").was_applied
    assert strong.execute("DELETE FROM accounts WHERE k = 2 IF EXISTS").was_applied
    assert strong.execute("SELECT * FROM accounts WHERE k = 2").one() is None
    with pytest.raises(InvalidRequest):
        strong.execute("INSERT INTO accounts (k, v) VALUES (3, 3) USING TIMESTAMP 5")
    strong.execute("INSERT INTO accounts (k, v) VALUES (3, 3)")
    assert strong.execute("SELECT writetime(v) AS at FROM accounts WHERE k = 3").one().at > 1_500_000_000_000_000


def test_conditional_batches_and_statics_on_strong_tables(strong):
    strong.execute("CREATE TABLE IF NOT EXISTS ledger (k int, c int, total int static, v int, PRIMARY KEY (k, c))")
    strong.execute("TRUNCATE ledger")
    strong.execute("INSERT INTO ledger (k, total) VALUES (1, 0)")
    add = (
        "BEGIN BATCH UPDATE ledger SET total = %s WHERE k = 1 IF total = %s; "
        "INSERT INTO ledger (k, c, v) VALUES (1, %s, 5) APPLY BATCH"
    )
    assert strong.execute(add, (5, 0, 1)).was_applied
    assert not strong.execute(add, (5, 0, 2)).was_applied
    assert strong.execute(add, (10, 5, 2)).was_applied
    rows = tuples(strong.execute("SELECT c, total, v FROM ledger WHERE k = 1"))
    assert rows == [(1, 10, 5), (2, 10, 5)]


def test_counters_are_exact(session):
    """Counters in an eventual keyspace: every increment counts once, whoever adds at the same time."""
    session.execute("CREATE TABLE counts (k text, a int, c counter, d counter, PRIMARY KEY (k, a))")
    add = session.prepare("UPDATE counts SET c = c + ?, d = d - 1 WHERE k = ? AND a = ?")
    adding = [session.execute_async(add, (number % 3, f"k{number % 4}", 0)) for number in range(240)]
    for future in adding:
        future.result()
    rows = tuples(session.execute("SELECT SUM(c), SUM(d), COUNT(*) FROM counts"))
    assert rows == [(240, -240, 4)]
    batch = BatchStatement(batch_type=BatchType.COUNTER)
    for number in range(8):
        batch.add(add, (10, f"k{number % 4}", 1))
    session.execute(batch)
    rows = tuples(session.execute("SELECT c, d FROM counts WHERE k IN ('k0', 'k1', 'k2', 'k3') AND a = 1"))
    assert rows == [(20, -2)] * 4
    session.execute("DELETE FROM counts WHERE k = 'k0'")
    assert tuples(session.execute("SELECT c FROM counts WHERE k = 'k0'")) == []
    columns = session.cluster.metadata.keyspaces["suite"].tables["counts"].columns
    assert columns["c"].cql_type == "counter"
    session.execute("DROP TABLE counts")


def test_batches_over_partitions_of_strong_tables(strong):
    """A logged batch is atomic over partitions and tables, with conditions or without."""
    strong.execute("CREATE TABLE over1 (k int PRIMARY KEY, v int)")
    strong.execute("CREATE TABLE over2 (k int PRIMARY KEY, v int)")
    batch = BatchStatement()
    for k in range(10):
        batch.add(SimpleStatement("INSERT INTO over1 (k, v) VALUES (%s, 0)"), (k,))
        batch.add(SimpleStatement("INSERT INTO over2 (k, v) VALUES (%s, 0)"), (k,))
    strong.execute(batch)
    swap = (
        "BEGIN BATCH UPDATE over1 SET v = {} WHERE k = 1 IF v = 0; UPDATE over1 SET v = 7 WHERE k = 2; "
        "UPDATE over2 SET v = 7 WHERE k = 3 IF v = 0; APPLY BATCH"
    )
    assert tuples(strong.execute(swap.format(7))) == [(True,)]
    assert tuples(strong.execute(swap.format(8)))[0][0] is False
    for table, k in [("over1", 1), ("over1", 2), ("over2", 3)]:
        assert tuples(strong.execute(f"SELECT v FROM {table} WHERE k = {k}")) == [(7,)]


def test_transactions(strong):
    """Transfers between accounts in many partitions, at once and from prepared statements: the sum stays, meanwhile too."""
    strong.execute("CREATE TABLE moved (id int PRIMARY KEY, balance int, note text)")
    for account in range(6):
        strong.execute("INSERT INTO moved (id, balance) VALUES (%s, 10)", (account,))
    transfer = strong.prepare(
        "BEGIN TRANSACTION "
        "LET source = (SELECT balance FROM moved WHERE id = ?); "
        "SELECT source.balance; "
        "IF source.balance >= ? THEN "
        "UPDATE moved SET balance -= ? WHERE id = ?; "
        "UPDATE moved SET balance += ? WHERE id = ?; "
        "END IF COMMIT TRANSACTION"
    )
    pairs = [(number % 6, (number * 5 + 1) % 6) for number in range(120)]
    moves = [pair for pair in pairs if pair[0] != pair[1]]
    futures = [
        strong.execute_async(transfer, (source, 3, 3, source, 3, target)) for source, target in moves
    ]
    # Whoever looks at several rows at once sees them as they were at one time.
    ended = threading.Event()
    futures[-1].add_callbacks(lambda _: ended.set(), lambda _: ended.set())
    sums = 0
    while not ended.is_set():
        assert tuples(strong.execute("SELECT SUM(balance) FROM moved")) == [(60,)]
        some = tuples(strong.execute("SELECT balance FROM moved WHERE id IN (0, 1, 2, 3, 4, 5)"))
        assert sum(balance for (balance,) in some) == 60, some
        sums += 1
    assert sums > 0
    seen = [future.result()[0][0] for future in futures]
    assert all(0 <= balance <= 60 for balance in seen)
    balances = [row[0] for row in tuples(strong.execute("SELECT balance FROM moved"))]
    assert sum(balances) == 60 and min(balances) >= 0
    strong.execute(
        "BEGIN TRANSACTION LET a = (SELECT * FROM moved WHERE id = 9); "
        "IF a IS NULL THEN INSERT INTO moved (id, balance, note) VALUES (9, 0, 'made'); END IF COMMIT TRANSACTION"
    )
    assert tuples(strong.execute("SELECT note FROM moved WHERE id = 9")) == [("made",)]


def test_serial_levels_on_strong_tables(strong):
    strong.execute("CREATE TABLE serial (k int PRIMARY KEY, v int)")
    for level in [ConsistencyLevel.SERIAL, ConsistencyLevel.LOCAL_SERIAL]:
        insert = SimpleStatement("INSERT INTO serial (k, v) VALUES (%s, 1) IF NOT EXISTS", serial_consistency_level=level)
        assert strong.execute(insert, (level,)).was_applied
        read = SimpleStatement("SELECT v FROM serial WHERE k = %s", consistency_level=level)
        assert tuples(strong.execute(read, (level,))) == [(1,)]


def test_concurrent_increments_lose_nothing(strong):
    strong.execute("CREATE TABLE IF NOT EXISTS counts (k int PRIMARY KEY, n int)")
    strong.execute("INSERT INTO counts (k, n) VALUES (1, 0)")
    read = strong.prepare("SELECT n FROM counts WHERE k = 1")
    write = strong.prepare("UPDATE counts SET n = ? WHERE k = 1 IF n = ?")

    def increment(times):
        for _ in range(times):
            while True:
                now = strong.execute(read).one().n
                if strong.execute(write, (now + 1, now)).was_applied:
                    break

    threads = [threading.Thread(target=increment, args=(20,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert strong.execute(read).one().n == 80


# Bad input


def frame(version, opcode, body=b"", flags=0, stream=1, length=None):
    size = len(body) if length is None else length
    return struct.pack(">BBhBI", version, flags, stream, opcode, size) + body


def string(text):
    return struct.pack(">H", len(text)) + text.encode()


def startup():
    return frame(4, 1, struct.pack(">H", 1) + string("CQL_VERSION") + string("3.0.0"))


def read_frame(connection):
    header = b""
    while len(header) < 9:
        part = connection.recv(9 - len(header))
        if not part:
            return None
        header += part
    version, _, stream, opcode, size = struct.unpack(">BBhBI", header)
    body = b""
    while len(body) < size:
        body += connection.recv(size - len(body))
    return version, stream, opcode, body


def talk(node, *frames):
    """Sends frames and returns the last answer's opcode and error code, if it is one."""
    connection = socket.create_connection(node.host_port("cql"), timeout=10)
    answer = None
    for each in frames:
        connection.sendall(each)
        answer = read_frame(connection)
        if answer is None:
            return None
    connection.close()
    _, _, opcode, body = answer
    return opcode, struct.unpack(">i", body[:4])[0] if opcode == 0 else None


PROTOCOL_ERROR = (0, 0x0A)
READY, SUPPORTED = (2, None), (6, None)


def test_bad_frames_get_protocol_errors(node):
    query = struct.pack(">I", 3) + b"x y" + b"\x00\x01\x00"
    assert talk(node, startup()) == READY
    assert talk(node, frame(4, 5)) == SUPPORTED
    assert talk(node, frame(4, 7, query)) == PROTOCOL_ERROR, "before STARTUP"
    assert talk(node, startup(), frame(4, 7, query)) == (0, 0x2000)
    assert talk(node, startup(), frame(4, 0x55)) == PROTOCOL_ERROR
    assert talk(node, startup(), frame(4, 2)) == PROTOCOL_ERROR
    assert talk(node, startup(), frame(4, 7, b"\xff\xff")) == PROTOCOL_ERROR
    assert talk(node, startup(), frame(4, 7, struct.pack(">I", 2**31 - 1))) == PROTOCOL_ERROR
    assert talk(node, startup(), frame(4, 13, b"\x09\xff\xff")) == PROTOCOL_ERROR
    assert talk(node, startup(), frame(4, 10, string("no such id") + b"\x00\x01\x00")) == (0, 0x2500)
    assert talk(node, startup(), frame(4, 7, b"xx", flags=1)) == PROTOCOL_ERROR, "no compression agreed"
    assert talk(node, startup(), frame(5, 5)) == PROTOCOL_ERROR, "another version"
    assert talk(node, frame(4, 1, length=2**31)) == PROTOCOL_ERROR, "absurd length"
    assert talk(node, frame(0x42, 5)) == PROTOCOL_ERROR
    # The connection survives where it can.
    assert talk(node, startup(), frame(4, 0x55), frame(4, 5)) == SUPPORTED
    deep = "INSERT INTO t (a) VALUES (" + "[" * 100_000
    body = struct.pack(">I", len(deep)) + deep.encode() + b"\x00\x01\x00"
    assert talk(node, startup(), frame(4, 7, body), frame(4, 5)) == SUPPORTED


def test_garbage_does_not_hurt_the_node(node):
    import random

    seeded = random.Random(7)
    for _ in range(60):
        connection = socket.create_connection(node.host_port("cql"), timeout=10)
        if seeded.random() < 0.5:
            connection.sendall(startup())
        connection.sendall(bytes([4]) + seeded.randbytes(seeded.randrange(1, 400)))
        connection.close()
    assert talk(node, frame(4, 5)) == SUPPORTED


# cqlsh


def cqlsh(node, statement):
    host, port = node.host_port("cql")
    command = [os.path.join(os.path.dirname(sys.executable), "cqlsh"), host, str(port), "-e", statement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_cqlsh(node, tmp_path):
    csv = tmp_path / "rows.csv"
    cqlsh(
        node,
        "DROP KEYSPACE IF EXISTS shell; CREATE KEYSPACE shell WITH replication = "
        "{'class': 'SimpleStrategy', 'replication_factor': 1}; "
        "CREATE TABLE shell.t (k int, c text, v list<int>, PRIMARY KEY (k, c)); "
        "CREATE TABLE shell.u (k int, c text, v list<int>, PRIMARY KEY (k, c)); "
        "INSERT INTO shell.t (k, c, v) VALUES (1, 'it''s', [1, 2]); INSERT INTO shell.t (k, c) VALUES (2, 'x');",
    )
    assert "(2 rows)" in cqlsh(node, "SELECT * FROM shell.t")
    assert "shell" in cqlsh(node, "DESCRIBE KEYSPACES")
    assert "CREATE TABLE shell.t" in cqlsh(node, "DESCRIBE KEYSPACE shell")
    assert "PRIMARY KEY (k, c)" in cqlsh(node, "DESCRIBE TABLE shell.t")
    assert "Murmur3Partitioner" in cqlsh(node, "DESCRIBE CLUSTER")
    cqlsh(node, f"COPY shell.t (k, c, v) TO '{csv}'")
    cqlsh(node, f"COPY shell.u (k, c, v) FROM '{csv}'")
    assert cqlsh(node, "SELECT * FROM shell.u") == cqlsh(node, "SELECT * FROM shell.t")
    cqlsh(node, "DROP KEYSPACE shell")


@contextlib.contextmanager
def setting(node, name, value):
    """Changes a setting of the cluster for a while."""

    def change(to):
        subprocess.run([binary(), "set", name, str(to), "--admin", node.admin], check=True, capture_output=True)

    before = dict(status(node.admin)["settings"])[name]
    change(value)
    try:
        yield
    finally:
        change(before)


def test_reads_over_many_tombstones_warn_and_then_fail(session, node, table):
    for number in range(300):
        session.execute(f"INSERT INTO {table} (k, a, b, v) VALUES (1, {number}, 'b', 1)")
    for number in range(0, 298):
        session.execute(f"DELETE FROM {table} WHERE k = 1 AND a = {number} AND b = 'b'")
    everything = f"SELECT a FROM {table} WHERE k = 1"
    version = session.cluster.protocol_version

    def read(statement):
        future = session.execute_async(statement)
        return [row[0] for row in future.result()], future.warnings or []

    assert read(everything) == ([298, 299], [])
    with setting(node, "tombstone_warn_threshold", 100):
        found, warnings = read(everything)
        assert found == [298, 299]
        if version >= ProtocolVersion.V4:
            assert "Read 2 live rows and 298 tombstone cells" in warnings[0] and table in warnings[0]
        # Where fewer are looked at, and for a count as well as for rows.
        assert read(f"SELECT a FROM {table} WHERE k = 1 AND a > 290") == ([298, 299], [])
        assert len(read(f"SELECT COUNT(*) FROM {table} WHERE k = 1")[1]) == (version >= ProtocolVersion.V4)
    error = ReadFailure if version >= ProtocolVersion.V4 else ReadTimeout
    with setting(node, "tombstone_failure_threshold", 200):
        future = session.execute_async(SimpleStatement(everything, retry_policy=FallthroughRetryPolicy()))
        with pytest.raises(error) as failed:
            future.result()
        if version >= ProtocolVersion.V5:
            # The node that was asked gave up, whichever holds the partition.
            assert failed.value.error_code_map == {future.coordinator_host.address: 1}
        elif version >= ProtocolVersion.V4:
            assert failed.value.failures == 1
        # The connection goes on, and so does who reads less.
        assert read(f"SELECT a FROM {table} WHERE k = 1 AND a > 200")[0] == [298, 299]
        # A count of what is dead throughout fails as well.
        with pytest.raises(error):
            session.execute(SimpleStatement(f"SELECT COUNT(*) FROM {table}", fetch_size=50))
    assert read(everything) == ([298, 299], [])


def test_counts_look_at_as_many_tombstones_as_there_are_by_pages(session, node, table):
    """As many again as the threshold, but never so many within a page's live rows."""
    for number in range(200):
        session.execute(f"INSERT INTO {table} (k, a, b, v) VALUES ({number % 7}, {number}, 'b', 1)")
        session.execute(f"DELETE FROM {table} WHERE k = {number % 7} AND a = {number} AND b = 'gone'")
    with setting(node, "tombstone_failure_threshold", 100):
        for count in [f"SELECT COUNT(*) FROM {table}", f"SELECT COUNT(*) FROM {table} WHERE v = 1 ALLOW FILTERING"]:
            statement = SimpleStatement(count, fetch_size=40, retry_policy=FallthroughRetryPolicy())
            assert session.execute(statement).one()[0] == 200
        everything = SimpleStatement(
            f"SELECT a FROM {table}", fetch_size=1000, retry_policy=FallthroughRetryPolicy()
        )
        with pytest.raises((ReadFailure, ReadTimeout)):
            session.execute(everything)


def test_writes_that_look_at_many_tombstones_fail(session, node):
    session.execute("CREATE TABLE dead (k int PRIMARY KEY, m map<int, int>, l list<int>, v int)")
    session.execute("INSERT INTO dead (k, l, v) VALUES (1, [1, 2], 1)")
    for number in range(120):
        session.execute(f"UPDATE dead SET m[{number}] = 1 WHERE k = 1")
        session.execute(f"DELETE m[{number}] FROM dead WHERE k = 1")
    swap = SimpleStatement("UPDATE dead SET v = 2 WHERE k = 1 IF v = 1", retry_policy=FallthroughRetryPolicy())
    by_index = SimpleStatement("UPDATE dead SET l[0] = 7 WHERE k = 1", retry_policy=FallthroughRetryPolicy())
    with setting(node, "tombstone_failure_threshold", 100):
        for statement in [swap, by_index]:
            with pytest.raises((ReadFailure, ReadTimeout)):
                session.execute(statement)
    assert session.execute(swap).was_applied
    session.execute(by_index)
    assert session.execute("SELECT l, v FROM dead WHERE k = 1").one() == ([7, 2], 2)
    session.execute("DROP TABLE dead")
