"""Dataclasses of the analysis of a recommendation: what would change it, and what the models learned."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.domain.confirmation import ReadConfiguration
from tuner.domain.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """The best configuration if one condition of the job were different.

    Args:
        topic: Condition that differs: `nodes`, `links`, `price`, `goal`, `deadline`, `dollars` or `target`.
        change: The difference in words, such as `only 4 of the 8 nodes are free`.
        configuration: The best configuration under this condition; None if the measurements do not tell.
        seconds: Predicted training seconds to target of this configuration under this condition; None without
            a configuration.
        dollars: Predicted dollars to target; None without a configuration or without prices.
        node_hours: Predicted node hours to target; None without a configuration.
        probability_of_reaching: Predicted probability that the target is reached; None without a
            configuration.
        is_same: Whether the best configuration is the recommended one.
        note: What decides, in words.
    """

    topic: str
    change: str
    configuration: ReadConfiguration | None = None
    seconds: Estimate | None = None
    dollars: Estimate | None = None
    node_hours: Estimate | None = None
    probability_of_reaching: float | None = None
    is_same: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class TradeOff:
    """A configuration such that no other one is predicted to be both sooner and cheaper.

    Args:
        configuration: The configuration.
        seconds: Predicted training seconds to target.
        dollars: Predicted dollars to target; None if nodes have no price.
        node_hours: Predicted node hours to target.
        is_choice: Whether it is the recommended configuration.
    """

    configuration: ReadConfiguration
    seconds: Estimate
    dollars: Estimate | None
    node_hours: Estimate
    is_choice: bool = False


@dataclass(frozen=True, kw_only=True)
class StepParts:
    """Predicted parts of the seconds of one training step.

    Args:
        configuration: The configuration.
        seconds: Predicted seconds in which all ranks together process one global batch.
        compute_seconds: Seconds of a rank's own compute.
        input_seconds: Seconds in which a rank waits for its input; 0 if no rank reported them.
        waiting_seconds: Seconds in which ranks wait for the slowest rank.
        communication_seconds: Seconds of communication between ranks that compute does not hide.
        is_timed: Whether steps on this number of nodes were timed.
    """

    configuration: ReadConfiguration
    seconds: Estimate
    compute_seconds: float
    input_seconds: float
    waiting_seconds: float
    communication_seconds: float
    is_timed: bool


@dataclass(frozen=True, kw_only=True)
class SamplesAtBatch:
    """Predicted number of samples to target with one batch size, at its best learning rate.

    Args:
        configuration: The configuration with this batch size that needs the fewest samples.
        samples: Predicted number of samples to target.
        measured_samples: Number of samples after which a run of it reached the target; None if none did.
        probability_of_reaching: Predicted probability that the target is reached.
    """

    configuration: ReadConfiguration
    samples: Estimate
    measured_samples: float | None
    probability_of_reaching: float


@dataclass(frozen=True, kw_only=True)
class RateOutlook:
    """Probability that training with a batch size and a learning rate reaches the target.

    Args:
        batch_size: Global batch size.
        learning_rate: Learning rate.
        probability_of_reaching: Predicted probability that the target is reached.
        is_best: Whether it is the learning rate with the fewest predicted samples for this batch size.
    """

    batch_size: int
    learning_rate: float
    probability_of_reaching: float
    is_best: bool = False


@dataclass(frozen=True, kw_only=True)
class RateRun:
    """A measured run in the plane of batch sizes and learning rates.

    Args:
        batch_size: Global batch size.
        learning_rate: Learning rate.
        trial_number: Number of the run's trial; None if it is not a trial.
        result: `reached` the target, `open` (may still reach it) or `missed`.
    """

    batch_size: int
    learning_rate: float
    trial_number: int | None
    result: str


@dataclass(frozen=True, kw_only=True)
class ForecastPoint:
    """Predicted number of samples at which a run reaches a value of the metric.

    Args:
        value: Value of the metric.
        samples: Predicted number of samples.
    """

    value: float
    samples: Estimate


@dataclass(frozen=True, kw_only=True)
class CurveForecast:
    """The forecast of one measured curve toward the target.

    Args:
        probe_id: ID of the run's probe.
        trial_number: Number of the run's trial; None if it is not a trial.
        configuration: The configuration of the run.
        samples_observed: Number of samples at the last score.
        result: `reached` the target, `open` (may still reach it) or `missed`.
        probability_of_reaching: Predicted probability that the run reaches the target if it continues.
        points: The forecast from the best score so far to the target; empty for a run that is not open.
    """

    probe_id: int
    trial_number: int | None
    configuration: ReadConfiguration
    samples_observed: int
    result: str
    probability_of_reaching: float
    points: tuple[ForecastPoint, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Override:
    """A value of the job file or a default that the command line or the environment replaced.

    Args:
        name: Name of the value, such as `budget.time`.
        stated: The value in the job file, or the default, in words.
        used: The value that was used, in words.
        source: Where the used value comes from, such as `--budget` or `PACELINE_BUDGET`.
    """

    name: str
    stated: str
    used: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the models say beyond the recommendation.

    Args:
        what_if: The best configuration under other conditions, one entry per condition.
        trade_offs: Configurations such that no other is both sooner and cheaper, soonest first.
        step_parts: Parts of a step of the recommended configuration, by number of nodes; empty if no steps
            were timed.
        samples_by_batch: Predicted number of samples to target, by batch size.
        critical_batch: Batch size at which twice as many samples are needed as with very small batches
            (gradient noise scale); None if the measurements do not determine it.
        critical_batch_basis: What the critical batch size was measured from; empty without it.
        learning_rates: Probability of reaching the target for batch sizes and learning rates.
        rate_runs: The measured runs in the plane of batch sizes and learning rates.
        curve_forecasts: Forecasts of the measured curves.
    """

    what_if: tuple[WhatIf, ...] = ()
    trade_offs: tuple[TradeOff, ...] = ()
    step_parts: tuple[StepParts, ...] = ()
    samples_by_batch: tuple[SamplesAtBatch, ...] = ()
    critical_batch: Estimate | None = None
    critical_batch_basis: str = ""
    learning_rates: tuple[RateOutlook, ...] = ()
    rate_runs: tuple[RateRun, ...] = ()
    curve_forecasts: tuple[CurveForecast, ...] = ()
