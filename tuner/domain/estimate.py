"""A predicted quantity with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator

_NullAsInfinity = Annotated[float, BeforeValidator(lambda value: math.inf if value is None else value)]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A predicted quantity with its central 90% interval.

    Args:
        lower: Fifth percentile.
        median: Median.
        upper: Ninety-fifth percentile; infinite if the target is missed with more than 5% probability.
    """

    lower: _NullAsInfinity
    median: _NullAsInfinity
    upper: _NullAsInfinity

    def times(self, factor: float) -> Estimate:
        """Returns the estimate of this quantity times a constant above 0."""
        return Estimate(lower=self.lower * factor, median=self.median * factor, upper=self.upper * factor)
