"""Tracing, through the official Python driver and cqlsh."""

import uuid

import pytest
from cassandra import ConsistencyLevel, InvalidRequest, ProtocolVersion
from cassandra.query import SimpleStatement

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
    # An error is an answer, too.
    with pytest.raises(InvalidRequest):
        session.execute("SELECT nothing FROM t", trace=True)


def test_cqlsh_shows_traces(node, session):
    shown = cqlsh(node, "TRACING ON; SELECT * FROM traced.t WHERE k = 1; TRACING OFF;")
    assert "Tracing session:" in shown
    assert "Request complete" in shown
    assert "READ: read 1 rows" in shown
