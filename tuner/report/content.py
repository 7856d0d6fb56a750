"""Content of a report: what HTML, Markdown and CSV are rendered from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.domain.recommendation import Alternative, Recommendation, TuningCost
from tuner.job import Job
from tuner.ledger import PredictedAgainstMeasured, ProbeRecord


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Everything a report is rendered from.

    Args:
        job: The job.
        job_path: Its file.
        recommendation: The answer.
        probes: Every probe of the study, oldest first.
        landscape: The prediction of the best learning rate and knobs for each number of nodes, batch size
            and strategy.
        checked: Predictions whose run reached the target.
        fit_summaries: Model name to sentences on what it learnt.
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
        study_name: Its study.
        created_at: Seconds since the epoch.
        goal: The goal in words.
        reason: Why nothing is recommended.
        changes: What to change.
        warnings: Sentences on what was noticed about the script.
        stop_reason: Why the search ended.
        probes: Every probe of the study, oldest first.
        tuning: What the search spent.
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
