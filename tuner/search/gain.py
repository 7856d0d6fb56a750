"""Expected cost and expected gain of what could be done next."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: A hopeless draw is counted as this many times the best expected cost, not as infinite.
_WORST_FACTOR = 4.0
_NORMAL = NormalDist()


def expected_cost(cost: Array) -> tuple[Array, Array]:
    """Expected cost `(num,)` with hopeless draws counted as a multiple of the best, and the arriving share.

    Args:
        cost: Draws, `(num_draws, num)`; infinite where the target is never reached.
    """
    arrives = np.isfinite(cost)
    reach = arrives.mean(axis=0)
    middles = typical(cost)
    likely = reach >= min(0.5, float(reach.max(initial=0.0)))
    worst = _WORST_FACTOR * float(np.min(np.where(likely, middles, np.inf), initial=np.inf))
    if not math.isfinite(worst):
        return np.full_like(reach, np.inf), reach
    capped = np.minimum(cost, worst).mean(axis=0)
    return np.where(arrives.any(axis=0), capped, np.inf), reach


def typical(draws: Array) -> Array:
    """Medians of the finite draws of each column of `(num_draws, num)`; infinite without any."""
    ordered = np.sort(draws, axis=0)
    count = np.isfinite(ordered).sum(axis=0)
    columns = np.arange(draws.shape[1])
    upper = ordered[np.minimum(count // 2, len(ordered) - 1), columns]
    lower = ordered[np.maximum(count - 1, 0) // 2, columns]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(count > 0, 0.5 * (lower + upper), np.inf), dtype=float)


def expected_gain(incumbent: float, median: float, resolved: float, already_paid: float) -> float:
    """Expected saving over the incumbent once `resolved` of the variance of log cost is known.

    E[(I - (X - d)+)+] with log X normal around the log of the median and d, what was paid to learn X, not
    to be paid again: the same as E[(I + d - X)+] - E[(d - X)+], two puts (Black and Scholes 1973).

    Args:
        incumbent: I, what the best known is expected to cost.
        median: Of X.
        resolved: Variance of log X, at least 0.
        already_paid: d, at least 0.
    """
    if not math.isfinite(median) or not math.isfinite(incumbent):
        return 0.0
    sd = math.sqrt(max(resolved, 0.0))
    return _put(incumbent + already_paid, median, sd) - _put(already_paid, median, sd)


def _put(strike: float, median: float, sd: float) -> float:
    """E[(K - X)+] of a lognormal X."""
    if strike <= 0.0:
        return 0.0
    if sd < 1e-9:
        return max(strike - median, 0.0)
    distance = (math.log(strike) - math.log(median)) / sd
    mean = median * math.exp(0.5 * sd**2)
    return max(strike * _NORMAL.cdf(distance) - mean * _NORMAL.cdf(distance - sd), 0.0)
