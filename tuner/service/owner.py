"""Who holds a lease: names that tell whether the process behind them still lives."""

from __future__ import annotations

import os
import socket
import uuid

from tuner.domain.errors import StorageError
from tuner.launchers.process_records import ProcessRecord
from tuner.ledger import Ledger, StudyRecord


def own_name() -> str:
    """This process in leases: host, process, the process's start, a random part."""
    pid = os.getpid()
    return f"{socket.gethostname()}:{pid}:{_started(pid)}:{uuid.uuid4().hex[:6]}"


def is_dead(owner: str) -> bool:
    """Whether a process of this host that held a lease is gone; of other hosts nothing is known."""
    host, pid, started, _ = (owner.rsplit(":", 3) + [""] * 3)[:4]
    if host != socket.gethostname() or not (pid.isdecimal() and started.isdecimal()):
        return False
    return _started(int(pid)) != started


def free_leases_of_the_dead(ledger: Ledger, study: StudyRecord) -> None:
    """Gives back the leases of tuners of this host that were killed, so that nobody waits for them.

    Raises:
        StorageError: A living tuner works on this study.
    """
    for probe in ledger.probes(study.study_id):
        if probe.lease is None:
            continue
        if not is_dead(probe.lease.owner):
            raise StorageError(
                f"study {study.name} is being worked on by {probe.lease.owner.rsplit(':', 2)[0]}; "
                "wait for it to end, or start another study with --fresh"
            )
        ledger.release(probe.lease)


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty where none of this number runs."""
    record = ProcessRecord.of(pid)
    return "" if record is None else str(record.started)
