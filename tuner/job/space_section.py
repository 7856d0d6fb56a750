"""The `[space]` of a job file: ranges and lists to choose from."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from search_spaces import Choice, FloatRange, OneOf
from tuner.job.values import AscendingCounts, DistinctRates, Section, StrategyNames


class IntegerRange(Section):
    """Powers of two times `low`, up to `high`."""

    low: PositiveInt = Field(description="smallest value")
    high: PositiveInt = Field(description="largest value")

    @model_validator(mode="after")
    def _ordered(self) -> IntegerRange:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def levels(self) -> list[int]:
        """The values that may be chosen."""
        levels = [self.low]
        while levels[-1] * 2 <= self.high:
            levels.append(levels[-1] * 2)
        return levels


class RateRange(Section):
    """A range on a logarithmic scale."""

    low: PositiveFloat = Field(description="smallest rate, above 0")
    high: PositiveFloat = Field(description="largest rate")
    levels_per_decade: PositiveInt = Field(
        default=6, description="how many rates are weighed between one power of ten and the next"
    )

    @model_validator(mode="after")
    def _ordered(self) -> RateRange:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


def _range_or_list(value: Any) -> str:
    return "range" if isinstance(value, dict | BaseModel) else "list"


class SpaceSection(Section):
    """`[space]`: what may be chosen besides nodes."""

    batch_size: Annotated[
        Annotated[IntegerRange, Tag("range")] | Annotated[AscendingCounts, Tag("list")],
        Discriminator(_range_or_list),
    ] = Field(description="global batch sizes: an ascending list, or {low, high} for powers of two times low")
    learning_rate: Annotated[
        Annotated[RateRange, Tag("range")] | Annotated[DistinctRates, Tag("list")],
        Discriminator(_range_or_list),
    ] = Field(description="peak learning rates: {low, high}, or a list")
    strategy: StrategyNames = Field(
        default=("all_reduce",), description="ways of keeping the ranks in step, a list of names"
    )

    def axes(self) -> dict[str, Choice]:
        """Every axis but nodes."""
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
