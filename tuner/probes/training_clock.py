"""Training clock of ranks: seconds of a run as if it had never been interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

#: The first steps after a start-up or a resume, which always count as warm-up.
WARMUP_STEPS = 5

#: Steps after which the length of the warm-up no longer changes.
_SETTLED_AFTER_STEPS = 40

_SETTLED_RATIO = 1.25


def settled_from(step_seconds: Sequence[float], *, at_least: int = WARMUP_STEPS) -> int:
    """Index of the first step after the warm-up.

    The warm-up has at least `at_least` steps, and more while the median of the next five exceeds the median
    of the second half of the series by a quarter, but at most half of the series.

    Args:
        step_seconds: Seconds of each step since a start-up or a resume, in order.
        at_least: Smallest number of warm-up steps.

    Returns:
        The index, at most half of the length.
    """
    half = len(step_seconds) // 2
    if half <= at_least:
        return half
    limit = _SETTLED_RATIO * median(step_seconds[half:])
    start = at_least
    while start < half and median(step_seconds[start : start + 5]) > limit:
        start += 1
    return start


class TrainingClock:
    """Adds the steps of a slice to the clock of the slices before.

    The first steps after a start-up or a resume are slow for reasons that an uninterrupted run does not have
    (allocators, caches, buckets that are rebuilt, connections); the first step has taken up to 38 times the
    median. So each warm-up step counts as the median of the later steps of its slice; with fewer than
    `WARMUP_STEPS` of those, as the typical step of the slice before on the same ranks; else as the median of
    all steps but the first. The clock at early steps may therefore change until `is_settled`. The charge
    follows the wall clock, without this correction.

    Args:
        start_seconds: The clock at the end of the slice before.
        typical_seconds: Seconds of a typical step of the slice before, on the same ranks; None if unknown.
    """

    def __init__(self, start_seconds: float = 0.0, typical_seconds: float | None = None) -> None:
        self._start_seconds = start_seconds
        self._known_typical = typical_seconds
        self._early: list[float] = []
        self._later_seconds = 0.0
        self._later_steps = 0
        #: The clock after the early steps once they are settled; cached, since every step reads it.
        self._settled_seconds: float | None = None

    @property
    def num_steps(self) -> int:
        """Number of steps that were added."""
        return len(self._early) + self._later_steps

    @property
    def is_settled(self) -> bool:
        """Whether `seconds_at` of earlier steps no longer changes."""
        return len(self._early) >= _SETTLED_AFTER_STEPS

    @property
    def seconds(self) -> float:
        """The clock after the last step."""
        if self._settled_seconds is not None:
            return self._settled_seconds + self._later_seconds
        early = self.seconds_at(len(self._early))
        if self.is_settled:
            self._settled_seconds = early
        return early + self._later_seconds

    @property
    def typical_seconds(self) -> float | None:
        """Seconds of a step after warm-up; None before the first step of the first slice."""
        warmup = self._num_warmup()
        settled = self._early[warmup:]
        if len(settled) >= WARMUP_STEPS:
            return median(settled)
        if self._known_typical is not None:
            return self._known_typical
        if not self._early:
            return None
        return median(self._early[1:] or self._early)

    def add(self, step_seconds: float) -> None:
        """Adds a step."""
        if self.is_settled:
            self._later_seconds += step_seconds
            self._later_steps += 1
        else:
            self._early.append(step_seconds)

    def seconds_at(self, num_steps: int) -> float:
        """The clock after the first `num_steps` steps of the slice, which must not be later than settled."""
        warmup = min(self._num_warmup(), num_steps)
        typical = self.typical_seconds or 0.0
        return self._start_seconds + warmup * typical + sum(self._early[warmup:num_steps])

    def _num_warmup(self) -> int:
        """Number of steps that count as the median: all of them while there are too few."""
        return max(settled_from(self._early), min(WARMUP_STEPS, len(self._early)))
