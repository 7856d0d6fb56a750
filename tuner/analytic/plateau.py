"""Estimates the probability that a run never reaches its target, from the slope of its latest scores.

Training progress is 0 at the first score of the metric and 1 at the target. The slope is the gain of progress
per e-fold (factor of e) of samples processed. At its present slope, a run needs

    f = (1 - progress) / slope    e-folds of samples

to reach the target. The slope in this formula is the estimate plus its standard error, so noise alone does
not make a run look stuck. The log odds of never reaching the target are linear in log f and in the progress.
The coefficients differ between two kinds of run:

- Recorded runs: a learning curve that was recorded before and cannot be continued. Such a run with little
  progress is unlikely to reach the target before the recording ends. The coefficients are from a logistic
  regression over recorded curves that were truncated at random. "Never" means not within the recording, which
  is at least twice as long as the truncated curve (`python -m benchmarks.plateaus` repeats the fit).
- Runs that train now and can continue: such a run with much progress that slows down has probably leveled
  off. The coefficients were chosen on synthetic scripts, some of which level off or get worse below the
  target. The constant term is lower than fitted, since users choose targets for scripts that they know
  (`python -m benchmarks.made_scripts --fit` repeats the fit).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import Array


@dataclass(frozen=True, kw_only=True)
class NeverOdds:
    """Coefficients of the log odds that a run never reaches its target, for one kind of run.

    The log odds are a linear function of the training progress and of log f. f is the number of e-folds
    (factors of e) of samples that the run needs to the target at its present slope.

    Args:
        constant: Constant term of the log odds.
        of_log_folds: Factor of log f.
        of_progress: Factor of the progress.
        unknown: Probability (not log odds) for a run with fewer than `FEWEST_SCORES` scores.
    """

    constant: float
    of_log_folds: float
    of_progress: float
    unknown: float


#: Coefficients for recorded runs, and for runs that can train as long as they need.
RECORDED = NeverOdds(constant=3.7, of_log_folds=0.75, of_progress=-4.2, unknown=0.5)
TRAINED = NeverOdds(constant=-3.2, of_log_folds=0.75, of_progress=2.9, unknown=0.2)
#: Smallest number of scores from which a slope is estimated.
FEWEST_SCORES = 3
#: f is clamped to [`_LEAST_FOLDS`, `_MOST_FOLDS`], and the progress to at least `_LEAST_PROGRESS`.
_LEAST_FOLDS, _MOST_FOLDS, _LEAST_PROGRESS = 0.05, 50.0, -0.2
#: For independent normal noise: the median of |x_i - 2 x_(i+1) + x_(i+2)|, divided by the standard deviation
#: of x_i. It converts the median to an estimate of the standard deviation.
SECOND_DIFFERENCE = 0.6745 * 6.0**0.5


def chance_of_never(samples: Array, progress: Array, odds: NeverOdds) -> float:
    """Estimates the probability that a run never reaches its target, from its evaluations so far, in (0, 1).

    Args:
        samples: Number of samples processed at each score, ascending, above 0, `(num_points,)`.
        progress: Training progress at each score, 0 at the first value of the metric and 1 at the target,
            below 1, `(num_points,)`.
        odds: Coefficients for the kind of run.
    """
    if len(samples) < FEWEST_SCORES:
        return odds.unknown
    log_folds, gained = plateau_features(samples, progress)
    log_odds = odds.constant + odds.of_log_folds * log_folds + odds.of_progress * gained
    return 1.0 / (1.0 + math.exp(-log_odds))


def plateau_features(samples: Array, progress: Array) -> tuple[float, float]:
    """Computes two numbers from which the probability of missing the target is predicted.

    The first is the logarithm of `needed_folds`: by how many factors of e the number of samples must still
    grow. The second is the best progress so far. Both are limited to a range.

    Args:
        samples: Number of samples processed at each score, as for `chance_of_never`; at least `FEWEST_SCORES`
            scores.
        progress: Training progress at each score, as for `chance_of_never`.
    """
    log_folds = math.log(min(max(needed_folds(samples, progress), _LEAST_FOLDS), _MOST_FOLDS))
    return log_folds, min(max(float(progress.max()), _LEAST_PROGRESS), 1.0)


def needed_folds(samples: Array, progress: Array) -> float:
    """Estimates how many more samples a run needs to its target at its present slope, in e-folds.

    An e-fold is a factor of e in the number of samples. The slope is that of a line through the scores of the
    second half of the samples, or through the last `FEWEST_SCORES` scores if the half has fewer. Its standard
    error is added to it. The error combines the scatter around the line with the noise of single scores,
    which is estimated from the second differences of the progress.

    Args:
        samples: Number of samples processed at each score, as for `chance_of_never`; at least `FEWEST_SCORES`
            scores.
        progress: Training progress at each score, as for `chance_of_never`.
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
    """Fits a line by least squares; returns its slope, the slope's standard error, and the last value.

    Args:
        x: Horizontal positions of the points, `(num_points,)` with at least two different values.
        y: Values at these positions, `(num_points,)`.
    """
    centred = x - x.mean()
    spread = float((centred**2).sum())
    slope = float((centred * y).sum()) / spread
    left = y - y.mean() - slope * centred
    error = math.sqrt(float((left**2).sum()) / max(len(x) - 2, 1) / spread)
    return slope, error, float(y.mean() + slope * centred[-1])
