"""Nine nodes in three data centres, through the Python driver under load: a data centre comes in by ALTER KEYSPACE, one is cut off
and returns. What a level promises holds on both sides, and in the end everything acknowledged is everywhere.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter

import pytest

from conftest import binary, wait_until
from hosts import PORTS, Hosts, available

CENTRES = 3
NODES = 3
CUT = 2


@pytest.fixture
def hosts():
    if not available():
        pytest.skip("takes network namespaces: Linux, iproute2, root")
    with tempfile.TemporaryDirectory(prefix="tessera-test-") as folder:
        with Hosts(folder, groups=(NODES,) * CENTRES) as made:
            try:
                yield made
            except BaseException:
                for log in sorted(made.folder.glob("*.log")):
                    print(f"---- {log.name}\n{log.read_text(errors='replace')[-2000:]}")
                raise


class Client:
    def __init__(self, hosts, centre):
        addresses = ",".join(hosts.address(centre * NODES + index) for index in range(NODES))
        self.process = hosts.run_within(centre, "centres.py", str(centre + 1), addresses)
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, **what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def count(self):
        return self.ask(count=True)["acknowledged"]


DRIVER = """
import sys
from cassandra.cluster import Cluster
cluster = Cluster([sys.argv[1]], connect_timeout=10)
session = cluster.connect()
for statement in sys.argv[2:]:
    session.execute(statement, timeout=30)
cluster.shutdown()
"""


def execute(hosts, *statements):
    done = hosts.within(0, [sys.executable, "-c", DRIVER, hosts.address(0), *statements], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PINNED = """
import json, sys
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import WhiteListRoundRobinPolicy
from cassandra.query import SimpleStatement
profile = ExecutionProfile(load_balancing_policy=WhiteListRoundRobinPolicy([sys.argv[1]]), request_timeout=15)
cluster = Cluster([sys.argv[1]], execution_profiles={EXEC_PROFILE_DEFAULT: profile}, connect_timeout=10)
session = cluster.connect()
outcomes = []
for level, statement in json.loads(sys.argv[2]):
    try:
        rows = session.execute(SimpleStatement(statement, consistency_level=getattr(ConsistencyLevel, level)))
        outcomes.append([list(row) for row in rows])
    except Exception as error:
        # No other node is asked where this one's answer would have been tried elsewhere.
        inner = list(getattr(error, "errors", {}).values())
        outcomes.append(type(inner[0] if inner else error).__name__)
