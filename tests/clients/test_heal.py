"""Eventual tables heal themselves: a node that was away has what it missed, without anybody reading it before."""

import re
import signal
import subprocess
import time
import urllib.request

import pytest
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster as CqlCluster, ExecutionProfile
from cassandra.policies import WhiteListRoundRobinPolicy
from cassandra.protocol import ConfigurationException
from cassandra.query import SimpleStatement

from conftest import binary, status, wait_until

ROWS = 60


def connect(cluster, index):
    """A session whose requests all go to one node."""
    profile = ExecutionProfile(
        load_balancing_policy=WhiteListRoundRobinPolicy([cluster.HOSTS[index]]), request_timeout=10
    )
    client = CqlCluster(
        [cluster.HOSTS[index]],
        port=cluster.ports["cql"],
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        connect_timeout=5,
    )
    return client, client.connect()


def create(cluster):
    client, session = connect(cluster, 0)
    session.execute(
        "CREATE KEYSPACE healing WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}"
    )
    session.execute("CREATE TABLE healing.rows (id int PRIMARY KEY, value text)")
    cluster.wait_grown()
    return client, session


def put(session, number, level):
    statement = SimpleStatement(
        f"INSERT INTO healing.rows (id, value) VALUES ({number}, 'value {number}')", consistency_level=level
    )
    session.execute(statement)


def get(session, number):
    statement = SimpleStatement(
        f"SELECT value FROM healing.rows WHERE id = {number}", consistency_level=ConsistencyLevel.ONE
    )
    row = session.execute(statement).one()
    return row and row.value


def take_for_dead(cluster, index, dead):
    def is_dead():
        nodes = status(cluster.addresses(index).admin)["nodes"]
        return any(not node["alive"] and node["client_address"] == cluster.HOSTS[dead] for node in nodes)

    wait_until(f"node {dead + 1} to be taken for dead", is_dead)


