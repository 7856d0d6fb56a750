"""Position of a score that a script reports on a line of its own, before or after the position."""

from __future__ import annotations

from dataclasses import replace

from tuner.probes.commands.progress_line import ScriptLine
from tuner.probes.commands.script_habits import ScriptHabits

#: A score and a position belong to one report if less than this share of the time to the next score lies
#: between them.
_CLOSE_SHARE = 0.5
#: The first score is of the untrained model if it came after less than this share of the time to the next.
_UNTRAINED_SHARE = 0.8
#: The last line of an epoch is at most this many times the usual distance of lines before its end.
_NEAR_END = 1.5


class ScoreBeforePosition:
    """Joins a score with the position on the next line, for scripts that print the score first.

    The script does so if its first score comes before any position, a position follows at once, and the
    first score took as long as the next one: then it is the score of a whole epoch, not of the untrained
    model.

    Args:
        habits: What is known of the script; gets the order.
        started_at: When the script was started, seconds on the prober's clock.
        is_fresh: Whether the run begins with the script.
    """

    def __init__(self, habits: ScriptHabits, *, started_at: float, is_fresh: bool) -> None:
        self._habits, self._started_at = habits, started_at
        self._is_open = is_fresh and habits.value_comes_first is None
        self._first: ScriptLine | None = None
        self._position: ScriptLine | None = None
        self._score: ScriptLine | None = None

    @property
    def is_settled(self) -> bool:
        """Whether no later line can change how scores and positions are joined."""
        return not self._is_open or self._first is None

    def joined(self, line: ScriptLine) -> ScriptLine | None:
        """The line with the score that came before it; None for a score whose position is still to come."""
        if self._is_open:
            self._compare(line)
        if not self._habits.value_comes_first:
            return line
        if not line.has_position:
            self._score = line
            return None
        score, self._score = self._score, None
        if score is None or line.value is not None:
            return line
        return replace(line, value=score.value, has_percent_sign=score.has_percent_sign)

    def _compare(self, line: ScriptLine) -> None:
        if line.has_position:
            # The order is open only while a score came first and no line holds both.
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


class EpochScores:
    """Finds out whether scores without a position belong to the ends of epochs.

    The last line of progress may come long before the end of its epoch: with large batches, a script that
    prints every tenth step prints only the first one. Then a score after it belongs to the end of the epoch.

    Args:
        habits: What is known of the script; gets what the lines show.
    """

    def __init__(self, habits: ScriptHabits) -> None:
        self._habits = habits
        self._score: ScriptLine | None = None
        self._line: ScriptLine | None = None
        self._epoch: float | None = None
        self._done = self._interval = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether no later line can change where a score belongs."""
        return self._score is None or self._habits.scores_end_epochs is not None

    def add_score(self, line: ScriptLine) -> None:
        """Adds a score without a position."""
        if self._line is not None and self._score is None:
            self._score = line

    def add_progress(self, line: ScriptLine, epoch: float, done: float, size: float) -> None:
        """Adds a line of progress within an epoch.

        Args:
            line: The line.
            epoch: The epoch it names.
            done: Samples of the epoch at the line, if the script counts within epochs.
            size: Samples of an epoch; 0 if unknown.
        """
        score, self._score = self._score, None
        before, habits = self._line, self._habits
        if before is not None and self._epoch is not None:
            if epoch == self._epoch:
                if score is not None and done > self._done:
                    habits.scores_end_epochs = False
                self._interval = max(self._interval, done - self._done)
            elif score is not None and epoch > self._epoch and habits.scores_end_epochs is None:
                # With one line an epoch, only times show whether the rest of the epoch lies before the score.
                is_near = size - self._done <= _NEAR_END * self._interval
                came_late = score.seen_at - before.seen_at >= line.seen_at - score.seen_at
                within = bool(size and habits.step_is_within_epoch)
                habits.scores_end_epochs = within and (is_near if self._interval else came_late)
        self._line, self._epoch, self._done = line, epoch, done

    def end_of_epoch(self, first_epoch: float, size: float) -> int | None:
        """Samples at the end of the current epoch; None if scores do not belong there.

        Args:
            first_epoch: The number that the script gives its first epoch.
            size: Samples of an epoch; 0 if unknown.
        """
        habits = self._habits
        if not (habits.scores_end_epochs and habits.step_is_within_epoch and size) or self._epoch is None:
            return None
        return round((self._epoch - first_epoch + 1) * size)
