"""Doors of single nodes, and nodes that are away for a while."""

import contextlib
import os
import signal
import subprocess
import time

from cassandra import (
    ConsistencyLevel,
    OperationTimedOut,
    ProtocolVersion,
    ReadTimeout,
    Unavailable,
    WriteTimeout,
)
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster as CqlCluster,
    ExecutionProfile,
    NoHostAvailable,
)
from cassandra.policies import FallthroughRetryPolicy, WhiteListRoundRobinPolicy
from cassandra.query import SimpleStatement

from conftest import binary, status

# Debug binaries on a loaded machine: whatever is waited for comes, but not always soon.
PATIENCE_SECONDS = 90


class Door:
    """One node's door: all requests go to that node, and none is tried again."""

    def __init__(self, cluster, index, protocol_version=ProtocolVersion.V5):
        profile = ExecutionProfile(
            load_balancing_policy=WhiteListRoundRobinPolicy([cluster.HOSTS[index]]),
            retry_policy=FallthroughRetryPolicy(),
            request_timeout=60,
        )
        self.client = CqlCluster(
            [cluster.HOSTS[index]],
            port=cluster.ports["cql"],
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            connect_timeout=20,
            # The nodes agree before they answer; one that is away never will.
            max_schema_agreement_wait=0,
            protocol_version=protocol_version,
        )
        self.session = self.client.connect()

    def run(self, statement, level=ConsistencyLevel.QUORUM, values=None):
        return self.session.execute(SimpleStatement(statement, consistency_level=level), values)

    def insist(self, statement, level=ConsistencyLevel.QUORUM, values=None):
        """The first answer: a node that was away a moment ago may not have found the others yet."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self.run(statement, level, values)
            except (NoHostAvailable, OperationTimedOut, ReadTimeout, Unavailable, WriteTimeout):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def tessera(cluster, *arguments):
    command = [binary(), *arguments, "--admin", cluster.addresses(0).admin]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def thinks_dead(cluster, index, dead):
    nodes = status(cluster.addresses(index).admin)["nodes"]
    return any(not node["alive"] and node["client_address"] == cluster.HOSTS[dead] for node in nodes)


def wait_until_stopped(pid):
    """All threads of a process stand still: a signal is on its way for a moment."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        states = []
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat") as stat:
                states.append(stat.read().rpartition(")")[2].split()[0])
        if all(state == "T" for state in states):
            return
        time.sleep(0.001)
    raise AssertionError(f"process {pid} does not stop: {states}")


@contextlib.contextmanager
def stopped(cluster, *indices):
    """Those nodes do nothing meanwhile."""
    for index in indices:
        cluster.processes[index].send_signal(signal.SIGSTOP)
        wait_until_stopped(cluster.processes[index].pid)
    try:
        yield
    finally:
        for index in indices:
            cluster.processes[index].send_signal(signal.SIGCONT)


@contextlib.contextmanager
def away(cluster, index, how):
    """That node is away meanwhile: killed and started again, or stopped."""
    if how == "stopped":
        with stopped(cluster, index):
            yield
        return
    cluster.kill(index)
    yield
    cluster.start(index)
