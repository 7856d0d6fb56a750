"""Result of training the recommendation and the user's present settings repeatedly, to compare both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import PlainValidator

from search_spaces import Configuration

#: A configuration; pydantic also accepts a dictionary for it.
ReadConfiguration = Annotated[Configuration, PlainValidator(Configuration)]


@dataclass(frozen=True, kw_only=True)
class ConfirmedTraining:
    """One of the repeated trainings, from new initial parameters until the target or until its earlier end.

    Args:
        seed: Random seed of the training.
        reached: Whether the training reached the target.
        outcome: Final state: `reached`, `stopped` (at a limit, or the script ended), `diverged` or
            `out_of_memory`.
        training_seconds: Training time to the target, in seconds; training time to the end if the target was
            not reached.
    """

    seed: int
    reached: bool
    outcome: str
    training_seconds: float


@dataclass(frozen=True, kw_only=True)
class ConfirmedSettings:
    """All repeated trainings of one configuration.

    Args:
        configuration: The configuration that was trained.
        trainings: The finished trainings, in order of their seeds.
        median_seconds: Median training seconds to target. A training that missed the target counts as
            infinitely long; None if the median is then infinite.
    """

    configuration: ReadConfiguration
    trainings: tuple[ConfirmedTraining, ...]
    median_seconds: float | None

    @property
    def num_reached(self) -> int:
        """Number of trainings of this configuration that reached the target."""
        return sum(training.reached for training in self.trainings)

    @property
    def all_reached(self) -> bool:
        """Whether all trainings of this configuration reached the target, and there is at least one."""
        return 0 < len(self.trainings) == self.num_reached


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Comparison of the recommendation with the user's present settings, by repeated trainings of both.

    Both are trained with the same new random seeds.

    Args:
        recommended: Trainings of the recommended configuration.
        baseline: Trainings of the present settings.
        speedup: Geometric mean of the training seconds to target with the present settings, divided by that
            with the recommendation; above 1 if the recommendation is faster. None if a training missed the
            target.
        lower: Lower end of the 90% confidence interval of `speedup`; None with fewer than two trainings of
            each configuration.
        upper: Upper end of the 90% confidence interval of `speedup`; None if `lower` is None.
        at_least: Lower bound of the speed-up if only trainings of the present settings missed the target;
            None otherwise.
        at_most: Upper bound of the speed-up if only trainings of the recommendation missed the target; None
            otherwise.
        is_significant: Whether the confidence interval excludes 1; None without an interval.
        price_ratio: Dollars per second of the present settings divided by those of the recommendation; None
            if nodes have no price.
        uses_seed: Whether the training gets the seed; the user's command may not have a seed option.
        num_unfinished: Number of trainings that were started and have not finished.
        seconds: Wall-clock seconds charged by all these trainings. They are not included in the tuning cost.
        dollars: Price of these seconds.
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
