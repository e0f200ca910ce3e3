"""Tracing, through the official Python driver and cqlsh."""

import time
import uuid

import pytest
from cassandra import ConsistencyLevel, InvalidRequest, ProtocolVersion, Unavailable
from cassandra.query import BatchStatement, SimpleStatement

from conftest import status, wait_until
from doors import PATIENCE_SECONDS, away, thinks_dead
from test_cql import connect, cqlsh, tuples


@pytest.fixture(scope="module", params=[ProtocolVersion.V4, ProtocolVersion.V5])
def session(request, node):
    cluster, session = connect(node.cql, request.param)
    cluster.profile_manager.default.consistency_level = ConsistencyLevel.QUORUM
    session.execute("DROP KEYSPACE IF EXISTS traced")
    session.execute("CREATE KEYSPACE traced WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}")
    session.set_keyspace("traced")
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v int)")
    yield session
    cluster.shutdown()


def trace_of(session, statement, values=None):
    result = session.execute(statement, values, trace=True)
    trace = result.get_query_trace(max_wait_sec=10)
    return result, trace


def test_statements_are_traced(session):
    _, trace = trace_of(session, "INSERT INTO t (k, v) VALUES (1, 2)")
    assert trace.request_type == "Execute CQL3 query"
    assert trace.parameters["query"] == "INSERT INTO t (k, v) VALUES (1, 2)"
    assert trace.parameters["consistency_level"] == "QUORUM"
    assert trace.duration.total_seconds() > 0
    assert any("MUTATION: written" in event.description for event in trace.events)
    elapsed = [event.source_elapsed for event in trace.events]
    assert elapsed == sorted(elapsed)
    assert all(event.source for event in trace.events)

    result, trace = trace_of(session, "SELECT v FROM t WHERE k = 1")
    assert tuples(result) == [(2,)]
    assert any("READ: read 1 rows" in event.description for event in trace.events)

    prepared = session.prepare("UPDATE t SET v = ? WHERE k = ? IF v = ?")
    prepared.serial_consistency_level = ConsistencyLevel.SERIAL
    result, trace = trace_of(session, prepared, (3, 1, 2))
    assert result.was_applied
    assert trace.parameters["query"] == "UPDATE t SET v = ? WHERE k = ? IF v = ?"
    for step in ["PAXOS_PREPARE: promised", "PAXOS_PROPOSE: accepted", "PAXOS_COMMIT: written"]:
        assert any(step in event.description for event in trace.events), step


def test_what_is_not_traced_leaves_no_trace(session):
    result = session.execute(SimpleStatement("SELECT v FROM t WHERE k = 1"))
    assert result.get_query_trace() is None
    nobody = uuid.uuid1()
    assert session.execute("SELECT * FROM system_traces.sessions WHERE session_id = %s", (nobody,)).one() is None


def test_what_fails_is_traced_as_well(session):
    future = session.execute_async("SELECT nothing FROM t", trace=True)
    with pytest.raises(InvalidRequest, match="Undefined column name nothing"):
        future.result()
    trace = future.get_query_trace(max_wait=10)
    assert trace.parameters["query"] == "SELECT nothing FROM t"
    assert [event.description for event in trace.events] == ["Failed: Undefined column name nothing in table traced.t"]


def test_cqlsh_shows_traces(node, session):
    shown = cqlsh(node, "TRACING ON; SELECT * FROM traced.t WHERE k = 1; TRACING OFF;")
    assert "Tracing session:" in shown
    assert "Request complete" in shown
    assert "READ: read 1 rows" in shown


class Told:
    """What the trace of one statement tells, through the door that it went in at."""

    def __init__(self, cluster, door, statement):
        self.hosts, self.door = cluster.HOSTS, door
        began = time.monotonic()
        self.result = door.session.execute(statement, trace=True)
        took = time.monotonic() - began
        self.trace = self.result.get_query_trace(max_wait_sec=PATIENCE_SECONDS)
        assert 0 < self.trace.duration.total_seconds() <= took

    def steps(self, text):
        """Who did that, and how long after the beginning, in that order."""
        return [
            (self.hosts.index(event.source), event.source_elapsed)
            for event in self.trace.events
            if text in event.description
        ]

    def nodes(self, text):
        return {node for node, _ in self.steps(text)}

    def first(self, text):
        return min(elapsed for _, elapsed in self.steps(text))

    def wait_for(self, *texts):
        """Who is not waited for by the level comes after the answer: until every node has told of each of these."""
        every = set(range(len(self.hosts)))

        def is_told():
            self.trace.populate(max_wait=PATIENCE_SECONDS)
            return all(self.nodes(text) == every for text in texts)

        wait_until(f"each node's {texts}", is_told, PATIENCE_SECONDS)

    def check_times(self, coordinator):
        trace = self.trace
        assert trace.coordinator == self.hosts[coordinator]
        # The driver's own end of the connection.
        assert trace.client.startswith("127.")
        for source in self.hosts:
            elapsed = [event.source_elapsed for event in trace.events if event.source == source]
            assert elapsed == sorted(elapsed)
        for event in trace.events:
            # Rows have their time twice; that of the trace's beginning is kept in milliseconds.
            at = event.datetime.replace(tzinfo=None) - trace.started_at
            assert abs((at - event.source_elapsed).total_seconds()) < 0.002


