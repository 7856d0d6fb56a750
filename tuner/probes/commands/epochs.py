"""Computes how many epochs a script had completed when it reported an epoch but no step.

Scripts count epochs from 0 or from 1, and print the number of an epoch when it begins or when it ends.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tuner.probes.commands.progress_line import ScriptLine
from tuner.probes.commands.script_habits import ScriptHabits

#: A first score in epoch 0 is taken as that of the untrained model if the time from the start of the script
#: to this score is less than this share of the time from this score to the next epoch.
_UNTRAINED_SHARE = 0.8
#: Several scores in an epoch belong to one report if the time between them is at most these seconds, or at
#: most this share of the time since the start of the script.
_ONE_REPORT_SECONDS, _ONE_REPORT_SHARE = 0.05, 0.02

#: A line, the number of epochs that were completed when the script printed it, and the line whose time is
#: taken as the time at which they were completed.
AtEpoch = tuple[ScriptLine, float, ScriptLine]


class EpochLines:
    """Computes the number of completed epochs at each line of a script that reports whole epochs.

    A script may count from 0 or from 1, print an epoch when it begins or when it ends, and print scores once
    per epoch or many times. The first lines are read in the most common way. If later lines show another way,
    the caller has to read all lines again.

    Args:
        habits: Facts about how the script reports; the facts found are added to them.
        started_at: Time on the prober's monotonic clock when the script was started, seconds.
        is_fresh: Whether the script starts the run instead of resuming it.
    """

    def __init__(self, habits: ScriptHabits, *, started_at: float, is_fresh: bool) -> None:
        self._habits, self._started_at, self._is_fresh = habits, started_at, is_fresh
        #: The last epoch that a line reported; None if no line has reported one, or if epochs are fractions.
        self.current: float | None = None
        self._base: int | None = habits.first_epoch
        self._announced: ScriptLine | None = None
        self._num_announced = 0
        self._values: list[ScriptLine] = []
        self._num_epochs = 0

    @property
    def is_settled(self) -> bool:
        """Whether it is known how the script reports epochs, so later lines do not change earlier results."""
        habits = self._habits
        if self.current is None:
            return True
        return habits.many_lines_an_epoch is not None and self._base is not None

    def is_fraction(self, line: ScriptLine) -> bool:
        """Whether the script reports fractions of epochs, such as epoch 0.25, up to this line."""
        assert line.epoch is not None
        habits = self._habits
        if line.epoch != math.floor(line.epoch) and not habits.epochs_are_fractions:
            habits.epochs_are_fractions = True
            habits.first_epoch = None
        return bool(habits.epochs_are_fractions)

    def begin_process(self) -> None:
        """Prepares for the lines of another process of the script."""
        self.current, self._announced, self._values = None, None, []
        self._num_epochs = self._num_announced = 0

    def done(self, epoch: float) -> float:
        """Returns how many epochs of the run have been completed at the end of the given epoch.

        Args:
            epoch: Number of the epoch as the script counts, from 0 or from 1.
        """
        return epoch - (1 if self._base is None else self._base) + 1

    def add(self, line: ScriptLine, epoch: float) -> list[AtEpoch]:
        """Adds a line, and returns the lines for which the number of completed epochs is known now.

        If the next line has to show whether the epoch of the new line has ended, a later call returns the new
        line.

        Args:
            line: The line.
            epoch: The epoch that the line reports; if it reports none, that of the last line with an epoch.
        """
        found: list[AtEpoch] = []
        if self.current is None or epoch > self.current:
            if self.current is not None:
                found += self._next_epoch(line, epoch)
            else:
                self._find_base(line, epoch)
            self.current = epoch
            self._num_epochs += 1
            self._announced, self._num_announced = None, 0
            self._values = []
        if line.value is None:
            return found + self._announce(line, epoch)
        return found + self._score(line, epoch)

    def close(self) -> list[AtEpoch]:
        """Returns the last line with a score if no call of `add` has returned it.

        To be called after the script has ended by itself, so its last epoch is complete.
        """
        if not self._habits.many_lines_an_epoch or not self._values or self.current is None:
            return []
        return [(self._values[-1], self.done(self.current), self._values[-1])]

    def _find_base(self, line: ScriptLine, epoch: float) -> None:
        habits = self._habits
        if habits.first_epoch is not None or not self._is_fresh:
            self._base = habits.first_epoch
            return
        if epoch >= 1:
            self._base = habits.first_epoch = 1
        elif line.value is None:
            self._base = habits.first_epoch = 0
            self._say_base()
        elif math.isnan(line.value):
            self._base = habits.first_epoch = 1
        else:
            self._base = 0

    def _say_base(self) -> None:
        self._habits.say("the script counts epochs from 0: its first epoch is epoch 0")

    def _next_epoch(self, line: ScriptLine, epoch: float) -> list[AtEpoch]:
        """Returns the last line of the current epoch when a line reports the next epoch.

        The list is empty if the last line of the current epoch was returned before.

        Args:
            line: The line that reports the next epoch.
            epoch: Number of the next epoch as the script counts.
        """
        habits, found = self._habits, list[AtEpoch]()
        values = self._values
        if habits.first_epoch is None and self._is_fresh and self._num_epochs == 1 and values:
            before = values[0].seen_at - self._started_at
            after = line.seen_at - values[0].seen_at
            is_untrained = len(values) == 1 and line.value is not None and before < _UNTRAINED_SHARE * after
            habits.first_epoch = 1 if is_untrained else 0
            if not is_untrained:
                self._say_base()
        if habits.many_lines_an_epoch is None and values:
            habits.many_lines_an_epoch = False
        if self._announced is not None and values and line.value is None and self._num_announced == 1:
            to_value = values[-1].seen_at - self._announced.seen_at
            if habits.epoch_line_comes_first is None:
                habits.epoch_line_comes_first = to_value >= line.seen_at - values[-1].seen_at
        if habits.many_lines_an_epoch and values:
            assert self.current is not None
            # The epoch ended between its last line and the first line of the next epoch: take the mean time.
            last = values[-1]
            middle = replace(
                last,
                seen_at=0.5 * (last.seen_at + line.seen_at),
                time=None if last.time is None or line.time is None else 0.5 * (last.time + line.time),
            )
            found.append((last, self.done(self.current), middle))
        return found

    def _announce(self, line: ScriptLine, epoch: float) -> list[AtEpoch]:
        self._num_announced += 1
        if self._announced is not None or self._values:
            return []  # whether the epoch begins or ends with this line is unknown
        self._announced = line
        if self._habits.epoch_line_comes_first is False:
            return [(line, self.done(epoch), line)]
        return [(line, self.done(epoch) - 1, line)]

    def _score(self, line: ScriptLine, epoch: float) -> list[AtEpoch]:
        habits = self._habits
        self._values.append(line)
        first = self._values[0]
        distance = line.seen_at - first.seen_at
        is_one = distance <= max(_ONE_REPORT_SECONDS, _ONE_REPORT_SHARE * (line.seen_at - self._started_at))
        if not is_one and not habits.many_lines_an_epoch:
            habits.many_lines_an_epoch = True
            habits.say(
                "the script reports several scores in each epoch: only the last score of an epoch is used, "
                "as the score at the end of that epoch"
            )
        if habits.many_lines_an_epoch:
            del self._values[1:-1]
            return []
        return [(line, self.done(epoch), line)]
