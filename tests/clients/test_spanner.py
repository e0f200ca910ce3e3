"""The Spanner door with google-cloud-spanner, unchanged, found through SPANNER_EMULATOR_HOST.

Nothing else has to be set: with that variable the client takes anonymous credentials and exports no metrics.
"""

import datetime
import decimal
import math
import os
import threading
import time
import uuid

import pytest
from google.api_core import exceptions
from google.cloud import spanner
from google.cloud.spanner_v1 import KeyRange, KeySet, param_types
from google.cloud.spanner_v1.data_types import JsonObject

UTC = datetime.timezone.utc

SINGERS = """CREATE TABLE Singers (
  SingerId INT64 NOT NULL,
  FirstName STRING(1024),
  LastName STRING(MAX),
  BirthDate DATE,
  Updated TIMESTAMP OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (SingerId)"""
ALBUMS = """CREATE TABLE Albums (
  SingerId INT64 NOT NULL,
  AlbumId INT64 NOT NULL,
  Title STRING(MAX),
  Price NUMERIC,
) PRIMARY KEY (SingerId, AlbumId DESC), INTERLEAVE IN PARENT Singers ON DELETE CASCADE"""
NOTES = """CREATE TABLE Notes (
  SingerId INT64 NOT NULL,
  NoteId INT64 NOT NULL,
  Text STRING(MAX),
) PRIMARY KEY (SingerId, NoteId), INTERLEAVE IN PARENT Singers ON DELETE NO ACTION"""
TYPES = """CREATE TABLE Types (
  Id STRING(36) NOT NULL,
  Bool BOOL, Int INT64, F32 FLOAT32, F64 FLOAT64, Num NUMERIC, Str STRING(10), Bin BYTES(10), Day DATE,
  Moment TIMESTAMP, Doc JSON, Uid UUID,
  Bools ARRAY<BOOL>, Ints ARRAY<INT64>, F64s ARRAY<FLOAT64>, Nums ARRAY<NUMERIC>, Strs ARRAY<STRING(MAX)>,
  Bins ARRAY<BYTES(MAX)>, Days ARRAY<DATE>, Ats ARRAY<TIMESTAMP>, Docs ARRAY<JSON>,
) PRIMARY KEY (Id)"""


@pytest.fixture(scope="session")
def client(node):
    os.environ["SPANNER_EMULATOR_HOST"] = node.spanner
    yield spanner.Client(project="test-project")


@pytest.fixture(scope="session")
def instance(client):
    made = client.instance(
        f"inst-{uuid.uuid4().hex[:8]}",
        configuration_name=f"{client.project_name}/instanceConfigs/emulator-config",
        display_name="Tests",
        node_count=1,
    )
    made.create().result(30)
    yield made
    made.delete()


@pytest.fixture(scope="session")
def database(instance):
    made = instance.database(f"db-{uuid.uuid4().hex[:8]}", ddl_statements=[SINGERS, ALBUMS, NOTES, TYPES])
    made.create().result(60)
    yield made
    made.drop()


@pytest.fixture(autouse=True)
def empty(request):
    if "database" not in request.fixturenames:
        return
    everything = KeySet(all_=True)
    database = request.getfixturevalue("database")
    with database.batch() as batch:
        batch.delete("Notes", everything)
        batch.delete("Albums", everything)
        batch.delete("Singers", everything)
        batch.delete("Types", everything)


def put_singers(database, *rows):
    with database.batch() as batch:
        batch.insert("Singers", ("SingerId", "FirstName", "LastName"), rows)


def query(database, sql, **arguments):
    with database.snapshot() as snapshot:
        return [list(row) for row in snapshot.execute_sql(sql, **arguments)]


def test_instances(client, instance):
    assert instance.exists()
    instance.reload()
    assert instance.display_name == "Tests"
    assert instance.name in [each.name for each in client.list_instances()]
    configs = [config.name.rsplit("/", 1)[1] for config in client.list_instance_configs()]
    assert configs == ["emulator-config", "tessera"]
    instance.display_name = "Renamed"
    instance.update().result(30)
    instance.reload()
    assert instance.display_name == "Renamed"
    with pytest.raises(exceptions.AlreadyExists):
        client.instance(
            instance.instance_id,
            configuration_name=f"{client.project_name}/instanceConfigs/tessera",
            display_name="Again",
        ).create()
    assert not client.instance("no-such-instance").exists()


def test_databases_and_ddl(instance):
    database = instance.database(f"ddl-{uuid.uuid4().hex[:8]}", ddl_statements=[SINGERS])
    database.create().result(30)
    assert database.exists()
    assert database.name in [each.name for each in instance.list_databases()]
    with pytest.raises(exceptions.AlreadyExists):
        instance.database(database.database_id).create()
    database.update_ddl([ALBUMS, "ALTER TABLE Singers ADD COLUMN Fee NUMERIC"]).result(30)
    database.reload()
    statements = database.ddl_statements
    assert len(statements) == 2
    assert "Fee NUMERIC" in statements[0]
    assert "allow_commit_timestamp = true" in statements[0]
    assert "PRIMARY KEY(SingerId, AlbumId DESC)" in statements[1]
    assert "INTERLEAVE IN PARENT Singers ON DELETE CASCADE" in statements[1]
    assert sorted(table.table_id for table in database.list_tables()) == ["Albums", "Singers"]
    assert database.table("Singers").exists()
    assert not database.table("Nothing").exists()
    assert [field.name for field in database.table("Albums").schema] == ["SingerId", "AlbumId", "Title", "Price"]
    for statement, error in [
        ("CREATE TABLE Singers (A INT64) PRIMARY KEY (A)", exceptions.FailedPrecondition),
        ("DROP TABLE Singers", exceptions.FailedPrecondition),
        ("DROP TABLE Nothing", exceptions.NotFound),
        ("CREATE INDEX I ON Singers(LastName)", exceptions.MethodNotImplemented),
        ("CREATE TABLE T (A INT64", exceptions.InvalidArgument),
    ]:
        with pytest.raises(error):
            database.update_ddl([statement]).result(30)
    database.update_ddl(
        ["DROP TABLE IF EXISTS Nothing", "DROP TABLE Albums", "ALTER TABLE Singers DROP COLUMN Fee"]
    ).result(30)
    assert database.table("Singers").exists() and not database.table("Albums").exists()
    database.drop()
    assert not database.exists()


