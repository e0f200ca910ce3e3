"""The README's snippets, as a newcomer pastes them; only the addresses are those of the server under test."""

import re
import subprocess
import sys

import pytest

from conftest import ROOT, start_ephemeral, stop

SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
EXPECTED = {
    "boto3": "'plays': Decimal('2')",
    "cassandra": "total=Decimal('12.50')",
    "spanner": "[['Ada', 101], ['Bob', 50]]",
}


@pytest.fixture(scope="module")
def fresh():
    process, addresses = start_ephemeral()
    yield addresses
    stop(process)


@pytest.mark.parametrize("client", EXPECTED)
def test_a_snippet_prints_what_it_wrote(fresh, client):
    (snippet,) = [each for each in SNIPPETS if f"import {client}\n" in each or f"from {client}." in each]
    host, cql_port = fresh.host_port("cql")
    ours = snippet.replace("127.0.0.1:8000", fresh.dynamo).replace("127.0.0.1:9010", fresh.spanner)
    ours = ours.replace('Cluster(["127.0.0.1"])', f'Cluster(["{host}"], port={cql_port})')
    assert ours != snippet
    ran = subprocess.run([sys.executable, "-c", ours], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert EXPECTED[client] in ran.stdout
