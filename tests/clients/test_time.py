"""Deletes and time on eventual tables of three nodes: what happened while a node was away holds there as well."""

import random
import threading
import time

import pytest
from cassandra import ConsistencyLevel, WriteFailure, WriteTimeout
from cassandra.protocol import IsBootstrappingErrorMessage

from conftest import wait_until
from doors import PATIENCE_SECONDS, away, stopped, tessera, thinks_dead

WITHOUT_HINTS = ("--hint-window-seconds", "0")


def create_keyspace(door):
    door.run("CREATE KEYSPACE away WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}")


class Partition:
    """What a partition of `away.rows` ought to hold: rows by clustering column, and the static columns."""

    COLUMNS = ("v", "w", "tags", "marks", "line")
    STATICS = ("s", "kinds")

    def __init__(self):
        self.rows, self.statics = {}, {}

    def row(self, c):
        return self.rows.setdefault(c, {"exists": False})

    def shown(self):
        """As `SELECT c, v, w, tags, marks, line, s, kinds` shows it."""
        statics = tuple(self.statics.get(name) or None for name in self.STATICS)
        shown = []
        for c, row in sorted(self.rows.items()):
            cells = tuple(row.get(name) or None for name in self.COLUMNS)
            if row["exists"] or any(cells):
                shown.append((c, *cells, *statics))
        if not shown and any(statics):
            shown.append((None, *[None] * len(self.COLUMNS), *statics))
        return shown


SELECT = "SELECT c, v, w, tags, marks, line, s, kinds FROM away.rows WHERE k = %s"


def seen(rows):
    """What the driver returns, in the model's types."""

    def plain(value):
        if value is None or isinstance(value, (int, str)):
            return value
        if isinstance(value, list):
            return list(value)
        return dict(value) if hasattr(value, "keys") else set(value)

    return [tuple(plain(value) for value in row) for row in rows]


