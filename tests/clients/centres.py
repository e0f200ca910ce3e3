"""A client in one data centre, through the Python driver: writes numbered rows at LOCAL_QUORUM all the time, and does what it is
told on standard input, one line of JSON each, answered with one:

* `{"write": LEVEL}`: one row at that level; the error's name, if there is one, and what it says of the level;
* `{"count": true}`: how many rows were acknowledged, and the errors;
* `{"lacking": [...]}`: which of these rows are not there at LOCAL_QUORUM;
* `{"stop": true}`: ends the writing and gives the acknowledged rows.
"""

import json
import sys
import threading
import time

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.policies import FallthroughRetryPolicy, WhiteListRoundRobinPolicy

PAUSE_SECONDS = 0.02


class Client:
    def __init__(self, number, addresses):
        profile = ExecutionProfile(
            load_balancing_policy=WhiteListRoundRobinPolicy(addresses),
            retry_policy=FallthroughRetryPolicy(),
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
            request_timeout=20,
        )
        self.cluster = Cluster(addresses, execution_profiles={EXEC_PROFILE_DEFAULT: profile}, connect_timeout=10)
        self.session = self.cluster.connect("shop")
        self.first, self.next = number * 1_000_000, number * 1_000_000
        self.acknowledged, self.errors = [], []
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.insert = self.session.prepare("INSERT INTO orders (id, note) VALUES (?, ?)")
        self.select = self.session.prepare("SELECT note FROM orders WHERE id = ?")
        self.writer = threading.Thread(target=self.load, daemon=True)

    def write(self, level):
        with self.lock:
            number, self.next = self.next, self.next + 1
        bound = self.insert.bind((number, f"note {number}"))
        bound.consistency_level = getattr(ConsistencyLevel, level)
        self.session.execute(bound)
        with self.lock:
            self.acknowledged.append(number)

    def load(self):
        while not self.stopping.is_set():
            try:
                self.write("LOCAL_QUORUM")
            except Exception as error:  # noqa: BLE001: whatever it is, it is told
                self.errors.append(f"{type(error).__name__}: {error}")
            time.sleep(PAUSE_SECONDS)

    @staticmethod
    def is_there(row, result):
        found = result.success and result.result_or_exc.one()
        return bool(found) and found.note == f"note {row}"

    def answer(self, asked):
        if "write" in asked:
            try:
                self.write(asked["write"])
                return {"error": None}
            except Exception as error:  # noqa: BLE001: the test judges it
                level = getattr(error, "consistency", None)
                return {"error": type(error).__name__, "level": ConsistencyLevel.value_to_name.get(level)}
        if "lacking" in asked:
            rows = asked["lacking"]
            found = execute_concurrent_with_args(self.session, self.select, [(row,) for row in rows], concurrency=20, raise_on_first_error=False)
            return [row for row, result in zip(rows, found) if not self.is_there(row, result)]
        if "stop" in asked:
            self.stopping.set()
            self.writer.join()
            return self.acknowledged
        return {"acknowledged": len(self.acknowledged), "errors": self.errors}


def main():
    client = Client(int(sys.argv[1]), sys.argv[2].split(","))
    client.writer.start()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(client.answer(json.loads(line))), flush=True)
    client.cluster.shutdown()


main()
