"""An attempt of a worker at a submitted job, and the names under which attempts lease probes."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tuner.launchers.process_records import ProcessRecord
from tuner.search.events import Watcher, unwatched
from tuner.search.spans import Span


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt of a worker at a submitted job. Only the newest attempt may change the job and its study.

    Args:
        job_id: Number of the job.
        number: Number of the attempt, from 1.
        study_id: Study of the job; None if no attempt has opened it yet.
        set_study: Stores the number of the study with the job.
        lost: For each slice that was running when the worker of the earlier attempt went silent: from when
            to when it ran, as far as the worker reported it, by the number of its probe.
        watch: Called with the state of the search after each decision and while slices run.
    """

    job_id: int
    number: int
    study_id: int | None
    set_study: Callable[[int], None]
    lost: Mapping[int, Span] = field(default_factory=dict)
    watch: Watcher = unwatched

    def is_later_than(self, owner: str) -> bool:
        """Whether the owner of a lease was an earlier attempt at the same job."""
        job, number, _ = (owner.rpartition(":")[2].split(".") + [""] * 3)[:3]
        return job == f"job{self.job_id}" and number.isdecimal() and int(number) < self.number


def own_name(attempt: Attempt | None = None) -> str:
    """Returns the name of this process in leases: host, process id, start time and a random part.

    Args:
        attempt: The attempt that the process runs, which becomes part of the name.
    """
    pid = os.getpid()
    unique = uuid.uuid4().hex[:6]
    if attempt is not None:
        unique = f"job{attempt.job_id}.{attempt.number}.{unique}"
    return f"{socket.gethostname()}:{pid}:{_started(pid)}:{unique}"


def is_dead(owner: str) -> bool:
    """Whether the owner of a lease was a process of this host and has ended; False for other hosts."""
    host, pid, started, _ = (owner.rsplit(":", 3) + [""] * 3)[:4]
    if host != socket.gethostname() or not (pid.isdecimal() and started.isdecimal()):
        return False
    return _started(int(pid)) != started


def _started(pid: int) -> str:
    """Returns the start time of a process in clock ticks since boot; empty if there is no such process."""
    record = ProcessRecord.of(pid)
    return "" if record is None else str(record.started)