def test_sessions(database):
    multiplexed = database.session()
    multiplexed.create()
    assert multiplexed.exists()
    multiplexed.ping()
    api = database.spanner_api
    made = api.batch_create_sessions(database=database.name, session_count=3).session
    assert len({session.name for session in made}) == 3
    listed = {session.name for session in api.list_sessions(database=database.name)}
    assert {session.name for session in made} | {multiplexed.name} <= listed
    for session in made:
        api.delete_session(name=session.name)
        with pytest.raises(exceptions.NotFound, match="Session not found"):
            api.get_session(name=session.name)


def test_mutations(database):
    put_singers(database, (1, "Marc", "Richards"), (2, "Catalina", "Smith"), (3, "Alice", "Trentor"))
    with database.batch() as batch:
        batch.update("Singers", ("SingerId", "LastName"), [(1, "Changed")])
        batch.insert_or_update("Singers", ("SingerId", "FirstName"), [(2, "Kate"), (4, "New")])
        batch.replace("Singers", ("SingerId", "LastName"), [(3, "Only")])
    with database.snapshot() as snapshot:
        rows = list(snapshot.read("Singers", ("SingerId", "FirstName", "LastName"), KeySet(all_=True)))
    assert rows == [[1, "Marc", "Changed"], [2, "Kate", "Smith"], [3, None, "Only"], [4, "New", None]]
    with database.batch() as batch:
        batch.delete("Singers", KeySet(keys=[(1,)], ranges=[KeyRange(start_closed=[3], end_closed=[4])]))
    assert query(database, "SELECT SingerId FROM Singers") == [[2]]


def test_commit_timestamps_and_stats(database):
    with database.batch() as batch:
        batch.insert("Singers", ("SingerId", "Updated"), [(1, spanner.COMMIT_TIMESTAMP)])
    assert query(database, "SELECT Updated FROM Singers")[0][0] == batch.committed
    transactions = []

    def work(transaction):
        transactions.append(transaction)
        for sql in (
            "INSERT INTO Singers (SingerId, FirstName, LastName) VALUES (4, 'c', 'd'), (5, 'e', 'f')",
            "UPDATE Singers SET LastName = 'g' WHERE SingerId IN (2, 4, 5)",
            "DELETE FROM Singers WHERE SingerId = 5",
        ):
            transaction.execute_update(sql)
        transaction.insert("Singers", ("SingerId", "FirstName"), [(6, "h")])

    database.log_commit_stats = True
    try:
        with database.batch() as batch:
            batch.insert("Singers", ("SingerId", "FirstName"), [(2, "a"), (3, "b")])
        database.run_in_transaction(work)
    finally:
        database.log_commit_stats = False
    assert batch.commit_stats.mutation_count == 4
    # Two rows of three columns, three of one and the key, one deletion, and a row of two columns.
    assert transactions[-1].commit_stats.mutation_count == 6 + 6 + 1 + 2
    with database.batch() as batch:
        with pytest.raises(exceptions.FailedPrecondition):
            with database.batch() as refused:
                refused.insert("Singers", ("SingerId", "BirthDate"), [(9, spanner.COMMIT_TIMESTAMP)])
        batch.update("Singers", ("SingerId", "FirstName"), [(2, "c")])


def test_every_type_round_trips(database):
    columns = (
        "Id", "Bool", "Int", "F32", "F64", "Num", "Str", "Bin", "Day", "Moment", "Doc", "Uid", "Bools", "Ints", "F64s",
        "Nums", "Strs", "Bins", "Days", "Ats", "Docs",
    )
    at = datetime.datetime(2020, 2, 29, 23, 59, 59, 123456, UTC)
    day = datetime.date(1, 1, 1)
    full = (
        "full", True, -(2**63), 0.5, 1e300, decimal.Decimal("-99999999999999999999999999999.999999999"), "é" * 10,
        b"AAH/", day, at, JsonObject({"b": [1, None], "a": "x"}), str(uuid.uuid4()), [True, None], [1, None, 2**63 - 1],
        [1.5, math.inf], [decimal.Decimal("0.000000001")], ["", "x"], [b"AA=="], [day, None], [at],
        [JsonObject({"k": 1})],
    )
    empty_row = ("empty",) + (None,) * 11 + ([],) * 9
    nulls = ("nulls",) + (None,) * (len(columns) - 1)
    with database.batch() as batch:
        batch.insert("Types", columns, [full, empty_row, nulls])
    with database.snapshot(multi_use=True) as snapshot:
        read = list(snapshot.read("Types", columns, KeySet(all_=True)))
        queried = list(snapshot.execute_sql(f"SELECT {', '.join(columns)} FROM Types ORDER BY Id"))
    assert read == queried
    assert read[0] == list(empty_row)
    assert read[2] == list(nulls)
    for name, found, wanted in zip(columns, read[1], full):
        if name == "Uid":
            assert str(found) == wanted
        else:
            assert found == wanted, name
    nan = ("nan", math.nan)
    with database.batch() as batch:
        batch.insert("Types", ("Id", "F64"), [nan])
    assert math.isnan(query(database, "SELECT F64 FROM Types WHERE Id = 'nan'")[0][0])


