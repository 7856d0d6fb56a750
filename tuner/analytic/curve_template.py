"""Learning-curve template: the shape of the learning curve that all runs of a workload have in common.

Training progress is y = (value - start) / (target - start), where value is the metric's present value and
start its first value. Progress starts near 0 and is 1 at the target, whether the metric rises or falls. An
e-fold is a factor of e in the number of samples processed: a difference of 1 in its logarithm.

Assumption: within one phase of the learning-rate schedule, all configurations of a workload need the same
number of e-folds to get from one level of progress to the next. A run passes a level (or the target) when its
progress first reaches it.

- If runs have passed two neighboring levels, the template averages the e-folds that these runs needed from
  the lower to the higher level. Unfinished runs contribute too.
- For levels that no run has passed, the template averages over many possible curve shapes. The weight of a
  shape depends on how well it predicts the e-folds between the levels that runs have passed. Where the shapes
  differ, the prediction is uncertain, by the same error for all runs.

A shape is a power law:

    y(s) = h (1 - (1 + k s^u)^(-q))

- s: number of samples processed.
- h: progress that the curve approaches at the end.
- u: exponent of the early rise.
- q: exponent of the approach to h; the smaller q, the longer the tail.
- k: speed of the run; only k differs between the runs of a workload.

Solved for the number of samples at which the progress is v < h,

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

#: Grid of the shape parameters h, u and q of the module docstring. h ranges from just above the target to
#: twice the target.
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
    """Returns by which factors the number of samples grows between levels of progress, as logarithms.

    Training progress is 0 at the first value of the metric and 1 at the target. There is one row for each
    possible shape (`SHAPES`) of the learning curve.

    Args:
        levels: Levels of progress, ascending, in (0, 1], `(num_levels,)`.

    Returns:
        Differences of the logarithm of samples between neighboring levels, `(num_shapes, num_levels - 1)`.
    """
    height, rise, tail = SHAPES.T[:, :, None]
    log_samples = np.log((1.0 - levels / height) ** (-1.0 / tail) - 1.0) / rise
    return np.asarray(np.diff(log_samples, axis=1))


LEVELS = np.array(
    [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.76, 0.81, 0.85, 0.89, 0.92, 0.945, 0.965, 0.985, 1.0]
)
_INCREMENTS = increments_of_shapes(LEVELS)
#: Weight of the e-folds that a shape predicts, in the average with the e-folds that runs needed; each run has
#: weight 1.
_SHAPE_RUNS = 0.3
#: Standard deviation, in e-folds between two levels, of the error of every shape of the grid. It does not
#: become smaller if more runs are averaged.
_MISFIT_SD = 0.16
#: Standard deviation of the difference between a run and the template, in the logarithm of samples to target,
#: per square root of the remaining e-folds.
_OWN_SD = 0.33
#: Standard deviation of the logarithm of samples to target that remains even just before the target is
#: reached.
FORM_SD = 0.05
#: Standard deviation of a run's best progress so far, caused by the noise of an evaluation.
NOISE = 0.015
#: E-folds that a run without progress needs in addition to those of a run that has just reached the first
#: level (`LEVELS[0]`), and their standard deviation. It is large, since the score may start to improve soon,
#: late or never. This error is assumed to be independent between runs.
_STUCK_FOLDS, _STUCK_SD = 0.5, 1.3
#: Largest standard deviation of the logarithm of samples to target that the noise of one evaluation may add.
_MOST_PLACE_SD = 0.8
_LEAST_AHEAD = 0.02


@dataclass(frozen=True, kw_only=True)
class Passage:
    """The number of samples after which a run first reached each level of training progress.

    Training progress is 0 at the first value of the metric and 1 at the target; the levels are `LEVELS`.

    Args:
        log_samples: Logarithm of the number of samples processed when the run first reached each level,
            `(num_levels,)`. It is NaN for a level that the run has not reached, and for a level that it had
            already reached at its first evaluation.
        log_seen: Logarithm of the number of samples processed at the last evaluation.
        progress: The best training progress of all evaluations.
    """

    log_samples: Array
    log_seen: float
    progress: float


def passage_of(samples: Array, progress: Array) -> Passage:
    """Computes the number of samples after which a run first reached each level of training progress.

    Training progress is 0 at the first value of the metric and 1 at the target. Between evaluations, it is
    interpolated linearly over the logarithm of samples.

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
    """How fast runs of one workload make progress: e-folds of samples between levels of progress.

    An e-fold is a factor of e in the number of samples. Training progress is 0 at the first value of the
    metric and 1 at the target; its levels are `LEVELS`.

    Args:
        folds: E-folds of samples from each level to the next one. For each possible shape of the learning
            curve, they are the average of what the shape predicts and what runs needed, `(num_shapes,
            num_levels - 1)`.
        weights: Posterior probability of each shape of the learning curve, `(num_shapes,)`.
    """

    folds: Array
    weights: Array

    def ahead(self, progress: float) -> tuple[float, float]:
        """Predicts how many more samples a run needs from its present progress to the target.

        The result is in e-folds: factors of e in the number of samples.

        Args:
            progress: Present progress of the run, 0 at the first value of the metric and 1 at the target.

        Returns:
            Two numbers: the geometric mean of the e-folds over the possible shapes of the learning curve, and
            the root mean square difference of the shapes from that mean.
        """
        if progress >= 1.0:
            return 0.0, 0.0
        level = max(progress, float(LEVELS[0]))
        share = np.clip((LEVELS[1:] - level) / np.diff(LEVELS), 0.0, 1.0)
        found = self.folds @ share
        middle = math.exp(float(self.weights @ np.log(np.maximum(found, _LEAST_AHEAD))))
        return middle, math.sqrt(float(self.weights @ (found - middle) ** 2))

    def steepness(self, progress: float) -> float:
        """Returns how fast log samples grow with progress, where the progress has the given value."""
        place = int(np.searchsorted(LEVELS, progress, side="right")) - 1
        place = min(max(place, 0), self.folds.shape[1] - 1)
        return float(self.weights @ self.folds[:, place] / (LEVELS[place + 1] - LEVELS[place]))


