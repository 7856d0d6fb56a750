"""Recorded jobs of the soak run of the service, and what must hold when all of them have ended."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.made_recording import made_problem
from storage import open_storage
from storage.database import Storage
from tuner.domain.job_queue import JobRecord, JobState
from tuner.recordings.file import write_recording
from tuner.service.opening import open_job
from tuner.service.run import RunOptions, run_job

RECORDING = "made.jsonl.gz"
PROBES_OF_A_JOB = 10
NODE_HOURS_OF_A_JOB = 1000.0
#: Every configuration is worth a probe, so that each job has exactly its number of probes.
JOB = f"""
name = "soak"
seed = {{seed}}
[probe]
kind = "recorded"
recording = "{RECORDING}"
[goal]
trainings = 1000000000
[budget]
probes = {PROBES_OF_A_JOB}
node_hours = {NODE_HOURS_OF_A_JOB:g}
"""
#: Parts of a recommendation that differ between runs with equal results.
_VOLATILE = frozenset({"created_at", "study_name", "command", "user_command", "checkpoint"})
#: Probes are numbered in the whole database. A probe that was interrupted at its start has its own trial.
_NUMBERS = frozenset({"probe_id", "trial_number"})
_EVERY = 8


@cache
def recording() -> bytes:
    """Returns a made recording of 50 configurations."""
    with TemporaryDirectory() as folder:
        made = made_problem(Path(folder)).recording
        path = Path(folder) / RECORDING
        write_recording(replace(made, runs=made.runs[::_EVERY]), path)
        return path.read_bytes()


def undisturbed(seed: int) -> dict[str, Any]:
    """Returns the recommendation of a job that nothing disturbs."""
    with TemporaryDirectory(prefix="soak-undisturbed-") as name:
        folder = Path(name)
        (folder / RECORDING).write_bytes(recording())
        (folder / "job.toml").write_text(JOB.format(seed=seed))
        options = RunOptions(output=folder / "out", past_studies=False)
        with open_storage(f"sqlite:///{folder}/study.db") as store:
            result = run_job(open_job(folder / "job.toml"), store, options)
    return stable(result.recommendation.to_dict())


def stable(recommendation: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parts of a recommendation that are equal in all runs with equal results."""
    # Through JSON, as from a database.
    plain = json.loads(json.dumps(dict(recommendation)))
    return {key: value for key, value in plain.items() if key not in _VOLATILE}


def differences(
    found: Mapping[str, Any], expected: Mapping[str, Any], *, tolerance: float = 1e-6
) -> dict[str, list[Any]]:
    """Returns the values of two recommendations that differ: the found one and the expected one.

    Args:
        found: The found recommendation.
        expected: The expected recommendation.
        tolerance: Floats whose relative difference is at most this value are equal. A sum depends on where
            slices were cut.

    Returns:
        Maps paths, such as `analysis.what_if.0.note`, to both values.
    """
    return {
        path: pair
        for key in expected
        for path, pair in _unequal(key, _uncounted(found, key), _uncounted(expected, key), tolerance)
    }


def _uncounted(recommendation: Mapping[str, Any], key: str) -> Any:
    """Returns a value of a recommendation; the evidence without the number of slices.

    A slice that was interrupted at its start counts, although it has trained nothing.
    """
    if key != "evidence":
        return recommendation.get(key)
    return [re.sub(r"in \d+ slices", "in slices", sentence) for sentence in recommendation.get(key, [])]


def _unequal(path: str, found: Any, expected: Any, tolerance: float) -> Iterator[tuple[str, list[Any]]]:
    if isinstance(expected, Mapping) and isinstance(found, Mapping) and found.keys() == expected.keys():
        for key in expected.keys() - _NUMBERS:
            yield from _unequal(f"{path}.{key}", found[key], expected[key], tolerance)
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        for place, pair in enumerate(zip(found, expected, strict=True)):
            yield from _unequal(f"{path}.{place}", *pair, tolerance)
    elif isinstance(expected, float) and isinstance(found, float):
        both_nan = math.isnan(found) and math.isnan(expected)
        if not (both_nan or math.isclose(found, expected, rel_tol=tolerance, abs_tol=1e-9)):
            yield path, [found, expected]
    elif found != expected:
        yield path, [found, expected]


def check_job(
    store: Storage, job: JobRecord, expected: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each invariant that an ended job breaks, with facts about it.

    Args:
        store: The database.
        job: The job.
        expected: Recommendation of the same job when nothing disturbs it.
    """
    facts = {"job": job.job_id, "attempts": job.attempt}
    if (job.state, job.exit_code) != (JobState.SUCCEEDED, 0):
        invariant = "every job succeeds" if job.state.has_ended else "every job ends in time"
        yield invariant, {**facts, "state": str(job.state), "reason": job.reason}
        return
    events = store.queue.events(job.job_id, limit=100_000)
    ends = [event for event in events if event.kind == "state" and event.text.startswith("succeeded")]
    if len(ends) != 1 or events[-1] != ends[0]:
        yield "every job ends once, with its last event", {**facts, "ends": [event.number for event in ends]}
    if [event.number for event in events] != list(range(1, len(events) + 1)):
        yield "events are numbered without gaps", facts
    if job.study_id is None:
        yield "a job that succeeded has a study", facts
        return
    probes = store.ledger.probes(job.study_id)
    for probe in probes:
        # A slice that was interrupted at its start has trained nothing.
        empty = [m for m in probe.slices if m.error is not None and not m.curve and not m.charged_seconds]
        samples = [m.samples for m in probe.slices if m not in empty]
        points = [point.samples for m in probe.slices for point in m.curve]
        if samples != sorted(set(samples)) or points != sorted(set(points)):
            yield "no sample is trained twice", {**facts, "probe": probe.probe_id, "samples": samples}
    started = Counter(str(probe.configuration) for probe in probes)
    if max(started.values(), default=1) > 1:
        yield "no configuration is started twice", {**facts, "started": started.most_common(1)}
    if len(probes) != PROBES_OF_A_JOB:
        yield "no budget is overrun", {**facts, "probes": len(probes)}
    if any(probe.lease is not None for probe in probes):
        yield "no lease is left", facts
    charged = sum(m.charged_seconds - m.shared_seconds for probe in probes for m in probe.slices)
    if abs(charged - job.usage.seconds) > 1e-6 * max(charged, 1.0):
        yield "the usage is what the slices cost", {**facts, "charged": charged, "used": job.usage.seconds}
    given = store.ledger.recommendations(job.study_id)
    if len(given) != 1:
        yield "there is one recommendation", {**facts, "given": len(given)}
    found = stable(given[-1].recommendation) if given else {}
    if differing := differences(found, expected):
        yield "the recommendation is that of an undisturbed run", {**facts, "differing": differing}
