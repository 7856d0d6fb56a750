"""Finds the position (number of samples processed) of a score that is on a line without training progress.

Such a script reports the score (a metric value) on one line, and the training progress on another line before
or after it.
"""

from __future__ import annotations

from dataclasses import replace

from tuner.probes.commands.progress_line import ScriptLine
from tuner.probes.commands.script_habits import ScriptHabits

#: A score belongs to the training progress on the next line if the time between these lines is less than this
#: share of the time from the line with the progress to the next score.
_CLOSE_SHARE = 0.5
#: The first score is that of the untrained model if the time from the start of the script to this score is
#: less than this share of the time between the first and the second score.
_UNTRAINED_SHARE = 0.8
#: A score belongs to the last line of an epoch only if the samples between this line and the end of the epoch
#: are at most this many times the largest number of samples between two lines.
_NEAR_END = 1.5


class ScoreBeforePosition:
    """Joins a score with the training progress on the next line, for scripts that print the score first.

    For example, a script may print `accuracy 0.9` and then `epoch 1 done`. A script is assumed to print in
    this order if all of these are true:

    - Its first score comes before any line with a position (step, samples or epoch).
    - A line with a position follows at once.
    - The first score took about as long as the second one. So it is the score after a whole epoch, not that
      of the untrained model.

    Args:
        habits: Facts about how the script reports; whether scores come before positions is added to them.
        started_at: Time on the prober's monotonic clock when the script was started, seconds.
        is_fresh: Whether the script starts the run instead of resuming it; only then is the order found.
    """

    def __init__(self, habits: ScriptHabits, *, started_at: float, is_fresh: bool) -> None:
        self._habits, self._started_at = habits, started_at
        self._is_open = is_fresh and habits.value_comes_first is None
        self._first: ScriptLine | None = None
        self._position: ScriptLine | None = None
        self._score: ScriptLine | None = None

    @property
    def is_settled(self) -> bool:
        """Whether no later line can change how scores and training progress are joined."""
        return not self._is_open or self._first is None

    def joined(self, line: ScriptLine) -> ScriptLine | None:
        """Adds the score from the line before to a line, if the script prints scores before the progress.

        Args:
            line: The next line of the script.

        Returns:
            The line, maybe with a score added; None if the line has a score whose position will be on the
            next line.
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
            # The order remains unknown only if the first line was a score and no line has score and position.
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
                "the script prints each score before the progress: a score is assigned to the next position"
            )


class EpochScores:
    """Finds out whether a score on a line without training progress belongs to the end of an epoch.

    For example, a script that prints every tenth step prints only the first step of an epoch if the epoch has
    fewer than ten steps. A score that is printed after that step belongs to the end of the epoch, not to the
    printed step.

    Args:
        habits: Facts about how the script reports; the result is added to them (`scores_end_epochs`).
    """

    def __init__(self, habits: ScriptHabits) -> None:
        self._habits = habits
        self._score: ScriptLine | None = None
        self._line: ScriptLine | None = None
        self._epoch: float | None = None
        self._done = self._interval = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether no later line can change where in the training the scores so far belong."""
        return self._score is None or self._habits.scores_end_epochs is not None

    def add_score(self, line: ScriptLine) -> None:
        """Stores a line with a score but no training progress, to compare it with the lines around it."""
        if self._line is not None and self._score is None:
            self._score = line

    def add_progress(self, line: ScriptLine, epoch: float, done: float, size: float) -> None:
        """Adds a line with an epoch and a step; finds out whether the score before it ends an epoch.

        Args:
            line: The line.
            epoch: The epoch that the line reports.
            done: Number of samples that the line reports; if the script counts within epochs, this is the
                number since the beginning of the epoch.
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
        """Returns the number of samples that have been processed at the end of the current epoch.

        Args:
            first_epoch: The number that the script gives its first epoch, 0 or 1.
            size: Number of samples per epoch; 0 if unknown.

        Returns:
            The number of samples; None if scores on lines without training progress do not belong to the ends
            of epochs.
        """
        habits = self._habits
        if not (habits.scores_end_epochs and habits.step_is_within_epoch and size) or self._epoch is None:
            return None
        return round((self._epoch - first_epoch + 1) * size)
