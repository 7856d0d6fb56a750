"""Progress of a submitted job, as the worker that runs it stores it in the database (JSON)."""

from __future__ import annotations

from typing import Any, TypedDict


class Interval(TypedDict):
    """A quantity with its central 90% interval; values are None where they are not known."""

    low: float | None
    median: float | None
    high: float | None


class SliceProgress(TypedDict):
    """A slice (an uninterrupted part of a training) that is running.

    Fields:
        probe: Number of the probe that the slice belongs to.
        configuration: The configuration, as in `recommendation.json`.
        purpose: `timing`, `statistics` or `training`.
        started_at: Start of the slice, seconds since the Unix epoch.
        step, samples, training_seconds: How far the run has come since its beginning.
        score: The newest value of the metric in this slice; None before the first one.
        waiting: Why the slice waits for nodes; empty once it runs.
    """

    probe: int
    configuration: dict[str, Any]
    purpose: str
    started_at: float
    step: int
    samples: int
    training_seconds: float
    score: float | None
    waiting: str


class Incumbent(TypedDict):
    """The configuration that would be recommended now. There is none before a score was measured.

    Fields:
        configuration: The configuration, as in `recommendation.json`.
        seconds: Predicted training seconds from start to target, if the target is reached.
        dollars: Price of these seconds.
        probability_of_reaching: Predicted probability that the configuration reaches the target.
        is_measured: Whether a run of it has reached the target, so that `seconds` are measured.
    """

    configuration: dict[str, Any]
    seconds: Interval
    dollars: Interval
    probability_of_reaching: float
    is_measured: bool


class BudgetPart(TypedDict):
    """One limit of the budget.

    Fields:
        name: `time` (seconds), `dollars`, `node_hours` or `probes`.
        used: What was used so far, with running slices.
        limit: The limit.
        share: `used` divided by `limit`.
    """

    name: str
    used: float
    limit: float
    share: float


class Finish(TypedDict):
    """Predicted end of the search, seconds since the Unix epoch; values are None where nothing is known.

    Where the search ends with the first run that reaches the target, the interval is that of the seconds
    which the incumbent still needs: the quantiles of its predicted training seconds without those trained so
    far, times the measured ratio of charged to training seconds, plus the start-up of a slice. The budget
    cuts the interval off. The median is the end of the budget where the probability of reaching is below one
    half. Where the search trains many configurations, only the end of the budget is known.
    """

    low: float | None
    median: float | None
    high: float | None


class JobProgress(TypedDict, total=False):
    """Progress of a submitted job. Keys are absent before their values are known.

    Fields:
        updated_at: Time of this progress, seconds since the Unix epoch.
        attempt: Number of the attempt that reported it.
        text: What happened last, one line.
        num_probes: Number of probes so far.
        slices: The slices that are running.
        incumbent: The configuration that would be recommended now; absent before a score was measured.
        budget: The limits of the budget, and how much of each was used.
        finish: Predicted end of the search; absent before a score was measured, and for recorded jobs, whose
            seconds are not real.
    """

    updated_at: float
    attempt: int
    text: str
    num_probes: int
    slices: list[SliceProgress]
    incumbent: Incumbent
    budget: list[BudgetPart]
    finish: Finish
