"""Compare-and-set and serial reads on eventual tables, through the official Python driver."""

import threading
import time
from collections import Counter

import pytest
from cassandra import (
    ConsistencyLevel,
    InvalidRequest,
    ProtocolVersion,
    Unavailable,
    WriteTimeout,
    WriteType,
)
from cassandra.protocol import ErrorMessage
from cassandra.query import BatchStatement, SimpleStatement

from conftest import wait_until
from doors import PATIENCE_SECONDS, stopped
from test_cql import connect, tuples


@pytest.fixture(scope="module")
def session(node):
    cluster, session = connect(node.cql)
    # Reads through any node show what was committed through another.
    cluster.profile_manager.default.consistency_level = ConsistencyLevel.QUORUM
    session.execute("DROP KEYSPACE IF EXISTS swaps")
    session.execute("CREATE KEYSPACE swaps WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}")
    session.set_keyspace("swaps")
    yield session
    cluster.shutdown()


def test_conditions_on_columns(session):
    session.execute("CREATE TABLE accounts (k int PRIMARY KEY, v int, w text, d duration)")
    insert = session.prepare("INSERT INTO accounts (k, v) VALUES (?, ?) IF NOT EXISTS")
    assert tuples(session.execute(insert, (1, 10))) == [(True,)]
    result = session.execute(insert, (1, 20))
    assert not result.was_applied
    assert result.one()._asdict().keys() >= {"applied", "k", "v", "w"}
    assert (result.one().k, result.one().v, result.one().w) == (1, 10, None)
    update = session.prepare("UPDATE accounts SET v = ? WHERE k = ? IF v = ?")
    assert session.execute(update, (11, 1, 10)).was_applied
    assert tuples(session.execute(update, (12, 1, 10))) == [(False, 11)]
    # What plain reads show is what was agreed.
    assert tuples(session.execute("SELECT v FROM accounts WHERE k = 1")) == [(11,)]
    assert tuples(session.execute("UPDATE accounts SET v = 1 WHERE k = 2 IF EXISTS")) == [(False,)]
    assert session.execute("UPDATE accounts SET v = 1 WHERE k = 2 IF v = null").was_applied
    assert not session.execute("UPDATE accounts SET v = 5 WHERE k = 2 IF v = null").was_applied
    assert session.execute("UPDATE accounts SET v = 2 WHERE k = 2 IF v IN (1, 5) AND w = null").was_applied
    in_marker = session.prepare("UPDATE accounts SET v = 2 WHERE k = 2 IF v IN ?")
    assert session.execute(in_marker, ([2, 7],)).was_applied
    assert session.execute("UPDATE accounts SET v = 3 WHERE k = 2 IF v >= 2 AND v != 9").was_applied
    assert session.execute("UPDATE accounts SET d = 3d WHERE k = 2 IF d = null").was_applied
    assert session.execute("UPDATE accounts SET d = 4d WHERE k = 2 IF d = 3d").was_applied
    assert not session.execute("DELETE FROM accounts WHERE k = 2 IF v = 7").was_applied
    assert not session.execute("DELETE v FROM accounts WHERE k = 2 IF w = 'x'").was_applied
    assert session.execute("DELETE FROM accounts WHERE k = 2 IF EXISTS").was_applied
    assert session.execute("SELECT * FROM accounts WHERE k = 2").one() is None
    assert session.execute("INSERT INTO accounts (k, v) VALUES (2, 5) IF NOT EXISTS USING TTL 1000").was_applied
    assert 0 < session.execute("SELECT ttl(v) AS t FROM accounts WHERE k = 2").one().t <= 1000
    for statement, message in [
        ("INSERT INTO accounts (k, v) VALUES (3, 3) IF NOT EXISTS USING TIMESTAMP 5", "custom timestamp"),
        ("UPDATE accounts SET v = 1 WHERE k IN (1, 2) IF v = 1", "IN on the p"),
        ("UPDATE accounts SET v = 1 WHERE k = 1 IF d > 3d", "not supported on durations"),
        ("UPDATE accounts SET v = 1 WHERE k = 1 IF k = 1", "PRIMARY KEY"),
    ]:
        with pytest.raises(InvalidRequest, match=message):
            session.execute(statement)