def test_reads_by_key_range_and_limit(database):
    put_singers(database, *[(number, f"n{number}", None) for number in range(20)])
    with database.batch() as batch:
        batch.insert(
            "Albums", ("SingerId", "AlbumId", "Title"), [(s, a, f"{s}.{a}") for s in (1, 2) for a in range(5)]
        )

    def read(table, columns, keyset, **arguments):
        with database.snapshot() as snapshot:
            return [tuple(row) for row in snapshot.read(table, columns, keyset, **arguments)]

    ids = ("SingerId",)
    assert read("Singers", ids, KeySet(keys=[[7], [3], [3], [99]])) == [(3,), (7,)]
    assert read("Singers", ids, KeySet(ranges=[KeyRange(start_open=[3], end_open=[6])])) == [(4,), (5,)]
    assert read("Singers", ids, KeySet(ranges=[KeyRange(start_closed=[18], end_closed=[30])])) == [(18,), (19,)]
    assert read("Singers", ids, KeySet(all_=True), limit=2) == [(0,), (1,)]
    mixed = KeySet(keys=[[5]], ranges=[KeyRange(start_closed=[4], end_closed=[6]), KeyRange(start_closed=[6], end_open=[8])])
    assert read("Singers", ids, mixed) == [(4,), (5,), (6,), (7,)]
    # The second key column descends.
    both = ("SingerId", "AlbumId")
    assert read("Albums", both, KeySet(ranges=[KeyRange(start_closed=[1], end_closed=[1])])) == [
        (1, 4), (1, 3), (1, 2), (1, 1), (1, 0),
    ]
    assert read("Albums", both, KeySet(ranges=[KeyRange(start_closed=[1, 3], end_open=[1, 1])])) == [(1, 3), (1, 2)]
    assert read("Albums", ("Title",), KeySet(keys=[[2, 3]])) == [("2.3",)]


def test_large_results_are_chunked(database):
    text = "xyz" * 800_000
    put_singers(database, *[(number, None, text) for number in range(3)])
    with database.snapshot() as snapshot:
        rows = list(snapshot.read("Singers", ("SingerId", "LastName"), KeySet(all_=True)))
    assert [row[0] for row in rows] == [0, 1, 2]
    assert all(row[1] == text for row in rows)
    with database.batch() as batch:
        batch.insert("Notes", ("SingerId", "NoteId", "Text"), [(1, n, "t" * 100) for n in range(20_000)])
    assert query(database, "SELECT COUNT(*), MAX(NoteId) FROM Notes") == [[20_000, 19_999]]
    with database.snapshot() as snapshot:
        found = [row[0] for row in snapshot.execute_sql("SELECT NoteId FROM Notes")]
    assert found == list(range(20_000))


def test_snapshots_at_every_bound(database):
    put_singers(database, (1, "old", None))
    with database.snapshot(multi_use=True) as before:
        assert list(before.read("Singers", ("FirstName",), KeySet(all_=True))) == [["old"]]
        with database.batch() as batch:
            batch.update("Singers", ("SingerId", "FirstName"), [(1, "new")])
        # It stays where it began.
        assert list(before.read("Singers", ("FirstName",), KeySet(all_=True))) == [["old"]]
        assert list(before.execute_sql("SELECT FirstName FROM Singers")) == [["old"]]
    committed = batch.committed

    def names(**bound):
        with database.snapshot(**bound) as snapshot:
            return list(snapshot.execute_sql("SELECT FirstName FROM Singers"))

    moment = datetime.timedelta(microseconds=1)
    assert names() == [["new"]]
    assert names(read_timestamp=committed) == [["new"]]
    assert names(read_timestamp=committed - moment) == [["old"]]
    assert names(min_read_timestamp=committed) == [["new"]]
    assert names(exact_staleness=datetime.timedelta(0)) == [["new"]]
    assert names(max_staleness=datetime.timedelta(seconds=10)) in ([["new"]], [["old"]], [])
    assert names(read_timestamp=committed - moment, multi_use=True) == [["old"]]
    with pytest.raises(ValueError):
        database.snapshot(max_staleness=datetime.timedelta(seconds=1), multi_use=True).__enter__()
    with pytest.raises(exceptions.FailedPrecondition):
        names(exact_staleness=datetime.timedelta(days=30))


def test_read_write_transactions_with_dml(database):
    put_singers(database, (1, "a", None), (2, "b", None))

    def work(transaction):
        assert transaction.execute_update("UPDATE Singers SET LastName = 'x' WHERE SingerId IN (1, 2)") == 2
        # It sees its own writes.
        rows = list(transaction.execute_sql("SELECT LastName FROM Singers ORDER BY SingerId"))
        assert rows == [["x"], ["x"]]
        inserted = transaction.execute_update(
            "INSERT INTO Singers (SingerId, FirstName, Updated) VALUES (@id, @name, PENDING_COMMIT_TIMESTAMP())",
            params={"id": 3, "name": "c"},
            param_types={"id": param_types.INT64, "name": param_types.STRING},
        )
        assert inserted == 1
        assert transaction.execute_update("DELETE FROM Singers WHERE SingerId = 2") == 1
        read = list(transaction.read("Singers", ("SingerId",), KeySet(all_=True)))
        assert read == [[1], [3]]
        transaction.insert("Singers", ("SingerId",), [(4,)])
        return "done"

    assert database.run_in_transaction(work) == "done"
    assert query(database, "SELECT SingerId, LastName FROM Singers") == [[1, "x"], [3, None], [4, None]]
    assert query(database, "SELECT Updated IS NULL FROM Singers WHERE SingerId = 3") == [[False]]


