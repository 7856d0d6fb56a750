"""Step time of the slowest rank if ranks wait for each other, and throughput if they do not.

The time of a rank for tau steps is tau c, plus random jitter, plus artificial delays that the job file
specifies. c is the seconds of compute of one step without jitter and delays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tuner.analytic.laws import Array, Values, expected_maximum, overlapped_seconds
from tuner.domain.cluster import RankDelay

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
#: The tails of a normal distribution are ignored beyond this many standard deviations; enough for thousands
#: of ranks.
_TAIL = 5.5
#: A random delay is treated as normal if its range is narrower than this multiple of the jitter's standard
#: deviation.
_NARROW = 0.05


@dataclass(frozen=True, kw_only=True)
class DelayedRanks:
    """A group of ranks with the same artificial delays.

    Args:
        count: Number of ranks in the group.
        mean: Mean delay per step, seconds.
        variance: Variance of the delay per step, seconds squared.
        low: Shortest delay per step, seconds.
        high: Longest delay per step, seconds.
        is_uniform: Whether the delay per step is uniformly distributed from `low` to `high`. It is if exactly
            one of the group's delays is random; the sum of several random delays is not uniform.
    """

    count: int
    mean: float
    variance: float
    low: float
    high: float
    is_uniform: bool


@lru_cache(maxsize=1024)
def delayed_ranks(delays: tuple[RankDelay, ...], num_ranks: int) -> tuple[DelayedRanks, ...]:
    """Returns the ranks of a job, grouped by their artificial delays; empty if no rank is delayed.

    Args:
        delays: The artificial delays that the job file specifies.
        num_ranks: Number of ranks of the job.
    """
    groups: dict[tuple[int, ...], int] = {}
    for rank in range(num_ranks):
        key = tuple(i for i, delay in enumerate(delays) if delay.slows(rank))
        groups[key] = groups.get(key, 0) + 1
    if all(not key for key in groups):
        return ()
    return tuple(_alike(count, [delays[i] for i in key]) for key, count in groups.items())


def _alike(count: int, own: Sequence[RankDelay]) -> DelayedRanks:
    return DelayedRanks(
        count=count,
        mean=sum(0.5 * (d.low + d.high) for d in own),
        variance=sum((d.high - d.low) ** 2 / 12.0 for d in own),
        low=sum(d.low for d in own),
        high=sum(d.high for d in own),
        is_uniform=len([d for d in own if d.high > d.low]) == 1,
    )


def _delayed_rows(
    num_ranks: Array, delays: tuple[RankDelay, ...]
) -> Iterator[tuple[npt.NDArray[np.bool_], tuple[DelayedRanks, ...]]]:
    """Yields the rows of `num_ranks` in which ranks are delayed, for each distinct number of ranks.

    Each item is a mask of these rows, `(num,)`, and the ranks grouped by their delays.
    """
    for p in np.unique(num_ranks) if delays else ():
        groups = delayed_ranks(delays, int(p))
        if groups:
            yield num_ranks == p, groups


def per_count(num_ranks: Array, value: Callable[[int], float]) -> Array:
    """Applies a function to each number of ranks in an array, `(num,)`.

    The function is called once per distinct number of ranks.

    Args:
        num_ranks: Number of ranks in each case, `(num,)`.
        value: Function of a number of ranks; its results are returned.
    """
    counts, place = np.unique(num_ranks, return_inverse=True)
    return np.array([value(int(p)) for p in counts], dtype=float)[place]


def slowest_step_seconds(
    compute: Array,
    num_ranks: Array,
    tau: Array,
    *,
    jitter: Values,
    persistent: Values,
    delays: tuple[RankDelay, ...] = (),
) -> Array:
    """Returns the seconds per step of the slowest rank if all ranks wait every tau steps, `(num,)`.

    It is the expected maximum over ranks of the time for tau steps, divided by tau. Without delays it is c (1
    + k_tau m_p).

    - m_p: expected maximum of p standard normals (`expected_maximum`).
    - k_tau: coefficient of variation of a rank's time for tau steps, k_tau^2 = k^2 (h + (1 - h) / tau). The
      transient part of the jitter averages out over tau steps; the persistent part (a slow node) does not.

    With delays it is the integral of 1 - prod_r F_r, where F_r is the distribution function of rank r's time:

    - For tau = 1, F_r is that of the sum of a normal and a uniform variable.
    - For tau > 1, F_r is normal with the mean and variance of the sum. The result is then up to 3% too long
      (tau of 2 to 4, all of 32 ranks delayed).

    Args:
        compute: c, seconds per step of one rank without jitter, `(num,)`.
        num_ranks: p, number of ranks in each case, `(num,)`.
        tau: tau, number of steps after which ranks wait for each other, `(num,)`.
        jitter: k, coefficient of variation of the time of one step of a rank.
        persistent: h, share of the jitter's variance that is persistent.
        delays: Artificial delays that the job file specifies.
    """
    spread = jitter * np.sqrt(persistent + (1.0 - persistent) / tau)
    slowest = compute * (1.0 + spread * expected_maximum(num_ranks))
    for rows, groups in _delayed_rows(num_ranks, delays):
        slowest[rows] = compute[rows] + _expected_excess((compute * spread)[rows], tau[rows], groups)
    return np.asarray(slowest, dtype=float)


def _expected_excess(jitter_seconds: Array, tau: Array, groups: Sequence[DelayedRanks]) -> Array:
    """Returns by how many seconds per step jitter and delays are expected to slow the slowest rank, `(num,)`.

    Args:
        jitter_seconds: Standard deviation of the jitter per step, seconds, `(num,)`.
        tau: Number of steps after which ranks wait for each other, `(num,)`.
        groups: All ranks, grouped by their delays.
    """
    widest = max(group.high for group in groups)
    jitter_seconds = np.maximum(jitter_seconds, 1e-6 * widest + 1e-12)
    parts = []
    for group in groups:
        # If the range of a delay is far below the jitter, the difference of two nearly equal numbers loses
        # its digits. The variance of the delay is then accurate enough.
        wide = group.high - group.low > _NARROW * jitter_seconds
        uniform = group.is_uniform & (tau == 1) & wide
        sd = np.where(uniform, jitter_seconds, np.sqrt(jitter_seconds**2 + group.variance / tau))
        low = np.where(uniform, group.low, group.mean)
        high = np.where(uniform, group.high, group.mean)
        parts.append((group.count, low, high, sd))
    # At `start` at least one rank has certainly not finished, so the integrand is 1 until there.
    start = np.max([low - _TAIL * sd for _, low, _, sd in parts], axis=0)
    end = np.max([high + _TAIL * sd for _, _, high, sd in parts], axis=0)
    at = start[:, None] + (end - start)[:, None] * 0.5 * (_NODES + 1.0)
    log_all = np.zeros_like(at)
    for count, low, high, sd in parts:
        log_all += count * np.log(np.maximum(_smeared_cdf(at, low, high, sd), 1e-300))
    integral = (np.exp(log_all) @ (0.5 * _WEIGHTS)) * (end - start)
    return np.asarray(end - integral, dtype=float)


def _smeared_cdf(at: Array, low: Array, high: Array, sd: Array) -> Array:
    """Returns the distribution function of the sum of a uniform and a normal variable, `(num, num_points)`.

    It is sd (g(z_low) - g(z_high)) / (high - low).

    - z_low and z_high: (at - low) / sd and (at - high) / sd.
    - g(z) = z Phi(z) + phi(z): the integral of Phi. Phi and phi are the distribution function and the density
      of the standard normal.

    If low = high, the result is the distribution function of the normal variable with mean `low`.

    Args:
        at: Values at which the distribution function is computed, seconds, `(num, num_points)`.
        low: Lower end of the uniform variable, seconds, `(num,)`.
        high: Upper end of the uniform variable, seconds, `(num,)`.
        sd: Standard deviation of the normal variable, whose mean is 0, seconds, `(num,)`.
    """
    from scipy.special import ndtr  # takes a while to import; only delays need it

    def g(z: Array) -> Array:
        return np.asarray(z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi), dtype=float)

    low, high, sd = low[:, None], high[:, None], sd[:, None]
    z_low, width = (at - low) / sd, high - low
    with np.errstate(divide="ignore", invalid="ignore"):
        smeared = sd / width * (g(z_low) - g((at - high) / sd))
    return np.clip(np.where(width > 0, smeared, ndtr(z_low)), 0.0, 1.0)


def mean_delay(num_ranks: Array, delays: tuple[RankDelay, ...]) -> Array:
    """Returns the artificial delay of a step, averaged over all ranks, seconds, `(num,)`.

    Args:
        num_ranks: Number of ranks of each step, `(num,)`.
        delays: The artificial delays that the job file specifies.
    """
    return per_count(num_ranks, lambda p: sum(g.count * g.mean for g in delayed_ranks(delays, p)) / p)


def unwaiting_batch_seconds(
    compute: Array, exchange: Array, num_ranks: Array, *, overlap: Values, delays: tuple[RankDelay, ...] = ()
) -> Array:
    """Returns the seconds in which ranks that do not wait for each other process one global batch, `(num,)`.

    All ranks process the same number of samples per step. The result is then the harmonic mean over the ranks
    of step_r = ((c + d_r)^g + e^g)^(1/g), the seconds of one step of rank r. The symbols are those of the
    arguments. Jitter does not matter, since it averages out over the steps of a rank.

    Args:
        compute: c, seconds of compute per step of one rank, `(num,)`.
        exchange: e, seconds of communication between ranks per step, `(num,)`.
        num_ranks: p, number of ranks in each case, `(num,)`.
        overlap: g, how well communication overlaps with compute, see `overlapped_seconds`.
        delays: Artificial delays that the job file specifies; d_r is the mean delay per step of rank r,
            seconds.
    """
    seconds = overlapped_seconds(compute, exchange, overlap)
    for rows, groups in _delayed_rows(num_ranks, delays):
        own = np.broadcast_to(overlap, np.shape(compute))[rows]
        steps = [overlapped_seconds(compute[rows] + group.mean, exchange[rows], own) for group in groups]
        rates = sum(group.count / step for group, step in zip(groups, steps, strict=True))
        seconds[rows] = num_ranks[rows] / rates
    return seconds
