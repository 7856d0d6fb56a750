"""Driver of a Ray job: a script that runs on the head node and starts a node agent on each node of a job.

The script is copied into the job's folder. It needs only Ray and the Python of the cluster; Paceline need not
be installed there.

The job's folder contains these files in addition to those that `node_agent.py` lists:

- `ray_task.json`: Resources of each node; written by the tuner.
- `ray.json`: State of the job in Ray; written by this script whenever the state changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

_WAIT_SECONDS = 0.25
_COUNT_EVERY_SECONDS = 2.0
#: Seconds, in addition to their grace period, in which node agents have to end; later they are killed.
_LATE_SECONDS = 15.0
_KILLED_SECONDS = 5.0
#: A worker that does not answer is given up after these seconds. The first number is used if its node agent
#: has reported its end, since the tuner is then waiting for the end of the job; the second one otherwise.
_UNANSWERED_SECONDS = (2.0, 60.0)
#: Environment variables that Ray sets in its workers. They are removed from the environment of a node agent
#: unless the node was started with them; those of Ray itself (`RAY_`) are always removed.
_SET_BY_RAY = ("OMP_NUM_THREADS", "PYTHONBREAKPOINT", "RAY_JOB_STOP_WAIT_TIME_S")
#: Program that starts a node agent as a daemon. When a Ray worker ends, it kills its child processes, but a
#: node agent needs time to end its own processes. So the worker starts this program, which starts the agent,
#: prints the agent's process id and exits. When the agent ends, its output pipe is closed.
_DETACHED = (
    "import os, sys\n"
    "process = os.fork()\n"
    "if process:\n"
    "    print(process, flush=True)\n"
    "    os._exit(0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)
#: Matches lines of Ray's error messages that describe the actor; other lines say why it ended.
_ACTOR_LINES = re.compile(r"^\s*(class_name|actor_id|pid|namespace|ip|name): ")


class NodeKeeper:
    """Ray actor that runs the node agent of one node.

    If the actor ends first, the agent notices this and ends the processes of the job on its node.

    Args:
        folder: Path of the job's folder.
        node_rank: Index of the node in the job, from 0.
        python: Path of the interpreter that runs the node agent; None for the interpreter of the actor.
    """

    def __init__(self, folder: str, node_rank: int, python: str | None) -> None:
        self._folder, self._node_rank = Path(folder), node_rank
        self._agent = [python or sys.executable, str(self._folder / "node_agent.py")]
        self._process: int | None = None
        self._asked: signal.Signals | None = None
        self._has_reported = False
        self._has_ended = threading.Event()

    def run(self) -> bool:
        """Runs the node agent until it ends, and kills its remaining processes if it ended without a report.

        Returns:
            Whether the node agent reported its end. False means that it was killed or could not be started.
        """
        try:
            self._has_reported = self._run()
        finally:
            self._has_ended.set()
        return self._has_reported

    def rejoin(self) -> bool:
        """Waits until `run` has ended, and returns its result.

        The driver calls this if it lost the connection to the actor during the call of `run`.
        """
        self._has_ended.wait()
        return self._has_reported

    def _run(self) -> bool:
        task = json.loads((self._folder / "task.json").read_text())
        with (self._folder / f"starter-{self._node_rank}.err").open("ab") as errors:
            between = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-c", _DETACHED),
                    *(*self._agent, str(self._folder), str(self._node_rank), "--watch-input"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(),
                start_new_session=True,
            )
        assert between.stdout is not None
        self._process = int(between.stdout.readline())
        between.wait()
        if self._asked is not None:
            self.end(self._asked)
        between.stdout.read()
        self._process = None
        reported = _read(self._folder / f"node-{self._node_rank}.json")
        if reported is not None and reported["state"] == "ended":
            return True
        subprocess.run([*self._agent, "--kill", task["identity"]], check=False)
        return False

    def end(self, by: signal.Signals) -> None:
        """Sends a signal to the node agent, as soon as the agent has been started.

        Args:
            by: The signal to send.
        """
        self._asked = by
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, by)


class Driver:
    """Runs one job: requests nodes, starts an actor (`NodeKeeper`) on each node, and reports the job's state.

    Args:
        folder: Path of the job's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._task: dict[str, Any] = json.loads((folder / "task.json").read_text())
        request = json.loads((folder / "ray_task.json").read_text())
        self._bundle: dict[str, float] = request["bundle"]
        self._python: str | None = request["python"]
        self._timeout_seconds: float = request["patience_seconds"]
        self._num_nodes = int(self._task["num_nodes"])
        self._note: dict[str, Any] = {
            "state": "waiting",
            "detail": "",
            "ended": False,
            "memory_ran_out": False,
        }
        self._stopped = False
        #: Maps each node whose actor does not answer to the time of the first failed call, seconds on a
        #: monotonic clock, and Ray's message.
        self._unanswered: dict[int, tuple[float, str]] = {}
        self._lease = (time.monotonic(), -1.0)

    def run(self) -> int:
        """Runs the job until it ends.

        Returns:
            Exit code of the driver: 1 if the nodes were not available, a node failed or a node was lost;
            otherwise 0.
        """
        ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
        # Replace the signal handlers that `ray.init` has set, which exit at once.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take_signal)
        group = placement_group([self._bundle] * self._num_nodes, strategy="STRICT_SPREAD")
        try:
            if self._await_nodes(group):
                self._report("placed")
                self._keep(group)
        finally:
            remove_placement_group(group)
        went_wrong = self._note["state"] in ("failed", "lost")
        self._report(self._note["state"] if went_wrong else "ended", ended=True)
        return int(went_wrong)

    def _take_signal(self, _number: int, _frame: Any) -> None:
        self._stopped = True

    def _await_nodes(self, group: Any) -> bool:
        """Waits until Ray has reserved the nodes.

        Args:
            group: The placement group that was requested.

        Returns:
            Whether the nodes are reserved. False if the job was asked to end or its tuner is gone, or if the
            cluster had too few suitable nodes for too long.
        """
        lacking_since: float | None = None
        counted_at = -_COUNT_EVERY_SECONDS
        self._report("waiting", _demand(self._num_nodes, self._bundle))
        while not group.wait(_WAIT_SECONDS):
            now = time.monotonic()
            if self._is_unwanted() or self._is_orphaned():
                return False
            if now - counted_at < _COUNT_EVERY_SECONDS:
                continue
            counted_at = now
            words, is_lacking = self._supply()
            lacking_since = (lacking_since or now) if is_lacking else None
            if lacking_since is not None and now - lacking_since > self._timeout_seconds:
                self._report(
                    "failed",
                    f"{words}; waited {self._timeout_seconds:g} s for more nodes (cluster.ray.node_timeout)",
                )
                return False
            self._report("waiting", words)
        return True

    def _supply(self) -> tuple[str, bool]:
        """Compares the requested resources with those of the cluster.

        Returns:
            A description for the user, and whether the cluster has too few nodes of this size even if all of
            its nodes were free.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        able = sum(all(node.get(name, 0) >= want for name, want in self._bundle.items()) for node in nodes)
        demand = _demand(self._num_nodes, self._bundle)
        there = f"the cluster has {len(nodes)} nodes, {able} of them with these resources"
        if able < self._num_nodes:
            return f"the cluster is too small for the job: {demand}; {there}", True
        free = ray.available_resources()
        totals = {name: sum(node.get(name, 0) for node in nodes) for name in self._bundle}
        left = ", ".join(f"{free.get(name, 0):g} of {total:g} {name}" for name, total in totals.items())
        return f"{demand}; {there}, and {left} free in all", False

    def _is_orphaned(self) -> bool:
        """Whether the tuner that started the job is gone.

        A running tuner updates the time of the file `lease` in the job's folder. The tuner is gone if this
        time has not changed for `orphan_seconds`, measured with the clock of this node.
        """
        now, (since, seen) = time.monotonic(), self._lease
        try:
            touched = (self._folder / "lease").stat().st_mtime
        except OSError:
            touched = -1.0
        if touched != seen:
            self._lease = (now, touched)
            return False
        return now - since > float(self._task["orphan_seconds"])

    def _keep(self, group: Any) -> None:
        """Waits for the node agents on all nodes, until each has ended or its node is given up.

        Args:
            group: The placement group, whose nodes are reserved.
        """
        keepers = [self._keeper(group, node) for node in range(self._num_nodes)]
        left = {keeper.run.remote(): node for node, keeper in enumerate(keepers)}
        deadline: float | None = None
        asked: signal.Signals | None = None
        while left:
            done, _ = ray.wait(list(left), timeout=_WAIT_SECONDS)
            for ended in done:
                node = left.pop(ended)
                if not self._takes_end(ended, node):
                    time.sleep(_WAIT_SECONDS)
                    left[keepers[node].rejoin.remote()] = node
            now = time.monotonic()
            for node in [node for node in left.values() if self._is_given_up(node, now)]:
                left = {ref: other for ref, other in left.items() if other != node}
                self._lose("lost", node, self._unanswered[node][1])
            if deadline is None and (self._is_unwanted() or self._is_ending()):
                deadline = now + float(self._task["grace_seconds"]) + _LATE_SECONDS
            if asked is None and (self._stopped or self._note["state"] in ("failed", "lost")):
                asked = signal.SIGTERM
                _end(keepers, left, asked)
            if deadline is not None and now > deadline:
                if asked is signal.SIGKILL:
                    return  # removing the placement group ends the actors
                asked, deadline = signal.SIGKILL, now + _KILLED_SECONDS
                _end(keepers, left, asked)

    def _keeper(self, group: Any, node: int) -> Any:
        resources = dict(self._bundle)
        return (
            ray.remote(NodeKeeper)
            .options(
                num_cpus=resources.pop("CPU", 0),
                num_gpus=resources.pop("GPU", 0),
                resources=resources,
                max_concurrency=4,
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=node
                ),
            )
            .remote(str(self._folder), node, self._python)
        )

    def _takes_end(self, ended: Any, node: int) -> bool:
        """Handles the result of a call of an actor, and reports a node that failed or was lost.

        Args:
            ended: Ray's reference to the result of `NodeKeeper.run` or `NodeKeeper.rejoin`.
            node: Index of the node.

        Returns:
            Whether the node agent has ended. False if the actor did not answer but may still run.
        """
        try:
            if not ray.get(ended):
                self._lose(
                    "failed",
                    node,
                    "the program that runs the processes of the job on this node ended without a report",
                )
        except ray.exceptions.ActorUnavailableError as error:
            self._unanswered.setdefault(node, (time.monotonic(), _ray_words(error)))
            return False
        except ray.exceptions.OutOfMemoryError as error:
            self._note["memory_ran_out"] = self._note["state"] == "placed"
            self._lose("failed", node, f"it ran out of memory: {_ray_words(error)}")
        except ray.exceptions.RayTaskError as error:
            self._lose(
                "failed",
                node,
                f"{error.cause}; the output folder must have the same path and content on every node",
            )
        except ray.exceptions.RayError as error:
            self._lose("lost", node, _ray_words(error))
        self._unanswered.pop(node, None)
        return True

    def _is_given_up(self, node: int, now: float) -> bool:
        if node not in self._unanswered:
            return False
        reported = _read(self._folder / f"node-{node}.json")
        limits = _UNANSWERED_SECONDS
        limit = limits[0] if reported is not None and reported["state"] == "ended" else limits[1]
        return now - self._unanswered[node][0] > limit

    def _lose(self, state: str, node: int, words: str) -> None:
        """Reports that a node failed or was lost.

        Only the first such report is stored, since failures of other nodes are its consequences.

        Args:
            state: `failed` or `lost`.
            node: Index of the node.
            words: Reason, for the user.
        """
        if self._note["state"] == "placed":
            self._report(state, f"node {node}: {words}")

    def _is_unwanted(self) -> bool:
        """Whether the job was asked to end, by the tuner or by a user of Ray."""
        if (self._folder / "end").exists():
            return True
        if self._stopped and self._note["state"] in ("waiting", "placed"):
            self._report("lost", "Ray was asked to stop the job")
        return self._stopped

    def _is_ending(self) -> bool:
        """Whether the job has failed, so all node agents have to end; agents that do not end are killed."""
        return self._note["state"] in ("failed", "lost") or (self._folder / "failed").exists()

    def _report(self, state: str, detail: str | None = None, *, ended: bool = False) -> None:
        self._note["state"] = state
        if detail is not None:
            self._note["detail"] = detail
        elif state == "placed":
            self._note["detail"] = ""
        self._note["ended"] = ended
        temporary = self._folder / ".ray.json.new"
        temporary.write_text(json.dumps(self._note))
        temporary.replace(self._folder / "ray.json")


def _end(keepers: list[Any], left: dict[Any, int], by: signal.Signals) -> None:
    for node in left.values():
        keepers[node].end.remote(by)


def _environment() -> dict[str, str]:
    """Returns the environment variables for a node agent, by name.

    These are the variables with which the node was started, those that Ray has set for the devices, and the
    address by which other nodes reach this node.
    """
    began = Path("/proc/self/environ").read_bytes().split(b"\0")
    own = {entry.split(b"=", 1)[0].decode(errors="replace") for entry in began}
    environment = {**os.environ, "PACELINE_OWN_ADDRESS": ray.util.get_node_ip_address()}
    for name in _SET_BY_RAY:
        if name not in own or name.startswith("RAY_"):
            environment.pop(name, None)
    return environment


def _demand(num_nodes: int, bundle: dict[str, float]) -> str:
    each = ", ".join(f"{want:g} {name}" for name, want in bundle.items())
    return f"{num_nodes} nodes with {each} each" if num_nodes > 1 else f"1 node with {each}"


def _ray_words(error: Exception) -> str:
    lines = (line for line in str(error).splitlines() if not _ACTOR_LINES.match(line))
    return " ".join(" ".join(lines).split())


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found


if __name__ == "__main__":
    driver = Driver(Path(sys.argv[1]))
    try:
        sys.exit(driver.run())
    except Exception as error:
        traceback.print_exc()
        driver._report("failed", f"{type(error).__name__}: {error}", ended=True)
        sys.exit(1)
