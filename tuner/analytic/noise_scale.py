"""Gradient noise scale from what probes measured (McCandlish et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.domain.measurement import NoiseStatistic


def noise_scale(statistics: Sequence[NoiseStatistic]) -> float | None:
    """S / |G|^2 in samples: numerator and denominator are averaged apart, then divided.

    Args:
        statistics: Unbiased estimates from about one place of a run.

    Returns:
        The noise scale, or None where the mean squared gradient is not above zero, as happens when
        noise drowns it.
    """
    weight = sum(s.num_estimates for s in statistics)
    if weight == 0:
        return None
    noise = sum(s.noise * s.num_estimates for s in statistics) / weight
    squared = sum(s.squared_gradient * s.num_estimates for s in statistics) / weight
    if noise <= 0 or squared <= 0:
        return None
    return noise / squared