def test_returning(database):
    def work(transaction):
        found = transaction.execute_sql(
            "INSERT INTO Singers (SingerId, FirstName) VALUES (1, 'a'), (2, 'b') THEN RETURN SingerId, UPPER(FirstName)"
        )
        assert list(found) == [[1, "A"], [2, "B"]]
        found = transaction.execute_sql("UPDATE Singers SET FirstName = 'z' WHERE SingerId = 2 THEN RETURN *")
        assert [row[:2] for row in found] == [[2, "z"]]
        found = transaction.execute_sql("DELETE FROM Singers WHERE TRUE THEN RETURN WITH ACTION AS act SingerId")
        assert list(found) == [[1, "DELETE"], [2, "DELETE"]]

    database.run_in_transaction(work)


def test_failed_work_is_rolled_back(database):
    put_singers(database, (1, "a", None))

    class Stop(Exception):
        pass

    def work(transaction):
        transaction.execute_update("UPDATE Singers SET FirstName = 'b' WHERE SingerId = 1")
        raise Stop

    with pytest.raises(Stop):
        database.run_in_transaction(work)
    assert query(database, "SELECT FirstName FROM Singers") == [["a"]]


def test_batch_dml(database):
    def work(transaction):
        status, counts = transaction.batch_update(
            [
                "INSERT INTO Singers (SingerId, FirstName) VALUES (1, 'a')",
                ("UPDATE Singers SET FirstName = @n WHERE SingerId = 1", {"n": "b"}, {"n": param_types.STRING}),
                "INSERT INTO Singers (SingerId) VALUES (1)",
                "INSERT INTO Singers (SingerId) VALUES (2)",
            ]
        )
        assert status.code == 6, status
        assert counts == [1, 1]

    database.run_in_transaction(work)
    assert query(database, "SELECT SingerId, FirstName FROM Singers") == [[1, "b"]]


def test_conflicting_transactions_are_retried(database):
    put_singers(database, (1, "0", None))
    attempts = []
    both_have_read = threading.Barrier(2, timeout=20)

    def add(transaction, first_time):
        attempts.append(1)
        row = list(transaction.read("Singers", ("FirstName",), KeySet(keys=[[1]])))[0]
        if not first_time:
            first_time.append(1)
            both_have_read.wait()
        transaction.update("Singers", ("SingerId", "FirstName"), [(1, str(int(row[0]) + 1))])

    threads = [threading.Thread(target=lambda: database.run_in_transaction(add, [])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert query(database, "SELECT FirstName FROM Singers") == [["2"]]
    assert len(attempts) == 3


def test_columns_of_a_row_are_locked_apart(database):
    """Two that change different columns of one row are not in each other's way; two that change the same are."""
    put_singers(database, (1, "first", "last"))
    attempts = []

    def rename(transaction, column, during=lambda: None):
        attempts.append(column)
        transaction.execute_update(f"UPDATE Singers SET {column} = {column} || '!' WHERE SingerId = 1")
        during()

    def meanwhile():
        assert len(attempts) == 1
        other = threading.Thread(target=lambda: database.run_in_transaction(rename, "LastName"))
        other.start()
        other.join(10)
        with database.batch() as batch:
            batch.update("Singers", ("SingerId", "BirthDate"), [(1, datetime.date(1815, 12, 10))])

    def work(transaction):
        rename(transaction, "FirstName", meanwhile)
        # It sees what the others have committed next to what it has written itself.
        sql = "SELECT FirstName, LastName, BirthDate FROM Singers"
        assert list(transaction.execute_sql(sql)) == [["first!", "last!", datetime.date(1815, 12, 10)]]

    database.run_in_transaction(work)
    assert attempts == ["FirstName", "LastName"]
    sql = "SELECT FirstName, LastName, BirthDate FROM Singers"
    assert query(database, sql) == [["first!", "last!", datetime.date(1815, 12, 10)]]

    gone = []

    def look(transaction):
        attempts.append("look")
        found = list(transaction.execute_sql("SELECT FirstName FROM Singers WHERE SingerId = 1"))
        if not gone:
            gone.append(threading.Thread(target=lambda: database.run_in_transaction(delete)))
            gone[0].start()
            time.sleep(0.5)
        transaction.execute_update("UPDATE Singers SET LastName = 'seen' WHERE SingerId = 1")
        return found

    def delete(transaction):
        transaction.execute_update("DELETE FROM Singers WHERE SingerId = 1")

    # Whoever deletes the row is younger and waits for those who have read any column of it.
    assert database.run_in_transaction(look) == [["first!"]]
    gone[0].join(60)
    assert attempts[2:] == ["look"] and query(database, sql) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT FirstName FROM Singers WHERE SingerId = 1 FOR UPDATE",
        "@{LOCK_SCANNED_RANGES=exclusive} SELECT FirstName FROM Singers WHERE SingerId = 1",
    ],
    ids=["clause", "hint"],
)
def test_what_is_read_for_update_is_waited_for(database, sql):
    """Two that read first would both get on, and one would lose; with FOR UPDATE the younger waits and loses nothing."""
    put_singers(database, (1, "0", None))
    attempts, younger = [], []

    def add(transaction, then):
        attempts.append(1)
        [[found]] = transaction.execute_sql(sql)
        then()
        transaction.update("Singers", ("SingerId", "FirstName"), [(1, str(int(found) + 1))])

    def meanwhile():
        if not younger:
            younger.append(threading.Thread(target=lambda: database.run_in_transaction(add, lambda: None)))
            younger[0].start()
            younger[0].join(1)
            assert younger[0].is_alive() and len(attempts) == 2

    database.run_in_transaction(add, meanwhile)
    younger[0].join(60)
    assert query(database, "SELECT FirstName FROM Singers") == [["2"]]
    assert len(attempts) == 2
    with pytest.raises(exceptions.InvalidArgument, match="FOR UPDATE"):
        query(database, "SELECT FirstName FROM Singers FOR UPDATE")
    # A hint says nothing where there are no locks.
    assert query(database, "@{LOCK_SCANNED_RANGES=exclusive} SELECT FirstName FROM Singers") == [["2"]]
    with pytest.raises(exceptions.InvalidArgument, match="EXCLUSIVE or SHARED"):
        query(database, "@{LOCK_SCANNED_RANGES=all} SELECT FirstName FROM Singers")


