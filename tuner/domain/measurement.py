"""What a trial training measured: learning curve, step times, gradient noise, memory, cost and outcome."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np

from search_spaces import Configuration, traits_of


class Purpose(StrEnum):
    """Why a probe (a trial training) runs. Costs are summed for each purpose."""

    TIMING = "timing"
    """Some tens of steps, to measure seconds per step with the configuration's nodes and batch size."""
    STATISTICS = "statistics"
    """A short training, to measure metric and gradient noise as functions of the samples processed."""
    TRAINING = "training"
    """Training to the target, to get the user's model or to verify a recommendation."""


class Outcome(StrEnum):
    """The state of a probe (a trial training). A failure is a state, too, and raises no exception."""

    RUNNING = "running"
    """A slice of the probe is running."""
    PAUSED = "paused"
    """The last slice has ended, and the probe can resume from its checkpoint."""
    REACHED = "reached"
    """The metric crossed the target."""
    STOPPED = "stopped"
    """The search ended the probe on purpose, or its script, schedule or recording ended."""
    DIVERGED = "diverged"
    """The loss or a parameter of the model became infinite or NaN."""
    OUT_OF_MEMORY = "out_of_memory"
    """A rank could not allocate memory."""
    TIMED_OUT = "timed_out"
    """The probe made no progress within a time limit, because a rank hung."""
    FAILED = "failed"
    """A rank raised an exception or died; `Measurement.error` contains the message of every rank."""

    @property
    def can_continue(self) -> bool:
        """Whether the probe (trial training) may continue with another slice."""
        return self in (Outcome.RUNNING, Outcome.PAUSED)

    @property
    def is_fault(self) -> bool:
        """Whether the probe hung or crashed, so its outcome says nothing about the configuration."""
        return self in (Outcome.TIMED_OUT, Outcome.FAILED)


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """One evaluation of the model on the validation data.

    Args:
        training_seconds: Training time since the training began, in seconds, without evaluation, start-up and
            the slow steps after a pause, so it is the time of an uninterrupted training.
        step: Number of optimizer steps done.
        samples: Number of training samples processed by all ranks in total.
        value: The metric on the validation data.
    """

    training_seconds: float
    step: int
    samples: int
    value: float

    @staticmethod
    def stored(training_seconds: float, step: int, samples: int, value: float) -> CurvePoint:
        """Creates a point that was read from a database, in less than half the time of the constructor.

        Measured for 200,000 points: 0.07 s of CPU time instead of 0.15 s. The constructor of a frozen class
        looks up the slot of each attribute by its name.
        """
        point = object.__new__(CurvePoint)
        _set_seconds(point, training_seconds)
        _set_step(point, step)
        _set_samples(point, samples)
        _set_value(point, value)
        return point