def test_conditions_on_collections(session):
    session.execute("CREATE TYPE IF NOT EXISTS point (x int, y int)")
    session.execute(
        "CREATE TABLE composed (k int PRIMARY KEY, l list<int>, s set<text>, m map<text, int>, "
        "f frozen<list<int>>, fm frozen<map<text, int>>, u point, fu frozen<point>)"
    )
    session.execute(
        "INSERT INTO composed (k, l, s, m, f, fm, u, fu) VALUES "
        "(1, [1, 2, 3], {'a', 'b'}, {'x': 1}, [4, 5], {'y': 2}, {x: 1, y: 2}, {x: 3, y: 4})"
    )
    holding = [
        "l = [1, 2, 3]", "l != [1, 2]", "l[1] = 2", "l[7] = null", "l[0] IN (0, 1)", "l > [1, 2]", "l CONTAINS 3",
        "s = {'b', 'a'}", "s CONTAINS 'a'", "s IN ({'a'}, {'a', 'b'})",
        "m = {'x': 1}", "m['x'] = 1", "m['x'] > 0", "m['z'] = null", "m CONTAINS 1", "m CONTAINS KEY 'x'",
        "f = [4, 5]", "f[1] >= 5", "f CONTAINS 4", "fm['y'] = 2", "fm CONTAINS KEY 'y'",
        "u = {x: 1, y: 2}", "u.x = 1", "fu = {x: 3, y: 4}", "fu.y = 4", "l[0] = 1 AND m['x'] = 1 AND u.y = 2",
    ]  # fmt: skip
    failing = [
        "l = [1, 2]", "l[1] = 3", "l[7] = 1", "l CONTAINS 9", "s = {'a'}", "s CONTAINS 'z'", "s = null", "m['x'] = 2",
        "m['z'] = 1", "m CONTAINS KEY 'z'", "f[0] = 5", "fm['y'] != 2", "u.x = 2", "u = null", "fu.x < 3",
    ]  # fmt: skip
    for condition in holding:
        result = session.execute(f"UPDATE composed SET f = [4, 5] WHERE k = 1 IF {condition}")
        assert result.was_applied, condition
    for condition in failing:
        result = session.execute(f"UPDATE composed SET f = [4, 5] WHERE k = 1 IF {condition}")
        assert not result.was_applied, condition
    result = session.execute("UPDATE composed SET f = [] WHERE k = 1 IF m['x'] = 9")
    assert tuples(result) == [(False, {"x": 1})]
    assert session.execute("UPDATE composed SET m = {'x': 5} WHERE k = 2 IF m = null").was_applied
    assert session.execute("UPDATE composed SET m['w'] = 6 WHERE k = 2 IF m['x'] = 5").was_applied
    assert session.execute("SELECT m FROM composed WHERE k = 2").one().m == {"x": 5, "w": 6}
    prepared = session.prepare("UPDATE composed SET m['x'] = ? WHERE k = 2 IF m[?] = ?")
    assert session.execute(prepared, (7, "w", 6)).was_applied
    for condition, message in [
        ("l[-1] = 1", "negative list index"),
        ("s['a'] = 'a'", "set column s"),
        ("k CONTAINS 1", "PRIMARY KEY"),
        ("u.z = 1", "field named z"),
    ]:
        with pytest.raises(InvalidRequest, match=message):
            session.execute(f"UPDATE composed SET f = [] WHERE k = 1 IF {condition}")


