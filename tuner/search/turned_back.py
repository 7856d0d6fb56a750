"""Detect learning curves that turn back (for example by overfitting) or level off before the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import NINETY_PERCENT
from tuner.analytic.plateau import SECOND_DIFFERENCE, fitted_line
from tuner.domain.measurement import CurvePoint

#: Minimum number of scores after the best one, and minimum share of the run's samples after it.
_FEWEST_LATER, _LATER_SHARE = 3, 0.25
#: Later values must be worse than the best one by this number of standard deviations of the noise, and by
#: this share of the run's gain so far.
_NOISE_FACTOR, _GAIN_SHARE = 3.0, 0.005
#: They must also be worse by this share of the distance from the best value to the target.
_LOSS_SHARE = 0.05
#: Conditions of levelling off. The run has made this share of the progress to the target. At the upper bound
#: of its slope over log samples, it would need this factor (log) more samples to reach the target. The slope
#: was this many times as steep before.
_LEAST_PROGRESS, _MOST_FOLDS, _SLOWED = 0.3, float(np.log(10.0)), 3.0
#: Minimum number of scores in the later half of the samples, to fit a slope.
_FEWEST_OF_HALF = 5


@dataclass(frozen=True, kw_only=True)
class TurnedBack:
    """The end of a run's improvement.

    Args:
        best: Its best value.
        levelled_off: Whether the run hardly improves since, rather than getting worse.
    """

    best: float
    levelled_off: bool = False


def turned_back(curve: Sequence[CurvePoint], target: float, *, maximize: bool) -> TurnedBack | None:
    """Where a curve turned back; None while it may still improve.

    Args:
        curve: Scores in order of samples, without the untrained model's.
        target: The value that counts as reached.
        maximize: Whether larger values are better.
    """
    if len(curve) < _FEWEST_LATER + 2:
        return None
    sign = 1.0 if maximize else -1.0
    values = sign * np.array([point.value for point in curve])
    best = int(np.argmax(values))
    later, last = values[best + 1 :], curve[-1]
    if len(later) < _FEWEST_LATER or last.samples - curve[best].samples < _LATER_SHARE * last.samples:
        return None
    # Estimate the noise from the later half: a steep curve bends more than it scatters.
    recent = values[min(best, len(values) // 2) :]
    noise = float(np.median(np.abs(np.diff(recent, 2)))) / SECOND_DIFFERENCE
    clearly = max(_NOISE_FACTOR * noise, _GAIN_SHARE * float(values[best] - values[0]), 1e-12)
    # A small loss says nothing about a run that has hardly improved.
    clearly = max(clearly, _LOSS_SHARE * (sign * target - float(values[best])))
    half = len(later) // 2
    # On a noisy plateau the best single value is an outlier, but the mean of three neighbors is not.
    around = float(values[max(best - 1, 0) : best + 2].mean())
    is_worse = float(later[-_FEWEST_LATER:].mean()) < around - clearly
    gets_worse = float(later[half:].mean()) <= float(later[:half].mean())
    if not (is_worse and gets_worse):
        return None
    return TurnedBack(best=curve[best].value)


def levelled_off(curve: Sequence[CurvePoint], target: float, *, maximize: bool) -> TurnedBack | None:
    """Where a curve has levelled off below its target; None while it may still reach it.

    It has not if it has hardly improved yet, or if it still improves about as fast as before.

    Args:
        curve: Scores in order of samples, without the score of the untrained model.
        target: The value that counts as reached.
        maximize: Whether larger values are better.
    """
    if len(curve) < 2 * _FEWEST_OF_HALF:
        return None
    sign = 1.0 if maximize else -1.0
    folds = np.log([float(point.samples) for point in curve])
    values = sign * np.array([point.value for point in curve])
    later = folds >= folds[-1] - np.log(2.0)
    missing, span = sign * target - float(values[later].mean()), sign * target - float(values[0])
    if later.sum() < _FEWEST_OF_HALF or (~later).sum() < 2 or missing <= 0 or span <= 0:
        return None
    slope, error, _ = fitted_line(folds[later], values[later])
    before = (float(values[later][0]) - float(values[0])) / (float(folds[later][0]) - float(folds[0]))
    needs = missing / max(slope + NINETY_PERCENT * error, 1e-12)
    if missing / span > 1.0 - _LEAST_PROGRESS or needs < _MOST_FOLDS or before < _SLOWED * abs(slope):
        return None
    return TurnedBack(best=curve[int(np.argmax(values))].value, levelled_off=True)
