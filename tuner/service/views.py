"""Makes the rows of the tables that `paceline status`, `trials` and `explain` print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuner.domain.errors import JobError
from tuner.domain.format import format_chance
from tuner.domain.ledger import Ledger, ProbeRecord, StudyRecord
from tuner.domain.measurement import Outcome, crossing
from tuner.job import GoalSection
from tuner.search.lost_slices import lost_span, probe_folder
from tuner.search.spans import covered
from tuner.service.next_steps import suggest
from tuner.service.opening import (
    OpenedJob,
    abandoned_lease,
    changed_words,
    find_study,
    has_other_study,
)
from tuner.service.outcomes import StoredOutcome

Row = dict[str, Any]


def status_rows(
    ledger: Ledger, study: StudyRecord, output: Path, outcomes: Sequence[StoredOutcome] = ()
) -> list[Row]:
    """Returns the rows of `paceline status`.

    Args:
        ledger: The database of studies.
        study: The study to describe.
        output: The output folder. If a process was killed during a slice, the files in this folder show how
            long the slice ran.
        outcomes: The trainings that followed the recommendation.
    """
    probes = ledger.outlines(study.study_id)
    seen = [probe.measurement for probe in probes if probe.measurement is not None]
    given = ledger.recommendations(study.study_id)
    open_ones = [probe for probe in probes if probe.outcome.can_continue and probe.slices]
    lost = [(probe, lease) for probe in probes if (lease := abandoned_lease(probe)) is not None]
    held = [probe for probe in probes if probe.lease is not None and abandoned_lease(probe) is None]
    rows = [
        ("study", study.name),
        ("probes", len(probes)),
        ("slices", sum(len(probe.slices) for probe in probes)),
        ("resumable probes", len(open_ones)),
        ("running probes", len(held)),
        *_at_once(probes, held),
        *(
            (
                f"{probe.name} lost",
                _lost_words(covered([lost_span(probe_folder(output, study, probe.probe_id), lease)])),
            )
            for probe, lease in lost
        ),
        ("charged seconds", round(sum(m.charged_seconds for m in seen), 3)),
        ("charged dollars", round(sum(m.charged_dollars for m in seen), 6)),
        ("best value", ledger.best_value(study.study_id, maximize=_maximizes(study))),
        ("recommendations", len(given)),
    ]
    if given:
        rows.append(("recommended", _spelled(given[-1].recommendation["choice"]["configuration"])))
        rows.append(("stop reason", given[-1].recommendation["stop_reason"]))
    rows += [(f"outcome {number}", outcome.words) for number, outcome in enumerate(outcomes, start=1)]
    return [{"name": what, "value": value} for what, value in rows]


def _lost_words(seconds: float) -> str:
    """Describes the slice whose measurement was lost when its process was killed, and how long it ran."""
    if seconds == 0.0:
        return "no slice: the process was killed between two slices, or the folder of the probe is missing"
    return f"a slice of about {seconds:.1f} s: the process was killed; `paceline run` charges it and resumes"


def _at_once(probes: list[ProbeRecord], held: list[ProbeRecord]) -> list[tuple[str, Any]]:
    """Returns rows that describe concurrent probes: one for each running probe, one with the elapsed time.

    The elapsed time counts the time during which several slices ran concurrently only once.
    """
    rows: list[tuple[str, Any]] = []
    if len(held) > 1:
        rows = [(f"running {p.name}", f"{p.purpose.value}: {p.configuration}") for p in held]
    slices = [measurement for probe in probes for measurement in probe.slices]
    shared = sum(measurement.shared_seconds for measurement in slices)
    if shared > 0:
        elapsed = sum(measurement.charged_seconds for measurement in slices) - shared
        rows.append(("elapsed seconds", round(elapsed, 3)))
    return rows


def trial_rows(ledger: Ledger, study: StudyRecord) -> list[Row]:
    """Returns the rows of `paceline trials`: one row for each probe, the oldest first."""
    return [_trial_row(study, probe) for probe in ledger.probes(study.study_id)]


def explain_rows(ledger: Ledger, study: StudyRecord, number: int) -> list[Row]:
    """Returns the rows of `paceline explain` for the probe of an Optuna trial.

    The rows contain the configuration, slices, step times and predictions of the probe.

    Args:
        ledger: The database of studies.
        study: The study of the trial.
        number: Number of the trial, as `paceline trials` prints it.

    Raises:
        JobError: The study has no trial that has this number.
    """
    probes = ledger.probes(study.study_id)
    found = [probe for probe in probes if probe.trial_number == number]
    if not found:
        known = sorted(p.trial_number for p in probes if p.trial_number is not None)
        allowed = f"{known[0]} to {known[-1]}" if known else "none yet"
        raise JobError(f"there is no trial {number} in study {study.name}; known are {allowed}")
    probe = found[0]
    rows: list[tuple[str, Any]] = [(axis, value) for axis, value in probe.configuration.items()]
    rows += [
        (key, value) for key, value in _trial_row(study, probe).items() if key not in probe.configuration
    ]
    for index, measurement in enumerate(probe.slices):
        words = f"{measurement.purpose.value}, {measurement.charged_seconds:.2f} s charged"
        if measurement.outcome is Outcome.PAUSED and measurement.error:
            words += f", {measurement.error}"
        if measurement.curve:
            last = measurement.curve[-1]
            words += f", {last.value:.4g} after {last.samples} samples"
        rows.append((f"slice {index + 1}", words))
    timed = probe.measurement
    for rank in timed.ranks if timed else ():
        words = ", ".join(
            f"{part} {1000 * getattr(rank, part).median:.2f} ms"
            for part in ("compute", "sync", "input", "step")
        )
        rows.append((f"rank {rank.rank}, {rank.batch_size} samples", words))
    if timed is not None and timed.staleness_steps is not None:
        rows.append(("staleness", f"{timed.staleness_steps:.2g} steps"))
    if timed is not None and timed.lost_ranks:
        rows.append(("lost ranks", ", ".join(str(rank) for rank in timed.lost_ranks)))
    for prediction in ledger.predictions(study.study_id):
        if prediction.configuration == probe.configuration:
            levels = [f"{seconds:.4g}" for _, seconds in sorted(prediction.quantiles.items())]
            chance = format_chance(prediction.probability_of_reaching)
            rows.append(
                (
                    f"predicted with {prediction.seconds_observed:.1f} s known",
                    f"{' / '.join(levels)} s to target, chance of reaching it {chance}",
                )
            )
    if timed is not None and timed.error:
        rows.append(("error", timed.error))
    rows += [("noticed", remark) for remark in (timed.remarks if timed is not None else ())]
    return [{"name": what, "value": value} for what, value in rows]


def require_study(ledger: Ledger, opened: OpenedJob) -> StudyRecord:
    """Returns the newest study of a job.

    Raises:
        JobError: The database has no study of the job.
    """
    study = find_study(ledger, opened)
    if study is not None:
        return study
    suggest("run {job}", job=opened.path)
    if has_other_study(ledger, opened):
        raise JobError(
            f"{opened.path}: {changed_words(opened.job)}; `paceline run {opened.path}` starts a "
            "new study of the job as it is now"
        )
    raise JobError(
        f"{opened.path}: there is no study of this job here yet; `paceline run {opened.path}` starts "
        "one. If the study is in another database, give its URL with --storage"
    )


def _trial_row(study: StudyRecord, probe: ProbeRecord) -> Row:
    measurement = probe.measurement
    goal = study.job["goal"]
    row: Row = {"trial": probe.trial_number, "probe": probe.probe_id, "purpose": probe.purpose.value}
    row |= probe.configuration.as_dict()
    outcome = probe.outcome.value if abandoned_lease(probe) is None else "killed"
    row |= {"outcome": outcome, "slices": len(probe.slices)}
    crossed = None
    if measurement is not None:
        points = measurement.trained_curve
        crossed = crossing(
            points, goal["target"], maximize=_maximizes(study), consecutive=goal.get("consecutive_scores", 1)
        )
        row |= {
            "samples": measurement.samples,
            "training_seconds": round(measurement.training_seconds, 3),
            "value": points[-1].value if points else None,
            "charged_seconds": round(measurement.charged_seconds, 3),
        }
    row["seconds_to_target"] = round(crossed[1], 3) if crossed else None
    words = (measurement.error or "").strip().splitlines() if measurement else []
    row["error"] = words[-1] if words else None
    return row


def _maximizes(study: StudyRecord) -> bool:
    return GoalSection.model_validate(study.job["goal"]).maximize


def _spelled(configuration: dict[str, Any]) -> str:
    return " ".join(f"{axis}={value}" for axis, value in configuration.items())