def quorum(statement):
    return SimpleStatement(statement, consistency_level=ConsistencyLevel.QUORUM)


# What node 3 misses stays missed, until a read finds it.
@pytest.mark.parametrize("cluster", [("--hint-window-seconds", "0")], indirect=True)
def test_a_trace_tells_which_node_did_what_and_when(cluster, doors):
    door = doors(0)
    door.run("CREATE KEYSPACE told WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}")
    # No more is asked than the level needs, however slow the machine is.
    door.run("CREATE TABLE told.t (k int PRIMARY KEY, v int) WITH speculative_retry = 'NONE'")
    cluster.wait_grown()
    ids = {node["client_address"]: node["id"] for node in status(cluster.addresses(0).admin)["nodes"]}
    names = [f"n{ids[host]}" for host in cluster.HOSTS]

    write = Told(cluster, door, quorum("INSERT INTO told.t (k, v) VALUES (1, 1)"))
    write.wait_for("MUTATION: written")
    write.check_times(coordinator=0)
    assert [node for node, _ in write.steps("Sending MUTATION")] == [0, 0]
    for node in (1, 2):
        assert write.first(f"Sending MUTATION to {names[node]}") < dict(write.steps("MUTATION: written"))[node]
    # It was answered when two had it.
    written = sorted(elapsed for _, elapsed in write.steps("MUTATION: written"))
    assert written[1] <= write.trace.duration

    with away(cluster, 2, "killed"):
        wait_until("node 3 to be taken for dead", lambda: thinks_dead(cluster, 0, 2), PATIENCE_SECONDS)
        alone = Told(cluster, door, quorum("INSERT INTO told.t (k, v) VALUES (1, 2)"))
        assert alone.nodes("MUTATION: written") == {0, 1}
        assert alone.nodes("Sending MUTATION") == {0}
        everywhere = SimpleStatement("INSERT INTO told.t (k, v) VALUES (2, 2)", consistency_level=ConsistencyLevel.ALL)
        future = door.session.execute_async(everywhere, trace=True)
        with pytest.raises(Unavailable):
            future.result()
        [failed] = future.get_query_trace(max_wait=PATIENCE_SECONDS).events
        assert failed.description.startswith("Failed: ") and failed.source == cluster.HOSTS[0]
    returned = doors(2)
    returned.insist("SELECT v FROM told.t WHERE k = 7")
    cluster.wait_grown()

    read = Told(cluster, returned, quorum("SELECT v FROM told.t WHERE k = 1"))
    assert read.result.one().v == 2
    read.check_times(coordinator=2)
    [(other, asked_at)] = read.steps("READ of a digest: digest")
    assert other in (0, 1)
    # Its own rows first, then the other's, as they differ; then it mends itself before it answers.
    assert [node for node, _ in read.steps("READ: read 1 rows")] == [2, other]
    assert read.nodes("The digests differ") == {2}
    assert asked_at <= read.first("The digests differ") <= dict(read.steps("READ: read 1 rows"))[other]
    [(repairer, repaired_at)] = read.steps(f"Read repair: {names[2]} lacks 1 rows")
    [(repaired, written_at)] = read.steps("MUTATION: written")
    assert (repairer, repaired) == (2, 2)
    assert dict(read.steps("READ: read 1 rows"))[other] <= repaired_at <= written_at <= read.trace.duration
    again = Told(cluster, returned, quorum("SELECT v FROM told.t WHERE k = 1"))
    assert again.result.one().v == 2 and not again.steps("differ") and not again.steps("MUTATION")

    swap = Told(cluster, doors(1), quorum("UPDATE told.t SET v = 3 WHERE k = 1 IF v = 2"))
    assert swap.result.was_applied
    stages = ["PAXOS_PREPARE: promised", "PAXOS_PROPOSE: accepted", "PAXOS_COMMIT: written"]
    swap.wait_for(*stages)
    swap.check_times(coordinator=1)
    at = [sorted(elapsed for _, elapsed in swap.steps(stage)) for stage in stages]
    # Each stage begins when a quorum has gone through the one before.
    assert at[0][1] <= at[1][0] and at[1][1] <= at[2][0] and at[2][1] <= swap.trace.duration

    batch = BatchStatement(consistency_level=ConsistencyLevel.QUORUM)
    for k in range(10, 14):
        batch.add(SimpleStatement(f"INSERT INTO told.t (k, v) VALUES ({k}, 1)"))
    logged = Told(cluster, door, batch)
    logged.wait_for("BATCH_STORE: kept", "MUTATION: written", "BATCH_REMOVE: forgotten")
    logged.check_times(coordinator=0)
    kept = sorted(elapsed for _, elapsed in logged.steps("BATCH_STORE: kept"))
    assert len(kept) == 3 and kept[1] <= logged.first("MUTATION: written")
    assert logged.first("MUTATION: written") < logged.first("BATCH_REMOVE: forgotten")

    # Whichever node is asked, it finds them.
    for name, count in {"sessions": 1, "events": len(logged.trace.events)}.items():
        select = f"SELECT * FROM system_traces.{name} WHERE session_id = %s"
        assert len(returned.run(select, values=(logged.trace.trace_id,)).all()) >= count
