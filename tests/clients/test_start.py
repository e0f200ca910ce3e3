"""The binary as its users start it: up at once, small, clean at the end, and clear about what is wrong."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import boto3
import pytest

from conftest import binary, free_ports, start_ephemeral, status, stop, wait_until

# Generous: a machine that runs the whole suite is busy, and the binary under test is not optimised.
UP_SECONDS_MAX = 1.0
IDLE_BYTES_MAX = 64 << 20


def resident_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmRSS")


def ports():
    names = ("cql", "dynamo", "spanner", "admin", "internode")
    return dict(zip(names, free_ports(len(names), ("127.0.0.1",))))


def flags(chosen):
    return [word for name, port in chosen.items() for word in (f"--{name}-port", str(port))]


def dynamo_client(address):
    return boto3.client(
        "dynamodb",
        endpoint_url=f"http://{address}",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )


def test_an_ephemeral_node_is_up_at_once_and_leaves_nothing():
    began = time.monotonic()
    process, addresses = start_ephemeral()
    up = time.monotonic() - began
    try:
        for door in ("cql", "dynamo", "spanner", "admin", "internode"):
            with socket.create_connection(addresses.host_port(door), timeout=2):
                pass
        assert up < UP_SECONDS_MAX
        assert resident_bytes(process.pid) < IDLE_BYTES_MAX
    finally:
        stop(process)
    assert process.returncode == 0


def test_the_directory_of_an_ephemeral_node_goes_with_it():
    process = subprocess.Popen([binary(), "start", "--ephemeral"], stdout=subprocess.PIPE, text=True)
    found = json.loads(process.stdout.readline())
    assert Path(found["data_dir"]).is_dir()
    assert found["pid"] == process.pid
    stop(process)
    assert not Path(found["data_dir"]).exists()
    assert process.stdout.read() == ""


def test_requests_are_counted_from_the_start():
    process, addresses = start_ephemeral()
    with urllib.request.urlopen(f"http://{addresses.admin}/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    stop(process)
    for counter in [
        'cql_requests_total{operation="execute"',
        'dynamo_requests_total{operation="PutItem"',
        'spanner_requests_total{operation="Commit"',
    ]:
        assert f'tessera_{counter},outcome="ok"}} 0\n' in metrics, "a rate needs the zero before the first request"


def test_health_metrics_and_status(node):
    if node.admin is None:
        pytest.skip("the server was given without its admin port")
    dynamo_client(node.dynamo).list_tables()
    with urllib.request.urlopen(f"http://{node.admin}/health", timeout=5) as answer:
        assert answer.read() == b"ok\n"
    with urllib.request.urlopen(f"http://{node.admin}/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    names = {line.split()[2] for line in metrics.splitlines() if line.startswith("# TYPE ")}
    # Counted, timed, and how much waits: at each door, at the node, in the log and in the stores.
    for name in (
        "cql_requests cql_request_seconds cql_in_flight_bytes dynamo_requests dynamo_request_seconds dynamo_in_flight "
        "spanner_sessions node_requests node_write_seconds node_tablets node_leases "
        "node_consensus_queue_length node_internode_in_flight log_syncs log_group_size log_queued_bytes "
        "store_unflushed_bytes"
    ).split():
        assert f"tessera_{name}" in names
    assert {name.split("_")[0] for name in names} == {"tessera"}
    assert metrics.endswith("# EOF\n")
    found = status(node.admin)
    assert found["health"] == "serving"
    assert {each["alive"] for each in found["nodes"]} == {True}
    shown = subprocess.run([binary(), "status", "--admin", node.admin], capture_output=True, text=True, timeout=10)
    assert shown.returncode == 0, shown.stderr
    assert "alive" in shown.stdout and "(meta)" in shown.stdout


def test_the_banner_says_where_everything_is(tmp_path):
    chosen = ports()
    process = subprocess.Popen(
        [binary(), "start", *flags(chosen)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until("the node answers", lambda: status(f"127.0.0.1:{chosen['admin']}"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 0, err
    for name, port in chosen.items():
        assert f"127.0.0.1:{port}" in out, name
    assert (tmp_path / "tessera-data").is_dir()


def test_data_and_identity_survive_a_restart(tmp_path):
    chosen = ports()
    arguments = [binary(), "start", "--log-level", "warn", "--data-dir", str(tmp_path / "data"), *flags(chosen)]
    client = dynamo_client(f"127.0.0.1:{chosen['dynamo']}")
    admin = f"127.0.0.1:{chosen['admin']}"
    clusters = set()
    for life, ending in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        try:
            wait_until("the node answers", lambda: status(admin))
            clusters.add(status(admin)["cluster_id"])
            if life == 0:
                client.create_table(
                    TableName="lives",
                    KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
                    AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
                    BillingMode="PAY_PER_REQUEST",
                )
                client.get_waiter("table_exists").wait(TableName="lives", WaiterConfig={"Delay": 1})
            for number in range(life * 10):
                found = client.get_item(TableName="lives", Key={"id": {"N": str(number)}}, ConsistentRead=True)
                assert found["Item"]["text"]["S"] == f"row {number}", f"life {life}"
            for number in range(life * 10, life * 10 + 10):
                item = {"id": {"N": str(number)}, "text": {"S": f"row {number}"}}
                client.put_item(TableName="lives", Item=item)
        finally:
            process.send_signal(ending)
            process.wait(15)
    assert len(clusters) == 1


def run(*arguments, cwd=None):
    return subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=20, cwd=cwd)


def test_what_is_wrong_is_said_clearly(tmp_path):
    open_address = run("start", "--listen", "0.0.0.0", cwd=tmp_path)
    assert open_address.returncode == 1 and "--insecure" in open_address.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        in_use = run("start", "--ephemeral", "--cql-port", port)
        assert in_use.returncode == 1 and "--cql-port" in in_use.stderr
    config = tmp_path / "tessera.toml"
    config.write_text("lisen = '127.0.0.1'\n")
    unknown = run("start", "--config", str(config))
    assert unknown.returncode == 1 and "lisen" in unknown.stderr
    assert run("status", "--admin", "127.0.0.1:1").returncode == 1
    assert run("version").stdout.startswith("tessera ")
    assert run("nonsense").returncode == 2


def test_two_nodes_do_not_share_a_directory(tmp_path):
    chosen = ports()
    data = ["--data-dir", str(tmp_path / "data")]
    process = subprocess.Popen([binary(), "start", *data, *flags(chosen)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until("the node answers", lambda: status(f"127.0.0.1:{chosen['admin']}"))
        second = run("start", *data, *flags(ports()))
        assert second.returncode == 1 and "another process" in second.stderr
    finally:
        stop(process)


@pytest.mark.skipif(os.environ.get("TESSERA_CQL") is not None, reason="the usual ports may be taken")
def test_the_demo_starts_three_nodes_shows_that_two_go_on_without_the_third_and_stops_them():
    with socket.socket() as probe:
        probe.settimeout(0.5)
        if probe.connect_ex(("127.0.0.1", 8080)) == 0:
            pytest.skip("something listens on the usual ports")
    process = subprocess.Popen([binary(), "demo"], stdout=subprocess.PIPE, text=True)
    try:
        lines = []
        while not any("Ctrl-C" in line for line in lines):
            line = process.stdout.readline()
            assert line, f"the demo ended: {lines}"
            lines.append(line)
        text = "".join(lines)
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            assert host in text
            assert status(f"{host}:8080")["health"] == "serving"
        assert len(status("127.0.0.1:8080")["nodes"]) == 3
        dynamo = dynamo_client("127.0.0.1:8000")
        dynamo.create_table(
            TableName="items",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        )
        third = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[2]
        os.kill(int(third), signal.SIGKILL)
        assert "The node on 127.0.0.3 ended" in process.stdout.readline()
        dynamo.put_item(TableName="items", Item={"k": {"S": "written by two"}})
        alive = lambda: [each["alive"] for each in status("127.0.0.1:8080")["nodes"]]
        wait_until("the third node is known to be dead", lambda: alive() == [True, True, False])
        command = process.stdout.readline().split()
        again = subprocess.Popen([binary(), *command[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("the third node is back", lambda: alive() == [True] * 3)
        stop(again)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert process.returncode == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", 8080)) != 0, "a node outlived the demo"
