"""Lines that a buffered writer keeps back and writes many at once: when the first of them began."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.probes.commands.progress_line import ScriptLine

#: So many positions at once show that the writer is buffered.
_FEWEST_POSITIONS = 3
#: A start-up is recognised if it is longer than this share of the time until the first lump, and these
#: seconds.
_LEAST_SHARE, _LEAST_SECONDS = 0.05, 0.1


@dataclass(frozen=True, kw_only=True)
class _Lump:
    num_lines: int
    begin: float
    end: float
    last: float


class Lumps:
    """Tells a run's start-up from its first lump by the pace of the second.

    Until the second comes, lines of the first are spread over all the time since the start.

    Args:
        is_fresh: Whether the run begins with it, so that its positions count from 0.
    """

    def __init__(self, *, is_fresh: bool) -> None:
        self._is_fresh = is_fresh
        self._first: _Lump | None = None
        self._is_over = not is_fresh

    @property
    def awaits_pace(self) -> bool:
        """Whether the next lump has to show how fast the script trains."""
        return self._first is not None and not self._is_over

    def retimed(
        self, stored: Sequence[ScriptLine], new: Sequence[ScriptLine], begin: float, end: float
    ) -> list[ScriptLine] | None:
        """The lines of the slice, where new ones show when the first began; None if nothing changes.

        Args:
            stored: All lines of the slice, the new ones among them.
            new: Those read now.
            begin: When lines were read before, or the script was started.
            end: Now.
        """
        positions = [p for line in new if (p := _position(line)) is not None]
        if self._is_over or not positions:
            return None
        if self._first is None:
            is_lump = len(set(positions)) >= _FEWEST_POSITIONS and not any(line.time for line in new)
            if is_lump and len(stored) == len(new):
                self._first = _Lump(num_lines=len(new), begin=begin, end=end, last=positions[-1])
            self._is_over = self._first is None
            return None
        first, self._is_over = self._first, True
        if positions[-1] <= first.last:
            return None
        trained = first.last * (end - first.end) / (positions[-1] - first.last)
        passed = first.end - first.begin
        if passed - trained < max(_LEAST_SHARE * passed, _LEAST_SECONDS):
            return None
        share = trained / passed
        moved = [
            replace(line, seen_at=first.end - share * (first.end - line.seen_at))
            for line in stored[: first.num_lines]
        ]
        return [*moved, *stored[first.num_lines :]]


def _position(line: ScriptLine) -> float | None:
    """Samples or steps since the run began; lines of one kind only are compared."""
    if line.event != "progress":
        return None
    return line.step if line.samples is None else line.samples
