"""The predicted seconds per sample of some configurations, as the models of speed return them."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.analytic.laws import Array


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Predicted seconds per sample of some configurations; all values are for the logarithm.

    Args:
        mean: Mean of each configuration, `(num_configurations,)`.
        sd: Posterior standard deviation of each configuration, `(num_configurations,)`. It does not include
            that the same step takes a different time whenever it is timed.
        draws: Joint posterior samples, `(NUM_DRAWS, num_configurations)`.
    """

    mean: Array
    sd: Array
    draws: Array
