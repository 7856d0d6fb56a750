"""The learning-curve template that all runs of a workload share, learnt from finished and unfinished runs.

Configurations of one workload share the curve's shape up to a time warp, within one phase of the schedule:
from the same level of progress they need the same number of e-folds of samples to the target. So increments
of log samples between levels are averaged over all runs that passed them, unfinished ones too. The increments
of levels that none has passed are those of a grid of shapes, each as probable as it predicts what was passed;
where the shapes differ, all runs err alike. Levels count at their first passage, as the target does.

The prior is a grid of shapes. Progress is y = (value - start) / (target - start): it starts near 0, and the
target is 1, whether the metric rises or falls. The power tail is

    y(s) = h (1 - (1 + k s^u)^(-q))

with s samples seen, h the height the curve tends to, u and q the form of its rise and of its tail, and k the
speed of the run. Solved for the samples at a level v of progress, below h,

    log s(v) = (log K(v) - log k) / u,    K(v) = (1 - v / h)^(-1 / q) - 1

so the e-folds of samples between two levels depend on the shape (h, u, q) alone. All shapes have h > 1, since
only a curve that arrives shows how long the way to the target is. The form holds within one phase of a
learning-rate schedule.

The prior of the shapes is as wide as the curves of recorded networks, of small networks trained on purpose
and of made scripts differ (`python -m benchmarks.curve_shapes`; it was chosen on most of them). Targets are
often near the best value that a network reaches, so heights close to 1, with a long last part, are as likely
as high ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import Array

#: Grid of shapes: (h, u, q) from curves that level off just above the target to those that level off at twice
#: of it, from rises that begin at once to those that wait, from long tails to short ones.
_HEIGHTS = 1.0 + np.exp(np.linspace(np.log(0.004), 0.0, 8))
_RISES = np.exp(np.linspace(np.log(0.6), np.log(2.8), 6))
_TAILS = np.exp(np.linspace(np.log(0.3), np.log(6.0), 6))
#: Means and standard deviations of log(h - 1), log u and log q.
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
    """e-folds of samples between levels of progress, of every shape.

    Args:
        levels: Ascending, in (0, 1], `(num_levels,)`.

    Returns:
        `(num_shapes, num_levels - 1)`.
    """
    height, rise, tail = SHAPES.T[:, :, None]
    # log K / u of every level for every shape.
    at = np.log((1.0 - levels / height) ** (-1.0 / tail) - 1.0) / rise
    return np.asarray(np.diff(at, axis=1))


LEVELS = np.array(
    [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.76, 0.81, 0.85, 0.89, 0.92, 0.945, 0.965, 0.985, 1.0]
)
_INCREMENTS = increments_of_shapes(LEVELS)
#: How many runs a shape's increment is worth where runs have passed both levels.
_SHAPE_RUNS = 0.3
#: What no shape of the grid explains of an increment: standard deviation, however many runs show it.
_MISFIT_SD = 0.16
#: A run differs from the template by this much times the root of the e-folds that lie ahead.
_OWN_SD = 0.33
#: What is unsure of log samples however late: standard deviation.
FORM_SD = 0.05
#: Noise of the furthest progress, in units of progress.
NOISE = 0.015
#: A run that has not left its start needs about so many e-folds more than one that just left it. The standard
#: deviation is large: it may leave soon, late or never, and other runs must not be expected to be as late.
_STUCK_FOLDS, _STUCK_SD = 0.5, 1.3
#: The noise of one evaluation adds at most this standard deviation.
_MOST_PLACE_SD = 0.8
_LEAST_AHEAD = 0.02


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A run's first passages.

    Args:
        log_samples: Logarithm of samples at the first passage of each of `LEVELS`; NaN if not passed, or
            passed before the first evaluation, `(num_levels,)`.
        log_seen: Logarithm of samples at the last evaluation.
        progress: The furthest progress it reached.
    """

    log_samples: Array
    log_seen: float
    progress: float


def passage_of(samples: Array, progress: Array) -> Passage:
    """First passages of a run's levels, linear in log samples between scorings.

    Args:
        samples: Samples seen at each evaluation, ascending, above 0, at least one, `(num_points,)`.
        progress: At each evaluation, `(num_points,)`.
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
    """e-folds of samples from each level to the next.

    Args:
        folds: If a shape is the true one, `(num_shapes, num_levels - 1)`.
        weights: Probability of each shape, `(num_shapes,)`.
    """

    folds: Array
    weights: Array

    def ahead(self, progress: float) -> tuple[float, float]:
        """e-folds from a level of progress to the target, and how much shapes differ from that.

        The first is the geometric mean of the shapes, since they differ by factors and few are very long; the
        second is their root mean square distance from it.
        """
        if progress >= 1.0:
            return 0.0, 0.0
        level = max(progress, float(LEVELS[0]))
        share = np.clip((LEVELS[1:] - level) / np.diff(LEVELS), 0.0, 1.0)
        found = self.folds @ share
        middle = math.exp(float(self.weights @ np.log(np.maximum(found, _LEAST_AHEAD))))
        return middle, math.sqrt(float(self.weights @ (found - middle) ** 2))

    def steepness(self, progress: float) -> float:
        """e-folds of samples that a unit of progress takes there; the largest of the ends beyond them."""
        place = int(np.searchsorted(LEVELS, progress, side="right")) - 1
        place = min(max(place, 0), self.folds.shape[1] - 1)
        return float(self.weights @ self.folds[:, place] / (LEVELS[place + 1] - LEVELS[place]))


def template_of(passages: Sequence[Passage], prior: Array = PRIOR) -> Template:
    """The template that runs of one workload share.

    Increments that runs have passed say which shapes are probable, and these say how long the others are.

    Args:
        passages: Of every run with an evaluation; may be empty.
        prior: Probability of each shape before, `(num_shapes,)`.
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
    """Probability of each shape if runs of what may be a similar workload were seen, `(num_shapes,)`.

    Half of it is as they say, half as without them, so that a workload with other curves costs little.

    Args:
        passages: Of the runs; may be empty.
    """
    return np.asarray(0.5 * (PRIOR + template_of(passages).weights), dtype=float)


def variance_after(share: Array) -> Array:
    """Variance of log samples to target of runs of which so much is known, `(num,)`.

    Args:
        share: Of the whole run, in (0, 1), `(num,)`.
    """
    return np.asarray(FORM_SD**2 - _OWN_SD**2 * np.log(share), dtype=float)


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """What remains of a run.

    Args:
        folds: e-folds of samples to the target.
        form_sd: Their standard deviation, since no run follows the template exactly.
        place_sd: What the noise of the last evaluation adds to it.
        common_sd: What is unknown of the template: their standard deviation, common to all runs.
    """

    folds: float
    form_sd: float
    place_sd: float
    common_sd: float


def ahead_of(passage: Passage, template: Template) -> Ahead:
    """What is left of a run.

    A run that has not left its start shows little more than that it needs longer. One that has left it is
    located on the template as precisely as the noise of an evaluation allows.

    Args:
        passage: Of the run.
        template: That it shares.
    """
    folds, common_sd = template.ahead(passage.progress)
    folds = max(folds, _LEAST_AHEAD)
    if passage.progress < LEVELS[0]:
        return Ahead(folds=folds + _STUCK_FOLDS, form_sd=_STUCK_SD, place_sd=0.0, common_sd=common_sd)
    place = min(NOISE * template.steepness(passage.progress), _MOST_PLACE_SD)
    return Ahead(folds=folds, form_sd=_OWN_SD * math.sqrt(folds), place_sd=place, common_sd=common_sd)
