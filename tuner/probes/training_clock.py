"""The training clock: step seconds of a run as if it had never been interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

#: Steps after a start-up or a resume that never count as settled.
WARMUP_STEPS = 5

#: Steps after which a clock knows what it will know of its warm-up.
_SETTLED_AFTER_STEPS = 40

_SETTLED_RATIO = 1.25


def settled_from(step_seconds: Sequence[float], *, at_least: int = WARMUP_STEPS) -> int:
    """The step from which a series has settled: what lies before is warm-up.

    At least `at_least` steps are dropped, further ones while the median of the next five exceeds
    that of the series' second half by a quarter; never more than half of the series.

    Args:
        step_seconds: In order, from a start-up or a resume on.
        at_least: Steps dropped in any case.

    Returns:
        An index, at most half the length.
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
    """Adds up the steps of a slice on top of those of the slices before.

    The first steps after a start-up or a resume are slow for reasons an uninterrupted run does not
    have (allocators, caches, buckets that are rebuilt, a network that wakes up): the first was seen to take
    38 times the median. So each warm-up step is clocked at the median of the settled steps of its
    own slice; while there are fewer than `WARMUP_STEPS` of those, at what the slice before settled at,
    with the same ranks; failing that, at the median of all steps but the first. The charge follows the wall
    clock, without such a discount. What a clock says of early steps may therefore change until `is_settled`.

    Args:
        start_seconds: The clock at the end of the slice before.
        typical_seconds: A settled step of the slice before, on the same ranks; None where unknown.
    """

    def __init__(self, start_seconds: float = 0.0, typical_seconds: float | None = None) -> None:
        self._start_seconds = start_seconds
        self._known_typical = typical_seconds
        self._early: list[float] = []
        self._later_seconds = 0.0
        self._later_steps = 0
        #: The clock after the early steps, once they are settled: asked for after every step.
        self._settled_seconds: float | None = None

    @property
    def num_steps(self) -> int:
        """Steps added."""
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
        """A settled step; None before the first step of the first slice."""
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
        """The clock after the first `num_steps` steps of the slice, for steps before it settled."""
        warmup = min(self._num_warmup(), num_steps)
        typical = self.typical_seconds or 0.0
        return self._start_seconds + warmup * typical + sum(self._early[warmup:num_steps])

    def _num_warmup(self) -> int:
        """Steps clocked at the median; all of them while too few follow."""
        return max(settled_from(self._early), min(WARMUP_STEPS, len(self._early)))