class Story:
    """Statements at random, and what they come to."""

    PARTITIONS, ROWS = 8, 7

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.partitions = [Partition() for _ in range(self.PARTITIONS)]
        self.number = 0
        self.told = {}

    def next(self):
        """One statement, without its timestamp: the driver's clock orders them."""
        steps = [getattr(self, name) for name in dir(self) if name.startswith("do_")]
        while True:
            self.number += 1
            k, c = self.random.randrange(self.PARTITIONS), self.random.randrange(self.ROWS)
            step = self.random.choice(steps)
            statement = step(self.partitions[k], k, c)
            if statement is not None:
                self.told[step.__name__] = self.told.get(step.__name__, 0) + 1
                return statement

    @staticmethod
    def where(k, c):
        return f"WHERE k = {k} AND c = {c}"

    def do_insert(self, partition, k, c):
        partition.row(c).update(exists=True, v=f"v{self.number}", w=self.number)
        return f"INSERT INTO away.rows (k, c, v, w) VALUES ({k}, {c}, 'v{self.number}', {self.number})"

    def do_update(self, partition, k, c):
        partition.row(c).update(v=f"u{self.number}")
        return f"UPDATE away.rows SET v = 'u{self.number}' {self.where(k, c)}"

    def do_insert_that_expires(self, partition, k, c):
        # It hides what was there, then goes: marker and cells alike.
        partition.row(c).update(exists=False, v=None)
        return f"INSERT INTO away.rows (k, c, v) VALUES ({k}, {c}, 'brief') USING TTL 1"

    def do_update_that_expires(self, partition, k, c):
        partition.row(c).update(w=None)
        partition.row(c).setdefault("marks", {}).pop("brief", None)
        return f"UPDATE away.rows USING TTL 1 SET w = 1, marks['brief'] = 1 {self.where(k, c)}"

    def do_long_lived(self, partition, k, c):
        partition.row(c).update(w=self.number)
        return f"UPDATE away.rows USING TTL 90000 SET w = {self.number} {self.where(k, c)}"

    def do_delete_cells(self, partition, k, c):
        name = self.random.choice(Partition.COLUMNS)
        partition.row(c).pop(name, None)
        return f"DELETE {name} FROM away.rows {self.where(k, c)}"

    def do_delete_row(self, partition, k, c):
        partition.rows.pop(c, None)
        return f"DELETE FROM away.rows {self.where(k, c)}"

    def do_delete_range(self, partition, k, c):
        end = c + self.random.randrange(1, 4)
        for each in range(c, end):
            partition.rows.pop(each, None)
        return f"DELETE FROM away.rows WHERE k = {k} AND c >= {c} AND c < {end}"

    def do_delete_partition(self, partition, k, c):
        # Less often than the others, or there is never much.
        if self.random.random() < 0.7:
            return None
        partition.rows.clear()
        partition.statics.clear()
        return f"DELETE FROM away.rows WHERE k = {k}"

    def do_static(self, partition, k, _):
        partition.statics["s"] = f"s{self.number}"
        return f"UPDATE away.rows SET s = 's{self.number}' WHERE k = {k}"

    def do_static_set(self, partition, k, c):
        partition.statics.setdefault("kinds", set()).add(c)
        return f"UPDATE away.rows SET kinds = kinds + {{{c}}} WHERE k = {k}"

    def do_delete_static(self, partition, k, _):
        name = self.random.choice(Partition.STATICS)
        partition.statics.pop(name, None)
        return f"DELETE {name} FROM away.rows WHERE k = {k}"

    def do_set_add(self, partition, k, c):
        element = self.random.randrange(6)
        partition.row(c).setdefault("tags", set()).add(element)
        return f"UPDATE away.rows SET tags = tags + {{{element}}} {self.where(k, c)}"

    def do_set_remove(self, partition, k, c):
        element = self.random.randrange(6)
        partition.row(c).setdefault("tags", set()).discard(element)
        return f"UPDATE away.rows SET tags = tags - {{{element}}} {self.where(k, c)}"

    def do_set_replace(self, partition, k, c):
        partition.row(c)["tags"] = {7, 8}
        return f"UPDATE away.rows SET tags = {{7, 8}} {self.where(k, c)}"

    def do_map_put(self, partition, k, c):
        key = self.random.choice("abcd")
        partition.row(c).setdefault("marks", {})[key] = self.number
        return f"UPDATE away.rows SET marks['{key}'] = {self.number} {self.where(k, c)}"

    def do_map_remove(self, partition, k, c):
        key = self.random.choice("abcd")
        partition.row(c).setdefault("marks", {}).pop(key, None)
        if self.random.random() < 0.5:
            return f"DELETE marks['{key}'] FROM away.rows {self.where(k, c)}"
        return f"UPDATE away.rows SET marks = marks - {{'{key}'}} {self.where(k, c)}"

    def do_list_append(self, partition, k, c):
        partition.row(c).setdefault("line", []).append(self.number)
        return f"UPDATE away.rows SET line = line + [{self.number}] {self.where(k, c)}"

    def do_list_prepend(self, partition, k, c):
        partition.row(c).setdefault("line", []).insert(0, self.number)
        return f"UPDATE away.rows SET line = [{self.number}] + line {self.where(k, c)}"

    def do_list_set(self, partition, k, c):
        line = partition.rows.get(c, {}).get("line")
        if not line:
            return None
        index = self.random.randrange(len(line))
        line[index] = self.number
        return f"UPDATE away.rows SET line[{index}] = {self.number} {self.where(k, c)}"

    def do_list_discard(self, partition, k, c):
        line = partition.rows.get(c, {}).get("line")
        if not line:
            return None
        index = self.random.randrange(len(line))
        element = line.pop(index)
        if self.random.random() < 0.5:
            return f"DELETE line[{index}] FROM away.rows {self.where(k, c)}"
        return f"UPDATE away.rows SET line = line - [{element}] {self.where(k, c)}"


def with_c(rows, is_wanted):
    """The rows that have such a clustering column; static columns alone have none."""
    return [row for row in rows if row[0] is not None and is_wanted(row[0])]


# What is asked of a partition beside all of it, and what that comes to.
VIEWS = [
    ("", lambda rows: rows),
    (" ORDER BY c DESC LIMIT 2", lambda rows: rows[::-1][:2]),
    (" PER PARTITION LIMIT 3", lambda rows: rows[:3]),
    (" AND c > 1 LIMIT 2", lambda rows: with_c(rows, lambda c: c > 1)[:2]),
    (" AND c > 1 AND c < 5 ORDER BY c DESC", lambda rows: with_c(rows, lambda c: 1 < c < 5)[::-1]),
    (" AND c IN (1, 3, 5)", lambda rows: with_c(rows, lambda c: c in (1, 3, 5))),
    (" AND c = 3", lambda rows: with_c(rows, lambda c: c == 3)),
]


