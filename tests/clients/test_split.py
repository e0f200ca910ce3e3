"""Dividing a tablet: not built yet, so it is refused clearly, and the rows stay where they are."""

import os
import subprocess

import pytest
from google.cloud import spanner

from conftest import binary, status


@pytest.fixture
def database(node):
    os.environ["SPANNER_EMULATOR_HOST"] = node.spanner
    client = spanner.Client(project="split")
    instance = client.instance("split", f"{client.project_name}/instanceConfigs/emulator-config", node_count=1)
    if not instance.exists():
        instance.create().result(30)
    ddl = ["CREATE TABLE Numbers (id INT64 NOT NULL) PRIMARY KEY (id)"]
    made = instance.database("numbers", ddl_statements=ddl)
    made.create().result(30)
    yield made
    made.drop()


def split(node, table, key):
    command = [binary(), "split", "--admin", node.admin, "numbers", table, key]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_split_is_refused_and_changes_nothing(node, database):
    if node.admin is None:
        pytest.skip("the server was given without its admin port")
    with database.batch() as batch:
        batch.insert("Numbers", ("id",), [(number,) for number in range(100)])
    refused = split(node, "Numbers", "50")
    assert refused.returncode == 1 and "refused" in refused.stderr
    assert "no table" in split(node, "Nothing", "1").stderr
    assert "no value of column" in split(node, "Numbers", "many").stderr
    tablets = [tablet for tablet in status(node.admin)["tablets"] if tablet["table"] == "numbers.Numbers"]
    assert len(tablets) == 1
    with database.batch() as batch:
        batch.insert("Numbers", ("id",), [(100,)])
    with database.snapshot() as snapshot:
        rows = snapshot.read("Numbers", ("id",), spanner.KeySet(all_=True))
        assert [row[0] for row in rows] == list(range(101))
