"""What a probe measured: curve, step times by rank and part, gradient noise, memory, charges, outcome."""

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
    """Why a probe runs; purposes are priced and stored separately."""

    TIMING = "timing"
    """Tens of steps, to measure seconds per step at these nodes and this batch per rank."""
    STATISTICS = "statistics"
    """A short training, for the curve by samples and the gradient's noise."""
    TRAINING = "training"
    """Training to the target: the run that becomes the user's model, or verifies a recommendation."""


class Outcome(StrEnum):
    """The state of a probe; each of these is an expected end, none an exception."""

    RUNNING = "running"
    """A slice is in flight."""
    PAUSED = "paused"
    """The slice is done and the probe can resume from its checkpoint."""
    REACHED = "reached"
    """The metric crossed the target."""
    STOPPED = "stopped"
    """Ended on purpose: the search gave it up, or its samples are used up."""
    DIVERGED = "diverged"
    """The loss or the parameters stopped being finite."""
    OUT_OF_MEMORY = "out_of_memory"
    """A rank could not allocate what it needed."""
    TIMED_OUT = "timed_out"
    """No progress within the time limit: a rank hung."""
    FAILED = "failed"
    """A rank raised or died; `error` has every rank's own message."""

    @property
    def can_continue(self) -> bool:
        """Whether another slice may follow."""
        return self in (Outcome.RUNNING, Outcome.PAUSED)

    @property
    def is_fault(self) -> bool:
        """Whether the probe ended by a fault rather than by the training itself."""
        return self in (Outcome.TIMED_OUT, Outcome.FAILED)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One evaluation.

    Args:
        training_seconds: Training time since the run began, as if never interrupted: without evaluation,
            start-up, and warm-up after a pause.
        step: Optimizer steps done.
        samples: Samples seen by all ranks in total.
        value: The metric on the validation data.
    """

    training_seconds: float
    step: int
    samples: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A median with its spread, over the steps of one slice, warm-up left out.

    Args:
        median: Seconds.
        p10: Tenth percentile, seconds.
        p90: Ninetieth percentile, seconds.
        mean: Seconds.
        std: Standard deviation, seconds.
        count: Steps that went in.
    """

    median: float
    p10: float
    p90: float
    mean: float
    std: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """The spread of some values, at least one."""
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
    """How one rank's step time divides; the parts add up to `step` except for rounding of medians.

    Args:
        rank: The rank.
        batch_size: Samples of a batch that fall to this rank.
        compute: Forward, backward and optimizer.
        sync: Waiting for other ranks that compute did not hide.
        input: Waiting for data.
        step: The whole step.
        count: Ranks that are alike and that this one stands for.
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
        """The timing `dataclasses.asdict` was made from."""
        parts = {name: Spread(**data[name]) for name in ("compute", "sync", "input", "step")}
        return cls(rank=data["rank"], batch_size=data["batch_size"], count=data.get("count", 1), **parts)


@dataclass(frozen=True, kw_only=True)
class NoiseStatistic:
    """Gradient noise at one place of the run (McCandlish et al. 2018, appendix A).

    Args:
        samples: Samples seen when it was measured.
        noise: Unbiased estimate of S, the trace of the covariance of one sample's gradient.
        squared_gradient: Unbiased estimate of |G|^2; may be negative, so average before dividing.
        num_estimates: How many pairs of gradients went in.
    """

    samples: int
    noise: float
    squared_gradient: float
    num_estimates: int


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Everything that a probe, or one slice of it, measured.

    Curves carry cumulative seconds, steps and samples, so that the slices of a probe line up;
    the scalar seconds and charges are those of the slice alone until `merged`.

    Args:
        configuration: What was run.
        purpose: Why it was run.
        outcome: Its state.
        curve: Evaluations, in order of samples.
        ranks: Step times by rank; empty until steps were timed.
        noise: Gradient noise along the run.
        step: Optimizer steps done since the run began.
        samples: Samples seen since the run began.
        training_seconds: Training clock since the run began.
        scoring_seconds: Time of evaluations: charged, not training.
        startup_seconds: From submission to the first step: charged, not training.
        repeated_seconds: Training that an earlier slice had done already, if a run cannot resume:
            charged, not training.
        restart_seconds: Training clock at which a slice that started its run over passed the point up to
            which the run was known. Curve, clock and samples are then those of its whole pass, and replace
            those of earlier slices. None if the slice continues their curve.
        charged_seconds: Wall-clock seconds the nodes were in use.
        charged_dollars: Their price.
        peak_bytes: Largest memory of any rank; 0 where unknown.
        parameter_bytes: Bytes of the model's parameters; 0 where unknown.
        oversubscribed: Whether ranks had to share cores.
        error: What went wrong, with every rank's message; None unless the outcome is a fault, or it was
            stopped from outside, as by an interrupt of the search.
        checkpoint: Path of the newest checkpoint, from which the probe can resume.
        lost_ranks: Ranks that died or fell silent while the others continued, which only strategies
            without a barrier do.
        staleness_steps: Mean age of what was mixed in, in steps: how far the receiver had gone since it was
            published; for a server, exchanges of other ranks between two of one rank. None if nothing
            was.
        bytes_per_step: Bytes of gradients or parameters that a rank put on the network, or fetched, in a
            step of its own, on average over ranks and steps; None where no step was made.
        emulated: Whether one process trained for all ranks, so that training seconds are those of a virtual
            clock.
        waiting: What a slice that is RUNNING still waits for, in the backend's words; empty once it runs.
        shared_seconds: Charged seconds in which another slice was in flight that already counts them:
            charged seconds less these are elapsed time.
        remarks: Sentences on what was noticed about the user's script: what was recognised, or ignored and
            why, or contradicts the job. They are shown with the answer. While a slice runs: what a
            user should know before it ends.
        reports_steps: Whether progress was reported between scores, so that steps can be timed without one.
        resume_refused: Whether the script cannot resume, as was seen when it was asked to: its run started
            anew, and further slices of the job have to.
        infrastructure_fault: Whether a fault was that of nodes or ports, and not of the configuration, so
            that the same may succeed later.
        job_fault: Whether a fault makes every probe of the job worthless, such as a state that runs share.
        counts_startup: Whether training seconds include start-up: a single report cannot tell them apart.
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

        With a barrier, the slowest rank's mean step; without one B / sum_r(b_r / step_r), b_r being a rank's
        samples a step and B those of all ranks.
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
        """Step seconds of the slowest rank, or None if no step was timed."""
        if not self.ranks:
            return None
        return max((rank.step for rank in self.ranks), key=lambda spread: spread.median)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` gives the measurement back."""
        return {
            **asdict(replace(self, configuration=Configuration())),
            "configuration": self.configuration.as_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """The measurement `to_dict` was made from."""
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
    """One measurement from the slices of one probe, in order.

    Curves are joined by samples, the later of two scores counting, from the newest slice that trained the
    whole run again (`restart_seconds`); noise is joined; evaluation, start-up, charges and their shared
    seconds are summed; step times are those of the slice that timed most steps; everything else is the last
    slice's.

    Raises:
        ValueError: There is no slice, or the slices are not of one configuration.
    """
    if not slices:
        raise ValueError("a probe without slices has no measurement")
    if len({measurement.configuration for measurement in slices}) > 1:
        raise ValueError("slices of different configurations cannot be merged")
    last = slices[-1]
    timed = max(slices, key=lambda m: m.step_seconds.count if m.step_seconds else 0)
    # A slice that was ended early may show scores that the next one passes again.
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
    """Counts scores past the target in a row, so that a single lucky one does not count as reached.

    Args:
        target: The value that counts as reached.
        maximize: Whether larger values are better.
        consecutive: Scores in a row that must be past it, at least 1.
    """

    def __init__(self, target: float, *, maximize: bool, consecutive: int = 1) -> None:
        self._target, self._sign, self._consecutive = target, 1.0 if maximize else -1.0, consecutive
        self._in_a_row = 0

    def is_past(self, value: float) -> bool:
        """Whether a single score is the target or beyond."""
        return math.isfinite(value) and self._sign * (value - self._target) >= 0

    def is_reached(self, value: float) -> bool:
        """Takes the next score; whether the target counts as reached with it."""
        self._in_a_row = self._in_a_row + 1 if self.is_past(value) else 0
        return self._in_a_row >= self._consecutive


def crossing(
    curve: Sequence[CurvePoint], target: float, *, maximize: bool, consecutive: int = 1
) -> tuple[float, float] | None:
    """Where a curve first reaches the target.

    Args:
        curve: Evaluations in order of samples.
        target: The value that counts as reached.
        maximize: Whether larger values are better.
        consecutive: Evaluations in a row that must be past the target; the first of them is the crossing.

    Returns:
        Samples and training seconds, linear between the two evaluations around the crossing; a first
        evaluation already past the target counts as it is. None if it was not reached.
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
