"""Finds the position of a score that a script reports on a separate line, before or after the position."""

from __future__ import annotations

from dataclasses import replace

from tuner.probes.commands.progress_line import ScriptLine
from tuner.probes.commands.script_habits import ScriptHabits

#: A score and the next position belong together if the time between them is less than this share of the time
#: from the position to the next score.
_CLOSE_SHARE = 0.5
#: The first score is of the untrained model if it came after less than this share of the time between the
#: first and the second score.
_UNTRAINED_SHARE = 0.8
#: The last line of an epoch is at most this many times the usual distance between lines away from the end of
#: the epoch.
_NEAR_END = 1.5


class ScoreBeforePosition:
    """Joins a score with the position on the next line, for scripts that print a score before its position.

    A script prints in this order if all of these are true:

    - Its first score comes before any position.
    - A position follows at once.
    - The first score took about as long as the second one, so that it is the score of a whole epoch and not
      of the untrained model.

    Args:
        habits: Facts about how the script reports; the order is added to them.
        started_at: The prober's clock when the script was started, seconds.
        is_fresh: Whether the script starts the run, instead of resuming it.
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
        """Returns a line joined with the score before it.

        Args:
            line: The next line of the script.

        Returns:
            The line; None if it is a score whose position will come on the next line.
        """
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
            # The order is unknown only while the first line was a score and no line has score and position.
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
                "the script prints each score before its position: a score is assigned to the next position"
            )


class EpochScores:
    """Finds out whether a score without a position belongs to the end of an epoch.

    The last position of an epoch may be printed long before its end. For example, a script that prints every
    tenth step prints only the first step if batches are so large that an epoch has fewer than ten. A score
    after that line belongs to the end of the epoch, not to the printed position.

    Args:
        habits: Facts about how the script reports; the fact found is added to them.
    """

    def __init__(self, habits: ScriptHabits) -> None:
        self._habits = habits
        self._score: ScriptLine | None = None
        self._line: ScriptLine | None = None
        self._epoch: float | None = None
        self._done = self._interval = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether no later line can change the positions of the scores so far."""
        return self._score is None or self._habits.scores_end_epochs is not None

    def add_score(self, line: ScriptLine) -> None:
        """Adds a line that has a score and no position."""
        if self._line is not None and self._score is None:
            self._score = line

    def add_progress(self, line: ScriptLine, epoch: float, done: float, size: float) -> None:
        """Adds a line with a position within an epoch.

        Args:
            line: The line.
            epoch: The epoch that the line reports.
            done: Number of samples of this epoch processed at the line, if the script counts within epochs.
            size: Number of samples per epoch; 0 if unknown.
        """
        score, self._score = self._score, None
        before, habits = self._line, self._habits
        if before is not None and self._epoch is not None:
            if epoch == self._epoch:
                if score is not None and done > self._done:
                    habits.scores_end_epochs = False
                self._interval = max(self._interval, done - self._done)
            elif score is not None and epoch > self._epoch and habits.scores_end_epochs is None:
                # With one line per epoch, only the times show whether the epoch ended before the score.
                is_near = size - self._done <= _NEAR_END * self._interval
                came_late = score.seen_at - before.seen_at >= line.seen_at - score.seen_at
                within = bool(size and habits.step_is_within_epoch)
                habits.scores_end_epochs = within and (is_near if self._interval else came_late)
        self._line, self._epoch, self._done = line, epoch, done

    def end_of_epoch(self, first_epoch: float, size: float) -> int | None:
        """Returns the number of samples processed since the run began, at the end of the current epoch.

        Args:
            first_epoch: The number that the script gives its first epoch, 0 or 1.
            size: Number of samples per epoch; 0 if unknown.

        Returns:
            The number of samples; None if scores without a position do not belong to the ends of epochs.
        """
        habits = self._habits
        if not (habits.scores_end_epochs and habits.step_is_within_epoch and size) or self._epoch is None:
            return None
        return round((self._epoch - first_epoch + 1) * size)
