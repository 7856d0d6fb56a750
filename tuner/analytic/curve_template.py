"""Learning-curve template: the shape of the curve that all runs of a workload share.

Training progress is y = (value - start) / (target - start) of the metric. It starts near 0, and the target is
1, whether the metric rises or falls. Factors of the number of samples are counted in e-folds (factors of e),
that is, as differences of the logarithm of samples.

Assumption: within one phase of the learning-rate schedule, all configurations of a workload need the same
number of e-folds to get from one level of progress to the next. A level is passed when the progress first
reaches it; so is the target.

- If runs have passed two neighboring levels, the template averages their increments of log samples between
  these levels. Unfinished runs contribute too.
- For levels that no run has passed, the template uses a grid of shapes. The weight of a shape depends on how
  well it predicts the known increments. Differences between the shapes are an error that all runs have in
  common.

A shape is a power law:

    y(s) = h (1 - (1 + k s^u)^(-q))

- s: number of samples processed.
- h: height that the curve approaches.
- u and q: form of the rise and of the tail.
- k: speed of the run.

Solved for the number of samples at a level v of progress below h,

    log s(v) = (log K(v) - log k) / u,    K(v) = (1 - v / h)^(-1 / q) - 1

so the e-folds between two levels depend only on the shape (h, u, q). All shapes have h > 1, since the
template describes runs that reach the target.

The prior of the shapes is as wide as the differences between the curves of recorded networks, small networks
and synthetic scripts. It was chosen on most of these curves (see `python -m benchmarks.curve_shapes`).
Targets are often near the best value that a network reaches, so heights close to 1 are as likely as large
heights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import Array

#: Grid of shapes (h, u, q): heights from just above the target to twice the target, early to late rises, and
#: long to short tails.
_HEIGHTS = 1.0 + np.exp(np.linspace(np.log(0.004), 0.0, 8))
_RISES = np.exp(np.linspace(np.log(0.6), np.log(2.8), 6))
_TAILS = np.exp(np.linspace(np.log(0.3), np.log(6.0), 6))
#: Prior means and standard deviations of log(h - 1), log u and log q.
_LOG_HEIGHT, _LOG_RISE, _LOG_TAIL = (np.log(0.025), 1.8), (np.log(1.85), 0.2), (np.log(1.25), 0.25)


def _grid() -> tuple[Array, Array]:
    axes = np.meshgrid(_HEIGHTS, _RISES, _TAILS, indexing="ij")
    shapes = np.stack([axis.ravel() for axis in axes], axis=1)
    logs = np.log(shapes - [1.0, 0.0, 0.0])
    means, sds = zip(_LOG_HEIGHT, _LOG_RISE, _LOG_TAIL, strict=True)
    log_weight = -0.5 * (((logs - means) / sds) ** 2).sum(axis=1)
    weight = np.exp(log_weight - log_weight.max())
    return shapes, np.asarray(weight / weight.sum(), dtype=float)


#: Shapes (h, u, q), `(num_shapes, 3)`, and the prior probability of each, `(num_shapes,)`.
SHAPES, PRIOR = _grid()


def increments_of_shapes(levels: Array) -> Array:
    """Returns the e-folds of samples between neighboring levels of progress, for every shape.

    Args:
        levels: Levels of progress, ascending, in (0, 1], `(num_levels,)`.

    Returns:
        The increments of log samples, `(num_shapes, num_levels - 1)`.
    """
    height, rise, tail = SHAPES.T[:, :, None]
    log_samples = np.log((1.0 - levels / height) ** (-1.0 / tail) - 1.0) / rise
    return np.asarray(np.diff(log_samples, axis=1))


LEVELS = np.array(
    [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.76, 0.81, 0.85, 0.89, 0.92, 0.945, 0.965, 0.985, 1.0]
)
_INCREMENTS = increments_of_shapes(LEVELS)
#: Weight of a shape's increment in an average with the increments of runs; each run has weight 1.
_SHAPE_RUNS = 0.3
#: Standard deviation of an increment that no shape of the grid explains, however many runs are averaged.
_MISFIT_SD = 0.16
#: Standard deviation of the difference between a run and the template, in the logarithm of samples to target,
#: per square root of the remaining e-folds.
_OWN_SD = 0.33
#: Standard deviation of the logarithm of samples to target that remains even just before the target is
#: reached.
FORM_SD = 0.05
#: Standard deviation of the furthest progress, caused by the noise of an evaluation.
NOISE = 0.015
#: Additional e-folds for a run whose score has not clearly improved since its start, compared with a run
#: whose score just has. The standard deviation is large: the score may improve soon, late or never. Other
#: runs are not expected to be equally late.
_STUCK_FOLDS, _STUCK_SD = 0.5, 1.3
#: Largest standard deviation of the logarithm of samples to target that the noise of one evaluation may add.
_MOST_PLACE_SD = 0.8
_LEAST_AHEAD = 0.02


@dataclass(frozen=True, kw_only=True)
class Passage:
    """The number of samples at which a run first passed each level of progress.

    Args:
        log_samples: Log number of samples when the run first passed each of `LEVELS`, `(num_levels,)`. NaN if
            the run has not passed the level, or had passed it at its first evaluation.
        log_seen: Log number of samples at the last evaluation.
        progress: The furthest progress of the run.
    """

    log_samples: Array
    log_seen: float
    progress: float


def passage_of(samples: Array, progress: Array) -> Passage:
    """Returns the number of samples at which a run first passed each level of progress.

    Between evaluations, progress is interpolated linearly over the logarithm of samples.

    Args:
        samples: Number of samples processed at each evaluation, ascending, above 0, `(num_points,)` with at
            least one point.
        progress: Progress at each evaluation, `(num_points,)`.
    """
    log_samples = np.log(samples)
    found = np.full(len(LEVELS), np.nan)
    best = np.maximum.accumulate(progress)
    for place, level in enumerate(LEVELS):
        after = int(np.searchsorted(best, level, side="left"))
        if 0 < after < len(best):
            low, high = best[after - 1], best[after]
            share = (level - low) / (high - low)
            found[place] = log_samples[after - 1] + share * (log_samples[after] - log_samples[after - 1])
    return Passage(log_samples=found, log_seen=float(log_samples[-1]), progress=float(best[-1]))


@dataclass(frozen=True, kw_only=True)
class Template:
    """The e-folds of samples from each level of progress to the next, for a workload.

    Args:
        folds: The e-folds under each shape, averaged with the increments of runs, `(num_shapes, num_levels -
            1)`.
        weights: Probability of each shape, `(num_shapes,)`.
    """

    folds: Array
    weights: Array

    def ahead(self, progress: float) -> tuple[float, float]:
        """Returns the e-folds of samples that remain until the target, and their spread over the shapes.

        Args:
            progress: Present progress of the run.

        Returns:
            The geometric mean over the shapes, and the root mean square distance from it.
        """
        if progress >= 1.0:
            return 0.0, 0.0
        level = max(progress, float(LEVELS[0]))
        share = np.clip((LEVELS[1:] - level) / np.diff(LEVELS), 0.0, 1.0)
        found = self.folds @ share
        middle = math.exp(float(self.weights @ np.log(np.maximum(found, _LEAST_AHEAD))))
        return middle, math.sqrt(float(self.weights @ (found - middle) ** 2))

    def steepness(self, progress: float) -> float:
        """Returns the e-folds of samples per unit of progress, at a level of progress."""
        place = int(np.searchsorted(LEVELS, progress, side="right")) - 1
        place = min(max(place, 0), self.folds.shape[1] - 1)
        return float(self.weights @ self.folds[:, place] / (LEVELS[place + 1] - LEVELS[place]))


def template_of(passages: Sequence[Passage], prior: Array = PRIOR) -> Template:
    """Returns the template that fits the runs of one workload.

    The increments between levels that runs have passed determine the probability of each shape. The shapes
    predict the other increments.

    Args:
        passages: The passage of every run with an evaluation; may be empty.
        prior: Prior probability of each shape, `(num_shapes,)`.
    """
    if not passages:
        return Template(folds=_INCREMENTS, weights=prior)
    steps = np.diff(np.stack([passage.log_samples for passage in passages]), axis=1)
    known = np.isfinite(steps)
    count = known.sum(axis=0)
    total = np.where(known, steps, 0.0).sum(axis=0)
    passed = count > 0
    mean, expected = total[passed] / count[passed], _INCREMENTS[:, passed]
    variance = _OWN_SD**2 * expected / count[passed] + _MISFIT_SD**2
    log_weights = np.log(prior) - 0.5 * ((mean - expected) ** 2 / variance + np.log(variance)).sum(axis=1)
    weights = np.exp(log_weights - log_weights.max())
    folds = (_SHAPE_RUNS * _INCREMENTS + total) / (_SHAPE_RUNS + count)
    return Template(folds=folds, weights=weights / weights.sum())


def informed_shapes(passages: Sequence[Passage]) -> Array:
    """Returns the probability of each shape, given runs of a possibly similar workload, `(num_shapes,)`.

    The result is the average of `PRIOR` and the shape weights of the runs, so that runs of a dissimilar
    workload do little harm.

    Args:
        passages: The passage of each run; may be empty.
    """
    return np.asarray(0.5 * (PRIOR + template_of(passages).weights), dtype=float)


def variance_after(share: Array) -> Array:
    """Returns the variance of the extrapolated logarithm of samples to target, `(num,)`.

    Args:
        share: Samples processed divided by samples to target, in (0, 1), `(num,)`.
    """
    return np.asarray(FORM_SD**2 - _OWN_SD**2 * np.log(share), dtype=float)


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """The e-folds of samples that a run needs until its target, with standard deviations by cause.

    Args:
        folds: Expected e-folds of samples until the target.
        form_sd: Standard deviation because no run follows the template exactly.
        place_sd: Standard deviation because the last evaluation is noisy.
        common_sd: Standard deviation because the template is uncertain; all runs have this error in common.
    """

    folds: float
    form_sd: float
    place_sd: float
    common_sd: float


def ahead_of(passage: Passage, template: Template) -> Ahead:
    """Returns the e-folds of samples that a run needs until its target.

    If the score of a run has not clearly improved since its start, the template says little: the run needs at
    least as long as a run that has just started to improve. Otherwise the noise of an evaluation limits how
    precisely the progress is known.

    Args:
        passage: The number of samples at which the run passed each level.
        template: The template of the run's workload.
    """
    folds, common_sd = template.ahead(passage.progress)
    folds = max(folds, _LEAST_AHEAD)
    if passage.progress < LEVELS[0]:
        return Ahead(folds=folds + _STUCK_FOLDS, form_sd=_STUCK_SD, place_sd=0.0, common_sd=common_sd)
    place = min(NOISE * template.steepness(passage.progress), _MOST_PLACE_SD)
    return Ahead(folds=folds, form_sd=_OWN_SD * math.sqrt(folds), place_sd=place, common_sd=common_sd)
