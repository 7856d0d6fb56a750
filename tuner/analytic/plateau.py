"""Chance that a run never reaches its target, from the slope of its latest scores.

A run that closes what is left to the target at its present pace, by log samples, needs

    f = left / slope    e-folds of samples,

with the upper end of the slope, since noise alone must not call a run stuck. The log odds of never arriving
are linear in log f and in the progress made. Two kinds of run differ:

- A recorded run ends where its recording does: one that has gained little needs too long. The constants are
  a logistic regression over curves of recorded workloads, each cut at random places, where `never` means: not
  within the recording, which goes on for at least as long again (`python -m benchmarks.plateaus` fits them
  again, each workload judged by the others).
- A run that trains goes on as long as it is paid for: one that has gained much and slows down has levelled
  off. The constants were chosen on made scripts, of which some level off or turn back below the target, with
  a lower constant than fitted, since users choose their targets for scripts that they know
  (`python -m benchmarks.made_scripts --fit` fits them to other ones).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import Array


@dataclass(frozen=True, kw_only=True)
class NeverOdds:
    """Log odds that a run never arrives.

    Args:
        constant: Their constant.
        of_log_folds: Factor of log f.
        of_progress: Factor of the progress made.
        unknown: The chance while a run has fewer than `FEWEST_SCORES` scores.
    """

    constant: float
    of_log_folds: float
    of_progress: float
    unknown: float


#: Of recorded runs, and of runs that train as long as they need.
RECORDED = NeverOdds(constant=3.7, of_log_folds=0.75, of_progress=-4.2, unknown=0.5)
TRAINED = NeverOdds(constant=-3.2, of_log_folds=0.75, of_progress=2.9, unknown=0.2)
#: With fewer scores than this a slope says nothing.
FEWEST_SCORES = 3
#: Where the features are clipped: beyond, they say no more.
_LEAST_FOLDS, _MOST_FOLDS, _LEAST_PROGRESS = 0.05, 50.0, -0.2
#: Median of |second difference| over the standard deviation of independent noise.
SECOND_DIFFERENCE = 0.6745 * 6.0**0.5


def chance_of_never(samples: Array, progress: Array, odds: NeverOdds) -> float:
    """Chance that a run gains too little to reach the target, in (0, 1).

    Args:
        samples: Samples seen at each score, ascending, above 0, `(num_points,)`.
        progress: (value - start) / (target - start) at each score, below 1, `(num_points,)`.
        odds: Of the kind of run.
    """
    if len(samples) < FEWEST_SCORES:
        return odds.unknown
    log_folds, gained = plateau_features(samples, progress)
    log_odds = odds.constant + odds.of_log_folds * log_folds + odds.of_progress * gained
    return 1.0 / (1.0 + math.exp(-log_odds))


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