def test_counters_under_contention(database):
    put_singers(database, (1, "0", None))

    def add(transaction):
        transaction.execute_update(
            "UPDATE Singers SET FirstName = CAST(CAST(FirstName AS INT64) + 1 AS STRING) WHERE SingerId = 1"
        )

    def many():
        for _ in range(5):
            database.run_in_transaction(add)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert query(database, "SELECT FirstName FROM Singers") == [["20"]]


def test_interleaving(database):
    with pytest.raises(exceptions.NotFound):
        with database.batch() as batch:
            batch.insert("Albums", ("SingerId", "AlbumId"), [(1, 1)])
    with database.batch() as batch:
        batch.insert("Singers", ("SingerId",), [(1,), (2,)])
        batch.insert("Albums", ("SingerId", "AlbumId"), [(1, 1), (2, 1)])
        batch.insert("Notes", ("SingerId", "NoteId"), [(2, 1)])
    with database.batch() as batch:
        batch.delete("Singers", KeySet(keys=[[1]]))
    assert query(database, "SELECT SingerId FROM Albums") == [[2]]
    with pytest.raises(exceptions.FailedPrecondition):
        with database.batch() as batch:
            batch.delete("Singers", KeySet(keys=[[2]]))
    with database.batch() as batch:
        batch.delete("Notes", KeySet(keys=[[2, 1]]))
        batch.delete("Singers", KeySet(keys=[[2]]))
    assert query(database, "SELECT COUNT(*) FROM Albums") == [[0]]


QUERIES = [
    ("SELECT 1", [[1]]),
    ("SELECT 'a' || 'b' AS x, NULL IS NULL, 1 + 2 * 3, 7 / 2, DIV(7, 2), MOD(7, 2)", [["ab", True, 7, 3.5, 3, 1]]),
    ("SELECT SingerId FROM Singers WHERE SingerId BETWEEN 2 AND 3", [[2], [3]]),
    ("SELECT SingerId FROM Singers WHERE LastName IS NULL", [[2], [4]]),
    ("SELECT SingerId FROM Singers WHERE LastName = 'x' OR SingerId = 4", [[1], [3], [4]]),
    ("SELECT SingerId FROM Singers WHERE NOT (LastName = 'x')", []),
    ("SELECT SingerId FROM Singers WHERE FirstName LIKE '%a%' AND STARTS_WITH(FirstName, 'M')", [[1]]),
    ("SELECT SingerId FROM Singers@{FORCE_INDEX=_BASE_TABLE} AS s WHERE s.SingerId > 1 ORDER BY s.SingerId DESC LIMIT 2", [[4], [3]]),
    ("SELECT SingerId FROM Singers ORDER BY FirstName LIMIT 2 OFFSET 1", [[1], [3]]),
    ("SELECT CASE WHEN SingerId < 3 THEN 'low' ELSE 'high' END FROM Singers ORDER BY 1 LIMIT 1", [["high"]]),
    ("SELECT LastName, COUNT(*), MIN(SingerId) FROM Singers GROUP BY LastName ORDER BY LastName", [[None, 2, 2], ["x", 2, 1]]),
    ("SELECT COUNT(*), SUM(SingerId), AVG(SingerId), MAX(FirstName) FROM Singers", [[4, 10, 2.5, "Zoe"]]),
    ("SELECT COUNT(DISTINCT LastName) FROM Singers HAVING COUNT(*) > 3", [[1]]),
    ("SELECT DISTINCT LastName FROM Singers ORDER BY LastName", [[None], ["x"]]),
    ("SELECT * EXCEPT (Updated, BirthDate) FROM Singers WHERE SingerId = 1", [[1, "Marc", "x"]]),
    ("SELECT EXISTS(SELECT 1 FROM Singers WHERE SingerId = 9), (SELECT MAX(SingerId) FROM Singers)", [[False, 4]]),
    ("SELECT x FROM UNNEST([3, 1, 2]) AS x ORDER BY x", [[1], [2], [3]]),
    ("SELECT ARRAY(SELECT SingerId FROM Singers WHERE SingerId < 3)", [[[1, 2]]]),
    ("SELECT SingerId FROM Singers WHERE SingerId IN UNNEST([1, 4])", [[1], [4]]),
    ("WITH low AS (SELECT SingerId AS id FROM Singers WHERE SingerId < 3) SELECT SUM(id) FROM low", [[3]]),
    ("SELECT 1 UNION ALL SELECT 2", [[1], [2]]),
    ("SELECT CAST('2020-01-02' AS DATE), DATE '2020-01-31' + 1", [[datetime.date(2020, 1, 2), datetime.date(2020, 2, 1)]]),
    ("SELECT IFNULL(NULL, 1), COALESCE(NULL, 'a'), IF(FALSE, 1, 2), NULLIF(1, 1)", [[1, "a", 2, None]]),
    ("SELECT LENGTH('äö'), UPPER('ä'), ABS(-1), ROUND(2.5), SAFE_CAST('x' AS INT64)", [[2, "Ä", 1, 3.0, None]]),
    ("SELECT TIMESTAMP '2020-01-01T00:00:00Z'", [[datetime.datetime(2020, 1, 1, tzinfo=UTC)]]),
]


