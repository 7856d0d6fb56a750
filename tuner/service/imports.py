"""Stores the imported runs of a job in a separate study, and loads them for a search."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.domain.ledger import Ledger, StudyRecord
from tuner.domain.measurement import Measurement, Outcome
from tuner.domain.recommendation import ImportedEvidence
from tuner.past_runs.convert import PastRun
from tuner.search.imported_runs import ImportedRuns
from tuner.service.attempt import own_name
from tuner.service.opening import OpenedJob

#: Start of the remark (in `Measurement.remarks`) with the file or folder from which a run was imported.
_FROM = "imported from "
_SAME_HARDWARE = "it ran on hardware as the job has"
_LEASE_SECONDS = 300.0
#: Keys in the stored job of a study of imported runs: the working folder of the training, and the digest of
#: the source code.
_FOLDER, _CODE = "folder", "code"


#: Status of an imported run:
#:
#: - NEW: the run was not stored before.
#: - UPDATED: the run was stored before, and has new scores.
#: - REPLACED: the run was not stored before, and replaces a stored run from the same source.
#: - KNOWN: the run was stored before, and has no new scores.
NEW, UPDATED, REPLACED, KNOWN = "imported", "updated", "replaced", "already imported"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An imported run and its status.

    Args:
        run: The imported run.
        status: `NEW`, `UPDATED`, `REPLACED` or `KNOWN`.
    """

    run: PastRun
    status: str


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A run that is already stored in the database.

    Args:
        probe_id: Id of the probe that represents the run in the database.
        measurement: The stored configuration and curve of the run, with remarks on its source.
    """

    probe_id: int
    measurement: Measurement

    def is_from(self, run: PastRun) -> bool:
        """Whether the stored run was imported from the same file or folder as another run."""
        return _source_remark(run) in self.measurement.remarks


def store_runs(ledger: Ledger, opened: OpenedJob, runs: Sequence[PastRun], *, fresh: bool) -> list[Stored]:
    """Stores past runs of a job, each run once.

    - The runs become probes of a separate study, `NAME.imported`.
    - Two runs with equal configurations and equal curves are the same run.
    - If a file or folder is imported again and its run has changed, the new run replaces the stored run. The
      stored run stays in the database, but the search ignores it.

    Args:
        ledger: The database in which the runs are stored.
        opened: The job.
        runs: The runs to store.
        fresh: Whether to start a new study of imported runs; then the search ignores runs that were imported
            before.
    """
    goal, owner = opened.job.goal, own_name()
    described = {
        **{"imported_for": opened.job.name, "metric": goal.metric, "direction": goal.direction},
        **{_FOLDER: _folder(opened), _CODE: opened.code},
    }
    before = imported_study(ledger, opened)
    fingerprint = _fingerprint(opened) if before is None else before.fingerprint
    study = ledger.open_study(_study_name(opened), fingerprint, described, fresh=fresh)
    known = [
        _Known(probe_id=probe.probe_id, measurement=measurement)
        for probe in ledger.probes(study.study_id)
        if (measurement := probe.measurement) is not None and probe.outcome.can_continue
    ]
    found = []
    for run in runs:
        same = next((one for one in known if _is_same(one.measurement, run.measurement)), None)
        if same is None:
            measurement = replace(run.measurement, remarks=_remarks(run))
            lease = ledger.start_probe(
                study.study_id,
                measurement.configuration,
                measurement.purpose,
                trial_number=None,
                owner=owner,
                lease_seconds=_LEASE_SECONDS,
            )
            status = NEW
        elif (adds_nothing := _adds_nothing(same.measurement, run)) and same.is_from(run):
            found.append(Stored(run=run, status=KNOWN))
            continue
        else:
            further = max(same.measurement, run.measurement, key=lambda m: m.samples)
            measurement = replace(further, remarks=_remarks(run))
            lease = ledger.take_probe(same.probe_id, owner=owner, lease_seconds=_LEASE_SECONDS)
            known.remove(same)
            # The new remarks state the source of this import.
            status = KNOWN if adds_nothing else UPDATED
        ledger.append_slice(lease, measurement)
        ledger.release(lease)
        remarks = () if same is None else same.measurement.remarks
        everything = replace(measurement, remarks=(*remarks, *measurement.remarks))
        known.append(_Known(probe_id=lease.probe_id, measurement=everything))
        found.append(Stored(run=run, status=status))
    return _with_replaced(ledger, known, found)


def _with_replaced(ledger: Ledger, known: Sequence[_Known], found: Sequence[Stored]) -> list[Stored]:
    """Ends stored runs that are replaced by a new run from the same source, and returns the new statuses.

    A new run that replaces a stored run gets the status `REPLACED`. If several new runs have the same source,
    no stored run of this source is replaced, because it is unknown which run replaces which.
    """
    sources = Counter(one.run.source for one in found)
    result = []
    for one in found:
        replaced = [
            stored
            for stored in known
            if sources[one.run.source] == 1
            and stored.is_from(one.run)
            and not _is_same(stored.measurement, one.run.measurement)
        ]
        for stored in replaced:
            ledger.end_probe(
                stored.probe_id, Outcome.STOPPED, "its source was imported again with other values"
            )
        result.append(replace(one, status=REPLACED) if replaced and one.status == NEW else one)
    return result


def imported_study(ledger: Ledger, opened: OpenedJob) -> StudyRecord | None:
    """Returns the study with the imported runs of a job; None if there is none.

    The study must have the same name, metric and training (`_training`) as the job, and either the same
    working folder or the same source code. So the study is still found after the script was edited, or after
    its folder was moved.
    """
    prefix = f"{_digest(opened)}-"
    found = [
        study
        for study in ledger.studies()
        if study.job_name == _study_name(opened)
        and study.fingerprint.startswith(prefix)
        and (
            study.job.get(_FOLDER) == _folder(opened)
            or (opened.code != "" and study.job.get(_CODE) == opened.code)
        )
    ]
    return found[-1] if found else None


def imports_left_behind(ledger: Ledger, opened: OpenedJob) -> str | None:
    """Returns a warning if the command or Workload changed since runs were imported, else None."""
    goal, name, folder = opened.job.goal, _study_name(opened), _folder(opened)
    described = [study.job for study in ledger.studies() if study.job_name == name]
    is_here = any((one.get(_FOLDER), one.get("metric")) == (folder, goal.metric) for one in described)
    if not is_here or opened.job.recording() is not None or imported_study(ledger, opened) is not None:
        return None
    changed = (
        "the command or its environment" if opened.job.runs_command else "the Workload or its parameters"
    )
    return (
        f"{changed} changed since runs were imported for {opened.job.name}, so these runs are not used. If "
        "they still belong to this training, import them again with `paceline import-runs`"
    )


def imported_runs(ledger: Ledger, opened: OpenedJob) -> ImportedRuns:
    """Returns the runs that were imported for a job; no runs if the job replays a recording."""
    study = None if opened.job.recording() is not None else imported_study(ledger, opened)
    if study is None:
        return ImportedRuns()
    probes = tuple(p for p in ledger.probes(study.study_id) if p.slices and p.outcome.can_continue)
    return ImportedRuns(
        probes=probes,
        is_same_hardware=tuple(any(_SAME_HARDWARE in m.remarks for m in probe.slices) for probe in probes),
    )


def imported_evidence(imported: ImportedRuns, weights: dict[str, float]) -> ImportedEvidence | None:
    """Returns the part of a recommendation that describes imported runs; None if there are no such runs.

    Args:
        imported: The imported runs.
        weights: Maps the name of each model, such as `samples to target`, to the weight of the prior that was
            made from the imported runs.
    """
    if not imported.probes:
        return None
    sources = dict.fromkeys(
        remark.removeprefix(_FROM)
        for probe in imported.probes
        for remark in probe.slices[-1].remarks
        if remark.startswith(_FROM)
    )
    return ImportedEvidence(
        num_runs=len(imported.probes),
        num_same_hardware=sum(imported.is_same_hardware),
        sources=tuple(sources),
        weights=weights,
    )


def _study_name(opened: OpenedJob) -> str:
    return f"{opened.job.name}.imported"


def _fingerprint(opened: OpenedJob) -> str:
    """Returns the fingerprint of a job's study of imported runs: digests of its training and its folder."""
    return f"{_digest(opened)}-{hashlib.sha256(_folder(opened).encode()).hexdigest()[:8]}"


