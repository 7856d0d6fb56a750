"""Confirmation of a recommendation: repeated trainings of it and of the present settings, compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import PlainValidator

from search_spaces import Configuration

#: A configuration that may also be read from plain data.
ReadConfiguration = Annotated[Configuration, PlainValidator(Configuration)]


@dataclass(frozen=True, kw_only=True)
class ConfirmedTraining:
    """One training from scratch to the target.

    Args:
        seed: Its seed.
        reached: Whether it reached the target.
        outcome: How it ended: `reached`, `stopped` (at its limit, or by itself), `diverged` or
            `out_of_memory`.
        training_seconds: Training clock at the crossing, or where it ended.
    """

    seed: int
    reached: bool
    outcome: str
    training_seconds: float


@dataclass(frozen=True, kw_only=True)
class ConfirmedSettings:
    """All trainings of one configuration.

    Args:
        configuration: What was trained.
        trainings: Those that ended, in order of the seeds.
        median_seconds: Median of the training seconds to target, those that did not reach it being longer
            than any other; None if that leaves no median.
    """

    configuration: ReadConfiguration
    trainings: tuple[ConfirmedTraining, ...]
    median_seconds: float | None

    @property
    def num_reached(self) -> int:
        """How many reached the target."""
        return sum(training.reached for training in self.trainings)

    @property
    def all_reached(self) -> bool:
        """Whether there is a training, and each of them reached the target."""
        return 0 < len(self.trainings) == self.num_reached


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The recommendation against the present settings, each trained with the same new seeds.

    Args:
        recommended: Trainings of the recommendation.
        baseline: Trainings of the present settings.
        speedup: Geometric mean of the present settings' seconds to target over that of the recommendation's;
            above 1 if the recommendation is faster. None unless all trainings reached the target.
        lower: Lower end of the 90% interval of `speedup`; None with fewer than two trainings of each.
        upper: Upper end of that interval.
        at_least: Lower bound of the speed-up where only trainings of the present settings missed the target.
        at_most: Upper bound of the speed-up where only trainings of the recommendation missed the target.
        is_significant: Whether the interval excludes 1; None without an interval.
        price_ratio: Dollars per second of the present settings over those of the recommendation; None where
            nodes have no price.
        uses_seed: Whether the seed reaches the training; a command may have no use for it.
        num_unfinished: Trainings that were started and have not ended.
        seconds: Wall-clock seconds charged by all these trainings, which are no part of the tuning cost.
        dollars: Their price.
    """

    recommended: ConfirmedSettings
    baseline: ConfirmedSettings
    speedup: float | None
    lower: float | None
    upper: float | None
    at_least: float | None
    at_most: float | None
    is_significant: bool | None
    price_ratio: float | None
    uses_seed: bool
    num_unfinished: int
    seconds: float
    dollars: float
