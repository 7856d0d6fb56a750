"""Chance that a run never reaches its target, from the slope of its latest scores.

A run that closes what is left to the target at its present pace, by log samples, needs

    f = left / slope    e-folds of samples,

with the upper end of the slope, since noise alone must not call a run stuck. The log odds of never arriving
rise with log f and fall with the progress made:

    log odds = 3.7 + 0.75 log f - 4.2 progress.

The three constants are a logistic regression over curves of recorded workloads, each cut at random places,
where `never` means: not within the recording, which goes on for at least as long again
(`python -m benchmarks.plateaus` fits them again, each workload judged by the others).
"""

from __future__ import annotations

import math

import numpy as np

from tuner.analytic.laws import Array

#: Of the log odds: constant, factor of log f, factor of progress.
COEFFICIENTS = (3.7, 0.75, -4.2)
#: With fewer scores than this a slope says nothing; then the odds are even.
FEWEST_SCORES, UNKNOWN = 3, 0.5
#: Where the features are clipped: beyond, they say no more.
_LEAST_FOLDS, _MOST_FOLDS, _LEAST_PROGRESS = 0.05, 50.0, -0.2
#: Median of |second difference| over the standard deviation of independent noise.
SECOND_DIFFERENCE = 0.6745 * 6.0**0.5


def chance_of_never(samples: Array, progress: Array) -> float:
    """Chance that a run gains too little to reach the target, in (0, 1).

    Args:
        samples: Samples seen at each score, ascending, above 0, `(num_points,)`.
        progress: (value - start) / (target - start) at each score, below 1, `(num_points,)`.

    Returns:
        The chance; `UNKNOWN` with fewer than `FEWEST_SCORES` scores.
    """
    if len(samples) < FEWEST_SCORES:
        return UNKNOWN
    log_folds, gained = plateau_features(samples, progress)
    constant, of_log_folds, of_progress = COEFFICIENTS
    odds = constant + of_log_folds * log_folds + of_progress * gained
    return 1.0 / (1.0 + math.exp(-odds))


def plateau_features(samples: Array, progress: Array) -> tuple[float, float]:
    """What the log odds are linear in: log f, and the progress made, both clipped to an informative range.

    Args:
        samples: As for `chance_of_never`, at least `FEWEST_SCORES` scores.
        progress: Likewise.
    """
    log_folds = math.log(min(max(needed_folds(samples, progress), _LEAST_FOLDS), _MOST_FOLDS))
    return log_folds, min(max(float(progress.max()), _LEAST_PROGRESS), 1.0)


def needed_folds(samples: Array, progress: Array) -> float:
    """f: e-folds of samples until the target at the upper end of the present slope, above 0.

    The slope is that of the scores since half of the samples, at least `FEWEST_SCORES`. Its standard error
    adds the scatter around the line and the noise of single scores, by their second differences.

    Args:
        samples: As for `chance_of_never`, at least `FEWEST_SCORES` scores.
        progress: Likewise.
    """
    folds = np.log(samples)
    late = folds >= folds[-1] - math.log(2.0)
    late[-FEWEST_SCORES:] = True
    slope, error, level = fitted_line(folds[late], progress[late])
    noise = float(np.median(np.abs(np.diff(progress, 2)))) / SECOND_DIFFERENCE
    centred = folds[late] - folds[late].mean()
    error = math.hypot(error, noise / math.sqrt(float((centred**2).sum())))
    return max(1.0 - level, 1e-3) / max(slope + error, 1e-4)


def fitted_line(x: Array, y: Array) -> tuple[float, float, float]:
    """Slope of a straight line through some points, its standard error, and its value at the last point."""
    centred = x - x.mean()
    spread = float((centred**2).sum())
    slope = float((centred * y).sum()) / spread
    left = y - y.mean() - slope * centred
    error = math.sqrt(float((left**2).sum()) / max(len(x) - 2, 1) / spread)
    return slope, error, float(y.mean() + slope * centred[-1])
