"""Training clock of a rank: the seconds that its training would have taken without interruptions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

#: Number of steps after a start-up or a resume that always count as warm-up.
WARMUP_STEPS = 5

#: Number of steps after which the length of the warm-up no longer changes.
_SETTLED_AFTER_STEPS = 40

#: The warm-up lasts while the median time of the next steps is above this multiple of the median time of
#: later steps.
_SETTLED_RATIO = 1.25


def settled_from(step_seconds: Sequence[float], *, at_least: int = WARMUP_STEPS) -> int:
    """Returns the index of the first step after the warm-up.

    The warm-up has at least `at_least` steps. It continues while the median time of the next five steps
    exceeds the median time of the second half of all steps by more than a quarter. It has at most half of all
    steps.

    Args:
        step_seconds: Seconds of each step since a start-up or a resume, in order.
        at_least: Smallest number of warm-up steps.
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
    """Adds the step times of a slice to the training clock of the previous slices.

    The first steps after a start-up or a resume are slow because of allocators, caches, the rebuilding of
    gradient buckets, and new connections; the first step has taken up to 38 times the median. An
    uninterrupted run would not have these delays, so the measured time of each warm-up step is replaced:

    - by the median of the later steps of its slice, if there are at least `WARMUP_STEPS` later steps;
    - otherwise by the typical step time of the previous slice on the same ranks, if known;
    - otherwise by the median of all steps except the first.

    The training time after one of the first steps may therefore change until `is_settled` is true. The cost
    of a slice is computed from the wall-clock time, without this correction.

    Args:
        start_seconds: The training clock at the end of the previous slice, seconds.
        typical_seconds: Typical step time of the previous slice on the same ranks, seconds; None if unknown.
    """

    def __init__(self, start_seconds: float = 0.0, typical_seconds: float | None = None) -> None:
        self._start_seconds = start_seconds
        self._known_typical = typical_seconds
        self._early: list[float] = []
        self._later_seconds = 0.0
        self._later_steps = 0
        #: Training time after the early steps, seconds, once it can no longer change; None before that.
        self._settled_seconds: float | None = None

    @property
    def num_steps(self) -> int:
        """Number of steps that were added in this slice."""
        return len(self._early) + self._later_steps

    @property
    def is_settled(self) -> bool:
        """Whether enough steps were added that further steps do not change the results of `seconds_at`."""
        return len(self._early) >= _SETTLED_AFTER_STEPS

    @property
    def seconds(self) -> float:
        """The training clock after the last step, seconds."""
        if self._settled_seconds is not None:
            return self._settled_seconds + self._later_seconds
        early = self.seconds_at(len(self._early))
        if self.is_settled:
            self._settled_seconds = early
        return early + self._later_seconds

    @property
    def typical_seconds(self) -> float | None:
        """Typical step time after the warm-up, seconds; None if no step is known."""
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
        """Adds the time of one step to the clock.

        Args:
            step_seconds: Wall-clock time of the step, seconds.
        """
        if self.is_settled:
            self._later_seconds += step_seconds
            self._later_steps += 1
        else:
            self._early.append(step_seconds)

    def seconds_at(self, num_steps: int) -> float:
        """Returns the training clock after the first `num_steps` steps of the slice, seconds.

        Args:
            num_steps: Number of steps, at most the number added when `is_settled` became true.
        """
        warmup = min(self._num_warmup(), num_steps)
        typical = self.typical_seconds or 0.0
        return self._start_seconds + warmup * typical + sum(self._early[warmup:num_steps])

    def _num_warmup(self) -> int:
        """Number of slow first steps whose times are replaced; all steps while there are at most five."""
        return max(settled_from(self._early), min(WARMUP_STEPS, len(self._early)))
