"""A real Ray of several nodes on this machine, for tests.

The nodes are raylets of one machine, made by Ray's own `Cluster`, with folder and ports of their own, so that
several sessions on one machine do not meet. They live in a process that ends when its input does, which is
held open here. The fixture `ray_cluster` is known to every test, through `tests/conftest.py`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

NUM_NODES = 3
CPUS_PER_NODE = 2
#: Found in the environment of all that a cluster runs.
EVALUATION = "PACELINE_TEST_RAY"


_CLUSTER = """
import json, sys
from ray._private import services
from ray.cluster_utils import Cluster

start_ray_process = services.start_ray_process

def start_less(command, *arguments, **more):
    # Of the dashboard, a dozen processes, only what takes jobs and knows the head node is needed.
    if any(str(part).endswith("dashboard.py") for part in command):
        command = [*command, "--modules-to-load=JobHead,NodeHead,UsageStatsHead"]
    return start_ray_process(command, *arguments, **more)

services.start_ray_process = start_less

port, cpus = int(sys.argv[1]), int(sys.argv[2])
# Jobs go through the agent of the head: on a port of Ray's own choice it meets that of another session's Ray.
sizes = {"num_cpus": cpus, "object_store_memory": 80 * 2**20, "dashboard_agent_listen_port": 0}
cluster = Cluster(
    initialize_head=True,
    head_node_args={"include_dashboard": True, "dashboard_port": port, **sizes},
)
nodes = []
for line in sys.stdin:
    order = json.loads(line)
    answer = None
    if "add" in order:
        node = cluster.add_node(**{**sizes, "resources": order["add"]})
        nodes.append(node)
        cluster.wait_for_nodes()
        answer = [len(nodes) - 1, [kind[0].process.pid for kind in node.all_processes.values()]]
    else:
        cluster.remove_node(nodes[order["remove"]], allow_graceful=False)
    print(json.dumps({"answer": answer, "dashboard": cluster.head_node.webui_url}), flush=True)
cluster.shutdown()
"""


class RayCluster:
    """A running Ray; its head counts as a node.

    Args:
        folder: Where its state and logs go; a short path, for sockets lie there.
        num_nodes: How many nodes it has, all on this machine.
    """

    def __init__(self, folder: Path, num_nodes: int = NUM_NODES) -> None:
        self.folder = folder
        (folder / "ray").mkdir()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", EVALUATION: str(folder)}
        with (folder / "cluster.err").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CLUSTER, str(port), str(CPUS_PER_NODE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        self.address = ""
        try:
            for _ in range(num_nodes - 1):
                self.add_node()
        except BaseException:
            self.close()
            raise

    def add_node(self, **resources: float) -> int:
        """One more node with these custom resources; its number is what `remove_node` takes."""
        number, _ = self._order({"add": resources})
        return int(number)

    def remove_node(self, number: int) -> None:
        """Kills a node's raylet, as a power cut would."""
        self._order({"remove": number})

    def close(self) -> None:
        """Ends the cluster and whatever it left."""
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        for _ in range(100):
            left = list(self.processes())
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.1)

    def processes(self) -> Iterator[int]:
        """All that runs of this cluster."""
        mark = f"{EVALUATION}={self.folder}".encode()
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            with suppress(OSError):
                # Some of Ray's processes write their title over their environment.
                is_within = str((folder / "cwd").readlink()).startswith(str(self.folder))
                if is_within or mark in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)

    def _order(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        while line and not line.startswith(b"{"):
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"Ray ended:\n{(self.folder / 'cluster.err').read_text()[-3000:]}")
        reported = json.loads(line)
        self.address = f"http://{reported['dashboard']}"
        return reported["answer"]


def missing_ray() -> str | None:
    """Why no Ray can be started here; None where one can."""
    try:
        importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return "Ray is not installed: pip install -c constraints.txt 'ray[default]'"
    return None


@contextmanager
def running_ray() -> Iterator[RayCluster]:
    """A Ray of three nodes that leaves nothing behind."""
    # Not pytest's own folder: the path of a socket must have fewer than 108 characters.
    folder = Path(tempfile.mkdtemp(prefix="paceline-ray-", dir="/tmp"))
    try:
        cluster = RayCluster(folder)
        try:
            yield cluster
        finally:
            cluster.close()
            left = list(cluster.processes())
        assert left == [], "the cluster left processes behind"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """One Ray for the session."""
    reason = missing_ray()
    if reason:
        pytest.skip(reason)
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(running_ray())
        except RuntimeError:
            # Ray gives a node 30 s to start, which may be too little on a machine that does much else.
            cluster = stack.enter_context(running_ray())
        yield cluster
