"""Transactions over several tablets, by the official clients, while nodes are killed, paused and cut off."""

import json
import tempfile
import time

import pytest

from bank import ACCOUNTS, START
from conftest import wait_until
from hosts import PORTS, Hosts, available


@pytest.fixture
def hosts():
    if not available():
        pytest.skip("takes network namespaces: Linux, iproute2, root")
    with tempfile.TemporaryDirectory(prefix="tessera-test-") as folder:
        # With the clock that the nodes make for themselves.
        with Hosts(folder, clock=()) as made:
            try:
                yield made
            except BaseException:
                for log in sorted(made.folder.glob("*.log")):
                    print(f"---- {log.name}\n{log.read_text(errors='replace')[-4000:]}")
                raise


def test_the_books_balance_while_nodes_are_killed_paused_and_cut_off(hosts):
    for index in range(3):
        hosts.start(index)
    doors = {
        door: [f"{hosts.address(index)}:{PORTS[door]}" for index in range(3)] for door in ("spanner", "dynamo")
    }
    bank = hosts.run_within(0, "bank.py", json.dumps(doors))
    assert bank.stdout.readline() == "ready\n"
    wait_until("three replicas of everything", lambda: hosts.has_grown(0, 3), 60)
    bank.stdin.write("go\n")
    bank.stdin.flush()
    time.sleep(3)
    for index in range(3):
        hosts.kill(index)
        time.sleep(5)
        hosts.start(index)
        time.sleep(4)
    # Longer than a lease: its locks and leases are gone when it comes back.
    for index in range(2):
        hosts.pause(index)
        time.sleep(5)
        hosts.resume(index)
        time.sleep(3)
    for index in range(2):
        hosts.cut(index)
        time.sleep(6)
        hosts.mend(index)
        time.sleep(4)
    bank.stdin.write("stop\n")
    bank.stdin.flush()
    answer = bank.stdout.readline()
    assert bank.wait(120) == 0
    for door, found in json.loads(answer).items():
        print(door, found)
        assert found["acknowledged"] > 50, found
        assert not found["lost"] and not found["wrong"] and not found["twice"], found
        assert found["total"] == ACCOUNTS * START, found
