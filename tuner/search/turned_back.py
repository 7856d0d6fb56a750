"""Detect runs whose metric gets worse again (for example by overfitting) or levels off before the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import NINETY_PERCENT
from tuner.analytic.plateau import SECOND_DIFFERENCE, fitted_line
from tuner.domain.measurement import CurvePoint

#: The scores of a run count as getting worse only if at least this number of scores, and this share of all
#: processed samples, come after the best score.
_FEWEST_LATER, _LATER_SHARE = 3, 0.25
#: The later scores must be worse than the best score by this number of standard deviations of the noise, and
#: by this share of the difference between the best score and the first score.
_NOISE_FACTOR, _GAIN_SHARE = 3.0, 0.005
#: In addition, the later scores must be worse by this share of the difference between best score and target.
_LOSS_SHARE = 0.05
#: A run has levelled off if three conditions hold. (1) Its progress to the target is at least
#: `_LEAST_PROGRESS`. (2) Let the present slope be the change of the score per change of the logarithm of
#: samples. With the upper bound of this slope, the logarithm of samples would have to increase by at least
#: `_MOST_FOLDS` until the target. (3) The slope was at least `_SLOWED` times as steep before.
_LEAST_PROGRESS, _MOST_FOLDS, _SLOWED = 0.3, float(np.log(10.0)), 3.0
#: Minimum number of scores in the later half of the processed samples, to which the present slope is fitted.
_FEWEST_OF_HALF = 5


@dataclass(frozen=True, kw_only=True)
class TurnedBack:
    """The best score of a run that has stopped improving.

    Args:
        best: The best score of the run.
        levelled_off: Whether the run hardly improves any more. If not, its scores have been getting worse.
    """

    best: float
    levelled_off: bool = False


def turned_back(curve: Sequence[CurvePoint], target: float, *, maximize: bool) -> TurnedBack | None:
    """Detects a run whose scores get worse after the best one, for example by overfitting.

    The scores must have become worse by more than their noise, and must be worse up to the last score.

    Args:
        curve: Scores of the run, ordered by samples processed, without the score of the untrained model.
        target: The value of the metric that the run has to reach.
        maximize: Whether larger values are better.

    Returns:
        The best score; None if the run may still improve.
    """
    if len(curve) < _FEWEST_LATER + 2:
        return None
    sign = 1.0 if maximize else -1.0
    values = sign * np.array([point.value for point in curve])
    best = int(np.argmax(values))
    later, last = values[best + 1 :], curve[-1]
    if len(later) < _FEWEST_LATER or last.samples - curve[best].samples < _LATER_SHARE * last.samples:
        return None
    # Estimate the noise from the later half of the scores. At the steep start of a curve, second differences
    # come from the curvature and not from noise.
    recent = values[min(best, len(values) // 2) :]
    noise = float(np.median(np.abs(np.diff(recent, 2)))) / SECOND_DIFFERENCE
    clearly = max(_NOISE_FACTOR * noise, _GAIN_SHARE * float(values[best] - values[0]), 1e-12)
    # If a run has hardly improved yet, a small decrease does not show that its improvement has ended.
    clearly = max(clearly, _LOSS_SHARE * (sign * target - float(values[best])))
    half = len(later) // 2
    # The best of many noisy scores is an outlier. So compare with the mean of the best score and its
    # neighbors.
    around = float(values[max(best - 1, 0) : best + 2].mean())
    is_worse = float(later[-_FEWEST_LATER:].mean()) < around - clearly
    gets_worse = float(later[half:].mean()) <= float(later[:half].mean())
    if not (is_worse and gets_worse):
        return None
    return TurnedBack(best=curve[best].value)


def levelled_off(curve: Sequence[CurvePoint], target: float, *, maximize: bool) -> TurnedBack | None:
    """Detects a run that has nearly stopped improving before it reached the target.

    A run that has hardly improved since its start does not count, because many runs start to improve late.

    Args:
        curve: Scores of the run, ordered by samples processed, without the score of the untrained model.
        target: The value of the metric that the run has to reach.
        maximize: Whether larger values are better.

    Returns:
        The best score; None if the run may still reach the target.
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
