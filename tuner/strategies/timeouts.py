"""Adaptive timeouts, computed from how long something took before."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

#: k in the timeout median + k MAD (as in hivemind#676).
DEVIATIONS = 10.0
#: Standard deviation of a normal over its median absolute deviation.
_MAD_TO_SD = 1.4826
#: Smallest timeout, in medians, since equal times have no deviation.
_LEAST_MEDIANS = 4.0
_REMEMBERED = 64


def deadline_seconds(median: float, deviation: float) -> float:
    """The timeout in seconds: median + k MAD, at least `_LEAST_MEDIANS` medians.

    Args:
        median: Median of the measured times, seconds.
        deviation: Median absolute deviation, seconds.
    """
    return max(median + DEVIATIONS * _MAD_TO_SD * deviation, _LEAST_MEDIANS * median)


def median_and_deviation(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and median absolute deviation of at least one time, seconds."""
    values = np.asarray(seconds, dtype=float)
    middle = float(np.median(values))
    return middle, float(np.median(np.abs(values - middle)))


class AdaptiveTimeout:
    """Stores how long something took, and computes the next timeout.

    Args:
        first_seconds: The timeout before three times are known.
        least_seconds: Smallest timeout, so that scheduling delays are tolerated.
    """

    def __init__(self, first_seconds: float, least_seconds: float = 0.0) -> None:
        self._first_seconds, self._least_seconds = first_seconds, least_seconds
        self._seen: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, seconds: float) -> None:
        """Stores one measured time, seconds."""
        self._seen.append(seconds)

    @property
    def seconds(self) -> float:
        """The present timeout, seconds."""
        if len(self._seen) < 3:
            return self._first_seconds
        return max(deadline_seconds(*median_and_deviation(self._seen)), self._least_seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Median and median absolute deviation of the stored times; zeros for fewer than three."""
        return median_and_deviation(self._seen) if len(self._seen) >= 3 else (0.0, 0.0)
