"""Adaptive timeouts, computed from earlier durations of the same operation."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

#: Factor k of the timeout, median + k MAD (as in hivemind#676). MAD is the median absolute deviation,
#: multiplied by `_MAD_TO_SD`; for normally distributed durations it then equals the standard deviation.
DEVIATIONS = 10.0
#: Standard deviation of a normal distribution divided by its median absolute deviation.
_MAD_TO_SD = 1.4826
#: Smallest timeout, as a multiple of the median. It matters if all durations are equal, since MAD is then 0.
_LEAST_MEDIANS = 4.0
_REMEMBERED = 64


def deadline_seconds(median: float, deviation: float) -> float:
    """Returns a timeout in seconds: the median plus `DEVIATIONS` standard deviations.

    The standard deviation is estimated from the median absolute deviation. The timeout is at least
    `_LEAST_MEDIANS` times the median.

    Args:
        median: Median of the measured durations, seconds.
        deviation: Median absolute deviation of the durations, seconds.
    """
    return max(median + DEVIATIONS * _MAD_TO_SD * deviation, _LEAST_MEDIANS * median)


def median_and_deviation(seconds: Sequence[float]) -> tuple[float, float]:
    """Returns the median and the median absolute deviation of at least one duration, seconds."""
    values = np.asarray(seconds, dtype=float)
    middle = float(np.median(values))
    return middle, float(np.median(np.abs(values - middle)))


class AdaptiveTimeout:
    """Stores the latest durations of an operation, and computes the timeout of the next one.

    Args:
        first_seconds: Timeout while fewer than three durations are known, seconds.
        least_seconds: Smallest timeout, seconds; it tolerates delays by the operating system's scheduler.
    """

    def __init__(self, first_seconds: float, least_seconds: float = 0.0) -> None:
        self._first_seconds, self._least_seconds = first_seconds, least_seconds
        self._seen: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, seconds: float) -> None:
        """Records how long an operation took, in seconds."""
        self._seen.append(seconds)

    @property
    def seconds(self) -> float:
        """Timeout of the next operation, seconds."""
        if len(self._seen) < 3:
            return self._first_seconds
        return max(deadline_seconds(*median_and_deviation(self._seen)), self._least_seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Median and median absolute deviation of the stored durations; zeros for fewer than three."""
        return median_and_deviation(self._seen) if len(self._seen) >= 3 else (0.0, 0.0)
