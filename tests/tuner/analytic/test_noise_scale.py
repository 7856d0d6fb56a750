from __future__ import annotations

import numpy as np
import pytest

from tuner.analytic.noise_growth import noise_scale
from tuner.domain.measurement import NoiseStatistic


def statistic(noise: float, squared_gradient: float, num_estimates: int = 10) -> NoiseStatistic:
    return NoiseStatistic(
        samples=1000, noise=noise, squared_gradient=squared_gradient, num_estimates=num_estimates
    )


def test_numerator_and_denominator_are_averaged_apart_then_divided() -> None:
    found = noise_scale([statistic(100.0, 1.0), statistic(300.0, 3.0), statistic(200.0, 8.0)])
    assert found == pytest.approx(200.0 / 4.0)


def test_a_statistic_counts_by_its_estimates() -> None:
    found = noise_scale([statistic(100.0, 1.0, num_estimates=30), statistic(500.0, 5.0, num_estimates=10)])
    assert found == pytest.approx(200.0 / 2.0)


def test_a_negative_estimate_of_one_place_is_averaged_in() -> None:
    assert noise_scale([statistic(100.0, 3.0), statistic(100.0, -1.0)]) == pytest.approx(100.0)


@pytest.mark.parametrize("squared", [-1.0, 0.0])
def test_noise_that_drowns_the_gradient_gives_no_scale(squared: float) -> None:
    assert noise_scale([statistic(100.0, squared)]) is None


def test_nothing_measured_gives_no_scale() -> None:
    assert noise_scale([]) is None
    assert noise_scale([statistic(100.0, 1.0, num_estimates=0)]) is None


def test_a_known_noise_scale_is_recovered_from_noisy_estimates() -> None:
    """Pairs of gradients of 8 and 64 samples, as a probe measures them, in 50 dimensions."""
    rng = np.random.default_rng(0)
    gradient, deviation = np.full(50, 0.1), 1.5
    small_size, large_size = 8, 64
    reported = []
    for _ in range(40):
        parts = gradient + deviation / np.sqrt(small_size) * rng.standard_normal((8, 50))
        small, large = np.mean((parts**2).sum(axis=1)), float((parts.mean(axis=0) ** 2).sum())
        squared = (large_size * large - small_size * small) / (large_size - small_size)
        noise = (small - large) / (1 / small_size - 1 / large_size)
        reported.append(statistic(float(noise), float(squared), num_estimates=1))
    truth = 50 * deviation**2 / float(gradient @ gradient)
    # 32 estimates of |G|^2, each known to about its own size.
    assert noise_scale(reported) == pytest.approx(truth, rel=0.5)