def differences(door, story, level):
    """Where a node shows something else than the story says."""
    # Pages are cut in the midst of partitions.
    door.session.default_fetch_size = 3
    found = {}
    for k, partition in enumerate(story.partitions):
        # Whichever comes first repairs what the others would find.
        for number in range(len(VIEWS)):
            clauses, view = VIEWS[(k + number) % len(VIEWS)]
            rows, expected = seen(door.insist(SELECT + clauses, level, (k,))), view(partition.shown())
            if rows != expected:
                found[k, clauses] = (rows, expected)
    return found


@pytest.mark.parametrize(
    ("cluster", "how", "seed"),
    [((), "killed", 1), ((), "stopped", 2), (WITHOUT_HINTS, "killed", 3)],
    indirect=["cluster"],
)
def test_what_was_deleted_while_a_node_was_away_stays_deleted(cluster, doors, how, seed):
    writer, reader = doors(0), doors(1)
    create_keyspace(writer)
    writer.run(
        "CREATE TABLE away.rows (k int, c int, v text, w int, tags set<int>, marks map<text, int>, line list<int>, "
        "s text static, kinds set<int> static, PRIMARY KEY (k, c))"
    )
    cluster.wait_grown()
    story = Story(seed)
    for _ in range(160):
        writer.run(story.next(), ConsistencyLevel.ALL)
    # Open before it stops, so that its first answers are those of a node that does not know yet how late it is.
    resumed = doors(2) if how == "stopped" else None
    before, number = dict(story.told), 0
    with away(cluster, 2, how):
        # Until it has missed some of every kind.
        while number < 240 or any(count == before.get(step, 0) for step, count in story.told.items()):
            number += 1
            # Lists are ordered by their coordinator's clock, so all statements have the same one; and what reads
            # before it writes must see all before it.
            statement = story.next()
            is_lax = number % 5 == 0 and "line" not in statement
            writer.run(statement, ConsistencyLevel.ONE if is_lax else ConsistencyLevel.QUORUM)
        # What was written at ONE is on both others before long.
        wait_until(
            "the others to agree",
            lambda: not differences(reader, story, ConsistencyLevel.ONE),
            PATIENCE_SECONDS,
        )
        wait_until("node 3 to be taken for dead", lambda: thinks_dead(cluster, 0, 2), PATIENCE_SECONDS)
    returned = resumed or doors(2)
    assert not differences(returned, story, ConsistencyLevel.QUORUM), "a quorum at once"
    if cluster.arguments == WITHOUT_HINTS:
        tessera(cluster, "repair", "away")
        assert not differences(returned, story, ConsistencyLevel.ONE), "after the repair"
    else:
        wait_until(
            "the hints",
            lambda: not differences(returned, story, ConsistencyLevel.ONE),
            PATIENCE_SECONDS,
        )
        # There is nothing left to bring, and nothing comes back of what was to go.
        tessera(cluster, "repair", "away")
    for door in (writer, reader, returned):
        assert not differences(door, story, ConsistencyLevel.ONE)


def schema_version(door):
    return door.insist("SELECT schema_version FROM system.local", ConsistencyLevel.ONE).one().schema_version


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_dropped_column_of_a_node_that_was_away_does_not_come_back(cluster, doors, how):
    writer = doors(0)
    create_keyspace(writer)
    writer.run("CREATE TABLE away.altered (k int PRIMARY KEY, kept int, v text, marks map<text, int>)")
    cluster.wait_grown()
    for k in range(30):
        insert = "INSERT INTO away.altered (k, kept, v, marks) VALUES (%s, %s, 'old', {'old': 1})"
        writer.run(insert, ConsistencyLevel.ALL, (k, k))
    resumed = doors(2) if how == "stopped" else None
    with away(cluster, 2, how):
        # Node 3 is to hear of these later, of columns that are gone by then.
        for k in range(10):
            writer.run("UPDATE away.altered SET v = 'missed', marks['missed'] = 2 WHERE k = %s", values=(k,))
        writer.run("ALTER TABLE away.altered DROP (v, marks)")
        writer.run("UPDATE away.altered SET kept = 100 WHERE k = 0")
        writer.run("ALTER TABLE away.altered ADD (v text, marks map<text, int>)")
        for k in range(5, 15):
            writer.run("UPDATE away.altered SET v = 'new', marks['new'] = 3 WHERE k = %s", values=(k,))
        wait_until("node 3 to be taken for dead", lambda: thinks_dead(cluster, 0, 2), PATIENCE_SECONDS)
    expected = {
        k: (100 if k == 0 else k, "new" if 5 <= k < 15 else None, {"new": 3} if 5 <= k < 15 else None)
        for k in range(30)
    }
    returned = resumed or doors(2)
    wait_until(
        "node 3 to have the tables' new shapes",
        lambda: schema_version(returned) == schema_version(writer),
        PATIENCE_SECONDS,
    )

    def shown(door, level):
        rows = door.insist("SELECT k, kept, v, marks FROM away.altered", level)
        return {row[0]: row[1:] for row in seen(rows)}

    assert shown(returned, ConsistencyLevel.QUORUM) == expected
    wait_until("the hints", lambda: shown(returned, ConsistencyLevel.ONE) == expected, PATIENCE_SECONDS)
    tessera(cluster, "repair", "away")
    for door in (writer, doors(1), returned):
        assert shown(door, ConsistencyLevel.ONE) == expected


