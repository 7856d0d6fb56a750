"""Predicted seconds per sample of some configurations, from the step-time model or a slope model."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.analytic.laws import Array


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Predicted logarithm of the seconds per sample of some configurations.

    Args:
        mean: Mean of each configuration, `(num_configurations,)`.
        sd: Posterior standard deviation of each configuration, `(num_configurations,)`. It does not include
            that the same step takes a different time whenever it is timed.
        draws: Joint posterior samples, `(NUM_DRAWS, num_configurations)`.
    """

    mean: Array
    sd: Array
    draws: Array
