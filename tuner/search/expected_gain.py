"""Expected cost and expected improvement of probes."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: A hopeless draw is counted as this many times the best expected cost, not as infinite.
_WORST_FACTOR = 4.0
_NORMAL = NormalDist()
#: A gain below this share of what the best known configuration costs is not worth a probe, even a free one.
LEAST_GAIN = 1e-2
#: Fewer draws in which both reach the target say nothing.
FEWEST_DRAWS = 8


def expected_cost(cost: Array) -> tuple[Array, Array]:
    """Expected cost `(num,)` with hopeless draws counted as a multiple of the best, and the reaching share.

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


def compared(total: Array, cost: Array, incumbent: int, least: float) -> tuple[Array, Array]:
    """Median ratios of all candidates' costs to the incumbent's, and the variances a probe could resolve.

    Over joint draws: what makes both early or both late is no reason to probe, nor is what is unknown of
    the incumbent alone. So it is the smaller of the variance of the log ratio and the variance of the
    candidate's log time given the incumbent's; spreads come from quantiles, since tails are long.

    Args:
        total: Draws of seconds to target, `(num_draws, num)`; infinite where it is never reached.
        cost: Draws of cost, `(num_draws, num)`; infinite likewise.
        incumbent: Which candidate the others are compared with.
        least: Costs below this count as this.

    Returns:
        `(num,)` each; infinite and 0 where in hardly any draw both reach the target.
    """
    both = np.isfinite(cost) & np.isfinite(cost[:, [incumbent]])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(np.maximum(cost, least)) - np.log(np.maximum(cost[:, [incumbent]], least))
        ours = np.log(total)
    theirs = np.broadcast_to(ours[:, [incumbent]], ours.shape)
    own, their, of_ratio = (_central_variance(values, both) for values in (ours, theirs, ratio))
    given = np.where((own > 0) & (their > 0), own * (1.0 - squared_correlation(ours, theirs, both)), own)
    enough = both.sum(axis=0) >= FEWEST_DRAWS
    middle = _quantile(np.sort(np.where(both, ratio, np.inf), axis=0), both.sum(axis=0), 0.5)
    ratios = np.exp(np.where(enough, middle, np.inf))
    return ratios, np.where(enough, np.maximum(np.minimum(given, of_ratio), 0.0), 0.0)


def _quantile(ordered: Array, count: Array, level: float) -> Array:
    """Quantile of the first `count` of each ascending column, linear between neighbours, `(num,)`."""
    place = level * np.maximum(count - 1, 0)
    lower = np.floor(place).astype(int)
    upper = np.minimum(lower + 1, np.maximum(count - 1, 0))
    columns = np.arange(ordered.shape[1])
    low, high = ordered[lower, columns], ordered[upper, columns]
    with np.errstate(invalid="ignore"):
        return np.asarray(low + (place - lower) * (high - low), dtype=float)


def _central_variance(values: Array, used: npt.NDArray[np.bool_]) -> Array:
    """For each column the variance of a normal with the same central two thirds, `(num,)`."""
    ordered, count = np.sort(np.where(used, values, np.inf), axis=0), used.sum(axis=0)
    with np.errstate(invalid="ignore"):
        half = 0.5 * (_quantile(ordered, count, 0.84) - _quantile(ordered, count, 0.16))
    return np.where(count > 0, np.nan_to_num(half, nan=0.0, posinf=0.0) ** 2, 0.0)


def squared_correlation(left: Array, right: Array, used: npt.NDArray[np.bool_]) -> Array:
    """Of each pair of columns over the draws that are used, 0 where one does not vary, `(num,)`."""
    count = np.maximum(used.sum(axis=0), 1)
    left, right = np.where(used, left, 0.0), np.where(used, right, 0.0)
    left = np.where(used, left - left.sum(axis=0) / count, 0.0)
    right = np.where(used, right - right.sum(axis=0) / count, 0.0)
    across, own, other = ((a * b).sum(axis=0) for a, b in ((left, right), (left, left), (right, right)))
    product = own * other
    return np.asarray(np.divide(across**2, product, out=np.zeros_like(product), where=product > 1e-18))


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