class Watch(threading.Thread):
    """Looks again and again, through one node and at ONE, at rows that will expire, until the last one is gone."""

    # Row 0 stays, and brings each look the node's own clock.
    LOOK = (
        "SELECT k, v, ttl(v) AS left, writetime(v) AS written, toTimestamp(now()) AS at FROM away.brief "
        "WHERE k IN (0, 1, 2, 3)"
    )

    def __init__(self, door):
        super().__init__(daemon=True)
        self.door, self.looks, self.error = door, [], None
        self.look()

    def look(self):
        rows = {row.k: row for row in self.door.insist(self.LOOK, ConsistencyLevel.ONE)}
        at = rows.pop(0).at.timestamp()
        self.looks.append((at, {k: row for k, row in rows.items() if row.v is not None}))

    def run(self):
        try:
            deadline = time.monotonic() + 3 * PATIENCE_SECONDS
            while time.monotonic() < deadline and self.looks[-1][1]:
                self.look()
            # One more: a look's clock is read before its rows are.
            self.look()
        except Exception as error:  # noqa: BLE001: told by the test's own thread
            self.error = error

    def expiry(self, k):
        """When the row goes, by the first look at it, in seconds."""
        at, rows = self.looks[0]
        return int(at) + rows[k].left

    def check(self, k):
        """It was there before that second, at each look with as much time left as the first said, and never after."""
        expiry = self.expiry(k)
        for (at, rows), (later, _) in zip(self.looks, self.looks[1:]):
            if k in rows:
                # `ttl` counts from the second in which the look began.
                assert at < expiry and rows[k].left == expiry - int(at)
            else:
                assert later >= expiry, f"row {k} was gone {expiry - later} s too early"
        assert k in self.looks[0][1] and k not in self.looks[-1][1]


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_what_expires_is_gone_at_the_same_second_on_every_node(cluster, doors, how):
    writer = doors(0)
    create_keyspace(writer)
    writer.run("CREATE TABLE away.brief (k int PRIMARY KEY, v text) WITH default_time_to_live = 65")
    cluster.wait_grown()
    writer.run("INSERT INTO away.brief (k, v) VALUES (0, 'for ever') USING TTL 0", ConsistencyLevel.ALL)
    for k in (1, 4):
        writer.run("INSERT INTO away.brief (k, v) VALUES (%s, 'older') USING TTL 0", ConsistencyLevel.ALL, (k,))
    resumed = doors(2) if how == "stopped" else None
    with away(cluster, 2, how):
        writer.run("INSERT INTO away.brief (k, v) VALUES (1, 'by default')")
        writer.run("INSERT INTO away.brief (k, v) VALUES (2, 'by itself') USING TTL 60 AND TIMESTAMP 1234567")
        writer.run("UPDATE away.brief USING TTL 62 SET v = 'cell' WHERE k = 3")
        # Has come and gone when node 3 hears of it; it hides what node 3 has.
        writer.run("INSERT INTO away.brief (k, v) VALUES (4, 'missed') USING TTL 1")
        wait_until("node 3 to be taken for dead", lambda: thinks_dead(cluster, 0, 2), PATIENCE_SECONDS)
    returned = resumed or doors(2)
    gone = "SELECT v FROM away.brief WHERE k = 4"
    assert returned.insist(gone).one() is None, "a quorum at once"

    def has_heard():
        rows = {row.k: row for row in returned.insist(Watch.LOOK, ConsistencyLevel.ONE)}
        here = {k: row.v for k, row in rows.items()}
        return here == {0: "for ever", 1: "by default", 2: "by itself", 3: "cell"}

    wait_until("the hints, before they are too old", has_heard, 50)
    every = (writer, doors(1), returned)
    watches = [Watch(door) for door in every]
    for k in (1, 2, 3):
        assert len({watch.expiry(k) for watch in watches}) == 1
        assert len({watch.looks[0][1][k].written for watch in watches}) == 1
    assert watches[2].looks[0][1][2].written == 1234567
    for watch in watches:
        watch.start()
    for watch in watches:
        watch.join()
        assert watch.error is None, watch.error
        for k in (1, 2, 3):
            watch.check(k)
    # Nothing brings it back, and nothing of it is in the way of what comes next.
    tessera(cluster, "repair", "away")
    for door in every:
        assert [row.k for row in door.run("SELECT k FROM away.brief", ConsistencyLevel.ONE)] == [0]
    writer.run("INSERT INTO away.brief (k, v) VALUES (1, 'again')", ConsistencyLevel.ALL)
    for door in every:
        assert door.run("SELECT v FROM away.brief WHERE k = 1", ConsistencyLevel.ONE).one().v == "again"


