"""Where a run is scored: marks of samples seen, each a factor further than the one before."""

from __future__ import annotations

import math

#: The first mark of a job that states none: this part of an epoch.
FIRST_MARK_PER_EPOCH = 32
#: But at least so many samples, or a whole epoch where it has fewer.
SMALLEST_FIRST_MARK = 1024


class ScoreMarks:
    """Marks of samples; they depend on the job alone, so that curves of any nodes and batches compare.

    A mark is due after the step that reaches it; a step that passes several is scored once.

    Args:
        first_samples: The first mark, at least 1.
        growth: Each mark over the one before, above 1.
        horizon_samples: A last mark, where the schedule ends; None for no end.
    """

    def __init__(self, first_samples: int, growth: float, horizon_samples: int | None = None) -> None:
        if first_samples < 1 or growth <= 1:
            raise ValueError(f"marks need first >= 1 and growth > 1, got {first_samples} and {growth}")
        self._first = first_samples
        self._growth = growth
        self._horizon = horizon_samples

    def next_after(self, samples: int) -> int:
        """The first mark beyond `samples`."""
        if samples < self._first:
            mark = self._first
        else:
            place = math.floor(math.log(samples / self._first) / math.log(self._growth))
            mark = self._mark(place)
            while mark <= samples:
                place += 1
                mark = self._mark(place)
            # The logarithm may round up: no mark between may be left out.
            while place > 0 and self._mark(place - 1) > samples:
                place -= 1
                mark = self._mark(place)
        if self._horizon is not None and samples < self._horizon:
            return min(mark, self._horizon)
        return mark

    def _mark(self, place: int) -> int:
        # Adding the place keeps marks apart where growth times a small mark rounds to itself.
        return max(math.ceil(self._first * self._growth**place), self._first + place)


def first_mark(num_training_samples: int, stated: int | None) -> int:
    """The first mark: as stated in the job, or a thirty-second of an epoch, of tiny data some more."""
    if stated is not None:
        return stated
    part = math.ceil(num_training_samples / FIRST_MARK_PER_EPOCH)
    return max(1, part, min(num_training_samples, SMALLEST_FIRST_MARK))
