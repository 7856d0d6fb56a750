"""Expected cost and expected gain of what could be done next."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tuner.analytic.draws import spread_normals

Array = npt.NDArray[np.float64]

#: A hopeless draw is counted as this many times the best expected cost, not as infinite.
_WORST_FACTOR = 4.0
_NODES_OF_GAIN = 33


def expected_cost(cost: Array) -> tuple[Array, Array]:
    """Expected cost `(num,)` with hopeless draws counted as a multiple of the best, and the arriving share.

    Args:
        cost: Draws, `(num_draws, num)`; infinite where the target is never reached.
    """
    arrives = np.isfinite(cost)
    reach = arrives.mean(axis=0)
    with np.errstate(invalid="ignore"):
        means = np.where(arrives, cost, 0.0).sum(axis=0) / np.maximum(arrives.sum(axis=0), 1)
    means = np.where(arrives.any(axis=0), means, np.inf)
    likely = reach >= 0.5
    if not likely.any():
        likely = reach >= reach.max()
    worst = _WORST_FACTOR * float(np.min(np.where(likely, means, np.inf)))
    capped = np.where(arrives, np.minimum(cost, worst), worst)
    expected = np.where(arrives.any(axis=0), capped.mean(axis=0), np.inf)
    return expected, reach


def typical(draws: Array) -> float:
    """Median of the finite draws, `(num_draws,)`; infinite where there is none."""
    finite = draws[np.isfinite(draws)]
    return float(np.median(finite)) if len(finite) else math.inf


def expected_gain(incumbent: float, median: float, resolved: float, already_paid: float) -> float:
    """Expected saving over the incumbent once `resolved` of the variance of log cost is known.

    E[(I - (X - d))+] with log X normal around the log of the median and d, what was paid to learn X, is
    not to be paid again.
    """
    if not math.isfinite(median) or not math.isfinite(incumbent):
        return 0.0
    normals = spread_normals(_NODES_OF_GAIN, 1)[:, 0]
    outcome = median * np.exp(math.sqrt(max(resolved, 0.0)) * normals)
    return float(np.maximum(incumbent - np.maximum(outcome - already_paid, 0.0), 0.0).mean())