@pytest.mark.parametrize("sql,wanted", QUERIES, ids=[sql for sql, _ in QUERIES])
def test_queries(database, sql, wanted):
    put_singers(database, (1, "Marc", "x"), (2, "Zoe", None), (3, "Nora", "x"), (4, "Anna", None))
    assert query(database, sql) == wanted


def test_joins_and_subqueries(database):
    put_singers(database, (1, "a", None), (2, "b", None), (3, "c", None))
    with database.batch() as batch:
        albums = [(1, 1, "x", decimal.Decimal(5)), (1, 2, "y", decimal.Decimal(7)), (2, 1, "z", None)]
        batch.insert("Albums", ("SingerId", "AlbumId", "Title", "Price"), albums)
    joined = "SELECT s.FirstName, a.Title FROM Singers AS s {} Albums AS a ON a.SingerId = s.SingerId ORDER BY 1, 2"
    assert query(database, joined.format("JOIN")) == [["a", "x"], ["a", "y"], ["b", "z"]]
    assert query(database, joined.format("LEFT JOIN"))[-1] == ["c", None]
    counts = (
        "SELECT SingerId, (SELECT COUNT(*) FROM Albums AS a WHERE a.SingerId = s.SingerId AND a.Price > @least) "
        "FROM Singers AS s WHERE EXISTS (SELECT 1 FROM Albums AS a WHERE a.SingerId = s.SingerId) ORDER BY 1"
    )
    arguments = {"params": {"least": decimal.Decimal(5)}, "param_types": {"least": param_types.NUMERIC}}
    assert query(database, counts, **arguments) == [[1, 1], [2, 0]]
    total = "SELECT SingerId, SUM(Price) FROM Singers JOIN Albums USING (SingerId) GROUP BY SingerId HAVING COUNT(*) > 1"
    assert query(database, total) == [[1, decimal.Decimal(12)]]
    without = "SELECT SingerId FROM Singers EXCEPT DISTINCT SELECT SingerId FROM Albums"
    assert query(database, without) == [[3]]


def test_parameters(database):
    put_singers(database, *[(number, f"n{number}", None) for number in range(10)])
    typed = query(
        database,
        "SELECT SingerId FROM Singers WHERE SingerId >= @low AND SingerId < @high",
        params={"low": 3, "high": 5},
        param_types={"low": param_types.INT64, "high": param_types.INT64},
    )
    assert typed == [[3], [4]]
    untyped = query(database, "SELECT SingerId FROM Singers WHERE FirstName = @name", params={"name": "n7"})
    assert untyped == [[7]]
    # An INT64 travels as a string; what it meets says that it is one.
    assert query(database, "SELECT FirstName FROM Singers WHERE SingerId = @id", params={"id": 7}) == [["n7"]]
    keys = query(
        database,
        "SELECT SingerId FROM Singers WHERE SingerId IN UNNEST(@keys)",
        params={"keys": [1, 8]},
        param_types={"keys": param_types.Array(param_types.INT64)},
    )
    assert keys == [[1], [8]]
    limited = query(
        database,
        "SELECT SingerId FROM Singers ORDER BY SingerId DESC LIMIT @n",
        params={"n": 1},
        param_types={"n": param_types.INT64},
    )
    assert limited == [[9]]


def test_information_schema(database):
    tables = query(
        database,
        "SELECT TABLE_NAME, PARENT_TABLE_NAME, ON_DELETE_ACTION FROM INFORMATION_SCHEMA.TABLES "
        "WHERE TABLE_SCHEMA = '' ORDER BY TABLE_NAME",
    )
    assert tables == [
        ["Albums", "Singers", "CASCADE"],
        ["Notes", "Singers", "NO ACTION"],
        ["Singers", None, None],
        ["Types", None, None],
    ]
    columns = query(
        database,
        "SELECT column_name, spanner_type, is_nullable FROM information_schema.columns "
        "WHERE table_name = 'Albums' ORDER BY ordinal_position",
    )
    assert columns == [
        ["SingerId", "INT64", "NO"],
        ["AlbumId", "INT64", "NO"],
        ["Title", "STRING(MAX)", "YES"],
        ["Price", "NUMERIC", "YES"],
    ]
    keys = query(
        database,
        "SELECT COLUMN_NAME, COLUMN_ORDERING FROM INFORMATION_SCHEMA.INDEX_COLUMNS "
        "WHERE TABLE_NAME = 'Albums' AND INDEX_NAME = 'PRIMARY_KEY' ORDER BY ORDINAL_POSITION",
    )
    assert keys == [["SingerId", "ASC"], ["AlbumId", "DESC"]]


def commit(database, table, columns, rows, verb="insert"):
    with database.batch() as batch:
        getattr(batch, verb)(table, columns, rows)


def test_errors_of_mutations(database):
    put_singers(database, (1, "a", None))
    with pytest.raises(exceptions.AlreadyExists, match=r"Row \[1\] in table Singers already exists"):
        commit(database, "Singers", ("SingerId",), [(1,)])
    with pytest.raises(exceptions.NotFound, match=r"Row \[9\] in table Singers not found"):
        commit(database, "Singers", ("SingerId", "FirstName"), [(9, "x")], "update")
    with pytest.raises(exceptions.NotFound, match="Table not found: Nothing"):
        commit(database, "Nothing", ("A",), [(1,)])
    with pytest.raises(exceptions.NotFound, match="Column not found in table Singers: Nothing"):
        commit(database, "Singers", ("SingerId", "Nothing"), [(2, 1)])
    with pytest.raises(exceptions.FailedPrecondition, match="SingerId must not be NULL"):
        commit(database, "Singers", ("SingerId",), [(None,)])
    with pytest.raises(exceptions.FailedPrecondition, match="Expected INT64"):
        commit(database, "Singers", ("SingerId",), [("x",)])
    with pytest.raises(exceptions.FailedPrecondition, match="maximum size"):
        commit(database, "Types", ("Id", "Str"), [("1", "x" * 11)])
    # Nothing of a commit that fails is there.
    with pytest.raises(exceptions.AlreadyExists):
        commit(database, "Singers", ("SingerId",), [(5,), (1,)])
    assert query(database, "SELECT SingerId FROM Singers") == [[1]]


