"""Estimates when a script produced lines that were written together as one block.

For example, a script that writes a CSV file may buffer its rows and write many of them at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.probes.commands.progress_line import ScriptLine

#: Lines whose times differ by less than this were read at once, seconds.
_SAME_SECONDS = 0.004
#: If one call reads several blocks (groups of lines that were written at once), the times of the lines in
#: each block after the first are spread over at most this many seconds.
_LONGEST_BLOCK = 0.1
#: If the first lines that are read together report at least this many different numbers of samples, the
#: script is assumed to buffer its lines.
_FEWEST_POSITIONS = 3
#: The time at which training began is corrected only if it is later than assumed by at least this share of
#: the time until the first block of lines was read, and by at least this many seconds.
_LEAST_SHARE, _LEAST_SECONDS = 0.05, 0.1


def spread_block(lines: Sequence[ScriptLine], since: float) -> list[ScriptLine]:
    """Estimates the time at which each line was written, for lines that were read at once.

    Lines that report when they were written are not changed. Other lines were written after the previous
    read. If they report different numbers of samples, steps or epochs, their times are spread over the time
    since the previous read, in proportion to these numbers.

    Args:
        lines: The lines, in order.
        since: Time of the previous read on the prober's monotonic clock, seconds.

    Returns:
        The lines with the estimated times in `seen_at`, in the same order.
    """
    spread: list[ScriptLine] = []
    for _, group in itertools.groupby(lines, key=lambda line: round(line.seen_at / _SAME_SECONDS)):
        members = list(group)
        spread += _spread(members, max(since, members[-1].seen_at - _LONGEST_BLOCK) if spread else since)
        since = members[-1].seen_at
    return spread


def _spread(lines: list[ScriptLine], since: float) -> list[ScriptLine]:
    positions = [_position(line, or_epoch=True) for line in lines]
    named = [position for position in positions if position is not None]
    at = lines[-1].seen_at
    if since >= at or any(line.time is not None for line in lines) or not named or named[-1] <= named[0]:
        return lines
    first, last = named[0], named[-1]
    step = (last - first) / (len(set(named)) - 1)
    spread, position = [], first
    for line, own in zip(lines, positions, strict=True):
        position = position if own is None else own
        share = min(max((position - first + step) / (last - first + step), 0.0), 1.0)
        spread.append(replace(line, seen_at=since + share * (at - since)))
    return spread


@dataclass(frozen=True, kw_only=True)
class _Block:
    num_lines: int
    begin: float
    end: float
    last_position: float


class FirstBlock:
    """Estimates when training began, from the training speed between the first two blocks of lines.

    A block is a group of lines that the script wrote at once. Until the second block is read, the times of
    the lines in the first block are spread over the whole time since the start of the script, which includes
    the start-up. Then these times are corrected.

    Args:
        is_fresh: Whether the script starts the run instead of resuming it; only then are times corrected.
    """

    def __init__(self, *, is_fresh: bool) -> None:
        self._first: _Block | None = None
        self._is_over = not is_fresh

    @property
    def awaits_pace(self) -> bool:
        """Whether the second block of lines is still needed to know how fast the script trains."""
        return self._first is not None and not self._is_over

    def retimed(
        self, stored: Sequence[ScriptLine], new: Sequence[ScriptLine], begin: float, end: float
    ) -> list[ScriptLine] | None:
        """Corrects the times of the first block once the second block shows how long the start-up took.

        Args:
            stored: All lines of the job so far, including the new lines, in order.
            new: The lines that were read now, in order.
            begin: Time of the previous read, or of the start of the script, on the prober's monotonic clock,
                seconds.
            end: Present time on the prober's monotonic clock, seconds.

        Returns:
            All lines of the job with corrected times; None if no time changes.
        """
        positions = [position for line in new if (position := _position(line)) is not None]
        if self._is_over or not positions:
            return None
        if self._first is None:
            is_block = len(set(positions)) >= _FEWEST_POSITIONS and not any(line.time for line in new)
            if is_block and len(stored) == len(new):
                self._first = _Block(num_lines=len(new), begin=begin, end=end, last_position=positions[-1])
            self._is_over = self._first is None
            return None
        first, self._is_over = self._first, True
        if positions[-1] <= first.last_position:
            return None
        pace = (end - first.end) / (positions[-1] - first.last_position)
        trained, passed = pace * first.last_position, first.end - first.begin
        if passed - trained < max(_LEAST_SHARE * passed, _LEAST_SECONDS):
            return None
        moved = [
            replace(line, seen_at=first.end - trained / passed * (first.end - line.seen_at))
            for line in stored[: first.num_lines]
        ]
        return [*moved, *stored[first.num_lines :]]


def _position(line: ScriptLine, *, or_epoch: bool = False) -> float | None:
    """Returns the training progress of a line: its number of samples or, without one, of steps.

    Args:
        line: The line.
        or_epoch: Whether to return the epoch if the line has neither samples nor steps.

    Returns:
        The number; None if the line does not report training progress.
    """
    if line.event != "progress":
        return None
    numbers = (line.samples, line.step, line.epoch if or_epoch else None)
    return next((number for number in numbers if number is not None), None)