@pytest.mark.parametrize("level", [ConsistencyLevel.ONE, ConsistencyLevel.QUORUM, ConsistencyLevel.ANY])
def test_a_killed_node_gets_what_it_missed(cluster, level):
    client, session = create(cluster)
    put(session, 0, ConsistencyLevel.ALL)
    cluster.kill(2)
    # Half of it while the node is thought alive, so that its part times out or is lost on the way.
    for number in range(1, ROWS // 2):
        put(session, number, level)
    take_for_dead(cluster, 0, 2)
    for number in range(ROWS // 2, ROWS):
        put(session, number, level)
    cluster.start(2)
    returned, alone = connect(cluster, 2)

    # A read at ONE through the node that has the data asks nobody else.
    def has_all():
        return all(get(alone, number) == f"value {number}" for number in range(ROWS))

    wait_until("the hints to be delivered", has_all, 40)
    returned.shutdown()
    client.shutdown()


def tessera(*arguments):
    return subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("cluster", [("--hint-window-seconds", "0")], indirect=True)
def test_without_hints_a_repair_brings_what_a_killed_node_missed(cluster):
    client, session = create(cluster)
    cluster.kill(2)
    take_for_dead(cluster, 0, 2)
    for number in range(ROWS):
        put(session, number, ConsistencyLevel.QUORUM)
    session.execute(SimpleStatement("DELETE FROM healing.rows WHERE id = 1", consistency_level=ConsistencyLevel.QUORUM))
    cluster.start(2)
    returned, alone = connect(cluster, 2)
    time.sleep(3)
    assert get(alone, 2) is None, "nothing has brought it"
    done = tessera("repair", "--admin", cluster.addresses(1).admin, "healing", "rows")
    assert done.returncode == 0, done.stderr
    assert "8 of 8 tablets" in done.stdout
    assert get(alone, 1) is None
    assert all(get(alone, number) == f"value {number}" for number in range(2, ROWS))
    # Now there is nothing to bring.
    again = tessera("repair", "--admin", cluster.addresses(2).admin, "healing")
    assert again.returncode == 0 and " 0 rows" in again.stdout.splitlines()[-1], again.stdout
    strange = tessera("repair", "--admin", cluster.addresses(2).admin, "nowhere")
    assert strange.returncode != 0 and "nowhere" in strange.stderr
    returned.shutdown()
    client.shutdown()


@pytest.mark.parametrize(
    "cluster", [("--hint-window-seconds", "0", "--repair-interval-seconds", "2")], indirect=True
)
def test_repair_goes_on_by_itself(cluster):
    client, session = create(cluster)
    cluster.kill(2)
    take_for_dead(cluster, 0, 2)
    for number in range(ROWS):
        put(session, number, ConsistencyLevel.QUORUM)
    cluster.start(2)
    returned, alone = connect(cluster, 2)

    def has_all():
        return all(get(alone, number) == f"value {number}" for number in range(ROWS))

    wait_until("the repair in the background", has_all, 40)
    returned.shutdown()
    client.shutdown()


def counter(cluster, index, name):
    with urllib.request.urlopen(f"http://{cluster.addresses(index).admin}/metrics") as response:
        text = response.read().decode()
    return int(re.search(rf"^tessera_{name}_total (\d+)", text, re.MULTILINE).group(1))


def speculative_reads(cluster, index):
    return counter(cluster, index, "node_reads_speculative")


def test_reads_do_not_wait_for_a_node_that_hangs(cluster):
    """A node stops answering, and the others have not noticed yet: reads ask the third one before long."""
    client, session = create(cluster)
    for number in range(ROWS):
        put(session, number, ConsistencyLevel.ALL)
    prepared = session.prepare("SELECT value FROM healing.rows WHERE id = ?")
    prepared.consistency_level = ConsistencyLevel.QUORUM

    def read(number):
        began = time.monotonic()
        row = session.execute(prepared, (number % ROWS,)).one()
        assert row.value == f"value {number % ROWS}"
        return time.monotonic() - began

    served = [counter(cluster, index, "node_internode_served") for index in range(3)]
    usual = sorted(read(number) for number in range(300))
    assert speculative_reads(cluster, 0) <= 30
    before = speculative_reads(cluster, 0)
    # Of the other two the faster is asked, and one that was slow a moment ago may not be asked at all.
    asked = max((1, 2), key=lambda index: counter(cluster, index, "node_internode_served") - served[index])
    hanging = cluster.processes[asked]
    hanging.send_signal(signal.SIGSTOP)
    try:
        until = time.monotonic() + 1.2
        meanwhile = []
        while time.monotonic() < until:
            meanwhile.append(read(len(meanwhile)))
        nodes = status(cluster.addresses(0).admin)["nodes"]
        assert all(node["alive"] for node in nodes), "it was to hang unnoticed"
    finally:
        hanging.send_signal(signal.SIGCONT)
    # A read that waited for it would take as long as the client's patience.
    assert max(meanwhile) < 0.5, max(meanwhile)
    # Soon it is not asked any more.
    assert sorted(meanwhile)[len(meanwhile) // 2] < usual[-1] + 0.02
    assert speculative_reads(cluster, 0) > before
    with pytest.raises(ConfigurationException, match="speculative_retry"):
        session.execute("ALTER TABLE healing.rows WITH speculative_retry = 'sometimes'")
    session.execute("ALTER TABLE healing.rows WITH speculative_retry = 'min(99p, 20ms)'")
    client.refresh_table_metadata("healing", "rows")
    options = client.metadata.keyspaces["healing"].tables["rows"].options
    assert options["speculative_retry"] == "MIN(99p,20ms)"
    client.shutdown()


@pytest.mark.parametrize("cluster", [("--repair-interval-seconds", "2")], indirect=True)
def test_tombstones_go_after_gc_grace_and_a_repair_and_nothing_returns(cluster):
    client, session = create(cluster)
    session.execute(
        "CREATE TABLE healing.short (p int, c int, v int, m map<int, int>, PRIMARY KEY (p, c)) "
        "WITH gc_grace_seconds = 1"
    )

    def do(statement):
        session.execute(SimpleStatement(statement, consistency_level=ConsistencyLevel.QUORUM))

    for number in range(ROWS):
        do(f"INSERT INTO healing.short (p, c, v, m) VALUES (1, {number}, 1, {{1: 1}})")
    # While a node is away that has it all, no tombstone of it goes.
    cluster.kill(2)
    take_for_dead(cluster, 0, 2)
    for number in range(0, 20):
        do(f"DELETE FROM healing.short WHERE p = 1 AND c = {number}")
    do("DELETE FROM healing.short WHERE p = 1 AND c >= 20 AND c < 40")
    for number in range(40, 50):
        do(f"DELETE v FROM healing.short WHERE p = 1 AND c = {number}")
        do(f"DELETE m[1] FROM healing.short WHERE p = 1 AND c = {number}")
    do("UPDATE healing.short USING TTL 1 SET v = 2 WHERE p = 1 AND c = 50")
    rows = [(number, None, None) for number in range(40, 50)] + [(50, None, {1: 1})]
    rows += [(number, 1, {1: 1}) for number in range(51, ROWS)]

    def read(index, level):
        reader, its_own = connect(cluster, index)
        statement = SimpleStatement("SELECT c, v, m FROM healing.short WHERE p = 1", consistency_level=level)
        future = its_own.execute_async(statement)
        found = [(row.c, row.v, dict(row.m) if row.m else None) for row in future.result()]
        warnings = future.warnings or []
        reader.shutdown()
        return found, warnings

    subprocess.run(
        [binary(), "set", "tombstone_warn_threshold", "1", "--admin", cluster.addresses(0).admin],
        check=True,
        capture_output=True,
    )
    time.sleep(20)
    for index in (0, 1):
        found, warnings = read(index, ConsistencyLevel.ONE)
        assert found == rows
        assert warnings and "tombstone" in warnings[0], "they stay until the third has been repaired"
    cluster.start(2)

    def are_gone():
        return not any(read(index, ConsistencyLevel.ONE)[1] for index in range(3))

    wait_until("the tombstones to go", are_gone, 60)
    for index in range(3):
        assert read(index, ConsistencyLevel.ONE)[0] == rows
    assert read(2, ConsistencyLevel.ALL) == (rows, [])
    client.shutdown()
