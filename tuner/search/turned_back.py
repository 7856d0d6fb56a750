"""Curves that turn back: a run that overfits has passed its best value and gets worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.domain.measurement import CurvePoint

#: The best value lies at least so many scores, and this share of the run's samples, behind.
_FEWEST_LATER, _LATER_SHARE = 3, 0.25
#: Later values are worse than the best by more than so many standard deviations of the noise, and by this
#: share of what the run has gained.
_NOISE_FACTOR, _GAIN_SHARE = 3.0, 0.005
#: Median of |second difference| over the standard deviation of independent noise.
_SECOND_DIFFERENCE = 0.6745 * 6.0**0.5


@dataclass(frozen=True, kw_only=True)
class TurnedBack:
    """Where a run turned back.

    Args:
        best: Its best value.
        samples: Samples seen at it.
        last: Its last value.
    """

    best: float
    samples: int
    last: float


def turned_back(curve: Sequence[CurvePoint], *, maximize: bool) -> TurnedBack | None:
    """Where a curve turned back; None while it may still gain.

    Args:
        curve: Evaluations in order of samples, without that of the untrained model.
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
    # Of the later half: earlier, a curve that falls steeply bends more than it scatters.
    recent = values[min(best, len(values) // 2) :]
    noise = float(np.median(np.abs(np.diff(recent, 2)))) / _SECOND_DIFFERENCE
    clearly = max(_NOISE_FACTOR * noise, _GAIN_SHARE * float(values[best] - values[0]), 1e-12)
    half = len(later) // 2
    # Of a plateau with noise the best single value lies far from the others, but not that of three in a row.
    around = float(values[max(best - 1, 0) : best + 2].mean())
    is_worse = float(later[-_FEWEST_LATER:].mean()) < around - clearly
    gets_worse = float(later[half:].mean()) <= float(later[:half].mean())
    if not (is_worse and gets_worse):
        return None
    return TurnedBack(best=curve[best].value, samples=curve[best].samples, last=last.value)
