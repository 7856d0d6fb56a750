"""Measurements of probes: learning curve, step times, gradient noise, memory, charges and outcome."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np

from search_spaces import Configuration, traits_of


class Purpose(StrEnum):
    """The purpose of a probe. Costs are summed for each purpose."""

    TIMING = "timing"
    """Some tens of steps, to measure seconds per step with this number of nodes and samples per rank."""
    STATISTICS = "statistics"
    """A short training, to measure metric and gradient noise by the number of samples processed."""
    TRAINING = "training"
    """Training to the target, to get the user's model or to verify a recommendation."""


class Outcome(StrEnum):
    """The state of a probe. No state is reported by an exception, not even a failure."""

    RUNNING = "running"
    """A slice is in flight."""
    PAUSED = "paused"
    """The slice is done and the probe can resume from its checkpoint."""
    REACHED = "reached"
    """The metric crossed the target."""
    STOPPED = "stopped"
    """The search ended the probe on purpose, or it has processed all its samples."""
    DIVERGED = "diverged"
    """The loss or the parameters stopped being finite."""
    OUT_OF_MEMORY = "out_of_memory"
    """A rank could not allocate what it needed."""
    TIMED_OUT = "timed_out"
    """No progress within the time limit: a rank hung."""
    FAILED = "failed"
    """A rank raised an exception or died; `Measurement.error` has every rank's message."""

    @property
    def can_continue(self) -> bool:
        """Whether another slice may follow."""
        return self in (Outcome.RUNNING, Outcome.PAUSED)

    @property
    def is_fault(self) -> bool:
        """Whether the probe hung or failed, so that its outcome says nothing about the training."""
        return self in (Outcome.TIMED_OUT, Outcome.FAILED)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One evaluation of the model on the validation data.

    Args:
        training_seconds: Training time since the run began, in seconds, as if it was never interrupted:
            evaluation, start-up and the slow steps after a pause are left out.
        step: Number of optimizer steps done.
        samples: Number of training samples processed by all ranks in total.
        value: The metric on the validation data.
    """

    training_seconds: float
    step: int
    samples: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Distribution of a time over the steps of one slice, without its slow first steps.

    Args:
        median: Median, seconds.
        p10: Tenth percentile, seconds.
        p90: Ninetieth percentile, seconds.
        mean: Mean, seconds.
        std: Standard deviation, seconds.
        count: Number of steps.
    """

    median: float
    p10: float
    p90: float
    mean: float
    std: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Returns the distribution of some values, in seconds; there must be at least one."""
        values = np.asarray(seconds, dtype=float)
        p10, median, p90 = (float(q) for q in np.quantile(values, [0.1, 0.5, 0.9]))
        return cls(
            median=median,
            p10=p10,
            p90=p90,
            mean=float(values.mean()),
            std=float(values.std()),
            count=len(values),
        )


@dataclass(frozen=True, kw_only=True)
class RankTiming:
    """Step time of one rank and its parts. In each single step, the parts add up to the whole step.

    Args:
        rank: Index of the rank.
        batch_size: Samples per step of this rank.
        compute: Time of forward pass, backward pass and optimizer.
        sync: Time of waiting for other ranks, as far as it does not overlap with compute.
        input: Time of waiting for data.
        step: Time of the whole step.
        count: Number of similar ranks that this entry stands for, this rank included.
    """

    rank: int
    batch_size: int
    compute: Spread
    sync: Spread
    input: Spread
    step: Spread
    count: int = 1

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RankTiming:
        """Restores a timing from the dictionary that `dataclasses.asdict` made of it."""
        parts = {name: Spread(**data[name]) for name in ("compute", "sync", "input", "step")}
        return cls(rank=data["rank"], batch_size=data["batch_size"], count=data.get("count", 1), **parts)


@dataclass(frozen=True, kw_only=True)
class NoiseStatistic:
    """Gradient noise at one moment of the training (McCandlish et al. 2018, appendix A).

    Args:
        samples: Number of samples processed when the noise was measured.
        noise: Unbiased estimate of S, the trace of the covariance of one sample's gradient.
        squared_gradient: Unbiased estimate of |G|^2; may be negative, so average before dividing.
        num_estimates: Number of gradient pairs that the estimates average.
    """

    samples: int
    noise: float
    squared_gradient: float
    num_estimates: int


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Everything that a probe, or one slice of it, measured.

    A probe runs in slices; each slice continues the training from the checkpoint of the slice before it.

    - Curve points, `step`, `samples` and `training_seconds` count from the beginning of the probe's training.
    - All other seconds and charges are those of the slice. `merged` adds them up.

    Args:
        configuration: The configuration that was trained.
        purpose: Purpose of the probe.
        outcome: State of the probe after this slice.
        curve: Evaluations, in order of samples processed.
        ranks: Step times by rank; empty if no steps were timed yet.
        noise: Gradient noise at several moments of the training.
        step: Number of optimizer steps done since the training began.
        samples: Number of samples processed since the training began.
        training_seconds: Training time since the training began, in seconds.
        scoring_seconds: Seconds of evaluations; charged, but no training time.
        startup_seconds: Seconds from submission to the first step; charged, but no training time.
        repeated_seconds: Seconds in which the slice repeated training of earlier slices, because the script
            cannot resume; charged, but no training time.
        restart_seconds: Only if the slice started the training over: its training time when it passed the
            last point of the earlier slices. Its curve, training time and samples then count from the new
            start, and replace those of the earlier slices. None if the slice continued the training.
        charged_seconds: Wall-clock seconds in which the nodes were in use.
        charged_dollars: Price of the nodes for `charged_seconds`.
        peak_bytes: Largest memory of any rank, in bytes; 0 if unknown.
        parameter_bytes: Size of the model's parameters, in bytes; 0 if unknown.
        oversubscribed: Whether ranks had to share CPU cores.
        error: Error message with every rank's own message. None if nothing failed; a slice that was
            interrupted from outside has a message, too.
        checkpoint: Path of the newest checkpoint, from which the probe can resume.
        lost_ranks: Ranks that died or stopped responding while the other ranks continued, which happens only
            with strategies without a barrier.
        staleness_steps: Mean age of the parameters that a rank mixed into its own, in steps: how many steps
            the rank had made since they were published. With a server: how many exchanges other ranks made
            between two exchanges of one rank. None if no parameters were mixed in.
        bytes_per_step: Bytes of gradients or parameters that a rank sends or fetches per step, on average
            over ranks and steps; None if no step was made.
        emulated: Whether one process trained for all ranks under a virtual clock, which then gives the
            training seconds.
        waiting: Reason why a RUNNING slice has not started yet, as the scheduler states it; empty once the
            slice runs.
        shared_seconds: Part of `charged_seconds` in which another slice ran at the same time and counts as
            elapsed time. Elapsed time is the sum of `charged_seconds` less `shared_seconds`.
        remarks: Sentences about the user's script, such as what was recognised in its output, what was
            ignored and why, and what contradicts the job. They are shown with the recommendation.
        reports_steps: Whether the script reports progress between evaluations, so that steps can be timed
            without an evaluation.
        resume_refused: Whether the script was asked to resume and started its training over instead. Further
            slices of the job then start over as well.
        infrastructure_fault: Whether nodes or ports caused the fault, not the configuration, so that another
            attempt may succeed.
        job_fault: Whether the fault makes every probe of the job worthless, such as files that runs share.
        counts_startup: Whether training seconds include start-up, because the script's only report does not
            separate the two.
    """

    configuration: Configuration
    purpose: Purpose
    outcome: Outcome
    curve: tuple[CurvePoint, ...] = ()
    ranks: tuple[RankTiming, ...] = ()
    noise: tuple[NoiseStatistic, ...] = ()
    step: int = 0
    samples: int = 0
    training_seconds: float = 0.0
    scoring_seconds: float = 0.0
    startup_seconds: float = 0.0
    repeated_seconds: float = 0.0
    restart_seconds: float | None = None
    charged_seconds: float = 0.0
    charged_dollars: float = 0.0
    peak_bytes: int = 0
    parameter_bytes: int = 0
    oversubscribed: bool = False
    error: str | None = None
    checkpoint: str | None = None
    lost_ranks: tuple[int, ...] = ()
    staleness_steps: float | None = None
    bytes_per_step: float | None = None
    emulated: bool = False
    waiting: str = ""
    shared_seconds: float = 0.0
    remarks: tuple[str, ...] = ()
    reports_steps: bool = True
    resume_refused: bool = False
    infrastructure_fault: bool = False
    job_fault: bool = False
    counts_startup: bool = False

    @cached_property
    def batch_seconds(self) -> float | None:
        """Seconds in which all ranks together process one global batch, or None if no step was timed.

        With a barrier: the slowest rank's mean step time. Without a barrier: B / sum_r(b_r / step_r), where
        b_r is the number of samples per step of rank r, step_r its mean step time and B the global batch
        size.
        """
        if not self.ranks:
            return None
        if traits_of(self.configuration.strategy).barrier:
            return max(rank.step.mean for rank in self.ranks)
        rate = sum(rank.count * rank.batch_size / max(rank.step.mean, 1e-9) for rank in self.ranks)
        return self.configuration.batch_size / rate

    @cached_property
    def trained_curve(self) -> tuple[CurvePoint, ...]:
        """The curve without the evaluation of the untrained model."""
        return tuple(point for point in self.curve if point.samples > 0)

    @cached_property
    def finite_curve(self) -> tuple[CurvePoint, ...]:
        """`trained_curve` up to the first value that is not finite."""
        return tuple(itertools.takewhile(lambda point: math.isfinite(point.value), self.trained_curve))

    @cached_property
    def step_seconds(self) -> Spread | None:
        """Step time of the rank with the largest median, or None if no step was timed."""
        if not self.ranks:
            return None
        return max((rank.step for rank in self.ranks), key=lambda spread: spread.median)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON; `from_dict` restores the measurement from them."""
        return {
            **asdict(replace(self, configuration=Configuration())),
            "configuration": self.configuration.as_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """Restores a measurement from the result of `to_dict`."""
        return cls(
            **{
                **data,
                "configuration": Configuration(data["configuration"]),
                "purpose": Purpose(data["purpose"]),
                "outcome": Outcome(data["outcome"]),
                "curve": tuple(CurvePoint(**point) for point in data["curve"]),
                "noise": tuple(NoiseStatistic(**statistic) for statistic in data["noise"]),
                "ranks": tuple(RankTiming.from_dict(rank) for rank in data["ranks"]),
                "lost_ranks": tuple(data.get("lost_ranks", ())),
                "remarks": tuple(data.get("remarks", ())),
            }
        )


def merged(slices: Sequence[Measurement]) -> Measurement:
    """Merges the slices of one probe into one measurement.

    - Curve: the points of all slices, from the newest slice that started the training over
      (`restart_seconds`). Of two points with the same number of samples, the later slice's counts.
    - Gradient noise, remarks and lost ranks: those of all slices.
    - Seconds of evaluation, start-up and repeated training, charges and shared seconds: the sums.
    - Memory: the largest.
    - Step times, staleness and bytes per step: those of the slice that timed most steps.
    - Everything else: that of the last slice.

    Args:
        slices: Measurement of each slice, in order of time.

    Raises:
        ValueError: There is no slice, or the slices have different configurations.
    """
    if not slices:
        raise ValueError("a probe without slices has no measurement")
    if len({measurement.configuration for measurement in slices}) > 1:
        raise ValueError("slices of different configurations cannot be merged")
    last = slices[-1]
    timed = max(slices, key=lambda m: m.step_seconds.count if m.step_seconds else 0)
    # The slice after one that ended early may score at the same number of samples again.
    whole = max((i for i, m in enumerate(slices) if m.restart_seconds is not None), default=0)
    by_samples = {point.samples: point for m in slices[whole:] for point in m.curve}
    checkpoints = [m.checkpoint for m in slices if m.checkpoint]
    return replace(
        last,
        curve=tuple(sorted(by_samples.values(), key=lambda point: point.samples)),
        noise=tuple(statistic for m in slices for statistic in m.noise),
        ranks=timed.ranks,
        scoring_seconds=sum(m.scoring_seconds for m in slices),
        startup_seconds=sum(m.startup_seconds for m in slices),
        repeated_seconds=sum(m.repeated_seconds for m in slices),
        restart_seconds=None,
        charged_seconds=sum(m.charged_seconds for m in slices),
        charged_dollars=sum(m.charged_dollars for m in slices),
        shared_seconds=sum(m.shared_seconds for m in slices),
        peak_bytes=max(m.peak_bytes for m in slices),
        parameter_bytes=max(m.parameter_bytes for m in slices),
        oversubscribed=any(m.oversubscribed for m in slices),
        checkpoint=checkpoints[-1] if checkpoints else None,
        lost_ranks=tuple(sorted({rank for m in slices for rank in m.lost_ranks})),
        reports_steps=any(m.reports_steps for m in slices),
        remarks=tuple(dict.fromkeys(remark for m in slices for remark in m.remarks)),
        resume_refused=any(m.resume_refused for m in slices),
        staleness_steps=timed.staleness_steps,
        bytes_per_step=timed.bytes_per_step,
    )


class TargetCount:
    """Decides when the target is reached: several evaluations in a row have to be at or past it.

    Args:
        target: Target value of the metric.
        maximize: Whether larger values are better.
        consecutive: How many evaluations in a row must be at or past the target, at least 1.
    """

    def __init__(self, target: float, *, maximize: bool, consecutive: int = 1) -> None:
        self._target, self._sign, self._consecutive = target, 1.0 if maximize else -1.0, consecutive
        self._in_a_row = 0

    def is_past(self, value: float) -> bool:
        """Whether one value of the metric is at or past the target."""
        return math.isfinite(value) and self._sign * (value - self._target) >= 0

    def is_reached(self, value: float) -> bool:
        """Adds the metric of the next evaluation; returns whether the target is reached now."""
        self._in_a_row = self._in_a_row + 1 if self.is_past(value) else 0
        return self._in_a_row >= self._consecutive


def crossing(
    curve: Sequence[CurvePoint], target: float, *, maximize: bool, consecutive: int = 1
) -> tuple[float, float] | None:
    """Finds where a learning curve first reaches the target.

    Args:
        curve: Evaluations in order of samples processed.
        target: Target value of the metric.
        maximize: Whether larger values are better.
        consecutive: How many evaluations in a row must be at or past the target; the crossing is at the
            first.

    Returns:
        Samples processed and training seconds at the crossing, interpolated linearly between the evaluation
        at which the target is reached and the evaluation before it. If the first evaluation of the curve is
        at the target, its own numbers. None if the curve does not reach the target.
    """
    count = TargetCount(target, maximize=maximize, consecutive=consecutive)
    arrived = next((i for i, point in enumerate(curve) if count.is_reached(point.value)), None)
    if arrived is None:
        return None
    first = arrived - consecutive + 1
    point = curve[first]
    if first == 0 or point.value == curve[first - 1].value:
        return float(point.samples), point.training_seconds
    before = curve[first - 1]
    share = (target - before.value) / (point.value - before.value)
    return (
        before.samples + share * (point.samples - before.samples),
        before.training_seconds + share * (point.training_seconds - before.training_seconds),
    )
