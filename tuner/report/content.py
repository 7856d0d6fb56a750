"""Content of a report: what HTML, Markdown and CSV are rendered from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.domain.ledger import PredictedAgainstMeasured, ProbeRecord
from tuner.domain.recommendation import Alternative, Recommendation, TuningCost
from tuner.job import Job


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Everything a report is rendered from.

    Args:
        job: The job.
        job_path: Its file.
        recommendation: The recommendation.
        probes: Every probe of the study, oldest first.
        landscape: Predictions of the best learning rate and knobs for each number of nodes, batch size and
            strategy.
        checked: Predictions of runs that reached the target later.
        fit_summaries: Sentences on what each model learned, by name of the model.
    """

    job: Job
    job_path: Path
    recommendation: Recommendation
    probes: Sequence[ProbeRecord]
    landscape: Sequence[Alternative]
    checked: Sequence[PredictedAgainstMeasured]
    fit_summaries: dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class UnansweredContent:
    """Everything that the report of a search without a recommendation shows.

    Args:
        job: The job.
        study_name: Name of its study.
        created_at: When the report was made, in seconds since the Unix epoch.
        goal: The goal in words.
        reason: Why nothing is recommended.
        changes: What to change.
        warnings: Sentences on problems of the script.
        stop_reason: Why the search ended.
        probes: Every probe of the study, oldest first.
        tuning: Time and price of the search.
    """

    job: Job
    study_name: str
    created_at: float
    goal: str
    reason: str
    changes: Sequence[str]
    warnings: Sequence[str]
    stop_reason: str
    probes: Sequence[ProbeRecord]
    tuning: TuningCost
