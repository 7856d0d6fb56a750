"""Stragglers: step time of the slowest rank with a barrier, and joint throughput without one.

The time of a rank over tau steps is tau c, plus jitter, plus artificial delays, which the job file states.
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
#: Standard deviations beyond which the tail of a normal is ignored; enough for thousands of ranks.
_TAIL = 5.5
#: Delays with a narrower range, in standard deviations of the jitter, are treated as normal.
_NARROW = 0.05


@dataclass(frozen=True, kw_only=True)
class DelayedRanks:
    """Ranks with the same artificial delays.

    Args:
        count: Number of ranks.
        mean: Mean delay of a step, seconds.
        variance: Variance of the delay of a step, seconds squared.
        low: Shortest delay of a step, seconds.
        high: Longest delay of a step, seconds.
        is_uniform: Whether the delay is uniform between these: one varying delay, not a sum of several.
    """

    count: int
    mean: float
    variance: float
    low: float
    high: float
    is_uniform: bool


@lru_cache(maxsize=1024)
def delayed_ranks(delays: tuple[RankDelay, ...], num_ranks: int) -> tuple[DelayedRanks, ...]:
    """The ranks of a job, grouped by their delays; empty if no rank is delayed."""
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
    """For each number of ranks with delays: a mask of its rows, `(num,)`, and the groups of ranks."""
    for p in np.unique(num_ranks) if delays else ():
        groups = delayed_ranks(delays, int(p))
        if groups:
            yield num_ranks == p, groups


def per_count(num_ranks: Array, value: Callable[[int], float]) -> Array:
    """A function of the number of ranks, evaluated once per distinct number, `(num,)`."""
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
    """Expected maximum over ranks of the time of tau steps, divided by tau, `(num,)`.

    Without delays it is c (1 + k_tau m_p), with Blom's expected maximum m_p and
    k_tau^2 = k^2 (h + (1 - h) / tau): the transient part of the jitter averages out over tau steps, the
    persistent part (a slow node) does not. With delays it is the integral of 1 - prod_r F_r. For tau = 1, F_r
    is the distribution of a normal plus a uniform variable. For tau > 1 it is normal with the mean and
    variance of the sum, which is up to 3% too long (tau of 2 to 4, all of 32 ranks delayed).

    Args:
        compute: c, seconds per step of one rank without jitter, `(num,)`.
        num_ranks: p, `(num,)`.
        tau: Steps between two waits, `(num,)`.
        jitter: k, coefficient of variation of a rank's step.
        persistent: h, share of the jitter's variance that is persistent.
        delays: Artificial delays.
    """
    spread = jitter * np.sqrt(persistent + (1.0 - persistent) / tau)
    slowest = compute * (1.0 + spread * expected_maximum(num_ranks))
    for rows, groups in _delayed_rows(num_ranks, delays):
        slowest[rows] = compute[rows] + _expected_excess((compute * spread)[rows], tau[rows], groups)
    return np.asarray(slowest, dtype=float)


def _expected_excess(jitter_seconds: Array, tau: Array, groups: Sequence[DelayedRanks]) -> Array:
    """Expected maximum over ranks of jitter plus delay per step, seconds, `(num,)`."""
    widest = max(group.high for group in groups)
    jitter_seconds = np.maximum(jitter_seconds, 1e-6 * widest + 1e-12)
    parts = []
    for group in groups:
        # A width far below the jitter would cancel numerically in the difference; its variance is enough.
        wide = group.high - group.low > _NARROW * jitter_seconds
        uniform = group.is_uniform & (tau == 1) & wide
        sd = np.where(uniform, jitter_seconds, np.sqrt(jitter_seconds**2 + group.variance / tau))
        low = np.where(uniform, group.low, group.mean)
        high = np.where(uniform, group.high, group.mean)
        parts.append((group.count, low, high, sd))
    # Before the highest of the lower ends, some rank has certainly not finished.
    start = np.max([low - _TAIL * sd for _, low, _, sd in parts], axis=0)
    end = np.max([high + _TAIL * sd for _, _, high, sd in parts], axis=0)
    at = start[:, None] + (end - start)[:, None] * 0.5 * (_NODES + 1.0)
    log_all = np.zeros_like(at)
    for count, low, high, sd in parts:
        log_all += count * np.log(np.maximum(_smeared_cdf(at, low, high, sd), 1e-300))
    integral = (np.exp(log_all) @ (0.5 * _WEIGHTS)) * (end - start)
    return np.asarray(end - integral, dtype=float)


def _smeared_cdf(at: Array, low: Array, high: Array, sd: Array) -> Array:
    """Distribution function of a uniform plus a normal variable, `(num, num_nodes)`; normal if low = high.

    sd (g(z_low) - g(z_high)) / (high - low), where g(z) = z Phi(z) + phi(z) is the integral of Phi.
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
    """Mean delay of a step over all ranks, seconds, `(num,)`."""
    return per_count(num_ranks, lambda p: sum(g.count * g.mean for g in delayed_ranks(delays, p)) / p)


def unwaiting_batch_seconds(
    compute: Array, exchange: Array, num_ranks: Array, *, overlap: Values, delays: tuple[RankDelay, ...] = ()
) -> Array:
    """Seconds in which asynchronous ranks together process one global batch, `(num,)`.

    B / sum_r(b_r / step_r): with equal shares, the harmonic mean of step_r = ((c + d_r)^g + e^g)^(1/g).
    Jitter averages out over the steps of a rank.

    Args:
        compute: c, seconds per step of one rank, `(num,)`.
        exchange: e, seconds of exchange per step, `(num,)`.
        num_ranks: p, `(num,)`.
        overlap: g, see `overlapped_seconds`.
        delays: Artificial delays; d_r is the mean delay of rank r.
    """
    seconds = overlapped_seconds(compute, exchange, overlap)
    for rows, groups in _delayed_rows(num_ranks, delays):
        own = np.broadcast_to(overlap, np.shape(compute))[rows]
        steps = [overlapped_seconds(compute[rows] + group.mean, exchange[rows], own) for group in groups]
        rates = sum(group.count / step for group, step in zip(groups, steps, strict=True))
        seconds[rows] = num_ranks[rows] / rates
    return seconds
