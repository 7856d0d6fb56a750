"""An attempt of a worker at a submitted job, and the names under which attempts lease probes."""

from __future__ import annotations

import math
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tuner.domain.ledger import Lease, StudyRecord
from tuner.launchers.process_records import ProcessRecord
from tuner.search.events import Listener, Watcher, unwatched
from tuner.search.spans import Span


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt of a worker at a submitted job. Only the newest attempt may change the job and its study.

    Args:
        job_id: Number of the job.
        number: Number of the attempt, from 1.
        study_id: Study of the job; None if no attempt has opened it yet.
        set_study: Stores the number of the study with the job.
        restore: Brings the files of the study to this host before a later attempt continues it.
        lost: For each slice that was running when the worker of an earlier attempt went silent: from when to
            when it ran, as far as the worker reported it, by the number of the attempt and of the probe.
        watch: Called with the state of the search after each decision and while slices run.
        saves: Says whether slices may save a checkpoint when the search is interrupted.
        watch_training: The same for trainings that confirm the recommendation.
    """

    job_id: int
    number: int
    study_id: int | None
    set_study: Callable[[int], None]
    restore: Callable[[StudyRecord, Listener], None] = lambda _study, _listen: None
    lost: Mapping[tuple[float, int], Span] = field(default_factory=dict)
    saves: Callable[[], bool] = lambda: False
    watch: Watcher = unwatched
    watch_training: Watcher = unwatched

    def is_later_than(self, owner: str) -> bool:
        """Whether the owner of a lease was an earlier attempt at the same job."""
        return self._number_of(owner) < self.number

    def reported_span(self, lease: Lease) -> Span:
        """Returns from when to when a lost slice ran, as its worker reported it; 0 and 0 if it did not."""
        return self.lost.get((self._number_of(lease.owner), lease.probe_id), (0.0, 0.0))

    def _number_of(self, owner: str) -> float:
        """Returns the number of the attempt that owned a lease; infinite if it was none at this job."""
        job, number, _ = (owner.rpartition(":")[2].split(".") + [""] * 3)[:3]
        return int(number) if job == f"job{self.job_id}" and number.isdecimal() else math.inf


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
