"""Runs that were imported for a job: where they are stored, and what a search learns from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.domain.measurement import Measurement
from tuner.domain.recommendation import ImportedEvidence
from tuner.ledger import Ledger, StudyRecord
from tuner.past_runs.convert import PastRun
from tuner.search.imported_runs import ImportedRuns
from tuner.service.opening import OpenedJob, own_name

#: Where an imported run comes from, as the first remark of its slices.
_FROM = "imported from "
_SAME_HARDWARE = "it ran on hardware as the job has"
_LEASE_SECONDS = 300.0


#: Status of a run that was stored, of which more was stored, and of which nothing is new.
NEW, UPDATED, KNOWN = "imported", "updated", "already imported"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What became of a run that was imported.

    Args:
        run: The run.
        status: `NEW`, `UPDATED` or `KNOWN`.
    """

    run: PastRun
    status: str


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A run that is stored.

    Args:
        probe_id: Its probe.
        measurement: What is stored of it.
    """

    probe_id: int
    measurement: Measurement


def store_runs(ledger: Ledger, opened: OpenedJob, runs: Sequence[PastRun], *, fresh: bool) -> list[Stored]:
    """Stores past runs of a job, each once.

    They are probes of a study of their own (`NAME.imported`), which no search, report or table opens as the
    job's. A run is known by its configuration and its curve, wherever its file lies.

    Args:
        ledger: Where they are stored.
        opened: The job.
        runs: The runs.
        fresh: Whether runs that were imported before are left behind.
    """
    goal, owner = opened.job.goal, own_name()
    described = {"imported_for": opened.job.name, "metric": goal.metric, "direction": goal.direction}
    study = ledger.open_study(_study_name(opened), _fingerprint(opened), described, fresh=fresh)
    known = [
        _Known(probe_id=probe.probe_id, measurement=measurement)
        for probe in ledger.probes(study.study_id)
        if (measurement := probe.measurement) is not None
    ]
    found = []
    for run in runs:
        place = next((i for i, one in enumerate(known) if _is_same(one.measurement, run.measurement)), None)
        if place is None:
            measurement = replace(run.measurement, remarks=_remarks(run))
            lease = ledger.start_probe(
                study.study_id,
                measurement.configuration,
                measurement.purpose,
                trial_number=None,
                owner=owner,
                lease_seconds=_LEASE_SECONDS,
            )
        elif _adds_nothing(known[place].measurement, run):
            found.append(Stored(run=run, status=KNOWN))
            continue
        else:
            stored = known.pop(place)
            further = max(stored.measurement, run.measurement, key=lambda m: m.samples)
            measurement = replace(further, remarks=_remarks(run))
            lease = ledger.take_probe(stored.probe_id, owner=owner, lease_seconds=_LEASE_SECONDS)
        ledger.append_slice(lease, measurement)
        ledger.release(lease)
        known.append(_Known(probe_id=lease.probe_id, measurement=measurement))
        found.append(Stored(run=run, status=NEW if place is None else UPDATED))
    return found


def imported_study(ledger: Ledger, opened: OpenedJob) -> StudyRecord | None:
    """The study of the runs that count for a job now; None if there is none."""
    name, fingerprint = _study_name(opened), _fingerprint(opened)
    found = [s for s in ledger.studies() if (s.job_name, s.fingerprint) == (name, fingerprint)]
    return found[-1] if found else None


def imported_runs(ledger: Ledger, opened: OpenedJob) -> ImportedRuns:
    """The runs that were imported for a job and its metric; none for one that replays a recording."""
    study = None if opened.job.recording() is not None else imported_study(ledger, opened)
    if study is None:
        return ImportedRuns()
    probes = tuple(probe for probe in ledger.probes(study.study_id) if probe.slices)
    return ImportedRuns(
        probes=probes,
        is_same_hardware=tuple(any(_SAME_HARDWARE in m.remarks for m in probe.slices) for probe in probes),
    )


def imported_evidence(imported: ImportedRuns, weights: dict[str, float]) -> ImportedEvidence | None:
    """What the answer says of imported runs; None without any.

    Args:
        imported: The runs.
        weights: Name of each law to the weight that the imported runs' prior has in it now.
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
    """Names what is imported: runs of a job's name and metric. The target may change."""
    goal = opened.job.goal
    parts = ["imported runs", opened.job.name, goal.metric, "max" if goal.maximize else "min"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _curve(measurement: Measurement) -> dict[int, float]:
    return {point.samples: point.value for point in measurement.curve}


def _is_same(stored: Measurement, measurement: Measurement) -> bool:
    """Whether a stored run is the one that was found, as far as both go."""
    if stored.configuration != measurement.configuration:
        return False
    old, new = _curve(stored), _curve(measurement)
    shared = old.keys() & new.keys()
    # A long curve is stored in part, and another part of it once it is longer.
    needed = min(len(old), len(new), 3)
    return len(shared) >= needed and all(old[samples] == new[samples] for samples in shared)


def _adds_nothing(stored: Measurement, run: PastRun) -> bool:
    """Whether all of a run is stored, and that its hardware is the job's, too."""
    says_hardware = not run.is_same_hardware or _SAME_HARDWARE in stored.remarks
    return run.measurement.samples <= stored.samples and says_hardware


def _remarks(run: PastRun) -> tuple[str, ...]:
    """Where a run comes from, and on what it ran."""
    words = (f"{_FROM}{run.origin} ({run.format})", f"run {run.label}")
    return (*words, _SAME_HARDWARE) if run.is_same_hardware else words
