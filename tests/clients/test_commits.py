"""Spanner transactions of which requests come to several nodes, as they do behind a load balancer or when one dies."""

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import spanner
from google.cloud.spanner_v1.services.spanner import SpannerClient
from google.cloud.spanner_v1.services.spanner.transports import SpannerGrpcTransport

from conftest import spanner_client

ROW = 1


def api_at(*addresses):
    """The client's own API over one connection to each node; each request goes to the next of them."""
    target = f"ipv4:{','.join(addresses)}"
    options = [("grpc.lb_policy_name", "round_robin"), ("grpc.default_authority", "tessera")]
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
        ddl = ["CREATE TABLE Counters (id INT64, count INT64) PRIMARY KEY (id)"]
        self.database = instance.database(name, ddl_statements=ddl)
        self.database.create().result(30)
        with self.database.batch() as batch:
            batch.insert("Counters", ("id", "count"), [(ROW, 0)])
        self.apis = [api_at(address) for address in self.addresses]
        self.session = self.apis[0].create_session(database=self.database.name).name

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

    def commit(self, index, transaction):
        request = {"session": self.session, "transaction_id": transaction}
        answer = self.apis[index].commit(request=request, retry=None, timeout=60)
        return answer.commit_timestamp

    def count(self, index):
        request = {"session": self.session, "sql": "SELECT count FROM Counters"}
        return int(self.apis[index].execute_sql(request=request, timeout=30).rows[0][0])


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
