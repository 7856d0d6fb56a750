"""The files through which a tuner and the node agents of a job communicate."""

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
    """What a node agent reported of its node.

    Args:
        node: Its number.
        host: What the node calls itself.
        state: `starting`, `running`, `ending` or `ended`.
        beats: Heartbeats; the number grows while the node agent lives.
        exits: Exit code of each process that ended, by node or rank; negative for a signal.
        reason: Why the node agent ended its processes; None if they ended by themselves.
        ended_at: When, by the node's clock, seconds since the epoch; None while it runs.
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
        """Whether nothing runs there any more."""
        return self.state == "ended"


class JobFolder:
    """A job's folder, as the tuner uses it.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, task_folder: Path, identity: str) -> JobFolder:
        """Makes a new folder in a task's folder.

        Raises:
            OSError: It cannot be made.
        """
        path = task_folder.resolve() / f"{_PREFIX}{identity}"
        path.mkdir()
        shutil.copyfile(node_agent.__file__, path / "node_agent.py")
        return cls(path)

    @classmethod
    def all_in(cls, folder: Path) -> list[JobFolder]:
        """The folders of all jobs a task's folder holds."""
        return [cls(path) for path in sorted(folder.glob(f"{_PREFIX}*")) if path.is_dir()]

    @property
    def identity(self) -> str:
        """What the job was called when it was made."""
        return self.path.name.removeprefix(_PREFIX)

    def write_task(self, task: Mapping[str, Any]) -> None:
        """Writes the task of the node agents."""
        _write(self.path / "task.json", task)

    def write_ranks(self, task: Mapping[str, Any]) -> None:
        """Writes the function and payload that `rank_program` runs."""
        _write(self.path / "ranks.json", task)

    def new_messages(self, rank: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        """The messages of a rank from an offset on, and the offset for the next call.

        Args:
            rank: The rank.
            offset: As the last call returned it; 0 for the beginning.
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
        """Records what a later tuner needs to end the job if this one is killed."""
        _write(self.path / _RECORD, record)

    def recorded(self) -> dict[str, Any] | None:
        """The record; None once the job has ended."""
        return _read(self.path / _RECORD)

    def forget(self) -> None:
        """Removes the record of a job that has ended."""
        (self.path / _RECORD).unlink(missing_ok=True)

    def touch_lease(self) -> None:
        """Renews the lease, by which node agents know that their tuner lives."""
        with contextlib.suppress(OSError):
            (self.path / "lease").touch()

    def ask_to_end(self, reason: str) -> None:
        """Asks every node agent to end its processes. The first reason remains; a full disk stores none."""
        with contextlib.suppress(OSError), (self.path / "end").open("x") as file:
            file.write(reason)

    def statuses(self, num_nodes: int) -> dict[int, NodeStatus]:
        """The status of each node that has reported, by its number."""
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
        """The node that first reported a failed process."""
        try:
            return int((self.path / "failed").read_text())
        except (OSError, ValueError):
            return None

    def rank_exits(self) -> dict[int, int]:
        """Exit codes by rank, the first to end first; negative for a signal."""
        found = []
        for path in self.path.glob("rank-*.exit"):
            with contextlib.suppress(OSError, ValueError):
                code, rank = int(path.read_text()), int(path.stem.rpartition("-")[2])
                found.append((path.stat().st_mtime_ns, rank, _signal_or_code(code)))
        return {rank: code for _, rank, code in sorted(found)}

    def log_files(self, one_per: OnePer, *, num_nodes: int, devices_per_node: int) -> dict[int, LogFile]:
        """The log files, by rank if there is a process per rank, else by node.

        Args:
            one_per: How many processes of the task there are.
            num_nodes: Nodes of the job.
            devices_per_node: Ranks of each.
        """
        kind = "rank" if one_per is OnePer.RANK else "node"
        count = {OnePer.JOB: 1, OnePer.NODE: num_nodes, OnePer.RANK: num_nodes * devices_per_node}[one_per]
        paths = {copy: self.path / f"{kind}-{copy}.log" for copy in range(count)}
        return {
            copy: LogFile(path=path, times=path.with_name(f"{path.name}.times"))
            for copy, path in paths.items()
        }

    def trim_logs(self) -> None:
        """Cuts the logs down to their beginning and end, and removes their recorded times."""
        for path in (*self.path.glob("*.log"), *self.path.glob("starter*.err")):
            trim_file(path)
        for path in self.path.glob("*.log.times"):
            with contextlib.suppress(OSError):
                path.unlink()

    def logs(self) -> dict[int, str]:
        """The beginning and end of each log, by rank if there is a process per rank, else by node."""
        return self._logs("rank") or self.node_logs()

    def node_logs(self) -> dict[int, str]:
        """The beginning and end of the log of each node's own process, which may be torchrun."""
        return self._logs("node")

    def _logs(self, kind: str) -> dict[int, str]:
        found = {}
        for path in self.path.glob(f"{kind}-*.log"):
            number = path.stem.removeprefix(f"{kind}-")
            if number.isdigit():
                found[int(number)] = read_ends(path)
        return dict(sorted(found.items()))


def _signal_or_code(code: int) -> int:
    """An exit code, negative for a signal; a shell reports a signal as 128 plus its number."""
    return 128 - code if 128 < code < 128 + signal.NSIG else code


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, data: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(data, indent=1))
    temporary.replace(path)