def test_elements_of_lists_are_found_where_the_condition_is_evaluated(session):
    session.execute("CREATE TABLE lists (k int, c int, l list<int>, s list<int> static, PRIMARY KEY (k, c))")
    session.execute("INSERT INTO lists (k, c, l, s) VALUES (1, 1, [1, 2, 3, 2], [7, 8])")
    read = "SELECT l, s FROM lists WHERE k = 1 AND c = 1"
    where = "WHERE k = 1 AND c = 1 IF"
    for level in [ConsistencyLevel.ANY, ConsistencyLevel.ONE]:
        statement = SimpleStatement(f"UPDATE lists SET l[0] = 4 {where} EXISTS", consistency_level=level)
        assert session.execute(statement).was_applied
    read = SimpleStatement(read, consistency_level=ConsistencyLevel.SERIAL)
    assert session.execute(read).one().l == [4, 2, 3, 2]
    assert session.execute(f"UPDATE lists SET l = l - [2, 9] {where} l[0] = 4").was_applied
    assert session.execute(read).one().l == [4, 3]
    assert not session.execute(f"DELETE l[0] FROM lists {where} l[0] = 3").was_applied
    assert session.execute(f"DELETE l[0] FROM lists {where} l[0] = 4").was_applied
    assert session.execute("UPDATE lists SET s[1] = 9 WHERE k = 1 IF s[1] = 8").was_applied
    assert session.execute(read).one() == ([3], [7, 9])
    # What the list does not have is said only where the condition holds.
    assert not session.execute(f"UPDATE lists SET l[5] = 1 {where} l[0] = 9").was_applied
    with pytest.raises(InvalidRequest, match="List index 5 out of bound, list has size 1"):
        session.execute(f"UPDATE lists SET l[5] = 1 {where} l[0] = 3")
    batch = BatchStatement()
    batch.add(SimpleStatement(f"UPDATE lists SET l[0] = 5 {where} l = [3]"))
    batch.add(SimpleStatement("UPDATE lists SET s = s - [7] WHERE k = 1"))
    assert session.execute(batch).was_applied
    assert session.execute(read).one() == ([5], [9])


