"""Scores on lines of their own: whether the position that they belong to comes before or after them."""

from __future__ import annotations

from dataclasses import replace

from tuner.probes.commands.progress_line import ScriptLine
from tuner.probes.commands.script_habits import ScriptHabits

#: A score and a position are of one report where they are closer than this share of the time to the next.
_CLOSE_SHARE = 0.5
#: A first score is of the untrained model if it came this much sooner than the next one took.
_UNTRAINED_SHARE = 0.8


class ValueOrder:
    """Joins scores with the positions that follow them, where a script prints them in this order.

    A run whose first score comes before any position shows it: if the position follows at once, and as much
    time went by before that score as until the next one, it was the score of a whole epoch.

    Args:
        habits: What is known of the script; gets the order.
        started_at: When the script was started, seconds on the prober's clock.
        is_fresh: Whether the run begins with it.
    """

    def __init__(self, habits: ScriptHabits, *, started_at: float, is_fresh: bool) -> None:
        self._habits, self._started_at = habits, started_at
        self._is_open = is_fresh and habits.value_comes_first is None
        self._first: ScriptLine | None = None
        self._position: ScriptLine | None = None
        self._held: ScriptLine | None = None

    @property
    def is_settled(self) -> bool:
        """Whether it is known, as far as there is anything to know."""
        return not self._is_open or self._first is None

    def joined(self, line: ScriptLine) -> ScriptLine | None:
        """The line, with the score that came before it; None if it is a score whose position is to come."""
        if self._is_open:
            self._compare(line)
        if not self._habits.value_comes_first:
            return line
        if not line.has_position:
            self._held = line
            return None
        held, self._held = self._held, None
        if held is None or line.value is not None:
            return line
        return replace(line, value=held.value, has_percent_sign=held.has_percent_sign)

    def _compare(self, line: ScriptLine) -> None:
        if line.has_position:
            # Only where positions and scores take turns is it not known which belong together.
            self._is_open = self._first is not None and self._position is None and line.value is None
            self._position = line
            return
        if self._first is None or self._position is None:
            self._first = line
            return
        to_position = self._position.seen_at - self._first.seen_at
        to_next = line.seen_at - self._position.seen_at
        before, after = self._first.seen_at - self._started_at, line.seen_at - self._first.seen_at
        comes_first = to_position < _CLOSE_SHARE * to_next and before >= _UNTRAINED_SHARE * after
        self._habits.value_comes_first = comes_first
        self._is_open = False
        if comes_first:
            self._habits.say(
                "the script reports a score before its position: it is that of the next position"
            )