def _digest(opened: OpenedJob) -> str:
    """Returns a digest of a job's metric and training. Target, space, baseline and budget do not matter."""
    goal = opened.job.goal
    parts = ["imported runs", goal.metric, "max" if goal.maximize else "min", *_training(opened)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _training(opened: OpenedJob) -> list[str]:
    """Returns the command and environment of a job, or the import path and parameters of its Workload."""
    job = opened.job
    if job.runs_command:
        return [job.command.command, json.dumps(job.command.environment, sort_keys=True)]
    if job.workload is None:
        return []
    return [job.trained.path, json.dumps(job.trained.parameters, sort_keys=True, default=str)]


def _folder(opened: OpenedJob) -> str:
    """Returns the working folder of the command, or the folder of the job file."""
    folder = opened.folder / opened.job.command.folder if opened.job.runs_command else opened.folder
    return str(folder.resolve())


def _curve(measurement: Measurement) -> dict[int, float]:
    return {point.samples: point.value for point in measurement.curve}


def _is_same(stored: Measurement, measurement: Measurement) -> bool:
    """Whether two runs have the same configuration, and equal scores wherever both have a score."""
    if stored.configuration != measurement.configuration:
        return False
    old, new = _curve(stored), _curve(measurement)
    shared = old.keys() & new.keys()
    # Only some scores of a long curve are stored. Which ones changes when the curve becomes longer.
    needed = min(len(old), len(new), 3)
    return len(shared) >= needed and all(old[samples] == new[samples] for samples in shared)


def _adds_nothing(stored: Measurement, run: PastRun) -> bool:
    """Whether the database already contains all scores of a run and the same remark on its hardware."""
    says_hardware = not run.is_same_hardware or _SAME_HARDWARE in stored.remarks
    return run.measurement.samples <= stored.samples and says_hardware


def _remarks(run: PastRun) -> tuple[str, ...]:
    """Returns the remarks on the source and the hardware of a run."""
    words = (f"{_FROM}{run.origin} ({run.format})", _source_remark(run))
    return (*words, _SAME_HARDWARE) if run.is_same_hardware else words


def _source_remark(run: PastRun) -> str:
    return f"run {run.source}"