@pytest.mark.parametrize("consistency", ["eventual", "strong"])
def test_a_list_that_grows_meanwhile_is_changed_where_the_condition_holds(session, consistency):
    """One client puts ever new elements before the first; the other changes each as soon as it is the first, by index. It
    must never hit the one behind."""
    keyspace = f"heads_{consistency}"
    session.execute(
        f"CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 3}} "
        f"AND consistency = '{consistency}'"
    )
    session.execute(f"CREATE TABLE {keyspace}.t (k int PRIMARY KEY, l list<int>)")
    session.execute(f"INSERT INTO {keyspace}.t (k, l) VALUES (1, [0])")
    last, failures = 30, []
    change = session.prepare(f"UPDATE {keyspace}.t SET l[0] = ? WHERE k = 1 IF l[0] = ?")
    prepend = session.prepare(f"UPDATE {keyspace}.t SET l = ? + l WHERE k = 1 IF l[0] = ?")

    deadline = time.monotonic() + PATIENCE_SECONDS

    def until_applied(statement, values):
        try:
            for value in values:
                while not session.execute(statement, value).was_applied:
                    assert time.monotonic() < deadline, value
        except Exception as error:  # noqa: BLE001: told below
            failures.append(error)

    changes = [(-number, number) for number in range(1, last + 1)]
    prepends = [([number], 1 - number) for number in range(1, last + 1)]
    threads = [
        threading.Thread(target=until_applied, args=arguments) for arguments in [(change, changes), (prepend, prepends)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    found = session.execute(f"SELECT l FROM {keyspace}.t WHERE k = 1").one().l
    # The model: each of the two only ever changes or precedes what is the first then.
    assert found == [-number for number in range(last, 0, -1)] + [0]
    session.execute(f"DROP KEYSPACE {keyspace}")


def test_statics_and_conditional_batches(session):
    session.execute("CREATE TABLE ledger (k int, c int, total int static, v int, PRIMARY KEY (k, c))")
    session.execute("INSERT INTO ledger (k, total) VALUES (1, 0)")
    add = (
        "BEGIN BATCH UPDATE ledger SET total = %s WHERE k = 1 IF total = %s; "
        "INSERT INTO ledger (k, c, v) VALUES (1, %s, 5) APPLY BATCH"
    )
    assert session.execute(add, (5, 0, 1)).was_applied
    assert not session.execute(add, (5, 0, 2)).was_applied
    assert session.execute(add, (10, 5, 2)).was_applied
    rows = tuples(session.execute("SELECT c, total, v FROM ledger WHERE k = 1"))
    assert rows == [(1, 10, 5), (2, 10, 5)]
    # Conditions are about the rows before the batch, and all of them count.
    batch = BatchStatement()
    batch.add(SimpleStatement("UPDATE ledger SET v = 6 WHERE k = 1 AND c = 1 IF v = 5"))
    batch.add(SimpleStatement("UPDATE ledger SET v = 7 WHERE k = 1 AND c = 2 IF v = 5"))
    batch.add(SimpleStatement("INSERT INTO ledger (k, c, v) VALUES (1, 3, 8) IF NOT EXISTS"))
    batch.add(SimpleStatement("DELETE FROM ledger WHERE k = 1 AND c = 9"))
    assert session.execute(batch).was_applied
    result = session.execute(batch)
    # The row whose condition did not hold, by its key.
    assert not result.was_applied
    assert (result.one().k, result.one().c, result.one().v) == (1, 1, 6)
    assert tuples(session.execute("SELECT c, v FROM ledger WHERE k = 1")) == [(1, 6), (2, 7), (3, 8)]
    assert session.execute("UPDATE ledger SET v = 9 WHERE k = 1 AND c = 1 IF total = 10 AND v = 6").was_applied
    two = (
        "BEGIN BATCH UPDATE ledger SET v = 1 WHERE k = 1 AND c = 1 IF v = 9; "
        "UPDATE ledger SET v = 1 WHERE k = 2 AND c = 1 APPLY BATCH"
    )
    with pytest.raises(InvalidRequest, match="multiple partitions"):
        session.execute(two)


def test_serial_levels(session):
    session.execute("CREATE TABLE serial (k int, c int, v int, PRIMARY KEY (k, c))")
    for level in [ConsistencyLevel.SERIAL, ConsistencyLevel.LOCAL_SERIAL]:
        for commit in [ConsistencyLevel.ONE, ConsistencyLevel.ANY, ConsistencyLevel.QUORUM, ConsistencyLevel.ALL]:
            insert = SimpleStatement(
                "INSERT INTO serial (k, c, v) VALUES (%s, %s, 1) IF NOT EXISTS",
                serial_consistency_level=level,
                consistency_level=commit,
            )
            assert session.execute(insert, (level, commit)).was_applied
        read = SimpleStatement("SELECT c FROM serial WHERE k = %s", consistency_level=level, fetch_size=3)
        assert len(tuples(session.execute(read, (level,)))) == 4
        backwards = SimpleStatement(
            "SELECT c FROM serial WHERE k = %s ORDER BY c DESC LIMIT 2", consistency_level=level
        )
        assert len(tuples(session.execute(backwards, (level,)))) == 2
    for statement, message in [
        ("SELECT * FROM serial", "one partition at a time"),
        ("SELECT * FROM serial WHERE k IN (1, 2)", "one partition at a time"),
        ("INSERT INTO serial (k, c) VALUES (1, 1)", "must use conditional updates"),
        ("INSERT INTO serial (k, c) VALUES (1, 1) IF NOT EXISTS", "commit consistency"),
    ]:
        with pytest.raises(InvalidRequest, match=message):
            session.execute(SimpleStatement(statement, consistency_level=ConsistencyLevel.SERIAL))


def test_increments_under_contention_are_all_counted(session):
    session.execute("CREATE TABLE counts (k int PRIMARY KEY, n int, who text)")
    session.execute("INSERT INTO counts (k, n) VALUES (1, 0)")
    read = session.prepare("SELECT n, who FROM counts WHERE k = 1")
    read.consistency_level = ConsistencyLevel.SERIAL
    write = session.prepare("UPDATE counts SET n = ?, who = ? WHERE k = 1 IF n = ?")
    write.consistency_level = ConsistencyLevel.QUORUM
    failures = []

    def increment(thread):
        try:
            for number in range(15):
                name = f"{thread}-{number}"
                while True:
                    now = session.execute(read).one()
                    if session.execute(write, (now.n + 1, name, now.n)).was_applied:
                        break
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=increment, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert session.execute(read).one().n == 120


def test_later_writes_of_fast_clocks_do_not_shadow_decisions(session):
    """A plain write with a timestamp an hour ahead; a swap that saw it must be seen."""
    session.execute("CREATE TABLE clocks (k int PRIMARY KEY, v int)")
    session.execute("INSERT INTO clocks (k, v) VALUES (1, 1)")
    ahead = session.execute("SELECT writetime(v) AS t FROM clocks WHERE k = 1").one().t + 3_600_000_000
    session.execute("INSERT INTO clocks (k, v) VALUES (1, 2) USING TIMESTAMP %s", (ahead,))
    assert session.execute("UPDATE clocks SET v = 3 WHERE k = 1 IF v = 2").was_applied
    assert session.execute("SELECT v FROM clocks WHERE k = 1").one().v == 3


class Attempt:
    """One conditional insert, and what became of it by what its client was told."""

    def __init__(self, door, insert, k, who):
        self.k, self.who = k, who
        self.is_v5 = door.session._protocol_version >= ProtocolVersion.V5
        self.future = door.session.execute_async(insert, (k, who))

    def verdict(self):
        """`applied`, `decided` (applied, but few are known to have it), `refused`, `undone`, or `unknown`."""
        try:
            result = self.future.result()
        except WriteTimeout as error:
            if error.write_type == WriteType.SIMPLE:
                return "decided"
            assert error.write_type == WriteType.CAS
            # Before v5 there is no other word for it.
            return "undone" if self.is_v5 else "unknown"
        except Unavailable:
            return "undone"
        except ErrorMessage as error:
            # The driver has no class for CAS_WRITE_UNKNOWN.
            assert self.is_v5 and error.code == 0x1700, error
            return "unknown"
        return "applied" if result.was_applied else "refused"


def attempt_while_others_stop(cluster, door, insert, first):
    """Conditional inserts, two for each key and many at once, until the other two nodes stop; all of them, and what
    their client was told."""
    attempts, stopping, room = [], threading.Event(), threading.Semaphore(48)

    def submit():
        while not stopping.is_set():
            room.acquire()
            number = len(attempts)
            attempt = Attempt(door, insert, first + number // 2, "ab"[number % 2])
            attempt.future.add_callbacks(*[lambda _: room.release()] * 2)
            attempts.append(attempt)

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    wait_until("many attempts", lambda: len(attempts) > 100)
    with stopped(cluster, 1, 2):
        stopping.set()
        thread.join()
        return [(attempt, attempt.verdict()) for attempt in attempts]


@pytest.mark.parametrize("version", [ProtocolVersion.V4, ProtocolVersion.V5])
def test_an_unknown_outcome_is_told_and_comes_out_as_one_or_the_other(cluster, doors, version):
    door = doors(0, protocol_version=version)
    door.run("CREATE KEYSPACE doubts WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}")
    door.run("CREATE TABLE doubts.swaps (k int PRIMARY KEY, who text)")
    cluster.wait_grown()
    insert = door.session.prepare("INSERT INTO doubts.swaps (k, who) VALUES (?, ?) IF NOT EXISTS")
    insert.consistency_level = ConsistencyLevel.QUORUM
    readers = [doors(1), doors(2), door]

    def winner(reader, k, level):
        row = reader.insist("SELECT who FROM doubts.swaps WHERE k = %s", level, (k,)).one()
        return row and row.who

    counts, winners = Counter(), {}
    # Where the stop falls among the steps of those under way is chance; now and then none has just proposed.
    for number in range(12):
        for attempt, verdict in attempt_while_others_stop(cluster, door, insert, number * 1_000_000):
            k, who = attempt.k, attempt.who
            if k not in winners:
                winners[k] = winner(readers[k % 2], k, ConsistencyLevel.SERIAL)
            is_there = winners[k] == who
            counts[verdict, is_there] += 1
            if verdict in ("applied", "decided"):
                assert is_there, (k, who, verdict, winners[k])
            elif verdict in ("refused", "undone"):
                assert not is_there, (k, who, verdict)
        if counts["unknown", True] + counts["unknown", False] >= 5:
            break
    print(dict(counts))
    assert counts["applied", True] and counts["unknown", True] + counts["unknown", False]
    # What a serial read has shown stays, for each kind of read through each node.
    for reader in readers:
        for k, who in winners.items():
            assert winner(reader, k, ConsistencyLevel.SERIAL) == who
            assert winner(reader, k, ConsistencyLevel.QUORUM) == who
