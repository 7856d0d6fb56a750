from __future__ import annotations

import numpy as np
import pytest

from tuner.analytic.quasi_random import spread_normals, spread_uniforms


@pytest.mark.parametrize("num_dimensions", [1, 2, 5])
def test_spread_uniforms_fill_the_cube_evenly(num_dimensions: int) -> None:
    points = spread_uniforms(256, num_dimensions)
    assert points.shape == (256, num_dimensions)
    assert np.all((points > 0) & (points < 1))
    np.testing.assert_allclose(points.mean(axis=0), 0.5, atol=0.02)
    counts = np.histogram(points[:, -1], bins=16, range=(0.0, 1.0))[0]
    # Chance would leave 16 +- 4 in a bin.
    assert counts.min() >= 12
    assert counts.max() <= 20


def test_spread_normals_have_a_normal_s_mean_spread_and_tails() -> None:
    draws = spread_normals(256, 5)
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=0.05)
    np.testing.assert_allclose(draws.std(axis=0), 1.0, atol=0.05)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(5), atol=0.15)
    np.testing.assert_allclose(np.quantile(draws, 0.95, axis=0), 1.645, atol=0.15)


def test_draws_are_shared_and_cannot_be_written_into() -> None:
    draws = spread_normals(16, 2)
    with pytest.raises(ValueError, match="read-only"):
        draws[0, 0] = 7.0
    assert draws is spread_normals(16, 2)
