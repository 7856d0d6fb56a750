"""Scores without a position that come once behind the progress lines of each epoch."""

from __future__ import annotations

from tuner.probes.commands.progress_line import ScriptLine
from tuner.probes.commands.script_habits import ScriptHabits

#: The last line of progress comes at most so many times the usual distance before the end of its epoch.
_NEAR_END = 1.5


class EpochScores:
    """Learns whether scores belong to the ends of epochs, from the lines behind them.

    The last line of progress may come long before the end of its epoch: with large batches, a script that
    prints every tenth step prints only the first one.

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
        """Whether the next line will not change where a score belongs."""
        return self._score is None or self._habits.scores_end_epochs is not None

    def add_score(self, line: ScriptLine) -> None:
        """Takes a score without a position."""
        if self._line is not None and self._score is None:
            self._score = line

    def add_progress(self, line: ScriptLine, epoch: float, done: float, size: float) -> None:
        """Takes a line of progress within an epoch.

        Args:
            line: The line.
            epoch: Its epoch.
            done: Samples of the epoch, if the script counts within epochs.
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
                # One line an epoch says by its time alone whether the epoch came before or after the score.
                is_near = size - self._done <= _NEAR_END * self._interval
                came_late = score.seen_at - before.seen_at >= line.seen_at - score.seen_at
                within = bool(size and habits.step_is_within_epoch)
                habits.scores_end_epochs = within and (is_near if self._interval else came_late)
        self._line, self._epoch, self._done = line, epoch, done

    def end_of_epoch(self, first_epoch: float, size: float) -> int | None:
        """Samples at the end of the current epoch; None where scores do not belong there.

        Args:
            first_epoch: What the script calls its first epoch.
            size: Samples of an epoch; 0 if unknown.
        """
        habits = self._habits
        if not (habits.scores_end_epochs and habits.step_is_within_epoch and size) or self._epoch is None:
            return None
        return round((self._epoch - first_epoch + 1) * size)
