"""Learning curves of one workload: a population of shapes, from which each run has one.

A curve is seen in units of progress: y = (value - start) / (target - start), so that it begins near 0 and
the target is 1, whether the metric rises or falls. In DESIGN's power-tail form

    y(s) = h (1 - (1 + K (s / S)^u)^(-q)),    K such that y(S) = min(1, 0.9 h)

with s samples seen, h the height the curve tends to, u and q the form of its rise and of its tail, and S
the samples to target (for h <= 1, which never arrives, the samples to nine tenths of its height). Shapes
(h, u, q) lie on a grid, S on another, so that what a run tells is a table of likelihoods, computed once for
each new scoring. Runs of one workload are alike, but not the same: the shares of the shapes in the
population are learnt from all runs, unfinished ones too, by expectation maximisation from a broad prior
(empirical Bayes; Robbins 1956).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Grid of shapes. Heights up to 1 never arrive. Text-book curves have tail exponents u q of 0.3 to 2 (Viering
#: and Loog 2022); a rise that waits at chance first has u above 1.
_HEIGHTS = np.array([0.03, 0.15, 0.4, 0.7, 0.9, 0.98, 1.02, 1.05, 1.1, 1.2, 1.4, 2.0])
_HEIGHT_WEIGHTS = np.array([0.03, 0.03, 0.03, 0.04, 0.05, 0.06, 0.14, 0.15, 0.17, 0.15, 0.1, 0.05])
_RISES = np.exp(np.linspace(np.log(0.5), np.log(2.8), 5))
_TAILS = np.exp(np.linspace(np.log(0.3), np.log(4.0), 4))
_LOG_U_SD, _LOG_Q_MEAN, _LOG_Q_SD = 0.45, np.log(0.9), 0.7
#: e-folds from the last scoring to the target that are weighed.
_AHEAD = np.concatenate([np.linspace(0.02, 1.6, 21), np.linspace(1.75, 5.5, 18)])
_AHEAD_WIDTHS = np.gradient(_AHEAD) / (_AHEAD[-1] - _AHEAD[0])
#: Prior of one scoring's noise in units of progress, and how many scorings it is worth.
_NOISE, _NOISE_WEIGHT = 0.02, 4.0
#: Scorings err together (the form is not exact): so many at the most count as independent.
_MOST_INDEPENDENT = 12.0
_MAX_POINTS = 16
#: How many runs the prior of the population is worth, and the rounds of learning it.
_PRIOR_RUNS, _ROUNDS = 4.0, 4


def _grid() -> tuple[Array, Array]:
    height, rise, tail = np.meshgrid(_HEIGHTS, _RISES, _TAILS, indexing="ij")
    shapes = np.stack([height.ravel(), rise.ravel(), tail.ravel()], axis=1)
    log_weight = np.log(np.repeat(_HEIGHT_WEIGHTS, len(_RISES) * len(_TAILS)))
    log_weight -= 0.5 * (np.log(shapes[:, 1]) / _LOG_U_SD) ** 2
    log_weight -= 0.5 * ((np.log(shapes[:, 2]) - _LOG_Q_MEAN) / _LOG_Q_SD) ** 2
    weight = np.exp(log_weight - log_weight.max())
    # The tails' prior must not change the chance of never arriving.
    for place, height_weight in zip(
        np.split(np.arange(len(shapes)), len(_HEIGHTS)), _HEIGHT_WEIGHTS, strict=True
    ):
        weight[place] *= height_weight / weight[place].sum()
    return shapes, np.asarray(weight / weight.sum(), dtype=float)


SHAPES, _PRIOR = _grid()
_ARRIVES = SHAPES[:, 0] > 1.0


def _log_k(level: Array) -> Array:
    """log of (1 - level / h)^(-1 / q) - 1 for every shape, infinite where it stays below."""
    share = np.minimum(level / SHAPES[:, 0], 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.power(1.0 - share, -1.0 / SHAPES[:, 2]) - 1.0), dtype=float)


_AT_END = np.where(_ARRIVES, 1.0, 0.9 * SHAPES[:, 0])
_LOG_K = _log_k(_AT_END)


@dataclass(frozen=True, kw_only=True)
class ShapeTable:
    """What one run's scorings tell of its shape and of its samples to target.

    Args:
        log_seen: Logarithm of the samples at its last scoring.
        likelihood: Of every shape and distance ahead, up to a factor, `(num_shapes, num_ahead)`.
        evidence: Of every shape, distances integrated out over a flat prior, `(num_shapes,)`.
    """

    log_seen: float
    likelihood: Array
    evidence: Array


def shape_table(samples: Array, progress: Array) -> ShapeTable:
    """Likelihoods of one run's scorings, the noise of a scoring integrated out.

    Args:
        samples: Samples seen at each scoring, ascending, above 0, at least one, `(num_points,)`.
        progress: y at each scoring, `(num_points,)`.
    """
    if len(samples) > _MAX_POINTS:
        samples, progress = _thinned(samples, progress)
    progress = np.minimum(progress, 1.0)
    log_seen = float(np.log(samples[-1]))
    back = np.log(samples) - log_seen
    u, q, h = SHAPES[:, 1], SHAPES[:, 2], SHAPES[:, 0]
    # (num_shapes, num_ahead, num_points)
    power = _LOG_K[:, None, None] + u[:, None, None] * (back[None, None, :] - _AHEAD[None, :, None])
    curve = h[:, None, None] * -np.expm1(-q[:, None, None] * np.logaddexp(0.0, power))
    misfit = curve - progress
    squares = np.einsum("sap,sap->sa", misfit, misfit)
    count = len(samples)
    used = min(float(count), _MOST_INDEPENDENT)
    squares = squares * (used / count)
    degrees = used + _NOISE_WEIGHT
    log_likelihood = -0.5 * degrees * np.log1p(squares / (_NOISE_WEIGHT * _NOISE**2))
    likelihood = np.exp(log_likelihood - log_likelihood.max())
    return ShapeTable(log_seen=log_seen, likelihood=likelihood, evidence=likelihood @ _AHEAD_WIDTHS)


def _thinned(samples: Array, progress: Array) -> tuple[Array, Array]:
    """Means over groups of scorings: the last ones alone, earlier ones evenly in log samples."""
    edges = np.geomspace(samples[0], samples[-1] * (1 + 1e-9), _MAX_POINTS + 1)
    place = np.clip(np.searchsorted(edges, samples, side="right") - 1, 0, _MAX_POINTS - 1)
    used, place = np.unique(place, return_inverse=True)
    count = np.bincount(place, minlength=len(used)).astype(float)
    mean_log = np.bincount(place, weights=np.log(samples)) / count
    last = np.zeros(len(used))
    last[place] = np.log(samples)
    mean_log[-1] = last[-1]
    return np.exp(mean_log), np.bincount(place, weights=progress) / count


@dataclass(frozen=True, kw_only=True)
class Extrapolation:
    """What the population tells of every run.

    Args:
        log_samples: Mean of log samples to target, were it to arrive, `(num_runs,)`.
        sd: Its standard deviation, `(num_runs,)`.
        never: Probability that its curve stays below the target, `(num_runs,)`.
        population: Shares of the shapes, `(num_shapes,)`.
    """

    log_samples: Array
    sd: Array
    never: Array
    population: Array


def population_of(tables: Sequence[ShapeTable], prior: Array | None = None) -> Array:
    """Shares of the shapes among the runs of a workload, `(num_shapes,)`.

    Args:
        tables: One a run.
        prior: Shares believed beforehand; a broad text-book prior if absent.
    """
    start = _PRIOR if prior is None else prior
    if not tables:
        return start
    evidence = np.stack([table.evidence for table in tables])
    shares = start
    for _ in range(_ROUNDS):
        own = evidence * shares
        own /= own.sum(axis=1, keepdims=True)
        shares = (_PRIOR_RUNS * start + own.sum(axis=0)) / (_PRIOR_RUNS + len(tables))
    return np.asarray(shares, dtype=float)


def run_posterior(table: ShapeTable, population: Array, level: float = 1.0) -> tuple[float, float, float]:
    """Mean and standard deviation of log samples to a level of one run, and the chance to stay below it.

    Args:
        table: Of the run.
        population: Shares of the shapes.
        level: Progress; 1 is the target.
    """
    joint = table.likelihood * population[:, None] * _AHEAD_WIDTHS
    joint /= joint.sum()
    log_k = _LOG_K if level == 1.0 else _log_k(np.full(len(SHAPES), level))
    reaches = _ARRIVES if level == 1.0 else np.isfinite(log_k)
    shift = np.where(reaches, (np.where(reaches, log_k, 0.0) - _LOG_K) / SHAPES[:, 1], 0.0)
    at = table.log_seen + _AHEAD[None, :] + shift[:, None]
    arriving = joint[reaches]
    total = float(arriving.sum())
    if total < 1e-6:
        return table.log_seen + float(_AHEAD[-1]), 1.0, 1.0
    mean = float((arriving * at[reaches]).sum() / total)
    variance = float((arriving * (at[reaches] - mean) ** 2).sum() / total)
    return mean, float(np.sqrt(variance)), 1.0 - total


def extrapolate_runs(tables: Sequence[ShapeTable], population: Array) -> Extrapolation:
    """Where every run will arrive, given the population."""
    found = [run_posterior(table, population) for table in tables]
    columns = np.array(found, dtype=float).reshape(-1, 3)
    return Extrapolation(
        log_samples=columns[:, 0], sd=columns[:, 1], never=columns[:, 2], population=population
    )


def arriving_increments(levels: Array) -> Array:
    """e-folds of samples between levels of progress, the prior's median over shapes that arrive.

    Args:
        levels: Ascending, in (0, 1], `(num_levels,)`.

    Returns:
        `(num_levels - 1,)`.
    """
    weight = _PRIOR[_ARRIVES]
    at = np.stack([_log_k(np.full(len(SHAPES), level)) / SHAPES[:, 1] for level in levels], axis=1)
    steps = np.diff(at[_ARRIVES], axis=1)
    found = []
    for column in steps.T:
        order = np.argsort(column)
        middle = int(np.searchsorted(np.cumsum(weight[order]), 0.5 * weight.sum()))
        found.append(float(column[order[middle]]))
    return np.array(found)
