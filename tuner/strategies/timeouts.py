"""Adaptive timeouts: how long to wait for something, by how long it took before."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

#: Deviations beyond the median that are still waited for (hivemind#676 asks for median + k MAD).
DEVIATIONS = 10.0
#: Scales a median absolute deviation to a normal's standard deviation.
_MAD_TO_SD = 1.4826
#: At least this many medians, since equal times have no deviation.
_LEAST_MEDIANS = 4.0
_REMEMBERED = 64


def deadline_seconds(median: float, deviation: float) -> float:
    """median + k MAD, at least some medians.

    Args:
        median: Of what was measured, seconds.
        deviation: Median absolute deviation from it, seconds.
    """
    return max(median + DEVIATIONS * _MAD_TO_SD * deviation, _LEAST_MEDIANS * median)


def median_and_deviation(seconds: Sequence[float]) -> tuple[float, float]:
    """Median, and median absolute deviation from it; at least one value."""
    values = np.asarray(seconds, dtype=float)
    middle = float(np.median(values))
    return middle, float(np.median(np.abs(values - middle)))


class AdaptiveTimeout:
    """Remembers how long something took, and computes the next timeout.

    Args:
        first_seconds: How long to wait before anything was measured.
        least_seconds: How long to wait at the least: shorter delays are the scheduler's.
    """

    def __init__(self, first_seconds: float, least_seconds: float = 0.0) -> None:
        self._first_seconds, self._least_seconds = first_seconds, least_seconds
        self._seen: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, seconds: float) -> None:
        """Remembers one."""
        self._seen.append(seconds)

    @property
    def seconds(self) -> float:
        """How long to wait now."""
        if len(self._seen) < 3:
            return self._first_seconds
        return max(deadline_seconds(*median_and_deviation(self._seen)), self._least_seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Median and median absolute deviation of what is remembered; zeros while that is too little."""
        return median_and_deviation(self._seen) if len(self._seen) >= 3 else (0.0, 0.0)
