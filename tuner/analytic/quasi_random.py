"""Quasi-random numbers: deterministic, evenly spread points that represent a probability distribution.

The models compute their posterior samples from these points. SciPy's sequences are not used:
`scipy.stats.qmc` takes 1.2 s to import, and with other points, searches with a given seed would have other
results than before.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tuner.analytic.laws import Array

#: Number of posterior samples (draws) of every predicted quantity.
NUM_DRAWS = 256


def spread_uniforms(num_draws: int, num_dimensions: int) -> Array:
    """Returns evenly spread points of the unit cube, one per row, `(num_draws, num_dimensions)`.

    The points are an additive recurrence with the generalized golden ratio (Roberts 2018). They are spread
    evenly only if `num_dimensions` is small.

    Args:
        num_draws: Number of points to generate, one per row of the result.
        num_dimensions: Dimension of the cube.
    """
    ratio = 2.0
    for _ in range(40):
        ratio = (1 + ratio) ** (1 / (num_dimensions + 1))
    steps = ratio ** -np.arange(1, num_dimensions + 1, dtype=float)
    points = (0.5 + np.outer(np.arange(1, num_draws + 1), steps)) % 1.0
    return np.clip(points, 1e-6, 1 - 1e-6)


@lru_cache(maxsize=16)
def spread_normals(num_draws: int, num_dimensions: int) -> Array:
    """Returns evenly spread points of a standard normal distribution, `(num_draws, num_dimensions)`.

    The returned array is read-only.
    """
    from scipy.special import ndtri  # takes a while to import; only models need it

    found = np.asarray(ndtri(spread_uniforms(num_draws, num_dimensions)))
    found.setflags(write=False)
    return found


def shuffled_normals(rng: np.random.Generator, num: int) -> Array:
    """Returns columns of evenly spread standard normal numbers, each in random order, `(NUM_DRAWS, num)`.

    Every column contains the same numbers, in its own random order.

    Args:
        rng: Random generator of the orders.
        num: Number of columns.
    """
    from scipy.special import ndtri

    even = ndtri((np.arange(NUM_DRAWS) + 0.5) / NUM_DRAWS)
    return np.asarray(rng.permuted(np.tile(even[:, None], num), axis=0))


def correlated(covariance: Array, normals: Array) -> Array:
    """Converts independent normal numbers to normal numbers with a given covariance, `(num_draws, num)`.

    Args:
        covariance: The covariance between the columns of the result, `(num, num)`.
        normals: Independent standard normals, `(num_draws, num)`.
    """
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(normals @ (vectors * np.sqrt(np.maximum(values, 0.0))).T, dtype=float)