def template_of(passages: Sequence[Passage], prior: Array = PRIOR) -> Template:
    """Fits the learning-curve template to the runs of one workload.

    The runs determine how probable each possible shape of the learning curve is. Where no run has come yet,
    the shapes predict how many samples are needed.

    Args:
        passages: For every run with an evaluation, the number of samples at which it reached each level of
            progress; may be empty.
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
    """Computes how probable each shape of the learning curve is, given runs of possibly another workload.

    The result, `(num_shapes,)`, is the average of `PRIOR` and of the shapes' probability given those runs. If
    the workloads are dissimilar, the runs therefore do little harm.

    Args:
        passages: For each of those runs, the number of samples at which it reached each level of progress;
            may be empty.
    """
    return np.asarray(0.5 * (PRIOR + template_of(passages).weights), dtype=float)


def variance_after(share: Array) -> Array:
    """Returns how uncertain the logarithm of samples to target is after a part of the training, `(num,)`.

    It is the variance of the error with which the learning curve is extrapolated to the target.

    Args:
        share: Samples processed divided by samples to target, in (0, 1), `(num,)`.
    """
    return np.asarray(FORM_SD**2 - _OWN_SD**2 * np.log(share), dtype=float)


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """How many more samples a run needs to its target, in e-folds (factors of e), and how uncertain this is.

    Args:
        folds: Expected e-folds of samples until the target.
        form_sd: Standard deviation of the error that arises because no run follows the template exactly.
        place_sd: Standard deviation of the error that arises because the last evaluation is noisy.
        common_sd: Standard deviation of the error that arises because the template is uncertain. This error
            is the same for all runs.
    """

    folds: float
    form_sd: float
    place_sd: float
    common_sd: float


def ahead_of(passage: Passage, template: Template) -> Ahead:
    """Predicts how many more samples a run needs from its last evaluation to its target.

    - If the run has made almost no progress (less than `LEVELS[0]`), the template says little. The result is
      the number of e-folds (factors of e in samples) from that level on, plus `_STUCK_FOLDS`.
    - Otherwise, the result is the number of e-folds from the present progress, which is known only up to the
      noise of an evaluation.

    Args:
        passage: The number of samples at which the run reached each level of progress.
        template: The learning-curve template of the run's workload.
    """
    folds, common_sd = template.ahead(passage.progress)
    folds = max(folds, _LEAST_AHEAD)
    if passage.progress < LEVELS[0]:
        return Ahead(folds=folds + _STUCK_FOLDS, form_sd=_STUCK_SD, place_sd=0.0, common_sd=common_sd)
    place = min(NOISE * template.steepness(passage.progress), _MOST_PLACE_SD)
    return Ahead(folds=folds, form_sd=_OWN_SD * math.sqrt(folds), place_sd=place, common_sd=common_sd)