@pytest.mark.parametrize(
    "sql,error,text",
    [
        ("SELEC 1", exceptions.InvalidArgument, r"\[at 1:1\]"),
        ("SELECT Nothing FROM Singers", exceptions.InvalidArgument, r"Unrecognized name: Nothing \[at 1:8\]"),
        ("SELECT * FROM Nothing", exceptions.InvalidArgument, "Table not found"),
        ("SELECT 1 + b'a'", exceptions.InvalidArgument, "No matching signature"),
        ("SELECT 1 / 0", exceptions.OutOfRange, "division by zero"),
        ("SELECT @missing", exceptions.InvalidArgument, "missing"),
        ("SELECT SingerId FROM Singers, Albums", exceptions.InvalidArgument, "ambiguous"),
        ("SELECT ROW_NUMBER() OVER () FROM Singers", exceptions.MethodNotImplemented, "window"),
        ("CREATE TABLE T (A INT64) PRIMARY KEY (A)", exceptions.InvalidArgument, "UpdateDatabaseDdl"),
        ("DELETE FROM Singers WHERE TRUE", exceptions.InvalidArgument, "read-write or partitioned-dml"),
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, exceptions.InvalidArgument, "nests deeper"),
    ],
)
def test_errors_of_queries(database, sql, error, text):
    with pytest.raises(error, match=text):
        query(database, sql)


def test_unknown_databases_and_methods(instance, database):
    missing = instance.database("no-such-database")
    with pytest.raises(exceptions.NotFound, match="Database not found"):
        query(missing, "SELECT 1")
    with pytest.raises(exceptions.MethodNotImplemented):
        list(instance.list_backups())


def test_transactions_over_tables(database):
    """Tables that are not interleaved lie in different tablets: one transaction reads and writes them all."""
    put_singers(database, (1, "a", None))

    def work(transaction):
        names = list(transaction.read("Singers", ("FirstName",), KeySet(keys=[[1]])))
        transaction.execute_update(
            "INSERT INTO Types (Id, Str) VALUES (@id, @name)",
            params={"id": "one", "name": names[0][0]},
            param_types={"id": param_types.STRING, "name": param_types.STRING},
        )
        assert list(transaction.execute_sql("SELECT Str FROM Types WHERE Id = 'one'")) == [["a"]]
        transaction.execute_update("UPDATE Singers SET LastName = 'seen' WHERE SingerId = 1")
        transaction.insert("Types", ("Id", "Int"), [("two", 2)])

    database.run_in_transaction(work)
    assert query(database, "SELECT Id, Str, Int FROM Types ORDER BY Id") == [["one", "a", None], ["two", None, 2]]
    assert query(database, "SELECT LastName FROM Singers") == [["seen"]]

    def fail(transaction):
        transaction.execute_update("DELETE FROM Singers WHERE TRUE")
        transaction.insert("Types", ("Id",), [("two",)])

    with pytest.raises(exceptions.AlreadyExists):
        database.run_in_transaction(fail)
    assert query(database, "SELECT LastName FROM Singers") == [["seen"]]
    with database.batch() as batch:
        batch.delete("Types", KeySet(all_=True))
        batch.update("Singers", ("SingerId", "LastName"), [(1, "both")])
    assert query(database, "SELECT COUNT(*) FROM Types") == [[0]]
    assert query(database, "SELECT LastName FROM Singers") == [["both"]]


