"""Hosts of our own: network namespaces on a bridge, one node of the server in each, that can be cut off.

Takes Linux, iproute2, and root (in a container of one's own is enough); `available()` says whether all is there. Hosts come in
groups, one group a data centre: each has a bridge of its own, and the bridges are joined by one wire each to the first.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from conftest import binary, wait_until

NETWORK = "10.213.7"
PORTS = {"cql": 9042, "dynamo": 8000, "spanner": 9010, "admin": 8080, "internode": 7000}
HERE = Path(__file__).resolve().parent


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def available():
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"tessera-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return made.returncode == 0


class Hosts:
    def __init__(self, folder, groups=(3,), clock=("--clock-bound-ms", "1")):
        self.folder = Path(folder)
        self.clock = clock
        self.prefix = f"tessera-{os.getpid()}"
        self.group_of = [group for group, count in enumerate(groups) for _ in range(count)]
        self.processes = [None] * len(self.group_of)
        self.hubs = [f"{self.prefix}-hub{group}" for group in range(len(groups))]
        self.names = [f"{self.prefix}-{index}" for index in range(len(self.group_of))]

    def __enter__(self):
        for group, hub in enumerate(self.hubs):
            ip("netns", "add", hub)
            ip("-n", hub, "link", "add", "bridge0", "type", "bridge")
            ip("-n", hub, "link", "set", "bridge0", "up")
            ip("-n", hub, "addr", "add", f"{NETWORK}.{200 + group}/24", "dev", "bridge0")
            ip("-n", hub, "link", "set", "lo", "up")
            if group > 0:
                first = self.hubs[0]
                ip("-n", first, "link", "add", f"trunk{group}", "type", "veth", "peer", "name", "trunk", "netns", hub)
                ip("-n", first, "link", "set", f"trunk{group}", "master", "bridge0", "up")
                ip("-n", hub, "link", "set", "trunk", "master", "bridge0", "up")
        for index, name in enumerate(self.names):
            hub = self.hubs[self.group_of[index]]
            ip("netns", "add", name)
            ip("-n", hub, "link", "add", f"host{index}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", hub, "link", "set", f"host{index}", "master", "bridge0", "up")
            ip("-n", name, "addr", "add", f"{self.address(index)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        for name in [*self.names, *self.hubs]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def address(self, index):
        return f"{NETWORK}.{11 + index}"

    def start(self, index, *more):
        """Starts the node of a host, on what its data directory holds."""
        group = self.group_of[index]
        address = self.address(index)
        arguments = ["start", "--data-dir", str(self.folder / f"node{index}"), "--listen", address, "--insecure"]
        arguments += [*self.clock, "--locality", f"dc=dc{group + 1},rack=rack{index}"]
        if index > 0:
            arguments += ["--join", f"{self.address(0)}:{PORTS['internode']}"]
        with open(self.folder / f"node{index}.log", "ab") as log:
            command = ["ip", "netns", "exec", self.names[index], binary(), *arguments, *more]
            self.processes[index] = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(f"node {index + 1} answers", lambda: self.status(index) is not None)

    def status(self, index):
        """What a node says of the cluster, asked from within its own data centre; None when it does not answer."""
        url = f"http://{self.address(index)}:{PORTS['admin']}/api/status"
        reading = f"import urllib.request; print(urllib.request.urlopen('{url}', timeout=3).read().decode())"
        asked = self.within(self.group_of[index], [sys.executable, "-c", reading], capture_output=True, text=True)
        return json.loads(asked.stdout) if asked.returncode == 0 else None

    def within(self, group, command, **options):
        return subprocess.run(["ip", "netns", "exec", self.hubs[group], *command], **options)

    def run_within(self, group, script, *arguments):
        """A script of this folder as a client in a data centre, with its input and output."""
        command = ["ip", "netns", "exec", self.hubs[group], sys.executable, str(HERE / script), *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kill(self, index):
        self.processes[index].kill()
        self.processes[index].wait()

    def pause(self, index):
        self.processes[index].send_signal(signal.SIGSTOP)

    def resume(self, index):
        self.processes[index].send_signal(signal.SIGCONT)

    def cut(self, index):
        """Nothing reaches the host any more, nor leaves it."""
        ip("-n", self.hubs[self.group_of[index]], "link", "set", f"host{index}", "down")

    def mend(self, index):
        ip("-n", self.hubs[self.group_of[index]], "link", "set", f"host{index}", "up")

    def cut_group(self, group):
        ip("-n", self.hubs[0], "link", "set", f"trunk{group}", "down")

    def mend_group(self, group):
        ip("-n", self.hubs[0], "link", "set", f"trunk{group}", "up")

    def has_grown(self, index, voters):
        found = self.status(index)
        if found is None or not all(node["alive"] for node in found["nodes"]):
            return False
        counts = [
            len([replica for replica in tablet["replicas"] if not replica.get("learner")])
            for tablet in found["tablets"]
        ]
        return len(found["nodes"]) == len(self.names) and all(count >= voters for count in counts)
