"""The section `[space]` of a job file: the batch sizes, learning rates and strategies to choose from."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Field, PositiveFloat, Tag, model_validator

from search_spaces import KNOBS, Choice, FloatRange, OneOf
from tuner.domain.section import BatchSize, Section
from tuner.job.values import BatchSizes, DistinctCounts, DistinctRates, StrategyNames, check_knob


class IntegerRange(Section):
    """A range of integers: `low`, `2 * low`, `4 * low` and so on, up to `high`."""

    low: BatchSize = Field(description="smallest value")
    high: BatchSize = Field(description="largest value")

    @model_validator(mode="after")
    def _ordered(self) -> IntegerRange:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def levels(self) -> list[int]:
        """Returns the integers of the range, ascending."""
        levels = [self.low]
        while levels[-1] * 2 <= self.high:
            levels.append(levels[-1] * 2)
        return levels


class RateRange(Section):
    """A range of learning rates; the ratio of two neighboring rates is constant."""

    low: PositiveFloat = Field(description="smallest rate, above 0")
    high: PositiveFloat = Field(description="largest rate")
    levels_per_decade: Annotated[int, Field(gt=0, le=1_000)] = Field(
        default=6, description="number of rates per power of ten"
    )

    @model_validator(mode="after")
    def _ordered(self) -> RateRange:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


def _range_or_list(value: Any) -> str:
    return "range" if isinstance(value, dict | BaseModel) else "list"


class SpaceSection(Section):
    """`[space]`: the values that the search may choose, except the number of nodes."""

    batch_size: Annotated[
        Annotated[IntegerRange, Tag("range")] | Annotated[BatchSizes, Tag("list")],
        Discriminator(_range_or_list),
    ] = Field(
        description="global batch sizes: an ascending list, or {low, high} for low, 2 low, 4 low and so on, "
        "up to high"
    )
    learning_rate: Annotated[
        Annotated[RateRange, Tag("range")] | Annotated[DistinctRates, Tag("list")],
        Discriminator(_range_or_list),
    ] = Field(description="peak learning rates: {low, high}, or a list")
    strategy: StrategyNames = Field(
        default=("all_reduce",), description="list of strategies, the ways to synchronize the ranks"
    )

    tau: DistinctCounts | None = Field(
        default=None,
        description="list of numbers of steps between two exchanges of parameters; if absent, the default of "
        "the strategy",
    )
    beta: DistinctRates | None = Field(
        default=None,
        description="elastic_averaging: list of values of moving rate times number of ranks; 0.8 if absent",
    )
    outer_learning_rate: DistinctRates | None = Field(
        default=None, description="diloco: list of learning rates of the outer steps; 0.7 if absent"
    )
    outer_momentum: DistinctRates | None = Field(
        default=None, description="diloco: list of momenta of the outer steps; 0.9 if absent"
    )

    @model_validator(mode="after")
    def _knobs_are_of_a_strategy(self) -> SpaceSection:
        for name in KNOBS:
            for value in getattr(self, name) or ():
                check_knob(name, value, self.strategy)
        return self

    def knobs(self) -> dict[str, Choice]:
        """Maps each knob (parameter of a strategy) in the job file to the values to choose from."""
        stated = {name: getattr(self, name) for name in KNOBS}
        return {name: OneOf(list(values)) for name, values in stated.items() if values is not None}

    def axes(self) -> dict[str, Choice]:
        """Maps each axis of the space, except the number of nodes, to the values to choose from."""
        batches = self.batch_size
        rates = self.learning_rate
        return {
            "batch_size": OneOf(batches.levels() if isinstance(batches, IntegerRange) else list(batches)),
            "learning_rate": FloatRange(
                low=rates.low, high=rates.high, levels_per_decade=rates.levels_per_decade
            )
            if isinstance(rates, RateRange)
            else OneOf(list(rates)),
            "strategy": OneOf(list(self.strategy)),
        }