print(json.dumps(outcomes))
cluster.shutdown()
"""


def ask_node(hosts, index, *statements):
    """What one node answers, asked from within its data centre: rows, or the name of an error."""
    command = [sys.executable, "-c", PINNED, hosts.address(index), json.dumps(statements)]
    done = hosts.within(hosts.group_of[index], command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rebuild(hosts):
    command = [binary(), "rebuild", "--admin", f"{hosts.address(0)}:{PORTS['admin']}", "shop"]
    done = hosts.within(0, command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def replication(*factors):
    parts = ", ".join(f"'dc{index + 1}': {factor}" for index, factor in enumerate(factors))
    return "{'class': 'NetworkTopologyStrategy', " + parts + "}"


def alive_from(hosts, index):
    found = hosts.status(index)
    return found and sum(node["alive"] for node in found["nodes"])


def test_a_data_centre_comes_is_cut_off_and_returns(hosts):
    for index in range(CENTRES * NODES):
        hosts.start(index)
    wait_until("nine nodes know each other", lambda: alive_from(hosts, 0) == 9)
    execute(
        hosts,
        f"CREATE KEYSPACE shop WITH replication = {replication(3, 3)}",
        "CREATE TABLE shop.orders (id int PRIMARY KEY, note text)",
    )
    rebuild(hosts)
    clients = [Client(hosts, centre) for centre in range(2)]
    execute(hosts, f"ALTER KEYSPACE shop WITH replication = {replication(3, 3, 3)}")
    seen = rebuild(hosts)
    assert seen[-1].startswith("dc3: 24 of 24 copies, 0 being filled"), seen
    clients.append(Client(hosts, CUT))
    for client in clients:
        assert client.ask(write="EACH_QUORUM")["error"] is None

    hosts.cut_group(CUT)
    before = [client.count() for client in clients]
    wait_until("the others to be taken for dead", lambda: alive_from(hosts, 0) == 6 and alive_from(hosts, 6) == 3)
    time.sleep(3)
    for centre, client in enumerate(clients):
        assert client.count() > before[centre] + 50, "LOCAL_QUORUM goes on on both sides"
        assert client.ask(write="EACH_QUORUM") == {"error": "Unavailable", "level": "EACH_QUORUM"}
        expected = {"error": "Unavailable", "level": "QUORUM"} if centre == CUT else {"error": None}
        assert client.ask(write="QUORUM") == expected

    hosts.mend_group(CUT)
    wait_until("nine nodes see each other", lambda: alive_from(hosts, 0) == 9 and alive_from(hosts, 6) == 9)
    errors = {centre: client.ask(count=True)["errors"] for centre, client in enumerate(clients)}
    assert not any(errors.values()), "LOCAL_QUORUM is never refused"
    rows = [row for client in clients for row in client.ask(stop=True)]
    for centre, client in enumerate(clients):
        wait_until(
            f"all {len(rows)} rows in data centre {centre + 1}", lambda: client.ask(lacking=rows) == [], 30
        )
        assert client.ask(write="EACH_QUORUM")["error"] is None
        client.process.stdin.close()
        assert client.process.wait(20) == 0


def test_a_data_centre_that_is_cut_off_starts_anew_by_itself(hosts):
    """All its nodes are killed and started while nobody else can be reached: what is local goes on."""
    for index in range(CENTRES * NODES):
        hosts.start(index)
    wait_until("nine nodes know each other", lambda: alive_from(hosts, 0) == 9)
    execute(
        hosts,
        f"CREATE KEYSPACE shop WITH replication = {replication(3, 3, 3)}",
        "CREATE TABLE shop.orders (id int PRIMARY KEY, note text)",
        "CREATE KEYSPACE bank WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3} AND consistency = 'strong'",
        "CREATE TABLE bank.accounts (id int PRIMARY KEY, balance int)",
    )
    rebuild(hosts)
    written = [("EACH_QUORUM", f"INSERT INTO shop.orders (id, note) VALUES ({id}, 'before')") for id in range(20)]
    assert ask_node(hosts, 0, *written) == [[]] * 20

    # Within a second all nodes have on disk what they know of the cluster.
    time.sleep(1)
    here = range(CUT * NODES, CUT * NODES + NODES)
    hosts.cut_group(CUT)
    for index in here:
        hosts.kill(index)
    for index in here:
        hosts.start(index)
    wait_until("its nodes are back", lambda: all(alive_from(hosts, index) == 3 for index in here))
    health = [hosts.status(index)["health"] for index in here]
    assert all(text.startswith("degraded: ") for text in health), health
    for index in here:
        outcomes = ask_node(
            hosts,
            index,
            ("LOCAL_QUORUM", "SELECT count(*) FROM shop.orders"),
            ("LOCAL_QUORUM", f"INSERT INTO shop.orders (id, note) VALUES ({100 + index}, 'alone')"),
            ("LOCAL_QUORUM", f"SELECT note FROM shop.orders WHERE id = {100 + index}"),
            ("LOCAL_SERIAL", f"SELECT note FROM shop.orders WHERE id = {100 + index}"),
            ("QUORUM", "SELECT note FROM shop.orders WHERE id = 1"),
        )
        assert outcomes == [[[20 + index - here[0]]], [], [["alone"]], [["alone"]], "Unavailable"]
    # What all have to agree on waits for the others.
    [refused] = ask_node(hosts, here[0], ("ONE", "SELECT balance FROM bank.accounts WHERE id = 1"))
    assert isinstance(refused, str), refused

    hosts.mend_group(CUT)
    wait_until("nine nodes see each other", lambda: alive_from(hosts, 0) == 9 and alive_from(hosts, here[0]) == 9)
    wait_until("they are taken back", lambda: all(hosts.status(index)["health"] == "serving" for index in here))
    count = ("LOCAL_QUORUM", "SELECT count(*) FROM shop.orders")
    wait_until("the others have what was written there", lambda: ask_node(hosts, 0, count) == [[[23]]], 40)
    assert ask_node(hosts, here[1], ("ONE", "SELECT balance FROM bank.accounts WHERE id = 1")) == [[]]


def kept_bytes(hosts, index):
    """Of logged batches that a node keeps until they are written."""
    url = f"http://{hosts.address(index)}:{PORTS['admin']}/metrics"
    reading = f"import urllib.request; print(urllib.request.urlopen('{url}', timeout=3).read().decode())"
    asked = hosts.within(hosts.group_of[index], [sys.executable, "-c", reading], capture_output=True, text=True)
    found = re.search(r"^tessera_node_batch_bytes (\d+)", asked.stdout, re.MULTILINE)
    return int(found.group(1)) if found else None


BATCHES = """
import json, sys, threading
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import FallthroughRetryPolicy, WhiteListRoundRobinPolicy
from cassandra.query import BatchStatement
profile = ExecutionProfile(
    load_balancing_policy=WhiteListRoundRobinPolicy([sys.argv[1]]), retry_policy=FallthroughRetryPolicy()
)
cluster = Cluster([sys.argv[1]], execution_profiles={EXEC_PROFILE_DEFAULT: profile}, connect_timeout=10)
session = cluster.connect("shop")
insert = session.prepare("INSERT INTO parts (id, whose) VALUES (?, ?)")
size, room, over = int(sys.argv[2]), threading.Semaphore(60), threading.Event()
begun, acknowledged = 0, []
def done(_, number):
    acknowledged.append(number)
    room.release()
