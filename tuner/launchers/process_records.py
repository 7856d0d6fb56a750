"""Records which processes belong to a job, so that a later tuner can end what an earlier one left."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner.launchers.fork_server import kill_group

#: Name of the record in a task's folder; it is gone once the job has ended.
RECORD_NAME = "ranks.json"


@dataclass(frozen=True, kw_only=True)
class ProcessRecord:
    """A process that cannot be mistaken for a later one with the same number.

    Args:
        process: Its number.
        started: When it started, in the kernel's clock ticks since boot.
    """

    process: int
    started: int

    @classmethod
    def of(cls, process: int) -> ProcessRecord | None:
        """The record of a living process; None where it is dead or the system has no /proc."""
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        # Fields 3 (state) and 22 (start time) of proc(5), counted from behind the command's name.
        return None if fields[0] in "ZX" else cls(process=process, started=int(fields[19]))

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessRecord.of(self.process) == self


def write_record(folder: Path, *, server: int, ranks: Mapping[int, int]) -> None:
    """Records the processes of a job.

    Args:
        folder: The task's folder.
        server: The process that forks the ranks.
        ranks: Rank to process, as far as known.
    """
    found = {rank: ProcessRecord.of(process) for rank, process in ranks.items()}
    record = {
        "host": _host(),
        "tuner": _plain(ProcessRecord.of(os.getpid())),
        "server": _plain(ProcessRecord.of(server)),
        "ranks": [{"rank": rank, **asdict(process)} for rank, process in found.items() if process],
    }
    temporary = folder / f"{RECORD_NAME}.{os.getpid()}"
    temporary.write_text(json.dumps(record, indent=1))
    temporary.replace(folder / RECORD_NAME)


def remove_record(folder: Path) -> None:
    """Forgets the processes of a job that has ended."""
    (folder / RECORD_NAME).unlink(missing_ok=True)


def end_orphans(folder: Path) -> list[int]:
    """Kills what an earlier tuner's job in this folder left running.

    A process is killed only if its start time is the recorded one, so never one that merely got the
    same number; a job of this very process is left alone, and so is one of another host.

    Args:
        folder: The task's folder.

    Returns:
        The processes killed.
    """
    try:
        record = json.loads((folder / RECORD_NAME).read_text())
        tuner, server = _read(record["tuner"]), _read(record["server"])
        ranks = [_read(rank) for rank in record["ranks"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if record.get("host") != _host() or tuner == ProcessRecord.of(os.getpid()):
        return []
    # A living tuner may have other jobs on the same server.
    doomed = ranks if tuner is not None and tuner.is_alive else [*ranks, server]
    killed = []
    for process in doomed:
        if process is not None and process.is_alive:
            kill_group(process.process)
            killed.append(process.process)
    remove_record(folder)
    return killed


def _host() -> str:
    """Names this boot of this host, and the process numbers' namespace within it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _plain(process: ProcessRecord | None) -> dict[str, int] | None:
    return None if process is None else asdict(process)


def _read(data: Mapping[str, Any] | None) -> ProcessRecord | None:
    if data is None:
        return None
    return ProcessRecord(process=int(data["process"]), started=int(data["started"]))