_set_seconds, _set_step, _set_samples, _set_value = (
    getattr(CurvePoint, field.name).__set__ for field in fields(CurvePoint)
)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Distribution of a duration over the steps of one slice (an uninterrupted part of a training).

    The slow first steps of the slice are left out.

    Args:
        median: Median, in seconds.
        p10: Tenth percentile, in seconds.
        p90: Ninetieth percentile, in seconds.
        mean: Mean, in seconds.
        std: Standard deviation, in seconds.
        count: Number of steps that were timed.
    """

    median: float
    p10: float
    p90: float
    mean: float
    std: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Computes the distribution of measured durations.

        Args:
            seconds: The duration in each step, in seconds; at least one.
        """
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
    """Times of the steps of one rank, and of the parts of a step. In each step, the parts add up to the step.

    Args:
        rank: Index of the rank.
        batch_size: Samples per step of this rank.
        compute: Time of forward pass, backward pass and optimizer.
        sync: Time in which the rank waits for other ranks and does not compute.
        input: Time in which the rank waits for training data.
        step: Time of the whole step.
        count: Number of ranks that this object represents: this rank, and other ranks with similar times,
            which are not stored.
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
        """Restores an object of this class from the dictionary that `dataclasses.asdict` made of it."""
        parts = {name: Spread(**data[name]) for name in ("compute", "sync", "input", "step")}
        return cls(rank=data["rank"], batch_size=data["batch_size"], count=data.get("count", 1), **parts)


@dataclass(frozen=True, kw_only=True)
class NoiseStatistic:
    """Gradient noise at one moment of a training (McCandlish et al. 2018, appendix A).

    Args:
        samples: Number of samples processed when the noise was measured.
        noise: Unbiased estimate of S, the trace of the covariance matrix of the gradient of a single sample.
        squared_gradient: Unbiased estimate of |G|^2, the squared norm of the mean gradient. It may be
            negative, so the gradient noise scale S / |G|^2 must be computed from averages of several
            estimates.
        num_estimates: Number of estimates, each from the gradients of two batch sizes, whose means `noise`
            and `squared_gradient` are.
    """

    samples: int
    noise: float
    squared_gradient: float
    num_estimates: int


class _CachedProperties:
    """Base class with a `__dict__`, in which a class with slots stores the values of cached properties."""


# Without slots, a measurement needs 1.3 kB more: Python shares the keys of at most 30 attributes.
@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement(_CachedProperties):
    """Everything that one slice of a probe, or all its slices together, measured.

    A probe is a trial training. It runs in slices, between which it is paused. Each slice continues the
    training from the checkpoint of the previous slice.

    - Curve points, `step`, `samples` and `training_seconds` count from the beginning of the probe's training.
    - All other seconds, and the charges, are those of one slice. `merged` adds the values of all slices.

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
        scoring_seconds: Seconds of evaluations. They are charged, but are not part of the training time.
        startup_seconds: Seconds from the submission of the slice to its first step. They are charged, but are
            not part of the training time.
        repeated_seconds: Seconds in which the slice repeated the training of earlier slices, because the
            script cannot resume. They are charged, but are not part of the training time.
        restart_seconds: None if the slice continued the training. If the slice started the training again
            from the beginning: the training time at which it had repeated the earlier slices. In this case,
            the curve, training time and samples of the slice count from the new beginning, and replace those
            of the earlier slices.
        charged_seconds: Wall-clock seconds in which the nodes were in use.
        charged_dollars: Price of the nodes for `charged_seconds`.
        peak_bytes: Largest amount of memory that a rank used, in bytes; 0 if unknown.
        parameter_bytes: Size of the model's parameters, in bytes; 0 if unknown.
        oversubscribed: Whether ranks had to share CPU cores, which makes their step times longer.
        error: Error message with every rank's own message. None if nothing failed; a slice that was
            interrupted from outside has a message, too.
        checkpoint: Path of the newest checkpoint, from which the next slice resumes.
        lost_ranks: Ranks that died or stopped responding while the other ranks continued, which happens only
            with strategies without a barrier.
        staleness_steps: Mean age, in steps, of the parameters of another rank when a rank averages them with
            its own parameters: the number of steps that the rank has made since the other rank published
            them. With a parameter server: the number of exchanges of other ranks with the server between two
            exchanges of one rank. None if no parameters were averaged.
        bytes_per_step: Mean number of bytes of gradients or parameters that a rank sends or fetches per step;
            None if no step was made.
        emulated: Whether one process trained for all ranks under a virtual clock, which then gives the
            training seconds.
        waiting: Reason why a slice with the outcome RUNNING waits for nodes, in the words of the scheduler;
            empty once the slice runs.
        shared_seconds: Part of `charged_seconds` in which another slice ran too. This time is counted for the
            other slice, so the elapsed time of a search is the sum of `charged_seconds` minus
            `shared_seconds` over all slices.
        remarks: Sentences about the user's script, which are shown with the recommendation: parts of its
            output that were read or ignored, and contradictions between the script and the job file.
        reports_steps: Whether the script reports its step between evaluations. If so, a probe can time steps
            without waiting for an evaluation.
        resume_refused: Whether the script was told to resume, but started its training from the beginning. If
            so, further slices of the job start from the beginning too.
        infrastructure_fault: Whether nodes or ports, not the configuration, caused the failure. If so,
            another attempt may succeed.
        job_fault: Whether the failure affects every probe of the job, for example because all runs write to
            the same files.
        counts_startup: Whether training seconds include start-up. This is so if the script reported only
            once, because the end of its start-up is then unknown.
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
        """Seconds in which all ranks together process one global batch; None if no step was timed.

        If ranks wait for each other in each step, it is the slowest rank's mean step time. If not, it is B /
        sum_r(b_r / step_r), where b_r is the number of samples per step of rank r, step_r its mean step time
        and B the global batch size.
        """
        if not self.ranks:
            return None
        if traits_of(self.configuration.strategy).barrier:
            return max(rank.step.mean for rank in self.ranks)
        rate = sum(rank.count * rank.batch_size / max(rank.step.mean, 1e-9) for rank in self.ranks)
        return self.configuration.batch_size / rate

    @cached_property
    def trained_curve(self) -> tuple[CurvePoint, ...]:
        """The points of the learning curve (`curve`) without the evaluation of the untrained model."""
        if all(point.samples > 0 for point in self.curve):
            return self.curve
        return tuple(point for point in self.curve if point.samples > 0)

    @cached_property
    def finite_curve(self) -> tuple[CurvePoint, ...]:
        """The points of `trained_curve` that come before the first infinite or NaN value of the metric."""
        if len(self.finite_values) == len(self.trained_curve):
            return self.trained_curve
        return tuple(itertools.takewhile(lambda point: math.isfinite(point.value), self.trained_curve))

    @cached_property
    def finite_values(self) -> tuple[float, ...]:
        """All finite values of the metric in `trained_curve`, in order."""
        return tuple(point.value for point in self.trained_curve if math.isfinite(point.value))

    @cached_property
    def step_seconds(self) -> Spread | None:
        """Step times of the rank with the largest median step time; None if no step was timed."""
        if not self.ranks:
            return None
        return max((rank.step for rank in self.ranks), key=lambda spread: spread.median)

    def to_dict(self) -> dict[str, Any]:
        """Returns the measurement as a dictionary that can be written as JSON; `from_dict` restores it."""
        return {
            **asdict(replace(self, configuration=Configuration())),
            "configuration": self.configuration.as_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """Restores a measurement from a dictionary that `to_dict` made.

        Args:
            data: The dictionary. `curve` may contain `CurvePoint`s, and `configuration` may be a
                `Configuration`.
        """
        curve, configuration = data["curve"], data["configuration"]
        if not isinstance(configuration, Configuration):
            configuration = Configuration(configuration)
        if curve and not isinstance(curve[0], CurvePoint):
            curve = [CurvePoint(**point) for point in curve]
        return cls(
            **{
                **data,
                "configuration": configuration,
                "purpose": Purpose(data["purpose"]),
                "outcome": Outcome(data["outcome"]),
                "curve": tuple(curve),
                "noise": tuple(NoiseStatistic(**statistic) for statistic in data["noise"]),
                "ranks": tuple(RankTiming.from_dict(rank) for rank in data["ranks"]),
                "lost_ranks": tuple(data.get("lost_ranks", ())),
                "remarks": tuple(data.get("remarks", ())),
            }
        )


def merged(slices: Sequence[Measurement]) -> Measurement:
    """Combines the measurements of all slices of one probe (trial training) into one.

    - Curve: the points of the newest slice that started the training from the beginning (`restart_seconds`),
      and of all later slices. If two slices have a point at the same number of samples, that of the later
      slice is used.
    - Gradient noise, remarks and lost ranks: the values of all slices together.
    - Seconds of evaluation, start-up and repeated training, charges and shared seconds: the sum over the
      slices.
    - Memory: the largest value of a slice.
    - Step times, staleness and bytes per step: the values of the slice that timed the most steps.
    - Everything else: the value of the last slice.

    Args:
        slices: Measurement of each slice, in order of time.

    Raises:
        ValueError: There is no slice, or the slices have different configurations.
    """
    if not slices:
        raise ValueError("there is no measurement to merge: the probe has no slices")
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
        curve=tuple(by_samples[samples] for samples in sorted(by_samples)),
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
    """Decides when a training has reached its target.

    It has if enough consecutive evaluations are at the target or better.

    Args:
        target: Target value of the metric.
        maximize: Whether larger values are better.
        consecutive: Number of consecutive evaluations that must be at the target or better, at least 1.
    """

    def __init__(self, target: float, *, maximize: bool, consecutive: int = 1) -> None:
        self._target, self._sign, self._consecutive = target, 1.0 if maximize else -1.0, consecutive
        self._in_a_row = 0

    def is_past(self, value: float) -> bool:
        """Whether one value of the metric is at the target or better."""
        return math.isfinite(value) and self._sign * (value - self._target) >= 0

    def is_reached(self, value: float) -> bool:
        """Takes the metric value of the next evaluation; returns whether the target is reached now."""
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
        consecutive: Number of consecutive evaluations that must be at the target or better. The target counts
            as reached at the first of these evaluations.

    Returns:
        Two numbers: samples processed and training seconds at which the curve reaches the target. They are
        interpolated linearly between the evaluation at which the target is reached and the evaluation before
        it. If the first evaluation of the curve is already at the target or better, they are those of this
        evaluation. None if the curve does not reach the target.
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
