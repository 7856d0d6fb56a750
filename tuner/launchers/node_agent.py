"""The node agent: runs a job's command on one node and reports its state in files that the tuner reads.

It uses only the standard library and runs with Python 3.8 and newer: the tuner copies this file to the job's
folder, and each node runs the copy with the Python that it has. The job's folder has these files:

- `task.json`: the task, written by the tuner.
- `main.json`: address and port of the first node for the rendezvous, written by the first node.
- `node-R.json`: the state of node R, rewritten when it changes and every few seconds.
- `node-R.log` or `rank-R.log`: the output of the processes of the command.
- `node-R.log.times` or `rank-R.log.times`: the size of the log file over time, as a line `<seconds since the
  epoch> <bytes>` whenever it has grown, so that a reader knows when each line was written.
- `end`: the reason to end, written by the tuner. Once it exists, every node ends its processes.
- `failed`: the number of the first node on which a process failed. Once the file exists, the other nodes end
  their processes.
- `lease`: an empty file. The tuner renews its modification time regularly. If it no longer does, it has
  ended, and the nodes end the job.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

#: Environment variable of all processes of a job, by which they are found if the node agent was killed.
JOB_VARIABLE = "PACELINE_JOB"
_NODE_VARIABLE = "PACELINE_NODE_RANK"

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_WAIT_SECONDS = 0.05
_BEAT_SECONDS = 5.0
#: Grace period of processes after another process has failed, seconds: they cannot save anything useful.
_FAILED_GRACE_SECONDS = 10.0
#: Grace period of processes that still run after the process that started them has ended, seconds.
_LEFT_GRACE_SECONDS = 2.0
#: Seconds for which the file `end` may be empty, since the tuner is still writing it; then the disk is full,
#: and the processes are ended without a reason.
_EMPTY_END_SECONDS = 5.0
#: If a `.times` file becomes larger than this, every second line of its older half is removed. For a log file
#: that always grows, the times of the last four minutes then are exact to 0.05 s, and those of the last half
#: hour are less exact.
_MOST_NOTES_BYTES = 2**18


class LogNotes:
    """Records the size of a log file whenever it has grown, in its `.times` file.

    Args:
        log: The log file, which need not exist yet.
    """

    def __init__(self, log: Path) -> None:
        self._log, self._notes = log, log.with_name(f"{log.name}.times")
        self._size = 0

    def take(self, now: float) -> None:
        """Records the size of the log file if it has changed since the last record.

        Args:
            now: The present time, seconds since the epoch.
        """
        with contextlib.suppress(OSError):
            size = self._log.stat().st_size
            if size == self._size:
                return
            with self._notes.open("a") as notes:
                notes.write(f"{now:.3f} {size}\n")
            self._size = size
            if self._notes.stat().st_size > _MOST_NOTES_BYTES:
                self._thin_out()

    def _thin_out(self) -> None:
        lines = self._notes.read_text().splitlines(True)
        half = len(lines) // 2
        # A reader starts again when it sees another file.
        temporary = self._notes.with_name(f".{self._notes.name}.new")
        temporary.write_text("".join(lines[1:half:2] + lines[half:]))
        temporary.replace(self._notes)


class NodeAgent:
    """Runs the processes of a job on one node.

    Args:
        folder: Folder of the job.
        node_rank: Number of this node, from 0.
        watch_input: Whether the job ends when the standard input of this process is closed.
    """

    def __init__(self, folder: Path, node_rank: int, *, watch_input: bool = False) -> None:
        self._folder, self._node_rank = folder, node_rank
        self._task: dict[str, Any] = json.loads((folder / "task.json").read_text())
        self._status: dict[str, Any] = {
            "node": node_rank,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "state": "starting",
            "beats": 0,
            "exits": [],
            "reason": None,
        }
        self._processes: dict[int, int] = {}  # process to rank, or to node where there is one a node
        self._exits: dict[int, int] = {}
        self._asked_to_end: str | None = None
        self._empty_end_since: float | None = None
        self._watch_input = watch_input
        self._reported_at = 0.0
        self._log_notes: list[LogNotes] = []
        #: Seconds since the epoch when the monotonic clock was 0; times are computed from it, so that they do
        #: not decrease when the clock of the host is set.
        self._epoch = time.time() - time.monotonic()
        self._lease = (time.monotonic(), -1.0)

    def run(self) -> int:
        """Runs the processes of the node until they have ended.

        Returns:
            The exit code for this process: the exit code of the first process that failed, else 0.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._take_signal)
        _adopt_orphans()
        if self._watch_input:
            threading.Thread(target=self._read_input, daemon=True).start()
        self._report("starting")
        try:
            main = self._meet()
            if main is not None:
                self._start_processes(main)
                self._report("running")
                self._watch()
        except OSError as error:
            self._status["exits"].append({"copy": self._node_rank, "code": 127})
            self._fail(f"the command cannot be started: {error}")
        self._kill_descendants()
        self._note_logs()
        self._report("ended")
        codes = [end["code"] for end in self._status["exits"] if end["code"] != 0]
        return 0 if not codes else codes[0] if codes[0] > 0 else 128 - codes[0]

    def _take_signal(self, number: int, _frame: Any) -> None:
        self._asked_to_end = self._asked_to_end or f"signal {signal.Signals(number).name}"

    def _read_input(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(0, 4096):
                pass
        self._asked_to_end = self._asked_to_end or "orphaned"

    def _meet(self) -> dict[str, Any] | None:
        """Waits for the address and port of the first node; returns None if the job has to end before."""
        path = self._folder / "main.json"
        if self._node_rank == 0:
            address = self._task.get("main_address") or _own_address()
            _write(path, {"address": address, "port": _free_port()})
        while True:
            main = _read(path)
            if main is not None:
                return main
            reason = self._must_end()
            if reason is not None:
                self._status["reason"] = reason
                return None
            time.sleep(_WAIT_SECONDS)

    def _start_processes(self, main: dict[str, Any]) -> None:
        task = self._task
        devices = task["devices_per_node"]
        ranks_here = range(self._node_rank * devices, (self._node_rank + 1) * devices)
        # The ranks' logs exist too if the command starts ranks that write them, as torchrun does.
        logs = [f"node-{self._node_rank}.log", *(f"rank-{rank}.log" for rank in ranks_here)]
        self._log_notes = [LogNotes(self._folder / log) for log in logs]
        environment = {
            **os.environ,
            "MASTER_ADDR": str(main["address"]),
            "MASTER_PORT": str(main["port"]),
            "PACELINE_MAIN_ADDRESS": str(main["address"]),
            "PACELINE_MAIN_PORT": str(main["port"]),
            JOB_VARIABLE: str(task["identity"]),
            _NODE_VARIABLE: str(self._node_rank),
            "PACELINE_NUM_NODES": str(task["num_nodes"]),
            **task["environment"],
        }
        if task["one_per"] == "rank":
            for local_rank, rank in enumerate(ranks_here):
                ranks = {
                    "RANK": rank,
                    "WORLD_SIZE": task["num_nodes"] * devices,
                    "LOCAL_RANK": local_rank,
                    "LOCAL_WORLD_SIZE": devices,
                }
                self._start_copy(
                    rank, f"rank-{rank}.log", {**environment, **{k: str(v) for k, v in ranks.items()}}
                )
        elif task["one_per"] == "node" or self._node_rank == 0:
            self._start_copy(self._node_rank, f"node-{self._node_rank}.log", environment)

    def _start_copy(self, number: int, log: str, environment: dict[str, str]) -> None:
        with (self._folder / log).open("ab") as output:
            copy = subprocess.Popen(
                ["/bin/sh", "-c", self._task["command"]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._task["working_folder"],
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_agent,
            )
        self._processes[copy.pid] = number
        # `_wait_for_children` waits for every child, adopted ones too.
        copy.returncode = 0

    def _watch(self) -> None:
        """Waits until every process has ended or there is a reason to end all processes."""
        while True:
            self._wait_for_children()
            ended = [process for process in self._processes if process in self._exits]
            if ended and self._asked_to_end is None:
                # A backend may send its signal to all processes at once, and children may get it first.
                time.sleep(_WAIT_SECONDS)
            failed = [process for process in ended if self._exits[process] != 0]
            if self._asked_to_end is not None:
                failed = []  # their exit codes mean nothing: they were asked to end
            if failed:
                self._fail(f"{self._copy_words(failed[0])} ended with {_code_words(self._exits[failed[0]])}")
                self._end_processes(_FAILED_GRACE_SECONDS)
                break
            if self._node_rank > 0 and self._task["one_per"] == "job":
                first = _read(self._folder / "node-0.json")
                if first is not None and first["state"] == "ended":
                    break
            elif len(ended) == len(self._processes) and self._asked_to_end is None:
                self._end_processes(_LEFT_GRACE_SECONDS)
                break
            reason = self._must_end()
            if reason is not None:
                self._status["reason"] = reason
                grace = _FAILED_GRACE_SECONDS if reason == "another failed" else self._task["grace_seconds"]
                self._end_processes(min(grace, self._task["grace_seconds"]))
                break
            self._report("running")
            self._note_logs()
            time.sleep(_WAIT_SECONDS)
        self._status["exits"] = [
            {"copy": number, "code": self._exits[process]}
            for process, number in self._processes.items()
            if process in self._exits
        ]

    def _copy_words(self, process: int) -> str:
        return ("rank" if self._task["one_per"] == "rank" else "node") + f" {self._processes[process]}"

    def _must_end(self) -> str | None:
        """Returns the reason for which the node must end its processes; None if there is none."""
        if self._asked_to_end is not None:
            return self._asked_to_end
        end = self._why_asked_to_end()
        if end is not None:
            return end
        if (self._folder / "failed").exists():
            return "another failed"
        limit, began = self._task.get("time_limit_seconds"), self._status.get("began")
        if limit is not None and began is not None and time.time() - began > limit:
            return "time limit"
        return "orphaned" if self._is_orphaned() else None

    def _why_asked_to_end(self) -> str | None:
        """Reads the reason in the file `end`; None if the file does not exist or may not be complete yet."""
        try:
            reason = (self._folder / "end").read_text().strip()
        except OSError:
            return None
        if reason:
            return reason
        now = time.monotonic()
        if self._empty_end_since is None:
            self._empty_end_since = now
        return "cancelled" if now - self._empty_end_since >= _EMPTY_END_SECONDS else None

    def _is_orphaned(self) -> bool:
        """Whether the tuner has ended, since it has not renewed the file `lease` for too long.

        The time is measured by the clock of this node.
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

    def _end_processes(self, grace: float) -> None:
        """Sends SIGTERM to all processes, waits, and kills the remaining ones with all their children."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process, signal.SIGTERM)
        until = time.monotonic() + grace
        while time.monotonic() < until:
            self._wait_for_children()
            if not descendants(os.getpid()):
                return
            self._report("ending")
            self._note_logs()
            time.sleep(_WAIT_SECONDS)
        self._kill_descendants()

    def _kill_descendants(self) -> None:
        for _ in range(100):
            left = descendants(os.getpid())
            if not left:
                break
            for process in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(_WAIT_SECONDS)
            self._wait_for_children()

    def _wait_for_children(self) -> None:
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            self._exits[process] = code

    def _note_logs(self) -> None:
        now = self._epoch + time.monotonic()
        for notes in self._log_notes:
            notes.take(now)

    def _fail(self, reason: str) -> None:
        self._status["reason"] = reason
        with contextlib.suppress(FileExistsError), (self._folder / "failed").open("x") as file:
            file.write(str(self._node_rank))

    def _report(self, state: str) -> None:
        now = time.monotonic()
        if state == self._status["state"] and state != "starting" and now - self._reported_at < _BEAT_SECONDS:
            return
        self._reported_at = now
        self._status["state"] = state
        self._status["beats"] += 1
        self._status.setdefault("began", time.time())
        if state == "ended":
            self._status["ended_at"] = time.time()
        with contextlib.suppress(OSError):
            _write(self._folder / f"node-{self._node_rank}.json", self._status)


def _die_with_agent() -> None:
    """Makes the kernel kill this process, a new shell, when the node agent ends (on Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent ends, so that it can wait for them.

    Only Linux supports this; elsewhere the function does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(process: int) -> list[int]:
    """Returns all running descendants of a process, without zombies."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, left = [], [process]
    while left:
        below = children.get(left.pop(), [])
        found.extend(below)
        left.extend(below)
    return found


def kill_job(identity: str, node_rank: int | None = None) -> list[int]:
    """Kills all processes of a job on this host, even those that are not descendants of a node agent.

    Args:
        identity: Identifier of the job.
        node_rank: Number of the node whose processes are killed; None for those of all nodes.

    Returns:
        The process numbers of the killed processes.
    """
    tags = {f"{JOB_VARIABLE}={identity}".encode()}
    if node_rank is not None:
        tags.add(f"{_NODE_VARIABLE}={node_rank}".encode())
    killed = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if tags <= set((entry / "environ").read_bytes().split(b"\0")):
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed.append(int(entry.name))
    return killed


def _own_address() -> str:
    """Returns a name or address by which other nodes can reach this node."""
    for name in (
        os.environ.get("PACELINE_OWN_ADDRESS"),
        os.environ.get("SLURMD_NODENAME"),
        os.environ.get("PACELINE_FIRST_ADDRESS"),
        socket.gethostname(),
    ):
        if name:
            with contextlib.suppress(OSError):
                socket.getaddrinfo(name, None)
                return name
    # No packet is sent: the kernel only chooses the address of the sender.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way_out:
        way_out.connect(("192.0.2.1", 9))
        return str(way_out.getsockname()[0])
    return "127.0.0.1"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def _code_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found


def _write(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(data))
    temporary.replace(path)


if __name__ == "__main__":
    if sys.argv[1] == "--kill":
        kill_job(sys.argv[2])
        sys.exit(0)
    ended_with = NodeAgent(
        Path(sys.argv[1]), int(sys.argv[2]), watch_input="--watch-input" in sys.argv[3:]
    ).run()
    # Some backends kill all nodes at the first bad exit code, so they must not see that of the command.
    sys.exit(0 if "--own-exit" in sys.argv[3:] else ended_with)