def test_write_skew_does_not_happen(database):
    """Two rows in two tables of which one must stay: each transaction reads both and deletes one."""
    for _ in range(5):
        with database.batch() as batch:
            batch.insert_or_update("Singers", ("SingerId",), [(1,)])
            batch.insert_or_update("Types", ("Id",), [("1",)])
        both_have_read = threading.Barrier(2, timeout=20)

        def leave(transaction, table, attempts):
            singers = list(transaction.execute_sql("SELECT SingerId FROM Singers"))
            types = list(transaction.execute_sql("SELECT Id FROM Types"))
            if not attempts:
                attempts.append(1)
                both_have_read.wait()
            if len(singers) + len(types) == 2:
                transaction.delete(table, KeySet(all_=True))

        threads = [
            threading.Thread(target=lambda table=table: database.run_in_transaction(leave, table, []))
            for table in ("Singers", "Types")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        left = query(database, "SELECT SingerId FROM Singers") + query(database, "SELECT Id FROM Types")
        assert len(left) == 1, left


def test_partitioned_dml(database):
    put_singers(database, *((number, f"n{number}", None) for number in range(2_500)))
    update = "UPDATE Singers SET LastName = @name WHERE MOD(SingerId, 2) = 0"
    arguments = {"params": {"name": "even"}, "param_types": {"name": param_types.STRING}}
    assert database.execute_partitioned_dml(update, **arguments) == 1_250
    count = "SELECT COUNT(*) FROM Singers WHERE LastName = 'even'"
    assert query(database, count) == [[1_250]]
    assert database.execute_partitioned_dml("DELETE FROM Singers WHERE SingerId >= 100") == 2_400
    assert query(database, "SELECT COUNT(*) FROM Singers") == [[100]]
    assert database.execute_partitioned_dml("DELETE FROM Singers WHERE FALSE") == 0
    for refused in ["INSERT INTO Singers (SingerId) VALUES (1)", "DELETE FROM Singers WHERE TRUE THEN RETURN SingerId"]:
        with pytest.raises(exceptions.InvalidArgument, match="artitioned DML"):
            database.execute_partitioned_dml(refused)


def test_batches_of_a_snapshot(database):
    """A read and a query in parts, each processed by a snapshot made anew from the id of the first."""
    put_singers(database, *((number, f"n{number}", None) for number in range(500)))
    batch = database.batch_snapshot()
    everything = KeySet(all_=True)
    reads = list(batch.generate_read_batches("Singers", ("SingerId",), everything, max_partitions=5))
    sql = "SELECT SingerId, FirstName FROM Singers WHERE FirstName != @name"
    arguments = {"params": {"name": "n3"}, "param_types": {"name": param_types.STRING}}
    queries = list(batch.generate_query_batches(sql, **arguments))
    assert len(reads) == 5 and len(queries) > 5
    put_singers(database, (1_000, "late", None))
    state = batch.to_dict()

    def process(part):
        return list(type(batch).from_dict(database, state).process(part))

    parts = [[row[0] for row in process(part)] for part in reads]
    assert max(len(part) for part in parts) < 300
    assert sorted(number for part in parts for number in part) == list(range(500))
    found = [row[0] for part in queries for row in process(part)]
    assert sorted(found) == [number for number in range(500) if number != 3]
    keys = KeySet(keys=[[number] for number in range(10)], ranges=[KeyRange(start_closed=[100], end_open=[110])])
    parts = batch.generate_read_batches("Singers", ("SingerId",), keys)
    found = [row[0] for part in parts for row in batch.process(part)]
    assert sorted(found) == [*range(10), *range(100, 110)]
    with pytest.raises(exceptions.InvalidArgument, match="not root partitionable"):
        list(batch.generate_query_batches("SELECT COUNT(*) FROM Singers"))
    with database.batch_snapshot() as batch:
        found = batch.run_partitioned_query("SELECT SingerId FROM Singers")
        assert sorted(row[0] for row in found) == [*range(500), 1_000]


def test_pages_of_a_strong_read_are_of_one_snapshot(database):
    """A single-use read streams several pages; what is written meanwhile is in all of them or in none."""
    many = 4_000
    for start in range(0, many, 1_000):
        put_singers(database, *((number, "0", "x" * 1_000) for number in range(start, start + 1_000)))
    for read in (
        lambda snapshot: snapshot.execute_sql("SELECT FirstName, LastName FROM Singers"),
        lambda snapshot: snapshot.read("Singers", ("FirstName", "LastName"), KeySet(all_=True)),
    ):
        with database.snapshot() as snapshot:
            rows = iter(read(snapshot))
            before = next(rows)[0]
            with database.batch() as batch:
                batch.update("Singers", ("SingerId", "FirstName"), [(many - 1, before + "1")])
            found = [row[0] for row in rows]
        assert len(found) == many - 1 and found[-1] == before
        with database.batch() as batch:
            batch.update("Singers", ("SingerId", "FirstName"), [(many - 1, before)])


def test_idle_transactions_are_aborted(database):
    put_singers(database, (1, "a", None))
    attempts = []

    def work(transaction):
        attempts.append(1)
        transaction.execute_update("UPDATE Singers SET FirstName = FirstName || 'x' WHERE SingerId = 1")
        if len(attempts) == 1:
            time.sleep(12)

    database.run_in_transaction(work)
    assert len(attempts) == 2
    assert query(database, "SELECT FirstName FROM Singers") == [["ax"]]


def test_mutation_groups(database):
    with database.mutation_groups() as groups:
        groups.group().insert("Singers", ("SingerId",), [(1,)])
        groups.group().insert("Singers", ("SingerId",), [(1,)])
        groups.group().insert("Singers", ("SingerId",), [(2,)])
        answers = {index: answer.status.code for answer in groups.batch_write() for index in answer.indexes}
    assert answers == {0: 0, 1: 6, 2: 0}
    assert query(database, "SELECT SingerId FROM Singers") == [[1], [2]]


def test_three_nodes(three_nodes):
    """What one node's clients write, the others' read: strong reads through any door, conflicts across doors."""
    clients = []
    for addresses in three_nodes:
        os.environ["SPANNER_EMULATOR_HOST"] = addresses.spanner
        clients.append(spanner.Client(project="test-project"))
    name = f"three-{uuid.uuid4().hex[:8]}"
    configuration = f"{clients[0].project_name}/instanceConfigs/emulator-config"
    clients[0].instance(name, configuration_name=configuration).create().result(30)
    clients[1].instance(name).database("db", ddl_statements=[SINGERS, ALBUMS]).create().result(60)
    databases = [client.instance(name).database("db") for client in clients]
    for number, database in enumerate(databases):
        put_singers(database, (number, f"from {number}", None))
    wanted = [[number, f"from {number}"] for number in range(3)]
    for database in databases:
        assert query(database, "SELECT SingerId, FirstName FROM Singers") == wanted

    def add(transaction):
        rows = list(transaction.execute_sql("SELECT LENGTH(LastName) FROM Singers WHERE SingerId = 1"))
        count = rows[0][0] or 0
        transaction.execute_update(
            "UPDATE Singers SET LastName = @name WHERE SingerId = 1",
            params={"name": "x" * (count + 1)},
            param_types={"name": param_types.STRING},
        )

    threads = [
        threading.Thread(target=lambda database=database: [database.run_in_transaction(add) for _ in range(5)])
        for database in databases
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for database in databases:
        assert query(database, "SELECT LENGTH(LastName) FROM Singers WHERE SingerId = 1") == [[15]]
    databases[2].update_ddl(["ALTER TABLE Singers ADD COLUMN Fee NUMERIC"]).result(30)
    for database in databases:
        assert query(database, "SELECT Fee FROM Singers WHERE SingerId = 0") == [[None]]
