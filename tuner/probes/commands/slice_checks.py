"""Checks that a script trains with the given batch size, and starts from scratch if it was told to."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.domain.measurement import CurvePoint
from tuner.probes.commands.progress_line import ScriptLine
from tuner.probes.commands.run_clock import Attempt
from tuner.probes.commands.script_habits import ScriptHabits
from tuner.probes.slice_plan import SlicePlan

#: Limits for the time between the start of a run from scratch and its first report. At the later speed of the
#: run, the samples of that report need T seconds. If the report came before `_LEAST_TIME_SHARE` times T, and
#: more than `_LEAST_MISSING_SECONDS` before T, the run must have resumed from other files.
_LEAST_TIME_SHARE, _LEAST_MISSING_SECONDS = 0.5, 1.0
#: If the first report of a run has more than `_FAR_FACTOR` times the samples of the first report of other
#: runs, these limits replace `_LEAST_TIME_SHARE` and `_LEAST_MISSING_SECONDS`.
_FAR_FACTOR, _FAR_TIME_SHARE, _FAR_MISSING_SECONDS = 2.5, 0.8, 0.2
#: The speed of training is computed from at least this number of reports, and only if at least this number of
#: seconds passed between the first and the last report.
_FEWEST_REPORTS, _LEAST_PACE_SECONDS = 3, 0.3
#: If the first report has far more samples than usual, `_FEWEST_FAR_REPORTS` reports suffice to compute the
#: speed. As long as there are fewer than `_FEWEST_REPORTS`, `_TWO_REPORTS_TIME_SHARE` replaces
#: `_FAR_TIME_SHARE`.
_FEWEST_FAR_REPORTS, _TWO_REPORTS_TIME_SHARE = 2, 0.6
#: The reported samples per step may differ from the batch size by at most this relative difference.
_EQUAL_BATCH = 0.02
#: Shares of the distance between the usual first score of a run and the target. A first score is far from the
#: usual one if it is better by more than `_FAR_SCORE` of this distance. Two scores are taken as the same if
#: they differ by at most `_SAME_SCORE` of this distance.
_FAR_SCORE, _SAME_SCORE = 0.5, 0.05
_SHARES = (
    "The script seems to resume by itself from a folder that all runs share: let it save to {checkpoint} or "
    "{output_folder}, which differ from run to run, or keep it from resuming by itself"
)


class SliceChecks:
    """Finds reports which show that the script uses another batch size, or resumed when it should not.

    Args:
        plan: Configuration, limits and folders of the slice.
        habits: Facts found in all runs about how the script reports; the number of samples at the first
            report of a run is added to them.
        is_new: Whether the run has to start from scratch.

    Attributes:
        remarks: Sentences for the user, as the keys of a dictionary without values.
        refusal: Why the slice cannot be used, for the user; None if it can be used.
        resume_words: The output line in which the script says that it resumes; None if there is no such line.
        awaits_pace: Whether the first report has suspiciously many samples, so the next report is needed to
            know how fast the run trains.
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
        """Checks the batch size that new lines show, and that a new run starts at 0 samples.

        Args:
            lines: The new lines of the script, in order.
        """
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
                    f"the script reports {each:g} samples per step, but batch_size = {asked}: it does not "
                    "train with the batch size that it is given; correct workload.command or the script"
                ] = None

    def resumed(self) -> None:
        """Records that the script was asked to resume, so it need not start from scratch."""
        self._is_new = False

    def follow(self, attempt: Attempt, since: float | None) -> None:
        """Checks that a run that must start from scratch had enough time to train up to its first report.

        If not, `refusal` is set, since the run must have resumed from other files.

        Args:
            attempt: Training clock of the script's process, with its lines so far.
            since: Time on the prober's monotonic clock when the script started to run, seconds; None if it is
                not running.
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
        """Checks that the first score of a new run is not close to the last score of the run before it.

        Such a score shows that the script has resumed the other run instead of starting from scratch.

        Args:
            point: The first score of the run.
        """
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
            f"score of the run before it, {habits.last_score:g}, and far from the first scores of other "
            f"runs, {goal.sign * usual:g}"
        )
        if self.resume_words is None:
            self.remarks[f"{seems}. {_SHARES}"] = None
        elif self.refusal is None:
            self.refusal = f"{seems}, and the script says {self.resume_words}. {_SHARES}"

    def _refuse_start(self, samples: int) -> None:
        if self.refusal is None:
            self.refusal = (
                "a run that had to start from scratch resumed from other files: its first report is after "
                f"{samples} samples, more than it can have processed since it was started. {_SHARES}"
            )
