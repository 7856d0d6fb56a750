"""Reads and writes the files by which a tuner and a job's node agents communicate (see `node_agent.py`)."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.launchers import node_agent
from tuner.launchers.launcher import OnePer
from tuner.launchers.log_ends import read_ends, trim_file
from tuner.launchers.log_reader import LogFile

_RECORD = "engine.json"
_PREFIX = "job-"


@dataclass(frozen=True, kw_only=True)
class NodeStatus:
    """The last report of a node agent about its node.

    Args:
        node: Number of the node.
        host: Host name of the node.
        state: `starting`, `running`, `ending` or `ended`.
        beats: Number of heartbeats; it grows while the node agent runs.
        exits: Maps the node or rank of each process that has ended to its exit code, negative for a signal.
        reason: The reason for which the node agent ended its processes; None if they ended by themselves.
        ended_at: Time at which the processes had ended, seconds since the epoch by the clock of the node;
            None while they run.
    """

    node: int
    host: str
    state: str
    beats: int
    exits: Mapping[int, int]
    reason: str | None
    ended_at: float | None

    @property
    def has_ended(self) -> bool:
        """Whether all processes of the node have ended."""
        return self.state == "ended"


class JobFolder:
    """The folder of a job, with the methods by which the tuner reads and writes its files.

    Args:
        path: Path of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, task_folder: Path, identity: str) -> JobFolder:
        """Creates a new folder for a job in the folder of a task.

        Raises:
            OSError: The folder cannot be created.
        """
        path = task_folder.resolve() / f"{_PREFIX}{identity}"
        path.mkdir()
        shutil.copyfile(node_agent.__file__, path / "node_agent.py")
        return cls(path)

    @classmethod
    def all_in(cls, folder: Path) -> list[JobFolder]:
        """Returns the folders of all jobs in the folder of a task."""
        return [cls(path) for path in sorted(folder.glob(f"{_PREFIX}*")) if path.is_dir()]

    @property
    def identity(self) -> str:
        """Name of the job, from the name of its folder."""
        return self.path.name.removeprefix(_PREFIX)

    def write_task(self, task: Mapping[str, Any]) -> None:
        """Writes the task of the node agents, with environment variables that only this user may read."""
        _write(self.path / "task.json", task, mode=0o600)

    def write_ranks(self, task: Mapping[str, Any]) -> None:
        """Writes the function, payload and secret for `rank_program`; only this user may read the file."""
        _write(self.path / "ranks.json", task, mode=0o600)

    def new_messages(self, rank: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Reads the new messages of a rank; returns them and the offset for the next call.

        Args:
            rank: The rank whose messages are read.
            offset: The offset that the last call returned, in bytes; 0 for the first call.
        """
        path = self.path / f"messages-{rank}.jsonl"
        try:
            if path.stat().st_size <= offset:
                return [], offset
            with path.open("rb") as file:
                file.seek(offset)
                whole = file.read().rpartition(b"\n")[0]
        except OSError:
            return [], offset
        # An incomplete line is read by the next call.
        return [json.loads(line) for line in whole.splitlines()], offset + len(whole) + bool(whole)

    def record(self, record: Mapping[str, Any]) -> None:
        """Writes a record by which a later tuner can end the job if this tuner is killed."""
        _write(self.path / _RECORD, record)

    def recorded(self) -> dict[str, Any] | None:
        """Reads the record that `record` wrote; None if the job has ended."""
        return _read(self.path / _RECORD)

    def forget(self) -> None:
        """Removes the record of a job that has ended."""
        (self.path / _RECORD).unlink(missing_ok=True)

    def touch_lease(self) -> None:
        """Renews the lease: a file that shows the node agents that the tuner still runs."""
        with contextlib.suppress(OSError):
            (self.path / "lease").touch()

    def ask_to_end(self, reason: str) -> None:
        """Asks every node agent to end its processes: writes the reason to the file `end`.

        An earlier reason is not replaced. If the disk is full, the file is empty.
        """
        with contextlib.suppress(OSError), (self.path / "end").open("x") as file:
            file.write(reason)

    def statuses(self, num_nodes: int) -> dict[int, NodeStatus]:
        """Maps the number of each node that has reported to its last report."""
        found = {}
        for node in range(num_nodes):
            reported = _read(self.path / f"node-{node}.json")
            if reported is not None:
                found[node] = NodeStatus(
                    node=node,
                    host=str(reported["host"]),
                    state=str(reported["state"]),
                    beats=int(reported["beats"]),
                    exits={int(end["copy"]): _signal_or_code(int(end["code"])) for end in reported["exits"]},
                    reason=reported["reason"],
                    ended_at=reported.get("ended_at"),
                )
        return found

    def first_failed(self) -> int | None:
        """Returns the number of the node that first reported a failed process; None if there is none."""
        try:
            return int((self.path / "failed").read_text())
        except (OSError, ValueError):
            return None

    def rank_exits(self) -> dict[int, int]:
        """Returns the exit codes of ranks that have ended, in the order in which they ended."""
        found = []
        for path in self.path.glob("rank-*.exit"):
            with contextlib.suppress(OSError, ValueError):
                code, rank = int(path.read_text()), int(path.stem.rpartition("-")[2])
                found.append((path.stat().st_mtime_ns, rank, _signal_or_code(code)))
        return {rank: code for _, rank, code in sorted(found)}

    def log_files(self, one_per: OnePer, *, num_nodes: int, devices_per_node: int) -> dict[int, LogFile]:
        """Maps each rank to its log file if there is a process per rank, otherwise each node.

        Args:
            one_per: Whether the task has a single process, one process per node or one per rank.
            num_nodes: Number of nodes of the job.
            devices_per_node: Number of ranks per node.
        """
        kind = "rank" if one_per is OnePer.RANK else "node"
        count = {OnePer.JOB: 1, OnePer.NODE: num_nodes, OnePer.RANK: num_nodes * devices_per_node}[one_per]
        paths = {copy: self.path / f"{kind}-{copy}.log" for copy in range(count)}
        return {
            copy: LogFile(path=path, times=path.with_name(f"{path.name}.times"))
            for copy, path in paths.items()
        }

    def trim_logs(self) -> None:
        """Shortens long log files to their beginning and end, and removes the recorded write times."""
        for path in (*self.path.glob("*.log"), *self.path.glob("starter*.err")):
            trim_file(path)
        for path in self.path.glob("*.log.times"):
            with contextlib.suppress(OSError):
                path.unlink()

    def logs(self) -> dict[int, str]:
        """Reads the beginning and end of each log file, by rank, or by node if ranks have no log files."""
        return self._logs("rank") or self.node_logs()

    def node_logs(self) -> dict[int, str]:
        """Reads the beginning and end of the log file of each node's main process, which may be torchrun."""
        return self._logs("node")

    def _logs(self, kind: str) -> dict[int, str]:
        found = {}
        for path in self.path.glob(f"{kind}-*.log"):
            number = path.stem.removeprefix(f"{kind}-")
            if number.isdigit():
                found[int(number)] = read_ends(path)
        return dict(sorted(found.items()))


def _signal_or_code(code: int) -> int:
    """Converts an exit code of a shell, which is 128 plus the number of a signal, to a negative number."""
    return 128 - code if 128 < code < 128 + signal.NSIG else code


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, data: Mapping[str, Any], *, mode: int = 0o666) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=mode, exist_ok=False)
    temporary.write_text(json.dumps(data, indent=1))
    temporary.replace(path)
