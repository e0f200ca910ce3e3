"""Servers for the client suites.

`TESSERA_BIN` names the binary. A suite takes a fixture:

* `node`: an ephemeral node that all tests of the run share; every such test runs twice, on a cluster of one, and
  on the second node of a cluster of three after its groups have grown;
* `three_nodes`: the three nodes of that cluster;
* `cluster`: three nodes of this test alone, with data directories, which it may kill and start again;
* `doors`: clients of single nodes of `cluster`.

The addresses of `node` can be given by `TESSERA_CQL`, `TESSERA_DYNAMO` and `TESSERA_SPANNER` instead, for a server that
runs already.
"""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import spanner

ROOT = Path(__file__).resolve().parents[2]
DOORS = ("cql", "dynamo", "spanner")
START_SECONDS_MAX = 30


def spanner_client(address, project):
    """A client of one node of several; SPANNER_EMULATOR_HOST must be there as well, for its administration."""
    return spanner.Client(
        project=project,
        credentials=AnonymousCredentials(),
        client_options=ClientOptions(api_endpoint=address),
        disable_builtin_metrics=True,
    )


@dataclass
class Addresses:
    cql: str
    dynamo: str
    spanner: str
    admin: str | None = None
    internode: str | None = None

    def host_port(self, door):
        host, port = getattr(self, door).rsplit(":", 1)
        return host, int(port)


def binary():
    path = os.environ.get("TESSERA_BIN")
    if path is None:
        for profile in ("release", "debug"):
            candidate = ROOT / "target" / profile / "tessera"
            if candidate.exists():
                return str(candidate)
        pytest.fail("set TESSERA_BIN to the binary, or build it: cargo build -p tessera")
    return path


def start_ephemeral(*arguments):
    process = subprocess.Popen(
        [binary(), "start", "--ephemeral", *arguments], stdout=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    if not line:
        process.wait()
        pytest.fail(f"the server ended with {process.returncode} before it was up")
    found = json.loads(line)
    return process, Addresses(**{name: found[name] for name in (*DOORS, "admin", "internode")})


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("the server did not stop within 15 s of SIGTERM")


def given_addresses():
    given = {door: os.environ.get(f"TESSERA_{door.upper()}") for door in DOORS}
    return Addresses(**given) if all(given.values()) else None


@pytest.fixture(scope="session", params=["one", "three"])
def node(request):
    given = given_addresses()
    if given is not None:
        if request.param == "three":
            pytest.skip("the server is given")
        yield given
    elif request.param == "three":
        yield request.getfixturevalue("three_nodes")[1]
    else:
        process, addresses = start_ephemeral()
        yield addresses
        stop(process)


def status(admin):
    with urllib.request.urlopen(f"http://{admin}/api/status", timeout=5) as answer:
        return json.load(answer)


def wait_until(what, predicate, seconds=START_SECONDS_MAX):
    """Waits for a condition; says what it waited for and what went wrong last."""
    deadline = time.monotonic() + seconds
    last = None
    while time.monotonic() < deadline:
        try:
            if predicate():
                return
        except (OSError, urllib.error.URLError, ValueError) as error:
            last = error
        time.sleep(0.1)
    pytest.fail(f"not within {seconds} s: {what} (last error: {last})")


def has_grown(admin, nodes=3):
    """Every tablet, the meta group included, has a voting replica on each node."""
    found = status(admin)
    alive = [each for each in found["nodes"] if each["alive"]]
    full = all(
        len([replica for replica in tablet["replicas"] if not replica.get("learner")]) >= min(3, nodes)
        for tablet in found["tablets"]
    )
    return len(alive) == nodes and full


@pytest.fixture(scope="session")
def three_nodes():
    running = []
    try:
        # Drivers, cqlsh's COPY among them, take it that all nodes have one port.
        port = ["--cql-port", str(free_ports(1, Cluster.HOSTS)[0])]
        running.append(start_ephemeral("--listen", Cluster.HOSTS[0], *port))
        first = running[0][1]
        for host in Cluster.HOSTS[1:]:
            running.append(start_ephemeral("--listen", host, "--join", first.internode, *port))
        wait_until("three nodes with three replicas of everything", lambda: has_grown(first.admin))
        yield [addresses for _, addresses in running]
    finally:
        for process, _ in reversed(running):
            stop(process)


def free_ports(count, hosts):
    """Ports that are free on all the hosts."""
    found = []
    while len(found) < count:
        with socket.socket() as probe:
            probe.bind((hosts[0], 0))
            port = probe.getsockname()[1]
        if port in found:
            continue
        try:
            for host in hosts[1:]:
                with socket.socket() as probe:
                    probe.bind((host, port))
        except OSError:
            continue
        found.append(port)
    return found


class Cluster:
    """Three nodes on 127.0.0.1 to 127.0.0.3, the same ports on each, as a driver expects."""

    HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")

    def __init__(self, folder, arguments=()):
        self.folder = Path(folder)
        self.arguments = arguments
        names = ("cql", "dynamo", "spanner", "admin", "internode")
        self.ports = dict(zip(names, free_ports(len(names), self.HOSTS)))
        self.processes = [None] * len(self.HOSTS)

    def addresses(self, index):
        return Addresses(**{name: f"{self.HOSTS[index]}:{port}" for name, port in self.ports.items()})

    def start(self, index):
        log = open(self.folder / f"node{index + 1}.log", "ab")
        arguments = ["--data-dir", str(self.folder / f"node{index + 1}"), "--listen", self.HOSTS[index]]
        arguments += self.arguments
        for name, port in self.ports.items():
            arguments += [f"--{name}-port", str(port)]
        if index > 0:
            arguments += ["--join", f"{self.HOSTS[0]}:{self.ports['internode']}"]
        self.processes[index] = subprocess.Popen([binary(), "start", *arguments], stdout=log, stderr=log)
        log.close()
        wait_until(f"node {index + 1} answers", lambda: status(self.addresses(index).admin), START_SECONDS_MAX)

    def start_all(self):
        for index in range(len(self.HOSTS)):
            self.start(index)
        self.wait_grown()

    def wait_grown(self):
        for index in range(len(self.HOSTS)):
            wait_until("three replicas of everything", lambda: has_grown(self.addresses(index).admin), 60)

    def kill(self, index):
        self.processes[index].send_signal(signal.SIGKILL)
        self.processes[index].wait()

    def stop_all(self):
        for process in reversed(self.processes):
            if process is not None:
                stop(process)


@pytest.fixture
def cluster(request):
    """A parameter, where a test gives one, is what to start the nodes with besides."""
    with tempfile.TemporaryDirectory(prefix="tessera-test-") as folder:
        made = Cluster(folder, getattr(request, "param", ()))
        try:
            made.start_all()
            yield made
        except BaseException:
            for log in sorted(made.folder.glob("*.log")):
                print(f"---- {log.name}\n{log.read_text(errors='replace')[-4000:]}")
            raise
        finally:
            made.stop_all()


@pytest.fixture
def doors(cluster):
    """Opens the CQL door of one of the cluster's nodes: `doors(0)`."""
    from doors import Door

    opened = []

    def door(index, **arguments):
        opened.append(Door(cluster, index, **arguments))
        return opened[-1]

    yield door
    for each in opened:
        each.client.shutdown()
