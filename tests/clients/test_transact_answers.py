"""Commits whose answers are lost: the client repeats them by itself, and nothing is done twice."""

import contextlib
import select
import socket
import tempfile
import threading
import time

import pytest

from conftest import Cluster, spanner_client, wait_until

DDL = ["CREATE TABLE Accounts (id INT64 NOT NULL, balance INT64) PRIMARY KEY (id)"]


class Proxy:
    """Stands between a client and a server, until it is told to swallow the answers and then to hang up."""

    def __init__(self, target):
        self.target = target
        self.swallows = False
        self.pairs = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                try:
                    server = socket.create_connection(self.target)
                except OSError:
                    client.close()
                    continue
                self.pairs.append((client, server))
                threading.Thread(target=self.pump, args=(client, server), daemon=True).start()

    def pump(self, client, server):
        with contextlib.suppress(OSError, ValueError):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        raise OSError("closed")
                    if source is client:
                        server.sendall(data)
                    elif not self.swallows:
                        client.sendall(data)
        client.close()
        server.close()

    def hang_up(self):
        pairs, self.pairs = self.pairs, []
        self.swallows = False
        for pair in pairs:
            for each in pair:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def bank(monkeypatch):
    """One node with a directory, its proxy, and the bank's database: through the proxy, and directly."""
    with tempfile.TemporaryDirectory(prefix="tessera-test-") as folder:
        cluster = Cluster(folder)
        cluster.start(0)
        address = cluster.addresses(0).spanner
        proxy = Proxy(cluster.addresses(0).host_port("spanner"))
        try:
            monkeypatch.setenv("SPANNER_EMULATOR_HOST", address)
            instance = spanner_client(address, "p").instance(
                "bank", "projects/p/instanceConfigs/emulator-config", node_count=1
            )
            instance.create().result(30)
            direct = instance.database("bank", ddl_statements=DDL)
            direct.create().result(30)
            with direct.batch() as batch:
                batch.insert("Accounts", ("id", "balance"), [(1, 0)])
            monkeypatch.setenv("SPANNER_EMULATOR_HOST", proxy.address)
            client = spanner_client(proxy.address, "p")
            through = client.instance("bank").database("bank")
            yield cluster, proxy, through, direct
        finally:
            proxy.listener.close()
            proxy.hang_up()
            cluster.stop_all()


def balance(database):
    with database.snapshot() as snapshot:
        [[found]] = snapshot.execute_sql("SELECT balance FROM Accounts WHERE id = 1")
    return found


def add_one(database, before_commit):
    """Adds one to the balance; how often the client has begun to."""
    attempts = []

    def work(transaction):
        attempts.append(1)
        transaction.execute_update("UPDATE Accounts SET balance = balance + 1 WHERE id = 1")
        before_commit()

    try:
        database.run_in_transaction(work, timeout_secs=30)
    finally:
        before_commit.joined()
    return len(attempts)


class Cut:
    """Loses the answer to what the client sends next, once it has been carried out; then does something, and hangs up."""

    def __init__(self, proxy, is_done, then=lambda: None):
        self.proxy, self.is_done, self.then = proxy, is_done, then
        self.thread = None

    def __call__(self):
        if self.thread is None:
            self.proxy.swallows = True
            self.thread = threading.Thread(target=self.cut)
            self.thread.start()

    def cut(self):
        try:
            wait_until("the commit is carried out", self.is_done, 20)
            self.then()
        finally:
            self.proxy.hang_up()

    def joined(self):
        self.thread.join(60)
        assert not self.thread.is_alive()


def test_a_commit_is_repeated_after_its_connection_was_cut_and_hears_its_outcome(bank):
    _, proxy, through, direct = bank
    assert balance(through) == 0
    attempts = add_one(through, Cut(proxy, lambda: balance(direct) == 1))
    assert (attempts, balance(direct)) == (1, 1)
    # What comes later is not disturbed.
    through.run_in_transaction(
        lambda transaction: transaction.execute_update("UPDATE Accounts SET balance = balance + 1 WHERE id = 1")
    )
    assert balance(direct) == 2


def test_a_commit_whose_node_was_killed_before_it_answered_is_found_and_not_done_again(bank):
    cluster, proxy, through, direct = bank
    assert balance(through) == 0

    def kill():
        cluster.kill(0)
        cluster.start(0)

    add_one(through, Cut(proxy, lambda: balance(direct) == 1, then=kill))
    # Whoever would do it again has had the time.
    time.sleep(1)
    assert balance(direct) == 1
