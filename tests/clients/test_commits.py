"""Spanner transactions of which requests come to several nodes, as they do behind a load balancer or when one dies."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import spanner
from google.cloud.spanner_v1.services.spanner import SpannerClient
from google.cloud.spanner_v1.services.spanner.transports import SpannerGrpcTransport

from conftest import spanner_client, status, wait_until

ROW = 1


def api_at(*addresses):
    """The client's own API over one connection to each node; each request goes to the next of them."""
    target = f"ipv4:{','.join(addresses)}"
    # Channels of one process share what they know of an address, that it was refused a moment ago, too; but for this.
    own = ("grpc.use_local_subchannel_pool", 1)
    options = [("grpc.lb_policy_name", "round_robin"), ("grpc.default_authority", "tessera"), own]
    channel = grpc.insecure_channel(target, options)
    return SpannerClient(transport=SpannerGrpcTransport(channel=channel))


class Counters:
    """A database with one row that counts, as all nodes of a cluster see it."""

    def __init__(self, nodes, monkeypatch, name):
        self.addresses = [node.spanner for node in nodes]
        monkeypatch.setenv("SPANNER_EMULATOR_HOST", self.addresses[0])
        client = spanner_client(self.addresses[0], "test")
        instance = client.instance("commits", "projects/test/instanceConfigs/emulator-config", node_count=1)
        if not instance.exists():
            instance.create().result(30)
        ddl = [
            "CREATE TABLE Counters (id INT64, count INT64) PRIMARY KEY (id)",
            "CREATE TABLE Entries (id INT64) PRIMARY KEY (id)",
        ]
        self.database = instance.database(name, ddl_statements=ddl)
        self.database.create().result(30)
        with self.database.batch() as batch:
            batch.insert("Counters", ("id", "count"), [(ROW, 0)])
        self.apis = [api_at(address) for address in self.addresses]
        self.session = self.apis[0].create_session(database=self.database.name).name

    def reconnect(self, index):
        """At once, where the channel that has lost its node would pause first."""
        self.apis[index] = api_at(self.addresses[index])

    def begin(self, index):
        request = {"session": self.session, "options": {"read_write": {}}}
        return self.apis[index].begin_transaction(request=request).id

    def count_up(self, index, transaction, seqno=1):
        request = {
            "session": self.session,
            "transaction": {"id": transaction},
            "sql": f"UPDATE Counters SET count = count + 1 WHERE id = {ROW}",
            "seqno": seqno,
        }
        self.apis[index].execute_sql(request=request, retry=None, timeout=30)

    def commit(self, index, transaction, entry=None):
        """Over two tables and their tablets, where there is an entry."""
        request = {"session": self.session, "transaction_id": transaction}
        if entry is not None:
            insert = {"table": "Entries", "columns": ["id"], "values": [[str(entry)]]}
            request["mutations"] = [{"insert": insert}]
        answer = self.apis[index].commit(request=request, retry=None, timeout=60)
        return answer.commit_timestamp

    def count(self, index):
        request = {"session": self.session, "sql": "SELECT count FROM Counters"}
        return int(self.apis[index].execute_sql(request=request, timeout=30).rows[0][0])

    def entries(self, index):
        request = {"session": self.session, "sql": "SELECT id FROM Entries"}
        rows = self.apis[index].execute_sql(request=request, timeout=30).rows
        return {int(row[0]) for row in rows}


def test_each_request_of_a_transaction_may_come_to_another_node(three_nodes, monkeypatch):
    counters = Counters(three_nodes, monkeypatch, "balanced")
    database = counters.database
    database._spanner_api = api_at(*counters.addresses)
    attempts = []

    def count_up(transaction):
        attempts.append(transaction)
        (row,) = transaction.execute_sql("SELECT count FROM Counters")
        transaction.execute_update(f"UPDATE Counters SET count = {row[0] + 1} WHERE id = {ROW}")
        (row,) = transaction.read("Counters", ("count",), spanner.KeySet(keys=[(ROW,)]))
        transaction.batch_update([f"UPDATE Counters SET count = {row[0] + 1} WHERE id = {ROW}"])

    for _ in range(10):
        database.run_in_transaction(count_up)
    assert len(attempts) == 10, "nothing was in their way"
    assert [counters.count(index) for index in range(3)] == [20] * 3


def test_a_repeated_commit_hears_its_outcome_at_any_node(three_nodes, monkeypatch):
    counters = Counters(three_nodes, monkeypatch, "repeated")
    transaction = counters.begin(0)
    counters.count_up(1, transaction)
    committed = counters.commit(2, transaction)
    assert [counters.commit(index, transaction) for index in range(3)] == [committed] * 3
    with pytest.raises(exceptions.FailedPrecondition):
        counters.count_up(1, transaction, seqno=2)
    assert counters.count(1) == 1
    abandoned = counters.begin(0)
    counters.count_up(0, abandoned)
    counters.apis[1].rollback(session=counters.session, transaction_id=abandoned)
    with pytest.raises(exceptions.FailedPrecondition):
        counters.commit(0, abandoned)
    assert counters.count(2) == 1


def is_dead(cluster, index, seen_from):
    nodes = status(cluster.addresses(seen_from).admin)["nodes"]
    return not nodes[index]["alive"]


@pytest.mark.parametrize("entry", [None, 7])
def test_a_commit_whose_node_is_killed_is_found_in_the_tablets(cluster, monkeypatch, entry):
    counters = Counters([cluster.addresses(index) for index in range(3)], monkeypatch, "killed")
    transaction = counters.begin(0)
    counters.count_up(0, transaction)
    committed = counters.commit(0, transaction, entry)
    cluster.kill(0)
    assert [counters.commit(index, transaction, entry) for index in (1, 2)] == [committed] * 2
    assert counters.count(1) == 1
    assert counters.entries(2) == ({entry} if entry else set())
    cluster.start(0)
    counters.reconnect(0)
    assert counters.commit(0, transaction, entry) == committed
    assert counters.count(0) == 1


def test_what_was_under_way_when_its_node_was_killed_is_told_as_it_is(cluster, monkeypatch):
    counters = Counters([cluster.addresses(index) for index in range(3)], monkeypatch, "dying")
    counted, outcomes = 0, []
    pool = ThreadPoolExecutor()
    for round in range(4):
        transaction = counters.begin(0)
        counters.count_up(0, transaction)
        entry = round if round % 2 else None
        first = None
        if round < 3:
            first = pool.submit(counters.commit, 0, transaction, entry)
            time.sleep(0.0005 * round)
        cluster.kill(0)
        wait_until("its death is known", lambda: is_dead(cluster, 0, 1))
        try:
            early = counters.commit(1, transaction, entry)
        except exceptions.Unknown:
            early = None
        cluster.start(0)
        counters.reconnect(0)
        try:
            late = counters.commit(2, transaction, entry)
            counted += 1
        except exceptions.Aborted:
            late = None
        outcomes.append(late is not None)
        assert early is None or early == late
        assert first is None or first.exception() or first.result() == late
        assert counters.count(1) == counted
        assert (round in counters.entries(1)) == (late is not None and entry is not None)
        cluster.wait_grown()
    assert outcomes[-1] is False, "it was never asked for while its node lived"