CUT = "CREATE TABLE away.cut (k int PRIMARY KEY, v text, s int)"


@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("statements", [["TRUNCATE away.cut"], ["DROP TABLE away.cut", CUT]])
def test_a_table_that_was_emptied_is_empty_on_a_node_that_was_away(cluster, doors, how, statements):
    writer, other, lonely = doors(0), doors(1), doors(2)
    create_keyspace(writer)
    writer.run(CUT)
    cluster.wait_grown()
    insert = "INSERT INTO away.cut (k, v) VALUES (%s, %s)"
    for k in range(30):
        writer.run(insert, ConsistencyLevel.ALL, (k, "old"))
    ahead = int(time.time() * 1_000_000) + 3_600_000_000
    writer.run(f"INSERT INTO away.cut (k, v) VALUES (30, 'ahead') USING TIMESTAMP {ahead}", ConsistencyLevel.ALL)
    # Only node 3 has this one, and hints of it for the others.
    with stopped(cluster, 0, 1):
        lonely.run(insert, ConsistencyLevel.ONE, (31, "lonely"))
    with away(cluster, 2, how):
        # These wait as hints for it.
        for k in range(40, 50):
            writer.insist(insert, ConsistencyLevel.QUORUM, (k, "missed"))
        for statement in statements:
            writer.run(statement)
        for door in (writer, other):
            assert not door.run("SELECT * FROM away.cut", ConsistencyLevel.ONE).all()
        for k in (5, 30, 45, 60):
            writer.run(insert, ConsistencyLevel.QUORUM, (k, "new"))
        wait_until("node 3 to be taken for dead", lambda: thinks_dead(cluster, 0, 2), PATIENCE_SECONDS)
    returned = lonely if how == "stopped" else doors(2)
    wait_until(
        "node 3 to know of it",
        lambda: schema_version(returned) == schema_version(writer),
        PATIENCE_SECONDS,
    )

    def shown(door, level):
        return {row.k: row.v for row in door.insist("SELECT k, v FROM away.cut", level)}

    expected = {k: "new" for k in (5, 30, 45, 60)}
    assert shown(returned, ConsistencyLevel.QUORUM) == expected
    cluster.wait_grown()
    for door in (writer, other, returned):
        assert shown(door, ConsistencyLevel.ALL) == expected
    wait_until(
        "every node to have the new rows", lambda: shown(returned, ConsistencyLevel.ONE) == expected, PATIENCE_SECONDS
    )
    tessera(cluster, "repair", "away")
    for door in (writer, other, returned):
        assert shown(door, ConsistencyLevel.ONE) == expected
    # The table is as it was otherwise.
    columns = returned.run(
        "SELECT column_name, type FROM system_schema.columns WHERE keyspace_name = 'away' AND table_name = 'cut'"
    )
    assert sorted((row.column_name, row.type) for row in columns) == [("k", "int"), ("s", "int"), ("v", "text")]


