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
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_CONSTANT, _OF_LOG_FOLDS, _OF_PROGRESS = 3.7, 0.75, -4.2
#: With fewer scores than this a slope says nothing; then this is the chance.
FEWEST_SCORES, UNKNOWN = 3, 0.25
#: Median of |second difference| over the standard deviation of independent noise.
_SECOND_DIFFERENCE = 0.6745 * 6.0**0.5


def chance_of_never(samples: Array, progress: Array) -> float:
    """Chance that a run gains too little to reach the target, in (0, 1).

    Args:
        samples: Samples seen at each score, ascending, above 0, `(num_points,)`.
        progress: (value - start) / (target - start) at each score, below 1, `(num_points,)`.
    """
    if len(samples) < FEWEST_SCORES:
        return UNKNOWN
    folds = np.log(samples)
    late = folds >= folds[-1] - math.log(2.0)
    late[-FEWEST_SCORES:] = True
    slope, error, level = _line(folds[late], progress[late])
    noise = float(np.median(np.abs(np.diff(progress, 2)))) / _SECOND_DIFFERENCE
    centred = folds[late] - folds[late].mean()
    error = math.hypot(error, noise / math.sqrt(float((centred**2).sum())))
    needed = max(1.0 - level, 1e-3) / max(slope + error, 1e-4)
    odds = _CONSTANT + _OF_LOG_FOLDS * math.log(min(max(needed, 0.05), 50.0))
    odds += _OF_PROGRESS * min(max(float(progress.max()), -0.2), 1.0)
    return 1.0 / (1.0 + math.exp(-odds))


def _line(x: Array, y: Array) -> tuple[float, float, float]:
    """Slope of a straight line through some points, its standard error, and its value at the last point."""
    centred = x - x.mean()
    spread = float((centred**2).sum())
    slope = float((centred * y).sum()) / spread
    left = y - y.mean() - slope * centred
    error = math.sqrt(float((left**2).sum()) / max(len(x) - 2, 1) / spread)
    return slope, error, float(y.mean() + slope * centred[-1])