def failed(_):
    over.set()
    room.release()
while not over.is_set():
    room.acquire()
    batch = BatchStatement(consistency_level=ConsistencyLevel.LOCAL_QUORUM)
    for row in range(size):
        batch.add(insert, (begun * size + row, begun))
    try:
        session.execute_async(batch).add_callbacks(done, failed, callback_args=(begun,))
    except Exception:
        over.set()
    begun += 1
    if begun == 200:
        print("running", flush=True)
print(json.dumps([begun, acknowledged]), flush=True)
"""
BATCH_SIZE = 12


def test_a_batch_is_whole_in_a_data_centre_that_is_cut_off(tmp_path):
    """The node that batches came to dies while its data centre is cut off: the others there finish what it began, without a
    quorum of all replicas."""
    if not available():
        pytest.skip("takes network namespaces: Linux, iproute2, root")
    with Hosts(tmp_path, groups=(1, NODES)) as hosts:
        for index in range(1 + NODES):
            hosts.start(index)
        wait_until("four nodes know each other", lambda: alive_from(hosts, 0) == 4)
        execute(
            hosts,
            f"CREATE KEYSPACE shop WITH replication = {replication(1, 3)}",
            "CREATE TABLE shop.parts (id int PRIMARY KEY, whose int)",
        )
        rebuild(hosts)
        hosts.cut_group(1)
        wait_until("the other side to be taken for dead", lambda: alive_from(hosts, 1) == NODES)
        command = ["ip", "netns", "exec", hosts.hubs[1], sys.executable, "-c", BATCHES, hosts.address(1), str(BATCH_SIZE)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "running\n"
        hosts.kill(1)
        begun, acknowledged = json.loads(writer.stdout.readline())
        assert writer.wait() is not None
        assert 0 < len(acknowledged) < begun, "some were under way"

        def batches():
            """By batch, how many of its rows are there."""
            [rows] = ask_node(hosts, 2, ["LOCAL_QUORUM", "SELECT whose FROM shop.parts"])
            return Counter(whose for (whose,) in rows) if isinstance(rows, list) else None

        def is_whole():
            found = batches()
            if found is None or set(acknowledged) - found.keys():
                return False
            return all(count == BATCH_SIZE for count in found.values())

        wait_until("what was torn to be mended", is_whole, 60)
        wait_until("all that was kept to be written", lambda: kept_bytes(hosts, 2) == 0 and kept_bytes(hosts, 3) == 0, 60)
        assert is_whole()
        # On the other side it arrives when that is back, and the node with the hints of what was acknowledged.
        hosts.mend_group(1)
        hosts.start(1)

        def is_everywhere():
            [rows] = ask_node(hosts, 0, ["LOCAL_ONE", "SELECT whose FROM shop.parts"])
            return isinstance(rows, list) and Counter(whose for (whose,) in rows) == batches() and is_whole()

        wait_until("the hints to be delivered", is_everywhere, 60)
