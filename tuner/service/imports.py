"""Store imported runs in a study of their own, and load them for a search."""

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
from tuner.service.opening import OpenedJob, own_name

#: Start of the remark that names the origin of an imported run.
_FROM = "imported from "
_SAME_HARDWARE = "it ran on hardware as the job has"
_LEASE_SECONDS = 300.0
#: Keys of a study of imported runs: the folder that the job trains in, and the digest of its source.
_FOLDER, _CODE = "folder", "code"


#: Status of a run: new; known, but with new scores; new, and replacing another one of its source; known.
NEW, UPDATED, REPLACED, KNOWN = "imported", "updated", "replaced", "already imported"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An imported run and its status.

    Args:
        run: The run.
        status: `NEW`, `UPDATED`, `REPLACED` or `KNOWN`.
    """

    run: PastRun
    status: str


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A stored run.

    Args:
        probe_id: Id of its probe.
        measurement: Its stored measurement.
    """

    probe_id: int
    measurement: Measurement

    def is_from(self, run: PastRun) -> bool:
        """Whether it was read from a run's source."""
        return _source_remark(run) in self.measurement.remarks


def store_runs(ledger: Ledger, opened: OpenedJob, runs: Sequence[PastRun], *, fresh: bool) -> list[Stored]:
    """Store past runs of a job, each once.

    They become probes of a separate study (`NAME.imported`). A run is recognized by its configuration and
    curve. A run from a known source with another configuration or curve replaces the stored run, which stays
    in the database but does not count.

    Args:
        ledger: The ledger to store them in.
        opened: The job.
        runs: The runs.
        fresh: Whether to ignore runs that were imported before.
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
            # The new remarks have its present source.
            status = KNOWN if adds_nothing else UPDATED
        ledger.append_slice(lease, measurement)
        ledger.release(lease)
        remarks = () if same is None else same.measurement.remarks
        everything = replace(measurement, remarks=(*remarks, *measurement.remarks))
        known.append(_Known(probe_id=lease.probe_id, measurement=everything))
        found.append(Stored(run=run, status=status))
    return _with_replaced(ledger, known, found)


def _with_replaced(ledger: Ledger, known: Sequence[_Known], found: Sequence[Stored]) -> list[Stored]:
    """End the stored runs that other runs of the same source replace, and set the status of new runs.

    A source with several runs of the same name is ignored.
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
    """The study of the runs that count for a job; None if there is none.

    It has the job's name, metric and training (`_training`), and the same folder or the same script. So it is
    found after the script was edited or the folder was moved.
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
    """A warning if the command or Workload changed since runs were imported in this folder; else None."""
    goal, name, folder = opened.job.goal, _study_name(opened), _folder(opened)
    described = [study.job for study in ledger.studies() if study.job_name == name]
    is_here = any((one.get(_FOLDER), one.get("metric")) == (folder, goal.metric) for one in described)
    if not is_here or opened.job.recording() is not None or imported_study(ledger, opened) is not None:
        return None
    changed = (
        "the command or its environment" if opened.job.runs_command else "the Workload or its parameters"
    )
    return (
        f"{changed} changed since runs were imported for {opened.job.name}, so these runs do not count. If "
        "they still belong to this training, import them again with `paceline import-runs`"
    )


def imported_runs(ledger: Ledger, opened: OpenedJob) -> ImportedRuns:
    """The runs that were imported for a job; empty for a job that replays a recording."""
    study = None if opened.job.recording() is not None else imported_study(ledger, opened)
    if study is None:
        return ImportedRuns()
    probes = tuple(p for p in ledger.probes(study.study_id) if p.slices and p.outcome.can_continue)
    return ImportedRuns(
        probes=probes,
        is_same_hardware=tuple(any(_SAME_HARDWARE in m.remarks for m in probe.slices) for probe in probes),
    )


def imported_evidence(imported: ImportedRuns, weights: dict[str, float]) -> ImportedEvidence | None:
    """The part of a recommendation on imported runs; None without any.

    Args:
        imported: The runs.
        weights: Weight of the imported runs' prior for each law, by its name.
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
    """Fingerprint of the study; see `imported_study`."""
    return f"{_digest(opened)}-{hashlib.sha256(_folder(opened).encode()).hexdigest()[:8]}"


def _digest(opened: OpenedJob) -> str:
    """Digest of a job's metric and training, independent of target, space, baseline and budget."""
    goal = opened.job.goal
    parts = ["imported runs", goal.metric, "max" if goal.maximize else "min", *_training(opened)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _training(opened: OpenedJob) -> list[str]:
    """Identity of a job's training: command and environment, or path and parameters of the Workload."""
    job = opened.job
    if job.runs_command:
        return [job.command.command, json.dumps(job.command.environment, sort_keys=True)]
    if job.workload is None:
        return []
    return [job.trained.path, json.dumps(job.trained.parameters, sort_keys=True, default=str)]


def _folder(opened: OpenedJob) -> str:
    """Working folder of the command, or the folder of the job file."""
    folder = opened.folder / opened.job.command.folder if opened.job.runs_command else opened.folder
    return str(folder.resolve())


def _curve(measurement: Measurement) -> dict[int, float]:
    return {point.samples: point.value for point in measurement.curve}


def _is_same(stored: Measurement, measurement: Measurement) -> bool:
    """Whether a stored run equals another one, as far as both curves go."""
    if stored.configuration != measurement.configuration:
        return False
    old, new = _curve(stored), _curve(measurement)
    shared = old.keys() & new.keys()
    # Of a long curve, only some scores are stored, and others once it is longer.
    needed = min(len(old), len(new), 3)
    return len(shared) >= needed and all(old[samples] == new[samples] for samples in shared)


def _adds_nothing(stored: Measurement, run: PastRun) -> bool:
    """Whether all scores of a run are stored, and whether its hardware is noted."""
    says_hardware = not run.is_same_hardware or _SAME_HARDWARE in stored.remarks
    return run.measurement.samples <= stored.samples and says_hardware


def _remarks(run: PastRun) -> tuple[str, ...]:
    """Remarks on the origin and the hardware of a run."""
    words = (f"{_FROM}{run.origin} ({run.format})", _source_remark(run))
    return (*words, _SAME_HARDWARE) if run.is_same_hardware else words


def _source_remark(run: PastRun) -> str:
    return f"run {run.source}"