def test_writers_go_on_while_their_table_is_truncated(cluster, doors):
    writer, other = doors(0), doors(1)
    create_keyspace(writer)
    writer.run("CREATE TABLE away.busy (k int PRIMARY KEY, v int)")
    cluster.wait_grown()
    prepared = other.session.prepare("INSERT INTO away.busy (k, v) VALUES (?, ?)")
    prepared.consistency_level = ConsistencyLevel.QUORUM
    stopping, written, failures = threading.Event(), [], []

    def write():
        k = 0
        while not stopping.is_set():
            k += 1
            began = time.monotonic()
            try:
                other.session.execute(prepared, (k, k))
                written.append((k, began))
            except Exception as error:  # noqa: BLE001: told below
                failures.append(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        for _ in range(5):
            count = len(written)
            wait_until("writes", lambda: len(written) > count + 50, PATIENCE_SECONDS)
            writer.run("TRUNCATE away.busy")
            done = time.monotonic()
        count = len(written)
        wait_until("writes", lambda: len(written) > count + 50, PATIENCE_SECONDS)
    finally:
        stopping.set()
        thread.join()
    # A write that the cut has crossed may fail, as one that may have happened or is to be tried again; none is refused.
    allowed = (IsBootstrappingErrorMessage, WriteFailure, WriteTimeout)
    assert all(isinstance(error, allowed) for error in failures), failures
    kept = {row.k for row in writer.run("SELECT k FROM away.busy")}
    assert kept >= {k for k, began in written if began > done}
    assert len(kept) < len(written)


@pytest.mark.parametrize("stops", [False, True])
def test_concurrent_appends_and_prepends_are_all_there_in_one_order(cluster, doors, stops):
    """Through two coordinators at once; with `stops`, the third node misses a part of it."""
    writers = [doors(0), doors(1)]
    create_keyspace(writers[0])
    writers[0].run("CREATE TABLE away.lists (k int PRIMARY KEY, line list<text>)")
    cluster.wait_grown()
    third, count = doors(2), 60
    failures = []

    def write(name, door, numbers):
        try:
            for number in numbers:
                door.run("UPDATE away.lists SET line = line + [%s] WHERE k = 1", values=(f"{name} appends {number}",))
                door.run("UPDATE away.lists SET line = [%s] + line WHERE k = 1", values=(f"{name} prepends {number}",))
        except Exception as error:  # noqa: BLE001: told below
            failures.append(error)

    def write_through_both(numbers):
        threads = [threading.Thread(target=write, args=(name, writers[name], numbers)) for name in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures

    write_through_both(range(count // 3))
    if stops:
        with stopped(cluster, 2):
            write_through_both(range(count // 3, count))
    else:
        write_through_both(range(count // 3, count))

    def line(door, level):
        row = door.insist("SELECT line FROM away.lists WHERE k = 1", level).one()
        return list(row.line) if row and row.line else []

    whole = line(third, ConsistencyLevel.QUORUM)
    prepended, appended = whole[: 2 * count], whole[2 * count :]
    for name in (0, 1):
        ours = [element for element in appended if element.startswith(f"{name} ")]
        assert ours == [f"{name} appends {number}" for number in range(count)]
        ours = [element for element in prepended if element.startswith(f"{name} ")]
        assert ours == [f"{name} prepends {number}" for number in reversed(range(count))]
    assert len(whole) == 4 * count
    # They were under way at the same time, not one after the other.
    assert len({element[0] for element in appended[:count]}) == 2
    for door in (*writers, third):
        wait_until("all of it", lambda: line(door, ConsistencyLevel.ONE) == whole, PATIENCE_SECONDS)


def test_definitions_and_truncates_at_the_same_time_are_all_carried_out(cluster, doors):
    every = [doors(0), doors(1), doors(2)]
    create_keyspace(every[0])
    every[0].run("CREATE TABLE away.shape (k int PRIMARY KEY, v int)")
    cluster.wait_grown()
    failures = []

    def do(door, statements):
        try:
            for statement in statements:
                door.run(statement)
        except Exception as error:  # noqa: BLE001: told below
            failures.append(error)

    cut = ["TRUNCATE away.shape"] * 8
    grow = [f"ALTER TABLE away.shape ADD c{number} int" for number in range(8)]
    threads = [threading.Thread(target=do, args=each) for each in zip(every, (cut, cut, grow))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    for door in every:
        door.run("INSERT INTO away.shape (k, v, c0, c7) VALUES (1, 2, 3, 4)", ConsistencyLevel.ALL)
        row = door.run("SELECT * FROM away.shape", ConsistencyLevel.ONE).one()
        assert row._fields == ("k", *(f"c{number}" for number in range(8)), "v")
        assert (row.k, row.v, row.c0, row.c7) == (1, 2, 3, 4)
