"""Checks that a script does what its slice asks: batch size, fresh start, first score."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.domain.measurement import CurvePoint
from tuner.probes.commands.progress_line import ScriptLine
from tuner.probes.commands.run_clock import Attempt
from tuner.probes.commands.script_habits import ScriptHabits
from tuner.probes.slice_plan import SlicePlan

#: A fresh run cannot have trained up to its first report if it had less than this share of the time that its
#: pace needs, and this many seconds too few.
_LEAST_TIME_SHARE, _LEAST_MISSING_SECONDS = 0.5, 1.0
#: The same if its first report is this many times as far as that of other runs.
_FAR_FACTOR, _FAR_TIME_SHARE, _FAR_MISSING_SECONDS = 2.5, 0.8, 0.2
#: A pace needs this many reports, and this many seconds between the first and the last.
_FEWEST_REPORTS, _LEAST_PACE_SECONDS = 3, 0.3
#: A pace from two reports is less certain.
_FEWEST_FAR_REPORTS, _TWO_REPORTS_TIME_SHARE = 2, 0.6
#: Relative difference of samples a step from the batch size up to which both are equal.
_EQUAL_BATCH = 0.02
#: A first score is far from the usual first score if it is this share of the way to the target beyond it; two
#: scores are the same if they differ by less than the second share of that way.
_FAR_SCORE, _SAME_SCORE = 0.5, 0.05
_SHARES = (
    "The script seems to resume by itself from a folder that all runs share: let it save to {checkpoint} or "
    "{output_folder}, which differ from run to run, or turn its own resuming off"
)


class SliceChecks:
    """Finds reports that contradict the slice.

    Args:
        plan: The slice.
        habits: What is known of how the script reports; gets the first position of a fresh run.
        is_new: Whether the run is fresh.

    Attributes:
        remarks: Sentences for the user.
        refusal: Why the slice cannot be used; None if it can.
        resume_words: The line in which the script says that it resumes; None if there is none.
        awaits_pace: Whether the first report is so far that the next one has to show how fast the run trains.
    """

    def __init__(self, *, plan: SlicePlan, habits: ScriptHabits, is_new: bool) -> None:
        self._plan, self._habits, self._is_new = plan, habits, is_new
        self.remarks: dict[str, None] = {}
        self.refusal: str | None = None
        self.resume_words: str | None = None
        self._first_pair: tuple[float, float] | None = None
        self._has_checked_batch = self._has_checked_start = self._has_progress = False
        self.awaits_pace = False
        size, batch = plan.job.command.epoch_samples, plan.configuration.batch_size
        if size is not None and batch > size:
            self.remarks[
                f"batch_size = {batch} is larger than an epoch of {size} samples: the script may train "
                "with smaller batches"
            ] = None

    def read(self, lines: Sequence[ScriptLine]) -> None:
        """Compares the samples a step of new lines with the batch size."""
        for line in lines:
            if line.event == "begin" and self._is_new and not self._has_progress and line.samples:
                self._refuse_start(int(line.samples))
            self._has_progress |= line.event == "progress"
            if (
                self._has_checked_batch
                or line.step is None
                or line.samples is None
                or line.event != "progress"
            ):
                continue
            if self._first_pair is None:
                self._first_pair = (line.step, line.samples)
                continue
            steps, samples = line.step - self._first_pair[0], line.samples - self._first_pair[1]
            if steps < 2 or samples <= 0:
                continue
            self._has_checked_batch = True
            each, asked = samples / steps, self._plan.configuration.batch_size
            if abs(each / asked - 1.0) > _EQUAL_BATCH:
                self.remarks[
                    f"the script reports {each:g} samples a step, but batch_size = {asked}: it does not "
                    "train with the batch size that it is given"
                ] = None

    def resumed(self) -> None:
        """Registers that the script was asked to resume."""
        self._is_new = False

    def follow(self, attempt: Attempt, since: float | None) -> None:
        """Checks that a fresh run had the time to train up to its first report.

        Args:
            attempt: Its lines so far.
            since: When the script started to run, on the prober's clock; None if it does not run.
        """
        if self._has_checked_start or since is None or not self._is_new:
            return
        first = attempt.first_reported()
        if first is None:
            return
        samples, time, num, pace, span = first
        others = self._habits.first_position
        is_far = others is not None and samples > _FAR_FACTOR * others
        if others is None:
            self._habits.first_position = samples
        fewest = _FEWEST_FAR_REPORTS if is_far else _FEWEST_REPORTS
        self.awaits_pace = is_far and (num < fewest or span < _LEAST_PACE_SECONDS)
        if num < fewest or span < _LEAST_PACE_SECONDS:
            return
        needed, had = pace * samples, max(time - since, 0.0)
        share = _FAR_TIME_SHARE if is_far else _LEAST_TIME_SHARE
        if num < _FEWEST_REPORTS:
            share = _TWO_REPORTS_TIME_SHARE
        else:
            self._has_checked_start = True
        missing = _FAR_MISSING_SECONDS if is_far else _LEAST_MISSING_SECONDS
        if had < share * needed and needed - had > missing:
            self._refuse_start(samples)

    def first_score(self, point: CurvePoint) -> None:
        """Checks that the first score of a fresh run is not where another run ended."""
        habits, goal = self._habits, self._plan.job.goal
        others = [value for samples, value in habits.first_scores if 2 * samples >= point.samples]
        if not self._is_new or not others or habits.last_score is None:
            return
        usual = max(goal.sign * value for value in others)
        missing = goal.sign * goal.target - usual
        is_far = goal.sign * point.value - usual > _FAR_SCORE * missing > 0
        if not is_far or abs(point.value - habits.last_score) > _SAME_SCORE * missing:
            return
        seems = (
            f"the first score of a run that had to start from scratch, {point.value:g}, is close to the last "
            f"score of the run before it, {habits.last_score:g}, and far from other first scores, "
            f"{goal.sign * usual:g}"
        )
        if self.resume_words is None:
            self.remarks[f"{seems}: does the script resume from a folder that all runs share?"] = None
        elif self.refusal is None:
            self.refusal = f"{seems}, and the script says {self.resume_words}. {_SHARES}"

    def _refuse_start(self, samples: int) -> None:
        if self.refusal is None:
            self.refusal = (
                "a run that had to start from scratch resumed from elsewhere: its first report is of "
                f"{samples} samples, which it cannot have trained since it was started. {_SHARES}"
            )
