"""Content of a report: the data that the HTML, Markdown, CSV and JSON files show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.domain.ledger import PredictedAgainstMeasured, ProbeRecord
from tuner.domain.measurement import CurvePoint
from tuner.domain.recommendation import Alternative, Recommendation, TuningCost
from tuner.job import Job


@dataclass(frozen=True, kw_only=True)
class AnalysisContent:
    """The data of the sections that the report and the page of a job of the service share.

    Args:
        recommendation: The recommended configuration with its analysis.
        metric: Name of the metric.
        target: Target of the metric.
        curves: Maps the number of each probe to its learning curve.
        checked: Predictions of the time to target, each with the time that was measured later.
        landscape: Further predictions, which the chart of time and cost shows as small points.
    """

    recommendation: Recommendation
    metric: str
    target: float
    curves: Mapping[int, Sequence[CurvePoint]]
    checked: Sequence[PredictedAgainstMeasured]
    landscape: Sequence[Alternative] = ()


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """The data that the report of a recommendation shows.

    Args:
        job: The tuned job.
        job_path: Path of the job file.
        recommendation: The recommended configuration with its evidence.
        probes: All probes of the study, oldest first.
        landscape: Predictions, one for each combination of number of nodes, batch size and strategy, each
            with the best learning rate and the best knobs (parameters of the strategy).
        checked: Predictions of the time to target, each with the time that was measured later.
        fit_summaries: Maps the name of each model to sentences on its fitted parameters.
    """

    job: Job
    job_path: Path
    recommendation: Recommendation
    probes: Sequence[ProbeRecord]
    landscape: Sequence[Alternative]
    checked: Sequence[PredictedAgainstMeasured]
    fit_summaries: dict[str, list[str]]

    @property
    def analysis(self) -> AnalysisContent:
        """The data of the sections that the page of a job of the service shows, too."""
        measured = ((probe.probe_id, probe.measurement) for probe in self.probes)
        return AnalysisContent(
            recommendation=self.recommendation,
            metric=self.job.goal.metric,
            target=self.job.goal.target,
            curves={number: seen.curve for number, seen in measured if seen is not None},
            checked=self.checked,
            landscape=self.landscape,
        )


@dataclass(frozen=True, kw_only=True)
class UnansweredContent:
    """The data that the report of a search without a recommendation shows.

    Args:
        job: The tuned job.
        study_name: Name of the job's study in the database.
        created_at: Time at which the report was made, in seconds since the Unix epoch.
        goal: The job's goal in words, such as `accuracy >= 0.9, soonest`.
        reason: Why no configuration is recommended.
        changes: Proposed changes of the job or script, one sentence each.
        warnings: Problems of the script, one sentence each.
        stop_reason: Why the search ended.
        probes: All probes of the study, oldest first.
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
