"""The use case `record`: writes the runs of a study to a recording, a file which another job can replay.

A run is the training of a probe of the study. A replay gives the measurements of the file instead of
training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search_spaces import Configuration
from tuner.domain.cluster import Machine
from tuner.domain.errors import JobError
from tuner.domain.ledger import ProbeRecord, StudyRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose, merged
from tuner.domain.output_file import check_free
from tuner.probes.recorded import DIVERGED_END
from tuner.recordings.file import write_recording
from tuner.recordings.recording import RecordedRun, Recording
from tuner.service.opening import OpenedJob, StudyStore
from tuner.service.views import require_study

_SUFFIX = ".jsonl.gz"
#: Maps the outcome of a run that did not reach the target to the reason for its end in the recording.
_ENDS = {
    Outcome.RUNNING: "under way",
    Outcome.PAUSED: "not trained further",
    Outcome.REACHED: "reached an earlier target",
    Outcome.STOPPED: "stopped",
    Outcome.DIVERGED: DIVERGED_END,
    Outcome.OUT_OF_MEMORY: "out of memory",
    Outcome.TIMED_OUT: "timed out",
    Outcome.FAILED: "failed",
}
#: Measurements that a recording cannot contain, as a text for messages.
_NEVER_RECORDED = "gradient noise, step times of each rank, memory, and evaluation time"


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The result of `record_study`.

    Args:
        path: Path of the recording.
        num_runs: Number of recorded configurations.
        num_arrived: Number of recorded runs that reached the target.
        left_out: One sentence for each probe that was not recorded, with the reason.
    """

    path: Path
    num_runs: int
    num_arrived: int
    left_out: tuple[str, ...]


def record_study(
    opened: OpenedJob, store: StudyStore, output: Path | None = None, *, force: bool = False
) -> Recorded:
    """Writes the newest study of a job as a recording.

    For each configuration, the recording contains the run that processed the most samples: its scores, its
    seconds per global batch, and why it ended. In a replay, a run reaches the target after the same number of
    training seconds as in the study.

    Args:
        opened: The job.
        store: The database with the study.
        output: Path of the recording. By default it is `STUDY.jsonl.gz` in the current folder.
        force: Whether to overwrite an existing file.

    Raises:
        JobError: There is no study, the study has no run with a score, or the file exists.
        StorageError: The study cannot be read, or the file cannot be written.
    """
    study = require_study(store.ledger, opened)
    path = output or Path(f"{study.name}{_SUFFIX}")
    check_free(path, force=force, makes_folder=True)
    probes = store.ledger.probes(study.study_id)
    recording, left_out = recording_of(opened, study, probes)
    write_recording(recording, path)
    arrived = sum(np.isfinite(recording.truth_seconds(run)) for run in recording.runs)
    return Recorded(
        path=path, num_runs=len(recording.runs), num_arrived=int(arrived), left_out=tuple(left_out)
    )


def recording_of(
    opened: OpenedJob, study: StudyRecord, probes: list[ProbeRecord]
) -> tuple[Recording, list[str]]:
    """Returns the recording of a study, and sentences on the probes and data that it does not contain.

    Raises:
        JobError: No run of the study has a score.
    """
    chosen, left_out = _furthest(probes)
    goal, replayed = opened.job.goal, opened.job.recording()
    runs = [
        _recorded(probe, measurement, goal.target, maximize=goal.maximize) for probe, measurement in chosen
    ]
    if not runs:
        raise JobError(
            f"{opened.path}: study {study.name} has no run with a score, so there is nothing to record; "
            f"run `paceline run {opened.path}` first"
        )
    startups = [m.startup_seconds for probe in probes for m in probe.slices if m.startup_seconds > 0]
    return Recording(
        name=study.name,
        source=f"study {study.name} of {study.job_name}, by paceline record"
        + (f"; replayed from {replayed.name}: {replayed.source}" if replayed else ""),
        metric=goal.metric,
        maximize=goal.maximize,
        target=goal.target,
        machines=_machines(opened),
        batch_size_scope=replayed.batch_size_scope if replayed else "global",
        extra_nodes=opened.cluster.extra_nodes,
        startup_seconds=float(np.median(startups)) if startups else 0.0,
        runs=tuple(runs),
    ), [*left_out, f"for every run: {_NEVER_RECORDED}"]


def _furthest(probes: list[ProbeRecord]) -> tuple[list[tuple[ProbeRecord, Measurement]], list[str]]:
    """Returns each configuration's run that processed the most samples, and a sentence per unused probe."""
    best: dict[Configuration, tuple[ProbeRecord, Measurement]] = {}
    left_out: list[str] = []
    for probe in probes:
        # The scores of a failed slice may be from after the checkpoint from which the run resumed.
        valid = [m for m in probe.slices if not m.outcome.is_fault]
        measurement = merged(valid) if valid else None
        if probe.purpose is Purpose.TIMING:
            left_out.append(f"{_named(probe)}: it only timed steps")
        elif measurement is None or not measurement.trained_curve:
            left_out.append(f"{_named(probe)}: it has no score")
        elif not _ascends(measurement):
            left_out.append(
                f"{_named(probe)}: its training seconds decrease from one score to the next, because it was "
                "resumed on other nodes"
            )
        else:
            runs = sorted(
                [*filter(None, [best.get(probe.configuration)]), (probe, measurement)],
                key=lambda run: run[1].samples,
            )
            best[probe.configuration] = runs[-1]
            if len(runs) > 1:
                left_out.append(f"{_named(runs[0][0])}: {_named(runs[1][0], short=True)} is longer")
    return list(best.values()), left_out


def _named(probe: ProbeRecord, *, short: bool = False) -> str:
    return probe.name if short else f"{probe.name} ({probe.configuration})"


def _ascends(measurement: Measurement) -> bool:
    seconds = [point.training_seconds for point in measurement.curve]
    return seconds == sorted(seconds)


def _recorded(probe: ProbeRecord, measurement: Measurement, target: float, *, maximize: bool) -> RecordedRun:
    configuration = probe.configuration
    # In a recording, one step processes one global batch, whatever the strategy.
    curve = [
        (point.training_seconds, point.samples / configuration.batch_size, point.value)
        for point in {point.samples: point for point in measurement.curve}.values()
    ]
    past = [v >= target if maximize else v <= target for _, step, v in curve if step > 0]
    batch_seconds = measurement.batch_seconds
    if batch_seconds is None:
        batch_seconds = measurement.training_seconds * configuration.batch_size / measurement.samples
    return RecordedRun(
        configuration=configuration,
        step_seconds=batch_seconds,
        curve=np.array(curve, dtype=float),
        end=None if any(past) else _ENDS[probe.outcome],
    )


def _machines(opened: OpenedJob) -> dict[str, Machine]:
    """Maps the names of the job's machine types to these types; one type if the job file defines none."""
    if opened.cluster.machines:
        return dict(opened.cluster.machines)
    cluster = opened.cluster
    cores = cluster.devices_per_node * cluster.threads_per_rank
    return {"node": Machine(cores=cores, dollars_per_hour=cluster.dollars_per_node_hour)}
