"""What must hold after every end of a killed run."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.soak_round import Snapshot
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Outcome, Purpose

_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One way to end a run.

    Args:
        name: Of the way.
        number: The signal.
        whom: `tuner`, `group` or `rank`.
    """

    name: str
    number: signal.Signals
    whom: str


KILLS = (
    Kill(name="SIGKILL to the tuner", number=signal.SIGKILL, whom="tuner"),
    Kill(name="SIGKILL to the process group", number=signal.SIGKILL, whom="group"),
    Kill(name="SIGTERM to the tuner", number=signal.SIGTERM, whom="tuner"),
    Kill(name="SIGINT to the process group", number=signal.SIGINT, whom="group"),
    Kill(name="SIGKILL to a rank", number=signal.SIGKILL, whom="rank"),
)


def held(snapshot: Snapshot) -> set[tuple[int, str]]:
    """The leases: probe and owner."""
    return {(probe.probe_id, probe.lease.owner) for probe in snapshot.probes if probe.lease is not None}


def check_resumed(before: Snapshot, after: Snapshot) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a run may not do to what was stored before it."""
    by_id = {probe.probe_id: probe for probe in after.probes}
    for probe in before.probes:
        later = by_id.get(probe.probe_id)
        if later is None or tuple(later.slices[: len(probe.slices)]) != tuple(probe.slices):
            yield "no slice vanishes or changes", {"probe": probe.probe_id, "slices": len(probe.slices)}
    if after.charged_seconds < before.charged_seconds:
        yield (
            "charged seconds never fall",
            {"before": before.charged_seconds, "after": after.charged_seconds},
        )
    if after.integrity != "ok":
        yield "the database passes its integrity check", {"answer": after.integrity}
    yield from check_paid_once(after.probes)


def check_paid_once(probes: Sequence[ProbeRecord]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Samples that were paid for twice: within a run, or by a second run of the same configuration."""
    started: Counter[str] = Counter()
    for probe in probes:
        # A slice that was lost with a killed tuner is charged, and took its run no further.
        ended = [m for m in probe.slices if m.outcome is not Outcome.PAUSED or m.error is None]
        whole = [m for m in ended if not m.outcome.is_fault]
        samples = [m.samples for m in whole]
        points = [point.samples for m in whole for point in m.curve]
        if samples != sorted(set(samples)) or points != sorted(set(points)):
            yield (
                "no sample is trained twice",
                {"probe": probe.probe_id, "samples": samples, "scored": points},
            )
        trained = probe.purpose is not Purpose.TIMING and whole and whole[0].charged_seconds > 0
        # A run that goes on with other nodes starts with a slice that cost nothing. Where a rank was killed,
        # the run may have to be trained again.
        if trained and len(whole) == len(ended):
            started[str(probe.configuration.without("nodes"))] += 1
    for configuration, count in started.items():
        if count > 1:
            yield "no configuration is started twice", {"configuration": configuration, "count": count}


def check_end(
    code: int, stderr: str, *, kill: Kill | None, leases: int, left: Mapping[int, str], files: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What holds after every end of the command.

    Args:
        code: Its exit code.
        stderr: What it printed there.
        kill: What ended it; None where it ended by itself, or only a rank was killed.
        leases: Leases still held; after an interrupt those that it took itself, since it may come before
            the command has freed what a killed tuner held.
        left: Processes still alive after the grace, with their command lines.
        files: Our files in shared memory.
    """
    facts = {"exit_code": code, "stderr": stderr[-1500:]}
    allowed = {0}
    if kill is not None:
        # Before the first word, the interpreter itself answers to the signal.
        early = {-kill.number, 1} if kill.number != signal.SIGKILL and "plan:" not in stderr else set()
        allowed |= {-signal.SIGKILL} if kill.number == signal.SIGKILL else {_INTERRUPTED} | early
    if code not in allowed:
        yield "the command ends with the exit code of its end", {**facts, "allowed": sorted(allowed)}
    if "Traceback" in stderr and "plan:" in stderr:
        yield "no traceback reaches the user", facts
    if code in (0, _INTERRUPTED) and leases:
        yield "no lease is left after a clean end", {**facts, "leases": leases}
    if left:
        yield "no process outlives the tuner", {**facts, "processes": dict(left)}
    if files:
        yield "no file stays in shared memory", {**facts, "files": list(files)}
