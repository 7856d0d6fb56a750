"""Write times of lines that a buffered writer held back and wrote as one block, as to a CSV file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.probes.commands.progress_line import ScriptLine

#: Lines whose times differ by less than this were read at once, seconds.
_SAME_SECONDS = 0.004
#: Lines that have a noted time were written this long before it at most, seconds.
_LONGEST_BLOCK = 0.1
#: A first block with this many positions shows that the writer is buffered.
_FEWEST_POSITIONS = 3
#: A start-up is recognized if it is longer than this share of the time until the first block, and than these
#: seconds.
_LEAST_SHARE, _LEAST_SECONDS = 0.05, 0.1


def spread_block(lines: Sequence[ScriptLine], since: float) -> list[ScriptLine]:
    """Estimates when each of the lines that were read at once was written.

    Lines with a time of their own keep it. The others were written since the last read: if they name several
    positions, they are spread over that time in proportion to these.

    Args:
        lines: In order.
        since: The prober's clock at the last read, seconds.
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
    """Separates the start-up of a run from its first block of lines, by the pace of the second block.

    Until the second block comes, the lines of the first are spread over the whole time since the start.

    Args:
        is_fresh: Whether the run begins with the script, so that positions count from 0.
    """

    def __init__(self, *, is_fresh: bool) -> None:
        self._first: _Block | None = None
        self._is_over = not is_fresh

    @property
    def awaits_pace(self) -> bool:
        """Whether only the next block will show how fast the script trains."""
        return self._first is not None and not self._is_over

    def retimed(
        self, stored: Sequence[ScriptLine], new: Sequence[ScriptLine], begin: float, end: float
    ) -> list[ScriptLine] | None:
        """All lines of the slice, once new lines show when the first block began; None if nothing changes.

        Args:
            stored: All lines of the slice, including the new ones.
            new: The lines that were read now.
            begin: The prober's clock at the read before, or at the start of the script, seconds.
            end: The prober's clock now, seconds.
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
    """Samples or steps since the run began, or else the epoch; None if the line names no such position."""
    if line.event != "progress":
        return None
    numbers = (line.samples, line.step, line.epoch if or_epoch else None)
    return next((number for number in numbers if number is not None), None)
