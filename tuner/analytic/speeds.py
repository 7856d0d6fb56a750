"""Seconds a sample of some configurations, as a forecaster gives them."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.analytic.laws import Array


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Log seconds a sample.

    Args:
        mean: `(num_configurations,)`.
        sd: Standard deviation, without that between moments, `(num_configurations,)`.
        draws: Joint draws, `(NUM_DRAWS, num_configurations)`.
    """

    mean: Array
    sd: Array
    draws: Array
