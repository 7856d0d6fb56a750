"""Content of a report; every renderer reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.domain.recommendation import Alternative, Recommendation
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
